"""The HTTP/1.1 server: connections, pipelines, bodies, limits in time and size."""

import socket
import time

import agent as act
import pytest
from rawhttp import Connection, ask
from wait import eventually, together, unique

GET = b"GET /api/vps/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
JSON = [("Content-Type", "application/json")]
NOBODY = b'{"agent_name":"nobody","prompt":"p"}'
POST = b"POST /api/vps/call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_one_connection_serves_many_requests(daemon):
    with Connection(daemon) as connection:
        for _ in range(100):
            assert connection.request("GET", "/api/vps/status").read().status == 200


@pytest.mark.parametrize("version, header, kept", [
    ("1.1", None, True), ("1.1", "close", False), ("1.1", "Close", False),
    ("1.1", "foo, close", False), ("1.0", None, False), ("1.0", "keep-alive", True)])
def test_the_connection_header_decides_whether_it_stays_open(daemon, version, header, kept):
    line = f"Connection: {header}\r\n" if header else ""
    with Connection(daemon) as connection:
        connection.send(f"GET /health HTTP/{version}\r\nHost: localhost\r\n{line}\r\n")
        answer = connection.read()
        assert answer.status == 200
        if kept:
            assert connection.send(GET).read().status == 200
        else:
            assert version == "1.0" or answer.header("Connection").lower() == "close"
            assert connection.closed()


def test_pipelined_requests_are_answered_in_order(daemon):
    sessions = [unique("none") for _ in range(50)]
    with Connection(daemon) as connection:
        connection.send(b"".join(
            f"GET /api/vps/sessions/{session} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            for session in sessions))
        for session in sessions:
            answer = connection.read()
            assert (answer.status, session.encode() in answer.body) == (404, True)


def test_a_slow_request_holds_back_the_answers_behind_it(daemon, make_agent):
    agent = make_agent(act.held(act.says("slow")))
    name = daemon.register(agent, unique("agent"))
    body = f'{{"agent_name":"{name}","prompt":"p"}}'.encode()
    with Connection(daemon) as connection:
        connection.request("POST", "/api/vps/call", JSON, body).send(GET)
        agent.wait_requests(1)
        agent.release()
        assert b'"response":"slow"' in connection.read().body
        assert b'"status":' in connection.read().body


def test_a_request_may_arrive_one_byte_at_a_time(daemon):
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(NOBODY) + NOBODY
    with Connection(daemon) as connection:
        for at in range(len(whole)):
            connection.send(whole[at:at + 1])
        assert b"not registered" in connection.read().body


CHUNKINGS = [
    ("one chunk", b"%x\r\n%s\r\n0\r\n\r\n" % (len(NOBODY), NOBODY)),
    ("many chunks", b"".join(b"1\r\n%c\r\n" % byte for byte in NOBODY) + b"0\r\n\r\n"),
    ("upper-case size", b"%X\r\n%s\r\n0\r\n\r\n" % (len(NOBODY), NOBODY)),
    ("leading zeros", b"000%x\r\n%s\r\n0\r\n\r\n" % (len(NOBODY), NOBODY)),
    ("an extension", b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(NOBODY), NOBODY)),
    ("trailers", b"%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(NOBODY), NOBODY)),
]


@pytest.mark.parametrize("chunks", [row[1] for row in CHUNKINGS], ids=[row[0] for row in CHUNKINGS])
def test_chunked_request_bodies_are_decoded(daemon, chunks):
    with Connection(daemon) as connection:
        connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + GET)
        assert b"'nobody' not registered" in connection.read().body
        assert connection.read().status == 200, "what follows the last chunk is the next request"


def test_expect_100_continue_is_answered_before_the_body(daemon):
    with Connection(daemon) as connection:
        connection.send(POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(NOBODY))
        assert connection.read().status == 100
        assert connection.send(NOBODY).read().status == 200


def test_expect_100_continue_of_too_large_a_body_is_refused_at_once(daemon):
    with Connection(daemon) as connection:
        connection.send(POST + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert connection.read().status == 413


def test_an_unknown_expectation_is_417(daemon):
    with Connection(daemon) as connection:
        connection.send(POST + b"Content-Length: 2\r\nExpect: the-unexpected\r\n\r\n{}")
        assert connection.read().status in (400, 417)


def test_a_chunked_body_over_the_limit_is_413(start):
    daemon = start("--limits.body=1K")
    with Connection(daemon) as connection:
        connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.send(b"400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n0\r\n\r\n")
        answer = connection.read()
        assert (answer.status, answer.body) == (413, b'{"detail":"Request body too large"}')


@pytest.mark.parametrize("target", ["/health", "/api/vps/agents", "/api/vps/sessions/none"])
def test_a_body_nobody_asked_for_is_read_and_ignored(daemon, target):
    with Connection(daemon) as connection:
        connection.request("GET", target, body=b"surprise" * 100).send(GET)
        assert connection.read().status in (200, 404)
        assert connection.read().status == 200


def test_too_long_a_head_is_431(daemon):
    with Connection(daemon) as connection:
        connection.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        connection.send(b"y" * 70_000)
        assert connection.read().status == 431
        assert connection.closed()


def test_too_many_headers_are_431(daemon):
    with Connection(daemon) as connection:
        connection.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
                        + b"".join(b"X-%d: v\r\n" % number for number in range(9000)) + b"\r\n")
        assert connection.read().status == 431


def test_too_long_a_path_is_414_or_431(daemon):
    with Connection(daemon) as connection:
        connection.send(b"GET /" + b"a" * 70_000)
        assert connection.read().status in (414, 431)


def test_a_long_head_within_the_limit_is_fine(daemon):
    answer = ask(daemon, "GET", "/health", [(f"X-{number}", "v" * 500) for number in range(90)])
    assert answer.status == 200


TIMES = ("--limits.first_byte=300ms", "--limits.body_idle=300ms", "--limits.idle=300ms")


def test_a_head_that_dribbles_in_is_408(start):
    daemon = start(*TIMES)
    with Connection(daemon) as connection:
        began = time.monotonic()
        connection.send(b"GET /health HTTP/1.1\r\n")

        def dribble():
            try:
                connection.send(b"X: y\r\n")
            except OSError:
                return True
            return time.monotonic() - began > 0.5
        eventually(dribble, every=0.05)
        assert connection.read().status == 408
        assert connection.closed()


def test_a_connection_that_says_nothing_is_closed(start):
    daemon = start(*TIMES)
    with Connection(daemon) as connection:
        began = time.monotonic()
        connection.closed()
        assert connection.buffer == b"" or b" 408 " in connection.buffer
        assert 0.2 < time.monotonic() - began < 15


def test_a_body_that_stalls_is_408(start):
    daemon = start(*TIMES)
    with Connection(daemon) as connection:
        connection.send(POST + b"Content-Length: 100\r\n\r\n{")
        assert connection.read().status == 408
        assert connection.closed()


def test_an_idle_kept_connection_is_closed_in_silence(start):
    daemon = start(*TIMES)
    with Connection(daemon) as connection:
        assert connection.request("GET", "/health").read().status == 200
        assert connection.closed()


def test_a_slow_call_is_not_idle(start, make_agent):
    daemon = start(*TIMES)
    agent = make_agent(act.hangs, act.says("done"))
    name = daemon.register(agent, "a", timeout_seconds=1, max_retries=2)
    assert daemon.call(name)["response"] == "done"


def test_half_a_request_and_a_close_do_no_harm(daemon):
    for cut in range(1, len(GET), 7):
        with Connection(daemon) as connection:
            connection.send(GET[:cut])
    assert daemon.http.get("/health").status_code == 200


def test_a_client_that_closes_its_sending_side_still_gets_its_answer(daemon):
    with Connection(daemon) as connection:
        connection.send(GET)
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.read().status == 200


def test_a_blank_line_before_a_request_is_ignored(daemon):
    with Connection(daemon) as connection:
        for _ in range(2):
            assert connection.send(b"\r\n" + GET).read().status == 200


def test_an_absolute_target_is_understood(daemon):
    with Connection(daemon) as connection:
        connection.send(b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.read().status == 200


def test_every_answer_has_a_date_and_no_product_version(daemon):
    answer = ask(daemon, "GET", "/health")
    assert answer.header("Date").endswith(" GMT")
    assert daemon.ready["version"] not in (answer.header("Server") or "")


def test_a_handler_may_have_a_deadline(start, make_agent):
    daemon = start("--limits.request=300ms")
    name = daemon.register(make_agent(act.hangs), "a")
    answer = daemon.try_call(name)
    assert answer.status_code == 504 or answer.json()["error_type"] == "timeout"


def test_a_hundred_clients_at_once_get_correct_answers(daemon, make_agent):
    name = daemon.register(make_agent(act.echo), unique("agent"))

    def work(number):
        return [daemon.call(name, f"{number}.{turn}")["response"] for turn in range(5)]
    for number, answers in enumerate(together(work, range(100), workers=50)):
        assert answers == [f"{number}.{turn}" for turn in range(5)]
