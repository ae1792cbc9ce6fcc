/* SPDX-License-Identifier: MIT */
/*
 * net/ws.c — the life of a WebSocket: reading, the closing handshake, silence, the end.
 *
 *     OPEN ──ws_close()──▶ CLOSING ──peer's close──▶ LINGER ──peer hangs up──▶ GONE
 *       ├──peer's close, or a failure of its frames──▶ ┤
 *       └──peer's close behind messages──▶ HEARD ────▶ ┘
 *
 * From anywhere a lost or aborted stream, and from CLOSING and LINGER the passing of due_ms, lead
 * to GONE. The user is told once, on the way into LINGER or GONE, always from the loop and never
 * from inside a call of its own. In HEARD a fiber still takes messages with ws_recv() and may
 * answer them; when it asks for another one, or at due_ms, the peer's close gets its answer. In
 * LINGER the socket is nobody's but its own: our close must not be destroyed by a reset, which the
 * kernel sends when bytes are left unread.
 *
 * One timer serves pings, the limit of silence and the deadlines of closing. A message only notes
 * the time; the timer looks at the note when it fires.
 */
#include "net/ws.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "net/ws_sock.h"

#define READ_SIZE    (64 * KIB)
#define TLS_READS    16 /* records taken in one go, before others have their turn */
#define LINGER_MS    2000
#define CONTROL_ROOM 1024 /* of the queue, for frames of ours */

/* Between two reads of whatever socket nothing of it is needed: one buffer serves all. */
static _Thread_local char scratch[READ_SIZE];
static _Thread_local unsigned streams;

static void free_late(void *arg)
{
    struct ws *ws = arg;

    free(ws);
}

static void release(struct ws *ws)
{
    if (ws->state != WS_GONE || !ws->told || (ws->kept && !ws->let_go) || !ws->timer)
        return; /* still of use, or on its way already: closed() may call ws_free() */
    loop_timer_free(TAKE(ws->timer));
    ws_inbox_done(ws);
    loop_defer(ws->loop, free_late, ws);
}

/* Give up the stream and all that belongs to it; what is left is what ws_recv() may still take. */
static void leave_stream(struct ws *ws)
{
    if (ws->state == WS_GONE)
        return;
    ws->state = WS_GONE;
    streams--;
    stream_free(TAKE(ws->stream));
    http_seat_free(TAKE(ws->seat));
    loop_timer_stop(ws->timer);
    ws_rx_done(&ws->rx);
    free(TAKE(ws->rest));
    free(TAKE(ws->peer_reason));
    ws_out_done(ws);
}

static void tell(struct ws *ws, unsigned code, struct str reason)
{
    if (ws->told)
        return;
    ws->told = true;
    ws->code = (unsigned short)code;
    ws_out_release(ws);
    ws_inbox_wake(ws);
    if (ws->ops && ws->ops->closed)
        ws->ops->closed(ws, code, reason, ws->arg);
}

/* The connection is lost, or not worth keeping. */
static void lose(struct ws *ws)
{
    bool reset = ws->state != WS_LINGER || ws->broken;

    if (reset && ws->stream)
        stream_reset(ws->stream);
    if (ws->state == WS_HEARD)
        tell(ws, ws->peer_code, str_of(ws->peer_reason));
    leave_stream(ws);
    tell(ws, WS_CODE_ABNORMAL, (struct str){ 0 });
    release(ws);
}

static void linger(struct ws *ws)
{
    ws->state = WS_LINGER;
    ws->due_ms = deadline_in(LINGER_MS);
    ws->paused = false;
}

void ws_fail_later(struct ws *ws)
{
    ws->broken = true;
    loop_timer_set(ws->timer, now_ms());
}

/* --- what the peer says --- */

static void peer_closes(struct ws *ws, const struct ws_rx_event *ev)
{
    if (ws->state == WS_OPEN && ws->inbox) {
        ws->state = WS_HEARD;
        ws->peer_code = (unsigned short)ev->code;
        ws->peer_reason = str_dup(ev->data);
        ws->due_ms = deadline_in((long long)ws->limits.close_ms);
        ws->paused = false;
        return;
    }
    if (ws->state == WS_OPEN)
        ws_out_close(ws, ev->code, (struct str){ 0 });
    linger(ws);
    tell(ws, ev->code, ev->data);
}

/* The peer's close has waited long enough. */
static void answer_close(struct ws *ws)
{
    ws_out_close(ws, ws->peer_code, (struct str){ 0 });
    linger(ws);
    tell(ws, ws->peer_code, str_of(ws->peer_reason));
}

static void peer_fails(struct ws *ws, const struct ws_rx_event *ev)
{
    if (ws->state == WS_OPEN)
        ws_out_close(ws, ev->code, ev->data);
    linger(ws);
    tell(ws, ev->code, ev->data);
}

static void peer_sends(struct ws *ws, const struct ws_rx_event *ev)
{
    enum ws_kind kind = ev->opcode == WS_OP_TEXT ? WS_TEXT : WS_BINARY;

    if (ws->state != WS_OPEN)
        return; /* we have said good-bye already */
    if (ws->kept)
        ws_inbox_put(ws, kind, ev->data);
    else
        ws->ops->message(ws, kind, ev->data, ws->arg);
}

static void on_event(struct ws *ws, const struct ws_rx_event *ev)
{
    switch (ev->kind) {
    case WS_RX_MESSAGE:
        peer_sends(ws, ev);
        break;
    case WS_RX_PING:
        if (ws->state == WS_OPEN)
            ws_out_pong(ws, ev->data);
        break;
    case WS_RX_CLOSE:
        peer_closes(ws, ev);
        break;
    case WS_RX_FAIL:
        peer_fails(ws, ev);
        break;
    case WS_RX_PONG: /* heard_ms knows */
    case WS_RX_MORE:
        break;
    }
}

/* May the receiver go on? */
static bool takes_events(const struct ws *ws)
{
    return (ws->state == WS_OPEN || ws->state == WS_CLOSING) && !ws->paused && !ws->broken;
}

/* Bytes that had to wait lie in `scratch`, or in `rest` already. */
static void keep_rest(struct ws *ws)
{
    char *rest = NULL;

    if (ws->rx.in_n > 0) {
        rest = xmalloc(ws->rx.in_n);
        memcpy(rest, ws->rx.in, ws->rx.in_n);
    }
    free(ws->rest);
    ws->rest = rest;
    ws->rx.in = rest;
}

void ws_drain(struct ws *ws)
{
    struct ws_rx_event ev = { .kind = WS_RX_MESSAGE };

    while (ev.kind != WS_RX_MORE && takes_events(ws)) {
        ws_rx_next(&ws->rx, &ev);
        on_event(ws, &ev);
    }
    if (ws->state == WS_GONE)
        return;
    if (!ws->paused && ev.kind != WS_RX_MORE)
        ws->rx.in_n = 0; /* what comes after the end does not count */
    if (ws->rx.in_n > 0 || ws->rest)
        keep_rest(ws);
}

void ws_resume(struct ws *ws)
{
    if (!ws->paused)
        return;
    ws->paused = false;
    ws->stir = true;
    ws->heard_ms = now_ms(); /* it was we who did not listen */
}

void ws_hear_out(struct ws *ws)
{
    if (ws->state == WS_HEARD && !ws->stir) {
        ws->stir = true;
        ws_settle(ws);
    }
}

/* --- readiness --- */

/* Go on with bytes that had to wait; those that come now are behind them. */
static void take_up(struct ws *ws)
{
    if (!ws->stir)
        return;
    ws->stir = false;
    if (ws->state == WS_HEARD)
        answer_close(ws);
    else
        ws_drain(ws);
}

static uint64_t next_due(const struct ws *ws)
{
    if (ws->broken || ws->stir)
        return now_ms();
    if (ws->state != WS_OPEN)
        return ws->due_ms;
    return ws->heard_ms + (ws->pinged ? ws->limits.dead_ms : ws->limits.ping_ms);
}

/* Bytes came. The timer stands at the end of our patience if we had asked for some. */
static void heard(struct ws *ws)
{
    ws->heard_ms = now_ms();
    if (ws->pinged) {
        ws->pinged = false;
        loop_timer_set(ws->timer, next_due(ws));
    }
}

/* 0: more may be there at once. */
static int read_once(struct ws *ws)
{
    struct err e;
    size_t n = 0;
    int r;

    r = stream_read(ws->stream, scratch, sizeof(scratch), &n, &e);
    if (r == STREAM_AGAIN)
        return STREAM_AGAIN;
    if (r != 0) {
        lose(ws);
        return STREAM_END;
    }
    heard(ws);
    if (ws->state == WS_LINGER)
        return 0;
    ws_rx_give(&ws->rx, scratch, n);
    ws_drain(ws);
    return stream_pending(ws->stream) ? 0 : STREAM_AGAIN;
}

static bool may_read(const struct ws *ws)
{
    return !ws->paused && !ws->broken && ws->state != WS_GONE && ws->state != WS_HEARD;
}

static void on_ready(struct stream *s, unsigned events, void *arg)
{
    struct ws *ws = arg;

    if (events & LOOP_WRITE)
        ws_out_flush(ws);
    take_up(ws);
    for (int i = 0; i < TLS_READS && events & LOOP_READ && may_read(ws); i++)
        if (read_once(ws) != 0)
            break;
    ws_settle(ws);
}

void ws_settle(struct ws *ws)
{
    unsigned events = 0;

    if (ws->state == WS_GONE)
        return;
    if (ws->state == WS_LINGER && ws->out.n == 0 && !ws->ended && !ws->broken) {
        ws->ended = true;
        stream_shutdown(ws->stream);
    }
    if (may_read(ws))
        events |= LOOP_READ;
    if (ws->out.n > 0 && !ws->broken && !ws->flush_due)
        events |= LOOP_WRITE;
    if (events & LOOP_READ && stream_pending(ws->stream))
        stream_want(ws->stream, 0); /* so that what TLS holds is told anew */
    stream_want(ws->stream, events);
    /* An open socket's timer runs on by itself. */
    if (ws->state != WS_OPEN || ws->broken || ws->stir)
        loop_timer_set(ws->timer, next_due(ws));
}

/* --- time --- */

static bool is_dead(const struct ws *ws)
{
    return ws->pinged && now_ms() - ws->heard_ms >= ws->limits.dead_ms;
}

static void on_silence(struct ws *ws)
{
    if (ws->paused) {
        ws->heard_ms = now_ms(); /* it is we who do not listen */
        return;
    }
    if (is_dead(ws)) {
        (void)read_once(ws); /* a loop that was held up has timers fire before it reads */
        if (ws->state == WS_OPEN && is_dead(ws))
            lose(ws);
    } else if (!ws->pinged && now_ms() - ws->heard_ms >= ws->limits.ping_ms) {
        ws->pinged = true;
        ws_out_frame(ws, WS_OP_PING, (struct str){ 0 });
    }
}

static void on_timer(void *arg)
{
    struct ws *ws = arg;

    if (ws->broken) {
        lose(ws);
        return;
    }
    take_up(ws);
    if (ws->state == WS_OPEN)
        on_silence(ws);
    else if (ws->state == WS_HEARD && now_ms() >= ws->due_ms)
        answer_close(ws);
    else if (ws->state != WS_GONE && now_ms() >= ws->due_ms)
        lose(ws);
    if (ws->state == WS_GONE)
        return;
    ws_settle(ws);
    loop_timer_set(ws->timer, next_due(ws));
}

/* --- the user's side --- */

static struct ws_limits with_defaults(const struct ws_limits *given)
{
    struct ws_limits l = given ? *given : (struct ws_limits){ 0 };

    l.message = l.message ? l.message : MIB;
    l.queue = l.queue ? l.queue : 4 * MIB;
    l.ping_ms = l.ping_ms ? l.ping_ms : 30000;
    l.dead_ms = l.dead_ms ? l.dead_ms : 2 * l.ping_ms + 5000;
    l.close_ms = l.close_ms ? l.close_ms : 5000;
    l.inbox = l.inbox ? l.inbox : 64;
    return l;
}

struct ws *ws_new(struct loop *loop, struct stream *s, struct http_seat *seat, bool client,
                  const struct ws_limits *limits, const struct ws_ops *ops, void *arg,
                  struct str first, struct str rest)
{
    struct ws *ws = xcalloc(1, sizeof(*ws));

    streams++;
    ws->loop = loop;
    ws->stream = s;
    ws->seat = seat;
    ws->client = client;
    ws->ops = ops;
    ws->arg = arg;
    ws->kept = !ops || !ops->message;
    ws->limits = with_defaults(limits);
    ws->heard_ms = now_ms();
    ws->inbox_end = &ws->inbox;
    ws_rx_init(&ws->rx, !client, ws->limits.message);
    buf_init(&ws->out, ws->limits.queue + CONTROL_ROOM);
    ws->timer = loop_timer_new(loop, on_timer, ws);
    stream_rebind(s, on_ready, ws);
    if (rest.n) {
        ws_rx_give(&ws->rx, rest.p, rest.n);
        keep_rest(ws);
        ws->stir = true; /* taken up from the loop, when the user has the pointer */
    }
    if (first.n && buf_add(&ws->out, first.p, first.n, NULL) == 0)
        ws_out_flush(ws);
    ws_settle(ws);
    loop_timer_set(ws->timer, next_due(ws));
    return ws;
}

static void grant_ended(void *arg)
{
    ws_close(arg, WS_CODE_POLICY, "Unauthorized");
}

void ws_rest_on(struct ws *ws, uint64_t grant)
{
    if (ws->seat)
        http_seat_rest_on(ws->seat, grant, grant_ended, ws);
}

unsigned ws_close_code(const struct ws *ws)
{
    return ws->code;
}

void ws_pause_reading(struct ws *ws)
{
    if (ws->state != WS_OPEN || ws->kept)
        return;
    ws->paused = true;
    ws_settle(ws);
}

void ws_resume_reading(struct ws *ws)
{
    if (!ws->paused || ws->kept)
        return;
    ws_resume(ws);
    ws_settle(ws);
}

void ws_limit_message(struct ws *ws, size_t max)
{
    ws->limits.message = ws->rx.max = ws->rx.message.max = max;
}

uint64_t ws_heard_ms(const struct ws *ws)
{
    return ws->heard_ms;
}

unsigned ws_streams(void)
{
    return streams;
}

void ws_close(struct ws *ws, unsigned code, const char *reason)
{
    assert(ws_code_valid(code) || code == WS_CODE_NONE);
    if (ws->state == WS_HEARD)
        ws_hear_out(ws);
    if (ws->state != WS_OPEN || ws->broken)
        return;
    ws_out_close(ws, code, str_of(reason));
    ws->state = WS_CLOSING;
    ws->due_ms = deadline_in((long long)ws->limits.close_ms);
    ws_resume(ws); /* the peer's close may be behind messages, which are dropped now */
    ws_settle(ws);
}

void ws_abort(struct ws *ws)
{
    if (ws->state == WS_GONE || ws->broken)
        return;
    ws_fail_later(ws);
    ws_settle(ws);
}

const struct stream_addr *ws_peer(const struct ws *ws)
{
    static const struct stream_addr none = { .text = "closed" };

    return ws->stream ? stream_peer(ws->stream) : &none;
}

void ws_free(struct ws *ws)
{
    if (!ws)
        return;
    assert(ws->kept && !ws->let_go);
    ws->let_go = true;
    if (!ws->told) {
        ws->told = true; /* nobody is left to be told */
        ws_out_release(ws);
        if (ws->state != WS_GONE)
            stream_reset(ws->stream);
        leave_stream(ws);
    }
    release(ws);
}
