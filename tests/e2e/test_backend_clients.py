"""Clients of the original's protocol shape, unchanged, and a consumer that acknowledges by id."""

import asyncio
import json

import pytest
import websockets
from gateway import Socket
from swarm_client import Bridge, Consumer, ProductionBridge
from wait import unique


def link(daemon):
    return f"ws://{daemon.address[0]}:{daemon.port}"


def run(main):
    """A coroutine to its end; thirty seconds are a hang of the client."""
    return asyncio.run(asyncio.wait_for(main, 60))


def test_the_base_client(daemon):
    async def main():
        bridge = Bridge(link(daemon), "any token")
        hello = await bridge.connect()
        assert hello["protocol"] == 3 and hello["server"]["id"] == "openclaw-gateway-dbos"
        session = unique("agent:base") + ":main"
        sent = await bridge.send_to_agent(session, "hello")
        assert sent["response"] == f"Message delivered to {session}"
        assert sent["status"] == "delivered" and sent["message_id"]
        profile = unique("profile")
        assert await bridge.delegate_task(profile, "x") == f"Message delivered to agent:{profile}:main"
        await bridge.close()
    run(main())


def test_a_refusal_reaches_the_base_client(daemon):
    """It understands no frame but `res` and `evt`: anything else would leave it waiting for ever."""
    async def main():
        bridge = Bridge(link(daemon))
        await bridge.connect()
        for method, params in (("agent.send", {"sessionKey": "", "message": "x"}), ("agent.send", {}),
                               ("no.such", {}), ("agent.ack", {"messageId": "nothing"})):
            with pytest.raises(RuntimeError, match="."):
                await bridge._request(method, params)
        await bridge.close()
    run(main())


def test_a_wrong_token_reaches_it_too(start):
    daemon = start(env={"AUTH_TOKEN": "the-right-token-of-the-test"})

    async def main():
        with pytest.raises(RuntimeError):
            await Bridge(link(daemon), "the-wrong-token-of-the-test").connect()
        bridge = Bridge(link(daemon), "the-right-token-of-the-test")
        await bridge.connect()
        await bridge.send_to_agent("agent:x:main", "y")
        await bridge.close()
    run(main())


def test_the_production_bridge(daemon):
    async def main():
        bridge = ProductionBridge(link(daemon))
        with pytest.raises(ConnectionError):
            await bridge.send_to_agent("agent:x:main", "early")
        await bridge.connect()
        session = unique("agent:prod") + ":main"
        sent = await bridge.send_to_agent(session, "hello", {"kept": "here"})
        assert (sent["status"], sent["session_key"], sent["metadata"]) == ("sent", session, {"kept": "here"})
        with pytest.raises(ValueError):
            await bridge.send_to_agent("nothing", "x")
        await bridge.close()
    run(main())


def test_many_requests_of_one_client_at_once(daemon):
    async def main():
        bridge = Bridge(link(daemon))
        await bridge.connect()
        session = unique("agent:many") + ":main"
        answers = await asyncio.gather(*(bridge.send_to_agent(session, str(i)) for i in range(500)))
        assert len({one["message_id"] for one in answers}) == 500
        consumer = Consumer(link(daemon), session)
        await consumer.start()
        handled = await consumer.wait(500)
        assert [one["content"] for one in handled] == [str(i) for i in range(500)]
        await consumer.close()
        await bridge.close()
    run(main())


def test_an_agent_that_replies(daemon):
    async def main():
        session = unique("agent:replies")
        consumer = Consumer(link(daemon), session, answer=lambda message: message["content"].upper())
        await consumer.start()
        bridge = Bridge(link(daemon))
        await bridge.connect()
        answers = await asyncio.gather(*(bridge.send_to_agent(session, f"say {i}") for i in range(50)))
        assert [one["response"] for one in answers] == [f"SAY {i}" for i in range(50)]
        await consumer.close()
        await bridge.close()
    run(main())


def test_who_waits_for_a_reply_blocks_nobody(daemon):
    """On one socket: a send waits for its reply, which comes from the same socket later."""
    session = unique("agent:self")
    with Socket(daemon) as one:
        one.subscribe(session, replies=True)
        asked = one.begin("agent.send", {"sessionKey": session, "message": "to myself", "timeout": 60})
        message = one.message()
        one.ask("agent.send", {"sessionKey": unique("agent:other"), "message": "meanwhile"})
        one.ask("agent.reply", {"messageId": message["messageId"], "response": "from myself"})
        assert one.answer(asked)["payload"]["response"] == "from myself"


def test_a_reply_that_does_not_come_is_not_waited_for_longer_than_asked(daemon):
    session = unique("agent:mute")
    with Socket(daemon) as agent, Socket(daemon) as caller:
        agent.subscribe(session, replies=True)
        payload = caller.ask("agent.send", {"sessionKey": session, "message": "?", "timeout": 1})
        assert payload["response"] == f"Message delivered to {session}"
        asked = caller.begin("agent.send", {"sessionKey": session, "message": "?", "timeout": 600})
        agent.message(), agent.message()
        agent.drop()  # nobody is left who could reply: it need not wait ten minutes
        assert caller.answer(asked)["payload"]["status"] == "delivered"


def test_a_repeat_of_a_request_gets_the_first_reply(daemon):
    session = unique("agent:once")
    with Socket(daemon) as agent, Socket(daemon) as caller:
        agent.subscribe(session, replies=True)
        params = {"sessionKey": session, "message": "?", "idempotencyKey": "k", "timeout": 30}
        asked = caller.begin("agent.send", params)
        agent.ask("agent.reply", {"messageId": agent.message()["messageId"], "response": "the first"})
        assert caller.answer(asked)["payload"]["response"] == "the first"
        assert caller.ask("agent.send", params)["response"] == "the first"
        agent.quiet(0.3)


def test_two_consumers_of_a_session_share_it(start):
    daemon = start("--messages.redeliver=60s", "--messages.redeliver_max=60s")
    session = unique("agent:shared")
    with Socket(daemon) as first, Socket(daemon) as second, Socket(daemon) as sender:
        for one in (first, second):
            one.subscribe(session)
        for i in range(40):
            sender.ask("agent.send", {"sessionKey": session, "message": str(i)})
        got = {first: [], second: []}
        while sum(map(len, got.values())) < 40:
            for one, taken in got.items():
                try:
                    message = one.message(0.05)
                except TimeoutError:
                    continue
                taken.append(message["content"])
                one.ack(message["messageId"])
        assert got[first] and got[second]
        assert sorted(got[first] + got[second], key=int) == [str(i) for i in range(40)]


def test_what_a_consumer_held_goes_to_the_other_when_it_is_gone(start):
    daemon = start("--messages.redeliver=60s", "--messages.redeliver_max=60s")
    session = unique("agent:heir")
    with Socket(daemon) as sender, Socket(daemon) as first:
        first.subscribe(session)
        for i in range(20):
            sender.ask("agent.send", {"sessionKey": session, "message": str(i)})
        assert [first.message()["content"] for _ in range(20)] == [str(i) for i in range(20)]
        with Socket(daemon) as heir:
            heir.subscribe(session)
            first.drop()
            assert [heir.message()["content"] for _ in range(20)] == [str(i) for i in range(20)]


def test_another_library_with_compression_offered(daemon):
    """The original's client library offers permessage-deflate; a gateway may decline it."""
    async def main():
        async with websockets.connect(link(daemon), compression="deflate", ping_interval=0.05) as one:
            await one.send(json.dumps({"type": "req", "id": "1", "method": "agent.send", "params": {
                "sessionKey": "agent:x:main", "message": "ü" * 10000}}))
            assert json.loads(await one.recv())["ok"] is True
            await asyncio.sleep(0.3)  # its pings are answered, or it would close
            await one.ping()
    run(main())
