"""Health of agents: the summary, the record, and the single rule that moves the status."""

from concurrent.futures import ThreadPoolExecutor

import agent as act
import pytest
from wait import unique

RECORD = ["agent_name", "status", "success_rate", "total_requests", "total_failures",
          "consecutive_failures"]
SUMMARY = ["total_agents", "healthy_agents", "unhealthy_agents", "degraded_agents", "error_rate"]


def test_a_new_agent_is_healthy_with_exactly_the_documented_keys(daemon):
    name = daemon.register(1, unique("agent"))
    answer = daemon.http.get(f"/api/vps/health/{name}")
    assert answer.text == (f'{{"agent_name":"{name}","status":"healthy","success_rate":100.0,'
                           '"total_requests":0,"total_failures":0,"consecutive_failures":0}')
    assert list(answer.json()) == RECORD


def test_health_of_an_unknown_agent_is_404(daemon):
    answer = daemon.http.get("/api/vps/health/nobody")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Agent 'nobody' not found"})
    reset = daemon.http.post("/api/vps/health/nobody/reset")
    assert (reset.status_code, reset.json()) == (404, {"detail": "Agent 'nobody' not found"})


# Outcomes in order, S success, F failure; the status after each.
SEQUENCES = [
    ("F", "unhealthy"),
    ("S", "healthy"),
    ("FS", "unhealthy degraded"),
    ("FSSSSS", "unhealthy degraded degraded degraded degraded healthy"),
    ("FSSSSFSSSSS", "unhealthy " + "degraded " * 9 + "healthy"),
    ("SF", "healthy degraded"),
    ("SFSSSSS", "healthy degraded degraded degraded degraded degraded healthy"),
    ("SSFF", "healthy healthy degraded degraded"),
    ("SFF", "healthy degraded unhealthy"),
    ("SSSSFFF", "healthy " * 4 + "degraded degraded unhealthy"),
    ("FFFFS", "unhealthy " * 4 + "degraded"),
    ("FFFFFS", "unhealthy " * 4 + "unreachable degraded"),
    ("SSSSSSSSSSFS", "healthy " * 10 + "degraded healthy"),
]


@pytest.mark.parametrize("outcomes, expected", SEQUENCES, ids=[row[0] for row in SEQUENCES])
def test_the_status_follows_the_outcomes(daemon, make_agent, outcomes, expected):
    answers = {"S": act.says("ok"), "F": act.fails(500)}
    agent = make_agent(*[answers[outcome] for outcome in outcomes])
    name = daemon.register(agent, unique("agent"), max_retries=1)
    seen = []
    for outcome in outcomes:
        assert daemon.call(name)["success"] == (outcome == "S")
        seen.append(daemon.health(name)["status"])
    assert seen == expected.split()
    failures = outcomes.count("F")
    record = daemon.health(name)
    assert record["total_requests"] == len(outcomes)
    assert record["total_failures"] == failures
    assert record["consecutive_failures"] == len(outcomes) - len(outcomes.rstrip("F"))
    assert record["success_rate"] == round(100 * (len(outcomes) - failures) / len(outcomes), 2)


def test_three_network_failures_in_a_row_make_an_agent_unreachable(daemon):
    name = daemon.register(act.refused_port(), unique("agent"), max_retries=1)
    seen = []
    for _ in range(3):
        daemon.call(name)
        seen.append(daemon.health(name)["status"])
    assert seen == ["unhealthy", "unhealthy", "unreachable"]


def test_mixed_failures_need_five_in_a_row_to_be_unreachable(daemon, make_agent):
    agent = make_agent(act.resets, act.fails(500), act.resets, act.resets, act.resets)
    name = daemon.register(agent, unique("agent"), max_retries=1)
    seen = []
    for _ in range(5):
        daemon.call(name)
        seen.append(daemon.health(name)["status"])
    assert seen == ["unhealthy"] * 4 + ["unreachable"]


def test_all_attempts_on_an_agent_in_one_call_count_once(daemon, make_agent):
    agent = make_agent(act.fails(500), act.fails(500), act.says("ok"), act.fails(500))
    name = daemon.register(agent, unique("agent"), max_retries=3)
    assert daemon.call(name)["success"]
    assert (daemon.health(name)["total_requests"], daemon.health(name)["total_failures"]) == (1, 0)
    assert not daemon.call(name)["success"]
    assert len(agent.requests) == 6
    assert (daemon.health(name)["total_requests"], daemon.health(name)["total_failures"]) == (2, 1)


def test_an_agent_that_was_given_no_time_has_not_failed(start, make_agent):
    daemon = start("--bridge.call_deadline=3s")
    agent = make_agent(act.hangs)
    name = daemon.register(agent, "a", max_retries=1)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(daemon.call, name, session_id="s")
        agent.wait_requests(1)
        waiting = [pool.submit(daemon.call, name, session_id="s") for _ in range(5)]
        results = [call.result() for call in [first, *waiting]]
    assert [result["error_type"] for result in results] == ["timeout"] * 6
    assert all("Request timeout after " in result["error"] for result in results)
    record = daemon.health(name)
    assert (record["total_requests"], record["status"]) == (1, "unhealthy")


def test_in_a_failover_each_agent_gets_its_own_outcome(daemon, make_agent):
    backup = daemon.register(make_agent(), unique("backup"))
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1,
                           fallback_agents=[backup])
    daemon.call(name)
    assert daemon.health(name)["total_failures"] == 1
    assert daemon.health(backup)["total_requests"] == 1
    assert daemon.health(backup)["total_failures"] == 0


def test_health_can_be_reset_by_hand(daemon, make_agent):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1)
    for _ in range(5):
        daemon.call(name)
    assert daemon.health(name)["status"] == "unreachable"
    assert daemon.http.post(f"/api/vps/health/{name}/reset").is_success
    record = daemon.health(name)
    assert (record["status"], record["consecutive_failures"]) == ("healthy", 0)


def test_the_summary_of_an_empty_bridge(own):
    assert own.http.get("/api/vps/health").text.startswith(
        '{"total_agents":0,"healthy_agents":0,"unhealthy_agents":0,"degraded_agents":0,'
        '"error_rate":0.0')


def test_the_summary_adds_up(own, make_agent):
    own.register(make_agent(), "healthy", max_retries=1)
    own.register(make_agent(act.says("ok"), act.fails(500)), "degraded", max_retries=1)
    own.register(make_agent(act.fails(500)), "unhealthy", max_retries=1)
    own.register(act.refused_port(), "unreachable", max_retries=1)
    for name, calls in (("healthy", 1), ("degraded", 2), ("unhealthy", 1), ("unreachable", 3)):
        for _ in range(calls):
            own.call(name)
        assert own.health(name)["status"] == name
    summary = own.http.get("/api/vps/health").json()
    assert list(summary)[:5] == SUMMARY
    assert set(summary) <= {*SUMMARY, "unreachable_agents"}
    assert [summary[key] for key in SUMMARY] == [4, 1, 2, 1, round(100 * 5 / 7, 2)]
    assert own.http.get("/api/vps/status").json() == {
        "status": "operational", "agents": 4, "healthy_agents": 1, "unhealthy_agents": 2,
        "sessions": 0}


def test_removed_agents_leave_the_summary(own, make_agent):
    own.register(make_agent(act.fails(500)), "a", max_retries=1)
    own.call("a")
    own.http.delete("/api/vps/agents/a")
    assert own.http.get("/api/vps/health").json()["total_agents"] == 0
    own.register(1, "a")
    assert own.health("a")["total_requests"] == 0


@pytest.mark.parametrize("path", ["/api/health/agents", "/api/health/summary"])
def test_the_documented_global_summary_knows_the_bridge_s_agents(own, make_agent, path):
    own.register(make_agent(act.fails(429)), "limited", max_retries=1)
    own.register(make_agent(), "fine", max_retries=1)
    own.call("limited")
    own.call("fine")
    answer = own.http.get(path)
    assert answer.status_code == 200
    whole = answer.json()
    assert list(whole) == ["health_summary", "agent_statuses", "error_metrics", "timestamp"]
    summary = whole["health_summary"]
    assert [summary[key] for key in ("total_agents", "healthy_agents", "unhealthy_agents",
                                     "total_requests", "total_failures")] == [2, 1, 1, 2, 1]
    assert summary["error_metrics"] == {"rate_limit": 1}
    record = whole["agent_statuses"]["limited"]
    assert list(record) == ["agent_id", "status", "last_check_at", "last_success_at",
                            "consecutive_failures", "total_failures", "total_requests",
                            "success_rate", "is_unhealthy"]
    assert (record["agent_id"], record["last_success_at"], record["is_unhealthy"]) == (
        "limited", None, True)
    assert set(whole["error_metrics"]) == {"timeout", "rate_limit", "network", "auth",
                                           "model_error", "internal", "unknown"}
    assert whole["error_metrics"]["rate_limit"]["count"] == 1
