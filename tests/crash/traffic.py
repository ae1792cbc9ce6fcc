"""Fifty WebSocket clients that keep a thousand messages in flight, and what must hold of them.

A sender goes on after a loss by sending again, in order and under the same key, whatever has not been
answered. A consumer acknowledges by id, handles an id once, and now and then hangs up without having
acknowledged. All of it is one asyncio program; the daemons are killed from another thread.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, OrderedDict

import websockets

PATIENCE = 120
WINDOW = 40          # messages of one sender that are under way: sent, and not yet handled
LOST = (OSError, asyncio.TimeoutError, websockets.WebSocketException)


@contextlib.asynccontextmanager
async def socket(url):
    link = await websockets.connect(url, compression=None, ping_interval=None, open_timeout=PATIENCE, close_timeout=1)
    try:
        yield link
    finally:
        with contextlib.suppress(*LOST):
            await link.close()


class Sender:
    """Half of them by agent.send with an idempotencyKey, half by direct messages with an id."""

    def __init__(self, traffic, number, session):
        self.traffic, self.name, self.session = traffic, f"sender-{number}", session
        self.direct = number % 2 == 1
        self.sent, self.unanswered, self.answered = 0, OrderedDict(), set()
        self.handled = 0  # by the consumer
        self.failures = Counter()

    def frame(self, seq):
        content = f"{self.name} {seq}"
        if self.direct:
            return {"id": f"{self.name}-{seq}", "from": self.name, "to": self.session, "content": content}
        return {"type": "req", "id": str(seq), "method": "agent.send", "params": {
            "sessionKey": self.session, "message": content, "idempotencyKey": f"{self.name}-{seq}", "timeout": 600}}

    def finished(self):
        return self.traffic.enough and not self.unanswered

    async def run(self):
        while not self.finished():
            try:
                async with socket(self.traffic.send_url) as link:
                    for text in list(self.unanswered.values()):
                        await link.send(text)
                    reader = asyncio.create_task(self.read(link))
                    try:
                        await self.write(link, reader)
                    finally:
                        reader.cancel()
                        await asyncio.gather(reader, return_exceptions=True)
            except LOST:
                await asyncio.sleep(0.02)

    async def write(self, link, reader):
        while not self.finished():
            if reader.done():
                raise OSError("the connection is gone, or a message must be sent again")
            while not self.traffic.enough and self.sent - self.handled < WINDOW:
                self.sent += 1
                text = json.dumps(self.frame(self.sent))
                self.unanswered[self.sent] = text
                await link.send(text)
            await asyncio.sleep(0.005)

    async def read(self, link):
        async for text in link:
            frame = json.loads(text)
            if frame["type"] == "res" and frame["ok"]:
                self.done(int(frame["id"]), frame["payload"])
            elif frame["type"] == "workflow_result":
                self.done(int(frame["result"]["messageId"].rsplit("-", 1)[1]), frame["result"])
            else:
                self.failures[json.dumps(frame.get("error"))] += 1
                await asyncio.sleep(0.1)
                raise OSError("refused for now")

    def done(self, seq, result):
        assert result["status"] == "delivered", result
        self.unanswered.pop(seq, None)
        self.answered.add(seq)


class Consumer:
    def __init__(self, traffic, session):
        self.traffic, self.session = traffic, session
        self.handled = OrderedDict()     # content -> message id, in the order of the first arrival
        self.acked, self.asked = {}, {}   # acked: message id -> when the answer came
        self.pushes, self.again, self.hung_up = 0, 0, 0

    async def run(self):
        while not self.traffic.over:
            try:
                async with socket(self.traffic.take_url) as link:
                    self.asked.clear()
                    self.began = time.monotonic()
                    await link.send(json.dumps({"type": "req", "id": "s", "method": "agent.subscribe",
                                                "params": {"sessionKey": self.session}}))
                    await self.read(link)
            except LOST:
                await asyncio.sleep(0.02)

    async def read(self, link):
        number = 0
        async for text in link:
            frame = json.loads(text)
            if frame["type"] == "evt" and frame["event"] == "agent.message":
                self.take(frame["payload"])
                if self.traffic.rng.random() < self.traffic.hang_ups:
                    self.hung_up += 1
                    raise OSError("a consumer that fails with messages in its hands")
                number += 1
                self.asked[f"a{number}"] = frame["payload"]["messageId"]
                await link.send(json.dumps({"type": "req", "id": f"a{number}", "method": "agent.ack",
                                            "params": {"messageId": frame["payload"]["messageId"]}}))
            elif frame["type"] == "res" and frame["id"] in self.asked:
                message_id = self.asked.pop(frame["id"])
                if frame["ok"]:
                    self.acked[message_id] = time.monotonic()
                else:
                    self.traffic.refusals[json.dumps(frame["error"])] += 1

    def take(self, message):
        message_id, content = message["messageId"], message["content"]
        self.pushes += 1
        if message_id in self.acked:
            late = time.monotonic() - self.acked[message_id]
            self.traffic.violations.append(f"{content} came again, attempt {message['attempt']}, {late:.3f} s after"
                                           f" its acknowledgement was answered, {time.monotonic() - self.began:.3f} s"
                                           f" after the subscription, in {self.session}")
        if content in self.handled:
            self.again += 1
            if self.handled[content] != message_id:
                self.traffic.violations.append(f"{content} is two messages")
            return
        self.handled[content] = message_id
        self.traffic.by_name[content.split()[0]].handled += 1


class Traffic:
    def __init__(self, send_url, take_url=None, senders=30, consumers=20, seed=0, hang_ups=0.002):
        self.send_url, self.take_url = send_url, take_url or send_url
        self.rng, self.hang_ups = random.Random(seed), hang_ups
        self.enough = self.over = False
        self.violations, self.refusals = [], Counter()
        self.consumers = [Consumer(self, f"agent:crash-{i}:main") for i in range(consumers)]
        self.senders = [Sender(self, i, f"agent:crash-{i % consumers}:main") for i in range(senders)]
        self.by_name = {one.name: one for one in self.senders}

    def answered(self):
        return sum(len(one.answered) for one in self.senders)

    def handled(self):
        return sum(len(one.handled) for one in self.consumers)

    def in_flight(self):
        return sum(one.sent - one.handled for one in self.senders)

    async def run(self, disturb, settle):
        """Traffic while disturb(self), a function in a thread of its own, runs; then until all has arrived,
        and until settle(self), another, has found that nothing waits any more."""
        tasks = [asyncio.create_task(one.run()) for one in self.senders + self.consumers]
        try:
            await self.alongside(asyncio.to_thread(disturb, self), tasks)
            self.enough = True
            await self.alongside(self.all_answered(), tasks)
            await self.alongside(self.all_handled(), tasks)
            await self.alongside(asyncio.to_thread(settle, self), tasks)
        finally:
            self.enough = self.over = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def alongside(self, work, tasks):
        """Run work; a client that fails by itself is the test's failure."""
        main = asyncio.ensure_future(work)
        while not main.done():
            await asyncio.wait([main], timeout=0.2)
            for task in tasks:
                if task.done() and task.exception():
                    main.cancel()
                    raise task.exception()
        await main

    async def all_answered(self):
        await self.until(lambda: all(one.finished() for one in self.senders), "senders wait for answers")

    async def all_handled(self):
        await self.until(lambda: all(one.handled >= one.sent for one in self.senders), "answered messages are missing")

    async def until(self, holds, what):
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, f"{what}\n{self.summary()}\n{self.missing()[:20]}"
            await asyncio.sleep(0.02)

    def missing(self):
        handled = {content for one in self.consumers for content in one.handled}
        return [f"{one.name} {seq}" for one in self.senders for seq in sorted(one.answered)
                if f"{one.name} {seq}" not in handled]

    def check(self, ordered=True):
        assert not self.violations, self.violations[:10]
        assert not self.missing()
        if ordered:
            for consumer in self.consumers:
                last = Counter()
                for content in consumer.handled:
                    name, seq = content.split()
                    assert int(seq) == last[name] + 1, f"{content} came after {name} {last[name]}"
                    last[name] += 1

    def summary(self):
        pushes = sum(one.pushes for one in self.consumers)
        again = sum(one.again for one in self.consumers)
        hung_up = sum(one.hung_up for one in self.consumers)
        failures = sum((one.failures for one in self.senders), Counter())
        text = (f"{self.answered()} messages answered, {self.handled()} delivered, {pushes} pushes of which {again}"
                f" again, {hung_up} consumers hung up, {len(self.violations)} violations")
        for name, counts in (("sends", failures), ("acknowledgements", self.refusals)):
            if counts:
                text += f"; refused {name}: {dict(counts.most_common(5))}"
        return text


def nothing_left(url, sessions):
    """A consumer without any memory gets nothing from these sessions."""
    async def look():
        async with socket(url) as link:
            for session in sessions:
                await link.send(json.dumps({"type": "req", "id": session, "method": "agent.subscribe",
                                            "params": {"sessionKey": session}}))
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                try:
                    frame = json.loads(await asyncio.wait_for(link.recv(), max(0.01, end - time.monotonic())))
                except asyncio.TimeoutError:
                    break
                assert frame["type"] == "res" and frame["ok"], f"unwanted: {frame}"
    asyncio.run(look())
