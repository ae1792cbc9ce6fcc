"""The daemon as a good citizen of its system: service manager, log, addresses, limits of names."""

import json
import os
import signal
import socket

import agent as act
import pytest
from rawhttp import Connection, ask
from wait import eventually, unique


@pytest.fixture
def manager(scratch):
    """What systemd is to a service: a datagram socket that gets its notifications."""
    path = scratch / f"{unique('notify')}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(20)
        yield sock, {"NOTIFY_SOCKET": str(path)}


def test_the_service_manager_hears_of_readiness_and_of_the_end(start, manager):
    sock, env = manager
    daemon = start(env=env)
    assert b"READY=1" in sock.recv(4096)
    daemon.stop()
    assert b"STOPPING=1" in sock.recv(4096)


def test_the_watchdog_is_fed(start, manager):
    sock, env = manager
    start(env={**env, "WATCHDOG_USEC": "200000"})
    seen = [sock.recv(4096) for _ in range(4)]
    assert sum(b"WATCHDOG=1" in text for text in seen) >= 3, seen


def test_a_watchdog_of_another_process_is_not_ours(start, manager):
    sock, env = manager
    daemon = start(env={**env, "WATCHDOG_USEC": "50000", "WATCHDOG_PID": "1"})
    assert b"READY=1" in sock.recv(4096)
    daemon.stop()
    assert b"STOPPING=1" in sock.recv(4096)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_polite_signals_end_it_with_status_0(own, number):
    own.stopping = True
    own.signal(number)
    assert own.process.wait(20) == 0


def test_it_can_listen_on_ipv6(start):
    daemon = start("--gateway.host=::1")
    assert daemon.ready["listeners"]["gateway"].startswith("[::1]:")
    assert daemon.http.get("/health").status_code == 200


def test_every_line_of_its_log_is_json_when_nobody_watches(start, make_agent):
    daemon = start(env={"LOG_LEVEL": "debug"})
    name = daemon.register(make_agent(act.fails(500)), 'a "quoted" näme\n', max_retries=1)
    daemon.call(name, session_id="s\u0001")
    ask(daemon, "GET", "/api/vps/nothing%0a%22")
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert all({"time", "level", "msg"} <= set(line) for line in lines)
    assert {"ready", "stopping"} <= {line["msg"] for line in lines}
    assert any(line.get("path") == "/api/vps/nothing%0a%22" for line in lines)


def test_the_log_can_be_text_and_quiet(start):
    daemon = start("--log.format=text", env={"LOG_LEVEL": "error"})
    daemon.http.get("/nothing")
    daemon.stop()
    assert daemon.log() == ""


def test_no_descriptor_leaks_over_many_requests(daemon, make_agent):
    fds = f"/proc/{daemon.process.pid}/fd"

    def work():
        name = daemon.register(make_agent(act.says("ok"), act.resets), unique("agent"), max_retries=1)
        for _ in range(5):
            daemon.call(name, session_id=unique("session"))
            with Connection(daemon) as connection:
                connection.request("GET", "/health").read()
        daemon.http.delete(f"/api/vps/agents/{name}")
    work()
    before = len(os.listdir(fds))
    for _ in range(20):
        work()
    # One connection may be kept for each agent that still answers; those to agents that reset are not.
    eventually(lambda: len(os.listdir(fds)) <= before + 3)


@pytest.mark.parametrize("field, length", [("session_id", 100_000), ("user_id", 5_000_000),
                                           ("agent_name", 1_000_000)])
def test_an_enormous_name_is_refused_or_handled_but_never_breaks_anything(daemon, make_agent, field,
                                                                          length):
    name = daemon.register(make_agent(), unique("agent"))
    body = {"agent_name": name, "prompt": "p", "session_id": unique("session"), field: "n" * length}
    answer = daemon.http.post("/api/vps/call", json=body)
    assert answer.status_code in (200, 422)
    assert "detail" in answer.json() or "success" in answer.json()


def test_a_session_id_may_be_512_characters_long_and_no_longer(daemon, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    assert daemon.call(name, session_id="s" * 512)["success"]
    assert daemon.turns("s" * 512)
    answer = daemon.try_call(name, session_id="s" * 513)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "string_too_long"


def test_a_waiting_stream_is_kept_open_with_comments(daemon, make_agent):
    agent = make_agent(act.held(act.says("at last")))
    name = daemon.register(agent, unique("agent"), timeout_seconds=60)
    body = json.dumps({"agent_name": name, "prompt": "p", "stream": True}).encode()
    with Connection(daemon, timeout=30) as client:
        client.request("POST", "/api/vps/call", [("Content-Type", "application/json")], body)
        while b"\n: keep-alive" not in client.buffer:
            client.buffer += client.sock.recv(65536)
        agent.release()
        assert b'"text":"at last"' in client.read().body
