/* SPDX-License-Identifier: MIT */
/*
 * base/fiber.c — the life of fibers and who runs next.
 *
 * Each loop has one scheduler, its rider. Fibers are entered from the loop's stack and leave to
 * it: a wait costs two switches, and the stack under a fiber is never another fiber's. A turn
 * runs at most TURN_BUDGET of them before the loop polls again; what yields runs a turn later,
 * so that yielding lets I/O happen too.
 */
#include "base/fiber.h"

#include <assert.h>
#include <stdlib.h>

#include "base/fiber_int.h"
#include "base/log.h"

#define TURN_BUDGET 256
#define FIBERS_KEPT 1024 /* unused struct fibers of a loop */

struct fiber_sched {
    struct loop_rider rider;
    struct loop *loop;
    struct fiber_ctx main;
    struct fiber_queue ready, yielded;
    struct fiber_timers timers;
    struct fiber_stacks stacks;
    struct fiber *pool;
    unsigned n_pool;
    unsigned alive;    /* not returned yet */
    unsigned unjoined; /* returned, and kept for fiber_join */
};

static _Thread_local struct fiber *running;

static void queue_add(struct fiber_queue *q, struct fiber *f)
{
    f->next = NULL;
    if (q->last)
        q->last->next = f;
    else
        q->first = f;
    q->last = f;
}

static struct fiber *queue_take(struct fiber_queue *q)
{
    struct fiber *f = q->first;

    q->first = f->next;
    if (!q->first)
        q->last = NULL;
    return f;
}

static void make_ready(struct fiber *f)
{
    f->state = FIBER_READY;
    queue_add(&f->sched->ready, f);
}

static void forget(struct fiber *f)
{
    struct fiber_sched *sched = f->sched;

    if (sched->n_pool == FIBERS_KEPT) {
        free(f);
        return;
    }
    f->next = sched->pool;
    sched->pool = f;
    sched->n_pool++;
}

/* f has left its stack for the last time. */
static void bury(struct fiber *f)
{
    struct fiber_sched *sched = f->sched;

    fiber_timer_drop(&sched->timers, f);
    fiber_ctx_drop(&f->ctx);
    fiber_stack_give(&sched->stacks, f->stack);
    sched->alive--;
    if (f->result < 0 && f->err.code == 0)
        (void)err_set(&f->err, (enum err_code) - f->result, "fiber '%s' failed", f->name);

    if (f->group) {
        fiber_group_ended(f->group, f);
        forget(f);
    } else if (f->detached) {
        if (f->result < 0 && f->result != -ERR_CANCELED)
            log_error("fiber failed", "fiber", LOG_STR(f->name), "error", LOG_ERR(&f->err));
        forget(f);
    } else {
        sched->unjoined++;
        if (f->joiner)
            fiber_wake(f->joiner);
    }
}

static void resume(struct fiber_sched *sched, struct fiber *f)
{
    struct log_ctx *outer;

    f->state = FIBER_RUNNING;
    running = f;
    outer = log_ctx_swap(f->log);
    fiber_ctx_switch(&sched->main, &f->ctx);
    f->log = log_ctx_swap(outer);
    running = NULL;
    if (f->state == FIBER_DONE)
        bury(f);
}

/* Back to the loop; returns when the fiber is resumed. */
static void leave(struct fiber *f)
{
    fiber_ctx_switch(&f->ctx, &f->sched->main);
}

static void entry(void)
{
    struct fiber *f = running;

    fiber_ctx_entered();
    f->result = f->fn(f->arg, &f->err);
    f->state = FIBER_DONE;
    fiber_ctx_exit(&f->ctx, &f->sched->main);
}

static void sched_turn(struct loop_rider *rider)
{
    struct fiber_sched *sched = container_of(rider, struct fiber_sched, rider);

    while (sched->yielded.first)
        queue_add(&sched->ready, queue_take(&sched->yielded));
    for (unsigned n = 0; n < TURN_BUDGET && sched->ready.first; n++)
        resume(sched, queue_take(&sched->ready));
}

static bool sched_ready(const struct loop_rider *rider)
{
    const struct fiber_sched *sched = (const struct fiber_sched *)rider;

    return sched->ready.first || sched->yielded.first;
}

static unsigned sched_left(const struct loop_rider *rider)
{
    const struct fiber_sched *sched = (const struct fiber_sched *)rider;

    return sched->alive + sched->unjoined;
}

static void sched_free(struct loop_rider *rider)
{
    struct fiber_sched *sched = container_of(rider, struct fiber_sched, rider);

    while (sched->pool) {
        struct fiber *f = sched->pool;

        sched->pool = f->next;
        free(f);
    }
    fiber_timers_done(&sched->timers);
    fiber_stacks_done(&sched->stacks);
    fiber_ctx_drop(&sched->main);
    free(sched);
}

static struct fiber_sched *sched_of(struct loop *loop)
{
    struct loop_rider *rider = loop_rider_find(loop);
    struct fiber_sched *sched;

    if (rider)
        return container_of(rider, struct fiber_sched, rider);
    sched = xcalloc(1, sizeof(*sched));
    sched->rider = (struct loop_rider){ sched_turn, sched_ready, sched_left, sched_free };
    sched->loop = loop;
    fiber_timers_init(&sched->timers, loop);
    loop_rider_set(loop, &sched->rider);
    return sched;
}

static struct fiber *fiber_take(struct fiber_sched *sched)
{
    struct fiber *f = sched->pool;

    if (!f)
        return xmalloc(sizeof(*f));
    sched->pool = f->next;
    sched->n_pool--;
    return f;
}

int fiber_spawn_in(struct fiber_group *g, struct loop *loop, const char *name, fiber_fn *fn,
                   void *arg, struct fiber **ret, struct err *e)
{
    struct fiber_sched *sched = sched_of(loop);
    struct fiber_stack stack;
    struct fiber *f;
    int r;

    if (sched->alive >= FIBERS_MAX)
        return err_set(e, ERR_LIMIT, "start '%s': %d fibers run already", name, FIBERS_MAX);
    r = fiber_stack_take(&sched->stacks, &stack, e);
    if (r < 0)
        return err_wrap(e, "start '%s'", name);

    f = fiber_take(sched);
    *f = (struct fiber){
        .sched = sched,
        .stack = stack,
        .name = name,
        .fn = fn,
        .arg = arg,
        .group = g,
        .detached = !ret,
        .wake_at = DEADLINE_NONE,
    };
    fiber_ctx_make(&f->ctx, stack.p, FIBER_STACK, entry);
    sched->alive++;
    make_ready(f);
    if (ret)
        *ret = f;
    return 0;
}

int fiber_spawn(struct loop *loop, const char *name, CO fiber_fn *fn, void *arg, struct fiber **ret,
                struct err *e)
{
    return fiber_spawn_in(NULL, loop, name, fn, arg, ret, e);
}

CO int fiber_join(struct fiber *f, struct err *e)
{
    int r;

    assert(running && running != f);
    assert(!f->joiner && !f->detached && !f->group);
    f->joiner = running;
    while (f->state != FIBER_DONE)
        fiber_park_join();

    r = f->result;
    if (r < 0 && e)
        *e = f->err;
    f->sched->unjoined--;
    forget(f);
    return r;
}

void fiber_cancel(struct fiber *f)
{
    f->canceled = true;
    if (f->state == FIBER_PARKED && !f->hard)
        make_ready(f);
}

struct fiber *fiber_self(void)
{
    return running;
}

struct loop *fiber_loop(void)
{
    assert(running);
    return running->sched->loop;
}

bool fiber_canceled(void)
{
    assert(running);
    return running->canceled;
}

unsigned fibers_alive(struct loop *loop)
{
    struct loop_rider *rider = loop_rider_find(loop);

    return rider ? container_of(rider, struct fiber_sched, rider)->alive : 0;
}

void fiber_wake(struct fiber *f)
{
    if (f->state == FIBER_PARKED)
        make_ready(f);
    f->woken = true;
}

void fiber_time_out(struct fiber *f)
{
    f->timed_out = true;
    make_ready(f);
}

static void park(struct fiber *f)
{
    f->state = FIBER_PARKED;
    f->busy = 0;
    fiber_timer_want(&f->sched->timers, f);
    leave(f);
}

CO int fiber_park_quiet(uint64_t deadline_ms)
{
    struct fiber *f = running;
    uint64_t now;

    assert(f);
    if (f->canceled)
        return -ERR_CANCELED;
    if (!f->woken) {
        f->wake_at = DEADLINE_NONE;
        if (deadline_ms != DEADLINE_NONE) {
            /* Deadlines are on a clock that tests may replace; sleeping is done on the real one. */
            now = now_ms();
            if (deadline_ms <= now)
                return -ERR_TIMEOUT;
            f->wake_at = loop_clock_ms() + (deadline_ms - now);
        }
        f->timed_out = false;
        park(f);
        if (f->canceled)
            return -ERR_CANCELED;
        if (!f->woken && f->timed_out)
            return -ERR_TIMEOUT;
    }
    f->woken = false;
    return 0;
}

int fiber_park_err(int r, struct err *e)
{
    if (r == -ERR_CANCELED)
        return err_set(e, ERR_CANCELED, "canceled");
    if (r == -ERR_TIMEOUT)
        return err_set(e, ERR_TIMEOUT, "timed out");
    return r;
}

CO int fiber_park(uint64_t deadline_ms, struct err *e)
{
    return fiber_park_err(fiber_park_quiet(deadline_ms), e);
}

CO void fiber_park_join(void)
{
    struct fiber *f = running;

    assert(f);
    f->wake_at = DEADLINE_NONE;
    while (!f->woken) {
        f->hard = true;
        park(f);
        f->hard = false;
    }
    f->woken = false;
}

CO void fiber_park_hard(void)
{
    struct loop *loop = fiber_loop();

    loop_hold(loop);
    fiber_park_join();
    loop_unhold(loop);
}

CO int fiber_yield(struct err *e)
{
    struct fiber *f = running;

    assert(f);
    if (f->canceled)
        return fiber_park_err(-ERR_CANCELED, e);
    f->state = FIBER_READY;
    f->busy = 0;
    queue_add(&f->sched->yielded, f);
    leave(f);
    return f->canceled ? fiber_park_err(-ERR_CANCELED, e) : 0;
}
