/* SPDX-License-Identifier: MIT */
/*
 * Things that happen at the wrong moment: a stop while starts, steps, waits and children are on
 * their way, two stops, and an execution that comes back from a long step when its workflow
 * belongs to another one.
 */
#define TESTS_AT_ONCE 4

#include "durable/engine_fixture.h"
#include "durable/manage.h"

#define STATUS "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"

/* A step that minds no cancel: its first execution waits until it is let go. */
static struct {
    unsigned runs, inside, old_wrote, old_calls;
    bool open;
    struct fiber *waits;
} held;

static CO int held_step(void *arg, struct buf *out, struct err *e)
{
    unsigned run = ++held.runs;

    (void)arg;
    if (run == 1) {
        held.inside++;
        held.waits = fiber_self();
        while (!held.open)
            fiber_park_hard();
        held.waits = NULL;
    }
    return buf_printf(out, e, "%u", run);
}

static int insert_body(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    (void)arg;
    (void)out;
    return store_exec(
        tx, SQL_TEXT("INSERT INTO durable_queues (name, hold_slot) VALUES ('by-old', 0)"), e);
}

/* As if the execution had noticed nothing: what it writes is up to the database. */
static void forget_end(struct workflow *w, int r)
{
    held.old_calls++;
    held.old_wrote += r >= 0;
    w->end = RUN_GOES;
}

static CO int old_writes(struct workflow *w, struct err *e)
{
    struct durable_start child = { .name = "quick", .id = STR("child-of-old") };
    struct durable_started started;

    w->fresh = true;
    forget_end(w, -1);
    forget_end(w, durable_set_event(w, STR("old"), STR("1"), e));
    forget_end(w, durable_write_stream(w, STR("old"), STR("1"), e));
    forget_end(w, durable_close_stream(w, STR("old2"), e));
    forget_end(w, durable_send(w, STR("other"), STR("t"), STR("1"), STR("by-old"), e));
    forget_end(w, durable_child(w, &child, &started, e));
    forget_end(w, durable_step_tx(w, "tx", insert_body, NULL, NULL, e));
    forget_end(w, durable_sleep(w, 1, e));
    forget_end(w, durable_sleep(w, 3600 * 1000, e)); /* parks */
    forget_end(w, durable_recv(w, STR("t"), 3600 * 1000, NULL, e));
    return 0; /* and finishes */
}

static CO int long_fn(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    (void)ctx;
    buf_init(&out, KIB);
    r = durable_step(w, "long", NULL, held_step, NULL, &out, e);
    if (r < 0 && held.open && held.old_calls == 0)
        return old_writes(w, e);
    return r < 0 ? r : durable_return(w, buf_str(&out), e);
}

static CO int quick_fn(struct workflow *w, void *ctx, struct err *e)
{
    (void)ctx;
    return durable_return(w, STR("true"), e);
}

static const struct durable_type types[] = {
    { .name = "long", .fn = long_fn },
    { .name = "quick", .fn = quick_fn },
};

static CO bool comes_in(unsigned want)
{
    uint64_t until = deadline_in(PATIENCE_MS);

    while (held.inside < want && now_ms() < until) {
        if (fiber_sleep(5, NULL) < 0)
            return false;
    }
    return held.inside >= want;
}

static CO bool all_gone(struct engine *f)
{
    uint64_t until = deadline_in(PATIENCE_MS);

    while (f->d->n_live > 0 && now_ms() < until) {
        if (fiber_sleep(5, NULL) < 0)
            return false;
    }
    return f->d->n_live == 0;
}

static void let_go(void)
{
    held.open = true;
    if (held.waits)
        fiber_wake(held.waits);
}

/* Cancelled in its step and run again; then the first execution comes back. */
static CO int comes_back(struct engine *f, bool rewind, struct err *e)
{
    const struct str id = STR("w");
    int64_t n;

    memset(&held, 0, sizeof(held));
    CO_CHECK(starts(f, "quick", "other") && ends_as(f, "other", "SUCCESS"));
    CO_CHECK(starts(f, "long", "w") && comes_in(1));
    CO_CHECK(durable_cancel(f->d, &id, 1, false, &n, e) == 0 && n == 1);
    CO_CHECK((rewind ? durable_rewind(f->d, id, 0, e)
                     : durable_resume(f->d, id, (struct str){ 0 }, e)) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    /* The first one is still there; the second may not have left yet when its row says so. */
    for (int i = 0; i < 2000 && f->d->n_live > 1; i++)
        CO_CHECK(fiber_sleep(5, e) == 0);
    let_go();
    CO_CHECK(all_gone(f));
    CO_CHECK(held.old_calls == 10);
    CO_CHECK(held.old_wrote == 0);
    CO_CHECK(row_is(f, STATUS, "w", "SUCCESS"));
    CO_CHECK(
        row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1", "w", "2"));
    CO_CHECK(
        row_is(f, "SELECT output FROM dbos.operation_outputs WHERE workflow_uuid = ?1", "w", "2"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.operation_outputs", NULL, "1"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_events", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_events_history", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.streams", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.notifications", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_parked", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_queues WHERE name = 'by-old'", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status", NULL, "2"));
    return 0;
}

ENGINE_TEST_CONF(after_cancel_and_resume_the_old_execution_writes_nothing, types,
                 .instance = "test", .park_ms = 50)
{
    return comes_back(f, false, e);
}

ENGINE_TEST_CONF(after_cancel_and_rewind_the_old_execution_writes_nothing, types,
                 .instance = "test", .park_ms = 50)
{
    return comes_back(f, true, e);
}

/* --- stops --- */

static struct {
    struct engine *f;
    int r;
    bool done;
} on_its_way;

static CO int start_main(void *arg, struct err *e)
{
    struct durable_start start = { .name = "quick", .id = STR("late") };
    struct durable_started started;

    (void)arg;
    on_its_way.r = durable_start(on_its_way.f->d, &start, &started, e);
    on_its_way.done = true;
    return 0;
}

ENGINE_TEST(a_start_on_its_way_when_the_engine_stops_begins_nothing_and_is_not_lost, types)
{
    struct fiber *one;

    on_its_way.f = f;
    on_its_way.done = false;
    CO_CHECK(fiber_spawn(f->store->loop, "start", start_main, NULL, &one, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(!on_its_way.done && f->d->n_starting == 1);
    durable_stop(f->d, 0);
    CO_CHECK(fiber_join(one, e) == 0 && on_its_way.r == 0);
    CO_CHECK(f->d->n_live == 0);
    CO_CHECK(row_is(f, STATUS, "late", "ENQUEUED"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND owner_xid IS NULL AND recovery_attempts = 0",
                    "late", "1"));
    durable_free(TAKE(f->d));
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "late", "SUCCESS"));
    return 0;
}

static CO int stop_main(void *arg, struct err *e)
{
    (void)e;
    durable_stop(on_its_way.f->d, *(uint64_t *)arg);
    return 0;
}

static CO int let_go_soon(void *arg, struct err *e)
{
    (void)arg;
    if (fiber_sleep(100, e) == 0)
        let_go();
    return 0;
}

ENGINE_TEST(two_stops_at_once_are_one, types)
{
    struct fiber *one, *two, *three;
    uint64_t grace = PATIENCE_MS, none = 0;

    memset(&held, 0, sizeof(held));
    on_its_way.f = f;
    CO_CHECK(starts(f, "long", "w") && comes_in(1));
    CO_CHECK(fiber_spawn(f->store->loop, "stop", stop_main, &none, &one, e) == 0);
    CO_CHECK(fiber_spawn(f->store->loop, "stop", stop_main, &grace, &two, e) == 0);
    CO_CHECK(fiber_spawn(f->store->loop, "let go", let_go_soon, NULL, &three, e) == 0);
    CO_CHECK(fiber_join(one, e) == 0);
    CO_CHECK(!f->d->running);
    CO_CHECK(fiber_join(two, e) == 0 && fiber_join(three, e) == 0);
    CO_CHECK(f->d->n_live == 0 && fiber_group_size(f->d->chores) == 0);
    return 0;
}

/* --- a timeout of any size --- */

ENGINE_TEST(a_timeout_beyond_all_times_holds_up_no_queue, types)
{
    const struct durable_fork fork = { .id = STR("w"), .timeout_ms = INT64_MAX };
    struct durable_start start = { .name = "quick", .id = STR("huge"), .queue = STR("later") };
    struct durable_started started;
    char id[DURABLE_ID];

    CO_CHECK(starts(f, "quick", "w") && ends_as(f, "w", "SUCCESS"));
    CO_CHECK(durable_fork(f->d, &fork, id, e) == -ERR_INVALID);
    CO_CHECK(durable_start(f->d, &start, &started, e) == 0);
    /* as another engine's client may write it */
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET workflow_timeout_ms = 9223372036854775807,"
                     " queue_name = '_dbos_internal_queue' WHERE workflow_uuid = ?1",
                     "huge", NULL, e) == 0);
    CO_CHECK(ends_as(f, "huge", "SUCCESS"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND workflow_deadline_epoch_ms > 4000000000000000000",
                    "huge", "1"));
    return 0;
}

/* --- stops amid everything --- */

enum { MIXED = 24, ROUNDS = 8 };

static CO int slow_step(void *arg, struct buf *out, struct err *e)
{
    int r = fiber_sleep(*(uint64_t *)arg, e);

    return r < 0 ? r : buf_add_z(out, "1", e);
}

static CO int mixed_fn(struct workflow *w, void *ctx, struct err *e)
{
    const struct durable_retry retry = { .tries = 50, .first_ms = 1, .timeout_ms = 5000 };
    struct durable_start start = { .name = "quick" };
    struct durable_started child;
    uint64_t ms = 1 + w->id[0] % 17;
    int r;

    (void)ctx;
    r = durable_step(w, "slow", &retry, slow_step, &ms, NULL, e);
    if (r == 0)
        r = durable_child(w, &start, &child, e);
    if (r == 0)
        r = durable_set_event(w, STR("k"), STR("1"), e);
    if (r == 0)
        r = durable_write_stream(w, STR("s"), STR("1"), e);
    if (r == 0)
        r = durable_send(w, str_of(workflow_id(w)), STR("t"), STR("1"), (struct str){ 0 }, e);
    if (r == 0)
        r = durable_recv(w, STR("t"), 20000, NULL, e);
    if (r == 0)
        r = durable_sleep(w, ms * 3, e); /* some park */
    if (r == 0)
        r = durable_result(w, str_of(child.id), 0, NULL, e);
    return r < 0 ? r : durable_return(w, STR("true"), e);
}

static const struct durable_type mixed_types[] = {
    { .name = "mixed", .fn = mixed_fn },
    { .name = "quick", .fn = quick_fn },
};

ENGINE_TEST_CONF(stops_amid_everything_lose_nothing_and_count_as_no_attempt, mixed_types,
                 .instance = "test", .park_ms = 20, .sweep_ms = 50)
{
    char id[16];

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MIXED / ROUNDS; i++) {
            fmt_z(id, sizeof(id), "%c%d", 'a' + round * 3 + i, round);
            CO_CHECK(starts(f, "mixed", id));
        }
        CO_CHECK(fiber_sleep((uint64_t)round * 5, e) == 0);
        engine_down(f);
        CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING'",
                        NULL, "0"));
        CO_CHECK(engine_up(f, e) == 0);
    }
    CO_CHECK(row_becomes(f,
                         "SELECT count(*) FROM dbos.workflow_status"
                         " WHERE name = 'mixed' AND status = 'SUCCESS'",
                         NULL, "24"));
    CO_CHECK(row_becomes(f, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
                         NULL, "48"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status", NULL, "48"));
    CO_CHECK(row_is(f, "SELECT max(recovery_attempts) FROM dbos.workflow_status", NULL, "1"));
    CO_CHECK(
        row_is(f, "SELECT count(*) FROM dbos.notifications WHERE consumed = TRUE", NULL, "24"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.streams", NULL, "24"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_parked", NULL, "0"));
    return 0;
}
