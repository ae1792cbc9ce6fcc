"""The original's own promises: its curl script, its README's lines, and those behaviours of its
suites that can be seen over HTTP. (Those of its library are tested in C, beside libchela.)
"""

import datetime
import json
import pathlib
import shutil
import subprocess

import agent as act
import chelad
import pytest
from wait import eventually

HERE = pathlib.Path(__file__).parent

# Stands in for jq where it is not installed: prints one JSON value, fails on anything else.
JQ = "#!/usr/bin/python3\nimport json, sys\nprint(json.dumps(json.load(sys.stdin), indent=2))\n"


def shell(tmp_path, *command, **options):
    env = chelad.environment(tmp_path)
    if not shutil.which("jq"):
        (tmp_path / "jq").write_text(JQ)
        (tmp_path / "jq").chmod(0o755)
        env["PATH"] = f"{tmp_path}:{env['PATH']}"
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, **options)


def without_route(script):
    """The script's agents live at addresses nobody has here: find that out in 1 s, not 30."""
    return script.replace('"timeout_seconds": 30', '"timeout_seconds": 1')


def session_idle_for(hours):
    stamp = (datetime.datetime.utcnow() - datetime.timedelta(hours=hours)).isoformat()
    return {"session_id": "x", "user_id": "u", "created_at": stamp, "last_activity": stamp,
            "messages": [], "metadata": {}}


def test_the_curl_script_runs_to_its_end(start, tmp_path):
    daemon = start()
    script = tmp_path / "script.sh"
    script.write_text(without_route((HERE / "original_curl.sh").read_text()))
    done = shell(tmp_path, "bash", str(script), f"http://localhost:{daemon.port}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("all tests completed")
    for step in range(1, 10):
        assert f"{step}. " in done.stdout
    assert daemon.turns("test-session-001") == [("user", "What is the status of the project?")]
    assert daemon.session("test-session-001")["metadata"] == {"project": "openclaw",
                                                              "priority": "high"}


README = {
    "register": r"""curl -X POST http://localhost:18789/api/vps/register \
  -H "Content-Type: application/json" \
  -d '{
    "name": "pm-agent",
    "host": "192.168.1.100",
    "port": 5000
  }'
""",
    "call": r"""curl -X POST http://localhost:18789/api/vps/call \
  -H "Content-Type: application/json" \
  -d '{
    "agent_name": "pm-agent",
    "prompt": "Hello",
    "session_id": "user-123"
  }'
""",
    "health": "curl http://localhost:18789/api/vps/health\n",
    "agent health": "curl http://localhost:18789/api/vps/health/pm-agent\n",
    "session": "curl http://localhost:18789/api/vps/sessions/user-123\n",
}


def test_the_readme_s_lines_work_verbatim(start, tmp_path):
    daemon = start(env={"OPENCLAW_TIMEOUT_SECONDS": "1", "OPENCLAW_MAX_RETRIES": "1"})
    answers = {}
    for name, line in README.items():
        done = shell(tmp_path, "bash", "-c", line.replace("18789", str(daemon.port)))
        assert done.returncode == 0, done.stderr
        answers[name] = json.loads(done.stdout)
    assert answers["register"] == {"status": "registered", "agent_name": "pm-agent",
                                   "url": "http://192.168.1.100:5000"}
    assert answers["call"]["error"].startswith("All agents failed. Last error: ")
    assert answers["health"]["unhealthy_agents"] == 1
    assert answers["agent health"]["total_failures"] == 1
    assert answers["session"]["user_id"] == "anonymous"
    assert [message["content"] for message in answers["session"]["messages"]] == ["Hello"]


def test_the_readme_s_lines_work_with_an_agent_that_is_there(start, make_agent, tmp_path):
    daemon = start()
    agent = make_agent(act.says("Hi"))
    for name, line in README.items():
        line = line.replace("18789", str(daemon.port)).replace("192.168.1.100", "127.0.0.1")
        done = shell(tmp_path, "bash", "-c", line.replace("5000", str(agent.port)))
        answer = json.loads(done.stdout)
        if name == "call":
            assert answer["response"] == "Hi"
    assert [message["role"] for message in answer["messages"]] == ["user", "assistant"]


def test_curl_without_a_content_type_sends_a_form_and_is_told_so(daemon, tmp_path):
    done = shell(tmp_path, "curl", "-sS", f"{daemon.url}/api/vps/call", "-d", '{"agent_name":"a"}')
    assert json.loads(done.stdout)["detail"][0]["type"] == "model_attributes_type"


# The original's bridge suite, as far as REST shows it; the numbers are those of its list.

def test_1_to_5_an_agent_has_fields_a_url_and_headers(daemon, make_agent):
    agent = make_agent()
    answer = daemon.http.post("/api/vps/register", json={"name": "config", "host": "127.0.0.1",
                                                         "port": agent.port, "auth_token": "t"})
    assert answer.json()["url"] == f"http://127.0.0.1:{agent.port}"
    daemon.call("config")
    daemon.register(agent, "config")
    daemon.call("config")
    first, second = agent.requests
    assert first.target == "/v1/messages"
    assert (first.header("Authorization"), second.header("Authorization")) == ("Bearer t", None)
    assert first.header("Content-Type") == second.header("Content-Type") == "application/json"


def test_6_to_9_a_session_keeps_order_role_agent_and_activity(daemon, make_agent):
    name = daemon.register(make_agent(act.says("answer")), "session-agent")
    daemon.call(name, "question", session_id="s6")
    before = daemon.session("s6")
    assert [(m["role"], m["content"], m["agent"]) for m in before["messages"]] == [
        ("user", "question", ""), ("assistant", "answer", name)]
    daemon.call(name, "again", session_id="s6")
    assert daemon.session("s6")["last_activity"] > before["last_activity"]


def test_13_to_15_an_empty_bridge_then_three_agents(own):
    assert own.http.get("/api/vps/status").json()["agents"] == 0
    for number in range(3):
        own.register(5000 + number, f"agent-{number}")
    assert [agent["name"] for agent in own.http.get("/api/vps/agents").json()["agents"]] == [
        "agent-0", "agent-1", "agent-2"]


def test_18_cleanup_of_24_hours_removes_only_the_session_of_48_hours_ago(own):
    own.http.post("/api/v1/sessions/import",
                  json={"sessions": {"old": session_idle_for(48), "new": session_idle_for(0)}})
    assert own.http.post("/api/vps/sessions/cleanup").json() == {"cleaned_up": 1,
                                                                 "remaining_sessions": 1}
    assert own.http.get("/api/vps/sessions/old").status_code == 404
    assert own.http.get("/api/vps/sessions/new").status_code == 200


def test_20_the_fallback_list_is_kept_in_order(daemon, make_agent):
    names = ["b-3", "b-1", "b-2"]
    name = daemon.register(make_agent(), "ordered", fallback_agents=names)
    assert daemon.call(name)["fallback_chain"] == ["ordered", *names]


def test_21_and_22_health_after_one_success_and_of_three_agents(own, make_agent):
    for number in range(3):
        own.register(make_agent(), f"agent-{number}")
    own.call("agent-0")
    assert own.health("agent-0")["status"] == "healthy"
    assert own.health("agent-0")["total_requests"] == 1
    summary = own.http.get("/api/vps/health").json()
    assert (summary["total_agents"], summary["healthy_agents"]) == (3, 3)


def test_25_and_26_unknown_and_unreachable_agents(daemon):
    result = daemon.call("unknown-agent")
    assert not result["success"] and "not registered" in result["error"]
    body = {"name": "far", "host": "192.168.1.1", "port": 5000, "timeout_seconds": 1,
            "max_retries": 1}
    daemon.http.post("/api/vps/register", json=body)
    assert daemon.call("far", session_id="far-session", user_id="user-1")["success"] is False
    assert daemon.session("far-session")["user_id"] == "user-1"


# And of its error-handler suite.

def test_21_of_the_error_handler_a_first_failure_is_unhealthy(daemon, make_agent):
    name = daemon.register(make_agent(act.fails(500)), "first-failure", max_retries=1)
    daemon.call(name)
    assert daemon.health(name)["status"] == "unhealthy"


def test_38_of_the_error_handler_a_success_then_an_error_is_degraded(daemon, make_agent):
    agent = make_agent(act.says("ok"), act.fails(500))
    name = daemon.register(agent, "then-failure", max_retries=1)
    daemon.call(name)
    daemon.call(name)
    assert daemon.health(name)["status"] == "degraded"


# Settings its deployment manifest names and nothing in it read.

def test_session_cleanup_hours_makes_the_promised_automatic_cleanup(start):
    daemon = start("--bridge.sweep_every=100ms", env={"SESSION_CLEANUP_HOURS": "2"})
    daemon.http.post("/api/v1/sessions/import",
                     json={"sessions": {"three": session_idle_for(3), "one": session_idle_for(1)}})
    eventually(lambda: daemon.http.get("/api/vps/sessions/three").status_code == 404)
    assert daemon.http.get("/api/vps/sessions/one").status_code == 200


def test_session_export_path_is_written_at_an_orderly_stop(start, make_agent, tmp_path):
    path = tmp_path / "sessions.json"
    daemon = start(env={"SESSION_EXPORT_PATH": str(path)})
    daemon.call(daemon.register(make_agent(), "a"), session_id="kept")
    daemon.stop()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(path.read_text())["sessions"]) == ["kept"]


@pytest.mark.parametrize("field", ["timeout_seconds", "max_retries"])
def test_zero_never_means_success_without_a_request(daemon, make_agent, field):
    agent = make_agent()
    body = {"name": "zero", "host": "127.0.0.1", "port": agent.port, field: 0}
    assert daemon.http.post("/api/vps/register", json=body).status_code == 422
    assert agent.connections == 0
