"""A client of the gateway's WebSocket in a test's own thread: it asks, and keeps what is pushed meanwhile."""

import itertools
import json
import select
import socket
import struct
import time

from wait import unique
from wsraw import CLOSE, PING, PONG, TEXT, Peer, close_body, read_head

PATIENCE = 30  # seconds for anything that must come
CLIENT = {"id": "cli", "displayName": "AINative Agent Swarm", "version": "1.0.0", "platform": "python",
          "mode": "backend"}


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, head):
        super().__init__(head)
        self.head = head
        self.status = int(head.split(" ", 2)[1])


class Closed(Exception):
    """The gateway closed; code is None when it just hung up."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed: {code} {reason}")
        self.code = code


class Failed(Exception):
    """A request was answered with ok:false."""

    def __init__(self, answer):
        super().__init__(json.dumps(answer))
        self.answer = answer
        self.code, self.message = answer["error"]["code"], answer["error"]["message"]


class Socket:
    def __init__(self, daemon, path="/", token=None, headers=(), host=None, pongs=True):
        self.pushed = []    # frames nobody has asked for yet
        self.numbers = itertools.count(1)
        self.pings, self.pongs = 0, pongs
        address, port = daemon.address
        self.sock = socket.create_connection((address, port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fields = [("Host", host or f"{address}:{port}"), ("Upgrade", "websocket"), ("Connection", "Upgrade"),
                  ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13"), *headers]
        if token is not None:
            fields.append(("Authorization", f"Bearer {token}"))
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, rest = read_head(self.sock)
        if not head.startswith(b"HTTP/1.1 101 "):
            self.sock.close()
            raise Refused(head.decode())
        self.peer = Peer(self.sock, "client", rest)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.drop()

    def drop(self):
        """Hang up without a word."""
        self.sock.close()

    def close(self):
        self.peer.send((CLOSE, close_body(1000)))
        try:
            while True:
                self.frame()
        except Closed:
            self.sock.close()

    def send(self, frame):
        self.peer.send((TEXT, frame.encode() if isinstance(frame, str) else json.dumps(frame).encode()))

    def frame(self, timeout=PATIENCE):
        """The next text frame's document. Pings are answered on the way."""
        end = time.monotonic() + timeout
        while True:
            if not self.peer.buffer:
                readable, _, _ = select.select([self.sock], [], [], max(0, end - time.monotonic()))
                if not readable:
                    raise TimeoutError(f"no frame within {timeout} s")
            try:
                opcode, payload = self.peer.receive()
            except (EOFError, ConnectionResetError):
                raise Closed(None) from None
            if opcode == PING:
                self.pings += 1
                if self.pongs:
                    self.peer.send((PONG, payload))
            elif opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                raise Closed(code, payload[2:].decode())
            else:
                assert opcode == TEXT, opcode
                return json.loads(payload)

    def next(self, wanted, timeout=PATIENCE):
        """The first frame, read already or to come, that is wanted."""
        for frame in self.pushed:
            if wanted(frame):
                self.pushed.remove(frame)
                return frame
        end = time.monotonic() + timeout
        while True:
            frame = self.frame(max(0, end - time.monotonic()))
            if wanted(frame):
                return frame
            self.pushed.append(frame)

    def begin(self, method, params=None, id=None):
        """Send a request; its id."""
        id = id or unique(f"r{next(self.numbers)}")
        request = {"type": "req", "id": id, "method": method}
        if params is not None:
            request["params"] = params
        self.send(request)
        return id

    def answer(self, id, timeout=PATIENCE):
        return self.next(lambda one: one.get("id") == id and one.get("type") == "res", timeout)

    def ask(self, method, params=None, id=None):
        """The payload of the answer; Failed when it is ok:false."""
        answer = self.answer(self.begin(method, params, id))
        if not answer["ok"]:
            raise Failed(answer)
        return answer.get("payload")

    def connect(self, token=None, low=3, high=3):
        params = {"minProtocol": low, "maxProtocol": high, "client": CLIENT}
        if token is not None:
            params["auth"] = {"token": token}
        return self.ask("connect", params)

    def subscribe(self, session, **more):
        return self.ask("agent.subscribe", {"sessionKey": session, **more})

    def message(self, timeout=PATIENCE):
        """The payload of the next message that is pushed."""
        return self.next(lambda one: one.get("type") == "evt" and one["event"] == "agent.message", timeout)["payload"]

    def ack(self, message_id):
        return self.ask("agent.ack", {"messageId": message_id})

    def quiet(self, seconds):
        """Nothing is pushed for so long."""
        assert not self.pushed, self.pushed
        try:
            frame = self.frame(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unwanted: {frame}")

    def closed(self, timeout=PATIENCE):
        """Wait for the close and return its code; frames before it are kept."""
        try:
            while True:
                self.pushed.append(self.frame(timeout))
        except Closed as end:
            return end.code


def post_message(daemon, to, content="hello", sender="tester", headers=None, **fields):
    """POST /messages; the answer's body."""
    answer = daemon.http.post("/messages", json={"from": sender, "to": to, "content": content, **fields},
                              headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()
