"""A database with our engine on it, as the clients of DBOS meet it: World."""

import json
import os
import pathlib
import select
import signal
import subprocess

from wait import eventually

BUILD = pathlib.Path(os.environ.get("CHELA_BUILD_DIR")
                     or pathlib.Path(__file__).resolve().parents[2] / "build").resolve()
HOST = BUILD / "tests" / "dbos" / "dbos-host"
PATIENCE = 30  # seconds for anything that must happen
BEGINNING = 90  # for a program to serve: it makes a whole schema on a disk that others use too
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:")


class HostFailed(Exception):
    """The host ended instead of serving."""


def read_ready(descriptor, process):
    """Wait for the line on a ready descriptor; false when the other side is gone."""
    try:
        ready, _, _ = select.select([descriptor], [], [], BEGINNING)
        assert ready, f"pid {process.pid} said nothing for {BEGINNING} s"
        return os.read(descriptor, 64) == b"ready\n"
    finally:
        os.close(descriptor)


class Host:
    """One dbos-host process. Its standard error is a file in the world's directory."""

    def __init__(self, world, instance, flags=(), database=None):
        self.log_path = world.path / f"{instance}.stderr"
        reading, writing = os.pipe()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [HOST, "--database", database or world.url, "--ledger", world.ledger_path,
                 "--gates", world.gates, "--instance", instance, "--ready-fd", str(writing), *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(writing,))
        os.close(writing)
        if not read_ready(reading, self.process):
            status = self.process.wait(PATIENCE)
            raise HostFailed(f"dbos-host ended with status {status}:\n{self.log()}")

    def log(self):
        return self.log_path.read_text(errors="replace")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self):
        """An orderly end, without a complaint of a sanitizer."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        assert status == 0, f"dbos-host ended with status {status}:\n{self.log()[-4000:]}"
        assert not any(mark in self.log() for mark in SANITIZER_MARKS), self.log()


class World:
    """A database by its URLs, the ledger its workflows write, and their gates."""

    def __init__(self, path, url, client_url=None):
        self.path = pathlib.Path(path)
        self.url = url
        self.client_url = client_url or url
        self.ledger_path = self.path / "ledger"
        self.gates = self.path / "gates"
        self.gates.mkdir(parents=True, exist_ok=True)
        self.ledger_path.touch()

    def host(self, instance, *flags, database=None):
        return Host(self, instance, flags, database)

    def open_gate(self, name):
        (self.gates / name).touch()

    def ledger(self, prefix):
        """What was noted of the workflows whose ids begin so: (what, workflow, step, pid)."""
        lines = (line.split() for line in self.ledger_path.read_text().splitlines())
        return [(what, id, int(step), int(pid)) for what, id, step, pid in lines if id.startswith(prefix)]

    def runs(self, id):
        """How often the body of each step has begun: {step: times}."""
        times = {}
        for what, _, step, _ in [line for line in self.ledger(id) if line[1] == id]:
            if what == "begin":
                times[step] = times.get(step, 0) + 1
        return times

    def begun(self, id, step=0, times=1):
        """Wait until a step's body has begun so often."""
        eventually(lambda: self.runs(id).get(step, 0) >= times, PATIENCE, every=0.02)

    def psql(self, sql):
        """Standard output of psql; its standard error is the message of an AssertionError."""
        done = subprocess.run(["psql", "-d", self.url, "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-qAtc", sql],
                              capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def rows(self, sql):
        return json.loads(self.psql(f"SELECT coalesce(json_agg(t), '[]') FROM ({sql}) t"))

    def row(self, id):
        """The row of a workflow with its payloads: inputs, output and error of both places."""
        found = self.rows(
            "SELECT s.*, i.inputs AS new_inputs, o.output AS new_output, o.error AS new_error"
            " FROM dbos.workflow_status s LEFT JOIN dbos.workflow_input i USING (workflow_uuid)"
            f" LEFT JOIN dbos.workflow_output o USING (workflow_uuid) WHERE s.workflow_uuid = '{id}'")
        return found[0] if found else None

    def wait_row(self, id, wanted):
        """Wait until the row satisfies wanted, and return it."""
        last = {}

        def probe():
            last["row"] = self.row(id)
            return last["row"] is not None and wanted(last["row"])

        try:
            eventually(probe, PATIENCE, every=0.05)
        except AssertionError as e:
            raise AssertionError(f"{e}; the row: {last}") from None
        return last["row"]

    def wait_status(self, id, *statuses):
        return self.wait_row(id, lambda row: row["status"] in statuses)


def overlap(lines, same=lambda line: None):
    """The most that ran at once, for each value of same(line): {value: most}."""
    running, most = {}, {}
    for line in lines:
        key = same(line)
        running[key] = running.get(key, 0) + (1 if line[0] == "begin" else -1)
        most[key] = max(most.get(key, 0), running[key])
    return most
