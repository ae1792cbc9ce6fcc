# SPDX-License-Identifier: MIT
"""vm-agent, the original's command line, on sandboxes: every command, its texts, its exit codes."""

import hashlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from fcntl import ioctl

import chelad
import pytest
from hubtool import Hub, name
from wait import eventually

pytestmark = pytest.mark.xdist_group("vm-agent")
HERE = pathlib.Path(__file__).resolve().parent
CREATE_AGENT = HERE.parents[1] / "packaging" / "provisioning" / "create-agent.sh"


@pytest.fixture(scope="module")
def home(scratch):
    path = scratch / "vm-home"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def vm_env(daemon, home):
    return {"CHELA_STATE": str(daemon.state)}


@pytest.fixture(scope="module")
def vm(vm_env, home):
    """vm("list"): runs vm-agent against the module's daemon."""
    def run(*arguments, env=None, **options):
        return chelad.run("vm-agent", *arguments, env={**vm_env, **(env or {})}, home=home, **options)
    return run


@pytest.fixture(scope="module")
def hub(daemon):
    return Hub(daemon)


@pytest.fixture(scope="module")
def box(vm):
    """A sandbox that the tests share."""
    machine = name("box")
    done = vm("create", machine, "--type", "builder", "--capabilities", "build,docker")
    assert done.returncode == 0, done.stderr
    yield machine
    assert vm("destroy", machine, "--force").returncode == 0


# --- how it is called ---

def test_without_a_command_it_helps_on_standard_error(vm):
    done = vm()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Usage: vm-agent [options] [command]")


@pytest.mark.parametrize("words", [("--help",), ("help",), ("-h",)], ids=" ".join)
def test_help_that_is_asked_for_is_the_answer(vm, words):
    done = vm(*words)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("create", "list", "status", "exec", "logs", "snapshot", "restore", "start", "stop",
                    "shell", "destroy", "task", "cp", "top", "events", "drain", "profiles", "hub"):
        assert re.search(rf"^  {command}\b", done.stdout, re.M), command


@pytest.mark.parametrize("words", [("create", "--help"), ("help", "create"), ("create", "x", "-h")], ids=" ".join)
def test_help_of_a_command(vm, words):
    done = vm(*words)
    assert done.returncode == 0
    assert "Usage: vm-agent create [options] <name>" in done.stdout
    assert re.search(r"-m, --memory <size> +Memory size \(default: \"4G\"\)", done.stdout)


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(vm, flag):
    assert vm(flag).stdout == "1.0.0\n"


@pytest.mark.parametrize("words,text", [
    (("lsit",), "error: unknown command 'lsit'\n(Did you mean list?)\n"),
    (("star",), "error: unknown command 'star'\n(Did you mean start?)\n"),
    (("frobnicate",), "error: unknown command 'frobnicate'\n"),
    (("status",), "error: missing required argument 'name'\n"),
    (("restore", "x"), "error: missing required argument 'snapshot-name'\n"),
    (("exec", "x"), "error: missing required argument 'command'\n"),
    (("task", "x"), "error: missing required argument 'task-json'\n"),
    (("list", "--all"), "error: unknown option '--all'\n"),
    (("list", "-x"), "error: unknown option '-x'\n"),
    (("create", "x", "--type"), "error: option '-t, --type <type>' argument missing\n"),
    (("--frob",), "error: unknown option '--frob'\n"),
    (("--vesrion",), "error: unknown option '--vesrion'\n(Did you mean --version?)\n"),
    (("create", "x", "--tpye", "y"), "error: unknown option '--tpye'\n(Did you mean --type?)\n"),
    (("profiles", "frob"), "error: unknown command 'frob'\n"),
], ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_what_it_cannot_take(vm, words, text):
    done = vm(*words)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", text)


def test_an_option_inside_the_command_wants_two_dashes(vm, box):
    done = vm("exec", box, "ls", "-la")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown option '-la'\n")
    assert vm("exec", box, "--", "ls", "-la").returncode == 0
    assert vm("exec", box, "ls -la").returncode == 0


@pytest.mark.parametrize("words", [("list",), ("status", "x"), ("exec", "x", "true"), ("task", "x", "{}"),
                                   ("create", "x")], ids=" ".join)
def test_without_a_hub(vm, words):
    done = vm(*words, env={"VM_AGENT_HUB_URL": "http://127.0.0.1:9"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "Is the hub running?" in done.stderr
    if words == ("list",):
        assert done.stderr.startswith("Error fetching agents: ")


def test_a_token_for_a_hub_elsewhere(vm, start, scratch):
    daemon = start(env={"HUB_ADMIN_TOKEN": "the-token"})
    env = {"VM_AGENT_HUB_URL": f"http://{daemon.ready['listeners']['hub']}", "CHELA_STATE": "/nonexistent"}
    done = vm("list", env=env)
    assert done.returncode == 1 and "Unauthorized" in done.stderr
    env["HUB_ADMIN_TOKEN"] = "the-token"
    done = vm("list", env=env)
    assert (done.returncode, done.stdout) == (0, "No agents registered\n")
    machine = name("far")
    assert vm("create", machine, env=env).returncode == 0
    assert vm("exec", machine, "echo far; exit 2", env=env).returncode == 2
    assert vm("shell", machine, env=env, text="exit 3\n").returncode == 3
    env["HUB_ADMIN_TOKEN"] = "another-token"
    assert vm("shell", machine, env=env, text="exit 3\n").returncode == 1


# --- a machine's life ---

def test_a_life(vm):
    machine = name("life")
    done = vm("create", machine, "-t", "tester", "-c1", "-m", "1G", "--disk=2G")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"- Creating agent {machine}...\n")
    assert done.stderr.endswith(f"✔ Agent {machine} created successfully\n")
    row = json.loads(vm("list", "--json", "--type", "tester").stdout)["agents"]
    assert [one["id"] for one in row] == [machine] and row[0]["metadata"]["memory"] == "1G"

    done = vm("exec", machine, "echo one > /work/file; cat /work/file")
    assert (done.returncode, done.stdout) == (0, "one\n")
    done = vm("snapshot", machine, "before")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("✔ Snapshot created: before\n")
    done = vm("snapshot", machine)
    assert re.search(r"✔ Snapshot created: snapshot-\d{13}\n$", done.stderr)
    assert vm("exec", machine, "echo two > /work/file").returncode == 0
    done = vm("restore", machine, "before")
    assert done.returncode == 0, done.stderr
    assert "✔ Agent restored from snapshot: before\n" in done.stderr
    assert done.stderr.endswith("✔ Agent service restarted\n")
    assert vm("exec", machine, "cat /work/file").stdout == "one\n"
    assert vm("restore", machine, "never").returncode == 1

    done = vm("stop", machine)
    assert done.returncode == 0 and done.stderr.endswith(f"✔ Agent {machine} stopped\n")
    done = vm("exec", machine, "true")
    assert done.returncode == 1 and "start it first" in done.stderr
    done = vm("start", machine)
    assert done.returncode == 0
    assert f"✔ Agent {machine} started\n" in done.stderr and done.stderr.endswith("✔ Agent is ready\n")
    assert vm("exec", machine, "cat /work/file").stdout == "one\n"

    done = vm("logs", machine, "-n", "3")
    assert done.returncode == 0 and 1 <= len(done.stdout.splitlines()) <= 3
    assert vm("logs", machine, "--lines", "many").returncode == 1

    done = vm("destroy", machine, text="n\n")
    assert done.returncode == 0
    assert done.stdout == f"Are you sure you want to destroy agent {machine}? (y/N) Aborted\n"
    assert vm("destroy", machine, text="").returncode == 1  # nobody has said yes
    assert vm("status", machine).returncode == 0
    done = vm("destroy", machine, text="y\n")
    assert done.returncode == 0 and done.stderr.endswith(f"✔ Agent {machine} destroyed successfully\n")
    done = vm("status", machine)
    assert (done.returncode, done.stderr) == (1, f"Agent {machine} not found\n")


def test_create_says_why_it_fails(vm, box):
    done = vm("create", box)
    assert done.returncode == 1 and "✖ Failed to create agent\n" in done.stderr and "already" in done.stderr
    for words in ((box + "x", "--cpu", "many"), ("1x",), (box + "x", "--profile", "none"), ("a b",)):
        done = vm("create", *words)
        assert done.returncode == 1 and done.stderr.strip(), words
    assert len(json.loads(vm("list", "--json", "--type", "generic").stdout)["agents"]) == 0


def test_what_could_not_be_made_does_not_stay(vm, hub):
    machine = name("half")
    done = vm("create", machine, "--driver", "qemu", "--image", "no-such-image")
    assert done.returncode == 1 and "no-such-image" in done.stderr and "✖ Failed to create agent\n" in done.stderr
    assert vm("status", machine).returncode == 1
    assert machine not in json.dumps(hub.http.get("/machines").json())


@pytest.mark.parametrize("program", ["vm-agent", "chela"])
def test_ctrl_c_while_a_machine_is_made_says_how_it_is_and_what_removes_it(start, home, tmp_path, program):
    (tmp_path / "silent").write_text("#!/bin/sh\nsleep 1000\n")  # an agent that never says hello
    (tmp_path / "silent").chmod(0o755)
    daemon = start(f"--machine.agent_program={tmp_path}/silent")
    env, machine = {"CHELA_STATE": str(daemon.state)}, name("cut")
    hub = Hub(daemon)

    def look():
        return hub.http.get(f"/machines/{machine}").json().get("machine", {})
    words, verbs = (["create"], "vm-agent") if program == "vm-agent" else (["machine", "create"], "chela machine")
    child = subprocess.Popen([chelad.BIN / program, *words, machine], env=chelad.environment(home, env),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: look().get("state") == "creating", 30)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert f"interrupted: machine '{machine}' is creating, and the hub goes on with it (" in err
    assert f"'{verbs} destroy {machine}' removes it)\n" in err and "Failed" not in err
    assert look()["state"] == "creating"
    done = chelad.run(program, *words[:-1], "destroy", machine, "--force", env=env, home=home)
    assert done.returncode == 0, done.stderr
    assert look() == {}


def test_list_is_drawn_with_rules(vm, box):
    lines = vm("list").stdout.splitlines()
    assert lines[0].startswith("┌─") and lines[0].endswith("─┐")
    titles = [cell.strip() for cell in lines[1].strip("│").split("│")]
    assert titles == ["Name", "Status", "Type", "CPU", "Memory", "Tasks", "Uptime"]
    assert lines[2].startswith("├─") and lines[-3].startswith("└─")
    row = next(line for line in lines if box in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:3] == [box, "online", "builder"]
    assert len({len(line) for line in lines[:-2]}) == 1
    assert lines[-2] == "" and re.fullmatch(r"Total: \d+ agents", lines[-1])
    assert vm("list", "--status", "offline").stdout.endswith("Total: 0 agents\n")


def test_status(vm, box, hub):
    eventually(lambda: hub.agent(box)["health"]["cpu"] is not None)
    done = vm("status", box)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1] == f"╔═══ Agent Status: {box} ═══╗"
    assert lines[-1] == "╚" + "═" * (len(box) + 20) + "╝"
    for text in ("Status:        online", "Type:          builder", "IP:            N/A", "Statistics:",
                 "Active Tasks: none", "Capabilities: build, docker"):
        assert text in done.stdout, text
    assert re.search(r"CPU: +2 cores \([\d.]+% used\)", done.stdout)
    assert re.search(r"Memory: +4G \([\d.]+% used\)", done.stdout)
    assert json.loads(vm("status", box, "--json").stdout)["id"] == box


def test_status_of_an_agent_that_says_odd_things(vm, hub):
    agent = name("odd")
    hub.register(agent, type="\x1b[31mred", capabilities={"no": "list"}, memory=5, cpu="many")
    done = vm("status", agent)
    assert done.returncode == 0, done.stderr
    assert vm("list").returncode == 0
    done = vm("destroy", agent, "-f")
    assert done.returncode == 0 and "no machine" in done.stderr


# --- exec ---

def test_the_output_and_the_status_of_a_command(vm, box):
    done = vm("exec", box, "echo", "out;", "echo", "err", ">&2;", "exit", "3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert done.stderr == f"Executing in {box}: echo out; echo err >&2; exit 3\nerr\nCommand failed\n"


def test_nothing_of_a_command_happens_on_the_host(vm, box, tmp_path):
    mark = tmp_path / "mark"
    done = vm("exec", box, f"cd /tmp && touch {mark} || echo inside")
    assert done.stdout == "inside\n" and not mark.exists()
    done = vm("exec", f"x; touch {mark}", "true")
    assert done.returncode == 1 and not mark.exists()


def test_long_output_comes_whole(vm, box):
    done = vm("exec", box, "seq 1 200000")
    assert done.returncode == 0
    assert done.stdout == "".join(f"{n}\n" for n in range(1, 200001))


def test_a_late_command_is_ended(vm, box):
    done = vm("exec", box, "--timeout", "300", "echo begun; sleep 60")
    assert (done.returncode, done.stdout) == (124, "begun\n")
    assert "timed out" in done.stderr


def test_a_signal_is_a_status(vm, box):
    assert vm("exec", box, "kill -9 $$").returncode == 128 + 9


def test_exec_as_json(vm, box):
    done = vm("exec", box, "--json", "echo hi; exit 4")
    assert done.returncode == 4
    assert json.loads(done.stdout)["response"]["result"]["exitCode"] == 4


def test_ctrl_c_ends_the_command_there(vm, vm_env, home, box, hub):
    child = subprocess.Popen([chelad.BIN / "vm-agent", "exec", box, "echo begun; exec sleep 1000"], stdin=subprocess.DEVNULL,
                             env=chelad.environment(home, vm_env), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    child.stdout.close()
    child.stderr.close()
    newest = hub.http.get(f"/agents/{box}/tasks").json()["tasks"][0]
    assert newest["status"] == "canceled"
    assert vm("exec", box, "pgrep -x sleep || echo none").stdout == "none\n"


def test_a_command_reads_our_standard_input(vm, vm_env, home, box, tmp_path):
    done = vm("exec", box, "--", "cat; echo end", text="hi\nyou\n")
    assert (done.returncode, done.stdout) == (0, "hi\nyou\nend\n")
    assert vm("exec", box, "--", "cat; echo end").stdout == "end\n"
    raw = bytes(range(256)) * 8192  # 2 MiB, no text
    (tmp_path / "raw").write_bytes(raw)
    for program in (["vm-agent", "exec", box, "--", "sha256sum"], ["chela", "machine", "exec", box, "sha256sum"]):
        with open(tmp_path / "raw", "rb") as file:
            done = subprocess.run([chelad.BIN / program[0], *program[1:]], env=chelad.environment(home, vm_env), stdin=file,
                                  capture_output=True, timeout=60)
        assert done.stdout.split()[0].decode() == hashlib.sha256(raw).hexdigest(), done.stderr
    (tmp_path / "raw").write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    with open(tmp_path / "raw", "rb") as file:
        done = subprocess.run([chelad.BIN / "vm-agent", "exec", box, "true"], env=chelad.environment(home, vm_env), stdin=file,
                              capture_output=True, timeout=60)
    assert done.returncode == 1 and b"standard input" in done.stderr


def test_a_pipe_that_nobody_writes_to_keeps_no_command_from_running(vm_env, home, box):
    quiet, ours = os.pipe()
    try:
        done = subprocess.run([chelad.BIN / "vm-agent", "exec", box, "echo ran"], env=chelad.environment(home, vm_env),
                              stdin=quiet, capture_output=True, text=True, timeout=60)
    finally:
        os.close(quiet)
        os.close(ours)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "nothing has come on standard input" in done.stderr


def test_sudo_is_refused_in_words(vm, box):
    done = vm("exec", box, "--sudo", "id")
    assert done.returncode == 1 and "udo" in done.stderr


# --- task ---

def test_a_task_and_its_result(vm, box):
    done = vm("task", box, '{"type":"exec","command":"echo Hello from VM"}')
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(r"✔ Task sent: [0-9a-f-]{36}\n$", done.stderr)
    done = vm("task", box, '{"type":"exec","command":"echo Hello"}', "--wait")
    assert done.returncode == 0 and done.stderr.endswith("✔ Task completed\n")
    assert json.loads(done.stdout)["result"]["stdout"] == "Hello"
    done = vm("task", box, '{"type":"nonsense"}', "--wait")
    assert done.returncode == 1 and "✖ Task failed: Unknown task type: nonsense\n" in done.stderr
    assert json.loads(done.stdout)["success"] is False
    done = vm("task", box, '{"type":"exec","command":"sleep 5"}', "--wait", "--timeout", "200")
    assert (done.returncode, done.stdout) == (124, "")


def test_a_task_that_cannot_be_sent(vm, box):
    done = vm("task", box, "{bad")
    assert done.returncode == 1 and done.stderr.startswith("Invalid JSON: ")
    done = vm("task", "nobody", "{}")
    assert done.returncode == 1
    assert done.stderr.endswith('✖ Failed to send task\nError: HTTP 404: {"error":"Agent not found"}\n')


# --- files ---

def test_a_tree_goes_there_and_comes_back(vm, box, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "it's a \"name\" $(x)").write_text("odd\n")
    (tree / "none").write_bytes(b"")
    (tree / "sub" / "large").write_bytes(os.urandom(2_500_000))
    (tree / "sub" / "run").write_text("#!/bin/sh\n")
    (tree / "sub" / "run").chmod(0o750)
    (tree / "link").symlink_to("none")
    done = vm("cp", tree, f"{box}:/work/")
    assert done.returncode == 0, done.stderr
    assert "left out: /work/tree/link (a symbolic link)" in done.stderr
    assert done.stderr.endswith("✔ Copied 4 files, 2500014 bytes\n")
    done = vm("cp", f"{box}:/work/tree", tmp_path / "back", "--json")
    assert json.loads(done.stdout) == {"files": 4, "bytes": 2500014, "leftOut": 0}
    (tree / "link").unlink()
    assert subprocess.run(["diff", "-r", tree, tmp_path / "back"]).returncode == 0
    assert (tmp_path / "back" / "sub" / "run").stat().st_mode & 0o777 == 0o750


def test_one_file_into_a_directory_and_under_another_name(vm, box, tmp_path):
    (tmp_path / "file").write_text("text\n")
    assert vm("cp", tmp_path / "file", f"{box}:/tmp").returncode == 0
    assert vm("cp", f"{box}:/tmp/file", tmp_path / "other").returncode == 0
    assert (tmp_path / "other").read_text() == "text\n"
    assert vm("cp", f"{box}:/tmp/file", tmp_path).returncode == 0


def test_what_cannot_be_copied(vm, box, tmp_path):
    done = vm("cp", f"{box}:/nowhere", tmp_path)
    assert done.returncode == 1 and "no such file" in done.stderr
    assert vm("cp", tmp_path / "nowhere", f"{box}:/tmp").returncode == 1
    assert vm("cp", "a", "b").returncode == 1
    assert vm("cp", f"{box}:/tmp/x", f"{box}:/tmp/y").returncode == 1
    assert vm("cp", f"{box}:/dev/null", tmp_path / "null").returncode == 1
    assert list(tmp_path.iterdir()) == []


# --- shell ---

class Terminal:
    """vm-agent shell on a terminal of its own."""

    def __init__(self, env, home, *words):
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        self.slave, self.before = slave, termios.tcgetattr(slave)
        self.child = subprocess.Popen([chelad.BIN / "vm-agent", "shell", *words], stdin=slave, stdout=slave,
                                      stderr=slave, env=chelad.environment(home, {**env, "TERM": "xterm"}),
                                      start_new_session=True, preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0))
        self.seen = b""

    def resize(self, rows, cols):
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, text, seconds=30):
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(text.encode())[2]

    def ended(self):
        status = self.child.wait(30)
        after = termios.tcgetattr(self.slave)
        os.close(self.master)
        os.close(self.slave)
        assert after == self.before, "the terminal is not as it was"
        return status


def test_a_shell_on_a_terminal(vm_env, home, box):
    terminal = Terminal(vm_env, home, box)
    terminal.type("stty size; echo term=$TERM\r")
    terminal.expect("30 100")
    terminal.expect("term=xterm")
    terminal.resize(40, 120)
    terminal.type("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.05; done; echo re''sized\r")
    terminal.expect("resized")
    terminal.type("sleep 1000\r")
    time.sleep(0.2)
    terminal.type("\x03")  # goes to the command there, not to us
    terminal.type("echo still h''ere; exit 7\r")
    terminal.expect("still here")
    assert terminal.ended() == 7


def test_a_shell_whose_machine_goes_leaves_the_terminal_well(vm, vm_env, home):
    machine = name("going")
    assert vm("create", machine).returncode == 0
    terminal = Terminal(vm_env, home, machine)
    terminal.type("echo re''ady\r")
    terminal.expect("ready")
    assert vm("destroy", machine, "-f").returncode == 0
    assert terminal.ended() != 0


def test_a_shell_that_is_killed_leaves_the_terminal_well(vm_env, home, box):
    terminal = Terminal(vm_env, home, box)
    terminal.type("echo re''ady\r")
    terminal.expect("ready")
    terminal.child.send_signal(signal.SIGTERM)
    assert terminal.ended() == 130


def test_a_shell_from_a_pipe(vm, box):
    done = vm("shell", box, text="echo in; exit 5\n")
    assert done.returncode == 5 and "in" in done.stdout


def test_a_shell_of_nobody(vm):
    done = vm("shell", "nobody")
    assert done.returncode == 1 and done.stderr


# --- looking on, taking out of service ---

def test_drain_keeps_tasks_back(vm, box, hub):
    assert vm("drain", box).returncode == 0
    task = hub.send(box, type="exec", command="true")
    time.sleep(0.1)
    assert hub.task(task, 100)["status"] == "queued"
    assert "gets no new tasks" in vm("status", box).stdout
    assert vm("drain", box, "--off").returncode == 0
    assert hub.ended(task)["status"] == "completed"


def test_top(vm, box):
    done = vm("top", "--once")
    assert done.returncode == 0
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith(box))
    assert row[1] == "online"


def test_events(vm_env, home, box, hub):
    """Each task is seen with all that is told of it."""
    child = subprocess.Popen([chelad.BIN / "vm-agent", "events", "--json"], stdout=subprocess.PIPE,
                             env=chelad.environment(home, vm_env), text=True)
    try:
        task = None
        while True:  # the stream is open once a task is seen in it
            if task is None or hub.task(task, 2000)["status"] == "completed":
                task = hub.send(box, type="exec", command="true")
            if select.select([child.stdout], [], [], 0.5)[0]:
                break
        task, seen = hub.send(box, type="exec", command="true"), {}
        while "task.ended" not in seen:
            event = json.loads(child.stdout.readline())
            if event.get("taskId") == task:
                seen[event["type"]] = event
        assert set(seen) >= {"task.queued", "task.running", "task.ended"}
        assert seen["task.queued"]["taskType"] == "exec" and seen["task.ended"]["status"] == "completed"
        assert seen["task.queued"]["seq"] < seen["task.running"]["seq"] < seen["task.ended"]["seq"]
    finally:
        child.terminate()
        child.wait(30)
        child.stdout.close()


# --- profiles ---

def test_profiles_that_come_with_it(vm):
    listed = {one["name"]: one["profile"]["resources"] for one in json.loads(vm("profiles", "list", "--json").stdout)["profiles"]}
    assert listed["builder"] == {"cpu": 4, "memory": "8G", "disk": "30G"}
    assert listed["deployer"] == {"cpu": 2, "memory": "4G", "disk": "20G"}
    assert listed["docker-host"] == {"cpu": 4, "memory": "8G", "disk": "40G"}
    assert listed["researcher"] == {"cpu": 2, "memory": "6G", "disk": "25G"}
    assert listed["tester"] == {"cpu": 2, "memory": "4G", "disk": "20G"}
    other = chelad.run("vm-agent-profiles", "show", "builder", env={}, home="/nonexistent")
    assert json.loads(other.stdout)["name"] == "builder"
    assert vm("profiles", "show", "none").returncode == 1
    assert vm("profiles", "delete", "builder", "--force").returncode == 1


def test_a_profile_of_ones_own(vm):
    assert vm("profiles", "create", "mine", "--cpu", "3", "--description", "what I want").returncode == 0
    assert vm("profiles", "create", "mine").returncode == 1
    assert vm("profiles", "create", "mine", "--memory", "1G", "--force").returncode == 0
    shown = json.loads(vm("profiles", "show", "mine").stdout)
    assert shown["resources"] == {"cpu": 2, "memory": "1G", "disk": "20G"}
    assert "mine" in vm("profiles", "list").stdout
    assert vm("profiles", "delete", "mine").returncode == 1
    assert vm("profiles", "delete", "mine", "--force").returncode == 0
    assert vm("profiles", "create", "../mine").returncode == 1


def profile(path, **parts):
    path.write_text(json.dumps({"name": "p", "resources": {"cpu": 1, "memory": "512M", "disk": "1G"}, **parts}))
    return path


def test_a_machine_with_a_profile(vm, tmp_path):
    machine = name("profiled")
    file = profile(tmp_path / "p.json", environment={"FLAVOUR": "wild"},
                   files=[{"path": "/work/etc/app.conf", "content": "x = ż\n", "mode": "0600"}],
                   setup_tasks=[{"type": "exec", "command": "cp /work/etc/app.conf /work/copy", "description": "copy it"}])
    done = vm("create", machine, "--profile", file, "--memory", "256M")
    assert done.returncode == 0, done.stderr
    metadata = json.loads(vm("status", machine, "--json").stdout)["metadata"]
    assert (metadata["cpu"], metadata["memory"]) == (1, "256M")  # what is given wins
    done = vm("exec", machine, "echo $FLAVOUR; cat /work/copy; stat -c %a /work/etc/app.conf")
    assert done.stdout == "wild\nx = ż\n600\n"
    assert vm("destroy", machine, "-f").returncode == 0


def test_steps_of_a_profile_that_fail_are_told(vm, tmp_path):
    machine = name("profiled")
    file = profile(tmp_path / "p.json", packages=["jq", "git"], files=[{"path": "/proc/nothing", "content": ""}],
                   repositories=[{"url": "ext::sh -c true", "destination": "/work/r"}],
                   setup_tasks=[{"type": "exec", "command": "exit 3", "description": "the third"},
                                {"type": "exec", "command": "touch /work/last"}])
    done = vm("create", machine, "--profile", file)
    assert done.returncode == 1
    for text in ("⚠ failed: packages: ", "⚠ failed: file /proc/nothing: ", "⚠ failed: repository ext::",
                 "⚠ failed: the third: ", "Error: 4 steps of profile"):
        assert text in done.stderr, text
    assert vm("exec", machine, "test -e /work/last").returncode == 0  # what comes behind is done all the same
    assert vm("destroy", machine, "-f").returncode == 0


def create_agent(vm_env, home, *words, text=None):
    env = chelad.environment(home, {**vm_env, "VM_AGENT": str(chelad.BIN / "vm-agent")})
    return subprocess.run([CREATE_AGENT, *words], env=env, input=text, capture_output=True, text=True, timeout=60)


def test_the_originals_provisioning_script(vm, vm_env, home):
    machine = name("scripted")
    flags = ("--name", machine, "--type", "builder", "--cpu", "2", "--memory", "4G", "--disk", "20G",
             "--capabilities", "build,docker,deploy")
    done = create_agent(vm_env, home, *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(vm("status", machine, "--json").stdout)["metadata"]["capabilities"] == ["build", "docker", "deploy"]
    assert create_agent(vm_env, home, *flags, text="n\n").returncode == 1
    assert create_agent(vm_env, home, *flags, text="").returncode == 1
    assert create_agent(vm_env, home, *flags, text="y\n").returncode == 0
    assert create_agent(vm_env, home, "--type", "builder").returncode == 1
    assert create_agent(vm_env, home, "--name", "x", "--frob").returncode == 1
    assert create_agent(vm_env, home, "--name", "x", "--profile", "/none.json").returncode == 1
    assert vm("destroy", machine, "-f").returncode == 0


# --- what goes on until it is ended ---

class Running:
    """A command of vm-agent whose output is read line by line."""

    def __init__(self, env, home, *words):
        self.child = subprocess.Popen([chelad.BIN / "vm-agent", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                      env=chelad.environment(home, env), text=True)

    def __enter__(self):
        return self

    def line(self, text, seconds=30):
        """Read on until a line has that text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            line = self.child.stdout.readline()
            assert line, "it has ended"
            if text in line:
                return line
        raise AssertionError(f"no {text!r}")

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait(30)
        self.child.stdout.close()


def test_logs_are_followed(vm, vm_env, home):
    machine = name("logged")
    assert vm("create", machine).returncode == 0
    with Running(vm_env, home, "logs", machine, "--follow") as logs:
        logs.line('"msg":"connected"')
        assert vm("stop", machine).returncode == 0
        logs.line('"msg":"stopping"')
        assert vm("start", machine).returncode == 0
        logs.line('"msg":"connected"')
    assert vm("destroy", machine, "-f").returncode == 0


def test_status_is_watched(vm, vm_env, home, box):
    with Running(vm_env, home, "status", box, "--watch") as status:
        status.line(f"Agent Status: {box}")
        assert vm("drain", box).returncode == 0
        status.line("gets no new tasks")
    assert vm("drain", box, "--off").returncode == 0


# --- the same in chela's words ---

def test_chela_machine(vm_env, home, tmp_path):
    def chela(*words, **options):
        return chelad.run("chela", *words, env=vm_env, home=home, **options)
    machine = name("own")
    done = chela("machine", "create", machine, "--cpus=1", "--memory=256M", "--disk=1G", "--env=A=1,B=x y")
    assert (done.returncode, done.stdout) == (0, f"created {machine} (sandbox)\n")
    assert chela("machine", "exec", machine, "echo", "$A", "-n", "$B").stdout == "1 -n x y\n"
    assert chela("machine", "exec", "--cwd=/tmp", "--timeout=5s", machine, "pwd").stdout == "/tmp\n"
    assert chela("machine", "exec", "--timeout=200ms", machine, "sleep 60").returncode == 124
    shown = json.loads(chela("machine", "show", machine, "--json").stdout)
    assert (shown["state"], shown["memory"]) == ("running", "256M")
    row = next(line.split() for line in chela("machine", "ls").stdout.splitlines() if line.startswith(machine))
    assert row[1:5] == ["sandbox", "running", "yes", "1"]
    assert chela("machine", "snapshot", machine, "s1").stdout == f"snapshot s1 of {machine}\n"
    assert chela("machine", "snapshot", machine, "s1").returncode == 1
    assert [one["name"] for one in json.loads(chela("machine", "snapshots", machine, "--json").stdout)["snapshots"]] == ["s1"]
    assert chela("machine", "restart", machine).stdout == f"restarted {machine}\n"
    assert chela("machine", "restore", machine, "s1").stdout == f"restored s1 of {machine}\n"
    assert chela("machine", "forget", machine, "s1").stdout == "forgot s1\n"
    assert chela("machine", "restore", machine, "s1").returncode in (1, 3)
    (tmp_path / "f").write_text("x")
    assert chela("machine", "cp", tmp_path / "f", f"{machine}:/tmp/f").stdout == "copied 1 files, 1 bytes\n"
    done = chela("machine", "shell", machine, "cat", "/tmp/f", "&&", "exit", "6", text="")
    assert done.returncode == 6 and "x" in done.stdout
    assert chela("machine", "logs", machine, "--lines=2").returncode == 0
    assert chela("machine", "apply", machine, profile(tmp_path / "p.json", setup_tasks=[{"type": "exec", "command": "true"}])).returncode == 0
    assert chela("machine", "stop", machine, "--force").stdout == f"stopped {machine}\n"
    assert json.loads(chela("machine", "start", machine, "--json").stdout)["state"] == "running"
    assert json.loads(chela("machine", "destroy", machine, "--force", "--json").stdout) == {"destroyed": machine}
    assert chela("machine", "show", machine).returncode == 3
