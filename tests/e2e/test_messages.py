"""Messages by REST and by the command: lists, keys, dead ones and what is done about them."""

import asyncio
import json

import chelad
import pytest
from swarm_client import Consumer
from wait import eventually, unique

DONE, FAILED, USAGE, NOT_FOUND = range(4)


@pytest.fixture
def chela(daemon):
    def run(*arguments):
        return chelad.run("chela", "--state", daemon.state, *arguments)
    return run


def send(daemon, to, content, status=201, headers=None, **fields):
    body = {"from": "tester", "to": to, "content": content, **fields}
    answer = daemon.http.post("/api/v1/messages", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def get(daemon, one):
    answer = daemon.http.get(f"/api/v1/messages/{one}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(daemon, **params):
    answer = daemon.http.get("/api/v1/messages", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(done):
    assert (done.returncode, done.stderr) == (DONE, ""), done.stderr
    return done.stdout.strip()


def test_a_message_is_stored_and_shown(daemon):
    to = unique("agent:shown")
    sent = send(daemon, to, "żółw 🦞", id="m/1", metadata={"a": [1, None]})
    assert not sent["existed"] and not sent["live"] and sent["message_id"] == "m/1"
    one = get(daemon, sent["workflow_uuid"])
    assert (one["from"], one["to"], one["content"], one["metadata"]) == ("tester", to, "żółw 🦞", {"a": [1, None]})
    assert (one["status"], one["attempts"], one["response"], one["ended_at"]) == ("pending", 0, None, None)
    assert get(daemon, "m%2F1")["workflow_uuid"] == sent["workflow_uuid"]
    assert daemon.http.get("/api/v1/messages/nope").status_code == 404


def test_keys(daemon):
    to = unique("agent:keys")
    for how in ({"id": unique("id")}, {"key": unique("key")}, {"headers": {"Idempotency-Key": unique("key")}},
                {"headers": {"dbos-idempotency-key": unique("key")}}):
        first, again = send(daemon, to, "x", **how), send(daemon, to, "x", **how)
        assert again == {**first, "existed": True}
        send(daemon, to, "another text", status=409, **how)
    send(daemon, to, "x", status=400, key="notice:mine")
    assert len(listed(daemon, session=to)["messages"]) == 4


def test_lists_in_pages(daemon):
    to = unique("agent:pages")
    for number in range(5):
        send(daemon, to, str(number))
    seen, before = [], 0
    while True:
        page = listed(daemon, session=to, limit=2, **({"before": before} if before else {}))
        seen += [one["content"] for one in page["messages"]]
        before = page["next"]
        if not before:
            break
    assert seen == ["4", "3", "2", "1", "0"]
    assert listed(daemon, session=to, status="dead")["messages"] == []
    assert len(listed(daemon, session=to, status="pending,dropped")["messages"]) == 5
    assert listed(daemon, session=to, **{"from": "nobody"})["messages"] == []
    for bad in ({"status": "lost"}, {"limit": 0}, {"limit": 1001}, {"before": "x"}):
        assert daemon.http.get("/api/v1/messages", params=bad).status_code == 400, bad


@pytest.mark.parametrize("body", [
    None, [], {}, {"from": "a", "to": "b"}, {"from": "", "to": "b", "content": "c"}, {"from": 1, "to": "b", "content": "c"},
    {"from": "a", "to": "b" * 256, "content": "c"}, {"from": "a", "to": "b\n", "content": "c"},
    {"from": "a", "to": "b", "content": "c", "max_age": -1}, {"from": "a", "to": "b", "content": "c", "wait": 1e9},
    {"from": "a", "to": "b", "content": "c", "id": "i" * 256}])
def test_what_is_wrong_is_refused(daemon, body):
    answer = daemon.http.post("/api/v1/messages", json=body)
    assert answer.status_code == 400 and isinstance(answer.json()["error"], str), answer.text


def test_dropped_and_replayed(daemon):
    sent = send(daemon, unique("agent:drop"), "x")["workflow_uuid"]
    assert daemon.http.post(f"/api/v1/messages/{sent}/replay").status_code == 409
    assert daemon.http.post(f"/api/v1/messages/{sent}/drop").json()["status"] == "dropped"
    assert daemon.http.post(f"/api/v1/messages/{sent}/drop").status_code == 409
    assert daemon.http.post(f"/api/v1/messages/{sent}/replay").json()["status"] == "pending"
    assert daemon.http.post("/api/v1/messages/nope/drop").status_code == 404


def test_what_nobody_takes_in_time_expires_and_its_sender_has_a_notice(daemon):
    sender = unique("agent:sender")
    sent = send(daemon, unique("agent:late"), "x", max_age=0.05, **{"from": sender})["workflow_uuid"]
    eventually(lambda: get(daemon, sent)["status"] == "expired", 30)
    notice, = listed(daemon, session=sender)["messages"]
    told = json.loads(notice["content"])
    assert told["event"] == "agent.delivery_failed" and told["workflowUuid"] == sent and told["status"] == "expired"


def test_a_full_mailbox_refuses_until_there_is_room(start):
    daemon = start("--messages.mailbox_max=3")
    sent = [send(daemon, "agent:full", str(number))["workflow_uuid"] for number in range(3)]
    assert "full" in send(daemon, "agent:full", "3", status=429)["error"]
    send(daemon, "agent:other", "x")
    assert daemon.http.post(f"/api/v1/messages/{sent[0]}/drop").status_code == 200
    send(daemon, "agent:full", "3")


def test_a_poison_message_is_dead_after_its_attempts(start):
    daemon = start("--messages.attempts=3", "--messages.redeliver=20ms", "--messages.redeliver_max=40ms")
    link = daemon.url.replace("http", "ws")

    async def poison():
        consumer = Consumer(link, "agent:poison")
        got = []

        async def take(payload):
            got.append(payload)
        await consumer.start()
        consumer.bridge.on("agent.message", take)
        sent = (await asyncio.to_thread(send, daemon, "agent:poison", "x"))["workflow_uuid"]
        await asyncio.to_thread(eventually, lambda: get(daemon, sent)["status"] == "failed", 30)
        await consumer.close()
        return sent, got
    sent, got = asyncio.run(poison())
    assert len(got) == 3 and get(daemon, sent)["attempts"] == 3 and get(daemon, sent)["error"]
    assert [one["workflow_uuid"] for one in listed(daemon, status="dead")["messages"]] == [sent]


def test_a_sender_that_waits_has_the_reply(daemon):
    session = unique("agent:replies")

    async def ask():
        consumer = Consumer(daemon.url.replace("http", "ws"), session, answer=lambda p: p["content"] + "!")
        await consumer.start()
        done = await asyncio.to_thread(send, daemon, session, "hello", wait=30)
        await consumer.close()
        return done
    done = asyncio.run(ask())
    assert done["live"] and done["response"] == "hello!"
    assert get(daemon, done["workflow_uuid"])["status"] == "acknowledged"
    assert send(daemon, unique("agent:nobody"), "x", wait=30)["response"] is None  # nobody who replies: at once


def test_the_command(daemon, chela):
    to = unique("agent:cli")
    sent = said(chela("message", "send", to, "line\x1b[31m", "--id", "c1", "--from", "me"))
    assert said(chela("message", "send", to, "line\x1b[31m", "--id", "c1", "--from", "me")) == sent
    assert chela("message", "send", to, "other", "--id", "c1", "--from", "me").returncode == FAILED
    rows = said(chela("message", "ls", "--session", to)).splitlines()
    assert rows[0].split() == ["POSITION", "MESSAGE", "FROM", "TO", "STATUS", "ATTEMPTS", "CREATED", "CONTENT"]
    assert len(rows) == 2 and rows[1].split()[1:5] == ["c1", "me", to, "pending"]
    assert sent in said(chela("message", "show", sent))
    assert json.loads(chela("message", "show", sent, "--json").stdout) == get(daemon, sent)
    assert said(chela("message", "drop", sent)) == f"dropped {sent}"
    assert chela("message", "drop", sent).returncode == FAILED
    assert said(chela("message", "replay", sent)) == f"replayed {sent}"
    assert len(json.loads(chela("message", "ls", "--session", to, "--json").stdout)["messages"]) == 1
    for verb in ("show", "drop", "replay"):
        assert chela("message", verb, "nope").returncode == NOT_FOUND, verb
    assert chela("message", "send", to, "x", "--wait", "soon").returncode in (FAILED, USAGE)
