"""`chela-agent http -- CMD…` makes any command an HTTP agent."""

import contextlib
import json
import os
import select
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import chelad
import httpx
import pytest
from wait import eventually, together, unique


class Program:
    def __init__(self, process, ready):
        self.process = process
        self.ready = ready
        self.port = int(next(iter(ready["listeners"].values())).rsplit(":", 1)[1])
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30,
                                 trust_env=False)

    def ask(self, prompt="hello", **fields):
        return self.http.post("/v1/messages", json={
            "model": "m", "messages": [{"role": "user", "content": prompt}], **fields})


@pytest.fixture
def agent(tmp_path):
    """Starts the program: agent("cat"), agent("--timeout=1", "--", "sleep", "9")."""
    with contextlib.ExitStack() as stack:
        def start(*arguments):
            options = arguments if "--" in arguments else ("--", *arguments)
            reading, writing = os.pipe()
            log = stack.enter_context(open(tmp_path / "agent.stderr", "ab"))
            process = subprocess.Popen(
                [chelad.BIN / "chela-agent", "http", "--port", "0", "--ready-fd", str(writing),
                 *options], env=chelad.environment(tmp_path), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(writing,))
            stack.callback(finish, process)
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                assert select.select([pipe], [], [], 20)[0], "not ready in time"
                line = pipe.read()
            assert line.endswith(b"\n"), (tmp_path / "agent.stderr").read_text()
            return Program(process, json.loads(line))
        yield start
    report = (tmp_path / "agent.stderr").read_text()
    assert not any(mark in report for mark in chelad.SANITIZER_MARKS), report


def finish(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_the_prompt_is_its_input_and_its_output_the_answer(agent):
    answer = agent("cat").ask("żółw 🦞\nsecond line")
    assert answer.status_code == 200
    assert answer.json()["content"] in (
        "żółw 🦞\nsecond line", [{"type": "text", "text": "żółw 🦞\nsecond line"}])


def test_it_speaks_chat_completions_too(agent):
    program = agent("tr", "a-z", "A-Z")
    answer = program.http.post("/v1/chat/completions", json={
        "model": "m", "messages": [{"role": "user", "content": "loud"}]})
    assert answer.json()["choices"][0]["message"] == {"role": "assistant", "content": "LOUD"}


def test_it_is_healthy(agent):
    assert agent("cat").http.get("/health").status_code == 200


@pytest.mark.parametrize("api", ["messages", "openai"])
def test_the_bridge_calls_it_as_an_agent(agent, daemon, api):
    name = daemon.register(agent("rev").port, unique("agent"), api=api)
    session = unique("session")
    assert daemon.call(name, "abc", session_id=session)["response"].strip() == "cba"
    assert [role for role, _ in daemon.turns(session)] == ["user", "assistant"]


def test_a_failing_command_is_500_with_its_reason_and_the_bridge_falls_over(agent, daemon):
    failing = agent("sh", "-c", "echo went wrong >&2; exit 3")
    answer = failing.ask()
    assert answer.status_code == 500
    assert "3" in answer.text
    backup = daemon.register(agent("cat").port, unique("backup"))
    name = daemon.register(failing.port, unique("agent"), max_retries=1, fallback_agents=[backup])
    assert daemon.call(name, "again")["agent_name"] == backup


def test_a_command_that_dies_by_a_signal_is_500(agent):
    assert agent("sh", "-c", "kill -9 $$").ask().status_code == 500


def test_a_missing_command_is_500_or_refused_at_start(agent):
    try:
        program = agent("/nonexistent/command")
    except AssertionError:
        return
    assert program.ask().status_code == 500


def test_the_command_is_an_argument_list_and_never_a_shell_s(agent):
    assert agent("printf", "%s", "$HOME; `id` | x").ask().json()["content"] in (
        "$HOME; `id` | x", [{"type": "text", "text": "$HOME; `id` | x"}])


def test_a_command_over_its_time_is_504_and_is_ended_with_its_children(agent, tmp_path):
    mark = tmp_path / "pids"
    program = agent("--timeout", "1", "--", "sh", "-c", f"sleep 300 & echo $! $$ > {mark}; wait")
    answer = program.ask()
    assert answer.status_code == 504
    pids = [int(text) for text in mark.read_text().split()]
    eventually(lambda: not any(alive(pid) for pid in pids))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_caller_that_leaves_ends_the_command(agent, tmp_path):
    mark = tmp_path / "pid"
    program = agent("sh", "-c", f"echo $$ > {mark}; exec sleep 300")
    with pytest.raises(httpx.ReadTimeout):
        program.http.post("/v1/messages", json={"messages": [{"role": "user", "content": "x"}]},
                          timeout=1)
    eventually(lambda: not alive(int(mark.read_text())))


def test_more_calls_than_the_concurrency_are_told_to_come_back(agent, tmp_path):
    go = tmp_path / "go"
    program = agent("--concurrency", "2", "--", "sh", "-c",
                    f"while [ ! -e {go} ]; do sleep 0.05; done; echo done")
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(program.ask) for _ in range(2)]
        eventually(lambda: children(program) == 2)
        refused = program.ask()
        assert refused.status_code in (429, 503)
        assert int(refused.headers["Retry-After"]) >= 0
        assert program.http.get("/health").status_code == 200
        go.touch()
        assert [call.result().status_code for call in running] == [200, 200]
    eventually(lambda: children(program) == 0)


def children(program):
    path = f"/proc/{program.process.pid}/task/{program.process.pid}/children"
    with open(path) as listing:
        return len(listing.read().split())


def test_many_calls_one_after_the_other_leave_no_process_behind(agent):
    program = agent("--concurrency", "8", "--", "cat")
    answers = together(lambda number: program.ask(f"p{number}").status_code, range(40), workers=8)
    assert answers == [200] * 40
    eventually(lambda: children(program) == 0)


@pytest.mark.parametrize("body, status", [(b"", (400, 422)), (b"not json", (400, 422)),
                                          (b"{}", (400, 422)), (b'{"messages":[]}', (400, 422)),
                                          (b'{"messages":"x"}', (400, 422))])
def test_a_bad_request_starts_no_command(agent, tmp_path, body, status):
    mark = tmp_path / "ran"
    answer = agent("touch", str(mark)).http.post("/v1/messages", content=body,
                                                 headers={"Content-Type": "application/json"})
    assert answer.status_code in status
    assert not mark.exists()


def test_a_prompt_larger_than_a_pipe_and_an_output_as_large(agent):
    text = "line of text\n" * 100_000
    answer = agent("cat").ask(text)
    assert answer.status_code == 200
    content = answer.json()["content"]
    content = content if isinstance(content, str) else content[0]["text"]
    assert content.rstrip() == text.rstrip()


def test_a_command_that_never_reads_its_input_still_answers(agent):
    answer = agent("echo", "fine").ask("y" * 1_000_000)
    assert answer.status_code == 200


def test_output_that_is_not_utf8_does_not_break_the_answer(agent):
    answer = agent("printf", r"\377\376").ask()
    assert answer.status_code in (200, 500)
    answer.json()


@pytest.mark.parametrize("arguments", [("http",), ("http", "--"), ("nothing",),
                                       ("http", "--port", "x", "--", "cat"),
                                       ("http", "--nope", "--", "cat")], ids=str)
def test_wrong_usage_is_exit_status_2(arguments):
    done = chelad.run("chela-agent", *arguments)
    assert done.returncode == 2
    assert done.stderr
