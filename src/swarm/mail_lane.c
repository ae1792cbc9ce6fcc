/* SPDX-License-Identifier: MIT */
/*
 * The lanes of mail. What finds its lane idle goes at once; what comes while a batch is on its way
 * is the next batch. Acceptances fly one batch at a time, because their order is the order in which
 * they arrive; endings may overlap.
 *
 * A batch that the database refuses for what is in it is sent again one by one, so that one that
 * cannot be written harms no other. When the database is away everybody is told: the sender tries
 * again with the same key.
 */
#include "swarm/mail_int.h"

static void answer(struct mail_ride *ride)
{
    ride->done = true;
    fiber_wake(ride->fiber); /* it runs after us: the ride is still there */
}

static size_t take(struct mail_lane *lane, struct mail_ride **ret)
{
    struct mail_ride **at = ret;
    size_t n = 0, bytes = 0;

    while (lane->first && n < MAIL_BATCH && (n == 0 || bytes < MAIL_BATCH_BYTES)) {
        *at = lane->first;
        bytes += lane->first->bytes;
        at = &lane->first->next;
        lane->first = lane->first->next;
        n++;
    }
    *at = NULL;
    return n;
}

static void fail_all(struct mail_ride *first, int r, const struct err *e)
{
    for (struct mail_ride *ride = first; ride; ride = ride->next) {
        ride->outcome = r;
        ride->err = *e;
    }
}

static CO void send_singly(struct mail_lane *lane, struct mail_ride *first)
{
    for (struct mail_ride *ride = first; ride; ride = ride->next) {
        struct mail_ride *rest = ride->next;
        struct err e;
        int r;

        ride->next = NULL;
        r = lane->send(lane->m, ride, 1, &e);
        ride->next = rest;
        if (r == -ERR_UNAVAILABLE) {
            fail_all(ride, r, &e);
            return;
        }
        if (r < 0) {
            ride->outcome = r;
            ride->err = e;
        }
    }
}

static CO void fly(struct mail_lane *lane, struct mail_ride *first, size_t n)
{
    struct err e;
    int r = lane->send(lane->m, first, n, &e);

    if (r < 0 && (r == -ERR_UNAVAILABLE || n == 1))
        fail_all(first, r, &e);
    else if (r < 0)
        send_singly(lane, first);
    if (lane->told)
        lane->told(lane->m, first);
    while (first) {
        struct mail_ride *ride = first;

        first = ride->next;
        answer(ride);
    }
}

static CO int lane_run(void *arg, struct err *e);

/* Have a fiber look at the lane, unless one is about to or enough are flying. */
static int call_fiber(struct mail_lane *lane, struct err *e)
{
    int r;

    if (lane->called || lane->flights >= lane->max_flights)
        return 0;
    r = fiber_spawn(lane->m->loop, "mail lane", lane_run, lane, NULL, e);
    if (r < 0)
        return lane->flights > 0 ? 0 : r; /* the one that flies comes back for it */
    lane->called = true;
    lane->flights++;
    return 0;
}

static CO int lane_run(void *arg, struct err *e)
{
    struct mail_lane *lane = arg;
    struct mail_ride *first;
    size_t n;

    lane->called = false;
    while (lane->first) {
        n = take(lane, &first);
        if (lane->first)
            (void)call_fiber(lane, NULL); /* else what is left goes with our next round */
        fly(lane, first, n);
    }
    lane->flights--;
    return 0;
}

CO int mail_lane_ride_all(struct mail_lane *lane, struct mail_ride *const *rides, size_t n,
                          struct err *e)
{
    int r;

    if (!lane->first)
        lane->last = &lane->first;
    r = call_fiber(lane, e);
    if (r < 0) /* not the caller's fault, and over soon */
        return err_set(e, ERR_UNAVAILABLE, "too much is going on");
    for (size_t i = 0; i < n; i++) {
        rides[i]->fiber = fiber_self();
        rides[i]->next = NULL;
        *lane->last = rides[i];
        lane->last = &rides[i]->next;
    }
    for (size_t i = 0; i < n; i++) {
        while (!rides[i]->done)
            fiber_park_hard();
    }
    return 0;
}

CO int mail_lane_ride(struct mail_lane *lane, struct mail_ride *ride, struct err *e)
{
    int r = mail_lane_ride_all(lane, &ride, 1, e);

    if (r == 0 && ride->outcome < 0 && e)
        *e = ride->err;
    return r < 0 ? r : ride->outcome;
}
