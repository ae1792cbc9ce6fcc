"""A scripted OpenClaw gateway: it shakes hands, keeps what it is asked to say, and tells of messages."""

import contextlib
import json
import socket
import threading
import time

from wait import eventually
from wsraw import CLOSE, PING, PONG, TEXT, Peer, accept_of, close_body, read_head

TOKEN = "peer-token"


class OpenClaw:
    """Listens at once; stop() ends it, begin() takes the same port again."""

    def __init__(self, token=TOKEN):
        self.token = token
        self.port = 0
        self.said = []       # (method, params) of every distinct idempotency key, in order
        self.asked = []      # (method, key) of every request
        self.keys = {}
        self.script = {}     # method: function(params) -> payload, or an error as a dict with "code"
        self.sockets = []
        self.connects = 0
        self.lock = threading.Lock()
        self.kept = {}       # session key: its messages, as chat.history tells them
        self.listener = None
        self.begin()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    def begin(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        """As a process that dies."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            sockets, self.sockets = self.sockets, []
        for peer in sockets:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
            peer.sock.close()

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with contextlib.suppress(OSError, EOFError, AssertionError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head, rest = read_head(sock)
            key = next(line.split(b": ")[1] for line in head.split(b"\r\n")
                       if line.lower().startswith(b"sec-websocket-key: "))
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n")
            peer = Peer(sock, "server", rest)
            self._send(peer, {"type": "event", "event": "connect.challenge", "payload": {"nonce": "n-1", "ts": 1}})
            while True:
                opcode, payload = peer.receive()
                if opcode == PING:
                    peer.send((PONG, payload))
                elif opcode == CLOSE:
                    peer.send((CLOSE, close_body(1000)))
                    sock.close()
                    return
                elif opcode == TEXT:
                    self._answer(peer, json.loads(payload))

    def _send(self, peer, frame):
        peer.send((TEXT, json.dumps(frame).encode()))

    def _answer(self, peer, frame):
        payload = self._do(peer, frame["method"], frame.get("params") or {})
        if payload is None:
            return  # says nothing
        if "code" in payload:
            self._send(peer, {"type": "res", "id": frame["id"], "ok": False, "error": payload})
            return
        if frame["method"] == "agent":
            self._send(peer, {"type": "res", "id": frame["id"], "ok": True,
                              "payload": {"runId": "r", "status": "accepted"}})
        self._send(peer, {"type": "res", "id": frame["id"], "ok": True, "payload": payload})

    def _do(self, peer, method, params):
        if method == "connect":
            if (params.get("auth") or {}).get("token") != self.token:
                return {"code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch"}
            with self.lock:
                self.sockets.append(peer)
                self.connects += 1
            return {"type": "hello-ok", "protocol": 4, "server": {"version": "2026.7.35", "connId": "c"},
                    "features": {"methods": ["send", "agent", "sessions.subscribe"], "events": ["session.message"]},
                    "snapshot": {}, "policy": {"maxPayload": 26214400, "tickIntervalMs": 30000}}
        if method == "sessions.list":
            return {"sessions": [{"key": key, "updatedAt": max(m["__openclaw"]["recordTimestampMs"] for m in kept)}
                                 for key, kept in self.kept.items()]}
        if method == "chat.history":
            return {"sessionKey": params["sessionKey"], "messages": self.kept[params["sessionKey"]]}
        if method not in ("send", "agent"):
            return {}
        with self.lock:
            key = params["idempotencyKey"]
            self.asked.append((method, key))
            if key not in self.keys:
                answer = self.script.get(method, self._fine)(params)
                if answer is None or "code" in answer:
                    return answer
                self.said.append((method, params))
                self.keys[key] = answer
            return self.keys[key]

    @staticmethod
    def _fine(params):
        if "to" in params:
            return {"runId": params["idempotencyKey"], "messageId": "m-1", "channel": params["channel"]}
        return {"runId": "r", "status": "ok", "summary": "completed",
                "result": {"payloads": [{"text": f"heard: {params['message']}"}], "meta": {}}}

    def texts(self):
        with self.lock:
            return [params["message"] for _, params in self.said]

    def wait_texts(self, n, deadline=30):
        eventually(lambda: len(self.texts()) >= n, deadline)
        return self.texts()

    def wait_connected(self, deadline=30):
        return eventually(lambda: self.sockets, deadline)

    def keep(self, key, text, message_id, role="user", age=0):
        """A message is stored in a session; nobody is told."""
        self.kept.setdefault(key, []).append(
            {"role": role, "content": [{"type": "text", "text": text}], "timestamp": 1,  # of the channel
             "__openclaw": {"id": message_id, "recordTimestampMs": int((time.time() - age) * 1000), "seq": 1}})

    def tell(self, key, text, message_id, role="user", session=None, **message):
        """A message was stored in a session: an event to whoever is connected."""
        payload = {"sessionKey": key, "messageId": message_id, "messageSeq": 1, "session": session or {},
                   "message": {"role": role, "content": text, **message}}
        with self.lock:
            sockets = list(self.sockets)
        for peer in sockets:
            self._send(peer, {"type": "event", "event": "session.message", "payload": payload})
