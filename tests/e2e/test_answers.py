"""How an agent's 2xx answer becomes the response text, and what is no answer at all."""

import json

import agent as act
import pytest
from wait import unique

TEXT = {"type": "text", "text": "a"}
MORE = {"type": "text", "text": "b"}
TOOL = {"type": "tool_use", "id": "t", "name": "n", "input": {}}

UNDERSTOOD = [
    ("a content string", {"content": "x"}, "x"),
    ("an empty content string", {"content": ""}, ""),
    ("content before message", {"message": "m", "content": "c"}, "c"),
    ("a message string", {"message": "m"}, "m"),
    ("text blocks are joined", {"content": [TEXT, MORE]}, "ab"),
    ("other blocks are left out", {"content": [TOOL, TEXT, {"type": "thinking"}]}, "a"),
    ("a content object with text", {"content": {"text": "x"}}, "x"),
    ("a content object with content", {"content": {"content": "x"}}, "x"),
    ("a message object with content", {"message": {"role": "assistant", "content": "x"}}, "x"),
    ("a message object with blocks", {"message": {"content": [TEXT, MORE]}}, "ab"),
    ("an integer", {"content": 5}, "5"),
    ("a big integer", {"content": 9007199254740993}, "9007199254740993"),
    ("a fraction", {"content": 1.5}, "1.5"),
    ("true", {"content": True}, "true"),
    ("false", {"content": False}, "false"),
    ("an object without a known key", {"foo": 1, "bar": [True, None, "x"]},
     '{"foo":1,"bar":[true,null,"x"]}'),
    ("an empty object", {}, "{}"),
]

NO_ANSWER = [
    ("null content", act.answers({"content": None})),
    ("a top-level array", act.answers([{"content": "x"}])),
    ("a top-level string", act.answers("x")),
    ("a top-level number", act.answers(5)),
    ("a top-level null", act.answers(None)),
    ("an empty body", act.reply(200)),
    ("204", act.reply(204)),
    ("HTML", act.reply(200, b"<html>busy</html>", [("Content-Type", "text/html")])),
    ("half of an object", act.reply(200, b'{"content": "x"')),
    ("text after the object", act.reply(200, b'{"content": "x"} and more')),
    ("invalid UTF-8", act.reply(200, b'{"content": "\xff\xfe"}')),
]


def table(rows):
    return pytest.mark.parametrize("row", rows, ids=[row[0].replace(" ", "-") for row in rows])


@table(UNDERSTOOD)
def test_an_answer_is_understood(daemon, make_agent, row):
    _, value, expected = row
    name = daemon.register(make_agent(act.answers(value)), unique("agent"))
    result = daemon.call(name)
    assert (result["success"], result["response"]) == (True, expected)


@table(NO_ANSWER)
def test_an_unusable_2xx_is_a_failure_that_is_not_retried_and_counts(daemon, make_agent, row):
    agent = make_agent(row[1])
    name = daemon.register(agent, unique("agent"), max_retries=3)
    result = daemon.call(name, session_id=unique("session"))
    assert result["success"] is False
    assert "invalid response" in result["error"].lower()
    assert result["error_type"] == "unknown"
    assert len(agent.requests) == 1
    assert daemon.health(name)["total_failures"] == 1


def test_text_that_no_store_can_hold_is_mended_and_not_the_end_of_the_call(daemon, make_agent):
    """U+0000, and half of a surrogate pair, which agents leave when they cut a text."""
    agent = make_agent(act.reply(200, b'{"content":"a\\u0000b \\ud83e\\udd9e cut \\ud83e"}'))
    session = unique("session")
    result = daemon.call(daemon.register(agent, unique("agent")), session_id=session)
    assert (result["success"], result["response"]) == (True, "a\ufffdb \U0001f99e cut \ufffd")
    assert daemon.turns(session)[1] == ("assistant", result["response"])


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
def test_every_2xx_with_a_body_is_a_success(daemon, make_agent, status):
    name = daemon.register(make_agent(act.answers({"content": "x"}, status)), unique("agent"))
    result = daemon.call(name)
    assert (result["response"], result["attempts"][0]["status"]) == ("x", status)


@pytest.mark.parametrize("content_type", ["text/plain", "text/html", "application/octet-stream"])
def test_the_content_type_of_an_answer_does_not_matter(daemon, make_agent, content_type):
    agent = make_agent(act.reply(200, b'{"content":"x"}', [("Content-Type", content_type)]))
    assert daemon.call(daemon.register(agent, unique("agent")))["response"] == "x"


WHOLE = json.dumps({"content": "in pieces " * 1000}).encode()
TRANSFERS = [
    ("chunked", act.chunked([WHOLE[:1], WHOLE[1:4000], WHOLE[4000:]])),
    ("chunked with trailers", act.chunked([WHOLE], b"0\r\nX-Trailer: 1\r\n\r\n")),
    ("until close", act.until_close(WHOLE)),
    ("content-length", act.reply(200, WHOLE)),
]


@table(TRANSFERS)
def test_every_transfer_form_is_read(daemon, make_agent, row):
    name = daemon.register(make_agent(row[1]), unique("agent"))
    assert daemon.call(name)["response"] == "in pieces " * 1000


def test_gzip_is_decoded_when_it_was_asked_for(daemon, make_agent):
    def behave(exchange):
        asked = exchange.request.header("Accept-Encoding") or ""
        (act.gzipped if "gzip" in asked else act.answers)({"content": "zipped?"})(exchange)
    name = daemon.register(make_agent(behave), unique("agent"))
    assert daemon.call(name)["response"] == "zipped?"


def test_a_non_string_answer_is_stored_in_the_session_as_text(daemon, make_agent):
    name = daemon.register(make_agent(act.answers({"content": [TEXT, MORE]})), unique("agent"))
    session = unique("session")
    daemon.call(name, session_id=session)
    assert daemon.turns(session) == [("user", "hello"), ("assistant", "ab")]
