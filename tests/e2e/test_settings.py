"""Settings: their sources and precedence, the documented environment, reload, and masking."""

import json
import re
import signal
import stat
import subprocess

import agent as act
import chelad
import pytest
from wait import eventually


def agent_list(*agents):
    return json.dumps(list(agents))


def names(daemon):
    return [agent["name"] for agent in daemon.http.get("/api/vps/agents").json()["agents"]]


def print_config(tmp_path, *flags, env=None):
    done = chelad.run("chelad", "--state", tmp_path / "state", "--print-config", *flags, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def value_of(text, section, key):
    """The value of one setting in the INI text that --print-config writes."""
    current = None
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            current = line.strip("[]")
        elif current == section and line.split("=")[0].strip() == key:
            return line.split("=", 1)[1].strip()
    raise AssertionError(f"no [{section}] {key} in:\n{text}")


def test_vps_agents_registers_agents_at_start(start, make_agent):
    agent = make_agent(act.says("listed"))
    listed = agent_list({"name": "pm-agent", "host": "127.0.0.1", "port": agent.port,
                         "protocol": "http", "auth_token": "t", "timeout_seconds": 5,
                         "max_retries": 1, "fallback_agents": ["sonnet-agent"]},
                        {"name": "sonnet-agent", "host": "127.0.0.1", "port": 2})
    daemon = start(env={"VPS_AGENTS": listed})
    assert names(daemon) == ["pm-agent", "sonnet-agent"]
    result = daemon.call("pm-agent")
    assert result["response"] == "listed"
    assert result["fallback_chain"] == ["pm-agent", "sonnet-agent"]
    assert agent.requests[0].header("Authorization") == "Bearer t"
    daemon.restart()
    assert names(daemon) == ["pm-agent", "sonnet-agent"]
    assert daemon.health("pm-agent")["total_requests"] == 1


@pytest.mark.parametrize("text", ["not json", "{}", '[{"name":"a"}]',
                                  '[{"name":"a","host":"h","port":0}]', '["a"]'])
def test_a_bad_agent_list_stops_the_start_with_a_clear_text(start, text):
    with pytest.raises(chelad.StartFailed) as failed:
        start(env={"VPS_AGENTS": text})
    assert failed.value.status == 1
    assert "VPS_AGENTS" in failed.value.log or "bridge.agents" in failed.value.log


def test_the_two_endpoints_become_an_agent_with_a_fallback(start, make_agent):
    vps, cloudflare = make_agent(act.fails(500)), make_agent(act.says("from the edge"))
    daemon = start(env={"OPENCLAW_VPS_ENDPOINT": f"http://127.0.0.1:{vps.port}",
                        "OPENCLAW_CF_ENDPOINT": f"http://127.0.0.1:{cloudflare.port}",
                        "OPENCLAW_MAX_RETRIES": "1"})
    assert sorted(names(daemon)) == ["cloudflare", "vps"]
    result = daemon.call("vps")
    assert (result["agent_name"], result["response"]) == ("cloudflare", "from the edge")
    assert result["fallback_chain"] == ["vps", "cloudflare"]
    assert len(vps.requests) == 1
    assert daemon.health("vps")["total_failures"] == 1, "one failure per failed try"


@pytest.mark.parametrize("variable", ["PORT", "GATEWAY_PORT"])
def test_the_port_can_be_set_by_the_original_variables(start, variable):
    port = act.refused_port()
    daemon = start(env={variable: str(port)})
    assert daemon.port == port
    assert daemon.http.get("/health").status_code == 200


def test_port_zero_picks_a_free_one_and_says_so(start):
    one, two = start(env={"PORT": "0"}), start(env={"PORT": "0"})
    assert one.port != two.port
    assert set(one.ready) >= {"ready", "version", "pid", "listeners", "socket", "state"}
    assert one.ready["ready"] is True
    assert one.ready["pid"] == one.process.pid
    assert one.ready["socket"] == str(one.state / "chelad.sock")
    assert one.ready["state"] == str(one.state)


def test_a_taken_port_is_a_clear_failure(start):
    taken = start()
    with pytest.raises(chelad.StartFailed) as failed:
        start(f"--gateway.port={taken.port}")
    assert failed.value.status == 1
    assert str(taken.port) in failed.value.log


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(tmp_path):
    file = tmp_path / "chelad.conf"
    file.write_text("[bridge]\nretries = 5\ntimeout = 11s\nhalf_open = 7s\n; a comment\n")
    text = print_config(tmp_path, "--config", file, "--bridge.retries=7",
                        env={"OPENCLAW_MAX_RETRIES": "6", "CHELA_BRIDGE_TIMEOUT": "12s"})
    assert value_of(text, "bridge", "retries") == "7"
    assert value_of(text, "bridge", "timeout") == "12s"
    assert value_of(text, "bridge", "half_open") == "7s"
    assert value_of(text, "bridge", "recover_after") == "5"


def test_the_file_in_the_state_directory_is_read(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "chelad.conf").write_text("[bridge]\nretries = 9\n")
    assert value_of(print_config(tmp_path), "bridge", "retries") == "9"


DEFAULTS = [
    ("gateway", "port", "18789"), ("gateway", "host", "127.0.0.1"), ("bridge", "timeout", "30s"),
    ("bridge", "retries", "3"), ("bridge", "backoff_initial", "1s"),
    ("bridge", "backoff_max", "4s"), ("bridge", "session_max_age", "24h"),
    ("bridge", "sweep_every", "10m"),
    ("bridge", "sessions_max", "100000"), ("bridge", "messages_max", "1000"),
    ("bridge", "agents_max", "10000"), ("bridge", "half_open", "60s"),
    ("bridge", "recover_after", "5"), ("limits", "connections", "4096"), ("limits", "body", "16M"),
    ("limits", "header", "64K"), ("limits", "json_depth", "512"),
]
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
SIZES = {"K": 1024, "M": 1024**2, "G": 1024**3}


def plain(value):
    """A duration or size in its base unit, so that 1m and 60s compare equal."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d|[KMG])(?:iB|B)?", value)
    return int(match[1]) * {**SECONDS, **SIZES}[match[2]] if match else value


@pytest.mark.parametrize("section, key, default", DEFAULTS)
def test_the_documented_defaults_hold(tmp_path, section, key, default):
    assert plain(value_of(print_config(tmp_path), section, key)) == plain(default)


ENVIRONMENT = [
    ("HOST", "127.0.0.9", "gateway", "host", "127.0.0.9"),
    ("GATEWAY_HOST", "127.0.0.9", "gateway", "host", "127.0.0.9"),
    ("LOG_LEVEL", "debug", "log", "level", "debug"),
    ("SESSION_CLEANUP_HOURS", "48", "bridge", "session_max_age", "48h"),
    ("SESSION_EXPORT_PATH", "/var/tmp/s.json", "bridge", "export_path", "/var/tmp/s.json"),
    ("OPENCLAW_TIMEOUT_SECONDS", "17", "bridge", "timeout", "17s"),
    ("OPENCLAW_MAX_RETRIES", "2", "bridge", "retries", "2"),
    ("CHELA_LIMITS_CONNECTIONS", "77", "limits", "connections", "77"),
]


@pytest.mark.parametrize("name, value, section, key, expected", ENVIRONMENT,
                         ids=[row[0] for row in ENVIRONMENT])
def test_the_documented_environment_is_read(tmp_path, name, value, section, key, expected):
    text = print_config(tmp_path, env={name: value})
    assert plain(value_of(text, section, key)) == plain(expected)


SECRETS = {"AUTH_TOKEN": "canary-auth", "ENCRYPTION_KEY": "63616e617279" * 5 + "abcd",
           "DATABASE_URL": "postgres://user:canary-password@127.0.0.1:1/db",
           "VPS_AGENTS": agent_list({"name": "a", "host": "h", "port": 1,
                                     "auth_token": "canary-agent"})}


@pytest.mark.parametrize("name", SECRETS)
def test_print_config_masks_secrets(tmp_path, name):
    text = print_config(tmp_path, env={name: SECRETS[name]})
    assert "canary" not in text and SECRETS["ENCRYPTION_KEY"] not in text


BAD = [("--bridge.retries=many",), ("--bridge.timeout=5 parsecs",), ("--no.such=1",),
       ("--bridge.nope=1",), ("--gateway.port=65536",), ("--gateway.port=-1",),
       ("--unknown",), ("surplus",), ("--config", "/nonexistent/file"), ("--limits.body=-1",),
       ("--log.level=loud",)]


@pytest.mark.parametrize("flags", BAD, ids=" ".join)
def test_a_bad_setting_is_refused_by_name(tmp_path, flags):
    done = chelad.run("chelad", "--state", tmp_path / "state", "--print-config", *flags)
    assert done.returncode in (1, 2)
    assert flags[-1].lstrip("-").split("=")[0].split("/")[-1] in done.stderr


def test_an_unknown_setting_in_the_file_is_refused_with_its_line(tmp_path):
    file = tmp_path / "f.conf"
    file.write_text("[bridge]\nretries = 3\nretires = 4\n")
    done = chelad.run("chelad", "--state", tmp_path / "state", "--config", file, "--print-config")
    assert done.returncode in (1, 2)
    assert "retires" in done.stderr and "3" in done.stderr


def test_sighup_reloads_live_settings(start, make_agent, tmp_path):
    file = tmp_path / "chelad.conf"
    file.write_text("[bridge]\nretries = 1\n")
    daemon = start("--config", str(file))
    agent = make_agent(act.fails(500))
    daemon.call(daemon.register(agent, "before"))
    assert len(agent.requests) == 1
    file.write_text("[bridge]\nretries = 2\n")
    daemon.signal(signal.SIGHUP)

    def asked_twice():
        before = len(agent.requests)
        daemon.call(daemon.register(agent, "after"))
        return len(agent.requests) - before == 2
    eventually(asked_twice, every=0.05)


def test_a_bad_file_at_reload_is_reported_and_changes_nothing(start, make_agent, tmp_path):
    file = tmp_path / "chelad.conf"
    file.write_text("[bridge]\nretries = 1\n")
    daemon = start("--config", str(file))
    file.write_text("[bridge]\nretries = lots\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: "lots" in daemon.log())
    agent = make_agent(act.fails(500))
    daemon.call(daemon.register(agent, "a"))
    assert len(agent.requests) == 1


def test_version_is_printed(tmp_path):
    done = chelad.run("chelad", "--version")
    assert done.returncode == 0
    assert done.stdout.split()[-1].count(".") == 2


def test_the_state_directory_and_its_files_are_private(own):
    assert stat.S_IMODE(own.state.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in own.state.iterdir()}
    for name in ("chelad.sock", "admin.token", "master.key"):
        assert modes[name] == 0o600
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    assert len(bytes.fromhex(own.token)) == 32


def test_the_default_state_directory_follows_xdg(tmp_path):
    env = {"XDG_STATE_HOME": str(tmp_path / "xdg"), "PORT": "0"}
    done = subprocess.run([chelad.BIN / "chelad", "--print-config"], capture_output=True, text=True,
                          env=chelad.environment(tmp_path, env), timeout=30)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "xdg").exists(), "printing settings creates nothing"


def test_a_second_daemon_on_one_state_directory_is_refused_by_pid(own, start):
    with pytest.raises(chelad.StartFailed) as failed:
        start(state=own.state, fresh=False, env=None)
    assert failed.value.status == 1
    assert str(own.process.pid) in failed.value.log
    assert own.http.get("/health").status_code == 200


def test_the_lock_of_a_killed_daemon_does_not_hold_up_the_next(own):
    own.kill()
    own.start()
    assert own.http.get("/health").status_code == 200


def test_the_variables_of_libpq_name_the_database_when_nothing_else_does(tmp_path):
    """Nobody listens on port 1, so the refusal shows where it went; SQLite would have started."""
    pg = {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGUSER": "nobody", "PORT": "0", "DATABASE_URL": ""}
    done = chelad.run("chelad", "--state", tmp_path / "pg", "--store.wait=100ms", env=pg)
    assert done.returncode == 1 and "port 1 failed" in done.stderr, done.stderr
    named = {**pg, "DATABASE_URL": f"sqlite:{tmp_path}/no/such/dir/x.db"}
    done = chelad.run("chelad", "--state", tmp_path / "named", env=named)
    assert done.returncode == 1 and "x.db" in done.stderr, done.stderr


def test_a_start_that_fails_says_what_and_where_and_what_to_do(daemon, tmp_path):
    """One line with the place; where a port is taken, one more with the settings."""
    taken = daemon.ready["listeners"]["gateway"].rsplit(":", 1)[1]
    hub = daemon.ready["listeners"]["hub"].rsplit(":", 1)[1]
    free = ("--gateway.port=0", "--hub.http_port=0", "--hub.ws_port=0")
    file = tmp_path / "file"
    file.write_text("")
    for flags, words in (
            ((f"--gateway.port={taken}",), ("gateway: listen on", taken, "--gateway.port")),
            ((f"--hub.http_port={hub}",), ("hub: listen on", hub, "--hub.http_port")),
            (("--tls.cert=/nonexistent/c", "--tls.key=/nonexistent/k"),
             ("tls certificate '/nonexistent/c': No such file or directory",)),
            (("--state", file), ("state directory: ", str(file))),
            (("--store.url=mysql://db/x",), ("sqlite:PATH or postgres://",)),
            (("--store.url=postgres://nobody@127.0.0.1:1/x",), ("127.0.0.1", "refused"))):
        done = chelad.run("chelad", "--state", tmp_path / "state", *free, *flags)
        last = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert done.returncode == 1 and last[0].startswith("chelad: "), done.stderr
        assert [word for word in words if word not in "\n".join(last)] == [], last


def test_help_is_asked_for_by_a_short_flag_too():
    done = chelad.run("chelad", "-h")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: chelad")
