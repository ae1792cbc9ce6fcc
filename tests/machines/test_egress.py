# SPDX-License-Identifier: MIT
"""The way out of a sandbox: what its list names is reached through the proxy, nothing else, and only by addresses that
are not this host's. The servers stand in a network namespace, so that they are another host."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_sandbox import Fleet
from wait import eventually

pytestmark = pytest.mark.xdist_group("egress")

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed", allow_module_level=True)
if os.geteuid() != 0 or shutil.which("ip") is None:
    pytest.skip("another host is made by root with ip(8)", allow_module_level=True)

NAME = f"chela{os.getpid() % 100000}"
NET = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
HERE, THERE = f"{NET}.1", f"{NET}.2"

SERVER = """
import http.server, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{self.headers['Host']} {self.path} {self.headers.get('Proxy-Authorization')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *args):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
for port in (80, 8080, 9999):
    threading.Thread(target=Server((sys.argv[1], port), Handler).serve_forever).start()
print("ready", flush=True)
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def other_host():
    try:
        ip("netns", "add", NAME)
        ip("link", "add", f"{NAME}a", "type", "veth", "peer", "name", f"{NAME}b")
    except subprocess.CalledProcessError as error:
        subprocess.run(["ip", "netns", "del", NAME], capture_output=True)
        pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
    server = None
    try:
        ip("link", "set", f"{NAME}b", "netns", NAME)
        ip("addr", "add", f"{HERE}/24", "dev", f"{NAME}a")
        ip("link", "set", f"{NAME}a", "up")
        ip("netns", "exec", NAME, "ip", "addr", "add", f"{THERE}/24", "dev", f"{NAME}b")
        ip("netns", "exec", NAME, "ip", "link", "set", f"{NAME}b", "up")
        server = subprocess.Popen(["ip", "netns", "exec", NAME, sys.executable, "-c", SERVER, THERE], stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"ready\n"
        yield THERE
    finally:
        if server:
            server.kill()
            server.wait()
        subprocess.run(["ip", "link", "del", f"{NAME}a"], capture_output=True)
        subprocess.run(["ip", "netns", "del", NAME], capture_output=True)


@pytest.fixture(scope="module")
def fleet(daemon, other_host):
    return Fleet(daemon)


@pytest.fixture(scope="module")
def box(fleet):
    fleet.create("out", allow=[f"{THERE}:8080", THERE, "127.0.0.1:*", "127.0.0.1", "localhost", HERE, f"{HERE}:8080",
                               "169.254.169.254", "*"])
    yield "out"
    fleet.destroy("out")


def fetch(fleet, box, *words):
    """curl inside: (status, body)."""
    quoted = " ".join(f"'{word}'" for word in words)
    text = fleet.run(box, f"curl -s -m 20 -w '\\n%{{http_code}} %{{http_connect}}' {quoted} || true")
    body, _, codes = text.rpartition("\n")
    return codes.split(), body


def test_what_the_list_names_is_reached(fleet, box, other_host):
    codes, body = fetch(fleet, box, f"http://{other_host}:8080/a?b=c", "-H", "Host: other", "-H", "Proxy-Authorization: s")
    assert codes == ["200", "000"] and body == f"{other_host}:8080 /a?b=c None"
    codes, body = fetch(fleet, box, f"http://{other_host}/x", "-p")
    assert codes == ["200", "200"] and body == f"{other_host} /x None"
    codes, body = fetch(fleet, box, f"http://{other_host}:8080/", "-d", "abc" * 10)
    assert codes[0] == "200" and body == "cba" * 10


def test_large_bodies_pass_both_ways(fleet, box, other_host):
    said = fleet.run(box, "head -c 5000000 /dev/urandom > /tmp/up && curl -sS -m 60 --data-binary @/tmp/up "
                          f"-o /tmp/down http://{other_host}:8080/ && "
                          "/usr/bin/python3 -c 'print(open(\"/tmp/up\",\"rb\").read()[::-1] == open(\"/tmp/down\",\"rb\").read())'")
    assert said == "True"


def test_other_ports_and_names_are_refused_with_what_would_allow_them(fleet, box, other_host):
    codes, body = fetch(fleet, box, f"http://{other_host}:9999/")
    assert codes[0] == "403" and f"{other_host}:9999" in body and "--allow" in body
    codes, _ = fetch(fleet, box, f"http://{other_host}:9999/", "-p")
    assert codes == ["000", "403"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0.0.0.0",
                                  "its own"])
def test_the_host_and_metadata_services_are_refused_whatever_the_list_says(fleet, box, host):
    host = HERE if host == "its own" else host
    codes, body = fetch(fleet, box, f"http://{host}/", "--noproxy", "")
    assert codes[0] == "403", body


def test_there_is_no_other_way(fleet, box, other_host):
    said = fleet.run(box, f"curl -s -m 5 --noproxy '*' http://{other_host}:8080/ ; echo $?")
    assert said == "7"
    said = fleet.run(box, "curl -s -m 5 --noproxy '*' http://example.com/ ; echo $?")
    assert said == "6"


def test_without_a_list_there_is_no_proxy(fleet, other_host):
    fleet.create("in")
    assert fleet.run("in", "env | grep -i proxy || true") == ""
    assert fleet.run("in", f"curl -s -m 5 -x http://127.0.0.1:3128 http://{other_host}:8080/ ; echo $?") == "7"
    assert fleet.run("in", "ls /run/chela").split() == ["hub.sock"] or \
        fleet.run("in", f"curl -s -m 5 --unix-socket /run/chela/egress.sock http://{other_host}:8080/ -o /dev/null "
                        "-w '%{http_code}'; true") != "200"
    fleet.destroy("in")


def test_a_wildcard_does_not_lead_to_private_addresses(fleet, other_host):
    fleet.create("wild", allow=["*", "*:8080"])
    codes, body = fetch(fleet, "wild", f"http://{other_host}:8080/")
    assert codes[0] == "403" and "its network" in body
    fleet.destroy("wild")


def test_the_way_out_is_there_again_after_the_daemon_was_killed(start, other_host):
    daemon = start()
    fleet = Fleet(daemon)
    fleet.create("again", allow=[f"{other_host}:8080"])
    assert fetch(fleet, "again", f"http://{other_host}:8080/")[0][0] == "200"
    os.kill(daemon.ready["pid"], signal.SIGKILL)
    daemon.process.wait(30)
    daemon.start()
    fleet = Fleet(daemon)
    fleet.settled("again", "running")
    fleet.online("again")
    eventually(lambda: fetch(fleet, "again", f"http://{other_host}:8080/")[0][0] == "200", 30)
    fleet.destroy("again")


def test_who_says_nothing_and_who_says_too_much_are_let_go(fleet, box):
    """By the socket itself, as a program in the sandbox could."""
    path = fleet.directory(box) / "run/egress.sock"
    silent = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for sock in silent:
        sock.connect(str(path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(b"GET http://x.test/ HTTP/1.1\r\n" + b"X: " + b"y" * 30000)
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert fetch(fleet, box, "http://127.0.0.1/", "--noproxy", "")[0][0] == "403"
    for sock in silent:
        sock.close()
    began = time.monotonic()
    assert fleet.http.get("/health").status_code == 200 and time.monotonic() - began < 20
