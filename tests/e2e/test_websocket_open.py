"""WebSockets beyond their frames: opening, limits, silence, TLS, and an independent peer."""

import asyncio
import socket
import ssl
import subprocess
import threading

import pytest
import websockets
from chelad import environment
from wait import eventually
from wsraw import BINARY, CLOSE, ECHO, PING, PONG, TEXT, Caller, Peer, Server, close_body, read_head


@pytest.fixture(scope="module")
def server():
    one = Server()
    yield one
    one.stop()


def answer_to(server, request):
    with server.dial() as sock:
        sock.sendall(request)
        head, _ = read_head(sock)
        return head.decode()


# --- opening ---

@pytest.mark.parametrize("status,drop,headers", [
    (426, ("Upgrade",), {}),
    (426, ("Connection",), {}),
    (426, (), {"Upgrade": "h2c"}),
    (426, (), {"Connection": "keep-alive"}),
    (426, ("Sec-WebSocket-Version",), {}),
    (426, (), {"Sec_WebSocket_Version": "8"}),
    (426, (), {"Sec_WebSocket_Version": "13, 8"}),
    (400, ("Sec-WebSocket-Key",), {}),
    (400, (), {"Sec_WebSocket_Key": "short"}),
    (400, (), {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ"}),
    (400, (), {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}),
])
def test_what_is_no_websocket_request_is_refused(server, status, drop, headers):
    head = answer_to(server, server.request(drop=drop, **headers))
    assert head.startswith(f"HTTP/1.1 {status} "), head
    if "Version" in str(drop) + str(headers):
        assert "\r\nSec-WebSocket-Version: 13\r\n" in head


def test_http_1_0_does_not_upgrade(server):
    head = answer_to(server, server.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert head.startswith("HTTP/1.1 400 ") or head.startswith("HTTP/1.0 400 "), head


@pytest.mark.parametrize("headers", [
    {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"},
    {"Upgrade": "h2c, websocket"},
    {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
    {"Sec_WebSocket_Protocol": "chat.v2"},
    {"Origin": "http://127.0.0.1"},
])
def test_what_a_proper_client_may_send_is_taken(server, headers):
    peer = server.open(**headers)
    peer.send((TEXT, b"hi"))
    peer.expect((TEXT, b"hi"))
    peer.finish()


@pytest.mark.parametrize("offer,taken", [
    ("chat.v2", True), ("chat.v1, chat.v2", True), ("chat.v1,chat.v2 ", True),
    ("chat.v1", False), ("CHAT.V2", False), (None, False),
])
def test_a_subprotocol_is_answered_only_when_offered(server, offer, taken):
    headers = {"Sec_WebSocket_Protocol": offer} if offer else {}
    head = answer_to(server, server.request("/chat", **headers))
    assert head.startswith("HTTP/1.1 101 ")
    assert ("\r\nSec-WebSocket-Protocol: chat.v2\r\n" in head) is taken
    assert "Sec-WebSocket-Extensions" not in head


@pytest.mark.parametrize("path", ["/echo", "/recv"])
def test_frames_behind_the_request_are_not_lost(server, path):
    sock = server.dial()
    peer = Peer(sock, "client")
    sock.sendall(server.request(path) + peer.frame(TEXT, b"early") + peer.frame(PING, b"p"))
    head, peer.buffer = read_head(sock)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert sorted([peer.receive(), peer.receive()]) == [(TEXT, b"early"), (PONG, b"p")]
    peer.finish()


def test_a_request_may_come_byte_by_byte(server):
    sock = server.dial()
    for byte in server.request():
        sock.sendall(bytes([byte]))
    head, rest = read_head(sock)
    assert head.startswith(b"HTTP/1.1 101 ")
    Peer(sock, "client", rest).finish()


def test_the_same_connection_may_ask_first_and_upgrade_then(server):
    sock = server.dial()
    sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head, rest = read_head(sock)
    assert head.startswith(b"HTTP/1.1 404 ")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(rest) < length:
        rest += sock.recv(1000)
    sock.sendall(server.request())
    head, rest = read_head(sock)
    assert head.startswith(b"HTTP/1.1 101 ")
    Peer(sock, "client", rest).finish()


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    b"",
])
def test_a_client_refuses_other_answers(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        process = subprocess.Popen([ECHO, "call", url], stderr=subprocess.PIPE,
                                   env=environment("/nonexistent"))
        sock, _ = listener.accept()
        read_head(sock)
        sock.sendall(answer)
        sock.close()
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 1 and b"WebSocket with 127.0.0.1" in errors


# --- limits and silence ---

def test_a_message_over_the_limit_is_1009(server):
    peer = server.open("/small")
    peer.send((TEXT, b"x" * 1000))
    peer.expect((TEXT, b"x" * 1000))
    peer.send((TEXT, b"x" * 1001))
    peer.expect_close(1009)


def test_fragments_over_the_limit_are_1009(server):
    peer = server.open("/small")
    peer.send((BINARY, b"x" * 600, False), (0, b"x" * 400, False), (0, b"x"))
    peer.expect_close(1009)


def test_a_promise_over_the_limit_is_1009_at_once(server):
    peer = server.open("/echo")
    peer.send(bytes([0x82, 0xff]) + (1 << 40).to_bytes(8, "big") + bytes(4) + b"beginning")
    peer.expect_close(1009)


def test_silence_is_pinged_and_a_pong_keeps_it_open(server):
    peer = server.open("/quick")
    for _ in range(6):  # longer than the server's patience
        assert peer.receive() == (PING, b"")
        peer.send((PONG, b""))
    peer.finish()


def test_a_silent_peer_is_left(server):
    peer = server.open("/quick")
    peer.expect((PING, b""))
    peer.expect_end()


def test_the_server_may_close_first(server):
    peer = server.open("/bye")
    peer.send((TEXT, b"hello"), (TEXT, b"never read"))
    assert peer.receive() == (CLOSE, close_body(4001, b"good bye"))
    peer.send((CLOSE, close_body(4001)))
    peer.expect_end()


@pytest.mark.parametrize("path", ["/recv", "/echo"])
def test_a_peer_that_does_not_read_is_waited_for(server, path):
    """24 MB of echoes are on their way before the first is read."""
    peer = server.open(path)
    payload = bytes(range(256)) * 256
    sending = threading.Thread(target=lambda: [peer.send((BINARY, payload)) for _ in range(384)])
    sending.start()
    sending.join(0.3)
    for _ in range(384):
        assert peer.receive() == (BINARY, payload)
    sending.join()
    peer.finish()


def test_a_thousand_sockets_stay_open(server):
    before = memory_of(server)
    peers = [server.open() for _ in range(1000)]
    for peer in peers:
        peer.send((TEXT, b"hi"))
    for peer in peers:
        peer.expect((TEXT, b"hi"))
    assert (memory_of(server) - before) / 1000 < 4096 or "asan" in str(ECHO)
    for peer in peers:
        peer.finish()


def memory_of(server):
    """Anonymous resident memory in bytes."""
    with open(f"/proc/{server.process.pid}/status") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


# --- an independent peer: python3-websockets ---

def test_an_independent_client_talks_to_our_server(server):
    async def talk():
        url = f"ws://127.0.0.1:{server.port}/chat"
        async with websockets.connect(url, subprotocols=["chat.v1", "chat.v2"],
                                      compression="deflate", max_size=None) as ws:
            assert ws.subprotocol == "chat.v2" and ws.extensions == []
            for message in ["text", "", "ä€😀" * 50, b"", b"\xff\x00" * 40000, "x" * 2_000_000]:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["in ", "three ", "fragments"])
            assert await ws.recv() == "in three fragments"
            await asyncio.wait_for(await ws.ping(b"are you there"), 10)
            await ws.close(3456, "done")
        assert (ws.close_code, ws.close_reason) == (3456, "")
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/bye") as ws:
            await ws.send("hello")
            with pytest.raises(websockets.ConnectionClosed):
                await ws.recv()
        assert (ws.close_code, ws.close_reason) == (4001, "good bye")

    asyncio.run(talk())


def test_our_client_talks_to_an_independent_server():
    async def host():
        done = asyncio.get_running_loop().create_future()

        async def handle(ws):
            for message in ["text", "", "ä€😀" * 50, b"\xff\x00" * 40000, "x" * 2_000_000]:
                await ws.send(message)
                assert await ws.recv() == message
            await asyncio.wait_for(await ws.ping(b"are you there"), 10)
            await ws.close(3456, "done")
            done.set_result(ws.close_code)

        async with websockets.serve(handle, "127.0.0.1", 0, max_size=None) as listening:
            port = listening.sockets[0].getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                ECHO, "call", f"ws://127.0.0.1:{port}/", stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=environment("/nonexistent"))
            assert await asyncio.wait_for(done, 20) == 3456
            out, errors = await asyncio.wait_for(process.communicate(), 20)
            assert (process.returncode, out) == (0, b"3456\n"), errors

    asyncio.run(host())


# --- TLS ---

@pytest.fixture(scope="module")
def tls_server(certificates):
    directory = certificates.directory
    one = Server(directory / "good.pem", directory / "good.key")
    yield one
    one.stop()


def test_an_independent_client_talks_over_tls(tls_server, certificates):
    async def talk():
        context = ssl.create_default_context(cafile=certificates.ca)
        for path in ("/echo", "/recv"):
            url = f"wss://localhost:{tls_server.port}{path}"
            async with websockets.connect(url, ssl=context, max_size=None) as ws:
                for message in ["text", "", b"\xff\x00" * 40000, "x" * 2_000_000]:
                    await ws.send(message)
                    assert await ws.recv() == message
                for number in range(200):
                    await ws.send(str(number))
                for number in range(200):
                    assert await ws.recv() == str(number)
            assert ws.close_code == 1000

    asyncio.run(talk())


def test_our_client_verifies_the_server(tls_server, certificates):
    url = f"wss://localhost:{tls_server.port}/bye"
    process = subprocess.run([ECHO, "call", url], capture_output=True, timeout=20,
                             env=environment("/nonexistent"))
    assert process.returncode == 1 and b"certificate" in process.stderr


def test_our_client_talks_over_tls(certificates):
    async def host():
        async def handle(ws):
            for message in ["text", "x" * 1_000_000, b"\x00" * 100_000]:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.close(1001)

        context = certificates.server_context("good")
        async with websockets.serve(handle, "127.0.0.1", 0, ssl=context) as listening:
            port = listening.sockets[0].getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                ECHO, "call", f"wss://localhost:{port}/", str(certificates.ca),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment("/nonexistent"))
            out, errors = await asyncio.wait_for(process.communicate(), 20)
            assert (process.returncode, out) == (0, b"1001\n"), errors

    asyncio.run(host())


def test_a_caller_that_is_left_says_1006():
    caller = Caller()
    peer = caller.open()
    peer.send((TEXT, b"x"))
    peer.expect((TEXT, b"x"))
    peer.sock.close()
    process = caller.processes[0]
    eventually(lambda: process.poll() is not None)
    assert process.communicate()[0] == b"1006\n"
    caller.listener.close()
