"""Registering, listing, showing, replacing and removing agents."""

import agent as act
import pytest
from wait import unique


def register(daemon, **fields):
    body = {"name": unique("agent"), "host": "127.0.0.1", "port": 5000, **fields}
    return daemon.http.post("/api/vps/register", json=body)


def listed(daemon):
    return daemon.http.get("/api/vps/agents").json()["agents"]


def test_registering_answers_201_with_the_url(daemon):
    name = unique("agent")
    answer = register(daemon, name=name, host="192.168.1.100", port=5000)
    assert answer.status_code == 201
    assert answer.text == (f'{{"status":"registered","agent_name":"{name}",'
                           '"url":"http://192.168.1.100:5000"}')


@pytest.mark.parametrize("fields, url", [
    ({"protocol": "https"}, "https://127.0.0.1:5000"),
    ({"port": 80}, "http://127.0.0.1:80"),
    ({"host": "agent.example.test"}, "http://agent.example.test:5000"),
    ({"host": "::1"}, "http://[::1]:5000"),
], ids=str)
def test_the_url_always_has_the_port_and_brackets_ipv6(daemon, fields, url):
    answer = register(daemon, **fields)
    assert (answer.status_code, answer.json().get("url")) == (201, url), answer.text


@pytest.mark.parametrize("protocol", ["HTTP", "ftp", "", "http ", "ws"])
def test_an_unknown_protocol_is_400(daemon, protocol):
    answer = register(daemon, protocol=protocol)
    assert answer.status_code == 400
    assert answer.json() == {
        "detail": f"Invalid protocol: '{protocol}' is not a valid VPSProtocol"}


def test_grpc_is_refused_instead_of_accepted_and_never_working(daemon):
    answer = register(daemon, protocol="grpc")
    assert answer.status_code == 400
    assert "grpc" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1:27100/x?", "a b", "user@host", "http://host", "host/",
                                  "host?", "host#f", "ho\nst", "127.0.0.1:80", "[::1", "::g",
                                  "a" * 300, "%31"])
def test_a_host_that_is_more_than_a_host_is_refused(daemon, host):
    answer = register(daemon, host=host)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", "host"]


@pytest.mark.parametrize("field", ["name", "host", "auth_token"])
def test_text_with_a_nul_is_refused(daemon, field):
    assert register(daemon, **{field: "a\u0000b"}).status_code == 422


def test_an_agent_on_ipv6_can_be_called(daemon, make_agent):
    agent = make_agent(act.says("six"), host="::1")
    name = unique("agent")
    assert register(daemon, name=name, host="::1", port=agent.port).status_code == 201
    assert daemon.call(name)["response"] == "six"
    assert agent.requests[0].header("Host") == f"[::1]:{agent.port}"


def test_an_agent_can_be_named_by_host_name(daemon, make_agent):
    agent = make_agent(act.says("by name"))
    name = unique("agent")
    register(daemon, name=name, host="localhost", port=agent.port)
    assert daemon.call(name)["response"] == "by name"


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.1.1", "fe80::1", "0.0.0.0",
                                  "::ffff:169.254.169.254", "2852039166"])
def test_link_local_and_metadata_addresses_are_out_of_reach(daemon, host):
    name = unique("agent")
    answer = register(daemon, name=name, host=host, port=80, max_retries=3, timeout_seconds=5)
    if answer.status_code == 201:
        result = daemon.call(name)
        assert result["success"] is False
        assert len(result["attempts"]) == 1, "refused, not tried again"


def test_the_list_keeps_the_order_of_first_registration(own):
    assert own.http.get("/api/vps/agents").text == '{"total":0,"agents":[]}'
    for name, port in (("b", 1), ("a", 2), ("c", 3), ("b", 4)):
        own.register(port, name, auth_token="canary", timeout_seconds=7, max_retries=2,
                     fallback_agents=["a"])
    answer = own.http.get("/api/vps/agents").json()
    assert list(answer) == ["total", "agents"]
    assert answer["total"] == 3
    assert [(agent["name"], agent["port"]) for agent in answer["agents"]] == [
        ("b", 4), ("a", 2), ("c", 3)]
    assert answer["agents"][0] == {"name": "b", "host": "127.0.0.1", "port": 4, "protocol": "http",
                                   "url": "http://127.0.0.1:4"}
    assert list(answer["agents"][0]) == ["name", "host", "port", "protocol", "url"]


def test_one_agent_can_be_shown_without_its_token(daemon):
    name = unique("agent")
    register(daemon, name=name, auth_token="canary-token", fallback_agents=["b"])
    answer = daemon.http.get(f"/api/vps/agents/{name}")
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["name"], shown["url"]) == (name, "http://127.0.0.1:5000")
    assert "canary-token" not in answer.text
    missing = daemon.http.get("/api/vps/agents/nobody")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Agent 'nobody' not found"})


def test_an_agent_can_be_removed_and_then_is_unknown(daemon, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    assert daemon.call(name)["success"]
    answer = daemon.http.delete(f"/api/vps/agents/{name}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert name not in [agent["name"] for agent in listed(daemon)]
    assert daemon.call(name)["error"] == f"Agent '{name}' not registered"
    assert daemon.http.get(f"/api/vps/health/{name}").status_code == 404
    again = daemon.http.delete(f"/api/vps/agents/{name}")
    assert (again.status_code, again.json()) == (404, {"detail": f"Agent '{name}' not found"})


def test_registering_again_replaces_everything_but_keeps_the_health(daemon, make_agent):
    first, second = make_agent(act.fails(500)), make_agent(act.fails(500))
    backup = daemon.register(make_agent(act.says("backup")), unique("backup"))
    name = unique("agent")
    daemon.register(first, name, max_retries=1, fallback_agents=[backup], auth_token="old")
    assert daemon.call(name)["agent_name"] == backup
    daemon.register(second, name, max_retries=1)
    result = daemon.call(name)
    assert (result["success"], result["fallback_chain"]) == (False, [name])
    assert second.requests[0].header("Authorization") is None
    assert len(first.requests) == 1
    assert daemon.health(name)["total_requests"] == 2


def test_registration_never_contacts_the_agent(daemon, make_agent):
    agent = make_agent()
    daemon.register(agent, unique("agent"))
    daemon.http.get("/api/vps/agents")
    assert agent.connections == 0


def test_names_may_hold_any_characters(daemon, make_agent):
    for word in ("with space", "żółw", "a/b", "a%2Fb", "q?x=1", "#", ".."):
        name = daemon.register(make_agent(), f"{word} {unique('agent')}")
        assert daemon.call(name)["success"], name
        encoded = "".join(f"%{byte:02X}" for byte in name.encode())
        assert daemon.health(encoded)["agent_name"] == name
        assert daemon.http.delete(f"/api/vps/agents/{encoded}").status_code == 204


def test_the_number_of_agents_is_bounded_but_a_known_one_can_be_replaced(start):
    daemon = start("--bridge.agents_max=2")
    daemon.register(1, "a")
    daemon.register(2, "b")
    answer = register(daemon, name="c")
    assert 400 <= answer.status_code < 500 and "detail" in answer.json()
    assert register(daemon, name="a", port=9).status_code == 201
    assert [agent["name"] for agent in listed(daemon)] == ["a", "b"]


def test_a_bearer_token_over_plain_http_is_warned_about_or_refused(start):
    warning = start()
    assert register(warning, name="plain", auth_token="canary-plain").status_code == 201
    assert "plain" in warning.log() and "canary-plain" not in warning.log()
    refusing = start("--bridge.plain_token=refuse")
    assert 400 <= register(refusing, auth_token="t").status_code < 500
    assert register(refusing, auth_token="t", protocol="https").status_code == 201
    assert register(refusing).status_code == 201


def test_denied_networks_are_never_contacted(start, make_agent):
    agent = make_agent()
    daemon = start("--outbound.deny=127.0.0.0/8")
    answer = register(daemon, name="denied", port=agent.port, max_retries=3)
    if answer.status_code == 201:
        assert daemon.call("denied")["success"] is False
    assert agent.connections == 0


def test_environment_proxies_are_not_used_unless_set_in_the_settings(start, make_agent):
    agent, proxy = make_agent(act.says("direct")), make_agent(act.says("proxied"))
    url = f"http://127.0.0.1:{proxy.port}"
    names = ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    daemon = start(env={name: url for name in names})
    daemon.register(agent, "a")
    assert daemon.call("a")["response"] == "direct"
    assert proxy.connections == 0
    through = start(f"--outbound.proxy={url}")
    through.register(agent, "a")
    assert through.call("a")["response"] == "proxied"
