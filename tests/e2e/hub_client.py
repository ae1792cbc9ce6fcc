"""The hub from outside: its HTTP API, and agents of the original's protocol as a test plays them."""

import base64
import contextlib
import json
import os
import socket
import struct
import time
import urllib.parse
import uuid

import httpx
import wsraw
from wait import eventually, unique

DEADLINE = 20


class Refused(Exception):
    """The hub did not open a WebSocket."""

    def __init__(self, status, head):
        super().__init__(f"{status}: {head!r}")
        self.status = status


class Closed(Exception):
    """The connection is over."""

    def __init__(self, code, reason=""):
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def handshake(address, path, method="GET", key=None, version="13", headers=(),
              tls=None, receive=None):
    """An opening handshake on a raw socket: (status, sock, bytes behind the head, head)."""
    host, port = address
    key = base64.b64encode(os.urandom(16)).decode() if key is None else key
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: Upgrade",
             "Upgrade: websocket"]
    lines += [f"Sec-WebSocket-Key: {key}"] if key else []
    lines += [f"Sec-WebSocket-Version: {version}"] if version else []
    request = "\r\n".join([*lines, *headers, "", ""]).encode()
    sock = socket.socket()
    sock.settimeout(DEADLINE)
    if receive:  # before it connects, else the kernel may take tens of megabytes for us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.connect((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        sock = tls.wrap_socket(sock, server_hostname=host)
    sock.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            break
        head += piece
    head, _, rest = head.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head else 0, sock, rest, head


class Agent:
    """One connection of an agent: frames in and out, nothing of its own accord but pongs."""

    def __init__(self, url, name, headers=None, tls=None):
        self.name = name
        parts = urllib.parse.urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        status, sock, rest, head = handshake(
            (parts.hostname, parts.port), path, tls=tls,
            headers=[f"{key}: {value}" for key, value in (headers or {}).items()])
        if status != 101:
            sock.close()
            raise Refused(status, head)
        self.peer = wsraw.Peer(sock, "client", rest)
        self.seen = []

    def send(self, kind, payload=None, to="host", **more):
        """Send a message in the envelope; returns it. A key given as None is left out."""
        message = {"id": str(uuid.uuid4()), "from": self.name, "to": to, "type": kind,
                   "timestamp": int(time.time() * 1000), "payload": payload}
        message.update(more)
        message = {key: value for key, value in message.items() if value is not None}
        self.raw(json.dumps(message, separators=(",", ":")))
        return message

    def raw(self, data):
        """A text frame, or a binary one of bytes."""
        if isinstance(data, str):
            self.peer.send((wsraw.TEXT, data.encode()))
        else:
            self.peer.send((wsraw.BINARY, data))

    def text(self, timeout=DEADLINE):
        """The next message as it came; TimeoutError, Closed."""
        self.peer.sock.settimeout(timeout)
        while True:
            try:
                opcode, data = self.peer.receive()
            except (EOFError, ConnectionError):
                raise Closed(1006) from None
            if opcode == wsraw.PING:
                self.peer.send((wsraw.PONG, data))
            elif opcode == wsraw.CLOSE:
                self.peer.send((wsraw.CLOSE, data[:2]))
                self.peer.sock.close()
                raise Closed(*(struct.unpack("!H", data[:2])[0], data[2:].decode())
                             if data else (1005,))
            elif opcode != wsraw.PONG:
                assert opcode == wsraw.TEXT, "the hub sends text frames"
                return data.decode()

    def receive(self, timeout=DEADLINE):
        message = json.loads(self.text(timeout))
        self.seen.append(message)
        return message

    def expect(self, kind, timeout=DEADLINE, match=None):
        """The next message of that type; others are passed over (they are in `seen`)."""
        end = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.01, end - time.monotonic()))
            if message["type"] == kind and (match is None or match(message)):
                return message

    def welcome(self):
        return self.expect("status", match=lambda m: m["payload"].get("status") == "connected")

    def silence(self, seconds=0.3):
        """Nothing comes for so long."""
        try:
            data = self.text(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected: {data[:400]!r}")

    def flushed(self):
        """All that this agent sent has been dealt with: the hub answers in order."""
        mark = unique("mark")
        self.send("log", {"mark": mark}, to=self.name)
        return self.expect("log", match=lambda m: m.get("payload") == {"mark": mark})

    def closed(self, timeout=DEADLINE):
        """Wait for the hub to close it; (code, reason)."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.text(max(0.01, end - time.monotonic()))
            except Closed as e:
                return e.code, e.reason

    def close(self):
        """Close in order."""
        self.peer.send((wsraw.CLOSE, wsraw.close_body(1000)))
        with contextlib.suppress(Closed, TimeoutError):
            while True:
                self.text()

    def cut(self):
        """Go as a broken line goes: no close frame."""
        with contextlib.suppress(OSError):
            self.peer.sock.shutdown(socket.SHUT_RDWR)


class Hub:
    def __init__(self, daemon):
        self.daemon = daemon
        self.agents = []
        self.connect()

    def connect(self):
        """Again after the daemon's restart: its ports are new."""
        listeners = self.daemon.ready["listeners"]
        self.http = httpx.Client(base_url=f"http://{listeners['hub']}", timeout=60,
                                 trust_env=False, limits=httpx.Limits(max_connections=None))
        self.address = listeners["hub"].rsplit(":", 1)
        self.ws_address = listeners["agents"].rsplit(":", 1)
        self.ws_url = f"ws://{listeners['agents']}"
        return self

    def register(self, name, metadata=None, **more):
        body = {"agentId": name, **more}
        if metadata is not None:
            body["metadata"] = metadata
        answer = self.http.post("/agents/register", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def open(self, name, token, **options):
        agent = Agent(f"{self.ws_url}/agent/{name}/{token}", name, **options)
        self.agents.append(agent)
        return agent

    def agent(self, name=None, metadata=None):
        """A registered and connected agent that has been welcomed."""
        name = name or unique("agent")
        token = self.register(name, metadata)["token"]
        agent = self.open(name, token)
        agent.token = token
        agent.welcome()
        return agent

    def status(self, name):
        answer = self.http.get(f"/agents/{name}/status")
        assert answer.status_code == 200, answer.text
        return answer.json()["agent"]

    def online(self, name, online=True):
        want = "online" if online else "offline"
        return eventually(lambda: self.status(name)["status"] == want, deadline=DEADLINE)

    def task(self, name, body, **params):
        answer = self.http.post(f"/agents/{name}/task", json=body, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def dead(self):
        return self.http.get("/admin/dlq").json()["deadLetterQueue"]

    def metric(self, name, **labels):
        """The value of a series."""
        text = self.http.get("/metrics").text
        want = ",".join(f'{key}="{value}"' for key, value in labels.items())
        series = f"{name}{{{want}}}" if want else name
        for line in text.splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no {series} in the metrics")

    def close(self):
        for agent in self.agents:
            with contextlib.suppress(Exception):
                agent.close()
        self.http.close()

    # Bytes of one's own making.

    def raw(self, request, ws=True):
        """Send a request's bytes to a port; the whole answer until the hub closes or is silent."""
        host, port = self.ws_address if ws else self.address
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as sock:
            sock.sendall(request)
            return read_answer(sock)

    def handshake(self, path, ws=True, **options):
        return handshake(self.ws_address if ws else self.address, path, **options)

    def peer(self, name, token, **options):
        """An agent's socket whose frames a test makes itself."""
        status, sock, rest, head = self.handshake(f"/agent/{name}/{token}", **options)
        assert status == 101, head
        return wsraw.Peer(sock, "client", rest)


def read_answer(sock):
    """Head and body of one HTTP answer; what came until the end, if it has no length."""
    data = b""
    while True:
        head, mark, body = data.partition(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.split(b"\r\n")
                  if line.lower().startswith(b"content-length:")]
        if mark and length and len(body) >= int(length[0]):
            return data
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece


def status_of(answer):
    return int(answer.split(b" ", 2)[1])
