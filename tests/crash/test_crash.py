"""SIGKILL at every write and at random: nothing accepted is lost, nothing recorded is done again."""

import random
import time

from wait import eventually
from world import baseline, random_jobs, start_all


def test_killed_before_and_after_every_write(world, capsys):
    host = world.host("--park", "40")
    assert host.wait_for("ready")
    host.start("big", "clean", 7)
    world.finish(host)
    host.send("writes")
    writes = int(host.wait_for("writes").split()[1])
    host.stop()
    died = 0
    for moment in range(1, writes + 1):
        host = world.host("--park", "40", "--kill-at", str(moment))
        ready = host.wait_for("ready")
        if ready and host.start("big", f"k{moment}", 7) and host.wait_for("accepted") and host.send("idle"):
            host.wait_for("idle")
        died += host.process.poll() is not None
        host.kill()
        host = world.host("--park", "40")
        assert host.wait_for("ready")
        if f"k{moment}" not in world.wanted:
            host.start("big", f"k{moment}", 7)
        world.finish(host)
        host.kill() if moment % 2 else host.stop()
    world.check()
    with capsys.disabled():
        print(f"\n    every write: {writes} moments, {died} kills, 0 violations")
    assert died > writes // 2


def test_killed_at_random(world, kills, seed, capsys):
    rng = random.Random(seed)
    jobs = random_jobs(rng, 60 + kills * 4)
    baseline(world, {f"{job[0]}-{job[1]}": (job[0], job[1], "-") for job in jobs.values()})
    waiting = list(jobs.items())
    for _ in range(kills):
        host = world.host("--park", rng.choice(["20", "60000"]))
        if not host.wait_for("ready"):
            continue
        some = [waiting.pop() for _ in range(min(len(waiting), rng.randrange(1, 10)))]
        start_all(host, dict(some))
        time.sleep(rng.uniform(0.0, 0.25))
        host.kill()
    host = world.host()
    assert host.wait_for("ready")
    start_all(host, dict(waiting))
    world.finish(host)
    host.stop()
    world.check()
    with capsys.disabled():
        print(f"\n    at random: {kills} kills, {len(world.wanted)} workflows, 0 violations (seed {seed})")


def test_clock_stepped_an_hour_either_way(world):
    """Under sleeps with a stack and parked ones; nobody sleeps an hour, nothing is lost."""
    for park in ("60000", "100"):
        for step in ("3600", "-3600"):
            host = world.host("--park", park)
            assert host.wait_for("ready")
            for i in range(5):
                host.start("sleepy", f"s{park}{step}{i}", 1500 + i * 100)
                host.start("random", f"r{park}{step}{i}", 20 + i)
            eventually(lambda: world.wanted.keys() <= world.accepted, 30)
            time.sleep(0.3)
            host.send(f"clock {step}")
            assert host.wait_for("stepped")
            for i in range(5, 8):
                host.start("sleepy", f"s{park}{step}{i}", 1000)
            world.finish(host)
            host.stop()
    world.check()


def test_random_programs_have_one_result(world, seed, kills):
    """Each program runs once undisturbed and once in a process that dies at a chosen write."""
    rng = random.Random(seed)
    programs = [rng.randrange(1, 10 ** 6) for _ in range(max(10, kills // 4))]
    host = world.host()
    assert host.wait_for("ready")
    for program in programs:
        host.start("random", f"clean-{program}", program)
    world.finish(host)
    host.stop()
    for program in programs:
        for _ in range(3):
            host = world.host("--park", "5", "--kill-at", str(rng.randrange(4, 60)))
            if host.wait_for("ready") and host.start("random", f"torn-{program}", program):
                if host.wait_for("accepted") and host.send("idle"):
                    host.wait_for("idle")
            host.kill()
    host = world.host()
    assert host.wait_for("ready")
    world.finish(host)
    host.stop()
    world.check()
