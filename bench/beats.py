#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`make bench ARGS=--beats`: what the heartbeats of many agents cost.

Makes the agents through the API, subscribes to all of them over a few sockets, answers every
heartbeat, and reads what chelad has used and written meanwhile. See bench/README.md.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import measure  # noqa: E402
import postgres  # noqa: E402
from servers import Bench, Unavailable  # noqa: E402

CALLERS = 32  # that make agents
COUNTERS = {
    "commits": "chela_store_commits_total",
    "transactions": "chela_store_transactions_total",
    "beats": "chela_agent_beats_total",
    "silent": "chela_agents_silent",
    "beating": "chela_agents_beating",
}


def frame(text, opcode=1):
    """A client's frame, masked with zeros."""
    body = text if isinstance(text, bytes) else text.encode()
    n = len(body)
    size = bytes([0x80 | n]) if n < 126 else bytes([0xfe]) + struct.pack("!H", n)
    return bytes([0x80 | opcode]) + size + bytes(4) + body


class Peer:
    """A socket of many agents: answers their heartbeats."""

    def __init__(self, port, sessions):
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.left, self.beats, self.errors = b"", len(sessions), 0, []
        self.sock.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                          "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            piece = self.sock.recv(65536)
            if not piece:
                raise Unavailable(f"the gateway closed: {self.buffer!r}")
            self.buffer += piece
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise Unavailable(f"no WebSocket: {head!r}")
        for session in sessions:
            self.request("agent.subscribe", session)
            while self.left == len(sessions):
                self.read()
            sessions = sessions[1:]

    def request(self, method, session, **params):
        self.sock.sendall(frame(json.dumps({"type": "req", "id": method, "method": method,
                                            "params": {"sessionKey": session, **params}})))

    def read(self):
        self.buffer += self.sock.recv(65536)
        while len(self.buffer) >= 2:
            head, n = 2, self.buffer[1] & 0x7f
            if n == 126:
                head = 4
                if len(self.buffer) < 4:
                    return
                n, = struct.unpack("!H", self.buffer[2:4])
            if len(self.buffer) < head + n:
                return
            opcode, body = self.buffer[0] & 15, self.buffer[head:head + n]
            self.buffer = self.buffer[head + n:]
            if opcode == 9:
                self.sock.sendall(frame(body, 10))
            elif opcode == 1:
                self.take(json.loads(body))

    def take(self, told):
        if told["type"] == "evt" and told["event"] == "agent.heartbeat":
            self.beats += 1
            self.request("agent.heartbeat", told["payload"]["sessionKey"])
        elif told["type"] == "evt" and told["event"] == "agent.message":  # that it was provisioned
            self.request("agent.ack", told["payload"]["to"], messageId=told["payload"]["messageId"])
        elif told["type"] == "res" and not told["ok"]:
            self.errors.append(json.dumps(told))
        elif told["type"] == "res" and told["id"] == "agent.subscribe":
            self.left -= 1


class Peers(threading.Thread):
    """All sockets in one thread."""

    def __init__(self, port, sessions, sockets):
        super().__init__(daemon=True)
        self.peers = [Peer(port, sessions[i::sockets]) for i in range(sockets)]
        self.ended = False

    def run(self):
        with selectors.DefaultSelector() as found:
            for peer in self.peers:
                found.register(peer.sock, selectors.EVENT_READ, peer)
            while not self.ended:
                for key, _ in found.select(0.2):
                    key.data.read()

    def total(self):
        return sum(p.beats for p in self.peers)

    def errors(self):
        return [e for p in self.peers for e in p.errors]


def create(port, numbers, interval):
    """Make these agents over one connection; their session keys."""
    made, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in numbers:
        body = json.dumps({"name": f"Bench {number}", "model": "anthropic/claude-sonnet-4",
                           "heartbeat": {"enabled": True, "interval": interval}})
        connection.request("POST", "/api/v1/agents/provision", body,
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        if answer.status != 201 or told["status"] != "running" or not told["heartbeat_enabled"]:
            raise Unavailable(f"an agent was not made: {answer.status} {json.dumps(told)[:400]}")
        made.append(told["openclaw_session_key"])
    connection.close()
    return made


def create_all(port, n, interval):
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        parts = pool.map(lambda i: create(port, range(i, n, CALLERS), interval), range(CALLERS))
        return [session for part in parts for session in part]


def counters(port):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {key: sum(map(float, re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M)))
            for key, name in COUNTERS.items()}


def database_counters(cluster, url):
    if not cluster:
        return {}
    name = url.rsplit("/", 1)[1]
    rows = cluster.psql(f"SELECT xact_commit, tup_inserted + tup_updated + tup_deleted FROM pg_stat_database"
                        f" WHERE datname = '{name}'")
    commits, rows = rows.strip().split("|")
    return {"pg_commits": int(commits), "pg_rows_written": int(rows),
            "pg_wal_bytes": int(cluster.psql("SELECT wal_bytes FROM pg_stat_wal"))}


def bytes_written(pid):
    text = pathlib.Path(f"/proc/{pid}/io").read_text()
    return int(re.search(r"^write_bytes: (\d+)$", text, re.M)[1])


def reading(server, cluster, url, peers=None):
    pid = server.process.pid
    return {"at": time.monotonic(), "cpu_s": measure.cpu_seconds([pid]),
            "answered": peers.total() if peers else 0,
            "disk_bytes": bytes_written(pid), **counters(server.port),
            **database_counters(cluster, url)}


def rates(first, last):
    took = last["at"] - first["at"]
    return {key: (last[key] - first[key]) / took for key in first
            if key not in ("at", "silent", "beating")}


def run_one(bench, store, args):
    cluster = postgres.Cluster().start() if store == "postgres" else None
    url = cluster.new_database() if cluster else None
    try:
        idle_settings = [f"--store.url={url}"] if cluster else []
        server = bench.chelad(bench.dir / store, *idle_settings, *args.chelad)
        time.sleep(1)
        before, idle = measure.memory_kib(server.process.pid), reading(server, cluster, url)
        time.sleep(args.idle)
        idle = rates(idle, reading(server, cluster, url))
        began = time.monotonic()
        sessions = create_all(server.port, args.agents, args.interval)
        made_s = time.monotonic() - began
        peers = Peers(server.port, sessions, args.sockets)
        peers.start()
        time.sleep(args.settle)
        first = reading(server, cluster, url, peers)
        time.sleep(args.seconds)
        last = reading(server, cluster, url, peers)
        after = measure.memory_kib(server.process.pid)
        peers.ended = True
        peers.join()
        status = server.stop()
    finally:
        if cluster:
            cluster.remove()
    return {"store": store, "agents": args.agents, "seconds": last["at"] - first["at"], "made_s": made_s,
            "beating": last["beating"], "silent": last["silent"], "errors": peers.errors()[:3],
            "status": status, "memory_before_kib": before, "memory_kib": after, "per_s": rates(first, last), "idle_per_s": idle}


def show(result, args):
    print(f"{args.agents} agents, a heartbeat every {args.interval}, {args.sockets} sockets; load before"
          f" {result['load_before']:.1f}, after {os.getloadavg()[0]:.1f}")
    for one in result["stores"]:
        rate, idle, kib = one["per_s"], one["idle_per_s"], one["memory_kib"]
        print(f"\n{one['store']}: over {one['seconds']:.0f} s, {one['beating']:.0f} agents beating, {one['silent']:.0f}"
              f" silent, made at {one['agents'] / one['made_s']:.0f}/s")
        print(f"  heartbeats {rate['beats']:.1f}/s, answered {rate['answered']:.1f}/s")
        print(f"  chelad: {100 * rate['cpu_s']:.2f} % of one CPU ({rate['cpu_s'] * 1e6 / max(rate['beats'], 1e-9):.0f} us a"
              f" heartbeat), {kib['VmRSS'] / 1024:.1f} MB resident, {kib['RssAnon'] / 1024:.1f} anonymous"
              f" ({one['memory_before_kib']['RssAnon'] / 1024:.1f} with none)")
        print(f"  transactions {rate['transactions']:.2f}/s (with no agents {idle['transactions']:.2f}), commits"
              f" {rate['commits']:.2f}/s ({idle['commits']:.2f}), {rate['disk_bytes'] / 1024:.1f} KiB/s"
              f" ({idle['disk_bytes'] / 1024:.1f}) to the disk by chelad; CPU with no agents"
              f" {100 * idle['cpu_s']:.2f} %")
        if "pg_commits" in rate:
            print(f"  PostgreSQL: {rate['pg_commits']:.2f} transactions/s (with no agents {idle['pg_commits']:.2f}; reads"
                  f" too), rows written {rate['pg_rows_written']:.2f}/s ({idle['pg_rows_written']:.2f}),"
                  f" {rate['pg_wal_bytes'] / 1024:.1f} KiB/s of WAL ({idle['pg_wal_bytes'] / 1024:.1f})")
        for error in one["errors"]:
            print(f"  problem: {error}")


def main():
    default_bin = os.environ.get("CHELA_BIN") or HERE.parent / "build" / "bin"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=default_bin, help="directory of chelad [CHELA_BIN]")
    parser.add_argument("--dir", help="directory for state")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="500 agents, 40 s: does it run?")
    parser.add_argument("--agents", type=int, default=10000)
    parser.add_argument("--interval", default="30s", choices=("30s", "1m", "5m"))
    parser.add_argument("--sockets", type=int, default=50)
    parser.add_argument("--idle", type=float, default=20, help="seconds measured before there are agents")
    parser.add_argument("--settle", type=float, default=35, help="seconds before it is measured")
    parser.add_argument("--seconds", type=float, default=300,
                        help="measured; the times of heartbeats are written every five minutes")
    parser.add_argument("--store", nargs="+", default=["sqlite", "postgres"],
                        choices=("sqlite", "postgres"))
    parser.add_argument("--chelad", nargs="+", default=[], metavar="SETTING=VALUE",
                        type=lambda text: f"--{text}", help="more settings for chelad")
    args = parser.parse_args()
    if args.quick:
        args.agents, args.idle, args.settle, args.seconds, args.sockets = 500, 5, 5, 40, 5
    directory = tempfile.mkdtemp(prefix="chela-bench-", dir=args.dir)
    os.chmod(directory, 0o755)  # PostgreSQL runs as an account of its own
    tempfile.tempdir = directory
    bench = Bench(pathlib.Path(args.bin).resolve(), directory)
    result = {"load_before": os.getloadavg()[0], "machine": measure.machine(), "stores": []}
    try:
        for store in args.store:
            result["stores"].append(run_one(bench, store, args))
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        bench.close()
        shutil.rmtree(directory, ignore_errors=True)
    show(result, args)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
