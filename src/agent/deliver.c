/* SPDX-License-Identifier: MIT */
/*
 * agent/deliver.c — responses on their way to the hub, in the order in which the tasks ended. One
 * that was sent stays in the spool until the hub has said ack, and is sent again on the next
 * connection. A hub of the original protocol never says so: there a connection that has lasted for
 * a while after the response is taken for its receipt.
 */
#include <string.h>

#include "agent/held.h"
#include "base/log.h"
#include "base/offload.h"

#define RECEIPT_MS    5000 /* see above */
#define DELIVERED_MAX 256  /* of those kept only to be known again */

struct fetch {
    const struct spool *spool;
    const char *id;
    struct buf *into;
};

static int fetch_blocking(void *arg, struct err *e)
{
    struct fetch *f = arg;

    return spool_body(f->spool, f->id, f->into, e);
}

/* The response of r->telling, from memory or disk. */
static CO int response_of(struct runner *r, struct buf *ret, struct err *e)
{
    AUTO(free) char *id = xstrdup(r->telling->id);
    struct fetch f = { r->spool, id, ret };

    if (r->telling->response)
        return buf_add(ret, r->telling->response, r->telling->response_n, e);
    return offload(fetch_blocking, &f, e);
}

/* Its file is gone or broken, which only somebody else can have done. */
static void make_do(struct runner *r, const struct err *why)
{
    struct held *h = r->telling;

    log_error("a result is lost", "task", LOG_STR(h->id), "error", LOG_ERR(why));
    h->response = work_failure(h->id, "the agent has lost the result", &h->response_n);
}

static CO int tell(struct runner *r, struct held *h, struct err *e)
{
    AUTO(buf_done) struct buf text, frame;
    unsigned long conn;
    int result;

    buf_init(&text, AGENT_QUEUE_MAX);
    buf_init(&frame, AGENT_QUEUE_MAX);
    r->telling = h;
    held_move(h, NULL);
    result = response_of(r, &text, e);
    if (result < 0 && r->telling && result != -ERR_CANCELED) {
        make_do(r, e);
        result = buf_add(&text, h->response, h->response_n, e);
    }
    if (!r->telling)
        return 0;
    if (result == 0)
        result = link_frame(r->agent, h->from, "response", buf_str(&text), &frame, e);
    conn = link_up(r->agent->link);
    if (result == 0)
        result = link_send_wait(r->agent->link, buf_str(&frame), e);
    if (!r->telling)
        return result;
    if (result < 0) {
        held_move(h, &r->outbox);
        return result;
    }
    h->told_on = conn;
    h->told_ms = now_ms();
    return 0;
}

/* The oldest go. */
static void prune(struct runner *r)
{
    struct held *h, *next;
    size_t n = 0;

    TAILQ_FOREACH(h, &r->all, all)
    n += h->delivered;
    for (h = TAILQ_FIRST(&r->all); h && n > DELIVERED_MAX; h = next) {
        next = TAILQ_NEXT(h, all);
        if (h->delivered) {
            held_remove(h);
            n--;
        }
    }
}

/* When to look again at what an original hub was told; DEADLINE_NONE: there is nothing. */
static uint64_t take_receipts(struct runner *r)
{
    unsigned long conn = link_up(r->agent->link);
    uint64_t next_ms = DEADLINE_NONE;
    bool any = false;
    struct held *h;

    if (conn == 0 || link_protocol(r->agent->link) > 0)
        return next_ms;
    TAILQ_FOREACH(h, &r->all, all)
    {
        if (h->state != HELD_DONE || h->delivered || h->told_on != conn || h->in)
            continue;
        if (now_ms() >= h->told_ms + RECEIPT_MS)
            h->delivered = any = true;
        else
            next_ms = deadline_min(next_ms, h->told_ms + RECEIPT_MS);
    }
    if (any)
        prune(r);
    return next_ms;
}

CO int deliver(void *runner, struct err *e)
{
    struct runner *r = runner;
    int result = 0;

    while (result != -ERR_CANCELED) {
        struct held *h = link_up(r->agent->link) ? TAILQ_FIRST(&r->outbox) : NULL;

        if (!h) {
            result = fiber_park(take_receipts(r), e);
            continue;
        }
        result = tell(r, h, e);
        if (result < 0 && result != -ERR_CANCELED)
            log_info("a result waits for the next connection", "error", LOG_ERR(e));
        r->telling = NULL;
    }
    return 0;
}

void deliver_connected(struct runner *r)
{
    struct held *h;

    TAILQ_FOREACH(h, &r->all, all)
    {
        if (h->state == HELD_DONE && !h->delivered && h != r->telling)
            held_move(h, &r->outbox);
    }
    fiber_wake(r->deliverer);
}

/* Nothing that the hub will not have may be sent to it for ever. */
void deliver_lost(struct runner *r, unsigned code)
{
    struct held *h, *biggest = NULL;

    if (code != 1009)
        return;
    TAILQ_FOREACH(h, &r->all, all)
    {
        if (h->state == HELD_DONE && h->told_on != 0 && !h->delivered &&
            (!biggest || h->disk_bytes > biggest->disk_bytes))
            biggest = h;
    }
    if (!biggest || biggest->disk_bytes < KIB)
        return;
    log_error("the hub refuses a result for its size", "task", LOG_STR(biggest->id), "bytes",
              LOG_INT(biggest->disk_bytes));
    free(biggest->response);
    biggest->response = work_failure(
        biggest->id, "the result is too large for the hub (hub.message_max)", &biggest->response_n);
    held_written(biggest, 0);
}

void deliver_refusal(struct runner *r, const char *to, const char *id, const char *error)
{
    AUTO(buf_done) struct buf frame;
    size_t n = 0;
    AUTO(free) char *text = work_failure(id, error, &n);
    struct err e;
    int result;

    buf_init(&frame, MIB);
    result = link_frame(r->agent, to, "response", (struct str){ text, n }, &frame, &e);
    if (result == 0)
        result = link_send(r->agent->link, buf_str(&frame), &e);
    if (result < 0)
        log_warn("a refusal was not told", "task", LOG_STR(id), "error", LOG_ERR(&e));
}
