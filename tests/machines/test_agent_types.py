# SPDX-License-Identifier: MIT
"""What the types of tasks do in a real agent: results, the original's texts, and what hostile payloads cannot do."""

import base64
import functools
import hashlib
import http.server
import json
import os
import pathlib
import random
import shutil
import subprocess
import threading

import pytest
from hubtool import chela_agent
from task_hub import TaskHub
from wait import eventually, together


class World:
    """One agent, its hub and its working directory."""

    def __init__(self, directory, **config):
        self.directory = pathlib.Path(directory)
        self.work = self.directory / "work"
        self.tmp = self.directory / "tmp"
        for one in (self.work, self.tmp):
            one.mkdir(parents=True)
        self.audit_log = self.directory / "audit.log"
        self.hub = TaskHub()
        self.agent = chela_agent(self.directory, "a1", "secret-token", self.hub.port, workDir=str(self.work),
                                 auditLog=str(self.audit_log), **config)
        self.agent.env.update(TMPDIR=str(self.tmp), GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null")
        self.agent.env["PATH"] = f"{self.directory}/bin:{self.agent.env['PATH']}"
        self.agent.start()
        self.hub.wait("health")

    def run(self, kind, **more):
        return self.hub.run(type=kind, **more)

    def good(self, kind, **more):
        answer = self.run(kind, **more)
        assert answer["success"] is True, answer
        return answer["result"]

    def bad(self, kind, **more):
        answer = self.run(kind, **more)
        assert answer["success"] is False, answer
        assert answer["error"] and answer["error"] in answer["stack"]
        return answer

    def audit(self):
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def stop(self):
        try:
            assert self.agent.stop() == 0, self.agent.output()[-3000:]
        finally:
            self.hub.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    one = World(tmp_path_factory.mktemp("types"))
    yield one
    one.stop()


@pytest.fixture(scope="module")
def rooted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rooted")
    one = World(directory, root=str(directory / "work"))
    yield one
    one.stop()


# --- commands ---


def test_exec_gives_what_the_command_said(world):
    assert world.good("exec", command="printf '  a b \\n'; echo e >&2") == {
        "stdout": "a b", "stderr": "e", "exitCode": 0}
    assert world.good("exec", command="pwd")["stdout"] == str(world.work)
    (world.work / "sub").mkdir()
    assert world.good("exec", command="pwd", cwd="/")["stdout"] == "/"
    assert world.good("exec", command="pwd", cwd="sub")["stdout"] == str(world.work / "sub")
    assert world.good("exec", command="echo $A-$B", env={"A": "x y", "B": 5})["stdout"] == "x y-5"
    assert world.good("exec", command="cat")["stdout"] == ""  # standard input is empty, not open
    assert world.good("exec", command="printf 'a\\000b\\377c'")["stdout"] == "a\ufffdb\ufffdc"


def test_a_command_may_have_a_standard_input(world):
    assert world.good("exec", command="cat", stdin="a\nb")["stdout"] == "a\nb"
    assert world.good("exec", command="od -An -tx1", stdin="AAH/", stdinEncoding="base64")["stdout"] == "00 01 ff"
    assert world.good("build", command="wc -c", stdin="x" * 3_000_000)["stdout"] == "3000000"
    assert world.good("exec", command="true", stdin="x" * 3_000_000)["exitCode"] == 0
    assert world.good("script", script="process.stdin.pipe(process.stdout)", stdin="of a script")["stdout"] == "of a script"
    assert world.good("exec", command="cat", stdin=None)["stdout"] == ""
    for odd in ({"stdin": 7}, {"stdin": "x", "stdinEncoding": "rot13"}):
        world.bad("exec", command="true", **odd)
    assert world.hub.wait("health")["stdin"] is True


def test_a_failed_command_tells_all_it_knows(world):
    answer = world.bad("exec", command="echo out; echo err >&2; exit 3")
    assert answer["error"].startswith("Command failed: echo out; echo err >&2; exit 3\nerr")
    assert answer["result"]["stdout"] == "out" and answer["result"]["exitCode"] == 3
    assert world.bad("exec", command="kill -9 $$")["result"]["signal"] == "SIGKILL"
    assert "no-such-program" in world.bad("exec", command="no-such-program")["error"]
    assert "/no/such/dir" in world.bad("exec", command="true", cwd="/no/such/dir")["error"]
    long = "x" * 3000
    assert world.bad("exec", command=f": {long}; false")["error"].startswith(f"Command failed: : {long}; false")


@pytest.mark.parametrize("task", [
    {}, {"command": ""}, {"command": 5}, {"command": None}, {"command": ["ls"]}, {"command": "true", "cwd": 5},
    {"command": "true", "env": ["A=1"]}, {"command": "true", "env": {"A=B": "1"}}, {"command": "true", "env": {"A": []}},
    {"command": "true", "timeout": -1}, {"command": "true", "timeout": "soon"}, {"command": "true", "timeout": 1.5},
    {"command": "true", "sudo": "yes"},
])
def test_what_exec_cannot_take_is_told(world, task):
    world.bad("exec", **task)


def test_a_time_out_says_so(world):
    answer = world.bad("exec", command="echo begun; sleep 100", timeout=300)
    assert "timed out after 300 ms" in answer["error"]
    assert answer["result"]["timedOut"] is True and answer["result"]["stdout"] == "begun"


def test_output_is_bounded(world):
    answer = world.bad("exec", command="head -c 11000000 /dev/zero | tr '\\0' x")
    assert answer["error"] == "stdout maxBuffer length exceeded"
    assert answer["result"]["truncated"] is True and len(answer["result"]["stdout"]) == 10485760


def test_build_test_and_deploy(world):
    assert world.good("build", command="echo $X", env={"X": "1"}) == {
        "command": "echo $X", "stdout": "1", "stderr": "", "exitCode": 0}
    (world.work / "package.json").write_text('{"scripts":{"build":"echo built","test":"echo tested; exit 4"}}')
    assert "built" in world.good("build")["stdout"]
    answer = world.bad("test")
    assert answer["result"]["command"] == "npm test" and "tested" in answer["result"]["stdout"]
    assert world.bad("deploy")["error"] == "Deploy task requires a command"
    assert world.good("deploy", command="echo up")["stdout"] == "up"


def test_unknown_types(world):
    assert world.bad("nonsense")["error"] == "Unknown task type: nonsense"
    assert world.hub.run()["error"] == "Unknown task type: undefined"
    assert world.run(None)["error"] == "Unknown task type: null"
    assert world.run("Exec", command="true")["error"] == "Unknown task type: Exec"


def test_sudo_needs_three_yeses(world, tmp_path):
    asked = world.bad("exec", command="id", sudo=True)
    assert asked["error"] == "Sudo execution requires allowSudo flag"
    assert "configuration" in world.bad("exec", command="id", sudo=True, allowSudo=True)["error"]
    assert world.good("exec", command="echo plain", allowSudo=True)["stdout"] == "plain"
    other = World(tmp_path / "sudo", tasks={"allowSudo": True})
    try:
        fake = other.directory / "bin" / "sudo"
        fake.parent.mkdir()
        fake.write_text('#!/bin/sh\nprintf "%s|" "$@" >&2\nshift 2\nexec "$@"\n')
        fake.chmod(0o755)
        result = other.good("exec", command="echo a; echo b", sudo=True, allowSudo=True)
        assert result["stdout"] == "a\nb" and result["stderr"] == "-n|--|/bin/sh|-c|echo a; echo b|"
        assert other.bad("exec", command="id", sudo=True)["error"] == "Sudo execution requires allowSudo flag"
    finally:
        other.stop()


def test_scripts(world):
    script = """
const fs = require('fs'), path = require('path');
console.log(JSON.stringify(process.argv.slice(2)));
console.log((fs.statSync(__filename).mode & 0o777).toString(8), (fs.statSync(__dirname).mode & 0o777).toString(8));
console.log(process.env.K, process.cwd());
"""
    touched = world.directory / "touched"
    args = ["a b", f"$(touch {touched})", ";", "--version", "", 5, True]
    result = world.good("script", script=script, args=args, env={"K": "v"})
    lines = result["stdout"].splitlines()
    assert json.loads(lines[0]) == ["a b", f"$(touch {touched})", ";", "--version", "", "5", "true"]
    assert lines[1] == "600 700" and lines[2] == f"v {world.work}"
    assert not touched.exists()
    assert world.bad("script", script="process.exit(9)")["result"]["exitCode"] == 9
    for wrong in ({}, {"script": ""}, {"script": 5}, {"script": "1", "args": "a"}, {"script": "1", "args": [{}]},
                  {"script": "1", "args": ["x"] * 5000}):
        world.bad("script", **wrong)
    together(lambda n: world.good("script", script=f"console.log({n})"), range(4))
    world.good("script", script="require('fs').writeFileSync(__dirname + '/more', 'x')")
    assert list((world.directory / "state" / "scripts").iterdir()) == []


def test_what_a_killed_agent_left_of_scripts_is_removed(tmp_path):
    world = World(tmp_path / "scripts")
    scripts = world.directory / "state" / "scripts"
    try:
        world.hub.start(type="script", script="setTimeout(() => 0, 100000)")
        eventually(lambda: scripts.exists() and any(one.glob("script.js") for one in scripts.iterdir()), 30)
        world.agent.kill()
        world.hub.heard.clear()
        world.agent.start()
        world.hub.wait("health")
        assert len(list(scripts.iterdir())) == 1
        world.good("script", script="1")
        assert list(scripts.iterdir()) == []
    finally:
        world.stop()


# --- files ---

ENCODINGS = ["utf8", "ascii", "latin1", "base64", "base64url", "hex", "utf16le"]


def test_encodings_are_nodes(world):
    """Every encoding gives what fs.readFile gives, and writes what fs.writeFile writes."""
    rng = random.Random(7)
    texts = ["", "a", "h\u00e9\u20ac\U0001f600", "aGk=", "aGk", "6869", "not hex", "a=b=c", "\x7f\x01\u07ff"]
    # NUL is not carried by the hub's JSON; latin1 and utf16le refuse it
    blobs = [bytes(rng.randrange(1, 256) for _ in range(rng.randrange(60))) for _ in range(8)] + [b"\xef\xbb\xbfbom"]
    work = world.work / "node"
    work.mkdir()
    for number, blob in enumerate(blobs):
        (work / f"b{number}").write_bytes(blob)
    program = """
const fs = require('fs'), {texts, encodings, n} = JSON.parse(fs.readFileSync(0));
const out = {read: {}, write: {}};
const whole = text => Buffer.from(text).toString().replace(/\\0/g, '\\ufffd'); // no halves of pairs
for (const e of encodings) {
  out.read[e] = [...Array(n).keys()].map(i => whole(fs.readFileSync('b' + i, e)));
  out.write[e] = texts.map(t => (fs.writeFileSync('w', t, e), fs.readFileSync('w').toString('hex')));
}
console.log(JSON.stringify(out));
"""
    said = subprocess.run(["node", "-e", program], cwd=work, check=True, capture_output=True, text=True,
                          input=json.dumps({"texts": texts, "encodings": ENCODINGS, "n": len(blobs)}))
    want = json.loads(said.stdout)

    def read(item):
        encoding, number = item
        have = world.good("file:read", filePath=f"node/b{number}", encoding=encoding)
        assert have["content"] == want["read"][encoding][number], (encoding, blobs[number])
        assert have["size"] == len(blobs[number])

    def write(item):
        encoding, number = item
        path = f"node/w-{encoding}-{number}"
        have = world.good("file:write", filePath=path, content=texts[number], encoding=encoding)
        data = (world.work / path).read_bytes()
        assert data.hex() == want["write"][encoding][number], (encoding, texts[number])
        assert have == {"filePath": path, "size": len(data)}

    together(read, [(e, n) for e in ENCODINGS for n in range(len(blobs))], 5)
    together(write, [(e, n) for e in ENCODINGS for n in range(len(texts))], 5)


def test_file_errors_are_nodes(world):
    assert world.bad("file:read", filePath="/nonexist")["error"] == (
        "ENOENT: no such file or directory, open '/nonexist'")
    assert world.bad("file:read", filePath="/tmp")["error"] == "EISDIR: illegal operation on a directory, read"
    long = "d/" * 300 + "f"
    assert world.bad("file:read", filePath=long)["error"] == f"ENOENT: no such file or directory, open '{long}'"
    assert world.bad("file:write", filePath="x" * 300, content="")["error"].startswith("ENAMETOOLONG: name too long, open")
    for wrong in ({}, {"filePath": ""}, {"filePath": 7}, {"filePath": ["a"]}, {"filePath": "a", "encoding": "utf-7"}):
        world.bad("file:read", **wrong)
    for content in (None, 5, {}, ["a"]):
        world.bad("file:write", filePath="a", content=content)
    os.mkfifo(world.work / "fifo")
    for path in ("fifo", "/dev/zero", "/dev/null"):
        assert "not a regular file" in world.bad("file:read", filePath=path)["error"]
        assert "not a regular file" in world.bad("file:write", filePath=path, content="x")["error"]


def test_a_reader_sees_the_old_or_the_new_file(world):
    path = world.work / "atomic"
    path.write_bytes(b"0" * 100000)
    seen, stop = set(), threading.Event()

    def watch():
        while not stop.is_set():
            data = path.read_bytes()
            seen.add((len(data), len(set(data))))

    reader = threading.Thread(target=watch)
    reader.start()
    try:
        for digit in "123456789":
            world.good("file:write", filePath="atomic", content=digit * 100000)
    finally:
        stop.set()
        reader.join()
    assert seen == {(100000, 1)}
    assert [one.name for one in world.work.iterdir() if ".chela" in one.name] == []


def test_files_of_the_kernel_can_be_read(world):
    assert "MemTotal" in world.good("file:read", filePath="/proc/meminfo")["content"]


def send_parts(world, path, data, transfer, size, **last):
    """As the CLI does: parts in order, the last one with the checksum."""
    answer = None
    for offset in range(0, max(1, len(data)), size):
        part = data[offset:offset + size]
        final = offset + size >= len(data)
        more = {"final": True, "sha256": hashlib.sha256(data).hexdigest(), **last} if final else {}
        answer = world.good("file:write", filePath=path, content=base64.b64encode(part).decode(), encoding="base64",
                            offset=offset, transferId=transfer, **more)
        assert answer["received"] == offset + len(part)
    return answer


def fetch_parts(world, path, size):
    data = b""
    while True:
        part = world.good("file:read", filePath=path, encoding="base64", offset=len(data), length=size)
        data += base64.b64decode(part["content"])
        if part["eof"]:
            assert part["size"] == len(data) and part["sha256"] == hashlib.sha256(data).hexdigest()
            return data


def test_transfers_go_side_by_side(world):
    blobs = {f"big/{n}": random.Random(n).randbytes(700000 + n) for n in range(4)}

    def both_ways(item):
        path, data = item
        assert send_parts(world, path, data, f"x-{path}", 100000, mode=0o640)["size"] == len(data)
        assert (world.work / path).stat().st_mode & 0o7777 == 0o640
        return fetch_parts(world, path, 150000) == data

    assert all(together(both_ways, blobs.items()))
    assert [one.name for one in (world.work / "big").iterdir() if ".chela" in one.name] == []
    assert send_parts(world, "empty", b"", "e", 10)["size"] == 0
    assert fetch_parts(world, "empty", 10) == b""


def test_a_transfer_goes_on_after_the_agent_was_killed(tmp_path):
    world = World(tmp_path / "killed")
    try:
        one = world.good("file:write", filePath="f", content="abc", transferId="k")
        assert one["received"] == 3
        world.agent.kill()
        world.hub.heard.clear()
        world.agent.start()
        world.hub.wait("health")
        answer = world.bad("file:write", filePath="f", content="x", transferId="k", offset=9)
        assert answer["result"]["received"] == 3
        world.good("file:write", filePath="f", content="def", transferId="k", offset=3, final=True,
                   sha256=hashlib.sha256(b"abcdef").hexdigest())
        assert (world.work / "f").read_text() == "abcdef"
    finally:
        world.stop()


def test_directories(world):
    top = world.work / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_text("12345")
    (top / "link").symlink_to("/etc")
    listed = world.good("file:list", path="tree")
    assert listed["path"] == "tree"
    assert [(one["name"], one["type"]) for one in listed["entries"]] == [
        ("file", "file"), ("link", "symlink"), ("sub", "directory")]
    stat = world.good("file:stat", filePath="tree/file")
    assert stat["size"] == 5 and stat["type"] == "file" and stat["mode"] == (top / "file").stat().st_mode & 0o7777
    assert world.bad("file:delete", filePath="tree")["error"].startswith("EISDIR")
    assert world.good("file:delete", filePath="tree", recursive=True)["deleted"] == 4
    assert not top.exists() and pathlib.Path("/etc/passwd").exists()
    for path in ("/", ".", "..", "sub/.."):
        world.bad("file:delete", filePath=path, recursive=True)


# --- below a root ---

OUTSIDE = ["/etc/passwd", "../victim", "in/../../victim", "up/victim", "abs", "./up/../../victim", "up", "in/deep/up/victim"]


@pytest.fixture(scope="module")
def jail(rooted):
    work = rooted.work
    (rooted.directory / "victim").write_text("precious")
    (work / "in" / "deep").mkdir(parents=True)
    (work / "up").symlink_to("..")
    (work / "in" / "deep" / "up").symlink_to("../../..")
    (work / "abs").symlink_to("/etc/passwd")
    return rooted


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_root_is_not_left_by_any_path(jail, path):
    for kind, more in (("file:read", {}), ("file:list", {}), ("file:write", {"content": "x"}),
                       ("file:write", {"content": "x", "transferId": "t", "final": True}),
                       ("file:write", {"content": "x", "filePath": path + "/new/file"})):
        answer = jail.bad(kind, **{"filePath": path, **more})
        assert answer["error"].startswith(("EACCES", "ENOTDIR", "EISDIR")), answer
    if path not in ("up", "abs"):  # deleting a link is deleting in its directory
        answer = jail.bad("file:delete", filePath=path, recursive=True)
        assert answer["error"].startswith("EACCES"), answer
    assert (jail.directory / "victim").read_text() == "precious"
    assert jail.good("file:write", filePath=str(jail.work / "in" / "ok"), content="1")["size"] == 1


def test_a_root_holds_while_links_are_swapped(jail):
    """A directory that turns into a link to the outside, over and over, while the agent writes below it."""
    outside, inside, swapped = jail.directory / "outside", jail.work / "real", jail.work / "door"
    outside.mkdir()
    inside.mkdir()
    swapped.symlink_to("real")  # from the start: the agent would make a directory of that name
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for target in ("../outside", "real"):
                fresh = jail.work / "fresh"
                fresh.symlink_to(target)
                fresh.rename(swapped)

    swapper = threading.Thread(target=swap)
    swapper.start()
    written = 0
    try:
        for number in range(40):
            for more in ({}, {"transferId": "s", "final": True}):
                answer = jail.run("file:write", filePath=f"door/a{number}/f", content="x", **more)
                written += answer["success"]
                assert answer["success"] or answer["error"].startswith(("EACCES", "ENOENT")), answer
            jail.run("file:delete", filePath=f"door/a{number}", recursive=True)
    finally:
        stop.set()
        swapper.join()
    assert list(outside.iterdir()) == []
    assert written > 0


# --- git ---


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bare repository with a commit on main and on other."""
    directory = tmp_path_factory.mktemp("origin")
    run = lambda *argv: subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *argv], check=True,  # noqa: E731
                                       capture_output=True, cwd=directory, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
    run("init", "-q", "-b", "main", "made")
    (directory / "made" / "f").write_text("one")
    run("-C", "made", "add", "f")
    run("-C", "made", "commit", "-q", "-m", "one")
    run("-C", "made", "branch", "other")
    run("clone", "-q", "--bare", "made", "bare.git")
    return directory / "bare.git"


def test_git_clone_pull_push(world, origin):
    result = world.good("git:clone", repo=str(origin), destination="clone one")
    assert result["repo"] == str(origin) and result["destination"] == "clone one" and result["branch"] == "default"
    assert "Cloning into" in result["stderr"] and (world.work / "clone one" / "f").read_text() == "one"
    assert world.good("git:clone", repo=str(origin), destination="two", branch="other")["branch"] == "other"
    assert "other" in world.good("exec", command="git -C two branch")["stdout"]
    world.good("exec", command="cd 'clone one' && echo two > f && git -c user.name=a -c user.email=a@b commit -qam two")
    pushed = world.good("git:push", repoPath="clone one")
    assert pushed["remote"] == "origin" and pushed["branch"] == "main" and "main -> main" in pushed["stderr"]
    world.good("git:clone", repo=str(origin), destination="three")
    world.good("exec", command="cd three && git reset -q --hard HEAD~1")
    assert world.good("git:pull", repoPath="three")["repoPath"] == "three"
    assert (world.work / "three" / "f").read_text() == "two\n"
    answer = world.bad("git:clone", repo=str(origin), destination="three")
    assert answer["error"].startswith(f"Command failed: git clone {origin} three\n") and "already exists" in answer["error"]
    assert "/no/such" in world.bad("git:pull", repoPath="/no/such")["error"]


HOSTILE = [
    {"repo": "ext::sh -c touch% {pwned}", "destination": "h"},
    {"repo": "ext::sh -c touch% {pwned}", "destination": "h", "env": {"GIT_ALLOW_PROTOCOL": "ext:file"}},
    {"repo": "{origin}; touch {pwned}", "destination": "h"},
    {"repo": "$(touch {pwned})", "destination": "h"},
    {"repo": "{origin}", "destination": "h; touch {pwned}", "branch": "none"},
    {"repo": "{origin}", "destination": "--upload-pack=touch {pwned}", "branch": "none"},
    {"repo": "--upload-pack=touch {pwned}", "destination": "{origin}"},
    {"repo": "-utouch {pwned}", "destination": "{origin}"},
    {"repo": "{origin}", "destination": "h", "branch": "--upload-pack=touch {pwned}"},
    {"repo": "{origin}", "destination": "h", "branch": "-c core.sshCommand=touch"},
    {"repo": "ssh://-oProxyCommand=touch%20{pwned}/x", "destination": "h"},
    {"repo": "-oProxyCommand=touch {pwned}:x", "destination": "h"},
    {"repo": "fd::7", "destination": "h"},
    {"repo": "ftp://127.0.0.1/x", "destination": "h"},
    {"repo": "{origin}\n--upload-pack=touch {pwned}", "destination": "h"},
    {"repo": 5, "destination": "h"},
    {"repo": "{origin}"},
    {"destination": "h"},
]


@pytest.mark.parametrize("task", HOSTILE, ids=range(len(HOSTILE)))
def test_git_clone_runs_nothing_else(world, origin, task):
    pwned = world.directory / "pwned"
    fill = {key: value.format(pwned=pwned, origin=origin) if isinstance(value, str) else value
            for key, value in task.items()}
    world.bad("git:clone", **fill)
    assert not pwned.exists()


def test_git_push_and_pull_run_nothing_else(world, origin):
    pwned = world.directory / "pwned"
    world.good("git:clone", repo=str(origin), destination="pushed")
    for more in ({"remote": f"ext::sh -c touch% {pwned}"}, {"remote": f"--receive-pack=touch {pwned}"},
                 {"branch": f"--receive-pack=touch {pwned}"}, {"branch": "a b"}, {"branch": "-f"}):
        world.bad("git:push", repoPath="pushed", **more)
    world.good("exec", command=f"git -C pushed remote set-url origin 'ext::sh -c touch% {pwned}'")
    world.good("exec", command="git -C pushed config protocol.ext.allow always")
    assert "not allowed" in world.bad("git:pull", repoPath="pushed")["error"]
    assert "not allowed" in world.bad("git:push", repoPath="pushed")["error"]
    assert not pwned.exists()


def test_git_below_a_root(jail, origin):
    copy = jail.work / "copy.git"
    shutil.copytree(origin, copy)
    assert "not allowed" in jail.bad("git:clone", repo=str(copy), destination="c")["error"]  # file: reads anything
    for destination in ("../c", "up/c", "/var/tmp/c", "in/deep/up/c"):
        assert jail.bad("git:clone", repo="https://127.0.0.1:1/x", destination=destination)["error"].startswith("EACCES")
    assert jail.bad("git:pull", repoPath="up")["error"].startswith("EACCES")
    subprocess.run(["git", "-C", str(origin), "update-server-info"], check=True)
    handler = functools.partial(QuietHandler, directory=str(origin.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{origin.name}"
        result = jail.good("git:clone", repo=url, destination="in/new/c")
        assert result["destination"] == "in/new/c" and (jail.work / "in/new/c/f").exists()
        assert jail.good("git:pull", repoPath="in/new/c")["repoPath"] == "in/new/c"
        assert "already exists" in jail.bad("git:clone", repo=url, destination="in/new/c")["error"]
        server.shutdown()


# --- audit, health, shells ---


def test_the_audit_log_tells_each_task_twice(world):
    task = world.hub.start(type="exec", command="echo https://u:hidden1@h/; exit 2", env={"SECRET": "hidden2"}, cwd="/")
    world.hub.response(task)
    lines = eventually(lambda: (found := [x for x in world.audit() if x.get("taskId") == task]) and len(found) == 2 and found)
    assert [one["event"] for one in lines] == ["task.received", "task.finished"]
    for one in lines:
        assert one["agentId"] == "a1" and one["type"] == "exec" and one["from"] == "host" and one["cwd"] == "/"
        assert one["command"] == "echo https://***@h/; exit 2" and one["env"] == ["SECRET"]
    assert lines[1]["exitCode"] == 2 and lines[1]["success"] is False and lines[1]["durationMs"] >= 0
    text = world.audit_log.read_text()
    assert "hidden" not in text and "secret-token" not in text
    assert world.audit_log.stat().st_mode & 0o777 == 0o640


def test_health(world):
    report = world.hub.wait("health")
    assert 0 <= report["cpu"] <= 100 and report["platform"] == "linux" and report["arch"] in ("x64", "arm64")
    total = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal"))) / 1024
    assert abs(report["memory"]["total"] - total) <= 1 or report["memory"]["total"] < total
    disk = subprocess.run(["df", "-k", "--output=size,used,avail,pcent", "/"], capture_output=True, text=True, check=True)
    size, _, _, percent = disk.stdout.splitlines()[1].split()
    assert abs(report["disk"]["total"] - int(size) / 1024) <= 1
    assert abs(report["disk"]["usagePercent"] - int(percent.rstrip("%"))) <= 2  # others write meanwhile
    assert report["systemUptime"] > 0 and len(report["loadAverage"]) == 3 and report["activeTasks"] == 0


def shell_output(world, shell):
    return b"".join(base64.b64decode(m["payload"]["data"]) for m in list(world.hub.heard)
                    if m["type"] == "shell" and m["payload"]["shellId"] == shell and m["payload"]["op"] == "data")


def shell_say(world, shell, op, **more):
    if isinstance(more.get("data"), bytes):
        more["data"] = base64.b64encode(more["data"]).decode()
    world.hub.say("shell", {"shellId": shell, "op": op, **more})


def shell_end(world, shell):
    return world.hub.wait("shell", lambda p: p["shellId"] == shell and p["op"] == "exit")


def test_a_shell(world):
    shell_say(world, "s1", "open", cols=99, rows=21, term="xterm")
    shell_say(world, "s1", "data", data=b"stty size; echo $((6*7))-$TERM-$AGENT_TOKEN-\n")
    eventually(lambda: b"21 99" in shell_output(world, "s1") and b"42-xterm--" in shell_output(world, "s1"), 30)
    shell_say(world, "s1", "resize", cols=120, rows=40)
    shell_say(world, "s1", "data", data=b"stty size; exit 5\n")
    assert shell_end(world, "s1")["code"] == 5
    assert b"40 120" in shell_output(world, "s1")
    events = eventually(lambda: (found := [x["event"] for x in world.audit() if x.get("shellId") == "s1"]) and
                        len(found) == 2 and found)
    assert events == ["shell.opened", "shell.closed"]


def test_a_shell_that_says_much_loses_nothing(world):
    shell_say(world, "s2", "open", command="stty -onlcr; seq 200000")
    assert shell_end(world, "s2")["code"] == 0
    assert shell_output(world, "s2") == b"".join(b"%d\n" % n for n in range(1, 200001))


def test_shells_end_with_the_link(world):
    shell_say(world, "s3", "open", command="echo $$; exec sleep 1000")
    pid = int(eventually(lambda: shell_output(world, "s3").strip(), 30))
    world.hub.cut()
    eventually(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 30)
    count = len(world.hub.heard)
    eventually(lambda: any(m["type"] == "health" for m in world.hub.heard[count:]), 60)
    assert world.good("exec", command="echo back")["stdout"] == "back"
