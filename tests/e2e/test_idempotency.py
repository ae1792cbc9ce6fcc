"""Idempotency-Key on a call: the agent is asked once, the recorded result is answered again."""

import agent as act
import pytest
from wait import together, unique


def test_the_same_key_and_body_get_the_recorded_result(daemon, make_agent):
    agent = make_agent(act.counted())
    name = daemon.register(agent, unique("agent"))
    session, key = unique("session"), unique("key")
    first = daemon.try_call(name, session_id=session, key=key)
    second = daemon.try_call(name, session_id=session, key=key)
    assert first.json()["response"] == "answer 1"
    assert second.text == first.text
    assert len(agent.requests) == 1
    assert len(daemon.turns(session)) == 2


def test_a_call_without_a_session_may_have_a_key_too(daemon, make_agent):
    agent = make_agent(act.counted())
    name, key = daemon.register(agent, unique("agent")), unique("key")
    assert daemon.try_call(name, key=key).json() == daemon.try_call(name, key=key).json()
    assert len(agent.requests) == 1


def test_another_key_or_none_is_another_call(daemon, make_agent):
    agent = make_agent(act.counted())
    name = daemon.register(agent, unique("agent"))
    for key in (unique("key"), unique("key"), None, None):
        daemon.try_call(name, key=key)
    assert len(agent.requests) == 4


@pytest.mark.parametrize("change", [{"prompt": "other"}, {"metadata": {"x": 1}}], ids=str)
def test_the_same_key_with_another_body_is_refused(daemon, make_agent, change):
    agent = make_agent()
    name, key = daemon.register(agent, unique("agent")), unique("key")
    daemon.try_call(name, key=key)
    answer = daemon.try_call(name, key=key, **change)
    assert answer.status_code in (409, 422)
    assert "detail" in answer.json()
    assert len(agent.requests) == 1


def test_simultaneous_calls_with_one_key_ask_the_agent_once(daemon, make_agent):
    agent = make_agent(act.counted())
    name, key, session = daemon.register(agent, unique("agent")), unique("key"), unique("session")
    answers = together(lambda _: daemon.try_call(name, key=key, session_id=session), range(10))
    assert {answer.text for answer in answers if answer.status_code == 200} == {
        next(answer.text for answer in answers if answer.status_code == 200)}
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len(agent.requests) == 1
    assert len(daemon.turns(session)) == 2


def test_the_recorded_result_survives_a_restart(own, make_agent):
    agent = make_agent(act.counted())
    name = own.register(agent, "a")
    first = own.try_call(name, session_id="s", key="k").text
    own.restart()
    assert own.try_call(name, session_id="s", key="k").text == first
    own.kill()
    own.start()
    assert own.try_call(name, session_id="s", key="k").text == first
    assert len(agent.requests) == 1


def test_an_overlong_key_is_refused(daemon):
    assert daemon.try_call("nobody", key="k" * 5000).status_code in (400, 422)
