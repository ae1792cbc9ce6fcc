#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles order.c as a stranger would, against the installed library and by pkg-config, and kills it
with SIGKILL at random moments until every order is through. What the ledger and the shelf then say must
be what they say without a crash.

The example that the manual shows is compiled and run too.

    order_test.py BUILD-DIRECTORY SOURCE-FILE MANUAL KILLS COMPILER [FLAG...]
"""
import collections
import os
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
import time

ORDERS = 12  # in one round
SHELF = 100000
DEADLINE = 120  # seconds for one run that nobody kills


def install(build, source, manual, compiler, dest):
    with open(dest / "install.log", "wb") as log:
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", str(dest)],
                       stdout=log, stderr=log, check=True)
    pc = next(dest.rglob("chela.pc"))
    env = dict(os.environ, PKG_CONFIG_PATH=str(pc.parent), PKG_CONFIG_SYSROOT_DIR=str(dest))
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "chela"], env=env, check=True,
                           capture_output=True, text=True).stdout
    command = [*compiler, "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    (dest / "manual.c").write_text(manual.read_text().split("```c\n")[1].split("```\n")[0])
    for c_file, program in ((source, "order"), (dest / "manual.c", "manual")):
        subprocess.run([*command, str(c_file), *shlex.split(flags), "-o", str(dest / program)], check=True)
    library = next(dest.rglob("libchela.so.0")).parent
    return dict(os.environ, LD_LIBRARY_PATH=str(library))


def try_manual(dest, env):
    """The order is charged for in its first process, and shipped for good in both."""
    for arguments, want in ((["o-1", '"parcel 7"'], 'charged\n"shipped"\n'), (["o-1"], '"shipped"\n')):
        ran = subprocess.run([str(dest / "manual"), *arguments], cwd=dest, env=env, timeout=DEADLINE,
                             capture_output=True, text=True)
        assert ran.returncode == 0, f"the manual's example ended with {ran.returncode}: {ran.stderr}"
        assert ran.stdout == want, f"the manual's example printed {ran.stdout!r}, want {want!r}"


def lines_wanted(ids, item):
    last = "refund" if item == "piano" else "ship"
    return [f"{i} {what}" for i in ids for what in ("charge", last)]


class Shop:
    def __init__(self, program, env, directory):
        self.program, self.env, self.dir = program, env, directory
        self.kills = self.kills_midway = 0

    def ledger(self):
        path = self.dir / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, item, ids):
        return subprocess.Popen([str(self.program), str(self.dir), item, *ids], env=self.env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, process, item, ids, left):
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, f"exit {process.returncode}: {err}"
        outcome = ('ERROR {"name":"TooHeavy","message":"nobody carries that"}' if item == "piano"
                   else 'SUCCESS "shipped"')
        want = [f"{i} {outcome}" for i in ids] + [f"{item}: {left} left"]
        assert out.splitlines() == want, f"printed {out!r}, want {want!r}"

    def crash(self, item, ids, seconds, most):
        """Kill it at random moments, at most so many times, until it ends by itself. Its last process, or None."""
        for _ in range(most):
            process = self.start(item, ids)
            try:
                process.wait(timeout=random.uniform(0, seconds))
                return process
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            self.kills += 1
            done = sum(line.split()[0] in set(ids) for line in self.ledger())
            self.kills_midway += 0 < done < 2 * len(ids)
        return None


def main():
    build, source, manual, kills, *compiler = sys.argv[1:]
    kills = int(os.environ.get("CHELA_ORDER_KILLS", kills))
    seed = int(os.environ.get("CHELA_SEED", random.SystemRandom().randrange(1 << 32)))
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        dest = pathlib.Path(scratch)
        env = install(build, source, pathlib.Path(manual), compiler, dest)
        program = dest / "order"
        try_manual(dest, env)

        calm = Shop(program, env, dest / "calm")
        ids = [f"calm-{n}" for n in range(ORDERS)]
        began = time.monotonic()
        calm.finish(calm.start("lamp", ids), "lamp", ids, SHELF - ORDERS)
        seconds = time.monotonic() - began
        assert collections.Counter(calm.ledger()) == collections.Counter(lines_wanted(ids, "lamp"))

        shop, sold, wanted, n_round = Shop(program, env, dest / "shop"), 0, collections.Counter(), 0
        while shop.kills < kills or not shop.kills_midway:
            n_round += 1
            assert n_round <= 20 * kills, "it is never caught midway"
            for item in ("lamp", "piano"):
                ids = [f"{item}-{n_round}-{n}" for n in range(ORDERS)]
                if item == "lamp":
                    sold += ORDERS
                left = SHELF - sold if item == "lamp" else SHELF
                assert left >= 0, "the shelf is too small for this many rounds"
                process = shop.crash(item, ids, seconds, 20) or shop.start(item, ids)
                shop.finish(process, item, ids, left)
                wanted.update(lines_wanted(ids, item))
        have = collections.Counter(shop.ledger())
        assert have == wanted, f"too few: {wanted - have}, too many: {have - wanted}"
        print(f"{n_round} rounds, {2 * n_round * ORDERS} orders, {shop.kills} kills, {shop.kills_midway} of them"
              f" with some effects done and some not; every order ended as without them")


if __name__ == "__main__":
    main()
