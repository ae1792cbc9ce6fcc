"""Workflows over HTTP: every route under /api/v1, what it takes, what it refuses."""

import json
import time

import agent as act
import pytest
import workflows as wf
from rawhttp import ask as raw
from wait import eventually, together, unique

QUEUE = "chela"


@pytest.fixture
def caller(daemon, make_agent):
    """A scripted agent and the name it is registered under."""
    def make(*script, **fields):
        agent = make_agent(*script)
        return agent, daemon.register(agent, unique("agent"), **{"max_retries": 1, **fields})
    return make


def held(daemon, caller, **fields):
    """A workflow that is in its step until its agent is released."""
    agent, name = caller(act.held(act.says("at last")), timeout_seconds=120)
    workflow = wf.begin(daemon, name, **fields)
    agent.wait_requests(1, 30)
    return agent, workflow


# --- start and result ---

def test_a_call_is_made_and_its_result_kept(daemon, caller):
    agent, name = caller(act.says("the answer"))
    workflow = wf.begin(daemon, name, "the question")
    done = wf.result(daemon, workflow)
    assert (done["id"], done["status"]) == (workflow, "SUCCESS")
    assert done["output"]["response"] == "the answer" and done["output"]["success"] is True
    assert agent.prompts() == ["the question"]
    shown = wf.show(daemon, workflow)
    assert shown["args"] == [{"agent_name": name, "prompt": "the question"}]
    assert (shown["name"], shown["output"], shown["attempts"]) == (wf.CALL, done["output"], 1)
    assert shown["known"] is True and shown["executor"].startswith("chela-")
    assert shown["created_at"] <= shown["completed_at"] and shown["user"]
    step, = wf.steps(daemon, workflow)
    assert (step["id"], step["name"], step["output"]) == (0, "call", done["output"])


def test_named_arguments_do_too(daemon, caller):
    _, name = caller(act.says("yes"))
    body = {"name": wf.CALL, "named_args": {"agent_name": name, "prompt": "p"}}
    assert wf.result(daemon, wf.start(daemon, body)["id"])["output"]["response"] == "yes"


def test_the_session_has_the_turn(daemon, caller):
    _, name = caller(act.says("a"))
    session = unique("session")
    wf.result(daemon, wf.begin(daemon, name, "q", question={"session_id": session, "user_id": "u",
                                                            "metadata": {"k": 1}}))
    assert daemon.turns(session) == [("user", "q"), ("assistant", "a")]
    assert daemon.session(session)["metadata"] == {"k": 1}


@pytest.mark.parametrize("how", ["id", "header", "both"])
def test_one_id_is_one_workflow(daemon, caller, how):
    agent, name = caller(act.says("once"))
    own = unique("own id ")
    body = wf.ask(name, id=own) if how != "header" else wf.ask(name)
    headers = {} if how == "id" else {"Idempotency-Key": own}
    assert wf.start(daemon, body, 201, **headers) == {"id": own, "existed": False}
    assert wf.start(daemon, body, 200, **headers) == {"id": own, "existed": True}
    assert wf.result(daemon, own)["output"]["response"] == "once"
    wf.start(daemon, body, 200, **headers)
    assert len(agent.requests) == 1


def test_many_starts_of_one_id_at_once_are_one_workflow(daemon, caller):
    agent, name = caller(act.says("once"))
    own = unique("id")
    answers = together(lambda _: daemon.http.post("/api/v1/workflows", json=wf.ask(name, id=own)),
                       range(20))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert wf.result(daemon, own)["status"] == "SUCCESS"
    assert len(agent.requests) == 1


def refusal(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] and answer.json()["code"] == code, answer.text


def test_conflicts_carry_the_codes_of_dbos(daemon, caller):
    _, name = caller()
    own, dedup = unique("id"), unique("dedup")

    def send(body):
        return daemon.http.post("/api/v1/workflows", json=body)
    wf.start(daemon, wf.ask(name, id=own))
    refusal(send({"name": "another", "id": own, "queue": QUEUE}), 409, 22)
    refusal(send(wf.ask(name, id=own, id_policy="reject")), 409, 36)
    later = {"queue": QUEUE, "delay_ms": 3600_000, "dedup_id": dedup}
    first = wf.start(daemon, wf.ask(name, **later))["id"]
    refusal(send(wf.ask(name, **later)), 409, 28)
    joined = wf.start(daemon, wf.ask(name, dedup_policy="return-existing", **later), 200)
    assert joined == {"id": first, "existed": True}
    refusal(send(wf.ask(name, queue=QUEUE, priority=-1)), 400, 29)
    refusal(send(wf.ask(name, queue=QUEUE, priority=2**31)), 400, 29)
    refusal(send({"name": "nobody.knows"}), 400, 6)
    wf.post(daemon, first, "cancel", status=200)


def test_a_failed_call_fails_the_workflow_and_a_retry_asks_anew(daemon, caller):
    agent, name = caller(act.fails(500), act.says("better"))
    workflow = wf.begin(daemon, name)
    done = wf.result(daemon, workflow)
    assert done["status"] == "ERROR" and "output" not in done
    assert "500 Internal Server Error" in done["error"]["message"]
    assert done["error"]["name"] == "BridgeError"
    assert done["error"]["data"]["attempts"][0]["status"] == 500
    assert "error" in wf.steps(daemon, workflow)[0]
    wf.post(daemon, workflow, "retry")
    eventually(lambda: len(agent.requests) == 2, 30)
    assert wf.wait_status(daemon, workflow, "SUCCESS")["output"]["response"] == "better"


def test_an_unknown_agent_fails_the_workflow(daemon):
    done = wf.result(daemon, wf.begin(daemon, unique("nobody")))
    assert done["status"] == "ERROR" and "not registered" in done["error"]["message"]


@pytest.mark.parametrize("args", [[], [1], [{}], [{"agent_name": "a"}], [{"agent_name": 1, "prompt": 2}],
                                  [{"agent_name": "a", "prompt": "p", "session_id": "stats"}],
                                  [{"agent_name": "a", "prompt": "p", "session_id": "x" * 513}]], ids=str)
def test_arguments_that_do_not_fit_fail_the_workflow(daemon, args):
    workflow = wf.start(daemon, {"name": wf.CALL, "args": args})["id"]
    assert wf.result(daemon, workflow)["status"] == "ERROR"
    assert wf.steps(daemon, workflow) == []


def test_a_result_is_waited_for_and_a_wait_has_an_end(daemon, caller):
    agent, workflow = held(daemon, caller)
    answer = daemon.http.get(wf.path(workflow, "/result?timeout=0.2"))
    assert (answer.status_code, answer.json()) == (202, {"id": workflow, "status": "PENDING"})
    assert daemon.http.get(wf.path(workflow, "/result")).status_code == 202
    outcomes = together(lambda number: number and wf.result(daemon, workflow) or agent.release(),
                        range(5))
    assert {done["status"] for done in outcomes[1:]} == {"SUCCESS"}


# --- queues, delays, deadlines ---

def test_a_queued_call_is_made(daemon, caller):
    agent, name = caller(act.says("queued"))
    workflow = wf.begin(daemon, name, queue=QUEUE, priority=3)
    assert wf.result(daemon, workflow)["output"]["response"] == "queued"
    shown = wf.show(daemon, workflow)
    assert (shown["queue"], shown["priority"], shown["attempts"]) == (QUEUE, 3, 1)
    assert len(agent.requests) == 1


def test_a_delayed_one_waits_and_its_delay_can_be_changed(daemon, caller):
    agent, name = caller()
    workflow = wf.begin(daemon, name, queue=QUEUE, delay_ms=3600_000)
    shown = wf.show(daemon, workflow)
    assert shown["status"] == "DELAYED" and shown["delay_until"] > shown["created_at"]
    assert agent.requests == []
    change = {"delay_until": "2020-01-01T00:00:00Z", "priority": 7}
    assert daemon.http.patch(wf.path(workflow), json=change).status_code == 204
    assert wf.result(daemon, workflow)["status"] == "SUCCESS"
    assert wf.show(daemon, workflow)["priority"] == 7
    answer = daemon.http.patch(wf.path(workflow), json=change)
    assert answer.status_code == 409 and "SUCCESS" in answer.json()["error"]


def test_a_deadline_cancels(daemon, caller):
    agent, name = caller(act.hangs, timeout_seconds=120)
    workflow = wf.begin(daemon, name, timeout_ms=300)
    assert wf.result(daemon, workflow)["status"] == "CANCELLED"
    agent.wait_abandoned(1, 30)


# --- steering ---

def test_a_running_one_is_cancelled_at_once_and_resumed(daemon, caller):
    agent, workflow = held(daemon, caller)
    assert wf.post(daemon, workflow, "cancel", status=200) == {"count": 1}
    agent.wait_abandoned(1, 30)
    assert wf.show(daemon, workflow)["status"] == "CANCELLED"
    assert wf.post(daemon, workflow, "cancel", {"children": True}, status=200) == {"count": 0}
    agent.release()
    wf.post(daemon, workflow, "resume", {"queue": QUEUE})
    assert wf.result(daemon, workflow)["output"]["response"] == "at last"
    answer = daemon.http.post(wf.path(workflow, "/resume"))
    assert answer.status_code == 409


def test_a_fork_shares_the_steps_before(daemon, caller):
    agent, name = caller(act.counted())
    workflow = wf.begin(daemon, name)
    assert wf.result(daemon, workflow)["output"]["response"] == "answer 1"
    again = wf.post(daemon, workflow, "fork", {"step": 0}, 201)["id"]
    assert wf.result(daemon, again)["output"]["response"] == "answer 2"
    own = unique("fork")
    assert wf.post(daemon, workflow, "fork", {"step": 1, "id": own, "queue": QUEUE}, 201) == {
        "id": own}
    assert wf.result(daemon, own)["output"]["response"] == "answer 1"
    assert len(agent.requests) == 2
    assert wf.show(daemon, own)["forked_from"] == workflow
    assert wf.show(daemon, workflow)["was_forked_from"] is True
    assert daemon.http.post(wf.path(workflow, "/fork"), json={"step": 0, "id": own}).status_code == 409
    assert {one["id"] for one in wf.listed(daemon, forked_from=workflow)} == {again, own}


def test_a_rewound_one_runs_again_under_its_id(daemon, caller):
    agent, name = caller(act.fails(500), act.says("second"))
    workflow = wf.begin(daemon, name)
    assert wf.result(daemon, workflow)["status"] == "ERROR"
    wf.post(daemon, workflow, "rewind", {"step": 0})
    assert wf.wait_status(daemon, workflow, "SUCCESS")["output"]["response"] == "second"
    wf.post(daemon, workflow, "rewind")  # from the end of its records: nothing is done again
    assert wf.wait_status(daemon, workflow, "SUCCESS")["output"]["response"] == "second"
    assert len(agent.requests) == 2


def test_what_runs_cannot_be_rewound_or_deleted(daemon, caller):
    agent, workflow = held(daemon, caller)
    assert daemon.http.post(wf.path(workflow, "/rewind"), json={"step": 0}).status_code == 409
    answer = daemon.http.delete(wf.path(workflow))
    assert answer.status_code == 409 and "PENDING" in answer.json()["error"]
    agent.release()
    assert wf.result(daemon, workflow)["status"] == "SUCCESS"
    assert daemon.http.delete(wf.path(workflow)).status_code == 204
    assert daemon.http.get(wf.path(workflow)).status_code == 404
    assert daemon.http.delete(wf.path(workflow)).status_code == 404
    for table in ("workflow_status", "workflow_input", "workflow_output", "operation_outputs"):
        assert wf.sql(daemon, f"SELECT count(*) FROM dbos.{table} WHERE workflow_uuid = '{workflow}'") == [
            ["0"]], table


def test_what_runs_can_be_deleted_by_force(daemon, caller):
    agent, workflow = held(daemon, caller)
    assert daemon.http.delete(wf.path(workflow, "?force=1")).status_code == 204
    assert daemon.http.get(wf.path(workflow)).status_code == 404
    agent.wait_abandoned(1, 30)


# --- messages, events, streams ---

def test_a_message_is_put_into_the_mailbox_once_per_key(daemon, caller):
    agent, workflow = held(daemon, caller)
    for _ in range(2):
        wf.post(daemon, workflow, "send", {"topic": "t", "message": {"a": 1}, "key": "k"})
    wf.post(daemon, workflow, "send", {"message": None})
    wf.post(daemon, workflow, "send", {})
    rows = wf.sql(daemon, "SELECT topic, message FROM dbos.notifications WHERE destination_uuid ="
                          f" '{workflow}' ORDER BY topic")
    assert [row[0] for row in rows] == ["__null__topic__", "__null__topic__", "t"]
    assert json.loads(rows[2][1]) == {"a": 1} and rows[0][1] == "null"
    agent.release()
    wf.result(daemon, workflow)


def test_an_event_is_read_and_waited_for(daemon, caller):
    agent, workflow = held(daemon, caller)
    answer = daemon.http.get(wf.path(workflow, "/events/progress?timeout=0.1"))
    assert answer.status_code == 404 and "progress" in answer.json()["error"]
    wf.sql(daemon, "INSERT INTO dbos.workflow_events (workflow_uuid, key, value, serialization)"
                   f" VALUES ('{workflow}', 'a/b', '{{\"n\":1}}', 'portable_json')")
    answer = daemon.http.get(wf.path(workflow, "/events/a%2Fb?timeout=30"))
    assert answer.json() == {"id": workflow, "key": "a/b", "value": {"n": 1}}
    agent.release()
    wf.result(daemon, workflow)


def put_stream(daemon, workflow, key, *values, start=0):
    for offset, value in enumerate(values, start):
        wf.sql(daemon, 'INSERT INTO dbos.streams (workflow_uuid, key, value, "offset", function_id,'
                       f" serialization) VALUES ('{workflow}', '{key}', '{value}', {offset}, 0,"
                       " 'portable_json')")


def read_events(lines):
    """(id, event, data) of each server-sent event."""
    one = {}
    for line in (raw_line.rstrip("\n") for raw_line in lines):
        if line and not line.startswith(":"):
            key, value = line.split(": ", 1)
            one[key] = value
        elif not line and one:
            yield one.get("id"), one.get("event"), json.loads(one["data"])
            one = {}


def test_a_stream_is_followed_to_its_end_and_gone_on_with(daemon, caller):
    agent, workflow = held(daemon, caller)
    put_stream(daemon, workflow, "out", '"one"', '{"two":2}')
    url = wf.path(workflow, "/streams/out")
    with daemon.http.stream("GET", url) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = read_events(answer.iter_lines())
        assert [next(events), next(events)] == [("0", None, "one"), ("1", None, {"two": 2})]
        put_stream(daemon, workflow, "out", "3", '"__DBOS_STREAM_CLOSED__"', start=2)
        assert next(events) == ("2", None, 3)
        assert next(events) == (None, "end", {})
        assert list(events) == []
    again = daemon.http.get(url, headers={"Last-Event-ID": "1"})
    assert list(read_events(again.text.splitlines())) == [("2", None, 3), (None, "end", {})]
    again = daemon.http.get(url, params={"offset": 1, "follow": 0})
    assert [event[2] for event in read_events(again.text.splitlines())][:2] == [{"two": 2}, 3]
    agent.release()
    wf.result(daemon, workflow)


def test_a_stream_ends_with_its_workflow(daemon, caller):
    agent, workflow = held(daemon, caller)
    nothing = daemon.http.get(wf.path(workflow, "/streams/out?follow=0"))
    assert nothing.status_code == 200 and list(read_events(nothing.text.splitlines())) == []
    with daemon.http.stream("GET", wf.path(workflow, "/streams/out")) as answer:
        agent.release()
        assert list(read_events(answer.iter_lines())) == [(None, "end", {})]


# --- lists ---

def test_lists_are_filtered_ordered_and_cut(own, make_agent):
    name = own.register(make_agent(act.says("ok")), "a", max_retries=1)
    bad = own.register(make_agent(act.fails(500)), "bad", max_retries=1)
    ids = [wf.begin(own, name, id=f"w{number}") for number in range(5)]
    failed = wf.begin(own, bad, id="x1")
    waiting = wf.begin(own, name, id="y1", queue="nowhere", app_version="99")
    for workflow in [*ids, failed]:
        wf.result(own, workflow)

    def found(**query):
        return [one["id"] for one in wf.listed(own, **query)]
    assert found() == [*ids, failed, waiting]
    assert found(order="desc") == [waiting, failed, *reversed(ids)]
    assert found(limit=2, offset=1) == ids[1:3]
    assert found(status="ERROR") == [failed]
    assert found(status=["ERROR", "ENQUEUED"]) == [failed, waiting]
    assert found(id_prefix="w") == ids
    assert found(queue="nowhere") == [waiting] == found(version="99")
    assert found(name="other") == [] == found(user="nobody")
    assert found(name=["other", wf.CALL], limit=1) == ids[:1]
    first = wf.show(own, "w0")
    assert "w0" not in found(created_to="2020-01-01T00:00:00Z")
    assert found(created_from=first["created_at"])[0] == "w0"
    assert found(created_from="2100-01-01T00:00:00Z") == []
    assert set(found(executor=first["executor"])) == {*ids, failed}
    plain, = wf.listed(own, id_prefix="w0")
    assert "args" not in plain and "output" not in plain
    full, = wf.listed(own, id_prefix="w0", input=1, output=1)
    assert full["args"] and full["output"]["response"] == "ok"
    blocked = wf.show(own, waiting)
    assert blocked["blocked_version"] is True and blocked["status"] == "ENQUEUED"
    counts = own.http.get("/api/v1/workflows/overview").json()
    assert counts["working"] is True and counts["trouble"] is None
    assert counts["SUCCESS"]["count"] == 5 and counts["ERROR"]["count"] == 1
    assert counts["ENQUEUED"]["count"] == 1 and counts["ENQUEUED"]["oldest_at"]
    assert counts["executors"] == 1 and counts["app_version"] == "1"


def test_old_ones_are_collected(own, make_agent):
    name = own.register(make_agent(act.says("ok")), "a")
    ids = [wf.begin(own, name) for _ in range(6)]
    for workflow in ids:
        wf.result(own, workflow)
    kept = wf.begin(own, name, queue="nowhere")

    def collect(body, status=200):
        answer = own.http.post("/api/v1/workflows/collect", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()
    assert "before or keep" in collect({}, 400)["error"]
    assert collect({"before": "2000-01-01T00:00:00Z"}) == {"count": 0}
    assert collect({"keep": 4}) == {"count": 2}
    assert collect({"before": "2100-01-01T00:00:00Z"}) == {"count": 4}
    assert [one["id"] for one in wf.listed(own)] == [kept]


IDS = ["with space", "per%cent", "%41", "ümlaut 🦞", "a/b", "/", "q?u=e&r#y", "..", ".", "a+b",
       "'quoted'", '"double"', "semi;colon", "x" * 250]


@pytest.mark.parametrize("own_id", IDS, ids=[f"id{number}" for number in range(len(IDS))])
def test_every_id_that_can_be_given_can_be_used(daemon, caller, own_id):
    _, name = caller()
    assert wf.begin(daemon, name, id=own_id) == own_id
    assert wf.result(daemon, own_id)["id"] == own_id
    assert wf.show(daemon, own_id)["id"] == own_id
    assert len(wf.steps(daemon, own_id)) == 1
    encoded = "/api/v1/workflows/" + "".join(f"%{byte:02X}" for byte in own_id.encode())
    assert raw(daemon, "DELETE", encoded).status == 204
    assert raw(daemon, "GET", encoded).status == 404


# --- what is refused ---

STARTS = [None, [], "x", {}, {"name": ""}, {"name": 1}, {"name": "x" * 300}, {"name": wf.CALL, "args": {}},
          {"name": wf.CALL, "args": "x"}, {"name": wf.CALL, "named_args": []}, {"name": wf.CALL, "id": ""},
          {"name": wf.CALL, "id": "   "}, {"name": wf.CALL, "id": "a\nb"}, {"name": wf.CALL, "id": "x" * 256},
          {"name": wf.CALL, "id": 7}, {"name": wf.CALL, "delay_ms": -1, "queue": QUEUE},
          {"name": wf.CALL, "delay_ms": 10**15, "queue": QUEUE}, {"name": wf.CALL, "delay_ms": 5},
          {"name": wf.CALL, "timeout_ms": "x"}, {"name": wf.CALL, "dedup_policy": "maybe"},
          {"name": wf.CALL, "dedup_id": "d"}, {"name": wf.CALL, "attributes": [1]},
          {"name": wf.CALL, "id_policy": "?"}, {"name": wf.CALL, "priority": 1.5, "queue": QUEUE}]


@pytest.mark.parametrize("body", STARTS, ids=str)
def test_a_start_that_cannot_be_meant_starts_nothing(own, body):
    answer = own.http.post("/api/v1/workflows", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert wf.listed(own) == []


def test_keys_that_cannot_be_meant_start_nothing(own):
    for key in ("", "x" * 256):
        answer = own.http.post("/api/v1/workflows", json=wf.ask("a"), headers={"Idempotency-Key": key})
        assert answer.status_code == 400, key
    answer = own.http.post("/api/v1/workflows", json=wf.ask("a", id="one"),
                           headers={"Idempotency-Key": "another"})
    assert answer.status_code == 400 and "differ" in answer.json()["error"]
    assert wf.listed(own) == []


def test_a_payload_past_its_bound_is_refused(start):
    daemon = start("--durable.payload_max=2K")
    answer = daemon.http.post("/api/v1/workflows", json=wf.ask("a", "x" * 3000))
    assert answer.status_code == 413, answer.text
    assert wf.listed(daemon) == []


MALFORMED = [
    ("GET", "", {"status": "LOST"}, None), ("GET", "", {"limit": 0}, None),
    ("GET", "", {"limit": 1001}, None), ("GET", "", {"offset": -1}, None),
    ("GET", "", {"order": "up"}, None), ("GET", "", {"created_from": "yesterday"}, None),
    ("GET", "/{}/result", {"timeout": -1}, None), ("GET", "/{}/result", {"timeout": "x"}, None),
    ("GET", "/{}/steps", {"limit": 0}, None), ("GET", "/{}/steps", {"from": -1}, None),
    ("GET", "/{}/streams/k", {"offset": -1}, None), ("GET", "/{}/events/k", {"timeout": "x"}, None),
    ("POST", "/{}/fork", {}, None), ("POST", "/{}/fork", {}, {}), ("POST", "/{}/fork", {}, {"step": -1}),
    ("POST", "/{}/fork", {}, {"step": "x"}), ("POST", "/{}/fork", {}, {"step": 0, "id": ""}),
    ("POST", "/{}/rewind", {}, {"step": -2}), ("POST", "/{}/rewind", {}, []),
    ("POST", "/{}/send", {}, None), ("POST", "/{}/send", {}, {"topic": 1}),
    ("POST", "/{}/cancel", {}, {"children": "perhaps"}), ("POST", "/{}/resume", {}, {"queue": ""}),
    ("PATCH", "/{}", {}, None), ("PATCH", "/{}", {}, {}), ("PATCH", "/{}", {}, {"priority": "x"}),
    ("PATCH", "/{}", {}, {"delay_until": "soon"}), ("DELETE", "/{}", {"force": "x"}, None),
    ("POST", "/collect", {}, {"before": "soon"}), ("POST", "/collect", {}, {"keep": -1}),
]


@pytest.fixture(scope="module")
def settled(store, scratch):
    """A daemon with one workflow that has ended, which nothing here may change."""
    from starter import Starter
    starter = Starter(store, scratch)
    daemon = starter()
    workflow = wf.begin(daemon, "nobody", id="settled")
    wf.result(daemon, workflow)
    yield daemon, workflow, wf.show(daemon, workflow)
    starter.stop()


@pytest.mark.parametrize("method, suffix, query, body", MALFORMED, ids=str)
def test_a_malformed_request_is_400_and_changes_nothing(settled, method, suffix, query, body):
    daemon, workflow, before = settled
    answer = daemon.http.request(method, "/api/v1/workflows" + suffix.format(workflow), params=query,
                                 json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert wf.listed(daemon, input=1, output=1) == [before]


@pytest.mark.parametrize("method, suffix, body", [
    ("GET", "", None), ("PATCH", "", {"priority": 1}), ("DELETE", "", None), ("GET", "/steps", None),
    ("GET", "/result", None), ("POST", "/cancel", None), ("POST", "/resume", None),
    ("POST", "/fork", {"step": 0}), ("POST", "/retry", None), ("POST", "/rewind", {"step": 0}),
    ("POST", "/send", {"message": 1}), ("GET", "/events/k", None), ("GET", "/streams/k", None)], ids=str)
def test_of_an_unknown_workflow_every_route_says_404(settled, method, suffix, body):
    daemon, _, before = settled
    answer = daemon.http.request(method, wf.path("nobody here", suffix), json=body)
    assert answer.status_code == 404, answer.text
    assert "error" in answer.json()
    assert wf.listed(daemon, input=1, output=1) == [before]


def test_scopes(start):
    daemon = start()
    body = wf.ask("nobody")
    with daemon.client(headers={"X-Auth-Token": daemon.token}) as admin:
        keys = {scope: admin.post("/api/v1/keys", json={"name": scope, "scopes": [scope]}).json()["key"]
                for scope in ("read", "bridge", "metrics", "workflows")}
    for scope, reads, writes in (("read", 200, 403), ("bridge", 403, 403), ("metrics", 403, 403),
                                 ("workflows", 200, 201), (None, 401, 401)):
        headers = {"Authorization": f"Bearer {keys[scope]}"} if scope else {}
        with daemon.client(headers=headers) as client:
            for path in ("/api/v1/workflows", "/api/v1/queues", "/api/v1/schedules",
                         "/api/v1/workflows/overview"):
                assert client.get(path).status_code == reads, (scope, path)
            assert client.post("/api/v1/workflows", json=body).status_code == writes, scope
            kept = client.put("/api/v1/queues/q", json={}).status_code
            assert kept == (204 if writes == 201 else writes), scope
            removed = client.delete("/api/v1/schedules/s").status_code
            assert removed == (404 if writes == 201 else writes), scope
    with daemon.client(headers={"Authorization": f"Bearer {keys['workflows']}"}) as client:
        assert [one["user"] for one in client.get("/api/v1/workflows").json()["workflows"]] == ["workflows"]


# --- queues and schedules ---

def test_queues_are_made_changed_listed_and_removed(daemon):
    name = unique("queue/")
    url = "/api/v1/queues/" + name.replace("/", "%2F")

    def found():
        return [one for one in daemon.http.get("/api/v1/queues").json()["queues"] if one["name"] == name]
    assert daemon.http.put(url, json={"concurrency": 3, "rate_max": 10, "rate_period_s": 60,
                                      "hold_slot": True}).status_code == 204
    queue, = found()
    assert (queue["concurrency"], queue["rate_max"], queue["rate_period_s"]) == (3, 10, 60)
    assert queue["hold_slot"] is True and queue["worker_concurrency"] == 0
    assert daemon.http.put(url, json={"worker_concurrency": 2}).status_code == 204
    queue, = found()
    assert (queue["concurrency"], queue["worker_concurrency"], queue["rate_max"]) == (0, 2, 0)
    assert daemon.http.delete(url).status_code == 204
    assert found() == [] and daemon.http.delete(url).status_code == 404


@pytest.mark.parametrize("name, body", [
    ("q", {"concurrency": -1}), ("q", {"concurrency": "x"}), ("q", {"rate_max": 5}),
    ("q", {"rate_period_s": 5}), ("q", {"partition_rate_max": 1}), ("q", {"polling_s": 1000}),
    ("_dbos_internal_queue", {"concurrency": 1}), ("_dbos_x", {}), ("x" * 256, {}), ("q", [])], ids=str)
def test_a_queue_that_cannot_be_meant_is_not_made(daemon, name, body):
    before = daemon.http.get("/api/v1/queues").json()
    assert daemon.http.put(f"/api/v1/queues/{name}", json=body).status_code == 400
    after = daemon.http.get("/api/v1/queues").json()
    assert [one["name"] for one in after["queues"]] == [one["name"] for one in before["queues"]]


def test_a_new_queue_is_served_at_once_and_its_limit_kept(daemon, caller):
    agent, name = caller(act.held(act.says("ok")), timeout_seconds=120)
    queue = unique("queue")
    assert daemon.http.put(f"/api/v1/queues/{queue}", json={"concurrency": 1}).status_code == 204
    ids = [wf.begin(daemon, name, queue=queue) for _ in range(3)]
    agent.wait_requests(1, 30)
    eventually(lambda: [wf.show(daemon, one)["status"] for one in ids]
               == ["PENDING", "ENQUEUED", "ENQUEUED"], 30)
    agent.release()
    assert [wf.result(daemon, one)["status"] for one in ids] == ["SUCCESS"] * 3


def schedule(agent_name, **fields):
    return {"workflow": wf.CALL, "cron": "0 8 * * *",
            "context": {"agent_name": agent_name, "prompt": "good morning"}, **fields}


def test_schedules_are_made_shown_paused_and_removed(daemon):
    name = unique("schedule")
    url = f"/api/v1/schedules/{name}"
    body = schedule("a", zone="Europe/Berlin", queue=QUEUE, misfire="once", overlap="skip")
    made = daemon.http.put(url, json=body)
    assert made.status_code == 200, made.text
    assert made.json() == daemon.http.get(url).json()
    shown = made.json()
    assert {key: shown[key] for key in body} == body and shown["paused"] is False
    assert shown["next_at"] > "2026" and shown["last_at"] is None
    assert name in [one["name"] for one in daemon.http.get("/api/v1/schedules").json()["schedules"]]
    assert daemon.http.post(f"{url}/pause").status_code == 204
    assert daemon.http.get(url).json()["paused"] is True
    assert daemon.http.post(f"{url}/resume").status_code == 204
    assert daemon.http.get(url).json()["paused"] is False
    assert daemon.http.put(url, json=schedule("b", paused=True)).json()["paused"] is True
    assert daemon.http.get(url).json()["context"]["agent_name"] == "b"
    assert daemon.http.delete(url).status_code == 204
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"),
                           ("POST", "/trigger")):
        assert daemon.http.request(method, url + suffix).status_code == 404, (method, suffix)


@pytest.mark.parametrize("body", [
    {}, {"cron": "* * * * *"}, {"workflow": wf.CALL}, schedule("a", cron="every day"),
    schedule("a", cron="61 * * * *"), schedule("a", cron="* * * *"), schedule("a", zone="Mars/Base"),
    schedule("a", misfire="perhaps"), schedule("a", overlap=1), schedule("a", misfire_max=-1)], ids=str)
def test_a_schedule_that_cannot_be_meant_is_not_made(daemon, body):
    answer = daemon.http.put("/api/v1/schedules/never", json=body)
    assert answer.status_code == 400 and answer.json()["error"]
    assert daemon.http.get("/api/v1/schedules/never").status_code == 404


def test_a_schedule_asks_its_agent_by_the_clock_by_hand_and_for_the_past(daemon, caller):
    agent, name = caller(act.says("good morning to you"))
    title = unique("schedule")
    url = f"/api/v1/schedules/{title}"
    assert daemon.http.put(url, json=schedule(name, cron="* * * * * *")).status_code == 200
    agent.wait_requests(2, 30)
    assert agent.prompts()[0] == "good morning"
    eventually(lambda: daemon.http.get(url).json()["last_at"], 30)
    assert daemon.http.put(url, json=schedule(name)).status_code == 200
    made = wf.listed(daemon, schedule=title)
    assert all(one["id"].startswith(f"sched-{title}-") for one in made)
    triggered = daemon.http.post(f"{url}/trigger")
    assert triggered.status_code == 201
    done = wf.result(daemon, triggered.json()["id"])
    assert done["output"]["response"] == "good morning to you"
    first, second = wf.show(daemon, triggered.json()["id"])["args"]
    assert first.endswith("Z") and second["prompt"] == "good morning"
    span = {"from": "2025-03-01T00:00:00Z", "to": "2025-03-04T08:00:00Z"}
    assert daemon.http.post(f"{url}/backfill", json=span).json() == {"count": 3}
    assert daemon.http.post(f"{url}/backfill", json=span).json() == {"count": 0}
    for body in ({}, {"from": span["to"], "to": span["from"]}, {"from": "x", "to": "y"}):
        assert daemon.http.post(f"{url}/backfill", json=body).status_code == 400, body
    assert wf.result(daemon, f"sched-{title}-2025-03-03T08:00:00.000Z")["status"] == "SUCCESS"
    assert daemon.http.delete(url).status_code == 204


# --- the daemon around it ---

def test_metrics_tell_of_workflows(daemon, caller):
    _, name = caller()
    wf.result(daemon, wf.begin(daemon, name, queue=QUEUE))
    text = daemon.http.get("/metrics").text
    rows = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    for row in ("chela_durable_queue_depth", "chela_durable_queue_age_seconds",
                "chela_durable_step_seconds_bucket", "chela_durable_recovered_total",
                "chela_durable_stuck_total", "chela_durable_running"):
        assert row in rows, sorted(one for one in rows if "durable" in one)


def test_health_and_status_say_that_the_engine_works(daemon):
    assert "workflows" not in daemon.http.get("/health").json()
    assert daemon.http.get("/api/v1/status").json()["workflows"] == "working"


def test_openapi_has_every_route(daemon):
    paths = daemon.http.get("/openapi.json").json()["paths"]
    assert set(paths["/api/v1/workflows"]) == {"get", "post"}
    assert set(paths["/api/v1/workflows/{id}"]) == {"get", "patch", "delete"}
    assert paths["/api/v1/workflows/{id}/cancel"]["post"]["requestBody"]["required"] is False
    assert {"/api/v1/queues", "/api/v1/queues/{name}", "/api/v1/schedules/{name}/backfill",
            "/api/v1/workflows/{id}/streams/{key}"} <= set(paths)
    assert not any(path.startswith("/dbos-") for path in paths)
