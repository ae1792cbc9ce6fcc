"""The hub's HTTP API: shapes, tolerance of paths, who may call, what bodies may be."""

import json
import re
import time

import httpx
import pytest
from hub_client import Hub, status_of
from wait import eventually, unique

JSON_TYPE = "application/json; charset=utf-8"
AGENT_KEYS = ["id", "status", "registeredAt", "lastSeen", "lastHealthCheck", "metadata", "stats",
              "health", "currentTasks"]
STATS = {"tasksReceived": 0, "tasksCompleted": 0, "tasksFailed": 0, "messagesReceived": 0,
         "messagesSent": 0}


@pytest.fixture(scope="module")
def hub(daemon):
    one = Hub(daemon)
    yield one
    one.close()


# --- the original's integration test ---

def test_what_the_originals_own_test_asks_for(hub):
    name = unique("agent")
    assert hub.http.get("/health").json()["status"] == "healthy"
    body = {"agentId": name, "metadata": {"type": "test", "capabilities": ["a"], "cpu": 2,
                                          "memory": "4G"}}
    assert hub.http.post("/agents/register", json=body).json()["token"]
    assert name in [agent["id"] for agent in hub.http.get("/agents").json()["agents"]]
    assert hub.http.get(f"/agents/{name}/status").json()["agent"]["id"] == name
    task = {"type": "exec", "command": "echo hi"}
    assert hub.http.post(f"/agents/{name}/task", json=task).json()["taskId"]
    stats = hub.http.get("/admin/stats").json()
    assert "router" in stats and "agents" in stats
    metrics = hub.http.get("/metrics")
    assert metrics.status_code == 200 and "vm_hub_" in metrics.text
    assert hub.http.delete(f"/agents/{name}").is_success


# --- shapes ---

def test_registration_answers_in_the_shape_that_scripts_grep(hub):
    name = unique("agent")
    answer = hub.http.post("/agents/register", json={"agentId": name, "ignored": 1})
    assert answer.status_code == 200 and answer.headers["content-type"] == JSON_TYPE
    assert len(re.findall(r'"token":"([^"]*)"', answer.text)) == 1
    assert len(re.findall(r'"status":"([^"]*)"', answer.text)) == 1
    body = answer.json()
    assert list(body) == ["agent", "token", "wsUrl"]
    assert re.fullmatch("[0-9a-f]{64}", body["token"])
    port = hub.ws_address[1]
    assert body["wsUrl"] == f"ws://localhost:{port}/agent/{name}/{body['token']}"
    agent = body["agent"]
    assert list(agent)[:len(AGENT_KEYS)] == AGENT_KEYS
    assert abs(agent.pop("registeredAt") - time.time() * 1000) < 60000
    assert {key: agent[key] for key in AGENT_KEYS if key in agent} == {
        "id": name, "status": "offline", "lastSeen": None, "lastHealthCheck": None,
        "metadata": {"type": "generic", "capabilities": []}, "stats": STATS,
        "health": {"cpu": None, "memory": None, "disk": None, "uptime": None}, "currentTasks": []}


@pytest.mark.parametrize("given,kept", [
    (None, {"type": "generic", "capabilities": []}),
    ({"type": "", "capabilities": "a,b", "vmIp": "10.0.0.1", "cpus": 4},
     {"type": "", "capabilities": "a,b", "vmIp": "10.0.0.1", "cpus": 4}),
    ({"disk": "20G", "cpu": 2, "x": {"y": [1, None]}},
     {"type": "generic", "capabilities": [], "cpu": 2, "disk": "20G", "x": {"y": [1, None]}}),
])
def test_metadata_is_kept_as_it_is_given(hub, given, kept):
    name = unique("agent")
    body = {"agentId": name, "metadata": given}
    answer = hub.http.post("/agents/register", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["agent"]["metadata"] == kept
    assert hub.status(name)["metadata"] == kept


@pytest.mark.parametrize("body", [
    {}, [], [{"agentId": "x"}], {"agentId": ""}, {"agentId": None}, {"agentId": False},
    {"agentId": 7}, {"agentId": ["x"]}, {"agentId": "a/b"}, {"agentId": "a b"}, {"agentId": "-a"},
    {"agentId": ".a"}, {"agentId": "ä"}, {"agentId": "a" * 129}, {"agentId": "broadcast"},
    {"agentId": "*"}, {"agentId": "host"}, {"agentId": "ok-1", "metadata": [1]},
    {"agentId": "ok-1", "metadata": "text"}, {"agentId": "../etc"}, {"agentId": "a\nb"},
], ids=lambda body: json.dumps(body)[:40])
def test_bad_registrations_are_refused(hub, body):
    before = hub.http.get("/health").json()["agents"]["total"]
    answer = hub.http.post("/agents/register", json=body)
    assert answer.status_code == 400 and list(answer.json()) == ["error"]
    if not body or not isinstance(body, dict):
        assert answer.json()["error"] == "agentId is required"
    assert hub.http.get("/health").json()["agents"]["total"] == before


def test_ids_of_all_allowed_forms(hub):
    for name in ("a", "7", "A.b_c-d", "x" * 128):
        hub.register(name)
        assert hub.status(name)["id"] == name
        assert hub.http.get(f"/agents/%{ord(name[0]):02x}{name[1:]}/status").status_code == 200
        assert hub.http.delete(f"/agents/{name}").json() == {"status": "deregistered"}


def test_agents_are_listed_in_order_of_registration(hub):
    names = [unique("z"), unique("a"), unique("m")]
    for name in names:
        hub.register(name, {"type": name})
    hub.register(names[0], {"type": names[0]})  # again: it keeps its place
    listed = [agent["id"] for agent in hub.http.get("/agents").json()["agents"]]
    assert [name for name in listed if name in names] == names
    agent = hub.agent(names[1], {"type": "filtered"})
    got = hub.http.get("/agents", params={"status": "online", "type": "filtered"}).json()["agents"]
    assert [one["id"] for one in got] == [agent.name]
    assert hub.http.get("/agents", params={"type": "no such"}).json() == {"agents": []}


def test_health_and_statistics(hub):
    agent = hub.agent()
    health = hub.http.get("/health").json()
    assert health["status"] == "healthy" and health["uptime"] > 0
    assert health["timestamp"] > 10 ** 12
    assert 1 <= health["agents"]["online"] <= health["agents"]["total"]
    before = hub.http.get("/admin/stats").json()["router"]["historySize"]
    agent.flushed()
    stats = hub.http.get("/admin/stats").json()
    assert list(stats["router"]) == ["historySize", "deadLetterQueueSize", "totalAgents",
                                     "onlineAgents"]
    assert stats["router"]["historySize"] == min(1000, before + 1)
    assert stats["router"]["totalAgents"] == len(stats["agents"])
    mine = [one for one in stats["agents"] if one["id"] == agent.name]
    assert mine == [{"id": agent.name, "status": "online",
                     "stats": {**STATS, "messagesReceived": 1, "messagesSent": 1},
                     "currentTasks": 0}]


def test_metrics_are_there_from_the_beginning_and_true(start):
    hub = Hub(start())
    answer = hub.http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE vm_hub_messages_total counter" in answer.text
    assert "process_resident_memory_bytes" in answer.text
    assert hub.metric("vm_hub_agents", status="online") == 0
    assert hub.metric("vm_hub_active_tasks") == 0
    a, b = hub.agent(), hub.agent()
    away = hub.register(unique("away"))["agent"]["id"]
    assert (hub.metric("vm_hub_agents", status="online"),
            hub.metric("vm_hub_agents", status="offline")) == (2, 1)
    a.send("log", {}, to=b.name)
    a.send("log", {}, to=away)
    a.send("error", {}, to="nobody")
    a.send("<nonsense>\"", {}, to=b.name)
    a.raw("no json")
    a.flushed()
    got = {(kind, status): hub.metric("vm_hub_messages_total", type=kind, status=status)
           for kind in ("task", "response", "health", "log", "status", "error", "unknown")
           for status in ("received", "delivered", "queued", "dropped", "error")}
    assert {key: value for key, value in got.items() if value and key != ("error", "delivered")} \
        == {("log", "received"): 3, ("log", "delivered"): 2, ("log", "queued"): 1,
            ("error", "received"): 1, ("error", "dropped"): 1, ("unknown", "received"): 1,
            ("unknown", "dropped"): 1, ("unknown", "error"): 1}
    hub.http.post(f"/agents/{away}/task", json={"type": "exec"})
    assert hub.metric("vm_hub_active_tasks") == 1
    hub.close()


# --- paths and methods ---

def test_paths_match_in_any_case_and_with_a_slash_too_many(hub):
    name = unique("Agent")
    hub.register(name)
    for path in ("/AGENTS", "/agents/", "/Agents/", "/HEALTH/", "/admin/STATS", "/METRICS",
                 f"/AGENTS/{name}/STATUS/"):
        assert hub.http.get(path).status_code == 200, path
    assert hub.http.get(f"/agents/{name.lower()}/status").status_code == 404


def test_head_answers_as_get_without_a_body(hub):
    for path in ("/health", "/agents", "/metrics", "/admin/dlq"):
        answer = hub.http.head(path)
        assert answer.status_code == 200 and answer.text == ""
        assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("method,path,status", [
    ("GET", "/", 404), ("GET", "/agents/x", 404), ("POST", "/agents", 404), ("PUT", "/health", 404),
    ("GET", "/nothing/here", 404), ("GET", "/agents/%zz/status", 400),
    ("GET", "/agents/%ff/status", 400), ("DELETE", "/agents/nobody", 404),
    ("GET", "/agents/nobody/status", 404), ("POST", "/agents/nobody/task", 404),
])
def test_what_is_not_there_is_answered_in_json(hub, method, path, status):
    host, port = hub.address
    answer = hub.raw(f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
                     "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".encode(),
                     ws=False)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status, answer
    assert f"content-type: {JSON_TYPE}".encode() in head.lower()
    assert list(json.loads(body)) == ["error"] and b"    at " not in body


def test_options_of_any_path_is_ok(hub):
    for path in ("/agents", "/agents/x/task", "/no/such/path"):
        answer = hub.http.options(path)
        assert answer.status_code == 200 and answer.text == "OK"
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, OPTIONS"
        assert answer.headers["access-control-allow-headers"] == "Content-Type, Authorization"


# --- bodies ---

def test_only_json_by_its_own_word_is_a_body(hub):
    name = unique("agent")
    text = json.dumps({"agentId": name})
    for headers in ({"content-type": "text/plain"}, {},
                    {"content-type": "application/x-www-form-urlencoded"}):
        answer = hub.http.post("/agents/register", content=text, headers=headers)
        assert answer.status_code == 400 and answer.json() == {"error": "agentId is required"}
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert hub.http.post("/agents/register", content=text, headers=headers).status_code == 200


@pytest.mark.parametrize("text", ["{", "nonsense", "null", "3", '"x"', "true", '{"agentId":"a"',
                                  "[" * 3000 + "]" * 3000, "\xff", '{"agentId":"\\ud800"}'])
def test_malformed_bodies_are_refused(hub, text):
    answer = hub.http.post("/agents/register", content=text.encode("latin-1"),
                           headers={"content-type": "application/json"})
    assert answer.status_code == 400 and list(answer.json()) == ["error"]


def test_bodies_have_a_bound(start):
    hub = Hub(start("--hub.body_max=200K"))
    name = unique("agent")
    hub.register(name)
    task = {"type": "file:write", "content": "x" * 150000}
    assert hub.http.post(f"/agents/{name}/task", json=task).status_code == 200
    answer = hub.http.post(f"/agents/{name}/task", json={"content": "x" * 250000})
    assert answer.status_code == 413 and list(answer.json()) == ["error"]
    assert hub.http.post("/agents/register", content=b"x" * 250000).status_code == 413
    hub.close()


def test_a_large_task_is_taken_by_default(hub):
    agent = hub.agent()
    content = "x" * (8 << 20)
    hub.task(agent.name, {"type": "file:write", "filePath": "/x", "content": content})
    assert agent.expect("task")["payload"]["content"] == content


# --- who may call ---

def test_other_web_pages_may_not_call(hub):
    name = unique("agent")
    for origin in ("http://evil.example", "null", "https://localhost.evil.example"):
        for method, path in (("GET", "/agents"), ("POST", "/agents/register"),
                             ("OPTIONS", "/agents")):
            answer = hub.http.request(method, path, headers={"origin": origin},
                                      json={"agentId": name})
            assert answer.status_code == 403, (origin, method)
            assert "access-control-allow-origin" not in answer.headers
    assert hub.http.get(f"/agents/{name}/status").status_code == 404


def test_the_consoles_page_may_with_a_token(hub):
    origin = {"origin": "http://localhost:9092"}
    answer = hub.http.options("/agents/x/task", headers=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:9092"
    answer = hub.http.get("/agents", headers=origin)
    assert answer.status_code == 401 and answer.json() == {"error": "unauthorized"}
    assert answer.headers["access-control-allow-origin"] == "http://localhost:9092"
    token = {"authorization": f"Bearer {hub.daemon.token}"}
    answer = hub.http.get("/agents", headers={**origin, **token})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:9092"
    assert answer.headers["vary"] == "Origin"


def test_another_hosts_name_is_refused(hub):
    answer = hub.http.get("/agents", headers={"host": "evil.example"})
    assert answer.status_code == 403


def test_with_a_token_set_everybody_needs_one(start):
    daemon = start(env={"HUB_ADMIN_TOKEN": "the-hub-token"})
    hub = Hub(daemon)
    good = {"authorization": "Bearer the-hub-token"}
    assert hub.http.get("/health").status_code == 200
    for method, path in [("GET", "/agents"), ("POST", "/agents/register"), ("GET", "/admin/dlq"),
                         ("DELETE", "/admin/dlq"), ("POST", "/agents/x/task"), ("GET", "/metrics"),
                         ("DELETE", "/agents/x"), ("GET", "/admin/stats"), ("GET", "/tasks"),
                         ("GET", "/machines"), ("GET", "/events"), ("POST", "/agents/x/drain")]:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            answer = hub.http.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.json() == {"error": "unauthorized"}
    answer = hub.http.post("/agents/register", json={"agentId": "a1"}, headers=good)
    assert answer.status_code == 200
    token = answer.json()["token"]  # an agent's token opens its own socket and nothing else
    answer = hub.http.get("/agents", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    for path, status in ((f"/agent/a1/{token}", 101), ("/agent/host/the-hub-token", 101),
                         ("/agent/host", 401), (f"/agent/host/{token}", 401),
                         ("/agent/a1/the-hub-token", 401)):
        for ws in (True, False):
            assert hub.handshake(path, ws=ws)[0] == status, path
    socket = httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.state / "hub.sock")),
                          base_url="http://hub")
    assert len(socket.get("/agents").json()["agents"]) == 1
    hub.close()


def test_a_key_that_may_only_read_changes_nothing(start):
    daemon = start()
    hub = Hub(daemon)
    admin = {"authorization": f"Bearer {daemon.token}"}
    answer = daemon.http.post("/api/v1/keys", json={"name": "looker", "scopes": ["read"]},
                              headers=admin)
    assert answer.status_code == 201, answer.text
    reader = {"authorization": f"Bearer {answer.json()['key']}"}
    assert hub.http.get("/agents", headers=reader).status_code == 200
    for method, path in [("POST", "/agents/register"), ("DELETE", "/agents/x"),
                         ("POST", "/agents/x/task"), ("DELETE", "/admin/dlq")]:
        answer = hub.http.request(method, path, headers=reader)
        assert answer.status_code == 403 and list(answer.json()) == ["error"]
    hub.close()


def test_no_secret_is_kept_or_logged(start):
    daemon = start("--log.level=debug")
    hub = Hub(daemon)
    agent = hub.agent()
    assert hub.handshake(f"/agent/{agent.name}/{'f' * 64}")[0] == 401
    agent.close()
    eventually(lambda: hub.status(agent.name)["status"] == "offline")
    hub.close()
    daemon.stop()
    assert agent.token not in daemon.log() and "f" * 64 not in daemon.log()
    for path in daemon.state.rglob("*"):
        if path.is_file():
            assert agent.token.encode() not in path.read_bytes(), path
    audit = (daemon.state / "audit.log").read_text()
    for word in ("agent.registered", "agent.connected", "auth.failed"):
        assert f'"event":"{word}"' in audit


def test_a_taken_port_is_one_line_and_status_1(start):
    hub = Hub(start())
    with pytest.raises(Exception) as failed:
        start(f"--hub.http_port={hub.address[1]}")
    assert failed.value.status == 1 and "in use" in failed.value.log
    hub.close()
