/* SPDX-License-Identifier: MIT */
/*
 * durable/reclaim_test.c — processes that die, drain, hang or are replaced, answers that get lost
 * and rows that nobody runs: each test is named after a way in which engines have lost work. On
 * SQLite or, where CHELA_TEST_PG is set, on PostgreSQL, where two engines meet.
 */
#define TESTS_AT_ONCE 4

#include "durable/queue_fixture.h"
#include "durable/queue_int.h"

#define STATUS "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define OWNER  "SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define PUT_EXECUTOR(lease) \
    "INSERT INTO durable_executors (executor_id, instance, app_version, started_ms," \
    " lease_until_ms, draining) VALUES (?1, ?1, '1', 0, " lease ", 0)"

static const struct durable_queue queues[] = { { .name = "q" } };

static CO struct durable *one_engine(struct fixture *f)
{
    const struct durable_conf conf = QUICK_CONF(.app_version = "1");

    return engine_with(f, &conf, queues, 1);
}

static CO struct durable *other_engine(struct fixture *f, const char *instance, const char *version)
{
    struct durable_conf conf = QUICK_CONF(.app_version = version);

    conf.instance = instance;
    return engine_with(f, &conf, queues, 1);
}

static CO bool enqueue(struct durable *d, const char *name, const char *id)
{
    struct durable_start start = { .name = name, .id = str_of(id), .queue = STR("q") };
    struct durable_started ret;
    struct err e;

    if (durable_start(d, &start, &ret, &e) == 0)
        return true;
    printf("# enqueue %s: %s\n", id, e.msg);
    return false;
}

/* --- the dead and the living --- */

QUEUE_TEST(work_of_a_dead_process_is_done_and_that_of_a_living_one_is_left)
{
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    CO_CHECK(sql_run(&it, PUT_EXECUTOR("9000000000000"), "chela-alive", NULL, e) == 0);
    CO_CHECK(sql_run(&it, PUT_EXECUTOR("1000"), "chela-expired", NULL, e) == 0);
    CO_CHECK(make(f, (struct made){ .id = "gone",
                                    .status = "PENDING",
                                    .executor = "chela-gone",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(make(f, (struct made){ .id = "expired",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = "chela-expired",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(make(f, (struct made){ .id = "alive",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = "chela-alive",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(make(
        f,
        (struct made){
            .id = "npm", .status = "PENDING", .executor = "local", .token = "t", .attempts = 1 }));
    it.d = one_engine(f);
    CO_CHECK(it.d);
    CO_CHECK(ends_as(&it, "gone", "SUCCESS"));
    CO_CHECK(ends_as(&it, "expired", "SUCCESS"));
    CO_CHECK(row_is(&it, "SELECT queue_name FROM dbos.workflow_status WHERE workflow_uuid = ?1",
                    "gone", DURABLE_INTERNAL_QUEUE));
    CO_CHECK(row_is(&it,
                    "SELECT recovery_attempts FROM dbos.workflow_status"
                    " WHERE workflow_uuid = ?1",
                    "gone", "2"));
    CO_CHECK(row_is(&it, STATUS, "npm", "PENDING")); /* another engine's: its own to recover */
    if (f->sqlite) /* one process owns a file: every other one is dead */
        CO_CHECK(ends_as(&it, "alive", "SUCCESS"));
    else
        CO_CHECK(row_is(&it, STATUS, "alive", "PENDING"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_process_that_stops_living_loses_its_work_after_its_lease)
{
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    PG_ONLY("there is no second process; the test above is about the start");
    it.d = one_engine(f);
    CO_CHECK(it.d);
    CO_CHECK(sql_run(&it,
                     PUT_EXECUTOR("(extract(epoch from clock_timestamp())*1000)::bigint + 1000"),
                     "chela-dying", NULL, e) == 0);
    CO_CHECK(make(f, (struct made){ .id = "w",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = "chela-dying",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(fiber_sleep(200, e) == 0);
    CO_CHECK(row_is(&it, OWNER, "w", "chela-dying"));
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(who_an_executor_is_does_not_depend_on_the_host)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct durable *a = durable_new(f->loop, f->s, &conf), *b = durable_new(f->loop, f->s, &conf);
    char host[256] = "";

    CO_CHECK(gethostname(host, sizeof(host) - 1) == 0);
    CO_CHECK(strcmp(durable_executor(a), durable_executor(b)) != 0);
    CO_CHECK(strncmp(durable_executor(a), "chela-", 6) == 0 && strlen(durable_executor(a)) == 42);
    CO_CHECK(strlen(host) < 4 || !strstr(durable_executor(a), host));
    durable_free(a);
    durable_free(b);
    return 0;
}

QUEUE_TEST(a_start_of_the_same_instance_ends_the_one_before)
{
    struct durable *a, *b;
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    PG_ONLY("the file's lock keeps a second process out");
    a = one_engine(f);
    CO_CHECK(a && enqueue(a, "gate", "w"));
    CO_CHECK(BECOMES(held.now == 1));
    b = one_engine(f); /* the same state directory: the first is taken for dead */
    CO_CHECK(b);
    CO_CHECK(row_becomes(&it, OWNER, "w", durable_executor(b)));
    CO_CHECK(BECOMES(!lease_held(a) && held.now == 1)); /* the first one's run was ended */
    CO_CHECK(enqueue(a, "brief", "x"));                 /* it may still enqueue, and runs nothing */
    CO_CHECK(ends_as(&it, "x", "SUCCESS"));
    CO_CHECK(row_is(&it, OWNER, "x", durable_executor(b)));
    held.open = true;
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    CO_CHECK(held.begun == 3);
    engine_gone(a);
    engine_gone(b);
    return 0;
}

QUEUE_TEST(a_process_that_was_only_forgotten_comes_back)
{
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    it.d = one_engine(f);
    CO_CHECK(it.d);
    CO_CHECK(sql_run(&it, "DELETE FROM durable_executors", NULL, NULL, e) == 0);
    CO_CHECK(make(f, (struct made){ .id = "w", .queue = "q" })); /* not claimed by the dead */
    CO_CHECK(row_becomes(&it, "SELECT count(*) FROM durable_executors WHERE executor_id = ?1",
                         durable_executor(it.d), "1"));
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    engine_gone(it.d);
    CO_CHECK(row_is(&it, "SELECT count(*) FROM durable_executors", NULL, "0"));
    return 0;
}

/* --- ownership --- */

static CO int owned(struct workflow *w, void *ctx, struct err *e)
{
    int r = gate(w, ctx, e);

    return r < 0 ? r : durable_sleep(w, 1, e); /* a record */
}

QUEUE_TEST(a_stale_execution_whose_row_was_taken_writes_nothing)
{
    static const struct durable_type own[] = { { .name = "owned", .fn = owned } };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    conf.sweep_ms = 600000; /* so that nobody but the write itself can notice */
    it.d = engine_kept(durable_new(f->loop, f->s, &conf));
    CO_CHECK(durable_register(it.d, own, 1, e) == 0 &&
             durable_register_queues(it.d, queues, 1, e) == 0 && durable_run(it.d, e) == 0);
    CO_CHECK(enqueue(it.d, "owned", "w"));
    CO_CHECK(BECOMES(held.now == 1));
    CO_CHECK(sql_run(&it,
                     "UPDATE dbos.workflow_status SET owner_xid = 'theirs', executor_id = 'local'"
                     " WHERE workflow_uuid = ?1",
                     "w", NULL, e) == 0);
    held.open = true;
    CO_CHECK(BECOMES(held.now == 0 && !run_find(it.d, STR("w"))));
    CO_CHECK(row_is(&it, STATUS, "w", "PENDING"));
    CO_CHECK(row_is(&it, "SELECT owner_xid FROM dbos.workflow_status WHERE workflow_uuid = ?1", "w",
                    "theirs"));
    CO_CHECK(row_is(&it, "SELECT count(*) FROM dbos.operation_outputs", NULL, "0"));
    CO_CHECK(row_is(&it, "SELECT count(*) FROM dbos.workflow_output", NULL, "0"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_run_that_was_taken_or_cancelled_is_noticed_without_a_write_of_its_own)
{
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    it.d = one_engine(f);
    CO_CHECK(it.d && enqueue(it.d, "gate", "taken") && enqueue(it.d, "gate", "cancelled"));
    CO_CHECK(BECOMES(held.now == 2));
    CO_CHECK(sql_run(&it,
                     "UPDATE dbos.workflow_status SET owner_xid = 'theirs', executor_id = 'local'"
                     " WHERE workflow_uuid = ?1",
                     "taken", NULL, e) == 0);
    CO_CHECK(BECOMES(held.now == 1 && !run_find(it.d, STR("taken"))));
    CO_CHECK(sql_run(&it,
                     "UPDATE dbos.workflow_status SET status = 'CANCELLED', owner_xid = NULL"
                     " WHERE workflow_uuid = ?1",
                     "cancelled", NULL, e) == 0);
    CO_CHECK(BECOMES(held.now == 0 && !run_find(it.d, STR("cancelled"))));
    CO_CHECK(row_is(&it, STATUS, "cancelled", "CANCELLED"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_claim_whose_answer_was_lost_is_found)
{
    struct engine it = { .store = f };
    int64_t stuck = durable_m_stuck.v[0];

    held = (struct held){ .open = true };
    it.d = one_engine(f);
    CO_CHECK(it.d);
    /* what such a claim leaves: ours, with a token, and not running */
    CO_CHECK(make(f, (struct made){ .id = "queued",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = durable_executor(it.d),
                                    .token = "lost",
                                    .attempts = 1 }));
    CO_CHECK(make(f, (struct made){ .id = "direct",
                                    .status = "PENDING",
                                    .executor = durable_executor(it.d),
                                    .token = "lost2",
                                    .attempts = 1 }));
    CO_CHECK(ends_as(&it, "queued", "SUCCESS"));
    CO_CHECK(ends_as(&it, "direct", "SUCCESS"));
    CO_CHECK(durable_m_stuck.v[0] - stuck == 2);
    CO_CHECK(held.begun == 2);
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_row_stuck_between_steps_does_not_block_a_queue_of_one)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue one = { .name = "q", .concurrency = 1 };
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    it.d = engine_with(f, &conf, &one, 1);
    CO_CHECK(it.d);
    CO_CHECK(make(f, (struct made){ .id = "stuck",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = durable_executor(it.d),
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(make(f, (struct made){ .id = "next", .queue = "q" }));
    CO_CHECK(ends_as(&it, "next", "SUCCESS"));
    CO_CHECK(ends_as(&it, "stuck", "SUCCESS"));
    engine_gone(it.d);
    return 0;
}

/* --- draining --- */

struct stopping {
    struct durable *d;
    bool done;
};

static CO int stop_it(void *arg, struct err *e)
{
    struct stopping *s = arg;

    durable_stop(s->d, PATIENCE_MS);
    s->done = true;
    return 0;
}

QUEUE_TEST(a_draining_process_does_not_take_what_was_queued_again)
{
    struct engine it = { .store = f };
    struct stopping stopping = { 0 };

    held = (struct held){ 0 };
    it.d = stopping.d = one_engine(f);
    CO_CHECK(it.d && enqueue(it.d, "gate", "running"));
    CO_CHECK(BECOMES(held.now == 1));
    CO_CHECK(fiber_spawn(f->loop, "stop", stop_it, &stopping, NULL, e) == 0);
    CO_CHECK(row_becomes(&it, "SELECT draining FROM durable_executors WHERE executor_id = ?1",
                         durable_executor(it.d), "1"));
    CO_CHECK(make(f, (struct made){ .id = "queued again", .queue = "q" }));
    queue_poke(it.d, STR("q"));
    CO_CHECK(fiber_sleep(200, e) == 0);
    CO_CHECK(row_is(&it, STATUS, "queued again", "ENQUEUED"));
    held.open = true;
    CO_CHECK(BECOMES(stopping.done));
    CO_CHECK(row_is(&it, STATUS, "queued again", "ENQUEUED"));
    CO_CHECK(row_is(&it, STATUS, "running", "SUCCESS"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_stop_gives_runs_back_and_that_is_no_attempt)
{
    struct engine it = { .store = f };
    struct durable *d = one_engine(f);

    held = (struct held){ 0 };
    CO_CHECK(d && enqueue(d, "gate", "w"));
    CO_CHECK(BECOMES(held.now == 1));
    engine_gone(d);
    CO_CHECK(row_is(&it, STATUS, "w", "ENQUEUED"));
    CO_CHECK(row_is(&it,
                    "SELECT recovery_attempts FROM dbos.workflow_status"
                    " WHERE workflow_uuid = ?1 AND owner_xid IS NULL",
                    "w", "0"));
    return 0;
}

/* --- what cannot run --- */

QUEUE_TEST(one_that_cannot_begin_does_not_strand_the_rest_of_its_batch)
{
    struct engine it = { .store = f };
    char id[400];
    int64_t dead = durable_m_dead.v[0];

    held = (struct held){ .open = true };
    memset(id, 'x', sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    CO_CHECK(make(f, (struct made){ .id = "a", .queue = "q", .created = 10 }));
    CO_CHECK(
        make(f, (struct made){ .id = id, .queue = "q", .created = 20 })); /* longer than ours */
    CO_CHECK(make(f, (struct made){ .id = "garbled", .queue = "q", .created = 30 }));
    CO_CHECK(make(f, (struct made){ .id = "b", .queue = "q", .created = 40 }));
    CO_CHECK(
        make(f, (struct made){
                    .id = "worn", .queue = "q", .created = 15, .attempts = DURABLE_ATTEMPTS + 1 }));
    CO_CHECK(sql_run(&it, "UPDATE dbos.workflow_input SET inputs = '}' WHERE workflow_uuid = ?1",
                     "garbled", NULL, e) == 0);
    it.d = one_engine(f);
    CO_CHECK(it.d);
    CO_CHECK(ends_as(&it, "a", "SUCCESS"));
    CO_CHECK(ends_as(&it, "b", "SUCCESS"));
    CO_CHECK(ends_as(&it, "garbled", "ERROR"));
    CO_CHECK(ends_as(&it, id, "MAX_RECOVERY_ATTEMPTS_EXCEEDED"));
    CO_CHECK(ends_as(&it, "worn", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"));
    CO_CHECK(row_is(&it,
                    "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND owner_xid IS NULL AND queue_name IS NULL AND completed_at IS NOT NULL",
                    "worn", "1"));
    for (int i = 0; i < 1000 && durable_m_dead.v[0] - dead < 2; i++)
        CO_CHECK(fiber_sleep(10, e) == 0); /* counted once the writer has come back */
    CO_CHECK(durable_m_dead.v[0] - dead == 2);
    CO_CHECK(strcmp(held.order, "a b ") == 0);
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(work_of_an_unknown_version_is_seen_and_runs_when_its_version_comes)
{
    struct engine it = { .store = f };
    struct durable *old;

    held = (struct held){ .open = true };
    CO_CHECK(make(f, (struct made){ .id = "w", .queue = "q", .version = "old" }));
    CO_CHECK(make(f, (struct made){ .id = "dead",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .version = "old",
                                    .executor = "chela-gone",
                                    .token = "t" }));
    it.d = one_engine(f);
    CO_CHECK(it.d);
    CO_CHECK(BECOMES(durable_m_blocked_version.v[0] == 2));
    CO_CHECK(row_becomes(&it, STATUS, "dead", "ENQUEUED"));
    CO_CHECK(row_is(&it, STATUS, "w", "ENQUEUED"));
    CO_CHECK(BECOMES(durable_m_queue_depth.v[0] == 2));
    if (f->sqlite)
        engine_gone(TAKE(it.d));
    old = other_engine(f, "two", "old");
    CO_CHECK(old);
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    CO_CHECK(ends_as(&it, "dead", "SUCCESS"));
    CO_CHECK(BECOMES(durable_m_blocked_version.v[0] == 0));
    engine_gone(old);
    if (it.d)
        engine_gone(it.d);
    return 0;
}

/* --- many --- */

enum { MANY = 20000 };

static int many_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql fill = {
        "test: many",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
        " INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name, executor_id,"
        " owner_xid, recovery_attempts, created_at)"
        " SELECT 'many-' || i, 'PENDING', 'elsewhere', 'p', 'chela-gone', 't', 1, 1000 + i / 7"
        " FROM n",
        NULL,
    };
    const struct sql_arg n = SQL_INT(MANY);

    return store_run(tx, &fill, &n, 1, NULL, NULL, e);
}

QUEUE_TEST(many_pending_rows_do_not_hold_up_a_start)
{
    struct engine it = { .store = f };
    struct durable_start start = { .name = "brief", .id = STR("new") };
    struct durable_started ret;
    uint64_t begun, served, over;

    held = (struct held){ .open = true };
    CO_CHECK(store_do(f->s, many_body, NULL, e) == 0);
    begun = now_ms();
    it.d = one_engine(f);
    CO_CHECK(it.d && durable_start(it.d, &start, &ret, e) == 0);
    CO_CHECK(ends_as(&it, "new", "SUCCESS"));
    served = now_ms();
    CO_CHECK(row_becomes(&it,
                         "SELECT count(*) FROM dbos.workflow_status WHERE status = 'ENQUEUED'"
                         " AND owner_xid IS NULL",
                         NULL, "20000"));
    over = now_ms();
    printf("# %s: a new start was served after %d ms, %d rows were queued again after %d ms\n",
           f->url, (int)(served - begun), MANY, (int)(over - begun));
    engine_gone(it.d);
    return 0;
}

/* --- the database goes away --- */

static int control(const char *verb)
{
    const char *const argv[] = { getenv("CHELA_TEST_PG_CTL"), verb, NULL };

    return argv[0] ? fixture_program(argv) : -1;
}

QUEUE_TEST_ALONE(chores_outlive_a_database_that_goes_away_during_recovery)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };
    int64_t failures = durable_m_chore_failures.v[0];

    held = (struct held){ .open = true };
    PG_ONLY("a file does not go away");
    conf.lease_ms = 60000; /* its own lease outlasts the outage */
    CO_CHECK(store_do(f->s, many_body, NULL, e) == 0);
    it.d = engine_with(f, &conf, queues, 1);
    CO_CHECK(it.d);
    CO_CHECK(control("kill") == 0);
    CO_CHECK(BECOMES(durable_m_chore_failures.v[0] >= failures + 3));
    CO_CHECK(control("start") == 0);
    CO_CHECK(BECOMES(make(f, (struct made){ .id = "after", .queue = "q" })));
    CO_CHECK(ends_as(&it, "after", "SUCCESS"));
    CO_CHECK(make(
        f, (struct made){ .id = "late", .status = "DELAYED", .queue = "q", .delay_until = 1000 }));
    CO_CHECK(ends_as(&it, "late", "SUCCESS"));
    CO_CHECK(row_becomes(&it, /* nothing is stranded */
                         "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING'", NULL,
                         "0"));
    engine_gone(it.d);
    return 0;
}

/* --- telling others --- */

QUEUE_TEST(others_are_told_of_work_that_they_would_look_for_much_later)
{
    static const struct durable_queue slow[] = { { .name = "q", .polling_ms = 120000 } };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };
    struct durable *worker, *client;

    held = (struct held){ .open = true };
    PG_ONLY("nobody else is there");
    conf.sweep_ms = 60000;
    conf.lease_ms = 600; /* how others are known comes with renewals */
    client = engine_kept(durable_new(f->loop, f->s, &conf));
    conf.instance = "worker";
    worker = engine_with(f, &conf, slow, 1);
    CO_CHECK(worker);
    CO_CHECK(durable_run(client, e) == 0);
    CO_CHECK(BECOMES(store_hears(worker->ear) && lease_others(client) == 1));
    CO_CHECK(fiber_sleep(100, e) == 0);
    CO_CHECK(enqueue(client, "brief", "w"));
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    engine_gone(client);
    engine_gone(worker);
    return 0;
}
