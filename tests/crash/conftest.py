"""Fixtures of the crash tests: a database, hosts that are killed, and what must hold afterwards.

    pytest tests/crash --store sqlite|postgres [--kills N]     (CHELA_BUILD_DIR: the build)
"""

import pathlib
import random
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))

import postgres  # noqa: E402
from world import World  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.addoption("--kills", type=int, default=40, help="random kills of each test that kills so")
    parser.addoption("--seed", type=int, default=None, help="of the random choices; printed")


@pytest.fixture(scope="session")
def cluster(request):
    if request.config.getoption("--store") != "postgres":
        yield None
        return
    cluster = postgres.Cluster().start()
    yield cluster
    cluster.remove()


@pytest.fixture
def world(cluster):
    path = pathlib.Path(tempfile.mkdtemp(prefix="chela-crash-"))
    world = World(path, cluster)
    yield world
    world.close()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills")


@pytest.fixture
def seed(request):
    seed = request.config.getoption("--seed")
    seed = seed if seed is not None else random.SystemRandom().randrange(10 ** 6)
    print(f"seed {seed}")
    return seed


def pytest_ignore_collect(collection_path, config):
    """Two engines share a PostgreSQL; on SQLite one process owns the file, so there is no such test."""
    return "two_engines" in collection_path.name and config.getoption("--store") == "sqlite" or None
