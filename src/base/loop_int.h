/* SPDX-License-Identifier: MIT */
/*
 * base/loop_int.h — what base/fiber*.c and base/offload.c need of the loop beyond loop.h.
 */
#pragma once

#include "base/loop.h"

/*
 * Whoever keeps work that is ready to run now: the fibers. The loop calls turn() before it polls
 * and after it has handled what the poll brought; it does not block while ready() says yes.
 */
struct loop_rider {
    void (*turn)(struct loop_rider *rider);
    bool (*ready)(const struct loop_rider *rider);
    unsigned (*left)(const struct loop_rider *rider); /* what would be lost by loop_free */
    void (*free)(struct loop_rider *rider);
};
struct loop_rider *loop_rider_find(const struct loop *loop);
void loop_rider_set(struct loop *loop, struct loop_rider *rider);

/* Keep loop_run() from returning: another thread is going to post. Counted. */
void loop_hold(struct loop *loop);
void loop_unhold(struct loop *loop);

/* loop_io_new() for a descriptor that may be unfit: a regular file, one watched already. */
int loop_io_try_new(struct loop *loop, int fd,
                    void (*fn)(struct loop_io *io, unsigned events, void *arg), void *arg,
                    struct loop_io **ret, struct err *e) MUST_CHECK;

/* The loop's own clock, which tests cannot replace, in ms; and a timer set by it. */
uint64_t loop_clock_ms(void);
void loop_timer_set_clock(struct loop_timer *t, uint64_t clock_ms);
