"""Who may call: tokens, keys and scopes, Origin, Host, forwarding headers, addresses to bind."""

import re

import agent as act
import chelad
import httpx
import pytest
from rawhttp import Connection, ask
from starter import Starter
from wait import eventually, unique

CONFIGURED = "canary-configured-token"
UNAUTHORIZED = b'{"error":"Unauthorized"}'


def bearer(token):
    return ("Authorization", f"Bearer {token}")


def make_key(daemon, name="k", scopes=("admin",)):
    with daemon.client(headers=dict([bearer(daemon.token)])) as client:
        answer = client.post("/api/v1/keys", json={"name": name, "scopes": list(scopes)})
    assert answer.status_code == 201, answer.text
    return answer.json()["key"]


@pytest.fixture(scope="module")
def keyed(store, scratch):
    """A daemon on which a key has been made, so that everyone needs one; and that key."""
    starter = Starter(store, scratch)
    daemon = starter()
    daemon.key = make_key(daemon)
    yield daemon
    starter.stop()


BROWSER = ("Origin", "http://evil.example")
OWN_PAGE = ("Origin", "http://127.0.0.1:{port}")
PROXIES = [("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=1.2.3.4"), ("X-Real-IP", "1.2.3.4"),
           ("X-Forwarded-Host", "h"), ("X-Forwarded-Proto", "https"), ("Via", "1.1 proxy")]

# On a fresh installation, without any key: headers, status
FRESH = [
    ("nothing", [], 200),
    ("the token", [bearer("{admin}")], 200),
    ("another site", [BROWSER], 403),
    ("another site with the token", [BROWSER, bearer("{admin}")], 403),
    ("the own page", [OWN_PAGE], 401),
    ("the own page with the token", [OWN_PAGE, bearer("{admin}")], 200),
    ("the null origin", [("Origin", "null")], 403),
    *[(f"{one[0]} alone", [one], 401) for one in PROXIES],
    *[(f"{one[0]} with the token", [one, bearer("{admin}")], 200) for one in PROXIES],
    ("a proxy with a wrong token", [PROXIES[0], bearer("wrong")], 401),
]


@pytest.mark.parametrize("headers, status", [row[1:] for row in FRESH],
                         ids=[row[0].replace(" ", "-") for row in FRESH])
def test_on_a_fresh_installation(daemon, headers, status):
    filled = [(name, value.format(admin=daemon.token, port=daemon.port)) for name, value in headers]
    for method, target in (("GET", "/api/vps/agents"), ("GET", "/api/v1/status")):
        assert ask(daemon, method, target, filled).status == status


# Once a key exists: headers, status
KEYED = [
    ("nothing", [], 401),
    ("the key", [bearer("{key}")], 200),
    ("the key as X-Auth-Token", [("X-Auth-Token", "{key}")], 200),
    ("the admin token", [bearer("{admin}")], 200),
    ("a lower-case scheme", [("authorization", "bearer {key}")], 200),
    ("half of the key", [bearer("{half}")], 401),
    ("the key and more", [bearer("{key}0")], 401),
    ("another key", [bearer("chela_" + "0" * 64)], 401),
    ("an empty token", [("Authorization", "Bearer ")], 401),
    ("an empty X-Auth-Token", [("X-Auth-Token", "")], 401),
    ("basic authorization", [("Authorization", "Basic {key}")], 401),
    ("the key without a scheme", [("Authorization", "{key}")], 401),
    ("a forwarded call with the key", [PROXIES[0], bearer("{key}")], 200),
    ("another site with the key", [BROWSER, bearer("{key}")], 403),
]


def test_a_request_in_http_1_0_is_taken_for_a_proxy_s(daemon):
    """nginx passes requests on so by default, with nothing that says for whom."""
    head = "GET /api/vps/agents HTTP/1.0\r\nHost: 127.0.0.1\r\n"
    for more, status in (("", b" 401 "), (f"X-Auth-Token: {daemon.token}\r\n", b" 200 ")):
        with Connection(daemon) as connection:
            connection.send(head + more + "\r\n")
            assert status in connection.sock.recv(4096)


@pytest.mark.parametrize("headers, status", [row[1:] for row in KEYED],
                         ids=[row[0].replace(" ", "-") for row in KEYED])
def test_once_a_key_exists(keyed, headers, status):
    values = {"key": keyed.key, "half": keyed.key[:len(keyed.key) // 2], "admin": keyed.token}
    filled = [(name, value.format(**values)) for name, value in headers]
    answer = ask(keyed, "GET", "/api/vps/agents", filled)
    assert answer.status == status
    if status == 401:
        assert answer.body == UNAUTHORIZED
        assert answer.header("WWW-Authenticate") == "Bearer"
        assert answer.header("Content-Type") == "application/json"


GUARDED = [("GET", "/api/vps/agents"), ("GET", "/api/vps/status"), ("GET", "/api/vps/health"),
           ("GET", "/api/vps/sessions/x"), ("DELETE", "/api/vps/sessions/x"),
           ("POST", "/api/vps/call"), ("POST", "/api/vps/register"),
           ("POST", "/api/vps/sessions/cleanup"), ("DELETE", "/api/vps/agents/x"),
           ("GET", "/api/health/agents"), ("GET", "/api/v1/status"), ("GET", "/api/v1/keys"),
           ("GET", "/api/v1/sessions/export"), ("POST", "/api/v1/sessions/import"),
           ("GET", "/metrics")]


@pytest.mark.parametrize("method, target", GUARDED)
def test_every_route_is_guarded(keyed, method, target):
    assert ask(keyed, method, target).status == 401
    assert ask(keyed, method, target, body=b"not json").status == 401, "before the body is read"


@pytest.mark.parametrize("target", ["/", "/health"])
def test_the_two_exempt_routes_are_open(keyed, target):
    assert ask(keyed, "GET", target).status == 200


HOSTS = [("localhost", 200), ("localhost:{port}", 200), ("127.0.0.1:{port}", 200),
         ("[::1]:{port}", 200), ("LOCALHOST", 200), ("evil.example", 403),
         ("evil.example:{port}", 403), ("localhost.evil.example", 403), ("", 403)]


@pytest.mark.parametrize("host, status", HOSTS, ids=[row[0] or "empty" for row in HOSTS])
def test_the_host_header_must_be_ours(daemon, host, status):
    answer = ask(daemon, "GET", "/api/vps/agents", host=host.format(port=daemon.port))
    assert answer.status == status or (not host and answer.status == 400)


def test_more_hosts_and_origins_can_be_allowed(start):
    daemon = start("--auth.hosts=claw.example,other.example", "--auth.origins=https://ui.example")
    assert ask(daemon, "GET", "/api/vps/agents", host="claw.example:443").status == 200
    assert ask(daemon, "GET", "/api/vps/agents", host="third.example").status == 403
    headers = [("Origin", "https://ui.example"), bearer(daemon.token)]
    assert ask(daemon, "GET", "/api/vps/agents", headers).status == 200
    assert ask(daemon, "GET", "/api/vps/agents", headers[:1]).status == 401


PREFLIGHT = ("Access-Control-Request-Method", "POST")
METHODS = {"/api/vps/call": {"POST"}, "/messages": {"POST"}, "/api/v1/agents": {"GET", "POST"},
           "/api/vps/sessions/x": {"GET", "DELETE"}}


def listed(answer, name):
    return {one.strip() for one in answer.header(name).split(",")}


def test_a_page_of_an_allowed_origin_can_really_call(start):
    daemon = start("--auth.origins=https://ui.example")
    page, token = ("Origin", "https://ui.example"), bearer(daemon.token)
    for path, methods in METHODS.items():
        asked = ask(daemon, "OPTIONS", path, [page, PREFLIGHT])  # browsers send no token with it
        assert (asked.status, asked.body) == (204, b"")
        assert asked.header("Access-Control-Allow-Origin") == "https://ui.example"
        assert methods <= listed(asked, "Access-Control-Allow-Methods")
        assert {"Authorization", "Content-Type", "Idempotency-Key"} <= listed(
            asked, "Access-Control-Allow-Headers")
        for headers in ([("Origin", "https://other.example"), PREFLIGHT], [PREFLIGHT]):
            refused = ask(daemon, "OPTIONS", path, headers)
            assert refused.header("Access-Control-Allow-Origin") is None
            assert refused.header("Access-Control-Allow-Methods") is None
    stream = b'{"agent_name":"nobody","prompt":"p","stream":true}'
    for answer, status in [(ask(daemon, "GET", "/api/vps/agents", [page]), 401),
                           (ask(daemon, "GET", "/api/vps/agents", [page, token]), 200),
                           (ask(daemon, "POST", "/api/vps/call", [page, token], stream), 200)]:
        assert answer.status == status
        assert answer.header("Access-Control-Allow-Origin") == "https://ui.example"
        assert answer.header("Vary") == "Origin"
        assert answer.header("Access-Control-Allow-Credentials") is None


SCOPES = {
    "bridge": {"GET /api/vps/agents": 200, "POST /api/vps/sessions/cleanup": 200,
               "GET /api/v1/keys": 403, "GET /metrics": 403},
    "read": {"GET /api/vps/agents": 200, "GET /api/v1/status": 200,
             "POST /api/vps/sessions/cleanup": 403, "DELETE /api/vps/sessions/x": 403,
             "POST /api/vps/register": 403, "GET /api/v1/keys": 403},
    "metrics": {"GET /metrics": 200, "GET /api/vps/agents": 403, "POST /api/vps/call": 403,
                "GET /api/v1/keys": 403},
    "admin": {"GET /api/vps/agents": 200, "GET /metrics": 200, "GET /api/v1/keys": 200,
              "POST /api/vps/sessions/cleanup": 200},
}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_reaches_what_its_scope_says(keyed, scope):
    key = make_key(keyed, unique(scope), [scope])
    for route, status in SCOPES[scope].items():
        method, target = route.split()
        answer = ask(keyed, method, target, [bearer(key)])
        assert answer.status == status, route
        if status == 403:
            assert answer.body.startswith(b'{"error":"Forbidden: ')


def test_a_key_may_have_several_scopes(keyed):
    key = make_key(keyed, unique("both"), ["read", "metrics"])
    assert ask(keyed, "GET", "/metrics", [bearer(key)]).status == 200
    assert ask(keyed, "GET", "/api/vps/agents", [bearer(key)]).status == 200
    assert ask(keyed, "POST", "/api/vps/register", [bearer(key)], b"{}").status == 403


def test_the_text_of_a_key_is_shown_once(keyed):
    name = unique("shown")
    with keyed.client(headers=dict([bearer(keyed.token)])) as client:
        made = client.post("/api/v1/keys", json={"name": name, "scopes": ["bridge"]})
        assert made.status_code == 201
        assert made.json()["name"] == name and made.json()["scopes"] == ["bridge"]
        key = made.json()["key"]
        assert re.fullmatch(r"chela_[0-9A-Za-z_-]{40,}", key)
        listed = client.get("/api/v1/keys")
        assert name in listed.text and key not in listed.text
        again = client.post("/api/v1/keys", json={"name": name, "scopes": ["bridge"]})
        assert again.status_code == 409


@pytest.mark.parametrize("name", ["admin", "Admin", "loopback", "anonymous", "anyone"])
def test_a_key_cannot_be_called_like_those_who_have_none(keyed, name):
    """The audit log would show its acts as theirs, and answers kept under an Idempotency-Key would be theirs too."""
    with keyed.client(headers=dict([bearer(keyed.token)])) as client:
        made = client.post("/api/v1/keys", json={"name": name, "scopes": ["bridge"]})
        assert made.status_code == 400 and "without a key" in made.text


def test_a_removed_key_is_refused_at_once(keyed):
    name = unique("removed")
    key = make_key(keyed, name)
    assert ask(keyed, "GET", "/api/vps/agents", [bearer(key)]).status == 200
    with keyed.client(headers=dict([bearer(keyed.token)])) as client:
        assert client.delete(f"/api/v1/keys/{name}").status_code == 204
        assert client.delete(f"/api/v1/keys/{name}").status_code == 404
    assert ask(keyed, "GET", "/api/vps/agents", [bearer(key)]).status == 401


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "a b"}, {"name": "n" * 500},
                                  {"name": "n", "scopes": ["all"]},
                                  {"name": "n", "scopes": "read"}], ids=str)
def test_a_bad_key_request_is_refused(keyed, body):
    with keyed.client(headers=dict([bearer(keyed.token)])) as client:
        assert client.post("/api/v1/keys", json=body).status_code in (400, 422)


def test_keys_survive_a_restart_and_removing_the_last_opens_loopback_again(own):
    key = make_key(own)
    own.restart()
    assert ask(own, "GET", "/api/vps/agents").status == 401
    assert ask(own, "GET", "/api/vps/agents", [bearer(key)]).status == 200
    with own.client(headers=dict([bearer(key)])) as client:
        assert client.delete("/api/v1/keys/k").status_code == 204
    assert ask(own, "GET", "/api/vps/agents").status == 200


@pytest.mark.parametrize("name", ["AUTH_TOKEN", "GATEWAY_AUTH_TOKEN", "GATEWAY_TOKEN",
                                  "HUB_ADMIN_TOKEN"])
def test_the_original_variables_set_a_token_that_everyone_needs(start, name):
    daemon = start(env={name: CONFIGURED})
    assert ask(daemon, "GET", "/api/vps/agents").status == 401
    for header in (bearer(CONFIGURED), ("X-Auth-Token", CONFIGURED), bearer(daemon.token)):
        assert ask(daemon, "GET", "/api/v1/keys", [header]).status == 200
    assert ask(daemon, "GET", "/api/vps/agents", [bearer("wrong")]).status == 401
    assert ask(daemon, "GET", "/health").status == 200


def test_a_token_in_the_query_works_where_the_original_had_it_and_is_warned_about(start):
    daemon = start(env={"GATEWAY_AUTH_TOKEN": CONFIGURED})
    assert ask(daemon, "GET", f"/api/vps/agents?token={CONFIGURED}").status == 200
    assert ask(daemon, "GET", f"/api/v1/keys?token={CONFIGURED}").status == 401
    eventually(lambda: "token" in daemon.log() and "URL" in daemon.log())
    assert CONFIGURED not in daemon.log()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_public_address_without_authentication_is_refused(start, host):
    with pytest.raises(chelad.StartFailed) as failed:
        start(f"--gateway.host={host}")
    assert failed.value.status == 1
    assert host in failed.value.log


def test_a_public_address_with_a_token_is_served_and_needs_it(start):
    daemon = start("--gateway.host=0.0.0.0", env={"AUTH_TOKEN": CONFIGURED})
    host, port = daemon.address
    assert host == "0.0.0.0"
    assert httpx.get(f"http://127.0.0.1:{port}/api/vps/agents", trust_env=False).status_code == 401
    answer = httpx.get(f"http://127.0.0.1:{port}/api/vps/agents", trust_env=False,
                       headers=dict([bearer(CONFIGURED)]))
    assert answer.status_code == 200


@pytest.mark.parametrize("token", ["changeme", "undefined", "short"])
def test_a_placeholder_is_no_token(start, token):
    with pytest.raises(chelad.StartFailed) as failed:
        start(env={"AUTH_TOKEN": token})
    assert failed.value.status == 1


def test_the_peer_of_the_unix_socket_is_admin(keyed):
    transport = httpx.HTTPTransport(uds=str(keyed.state / "chelad.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        assert client.get("/api/v1/keys").status_code == 200
        assert client.get("/api/vps/agents").status_code == 200


def test_the_admin_token_stays_the_same_over_restarts(own):
    before = own.token
    own.restart()
    assert own.token == before


def everything_on_disk(daemon):
    return b"".join(path.read_bytes() for path in daemon.state.iterdir() if path.is_file()
                    and path.name not in ("admin.token", "master.key"))


SHOWING = ("/api/vps/agents", "/api/vps/agents/a", "/api/v1/keys", "/api/v1/status", "/metrics",
           "/api/v1/sessions/export", "/api/health/agents")


def test_secrets_are_in_no_log_and_not_readable_in_the_store(start, make_agent, store):
    env = {"AUTH_TOKEN": CONFIGURED, "LOG_LEVEL": "debug", **store.fresh(),
           "VPS_AGENTS": '[{"name":"v","host":"h","port":1,"auth_token":"canary-listed-token"}]'}
    daemon = start(env=env, fresh=False)
    agent = make_agent(act.says("ok"), act.fails(401, body=b'{"error":"bad canary-agent-token"}'))
    admin = dict([bearer(daemon.token)])
    with daemon.client(headers=admin) as client:
        client.post("/api/vps/register", json={
            "name": "a", "host": "127.0.0.1", "port": agent.port, "max_retries": 1,
            "auth_token": "canary-agent-token"})
        key = client.post("/api/v1/keys", json={"name": "k", "scopes": ["admin"]}).json()["key"]
        for _ in range(2):
            client.post("/api/vps/call", json={"agent_name": "a", "prompt": "p", "session_id": "s"})
        client.get("/api/vps/agents", headers={"X-Auth-Token": "canary-wrong-token"})
        client.get(f"/api/vps/agents?token={CONFIGURED}")
        shown = [client.get(path).text for path in SHOWING]
    assert agent.requests[0].header("Authorization") == "Bearer canary-agent-token"
    admin_token = daemon.token
    daemon.stop()
    text = daemon.log() + "".join(shown)
    stored = ["canary-agent-token", "canary-listed-token", CONFIGURED, key]
    for secret in (*stored, "canary-wrong-token", admin_token):
        assert secret not in text
    kept = everything_on_disk(daemon)
    if "DATABASE_URL" in env:
        kept += store.cluster.dump(env["DATABASE_URL"]).encode()
    assert not [secret for secret in stored if secret.encode() in kept]


def test_tokens_of_agents_survive_with_a_key_from_the_environment(start, make_agent, store):
    agent = make_agent()
    env = {"ENCRYPTION_KEY": "a passphrase of the operator", **store.fresh()}
    daemon = start(env=env, fresh=False)
    daemon.register(agent, "a", auth_token="sealed")
    assert not (daemon.state / "master.key").exists()
    daemon.restart()
    daemon.call("a")
    assert agent.requests[0].header("Authorization") == "Bearer sealed"
