"""The WebSocket protocol against our server and our client, case by case.

The ids are those of the Autobahn test suite's sections, whose cases these follow: 1 framing,
2 pings, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8, 7 closing, 9 limits, 10 fragments
made by the sender.
"""

import pytest
from wsraw import (BINARY, CLOSE, CONT, PING, PONG, TEXT, Caller, Server, close_body)

HELLO = "Hello-µ@ßöäüàá-UTF-8!!".encode()


@pytest.fixture(scope="module")
def server():
    one = Server()
    yield one
    one.stop()


@pytest.fixture(params=["server", "server by fiber", "client"])
def peer(request, server):
    """The other end of one of our WebSockets, in each of its roles."""
    if request.param == "client":
        caller = Caller()
        one = caller.open()
        yield one
        one.sock.close()
        caller.stop()
    else:
        one = server.open("/echo" if request.param == "server" else "/recv")
        yield one
        one.sock.close()


def ids(cases):
    return [case[0] for case in cases]


# --- 1: framing; 9.5, 9.6: the same in pieces ---

SIZES = [(0, 0), (125, 0), (126, 0), (127, 0), (128, 0), (65535, 0), (65536, 0), (65536, 997)]


@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="1.1"), pytest.param(BINARY, id="1.2")])
@pytest.mark.parametrize("size,chop", SIZES, ids=[str(i + 1) for i in range(len(SIZES))])
def test_1_messages_of_all_lengths_are_echoed(peer, opcode, size, chop):
    payload = (b"*" if opcode == TEXT else b"\xfe") * size
    peer.send((opcode, payload), chop=chop)
    peer.expect((opcode, payload))
    peer.finish()


# --- 2: pings and pongs ---

PINGS = [
    ("2.1", [(PING, b"")], [(PONG, b"")]),
    ("2.2", [(PING, b"Hello, world!")], [(PONG, b"Hello, world!")]),
    ("2.3", [(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
     [(PONG, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
    ("2.4", [(PING, b"\xfe" * 125)], [(PONG, b"\xfe" * 125)]),
    ("2.7", [(PONG, b"")], []),
    ("2.8", [(PONG, b"unsolicited pong payload")], []),
    ("2.9", [(PONG, b"unsolicited pong payload"), (PING, b"ping payload")],
     [(PONG, b"ping payload")]),
    ("2.10", [(PING, b"payload-%d" % i) for i in range(10)],
     [(PONG, b"payload-%d" % i) for i in range(10)]),
]


@pytest.mark.parametrize("chop", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("case", PINGS, ids=ids(PINGS))
def test_2_pings_are_answered_in_order(peer, case, chop):
    _, frames, answers = case
    peer.send(*frames, chop=chop)
    peer.expect(*answers)
    peer.finish()


def test_2_5_a_ping_over_125_bytes_is_refused(peer):
    peer.send((PING, b"\xfe" * 126))
    peer.expect_close(1002)


# --- 3: reserved bits; 4: opcodes ---

RESERVED = [
    ("3.1", [], (TEXT, HELLO, True, 1), []),
    ("3.2", [(TEXT, HELLO)], (TEXT, HELLO, True, 2), [(TEXT, HELLO)]),
    ("3.3", [(TEXT, HELLO)], (TEXT, HELLO, True, 3), [(TEXT, HELLO)]),
    ("3.4", [(TEXT, HELLO)], (TEXT, HELLO, True, 4), [(TEXT, HELLO)]),
    ("3.5", [], (BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", True, 5), []),
    ("3.6", [], (PING, HELLO, True, 6), []),
    ("3.7", [], (CLOSE, close_body(1000), True, 7), []),
]
OPCODES = [(f"4.{group}.{i + 1}", [(TEXT, HELLO)] if i > 1 else [],
            (opcode, b"" if i % 2 == 0 else HELLO), [(TEXT, HELLO)] if i > 1 else [])
           for group, codes in ((1, range(3, 8)), (2, range(11, 16)))
           for i, opcode in enumerate(codes)]


@pytest.mark.parametrize("case", RESERVED + OPCODES, ids=ids(RESERVED + OPCODES))
def test_3_4_what_is_reserved_is_refused(peer, case):
    _, before, bad, answers = case
    peer.send(*before)
    peer.expect(*answers)
    peer.send(bad, (PING, b"never answered"))
    peer.expect_close(1002)


def test_masks_must_fit_the_role(peer):
    peer.send(peer.frame(TEXT, HELLO, masked=not peer.masks))
    peer.expect_close(1002)


# --- 5: fragmentation ---

A, B = b"fragment1", b"fragment2"
FRAGMENTS = [
    ("5.3", [(TEXT, A, False), (CONT, B)], [(TEXT, A + B)]),
    ("5.6", [(TEXT, A, False), (PING, b"ping"), (CONT, B)], [(PONG, b"ping"), (TEXT, A + B)]),
    ("5.19", [(TEXT, b"f1", False), (CONT, b"f2", False), (PING, b"p1"), (CONT, b"f3", False),
              (CONT, b"f4", False), (PING, b"p2"), (CONT, b"f5")],
     [(PONG, b"p1"), (PONG, b"p2"), (TEXT, b"f1f2f3f4f5")]),
    ("empty parts", [(TEXT, b"", False), (CONT, b"", False), (CONT, b"")], [(TEXT, b"")]),
    ("6.1.3", [(TEXT, b"", False), (CONT, b"middle frame payload", False), (CONT, b"")],
     [(TEXT, b"middle frame payload")]),
    ("two messages", [(BINARY, A, False), (CONT, B), (TEXT, A, False), (CONT, B)],
     [(BINARY, A + B), (TEXT, A + B)]),
]
BROKEN = [
    ("5.1", [(PING, A, False), (CONT, B)], []),
    ("5.2", [(PONG, A, False), (CONT, B)], []),
    ("5.9", [(CONT, b"non-continuation payload"), (TEXT, HELLO)], []),
    ("5.12", [(CONT, b"non-continuation payload", False), (TEXT, HELLO)], []),
    ("5.15", [(CONT, b"f3", False), (TEXT, b"f4")], [(TEXT, A, False), (CONT, B)]),
    ("5.16", [(CONT, A, False), (TEXT, B, False), (CONT, b"f3")], []),
    ("5.18", [(TEXT, A, False), (TEXT, B)], []),
    ("close in parts", [(CLOSE, close_body(1000), False)], []),
]


@pytest.mark.parametrize("chop", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("case", FRAGMENTS, ids=ids(FRAGMENTS))
def test_5_fragments_become_one_message(peer, case, chop):
    _, frames, answers = case
    peer.send(*frames, chop=chop)
    peer.expect(*answers)
    peer.finish()


@pytest.mark.parametrize("chop", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("case", BROKEN, ids=ids(BROKEN))
def test_5_fragments_out_of_order_are_refused(peer, case, chop):
    _, frames, before = case
    if before:
        peer.send(*before)
        peer.expect((TEXT, A + B))
    peer.send(*frames, chop=chop)
    peer.expect_close(1002)


# --- 6: UTF-8 ---

GREEK = "κόσμε".encode()
VALID = [
    ("6.2.1", HELLO), ("6.5.1", GREEK[:2]), ("6.5.5", GREEK), ("6.6.11", GREEK),
    ("6.7.1", b"\x00"), ("6.7.2", b"\xc2\x80"), ("6.7.3", b"\xe0\xa0\x80"),
    ("6.7.4", b"\xf0\x90\x80\x80"), ("6.9.1", b"\x7f"), ("6.9.2", b"\xdf\xbf"),
    ("6.9.3", b"\xef\xbf\xbf"), ("6.9.4", b"\xf4\x8f\xbf\xbf"), ("6.11.1", b"\xed\x9f\xbf"),
    ("6.11.2", b"\xee\x80\x80"), ("6.11.3", b"\xef\xbf\xbd"), ("6.22.1", b"\xef\xbf\xbe"),
    ("6.22.3", b"\xf0\x9f\xbf\xbe"), ("6.23.1", b"\xef\xbf\xb9"), ("6.23.7", b"\xef\xbf\xbf"),
]
INVALID = [
    ("6.3.1", GREEK + b"\xed\xa0\x80" + b"edited"), ("6.6.1", GREEK[:1]), ("6.6.3", GREEK[:3]),
    ("6.6.8", GREEK[:-1]), ("6.8.1", b"\xf8\x88\x80\x80\x80"),
    ("6.8.2", b"\xfc\x84\x80\x80\x80\x80"), ("6.10.1", b"\xf7\xbf\xbf\xbf"),
    ("6.10.2", b"\xfb\xbf\xbf\xbf\xbf"), ("6.11.5", b"\xf4\x90\x80\x80"),
    ("6.12.1", b"\x80"), ("6.12.2", b"\xbf"), ("6.12.8", bytes(range(0x80, 0xc0))),
    ("6.13.1", b" ".join(bytes([c]) for c in range(0xc0, 0xe0))),
    ("6.13.5", b" ".join(bytes([c]) for c in range(0xfc, 0xfe))),
    ("6.14.1", b"\xc0"), ("6.14.2", b"\xe0\x80"), ("6.14.6", b"\xdf"), ("6.14.8", b"\xf7\xbf\xbf"),
    ("6.15.1", b"\xc0\xe0\x80\xf0\x80\x80"), ("6.16.1", b"\xfe"), ("6.16.2", b"\xff"),
    ("6.17.1", b"\xc0\xaf"), ("6.17.2", b"\xe0\x80\xaf"), ("6.17.3", b"\xf0\x80\x80\xaf"),
    ("6.18.1", b"\xc1\xbf"), ("6.18.2", b"\xe0\x9f\xbf"), ("6.18.3", b"\xf0\x8f\xbf\xbf"),
    ("6.19.1", b"\xc0\x80"), ("6.19.2", b"\xe0\x80\x80"), ("6.20.1", b"\xed\xa0\x80"),
    ("6.20.4", b"\xed\xaf\xbf"), ("6.20.7", b"\xed\xbf\xbf"),
    ("6.21.1", b"\xed\xa0\x80\xed\xb0\x80"), ("6.21.8", b"\xed\xaf\xbf\xed\xbf\xbf"),
]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "fragments"])
@pytest.mark.parametrize("case", VALID, ids=ids(VALID))
def test_6_text_is_echoed(peer, case, split):
    _, text = case
    if split:  # a frame for each byte, as 6.2.3 and 6.2.4
        peer.send((TEXT, b"", False), *((CONT, text[i:i + 1], False) for i in range(len(text))),
                  (CONT, b""))
    else:
        peer.send((TEXT, text))
    peer.expect((TEXT, text))
    peer.finish()


@pytest.mark.parametrize("split", [False, True], ids=["whole", "fragments"])
@pytest.mark.parametrize("case", INVALID, ids=ids(INVALID))
def test_6_text_that_is_not_utf8_is_refused(peer, case, split):
    _, text = case
    if split:
        peer.send((TEXT, b"", False), *((CONT, text[i:i + 1], False) for i in range(len(text))),
                  (CONT, b""))
    else:
        peer.send((TEXT, text))
    peer.expect_close(1007)


def test_6_4_1_bad_text_fails_with_the_fragment_that_shows_it(peer):
    peer.send((TEXT, GREEK, False))
    peer.send((CONT, b"\xf4\x90\x80\x80", False))
    peer.expect_close(1007)  # the message has not ended


def test_6_4_2_the_same_with_the_first_impossible_byte_alone(peer):
    peer.send((TEXT, GREEK + b"\xf4", False))
    peer.send((CONT, b"\x90", False))
    peer.expect_close(1007)


def test_6_4_3_bad_text_fails_before_its_frame_ends(peer):
    whole = peer.frame(TEXT, GREEK + b"\xf4\x90\x80\x80" + b"edited")
    peer.send(whole[:-len(b"\x80\x80edited")])
    peer.expect_close(1007)  # the frame has not ended


# --- 7: closing ---

def test_7_1_1_a_message_before_the_close_is_echoed(peer):
    peer.send((TEXT, b"Hello World!"), (CLOSE, close_body(1000)))
    peer.expect((TEXT, b"Hello World!"))
    peer.expect_close(1000)


AFTER_CLOSE = [
    ("7.1.2", [(CLOSE, close_body(1000))]), ("7.1.3", [(PING, b"")]),
    ("7.1.4", [(TEXT, b"after the close")]),
    ("7.1.5", [(CONT, b"rest")]), ("7.1.6", [(BINARY, b"*" * 262144), (PING, b"")]),
]


@pytest.mark.parametrize("case", AFTER_CLOSE, ids=ids(AFTER_CLOSE))
def test_7_1_nothing_after_the_close_is_answered(peer, case):
    name, frames = case
    first = [(TEXT, b"fragment", False)] if name == "7.1.5" else []
    peer.send(*first, (CLOSE, close_body(1000)), *frames)
    peer.expect_close(1000)


CLOSES = [
    ("7.3.1", b"", None), ("7.3.2", b"a", 1002), ("7.3.3", close_body(1000), 1000),
    ("7.3.4", close_body(1000, b"Hello World!"), 1000),
    ("7.3.5", close_body(1000, b"*" * 123), 1000), ("7.3.6", close_body(1000, b"*" * 124), 1002),
    ("7.5.1", close_body(1000, GREEK + b"\xed\xa0\x80" + b"edited"), 1007),
]
CLOSES += [(f"7.7.{i + 1}", close_body(code), code) for i, code in
           enumerate([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
                      3000, 3999, 4000, 4999])]
CLOSES += [(f"7.9.{i + 1}", close_body(code), 1002) for i, code in
           enumerate([0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999,
                      5000, 65535])]


@pytest.mark.parametrize("case", CLOSES, ids=ids(CLOSES))
def test_7_closes_are_answered_by_their_code(peer, case):
    _, body, code = case
    peer.send((CLOSE, body))
    peer.expect_close(code)


# --- 9: limits and performance; 10: fragments made by the sender ---

@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="9.1"), pytest.param(BINARY, id="9.2")])
@pytest.mark.parametrize("size", [64, 256, 1024, 4096], ids=lambda kib: f"{kib}KiB")
def test_9_large_messages_are_echoed(peer, opcode, size):
    payload = b"*" * (size * 1024)
    peer.send((opcode, payload))
    peer.expect((opcode, payload))
    peer.finish()


@pytest.mark.parametrize("part", [64, 4096, 65536, 1048576], ids=lambda n: f"9.3-{n}")
def test_9_3_large_messages_in_fragments_are_echoed(peer, part):
    payload = bytes(range(97, 123)) * 4096
    size = len(payload)
    first = (BINARY, payload[:part], size <= part)
    rest = ((CONT, payload[at:at + part], at + part >= size) for at in range(part, size, part))
    peer.send(first, *rest)
    peer.expect((BINARY, payload))
    peer.finish()


@pytest.mark.parametrize("chop", [64, 256, 1300], ids=lambda n: f"9.5-{n}")
def test_9_5_large_messages_in_small_writes_are_echoed(peer, chop):
    payload = b"*" * 131072
    peer.send((TEXT, payload), chop=chop)
    peer.expect((TEXT, payload))
    peer.finish()


@pytest.mark.parametrize("size", [0, 16, 64, 1024], ids=lambda n: f"9.7-{n}")
def test_9_7_many_round_trips_keep_their_order(peer, size):
    for number in range(300):
        payload = b"%08d" % number + b"*" * size
        peer.send((TEXT, payload))
        peer.expect((TEXT, payload))
    peer.finish()


def test_9_8_many_messages_at_once_keep_their_order(peer):
    payloads = [b"%08d" % number for number in range(1000)]
    peer.send(*((BINARY, payload) for payload in payloads))
    peer.expect(*((BINARY, payload) for payload in payloads))
    peer.finish()


def test_10_1_1_a_message_in_fragments_of_1300_is_echoed(peer):
    payload = b"*" * 65536
    parts = [payload[at:at + 1300] for at in range(0, len(payload), 1300)]
    peer.send((TEXT, parts[0], False), *((CONT, p, False) for p in parts[1:-1]),
              (CONT, parts[-1]))
    peer.expect((TEXT, payload))
    peer.finish()
