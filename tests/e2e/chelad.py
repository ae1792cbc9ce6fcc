"""A chelad under test: started in a state directory of its own, watched, stopped and judged.

Its ready line comes over a pipe, its standard error is kept in a file and shown when a test
fails, and a clean stop means exit status 0 without a sanitizer's report.
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import time

import httpx

BIN = pathlib.Path(os.environ.get("CHELA_BIN")
                   or pathlib.Path(__file__).resolve().parents[2] / "build" / "bin")
QUICK = ("--bridge.backoff_initial=10ms", "--bridge.backoff_max=40ms")
START_DEADLINE = 30
STOP_DEADLINE = 30
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:",
                   "SUMMARY: UndefinedBehaviorSanitizer", "WARNING: ThreadSanitizer")
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")

live = []  # every daemon that has been started and not yet judged


class StartFailed(Exception):
    """The daemon ended instead of becoming ready."""

    def __init__(self, status, log):
        super().__init__(f"chelad ended with status {status}:\n{log}")
        self.status = status
        self.log = log


def environment(home, extra=None):
    """A small, known environment: nothing of the developer's own settings leaks into a test."""
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env["HOME"] = str(home)
    env.update(extra or {})
    return env


class Daemon:
    def __init__(self, state, flags=QUICK, env=None, preexec=None):
        self.state = pathlib.Path(state)
        self.flags = tuple(flags)
        self.env = environment(self.state.parent, env)
        self.preexec = preexec
        self.log_path = self.state.parent / f"{self.state.name}.stderr"
        self.process = None
        self.stopping = False
        self.ready = None
        self.http = None

    def start(self):
        reading, writing = os.pipe()
        command = [str(BIN / "chelad"), "--state", str(self.state), "--ready-fd", str(writing)]
        if not any(flag.startswith("--gateway.port") for flag in self.flags):
            if "PORT" not in self.env and "GATEWAY_PORT" not in self.env:
                command.append("--gateway.port=0")
        for port, variable in (("--hub.http_port", "HTTP_PORT"), ("--hub.ws_port", "WS_PORT")):
            if not any(flag.startswith(port) for flag in self.flags) and variable not in self.env:
                command.append(f"{port}=0")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command + list(self.flags), env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(writing,), preexec_fn=self.preexec)
        os.close(writing)
        self.stopping = False
        live.append(self)
        line = self._read_ready(reading)
        if not line:
            status = self.process.wait(STOP_DEADLINE)
            self._forget()
            raise StartFailed(status, self.log())
        self.ready = json.loads(line)
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=False,
                                 limits=httpx.Limits(max_connections=None))
        return self

    def _read_ready(self, fd):
        line = b""
        end = time.monotonic() + START_DEADLINE
        with contextlib.closing(os.fdopen(fd, "rb", buffering=0)) as pipe:
            while not line.endswith(b"\n"):
                readable, _, _ = select.select([pipe], [], [], max(0, end - time.monotonic()))
                if not readable:
                    self.kill()
                    raise StartFailed("none: not ready in time", self.log())
                piece = pipe.read(4096)
                if not piece:
                    return b""
                line += piece
            rest = pipe.read()
            assert rest == b"", f"more than one ready line: {rest!r}"
        return line

    @property
    def address(self):
        host, port = self.ready["listeners"]["gateway"].rsplit(":", 1)
        return host.strip("[]"), int(port)

    @property
    def port(self):
        return self.address[1]

    @property
    def url(self):
        return f"http://{self.ready['listeners']['gateway']}"

    @property
    def token(self):
        return (self.state / "admin.token").read_text().strip()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def client(self, **options):
        """Another HTTP client, for instance one with a token or over the unix socket."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=False, **options)

    def signal(self, number):
        self.process.send_signal(number)

    def begin_stop(self):
        """Ask for a graceful end, once: a second time would mean at once."""
        if not self.stopping and self.process.poll() is None:
            self.stopping = True
            self.signal(signal.SIGTERM)

    def stop(self):
        """Ask for a graceful end and insist on it."""
        if self.process is None:
            return
        self.begin_stop()
        try:
            status = self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"chelad did not stop on SIGTERM:\n{self.log()[-4000:]}") from None
        self._forget()
        assert status == 0, f"chelad ended with status {status}:\n{self.log()[-8000:]}"
        self.check_sanitizers()

    def kill(self):
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_DEADLINE)
            self._forget()

    def _forget(self):
        if self.http:
            self.http.close()
        self.process = None
        if self in live:
            live.remove(self)

    def restart(self):
        self.stop()
        return self.start()

    def check_sanitizers(self):
        log = self.log()
        for mark in SANITIZER_MARKS:
            at = log.find(mark)
            assert at < 0, log[at:at + 8000]

    # What most tests do with a bridge.

    def register(self, agent, name, **fields):
        """Register a scripted agent (or a port number) under a name, which is returned."""
        port = agent if isinstance(agent, int) else agent.port
        body = {"name": name, "host": "127.0.0.1", "port": port, **fields}
        answer = self.http.post("/api/vps/register", json=body)
        assert answer.status_code == 201, answer.text
        return name

    def call(self, name, prompt="hello", **fields):
        """Call an agent; the result object, whatever the agent's outcome was."""
        answer = self.try_call(name, prompt, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def try_call(self, name, prompt="hello", key=None, **fields):
        headers = {"Idempotency-Key": key} if key else {}
        body = {"agent_name": name, "prompt": prompt, **fields}
        return self.http.post("/api/vps/call", json=body, headers=headers)

    def health(self, name):
        answer = self.http.get(f"/api/vps/health/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def session(self, session_id):
        answer = self.http.get(f"/api/vps/sessions/{session_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def turns(self, session_id):
        """The session's messages as (role, content) pairs."""
        return [(m["role"], m["content"]) for m in self.session(session_id)["messages"]]


def run(program, *arguments, env=None, home="/nonexistent", text=None, timeout=60):
    """Run one of the programs to its end; without a text its standard input is empty."""
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    return subprocess.run([str(BIN / program), *map(str, arguments)], env=environment(home, env),
                          capture_output=True, text=True, timeout=timeout, **given)
