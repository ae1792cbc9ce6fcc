"""Agents that speak OpenAI's chat completions or responses, instead of the original's messages."""

import agent as act
import pytest
from wait import unique


def chat(content):
    choice = {"index": 0, "finish_reason": "stop",
              "message": {"role": "assistant", "content": content}}
    return act.answers({"id": "c", "object": "chat.completion", "choices": [choice]})


def response(*items):
    return act.answers({"id": "r", "object": "response", "status": "completed",
                        "output": list(items)})


def output(*texts):
    return {"type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": text} for text in texts]}


def test_an_openai_agent_is_asked_for_a_chat_completion(daemon, make_agent):
    agent = make_agent(chat("Hi"))
    name = daemon.register(agent, unique("agent"), api="openai", auth_token="t")
    assert daemon.call(name, "Hello")["response"] == "Hi"
    request, = agent.requests
    assert request.target == "/v1/chat/completions"
    assert request.header("Authorization") == "Bearer t"
    body = request.json
    assert (body["model"], body["messages"]) == (name, [{"role": "user", "content": "Hello"}])
    assert not body.get("stream")


def test_a_responses_agent_is_asked_for_a_response(daemon, make_agent):
    reasoning = {"type": "reasoning", "summary": []}
    agent = make_agent(response(reasoning, output("Hi ", "there")))
    name = daemon.register(agent, unique("agent"), api="responses")
    assert daemon.call(name, "Hello")["response"] == "Hi there"
    request, = agent.requests
    assert request.target == "/v1/responses"
    body = request.json
    assert body["model"] == name
    assert body["input"] in ("Hello", [{"role": "user", "content": "Hello"}],
                             [{"type": "message", "role": "user", "content": "Hello"}])
    assert "messages" not in body and not body.get("stream")


@pytest.mark.parametrize("api", ["openai", "responses"])
def test_earlier_messages_are_sent_when_registered_so(daemon, make_agent, api):
    answer = chat("one") if api == "openai" else response(output("one"))
    agent = make_agent(answer)
    name = daemon.register(agent, unique("agent"), api=api, context="session")
    session = unique("session")
    for prompt in ("a", "b"):
        assert daemon.call(name, prompt, session_id=session)["success"]
    sent = agent.requests[1].json["messages" if api == "openai" else "input"]
    assert [(message["role"], message["content"]) for message in sent] == [
        ("user", "a"), ("assistant", "one"), ("user", "b")]


UNUSABLE = [("openai", {}), ("openai", {"choices": []}), ("openai", {"choices": [{"message": {}}]}),
            ("openai", {"choices": [{"message": {"content": None}}]}), ("openai", []),
            ("responses", {}), ("responses", {"output": []}), ("responses", {"output": "x"}),
            ("responses", {"output": [{"type": "reasoning"}]}), ("responses", None)]


@pytest.mark.parametrize("api, body", UNUSABLE, ids=[f"{api} {body}" for api, body in UNUSABLE])
def test_an_answer_without_text_is_an_invalid_response(daemon, make_agent, api, body):
    name = daemon.register(make_agent(act.answers(body)), unique("agent"), api=api)
    result = daemon.call(name)
    assert (result["success"], result["error_type"]) == (False, "unknown")
    assert "invalid response" in result["error"].lower()


def test_errors_of_adapters_are_classified_alike(daemon, make_agent):
    body = b'{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}'
    name = daemon.register(make_agent(act.fails(404, body=body)), unique("agent"), api="openai")
    assert daemon.call(name)["error_type"] == "model_error"
    limited = make_agent(act.fails(429), chat("after"))
    name = daemon.register(limited, unique("agent"), api="openai")
    assert daemon.call(name)["response"] == "after"


def test_a_chain_may_mix_the_apis(daemon, make_agent):
    backup = daemon.register(make_agent(chat("chat")), unique("backup"), api="openai")
    name = daemon.register(make_agent(act.fails(401)), unique("agent"), api="responses",
                           fallback_agents=[backup])
    assert daemon.call(name)["response"] == "chat"


@pytest.mark.parametrize("field, value", [("api", "grpc"), ("api", 1), ("api", ""),
                                          ("context", "all"), ("context", 5)])
def test_unknown_apis_and_contexts_are_refused(daemon, field, value):
    body = {"name": unique("agent"), "host": "h", "port": 1, field: value}
    answer = daemon.http.post("/api/vps/register", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", field]
