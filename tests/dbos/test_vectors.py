"""What a client of DBOS asks for is done as an engine of DBOS would: vectors V1 to V13.

Each is tried with every version of the client (V15), all at one database with two engines.
"""

import json
import time

import pytest
from clients import PATIENCE, ClientError, since
from engine import overlap
from wait import eventually, together, unique

CANCELLED, DEDUPLICATED, OTHER_WORKFLOW, ID_IN_USE, DEAD = 27, 28, 22, 36, 30


def refused(future_or_call, code):
    with pytest.raises(ClientError) as caught:
        future_or_call()
    assert caught.value.dbos == code, caught.value
    return caught.value


# --- V1, V2: values ---


def test_v1_a_native_call_of_a_method(client, id):
    argument = {"a": 1, "b": [True, None, "ü"], "c": {"deep": 1.5}}
    client.enqueue("echo", argument, id=id, workflowClassName="Greeter")
    assert client.result(id) == argument
    row = client.world.row(id)
    stored = json.loads(row["new_inputs"] or row["inputs"])
    assert stored["json"] == [argument]
    assert stored["__dbos_serializer"] == "superjson"
    assert (row["status"], row["class_name"], row["config_name"]) == ("SUCCESS", "Greeter", None)
    assert row["owner_xid"] is None and row["deduplication_id"] is None
    assert row["recovery_attempts"] == 1 and row["started_at_epoch_ms"] <= row["completed_at"]
    assert row["executor_id"] and row["application_version"]
    # clients before 5.0 read the first, later ones the second
    assert json.loads(row["output"]) == json.loads(row["new_output"]) == {
        "json": argument, "__dbos_serializer": "superjson"}
    assert row["error"] is None and row["new_error"] is None
    assert row["serialization"] in ("js_superjson", None)


def test_v1_a_method_and_a_function_of_one_name_are_two(client, id):
    client.enqueue("work", {}, id=id, workflowClassName="Worker")
    assert client.result(id) == [0]
    other = client.enqueue("echo", "plain", id=f"{id}-plain")
    assert client.result(other) == "plain"
    assert client.world.row(other)["class_name"] is None


def test_v1_values_json_does_not_have(client, id):
    client.enqueue("echo", {"when": {"$date": 0}, "nothing": {"$undefined": True}}, id=id)
    assert client.result(id)["when"] == "1970-01-01T00:00:00.000Z"
    empty = client.enqueue("echo", id=f"{id}-empty")
    assert client.result(empty) is None


def test_v2_a_portable_call(client, id):
    client.enqueue("mirror", [{"when": {"$date": 0}}], {"k": 1}, id=id, method="enqueuePortable")
    when = {"when": "1970-01-01T00:00:00.000Z"}
    assert client.result(id) == {"positional": [when], "named": {"k": 1}}
    row = client.world.row(id)
    assert json.loads(row["new_inputs"] or row["inputs"]) == {"positionalArgs": [when], "namedArgs": {"k": 1}}
    assert row["serialization"] == "portable_json"
    assert json.loads(row["output"]) == json.loads(row["new_output"]) == {"positional": [when], "named": {"k": 1}}


def test_v1_strings_that_only_javascript_has(client, id):
    client.enqueue("echo", "nul \0, half a pair \ud83d, a pair \ud83d\ude00", id=id)
    assert client.result(id) == "nul \ufffd, half a pair \ufffd, a pair \U0001f600"


# --- V3: errors ---


HOW = {"name": "OutOfStock", "message": "none left", "code": "E42", "data": {"left": 0}}


def test_v3_a_native_client_gets_an_error(client, id):
    client.enqueue("fail", HOW, id=id)
    with pytest.raises(ClientError) as caught:
        client.result(id)
    assert (caught.value.name, caught.value.message) == ("OutOfStock", "none left")
    row = client.world.row(id)
    assert row["status"] == "ERROR" and row["output"] is None and row["new_output"] is None
    assert row["error"] == row["new_error"] and json.loads(row["error"])["__dbos_serializer"] == "superjson"
    assert client.status(id)["error"]["message"] == "none left"


def test_v3_a_portable_client_gets_code_and_data(client, id):
    client.enqueue("fail", [HOW], id=id, method="enqueuePortable")
    with pytest.raises(ClientError) as caught:
        client.result(id)
    error = caught.value
    assert error.type == "PortableWorkflowError"
    assert (error.name, error.message, error.code, error.data) == ("OutOfStock", "none left", "E42", {"left": 0})
    assert json.loads(client.world.row(id)["new_error"]) == HOW


# --- V4, V5: one id, one dedup id ---


def test_v4_an_id_is_one_run(client, id):
    for _ in range(3):
        assert client.enqueue("work", {"steps": 2, "gate": id}, id=id) == id
    result = client.awaited(id)
    client.world.begun(id)
    client.world.open_gate(id)
    assert result.result(PATIENCE) == [0, 10]
    assert client.enqueue("work", {"steps": 2}, id=id) == id
    assert client.world.runs(id) == {0: 1, 1: 1}


def test_v4_an_id_belongs_to_a_name(client, id):
    client.enqueue("echo", 1, id=id)
    refused(lambda: client.enqueue("mirror", 1, id=id), OTHER_WORKFLOW)
    assert client.result(id) == 1
    if client.has("reuse-policy"):
        refused(lambda: client.enqueue("echo", 1, id=id, workflowIDReusePolicy="reject"), ID_IN_USE)


def test_v5_a_dedup_id_is_free_again_afterwards(client, id):
    client.enqueue("work", {"gate": id}, id=id, deduplicationID=id)
    refused(lambda: client.enqueue("work", {"gate": id}, id=f"{id}-2", deduplicationID=id), DEDUPLICATED)
    if client.has("dedup-join"):
        assert client.enqueue("work", {}, deduplicationID=id, duplicationPolicy="return-existing") == id
    client.world.begun(id)
    refused(lambda: client.enqueue("work", {"gate": id}, id=f"{id}-2", deduplicationID=id), DEDUPLICATED)
    client.world.open_gate(id)
    assert client.result(id) == [0]
    assert client.world.row(id)["deduplication_id"] is None
    assert client.result(client.enqueue("work", {}, id=f"{id}-3", deduplicationID=id)) == [0]


# --- V6: cancel, resume ---


def test_v6_cancelled_in_the_queue_and_resumed(client, id):
    blocker = client.enqueue("work", {"gate": id}, id=f"{id}-blocker", queue="one")
    client.enqueue("work", {"steps": 2}, id=id, queue="one")
    client.call("cancelWorkflow", id)
    row = client.world.row(id)
    assert (row["status"], row["queue_name"], row["started_at_epoch_ms"]) == ("CANCELLED", None, None)
    assert row["completed_at"] is not None or not client.has("completed-at")  # cancelling is the client's own SQL
    refused(lambda: client.result(id), CANCELLED)
    client.world.open_gate(id)
    assert client.result(blocker) == [0]
    assert client.world.runs(id) == {}
    client.call("resumeWorkflow", id)
    assert client.result(id) == [0, 10]
    row = client.world.row(id)
    assert (row["queue_name"], row["recovery_attempts"]) == ("_dbos_internal_queue", 1)


def test_v6_cancelled_while_it_runs(client, id):
    client.enqueue("work", {"steps": 3, "at": 1, "gate": id}, id=id)
    client.world.begun(id, step=1)
    client.call("cancelWorkflow", id)
    refused(lambda: client.result(id), CANCELLED)
    client.world.open_gate(id)
    client.call("resumeWorkflow", id)
    assert client.result(id) == [0, 10, 20]
    assert client.world.runs(id) == {0: 1, 1: 2, 2: 1}


def test_v6_cancelled_while_it_sleeps(client, id):
    client.enqueue("nap", 3_600_000, id=id)
    eventually(lambda: client.call("listWorkflowSteps", id), 30, every=0.1)
    client.call("cancelWorkflow", id)
    refused(lambda: client.result(id), CANCELLED)
    assert client.world.row(id)["owner_xid"] is None


# --- V7: fork ---


def test_v7_a_fork_has_the_steps_before(client, id):
    client.enqueue("work", {"steps": 3}, id=id)
    assert client.result(id) == [0, 10, 20]
    fork = client.call("forkWorkflow", id, 1, {"newWorkflowID": f"{id}-fork"})
    fork = fork if isinstance(fork, str) else fork["handle"]
    assert fork == f"{id}-fork" and client.result(fork) == [0, 10, 20]
    assert client.world.runs(fork) == {1: 1, 2: 1} and client.world.runs(id) == {0: 1, 1: 1, 2: 1}
    assert client.world.row(fork)["forked_from"] == id
    steps = client.call("listWorkflowSteps", fork)
    assert [(s["functionID"], s["name"], s["output"]) for s in steps] == [
        (0, "piece", 0), (1, "piece", 10), (2, "piece", 20)]


# --- V8, V9: crashes ---


def test_v8_killed_in_a_step(client, world, at, id):
    there, host = at(world), world.host("victim")
    there.enqueue("work", {"steps": 4, "at": 2, "gate": id}, id=id)
    world.begun(id, step=2)
    host.kill()
    world.host("victim")
    world.begun(id, step=2, times=2)
    world.open_gate(id)
    assert there.result(id) == [0, 10, 20, 30]
    assert world.runs(id) == {0: 1, 1: 1, 2: 2, 3: 1}
    row = world.row(id)
    assert (row["status"], row["recovery_attempts"], row["queue_name"]) == ("SUCCESS", 2, "plain")


def test_v9_given_up_after_too_many_starts(client, world, at, id):
    there, limit, host = at(world), 3, world.host("victim")  # fragile may be started anew twice
    there.enqueue("fragile", {"gate": id}, id=id)
    for start in range(1, limit + 1):
        world.begun(id, times=start)
        host.kill()
        host = world.host("victim")
    row = world.wait_status(id, "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    assert world.runs(id) == {0: limit}
    assert (row["owner_xid"], row["queue_name"], row["started_at_epoch_ms"]) == (None, None, None)
    assert row["completed_at"] is not None
    if there.has("dead-error"):
        refused(lambda: there.result(id), DEAD)
    else:
        assert there.result(id) is None  # these do not know the status as an error
    world.open_gate(id)
    there.call("resumeWorkflow", id)
    assert there.result(id) == [0]


# --- V10, V11: time ---


def test_v10_a_delay(client, id):
    before = int(time.time() * 1000)
    if not client.has("delay"):  # this client has no such option: the database's function has
        client.world.psql("SELECT dbos.enqueue_workflow('echo', 'plain', ARRAY['7'::json], workflow_id => '%s',"
                          " delay_until_epoch_ms => (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 1500)" % id)
    else:
        client.enqueue("echo", 7, id=id, delaySeconds=1.5)
    row = client.world.row(id)
    looked = int(time.time() * 1000)
    assert row["delay_until_epoch_ms"] >= before + 1500
    assert row["status"] in ("DELAYED", "ENQUEUED") or looked >= row["delay_until_epoch_ms"]  # a busy machine looks late
    assert client.result(id) == 7
    assert client.world.row(id)["started_at_epoch_ms"] >= row["delay_until_epoch_ms"]


@since("delay")
def test_v10_a_delay_that_is_changed(client, id):
    client.enqueue("echo", 7, id=id, delaySeconds=3600)
    client.call("setWorkflowDelay", id, {"delaySeconds": 1})
    assert client.result(id) == 7
    row = client.world.row(id)
    assert row["started_at_epoch_ms"] >= row["delay_until_epoch_ms"]


@pytest.mark.parametrize("workflow", ["in a step", "asleep"])
def test_v11_a_timeout(client, id, workflow):
    if workflow == "asleep":
        client.enqueue("nap", 3_600_000, id=id, workflowTimeoutMS=1200)
    else:
        client.enqueue("work", {"gate": f"{id}-never"}, id=id, workflowTimeoutMS=1200)
    row = client.world.wait_row(id, lambda row: row["workflow_deadline_epoch_ms"])
    if row["started_at_epoch_ms"]:  # else it has ended already
        assert row["workflow_deadline_epoch_ms"] == row["started_at_epoch_ms"] + 1200
    refused(lambda: client.result(id), CANCELLED)
    after = client.world.row(id)
    assert (after["status"], after["queue_name"], after["owner_xid"]) == ("CANCELLED", None, None)
    assert after["completed_at"] >= row["workflow_deadline_epoch_ms"]


# --- V12: order and limits, with two engines ---


def test_v12_lower_priorities_first_and_first_come_first_served(client, id):
    blocker = client.enqueue("work", {"gate": id}, id=f"{id}-blocker", queue="one")
    client.world.begun(blocker)
    order = [("c", 10), ("a", 1), ("b", 5), ("b2", 5), ("a2", 1)]
    for name, priority in order:
        client.enqueue("work", {}, id=f"{id}-{name}", queue="one", priority=priority)
        time.sleep(0.002)  # created_at counts milliseconds
    client.world.open_gate(id)
    for name, _ in order:
        assert client.result(f"{id}-{name}") == [0]
    begun = [line[1] for line in client.world.ledger(f"{id}-") if line[0] == "begin" and line[1] != blocker]
    assert begun == [f"{id}-{name}" for name in ("a", "a2", "b", "b2", "c")]


def test_v12_no_more_at_once_than_the_queue_allows(client):
    ids = [unique("three") for _ in range(9)]
    together(lambda id: client.enqueue("work", {"hold_ms": 60}, id=id, queue="three"), ids)
    assert together(client.result, ids) == [[0]] * len(ids)
    most = overlap(client.world.ledger("three-"))
    assert most[None] <= 3, most
    pids = {line[3] for line in client.world.ledger("three-")}
    assert pids  # the ledger was looked at


def test_v12_no_more_at_once_in_a_process_than_allowed(client):
    ids = [unique("each") for _ in range(8)]
    together(lambda id: client.enqueue("work", {"hold_ms": 60}, id=id, queue="each"), ids)
    assert together(client.result, ids) == [[0]] * len(ids)
    most = overlap(client.world.ledger("each-"), same=lambda line: line[3])
    assert most and max(most.values()) <= 2, most


def test_v12_no_more_starts_than_the_rate_allows(client):
    ids = [unique("rated") for _ in range(6)]
    together(lambda id: client.enqueue("work", {}, id=id, queue="rated"), ids)
    assert together(client.result, ids) == [[0]] * len(ids)
    starts = [row["ms"] for row in client.world.rows(
        "SELECT started_at_epoch_ms AS ms FROM dbos.workflow_status WHERE queue_name = 'rated'"
        " AND started_at_epoch_ms IS NOT NULL ORDER BY 1")]
    assert len(starts) >= len(ids)
    assert all(later - earlier >= 1500 for earlier, later in zip(starts, starts[4:])), starts


def test_v12_one_at_a_time_of_each_partition(client):
    prefix = unique("parted")
    ids = [f"{prefix}-{key}-{n}" for n in range(3) for key in "ab"]
    for id in ids:
        client.enqueue("work", {"hold_ms": 40}, id=id, queue="parted", queuePartitionKey=f"{prefix}-{id.split('-')[-2]}")
        time.sleep(0.002)
    assert together(client.result, ids) == [[0]] * len(ids)
    lines = client.world.ledger(prefix)
    assert set(overlap(lines, same=lambda line: line[1].rsplit("-", 1)[0]).values()) == {1}
    for key in "ab":
        begun = [line[1] for line in lines if line[0] == "begin" and f"-{key}-" in line[1]]
        assert begun == [f"{prefix}-{key}-{n}" for n in range(3)]


# --- V13: messages ---


def test_v13_messages_once_and_in_order(client, id):
    client.enqueue("receive", {"count": 2, "topic": "news"}, id=id)
    client.call("send", id, {"n": 1}, "news", f"{id}-key")
    client.call("send", id, {"n": 1}, "news", f"{id}-key")
    client.call("send", id, "elsewhere", "other")
    time.sleep(0.002)
    client.call("send", id, {"n": 2}, "news", f"{id}-key2", {"serializationType": "portable"})
    assert client.result(id) == [{"n": 1}, {"n": 2}]
    sent = client.world.rows(f"SELECT topic, consumed FROM dbos.notifications WHERE destination_uuid = '{id}'")
    assert sorted((row["topic"], row["consumed"]) for row in sent) == [("news", True), ("news", True), ("other", False)]


def test_v13_a_message_without_a_topic(client, id):
    client.enqueue("receive", {"count": 1}, id=id)
    client.call("send", id, [1, None])
    assert client.result(id) == [[1, None]]
    assert client.world.rows(f"SELECT topic FROM dbos.notifications WHERE destination_uuid = '{id}'") == [
        {"topic": "__null__topic__"}]


def test_v13_no_message_is_null(client, id):
    client.enqueue("receive", {"count": 1, "topic": "silence", "timeout_ms": 300}, id=id)
    assert client.result(id) == [None]


def test_v13_the_wait_for_a_message_survives_a_restart(client, world, at, id):
    there, host = at(world), world.host("victim")
    there.enqueue("receive", {"count": 1, "topic": "silence", "timeout_ms": 2500}, id=id)

    def marker():
        return world.rows("SELECT output, completed_at_epoch_ms AS until FROM dbos.operation_outputs"
                          f" WHERE workflow_uuid = '{id}' AND function_id = 1 AND function_name = 'DBOS.sleep'")

    before = eventually(marker, 30)
    host.kill()
    world.host("victim")
    assert there.result(id) == [None]
    assert marker() == before
    row = world.row(id)
    # An engine knows the server's clock as well as a question and its answer tell it.
    assert row["completed_at"] >= float(before[0]["output"]) - 100 and row["recovery_attempts"] == 2
