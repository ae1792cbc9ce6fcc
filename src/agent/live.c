/* SPDX-License-Identifier: MIT */
/*
 * agent/live.c — see live.h. One fiber sends for all tasks in turn, a piece of each, and rests a
 * moment between rounds, so that a chatty program costs frames of some size instead of many.
 */
#include "agent/live.h"

#include <string.h>

#include "agent/text.h"
#include "base/log.h"

#define PIECE     (32 * KIB) /* raw bytes in one message */
#define REST_MS   20
#define DETACH_MS 10000 /* that the end of a program waits for a slow link */

struct flow {               /* one stream of one task */
    const struct buf *from; /* of the program that runs; NULL: none does */
    uint64_t base;          /* bytes of programs before it */
    uint64_t sent;          /* bytes told, of all programs */
    bool last;              /* no more will come into `from` */
};

struct live {
    struct live_pump *pump;
    struct live *next;
    char *task_id;
    struct flow flows[2];
    unsigned long conn; /* that has heard where to go on; 0: none */
    struct fiber *waiter;
};

struct live_pump {
    struct agent *agent;
    struct live *first;
    struct fiber *fiber;
    bool ending;
};

static const char *const stream_names[] = { "stdout", "stderr" };

static uint64_t left(const struct flow *f)
{
    uint64_t all = f->base + (f->from ? f->from->n : 0);

    return f->from && all > f->sent ? all - f->sent : 0;
}

static bool has_left(const struct live *l)
{
    return left(&l->flows[0]) > 0 || left(&l->flows[1]) > 0;
}

/* Is there a hub that knows what to do with it, and we, where to go on? */
static bool is_heard(const struct live *l)
{
    const struct link *link = l->pump->agent->link;

    return l->conn != 0 && l->conn == link_up(link) && link_protocol(link) > 0;
}

/* --- one piece --- */

/* What goes out next, up to the end of a character unless nothing follows. */
static struct str piece(const struct flow *f)
{
    uint64_t n = left(f), from = f->sent - f->base;
    struct str bytes = { buf_str(f->from).p + from, n < PIECE ? (size_t)n : PIECE };
    size_t whole;

    if (f->last && bytes.n == n)
        return bytes;
    whole = text_whole(TEXT_UTF8, bytes);
    if (whole > 0)
        bytes.n = whole;
    else if (bytes.n < 4)
        bytes.n = 0; /* the beginning of a character */
    return bytes;
}

static int tell(struct live *l, int stream, struct str bytes, struct err *e)
{
    struct flow *f = &l->flows[stream];
    AUTO(buf_done) struct buf text;
    int r;

    buf_init(&text, 3 * PIECE + 16);
    r = text_utf8(bytes, &text, e);
    if (r == 0)
        r = agent_say(l->pump->agent, "host", "log",
                      json_pack("{s:s, s:s, s:I, s:I, s:s%}", "taskId", l->task_id, "stream",
                                stream_names[stream], "offset", (json_int_t)f->sent, "bytes",
                                (json_int_t)bytes.n, "data", buf_str(&text).p, text.n),
                      e);
    if (r == 0)
        f->sent += bytes.n;
    return r;
}

/* True: something was sent. */
static bool send_some(struct live *l)
{
    bool any = false;
    struct err e;

    for (int i = 0; i < 2; i++) {
        struct flow *f = &l->flows[i];
        struct str bytes;

        if (f->from && f->sent < f->base)
            f->sent = f->base; /* of a program that is gone: the result tells it */
        if (left(f) == 0 || !is_heard(l) || !agent_has_room(l->pump->agent))
            continue;
        bytes = piece(f);
        if (bytes.n > 0 && tell(l, i, bytes, &e) == 0)
            any = true;
    }
    if (l->waiter && (!has_left(l) || !is_heard(l)))
        fiber_wake(l->waiter);
    return any;
}

/* Is there enough to go on at once? Small pieces are gathered by a rest. */
static bool has_piece(const struct live *l)
{
    for (int i = 0; i < 2; i++)
        if (left(&l->flows[i]) >= PIECE || (l->flows[i].last && left(&l->flows[i]) > 0))
            return agent_has_room(l->pump->agent);
    return false;
}

static CO int pump(void *arg, struct err *e)
{
    struct live_pump *p = arg;
    bool any, more;
    int r;

    while (!p->ending) {
        any = more = false;
        for (struct live *l = p->first; l; l = l->next) {
            any |= send_some(l);
            more |= has_piece(l);
        }
        if (any && more)
            r = fiber_yield(e);
        else
            r = any ? fiber_sleep(REST_MS, e) : fiber_park(DEADLINE_NONE, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int live_pump_new(struct agent *a, struct live_pump **ret, struct err *e)
{
    struct live_pump *p = xcalloc(1, sizeof(*p));
    int r;

    p->agent = a;
    r = fiber_spawn(a->loop, "live output", pump, p, &p->fiber, e);
    if (r < 0) {
        free(p);
        return r;
    }
    *ret = p;
    return 0;
}

CO void live_pump_free(struct live_pump *p)
{
    struct err e;

    if (!p)
        return;
    p->ending = true;
    fiber_wake(p->fiber);
    if (fiber_join(p->fiber, &e) < 0)
        log_warn("live output", "error", LOG_ERR(&e));
    free(p);
}

void live_pump_wake(struct live_pump *p)
{
    if (p && p->first)
        fiber_wake(p->fiber);
}

/* What began before has to hear from the hub where to go on. */
void live_pump_connected(struct live_pump *p)
{
    for (struct live *l = p->first; l; l = l->next)
        if (l->flows[0].sent + l->flows[1].sent == 0)
            l->conn = link_up(p->agent->link);
}

void live_pump_resynced(struct live_pump *p)
{
    for (struct live *l = p->first; l; l = l->next)
        l->conn = link_up(p->agent->link);
    live_pump_wake(p);
}

/* --- of one task --- */

struct live *live_new(struct live_pump *p, const char *task_id)
{
    struct live *l = xcalloc(1, sizeof(*l));

    l->pump = p;
    l->task_id = xstrdup(task_id);
    l->conn = link_up(p->agent->link);
    l->next = p->first;
    p->first = l;
    return l;
}

void live_free(struct live *l)
{
    struct live **at;

    if (!l)
        return;
    at = &l->pump->first;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    free(l->task_id);
    free(l);
}

/* More than there is would be of a hub that mixes tasks up: it is told nothing twice anyway. */
static void seek(struct flow *f, long long to)
{
    uint64_t all = f->base + (f->from ? f->from->n : 0);

    if (to >= 0)
        f->sent = (uint64_t)to < all ? (uint64_t)to : all;
}

void live_seek(struct live *l, long long out, long long err)
{
    if (!l)
        return;
    seek(&l->flows[0], out);
    seek(&l->flows[1], err);
    l->conn = link_up(l->pump->agent->link);
    live_pump_wake(l->pump);
}

void live_attach(struct live *l, const struct buf *out, const struct buf *err)
{
    if (!l)
        return;
    l->flows[0].from = out;
    l->flows[1].from = err;
    l->flows[0].last = l->flows[1].last = false;
}

void live_more(struct live *l)
{
    if (l)
        fiber_wake(l->pump->fiber);
}

static void let_go(struct flow *f)
{
    f->base += f->from->n;
    f->from = NULL;
}

CO void live_detach(struct live *l)
{
    uint64_t deadline_ms = deadline_in(DETACH_MS);
    struct err e;

    if (!l || !l->flows[0].from)
        return;
    l->flows[0].last = l->flows[1].last = true;
    l->waiter = fiber_self();
    live_more(l);
    while (has_left(l) && is_heard(l))
        if (fiber_park(deadline_ms, &e) < 0)
            break;
    l->waiter = NULL;
    let_go(&l->flows[0]);
    let_go(&l->flows[1]);
}
