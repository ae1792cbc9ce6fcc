"""Who may use the backend, and what one connection may cost: tokens, JWTs, Origin, limits, close codes."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import time
import uuid

import chelad
import pytest
from gateway import PATIENCE, Closed, Failed, Refused, Socket, post_message
from rawhttp import ask
from starter import Starter
from wait import eventually, unique

TOKEN = "canary-auth-token-of-the-gateway"
WRONG = "canary-wrong-token-of-somebody"
SECRET = "canary-jwt-secret-0123456789abcdef"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
MESSAGE = {"from": "a", "to": "b", "content": "canary-content"}


@pytest.fixture(scope="module")
def locked(store, scratch):
    """A gateway with AUTH_TOKEN."""
    starter = Starter(store, scratch)
    yield starter(env={"AUTH_TOKEN": TOKEN, "LOG_LEVEL": "debug"})
    starter.stop()


def make_key(daemon, *scopes, token=TOKEN):
    answer = daemon.http.post("/api/v1/keys", json={"name": unique("k"), "scopes": list(scopes)},
                              headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201, answer.text
    return answer.json()["key"]


# --- HTTP ---

GUARDED = [("POST", "/messages"), ("GET", "/workflows/x"), ("GET", "/workflows"), ("POST", "/workflows/x/recover"),
           ("POST", "/workflows/provision-agent"), ("POST", "/workflows/heartbeat"),
           ("POST", "/workflows/pause-resume"), ("POST", "/chat"), ("POST", "/workflows/skill-installation"),
           ("POST", "/workflows/skill-execution"), ("GET", "/api/v1/agents"), ("POST", "/api/v1/agents"),
           ("POST", "/api/v1/agents/provision"), ("GET", "/api/v1/agents/x"), ("DELETE", "/api/v1/agents/x"),
           ("POST", "/api/v1/agents/x/pause"), ("POST", "/api/v1/agents/x/message"),
           ("PATCH", "/api/v1/agents/x/settings"), ("GET", "/api/v1/openclaw/status"), ("GET", "/api/v1/messages"),
           ("POST", "/api/v1/messages"), ("POST", "/api/v1/commands"), ("GET", "/api/v1/trackers"),
           ("GET", "/api/v1/swarm/status"), ("GET", "/api/v1/workflows/health"), ("GET", "/metrics"),
           ("POST", "/MESSAGES"), ("POST", "/messages/")]


@pytest.mark.parametrize("method, target", GUARDED)
def test_every_route_wants_the_token(locked, method, target):
    for headers in ([], [("Authorization", f"Bearer {WRONG}")], [("Authorization", f"Basic {TOKEN}")],
                    [("X-Auth-Token", TOKEN[:-1])], [("Authorization", f"Bearer {TOKEN}x")]):
        for body in (None, b"not json"):
            answer = ask(locked, method, target, headers, body)
            assert answer.status == 401, (headers, body, answer.body)
            assert answer.header("WWW-Authenticate") == "Bearer"
            assert "Unauthorized" in answer.body.decode()


@pytest.mark.parametrize("target", ["/", "/health", "/health/", "/HEALTH"])
def test_two_routes_are_open(locked, target):
    assert ask(locked, "GET", target).status == 200


@pytest.mark.parametrize("headers", [RIGHT, {"X-Auth-Token": TOKEN}, {"authorization": f"bearer {TOKEN}"}])
def test_the_token_opens(locked, headers):
    assert locked.http.post("/messages", json=MESSAGE, headers=headers).status_code == 200


def test_a_token_in_the_query_opens_nothing(locked):
    assert locked.http.post(f"/messages?token={TOKEN}", json=MESSAGE).status_code == 401
    with pytest.raises((Refused, Failed)), Socket(locked, f"/?token={TOKEN}") as one:
        one.ask("agent.send", {"sessionKey": "x", "message": "y"})


def test_scopes(locked):
    keys = {scope: {"Authorization": f"Bearer {make_key(locked, scope)}"} for scope in ("read", "agents", "bridge")}
    assert locked.http.get("/workflows/nope", headers=keys["read"]).status_code == 200
    assert locked.http.get("/api/v1/agents", headers=keys["read"]).status_code == 200
    for method, path in (("POST", "/messages"), ("POST", "/api/v1/agents/provision"), ("POST", "/api/v1/commands")):
        answer = locked.http.request(method, path, json={}, headers=keys["read"])
        assert answer.status_code == 403, (path, answer.text)
    assert locked.http.post("/messages", json=MESSAGE, headers=keys["agents"]).status_code == 200
    assert locked.http.get("/api/v1/keys", headers=keys["agents"]).status_code == 403
    with pytest.raises((Refused, Failed)), Socket(locked, token=keys["read"]["Authorization"].split()[1]) as one:
        one.ask("agent.send", {"sessionKey": "agent:x:main", "message": "y"})


def test_a_fresh_installation_is_open_on_loopback_until_a_key_exists(start):
    daemon = start()
    assert daemon.http.post("/messages", json=MESSAGE).status_code == 200
    forwarded = daemon.http.post("/messages", json=MESSAGE, headers={"X-Forwarded-For": "1.2.3.4"})
    assert forwarded.status_code == 401
    with Socket(daemon) as early:
        early.connect()
        key = make_key(daemon, "admin", token=daemon.token)
        assert daemon.http.post("/messages", json=MESSAGE).status_code == 401
        with pytest.raises(Failed), Socket(daemon) as late:
            late.ask("agent.send", {"sessionKey": "agent:x:main", "message": "y"})
        with Socket(daemon, token=key) as late:
            late.ask("agent.send", {"sessionKey": "agent:x:main", "message": "y"})


def test_auth_required_off_is_for_clients_that_send_none(start):
    daemon = start(env={"AUTH_TOKEN": TOKEN, "AUTH_REQUIRED": "0"})
    assert daemon.http.post("/messages", json=MESSAGE).status_code == 200
    with Socket(daemon) as one:
        one.connect()
        one.ask("agent.send", {"sessionKey": "agent:x:main", "message": "y"})
    assert daemon.http.get("/api/v1/keys").status_code == 401, "only the gateway's own routes"
    assert ask(daemon, "POST", "/messages", [("Origin", "http://evil.example")], b"{}").status == 403


@pytest.mark.parametrize("env", [{"AUTH_REQUIRED": "0"}, {"BACKEND_AUTH": "none"}])
def test_an_open_gateway_on_other_addresses_is_refused(start, env):
    with pytest.raises(chelad.StartFailed) as failed:
        start("--gateway.host=0.0.0.0", env={"AUTH_TOKEN": TOKEN, **env})
    assert failed.value.status not in (0, -6, -11)
    assert "loopback" in failed.value.log


# --- WebSocket ---

SEND = {"sessionKey": "agent:x:main", "message": "hi"}


def test_connect_with_the_token(locked):
    with Socket(locked) as one:
        assert one.connect(TOKEN)["protocol"] == 3
        assert one.ask("agent.send", SEND)["status"] == "delivered"


def test_the_token_in_the_upgrade(locked):
    with Socket(locked, token=TOKEN) as one:
        assert one.ask("agent.send", SEND)["status"] == "delivered"


def test_a_wrong_token_in_the_upgrade(locked):
    with pytest.raises((Refused, Failed, Closed)), Socket(locked, token=WRONG) as one:
        one.ask("agent.send", SEND)


@pytest.mark.parametrize("method, params", [
    ("agent.send", SEND), ("agent.subscribe", {"sessionKey": "agent:x:main"}), ("agent.ack", {"messageId": "x"}),
    ("agent.reply", {"messageId": "x", "response": "y"}), ("agent.heartbeat", {"sessionKey": "agent:x:main"}),
    ("no.such", None)])
def test_before_connect_every_request_is_unauthorized(locked, method, params):
    with Socket(locked) as one:
        with pytest.raises(Failed) as failed:
            one.ask(method, params)
        assert failed.value.code == "UNAUTHORIZED"
        one.connect(TOKEN)  # it may still


def test_a_direct_message_before_connect_is_not_delivered(locked):
    to = unique("agent:locked")
    with Socket(locked) as one:
        one.send({"id": "d", "from": "a", "to": to, "content": "c"})
        with contextlib.suppress(Closed):
            assert one.frame()["type"] == "error"
    with Socket(locked, token=TOKEN) as one:
        one.subscribe(to)
        one.quiet(0.5)


@pytest.mark.parametrize("token", [WRONG, "", TOKEN[:-1], TOKEN + "x", "\u0000", None])
def test_a_wrong_token_closes_with_1008(locked, token):
    with Socket(locked) as one:
        with pytest.raises(Failed) as failed:
            one.connect(token)
        assert failed.value.code == "UNAUTHORIZED"
        assert one.closed() == 1008


@pytest.mark.parametrize("auth", [{"token": 7}, {"token": None}, {"token": [TOKEN]}, {}, [], "x", None])
def test_auth_of_another_kind_is_no_way_in(locked, auth):
    with Socket(locked) as one:
        one.send({"type": "req", "id": "1", "method": "connect", "params": {
            "minProtocol": 3, "maxProtocol": 3, "auth": auth}})
        with contextlib.suppress(Closed):
            assert one.answer("1")["ok"] is False
            with pytest.raises(Failed):
                one.ask("agent.send", SEND)


@pytest.mark.parametrize("low, high, ok", [(3, 3, True), (1, 3, True), (3, 4, True), (3, 99, True), (4, 9, False),
                                           (1, 2, False), (99, 99, False), (4, 3, False)])
def test_the_protocol_range_must_include_3(locked, low, high, ok):
    with Socket(locked) as one:
        if ok:
            assert one.connect(TOKEN, low, high)["protocol"] == 3
            return
        with pytest.raises(Failed) as failed:
            one.connect(TOKEN, low, high)
        assert failed.value.code == "PROTOCOL_MISMATCH"


def test_who_says_nothing_is_closed(locked):
    """After ten seconds; a ping or garbage is no greeting."""
    silent, noisy = Socket(locked, pongs=False), Socket(locked)
    began = time.monotonic()
    noisy.send("garbage")
    assert silent.closed(60) == noisy.closed(60) == 1008
    assert time.monotonic() - began > 8
    silent.drop(), noisy.drop()


def test_origin_and_host_of_an_upgrade(locked):
    for headers, host in (([("Origin", "http://evil.example")], None), ([("Origin", "null")], None),
                          ([], "evil.example"), ([], f"evil.example:{locked.port}")):
        with pytest.raises(Refused) as refused:
            Socket(locked, token=TOKEN, headers=headers, host=host)
        assert refused.value.status == 403
    own = [("Origin", f"http://127.0.0.1:{locked.port}")]
    with Socket(locked, token=TOKEN, headers=own) as one:
        one.connect()


def test_a_web_page_opens_no_socket_on_a_fresh_installation(start):
    daemon = start()
    for origin, status in (("http://evil.example", 403), ("null", 403)):
        with pytest.raises(Refused) as refused:
            Socket(daemon, headers=[("Origin", origin)])
        assert refused.value.status == status
    for headers in ([("Origin", f"http://127.0.0.1:{daemon.port}")], [("X-Forwarded-For", "1.2.3.4")]):
        with pytest.raises((Refused, Failed)), Socket(daemon, headers=headers) as one:
            one.ask("agent.send", SEND)


def test_an_acknowledgement_is_for_a_message_of_a_session_of_the_socket(locked):
    """Senders choose message ids, so one id may stand in many mailboxes."""
    mine, other = unique("agent:mine"), unique("agent:other")
    for to in (mine, other):
        locked.http.post("/messages", json={**MESSAGE, "to": to, "id": "twin"}, headers=RIGHT)
    with Socket(locked, token=TOKEN) as one:
        with pytest.raises(Failed):
            one.ack("twin")  # subscribed to nothing yet, it names nothing
        one.subscribe(mine)
        assert one.message()["messageId"] == "twin"
        one.ack("twin")
        one.quiet(0.2)
    for to, left in ((mine, 0), (other, 1)):
        with Socket(locked, token=TOKEN) as one:
            one.subscribe(to)
            if left:
                assert one.message()["messageId"] == "twin"
            else:
                one.quiet(0.3)


# --- limits ---

def test_max_sessions(start):
    daemon = start(env={"MAX_SESSIONS": "3"})
    held = [Socket(daemon) for _ in range(3)]
    for one in held:
        one.connect()
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            Socket(daemon)
        assert refused.value.status == 503
    post_message(daemon, "agent:x:main")  # HTTP is served all the same
    held[0].close()
    held.append(eventually(lambda: opened(daemon)))
    for one in held[1:]:
        one.drop()


def opened(daemon):
    try:
        return Socket(daemon)
    except Refused:
        return None


def test_max_message_size(start):
    daemon = start(env={"MAX_MESSAGE_SIZE": "4096"})
    small, large = "x" * 3000, "x" * 5000
    assert daemon.http.post("/messages", json={**MESSAGE, "content": small}).status_code == 200
    assert daemon.http.post("/messages", json={**MESSAGE, "content": large}).status_code == 413
    with Socket(daemon) as one:
        one.ask("agent.send", {"sessionKey": "agent:x:main", "message": small})
        one.begin("agent.send", {"sessionKey": "agent:x:main", "message": large})
        assert one.closed() == 1009
    with Socket(daemon) as one:  # a frame whose first byte shows that it will be too long
        one.sock.sendall(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0x")
        assert one.closed() in (1009, 1002)


def test_silence_is_the_end_and_a_pong_is_not_silence(start):
    daemon = start("--gateway.ping=200ms", env={"SESSION_TIMEOUT": "1500"})
    silent, alive = Socket(daemon, pongs=False), Socket(daemon)
    began = time.monotonic()
    eventually(lambda: pumped(silent, alive), 30)
    assert time.monotonic() - began > 1.4
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            alive.frame(0.2)
    assert alive.connect()["protocol"] == 3 and alive.pings > 5
    silent.drop(), alive.drop()


def pumped(silent, alive):
    """Read a little of both; True when the silent one has been closed."""
    with contextlib.suppress(TimeoutError):
        alive.frame(0.05)
    try:
        silent.frame(0.05)
    except TimeoutError:
        return False
    except Closed:
        return True


def test_a_shutdown_closes_with_1001(start):
    daemon = start()
    held = [Socket(daemon) for _ in range(20)]
    for one in held[:10]:
        one.connect()
    held[3].subscribe("agent:x:main")
    daemon.begin_stop()
    assert [one.closed() for one in held] == [1001] * 20
    for one in held:
        one.drop()


def test_binary_fragmented_and_broken_frames(locked):
    with Socket(locked, token=TOKEN) as one:
        text = json.dumps({"type": "req", "id": "1", "method": "agent.send", "params": SEND}).encode()
        one.peer.send((1, text[:10], False), (0, text[10:20], False), (9, b"ping"), (0, text[20:]))
        assert one.peer.receive() == (10, b"ping")
        assert one.answer("1")["ok"] is True
        one.peer.send((2, b"\x00\xff"))
        with contextlib.suppress(Closed):
            assert one.frame()["type"] == "error"
    for bad, code in (((1, b"\xff\xfe"), 1007), ((3, b""), 1002), ((1, b"x", True, 4), 1002)):
        with Socket(locked, token=TOKEN) as one:
            one.peer.send(bad)
            assert one.closed() == code
    with Socket(locked, token=TOKEN) as one:
        one.peer.send(one.peer.frame(1, b"{}", masked=False))
        assert one.closed() == 1002


def test_sockets_that_stall_in_their_handshake_hurt_nobody(locked):
    stalled = []
    for head in (b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"):
        for _ in range(50):
            stalled.append(socket.create_connection(locked.address, PATIENCE))
            stalled[-1].sendall(head)
    with Socket(locked, token=TOKEN) as one:
        assert one.ask("agent.send", SEND)["status"] == "delivered"
    for one in stalled:
        one.close()


# --- JWT ---

OWNER, OTHER, WORKSPACE = (str(uuid.uuid4()) for _ in range(3))


def b64(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(claims=None, head=None, secret=SECRET, digest=hashlib.sha256, **more):
    claims = {"sub": OWNER, "email": "owner@example.com", "exp": int(time.time()) + 600, **(claims or {}), **more}
    claims = {name: value for name, value in claims.items() if value is not ...}
    text = f"{b64(head or {'alg': 'HS256', 'typ': 'JWT'})}.{b64(claims)}"
    return f"{text}.{b64(hmac.new(secret.encode(), text.encode(), digest).digest())}"


@pytest.fixture(scope="module")
def signed(store, scratch):
    starter = Starter(store, scratch)
    yield starter(env={"BACKEND_AUTH": "jwt", "JWT_SECRET_KEY": SECRET, "LOG_LEVEL": "debug"})
    starter.stop()


def as_user(token):
    return {"Authorization": f"Bearer {token}"}


def test_jwt_a_good_one(signed):
    assert signed.http.get("/api/v1/agents", headers=as_user(jwt())).status_code == 200
    assert signed.http.get("/api/v1/agents", headers=as_user(jwt(email=...))).status_code == 200


def flipped(token):
    return token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]


def payload_swapped():
    head, _, mac = jwt().split(".")
    return f"{head}.{b64({'sub': OTHER, 'exp': int(time.time()) + 600})}.{mac}"


def unsigned(alg):
    head, claims, _ = jwt(head={"alg": alg, "typ": "JWT"}).split(".")
    return f"{head}.{claims}."


FORGERIES = {
    "alg none": lambda: unsigned("none"), "alg None": lambda: unsigned("None"), "alg empty": lambda: unsigned(""),
    "alg none, signed": lambda: jwt(head={"alg": "none"}), "HS384": lambda: jwt(head={"alg": "HS384"},
                                                                             digest=hashlib.sha384),
    "HS512": lambda: jwt(head={"alg": "HS512"}, digest=hashlib.sha512), "RS256": lambda: jwt(head={"alg": "RS256"}),
    "alg missing": lambda: jwt(head={"typ": "JWT"}), "alg a number": lambda: jwt(head={"alg": 256}),
    "alg twice": lambda: jwt(head=b'{"alg":"HS256","alg":"none"}'), "crit": lambda: jwt(
        head={"alg": "HS256", "crit": ["x"], "x": 1}),
    "another secret": lambda: jwt(secret="another-secret-another-secret-123"), "empty secret": lambda: jwt(secret=""),
    "a bit of the signature": lambda: flipped(jwt()), "another payload": payload_swapped,
    "no signature": lambda: jwt().rsplit(".", 1)[0] + ".", "two parts": lambda: jwt().rsplit(".", 1)[0],
    "four parts": lambda: jwt() + ".x", "not base64": lambda: "a!b.c!d.e!f", "empty": lambda: "..",
    "claims not an object": lambda: sign_text("[1]"), "claims not json": lambda: sign_text("nope"),
    "no exp": lambda: jwt(exp=...), "exp a text": lambda: jwt(exp="9999999999"), "exp null": lambda: jwt(exp=None),
    "exp true": lambda: jwt(exp=True), "no sub": lambda: jwt(sub=...), "sub a number": lambda: jwt(sub=7),
    "sub empty": lambda: jwt(sub=""), "not yet": lambda: jwt(nbf=int(time.time()) + 600),
    "half a megabyte": lambda: jwt(pad="x" * 6000)[:-4], "padded": lambda: jwt() + "==",
}


def sign_text(claims):
    text = f"{b64({'alg': 'HS256'})}.{b64(claims.encode())}"
    return f"{text}.{b64(hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=[name.replace(" ", "-") for name in FORGERIES])
def test_jwt_forgeries(signed, forge):
    answer = signed.http.get("/api/v1/agents", headers=as_user(forge()))
    assert answer.status_code == 401, answer.text
    assert answer.json()["detail"] in ("Invalid token", "Invalid token payload")


def test_jwt_expired(signed):
    for age in (1, 10, 10 ** 9):
        answer = signed.http.get("/api/v1/agents", headers=as_user(jwt(exp=int(time.time()) - age)))
        assert (answer.status_code, answer.json()["detail"]) == (401, "Token has expired")


def test_jwt_nothing(signed):
    for headers in ({}, {"Authorization": "Basic x"}, {"X-Auth-Token": jwt()}):
        answer = signed.http.get("/api/v1/agents", headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (401, "Not authenticated")


def make_agent(daemon, token, **fields):
    answer = daemon.http.post("/api/v1/agents/provision", headers=as_user(token),
                              json={"name": unique("Owned"), "model": "a/b", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def every_operation(daemon, one, headers):
    yield daemon.http.get(f"/api/v1/agents/{one}", headers=headers)
    for what in ("pause", "resume", "heartbeat", "provision"):
        yield daemon.http.post(f"/api/v1/agents/{one}/{what}", headers=headers)
    yield daemon.http.post(f"/api/v1/agents/{one}/message", json={"message": "x"}, headers=headers)
    yield daemon.http.patch(f"/api/v1/agents/{one}/settings", json={"persona": "stolen"}, headers=headers)
    yield daemon.http.delete(f"/api/v1/agents/{one}", headers=headers)


def test_jwt_somebody_else_s_agent(signed):
    made = make_agent(signed, jwt())
    assert made["user_id"] == OWNER
    for answer in every_operation(signed, made["id"], as_user(jwt(sub=OTHER))):
        assert answer.status_code == 403, (answer.request.url, answer.text)
        assert answer.json()["detail"] == "Access denied: you do not own this agent"
    still = signed.http.get(f"/api/v1/agents/{made['id']}", headers=as_user(jwt())).json()
    assert (still["status"], still["persona"]) == ("running", None)
    listed = signed.http.get("/api/v1/agents", headers=as_user(jwt(sub=OTHER))).json()
    assert made["id"] not in [one["id"] for one in listed["agents"]]


def test_jwt_an_agent_of_another_workspace(signed):
    made = make_agent(signed, jwt(workspace_id=WORKSPACE), workspace_id=WORKSPACE)
    answer = signed.http.get(f"/api/v1/agents/{made['id']}", headers=as_user(jwt(workspace_id=str(uuid.uuid4()))))
    assert answer.status_code == 403
    assert answer.json()["detail"] == "Access denied: agent belongs to different workspace"
    assert signed.http.get(f"/api/v1/agents/{made['id']}",
                           headers=as_user(jwt(workspace_id=WORKSPACE))).status_code == 200


@pytest.mark.parametrize("secret", ["", "short"])
def test_jwt_without_a_secret_there_is_no_start(start, secret):
    with pytest.raises(chelad.StartFailed) as failed:
        start(env={"BACKEND_AUTH": "jwt", "JWT_SECRET_KEY": secret})
    assert failed.value.status not in (0, -6, -11)
    assert "jwt" in failed.value.log.lower()


def test_backend_auth_none_is_open_on_loopback(start):
    daemon = start(env={"BACKEND_AUTH": "none", "AUTH_TOKEN": TOKEN})
    made = make_agent(daemon, "whatever")
    assert daemon.http.get(f"/api/v1/agents/{made['id']}").status_code == 200
    assert daemon.http.post("/messages", json=MESSAGE).status_code == 401, "only the agents' routes"
    assert daemon.http.get("/api/v1/agents", headers={"Origin": "http://evil.example"}).status_code == 403


# --- last: what the logs say ---

def test_no_token_secret_or_content_in_the_logs(locked, signed):
    """After everything above, at level debug."""
    locked.http.post("/messages", json=MESSAGE, headers=RIGHT)
    for daemon in (locked, signed):
        assert "canary" not in daemon.log()
        assert "eyJ" not in daemon.log()
