/* SPDX-License-Identifier: MIT */
/*
 * durable/wait_int.h — shared by park.c, unpark.c, clock.c, and the calls that wait.
 */
#pragma once

#include "durable/durable_int.h"

#define WAIT_BUCKETS 4096u /* of waiters, who are fibers: 65536 at most */
#define HEARD_MAX    (256 * KIB)

#define WAIT_LONGEST_MS (1000 * 365 * DURABLE_DAY_MS) /* longer ones are as long as this */
#define NEVER_MS        ((int64_t)9e15)               /* as delay_until_epoch_ms: no end */
#define KEY_MAX         1024 /* bytes of a topic or a key: a NOTIFY carries no more than 8000 */
#define DEFAULT_WAIT_MS 60000

struct waiters {
    struct wait *buckets[WAIT_BUCKETS];
    /* unpark.c */
    struct buf heard;      /* workflows that a NOTIFY told of, as a JSON array without its end */
    bool listening;        /* a fiber looks at them */
    struct buf target, id; /* where the sweep is */
    uint64_t tidied;       /* mono: when rows nobody needs were last deleted */
    /* clock.c */
    bool known, begun;
    int64_t offset;       /* clock minus now_ms() */
    int64_t owed;         /* a step that parked waits have yet to follow */
    uint64_t took, asked; /* how long the answer took, ms, and when it came */
};
struct waiters *waiters_get(struct durable *d); /* makes them */

/* Look whether the clock was stepped, and have parked waits and their recorded ends follow it. */
CO int clock_follow(struct durable *d, struct err *e) MUST_CHECK;

/* The same, and the first time as if it may have been set back while nothing ran. */
CO int clock_begin(struct durable *d, struct err *e) MUST_CHECK;

/* --- sleep.c: the recorded ends of waits --- */

/*
 * Sets the wait's deadline: from its record when there is one, else ms from now, not recorded yet
 * (until_ms is 0). Takes a function id.
 */
CO int marker_take(struct workflow *w, uint64_t ms, struct wait *wait, struct err *e) MUST_CHECK;

/* Record it, unless it is. */
CO int marker_keep(struct workflow *w, struct wait *wait, struct err *e) MUST_CHECK;

/* --- park.c --- */

/* Record that a sleep lasts until `until` and park, in one transaction. -ERR_PARKED, or another end
 * of the run. */
CO int park_sleep(struct workflow *w, unsigned id, int64_t now, int64_t until, struct err *e)
    MUST_CHECK;

/* Is there what is waited for? In a transaction; 1 or 0. */
int wait_look_tx(struct store_tx *tx, enum wait_kind kind, struct str workflow, struct str topic,
                 struct err *e) MUST_CHECK;

const char *wait_kind_name(enum wait_kind kind);

/* store_read() for a workflow: waits while the database is away. */
CO int read_patiently(struct workflow *w, store_body *body, void *arg, struct err *e) MUST_CHECK;

/* --- mailbox.c --- */

/* ERR_INVALID or ERR_LIMIT: not a topic, a key, an id, or a value. what names it. */
int check_key(struct str key, const char *what, struct err *e) MUST_CHECK;
int check_value(struct durable *d, struct str json, struct err *e) MUST_CHECK;
int check_id(struct str id, struct err *e) MUST_CHECK;

/* A value as it was read from a row, and what to make of it. */
struct value {
    bool found;
    enum wire_format format;
    struct buf text;
};

/*
 * Record what a call found, or nothing (a NULL), and give it as replays will. An unreadable or too
 * large value is recorded as an error. 0, DURABLE_NOTHING, or less than 0.
 */
CO int value_record(struct workflow *w, unsigned id, const char *name, int64_t started_ms,
                    const struct value *value, struct buf *out, struct err *e) MUST_CHECK;

/* For a row's columns text and serialization; at most max bytes are kept, else ERR_LIMIT. */
int value_take(struct value *value, struct str text, struct str serialization, struct err *e)
    MUST_CHECK;
