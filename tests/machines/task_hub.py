# SPDX-License-Identifier: MIT
"""A hub that has one agent do tasks: it greets and acknowledges as chela's hub does, and keeps all it hears."""

import asyncio
import itertools
import json
import threading
import time

import websockets
from wait import eventually


class TaskHub:
    def __init__(self):
        self.heard = []  # envelopes in order
        self.socket = None
        self._numbers = itertools.count(1)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with websockets.serve(self._talk, "127.0.0.1", 0, max_size=None, compression=None) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._end.wait()

    async def _talk(self, socket, path):
        self.socket = socket
        await socket.send(self._envelope("status", {"status": "connected", "message": "Welcome to VM Hub",
                                                    "protocol": 1, "version": "test"}))
        try:
            async for text in socket:
                message = json.loads(text)
                self.heard.append(message)
                if message["type"] == "response":
                    await socket.send(self._envelope("ack", {"taskId": message["payload"]["taskId"]}))
                if message["type"] == "status" and message["payload"].get("state") == "resync":
                    await socket.send(self._envelope("resync", {"tasks": []}))
        except websockets.ConnectionClosed:
            pass

    def _envelope(self, kind, payload):
        return json.dumps({"id": f"m{next(self._numbers)}", "from": "host", "to": "agent", "type": kind,
                           "timestamp": int(time.time() * 1000), "payload": payload})

    def say(self, kind, payload):
        asyncio.run_coroutine_threadsafe(self.socket.send(self._envelope(kind, payload)), self._loop).result(30)

    def cut(self):
        asyncio.run_coroutine_threadsafe(self.socket.close(), self._loop).result(30)

    def wait(self, kind, probe=lambda payload: True, seconds=30):
        """The first payload of that type which probe likes."""
        def look():
            for message in list(self.heard):
                if message["type"] == kind and probe(message["payload"]):
                    return message["payload"]
            return None
        return eventually(look, seconds)

    def start(self, **task):
        task_id = f"t{next(self._numbers)}"
        self.say("task", {"taskId": task_id, **task})
        return task_id

    def response(self, task_id, seconds=60):
        return self.wait("response", lambda payload: payload.get("taskId") == task_id, seconds)

    def run(self, **task):
        """The response of a task."""
        return self.response(self.start(**task))

    def close(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
