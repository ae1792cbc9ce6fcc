# SPDX-License-Identifier: MIT
"""Tasks of the hub: accepted, sent, answered, looked up; leases, time-outs, cancel, retries; restarts."""

import json
import threading
import time

import httpx
import postgres
import pytest
from hub_agent import Hub, HubAgent, connect
from wait import eventually, together, unique

QUICK = ("--hub.lease=600ms", "--hub.task_grace=300ms")


@pytest.fixture
def hub(daemon):
    return Hub(daemon)


@pytest.fixture
def quick(start):
    return Hub(start(*QUICK))


def echo(task):
    return {"result": {"stdout": task.get("command", ""), "exitCode": 0}}


# --- acceptance ---

def test_a_task_is_sent_and_its_result_is_kept(hub):
    agent, _ = connect(hub, name := unique("kept"))
    task = hub.post(name, type="exec", command="echo hi", extra={"a": [1, None]})
    seen = agent.next("task")
    assert seen["from"] == "host" and seen["to"] == name and len(seen["id"]) == 36
    assert seen["payload"] == {"taskId": task, "type": "exec", "command": "echo hi", "extra": {"a": [1, None]}}
    before = hub.becomes(task, "sent")
    assert before["response"] is None and before["completedAt"] is None and before["sentAt"] >= before["createdAt"]
    current = hub.agent(name)["currentTasks"]
    assert [(one["id"], one["type"], one["payload"]["command"]) for one in current] == [(task, "exec", "echo hi")]
    agent.result(task, result={"stdout": "hi", "exitCode": 0})
    done = hub.ended(task)
    assert done["status"] == "completed" and done["response"]["result"]["stdout"] == "hi"
    assert done["agentId"] == name and done["task"]["command"] == "echo hi" and done["type"] == "exec"
    assert agent.next("ack")["payload"] == {"taskId": task}
    assert hub.agent(name)["currentTasks"] == []
    stats = hub.agent(name)["stats"]
    assert (stats["tasksReceived"], stats["tasksCompleted"], stats["tasksFailed"]) == (1, 1, 0)


def test_the_answer_is_compact_and_says_sent_also_when_nobody_is_there(hub):
    hub.register(name := unique("away"))
    answer = hub.http.post(f"/agents/{name}/task", json={"type": "exec"})
    assert answer.json() == {"taskId": answer.json()["taskId"], "status": "sent", "queued": True}
    assert " " not in answer.text and answer.headers["content-type"] == "application/json; charset=utf-8"
    assert hub.task(answer.json()["taskId"])["status"] == "queued"


def test_a_failed_result_fails_the_task(hub):
    agent, _ = connect(hub, name := unique("fails"))
    task = hub.post(name, type="exec")
    agent.next_task()
    agent.result(task, success=False, error="Command failed: x", result={"exitCode": 3})
    assert hub.ended(task)["status"] == "failed"
    late = hub.post(name, type="exec")
    agent.next_task()
    agent.result(late, success=False, error="timed out", result={"timedOut": True})
    assert hub.ended(late)["status"] == "timeout"
    assert hub.agent(name)["stats"]["tasksFailed"] == 2


def test_wait_answers_with_the_record(hub):
    _, _ = connect(hub, name := unique("waits"), answer=echo)
    done = hub.post(name, wait=20000, type="exec", command="x")
    assert done["status"] == "completed" and done["response"]["result"]["stdout"] == "x"
    hub.register(nobody := unique("nobody"))
    still = hub.post(nobody, wait=50, type="exec")
    assert still["status"] == "queued" and still["sentAt"] is None


def test_an_id_may_be_chosen_once(hub):
    agent, _ = connect(hub, name := unique("ids"))
    mine = unique("chosen")
    assert hub.post(name, id=mine, type="exec") == mine
    assert agent.next_task() == {"taskId": mine, "id": mine, "type": "exec"}
    again = hub.http.post(f"/agents/{name}/task", json={"id": mine})
    assert again.status_code == 409 and mine in again.json()["error"]
    agent.result(mine)
    hub.ended(mine)
    assert hub.http.post(f"/agents/{name}/task", json={"id": mine}).status_code == 409


def test_a_body_cannot_forge_the_task_id(hub):
    agent, _ = connect(hub, name := unique("forged"))
    synonym = unique("synonym")
    assert hub.post(name, taskId=synonym, type="exec") == synonym
    assert agent.next_task()["taskId"] == synonym
    mine = unique("mine")
    assert hub.post(name, id=mine, taskId="forged", type="exec") == mine
    assert agent.next_task() == {"taskId": mine, "id": mine, "type": "exec"}
    agent.result(mine)
    assert hub.ended(mine)["status"] == "completed"


@pytest.mark.parametrize("bad", [{"id": []}, {"id": {}}, {"id": True}, {"id": "x" * 129}, {"id": "a\nb"}])
def test_what_is_no_id_is_refused(hub, bad):
    hub.register(name := unique("badid"))
    answer = hub.http.post(f"/agents/{name}/task", json=bad)
    assert answer.status_code == 400 and "id" in answer.json()["error"]


def test_ids_as_javascript_sees_them(hub):
    agent, _ = connect(hub, name := unique("jsids"))
    for nothing in (0, "", None, False):
        assert len(hub.post(name, id=nothing)) == 36
        agent.next_task()
    number = int(time.time() * 1000)
    assert hub.post(name, id=number) == str(number)
    assert agent.next_task()["taskId"] == str(number)
    agent.result(number)
    assert hub.ended(str(number))["status"] == "completed"


def test_bodies_that_are_no_tasks(hub):
    agent, _ = connect(hub, name := unique("bodies"))
    path = f"/agents/{name}/task"
    for text in ("[]", "[1]", "3", "null", "{", ""):
        answer = hub.http.post(path, content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == (400 if text else 200), (text, answer.text)
        if text:
            assert answer.json()["error"]
    assert hub.http.post(path, content="x=1", headers={"Content-Type": "text/plain"}).status_code == 200
    assert set(agent.next_task()) == {"taskId"} and set(agent.next_task()) == {"taskId"}
    assert hub.http.post(f"/agents/{unique('none')}/task", json={}).json() == {"error": "Agent not found"}
    assert hub.http.post(f"/agents/{unique('none')}/task", json={}).status_code == 404


def test_a_large_task_arrives_whole(hub):
    agent, _ = connect(hub, name := unique("large"))
    content = "grüße " * 150_000
    task = hub.post(name, type="file:write", content=content)
    assert agent.next_task()["content"] == content
    agent.result(task, result={"content": content})
    assert hub.ended(task)["response"]["result"]["content"] == content


def test_many_callers_each_get_their_own_result(hub):
    names = [unique("many") for _ in range(8)]
    for name in names:
        connect(hub, name, answer=echo)

    def run(i):
        done = hub.post(names[i % 8], wait=30000, type="exec", command=str(i))
        return done["response"]["result"]["stdout"]
    assert together(run, range(200), 32) == [str(i) for i in range(200)]


def test_tasks_come_in_the_order_in_which_they_were_given(hub):
    agent, _ = connect(hub, name := unique("order"))
    tasks = [hub.post(name, n=i) for i in range(50)]
    assert [agent.next_task()["taskId"] for _ in tasks] == tasks


# --- responses ---

def test_only_the_first_answer_to_a_known_task_counts(hub):
    agent, _ = connect(hub, name := unique("double"))
    other, _ = connect(hub, stranger := unique("stranger"))
    task = hub.post(name, type="exec")
    agent.next_task()
    other.result(task, result="stolen")
    assert other.next("ack")["payload"]["taskId"] == task
    assert hub.task(task)["status"] == "sent"
    agent.result(task, result="first")
    agent.next("ack")
    agent.result(task, success=False, result="second")
    assert agent.next("ack")["payload"]["taskId"] == task
    agent.result("never-heard-of")
    assert agent.next("ack")["payload"]["taskId"] == "never-heard-of"
    assert hub.task(task)["response"]["result"] == "first"
    stats = hub.agent(name)["stats"]
    assert (stats["tasksCompleted"], stats["tasksFailed"]) == (1, 0)
    assert hub.agent(stranger)["stats"]["tasksCompleted"] == 0


def test_states_are_those_the_agent_reports(hub):
    agent, _ = connect(hub, name := unique("states"))
    task = hub.post(name, type="exec")
    agent.next_task()
    agent.status(task, "queued")
    agent.status(task, "running")
    running = hub.becomes(task, "running")
    assert running["startedAt"] >= running["sentAt"]
    for listed in (hub.http.get("/tasks", params={"state": "running", "limit": 1000}),
                   hub.http.get(f"/agents/{name}/tasks", params={"state": "running"})):
        assert task in [one["id"] for one in listed.json()["tasks"]]
    assert hub.http.get(f"/agents/{name}/tasks", params={"state": "sent"}).json() == {"tasks": []}
    agent.result(task)
    assert hub.ended(task)["startedAt"] == running["startedAt"]


# --- looking ---

def test_lists_are_newest_first_and_have_pages(hub):
    connect(hub, name := unique("lists"), answer=echo)
    tasks = [hub.post(name, wait=20000, command=str(i))["id"] for i in range(7)]
    listed = hub.http.get(f"/agents/{name}/tasks").json()["tasks"]
    assert [one["id"] for one in listed] == tasks[::-1]
    first = hub.http.get(f"/agents/{name}/tasks", params={"limit": 3}).json()["tasks"]
    rest = hub.http.get(f"/agents/{name}/tasks", params={"before": first[-1]["seq"]}).json()["tasks"]
    assert [one["id"] for one in first + rest] == tasks[::-1]
    assert len(hub.http.get("/tasks", params={"limit": 2, "state": "completed"}).json()["tasks"]) == 2
    assert hub.http.get("/tasks", params={"state": "odd"}).status_code == 400
    assert hub.http.get(f"/agents/{unique('x')}/tasks").status_code == 404


def test_who_looks_for_the_wrong_task_is_told(hub):
    agent, _ = connect(hub, name := unique("look"))
    hub.register(other := unique("other"))
    task = hub.post(name, type="exec")
    for path in ("/tasks/none", f"/agents/{name}/tasks/none", f"/agents/{other}/tasks/{task}"):
        answer = hub.http.get(path)
        assert answer.status_code == 404 and answer.json() == {"error": "Task not found"}
    assert hub.http.get(f"/agents/{name}/tasks/{task}").json()["task"]["id"] == task
    agent.result(task)
    assert hub.http.get(f"/agents/{name}/tasks/{task}", params={"wait": 20000}).json()["task"]["status"] == "completed"
    assert hub.http.get(f"/agents/{other}/tasks/{task}").status_code == 404


def test_an_id_with_a_slash_can_be_read(hub):
    connect(hub, name := unique("slash"), answer=echo)
    mine = unique("a/b c")
    hub.post(name, id=mine)
    quoted = mine.replace("/", "%2F").replace(" ", "%20")
    done = hub.http.get(f"/tasks/{quoted}", params={"wait": 20000}).json()["task"]
    assert done["id"] == mine and done["status"] == "completed"


# --- queue ---

def test_what_waits_is_sent_in_order_before_the_welcome(hub):
    token = hub.register(name := unique("queue"))
    tasks = [hub.post(name, n=i) for i in range(5)]
    agent = HubAgent(hub, name, token)
    assert [one["taskId"] for one in agent.welcomed()] == tasks
    after = hub.post(name)
    assert agent.next_task()["taskId"] == after


def test_a_full_queue_loses_its_oldest_to_the_dead_letters(start):
    hub = Hub(start("--hub.queue_max=3"))
    token = hub.register("full")
    tasks = [hub.post("full", n=i) for i in range(4)]
    gone = hub.ended(tasks[0])
    assert gone["status"] == "failed" and "queue full" in gone["reason"] and gone["response"] is None
    letters = eventually(lambda: hub.http.get("/admin/dlq").json()["deadLetterQueue"])
    assert [(one["message"]["payload"]["taskId"], one["error"]) for one in letters] == [(tasks[0], "queue full")]
    assert [one["taskId"] for one in HubAgent(hub, "full", token).welcomed()] == tasks[1:]


def test_a_full_queue_may_refuse(start):
    hub = Hub(start("--hub.queue_max=2", "--hub.queue_full=refuse"))
    token = hub.register("refuses")
    tasks = [hub.post("refuses", n=i) for i in range(2)]
    answer = hub.http.post("/agents/refuses/task", json={})
    assert answer.status_code == 429 and "queue_max" in answer.json()["error"]
    agent = HubAgent(hub, "refuses", token)
    assert [one["taskId"] for one in agent.welcomed()] == tasks
    more = hub.post("refuses")  # it holds as many as it may: this one waits
    assert hub.task(more)["status"] == "queued"
    agent.result(tasks[0])
    assert agent.next_task()["taskId"] == more


def test_what_nobody_comes_for_expires(start):
    hub = Hub(start("--hub.queue_max_age=300ms"))
    hub.register("old")
    gone = hub.ended(hub.post("old"))
    assert gone["status"] == "failed" and gone["reason"].startswith("expired")
    letters = eventually(lambda: hub.http.get("/admin/dlq").json()["deadLetterQueue"])
    assert letters[0]["error"] == "expired"


def test_a_drained_agent_is_sent_nothing(hub):
    agent, _ = connect(hub, name := unique("drained"))
    first = hub.post(name)
    assert agent.next_task()["taskId"] == first
    assert hub.http.post(f"/agents/{name}/drain", json={"draining": True}).status_code == 200
    task = hub.post(name)
    agent.nothing_more("task")
    assert hub.task(task)["status"] == "queued"
    agent.result(first)
    assert hub.ended(first)["status"] == "completed"
    assert hub.http.post(f"/agents/{name}/drain", json={"draining": False}).status_code == 200
    assert agent.next_task()["taskId"] == task


def test_a_deregistered_agents_tasks_fail(hub):
    agent, _ = connect(hub, name := unique("gone"))
    sent = hub.post(name)
    agent.next_task()
    assert hub.http.delete(f"/agents/{name}").status_code == 200
    record = hub.task(sent)
    assert record["status"] == "failed" and "deregistered" in record["reason"]


# --- time-outs, cancel, leases ---

def test_a_task_without_an_answer_times_out_and_the_agent_is_told(quick):
    agent, _ = connect(quick, "slow")
    task = quick.post("slow", type="exec", timeout=200)
    agent.next_task()
    assert quick.ended(task)["status"] == "timeout"
    assert agent.next("cancel")["payload"] == {"taskId": task, "reason": "timeout"}
    agent.result(task, result="late")
    assert agent.next("ack")["payload"]["taskId"] == task
    record = quick.task(task)
    assert record["status"] == "timeout" and record["response"]["result"] == "late"
    assert quick.agent("slow")["stats"]["tasksCompleted"] == 0


def test_waiting_with_the_agent_is_not_running(quick):
    agent, _ = connect(quick, "busy")
    agent.resync()
    task = quick.post("busy", type="exec", timeout=200)
    agent.next_task()
    agent.status(task, "queued")
    other = quick.post("busy", type="exec", timeout=200)
    agent.next_task()
    assert quick.ended(other)["status"] == "timeout"
    assert quick.task(task)["status"] == "sent"
    agent.status(task, "running")
    assert quick.ended(task)["status"] == "timeout"


def test_what_waits_is_cancelled_at_once(hub):
    token = hub.register(name := unique("cancel"))
    task, kept = hub.post(name), hub.post(name)
    answer = hub.http.post(f"/agents/{name}/tasks/{task}/cancel")
    assert answer.status_code == 200 and answer.json()["task"]["status"] == "canceled"
    again = hub.http.post(f"/tasks/{task}/cancel")
    assert again.status_code == 409
    assert hub.http.post("/tasks/none/cancel").status_code == 404
    agent = HubAgent(hub, name, token)
    assert [one["taskId"] for one in agent.welcomed()] == [kept]


def test_an_agent_that_can_is_asked_to_cancel(hub):
    agent, _ = connect(hub, name := unique("asked"))
    agent.resync()
    task = hub.post(name)
    agent.next_task()
    agent.status(task, "running")
    asked = hub.http.post(f"/tasks/{task}/cancel").json()["task"]
    assert asked["completedAt"] is None and asked["canceling"]
    assert agent.next("cancel")["payload"]["taskId"] == task
    agent.result(task, success=False, error="canceled: an operator asked for it")
    done = hub.ended(task)
    assert done["status"] == "canceled" and done["response"]["error"].startswith("canceled")


def test_a_result_that_was_faster_than_the_cancel_counts(hub):
    agent, _ = connect(hub, name := unique("faster"))
    agent.resync()
    task = hub.post(name)
    agent.next_task()
    hub.http.post(f"/tasks/{task}/cancel")
    agent.result(task, result="done")
    assert hub.ended(task)["status"] == "completed"


def test_an_agent_of_the_original_protocol_cannot_be_asked(hub):
    agent, _ = connect(hub, name := unique("original"))
    task = hub.post(name)
    agent.next_task()
    record = hub.http.post(f"/tasks/{task}/cancel", params={"wait": 20000}).json()["task"]
    assert record["status"] == "canceled"
    agent.result(task, result="all the same")
    agent.next("ack")
    assert hub.task(task)["response"]["result"] == "all the same" and hub.task(task)["status"] == "canceled"


def test_a_cancel_that_is_never_confirmed_ends_by_itself(quick):
    agent, _ = connect(quick, "deaf")
    agent.resync()
    task = quick.post("deaf")
    agent.next_task()
    assert quick.http.post(f"/tasks/{task}/cancel", params={"wait": 30000}).json()["task"]["status"] == "canceled"


def test_an_agent_that_stays_away_loses_its_tasks(quick):
    agent, token = connect(quick, "lost")
    task = quick.post("lost")
    again = quick.post("lost", retry=True)
    agent.next_task(), agent.next_task()
    agent.cut()
    quick.online("lost", False)
    record = quick.ended(task)
    assert record["status"] == "lost" and "away" in record["reason"]
    assert quick.becomes(again, "queued")["attempts"] == 1
    agent = HubAgent(quick, "lost", token)
    assert [one["taskId"] for one in agent.welcomed()] == [again]
    agent.result(again)
    assert quick.ended(again)["attempts"] == 2


def test_a_task_is_handed_out_so_often_and_no_more(start):
    hub = Hub(start("--hub.lease=200ms", "--hub.task_attempts=2"))
    agent, token = connect(hub, "unlucky")
    task = hub.post("unlucky", retry=True)
    for _ in range(2):
        agent.next_task()
        agent.cut()
        if hub.becomes(task, "queued", "lost")["status"] == "queued":
            agent = HubAgent(hub, "unlucky", token)
    assert hub.ended(task)["status"] == "lost"


# --- coming back ---

def test_an_original_agent_that_comes_back_is_not_given_a_task_twice(hub):
    agent, token = connect(hub, name := unique("back"))
    task = hub.post(name)
    agent.next_task()
    agent.cut()
    hub.online(name, False)
    waited = hub.post(name)
    agent = HubAgent(hub, name, token)
    assert [one["taskId"] for one in agent.welcomed()] == [waited]
    assert hub.task(task)["status"] == "sent"
    agent.result(task)
    assert hub.ended(task)["status"] == "completed"


def test_a_resync_says_what_each_side_has(hub):
    agent, token = connect(hub, name := unique("resync"))
    agent.resync()
    unheard, running, done, ended = [hub.post(name, n=i) for i in range(4)]
    for _ in range(4):
        agent.next_task()
    agent.status(running, "running")
    agent.say("log", {"taskId": running, "stream": "stdout", "offset": 0, "data": "abcde"})
    agent.result(ended)
    agent.next("ack")
    hub.becomes(running, "running")
    agent.cut()
    hub.online(name, False)
    agent = HubAgent(hub, name, token)
    agent.welcomed()
    answers = agent.resync((running, "running"), (done, "done"), (ended, "running"), ("strange", "queued"))
    assert answers == {
        running: {"taskId": running, "known": True, "ended": False, "stdout": 5, "stderr": 0},
        ended: {"taskId": ended, "known": False, "ended": True, "stdout": 0, "stderr": 0},
        "strange": {"taskId": "strange", "known": False, "ended": True, "stdout": 0, "stderr": 0},
    }
    assert agent.next_task()["taskId"] == unheard  # sent, and not named: it never arrived
    for task in (unheard, running, done):
        agent.result(task)
        assert hub.ended(task)["status"] == "completed"
    agent.nothing_more("task")


def test_a_running_task_that_the_agent_has_forgotten_is_lost(hub):
    agent, token = connect(hub, name := unique("forgot"))
    agent.resync()
    task, again = hub.post(name), hub.post(name, retry=True)
    for _ in range(2):
        agent.status(agent.next_task()["taskId"], "running")
    hub.becomes(task, "running"), hub.becomes(again, "running")
    agent.cut()
    hub.online(name, False)
    agent = HubAgent(hub, name, token)
    agent.resync()
    assert hub.ended(task)["status"] == "lost"
    assert agent.next_task()["taskId"] == again
    agent.result(again)
    assert hub.ended(again)["status"] == "completed"


# --- restarts ---

def test_everything_is_there_after_a_kill(start):
    daemon = start(*QUICK)
    hub = Hub(daemon)
    agent, token = connect(hub, "after")
    agent.resync()
    done = hub.post("after", type="exec")
    agent.next_task()
    agent.result(done, result={"stdout": "x"})
    hub.ended(done)
    running = hub.post("after", type="exec")
    agent.next_task()
    agent.status(running, "running")
    away = hub.register("away")
    waiting = [hub.post("away", n=i) for i in range(3)]
    daemon.kill()
    daemon.start()
    hub = Hub(daemon)
    assert hub.task(done)["response"]["result"]["stdout"] == "x"
    assert hub.task(running)["status"] in ("sent", "running")
    agent = HubAgent(hub, "after", token)
    agent.welcomed()
    assert agent.resync((running, "running"))[running]["known"]
    agent.result(running)
    assert hub.ended(running)["status"] == "completed"
    assert [one["taskId"] for one in HubAgent(hub, "away", away).welcomed()] == waiting


def test_after_a_kill_an_original_agent_is_sent_nothing_that_it_may_have(start):
    daemon = start("--hub.lease=60s")
    hub = Hub(daemon)
    token = hub.register("twice")
    waited = hub.post("twice")
    agent = HubAgent(hub, "twice", token)
    assert agent.welcomed()[0]["taskId"] == waited
    sent = hub.post("twice")
    agent.next_task()
    daemon.kill()
    daemon.start()
    hub = Hub(daemon)
    agent = HubAgent(hub, "twice", token)
    assert agent.welcomed() == []
    agent.result(waited)
    assert hub.ended(waited)["status"] == "completed"
    assert hub.task(sent)["status"] == "sent"
    agent.cut()
    daemon.stop()
    daemon.flags = (*daemon.flags, "--hub.lease=500ms")
    daemon.start()
    hub = Hub(daemon)
    assert hub.ended(sent)["status"] == "lost"


def test_results_that_come_while_many_run_survive_a_kill(start):
    daemon = start()
    hub = Hub(daemon)
    agent, token = connect(hub, "hundred")
    agent.resync()
    tasks = together(lambda i: hub.post("hundred", n=i), range(100), 8)
    seen = {agent.next_task()["taskId"] for _ in tasks}
    assert seen == set(tasks)
    for task in tasks[:50]:
        agent.result(task, result=task)
    agent.next("ack")
    daemon.kill()
    daemon.start()
    hub = Hub(daemon)
    agent = HubAgent(hub, "hundred", token)
    agent.welcomed()
    agent.resync(*((task, "done") for task in tasks))
    for task in tasks:
        agent.result(task, result=task)
    records = [hub.ended(task) for task in tasks]
    assert [one["response"]["result"] for one in records] == tasks
    assert len(hub.http.get("/agents/hundred/tasks", params={"limit": 1000}).json()["tasks"]) == 100


# --- output ---

def events(hub, task, headers=None):
    """The server-sent events of a task's output, as (event, data, id)."""
    with hub.http.stream("GET", f"/tasks/{task}/output", headers=headers or {}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event = {}
        for line in (line.rstrip("\n") for line in answer.iter_lines()):
            if not line and "data" in event:
                yield event["event"], json.loads(event["data"]), event.get("id")
                event = {}
            elif ": " in line and not line.startswith(":"):
                key, _, value = line.partition(": ")
                event[key] = value


def log(agent, task, offset, data, stream="stdout", **more):
    agent.say("log", {"taskId": task, "stream": stream, "offset": offset, "data": data, **more})


def test_live_output_is_streamed_until_the_end(hub):
    agent, _ = connect(hub, name := unique("output"))
    task = hub.post(name)
    agent.next_task()
    log(agent, task, 0, "one\n")
    log(agent, task, 0, "warn\n", "stderr")
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(events(hub, task)))
    reader.start()
    eventually(lambda: len(seen) >= 2)
    log(agent, task, 4, "two\n")
    log(agent, task, 4, "two\nthree\n")  # again, and more
    log(agent, task, 0, "one\n")  # all of it again
    agent.status(task, "running")
    hub.becomes(task, "running")
    agent.result(task, result="end")
    reader.join(30)
    assert not reader.is_alive()
    assert seen[-1][0] == "end" and seen[-1][1]["status"] == "completed" and seen[-1][1]["response"]["result"] == "end"
    text = {"stdout": "", "stderr": ""}
    for kind, data, _ in seen[:-1]:
        assert kind == "output" and data["offset"] == len(text[data["stream"]])
        text[data["stream"]] += data["data"]
    assert text == {"stdout": "one\ntwo\nthree\n", "stderr": "warn\n"}
    assert list(events(hub, task))[-1][0] == "end"  # who comes late gets the end at once


def test_a_reader_that_comes_back_goes_on(hub):
    agent, _ = connect(hub, name := unique("goes-on"))
    task = hub.post(name)
    agent.next_task()
    log(agent, task, 0, "abc")
    stream = events(hub, task)
    kind, data, at = next(stream)
    assert (kind, data["data"]) == ("output", "abc") and at == "3.0"
    stream.close()
    log(agent, task, 3, "x", "stderr")
    log(agent, task, 3, "d\ufffd", bytes=2)
    agent.result(task)
    seen = [(data["stream"], data["data"]) for kind, data, _ in events(hub, task, {"Last-Event-ID": at})
            if kind == "output"]
    assert ("stdout", "abc") not in seen
    assert hub.http.get("/tasks/none/output").status_code == 404


def test_of_much_output_the_newest_is_kept(start):
    hub = Hub(start("--hub.output_max=4K"))
    agent, _ = connect(hub, "much")
    task = hub.post("much")
    agent.next_task()
    for i in range(100):
        log(agent, task, i * 1000, f"{i:03}" + "x" * 997)
        log(agent, task, i, "e", "stderr")
    agent.status(task, "running")
    hub.becomes(task, "running")
    stream = events(hub, task)
    first = next(data for _, data, _ in stream if data["stream"] == "stdout")
    assert first["offset"] > 50_000
    agent.result(task)
    rest = list(stream)
    assert rest[-1][0] == "end" and sum(len(data["data"]) for _, data, _ in rest[:-1]) < 8192


def test_of_one_large_piece_of_output_the_end_is_kept(start):
    hub = Hub(start("--hub.output_max=4K"))
    agent, _ = connect(hub, "large")
    task = hub.post("large")
    agent.next_task()
    log(agent, task, 0, "x" * 100_001 + "\u00e9" * 3000)  # the cut falls into a character
    log(agent, task, 0, "y" * 9000, "stderr", bytes=3)  # of these nobody knows which byte is which
    agent.status(task, "running")
    hub.becomes(task, "running")
    stream = events(hub, task)
    _, data, _ = next(stream)
    assert data["stream"] == "stderr" and len(data["data"]) == 4096
    log(agent, task, 106_001, "\u00e9" * 2049 + "z")
    _, data, _ = next(stream)
    assert (data["offset"], data["data"]) == (106_005, "\u00e9" * 2047 + "z")
    agent.result(task)
    assert next(stream)[0] == "end"


def test_output_that_comes_again_is_cut_between_characters(hub):
    agent, _ = connect(hub, name := unique("cut"))
    task = hub.post(name)
    agent.next_task()
    log(agent, task, 0, "ab")
    stream = events(hub, task)
    assert next(stream)[1]["data"] == "ab"
    log(agent, task, 0, "a\u00e9z")  # two bytes are there, the second is in the midst of a character
    _, data, _ = next(stream)
    assert (data["offset"], data["data"]) == (3, "z")
    agent.result(task)
    assert next(stream)[0] == "end"


def test_of_a_task_that_was_never_sent_no_output_is_kept(hub):
    agent, _ = connect(hub, name := unique("unsent"))
    agent.resync()
    assert hub.http.post(f"/agents/{name}/drain", json={"draining": True}).status_code == 200
    task = hub.post(name)
    log(agent, task, 0, "x" * 1000)
    assert agent.resync((task, "running"))[task]["stdout"] == 0


# --- retention ---

def test_ended_tasks_go_but_the_newest_stay(start):
    hub = Hub(start("--hub.task_keep_rows=10"))
    connect(hub, "rows", answer=echo)
    tasks = [hub.post("rows", wait=20000, n=i)["id"] for i in range(30)]
    eventually(lambda: len(hub.http.get("/agents/rows/tasks").json()["tasks"]) == 10, 30, 0.2)
    assert [one["id"] for one in hub.http.get("/agents/rows/tasks").json()["tasks"]] == tasks[:-11:-1]


def test_ended_tasks_go_in_time_and_open_ones_stay(start):
    hub = Hub(start("--hub.task_keep=1s"))
    connect(hub, "time", answer=echo)
    hub.register("open")
    stays = hub.post("open")
    goes = hub.post("time", wait=20000)["id"]
    eventually(lambda: hub.http.get(f"/tasks/{goes}").status_code == 404, 30, 0.2)
    assert hub.task(stays)["status"] == "queued"


# --- bounds ---

def test_what_is_too_large_is_refused(start):
    hub = Hub(start("--hub.body_max=10K", "--hub.tasks_memory=12K"))
    hub.register("small")
    assert hub.http.post("/agents/small/task", json={"x": "y" * 20_000}).status_code == 413
    hub.post("small", x="y" * 9000)
    answer = hub.http.post("/agents/small/task", json={"x": "y" * 9000})
    assert answer.status_code == 503 and "tasks_memory" in answer.json()["error"]
    assert hub.post("small", x="y")


def test_a_clean_stop_lets_go_who_waits(start):
    daemon = start()
    hub = Hub(daemon)
    hub.register("stops")
    task = hub.post("stops")
    answers = []

    def wait():
        try:
            answers.append(hub.http.get(f"/tasks/{task}", params={"wait": 60000}).status_code)
        except httpx.TransportError as problem:
            answers.append(problem)
    waiter = threading.Thread(target=wait)
    waiter.start()
    begun = time.monotonic()
    daemon.begin_stop()
    daemon.stop()
    waiter.join(30)
    assert answers and time.monotonic() - begun < 50


# --- the database is away ---

def test_results_that_come_while_the_database_is_away_are_kept(start, store):
    if store.kind != "postgres":
        pytest.skip("SQLite is never away")
    cluster = postgres.Cluster(in_memory=True).start()
    try:
        hub = Hub(start(env={"DATABASE_URL": cluster.new_database()}, fresh=False))
        agent, _ = connect(hub, "outage")
        agent.resync()
        task = hub.post("outage")
        agent.next_task()
        cluster.stop()
        agent.result(task, result="kept")
        refused = hub.http.post("/agents/outage/task", json={})
        assert refused.status_code == 503 and refused.json()["error"]
        agent.nothing_more("ack")
        assert hub.agent("outage")["currentTasks"]
        cluster.start()
        assert agent.next("ack")["payload"]["taskId"] == task
        assert hub.ended(task)["response"]["result"] == "kept"
        assert hub.http.post("/agents/outage/task", json={}).status_code == 200
    finally:
        cluster.remove()


def test_results_of_unknown_tasks_do_not_pile_up_while_the_database_is_away(start, store):
    if store.kind != "postgres":
        pytest.skip("SQLite is never away")
    cluster = postgres.Cluster(in_memory=True).start()
    try:
        hub = Hub(start(env={"DATABASE_URL": cluster.new_database()}, fresh=False))
        agent, _ = connect(hub, "strange")
        agent.resync()
        cluster.stop()
        for n in range(40):
            agent.result(f"unknown-{n}", result="x" * 1_000_000)
        agent.nothing_more("ack")
        cluster.start()
        taken = [agent.next("ack")["payload"]["taskId"] for _ in range(33)]
        assert taken == [f"unknown-{n}" for n in range(33)]
        agent.nothing_more("ack")  # the agent has kept these, and says them again
        agent.result("unknown-39", result="x")
        assert agent.next("ack")["payload"]["taskId"] == "unknown-39"
    finally:
        cluster.remove()


# --- two daemons on one database ---

@pytest.fixture
def pair(store, start):
    if store.kind != "postgres":
        pytest.skip("SQLite has one daemon per file")
    first = start("--hub.lease=1s", "--durable.lease=2s")
    token = Hub(first).register("shared")
    second = start("--hub.lease=1s", "--durable.lease=2s", fresh=False, env={"DATABASE_URL": first.env["DATABASE_URL"]})
    return Hub(first), Hub(second), token


def test_what_one_daemon_has_accepted_the_other_ends(pair):
    here, there, token = pair
    agent = HubAgent(here, "shared", token)
    agent.welcomed()
    tasks = [there.post("shared", n=i) for i in range(3)]
    for task in tasks:
        assert agent.next_task()["taskId"] == task
    assert {there.becomes(task, "sent")["status"] for task in tasks} == {"sent"}
    for task in tasks:
        agent.result(task)
        assert there.ended(task)["status"] == "completed"
    eventually(lambda: there.agent("shared")["currentTasks"] == [], 30, 0.2)


def test_a_task_accepted_by_one_daemon_reaches_an_agent_at_the_other(pair):
    here, there, token = pair
    waiting = there.post("shared", n=0)
    agent = HubAgent(here, "shared", token)
    assert [one["taskId"] for one in agent.welcomed()] == [waiting]
    task = there.post("shared", n=1)
    assert agent.next_task()["taskId"] == task
    agent.result(waiting), agent.result(task, result="seen")
    for hub in (there, here):
        assert hub.ended(task)["response"]["result"] == "seen"
        assert hub.ended(waiting)["status"] == "completed"
    asked = there.post("shared", n=2)
    agent.next_task()
    assert there.http.post(f"/tasks/{asked}/cancel").status_code == 200
    assert agent.next("cancel")["payload"]["taskId"] == asked


def test_an_agent_moves_to_the_other_daemon_with_its_tasks(pair):
    here, there, token = pair
    agent = HubAgent(here, "shared", token)
    agent.resync()
    task = here.post("shared")
    agent.next_task()
    agent.status(task, "running")
    here.becomes(task, "running")
    agent.cut()
    agent = HubAgent(there, "shared", token)
    agent.welcomed()
    assert agent.resync((task, "running"))[task]["known"]
    time.sleep(1.5)  # the lease of the first is over: it must not end what is not its own any more
    agent.result(task, result="moved")
    for hub in (here, there):
        assert hub.ended(task)["response"]["result"] == "moved"


def test_an_agent_that_registers_at_one_daemon_is_known_to_the_other(pair):
    here, there, _ = pair
    token = here.register("new", type="fresh")
    agent = HubAgent(there, "new", token)  # at once
    agent.welcomed()
    assert there.agent("new")["metadata"]["type"] == "fresh"
    task = here.post("new")
    assert agent.next_task()["taskId"] == task
    agent.result(task)
    assert here.ended(task)["status"] == "completed"
    other = there.register("newer")
    task = here.post("newer")  # at once
    assert [one["taskId"] for one in HubAgent(here, "newer", other).welcomed()] == [task]
    assert here.http.get("/agents/nobody/status").status_code == 404
    here.register("newest")
    assert there.http.post("/agents/newest/drain", json={}).status_code == 200  # at once
    there.register("short")
    assert here.http.delete("/agents/short").status_code == 200  # at once


def test_a_token_that_one_daemon_voids_opens_nothing_at_the_other(pair):
    here, there, _ = pair
    agent = HubAgent(here, "moved", here.register("moved"))
    agent.welcomed()
    token = there.register("moved", type="again")
    assert agent.closed() == 4001
    agent = HubAgent(here, "moved", token)
    agent.welcomed()
    assert here.agent("moved")["metadata"]["type"] == "again"
    assert there.http.delete("/agents/moved").status_code == 200
    assert agent.closed() == 4003
    eventually(lambda: here.http.get("/agents/moved/status").status_code == 404, 30, 0.1)


def test_messages_reach_an_agent_at_the_other_daemon(pair):
    here, there, token = pair
    sender = HubAgent(here, "sender", here.register("sender"))
    sender.welcomed()
    agent = HubAgent(there, "shared", token)
    agent.welcomed()
    for n in range(20):
        sender.say("log", {"n": n}, to="shared")
    assert [agent.next("log", "status")["payload"] for _ in range(20)] == [{"n": n} for n in range(20)]
    task = here.post("shared")  # tasks go on
    assert agent.next_task()["taskId"] == task
    agent.cut()
    there.online("shared", False)
    sender.say("log", {"n": 20}, to="shared")
    sender.say("log", {"n": 21}, to="sender")
    assert sender.next("log")["payload"] == {"n": 21}
    eventually(lambda: there.http.get("/admin/stats").is_success)
    agent = HubAgent(there, "shared", token)
    assert agent.next("log")["payload"] == {"n": 20}


def test_a_drain_at_one_daemon_counts_at_the_other(pair):
    here, there, token = pair
    agent = HubAgent(here, "shared", token)
    agent.welcomed()
    assert there.http.post("/agents/shared/drain", json={"draining": True}).status_code == 200
    eventually(lambda: here.agent("shared")["draining"], 30, 0.1)
    task = here.post("shared")
    agent.nothing_more("task")
    assert there.http.post("/agents/shared/drain", json={"draining": False}).status_code == 200
    assert agent.next_task()["taskId"] == task


def test_tasks_of_a_dead_daemon_are_watched_over_by_the_other(pair):
    here, there, token = pair
    agent = HubAgent(here, "shared", token)
    task, again = here.post("shared"), here.post("shared", retry=True)
    agent.next_task(), agent.next_task()
    here.daemon.kill()
    agent.sock.close()
    assert there.ended(task)["status"] == "lost"
    there.becomes(again, "queued")
    agent = HubAgent(there, "shared", token)
    assert [one["taskId"] for one in agent.welcomed()] == [again]
    agent.result(again)
    assert there.ended(again)["attempts"] == 2
