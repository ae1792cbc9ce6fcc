# SPDX-License-Identifier: MIT
"""The hub as an operator sees it, agents as processes, and a way between them that can be cut."""

import itertools
import json
import os
import pathlib
import socket
import struct
import subprocess
import threading

import chelad
import httpx
from wait import eventually

HERE = pathlib.Path(__file__).resolve().parent
_numbers = itertools.count(1)


class Hub:
    """The HTTP port of a daemon that runs."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False,
                                 limits=httpx.Limits(max_connections=None))

    @property
    def url(self):
        return f"http://{self.daemon.ready['listeners']['hub']}"

    @property
    def agents_port(self):
        return int(self.daemon.ready["listeners"]["agents"].rpartition(":")[2])

    def register(self, agent, **metadata):
        answer = self.http.post("/agents/register", json={"agentId": agent, "metadata": metadata})
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def send(self, agent, wait=None, **task):
        """Post a task; its id, or with wait= (ms) its record."""
        answer = self.http.post(f"/agents/{agent}/task", json=task, params={"wait": wait} if wait else {})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "sent"
        return answer.json()["task"] if wait else answer.json()["taskId"]

    def task(self, task, wait=30000):
        answer = self.http.get(f"/tasks/{task}", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        return answer.json()["task"]

    def ended(self, task, seconds=60):
        """The record of a task once it has ended; the hub may be away in between."""
        def look():
            try:
                record = self.task(task, 5000)
            except httpx.TransportError:
                return None
            return record if record["status"] not in ("queued", "sent", "running") else None
        return eventually(look, seconds, 0.1)

    def agent(self, agent):
        answer = self.http.get(f"/agents/{agent}/status")
        assert answer.status_code == 200, answer.text
        return answer.json()["agent"]

    def online(self, agent, want=True, seconds=30):
        status = "online" if want else "offline"
        return eventually(lambda: self.agent(agent)["status"] == status, seconds)


class Process:
    """An agent's process; its output is kept in a file."""

    def __init__(self, directory, argv, env):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.argv, self.env, self.process = argv, env, None

    def start(self):
        with open(self.directory / "output", "ab") as log:
            self.process = subprocess.Popen(self.argv, env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        return self

    def output(self):
        return (self.directory / "output").read_text(errors="replace")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the agent did not stop on SIGTERM:\n{self.output()[-4000:]}") from None
        return self.process.returncode if self.process else None


def chela_agent(directory, agent, token, port, **more):
    """chela-agent with a config file of the original's form; connected to 127.0.0.1:port."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.json"
    config.write_text(json.dumps({"agentId": agent, "token": token, "hubUrl": f"ws://127.0.0.1:{port}", "type": "test",
                                  "capabilities": [], "stateDir": str(directory / "state"), **more}))
    config.chmod(0o600)
    env = {**chelad.environment(directory), "AGENT_CONFIG": str(config), "PATH": os.environ["PATH"]}
    return Process(directory, [str(chelad.BIN / "chela-agent")], env)


def node_agent(directory, packages, agent, token, port):
    """The agent of the original's protocol, on the ws library of npm."""
    env = {**os.environ, "AGENT_ID": agent, "AGENT_TOKEN": token, "HUB_URL": f"ws://127.0.0.1:{port}"}
    return Process(directory, ["node", str(HERE / "original_agent.cjs"), packages], env)


class Way:
    """A TCP way to a port that sees WebSocket frames and can be cut at one of them.

    arm("down", 2, "before") cuts the connection instead of handing on the second frame to the agent from now on; "after"
    hands it on first. Pings and pongs are not counted. Once cut, new connections pass again."""

    def __init__(self, port):
        self.port, self.armed, self.cuts = port, None, 0
        self.lock = threading.Lock()
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, direction, number, when):
        with self.lock:
            self.armed = [direction, number, when]

    def close(self):
        self.listener.close()
        for pair in self.pairs:
            self._end(pair)

    def _accept(self):
        while True:
            try:
                inner, _ = self.listener.accept()
            except OSError:
                return
            try:
                outer = socket.create_connection(("127.0.0.1", self.port), 5)
            except OSError:
                inner.close()
                continue
            pair = (inner, outer)
            self.pairs.append(pair)
            for direction, source, sink in (("up", inner, outer), ("down", outer, inner)):
                threading.Thread(target=self._carry, args=(direction, source, sink, pair), daemon=True).start()

    @staticmethod
    def _end(pair):
        for one in pair:
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _carry(self, direction, source, sink, pair):
        held, head = b"", True
        try:
            while True:
                piece = source.recv(65536)
                if not piece:
                    break
                held += piece
                if head:
                    end = held.find(b"\r\n\r\n")
                    if end < 0:
                        continue
                    sink.sendall(held[:end + 4])
                    held, head = held[end + 4:], False
                while (n := self._frame(held)):
                    frame, held = held[:n], held[n:]
                    if self._cut_here(direction, frame, "before"):
                        return
                    sink.sendall(frame)
                    if self._cut_here(direction, frame, "after"):
                        return
        except OSError:
            pass
        finally:
            self._end(pair)

    @staticmethod
    def _frame(data):
        """Bytes of the first whole frame, or 0."""
        if len(data) < 2:
            return 0
        size, at = data[1] & 0x7F, 2
        if size == 126:
            if len(data) < 4:
                return 0
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            if len(data) < 10:
                return 0
            size, at = int.from_bytes(data[2:10], "big"), 10
        at += 4 if data[1] & 0x80 else 0
        return at + size if len(data) >= at + size else 0

    def _cut_here(self, direction, frame, when):
        if frame[0] & 0x0F not in (0, 1, 2):
            return False
        with self.lock:
            if not self.armed or self.armed[0] != direction:
                return False
            if self.armed[2] != when:
                return False
            self.armed[1] -= 1
            if self.armed[1] > 0:
                return False
            self.armed = None
            self.cuts += 1
            return True


def name(word):
    return f"{word}-{next(_numbers)}"
