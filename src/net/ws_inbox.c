/* SPDX-License-Identifier: MIT */
/*
 * net/ws_inbox.c — messages kept for ws_recv(). Once the inbox holds limits.inbox messages, or
 * limits.message bytes, reading pauses, so that the peer's sending stops; it goes on when half of
 * that is left.
 */
#include <stdlib.h>
#include <string.h>

#include "net/ws_sock.h"

void ws_inbox_wake(struct ws *ws)
{
    if (ws->reader)
        fiber_wake(ws->reader);
}

void ws_inbox_put(struct ws *ws, enum ws_kind kind, struct str data)
{
    struct ws_message *m = xmalloc(sizeof(*m) + data.n);

    m->next = NULL;
    m->kind = kind;
    m->n = data.n;
    if (data.n)
        memcpy(m->data, data.p, data.n);
    *ws->inbox_end = m;
    ws->inbox_end = &m->next;
    ws->inbox_n++;
    ws->inbox_bytes += data.n;
    if (ws->inbox_n >= ws->limits.inbox || ws->inbox_bytes >= ws->limits.message)
        ws->paused = true;
    ws_inbox_wake(ws);
}

static struct ws_message *take(struct ws *ws)
{
    struct ws_message *m = ws->inbox;

    ws->inbox = m->next;
    if (!ws->inbox)
        ws->inbox_end = &ws->inbox;
    ws->inbox_n--;
    ws->inbox_bytes -= m->n;
    return m;
}

void ws_inbox_done(struct ws *ws)
{
    while (ws->inbox)
        free(take(ws));
}

static void resume(struct ws *ws)
{
    if (!ws->paused || ws->inbox_n > ws->limits.inbox / 2 ||
        ws->inbox_bytes > ws->limits.message / 2)
        return;
    ws_resume(ws);
    ws_settle(ws);
}

CO int ws_recv(struct ws *ws, struct arena *a, enum ws_kind *ret_kind, struct str *ret,
               uint64_t deadline_ms, struct err *e)
{
    struct ws_message *m;
    int r;

    while (!ws->inbox && !ws->told) {
        ws_hear_out(ws);
        ws->reader = fiber_self();
        r = fiber_park(deadline_ms, e);
        ws->reader = NULL;
        if (r < 0 && !ws->inbox)
            return r;
    }
    if (!ws->inbox)
        return WS_CLOSED;
    m = take(ws);
    *ret_kind = m->kind;
    *ret = arena_str(a, (struct str){ m->data, m->n });
    free(m);
    resume(ws);
    return 0;
}
