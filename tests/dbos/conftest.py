"""Fixtures of the vectors: a PostgreSQL with PgBouncer before it, engines of ours, clients of DBOS.

    pytest tests/dbos [-n 4 --dist loadgroup]     (CHELA_BUILD_DIR: where dbos-host is)

The processes of pytest-xdist share one database with two engines on it; a client version stays
with one process. A variant "bounced" is a version of the client and an engine that both go through
PgBouncer in transaction mode; "deaf" is the same with an engine that cannot LISTEN.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import postgres  # noqa: E402
from clients import VARIANTS, Client, Session, variants  # noqa: E402
from engine import PATIENCE, World  # noqa: E402
from wait import unique  # noqa: E402

shared = {}  # of the process that rules the others


def pytest_configure(config):
    """Start what all share, before the processes that do the work are made."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="chela-dbos-"))
    shared.update(scratch=scratch, cluster=postgres.Cluster(in_memory=True).start("fsync=off"))
    shared["bouncer"] = postgres.Bouncer(shared["cluster"])
    world = World(scratch / "common", shared["cluster"].new_database())
    shared["hosts"] = [world.host("first"), world.host("second")]
    os.environ.update(CHELA_DBOS_SCRATCH=str(scratch), CHELA_DBOS_URL=world.url,
                      CHELA_DBOS_PG=str(shared["cluster"].port), CHELA_DBOS_BOUNCER=str(shared["bouncer"].port))


def pytest_unconfigure(config):
    if not shared:
        return
    try:
        for host in shared.get("hosts", []):
            host.stop()
    finally:
        if "bouncer" in shared:
            shared["bouncer"].stop()
        shared["cluster"].remove()
        shutil.rmtree(shared["scratch"], ignore_errors=True)
        shared.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for log in sorted(pathlib.Path(os.environ["CHELA_DBOS_SCRATCH"]).glob("*/*.stderr")):
            tail = log.read_text(errors="replace")[-3000:]
            report.sections.append((f"{log.parent.name}/{log.name}", tail))


def new_database():
    """(its name, a URL to it) of a fresh database."""
    name = unique("d").replace("-", "_")
    subprocess.run(["psql", "-d", os.environ["CHELA_DBOS_URL"], "-qc", f"CREATE DATABASE {name}"], check=True,
                   timeout=PATIENCE)
    return name, f"postgres://chela@127.0.0.1:{os.environ['CHELA_DBOS_PG']}/{name}"


@pytest.fixture(scope="session")
def scratch():
    return pathlib.Path(os.environ["CHELA_DBOS_SCRATCH"])


@pytest.fixture(scope="session")
def node(scratch):
    """Clients by version; a version's process is started once."""
    clients = {}

    def get(version):
        if version not in clients:
            with open(scratch / f"node-{version}-{os.getpid()}.log", "ab") as log:
                clients[version] = Client(version, log)
        return clients[version]

    yield get
    for client in clients.values():
        client.stop()


@pytest.fixture
def world(scratch):
    """A database of the test's own, without an engine yet; its hosts are ended afterwards."""
    hosts = []
    name, url = new_database()
    own = World(scratch / name, url)
    start = own.host

    def host(*args, **options):
        hosts.append(start(*args, **options))
        return hosts[-1]

    own.host = host
    yield own
    for one in hosts:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture(scope="session", params=variants(*VARIANTS))
def client(request, node, scratch):
    """Each version of the client at the database that all share, and one through PgBouncer."""
    version, _, way = request.param.partition("-")
    if not way:
        common = Session(node(version), World(scratch / "common", os.environ["CHELA_DBOS_URL"]))
        common.make_schedule()
        yield common
        common.call("deleteSchedule", common.schedule)
        return
    name, url = new_database()
    bounced = f"postgres://chela@127.0.0.1:{os.environ['CHELA_DBOS_BOUNCER']}/{name}"
    one = World(scratch / name, url, bounced)
    flags = ("--listen", url) if way == "bounced" else ()
    hosts = [one.host(instance, *flags, database=bounced) for instance in ("first", "second")]
    there = Session(node(version), one)
    there.hosts = hosts
    there.make_schedule()
    yield there
    for host in hosts:
        host.stop()


@pytest.fixture
def at(client, node):
    """The same version of the client at another world's database."""
    return lambda other: Session(node(client.version), other)


@pytest.fixture
def id(request, scratch):
    """A workflow id no other test has; begins with the name of the test. The gate of that name is
    open at the end, so that a test that fails blocks no queue."""
    name = unique(request.node.originalname)
    yield name
    for gates in scratch.glob("*/gates"):
        (gates / name).touch()
