"""A key that is revoked or expires takes along what was opened with it: sockets are closed, streams are cut."""

import threading

import httpx
import pytest
from gateway import PATIENCE, Closed, Failed, Refused, Socket, post_message
from hub_client import Agent, Hub
from starter import Starter
from wait import eventually, unique

TOKEN = "canary-auth-token-of-the-gateway"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
POLICY = 1008


@pytest.fixture(scope="module")
def guarded(store, scratch):
    starter = Starter(store, scratch)
    yield starter(env={"AUTH_TOKEN": TOKEN})
    starter.stop()


class Key:
    def __init__(self, daemon, *scopes, expires_in=None):
        self.daemon, self.name = daemon, unique("k")
        body = {"name": self.name, "scopes": list(scopes)} | ({"expires_in": expires_in} if expires_in else {})
        answer = daemon.http.post("/api/v1/keys", json=body, headers=RIGHT)
        assert answer.status_code == 201, answer.text
        self.text = answer.json()["key"]
        self.header = {"Authorization": f"Bearer {self.text}"}

    def revoke(self):
        answer = self.daemon.http.delete(f"/api/v1/keys/{self.name}", headers=RIGHT)
        assert answer.status_code == 204, answer.text


def by_header(daemon, key):
    return Socket(daemon, token=key.text)


def by_connect(daemon, key):
    one = Socket(daemon)
    one.connect(key.text)
    return one


OPENINGS = [by_header, by_connect]


@pytest.mark.parametrize("open_it", OPENINGS)
def test_a_socket_of_a_revoked_key_is_closed(guarded, open_it):
    key, box = Key(guarded, "agents"), unique("box")
    with open_it(guarded, key) as one:
        one.subscribe(box)
        key.revoke()
        assert one.closed() == POLICY
    with pytest.raises((Closed, Failed, Refused)), open_it(guarded, key) as again:
        again.subscribe(box)


@pytest.mark.parametrize("open_it", OPENINGS)
def test_a_socket_of_an_expired_key_is_closed(guarded, open_it):
    with open_it(guarded, Key(guarded, "agents", expires_in=3)) as one:
        assert one.closed() == POLICY


def test_who_does_not_answer_the_close_is_not_heard_any_more(guarded):
    """A peer that ignores it sends into the void, and is told nothing that comes later."""
    key, box = Key(guarded, "agents"), unique("box")
    with by_header(guarded, key) as one, Socket(guarded, token=TOKEN) as owner:
        one.subscribe(box)
        key.revoke()
        late = unique("late")
        one.begin("agent.send", {"sessionKey": late, "message": "too late"})
        post_message(guarded, box, "canary", headers=RIGHT)
        assert one.closed() == POLICY
        assert not one.pushed, "it was answered, or told something, after its key had gone"
        owner.subscribe(box)
        assert owner.message()["content"] == "canary"
        owner.subscribe(late)
        owner.quiet(0.5)


def test_sockets_of_others_stay(guarded):
    gone, stays = Key(guarded, "agents"), Key(guarded, "agents", expires_in=3600)
    with by_header(guarded, gone) as one, by_header(guarded, stays) as other, by_connect(guarded, stays) as third, \
            Socket(guarded, token=TOKEN) as owner:
        gone.revoke()
        assert one.closed() == POLICY
        for still in (other, third, owner):
            still.subscribe(unique("box"))


def test_a_socket_rests_on_the_token_it_showed_last(guarded):
    first, second = Key(guarded, "agents"), Key(guarded, "agents")
    with by_header(guarded, first) as one:
        one.connect(second.text)
        first.revoke()
        one.subscribe(unique("box"))
        second.revoke()
        assert one.closed() == POLICY


def test_a_key_of_the_same_name_brings_nothing_back(guarded):
    key = Key(guarded, "agents")
    with by_header(guarded, key) as one:
        key.revoke()
        body = {"name": key.name, "scopes": ["agents"]}
        assert guarded.http.post("/api/v1/keys", json=body, headers=RIGHT).status_code == 201
        assert one.closed() == POLICY


# --- the hub ---

@pytest.fixture(scope="module")
def hub(guarded):
    one = Hub(guarded)
    one.http.headers.update(RIGHT)
    yield one
    one.close()


def reads_to_the_end(url, headers, here):
    """In a thread: follow a stream of events until it ends."""
    done = threading.Event()

    def read():
        try:
            with httpx.Client(trust_env=False) as client, \
                    client.stream("GET", url, headers=headers, timeout=PATIENCE * 3) as answer:
                assert answer.status_code == 200
                for line in answer.iter_lines():
                    if line:
                        here.set()
        except httpx.HTTPError:
            pass
        done.set()

    threading.Thread(target=read, daemon=True).start()
    return done


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_of_events_is_cut(guarded, hub, how):
    key, here = Key(guarded, "agents", expires_in=3 if how == "expired" else None), threading.Event()
    other, there = Key(guarded, "agents"), threading.Event()
    url = str(hub.http.base_url).rstrip("/") + "/events"
    done = reads_to_the_end(url, key.header, here)
    stays = reads_to_the_end(url, other.header, there)
    assert here.wait(PATIENCE) and there.wait(PATIENCE)
    if how == "revoked":
        key.revoke()
    assert done.wait(PATIENCE), "the stream goes on"
    assert not stays.is_set(), "another key's stream ended"
    other.revoke()
    assert stays.wait(PATIENCE)
    assert httpx.get(url, headers=key.header, trust_env=False).status_code == 401


@pytest.mark.parametrize("how", ["header", "path"])
def test_who_looks_on_at_the_agents_port_is_shown_out(guarded, hub, how):
    key, other = Key(guarded, "agents"), Key(guarded, "agents")

    def look_on(by):
        return Agent(hub.ws_url + "/agent/host" + (f"/{by.text}" if how == "path" else ""), "host",
                     by.header if how == "header" else None)

    one, stays = look_on(key), look_on(other)
    key.revoke()
    assert one.closed()[0] == POLICY
    stays.silence()
    other.revoke()
    assert stays.closed()[0] == POLICY


def test_an_agent_rests_on_its_own_token(guarded, hub):
    key, name = Key(guarded, "agents"), unique("agent")
    token = hub.register(name)["token"]
    agent = hub.open(name, token, headers=key.header)
    agent.welcome()
    key.revoke()
    agent.flushed()


# --- two daemons on one database ---

def test_another_daemon_hears_of_it(store, scratch):
    if store.kind == "sqlite":
        pytest.skip("SQLite has one daemon")
    starter = Starter(store, scratch)
    try:
        first = starter(env={"AUTH_TOKEN": TOKEN})
        second = starter(env={"AUTH_TOKEN": TOKEN, "DATABASE_URL": first.env["DATABASE_URL"]}, fresh=False)
        key = Key(first, "agents")
        eventually(lambda: second.http.get("/api/v1/agents", headers=key.header).status_code == 200, PATIENCE)
        with by_header(second, key) as one:
            key.revoke()
            assert one.closed() == POLICY
    finally:
        starter.stop()
