"""HTTP/2 towards agents: taken when a TLS server offers it, many calls on few connections."""

import json
import socket
import struct
import threading

import agent as act
import pytest
from starter import Starter
from wait import together

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STATUS_200 = b"\x88"  # its place in HPACK's static table
JSON_TYPE = b"\x0f\x10\x10application/json"  # content-type, a literal that is not remembered


class Http2Agent:
    """An agent that speaks just enough HTTP/2: it reads frames and answers each finished stream."""

    def __init__(self, context, answer="two", reset_first=False):
        context.set_alpn_protocols(["h2"])
        self.context = context
        self.answer = json.dumps({"content": answer}).encode()
        self.reset_first = reset_first
        self.connections = 0
        self.streams = 0
        self.protocols = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain):
        try:
            with self.context.wrap_socket(plain, server_side=True) as sock:
                self.protocols.add(sock.selected_alpn_protocol())
                with sock.makefile("rb") as stream:
                    self._talk(sock, stream)
        except (OSError, EOFError, struct.error):
            pass  # the client has gone

    def _talk(self, sock, stream):
        assert stream.read(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        sock.sendall(frame(SETTINGS, 0, 0))
        while True:
            high, low, kind, flags, number = struct.unpack("!BHBBI", stream.read(9))
            payload = stream.read(high << 16 | low)
            if kind == SETTINGS and not flags & ACK:
                sock.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                sock.sendall(frame(PING, ACK, 0, payload))
            elif kind in (DATA, HEADERS) and flags & END_STREAM:
                self.streams += 1
                sock.sendall(self._reply(number))

    def _reply(self, number):
        if self.reset_first and self.streams == 1:
            return frame(RST_STREAM, 0, number, struct.pack("!I", 2))
        return (frame(HEADERS, END_HEADERS, number, STATUS_200 + JSON_TYPE) +
                frame(DATA, END_STREAM, number, self.answer))

    def stop(self):
        self.listener.close()


def frame(kind, flags, number, payload=b""):
    return struct.pack("!BHBBI", len(payload) >> 16, len(payload) & 0xffff, kind, flags,
                       number) + payload


@pytest.fixture(scope="module")
def trusting(store, scratch, certificates):
    starter = Starter(store, scratch)
    yield starter(f"--outbound.ca_file={certificates.ca}")
    starter.stop()


@pytest.fixture
def agent(certificates):
    made = []

    def make(**options):
        made.append(Http2Agent(certificates.server_context("good"), **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def register(daemon, name, agent, **fields):
    body = {"name": name, "host": "localhost", "port": agent.port, "protocol": "https", **fields}
    assert daemon.http.post("/api/vps/register", json=body).status_code == 201


def test_http2_is_spoken_when_offered(trusting, agent):
    one = agent()
    register(trusting, "h2", one)
    for _ in range(5):
        assert trusting.call("h2")["response"] == "two"
    assert (one.protocols, one.connections, one.streams) == ({"h2"}, 1, 5)


def test_many_calls_share_few_connections(trusting, agent):
    one = agent()
    register(trusting, "h2-many", one)
    trusting.call("h2-many")
    results = together(lambda _: trusting.call("h2-many")["response"], range(60), workers=30)
    assert results == ["two"] * 60
    assert one.streams == 61 and one.connections <= 32


def test_a_reset_stream_is_a_network_error_and_the_next_attempt_succeeds(trusting, agent):
    one = agent(reset_first=True)
    register(trusting, "h2-reset", one, max_retries=2)
    result = trusting.call("h2-reset")
    assert (result["response"], one.streams) == ("two", 2), result
    assert result["attempts"][0]["error_type"] == "network"


def test_http1_is_spoken_when_http2_is_not_offered(trusting, make_agent, certificates):
    one = make_agent(act.says("one"), tls=certificates.server_context("good"))
    register(trusting, "h1", one)
    assert trusting.call("h1")["response"] == "one"
