"""Hostile and clumsy callers of the backend: races, floods, odd texts; nothing breaks, nothing grows."""

import json
import random
import socket
import threading
import uuid

import chelad
import pytest
from gateway import Closed, Failed, Socket, post_message
from rawhttp import ask
from wait import eventually, together, unique
from workflows import sql


def make(daemon, status=201, headers=None, **fields):
    answer = daemon.http.post("/api/v1/agents/provision", headers=headers,
                              json={"name": unique("Racer"), "model": "a/b", **fields})
    assert answer.status_code == status, answer.text
    return answer.json()


def memory(daemon):
    """Resident bytes."""
    with open(f"/proc/{daemon.process.pid}/statm") as text:
        return int(text.read().split()[1]) * 4096


SANITIZED = b"__asan_init" in (chelad.BIN / "chelad").read_bytes()
KEPT = 300 << 20 if SANITIZED else 0  # AddressSanitizer keeps 256 MB of what was freed


# --- races ---

def test_pause_resume_and_delete_at_once(daemon):
    """Each answer is one of those the table allows, and the end is stopped."""
    for _ in range(4):
        one = make(daemon)["id"]

        def act(number):
            verb = ("pause", "resume", "heartbeat", "provision")[number % 4]
            if number == 13:
                return daemon.http.delete(f"/api/v1/agents/{one}")
            return daemon.http.post(f"/api/v1/agents/{one}/{verb}")
        answers = together(act, range(24))
        assert {answer.status_code for answer in answers} <= {200, 204, 409}, [a.text for a in answers]
        row = daemon.http.get(f"/api/v1/agents/{one}").json()
        assert row["status"] == "stopped" and row["stopped_at"]


def test_of_many_pauses_one_wins(daemon):
    for verb, end in (("pause", "paused"), ("resume", "running")):
        one = make(daemon)["id"]
        if verb == "resume":
            assert daemon.http.post(f"/api/v1/agents/{one}/pause").status_code == 200
        answers = together(lambda _: daemon.http.post(f"/api/v1/agents/{one}/{verb}"), range(16))
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200] + [409] * 15
        assert daemon.http.get(f"/api/v1/agents/{one}").json()["status"] == end


def test_one_key_at_once_is_one_agent(daemon):
    name, headers = unique("Single"), {"Idempotency-Key": unique("key")}
    made = together(lambda _: make(daemon, name=name, headers=headers), range(20))
    assert len({one["id"] for one in made}) == 1
    rows = sql(daemon, f"SELECT count(*) FROM agent_swarm_instances WHERE name = '{name}'")
    assert rows == [["1"]]


def test_names_at_once_get_keys_of_their_own(daemon):
    name = unique("Clash")
    keys = {one["openclaw_session_key"] for one in together(lambda _: make(daemon, name=name), range(20))}
    assert keys == {f"agent:{name.lower()}:main{suffix}" for suffix in ["", *(f"-{i}" for i in range(1, 20))]}


def test_the_same_message_at_once_is_one(daemon):
    to = unique("agent:race")
    made = together(lambda _: post_message(daemon, to, id="same"), range(30))
    assert len({one["workflowUuid"] for one in made}) == 1
    assert sql(daemon, f"SELECT count(*) FROM agent_messages WHERE session = '{to}'") == [["1"]]


def test_a_key_with_another_text_is_refused(daemon):
    to = unique("agent:other-text")
    post_message(daemon, to, "the first", id="k")
    answer = daemon.http.post("/messages", json={"id": "k", "from": "tester", "to": to, "content": "the second"})
    assert answer.status_code == 409, answer.text
    with Socket(daemon) as one:
        one.ask("agent.send", {"sessionKey": to, "message": "a", "idempotencyKey": "w"})
        with pytest.raises(Failed):
            one.ask("agent.send", {"sessionKey": to, "message": "b", "idempotencyKey": "w"})
        one.subscribe(to)
        assert [one.message()["content"] for _ in range(2)] == ["the first", "a"]


def test_acknowledged_twice_late_and_by_many(daemon):
    to = unique("agent:acks")
    with Socket(daemon) as one, Socket(daemon) as two:
        one.subscribe(to), two.subscribe(to)
        made = post_message(daemon, to)["result"]["messageId"]
        asked = [(each, each.begin("agent.ack", {"messageId": made})) for each in (one, two) * 10]
        for each, id in asked:
            assert each.answer(id)["ok"] is True
        assert daemon.http.get("/health").status_code == 200


# --- odd texts ---

ODD = ["\U0001f980" * 50, "ü\u0301\u200f\u202e", "'; DROP TABLE agent_messages; --", "%s%n%x", "\\u0000 \\", "\t\n\r ",
       "a" * 100_000, "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "<script>", "$1 ?1 :x @y",
       "\x01\x1f\x7f", "{}", "null", "0"]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_texts_arrive_as_they_are(daemon, text):
    to = unique("agent:odd")
    metadata = {text[:1000]: [text, {"n": 1e300, "i": 2 ** 53, "b": True, "z": None}]}
    post_message(daemon, to, text, metadata=metadata)
    with Socket(daemon) as one:
        one.subscribe(to)
        message = one.message()
        assert message["content"] == text and message["metadata"] == metadata
        one.ack(message["messageId"])
    id, session = text[:60], f"agent:{text[:60]}:main"
    answer = daemon.http.post("/messages", json={"id": id, "from": id, "to": session, "content": "x"})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200 and text.strip():
        shown = daemon.http.get("/workflows/" + "".join(f"%{b:02X}" for b in answer.json()["workflowUuid"].encode()))
        assert shown.json()["status"] == "SUCCESS"


@pytest.mark.parametrize("field", ["id", "from", "to", "content"])
def test_a_nul_is_refused_or_arrives(daemon, field):
    """PostgreSQL cannot keep it; it must not be cut there, nor be a 500."""
    body = {"id": unique("n"), "from": "f", "to": unique("agent:nul"), "content": "c"}
    body[field] += "\u0000tail"
    answer = daemon.http.post("/messages", json=body)
    assert answer.status_code in (200, 400), answer.text
    with Socket(daemon) as one:
        one.send(body)
        assert one.frame()["type"] in ("error", "workflow_result")
        if answer.status_code == 200 and field == "content":
            one.subscribe(body["to"])
            assert one.message()["content"] == body["content"]


@pytest.mark.parametrize("body", [
    {"from": 1, "to": "b", "content": "c"}, {"from": "a", "to": ["b"], "content": "c"},
    {"from": "a", "to": "b", "content": {"x": 1}}, {"from": "a", "to": "b", "content": True},
    {"id": 7, "from": "a", "to": "b", "content": "c"}, {"from": None, "to": "b", "content": "c"},
    {"from": "a" * 5000, "to": "b", "content": "c"}, {"from": "a", "to": "b" * 5000, "content": "c"},
    {"id": "i" * 5000, "from": "a", "to": "b", "content": "c"},
    {"from": "a", "to": "b", "content": "c", "metadata": "text"}, {"from": "a", "to": "b", "content": "c", "metadata": 7}])
def test_fields_of_another_kind(daemon, body):
    """A clear 400, or taken as the original took it; never a 500."""
    answer = daemon.http.post("/messages", json=body)
    assert answer.status_code in (200, 400, 413, 422), answer.text
    with Socket(daemon) as one:
        one.send(json.dumps({"id": "x", **body}))
        assert one.frame()["type"] in ("error", "workflow_result")


def test_deep_and_wide_metadata(daemon):
    to = unique("agent:deep")
    deep = '{"from":"a","to":"%s","content":"c","metadata":%s}' % (to, "[" * 50000 + "]" * 50000)
    answer = daemon.http.post("/messages", content=deep, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    wide = {f"k{i}": i for i in range(30000)}
    post_message(daemon, to, metadata=wide)
    with Socket(daemon) as one:
        one.send(deep[:1] + '"id":"d",' + deep[1:])
        assert one.frame()["type"] == "error"
        one.subscribe(to)
        assert one.message()["metadata"] == wide


@pytest.mark.parametrize("text", [
    '{"id":"a","id":"b","from":"x","to":"dup-key","content":"c"}',
    '{"id":"a","from":"x","to":"dup-key","to":"dup-other","content":"c"}'])
def test_duplicate_keys_do_not_confuse(daemon, text):
    """Refused, or one of the two is taken by everybody."""
    answer = daemon.http.post("/messages", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400), answer.text


# --- floods ---

def test_a_storm_of_subscriptions(daemon):
    to = [unique("agent:storm") for _ in range(50)]
    with Socket(daemon) as one:
        for _ in range(20):
            for session in to:
                one.begin("agent.subscribe", {"sessionKey": session})
                one.begin("agent.unsubscribe", {"sessionKey": session})
        last = one.begin("agent.subscribe", {"sessionKey": to[0]})
        assert one.answer(last)["ok"] is True
        one.pushed.clear()
        made = post_message(daemon, to[0])["result"]["messageId"]
        assert one.message()["messageId"] == made
        one.ack(made)
        post_message(daemon, to[1])
        one.quiet(0.3)


def test_subscribed_twice_is_pushed_once(start):
    daemon = start("--messages.redeliver=60s", "--messages.redeliver_max=60s")
    to = unique("agent:twice")
    with Socket(daemon) as one:
        for _ in range(3):
            one.subscribe(to)
        post_message(daemon, to)
        one.message()
        one.quiet(0.3)


def test_very_many_subscriptions_of_one_socket_have_a_bound(daemon):
    """A bound that is told, or room for all; the daemon stays well either way."""
    before = memory(daemon)
    with Socket(daemon) as one:
        for i in range(10_000):
            id = one.begin("agent.subscribe", {"sessionKey": f"agent:bound-{i}:main"})
            if i % 500 == 499:
                answer = one.answer(id)
                assert answer["ok"] or answer["error"]["message"]
                one.pushed.clear()
        assert one.connect()["protocol"] == 3
        assert memory(daemon) - before < (200 << 20) + KEPT


def test_ten_thousand_sessions(daemon):
    """Mailboxes are rows: ten thousand of them cost the daemon next to nothing."""
    with Socket(daemon) as one:
        one.ask("agent.send", {"sessionKey": "agent:warm:main", "message": "x"})
        before, asked = memory(daemon), []
        for i in range(10_000):
            asked.append(one.begin("agent.send", {"sessionKey": f"agent:s{i}:main", "message": "x"}))
            if len(asked) == 500:
                wanted = set(asked)
                while wanted:
                    answer = one.frame()
                    assert answer["ok"] is True, answer
                    wanted.discard(answer["id"])
                asked = []
        assert memory(daemon) - before < (100 << 20) + KEPT
    rows = sql(daemon, "SELECT count(*) FROM agent_messages WHERE session LIKE 'agent:s%:main' AND sender = 'backend-api'")
    assert int(rows[0][0]) >= 10_000


def test_a_consumer_that_does_not_read_costs_no_memory(start):
    daemon = start("--messages.redeliver=100ms", "--messages.redeliver_max=100ms")
    to, text = unique("agent:slow"), "x" * 50_000
    with Socket(daemon) as slow, Socket(daemon) as sender:
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.subscribe(to)
        before = memory(daemon)
        for _ in range(2000):  # 100 MB
            sender.ask("agent.send", {"sessionKey": to, "message": text})
        assert memory(daemon) - before < (80 << 20) + KEPT, "the rest waits in the table"
        assert daemon.http.get("/health").status_code == 200
    with Socket(daemon) as again:
        again.subscribe(to)
        seen = set()
        while len(seen) < 2000:
            message = again.message()
            seen.add(message["messageId"])
            again.begin("agent.ack", {"messageId": message["messageId"]})


def test_a_sender_that_does_not_read_its_answers(start):
    """Thousands of requests without a read: it is held back or closed, not buffered without end."""
    daemon = start()
    before = memory(daemon)
    with Socket(daemon) as one:
        one.sock.settimeout(1)
        frame = one.peer.frame(1, json.dumps({"type": "req", "id": "x" * 1000, "method": "no.such"}).encode())
        sent = 0
        try:
            while sent < 200 << 20:
                one.sock.sendall(frame * 100)
                sent += len(frame) * 100
        except (TimeoutError, OSError):
            pass
        assert memory(daemon) - before < (80 << 20) + KEPT, sent
    post_message(daemon, "agent:x:main")


def test_a_full_mailbox_refuses(start):
    daemon = start("--messages.mailbox_max=10")
    to = unique("agent:full")
    for i in range(10):
        post_message(daemon, to, id=f"m{i}")
    answer = daemon.http.post("/messages", json={"from": "a", "to": to, "content": "x"})
    assert answer.status_code == 429, answer.text
    assert "error" in answer.json()
    post_message(daemon, to, id="m3")  # a repeat is no new one
    post_message(daemon, to + "x")     # nor is another mailbox full
    with Socket(daemon) as one:
        with pytest.raises(Failed):
            one.ask("agent.send", {"sessionKey": to, "message": "x"})
        one.subscribe(to)
        one.ack(one.message()["messageId"])
    eventually(lambda: daemon.http.post("/messages", json={"from": "a", "to": to, "content": "x"}).status_code == 200)


def test_a_message_that_nobody_takes_dies_once_and_its_sender_hears(start):
    daemon = start("--messages.attempts=3", "--messages.redeliver=50ms", "--messages.redeliver_max=100ms")
    to, sender = unique("agent:dead"), unique("agent:sender")
    with Socket(daemon) as one, Socket(daemon) as other:
        one.subscribe(to)
        made = post_message(daemon, to, sender=sender)
        for _ in range(3):
            assert one.message()["messageId"] == made["result"]["messageId"]
        state = eventually(lambda: (lambda s: s if s["status"] == "ERROR" else None)(
            daemon.http.get(f"/workflows/{made['workflowUuid']}").json()), 30)
        assert state["workflowUuid"] == made["workflowUuid"]
        one.pushed.clear()
        one.quiet(0.5)
        other.subscribe(sender)
        notice = other.frame()
        assert notice["type"] == "evt" and made["workflowUuid"] in json.dumps(notice)


def test_garbage_on_many_sockets(daemon):
    rng = random.Random(7)

    def noise(_):
        try:
            with Socket(daemon) as one:
                for _ in range(30):
                    data = bytes(rng.randrange(32, 127) for _ in range(rng.randrange(1, 400)))
                    one.peer.send((1, rng.choice((data, b'{"type":"req","id":' + data, b"[" * 400, b'{"type":"req"}'))))
                one.connect()
        except (Closed, Failed):
            pass
    together(noise, range(20))
    with Socket(daemon) as one:
        assert one.connect()["protocol"] == 3


def test_requests_that_stop_in_the_middle(daemon):
    """Sockets that go while their sends, subscriptions and waits are under way."""
    def visit(number):
        one = Socket(daemon)
        session = f"agent:leaver-{number % 5}:main"
        one.begin("agent.subscribe", {"sessionKey": session, "replies": True})
        for _ in range(20):
            one.begin("agent.send", {"sessionKey": session, "message": "x", "timeout": 60})
        if number % 2:
            one.drop()
        else:
            threading.Timer(0.05, one.drop).start()
    together(visit, range(60), workers=20)
    eventually(lambda: daemon.http.get("/health").status_code == 200)
    post_message(daemon, unique("agent:after"))


@pytest.mark.parametrize("target", ["/messages/../health", "/workflows/%2e%2e%2f", "/workflows/" + "x" * 5000, "/workflows/%00",
                                    "/workflows?limit=-1", "/workflows?limit=99999999999999999999", "/workflows?since=never",
                                    "/workflows?status=NOPE", "/api/v1/agents?limit=0", "/api/v1/agents?limit=201",
                                    "/api/v1/agents?offset=-1", "/api/v1/messages?limit=x", "/api/v1/agents?status=nope"])
def test_odd_targets(daemon, target):
    answer = ask(daemon, "GET", target)
    assert answer.status in (200, 400, 404, 414, 422), (answer.status, answer.body[:200])
    assert answer.body and b"src/" not in answer.body


def test_odd_agents(daemon):
    for fields in ({"name": "\u0000"}, {"name": "'; --"}, {"persona": "x" * 200_000}, {"configuration": {"a": {"b": [None] * 5000}}},
                   {"name": "///"}, {"name": "\U0001f980"}, {"heartbeat": {"enabled": True, "interval": "5m", "checklist": ["x" * 1000] * 100}}):
        answer = daemon.http.post("/api/v1/agents/provision", json={"name": unique("Odd"), "model": "a/b", **fields})
        assert answer.status_code in (201, 422), (list(fields), answer.status_code, answer.text[:300])
        if answer.status_code == 201:
            shown = daemon.http.get(f"/api/v1/agents/{answer.json()['id']}").json()
            for name in ("name", "persona", "configuration"):
                assert name not in fields or shown[name] == fields[name]
            if "heartbeat" in fields:
                assert shown["heartbeat_checklist"] == fields["heartbeat"]["checklist"]
    assert daemon.http.get("/api/v1/agents?limit=200").status_code == 200


def test_an_agent_s_message_and_its_settings_while_it_is_deleted(daemon):
    for _ in range(3):
        made = make(daemon, heartbeat={"enabled": True, "interval": "5m"})
        path = f"/api/v1/agents/{made['id']}"
        work = [lambda: daemon.http.post(f"{path}/message", json={"message": "x"}),
                lambda: daemon.http.patch(f"{path}/settings", json={"persona": str(uuid.uuid4())}),
                lambda: daemon.http.get(path), lambda: daemon.http.delete(path)] * 5
        codes = {answer.status_code for answer in together(lambda do: do(), work)}
        assert codes <= {200, 204, 409}, codes
