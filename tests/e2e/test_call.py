"""POST /api/vps/call: the result object, its fields and texts, and what the agent is sent."""

import json
from concurrent.futures import ThreadPoolExecutor

import agent as act
import pytest
from rawhttp import Connection
from wait import unique

ORIGINAL_KEYS = ["success", "agent_name", "response", "error", "fallback_chain", "latency_ms",
                 "retried", "retry_count"]
ADDED_KEYS = ["error_type", "attempts"]


def test_a_successful_call_answers_the_documented_object(daemon, make_agent):
    name = daemon.register(make_agent(act.says("Hello back")), unique("agent"))
    result = daemon.call(name, "Hello")
    latency = result.pop("latency_ms")
    attempt, = result.pop("attempts")
    assert result == {"success": True, "agent_name": name, "response": "Hello back", "error": None,
                      "fallback_chain": [name], "retried": False, "retry_count": 0,
                      "error_type": None}
    assert 0 < latency < 60000
    assert round(latency, 2) == latency
    assert list(attempt) == ["agent", "attempt", "error_type", "status", "latency_ms"]
    assert attempt.pop("latency_ms") >= 0
    assert attempt == {"agent": name, "attempt": 1, "error_type": None, "status": 200}


def test_keys_come_in_the_documented_order_with_compact_separators(daemon, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    answer = daemon.try_call(name)
    assert list(answer.json()) == ORIGINAL_KEYS + ADDED_KEYS
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith(f'{{"success":true,"agent_name":"{name}","response":"ok",'
                                  f'"error":null,"fallback_chain":["{name}"],"latency_ms":')


def test_an_unknown_agent_is_an_answer_and_not_an_http_error(daemon):
    session = unique("session")
    answer = daemon.try_call("nobody", session_id=session, user_id="u")
    assert answer.status_code == 200
    assert answer.text.startswith(
        '{"success":false,"agent_name":"nobody","response":null,'
        '"error":"Agent \'nobody\' not registered","fallback_chain":[],"latency_ms":0.0,'
        '"retried":false,"retry_count":0')
    assert answer.json()["attempts"] == []
    assert daemon.http.get(f"/api/vps/sessions/{session}").status_code == 404


def test_an_empty_agent_name_is_just_an_unknown_agent(daemon):
    assert daemon.call("")["error"] == "Agent '' not registered"


def test_a_failed_call_names_the_requested_agent_and_the_last_error(daemon, make_agent):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1)
    result = daemon.call(name)
    assert result["success"] is False
    assert (result["agent_name"], result["response"]) == (name, None)
    assert result["error"].startswith("All agents failed. Last error: ")
    assert "'500 Internal Server Error'" in result["error"]
    assert "developer.mozilla.org" not in result["error"]
    assert result["latency_ms"] > 0
    assert (result["retried"], result["retry_count"]) == (False, 0)


def test_the_request_the_agent_sees_is_the_original_one(daemon, make_agent):
    agent = make_agent()
    name = daemon.register(agent, unique("agent"), auth_token="canary-bearer")
    daemon.call(name, 'say "hi"\n', session_id="sid", user_id="someone", metadata={"k": 1})
    request, = agent.requests
    assert (request.method, request.target, request.version) == ("POST", "/v1/messages", "HTTP/1.1")
    assert request.header("Host") == f"127.0.0.1:{agent.port}"
    assert request.header("Content-Type") == "application/json"
    assert request.header("Authorization") == "Bearer canary-bearer"
    assert request.header("Content-Length") == str(len(request.body))
    assert request.header("Expect") is None
    assert request.body.decode() == (
        f'{{"model":"{name}","messages":[{{"role":"user","content":"say \\"hi\\"\\n"}}],'
        '"session_id":"sid"}')


@pytest.mark.parametrize("fields", [{}, {"session_id": None}, {"session_id": ""}])
def test_without_a_session_the_agent_gets_no_session_id(daemon, make_agent, fields):
    agent = make_agent()
    daemon.call(daemon.register(agent, unique("agent")), **fields)
    assert list(agent.requests[0].json) == ["model", "messages"]


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_there_is_no_authorization_header(daemon, make_agent, token):
    agent = make_agent()
    daemon.call(daemon.register(agent, unique("agent"), auth_token=token))
    assert agent.requests[0].header("Authorization") is None


def test_the_model_is_the_name_of_the_agent_being_tried(daemon, make_agent):
    first, second = make_agent(act.fails(500)), make_agent()
    backup = daemon.register(second, unique("backup"))
    name = daemon.register(first, unique("agent"), max_retries=1, fallback_agents=[backup])
    daemon.call(name)
    assert first.requests[0].json["model"] == name
    assert second.requests[0].json["model"] == backup


@pytest.mark.parametrize("prompt", ["", " ", "żółw 🦞", "tab\t\u0001\u007f", "\\\"/", "x" * 100_000],
                         ids=["empty", "blank", "unicode", "control", "escapes", "long"])
def test_any_text_reaches_the_agent_and_comes_back_unchanged(daemon, make_agent, prompt):
    agent = make_agent(act.echo)
    name = daemon.register(agent, unique("agent"))
    assert daemon.call(name, prompt)["response"] == prompt
    assert agent.prompts() == [prompt]


def test_non_ascii_is_sent_raw_and_control_characters_escaped(daemon, make_agent):
    name = daemon.register(make_agent(act.says("żółw\u0001\n")), unique("agent"))
    text = daemon.try_call(name).content.decode()
    assert '"response":"żółw\\u0001\\n"' in text


def test_an_eight_megabyte_prompt_is_accepted(daemon, make_agent):
    agent = make_agent(act.says("read it"))
    name = daemon.register(agent, unique("agent"))
    assert daemon.call(name, "y" * 8_000_000)["response"] == "read it"
    assert len(agent.requests[0].json["messages"][0]["content"]) == 8_000_000


def test_unknown_keys_are_ignored_and_the_last_of_duplicate_keys_wins(daemon, make_agent):
    agent = make_agent()
    name = daemon.register(agent, unique("agent"))
    body = f'{{"agent_name":"other","prompt":"a","agent_name":"{name}","extra":[1],"prompt":"b"}}'
    answer = daemon.http.post("/api/vps/call", content=body,
                              headers={"Content-Type": "application/json"})
    assert answer.json()["success"] is True
    assert agent.prompts() == ["b"]


@pytest.mark.parametrize("content_type", [None, "application/json", "Application/JSON",
                                          "application/json; charset=utf-8",
                                          "application/vnd.api+json"])
def test_these_content_types_count_as_json(daemon, make_agent, content_type):
    name = daemon.register(make_agent(), unique("agent"))
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps({"agent_name": name, "prompt": "p"}).encode()
    answer = daemon.http.post("/api/vps/call", content=body, headers=headers)
    assert answer.json()["success"] is True, answer.text


def test_connections_to_an_agent_are_reused(daemon, make_agent):
    agent = make_agent()
    name = daemon.register(agent, unique("agent"))
    for _ in range(5):
        assert daemon.call(name)["success"]
    assert agent.connections == 1


def test_status_stays_quick_while_a_hundred_calls_are_waiting(daemon, make_agent):
    agent = make_agent(act.held(act.says("late")))
    name = daemon.register(agent, unique("agent"))
    with ThreadPoolExecutor(100) as pool:
        calls = [pool.submit(daemon.call, name) for _ in range(100)]
        agent.wait_requests(32)  # the default bound of connections to one host
        times = sorted(daemon.http.get("/api/vps/status").elapsed.total_seconds()
                       for _ in range(50))
        agent.release()
        assert all(call.result()["response"] == "late" for call in calls)
    assert times[25] < 5, times  # the calls are held for ever


def test_a_client_that_leaves_cancels_the_agent_s_work(daemon, make_agent):
    agent = make_agent(act.hangs)
    name = daemon.register(agent, unique("agent"), max_retries=3)
    body = json.dumps({"agent_name": name, "prompt": "p"}).encode()
    with Connection(daemon) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json")], body)
        agent.wait_requests(1)
    agent.wait_abandoned(1)
    assert len(agent.requests) == 1
    assert daemon.health(name)["total_failures"] == 0
