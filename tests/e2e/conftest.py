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


def pytest_report_header(config):
    return f"store: {config.getoption('--store')}, binaries: {chelad.BIN}"


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
    cluster = postgres.Cluster().start()
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
