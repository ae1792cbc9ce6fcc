/* SPDX-License-Identifier: MIT */
/*
 * net/ws_out.c — sending. A frame is written at once when nothing waits, and only what the socket
 * does not take is copied. What waits is bounded by limits.queue; control frames of ours come on
 * top of that, but at most one ping, one pong and one close at a time.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "net/ws_sock.h"

static void wake_waiters(struct ws *ws)
{
    for (struct ws_waiter *w = ws->waiters; w; w = w->next)
        fiber_wake(w->fiber);
}

void ws_out_release(struct ws *ws)
{
    for (struct ws_waiter *w = ws->waiters; w; w = w->next)
        w->gone = true;
    wake_waiters(ws);
    ws->waiters = NULL;
}

void ws_out_done(struct ws *ws)
{
    buf_done(&ws->out);
    free(TAKE(ws->pong));
}

/* Bounded by the callers: messages by limits.queue, control frames by their number. */
static void enqueue(struct ws *ws, const void *p, size_t n)
{
    int r = buf_add(&ws->out, p, n, NULL);

    assert(r == 0);
}

/* Write both pieces; what does not go is queued. */
static void write_through(struct ws *ws, struct iovec iov[2])
{
    struct err e;
    size_t n = 0;
    int r;

    r = stream_writev(ws->stream, iov, iov[1].iov_len ? 2 : 1, &n, &e);
    if (r < 0) {
        ws_fail_later(ws);
        return;
    }
    for (int i = 0; i < 2; i++) {
        size_t sent = n < iov[i].iov_len ? n : iov[i].iov_len;

        n -= sent;
        if (iov[i].iov_len > sent)
            enqueue(ws, (char *)iov[i].iov_base + sent, iov[i].iov_len - sent);
    }
}

static void masked_frame(struct ws *ws, enum ws_opcode opcode, struct str data)
{
    bool idle = ws->out.n == 0;
    unsigned char mask[4], head[WS_FRAME_HEAD_MAX];
    uint64_t random = rand_u64();
    char *to = NULL;
    int r;

    memcpy(mask, &random, sizeof(mask));
    enqueue(ws, head, ws_frame_head(opcode, data.n, mask, head));
    r = buf_reserve(&ws->out, data.n, &to, NULL);
    assert(r == 0); /* as in enqueue() */
    ws_frame_mask(data.p, data.n, mask, to);
    buf_commit(&ws->out, data.n);
    if (idle)
        ws_out_flush(ws);
}

/* The loop runs what is deferred in order, so this comes before the socket is freed. */
static void flush_late(void *arg)
{
    struct ws *ws = arg;

    ws->flush_due = false;
    if (ws->state == WS_GONE)
        return;
    ws_out_flush(ws);
    ws_settle(ws);
}

static void flush_soon(struct ws *ws)
{
    if (ws->flush_due)
        return;
    ws->flush_due = true;
    loop_defer(ws->loop, flush_late, ws);
}

void ws_out_frame(struct ws *ws, enum ws_opcode opcode, struct str data)
{
    unsigned char head[WS_FRAME_HEAD_MAX];
    struct iovec iov[2];

    if (ws->broken || ws->state == WS_GONE)
        return;
    if (ws->client) {
        masked_frame(ws, opcode, data);
        return;
    }
    iov[0] = (struct iovec){ head, ws_frame_head(opcode, data.n, NULL, head) };
    memcpy(&iov[1].iov_base, &data.p, sizeof(data.p)); /* writev only reads it */
    iov[1].iov_len = data.n;
    if (ws->out.n == 0 && !ws->limits.gather) {
        write_through(ws, iov);
        return;
    }
    enqueue(ws, head, iov[0].iov_len);
    if (data.n)
        enqueue(ws, data.p, data.n);
    if (ws->limits.gather)
        flush_soon(ws);
}

void ws_out_close(struct ws *ws, unsigned code, struct str reason)
{
    char body[WS_CONTROL_MAX];
    size_t n = reason.n < sizeof(body) - 2 ? reason.n : sizeof(body) - 2;

    if (code == WS_CODE_NONE) {
        ws_out_frame(ws, WS_OP_CLOSE, (struct str){ 0 });
        return;
    }
    while (n > 0 && n < reason.n && (reason.p[n] & 0xc0) == 0x80)
        n--; /* do not cut a character */
    body[0] = (char)(code >> 8);
    body[1] = (char)code;
    if (n)
        memcpy(body + 2, reason.p, n);
    ws_out_frame(ws, WS_OP_CLOSE, (struct str){ body, n + 2 });
}

/* RFC 6455 §5.5.3: of several pings only the latest need be answered. */
void ws_out_pong(struct ws *ws, struct str data)
{
    if (ws->out.n == 0) {
        ws_out_frame(ws, WS_OP_PONG, data);
        return;
    }
    free(ws->pong);
    ws->pong = xmalloc(data.n + 1);
    if (data.n)
        memcpy(ws->pong, data.p, data.n);
    ws->n_pong = (unsigned char)data.n;
}

static void drained(struct ws *ws)
{
    char *pong = TAKE(ws->pong);

    buf_done(&ws->out);
    if (pong)
        ws_out_frame(ws, WS_OP_PONG, (struct str){ pong, ws->n_pong });
    free(pong);
    wake_waiters(ws);
    if (ws->state == WS_OPEN && ws->ops && ws->ops->drained)
        ws->ops->drained(ws, ws->arg);
}

void ws_out_flush(struct ws *ws)
{
    struct err e;
    size_t n;
    int r;

    while (ws->out.n > 0 && !ws->broken && ws->stream) {
        struct iovec iov = { ws->out.p + ws->out.off, ws->out.n };

        r = stream_writev(ws->stream, &iov, 1, &n, &e);
        if (r == STREAM_AGAIN)
            return;
        if (r < 0) {
            ws_fail_later(ws);
            return;
        }
        buf_eat(&ws->out, n);
        if (ws->out.n == 0)
            drained(ws);
    }
}

/* Bytes a message takes in the queue. */
static size_t cost(const struct ws *ws, size_t n)
{
    return n + (n < 126 ? 2 : n < 65536 ? 4 : 10) + (ws->client ? 4 : 0);
}

static int refuse(const struct ws *ws, struct str data, struct err *e)
{
    if ((ws->state != WS_OPEN && ws->state != WS_HEARD) || ws->broken)
        return err_set(e, ERR_UNAVAILABLE, "the WebSocket is closing");
    if (cost(ws, data.n) > ws->limits.queue)
        return err_set(e, ERR_LIMIT, "a message of %zu bytes is over the queue's %zu", data.n,
                       ws->limits.queue);
    return 0;
}

static bool has_room(const struct ws *ws, size_t n)
{
    return ws->out.n < ws->limits.queue && cost(ws, n) <= ws->limits.queue - ws->out.n;
}

int ws_send(struct ws *ws, enum ws_kind kind, struct str data, struct err *e)
{
    int r = refuse(ws, data, e);

    if (r < 0)
        return r;
    if (!has_room(ws, data.n))
        return err_set(e, ERR_LIMIT, "%zu bytes wait to be sent already", ws->out.n);
    ws_out_frame(ws, kind == WS_TEXT ? WS_OP_TEXT : WS_OP_BINARY, data);
    ws_settle(ws);
    return 0;
}

static void leave(struct ws *ws, struct ws_waiter *w)
{
    struct ws_waiter **at = &ws->waiters;

    while (*at && *at != w)
        at = &(*at)->next;
    if (*at)
        *at = w->next;
}

CO int ws_send_wait(struct ws *ws, enum ws_kind kind, struct str data, uint64_t deadline_ms,
                    struct err *e)
{
    int r;

    for (;;) {
        struct ws_waiter w = { .fiber = fiber_self() };

        r = refuse(ws, data, e);
        if (r < 0)
            return r;
        if (has_room(ws, data.n))
            return ws_send(ws, kind, data, e);
        w.next = ws->waiters;
        ws->waiters = &w;
        r = fiber_park(deadline_ms, e);
        if (w.gone)
            return err_set(e, ERR_UNAVAILABLE, "the WebSocket is closed");
        leave(ws, &w);
        if (r < 0)
            return r;
    }
}

size_t ws_queued(const struct ws *ws)
{
    return ws->out.n;
}
