"""WebSocket frames over a plain socket, right or wrong, for either role.

The program under test is ws_echo (tests/ws_echo.c): it echoes what it receives, as a server or
as a client. A test plays the other role with a Peer.
"""

import base64
import contextlib
import hashlib
import os
import socket
import struct
import subprocess

from chelad import BIN, environment

ECHO = BIN.parent / "src" / "net" / "ws_echo"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT = 20


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def mask_bytes(data, mask):
    n = len(data)
    key = int.from_bytes((mask * (n // 4 + 1))[:n], "big")
    return (int.from_bytes(data, "big") ^ key).to_bytes(n, "big")


def close_body(code, reason=b""):
    return struct.pack("!H", code) + reason


class Peer:
    """One end of an open WebSocket. As a client it masks and expects no masks; as a server not."""

    def __init__(self, sock, role, rest=b""):
        self.sock = sock
        self.masks = role == "client"
        self.buffer = rest

    def frame(self, opcode, payload=b"", fin=True, rsv=0, masked=None):
        n = len(payload)
        masked = self.masks if masked is None else masked
        flag = 0x80 if masked else 0
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        if n < 126:
            head += bytes([flag | n])
        elif n < 65536:
            head += struct.pack("!BH", flag | 126, n)
        else:
            head += struct.pack("!BQ", flag | 127, n)
        if masked:
            mask = os.urandom(4)
            return head + mask + (mask_bytes(payload, mask) if payload else b"")
        return head + payload

    def send(self, *frames, chop=0):
        """Frames as (opcode, payload, fin, rsv) tuples or raw bytes, in one write or in pieces."""
        data = b"".join(f if isinstance(f, bytes) else self.frame(*f) for f in frames)
        try:
            for at in range(0, len(data), chop or len(data) or 1):
                self.sock.sendall(data[at:at + (chop or len(data))])
        except (ConnectionError, BrokenPipeError):
            pass  # it hung up on us, as some tests want; what it said is still to be read

    def _take(self, n):
        while len(self.buffer) < n:
            piece = self.sock.recv(1 << 20)
            if not piece:
                raise EOFError(self.buffer)
            self.buffer += piece
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def receive(self):
        """The next frame as (opcode, payload); checks what every frame must be."""
        first, second = self._take(2)
        n = second & 0x7f
        assert first & 0x70 == 0, "reserved bits"
        assert bool(second & 0x80) is not self.masks, "masking does not fit the role"
        if n == 126:
            n, = struct.unpack("!H", self._take(2))
            assert n > 125, "length is not in its shortest form"
        elif n == 127:
            n, = struct.unpack("!Q", self._take(8))
            assert n > 65535, "length is not in its shortest form"
        mask = self._take(4) if second & 0x80 else None
        payload = self._take(n)
        assert first & 0x80, "it does not fragment"
        return first & 0x0f, mask_bytes(payload, mask) if mask and payload else payload

    def expect(self, *frames):
        for frame in frames:
            assert self.receive() == frame

    def expect_close(self, code):
        """The close with the code (None: an empty one), and then the end of the stream."""
        opcode, payload = self.receive()
        assert opcode == CLOSE, (opcode, payload[:100])
        assert len(payload) <= 125
        if code is None:
            assert payload == b""
        else:
            assert struct.unpack("!H", payload[:2])[0] == code
            payload[2:].decode()
        self.expect_end()

    def expect_end(self):
        with contextlib.suppress(ConnectionResetError):
            assert self.buffer + self.sock.recv(100) == b""

    def finish(self):
        """Close in order, and insist on order."""
        self.send((CLOSE, close_body(1000)))
        self.expect_close(1000)


class Server:
    """ws_echo as a server."""

    def __init__(self, *certificate):
        self.process = subprocess.Popen(
            [ECHO, "serve", *map(str, certificate)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment("/nonexistent"))
        self.port = int(self.process.stdout.readline())

    def dial(self):
        sock = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def request(self, path="/echo", drop=(), **headers):
        fields = {"Host": f"127.0.0.1:{self.port}", "Upgrade": "websocket",
                  "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                  "Sec-WebSocket-Version": "13"}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = [f"GET {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if name not in drop]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def open(self, path="/echo", **headers):
        """An open WebSocket's Peer, its head checked."""
        sock = self.dial()
        sock.sendall(self.request(path, **headers))
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        return Peer(sock, "client", rest)

    def stop(self):
        _, errors = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, errors
        assert b"ERROR" not in errors and b"runtime error" not in errors, errors


class Caller:
    """ws_echo as a client of a server that a test plays."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT)
        self.processes = []

    def open(self, answer=None):
        port = self.listener.getsockname()[1]
        self.processes.append(subprocess.Popen(
            [ECHO, "call", f"ws://127.0.0.1:{port}/"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment("/nonexistent")))
        sock, _ = self.listener.accept()
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, rest = read_head(sock)
        key = next(line.split(b": ")[1] for line in head.split(b"\r\n")
                   if line.startswith(b"Sec-WebSocket-Key: "))
        assert len(base64.b64decode(key, validate=True)) == 16
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept_of(key) +
                     b"\r\n\r\n")
        return Peer(sock, "server", rest)

    def stop(self):
        self.listener.close()
        for process in self.processes:
            _, errors = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, errors


def read_head(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, f"ended in its head: {data!r}"
        data += piece
    at = data.index(b"\r\n\r\n") + 4
    return data[:at], data[at:]
