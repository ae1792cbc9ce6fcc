/* SPDX-License-Identifier: MIT */
/*
 * durable/lease.c — this process among the others: a row that says "I live until then".
 *
 * The row is renewed by the database's clock and believed by the monotonic one: a lease is held
 * for its length after the moment the last renewal that succeeded was begun. Who does not hold it
 * claims nothing, because others may be taking its work; after twice the length its runs are
 * ended, since by then others have. None of this makes anything safe, the token of each run does:
 * it only keeps two processes from doing the same work for long.
 *
 * An executor's id is new at each start and says nothing of the machine. What belongs together
 * over restarts is the instance: a start declares earlier executors of its instance dead. One
 * that finds its row gone and a younger one of its instance there is that earlier one: it stays out
 * for good. SQLite has one process per file, so there every other executor is dead, and a lease
 * cannot be lost to anybody.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define PARTS    3    /* renewals in one lease */
#define RETRY_MS 250  /* after a renewal that failed */
#define SLICE_MS 1000 /* how soon a stop is told to others */

struct lease {
    uint64_t renewed_ms; /* mono: when the last good renewal began; 0: never */
    unsigned others;
    bool replaced; /* by a younger process of this instance */
    bool ended;    /* the runs were, because it is long over */
    bool failing;
    bool drains; /* the row says so */
};

/* clang-format off */
static const struct sql sql_bury = { /* ?1 executor ?2 instance */
    "earlier executors",
    "DELETE FROM durable_executors WHERE executor_id <> ?1 AND ?2 IS NOT NULL",
    "DELETE FROM durable_executors WHERE executor_id <> ?1 AND instance = ?2",
};
#define ANNOUNCE(now) \
    "INSERT INTO durable_executors" \
    " (executor_id, instance, app_version, started_ms, lease_until_ms, draining)" \
    " VALUES (?1, ?2, ?3, ?5, " now " + ?4, ?6)" \
    " ON CONFLICT (executor_id) DO UPDATE SET lease_until_ms = excluded.lease_until_ms," \
    " draining = excluded.draining"
static const struct sql sql_announce = { /* ... ?3 version ?4 lease ?5 now ?6 draining */
    "announce an executor", ANNOUNCE("?5"), ANNOUNCE(PG_NOW_MS),
};
static const struct sql sql_renew = { /* ?1 executor ?2 lease ?3 now (SQLite) ?4 draining */
    "renew a lease",
    "UPDATE durable_executors SET lease_until_ms = ?3 + ?2, draining = ?4 WHERE executor_id = ?1",
    "UPDATE durable_executors SET lease_until_ms = " PG_NOW_MS " + ?2 + ?3 * 0, draining = ?4"
    " WHERE executor_id = ?1",
};
static const struct sql sql_younger = { /* ?1 executor ?2 instance */
    "younger executors",
    "SELECT count(*) FROM durable_executors WHERE instance = ?2 AND executor_id <> ?1",
    NULL,
};
static const struct sql sql_others = { /* ?1 executor ?2 now (SQLite) */
    "other executors",
    "SELECT count(*) FROM durable_executors WHERE executor_id <> ?1 AND lease_until_ms > ?2",
    "SELECT count(*) FROM durable_executors WHERE executor_id <> ?1"
    " AND lease_until_ms > " PG_NOW_MS " + ?2 * 0",
};
static const struct sql sql_leave = {
    "an executor leaves", "DELETE FROM durable_executors WHERE executor_id = ?1", NULL,
};
/* clang-format on */

struct renewal {
    const struct durable *d;
    int64_t now, others, younger;
    bool first, draining;
};

enum { RENEW_REPLACED = 1 };

static const char *instance_of(const struct durable *d)
{
    return d->conf.instance ? d->conf.instance : d->executor;
}

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    (void)e;
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int insert(struct store_tx *tx, const struct renewal *re, struct err *e)
{
    const struct durable *d = re->d;
    const struct sql_arg row[] = {
        SQL_Z(d->executor),         SQL_Z(instance_of(d)),
        SQL_Z(d->conf.app_version), SQL_INT((int64_t)d->conf.lease_ms),
        SQL_INT(re->now),           SQL_INT(re->draining),
    };

    return store_run(tx, &sql_announce, row, LEN(row), NULL, NULL, e);
}

/* Our row is gone: were we replaced, or only forgotten (asleep for longer than the lease)? */
static int come_back(struct store_tx *tx, struct renewal *re, struct err *e)
{
    const struct sql_arg who[] = { SQL_Z(re->d->executor), SQL_Z(instance_of(re->d)) };
    int r = store_run(tx, &sql_younger, who, LEN(who), take_count, &re->younger, e);

    if (r == 0 && re->younger > 0)
        return RENEW_REPLACED;
    return r < 0 ? r : insert(tx, re, e);
}

static int renew_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct renewal *re = arg;
    const struct durable *d = re->d;
    const struct sql_arg who[] = { SQL_Z(d->executor), SQL_Z(instance_of(d)) };
    const struct sql_arg row[] = { SQL_Z(d->executor), SQL_INT((int64_t)d->conf.lease_ms),
                                   SQL_INT(re->now), SQL_INT(re->draining) };
    const struct sql_arg me[] = { SQL_Z(d->executor), SQL_INT(re->now) };
    int r;

    re->others = re->younger = 0;
    if (re->first) {
        r = store_run(tx, &sql_bury, who, LEN(who), NULL, NULL, e);
        if (r == 0)
            r = insert(tx, re, e);
    } else {
        r = store_run(tx, &sql_renew, row, LEN(row), NULL, NULL, e);
        if (r == 0 && store_changed(tx) == 0)
            r = come_back(tx, re, e);
    }
    return r != 0 ? r : store_run(tx, &sql_others, me, LEN(me), take_count, &re->others, e);
}

static CO int renew(struct durable *d, bool first, struct err *e)
{
    struct renewal re = { .d = d, .now = wall_ms(), .first = first, .draining = d->stopping };
    uint64_t begun = now_ms();
    int r = store_do(d->store, renew_body, &re, e);

    if (r < 0)
        return r;
    if (r == RENEW_REPLACED) {
        d->lease->replaced = true;
        return 0;
    }
    d->lease->renewed_ms = begun > 0 ? begun : 1;
    d->lease->others = (unsigned)re.others;
    d->lease->drains = re.draining;
    d->lease->ended = false;
    return 0;
}

CO int lease_announce(struct durable *d, struct err *e)
{
    if (!d->lease)
        d->lease = xcalloc(1, sizeof(*d->lease));
    return renew(d, true, e);
}

bool lease_held(const struct durable *d)
{
    const struct lease *l = d->lease;

    if (!l || l->renewed_ms == 0 || l->replaced)
        return false;
    return !d->pg || now_ms() - l->renewed_ms < d->conf.lease_ms;
}

unsigned lease_others(const struct durable *d)
{
    return d->lease ? d->lease->others : 0;
}

/* Whoever took over has our work by now: what runs here runs in vain. */
static void end_runs(struct durable *d, const char *why)
{
    if (d->lease->ended)
        return;
    d->lease->ended = true;
    if (d->n_live > 0)
        log_error("the runs of this process are ended", "why", LOG_STR(why), "number",
                  LOG_INT(d->n_live));
    for (struct workflow *w = d->live; w; w = w->next) {
        if (w->end == RUN_GOES)
            metric_add(&durable_m_lost, 0, 1);
        run_end_now(w, RUN_LOST);
    }
}

static void look_at_clock(struct durable *d)
{
    if (d->lease->replaced)
        end_runs(d, "another process of this instance has started");
    else if (d->pg && now_ms() - d->lease->renewed_ms >= 2 * d->conf.lease_ms)
        end_runs(d, "the database was away for twice the lease");
}

/* A lease that was not held and is again: claims may go on. */
static void note(struct durable *d, bool held, int r, const struct err *e)
{
    bool was_replaced = d->lease->replaced && d->lease->ended;

    chore_note("lease", &d->lease->failing, r, e);
    look_at_clock(d);
    if (d->lease->replaced && !was_replaced)
        log_error("another process of this instance has started: this one does no more work",
                  "instance", LOG_STR(instance_of(d)), "executor", LOG_STR(d->executor));
    if (!held && lease_held(d))
        queue_poke(d, (struct str){ 0 });
}

CO int lease_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    uint64_t part = d->conf.lease_ms / PARTS, next = now_ms() + part;
    uint64_t slice = part < SLICE_MS ? part : SLICE_MS;

    while (chore_pause(next > now_ms() + slice ? slice : next > now_ms() ? next - now_ms() : 1)) {
        bool held = lease_held(d);
        int r;

        look_at_clock(d);
        if (d->lease->replaced || (now_ms() < next && d->lease->drains == d->stopping))
            continue;
        r = renew(d, false, e);
        note(d, held, r, e);
        next = now_ms() + (r < 0 && RETRY_MS < part ? RETRY_MS : part);
    }
    return 0;
}

/* When it fails, the row runs out by itself. */
CO void lease_end(struct durable *d)
{
    const struct sql_arg me = SQL_Z(d->executor);
    struct err e;

    if (!d->lease || d->lease->renewed_ms == 0)
        return;
    if (store_once(d->store, &sql_leave, &me, 1, NULL, NULL, &e) < 0)
        log_warn("this process could not take its leave from the database", "error", LOG_ERR(&e));
    d->lease->renewed_ms = 0;
}

void lease_free(struct durable *d)
{
    free(TAKE(d->lease));
}
