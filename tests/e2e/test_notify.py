"""Messages that go out through an OpenClaw gateway: in order, once, at their rate, and never lost while it is away."""

import time

import pytest
from gateway import Socket, post_message
from openclaw_peer import TOKEN, OpenClaw
from wait import eventually


@pytest.fixture
def openclaw():
    peer = OpenClaw()
    yield peer
    peer.stop()


@pytest.fixture
def launch(start, openclaw):
    def make(*flags, **options):
        env = {"OPENCLAW_TOKEN": TOKEN, **options.pop("env", {})}
        return start(f"--openclaw.url={openclaw.url}", *flags, env=env, **options)
    return make


def connected(daemon):
    eventually(lambda: daemon.http.get("/api/v1/openclaw/status").json()["connected"], 60)
    return daemon


def message(daemon, workflow):
    answer = daemon.http.get(f"/api/v1/messages/{workflow}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(daemon, workflow, status="acknowledged"):
    return eventually(lambda: (now := message(daemon, workflow))["status"] == status and now, 60)


def working(daemon, issue, session):
    """Work on an issue whose notifications go to a session."""
    answer = daemon.http.post("/api/v1/commands", json={"message": f"work on issue {issue}", "from": session})
    assert answer.json()["success"] is True, answer.text


def report(daemon, issue, error):
    answer = daemon.http.patch(f"/api/v1/trackers/{issue}", json={"tests": "failing", "error": error})
    assert answer.status_code == 200, answer.text


def test_a_channel_gets_a_text(launch, openclaw):
    daemon = connected(launch())
    workflow = post_message(daemon, "telegram:12345", "hello there", id="m1")["workflowUuid"]
    ended(daemon, workflow)
    (method, params), = openclaw.said
    assert method == "send" and params["message"] == "hello there"
    assert (params["channel"], params["to"], params["idempotencyKey"]) == ("telegram", "12345", workflow)


def test_an_agent_takes_a_turn_and_its_answer_is_the_response(launch, openclaw):
    daemon = connected(launch())
    workflow = post_message(daemon, "agent:whatsapp:main", "how far are you?")["workflowUuid"]
    assert ended(daemon, workflow)["response"] == "heard: how far are you?"
    (method, params), = openclaw.said
    assert method == "agent" and params["sessionKey"] == "agent:whatsapp:main"
    assert params["idempotencyKey"] == workflow and params["deliver"] is True
    assert "extraSystemPrompt" not in params


def test_a_notification_is_to_be_passed_on_word_for_word(launch, openclaw):
    daemon = connected(launch())
    working(daemon, 7, "agent:whatsapp:main")
    text, = openclaw.wait_texts(1)
    assert text.startswith("✓ Agent spawned for issue #7\n\nAgent ID: ")
    assert "word for word" in openclaw.said[0][1]["extraSystemPrompt"]


def test_sessions_that_are_not_routed_stay_here(launch, openclaw):
    daemon = connected(launch())
    post_message(daemon, "agent:issue-1:main", "for a consumer")
    post_message(daemon, "telegram:1", "for the channel")
    assert openclaw.wait_texts(1) == ["for the channel"]
    with Socket(daemon) as reader:
        reader.subscribe("agent:issue-1:main")
        assert reader.message()["content"] == "for a consumer"
    assert openclaw.texts() == ["for the channel"]


def test_one_session_is_in_order(launch, openclaw):
    daemon = connected(launch("--openclaw.notify_rate=1000"))
    for number in range(30):
        post_message(daemon, "telegram:1", f"text {number}")
        post_message(daemon, "telegram:2", f"other {number}")
    texts = openclaw.wait_texts(60)
    assert [text for text in texts if text.startswith("text")] == [f"text {n}" for n in range(30)]
    assert [text for text in texts if text.startswith("other")] == [f"other {n}" for n in range(30)]


def test_nothing_is_lost_while_the_gateway_is_away(launch, openclaw):
    """Nor over restarts of ours, by order or by SIGKILL."""
    openclaw.stop()
    daemon = launch()
    working(daemon, 7, "telegram:1")
    post_message(daemon, "telegram:1", "one")
    daemon.kill()
    daemon.start()
    post_message(daemon, "telegram:1", "two")
    daemon.restart()
    last = post_message(daemon, "telegram:1", "three")["workflowUuid"]
    assert message(daemon, last)["attempts"] == 0
    openclaw.begin()
    texts = openclaw.wait_texts(4, 60)
    assert texts[0].startswith("✓ Agent spawned for issue #7") and texts[1:] == ["one", "two", "three"]
    ended(daemon, last)


def test_a_gateway_that_dies_amid_a_delivery_is_told_once(launch, openclaw):
    daemon = connected(launch())
    dying = {"left": 1}

    def die(params):
        if dying["left"]:
            dying["left"] -= 1
            return None  # it has heard, and never answers
        return openclaw._fine(params)

    openclaw.script["send"] = die
    workflow = post_message(daemon, "telegram:1", "important")["workflowUuid"]
    eventually(lambda: openclaw.asked, 30)
    openclaw.stop()
    openclaw.begin()
    ended(daemon, workflow)
    assert openclaw.texts() == ["important"]
    assert {key for _, key in openclaw.asked} == {workflow}


def test_a_refusal_that_cannot_pass_is_a_dead_letter(launch, openclaw):
    daemon = connected(launch())
    openclaw.script["send"] = lambda params: {"code": "INVALID_REQUEST", "message": "unsupported channel: fax"} \
        if params["message"] == "bad" else openclaw._fine(params)
    bad = post_message(daemon, "telegram:1", "bad")["workflowUuid"]
    good = post_message(daemon, "telegram:1", "good")["workflowUuid"]
    ended(daemon, good)
    assert "unsupported channel" in ended(daemon, bad, "failed")["error"]


def test_what_comes_too_fast_is_joined(launch, openclaw):
    """30 texts a minute: the bucket is empty after 30, the next comes after two seconds."""
    daemon = connected(launch("--openclaw.notify_rate=30"))
    working(daemon, 7, "telegram:1")
    for number in range(29):
        post_message(daemon, "telegram:1", f"text {number}")
    openclaw.wait_texts(30)
    begun = time.monotonic()
    for number in range(5):
        report(daemon, 7, f"error {number}")
    post_message(daemon, "telegram:1", "not a notification")
    texts = openclaw.wait_texts(32, 60)
    assert time.monotonic() - begun > 1
    assert texts[30] == "\n\n".join(f"❌ Tests failing for issue #7\n\nError: error {n}" for n in range(5))
    assert texts[31] == "not a notification"
    listed = daemon.http.get("/api/v1/messages", params={"session": "telegram:1", "limit": 100}).json()["messages"]
    eventually(lambda: {one["status"] for one in daemon.http.get(
        "/api/v1/messages", params={"session": "telegram:1", "limit": 100}).json()["messages"]} == {"acknowledged"}, 30)
    assert len(listed) == 36
    metrics = daemon.http.get("/metrics").text
    assert "chela_swarm_notifications_joined_total 4" in metrics
    assert "chela_swarm_notifications_total 32" in metrics


def test_other_sessions_do_not_wait_for_a_slow_one(launch, openclaw):
    daemon = connected(launch("--openclaw.notify_rate=1"))
    for number in range(3):
        post_message(daemon, "telegram:1", f"slow {number}")
    post_message(daemon, "telegram:2", "quick")
    texts = openclaw.wait_texts(2)
    assert sorted(texts) == ["quick", "slow 0"]


def test_it_stops_while_much_waits(launch, openclaw):
    daemon = connected(launch("--openclaw.notify_rate=1"))
    for number in range(20):
        post_message(daemon, f"telegram:{number % 4}", f"text {number}")
    openclaw.wait_texts(4)
    daemon.restart()  # insists on an orderly end
    connected(daemon)
