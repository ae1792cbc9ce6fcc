/* SPDX-License-Identifier: MIT */
/*
 * bridge/lane.h — one lane per name: calls on one session (or with one Idempotency-Key) run one
 * after the other in order of arrival. A lane exists while somebody is in it or waits for it.
 */
#pragma once

#include "base/fiber.h"
#include "base/strmap.h"

struct lane {
    struct strmap_node node;
    struct fiber_lane queue;
    unsigned users;
    int64_t sid, seq; /* the turn under way: its session's life and its question; 0: none yet */
    char key[];
};

struct lanes { /* all zero is empty */
    struct strmap map;
};

/* Wait for the lane of that key. */
CO int lane_enter(struct lanes *all, struct str key, uint64_t deadline_ms, struct lane **ret,
                  struct err *e) MUST_CHECK;
void lane_leave(struct lanes *all, struct lane *lane); /* lane may be NULL */

struct lane *lane_find(const struct lanes *all, struct str key); /* or NULL */
void lanes_done(struct lanes *all);                              /* nobody may be in any */
