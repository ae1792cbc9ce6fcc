#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`make bench ARGS=--messages`: sure messages beside Redis Streams and NATS JetStream.

See bench/README.md for what is measured and how. The exit status is 0 whatever the figures are; it
is 1 when chelad could not be run, or when a message that a server had accepted did not arrive.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import sys
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import measure  # noqa: E402
import postgres  # noqa: E402
from servers import Bench, Server, Unavailable, free_port, wait_for_port  # noqa: E402

SHAPES = ((1, 1), (64, 1), (64, 16), (512, 1), (512, 16))  # senders, mailboxes
NAMES = {
    "sqlite": "chela, SQLite",
    "postgres": "chela, PostgreSQL",
    "redis": "Redis Streams",
    "nats": "NATS JetStream*",
}
QUIET = 0.05  # of the machine's CPU time, used by others during a window


class Site:
    """Starts one of the servers, with nothing in it, for one window."""

    def __init__(self, bench, chelad_options):
        self.bench, self.options, self.cluster, self.made = bench, chelad_options, None, 0

    def home(self):
        self.made += 1
        path = self.bench.dir / f"site{self.made}"
        path.mkdir()
        return path

    def start(self, kind):
        return getattr(self, kind)(self.home())

    def sqlite(self, home):
        return self.chelad(home, [])

    def postgres(self, home):
        if not self.cluster:
            self.cluster = postgres.Cluster().start()
        server = self.chelad(home, [f"--store.url={self.cluster.new_database()}"])
        server.cluster = self.cluster
        return server

    def chelad(self, home, options):
        server = self.bench.chelad(home / "state", "--gateway.max_sessions=2000", *options,
                                   *self.options)
        server.dialect = "chela"
        return server

    def redis(self, home):
        port = free_port()
        return self.peer("redis", port, "redis-server", "--port", port, "--bind", "127.0.0.1",
                         "--dir", home, "--save", "", "--appendonly", "yes",
                         "--appendfsync", "always", "--daemonize", "no")

    def nats(self, home):
        port = free_port()
        return self.peer("nats", port, "nats-server", "-a", "127.0.0.1", "-p", port, "-js",
                         "-sd", home)

    def peer(self, dialect, port, program, *options):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/bin")
        if not path:
            raise Unavailable(f"{program} is not installed")
        process = self.bench.spawn([path, *options], log=f"{dialect}.log")
        server = wait_for_port(self.bench.keep(Server(dialect, process, port)))
        server.dialect = dialect
        return server

    def close(self):
        if self.cluster:
            self.cluster.remove()


def pids_of(server):
    """All that works for a server: with PostgreSQL its processes too, whichever live now."""
    if not getattr(server, "cluster", None):
        return server.pids
    return server.pids + Server("postgres", server.cluster.process, 0).pids


def cpu_seconds(server):
    """Of those that live: PostgreSQL's processes come and go."""
    total = 0
    for pid in pids_of(server):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += measure.cpu_seconds([pid])
    return total


def commits_of(server):
    """Transactions put on the disk as chelad counts them; None for the others."""
    if server.dialect != "chela":
        return None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{server.port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return sum(float(n) for n in re.findall(r"^chela_store_commits_total(?:\{.*\})? (\S+)$", text, re.M))


def machine_ticks():
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, waiting, irq, softirq, steal = map(int, fields)
    return user + nice + system + irq + softirq, idle + waiting, steal


def window(bench, site, kind, shape, args):
    server = site.start(kind)
    before, commits, ticks = cpu_seconds(server), commits_of(server), machine_ticks()
    seen = bench.run_load("messages", server=server.dialect, port=server.port, senders=shape[0],
                          mailboxes=shape[1], warmup=args.warmup, seconds=args.seconds,
                          payload=args.payload)
    busy, idle, steal = (b - a for a, b in zip(ticks, machine_ticks()))
    spent = cpu_seconds(server) - before  # connections may have been added
    others = busy / measure.TICKS - spent - seen["own_cpu_s"]
    seen.update(who=kind, cpu_us=spent * 1e6 / max(seen["sent"], 1),
                own_us=seen["own_cpu_s"] * 1e6 / max(seen["sent"], 1),
                others=max(0, others) * measure.TICKS / max(busy + idle + steal, 1),
                steal=steal / max(busy + idle + steal, 1))
    if commits is not None:
        seen["messages_per_commit"] = seen["sent"] / max(commits_of(server) - commits, 1)
    status = server.stop()
    shutil.rmtree(bench.dir / f"site{site.made}", ignore_errors=True)
    if seen["errors"] or seen["missing"] or seen["unacked"]:
        seen["problem"] = (f"{NAMES[kind]}, {shape[0]} senders, {shape[1]} mailboxes: {seen['errors']} errors"
                           f" ({seen['first_error']}), {seen['missing']} messages and {seen['unacked']}"
                           f" acknowledgements missing")
    elif server.dialect == "chela" and status != 0:
        seen["problem"] = f"chelad ended with status {status}"
    return seen


def measure_all(args, directory):
    bench = Bench(args.bin, directory, args.pin)
    site = Site(bench, args.chelad)
    result = {"machine": measure.machine(), "disk_rounds": [], "windows": [], "problems": []}
    kinds = [k for k in NAMES if not args.only or k in args.only]
    shapes = [s for s in SHAPES if not args.senders or s[0] in args.senders]
    try:
        for number in range(args.rounds):
            result["disk_rounds"].append(measure.disk(bench.dir, args.disk_seconds))
            for shape in shapes:
                for at in range(len(kinds)):
                    kind = kinds[(at + number) % len(kinds)]
                    try:
                        seen = window(bench, site, kind, shape, args)
                    except Unavailable as error:
                        if kind in ("sqlite", "postgres"):
                            raise
                        seen = {"who": kind, "problem": f"{NAMES[kind]} left out: {error}"}
                    if "problem" in seen:
                        result["problems"].append(seen["problem"])
                    if "sent" in seen:
                        result["windows"].append({**seen, "round": number})
                        print(f"... round {number + 1}: {NAMES[kind]}, {shape}: "
                              f"{seen['messages_per_s']:.0f}/s", file=sys.stderr, flush=True)
    finally:
        bench.close()
        site.close()
    result["load_after"] = os.getloadavg()[0]
    return result


def middle(windows, who, shape, key):
    found = [w[key] for w in windows if w["who"] == who and (w["senders"], w["mailboxes"]) == shape and key in w]
    return statistics.median(found) if found else None


def show(result):
    windows, machine = result["windows"], result["machine"]
    disk = {k: statistics.median(d[k] for d in result["disk_rounds"]) for k in result["disk_rounds"][0]}
    print(f"{machine['cpus']} CPUs ({machine['cpu']}), load before {machine['load_before']:.1f}, after"
          f" {result['load_after']:.1f}; fdatasync of an appended page {disk['fdatasync_us']:.0f} us,"
          f" a commit of SQLite {disk['sqlite_commit_us']:.0f} us")
    print(f"\n{'':18} {'senders':>7} {'boxes':>5} {'messages/s':>10} {'/ Redis':>7} {'accepted p50':>13} {'p99 ms':>7}"
          f" {'delivered p50':>14} {'p99 ms':>7} {'CPU us':>7} {'load us':>7} {'msg/commit':>10} {'others':>6}")
    for shape in SHAPES:
        base = middle(windows, "redis", shape, "messages_per_s")
        for who, name in NAMES.items():
            rate = middle(windows, who, shape, "messages_per_s")
            if rate is None:
                continue
            row = {k: middle(windows, who, shape, k) for k in ("accept_p50_us", "accept_p99_us", "deliver_p50_us",
                   "deliver_p99_us", "cpu_us", "own_us", "messages_per_commit", "others", "steal")}
            per_commit = f"{row['messages_per_commit']:.1f}" if row["messages_per_commit"] else "-"
            print(f"{name:18} {shape[0]:7} {shape[1]:5} {rate:10,.0f} {rate / base if base else float('nan'):7.2f}"
                  f" {row['accept_p50_us'] / 1000:13.2f} {row['accept_p99_us'] / 1000:7.2f}"
                  f" {row['deliver_p50_us'] / 1000:14.2f} {row['deliver_p99_us'] / 1000:7.2f}"
                  f" {row['cpu_us']:7.1f} {row['own_us']:7.1f} {per_commit:>10}"
                  f" {100 * (row['others'] + row['steal']):5.0f}%")
    print("\n* NATS 2.9 answers before its file is synced, and cannot be told otherwise: not of equal durability;"
          "\n  its acknowledgements are not answered either. chela, PostgreSQL (fsync on) and Redis (appendfsync"
          "\n  always) have a message on the disk before they accept it.")
    if any(w["others"] + w["steal"] > QUIET for w in windows):
        print("\nThe machine was BUSY WITH OTHER WORK during this run (last column): repeat when it is quiet.")
    for problem in sorted(set(result["problems"])):
        print(f"problem: {problem}")


def main():
    default_bin = os.environ.get("CHELA_BIN") or HERE.parent / "build" / "bin"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=default_bin, help="directory of chelad [CHELA_BIN]")
    parser.add_argument("--dir", help="directory for state, on the disk to measure")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--pin", action="store_true", help="servers on CPU 1, the load on CPU 0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measured window")
    parser.add_argument("--payload", type=int, default=200, help="bytes of a message")
    parser.add_argument("--only", nargs="+", choices=NAMES, help="these servers only")
    parser.add_argument("--senders", type=int, nargs="+", help="these numbers of senders only")
    parser.add_argument("--chelad", nargs="+", default=[], metavar="SETTING=VALUE",
                        type=lambda text: f"--{text}", help="more settings for chelad")
    args = parser.parse_args()
    args.warmup, args.disk_seconds = 1, 1.0
    if args.quick:
        args.rounds, args.seconds, args.warmup, args.disk_seconds = 1, 1, 0.3, 0.3
    args.bin = pathlib.Path(args.bin).resolve()
    directory = tempfile.mkdtemp(prefix="chela-bench-", dir=args.dir)
    os.chmod(directory, 0o755)  # PostgreSQL runs as an account of its own
    tempfile.tempdir = directory
    try:
        result = measure_all(args, directory)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    show(result)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any("missing" in p for p in result["problems"]) else 0


if __name__ == "__main__":
    sys.exit(main())
