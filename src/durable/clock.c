/* SPDX-License-Identifier: MIT */
/*
 * durable/clock.c — the clock of recorded times, and what happens when somebody sets it.
 *
 * Within a process waits are timed by the monotonic clock. What is recorded (the end of a sleep,
 * the delay of a parked workflow) is wall time: of this machine on SQLite, where one process owns
 * the database, and of the server on PostgreSQL, so that engines whose clocks differ agree.
 *
 * When that clock is stepped, parked waits and their records move with it. SQLite: by the step, in
 * both directions. PostgreSQL: there may be many engines that all notice, so the change must be
 * one that does nothing the second time: only waits that began in the future are touched (the
 * clock was set back), and afterwards they begin now. A server's clock that is set forward ends
 * waits early. A step back that nobody saw, because nothing ran, makes a wait start over at most.
 */
#include <stdlib.h>

#include "base/log.h"
#include "durable/wait_int.h"

enum {
    STEP_MS = 1000,    /* less is no step */
    QUICK_MS = 4,      /* an answer that took no longer tells the time well enough */
    TRIES = 5,         /* to get one, at first */
    AGE_MS = 10 * 1000 /* after so long an answer may take 1 ms longer to be the better one */
};

/* clang-format off */
static const struct sql sql_clock = { "durable clock", "SELECT 0", "SELECT " PG_NOW_MS };

/* ?1 step. The records first: they are found by what the rows say. */
static const struct sql sql_move_markers = {
    "durable clock move markers",
    "UPDATE dbos.operation_outputs SET"
    " output = CAST(CAST(output AS INTEGER) + ?1 AS TEXT),"
    " started_at_epoch_ms = started_at_epoch_ms + ?1,"
    " completed_at_epoch_ms = completed_at_epoch_ms + ?1"
    " WHERE function_name = 'DBOS.sleep' AND (workflow_uuid, output) IN"
    "  (SELECT s.workflow_uuid, CAST(s.delay_until_epoch_ms AS TEXT)"
    "   FROM durable_parked p JOIN dbos.workflow_status s ON s.workflow_uuid = p.workflow_uuid"
    "   WHERE s.status = 'DELAYED')", NULL,
};
static const struct sql sql_move = {
    "durable clock move",
    "UPDATE dbos.workflow_status SET delay_until_epoch_ms = delay_until_epoch_ms + ?1"
    " WHERE status = 'DELAYED' AND delay_until_epoch_ms < 9000000000000000"
    " AND workflow_uuid IN (SELECT workflow_uuid FROM durable_parked)", NULL,
};
static const struct sql sql_move_since = {
    "durable clock move since", "UPDATE durable_parked SET since_ms = since_ms + ?1", NULL,
};

/* SQLite, at the start. ?1 now. What began in the future begins now. */
#define AHEAD \
    " FROM (SELECT d.workflow_uuid, d.since_ms, CAST(s.delay_until_epoch_ms AS TEXT) AS until" \
    "  FROM durable_parked d JOIN dbos.workflow_status s ON s.workflow_uuid = d.workflow_uuid" \
    "  WHERE s.status = 'DELAYED' AND d.since_ms > ?1 + 2000) p"
static const struct sql sql_restart_markers = {
    "durable clock restart markers",
    "UPDATE dbos.operation_outputs SET"
    " output = CAST(CAST(output AS INTEGER) + ?1 - p.since_ms AS TEXT),"
    " started_at_epoch_ms = ?1, completed_at_epoch_ms = ?1" AHEAD
    " WHERE operation_outputs.workflow_uuid = p.workflow_uuid"
    " AND function_name = 'DBOS.sleep' AND output = p.until", NULL,
};
static const struct sql sql_restart = {
    "durable clock restart",
    "UPDATE dbos.workflow_status SET"
    " delay_until_epoch_ms = delay_until_epoch_ms + ?1 - p.since_ms" AHEAD
    " WHERE workflow_status.workflow_uuid = p.workflow_uuid"
    " AND delay_until_epoch_ms < 9000000000000000", NULL,
};
static const struct sql sql_restart_since = {
    "durable clock restart since",
    "UPDATE durable_parked SET since_ms = ?1 WHERE since_ms > ?1 + 2000", NULL,
};

/* PostgreSQL. ?1 now, ?2 step (0: not known). The length that is left: at most the whole. */
#define FUTURE " p.since_ms > ?1 + 2000"
#define LEFT   "(?1 + greatest(0, least(s.delay_until_epoch_ms - p.since_ms," \
               " s.delay_until_epoch_ms - ?1 + ?2)))"
static const struct sql sql_back = {
    "durable clock back",
    "SELECT 0",
    "WITH moved AS (SELECT s.workflow_uuid, s.delay_until_epoch_ms AS was, " LEFT " AS until"
    "  FROM durable_parked p JOIN dbos.workflow_status s ON s.workflow_uuid = p.workflow_uuid"
    "  WHERE s.status = 'DELAYED' AND" FUTURE
    "  ORDER BY s.workflow_uuid FOR UPDATE OF s),"
    " markers AS (UPDATE dbos.operation_outputs o SET output = m.until::text,"
    "  started_at_epoch_ms = ?1, completed_at_epoch_ms = ?1 FROM moved m"
    "  WHERE o.workflow_uuid = m.workflow_uuid AND o.function_name = 'DBOS.sleep'"
    "  AND o.output = m.was::text),"
    " since AS (UPDATE durable_parked p SET since_ms = ?1 FROM moved m"
    "  WHERE p.workflow_uuid = m.workflow_uuid)"
    " UPDATE dbos.workflow_status s SET delay_until_epoch_ms = m.until FROM moved m"
    " WHERE s.workflow_uuid = m.workflow_uuid AND s.status = 'DELAYED'"
    " AND m.was < 9000000000000000",
};
/* clang-format on */

static int one_int(struct store_row *row, void *arg, struct err *e)
{
    (void)e;
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

/* Ask once. An answer is off by half the time it took, so the quickest is kept, until it is old. */
CO static int ask(struct durable *d, int64_t *ret_step, struct err *e)
{
    struct waiters *all = waiters_get(d);
    int64_t now = wall_ms(), offset, moved;
    uint64_t began = now_ms(), took;
    int r;

    if (d->pg) {
        r = store_once(d->store, &sql_clock, NULL, 0, one_int, &now, e);
        if (r < 0)
            return r;
    }
    took = now_ms() - began;
    offset = now - (int64_t)(began + took / 2);
    moved = all->known ? offset - all->offset : 0; /* either may be off by half its time */
    if (llabs(moved) > (long long)(STEP_MS + (took + all->took) / 2))
        *ret_step = moved;
    else if (all->known && took > all->took + (now_ms() - all->asked) / AGE_MS)
        return 0;
    all->offset = offset;
    all->took = took;
    all->asked = now_ms();
    all->known = true;
    return 0;
}

/* By how much the clock was stepped since the last look, or 0. On SQLite this does not wait. */
CO static int look(struct durable *d, int64_t *ret_step, struct err *e)
{
    struct waiters *all = waiters_get(d);
    int r, tries = all->known ? 1 : TRIES;

    *ret_step = 0;
    do {
        r = ask(d, ret_step, e);
    } while (r == 0 && all->took > QUICK_MS && --tries > 0);
    return r;
}

uint64_t wait_left_ms(int64_t now_ms, int64_t started_ms, int64_t until_ms)
{
    int64_t whole = until_ms - started_ms, left = until_ms - now_ms;

    if (left <= 0 || whole <= 0)
        return 0;
    return (uint64_t)(started_ms && left > whole ? whole : left);
}

struct shift {
    bool pg;
    int64_t now, step;
};

static int shift_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql *const moves[] = { &sql_move_markers, &sql_move, &sql_move_since };
    static const struct sql *const restart[] = { &sql_restart_markers, &sql_restart,
                                                 &sql_restart_since };
    const struct shift *shift = arg;
    const struct sql *const *each = shift->step ? moves : restart;
    const struct sql_arg back[] = { SQL_INT(shift->now), SQL_INT(-shift->step) };
    const struct sql_arg args[] = { SQL_INT(shift->step ? shift->step : shift->now) };
    int r = 0;

    if (shift->pg)
        return store_run(tx, &sql_back, back, LEN(back), NULL, NULL, e);
    for (size_t i = 0; i < LEN(moves) && r == 0; i++)
        r = store_run(tx, each[i], args, LEN(args), NULL, NULL, e);
    return r;
}

/* step 0: at the start, when it is not known. */
CO static int shift(struct durable *d, int64_t step, struct err *e)
{
    struct shift it = { d->pg, waiters_get(d)->offset + (int64_t)now_ms(), step };

    if (d->pg && step > 0)
        return 0;
    return store_do(d->store, shift_body, &it, e);
}

CO int clock_follow(struct durable *d, struct err *e)
{
    struct waiters *all = waiters_get(d);
    int64_t step;
    int r;

    r = look(d, &step, e);
    if (r < 0)
        return r;
    if (step)
        log_warn("the clock of the database was stepped", "ms", LOG_INT(step));
    step += all->owed;
    all->owed = 0; /* who looks meanwhile finds no step, and comes after us in the database */
    if (step)
        r = shift(d, step, e);
    if (r < 0)
        all->owed += step;
    return r;
}

CO int clock_begin(struct durable *d, struct err *e)
{
    struct waiters *all = waiters_get(d);
    int r = clock_follow(d, e);

    if (r < 0 || all->begun)
        return r;
    r = shift(d, 0, e);
    all->begun = r == 0;
    return r;
}

CO int64_t clock_ms(struct durable *d)
{
    struct waiters *all = waiters_get(d);
    int64_t step;
    struct err e;

    /*
     * Who records a time by the new clock must come after the change of those by the old. When it
     * failed, so will the record, and the sweep tries again.
     */
    if (!d->pg) {
        if (clock_follow(d, &e) < 0)
            log_warn("parked workflows do not follow the clock yet", "error", LOG_ERR(&e));
        return wall_ms();
    }
    /* The database is away: ours is the best clock there is. */
    if (!all->known && look(d, &step, &e) < 0)
        return wall_ms();
    return all->offset + (int64_t)now_ms();
}
