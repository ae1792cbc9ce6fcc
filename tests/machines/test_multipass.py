# SPDX-License-Identifier: MIT
"""The driver multipass against a scripted multipass that enforces the real command's rules; what it runs in an
instance, the agent too, runs for real in a directory."""

import json
import os
import pathlib

import pytest
from hubtool import Hub
from wait import eventually

HERE = pathlib.Path(__file__).resolve().parent
TOOL = HERE / "multipass" / "multipass"


class Fleet(Hub):
    """A hub whose multipass is ours."""

    def __init__(self, daemon, home):
        super().__init__(daemon)
        self.home = home

    def calls(self, *first):
        """The words of each call that begins so."""
        file = self.home / "calls.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [words for words in lines if words[:len(first)] == list(first)]

    def create(self, name, **spec):
        answer = self.http.post("/machines", json={"name": name, "driver": "multipass", **spec})
        assert answer.status_code == 202, answer.text

    def machine(self, name):
        return self.http.get(f"/machines/{name}", params={"wait": 5000}).json()["machine"]

    def settled(self, name, want):
        def look():
            machine = self.machine(name)
            assert machine["state"] != "failed" or want == "failed", machine
            return machine if machine["state"] == want and machine["operation"] is None else None
        return eventually(look, 60, 0.1)

    def do(self, machine, what, want, **body):
        answer = self.http.post(f"/machines/{machine}/{what}", json=body)
        assert answer.status_code == 202, answer.text
        return self.settled(machine, want)

    def run(self, name, command):
        record = self.send(name, wait=30000, type="exec", command=command)
        assert record["status"] == "completed", record
        return record["response"]["result"]["stdout"]


@pytest.fixture
def fleet(start, tmp_path):
    home = tmp_path / "multipass"
    made = []

    def make(**env):
        made.append(Fleet(start(f"--machine.multipass={TOOL}",
                                env={"MULTIPASS_SCRIPTED": str(home), **env}), home))
        return made[-1]
    yield make
    for file in home.glob("*/agent.pid"):
        try:
            os.killpg(int(file.read_text()), 9)
        except ProcessLookupError:
            pass


def test_create_work_snapshot_change_restore_destroy(fleet):
    fleet = fleet()
    fleet.create("mp-one", cpus=2, memory="1G", disk="8G")
    machine = fleet.settled("mp-one", "running")
    assert machine["online"] and machine["driver"] == "multipass"
    launch, = fleet.calls("launch")
    options = dict(zip(launch[1:-1:2], launch[2:-1:2]))
    assert (options["--name"], options["--cpus"], options["--memory"], options["--disk"]) == ("mp-one", "2", "1024M", "8192M")
    assert int(options["--timeout"]) >= 300 and launch[-1] == "22.04"
    assert "hello" in fleet.run("mp-one", "echo hello; echo before > kept")
    root = fleet.home / "mp-one" / "root"
    config = root / "etc/vm-agent/config.json"
    assert config.stat().st_mode & 0o777 == 0o600
    first = json.loads(config.read_text())
    # the host, as the guest's gateway is: the scripted one says loopback
    assert first["hubUrl"] == f"ws://127.0.0.1:{fleet.agents_port}"
    fleet.run("mp-one", f"cd {root} && echo before > kept")

    fleet.do("mp-one", "snapshots", "running", name="one")
    words = [call[0] for call in fleet.calls()]
    at = words.index("snapshot")
    assert "stop" in words[:at] and "start" in words[at:], words
    assert fleet.calls("snapshot") == [["snapshot", "mp-one", "--name", "one"]]
    listed = fleet.http.get("/machines/mp-one/snapshots").json()["snapshots"]
    assert [one["name"] for one in listed] == ["one"]

    fleet.run("mp-one", f"echo changed > {root}/kept; echo more > {root}/new")
    fleet.do("mp-one", "restore", "running", snapshot="one")
    assert fleet.calls("restore") == [["restore", "--destructive", "mp-one.one"]]
    assert fleet.run("mp-one", f"cat {root}/kept; test -e {root}/new || echo gone") == "before\ngone"
    assert json.loads(config.read_text())["token"] != first["token"], "restore issues a new token"

    fleet.do("mp-one", "stop", "stopped")
    fleet.do("mp-one", "start", "running")
    assert fleet.http.delete("/machines/mp-one").status_code == 202
    eventually(lambda: fleet.http.get("/machines/mp-one").status_code == 404, 30)
    assert fleet.calls("delete") == [["delete", "--purge", "mp-one"]] and not fleet.calls("purge")
    assert fleet.http.get("/agents/mp-one/status").status_code == 404
    tokens = json.dumps(fleet.calls())
    assert first["token"] not in tokens, "the token is in a command line"


def test_a_hub_url_is_used_as_it_is(fleet):
    fleet = fleet()
    url = f"ws://localhost:{fleet.agents_port}"
    fleet.create("mp-url", hubUrl=url)
    fleet.settled("mp-url", "running")
    assert json.loads((fleet.home / "mp-url/root/etc/vm-agent/config.json").read_text())["hubUrl"] == url


def test_an_instance_of_somebody_else_is_left_alone(fleet):
    fleet = fleet()
    (fleet.home / "mine/root").mkdir(parents=True)
    (fleet.home / "instances.json").write_text(json.dumps({"mine": {"state": "Running", "snapshots": {}, "release": "x"}}))
    fleet.create("mine")
    machine = fleet.settled("mine", "failed")
    assert "not ours" in machine["reason"], machine
    assert fleet.http.delete("/machines/mine").status_code == 202
    eventually(lambda: fleet.http.get("/machines/mine").status_code == 404, 30)
    assert "mine" in json.loads((fleet.home / "instances.json").read_text())
    assert not fleet.calls("delete")


def test_what_could_not_be_provisioned_is_taken_away_again(fleet):
    fleet = fleet(MULTIPASS_GATEWAY="nowhere")
    fleet.create("mp-bad")
    machine = fleet.settled("mp-bad", "failed")
    assert "gateway" in machine["reason"], machine
    assert json.loads((fleet.home / "instances.json").read_text()) == {}
    assert fleet.http.get("/agents/mp-bad/status").status_code == 404
