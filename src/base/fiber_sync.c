/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_sync.c — how fibers meet: bounded channels and lanes.
 *
 * Waiters live on the stacks of the waiting fibers and stay in their list until they leave it
 * themselves, so a cancel or a deadline needs no cooperation. In a channel the first waiter is
 * the one that is woken, and on its way out it wakes the next if there is more to be had.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/fiber_int.h"

struct waiter {
    struct fiber *fiber;
    struct waiter *next, **link;
};

struct waiters {
    struct waiter *first, **last;
};

struct chan {
    size_t head, n, cap;
    bool closed;
    struct waiters senders, receivers;
    void *items[];
};

static void waiters_add(struct waiters *list, struct waiter *w)
{
    w->fiber = fiber_self();
    assert(w->fiber);
    w->next = NULL;
    w->link = list->last;
    *list->last = w;
    list->last = &w->next;
}

static void waiters_remove(struct waiters *list, struct waiter *w)
{
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    else
        list->last = w->link;
}

static void wake_first(struct waiters *list)
{
    if (list->first)
        fiber_wake(list->first->fiber);
}

static void wake_all(struct waiters *list)
{
    for (struct waiter *w = list->first; w; w = w->next)
        fiber_wake(w->fiber);
}

struct chan *chan_new(size_t capacity)
{
    struct chan *c;

    assert(capacity > 0);
    c = xcalloc(1, sizeof(*c) + capacity * sizeof(c->items[0]));
    c->cap = capacity;
    c->senders.last = &c->senders.first;
    c->receivers.last = &c->receivers.first;
    return c;
}

void chan_free(struct chan *c)
{
    if (!c)
        return;
    assert(!c->senders.first && !c->receivers.first);
    free(c);
}

static bool may_send(const struct chan *c)
{
    return c->closed || c->n < c->cap;
}

static bool may_recv(const struct chan *c)
{
    return c->closed || c->n > 0;
}

/* Wait in the list until it is our turn and may(c). */
CO static int chan_wait(struct chan *c, struct waiters *list, bool (*may)(const struct chan *c),
                        uint64_t deadline_ms)
{
    struct waiter w;
    int r = 0;

    if (fiber_canceled())
        return -ERR_CANCELED;
    if (may(c) && !list->first)
        return 0;
    waiters_add(list, &w);
    while (r == 0 && !(may(c) && (c->closed || list->first == &w)))
        r = fiber_park_quiet(deadline_ms);
    waiters_remove(list, &w);
    return r;
}

int chan_try_send(struct chan *c, void *item)
{
    if (c->closed)
        return CHAN_CLOSED;
    if (c->n == c->cap)
        return CHAN_FULL;
    c->items[(c->head + c->n++) % c->cap] = item;
    wake_first(&c->receivers);
    return 0;
}

int chan_try_recv(struct chan *c, void **ret)
{
    if (c->n == 0)
        return c->closed ? CHAN_CLOSED : CHAN_EMPTY;
    *ret = c->items[c->head];
    c->head = (c->head + 1) % c->cap;
    c->n--;
    wake_first(&c->senders);
    return 0;
}

CO int chan_send(struct chan *c, void *item, uint64_t deadline_ms, struct err *e)
{
    int r;

    r = chan_wait(c, &c->senders, may_send, deadline_ms);
    if (r == 0)
        r = chan_try_send(c, item);
    /* Also after a failure: the wake-up that we did not use is the next one's. */
    if (may_send(c))
        wake_first(&c->senders);
    return fiber_park_err(r, e);
}

CO int chan_recv(struct chan *c, void **ret, uint64_t deadline_ms, struct err *e)
{
    int r;

    r = chan_wait(c, &c->receivers, may_recv, deadline_ms);
    if (r == 0)
        r = chan_try_recv(c, ret);
    if (may_recv(c))
        wake_first(&c->receivers);
    return fiber_park_err(r, e);
}

void chan_close(struct chan *c)
{
    c->closed = true;
    wake_all(&c->senders);
    wake_all(&c->receivers);
}

size_t chan_len(const struct chan *c)
{
    return c->n;
}

struct fiber_lane_waiter {
    struct fiber *fiber;
    struct fiber_lane_waiter *next;
    bool granted;
};

static void lane_remove(struct fiber_lane *lane, const struct fiber_lane_waiter *w)
{
    struct fiber_lane_waiter **link = &lane->first;

    while (*link != w)
        link = &(*link)->next;
    *link = w->next;
    if (!w->next)
        lane->last = link;
    lane->waiting--;
}

CO int fiber_lane_enter(struct fiber_lane *lane, uint64_t deadline_ms, struct err *e)
{
    struct fiber_lane_waiter w = { .fiber = fiber_self() };
    int r = 0;

    assert(w.fiber);
    if (fiber_canceled())
        return fiber_park_err(-ERR_CANCELED, e);
    if (!lane->taken) {
        lane->taken = true;
        return 0;
    }

    if (!lane->first)
        lane->last = &lane->first;
    *lane->last = &w;
    lane->last = &w.next;
    lane->waiting++;
    while (r == 0 && !w.granted)
        r = fiber_park_quiet(deadline_ms);
    if (w.granted) /* even when our time was up in the same turn: it is ours now */
        return 0;
    lane_remove(lane, &w);
    return fiber_park_err(r, e);
}

void fiber_lane_leave(struct fiber_lane *lane)
{
    struct fiber_lane_waiter *w = lane->first;

    assert(lane->taken);
    if (!w) {
        lane->taken = false;
        return;
    }
    lane_remove(lane, w);
    w->granted = true;
    fiber_wake(w->fiber);
}
