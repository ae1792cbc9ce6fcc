#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`make bench`: chela beside nginx and beside a FastAPI bridge, in one run on one machine.

See bench/README.md for what is measured and how. The exit status is 0 whatever the figures are;
it is 1 only when chelad or the agent could not be run.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import measure
import report
from servers import Bench, HERE, Unavailable, post

PROGRAMS = ("chelad", "chela", "chela-agent")
BUSY = 1.0  # load average above which other work is felt in the figures


class Target:
    """What a window of load is aimed at: a server, and how it is spoken to."""

    def __init__(self, name, server, mode, path="/api/vps/call"):
        self.name, self.server, self.mode, self.path = name, server, mode, path


def window(bench, target, callers, settings, tag):
    """One measured window; CPU time covers the warm-up too, so it is divided by all calls."""
    before = measure.cpu_seconds(target.server.pids)
    seen = bench.load(target.server.port, path=target.path, mode=target.mode, callers=callers,
                      warmup=settings["warmup_s"], seconds=settings["window_s"], tag=tag)
    spent = measure.cpu_seconds(target.server.pids) - before
    seen.update(target=target.name, cpu_us_per_call=spent * 1e6 / max(seen["calls_all"], 1))
    return seen


def run_rounds(bench, targets, settings, result):
    """Interleaved: every round visits every target at every number of callers, A B C A B C."""
    disks = []
    for number in range(settings["rounds"]):
        disks.append(measure.disk(bench.dir, settings["disk_s"]))
        for callers in settings["callers"]:
            for at in range(len(targets)):
                target = targets[(at + number) % len(targets)]
                seen = window(bench, target, callers, settings,
                              f"{target.name}-{number}-{callers}")
                seen["round"] = number
                result["rounds"].append(seen)
                if seen["errors"]:
                    result["problems"].append(f"{target.name}, {callers} callers: "
                                              f"{seen['errors']} errors, {seen['first_error']}")
                progress(f"round {number + 1}/{settings['rounds']}: {target.name}, "
                         f"{callers} callers: {seen['calls_per_s']:.0f}/s")
    result["disk_rounds"] = disks
    result["disk"] = {key: statistics.median(d[key] for d in disks) for key in disks[0]}


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def start_targets(bench, result):
    """The servers to be measured. A comparator that cannot be run is named and left out."""
    agent = bench.agent()
    chelad = bench.chelad(bench.dir / "state")
    time.sleep(1)
    result["idle_kib"] = measure.memory_kib(chelad.process.pid)
    bridges = [("chela", chelad)]
    targets = [Target("agent", agent, "raw", "/v1/messages"), Target("chela", chelad, "plain"),
               Target("chela_session", chelad, "session")]
    try:
        targets.insert(1, Target("nginx", bench.nginx(agent.port), "raw", "/v1/messages"))
    except Unavailable as error:
        result["problems"].append(f"nginx left out: {error}")
    try:
        fastapi = bench.fastapi()
        bridges.append(("fastapi", fastapi))
        targets.append(Target("fastapi_session", fastapi, "session"))
    except Unavailable as error:
        result["problems"].append(f"FastAPI left out: {error}")
    for name, bridge in bridges:
        told = post(bridge.port, "/api/vps/register",
                    {"name": "echo", "host": "127.0.0.1", "port": agent.port})
        if told.get("status") != "registered":
            raise Unavailable(f"{name} refused the agent: {told}")
    return targets, chelad


def measure_starts(bench, n):
    existing = bench.dir / "existing"
    bench.chelad(existing).stop()
    fresh = iter(range(n))
    return {"existing": measure.starts_ms(lambda: bench.chelad(existing), n),
            "fresh": measure.starts_ms(lambda: bench.chelad(bench.dir / f"fresh{next(fresh)}"), n),
            "used": measure.starts_ms(lambda: bench.chelad(bench.dir / "state"), min(n, 5))}


def build_of(binaries):
    """How the build directory was configured, if the binaries still lie in one."""
    options = binaries.parent / "meson-info" / "intro-buildoptions.json"
    try:
        known = {o["name"]: o["value"] for o in json.loads(options.read_text())}
    except (OSError, ValueError):
        return "of unknown build"
    return f"built as {known.get('buildtype')}, -O{known.get('optimization')}, " \
           f"sanitizers {known.get('b_sanitize', 'none')}, lto {known.get('b_lto')}"


def bench_all(args, directory):
    bench = Bench(args.bin, directory, args.pin)
    result = {"settings": {"callers": [1, 16, 128], "rounds": args.rounds,
                           "window_s": args.seconds, "warmup_s": args.warmup,
                           "disk_s": args.disk_seconds, "starts": args.starts, "pin": args.pin},
              "machine": measure.machine(), "build": build_of(pathlib.Path(args.bin)),
              "rounds": [], "problems": []}
    try:
        targets, chelad = start_targets(bench, result)
        run_rounds(bench, targets, result["settings"], result)
        result["loaded_kib"] = measure.memory_kib(chelad.process.pid)
        if chelad.stop() != 0:
            result["problems"].append(f"chelad ended with status {chelad.process.returncode}")
        result["start_ms"] = measure_starts(bench, args.starts)
        result["stripped_bytes"] = {
            name: measure.stripped_bytes(bench.binaries / name, directory)
            for name in PROGRAMS if (bench.binaries / name).exists()}
    finally:
        bench.close()
        progress("")
    if result["machine"]["load_before"] > BUSY:
        result["problems"].append(f"the machine was busy before the bench began (load "
                                  f"{result['machine']['load_before']:.1f}): repeat when it is quiet")
    result["aims"] = report.aims(result)
    return result


def parse_args():
    default_bin = os.environ.get("CHELA_BIN") or HERE.parent / "build" / "bin"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=default_bin, help="directory of chelad [CHELA_BIN]")
    parser.add_argument("--dir", help="directory for state, on the disk to measure [beside --bin]")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="one short round, under 40 s")
    parser.add_argument("--pin", action="store_true",
                        help="servers on CPU 1; agent and load on CPU 0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measured window")
    args = parser.parse_args()
    args.warmup, args.disk_seconds, args.starts = 0.5, 1.0, 20
    if args.quick:
        args.rounds, args.seconds, args.warmup, args.disk_seconds, args.starts = 1, 1, 0.2, 0.3, 5
    args.bin = pathlib.Path(args.bin).resolve()
    return args


def main():
    args = parse_args()
    where = args.dir or (args.bin.parent if args.bin.exists() else None)
    directory = tempfile.mkdtemp(prefix="chela-bench-", dir=where)
    try:
        result = bench_all(args, directory)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.print_all(result)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
