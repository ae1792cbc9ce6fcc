# SPDX-License-Identifier: MIT
"""chelad as a client of real gateways: status, messages that go out, commands that come in."""

import pytest
from gateway import USER
from wait import eventually, unique

PATIENCE = 300


def status(daemon):
    return daemon.http.get("/api/v1/openclaw/status", params={"include_history": "true"}).json()


@pytest.fixture(autouse=True)
def connected(daemon):
    eventually(lambda: status(daemon)["connected"], PATIENCE, every=0.1)


def send(daemon, to, content, **more):
    answer = daemon.http.post("/messages", params={"async": "1"}, json={"from": "tester", "to": to, "content": content,
                                                                       **more})
    assert answer.status_code in (200, 202), answer.text
    return answer.json()["workflowUuid"]


def ended(daemon, workflow):
    return eventually(lambda: daemon.http.get(f"/workflows/{workflow}").json()["status"] == "SUCCESS", PATIENCE,
                      every=0.1)


def test_status_says_that_it_is_connected(daemon, way):
    now = status(daemon)
    assert now["connection_state"] == "connected" and now["gateway_url"].startswith("ws://127.0.0.1:")


def test_a_message_to_a_channel_is_said_there_once(gateway, daemon):
    text = unique("news")
    workflow = send(daemon, f"telegram:{USER}", text, id=text)
    eventually(lambda: text in gateway.telegram.texts(USER), PATIENCE)
    assert send(daemon, f"telegram:{USER}", text, id=text) == workflow
    ended(daemon, workflow)
    assert gateway.telegram.texts(USER).count(text) == 1
    eventually(lambda: status(daemon)["command_history"][0]["status"] == "success", PATIENCE, every=0.1)


def test_a_message_to_an_agent_is_a_turn(gateway, daemon):
    word = unique("turn")
    send(daemon, f"agent:main:{word}", "{{say %s}}" % word)
    eventually(lambda: gateway.provider.turns[f"say {word}"] == 1, PATIENCE)


def test_messages_wait_while_the_gateway_is_away(gateway, daemon, way):
    text = unique("later")
    way.away = True
    way.cut()
    eventually(lambda: status(daemon)["connection_state"] == "reconnecting", PATIENCE)
    send(daemon, f"telegram:{USER}", text)
    assert text not in gateway.telegram.texts(USER)
    way.away = False
    eventually(lambda: text in gateway.telegram.texts(USER), PATIENCE)


def test_a_command_in_a_channel_is_obeyed_and_answered_there(gateway, daemon):
    before = len(gateway.telegram.texts(USER))
    gateway.telegram.say(USER, "list agents")
    eventually(lambda: [text for text in gateway.telegram.texts(USER)[before:] if "agents" in text.lower()], PATIENCE)
