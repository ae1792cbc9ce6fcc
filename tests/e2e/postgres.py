"""A private PostgreSQL cluster in a temporary directory, with fsync on, as a user would run it."""

import glob
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile

from wait import eventually

ACCOUNT = "postgres"  # the server refuses to run as root


def program_dir():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"),
                   key=lambda path: int(path.split("/")[-2]))
    assert found, "PostgreSQL's server programs are not installed (Debian: postgresql)"
    return pathlib.Path(found[-1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


MEMORY, MEMORY_MIN = "/dev/shm", 2 << 30


def memory():
    """A directory in memory, if there is room: a database of its own for each test is hundreds of files."""
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return None
    return MEMORY if room.f_bavail * room.f_frsize > MEMORY_MIN and os.access(MEMORY, os.W_OK) else None


class Cluster:
    def __init__(self, in_memory=False):
        """in_memory: what is asked of it is not what a disk does (where there is no room there, it is on disk)."""
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="chela-pg-", dir=memory() if in_memory else None))
        self.data = self.base / "data"
        self.port = free_port()
        self.bin = program_dir()
        self.process = None
        self.databases = 0
        if os.geteuid() == 0:
            user = pwd.getpwnam(ACCOUNT)
            os.chown(self.base, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", self.data, "-U", "chela", "-A", "trust", "-E", "UTF8",
                  "--no-locale", "--no-sync")  # a machine that dies takes the test along

    def _as_account(self, *command):
        command = [str(part) for part in command]
        if os.geteuid() != 0:
            return command
        return ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", *command]

    def _run(self, program, *arguments):
        done = subprocess.run(self._as_account(self.bin / program, *arguments), cwd="/",
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *settings):
        """settings: NAME=VALUE of the server's; fsync=off where no machine dies."""
        log = open(self.base / "server.log", "ab")
        with log:
            self.process = subprocess.Popen(
                self._as_account(self.bin / "postgres", "-D", self.data, "-k", self.base, "-h",
                                 "127.0.0.1", "-p", self.port, "-c", "max_connections=200", "-c", "max_wal_size=256MB",
                                 *[word for one in settings for word in ("-c", one)]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        eventually(self._accepts, deadline=30, every=0.05)
        return self

    def _accepts(self):
        assert self.process.poll() is None, (self.base / "server.log").read_text()
        done = subprocess.run([self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p",
                               str(self.port), "-U", "chela", "-d", "postgres"], timeout=30)
        return done.returncode == 0

    def stop(self, mode="fast"):
        """mode is pg_ctl's: fast (connections are closed) or immediate (as after a crash)."""
        if self.process:
            self._run("pg_ctl", "stop", "-D", self.data, "-m", mode, "-w")
            self.process.wait(30)
            self.process = None

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.base)

    def psql(self, sql, database="postgres"):
        return self._run("psql", "-h", "127.0.0.1", "-p", self.port, "-U", "chela", "-d", database,
                         "-v", "ON_ERROR_STOP=1", "-qAtc", sql)

    def new_database(self):
        """The URL of a fresh, empty database."""
        self.databases += 1
        name = f"test_{self.databases}"
        self.psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def empty(self, url):
        """Make a database as it was when it was new."""
        self.psql("DROP SCHEMA IF EXISTS dbos CASCADE; DROP SCHEMA public CASCADE;"
                  " CREATE SCHEMA public", url.rsplit("/", 1)[1])

    def url(self, name):
        return f"postgres://chela@127.0.0.1:{self.port}/{name}"

    def dump(self, url):
        return self._run("pg_dump", "-d", url)


class Bouncer:
    """PgBouncer in transaction mode before every database of a cluster."""

    def __init__(self, cluster, pool=10):
        self.port = free_port()
        self.path = cluster.base / "pgbouncer.ini"
        self.path.write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port} user=chela\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool}\nmax_client_conn = 500\n"
            "ignore_startup_parameters = extra_float_digits\n"
            f"logfile = {cluster.base}/pgbouncer.log\npidfile = {cluster.base}/pgbouncer.pid\n")
        command = ["pgbouncer", "-q", str(self.path)]
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            command = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, cwd="/")
        eventually(self._accepts, 30, every=0.05)

    def _accepts(self):
        assert self.process.poll() is None, "pgbouncer ended"
        return subprocess.run(["psql", "-d", f"postgres://chela@127.0.0.1:{self.port}/postgres", "-c", "SELECT 1"],
                              capture_output=True, timeout=30).returncode == 0

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
