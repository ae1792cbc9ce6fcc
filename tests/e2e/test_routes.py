"""Paths and methods: what matches, what redirects, what is refused, and how."""

import json

import agent as act
import pytest
from rawhttp import ask
from wait import unique

NOT_FOUND = b'{"detail":"Not Found"}'
NOT_ALLOWED = b'{"detail":"Method Not Allowed"}'

ROUTES = [
    ("/api/vps/call", {"POST"}), ("/api/vps/register", {"POST"}), ("/api/vps/agents", {"GET"}),
    ("/api/vps/agents/a", {"GET", "DELETE"}), ("/api/vps/health", {"GET"}),
    ("/api/vps/health/a", {"GET"}), ("/api/vps/health/a/reset", {"POST"}),
    ("/api/vps/sessions", {"GET"}), ("/api/vps/sessions/s", {"GET", "DELETE"}),
    ("/api/vps/status", {"GET"}),
]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WRONG = [(path, method) for path, allowed in ROUTES for method in METHODS if method not in allowed]


@pytest.mark.parametrize("path, method", WRONG)
def test_a_wrong_method_is_405_with_the_right_ones_in_allow(daemon, path, method):
    answer = ask(daemon, method, path)
    assert answer.status == 405
    assert answer.body == (b"" if method == "HEAD" else NOT_ALLOWED)
    assert answer.header("Content-Type") == "application/json"
    allowed = {one.strip() for one in answer.header("Allow").split(",")}
    assert dict(ROUTES)[path] <= allowed <= dict(ROUTES)[path] | {"HEAD", "OPTIONS"}
    assert method not in allowed


def test_cleanup_is_a_session_id_for_get_and_delete_and_a_route_for_post(daemon, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    daemon.call(name, session_id="cleanup")
    assert daemon.session("cleanup")["session_id"] == "cleanup"
    assert daemon.http.post("/api/vps/sessions/cleanup?max_age_hours=1000").status_code == 200
    assert daemon.http.delete("/api/vps/sessions/cleanup").status_code == 204
    assert daemon.http.get("/api/vps/sessions/cleanup").json() == {
        "detail": "Session 'cleanup' not found"}


@pytest.mark.parametrize("path", ["/api/vps", "/api/vps/", "/api/vps/nothing",
                                  "/api/vps//agents", "/api/vps/agents.json", "/api/vps/call/x",
                                  "/api/vps/health/a/b", "/api/vps/agents//",
                                  "/api/vps/sessions/a/b/c",
                                  "/api/vps/./agents"])
def test_an_unknown_path_is_404(daemon, path):
    answer = ask(daemon, "GET", path)
    assert (answer.status, answer.body) == (404, NOT_FOUND)
    assert answer.header("Content-Type") == "application/json"


@pytest.mark.parametrize("path", ["//api/vps/agents", "/API/vps/agents", "/api", "/vps/agents",
                                  "/api/../api/vps/agents"])
def test_a_path_that_only_resembles_the_bridge_s_is_404(daemon, path):
    assert ask(daemon, "GET", path).status == 404


@pytest.mark.parametrize("path", ["/api/vps/agents", "/api/vps/status", "/api/vps/health",
                                  "/api/vps/health/someone", "/api/vps/sessions/one"])
def test_one_trailing_slash_redirects(daemon, path):
    answer = ask(daemon, "GET", path + "/", host=f"localhost:{daemon.port}")
    assert (answer.status, answer.body) == (307, b"")
    assert answer.header("Location") == f"http://localhost:{daemon.port}{path}"
    assert answer.header("Content-Length") == "0"


def test_the_redirect_keeps_method_and_query(daemon):
    answer = ask(daemon, "POST", "/api/vps/sessions/cleanup/?max_age_hours=5", body=b"")
    assert answer.status == 307
    assert answer.header("Location").endswith("/api/vps/sessions/cleanup?max_age_hours=5")


def test_a_post_with_a_trailing_slash_redirects_without_doing_anything(daemon):
    name = unique("agent")
    body = json.dumps({"name": name, "host": "h", "port": 1}).encode()
    answer = ask(daemon, "POST", "/api/vps/register/", [("Content-Type", "application/json")], body)
    assert answer.status == 307
    assert name not in daemon.http.get("/api/vps/agents").text


IDS = ["plain", "with space", "per%cent", "%41", "ümlaut 🦞", "a/b", "/", "q?u=e&r#y", "..", ".",
       "stats2", "a+b", "'quoted'", '"double"', "semi;colon", "x" * 200]


@pytest.mark.parametrize("session", IDS, ids=[f"id{number}" for number in range(len(IDS))])
def test_every_session_id_that_can_be_created_can_be_read_and_deleted(daemon, make_agent, session):
    name = daemon.register(make_agent(), unique("agent"))
    assert daemon.call(name, session_id=session)["success"]
    path = "/api/vps/sessions/" + "".join(f"%{byte:02X}" for byte in session.encode())
    answer = ask(daemon, "GET", path)
    assert answer.status == 200
    assert json.loads(answer.body)["session_id"] == session
    assert ask(daemon, "DELETE", path).status == 204
    answer = ask(daemon, "GET", path)
    assert answer.status == 404
    assert json.loads(answer.body) == {"detail": f"Session '{session}' not found"}


def test_a_path_is_decoded_exactly_once(daemon, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    daemon.call(name, session_id="%41")
    assert ask(daemon, "GET", "/api/vps/sessions/%2541").status == 200
    assert ask(daemon, "GET", "/api/vps/sessions/%41").status == 404


@pytest.mark.parametrize("path", ["%", "%4", "%zz", "%ff", "%00", "%c0%af"])
def test_a_malformed_escape_is_the_caller_s_mistake(daemon, path):
    assert ask(daemon, "GET", f"/api/vps/sessions/{path}").status in (400, 404)


def test_unknown_query_parameters_are_ignored(daemon):
    assert daemon.http.get("/api/vps/agents?x=1&y&=&&z=%41").status_code == 200


def test_status_of_an_empty_bridge_is_the_documented_text(own):
    assert own.http.get("/api/vps/status").text == (
        '{"status":"degraded","agents":0,"healthy_agents":0,"unhealthy_agents":0,"sessions":0}')


def test_status_counts_agents_and_sessions(own, make_agent):
    good, bad = make_agent(), make_agent(act.fails(500))
    own.register(good, "good", max_retries=1)
    own.register(bad, "bad", max_retries=1)
    for name in ("good", "bad"):
        own.call(name, session_id=f"session of {name}")
    assert own.http.get("/api/vps/status").json() == {
        "status": "operational", "agents": 2, "healthy_agents": 1, "unhealthy_agents": 1,
        "sessions": 2}
    own.http.delete("/api/vps/agents/good")
    assert own.http.get("/api/vps/status").json()["status"] == "degraded"


def test_no_route_ever_answers_the_plain_internal_server_error(daemon):
    for path, allowed in ROUTES:
        for method in allowed:
            for body in (None, b"", b"{}", b"\xff\x00", b"[1,2"):
                answer = ask(daemon, method, path, body=body)
                assert answer.status < 500, (method, path, body)
