/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_int.h — what the files of the fibers share: fiber.c (life and scheduling),
 * fiber_stack.c, fiber_timer.c, fiber_group.c, fiber_sync.c, fiber_io.c.
 */
#pragma once

#include "base/fiber.h"
#include "base/fiber_switch.h"
#include "base/loop_int.h"

struct log_ctx;

enum fiber_state {
    FIBER_READY, /* in one of the scheduler's queues */
    FIBER_RUNNING,
    FIBER_PARKED,
    FIBER_DONE, /* returned; kept for its joiner */
};

struct fiber_stack {
    void *p;           /* lowest byte */
    unsigned valgrind; /* its name there */
};

struct fiber {
    struct fiber_ctx ctx;
    struct fiber_stack stack;
    struct fiber_sched *sched;
    enum fiber_state state;
    bool canceled;
    bool woken;     /* by fiber_wake while it was not parked */
    bool hard;      /* parked blind to cancel */
    bool timed_out; /* why it became ready */
    bool detached;
    unsigned busy; /* I/O calls in a row that did not have to wait */

    const char *name;
    fiber_fn *fn;
    void *arg;
    int result;
    struct err err;
    struct log_ctx *log;

    struct fiber *next; /* in a queue of the scheduler, or in the pool */
    struct fiber *joiner;
    struct fiber_group *group;
    struct fiber *group_next, **group_link;

    uint64_t wake_at; /* while parked, on loop_clock_ms(); or DEADLINE_NONE */
    size_t timer;     /* place in the heap of timers + 1; 0: not in it */
};

struct fiber_queue {
    struct fiber *first, *last;
};

/*
 * Timers of parked fibers: a heap that is put right lazily. An entry's time is never later than
 * its fiber's wake_at; when it comes up early it is moved, or dropped if the fiber is not waiting.
 * So a connection that parks a thousand times with a far deadline touches the heap once.
 */
struct fiber_timers {
    struct fiber_timer {
        uint64_t at;
        struct fiber *fiber;
    } * heap;
    size_t n, cap;
    struct loop_timer *timer;
    uint64_t armed; /* what timer is set to; DEADLINE_NONE: not set */
};

#define FIBER_STACKS_KEPT 1024 /* unused stacks of a loop that stay mapped */
#define FIBER_STACKS_HOT  256  /* of these, the ones that keep their memory too */

struct fiber_stacks {
    struct fiber_stack kept[FIBER_STACKS_KEPT];
    size_t n;
};

/* Map or reuse a stack of FIBER_STACK bytes. */
int fiber_stack_take(struct fiber_stacks *s, struct fiber_stack *ret, struct err *e) MUST_CHECK;
void fiber_stack_give(struct fiber_stacks *s, struct fiber_stack stack);
void fiber_stacks_done(struct fiber_stacks *s);

/* One fiber with its timer at f->wake_at / gone from the heap. */
void fiber_timer_want(struct fiber_timers *t, struct fiber *f);
void fiber_timer_drop(struct fiber_timers *t, struct fiber *f);
void fiber_timers_init(struct fiber_timers *t, struct loop *loop);
void fiber_timers_done(struct fiber_timers *t);

/* Called by the timers: the wait of f, which is parked, is over. */
void fiber_time_out(struct fiber *f);

/* fiber_spawn of a member; fiber_group_ended is told when it has returned. */
int fiber_spawn_in(struct fiber_group *g, struct loop *loop, const char *name, fiber_fn *fn,
                   void *arg, struct fiber **ret, struct err *e) MUST_CHECK;
void fiber_group_ended(struct fiber_group *g, struct fiber *f);

/* fiber_park without words: 0, -ERR_TIMEOUT or -ERR_CANCELED. */
CO int fiber_park_quiet(uint64_t deadline_ms) MUST_CHECK;

/* fiber_park_hard that does not keep loop_run() going: what it waits for is on the same loop. */
CO void fiber_park_join(void);

/* The words that go with a failed fiber_park_quiet(). */
int fiber_park_err(int r, struct err *e);
