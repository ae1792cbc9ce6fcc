# SPDX-License-Identifier: MIT
"""The client against real gateways: handshake, turns, posts, channels, losses, refusals."""

import pytest
from gateway import USER
from tool import Refused
from wait import eventually, unique

SESSION = f"agent:main:telegram:direct:{USER}"


def test_connects_as_a_backend_and_knows_the_peer(gateway, tool):
    now = tool("status")
    assert (now["state"], now["version"], now["protocol"]) == ("connected", gateway.release, 4)
    assert now["last_error"] is None and not now["breaker_open"]
    health = tool("request", method="health")["payload"]
    assert health["ok"] is True


def test_a_turn_answers_and_its_key_makes_it_one(gateway, tool):
    words = unique("word")
    turn = {"session": f"agent:main:{words}", "message": f"please {{{{say {words} and more}}}}", "key": words}
    assert tool("turn", **turn)["text"] == f"{words} and more"
    assert tool("turn", **turn)["text"] == f"{words} and more"
    assert gateway.provider.turns[f"say {words} and more"] == 1
    final = tool.event("chat", lambda p: p["runId"] == words and p["state"] == "final")
    assert final["message"]["content"][0]["text"] == f"{words} and more"  # the whole text


def test_a_model_that_fails_is_told_once(gateway, tool):
    name = unique("fails")
    with pytest.raises(Refused) as refused:
        tool("turn", session=f"agent:main:{name}", message="{{fail %s}}" % name, key=name)
    assert refused.value.code == "unavailable" and "LLM request failed" in refused.value.text
    assert gateway.provider.turns[f"fail {name}"] == 1


def test_a_turn_survives_the_loss_of_its_connection(gateway, tool, proxy):
    name = unique("turn")
    asked = f"wait {name} here I am"
    number = tool.begin("turn", session=f"agent:main:{name}", message="{{%s}}" % asked, key=name)
    eventually(lambda: gateway.provider.turns[asked], 120)
    before = len(tool.lines)
    proxy.cut()
    tool.state("reconnecting", before)
    tool.state("connected", before)
    gateway.provider.open(name)
    assert tool.result(number)["text"] == "here I am"
    assert gateway.provider.turns[asked] == 1


def test_requests_under_way_fail_when_the_connection_goes(gateway, tool, proxy):
    name = unique("lost")
    asked = f"wait {name} nobody hears"
    params = {"message": "{{%s}}" % asked, "sessionKey": f"agent:main:{name}", "idempotencyKey": name}
    number = tool.begin("request", method="agent", params=params)
    eventually(lambda: gateway.provider.turns[asked], 120)
    proxy.cut()
    with pytest.raises(Refused) as refused:
        tool.result(number)
    assert refused.value.code == "unavailable" and "lost" in refused.value.text
    gateway.provider.open(name)
    tool("wait")


def test_a_post_goes_out_through_the_channel_once(gateway, tool, proxy):
    text = unique("post")
    post = {"channel": "telegram", "to": str(USER), "message": text, "key": text}
    first = tool("post", **post)["id"]
    proxy.cut()
    assert tool("post", **post)["id"] == first
    assert gateway.telegram.texts(USER).count(text) == 1
    with pytest.raises(Refused) as refused:
        tool("post", **{**post, "channel": "pigeon", "key": text + "-2"})
    assert refused.value.code == "invalid"


def test_what_a_person_writes_in_a_channel_is_told_and_answered(gateway, tool):
    text = unique("question")
    gateway.telegram.say(999, "%s-stranger {{say I am not let in}}" % text)
    gateway.telegram.say(USER, "%s {{say the answer to %s}}" % (text, text))
    told = tool.event("session.message", lambda p: p["message"]["role"] == "user" and text in str(p["message"]))
    assert told["sessionKey"] == SESSION and told["messageId"] and "stranger" not in str(told["message"])
    assert told["session"]["origin"]["provider"] == "telegram"
    eventually(lambda: f"the answer to {text}" in gateway.telegram.texts(USER), 120)
    history = tool("request", method="chat.history", params={"sessionKey": SESSION, "limit": 20})["payload"]
    kept = [m["__openclaw"] for m in history["messages"] if text in str(m) and m["role"] == "user"]
    assert [m["id"] for m in kept] == [told["messageId"]] and kept[0]["recordTimestampMs"] > 0
    assert gateway.provider.turns["say I am not let in"] == 0


def test_a_wrong_token_is_a_failure_that_is_named(make_tool):
    tool = make_tool(None, "another token")
    tool.state("failed")
    now = tool("status")
    assert "AUTH_TOKEN_MISMATCH" in now["last_error"] and now["attempts"] == 1
    with pytest.raises(Refused) as refused:
        tool("turn", session="agent:main:x", message="hi", key="x")
    assert refused.value.code == "unavailable" and "refuses us" in refused.value.text


def test_a_device_identity_is_accepted(make_tool, tmp_path, gateway):
    tool = make_tool(gateway.url, "tok-of-the-gateway", str(tmp_path / "device.key"))
    tool("wait")
    assert tool("request", method="health")["payload"]["ok"] is True
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600


def test_a_gateway_that_is_killed_is_found_again_with_its_subscription(gateway, make_tool):
    tool, text = make_tool(), unique("again")
    tool("wait")
    post = {"channel": "telegram", "to": str(USER), "message": text, "key": text}
    tool("post", **post)
    tool.event("session.message", lambda p: p["message"].get("idempotencyKey") == text)  # it is written down
    before = len(tool.lines)
    gateway.kill()
    tool.state("reconnecting", before)
    waiting = tool.begin("turn", session=f"agent:main:{text}", message="{{say back}}", key=f"{text}-turn")
    gateway.start().ready()
    assert tool.result(waiting)["text"] == "back"
    gateway.telegram.say(USER, "%s {{say hello again}}" % text)
    tool.event("session.message", lambda p: text in str(p["message"]), before)
    tool("post", **post, again=True)
    assert gateway.telegram.texts(USER).count(text) == 1
