/* SPDX-License-Identifier: MIT */
/*
 * net/ws_int.h — what the files of WebSocket share: the receiving half, which is pure, the
 * handshake's parts, and the socket. For ws*.c only.
 */
#pragma once

#include "base/buf.h"
#include "net/http_upgrade.h"
#include "net/ws.h"

enum ws_opcode {
    WS_OP_CONTINUATION = 0x0,
    WS_OP_TEXT = 0x1,
    WS_OP_BINARY = 0x2,
    WS_OP_CLOSE = 0x8,
    WS_OP_PING = 0x9,
    WS_OP_PONG = 0xa,
};

enum { WS_CONTROL_MAX = 125, WS_FRAME_HEAD_MAX = 14 };

enum {
    WS_CODE_NORMAL = 1000,
    WS_CODE_GOING_AWAY = 1001,
    WS_CODE_PROTOCOL = 1002,
    WS_CODE_NONE = 1005,     /* never on the wire: the peer's close had no code */
    WS_CODE_ABNORMAL = 1006, /* never on the wire: the peer went without a close */
    WS_CODE_BAD_DATA = 1007,
    WS_CODE_POLICY = 1008,
    WS_CODE_TOO_BIG = 1009,
};

/* --- ws_utf8.c: well-formedness of text that comes in pieces --- */

struct ws_utf8 {
    unsigned char left;      /* continuation bytes still to come */
    unsigned char low, high; /* bounds of the next one */
};

/* False as soon as the text so far cannot be the beginning of well-formed UTF-8. */
bool ws_utf8_feed(struct ws_utf8 *u, const char *p, size_t n);
bool ws_utf8_complete(const struct ws_utf8 *u);

/* --- ws_rx.c: bytes in, events out --- */

enum ws_rx_kind {
    WS_RX_MORE,    /* all bytes given are used up */
    WS_RX_MESSAGE, /* opcode, data */
    WS_RX_PING,    /* data */
    WS_RX_PONG,    /* data */
    WS_RX_CLOSE,   /* code (WS_CODE_NONE without one), data: the reason */
    WS_RX_FAIL,    /* code to close with, data: why; nothing more can be received */
};

struct ws_rx_event {
    enum ws_rx_kind kind;
    enum ws_opcode opcode;
    unsigned code;
    struct str data; /* valid until the next call */
};

struct ws_rx_work; /* a frame under way, with wslay's 4 KiB; lent only while there is one */

struct ws_rx {
    bool masked; /* what frames must be: a server's peer masks, a client's does not */
    bool failed;
    bool started;         /* a frame's payload is being received */
    bool message_given;   /* `message` was handed out and is cleared at the next call */
    unsigned char opcode; /* of the message under way, WS_OP_CONTINUATION for none */
    struct ws_utf8 utf8;
    size_t max; /* bytes of a message */
    struct buf message;
    const char *in; /* given and not yet taken */
    size_t in_n;
    uint64_t held; /* bytes taken that belong to no finished frame */
    uint64_t got;  /* payload bytes of the frame under way */
    struct ws_rx_work *work;
};

void ws_rx_init(struct ws_rx *rx, bool masked, size_t max);
void ws_rx_done(struct ws_rx *rx);

/* Give bytes, which must stay where they are until ws_rx_next() says WS_RX_MORE. */
void ws_rx_give(struct ws_rx *rx, const char *p, size_t n);
void ws_rx_next(struct ws_rx *rx, struct ws_rx_event *ret);

/* Is a frame or a message under way? Else the receiver holds no memory. */
bool ws_rx_idle(const struct ws_rx *rx);

/* May a peer send this code? */
bool ws_code_valid(unsigned code);

/* --- ws_frame.c: bytes out --- */

/* The head of a whole-message frame into out; mask NULL: unmasked. Its length. */
size_t ws_frame_head(enum ws_opcode opcode, uint64_t n, const unsigned char mask[4],
                     unsigned char out[WS_FRAME_HEAD_MAX]);

/* Copy n bytes under the mask. */
void ws_frame_mask(const char *p, size_t n, const unsigned char mask[4], char *out);

/* --- ws_handshake.c: pure parts of the opening --- */

#define WS_KEY_TEXT 25

/* n bytes as base64 into out, which holds 4 * ceil(n / 3) + 1. */
void ws_base64(const unsigned char *p, size_t n, char *out);

/* Is the text the base64 of 16 bytes? */
bool ws_key_valid(struct str key);

/* Does a comma-separated header value hold the token, in any case? */
bool ws_has_token(struct str list, const char *token);

/*
 * Judge a server's answer (head without its final empty line) to a request with this key:
 * 101, the upgrade headers once each, the right accept value, our subprotocol or none, no
 * extension.
 */
int ws_check_answer(struct str head, const char *key, const char *subprotocol, struct err *e)
    MUST_CHECK;

/* --- ws.c --- */

/*
 * Make an open socket over s, which it owns with the seat from now on. rest: bytes already read,
 * may be NULL. first: bytes to send before anything else (the 101 head), may be empty.
 */
struct ws *ws_new(struct loop *loop, struct stream *s, struct http_seat *seat, bool client,
                  const struct ws_limits *limits, const struct ws_ops *ops, void *arg,
                  struct str first, struct str rest);
