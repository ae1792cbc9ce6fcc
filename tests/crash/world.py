"""One database under test: the hosts on it, what they accepted, and the checks at the end."""

import os
import pathlib
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter, defaultdict

from wait import eventually

BUILD = pathlib.Path(os.environ.get("CHELA_BUILD_DIR", "build")).resolve()
PATIENCE = 120  # seconds for anything that must happen


class Host:
    """A crash-host. Its answers are read by a thread, so that a kill never leaves us waiting."""

    def __init__(self, world, *flags, instance="host"):
        self.world = world
        self.log = open(world.path / "host.log", "ab")
        self.process = subprocess.Popen(
            [BUILD / "tests" / "crash" / "crash-host", "--database", world.url, "--ledger", world.ledger,
             "--instance", instance, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.lines, self.ended = [], threading.Event()
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            line = line.strip()
            if line.startswith("accepted "):
                self.world.accepted.add(line.split()[1])
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        with self.changed:
            self.ended.set()
            self.changed.notify_all()

    def send(self, line):
        """False when the host is gone."""
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            return True
        except (BrokenPipeError, ValueError):
            return False

    def wait_for(self, word, patience=PATIENCE):
        """The first line that begins with word, or None when the host ended before it."""
        end = time.monotonic() + patience
        with self.changed:
            while True:
                found = [line for line in self.lines if line.startswith(word)]
                if found:
                    self.lines.remove(found[0])
                    return found[0]
                if self.ended.is_set():
                    return None
                left = end - time.monotonic()
                assert left > 0, f"no '{word}' within {patience} s\n{self.world.picture()}"
                self.changed.wait(left)

    def start(self, name, id, seed, queue="-"):
        self.world.wanted[id] = (name, seed, queue)
        return self.send(f"start {name} {id} {seed} {queue}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.gone()

    def gone(self):
        self.process.wait(PATIENCE)
        self.reader.join()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # what it had not read
        self.log.close()

    def stop(self):
        if self.process.poll() is None:
            self.send("stop")
            assert self.process.wait(PATIENCE) == 0, self.world.picture()
        self.gone()


class World:
    def __init__(self, path, cluster):
        self.path, self.cluster = path, cluster
        self.ledger = path / "ledger"
        self.ledger.touch()
        self.url = cluster.new_database() if cluster else f"sqlite:{path / 'crash.db'}"
        self.wanted = {}      # id -> (workflow, seed, queue)
        self.accepted = set() # ids of which a host has said so
        self.hosts = []

    def host(self, *flags, **options):
        self.hosts.append(Host(self, *flags, **options))
        return self.hosts[-1]

    def close(self):
        for host in self.hosts:
            if host.process.poll() is None:
                host.kill()

    def finish(self, host):
        """Ask again for what was never accepted, then run until nothing is active."""
        for id, (name, seed, queue) in list(self.wanted.items()):
            if id not in self.accepted:
                assert host.start(name, id, seed, queue)
        eventually(lambda: self.wanted.keys() <= self.accepted, PATIENCE)
        assert host.send("idle")
        assert host.wait_for("idle"), self.picture()

    def rows(self, sql):
        if self.cluster:
            text = self.cluster.psql(sql, self.url.rsplit("/", 1)[1])
            return [line.split("|") for line in text.splitlines()]
        with sqlite3.connect(self.path / "crash.db", timeout=30) as db:
            return [["" if v is None else str(v) for v in row] for row in db.execute(sql.replace("dbos.", ""))]

    def picture(self):
        rows = self.rows("SELECT s.workflow_uuid, status, queue_name, executor_id, recovery_attempts, error,"
                         " delay_until_epoch_ms, s.updated_at, p.kind, p.target, p.topic, p.since_ms"
                         " FROM dbos.workflow_status s LEFT JOIN durable_parked p"
                         " ON p.workflow_uuid = s.workflow_uuid WHERE status <> 'SUCCESS' LIMIT 20")
        log = (self.path / "host.log").read_text()[-3000:]
        return "not finished:\n" + "\n".join(map(str, rows)) + f"\nhosts said:\n{log}"

    def results(self):
        """The output of everything that was asked for, by id."""
        rows = self.rows("SELECT s.workflow_uuid, s.status, o.output, s.output FROM dbos.workflow_status s"
                         " LEFT JOIN dbos.workflow_output o ON o.workflow_uuid = s.workflow_uuid")
        found = {row[0]: row[1:] for row in rows}
        for id in self.accepted:
            assert id in found, f"{id} was accepted and is lost"
        for id, (status, output, legacy) in found.items():
            assert status == "SUCCESS", f"{id} is {status}\n{self.picture()}"
            assert output == legacy, id
        return {id: found[id][1] for id in self.wanted}

    def check_effects(self):
        """No body ran with its record there; each transactional effect is there exactly once."""
        reruns = [line for line in self.ledger.read_text().splitlines() if line.endswith("RECORDED")]
        assert not reruns, f"bodies that ran although they were recorded: {reruns}"
        effects = Counter((w, s) for w, s in self.rows("SELECT workflow, step FROM crash_effects"))
        twice = [key for key, n in effects.items() if n > 1]
        assert not twice, f"transactional steps that took effect twice: {twice}"
        recorded = {(w, s) for w, s in self.rows("SELECT workflow_uuid, function_name FROM dbos.operation_outputs"
                                                 " WHERE function_name NOT LIKE 'DBOS.%' AND error IS NULL")}
        missing = [key for key in effects if key not in recorded]
        assert not missing, f"effects without a record: {missing}"

    def check_same(self):
        """Workflows of one name and seed have one result, whatever happened to them."""
        groups = defaultdict(set)
        for id, result in self.results().items():
            name, seed, _ = self.wanted[id]
            groups[name, seed].add(result)
        different = {key: found for key, found in groups.items() if len(found) > 1}
        assert not different, different

    def check(self):
        self.check_effects()
        self.check_same()
        left = self.rows("SELECT count(*) FROM durable_parked")[0][0]
        assert left == "0", "parked rows are left behind"


def start_all(host, jobs):
    for id, (name, seed, queue) in jobs.items():
        if not host.start(name, id, seed, queue):
            return


def baseline(world, jobs):
    """The results without any crash, as workflows of their own."""
    host = world.host()
    assert host.wait_for("ready")
    start_all(host, {f"clean-{id}": job for id, job in jobs.items()})
    world.finish(host)
    host.stop()


def random_jobs(rng, n):
    jobs = {}
    for i in range(n):
        name = rng.choice(["random", "random", "random", "big"])
        jobs[f"j{i}"] = (name, rng.randrange(1, 60), rng.choice(["-", "-", "free", "two"]))
    return jobs
