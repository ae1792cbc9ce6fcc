# SPDX-License-Identifier: MIT
"""The hub as an operator sees it, and scripted agents on raw WebSocket frames."""

import json
import queue
import socket
import threading

import httpx
from wait import eventually
from wsraw import CLOSE, PING, PONG, TEXT, Peer, read_head

PATIENCE = 30


class Hub:
    """The HTTP port of a daemon, and its agents' port."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.http = httpx.Client(base_url=f"http://{daemon.ready['listeners']['hub']}", timeout=90,
                                 trust_env=False, limits=httpx.Limits(max_connections=None))

    @property
    def agents_address(self):
        host, port = self.daemon.ready["listeners"]["agents"].rsplit(":", 1)
        return host.strip("[]"), int(port)

    def register(self, agent, **metadata):
        answer = self.http.post("/agents/register", json={"agentId": agent, "metadata": metadata})
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    def post(self, agent, wait=None, **task):
        """Give a task; its id, or with wait= (ms) its record."""
        query = {"wait": wait} if wait is not None else {}
        answer = self.http.post(f"/agents/{agent}/task", json=task, params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "sent"
        return answer.json()["task"] if wait is not None else answer.json()["taskId"]

    def task(self, task, wait=0):
        answer = self.http.get(f"/tasks/{task}", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        return answer.json()["task"]

    def ended(self, task):
        record = self.task(task, PATIENCE * 1000)
        assert record["completedAt"], record
        return record

    def becomes(self, task, *states):
        return eventually(lambda: (one := self.task(task))["status"] in states and one, PATIENCE)

    def agent(self, agent):
        answer = self.http.get(f"/agents/{agent}/status")
        assert answer.status_code == 200, answer.text
        return answer.json()["agent"]

    def online(self, agent, want=True):
        status = "online" if want else "offline"
        return eventually(lambda: self.agent(agent)["status"] == status, PATIENCE)


class HubAgent:
    """A connected agent: what it was sent is taken with next(); tasks are answered by hand, or by answer(task)."""

    def __init__(self, hub, agent, token, answer=None):
        self.agent = agent
        self.answer = answer
        self.code = None  # of the hub's close frame
        self.frames = queue.Queue()
        sock = socket.create_connection(hub.agents_address, PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(f"GET /agent/{agent}/{token} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 "), head
        sock.settimeout(None)
        self.sock = sock
        self.lock = threading.Lock()
        self.peer = Peer(sock, "client", rest)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while True:
                opcode, payload = self.peer.receive()
                if opcode == PING:
                    self._send((PONG, payload))
                elif opcode == CLOSE:
                    self.code = int.from_bytes(payload[:2], "big")
                    self._send((CLOSE, payload))
                    self.sock.close()
                    break
                elif opcode == TEXT:
                    self._take(json.loads(payload))
        except (EOFError, OSError):
            pass
        self.frames.put(None)

    def _take(self, message):
        if message["type"] == "task" and self.answer:
            self.result(message["payload"]["taskId"], **self.answer(message["payload"]))
        else:
            self.frames.put(message)

    def _send(self, *frames):
        with self.lock:
            self.peer.send(*frames)

    def say(self, kind, payload, to="host", **more):
        message = {"id": "m", "from": self.agent, "to": to, "type": kind, "timestamp": 1, "payload": payload, **more}
        self._send((TEXT, json.dumps(message).encode()))

    def result(self, task, success=True, **more):
        self.say("response", {"taskId": task, "success": success, "duration": 1, "timestamp": 1, **more})

    def status(self, task, state):
        self.say("status", {"taskId": task, "state": state})

    def resync(self, *tasks, dedupe=True):
        """Say what it holds, as (id, state) pairs; the hub's answer."""
        self.say("status", {"state": "resync", "protocol": 1, "version": "0.1.0", "dedupe": dedupe,
                            "tasks": [{"taskId": task, "state": state} for task, state in tasks]})
        return {one["taskId"]: one for one in self.next("resync")["payload"]["tasks"]}

    def next(self, *kinds):
        """The next message of these types (others are left out); all types when there are none."""
        while True:
            message = self.frames.get(timeout=PATIENCE)
            assert message is not None, "the hub has closed the connection"
            if not kinds or message["type"] in kinds:
                return message

    def next_task(self):
        return self.next("task")["payload"]

    def welcomed(self):
        """The tasks that came before the welcome."""
        tasks = []
        while True:
            message = self.next()
            if message["type"] == "task":
                tasks.append(message["payload"])
            elif message["type"] == "status" and message["payload"].get("status") == "connected":
                return tasks

    def nothing_more(self, kind):
        """What the hub has sent by the time it answers a further message; none of this type."""
        self.say("status", {"state": "resync", "protocol": 1, "dedupe": False, "tasks": []})
        while True:
            message = self.next()
            assert message["type"] != kind, message
            if message["type"] == "resync":
                return

    def closed(self):
        """Wait until the hub has closed it; the code."""
        while self.frames.get(timeout=PATIENCE) is not None:
            pass
        return self.code

    def cut(self):
        """Gone without a word."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join(PATIENCE)


def connect(hub, agent, token=None, **more):
    """A registered agent that is connected; (the agent, its token)."""
    token = token or hub.register(agent)
    return HubAgent(hub, agent, token, **more), token
