"""The tests that the original's README names, under their names: fourteen of the swarm's lifecycle
with durable workflows, and the journey from end to end. What they only mocked is done for real here."""

import datetime
import uuid

import httpx
import pytest
from gateway import Socket, post_message
from wait import eventually, unique
from workflows import sql

AGENTS = "/api/v1/agents"
LAST = "SELECT last_heartbeat_at FROM agent_swarm_instances"
MINUTE = datetime.timedelta(minutes=1)


def moment(text):
    return datetime.datetime.fromisoformat(text)


def make(daemon, name=None, status=201, headers=None, **fields):
    body = {"name": name or unique("Agent"), "model": "anthropic/claude-3-5-sonnet", **fields}
    answer = daemon.http.post(f"{AGENTS}/provision", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def act(daemon, agent, verb, status=200, **body):
    answer = daemon.http.post(f"{AGENTS}/{agent['id']}/{verb}", **body)
    assert answer.status_code == status, answer.text
    return answer.json()


def get(daemon, agent):
    answer = daemon.http.get(f"{AGENTS}/{agent['id']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def heartbeat(interval="5m", *checklist):
    return {"enabled": True, "interval": interval, "checklist": list(checklist)}


# --- test_agent_swarm_lifecycle_with_dbos.py ---

@pytest.mark.parametrize("form, key", [("web", "agent:web:stores-metadata"), ("agent", "agent:stores-metadata:main")])
def test_create_agent_stores_workflow_metadata(start, form, key):
    daemon = start(f"--agents.session_key={form}")
    with Socket(daemon) as host:
        host.connect()
        host.subscribe(key)
        agent = make(daemon, "Stores_Metadata", configuration={"depth": 3}, persona="terse")
        greeting = host.message()
    assert agent["openclaw_session_key"] == key and agent["configuration"] == {"depth": 3}
    assert agent["workflow_uuid"] == f"provision:{agent['id']}:0"
    assert greeting["content"].splitlines() == ["Agent: Stores_Metadata", "Persona: terse",
                                                "Model: anthropic/claude-3-5-sonnet", f"Session: {key}"]
    assert greeting["metadata"] == {"kind": "provision", "agentId": agent["id"]}
    steps = sql(daemon, "SELECT function_name FROM dbos.operation_outputs WHERE workflow_uuid ="
                        f" '{agent['workflow_uuid']}' ORDER BY function_id")
    assert [name for name, in steps] == ["validateProvisionRequest", "storeAgentMetadata", "connectAgentChannels",
                                         "startHeartbeatMonitoring", "updateAgentStatus"]


def test_provision_agent_workflow_idempotency(daemon):
    agent = make(daemon)
    assert agent["status"] == "running" and agent["openclaw_agent_id"]
    again = act(daemon, agent, "provision")
    assert again["status"] == "running" and again["provisioned_at"] == agent["provisioned_at"]
    rows = sql(daemon, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid LIKE"
                       f" 'provision:{agent['id']}:%'")
    assert rows == [["SUCCESS"]]


def test_provision_agent_handles_openclaw_failure(start):
    daemon = start("--messages.mailbox_max=1")
    post_message(daemon, "agent:cannot-be-reached:main")
    failed = make(daemon, "Cannot be reached", heartbeat=heartbeat())  # after its waits of 1, 2 and 4 s
    assert failed["status"] == "failed" and failed["error_count"] == 1 and failed["error_message"]
    assert failed["message"] == f"Agent provisioning failed: {failed['error_message']}"
    assert not failed["next_heartbeat_at"] and not failed["provisioned_at"]
    with Socket(daemon) as host:
        host.connect()
        host.subscribe("agent:cannot-be-reached:main")
        host.ack(host.message()["messageId"])
    again = act(daemon, failed, "provision")
    assert again["status"] == "running" and again["error_count"] == 0 and again["error_message"] is None


def test_provision_agent_with_heartbeat_enabled(daemon):
    agent = make(daemon, heartbeat=heartbeat("5m", "look", "think"))
    assert agent["heartbeat_enabled"] is True and agent["heartbeat_interval"] == "5m"
    assert agent["heartbeat_checklist"] == ["look", "think"] and agent["health"] == "ok"
    assert abs(moment(agent["next_heartbeat_at"]) - moment(agent["provisioned_at"]) - 5 * MINUTE) < MINUTE


def test_heartbeat_execution_creates_durable_record(daemon):
    agent = make(daemon, heartbeat=heartbeat("5m", "look", "think"))
    done = act(daemon, agent, "heartbeat")
    assert done["status"] == "completed" and done["checklist_items"] == ["look", "think"]
    assert done["started_at"] and done["completed_at"] and done["duration_seconds"] >= 0
    assert done["message"] == f"Heartbeat executed for agent '{agent['name']}'"
    rows = sql(daemon, f"SELECT status, workflow_uuid FROM agent_heartbeat_executions WHERE id = '{done['id']}'")
    assert rows == [["completed", f"heartbeat:{done['id']}"]]
    text = sql(daemon, "SELECT content FROM agent_messages WHERE session ="
                       f" '{agent['openclaw_session_key']}' ORDER BY position DESC LIMIT 1")
    assert "\n".join(line for line, in text) == f"Heartbeat checklist for {agent['name']}:\n1. look\n2. think"


def test_heartbeat_workflow_crash_recovery(own):
    agent = make(own, heartbeat=heartbeat("5m", "look"))
    key = {"Idempotency-Key": "one beat"}
    answer = own.http.post("/workflows/heartbeat?async=1", json={
        "agentId": agent["id"], "executionId": "crash-1", "checklist": ["look"]})
    assert answer.status_code == 202, answer.text
    own.kill()
    own.start()
    eventually(lambda: own.http.get("/workflows/heartbeat:crash-1").json()["status"] == "SUCCESS", 30)
    rows = sql(own, "SELECT status FROM agent_heartbeat_executions WHERE id = 'crash-1'")
    assert rows == [["completed"]]
    done = own.http.post(f"{AGENTS}/{agent['id']}/heartbeat", headers=key).json()
    assert own.http.post(f"{AGENTS}/{agent['id']}/heartbeat", headers=key).json() == done


def test_heartbeat_schedules_next_execution(daemon):
    agent = make(daemon, heartbeat=heartbeat("15m"))
    act(daemon, agent, "heartbeat")
    after = get(daemon, agent)
    assert after["last_heartbeat_at"]
    assert moment(after["next_heartbeat_at"]) > moment(agent["next_heartbeat_at"])
    assert moment(after["next_heartbeat_at"]) - moment(after["last_heartbeat_at"]) == 15 * MINUTE


def test_pause_agent_preserves_state(daemon):
    agent = make(daemon, heartbeat=heartbeat("1h", "look"))
    paused = act(daemon, agent, "pause")
    assert paused["status"] == "paused" and paused["paused_at"]
    for name in ("heartbeat_enabled", "heartbeat_interval", "heartbeat_checklist", "configuration"):
        assert paused[name] == agent[name]


def test_resume_agent_restores_state(daemon):
    agent = make(daemon, heartbeat=heartbeat("1h", "look", "think"), configuration={"depth": 3})
    act(daemon, agent, "pause")
    changed = daemon.http.patch(f"{AGENTS}/{agent['id']}/settings", json={
        "heartbeat": {"enabled": False, "interval": None}, "configuration": {}})
    assert changed.status_code == 200 and changed.json()["heartbeat_interval"] is None
    resumed = act(daemon, agent, "resume")
    assert resumed["status"] == "running" and resumed["paused_at"] is None
    assert resumed["heartbeat_enabled"] is True and resumed["heartbeat_interval"] == "1h"
    assert resumed["heartbeat_checklist"] == ["look", "think"] and resumed["configuration"] == {"depth": 3}
    now = datetime.datetime.now(datetime.timezone.utc)
    assert 55 * MINUTE < moment(resumed["next_heartbeat_at"]) - now <= 60 * MINUTE


def test_workflow_monitor_initialization(daemon):
    """The monitor's base is the gateway itself: its root names the route that it asks."""
    root = httpx.get(daemon.url, trust_env=False).json()
    assert root["endpoints"]["workflowStatus"] == "GET /workflows/:uuid"
    assert daemon.http.get("/api/v1/workflows/health").status_code == 200


def test_get_workflow_status_success(daemon):
    agent = make(daemon)
    answer = daemon.http.get(f"/workflows/{agent['workflow_uuid']}").json()
    assert answer["workflowUuid"] == agent["workflow_uuid"] and answer["status"] == "SUCCESS"


def test_check_workflow_health_healthy(daemon):
    agent = make(daemon)
    health = daemon.http.get(f"/api/v1/workflows/{agent['workflow_uuid']}/health").json()
    assert health["healthy"] is True and health["reason"] is None and health["status"] == "SUCCESS"


def test_check_workflow_health_failed(daemon):
    started = daemon.http.post("/api/v1/workflows", json={
        "name": "routeAgentMessage", "class_name": "AgentMessageWorkflow", "args": [{"id": "x"}]})
    assert started.status_code in (200, 201, 202), started.text
    uuid_ = started.json().get("id") or started.json()["workflow_uuid"]
    eventually(lambda: daemon.http.get(f"/workflows/{uuid_}").json()["status"] == "ERROR", 30)
    health = daemon.http.get(f"/api/v1/workflows/{uuid_}/health").json()
    assert health["healthy"] is False and health["reason"] == "workflow_failed"


def test_workflow_health_checker_initialization(start):
    daemon = start(env={"HEALTH_CHECK_INTERVAL": "30000"})
    assert daemon.http.get("/health").json()["status"] == "healthy"


# --- test_agentclaw_e2e.py ---

def test_complete_agent_lifecycle_journey(start):
    daemon = start("--agents.session_key=web")
    agent = make(daemon, "e2e test agent", heartbeat=heartbeat("5m", "look", "think"))
    assert agent["openclaw_session_key"] == "agent:web:e2e-test-agent"
    assert agent["status"] == "running" and agent["provisioned_at"] and agent["openclaw_agent_id"]
    beat = act(daemon, agent, "heartbeat")
    assert beat["status"] == "completed" and beat["checklist_items"] == ["look", "think"]
    assert beat["duration_seconds"] >= 0
    assert act(daemon, agent, "pause")["status"] == "paused"
    resumed = act(daemon, agent, "resume")
    assert resumed["status"] == "running"
    assert moment(resumed["next_heartbeat_at"]) > moment(agent["next_heartbeat_at"])
    assert daemon.http.delete(f"{AGENTS}/{agent['id']}").status_code == 204
    stopped = get(daemon, agent)
    assert stopped["status"] == "stopped" and stopped["stopped_at"]
    assert daemon.http.delete(f"{AGENTS}/{agent['id']}").status_code == 204
    assert str(uuid.UUID(agent["id"])) == agent["id"]


# --- heartbeats ---

def test_a_subscribed_agent_is_asked_and_its_answers_are_kept(own):
    """Nothing is written for a beat; what was heard last is there after an orderly stop."""
    agent = make(own, heartbeat=heartbeat("30s"))
    with Socket(own) as host:
        host.connect()
        host.subscribe(agent["openclaw_session_key"])
        host.ack(host.message()["messageId"])
        host.ask("agent.heartbeat", {"sessionKey": agent["openclaw_session_key"]})
        first = eventually(lambda: get(own, agent)["last_heartbeat_at"])
        stored = eventually(lambda: [row for row in sql(own, LAST) if row[0].isdigit()])
        host.ask("agent.heartbeat", {"sessionKey": agent["openclaw_session_key"]})
        eventually(lambda: get(own, agent)["last_heartbeat_at"] > first)
        assert sql(own, LAST) == stored
    last = get(own, agent)["last_heartbeat_at"]
    answer = own.http.post(f"{AGENTS}/{agent['id']}/heartbeat", json={"kind": "alive"})
    assert answer.status_code == 200 and answer.json()["status"] == "alive"
    assert get(own, agent)["last_heartbeat_at"] >= last
    last, slot = get(own, agent)["last_heartbeat_at"], moment(get(own, agent)["next_heartbeat_at"])
    own.stop()
    own.start()
    after = get(own, agent)
    assert after["last_heartbeat_at"] == last
    assert (moment(after["next_heartbeat_at"]) - slot).total_seconds() % 30 == 0
