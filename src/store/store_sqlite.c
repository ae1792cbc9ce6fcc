/* SPDX-License-Identifier: MIT */
/*
 * SQLite as a store: one writer thread, and reader threads beside it that start when needed.
 *
 * The writer takes every transaction that waits, runs each inside a savepoint, and commits them
 * all at once: the fsync is shared, and while it runs the next batch gathers. The transactions of
 * a batch are told only after the commit. A reader has a connection of its own whose snapshot is
 * taken after the read was asked for, so whoever was told of a commit sees it.
 * A database in memory has one connection, so there the writer reads too.
 */
#include "store/store_int.h"

#include <string.h>
#include <unistd.h>

#include "store/migrate.h"
#include "store/sqlite_db.h"

#define BATCH           512  /* transactions in one commit */
#define READERS         4    /* threads at most */
#define CHECKPOINT_IDLE 1000 /* pages in the log that make an idle writer move them, */
#define CHECKPOINT_BUSY 2000 /* and a busy one */
#define WAL_FIRST       ((CHECKPOINT_IDLE + 24) * 4120LL) /* bytes of log made ready at the start */

struct sqlite_store {
    struct store *s;
    bool memory;
    struct sqlite_db *db; /* the writer's */
    pthread_t writer;
    pthread_cond_t write_ready, read_ready;
    struct store_jobs writes, reads;
    bool writer_waits;
    unsigned readers, max_readers, readers_waiting;
    pthread_t reader[READERS];
    atomic_bool damaged;
};

static int refuse_damaged(const struct sqlite_store *st, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE,
                   "the database file '%s' is damaged: stop the program and restore a backup",
                   st->s->target);
}

static void set_ok(struct sqlite_store *st, bool ok)
{
    atomic_store_explicit(&st->s->ok, ok, memory_order_relaxed);
}

/* The writer */

/* A batch under way: what ran, and whether the transaction that holds it is still there. */
struct batch {
    struct store_jobs ran;
    struct err why; /* of lost */
    bool lost;      /* the database gave the whole transaction up */
    bool trouble;   /* something failed for the database's own reasons */
    unsigned good;  /* transactions that wait for the commit */
};

static void lose(struct batch *b, const struct err *why)
{
    b->lost = true;
    b->trouble = true;
    b->why = *why;
}

/* The first of a batch needs no savepoint: undoing it undoes all there is. */
static int undo_first(struct sqlite_store *st, struct err *e)
{
    int r = sqlite_db_verb(st->db, VERB_ROLLBACK, e);

    return r < 0 ? r : sqlite_db_verb(st->db, VERB_BEGIN, e);
}

static int undo_one(struct sqlite_store *st, struct err *e)
{
    int r = sqlite_db_verb(st->db, VERB_UNDO, e);

    return r < 0 ? r : sqlite_db_verb(st->db, VERB_KEEP, e);
}

static void run_one(struct sqlite_store *st, struct batch *b, struct store_job *job)
{
    bool first = b->good == 0;
    struct err why = { 0 }, *e = job->e ? job->e : &why;
    int r = 0;

    store_jobs_push(&b->ran, job);
    if (b->lost || store_unwanted(job))
        return;
    if (!first)
        r = sqlite_db_verb(st->db, VERB_SAVE, &why);
    if (r == 0) {
        job->r = store_body_run(sqlite_db_tx(st->db), job->body, job->arg, e);
        if (job->r == -ERR_UNAVAILABLE)
            b->trouble = true;
        if (!sqlite_db_open_tx(st->db))
            r = err_set(&why, ERR_UNAVAILABLE, "%s", job->r < 0 ? e->msg : "transaction ended");
        else if (job->r >= 0)
            r = first ? 0 : sqlite_db_verb(st->db, VERB_KEEP, &why);
        else
            r = first ? undo_first(st, &why) : undo_one(st, &why);
        if (r == 0 && job->r >= 0)
            b->good++;
    }
    if (r < 0) {
        job->r = 0; /* it shares the fate of the others */
        lose(b, &why);
    }
}

static unsigned take(struct sqlite_store *st, struct store_jobs *ret, unsigned max)
{
    unsigned n = 0;

    pthread_mutex_lock(&st->s->lock);
    while (n < max && st->writes.first) {
        store_jobs_push(ret, store_jobs_shift(&st->writes));
        n++;
    }
    store_taken(st->s, n);
    pthread_mutex_unlock(&st->s->lock);
    return n;
}

static void settle(struct sqlite_store *st, struct batch *b)
{
    struct err why;

    if (!b->lost && sqlite_db_verb(st->db, VERB_COMMIT, &why) < 0)
        lose(b, &why);
    if (b->lost)
        sqlite_db_give_up(st->db);
    if (b->lost) {
        for (struct store_job *job = b->ran.first; job; job = job->next) {
            if (job->r >= 0)
                job->r = err_set(job->e, ERR_UNAVAILABLE, "nothing was written: %s", b->why.msg);
        }
    } else {
        store_probe_call(true);
        metric_add(&store_metric_commits, 0, 1);
    }
    if (sqlite_db_damaged(st->db))
        atomic_store(&st->damaged, true);
    set_ok(st, !b->trouble);
}

/* Run what is queued, and what arrives meanwhile, as one transaction of the database. */
static struct store_job *run_batch(struct sqlite_store *st)
{
    struct batch b = { 0 };
    struct store_jobs more = { 0 };
    struct store_job *job;
    struct err why;

    if (atomic_load(&st->damaged)) {
        (void)refuse_damaged(st, &why);
        lose(&b, &why);
    } else {
        store_probe_call(false);
        if (sqlite_db_verb(st->db, VERB_BEGIN, &why) < 0)
            lose(&b, &why);
    }
    while (b.ran.n < BATCH && take(st, &more, BATCH - b.ran.n) > 0) {
        while ((job = store_jobs_shift(&more)))
            run_one(st, &b, job);
    }
    settle(st, &b);
    return b.ran.first;
}

static void *write_all(void *arg)
{
    struct sqlite_store *st = arg;
    struct store *s = st->s;

    if (!st->memory)
        sqlite_db_extend_wal(st->db, WAL_FIRST);
    pthread_mutex_lock(&s->lock);
    for (;;) {
        int pages = sqlite_db_wal_pages(st->db);
        bool due = pages >= (st->writes.first ? CHECKPOINT_BUSY : CHECKPOINT_IDLE);

        if (due || st->writes.first) {
            pthread_mutex_unlock(&s->lock);
            if (due)
                sqlite_db_checkpoint(st->db);
            else
                store_finish(s, run_batch(st));
            pthread_mutex_lock(&s->lock);
            continue;
        }
        if (s->closing)
            break;
        st->writer_waits = true;
        pthread_cond_wait(&st->write_ready, &s->lock);
        st->writer_waits = false;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* The readers */

static void read_one(struct sqlite_store *st, struct sqlite_db *db, struct store_job *job)
{
    job->r = sqlite_db_verb(db, VERB_BEGIN_READ, job->e);
    if (job->r < 0)
        return;
    job->r = store_body_run(sqlite_db_tx(db), job->body, job->arg, job->e);
    sqlite_db_give_up(db);
    if (sqlite_db_damaged(db))
        atomic_store(&st->damaged, true);
    if (job->r == -ERR_UNAVAILABLE)
        set_ok(st, false);
}

static void serve_read(struct sqlite_store *st, struct sqlite_db **db, struct store_job *job)
{
    if (store_unwanted(job)) {
        store_finish(st->s, job);
        return;
    }
    job->r = atomic_load(&st->damaged) ? refuse_damaged(st, job->e) : 0;
    if (job->r == 0 && !*db) {
        job->r = sqlite_db_open(st->s->target, DB_READER, st->s->conf.wait_ms, db, job->e);
        if (job->r == 0)
            metric_add(&store_metric_connections, 0, 1);
    }
    if (job->r == 0)
        read_one(st, *db, job);
    store_finish(st->s, job);
}

static void *read_all(void *arg)
{
    struct sqlite_store *st = arg;
    struct store *s = st->s;
    struct sqlite_db *db = NULL;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct store_job *job = store_jobs_shift(&st->reads);

        if (job) {
            store_taken(s, 1);
            pthread_mutex_unlock(&s->lock);
            serve_read(st, &db, job);
            pthread_mutex_lock(&s->lock);
            continue;
        }
        if (s->closing)
            break;
        st->readers_waiting++;
        pthread_cond_wait(&st->read_ready, &s->lock);
        st->readers_waiting--;
    }
    pthread_mutex_unlock(&s->lock);
    if (db)
        metric_add(&store_metric_connections, 0, -1);
    sqlite_db_close(db);
    return NULL;
}

/* The backend */

static pthread_cond_t *submit(struct store *s, struct store_job *job)
{
    struct sqlite_store *st = s->impl;

    if (!job->read || st->memory) {
        store_jobs_push(&st->writes, job);
        return st->writer_waits ? &st->write_ready : NULL;
    }
    store_jobs_push(&st->reads, job);
    if (st->reads.n <= st->readers_waiting)
        return &st->read_ready;
    if (st->readers < st->max_readers) {
        st->reader[st->readers] = store_thread("store-read", read_all, st);
        st->readers++;
    }
    return NULL;
}

/* For migrate(): as a transaction of the writer, before there is a writer. */
static int run_alone(void *db, store_body *body, void *arg, struct err *e)
{
    int r = sqlite_db_verb(db, VERB_BEGIN, e), end;

    if (r < 0)
        return r;
    r = store_body_run(sqlite_db_tx(db), body, arg, e);
    if (r >= 0) {
        end = sqlite_db_verb(db, VERB_COMMIT, e);
        r = end < 0 ? end : r;
    }
    if (r < 0)
        sqlite_db_give_up(db);
    return r;
}

static int migrate_file(struct sqlite_store *st, struct err *e)
{
    const struct store_conf *conf = &st->s->conf;
    const struct migrate_db db = { st->s->target, MIGRATE_SQLITE, st->db, run_alone };
    int r;

    /* A migration may rebuild a table that others refer to: keys are checked at its end. */
    r = sqlite_db_verb(st->db, VERB_FK_OFF, e);
    if (r == 0)
        r = migrate(&db, conf->migrations, conf->n_migrations, e);
    if (r == 0)
        r = sqlite_db_verb(st->db, VERB_FK_ON, e);
    return r;
}

static int open_store(struct store *s, struct err *e)
{
    struct sqlite_store *st = xcalloc(1, sizeof(*st));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int r;

    st->s = s;
    st->memory = strcmp(s->target, ":memory:") == 0;
    st->max_readers = s->conf.pool < READERS ? s->conf.pool : READERS;
    if (cores > 0 && st->max_readers > (unsigned long)cores)
        st->max_readers = (unsigned)cores;
    r = sqlite_db_open(s->target, DB_WRITER, s->conf.wait_ms, &st->db, e);
    if (r == 0)
        r = migrate_file(st, e);
    if (r < 0) {
        sqlite_db_close(st->db);
        free(st);
        return r;
    }
    (void)pthread_cond_init(&st->write_ready, NULL);
    (void)pthread_cond_init(&st->read_ready, NULL);
    s->impl = st;
    metric_add(&store_metric_connections, 0, 1);
    st->writer = store_thread("store-write", write_all, st);
    return 0;
}

static void close_store(struct store *s)
{
    struct sqlite_store *st = s->impl;

    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&st->write_ready);
    pthread_cond_broadcast(&st->read_ready);
    pthread_mutex_unlock(&s->lock);
    (void)pthread_join(st->writer, NULL);
    for (unsigned i = 0; i < st->readers; i++)
        (void)pthread_join(st->reader[i], NULL);
    sqlite_db_close(st->db);
    metric_add(&store_metric_connections, 0, -1);
    pthread_cond_destroy(&st->write_ready);
    pthread_cond_destroy(&st->read_ready);
    free(st);
}

const struct store_ops store_sqlite_ops = {
    .kind = "sqlite",
    .open = open_store,
    .submit = submit,
    .close = close_store,
};
