/* SPDX-License-Identifier: MIT */
/*
 * durable/manage.c — cancel, delete and recover: what is done to many workflows at once, and what
 * the other files of management share.
 *
 * Everything goes in batches of their own transactions, so that a large family of workflows holds
 * up nobody. A batch that was committed stays done when a later one fails.
 */
#include "durable/manage.h"

#include <assert.h>

#include "durable/manage_int.h"

/* clang-format off */
static const struct sql sql_status_lock = {
    "manage status lock",
    "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1",
    "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1 FOR UPDATE",
};

/* ?1 ids, ?2 the last child of the page before. By the index on parents, whatever is believed of
 * walking all ids in order. */
#define CHILDREN(in) "WITH c AS MATERIALIZED (SELECT workflow_uuid FROM dbos.workflow_status" \
    " WHERE parent_workflow_id IS NOT NULL AND parent_workflow_id " in ")" \
    " SELECT workflow_uuid FROM c WHERE workflow_uuid > ?2 ORDER BY workflow_uuid LIMIT 500"
static const struct sql sql_children = {
    "manage children", CHILDREN(IN_LIST(1)), CHILDREN(IN_LIST_PG(1)),
};

/* ?1 ids, ?2 now. */
#define CANCEL "UPDATE dbos.workflow_status SET status = 'CANCELLED', owner_xid = NULL," \
    " queue_name = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL," \
    " completed_at = ?2, updated_at = ?2 WHERE workflow_uuid "
static const struct sql sql_cancel = {
    "manage cancel",
    CANCEL IN_LIST(1) " AND status IN " SQL_ACTIVE " RETURNING workflow_uuid",
    CANCEL IN_LIST_PG(1) " AND status IN " SQL_ACTIVE " RETURNING workflow_uuid",
};
static const struct sql sql_unpark = {
    "manage unpark",
    "DELETE FROM durable_parked WHERE workflow_uuid " IN_LIST(1),
    "DELETE FROM durable_parked WHERE workflow_uuid " IN_LIST_PG(1),
};

/* ?1 ids: those that somebody is parked for. */
static const struct sql sql_awaited = {
    "manage awaited",
    "SELECT DISTINCT target FROM durable_parked WHERE kind = 'result' AND target " IN_LIST(1),
    "SELECT DISTINCT target FROM durable_parked WHERE kind = 'result' AND target " IN_LIST_PG(1),
};

/* ?1 ids, ?2 whatever their status. */
#define DELETABLE " AND (?2 = 1 OR status IN " SQL_ENDED ")"
static const struct sql sql_deletable = {
    "manage deletable",
    "SELECT workflow_uuid FROM dbos.workflow_status WHERE workflow_uuid " IN_LIST(1) DELETABLE,
    "SELECT workflow_uuid FROM dbos.workflow_status WHERE workflow_uuid " IN_LIST_PG(1) DELETABLE
    " ORDER BY workflow_uuid FOR UPDATE",
};
/* The rest goes with the row: foreign keys. */
#define DELETE_FROM(table) { "manage delete " table, \
    "DELETE FROM dbos." table " WHERE workflow_uuid " IN_LIST(1), \
    "DELETE FROM dbos." table " WHERE workflow_uuid " IN_LIST_PG(1) }
static const struct sql sql_delete[] = {
    DELETE_FROM("workflow_input"),
    DELETE_FROM("workflow_output"),
    DELETE_FROM("operation_outputs"),
    DELETE_FROM("workflow_status"),
};

/* ?1 executors, ?2 now, ?3 ourselves. */
#define RECOVER "UPDATE dbos.workflow_status SET status = 'ENQUEUED', owner_xid = NULL," \
    " started_at_epoch_ms = NULL, updated_at = ?2," \
    " queue_name = COALESCE(queue_name, '" DURABLE_INTERNAL_QUEUE "')" \
    " WHERE status = 'PENDING' AND workflow_uuid IN (SELECT workflow_uuid" \
    "  FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id <> ?3 AND executor_id "
static const struct sql sql_recover = {
    "manage recover",
    RECOVER IN_LIST(1) " LIMIT 500) RETURNING workflow_uuid",
    RECOVER IN_LIST_PG(1) " LIMIT 500 FOR UPDATE SKIP LOCKED) RETURNING workflow_uuid",
};

/* ?1 created before. */
static const struct sql sql_active_before = {
    "manage active before",
    "SELECT workflow_uuid FROM dbos.workflow_status WHERE created_at < ?1"
    " AND status IN " SQL_ACTIVE " ORDER BY created_at LIMIT 500",
};
/* clang-format on */

/* --- shared --- */

struct sql_arg list_arg(struct arena *a, const struct str *list, size_t n)
{
    struct buf b;
    struct str text;
    int r = 0;

    if (n == 0)
        return SQL_NULL;
    buf_init(&b, SIZE_MAX / 2);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = buf_add_z(&b, i ? "," : "[", NULL);
        if (r == 0)
            r = json_write_str(&b, list[i], NULL);
    }
    if (r == 0)
        r = buf_add_z(&b, "]", NULL);
    assert(r == 0); /* it has no bound but memory */
    text = arena_str(a, buf_str(&b));
    buf_done(&b);
    return SQL_STR(text);
}

void ids_add(struct ids *ids, struct str id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        struct str *v = arena_raw(ids->arena, cap * sizeof(*v));

        if (ids->n)
            memcpy(v, ids->v, ids->n * sizeof(*v));
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = arena_str(ids->arena, id);
}

int ids_row(struct store_row *row, void *ids, struct err *e)
{
    ids_add(ids, row_str(row, 0));
    return 0;
}

void tell_queue(struct durable *d, struct str queue)
{
    if (d->running)
        queue_poke(d, queue);
    notify_others(d, NOTIFY_QUEUE, queue);
}

void tell_ended(struct durable *d, const struct str *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        wake_waiters(d, WAIT_RESULT, ids[i], (struct str){ 0 });
        notify_others(d, NOTIFY_RESULTS, ids[i]);
    }
}

struct status_row {
    enum durable_status status;
    bool found;
};

static int status_row(struct store_row *row, void *arg, struct err *e)
{
    struct status_row *got = arg;

    got->found = true;
    return durable_status_parse(row_str(row, 0), &got->status, e);
}

int status_lock_tx(struct store_tx *tx, struct str id, enum durable_status *ret, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(id) };
    struct status_row got = { 0 };
    int r = store_run(tx, &sql_status_lock, args, LEN(args), status_row, &got, e);

    if (r < 0)
        return r;
    if (!got.found)
        return err_set(e, ERR_NOT_FOUND, "workflow '" STR_FMT "' does not exist",
                       id.n > 100 ? 100 : (int)id.n, id.p);
    *ret = got.status;
    return 0;
}

/* --- families --- */

#define FAMILY_MAX 1000000

struct children_args {
    struct sql_arg args[2];
    struct ids *ids;
    size_t n_before;
};

static int children_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct children_args *c = arg;

    c->ids->n = c->n_before;
    return store_run(tx, &sql_children, c->args, LEN(c->args), ids_row, c->ids, e);
}

/* Add the children of some to ids, a page at a time. */
static CO int add_children(struct durable *d, const struct str *parents, size_t n, struct ids *ids,
                           struct err *e)
{
    struct children_args c = { .ids = ids };
    int r;

    c.args[0] = list_arg(ids->arena, parents, n);
    c.args[1] = SQL_STR(STR(""));
    for (;;) {
        c.n_before = ids->n;
        r = store_read(d->store, children_body, &c, e);
        if (r < 0 || ids->n - c.n_before < 500)
            return r;
        if (ids->n > FAMILY_MAX)
            return err_set(e, ERR_LIMIT, "more than %d descendants", FAMILY_MAX);
        c.args[1] = SQL_STR(ids->v[ids->n - 1]);
    }
}

static CO int walk_ids(struct durable *d, struct ids *ids, bool children, CO walk_fn *do_batch,
                       void *arg, int64_t *sum, struct err *e)
{
    size_t at = 0;
    int r = 0;

    while (r == 0 && at < ids->n) {
        size_t n = ids->n - at < MANAGE_BATCH ? ids->n - at : MANAGE_BATCH;
        int64_t done = 0;
        const struct str *batch = ids->v + at; /* stays when ids grow: the arena's */

        r = do_batch(d, batch, n, arg, &done, e);
        *sum += r == 0 ? done : 0;
        if (r == 0 && children)
            r = add_children(d, batch, n, ids, e);
        at += n;
        if (r == 0 && at < ids->n)
            r = fiber_yield(e);
    }
    return r;
}

CO int walk(struct durable *d, const struct str *given, size_t n, bool children,
            CO walk_fn *do_batch, void *arg, int64_t *ret_n, struct err *e)
{
    struct arena a = { 0 };
    struct ids ids = { .arena = &a };
    int64_t sum = 0;
    int r;

    for (size_t i = 0; i < n; i++)
        ids_add(&ids, given[i]);
    r = walk_ids(d, &ids, children, do_batch, arg, &sum, e);
    arena_done(&a);
    if (r == 0)
        *ret_n = sum;
    return r;
}

/* --- cancel --- */

struct batch { /* of one transaction */
    struct durable *d;
    struct sql_arg ids, now;
    int64_t force;
    struct arena arena;
    struct ids hit, awaited;
    int n_unparked;
};

static void batch_reset(struct batch *b)
{
    b->hit.arena = b->awaited.arena = &b->arena;
    b->hit.n = b->awaited.n = 0;
    b->n_unparked = 0;
}

/* Those parked for the result of one of these may look. hit: the ids as an argument. */
static int unpark_all_tx(struct store_tx *tx, struct batch *b, const struct sql_arg *hit,
                         struct err *e)
{
    int r = store_run(tx, &sql_awaited, hit, 1, ids_row, &b->awaited, e), n = 0;

    for (size_t i = 0; r == 0 && i < b->awaited.n; i++, n = 0) {
        r = unpark_tx(tx, WAIT_RESULT, b->awaited.v[i], (struct str){ 0 }, &n, e);
        b->n_unparked += n;
    }
    return r;
}

static int cancel_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch *b = arg;
    const struct sql_arg args[] = { b->ids, b->now };
    struct sql_arg hit;
    int r;

    batch_reset(b);
    r = store_run(tx, &sql_cancel, args, LEN(args), ids_row, &b->hit, e);
    if (r < 0 || b->hit.n == 0)
        return r;
    hit = list_arg(&b->arena, b->hit.v, b->hit.n);
    r = store_run(tx, &sql_unpark, &hit, 1, NULL, NULL, e);
    return r < 0 ? r : unpark_all_tx(tx, b, &hit, e);
}

/* After the commit: runs here are ended, others hear of it. */
static void batch_tell(struct durable *d, struct batch *b, enum run_end why)
{
    for (size_t i = 0; i < b->hit.n; i++) {
        struct workflow *w = run_find(d, b->hit.v[i]);

        if (w)
            run_end_now(w, why);
        else
            notify_others(d, NOTIFY_CANCEL, b->hit.v[i]);
    }
    tell_ended(d, b->hit.v, b->hit.n);
    if (b->hit.n || b->n_unparked)
        tell_queue(d, (struct str){ 0 });
}

static CO int cancel_batch(struct durable *d, const struct str *ids, size_t n, void *arg,
                           int64_t *ret_n, struct err *e)
{
    struct batch b = { .d = d, .now = SQL_INT(clock_ms(d)) };
    int r;

    b.ids = list_arg(&b.arena, ids, n);
    r = store_do(d->store, cancel_body, &b, e);
    if (r == 0) {
        batch_tell(d, &b, RUN_CANCELLED);
        *ret_n = (int64_t)b.hit.n;
    }
    arena_done(&b.arena);
    return r;
}

CO int durable_cancel(struct durable *d, const struct str *ids, size_t n, bool children,
                      int64_t *ret_n, struct err *e)
{
    return walk(d, ids, n, children, cancel_batch, NULL, ret_n, e);
}

struct before {
    struct sql_arg cutoff;
    struct ids ids;
};

static int before_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct before *b = arg;

    b->ids.n = 0;
    return store_run(tx, &sql_active_before, &b->cutoff, 1, ids_row, &b->ids, e);
}

CO int durable_cancel_before(struct durable *d, int64_t created_before_ms, int64_t *ret_n,
                             struct err *e)
{
    int64_t sum = 0, n = 0;
    size_t found;
    int r;

    do {
        struct arena a = { 0 };
        struct before b = { SQL_INT(created_before_ms), { .arena = &a } };

        r = store_read(d->store, before_body, &b, e);
        found = b.ids.n;
        if (r == 0 && found)
            r = cancel_batch(d, b.ids.v, found, NULL, &n, e);
        sum += r == 0 && found ? n : 0;
        arena_done(&a);
    } while (r == 0 && found && n > 0);
    if (r == 0)
        *ret_n = sum;
    return r;
}

/* --- delete --- */

static int delete_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch *b = arg;
    const struct sql_arg args[] = { b->ids, SQL_INT(b->force) };
    struct sql_arg hit;
    int r;

    batch_reset(b);
    r = store_run(tx, &sql_deletable, args, LEN(args), ids_row, &b->hit, e);
    if (r < 0 || b->hit.n == 0)
        return r;
    hit = list_arg(&b->arena, b->hit.v, b->hit.n);
    r = store_run(tx, &sql_unpark, &hit, 1, NULL, NULL, e);
    for (size_t i = 0; r == 0 && i < LEN(sql_delete); i++)
        r = store_run(tx, &sql_delete[i], &hit, 1, NULL, NULL, e);
    return r < 0 ? r : unpark_all_tx(tx, b, &hit, e);
}

CO int delete_batch(struct durable *d, const struct str *ids, size_t n, bool force, int64_t *ret_n,
                    struct err *e)
{
    struct batch b = { .d = d, .force = force };
    int r;

    b.ids = list_arg(&b.arena, ids, n);
    r = store_do(d->store, delete_body, &b, e);
    if (r == 0) {
        if (force)
            batch_tell(d, &b, RUN_LOST);
        else
            tell_ended(d, b.hit.v, b.hit.n);
        *ret_n = (int64_t)b.hit.n;
    }
    arena_done(&b.arena);
    return r;
}

static CO int delete_walk(struct durable *d, const struct str *ids, size_t n, void *arg,
                          int64_t *ret_n, struct err *e)
{
    return delete_batch(d, ids, n, *(bool *)arg, ret_n, e);
}

CO int durable_delete(struct durable *d, const struct str *ids, size_t n, bool children, bool force,
                      int64_t *ret_n, struct err *e)
{
    return walk(d, ids, n, children, delete_walk, &force, ret_n, e);
}

/* --- recover --- */

struct recover {
    struct sql_arg args[3];
    struct ids ids;
    size_t n_before;
};

static int recover_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct recover *rec = arg;

    rec->ids.n = rec->n_before;
    return store_run(tx, &sql_recover, rec->args, LEN(rec->args), ids_row, &rec->ids, e);
}

CO int durable_recover(struct durable *d, const struct str *executors, size_t n, struct arena *a,
                       struct str **ret_ids, size_t *ret_n, struct err *e)
{
    struct recover rec = { .ids.arena = a };
    int r = 0;

    rec.args[0] = list_arg(a, executors, n);
    rec.args[1] = SQL_INT(clock_ms(d));
    rec.args[2] = SQL_STR(str_of(d->executor));
    while (n > 0) {
        rec.n_before = rec.ids.n;
        r = store_do(d->store, recover_body, &rec, e);
        if (r < 0)
            return r;
        if (rec.ids.n == rec.n_before)
            break;
        tell_queue(d, (struct str){ 0 });
    }
    *ret_ids = rec.ids.v;
    *ret_n = rec.ids.n;
    return 0;
}
