"""The daemon ends while workflows are under way, by kill -9 or in order: nothing accepted is lost,
and nothing that was done is done again."""

import threading
import time

import agent as act
import chelad
import pytest
import workflows as wf
from wait import eventually, unique

QUEUE = "chela"
SOON = ("--durable.lease=2s",)  # on PostgreSQL the dead process's lease may have to run out


def test_a_call_cut_by_a_crash_is_made_again_and_has_one_result(start, make_agent):
    daemon = start(*SOON)
    agent = make_agent(act.hangs, act.says("after the crash"))
    name = daemon.register(agent, "a", timeout_seconds=120)
    workflow = wf.begin(daemon, name, "the question", id="one",
                        question={"session_id": "s", "user_id": "u"})
    agent.wait_requests(1, 30)
    daemon.kill()
    daemon.start()
    assert wf.result(daemon, workflow)["output"]["response"] == "after the crash"
    assert agent.prompts() == ["the question"] * 2
    assert daemon.turns("s") == [("user", "the question"), ("assistant", "after the crash")]
    assert not any(message.get("interrupted") for message in daemon.session("s")["messages"])
    shown = wf.show(daemon, workflow)
    assert (shown["status"], shown["attempts"]) == ("SUCCESS", 2)
    assert len(wf.steps(daemon, workflow)) == 1
    assert wf.start(daemon, wf.ask(name, "the question", id="one"), 200)["existed"] is True
    assert len(agent.requests) == 2
    assert [one["id"] for one in wf.listed(daemon)] == ["one"]


def test_all_that_was_accepted_before_a_crash_comes_to_its_end(start, make_agent):
    daemon = start(*SOON)
    fast = daemon.register(make_agent(act.echo), "fast", timeout_seconds=120)
    agent = make_agent(act.held(act.echo))
    slow = daemon.register(agent, "slow", timeout_seconds=120)
    done = [wf.begin(daemon, fast, f"d{number}") for number in range(10)]
    for workflow in done:
        wf.result(daemon, workflow)
    before = [wf.show(daemon, workflow) for workflow in done]
    running = [wf.begin(daemon, slow, f"r{number}", queue=QUEUE if number % 2 else None)
               for number in range(20)]
    delayed = [wf.begin(daemon, fast, f"w{number}", queue=QUEUE, delay_ms=1500) for number in range(10)]
    daemon.kill()
    daemon.start()
    agent.release()
    cancelled = wf.begin(daemon, fast, queue=QUEUE, delay_ms=3600_000)
    wf.post(daemon, cancelled, "cancel", status=200)
    for number, workflow in enumerate(running):
        assert wf.result(daemon, workflow, 60)["output"]["response"] == f"r{number}"
    for number, workflow in enumerate(delayed):
        assert wf.result(daemon, workflow, 60)["output"]["response"] == f"w{number}"
    assert [wf.show(daemon, workflow) for workflow in done] == before
    assert len(wf.listed(daemon)) == 41


def test_an_orderly_stop_puts_work_back_and_counts_no_attempt(start, make_agent):
    daemon = start("--limits.shutdown=300ms", *SOON)
    agent = make_agent(act.hangs, act.says("later"))
    name = daemon.register(agent, "a", timeout_seconds=120)
    workflow = wf.begin(daemon, name)
    agent.wait_requests(1, 30)
    daemon.stop()
    agent.wait_abandoned(1, 30)
    daemon.start()
    assert wf.result(daemon, workflow)["output"]["response"] == "later"
    assert wf.show(daemon, workflow)["attempts"] == 1


def test_a_stop_lets_a_workflow_finish_within_its_time(start, make_agent):
    daemon = start("--limits.shutdown=60s")
    agent = make_agent(act.held(act.says("in time")))
    name = daemon.register(agent, "a", timeout_seconds=120)
    workflow = wf.begin(daemon, name)
    agent.wait_requests(1, 30)
    daemon.begin_stop()
    agent.release()
    daemon.stop()
    daemon.start()
    assert wf.show(daemon, workflow)["status"] == "SUCCESS"
    assert len(agent.requests) == 1


def test_who_waits_does_not_hold_up_a_stop(start, make_agent):
    daemon = start("--limits.shutdown=120s")
    name = daemon.register(make_agent(), "a")
    workflow = wf.begin(daemon, name, queue=QUEUE, delay_ms=3600_000)
    answers = []
    waits = [wf.path(workflow, "/result?timeout=600"), wf.path(workflow, "/events/k?timeout=600")]

    def wait(path):
        with daemon.client() as client:
            answers.append(client.get(path).status_code)
    threads = [threading.Thread(target=wait, args=(path,)) for path in waits]
    for thread in threads:
        thread.start()
    with daemon.client() as client, client.stream("GET", wf.path(workflow, "/streams/k")) as stream:
        assert stream.status_code == 200
        eventually(lambda: daemon.http.get("/api/v1/status").json()["requests"] >= 4, 30)
        began = time.monotonic()
        daemon.stop()
        assert time.monotonic() - began < 20
    for thread in threads:
        thread.join(30)
    assert answers == [503, 503]


@pytest.mark.parametrize("misfire, wanted", [("skip", 0), ("once", 1), ("all", 3)])
def test_what_a_schedule_missed_while_nobody_ran(start, make_agent, misfire, wanted):
    daemon = start()
    agent = make_agent(act.says("late"))
    name = daemon.register(agent, "a")
    leap_day = {"workflow": wf.CALL, "cron": "0 0 29 2 *", "misfire": misfire,
                "context": {"agent_name": name, "prompt": "p"}}
    assert daemon.http.put("/api/v1/schedules/s", json=leap_day).status_code == 200
    daemon.stop()
    wf.sql(daemon, "UPDATE dbos.workflow_schedules SET last_fired_at = '2013-01-01T00:00:00.000Z'")
    wf.sql(daemon, "UPDATE durable_schedules SET since_ms = 1")
    daemon.start()
    missed = [f"sched-s-{year}-02-29T00:00:00.000Z" for year in (2016, 2020, 2024)]
    if wanted:
        eventually(lambda: len(wf.listed(daemon)) >= wanted, 30)
    for one in wf.listed(daemon):
        wf.result(daemon, one["id"])
    daemon.restart()  # nor is anything made up for twice
    eventually(lambda: daemon.http.get("/api/v1/schedules/s").json()["next_at"], 30)
    made = {one["id"] for one in wf.listed(daemon, schedule="s")}
    assert made == set(missed[3 - wanted:])
    assert len(agent.requests) == wanted


def test_the_instance_file_is_private_and_stays(start):
    daemon = start()
    path = daemon.state / "instance"
    before = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    first = daemon.http.get("/api/v1/workflows/overview").json()["executor"]
    daemon.restart()
    assert path.read_text() == before
    assert daemon.http.get("/api/v1/workflows/overview").json()["executor"] != first


def test_two_daemons_on_one_database_share_the_work(start, store, make_agent):
    if store.kind != "postgres":
        pytest.skip("one process owns an SQLite file")
    first = start(*SOON)
    second = start(*SOON, fresh=False, env={"DATABASE_URL": first.env["DATABASE_URL"]})
    agent = make_agent(act.held(act.echo))
    name = unique("agent")
    for daemon in (first, second):
        daemon.register(agent, name, timeout_seconds=120)
    eventually(lambda: first.http.get("/api/v1/workflows/overview").json()["executors"] == 2, 30)
    workflow = wf.begin(first, name, "shared")
    agent.wait_requests(1, 30)
    assert wf.post(second, workflow, "cancel", status=200) == {"count": 1}
    agent.wait_abandoned(1, 30)
    agent.release()
    wf.post(second, workflow, "resume")
    assert wf.result(second, workflow)["output"]["response"] == "shared"
    assert wf.result(first, workflow)["output"]["response"] == "shared"
    cut = wf.begin(first, name, "cut")
    wf.result(first, cut)
    agent.released.clear()
    cut = wf.begin(first, name, "cut off")
    agent.wait_requests(4, 30)
    first.kill()
    agent.release()
    assert wf.result(second, cut, 90)["output"]["response"] == "cut off"


@pytest.mark.parametrize("version", [33, 108, 122])
def test_a_database_with_an_older_schema_of_dbos_is_refused_clearly(start, store, version):
    if store.kind != "postgres":
        pytest.skip("DBOS shares no SQLite file")
    daemon = start.new()
    wf.sql(daemon, "CREATE SCHEMA dbos; CREATE TABLE dbos.dbos_migrations (version bigint PRIMARY KEY);"
                   f" INSERT INTO dbos.dbos_migrations VALUES ({version});"
                   " CREATE TABLE dbos.workflow_status (workflow_uuid text PRIMARY KEY)")
    with pytest.raises(chelad.StartFailed) as failed:
        daemon.start()
    assert failed.value.status == 1
    assert "DBOS" in failed.value.log and str(version) in failed.value.log
    assert wf.sql(daemon, "SELECT version FROM dbos.dbos_migrations") == [[str(version)]]
