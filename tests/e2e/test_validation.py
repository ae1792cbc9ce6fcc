"""422 and its relatives: every row of the validation table, coercions, and hostile JSON."""

import json

import agent as act
import pytest
from rawhttp import Connection, ask
from wait import unique

JSON = {"Content-Type": "application/json"}
MODEL = "Input should be a valid dictionary or object to extract fields from"
STRING = "Input should be a valid string"
UNPARSABLE = "Input should be a valid integer, unable to parse string as an integer"
FRACTION = "Input should be a valid integer, got a number with a fractional part"
INTEGER = "Input should be a valid integer"
LIST = "Input should be a valid list"
DICT = "Input should be a valid dictionary"


def entry(kind, loc, msg, value, **ctx):
    found = {"type": kind, "loc": loc, "msg": msg, "input": value}
    return {**found, "ctx": ctx} if ctx else found


def missing(field, whole):
    return entry("missing", ["body", field], "Field required", whole)


def post(daemon, path, body, headers=JSON):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return daemon.http.post(path, content=content, headers=headers)


def refused(daemon, path, body, headers=JSON):
    answer = post(daemon, path, body, headers)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["detail"]
    return answer.json()["detail"]


NO_BODY = [entry("missing", ["body"], "Field required", None)]

CALL_BODIES = [
    ("empty", b"", NO_BODY),
    ("null", b"null", NO_BODY),
    ("array", b"[]", [entry("model_attributes_type", ["body"], MODEL, [])]),
    ("string", b'"x"', [entry("model_attributes_type", ["body"], MODEL, "x")]),
    ("number", b"5", [entry("model_attributes_type", ["body"], MODEL, 5)]),
    ("true", b"true", [entry("model_attributes_type", ["body"], MODEL, True)]),
    ("no fields", b"{}", [missing("agent_name", {}), missing("prompt", {})]),
    ("one field", b'{"prompt":"p"}', [missing("agent_name", {"prompt": "p"})]),
    ("number for a string", b'{"agent_name":1,"prompt":"p"}',
     [entry("string_type", ["body", "agent_name"], STRING, 1)]),
    ("null for a string", b'{"agent_name":null,"prompt":"p"}',
     [entry("string_type", ["body", "agent_name"], STRING, None)]),
    ("array for a string", b'{"agent_name":"a","prompt":["p"]}',
     [entry("string_type", ["body", "prompt"], STRING, ["p"])]),
    ("object for a string", b'{"agent_name":"a","prompt":{"p":1}}',
     [entry("string_type", ["body", "prompt"], STRING, {"p": 1})]),
    ("bad session id", b'{"agent_name":"a","prompt":"p","session_id":7}',
     [entry("string_type", ["body", "session_id"], STRING, 7)]),
    ("bad user id", b'{"agent_name":"a","prompt":"p","user_id":false}',
     [entry("string_type", ["body", "user_id"], STRING, False)]),
    ("array for metadata", b'{"agent_name":"a","prompt":"p","metadata":[1]}',
     [entry("dict_type", ["body", "metadata"], DICT, [1])]),
    ("string for metadata", b'{"agent_name":"a","prompt":"p","metadata":"x"}',
     [entry("dict_type", ["body", "metadata"], DICT, "x")]),
    ("all in order of declaration", b'{"metadata":1,"session_id":2,"prompt":3}',
     [missing("agent_name", {"metadata": 1, "session_id": 2, "prompt": 3}),
      entry("string_type", ["body", "prompt"], STRING, 3),
      entry("string_type", ["body", "session_id"], STRING, 2),
      entry("dict_type", ["body", "metadata"], DICT, 1)]),
]


def table(rows):
    return pytest.mark.parametrize("row", rows, ids=[row[0].replace(" ", "-") for row in rows])


@table(CALL_BODIES)
def test_a_bad_call_body_is_explained(daemon, row):
    assert refused(daemon, "/api/vps/call", row[1]) == row[2]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded",
                                          "application/octet-stream", "multipart/form-data"])
def test_another_content_type_makes_the_body_a_string(daemon, content_type):
    body = b'{"agent_name":"a","prompt":"p"}'
    detail = refused(daemon, "/api/vps/call", body, {"Content-Type": content_type})
    assert detail == [entry("model_attributes_type", ["body"], MODEL, body.decode())]


# The offset is given where it can only be one; the parser's own words are not checked.
MALFORMED = [
    ("no closing", b"{bad", 1), ("blank", b" ", 1), ("open string", b'{"a": "b', 6),
    ("trailing data", b'{"agent_name":"a","prompt":"p"} x', 32), ("two values", b"{}{}", 2),
    ("single quotes", b"{'a':1}", 1), ("trailing comma", b'{"a":1,}', None),
    ("newline in a string", b'{"a":"\n"}', None), ("bare word", b"hello", 0),
    ("comment", b"/* */{}", 0), ("leading zero", b'{"a":01}', None),
    ("bad escape", b'{"a":"\\x"}', None), ("NUL", b'{"a":"\x00"}', None),
]


@table(MALFORMED)
def test_malformed_json_is_refused(daemon, row):
    detail, = refused(daemon, "/api/vps/call", row[1])
    assert (detail["type"], detail["msg"]) == ("json_invalid", "JSON decode error")
    assert (detail["loc"][0], detail["input"]) == ("body", {})
    assert isinstance(detail["ctx"]["error"], str)
    if row[2] is not None:
        assert detail["loc"] == ["body", row[2]]


def test_a_body_that_is_not_utf8_is_refused(daemon):
    answer = post(daemon, "/api/vps/call", b'{"agent_name":"a","prompt":"\xff\xfe"}')
    assert answer.status_code in (400, 422)
    assert list(answer.json()) == ["detail"]


def test_the_offset_counts_characters_not_bytes(daemon):
    detail, = refused(daemon, "/api/vps/call", '{"é":1} x'.encode())
    assert detail["loc"] == ["body", 8]


def test_a_byte_order_mark_in_front_is_no_part_of_the_body(daemon, make_agent):
    agent = make_agent(act.reply(200, b'\xef\xbb\xbf{"content":"answered"}'))
    body = json.dumps({"agent_name": daemon.register(agent, unique("agent")), "prompt": "p"})
    assert post(daemon, "/api/vps/call", body.encode("utf-8-sig")).json()["response"] == "answered"
    detail, = refused(daemon, "/api/vps/call", b'\xef\xbb\xbf{bad')
    assert detail["loc"] == ["body", 1]
    assert refused(daemon, "/api/vps/call", b"\xef\xbb\xbf")[0]["type"] == "json_invalid"


AGENT = {"name": "n", "host": "h", "port": 1}


def at_least(loc, bound, value):
    return entry("greater_than_equal", loc,
                 f"Input should be greater than or equal to {bound}", value, ge=bound)


def at_most(loc, bound, value):
    return entry("less_than_equal", loc,
                 f"Input should be less than or equal to {bound}", value, le=bound)


def short(field):
    return entry("string_too_short", ["body", field], "String should have at least 1 character", "",
                 min_length=1)


REGISTRATIONS = [
    ("name empty", {"name": ""}, [short("name")]),
    ("host empty", {"host": ""}, [short("host")]),
    ("host null", {"host": None}, [entry("string_type", ["body", "host"], STRING, None)]),
    ("port unparsable", {"port": "abc"},
     [entry("int_parsing", ["body", "port"], UNPARSABLE, "abc")]),
    ("port empty", {"port": ""}, [entry("int_parsing", ["body", "port"], UNPARSABLE, "")]),
    ("port fraction text", {"port": "1.5"},
     [entry("int_parsing", ["body", "port"], UNPARSABLE, "1.5")]),
    ("port fraction", {"port": 1.5}, [entry("int_from_float", ["body", "port"], FRACTION, 1.5)]),
    ("port null", {"port": None}, [entry("int_type", ["body", "port"], INTEGER, None)]),
    ("port array", {"port": [1]}, [entry("int_type", ["body", "port"], INTEGER, [1])]),
    ("port object", {"port": {}}, [entry("int_type", ["body", "port"], INTEGER, {})]),
    ("port zero", {"port": 0}, [at_least(["body", "port"], 1, 0)]),
    ("port negative", {"port": -1}, [at_least(["body", "port"], 1, -1)]),
    ("port false", {"port": False}, [at_least(["body", "port"], 1, False)]),
    ("port too big", {"port": 65536}, [at_most(["body", "port"], 65535, 65536)]),
    ("port enormous", {"port": 10**20}, [at_most(["body", "port"], 65535, 10**20)]),
    ("protocol number", {"protocol": 1}, [entry("string_type", ["body", "protocol"], STRING, 1)]),
    ("protocol null", {"protocol": None},
     [entry("string_type", ["body", "protocol"], STRING, None)]),
    ("token number", {"auth_token": 1}, [entry("string_type", ["body", "auth_token"], STRING, 1)]),
    ("timeout zero", {"timeout_seconds": 0}, [at_least(["body", "timeout_seconds"], 1, 0)]),
    ("timeout too long", {"timeout_seconds": 3601},
     [at_most(["body", "timeout_seconds"], 3600, 3601)]),
    ("timeout null", {"timeout_seconds": None},
     [entry("int_type", ["body", "timeout_seconds"], INTEGER, None)]),
    ("no attempts", {"max_retries": 0}, [at_least(["body", "max_retries"], 1, 0)]),
    ("negative attempts", {"max_retries": -2}, [at_least(["body", "max_retries"], 1, -2)]),
    ("too many attempts", {"max_retries": 11}, [at_most(["body", "max_retries"], 10, 11)]),
    ("fallbacks string", {"fallback_agents": "x"},
     [entry("list_type", ["body", "fallback_agents"], LIST, "x")]),
    ("fallbacks null", {"fallback_agents": None},
     [entry("list_type", ["body", "fallback_agents"], LIST, None)]),
    ("fallback members", {"fallback_agents": [1, "a", None]},
     [entry("string_type", ["body", "fallback_agents", 0], STRING, 1),
      entry("string_type", ["body", "fallback_agents", 2], STRING, None)]),
    ("several", {"name": 1, "port": 0, "max_retries": "x"},
     [entry("string_type", ["body", "name"], STRING, 1), at_least(["body", "port"], 1, 0),
      entry("int_parsing", ["body", "max_retries"], UNPARSABLE, "x")]),
]


@table(REGISTRATIONS)
def test_a_bad_registration_is_explained(daemon, row):
    assert refused(daemon, "/api/vps/register", {**AGENT, **row[1]}) == row[2]


def test_an_empty_registration_misses_exactly_the_required_fields(daemon):
    detail = refused(daemon, "/api/vps/register", {})
    assert detail == [missing(field, {}) for field in ("name", "host", "port")]


@pytest.mark.parametrize("bounds", [{"port": 1}, {"port": 65535}, {"timeout_seconds": 1},
                                    {"timeout_seconds": 3600}, {"max_retries": 1},
                                    {"max_retries": 10}], ids=str)
def test_the_bounds_themselves_are_accepted(daemon, bounds):
    assert post(daemon, "/api/vps/register",
                {**AGENT, "name": unique("agent"), **bounds}).status_code == 201


@pytest.mark.parametrize("given, port", [
    ('5000', 5000), ('5000.0', 5000), ('5e3', 5000), ('true', 1), ('"5000"', 5000),
    ('" 5000 "', 5000), ('"5000.0"', 5000), ('"5_000"', 5000), ('"+5000"', 5000)])
def test_integers_are_coerced_as_documented(daemon, given, port):
    body = f'{{"name":"{unique("agent")}","host":"h","port":{given}}}'.encode()
    answer = post(daemon, "/api/vps/register", body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["url"] == f"http://h:{port}"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_a_number_that_is_not_finite_is_never_an_integer(daemon, value):
    body = f'{{"name":"n","host":"h","port":{value}}}'.encode()
    detail, = refused(daemon, "/api/vps/register", body)
    assert detail["type"] in ("finite_number", "json_invalid")
    if detail["type"] == "finite_number":
        assert detail["loc"] == ["body", "port"]
        assert detail["msg"] == "Input should be a finite number"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_that_is_not_finite_is_never_stored(daemon, make_agent, value):
    name = daemon.register(make_agent(), unique("agent"))
    session = unique("session")
    body = (f'{{"agent_name":"{name}","prompt":"p","session_id":"{session}",'
            f'"metadata":{{"x":{value}}}}}').encode()
    answer = post(daemon, "/api/vps/call", body)
    if answer.status_code == 200:
        assert daemon.session(session)["metadata"] == {"x": None}
    else:
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == "json_invalid"


@pytest.mark.parametrize("field", ["prompt", "session_id", "user_id", "agent_name"])
@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"a\ud83d b", r"\ude00\ud83d"])
def test_a_lone_surrogate_is_refused_or_replaced(daemon, make_agent, field, escape):
    name = daemon.register(make_agent(), unique("agent"))
    session = unique("session")
    values = {"agent_name": name, "prompt": "p", "session_id": session, "user_id": "u"}
    body = "{" + ",".join(f'"{key}":"{escape if key == field else value}"'
                          for key, value in values.items()) + "}"
    answer = post(daemon, "/api/vps/call", body.encode())
    if answer.status_code == 422:
        assert answer.json()["detail"][0]["type"] in ("string_unicode", "json_invalid")
    else:
        assert answer.status_code == 200
        answer.content.decode("utf-8")
        if field in ("prompt", "user_id"):
            assert "�" in json.dumps(daemon.session(session), ensure_ascii=False)


def test_a_proper_surrogate_pair_is_one_character(daemon, make_agent):
    agent = make_agent(act.echo)
    name = daemon.register(agent, unique("agent"))
    body = f'{{"agent_name":"{name}","prompt":"\\ud83e\\udd9e"}}'.encode()
    assert post(daemon, "/api/vps/call", body).json()["response"] == "🦞"


TOO_DEEP = {"detail": "There was an error parsing the body"}


@pytest.mark.parametrize("depth, status", [(500, 200), (600, 400), (100_000, 400)])
def test_the_depth_of_json_is_bounded(daemon, depth, status):
    body = (b'{"agent_name":"nobody","prompt":"p","metadata":{"deep":' + b"[" * depth + b"]" * depth
            + b"}}")
    answer = post(daemon, "/api/vps/call", body)
    assert answer.status_code == status
    if status == 400:
        assert answer.json() == TOO_DEEP


def test_a_body_over_sixteen_mebibytes_is_refused_before_it_is_read(daemon):
    with Connection(daemon) as connection:
        connection.send(b"POST /api/vps/call HTTP/1.1\r\nHost: localhost\r\n"
                        b"Content-Type: application/json\r\nContent-Length: 16777217\r\n\r\n")
        answer = connection.read()
    assert (answer.status, answer.body) == (413, b'{"detail":"Request body too large"}')


def test_a_body_of_exactly_sixteen_mebibytes_is_read(daemon):
    head, tail = b'{"agent_name":"nobody","prompt":"', b'"}'
    body = head + b"x" * (16 * 1024 * 1024 - len(head) - len(tail)) + tail
    answer = ask(daemon, "POST", "/api/vps/call", [("Content-Type", "application/json")], body)
    assert answer.status == 200
    assert b"not registered" in answer.body


def test_validation_bodies_carry_no_url_and_use_compact_separators(daemon):
    answer = post(daemon, "/api/vps/call", b'{"prompt":"p"}')
    assert answer.text == ('{"detail":[{"type":"missing","loc":["body","agent_name"],'
                           '"msg":"Field required","input":{"prompt":"p"}}]}')
