"""The README of the original backend, held to its word: its five API lines, its variables, its port.

What it says of a Python package to import and of npm does not apply to a program; the tests it names
are in test_lifecycle.py by their names.
"""

import asyncio
import json
import re
import subprocess

import chelad
import pytest
from swarm_client import Bridge
from wait import eventually

API = """
POST   /api/v1/agents/provision          - Create durable agent
POST   /api/v1/agents/{id}/heartbeat     - Execute durable heartbeat
POST   /api/v1/agents/{id}/pause         - Pause with state preservation
POST   /api/v1/agents/{id}/resume        - Resume from checkpoint
GET    /api/v1/openclaw/status           - Gateway connection status
"""

GATEWAY = """
PORT=18789
HOST=127.0.0.1
AUTH_TOKEN=your-token
LOG_LEVEL=info
HEALTH_CHECK_INTERVAL=30000
"""

BACKEND = """
DATABASE_URL=postgresql://user:pass@host:6432/ainative_app
OPENCLAW_GATEWAY_URL=ws://127.0.0.1:18789
"""

TOKEN = {"Authorization": "Bearer your-token"}
AGENT = {"name": "Readme Agent", "model": "anthropic/claude-sonnet", "persona": "Reads",
         "heartbeat": {"enabled": True, "interval": "5m", "checklist": ["mail", "calendar"]},
         "configuration": {"colour": "red"}}


def variables(block):
    return dict(line.split("=", 1) for line in block.split())


def lines():
    return [tuple(line.split(" - ")[0].split()) for line in API.strip().splitlines()]


def curl(daemon, method, path, body=None, token="your-token"):
    """As somebody would try a line of the README: by hand, with curl."""
    command = ["curl", "-sS", "-X", method, daemon.url + path, "-w", "\n%{http_code}"]
    command += ["-H", f"Authorization: Bearer {token}"] if token else []
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, env=chelad.environment("/nonexistent"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(text) if text else None


@pytest.fixture
def as_documented(start):
    """A daemon with the README's variables, but for the port, which another test may hold, and the
    database, which is the one of this run."""
    return start(env={**variables(GATEWAY), "PORT": "0"}, quick=False)


def test_the_variables_of_the_gateway_are_those_of_the_readme(start):
    shown = chelad.run("chelad", "--print-config", env=variables(GATEWAY))
    assert shown.returncode == 0, shown.stderr
    for variable, line in (("PORT", "port = 18789"), ("HOST", "host = 127.0.0.1"), ("LOG_LEVEL", "level = info"),
                           ("HEALTH_CHECK_INTERVAL", "check = 30000ms"), ("AUTH_TOKEN", r"token = \*\*\*")):
        assert re.search(rf"^; \${variable}\n{line}$", shown.stdout, re.M), (variable, shown.stdout)
    assert "your-token" not in shown.stdout


def test_the_port_is_the_readmes_when_nothing_is_said():
    shown = chelad.run("chelad", "--print-config")
    assert re.search(r"^port = 18789\b", shown.stdout, re.M)
    assert re.search(r"^host = 127\.0\.0\.1\b", shown.stdout, re.M)


def test_the_variables_of_the_backend_are_known():
    shown = chelad.run("chelad", "--print-config", env=variables(BACKEND))
    assert shown.returncode == 0, shown.stderr
    assert "user:pass" not in shown.stdout  # it is a secret
    assert re.search(r"^url = ws://127\.0\.0\.1:18789\b", shown.stdout, re.M)


def test_the_five_lines_of_the_api(as_documented):
    daemon = as_documented
    provision, heartbeat, pause, resume, status = lines()
    code, agent = curl(daemon, *provision, AGENT)
    assert (code, agent["status"]) == (201, "running")
    assert agent["workflow_uuid"] and agent["message"] == "Agent provisioned successfully"
    own = lambda line: (line[0], line[1].replace("{id}", agent["id"]))
    code, beat = curl(daemon, *own(heartbeat))
    assert (code, beat["status"]) == (200, "completed")
    code, paused = curl(daemon, *own(pause))
    assert (code, paused["status"]) == (200, "paused") and paused["paused_at"]
    code, resumed = curl(daemon, *own(resume))
    assert (code, resumed["status"]) == (200, "running") and resumed["paused_at"] is None
    for key in ("heartbeat_enabled", "heartbeat_interval", "heartbeat_checklist", "configuration"):
        assert resumed[key] == agent[key], key
    code, connection = curl(daemon, *status)
    assert code == 200
    assert {"connected", "connection_state", "gateway_url", "uptime_seconds"} <= set(connection)


def test_every_line_wants_the_token(as_documented):
    for method, path in lines():
        body = AGENT if path.endswith("provision") else None
        assert curl(as_documented, method, path.replace("{id}", "x"), body, token=None)[0] == 401
        assert curl(as_documented, method, path.replace("{id}", "x"), body, token="another")[0] == 401
    assert curl(as_documented, "GET", "/health", token=None)[0] == 200


def test_state_is_where_the_database_url_says(start, store):
    """PostgreSQL where there is one; the README's form of it is what these daemons get."""
    daemon = start()
    url = daemon.env.get("DATABASE_URL", "")
    assert url.startswith("postgres") == (store.kind == "postgres")
    status, answer = curl(daemon, "GET", "/api/v1/status", token=None)
    assert (status, answer["store"]["kind"]) == (200, store.kind)


def test_the_backend_may_be_pointed_at_this_gateway_itself(start):
    """The README's OPENCLAW_GATEWAY_URL is the gateway's own port: both were one installation."""
    daemon = start(env=variables(GATEWAY) | {"PORT": "0"}, quick=False)
    port = str(daemon.port)
    daemon.stop()
    env = {**variables(GATEWAY), "PORT": port, "OPENCLAW_GATEWAY_URL": f"ws://127.0.0.1:{port}"}
    again = start(env=env, state=daemon.state, quick=False, fresh=False)
    connected = lambda: curl(again, "GET", "/api/v1/openclaw/status")[1]
    answer = eventually(lambda: connected() if connected()["connected"] else None, 30)
    assert answer["connection_state"] == "connected"


def test_messages_in_real_time_over_the_websocket(as_documented):
    """"WebSocket-based real-time communication": the original's own client, unchanged."""
    async def talk():
        bridge = Bridge(f"ws://127.0.0.1:{as_documented.port}", "your-token")
        hello = await bridge.connect()
        sent = await bridge._request("agent.send", {"sessionKey": "agent:main:main", "message": "hello",
                                                    "idempotencyKey": "k", "timeout": 600})
        await bridge.socket.close()
        return hello, sent

    hello, sent = asyncio.run(asyncio.wait_for(talk(), 60))
    assert hello["server"]["id"] == "openclaw-gateway-dbos"
    assert sent["status"] == "delivered"


def test_operations_are_durable_workflows_and_resume_after_a_kill(as_documented):
    """"All agent operations survive crashes", "workflows resume from last checkpoint"."""
    daemon = as_documented
    code, agent = curl(daemon, *lines()[0], AGENT)
    assert code == 201
    assert curl(daemon, "POST", f"/api/v1/agents/{agent['id']}/pause")[0] == 200
    daemon.kill()
    daemon.start()
    code, resumed = curl(daemon, "POST", f"/api/v1/agents/{agent['id']}/resume")
    assert (code, resumed["status"], resumed["configuration"]) == (200, "running", AGENT["configuration"])
    code, found = curl(daemon, "GET", f"/workflows/{agent['workflow_uuid']}")
    assert (code, found["status"]) == (200, "SUCCESS")
    assert curl(daemon, "GET", "/api/v1/workflows/health")[1]["healthy"] is True
