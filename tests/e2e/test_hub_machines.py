"""Machines as an operator sees them: their lives, what survives which end of the daemon, what fails and how that is told.

All of them are sandboxes; tests/machines tries the drivers themselves.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import time
import urllib.parse

import chelad
import pytest
import wsraw
from hub_client import Hub, Refused
from wait import eventually, together, unique

DEADLINE = 40

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


class Fleet(Hub):
    def create(self, name=None, wait=True, **wish):
        name = name or unique("m")
        answer = self.http.post("/machines", json={"name": name, "driver": "sandbox", **wish})
        assert answer.status_code == 202, answer.text
        assert answer.json()["machine"]["state"] == "creating"
        if wait:
            assert self.settled(name)["state"] == "running", self.machine(name)
        return name

    def machine(self, name, wait=0):
        answer = self.http.get(f"/machines/{name}", params={"wait": wait})
        return answer.json()["machine"] if answer.status_code == 200 else None

    def settled(self, name):
        """The machine once nothing is under way; None when it is gone."""
        for _ in range(10):
            found = self.machine(name, 20000)
            if found is None or found["operation"] is None:
                return found
        raise AssertionError(f"{found} is still at work")

    def order(self, machine, what, status=202, **body):
        answer = self.http.post(f"/machines/{machine}/{what}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def done(self, machine, what, **body):
        self.order(machine, what, **body)
        return self.settled(machine)

    def destroy(self, name):
        answer = self.http.delete(f"/machines/{name}")
        assert answer.status_code == 202, answer.text
        assert self.settled(name) is None

    def run(self, name, command, **more):
        """Standard output of a command in the machine."""
        record = self.task(name, {"type": "exec", "command": command, **more}, wait=30000)["task"]
        assert record["status"] == "completed", record
        return record["response"]["result"]["stdout"]

    def pids(self, name):
        """Processes on this host that belong to the machine: its shim and what is below it."""
        found = []
        wanted = str(self.daemon.state / "machines" / name)
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if wanted in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(entry.name))
        return found


@pytest.fixture
def fleet(start):
    made = []

    def make(*flags, **options):
        made.append(Fleet(start(*flags, **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def shared(daemon):
    one = Fleet(daemon)
    yield one
    one.close()


def test_a_machine_is_made_works_and_is_destroyed(shared):
    name = shared.create(memory="256M", env={"COLOUR": "blue"}, type="worker", capabilities=["exec", "git"])
    found = shared.machine(name)
    assert found["online"] and found["wanted"] == "running" and found["agentId"] == name and not found["reason"]
    assert found["memory"] == "256M" and found["driver"] == "sandbox" and found["startedAt"] >= found["createdAt"]
    agent = shared.status(name)
    assert agent["status"] == "online"
    assert agent["metadata"]["type"] == "worker" and agent["metadata"]["capabilities"] == ["exec", "git"]
    assert shared.run(name, "echo $COLOUR") == "blue"
    assert name in [one["name"] for one in shared.http.get("/machines").json()["machines"]]
    shared.destroy(name)
    assert shared.http.get(f"/agents/{name}/status").status_code == 404
    assert not (shared.daemon.state / "machines" / name).exists()
    assert shared.pids(name) == []
    assert shared.http.delete(f"/machines/{name}").status_code == 404


def test_stop_start_and_restart_keep_what_was_written(shared):
    name = shared.create()
    shared.run(name, "echo kept > note")
    stopped = shared.done(name, "stop")
    assert stopped["state"] == "stopped" and stopped["wanted"] == "stopped" and not stopped["online"]
    eventually(lambda: shared.pids(name) == [], DEADLINE)
    shared.order(name, "stop")  # again is fine
    assert shared.settled(name)["state"] == "stopped"
    assert shared.done(name, "start")["state"] == "running"
    assert shared.run(name, "cat note") == "kept"
    shared.order(name, "start", status=409)
    before = shared.machine(name)["startedAt"]
    after = shared.done(name, "restart")
    assert after["state"] == "running" and after["startedAt"] > before
    assert shared.run(name, "cat note") == "kept"
    shared.destroy(name)


def test_snapshot_change_restore(shared):
    name = shared.create()
    shared.run(name, "echo one > note")
    answer = shared.order(name, "snapshots", name="first")
    assert answer["snapshot"] == "first"
    after = shared.settled(name)
    assert after["state"] == "running" and not after["reason"]
    shared.order(name, "snapshots", status=409, name="first")
    shared.run(name, "echo two > note; echo more > other")
    running = shared.task(name, {"type": "exec", "command": "sleep 600"})["taskId"]
    eventually(lambda: shared.http.get(f"/tasks/{running}").json()["task"]["status"] == "running", DEADLINE)
    assert shared.done(name, "restore", snapshot="first")["state"] == "running"
    assert shared.run(name, "cat note; ls other 2>/dev/null || echo none") == "one\nnone"
    assert shared.http.get(f"/tasks/{running}").json()["task"]["status"] == "lost"
    listed = shared.http.get(f"/machines/{name}/snapshots").json()["snapshots"]
    assert [one["name"] for one in listed] == ["first"] and listed[0]["createdAt"] > 0
    shared.order(name, "restore", status=404, snapshot="second")
    assert shared.http.delete(f"/machines/{name}/snapshots/second").status_code == 404
    assert shared.http.delete(f"/machines/{name}/snapshots/first").status_code == 200
    assert shared.http.get(f"/machines/{name}/snapshots").json()["snapshots"] == []
    shared.destroy(name)


def test_a_restored_machine_has_a_new_token(shared):
    name = shared.create()
    shared.done(name, "snapshots", name="s")
    config = shared.daemon.state / "machines" / name
    old = token_in(config)
    shared.done(name, "restore", snapshot="s")
    new = token_in(config)
    assert old and new and old != new
    status, sock, _, _ = shared.handshake(f"/agent/{name}/{old}")
    sock.close()
    assert status == 401
    shared.destroy(name)


def token_in(directory):
    for path in sorted(directory.rglob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text())
            if isinstance(found, dict) and found.get("token"):
                return found["token"]
    return None


@pytest.mark.parametrize("wish, says", [
    ({"name": "9lives"}, "name"), ({"name": "a" * 41}, "name"), ({"name": "a_b"}, "name"), ({"name": "host"}, "own"),
    ({"name": "drivers"}, "own"), ({"driver": "docker"}, "driver"), ({"memory": "4X"}, "memory"),
    ({"cpus": -1}, "cpus"), ({"allow": ["a b"]}, "allow"), ({"allow": {"a": 1}}, "allow"), ({"env": {"A": 1}}, "env"),
    ({"env": []}, "env"), ({"hubUrl": "http://x"}, "hubUrl"), ({"capabilities": [1]}, "capabilities"), ({"name": 7}, "name"),
])
def test_a_wish_that_makes_no_sense_is_refused_with_its_reason(shared, wish, says):
    answer = shared.http.post("/machines", json={"name": "fine", **wish})
    assert answer.status_code == 400 and says in answer.json()["error"], answer.text
    assert shared.machine("fine") is None


def test_names_are_taken_once(shared):
    name = shared.create()
    assert shared.http.post("/machines", json={"name": name}).status_code == 409
    agent = unique("plain")
    shared.register(agent)
    assert shared.http.post("/machines", json={"name": agent}).status_code == 409
    assert shared.status(agent)["id"] == agent
    shared.destroy(name)


def test_of_many_who_ask_for_one_name_one_gets_it(shared):
    name = unique("race")
    answers = together(lambda _: shared.http.post("/machines", json={"name": name}).status_code, range(8))
    assert sorted(answers) == [202] + [409] * 7
    assert shared.settled(name)["state"] == "running"
    shared.destroy(name)


def test_drivers_say_whether_they_work_here(shared):
    drivers = {one["name"]: one for one in shared.http.get("/machines/drivers").json()["drivers"]}
    assert set(drivers) == {"sandbox", "qemu", "multipass"}
    assert drivers["sandbox"]["available"] and drivers["sandbox"]["reason"] is None
    for one in drivers.values():
        assert one["available"] or one["reason"], one


def test_a_driver_whose_program_is_missing_is_refused_before_anything_is_made(fleet):
    f = fleet("--machine.bwrap=/nonexistent/bwrap")
    answer = f.http.post("/machines", json={"name": "box"})
    assert answer.status_code == 503 and "bubblewrap" in answer.json()["error"], answer.text
    assert f.http.get("/machines").json()["machines"] == []
    assert f.http.get("/agents").json()["agents"] == []


def write_agent(scratch, body):
    path = scratch / unique("program")
    path.mkdir()
    program = path / "chela-agent"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def test_a_creation_that_fails_is_undone_and_says_why(fleet, scratch):
    program = write_agent(scratch, "echo out of luck >&2; exit 3")
    f = fleet(f"--machine.agent_program={program}")
    f.create("box", wait=False)
    found = f.settled("box")
    assert found["state"] == "failed"
    assert "ended before its agent" in found["reason"] and "out of luck" in found["reason"]
    assert f.http.get("/agents").json()["agents"] == []
    assert not list((f.daemon.state / "machines").glob("[!.]*"))
    f.order("box", "snapshots", status=409)
    f.destroy("box")
    assert f.http.get("/machines").json()["machines"] == []


def test_an_agent_that_never_comes_is_given_up_at_the_deadline(fleet, scratch):
    program = write_agent(scratch, "exec sleep 1000")
    f = fleet(f"--machine.agent_program={program}", "--machine.create_timeout=2s")
    f.create("box", wait=False)
    found = f.settled("box")
    assert found["state"] == "failed" and "not connected in time" in found["reason"]
    assert f.pids("box") == []


def test_destroy_comes_before_whatever_is_under_way(fleet, scratch):
    program = write_agent(scratch, "exec sleep 1000")
    f = fleet(f"--machine.agent_program={program}")
    f.create("box", wait=False)
    eventually(lambda: f.machine("box")["progress"] == "waiting for its agent", DEADLINE)
    for what in ("start", "stop", "restart", "snapshots"):
        f.order("box", what, status=409)
    f.destroy("box")
    eventually(lambda: f.pids("box") == [], DEADLINE)
    assert f.http.get("/agents").json()["agents"] == []


def test_one_that_dies_is_started_again_with_the_reason_shown(fleet):
    f = fleet()
    f.create("box")
    before = f.machine("box")
    for pid in f.pids("box"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def back():
        found = f.machine("box")
        return found if found["state"] == "running" and found["startedAt"] > before["startedAt"] and found["online"] else None
    eventually(back, DEADLINE)
    assert f.run("box", "echo well") == "well"
    events = [json.loads(line) for line in f.http.get("/admin/audit").text.splitlines()]
    ended = [one for one in events if one["event"] == "machine.ended"]
    assert len(ended) == 1 and "starts again" in ended[0]["reason"]


def test_machines_outlive_sigkill_of_the_daemon_and_are_adopted(fleet):
    f = fleet()
    f.create("box")
    task = f.task("box", {"type": "exec", "command": "sleep 2; echo finished", "id": "through"})["taskId"]
    eventually(lambda: f.http.get(f"/tasks/{task}").json()["task"]["status"] == "running", DEADLINE)
    pids, started = f.pids("box"), f.machine("box")["startedAt"]
    assert pids
    f.daemon.kill()
    f.daemon.start()
    f.connect()
    found = eventually(lambda: (m := f.machine("box")) and m["state"] == "running" and m["online"] and m, DEADLINE)
    assert found["startedAt"] == started
    assert set(f.pids("box")) & set(pids)
    record = f.http.get(f"/tasks/{task}", params={"wait": 30000}).json()["task"]
    assert record["status"] == "completed" and record["response"]["result"]["stdout"] == "finished"
    f.destroy("box")


def test_a_creation_that_was_cut_off_goes_on(fleet):
    f = fleet()
    f.create("box", wait=False)
    f.daemon.kill()
    f.daemon.start()
    f.connect()
    assert f.settled("box")["state"] == "running"
    assert f.run("box", "echo here") == "here"


def test_a_clean_end_stops_machines_and_the_next_start_brings_them_back(fleet):
    f = fleet()
    f.create("on")
    f.create("off")
    f.done("off", "stop")
    f.daemon.stop()
    assert f.pids("on") == []
    f.daemon.start()
    f.connect()
    found = eventually(lambda: (m := f.machine("on")) and m["state"] == "running" and m["online"] and m, DEADLINE)
    assert not found["reason"]
    assert f.machine("off")["state"] == "stopped"


def test_a_clean_end_in_the_midst_of_a_creation_leaves_nothing_running(fleet, scratch):
    program = write_agent(scratch, "exec sleep 1000")
    f = fleet(f"--machine.agent_program={program}", "--limits.shutdown=1s")
    f.create("box", wait=False)
    eventually(lambda: f.machine("box")["progress"] == "waiting for its agent", DEADLINE)
    f.daemon.stop()
    assert f.pids("box") == []
    shutil.copy(chelad.BIN / "chela-agent", program)
    f.daemon.start()
    f.connect()
    found = f.settled("box")
    assert found["state"] in ("running", "failed"), found  # the program inside is that of its creation
    f.destroy("box")


def test_deadlines_count_while_the_daemon_is_away(fleet, scratch):
    program = write_agent(scratch, "exec sleep 1000")
    f = fleet(f"--machine.agent_program={program}", "--machine.create_timeout=3s")
    f.create("box", wait=False)
    eventually(lambda: f.machine("box")["progress"] == "waiting for its agent", DEADLINE)
    f.daemon.kill()
    f.daemon.start()
    f.connect()
    found = f.settled("box")
    assert found["state"] == "failed" and found["reason"]
    assert f.pids("box") == [] and f.http.get("/agents").json()["agents"] == []


def test_a_destruction_that_was_cut_off_goes_on(fleet):
    f = fleet()
    f.create("box")
    assert f.http.delete("/machines/box").status_code == 202
    f.daemon.kill()
    f.daemon.start()
    f.connect()
    assert f.settled("box") is None
    assert f.pids("box") == [] and not (f.daemon.state / "machines" / "box").exists()


def test_machines_may_be_kept_over_a_clean_end(fleet):
    f = fleet("--machine.on_exit=keep")
    f.create("box")
    pids = f.pids("box")
    f.daemon.stop()
    assert set(f.pids("box")) & set(pids)
    f.daemon.start()
    f.connect()
    eventually(lambda: (m := f.machine("box")) and m["state"] == "running" and m["online"], DEADLINE)
    assert set(f.pids("box")) & set(pids)
    f.destroy("box")


def test_what_belongs_to_no_machine_is_ended_and_moved_aside(fleet, start):
    f = fleet("--machine.on_exit=keep")
    f.create("lost")
    f.daemon.stop()
    assert f.pids("lost")
    other = Fleet(start("--machine.on_exit=keep", state=f.daemon.state, env={
        "DATABASE_URL": f"sqlite:{f.daemon.state}/another.db"}))
    directory = f.daemon.state / "machines"
    eventually(lambda: not (directory / "lost").exists(), DEADLINE)
    assert [path.name.split(".")[0] for path in (directory / ".lost").iterdir()] == ["lost"]
    eventually(lambda: f.pids("lost") == [], DEADLINE)
    assert other.http.get("/machines").json()["machines"] == []
    other.close()


def test_the_token_of_a_machine_lives_as_long_as_the_machine(fleet):
    f = fleet("--hub.token_ttl=1s", "--hub.tick=100ms")
    box = f.create()
    other = f.agent()
    assert other.closed()[0] == 4003  # that of the machine is older
    assert f.run(box, "echo here") == "here"
    assert f.done(box, "stop")["state"] == "stopped"
    assert f.done(box, "start")["online"]
    assert f.run(box, "echo again") == "again"
    f.destroy(box)


def test_what_was_moved_aside_goes_in_time(start):
    daemon = start()
    daemon.stop()
    lost = daemon.state / "machines" / ".lost"
    now, day = int(time.time() * 1000), 24 * 3600 * 1000
    for entry in (f"old.{now - 31 * day}", f"second.{now - 3 * day}", f"first.{now - 2 * day}", f"new.{now}", "not-ours"):
        (lost / entry / "tree").mkdir(parents=True)
        (lost / entry / "tree" / "file").write_text("x")
    daemon.flags = (*daemon.flags, "--machine.lost_max=2")
    daemon.start()
    names = {"first", "new", "not-ours"}
    eventually(lambda: {path.name.split(".")[0] for path in lost.iterdir()} == names, DEADLINE)
    assert all((path / "tree" / "file").exists() for path in lost.iterdir())


def test_what_operators_ask_of_machines_is_in_the_audit_log(shared):
    name = shared.create()
    shared.done(name, "stop")
    shared.destroy(name)
    lines = (shared.daemon.state / "audit.log").read_text().splitlines()
    events = [one["event"] for one in map(json.loads, lines) if one.get("agentId") == name
              and one["event"].startswith("machine.")]
    assert events == ["machine.create", "machine.created", "machine.stop", "machine.stopped", "machine.destroy",
                      "machine.destroyed"]


def test_logs_are_the_newest_lines(shared):
    name = shared.create()

    def lines(n):
        return shared.http.get(f"/machines/{name}/logs", params={"lines": n}).text.splitlines()
    eventually(lambda: len(lines(50)) > 1, DEADLINE)
    assert len(lines(1)) == 1 and lines(1)[0] in lines(50)
    assert shared.http.get("/machines/nobody/logs").status_code == 404
    shared.destroy(name)


# --- shells ---


class Shell:
    """An operator's end of a terminal in a machine."""

    def __init__(self, hub, name, **params):
        query = urllib.parse.urlencode(params)
        status, sock, rest, head = hub.handshake(f"/agents/{name}/shell?{query}", ws=False)
        if status != 101:
            sock.close()
            raise Refused(status, head)
        sock.settimeout(DEADLINE)
        self.peer = wsraw.Peer(sock, "client", rest)
        self.output, self.exit = b"", None
        self.deadline = time.monotonic() + 2 * DEADLINE

    def type(self, data):
        self.peer.send((wsraw.BINARY, data))

    def resize(self, cols, rows):
        self.peer.send((wsraw.TEXT, json.dumps({"resize": {"cols": cols, "rows": rows}}).encode()))

    def take(self):
        """One frame; False at the end. Pings keep a stalled socket awake, so there is a deadline on the whole."""
        assert time.monotonic() < self.deadline, f"stalled after {len(self.output)} bytes: {self.output[-100:]!r}"
        opcode, data = self.peer.receive()
        if opcode == wsraw.BINARY:
            self.output += data
        elif opcode == wsraw.TEXT:
            self.exit = json.loads(data)
        elif opcode == wsraw.PING:
            self.peer.send((wsraw.PONG, data))
        return opcode != wsraw.CLOSE

    def until(self, text):
        while text not in self.output:
            assert self.take(), self.output[-200:]
        return self.output

    def end(self):
        while self.take():
            pass
        self.peer.send((wsraw.CLOSE, wsraw.close_body(1000)))
        return self.exit

    def close(self):
        self.peer.sock.close()


def test_a_shell_is_a_terminal_in_the_machine(shared):
    name = shared.create()
    shell = Shell(shared, name, cols=101, rows=33)
    shell.type(b"stty size; echo $((6 * 7))-sum\n")
    assert b"33 101" in shell.until(b"42-sum")
    shell.resize(77, 22)
    shell.type(b"stty size; echo $((2 * 4))-again\n")
    assert b"22 77" in shell.until(b"8-again")
    shell.type(b"exit 5\n")
    assert shell.end() == {"exit": 5}
    shared.destroy(name)


def test_a_shell_carries_much_both_ways(shared):
    name = shared.create()
    shell = Shell(shared, name, command="head -c 3000000 /dev/zero | tr '\\0' x")
    assert shell.end()["exit"] == 0
    assert shell.output.count(b"x") == 3000000
    shell = Shell(shared, name, command="stty raw -echo; echo ready; head -c 400000 | wc -c")
    shell.until(b"ready")
    for _ in range(100):
        shell.type(b"y" * 4000)
    assert b"400000" in shell.until(b"400000")
    assert shell.end()["exit"] == 0
    shared.destroy(name)


def test_a_shell_ends_with_either_side(shared):
    name = shared.create()
    shell = Shell(shared, name)
    shell.type(b"echo $$-pid; exec sleep 4321\n")
    shell.until(b"-pid")
    eventually(lambda: "sleep 4321" in shared.run(name, "ps ax -o args || true"), DEADLINE, 0.1)
    shell.close()
    eventually(lambda: "sleep 4321" not in shared.run(name, "ps ax -o args || true"), DEADLINE, 0.1)
    shell = Shell(shared, name)
    shell.type(b"echo $((1 + 1))-here\n")
    shell.until(b"2-here")
    shared.order(name, "stop", force=True)
    assert shell.end()["exit"] == -1
    shared.settled(name)
    with pytest.raises(Refused) as refused:
        Shell(shared, name)
    assert refused.value.status == 503
    shared.destroy(name)


def test_a_shell_into_nobody_is_refused(shared):
    with pytest.raises(Refused) as refused:
        Shell(shared, "nobody")
    assert refused.value.status == 404


def test_scopes_decide_who_may_do_what(shared):
    token = shared.daemon.token
    key = shared.daemon.http.post("/api/v1/keys", json={"name": unique("reader"), "scopes": ["read"]},
                                  headers={"Authorization": f"Bearer {token}"})
    assert key.status_code == 201, key.text
    bearer = {"Authorization": f"Bearer {key.json()['key']}"}
    assert shared.http.get("/machines", headers=bearer).status_code == 200
    assert shared.http.post("/machines", json={"name": "no"}, headers=bearer).status_code == 403
    assert shared.http.delete("/machines/no", headers=bearer).status_code == 403
    assert shared.http.get("/admin/audit", headers=bearer).status_code == 403
