/* SPDX-License-Identifier: MIT */
/*
 * durable/manage_again.c — running something again: resume, fork, rewind and retry; and what may
 * be changed while it waits in a queue. Each is one transaction that holds the workflow's row.
 */
#include "durable/manage_int.h"

/* clang-format off */
/* ?1 id, ?2 queue, ?3 now. */
static const struct sql sql_again = {
    "manage again",
    "UPDATE dbos.workflow_status SET status = 'ENQUEUED', queue_name = ?2, recovery_attempts = 0,"
    " workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL,"
    " completed_at = NULL, owner_xid = NULL, delay_until_epoch_ms = NULL, updated_at = ?3,"
    " rate_limited = FALSE, output = NULL, error = NULL WHERE workflow_uuid = ?1",
};
static const struct sql sql_no_outcome = {
    "manage no outcome", "DELETE FROM dbos.workflow_output WHERE workflow_uuid = ?1",
};
static const struct sql sql_not_parked = {
    "manage not parked", "DELETE FROM durable_parked WHERE workflow_uuid = ?1",
};

/* ?1 source, ?2 new id, ?3 queue, ?4 version (NULL: the source's), ?5 now, ?6 timeout, ?7 token,
 * ?8 the partition is kept. */
static const struct sql sql_fork = {
    "manage fork",
    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, authenticated_user,"
    " assumed_role, authenticated_roles, executor_id, created_at, updated_at, application_version,"
    " application_id, class_name, config_name, recovery_attempts, queue_name, workflow_timeout_ms,"
    " priority, queue_partition_key, forked_from, serialization, attributes, application_name,"
    " creator_xid) SELECT ?2, 'ENQUEUED', name, authenticated_user, assumed_role,"
    " authenticated_roles, '', ?5, ?5, COALESCE(CAST(?4 AS TEXT), application_version),"
    " application_id, class_name, config_name, 0, ?3, CAST(?6 AS BIGINT), priority,"
    " CASE WHEN ?8 = 1 THEN queue_partition_key END, workflow_uuid, serialization, attributes,"
    " application_name, ?7 FROM dbos.workflow_status WHERE workflow_uuid = ?1"
    " ON CONFLICT (workflow_uuid) DO NOTHING",
};
static const struct sql sql_forked = {
    "manage forked",
    "UPDATE dbos.workflow_status SET was_forked_from = TRUE WHERE workflow_uuid = ?1",
};

/* ?1 source, ?2 new id, ?3 now. */
static const struct sql sql_fork_input = {
    "manage fork input",
    "INSERT INTO dbos.workflow_input (workflow_uuid, inputs, retention_timestamp)"
    " SELECT ?2, COALESCE((SELECT i.inputs FROM dbos.workflow_input i"
    "  WHERE i.workflow_uuid = ?1), w.inputs), CAST(?3 AS BIGINT)"
    " FROM dbos.workflow_status w WHERE w.workflow_uuid = ?1",
};
/* ?1 source, ?2 new id, ?3 now, ?4 step. */
static const struct sql sql_fork_steps = {
    "manage fork steps",
    "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, output, error,"
    " child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization,"
    " application_name, retention_timestamp) SELECT ?2, function_id, function_name, output, error,"
    " child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, serialization,"
    " application_name, CAST(?3 AS BIGINT)"
    " FROM dbos.operation_outputs WHERE workflow_uuid = ?1 AND function_id < ?4",
};
/* ?1 source, ?2 new id, ?3 step. */
static const struct sql sql_fork_parts[] = {
    { "manage fork streams",
      "INSERT INTO dbos.streams (workflow_uuid, key, value, \"offset\", function_id,"
      " serialization) SELECT ?2, key, value, \"offset\", function_id, serialization"
      " FROM dbos.streams WHERE workflow_uuid = ?1 AND function_id < ?3" },
    { "manage fork history",
      "INSERT INTO dbos.workflow_events_history (workflow_uuid, function_id, key, value,"
      " serialization) SELECT ?2, function_id, key, value, serialization"
      " FROM dbos.workflow_events_history WHERE workflow_uuid = ?1 AND function_id < ?3" },
};

/* ?1 workflow: the latest value of each key in its history. */
static const struct sql sql_events = {
    "manage events from history",
    "INSERT INTO dbos.workflow_events (workflow_uuid, key, value, serialization)"
    " SELECT h.workflow_uuid, h.key, h.value, h.serialization"
    " FROM dbos.workflow_events_history h WHERE h.workflow_uuid = ?1"
    " AND h.function_id = (SELECT MAX(l.function_id) FROM dbos.workflow_events_history l"
    "  WHERE l.workflow_uuid = ?1 AND l.key = h.key)",
};

/* ?1 id. */
static const struct sql sql_cut = {
    "manage cut",
    "SELECT COALESCE(MIN(CASE WHEN error IS NOT NULL THEN function_id END),"
    " MAX(function_id) + 1, 0) FROM dbos.operation_outputs WHERE workflow_uuid = ?1",
};
/* ?1 id, ?2 step. */
static const struct sql sql_rewind[] = {
    { "manage rewind steps",
      "DELETE FROM dbos.operation_outputs WHERE workflow_uuid = ?1 AND function_id >= ?2" },
    { "manage rewind history",
      "DELETE FROM dbos.workflow_events_history WHERE workflow_uuid = ?1 AND function_id >= ?2" },
    { "manage rewind streams",
      "DELETE FROM dbos.streams WHERE workflow_uuid = ?1 AND (function_id >= ?2"
      " OR value IN ('\"__DBOS_STREAM_CLOSED__\"', '__DBOS_STREAM_CLOSED__'))" },
    { "manage rewind messages",
      "DELETE FROM dbos.notifications WHERE destination_uuid = ?1"
      " AND (consumed = FALSE OR consumed_by_function_id >= ?2)" },
};
static const struct sql sql_no_events = {
    "manage rewind events", "DELETE FROM dbos.workflow_events WHERE workflow_uuid = ?1",
};

/* ?1 id, ?2 value, ?3 now. */
static const struct sql sql_priority = {
    "manage priority",
    "UPDATE dbos.workflow_status SET priority = ?2, updated_at = ?3 WHERE workflow_uuid = ?1",
};
static const struct sql sql_delay = {
    "manage delay",
    "UPDATE dbos.workflow_status SET delay_until_epoch_ms = ?2, updated_at = ?3"
    " WHERE workflow_uuid = ?1 AND NOT EXISTS (SELECT 1 FROM durable_parked p"
    "  WHERE p.workflow_uuid = ?1)",
};
/* clang-format on */

struct again {
    struct str id, queue;
    int64_t now, step;   /* of a rewind; -1: find it */
    bool rewind, choose; /* choose: resume or rewind, as the status asks */
    bool done;           /* something was changed */
};

static int one(struct store_tx *tx, const struct sql *sql, struct str id, struct err *e)
{
    const struct sql_arg arg = SQL_STR(id);

    return store_run(tx, sql, &arg, 1, NULL, NULL, e);
}

static int enqueue_tx(struct store_tx *tx, const struct again *g, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(g->id), SQL_STR(g->queue), SQL_INT(g->now) };
    int r = store_run(tx, &sql_again, args, LEN(args), NULL, NULL, e);

    if (r == 0)
        r = one(tx, &sql_no_outcome, g->id, e);
    if (r == 0)
        r = one(tx, &sql_not_parked, g->id, e);
    return r;
}

static int int_row(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int rewind_tx(struct store_tx *tx, const struct again *g, struct err *e)
{
    struct sql_arg args[] = { SQL_STR(g->id), SQL_INT(g->step) };
    int64_t step = g->step;
    int r = 0;

    if (step < 0)
        r = store_run(tx, &sql_cut, args, 1, int_row, &step, e);
    args[1] = SQL_INT(step);
    for (size_t i = 0; r == 0 && i < LEN(sql_rewind); i++)
        r = store_run(tx, &sql_rewind[i], args, LEN(args), NULL, NULL, e);
    if (r == 0)
        r = one(tx, &sql_no_events, g->id, e);
    if (r == 0)
        r = one(tx, &sql_events, g->id, e);
    return r;
}

static int again_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct again *g = arg;
    enum durable_status status;
    bool rewind = g->rewind;
    int r = status_lock_tx(tx, g->id, &status, e);

    g->done = false;
    if (r < 0)
        return r;
    if (durable_status_active(status)) {
        if (!rewind && !g->choose)
            return 0;
        return err_set(e, ERR_CONFLICT,
                       "the workflow is %s and has not ended: cancel it first, or wait",
                       durable_status_name(status));
    }
    if (g->choose)
        rewind = status == DURABLE_ERROR;
    if ((g->choose && status == DURABLE_SUCCESS) ||
        (!rewind && (status == DURABLE_SUCCESS || status == DURABLE_ERROR)))
        return err_set(e, ERR_CONFLICT,
                       "the workflow has ended with %s: rewind runs it again, fork makes a new one",
                       durable_status_name(status));
    if (rewind)
        r = rewind_tx(tx, g, e);
    if (r == 0)
        r = enqueue_tx(tx, g, e);
    g->done = r == 0;
    return r;
}

static CO int again(struct durable *d, struct again *g, struct err *e)
{
    int r;

    g->now = clock_ms(d);
    if (!g->queue.n)
        g->queue = STR(DURABLE_INTERNAL_QUEUE);
    r = store_do(d->store, again_body, g, e);
    if (r == 0 && g->done)
        tell_queue(d, g->queue);
    return r;
}

CO int durable_resume(struct durable *d, struct str id, struct str queue, struct err *e)
{
    struct again g = { .id = id, .queue = queue };

    return again(d, &g, e);
}

CO int durable_rewind(struct durable *d, struct str id, int64_t step, struct err *e)
{
    struct again g = { .id = id, .rewind = true, .step = step };

    if (step < -1)
        return err_set(e, ERR_INVALID, "a step is counted from 0");
    return again(d, &g, e);
}

CO int durable_retry(struct durable *d, struct str id, struct err *e)
{
    struct again g = { .id = id, .choose = true, .step = -1 };

    return again(d, &g, e);
}

/* --- fork --- */

struct forking {
    const struct durable_fork *f;
    struct str new_id, queue;
    char token[TOKEN_TEXT];
    int64_t now;
};

static int fork_copy_tx(struct store_tx *tx, const struct forking *g, struct err *e)
{
    const struct sql_arg with_now[] = { SQL_STR(g->f->id), SQL_STR(g->new_id), SQL_INT(g->now),
                                        SQL_INT(g->f->step) };
    const struct sql_arg args[] = { SQL_STR(g->f->id), SQL_STR(g->new_id), SQL_INT(g->f->step) };
    int r = store_run(tx, &sql_fork_input, with_now, 3, NULL, NULL, e);

    if (r == 0)
        r = store_run(tx, &sql_fork_steps, with_now, 4, NULL, NULL, e);
    for (size_t i = 0; r == 0 && i < LEN(sql_fork_parts); i++)
        r = store_run(tx, &sql_fork_parts[i], args, LEN(args), NULL, NULL, e);
    if (r == 0)
        r = one(tx, &sql_events, g->new_id, e);
    if (r == 0)
        r = one(tx, &sql_forked, g->f->id, e);
    return r;
}

static int fork_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct forking *g = arg;
    const struct sql_arg args[] = {
        SQL_STR(g->f->id), SQL_STR(g->new_id),
        SQL_STR(g->queue), g->f->app_version.n ? SQL_STR(g->f->app_version) : SQL_NULL,
        SQL_INT(g->now),   int_arg(g->f->timeout_ms),
        SQL_Z(g->token),   SQL_INT(g->f->queue.n > 0),
    };
    enum durable_status status;
    int r = status_lock_tx(tx, g->f->id, &status, e);

    if (r == 0)
        r = store_run(tx, &sql_fork, args, LEN(args), NULL, NULL, e);
    if (r == 0 && store_changed(tx) == 0)
        return err_set(e, ERR_CONFLICT, "workflow '" STR_FMT "' exists already",
                       STR_ARG(g->new_id));
    return r < 0 ? r : fork_copy_tx(tx, g, e);
}

/* As start_prepare() asks of an id. */
static int id_check(struct str id, struct err *e)
{
    bool blank = true;

    if (id.n >= DURABLE_ID)
        return err_set(e, ERR_INVALID, "an id has at most %d bytes", DURABLE_ID - 1);
    for (size_t i = 0; i < id.n; i++) {
        if ((unsigned char)id.p[i] < ' ' || id.p[i] == 0x7f)
            return err_set(e, ERR_INVALID, "an id has no control characters");
        blank &= id.p[i] == ' ';
    }
    return blank ? err_set(e, ERR_INVALID, "an id is not blank") : 0;
}

CO int durable_fork(struct durable *d, const struct durable_fork *f, char ret_id[DURABLE_ID],
                    struct err *e)
{
    struct forking g = { .f = f, .queue = f->queue, .new_id = f->new_id };
    char id[DURABLE_ID];
    int r = 0;

    if (f->step < 0 || f->step > INT32_MAX)
        return err_set(e, ERR_INVALID, "a step is counted from 0");
    if (f->timeout_ms < 0 || f->timeout_ms > INT64_MAX / 4)
        return err_set(e, ERR_INVALID, "a timeout is out of range");
    if (g.new_id.p)
        r = id_check(g.new_id, e);
    if (r < 0)
        return r;
    if (g.new_id.p)
        fmt_z(id, sizeof(id), STR_FMT, STR_ARG(g.new_id));
    else
        uuid_new(id);
    g.new_id = str_of(id);
    if (!g.queue.n)
        g.queue = STR(DURABLE_INTERNAL_QUEUE);
    uuid_new(g.token);
    g.now = clock_ms(d);
    r = store_do(d->store, fork_body, &g, e);
    if (r < 0)
        return r;
    tell_queue(d, g.queue);
    memcpy(ret_id, id, sizeof(id));
    return 0;
}

/* --- while it waits --- */

struct change {
    const struct sql *sql;
    struct str id;
    int64_t value, now;
    unsigned allowed; /* bits of enum durable_status */
    const char *what;
};

static int change_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct change *c = arg;
    const struct sql_arg args[] = { SQL_STR(c->id), SQL_INT(c->value), SQL_INT(c->now) };
    enum durable_status status;
    int r = status_lock_tx(tx, c->id, &status, e);

    if (r < 0)
        return r;
    if (!(c->allowed & 1u << status))
        return err_set(e, ERR_CONFLICT, "the workflow is %s: its %s does not matter any more",
                       durable_status_name(status), c->what);
    r = store_run(tx, c->sql, args, LEN(args), NULL, NULL, e);
    if (r == 0 && store_changed(tx) == 0)
        return err_set(e, ERR_CONFLICT, "the workflow waits on its own: it has no %s", c->what);
    return r;
}

CO int durable_set_priority(struct durable *d, struct str id, int64_t priority, struct err *e)
{
    struct change c = {
        &sql_priority, id, priority, clock_ms(d), 1u << DURABLE_ENQUEUED | 1u << DURABLE_DELAYED,
        "priority"
    };

    if (priority < 0 || priority > INT32_MAX)
        return err_set(e, ERR_INVALID, "a priority is 0 to %d", INT32_MAX);
    return store_do(d->store, change_body, &c, e);
}

CO int durable_set_delay(struct durable *d, struct str id, int64_t until_ms, struct err *e)
{
    struct change c = { &sql_delay, id, until_ms, clock_ms(d), 1u << DURABLE_DELAYED, "delay" };
    int r;

    if (until_ms < 0 || until_ms > INT64_MAX / 4)
        return err_set(e, ERR_INVALID, "a time is out of range");
    r = store_do(d->store, change_body, &c, e);
    if (r == 0 && d->running)
        sweep_due(d, until_ms);
    return r;
}
