"""Clients that mean harm, on the routes of workflows and on the admin routes of DBOS: whatever they
send is answered with a refusal, changes nothing, and holds up nobody."""

import json
import re
import socket
import time

import httpx
import pytest
import workflows as wf
from rawhttp import Connection, ask as raw
from starter import Starter
from wait import eventually, together, unique

BASE = "/api/v1/workflows"
HUGE = 2**63 - 1
JSON = [("Content-Type", "application/json")]


@pytest.fixture(scope="module")
def served(store, scratch):
    """A daemon with one workflow that has ended, which nothing here may change."""
    starter = Starter(store, scratch)
    daemon = starter("--durable.admin_port=0")
    workflow = wf.begin(daemon, "nobody", id="settled")
    wf.result(daemon, workflow)
    yield daemon
    starter.stop()


@pytest.fixture(scope="module")
def admin(served):
    with httpx.Client(base_url=f"http://{served.ready['listeners']['dbos_admin']}", timeout=60,
                      trust_env=False, headers={"X-Auth-Token": served.token}) as one:
        yield one


@pytest.fixture
def unchanged(served):
    before = wf.listed(served, input=1, output=1)
    process = served.process.pid
    yield served
    assert served.process.pid == process and served.process.poll() is None
    assert wf.listed(served, input=1, output=1) == before


# --- ids, as they stand in a path ---

IDS = {
    "nul": "%00", "nul inside": "settled%00", "nul before": "%00settled", "newline": "a%0Ab",
    "crlf": "a%0D%0AX-Evil%3A%201", "delete": "%7F", "not utf-8": "%FF%FE", "cut short": "%E2%82",
    "overlong slash": "%C0%AF", "surrogate": "%ED%A0%80", "beyond unicode": "%F4%90%80%80",
    "long": "x" * 256, "very long": "x" * 6000, "wide": "%F0%9F%A6%9E" * 64, "sql": "%27%20OR%201%3D1--",
    "sql end": "%27%3B%20DROP%20TABLE%20workflow_status%3B--", "like": "%25", "glob": "*",
    "json": "%22%5D%2C%5B%22", "escape": "%5Cu0000", "format": "%25s%25n%25s", "blank": "%20",
    "tab": "%09", "bidi": "%E2%80%AE", "noncharacter": "%EF%BF%BF", "dots": "%2e%2e",
    "dots out": "..%2f..%2fkeys", "twice": "%2573ettled", "backslash": "%5C..%5C",
}
ROUTES = [
    ("GET", "", None), ("PATCH", "", {"priority": 1}), ("DELETE", "?force=true&children=true", None),
    ("GET", "/steps", None), ("GET", "/result", None), ("POST", "/cancel", {"children": True}),
    ("POST", "/resume", {}), ("POST", "/fork", {"step": 0}), ("POST", "/retry", None),
    ("POST", "/rewind", {"step": 0}), ("POST", "/send", {"message": 1}),
    ("GET", "/events/k", None), ("GET", "/streams/k?follow=false", None),
]


@pytest.mark.parametrize("own_id", IDS.values(), ids=IDS)
def test_an_id_that_is_nobody_s_is_refused_on_every_route(unchanged, own_id):
    for method, suffix, body in ROUTES:
        text = None if body is None else json.dumps(body).encode()
        headers = [("X-Auth-Token", unchanged.token), *(JSON if text else [])]
        answer = raw(unchanged, method, f"{BASE}/{own_id}{suffix}", headers, text)
        assert answer.status in (400, 404, 413, 414), (method, suffix, answer.status, answer.body)
        assert not answer.header("X-Evil")


@pytest.mark.parametrize("key", [k for k in IDS.values() if k != "%2e%2e"],
                         ids=[k for k in IDS if k != "dots"])
def test_a_key_that_nobody_set_is_refused(unchanged, key):
    headers = [("X-Auth-Token", unchanged.token)]
    answer = raw(unchanged, "GET", f"{BASE}/settled/events/{key}", headers)
    assert answer.status in (400, 404, 413, 414), (answer.status, answer.body)
    answer = raw(unchanged, "GET", f"{BASE}/settled/streams/{key}?follow=false", headers)
    assert answer.status in (200, 400, 404, 413, 414), (answer.status, answer.body)
    assert b"data: " not in answer.body or b"event: end" in answer.body or b"error" in answer.body


@pytest.mark.parametrize("own_id", IDS.values(), ids=IDS)
def test_an_id_that_is_nobody_s_on_the_admin_routes(unchanged, admin, own_id):
    for method, suffix, body in [("GET", "", None), ("GET", "/steps", None), ("POST", "/cancel", None),
                                 ("POST", "/resume", None), ("POST", "/restart", None),
                                 ("POST", "/fork", {"start_step": 0})]:
        answer = admin.request(method, f"/workflows/{own_id}{suffix}", json=body)
        allowed = {200, 204, 400, 404, 413, 414} - ({200} if method == "POST" else set())
        assert answer.status_code in allowed or refused_as_there(answer), (suffix, answer.text)
        assert method == "POST" or suffix == "/steps" or answer.status_code != 200


def refused_as_there(answer):
    """DBOS answers 500 to what cannot be resumed or forked, and says so."""
    return answer.status_code == 500 and re.match(r"Error (resum|fork)ing workflow ",
                                                  answer.json()["error"])


# --- queries and numbers ---

NUMBERS = ["-1", "0", str(HUGE), str(HUGE + 1), "-" + str(HUGE + 2), "9" * 400, "1e3", "0x10", "1.5", " 1",
           "+1", "NaN", "Infinity", "", "1%00", "%D9%A1", "١".encode().hex()]


@pytest.mark.parametrize("path, field", [
    ("", "limit"), ("", "offset"), ("", "created_from"), ("", "created_to"), ("/settled/steps", "from"),
    ("/settled/steps", "limit"), ("/settled/result", "timeout"), ("/settled/events/k", "timeout"),
    ("/settled/streams/k", "offset")])
def test_numbers_out_of_every_range(unchanged, path, field):
    for number in NUMBERS:
        if field == "timeout" and number == "1e3":  # that is a time to wait
            continue
        answer = raw(unchanged, "GET", f"{BASE}{path}?follow=false&{field}={number}" if "streams" in path
                     else f"{BASE}{path}?{field}={number}", [("X-Auth-Token", unchanged.token)])
        assert answer.status in (200, 400, 404), (number, answer.status, answer.body)


def test_filters_take_any_text_and_are_bounded(unchanged):
    for name in ("status", "name", "queue", "user", "version", "executor", "parent", "forked_from",
                 "schedule", "id_prefix"):
        for text in ("%00", "%FF", "%27%22%5C", "%ED%A0%80", "x" * 5000):
            answer = raw(unchanged, "GET", f"{BASE}?{name}={text}", [("X-Auth-Token", unchanged.token)])
            assert answer.status in (200, 400, 414), (name, text[:20], answer.status, answer.body)
            assert answer.status != 200 or json.loads(answer.body)["workflows"] == []
    many = "&".join(f"name=n{number}" for number in range(1500))
    answer = raw(unchanged, "GET", f"{BASE}?{many}", [("X-Auth-Token", unchanged.token)])
    assert answer.status in (200, 400, 413, 414), answer.body


def test_every_limit_that_is_offered_is_kept(unchanged):
    """What the description of the routes says may be asked for, may be asked for."""
    document = unchanged.http.get("/openapi.json").json()
    for path in (BASE, BASE + "/{id}/steps"):
        limit, = [one for one in document["paths"][path]["get"]["parameters"] if one["name"] == "limit"]
        most = limit["schema"]["maximum"]
        for number, status in ((most, 200), (most + 1, 400)):
            answer = unchanged.http.get(path.replace("{id}", "settled"), params={"limit": number})
            assert answer.status_code == status, (path, number, answer.text)


# --- bodies ---

DEEP = b"[" * 100000 + b"]" * 100000
BODIES = {
    "deep": DEEP, "deep objects": b'{"a":' * 50000 + b"1" + b"}" * 50000, "not utf-8": b'{"name":"\xff"}',
    "surrogate": b'{"name":"\\ud800"}', "raw nul": b'{"name":"\x00"}', "no end": b'{"name":"a',
    "number": b'{"name":' + b"9" * 100000 + b"}", "real": b'{"name":"a","priority":1e999}',
    "twice": b'{"name":"a"}{"name":"b"}', "array": b"[]", "two boms": 2 * b"\xef\xbb\xbf" + b"{}",
}
POSTS = ["", "/collect", "/settled/cancel", "/settled/resume", "/settled/fork", "/settled/rewind",
         "/settled/send"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_no_request(unchanged, admin, body):
    for path in POSTS:
        answer = raw(unchanged, "POST", BASE + path, [("X-Auth-Token", unchanged.token), *JSON], body)
        assert answer.status in (400, 413), (path, answer.status, answer.body)
    for path in ("/workflows", "/queues", "/dbos-workflow-recovery", "/workflows/settled/fork",
                 "/dbos-garbage-collect", "/dbos-global-timeout"):
        answer = admin.post(path, content=body, headers=dict(JSON))
        good = path == "/dbos-workflow-recovery" and body == b"[]"
        assert answer.status_code in ((200,) if good else (400, 413)), (path, answer.text)


NUL = "a\0b"
STARTS = [
    {"name": NUL}, {"name": wf.CALL, "id": NUL}, {"name": wf.CALL, "class_name": NUL},
    {"name": wf.CALL, "queue": NUL}, {"name": wf.CALL, "queue": "q", "dedup_id": NUL},
    {"name": wf.CALL, "queue": "q", "partition_key": NUL},
    {"name": wf.CALL, "queue": "q", "app_version": NUL},
    {"name": wf.CALL, "queue": "q", "priority": HUGE}, {"name": wf.CALL, "queue": "q", "priority": -1},
    {"name": wf.CALL, "queue": "q", "delay_ms": HUGE}, {"name": wf.CALL, "timeout_ms": HUGE},
    {"name": wf.CALL, "timeout_ms": -HUGE}, {"name": wf.CALL, "delay_ms": 2**64, "queue": "q"},
    {"name": "no such workflow"}, {"name": wf.CALL, "queue": "_dbos_ \n"},
]


@pytest.mark.parametrize("body", STARTS, ids=[str(number) for number in range(len(STARTS))])
def test_starts_that_nobody_can_mean(unchanged, body):
    answer = unchanged.http.post(BASE, json=body)
    assert answer.status_code == 400, answer.text


def test_a_nul_in_a_value_is_kept_or_refused_and_harms_no_other(served):
    """PostgreSQL has no NUL in its texts; beside one others are started as ever."""
    good = [{"name": "nobody.runs", "queue": "nowhere", "id": unique("good"), "args": [1]}
            for _ in range(20)]
    bad = [{"name": "nobody.runs", "queue": "nowhere", "id": unique("bad"), field: value}
           for field, value in (("args", [NUL]), ("named_args", {NUL: 1}), ("attributes", {"a": NUL}),
                                ("attributes", {NUL: 1}), ("attributes", {"a": {"b": [NUL]}}))]
    bodies = [body for pair in zip(good, bad * 4) for body in pair]
    answers = together(lambda body: served.http.post(BASE, json=body), bodies)
    for body, answer in zip(bodies, answers):
        allowed = (201,) if body in good else (200, 201, 400)
        assert answer.status_code in allowed, (body, answer.text)
    for body in good:
        assert wf.show(served, body["id"])["args"] == [1]
    for body in bodies:
        served.http.delete(wf.path(body["id"]), params={"force": True})


def test_messages_of_any_kind(served):
    workflow = unique("mailbox")
    wf.start(served, {"name": "nobody.runs", "queue": "nowhere", "id": workflow})
    for body in ({"message": NUL}, {"message": {NUL: 1}}, {"topic": NUL, "message": 1},
                 {"key": NUL, "message": 1}, {"key": "k::" * 80, "message": 1}, {"message": "x" * 100000},
                 {"message": [[[[[[[[[[1]]]]]]]]]]}, {"topic": "\u202e", "message": 1}):
        answer = served.http.post(wf.path(workflow, "/send"), json=body)
        assert answer.status_code in (204, 400), (body, answer.text)
    assert served.http.delete(wf.path(workflow), params={"force": True}).status_code == 204


def test_times_and_timeouts_beyond_all_bounds_on_the_admin_routes(served, admin):
    for body in ({"start_step": 0, "timeout_ms": HUGE}, {"start_step": 0, "timeout_ms": 2**70},
                 {"start_step": HUGE}, {"start_step": -1}, {"start_step": 0, "timeout_ms": -1},
                 {"start_step": "0"}, {"start_step": 0, "new_workflow_id": NUL},
                 {"start_step": 0, "new_workflow_id": "x" * 256},
                 {"start_step": 0, "new_workflow_id": "  "}):
        answer = admin.post("/workflows/settled/fork", json=body)
        assert answer.status_code == 400, (body, answer.text)
    for body in ({"cutoff_epoch_timestamp_ms": -HUGE}, {"rows_threshold": -1}, {"rows_threshold": 2**70},
                 {"cutoff_epoch_timestamp_ms": "tomorrow"}, {"cutoff_epoch_timestamp_ms": {}}):
        assert admin.post("/dbos-garbage-collect", json=body).status_code == 400, body
    for body in ({"limit": HUGE}, {"offset": 2**70}, {"offset": -1}, {"workflow_uuids": ["x"] * 100000},
                 {"workflow_uuids": [NUL]}, {"workflow_name": NUL}, {"workflow_id_prefix": NUL},
                 {"start_time": HUGE}, {"end_time": -HUGE}):
        assert admin.post("/workflows", json=body).status_code in (200, 400, 413), body
    assert admin.post("/dbos-workflow-recovery", json=[NUL]).status_code in (200, 400)
    one = wf.start(served, {"name": wf.CALL, "args": [], "id": unique("after")})
    assert wf.result(served, one["id"])["status"] == "ERROR"


# --- who may ---

def test_other_sites_and_hosts_are_kept_out_of_workflows_too(unchanged, admin):
    body = json.dumps({"name": wf.CALL, "id": "from elsewhere"}).encode()
    for headers, host in (([("Origin", "http://evil.example")], "127.0.0.1"),
                          ([("Origin", "null")], "127.0.0.1"), ([], "evil.example"),
                          ([("Sec-Fetch-Site", "cross-site"), ("Origin", "http://evil.example")], "localhost")):
        answer = raw(unchanged, "POST", BASE, [*headers, *JSON], body, host=host)
        assert answer.status in (400, 403, 421), (headers, host, answer.status)
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        for method, path in (("GET", "/deactivate"), ("POST", "/dbos-global-timeout")):
            answer = admin.request(method, path, headers=headers, json={} if method == "POST" else None)
            assert answer.status_code in (400, 403, 421), (headers, path)


def test_a_path_written_otherwise_opens_no_door(store, scratch):
    starter = Starter(store, scratch)
    try:
        daemon = starter("--durable.admin_port=0")
        key = daemon.http.post("/api/v1/keys", json={"name": "k", "scopes": ["metrics"]}).json()["key"]
        address = daemon.ready["listeners"]["dbos_admin"].rsplit(":", 1)
        targets = ["/api/v1/workflows", "//api/v1/workflows", "/api/v1/./workflows",
                   "/api/v1/x/../workflows", "/api/v1/%77orkflows", "/api/v1/workflows/", "/API/V1/WORKFLOWS",
                   "/api/v1/workflows;a=b", "/api/v1/workflows%2F", "/docs/../api/v1/workflows",
                   "/api/v1/workflows/overview", "/api/v1//workflows/overview"]
        for target in targets:
            answer = raw(daemon, "GET", target, [("Authorization", f"Bearer {key}")])
            assert answer.status in (301, 307, 308, 400, 401, 403, 404), (target, answer.status)
        for target in ("/deactivate", "//deactivate", "/%64eactivate", "/./deactivate", "/DEACTIVATE",
                       "/deactivate/", "/x/../deactivate", "/deactivate%2F", "/deactivate?token=1"):
            with socket.create_connection((address[0], int(address[1])), 20) as connection:
                connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {address[0]}\r\n"
                                   "Connection: close\r\n\r\n".encode())
                status = int(connection.makefile("rb").readline().split()[1])
            assert status in (301, 307, 308, 400, 401, 403, 404), (target, status)
    finally:
        starter.stop()


# --- many at once ---

def test_waits_that_are_abandoned_leave_nothing(served):
    workflow = unique("waits")
    wf.start(served, {"name": "nobody.runs", "queue": "nowhere", "id": workflow})
    connections = []
    for number in range(60):
        connection = Connection(served)
        suffix = ("/result?timeout=600", "/events/k?timeout=600", "/streams/k")[number % 3]
        connection.request("GET", wf.path(workflow, suffix), [("X-Auth-Token", served.token)])
        connections.append(connection)
    time.sleep(0.3)
    for connection in connections:
        connection.sock.close()
    eventually(lambda: gauge(served, "chela_http_requests_in_flight") <= 1, 30)
    assert served.http.delete(wf.path(workflow), params={"force": True}).status_code == 204


def gauge(daemon, name):
    for line in daemon.http.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def test_steering_one_workflow_from_everywhere_at_once(served):
    """Cancel, resume, retry, rewind, fork and delete of one id, all at once, again and again."""
    workflow = unique("torn")
    body = {"name": wf.CALL, "args": [], "id": workflow}
    wf.start(served, body)
    verbs = [("cancel", None), ("resume", None), ("retry", None), ("rewind", {"step": 0}),
             ("fork", {"step": 0}), ("send", {"message": 1})] * 6

    def steer(verb):
        name, fields = verb
        return served.http.post(wf.path(workflow, "/" + name), json=fields)
    for _ in range(3):
        for verb, answer in zip(verbs, together(steer, verbs)):
            assert answer.status_code in (200, 201, 204, 404, 409), (verb, answer.text)
    wf.wait_status(served, workflow, "ERROR", "CANCELLED")
    family = [one["id"] for one in wf.listed(served, forked_from=workflow, limit=1000)]
    for one in family:
        wf.wait_status(served, one, "ERROR", "CANCELLED")
        assert served.http.delete(wf.path(one)).status_code == 204
    assert served.http.delete(wf.path(workflow)).status_code == 204


def test_nothing_secret_is_in_the_log(served, admin):
    secret = unique("secret")
    served.http.post(BASE, json={"name": wf.CALL, "args": [{"agent_name": secret, "prompt": secret}],
                                 "attributes": {"k": secret}})
    served.http.post(BASE, json={"name": 1, "args": [secret]})
    served.http.post(wf.path("settled", "/send"), json={"message": secret})
    admin.post("/workflows", json={"workflow_name": [secret, 1]})
    admin.get("/dbos-healthz", params={"token": "x"})
    time.sleep(0.2)
    log = served.log()
    assert served.token not in log and secret not in log
