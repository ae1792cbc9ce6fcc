"""The admin routes of DBOS on a listener of their own: shapes as its TypeScript releases have them,
and a token always."""

import time

import agent as act
import httpx
import pytest
import workflows as wf
from starter import Starter
from wait import eventually, unique


@pytest.fixture(scope="module")
def served(store, scratch):
    starter = Starter(store, scratch)
    daemon = starter("--durable.admin_port=0")
    yield daemon
    starter.stop()


@pytest.fixture
def admin(served):
    with client(served, {"Authorization": f"Bearer {served.token}"}) as one:
        yield one


def client(daemon, headers=None):
    return httpx.Client(base_url=f"http://{daemon.ready['listeners']['dbos_admin']}", timeout=60,
                        trust_env=False, headers=headers)


ROUTES = [("GET", "/dbos-healthz"), ("GET", "/dbos-perf"), ("GET", "/deactivate"),
          ("GET", "/dbos-workflow-queues-metadata"), ("POST", "/dbos-workflow-recovery"),
          ("POST", "/workflows"), ("POST", "/queues"), ("GET", "/workflows/x"),
          ("GET", "/workflows/x/steps"), ("POST", "/workflows/x/cancel"),
          ("POST", "/workflows/x/resume"), ("POST", "/workflows/x/restart"),
          ("POST", "/workflows/x/fork"), ("POST", "/dbos-garbage-collect"),
          ("POST", "/dbos-global-timeout")]


def test_it_is_off_by_default_and_not_on_the_gateway(daemon):
    assert "dbos_admin" not in daemon.ready["listeners"]
    for method, path in ROUTES:
        if (method, path) == ("GET", "/workflows/x"):  # the original gateway has one of that name
            assert daemon.http.get(path).json() == {"workflowUuid": "x", "status": "not_found"}
        else:
            assert daemon.http.request(method, path).status_code == 404


def test_every_route_wants_an_admin_s_token_even_on_loopback(store, scratch):
    starter = Starter(store, scratch)
    try:
        daemon = starter("--durable.admin_port=0")
        assert daemon.ready["listeners"]["dbos_admin"].startswith("127.0.0.1:")
        with client(daemon) as nobody:
            for method, path in ROUTES:
                assert nobody.request(method, path).status_code == 401, path
        headers = {"Authorization": f"Bearer {daemon.token}"}
        with daemon.client(headers=headers) as gateway:
            key = gateway.post("/api/v1/keys", json={"name": "k", "scopes": ["workflows", "read"]}).json()
        with client(daemon, {"Authorization": f"Bearer {key['key']}"}) as scoped:
            for method, path in ROUTES:
                assert scoped.request(method, path).status_code == 403, path
        with client(daemon, {"X-Auth-Token": daemon.token}) as one:
            assert one.get("/dbos-healthz").status_code == 200
    finally:
        starter.stop()


def test_health_and_load(admin):
    answer = admin.get("/dbos-healthz")
    assert (answer.status_code, answer.text) == (200, "healthy")
    assert set(admin.get("/dbos-perf").json()) == {"idle", "active", "utilization"}


def test_a_workflow_looks_as_there(served, admin, make_agent):
    name = served.register(make_agent(act.says("yes")), unique("agent"))
    workflow = wf.begin(served, name, queue="chela", priority=2, timeout_ms=60000)
    wf.result(served, workflow)
    one = admin.get(f"/workflows/{workflow}").json()
    assert one["WorkflowUUID"] == workflow and one["Status"] == "SUCCESS"
    assert one["WorkflowName"] == wf.CALL and one["QueueName"] == "chela"
    assert one["Priority"] == "2" and one["WorkflowTimeoutMS"] == "60000"
    assert one["CreatedAt"].isdigit() and one["WorkflowDeadlineEpochMS"].isdigit()
    assert '"prompt":"hello"' in one["Input"] and '"response":"yes"' in one["Output"]
    assert "WorkflowClassName" not in one and "Error" not in one and "ForkedFrom" not in one
    step, = admin.get(f"/workflows/{workflow}/steps").json()
    assert (step["function_id"], step["function_name"]) == (0, "call")
    assert '"response":"yes"' in step["output"] and step["completed_at_epoch_ms"].isdigit()
    missing = admin.get("/workflows/no%2Fsuch")
    assert (missing.status_code, missing.json()) == (404, {"error": "Workflow no/such not found"})
    nothing = admin.get("/workflows/nosuch/steps")
    assert (nothing.status_code, nothing.content) == (200, b"")


def test_lists_take_the_filters_of_there(served, admin, make_agent):
    name = served.register(make_agent(act.says("yes")), unique("agent"))
    prefix = unique("list")
    ids = [wf.begin(served, name, id=f"{prefix}-{number}") for number in range(4)]
    for workflow in ids:
        wf.result(served, workflow)
    waits = wf.begin(served, name, id=f"{prefix}-waits", queue="nowhere")

    def found(path="/workflows", **body):
        answer = admin.post(path, json={"workflow_id_prefix": prefix, **body})
        assert answer.status_code == 200, answer.text
        return [one["WorkflowUUID"] for one in answer.json()]
    assert found() == [*ids, waits]
    assert found(sort_desc=True, limit=2) == [waits, ids[3]]
    assert found(offset=4) == [waits]
    assert found(status="SUCCESS") == ids == found(status=["SUCCESS", "ERROR"])
    assert found(workflow_uuids=ids[1:2]) == ids[1:2]
    assert found(queue_name="nowhere") == [waits] == found("/queues")
    assert found(workflow_name="other") == [] == found(start_time="2100-01-01T00:00:00Z")
    assert "Input" not in admin.post("/workflows", json={"workflow_uuids": ids[:1]}).json()[0]
    full = admin.post("/workflows", json={"workflow_uuids": ids[:1], "load_input": True,
                                          "load_output": True}).json()[0]
    assert full["Input"] and full["Output"]
    for body in ([], {"status": "LOST"}, {"limit": -1}, {"limit": "x"}, {"workflow_uuids": [1]},
                 {"start_time": "soon"}):
        assert admin.post("/workflows", json=body).status_code == 400, body


def test_workflows_are_steered_as_there(served, admin, make_agent):
    agent = make_agent(act.hangs, act.counted())
    name = served.register(agent, unique("agent"), timeout_seconds=120)
    workflow = wf.begin(served, name)
    agent.wait_requests(1, 30)
    assert admin.post(f"/workflows/{workflow}/cancel").status_code == 204
    assert wf.show(served, workflow)["status"] == "CANCELLED"
    agent.wait_abandoned(1, 30)
    assert admin.post(f"/workflows/{workflow}/resume").status_code == 204
    assert wf.result(served, workflow)["output"]["response"] == "answer 1"
    again = admin.post(f"/workflows/{workflow}/resume")
    assert again.status_code == 500
    assert again.json()["error"].startswith(f"Error resuming workflow {workflow}: ")
    restarted = admin.post(f"/workflows/{workflow}/restart").json()["workflow_id"]
    assert wf.result(served, restarted)["output"]["response"] == "answer 2"
    own = unique("fork")
    forked = admin.post(f"/workflows/{workflow}/fork", json={"start_step": 1, "new_workflow_id": own})
    assert (forked.status_code, forked.json()) == (200, {"workflow_id": own})
    assert wf.result(served, own)["output"]["response"] == "answer 1"
    assert admin.get(f"/workflows/{own}").json()["ForkedFrom"] == workflow
    assert admin.post(f"/workflows/{workflow}/fork", json={}).status_code == 400
    assert admin.post("/workflows/nosuch/fork", json={"start_step": 0}).status_code == 500
    assert admin.post("/workflows/nosuch/resume").status_code == 500
    assert admin.post("/workflows/nosuch/cancel").status_code == 204


def test_the_queues_and_their_limits(served, admin):
    name = unique("queue")
    served.http.put(f"/api/v1/queues/{name}", json={"concurrency": 3, "worker_concurrency": 2,
                                                    "rate_max": 5, "rate_period_s": 2})
    queues = admin.get("/dbos-workflow-queues-metadata").json()
    assert {"name": name, "concurrency": 3, "workerConcurrency": 2,
            "rateLimit": {"limitPerPeriod": 5, "periodSec": 2.0}} in queues
    assert {"name": "chela"} in queues


def test_the_work_of_a_dead_executor_is_enqueued_again(served, admin):
    workflow = unique("orphan")
    wf.start(served, {"name": "somebody.elses", "id": workflow, "queue": "nowhere"})
    wf.sql(served, "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'dead-one',"
                   f" owner_xid = 'x' WHERE workflow_uuid = '{workflow}'")
    assert admin.post("/dbos-workflow-recovery", json=["nobody"]).json() == []
    assert admin.post("/dbos-workflow-recovery", json=["dead-one", "nobody"]).json() == [workflow]
    assert wf.show(served, workflow)["status"] == "ENQUEUED"
    for body in ({}, "x", [1]):
        assert admin.post("/dbos-workflow-recovery", json=body).status_code == 400


def test_old_work_is_collected_and_timed_out(store, scratch, make_agent):
    starter = Starter(store, scratch)
    try:
        daemon = starter("--durable.admin_port=0")
        name = daemon.register(make_agent(act.says("yes")), "a")
        ended = [wf.begin(daemon, name) for _ in range(3)]
        for workflow in ended:
            wf.result(daemon, workflow)
        waits = wf.begin(daemon, name, queue="nowhere")
        with client(daemon, {"Authorization": f"Bearer {daemon.token}"}) as admin:
            assert admin.post("/dbos-global-timeout", json={}).status_code == 400
            assert admin.post("/dbos-global-timeout",
                              json={"cutoff_epoch_timestamp_ms": 1000}).status_code == 204
            assert wf.show(daemon, waits)["status"] == "ENQUEUED"
            late = {"cutoff_epoch_timestamp_ms": 4102444800000}
            assert admin.post("/dbos-global-timeout", json=late).status_code == 204
            assert wf.show(daemon, waits)["status"] == "CANCELLED"
            assert admin.post("/dbos-garbage-collect", json={}).status_code == 204
            assert len(wf.listed(daemon)) == 4
            assert admin.post("/dbos-garbage-collect", json={"rows_threshold": 2}).status_code == 204
            assert len(wf.listed(daemon)) == 2
            assert admin.post("/dbos-garbage-collect", json=late).status_code == 204
            assert wf.listed(daemon) == []
    finally:
        starter.stop()


def test_deactivated_no_schedule_starts_anything(store, scratch, make_agent):
    starter = Starter(store, scratch)
    try:
        daemon = starter("--durable.admin_port=0")
        agent = make_agent(act.says("yes"))
        name = daemon.register(agent, "a")
        body = {"workflow": wf.CALL, "cron": "* * * * * *",
                "context": {"agent_name": name, "prompt": "p"}}
        assert daemon.http.put("/api/v1/schedules/s", json=body).status_code == 200
        agent.wait_requests(2, 30)
        with client(daemon, {"Authorization": f"Bearer {daemon.token}"}) as admin:
            assert admin.get("/deactivate").text == "Deactivated"
        for one in eventually(lambda: wf.listed(daemon), 30):
            wf.result(daemon, one["id"])
        time.sleep(1.5)  # one that was being fired
        before = len(wf.listed(daemon))
        time.sleep(2.5)  # the promise is that nothing happens
        assert len(wf.listed(daemon)) == before
        assert wf.result(daemon, wf.begin(daemon, name, queue="chela"))["status"] == "SUCCESS"
    finally:
        starter.stop()
