/* SPDX-License-Identifier: MIT */
/*
 * durable/gauge.c — what the sweep reads for others: is our version the newest, how much waits and
 * for how long, and is there work of a version that nobody runs. That work is nobody's to claim
 * (its code may differ), so it must be seen.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define GAUGE_COST 50 /* gauges are read so seldom that they take at most this part of the time */

/* clang-format off */
static const struct sql sql_version = {
    "newest version",
    "SELECT version_name FROM dbos.application_versions"
    " WHERE CAST(?1 AS TEXT) IS NULL OR application_name IS NULL OR application_name = ?1"
    " ORDER BY version_timestamp DESC, version_name DESC LIMIT 1",
    NULL,
};
static const struct sql sql_depth = { /* ?1 now (SQLite) */
    "depth of queues",
    "SELECT count(*), COALESCE(?1 - min(updated_at), 0) FROM dbos.workflow_status"
    " WHERE status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')",
    "SELECT count(*), COALESCE(" PG_NOW_MS " - min(updated_at) + ?1 * 0, 0)"
    " FROM dbos.workflow_status WHERE status = 'ENQUEUED'",
};
#define BLOCKED(known, alive) \
    "SELECT count(*), min(w.application_version) FROM dbos.workflow_status w" \
    " WHERE w.status IN ('ENQUEUED', 'PENDING') AND w.application_version IS NOT NULL AND " known \
    " AND w.application_version NOT IN (SELECT x.app_version FROM durable_executors x" \
    "  WHERE " alive ")"
static const struct sql sql_blocked = { /* ?1 names ?2 now (SQLite) */
    "versions that nobody runs",
    BLOCKED("COALESCE(w.class_name, '') || char(31) || w.name IN (SELECT value FROM json_each(?1))",
            "?2 IS NOT NULL"),
    BLOCKED("COALESCE(w.class_name, '') || chr(31) || w.name = ANY(?1)",
            "x.lease_until_ms > " PG_NOW_MS " + ?2 * 0"),
};
/* clang-format on */

struct version {
    const struct durable *d;
    bool newest;
};

static int take_version(struct store_row *row, void *arg, struct err *e)
{
    struct version *version = arg;

    (void)e;
    version->newest = str_eq_z(row_str(row, 0), version->d->conf.app_version);
    return 0;
}

static int version_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct version *version = arg;
    const struct sql_arg app = SQL_Z(version->d->conf.app_name);

    version->newest = true; /* also when none is registered */
    return store_run(tx, &sql_version, &app, 1, take_version, version, e);
}

CO int gauge_version(struct durable *d, struct err *e)
{
    struct version version = { .d = d };
    int r = store_read(d->store, version_body, &version, e);

    if (r == 0 && version.newest != d->newest) {
        log_info("the newest version has changed", "ours", LOG_STR(d->conf.app_version),
                 "is_newest", LOG_BOOL(version.newest));
        d->newest = version.newest;
        queue_poke(d, (struct str){ 0 });
    }
    return r;
}

struct gauges {
    const struct durable *d;
    struct str names;
    int64_t now, depth, age_ms, blocked;
    char version[64];
};

static int take_depth(struct store_row *row, void *arg, struct err *e)
{
    struct gauges *g = arg;

    (void)e;
    g->depth = row_int(row, 0);
    g->age_ms = row_int(row, 1);
    return 0;
}

static int take_blocked(struct store_row *row, void *arg, struct err *e)
{
    struct gauges *g = arg;
    struct str version = row_str(row, 1);

    (void)e;
    g->blocked = row_int(row, 0);
    version.n = version.n < sizeof(g->version) ? version.n : sizeof(g->version) - 1;
    fmt_z(g->version, sizeof(g->version), STR_FMT, STR_ARG(version));
    return 0;
}

static int gauges_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct gauges *g = arg;
    const struct sql_arg now = SQL_INT(g->now);
    const struct sql_arg args[] = {
        g->d->pg ? SQL_TEXTS(g->d->addresses, g->d->n_types) : SQL_STR(g->names),
        SQL_INT(g->now),
    };
    int r = store_run(tx, &sql_depth, &now, 1, take_depth, g, e);

    return r < 0 ? r : store_run(tx, &sql_blocked, args, LEN(args), take_blocked, g, e);
}

static void say_blocked(struct sweeper *s, const struct gauges *g)
{
    if (g->blocked > 0 && !s->said_blocked)
        log_warn("workflows wait for a version that no process runs", "number", LOG_INT(g->blocked),
                 "version", LOG_STR(g->version));
    s->said_blocked = g->blocked > 0;
}

CO int gauge_queues(struct durable *d, struct err *e)
{
    struct gauges g = { .d = d, .names = buf_str(&d->queues->names), .now = wall_ms() };
    uint64_t since = now_ms();
    int r = store_read(d->store, gauges_body, &g, e);
    uint64_t wait = (now_ms() - since) * GAUGE_COST;

    d->sweeper->gauges_ms = now_ms() + (wait > d->conf.sweep_ms ? wait : d->conf.sweep_ms);
    if (r < 0)
        return r;
    metric_set(&durable_m_queue_depth, 0, g.depth);
    metric_set(&durable_m_queue_age, 0, g.age_ms > 0 ? g.age_ms / 1000 : 0);
    metric_set(&durable_m_blocked_version, 0, g.blocked);
    say_blocked(d->sweeper, &g);
    return 0;
}
