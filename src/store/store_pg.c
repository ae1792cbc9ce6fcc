/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL as a store: a pool of threads with a connection each.
 *
 * A thread is started when a transaction finds none free, and ends when it was idle for a while.
 * The one that became idle last is taken first, so a light load uses few connections, and warm
 * ones. A thread serves one transaction to its end: it connects first where it must, with backoff;
 * runs it again when another transaction was in the way or the connection broke; and when the
 * connection broke in COMMIT, asks the server for the fate of the transaction's id on a new one.
 * What nobody takes in time is refused by the usher, a thread that exists once all others are busy.
 * A single statement needs no thread: the loop's own borrows a connection (store_pg_once.c).
 */
#include "store/store_int.h"

#include <string.h>

#include "base/rand.h"
#include "store/migrate.h"
#include "store/store_pg_int.h"

#define POOL_MAX           1000
#define IDLE_US            (60 * 1000000ull) /* then a thread and its connection end, but for one */
#define TRIES              10                /* of a transaction that meets others */
#define TRY_FIRST_MS       2                 /* pause after the first such meeting; doubles */
#define TRY_LONGEST_MS     100
#define LOSSES             3  /* connections lost under one transaction */
#define CONNECT_FIRST_MS   50 /* pause after a failure to connect; doubles */
#define CONNECT_LONGEST_MS 1000
#define CONNECT_ONE_MS     5000 /* for one attempt to connect */
#define FATE_EVERY_MS      20
#define ADVISORY_LOCK      "SELECT pg_advisory_xact_lock(7162248389217)" /* "chela" + 1: any number */

struct pg_store;

struct worker {
    struct pg_store *st;
    bool live, started; /* not live but started: it has ended and is to be joined */
    pthread_t thread;
    pthread_cond_t go;
    struct worker *next_idle;
    bool idle, lent;  /* lent: its connection is in the hands of the loop's thread */
    uint64_t used_us; /* when it was given back */
    struct pg_db *db; /* NULL: not connected */
};

struct pg_store {
    struct store *s;
    struct store_jobs jobs;
    struct worker *workers, *idle; /* conf.pool of them; idle: a stack */
    unsigned live;
    pthread_t usher;
    bool has_usher;
    pthread_cond_t late;
    struct pg_db *first; /* of store_open, for the first worker */
};

static void set_ok(struct store *s, bool ok)
{
    atomic_store_explicit(&s->ok, ok, memory_order_relaxed);
}

/* Between half of ms and ms, so that many do not come back at once. */
static void pause_ms(uint64_t ms)
{
    uint64_t us = (uint64_t)((double)ms * (500 + 500 * rand_unit()));
    struct timespec t = { (time_t)(us / 1000000), (long)(us % 1000000) * 1000 };

    (void)nanosleep(&t, NULL);
}

/* One connection */

/*
 * Until deadline. Once the database has been away for longer than a transaction waits, each makes
 * one attempt and fails at once: then nobody is kept waiting for what will not come.
 */
static int connect_by(struct store *s, uint64_t deadline, struct pg_db **ret, struct err *e)
{
    uint64_t wait = CONNECT_FIRST_MS;

    for (;;) {
        uint64_t now = now_ms(), since;
        int r = pg_db_open(s->url, deadline_min(deadline, now + CONNECT_ONE_MS), ret, e);

        set_ok(s, r == 0);
        if (r == 0) {
            atomic_store(&s->away_since_ms, 0);
            pg_db_share(*ret, &s->unprepared);
        }
        if (r == 0 || r == -ERR_INVALID)
            return r;
        now = now_ms();
        since = atomic_load(&s->away_since_ms);
        if (!since)
            atomic_store(&s->away_since_ms, now);
        if (now + wait >= deadline || (since && now - since >= s->conf.wait_ms))
            return r;
        pause_ms(wait);
        wait = wait * 2 < CONNECT_LONGEST_MS ? wait * 2 : CONNECT_LONGEST_MS;
    }
}

static void drop(struct pg_db **db)
{
    pg_db_close(*db);
    *db = NULL;
}

/* What a transaction came to. */
enum outcome { DONE, AGAIN, LOST, LOST_IN_COMMIT };

static enum outcome verdict(struct pg_db **db, struct pg_xid *ret_xid, bool in_commit)
{
    switch (pg_db_verdict(*db)) {
    case PG_LOST:
        *ret_xid = pg_db_xid(*db);
        drop(db);
        return in_commit && ret_xid->v ? LOST_IN_COMMIT : LOST;
    case PG_AGAIN:
        pg_db_give_up(*db);
        return AGAIN;
    case PG_FAILED:
        break;
    }
    pg_db_give_up(*db);
    return DONE;
}

/* Its only statement is the whole transaction; when it is not known to be done it is not. */
static enum outcome attempt_single(struct pg_db **db, store_body *body, void *arg, int *ret,
                                   struct err *why)
{
    struct pg_xid none;

    store_probe_call(false);
    pg_db_single(*db);
    *ret = store_body_run(pg_db_tx(*db), body, arg, why);
    if (*ret < 0)
        return verdict(db, &none, false);
    store_probe_call(true);
    return DONE;
}

/* Run the body once. The error of the database goes to *why, the result to *ret. */
static enum outcome attempt(struct pg_db **db, store_body *body, void *arg,
                            enum store_metric_kind kind, struct pg_xid *ret_xid, int *ret,
                            struct err *why)
{
    int end;

    if (kind == STORE_WRITE)
        store_probe_call(false);
    *ret = pg_db_begin(*db, kind, why);
    if (*ret < 0)
        return verdict(db, ret_xid, false);
    *ret = store_body_run(pg_db_tx(*db), body, arg, why);
    if (*ret < 0)
        return verdict(db, ret_xid, false);
    end = pg_db_commit(*db, why);
    if (end < 0) {
        enum outcome outcome = verdict(db, ret_xid, true);

        if (outcome != LOST_IN_COMMIT)
            *ret = end;
        return outcome;
    }
    if (kind == STORE_WRITE)
        store_probe_call(true);
    return DONE;
}

/* The connection broke in COMMIT: was it committed? PG_COMMITTED, PG_ABORTED or an error. */
static int find_fate(struct store *s, struct pg_db **db, const struct pg_xid *xid, struct err *e)
{
    uint64_t deadline = deadline_in((long long)s->conf.wait_ms);
    int r;

    for (;;) {
        r = *db ? 0 : connect_by(s, deadline, db, e);
        if (r == 0)
            r = pg_db_fate(*db, xid, e);
        if (r == PG_COMMITTED || r == PG_ABORTED)
            return r;
        if (r < 0 && *db)
            drop(db);
        if (r == PG_UNCLEAR || now_ms() >= deadline)
            break;
        pause_ms(FATE_EVERY_MS);
    }
    if (r > 0)
        (void)err_set(e, ERR_UNAVAILABLE, "the connection was lost in COMMIT");
    e->code = ERR_UNAVAILABLE;
    return err_wrap(e, STORE_UNSURE);
}

/* One transaction to its end */

struct serving {
    struct store *s;
    struct pg_db **db;
    store_body *body;
    void *arg;
    enum store_metric_kind kind;
    bool single;
    uint64_t deadline; /* for the connection */
    unsigned meetings, losses;
};

/* Where a lost connection leaves the transaction: over, with *ret, or to be run again. */
static bool over_after_loss(struct serving *v, bool in_commit, const struct pg_xid *xid, int *ret,
                            struct err *why)
{
    int fate;

    set_ok(v->s, false);
    v->deadline = deadline_in((long long)v->s->conf.wait_ms);
    if (in_commit) {
        fate = find_fate(v->s, v->db, xid, why);
        if (fate < 0)
            *ret = fate;
        if (fate != PG_ABORTED)
            return true;
    }
    v->losses++;
    *ret = in_commit ? err_set(why, ERR_UNAVAILABLE, "the connection was lost in COMMIT") : *ret;
    return v->losses >= LOSSES;
}

static int serve(struct serving *v, struct err *e)
{
    uint64_t wait = TRY_FIRST_MS;
    struct err why = { 0 };
    struct pg_xid xid;
    bool over = false;
    int r;

    while (!over) {
        enum outcome outcome;

        if (!*v->db && (r = connect_by(v->s, v->deadline, v->db, &why)) < 0)
            break;
        if (v->single && !pg_db_lazy(*v->db))
            outcome = attempt_single(v->db, v->body, v->arg, &r, &why);
        else
            outcome = attempt(v->db, v->body, v->arg, v->kind, &xid, &r, &why);
        if (outcome == DONE) {
            set_ok(v->s, r != -ERR_UNAVAILABLE);
            break;
        }
        if (outcome == AGAIN) {
            over = ++v->meetings >= TRIES;
            if (!over)
                pause_ms(wait);
            wait = wait * 2 < TRY_LONGEST_MS ? wait * 2 : TRY_LONGEST_MS;
        } else {
            over = over_after_loss(v, outcome == LOST_IN_COMMIT, &xid, &r, &why);
        }
        metric_add(&store_metric_retries, 0, over ? 0 : 1);
    }
    if (r < 0 && e)
        *e = why;
    if (r >= 0 && v->kind == STORE_WRITE)
        metric_add(&store_metric_commits, 0, 1);
    return r;
}

static void serve_job(struct worker *w, struct store_job *job)
{
    struct store *s = w->st->s;
    struct serving v = {
        .s = s,
        .db = &w->db,
        .body = job->body,
        .arg = job->arg,
        .kind = job->read ? STORE_READ : STORE_WRITE,
        .single = job->single,
        .deadline = deadline_in((long long)s->conf.wait_ms),
    };

    if (!store_unwanted(job))
        job->r = serve(&v, job->e);
    store_finish(s, job);
}

/* Threads; all below holds the lock but where it says otherwise */

static void push_idle(struct worker *w)
{
    w->idle = true;
    w->next_idle = w->st->idle;
    w->st->idle = w;
}

static struct worker *pop_idle(struct pg_store *st)
{
    struct worker *w = st->idle;

    if (w) {
        st->idle = w->next_idle;
        w->idle = false;
    }
    return w;
}

static bool rest(struct worker *w)
{
    struct pg_store *st = w->st;
    int r = 0;

    push_idle(w);
    w->used_us = now_us();
    while (w->lent || (w->idle && !st->s->closing && r == 0)) {
        uint64_t idle = now_us() - w->used_us;
        struct timespec until = store_time_in(idle < IDLE_US ? IDLE_US - idle : 1000);

        (void)pthread_cond_timedwait(&w->go, &st->s->lock, &until);
        r = !w->lent && w->idle && now_us() - w->used_us >= IDLE_US;
    }
    if (w->idle) { /* nobody took us off the stack */
        struct worker **at = &st->idle;

        while (*at != w)
            at = &(*at)->next_idle;
        *at = w->next_idle;
        w->idle = false;
    }
    return r == 0 || st->live == 1;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct pg_store *st = w->st;
    struct store *s = st->s;

    pthread_mutex_lock(&s->lock);
    w->db = TAKE(st->first);
    for (;;) {
        struct store_job *job = store_jobs_shift(&st->jobs);

        if (job) {
            store_taken(s, 1);
            pthread_mutex_unlock(&s->lock);
            serve_job(w, job);
            pthread_mutex_lock(&s->lock);
        } else if (s->closing || !rest(w)) {
            pthread_mutex_unlock(&s->lock);
            drop(&w->db);
            pthread_mutex_lock(&s->lock);
            if (!st->jobs.first)
                break;
        }
    }
    st->live--;
    w->live = false;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Refuses what has waited too long for a worker. */
static void *usher(void *arg)
{
    struct pg_store *st = arg;
    struct store *s = st->s;
    uint64_t wait_us = s->conf.wait_ms * 1000;

    pthread_mutex_lock(&s->lock);
    while (!s->closing) {
        struct store_job *job = st->jobs.first;
        uint64_t age = job ? now_us() - job->since_us : 0;
        struct timespec until;

        if (!job) {
            pthread_cond_wait(&st->late, &s->lock);
        } else if (age < wait_us) {
            until = store_time_in(wait_us - age);
            (void)pthread_cond_timedwait(&st->late, &s->lock, &until);
        } else {
            job = store_jobs_shift(&st->jobs);
            store_taken(s, 1);
            pthread_mutex_unlock(&s->lock);
            job->r = err_set(job->e, ERR_UNAVAILABLE,
                             "no connection to the database became free within %llu ms",
                             (unsigned long long)s->conf.wait_ms);
            store_finish(s, job);
            pthread_mutex_lock(&s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void start_worker(struct pg_store *st)
{
    struct worker *w = st->workers;

    while (w->live)
        w++;
    if (w->started)
        (void)pthread_join(w->thread, NULL); /* it is past its last use of the lock */
    w->live = w->started = true;
    st->live++;
    w->thread = store_thread("store-pg", work, w);
}

static pthread_cond_t *submit(struct store *s, struct store_job *job)
{
    struct pg_store *st = s->impl;
    struct worker *w;

    store_jobs_push(&st->jobs, job);
    w = pop_idle(st);
    if (w)
        return &w->go;
    if (st->live < s->conf.pool) {
        start_worker(st);
    } else if (!st->has_usher) {
        st->usher = store_thread("store-usher", usher, st);
        st->has_usher = true;
    } else if (st->jobs.n == 1) {
        return &st->late;
    }
    return NULL;
}

/* For the loop's thread */

struct worker *pg_borrow(struct store *s, struct pg_db **ret)
{
    struct pg_store *st = s->impl;
    struct worker *w = NULL;

    pthread_mutex_lock(&s->lock);
    if (st->idle && st->idle->db && !pg_db_lazy(st->idle->db) && !st->jobs.first && !s->closing) {
        w = pop_idle(st);
        w->lent = true;
        *ret = w->db;
    }
    pthread_mutex_unlock(&s->lock);
    return w;
}

void pg_give_back(struct worker *w)
{
    struct pg_store *st = w->st;
    bool wake;

    pthread_mutex_lock(&st->s->lock);
    w->lent = false;
    w->used_us = now_us();
    wake = st->jobs.first || st->s->closing;
    if (!wake)
        push_idle(w);
    pthread_mutex_unlock(&st->s->lock);
    if (wake)
        pthread_cond_signal(&w->go);
}

/* Opening */

static int lock_schema(struct store_tx *tx, void *arg, struct err *e)
{
    const struct serving *inner = arg;
    int r = tx->script(tx, ADVISORY_LOCK, e);

    return r < 0 ? r : inner->body(tx, inner->arg, e);
}

/* For migrate(): the lock keeps out other programs until the commit. */
static int run_alone(void *db, store_body *body, void *arg, struct err *e)
{
    struct serving *v = db, inner = { .body = body, .arg = arg };

    v->body = lock_schema;
    v->arg = &inner;
    v->meetings = v->losses = 0;
    return serve(v, e);
}

static int migrate_database(struct store *s, struct pg_db **db, struct err *e)
{
    struct serving v = {
        .s = s,
        .db = db,
        .kind = STORE_WRITE,
        .deadline = deadline_in((long long)s->conf.wait_ms),
    };
    AUTO(free) char *name = xstrdup(pg_db_name(*db));
    const struct migrate_db target = { name, MIGRATE_PG, &v, run_alone };

    return migrate(&target, s->conf.migrations, s->conf.n_migrations, e);
}

static int open_first(struct store *s, struct pg_db **ret, struct err *e)
{
    uint64_t deadline = deadline_in((long long)s->conf.wait_ms);
    int r = pg_db_open(s->url, deadline, ret, e);

    /* A server that answers and refuses us would go on refusing; one that starts would not. */
    if (r == -ERR_UNAVAILABLE && now_ms() < deadline && !pg_db_listening(s->url))
        return connect_by(s, deadline, ret, e);
    if (r == 0)
        pg_db_share(*ret, &s->unprepared);
    return r;
}

static int open_store(struct store *s, struct err *e)
{
    struct pg_db *db = NULL;
    struct pg_store *st;
    int r;

    if (s->conf.pool > POOL_MAX)
        s->conf.pool = POOL_MAX;
    r = open_first(s, &db, e);
    if (r == 0)
        r = migrate_database(s, &db, e);
    if (r < 0) {
        pg_db_close(db);
        return r;
    }
    st = xcalloc(1, sizeof(*st));
    st->s = s;
    st->first = db;
    st->workers = xcalloc(s->conf.pool, sizeof(*st->workers));
    for (unsigned i = 0; i < s->conf.pool; i++) {
        st->workers[i].st = st;
        store_cond_init(&st->workers[i].go);
    }
    store_cond_init(&st->late);
    s->impl = st;
    return 0;
}

static void close_store(struct store *s)
{
    struct pg_store *st = s->impl;

    pthread_mutex_lock(&s->lock);
    for (struct worker *w = st->idle; w; w = w->next_idle)
        pthread_cond_signal(&w->go);
    pthread_cond_signal(&st->late);
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < s->conf.pool; i++) {
        if (st->workers[i].started)
            (void)pthread_join(st->workers[i].thread, NULL);
        pthread_cond_destroy(&st->workers[i].go);
    }
    if (st->has_usher)
        (void)pthread_join(st->usher, NULL);
    pg_db_close(st->first);
    pthread_cond_destroy(&st->late);
    free(st->workers);
    free(st);
}

const struct store_ops store_pg_ops = {
    .kind = "postgres",
    .open = open_store,
    .submit = submit,
    .once = pg_once,
    .close = close_store,
};
