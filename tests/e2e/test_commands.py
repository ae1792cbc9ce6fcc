"""Commands from chat: what each answers, what it leaves behind, who is told, and that each is carried out once."""

import re
import time

import chelad
import pytest
import workflows
from gateway import Socket
from openclaw_peer import TOKEN, OpenClaw
from wait import eventually, together, unique

PYTHON_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")
NONE = "No active work found for this issue"
_issues = iter(range(1000, 100000))


@pytest.fixture
def issue():
    """An issue nobody else works on."""
    return next(_issues)


def say(daemon, text, status=200, **fields):
    answer = daemon.http.post("/api/v1/commands", json={"message": text, **fields})
    assert answer.status_code == status, answer.text
    return answer.json()


def tracker(daemon, issue):
    answer = daemon.http.get(f"/api/v1/trackers/{issue}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def tell(daemon, issue, status=200, **change):
    answer = daemon.http.patch(f"/api/v1/trackers/{issue}", json=change)
    assert answer.status_code == status, answer.text
    return answer.json()


def agent(daemon, agent_id):
    answer = daemon.http.get(f"/api/v1/agents/{agent_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def heard(daemon, session, n):
    """The next n texts in a mailbox, each acknowledged."""
    with Socket(daemon) as reader:
        reader.subscribe(session)
        texts = []
        for _ in range(n):
            message = reader.message()
            texts.append(message["content"])
            reader.ack(message["messageId"])
        reader.pushed.clear()
        reader.quiet(0.3)
    return texts


# --- the orchestrator's objects ---

def test_work_status_list_and_stop(daemon, issue):
    mailbox = f"desk:{issue}"
    work = say(daemon, f"work on issue #{issue}", **{"from": mailbox})
    assert work == {"success": True, "issue_number": issue, "agent_id": work["agent_id"], "state": "agent_ready",
                    "workflow_uuid": work["workflow_uuid"]}
    made = agent(daemon, work["agent_id"])
    assert (made["openclaw_session_key"], made["status"]) == (f"agent:issue-{issue}:main", "running")
    assert (made["name"], made["model"]) == (f"issue-{issue}", "anthropic/claude-sonnet-4-5")

    status = say(daemon, f"status of issue {issue}")
    row = status["workflow"]
    assert set(status) == {"success", "issue_number", "status", "workflow", "agent", "workflow_uuid"}
    assert (status["success"], status["issue_number"], status["status"]) == (True, issue, "agent_ready")
    assert set(row) == {"issue_number", "agent_id", "state", "started_at", "completed_at", "pr_url", "error"}
    assert (row["agent_id"], row["state"], row["completed_at"]) == (work["agent_id"], "agent_ready", None)
    assert PYTHON_TIME.fullmatch(row["started_at"])
    assert set(status["agent"]) == {"agent_id", "state", "spawned_at"}
    assert (status["agent"]["agent_id"], status["agent"]["state"]) == (work["agent_id"], "running")
    assert PYTHON_TIME.fullmatch(status["agent"]["spawned_at"])

    listed = say(daemon, "list agents")
    assert listed["success"] is True and listed["total_agents"] == len(listed["agents"])
    mine, = [one for one in listed["agents"] if one["issue_number"] == issue]
    assert (mine["agent_id"], mine["state"], mine["issue_state"]) == (work["agent_id"], "running", "agent_ready")

    stop = say(daemon, f"stop work on issue #{issue}")
    assert stop == {"success": True, "issue_number": issue, "message": f"Stopped work on issue #{issue}",
                    "workflow_uuid": stop["workflow_uuid"]}
    assert agent(daemon, work["agent_id"])["status"] == "stopped"
    assert say(daemon, f"status of issue {issue}")["status"] == NONE
    assert say(daemon, f"stop issue {issue}")["message"] == NONE
    assert not [one for one in say(daemon, "list")["agents"] if one["issue_number"] == issue]
    assert heard(daemon, mailbox, 1) == [f"✓ Agent spawned for issue #{issue}\n\nAgent ID: {work['agent_id']}"]


def test_unknown_issues(daemon, issue):
    assert say(daemon, f"status of issue {issue}")["status"] == NONE
    assert say(daemon, f"stop issue {issue}")["message"] == NONE
    assert daemon.http.get(f"/api/v1/trackers/{issue}").status_code == 404
    assert daemon.http.get("/api/v1/trackers/x").status_code == 404


def test_work_under_way_is_not_begun_again(daemon, issue):
    first = say(daemon, f"work on issue {issue}")
    again = say(daemon, f"work on issue {issue}")
    assert again["agent_id"] == first["agent_id"] and again["existing"] is True
    assert again["workflow_uuid"] != first["workflow_uuid"]


def test_many_at_once_make_one_agent(daemon, issue):
    results = together(lambda _: say(daemon, f"work on issue {issue}"), range(20))
    assert all(result["success"] for result in results)
    begun = [result for result in results if "existing" not in result]
    assert len(begun) == 1
    assert {result["agent_id"] for result in results} <= {begun[0]["agent_id"], None}
    agents = daemon.http.get("/api/v1/agents", params={"limit": 200}).json()["agents"]
    assert len([one for one in agents if one["name"] == f"issue-{issue}"]) == 1


def test_work_after_work_has_another_agent(daemon, issue):
    first = say(daemon, f"work on issue {issue}")
    say(daemon, f"stop issue {issue}")
    second = say(daemon, f"work on issue {issue}")
    assert second["success"] and second["agent_id"] != first["agent_id"]
    assert agent(daemon, second["agent_id"])["openclaw_session_key"] == f"agent:issue-{issue}:main-1"
    assert tracker(daemon, issue)["agent_id"] == second["agent_id"]


def test_the_same_message_is_one_command(daemon, issue):
    key = unique("wamid")
    results = together(lambda _: say(daemon, f"work on issue {issue}", id=key), range(10))
    assert len({result["agent_id"] for result in results}) == 1
    assert {result["workflow_uuid"] for result in results} == {f"cmd:{key}"}
    say(daemon, f"stop issue {issue}")
    assert say(daemon, f"work on issue {issue}", id=key) == results[0]  # it was said long ago
    long = "x" * 900
    assert say(daemon, "list", id=long)["workflow_uuid"] == say(daemon, "list", id=long)["workflow_uuid"]


def test_a_command_is_a_durable_workflow(daemon, issue):
    work = say(daemon, f"work on issue {issue}")
    shown = daemon.http.get(f"/api/v1/workflows/{work['workflow_uuid']}").json()
    assert (shown["name"], shown["class_name"], shown["status"]) == ("handleCommand", "SwarmCommandWorkflow", "SUCCESS")
    assert shown["output"] == {key: value for key, value in work.items() if key != "workflow_uuid"}
    steps = daemon.http.get(f"/api/v1/workflows/{work['workflow_uuid']}/steps").json()["steps"]
    assert [step["name"] for step in steps] == ["parseCommand", "beginWork", "spawnAgent", "agentReady", "notify"]
    started = daemon.http.post("/api/v1/workflows", json={"name": "handleCommand", "args": ["list agents"],
                                                          "class_name": "SwarmCommandWorkflow"}).json()
    done = workflows.result(daemon, started["id"])
    assert done["status"] == "SUCCESS" and done["output"]["success"] is True


def test_help(daemon):
    text = say(daemon, "/help")["message"]
    assert text.splitlines() == ["Commands:", "work on issue #N", "status of issue #N", "stop work on issue #N",
                                 "list agents"]


# --- what is refused ---

@pytest.mark.parametrize("body, status", [
    ({}, 400), ({"from": "x"}, 400), ({"message": 7}, 400), ({"message": None}, 400), ([], 400),
    ({"message": "list", "id": "x" * 1001}, 400), ({"message": "list " + "x" * 70000}, 413)])
def test_bodies_that_are_none(daemon, body, status):
    answer = daemon.http.post("/api/v1/commands", json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) >= {"error"}


def test_text_is_another_name_of_message(daemon):
    assert daemon.http.post("/api/v1/commands", json={"text": "list"}).json()["success"] is True


def test_a_long_command_is_named_whole(daemon):
    text = "walk the dog " * 60
    error = say(daemon, text)["error"]
    assert error == (f"Unknown command: '{text.strip()}'. Supported commands: work on issue #N, status of issue #N,"
                     " stop work on issue #N, list agents")


def test_an_agent_that_cannot_be_made(start):
    daemon = start("--swarm.model=no-provider")
    work = say(daemon, "work on issue 5", **{"from": "desk:1"})
    assert (work["success"], work["issue_number"], work["state"]) == (False, 5, "failed")
    assert "provider/model-name" in work["error"]
    row = tracker(daemon, 5)
    assert (row["state"], row["error"]) == ("failed", work["error"])
    assert heard(daemon, "desk:1", 1) == [f"❌ Error on issue #5\n\nError: {work['error']}"]
    assert [one["status"] for one in daemon.http.get("/api/v1/agents").json()["agents"]] == ["stopped"]
    assert say(daemon, "status #5")["workflow"]["error"] == work["error"]
    assert say(daemon, "stop #5")["message"] == "Stopped work on issue #5"


# --- trackers ---

def test_an_agent_tells_of_its_work_and_each_change_is_told_once(daemon, issue):
    mailbox = f"desk:{issue}"
    work = say(daemon, f"work on issue {issue}", **{"from": mailbox})
    url = f"https://example.org/o/r/pull/{issue}1"
    for _ in range(2):
        assert tell(daemon, issue, state="work_in_progress", task="mend it")["state"] == "work_in_progress"
    for _ in range(2):
        assert tell(daemon, issue, state="pr_created", pr_url=url)["pr_url"] == url
    assert tell(daemon, issue, state="tests_running")["state"] == "tests_running"
    tell(daemon, issue, tests="failing", error="2 of 9")
    for _ in range(2):
        tell(daemon, issue, tests="passing", coverage="87.5", id="run-2")
    done = tell(daemon, issue, state="completed")
    assert tell(daemon, issue, state="completed")["completed_at"] == done["completed_at"]
    assert PYTHON_TIME.fullmatch(done["completed_at"]) and done["workflow_uuid"] == work["workflow_uuid"]
    assert heard(daemon, mailbox, 6) == [
        f"✓ Agent spawned for issue #{issue}\n\nAgent ID: {work['agent_id']}",
        f"🚀 Work started on issue #{issue}\n\nAgent: {work['agent_id']}\nTask: mend it",
        f"✓ PR #{issue}1 created for issue #{issue}\n\nURL: {url}",
        f"❌ Tests failing for issue #{issue}\n\nError: 2 of 9",
        f"✓ All tests passing for issue #{issue}\n\nCoverage: 87.5%",
        f"✅ Issue #{issue} completed\n\nPR #{issue}1 ready for review\nURL: {url}"]


def test_what_has_ended_stays_so(daemon, issue):
    say(daemon, f"work on issue {issue}")
    tell(daemon, issue, state="failed", error="no idea")
    for change in ({"state": "completed"}, {"state": "work_in_progress"}, {"tests": "passing"}):
        assert f"issue #{issue} is in state 'failed'" in tell(daemon, issue, 409, **change)["error"]
    assert tracker(daemon, issue)["error"] == "no idea"
    assert say(daemon, f"work on issue {issue}")["state"] == "agent_ready"
    row = tracker(daemon, issue)
    assert (row["error"], row["completed_at"], row["state"]) == (None, None, "agent_ready")


@pytest.mark.parametrize("change, status", [
    ({}, 400), ({"state": "stopped"}, 400), ({"state": "agent_ready"}, 400), ({"state": "parsing"}, 400),
    ({"tests": "maybe"}, 400), ({"state": "pr_created"}, 400), ({"pr_number": "x"}, 400)])
def test_changes_that_are_none(daemon, issue, change, status):
    say(daemon, f"work on issue {issue}")
    tell(daemon, issue, status, **change)
    assert tracker(daemon, issue)["state"] == "agent_ready"


def test_nothing_is_told_of_work_that_is_not(daemon, issue):
    assert tell(daemon, issue, 404, state="completed")["error"] == f"No work on issue {issue}"


def test_the_list_of_trackers(daemon, issue):
    say(daemon, f"work on issue {issue}")

    def numbers(**query):
        answer = daemon.http.get("/api/v1/trackers", params=query)
        assert answer.status_code == 200, answer.text
        return [one["issue_number"] for one in answer.json()["trackers"]]

    assert issue in numbers(limit=1000) and issue in numbers(active="true", limit=1000)
    assert issue in numbers(state="agent_ready", limit=1000) and issue not in numbers(state="failed", limit=1000)
    say(daemon, f"stop issue {issue}")
    assert issue not in numbers(active="true", limit=1000) and issue in numbers(state="stopped", limit=1000)
    assert len(numbers(limit=1)) == 1 and numbers(limit=1000) == sorted(numbers(limit=1000))
    for query in ({"state": "lost"}, {"limit": 0}, {"limit": 1001}, {"active": "perhaps"}):
        assert daemon.http.get("/api/v1/trackers", params=query).status_code == 400


# --- replies ---

def test_results_are_replied_where_it_is_asked_for(daemon, issue):
    mailbox = f"desk:{issue}"
    ask = {"from": mailbox, "reply": True}
    work = say(daemon, f"work on issue {issue}", **ask)
    say(daemon, f"work on issue {issue}", **ask)
    say(daemon, f"status of issue {issue}", **ask)
    say(daemon, "hello", **ask)
    say(daemon, f"stop issue {issue}", **ask)
    say(daemon, f"status of issue {issue}", **ask)
    assert heard(daemon, mailbox, 6) == [
        f"✓ Agent spawned for issue #{issue}\n\nAgent ID: {work['agent_id']}",
        f"Issue #{issue} is already being worked on: agent_ready\n\nAgent ID: {work['agent_id']}",
        f"Issue #{issue}: agent_ready\n\nAgent ID: {work['agent_id']}",
        "❌ Unknown command: 'hello'. Supported commands: work on issue #N, status of issue #N, stop work on issue #N,"
        " list agents",
        f"Stopped work on issue #{issue}", f"Issue #{issue}: {NONE}"]


def test_a_channels_webhook(daemon, issue):
    body = {"from": f"+49{issue}", "message": f"status of issue {issue}", "timestamp": "2026-02-20T12:00:00Z",
            "channel": "desk"}
    answers = [daemon.http.post("/whatsapp/command", json=body).json() for _ in range(2)]
    assert answers[0] == answers[1] and answers[0]["status"] == NONE
    assert heard(daemon, f"desk:+49{issue}", 1) == [f"Issue #{issue}: {NONE}"]


# --- channels of an OpenClaw gateway ---

@pytest.fixture
def openclaw():
    peer = OpenClaw()
    yield peer
    peer.stop()


@pytest.fixture
def listening(start, openclaw):
    daemon = start(f"--openclaw.url={openclaw.url}", "--openclaw.commands=agent:main:telegram:*",
                   env={"OPENCLAW_TOKEN": TOKEN})
    openclaw.wait_connected()
    eventually(lambda: daemon.http.get("/api/v1/openclaw/status").json()["connected"], 30)
    return daemon


DIRECT, GROUP = "agent:main:telegram:direct:111", "agent:main:telegram:group:-5"


def test_a_command_in_a_channel_is_obeyed_and_answered_there(listening, openclaw):
    openclaw.tell(DIRECT, "work on issue 5", "m1")
    spawned, = openclaw.wait_texts(1)
    row = tracker(listening, 5)
    assert spawned == f"✓ Agent spawned for issue #5\n\nAgent ID: {row['agent_id']}"
    assert row["requested_by"] == "telegram:111" and row["state"] == "agent_ready"
    openclaw.tell(DIRECT, [{"type": "text", "text": "[Fri 2026-11-20 17:42 UTC] status #5"}], "m2")
    assert openclaw.wait_texts(2)[1] == f"Issue #5: agent_ready\n\nAgent ID: {row['agent_id']}"
    method, params = openclaw.said[1]
    assert (method, params["channel"], params["to"]) == ("send", "telegram", "111")


def test_a_message_that_is_told_twice_is_obeyed_once(listening, openclaw):
    for _ in range(3):
        openclaw.tell(DIRECT, "status #5", "m1")
    openclaw.tell(DIRECT, "status #6", "m2")
    assert [text[:8] for text in openclaw.wait_texts(2)] == ["Issue #5", "Issue #6"]
    time.sleep(0.3)
    assert len(openclaw.texts()) == 2


def test_what_was_written_while_the_connection_was_away_is_obeyed_once(listening, openclaw):
    openclaw.keep(DIRECT, "status #1", "old", age=3 * 3600)
    openclaw.tell(DIRECT, "status #5", "m1")
    openclaw.keep(DIRECT, "status #5", "m1")
    assert openclaw.wait_texts(1)[0].startswith("Issue #5")
    openclaw.stop()
    eventually(lambda: not listening.http.get("/api/v1/openclaw/status").json()["connected"], 30)
    openclaw.keep(DIRECT, "[Fri 2026-11-20 17:42 UTC] status #6", "m2")
    openclaw.keep(DIRECT, "status #7", "m3", role="assistant")
    openclaw.keep("agent:main:discord:direct:1", "status #8", "m4")
    openclaw.begin()
    openclaw.wait_connected()
    assert [text[:8] for text in openclaw.wait_texts(2)] == ["Issue #5", "Issue #6"]
    openclaw.tell(DIRECT, "status #9", "m5")
    assert [text[:8] for text in openclaw.wait_texts(3)] == ["Issue #5", "Issue #6", "Issue #9"]


def test_what_is_not_obeyed(listening, openclaw):
    openclaw.tell(DIRECT, "status #1", "a", role="assistant")
    openclaw.tell(DIRECT, "how are you?", "b")
    openclaw.tell(GROUP, "status #2", "c")
    openclaw.tell("agent:main:discord:direct:1", "status #3", "d")
    openclaw.tell(GROUP, "@bot status #4", "e")
    openclaw.tell(GROUP, "status #5", "f", mentioned=True)
    openclaw.tell(DIRECT, "status #x", "g")
    texts = openclaw.wait_texts(3)
    said = [(params["to"], text.split(":")[0]) for (_, params), text in zip(openclaw.said, texts)]
    assert [text for to, text in said if to == "-5"] == ["Issue #4", "Issue #5"]  # in order to each, not between them
    assert [text for to, text in said if to != "-5"] == ["❌ Invalid issue number"] and len(openclaw.said) == 3


def test_our_own_words_are_no_commands(listening, openclaw):
    """Texts that we say come back as messages of the session."""
    listening.http.post("/messages", json={"from": "someone", "to": "telegram:111", "content": "status #9"})
    openclaw.wait_texts(1)
    openclaw.tell(DIRECT, "status #9", "echo")
    openclaw.tell(DIRECT, "status #10", "real")
    assert openclaw.wait_texts(2)[1].startswith("Issue #10")
    assert len(openclaw.texts()) == 2


def test_nobody_is_at_work(own):
    done = chelad.run("chela", "--state", own.state, "swarm", "command", "list agents")
    assert (done.returncode, done.stdout) == (0, "no agents at work\n"), done.stderr
    assert say(own, "list", **{"from": "desk:1", "reply": True}) | {"workflow_uuid": 0} == {
        "success": True, "total_agents": 0, "active_agents": 0, "agents": [], "workflow_uuid": 0}
    assert heard(own, "desk:1", 1) == ["No active agents"]


def test_without_a_setting_nobody_is_obeyed(start, openclaw):
    daemon = start(f"--openclaw.url={openclaw.url}", env={"OPENCLAW_TOKEN": TOKEN})
    openclaw.wait_connected()
    eventually(lambda: daemon.http.get("/api/v1/openclaw/status").json()["connected"], 30)
    openclaw.tell(DIRECT, "work on issue 5", "m1")
    daemon.http.post("/messages", json={"from": "a", "to": "telegram:1", "content": "later"})
    assert openclaw.wait_texts(1) == ["later"]
    assert daemon.http.get("/api/v1/trackers").json()["trackers"] == []


# --- crashes ---

def test_a_command_survives_a_kill(start):
    daemon = start()
    issues = range(1, 9)
    for issue in issues:
        answer = daemon.http.post("/api/v1/workflows", json={
            "name": "handleCommand", "class_name": "SwarmCommandWorkflow", "id": f"cmd:k{issue}",
            "args": [{"text": f"work on issue {issue}", "from": "desk:k"}]})
        assert answer.status_code == 201, answer.text
    daemon.kill()
    daemon.start()
    for issue in issues:
        done = workflows.result(daemon, f"cmd:k{issue}")
        assert done["status"] == "SUCCESS" and done["output"]["state"] == "agent_ready", done
        assert tracker(daemon, issue)["agent_id"] == done["output"]["agent_id"]
    agents = daemon.http.get("/api/v1/agents", params={"limit": 200}).json()["agents"]
    assert sorted(one["name"] for one in agents) == sorted(f"issue-{issue}" for issue in issues)
    assert sorted(heard(daemon, "desk:k", len(issues))) == sorted(
        f"✓ Agent spawned for issue #{issue}\n\nAgent ID: {tracker(daemon, issue)['agent_id']}" for issue in issues)


# --- the command line ---

def test_the_command_line(daemon, issue):
    def chela(*words, status=0):
        done = chelad.run("chela", "--state", daemon.state, "swarm", *words)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    assert re.fullmatch(rf"issue {issue}: agent_ready, agent [0-9a-f-]{{36}}\n",
                        chela("command", "work", "on", "issue", f"#{issue}"))
    assert chela("command", f"work on issue {issue}").endswith(" (already)\n")
    assert f"issue {issue}: agent_ready" in chela("command", f"status of issue {issue}")
    assert str(issue) in chela("command", "list agents")
    assert str(issue) in chela("trackers", "--only", "agent_ready", "--limit", "1000")
    assert chela("command", f"stop issue {issue}") == f"Stopped work on issue #{issue}\n"
    assert str(issue) not in chela("trackers", "--active", "--limit", "1000")
    assert "Unknown command: 'dance'" in chela("command", "dance", status=1)
    assert '"success":true' in chela("command", "--json", "list")
