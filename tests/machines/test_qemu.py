# SPDX-License-Identifier: MIT
"""Real virtual machines, three at once, from the minimal image: their life, every type of task, snapshots with
memory and without, and what they can reach."""

import base64
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from hubtool import Hub
from wait import eventually

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
MEMORY = "256M"
NAMES = ["guest-a", "guest-b", "guest-c"]

pytestmark = pytest.mark.xdist_group("qemu")


def image():
    """The folder of images with the minimal one in it."""
    if not shutil.which("qemu-system-x86_64"):
        return None, "qemu-system-x86_64 is not installed"
    directory = chelad_images()
    done = subprocess.run([TOOLS / "guest_image", directory], capture_output=True, text=True)
    return (directory, "") if done.returncode == 0 else (None, done.stderr.strip())


def chelad_images():
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return base / "chela" / "images"


class Fleet(Hub):
    """Virtual machines of a hub."""

    def create(self, name, **spec):
        spec = {"driver": "qemu", "cpus": 1, "memory": MEMORY, "disk": "2G", **spec}
        answer = self.http.post("/machines", json={"name": name, **spec})
        assert answer.status_code == 202, answer.text

    def settled(self, name, want, seconds=120):
        """Wait until its state is `want`; the machine."""
        def look():
            answer = self.http.get(f"/machines/{name}", params={"wait": 10000})
            assert answer.status_code == 200, answer.text
            machine = answer.json()["machine"]
            assert machine["state"] != "failed" or want == "failed", (machine, self.logs(name))
            return machine if machine["state"] == want and machine["operation"] is None else None
        return eventually(look, seconds, 0.1)

    def logs(self, name):
        return self.http.get(f"/machines/{name}/logs", params={"lines": 60}).text

    def do(self, machine, what, want, **body):
        answer = self.http.post(f"/machines/{machine}/{what}", json=body)
        assert answer.status_code == 202, answer.text
        return self.settled(machine, want)

    def destroy(self, name):
        answer = self.http.delete(f"/machines/{name}")
        assert answer.status_code == 202, answer.text
        eventually(lambda: self.http.get(f"/machines/{name}").status_code == 404, 60)

    def result(self, name, type, **more):
        """The result of a task that must end well."""
        record = self.send(name, wait=60000, type=type, **more)
        assert record["status"] == "completed", json.dumps(record, indent=1)
        return record["response"]["result"]

    def run(self, name, command, **more):
        return self.result(name, "exec", command=command, **more)["stdout"]

    def snapshots(self, name):
        answer = self.http.get(f"/machines/{name}/snapshots")
        assert answer.status_code == 200, answer.text
        return {one["name"]: one for one in answer.json()["snapshots"]}

    def directory(self, name):
        return pathlib.Path(self.daemon.state) / "machines" / name


def each(function, names=NAMES):
    """Call it for all machines at once; what each call returned."""
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(function, names))


@pytest.fixture(scope="module")
def images():
    where, why = image()
    if not where:
        assert not os.environ.get("CHELA_CI"), why
        pytest.skip(f"no virtual machines: {why}")
    return where


@pytest.fixture(scope="module")
def fleet(store, scratch, images):
    from starter import Starter
    starter = Starter(store, scratch)
    yield Fleet(starter("--machine.accel=tcg", f"--machine.images={images}"))
    starter.stop()


@pytest.fixture(scope="module")
def guests(fleet):
    """Three machines that run, created at the same time."""
    began = time.monotonic()

    def make(name):
        fleet.create(name)
        machine = fleet.settled(name, "running")
        return machine, time.monotonic() - began
    made = each(make)
    print("create to running, three at once:", ", ".join(f"{seconds:.1f} s" for _, seconds in made))
    yield [machine for machine, _ in made]
    each(fleet.destroy)
    assert not any(fleet.directory(name).exists() for name in NAMES)


def test_three_virtual_machines_run_at_once(fleet, guests):
    for name, machine in zip(NAMES, guests):
        assert machine["driver"] == "qemu" and machine["accel"] == "tcg" and machine["online"], machine
        assert machine["agentId"] == name
    seen = each(lambda name: fleet.run(name, "hostname; cat /proc/sys/kernel/random/boot_id; nproc"))
    assert [text.split()[0] for text in seen] == NAMES
    assert len({text.split()[1] for text in seen}) == 3


def test_a_task_of_every_type(fleet, guests):
    """The types are shared out among the guests, which work at the same time."""
    shares = dict(zip(NAMES, (files, git, commands)))
    each(lambda name: shares[name](fleet, name))


def commands(fleet, name):
    assert fleet.run(name, "echo $((6 * 7)) $WHO", env={"WHO": "me"}) == "42 me"
    assert fleet.result(name, "script", script="console.log(process.argv[2] + '!')", args=["hi there"],
                        timeout=60000)["stdout"] == "hi there!"
    for type in ("build", "test", "deploy"):
        assert fleet.result(name, type, command="echo did it", cwd="/work")["stdout"] == "did it"


def files(fleet, name):
    blob = os.urandom(200_000)
    fleet.result(name, "file:write", filePath="/work/in/blob", encoding="base64",
                 content=base64.b64encode(blob).decode())
    back = fleet.result(name, "file:read", filePath="/work/in/blob", encoding="base64")
    assert base64.b64decode(back["content"]) == blob and back["size"] == len(blob)
    assert [one["name"] for one in fleet.result(name, "file:list", path="/work/in")["entries"]] == ["blob"]
    assert fleet.result(name, "file:stat", filePath="/work/in/blob")["size"] == len(blob)
    fleet.result(name, "file:delete", filePath="/work/in/blob")
    assert fleet.send(name, wait=30000, type="file:stat", filePath="/work/in/blob")["status"] == "failed"
    transfers(fleet, name)


def transfers(fleet, name):
    """A file in parts, with a checksum."""
    parts = [os.urandom(100_000) for _ in range(3)]
    whole = b"".join(parts)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        fleet.result(name, "file:write", filePath="/work/parts", encoding="base64", transferId="t1", final=last,
                     offset=number * 100_000, content=base64.b64encode(part).decode(),
                     **({"sha256": hashlib.sha256(whole).hexdigest()} if last else {}))
    assert fleet.run(name, "sha256sum /work/parts").split()[0] == hashlib.sha256(whole).hexdigest()


def git(fleet, name):
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x"}
    fleet.run(name, "git init -q --bare /work/bare && git init -q /work/one && cd /work/one && echo 1 > f && git add f && "
                    "git commit -qm first && git remote add origin /work/bare && git push -q origin main", env=who)
    assert fleet.result(name, "git:clone", repo="/work/bare", destination="/work/two")["branch"] == "default"
    fleet.run(name, "cd /work/two && echo 2 > f && git commit -qam second", env=who)
    fleet.result(name, "git:push", repoPath="/work/two")
    fleet.run(name, "cd /work/one && git fetch -q origin && git branch -q -u origin/main")
    fleet.result(name, "git:pull", repoPath="/work/one")
    assert fleet.run(name, "cat /work/one/f") == "2"


def test_snapshot_change_restore_and_the_bytes_and_processes_are_back(fleet, guests):
    """With the memory: a process that ran goes on, files are as they were, of three guests at once."""
    def life(name):
        before = hashlib.sha256(name.encode()).hexdigest() * 1000
        fleet.run(name, f"printf %s {before} > /work/kept; sync; "
                        "setsid sleep 100000 </dev/null >/dev/null 2>&1 & echo $! > /work/pid; mkdir -p /run/m && echo in memory > /run/m/note")
        fleet.do(name, "snapshots", "running", name="one")
        assert fleet.snapshots(name)["one"]["memory"] is True
        fleet.run(name, "echo changed > /work/kept; echo more > /work/new; rm -rf /run/m; kill $(cat /work/pid); sync")
        fleet.do(name, "restore", "running", snapshot="one")
        assert fleet.run(name, "cat /work/kept; test ! -e /work/new && echo gone") == before + "gone"
        assert fleet.run(name, "cat /run/m/note; kill -0 $(cat /work/pid) && echo alive") == "in memory\nalive"
        # and again, as changes after a restore are the next one's to undo
        fleet.run(name, "echo changed again > /work/kept; sync")
        fleet.do(name, "restore", "running", snapshot="one")
        assert fleet.run(name, "cat /work/kept") == before
    each(life)


def test_stop_start_and_a_snapshot_of_a_machine_that_is_off(fleet, guests):
    name = NAMES[1]
    fleet.run(name, "echo stays > /work/stays")  # no sync: the guest is asked to power off, and writes what it holds
    machine = fleet.do(name, "stop", "stopped")
    assert not machine["online"]
    fleet.do(name, "snapshots", "stopped", name="off")
    assert fleet.snapshots(name)["off"]["memory"] is False
    fleet.do(name, "start", "running")
    assert fleet.run(name, "cat /work/stays; echo changed > /work/stays; sync") == "stays"
    fleet.do(name, "restore", "running", snapshot="off")
    assert fleet.run(name, "cat /work/stays") == "stays"
    assert fleet.http.delete(f"/machines/{name}/snapshots/off").status_code in (200, 202)
    eventually(lambda: "off" not in fleet.snapshots(name), 30)
    answer = fleet.http.post(f"/machines/{name}/restore", json={"snapshot": "nothing"})
    if answer.status_code == 202:
        eventually(lambda: fleet.http.get(f"/machines/{name}").json()["machine"]["operation"] is None, 60)
        assert fleet.settled(name, "running")["reason"]
    else:
        assert answer.status_code in (400, 404, 409)


@pytest.fixture
def listeners():
    """Services on the host that a guest must not reach: on loopback and on every address."""
    sockets, hits = [], []

    def serve(sock):
        while True:
            try:
                peer, address = sock.accept()
            except OSError:
                return
            hits.append(address)
            peer.close()
    for host in ("127.0.0.1", "0.0.0.0"):
        sock = socket.create_server((host, 0))
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
        sockets.append(sock)
    yield [sock.getsockname()[1] for sock in sockets], hits
    for sock in sockets:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def test_a_guest_reaches_the_hub_and_nothing_else(fleet, guests, listeners):
    name = NAMES[2]
    ports, hits = listeners
    hub = int(fleet.daemon.ready["listeners"]["hub"].rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            mine = probe.getsockname()[0]
        except OSError:
            mine = "127.0.0.1"
    targets = [(host, port) for host in ("10.0.2.2", "10.0.2.3", "10.0.2.100", mine)
               for port in (*ports, hub, fleet.agents_port, 22, 53, 3128)]
    targets += [("1.1.1.1", 443), ("169.254.169.254", 80), ("10.0.2.16", 9090)]
    script = "\n".join(f"timeout 3 nc -w 2 {host} {port} </dev/null >/dev/null 2>&1 && echo REACHED {host} {port}"
                       for host, port in targets)
    text = fleet.run(name, f"{script}\nfor i in 1; do nslookup debian.org 10.0.2.3 >/dev/null 2>&1 && echo RESOLVED; done; echo done",
                     timeout=240000)
    assert text == "done", text
    assert not hits
    # the one way there is
    answer = fleet.run(name, "(printf 'GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n'; sleep 1) | nc -w 3 10.0.2.100 9090 | head -1")
    assert "426" in answer, answer


def test_the_token_is_in_no_command_line_and_in_no_file_that_others_may_read(fleet, guests):
    name = NAMES[0]
    seed = fleet.directory(name) / "seed.raw"
    assert seed.stat().st_mode & 0o777 == 0o600
    token = json.loads(seed.read_bytes().rstrip(b"\n"))["token"].encode()
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token not in entry.read_bytes(), entry
        except OSError:
            continue
    assert fleet.directory(name).stat().st_mode & 0o077 == 0


def qemu_of(directory):
    """The process directory of the QEMU of the machine that lies there."""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().startswith("qemu-system") and str(directory) in (entry / "cmdline").read_text():
                return entry
        except OSError:
            continue
    raise AssertionError(f"no QEMU runs of {directory}")


def test_qemu_can_change_its_disk_and_nothing_that_the_daemon_goes_by(fleet, guests):
    """Of the mounts of a QEMU that runs: what is there of the machine's directory, and what of it can be written."""
    if not shutil.which("bwrap"):
        assert not os.environ.get("CHELA_CI"), "bubblewrap is not installed"
        pytest.skip("bubblewrap is not installed")
    directory = fleet.directory(NAMES[0])
    qemu = qemu_of(directory)
    seen = {path.name for path in (qemu / "root" / directory.relative_to("/")).iterdir()}
    assert seen == {"disk.qcow2", "qmp", "run", "seed.raw"}
    mounts = [line.split()[4:6] for line in (qemu / "mountinfo").read_text().splitlines()]
    mine = {pathlib.Path(where).name: options.split(",")[0] for where, options in mounts if where.startswith(f"{directory}/")}
    assert mine == {"disk.qcow2": "rw", "qmp": "rw", "run": "ro", "seed.raw": "ro"}
    assert (directory / "qemu.json").exists() and (directory / "shim.sock").exists()


def test_a_disk_that_names_a_file_of_the_host_gets_it_from_nobody(start, images, tmp_path):
    """As a QEMU that was taken over could leave it: neither qemu-img nor the next QEMU opens what the header names."""
    if not shutil.which("bwrap"):
        assert not os.environ.get("CHELA_CI"), "bubblewrap is not installed"
        pytest.skip("bubblewrap is not installed")
    fleet = Fleet(start("--machine.accel=tcg", f"--machine.images={images}"))
    fleet.create("taken")
    fleet.settled("taken", "running")
    fleet.do("taken", "stop", "stopped", force=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    disk = fleet.directory("taken") / "disk.qcow2"
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, disk], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "outside", disk], check=True)  # whom nobody holds finds it
    fleet.http.post("/machines/taken/snapshots", json={"name": "never"})
    reason = eventually(lambda: fleet.http.get("/machines/taken").json()["machine"]["reason"], 60)
    assert "secret" in reason and "No such file" in reason, reason
    assert fleet.snapshots("taken") == {}
    fleet.http.post("/machines/taken/start", json={})
    eventually(lambda: fleet.http.get("/machines/taken").json()["machine"]["state"] == "failed", 60)
    assert "No such file" in fleet.logs("taken"), fleet.logs("taken")
    fleet.destroy("taken")
    # the monitor's place is QEMU's: a link there is not followed, whatever it leads to
    fleet.create("linked")
    fleet.settled("linked", "running")
    monitor = fleet.directory("linked") / "qmp" / "sock"
    monitor.rename(monitor.with_name("away"))
    monitor.symlink_to(monitor.with_name("away"))
    fleet.http.post("/machines/linked/snapshots", json={"name": "never"})
    reason = eventually(lambda: fleet.http.get("/machines/linked").json()["machine"]["reason"], 60)
    assert "is no socket" in reason, reason
    fleet.destroy("linked")


def test_a_daemon_that_is_killed_finds_its_machines_again(start, images):
    daemon = start("--machine.accel=tcg", f"--machine.images={images}")
    fleet = Fleet(daemon)
    fleet.create("keeper")
    fleet.settled("keeper", "running")
    boot = fleet.run("keeper", "cat /proc/sys/kernel/random/boot_id")
    daemon.kill()
    again = Fleet(start("--machine.accel=tcg", f"--machine.images={images}", state=daemon.state))
    again.settled("keeper", "running")
    again.online("keeper")
    assert again.run("keeper", "cat /proc/sys/kernel/random/boot_id") == boot
    # a QEMU that dies is noticed, and one that shall run is started again
    pid = json.loads(subprocess.run(["pgrep", "-f", "-o", f"qemu-system-x86_64 -name keeper.*{daemon.state}"],
                                    capture_output=True, text=True).stdout or "0")
    assert pid, "no QEMU"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: again.http.get("/machines/keeper").json()["machine"]["state"] != "running", 30)
    eventually(lambda: again.http.get("/machines/keeper").json()["machine"]["state"] == "running", 90)
    again.online("keeper")
    assert again.run("keeper", "cat /proc/sys/kernel/random/boot_id") != boot
    again.destroy("keeper")


def test_kvm_is_used_only_where_a_probe_guest_has_run(start, images, tmp_path):
    """A device that opens is no proof: the probe decides, within its time, and the verdict is kept."""
    own = tmp_path / "images"
    own.mkdir()
    (own / "minimal").symlink_to((images / "minimal").resolve())
    fleet = Fleet(start("--machine.accel=auto", f"--machine.images={own}"))
    fleet.create("prober")
    machine = fleet.settled("prober", "running")
    works = False
    if os.path.exists("/dev/kvm") and os.access("/dev/kvm", os.R_OK | os.W_OK):
        verdict = json.loads((own / "kvm.json").read_text())
        works = verdict["works"]
        assert works or verdict["why"]
    assert machine["accel"] == ("kvm" if works else "tcg")
    fleet.destroy("prober")


def test_a_cloud_image_gets_a_disk_for_cloud_init_that_holds_no_token(start, tmp_path):
    """The content of the disk; test_cloud_image.py boots a distribution with it."""
    if not shutil.which("qemu-system-x86_64") or not shutil.which("isoinfo"):
        assert not os.environ.get("CHELA_CI"), "qemu-system-x86_64 or isoinfo is not installed"
        pytest.skip("qemu-system-x86_64 or isoinfo is not installed")
    (tmp_path / "some-cloud.raw").write_bytes(b"\0" * 4_194_304)
    fleet = Fleet(start("--machine.accel=tcg", f"--machine.images={tmp_path}"))
    fleet.create("cloudy", image="some-cloud")
    seed = fleet.directory("cloudy") / "seed.iso"
    eventually(seed.exists, 30)
    assert seed.stat().st_mode & 0o777 == 0o600
    token = json.loads((fleet.directory("cloudy") / "seed.raw").read_bytes().rstrip(b"\n"))["token"]
    assert token.encode() not in seed.read_bytes()

    def member(name):
        return subprocess.run(["isoinfo", "-i", seed, "-x", f"/{name}"], capture_output=True, check=True).stdout
    assert json.loads(member("meta-data"))["local-hostname"] == "cloudy"
    head, body = member("user-data").split(b"\n", 1)
    data = json.loads(body)
    assert head == b"#cloud-config" and data["users"][0]["name"] == "vm-agent" and "sudo" not in data["users"][0]
    unit = next(one["content"] for one in data["write_files"] if one["path"].endswith("vm-agent.service"))
    assert "User=vm-agent" in unit and "NoNewPrivileges=yes" in unit
    assert member("chela-agent") == (pathlib.Path(os.environ["CHELA_BIN"]) / "chela-agent-static").read_bytes()
    fleet.destroy("cloudy")
    assert not seed.exists()
