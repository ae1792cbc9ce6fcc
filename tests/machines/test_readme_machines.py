# SPDX-License-Identifier: MIT
"""The README's part on agents in machines, held to its word: each line as it stands, in a shell."""

import json
import os
import pathlib
import re
import subprocess

import chelad
import pytest
from hubtool import Hub

ROOT = pathlib.Path(__file__).resolve().parents[2]
PART = (ROOT / "README.md").read_text().split("## Agents in machines\n")[1].split("\n## ")[0]
TOUR, CURL = re.findall(r"```bash\n(.*?)```", PART, re.S)


def commands(block):
    """Its commands, each with the lines that belong to it."""
    found, held = [], ""
    for line in block.splitlines():
        held += line + "\n"
        if subprocess.run(["bash", "-n"], input=held, text=True, capture_output=True).returncode == 0 \
                and not line.endswith("\\"):
            found.append(held)
            held = ""
    assert held == ""
    return found


@pytest.fixture(scope="module")
def shell(daemon):
    """Runs a line of the README; the hub's port is the one that was free."""
    hub = daemon.ready["listeners"]["hub"]
    env = chelad.environment(daemon.state.parent, {"CHELA_STATE": str(daemon.state)})
    env["PATH"] = f"{chelad.BIN}{os.pathsep}{env['PATH']}"

    def run(line):
        line = line.replace("http://localhost:9091", f"http://{hub}")
        return subprocess.run(["bash", "-c", line], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return run


def test_the_tour(daemon, shell):
    lines = commands(TOUR)
    assert [line.split()[1] for line in lines] == [
        "create", "list", "status", "task", "exec", "snapshot", "exec", "restore", "cp", "logs", "stop", "start"]
    answers = {}
    for line in lines:
        done = shell(line)
        assert done.returncode == 0, (line, done.stderr)
        answers[line.split()[1]] = done
    assert "agent-builder" in answers["list"].stdout and "builder" in answers["status"].stdout
    assert json.loads(answers["task"].stdout)["result"]["stdout"] == "Hello from VM"
    assert shell("vm-agent exec agent-builder 'cat /work/README.md'").stdout == (ROOT / "README.md").read_text()
    assert shell("vm-agent exec agent-builder 'ls /work'").stdout == "README.md\n"  # and no notes: restored


def test_the_api(daemon, shell):
    if shell("vm-agent status agent-builder").returncode:
        assert shell(commands(TOUR)[0]).returncode == 0
    lines = commands(CURL)
    assert len(lines) == 6
    registered, agents, status, task, tasks, gone = (shell(line) for line in lines)
    assert len(re.findall(r'"token":"[^"]*"', registered.stdout)) == 1
    assert json.loads(registered.stdout)["wsUrl"].startswith("ws://localhost:")
    assert [one["id"] for one in json.loads(agents.stdout)["agents"]] == ["agent-builder", "agent-1"]
    assert json.loads(status.stdout)["agent"]["metadata"]["capabilities"] == ["build", "docker"]
    assert set(json.loads(task.stdout)) >= {"taskId", "status"} and json.loads(task.stdout)["status"] == "sent"
    assert json.loads(task.stdout)["taskId"] in [one["id"] for one in json.loads(tasks.stdout)["tasks"]]
    assert json.loads(gone.stdout) == {"status": "deregistered"}
    record = Hub(daemon).ended(json.loads(task.stdout)["taskId"])
    assert record["status"] == "completed" and record["response"]["result"]["exitCode"] == 0
    assert shell("vm-agent destroy agent-builder --force").returncode == 0
