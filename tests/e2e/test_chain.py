"""The fallback chain: order, duplicates, missing members, and agents known to be down."""

import agent as act
import pytest
from wait import eventually, unique

DOWN = dict(max_retries=1)


def test_agents_are_tried_in_order_until_one_answers(daemon, make_agent):
    agents = [make_agent(act.fails(500)), make_agent(act.fails(401)), make_agent(act.says("third")),
              make_agent()]
    names = [unique("agent") for _ in agents]
    for agent, name in zip(agents[1:], names[1:]):
        daemon.register(agent, name, **DOWN)
    daemon.register(agents[0], names[0], fallback_agents=names[1:], **DOWN)
    result = daemon.call(names[0])
    assert result["success"] is True
    assert (result["response"], result["agent_name"]) == ("third", names[2])
    assert (result["retried"], result["retry_count"]) == (True, 2)
    assert result["fallback_chain"] == names, "the planned chain, tried or not"
    assert [one["agent"] for one in result["attempts"]] == names[:3]
    assert [one["error_type"] for one in result["attempts"]] == ["internal", "auth", None]
    assert [len(agent.requests) for agent in agents] == [1, 1, 1, 0]


def test_when_all_fail_the_last_error_is_told(daemon, make_agent):
    backup = daemon.register(make_agent(act.fails(503)), unique("backup"), **DOWN)
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), fallback_agents=[backup],
                           **DOWN)
    result = daemon.call(name)
    assert result["agent_name"] == name, "on failure: the agent that was asked for"
    assert "'503 Service Unavailable'" in result["error"]
    assert (result["retried"], result["retry_count"]) == (True, 1)


def test_a_fallback_s_own_fallbacks_are_not_followed(daemon, make_agent):
    third = make_agent()
    grand = daemon.register(third, unique("grand"))
    backup = daemon.register(make_agent(act.fails(500)), unique("backup"),
                             fallback_agents=[grand], **DOWN)
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), fallback_agents=[backup],
                           **DOWN)
    assert daemon.call(name)["success"] is False
    assert third.connections == 0


def test_an_agent_listed_twice_or_listing_itself_is_tried_once(daemon, make_agent):
    first, second = make_agent(act.fails(500)), make_agent(act.fails(500))
    name, backup = unique("agent"), unique("backup")
    daemon.register(second, backup, **DOWN)
    daemon.register(first, name, fallback_agents=[name, backup, name, backup], **DOWN)
    result = daemon.call(name)
    assert result["fallback_chain"] == [name, backup]
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_unregistered_members_are_skipped_but_counted_in_the_index(daemon, make_agent):
    backup = daemon.register(make_agent(), unique("backup"))
    name = daemon.register(make_agent(act.fails(500)), unique("agent"),
                           fallback_agents=["ghost", backup], **DOWN)
    result = daemon.call(name)
    assert (result["agent_name"], result["retry_count"]) == (backup, 2)
    assert result["fallback_chain"] == [name, "ghost", backup]
    assert [one["agent"] for one in result["attempts"]] == [name, backup]


def test_an_unregistered_last_member_does_not_hide_the_real_error(daemon, make_agent):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), fallback_agents=["ghost"],
                           **DOWN)
    result = daemon.call(name)
    assert result["error"].startswith("All agents failed. Last error: ")
    assert "'500 Internal Server Error'" in result["error"]
    assert result["latency_ms"] > 0
    assert (result["retry_count"], result["error_type"]) == (0, "internal")


def test_a_fallback_may_be_registered_later(daemon, make_agent):
    backup = unique("backup")
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), fallback_agents=[backup],
                           **DOWN)
    assert daemon.call(name)["success"] is False
    daemon.register(make_agent(act.says("late")), backup)
    assert daemon.call(name)["response"] == "late"


@pytest.mark.parametrize("behaviour", [act.fails(401), act.fails(404), act.reply(200, b"<html>")],
                         ids=["auth", "not found", "unusable"])
def test_what_is_not_retried_goes_straight_to_the_next_agent(daemon, make_agent, behaviour):
    first = make_agent(behaviour)
    backup = daemon.register(make_agent(act.says("next")), unique("backup"))
    name = daemon.register(first, unique("agent"), max_retries=5, fallback_agents=[backup])
    assert daemon.call(name)["response"] == "next"
    assert len(first.requests) == 1


def break_agent(daemon, name):
    """Five failed calls make an agent unreachable."""
    for _ in range(5):
        daemon.call(name)
    assert daemon.health(name)["status"] == "unreachable"


def test_an_unreachable_agent_is_tried_last(daemon, make_agent):
    first = make_agent(act.fails(500))
    second = make_agent(*[act.fails(500)] * 5, act.says("backup"))
    backup = daemon.register(second, unique("backup"), **DOWN)
    name = daemon.register(first, unique("agent"), fallback_agents=[backup], **DOWN)
    break_agent(daemon, name)
    daemon.http.post(f"/api/vps/health/{backup}/reset")
    first.then(act.says("first"))
    before = len(first.requests)
    result = daemon.call(name)
    assert (result["agent_name"], result["retry_count"]) == (backup, 1)
    assert result["fallback_chain"] == [name, backup]
    assert [one["agent"] for one in result["attempts"]] == [backup]
    assert len(first.requests) == before


def test_when_all_are_unreachable_they_are_tried_anyway_in_order(daemon, make_agent):
    agents = make_agent(act.fails(500)), make_agent(act.fails(500))
    backup = daemon.register(agents[1], unique("backup"), **DOWN)
    name = daemon.register(agents[0], unique("agent"), fallback_agents=[backup], **DOWN)
    break_agent(daemon, name)
    assert daemon.health(backup)["status"] == "unreachable"
    agents[1].then(act.says("alive"))
    result = daemon.call(name)
    assert (result["success"], result["agent_name"]) == (True, backup)
    assert [one["agent"] for one in result["attempts"]] == [name, backup]


def test_a_single_unreachable_agent_is_still_tried(daemon, make_agent):
    agent = make_agent(*[act.fails(500)] * 5, act.says("back"))
    name = daemon.register(agent, unique("agent"), **DOWN)
    break_agent(daemon, name)
    assert daemon.call(name)["response"] == "back"
    assert daemon.health(name)["status"] == "degraded"


def test_after_the_half_open_time_an_unreachable_agent_gets_its_trial(start, make_agent):
    daemon = start("--bridge.half_open=300ms")
    first = make_agent(act.fails(500))
    second = make_agent(*[act.fails(500)] * 5, act.says("backup"))
    daemon.register(second, "backup", **DOWN)
    daemon.register(first, "a", fallback_agents=["backup"], **DOWN)
    break_agent(daemon, "a")
    daemon.http.post("/api/vps/health/backup/reset")
    first.then(act.says("recovered"))
    assert eventually(lambda: daemon.call("a")["agent_name"] == "a", every=0.05)
    assert daemon.health("a")["status"] == "degraded"
    assert daemon.call("a")["response"] == "recovered", "closed again after one success"


def test_a_failed_trial_opens_the_circuit_again(start, make_agent):
    daemon = start("--bridge.half_open=300ms")
    first = make_agent(act.fails(500))
    second = make_agent(*[act.fails(500)] * 5, act.says("backup"))
    daemon.register(second, "backup", **DOWN)
    daemon.register(first, "a", fallback_agents=["backup"], **DOWN)
    break_agent(daemon, "a")
    daemon.http.post("/api/vps/health/backup/reset")
    tried = len(first.requests)
    eventually(lambda: daemon.call("a")["retried"], every=0.05)
    assert len(first.requests) == tried + 1
    for _ in range(20):
        assert daemon.call("a")["success"]
    assert len(first.requests) < tried + 15, "a trial now and then, not with each call"
