/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_timer.c — deadlines of parked fibers on one timer of the loop: see struct
 * fiber_timers for how it stays cheap.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/fiber_int.h"

static void place(struct fiber_timers *t, size_t i, struct fiber_timer entry)
{
    t->heap[i] = entry;
    entry.fiber->timer = i + 1;
}

static void sift_up(struct fiber_timers *t, size_t i, struct fiber_timer entry)
{
    while (i > 0 && t->heap[(i - 1) / 2].at > entry.at) {
        place(t, i, t->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(t, i, entry);
}

static void sift_down(struct fiber_timers *t, size_t i, struct fiber_timer entry)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child + 1 < t->n && t->heap[child + 1].at < t->heap[child].at)
            child++;
        if (child >= t->n || t->heap[child].at >= entry.at)
            break;
        place(t, i, t->heap[child]);
        i = child;
    }
    place(t, i, entry);
}

/* The timer may be set too early, which costs one idle call, but never too late. */
static void arm(struct fiber_timers *t)
{
    if (t->n == 0) {
        if (t->armed != DEADLINE_NONE)
            loop_timer_stop(t->timer);
        t->armed = DEADLINE_NONE;
    } else if (t->heap[0].at < t->armed) {
        t->armed = t->heap[0].at;
        loop_timer_set_clock(t->timer, t->armed);
    }
}

void fiber_timer_want(struct fiber_timers *t, struct fiber *f)
{
    struct fiber_timer entry = { f->wake_at, f };

    if (f->wake_at == DEADLINE_NONE)
        return;
    if (f->timer && t->heap[f->timer - 1].at <= f->wake_at)
        return;
    if (f->timer) {
        sift_up(t, f->timer - 1, entry);
    } else {
        if (t->n == t->cap) {
            t->cap = t->cap ? 2 * t->cap : 64;
            t->heap = xrealloc(t->heap, t->cap * sizeof(*t->heap));
        }
        sift_up(t, t->n++, entry);
    }
    arm(t);
}

static void drop(struct fiber_timers *t, struct fiber *f)
{
    size_t i = f->timer - 1;
    struct fiber_timer last = t->heap[--t->n];

    f->timer = 0;
    if (i == t->n)
        return;
    if (i > 0 && t->heap[(i - 1) / 2].at > last.at)
        sift_up(t, i, last);
    else
        sift_down(t, i, last);
}

void fiber_timer_drop(struct fiber_timers *t, struct fiber *f)
{
    if (!f->timer)
        return;
    drop(t, f);
    arm(t);
}

static void on_time(void *arg)
{
    struct fiber_timers *t = arg;
    uint64_t now = loop_clock_ms();

    t->armed = DEADLINE_NONE;
    while (t->n > 0 && t->heap[0].at <= now) {
        struct fiber *f = t->heap[0].fiber;

        if (f->state == FIBER_PARKED && f->wake_at > now && f->wake_at != DEADLINE_NONE) {
            sift_down(t, 0, (struct fiber_timer){ f->wake_at, f });
            continue;
        }
        drop(t, f);
        if (f->state == FIBER_PARKED && f->wake_at <= now)
            fiber_time_out(f);
    }
    arm(t);
}

void fiber_timers_init(struct fiber_timers *t, struct loop *loop)
{
    *t = (struct fiber_timers){ .armed = DEADLINE_NONE, .timer = loop_timer_new(loop, on_time, t) };
}

void fiber_timers_done(struct fiber_timers *t)
{
    assert(t->n == 0);
    loop_timer_free(t->timer);
    free(t->heap);
}
