"""The store goes away and comes back: clear 503s, no crash, nothing acknowledged is lost."""

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import threading

import agent as act
import chelad
import postgres
import pytest
from wait import eventually


def unavailable(answer):
    """A 503 as it should be."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json()["detail"], str) and answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    return True


class Writer(threading.Thread):
    """Calls with a session again and again, and remembers what was acknowledged."""

    def __init__(self, daemon, name, session):
        super().__init__(daemon=True)
        self.target_daemon, self.agent_name, self.session = daemon, name, session
        self.acknowledged, self.refused, self.problems = [], 0, []
        self.enough = threading.Event()

    def run(self):
        number = 0
        while not self.enough.is_set():
            number += 1
            prompt = f"prompt {number}"
            answer = self.target_daemon.try_call(self.agent_name, prompt, session_id=self.session)
            if answer.status_code == 200 and answer.json()["success"]:
                self.acknowledged.append(prompt)
            elif answer.status_code == 503:
                self.refused += 1
            else:
                self.problems.append(answer.text)


@pytest.fixture
def cluster():
    """A cluster of this test's own, since it will be stopped."""
    one = postgres.Cluster(in_memory=True).start()
    yield one
    one.remove()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_stopped_and_restarted_under_load(cluster, start, make_agent, mode):
    daemon = start("--store.wait=500ms", env={"DATABASE_URL": cluster.new_database()}, fresh=False)
    name = daemon.register(make_agent(act.echo), "a")
    writers = [Writer(daemon, name, f"s{number}") for number in range(8)]
    for writer in writers:
        writer.start()
    for _ in range(2):
        eventually_more(writers, "acknowledged")
        cluster.stop(mode)
        eventually_more(writers, "refused")
        health = daemon.http.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "unhealthy"
        assert health.json()["dbos"] == "disconnected"
        unavailable(daemon.try_call(name, session_id="while-down"))
        cluster.start()
        eventually_more(writers, "acknowledged", deadline=30)
    eventually(lambda: daemon.http.get("/health").json()["dbos"] == "connected", deadline=15)
    finish(daemon, writers)


def eventually_more(writers, what, deadline=20):
    def total():
        counts = [getattr(writer, what) for writer in writers]
        return [count if isinstance(count, int) else len(count) for count in counts]
    before = total()
    eventually(lambda: all(now > then for now, then in zip(total(), before)), deadline)


def test_a_start_without_the_database_fails_clearly_and_hides_the_password(cluster, start):
    url = cluster.new_database()
    cluster.stop()
    with pytest.raises(chelad.StartFailed) as failed:
        start(env={"DATABASE_URL": url.replace("chela@", "chela:canary-password@")}, fresh=False)
    assert failed.value.status == 1
    assert str(cluster.port) in failed.value.log
    assert "canary-password" not in failed.value.log


@pytest.fixture
def small_disk(tmp_path):
    """A state directory on a file system of 4 MiB, when we may mount one."""
    if os.geteuid() != 0:
        yield None
        return
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))


class Disk:
    """Something that is full until it is made free: a small file system or a size limit."""

    def __init__(self, place, daemon):
        self.place, self.daemon = place, daemon

    def fill(self):
        if self.place:
            with open(self.place / "ballast", "wb", buffering=0) as ballast:
                try:
                    while ballast.write(b"x" * 4096):
                        pass
                except OSError:
                    pass

    def free(self):
        if self.place:
            (self.place / "ballast").unlink()
        else:
            resource.prlimit(self.daemon.process.pid, resource.RLIMIT_FSIZE,
                             (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk_gives_503s_and_the_daemon_recovers(start, make_agent, small_disk):
    state = small_disk / "state" if small_disk else None
    daemon = start(state=state, fresh=False, preexec=None if small_disk else limit_file_size)
    disk = Disk(small_disk, daemon)
    name = daemon.register(make_agent(act.says("ok")), "a")
    assert daemon.call(name, "before", session_id="kept")["success"]
    disk.fill()

    def is_full():
        answer = daemon.try_call(name, "y" * 200_000, session_id="big")
        return answer.status_code == 503 and unavailable(answer)
    eventually(is_full, deadline=30)
    assert daemon.process.poll() is None
    assert daemon.turns("kept") == [("user", "before"), ("assistant", "ok")], "reading still works"
    disk.free()
    eventually(lambda: daemon.try_call(name, "after", session_id="kept").is_success, every=0.1)
    daemon.kill()
    daemon.preexec = None
    daemon.start()
    assert daemon.turns("kept")[:2] == [("user", "before"), ("assistant", "ok")]
    assert ("user", "after") in daemon.turns("kept")
    assert daemon.http.get("/health").status_code == 200


def test_a_damaged_database_is_refused_and_left_alone(start):
    daemon = start(fresh=False)
    daemon.stop()
    file = daemon.state / "chela.db"
    damaged = b"this is no database at all" * 1000
    file.write_bytes(damaged)
    with pytest.raises(chelad.StartFailed) as failed:
        daemon.start()
    assert failed.value.status == 1
    assert "chela.db" in failed.value.log
    assert file.read_bytes() == damaged


NEWER = ("INSERT INTO schema_migrations (version, name, applied_at, checksum)"
         " VALUES (9999, 'from the future', 0, 'x')")


def test_a_schema_newer_than_the_program_is_refused_and_left_alone(start, store):
    daemon = start()
    daemon.stop()
    if store.kind == "postgres":
        store.cluster.psql(NEWER, daemon.env["DATABASE_URL"].rsplit("/", 1)[1])
    else:
        with contextlib.closing(sqlite3.connect(daemon.state / "chela.db")) as db:
            db.execute(NEWER)
            db.commit()
    with pytest.raises(chelad.StartFailed) as failed:
        daemon.start()
    assert failed.value.status == 1
    assert "9999" in failed.value.log and "newer" in failed.value.log


def test_connections_cut_by_the_database_s_administrator_cost_no_acknowledged_call(
        cluster, start, make_agent):
    url = cluster.new_database()
    daemon = start(env={"DATABASE_URL": url}, fresh=False)
    name = daemon.register(make_agent(act.echo), "a")
    writers = [Writer(daemon, name, f"s{number}") for number in range(4)]
    for writer in writers:
        writer.start()
    for _ in range(5):
        eventually_more(writers, "acknowledged")
        cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     " WHERE datname = 'test_1' AND pid <> pg_backend_pid()")
    eventually_more(writers, "acknowledged")
    finish(daemon, writers)


def finish(daemon, writers):
    """Stop writing, and find every acknowledged answer in its session, once."""
    for writer in writers:
        writer.enough.set()
        writer.join(30)
        assert writer.problems == []
    for writer in writers:
        answered = [content for role, content in daemon.turns(writer.session) if role == "assistant"]
        kept = writer.acknowledged[-400:]
        assert [prompt for prompt in answered if prompt in kept] == kept


def copy_store(daemon, target):
    return chelad.run("chela", "--state", daemon.state, "store", "copy", "--from",
                      f"sqlite:{daemon.state / 'chela.db'}", "--to", target)


def test_store_copy_moves_everything_to_postgresql(cluster, start, make_agent):
    daemon = start(fresh=False)
    agent = make_agent(act.fails(500), act.echo)
    daemon.register(agent, "a", max_retries=1, auth_token="moved", context="session")
    for number in range(3):
        daemon.call("a", f"żółw {number}\n", session_id=f"s{number}", metadata={"k": 1})
    daemon.try_call("a", "keyed", key="k", session_id="s0")
    key = daemon.http.post("/api/v1/keys", json={"name": "k", "scopes": ["bridge"]}).json()["key"]
    with daemon.client(headers={"Authorization": f"Bearer {key}"}) as client:
        before = [client.get(path).text for path in
                  ("/api/vps/agents", "/api/vps/sessions/s0", "/api/vps/sessions/s2",
                   "/api/vps/health/a")]
        target = cluster.new_database()
        running = copy_store(daemon, target)
        assert running.returncode != 0, "not while the daemon runs"
        assert str(daemon.process.pid) in running.stderr
    daemon.stop()
    done = copy_store(daemon, target)
    assert done.returncode == 0, done.stderr
    daemon.env["DATABASE_URL"] = target
    daemon.start()
    with daemon.client(headers={"Authorization": f"Bearer {key}"}) as client:
        after = [client.get(path).text for path in
                 ("/api/vps/agents", "/api/vps/sessions/s0", "/api/vps/sessions/s2",
                  "/api/vps/health/a")]
        assert after == before
        result = client.post("/api/vps/call", json={"agent_name": "a", "prompt": "more",
                                                    "session_id": "s0"})
        assert result.json()["response"] == "more"
    assert agent.requests[-1].header("Authorization") == "Bearer moved"
    daemon.stop()
    again = copy_store(daemon, target)
    assert again.returncode != 0, "never over data that is there"


def test_the_kind_of_store_is_shown(own, request):
    assert own.http.get("/api/v1/status").json()["store"] == {
        "kind": request.config.getoption("--store"), "ok": True}
