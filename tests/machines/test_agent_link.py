# SPDX-License-Identifier: MIT
"""The agent's link, its spool and its bounds against a hub that does what each test says."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import certs
import chelad
import pytest
from scripted_hub import PATIENCE, Agent, ScriptedHub
from wait import eventually

PROGRAMS = ["chela-agent"] + (["chela-agent-static"] if (chelad.BIN / "chela-agent-static").exists() else [])


@pytest.fixture
def hub():
    one = ScriptedHub()
    yield one
    one.stop()


@pytest.fixture
def agent(hub):
    agents = []

    def start(program="chela-agent", env={}, **config):
        agents.append(Agent(hub, program, **config))
        return agents[-1].start(**env)

    yield start
    for one in agents:
        one.done()


def alive(pid):
    """Is the process there, and not a zombie that init has yet to reap?"""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def modern(hub):
    """Every connection is welcomed, every resync answered, every response acknowledged."""
    def on_open(c):
        hub.say(c, "status", {"status": "connected", "protocol": 1, "version": "0.1.0"})

    def on_message(c, m):
        if m["type"] == "status" and m["payload"].get("state") == "resync":
            hub.say(c, "resync", {"tasks": [{"taskId": t["taskId"], "known": True, "ended": False, "stdout": 0,
                                             "stderr": 0} for t in m["payload"]["tasks"]]})
        elif m["type"] == "response":
            hub.say(c, "ack", {"taskId": m["payload"]["taskId"]})

    hub.on_open, hub.on_message = on_open, on_message


@pytest.mark.parametrize("program", PROGRAMS)
def test_says_hello_and_does_a_task(hub, agent, program):
    a = agent(program)
    c = hub.connection()
    assert c.path == "/agent/a1/" + "t" * 64
    c.wait(lambda m: m["type"] == "health")
    assert [m["type"] for m in c.got[:2]] == ["status", "health"]
    assert c.resync() == {"state": "resync", "protocol": 1, "version": c.resync()["version"], "dedupe": True, "tasks": []}
    c.welcome(protocol=1, version="0.1.0")
    c.task("t1", command="echo out; echo err >&2", env={"X": "1"})
    answer = c.response("t1")
    assert answer["success"] is True
    assert answer["result"] == {"stdout": "out", "stderr": "err", "exitCode": 0}
    assert isinstance(answer["duration"], int) and abs(answer["timestamp"] / 1000 - time.time()) < 3600
    for m in c.got:
        assert m["from"] == "a1" and m["to"] == "host" and len(m["id"]) == 36
    order = [m["payload"]["state"] for m in c.got if m["type"] == "status"]
    assert order == ["resync", "running"]
    assert a.spooled() == ["t1.json"]
    c.ack("t1")
    eventually(lambda: a.spooled() == [], PATIENCE)


def test_token_in_a_header(hub, agent):
    agent(tokenInHeader=True)
    c = hub.connection()
    assert c.path == "/agent/a1"
    assert c.headers["Authorization"] == "Bearer " + "t" * 64


def test_an_unacknowledged_result_comes_again_after_each_reconnect_until_ack(hub, agent):
    a = agent()
    c = hub.connection()
    c.welcome(protocol=1)
    c.task("t1", command="echo x >> ran; echo done")
    first = c.response("t1")
    c.cut()
    c = hub.connection(2)
    assert c.resync()["tasks"] == [{"taskId": "t1", "state": "done"}]
    assert c.response("t1") == first
    c.ack("t1")
    eventually(lambda: a.spooled() == [], PATIENCE)
    c.cut()
    assert hub.connection(3).resync()["tasks"] == []
    assert a.lines("ran") == ["x"]


@pytest.mark.parametrize("number", range(1, 7))
def test_a_connection_cut_at_any_message_loses_nothing_and_does_nothing_twice(hub, agent, number):
    """The hub resets the connection when it gets the number-th message; until it has a response, it gives the task
    again on each connection that has not named it."""
    modern(hub)
    seen, responses = [0], []
    well = hub.on_message

    def on_message(c, m):
        seen[0] += 1
        if m["type"] == "response" and m["payload"]["taskId"] == "t1":
            responses.append(m["payload"])
        if seen[0] == number:
            c.ws.transport.abort()
            return
        well(c, m)
        if m["type"] == "status" and m["payload"].get("state") == "resync" and not responses and \
                not any(t["taskId"] == "t1" for t in m["payload"]["tasks"]):
            hub.say(c, "task", {"taskId": "t1", "type": "exec", "command": "echo x >> ran; echo one; sleep 0.1; echo two"})

    hub.on_message = on_message
    a = agent()
    eventually(lambda: responses and a.spooled() == [], PATIENCE)
    assert all(r["result"]["stdout"] == "one\ntwo" for r in responses)
    assert a.lines("ran") == ["x"]


def test_a_task_is_done_once_however_often_it_is_sent(hub, agent):
    a = agent()
    c = hub.connection()
    for _ in range(3):
        c.task("t1", command="echo x >> ran; sleep 0.3; echo done")
    c.state("t1", "running")
    c.task("t1", command="echo other >> ran")
    first = c.response("t1")
    c.task("t1", command="echo x >> ran")
    eventually(lambda: c.count(lambda m: m["type"] == "response") == 2, PATIENCE)
    assert [m["payload"] for m in c.got if m["type"] == "response"] == [first, first]
    assert a.lines("ran") == ["x"]


def test_results_outlive_the_agent(hub, agent):
    a = agent()
    c = hub.connection()
    c.task("small", command="echo small")
    c.task("large", command="head -c 300000 /dev/zero | tr '\\0' 'x'")
    c.task("a/b ü%", command="echo odd name")
    want = {id: c.response(id) for id in ("small", "large", "a/b ü%")}
    assert len(a.spooled()) == 3
    a.kill()
    a.start()
    c = hub.connection(2)
    assert {t["taskId"]: t["state"] for t in c.resync()["tasks"]} == dict.fromkeys(want, "done")
    for id, answer in want.items():
        assert c.response(id) == answer
        c.ack(id)
    eventually(lambda: a.spooled() == [], PATIENCE)


def test_what_an_agent_that_died_had_not_begun_is_done_and_what_ran_is_told_as_interrupted(hub, agent):
    a = agent(tasks={"maxConcurrent": 1})
    c = hub.connection()
    c.task("ran", command="echo ran >> order; sleep 60")
    c.state("ran", "running")
    c.task("again", command="echo again >> order", retry=True)
    c.task("next", command="echo next >> order")
    c.state("next", "queued")
    a.kill()
    a.start()
    c = hub.connection(2)
    answer = c.response("ran")
    assert answer["success"] is False and answer["error"].startswith("interrupted: ")
    assert answer["stack"].startswith("Error: interrupted: ")
    assert c.response("again")["success"] and c.response("next")["success"]
    assert a.lines("order") == ["ran", "again", "next"]


def test_a_task_that_may_be_repeated_is_repeated_after_a_crash(hub, agent):
    a = agent()
    c = hub.connection()
    c.task("t1", command="echo x >> ran; test $(wc -l < ran) = 2 || (setsid sleep 600 & echo $! > pid; sleep 600);"
                         "echo done", retry=True)
    eventually(lambda: a.lines("pid"), PATIENCE)
    a.kill()
    assert alive(a.lines("pid")[0])
    a.start()
    assert hub.connection(2).response("t1")["result"]["stdout"] == "done"
    assert a.lines("ran") == ["x", "x"]
    assert not alive(a.lines("pid")[0])  # what the first one had left


def test_a_torn_file_in_the_spool_is_set_aside(hub, agent):
    a = agent()
    c = hub.connection()
    c.task("good", command="echo good")
    c.response("good")
    a.kill()
    spool = a.state / "spool"
    (spool / "torn.json").write_text('{"taskId":"torn","from":"host","state":"queued","retry":false,"seq":9}\n{"type":')
    (spool / "junk.json").write_bytes(b"\0\1\2")
    a.start()
    assert [t["taskId"] for t in hub.connection(2).resync()["tasks"]] == ["good"]
    assert sorted(p.name for p in spool.iterdir()) == ["good.json", "junk.json.bad", "lock", "torn.json.bad"]


def test_cancel_ends_the_whole_group_and_says_so(hub, agent):
    a = agent(tasks={"maxConcurrent": 1})
    c = hub.connection()
    c.task("runs", command="sleep 600 & echo $! > child; trap '' TERM; echo begun; wait; sleep 600")
    eventually(lambda: a.lines("child"), PATIENCE)
    c.task("waits", command="echo x >> ran")
    c.state("waits", "queued")
    c.send("cancel", {"taskId": "waits", "reason": "not needed"})
    answer = c.response("waits")
    assert answer["success"] is False and answer["error"] == "canceled: not needed"
    c.send("cancel", {"taskId": "runs", "reason": "operator"})
    c.send("cancel", {"taskId": "nobody", "reason": "x"})
    answer = c.response("runs")
    assert answer["success"] is False and answer["error"] == "canceled: operator"
    assert answer["result"]["stdout"] == "begun"
    eventually(lambda: not alive(a.lines("child")[0]), PATIENCE)
    assert a.lines("ran") == []


def test_a_time_out_ends_grandchildren_too(hub, agent):
    a = agent()
    c = hub.connection()
    c.task("t1", command="(trap '' TERM; sleep 600) & echo $! > child; echo said; sleep 600", timeout=300)
    answer = c.response("t1")
    assert answer["success"] is False and "timed out after 300 ms" in answer["error"]
    assert answer["result"]["timedOut"] is True and answer["result"]["stdout"] == "said"
    assert answer["result"]["signal"] in ("SIGTERM", "SIGKILL") and answer["result"]["exitCode"] is None
    eventually(lambda: not alive(a.lines("child")[0]), PATIENCE)
    c.task("t2", command="trap 'echo cleaned; exit 0' TERM; sleep 600 & wait", timeout=200)
    assert c.response("t2")["result"]["stdout"] == "cleaned"


@pytest.mark.parametrize("timeout", [-1, 1.5, "x", [], True])
def test_a_bad_time_out_is_refused_in_the_originals_words(hub, agent, timeout):
    agent()
    c = hub.connection()
    c.task("t1", command="true", timeout=timeout)
    assert c.response("t1")["error"].startswith(
        'The value of "timeout" is out of range. It must be an unsigned integer. Received ')


def test_so_many_at_a_time_the_others_in_order_and_no_more_than_may_wait(hub, agent):
    a = agent(tasks={"maxConcurrent": 2, "maxQueued": 3})
    c = hub.connection()
    for i in range(2):
        c.task(f"run{i}", command="until [ -e go ]; do sleep 0.02; done")
        c.state(f"run{i}", "running")
    for i in range(3):
        c.task(f"wait{i}", command=f"echo {i} >> order; sleep 0.2")
        c.state(f"wait{i}", "queued")
    c.task("more", command="true")
    answer = c.response("more")
    assert answer["success"] is False and answer["error"] == "the agent's queue is full"
    assert not any(m["payload"].get("state") == "running" for m in c.got
                   if m["type"] == "status" and m["payload"].get("taskId", "").startswith("wait"))
    (a.home / "go").touch()
    for i in range(3):
        assert c.response(f"wait{i}")["success"]
    assert sorted(a.lines("order")) == ["0", "1", "2"] and a.lines("order")[2] == "2"


def test_a_full_spool_refuses_tasks_until_the_hub_has_taken_results(hub, agent):
    a = agent(spool={"maxBytes": 65536})
    c = hub.connection()
    c.task("big", command="head -c 100000 /dev/zero | tr '\\0' x")
    assert len(c.response("big")["result"]["stdout"]) == 100000
    c.task("refused", command="true")
    answer = c.response("refused")
    assert answer["success"] is False and "spool is full" in answer["error"]
    c.ack("big")
    eventually(lambda: a.spooled() == [], PATIENCE)
    c.task("taken", command="true")
    assert c.response("taken")["success"]


def output(connections, stream="stdout", id="t1"):
    """What live output tells, checked for gaps and repetitions."""
    text, at = "", 0
    for c in connections:
        for m in c.got:
            p = m["payload"]
            if m["type"] == "log" and p["taskId"] == id and p["stream"] == stream:
                if p["offset"] < at:
                    continue
                assert p["offset"] == at, (p, at)
                at += p["bytes"]
                text += p["data"]
    return text


def test_live_output_comes_as_it_is_written_and_goes_on_after_a_reconnect(hub, agent):
    a = agent()
    c = hub.connection()
    c.welcome(protocol=1)
    c.task("t1", command="echo one; echo err >&2; until [ -e go1 ]; do sleep 0.02; done; printf 'zw\\303'; sleep 0.1;"
                         "printf '\\266lf'; until [ -e go2 ]; do sleep 0.02; done; echo; printf '\\377!'")
    c.wait(lambda m: m["type"] == "log" and m["payload"]["stream"] == "stderr")
    eventually(lambda: output([c]) == "one\n", PATIENCE)
    c.cut()
    c2 = hub.connection(2)
    (a.home / "go1").touch()
    assert c2.resync()["tasks"] == [{"taskId": "t1", "state": "running"}]
    c2.welcome(protocol=1)
    c2.send("resync", {"tasks": [{"taskId": "t1", "known": True, "ended": False, "stdout": 1, "stderr": 4}]})
    eventually(lambda: any(m["type"] == "log" for m in c2.got), PATIENCE)
    first = next(m["payload"] for m in c2.got if m["type"] == "log")
    assert first["offset"] == 1 and first["data"].startswith("ne\n")
    (a.home / "go2").touch()
    assert c2.response("t1")["result"]["stdout"] == "one\nzwölf\n\ufffd!"
    whole = "".join(m["payload"]["data"] for m in c2.got if m["type"] == "log" and m["payload"]["stream"] == "stdout")
    assert "o" + whole == "one\nzwölf\n\ufffd!"
    last = [m["payload"] for m in c2.got if m["type"] == "log"][-1]
    assert last["offset"] + last["bytes"] == len("one\nzwölf\n".encode()) + 2


def test_much_live_output_is_whole_and_comes_before_the_response(hub, agent):
    agent()
    c = hub.connection()
    c.welcome(protocol=1)
    c.task("t1", command="seq 1 200000")
    want = "".join(f"{i}\n" for i in range(1, 200001))
    assert c.response("t1")["result"]["stdout"] == want.rstrip()
    before = [m for m in c.got[:next(i for i, m in enumerate(c.got) if m["type"] == "response")]]
    assert "".join(m["payload"]["data"] for m in before if m["type"] == "log") == want


def test_a_hub_of_the_original_gets_no_live_output_and_no_result_twice(hub, agent):
    """It sends a welcome without protocol, and acknowledges nothing."""
    hub.on_open = lambda c: hub.say(c, "status", {"status": "connected", "message": "Welcome to VM Hub"})
    a = agent()
    c = hub.connection()
    c.task("t1", command="echo one; sleep 0.2; echo two")
    assert c.response("t1")["result"]["stdout"] == "one\ntwo"
    assert not any(m["type"] == "log" for m in c.got)
    time.sleep(6)  # the receipt is a connection that lasts 5 s more
    c.cut()
    c = hub.connection(2)
    assert c.resync()["tasks"] == []
    c.task("t2", command="echo still works")
    assert c.response("t2")["success"] and not any(
        m["payload"].get("taskId") == "t1" for m in c.got if m["type"] == "response")
    c.task("t1", command="echo never >> ran")
    assert c.response("t1")["result"]["stdout"] == "one\ntwo"
    assert a.lines("ran") == []


def test_what_a_newer_hub_says_is_left_alone(hub, agent):
    agent()
    c = hub.connection()
    c.welcome(protocol=99, version="9.9.9", features={"x": [1]})
    for text in ("no json", "null", "[]", "{}", '{"type":7}', '{"type":"task"}', '{"type":"task","payload":[]}',
                 '{"type":"task","payload":{}}', '{"type":"task","payload":{"taskId":[]}}', '{"type":"ack","payload":{}}',
                 '{"type":"resync","payload":{"tasks":{"a":1}}}', '{"type":"resync","payload":{"tasks":[1,null,{}]}}',
                 '{"type":"cancel","payload":{"taskId":[]}}', '{"type":"quantum","payload":{"taskId":"x"}}',
                 '{"type":"shell","payload":{}}', '{"type":"status","payload":{"status":{}}}'):
        c.raw(text)
    c.send("task", {"taskId": "t1", "type": "hologram"})
    assert c.response("t1")["error"] == "Unknown task type: hologram"
    c.send("task", {"taskId": "t2", "type": "exec", "command": "echo ok", "priority": {"new": 1}}, hop=3)
    assert c.response("t2")["result"]["stdout"] == "ok"
    c.send("task", {"taskId": 42, "type": "exec", "command": "echo number"})
    assert c.response("42")["result"]["stdout"] == "number"
    assert c.close is None


def test_the_hub_may_end_what_it_has_given_up(hub, agent):
    a = agent()
    c = hub.connection()
    c.task("runs", command="echo $$ > pid; sleep 600")
    c.task("done", command="true")
    c.response("done")
    eventually(lambda: a.lines("pid"), PATIENCE)
    c.cut()
    c = hub.connection(2)
    c.resync()
    c.send("resync", {"tasks": [{"taskId": "runs", "known": True, "ended": True},
                                {"taskId": "done", "known": False, "ended": True}]})
    eventually(lambda: a.spooled() == [] and not alive(a.lines("pid")[0]), PATIENCE)
    assert not any(m["type"] == "response" and m["payload"]["taskId"] == "runs" for m in c.got)


def test_a_refused_token_is_said_and_the_configuration_read_again(hub, agent):
    hub.refuse = lambda path, headers: not path.endswith("/" + "n" * 64)
    a = agent()
    eventually(lambda: hub.refused >= 3, PATIENCE)
    assert "the hub refuses our token" in a.log()
    a.config["token"] = "n" * 64
    a.write_config()
    c = hub.connection()
    assert c.path == "/agent/a1/" + "n" * 64
    assert ("t" * 64) not in a.log() and ("n" * 64) not in a.log()


def test_a_standalone_agent_gives_up_after_its_attempts(agent, hub):
    hub.stop()
    a = agent(reconnect={"maxAttempts": 3, "initialDelay": 20, "maxDelay": 100})
    assert a.process.wait(PATIENCE) == 1
    assert "given up after 3 attempts" in a.log()
    delays = [json.loads(line)["next_ms"] for line in a.log().splitlines() if "cannot reach the hub" in line]
    assert len(delays) == 3
    assert all(0.8 * want - 1 <= have <= 1.2 * want for have, want in zip(delays, (20, 40, 80))), delays


def test_no_token_is_two_lines_and_exit_status_1():
    done = subprocess.run([chelad.BIN / "chela-agent"], env={"AGENT_CONFIG": "/nonexistent/x", "AGENT_ID": "a", "HOME": "/tmp"},
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "no token" in done.stderr and len(done.stderr.splitlines()) == 3  # the first says that there is no file


def test_the_environment_is_enough_and_tasks_do_not_see_the_token(hub, tmp_path):
    process = subprocess.Popen([chelad.BIN / "chela-agent"], stderr=subprocess.DEVNULL, env={
        "AGENT_CONFIG": str(tmp_path / "none"), "AGENT_ID": "e1", "AGENT_TOKEN": "secret", "HUB_URL": hub.url + "/",
        "HOME": str(tmp_path), "PATH": os.environ["PATH"], "STATE_DIRECTORY": str(tmp_path / "state")})
    try:
        c = hub.connection()
        assert c.path == "/agent/e1/secret"
        c.task("t1", command="env")
        assert "secret" not in c.response("t1")["result"]["stdout"]
        second = subprocess.run([chelad.BIN / "chela-agent"], capture_output=True, text=True, timeout=PATIENCE, env={
            "AGENT_CONFIG": str(tmp_path / "none"), "AGENT_ID": "e1", "AGENT_TOKEN": "secret", "HUB_URL": hub.url,
            "HOME": str(tmp_path), "STATE_DIRECTORY": str(tmp_path / "state")})
        assert second.returncode == 1 and "another agent uses" in second.stderr
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_sigterm_ends_children_spools_what_they_left_and_closes_in_order(hub, agent):
    a = agent(tasks={"maxConcurrent": 2})
    c = hub.connection()
    c.welcome(protocol=1)
    c.task("runs", command="echo $$ > pid; echo half; sleep 600")
    c.task("again", command="echo x >> ran; test $(wc -l < ran) = 2 || sleep 600", retry=True)
    c.task("waits", command="echo waited")
    c.state("waits", "queued")
    eventually(lambda: a.lines("pid") and a.lines("ran"), PATIENCE)
    assert a.stop() == 0
    assert c.closed() == (1000, "Agent shutting down")
    answer = c.response("runs")
    assert answer["success"] is False and answer["error"].startswith("interrupted: ")
    assert answer["result"]["stdout"] == "half"
    eventually(lambda: not alive(a.lines("pid")[0]), PATIENCE)
    assert a.spooled() == ["again.json", "runs.json", "waits.json"]
    a.start()
    c = hub.connection(2)
    assert c.response("runs") == answer
    assert c.response("again")["success"] and c.response("waits")["result"]["stdout"] == "waited"


def test_a_result_that_the_hub_finds_too_large_does_not_come_for_ever(hub, agent):
    a = agent()
    modern(hub)
    well, big = hub.on_message, []

    def on_message(c, m):
        if m["type"] == "response" and len(json.dumps(m)) > 100000:
            big.append(m)
            hub.loop.create_task(c.ws.close(1009, "too big"))
            return
        well(c, m)

    hub.on_message = on_message
    c = hub.connection()
    c.task("t1", command="head -c 200000 /dev/zero | tr '\\0' x")
    answer = hub.connection(2).response("t1")
    assert answer["success"] is False and "too large" in answer["error"]
    assert len(big) == 1
    eventually(lambda: a.spooled() == [], PATIENCE)


def test_output_past_the_limit_is_cut_and_the_command_ended(hub, agent):
    agent()
    c = hub.connection()
    c.task("t1", command="yes")
    answer = c.response("t1", patience=120)  # 15 MB of JSON, on a machine with other work
    assert answer["success"] is False and answer["error"] == "stdout maxBuffer length exceeded"
    assert answer["result"]["truncated"] is True and len(answer["result"]["stdout"]) == 10 * 1024 * 1024 - 1
    c.task("t2", command="head -c 6000000 /dev/zero")
    assert c.response("t2", patience=120)["result"]["stdout"] == "\ufffd" * 6000000


def test_texts_of_failures_are_the_originals(hub, agent):
    a = agent()
    c = hub.connection()
    for id, more in {"exit": {"command": "echo a; echo b >&2; exit 3"}, "signal": {"command": "kill -9 $$"},
                     "cwd": {"command": "true", "cwd": "/nonexistent/dir"}, "none": {"command": "no-such-command-x"},
                     "blank": {"command": "printf '  \\n x \\n\\n'"}, "stdin": {"command": "cat; echo end"}}.items():
        c.task(id, **more)
    answer = c.response("exit")
    assert answer["error"] == "Command failed: echo a; echo b >&2; exit 3\nb\n"
    assert answer["result"] == {"stdout": "a", "stderr": "b", "exitCode": 3}
    assert c.response("signal")["result"]["signal"] == "SIGKILL"
    assert c.response("cwd")["error"] == "cwd does not exist: /nonexistent/dir"
    assert "no-such-command-x" in c.response("none")["error"] and c.response("none")["result"]["exitCode"] == 127
    assert c.response("blank")["result"]["stdout"] == "x"
    assert c.response("stdin")["result"]["stdout"] == "end"
    assert a.process.poll() is None


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_unix_socket_is_a_way_to_the_hub_and_relays_are_ways_out(program, tmp_path_factory):
    place = tmp_path_factory.mktemp("u")
    hub = ScriptedHub(unix=place / "hub.sock")
    echo = socket.socket(socket.AF_UNIX)
    echo.bind(str(place / "echo.sock"))
    echo.listen()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    a = Agent(hub, program, relay={f"127.0.0.1:{port}": str(place / "echo.sock")}).start()
    try:
        c = hub.connection()
        c.task("t1", command="echo inside")
        assert c.response("t1")["success"]
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as near:
            far, _ = echo.accept()
            far.settimeout(PATIENCE)
            data = os.urandom(3_000_000)
            sender = __import__("threading").Thread(target=lambda: (near.sendall(data), near.shutdown(socket.SHUT_WR)))
            sender.start()
            got = b""
            while chunk := far.recv(65536):
                got += chunk
            sender.join()
            assert got == data
            far.sendall(b"answer after the end")
            far.close()
            near.settimeout(PATIENCE)
            assert near.recv(100) == b"answer after the end" and near.recv(1) == b""
    finally:
        a.done()
        echo.close()
        hub.stop()


def test_a_relay_listens_on_loopback_only(hub, agent):
    a = agent(relay={"0.0.0.0:0": "/x"})
    assert a.process.wait(PATIENCE) == 1
    assert "must be an address of loopback" in a.log()


def static_tls():
    """Was chela-agent-static built with -Dstatic_tls=true?"""
    return "chela-agent-static" in PROGRAMS and b"was built without TLS" not in (chelad.BIN / "chela-agent-static").read_bytes()


@pytest.mark.parametrize("program", ["chela-agent"] + (["chela-agent-static"] if static_tls() else []))
@pytest.mark.parametrize("certificate", ["good", "wrong-name"])
def test_tls_with_an_authority_of_ones_own(certificate, program, tmp_path):
    authority = certs.Certificates(tmp_path / "certs")
    hub = ScriptedHub(ssl=authority.server_context(certificate))
    a = Agent(hub, program, caFile=str(authority.ca), reconnect={"maxAttempts": 1, "initialDelay": 10}).start()
    try:
        if certificate == "good":
            c = hub.connection()
            c.task("t1", command="head -c 1000000 /dev/zero | tr '\\0' x")
            assert c.response("t1")["result"]["stdout"] == "x" * 1000000
        else:
            assert a.process.wait(PATIENCE) == 1
            assert not hub.connections
    finally:
        a.done()
        hub.stop()


def test_the_static_agent_says_that_it_has_no_tls(hub, agent):
    if "chela-agent-static" not in PROGRAMS:
        pytest.skip("this build has no chela-agent-static: a static library is missing, or it is a build with sanitizers")
    a = agent("chela-agent-static", hubUrl="wss://127.0.0.1:1", reconnect={"maxAttempts": 1, "initialDelay": 10})
    assert a.process.wait(PATIENCE) == 1
    assert ("built without TLS" in a.log()) != static_tls()


def test_an_idle_agent_is_small(hub, agent):
    if "chela-agent-static" not in PROGRAMS:
        pytest.skip("this build has no chela-agent-static: a static library is missing, or it is a build with sanitizers")
    a = agent("chela-agent-static")
    c = hub.connection()
    c.task("t1", command="true")
    c.response("t1")
    c.ack("t1")
    eventually(lambda: a.spooled() == [], PATIENCE)
    status = pathlib.Path(f"/proc/{a.process.pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    assert resident < (8000 if static_tls() else 3000), status


def test_pings_are_answered_and_a_signal_of_a_wrong_kind_does_no_harm(hub, agent):
    a = agent()
    c = hub.connection()
    c.send("ping", {})
    c.wait(lambda m: m["type"] == "pong")
    os.kill(a.process.pid, signal.SIGPIPE)
    c.task("t1", command="true")
    assert c.response("t1")["success"]


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    unit = tmp_path / "vm-agent.service"
    source = pathlib.Path(__file__).parents[2] / "packaging" / "vm-agent.service.in"
    unit.write_text(source.read_text().replace("@BINDIR@", str(chelad.BIN)).replace("User=agent", "User=daemon"))
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "vm-agent.service" not in done.stderr, done.stderr
