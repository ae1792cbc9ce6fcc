/* SPDX-License-Identifier: MIT */
/* base/lane.c — see lane.h. */
#include "base/lane.h"

#include <assert.h>

#define RETRY_MS   50 /* after the database was away */
#define RETRY_LONG 1000
#define LOOK_MS    5 /* of lane_finish() */

struct flight { /* a batch under way */
    struct lane_ride *first;
    size_t n;
};

static struct flight take(struct lane *lane)
{
    struct flight f = { .first = lane->first };
    struct lane_ride **at = &f.first;
    size_t bytes = 0;

    while (*at && f.n < lane->max_n && (f.n == 0 || bytes < lane->max_bytes)) {
        bytes += (*at)->bytes;
        at = &(*at)->next;
        f.n++;
    }
    lane->first = *at;
    *at = NULL;
    return f;
}

static void tell(struct lane *lane, struct lane_ride *ride, int r, const struct err *e)
{
    struct fiber *fiber = ride->fiber;

    lane->n--;
    if (fiber) {
        ride->r = r;
        if (r < 0)
            *ride->why = *e;
        ride->fiber = NULL;
    }
    if (lane->told)
        lane->told(lane->arg, ride, r, e);
    if (fiber)
        fiber_wake(fiber); /* it runs after us */
}

static void tell_all(struct lane *lane, struct lane_ride *first, int r, const struct err *e)
{
    while (first) {
        struct lane_ride *ride = first;

        first = ride->next;
        tell(lane, ride, r, e);
    }
}

/* Tell those that do not wait for the database. */
static void let_go(struct lane *lane, struct flight *f, const struct err *e)
{
    struct lane_ride **at = &f->first;

    while (*at) {
        struct lane_ride *ride = *at;

        if (lane->waits && !lane->stop && lane->waits(lane->arg, ride)) {
            at = &ride->next;
            continue;
        }
        *at = ride->next;
        f->n--;
        tell(lane, ride, -ERR_UNAVAILABLE, e);
    }
}

static CO int fly(struct lane *lane, struct flight f, struct err *e);

static CO void fly_singly(struct lane *lane, struct flight f)
{
    while (f.first) {
        struct flight one = { f.first, 1 };
        struct err e;

        f.first = f.first->next;
        f.n--;
        one.first->next = NULL;
        if (fly(lane, one, &e) == -ERR_UNAVAILABLE)
            let_go(lane, &f, &e); /* they need not find that out one by one */
    }
}

/* The last answer of the database. */
static CO int fly(struct lane *lane, struct flight f, struct err *e)
{
    uint64_t wait_ms = RETRY_MS;
    int r = lane->send(lane->arg, f.first, f.n, e);

    while (r == -ERR_UNAVAILABLE) {
        int slept;

        let_go(lane, &f, e);
        if (!f.first)
            return r;
        slept = fiber_sleep(wait_ms, NULL);
        assert(slept == 0); /* nobody knows this fiber, so nobody cancels it */
        wait_ms = wait_ms * 2 > RETRY_LONG ? RETRY_LONG : wait_ms * 2;
        r = lane->send(lane->arg, f.first, f.n, e);
    }
    if (r < 0 && f.n > 1)
        fly_singly(lane, f);
    else
        tell_all(lane, f.first, r, e);
    return r;
}

static CO int lane_run(void *arg, struct err *e);

/* Have a fiber look at the lane, unless one is about to or enough are flying. False: nobody will.
 */
static bool call_fiber(struct lane *lane)
{
    if (lane->called || lane->flights >= lane->max_flights)
        return true;
    if (fiber_spawn(lane->loop, lane->name, lane_run, lane, NULL, NULL) < 0)
        return lane->flights > 0; /* one that flies comes back for it */
    lane->called = true;
    lane->flights++;
    return true;
}

static CO int lane_run(void *arg, struct err *e)
{
    struct lane *lane = arg;

    lane->called = false;
    while (lane->first) {
        struct flight f = take(lane);
        struct err why;

        if (lane->first)
            (void)call_fiber(lane); /* else what is left goes with our next round */
        (void)fly(lane, f, &why);   /* each has been told */
    }
    lane->flights--;
    return 0;
}

static void join(struct lane *lane, struct lane_ride *ride)
{
    if (!lane->first)
        lane->last = &lane->first;
    ride->next = NULL;
    *lane->last = ride;
    lane->last = &ride->next;
    lane->n++;
}

void lane_add(struct lane *lane, struct lane_ride *ride)
{
    join(lane, ride);
    (void)call_fiber(lane); /* else lane_poke() does */
}

CO int lane_ride_all(struct lane *lane, struct lane_ride *const *rides, size_t n, struct err *e)
{
    struct err why = { 0 };

    if (!call_fiber(lane))
        return err_set(e, ERR_UNAVAILABLE, "too much is going on");
    for (size_t i = 0; i < n; i++) {
        rides[i]->fiber = fiber_self();
        rides[i]->why = &why;
        join(lane, rides[i]);
    }
    for (size_t i = 0; i < n; i++) {
        while (rides[i]->fiber)
            fiber_park_hard();
    }
    if (why.code && e)
        *e = why;
    return -(int)why.code;
}

CO int lane_ride(struct lane *lane, struct lane_ride *ride, struct err *e)
{
    return lane_ride_all(lane, &ride, 1, e);
}

void lane_poke(struct lane *lane)
{
    if (lane->first)
        (void)call_fiber(lane); /* else the next poke */
}

CO void lane_finish(struct lane *lane, uint64_t deadline_ms)
{
    while (lane->n > 0 || lane->flights > 0) {
        if (now_ms() >= deadline_ms)
            lane->stop = true;
        lane_poke(lane);
        if (fiber_sleep(LOOK_MS, NULL) < 0)
            lane->stop = true;
        if (fiber_canceled())
            return;
    }
}
