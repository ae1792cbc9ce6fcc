/* SPDX-License-Identifier: MIT */
/*
 * bridge/sweep.c — sessions and results that have had their time. Victims are read beside the
 * writer, those with a call under way are left out, and the rest is deleted in small batches, each
 * only if nothing has touched it since it was read.
 */
#include "base/log.h"
#include "bridge/bridge_int.h"
#include "bridge/metrics.h"
#include "bridge/session.h"

enum { BATCH = 500, SLEEP_MAX_MS = 60 * 1000 };

static const struct sql sql_idle = {
    "sessions idle",
    "SELECT session_id, active_us FROM vps_sessions WHERE active_us < ?1 AND session_id > ?2"
    " ORDER BY session_id LIMIT ?3",
};
static const struct sql sql_oldest = {
    "sessions oldest",
    "SELECT session_id, active_us FROM vps_sessions ORDER BY active_us LIMIT ?1",
};
static const struct sql sql_delete = {
    "session sweep",
    "DELETE FROM vps_sessions WHERE session_id = ?1 AND active_us <= ?2 RETURNING sid",
};
static const struct sql sql_delete_messages = {
    "messages sweep",
    "DELETE FROM vps_messages WHERE sid = ?1",
};
static const struct sql sql_count = {
    "sessions count",
    "SELECT count(*) FROM vps_sessions",
};
static const struct sql sql_results = {
    "results sweep",
    "DELETE FROM vps_results WHERE key IN"
    " (SELECT key FROM vps_results WHERE created_us < ?1 ORDER BY created_us LIMIT ?2)",
};

struct victim {
    struct str session_id;
    int64_t active_us;
};

struct victims {
    struct arena arena;
    struct victim v[BATCH];
    size_t n, removed;
    const struct sql *sql;
    struct sql_arg args[3];
    size_t n_args;
};

static int victim_row(struct store_row *row, void *arg, struct err *e)
{
    struct victims *all = arg;

    if (all->n < BATCH)
        all->v[all->n++] = (struct victim){
            .session_id = arena_str(&all->arena, row_str(row, 0)),
            .active_us = row_int(row, 1),
        };
    return 0;
}

static int read_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct victims *all = arg;

    all->n = 0;
    return store_run(tx, all->sql, all->args, all->n_args, victim_row, all, e);
}

static int sid_row(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int delete_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct victims *all = arg;
    int r = 0;

    all->removed = 0;
    for (size_t i = 0; r >= 0 && i < all->n; i++) {
        struct sql_arg args[] = { SQL_STR(all->v[i].session_id), SQL_INT(all->v[i].active_us) };
        int64_t sid = 0;

        r = store_run(tx, &sql_delete, args, LEN(args), sid_row, &sid, e);
        if (r < 0 || !sid)
            continue;
        args[0] = SQL_INT(sid);
        r = store_run(tx, &sql_delete_messages, args, 1, NULL, NULL, e);
        all->removed++;
    }
    return r < 0 ? r : 0;
}

/* Leave out the sessions that a call is using or waiting for. */
static void spare_busy(struct bridge *b, struct victims *all)
{
    size_t kept = 0;

    for (size_t i = 0; i < all->n; i++)
        if (!lane_find(&b->sessions, all->v[i].session_id))
            all->v[kept++] = all->v[i];
    all->n = kept;
}

CO static int remove_victims(struct bridge *b, struct victims *all, struct err *e)
{
    int r;

    spare_busy(b, all);
    if (!all->n)
        return 0;
    r = store_do(b->store, delete_body, all, e);
    if (r < 0)
        return r;
    b->n_sessions -= (long long)all->removed;
    metric_add(&bridge_m_swept, 0, (int64_t)all->removed);
    return 0;
}

CO static int cleanup(struct bridge *b, struct victims *all, int64_t before_us,
                      long long *ret_removed, struct err *e)
{
    struct str last = STR("");
    bool more = true;
    int r;

    all->sql = &sql_idle;
    all->n_args = 3;
    while (more) {
        all->args[0] = SQL_INT(before_us);
        all->args[1] = SQL_STR(last);
        all->args[2] = SQL_INT(BATCH);
        r = store_read(b->store, read_body, all, e);
        if (r < 0)
            return r;
        more = all->n == BATCH;
        if (more)
            last = all->v[BATCH - 1].session_id; /* stays in the arena */
        all->removed = 0;
        r = remove_victims(b, all, e);
        if (r < 0)
            return r;
        *ret_removed += (long long)all->removed;
    }
    return 0;
}

CO int sessions_cleanup(struct bridge *b, int64_t before_us, long long *ret_removed, struct err *e)
{
    struct victims *all = xcalloc(1, sizeof(*all));
    long long removed = 0;
    int r;

    r = cleanup(b, all, before_us, &removed, e);
    arena_done(&all->arena);
    free(all);
    if (r == 0)
        *ret_removed = removed;
    return r;
}

/* --- the bound on the number of sessions --- */

CO static int drop(struct bridge *b, struct victims *all, struct err *e)
{
    long long max = b->conf->sessions_max, surplus;
    int r;

    all->sql = &sql_oldest;
    all->n_args = 1;
    while ((surplus = b->n_sessions - max) > 0) {
        surplus += max / 1000; /* some more at once, so that the next ones need not look */
        all->args[0] = SQL_INT(surplus < BATCH ? surplus : BATCH);
        r = store_read(b->store, read_body, all, e);
        if (r < 0)
            return r;
        all->removed = 0;
        r = remove_victims(b, all, e);
        if (r < 0 || !all->removed)
            return r; /* the rest is busy */
        arena_reset(&all->arena);
    }
    return 0;
}

CO int sessions_drop_surplus(struct bridge *b, struct err *e)
{
    struct victims *all;
    int r;

    if (b->dropping)
        return 0;
    b->dropping = true;
    all = xcalloc(1, sizeof(*all));
    r = drop(b, all, e);
    arena_done(&all->arena);
    free(all);
    b->dropping = false;
    return r;
}

static int count_row(struct store_row *row, void *arg, struct err *e)
{
    *(long long *)arg = row_int(row, 0);
    return 0;
}

static int count_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_count, NULL, 0, count_row, arg, e);
}

CO int sessions_recount(struct bridge *b, struct err *e)
{
    long long n = 0;
    int r;

    r = store_read(b->store, count_body, &n, e);
    if (r == 0)
        b->n_sessions = n;
    return r;
}

/* --- results --- */

struct expiry {
    int64_t before_us, removed;
};

static int expire_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct expiry *x = arg;
    const struct sql_arg args[] = { SQL_INT(x->before_us), SQL_INT(BATCH) };
    int r;

    r = store_run(tx, &sql_results, args, LEN(args), NULL, NULL, e);
    x->removed = store_changed(tx);
    return r;
}

CO static int expire_results(struct bridge *b, struct err *e)
{
    struct expiry x = { .before_us = wall_us() - b->conf->idempotency_keep_ms * 1000 };
    int r;

    do {
        r = store_do(b->store, expire_body, &x, e);
    } while (r == 0 && x.removed == BATCH);
    return r;
}

/* --- the fiber --- */

CO static int sweep(struct bridge *b, struct err *e)
{
    long long removed = 0, age_ms = b->conf->session_max_age_ms;
    int r = 0;

    if (age_ms > 0)
        r = sessions_cleanup(b, wall_us() - age_ms * 1000, &removed, e);
    if (removed)
        log_info("idle sessions removed", "sessions", LOG_INT(removed));
    if (r == 0)
        r = expire_results(b, e);
    if (r == 0)
        r = sessions_recount(b, e);
    if (r == 0 && b->n_sessions > b->conf->sessions_max)
        r = sessions_drop_surplus(b, e);
    return r;
}

CO int bridge_sweeper(void *arg, struct err *e)
{
    struct bridge *b = arg;
    uint64_t last_ms = now_ms();
    int r;

    while (!b->stopping) {
        long long every_ms = b->conf->sweep_every_ms;

        r = fiber_sleep(
            (uint64_t)(every_ms > 0 && every_ms < SLEEP_MAX_MS ? every_ms : SLEEP_MAX_MS), e);
        if (r < 0)
            return 0; /* cancelled: the bridge stops */
        every_ms = b->conf->sweep_every_ms;
        if (every_ms == 0 || now_ms() - last_ms < (uint64_t)every_ms)
            continue;
        last_ms = now_ms();
        r = sweep(b, e);
        if (r == -ERR_CANCELED)
            return 0;
        if (r < 0)
            log_warn("the sweep of sessions failed, trying again later", "error", LOG_ERR(e));
    }
    return 0;
}
