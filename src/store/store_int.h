/* SPDX-License-Identifier: MIT */
/*
 * store/store_int.h — what the front, the two backends and the migrations share.
 *
 * A job is one transaction on its way: it lies on the stack of the parked fiber (or blocked thread)
 * that asked, is queued under the store's lock, run by a thread of the backend, and handed back in
 * a list, one loop_post() for all that one commit made durable.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "store/store.h"

#define STORE_WAIT_MS 5000
#define STORE_QUEUE   8192
#define STORE_POOL    20
#define STORE_STACK   (1 * MIB) /* of a store thread; touched lazily */

/* The name of the table that remembers which migrations were applied. */
#define STORE_MIGRATIONS_TABLE "schema_migrations"

/* In the text of an error whose transaction may have been committed: see store_unsure(). */
#define STORE_UNSURE "it is not known whether it was written"

struct store_tx {
    int (*run)(struct store_tx *tx, const struct sql *sql, const struct sql_arg *args,
               size_t n_args, int (*each)(struct store_row *row, void *arg, struct err *e),
               void *arg, struct err *e);
    int (*script)(struct store_tx *tx, const char *text, struct err *e); /* many statements */
    int64_t changed;
    bool failed;    /* a statement failed: nothing else runs in this transaction */
    struct err why; /* of failed */
};

struct store_row {
    enum sql_kind (*kind)(const struct store_row *row, int col);
    int64_t (*integer)(const struct store_row *row, int col);
    double (*real)(const struct store_row *row, int col);
    struct str (*str)(const struct store_row *row, int col);
};

struct store_job {
    struct store_job *next;
    store_body *body;
    void *arg;
    struct err *e;
    int r;
    bool read, single;    /* single: a body of exactly one statement, idempotent */
    atomic_bool unwanted; /* a read whose fiber was cancelled: not run if it has not begun */
    bool done; /* owned by the loop's thread, or by the store's lock for a blocked thread */
    struct fiber *fiber; /* NULL: a thread waits on store.done_now */
    uint64_t since_us;   /* when it was queued */
};

/* What store_once() was asked. */
struct store_single {
    const struct sql *sql;
    const struct sql_arg *args;
    size_t n_args;
    int (*each)(struct store_row *row, void *arg, struct err *e);
    void *arg;
};

struct store_jobs { /* first in, first out */
    struct store_job *first, **last;
    unsigned n;
};

enum store_metric_kind { STORE_WRITE, STORE_READ };

struct store_ops {
    const char *kind;
    int (*open)(struct store *s, struct err *e);
    /* Under the lock: queue. Who is to be woken once the lock is free, so as not to wait for it. */
    pthread_cond_t *(*submit)(struct store *s, struct store_job *job);
    /*
     * May be NULL. On the loop's thread, in a fiber: do it without a store thread. 1: *ret is the
     * outcome; 0: not that way, and nothing that counts was done.
     */
    CO int (*once)(struct store *s, const struct store_single *one, int *ret, struct err *e);
    void (*close)(struct store *s);
};

struct store {
    const struct store_ops *ops;
    void *impl; /* of the backend */
    struct loop *loop;
    struct store_conf conf; /* with defaults filled in; url is ours */
    char *url;
    const char *target; /* the url without its scheme, for SQLite; for texts */
    pthread_mutex_t lock;
    pthread_cond_t done_now;
    unsigned waiting; /* jobs queued, not taken yet */
    bool closing;
    atomic_bool ok;
    atomic_bool unprepared; /* PostgreSQL: behind a pooler that forgets prepared statements */
    _Atomic uint64_t away_since_ms; /* PostgreSQL: since when connecting fails; 0: it does not */
};

void store_jobs_push(struct store_jobs *q, struct store_job *job);
struct store_job *store_jobs_shift(struct store_jobs *q); /* NULL when empty */

/* Is there no need to run the job? Then its outcome is filled in. */
bool store_unwanted(struct store_job *job);

/* n jobs were taken off a queue; under the lock. */
void store_taken(struct store *s, unsigned n);

/* Hand finished jobs back to who waits for them; any store thread, without the lock. */
void store_finish(struct store *s, struct store_job *jobs);

static inline void store_probe_call(bool committed)
{
    if (store_probe)
        store_probe(committed);
}

/* Are all texts UTF-8 without a NUL? */
int store_check_args(const struct sql *sql, const struct sql_arg *args, size_t n, struct err *e)
    MUST_CHECK;

/* Run a job's body in tx: the outcome, with what a failed statement demands. */
int store_body_run(struct store_tx *tx, store_body *body, void *arg, struct err *e);

/* A store thread: signals blocked, small stack, named. Aborts when the system has no thread left.
 */
pthread_t store_thread(const char *name, void *(*fn)(void *arg), void *arg);

/* A condition variable on the monotonic clock. */
void store_cond_init(pthread_cond_t *cond);

/* The time now_us() `us` from now, for pthread_cond_timedwait. */
struct timespec store_time_in(uint64_t us);

enum sql_kind row_kind(const struct store_row *row, int col);

extern const struct store_ops store_sqlite_ops, store_pg_ops;

extern struct metric store_metric_seconds, store_metric_commits, store_metric_batch,
    store_metric_failed, store_metric_waiting, store_metric_retries, store_metric_connections;
