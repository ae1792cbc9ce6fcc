/* SPDX-License-Identifier: MIT */
/*
 * The front of the store: choosing a backend, queueing a transaction and parking its fiber,
 * handing results back, and what both backends do alike inside a transaction.
 */
#include "store/store.h"

#include <assert.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "store/store_int.h"

#define READ_LOOK_MS (60 * 60 * 1000)

struct metric store_metric_seconds = {
    .name = "chela_store_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "Time from asking for a transaction until it was durable (or read).",
    .label = "kind",
    .values = { "write", "read" },
};
struct metric store_metric_failed = {
    .name = "chela_store_failed_total",
    .kind = METRIC_COUNTER,
    .help = "Transactions that failed, for whatever reason.",
    .label = "kind",
    .values = { "write", "read" },
};
struct metric store_metric_batch = {
    .name = "chela_store_transactions_total",
    .kind = METRIC_COUNTER,
    .help = "Transactions handed to the database.",
    .label = "kind",
    .values = { "write", "read" },
};
struct metric store_metric_commits = {
    .name = "chela_store_commits_total",
    .kind = METRIC_COUNTER,
    .help = "Commits that reached the disk; on SQLite many transactions share one.",
};
struct metric store_metric_retries = {
    .name = "chela_store_retries_total",
    .kind = METRIC_COUNTER,
    .help = "Transactions run again after a conflict or a lost connection.",
};
struct metric store_metric_waiting = {
    .name = "chela_store_waiting",
    .kind = METRIC_GAUGE,
    .help = "Transactions waiting for a thread of the store.",
};
struct metric store_metric_connections = {
    .name = "chela_store_connections",
    .kind = METRIC_GAUGE,
    .help = "Open connections to the database.",
};

struct metric *const store_metrics[] = {
    &store_metric_seconds, &store_metric_batch,   &store_metric_commits,     &store_metric_failed,
    &store_metric_retries, &store_metric_waiting, &store_metric_connections,
};
const size_t store_metrics_len = LEN(store_metrics);

void (*store_probe)(bool committed);

/* Jobs and their threads */

void store_jobs_push(struct store_jobs *q, struct store_job *job)
{
    job->next = NULL;
    if (!q->first)
        q->last = &q->first;
    *q->last = job;
    q->last = &job->next;
    q->n++;
}

struct store_job *store_jobs_shift(struct store_jobs *q)
{
    struct store_job *job = q->first;

    if (!job)
        return NULL;
    q->first = job->next;
    q->n--;
    job->next = NULL;
    return job;
}

pthread_t store_thread(const char *name, void *(*fn)(void *arg), void *arg)
{
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int r;

    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STORE_STACK);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
    r = pthread_create(&thread, &attr, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    if (r != 0) {
        log_error("cannot start a thread of the store", "error", LOG_STR(strerror(r)));
        abort();
    }
    (void)pthread_setname_np(thread, name); /* only for people */
    return thread;
}

void store_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

struct timespec store_time_in(uint64_t us)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(us / 1000000);
    t.tv_nsec += (long)(us % 1000000) * 1000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static void account(const struct store_job *job)
{
    unsigned kind = job->read ? STORE_READ : STORE_WRITE;

    metric_observe(&store_metric_seconds, kind, (int64_t)(now_us() - job->since_us));
    metric_add(&store_metric_batch, kind, 1);
    if (job->r < 0)
        metric_add(&store_metric_failed, kind, 1);
}

/* On the loop's thread: all fibers of one commit. */
static void wake(void *arg)
{
    struct store_job *next;

    for (struct store_job *job = arg; job; job = next) {
        next = job->next; /* the job is gone once its fiber runs */
        job->done = true;
        fiber_wake(job->fiber);
    }
}

void store_finish(struct store *s, struct store_job *jobs)
{
    struct store_jobs fibers = { 0 }, threads = { 0 };
    struct store_job *next;

    for (struct store_job *job = jobs; job; job = next) {
        next = job->next;
        account(job);
        store_jobs_push(job->fiber ? &fibers : &threads, job);
    }
    if (threads.first) {
        pthread_mutex_lock(&s->lock);
        for (struct store_job *job = threads.first; job; job = job->next)
            job->done = true;
        pthread_cond_broadcast(&s->done_now);
        pthread_mutex_unlock(&s->lock);
    }
    if (fibers.first)
        loop_post(s->loop, wake, fibers.first);
}

/* Inside a transaction */

static int check_text(const struct sql *sql, size_t i, struct str s, struct err *e)
{
    if (!s.p || s.n == 0)
        return 0;
    if (memchr(s.p, 0, s.n))
        return err_set(e, ERR_INVALID, "%s: text %zu holds a NUL", sql->name, i + 1);
    if (!utf8_valid(s.p, s.n))
        return err_set(e, ERR_INVALID, "%s: text %zu is not UTF-8", sql->name, i + 1);
    return 0;
}

int store_check_args(const struct sql *sql, const struct sql_arg *args, size_t n, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        if (args[i].kind == SQL_K_TEXT)
            r = check_text(sql, i, args[i].s, e);
        for (size_t k = 0; r == 0 && args[i].kind == SQL_K_TEXTS && k < args[i].n; k++)
            r = check_text(sql, i, args[i].texts[k], e);
    }
    return r;
}

int store_run(struct store_tx *tx, const struct sql *sql, const struct sql_arg *args, size_t n_args,
              int (*each)(struct store_row *row, void *arg, struct err *e), void *arg,
              struct err *e)
{
    struct err why = { 0 };
    int r;

    if (tx->failed) {
        if (e)
            *e = tx->why;
        return -(int)tx->why.code;
    }
    tx->changed = 0;
    r = store_check_args(sql, args, n_args, &why);
    if (r == 0)
        r = tx->run(tx, sql, args, n_args, each, arg, &why);
    if (r < 0) {
        if (!why.code)
            (void)err_set(&why, (enum err_code)(-r), "%s: a row was refused", sql->name);
        tx->failed = true;
        tx->why = why;
        if (e)
            *e = why;
    }
    return r;
}

int64_t store_changed(const struct store_tx *tx)
{
    return tx->changed;
}

int store_body_run(struct store_tx *tx, store_body *body, void *arg, struct err *e)
{
    struct err why = { 0 };
    int r;

    tx->failed = false;
    tx->changed = 0;
    r = body(tx, arg, &why);
    if (r >= 0 && tx->failed) { /* the body looked away; the database did not */
        why = tx->why;
        r = -(int)tx->why.code;
    }
    if (r < 0 && e)
        *e = why;
    return r;
}

enum sql_kind row_kind(const struct store_row *row, int col)
{
    return row->kind(row, col);
}

int64_t row_int(const struct store_row *row, int col)
{
    return row->integer(row, col);
}

double row_real(const struct store_row *row, int col)
{
    return row->real(row, col);
}

struct str row_str(const struct store_row *row, int col)
{
    return row->str(row, col);
}

bool row_is_null(const struct store_row *row, int col)
{
    return row->kind(row, col) == SQL_K_NULL;
}

/* The door */

static int pick_backend(struct store *s, struct err *e)
{
    struct str url = str_of(s->url);

    if (str_starts(url, STR("sqlite:"))) {
        s->ops = &store_sqlite_ops;
        s->target = s->url + strlen("sqlite:");
    } else if (str_starts(url, STR("postgres://")) || str_starts(url, STR("postgresql://"))) {
        s->ops = &store_pg_ops;
        s->target = s->url;
    } else {
        return err_set(e, ERR_INVALID,
                       "a store is named by sqlite:PATH or postgres://..., not by what is given");
    }
    if (!*s->target)
        return err_set(e, ERR_INVALID, "'sqlite:' names no file");
    return 0;
}

static void drop(struct store *s)
{
    pthread_cond_destroy(&s->done_now);
    pthread_mutex_destroy(&s->lock);
    free(s->url);
    free(s);
}

int store_open(struct loop *loop, const struct store_conf *conf, struct store **ret, struct err *e)
{
    struct store *s = xcalloc(1, sizeof(*s));
    int r;

    s->loop = loop;
    s->conf = *conf;
    s->url = xstrdup(conf->url);
    s->conf.url = s->url;
    if (s->conf.pool == 0)
        s->conf.pool = STORE_POOL;
    if (s->conf.wait_ms == 0)
        s->conf.wait_ms = STORE_WAIT_MS;
    if (s->conf.queue == 0)
        s->conf.queue = STORE_QUEUE;
    (void)pthread_mutex_init(&s->lock, NULL);
    store_cond_init(&s->done_now);
    atomic_init(&s->ok, true);

    r = pick_backend(s, e);
    if (r == 0)
        r = s->ops->open(s, e);
    if (r < 0) {
        drop(s);
        return r;
    }
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_mutex_unlock(&s->lock);
    s->ops->close(s);
    drop(s);
}

static pthread_cond_t *accept_job(struct store *s, struct store_job *job)
{
    s->waiting++;
    metric_add(&store_metric_waiting, 0, 1);
    return s->ops->submit(s, job);
}

void store_taken(struct store *s, unsigned n)
{
    s->waiting -= n;
    metric_add(&store_metric_waiting, 0, -(int64_t)n);
}

/* Queue the job, or say why not. */
static int submit(struct store *s, struct store_job *job)
{
    pthread_cond_t *idle = NULL;
    int r = 0;

    job->since_us = now_us();
    pthread_mutex_lock(&s->lock);
    if (s->closing)
        r = err_set(job->e, ERR_UNAVAILABLE, "the database is being closed");
    else if (s->waiting >= s->conf.queue)
        r = err_set(job->e, ERR_UNAVAILABLE, "%u transactions wait for the database already",
                    s->waiting);
    else
        idle = accept_job(s, job);
    pthread_mutex_unlock(&s->lock);
    if (idle)
        pthread_cond_signal(idle);
    return r;
}

bool store_unwanted(struct store_job *job)
{
    if (!atomic_load_explicit(&job->unwanted, memory_order_relaxed))
        return false;
    job->r = err_set(job->e, ERR_CANCELED, "nobody waits for it any more");
    return true;
}

/*
 * A write that was asked for is done, so its wait is blind to cancelling. A read may be dropped as
 * long as its turn has not come; the deadline is only there to keep the loop turning.
 */
static CO void wait_done(struct store_job *job)
{
    while (job->read && !job->done) {
        if (fiber_park(deadline_in(READ_LOOK_MS), NULL) == -ERR_CANCELED) {
            atomic_store_explicit(&job->unwanted, true, memory_order_relaxed);
            break;
        }
    }
    while (!job->done)
        fiber_park_hard();
}

static CO int run_parked(struct store *s, struct store_job *job)
{
    int r;

    job->fiber = fiber_self();
    assert(job->fiber && s->loop);
    r = submit(s, job);
    if (r < 0)
        return r;
    wait_done(job);
    return job->r;
}

CO int store_do(struct store *s, store_body *body, void *arg, struct err *e)
{
    struct store_job job = { .body = body, .arg = arg, .e = e };

    return run_parked(s, &job);
}

static int single_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct store_single *one = arg;

    return store_run(tx, one->sql, one->args, one->n_args, one->each, one->arg, e);
}

CO int store_once(struct store *s, const struct sql *sql, const struct sql_arg *args, size_t n_args,
                  int (*each)(struct store_row *row, void *arg, struct err *e), void *arg,
                  struct err *e)
{
    struct store_single one = { sql, args, n_args, each, arg };
    struct store_job job = { .body = single_body, .arg = &one, .e = e, .single = true };

    job.since_us = now_us();
    if (s->ops->once && s->ops->once(s, &one, &job.r, e) > 0) {
        account(&job);
        return job.r;
    }
    return run_parked(s, &job);
}

CO int store_read(struct store *s, store_body *body, void *arg, struct err *e)
{
    struct store_job job = { .body = body, .arg = arg, .e = e, .read = true };

    return run_parked(s, &job);
}

int store_do_now(struct store *s, store_body *body, void *arg, struct err *e)
{
    struct store_job job = { .body = body, .arg = arg, .e = e };
    int r = submit(s, &job);

    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    while (!job.done)
        pthread_cond_wait(&s->done_now, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return job.r;
}

static const struct sql sql_ping = { "ping", "SELECT 1", NULL };
static const struct sql sql_touch = {
    "touch",
    "UPDATE " STORE_MIGRATIONS_TABLE " SET name = name WHERE version = "
    "(SELECT min(version) FROM " STORE_MIGRATIONS_TABLE ")",
    NULL,
};

static int ping_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_exec(tx, &sql_ping, e);
}

static int touch_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_exec(tx, &sql_touch, e);
}

CO int store_ping(struct store *s, struct err *e)
{
    if (store_ok(s))
        return store_read(s, ping_body, NULL, e);
    return store_do(s, touch_body, NULL, e);
}

bool store_ok(const struct store *s)
{
    return atomic_load_explicit(&s->ok, memory_order_relaxed);
}

bool store_unsure(const struct err *e)
{
    return e->code == ERR_UNAVAILABLE && strstr(e->msg, STORE_UNSURE);
}

const char *store_kind(const struct store *s)
{
    return s->ops->kind;
}
