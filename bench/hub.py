#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`make bench ARGS=--hub`: the hub beside a Node hub of equal shape and NATS, idle agents, machines.

See bench/README.md for what is measured and how. The exit status is 0 whatever the figures are; it
is 1 when chelad could not be run, or when a task that it had accepted got no result.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import measure  # noqa: E402
import postgres  # noqa: E402
from servers import Bench, Server, Unavailable, free_port, wait_for_port  # noqa: E402

NAMES = {
    "sqlite": "chela, SQLite",
    "postgres": "chela, PostgreSQL",
    "node": "Node hub, in RAM",
    "nats": "NATS, in RAM",
}
COUNTS = {"tasks": (1, 16, 128), "routes": (2, 16, 128)}
IDLE = 10000


def call(port, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"},
                                     method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        return json.load(answer)


class Site:
    """Starts one of the hubs, with nothing in it, for one window."""

    def __init__(self, bench):
        self.bench, self.cluster, self.made = bench, None, 0

    def start(self, kind):
        self.made += 1
        home = self.bench.dir / f"site{self.made}"
        home.mkdir()
        return getattr(self, kind)(home)

    def sqlite(self, home, *options):
        server = self.bench.chelad(home / "state", "--limits.connections=30000",
                                   "--limits.connections_per_ip=30000", "--hub.rate=0", *options)
        return self.chelad_ports(server)

    def postgres(self, home):
        if not self.cluster:
            self.cluster = postgres.Cluster().start()
        server = self.sqlite(home, f"--store.url={self.cluster.new_database()}")
        server.cluster = self.cluster
        return server

    def chelad_ports(self, server):
        listeners = self.bench.told["listeners"]
        server.http = int(listeners["hub"].rpartition(":")[2])
        server.port = int(listeners["agents"].rpartition(":")[2])
        server.load = "hub"
        return server

    def node(self, home):
        packages = subprocess.run([HERE.parent / "tools" / "npm_cache", "machines"], capture_output=True, text=True)
        if packages.returncode:
            raise Unavailable(packages.stderr.strip())
        http, port = free_port(), free_port()
        process = self.bench.spawn(["node", HERE / "peers" / "hub.mjs", packages.stdout.strip(), http, port],
                                   log="node.log", env={**os.environ, "NODE_ENV": "production"})
        server = wait_for_port(self.bench.keep(Server("node hub", process, port)))
        server.http, server.load = http, "hub"
        return wait_for_port(server)

    def nats(self, home):
        port = free_port()
        path = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
        if not path:
            raise Unavailable("nats-server is not installed")
        server = wait_for_port(self.bench.keep(
            Server("nats", self.bench.spawn([path, "-a", "127.0.0.1", "-p", port], log="nats.log"), port)))
        server.http, server.load = 0, "nats"
        return server

    def tokens(self, server, n):
        """Register agents bench-0 to bench-n; the file of their tokens."""
        path = self.bench.dir / f"site{self.made}" / "tokens"
        if server.load == "hub":
            path.write_text("".join(call(server.http, "POST", "/agents/register", {"agentId": f"bench-{i}"})["token"]
                                    + "\n" for i in range(n)))
        return path

    def close(self):
        if self.cluster:
            self.cluster.remove()


def window(bench, site, kind, mode, n, args):
    server = site.start(kind)
    options = {"mode": mode, "server": server.load, "http-port": server.http, "port": server.port, "agents": n,
               "callers": n if mode == "tasks" else 0, "warmup": args.warmup, "seconds": args.seconds}
    if server.load == "hub":
        options["tokens"] = site.tokens(server, n)
    before = measure.cpu_seconds(server.pids)
    seen = bench.run_load("hub", **options)
    spent = measure.cpu_seconds(server.pids) - before
    seen.update(who=kind, n=n, cpu_us=spent * 1e6 / max(seen["sent"], 1), own_us=seen["own_cpu_s"] * 1e6 / max(seen["sent"], 1))
    status = server.stop()
    shutil.rmtree(bench.dir / f"site{site.made}", ignore_errors=True)
    if seen["errors"] or seen["missing"]:
        seen["problem"] = (f"{NAMES[kind]}, {n} {mode}: {seen['errors']} errors ({seen['first_error']}),"
                           f" {seen['missing']} missing")
    elif kind in ("sqlite", "postgres") and status != 0:
        seen["problem"] = f"chelad ended with status {status}"
    return seen


def rates(bench, site, args, result):
    for number in range(args.rounds):
        for mode in COUNTS:
            for n in COUNTS[mode]:
                kinds = [k for k in NAMES if (not args.only or k in args.only) and not (mode == "routes" and k == "postgres")]
                for at in range(len(kinds)):
                    kind = kinds[(at + number) % len(kinds)]
                    try:
                        seen = window(bench, site, kind, mode, n, args)
                    except Unavailable as error:
                        if kind in ("sqlite", "postgres"):
                            raise
                        seen = {"problem": f"{NAMES[kind]} left out: {error}"}
                    if "problem" in seen:
                        result["problems"].append(seen["problem"])
                    if "sent" in seen:
                        result["windows"].append({**seen, "round": number})
                        print(f"... round {number + 1}: {NAMES[kind]}, {mode} {n}: {seen['per_s']:.0f}/s",
                              file=sys.stderr, flush=True)


def idle(bench, site, args):
    """10,000 connected agents: memory, CPU share, and how long until 1,000 killed ones are seen to be away."""
    server = site.start("sqlite")
    empty = measure.memory_kib(server.process.pid)["VmRSS"]
    tokens = site.tokens(server, IDLE)
    registered = measure.memory_kib(server.process.pid)["VmRSS"]
    argv = [bench.tool("hub"), "--mode", "idle", "--server", "hub", "--port", server.port, "--agents", IDLE,
            "--tokens", tokens]
    load = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(load.stdout.readline())["connected"] == IDLE
        while call(server.http, "GET", "/health")["agents"]["online"] < IDLE:
            time.sleep(0.05)
        time.sleep(2)
        connected = measure.memory_kib(server.process.pid)["VmRSS"]
        before = measure.cpu_seconds(server.pids)
        time.sleep(args.idle_seconds)
        cpu = (measure.cpu_seconds(server.pids) - before) / args.idle_seconds
        begin = time.monotonic()
        load.stdin.write("kill\n")
        load.stdin.flush()
        killed = json.loads(load.stdout.readline())["killed"]
        while call(server.http, "GET", "/health")["agents"]["online"] > IDLE - killed:
            time.sleep(0.005)
        noticed = time.monotonic() - begin
    finally:
        load.stdin.close()
        load.wait(30)
    return {"empty_kib": empty, "registered_kib": registered, "connected_kib": connected, "cpu": cpu,
            "killed": killed, "noticed_ms": noticed * 1000, "status": server.stop()}


def machine_ready_ms(server, name, driver):
    """Milliseconds from the wish for a machine to its connected agent, as an operator sees them."""
    begin = time.perf_counter()
    call(server.http, "POST", "/machines", {"name": name, "driver": driver})
    seen = call(server.http, "GET", f"/machines/{name}?wait=60000")["machine"]
    while seen["state"] not in ("running", "failed"):
        seen = call(server.http, "GET", f"/machines/{name}?wait=60000")["machine"]
    took = (time.perf_counter() - begin) * 1000
    if seen["state"] != "running":
        raise Unavailable(f"{driver}: {seen.get('reason')}")
    return took, seen


def gone(server, name):
    call(server.http, "DELETE", f"/machines/{name}")
    for _ in range(600):
        try:
            call(server.http, "GET", f"/machines/{name}?wait=5000")
        except urllib.error.HTTPError:
            return
        time.sleep(0.05)


def agent_memory(server, name):
    """Resident KiB of the agent in a sandbox, found by its program among the processes."""
    for entry in pathlib.Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            if os.path.basename(argv[0]).startswith(b"chela-agent"):
                found = measure.memory_kib(int(entry.name))
                return found["VmRSS"], found["RssAnon"]
        except (OSError, KeyError, ValueError):
            continue
    return None


def machines(bench, site, args, result):
    site.made += 1
    home = bench.dir / f"site{site.made}"
    home.mkdir()
    images = home / "images"
    images.mkdir()
    made = subprocess.run([HERE.parent / "tools" / "guest_image", images], capture_output=True, text=True)
    if made.returncode:
        result["problems"].append(f"no minimal image: {made.stderr.strip()}")
    server = site.sqlite(home, f"--machine.images={images}")
    for driver, times in (("sandbox", args.sandboxes), ("qemu", args.guests)):
        took = []
        try:
            for i in range(times):
                ms, _ = machine_ready_ms(server, f"{driver}-{i}", driver)
                took.append(ms)
                if driver == "sandbox" and i == 0:
                    result["agent_kib"] = agent_memory(server, f"{driver}-{i}")
                gone(server, f"{driver}-{i}")
        except (Unavailable, urllib.error.HTTPError) as error:
            result["problems"].append(f"machines: {error}")
        result.setdefault("machines", {})[driver] = took
    server.stop()


def middle(windows, who, mode, n, key):
    found = [w[key] for w in windows if (w["who"], w["mode"], w["n"]) == (who, mode, n)]
    return statistics.median(found) if found else None


def show(result):
    machine = result["machine"]
    print(f"{machine['cpus']} CPUs ({machine['cpu']}), load before {machine['load_before']:.1f}, after"
          f" {result['load_after']:.1f}; fdatasync of an appended page {result['disk']['fdatasync_us']:.0f} us")
    for mode, what in (("tasks", "tasks/s, HTTP in, agent, result back"), ("routes", "messages/s, agent to agent")):
        print(f"\n{what}\n{'':20} {'agents':>7} {'/s':>10} {'/ Node':>7} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7} {'load us':>7}")
        for n in COUNTS[mode]:
            base = middle(result["windows"], "node", mode, n, "per_s")
            for who, name in NAMES.items():
                rate = middle(result["windows"], who, mode, n, "per_s")
                if rate is None:
                    continue
                row = {k: middle(result["windows"], who, mode, n, k) for k in ("p50_us", "p99_us", "cpu_us", "own_us")}
                print(f"{name:20} {n:7} {rate:10,.0f} {rate / base if base else float('nan'):7.2f}"
                      f" {row['p50_us'] / 1000:8.2f} {row['p99_us'] / 1000:8.2f} {row['cpu_us']:7.1f} {row['own_us']:7.1f}")
    if "idle" in result:
        it = result["idle"]
        print(f"\n{IDLE} idle agents: {(it['connected_kib'] - it['registered_kib']) / IDLE:.1f} KiB each for the connection,"
              f" {(it['connected_kib'] - it['empty_kib']) / IDLE:.1f} with its registration;"
              f" {100 * it['cpu']:.2f} % of one CPU; {it['killed']} killed ones noticed in {it['noticed_ms']:.0f} ms")
    for driver, took in result.get("machines", {}).items():
        if took:
            took = sorted(took)
            print(f"{driver}: create to connected agent p50 {statistics.median(took):.0f} ms, p99"
                  f" {took[min(len(took) - 1, int(len(took) * 0.99))]:.0f} ms ({len(took)} times)")
    if result.get("agent_kib"):
        print(f"chela-agent in a sandbox: {result['agent_kib'][0]} KiB resident, {result['agent_kib'][1]} KiB of it its own;"
              f" program {result['agent_bytes'] / 1e6:.2f} MB stripped")
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
    parser.add_argument("--idle-seconds", type=float, default=30)
    parser.add_argument("--sandboxes", type=int, default=50)
    parser.add_argument("--guests", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, help="these hubs only")
    parser.add_argument("--part", nargs="+", choices=("rates", "idle", "machines"), default=("rates", "idle", "machines"))
    args = parser.parse_args()
    args.warmup = 1
    if args.quick:
        args.rounds, args.seconds, args.warmup, args.idle_seconds, args.sandboxes, args.guests = 1, 1, 0.3, 3, 5, 1
    args.bin = pathlib.Path(args.bin).resolve()
    directory = tempfile.mkdtemp(prefix="chela-bench-", dir=args.dir)
    os.chmod(directory, 0o755)  # PostgreSQL runs as an account of its own
    tempfile.tempdir = directory
    bench = Bench(args.bin, directory, args.pin)
    site = Site(bench)
    result = {"machine": measure.machine(), "disk": measure.disk(directory, 0.5), "windows": [], "problems": [],
              "agent_bytes": measure.stripped_bytes(args.bin / "chela-agent-static", directory)}
    try:
        if "rates" in args.part:
            rates(bench, site, args, result)
        if "idle" in args.part:
            result["idle"] = idle(bench, site, args)
        if "machines" in args.part:
            machines(bench, site, args, result)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        bench.close()
        site.close()
        shutil.rmtree(directory, ignore_errors=True)
    result["load_after"] = os.getloadavg()[0]
    show(result)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any("missing" in p for p in result["problems"]) else 0


if __name__ == "__main__":
    sys.exit(main())
