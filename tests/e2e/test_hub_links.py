"""WebSockets of agents: who gets in, one socket per agent, what waits, where messages go."""

import json
import ssl
import time

import httpx
import pytest
from hub_client import DEADLINE, Agent, Hub, Refused, status_of
from wait import eventually, unique


@pytest.fixture(scope="module")
def hub(daemon):
    one = Hub(daemon)
    yield one
    one.close()


def outcome(hub, kind, status):
    return hub.metric("vm_hub_messages_total", type=kind, status=status)


# --- getting in ---

def test_the_url_of_the_registration_works_verbatim(hub):
    name = unique("agent")
    answer = hub.register(name, {"type": "dev"})
    agent = Agent(answer["wsUrl"], name)
    welcome = agent.receive()
    assert welcome == {"type": "status", "from": "host", "to": name,
                       "timestamp": welcome["timestamp"],
                       "payload": {"status": "connected", "message": "Welcome to VM Hub",
                                   "protocol": 1, "version": welcome["payload"]["version"]}}
    status = hub.status(name)
    assert status["status"] == "online" and status["lastSeen"] >= welcome["timestamp"] - 5000
    agent.close()
    hub.online(name, False)
    assert hub.status(name)["lastSeen"] >= status["lastSeen"]


def test_a_token_may_come_as_a_header_instead_of_in_the_url(hub):
    name = unique("agent")
    token = hub.register(name)["token"]
    agent = Agent(f"{hub.ws_url}/agent/{name}", name, {"Authorization": f"Bearer {token}"})
    agent.welcome()
    agent.close()


def test_the_http_port_takes_agents_too(hub):
    name = unique("agent")
    token = hub.register(name)["token"]
    host, port = hub.address
    agent = Agent(f"ws://{host}:{port}/agent/{name}/{token}?ignored=1", name)
    agent.welcome()
    agent.close()


def test_agents_come_over_tls(start, certificates):
    files = certificates.directory
    daemon = start(f"--tls.cert={files / 'good.pem'}", f"--tls.key={files / 'good.key'}")
    context = ssl.create_default_context(cafile=certificates.ca)
    http = httpx.Client(base_url=f"https://{daemon.ready['listeners']['hub']}", verify=context,
                        trust_env=False)
    answers = [http.post("/agents/register", json={"agentId": name}).json() for name in "ab"]
    assert all(answer["wsUrl"].startswith("wss://localhost:") for answer in answers)
    a, b = (Agent(answer["wsUrl"], name, tls=context) for name, answer in zip("ab", answers))
    a.welcome(), b.welcome()
    for n in range(100):
        a.send("log", {"n": n, "pad": "x" * 30000}, to="b")
    assert [b.receive()["payload"]["n"] for _ in range(100)] == list(range(100))
    a.close(), b.close()


def test_who_has_no_good_token_stays_out(hub):
    name, other = unique("agent"), unique("agent")
    token, others = hub.register(name)["token"], hub.register(other)["token"]
    for path, status in [
        (f"/agent/{name}/{others}", 401), (f"/agent/{name}/{'0' * 64}", 401),
        (f"/agent/{name}/{token[:-1]}", 401), (f"/agent/{name}/{token}0", 401),
        (f"/agent/nobody/{token}", 401), (f"/agent/{name}", 401), (f"/agent/{name}/{token}/", 404),
        (f"/agent/{name}/{token}/x", 404), (f"/Agent/{name}/{token}", 404), ("/", 404),
        ("/dashboard", 404), ("//", 404), ("///", 404), (f"//agent/{name}/{token}", 404),
        (f"/%61gent/{name}/{token}", 404), (f"/agent/{name.replace('a', '%61')}/{token}", 401),
        ("/agent/host/nonsense", 401), ("/agent/host", 401), ("/agents/x/shell", 401),
    ]:
        got, sock, rest, head = hub.handshake(path)
        assert got == status, (path, head)
        while sock.recv(65536):  # closed behind the answer
            pass
        sock.close()
    assert hub.status(name)["status"] == "offline"
    assert hub.http.get("/health").json()["status"] == "healthy"


def test_a_bad_handshake_with_a_good_token_is_told_what_is_wrong(hub):
    name = unique("agent")
    path = f"/agent/{name}/{hub.register(name)['token']}"
    for options, status in [({"method": "POST"}, 405), ({"key": ""}, 400), ({"key": "short"}, 400),
                            ({"version": ""}, 400), ({"version": "7"}, 400)]:
        got, sock, rest, head = hub.handshake(path, **options)
        assert got == status, (options, head)
        if "version" in options:
            assert b"Sec-WebSocket-Version: 13" in head
        sock.close()


def test_plain_requests_to_the_agents_port_are_answered_at_once(hub):
    for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /agents HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Length: 2\r\n\r\n{}", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"):
        assert status_of(hub.raw(request)) in (426, 400, 404), request


def test_a_token_ends(start):
    hub = Hub(start("--hub.token_ttl=1s", "--hub.tick=100ms"))
    name = unique("agent")
    token = hub.register(name)["token"]

    def refused():
        try:
            agent = hub.open(name, token)
        except Refused as e:
            return e.status == 401
        agent.welcome()
        agent.close()
        return False

    eventually(refused, deadline=DEADLINE, every=0.1)


def test_a_token_that_ends_ends_the_socket_it_opened(start):
    hub = Hub(start("--hub.token_ttl=1s"))
    agent = hub.agent()
    assert agent.closed() == (4003, "its token has expired")
    assert hub.status(agent.name)["status"] == "offline"
    hub.open(agent.name, hub.register(agent.name)["token"]).welcome()


# --- one socket per agent ---

def test_a_newer_socket_takes_the_place_of_the_older(hub):
    old = hub.agent()
    new = hub.open(old.name, old.token)
    new.welcome()
    assert old.closed()[0] == 4001
    other = hub.agent()
    other.send("log", {"n": 1}, to=old.name)
    assert new.expect("log")["payload"] == {"n": 1}
    assert hub.status(old.name)["status"] == "online"


def test_registering_again_voids_the_token_and_ends_the_socket(hub):
    agent = hub.agent(metadata={"type": "dev", "gone": 1})
    agent.send("health", {"cpu": 5})
    agent.flushed()
    before = hub.status(agent.name)
    again = hub.register(agent.name, {"type": "prod"})
    assert agent.closed()[0] == 4001
    assert hub.handshake(f"/agent/{agent.name}/{agent.token}")[0] == 401
    after = again["agent"]
    assert after["metadata"] == {"type": "prod", "capabilities": []}
    assert after["stats"]["messagesSent"] == before["stats"]["messagesSent"] == 2
    assert after["registeredAt"] == before["registeredAt"] and after["status"] == "offline"
    hub.open(agent.name, again["token"]).welcome()


def test_deregistering_ends_the_socket_and_the_token(hub):
    agent = hub.agent()
    assert hub.http.delete(f"/agents/{agent.name}").json() == {"status": "deregistered"}
    assert agent.closed()[0] == 4003
    assert hub.handshake(f"/agent/{agent.name}/{agent.token}")[0] == 401
    assert hub.http.delete(f"/agents/{agent.name}").status_code == 404
    assert hub.http.get(f"/agents/{agent.name}/status").status_code == 404


def test_an_agent_that_reports_no_health_is_cut_off_and_may_come_back(start):
    hub = Hub(start("--hub.stale=1500ms", "--hub.tick=100ms"))
    silent, well = hub.agent(), hub.agent()

    def reports():
        well.send("health", {"cpu": 1})
        return hub.status(silent.name)["status"] == "offline"

    eventually(reports, deadline=DEADLINE, every=0.2)
    assert silent.closed()[0] == 4008
    assert hub.status(well.name)["status"] == "online"
    hub.open(silent.name, silent.token).welcome()
    assert hub.status(silent.name)["status"] == "online"
    hub.close()


def test_a_peer_that_does_not_answer_pings_is_given_up(start):
    hub = Hub(start("--hub.ping=200ms"))
    name = unique("agent")
    peer = hub.peer(name, hub.register(name)["token"])  # reads nothing, answers nothing
    hub.online(name)
    hub.online(name, False)
    peer.sock.close()
    hub.close()


def test_the_hub_says_good_bye(start):
    daemon = start()
    hub = Hub(daemon)
    agent = hub.agent()
    daemon.begin_stop()
    assert agent.closed() == (1000, "Server shutting down")
    daemon.stop()


# --- the way of a message ---

def test_a_message_goes_on_as_it_came(hub):
    a, b = hub.agent(), hub.agent()
    text = ('{"id" : "m-1","from":"%s", "to":"%s","type":"log","timestamp":5,'
            '"payload":{"n":1.0,"s":"\\u00fcü"},"extra":[1,{"from":"x"}]}' % (a.name, b.name))
    a.raw(text)
    assert b.text() == text
    a.raw(text.encode())  # as a binary frame
    assert b.text() == text
    assert hub.status(b.name)["stats"]["messagesReceived"] == 2
    assert hub.status(a.name)["stats"]["messagesSent"] == 2


def test_a_result_with_bytes_that_no_database_takes_arrives(hub):
    a = hub.agent()
    task = hub.task(a.name, {"type": "exec", "command": "printf 'a\\0b'"})["taskId"]
    a.expect("task")
    a.raw('{"id":"1","from":"%s","to":"host","type":"response","timestamp":1,"payload":{"taskId":"%s",'
          '"success":true,"result":{"stdout":"a\\u0000b\\ud800","exitCode":0}}}' % (a.name, task))
    record = hub.http.get(f"/tasks/{task}", params={"wait": 10000}).json()["task"]
    assert record["status"] == "completed"
    assert record["response"]["result"]["stdout"] == "a\ufffdb\ufffd"


def test_id_and_time_are_added_where_they_are_missing(hub):
    a, b = hub.agent(), hub.agent()
    sent = a.send("status", {"x": 1}, to=b.name, id=None, timestamp=None)
    got = b.receive()
    assert len(got.pop("id")) == 36 and abs(got.pop("timestamp") - time.time() * 1000) < 60000
    assert list(got) == ["from", "to", "type", "payload"] and got == sent
    a.raw(json.dumps({"id": "", "timestamp": 0, "from": a.name, "to": b.name, "type": "error"}))
    got = b.receive()
    assert list(got) == ["id", "timestamp", "from", "to", "type"] and len(got["id"]) == 36
    assert got["timestamp"] > 10 ** 12


@pytest.mark.parametrize("envelope", [
    '"from":"host"', '"from":"%(other)s"', '"from":"%(self)s","from":"host"',
    '"from":"host","from":"%(self)s"', '"fr\\u006fm":"host","from":"%(self)s"',
    '"from":"\\u0068ost"',
])
def test_nobody_speaks_as_somebody_else(hub, envelope):
    a, b = hub.agent(), hub.agent()
    names = {"self": a.name, "other": b.name}
    a.raw('{"id":"1","to":"%s","type":"log","timestamp":1,%s,"payload":{}}'
          % (b.name, envelope % names))
    pairs = json.loads(b.text(), object_pairs_hook=list)
    assert [value for key, value in pairs if key == "from"] == [a.name]


def test_a_broadcast_goes_to_all_who_are_there_but_the_sender(hub):
    a, b, c = hub.agent(), hub.agent(), hub.agent()
    away = hub.register(unique("agent"))["agent"]["id"]
    for to in ("broadcast", "*"):
        mark = unique("mark")
        a.send("log", {"mark": mark}, to=to, **{"from": b.name})
        for one in (b, c):
            message = one.expect("log", match=lambda m: m["payload"].get("mark") == mark)
            assert message["from"] == a.name
    a.silence()
    assert hub.status(away)["stats"]["messagesReceived"] == 0


@pytest.mark.parametrize("message,why", [
    ({"type": "nonsense"}, "unknown type"), ({"type": None}, "unknown type"),
    ({"type": ["log"]}, "unknown type"), ({"to": None}, "needed"), ({"from": None}, "needed"),
    ({"from": 7}, "needed"), ({"to": "nobody-here"}, "unknown recipient"),
    ({"type": "task"}, "hub.agent_tasks"), ({"type": "task", "to": "*"}, "hub.agent_tasks"),
    ({"type": "response", "payload": None}, "payload"),
])
def test_what_cannot_be_delivered_is_a_dead_letter_and_the_sender_hears_of_it(hub, message, why):
    a, b = hub.agent(), hub.agent()
    before = hub.http.get("/admin/stats").json()["router"]["deadLetterQueueSize"]
    message = {"kind": "log", "payload": {"x": 1}, "to": b.name, **message}
    sent = a.send(**message)
    error = a.receive()
    assert error["type"] == "error" and error["from"] == "host" and why in error["payload"]["error"]
    assert error["payload"]["messageId"] == sent["id"]
    found = eventually(lambda: [d for d in hub.dead() if d["message"] == sent], deadline=DEADLINE)
    assert why in found[0]["error"] and found[0]["timestamp"] > 10 ** 12
    stats = hub.http.get("/admin/stats").json()["router"]
    assert stats["deadLetterQueueSize"] == before + 1
    b.silence(0.05)


def test_what_is_no_json_harms_nobody(hub):
    a = hub.agent()
    errors = outcome(hub, "unknown", "error")
    for text in ("", "null", "nonsense", "[1]", "3", '"x"', '{"a":', "{}" * 2, b"\xff\xfe",
                 '{"type":"log","to":"host","from":"x","payload":' + "[" * 5000 + "]" * 5000 + "}"):
        a.raw(text)
        assert a.receive()["type"] == "error"
    assert outcome(hub, "unknown", "error") == errors + 10
    a.flushed()
    assert hub.http.delete("/admin/dlq").json() == {"status": "cleared"}
    assert hub.dead() == []


def test_agents_give_each_other_tasks_only_where_that_is_allowed(start):
    hub = Hub(start("--hub.agent_tasks=on"))
    a, b = hub.agent(), hub.agent()
    a.send("task", {"taskId": "t-of-a", "type": "exec", "command": "true"}, to=b.name)
    task = b.expect("task")
    assert task["from"] == a.name and task["payload"]["taskId"] == "t-of-a"
    b.send("response", {"taskId": "t-of-a", "success": True, "result": {}}, to=task["from"])
    answer = a.expect("response")
    assert answer["payload"]["taskId"] == "t-of-a" and answer["from"] == b.name
    record = hub.http.get(f"/agents/{b.name}/tasks/t-of-a", params={"wait": 10000}).json()["task"]
    assert record["status"] == "completed"
    a.send("task", {"type": "exec", "command": "true"}, to="broadcast")
    assert b.expect("task")["from"] == a.name
    hub.close()


def test_observers_of_the_host_see_what_is_addressed_to_it(hub):
    a = hub.agent()
    host, port = hub.address
    token = hub.daemon.token
    for url, headers in [(f"{hub.ws_url}/agent/host/{token}", None),
                         (f"{hub.ws_url}/agent/host", {"Authorization": f"Bearer {token}"}),
                         (f"ws://{host}:{port}/agent/host", None)]:
        observer = Agent(url, "host", headers)
        sent = a.send("log", {"level": "info", "message": unique("hello")})
        assert observer.expect("log", match=lambda m: m["id"] == sent["id"]) == sent
        observer.close()
    assert hub.http.post("/agents/register", json={"agentId": "host"}).status_code == 400


def test_health_is_taken_in_the_types_that_readers_expect(hub):
    a = hub.agent()
    a.send("health", {"cpu": 12.5, "memory": {"total": 10, "used": 4}, "uptime": 3, "hostname": "h",
                      "loadAverage": [1, 2.5, 3], "own": {"k": "v"}})
    a.flushed()
    one = hub.status(a.name)
    assert one["health"] == {"cpu": 12.5, "memory": {"total": 10, "used": 4}, "disk": None,
                             "uptime": 3, "hostname": "h", "loadAverage": [1, 2.5, 3],
                             "own": {"k": "v"}}
    assert one["lastHealthCheck"] >= one["registeredAt"]
    a.send("health", {"cpu": "<script>", "memory": {"total": "x"}, "disk": [1], "uptime": -1,
                      "loadAverage": "1", "hostname": {"a": 1}, "timestamp": 7, "x" * 65: 1},
           **{"from": None, "to": None})
    a.send("health", {"big": "x" * 20000})
    a.send("health", None)
    a.send("health", "text")
    a.flushed()
    assert hub.status(a.name)["health"] == {**one["health"], "timestamp": 7}
    assert hub.status(a.name)["stats"]["messagesSent"] == 7


def test_the_docker_agents_metadata_and_pong_are_taken(hub):
    a = hub.agent(metadata={"type": "docker", "profile": "p"})
    a.send("metadata", {"runtime": "docker", "containerId": "c", "profile": "q"})
    a.send("pong", None)
    a.flushed()
    assert hub.status(a.name)["metadata"] == {
        "type": "docker", "capabilities": [], "profile": "q", "runtime": "docker",
        "containerId": "c"}


# --- what waits ---

def test_messages_wait_in_order_over_a_restart_and_come_before_the_welcome(start):
    daemon = start()
    hub = Hub(daemon)
    a, away = hub.agent(), unique("agent")
    token = hub.register(away)["token"]
    sent = [a.send("log", {"n": n, "pad": "x" * 5000}, to=away) for n in range(600)]
    a.flushed()
    eventually(lambda: outcome(hub, "log", "queued") == 600)
    hub.close()
    daemon.restart()
    hub.connect()
    b = hub.open(away, token)
    assert [b.receive() for _ in range(600)] == sent
    assert b.receive()["payload"]["status"] == "connected"
    assert hub.status(away)["stats"]["messagesReceived"] == 600
    b.close()
    eventually(lambda: hub.status(away)["status"] == "offline")
    b = hub.open(away, token)  # they are gone from the store
    assert b.receive()["payload"]["status"] == "connected"
    hub.close()


def test_what_an_agent_did_not_get_over_a_broken_line_comes_again(hub):
    a, away = hub.agent(), unique("agent")
    token = hub.register(away)["token"]
    sent = [a.send("log", {"n": n, "pad": "x" * 60000}, to=away) for n in range(300)]
    a.flushed()
    peer = hub.peer(away, token, receive=65536)  # 18 MB are not taken by a socket that nobody reads
    assert json.loads(peer.receive()[1])["payload"]["n"] == 0
    peer.sock.close()
    hub.online(away, False)
    b = hub.open(away, token)
    got = []
    while not got or got[-1] != sent[-1]:
        got.append(b.expect("log"))
    assert got == sent[-len(got):]  # but for what the line had swallowed, everything, in order
    b.welcome()


def test_messages_and_tasks_that_wait_keep_their_order(hub):
    a, away = hub.agent(), unique("agent")
    token = hub.register(away)["token"]
    for n in range(6):
        if n % 2:
            hub.task(away, {"id": unique("task"), "type": "exec", "n": n})
        else:
            a.send("log", {"n": n}, to=away)
            a.flushed()
    b = hub.open(away, token)
    assert [b.receive()["payload"]["n"] for _ in range(6)] == list(range(6))
    b.welcome()


@pytest.mark.parametrize("policy", ["drop-oldest", "refuse"])
def test_a_full_queue_makes_dead_letters(start, policy):
    hub = Hub(start("--hub.queue_max=5", f"--hub.queue_full={policy}"))
    a, away = hub.agent(), unique("agent")
    token = hub.register(away)["token"]
    for n in range(8):
        a.send("log", {"n": n}, to=away)
    a.flushed()
    dead = eventually(lambda: len(hub.dead()) == 3 and hub.dead(), deadline=DEADLINE)
    assert {d["error"] for d in dead} == {"queue full"}
    lost = [0, 1, 2] if policy == "drop-oldest" else [5, 6, 7]
    assert [d["message"]["payload"]["n"] for d in dead] == lost
    b = hub.open(away, token)
    assert [b.receive()["payload"]["n"] for _ in range(5)] == [n for n in range(8) if n not in lost]
    b.welcome()
    hub.close()


@pytest.mark.parametrize("policy", ["drop-oldest", "refuse"])
def test_the_bytes_that_wait_have_a_bound(start, policy):
    daemon = start("--hub.queue_bytes=100K", f"--hub.queue_full={policy}")
    hub = Hub(daemon)
    a, away = hub.agent(), unique("agent")
    token = hub.register(away)["token"]

    def send(n, size):
        a.send("log", {"n": n, "pad": "x" * size}, to=away)
        a.flushed()

    def lost():
        return [d["message"]["payload"]["n"] for d in hub.dead() if isinstance(d["message"], dict)]

    for n in range(8):
        send(n, 30_000)
    gone = [0, 1, 2, 3, 4] if policy == "drop-oldest" else [3, 4, 5, 6, 7]
    assert eventually(lambda: len(lost()) == 5 and lost(), DEADLINE) == gone
    hub.close()
    daemon.restart()
    hub.connect()
    a = hub.open(a.name, hub.register(a.name)["token"])
    a.welcome()
    send(8, 60_000)  # two have to go for it: what waited is known after the restart
    gone += [5, 6] if policy == "drop-oldest" else [8]
    assert eventually(lambda: len(lost()) == len(gone) and lost(), DEADLINE) == gone
    send(9, 110_000)  # more than may wait at all
    last = eventually(lambda: len(hub.dead()) > len(gone) and hub.dead(), DEADLINE)[-1]
    assert last["error"] == "queue full" and last["message"].startswith("{") and len(last["message"]) == 65536
    b = hub.open(away, token)
    kept = [n for n in range(9) if n not in gone]
    assert [b.receive()["payload"]["n"] for _ in kept] == kept
    b.welcome()
    b.close()
    hub.online(away, False)
    for n in range(10, 13):
        send(n, 30_000)  # what was sent makes room
    b = hub.open(away, token)
    assert [b.receive()["payload"]["n"] for _ in range(3)] == [10, 11, 12]
    b.welcome()
    hub.close()


@pytest.mark.parametrize("flags, why", [(["--hub.queue_max=1"], "queue full"),
                                        (["--hub.queue_max_age=300ms", "--hub.tick=100ms"], "expired")])
def test_of_a_large_message_that_waited_the_beginning_is_the_dead_letter(start, flags, why):
    hub = Hub(start(*flags))
    a, away = hub.agent(), unique("agent")
    hub.register(away)
    a.send("log", {"pad": "\u00e9" * 100_000}, to=away)
    a.send("log", {"n": 2}, to=away)
    first = eventually(hub.dead, DEADLINE)[0]
    assert first["error"] == why and first["message"].startswith("{") and len(first["message"]) == 16384
    hub.close()


def test_the_list_of_dead_letters_has_a_bound(hub):
    a = hub.agent()
    assert hub.http.delete("/admin/dlq").is_success
    for n in range(100):
        a.send("log", {"n": n, "pad": "x" * 60_000}, to="nobody-here")
        a.expect("error")

    def found():
        return [d["message"]["payload"]["n"] for d in hub.dead()]
    eventually(lambda: found()[-1:] == [99], DEADLINE)
    assert found() == list(range(31, 100))  # 4 MiB, the newest
    assert hub.http.delete("/admin/dlq").is_success


def letter(hub, sent, why):
    """The dead letter that a message has become."""
    found = eventually(lambda: [d for d in hub.dead() if d["message"] == sent], deadline=DEADLINE)[0]
    assert why in found["error"]
    assert hub.http.get(f"/admin/dlq/{found['position']}").json() == {"deadLetter": found}
    return f"/admin/dlq/{found['position']}"


def test_a_dead_letter_is_delivered_once_more(hub):
    a, later = hub.agent(), unique("agent")
    path = letter(hub, sent := a.send("log", {"x": 1}, to=later), "unknown recipient")
    answer = hub.http.post(f"{path}/replay")
    assert answer.status_code == 409 and later in answer.json()["error"]
    b = hub.agent(later)
    before = hub.status(later)["stats"]["messagesReceived"]
    answer = hub.http.post(f"{path}/replay")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"status": "replayed", "agentId": later}
    assert b.expect("log") == sent
    assert hub.status(later)["stats"]["messagesReceived"] == before + 1
    assert hub.http.post(f"{path}/replay").status_code == hub.http.get(path).status_code == 404
    assert sent not in [d["message"] for d in hub.dead()]


def test_a_dead_letter_for_an_agent_that_is_away_waits_for_it(start):
    daemon = start()
    hub = Hub(daemon)
    a, later = hub.agent(), unique("agent")
    path = letter(hub, sent := a.send("error", {"x": 2}, to=later), "unknown recipient")
    token = hub.register(later)["token"]
    size = hub.http.get("/admin/stats").json()["router"]["deadLetterQueueSize"]
    assert hub.http.post(f"{path}/replay").json()["status"] == "replayed"
    assert hub.http.get("/admin/stats").json()["router"]["deadLetterQueueSize"] == size - 1
    daemon.kill()  # it is on the disk
    daemon.start()
    hub.connect()
    b = hub.open(later, token)
    assert b.receive() == sent
    b.welcome()
    assert hub.http.post(f"{path}/replay").status_code == 404


def test_a_dead_letters_sender_is_who_sent_it(hub):
    a, later = hub.agent(), unique("agent")
    sent = a.send("log", {"x": 3}, to=later, **{"from": "somebody-else"})
    path = letter(hub, {**sent, "from": a.name}, "unknown recipient")
    b = hub.agent(later)
    assert hub.http.post(f"{path}/replay").is_success
    assert b.expect("log")["from"] == a.name


def test_a_task_that_died_is_asked_for_anew(hub):
    a, b = hub.agent(), hub.agent()
    path = letter(hub, a.send("task", {"taskId": "old-id", "type": "exec", "command": "true"}, to=b.name), "hub.agent_tasks")
    answer = hub.http.post(f"{path}/replay").json()
    task = b.expect("task")
    assert task["from"] == "host" and task["payload"]["command"] == "true"
    assert task["payload"]["taskId"] == answer["taskId"] != "old-id"
    b.send("response", {"taskId": answer["taskId"], "success": True, "result": {}})
    record = hub.http.get(f"/tasks/{answer['taskId']}", params={"wait": 20000}).json()["task"]
    assert record["status"] == "completed"
    assert hub.http.get(path).status_code == 404


def test_what_is_no_message_cannot_be_replayed_but_dropped(hub):
    a = hub.agent()
    a.raw("nonsense")
    a.send("whatever", {"x": 4}, to=a.name)
    bad = eventually(lambda: [d for d in hub.dead() if d["message"] == "nonsense" or (
        isinstance(d["message"], dict) and d["message"].get("type") == "whatever")], deadline=DEADLINE)
    eventually(lambda: len(hub.dead()) >= 2, deadline=DEADLINE)
    for one in bad:
        answer = hub.http.post(f"/admin/dlq/{one['position']}/replay")
        assert answer.status_code == 409 and "no message" in answer.json()["error"]
        assert hub.http.delete(f"/admin/dlq/{one['position']}").json() == {"status": "dropped"}
        assert hub.http.delete(f"/admin/dlq/{one['position']}").status_code == 404
    for odd in ("0", "-1", "x", "9" * 30):
        assert hub.http.get(f"/admin/dlq/{odd}").status_code == 404


def test_a_full_queue_takes_no_replays(start):
    hub = Hub(start("--hub.queue_max=1"))
    a, later = hub.agent(), unique("agent")
    path = letter(hub, a.send("log", {"x": 5}, to=later), "unknown recipient")
    hub.register(later)
    a.send("log", {"x": 6}, to=later)
    a.flushed()
    answer = hub.http.post(f"{path}/replay")
    assert answer.status_code == 429 and later in answer.json()["error"]
    assert hub.http.get(path).status_code == 200
    hub.close()


def test_a_task_for_which_a_socket_has_no_room_waits(start):
    hub = Hub(start("--hub.slow=600s", "--hub.ping=10m"))
    name = unique("agent")
    peer = hub.peer(name, hub.register(name)["token"], receive=4096)  # it reads nothing
    body = {"type": "exec", "command": "x" * 15_000_000}
    tasks = [hub.task(name, body)["taskId"] for _ in range(5)]
    assert hub.http.get(f"/tasks/{tasks[-1]}").json()["task"]["status"] == "queued"
    peer.sock.close()
    hub.close()


def test_what_waits_too_long_is_a_dead_letter(start):
    hub = Hub(start("--hub.queue_max_age=500ms", "--hub.tick=100ms", "--hub.dead_max=2"))
    a, away = hub.agent(), unique("agent")
    token = hub.register(away)["token"]
    for n in range(3):
        a.send("log", {"n": n}, to=away)
    dead = eventually(lambda: len(hub.dead()) == 2 and hub.dead(), deadline=DEADLINE)
    assert [(d["message"]["payload"]["n"], d["error"]) for d in dead] == [(1, "expired"),
                                                                       (2, "expired")]
    hub.open(away, token).welcome()
    hub.close()


def test_deregistering_forgets_what_waits(hub):
    a, away = hub.agent(), unique("agent")
    hub.register(away)
    a.send("log", {"n": 1}, to=away)
    a.flushed()
    hub.http.delete(f"/agents/{away}")
    token = hub.register(away)["token"]
    assert hub.open(away, token).receive()["payload"]["status"] == "connected"


def test_a_draining_agent_gets_no_new_task(hub):
    a = hub.agent()
    answer = hub.http.post(f"/agents/{a.name}/drain", json={"draining": True})
    assert answer.status_code == 200 and answer.json()["agent"]["draining"] is True
    task = hub.task(a.name, {"type": "exec", "command": "true"})["taskId"]
    a.silence()
    hub.http.post(f"/agents/{a.name}/drain", json={"draining": False})
    assert a.expect("task")["payload"]["taskId"] == task
    assert hub.http.post("/agents/nobody/drain", json={}).status_code == 404


def test_who_looks_on_sees_what_happens(hub):
    name = unique("agent")
    with hub.http.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        next(lines)  # the comment that says it has begun
        token = hub.register(name)["token"]
        agent = hub.open(name, token)
        agent.welcome()
        agent.send("health", {"cpu": 3})
        agent.send("log", {"message": "hello"})
        agent.send("log", {}, to="nobody")
        agent.close()
        seen = []
        while not seen or seen[-1]["type"] != "agent.offline":
            line = next(lines)
            if line.startswith("data:"):
                event = json.loads(line[5:])
                seen += [event] if event.get("agentId") == name else []
    assert [event["type"] for event in seen] == ["agent.registered", "agent.online", "agent.health",
                                                 "log", "message.dead", "agent.offline"]
    assert seen[2]["health"]["cpu"] == 3 and seen[3]["payload"] == {"message": "hello"}
    assert all(one["seq"] < two["seq"] for one, two in zip(seen, seen[1:]))


# --- state over restarts ---

def test_agents_their_tokens_and_counters_survive(start):
    daemon = start()
    hub = Hub(daemon)
    agents = [hub.agent(metadata={"n": n}) for n in range(5)]
    agents[1].send("health", {"cpu": 7})
    agents[1].send("metadata", {"more": 1})
    agents[1].flushed()
    before = hub.http.get("/agents").json()["agents"]
    hub.close()
    daemon.restart()
    hub.connect()
    after = hub.http.get("/agents").json()["agents"]
    for one in before + after:
        one.pop("status"), one.pop("lastSeen")
    assert after == before
    for agent in agents:
        hub.open(agent.name, agent.token).welcome()
    hub.close()


def test_a_killed_hub_knows_its_agents(start):
    daemon = start()
    hub = Hub(daemon)
    agent = hub.agent(metadata={"k": "v"})
    daemon.kill()
    assert agent.closed()[0] == 1006
    daemon.start()
    hub.connect()
    assert hub.status(agent.name)["metadata"]["k"] == "v"
    hub.open(agent.name, agent.token).welcome()
    hub.close()
