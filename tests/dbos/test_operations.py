"""Looking at workflows and steering them through every version of the client: lists, steps, events,
streams, children, deletion, rewinding, queues, schedules, versions."""

import pytest
from clients import ClientError, since, variants
from engine import overlap
from wait import eventually, together, unique


def test_a_status_has_its_fields(client, id):
    client.enqueue("echo", {"x": 1}, id=id, workflowClassName="Greeter", priority=3)
    client.result(id)
    status = client.status(id)
    assert (status["workflowID"], status["status"], status["workflowName"], status["workflowClassName"]) == (
        id, "SUCCESS", "echo", "Greeter")
    assert (status["queueName"], status["priority"]) == ("plain", 3)
    assert status["executorId"] and status["applicationVersion"]
    assert status["createdAt"] <= status["updatedAt"]


def test_workflows_are_listed(client):
    prefix = unique("list")
    for n in range(3):
        client.enqueue("echo", n, id=f"{prefix}-{n}")
    client.enqueue("fail", {"name": "E", "message": "m"}, id=f"{prefix}-9")
    together(lambda n: client.result(f"{prefix}-{n}"), range(3))
    with pytest.raises(ClientError):
        client.result(f"{prefix}-9")

    def ids(**wanted):
        return [w["workflowID"] for w in client.call("listWorkflows", {"workflow_id_prefix": prefix, **wanted})]

    assert ids() == [f"{prefix}-{n}" for n in (0, 1, 2, 9)]
    assert ids(status="SUCCESS", sortDesc=True, limit=2) == [f"{prefix}-2", f"{prefix}-1"]
    assert ids(workflowName="fail") == ids(status="ERROR") == [f"{prefix}-9"]
    assert ids(queueName="plain", offset=3) == [f"{prefix}-9"]
    (first,) = client.call("listWorkflows", {"workflowIDs": [f"{prefix}-0"], "loadInput": True, "loadOutput": True})
    assert (first["input"], first["output"]) == ([0], 0)


def test_what_waits_in_a_queue_is_listed(client, id):
    client.enqueue("work", {"gate": id}, id=id)
    client.world.begun(id)
    queued = client.call("listQueuedWorkflows", {"queueName": "plain"})
    assert id in [w["workflowID"] for w in queued]
    client.world.open_gate(id)
    client.result(id)
    assert id not in [w["workflowID"] for w in client.call("listQueuedWorkflows", {"queueName": "plain"})]


def test_steps_are_listed(client, id):
    client.enqueue("work", {"steps": 2}, id=id, workflowClassName="Worker")
    client.result(id)
    steps = client.call("listWorkflowSteps", id)
    assert [(s["functionID"], s["name"], s["output"], s["error"], s["childWorkflowID"]) for s in steps] == [
        (0, "piece", 0, None, None), (1, "piece", 10, None, None)]
    assert all(s["startedAtEpochMs"] <= s["completedAtEpochMs"] for s in steps)


def test_children(client, id):
    client.enqueue("parent", 2, id=id)
    assert client.result(id) == ["child 0", "child 1"]
    steps = client.call("listWorkflowSteps", id)
    assert [(s["name"], s["childWorkflowID"]) for s in steps if s["functionID"] % 2 == 0] == [
        ("echo", f"{id}-0"), ("echo", f"{id}-2")]
    assert [s["name"] for s in steps if s["functionID"] % 2 == 1] == ["DBOS.getResult"] * 2
    assert client.status(f"{id}-0")["status"] == "SUCCESS"
    assert client.world.row(f"{id}-0")["parent_workflow_id"] == id


def test_an_event_has_its_latest_value(client, id):
    client.enqueue("publish", {"key": "progress", "values": [1, {"percent": 50}, {"percent": 100}]}, id=id)
    assert client.result(id) is None
    assert client.call("getEvent", id, "progress", 30) == {"percent": 100}
    assert client.call("getEvent", id, "nothing", 0.2) is None
    history = client.world.rows(
        f"SELECT function_id AS f FROM dbos.workflow_events_history WHERE workflow_uuid = '{id}' ORDER BY 1")
    assert [row["f"] for row in history] == [0, 1, 2]


@pytest.mark.parametrize("close", [True, False])
def test_a_stream_ends_when_it_is_closed_or_its_workflow_is_over(client, id, close):
    values = [1, "two", {"three": 3}]
    client.enqueue("stream", {"key": "s", "values": values, "close": close}, id=id)
    if close and not client.has("stream-end"):
        values = [*values, "__DBOS_STREAM_CLOSED__"]  # what such a client gets from DBOS 5 too
    assert client.call("readStream", id, "s") == values


def test_a_workflow_that_does_not_exist(client, id):
    assert client.status(id) is None
    for method, *arguments in (("forkWorkflow", 0), ("send", "hello")):
        with pytest.raises(ClientError):
            client.call(method, id, *arguments)
    try:
        client.call("resumeWorkflow", id)  # an error in some versions and nothing in others
    except ClientError as e:
        assert id in e.message
    assert client.world.row(id) is None


@since("priority-change")
def test_priority_changes_in_the_queue(client, id):
    blocker = client.enqueue("work", {"gate": id}, id=f"{id}-blocker", queue="one")
    client.world.begun(blocker)
    client.enqueue("work", {}, id=f"{id}-early", queue="one", priority=4)
    client.enqueue("work", {}, id=f"{id}-late", queue="one", priority=9)
    client.call("setWorkflowPriority", f"{id}-late", 2)
    client.world.open_gate(id)
    client.result(f"{id}-early"), client.result(f"{id}-late")
    begun = [line[1] for line in client.world.ledger(f"{id}-") if line[0] == "begin"]
    assert begun == [blocker, f"{id}-late", f"{id}-early"]


@since("attributes")
def test_attributes(client, id):
    client.enqueue("echo", 1, id=id, attributes={"tenant": id, "n": 1})
    client.result(id)
    found = client.call("listWorkflows", {"attributes": {"tenant": id}})
    assert [w["workflowID"] for w in found] == [id] and found[0]["attributes"] == {"tenant": id, "n": 1}


@since("delete")
def test_deletion(client, id):
    client.enqueue("parent", 1, id=id)
    client.result(id)
    client.call("deleteWorkflow", id, True)
    if not client.has("payload-tables"):  # it leaves what it does not know
        assert client.world.row(id) is None and client.world.row(f"{id}-0") is None
        return
    left = client.world.rows(
        "SELECT (SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE '{0}%') AS s,"
        " (SELECT count(*) FROM dbos.workflow_input WHERE workflow_uuid LIKE '{0}%') AS i,"
        " (SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid LIKE '{0}%') AS o".format(id))
    assert left == [{"s": 0, "i": 0, "o": 0}]


@since("rewind")
def test_rewinding(client, id):
    client.enqueue("work", {"steps": 3}, id=id)
    assert client.result(id) == [0, 10, 20]
    client.call("rewindWorkflow", id, {"startStep": 1})
    assert client.result(id) == [0, 10, 20]
    assert client.world.runs(id) == {0: 1, 1: 2, 2: 2}


@since("queues")
def test_our_queues_and_versions_are_seen(client):
    names = {queue["name"] for queue in client.call("listQueues")}
    assert {"plain", "one", "rated", "parted"} <= names
    assert client.world.row(client.enqueue("echo", 1))["application_version"] in (
        None, *[version["versionName"] for version in client.call("listApplicationVersions")])
    assert client.call("getLatestApplicationVersion")["versionName"] == "1"


@since("queues")
def test_a_queue_the_client_makes_is_served(client, id):
    name = f"made-{id}"
    client.call("registerQueue", name, {"concurrency": 1, "minPollingIntervalMs": 200})
    ids = [client.enqueue("work", {"hold_ms": 30}, id=f"{id}-{n}", queue=name) for n in range(3)]
    assert [client.result(one) for one in ids] == [[0]] * 3
    assert overlap(client.world.ledger(f"{id}-")) == {None: 1}
    client.call("deleteQueue", name)


def test_a_schedule_is_triggered(client):
    schedule = client.schedule
    if client.version == "4.10.15":  # its client wants a launched DBOS for this
        with pytest.raises(ClientError, match="DBOS.launch"):
            client.call("triggerSchedule", schedule)
        return
    id = client.call("triggerSchedule", schedule)["handle"]
    assert id.startswith(f"sched-{schedule}-trigger-")
    assert client.result(id)["positional"][1] == {"who": client.version}


def test_a_schedule_fires(client):
    schedule = client.schedule

    def fired():
        return [row["w"] for row in client.world.rows(
            "SELECT workflow_uuid AS w FROM dbos.workflow_status WHERE status = 'SUCCESS'"
            f" AND workflow_uuid LIKE 'sched-{schedule}-2%'")]

    first = eventually(fired, 60, every=0.2)[0]
    when, context = client.result(first)["positional"]
    assert context == {"who": client.version} and f"sched-{schedule}-{when}" == first
    assert client.call("getSchedule", schedule)["status"] == "ACTIVE"


@pytest.mark.parametrize("client", variants("5.3.0-deaf", "5.3.0-bounced"), indirect=True)
def test_an_engine_that_cannot_listen_says_so(client, request):
    deaf = "deaf" in request.node.name
    words = "no news of other engines arrive by LISTEN"
    for host in client.hosts:
        if deaf:
            eventually(lambda: words in host.log(), 30, every=0.2)
        else:
            assert words not in host.log()
