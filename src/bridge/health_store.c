/* SPDX-License-Identifier: MIT */
/*
 * bridge/health_store.c — health in the store. A change of state is written at once by whoever
 * caused it; mere counters are gathered and written once a second, so that calls without a
 * session cost no commit.
 */
#include <string.h>

#include "base/log.h"
#include "bridge/bridge_int.h"

enum { FLUSH_MS = 1000, FLUSH_RETRY_MS = 2000 };

static const struct sql sql_load = {
    "health load",
    "SELECT name, status, last_check_us, last_success_us, consecutive, failures, requests,"
    " network_run, success_run, success_ms, last_error FROM vps_health",
};
static const struct sql sql_load_errors = {
    "errors load",
    "SELECT type, count, first_us, last_us, duration_ms, retries FROM vps_errors",
};
static const struct sql sql_put = {
    "health put",
    "INSERT INTO vps_health (name, status, last_check_us, last_success_us, consecutive, failures,"
    " requests, network_run, success_run, success_ms, last_error)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    " ON CONFLICT (name) DO UPDATE SET status = excluded.status,"
    " last_check_us = excluded.last_check_us, last_success_us = excluded.last_success_us,"
    " consecutive = excluded.consecutive, failures = excluded.failures,"
    " requests = excluded.requests, network_run = excluded.network_run,"
    " success_run = excluded.success_run, success_ms = excluded.success_ms,"
    " last_error = excluded.last_error",
};
static const struct sql sql_put_error = {
    "errors put",
    "INSERT INTO vps_errors (type, count, first_us, last_us, duration_ms, retries)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    " ON CONFLICT (type) DO UPDATE SET count = excluded.count, first_us = excluded.first_us,"
    " last_us = excluded.last_us, duration_ms = excluded.duration_ms, retries = excluded.retries",
};

/* One agent's health as it is stored. */
struct record {
    struct str name;
    struct health health;
};

struct records {
    struct arena arena;
    struct record *v;
    size_t n, cap;
    struct error_metric metrics[ERROR_TYPES];
    bool with_metrics;
};

static struct record *records_add(struct records *all)
{
    if (all->n == all->cap) {
        all->cap = all->cap ? 2 * all->cap : 16;
        all->v = xrealloc(all->v, all->cap * sizeof(*all->v));
    }
    return &all->v[all->n++];
}

static void records_done(struct records *all)
{
    free(all->v);
    arena_done(&all->arena);
    *all = (struct records){ 0 };
}

/* --- loading --- */

static int load_row(struct store_row *row, void *arg, struct err *e)
{
    struct records *all = arg;
    struct record *one = records_add(all);
    struct str text = row_str(row, 10);

    *one = (struct record){
        .name = arena_str(&all->arena, row_str(row, 0)),
        .health = { .status = health_status_of(row_str(row, 1)),
                    .last_check_us = row_int(row, 2),
                    .last_success_us = row_int(row, 3),
                    .consecutive = row_int(row, 4),
                    .failures = row_int(row, 5),
                    .requests = row_int(row, 6),
                    .network_run = row_int(row, 7),
                    .success_run = row_int(row, 8),
                    .success_ms = row_real(row, 9) },
    };
    if (text.n && text.n < sizeof(one->health.last_error))
        memcpy(one->health.last_error, text.p, text.n);
    return 0;
}

static int load_error_row(struct store_row *row, void *arg, struct err *e)
{
    struct records *all = arg;
    enum error_type type = error_type_of(row_str(row, 0));

    if (type != ERROR_NONE)
        all->metrics[type] = (struct error_metric){
            .count = row_int(row, 1),
            .first_us = row_int(row, 2),
            .last_us = row_int(row, 3),
            .duration_ms = row_real(row, 4),
            .retries = row_real(row, 5),
        };
    return 0;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r;

    records_done(arg);
    r = store_run(tx, &sql_load, NULL, 0, load_row, arg, e);
    if (r < 0)
        return r;
    return store_run(tx, &sql_load_errors, NULL, 0, load_error_row, arg, e);
}

/* A circuit that was open stays so for what is left of its time; the wall clock has to do here. */
static void restore(struct bridge *b, struct tracked *one, const struct health *health)
{
    long long half_open = b->conf->half_open_ms, since = 0;

    one->health = *health;
    if (health->status != HEALTH_UNREACHABLE)
        return;
    since = (wall_us() - health->last_check_us) / 1000;
    if (since >= 0 && since < half_open)
        one->trial_ms = now_ms() + (uint64_t)(half_open - since);
}

CO int health_load(struct bridge *b, struct err *e)
{
    struct records all = { 0 };
    int r;

    r = store_read(b->store, load_body, &all, e);
    for (size_t i = 0; r == 0 && i < all.n; i++) {
        struct agent_entry *entry = agents_find(&b->agents, all.v[i].name);

        if (entry)
            restore(b, entry->tracked, &all.v[i].health);
    }
    if (r == 0)
        memcpy(b->tracker.metrics, all.metrics, sizeof(all.metrics));
    records_done(&all);
    return r;
}

/* --- writing --- */

static int put_record(struct store_tx *tx, const struct record *one, struct err *e)
{
    const struct health *h = &one->health;
    const struct sql_arg args[] = {
        SQL_STR(one->name),        SQL_Z(health_status_name(h->status)),
        SQL_INT(h->last_check_us), SQL_INT(h->last_success_us),
        SQL_INT(h->consecutive),   SQL_INT(h->failures),
        SQL_INT(h->requests),      SQL_INT(h->network_run),
        SQL_INT(h->success_run),   SQL_REAL(h->success_ms),
        SQL_Z(h->last_error),
    };

    return store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);
}

static int put_metric(struct store_tx *tx, enum error_type type, const struct error_metric *m,
                      struct err *e)
{
    const struct sql_arg args[] = {
        SQL_Z(error_type_name(type)), SQL_INT(m->count),        SQL_INT(m->first_us),
        SQL_INT(m->last_us),          SQL_REAL(m->duration_ms), SQL_REAL(m->retries),
    };

    return store_run(tx, &sql_put_error, args, LEN(args), NULL, NULL, e);
}

static int flush_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct records *all = arg;
    int r = 0;

    for (size_t i = 0; r == 0 && i < all->n; i++)
        r = put_record(tx, &all->v[i], e);
    for (int type = 0; r == 0 && all->with_metrics && type < ERROR_TYPES; type++)
        if (all->metrics[type].count)
            r = put_metric(tx, (enum error_type)type, &all->metrics[type], e);
    return r;
}

/* Copy what is dirty and call it clean. */
static void gather(struct bridge *b, struct records *all)
{
    for (struct tracked *one = b->tracker.first; one; one = one->next) {
        if (!one->dirty)
            continue;
        *records_add(all) = (struct record){
            .name = arena_str(&all->arena, one->node.key),
            .health = one->health,
        };
        one->dirty = false;
    }
    all->with_metrics = b->tracker.metrics_dirty;
    memcpy(all->metrics, b->tracker.metrics, sizeof(all->metrics));
    b->tracker.metrics_dirty = false;
    b->flush_due_ms = DEADLINE_NONE;
}

static void mark_again(struct bridge *b, const struct records *all)
{
    for (size_t i = 0; i < all->n; i++) {
        struct tracked *one = tracker_find(&b->tracker, all->v[i].name);

        if (one)
            one->dirty = true;
    }
    b->tracker.metrics_dirty |= all->with_metrics;
    b->flush_due_ms = now_ms() + FLUSH_RETRY_MS;
}

CO int health_flush(struct bridge *b, struct err *e)
{
    struct records all = { 0 };
    int r;

    r = fiber_lane_enter(&b->registry, DEADLINE_NONE, e);
    if (r < 0)
        return r;
    gather(b, &all);
    if (all.n || all.with_metrics) {
        r = store_do(b->store, flush_body, &all, e);
        if (r < 0)
            mark_again(b, &all);
    }
    fiber_lane_leave(&b->registry);
    records_done(&all);
    return r;
}

void health_touch(struct bridge *b)
{
    if (b->flush_due_ms != DEADLINE_NONE)
        return;
    b->flush_due_ms = now_ms() + FLUSH_MS;
    if (b->flusher)
        fiber_wake(b->flusher);
}

CO int health_flusher(void *arg, struct err *e)
{
    struct bridge *b = arg;
    bool down = false;
    int r;

    while (!b->stopping) {
        r = fiber_park(b->flush_due_ms, e);
        if (r == -ERR_CANCELED)
            return 0;
        if (b->flush_due_ms > now_ms())
            continue;
        r = health_flush(b, e);
        if (r == -ERR_CANCELED)
            return 0;
        if (r < 0 && !down)
            log_warn("health counters are not stored, trying again", "error", LOG_ERR(e));
        down = r < 0;
    }
    return 0;
}

CO int bridge_health_reset(struct bridge *b, struct str name, struct err *e)
{
    struct agent_entry *entry = agents_find(&b->agents, name);

    if (!entry)
        return err_set(e, ERR_NOT_FOUND, "Agent '" STR_FMT "' not found", STR_ARG(name));
    tracker_reset(&b->tracker, entry->tracked);
    return health_flush(b, e);
}
