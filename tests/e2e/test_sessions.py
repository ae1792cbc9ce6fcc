"""Sessions: when they exist, what they hold, who may use them, and how they end."""

import re
from concurrent.futures import ThreadPoolExecutor

import agent as act
import pytest
from wait import eventually, together, unique

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")


@pytest.fixture
def echo(daemon, make_agent):
    return daemon.register(make_agent(act.echo), unique("echo"))


def cleanup(daemon, query=""):
    return daemon.http.post(f"/api/vps/sessions/cleanup{query}")


def test_a_call_with_both_ids_makes_a_session_of_two_messages(daemon, echo):
    session = unique("session")
    daemon.call(echo, "question", session_id=session, user_id="ada", metadata={"k": [1, None]})
    whole = daemon.session(session)
    assert list(whole) == ["session_id", "user_id", "created_at", "last_activity", "messages",
                           "metadata"]
    assert (whole["session_id"], whole["user_id"]) == (session, "ada")
    assert whole["metadata"] == {"k": [1, None]}
    user, assistant = whole["messages"]
    assert list(user)[:4] == ["timestamp", "role", "content", "agent"]
    assert (user["role"], user["content"], user["agent"]) == ("user", "question", "")
    assert (assistant["role"], assistant["content"], assistant["agent"]) == (
        "assistant", "question", echo)
    stamps = [whole["created_at"], user["timestamp"], assistant["timestamp"],
              whole["last_activity"]]
    assert all(STAMP.fullmatch(stamp) for stamp in stamps), stamps
    assert stamps[:3] == sorted(stamps[:3])
    assert whole["last_activity"] >= user["timestamp"]
    assert "interrupted" not in user


def test_a_missing_session_is_404(daemon):
    for method in ("GET", "DELETE"):
        answer = daemon.http.request(method, "/api/vps/sessions/none")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Session 'none' not found"})


@pytest.mark.parametrize("user", [{}, {"user_id": None}, {"user_id": ""}], ids=str)
def test_a_session_id_alone_makes_the_session_of_anonymous(daemon, echo, user):
    session = unique("session")
    daemon.call(echo, "q", session_id=session, **user)
    assert daemon.session(session)["user_id"] == "anonymous"
    assert daemon.turns(session) == [("user", "q"), ("assistant", "q")]


@pytest.mark.parametrize("ids", [{"user_id": "u"}, {"session_id": "", "user_id": "u"},
                                 {"session_id": None, "user_id": "u"}], ids=str)
def test_without_a_session_id_nothing_is_stored(daemon, echo, ids):
    before = daemon.http.get("/api/vps/status").json()["sessions"]
    daemon.call(echo, **ids)
    assert daemon.http.get("/api/vps/status").json()["sessions"] == before


def test_later_calls_append_in_order(daemon, echo):
    session = unique("session")
    for prompt in ("one", "two", "three"):
        daemon.call(echo, prompt, session_id=session, user_id="u")
    assert daemon.turns(session) == [
        (role, prompt) for prompt in ("one", "two", "three") for role in ("user", "assistant")]


def test_the_owner_may_leave_out_the_user_id_later(daemon, echo):
    session = unique("session")
    daemon.call(echo, "a", session_id=session, user_id="ada")
    daemon.call(echo, "b", session_id=session, metadata={"m": 1})
    assert daemon.session(session)["user_id"] == "ada"
    assert daemon.session(session)["metadata"] == {"m": 1}
    assert len(daemon.turns(session)) == 4


def test_another_user_is_refused_and_nothing_is_recorded(daemon, make_agent):
    agent = make_agent(act.echo)
    name = daemon.register(agent, unique("agent"))
    session = unique("session")
    daemon.call(name, session_id=session, user_id="ada")
    answer = daemon.try_call(name, "mine?", session_id=session, user_id="eve", metadata={"x": 1})
    assert answer.status_code == 403
    assert answer.json() == {"detail": f"Session '{session}' belongs to another user"}
    assert len(agent.requests) == 1
    assert len(daemon.turns(session)) == 2
    assert daemon.session(session)["metadata"] == {}
    anonymous = unique("session")
    daemon.call(name, session_id=anonymous)
    assert daemon.try_call(name, session_id=anonymous, user_id="eve").status_code == 403


def test_metadata_is_merged_at_the_top_level(daemon, echo):
    session = unique("session")
    for metadata in ({"a": 1, "b": {"x": 1}}, None, {}, {"b": {"y": 2}, "c": None}):
        daemon.call(echo, session_id=session, metadata=metadata)
    assert daemon.session(session)["metadata"] == {"a": 1, "b": {"y": 2}, "c": None}


def test_after_a_failure_only_the_question_stays(daemon, make_agent):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1)
    session = unique("session")
    daemon.call(name, "q", session_id=session, user_id="u", metadata={"k": 1})
    assert daemon.turns(session) == [("user", "q")]
    assert daemon.session(session)["metadata"] == {"k": 1}


def test_the_question_is_recorded_before_the_agent_is_asked(daemon, make_agent):
    agent = make_agent(act.held(act.says("a")))
    name = daemon.register(agent, unique("agent"))
    session = unique("session")
    with ThreadPoolExecutor() as pool:
        call = pool.submit(daemon.call, name, "q", session_id=session)
        agent.wait_requests(1)
        assert daemon.turns(session) == [("user", "q")]
        agent.release()
        assert call.result()["success"]
    assert daemon.turns(session) == [("user", "q"), ("assistant", "a")]


def test_the_answer_of_a_fallback_carries_its_name(daemon, make_agent, echo):
    name = daemon.register(make_agent(act.fails(500)), unique("agent"), max_retries=1,
                           fallback_agents=[echo])
    session = unique("session")
    daemon.call(name, session_id=session)
    assert [message["agent"] for message in daemon.session(session)["messages"]] == ["", echo]


def test_concurrent_calls_on_one_session_never_interleave(daemon, make_agent):
    agent = make_agent(act.echo)
    name = daemon.register(agent, unique("agent"))
    session = unique("session")
    prompts = [f"prompt {number}" for number in range(20)]
    together(lambda prompt: daemon.call(name, prompt, session_id=session), prompts)
    turns = daemon.turns(session)
    assert sorted(turns[0::2]) == sorted(("user", prompt) for prompt in prompts)
    assert [content for _, content in turns[0::2]] == [content for _, content in turns[1::2]]
    assert agent.prompts() == [content for _, content in turns[0::2]]


def test_calls_on_one_session_run_one_at_a_time_in_order_of_arrival(daemon, make_agent):
    agent = make_agent(act.held(act.echo))
    name = daemon.register(agent, unique("agent"))
    session, other = unique("session"), unique("session")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(daemon.call, name, "first", session_id=session)]
        agent.wait_requests(1)
        calls.append(pool.submit(daemon.call, name, "second", session_id=session))
        calls.append(pool.submit(daemon.call, name, "elsewhere", session_id=other))
        agent.wait_requests(2)
        assert agent.prompts() == ["first", "elsewhere"], "another session does not wait"
        agent.release()
        assert all(call.result()["success"] for call in calls)
    assert agent.prompts()[2] == "second"
    assert [turn[1] for turn in daemon.turns(session)] == ["first", "first", "second", "second"]


def test_a_waiting_call_whose_client_leaves_gives_up_its_place(daemon, make_agent):
    agent = make_agent(act.held(act.echo))
    name = daemon.register(agent, unique("agent"))
    session = unique("session")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(daemon.call, name, "first", session_id=session)
        agent.wait_requests(1)
        with daemon.client() as impatient:
            body = {"agent_name": name, "prompt": "gone", "session_id": session}
            with pytest.raises(Exception, match="timed out"):
                impatient.post("/api/vps/call", json=body, timeout=0.2)
        eventually(lambda: daemon.http.get("/api/v1/status").json()["requests"] == 2)
        third = pool.submit(daemon.call, name, "third", session_id=session)
        agent.release()
        assert first.result()["success"] and third.result()["success"]
    assert "gone" not in agent.prompts()


def test_a_session_deleted_during_a_call_stays_deleted_and_the_call_succeeds(daemon, make_agent):
    agent = make_agent(act.held(act.says("late")))
    name = daemon.register(agent, unique("agent"))
    session = unique("session")
    with ThreadPoolExecutor() as pool:
        call = pool.submit(daemon.call, name, session_id=session)
        agent.wait_requests(1)
        assert daemon.http.delete(f"/api/vps/sessions/{session}").status_code == 204
        agent.release()
        assert call.result()["response"] == "late"
    assert daemon.http.get(f"/api/vps/sessions/{session}").status_code == 404


def test_deleting_answers_204_without_a_body(daemon, echo):
    session = unique("session")
    daemon.call(echo, session_id=session)
    answer = daemon.http.delete(f"/api/vps/sessions/{session}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert daemon.http.delete(f"/api/vps/sessions/{session}").status_code == 404


def test_reading_a_session_is_no_activity(daemon, echo):
    session = unique("session")
    daemon.call(echo, session_id=session)
    before = daemon.session(session)["last_activity"]
    assert daemon.session(session)["last_activity"] == before
    daemon.call(echo, session_id=session)
    assert daemon.session(session)["last_activity"] > before


@pytest.mark.parametrize("query", ["", "?max_age_hours=24", "?max_age_hours=99999999999",
                                   "?max_age_hours=1.0", "?max_age_hours=%201%20",
                                   "?max_age_hours=1_0", "?max_age_hours=%2B1",
                                   "?max_age_hours=abc&max_age_hours=5", "?other=1"])
def test_cleanup_keeps_young_sessions(daemon, echo, query):
    session = unique("session")
    daemon.call(echo, session_id=session)
    answer = cleanup(daemon, query)
    assert answer.status_code == 200, answer.text
    count = daemon.http.get("/api/vps/status").json()["sessions"]
    assert answer.text == f'{{"cleaned_up":0,"remaining_sessions":{count}}}'


def test_cleanup_of_age_zero_removes_all_idle_sessions_and_ignores_its_body(own, make_agent):
    name = own.register(make_agent(), "a")
    for session in ("x", "y", "z"):
        own.call(name, session_id=session)
    answer = own.http.post("/api/vps/sessions/cleanup?max_age_hours=0", content=b"\xffnot json",
                           headers={"Content-Type": "text/plain"})
    assert answer.text == '{"cleaned_up":3,"remaining_sessions":0}'
    assert cleanup(own, "?max_age_hours=0").json() == {"cleaned_up": 0, "remaining_sessions": 0}


INT_PARSING = "Input should be a valid integer, unable to parse string as an integer"


@pytest.mark.parametrize("text", ["", "abc", "1.5", "0x10", "1 0", "NaN"])
def test_cleanup_refuses_what_is_no_integer(daemon, text):
    answer = daemon.http.post("/api/vps/sessions/cleanup", params={"max_age_hours": text})
    assert answer.status_code == 422
    assert answer.json() == {"detail": [{"type": "int_parsing", "loc": ["query", "max_age_hours"],
                                         "msg": INT_PARSING, "input": text}]}


def test_cleanup_refuses_a_negative_age(daemon):
    answer = cleanup(daemon, "?max_age_hours=-1")
    assert answer.status_code == 422
    assert answer.json() == {"detail": [{
        "type": "greater_than_equal", "loc": ["query", "max_age_hours"],
        "msg": "Input should be greater than or equal to 0", "input": "-1", "ctx": {"ge": 0}}]}


def test_old_sessions_are_swept_without_being_asked(start, make_agent):
    daemon = start("--bridge.session_max_age=1s", "--bridge.sweep_every=100ms")
    daemon.call(daemon.register(make_agent(), "a"), session_id="old")
    assert daemon.http.get("/api/vps/sessions/old").status_code == 200
    eventually(lambda: daemon.http.get("/api/vps/sessions/old").status_code == 404)
    assert daemon.http.get("/api/vps/status").json()["sessions"] == 0


def test_earlier_messages_are_sent_to_agents_that_want_them(daemon, make_agent):
    agent = make_agent(act.counted())
    name = daemon.register(agent, unique("agent"), context="session")
    session = unique("session")
    for prompt in ("one", "two"):
        daemon.call(name, prompt, session_id=session)
    assert agent.requests[0].json["messages"] == [{"role": "user", "content": "one"}]
    assert agent.requests[1].json["messages"] == [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "answer 1"},
        {"role": "user", "content": "two"}]


def test_by_default_an_agent_gets_only_the_new_message(daemon, make_agent):
    agent = make_agent()
    name = daemon.register(agent, unique("agent"))
    session = unique("session")
    for prompt in ("one", "two"):
        daemon.call(name, prompt, session_id=session)
    assert agent.requests[1].json["messages"] == [{"role": "user", "content": "two"}]


def test_the_context_is_bounded_and_ends_with_the_new_message(start, make_agent):
    daemon = start("--bridge.context_messages=3")
    agent = make_agent(act.counted())
    name = daemon.register(agent, "a", context="session")
    for prompt in ("one", "two", "three"):
        daemon.call(name, prompt, session_id="s")
    contents = [message["content"] for message in agent.requests[2].json["messages"]]
    assert len(contents) <= 4
    assert contents == ["one", "answer 1", "two", "answer 2", "three"][-len(contents):]


def test_the_messages_of_a_session_are_bounded_to_the_newest(start, make_agent):
    daemon = start("--bridge.messages_max=4")
    name = daemon.register(make_agent(act.echo), "a")
    for prompt in ("one", "two", "three", "four"):
        assert daemon.call(name, prompt, session_id="s")["success"]
    assert daemon.turns("s") == [("user", "three"), ("assistant", "three"), ("user", "four"),
                                 ("assistant", "four")]


def test_the_number_of_sessions_is_bounded_to_the_most_recently_used(start, make_agent):
    daemon = start("--bridge.sessions_max=3")
    name = daemon.register(make_agent(), "a")
    for session in ("s1", "s2", "s3", "s1", "s4"):
        assert daemon.call(name, session_id=session)["success"]
    assert daemon.http.get("/api/vps/status").json()["sessions"] == 3
    found = {session: daemon.http.get(f"/api/vps/sessions/{session}").status_code
             for session in ("s1", "s2", "s3", "s4")}
    assert found == {"s1": 200, "s2": 404, "s3": 200, "s4": 200}


def test_sessions_can_be_listed_page_by_page(own, make_agent):
    name = own.register(make_agent(), "a")
    names = [f"s{number}" for number in range(5)]
    for session in names:
        own.call(name, session_id=session, user_id="ada")
    first = own.http.get("/api/vps/sessions?limit=3").json()
    assert len(first["sessions"]) == 3
    last = first["sessions"][-1]["session_id"]
    rest = own.http.get(f"/api/vps/sessions?limit=3&after={last}").json()
    assert [one["session_id"] for one in first["sessions"] + rest["sessions"]] == names
    assert all("messages" not in one or isinstance(one["messages"], int)
               for one in first["sessions"])


def test_session_stats_exist_and_their_name_is_reserved(daemon, echo):
    daemon.call(echo, session_id=unique("session"))
    answer = daemon.http.get("/api/vps/sessions/stats")
    assert answer.status_code == 200
    assert "session_id" not in answer.json()
    assert any(isinstance(value, int) and value >= 1 for value in answer.json().values())
    assert daemon.try_call(echo, session_id="stats").status_code == 422
