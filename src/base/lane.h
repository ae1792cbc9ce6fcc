/* SPDX-License-Identifier: MIT */
/*
 * base/lane.h — writes that share a commit. What finds its lane idle goes at the end of this turn
 * of the loop, with all that is added until then; what comes while a batch is on its way is the
 * next batch. Rides go in the order in which they were added; with one flight at a time they are
 * also written in that order. A lane's fibers exist only while it has something to do.
 *
 * A batch that is refused for what is in it is sent again one by one, so that one that cannot be
 * written harms no other. While the database is away (ERR_UNAVAILABLE) a ride is told so at once,
 * or waits, as the lane's `waits` says.
 *
 * A batch has bounds; how many rides wait has none here: those of lane_ride() are bounded by their
 * fibers, and who adds with lane_add() sees to its own bound.
 *
 * Not the same as a fiber_lane, which lets one fiber after the other through.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/fiber.h"

struct lane_ride { /* a member of what is to be written; the lane's until it was told */
    size_t bytes;  /* about, for the bound of a batch */
    struct lane_ride *next;
    struct fiber *fiber; /* waits for it in lane_ride(); NULL: nobody does */
    struct err *why;     /* of who waits */
    int r;               /* then: what it was told */
};

struct lane { /* the first members are filled in by the owner, the rest is zero */
    const char *name;
    struct loop *loop;
    void *arg;
    unsigned max_n, max_flights; /* rides of one batch; batches under way */
    size_t max_bytes;            /* of one batch; one ride may be larger, and goes alone */
    /* Write them and keep what is to be said of each in what it is a member of: 0, or less when
     * none is known to be written. It may be called again with the same. */
    CO int (*send)(void *arg, struct lane_ride *first, size_t n, struct err *e);
    /* While the database is away: does it go on waiting? It is asked before each new try. NULL:
     * no ride does. */
    bool (*waits)(void *arg, struct lane_ride *ride);
    /* r of send(), before who waits in lane_ride() goes on. Where nobody waits, the ride may be
     * freed. Must not wait. May be NULL. */
    void (*told)(void *arg, struct lane_ride *ride, int r, const struct err *e);

    struct lane_ride *first, **last;
    unsigned flights, n; /* n: not told yet */
    bool called, stop;
};

/* Add a ride; who does so does not wait, told() is how it hears. */
void lane_add(struct lane *lane, struct lane_ride *ride);

/*
 * Add one, or several in their order, and wait until all were told. 0, or less when one failed; of
 * several each has its own in `r`. Blind to cancel, because the lane holds what is lent.
 * ERR_UNAVAILABLE, and nothing was added, when there are too many fibers to begin.
 */
CO int lane_ride(struct lane *lane, struct lane_ride *ride, struct err *e) MUST_CHECK;
CO int lane_ride_all(struct lane *lane, struct lane_ride *const *rides, size_t n, struct err *e)
    MUST_CHECK;

/* Try again what lane_add() could not begin, because there were too many fibers. */
void lane_poke(struct lane *lane);

/* Wait until nothing is under way; from the deadline on nobody waits for the database. */
CO void lane_finish(struct lane *lane, uint64_t deadline_ms);
