"""Export and import of sessions: the original's file format, all or nothing."""

import copy
import json
import stat

import agent as act
import chelad
import pytest
from wait import unique

# As the original's export wrote it: local stamps without a zone, non-ASCII escaped, indented by 2,
# a fraction left out when it is zero, and a map key that need not be the inner id.
ORIGINAL = """{
  "exported_at": "2026-02-18T10:00:00.123456",
  "total_sessions": 2,
  "sessions": {
    "sess-1": {
      "session_id": "sess-1",
      "user_id": "user-\\u017c",
      "created_at": "2026-02-18T09:00:00",
      "last_activity": "2026-02-18T09:00:05.000001",
      "messages": [
        {
          "timestamp": "2026-02-18T09:00:00.000002",
          "role": "user",
          "content": "Hello \\ud83e\\udd9e",
          "agent": ""
        },
        {
          "timestamp": "2026-02-18T09:00:05",
          "role": "assistant",
          "content": "Hi",
          "agent": "pm-agent"
        }
      ],
      "metadata": {
        "project": {
          "id": 7,
          "tags": [
            "a",
            null
          ]
        }
      }
    },
    "key": {
      "session_id": "inner",
      "user_id": "user-2",
      "created_at": "2026-02-18T09:00:00.5",
      "last_activity": "2026-02-18T09:00:00.500000",
      "messages": [],
      "metadata": {}
    }
  }
}"""


def post(daemon, content):
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return daemon.http.post("/api/v1/sessions/import", content=text,
                            headers={"Content-Type": "application/json"})


def export(daemon):
    answer = daemon.http.get("/api/v1/sessions/export")
    assert answer.status_code == 200
    return answer.json()


def test_a_file_of_the_original_is_imported(own):
    answer = post(own, ORIGINAL)
    assert (answer.status_code, answer.json()) == (200, {"imported": 2})
    session = own.session("sess-1")
    assert (session["session_id"], session["user_id"]) == ("sess-1", "user-ż")
    assert session["created_at"] == "2026-02-18T09:00:00"
    assert session["last_activity"] == "2026-02-18T09:00:05.000001"
    assert session["messages"] == json.loads(ORIGINAL)["sessions"]["sess-1"]["messages"]
    assert session["metadata"] == {"project": {"id": 7, "tags": ["a", None]}}
    assert own.session("key")["user_id"] == "user-2", "the map key is the lookup key"
    assert own.http.get("/api/vps/sessions/inner").status_code == 404
    assert own.http.post("/api/vps/sessions/cleanup?max_age_hours=1").json()["cleaned_up"] == 2


def test_the_round_trip_is_lossless(own, start, make_agent):
    name = own.register(make_agent(act.echo), "a")
    for number, prompt in enumerate(["plain", "żółw 🦞", "line\nbreak\t\u0001", ""]):
        own.call(name, prompt, session_id=f"s/{number} ż", user_id=f"u{number}",
                 metadata={"deep": [{"n": number, "f": 1.5, "none": None}], "": ""})
    exported = export(own)
    assert list(exported) == ["exported_at", "total_sessions", "sessions"]
    assert exported["total_sessions"] == len(exported["sessions"]) == 4
    other = start()
    assert post(other, exported).json() == {"imported": 4}
    again = export(other)
    assert again["sessions"] == exported["sessions"]
    path = "".join(f"%{byte:02X}" for byte in "s/1 ż".encode())
    assert other.session(path) == own.session(path)


def test_an_empty_bridge_exports_an_empty_map(own):
    exported = export(own)
    assert (exported["total_sessions"], exported["sessions"]) == (0, {})


def test_import_replaces_sessions_of_the_same_id_and_keeps_others(own, make_agent):
    name = own.register(make_agent(act.echo), "a")
    for session in ("sess-1", "other"):
        own.call(name, "mine", session_id=session)
    assert post(own, ORIGINAL).json() == {"imported": 2}
    assert own.turns("sess-1") == [("user", "Hello 🦞"), ("assistant", "Hi")]
    assert own.turns("other") == [("user", "mine"), ("assistant", "mine")]


def test_an_imported_session_goes_on(own, make_agent):
    post(own, ORIGINAL)
    name = own.register(make_agent(act.echo), "a")
    assert own.call(name, "more", session_id="sess-1", user_id="user-ż")["success"]
    assert own.turns("sess-1")[2:] == [("user", "more"), ("assistant", "more")]
    assert own.try_call(name, session_id="sess-1", user_id="eve").status_code == 403


@pytest.mark.parametrize("stamp", ["2026-02-18T09:00:00Z", "2026-02-18T09:00:00.25+00:00",
                                   "2026-02-18T10:30:00+01:30"])
def test_stamps_with_a_zone_are_accepted_and_become_utc(own, stamp):
    whole = json.loads(ORIGINAL)
    whole["sessions"]["sess-1"]["last_activity"] = stamp
    assert post(own, whole).json() == {"imported": 2}
    fraction = ".250000" if ".25" in stamp else ""
    assert own.session("sess-1")["last_activity"] == "2026-02-18T09:00:00" + fraction
    assert own.http.post("/api/vps/sessions/cleanup").status_code == 200


@pytest.mark.parametrize("content", [{}, {"sessions": {}}, {"exported_at": "x"}], ids=str)
def test_a_file_without_sessions_imports_none(own, content):
    answer = post(own, content)
    assert (answer.status_code, answer.json()) == (200, {"imported": 0})


def broken(**changes):
    """The original's file with its second session, the last to be read, damaged."""
    whole = json.loads(ORIGINAL)
    session = whole["sessions"]["key"]
    for key, value in changes.items():
        if value is KeyError:
            del session[key]
        else:
            session[key] = value
    return whole


MESSAGE = {"timestamp": "2026-02-18T09:00:00", "role": "user", "content": "c", "agent": ""}
BAD_FILES = [
    ("top-level array", []), ("top-level string", "x"), ("null", None),
    ("sessions array", {"sessions": []}), ("session null", {"sessions": {"a": None}}),
    ("truncated", ORIGINAL[:-40]), ("empty", ""),
    ("not UTF-8", ORIGINAL.encode() + b"\xff"),
    *[(f"no {key}", broken(**{key: KeyError})) for key in json.loads(ORIGINAL)["sessions"]["key"]],
    ("user number", broken(user_id=5)), ("messages object", broken(messages={})),
    ("messages null", broken(messages=None)), ("metadata array", broken(metadata=[])),
    ("stamp text", broken(last_activity="yesterday")), ("stamp number", broken(created_at=5)),
    ("impossible date", broken(created_at="2026-02-30T00:00:00")),
    ("message text", broken(messages=["x"])),
    ("message without role", broken(messages=[{k: v for k, v in MESSAGE.items() if k != "role"}])),
    ("message content number", broken(messages=[{**MESSAGE, "content": 5}])),
    ("message stamp", broken(messages=[MESSAGE, {**MESSAGE, "timestamp": "?"}])),
]


@pytest.mark.parametrize("content", [row[1] for row in BAD_FILES],
                         ids=[row[0].replace(" ", "-") for row in BAD_FILES])
def test_a_bad_file_changes_nothing_at_all(daemon, make_agent, content):
    daemon.http.delete("/api/vps/sessions/sess-1")
    answer = post(daemon, content)
    assert answer.status_code in (400, 422), answer.text
    assert "detail" in answer.json() or "error" in answer.json()
    assert daemon.http.get("/api/vps/sessions/sess-1").status_code == 404
    assert daemon.http.get("/api/vps/sessions/key").status_code == 404


def test_a_bad_file_leaves_the_sessions_it_would_replace(own, make_agent):
    assert post(own, ORIGINAL).json() == {"imported": 2}
    before = export(own)["sessions"]
    changed = copy.deepcopy(broken(messages=None))
    changed["sessions"]["sess-1"]["messages"] = []
    assert post(own, changed).status_code in (400, 422)
    assert export(own)["sessions"] == before


def test_the_command_writes_and_reads_the_same_file_privately(own, start, tmp_path):
    post(own, ORIGINAL)
    path = tmp_path / "sessions.json"
    done = chelad.run("chela", "--state", own.state, "session", "export", path)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert text.startswith('{\n  "exported_at": "') and text.isascii()
    assert json.loads(text)["sessions"] == export(own)["sessions"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["sessions.json"]
    other = start()
    done = chelad.run("chela", "--state", other.state, "session", "import", path)
    assert done.returncode == 0, done.stderr
    assert export(other)["sessions"] == export(own)["sessions"]


def test_a_failing_export_leaves_the_old_file(own, tmp_path):
    done = chelad.run("chela", "--state", own.state, "session", "export", tmp_path / "no" / "dir")
    assert done.returncode == 1
    assert "no/dir" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_importing_many_sessions_is_one_step(own):
    whole = json.loads(ORIGINAL)
    model = whole["sessions"]["sess-1"]
    whole["sessions"] = {unique("bulk"): model for _ in range(2000)}
    assert post(own, whole).json() == {"imported": 2000}
    assert own.http.get("/api/vps/status").json()["sessions"] == 2000
