"""chela workflow, queue and schedule: for people and with --json, and their exit statuses."""

import json

import agent as act
import chelad
import pytest
import workflows as wf
from wait import eventually, unique

DONE, FAILED, USAGE, NOT_FOUND, NO_DAEMON = range(5)


@pytest.fixture
def chela(daemon):
    def run(*arguments, **options):
        return chelad.run("chela", "--state", daemon.state, *arguments, **options)
    return run


def value(done):
    assert done.returncode == DONE, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def said(done):
    assert (done.returncode, done.stderr) == (DONE, ""), done.stderr
    return done.stdout.strip()


def question(name, prompt="p", **more):
    return json.dumps({"agent_name": name, "prompt": prompt, **more})


def row(text, first):
    return next(line for line in text.splitlines() if line.split() and line.split()[0] == first)


def test_a_workflow_is_started_listed_shown_and_its_result_printed(daemon, chela, make_agent):
    name = daemon.register(make_agent(act.says("żółw 🦞")), unique("agent"))
    own = unique("id")
    assert said(chela("workflow", "start", wf.CALL, "--arg", question(name), "--id", own)) == own
    result = chela("workflow", "result", own)
    assert json.loads(said(result))["response"] == "żółw 🦞"
    again = chela("workflow", "start", wf.CALL, "--arg", question(name), "--id", own)
    assert (again.returncode, again.stdout) == (DONE, own + "\n") and "already" in again.stderr
    assert "SUCCESS" in row(said(chela("workflow", "ls")), own)
    assert said(chela("workflow", "ls", "--status=error", "--id-prefix", own)).count("\n") == 0
    listed = value(chela("workflow", "ls", "--json", "--id-prefix", own, "--status", "success,error"))
    assert [one["id"] for one in listed["workflows"]] == [own]
    shown = said(chela("workflow", "show", own))
    assert "SUCCESS" in shown and wf.CALL in shown and name in shown
    assert value(chela("workflow", "show", own, "--json")) == wf.show(daemon, own)
    assert "call" in row(said(chela("workflow", "steps", own)), "0")
    assert value(chela("workflow", "steps", own, "--json"))["steps"] == wf.steps(daemon, own)
    assert said(chela("workflow", "rm", own)) == f"removed {own}"
    for verb in ("show", "steps", "result", "rm", "cancel", "resume", "retry", "rewind"):
        assert chela("workflow", verb, own).returncode == NOT_FOUND, verb
    assert chela("workflow", "send", own, "m").returncode == NOT_FOUND
    assert chela("workflow", "fork", own, "--step=0").returncode == NOT_FOUND


def test_start_can_wait_and_read_its_argument_from_a_pipe(daemon, chela, make_agent):
    name = daemon.register(make_agent(act.echo), unique("agent"))
    done = chela("workflow", "start", wf.CALL, "--arg", "-", "--wait", text=question(name, "from a pipe"))
    assert json.loads(said(done))["response"] == "from a pipe"
    done = chela("workflow", "start", wf.CALL, "--args", f"[{question(name, 'a list')}]", "--queue",
                 "chela", "--priority", "3", "--wait", "--json")
    assert value(done)["output"]["response"] == "a list"
    done = chela("workflow", "start", wf.CALL, "--named", question(name, "named"), "--wait")
    assert json.loads(said(done))["response"] == "named"


def test_a_failed_workflow_is_status_1_with_its_reason(daemon, chela, make_agent):
    agent = make_agent(act.fails(500), act.says("better"))
    name = daemon.register(agent, unique("agent"), max_retries=1)
    done = chela("workflow", "start", wf.CALL, "--arg", question(name), "--id", name, "--wait")
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "ERROR" in done.stderr and "500 Internal Server Error" in done.stderr
    assert "failed: " in said(chela("workflow", "steps", name))
    done = chela("workflow", "result", name, "--json")
    assert done.returncode == FAILED and json.loads(done.stdout)["status"] == "ERROR"
    assert said(chela("workflow", "retry", name)) == f"retrying {name}"
    eventually(lambda: wf.show(daemon, name)["status"] == "SUCCESS", 30)
    assert json.loads(said(chela("workflow", "result", name)))["response"] == "better"
    assert said(chela("workflow", "rewind", name, "--step", "0")) == f"rewound {name}"
    assert chela("workflow", "retry", name).returncode in (DONE, FAILED)


def test_one_that_goes_on_is_status_1_when_the_time_is_up(daemon, chela, make_agent):
    agent = make_agent(act.held(act.says("late")))
    name = daemon.register(agent, unique("agent"), timeout_seconds=120)
    workflow = wf.begin(daemon, name)
    agent.wait_requests(1, 30)
    done = chela("workflow", "result", workflow, "--timeout", "100ms")
    assert done.returncode == FAILED and "PENDING" in done.stderr
    assert chela("workflow", "rm", workflow).returncode == FAILED
    assert said(chela("workflow", "send", workflow, "approved", "--topic", "t", "--key", "k"))
    assert value(chela("workflow", "send", workflow, '{"a":1}', "--json")) == {"sent": workflow}
    rows = wf.sql(daemon, "SELECT message FROM dbos.notifications WHERE destination_uuid ="
                          f" '{workflow}' ORDER BY created_at_epoch_ms")
    assert [json.loads(one[0]) for one in rows] == ["approved", {"a": 1}]
    assert said(chela("workflow", "cancel", workflow)) == "cancelled 1"
    agent.wait_abandoned(1, 30)
    done = chela("workflow", "result", workflow)
    assert done.returncode == FAILED and "CANCELLED" in done.stderr
    agent.release()
    assert said(chela("workflow", "resume", workflow, "--queue", "chela")) == f"resumed {workflow}"
    assert json.loads(said(chela("workflow", "result", workflow)))["response"] == "late"
    forked = said(chela("workflow", "fork", workflow, "--step", "1"))
    assert json.loads(said(chela("workflow", "result", forked)))["response"] == "late"
    assert value(chela("workflow", "fork", workflow, "--step=1", "--id", name, "--json")) == {"id": name}
    assert chela("workflow", "fork", workflow).returncode == USAGE


def test_stats(daemon, chela):
    text = said(chela("workflow", "stats"))
    assert "working" in text and "ENQUEUED" in text and "MAX_RECOVERY_ATTEMPTS_EXCEEDED" in text
    assert value(chela("workflow", "stats", "--json"))["working"] is True


@pytest.mark.parametrize("own", ["a/b", "ü ?&#%41", "-", "..", "x y"])
def test_an_id_with_odd_characters_is_encoded(daemon, chela, own):
    assert said(chela("workflow", "start", wf.CALL, "--id", own)) == own
    chela("workflow", "result", "--", own)
    assert value(chela("workflow", "show", "--json", "--", own))["id"] == own
    assert chela("workflow", "steps", "--", own).returncode == DONE
    assert said(chela("workflow", "rm", "--", own)) == f"removed {own}"


def test_queues(daemon, chela):
    name = unique("queue")
    assert said(chela("queue", "set", name, "--concurrency", "4", "--rate", "10/1m",
                      "--worker-concurrency=2", "--polling=2s")) == f"set {name}"
    cells = row(said(chela("queue", "ls")), name).split()
    assert cells[1:5] == ["4", "2", "10/60", "s"]
    queue, = [one for one in value(chela("queue", "ls", "--json"))["queues"] if one["name"] == name]
    assert (queue["rate_max"], queue["rate_period_s"], queue["polling_s"]) == (10, 60, 2)
    assert said(chela("queue", "rm", name)) == f"removed {name}"
    assert chela("queue", "rm", name).returncode == NOT_FOUND


@pytest.mark.parametrize("before", [(), ("workflow",)], ids=["schedule", "workflow schedule"])
def test_schedules(daemon, chela, make_agent, before):
    def schedule(*arguments):
        return chela(*before, "schedule", *arguments)
    agent = make_agent(act.says("good morning"))
    name, title = daemon.register(agent, unique("agent")), unique("schedule")
    made = said(schedule("set", title, "30 7 * * *", wf.CALL, "--context", question(name), "--zone",
                         "Europe/Berlin", "--misfire=once", "--overlap=skip", "--queue=chela"))
    assert made.startswith(f"set {title}, next at 20")
    line = row(said(schedule("ls")), title)
    assert "Europe/Berlin" in line and "active" in line and "once" in line
    assert said(schedule("pause", title)) == f"paused {title}"
    assert "paused" in row(said(schedule("ls")), title)
    assert said(schedule("resume", title)) == f"resumed {title}"
    started = said(schedule("trigger", title))
    assert json.loads(said(chela("workflow", "result", started)))["response"] == "good morning"
    filled = schedule("backfill", title, "2025-05-01T00:00:00Z", "2025-05-03T00:00:00Z")
    assert said(filled) == "enqueued 2"
    shown, = [one for one in value(schedule("ls", "--json"))["schedules"] if one["name"] == title]
    assert shown["context"] == json.loads(question(name)) and shown["queue"] == "chela"
    assert started in said(chela("workflow", "ls", "--schedule", title))
    assert said(schedule("rm", title)) == f"removed {title}"
    for verb in ("rm", "pause", "resume", "trigger"):
        assert schedule(verb, title).returncode == NOT_FOUND, verb
    assert schedule("set", title, "never", wf.CALL).returncode == FAILED
    assert title not in said(schedule("ls"))


USAGES = [("workflow",), ("workflow", "fly"), ("workflow", "show"), ("workflow", "start"),
          ("workflow", "ls", "surplus"), ("workflow", "ls", "--limit"), ("workflow", "send", "id"),
          ("workflow", "start", "n", "--arg", "{bad"), ("workflow", "start", "n", "--args", "{bad"),
          ("workflow", "start", "n", "--arg", "1", "--args", "[1]"),
          ("workflow", "start", "n", "--delay", "soon"), ("workflow", "start", "n", "--priority", "x"),
          ("workflow", "result", "x", "--timeout", "soon"), ("workflow", "fork", "x", "--step", "y"),
          ("workflow", "rewind", "x", "--step", "y"), ("queue",), ("queue", "set"),
          ("queue", "set", "q", "--rate", "10"), ("queue", "set", "q", "--rate", "x/1s"),
          ("queue", "set", "q", "--polling", "x"), ("schedule",), ("schedule", "set", "s", "* * * * *"),
          ("schedule", "set", "s", "* * * * *", "w", "--context", "{bad"), ("schedule", "backfill", "s"),
          ("workflow", "schedule"), ("workflow", "schedule", "fly")]


@pytest.mark.parametrize("arguments", USAGES, ids=" ".join)
def test_wrong_usage_is_status_2(chela, arguments):
    done = chela(*arguments)
    assert done.returncode == USAGE, done.stderr


def test_refusals_name_what_was_wrong_and_what_to_do(daemon, chela, make_agent):
    name = daemon.register(make_agent(act.says("x" * 200)), unique("agent"))
    done, queued = unique("id"), unique("id")
    assert said(chela("workflow", "start", wf.CALL, "--arg", question(name), "--id", done, "--wait"))
    assert said(chela("workflow", "start", "nobody's", "--queue=q-none", "--id", queued)) == queued
    for arguments, words in (
            (("workflow", "start", "nobody's"), ("'nobody's'", "queue")),
            (("workflow", "resume", done), ("SUCCESS", "rewind", "fork")),
            (("workflow", "retry", done), ("SUCCESS", "rewind", "fork")),
            (("workflow", "rewind", queued), ("ENQUEUED", "cancel")),
            (("workflow", "ls", "--status=gone"), ("GONE", "ENQUEUED", "MAX_RECOVERY")),
            (("queue", "rm", "q-gone"), ("'q-gone'",))):
        refused = chela(*arguments)
        assert refused.returncode in (FAILED, NOT_FOUND), arguments
        assert all(word in refused.stderr for word in words), refused.stderr
    cut = row(said(chela("workflow", "steps", done)), "0")
    assert cut.endswith("...") and "\\x" not in cut
    assert "unknown to this daemon" in row(said(chela("workflow", "ls")), queued)
    assert "unknown" not in row(said(chela("workflow", "ls")), done)
    assert said(chela("workflow", "cancel", queued)) == "cancelled 1"


def test_without_a_daemon_it_is_status_4(tmp_path):
    for arguments in (("workflow", "ls"), ("queue", "ls"), ("schedule", "ls"), ("workflow", "stats")):
        assert chelad.run("chela", "--state", tmp_path, *arguments).returncode == NO_DAEMON


def test_completion_knows_the_new_nouns(chela):
    text = chela("completion", "bash").stdout
    for word in ("'workflow start'*", "'queue set'*", "'schedule backfill'*", "--worker-concurrency"):
        assert word in text
