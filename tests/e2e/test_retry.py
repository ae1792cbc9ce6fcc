"""Attempts on one agent: the class of each failure, whether it is retried, and when."""

import email.utils
import time

import agent as act
import pytest
from wait import together, unique

# name, behaviour, class on the wire, retried?, text in the error
FAILURES = [
    ("400", act.fails(400), "unknown", False, "'400 Bad Request'"),
    ("401", act.fails(401), "auth", False, "'401 Unauthorized'"),
    ("403", act.fails(403), "auth", False, "'403 Forbidden'"),
    ("407", act.fails(407), "auth", False, "'407 Proxy Authentication Required'"),
    ("404", act.fails(404), "unknown", False, "'404 Not Found'"),
    ("404 for the model", act.fails(404, body=b'{"error":"model not found: x"}'), "model_error",
     False, "'404 Not Found'"),
    ("422", act.fails(422), "unknown", False, "'422 "),
    ("408", act.fails(408), "timeout", True, "'408 Request Timeout'"),
    ("504", act.fails(504), "timeout", True, "'504 Gateway Timeout'"),
    ("429", act.fails(429), "rate_limit", True, "'429 Too Many Requests'"),
    ("500", act.fails(500), "internal", True, "'500 Internal Server Error'"),
    ("501", act.fails(501), "internal", True, "'501 Not Implemented'"),
    ("502", act.fails(502), "internal", True, "'502 Bad Gateway'"),
    ("503", act.fails(503), "internal", True, "'503 Service Unavailable'"),
    ("reset", act.resets, "network", True, ""),
    ("reset in the body", act.resets_in_body, "network", True, ""),
    ("closed without an answer", act.closes, "network", True, ""),
    ("cut short", act.truncates, "network", True, ""),
]


@pytest.mark.parametrize("row", FAILURES, ids=[row[0].replace(" ", "-") for row in FAILURES])
def test_a_failure_has_its_class_and_its_retry_policy(daemon, make_agent, row):
    _, behaviour, kind, retried, text = row
    agent = make_agent(behaviour)
    name = daemon.register(agent, unique("agent"), max_retries=3)
    result = daemon.call(name)
    assert (result["success"], result["error_type"]) == (False, kind)
    assert text in result["error"]
    tries = 3 if retried else 1
    assert len(agent.requests) == tries
    assert [(one["agent"], one["attempt"], one["error_type"]) for one in result["attempts"]] == [
        (name, number, kind) for number in range(1, tries + 1)]
    status = int(row[0][:3]) if row[0][:3].isdigit() else None
    if status:
        assert [one["status"] for one in result["attempts"]] == [status] * tries
    assert daemon.health(name)["total_failures"] == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_is_never_followed(daemon, make_agent, status):
    target = make_agent()
    headers = [("Location", f"http://127.0.0.1:{target.port}/v1/messages")]
    name = daemon.register(make_agent(act.fails(status, headers)), unique("agent"), max_retries=1)
    result = daemon.call(name)
    assert result["success"] is False
    assert f"'{status} " in result["error"]
    assert target.connections == 0


def test_a_refused_connection_is_a_network_error_and_retried(daemon):
    name = daemon.register(act.refused_port(), unique("agent"), max_retries=3)
    result = daemon.call(name)
    assert [one["error_type"] for one in result["attempts"]] == ["network"] * 3
    assert [one["status"] for one in result["attempts"]] == [None] * 3
    assert result["error_type"] == "network"
    assert result["error"].startswith("All agents failed. Last error: ")


def test_an_unknown_host_is_a_network_error(daemon):
    name = unique("agent")
    body = {"name": name, "host": "no-such-host.invalid", "port": 1, "max_retries": 2}
    assert daemon.http.post("/api/vps/register", json=body).status_code == 201
    result = daemon.call(name)
    assert (result["success"], result["error_type"]) == (False, "network")


@pytest.mark.parametrize("behaviour", [act.hangs, act.hangs_in_body, act.drips],
                         ids=["before headers", "in the body", "slow drip"])
def test_the_deadline_of_an_attempt_is_overall(daemon, make_agent, behaviour):
    agent = make_agent(behaviour)
    name = daemon.register(agent, unique("agent"), timeout_seconds=1, max_retries=1)
    began = time.monotonic()
    result = daemon.call(name)
    took = time.monotonic() - began
    assert result["error"] == "All agents failed. Last error: Request timeout after 1s"
    assert result["error_type"] == "timeout"
    assert 0.95 < took < 25, "the agent would never have come to an end"
    assert 950 < result["latency_ms"] < 25000


def test_a_deadline_is_retried_until_the_attempts_are_used_up(daemon, make_agent):
    agent = make_agent(act.hangs, act.says("second try"))
    name = daemon.register(agent, unique("agent"), timeout_seconds=1, max_retries=2)
    result = daemon.call(name)
    assert result["response"] == "second try"
    assert (result["retried"], result["retry_count"]) == (False, 0), "about failover, not attempts"
    assert [one["error_type"] for one in result["attempts"]] == ["timeout", None]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_max_retries_is_the_total_number_of_attempts(daemon, make_agent, attempts):
    agent = make_agent(act.fails(500))
    daemon.call(daemon.register(agent, unique("agent"), max_retries=attempts))
    assert len(agent.requests) == attempts


def test_three_attempts_are_the_default(daemon, make_agent):
    agent = make_agent(act.fails(500))
    daemon.call(daemon.register(agent, unique("agent")))
    assert len(agent.requests) == 3


def gaps(agent):
    times = [request.at for request in agent.requests]
    return [later - earlier for earlier, later in zip(times, times[1:])]


def test_the_waits_between_attempts_are_one_two_and_four_seconds(start, make_agent):
    """At least so long; that they are no longer is for the unit tests, which need no clock."""
    daemon = start(quick=False)
    agent = make_agent(act.fails(500))
    daemon.call(daemon.register(agent, "a", max_retries=4))
    for gap, wanted in zip(gaps(agent), (1, 2, 4), strict=True):
        assert wanted * 0.9 <= gap < wanted * 10, gaps(agent)


def test_there_is_no_wait_after_the_last_attempt(start, make_agent):
    slow = start("--bridge.backoff_initial=60s", "--bridge.backoff_max=60s", quick=False)
    began = time.monotonic()
    slow.call(slow.register(make_agent(act.fails(500)), "a", max_retries=1))
    assert time.monotonic() - began < 20


def http_date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


# Retry-After, and the wait that it must cause when the cap is far away, and when it is 2 s.
MINUTE = 60
RETRY_AFTER = [
    ("429", lambda: "1", 1, 1), ("503", lambda: "1", 1, 1), ("429", lambda: "3600", None, 1.8),
    ("429", lambda: http_date(3600), None, 1.8), ("429", lambda: "0", 0, 0),
    ("429", lambda: http_date(-3600), 0, 0), ("429", lambda: "soon", 0, 0),
    ("429", lambda: "-5", 0, 0), ("429", lambda: "1e3", 0, 0),
    ("503", lambda: "99999999999999999999", None, 0),
]


@pytest.mark.parametrize("cap, column", [(f"{MINUTE}s", 2), ("2s", 3)])
def test_retry_after_is_honoured_up_to_the_cap(start, make_agent, cap, column):
    daemon = start("--bridge.backoff_initial=10ms", f"--bridge.backoff_max={cap}", quick=False)
    rows = [row for row in RETRY_AFTER if row[column] is not None]

    def measure(row):
        agent = make_agent(act.fails(int(row[0]), [("Retry-After", row[1]())]), act.says("ok"))
        assert daemon.call(daemon.register(agent, unique("agent"), max_retries=2))["success"]
        return gaps(agent)[0]

    for row, gap in zip(rows, together(measure, rows)):
        assert row[column] <= gap + 0.01 and gap < MINUTE / 2, (row[0], row[1](), gap)


def test_a_call_may_have_an_overall_deadline(start, make_agent):
    daemon = start("--bridge.call_deadline=500ms")
    backup = daemon.register(make_agent(act.hangs), "backup")
    name = daemon.register(make_agent(act.hangs), "a", fallback_agents=[backup])
    began = time.monotonic()
    result = daemon.call(name)
    assert time.monotonic() - began < 15  # an agent of those has 30 s
    assert (result["success"], result["error_type"]) == (False, "timeout")


def test_the_documented_environment_sets_timeout_and_attempts(start, make_agent):
    daemon = start(env={"OPENCLAW_TIMEOUT_SECONDS": "1", "OPENCLAW_MAX_RETRIES": "2"})
    agent = make_agent(act.hangs)
    result = daemon.call(daemon.register(agent, "a"))
    assert result["error"].endswith("Request timeout after 1s")
    assert len(agent.requests) == 2
