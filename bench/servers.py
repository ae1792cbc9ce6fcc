# SPDX-License-Identifier: MIT
"""What the benchmarks start: the agent, chelad, nginx and the FastAPI bridge.

Each is a process of ours in a directory of ours, known by its pid and ended by it.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE_S = 20

NGINX_CONF = """
user root;
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream agent {{
        server 127.0.0.1:{agent};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        tcp_nodelay on;
        location / {{
            proxy_pass http://agent;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


class Unavailable(Exception):
    """A part of the bench that this machine cannot run; the text says what is missing."""


class Server:
    """A running process: its port, its pids, and how to end it."""

    def __init__(self, name, process, port, ready=None):
        self.name, self.process, self.port, self.ready = name, process, port, ready

    @property
    def pids(self):
        """The process and its children: nginx works in a child."""
        pid = self.process.pid
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            children = ""
        return [pid, *map(int, children.split())]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(server):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise Unavailable(f"{server.name} ended with status {server.process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return server
        except OSError:
            time.sleep(0.02)
    server.stop()
    raise Unavailable(f"{server.name} did not listen within {PATIENCE_S} s")


def post(port, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


class Bench:
    """Where the binaries are, where the state goes, which CPU a process may use."""

    def __init__(self, binaries, directory, pin=False):
        self.binaries, self.dir, self.pin = pathlib.Path(binaries), pathlib.Path(directory), pin
        self.stack = contextlib.ExitStack()
        self.echo_agent = self.tool("echo_agent")

    def tool(self, name):
        """Our instrument as the build left it, or compiled here when the binaries came alone."""
        built = self.binaries.parent / "bench" / name
        if built.exists():
            return built
        made = self.dir / name
        if made.exists():
            return made
        shared = [HERE / "conn.c"] if name in ("messages", "hub") else []
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", made, *HERE.glob(f"{name}*.c"), *shared],
                       check=True)
        return made

    def spawn(self, argv, cpu=1, log=None, **more):
        if self.pin:
            argv = ["taskset", "-c", str(cpu), *argv]
        output = open(self.dir / log, "ab") if log else None
        try:
            return subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                    stderr=output, **{"stdout": output, **more})
        finally:
            if output:
                output.close()

    def keep(self, server):
        self.stack.callback(server.stop)
        return server

    def agent(self, *options):
        process = self.spawn([self.echo_agent, *options], cpu=0, stdout=subprocess.PIPE)
        return self.keep(Server("agent", process, int(process.stdout.readline())))

    def chelad(self, state, *options):
        """Start chelad and read its ready line; the server's .ready_ms is the time that took."""
        program = self.binaries / "chelad"
        if not program.exists():
            raise Unavailable(f"there is no {program}: run `make build`, or set CHELA_BIN")
        env = {k: v for k, v in os.environ.items()
               if k in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
        ready, ready_child = os.pipe()
        begin = time.perf_counter()
        process = self.spawn([program, "--state", state, "--ready-fd", str(ready_child),
                              "--gateway.port=0", "--hub.http_port=0", "--hub.ws_port=0", *options],
                             log="chelad.log", env=env, pass_fds=[ready_child])
        os.close(ready_child)
        with os.fdopen(ready) as lines:
            line = lines.readline()
        took_ms = (time.perf_counter() - begin) * 1000
        if not line:
            process.wait()
            log = (self.dir / "chelad.log").read_text(errors="replace")[-2000:]
            raise Unavailable(f"chelad ended with status {process.returncode}:\n{log}")
        self.told = told = json.loads(line)
        server = Server("chelad", process, int(told["listeners"]["gateway"].rpartition(":")[2]))
        server.ready_ms = took_ms
        return self.keep(server)

    def nginx(self, agent_port):
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not os.path.exists(program):
            raise Unavailable("nginx is not installed")
        home = self.dir / "nginx"
        home.mkdir()
        port = free_port()
        text = NGINX_CONF.format(dir=home, port=port, agent=agent_port)
        if os.getuid() != 0:
            text = text.replace("user root;\n", "")
        (home / "nginx.conf").write_text(text)
        process = self.spawn([program, "-p", home, "-c", home / "nginx.conf"], log="nginx.out")
        return wait_for_port(self.keep(Server("nginx", process, port)))

    def fastapi(self):
        port = free_port()
        process = self.spawn([sys.executable, "-B", HERE / "fastapi_bridge.py", "--port", port,
                              "--db", self.dir / "fastapi.db"], log="fastapi.out")
        return wait_for_port(self.keep(Server("fastapi", process, port)))

    def load(self, port, **options):
        return self.run_load("load", port=port, **options)

    def run_load(self, tool, **options):
        """Run a load generator to its end; what it saw, as a dict."""
        argv = [self.tool(tool)]
        for name, value in options.items():
            argv += [f"--{name}", value]
        process = self.spawn(argv, cpu=0, stdout=subprocess.PIPE)
        seen = process.communicate()[0]
        if process.returncode not in (0, 3):
            raise Unavailable(f"the load generator ended with status {process.returncode}")
        return json.loads(seen)

    def close(self):
        self.stack.close()
