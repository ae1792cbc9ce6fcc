"""What tests of workflows do with a daemon: start, look, wait; and SQL on its database."""

import contextlib
import sqlite3
import subprocess

from wait import eventually

CALL = "bridge.call"
ACTIVE = ("ENQUEUED", "DELAYED", "PENDING")


def path(workflow_id, suffix=""):
    encoded = "".join(f"%{byte:02X}" for byte in workflow_id.encode())
    return f"/api/v1/workflows/{encoded}{suffix}"


def ask(agent_name, prompt="hello", **fields):
    """The body that starts a call of an agent as a workflow."""
    question = {"agent_name": agent_name, "prompt": prompt, **fields.pop("question", {})}
    return {"name": CALL, "args": [question], **fields}


def start(daemon, body, status=201, **headers):
    answer = daemon.http.post("/api/v1/workflows", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def begin(daemon, agent_name, prompt="hello", **fields):
    """Start a call and return the workflow's id."""
    return start(daemon, ask(agent_name, prompt, **fields))["id"]


def show(daemon, workflow_id):
    answer = daemon.http.get(path(workflow_id))
    assert answer.status_code == 200, answer.text
    return answer.json()


def steps(daemon, workflow_id):
    answer = daemon.http.get(path(workflow_id, "/steps"))
    assert answer.status_code == 200, answer.text
    return answer.json()["steps"]


def listed(daemon, **query):
    answer = daemon.http.get("/api/v1/workflows", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["workflows"]


def result(daemon, workflow_id, timeout=30):
    """Its outcome, which must come in time."""
    answer = daemon.http.get(path(workflow_id, "/result"), params={"timeout": timeout})
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(daemon, workflow_id, verb, body=None, status=204):
    answer = daemon.http.post(path(workflow_id, f"/{verb}"), json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def wait_status(daemon, workflow_id, *wanted, deadline=30):
    return eventually(lambda: (lambda one: one if one["status"] in wanted else None)(
        show(daemon, workflow_id)), deadline)


def sql(daemon, text):
    """Run SQL as a client that knows nothing of chela would. Tables are written dbos.NAME."""
    url = daemon.env.get("DATABASE_URL")
    if url:
        done = subprocess.run(["psql", url, "-v", "ON_ERROR_STOP=1", "-qAtc", text],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [line.split("|") for line in done.stdout.splitlines()]
    with contextlib.closing(sqlite3.connect(daemon.state / "chela.db", timeout=30)) as database:
        with database:
            cursor = database.execute(text.replace("dbos.", ""))
            return [[str(value) for value in row] for row in cursor.fetchall()]
