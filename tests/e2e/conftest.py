"""Fixtures of the end-to-end tests: a store, daemons on it, scripted agents.

    pytest tests/e2e --store sqlite|postgres        (CHELA_BIN: directory of the binaries)
"""

import pathlib
import shutil
import tempfile

import agent as agents
import chelad
import postgres
import pytest
from certs import Certificates
from starter import Starter, Store


def pytest_addoption(parser):
    parser.addoption("--store", choices=("sqlite", "postgres"), default="sqlite",
                     help="the database every daemon of this run uses")
    parser.addoption("--all", action="store_true", help="on PostgreSQL too, what has nothing to do with the store")


# What these look at ends before the store: on PostgreSQL they run with --all alone, which `make nightly` gives.
BEFORE_THE_STORE = ("test_agent_program.py", "test_hostile.py", "test_http.py", "test_http2.py", "test_hub_events.py",
                    "test_hub_hostile.py", "test_pages.py", "test_smuggling.py", "test_tls.py", "test_websocket.py")


def left_out(config):
    return BEFORE_THE_STORE if config.getoption("--store") == "postgres" and not config.getoption("--all") else ()


def pytest_ignore_collect(collection_path, config):
    return True if collection_path.name in left_out(config) else None


def pytest_report_header(config):
    without = left_out(config)
    return [f"store: {config.getoption('--store')}, binaries: {chelad.BIN}",
            *([f"left out on PostgreSQL (they end before the store): {' '.join(without)}"] if without else [])]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for daemon in chelad.live:
            report.sections.append((f"standard error of {daemon.state}", daemon.log()[-6000:]))


@pytest.fixture(scope="session")
def scratch():
    """A short temporary directory: socket paths have a limit of 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="chela-e2e-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def store(request):
    kind = request.config.getoption("--store")
    if kind == "sqlite":
        yield Store(kind)
        return
    cluster = postgres.Cluster(in_memory=True).start()
    yield Store(kind, cluster)
    cluster.remove()


@pytest.fixture(scope="module")
def daemon(store, scratch):
    """The daemon a module's tests share; agents and sessions get unique names."""
    starter = Starter(store, scratch)
    yield starter()
    starter.stop()


@pytest.fixture
def start(store, scratch):
    """Starts daemons of a test's own: start("--section.key=value", env={...})."""
    starter = Starter(store, scratch)
    yield starter
    starter.stop()


@pytest.fixture
def own(start):
    """A fresh daemon for one test."""
    return start()


@pytest.fixture
def make_agent():
    """Starts scripted agents: make_agent(behaviour of the 1st request, of the 2nd, …)."""
    made = []

    def make(*script, **options):
        made.append(agents.Agent(*script, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def certificates(scratch):
    return Certificates(scratch / "certs")
