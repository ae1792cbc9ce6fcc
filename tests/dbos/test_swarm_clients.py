"""DBOS's own clients start the backend's workflows: vector 15, and the lives of agents.

Against a chelad, not the engine alone: the workflows are those that it brings, on its queue.
"""

import os
import pathlib
import re
import uuid

import pytest
from clients import Session, variants
from engine import World
from wait import eventually, unique

BUILD = pathlib.Path(os.environ.get("CHELA_BUILD_DIR", "build")).resolve()
os.environ.setdefault("CHELA_BIN", str(BUILD / "bin"))

import chelad  # noqa: E402
from conftest import new_database  # noqa: E402
from gateway import Socket  # noqa: E402

MESSAGES, LIVES = "AgentMessageWorkflow", "AgentLifecycleWorkflow"


@pytest.fixture(scope="module")
def backend(scratch):
    name, url = new_database()
    path = scratch / name
    path.mkdir()
    daemon = chelad.Daemon(path / "state", env={"DATABASE_URL": url}).start()
    daemon.world = World(path / "world", url)
    yield daemon
    daemon.stop()


@pytest.fixture(params=variants("4.10.15", "5.3.0", group="backend"))
def theirs(request, node, backend):
    return Session(node(request.param), backend.world)


def start(theirs, method, argument, class_name=LIVES, **options):
    return theirs.enqueue(method, argument, queue="chela", workflowClassName=class_name, **options)


def run(theirs, method, argument, class_name=LIVES, **options):
    return theirs.result(start(theirs, method, argument, class_name, **options))


def message(recipient, **fields):
    return {"id": unique("m"), "from": "a DBOS client", "to": recipient, "content": "hëllo ✓", "timestamp": 1771600000000,
            **fields}


def test_v15_a_message(theirs, backend):
    to = unique("agent:dbos")
    sent = message(to, metadata={"deep": [1, None]})
    result = run(theirs, "routeAgentMessage", sent, MESSAGES)
    assert {"messageId", "status", "deliveryAttempts", "lastAttemptTime"} <= set(result)
    assert (result["messageId"], result["status"], result["deliveryAttempts"]) == (sent["id"], "delivered", 1)
    assert isinstance(result["lastAttemptTime"], int)
    with Socket(backend) as consumer:
        consumer.subscribe(to)
        got = consumer.message()
        assert {name: got[name] for name in ("messageId", "from", "to", "content", "metadata")} == {
            "messageId": sent["id"], "from": sent["from"], "to": to, "content": sent["content"],
            "metadata": {"deep": [1, None]}}
        consumer.ack(sent["id"])
        consumer.quiet(0.3)


def test_v15_its_record(theirs, backend):
    id = start(theirs, "routeAgentMessage", message(unique("agent:dbos")), MESSAGES)
    theirs.result(id)
    row = backend.world.row(id)
    assert (row["name"], row["class_name"], row["status"]) == ("routeAgentMessage", MESSAGES, "SUCCESS")
    steps = backend.world.rows("SELECT function_id, function_name FROM dbos.operation_outputs"
                               f" WHERE workflow_uuid = '{id}' ORDER BY function_id")
    assert [step["function_name"] for step in steps[:3]] == ["validateMessage", "storeMessage", "routeMessage"]
    assert backend.http.get(f"/workflows/{id}").json()["status"] == "SUCCESS"


def test_v15_the_portable_format(theirs):
    sent = message(unique("agent:dbos"))
    id = theirs.enqueue("routeAgentMessage", [sent], queue="chela", workflowClassName=MESSAGES,
                        method="enqueuePortable")
    assert theirs.result(id)["messageId"] == sent["id"]


def test_v15_messages_of_one_id_are_one(theirs, backend):
    to = unique("agent:dbos")
    sent = message(to)
    results = [run(theirs, "routeAgentMessage", sent, MESSAGES) for _ in range(2)]
    assert [one["messageId"] for one in results] == [sent["id"]] * 2
    with Socket(backend) as consumer:
        consumer.subscribe(to)
        consumer.ack(consumer.message()["messageId"])
        consumer.quiet(0.3)


@pytest.mark.parametrize("lacking", ["id", "from", "to", "content"])
def test_v15_a_message_without_a_field_is_an_error(theirs, lacking):
    id = start(theirs, "routeAgentMessage", message("agent:dbos:x", **{lacking: ""}), MESSAGES)
    with pytest.raises(Exception, match="Invalid message: missing required fields"):
        theirs.result(id)
    assert theirs.status(id)["status"] == "ERROR"


def request(**fields):
    name = unique("dbos-agent")
    return {"agentId": str(uuid.uuid4()), "name": name, "model": "anthropic/claude", "userId": str(uuid.uuid4()),
            "sessionKey": f"agent:{name}:main", "heartbeatEnabled": True, "heartbeatInterval": "30m",
            "heartbeatChecklist": ["one", "two"], "configuration": {"a": 1}, **fields}


def show(backend, agent):
    return backend.http.get(f"/api/v1/agents/{agent}").json()


def test_a_life_by_the_clients_of_dbos(theirs, backend):
    wanted = request()
    made = run(theirs, "provisionAgentWorkflow", wanted)
    assert made["status"] == "provisioned" and made["sessionKey"] == wanted["sessionKey"]
    assert re.match(rf"openclaw_{wanted['agentId']}_", made["openclawAgentId"])
    assert show(backend, wanted["agentId"])["status"] == "running"
    beat = run(theirs, "heartbeatWorkflow", {"executionId": unique("hb"), "agentId": wanted["agentId"],
                                             "checklist": ["one", "two", "three"]})
    assert beat["status"] == "completed" and beat["result"]["tasksCompleted"] == 3
    both = {"agentId": wanted["agentId"], "sessionKey": wanted["sessionKey"], "preserveState": True}
    paused = run(theirs, "pauseResumeWorkflow", {**both, "action": "pause"})
    assert paused["status"] == "success" and paused["state"]["heartbeatInterval"] == "30m"
    assert show(backend, wanted["agentId"])["status"] == "paused"
    skipped = run(theirs, "heartbeatWorkflow", {"executionId": unique("hb"), "agentId": wanted["agentId"],
                                                "checklist": []})
    assert skipped["status"] == "skipped"
    resumed = run(theirs, "pauseResumeWorkflow", {**both, "action": "resume"})
    assert resumed["status"] == "success" and show(backend, wanted["agentId"])["status"] == "running"


def test_what_fails_says_why(theirs, backend):
    made = run(theirs, "provisionAgentWorkflow", request(model="gpt"))
    assert (made["status"], made["error"]) == ("failed", "Invalid model format: must be provider/model-name")
    nobody = str(uuid.uuid4())
    paused = run(theirs, "pauseResumeWorkflow", {"agentId": nobody, "action": "pause", "sessionKey": "x",
                                                 "preserveState": True})
    assert (paused["status"], paused["error"]) == ("failed", f"Agent not found: {nobody}")


METHODS = [("routeAgentMessage", MESSAGES), ("provisionAgentWorkflow", LIVES), ("heartbeatWorkflow", LIVES),
           ("pauseResumeWorkflow", LIVES)]
NONSENSE = [None, 7, "text", [], [[]], {}, {"agentId": 7, "id": [], "action": {}},
            {"agentId": "x" * 5000, "executionId": "x" * 5000, "id": "x" * 5000}]


@pytest.fixture(scope="module")
def nonsense(backend):
    """Ids by version, method and argument: all are started at once, for each waits for the daemon's next look."""
    started = {}

    def get(theirs):
        if theirs.version not in started:
            started[theirs.version] = {(method, n): start(theirs, method, argument, class_name)
                                       for method, class_name in METHODS for n, argument in enumerate(NONSENSE)}
        return started[theirs.version]

    return get


@pytest.mark.parametrize("method", [method for method, _ in METHODS])
@pytest.mark.parametrize("argument", range(len(NONSENSE)))
def test_nonsense_ends_by_itself(theirs, backend, nonsense, method, argument):
    """An error or a failed result, no crash and no workflow that is tried for ever."""
    id = nonsense(theirs)[method, argument]
    eventually(lambda: theirs.status(id)["status"] in ("SUCCESS", "ERROR"), 30, every=0.05)
    status = theirs.status(id)
    if status["status"] == "SUCCESS":
        assert theirs.result(id)["status"] in ("failed", "skipped")
    assert status["recoveryAttempts"] <= 1 if "recoveryAttempts" in status else True
    assert backend.http.get("/health").status_code == 200
