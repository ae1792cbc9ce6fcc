"""A scripted HTTP agent: a raw TCP server that answers each request as the test says.

A behaviour is a function of an Exchange: it may send any bytes, or none, reset, hang or drip.
The i-th request gets the i-th behaviour of the script, later ones the last. Every request is
kept with its raw bytes. One thread per connection: the point here is to misbehave exactly.
"""

import gzip
import http
import itertools
import json
import select
import socket
import struct
import threading
import time

from wait import eventually


class Request:
    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.raw = head + b"\r\n\r\n" + body
        self.method, self.target, self.version = lines[0].split(" ", 2)
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        self.body = body
        self.at = time.monotonic()

    def header(self, name):
        """The value of a header that may be there once; None without it."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} sent {len(values)} times"
        return values[0] if values else None

    @property
    def json(self):
        return json.loads(self.body)


class Exchange:
    """One request and the connection its answer goes to."""

    def __init__(self, agent, sock, request):
        self.agent = agent
        self.sock = sock
        self.request = request
        self.keep = True

    def send(self, data):
        self.sock.sendall(data)

    def close(self):
        self.keep = False

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def peer_left(self):
        readable, _, _ = select.select([self.sock], [], [], 0)
        if not readable:
            return False
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def hold(self):
        """Wait for the test to release the agent; False when the caller left instead."""
        while not self.agent.released.wait(0.01):
            if self.agent.stopping or self.peer_left():
                self.agent.abandoned += 1
                self.close()
                return False
        return True


class Agent:
    def __init__(self, *script, tls=None, host="127.0.0.1"):
        self.script = list(script) or [says("ok")]
        self.tls = tls
        self.requests = []
        self.connections = 0
        self.abandoned = 0  # held requests whose caller went away
        self.released = threading.Event()
        self.stopping = False
        self._lock = threading.Lock()
        self._open = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, 0))
        self._listener.listen(512)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def prompts(self):
        return [request.json["messages"][-1]["content"] for request in self.requests]

    def wait_requests(self, count, deadline=30):
        eventually(lambda: len(self.requests) >= count, deadline)

    def wait_abandoned(self, count=1, deadline=30):
        eventually(lambda: self.abandoned >= count, deadline)

    def release(self):
        self.released.set()

    def then(self, *script):
        """Replace the behaviours for the requests to come."""
        with self._lock:
            self.script = [None] * len(self.requests) + list(script)

    def stop(self):
        self.stopping = True
        self.released.set()
        # A blocked accept() is not woken by close(), but it is by shutdown().
        for sock in [self._listener, *self._open]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._listener.close()

    def _accept(self):
        while not self.stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(sock)
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain):
        sock = plain
        try:
            if self.tls:
                sock = self.tls.wrap_socket(plain, server_side=True)
                self._open.add(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve_requests(sock)
        except OSError:
            pass  # the other side may break off at any point: that is what is being tested
        finally:
            self._open.discard(plain)
            self._open.discard(sock)
            sock.close()

    def _serve_requests(self, sock):
        reader = sock.makefile("rb")
        try:
            while not self.stopping:
                request = read_request(reader)
                if request is None:
                    return
                with self._lock:
                    behaviour = self.script[min(len(self.requests), len(self.script) - 1)]
                    self.requests.append(request)
                exchange = Exchange(self, sock, request)
                behaviour(exchange)
                if not exchange.keep:
                    return
        finally:
            reader.close()


def read_request(reader):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return None
        head += line
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return Request(head[:-4], reader.read(length))


# Behaviours that answer.

def reply(status, body=b"", headers=(), length=True):
    """A plain answer with exactly these headers, plus Content-Length unless told otherwise."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Odd"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    if length and status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return lambda exchange: exchange.send(head + body)


def answers(value, status=200, headers=()):
    """A JSON answer."""
    return reply(status, json.dumps(value).encode(),
                 [("Content-Type", "application/json"), *headers])


def says(text):
    """The answer of a well-behaved agent."""
    return answers({"content": text})


def echo(exchange):
    answers({"content": exchange.request.json["messages"][-1]["content"]})(exchange)


def fails(status, headers=(), body=b'{"error":"scripted"}'):
    return reply(status, body, [("Content-Type", "application/json"), *headers])


def chunked(pieces, trailer=b"0\r\n\r\n", content_type="application/json"):
    def behave(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type.encode()
                      + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        exchange.send(trailer)
    return behave


def gzipped(value):
    return reply(200, gzip.compress(json.dumps(value).encode()),
                 [("Content-Type", "application/json"), ("Content-Encoding", "gzip")])


def until_close(body):
    """An HTTP/1.0 manner of answer: its end is the end of the connection."""
    def behave(exchange):
        reply(200, body, [("Connection", "close")], length=False)(exchange)
        exchange.close()
    return behave


def held(behaviour):
    """Answer only once the test releases the agent."""
    def behave(exchange):
        if exchange.hold():
            behaviour(exchange)
    return behave


# Behaviours that do not.

def hangs(exchange):
    """Never answers; ends when the caller gives up."""
    exchange.hold()
    exchange.close()


def hangs_in_body(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"content": "')
    hangs(exchange)


def resets(exchange):
    exchange.reset()


def resets_in_body(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"content": "')
    exchange.reset()


def truncates(exchange):
    exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"content": "cut"}')
    exchange.close()


def closes(exchange):
    exchange.close()


def drips(exchange):
    """One byte now and then, always too slow to finish."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not exchange.agent.stopping and not exchange.agent.released.wait(0.02):
        exchange.send(b" ")
    exchange.close()


def huge(size):
    """A correct answer of about this many bytes."""
    def behave(exchange):
        head, tail, block = b'{"content": "', b'"}', b"x" * 65536
        length = len(head) + size + len(tail)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + head)
        for _ in range(size // len(block)):
            exchange.send(block)
        exchange.send(block[:size % len(block)] + tail)
    return behave


def bad_chunks(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")
    exchange.close()


def garbage(exchange):
    exchange.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    exchange.close()


# Streamed answers, as the three kinds of API send them.

def sse(events, end=b"0\r\n\r\n", pause=None):
    """Server-sent events: (event name or None, data text). pause(i, exchange) runs before each."""
    def behave(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n")
        for number, (name, data) in enumerate(events):
            if pause:
                pause(number, exchange)
            text = (f"event: {name}\n" if name else "") + f"data: {data}\n\n"
            piece = text.encode()
            exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        exchange.send(end)
        if end != b"0\r\n\r\n":
            exchange.close()
    return behave


def openai_events(texts):
    chunks = [{"choices": [{"index": 0, "delta": {"role": "assistant"}}]}]
    chunks += [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return [(None, json.dumps(chunk)) for chunk in chunks] + [(None, "[DONE]")]


def responses_events(texts):
    whole = "".join(texts)
    events = [{"type": "response.created", "response": {"id": "r"}}]
    events += [{"type": "response.output_text.delta", "delta": text} for text in texts]
    events.append({"type": "response.output_text.done", "text": whole})
    output = [{"type": "message", "content": [{"type": "output_text", "text": whole}]}]
    events.append({"type": "response.completed",
                   "response": {"status": "completed", "output": output}})
    return [(event["type"], json.dumps(event)) for event in events]


def messages_events(texts):
    events = [{"type": "message_start", "message": {"role": "assistant", "content": []}},
              {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}]
    events += [{"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}} for text in texts]
    events += [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    return [(event["type"], json.dumps(event)) for event in events]


def refused_port():
    """A port nobody listens on: bound once, so it is not handed out again at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def counted(start=1):
    """An answer that names its own number: answer 1, answer 2, …"""
    numbers = itertools.count(start)
    return lambda exchange: says(f"answer {next(numbers)}")(exchange)
