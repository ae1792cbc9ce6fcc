"""GET /api/v1/openclaw/status: the original's fields, true in every state, and its one question."""

import re

import chelad
import pytest
from gateway import post_message
from openclaw_peer import TOKEN, OpenClaw
from postgres import free_port
from wait import eventually

STATUS = "/api/v1/openclaw/status"
STATES = {"disconnected", "connecting", "connected", "reconnecting", "failed"}


@pytest.fixture
def openclaw():
    peer = OpenClaw()
    yield peer
    peer.stop()


def status(daemon, **query):
    answer = daemon.http.get(STATUS, params=query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert None not in body.values()
    assert body["connection_state"] in STATES
    assert body["connected"] is (body["connection_state"] == "connected")
    assert isinstance(body["uptime_seconds"], int)
    return body


def connected(daemon, openclaw):
    openclaw.wait_connected()
    return eventually(lambda: status(daemon)["connected"] and status(daemon), 30)


def with_peer(start, openclaw, *flags, **env):
    return start(f"--openclaw.url={openclaw.url}", *flags, env={"OPENCLAW_TOKEN": TOKEN, **env})


def test_without_a_gateway(daemon):
    body = status(daemon)
    assert body == {"connected": False, "connection_state": "disconnected", "gateway_url": "",
                    "whatsapp_session": "agent:whatsapp:main", "uptime_seconds": 0}
    assert status(daemon, include_history="true")["command_history"] == []


@pytest.mark.parametrize("value", ["maybe", "2", "", "truee"])
def test_a_malformed_boolean_is_422(daemon, value):
    answer = daemon.http.get(STATUS, params={"include_history": value})
    assert answer.status_code == 422
    issue, = answer.json()["detail"]
    assert (issue["type"], issue["loc"]) == ("bool_parsing", ["query", "include_history"])


@pytest.mark.parametrize("value, shown", [("true", True), ("1", True), ("yes", True), ("false", False), ("0", False)])
def test_what_counts_as_a_boolean(daemon, value, shown):
    assert ("command_history" in status(daemon, include_history=value)) is shown


def test_a_connected_gateway_and_what_it_was_asked(start, openclaw):
    daemon = with_peer(start, openclaw)
    body = connected(daemon, openclaw)
    assert body["gateway_url"] == openclaw.url and "last_command" not in body
    assert body["gateway_version"] == "2026.7.35" and body["protocol"] == 4
    for number in range(12):
        post_message(daemon, "telegram:1", f"text {number}")
    openclaw.wait_texts(12)
    body = eventually(lambda: (now := status(daemon, include_history="true"))["last_command"]["status"] == "success"
                      and now["last_command"]["message"] == "text 11" and now, 30)
    assert body["last_command"] == body["command_history"][0]
    assert [one["message"] for one in body["command_history"]] == [f"text {n}" for n in range(11, 1, -1)]
    for one in body["command_history"]:
        assert one["session_key"].endswith("1") and one["status"] == "success" and one["command"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00", one["timestamp"])


def test_a_gateway_that_goes_and_comes_back(start, openclaw):
    daemon = with_peer(start, openclaw)
    connected(daemon, openclaw)
    openclaw.stop()
    gone = eventually(lambda: not (now := status(daemon))["connected"] and now, 30)
    assert gone["uptime_seconds"] == 0 and gone["connection_state"] in ("reconnecting", "connecting")
    openclaw.begin()
    connected(daemon, openclaw)
    assert openclaw.connects == 2


def test_a_wrong_token(start, openclaw):
    daemon = start(f"--openclaw.url={openclaw.url}", "--openclaw.token=wrong")
    body = eventually(lambda: (now := status(daemon))["connection_state"] == "failed" and now, 30)
    assert not body["connected"] and "token" in body["last_error"]
    assert "wrong" not in str(body)


def test_nobody_is_there(start):
    daemon = start(f"--openclaw.url=ws://127.0.0.1:{free_port()}")
    body = eventually(lambda: (now := status(daemon)).get("last_error") and now, 30)
    assert not body["connected"] and body["uptime_seconds"] == 0


def test_the_originals_setting_leads_back_to_us(start):
    port = free_port()
    daemon = start(f"--gateway.port={port}", env={"OPENCLAW_GATEWAY_URL": f"ws://127.0.0.1:{port}"})
    body = status(daemon)
    assert body["connected"] and body["connection_state"] == "connected"
    assert body["gateway_url"] == f"ws://127.0.0.1:{port}"
    post_message(daemon, "agent:whatsapp:main", "stays")
    messages = daemon.http.get("/api/v1/messages", params={"session": "agent:whatsapp:main"}).json()["messages"]
    assert [one["status"] for one in messages] == ["pending"]


def test_a_url_that_cannot_be_used(start):
    with pytest.raises(chelad.StartFailed, match="openclaw.url"):
        start("--openclaw.url=ftp://127.0.0.1/")
