"""Requests that two parsers could read differently are refused, and what follows is never run."""

import pytest
from rawhttp import Connection

# Behind each ambiguous request stands one that would register an agent if it were believed.
SMUGGLED = (b"POST /api/vps/register HTTP/1.1\r\nHost: localhost\r\n"
            b'Content-Type: application/json\r\nContent-Length: 40\r\n\r\n'
            b'{"name":"smuggled","host":"h","port":1}\n')

HOST = b"Host: localhost\r\n"
LINE = b"POST /api/vps/call HTTP/1.1\r\n"
HEAD = LINE + HOST

AMBIGUOUS = [
    ("CL and TE", HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE and CL", HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("two CL", HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    ("two equal CL", HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
    ("CL list", HEAD + b"Content-Length: 2, 2\r\n\r\n{}"),
    ("CL signed", HEAD + b"Content-Length: +2\r\n\r\n{}"),
    ("CL negative", HEAD + b"Content-Length: -1\r\n\r\n"),
    ("CL hexadecimal", HEAD + b"Content-Length: 0x2\r\n\r\n{}"),
    ("CL with space", HEAD + b"Content-Length: 1 2\r\n\r\n{}"),
    ("CL empty", HEAD + b"Content-Length:\r\n\r\n"),
    ("CL enormous", HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n"),
    ("TE chunked twice", HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n"),
    ("TE list twice", HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("TE xchunked", HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE identity", HEAD + b"Transfer-Encoding: identity\r\n\r\n"),
    ("TE chunked not last", HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("TE vertical tab", HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("TE quoted", HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("TE in HTTP/1.0", b"POST /api/vps/call HTTP/1.0\r\n" + HOST
     + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("folded header", HEAD + b"X-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    ("folded TE", HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("space before the first header", LINE + b" Host: localhost\r\n\r\n"),
    ("bare LF in the head", LINE + b"Host: localhost\nContent-Length: 0\r\n\r\n"),
    ("bare LF at its end", HEAD + b"Content-Length: 0\r\n\n"),
    ("only LF", b"GET /health HTTP/1.1\nHost: localhost\n\n"),
    ("bare CR", HEAD + b"X: a\rb\r\n\r\n"),
    ("space before colon", HEAD + b"Content-Length : 0\r\n\r\n"),
    ("space in a name", HEAD + b"Content Length: 0\r\n\r\n"),
    ("TE space before colon", HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("no colon", HEAD + b"Header without colon\r\n\r\n"),
    ("empty name", HEAD + b": value\r\n\r\n"),
    ("NUL in a value", HEAD + b"X: a\x00b\r\n\r\n"),
    ("NUL in a name", HEAD + b"X\x00: a\r\n\r\n"),
    ("NUL in the target", b"GET /health\x00 HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("control in the target", b"GET /hea\x01lth HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("no Host", b"GET /health HTTP/1.1\r\n\r\n"),
    ("two Hosts", b"GET /health HTTP/1.1\r\n" + HOST + b"Host: 127.0.0.1\r\n\r\n"),
    ("two equal Hosts", b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    ("bad version", b"GET /health HTTP/1.2x\r\n" + HOST + b"\r\n"),
    ("HTTP/2.0", b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n"),
    ("HTTP/0.9", b"GET /health\r\n\r\n"),
    ("lower-case http", b"GET /health http/1.1\r\n" + HOST + b"\r\n"),
    ("two spaces", b"GET  /health HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("tab in the request line", b"GET\t/health HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("method with a bad character", b"GE(T /health HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("relative target", b"GET health HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
]

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = [
    ("no size", b"\r\n\r\n"), ("negative size", b"-1\r\n\r\n"),
    ("signed size", b"+2\r\n{}\r\n0\r\n\r\n"),
    ("size with 0x", b"0x2\r\n{}\r\n0\r\n\r\n"), ("size with space", b"2 2\r\n{}\r\n0\r\n\r\n"),
    ("enormous size", b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    ("letters", b"zz\r\n{}\r\n0\r\n\r\n"),
    ("data too long", b"2\r\n{}x\r\n0\r\n\r\n"), ("bare LF after the size", b"2\n{}\r\n0\r\n\r\n"),
    ("bare LF after the data", b"2\r\n{}\n0\r\n\r\n"),
    ("bare LF in an extension", b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    ("NUL in an extension", b"2;a\x00b\r\n{}\r\n0\r\n\r\n"),
    ("folded trailer", b"2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n"),
]
ROWS = AMBIGUOUS + [(f"chunk: {name}", CHUNKED + chunks) for name, chunks in BAD_CHUNKS]


@pytest.mark.parametrize("text", [row[1] for row in ROWS],
                         ids=[row[0].replace(" ", "-") for row in ROWS])
def test_an_ambiguous_request_is_refused_and_the_connection_closed(daemon, text):
    with Connection(daemon) as connection:
        connection.send(text + SMUGGLED)
        try:
            answer = connection.read()
        except (EOFError, ConnectionResetError):
            answer = None  # closing without a word is a refusal as well
        if answer:
            assert answer.status in (400, 501, 505), answer.body
            assert connection.closed()
    assert "smuggled" not in daemon.http.get("/api/vps/agents").text


def test_the_smuggled_request_would_have_worked_by_itself(own):
    with Connection(own) as connection:
        assert connection.send(SMUGGLED).read().status == 201
    assert "smuggled" in own.http.get("/api/vps/agents").text
