"""Every state with every operation over HTTP; idempotency, names, inputs that do not fit."""

import json

import chelad
import pytest
from test_lifecycle import AGENTS, act, get, heartbeat, make
from wait import eventually, together, unique
from workflows import sql

STATES = ("running", "paused", "stopped", "failed")  # "provisioning" passes by: life_test.c has it
TEXTS = {
    "provision": "Cannot provision agent in '%s' state. Only 'provisioning' or 'failed' agents can be provisioned.",
    "pause": "Cannot pause agent in '%s' state. Only 'running' agents can be paused.",
    "resume": "Cannot resume agent in '%s' state. Only 'paused' agents can be resumed.",
    "heartbeat": "Cannot execute heartbeat for agent in '%s' state. Agent must be 'running'.",
    "message": "Agent must be provisioned before sending messages",
}
# operation: state it is allowed in -> state afterwards
ALLOWED = {
    "provision": {"running": "running", "failed": "failed"},  # its model is still none
    "pause": {"running": "paused"},
    "resume": {"paused": "running"},
    "heartbeat": {"running": "running"},
    "message": {"running": "running"},
    "settings": {state: state for state in STATES},
    "delete": {state: "stopped" for state in STATES},
}


def in_state(daemon, state):
    agent = make(daemon, model="gpt" if state == "failed" else "a/b")
    if state == "paused":
        act(daemon, agent, "pause")
    if state == "stopped":
        assert daemon.http.delete(f"{AGENTS}/{agent['id']}").status_code == 204
    assert get(daemon, agent)["status"] == state
    return agent


def do(daemon, agent, operation):
    url = f"{AGENTS}/{agent['id']}"
    if operation == "settings":
        return daemon.http.patch(f"{url}/settings", json={"persona": "other"})
    if operation == "delete":
        return daemon.http.delete(url)
    return daemon.http.post(f"{url}/{operation}", json={"message": "hello"} if operation == "message" else None)


@pytest.mark.parametrize("operation", ALLOWED)
@pytest.mark.parametrize("state", STATES)
def test_every_state_with_every_operation(daemon, state, operation):
    agent = in_state(daemon, state)
    answer = do(daemon, agent, operation)
    after = ALLOWED[operation].get(state)
    if after:
        assert answer.status_code == (204 if operation == "delete" else 200), answer.text
    else:
        assert answer.status_code == 409, answer.text
        text = TEXTS[operation]
        assert answer.json() == {"detail": text % state if "%" in text else text}
    assert get(daemon, agent)["status"] == (after or state)
    if operation == "settings":
        assert get(daemon, agent)["persona"] == "other"


@pytest.mark.parametrize("operation", ALLOWED)
def test_an_unknown_agent_is_404(daemon, operation):
    for id in ("0b5d9a3e-6a53-4d6f-8f39-2c0c1f2f7a11", "nope"):
        answer = do(daemon, {"id": id}, operation)
        assert (answer.status_code, answer.json()) == (404, {"detail": f"Agent {id} not found"})


# --- keys and names ---

def test_one_key_is_one_agent_however_many_ask(daemon):
    key, name = unique("key"), unique("Keyed")
    made = together(lambda _: make(daemon, name, headers={"Idempotency-Key": key}), range(20))
    assert len({agent["id"] for agent in made}) == 1
    assert sql(daemon, f"SELECT count(*) FROM agent_swarm_instances WHERE name = '{name}'") == [["1"]]
    other = daemon.http.post(f"{AGENTS}/provision", headers={"dbos-idempotency-key": key},
                             json={"name": name, "model": "a/c"})
    assert other.status_code == 409 and other.json()["detail"] == "Idempotency-Key was used for another request"
    assert make(daemon, name)["openclaw_session_key"] == made[0]["openclaw_session_key"] + "-1"


def test_agents_of_one_name_have_keys_of_their_own(daemon):
    name = unique("Same")
    made = together(lambda _: make(daemon, name), range(8))
    first = f"agent:{name.lower()}:main"
    assert {agent["openclaw_session_key"] for agent in made} == {first} | {f"{first}-{n}" for n in range(1, 8)}
    assert len({agent["openclaw_agent_id"] for agent in made}) == 8


def test_a_key_outlives_a_restart(own):
    headers = {"Idempotency-Key": "k"}
    agent = make(own, "Lasting", headers=headers)
    own.kill()
    own.start()
    assert make(own, "Lasting", headers=headers)["id"] == agent["id"]


def test_a_message_is_said_once_by_its_key(daemon):
    one, other = make(daemon), make(daemon)
    headers = {"Idempotency-Key": unique("key")}
    first = act(daemon, one, "message", json={"message": "a"}, headers=headers)
    assert act(daemon, one, "message", json={"message": "a"}, headers=headers) == first
    act(daemon, one, "message", 409, json={"message": "b"}, headers=headers)
    assert act(daemon, other, "message", json={"message": "b"}, headers=headers)["message_id"] != first["message_id"]


def test_a_full_mailbox_is_429_and_too_many_agents_409(start):
    daemon = start("--messages.mailbox_max=2", "--agents.max=1")
    agent = make(daemon)  # its greeting is the first
    act(daemon, agent, "message", json={"message": "a"})
    assert "full" in act(daemon, agent, "message", 429, json={"message": "b"})["detail"]
    assert make(daemon, status=409)["detail"] == "there are already 1 agents"


# --- inputs ---

BAD = [
    ({"model": "a/b"}, "missing", ["body", "name"]),
    ({"name": "x"}, "missing", ["body", "model"]),
    ({"name": "", "model": "a/b"}, "string_too_short", ["body", "name"]),
    ({"name": "x" * 256, "model": "a/b"}, "string_too_long", ["body", "name"]),
    ({"name": 5, "model": "a/b"}, "string_type", ["body", "name"]),
    ({"name": "x", "model": "a/b", "heartbeat": {}}, "missing", ["body", "heartbeat", "enabled"]),
    ({"name": "x", "model": "a/b", "heartbeat": {"enabled": "maybe"}}, "bool_parsing", ["body", "heartbeat", "enabled"]),
    ({"name": "x", "model": "a/b", "heartbeat": {"enabled": True, "interval": "7m"}}, "enum",
     ["body", "heartbeat", "interval"]),
    ({"name": "x", "model": "a/b", "heartbeat": {"enabled": True, "checklist": "look"}}, "list_type",
     ["body", "heartbeat", "checklist"]),
    ({"name": "x", "model": "a/b", "heartbeat": {"enabled": True, "checklist": ["a", 2]}}, "string_type",
     ["body", "heartbeat", "checklist", 1]),
    ({"name": "x", "model": "a/b", "configuration": []}, "dict_type", ["body", "configuration"]),
    ({"name": "x", "model": "a/b", "workspace_id": "w"}, "uuid_parsing", ["body", "workspace_id"]),
]


@pytest.mark.parametrize("body, type, loc", BAD)
def test_what_does_not_fit_is_422(daemon, body, type, loc):
    for path in (AGENTS, f"{AGENTS}/provision"):
        answer = daemon.http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        issue = answer.json()["detail"][0]
        assert (issue["type"], issue["loc"]) == (type, loc)


def test_settings_tell_null_from_absent(daemon):
    agent = make(daemon, heartbeat=heartbeat("1h", "look"))
    url = f"{AGENTS}/{agent['id']}/settings"
    kept = daemon.http.patch(url, json={"heartbeat": {"enabled": True}, "persona": None}).json()
    assert (kept["heartbeat_interval"], kept["heartbeat_checklist"]) == ("1h", ["look"])
    cleared = daemon.http.patch(url, json={"heartbeat": {"enabled": True, "interval": None, "checklist": None}}).json()
    assert cleared["heartbeat_interval"] is cleared["heartbeat_checklist"] is cleared["next_heartbeat_at"] is None
    assert cleared["heartbeat_enabled"] is True and cleared["configuration"] == {}
    changed = daemon.http.patch(url, json={"heartbeat": {"enabled": True, "interval": "2h"}, "model": "c/d"}).json()
    assert changed["heartbeat_interval"] == "2h" and changed["next_heartbeat_at"] and changed["model"] == "c/d"


def test_the_list_and_its_filters(own):
    made = [make(own, f"L{n}") for n in range(5)]
    act(own, made[2], "pause")
    page = own.http.get(AGENTS, params={"limit": 2, "offset": 1}).json()
    assert [agent["name"] for agent in page["agents"]] == ["L3", "L2"]
    assert (page["total"], page["limit"], page["offset"]) == (5, 2, 1)
    assert [agent["id"] for agent in own.http.get(AGENTS, params={"status": "paused"}).json()["agents"]] == [made[2]["id"]]
    assert own.http.get(AGENTS, params={"status": "no such"}).json()["total"] == 5
    for bad in ({"limit": 0}, {"limit": 201}, {"offset": -1}, {"limit": "x"}):
        assert own.http.get(AGENTS, params=bad).status_code == 422


def test_the_database_away_is_503_with_the_text(store, start):
    if store.kind != "postgres":
        pytest.skip("SQLite is never away")
    daemon = start()
    make(daemon)
    store.cluster.stop()
    try:
        answer = daemon.http.get(f"{AGENTS}/x")
        assert (answer.status_code, answer.json()) == (503, {"detail": "Durable workflow engine unavailable"})
    finally:
        store.cluster.start()


def test_creating_many_is_quick_enough_to_fill_a_fleet(own):
    """Only that nothing is lost when many are made at once; how quick it is says bench/."""
    together(lambda n: make(own, f"Fleet {n}", heartbeat=heartbeat("30s")), range(200), workers=16)
    assert own.http.get(AGENTS, params={"status": "running"}).json()["total"] == 200
    eventually(lambda: "chela_agents_beating 200" in own.http.get("/metrics").text.splitlines(), 30)


# --- two processes, the command ---

def test_another_process_learns_of_agents(store, start):
    if store.kind != "postgres":
        pytest.skip("SQLite has one process")
    one = start()
    two = start(env={"DATABASE_URL": one.env["DATABASE_URL"]}, fresh=False)
    agent = make(one, heartbeat=heartbeat("30s"))

    def beating(count):
        return all(f"chela_agents_beating {count}" in each.http.get("/metrics").text.splitlines() for each in (one, two))
    eventually(lambda: beating(1), 30)
    act(two, agent, "pause")
    eventually(lambda: beating(0), 30)
    assert act(one, agent, "resume")["status"] == "running"
    eventually(lambda: beating(1), 30)


def test_the_command(daemon):
    def chela(*arguments, status=0):
        done = chelad.run("chela", "--state", daemon.state, "swarm", *arguments)
        assert done.returncode == status, done.stderr
        return done.stdout
    name = unique("Commanded")
    made = json.loads(chela("create", name, "a/b", "--every=1h", '--checklist=["look"]', '--configuration={"x":1}',
                            "--key", unique("key"), "--json"))
    assert made["heartbeat_interval"] == "1h" and made["heartbeat_checklist"] == ["look"]
    assert made["configuration"] == {"x": 1} and made["status"] == "running"
    id = made["id"]
    assert id in chela("agents", "--status=running", "--name", name)
    assert "running" in chela("show", id)
    assert chela("heartbeat", id) == f"{id}: completed\n"
    assert chela("pause", id) == f"{id}: paused\n"
    chela("message", id, "hello", status=1)
    assert chela("resume", id) == f"{id}: running\n"
    assert chela("provision", id) == f"{id}: running\n"
    assert chela("message", id, "hello") == f"Message delivered to {made['openclaw_session_key']}\n"
    assert chela("rm", id) == f"stopped {id}\n"
    assert get(daemon, made)["status"] == "stopped"
    chela("show", "nobody", status=3)
