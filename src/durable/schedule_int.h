/* SPDX-License-Identifier: MIT */
/*
 * durable/schedule_int.h — what the table of schedules (schedule_table.c), the firing of them
 * (schedule_fire.c) and the chore that watches the clock (schedule.c) share.
 */
#pragma once

#include "durable/cron.h"
#include "durable/manage_int.h"

#define SCHEDULES_MAX     10000
#define MISFIRE_MAX       1000  /* of MISFIRE_ALL, unless it says otherwise */
#define MISFIRE_MOST      10000 /* what it may say; and times of one backfill */
#define SCHEDULE_NAME_MAX 200   /* bytes: the ids of its workflows hold it */

struct schedules { /* of a process whose engine runs; schedule.c */
    struct fiber *fiber;
    bool changed; /* by us: read the table now */
};

struct schedule_rows { /* as they are in the table; of the arena */
    struct arena *arena;
    struct durable_schedule *v;
    int64_t *since_ms;
    struct str *owner; /* application; {0}: anybody's */
    size_t n, cap;
};

/* All, or the one of a name. An empty answer is fine. next_ms is not filled in. */
CO int schedules_read(struct durable *d, struct str name, struct schedule_rows *rows, struct err *e)
    MUST_CHECK;

/* Is the row one that this application may fire? */
bool schedule_is_ours(const struct durable *d, struct str owner);

enum fire_kind { FIRE_CLOCK, FIRE_TRIGGER, FIRE_BACKFILL };

/*
 * Enqueue the workflow of a schedule for one time. *ret_new: it was not there before. ret_id may be
 * NULL. For FIRE_CLOCK alone the overlap policy holds, and the table has the last word: 0, or
 * SCHEDULE_STALE when the schedule is no longer there as given, because somebody else has paused,
 * changed or removed it.
 */
enum { SCHEDULE_STALE = 1 };
CO int schedule_fire(struct durable *d, const struct durable_schedule *s, int64_t at_ms,
                     enum fire_kind kind, bool *ret_new, char *ret_id, struct err *e) MUST_CHECK;

/* Remember that times up to at_ms are dealt with. */
CO int schedule_fired(struct durable *d, struct str name, int64_t at_ms, struct err *e) MUST_CHECK;

/*
 * Which of the times in (from, now] are to fire, by the policy; ascending, of the arena. What is no
 * older than MISFIRE_GRACE_MS was not missed, only late. Pure.
 */
#define MISFIRE_GRACE_MS 60000
void schedule_due(const struct durable_schedule *s, const struct cron *c, struct zone *z,
                  int64_t from_ms, int64_t now_ms, struct arena *a, int64_t **ret, size_t *ret_n);
