"""Every way an agent can go wrong: the call fails with a reason, falls over, and harms nothing."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import agent as act
import pytest
from rawhttp import Connection
from wait import eventually, together, unique

MIB = 1024 * 1024
JSON = [("Content-Type", "application/json")]

# name, behaviour, classes it may have
FAULTS = [
    ("reset at once", act.resets, {"network"}),
    ("reset in the body", act.resets_in_body, {"network"}),
    ("close without an answer", act.closes, {"network"}),
    ("cut short", act.truncates, {"network"}),
    ("hang before headers", act.hangs, {"timeout"}),
    ("hang in the body", act.hangs_in_body, {"timeout"}),
    ("slow drip", act.drips, {"timeout"}),
    ("301", act.fails(301, [("Location", "/v1/other")]), {"unknown", "internal"}),
    ("302", act.fails(302, [("Location", "http://127.0.0.1:1/")]), {"unknown", "internal"}),
    ("401", act.fails(401), {"auth"}),
    ("404", act.fails(404), {"unknown"}),
    ("429", act.fails(429, [("Retry-After", "1")]), {"rate_limit"}),
    ("500", act.fails(500), {"internal"}),
    ("503", act.fails(503), {"internal"}),
    ("empty", act.reply(200), {"unknown"}),
    ("HTML", act.reply(200, b"<html></html>", [("Content-Type", "text/html")]), {"unknown"}),
    ("20 MB", act.huge(20 * MIB), {"unknown"}),
    ("20 MB of error", act.reply(500, b"x" * 20 * MIB), {"internal"}),
    ("bad chunks", act.bad_chunks, {"network", "unknown"}),
    ("not HTTP", act.garbage, {"network", "unknown"}),
    ("invalid UTF-8", act.reply(200, b'{"content":"\xc3("}'), {"unknown"}),
    ("deep JSON", act.reply(200, b'{"content":' + b"[" * 9999 + b"]" * 9999 + b"}"), {"unknown"}),
    ("endless header", act.reply(200, b"{}", [("X-Long", "y" * MIB)]), {"network", "unknown"}),
    ("broken gzip", act.reply(200, b"\x1f\x8bnot gzip", [("Content-Encoding", "gzip")]),
     {"network", "unknown"}),
]
ROWS = pytest.mark.parametrize("row", FAULTS, ids=[row[0].replace(" ", "-") for row in FAULTS])


@ROWS
def test_a_fault_fails_the_call_with_its_class_and_leaves_the_daemon_well(daemon, make_agent, row):
    _, behaviour, kinds = row
    name = daemon.register(make_agent(behaviour), unique("agent"), timeout_seconds=1, max_retries=1)
    session = unique("session")
    result = daemon.call(name, session_id=session)
    assert daemon.http.get("/health").status_code == 200
    assert result["success"] is False
    assert result["error"].startswith("All agents failed. Last error: ")
    assert len(result["error"]) < 1000, "an agent cannot fill our answers"
    assert result["error_type"] in kinds
    assert daemon.turns(session) == [("user", "hello")]


@ROWS
def test_after_a_fault_the_fallback_answers(daemon, make_agent, row):
    backup = daemon.register(make_agent(act.says("backup")), unique("backup"))
    name = daemon.register(make_agent(row[1]), unique("agent"), timeout_seconds=1, max_retries=1,
                           fallback_agents=[backup])
    result = daemon.call(name)
    assert (result["success"], result["response"], result["retried"]) == (True, "backup", True)


RECOVERABLE = [row for row in FAULTS if row[2] <= {"network", "timeout", "rate_limit", "internal"}]


@pytest.mark.parametrize("row", RECOVERABLE, ids=[row[0].replace(" ", "-") for row in RECOVERABLE])
def test_after_a_passing_fault_the_second_attempt_answers(daemon, make_agent, row):
    agent = make_agent(row[1], act.says("second"))
    name = daemon.register(agent, unique("agent"), timeout_seconds=1, max_retries=2)
    assert daemon.call(name)["response"] == "second"


@contextlib.contextmanager
def full_queue():
    """A port whose queue of connections is full: what comes next gets no answer at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in crowd:
            one.close()


@pytest.mark.parametrize("phase", ["connect", "accept", "TLS handshake"])
def test_an_attempt_s_deadline_covers_what_is_before_the_request(daemon, phase):
    with contextlib.ExitStack() as stack:
        if phase == "connect":
            port = stack.enter_context(full_queue())
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
        name = daemon.register(port, unique("agent"), timeout_seconds=1, max_retries=1,
                               protocol="https" if phase == "TLS handshake" else "http")
        result = daemon.call(name)
    assert result["error"] == "All agents failed. Last error: Request timeout after 1s"
    assert (result["error_type"], result["attempts"][0]["status"]) == ("timeout", None)


def test_calls_that_end_while_they_connect_do_no_harm(start, make_agent):
    """libcurl closes the socket of a connect that is given up without a word."""
    daemon = start("--bridge.call_deadline=5ms")
    for name, port in (("echo", make_agent(act.echo).port), ("silent", make_agent(act.hangs).port),
                       ("refused", act.refused_port())):
        daemon.register(port, name)

    def call(number):
        name = ("echo", "silent", "refused")[number % 3]
        return daemon.call(name, **({"session_id": f"s{number % 5}"} if number % 2 else {}))
    results = together(call, range(150), workers=8)
    assert all(result["success"] or result["error_type"] in ("timeout", "network")
               for result in results)
    assert not any("e+" in (result["error"] or "") for result in results)
    assert daemon.http.get("/health").status_code == 200


def test_clients_that_leave_while_their_call_connects_do_no_harm(own, make_agent):
    own.register(make_agent(), "near")

    def leave(number):
        body = b'{"agent_name":"%s","prompt":"p"}' % (b"near", b"far")[number % 2]
        with Connection(own, timeout=(0.001, 0.003, 0.01, 0.03)[number % 4]) as client:
            with contextlib.suppress(OSError):
                client.request("POST", "/api/vps/call", JSON, body)
                client.sock.recv(1)
    with full_queue() as port:
        own.register(port, "far", timeout_seconds=1, max_retries=2, fallback_agents=["near"])
        together(leave, range(600), workers=24)
    assert own.call("near")["success"]
    eventually(lambda: own.http.get("/api/vps/sessions/stats").json()["active_calls"] == 0)


def test_an_answer_just_under_the_limit_is_taken_and_one_over_it_is_not(start, make_agent):
    daemon = start("--bridge.response_max=1M")
    daemon.register(make_agent(act.huge(MIB - 1000)), "under", max_retries=1)
    daemon.register(make_agent(act.huge(MIB + 1)), "over", max_retries=1)
    assert len(daemon.call("under")["response"]) == MIB - 1000
    result = daemon.call("over")
    assert (result["success"], result["error_type"]) == (False, "unknown")


def test_an_oversized_answer_is_not_read_to_its_end(daemon, make_agent):
    sent = []

    def floods(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while len(sent) < 1000:
            exchange.send(b"x" * MIB)
            sent.append(1)
    name = daemon.register(make_agent(floods), unique("agent"), max_retries=1)
    assert daemon.call(name)["success"] is False
    assert len(sent) < 64


def test_a_bomb_of_gzip_is_bounded_by_its_unpacked_size(start, make_agent):
    daemon = start("--bridge.response_max=1M")
    name = daemon.register(make_agent(act.gzipped({"content": "0" * 50 * MIB})), "a", max_retries=1)
    assert daemon.call(name)["success"] is False


def test_an_agent_that_closes_idle_connections_costs_no_failed_call(daemon, make_agent):
    closed = []

    def answers_and_closes(exchange):
        act.says("ok")(exchange)
        exchange.sock.shutdown(socket.SHUT_WR)
        exchange.close()
        closed.append(exchange)
    agent = make_agent(answers_and_closes)
    name = daemon.register(agent, unique("agent"), max_retries=1)
    for n in range(20):
        assert daemon.call(name)["success"]
        eventually(lambda: len(closed) > n)  # what is closed under a request may not be asked twice
    assert len(agent.requests) == 20


def test_an_agent_that_comes_back_is_used_again(daemon, make_agent):
    agent = make_agent()
    name = daemon.register(agent, unique("agent"), max_retries=1)
    assert daemon.call(name)["success"]
    agent.stop()
    assert daemon.call(name)["error_type"] == "network"
    daemon.register(make_agent(act.says("back")), name, max_retries=1)
    assert daemon.call(name)["response"] == "back"


def test_one_bad_agent_does_not_slow_the_others(daemon, make_agent):
    stuck = make_agent(act.held(act.says("at last")))
    bad, good = daemon.register(stuck, unique("bad")), daemon.register(make_agent(), unique("good"))
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(daemon.call, bad) for _ in range(40)]
        stuck.wait_requests(40)
        assert all(one["success"] for one in together(daemon.call, [good] * 40))
        assert not any(call.done() for call in waiting), "they answered while the others hung"
        stuck.release()
        assert all(call.result()["response"] == "at last" for call in waiting)


def test_a_crowd_of_failing_calls_leaves_correct_counts(daemon, make_agent):
    mixed = [act.fails(500), act.resets, act.says("ok"), act.fails(429)] * 25
    name = daemon.register(make_agent(*mixed), unique("agent"), max_retries=1)
    results = together(lambda _: daemon.call(name)["success"], range(100), workers=20)
    record = daemon.health(name)
    assert record["total_requests"] == 100
    assert record["total_failures"] == results.count(False) == 75
