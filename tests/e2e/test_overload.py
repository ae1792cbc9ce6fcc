"""More connections than the daemon takes: the excess is told so, the others notice nothing."""

import selectors
import socket
import time

from rawhttp import Connection
from wait import eventually

LIMIT = 500
FLOOD = 2000
ROUNDS = 6


def measure(connections):
    """Sorted times of one request on each connection, one after the other, several rounds."""
    times = []
    for _ in range(ROUNDS):
        for connection in connections:
            began = time.perf_counter()
            assert connection.request("GET", "/api/vps/status").read().status == 200
            times.append(time.perf_counter() - began)
    return sorted(times)


def flood(daemon, count):
    """Open this many connections and ask on each; the sockets, and what was answered on each."""
    watcher = selectors.DefaultSelector()
    sockets, said = [], {}
    for _ in range(count):
        sock = socket.create_connection(daemon.address, 20)
        sock.setblocking(False)
        sock.sendall(b"GET /api/vps/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        watcher.register(sock, selectors.EVENT_READ)
        sockets.append(sock)
        said[sock] = b""

    def gather():
        for key, _ in watcher.select(0.1):
            try:
                piece = key.fileobj.recv(65536)
            except ConnectionResetError:
                piece = b""
            if piece:
                said[key.fileobj] += piece
            else:
                watcher.unregister(key.fileobj)
        return all(b"\r\n\r\n" in text for text in said.values())
    eventually(gather, deadline=60)
    return sockets, list(said.values())


def test_the_excess_of_2000_connections_gets_503_and_the_500_keep_their_latency(start):
    daemon = start(f"--limits.connections={LIMIT}", "--limits.connections_per_ip=5000")
    daemon.http.close()
    served = [Connection(daemon) for _ in range(LIMIT)]
    before = measure(served)
    sockets, answers = flood(daemon, FLOOD - LIMIT)
    during = measure(served)
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 "), answer
        assert b"\r\nretry-after: " in head.lower()
        assert body.startswith(b"{")
    for sock in sockets:
        sock.close()
    after = measure(served)
    for phase in (during, after):
        assert median(phase) < 5 * median(before) + 0.005
        assert phase[int(len(phase) * 0.99)] < 5 * before[int(len(before) * 0.99)] + 0.05
    for connection in served:
        connection.sock.close()
    eventually(lambda: accepts(daemon), every=0.05)


def median(times):
    return times[len(times) // 2]


def accepts(daemon):
    with Connection(daemon) as connection:
        return connection.request("GET", "/api/vps/status").read().status == 200


def test_one_address_cannot_take_all_connections(start):
    daemon = start("--limits.connections=100", "--limits.connections_per_ip=10")
    daemon.http.close()
    eventually(lambda: accepts(daemon))
    greedy = [Connection(daemon) for _ in range(10)]
    assert all(one.request("GET", "/api/vps/status").read().status == 200 for one in greedy)
    with Connection(daemon) as excess:
        answer = excess.request("GET", "/api/vps/status").read()
        assert answer.status in (429, 503)
        assert answer.header("Retry-After")
        assert excess.closed()
    with Connection(daemon, source="127.0.0.2") as other:
        assert other.request("GET", "/api/vps/status").read().status == 200
    greedy.pop().sock.close()
    eventually(lambda: accepts(daemon), every=0.02)
    for connection in greedy:
        connection.sock.close()


def test_a_connection_refused_for_being_too_many_does_not_count_later(start):
    daemon = start("--limits.connections=5")
    daemon.http.close()
    for _ in range(50):
        held = [Connection(daemon) for _ in range(8)]
        for connection in held:
            connection.sock.close()
    eventually(lambda: accepts(daemon), every=0.02)
