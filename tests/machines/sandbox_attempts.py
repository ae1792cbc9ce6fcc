# SPDX-License-Identifier: MIT
"""Runs inside a sandbox and tries to get out. Prints one line of JSON: {attempt: what came of it}.

What must fail says "refused: why"; what worked says "ESCAPED: how". Takes what to look for as JSON in argv[1].
"""

import ctypes
import errno
import fcntl
import json
import os
import pathlib
import pty
import socket
import sys
import termios

libc = ctypes.CDLL(None, use_errno=True)
# x86-64
SYS = {"ptrace": 101, "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308, "mknod": 133, "bpf": 321,
       "keyctl": 250, "add_key": 248, "perf_event_open": 298, "kexec_load": 246, "init_module": 175, "finit_module": 313,
       "process_vm_readv": 310, "pidfd_getfd": 438, "io_uring_setup": 425, "userfaultfd": 323, "open_tree": 428,
       "open_by_handle_at": 304, "clone3": 435, "reboot": 169, "swapon": 167, "sethostname": 170, "settimeofday": 164,
       "chroot": 161, "iopl": 172, "syslog": 103, "setuid": 105, "fsopen": 430}
CLONE_NEWUSER = 0x10000000


def syscall(name, *args):
    ctypes.set_errno(0)
    result = libc.syscall(SYS[name], *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def clone_user():
    pid = libc.syscall(56, CLONE_NEWUSER | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return "a user namespace"


def tiocsti():
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSTI, b"x")
    return "TIOCSTI"


def tiocsti_high():
    """The kernel ignores the upper half of the number."""
    primary, secondary = pty.openpty()
    ctypes.set_errno(0)
    if libc.syscall(16, secondary, ctypes.c_ulong(termios.TIOCSTI | 1 << 32), b"x") < 0:
        raise OSError(ctypes.get_errno(), "ioctl")
    return "TIOCSTI"


def connect(host, port):
    with socket.create_connection((host, port), timeout=2) as sock:
        return str(sock.getpeername())


def abstract(name):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + name)
    return "connected"


def family(number):
    with socket.socket(number, socket.SOCK_STREAM):
        return "a socket"


def http(path, method="GET", body="", headers=""):
    """By the agents' socket: anything but a refusal is an escape."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect("/run/chela/hub.sock")
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
                     f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    status = int(answer.split(b" ", 2)[1])
    if status < 400:
        return answer[:300].decode(errors="replace")
    raise OSError(status, "HTTP")


def upgrade(path):
    return http(path, headers="Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                              "Sec-WebSocket-Version: 13\r\n")


def read(path):
    return pathlib.Path(path).read_bytes()[:50].hex() or "empty"


def write(path):
    pathlib.Path(path).write_text("x")
    return "written"


def attempts(aim):
    token = json.loads(pathlib.Path("/etc/vm-agent/config.json").read_text())["token"]
    buffer = ctypes.create_string_buffer(256)
    yield "the host's passwords", lambda: read("/etc/shadow")
    yield "the host's root", lambda: os.listdir("/root")
    yield "a secret of the host", lambda: read(aim["secret"])
    yield "the state directory", lambda: os.listdir(aim["state"])
    yield "the secret by proc", lambda: read("/proc/1/root" + aim["secret"])
    yield "another sandbox's directory", lambda: os.listdir(aim["other"])
    yield "/sys", lambda: os.listdir("/sys")
    yield "/usr is written", lambda: write("/usr/escape")
    yield "/etc is written", lambda: write("/etc/escape")
    yield "/ is written", lambda: write("/escape")
    yield "/dev is written", lambda: write("/dev/escape")
    yield "the sockets' directory is written", lambda: write("/run/chela/escape")
    yield "the agent is written", lambda: write("/run/chela-agent")
    yield "its config is written", lambda: write("/etc/vm-agent/config.json")
    yield "a block device", lambda: syscall("mknod", b"/tmp/disk", 0o60600, os.makedev(8, 0))
    yield "a character device", lambda: syscall("mknod", b"/tmp/mem", 0o20600, os.makedev(1, 1))
    yield "the kernel's memory", lambda: read("/proc/kcore")
    yield "sysrq", lambda: write("/proc/sysrq-trigger")
    yield "core_pattern", lambda: write("/proc/sys/kernel/core_pattern")
    for pid in aim["pids"]:
        yield f"process {pid} is seen", lambda: os.listdir(f"/proc/{pid}")
        yield f"process {pid} is signalled", lambda: os.kill(pid, 0) or "signalled"
    for host, port in aim["ports"]:
        yield f"{host}:{port}", lambda: connect(host, port)
    yield "an abstract socket of the host", lambda: abstract(aim["abstract"])
    yield "vsock", lambda: family(40)
    yield "AF_ALG", lambda: family(38)
    yield "packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW) and "a socket"
    yield "raw IP", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and "a socket"
    yield "mount", lambda: syscall("mount", b"none", b"/tmp", b"tmpfs", 0, 0) or "mounted"
    yield "umount", lambda: syscall("umount2", b"/tmp", 2) or "unmounted"
    yield "pivot_root", lambda: syscall("pivot_root", b".", b".") or "done"
    yield "chroot", lambda: syscall("chroot", b"/tmp") or "done"
    yield "unshare", lambda: syscall("unshare", CLONE_NEWUSER) or "done"
    yield "setns", lambda: syscall("setns", os.open("/proc/1/ns/net", os.O_RDONLY), 0) or "done"
    yield "clone", clone_user
    yield "clone3", lambda: syscall("clone3", buffer, 64)
    yield "ptrace", lambda: syscall("ptrace", 16, 1, 0, 0) or "attached"
    yield "memory of others", lambda: syscall("process_vm_readv", 1, buffer, 1, buffer, 1, 0)
    yield "TIOCSTI", tiocsti
    yield "TIOCSTI, dressed", tiocsti_high
    for name in ("bpf", "keyctl", "add_key", "perf_event_open", "kexec_load", "init_module", "finit_module", "pidfd_getfd",
                 "io_uring_setup", "userfaultfd", "open_tree", "open_by_handle_at", "reboot", "swapon", "sethostname",
                 "settimeofday", "iopl", "fsopen", "setuid"):
        yield name, lambda name=name: str(syscall(name, 0, 0, 0, 0, 0))
    yield "syslog", lambda: str(syscall("syslog", 3, buffer, 100))
    for path in ("/agents", "/machines", "/metrics", "/health", "/admin/stats", "/tasks", "/events", "/", "/api/v1/keys"):
        yield f"GET {path}", lambda path=path: http(path)
    yield "a machine is made", lambda: http("/machines", "POST", '{"name":"escape"}')
    yield "a task for another", lambda: http(f"/agents/{aim['other_name']}/task", "POST", '{"type":"exec","command":"id"}')
    yield "a registration", lambda: http("/agents/register", "POST", '{"agentId":"escape"}')
    yield "the token as an operator's", lambda: http("/agents", headers=f"Authorization: Bearer {token}\r\n")
    yield "another's WebSocket", lambda: upgrade(f"/agent/{aim['other_name']}/{token}")
    yield "an observer", lambda: upgrade(f"/agent/host/{token}")
    yield "an operator's shell", lambda: upgrade(f"/agents/{aim['other_name']}/shell")


def main():
    results = {}
    for name, attempt in attempts(json.loads(sys.argv[1])):
        try:
            results[name] = f"ESCAPED: {attempt()}"
        except OSError as error:
            results[name] = f"refused: {errno.errorcode.get(error.errno, error.errno)}"
    print(json.dumps(results))


main()
