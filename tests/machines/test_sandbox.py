# SPDX-License-Identifier: MIT
"""Real sandboxes: their life, what they keep, how they are limited, and attempts to get out of one."""

import base64
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import chelad
import httpx
import pytest
from hubtool import Hub
from wait import eventually

HERE = pathlib.Path(__file__).resolve().parent
UNPRIVILEGED = 23456

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed", allow_module_level=True)


class Fleet(Hub):
    """The hub's machines."""

    def create(self, name, **spec):
        answer = self.http.post("/machines", json={"name": name, "driver": "sandbox", **spec})
        assert answer.status_code == 202, answer.text
        return self.settled(name, "running")

    def machine(self, name, wait=None):
        return self.http.get(f"/machines/{name}", params={"wait": wait} if wait else {})

    def settled(self, name, want):
        """Wait until its state is `want`."""
        def look():
            answer = self.machine(name, 10000)
            assert answer.status_code == 200, answer.text
            machine = answer.json()["machine"]
            assert machine["state"] != "failed" or want == "failed", machine
            return machine if machine["state"] == want and machine["operation"] is None else None
        return eventually(look, 60)

    def do(self, name, what, want, **body):
        answer = self.http.post(f"/machines/{name}/{what}", json=body)
        assert answer.status_code == 202, answer.text
        return self.settled(name, want)

    def destroy(self, name):
        answer = self.http.delete(f"/machines/{name}")
        assert answer.status_code == 202, answer.text
        eventually(lambda: self.machine(name).status_code == 404, 60)

    def run(self, name, command, **more):
        """The result of a command that must end well."""
        record = self.send(name, wait=30000, type="exec", command=command, **more)
        assert record["status"] == "completed", json.dumps(record, indent=1)
        return record["response"]["result"]["stdout"]

    def put(self, name, path, text):
        record = self.send(name, wait=30000, type="file:write", filePath=path,
                           content=base64.b64encode(text).decode(), encoding="base64")
        assert record["status"] == "completed", json.dumps(record, indent=1)

    def directory(self, name):
        return pathlib.Path(self.daemon.state) / "machines" / name


@pytest.fixture(scope="module")
def fleet(daemon):
    return Fleet(daemon)


@pytest.fixture(scope="module")
def box(fleet):
    """A sandbox the tests share."""
    fleet.create("shared", memory="256M", disk="96M", cpus=1)
    yield "shared"
    fleet.destroy("shared")


def loops():
    """Files behind the loop devices of this host."""
    found = pathlib.Path("/sys/block").glob("loop*/loop/backing_file")
    return [path.read_text().strip() for path in found]


def test_a_sandbox_keeps_its_files_over_stops_and_goes_back_to_snapshots(fleet):
    machine = fleet.create("life", disk="64M")
    assert machine["online"] and machine["startedAt"]
    assert fleet.run("life", "id -un; hostname; pwd").split() == ["agent", "life", "/work"]
    before = os.urandom(300000)
    fleet.put("life", "/work/data", before)
    fleet.run("life", "mkdir -p ~/deep/er && ln -s /work/data ~/deep/er/link && chmod 640 /work/data")
    fleet.do("life", "stop", "stopped")
    assert fleet.agent("life")["status"] == "offline"
    fleet.do("life", "start", "running")
    answer = fleet.http.post("/machines/life/snapshots", json={"name": "first"})
    assert answer.status_code == 202, answer.text
    fleet.settled("life", "running")
    fleet.run("life", "echo other > /work/data; rm -r ~/deep; echo new > /work/new")
    fleet.do("life", "restore", "running", snapshot="first")
    assert base64.b64decode(fleet.run("life", "base64 -w0 ~/deep/er/link")) == before
    assert fleet.run("life", "stat -c %a /work/data; ls /work") == "640\ndata"
    listed = fleet.http.get("/machines/life/snapshots").json()["snapshots"]
    assert [row["name"] for row in listed] == ["first"] and listed[0]["bytes"] > 300000
    directory = fleet.directory("life")
    assert directory.exists()
    fleet.destroy("life")
    assert not directory.exists()
    assert not [path for path in loops() if str(directory) in path]
    fleet.create("life")
    assert fleet.run("life", "ls /work") == ""
    fleet.destroy("life")


def test_what_is_said_is_kept_as_its_log(fleet, box):
    eventually(lambda: "the hub welcomes us" in fleet.http.get(f"/machines/{box}/logs", params={"lines": 50}).text, 30)


def test_attempts_to_get_out_fail(fleet, box, scratch):
    fleet.create("neighbour")
    secret = scratch / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0chela-sandbox-test")
    listener.listen()
    tcp = socket.create_server(("0.0.0.0", 0))
    ports = [int(address.rpartition(":")[2]) for address in fleet.daemon.ready["listeners"].values() if address]
    addresses = {"127.0.0.1", "169.254.169.254", socket.gethostbyname(socket.gethostname())}
    aim = {
        "secret": str(secret), "state": str(fleet.daemon.state), "other": str(fleet.directory("neighbour")),
        "other_name": "neighbour", "abstract": "chela-sandbox-test",
        "pids": [os.getpid(), fleet.daemon.ready["pid"]],
        "ports": [(host, port) for host in sorted(addresses) for port in [*ports, tcp.getsockname()[1], 22, 80]],
    }
    try:
        fleet.put(box, "/work/attempts.py", (HERE / "sandbox_attempts.py").read_bytes())
        said = fleet.run(box, f"/usr/bin/python3 /work/attempts.py '{json.dumps(aim)}'")
        results = json.loads(said)
        escaped = {name: result for name, result in results.items() if not result.startswith("refused")}
        assert not escaped
        assert len(results) > 80, "they were tried at all"
    finally:
        tcp.close()
        listener.close()
        fleet.destroy("neighbour")


def test_nothing_but_itself_is_in_a_sandbox(fleet, box):
    status = fleet.run(box, "cat /proc/self/status")
    for line in ("CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    names = fleet.run(box, "cat /proc/[0-9]*/comm").split()
    assert set(names) <= {"bwrap", "chela-agent", "sh", "cat"}, names
    assert fleet.run(box, "cut -d: -f1 /proc/net/dev | tail -n +3").split() == ["lo"]
    assert fleet.run(box, "env | grep -v ^CHELA_TASK= | grep -i -E 'chela|token|proxy' || true") == ""
    mounts = fleet.run(box, "cut -d' ' -f5,6 /proc/self/mountinfo").splitlines()
    writable = {line.split()[0] for line in mounts if line.split()[1].startswith("rw")}
    assert writable <= {"/home/agent", "/work", "/tmp", "/var", "/proc", "/dev/shm", "/dev/pts", "/dev/null", "/dev/zero",
                        "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}, writable


def test_sandboxes_are_different_users_of_the_host(fleet, box):
    if os.geteuid() != 0:
        pytest.skip("only root can run sandboxes as other users")
    fleet.create("second")
    users = {json.loads((fleet.directory(name) / "sandbox.json").read_text())["uid"] for name in (box, "second")}
    assert len(users) == 2 and min(users) >= 100000
    for name in (box, "second"):
        state = fleet.directory(name)
        assert state.stat().st_mode & 0o077 == 0
        assert (state / "etc/vm-agent/config.json").stat().st_mode & 0o077 == 0
    fleet.destroy("second")


def test_memory_is_limited(fleet, box):
    """At once where a process may not have it, within moments where the sum is looked at."""
    record = fleet.send(box, wait=50000, type="exec",
                        command="/usr/bin/python3 -c 'import time; x = b\"x\" * (600 << 20); time.sleep(40)'")
    assert record["status"] == "failed", record
    failure = record["response"]
    assert "MemoryError" in failure["error"] or failure["result"]["exitCode"] == 137, record
    assert fleet.run(box, "echo still here") == "still here"


def test_a_fork_bomb_meets_the_limit_of_processes(fleet, box):
    explode(fleet, box)


def explode(fleet, box):
    """Fork until it is refused."""
    fleet.put(box, "/work/bomb.py", b"""
import os, sys
n = 0
children = []
try:
    while n < 5000:
        pid = os.fork()
        if pid == 0:
            import time
            time.sleep(60)
            os._exit(0)
        children.append(pid)
        n += 1
except OSError as error:
    print(n, error.errno)
for pid in children:
    os.kill(pid, 9)
""")
    n, number = fleet.run(box, "/usr/bin/python3 /work/bomb.py").split()
    assert 100 < int(n) < 1024 and number == "11"
    assert fleet.run(box, "echo still here") == "still here"


def test_a_full_disk_is_the_sandboxs_own(fleet, box):
    if not (fleet.directory(box) / "disk.img").exists():
        pytest.skip("images are mounted by root, where there are loop devices")
    said = fleet.run(box, "head -c 300m /dev/zero 2>&1 > /work/big; rm /work/big")
    assert "No space left" in said
    image = fleet.directory(box) / "disk.img"
    assert image.stat().st_size == 96 << 20
    fleet.put(box, "/work/after", b"there is room again")


def test_a_sandbox_outlives_its_daemon(start):
    daemon = start()
    fleet = Fleet(daemon)
    fleet.create("lasting")
    boot = fleet.run("lasting", "cat /proc/1/stat | cut -d' ' -f22")
    task = fleet.send("lasting", type="exec", command="sleep 2; echo carried on")
    eventually(lambda: fleet.task(task, 0)["status"] == "running")
    os.kill(daemon.ready["pid"], signal.SIGKILL)
    daemon.process.wait(30)
    daemon.start()
    fleet = Fleet(daemon)
    assert fleet.settled("lasting", "running")
    fleet.online("lasting")
    assert fleet.ended(task)["response"]["result"]["stdout"] == "carried on"
    assert fleet.run("lasting", "cat /proc/1/stat | cut -d' ' -f22") == boot, "it is the same one"
    fleet.destroy("lasting")


def test_an_image_is_refused(fleet):
    fleet.http.post("/machines", json={"name": "pictured", "driver": "sandbox", "image": "22.04"})
    machine = fleet.settled("pictured", "failed")
    assert "no image" in machine["reason"]
    fleet.destroy("pictured")


def test_one_that_dies_is_said_to_have_died(start):
    fleet = Fleet(start())
    machine = fleet.create("mortal")
    pid = json.loads(ask_shim(fleet.directory("mortal")))["pid"]
    os.kill(pid, signal.SIGKILL)
    machine = eventually(lambda: (m := fleet.machine("mortal").json()["machine"])["state"] != "running" and m, 30)
    assert "signal 9" in machine["reason"], machine
    fleet.destroy("mortal")


def ask_shim(directory):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(directory / "shim.sock"))
        sock.sendall(b'{"op":"look"}\n')
        return sock.recv(4096)


def test_a_daemon_without_rights_makes_sandboxes_too(start, scratch):
    """Its own user, a directory as the disk, which is measured."""
    if os.geteuid() != 0:
        pytest.skip("the tests are run without rights already")
    scratch.chmod(0o711)
    state = scratch / "unprivileged"
    state.mkdir(mode=0o700)
    os.chown(state, UNPRIVILEGED, UNPRIVILEGED)

    def become():
        os.setgroups([])
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)

    readable = subprocess.run([chelad.BIN / "chela-agent", "--version"], preexec_fn=become, capture_output=True)
    if readable.returncode != 0:
        pytest.skip(f"{chelad.BIN} is closed to other users")
    fleet = Fleet(start(state=state, preexec=become))
    fleet.create("plain", disk="32M")
    assert (state / "machines/plain/tree").is_dir()
    assert fleet.run("plain", "id -un; ls /root 2>&1 | grep -c denied || true; cut -d: -f1 /proc/net/dev | tail -n +3").split() \
        [0] == "agent"
    explode(fleet, "plain")
    assert "Operation not permitted" in fleet.run("plain", "unshare -U true 2>&1; true")
    fleet.put("plain", "/work/file", b"x")
    fleet.run("plain", "mkdir /work/closed && touch /work/closed/in && chmod 0 /work/closed")
    fleet.send("plain", type="exec", command="head -c 100m /dev/zero > /work/big; sleep 100")
    machine = eventually(lambda: (m := fleet.machine("plain").json()["machine"])["state"] != "running" and m, 60)
    assert "MiB on a disk of 32" in machine["reason"], machine
    fleet.destroy("plain")
    assert not (state / "machines/plain").exists()


def shims(state):
    """Processes of this daemon's machines."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--shim" in words and any(word.startswith(bytes(state)) for word in words):
            found.append(entry.name)
    return found


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.09, 0.14])
def test_a_daemon_killed_at_any_moment_leaves_nothing_half_made(start, delay):
    """Each operation is cut off by SIGKILL after the same while, goes on with the next daemon, and ends well."""
    daemon = start()

    def killed_while(act):
        nonlocal daemon
        act(Fleet(daemon))
        time.sleep(delay)
        os.kill(daemon.ready["pid"], signal.SIGKILL)
        daemon.process.wait(30)
        daemon.start()
        return Fleet(daemon)

    fleet = killed_while(lambda fleet: fleet.http.post("/machines", json={"name": "cut", "driver": "sandbox", "disk": "64M"}))
    fleet.settled("cut", "running")
    fleet.online("cut")
    fleet.put("cut", "/work/kept", b"kept")
    fleet = killed_while(lambda fleet: fleet.http.post("/machines/cut/snapshots", json={"name": "one"}))
    eventually(lambda: fleet.machine("cut").json()["machine"]["operation"] is None, 60)
    if fleet.machine("cut").json()["machine"]["state"] != "running":
        fleet.do("cut", "start", "running")
    fleet.online("cut")
    fleet.run("cut", "sync; echo changed > /work/kept")
    fleet = killed_while(lambda fleet: fleet.http.post("/machines/cut/restore", json={"snapshot": "one"}))
    fleet.settled("cut", "running")
    fleet.online("cut")
    assert fleet.run("cut", "cat /work/kept") == "kept"
    fleet = killed_while(lambda fleet: fleet.http.post("/machines/cut/stop", json={}))
    fleet.settled("cut", "stopped")
    fleet = killed_while(lambda fleet: fleet.http.delete("/machines/cut"))
    eventually(lambda: fleet.machine("cut").status_code == 404, 60)
    state = fleet.daemon.state
    assert [path.name for path in (state / "machines").iterdir()] == []
    eventually(lambda: not shims(state) and not [path for path in loops() if str(state) in path], 30)
