# SPDX-License-Identifier: MIT
"""chela-agent init as PID 1 of namespaces of its own: what can be seen of it without a virtual machine."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile

import chelad
import pytest
from scripted_hub import PATIENCE, ScriptedHub
from wait import eventually

PROGRAM = chelad.BIN / "chela-agent-static"


@pytest.fixture
def place():
    """Not below /tmp: init mounts one of its own there."""
    with tempfile.TemporaryDirectory(prefix="chela-i-", dir="/var/tmp") as path:
        yield pathlib.Path(path)


def child_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_pid_1_reaps_restarts_the_agent_and_ends_in_order(place):
    if os.geteuid() != 0 or not PROGRAM.exists():
        pytest.skip("needs root for namespaces, and a build with chela-agent-static")
    hub = ScriptedHub(unix=place / "hub.sock")
    config = place / "config.json"
    config.write_text(json.dumps({"agentId": "guest-7", "token": "t", "hubUrl": hub.url, "stateDir": str(place / "state"),
                                  "reconnect": {"maxAttempts": 0, "initialDelay": 50, "maxDelay": 100}}))
    log = open(place / "log", "wb")
    process = subprocess.Popen(["unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--kill-child", "--mount-proc", PROGRAM, "init"],
                               env={"AGENT_CONFIG": str(config), "PATH": os.environ["PATH"]}, stderr=log)
    try:
        c = hub.connection()
        assert c.path == "/agent/guest-7/t"
        c.task("t1", command="hostname; ls -d /proc/1/exe; stat -fc %T /tmp; "
                             "(setsid sh -c 'sleep 0.05 & sleep 0.01' >/dev/null 2>&1 &)")
        answer = c.response("t1")["result"]["stdout"].split()
        assert answer == ["guest-7", "/proc/1/exe", "tmpfs"]
        zombies = r"grep -lE '^[0-9]+ \(.*\) Z' /proc/[0-9]*/stat; true"
        for i in range(200):
            c.task(f"z{i}", command=f"ps -e >/dev/null 2>&1; sleep 0.02; {zombies}")
            if c.response(f"z{i}")["result"]["stdout"] == "":
                break
        else:
            raise AssertionError("zombies stay")
        init = child_of(process.pid)
        os.kill(child_of(init), signal.SIGKILL)
        c = hub.connection(2)
        c.task("t2", command="echo again")
        assert c.response("t2")["result"]["stdout"] == "again"
        os.kill(init, signal.SIGTERM)
        assert c.closed() == (1000, "Agent shutting down")
        eventually(lambda: process.poll() is not None, PATIENCE)
        assert "powering off" in (place / "log").read_text()
    finally:
        process.kill()
        process.wait(PATIENCE)
        log.close()
        hub.stop()


def test_it_is_for_pid_1_only():
    program = PROGRAM if PROGRAM.exists() else chelad.BIN / "chela-agent"
    done = subprocess.run([program, "init"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and "PID 1" in done.stderr
