/* SPDX-License-Identifier: MIT */
/*
 * durable/sweep.c — what must be looked at now and then, because nobody says it in time.
 *
 * Every sweep: delays that are over, deadlines that have passed, what is parked (unpark.c), the
 * runs of this process whose rows say otherwise (watch.c), queues, versions, gauges. Each look
 * stands alone: one that fails is made again by the next sweep and holds up none of the others.
 *
 * Between sweeps the fiber wakes for the next delay that is due. Nothing here decides by memory:
 * a hint only moves the time of the next look.
 */
#include "durable/queue_int.h"

#include "base/log.h"

#define STEP_MS   1000 /* a wall clock that differs by less was not set */
#define GATHER_MS 5    /* delays that come due together are woken together */
#define BATCHES   50   /* of one kind in one sweep, before the others have their turn */

static int64_t wall_offset(void)
{
    return wall_ms() - (int64_t)now_ms();
}

/*
 * What recorded times are compared with: on SQLite the clock as the last look found it, so that one
 * that is set between the look and the comparison ends nothing.
 */
static int64_t sweep_now(const struct durable *d)
{
    return d->pg ? wall_ms() : d->sweeper->offset + (int64_t)now_ms();
}

static struct sweeper *sweeper_get(struct durable *d)
{
    if (!d->sweeper) {
        d->sweeper = xcalloc(1, sizeof(*d->sweeper));
        d->sweeper->due = INT64_MAX;
        d->sweeper->offset = wall_offset();
    }
    return d->sweeper;
}

void sweeper_free(struct durable *d)
{
    if (!d->sweeper)
        return;
    for (size_t i = 0; i < LEN(d->sweeper->suspects); i++)
        arena_done(&d->sweeper->suspects[i]);
    free(TAKE(d->sweeper));
}

void chore_note(const char *chore, bool *failing, int r, const struct err *e)
{
    if (r < 0) {
        metric_add(&durable_m_chore_failures, 0, 1);
        if (!*failing)
            log_warn("a chore of the durable engine fails and is tried again", "chore",
                     LOG_STR(chore), "error", LOG_ERR(e));
    } else if (*failing) {
        log_info("a chore of the durable engine works again", "chore", LOG_STR(chore));
    }
    *failing = r < 0;
}

CO bool chore_pause(uint64_t ms)
{
    return fiber_sleep(ms, NULL) == 0;
}

void sweep_due(struct durable *d, int64_t wall)
{
    struct sweeper *s = sweeper_get(d);

    if (wall <= 0)
        s->next_ms = 0;
    else if (wall >= s->due)
        return;
    else
        s->due = wall;
    if (s->fiber)
        fiber_wake(s->fiber);
}

/* --- delays --- */

/* clang-format off */
#define DELAY_OVER(now) \
    " SET status = 'ENQUEUED', updated_at = " now "," \
    " queue_name = COALESCE(queue_name, '" DURABLE_INTERNAL_QUEUE "')," \
    " deduplication_id = CASE WHEN is_debounced THEN NULL ELSE deduplication_id END"
#define DELAYS_DUE(now) \
    "SELECT w.workflow_uuid FROM dbos.workflow_status w WHERE w.status = 'DELAYED'" \
    " AND w.delay_until_epoch_ms <= " now " ORDER BY w.delay_until_epoch_ms LIMIT ?2"
static const struct sql sql_delays = { /* ?1 now (SQLite) ?2 how many */
    "delays that are over",
    "UPDATE dbos.workflow_status" DELAY_OVER("?1")
    " WHERE workflow_uuid IN (" DELAYS_DUE("?1") ") RETURNING queue_name",
    "WITH due AS MATERIALIZED (" DELAYS_DUE(PG_NOW_ONCE) " FOR UPDATE SKIP LOCKED)"
    " UPDATE dbos.workflow_status w" DELAY_OVER(PG_NOW_MS)
    " FROM due WHERE w.workflow_uuid = due.workflow_uuid"
    " AND ?1 IS NOT NULL RETURNING w.queue_name",
};
static const struct sql sql_next_delay = {
    "next delay",
    "SELECT min(delay_until_epoch_ms) - ?1 FROM dbos.workflow_status WHERE status = 'DELAYED'",
    "SELECT min(delay_until_epoch_ms) - " PG_NOW_MS " + ?1 * 0"
    " FROM dbos.workflow_status WHERE status = 'DELAYED'",
};
/* clang-format on */

struct delays {
    int64_t now, n, next_ms;
    bool any_next;
    struct touched touched;
};

static int take_queue(struct store_row *row, void *arg, struct err *e)
{
    struct delays *delays = arg;

    (void)e;
    delays->n++;
    touched_add(&delays->touched, row_str(row, 0));
    return 0;
}

static int take_next(struct store_row *row, void *arg, struct err *e)
{
    struct delays *delays = arg;

    (void)e;
    delays->any_next = !row_is_null(row, 0);
    delays->next_ms = row_int(row, 0);
    return 0;
}

static int delays_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct delays *delays = arg;
    const struct sql_arg args[] = { SQL_INT(delays->now), SQL_INT(SWEEP_BATCH) };
    int r;

    touched_reset(&delays->touched);
    delays->n = 0;
    delays->any_next = false;
    r = store_run(tx, &sql_delays, args, LEN(args), take_queue, delays, e);
    if (r == 0)
        r = store_run(tx, &sql_next_delay, args, 1, take_next, delays, e);
    return r;
}

static CO int sweep_delays(struct durable *d, struct err *e)
{
    struct delays delays = { .n = SWEEP_BATCH };
    int r = 0;

    for (int i = 0; i < BATCHES && r == 0 && delays.n == SWEEP_BATCH; i++) {
        delays.now = sweep_now(d);
        d->sweeper->due = INT64_MAX; /* hints from here on count */
        r = store_do(d->store, delays_body, &delays, e);
        if (r == 0 && delays.any_next)
            sweep_due(d, sweep_now(d) + (delays.next_ms > 0 ? delays.next_ms : 1));
        if (r == 0)
            touched_poke(d, &delays.touched);
    }
    touched_reset(&delays.touched);
    return r;
}

/* --- deadlines --- */

/* clang-format off */
#define CANCEL_IT(now) \
    " SET status = 'CANCELLED', owner_xid = NULL, queue_name = NULL, deduplication_id = NULL," \
    " started_at_epoch_ms = NULL, completed_at = " now ", updated_at = " now
#define DEADLINES_PASSED(now) \
    "SELECT w.workflow_uuid FROM dbos.workflow_status w" \
    " WHERE w.status IN ('ENQUEUED', 'PENDING', 'DELAYED')" \
    " AND w.workflow_deadline_epoch_ms IS NOT NULL AND w.workflow_deadline_epoch_ms <= " now \
    " ORDER BY w.workflow_deadline_epoch_ms LIMIT ?2"
static const struct sql sql_deadlines = { /* ?1 now (SQLite) ?2 how many */
    "deadlines that have passed",
    "UPDATE dbos.workflow_status" CANCEL_IT("?1")
    " WHERE workflow_uuid IN (" DEADLINES_PASSED("?1") ") RETURNING workflow_uuid",
    "WITH late AS MATERIALIZED (" DEADLINES_PASSED(PG_NOW_ONCE) " FOR UPDATE SKIP LOCKED)"
    " UPDATE dbos.workflow_status w" CANCEL_IT(PG_NOW_MS)
    " FROM late WHERE w.workflow_uuid = late.workflow_uuid AND ?1 IS NOT NULL"
    " RETURNING w.workflow_uuid",
};
static const struct sql sql_unpark_over = {
    "parked ones that are over",
    "DELETE FROM durable_parked WHERE workflow_uuid = ?1",
    NULL,
};
/* clang-format on */

struct deadlines {
    int64_t now;
    struct arena arena;
    struct str *ids;
    size_t n;
};

static int take_late(struct store_row *row, void *arg, struct err *e)
{
    struct deadlines *late = arg;

    if (late->n == SWEEP_BATCH)
        return err_set(e, ERR_INTERNAL, "more deadlines than were asked for");
    late->ids[late->n++] = arena_str(&late->arena, row_str(row, 0));
    return 0;
}

static int deadlines_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct deadlines *late = arg;
    const struct sql_arg args[] = { SQL_INT(late->now), SQL_INT(SWEEP_BATCH) };
    int r;

    arena_reset(&late->arena);
    late->ids = arena_alloc(&late->arena, SWEEP_BATCH * sizeof(*late->ids));
    late->n = 0;
    r = store_run(tx, &sql_deadlines, args, LEN(args), take_late, late, e);
    for (size_t i = 0; i < late->n && r == 0; i++) {
        const struct sql_arg id = SQL_STR(late->ids[i]);

        r = store_run(tx, &sql_unpark_over, &id, 1, NULL, NULL, e);
    }
    return r;
}

static void tell_cancelled(struct durable *d, const struct deadlines *late)
{
    for (size_t i = 0; i < late->n; i++) {
        struct workflow *w = run_find(d, late->ids[i]);

        if (w)
            run_end_now(w, RUN_CANCELLED);
        wake_waiters(d, WAIT_RESULT, late->ids[i], (struct str){ 0 });
        notify_others(d, NOTIFY_CANCEL, late->ids[i]);
    }
}

static CO int sweep_deadlines(struct durable *d, struct err *e)
{
    struct deadlines late = { .n = SWEEP_BATCH };
    int r = 0;

    for (int i = 0; i < BATCHES && r == 0 && late.n == SWEEP_BATCH; i++) {
        late.now = sweep_now(d);
        r = store_do(d->store, deadlines_body, &late, e);
        if (r == 0)
            tell_cancelled(d, &late);
        if (r == 0 && late.n > 0)
            log_info("workflows were cancelled at their deadline", "number", LOG_INT(late.n));
    }
    arena_done(&late.arena);
    return r;
}

/* --- a clock that was set (SQLite) --- */

/* clang-format off */
/* ?1 by how much. What is parked has records that must move with it: unpark.c has done that. */
static const struct sql sql_move_deadlines = {
    "move deadlines",
    "UPDATE dbos.workflow_status"
    " SET workflow_deadline_epoch_ms = workflow_deadline_epoch_ms + ?1"
    " WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')"
    " AND workflow_deadline_epoch_ms IS NOT NULL",
    NULL,
};
static const struct sql sql_move_delays = {
    "move delays",
    "UPDATE dbos.workflow_status SET delay_until_epoch_ms = delay_until_epoch_ms + ?1"
    " WHERE status = 'DELAYED' AND workflow_uuid NOT IN (SELECT workflow_uuid FROM durable_parked)",
    NULL,
};
/* clang-format on */

static bool clock_stepped(const struct durable *d)
{
    int64_t step = wall_offset() - d->sweeper->offset;

    return !d->pg && (step > STEP_MS || step < -STEP_MS);
}

static int move_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg step = SQL_INT(*(const int64_t *)arg);
    int r = store_run(tx, &sql_move_deadlines, &step, 1, NULL, NULL, e);

    return r < 0 ? r : store_run(tx, &sql_move_delays, &step, 1, NULL, NULL, e);
}

/*
 * On SQLite the recorded times are of this process's wall clock. When that is set, timeouts and
 * delays keep their length. PostgreSQL has a clock of its own, which nobody moves for us.
 */
static CO int sweep_clock(struct durable *d, struct err *e)
{
    int64_t offset = wall_offset(), step = offset - d->sweeper->offset;
    int r;

    if (!clock_stepped(d))
        return 0;
    r = store_do(d->store, move_body, &step, e);
    if (r < 0)
        return r;
    d->sweeper->offset = offset;
    for (struct workflow *w = d->live; w; w = w->next) {
        if (w->deadline_ms > 0)
            w->deadline_ms += step;
    }
    return 0;
}

/* --- the chore --- */

static const struct {
    const char *name;
    CO int (*fn)(struct durable *d, struct err *e);
} looks[LOOKS] = {
    [LOOK_PARKED] = { "parked workflows", unpark_sweep },
    [LOOK_CLOCK] = { "clock", sweep_clock },
    [LOOK_DELAYS] = { "delays", sweep_delays },
    [LOOK_DEADLINES] = { "deadlines", sweep_deadlines },
    [LOOK_OWN] = { "own runs", watch_own },
    [LOOK_QUEUES] = { "queue definitions", queues_reload },
    [LOOK_VERSION] = { "versions", gauge_version },
    [LOOK_GAUGES] = { "gauges", gauge_queues },
};

static CO int look_at(struct durable *d, enum look look)
{
    struct err e = { 0 };
    int r = looks[look].fn(d, &e);

    if (r != -ERR_CANCELED)
        chore_note(looks[look].name, &d->sweeper->failing[look], r, &e);
    if (r < 0 && look == LOOK_DELAYS) /* it was forgotten what is due when */
        queue_poke(d, (struct str){ 0 });
    return r;
}

/* What compares recorded times comes after the look at the clock, and not when that failed. */
static CO void sweep(struct durable *d)
{
    struct sweeper *s = d->sweeper;

    s->next_ms = now_ms() + d->conf.sweep_ms;
    for (int i = 0; i < LOOKS && !fiber_canceled(); i++) {
        if (i == LOOK_GAUGES && now_ms() < s->gauges_ms)
            continue;
        if (look_at(d, (enum look)i) < 0 && i == LOOK_CLOCK)
            break;
    }
}

/* When to look next: for a delay not before a few have gathered, for everything in its turn. A
 * wall clock that steps is noticed by the whole sweep. */
static uint64_t next_look(const struct sweeper *s, uint64_t last)
{
    uint64_t at = s->next_ms;
    int64_t left;

    if (s->due != INT64_MAX) {
        left = s->due - wall_ms();
        at = deadline_min(at, now_ms() + (left > 0 ? (uint64_t)left : 0));
    }
    return at > last + GATHER_MS ? at : last + GATHER_MS;
}

CO int sweep_chore(void *arg, struct err *e)
{
    struct durable *d = arg;
    struct sweeper *s = sweeper_get(d);
    uint64_t last = 0;

    (void)e;
    s->fiber = fiber_self();
    while (!fiber_canceled()) {
        uint64_t next = next_look(s, last);

        if (now_ms() < next) {
            if (fiber_park(next, NULL) == -ERR_CANCELED)
                break;
            continue;
        }
        if (now_ms() >= s->next_ms || clock_stepped(d))
            sweep(d);
        else
            (void)look_at(d, LOOK_DELAYS); /* it has noted what failed */
        last = now_ms();
    }
    s->fiber = NULL;
    return 0;
}
