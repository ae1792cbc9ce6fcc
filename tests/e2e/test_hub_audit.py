"""The hub's audit log: who did what, in a chain that shows every change, over crashes and rotations."""

import hashlib
import json

import pytest
from hub_client import Hub
from wait import eventually, unique

TAIL = len(',"hash":""}') + 64


@pytest.fixture
def hub(start):
    made = []

    def make(*flags, **options):
        made.append(Hub(start(*flags, **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def lines_of(path):
    return [line for line in path.read_bytes().split(b"\n") if line]


def check_chain(files):
    """All lines of files (oldest first) as objects; fails where one does not follow from the one before."""
    found, last = [], b"0" * 64
    for number, path in enumerate(files):
        lines = lines_of(path)
        for at, line in enumerate(lines):
            try:
                one = json.loads(line)
            except ValueError:
                torn = json.loads(lines[at + 1])
                assert torn["event"] == "audit.torn" and torn["bytes"] == len(line)
                continue
            if number == 0 and at == 0 and one["event"] == "audit.continued":
                last = one["previous"].encode()
            if one["event"] in ("audit.continued", "audit.torn"):
                assert one["previous"].encode() == last
            last = hashlib.sha256(last + line[:-TAIL]).hexdigest().encode()
            assert line[-TAIL:] == b',"hash":"' + last + b'"}', line
            found.append(one)
    return found


def act(hub, **body):
    answer = hub.http.post("/admin/audit", json={"event": "cli.exec", **body})
    assert answer.status_code == 200, answer.text


def test_acts_of_operators_are_written_before_they_are_answered(hub):
    h = hub()
    name = unique("audited")
    h.register(name)
    act(h, agentId=name, command='rm -rf "/"\nls', cwd="/srv")
    assert h.http.delete(f"/agents/{name}").status_code == 200
    found = check_chain([h.daemon.state / "audit.log"])
    events = [one["event"] for one in found if one.get("agentId") == name]
    assert events == ["agent.registered", "cli.exec", "agent.deregistered"]
    own = next(one for one in found if one["event"] == "cli.exec")
    assert own["command"] == 'rm -rf "/"\nls' and own["cwd"] == "/srv"
    assert own["from"] and own["remoteAddr"].startswith("127.0.0.1")
    assert (h.daemon.state / "audit.log").stat().st_mode & 0o777 == 0o600


def test_each_task_is_written_when_it_comes_and_when_it_ends(hub):
    h = hub()
    agent = h.agent(unique("tasks"))
    h.task(agent.name, {"type": "exec", "command": "make test", "cwd": "/src", "env": {"KEY": "s3cret"}, "id": "t-1"})
    agent.expect("task")
    agent.send("response", {"taskId": "t-1", "success": False, "error": "x", "duration": 7,
                            "result": {"exitCode": 2, "stdout": "private", "stderr": ""}})

    def both():
        found = [one for one in check_chain([h.daemon.state / "audit.log"]) if one.get("taskId") == "t-1"]
        return found if len(found) >= 2 else None
    received, finished = eventually(both)
    assert (received["event"], finished["event"]) == ("task.received", "task.finished")
    assert received["command"] == "make test" and received["cwd"] == "/src" and received["type"] == "exec"
    assert finished["success"] is False and finished["exitCode"] == 2
    text = (h.daemon.state / "audit.log").read_text()
    assert "s3cret" not in text and "private" not in text


def test_a_wrong_token_is_written_and_the_token_is_not(hub):
    h = hub()
    agent = unique("guess")
    token = h.register(agent)["token"]
    wrong = "ab" * 32
    status, sock, _, _ = h.handshake(f"/agent/{agent}/{wrong}")
    sock.close()
    assert status == 401

    def seen():
        return [one for one in check_chain([h.daemon.state / "audit.log"]) if one["event"] == "auth.failed"]
    assert eventually(seen)[0]["agentId"] == agent
    text = (h.daemon.state / "audit.log").read_text()
    assert wrong not in text and token not in text


def test_of_many_refused_strangers_most_are_only_counted(hub):
    h = hub()

    def knock(times):
        for n in range(times):
            status, sock, _, _ = h.handshake(f"/agent/stranger/{n:064x}")
            sock.close()
            assert status == 401

    def seen():
        return [one for one in check_chain([h.daemon.state / "audit.log"]) if one["event"] == "auth.failed"]

    def all_told(times):
        return sum(one.get("count", 1) for one in seen()) == times
    knock(100)
    eventually(lambda: all_told(100), 30)  # the rest in one line, when the while is over
    found = seen()
    assert len(found) <= 30 and found[0]["agentId"] == "stranger" and any("count" in one for one in found)
    knock(50)
    h.daemon.stop()
    assert all_told(150) and len(seen()) <= 60  # at the end nothing is left out


def test_the_chain_goes_on_after_sigkill_and_after_a_torn_line(hub):
    h = hub()
    for number in range(5):
        act(h, command=f"before {number}")
    h.daemon.kill()
    log = h.daemon.state / "audit.log"
    assert [one["command"] for one in check_chain([log])] == [f"before {n}" for n in range(5)]
    data = log.read_bytes()
    log.write_bytes(data[:-30])  # as a power cut would leave it
    h.daemon.start()
    h.connect()
    act(h, command="after")
    found = check_chain([log])
    assert [one.get("command") for one in found] == ["before 0", "before 1", "before 2", "before 3", None, "after"]
    assert found[4]["event"] == "audit.torn"


def test_a_changed_line_is_found(hub):
    h = hub()
    for command in ("one", "two", "three"):
        act(h, command=command)
    log = h.daemon.state / "audit.log"
    assert len(check_chain([log])) == 3
    changed = h.daemon.state.parent / f"{h.daemon.state.name}.changed"
    changed.write_bytes(log.read_bytes().replace(b'"two"', b'"tw0"'))
    with pytest.raises(AssertionError):
        check_chain([changed])


def test_the_log_rotates_and_the_chain_goes_through_all_files(hub):
    h = hub("--hub.audit_max=4K", "--hub.audit_keep=3")
    for number in range(60):
        act(h, command=f"{number:03} " + "x" * 200)
    state = h.daemon.state
    assert not (state / "audit.log.4").exists()
    files = [state / "audit.log.3", state / "audit.log.2", state / "audit.log.1", state / "audit.log"]
    commands = [one["command"][:3] for one in check_chain(files) if "command" in one]
    assert commands == [f"{n:03}" for n in range(60 - len(commands), 60)] and len(commands) > 30


def test_the_end_of_the_log_can_be_read_by_operators(hub):
    h = hub()
    for number in range(10):
        act(h, command=str(number))
    answer = h.http.get("/admin/audit", params={"lines": 3})
    assert answer.status_code == 200
    assert [json.loads(line)["command"] for line in answer.text.splitlines()] == ["7", "8", "9"]


def test_only_acts_of_the_command_line_can_be_reported(hub):
    h = hub()
    for event in ("task.received", "cli.Exec", 'cli."x', "cli.", "x" * 100):
        answer = h.http.post("/admin/audit", json={"event": event})
        assert answer.status_code == 400, event
    assert (h.daemon.state / "audit.log").read_bytes() == b""
