# SPDX-License-Identifier: MIT
"""A hub that does what a test says, and chela-agent as a process beside it."""

import asyncio
import http
import itertools
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time

import chelad
import websockets
from wait import eventually

PATIENCE = 30
_numbers = itertools.count(1)


class Connection:
    """One WebSocket of the agent, from the hub's side; to be used from the test's thread."""

    def __init__(self, hub, ws):
        self.hub, self.ws = hub, ws
        self.path = ws.path
        self.headers = ws.request_headers
        self.got = []      # messages, in order
        self.close = None  # (code, reason) once it is closed
        self.changed = threading.Condition()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.hub.loop).result(PATIENCE)

    def raw(self, text):
        self._run(self.ws.send(text))

    def send(self, type, payload, **more):
        self.raw(json.dumps({"id": f"m{next(_numbers)}", "from": "host", "to": "a1", "type": type,
                             "timestamp": int(time.time() * 1000), "payload": payload, **more}))

    def welcome(self, **more):
        self.send("status", {"status": "connected", "message": "Welcome to VM Hub", **more})

    def task(self, id, type="exec", **more):
        self.send("task", {"taskId": id, "type": type, **more})

    def ack(self, id):
        self.send("ack", {"taskId": id})

    def cut(self):
        """As if a cable were pulled: the agent gets a reset."""
        self.hub.loop.call_soon_threadsafe(self.ws.transport.abort)

    def wait(self, match, what="message", patience=PATIENCE):
        """The first message that match(message) says yes to."""
        end = time.monotonic() + patience
        with self.changed:
            while True:
                for message in self.got:
                    if match(message):
                        return message
                left = end - time.monotonic()
                if left <= 0 or (self.close and not any(map(match, self.got))):
                    raise AssertionError(f"no {what}; closed: {self.close}; got {str(self.got)[:3000]}")
                self.changed.wait(left)

    def response(self, id, patience=PATIENCE):
        return self.wait(lambda m: m["type"] == "response" and m["payload"]["taskId"] == id,
                         f"response to {id}", patience)["payload"]

    def state(self, id, state):
        return self.wait(lambda m: m["type"] == "status" and m["payload"].get("taskId") == id
                         and m["payload"]["state"] == state, f"{state} of {id}")

    def resync(self):
        return self.wait(lambda m: m["type"] == "status" and m["payload"].get("state") == "resync",
                         "resync")["payload"]

    def closed(self):
        eventually(lambda: self.close, PATIENCE)
        return self.close

    def count(self, match):
        return sum(1 for m in self.got if match(m))


class ScriptedHub:
    """Listens on a port of 127.0.0.1 or on a unix socket. on_message(connection, message) runs on the hub's thread."""

    def __init__(self, unix=None, ssl=None):
        self.connections, self.refuse, self.refused = [], None, 0
        self.on_open = self.on_message = None
        self.changed = threading.Condition()
        self.loop = asyncio.new_event_loop()
        self.unix, self.ssl = str(unix) if unix else None, ssl
        ready = threading.Event()
        self.thread = threading.Thread(target=self._main, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(PATIENCE)

    def _main(self, ready):
        asyncio.set_event_loop(self.loop)
        options = dict(process_request=self._request, ping_interval=None, max_size=None, compression=None,
                       close_timeout=2)
        if self.unix:
            self.server = self.loop.run_until_complete(websockets.unix_serve(self._serve, self.unix, **options))
        else:
            self.server = self.loop.run_until_complete(websockets.serve(self._serve, "127.0.0.1", 0, ssl=self.ssl,
                                                                            **options))
            self.port = self.server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def _request(self, path, headers):
        if self.refuse and self.refuse(path, headers):
            self.refused += 1
            return http.HTTPStatus.UNAUTHORIZED, [], b""
        return None

    async def _serve(self, ws, path=None):
        c = Connection(self, ws)
        with self.changed:
            self.connections.append(c)
            self.changed.notify_all()
        if self.on_open:
            self.on_open(c)
        try:
            async for text in ws:
                message = json.loads(text)
                with c.changed:
                    c.got.append(message)
                    c.changed.notify_all()
                if self.on_message:
                    self.on_message(c, message)
        except websockets.ConnectionClosed:
            pass
        with c.changed:
            c.close = (ws.close_code, ws.close_reason)
            c.changed.notify_all()

    @property
    def url(self):
        return f"unix:{self.unix}" if self.unix else f"{'wss' if self.ssl else 'ws'}://127.0.0.1:{self.port}"

    def connection(self, number=1):
        """The number-th connection ever, once it is there."""
        eventually(lambda: len(self.connections) >= number, PATIENCE)
        return self.connections[number - 1]

    def say(self, c, type, payload):
        """From on_message: it runs on the loop's own thread."""
        text = json.dumps({"type": type, "from": "host", "to": "a1", "timestamp": 1, "payload": payload})
        return self.loop.create_task(c.ws.send(text))

    def stop(self):
        async def close():
            self.server.close()
            await self.server.wait_closed()

        if self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(close(), self.loop).result(PATIENCE)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(PATIENCE)


class Agent:
    """chela-agent with a configuration and a state directory of its own."""

    def __init__(self, hub, program="chela-agent", **config):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="chela-a-"))
        self.program, self.process = program, None
        self.log_file = open(self.home / "log", "ab")
        self.state = self.home / "state"
        self.config = {"agentId": "a1", "token": "t" * 64, "hubUrl": hub.url, "stateDir": str(self.state),
                       "workDir": str(self.home),
                       "reconnect": {"maxAttempts": 0, "initialDelay": 50, "maxDelay": 200}, **config}
        self.write_config()

    def write_config(self):
        (self.home / "config.json").write_text(json.dumps(self.config))

    def start(self, **env):
        self.process = subprocess.Popen([chelad.BIN / self.program], stderr=self.log_file, stdin=subprocess.DEVNULL,
                                        env={"AGENT_CONFIG": str(self.home / "config.json"), "HOME": str(self.home),
                                             "PATH": os.environ["PATH"], **env})
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def done(self):
        if self.process and self.process.poll() is None:
            assert self.stop() in (0, 1), self.log()
        self.log_file.close()
        subprocess.run(["rm", "-rf", self.home], check=True)

    def log(self):
        return (self.home / "log").read_text(errors="replace")

    def spooled(self):
        return sorted(p.name for p in (self.state / "spool").glob("*.json"))

    def lines(self, name):
        """Lines that tasks have written into a file of the working directory."""
        path = self.home / name
        return path.read_text().splitlines() if path.exists() else []
