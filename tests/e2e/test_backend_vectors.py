"""The black-box vectors of the agent backend: the gateway (1 to 13) and the REST interface (16 to 21).

14 is in test_backend_recovery.py, 15 in tests/dbos, and the texts of 21 beside the code that makes them.
"""

import datetime
import json
import re
import uuid

import postgres
import pytest
from gateway import Failed, Socket, post_message
from starter import Starter
from wait import eventually, unique
from workflows import sql

MISSING = "Invalid message: missing required fields"


def gateway_workflow(daemon, name, body, status=200):
    answer = daemon.http.post(f"/workflows/{name}", json=body)
    assert answer.status_code == status, answer.text
    done = answer.json()
    if status == 200:
        assert done["success"] is True and done["workflowUuid"]
    return done


def provision(daemon, **fields):
    """POST /workflows/provision-agent as the original's backend did; the request and the answer."""
    name = unique("worker")
    request = {"agentId": str(uuid.uuid4()), "name": name, "persona": "terse", "model": "anthropic/claude-3-5-sonnet",
               "userId": str(uuid.uuid4()), "sessionKey": f"agent:{name}:main", "heartbeatEnabled": True,
               "heartbeatInterval": "15m", "heartbeatChecklist": ["a", "b"], "configuration": {"depth": 3}, **fields}
    return request, gateway_workflow(daemon, "provision-agent", request)


def agent(daemon, agent_id):
    answer = daemon.http.get(f"/api/v1/agents/{agent_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status, text=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert list(body) == ["error"] and isinstance(body["error"], str)
    assert text is None or body["error"] == text


# --- 1: health ---

def test_v01_health_has_four_keys(daemon):
    answer = daemon.http.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"status", "service", "dbos", "timestamp"}
    assert (body["status"], body["service"], body["dbos"]) == ("healthy", "openclaw-gateway", "connected")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])


def test_v01_health_tells_that_postgresql_is_gone(start, store):
    if store.kind != "postgres":
        pytest.skip("SQLite's database is a file, there is no server that could be stopped")
    cluster = postgres.Cluster(in_memory=True).start()
    try:
        daemon = start(env={"DATABASE_URL": cluster.new_database()}, fresh=False)
        assert daemon.http.get("/health").status_code == 200
        cluster.stop()
        answer = eventually(lambda: (lambda one: one if one.status_code == 503 else None)(
            daemon.http.get("/health")), 30, every=0.1)
        assert (answer.json()["status"], answer.json()["dbos"]) == ("unhealthy", "disconnected")
        lost = daemon.http.post("/messages", json={"from": "a", "to": "b", "content": "x"})
        assert lost.status_code == 503, lost.text
        cluster.start()
        eventually(lambda: daemon.http.get("/health").status_code == 200, 30, every=0.1)
        post_message(daemon, "b")
    finally:
        cluster.remove()


# --- 2 to 6: messages over HTTP ---

def test_v02_an_unknown_workflow_is_not_found_with_200(daemon):
    answer = daemon.http.get("/workflows/nope")
    assert answer.status_code == 200
    assert answer.json() == {"workflowUuid": "nope", "status": "not_found"}


def test_v03_a_message_is_delivered(daemon):
    done = post_message(daemon, unique("agent:v3"))
    assert {"success", "workflowUuid", "result"} <= set(done) and done["success"] is True
    result = done["result"]
    assert re.fullmatch(r"msg_\d+(_\w+)?", result["messageId"])  # two in one millisecond are two
    assert result["status"] == "delivered" and result["deliveryAttempts"] == 1
    assert isinstance(result["lastAttemptTime"], int) and result["lastAttemptTime"] > 1_700_000_000_000
    status = daemon.http.get(f"/workflows/{done['workflowUuid']}").json()
    assert status["workflowUuid"] == done["workflowUuid"] and status["status"] == "SUCCESS"


def test_v03_messages_without_id_are_different_ones(daemon):
    to = unique("agent:v3")
    made = [post_message(daemon, to, "same words") for _ in range(20)]
    assert len({one["workflowUuid"] for one in made}) == len({one["result"]["messageId"] for one in made}) == 20


def test_v04_the_same_id_is_the_same_message(daemon):
    to = unique("agent:v4")
    first, second = (post_message(daemon, to, id="m1") for _ in range(2))
    assert first["workflowUuid"] == second["workflowUuid"]
    assert first["result"]["messageId"] == second["result"]["messageId"] == "m1"
    with Socket(daemon) as consumer:
        consumer.subscribe(to)
        got = consumer.message()
        assert (got["messageId"], got["content"], got["from"], got["to"]) == ("m1", "hello", "tester", to)
        consumer.ack("m1")
        consumer.quiet(0.3)


def test_v04_an_id_means_a_message_of_one_sender_to_one_recipient(daemon):
    to = unique("agent:v4")
    made = [post_message(daemon, to, id="m1"), post_message(daemon, to, id="m1", sender="other"),
            post_message(daemon, to + "x", id="m1")]
    assert len({one["workflowUuid"] for one in made}) == 3


def test_v04_the_header_names_the_workflow(daemon):
    key, to = unique("key"), unique("agent:v4")
    made = [post_message(daemon, to, headers={"dbos-idempotency-key": key}) for _ in range(2)]
    assert made[0]["workflowUuid"] == made[1]["workflowUuid"]
    assert made[0]["result"]["messageId"] == made[1]["result"]["messageId"]


@pytest.mark.parametrize("body", [
    {"from": "a", "to": "", "content": "x"}, {"from": "", "to": "b", "content": "x"},
    {"from": "a", "to": "b", "content": ""}, {"to": "b", "content": "x"}, {"from": "a", "content": "x"},
    {"from": "a", "to": "b"}, {}])
def test_v05_what_lacks_a_field_is_refused(daemon, body):
    refused(daemon.http.post("/messages", json=body), 400, MISSING)


def test_v05_the_legacy_switch_makes_it_500(start):
    daemon = start(env={"LEGACY_STATUS_CODES": "1"})
    refused(daemon.http.post("/messages", json={"from": "a", "to": "", "content": "x"}), 500, MISSING)


@pytest.mark.parametrize("text", ["{broken", "", "null", "7", '"text"', "[1]", '{"from":"a",}', "\x00", "{}garbage"])
def test_v06_broken_json_is_400_without_a_stack(daemon, text):
    answer = daemon.http.post("/messages", content=text.encode(), headers={"Content-Type": "application/json"})
    refused(answer, 400)
    assert "src/" not in answer.text and "    at " not in answer.text


def test_v06_a_missing_body_is_400(daemon):
    refused(daemon.http.post("/messages"), 400)


def test_v06_two_mebibytes_are_too_many(daemon):
    body = {"from": "a", "to": "b", "content": "x" * (2 << 20)}
    assert daemon.http.post("/messages", json=body).status_code == 413
    post_message(daemon, unique("agent:v6"), "x" * 900_000)  # under MAX_MESSAGE_SIZE


# --- 7 to 10: lifecycle over the gateway ---

def test_v07_provisioning(daemon):
    request, done = provision(daemon)
    result = done["result"]
    assert result["status"] == "provisioned" and result["agentId"] == request["agentId"]
    assert result["openclawAgentId"].startswith(f"openclaw_{request['agentId']}_")
    assert result["sessionKey"] == request["sessionKey"] and result["timestamp"]
    row = agent(daemon, request["agentId"])
    assert row["status"] == "running" and row["openclaw_agent_id"] == result["openclawAgentId"]
    assert row["provisioned_at"] and row["error_message"] is None and row["error_count"] == 0
    assert row["heartbeat_enabled"] is True and row["heartbeat_interval"] == "15m"
    assert row["heartbeat_checklist"] == ["a", "b"] and row["configuration"] == {"depth": 3}
    assert row["next_heartbeat_at"] and row["user_id"] == request["userId"]
    assert daemon.http.get(f"/workflows/{done['workflowUuid']}").json()["status"] == "SUCCESS"
    again = gateway_workflow(daemon, "provision-agent", request)
    assert again["workflowUuid"] == done["workflowUuid"] and again["result"] == result


def test_v08_a_model_without_a_provider_fails(daemon):
    request, done = provision(daemon, model="gpt")
    result = done["result"]
    assert result["status"] == "failed" and result["agentId"] == request["agentId"]
    assert result["error"] == "Invalid model format: must be provider/model-name"
    row = agent(daemon, request["agentId"])
    assert (row["status"], row["error_count"]) == ("failed", 1)
    assert row["error_message"] == result["error"]


@pytest.mark.parametrize("missing", ["agentId", "name", "model", "userId", "sessionKey"])
def test_v08_a_request_without_a_required_field_fails(daemon, missing):
    done = provision(daemon, **{missing: None})[1]
    assert done["result"]["status"] == "failed"
    assert done["result"]["error"] == "Invalid provision request: missing required fields"


def test_v09_a_heartbeat(daemon):
    request, _ = provision(daemon)
    before = agent(daemon, request["agentId"])
    execution = f"hb_{request['agentId']}_1771600000"
    done = gateway_workflow(daemon, "heartbeat", {
        "agentId": request["agentId"], "sessionKey": request["sessionKey"], "checklist": ["a", "b"],
        "executionId": execution})
    result = done["result"]
    assert (result["status"], result["executionId"]) == ("completed", execution)
    assert result["result"]["tasksCompleted"] == 2 and result["result"]["checklist"] == ["a", "b"]
    assert isinstance(result["duration"], (int, float)) and result["duration"] >= 0
    rows = sql(daemon, "SELECT status, agent_id, workflow_uuid FROM agent_heartbeat_executions"
                       f" WHERE id = '{execution}'")
    assert rows == [["completed", request["agentId"], done["workflowUuid"]]]
    after = agent(daemon, request["agentId"])
    assert after["last_heartbeat_at"] and after["next_heartbeat_at"] > before["next_heartbeat_at"]
    assert seconds(after["next_heartbeat_at"]) - seconds(after["last_heartbeat_at"]) == pytest.approx(900, abs=2)
    again = gateway_workflow(daemon, "heartbeat", {
        "agentId": request["agentId"], "sessionKey": request["sessionKey"], "checklist": ["a", "b"],
        "executionId": execution})
    assert again["workflowUuid"] == done["workflowUuid"] and again["result"] == result


def seconds(text):
    return datetime.datetime.fromisoformat(text).timestamp()


def pause_resume(daemon, request, action, preserve=True):
    return gateway_workflow(daemon, "pause-resume", {
        "agentId": request["agentId"], "action": action, "sessionKey": request["sessionKey"],
        "preserveState": preserve})["result"]


def test_v10_pause_keeps_the_state_and_resume_restores_it(daemon):
    request, _ = provision(daemon)
    before = agent(daemon, request["agentId"])
    paused = pause_resume(daemon, request, "pause")
    assert (paused["status"], paused["action"], paused["agentId"]) == ("success", "pause", request["agentId"])
    assert {"configuration", "heartbeatEnabled", "heartbeatInterval", "nextHeartbeatAt", "previousStatus",
            "capturedAt"} <= set(paused["state"])
    assert paused["state"]["configuration"] == {"depth": 3} and paused["state"]["previousStatus"] == "running"
    row = agent(daemon, request["agentId"])
    assert row["status"] == "paused" and row["paused_at"]
    resumed = pause_resume(daemon, request, "resume")
    assert (resumed["status"], resumed["action"]) == ("success", "resume")
    row = agent(daemon, request["agentId"])
    assert row["status"] == "running" and row["paused_at"] is None
    for kept in ("configuration", "heartbeat_enabled", "heartbeat_interval", "heartbeat_checklist"):
        assert row[kept] == before[kept], kept
    assert row["next_heartbeat_at"]


def test_v10_resume_writes_back_what_the_checkpoint_holds(daemon):
    request, _ = provision(daemon)
    assert pause_resume(daemon, request, "pause")["status"] == "success"
    changed = daemon.http.patch(f"/api/v1/agents/{request['agentId']}/settings", json={
        "configuration": {"depth": 99}, "heartbeat": {"enabled": False}})
    assert changed.status_code == 200, changed.text
    assert pause_resume(daemon, request, "resume")["status"] == "success"
    row = agent(daemon, request["agentId"])
    assert row["configuration"] == {"depth": 3}
    assert row["heartbeat_enabled"] is True and row["heartbeat_interval"] == "15m"


def test_v10_without_preserve_state_there_is_no_state(daemon):
    request, _ = provision(daemon)
    paused = pause_resume(daemon, request, "pause", preserve=False)
    assert paused["status"] == "success" and "state" not in paused


def test_v10_an_unknown_agent(daemon):
    nobody = {"agentId": str(uuid.uuid4()), "sessionKey": "agent:nobody:main"}
    for action in ("pause", "resume"):
        result = pause_resume(daemon, nobody, action)
        assert (result["status"], result["error"]) == ("failed", f"Agent not found: {nobody['agentId']}")


def test_v10_an_action_that_the_state_does_not_allow_fails(daemon):
    request, _ = provision(daemon)
    assert pause_resume(daemon, request, "resume")["status"] == "failed"
    assert pause_resume(daemon, request, "pause")["status"] == "success"
    assert pause_resume(daemon, request, "pause")["status"] == "failed"
    assert agent(daemon, request["agentId"])["status"] == "paused"


# --- 11: frames ---

@pytest.mark.parametrize("path", ["/", "/ws", "/health", "/no/such/route", "//", "/messages?x=1"])
def test_v11_any_path_opens_a_socket(daemon, path):
    with Socket(daemon, path) as one:
        payload = one.connect("whatever")
        assert payload["protocol"] == 3
        assert payload["server"] == {"id": "openclaw-gateway-dbos", "displayName": "OpenClaw Gateway",
                                     "version": "1.0.0"}


def test_v11_agent_send(daemon):
    to = unique("agent:v11")
    with Socket(daemon) as one:
        one.connect()
        payload = one.ask("agent.send", {"sessionKey": to, "message": "hi"}, id="41")
        assert payload["response"] == f"Message delivered to {to}"
        assert (payload["message_id"], payload["status"]) == ("41", "delivered")
    with Socket(daemon) as consumer:
        consumer.subscribe(to)
        got = consumer.message()
        assert (got["from"], got["to"], got["content"]) == ("backend-api", to, "hi")
        assert isinstance(got["timestamp"], int) and "metadata" in got


def test_v11_agent_send_before_connect(daemon):
    with Socket(daemon) as one:
        assert one.ask("agent.send", {"sessionKey": "agent:x:main", "message": "hi"})["status"] == "delivered"


def test_v11_the_request_id_is_no_key_and_the_idempotency_key_is(daemon):
    to = unique("agent:v11")
    with Socket(daemon) as one:
        for text in ("first", "second"):
            one.ask("agent.send", {"sessionKey": to, "message": text}, id="1")
        for _ in range(3):
            one.ask("agent.send", {"sessionKey": to, "message": "third", "idempotencyKey": "k"})
        one.subscribe(to)
        got = [one.message() for _ in range(3)]
        assert [message["content"] for message in got] == ["first", "second", "third"]
        for message in got:
            one.ack(message["messageId"])
        one.quiet(0.3)


@pytest.mark.parametrize("frame, word", [
    ({"method": "no.such"}, "no.such"), ({"method": "agent.send"}, None), ({"method": "agent.ack"}, None),
    ({"method": "agent.send", "params": {"sessionKey": "", "message": "x"}}, MISSING),
    ({"method": "agent.send", "params": {"sessionKey": "a", "message": ""}}, MISSING),
    ({"method": "agent.send", "params": []}, None), ({"method": 7}, None), ({}, None),
    ({"method": "agent.ack", "params": {"messageId": "no-such-message"}}, None),
    ({"method": "agent.reply", "params": {"messageId": "no-such-message", "response": "x"}}, None)])
def test_v11_a_request_that_fails_is_answered_under_its_id(daemon, frame, word):
    with Socket(daemon) as one:
        one.send({"type": "req", "id": "r1", **frame})
        answer = one.frame()
        assert (answer["type"], answer["id"], answer["ok"]) == ("res", "r1", False)
        assert isinstance(answer["error"]["code"], str) and isinstance(answer["error"]["message"], str)
        assert word is None or word in answer["error"]["message"]
        one.connect()  # it stays open


def test_v11_a_direct_message(daemon):
    to = unique("agent:v11")
    with Socket(daemon) as one:
        one.send({"id": "d1", "from": "me", "to": to, "content": "hi", "metadata": {"a": [1]}})
        answer = one.frame()
        assert answer["type"] == "workflow_result"
        assert answer["workflowUuid"] == answer["workflowUUID"]
        assert (answer["result"]["messageId"], answer["result"]["status"]) == ("d1", "delivered")
        one.subscribe(to)
        got = one.message()
        assert (got["messageId"], got["from"], got["metadata"]) == ("d1", "me", {"a": [1]})


@pytest.mark.parametrize("text", [
    "not json", "null", "[1,2]", "7", '"x"', "{}", '{"from":"a","to":"b","content":"x"}',
    '{"id":"d","from":"a","to":"b"}', '{"id":"d","from":"a","to":"","content":"x"}', "", "{" * 2000])
def test_v11_a_frame_that_is_no_message_is_an_error_and_the_socket_stays(daemon, text):
    with Socket(daemon) as one:
        one.send(text)
        answer = one.frame()
        assert answer["type"] == "error" and isinstance(answer["error"], str) and answer["error"]
        if '"id"' in text:
            assert answer["id"] == "d" and answer["error"] == MISSING
        assert one.connect()["protocol"] == 3


# --- 12: sure delivery ---

def test_v12_again_until_it_is_acknowledged(start):
    daemon = start("--messages.redeliver=60s", "--messages.redeliver_max=60s")
    to = unique("agent:v12")
    done = post_message(daemon, to)
    for _ in range(2):  # the second time because the first one did not acknowledge
        with Socket(daemon) as consumer:
            consumer.subscribe(to)
            assert consumer.message()["messageId"] == done["result"]["messageId"]
            consumer.quiet(0.3)  # once
    with Socket(daemon) as consumer:
        consumer.subscribe(to)
        consumer.ack(consumer.message()["messageId"])
    daemon.restart()
    with Socket(daemon) as consumer:
        consumer.subscribe(to)
        consumer.quiet(0.5)


def test_v12_again_after_a_while_on_the_same_socket(start):
    daemon = start("--messages.redeliver=100ms", "--messages.redeliver_max=200ms")
    to = unique("agent:v12")
    with Socket(daemon) as consumer:
        consumer.subscribe(to)
        post_message(daemon, to)
        got = [consumer.message()["messageId"] for _ in range(3)]
        assert len(set(got)) == 1
        consumer.ack(got[0])
        consumer.pushed.clear()
        consumer.quiet(1)


def test_v12_a_reply_goes_to_who_waits_for_it(daemon):
    to = unique("agent:v12")
    with Socket(daemon) as agent_side, Socket(daemon) as caller:
        agent_side.subscribe(to, replies=True)
        asked = caller.begin("agent.send", {"sessionKey": to, "message": "2+2?", "timeout": 30})
        message = agent_side.message()
        agent_side.ask("agent.reply", {"messageId": message["messageId"], "response": "4"})
        payload = caller.answer(asked)["payload"]
        assert (payload["response"], payload["status"]) == ("4", "delivered")
        agent_side.quiet(0.3)  # a reply is an acknowledgement


def test_v12_the_order_of_a_conversation_holds(daemon):
    to = unique("agent:v12")
    with Socket(daemon) as sender, Socket(daemon) as consumer:
        asked = [sender.begin("agent.send", {"sessionKey": to, "message": str(i)}) for i in range(600)]
        consumer.subscribe(to)
        for i in range(600):
            message = consumer.message()
            assert message["content"] == str(i)
            consumer.begin("agent.ack", {"messageId": message["messageId"]})
        assert all(sender.answer(one)["ok"] for one in asked)


# --- 13: with a token (more in test_backend_auth.py) ---

def test_v13_with_a_token(start):
    daemon = start(env={"AUTH_TOKEN": "canary-of-vector-13"})
    body = {"from": "a", "to": "b", "content": "x"}
    for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong"}):
        refused(daemon.http.post("/messages", json=body, headers=headers), 401, "Unauthorized")
    assert daemon.http.get("/health").status_code == 200
    right = {"Authorization": "Bearer canary-of-vector-13"}
    assert daemon.http.post("/messages", json=body, headers=right).status_code == 200
    with Socket(daemon) as one:
        with pytest.raises(Failed):
            one.connect("wrong-wrong-wrong")
        assert one.closed() == 1008


# --- 16 to 18: REST ---

AGENT_KEYS = {
    "id", "name", "model", "persona", "user_id", "workspace_id", "status", "openclaw_session_key", "openclaw_agent_id",
    "heartbeat_enabled", "heartbeat_interval", "heartbeat_checklist", "last_heartbeat_at", "next_heartbeat_at",
    "configuration", "error_message", "error_count", "created_at", "updated_at", "provisioned_at", "paused_at",
    "stopped_at"}
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00"


def make(daemon, status=201, headers=None, **fields):
    body = {"name": unique("Maker"), "model": "anthropic/claude-3-5-sonnet", **fields}
    answer = daemon.http.post("/api/v1/agents/provision", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_v16_provision_with_the_least(daemon):
    name = unique("Issue  Worker_Ünï")
    made = make(daemon, name=name)
    assert AGENT_KEYS <= set(made)
    slug = re.sub(r"[^0-9a-zäöüï]+", "-", name.lower()).strip("-")
    assert made["openclaw_session_key"] == f"agent:{slug}:main"
    assert (made["status"], made["name"], made["error_count"]) == ("running", name, 0)
    assert made["message"] == "Agent provisioned successfully" and made["workflow_uuid"]
    for time in ("created_at", "provisioned_at"):
        assert re.fullmatch(ISO, made[time]), made[time]
    for unset in ("persona", "workspace_id", "heartbeat_interval", "paused_at", "stopped_at", "error_message"):
        assert made[unset] is None, unset
    assert agent(daemon, made["id"])["openclaw_session_key"] == made["openclaw_session_key"]
    listed = daemon.http.get("/api/v1/agents").json()
    assert {"agents", "total", "limit", "offset"} <= set(listed) and listed["agents"][0]["id"] == made["id"]


def test_v16_without_a_model(daemon):
    answer = daemon.http.post("/api/v1/agents/provision", json={"name": "x"})
    assert answer.status_code == 422
    first = answer.json()["detail"][0]
    assert (first["type"], first["loc"]) == ("missing", ["body", "model"])


@pytest.mark.parametrize("change, kind, loc", [
    ({"name": ""}, "string_too_short", ["body", "name"]), ({"name": "x" * 256}, "string_too_long", ["body", "name"]),
    ({"heartbeat": {"enabled": True, "interval": "7m"}}, "enum", ["body", "heartbeat", "interval"]),
    ({"heartbeat": {}}, "missing", ["body", "heartbeat", "enabled"]),
    ({"configuration": [1]}, "dict_type", ["body", "configuration"]),
    ({"workspace_id": "no"}, "uuid_parsing", ["body", "workspace_id"])])
def test_v16_what_is_wrong_is_named(daemon, change, kind, loc):
    answer = daemon.http.post("/api/v1/agents/provision", json={"name": "n", "model": "a/b", **change})
    assert answer.status_code == 422, answer.text
    first = answer.json()["detail"][0]
    assert (first["type"], first["loc"]) == (kind, loc)


def test_v17_a_second_agent_of_a_name(daemon):
    name = unique("Twin")
    keys = [make(daemon, name=name)["openclaw_session_key"] for _ in range(3)]
    assert keys == [f"agent:{name.lower()}:main{suffix}" for suffix in ("", "-1", "-2")]


def verb(daemon, one, what, status, **kwargs):
    answer = daemon.http.post(f"/api/v1/agents/{one}/{what}", **kwargs)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_v18_pause_and_resume(daemon):
    made = make(daemon, heartbeat={"enabled": True, "interval": "1h", "checklist": ["look"]})
    one = made["id"]
    paused = verb(daemon, one, "pause", 200)
    assert paused["status"] == "paused" and re.fullmatch(ISO, paused["paused_at"])
    assert verb(daemon, one, "pause", 409)["detail"] == (
        "Cannot pause agent in 'paused' state. Only 'running' agents can be paused.")
    assert verb(daemon, one, "heartbeat", 409)["detail"] == (
        "Cannot execute heartbeat for agent in 'paused' state. Agent must be 'running'.")
    resumed = verb(daemon, one, "resume", 200)
    assert resumed["status"] == "running" and resumed["paused_at"] is None
    assert resumed["heartbeat_interval"] == "1h" and resumed["heartbeat_checklist"] == ["look"]
    assert verb(daemon, one, "resume", 409)["detail"] == (
        "Cannot resume agent in 'running' state. Only 'paused' agents can be resumed.")
    assert verb(daemon, one, "provision", 200)["status"] == "running"
    beat = verb(daemon, one, "heartbeat", 200)
    assert beat["status"] == "completed" and beat["agent_id"] == one


@pytest.mark.parametrize("one", ["00000000-0000-4000-8000-00000000dead", "not-a-uuid", "%20", "a%2Fb"])
def test_v18_an_unknown_agent_is_404(daemon, one):
    for answer in (daemon.http.get(f"/api/v1/agents/{one}"), daemon.http.delete(f"/api/v1/agents/{one}"),
                   *(daemon.http.post(f"/api/v1/agents/{one}/{what}") for what in
                     ("provision", "pause", "resume", "heartbeat")),
                   daemon.http.patch(f"/api/v1/agents/{one}/settings", json={}),
                   daemon.http.post(f"/api/v1/agents/{one}/message", json={"message": "x"})):
        assert answer.status_code == 404, (answer.request.url, answer.text)
        assert "detail" in answer.json()


def test_v18_a_deleted_agent_is_stopped_and_stays(daemon):
    one = make(daemon)["id"]
    for _ in range(2):
        assert daemon.http.delete(f"/api/v1/agents/{one}").status_code == 204
    row = agent(daemon, one)
    assert row["status"] == "stopped" and re.fullmatch(ISO, row["stopped_at"])
    for what in ("pause", "resume", "heartbeat", "provision"):
        verb(daemon, one, what, 409)


def test_v18_one_key_and_one_body_are_one_agent(daemon):
    headers, name = {"Idempotency-Key": unique("key")}, unique("Once")
    first, second = (make(daemon, headers=headers, name=name) for _ in range(2))
    assert first["id"] == second["id"]
    make(daemon, 409, headers, name=name + "other")


# --- 19 to 21: OpenClaw, commands, notifications ---

def test_v19_openclaw_status(daemon):
    answer = daemon.http.get("/api/v1/openclaw/status")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {"connected", "connection_state", "uptime_seconds"} <= set(body)
    assert body["connected"] is False and body["uptime_seconds"] == 0
    assert body["connection_state"] in ("disconnected", "connecting", "connected", "reconnecting", "failed")
    assert "command_history" not in body and None not in body.values()
    full = daemon.http.get("/api/v1/openclaw/status?include_history=true").json()
    assert isinstance(full["command_history"], list) and len(full["command_history"]) <= 10
    assert daemon.http.get("/api/v1/openclaw/status?include_history=maybe").status_code == 422


def test_v19_a_peer_that_is_away_is_named_and_waited_for(start):
    daemon = start(env={"OPENCLAW_GATEWAY_URL": "ws://127.0.0.1:1", "OPENCLAW_TOKEN": "canary-openclaw"})
    body = eventually(lambda: daemon.http.get("/api/v1/openclaw/status").json(), 10)
    assert body["gateway_url"] == "ws://127.0.0.1:1" and body["connected"] is False
    assert body["connection_state"] in ("connecting", "reconnecting", "disconnected")
    assert "canary-openclaw" not in json.dumps(body) + daemon.log()


INVALID = "Invalid issue number: '{}'. Issue numbers must be positive integers"
UNKNOWN = ("Unknown command: '{}'. Supported commands: work on issue #N, status of issue #N,"
           " stop work on issue #N, list agents")
COMMANDS = [
    ("work on issue #1234", 1234), ("WORK ON ISSUE 7", 7), ("  work  on   issue   #9  please", 9),
    ("work on issue123", 123), ("work on issue +5", 5), ("work on issue #12abc", 12),
    ("work on issue", INVALID.format("")), ("work on issue #", INVALID.format("")),
    ("work on issue # 5", INVALID.format("")), ("work on issue abc", INVALID.format("abc")),
    ("work on issues 5", INVALID.format("s")), ("work on issue #0", INVALID.format("0")),
    ("work on issue -5", INVALID.format("-5")), ("work on issue 9223372036854775808",
                                                 INVALID.format("9223372036854775808")),
    ("status of issue #3", 3), ("status issue 3", 3), ("check status of issue 3", 3), ("status #123", 123),
    ("stop issue #4", 4), ("stop work issue 4", 4), ("cancel work on issue #5", 5), ("cancel issue 5", 5),
    ("stop #123", 123), ("stop work 5", UNKNOWN.format("stop work 5")), ("status", UNKNOWN.format("status")),
    ("list agents", None), ("show active agents now", None), ("list agentsx", None), ("list", None),
    ("please work on issue 5", UNKNOWN.format("please work on issue 5")), ("@openclaw work on issue 5", 5),
    ("", "Command cannot be empty"), ("   ", "Command cannot be empty")]


@pytest.fixture(scope="module")
def commanded(store, scratch):
    starter = Starter(store, scratch)
    yield starter()
    starter.stop()


@pytest.mark.parametrize("text, outcome", COMMANDS, ids=[row[0] or "empty" for row in COMMANDS])
def test_v20_commands(commanded, text, outcome):
    answer = commanded.http.post("/api/v1/commands", json={"message": text, "from": "whatsapp:1"})
    assert answer.status_code == 200, answer.text
    result = answer.json()
    if isinstance(outcome, str):
        assert (result["success"], result["error_type"], result["error"]) == (False, "parse_error", outcome)
        return
    assert result["success"] is True, result
    assert outcome is None or result["issue_number"] == outcome


def test_v20_the_life_of_a_command(commanded):
    def say(text):
        return commanded.http.post("/api/v1/commands", json={"message": text}).json()

    work = say("work on issue #77")
    assert (work["success"], work["issue_number"], work["state"]) == (True, 77, "agent_ready")
    row = agent(commanded, work["agent_id"])
    assert row["openclaw_session_key"] == "agent:issue-77:main" and row["status"] == "running"
    assert say("work on issue 77")["agent_id"] == work["agent_id"]
    status = say("status of issue 77")
    assert status["status"] == "agent_ready" and status["workflow"]["issue_number"] == 77
    assert status["workflow"]["agent_id"] == status["agent"]["agent_id"] == work["agent_id"]
    assert say("stop issue 77")["message"] == "Stopped work on issue #77"
    for text in ("stop issue 77", "stop issue 999999"):
        assert say(text)["message"] == "No active work found for this issue"
    assert say("status issue 77")["status"] == "No active work found for this issue"
    assert agent(commanded, work["agent_id"])["status"] == "stopped"


def test_v20_one_chat_message_is_one_command(commanded):
    body = {"message": "work on issue #78", "id": unique("wamid")}
    made = [commanded.http.post("/api/v1/commands", json=body).json() for _ in range(2)]
    assert made[0]["agent_id"] == made[1]["agent_id"]
    assert made[0]["workflow_uuid"] == made[1]["workflow_uuid"] == f"cmd:{body['id']}"


def test_v21_a_notification_waits_in_its_mailbox_while_nobody_takes_it(start):
    """Byte for byte and queued: agent:whatsapp:main is delivered through OpenClaw, which is not there."""
    daemon = start(env={"OPENCLAW_WHATSAPP_SESSION_KEY": "agent:phone:main"})
    work = daemon.http.post("/api/v1/commands", json={"message": "work on issue 5"}).json()
    assert work["success"] is True, work
    daemon.kill()
    daemon.start()
    with Socket(daemon) as phone:
        phone.subscribe("agent:phone:main")
        assert phone.message()["content"] == f"✓ Agent spawned for issue #5\n\nAgent ID: {work['agent_id']}"
        phone.pushed.clear()
