"""What the daemon says about itself: health, metrics, OpenAPI, docs, status, the welcome."""

import json
import re
import stat
from html.parser import HTMLParser

import agent as act
import httpx
import prometheus
import pytest
from rawhttp import ask
from wait import unique

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_health_has_exactly_the_four_keys(daemon):
    answer = daemon.http.get("/health")
    assert answer.status_code == 200
    whole = answer.json()
    assert list(whole) == ["status", "service", "dbos", "timestamp"]
    assert ISO.fullmatch(whole.pop("timestamp"))
    assert whole == {"status": "healthy", "service": "openclaw-gateway", "dbos": "connected"}


def test_the_root_tells_what_is_here(daemon):
    answer = daemon.http.get("/")
    assert answer.status_code == 200
    assert "service" in answer.json()


def test_status_describes_the_daemon(daemon, request):
    daemon.register(1, unique("agent"))
    whole = daemon.http.get("/api/v1/status").json()
    assert whole["version"] == daemon.ready["version"]
    assert whole["pid"] == daemon.process.pid
    assert whole["state_dir"] == str(daemon.state)
    assert whole["store"] == {"kind": request.config.getoption("--store"), "ok": True}
    assert whole["listeners"]["gateway"] == daemon.ready["listeners"]["gateway"]
    assert whole["auth_required"] is False
    assert whole["connections"] >= 1 and whole["agents"] >= 1 and whole["sessions"] >= 0
    assert whole["uptime_s"] >= 0


def scrape(daemon):
    answer = daemon.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return prometheus.parse(answer.text)


def test_metrics_are_valid_and_count_what_happened(daemon, make_agent):
    agent = make_agent(act.says("ok"), act.fails(500))
    name = daemon.register(agent, unique("agent"), max_retries=1)
    before = scrape(daemon)
    for _ in range(2):
        daemon.call(name)
    after = scrape(daemon)
    assert any(family["type"] == "histogram" for family in after.values())
    moved = [key for family in after for key, value in after[family]["samples"].items()
             if value > before.get(family, {"samples": {}})["samples"].get(key, 0)]
    names = {sample for sample, _ in moved}
    assert any("http" in sample and "bucket" in sample for sample in names), names
    assert any("bridge" in sample or "call" in sample for sample in names), names


def test_metrics_do_not_grow_with_names_a_caller_invents(daemon):
    scrape(daemon)
    before = len(daemon.http.get("/metrics").text.splitlines())
    for number in range(50):
        daemon.http.get(f"/invented/{number}")
        daemon.http.get(f"/api/vps/sessions/invented-{number}")
        daemon.http.request(f"METHOD{number}", "/health")
    assert len(daemon.http.get("/metrics").text.splitlines()) < before + 40


ROUTES = {
    "/api/vps/call": {"post"}, "/api/vps/register": {"post"}, "/api/vps/agents": {"get"},
    "/api/vps/agents/{}": {"get", "delete"}, "/api/vps/health": {"get"},
    "/api/vps/health/{}": {"get"}, "/api/vps/health/{}/reset": {"post"},
    "/api/vps/sessions": {"get"}, "/api/vps/sessions/stats": {"get"},
    "/api/vps/sessions/{}": {"get", "delete"}, "/api/vps/sessions/cleanup": {"post"},
    "/api/vps/status": {"get"}, "/api/health/agents": {"get"}, "/api/health/summary": {"get"},
    "/api/v1/sessions/export": {"get"}, "/api/v1/sessions/import": {"post"},
    "/api/v1/keys": {"get", "post"}, "/api/v1/keys/{}": {"delete"}, "/api/v1/status": {"get"},
    "/": {"get"}, "/health": {"get"}, "/metrics": {"get"},
}


def resolve(document, reference):
    assert reference.startswith("#/")
    value = document
    for part in reference[2:].split("/"):
        value = value[part.replace("~1", "/").replace("~0", "~")]
    return value


def walk(value):
    yield value
    for inner in (value.values() if isinstance(value, dict) else
                  value if isinstance(value, list) else ()):
        yield from walk(inner)


def test_openapi_lists_every_route_and_is_structurally_valid(daemon):
    answer = daemon.http.get("/openapi.json")
    assert answer.headers["content-type"].startswith("application/json")
    document = answer.json()
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"] and document["info"]["version"]
    paths = {re.sub(r"\{[^}]*\}", "{}", path): item for path, item in document["paths"].items()}
    for path, methods in ROUTES.items():
        assert methods <= set(paths[path]), path
    ids = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in ("get", "post", "put", "patch", "delete")
            assert operation["responses"], path
            assert all(re.fullmatch(r"[1-5]\d\d|default", code) for code in operation["responses"])
            assert all(one["description"] for one in operation["responses"].values())
            declared = {one["name"] for one in operation.get("parameters", ())
                        if one["in"] == "path" and one["required"] is True}
            assert declared == set(re.findall(r"\{([^}]*)\}", path)), path
            ids += [operation["operationId"]] if "operationId" in operation else []
    assert len(ids) == len(set(ids))
    for value in walk(document):
        if isinstance(value, dict) and isinstance(value.get("$ref"), str):
            resolve(document, value["$ref"])


def test_openapi_describes_the_call(daemon):
    document = daemon.http.get("/openapi.json").json()
    operation = document["paths"]["/api/vps/call"]["post"]
    assert "vps" in operation["tags"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    schema = resolve(document, schema["$ref"]) if "$ref" in schema else schema
    fields = {"agent_name", "prompt", "session_id", "user_id", "metadata"}
    assert fields <= set(schema["properties"])
    assert set(schema["required"]) == {"agent_name", "prompt"}


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.outside = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href") and value and re.match(r"(https?:)?//", value):
                if tag in ("script", "link", "img", "iframe"):
                    self.outside.append(value)


def test_the_documentation_page_needs_nothing_from_outside(daemon):
    answer = daemon.http.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = Page()
    page.feed(answer.text)
    assert page.outside == []
    assert "/api/vps/call" in answer.text or "openapi.json" in answer.text


@pytest.mark.parametrize("path", ["/health", "/", "/metrics", "/api/v1/status", "/openapi.json"])
def test_head_answers_like_get_without_a_body_or_is_405(daemon, path):
    answer = ask(daemon, "HEAD", path)
    assert answer.status in (200, 405)
    assert answer.body == b""


def test_an_unknown_path_outside_the_bridge_is_a_json_404(daemon):
    for path in ("/nothing", "/api/v1/nothing", "/health/x", "/favicon.ico"):
        answer = ask(daemon, "GET", path)
        assert answer.status == 404
        assert isinstance(json.loads(answer.body), dict)


def test_the_unix_socket_serves_the_same_routes(daemon):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.state / "chelad.sock")),
                      base_url="http://localhost") as client:
        assert client.get("/health").json()["status"] == "healthy"
        assert client.get("/api/vps/agents").status_code == 200
    assert stat.S_ISSOCK((daemon.state / "chelad.sock").stat().st_mode)


def test_the_socket_and_the_ready_line_are_gone_after_a_stop(own):
    socket_path = own.state / "chelad.sock"
    own.stop()
    assert not socket_path.exists()
