/* SPDX-License-Identifier: MIT */
/*
 * durable/engine_test.c — one execution: its steps, its journal, replay, and the ways it ends. On
 * SQLite or, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 4

#include "durable/engine_fixture.h"

/* What the bodies of steps did, and a gate that some of them wait at. */
static struct {
    int one, two, fn, fails;
    bool open, waiting;
    const char *name; /* of the step that may change */
} seen;

static int body_one(void *arg, struct buf *out, struct err *e)
{
    seen.one++;
    return buf_add_z(out, "{\"n\":1}", e);
}

static CO int body_two(void *arg, struct buf *out, struct err *e)
{
    int r = 0;

    seen.two++;
    seen.waiting = true;
    while (r == 0 && !seen.open)
        r = fiber_sleep(2, e);
    seen.waiting = false;
    return r < 0 ? r : buf_add_z(out, "2", e);
}

static CO int two_steps(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    seen.fn++;
    buf_init(&out, 1 * KIB);
    r = durable_step(w, seen.name, NULL, body_one, NULL, &out, e);
    if (r == 0)
        r = durable_step(w, "two", NULL, body_two, NULL, NULL, e);
    return r < 0 ? r : durable_return(w, buf_str(&out), e);
}

/* Until body two is at the gate, for the n-th time. */
static CO bool at_gate(int n)
{
    uint64_t until = deadline_in(PATIENCE_MS);

    while (!(seen.waiting && seen.two >= n)) {
        if (now_ms() > until || fiber_sleep(2, NULL) < 0)
            return false;
    }
    return true;
}

static void begin(bool open)
{
    memset(&seen, 0, sizeof(seen));
    seen.open = open;
    seen.name = "one";
}

/* clang-format off */
#define OUTPUT "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1"
#define LEGACY "SELECT output FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define ERROR  "SELECT error FROM dbos.workflow_output WHERE workflow_uuid = ?1"
#define STEPS  "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
#define ATTEMPTS "SELECT recovery_attempts FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define OWNER "SELECT owner_xid FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define STEP_ERROR "SELECT error FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
/* clang-format on */

static const struct durable_type steps_type[] = { { .name = "two_steps", .fn = two_steps } };

ENGINE_TEST(a_started_workflow_runs_its_steps_and_keeps_its_result, steps_type)
{
    begin(true);
    CO_CHECK(starts(f, "two_steps", "w"));
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, OUTPUT, "w", "{\"n\":1}"));
    CO_CHECK(row_is(f, LEGACY, "w", "{\"n\":1}"));
    CO_CHECK(row_is(f, STEPS " AND function_id IN (0, 1)", "w", "2"));
    CO_CHECK(row_is(f, OWNER, "w", "(null)"));
    CO_CHECK(seen.one == 1 && seen.two == 1 && seen.fn == 1);
    return 0;
}

ENGINE_TEST(a_stop_gives_the_workflow_back_and_the_next_engine_replays_it, steps_type)
{
    begin(false);
    CO_CHECK(starts(f, "two_steps", "w"));
    CO_CHECK(at_gate(1));
    engine_down(f);
    CO_CHECK(row_is(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1", "w",
                    "ENQUEUED"));
    CO_CHECK(row_is(f, STEPS, "w", "1"));
    seen.open = true;
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, OUTPUT, "w", "{\"n\":1}"));
    CO_CHECK(row_is(f, ATTEMPTS, "w", "1"));
    CO_CHECK(seen.one == 1 && seen.two == 2 && seen.fn == 2);
    return 0;
}

#define NOT_OURS \
    "UPDATE dbos.workflow_status SET status = 'SUCCESS', owner_xid = NULL, output = '{\"n\":3}'" \
    " WHERE workflow_uuid = ?1"

/* The answer of an await is what is in the database, told by the run here or read there. */
ENGINE_TEST(who_awaits_a_run_gets_what_it_wrote_or_what_another_wrote_instead, steps_type)
{
    AUTO(buf_done) struct buf out;
    enum durable_status status;

    buf_init(&out, 1 * KIB);
    begin(true);
    CO_CHECK(starts(f, "two_steps", "v"));
    for (int i = 0; i < 2; i++) { /* while it runs, and when nothing of it is in memory */
        buf_clear(&out);
        CO_CHECK(durable_await(f->d, STR("v"), deadline_in(PATIENCE_MS), &status, &out, e) == 0);
        CO_CHECK(status == DURABLE_SUCCESS && str_eq_z(buf_str(&out), "{\"n\":1}"));
        CO_CHECK(row_is(f, OUTPUT, "v", "{\"n\":1}"));
    }
    begin(false);
    CO_CHECK(starts(f, "two_steps", "w"));
    CO_CHECK(at_gate(1));
    CO_CHECK(sql_run(f, NOT_OURS, "w", NULL, e) == 0);
    buf_clear(&out);
    CO_CHECK(durable_await(f->d, STR("w"), deadline_in(PATIENCE_MS), &status, &out, e) == 0);
    CO_CHECK(status == DURABLE_SUCCESS && str_eq_z(buf_str(&out), "{\"n\":3}"));
    seen.open = true;
    for (int i = 0; i < 5000 && f->d->n_live > 0; i++)
        CO_CHECK(fiber_sleep(2, e) == 0);
    CO_CHECK(f->d->n_live == 0 && row_is(f, OUTPUT, "w", "(none)"));
    return 0;
}

/* Somebody else took it, as a recovery does, while it is inside of a step. */
ENGINE_TEST(who_lost_the_workflow_writes_nothing_and_the_new_owner_runs_it, steps_type)
{
    begin(false);
    CO_CHECK(starts(f, "two_steps", "w"));
    CO_CHECK(at_gate(1));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET owner_xid = 'another'"
                     " WHERE workflow_uuid = ?1",
                     "w", NULL, e) == 0);
    seen.open = true;
    for (int i = 0; i < 5000 && f->d->n_live > 0; i++)
        CO_CHECK(fiber_sleep(2, e) == 0);
    CO_CHECK(f->d->n_live == 0);
    CO_CHECK(row_is(f, STEPS, "w", "1"));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET status = 'ENQUEUED', owner_xid = NULL,"
                     " queue_name = '_dbos_internal_queue' WHERE workflow_uuid = ?1",
                     "w", NULL, e) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, STEPS, "w", "2"));
    CO_CHECK(seen.one == 1 && seen.two == 2);
    return 0;
}

ENGINE_TEST(two_runs_of_one_workflow_record_each_step_once, steps_type)
{
    begin(false);
    CO_CHECK(starts(f, "two_steps", "w"));
    CO_CHECK(at_gate(1));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET status = 'ENQUEUED', owner_xid = NULL,"
                     " queue_name = '_dbos_internal_queue' WHERE workflow_uuid = ?1",
                     "w", NULL, e) == 0);
    CO_CHECK(at_gate(2)); /* claimed again, beside the run that does not know yet */
    seen.open = true;
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, STEPS, "w", "2"));
    CO_CHECK(seen.one == 1);
    return 0;
}

ENGINE_TEST(a_workflow_whose_code_changed_under_it_stops_with_a_clear_error, steps_type)
{
    char error[512];

    begin(false);
    CO_CHECK(starts(f, "two_steps", "w"));
    CO_CHECK(at_gate(1));
    engine_down(f);
    begin(true);
    seen.name = "renamed";
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "w", "ERROR"));
    CO_CHECK(sql_run(f, ERROR, "w", error, e) == 0);
    CO_CHECK(strstr(error, "26") && strstr(error, "'renamed'") && strstr(error, "'one'"));
    CO_CHECK(row_is(f, STEPS, "w", "1")); /* its history is as it was */
    CO_CHECK(seen.one == 0);
    return 0;
}

/* Retries */

static int body_fails(void *arg, struct buf *out, struct err *e)
{
    seen.one++;
    if (seen.one <= seen.fails)
        return err_set(e, ERR_NOT_FOUND, "nothing there, try %d", seen.one);
    return buf_add_z(out, "\"found\"", e);
}

static CO int retrying(struct workflow *w, void *ctx, struct err *e)
{
    const struct durable_retry retry = { .tries = 3, .first_ms = 1, .jitter = 1 };
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, 1 * KIB);
    r = durable_step(w, "fails", &retry, body_fails, NULL, &out, e);
    if (r == -ERR_NOT_FOUND && e->code == ERR_NOT_FOUND && strstr(e->msg, "try 3"))
        seen.fn++;
    if (durable_step(w, "two", NULL, body_two, NULL, NULL, e) < 0)
        return -(int)e->code;
    return r < 0 ? err_set(e, ERR_NOT_FOUND, "it failed") : durable_return(w, buf_str(&out), e);
}

static const struct durable_type retry_type[] = { { .name = "retrying", .fn = retrying } };

ENGINE_TEST(a_step_is_tried_again, retry_type)
{
    begin(true);
    seen.fails = 2;
    CO_CHECK(starts(f, "retrying", "w"));
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, OUTPUT, "w", "\"found\""));
    CO_CHECK(seen.one == 3);
    return 0;
}

ENGINE_TEST(an_error_after_all_tries_is_recorded_and_comes_back_in_replay, retry_type)
{
    char error[512];

    begin(false);
    seen.fails = 3;
    CO_CHECK(starts(f, "retrying", "w"));
    CO_CHECK(at_gate(1));
    CO_CHECK(seen.one == 3 && seen.fn == 1);
    CO_CHECK(sql_run(f, STEP_ERROR " AND function_id = 0", "w", error, e) == 0);
    CO_CHECK(strstr(error, "\"not_found\"") && strstr(error, "23") && strstr(error, "try 3"));
    engine_down(f);
    seen.open = true;
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "w", "ERROR"));
    CO_CHECK(seen.one == 3 && seen.fn == 2); /* the same error, not a fourth try */
    return 0;
}

static bool never(const struct err *e, void *arg)
{
    return e->code == ERR_UNAVAILABLE;
}

static CO int picky(struct workflow *w, void *ctx, struct err *e)
{
    const struct durable_retry retry = { .tries = 5, .first_ms = 1, .again = never };

    return durable_step(w, "fails", &retry, body_fails, NULL, NULL, e);
}

static CO int body_slow(void *arg, struct buf *out, struct err *e)
{
    seen.one++;
    if (fiber_sleep(PATIENCE_MS, e) == 0)
        return 0;
    seen.two++;
    return -(int)e->code;
}

static CO int timed(struct workflow *w, void *ctx, struct err *e)
{
    const struct durable_retry retry = { .tries = 2, .first_ms = 1, .timeout_ms = 20 };

    return durable_step(w, "slow", &retry, body_slow, NULL, NULL, e);
}

static int not_json(void *arg, struct buf *out, struct err *e)
{
    seen.one++;
    return buf_add_z(out, "{'n':", e);
}

static CO int wrong(struct workflow *w, void *ctx, struct err *e)
{
    return durable_step(w, "wrong", NULL, not_json, NULL, NULL, e);
}

static int body_throws(void *arg, struct buf *out, struct err *e)
{
    seen.one++;
    return durable_throw(arg, "CardDeclined", "no money", STR("\"E17\""), STR("{\"left\":3}"), e);
}

static CO int throwing(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_step(w, "pay", NULL, body_throws, w, NULL, e);

    if (durable_step(w, "two", NULL, body_two, NULL, NULL, &(struct err){ 0 }) < 0)
        return -ERR_CANCELED;
    return r < 0 ? err_wrap(e, "order 7") : 0;
}

static const struct durable_type failing_types[] = {
    { .name = "picky", .fn = picky },
    { .name = "timed", .fn = timed },
    { .name = "wrong", .fn = wrong },
    { .name = "throwing", .fn = throwing },
};

ENGINE_TEST(steps_fail_in_their_own_ways, failing_types)
{
    char error[512];

    begin(true);
    seen.fails = 5;
    CO_CHECK(starts(f, "picky", "p") && ends_as(f, "p", "ERROR"));
    CO_CHECK(seen.one == 1);

    begin(true);
    CO_CHECK(starts(f, "timed", "t") && ends_as(f, "t", "ERROR"));
    CO_CHECK(seen.one == 2 && seen.two == 2);
    CO_CHECK(sql_run(f, STEP_ERROR, "t", error, e) == 0);
    CO_CHECK(strstr(error, "\"timeout\"") && strstr(error, "31"));

    begin(true);
    CO_CHECK(starts(f, "wrong", "w") && ends_as(f, "w", "ERROR"));
    CO_CHECK(sql_run(f, ERROR, "w", error, e) == 0);
    CO_CHECK(strstr(error, "\"invalid\"") && seen.one == 1);
    return 0;
}

ENGINE_TEST(a_thrown_error_keeps_its_name_code_and_data_through_replay, failing_types)
{
    char error[512];

    begin(false);
    CO_CHECK(starts(f, "throwing", "w") && at_gate(1));
    engine_down(f);
    seen.open = true;
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "w", "ERROR"));
    CO_CHECK(seen.one == 1);
    CO_CHECK(sql_run(f, ERROR, "w", error, e) == 0);
    CO_CHECK(strstr(error, "\"CardDeclined\"") && strstr(error, "order 7: no money"));
    CO_CHECK(strstr(error, "\"E17\"") && strstr(error, "{\"left\":3}"));
    return 0;
}

/* Steps in a transaction */

static int tx_insert(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    static const struct sql insert = { "tx test", "INSERT INTO effects (n) VALUES (1)", NULL };
    int r = store_exec(tx, &insert, e);

    seen.one++;
    if (r == 0 && seen.fails > 0)
        r = err_set(e, ERR_FORBIDDEN, "not on a Sunday");
    return r < 0 ? r : buf_add_z(out, "\"done\"", e);
}

static CO int with_tx(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, 1 * KIB);
    r = durable_step_tx(w, "effect", tx_insert, NULL, &out, e);
    if (r == -ERR_FORBIDDEN)
        seen.fn++;
    if (durable_step(w, "two", NULL, body_two, NULL, NULL, &(struct err){ 0 }) < 0)
        return -ERR_CANCELED;
    return r < 0 ? r : durable_return(w, buf_str(&out), e);
}

static const struct durable_type tx_type[] = { { .name = "with_tx", .fn = with_tx } };

ENGINE_TEST(a_transactional_step_has_its_effect_once, tx_type)
{
    begin(false);
    CO_CHECK(sql_run(f, "CREATE TABLE effects (n INTEGER)", NULL, NULL, e) == 0);
    CO_CHECK(starts(f, "with_tx", "w") && at_gate(1));
    engine_down(f);
    seen.open = true;
    CO_CHECK(engine_up(f, e) == 0 && ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM effects", NULL, "1"));
    CO_CHECK(row_is(f, OUTPUT, "w", "\"done\"") && seen.one == 1);
    return 0;
}

ENGINE_TEST(a_failed_transactional_step_leaves_nothing_but_its_error, tx_type)
{
    begin(false);
    seen.fails = 1;
    CO_CHECK(sql_run(f, "CREATE TABLE effects (n INTEGER)", NULL, NULL, e) == 0);
    CO_CHECK(starts(f, "with_tx", "w") && at_gate(1));
    engine_down(f);
    seen.open = true;
    seen.fails = 0;
    CO_CHECK(engine_up(f, e) == 0 && ends_as(f, "w", "ERROR"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM effects", NULL, "0"));
    CO_CHECK(seen.one == 1 && seen.fn == 2);
    return 0;
}

/* Values without a body */

static int64_t times[2];
static char uuids[2][37];
static bool patched[2];
static int passes;

static CO int valued(struct workflow *w, void *ctx, struct err *e)
{
    int i = passes++ > 0, r;

    r = durable_now(w, &times[i], e);
    if (r == 0)
        r = durable_uuid(w, uuids[i], e);
    if (r == 0 && i == 1) /* the code that is new */
        r = durable_patch(w, "new-price", &patched[0], e);
    if (r == 0)
        r = durable_step(w, "two", NULL, body_two, NULL, NULL, e);
    if (r == 0)
        r = durable_patch(w, "new-tax", &patched[1], e);
    return r;
}

static const struct durable_type valued_type[] = { { .name = "valued", .fn = valued } };

ENGINE_TEST(clock_chance_and_patches_are_the_same_in_replay, valued_type)
{
    begin(false);
    passes = 0;
    CO_CHECK(starts(f, "valued", "w") && at_gate(1));
    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id,"
                     " function_name, output, serialization)"
                     " VALUES (?1, 2, 'two', '2', 'portable_json')",
                     "w", NULL, e) == 0);
    engine_down(f);
    CO_CHECK(engine_up(f, e) == 0 && ends_as(f, "w", "SUCCESS"));
    CO_CHECK(times[0] > 0 && times[0] == times[1]);
    CO_CHECK(strlen(uuids[0]) == 36 && strcmp(uuids[0], uuids[1]) == 0);
    CO_CHECK(!patched[0]); /* it had passed there before */
    CO_CHECK(patched[1]);  /* it had not come here yet */
    CO_CHECK(row_is(f,
                    "SELECT function_id FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
                    " AND function_name = 'DBOS.patch-new-tax'",
                    "w", "3"));
    return 0;
}
