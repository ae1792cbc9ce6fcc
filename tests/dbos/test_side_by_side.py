"""Our engine and one of the SDK on one database; and databases whose schema is not what we need."""

import os
import subprocess

import chelad
import pytest
from clients import HERE, NODE, NPM, Session
from engine import PATIENCE, HostFailed, read_ready

pytestmark = pytest.mark.xdist_group("side-by-side")
SCHEMA = ["pg_dump", "--schema-only", "--schema=dbos", "--no-owner"]


class SdkEngine:
    def __init__(self, path, version, url, application):
        reading, theirs = os.pipe()
        self.log_path = path / f"sdk-{version}.stderr"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [NODE, HERE / "sdk_engine.mjs", str(theirs), f"{NPM}/node_modules", version, url, application],
                stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(theirs,),
                env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DBOS__APPVERSION": "js-1"})
        os.close(theirs)
        assert read_ready(reading, self.process), self.log_path.read_text()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)


@pytest.fixture
def sdk(world):
    """Starts engines of the SDK on the test's own database."""
    started = []

    def start(version, application="js-app"):
        started.append(SdkEngine(world.path, version, world.url, application))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def dump(url):
    done = subprocess.run([*SCHEMA, "-d", url], check=True, capture_output=True, text=True, timeout=PATIENCE)
    return [line for line in done.stdout.splitlines() if not line.startswith(("--", "\\"))]


def test_each_engine_runs_its_own(world, sdk, node):
    world.host("ours", "--app-name", "c-app")
    before = dump(world.url)
    sdk("5.3.0")
    client = Session(node("5.3.0"), world)
    assert dump(world.url) == before and world.psql("SELECT version FROM dbos.dbos_migrations") == "123"

    ours = [client.enqueue("work", {"steps": 2}, id=f"ours-{n}", applicationName="c-app") for n in range(10)]
    theirs = [client.enqueue("js_greet", f"n{n}", id=f"theirs-{n}", queue="js", applicationName="js-app")
              for n in range(10)]
    assert [client.result(id) for id in ours] == [[0, 10]] * 10
    assert [client.result(id) for id in theirs] == [{"text": f"hello n{n}", "by": "sdk"} for n in range(10)]
    assert all(world.runs(id) == {0: 1, 1: 1} for id in ours)
    assert {world.row(id)["application_version"] for id in theirs} == {"js-1"}

    # the queue both serve: what was cancelled, resumed and forked goes back to its own engine
    client.call("cancelWorkflow", client.enqueue("nap", 3_600_000, id="ours-nap", applicationName="c-app"))
    forks = [client.call("forkWorkflow", id, 1) for id in (*ours[:3], *theirs[:3])]
    assert [client.result(id) for id in forks] == [[0, 10]] * 3 + [{"text": f"hello n{n}", "by": "sdk"} for n in range(3)]
    assert world.rows("SELECT workflow_uuid FROM dbos.workflow_status WHERE status IN ('PENDING', 'ENQUEUED')") == []


def test_they_start_work_for_each_other_by_sql(world, sdk, node):
    """Rows without an application are claimed by whoever implements them, in a queue of theirs."""
    world.host("ours", "--app-name", "c-app")
    sdk("5.3.0")
    for n in range(3):
        world.psql(f"SELECT dbos.enqueue_workflow('work', 'plain', ARRAY['{{}}'::json], workflow_id => 'sql-c-{n}')")
        world.psql(f"SELECT dbos.enqueue_workflow('js_greet', 'js', ARRAY['\"x\"'::json], workflow_id => 'sql-js-{n}')")
    client = Session(node("5.3.0"), world)
    for n in range(3):
        assert client.result(f"sql-c-{n}") == [0]
        assert client.result(f"sql-js-{n}") == {"text": "hello x", "by": "sdk"}


def test_a_schema_the_sdk_made_is_used_as_it_is(world, sdk, node):
    sdk("5.3.0")
    assert world.psql("SELECT version FROM dbos.dbos_migrations") == "123"
    before = dump(world.url)
    world.host("ours", "--app-name", "c-app")
    after = dump(world.url)
    assert [line for line in before if line not in after] == []  # ours may add tables, never change theirs
    client = Session(node("5.3.0"), world)
    assert client.result(client.enqueue("work", {"steps": 2}, applicationName="c-app")) == [0, 10]


def test_an_older_schema_is_refused_with_the_remedy(world, sdk):
    sdk("5.0.2").stop()
    version = world.psql("SELECT version FROM dbos.dbos_migrations")
    assert int(version) < 123
    before = dump(world.url)
    with pytest.raises(HostFailed, match=f"version {version}, and 123 is needed"):
        world.host("ours")
    with pytest.raises(chelad.StartFailed, match=f"version {version}, and 123 is needed"):
        chelad.Daemon(world.path / "state", env={"DATABASE_URL": world.url}).start()
    assert dump(world.url) == before


def test_a_later_schema_is_used_as_it_is(world):
    world.host("ours").stop()
    world.psql("UPDATE dbos.dbos_migrations SET version = 124")
    world.host("ours")
    assert world.psql("SELECT version FROM dbos.dbos_migrations") == "124"
