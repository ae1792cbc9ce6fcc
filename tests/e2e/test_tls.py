"""TLS to agents: certificates are verified, against the authority and the name."""

import agent as act
import httpx
import pytest
from starter import Starter


@pytest.fixture(scope="module")
def trusting(store, scratch, certificates):
    """A daemon that trusts the test authority."""
    starter = Starter(store, scratch)
    yield starter(f"--outbound.ca_file={certificates.ca}")
    starter.stop()


def register(daemon, name, port, **fields):
    body = {"name": name, "host": "localhost", "port": port, "protocol": "https", "max_retries": 1,
            **fields}
    answer = daemon.http.post("/api/vps/register", json=body)
    assert answer.status_code == 201
    assert answer.json()["url"] == f"https://{body['host']}:{port}"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_good_certificate_is_accepted(trusting, make_agent, certificates, host):
    agent = make_agent(act.says("secret"), tls=certificates.server_context("good"))
    register(trusting, f"good-{host}", agent.port, host=host, auth_token="over-tls")
    assert trusting.call(f"good-{host}")["response"] == "secret"
    assert agent.requests[0].header("Authorization") == "Bearer over-tls"


@pytest.mark.parametrize("kind", ["expired", "wrong-name"])
def test_a_bad_certificate_is_a_network_error_and_no_request_is_sent(trusting, make_agent,
                                                                     certificates, kind):
    agent = make_agent(tls=certificates.server_context(kind))
    register(trusting, kind, agent.port, auth_token="must-not-leave")
    result = trusting.call(kind)
    assert (result["success"], result["error_type"]) == (False, "network")
    assert "certificate" in result["error"].lower() or "ssl" in result["error"].lower()
    assert agent.requests == []


def test_an_unknown_authority_is_refused(start, make_agent, certificates):
    daemon = start()
    agent = make_agent(tls=certificates.server_context("good"))
    register(daemon, "a", agent.port)
    assert daemon.call("a")["error_type"] == "network"
    assert agent.requests == []


def test_a_bad_certificate_falls_over_to_the_next_agent(trusting, make_agent, certificates):
    good = make_agent(act.says("good"), tls=certificates.server_context("good"))
    bad = make_agent(tls=certificates.server_context("expired"))
    register(trusting, "trusted", good.port)
    register(trusting, "untrusted", bad.port, fallback_agents=["trusted"])
    assert trusting.call("untrusted")["response"] == "good"


def test_https_to_a_plain_port_fails_cleanly(trusting, make_agent):
    agent = make_agent()
    register(trusting, "plain", agent.port, timeout_seconds=2)
    assert trusting.call("plain")["success"] is False


def test_tls_connections_are_reused(trusting, make_agent, certificates):
    agent = make_agent(tls=certificates.server_context("good"))
    register(trusting, "reused", agent.port)
    for _ in range(5):
        assert trusting.call("reused")["success"]
    assert agent.connections == 1


def test_the_daemon_itself_can_serve_tls(start, certificates):
    files = certificates.directory
    daemon = start(f"--tls.cert={files / 'good.pem'}", f"--tls.key={files / 'good.key'}")
    url = f"https://localhost:{daemon.port}"
    with httpx.Client(verify=str(certificates.ca), trust_env=False) as client:
        assert client.get(f"{url}/health").json()["status"] == "healthy"
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"{url}/health")
