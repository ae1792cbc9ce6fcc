# SPDX-License-Identifier: MIT
"""vm-agent with machines that are entered from the host (Multipass), on a hub of this test's own; and
what it leaves on the host: units of systemd, property lists, completion, the audit log's chain."""

import http.server
import json
import plistlib
import re
import shutil
import subprocess
import threading

import chelad
import pytest
from hubtool import Hub, name
from wait import eventually

CHELAD = (chelad.BIN / "chelad").resolve()
TOOL = """#!/usr/bin/env python3
import os, sys
with open(os.environ["TOOL_LOG"], "a") as log:
    print(sys.argv[1:], file=log)
words = sys.argv[sys.argv.index("--") + 1:]
if words[0] == "sudo":
    sys.exit(print("as root:", *words[1:]))
os.execvp(words[0], words)
"""


class Scripted(http.server.BaseHTTPRequestHandler):
    """A hub that knows one machine, entered by a program of the test's, and keeps what it is told."""

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path.startswith("/machines/box"):
            machine = {"name": "box", "driver": "multipass", "state": "running", "operation": None,
                       "exec": [self.server.tool, "exec", "box", "--"]}
            self.answer(200, {"machine": machine})
        else:
            self.answer(404, {"error": "Machine not found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/admin/audit" and self.server.audits:
            self.server.told.append(body)
            self.answer(200, {"status": "written"})
        else:
            self.answer(503, {"error": "no"})

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted(tmp_path):
    tool = tmp_path / "multipass tool"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.tool, server.told, server.audits = str(tool), [], True
    server.log = tmp_path / "log"
    server.env = {"VM_AGENT_HUB_URL": f"http://127.0.0.1:{server.server_port}", "TOOL_LOG": str(server.log)}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def vm(scripted, *words, **options):
    return chelad.run("vm-agent", *words, env=scripted.env, **options)


def test_a_command_goes_to_the_tool_as_words(scripted, tmp_path):
    mark = tmp_path / "mark"
    done = vm(scripted, "exec", "box", f"cd /nowhere && touch {mark}; echo $0; exit 6")
    assert done.returncode == 6 and not mark.exists()
    assert scripted.log.read_text() == str(
        ["exec", "box", "--", "bash", "-lc", f"cd /nowhere && touch {mark}; echo $0; exit 6"]) + "\n"
    assert [one["event"] for one in scripted.told] == ["cli.exec", "cli.exec.finished"]
    assert {one["agentId"] for one in scripted.told} == {"box"}
    assert scripted.told[0]["command"] == f"cd /nowhere && touch {mark}; echo $0; exit 6"
    assert scripted.told[1]["reason"] == "exit 6"


def test_root_logs_and_a_shell(scripted):
    assert vm(scripted, "exec", "box", "--sudo", "id").stdout == "as root: -n -- bash -lc id\n"
    assert vm(scripted, "logs", "box", "-n", "7").stdout == "as root: -n journalctl -u vm-agent --no-pager -n 7\n"
    done = vm(scripted, "shell", "box", text="echo in the sh''ell\nexit 4\n")
    assert done.returncode == 4 and "in the shell" in done.stdout
    assert [one["event"] for one in scripted.told[::2]] == ["cli.exec", "cli.logs", "cli.shell"]


def test_what_cannot_be_audited_is_not_done(scripted, tmp_path):
    scripted.audits = False
    done = vm(scripted, "exec", "box", "true")
    assert done.returncode == 1 and "audit" in done.stderr
    assert not scripted.log.exists()


def test_a_late_command_of_the_tool_is_ended(scripted):
    assert vm(scripted, "exec", "box", "--timeout", "300", "sleep 1000").returncode == 124
    assert scripted.told[-1]["reason"] == "exit 124"


def test_ctrl_c_is_the_tools(scripted):
    child = subprocess.Popen([chelad.BIN / "vm-agent", "exec", "box", "trap 'exit 9' INT; echo begun; while :; do sleep 0.1; done"],
                             env=chelad.environment("/nonexistent", scripted.env), stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, start_new_session=True)
    assert child.stdout.readline() == b"begun\n"
    subprocess.run(["kill", "-INT", "--", f"-{child.pid}"], check=True)  # the group, as a terminal does
    assert child.wait(30) == 9
    child.stdout.close()
    assert scripted.told[-1]["reason"] == "exit 9"


# --- what starts the hub ---

def install(tmp_path, *flags, program=("vm-agent", "hub", "install"), env=None):
    return chelad.run(program[0], *program[1:], *flags, env=env, home=tmp_path / "home")


def directives(unit):
    section, found = None, {}
    for line in unit.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert section and equals and re.fullmatch(r"[A-Za-z]+", key), line
            found[f"{section}.{key}"] = value
    return found


def test_a_unit_for_this_user(tmp_path):
    state = tmp_path / "st ate%h"
    done = install(tmp_path, "--user", env={"CHELA_STATE": str(state)})
    assert done.returncode == 0, done.stderr
    path = tmp_path / "home" / ".config" / "systemd" / "user" / "chelad.service"
    assert f"wrote {path}" in done.stdout and "systemctl --user enable --now chelad" in done.stdout
    found = directives(path.read_text())
    assert found["Install.WantedBy"] == "default.target" and found["Service.KillMode"] == "process"
    assert found["Service.ExecStart"] == f'"{CHELAD}" --state "{tmp_path}/st ate%%h"'
    assert state.stat().st_mode & 0o777 == 0o700
    verify(path)


def verify(path):
    """By systemd itself where it is installed; else what the test above reads is all."""
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and path.name not in done.stderr, done.stderr


def test_a_unit_for_the_machine(tmp_path):
    done = install(tmp_path, "--system", "--dir", tmp_path / "units", env={"CHELA_STATE": str(tmp_path / "state")},
                   program=("chela", "hub", "install"))
    assert done.returncode == 0, done.stderr
    path = tmp_path / "units" / "chelad.service"
    assert directives(path.read_text())["Install.WantedBy"] == "multi-user.target"
    verify(path)
    assert install(tmp_path, "--system", "--user").returncode == 1


def test_a_property_list(tmp_path):
    state = tmp_path / "a <state> & more"
    done = install(tmp_path, "--user", "--launchd", env={"CHELA_STATE": str(state)})
    assert done.returncode == 0, done.stderr
    path = tmp_path / "home" / "Library" / "LaunchAgents" / "com.openclaw.vm-hub.plist"
    read = plistlib.loads(path.read_bytes())
    assert read["Label"] == "com.openclaw.vm-hub" and read["RunAtLoad"] is True
    assert read["ProgramArguments"] == [f"{CHELAD}", "--state", str(state)]
    assert read["KeepAlive"] == {"SuccessfulExit": False}
    assert read["StandardErrorPath"] == f"{state}/logs/hub-stderr.log" and (state / "logs").is_dir()
    assert "launchctl load" in done.stdout


def test_what_packages_bring():
    packaging = chelad.BIN.parent / "packaging"
    read = plistlib.loads((packaging / "com.openclaw.vm-hub.plist").read_bytes())
    assert read["Label"] == "com.openclaw.vm-hub" and read["ProgramArguments"][0].endswith("/sbin/chelad")
    found = directives((packaging / "chelad.service").read_text())
    assert found["Service.ExecStart"].startswith(read["ProgramArguments"][0]) and found["Service.KillMode"] == "process"


def test_an_installed_daemon_finds_its_agent(tmp_path, scratch):
    """`make install` puts chelad into sbin, and chela-agent into bin."""
    state = scratch / "installed"
    for directory, program in (("sbin", "chelad"), ("bin", "chela-agent")):
        (tmp_path / directory).mkdir()
        shutil.copy(chelad.BIN / program, tmp_path / directory)
    daemon = subprocess.Popen([tmp_path / "sbin" / "chelad", "--state", state, "--gateway.port=0", "--hub.http_port=0",
                               "--hub.ws_port=0"], env=chelad.environment(tmp_path, {}), stderr=subprocess.DEVNULL)
    try:
        done = eventually(lambda: (one := chelad.run("chela", "--state", state, "machine", "drivers")).returncode == 0 and one,
                          60)
        assert "sandbox" in done.stdout and "chela-agent" not in done.stdout
    finally:
        daemon.terminate()
        daemon.wait(60)


def test_print_writes_nothing(tmp_path):
    done = install(tmp_path, "--user", "--print", env={"CHELA_STATE": str(tmp_path / "state")})
    assert done.stdout.startswith("[Unit]\n") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words,offered", [
    ("vm-agent ''", {"create", "list", "exec", "profiles", "--version"}), ("vm-agent pro", {"profiles"}),
    ("vm-agent profiles ''", {"list", "show", "create", "delete"}),
    ("vm-agent create x --m", {"--memory"}), ("vm-agent hub install --l", {"--launchd"}),
], ids=lambda value: value if isinstance(value, str) else None)
def test_completion(words, offered):
    script = chelad.run("vm-agent", "completion", "bash").stdout
    cursor = f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _vm_agent; echo \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{cursor}"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert offered <= set(done.stdout.split())
    assert chelad.run("vm-agent", "completion", "fish").returncode == 1


# --- the audit log ---

@pytest.fixture(scope="module")
def log(store, scratch, daemon):
    """Lines of a real log, over three files."""
    from starter import Starter
    starter = Starter(store, scratch)
    one = starter("--hub.audit_max=4K", "--hub.audit_keep=50")
    hub = Hub(one)
    for _ in range(60):
        hub.register(name("audited"))
    starter.stop()
    return one.state


def check(path, *flags):
    return chelad.run("chela", "audit", "verify", path, *flags)


def copy(log, tmp_path):
    for file in log.glob("audit.log*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "audit.log"


def test_an_audit_log_as_it_was_written(log, tmp_path):
    done = check(log / "audit.log")
    assert done.returncode == 0, done.stderr
    files = len(list(log.glob("audit.log*")))
    assert files >= 3 and re.match(rf"intact: \d+ lines in {files} files\n", done.stdout)
    told = json.loads(chelad.run("chela", "--state", log, "audit", "verify", "--json").stdout)
    last = json.loads((log / "audit.log").read_text().splitlines()[-1])
    assert told["intact"] is True and told["last"] == last["hash"]
    assert check(tmp_path / "none").returncode == 1


def alter(lines):
    lines[3] = lines[3].replace("agent.registered", "agent.deregistered")


def remove(lines):
    del lines[2]


def repeat(lines):
    lines.insert(2, lines[2])


def swap(lines):
    lines[2], lines[3] = lines[3], lines[2]


def insert(lines):
    lines.insert(2, "a line of somebody's")


def forge(lines):
    lines[2] = re.sub(r'"hash":"[0-9a-f]{64}"', '"hash":"' + "0" * 64 + '"', lines[2])


@pytest.mark.parametrize("change", [alter, remove, repeat, swap, insert, forge])
@pytest.mark.parametrize("file", ["audit.log", "audit.log.2"])
def test_an_audit_log_that_was_changed(log, tmp_path, change, file):
    path = copy(log, tmp_path)
    lines = (tmp_path / file).read_text().splitlines()
    change(lines)
    (tmp_path / file).write_text("\n".join(lines) + "\n")
    done = check(path)
    assert done.returncode == 1 and f"{file}:" in done.stderr, done.stdout


def test_a_file_of_the_audit_log_that_is_gone(log, tmp_path):
    path = copy(log, tmp_path)
    (tmp_path / "audit.log.1").write_bytes((tmp_path / "audit.log.2").read_bytes())
    assert check(path).returncode == 1


def test_a_crash_in_the_midst_of_a_line_is_no_forgery(start, tmp_path):
    one = start()
    Hub(one).register(name("audited"))
    one.stop()
    with open(one.state / "audit.log", "a") as log:
        log.write('{"ts":"2026-01-01T00:00:00.000Z","event":"agent.reg')
    assert check(one.state / "audit.log").returncode == 0
    one.start()
    Hub(one).register(name("audited"))
    one.stop()
    done = check(one.state / "audit.log")
    assert done.returncode == 0, done.stderr
    assert "crashes: 1 lines were cut off" in done.stdout
