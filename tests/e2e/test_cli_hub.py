"""chela task, hub and machine: the hub's commands and their exit statuses, with agents that a test plays."""

import json
import select
import subprocess

import chelad
import pytest
from hub_client import Hub
from wait import eventually, unique

DONE, FAILED, USAGE, NOT_FOUND, NO_DAEMON, TIMEOUT = 0, 1, 2, 3, 4, 124


@pytest.fixture(scope="module")
def hub(daemon):
    hub = Hub(daemon)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def chela(daemon):
    def run(*arguments, **options):
        return chelad.run("chela", "--state", daemon.state, *arguments, **options)
    return run


def value(done):
    assert done.returncode == DONE, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def begin(daemon, *words, stdin=subprocess.DEVNULL):
    """A command that goes on; its output is a pipe."""
    return subprocess.Popen([chelad.BIN / "chela", "--state", daemon.state, *words], stdout=subprocess.PIPE, stdin=stdin,
                            stderr=subprocess.PIPE, text=True, env=chelad.environment("/nonexistent"))


def ends(child, status=DONE):
    out, err = child.communicate(timeout=30)
    assert child.returncode == status, err
    return out, err


def answer(agent, task, success=True, **more):
    agent.send("response", {"taskId": task["taskId"], "success": success, "duration": 1, "timestamp": 1, **more})


def next_task(agent):
    return agent.expect("task")["payload"]


def test_a_task_is_sent_waited_for_and_shown(daemon, hub, chela):
    agent = hub.agent()
    child = begin(daemon, "task", "send", agent.name, '{"type":"exec","command":"x"}', "--wait")
    task = next_task(agent)
    assert (task["type"], task["command"]) == ("exec", "x")
    answer(agent, task, result={"stdout": "hi", "stderr": "", "exitCode": 0})
    out, _ = ends(child)
    assert json.loads(out)["result"]["stdout"] == "hi"
    record = value(chela("task", "show", task["taskId"], "--json"))
    assert record["status"] == "completed" and record["agentId"] == agent.name
    shown = chela("task", "show", task["taskId"]).stdout
    assert "completed" in shown and '"stdout":"hi"' in shown
    listed = value(chela("task", "ls", "--agent", agent.name, "--json"))["tasks"]
    assert [one["id"] for one in listed] == [task["taskId"]]
    row = chela("task", "ls", "--agent", agent.name, "--status", "completed").stdout.splitlines()[1].split()
    assert row[:4] == [task["taskId"], agent.name, "exec", "completed"]
    assert len(chela("task", "ls", "--agent", agent.name, "--status", "failed").stdout.splitlines()) <= 1


def test_a_task_that_fails_is_late_or_nobodys(daemon, hub, chela):
    agent = hub.agent()
    child = begin(daemon, "task", "send", agent.name, '{"type":"exec"}', "--wait")
    answer(agent, next_task(agent), success=False, error="it was too much", stack="")
    out, err = ends(child, FAILED)
    assert json.loads(out)["error"] == "it was too much" and err == "chela: it was too much\n"
    done = chela("task", "send", agent.name, "{}", "--wait", "--timeout", "200ms")
    assert (done.returncode, done.stdout) == (TIMEOUT, "")
    done = chela("task", "send", agent.name, "-", text='{"type":"exec","id":"%s"}' % (own := unique("id")))
    assert done.stdout == own + "\n"
    assert chela("task", "send", agent.name, '{"type":"exec"}', "--id", own).returncode == FAILED  # known
    assert chela("task", "send", "nobody", "{}").returncode == NOT_FOUND
    assert chela("task", "send", agent.name, "[]").returncode == USAGE
    assert chela("task", "show", "nothing").returncode == NOT_FOUND
    assert chela("task", "cancel", "nothing").returncode == NOT_FOUND


def test_the_output_of_a_task_as_it_comes(daemon, hub):
    agent = hub.agent()
    task = hub.task(agent.name, {"type": "exec", "command": "x"})["taskId"]
    next_task(agent)
    agent.send("log", {"taskId": task, "stream": "stdout", "offset": 0, "data": "one\n"})
    child = begin(daemon, "task", "output", task)
    assert child.stdout.readline() == "one\n"
    agent.send("log", {"taskId": task, "stream": "stderr", "offset": 0, "data": "oops\n"})
    agent.send("log", {"taskId": task, "stream": "stdout", "offset": 4, "data": "two\n"})
    assert child.stdout.readline() == "two\n"
    answer(agent, {"taskId": task}, success=False, error="Command failed", stack="",
           result={"stdout": "one\ntwo", "stderr": "oops", "exitCode": 5})
    assert ends(child, 5) == ("", "oops\n")


def test_exec_on_an_agent_of_the_original_shows_the_result(daemon, hub):
    agent = hub.agent()
    child = begin(daemon, "machine", "exec", agent.name, "ls", "-la", "--color")
    task = next_task(agent)
    assert task["command"] == "ls -la --color"
    answer(agent, task, result={"stdout": "a file", "stderr": "hm", "exitCode": 0})
    assert ends(child) == ("a file\n", "hm\n")


def test_exec_gives_standard_input_only_to_agents_that_take_it(daemon, hub, chela):
    agent = hub.agent()
    agent.send("health", {"cpu": 1})  # one of the original's
    agent.flushed()
    done = chela("machine", "exec", agent.name, "cat", text="hi")
    assert done.returncode == FAILED and "takes no standard input, so nothing was run" in done.stderr
    agent.send("health", {"stdin": True})
    agent.flushed()
    child = begin(daemon, "machine", "exec", agent.name, "cat", stdin=subprocess.PIPE)
    child.stdin.write("hi")
    child.stdin.close()
    child.stdin = None
    task = next_task(agent)
    assert (task["command"], task["stdin"]) == ("cat", "hi")
    answer(agent, task, result={"stdout": "hi", "stderr": "", "exitCode": 0})
    assert ends(child)[0] == "hi\n"


def test_exec_goes_on_where_it_was_when_the_hub_was_away(start):
    daemon = start("--hub.http_port=0", "--hub.ws_port=0")
    hub = Hub(daemon)
    agent = hub.agent()
    child = begin(daemon, "machine", "exec", agent.name, "long")
    task = next_task(agent)["taskId"]
    agent.send("log", {"taskId": task, "stream": "stdout", "offset": 0, "data": "before\n"})
    assert child.stdout.readline() == "before\n"
    daemon.kill()
    daemon.start()
    hub.connect()
    again = hub.open(agent.name, agent.token)
    again.welcome()
    again.send("log", {"taskId": task, "stream": "stdout", "offset": 0, "data": "before\nafter\n"})
    assert child.stdout.readline() == "after\n"
    answer(again, {"taskId": task}, result={"stdout": "before\nafter", "stderr": "", "exitCode": 0})
    assert ends(child)[0] == ""
    hub.close()


def test_cancel(hub, chela):
    name = unique("agent")
    hub.register(name)
    task = hub.task(name, {"type": "exec"})["taskId"]
    done = chela("task", "cancel", task)
    assert (done.returncode, done.stdout) == (DONE, f"canceled {task}\n")
    assert value(chela("task", "show", task, "--json"))["status"] == "canceled"
    assert chela("task", "cancel", task).returncode == FAILED


def test_agents_are_registered_listed_drained_and_removed(hub, chela):
    name = unique("agent")
    told = value(chela("hub", "register", name, "--type", "builder", "--metadata", '{"cpu":4}', "--json"))
    agent = hub.open(name, told["token"])
    agent.welcome()
    row = next(line.split() for line in chela("hub", "agents").stdout.splitlines() if line.startswith(name + " "))
    assert row[1] == "online"
    assert hub.status(name)["metadata"]["cpu"] == 4
    assert chela("hub", "drain", name).stdout == f"drained {name}\n"
    assert hub.status(name)["draining"] is True
    assert value(chela("hub", "drain", name, "--off", "--json"))
    assert hub.status(name)["draining"] is False
    assert "token" in chela("hub", "register", name).stdout  # again: a new one, the old socket is closed
    assert agent.closed()[0] == 4001
    assert chela("hub", "rm", name).stdout == f"deregistered {name}\n"
    assert chela("hub", "rm", name).returncode == NOT_FOUND
    assert chela("hub", "register", "a b").returncode == FAILED


def test_events_and_the_audit_log(daemon, hub, chela):
    child = begin(daemon, "hub", "events")
    name = unique("agent")

    def seen():
        hub.register(name)  # until the stream is open
        return select.select([child.stdout], [], [], 0.5)[0]
    try:
        eventually(seen, 30)
        assert name in child.stdout.readline()
    finally:
        child.terminate()
        child.communicate(timeout=30)
    lines = [json.loads(line) for line in chela("hub", "audit", "--lines", "5").stdout.splitlines()]
    assert lines and {"ts", "event", "hash"} <= set(lines[-1])
    assert chela("audit", "verify").stdout.startswith("intact: ")


def test_dead_letters(hub, chela):
    agent = hub.agent()
    agent.send("log", {"level": "info"}, to=unique("nobody"))
    agent.flushed()
    eventually(lambda: value(chela("task", "dead", "--json"))["deadLetterQueue"])
    assert len(chela("task", "dead").stdout.splitlines()) >= 2
    assert chela("task", "dead", "--clear").returncode == DONE
    assert value(chela("task", "dead", "--json"))["deadLetterQueue"] == []


def test_a_dead_letter_is_shown_replayed_and_dropped(hub, chela):
    agent, later = hub.agent(), unique("later")
    agent.send("log", {"level": "info"}, to=later)
    agent.send("log", {"level": "warn"}, to=later)

    def mine():
        return [one for one in value(chela("dead", "ls", "--json"))["deadLetterQueue"]
                if isinstance(one["message"], dict) and one["message"].get("to") == later]
    first, second = eventually(lambda: len(found := mine()) == 2 and found)
    assert str(first["position"]) in chela("dead", "ls").stdout
    shown = chela("dead", "show", first["position"]).stdout
    assert "unknown recipient" in shown and later in shown
    assert value(chela("dead", "show", first["position"], "--json")) == first
    assert chela("dead", "replay", first["position"]).returncode == FAILED
    there = hub.agent(later)
    assert chela("dead", "replay", first["position"]).stdout == f"replayed {first['position']}\n"
    assert there.expect("log")["payload"] == {"level": "info"}
    assert chela("dead", "drop", second["position"]).stdout == f"dropped {second['position']}\n"
    assert mine() == []
    for verb in ("show", "replay", "drop"):
        assert chela("dead", verb, first["position"]).returncode == NOT_FOUND


def test_machines_that_are_none(chela):
    assert {one["name"] for one in value(chela("machine", "drivers", "--json"))["drivers"]} >= {"sandbox", "qemu"}
    assert value(chela("machine", "ls", "--json")) == {"machines": []}
    for words in (("show", "x"), ("start", "x"), ("stop", "x"), ("restart", "x"), ("snapshots", "x"),
                  ("snapshot", "x", "s"), ("restore", "x", "s"), ("forget", "x", "s"), ("destroy", "x", "--force"),
                  ("exec", "x", "true"), ("cp", "x:/a", "/nonexistent"), ("apply", "x", "builder")):
        assert chela("machine", *words).returncode == NOT_FOUND, words
    assert chela("machine", "create", "1x").returncode == FAILED
    assert chela("machine", "create", "x", "--cpus", "many").returncode == USAGE


def test_where_the_hub_is(daemon, hub, chela, tmp_path):
    url = f"http://{daemon.ready['listeners']['hub']}"
    assert chelad.run("chela", "--url", url, "hub", "agents").returncode == DONE
    assert chelad.run("chela", "hub", "agents", env={"CHELA_HUB_URL": url + "/"}).returncode == DONE
    done = chelad.run("chela", "hub", "agents", env={"CHELA_URL": daemon.url})
    assert done.returncode == USAGE and "CHELA_HUB_URL" in done.stderr
    assert chelad.run("chela", "--state", tmp_path, "hub", "agents").returncode == NO_DAEMON
    assert chelad.run("chela", "--url", "http://127.0.0.1:9", "task", "ls").returncode == NO_DAEMON
