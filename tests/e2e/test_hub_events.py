"""GET /events: what happens to agents, tasks and machines, as it happens, for those who look on."""

import contextlib
import json
import queue
import threading

import pytest
from hub_client import Hub
from wait import unique

DEADLINE = 20


@pytest.fixture(scope="module")
def hub(daemon):
    one = Hub(daemon)
    yield one
    one.close()


class Events:
    """A reader of the stream; ready once the hub has said that it is there."""

    def __init__(self, hub, last=None, **params):
        self.found = queue.Queue()
        self.here = threading.Event()
        headers = {"Last-Event-ID": str(last)} if last is not None else {}
        self.stream = hub.http.stream("GET", "/events", params=params, headers=headers, timeout=60)
        self.answer = self.stream.__enter__()
        assert self.answer.status_code == 200
        assert self.answer.headers["content-type"].startswith("text/event-stream")
        threading.Thread(target=self.read, daemon=True).start()
        assert self.here.wait(DEADLINE)

    def read(self):
        event = {}
        with contextlib.suppress(Exception):
            for line in map(str.rstrip, self.answer.iter_lines()):
                if line.startswith(":"):
                    self.here.set()
                elif line:
                    key, _, value = line.partition(": ")
                    event[key] = value
                elif event:
                    self.found.put((event.get("id"), event["event"], json.loads(event["data"])))
                    event = {}

    def next(self, kind=None):
        while True:
            number, event, data = self.found.get(timeout=DEADLINE)
            if kind is None or event == kind:
                return number, event, data

    def close(self):
        self.stream.__exit__(None, None, None)


@pytest.fixture
def events(hub):
    opened = []

    def make(**options):
        opened.append(Events(hub, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_life_of_an_agent_and_its_task(hub, events):
    stream = events()
    agent = hub.agent(unique("seen"))
    assert stream.next("agent.registered")[2]["agentId"] == agent.name
    assert stream.next("agent.online")[2]["agentId"] == agent.name
    task = hub.task(agent.name, {"type": "exec", "command": "true"})["taskId"]
    assert stream.next("task.queued")[2]["taskId"] == task
    agent.expect("task")
    agent.send("response", {"taskId": task, "success": True, "result": {}})
    ended = stream.next("task.ended")[2]
    assert ended["taskId"] == task and ended["agentId"] == agent.name
    agent.close()
    assert stream.next("agent.offline")[2]["agentId"] == agent.name
    assert hub.http.delete(f"/agents/{agent.name}").status_code == 200
    assert stream.next("agent.deregistered")[2]["agentId"] == agent.name


def test_numbers_grow_and_the_body_says_when(hub, events):
    stream = events()
    for _ in range(3):
        hub.register(unique("counted"))
    numbers = []
    for _ in range(3):
        number, event, data = stream.next("agent.registered")
        assert data["type"] == event and data["seq"] == int(number)
        assert data["timestamp"] > 1_600_000_000_000
        numbers.append(int(number))
    assert numbers == sorted(set(numbers))


def test_who_comes_back_goes_on_where_they_were(hub, events):
    stream = events()
    first, second, third = unique("gap"), unique("gap"), unique("gap")
    hub.register(first)
    number = stream.next("agent.registered")[0]
    stream.close()
    hub.register(second)
    hub.register(third)
    again = events(last=number)
    assert [again.next("agent.registered")[2]["agentId"] for _ in range(2)] == [second, third]


def test_who_was_away_too_long_is_told_that_some_are_missing(hub, events):
    stream = events(last=1)
    number, event, data = stream.next()
    assert event == "missed" and data["before"] > 1 and number is None


def test_only_the_types_that_were_asked_for(hub, events):
    stream = events(type="agent.deregistered, task.")
    name = unique("filtered")
    hub.register(name)
    hub.http.delete(f"/agents/{name}")
    number, event, data = stream.next()
    assert event == "agent.deregistered" and data["agentId"] == name


def test_a_bad_number_is_refused(hub):
    answer = hub.http.get("/events", headers={"Last-Event-ID": "yesterday"})
    assert answer.status_code == 400


def test_many_readers_see_the_same(hub, events):
    streams = [events() for _ in range(8)]
    names = [unique("many") for _ in range(20)]
    for name in names:
        hub.register(name)
    for stream in streams:
        assert [stream.next("agent.registered")[2]["agentId"] for _ in names] == names


def test_the_daemon_stops_while_somebody_looks_on(start):
    hub = Hub(start())
    stream = Events(hub)
    hub.daemon.stop()
    stream.close()
    hub.close()
