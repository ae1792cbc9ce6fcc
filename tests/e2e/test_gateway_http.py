"""The gateway's routes over HTTP: tolerance of paths, asynchronous requests, workflows and messages seen alike."""

import json
import threading
import time
import uuid

import pytest
from gateway import Socket, post_message
from rawhttp import ask
from wait import eventually, unique

JSON = [("Content-Type", "application/json")]
BODY = json.dumps({"from": "a", "to": "agent:paths:main", "content": "x"}).encode()


@pytest.mark.parametrize("target", ["/messages", "/Messages", "/MESSAGES/", "/messages/", "/messages?x=y"])
def test_paths_are_tolerant_as_express_is(daemon, target):
    answer = ask(daemon, "POST", target, JSON, BODY)
    assert answer.status == 200 and json.loads(answer.body)["success"] is True


@pytest.mark.parametrize("method, target", [("GET", "/messages"), ("PUT", "/messages"), ("POST", "/messages/x"),
                                            ("POST", "/workflows"), ("DELETE", "/workflows/x"),
                                            ("POST", "/workflows/x/y"), ("GET", "/chat"), ("PATCH", "/chat/")])
def test_unknown_paths_and_methods_are_404_and_named(daemon, method, target):
    answer = ask(daemon, method, target, JSON, b"{}")
    assert answer.status == 404
    assert json.loads(answer.body) == {"error": f"Cannot {method} {target}"}


@pytest.mark.parametrize("target, methods", [("/messages", "POST"), ("/workflows/x", "GET, HEAD"),
                                             ("/workflows", "GET, HEAD"), ("/Workflows/x/recover/", "POST")])
def test_options_lists_the_methods(daemon, target, methods):
    answer = ask(daemon, "OPTIONS", target)
    assert (answer.status, answer.body.decode(), answer.header("Allow")) == (200, methods, methods)


def test_head_is_get_without_a_body(daemon):
    answer = ask(daemon, "HEAD", "/workflows/nope")
    assert answer.status == 200 and answer.body == b""
    assert int(answer.header("Content-Length")) == len('{"workflowUuid":"nope","status":"not_found"}')


def test_the_welcome_names_the_endpoints(daemon):
    body = daemon.http.get("/").json()
    assert {"service", "version", "description", "endpoints", "status", "skillWorkflows", "timestamp"} <= set(body)
    assert (body["service"], body["version"], body["status"]) == ("OpenClaw Gateway", "1.0.0", "running")
    assert body["endpoints"] == {
        "health": "GET /health", "workflowStatus": "GET /workflows/:uuid", "sendMessage": "POST /messages",
        "chat": "POST /chat", "provisionAgent": "POST /workflows/provision-agent",
        "heartbeat": "POST /workflows/heartbeat", "pauseResume": "POST /workflows/pause-resume",
        "skillInstallation": "POST /workflows/skill-installation",
        "skillExecution": "POST /workflows/skill-execution", "websocket": f"ws://localhost:{daemon.port}"}
    assert (body["docs"], body["openapi"], body["health"]) == ("/docs", "/openapi.json", "/health")


# --- messages ---

def test_an_asynchronous_message_is_202_and_its_result_comes_later(daemon):
    answer = daemon.http.post("/messages?async=1", json={"from": "a", "to": unique("agent"), "content": "x"})
    assert answer.status_code == 202
    assert set(answer.json()) == {"success", "workflowUuid"}
    status = daemon.http.get(f"/workflows/{answer.json()['workflowUuid']}").json()
    assert (status["status"], status["result"]["status"]) == ("SUCCESS", "delivered")
    assert status["createdAt"] <= status["updatedAt"] and status["name"] == "routeAgentMessage"


def test_a_full_mailbox_is_429_and_not_413(start):
    daemon = start("--messages.mailbox_max=2")
    to = unique("agent")
    for _ in range(2):
        post_message(daemon, to)
    answer = daemon.http.post("/messages", json={"from": "a", "to": to, "content": "x"})
    assert answer.status_code == 429 and answer.headers["retry-after"] and "error" in answer.json()
    post_message(daemon, to + "x")
    with Socket(daemon) as consumer:
        consumer.subscribe(to)
        consumer.ack(consumer.message()["messageId"])
    post_message(daemon, to)


@pytest.mark.parametrize("fields, word", [({"id": {}}, "id"), ({"metadata": "text"}, None), ({"id": 7}, None),
                                          ({"to": 5}, "to"), ({"content": {"a": 1}}, "content")])
def test_kinds_of_fields(daemon, fields, word):
    body = {"from": "a", "to": unique("agent"), "content": "x", **fields}
    answer = daemon.http.post("/messages", json=body)
    if word is None:
        assert answer.status_code == 200
        assert "id" not in fields or answer.json()["result"]["messageId"] == "7"
    else:
        assert answer.status_code == 400 and word in answer.json()["error"]


def test_a_reply_comes_back_over_http(daemon):
    to = unique("agent")
    with Socket(daemon) as agent:
        agent.subscribe(to, replies=True)
        pending = daemon.client()
        got = []
        thread = threading.Thread(target=lambda: got.append(pending.post(
            "/messages", json={"from": "a", "to": to, "content": "ping"})))
        thread.start()
        message = agent.message()
        agent.ask("agent.reply", {"messageId": message["messageId"], "response": f"re: {message['content']}"})
        thread.join(30)
        pending.close()
    result = got[0].json()["result"]
    assert (got[0].status_code, result["response"], result["status"]) == (200, "re: ping", "delivered")
    status = daemon.http.get(f"/workflows/{got[0].json()['workflowUuid']}").json()
    assert status["result"]["response"] == "re: ping"


def test_nobody_who_replies_is_not_waited_for(daemon):
    to = unique("agent")
    with Socket(daemon) as agent:
        agent.subscribe(to)
        assert "response" not in post_message(daemon, to)["result"]


# --- workflows ---

def test_the_list_has_messages_and_workflows_newest_first(daemon):
    since = int(time.time() * 1000) - 1
    sent = post_message(daemon, unique("agent"))["workflowUuid"]
    agent_id = str(uuid.uuid4())
    made = daemon.http.post("/workflows/provision-agent", json={
        "agentId": agent_id, "name": "n", "model": "a/b", "userId": str(uuid.uuid4()),
        "sessionKey": f"agent:{agent_id}:main"}).json()["workflowUuid"]
    rows = daemon.http.get("/workflows", params={"since": since}).json()
    assert [set(row) for row in rows] == [{"workflow_uuid", "name", "status", "created_at", "updated_at",
                                           "recovery_attempts", "error"}] * len(rows)
    ids = [row["workflow_uuid"] for row in rows]
    assert sent in ids and made in ids
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)
    named = daemon.http.get("/workflows", params={"name": "routeAgentMessage", "limit": 3}).json()
    assert 1 <= len(named) <= 3 and {row["name"] for row in named} == {"routeAgentMessage"}
    done = daemon.http.get("/workflows", params={"name": "provisionAgentWorkflow", "status": "SUCCESS"}).json()
    assert made in [row["workflow_uuid"] for row in done]
    assert daemon.http.get("/workflows", params={"since": "2999-01-01T00:00:00Z"}).json() == []


@pytest.mark.parametrize("query", ["status=NOPE", "limit=0", "limit=1001", "limit=x", "since=yesterday"])
def test_a_list_that_cannot_be_is_400(daemon, query):
    answer = daemon.http.get(f"/workflows?{query}")
    assert answer.status_code == 400 and "error" in answer.json()


def test_a_workflow_by_its_id_has_its_result(daemon):
    agent_id = str(uuid.uuid4())
    made = daemon.http.post("/workflows/provision-agent", json={
        "agentId": agent_id, "name": "n", "model": "a/b", "userId": str(uuid.uuid4()),
        "sessionKey": f"agent:{agent_id}:main"}).json()
    status = daemon.http.get(f"/workflows/{made['workflowUuid']}").json()
    assert (status["status"], status["name"]) == ("SUCCESS", "provisionAgentWorkflow")
    assert status["result"] == made["result"] and "error" not in status


def test_an_asynchronous_operation(daemon):
    agent_id = str(uuid.uuid4())
    answer = daemon.http.post("/workflows/provision-agent?async=true", json={
        "agentId": agent_id, "name": "n", "model": "a/b", "userId": str(uuid.uuid4()),
        "sessionKey": f"agent:{agent_id}:main"})
    assert answer.status_code == 202
    path = f"/workflows/{answer.json()['workflowUuid']}"
    eventually(lambda: daemon.http.get(path).json()["status"] == "SUCCESS", 30)
    assert daemon.http.get(path).json()["result"]["status"] == "provisioned"


def test_recover_leaves_what_is_well_and_says_so(daemon):
    sent = post_message(daemon, unique("agent"))["workflowUuid"]
    assert daemon.http.post(f"/workflows/{sent}/recover").json() == {
        "recovered": False, "status": "SUCCESS", "workflowUuid": sent}
    assert daemon.http.post("/workflows/nope/recover").json() == {
        "recovered": False, "status": "not_found", "workflowUuid": "nope"}


# --- what nobody here does ---

CHAT = {"conversationId": "c", "agentId": "a", "workspaceId": "w", "message": "m"}


def test_chat_is_checked_and_then_not_available(daemon):
    for missing in CHAT:
        answer = daemon.http.post("/chat", json={**CHAT, missing: ""})
        assert answer.status_code == 400
        assert answer.json() == {"error": "Missing required fields", "required": list(CHAT)}
    answer = daemon.http.post("/chat", json=CHAT)
    assert answer.status_code == 503 and {"error", "details"} == set(answer.json())


@pytest.mark.parametrize("path, body, status, error", [
    ("skill-installation", {}, 400, "Missing required fields: skillName, method"),
    ("skill-installation", {"skillName": "x", "method": "apt"}, 400, 'Invalid method. Must be "npm" or "brew"'),
    ("skill-installation", {"skillName": "x", "method": "npm"}, 503, "Skill workflows are not available"),
    ("skill-execution", {"skillName": "x"}, 400, "Missing required fields: skillName, agentId"),
    ("skill-execution", {"skillName": "x", "agentId": "a"}, 503, "Skill workflows are not available")])
def test_skills_are_checked_and_then_not_available(daemon, path, body, status, error):
    answer = daemon.http.post(f"/workflows/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
