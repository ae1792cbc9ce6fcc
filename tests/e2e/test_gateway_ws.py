"""The gateway's WebSocket: what is pushed to whom, bounds of one socket, and sockets that mean no good."""

import contextlib
import json
import socket
import ssl
import threading

import pytest
from gateway import PATIENCE, Closed, Failed, Refused, Socket, post_message
from wait import eventually, unique
from wsraw import TEXT, Peer, read_head


def sockets(daemon):
    for line in daemon.http.get("/metrics").text.splitlines():
        if line.startswith("chela_gateway_sockets "):
            return int(line.split()[1])
    raise AssertionError("no such metric")


def test_many_acknowledgements_in_one_frame(daemon):
    to = unique("agent")
    for n in range(20):
        post_message(daemon, to, f"m{n}")
    with Socket(daemon) as one:
        one.subscribe(to)
        ids = [one.message()["messageId"] for _ in range(20)]
        assert one.ask("agent.ack", {"messageIds": ids, "sessionKey": to})["acknowledged"] == 20
        assert one.ask("agent.ack", {"messageIds": ids})["acknowledged"] == 20  # a repeat is fine
    with Socket(daemon) as one:
        one.subscribe(to)
        one.quiet(0.3)


@pytest.mark.parametrize("params", [{"messageIds": ["x"] * 1001}, {"messageIds": [7]}, {"messageIds": ["a", ""]},
                                    {"messageId": {}}, {"messageId": "x", "sessionKey": 5}])
def test_acknowledgements_that_cannot_be(daemon, params):
    with Socket(daemon) as one:
        one.subscribe(unique("agent"))
        with pytest.raises(Failed):
            one.ask("agent.ack", params)
        one.connect()


def test_a_sender_may_say_who_it_is_and_more(daemon):
    to = unique("agent")
    with Socket(daemon) as one:
        one.ask("agent.send", {"sessionKey": to, "message": "hi", "from": "agent:other:main",
                               "metadata": {"k": [1, None]}})
        one.subscribe(to)
        got = one.message()
        assert (got["from"], got["metadata"], got["attempt"]) == ("agent:other:main", {"k": [1, None]}, 1)
        assert got["messageId"] == got["workflowUuid"]  # request ids repeat, so they name no message


def test_the_same_key_with_another_text_is_a_conflict(daemon):
    to = unique("agent")
    with Socket(daemon) as one:
        one.ask("agent.send", {"sessionKey": to, "message": "a", "idempotencyKey": "k"})
        with pytest.raises(Failed) as failed:
            one.ask("agent.send", {"sessionKey": to, "message": "b", "idempotencyKey": "k"})
        assert failed.value.code == "CONFLICT"


def test_after_unsubscribe_nothing_comes(daemon):
    to = unique("agent")
    with Socket(daemon) as one:
        one.subscribe(to)
        assert one.subscribe(to)["status"] == "subscribed"  # again is fine
        assert one.ask("agent.unsubscribe", {"sessionKey": to})["status"] == "unsubscribed"
        post_message(daemon, to)
        one.quiet(0.3)
        with pytest.raises(Failed) as failed:
            one.ask("agent.unsubscribe", {"sessionKey": to})
        assert failed.value.code == "NOT_FOUND"


def test_a_heartbeat_of_nobody_is_not_found(daemon):
    with Socket(daemon) as one:
        with pytest.raises(Failed) as failed:
            one.ask("agent.heartbeat", {"sessionKey": unique("agent:nobody")})
        assert failed.value.code == "NOT_FOUND"


def test_subscriptions_of_one_socket_are_bounded(daemon):
    name = unique("agent")
    with Socket(daemon) as one:
        ids = [one.begin("agent.subscribe", {"sessionKey": f"{name}:{n}"}) for n in range(4097)]
        answers = [one.answer(id) for id in ids]
        assert [answer["ok"] for answer in answers] == [True] * 4096 + [False]
        assert answers[-1]["error"]["code"] == "LIMIT_EXCEEDED"


def test_replies_that_do_not_come_do_not_hold_up_what_else_a_socket_asks(daemon):
    """More sends wait for a reply than may: the rest is answered at once, and the order holds."""
    to = unique("agent")
    with Socket(daemon) as agent, Socket(daemon) as one:
        agent.subscribe(to, replies=True)
        ids = [one.begin("agent.send", {"sessionKey": to, "message": str(n), "timeout": 3}) for n in range(300)]
        one.connect()  # answered while they wait
        got = [agent.message() for _ in range(256)]
        assert [message["content"] for message in got] == [str(n) for n in range(256)]
        for message in got:
            agent.begin("agent.reply", {"messageId": message["messageId"], "response": message["content"].upper()})
        answers = [one.answer(id)["payload"]["response"] for id in ids]
        assert answers[:200] == [str(n) for n in range(200)]
        assert f"Message delivered to {to}" in answers


def test_a_burst_is_taken_in_as_fast_as_the_disk_goes_and_in_order(daemon):
    """More than may be under way at once: the socket is not read from meanwhile, nothing is refused."""
    to, text = unique("agent"), "x" * 2000
    with Socket(daemon) as one:
        frames = [one.peer.frame(1, json.dumps({
            "type": "req", "id": str(n), "method": "agent.send",
            "params": {"sessionKey": to, "message": f"{n}:{text}"}}).encode()) for n in range(2000)]
        thread = threading.Thread(target=lambda: one.sock.sendall(b"".join(frames)))
        thread.start()
        answers = [one.frame() for _ in frames]
        thread.join(PATIENCE)
        assert all(answer["ok"] for answer in answers)
        assert {int(answer["id"]) for answer in answers} == set(range(2000))
        one.subscribe(to)
        got = []
        while len(got) < 2000:
            message = one.message()
            one.begin("agent.ack", {"messageId": message["messageId"]})
            if message["attempt"] == 1:  # again: we were slow
                got.append(int(message["content"].split(":")[0]))
        assert got == list(range(2000))


def test_a_socket_that_reads_nothing_is_closed_and_hurts_nobody(own):
    """It asks and asks; when as many answers wait for it as may, it has to go."""
    with Socket(own) as deaf:
        frames = deaf.peer.frame(1, b'{"type":"req","id":"1","method":"no.such"}') * 1000
        deaf.sock.settimeout(PATIENCE)

        def flood():
            with contextlib.suppress(OSError):  # it hangs up, or takes no more
                for _ in range(1000):
                    deaf.sock.sendall(frames)

        thread = threading.Thread(target=flood)
        thread.start()
        eventually(lambda: sockets(own) == 0, PATIENCE)
        assert post_message(own, "agent:x:main")["success"]
        with contextlib.suppress(OSError):
            deaf.sock.shutdown(2)
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert "does not read" in own.log()


def test_a_slow_reader_gets_everything_in_the_end(start):
    """More than a socket's queue waits for it: it is pushed when it reads, nothing is lost."""
    daemon = start("--messages.redeliver=60s")
    to, text = unique("agent"), "x" * 100_000
    with Socket(daemon) as sender:
        for n in range(60):
            sender.ask("agent.send", {"sessionKey": to, "message": f"{n}:{text}"})
        with Socket(daemon) as slow:
            slow.subscribe(to)
            got = []
            while len(got) < 60:
                message = slow.message()
                got.append(int(message["content"].split(":")[0]))
                slow.begin("agent.ack", {"messageId": message["messageId"]})
            assert got == list(range(60))


def test_strangers_are_few_and_go(start):
    token = "canary-token-of-the-gateway-12345"
    daemon = start("--gateway.connect_timeout=2s", env={"AUTH_TOKEN": token})
    held = []
    with contextlib.suppress(Refused):
        for _ in range(300):
            held.append(Socket(daemon, pongs=False))
    assert len(held) == 256
    with Socket(daemon, token=token) as friend:  # those who are known are not kept out by them
        friend.connect()
    assert [one.closed() for one in held] == [1008] * 256
    for one in held:
        one.drop()
    with Socket(daemon) as late:
        late.connect(token)


def test_a_stranger_s_frame_is_bounded_more_tightly(start):
    token = "canary-token-of-the-gateway-12345"
    daemon = start(env={"AUTH_TOKEN": token})
    with Socket(daemon) as one:
        one.begin("connect", {"auth": {"token": "x" * 20_000}})
        assert one.closed() == 1009
    with Socket(daemon) as one:
        one.connect(token)
        assert one.ask("agent.send", {"sessionKey": "agent:x:main", "message": "x" * 100_000})


def test_sockets_are_counted_and_leave_nothing(own):
    assert sockets(own) == 0
    held = [Socket(own) for _ in range(50)]
    for one in held:
        one.subscribe("agent:x:main")
    assert sockets(own) == 50
    for one in held:
        one.drop()
    eventually(lambda: sockets(own) == 0, PATIENCE)
    assert post_message(own, "agent:x:main")["success"]


def test_bytes_at_random_do_no_harm(daemon):
    frames = [b"{}", b"[]", b'{"type":"req"}', b'{"type":"req","id":1,"method":"connect","params":{"minProtocol":"x"}}',
              b'{"type":"req","id":true,"method":"agent.send"}', b'{"type":"req","id":"' + b"x" * 600 + b'","method":"connect"}',
              b'{"type":"req","id":"1","method":"agent.subscribe","params":{"sessionKey":"' + b"k" * 256 + b'"}}',
              b'{"type":"req","id":"1","method":"agent.send","params":{"sessionKey":"' + b"k" * 300 + b'","message":"x"}}',
              b'{"type":"req","id":"1","method":"agent.send","params":{"sessionKey":"k","message":"x","timeout":-1e300}}',
              b'{"id":"' + b"i" * 300 + b'","from":"a","to":"b","content":"c"}', b"[" * 5000, b'"\\ud800"', b"nul"]
    with Socket(daemon) as one:
        for frame in frames:
            one.send(frame.decode())
        answers = [one.frame() for _ in frames]
        assert all(answer["type"] in ("error", "res", "workflow_result") for answer in answers)
        with contextlib.suppress(Closed):
            assert one.connect()["protocol"] == 3


def test_over_tls(start, certificates):
    """Frames of a turn are written together; in records of TLS they are whole and in order too."""
    files = certificates.directory
    daemon = start(f"--tls.cert={files / 'good.pem'}", f"--tls.key={files / 'good.key'}")
    context = ssl.create_default_context(cafile=certificates.ca)
    plain = socket.create_connection(daemon.address, PATIENCE)
    with context.wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall((f"GET /any/path HTTP/1.1\r\nHost: localhost:{daemon.port}\r\nUpgrade: websocket\r\n"
                      "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                      "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 ")
        peer, to, text = Peer(sock, "client", rest), unique("agent"), "x" * 30_000

        def ask(number, method, params):
            peer.send((TEXT, json.dumps({"type": "req", "id": number, "method": method, "params": params}).encode()))

        ask(0, "agent.subscribe", {"sessionKey": to})
        for n in range(100):
            ask(n + 1, "agent.send", {"sessionKey": to, "message": f"{n}:{text}"})
        answered, got = set(), []
        while len(answered) < 101 or len(got) < 100:
            frame = json.loads(peer.receive()[1])
            if frame["type"] == "res":
                assert frame["ok"]
                answered.add(frame["id"])
            elif frame["payload"]["attempt"] == 1:
                got.append(int(frame["payload"]["content"].split(":")[0]))
        assert got == list(range(100))
