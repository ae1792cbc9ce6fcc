"""The clients that the original backend had, by the shape of their protocol, and a consumer of messages.

Bridge is the base client: one socket, requests by UUID, `res` and `evt`, nothing else understood. It
sends agent.send with an idempotencyKey of its own and timeout 600 and passes over a `res` whose
status is "accepted". ProductionBridge adds what its deployment did: states, three tries, session
keys that are checked. Neither knows anything that the original's gateway did not serve.
"""

import asyncio
import contextlib
import json
import time
import uuid

import websockets

CHANNELS = ("whatsapp", "agent", "slack", "discord", "telegram")


class Bridge:
    def __init__(self, url="ws://127.0.0.1:18789", token=None):
        self.url, self.token = url, token
        self.socket = self.reader = None
        self.pending, self.handlers = {}, {}

    async def connect(self):
        self.socket = await websockets.connect(self.url)
        self.reader = asyncio.create_task(self._read())
        return await self._request("connect", {
            "minProtocol": 3, "maxProtocol": 3,
            "client": {"id": "cli", "displayName": "AINative Agent Swarm", "version": "1.0.0",
                       "platform": "python", "mode": "backend"},
            "auth": {"token": self.token}})

    async def _read(self):
        """A frame without a type kills it silently, as it did."""
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in self.socket:
                frame = json.loads(text)
                if frame["type"] == "res":
                    self._answered(frame)
                elif frame["type"] == "evt":
                    handler = self.handlers.get(frame["event"])
                    if handler:
                        await handler(frame["payload"])

    def _answered(self, frame):
        future = self.pending.get(frame["id"])
        payload = frame.get("payload", {})
        if not future or future.done():
            return
        if not frame.get("ok"):
            future.set_exception(RuntimeError(frame.get("error", {}).get("message", "Unknown error")))
        elif payload.get("status") != "accepted":
            future.set_result(payload)

    async def _request(self, method, params):
        request_id = str(uuid.uuid4())
        self.pending[request_id] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"type": "req", "id": request_id, "method": method, "params": params}))
        try:
            return await self.pending[request_id]
        finally:
            del self.pending[request_id]

    def on(self, event, handler):
        self.handlers[event] = handler

    async def send_to_agent(self, session_key, message):
        return await self._request("agent.send", {
            "sessionKey": session_key, "message": message, "idempotencyKey": str(uuid.uuid4()), "timeout": 600})

    async def delegate_task(self, profile, text):
        return (await self.send_to_agent(f"agent:{profile}:main", text)).get("response", "")

    async def close(self):
        await self.socket.close()
        await self.reader


class ProductionBridge:
    RETRIES = 3

    def __init__(self, url, token=None, first_delay=0.01):
        self.base, self.state, self.first_delay = Bridge(url, token), "disconnected", first_delay

    async def connect(self):
        self.state = "connecting"
        for attempt in range(self.RETRIES):
            try:
                await self.base.connect()
                self.state = "connected"
                return
            except (OSError, RuntimeError, websockets.WebSocketException):
                await asyncio.sleep(self.first_delay * 2 ** attempt)
        self.state = "failed"
        raise ConnectionError(f"Failed to connect after {self.RETRIES} attempts")

    async def send_to_agent(self, session_key, message, metadata=None):
        if self.state != "connected":
            raise ConnectionError("Bridge is not connected. Call connect() first.")
        parts = session_key.split(":")
        if len(parts) < 2 or parts[0] not in CHANNELS:
            raise ValueError(f"Invalid session key format: {session_key}")
        result = await self.base.send_to_agent(session_key, message)
        return {"status": "sent", "message_id": result.get("id") or f"msg_{time.time()}",
                "session_key": session_key, "metadata": metadata, "result": result}

    async def close(self):
        await self.base.close()
        self.state = "disconnected"


class Consumer:
    """Takes what is sent to a session: acknowledges by id, handles each id once, replies when it is asked to."""

    def __init__(self, url, session, token=None, answer=None):
        self.bridge, self.session, self.answer = Bridge(url, token), session, answer
        self.handled, self.seen, self.again = [], set(), 0
        self.came = asyncio.Event()

    async def start(self):
        self.bridge.on("agent.message", self._take)
        await self.bridge.connect()
        params = {"sessionKey": self.session}
        if self.answer:
            params["replies"] = True
        await self.bridge._request("agent.subscribe", params)

    async def _take(self, payload):
        message_id = payload["messageId"]
        if message_id in self.seen:
            self.again += 1
        else:
            self.seen.add(message_id)
            self.handled.append(payload)
        self.came.set()
        if self.answer:
            method, params = "agent.reply", {"messageId": message_id, "response": self.answer(payload)}
        else:
            method, params = "agent.ack", {"messageId": message_id}
        # the reader goes on: the answer comes through it
        asyncio.ensure_future(self.bridge._request(method, params))

    async def wait(self, count, deadline=30):
        end = time.monotonic() + deadline
        while len(self.handled) < count:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), max(0.01, end - time.monotonic()))
        return self.handled

    async def close(self):
        await self.bridge.close()
