"""Two engines on one PostgreSQL under random kills, and a PostgreSQL that is restarted under load."""

import random
import time

from world import random_jobs, start_all


def test_two_engines_killed_at_random(world, kills, seed, capsys):
    """One stays dead for longer than its lease now and then, so that the other must take over."""
    rng = random.Random(seed)
    jobs = random_jobs(rng, 60 + kills * 4)
    waiting = list(jobs.items())
    hosts = {}
    for name in ("a", "b"):  # one after the other: both make the test's own table
        hosts[name] = world.host("--park", "50", instance=name)
        assert hosts[name].wait_for("ready")
    killed = 0
    while killed < kills:
        for host in hosts.values():
            some = [waiting.pop() for _ in range(min(len(waiting), rng.randrange(0, 5)))]
            start_all(host, dict(some))
        time.sleep(rng.uniform(0.0, 0.2))
        name = rng.choice("ab")
        hosts[name].kill()
        killed += 1
        if killed % 10 == 0:
            time.sleep(4)
        hosts[name] = world.host("--park", "50", instance=name)
        if rng.random() < 0.7:
            assert hosts[name].wait_for("ready")
    hosts["b"].kill()  # and never comes back
    assert hosts["a"].process.poll() is None
    start_all(hosts["a"], dict(waiting))
    world.finish(hosts["a"])
    hosts["a"].stop()
    world.check()
    with capsys.disabled():
        print(f"\n    two engines: {killed + 1} kills, {len(world.wanted)} workflows, 0 violations (seed {seed})")


def test_database_restarted_under_load(world, seed):
    rng = random.Random(seed)
    modes = ("immediate", "fast", "immediate", "immediate", "fast", "immediate")
    jobs = random_jobs(rng, 40 * len(modes))
    host = world.host("--park", "50")
    assert host.wait_for("ready")
    waiting = list(jobs.items())
    for mode in modes:
        start_all(host, dict(waiting.pop() for _ in range(30)))
        time.sleep(rng.uniform(0.05, 0.4))
        world.cluster.stop(mode)
        time.sleep(rng.uniform(0.0, 1.5))
        world.cluster.start()
    start_all(host, dict(waiting))
    world.finish(host)
    host.stop()
    world.check()
