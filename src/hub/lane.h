/* SPDX-License-Identifier: MIT */
/*
 * hub/lane.h — writes that share a commit. What finds its lane idle goes at the end of this turn of
 * the loop; what comes while a batch is on its way is the next batch. Who adds does not wait: it is
 * told.
 *
 * A batch that the database refuses for what is in it is sent again one by one, so that one that
 * cannot be written harms no other.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/fiber.h"

struct lane_ride { /* a member of what is to be written; the lane's until it was told */
    struct lane_ride *next;
    size_t bytes; /* about, for the bound of a batch */
};

struct lane { /* the first members are filled in by the owner, the rest is zero */
    const char *name;
    struct loop *loop;
    void *arg;
    unsigned max_n, max_flights; /* of one batch; batches under way */
    size_t max_bytes;            /* of one batch */
    bool stubborn; /* while the database is away it tries again, until `stop`; else all are told */
    /* Write them and keep what is to be said of each in what it is a member of; less than 0: none
     * is known to be written. */
    CO int (*send)(void *arg, struct lane_ride *first, size_t n, struct err *e);
    /* r of send(). The ride may be freed. Must not wait. */
    void (*told)(void *arg, struct lane_ride *ride, int r, const struct err *e);

    struct lane_ride *first, **last;
    unsigned flights, n; /* n: not told yet */
    bool called, stop;
};

void lane_add(struct lane *lane, struct lane_ride *ride);

/* Try again what could not be begun, because there were too many fibers. */
void lane_poke(struct lane *lane);

/* Wait until nothing is under way; those that wait for the database are let go at the deadline. */
CO void lane_finish(struct lane *lane, uint64_t deadline_ms);
