"""SIGKILL of the daemon under a thousand messages in flight: what was answered arrives, once and in order."""

import asyncio
import os
import random
import shutil
import tempfile
import time

import pytest
from traffic import PATIENCE, Traffic, nothing_left
from wait import eventually
from world import BUILD

os.environ.setdefault("CHELA_BIN", str(BUILD / "bin"))

import chelad  # noqa: E402
import postgres  # noqa: E402
from workflows import sql  # noqa: E402

IN_FLIGHT = 1000


class Fleet:
    """Daemons with fixed ports, so that clients find them again."""

    def __init__(self, url):
        self.url, self.daemons = url, []
        self.path = tempfile.mkdtemp(prefix="chela-mail-")

    def new(self, name):
        port = postgres.free_port()
        env = {"DATABASE_URL": self.url} if self.url else {}
        one = chelad.Daemon(f"{self.path}/{name}", (f"--gateway.port={port}", "--store.wait=2s"), env)
        self.daemons.append(one.start())
        one.link = f"ws://127.0.0.1:{port}/"
        return one

    def stop(self):
        try:
            for one in self.daemons:
                one.stop()
        finally:
            for one in self.daemons:
                one.kill()
            shutil.rmtree(self.path, ignore_errors=True)


@pytest.fixture
def fleet(cluster):
    one = Fleet(cluster.new_database() if cluster else None)
    yield one
    one.stop()


@pytest.fixture
def message_kills(kills):
    """Ten in the short form (--kills 40)."""
    return max(10, kills // 4)


def carries(traffic, more):
    """Wait until so many more messages have been answered and a thousand are in flight."""
    goal = traffic.answered() + more
    eventually(lambda: traffic.answered() >= goal, PATIENCE)
    eventually(lambda: traffic.in_flight() >= IN_FLIGHT, PATIENCE, every=0.001)


def emptied(daemon):
    """What waits until nothing is in any mailbox: what was handled but not acknowledged comes again."""
    return lambda traffic: eventually(
        lambda: sql(daemon, "SELECT count(*) FROM agent_messages WHERE status = 'pending'") == [["0"]], 60, every=0.1)


def verify(daemon, traffic):
    """Nothing was stored twice, it is all there, and a consumer without a memory gets nothing."""
    rows = sql(daemon, "SELECT count(*), count(DISTINCT content) FROM agent_messages")
    assert rows == [[str(traffic.handled())] * 2]
    nothing_left(daemon.link, [one.session for one in traffic.consumers])


def tell(capsys, name, traffic, began):
    with capsys.disabled():
        print(f"\n    {name}: {traffic.summary()}, {time.monotonic() - began:.0f} s")


def test_killed_with_a_thousand_messages_in_flight(fleet, message_kills, seed, capsys):
    daemon, rng, began, flying = fleet.new("one"), random.Random(seed), time.monotonic(), []

    def disturb(traffic):
        for _ in range(message_kills):
            carries(traffic, rng.randrange(100, 600))
            time.sleep(rng.uniform(0, 0.05))
            flying.append(traffic.in_flight())
            daemon.kill()
            daemon.start()
        carries(traffic, 100)

    traffic = Traffic(daemon.link, seed=seed)
    asyncio.run(traffic.run(disturb, emptied(daemon)))
    tell(capsys, f"messages: {message_kills} kills, {min(flying)} to {max(flying)} in flight (seed {seed})",
         traffic, began)
    traffic.check()
    verify(daemon, traffic)


def test_stopped_in_order_with_messages_in_flight(fleet, seed):
    """SIGTERM and not SIGKILL: what was answered is as sure, and nobody is left without a close."""
    daemon, rng = fleet.new("one"), random.Random(seed)

    def disturb(traffic):
        for _ in range(3):
            carries(traffic, rng.randrange(100, 300))
            daemon.restart()

    traffic = Traffic(daemon.link, senders=30, consumers=10, seed=seed)
    asyncio.run(traffic.run(disturb, emptied(daemon)))
    traffic.check()
    verify(daemon, traffic)


def test_consumers_that_hang_up_all_the_time(fleet, seed, capsys):
    """No kill: every fortieth message a consumer is gone, and back at once."""
    daemon, began = fleet.new("one"), time.monotonic()
    traffic = Traffic(daemon.link, seed=seed, hang_ups=0.025)
    asyncio.run(traffic.run(lambda one: carries(one, 2000), emptied(daemon)))
    tell(capsys, f"consumers that hang up (seed {seed})", traffic, began)
    traffic.check()
    verify(daemon, traffic)


def test_messages_over_two_engines_killed_at_random(fleet, cluster, message_kills, seed, capsys):
    """Senders on one daemon, consumers on the other, one PostgreSQL; either is killed."""
    if cluster is None:
        pytest.skip("two daemons share a PostgreSQL; a SQLite file has one owner")
    first, second = fleet.new("first"), fleet.new("second")
    rng, began = random.Random(seed), time.monotonic()

    def disturb(traffic):
        for _ in range(message_kills // 2):
            carries(traffic, rng.randrange(50, 300))
            one = rng.choice((first, second))
            one.kill()
            time.sleep(rng.uniform(0, 0.3))
            one.start()
        carries(traffic, 100)

    traffic = Traffic(first.link, second.link, seed=seed)
    asyncio.run(traffic.run(disturb, emptied(second)))
    tell(capsys, f"two daemons: {message_kills // 2} kills (seed {seed})", traffic, began)
    traffic.check()
    verify(second, traffic)


def test_messages_while_the_database_restarts(fleet, cluster, seed, capsys):
    """Refused sends are sent again, which may change their order; nothing is lost or stored twice."""
    if cluster is None:
        pytest.skip("SQLite has no server that could restart")
    daemon, rng, began = fleet.new("one"), random.Random(seed), time.monotonic()

    def disturb(traffic):
        for mode in ("immediate", "fast", "immediate"):
            carries(traffic, rng.randrange(100, 400))
            cluster.stop(mode)
            time.sleep(rng.uniform(0, 1.5))
            cluster.start()
        carries(traffic, 100)

    traffic = Traffic(daemon.link, seed=seed)
    asyncio.run(traffic.run(disturb, emptied(daemon)))
    tell(capsys, f"database restarted three times (seed {seed})", traffic, began)
    traffic.check(ordered=False)
    verify(daemon, traffic)
