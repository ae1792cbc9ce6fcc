/* SPDX-License-Identifier: MIT */
/*
 * durable/retain.c — deleting what has ended: on request, and as a chore when the settings say for
 * how long, or how many, are kept (they do not unless told to).
 *
 * A child stays as long as its parent has not ended, which may ask for its result.
 */
#include "base/log.h"
#include "durable/manage_int.h"

#define RETAIN_LEAST_MS 1000
#define RETAIN_MOST_MS  60000

/* clang-format off */
#define KEPT " AND NOT EXISTS (SELECT 1 FROM dbos.workflow_status p" \
    " WHERE p.workflow_uuid = w.parent_workflow_id AND p.status IN " SQL_ACTIVE ")"
/* Those that ended before ?1, or then and with an id up to ?2. */
static const struct sql sql_ended = {
    "retain ended",
    "SELECT w.workflow_uuid FROM dbos.workflow_status w WHERE w.completed_at IS NOT NULL"
    " AND w.completed_at <= ?1 AND (w.completed_at < ?1 OR w.workflow_uuid <= ?2)"
    " AND w.status IN " SQL_ENDED KEPT " ORDER BY w.completed_at, w.workflow_uuid LIMIT 500",
};
/* Old releases did not record the end. */
static const struct sql sql_ended_unsaid = {
    "retain ended unsaid",
    "SELECT w.workflow_uuid FROM dbos.workflow_status w WHERE w.completed_at IS NULL"
    " AND w.created_at < ?1 AND w.updated_at < ?1 AND ?2 = ''"
    " AND w.status IN " SQL_ENDED KEPT " ORDER BY w.created_at LIMIT 500",
};
/* The newest that is not among the newest ?1. */
static const struct sql sql_bound = {
    "retain bound",
    "SELECT completed_at, workflow_uuid FROM dbos.workflow_status"
    " WHERE completed_at IS NOT NULL AND status IN " SQL_ENDED
    " ORDER BY completed_at DESC, workflow_uuid DESC LIMIT 1 OFFSET ?1",
};
/* clang-format on */

struct bound {
    int64_t keep, at;
    char id[DURABLE_ID];
    bool found;
};

static int bound_row(struct store_row *row, void *arg, struct err *e)
{
    struct bound *b = arg;
    struct str id = row_str(row, 1);

    b->at = row_int(row, 0);
    b->found = id.n < sizeof(b->id);
    if (b->found)
        fmt_z(b->id, sizeof(b->id), STR_FMT, STR_ARG(id));
    return 0;
}

static int bound_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct bound *b = arg;
    const struct sql_arg keep = SQL_INT(b->keep);

    b->found = false;
    return store_run(tx, &sql_bound, &keep, 1, bound_row, b, e);
}

struct ended {
    const struct sql *sql;
    struct sql_arg args[2];
    struct ids ids;
};

static int ended_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct ended *x = arg;

    x->ids.n = 0;
    return store_run(tx, x->sql, x->args, LEN(x->args), ids_row, &x->ids, e);
}

/* Delete up to a bound, a batch at a time. */
static CO int collect_to(struct durable *d, const struct sql *sql, int64_t at, const char *id,
                         int64_t *sum, struct err *e)
{
    size_t found;
    int64_t n;
    int r;

    do {
        struct arena a = { 0 };
        struct ended x = { .sql = sql, .args = { SQL_INT(at), SQL_Z(id) }, .ids.arena = &a };

        n = 0;
        r = store_read(d->store, ended_body, &x, e);
        found = x.ids.n;
        if (r == 0 && found)
            r = delete_batch(d, x.ids.v, found, false, &n, e);
        *sum += n;
        arena_done(&a);
        if (r == 0 && found)
            r = fiber_yield(e);
    } while (r == 0 && found == MANAGE_BATCH && n > 0);
    return r;
}

CO int durable_collect(struct durable *d, int64_t before_ms, int64_t keep, int64_t *ret_n,
                       struct err *e)
{
    struct bound b = { .keep = keep };
    int64_t sum = 0;
    int r = 0;

    if (before_ms < 0 || keep < 0)
        return err_set(e, ERR_INVALID, "neither a time nor a number may be negative");
    if (before_ms)
        r = collect_to(d, &sql_ended, before_ms, "", &sum, e);
    if (r == 0 && before_ms)
        r = collect_to(d, &sql_ended_unsaid, before_ms, "", &sum, e);
    if (r == 0 && keep)
        r = store_read(d->store, bound_body, &b, e);
    if (r == 0 && b.found)
        r = collect_to(d, &sql_ended, b.at, b.id, &sum, e);
    if (r == 0)
        *ret_n = sum;
    return r;
}

static uint64_t pause_of(const struct durable_conf *conf)
{
    uint64_t ms = conf->retain_ms ? conf->retain_ms / 10 : RETAIN_MOST_MS / 6;

    return ms < RETAIN_LEAST_MS ? RETAIN_LEAST_MS : ms > RETAIN_MOST_MS ? RETAIN_MOST_MS : ms;
}

CO int retain_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    bool failing = false;
    int r = 0;

    if (!d->conf.retain_ms && !d->conf.retain_rows)
        return 0;
    while (r != -ERR_CANCELED) {
        int64_t n, before = clock_ms(d) - (int64_t)d->conf.retain_ms;

        r = durable_collect(d, d->conf.retain_ms && before > 0 ? before : 0, d->conf.retain_rows,
                            &n, e);
        if (r < 0 && r != -ERR_CANCELED) {
            metric_add(&durable_m_chore_failures, 0, 1);
            if (!failing)
                log_warn("finished workflows cannot be deleted", "error", LOG_ERR(e));
        }
        failing = r < 0;
        if (r != -ERR_CANCELED)
            r = fiber_sleep(pause_of(&d->conf), e);
    }
    return r;
}
