#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Soak: 864,000 calls or ten minutes, whichever comes first, and what memory does meanwhile.

The mix of every 20 calls: 8 in a session, 6 without, 3 to an agent that answers 503 and so falls
back, 2 streamed, 1 deletion of a session. Anonymous memory is read every 5 s; the reading at minute
two (everything is warm by then) is held against the one at the end, while the load still runs.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

import measure
from servers import Bench, HERE, Unavailable, post

EVERY_S = 5
WARM_S = 120
DRIFT_MAX = 5.0


def watch(pid, begin, stop, readings):
    """Read the process's memory every EVERY_S until stop is set; on time whatever a read costs."""
    n = 0
    while not stop.wait(max(0.0, begin + n * EVERY_S - time.monotonic())):
        readings.append({"s": round(time.monotonic() - begin, 1), **measure.memory_kib(pid)})
        if sys.stderr.isatty():
            print(f"\r\x1b[K{readings[-1]}", end="", file=sys.stderr, flush=True)
        n += 1


def soak(bench, args):
    good, failing = bench.agent(), bench.agent("--status", 503)
    options = ["--bridge.backoff_initial=10ms", f"--bridge.half_open={args.half_open}"]
    chelad = bench.chelad(bench.dir / "state", *options)
    for body in ({"name": "echo", "port": good.port},
                 {"name": "flaky", "port": failing.port, "max_retries": 2,
                  "fallback_agents": ["echo"]}):
        post(chelad.port, "/api/vps/register", {"host": "127.0.0.1", **body})
    begin, stop, readings = time.monotonic(), threading.Event(), []
    watcher = threading.Thread(target=watch, args=(chelad.process.pid, begin, stop, readings))
    watcher.start()
    try:
        seen = bench.load(chelad.port, mode="mix", callers=args.callers, warmup=0,
                          seconds=args.seconds, calls=args.calls, rate=args.rate, tag="soak")
    finally:
        stop.set()
        watcher.join()
    seen["readings"] = readings
    seen["status"] = chelad.stop()
    return seen


def verdict(seen):
    """The reading at minute two, the last one, and their difference in percent."""
    readings = seen["readings"]
    warm = next((r for r in readings if r["s"] >= WARM_S), None)
    end = readings[-1]
    seen["warm"], seen["end"] = warm, end
    seen["drift_percent"] = None
    if warm:
        seen["drift_percent"] = (end["RssAnon"] - warm["RssAnon"]) * 100 / warm["RssAnon"]


def print_all(seen):
    for r in seen["readings"]:
        print(f"  {r['s']:6.0f} s  RssAnon {r['RssAnon']:,} kiB  resident {r['VmRSS']:,} kiB")
    kinds = ", ".join(f"{seen[k]:,} {k[2:]}" for k in seen if k.startswith("n_") and seen[k])
    print(f"{seen['calls_all']:,} calls in {seen['seconds']:.0f} s "
          f"({seen['calls_per_s']:,.0f}/s): {kinds}; {seen['errors']} errors"
          f"{': ' + seen['first_error'] if seen['errors'] else ''}; "
          f"p50 {seen['p50_us']:,.0f} µs, p99 {seen['p99_us']:,.0f} µs")
    print(f"chelad ended with status {seen['status']}")
    if seen["warm"] is None:
        print(f"the calls were done after {seen['seconds']:.0f} s, before minute two: no verdict")
        return
    met = abs(seen["drift_percent"]) < DRIFT_MAX
    print(f"anonymous memory at minute two {seen['warm']['RssAnon']:,} kiB, "
          f"at {seen['end']['s']:.0f} s {seen['end']['RssAnon']:,} kiB: "
          f"{seen['drift_percent']:+.2f} % (aim: under {DRIFT_MAX:.0f} %, "
          f"{'met' if met else 'NOT MET'})")


def parse_args():
    default_bin = os.environ.get("CHELA_BIN") or HERE.parent / "build" / "bin"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=default_bin, help="directory of chelad [CHELA_BIN]")
    parser.add_argument("--dir", help="directory for state [beside --bin]")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--calls", type=int, default=864_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0, help="calls per second [as fast as it goes]")
    parser.add_argument("--half-open", default="1s",
                        help="how soon the failing agent is tried first again [1s]")
    args = parser.parse_args()
    args.bin = pathlib.Path(args.bin).resolve()
    return args


def main():
    args = parse_args()
    where = args.dir or (args.bin.parent if args.bin.exists() else None)
    directory = tempfile.mkdtemp(prefix="chela-soak-", dir=where)
    bench = None
    try:
        bench = Bench(args.bin, directory)
        seen = soak(bench, args)
    except Unavailable as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    finally:
        if bench:
            bench.close()
        shutil.rmtree(directory, ignore_errors=True)
    verdict(seen)
    print_all(seen)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(seen, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
