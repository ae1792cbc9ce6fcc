/* SPDX-License-Identifier: MIT */
/*
 * durable/queue_int.h — what queue.c, claim.c, sweep.c, watch.c, gauge.c, lease.c, reclaim.c and
 * notify.c share.
 *
 * A queue is a definition and a dispatcher: a fiber that claims rows and begins them. What wakes a
 * dispatcher is a flag that says "look", never the work itself: it claims what the database has.
 */
#pragma once

#include "durable/durable_int.h"

#define CLAIM_MAX   256  /* rows of one claim */
#define SWEEP_BATCH 1000 /* rows that one statement of a chore changes */
#define QUEUES_MAX  1024 /* with a dispatcher in this process */
#define NAMES_MAX   64   /* distinct queues of which a batch is told apart; more: all are poked */

/* PostgreSQL's clock, read once in a statement: so an index can be searched for it. */
#define PG_NOW_ONCE "(SELECT " PG_NOW_MS ")"

/* Nothing limits: for arithmetic with min(). */
#define UNLIMITED UINT32_MAX

struct queue_def { /* 0: no limit */
    uint32_t concurrency, worker, rate, part_concurrency, part_worker, part_rate;
    int64_t rate_period_ms, part_rate_period_ms;
    uint64_t polling_ms;
    int64_t hold_slot; /* a truth; as wide as the others, so that definitions compare as bytes */
};

struct queue {
    struct durable *d;
    struct queue *next;
    char *name;
    struct queue_def def;
    const struct durable_queue *row; /* registered by this program, or NULL */
    bool seen;                       /* by the reading of definitions under way */
    bool gone;                       /* its definition was deleted: nothing is claimed */
    bool poked;                      /* look again */
    bool full;                       /* the last look left rows behind for its own limits */
    bool crowded;                    /* ... or because the process has no room */
    bool failing;                    /* the last claim failed, and that was said */
    unsigned running;                /* of this queue, here */
    char *cursor;                    /* partition key at which the next look begins, or NULL */
    struct fiber *fiber;             /* of the dispatcher; NULL before it ran */
};

struct queues {
    struct queue *first;
    size_t n;
    unsigned reserved;   /* room that claims under way may take */
    struct buf names;    /* JSON array of the addresses we implement, for SQLite */
    struct buf timeouts; /* JSON object: address to the timeout of its type */
    bool many;           /* more than QUEUES_MAX are defined, and that was said */
};

static inline bool def_partitioned(const struct queue_def *def)
{
    return def->part_concurrency > 0 || def->part_worker > 0 || def->part_rate > 0;
}
static inline bool def_shared(const struct queue_def *def) /* a limit that processes share */
{
    return def->concurrency > 0 || def->rate > 0 || def_partitioned(def);
}

/* --- queue.c --- */

struct queue *queue_find(const struct durable *d, struct str name);

/* Read the definitions again: new ones get a dispatcher, deleted ones stop. */
CO int queues_reload(struct durable *d, struct err *e) MUST_CHECK;

/* Queues that a statement of a chore has put work into: collected on a store thread, poked after
 * its commit, here and in other processes. */
struct touched {
    struct arena arena;
    struct str names[NAMES_MAX];
    size_t n;
    bool many; /* than NAMES_MAX */
};
void touched_add(struct touched *t, struct str name);
void touched_reset(struct touched *t);                   /* forgets and frees */
void touched_poke(struct durable *d, struct touched *t); /* and resets */

/* --- claim.c --- */

struct claim_ret {
    unsigned n;      /* claimed */
    bool more;       /* as many as asked for: there may be more */
    bool full;       /* rows may be left behind because of the queue's limits */
    int64_t next_ms; /* until a start falls out of the rate's window; 0: not known */
};

/* Claim at most `room` rows and begin them. */
CO int claim_round(struct queue *q, unsigned room, struct claim_ret *ret, struct err *e) MUST_CHECK;

/* --- sweep.c --- */

/* One kind of look, and whether its last one failed. */
enum look {
    LOOK_PARKED,
    LOOK_CLOCK,
    LOOK_DELAYS,
    LOOK_DEADLINES,
    LOOK_OWN,
    LOOK_QUEUES,
    LOOK_VERSION,
    LOOK_GAUGES,
    LOOKS
};

struct sweeper {
    struct fiber *fiber;
    int64_t due;      /* the next delay, wall; 0: look now; INT64_MAX: none known */
    uint64_t next_ms; /* the next whole sweep */
    uint64_t gauges_ms;
    int64_t offset; /* of the wall clock to the monotonic one, when recorded times were right */
    bool failing[LOOKS];
    bool said_blocked;
    uint64_t looked_ms;       /* when our own rows were last looked at */
    struct arena suspects[2]; /* of the last look at our own rows, and of this one */
    struct str *suspect[2];   /* id and token in one text */
    size_t n_suspects[2];
};

/* A chore's attempt ended with r: says it once when it begins to fail and once when it works
 * again. Never ends a chore. */
void chore_note(const char *chore, bool *failing, int r, const struct err *e);

/* Sleep, unless cancelled: for the loops of chores. */
CO bool chore_pause(uint64_t ms);

void sweeper_free(struct durable *d);

/* --- watch.c --- */
CO int watch_own(struct durable *d, struct err *e) MUST_CHECK;

/* --- gauge.c --- */
CO int gauge_version(struct durable *d, struct err *e) MUST_CHECK; /* sets d->newest */
CO int gauge_queues(struct durable *d, struct err *e) MUST_CHECK;

/* --- lease.c --- */
void lease_free(struct durable *d);
unsigned lease_others(const struct durable *d); /* living processes besides us, as last seen */

/* --- reclaim.c --- */

/* Give rows back that were claimed and did not begin, with so many attempts less. ids is JSON, an
 * array of [id, token]. */
CO int release_rows(struct durable *d, struct str ids, int64_t attempts, struct err *e) MUST_CHECK;

/* --- notify.c --- */
void notifier_free(struct durable *d);
