"""Agents that mean no good, or are broken: the hub stays up, and others are served as before."""

import json
import os
import socket
import struct
import threading
import time

import pytest
from hub_client import DEADLINE, Hub
from wait import eventually, together, unique
from wsraw import BINARY, CONT, TEXT


@pytest.fixture(scope="module")
def hub(daemon):
    one = Hub(daemon)
    yield one
    one.close()


@pytest.fixture
def pair(hub):
    """Two agents that talk to each other, before and after."""
    a, b = hub.agent(), hub.agent()
    talk(a, b)
    yield a, b
    talk(a, b)
    assert hub.http.get("/health").json()["status"] == "healthy"


def talk(a, b):
    for one, other in ((a, b), (b, a)):
        sent = one.send("log", {"mark": unique("mark")}, to=other.name)
        assert other.expect("log", match=lambda m, sent=sent: m["id"] == sent["id"]) == sent


def evil(hub, name=None, **options):
    name = name or unique("evil")
    return hub.peer(name, hub.register(name)["token"], **options)


def envelope(name, to="host", kind="log", **more):
    return json.dumps({"id": "1", "from": name, "to": to, "type": kind, "timestamp": 1,
                       **more}).encode()


def close_code(peer):
    """The code the hub closes with; what it says before is passed over."""
    peer.sock.settimeout(DEADLINE)
    while True:
        opcode, data = peer.receive()
        if opcode == 8:
            return struct.unpack("!H", data[:2])[0]


def test_frames_that_break_the_protocol_end_their_connection_alone(hub, pair):
    text = envelope("x")
    for make, code in [
        (lambda p: p.frame(TEXT, text, masked=False), 1002),
        (lambda p: p.frame(TEXT, text, rsv=4), 1002),
        (lambda p: p.frame(3, text), 1002),
        (lambda p: p.frame(CONT, text), 1002),
        (lambda p: p.frame(9, b"x" * 126), 1002),
        (lambda p: p.frame(TEXT, b"\xff\xfe"), 1007),
        (lambda p: p.frame(TEXT, b"a", fin=False) + p.frame(TEXT, b"b"), 1002),
        (lambda p: p.frame(8, b"\x00"), 1002),
        (lambda p: p.frame(8, struct.pack("!H", 1005)), 1002),
    ]:
        name = unique("evil")
        peer = evil(hub, name)
        peer.send(make(peer))
        assert close_code(peer) == code
        hub.online(name, False)
        peer.sock.close()


def test_a_message_has_a_largest_size(start):
    hub = Hub(start("--hub.message_max=64K"))
    name = unique("evil")
    token = hub.register(name)["token"]
    for frames in (lambda p: [p.frame(TEXT, b"x" * 65537)],
                   lambda p: [p.frame(TEXT, b"x" * 40000, fin=False), p.frame(CONT, b"x" * 40000)],
                   lambda p: [b"\x81\xff" + struct.pack("!Q", 1 << 62) + b"maskx"]):
        peer = hub.peer(name, token)
        peer.send(*frames(peer))
        assert close_code(peer) == 1009
        peer.sock.close()
        hub.online(name, False)
    agent = hub.open(name, token)
    agent.welcome()
    agent.raw(envelope(name, to=name, pad="x" * 60000).decode())
    assert len(agent.text()) > 60000
    hub.close()


def test_messages_in_pieces_and_in_binary_are_messages(hub, pair):
    name = unique("agent")
    peer = evil(hub, name)
    text = envelope(name, to=pair[0].name, payload={"s": "ü" * 100})
    pieces = [text[i:i + 7] for i in range(0, len(text), 7)]
    frames = [peer.frame(BINARY if i == 0 else CONT, piece, fin=i == len(pieces) - 1)
              for i, piece in enumerate(pieces)]
    peer.send(*frames, chop=3)
    assert pair[0].expect("log")["payload"] == {"s": "ü" * 100}
    peer.sock.close()


def test_random_bytes_harm_nobody(hub, pair):
    name = unique("evil")
    token = hub.register(name)["token"]
    for _ in range(30):
        peer = hub.peer(name, token)
        peer.send(os.urandom(3000))
        peer.sock.close()
    for _ in range(30):
        peer = hub.peer(name, token)
        peer.send((TEXT, b'{"type":' + os.urandom(200).hex().encode() + b"}"),
                  (BINARY, os.urandom(500)))
        peer.sock.close()


@pytest.mark.parametrize("payload", [
    None, [], "x", 7, {}, {"taskId": None}, {"taskId": 7}, {"taskId": {}}, {"taskId": ""},
    {"taskId": "x" * 5000}, {"taskId": "../../x"}, {"taskId": "unknown", "success": "maybe"},
    {"state": "resync"}, {"state": "resync", "tasks": 7}, {"state": "resync", "tasks": [7, {}, []]},
    {"state": "resync", "protocol": -1, "tasks": [{"taskId": "x", "state": "flying"}]},
    {"taskId": "x", "state": "running"}, {"taskId": "x", "stream": "stdout", "offset": -1,
                                          "data": "x"},
    {"taskId": "x", "stream": 7, "offset": 1e300, "data": 7}, {"shellId": "x", "op": "data"},
    {"shellId": 7, "op": {}, "data": "%%%"}, {"shellId": "x", "op": "exit", "code": "x"},
    {"cpu": {"$gt": 1}}, {"__proto__": {"x": 1}},
], ids=lambda payload: json.dumps(payload)[:30])
def test_payloads_of_wrong_types_are_taken_for_what_they_are(hub, payload):
    name = unique("evil")
    token = hub.register(name)["token"]
    agent = hub.open(name, token)
    agent.welcome()
    for kind in ("response", "status", "log", "error", "health", "metadata", "pong", "shell",
                 "task"):
        agent.send(kind, payload)
        agent.send(kind, payload, to=name if kind != "task" else "host")
    agent.flushed()
    stats = hub.status(name)["stats"]
    assert (stats["tasksCompleted"], stats["tasksFailed"]) == (0, 0)
    agent.close()


def test_responses_of_tasks_of_others_count_for_nobody(hub):
    owner, thief = hub.agent(), hub.agent()
    task = hub.task(owner.name, {"type": "exec", "command": "true"})["taskId"]
    owner.expect("task")
    thief.send("response", {"taskId": task, "success": True, "result": "forged"})
    thief.send("response", {"taskId": task, "success": True, "result": "forged"},
               **{"from": owner.name})
    thief.flushed()
    assert hub.http.get(f"/tasks/{task}").json()["task"]["status"] in ("sent", "running")
    assert hub.status(thief.name)["stats"]["tasksCompleted"] == 0
    owner.send("response", {"taskId": task, "success": True, "result": "true"})
    record = hub.http.get(f"/tasks/{task}", params={"wait": 10000}).json()["task"]
    assert record["response"]["result"] == "true"
    owner.send("response", {"taskId": task, "success": False, "error": "again"})
    owner.flushed()
    stats = hub.status(owner.name)["stats"]
    assert (stats["tasksCompleted"], stats["tasksFailed"]) == (1, 0)


def test_who_sends_too_fast_is_read_more_slowly_and_nothing_is_lost(start):
    hub = Hub(start("--hub.rate=100"))
    a, b = hub.agent(), hub.agent()
    began = time.monotonic()
    count = 1300  # the first thousand are what ten quiet seconds have saved up
    for n in range(count):
        a.send("log", {"n": n}, to=b.name)
    assert [b.receive()["payload"]["n"] for _ in range(count)] == list(range(count))
    assert time.monotonic() - began > 2
    hub.close()


def test_who_does_not_read_stops_neither_the_hub_nor_other_talks(hub, pair):
    """A megabyte unread, then its senders wait for it; those who talk to others do not."""
    name = unique("deaf")
    deaf = evil(hub, name, receive=65536)
    sender = hub.agent()
    count = 400
    sent = threading.Thread(target=lambda: [
        sender.send("log", {"n": n, "pad": "x" * 50000}, to=name) for n in range(count)])
    sent.start()
    for _ in range(20):
        talk(*pair)
    got = []
    deaf.sock.settimeout(DEADLINE)
    while len(got) < count:  # it reads after all: everything is there, in order
        opcode, data = deaf.receive()
        message = json.loads(data) if opcode == TEXT else {}
        if message.get("type") == "log":
            got.append(message["payload"]["n"])
    sent.join(DEADLINE)
    assert got == list(range(count))
    deaf.sock.close()


def test_who_never_reads_is_cut_off_and_the_rest_waits_for_it(start):
    hub = Hub(start("--hub.slow=500ms"))
    name = unique("deaf")
    token = hub.register(name)["token"]
    deaf, sender = hub.peer(name, token, receive=65536), hub.agent()
    hub.online(name)
    for n in range(300):
        sender.send("log", {"n": n, "pad": "x" * 100000}, to=name)
    hub.online(name, False)
    sender.send("log", {"n": 300}, to=name)
    sender.flushed()
    deaf.sock.close()
    agent = hub.open(name, token)
    got = []
    while not got or got[-1] != 300:
        got.append(agent.expect("log")["payload"]["n"])
    assert got == list(range(got[0], 301))
    agent.welcome()
    hub.close()


def test_two_who_flood_each_other_do_not_lock_the_hub(hub, pair):
    a, b = hub.agent(), hub.agent()

    def flood(one, other):
        for n in range(150):
            one.send("log", {"n": n, "pad": "x" * 20000}, to=other.name)
        return [one.expect("log")["payload"]["n"] for _ in range(150)]

    assert together(lambda who: flood(*who), [(a, b), (b, a)]) == [list(range(150))] * 2


def test_a_slow_opening_keeps_nobody_waiting(hub, pair):
    host, port = hub.ws_address
    socks = [socket.create_connection((host, int(port))) for _ in range(50)]
    for sock in socks:
        sock.sendall(b"GET /agent/x/")
    talk(*pair)
    assert hub.agent().name
    for sock in socks:
        sock.close()


def test_many_wrong_tokens_at_once(hub, pair):
    def knock(n):
        status, sock, _, _ = hub.handshake(f"/agent/{pair[0].name}/{n:064x}")
        sock.close()
        return status

    assert set(together(knock, range(200), workers=20)) == {401}


def test_reconnecting_all_the_time_leaves_nothing_behind(hub, pair):
    name = unique("nervous")
    token = hub.register(name)["token"]
    before = hub.metric("chela_hub_sockets")
    for n in range(100):
        agent = hub.open(name, token)
        if n % 3 == 0:
            agent.cut()
        elif n % 3 == 1:
            agent.welcome()
    eventually(lambda: hub.metric("chela_hub_sockets") <= before + 1, deadline=DEADLINE)
    agent = hub.open(name, token)
    agent.welcome()
    assert hub.status(name)["status"] == "online"
    agent.close()


def test_the_double_slash_upgrade_that_killed_the_original(hub, pair):
    for ws in (True, False):
        for path in ("//", "//agent/x/y", "/agent//", "/agent///", "/%2f%2f"):
            status, sock, rest, head = hub.handshake(path, ws=ws)
            assert status in (400, 401, 404), (path, head)
            sock.close()


def test_metadata_of_an_agent_does_not_grow_without_end(hub):
    agent = hub.agent()
    for n in range(40):
        agent.send("metadata", {f"k{n}": "x" * 4000})
    agent.flushed()
    metadata = hub.status(agent.name)["metadata"]
    assert 1000 < len(json.dumps(metadata)) < 66000 and metadata["k0"] == "x" * 4000
    body = {"agentId": unique("fat"), "metadata": {"x": "y" * 70000}}
    assert hub.http.post("/agents/register", json=body).status_code in (400, 413)


def test_registrations_have_a_bound(start):
    hub = Hub(start("--hub.agents_max=3"))
    for n in range(3):
        hub.register(f"a{n}")
    answer = hub.http.post("/agents/register", json={"agentId": "a3"})
    assert answer.status_code in (413, 429, 503) and "agents_max" in answer.json()["error"]
    hub.register("a2", {"again": True})
    hub.http.delete("/agents/a0")
    hub.register("a3")
    hub.close()


def test_registering_one_id_many_times_at_once_leaves_one_good_token(hub):
    name = unique("race")
    tokens = together(lambda _: hub.register(name)["token"], range(20))
    good = [token for token in tokens if hub.handshake(f"/agent/{name}/{token}")[0] == 101]
    assert len(good) == 1
