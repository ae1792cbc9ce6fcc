#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the suites of chela and end with a line `N passed, N failed`.

    tools/run_tests.py [--nightly] [--asan] [--list] [SUITE ...]

Each suite is a row: its budget in minutes on 2 cores (beside its neighbours; one that is over it says so,
and is ended at five times that), how it runs and is counted. Suites with a nightly budget alone are the long forms that `make nightly` adds.

After the compiler the suites run in lanes, side by side: one after the other within a lane. Most of them wait more
than they work, and what only works (other compilers) is nice to them. The budgets of the longest lane and of the
compiler add up to less than 25 minutes.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LANES = ("build", "ends", "peers")  # a suite of none of them runs alone, before them (compile) or after (the nights')
TIMES_MAX = 5  # the budget, on a busy machine
NICE = ["nice", "-n", "10"]
UNSTEADY_MAX = 3  # of a suite; more failures than that are no accident. The crash suites have no second try.
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfEs"]


class Suite:
    def __init__(self, name, budget, run, doc, nightly=None, lane=None):
        self.name, self.budget, self.run, self.doc = name, budget, run, doc
        self.nightly = nightly  # minutes; a suite with this and no budget runs at night alone
        self.lane = lane


def sh(command, env=None, log=None, timeout=None):
    """Run, teeing nothing: output goes to the log file. Returns (status, text)."""
    with open(log, "w") as out:
        try:
            status = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=subprocess.STDOUT, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            out.write(f"\nended after {timeout:.0f} s\n")
            status = 124
    return status, pathlib.Path(log).read_text(errors="replace")


class Run:
    """What the suites share: directories, flavours, the log files."""

    def __init__(self, args):
        self.asan = args.asan
        self.nightly = args.nightly
        self.build = ROOT / ("build-asan" if args.asan else os.environ.get("CHELA_BUILD", "build"))
        self.logs = self.build / "test-logs"
        self.env = {"CHELA_BIN": str(self.build / "bin"), "CHELA_BUILD_DIR": str(self.build)}
        if args.asan:
            self.env["ASAN_OPTIONS"] = "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=0"
            self.env["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"

    def setup(self):
        flags = ["-Dwerror=true"]
        if self.asan:
            flags += ["-Db_sanitize=address,undefined", "-Db_lundef=false"]
        if not (self.build / "build.ninja").exists():
            subprocess.run(["meson", "setup", str(self.build), *flags], cwd=ROOT, check=True,
                           stdout=subprocess.DEVNULL)
        self.logs.mkdir(parents=True, exist_ok=True)

    def command(self, name, command, timeout, env=None):
        return sh(command, {**self.env, **(env or {})}, self.logs / f"{name}.log", timeout)


def count_meson(run, name, timeout, extra, env=None):
    """Unit tests, fuzz corpora: each TAP line of each program is a test. Many wait more than they work."""
    status, text = run.command(name, ["meson", "test", "-C", str(run.build), "--no-rebuild",
                                      "--num-processes", str(2 * (os.cpu_count() or 2)), *extra], timeout, env)
    results, passed, failed = run.build / "meson-logs" / "testlog.json", 0, 0
    for line in results.read_text().splitlines() if results.exists() else []:
        test = json.loads(line)
        ok = len(re.findall(r"^ok ", test.get("stdout", ""), re.M))
        bad = len(re.findall(r"^not ok ", test.get("stdout", ""), re.M))
        if test["result"] not in ("OK", "EXPECTEDFAIL") and not bad:
            bad = 1
        if test["result"] == "OK" and not ok:
            ok = 1
        passed, failed = passed + ok, failed + bad
    if status and not failed:
        failed = 1
    return passed, failed, text


def count_pytest(run, name, timeout, extra, env=None, again=True):
    junit = run.logs / f"{name}.xml"
    status, text = run.command(name, [*PYTEST, f"--junitxml={junit}", *extra], timeout, env)
    last = re.findall(r"(\d+) (passed|failed|error|skipped)", text.splitlines()[-1] if text else "")
    number = {what: int(n) for n, what in last}
    failed = number.get("failed", 0) + number.get("error", 0)
    for line in re.findall(r"^SKIPPED.*$", text, re.M):
        print("    " + line)
    passed, failed = number.get("passed", 0), failed or (1 if status else 0)
    if again and 0 < failed <= UNSTEADY_MAX:
        steady = unsteady(run, name, timeout, text, extra, env)
        passed, failed = passed + steady, failed - steady
    return passed, failed, text


def unsteady(run, name, timeout, text, extra, env):
    """Run the few that failed once more, alone: those that pass now are named, and how many there were returned.

    A test that fails beside its neighbours on a busy machine and passes by itself says more about the machine than
    about chela, but it is a fault of the test all the same: CONTRIBUTING.md says what to do with it."""
    names = re.findall(r"^(?:FAILED|ERROR) (\S+?\.py::.+?)(?:@[\w.-]+)?(?: - .*)?$", text, re.M)
    options = [word for word in extra if word.startswith("--store=")]
    good = 0
    for one in names:
        status, more = run.command(f"{name}-again", [*PYTEST, one, *options], timeout, env)
        if status == 0 and re.search(r"\b1 passed", more):
            print(f"    UNSTEADY {one}: failed beside the others, passed alone")
            good += 1
    return good


def count_status(run, name, timeout, command, env=None):
    status, text = run.command(name, command, timeout, env)
    return (1, 0, text) if status == 0 else (0, 1, text)


def compile_suite(run, timeout):
    return count_status(run, "compile", timeout, ["ninja", "-C", str(run.build)])


def clang_suite(run, timeout):
    """The other compiler, with its warnings as errors."""
    build = ROOT / "build-clang"
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(build), "-Dwerror=true"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "CC": "clang"})
    return count_status(run, "clang", timeout, [*NICE, "ninja", "-C", str(build)])


def unit_asan_suite(run, timeout):
    """The short form of `make asan`: unit tests and fuzz corpora under the sanitizers."""
    if run.asan:
        return 0, 0, ""
    build = ROOT / "build-asan"
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(build), "-Dwerror=true", "-Db_sanitize=address,undefined",
                        "-Db_lundef=false"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    status, text = run.command("unit-asan-build", [*NICE, "ninja", "-C", str(build)], timeout)
    if status:
        return 0, 1, text
    inner = Run(argparse.Namespace(asan=True, nightly=False))
    inner.logs = run.logs
    # On PostgreSQL only the store: `make asan` runs all of them there too.
    some = [word for suite in ("unit", "fuzz", "store") for word in ("--suite", suite)]
    return count_meson(inner, "unit-asan", timeout, ["-t", "4", *some])


def e2e(store, extra=(), times=1):
    def suite(run, timeout):
        passed, failed, text = 0, 0, ""
        if store == "postgres" and not run.nightly:
            print("    SKIPPED BEFORE_THE_STORE in tests/e2e/conftest.py: these end before the store, SQLite has just run them")
        for _ in range(times):
            more = count_pytest(run, f"e2e-{store}", timeout / times,
                                ["tests/e2e", "-n", "3", f"--store={store}", *(["--all"] if run.nightly else []), *extra])
            passed, failed, text = passed + more[0], failed + more[1], more[2] if more[1] or not text else text
        return passed, failed, text
    return suite


def npm_set(name):
    """(folder, None) of a set of tools/npm_cache, or (None, why not)."""
    npm = subprocess.run([ROOT / "tools" / "npm_cache", name], capture_output=True, text=True)
    return (None, npm.stderr.strip()) if npm.returncode else (npm.stdout.strip(), None)


def npm_suite(name, sets, extra, what):
    """A suite that needs packages from npm. Skipped without its registry, but not in CI."""
    def suite(run, timeout):
        env = {}
        for variable, one in sets.items():
            env[variable], why = npm_set(one)
            if why:
                why = f"{what} cannot be installed: {why}"
                if os.environ.get("CHELA_CI"):
                    return 0, 1, why
                print(f"    SKIPPED {name}: {why}")
                return 0, 0, why
        return count_pytest(run, name, timeout, [f"tests/{name}", *extra, "--dist", "loadgroup"], env)
    return suite


def crash(store, kills, extra=()):
    def suite(run, timeout):
        return count_pytest(run, f"crash-{store}", timeout,
                            ["tests/crash", "-s", f"--store={store}", f"--kills={kills}", *extra], again=False)
    return suite


def count_machines(run, timeout):
    return count_pytest(run, "machines", timeout, ["tests/machines", "-n", "2", "--dist", "loadgroup"])


def order_suite(run, timeout):
    return count_meson(run, "order-long", timeout, ["-t", "20", "example order"], {"CHELA_ORDER_KILLS": "500"})


def valgrind_suite(run, timeout):
    """Unit tests under memcheck; those of processes and sockets need calls it does not know."""
    wrap = "valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite"
    names = ["arena", "buf", "err", "str", "json", "shape", "conf", "time", "metric", "settings", "args"]
    return count_meson(run, "valgrind", timeout, [f"--wrap={wrap}", "-t", "20", *names])


SUITES = [
    Suite("compile", 2, compile_suite, "gcc, warnings are errors"),
    Suite("lint", 2, lambda run, t: count_status(run, "lint", t, ["tools/lint"]),
          "format, layers, sizes, waits, refused calls", lane="build"),
    Suite("docs", 0.5, lambda run, t: count_status(run, "docs", t, ["tools/gen_docs.py", "--check"]),
          "the generated reference is fresh", lane="build"),
    Suite("clang", 9, clang_suite, "clang, warnings are errors", lane="build"),
    Suite("unit-asan", 9, unit_asan_suite, "unit tests under AddressSanitizer and UBSan", lane="build"),
    Suite("unit", 4, lambda run, t: count_meson(run, "unit", t, ["-t", "4"]), "unit tests, fuzz corpora, examples", lane="ends"),
    Suite("e2e-sqlite", 5, e2e("sqlite"), "the real programs end to end, on SQLite", lane="ends"),
    Suite("e2e-postgres", 7, e2e("postgres"), "the same on a PostgreSQL that the tests start", lane="ends"),
    Suite("openclaw", 6, npm_suite("openclaw", {"CHELA_NPM": "dbos", "CHELA_OPENCLAW": "openclaw"}, ["-n", "2"],
                                   "OpenClaw's releases"),
          "OpenClaw gateways from npm, two releases, with channels and models that are scripted", lane="peers"),
    Suite("dbos", 5, npm_suite("dbos", {"CHELA_NPM": "dbos"}, ["-n", "6"], "the clients of DBOS"),
          "npm clients of DBOS, five versions, against the engine on PostgreSQL", lane="peers"),
    Suite("machines", 4, count_machines, "chela-agent, sandboxes and virtual machines, for real", lane="peers"),
    Suite("crash-sqlite", 2, crash("sqlite", 40), "SIGKILL at every write and 40 times at random", lane="peers"),
    Suite("crash-postgres", 6, crash("postgres", 40), "the same on PostgreSQL, two engines, a server that is restarted",
          lane="peers"),
    Suite("crash-long", 0, crash("sqlite", 500), "five hundred kills at random, on SQLite", nightly=30),
    Suite("crash-long-pg", 0, crash("postgres", 500), "the same on PostgreSQL", nightly=60),
    Suite("order-long", 0, order_suite, "the example order program, killed five hundred times", nightly=30),
    Suite("valgrind", 0, valgrind_suite, "unit tests of the values under memcheck", nightly=20),
    Suite("crash", 0, e2e("sqlite", ("-k", "crash or restart or store_faults"), times=10),
          "kill -9 and lost databases, ten times", nightly=60),
    Suite("fuzz", 0, lambda run, t: count_status(run, "fuzz", t, ["tools/fuzz", "600"]),
          "libFuzzer, ten minutes a target", nightly=180),
    Suite("cloud-image", 0, lambda run, t: count_pytest(run, "cloud-image", t, ["tests/machines/test_cloud_image.py"],
                                                         {"CHELA_NIGHTLY": "1"}),
          "a distribution's image with cloud-init boots to its agent", nightly=15),
    Suite("soak", 0, lambda run, t: count_status(run, "soak", t, ["tools/bench", "--soak"]),
          "ten minutes of mixed calls, memory stays", nightly=20),
]


def run_suite(run, suite):
    budget = (suite.nightly or suite.budget) * (4 if run.asan else 1)
    print(f"== {suite.name}: {suite.doc} (budget {budget:g} min)", flush=True)
    start = time.monotonic()
    passed, failed, text = suite.run(run, TIMES_MAX * budget * 60)
    took = time.monotonic() - start
    over = f", over its budget of {budget:g} min" if took > budget * 60 else ""
    lines = [f"    {line}" for line in text.splitlines()[-60:]] if failed else []
    print("\n".join([*lines, f"   {suite.name}: {passed} passed, {failed} failed, {took:.0f} s{over}"]), flush=True)
    return passed, failed


def run_in_order(run, suites):
    counts = [run_suite(run, suite) for suite in suites]
    return sum(passed for passed, _ in counts), sum(failed for _, failed in counts)


def run_lanes(run, suites):
    """Passed and failed of the lanes' suites."""
    lanes = [[suite for suite in suites if suite.lane == lane] for lane in LANES]
    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        counts = list(pool.map(lambda lane: run_in_order(run, lane), lanes))
    return sum(passed for passed, _ in counts), sum(failed for _, failed in counts)


def chosen(args, suite):
    if args.suites and suite.name not in args.suites:
        return False
    if not suite.budget and not (args.nightly or args.suites):
        return False
    return not (args.asan and suite.name in ("clang", "lint", "docs", "unit-asan"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nightly", action="store_true")
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("suites", nargs="*")
    args = parser.parse_args()
    known = {s.name for s in SUITES}
    if args.list:
        for suite in SUITES:
            when = f"{suite.budget:4g} min" if suite.budget else f"{suite.nightly:4g} min, at night"
            print(f"{suite.name:14} {when:16} {suite.doc}")
        return 0
    if set(args.suites) - known:
        print(f"no such suite: {', '.join(sorted(set(args.suites) - known))}; known: {', '.join(sorted(known))}")
        return 2
    run = Run(args)
    run.setup()
    suites = [suite for suite in SUITES if chosen(args, suite)]
    passed, failed = run_in_order(run, [suite for suite in suites if suite.name == "compile"])
    if not failed:
        for more in (run_lanes(run, suites),
                     run_in_order(run, [s for s in suites if not s.lane and s.name != "compile"])):
            passed, failed = passed + more[0], failed + more[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
