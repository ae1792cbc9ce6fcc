/* SPDX-License-Identifier: MIT */
/* hub/lane.c — see lane.h. */
#include "hub/lane.h"

#include <assert.h>

#define RETRY_MS   50 /* after the database was away */
#define RETRY_LONG 1000
#define LOOK_MS    5 /* of lane_finish() */

static struct lane_ride *take(struct lane *lane, size_t *ret_n)
{
    struct lane_ride *first = lane->first, **at = &first;
    size_t n = 0, bytes = 0;

    while (*at && n < lane->max_n && (n == 0 || bytes < lane->max_bytes)) {
        bytes += (*at)->bytes;
        at = &(*at)->next;
        n++;
    }
    lane->first = *at;
    *at = NULL;
    if (!lane->first)
        lane->last = &lane->first;
    *ret_n = n;
    return first;
}

static void tell(struct lane *lane, struct lane_ride *ride, int r, const struct err *e)
{
    lane->n--;
    lane->told(lane->arg, ride, r, e);
}

static void tell_all(struct lane *lane, struct lane_ride *first, int r, const struct err *e)
{
    while (first) {
        struct lane_ride *ride = first;

        first = ride->next;
        tell(lane, ride, r, e);
    }
}

/* Send until the database answers; its answer, or ERR_UNAVAILABLE when we are to stop asking. */
static CO int send(struct lane *lane, struct lane_ride *first, size_t n, struct err *e)
{
    uint64_t wait_ms = RETRY_MS;
    int r = lane->send(lane->arg, first, n, e);

    while (r == -ERR_UNAVAILABLE && lane->stubborn && !lane->stop) {
        int slept = fiber_sleep(wait_ms, NULL);

        assert(slept == 0); /* nobody knows this fiber, so nobody cancels it */
        wait_ms = wait_ms * 2 > RETRY_LONG ? RETRY_LONG : wait_ms * 2;
        r = lane->send(lane->arg, first, n, e);
    }
    return r;
}

static CO void send_singly(struct lane *lane, struct lane_ride *first)
{
    while (first) {
        struct lane_ride *ride = first;
        struct err e;
        int r;

        first = ride->next;
        ride->next = NULL;
        r = send(lane, ride, 1, &e);
        tell(lane, ride, r, &e);
        if (r == -ERR_UNAVAILABLE) {
            tell_all(lane, first, r, &e);
            return;
        }
    }
}

static CO void fly(struct lane *lane, struct lane_ride *first, size_t n)
{
    struct err e;
    int r = send(lane, first, n, &e);

    if (r < 0 && r != -ERR_UNAVAILABLE && n > 1)
        send_singly(lane, first);
    else
        tell_all(lane, first, r, &e);
}

static CO int lane_run(void *arg, struct err *e);

/* Have a fiber look at the lane, unless one is about to or enough are flying. */
static void call_fiber(struct lane *lane)
{
    if (lane->called || lane->flights >= lane->max_flights)
        return;
    if (fiber_spawn(lane->loop, lane->name, lane_run, lane, NULL, NULL) < 0)
        return; /* one that flies comes back for it, or lane_poke() does */
    lane->called = true;
    lane->flights++;
}

static CO int lane_run(void *arg, struct err *e)
{
    struct lane *lane = arg;

    lane->called = false;
    while (lane->first) {
        size_t n;
        struct lane_ride *first = take(lane, &n);

        if (lane->first)
            call_fiber(lane); /* else what is left goes with our next round */
        fly(lane, first, n);
    }
    lane->flights--;
    return 0;
}

void lane_add(struct lane *lane, struct lane_ride *ride)
{
    if (!lane->first)
        lane->last = &lane->first;
    ride->next = NULL;
    *lane->last = ride;
    lane->last = &ride->next;
    lane->n++;
    call_fiber(lane);
}

void lane_poke(struct lane *lane)
{
    if (lane->first)
        call_fiber(lane);
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
