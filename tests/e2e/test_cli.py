"""The chela command: every command for people and with --json, and its exit statuses."""

import contextlib
import fcntl
import json
import os
import shlex
import struct
import subprocess
import termios

import agent as act
import chelad
import pytest
from wait import unique

DONE, FAILED, USAGE, NOT_FOUND, NO_DAEMON = range(5)


@pytest.fixture
def chela(daemon):
    """chela("agent", "ls"): runs it against the module's daemon."""
    def run(*arguments, **options):
        return chelad.run("chela", "--state", daemon.state, *arguments, **options)
    return run


def value(done):
    """The JSON it printed, all of it on one line."""
    assert done.returncode == DONE, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_an_agent_is_added_listed_called_looked_at_and_removed(daemon, chela, make_agent):
    agent, name = make_agent(act.echo), unique("agent")
    url = f"http://127.0.0.1:{agent.port}"
    done = chela("agent", "add", name, url, "--retries=1", "--timeout", "5", "--fallback", "x,y",
                 "--auth-token", "canary-cli")
    assert (done.returncode, done.stderr) == (DONE, "")
    assert name in done.stdout and url in done.stdout
    done = chela("agent", "ls")
    row, = [line.split() for line in done.stdout.splitlines() if line.startswith(name + " ")]
    assert row[1:3] == [url, "healthy"]
    done = chela("agent", "call", name, "żółw 🦞")
    assert (done.returncode, done.stdout, done.stderr) == (DONE, "żółw 🦞\n", "")
    assert agent.requests[0].header("Authorization") == "Bearer canary-cli"
    done = chela("agent", "health", name)
    assert "healthy" in done.stdout and done.returncode == DONE
    assert chela("agent", "rm", name).returncode == DONE
    assert chela("agent", "health", name).returncode == NOT_FOUND


def test_agents_as_json(daemon, chela, make_agent):
    name = unique("agent")
    added = value(chela("--json", "agent", "add", name, f"http://127.0.0.1:{make_agent().port}"))
    assert added["status"] == "registered"
    assert name in [agent["name"] for agent in value(chela("agent", "ls", "--json"))["agents"]]
    assert value(chela("agent", "call", name, "p", "--json"))["response"] == "ok"
    assert value(chela("agent", "health", name, "--json"))["total_requests"] == 1
    assert value(chela("agent", "health", "--json"))["total_agents"] >= 1
    value(chela("agent", "rm", name, "--json"))


def test_the_prompt_may_come_from_standard_input(daemon, chela, make_agent):
    agent = make_agent(act.echo)
    name = daemon.register(agent, unique("agent"))
    done = chela("agent", "call", name, "-", text="from a pipe\nof two lines")
    assert done.stdout.rstrip() == "from a pipe\nof two lines"


def test_a_call_with_a_session_a_user_metadata_and_a_key(daemon, chela, make_agent):
    agent = make_agent(act.counted())
    name, session = daemon.register(agent, unique("agent")), unique("session")
    for _ in range(2):
        done = chela("agent", "call", name, "p", "--session", session, "--user", "ada",
                     "--metadata", '{"k":[1]}', "--idempotency-key", session)
        assert done.stdout == "answer 1\n"
    assert len(agent.requests) == 1
    assert daemon.session(session)["metadata"] == {"k": [1]}
    assert chela("agent", "call", name, "p", "--metadata", "{bad").returncode in (FAILED, USAGE)


def test_a_streamed_call_prints_the_text_as_it_comes(daemon, chela, make_agent):
    agent = make_agent(act.sse(act.messages_events(["one ", "two ", "three"])))
    name = daemon.register(agent, unique("agent"))
    done = chela("agent", "call", name, "p", "--stream")
    assert (done.returncode, done.stdout) == (DONE, "one two three\n")


@pytest.mark.parametrize("flags", [(), ("--stream",), ("--json",)], ids=str)
def test_a_failed_call_is_status_1_with_its_reason(daemon, chela, make_agent, flags):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1)
    done = chela("agent", "call", name, "p", *flags)
    assert done.returncode == FAILED
    assert "500 Internal Server Error" in done.stderr


def test_health_can_be_reset(daemon, chela, make_agent):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1)
    daemon.call(name)
    assert chela("agent", "health", name, "--reset").returncode == DONE
    assert daemon.health(name)["status"] == "healthy"


def test_sessions_are_listed_shown_and_removed(daemon, chela, make_agent):
    name = daemon.register(make_agent(act.says("the answer")), unique("agent"))
    session = unique("session")
    daemon.call(name, "the question", session_id=session, user_id="ada")
    assert session in chela("session", "ls").stdout
    listed = value(chela("session", "ls", "--json"))["sessions"]
    assert session in [one["session_id"] for one in listed]
    shown = chela("session", "show", session).stdout
    assert shown.index("the question") < shown.index("the answer")
    assert value(chela("session", "show", session, "--json")) == daemon.session(session)
    assert chela("session", "rm", session).returncode == DONE
    assert chela("session", "show", session).returncode == NOT_FOUND
    assert chela("session", "rm", session).returncode == NOT_FOUND


def test_an_id_with_odd_characters_is_encoded(daemon, chela, make_agent):
    name = daemon.register(make_agent(), unique("agent"))
    for session in ("a/b", "ü ?&#%41", "-"):
        daemon.call(name, session_id=session)
        assert value(chela("session", "show", "--json", "--", session))["session_id"] == session
        assert chela("session", "rm", "--", session).returncode == DONE


def on_a_terminal(*arguments, home):
    """What a command writes to a terminal."""
    ours, its = os.openpty()
    with subprocess.Popen([chelad.BIN / "chela", *map(str, arguments)], stdout=its, stdin=subprocess.DEVNULL,
                          env=chelad.environment(home)) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
    assert process.returncode == DONE
    return shown


def test_json_does_not_steer_a_terminal(own, make_agent):
    """JSON may hold DEL and the C1 controls as they are; what reads it gets the same texts."""
    name = "a\x9b2J\x7f\xa0z"
    own.register(make_agent(), name)
    shown = on_a_terminal("--state", own.state, "--json", "agent", "ls", home=own.state)
    assert json.loads(shown)["agents"][0]["name"] == name
    assert b"\xc2\x9b" not in shown and b"\x7f" not in shown and "\xa0z".encode() in shown


def test_an_export_is_not_written_through_what_others_laid_there(own, tmp_path):
    path, victim = tmp_path / "out.json", tmp_path / "victim"
    victim.write_text("untouched")
    for name in ("out.json.part", "out.json.tmp", "out.json"):
        (tmp_path / name).symlink_to(victim)
    done = chelad.run("chela", "--state", own.state, "session", "export", path)
    assert done.returncode == DONE, done.stderr
    assert victim.read_text() == "untouched"
    assert json.loads(path.read_text())["total_sessions"] == 0
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "taken").mkdir()
    assert chelad.run("chela", "--state", own.state, "session", "export", tmp_path / "taken").returncode == FAILED
    assert not list(tmp_path.glob("taken.*")), "a half of it was left"


def test_sessions_are_exported_imported_and_cleaned_up(start, make_agent, tmp_path):
    daemon, other = start(), start()
    name = daemon.register(make_agent(), "a")
    for number in range(3):
        daemon.call(name, session_id=f"s{number}")
    path = tmp_path / "out.json"

    def run(target, *arguments, **options):
        return chelad.run("chela", "--state", target.state, *arguments, **options)
    assert run(daemon, "session", "export", path).returncode == DONE
    assert json.loads(path.read_text())["total_sessions"] == 3
    printed = run(daemon, "session", "export")
    assert json.loads(printed.stdout)["sessions"] == json.loads(path.read_text())["sessions"]
    done = run(other, "session", "import", path)
    assert done.returncode == DONE and "3" in done.stdout
    assert value(run(other, "session", "import", "-", "--json", text=path.read_text())) == {
        "imported": 3}
    assert "0" in run(other, "session", "cleanup").stdout
    assert value(run(other, "session", "cleanup", "--max-age=0", "--json")) == {
        "cleaned_up": 3, "remaining_sessions": 0}
    assert run(other, "session", "import", tmp_path / "missing").returncode in (FAILED, NOT_FOUND)
    path.write_text("{bad")
    assert run(other, "session", "import", path).returncode == FAILED


def test_keys_are_created_used_listed_and_removed(own):
    def run(*arguments, **options):
        return chelad.run("chela", "--state", own.state, *arguments, **options)
    done = run("key", "create", "ci", "--scope", "read,metrics")
    assert done.returncode == DONE
    key = done.stdout.strip()
    assert key.startswith("chela_") and "\n" not in key
    assert key not in done.stderr
    listed = run("key", "ls")
    assert "ci" in listed.stdout and key not in listed.stdout
    assert value(run("key", "ls", "--json"))["keys"][0]["scopes"] == ["read", "metrics"]

    def by_url(*arguments, token=key):
        return chelad.run("chela", "--url", own.url, *arguments, env={"CHELA_TOKEN": token})
    assert by_url("agent", "ls").returncode == DONE
    assert by_url("agent", "rm", "x").returncode == FAILED, "a reader may not remove"
    assert by_url("agent", "ls", token="wrong").returncode == FAILED
    assert "key" in by_url("agent", "ls", token="wrong").stderr
    given = chelad.run("chela", "--url", own.url, "--token", key, "status")
    assert given.returncode == DONE
    assert run("key", "create", "ci").returncode == FAILED, "the name is taken"
    assert run("key", "create", "x", "--scope=everything").returncode in (FAILED, USAGE)
    assert run("key", "rm", "ci").returncode == DONE
    assert run("key", "rm", "ci").returncode == NOT_FOUND
    assert value(run("key", "create", "second", "--json"))["key"].startswith("chela_")


def test_status_for_people_and_programs(daemon, chela):
    done = chela("status")
    assert done.returncode == DONE
    assert str(daemon.process.pid) in done.stdout and str(daemon.port) in done.stdout
    assert value(chela("status", "--json"))["pid"] == daemon.process.pid


def test_version_needs_no_daemon():
    done = chelad.run("chela", "version")
    assert done.returncode == DONE and done.stdout.startswith("chela ")
    assert chelad.run("chela", "--version").stdout == done.stdout
    assert value(chelad.run("chela", "version", "--json"))["version"] in done.stdout


USAGES = [("nothing",), ("agent",), ("agent", "fly"), ("agent", "add"), ("agent", "add", "name"),
          ("agent", "ls", "surplus"), ("agent", "ls", "--nope"), ("agent", "call", "only-name"),
          ("session", "show"), ("key", "create"), ("store", "copy"), ("completion",),
          ("completion", "fish"), ("agent", "add", "n", "not a url"),
          ("agent", "health", "--reset"), ("agent", "call", "a", "p", "--session"),
          ("agent", "add", "n", "http://h:1", "--retries=x")]


@pytest.mark.parametrize("arguments", USAGES, ids=" ".join)
def test_wrong_usage_is_status_2(chela, arguments):
    done = chela(*arguments)
    assert done.returncode == USAGE, done.stderr
    assert done.stderr.startswith("chela: ") and done.stdout == ""


COMMANDS = ("agent add", "agent ls", "agent rm", "agent call", "agent health", "session ls",
            "session show", "session rm", "session export", "session import", "session cleanup",
            "status", "key create", "key ls", "key rm", "version", "store copy", "completion")


def test_help_is_on_standard_output(chela):
    for arguments in ((), ("--help",), ("agent", "add", "--help")):
        done = chela(*arguments)
        assert done.returncode == DONE
        assert done.stdout.startswith("usage: chela")
    shown = chela("--help").stdout
    assert [command for command in COMMANDS if command not in shown] == []


@pytest.mark.parametrize("arguments", [
    ("--state", "/nonexistent", "status"), ("--url", "http://127.0.0.1:1", "status"),
    ("--url", "http://no-such-host.invalid", "agent", "ls")], ids=str)
def test_no_daemon_is_status_4(arguments):
    done = chelad.run("chela", *arguments)
    assert done.returncode == NO_DAEMON, done.stderr
    assert done.stderr


def test_what_does_not_exist_is_status_3(chela):
    for arguments in (("agent", "rm", "nobody"), ("agent", "health", "nobody"),
                      ("session", "show", "none"), ("session", "rm", "none"),
                      ("key", "rm", "none")):
        done = chela(*arguments)
        assert done.returncode == NOT_FOUND, arguments
        assert arguments[-1] in done.stderr
    assert chela("profile", "show", "none").returncode == NOT_FOUND
    assert chela("session", "import", "/nonexistent").returncode == FAILED, "a file is no such name"


@pytest.mark.parametrize("arguments,status", [
    (("session", "show", "none"), NOT_FOUND), (("agnet",), USAGE), (("agent", "ls", "--nope"), USAGE),
    (("agent", "add", "n", "http://h:1", "--retries=x"), USAGE)], ids=str)
def test_with_json_an_error_is_one_line_of_json_on_standard_error(chela, arguments, status):
    done = chela("--json", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    said = json.loads(done.stderr)
    assert said["exit_status"] == status and said["error"]


@pytest.mark.parametrize("arguments,hint", [
    (("agnet", "ls"), "(Did you mean agent?)"), (("agent", "lss"), "(Did you mean ls?)"),
    (("agent", "ls", "--jsn"), "(Did you mean --json?)"),
    (("agent", "call", "a", "p", "--sesion=s"), "(Did you mean --session?)"),
    (("agent",), "add, ls, rm, call, health"), (("agent", "add", "n"), "agent add <name> <url>"),
    (("agent", "ls", "--json=yes"), "--json takes no value"),
    (("agent", "call", "a", "p", "--stream=yes"), "--stream takes no value"),
    (("workflow", "ls", "--from=yesterday"), "2026-11-21T09:30:00Z"),
    (("agent", "add", "n", "http://h:1", "--timeout=5s"), "--timeout:"),
    (("--url", "localhost:18789", "status"), "http://localhost:18789")], ids=str)
def test_wrong_usage_is_told_with_what_may_be_meant(chela, arguments, hint):
    done = chela(*arguments)
    assert done.returncode == USAGE and hint in done.stderr, done.stderr


def test_a_port_of_another_server_is_told(daemon):
    done = chelad.run("chela", "--url", daemon.url, "machine", "ls")
    assert done.returncode == FAILED and "9091" in done.stderr
    done = chelad.run("chela", "--url", f"http://{daemon.ready['listeners']['hub']}", "status")
    assert done.returncode == FAILED and "18789" in done.stderr


def test_what_the_daemon_does_not_name_the_command_does(chela):
    done = chela("machine", "show", "nobody")
    assert (done.returncode, done.stderr) == (NOT_FOUND, "chela: nobody: Machine not found\n")


def test_every_command_has_help_with_an_example_that_it_takes(tmp_path):
    rows = [line[2:36].strip() for line in chelad.run("chela", "--help").stdout.splitlines()
            if line.startswith("  ") and not line.startswith("  --")]
    assert len(rows) > 80
    for row in rows:
        command = [word for word in row.split() if word.isalpha()][:2]
        shown = chelad.run("chela", *command, "--help")
        example = shown.stdout.splitlines()[-1]
        assert example.startswith(f"example: chela {' '.join(command)}"), row
        # There is no daemon: an example that cannot be parsed is status 2, one that can is not.
        done = chelad.run("chela", "--state", "/nonexistent", *shlex.split(example)[2:], home=tmp_path, text="")
        assert done.returncode != USAGE, (example, done.stderr)


def test_help_of_a_noun_lists_its_commands():
    shown = chelad.run("chela", "agent", "--help").stdout
    assert "agent health" in shown and "session" not in shown.split("--state")[0]
    for words in (("help", "agent", "add"), ("agent", "add", "-h"), ("agent", "add", "--help")):
        assert chelad.run("chela", *words).stdout.startswith("usage: chela agent add <name> <url>")


def test_lists_of_none_say_so_and_full_pages_too(own, make_agent):
    def run(*arguments):
        return chelad.run("chela", "--state", own.state, *arguments)
    for noun in ("agent", "session", "key", "workflow", "schedule", "message", "task", "machine"):
        done = run(noun, "ls")
        assert (done.returncode, done.stdout, done.stderr) == (DONE, "none\n", ""), noun
    name = own.register(make_agent(act.echo), "żółw")
    for session in ("one", "two", "three"):
        own.call(name, session_id=session)
    done = run("session", "ls", "--limit=2")
    assert done.stdout.count("\n") == 3 and "--after" in done.stderr
    assert len(done.stdout.splitlines()[1]) <= 80
    listed = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    done = run("session", "ls", "--limit=2", "--after", listed[-1])
    assert done.stdout.count("\n") == 2 and done.stderr == ""
    assert "żółw" in run("agent", "ls").stdout


def test_on_a_terminal_long_texts_give_way_and_ids_do_not(daemon):
    one = unique("message")
    chelad.run("chela", "--state", daemon.state, "message", "send", "agent:wide:main", "x" * 200, "--id", one)
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
    done = subprocess.run([chelad.BIN / "chela", "--state", daemon.state, "message", "ls", "--session=agent:wide:main"],
                          stdout=slave, stdin=subprocess.DEVNULL, env=chelad.environment(daemon.state, {"TERM": "xterm"}),
                          timeout=60, check=True)
    os.close(slave)
    title, row = os.read(master, 65536).decode().splitlines()
    os.close(master)
    assert done.returncode == DONE and len(title) <= 110 and len(row) <= 110
    assert one in row and row.rstrip().endswith("xxx")


def test_an_agent_that_does_not_come_to_life_is_status_1(chela):
    done = chela("swarm", "create", unique("agent"), "no-provider")
    assert done.returncode == FAILED and "provider/model-name" in done.stderr
    assert "failed" in done.stdout


def test_a_log_that_cannot_be_read_is_not_intact(chela, tmp_path):
    done = chela("audit", "verify", tmp_path)
    assert (done.returncode, done.stdout) == (FAILED, "") and "Is a directory" in done.stderr


def complete(script, *words):
    """The completions bash offers for the last of these words."""
    text = (f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)})\n"
            f"COMP_CWORD={len(words) - 1}\n_chela\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n")
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return set(done.stdout.split())


def test_bash_completion_works_in_bash():
    script = chelad.run("chela", "completion", "bash").stdout
    assert {"agent", "session", "key", "status", "version"} <= complete(script, "chela", "")
    assert complete(script, "chela", "agent", "") >= {"add", "ls", "rm", "call", "health"}
    assert complete(script, "chela", "agent", "ca") == {"call"}
    assert "--session" in complete(script, "chela", "agent", "call", "--se")
    assert complete(script, "chela", "session", "e") == {"export"}
    assert complete(script, "chela", "--state", "/x", "agent", "ca") == {"call"}
    assert complete(script, "chela", "--state", "=", "/x", "agent", "ca") == {"call"}
    assert {"ls", "show"} <= complete(script, "chela", "message", "")
