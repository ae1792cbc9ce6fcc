/* SPDX-License-Identifier: MIT */
/*
 * durable/manage_stat.c — the state of the whole, and of the queues.
 */
#include "durable/manage_int.h"

#define QUEUES_LISTED 10000
#define STUCK_MS      60000 /* nobody looks at it for so long */

/* clang-format off */
static const struct sql sql_statuses = {
    "manage statuses",
    "SELECT status, COUNT(*), MIN(created_at) FROM dbos.workflow_status GROUP BY status",
};
/* ?1 now, ?2 now less STUCK_MS. Of the active: rows of a version that nobody runs; rows whose
 * executor is dead, and rows in a queue that does not exist. */
static const struct sql sql_counts = {
    "manage counts",
    "SELECT (SELECT COUNT(*) FROM durable_parked),"
    " (SELECT COUNT(*) FROM durable_executors WHERE lease_until_ms > ?1),"
    " (SELECT COUNT(*) FROM dbos.workflow_status w WHERE w.status IN " SQL_ACTIVE
    "  AND w.application_version IS NOT NULL"
    "  AND (w.status <> 'PENDING' OR w.executor_id LIKE 'chela-%')"
    "  AND NOT EXISTS (SELECT 1 FROM durable_executors x"
    "   WHERE x.app_version = w.application_version AND x.draining = 0"
    "   AND x.lease_until_ms > ?1)),"
    " (SELECT COUNT(*) FROM dbos.workflow_status w WHERE w.status = 'PENDING'"
    "  AND w.updated_at < ?2 AND w.executor_id LIKE 'chela-%'"
    "  AND NOT EXISTS (SELECT 1 FROM durable_executors x WHERE x.executor_id = w.executor_id"
    "   AND x.lease_until_ms > ?2))"
    " + (SELECT COUNT(*) FROM dbos.workflow_status w WHERE w.status = 'ENQUEUED'"
    "  AND w.updated_at < ?2 AND w.queue_name <> '" DURABLE_INTERNAL_QUEUE "'"
    "  AND NOT EXISTS (SELECT 1 FROM dbos.queues q WHERE q.name = w.queue_name))",
};

static const struct sql sql_queues = {
    "manage queues",
    "SELECT q.name, q.concurrency, q.worker_concurrency, q.rate_limit_max,"
    " q.partition_concurrency, q.partition_worker_concurrency, q.partition_rate_limit_max,"
    " q.rate_limit_period_sec, q.partition_rate_limit_period_sec, q.polling_interval_sec,"
    " COALESCE(h.hold_slot, 0) FROM dbos.queues q LEFT JOIN durable_queues h ON h.name = q.name"
    " ORDER BY q.name LIMIT 10000",
};
static const struct sql sql_queue_load = {
    "manage queue load",
    "SELECT queue_name, SUM(CASE WHEN status = 'ENQUEUED' THEN 1 ELSE 0 END),"
    " SUM(CASE WHEN status = 'DELAYED' THEN 1 ELSE 0 END),"
    " SUM(CASE WHEN status = 'PENDING' THEN 1 ELSE 0 END),"
    " MIN(CASE WHEN status = 'ENQUEUED' THEN created_at END) FROM dbos.workflow_status"
    " WHERE status IN " SQL_ACTIVE " AND queue_name IS NOT NULL GROUP BY queue_name"
    " ORDER BY queue_name LIMIT 10000",
};

/* ?1 id, ?2 name, ?3 concurrency, ?4 worker, ?5 rate, ?6 its period, ?7 to ?10 of a partition,
 * ?11 polling, ?12 now, ?13 it is partitioned. */
static const struct sql sql_queue_put = {
    "manage queue put",
    "INSERT INTO dbos.queues (queue_id, name, concurrency, worker_concurrency, rate_limit_max,"
    " rate_limit_period_sec, priority_enabled, partition_queue, polling_interval_sec, created_at,"
    " updated_at, partition_concurrency, partition_worker_concurrency, partition_rate_limit_max,"
    " partition_rate_limit_period_sec) VALUES (?1, ?2, CAST(?3 AS INTEGER), CAST(?4 AS INTEGER),"
    " CAST(?5 AS INTEGER), CAST(?6 AS DOUBLE PRECISION), TRUE, ?13 = 1, ?11, ?12, ?12,"
    " CAST(?7 AS INTEGER), CAST(?8 AS INTEGER), CAST(?9 AS INTEGER),"
    " CAST(?10 AS DOUBLE PRECISION)) ON CONFLICT (name) DO UPDATE SET"
    " concurrency = excluded.concurrency, worker_concurrency = excluded.worker_concurrency,"
    " rate_limit_max = excluded.rate_limit_max,"
    " rate_limit_period_sec = excluded.rate_limit_period_sec,"
    " partition_queue = excluded.partition_queue,"
    " polling_interval_sec = excluded.polling_interval_sec, updated_at = excluded.updated_at,"
    " partition_concurrency = excluded.partition_concurrency,"
    " partition_worker_concurrency = excluded.partition_worker_concurrency,"
    " partition_rate_limit_max = excluded.partition_rate_limit_max,"
    " partition_rate_limit_period_sec = excluded.partition_rate_limit_period_sec",
};
static const struct sql sql_queue_hold = {
    "manage queue hold",
    "INSERT INTO durable_queues (name, hold_slot) VALUES (?1, ?2)"
    " ON CONFLICT (name) DO UPDATE SET hold_slot = excluded.hold_slot",
};
static const struct sql sql_queue_unhold = {
    "manage queue unhold", "DELETE FROM durable_queues WHERE name = ?1",
};
static const struct sql sql_queue_remove = {
    "manage queue remove", "DELETE FROM dbos.queues WHERE name = ?1",
};
/* clang-format on */

/* --- overview --- */

struct overview {
    int64_t now;
    struct durable_overview *ret;
};

static int statuses_row(struct store_row *row, void *arg, struct err *e)
{
    struct overview *o = arg;
    enum durable_status status;
    struct err ignored;

    if (durable_status_parse(row_str(row, 0), &status, &ignored) < 0)
        return 0; /* of a very old release: not ours to count */
    o->ret->by_status[status].n = row_int(row, 1);
    o->ret->by_status[status].oldest_ms = row_int(row, 2);
    return 0;
}

static int counts_row(struct store_row *row, void *arg, struct err *e)
{
    struct overview *o = arg;

    o->ret->parked = row_int(row, 0);
    o->ret->executors = (unsigned)row_int(row, 1);
    o->ret->blocked_version = row_int(row, 2);
    o->ret->stuck = row_int(row, 3);
    return 0;
}

static int overview_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct overview *o = arg;
    const struct sql_arg args[] = { SQL_INT(o->now), SQL_INT(o->now - STUCK_MS) };
    int r;

    *o->ret = (struct durable_overview){ 0 };
    r = store_run(tx, &sql_statuses, NULL, 0, statuses_row, o, e);
    return r < 0 ? r : store_run(tx, &sql_counts, args, LEN(args), counts_row, o, e);
}

CO int durable_overview(struct durable *d, struct durable_overview *ret, struct err *e)
{
    struct durable_overview found;
    struct overview o = { clock_ms(d), &found };
    int r = store_read(d->store, overview_body, &o, e);

    if (r < 0)
        return r;
    found.running_here = d->n_live;
    found.hears = d->ear && store_hears(d->ear);
    *ret = found;
    return 0;
}

/* --- queues --- */

struct queues_read {
    struct arena *arena;
    struct durable_queue_info *rows;
    size_t n, n_defined, cap;
};

static struct durable_queue_info *queue_add(struct queues_read *q, struct str name)
{
    if (q->n == q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 16;
        struct durable_queue_info *rows = arena_alloc(q->arena, cap * sizeof(*rows));

        if (q->n)
            memcpy(rows, q->rows, q->n * sizeof(*rows));
        q->rows = rows;
        q->cap = cap;
    }
    q->rows[q->n] = (struct durable_queue_info){ .name = arena_str(q->arena, name) };
    return &q->rows[q->n++];
}

static int64_t number(struct store_row *row, int col)
{
    return row_is_null(row, col) ? 0 : row_int(row, col);
}

static double fraction(struct store_row *row, int col)
{
    return row_is_null(row, col) ? 0 : row_real(row, col);
}

static int queue_row(struct store_row *row, void *arg, struct err *e)
{
    struct queues_read *q = arg;
    struct durable_queue_info *info = queue_add(q, row_str(row, 0));

    info->concurrency = number(row, 1);
    info->worker_concurrency = number(row, 2);
    info->rate_max = number(row, 3);
    info->partition_concurrency = number(row, 4);
    info->partition_worker_concurrency = number(row, 5);
    info->partition_rate_max = number(row, 6);
    info->rate_period_s = fraction(row, 7);
    info->partition_rate_period_s = fraction(row, 8);
    info->polling_s = fraction(row, 9);
    info->hold_slot = row_int(row, 10) != 0;
    info->served_here = true; /* who runs serves all that is defined; see durable_queues() */
    q->n_defined = q->n;
    return 0;
}

/* Both lists are in order of the databases, which need not agree on what comes first. */
static int load_row(struct store_row *row, void *arg, struct err *e)
{
    struct queues_read *q = arg;
    struct durable_queue_info *info = NULL;

    for (size_t i = 0; i < q->n_defined && !info; i++)
        if (str_eq(q->rows[i].name, row_str(row, 0)))
            info = &q->rows[i];
    if (!info)
        info = queue_add(q, row_str(row, 0));
    info->enqueued = row_int(row, 1);
    info->delayed = row_int(row, 2);
    info->pending = row_int(row, 3);
    info->oldest_ms = number(row, 4);
    return 0;
}

static int queues_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct queues_read *q = arg;
    int r;

    q->n = q->n_defined = 0;
    r = store_run(tx, &sql_queues, NULL, 0, queue_row, q, e);
    return r < 0 ? r : store_run(tx, &sql_queue_load, NULL, 0, load_row, q, e);
}

CO int durable_queues(struct durable *d, struct arena *a, struct durable_queue_info **ret,
                      size_t *ret_n, struct err *e)
{
    struct queues_read q = { .arena = a };
    int r = store_read(d->store, queues_body, &q, e);

    if (r < 0)
        return r;
    for (size_t i = 0; i < q.n; i++) {
        struct durable_queue_info *info = &q.rows[i];

        info->served_here |= str_eq_z(info->name, DURABLE_INTERNAL_QUEUE);
        for (size_t k = 0; k < d->n_queue_rows; k++)
            info->served_here |= str_eq_z(info->name, d->queue_rows[k]->name);
        info->served_here &= d->running && !d->stopping;
    }
    *ret = q.rows;
    *ret_n = q.n;
    return 0;
}

struct queue_put {
    const struct durable_queue *q;
    int64_t now;
    char id[TOKEN_TEXT];
};

static struct sql_arg seconds(uint64_t ms, unsigned max)
{
    return max ? SQL_REAL((double)ms / 1000) : SQL_NULL;
}

static int queue_put_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct queue_put *put = arg;
    const struct durable_queue *q = put->q;
    const struct sql_arg args[] = {
        SQL_Z(put->id),
        SQL_Z(q->name),
        int_arg(q->concurrency),
        int_arg(q->worker_concurrency),
        int_arg(q->rate_max),
        seconds(q->rate_period_ms, q->rate_max),
        int_arg(q->partition_concurrency),
        int_arg(q->partition_worker_concurrency),
        int_arg(q->partition_rate_max),
        seconds(q->partition_rate_period_ms, q->partition_rate_max),
        SQL_REAL(q->polling_ms ? (double)q->polling_ms / 1000 : 1.0),
        SQL_INT(put->now),
        SQL_INT(q->partition_concurrency || q->partition_worker_concurrency ||
                q->partition_rate_max),
    };
    const struct sql_arg hold[] = { SQL_Z(q->name), SQL_INT(q->hold_slot) };
    int r = store_run(tx, &sql_queue_put, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : store_run(tx, &sql_queue_hold, hold, LEN(hold), NULL, NULL, e);
}

static int queue_check(const struct durable_queue *q, struct err *e)
{
    const unsigned limits[] = {
        q->concurrency,           q->worker_concurrency,           q->rate_max,
        q->partition_concurrency, q->partition_worker_concurrency, q->partition_rate_max
    };

    if (!q->name || !q->name[0] || strlen(q->name) >= NAME_MAX_)
        return err_set(e, ERR_INVALID, "a queue has a name of 1 to %d bytes", NAME_MAX_ - 1);
    if (strncmp(q->name, "_dbos_", 6) == 0)
        return err_set(e, ERR_INVALID, "names that begin with _dbos_ are reserved");
    for (size_t i = 0; i < LEN(limits); i++)
        if (limits[i] > INT32_MAX)
            return err_set(e, ERR_INVALID, "a limit is at most %d", INT32_MAX);
    if ((q->rate_max && !q->rate_period_ms) ||
        (q->partition_rate_max && !q->partition_rate_period_ms))
        return err_set(e, ERR_INVALID, "a rate needs its period");
    return 0;
}

CO int durable_queue_put(struct durable *d, const struct durable_queue *q, struct err *e)
{
    struct queue_put put = { .q = q };
    int r = queue_check(q, e);

    if (r < 0)
        return r;
    uuid_new(put.id);
    put.now = clock_ms(d);
    r = store_do(d->store, queue_put_body, &put, e);
    if (r == 0)
        tell_queue(d, str_of(q->name));
    return r;
}

static int queue_remove_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg *name = arg;
    int r = store_run(tx, &sql_queue_unhold, name, 1, NULL, NULL, e);

    if (r == 0)
        r = store_run(tx, &sql_queue_remove, name, 1, NULL, NULL, e);
    if (r == 0 && store_changed(tx) == 0)
        return err_set(e, ERR_NOT_FOUND, "there is no queue '" STR_FMT "'", STR_ARG(name->s));
    return r;
}

CO int durable_queue_remove(struct durable *d, struct str name, struct err *e)
{
    struct sql_arg arg = SQL_STR(name);

    return store_do(d->store, queue_remove_body, &arg, e);
}
