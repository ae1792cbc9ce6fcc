"""The health of workflows: what is stuck, failed, dead or without an owner; recovery; chela swarm."""

import asyncio
import json
import threading
import time

import chelad
import pytest
import websockets
import workflows as wf
from prometheus import parse
from wait import eventually, unique

HEALTH = "/api/v1/workflows/health"
NUMBERS = {"total_workflows", "successful", "failed", "pending", "success_rate", "avg_duration_seconds",
           "p95_duration_seconds", "p99_duration_seconds"}
DONE, FAILED, USAGE, NOT_FOUND, NO_DAEMON = range(5)
MINUTE = 60_000


def get(daemon, path, status=200, **query):
    answer = daemon.http.get(path, params=query)
    assert answer.status_code == status, answer.text
    return answer.json()


def leave(daemon, workflow_id, status, name="heartbeatWorkflow", executor="local", ago_ms=0, ended=False):
    """A row as another engine, or an earlier process, would have left it."""
    at = int(time.time() * 1000) - ago_ms
    completed = at if ended else "NULL"
    wf.sql(daemon, "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, created_at,"
           f" updated_at, completed_at, recovery_attempts) VALUES ('{workflow_id}', '{status}', '{name}',"
           f" '{executor}', {at}, {at}, {completed}, 1)")
    return workflow_id


def health_of(daemon, workflow_id, **query):
    return get(daemon, wf.path(workflow_id, "/health"), **query)


def finished(daemon, outcome="SUCCESS"):
    """A real workflow that has ended: it calls an agent that does not exist."""
    workflow_id = wf.begin(daemon, unique("nobody"))
    wf.wait_status(daemon, workflow_id, "SUCCESS", "ERROR")
    wf.sql(daemon, f"UPDATE dbos.workflow_status SET status = '{outcome}' WHERE workflow_uuid = '{workflow_id}'")
    return workflow_id


# --- one workflow ---

def test_an_unknown_workflow_is_not_healthy(daemon):
    assert health_of(daemon, "nope") == {"healthy": False, "workflow_uuid": "nope", "reason": "workflow_not_found"}


@pytest.mark.parametrize(("status", "expected", "reason"), [
    ("SUCCESS", None, None),
    ("SUCCESS", "SUCCESS", None),
    ("SUCCESS", "PENDING", "unexpected_status: expected PENDING, got SUCCESS"),
    ("ERROR", None, "workflow_failed"),
    ("ERROR", "ERROR", "workflow_failed"),
    ("ERROR", "SUCCESS", "workflow_failed"),
    ("CANCELLED", None, None),
    ("CANCELLED", "SUCCESS", "unexpected_status: expected SUCCESS, got CANCELLED"),
    ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None, "retries_exceeded"),
    ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", "RETRIES_EXCEEDED", "retries_exceeded"),
])
def test_a_workflows_health_has_the_reasons_of_the_original(daemon, status, expected, reason):
    workflow_id = finished(daemon, status)
    answer = health_of(daemon, workflow_id, **({"expected": expected} if expected else {}))
    assert (answer["healthy"], answer["reason"], answer["status"]) == (reason is None, reason, status)
    assert answer["workflow_uuid"] == workflow_id
    assert answer["details"]["name"] == wf.CALL and answer["details"]["status"] == status
    wf.sql(daemon, f"DELETE FROM dbos.workflow_status WHERE workflow_uuid = '{workflow_id}'")


def test_a_running_workflow_without_a_step_for_long_is_stuck(daemon):
    fresh = leave(daemon, unique("fresh"), "PENDING")
    old = leave(daemon, unique("old"), "PENDING", ago_ms=10 * MINUTE)
    assert health_of(daemon, fresh)["healthy"]
    answer = health_of(daemon, old)
    assert (answer["healthy"], answer["reason"]) == (False, "workflow_stuck")
    stuck = get(daemon, HEALTH)["stuck"]
    assert [one["workflow_uuid"] for one in stuck] == [old]
    assert stuck[0]["type"] == "heartbeat" and 600 <= stuck[0]["idle_seconds"] < 3000
    for one in (fresh, old):
        wf.sql(daemon, f"DELETE FROM dbos.workflow_status WHERE workflow_uuid = '{one}'")


# --- lists and numbers ---

def test_failed_workflows_are_listed_by_kind_and_time(own):
    old = leave(own, "old", "ERROR", ago_ms=90 * MINUTE, ended=True)
    new = leave(own, "new", "ERROR", ago_ms=MINUTE, ended=True)
    dead = leave(own, "dead", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "provisionAgentWorkflow", ended=True)
    leave(own, "fine", "SUCCESS", ended=True)
    leave(own, "cancelled", "CANCELLED", ended=True)
    listed = get(own, "/api/v1/workflows/failed")["workflows"]
    assert [one["workflow_uuid"] for one in listed] == [dead, new, old]
    assert set(listed[0]) == {"workflow_uuid", "name", "type", "status", "created_at", "updated_at",
                              "recovery_attempts", "error"}
    assert (listed[0]["type"], listed[0]["status"]) == ("provision_agent", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    beats = get(own, "/api/v1/workflows/failed", type="heartbeat")["workflows"]
    assert [one["workflow_uuid"] for one in beats] == [new, old]
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    recent = get(own, "/api/v1/workflows/failed", since=since)["workflows"]
    assert [one["workflow_uuid"] for one in recent] == [dead, new]
    assert len(get(own, "/api/v1/workflows/failed", limit=1)["workflows"]) == 1
    get(own, "/api/v1/workflows/failed", 400, type="no-such-kind")
    get(own, "/api/v1/workflows/failed", 400, since="yesterday")


def test_a_failed_workflow_is_listed_with_its_own_words(own):
    workflow_id = wf.begin(own, "nobody")
    words = wf.wait_status(own, workflow_id, "ERROR")["error"]["message"]
    listed = get(own, "/api/v1/workflows/failed")["workflows"]
    assert [(one["workflow_uuid"], one["error"]) for one in listed] == [(workflow_id, words)]
    assert health_of(own, workflow_id)["details"]["error"] == words


def test_metrics_are_true_numbers(own):
    now = int(time.time() * 1000)
    rows = ", ".join(
        f"('m{n}', '{'ERROR' if n <= 20 else 'SUCCESS'}', 'pauseResumeWorkflow', 'local', {now - 60000 - n * 100},"
        f" {now - 60000}, {now - 60000})" for n in range(1, 101))
    wf.sql(own, "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, created_at, updated_at,"
           f" completed_at) VALUES {rows}")
    leave(own, "runs", "PENDING", "pauseResumeWorkflow")
    leave(own, "older", "SUCCESS", "pauseResumeWorkflow", ago_ms=120 * MINUTE, ended=True)
    answer = get(own, "/api/v1/workflows/metrics", type="pause_resume", hours=1)
    assert (answer["workflow_type"], answer["time_range_hours"]) == ("pause_resume", 1)
    assert answer["since"].endswith("+00:00") and "sampled_since" not in answer
    assert answer["metrics"] == {
        "total_workflows": 101, "successful": 80, "failed": 20, "pending": 1, "success_rate": 0.8,
        "avg_duration_seconds": 5.05, "p95_duration_seconds": 9.5, "p99_duration_seconds": 9.9}
    assert get(own, "/api/v1/workflows/metrics", type="pause_resume")["metrics"]["total_workflows"] == 102
    nothing = get(own, "/api/v1/workflows/metrics", type="recovery")["metrics"]
    assert set(nothing) == NUMBERS and set(nothing.values()) == {0}
    get(own, "/api/v1/workflows/metrics", 400, type="no-such-kind")
    get(own, "/api/v1/workflows/metrics", 400, hours=0)


def test_messages_have_numbers_too(own):
    sent = own.http.post("/messages", json={"from": "a", "to": "agent:x:main", "content": "hello", "id": "m1"})
    assert sent.status_code == 200, sent.text
    numbers = get(own, "/api/v1/workflows/metrics", type="message")["metrics"]
    assert (numbers["total_workflows"], numbers["pending"], numbers["failed"]) == (1, 1, 0)
    answer = health_of(own, sent.json()["workflowUuid"], expected="SUCCESS")
    assert (answer["healthy"], answer["details"]["type"]) == (True, "message")


def test_provisioning_is_counted_and_belongs_to_its_agent(own):
    made = own.http.post("/api/v1/agents/provision", json={"name": "Ada", "model": "anthropic/claude-x"})
    assert made.status_code == 201, made.text
    agent = made.json()
    numbers = get(own, "/api/v1/workflows/metrics", type="provision_agent")["metrics"]
    assert (numbers["total_workflows"], numbers["successful"], numbers["success_rate"]) == (1, 1, 1)
    answer = get(own, f"/api/v1/agents/{agent['id']}/workflows")
    assert (answer["agent_id"], answer["agent_name"]) == (agent["id"], "Ada")
    assert (answer["agent_status"], answer["overall_health"]) == ("running", "healthy")
    assert [(one["workflow_uuid"], one["status"], one["type"]) for one in answer["workflows"]] == [
        (agent["workflow_uuid"], "SUCCESS", "provision_agent")]
    own.http.post(f"/api/v1/agents/{agent['id']}/pause").raise_for_status()
    kinds = [one["type"] for one in get(own, f"/api/v1/agents/{agent['id']}/workflows")["workflows"]]
    assert kinds == ["pause_resume", "provision_agent"]
    missing = get(own, "/api/v1/agents/11111111-1111-4111-8111-111111111111/workflows", 404)
    assert missing == {"error": "agent_not_found", "agent_id": "11111111-1111-4111-8111-111111111111"}


# --- the whole, and the chore ---

def test_a_new_installation_is_healthy(own):
    answer = get(own, HEALTH)
    assert answer["healthy"] is True and answer["problems"] == [] and answer["stuck"] == []
    assert answer["thresholds"] == {"stuck_seconds": 300, "backlog_seconds": 900, "failure_percent": 50}
    for key in ("orphaned", "failed_last_hour", "ended_last_hour", "dead", "backlog", "backlog_age_seconds"):
        assert answer[key] == 0


def test_trouble_is_told_once_and_counted(start):
    daemon = start("--swarm.check=100ms", "--swarm.stuck=2m")
    leave(daemon, "stuck", "PENDING", ago_ms=10 * MINUTE)
    leave(daemon, "dead", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", ago_ms=MINUTE, ended=True)
    metric = "chela_workflows_unhealthy"
    eventually(lambda: parse(daemon.http.get("/metrics").text)[metric]["samples"][metric, ()] == 3, 30)
    for _ in range(50):  # while the chore looks again and again
        answer = get(daemon, HEALTH)
        assert not answer["healthy"] and answer["dead"] == 1 and len(answer["problems"]) == 2
    assert daemon.log().count("workflows need a look") <= 2  # the two rows may have been seen one by one
    wf.sql(daemon, "DELETE FROM dbos.workflow_status WHERE workflow_uuid IN ('stuck', 'dead')")
    eventually(lambda: "workflows are well again" in daemon.log(), 30)
    assert get(daemon, HEALTH)["healthy"]


def test_work_of_a_dead_process_is_given_back_and_errors_are_left_alone(start):
    daemon = start("--swarm.check=100ms", "--durable.lease=10m")
    failed = finished(daemon, "ERROR")
    orphan = leave(daemon, "orphan", "PENDING", executor="chela-dead")
    eventually(lambda: wf.show(daemon, orphan)["status"] != "PENDING", 30)
    row = wf.show(daemon, failed)  # at least two looks have passed it
    assert (row["status"], row["attempts"]) == ("ERROR", 1)


# --- recovery by hand ---

def recover(daemon, workflow_id, path=None):
    answer = daemon.http.post(path or wf.path(workflow_id, "/recover"))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_recovery_does_what_the_status_asks_for(daemon):
    assert recover(daemon, "nope") == {"recovered": False, "status": "not_found", "workflowUuid": "nope"}
    done = finished(daemon, "SUCCESS")
    assert recover(daemon, done) == {"recovered": False, "status": "SUCCESS", "workflowUuid": done}
    failed = finished(daemon, "ERROR")
    assert recover(daemon, failed)["recovered"] is False
    for status in ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
        stopped = finished(daemon, status)
        answer = recover(daemon, stopped)
        assert answer["recovered"] is True and answer["workflowUuid"] == stopped
        wf.wait_status(daemon, stopped, "ERROR")  # it runs again, and there is still no such agent
    assert recover(daemon, done, f"/workflows/{done}/recover")["recovered"] is False


# --- chela swarm ---

@pytest.fixture
def chela(daemon):
    def run(*arguments, **options):
        return chelad.run("chela", "--state", daemon.state, *arguments, **options)
    return run


def test_the_whole_is_shown_in_one_answer(daemon, chela):
    answer = get(daemon, "/api/v1/swarm/status")
    assert {"agents", "messages", "sockets", "openclaw", "workflows", "trackers"} <= set(answer)
    assert set(answer["agents"]) == {"total", "provisioning", "running", "paused", "stopped", "failed", "silent",
                                     "beating"}
    assert answer["openclaw"]["configured"] is False
    said = chela("swarm", "status")
    assert (said.returncode, said.stderr) == (DONE, "")
    assert [line.split()[0] for line in said.stdout.splitlines() if not line.startswith(" ")] == [
        "agents", "messages", "sockets", "openclaw", "workflows", "trackers"]
    assert set(json.loads(chela("swarm", "status", "--json").stdout)) == set(answer)


def test_health_is_an_exit_status(start):
    daemon = start()
    fine = chelad.run("chela", "--state", daemon.state, "swarm", "health")
    assert fine.returncode == DONE and fine.stdout.startswith("healthy              yes")
    leave(daemon, "stuck", "PENDING", ago_ms=10 * MINUTE)
    bad = chelad.run("chela", "--state", daemon.state, "swarm", "health")
    assert bad.returncode == FAILED and "workflow_stuck" in bad.stdout
    said = chelad.run("chela", "--state", daemon.state, "swarm", "health", "--json")
    assert said.returncode == FAILED and json.loads(said.stdout)["healthy"] is False
    gone = chelad.run("chela", "--state", daemon.state / "elsewhere", "swarm", "health")
    assert gone.returncode == NO_DAEMON


class OpenClaw:
    """A gateway that answers what a monitor asks, as a real one with a linked WhatsApp would. The releases
    themselves have tests of their own; none of them can be linked to WhatsApp without a telephone."""

    ANSWERS = {
        "channels.status": {"ts": 1, "channels": {"whatsapp": {"configured": True, "running": True, "linked": True}},
                            "channelAccounts": {"whatsapp": [{"accountId": "default", "enabled": True,
                                                              "connected": True, "running": True}]}},
        "sessions.list": {"ts": 1, "count": 1, "defaults": {"model": "m-1"},
                          "sessions": [{"key": "agent:main:whatsapp:direct:1", "kind": "direct"}]},
        "status": {"runtimeVersion": "2026.7.35"},
    }

    def __init__(self):
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        assert self.ready.wait(30)

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(websockets.serve(self.serve, "127.0.0.1", 0))
        self.url = "ws://127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        self.server.close()
        self.loop.run_until_complete(self.server.wait_closed())
        self.loop.close()

    async def serve(self, socket, path=None):
        challenge = {"type": "event", "event": "connect.challenge", "payload": {"nonce": "n", "ts": 1}}
        await socket.send(json.dumps(challenge))
        async for text in socket:
            frame = json.loads(text)
            payload = self.ANSWERS.get(frame["method"], {})
            if frame["method"] == "connect":
                payload = {"type": "hello-ok", "protocol": 4, "server": {"version": "2026.7.35", "connId": "c"},
                           "features": {"methods": list(self.ANSWERS), "events": []}, "snapshot": {},
                           "policy": {"maxPayload": 1 << 20, "maxBufferedBytes": 1 << 20, "tickIntervalMs": 30000},
                           "auth": {"role": "operator", "scopes": ["operator.read", "operator.write"]}}
            await socket.send(json.dumps({"type": "res", "id": frame["id"], "ok": True, "payload": payload}))

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


SETTINGS = """{ // as a person writes it
  channels: { whatsapp: {
    dmPolicy: 'allowlist', allowFrom: ["one"], groupPolicy: "allowlist", botToken: "not to be seen",
    groups: { "g-1": { requireMention: false, }, },
  }, },
}
"""


def routing(daemon, *arguments, **env):
    done = chelad.run("chela", "--state", daemon.state, "swarm", "routing", "--json", *arguments, env=env)
    assert done.stderr == "" and done.stdout.count("\n") == 1
    return done.returncode, json.loads(done.stdout)


def test_routing_fails_with_reasons_where_nothing_is_set_up(daemon, scratch):
    status, answer = routing(daemon, OPENCLAW_CONFIG=str(scratch / "no-such-file"))
    assert (status, answer["overall_status"]) == (FAILED, "FAIL")
    assert set(answer) == {"timestamp", "gateway", "whatsapp", "sessions", "routing", "overall_status"}
    assert answer["gateway"]["running"] and answer["gateway"]["listening"]
    assert answer["gateway"]["port"] == daemon.port
    assert "openclaw.url is not set" in answer["whatsapp"]["raw_output"]
    assert answer["routing"]["configured"] is False and "no-such-file" in answer["routing"]["error"]
    broken = scratch / "broken.json"
    broken.write_text("{ channels: ")
    assert "cannot be read" in routing(daemon, OPENCLAW_CONFIG=str(broken))[1]["routing"]["error"]
    for_people = chelad.run("chela", "--state", daemon.state, "swarm", "routing", "--config", str(broken))
    assert for_people.returncode == FAILED and for_people.stdout.startswith("overall: FAIL")


def test_routing_passes_where_everything_is(start, scratch):
    peer = OpenClaw()
    try:
        daemon = start(env={"OPENCLAW_GATEWAY_URL": peer.url, "OPENCLAW_GATEWAY_TOKEN": "t"})
        connected = lambda: get(daemon, "/api/v1/swarm/status")["openclaw"]["connected"]
        eventually(connected, 30)
        config = scratch / "openclaw.json"
        config.write_text(SETTINGS)
        status, answer = routing(daemon, "--config", str(config), "--group", "g-1")
        assert (status, answer["overall_status"]) == (DONE, "PASS")
        assert {key: answer["whatsapp"][key] for key in ("connected", "running", "enabled")} == {
            "connected": True, "running": True, "enabled": True}
        assert (answer["sessions"]["active"], answer["sessions"]["has_whatsapp_session"]) == (True, True)
        assert answer["sessions"]["model"] == "m-1"
        found = answer["routing"]
        assert (found["group_registered"], found["require_mention"], found["dm_policy"]) == (True, False, "allowlist")
        assert found["allowed_numbers"] == ["one"] and "not to be seen" not in json.dumps(answer)
        assert routing(daemon, "--config", str(config), "--group", "g-2")[0] == FAILED
        status = get(daemon, "/api/v1/swarm/status")["openclaw"]
        assert (status["connection_state"], status["version"], status["protocol"]) == ("connected", "2026.7.35", 4)
        daemon.stop()
    finally:
        peer.stop()


# --- who may ask ---

def test_the_monitor_asks_for_a_token_like_everything_else(start):
    daemon = start(env={"AUTH_TOKEN": "t" * 32})
    for path in (HEALTH, "/api/v1/workflows/failed", "/api/v1/workflows/metrics", "/api/v1/workflows/x/health",
                 "/api/v1/swarm/status", "/api/v1/swarm/openclaw"):
        assert daemon.http.get(path).status_code == 401, path
        answer = daemon.http.get(path, headers={"Authorization": "Bearer " + "t" * 32})
        assert answer.status_code == 200, (path, answer.text)
    assert daemon.http.post("/api/v1/workflows/x/recover").status_code == 401
