"""kill -9 at the worst moment: what was acknowledged is there after the restart."""

import json
import threading
import time

import agent as act
import pytest
from rawhttp import Connection
from wait import eventually

CALLERS = 200


class Caller(threading.Thread):
    """Calls on a session of its own, one after the other, until the daemon is gone."""

    def __init__(self, daemon, agent_name, session):
        super().__init__(daemon=True)
        self.target_daemon = daemon
        self.agent_name = agent_name
        self.session = session
        self.acknowledged = []  # (prompt, answer) of calls that were answered
        self.asked = []

    def run(self):
        try:
            with Connection(self.target_daemon) as connection:
                for number in range(10_000):
                    prompt = f"{self.session} prompt {number}"
                    self.asked.append(prompt)
                    body = json.dumps({"agent_name": self.agent_name, "prompt": prompt,
                                       "session_id": self.session, "user_id": "u"}).encode()
                    connection.request("POST", "/api/vps/call",
                                       [("Content-Type", "application/json"),
                                        ("Idempotency-Key", prompt)], body)
                    result = json.loads(connection.read().body)
                    assert result["success"], result
                    self.acknowledged.append((prompt, result["response"]))
        except (OSError, EOFError):
            pass  # the daemon was killed, which is the point


def answers_itself(exchange):
    """Each answer is different for each prompt, so that mixing them up would show."""
    prompt = exchange.request.json["messages"][-1]["content"]
    act.says(f"answer to {prompt}")(exchange)


@pytest.mark.parametrize("run", [1, 2])
def test_a_crash_amid_200_concurrent_calls_loses_no_acknowledged_message(start, make_agent, run):
    daemon = start("--bridge.timeout=60s")
    name = daemon.register(make_agent(answers_itself), "a")
    callers = [Caller(daemon, name, f"run{run}-s{number}") for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(caller.acknowledged for caller in callers), deadline=60)
    eventually(lambda: sum(len(caller.acknowledged) for caller in callers) > 3 * CALLERS, 60)
    daemon.kill()
    for caller in callers:
        caller.join(20)
        assert not caller.is_alive()
    daemon.start()
    interrupted = [check_session(daemon, caller) for caller in callers]
    retry_interrupted(daemon, name, [found for found in interrupted if found])


def check_session(daemon, caller):
    """All acknowledged turns in order, then at most the one that was under way."""
    messages = daemon.session(caller.session)["messages"]
    known = [(role, text) for turn in caller.acknowledged for role, text in
             (("user", turn[0]), ("assistant", turn[1]))]
    found = [(message["role"], message["content"]) for message in messages]
    assert found[:len(known)] == known, caller.session
    rest = messages[len(known):]
    last = caller.asked[-1]
    assert [message["content"] for message in rest] in ([], [last], [last, f"answer to {last}"])
    assert not any(message.get("interrupted") for message in messages[:len(known)])
    if len(rest) == 1:
        assert rest[0]["interrupted"] is True
        return caller.session, last
    return None


def retry_interrupted(daemon, name, turns):
    for session, prompt in turns:
        before = len(daemon.turns(session))
        answer = daemon.try_call(name, prompt, key=prompt, session_id=session, user_id="u").json()
        assert answer["response"] == f"answer to {prompt}"
        messages = daemon.session(session)["messages"]
        assert len(messages) == before + 1, "the question is not asked twice"
        assert not any(message.get("interrupted") for message in messages)


def test_an_interrupted_turn_says_so_and_can_be_retried_with_its_key(own, make_agent):
    agent = make_agent(act.says("first"), act.hangs, act.says("second"))
    name = own.register(agent, "a")
    own.try_call(name, "one", key="k1", session_id="s", user_id="u", metadata={"m": 1})
    body = json.dumps({"agent_name": name, "prompt": "two", "session_id": "s", "user_id": "u"})
    with Connection(own) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json"),
                                                 ("Idempotency-Key", "k2")], body.encode())
        agent.wait_requests(2)
        own.kill()
    own.start()
    messages = own.session("s")["messages"]
    assert [message.get("interrupted", False) for message in messages] == [False, False, True]
    assert (messages[2]["role"], messages[2]["content"]) == ("user", "two")
    assert own.try_call(name, "one", key="k1", session_id="s", user_id="u",
                        metadata={"m": 1}).json()["response"] == "first"
    retried = own.try_call(name, "two", key="k2", session_id="s", user_id="u").json()
    assert retried["response"] == "second"
    assert len(agent.requests) == 3
    assert own.turns("s") == [("user", "one"), ("assistant", "first"), ("user", "two"),
                              ("assistant", "second")]
    assert not any(message.get("interrupted") for message in own.session("s")["messages"])
    assert own.try_call(name, "two", key="k2", session_id="s", user_id="u").json() == retried
    assert len(agent.requests) == 3


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_agents_health_and_sessions_survive_the_end_of_the_daemon(own, make_agent, end):
    good, bad = make_agent(act.echo), make_agent(act.fails(500))
    own.register(bad, "bad", max_retries=1, fallback_agents=["good"], auth_token="kept")
    own.register(good, "good", timeout_seconds=7, context="session")
    for number in range(5):
        own.call("bad", f"p{number}", session_id="s", user_id="ada", metadata={"n": number})
    before = own.session("s"), own.http.get("/api/vps/agents").text
    assert own.health("bad")["status"] == "unreachable"
    getattr(own, end)()
    own.start()
    assert (own.session("s"), own.http.get("/api/vps/agents").text) == before
    assert own.health("bad")["status"] == "unreachable", "changes of state are durable at once"
    if end == "stop":
        assert own.health("bad")["total_failures"] == 5
        assert own.health("good")["total_requests"] == 5
    result = own.call("bad", session_id="s")
    assert result["agent_name"] == "good"
    assert [one["agent"] for one in result["attempts"]] == ["good"], "the circuit is still open"
    own.http.post("/api/vps/health/bad/reset")
    own.call("bad")
    assert bad.requests[-1].header("Authorization") == "Bearer kept"
    assert len(good.requests[-2].json["messages"]) == 11


def test_health_counters_become_durable_within_a_second(own, make_agent):
    name = own.register(make_agent(), "a")
    for _ in range(10):
        own.call(name)
    time.sleep(1.5)  # the promise is about time, and nothing else tells when it is kept
    own.kill()
    own.start()
    assert own.health("a")["total_requests"] == 10


@pytest.mark.parametrize("after", [0.05, 0.15, 0.4])
def test_an_import_cut_by_a_crash_is_there_whole_or_not_at_all(own, after):
    stamp = "2026-02-18T09:00:00"
    message = {"timestamp": stamp, "role": "user", "content": "c", "agent": ""}
    sessions = {f"s{number}": {"session_id": "s", "user_id": "u", "created_at": stamp,
                               "last_activity": stamp, "messages": [message], "metadata": {}}
                for number in range(5000)}
    body = json.dumps({"sessions": sessions}).encode()
    answered = False
    with Connection(own) as client:
        client.request("POST", "/api/v1/sessions/import", [("Content-Type", "application/json")], body)
        client.sock.settimeout(after)
        try:
            answered = client.read().status == 200
        except TimeoutError:
            pass
        own.kill()
    own.start()
    count = own.http.get("/api/vps/status").json()["sessions"]
    assert count == 5000 if answered else count in (0, 5000)


def test_a_deleted_session_and_agent_stay_deleted(own, make_agent):
    name = own.register(make_agent(), "a")
    own.register(1, "b")
    own.call(name, session_id="s")
    own.http.delete("/api/vps/sessions/s")
    own.http.delete("/api/vps/agents/b")
    own.kill()
    own.start()
    assert own.http.get("/api/vps/sessions/s").status_code == 404
    assert [agent["name"] for agent in own.http.get("/api/vps/agents").json()["agents"]] == ["a"]


def test_stopping_lets_a_call_finish_and_refuses_new_connections(own, make_agent):
    agent = make_agent(act.held(act.says("in time")))
    name = own.register(agent, "a")
    body = json.dumps({"agent_name": name, "prompt": "p", "session_id": "s"}).encode()
    with Connection(own) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json")], body)
        agent.wait_requests(1)
        own.begin_stop()
        eventually(lambda: refuses(own))
        assert own.process.poll() is None
        agent.release()
        answer = client.read()
        assert json.loads(answer.body)["response"] == "in time"
        assert answer.header("Connection") == "close"
        assert client.closed()
    own.stop()
    own.start()
    assert own.turns("s") == [("user", "p"), ("assistant", "in time")]


def refuses(daemon):
    try:
        with Connection(daemon):
            return False
    except (ConnectionRefusedError, ConnectionResetError):
        # Reset: the kernel had queued this connection when the listening socket was closed.
        return True


def test_stopping_waits_no_longer_than_its_deadline(start, make_agent):
    daemon = start("--limits.shutdown=300ms")
    agent = make_agent(act.hangs)
    name = daemon.register(agent, "a")
    body = json.dumps({"agent_name": name, "prompt": "p", "session_id": "s"}).encode()
    with Connection(daemon) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json")], body)
        agent.wait_requests(1)
        daemon.stop()
    agent.wait_abandoned(1)
