"""Streamed answers: server-sent events of a call, from streaming and from plain agents."""

import json

import agent as act
import pytest
from rawhttp import Connection
from wait import eventually, unique

TEXTS = ["Hel", "lo ", "żółw 🦞", "\n", "!"]
EVENTS = {"messages": act.messages_events, "openai": act.openai_events,
          "responses": act.responses_events}
APIS = pytest.mark.parametrize("api", EVENTS)


def parse(lines):
    """Server-sent events: (event, data) pairs; comments are left out."""
    name, data = None, []
    for line in lines:
        if line == "" and data:
            yield name, json.loads("\n".join(data))
            name, data = None, []
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data.append(line[6:])
        else:
            assert line == "" or line.startswith(":"), line


def stream(daemon, name, prompt="hello", headers=None, **fields):
    body = {"agent_name": name, "prompt": prompt, "stream": True, **fields}
    with daemon.http.stream("POST", "/api/vps/call", json=body, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        return list(parse(line.rstrip("\n") for line in answer.iter_lines()))


def deltas(events):
    return [data["text"] for name, data in events if name == "delta"]


@APIS
def test_deltas_are_passed_on_and_the_result_closes_the_stream(daemon, make_agent, api):
    agent = make_agent(act.sse(EVENTS[api](TEXTS)))
    name = daemon.register(agent, unique("agent"), api=api)
    events = stream(daemon, name, session_id=unique("session"))
    assert deltas(events) == TEXTS
    assert all(data["agent_name"] == name for kind, data in events if kind == "delta")
    assert [kind for kind, _ in events] == ["delta"] * len(TEXTS) + ["result"]
    result = events[-1][1]
    assert list(result)[:8] == ["success", "agent_name", "response", "error", "fallback_chain",
                                "latency_ms", "retried", "retry_count"]
    assert (result["success"], result["response"]) == (True, "".join(TEXTS))
    assert agent.requests[0].json["stream"] is True


@APIS
def test_a_delta_arrives_before_the_answer_is_complete(daemon, make_agent, api):
    def pause(number, exchange):
        if number == 3:
            exchange.hold()
    agent = make_agent(act.sse(EVENTS[api](["first", "second", "third"]), pause=pause))
    name = daemon.register(agent, unique("agent"), api=api)
    body = {"agent_name": name, "prompt": "p", "stream": True}
    with daemon.http.stream("POST", "/api/vps/call", json=body) as answer:
        events = parse(line.rstrip("\n") for line in answer.iter_lines())
        assert next(events) == ("delta", {"agent_name": name, "text": "first"})
        agent.release()
        assert deltas(events) == ["second", "third"]


PLAIN = {"messages": {"content": "whole"},
         "openai": {"choices": [{"message": {"content": "whole"}}]},
         "responses": {"output": [{"type": "message",
                                   "content": [{"type": "output_text", "text": "whole"}]}]}}


@APIS
def test_an_agent_that_does_not_stream_gives_one_delta(daemon, make_agent, api):
    name = daemon.register(make_agent(act.answers(PLAIN[api])), unique("agent"), api=api)
    events = stream(daemon, name)
    assert deltas(events) == ["whole"]
    assert events[-1][1]["response"] == "whole"


def test_a_recorded_result_is_told_again_as_one_delta(daemon, make_agent):
    agent = make_agent(act.sse(act.messages_events(TEXTS)))
    name, headers = daemon.register(agent, unique("agent")), {"Idempotency-Key": unique("key")}
    first = stream(daemon, name, headers=headers)
    again = stream(daemon, name, headers=headers)
    assert deltas(again) == ["".join(TEXTS)]
    assert again[-1] == first[-1]
    assert len(agent.requests) == 1


def test_the_session_holds_the_joined_text(daemon, make_agent):
    name = daemon.register(make_agent(act.sse(act.messages_events(TEXTS))), unique("agent"))
    session = unique("session")
    stream(daemon, name, "question", session_id=session)
    assert daemon.turns(session) == [("user", "question"), ("assistant", "".join(TEXTS))]


def test_before_the_first_delta_retry_and_fallback_work_as_always(daemon, make_agent):
    first = make_agent(act.fails(500))
    backup = daemon.register(make_agent(act.sse(act.openai_events(["from ", "backup"]))),
                             unique("backup"), api="openai")
    name = daemon.register(first, unique("agent"), max_retries=2, fallback_agents=[backup])
    events = stream(daemon, name)
    assert len(first.requests) == 2
    assert deltas(events) == ["from ", "backup"]
    assert events[0][1]["agent_name"] == backup
    assert (events[-1][1]["agent_name"], events[-1][1]["retry_count"]) == (backup, 1)


def test_after_the_first_delta_there_is_no_retry_and_no_fallback(daemon, make_agent):
    broken = act.messages_events(["started", "never"])[:3]
    agent = make_agent(act.sse(broken, end=b""))
    other = make_agent()
    backup = daemon.register(other, unique("backup"))
    name = daemon.register(agent, unique("agent"), max_retries=3, fallback_agents=[backup])
    session = unique("session")
    events = stream(daemon, name, session_id=session)
    assert deltas(events) == ["started"]
    result = events[-1][1]
    assert (events[-1][0], result["success"], result["error_type"]) == ("result", False, "network")
    assert (len(agent.requests), other.connections) == (1, 0)
    assert daemon.turns(session) == [("user", "hello")]


@pytest.mark.parametrize("api", ["messages", "responses"])
def test_a_stream_that_is_cut_where_nothing_shows_it_is_no_answer(daemon, make_agent, api):
    """Without chunks or a length a dead agent's stream ends like a whole one, but for its events."""
    whole = EVENTS[api](["started", "never"])
    text = "".join(f"event: {name}\ndata: {data}\n\n" for name, data in whole)
    cut = text[:text.index("never")].rpartition("\n\n")[0] + "\n\n"

    def stops(exchange):
        act.reply(200, cut.encode(), [("Content-Type", "text/event-stream"),
                                      ("Connection", "close")], length=False)(exchange)
        exchange.close()
    name = daemon.register(make_agent(stops), unique("agent"), api=api, max_retries=1)
    session = unique("session")
    events = stream(daemon, name, session_id=session)
    assert deltas(events) == ["started"]
    assert (events[-1][1]["success"], events[-1][1]["error_type"]) == (False, "network")
    assert daemon.turns(session) == [("user", "hello")]


def test_a_stream_without_any_word_of_its_end_ends_with_its_body(daemon, make_agent):
    agent = make_agent(act.sse(act.openai_events(TEXTS)[:-2]))
    events = stream(daemon, daemon.register(agent, unique("agent"), api="openai"))
    assert (deltas(events), events[-1][1]["success"]) == (TEXTS, True)


def test_a_failed_call_is_a_single_result_event(daemon, make_agent):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1)
    (kind, result), = stream(daemon, name)
    assert (kind, result["success"], result["error_type"]) == ("result", False, "internal")


def test_an_unknown_agent_is_a_result_as_without_streaming(daemon):
    (kind, result), = stream(daemon, "nobody")
    assert (kind, result["error"]) == ("result", "Agent 'nobody' not registered")


def test_errors_before_the_stream_are_plain_answers(daemon, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    session = unique("session")
    daemon.call(name, session_id=session, user_id="ada")
    assert daemon.try_call(name, session_id=session, user_id="eve", stream=True).status_code == 403
    body = {"prompt": "p", "stream": True}
    assert daemon.http.post("/api/vps/call", json=body).status_code == 422
    assert daemon.try_call(name, stream="maybe").status_code == 422


@pytest.mark.parametrize("stream_field", [False, None])
def test_stream_off_is_the_plain_answer(daemon, make_agent, stream_field):
    agent = make_agent()
    name = daemon.register(agent, unique("agent"))
    answer = daemon.try_call(name, **({} if stream_field is None else {"stream": stream_field}))
    assert answer.json()["success"] is True
    assert "stream" not in agent.requests[0].json


def test_an_error_event_of_the_agent_ends_the_call(daemon, make_agent):
    events = act.messages_events(["a"])[:3]
    events.append(("error", json.dumps({"type": "error", "error": {"type": "overloaded_error",
                                                                  "message": "Overloaded"}})))
    name = daemon.register(make_agent(act.sse(events)), unique("agent"))
    got = stream(daemon, name)
    assert deltas(got) == ["a"]
    assert got[-1][1]["success"] is False


def test_a_stalled_stream_ends_at_the_agent_s_deadline(daemon, make_agent):
    def pause(number, exchange):
        if number == 3:
            exchange.hold()
    agent = make_agent(act.sse(act.messages_events(["a", "b"]), pause=pause))
    name = daemon.register(agent, unique("agent"), timeout_seconds=1, max_retries=1)
    got = stream(daemon, name)
    assert deltas(got) == ["a"]
    assert got[-1][1]["error_type"] == "timeout"


def test_events_split_anywhere_are_put_together_again(daemon, make_agent):
    whole = "".join((f"event: {name}\n" if name else "") + f"data: {data}\n\n"
                    for name, data in act.messages_events(TEXTS)).encode()
    pieces = [whole[at:at + 1] for at in range(len(whole))]
    agent = make_agent(act.chunked(pieces, content_type="text/event-stream; charset=utf-8"))
    assert deltas(stream(daemon, daemon.register(agent, unique("agent")))) == TEXTS


def test_lines_may_end_in_crlf_and_comments_are_ignored(daemon, make_agent):
    text = ": hello\r\n\r\n" + "".join(
        f"id: 1\r\nevent: {name}\r\ndata: {data}\r\n\r\n: ping\r\n\r\n"
        for name, data in act.messages_events(TEXTS))
    agent = make_agent(act.chunked([text.encode()], content_type="text/event-stream"))
    assert deltas(stream(daemon, daemon.register(agent, unique("agent")))) == TEXTS


def test_a_listener_that_leaves_cancels_the_agent_s_stream(daemon, make_agent):
    def pause(number, exchange):
        if number == 3:
            exchange.hold()
    agent = make_agent(act.sse(act.messages_events(["a", "b"]), pause=pause))
    name = daemon.register(agent, unique("agent"))
    body = json.dumps({"agent_name": name, "prompt": "p", "stream": True}).encode()
    with Connection(daemon) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json")], body)
        eventually(lambda: reads_delta(client))
    agent.wait_abandoned(1)


def reads_delta(client):
    client.buffer += client.sock.recv(65536)
    return b"event: delta" in client.buffer


def test_a_slow_listener_does_not_make_the_daemon_hold_the_whole_answer(daemon, make_agent):
    sent = []

    def pause(number, exchange):
        sent.append(number)
    agent = make_agent(act.sse(act.messages_events(["x" * 100_000] * 150), pause=pause))
    name = daemon.register(agent, unique("agent"), timeout_seconds=60)
    body = json.dumps({"agent_name": name, "prompt": "p", "stream": True}).encode()
    with Connection(daemon, timeout=60) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json")], body)
        eventually(lambda: reads_delta(client))
        eventually(stopped_growing(sent), every=0.3)
        assert len(sent) < 150, "the agent was held back"
        answer = client.read()
    assert answer.body.count(b"event: delta") == 150


def stopped_growing(values):
    """A probe that is true once the list is as long as at the probe before."""
    lengths = [-1]

    def probe():
        lengths.append(len(values))
        return lengths[-1] == lengths[-2]
    return probe
