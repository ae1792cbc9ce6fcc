/* SPDX-License-Identifier: MIT */
/*
 * net/ws_rx.c — the receiving half of a WebSocket: pure, bytes in and events out.
 *
 * wslay (included here and nowhere else) reads frame heads and takes the mask off; it refuses
 * control frames that are fragmented or over 125 bytes and lengths not in their shortest form.
 * This file does the rest of RFC 6455's receiving: masking by role, reserved bits and opcodes, the
 * order of fragments, control frames between them, UTF-8 as it comes, close codes, the limit.
 *
 * wslay's frame context holds 4 KiB, so an idle socket has none: it is lent from a small stock
 * when bytes come and goes back at a frame's end with nothing left in it. That is known by
 * counting: `held` is what wslay has taken less the frames it has finished.
 *
 * A message in a single frame that came in one piece is handed out from where it lies; others are
 * gathered in `message`, whose memory goes once it has been handed out.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include "net/ws_int.h"

#define STOCK_MAX 8

struct ws_rx_work {
    wslay_frame_context_ptr frames;
    struct ws_rx *rx; /* whom it is lent to */
    struct ws_rx_work *next;
    size_t control_n;
    char control[WS_CONTROL_MAX]; /* of a control frame under way */
};

/* Spare contexts of this thread. */
static _Thread_local struct ws_rx_work *stock;
static _Thread_local unsigned n_stock;

static ssize_t feed_wslay(uint8_t *out, size_t n, int flags, void *arg)
{
    struct ws_rx *rx = ((struct ws_rx_work *)arg)->rx;

    if (rx->in_n == 0)
        return -1; /* wslay asks again later */
    if (n > rx->in_n)
        n = rx->in_n;
    memcpy(out, rx->in, n);
    rx->in += n;
    rx->in_n -= n;
    rx->held += n;
    return (ssize_t)n;
}

static void borrow(struct ws_rx *rx)
{
    struct ws_rx_work *w = stock;

    if (w) {
        stock = w->next;
        n_stock--;
    } else {
        struct wslay_frame_callbacks callbacks = { .recv_callback = feed_wslay };
        int r;

        w = xcalloc(1, sizeof(*w));
        r = wslay_frame_context_init(&w->frames, &callbacks, w);
        assert(r == 0); /* fails for lack of memory only */
    }
    w->rx = rx;
    w->next = NULL;
    w->control_n = 0;
    rx->work = w;
}

static void drop_work(struct ws_rx_work *w)
{
    wslay_frame_context_free(w->frames);
    free(w);
}

/* At the end of a frame, with nothing left inside, a context is as good as new. */
static void give_back(struct ws_rx *rx)
{
    struct ws_rx_work *w = TAKE(rx->work);

    if (n_stock >= STOCK_MAX) {
        drop_work(w);
        return;
    }
    w->rx = NULL;
    w->next = stock;
    stock = w;
    n_stock++;
}

void ws_rx_init(struct ws_rx *rx, bool masked, size_t max)
{
    *rx = (struct ws_rx){ .masked = masked, .max = max };
    buf_init(&rx->message, max);
}

void ws_rx_done(struct ws_rx *rx)
{
    if (rx->work)
        drop_work(TAKE(rx->work));
    buf_done(&rx->message);
}

void ws_rx_give(struct ws_rx *rx, const char *p, size_t n)
{
    assert(rx->in_n == 0);
    rx->in = p;
    rx->in_n = n;
}

bool ws_rx_idle(const struct ws_rx *rx)
{
    return !rx->work && rx->opcode == WS_OP_CONTINUATION && rx->in_n == 0;
}

/* RFC 6455 §7.4.1, and those registered since: 1012 (restart), 1013 (try again later), 1014. */
bool ws_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static bool fail(struct ws_rx *rx, unsigned code, struct str why, struct ws_rx_event *ret)
{
    rx->failed = true;
    *ret = (struct ws_rx_event){ .kind = WS_RX_FAIL, .code = code, .data = why };
    return true;
}

static bool is_control(unsigned opcode)
{
    return opcode & 8;
}

/* A frame's head has come. True: it failed. */
static bool check_head(struct ws_rx *rx, const struct wslay_frame_iocb *f, struct ws_rx_event *ret)
{
    bool data = f->opcode == WS_OP_TEXT || f->opcode == WS_OP_BINARY;

    if (f->rsv)
        return fail(rx, WS_CODE_PROTOCOL, STR("reserved bits are set"), ret);
    if (f->mask != rx->masked)
        return fail(rx, WS_CODE_PROTOCOL,
                    rx->masked ? STR("frame is not masked") : STR("frame is masked"), ret);
    if (is_control(f->opcode)) {
        if (f->opcode > WS_OP_PONG)
            return fail(rx, WS_CODE_PROTOCOL, STR("unknown opcode"), ret);
        rx->work->control_n = 0;
        return false;
    }
    if (f->opcode > WS_OP_BINARY)
        return fail(rx, WS_CODE_PROTOCOL, STR("unknown opcode"), ret);
    if (data && rx->opcode)
        return fail(rx, WS_CODE_PROTOCOL, STR("message inside a message"), ret);
    if (!data && !rx->opcode)
        return fail(rx, WS_CODE_PROTOCOL, STR("continuation of nothing"), ret);
    if (f->payload_length > rx->max - rx->message.n)
        return fail(rx, WS_CODE_TOO_BIG, STR("message is too big"), ret);
    if (data) {
        rx->opcode = f->opcode;
        rx->utf8 = (struct ws_utf8){ 0 };
    }
    return false;
}

static bool end_close(struct ws_rx *rx, struct str body, struct ws_rx_event *ret)
{
    unsigned code = WS_CODE_NONE;
    struct ws_utf8 utf8 = { 0 };

    if (body.n == 1)
        return fail(rx, WS_CODE_PROTOCOL, STR("close code of one byte"), ret);
    if (body.n >= 2) {
        code = (unsigned)(unsigned char)body.p[0] << 8 | (unsigned char)body.p[1];
        body = (struct str){ body.p + 2, body.n - 2 };
        if (!ws_code_valid(code))
            return fail(rx, WS_CODE_PROTOCOL, STR("close code is not allowed"), ret);
        if (!ws_utf8_feed(&utf8, body.p, body.n) || !ws_utf8_complete(&utf8))
            return fail(rx, WS_CODE_BAD_DATA, STR("close reason is not UTF-8"), ret);
    }
    *ret = (struct ws_rx_event){ .kind = WS_RX_CLOSE, .code = code, .data = body };
    return true;
}

/* A piece of a control frame; true: an event is ready. */
static bool control_piece(struct ws_rx *rx, const struct wslay_frame_iocb *f, bool end,
                          struct ws_rx_event *ret)
{
    struct ws_rx_work *w = rx->work;
    struct str body;

    memcpy(w->control + w->control_n, f->data, f->data_length); /* wslay refuses over 125 */
    w->control_n += f->data_length;
    if (!end)
        return false;
    body = (struct str){ w->control, w->control_n };
    if (f->opcode == WS_OP_CLOSE)
        return end_close(rx, body, ret);
    *ret = (struct ws_rx_event){
        .kind = f->opcode == WS_OP_PING ? WS_RX_PING : WS_RX_PONG,
        .opcode = f->opcode,
        .data = body,
    };
    return true;
}

static bool data_piece(struct ws_rx *rx, const struct wslay_frame_iocb *f, bool end,
                       struct ws_rx_event *ret)
{
    struct str piece = { (const char *)f->data, f->data_length };
    bool last = end && f->fin;
    int r;

    if (rx->opcode == WS_OP_TEXT &&
        (!ws_utf8_feed(&rx->utf8, piece.p, piece.n) || (last && !ws_utf8_complete(&rx->utf8))))
        return fail(rx, WS_CODE_BAD_DATA, STR("text is not UTF-8"), ret);
    if (!last || rx->message.n > 0) {
        r = buf_add(&rx->message, piece.p, piece.n, NULL);
        assert(r == 0); /* check_head() has held the frame against the limit */
    }
    if (!last)
        return false;
    if (rx->message.n > 0)
        piece = buf_str(&rx->message);
    *ret = (struct ws_rx_event){ .kind = WS_RX_MESSAGE, .opcode = rx->opcode, .data = piece };
    rx->message_given = rx->message.n > 0;
    rx->opcode = WS_OP_CONTINUATION;
    return true;
}

static uint64_t frame_size(const struct wslay_frame_iocb *f)
{
    uint64_t n = f->payload_length;

    return 2 + (n < 126 ? 0 : n < 65536 ? 2 : 8) + (f->mask ? 4u : 0) + n;
}

/* Take one piece of a frame from wslay; true: an event is ready. */
static bool step(struct ws_rx *rx, struct ws_rx_event *ret)
{
    struct wslay_frame_iocb f = { 0 };
    uint64_t size;
    ssize_t r;
    bool end;

    if (!rx->work)
        borrow(rx);
    r = wslay_frame_recv(rx->work->frames, &f);
    if (r == WSLAY_ERR_WANT_READ) {
        if (rx->held == 0)
            give_back(rx);
        *ret = (struct ws_rx_event){ .kind = WS_RX_MORE };
        return true;
    }
    if (r < 0)
        return fail(rx, WS_CODE_PROTOCOL, STR("bad frame"), ret);

    if (!rx->started && check_head(rx, &f, ret))
        return true;
    size = frame_size(&f);
    rx->got += f.data_length;
    end = rx->got == f.payload_length;
    rx->started = !end;
    if (end) {
        rx->got = 0;
        rx->held -= size;
    }
    return is_control(f.opcode) ? control_piece(rx, &f, end, ret) : data_piece(rx, &f, end, ret);
}

void ws_rx_next(struct ws_rx *rx, struct ws_rx_event *ret)
{
    if (rx->message_given) {
        rx->message_given = false;
        buf_done(&rx->message);
    }
    if (rx->failed) {
        rx->in_n = 0;
        *ret = (struct ws_rx_event){ .kind = WS_RX_MORE };
        return;
    }
    while (!step(rx, ret))
        ;
}
