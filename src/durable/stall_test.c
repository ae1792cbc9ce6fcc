/* SPDX-License-Identifier: MIT */
/*
 * durable/stall_test.c — ways in which engines have stood still: a wake-up that is taken and not
 * acted on, a chore that an outage ends, a flag that a crash leaves behind, something that nobody
 * reaps. Looks by the clock are so rare in these tests that none of them can help. On SQLite or,
 * where CHELA_TEST_PG is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 4

#include "base/rand.h"
#include "durable/manage.h"
#include "durable/queue_fixture.h"
#include "durable/queue_int.h"

#define NEVER_MS 600000 /* longer than any patience */
#define STATUS   "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"

/* --- wake-ups --- */

enum { RUNS = 300 };

static CO int pause_a_little(struct err *e)
{
    uint64_t chance = rand_u64() % 8;

    return chance < 4 ? 0 : chance < 6 ? fiber_yield(e) : fiber_sleep(chance - 5, e);
}

static CO bool enqueue_one(struct durable *d, int i)
{
    struct durable_start start = { .name = "brief", .queue = STR("q") };
    struct durable_started ret;
    char id[16];
    struct err e;

    fmt_z(id, sizeof(id), "w%d", i);
    start.id = str_of(id);
    return durable_start(d, &start, &ret, &e) == 0 && pause_a_little(&e) == 0;
}

/* In bursts of which each must come to its end: no later hint makes up for one that was lost. */
static CO bool enqueue_runs(struct durable *d)
{
    for (int i = 0; i < RUNS;) {
        int burst = 1 + (int)(rand_u64() % 3);

        for (; burst > 0 && i < RUNS; burst--) {
            if (!enqueue_one(d, i++))
                return false;
        }
        if (!BECOMES(held.begun == (unsigned)i && held.now == 0)) {
            printf("# %u of %d have begun\n", held.begun, i);
            return false;
        }
    }
    return true;
}

/* Hints come while a claim is under way, while no slot is free, while the dispatcher begins to
 * sleep; each must be enough. Where there is a second process, it is the one that works. */
QUEUE_TEST(three_hundred_starts_need_no_look_by_the_clock)
{
    static const struct durable_queue slow[] = {
        { .name = "q", .polling_ms = 120000, .worker_concurrency = 2 },
    };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };
    struct durable *worker, *client = NULL;

    held = (struct held){ .open = true };
    rand_set_seed(20261121);
    conf.sweep_ms = NEVER_MS;
    conf.lease_ms = 1500;
    worker = engine_with(f, &conf, slow, 1);
    CO_CHECK(worker);
    if (!f->sqlite) {
        conf.instance = "client";
        client = engine_kept(durable_new(f->loop, f->s, &conf));
        CO_CHECK(durable_run(client, e) == 0);
        CO_CHECK(BECOMES(store_hears(worker->ear) && lease_others(client) == 1));
    }
    CO_CHECK(enqueue_runs(client ? client : worker));
    CO_CHECK(row_becomes(&it, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
                         NULL, "300"));
    CO_CHECK(held.begun == RUNS && held.most <= 2);
    if (client)
        engine_gone(client);
    engine_gone(worker);
    rand_set_seed(0);
    return 0;
}

static CO int receives(struct workflow *w, void *ctx, struct err *e)
{
    int r = 0;

    (void)ctx;
    for (int i = 0; i < RUNS && r == 0; i++) {
        r = durable_recv(w, STR("t"), NEVER_MS, NULL, e);
        held.begun++;
    }
    return r;
}

QUEUE_TEST(three_hundred_messages_need_no_look_by_the_clock)
{
    static const struct durable_type types[] = { { .name = "receives", .fn = receives } };
    struct durable_conf conf = QUICK_CONF(.app_version = "1", .park_ms = NEVER_MS);
    struct durable_start start = { .name = "receives", .id = STR("w") };
    struct durable_started ret;
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    rand_set_seed(20261122);
    conf.sweep_ms = NEVER_MS;
    it.d = engine_kept(durable_new(f->loop, f->s, &conf));
    CO_CHECK(durable_register(it.d, types, 1, e) == 0 && durable_run(it.d, e) == 0);
    CO_CHECK(durable_start(it.d, &start, &ret, e) == 0);
    for (int i = 0; i < RUNS; i++) {
        it.d->hint_ms = NEVER_MS;
        CO_CHECK(durable_post(it.d, STR("w"), STR("t"), STR("1"), (struct str){ 0 }, e) == 0);
        CO_CHECK(pause_a_little(e) == 0);
    }
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    CO_CHECK(held.begun == RUNS);
    engine_gone(it.d);
    rand_set_seed(0);
    return 0;
}

/* --- statements that fail for a while --- */

#define HIDE        "ALTER TABLE durable_executors RENAME TO hidden_executors"
#define SHOW        "ALTER TABLE hidden_executors RENAME TO durable_executors"
#define HIDE_STATUS "ALTER TABLE dbos.workflow_status RENAME TO hidden_status"
#define SHOW_STATUS "ALTER TABLE dbos.hidden_status RENAME TO workflow_status"

QUEUE_TEST(every_chore_goes_on_after_its_statements_have_failed)
{
    static const struct durable_queue queue = { .name = "q" };
    struct durable_conf conf = QUICK_CONF(.app_version = "1", .retain_ms = 3600 * 1000);
    struct engine it = { .store = f };
    int64_t failures = durable_m_chore_failures.v[0];

    held = (struct held){ .open = true };
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(sql_run(&it, HIDE, NULL, NULL, e) == 0 &&
             sql_run(&it, HIDE_STATUS, NULL, NULL, e) == 0);
    CO_CHECK(
        BECOMES(durable_m_chore_failures.v[0] > failures + 20 && (f->sqlite || !lease_held(it.d))));
    CO_CHECK(sql_run(&it, SHOW_STATUS, NULL, NULL, e) == 0 &&
             sql_run(&it, SHOW, NULL, NULL, e) == 0);
    CO_CHECK(BECOMES(lease_held(it.d)));
    CO_CHECK(make(f, (struct made){ .id = "queued", .queue = "q" }));
    CO_CHECK(make(
        f, (struct made){ .id = "late", .status = "DELAYED", .queue = "q", .delay_until = 1000 }));
    CO_CHECK(make(f, (struct made){ .id = "over", .queue = "nobody's", .deadline = 1000 }));
    CO_CHECK(make(f, (struct made){ .id = "dead",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = "chela-gone",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(make(f, (struct made){ .id = "idle",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = durable_executor(it.d),
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(ends_as(&it, "queued", "SUCCESS")); /* dispatcher */
    CO_CHECK(ends_as(&it, "late", "SUCCESS"));   /* delays */
    CO_CHECK(ends_as(&it, "over", "CANCELLED")); /* deadlines */
    CO_CHECK(ends_as(&it, "dead", "SUCCESS"));   /* reclaim */
    CO_CHECK(ends_as(&it, "idle", "SUCCESS"));   /* own runs */
    CO_CHECK(sql_run(&it, "DELETE FROM durable_executors", NULL, NULL, e) == 0);
    CO_CHECK(row_becomes(&it, "SELECT count(*) FROM durable_executors", NULL, "1")); /* lease */
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_claim_that_failed_is_not_left_to_a_rare_poll)
{
    static const struct durable_queue slow = { .name = "q", .polling_ms = 120000 };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };
    struct durable_start start = { .name = "brief", .id = STR("w"), .queue = STR("q") };
    struct durable_started ret;
    int64_t failures;

    held = (struct held){ .open = true };
    conf.sweep_ms = conf.lease_ms = NEVER_MS;
    it.d = engine_with(f, &conf, &slow, 1);
    CO_CHECK(it.d);
    CO_CHECK(fiber_sleep(100, e) == 0); /* first looks are over */
    CO_CHECK(sql_run(&it, HIDE, NULL, NULL, e) == 0);
    failures = durable_m_chore_failures.v[0];
    CO_CHECK(durable_start(it.d, &start, &ret, e) == 0);
    CO_CHECK(BECOMES(durable_m_chore_failures.v[0] > failures));
    CO_CHECK(sql_run(&it, SHOW, NULL, NULL, e) == 0);
    CO_CHECK(ends_as(&it, "w", "SUCCESS"));
    engine_gone(it.d);
    return 0;
}

/* --- what is never reaped --- */

QUEUE_TEST(what_is_stuck_with_somebody_unknown_ends_at_its_deadline)
{
    static const struct durable_queue queue = { .name = "q" };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };
    char status[512];

    held = (struct held){ .open = true };
    CO_CHECK(make(f, (struct made){ .id = "updating",
                                    .status = "PENDING",
                                    .name = "elsewhere",
                                    .executor = "local",
                                    .token = "t",
                                    .attempts = 1,
                                    .deadline = wall_ms() - 1 }));
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(durable_await(it.d, STR("updating"), deadline_in(PATIENCE_MS),
                           &(enum durable_status){ 0 }, NULL, e) == 0);
    CO_CHECK(sql_run(&it, STATUS, "updating", status, e) == 0 && !strcmp(status, "CANCELLED"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_type_gives_its_runs_a_deadline_however_they_are_started)
{
    static const struct durable_type timed[] = {
        { .name = "timed", .fn = gate, .timeout_ms = 200 }
    };
    static const struct durable_queue queue = { .name = "q" };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct durable_start direct = { .name = "timed", .id = STR("direct") };
    struct durable_start queued = { .name = "timed", .id = STR("queued"), .queue = STR("q") };
    struct durable_started ret;
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    it.d = engine_kept(durable_new(f->loop, f->s, &conf));
    CO_CHECK(durable_register(it.d, timed, 1, e) == 0 &&
             durable_register_queues(it.d, &queue, 1, e) == 0 && durable_run(it.d, e) == 0);
    CO_CHECK(make(f, (struct made){ .id = "client's", .name = "timed", .queue = "q" }));
    CO_CHECK(make(f, (struct made){ .id = "dead's",
                                    .name = "timed",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = "chela-gone",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(durable_start(it.d, &direct, &ret, e) == 0);
    CO_CHECK(durable_start(it.d, &queued, &ret, e) == 0);
    CO_CHECK(ends_as(&it, "direct", "CANCELLED"));
    CO_CHECK(ends_as(&it, "queued", "CANCELLED"));
    CO_CHECK(ends_as(&it, "client's", "CANCELLED"));
    CO_CHECK(ends_as(&it, "dead's", "CANCELLED"));
    CO_CHECK(BECOMES(held.now == 0));
    engine_gone(it.d);
    return 0;
}

/* --- two that recover --- */

static int dead_rows_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql rows = {
        "test: dead rows",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
        " INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name, executor_id,"
        " owner_xid, recovery_attempts, created_at, inputs, serialization)"
        " SELECT 'w' || i, 'PENDING', 'brief', 'q', 'chela-gone', 't', 1, 1000 + i / 7,"
        " '{\"positionalArgs\":[]}', 'portable_json' FROM n",
        NULL,
    };
    const struct sql_arg n = SQL_INT(RUNS);

    return store_run(tx, &rows, &n, 1, NULL, NULL, e);
}

QUEUE_TEST(two_that_recover_the_same_rows_run_each_once)
{
    static const struct durable_queue queue = { .name = "q" };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };
    struct durable *a, *b = NULL;

    held = (struct held){ .open = true };
    CO_CHECK(store_do(f->s, dead_rows_body, NULL, e) == 0);
    a = engine_with(f, &conf, &queue, 1);
    CO_CHECK(a);
    if (!f->sqlite) {
        conf.instance = "two";
        b = engine_with(f, &conf, &queue, 1);
        CO_CHECK(b);
    }
    CO_CHECK(row_becomes(&it,
                         "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"
                         " AND recovery_attempts = 2",
                         NULL, "300"));
    CO_CHECK(held.begun == RUNS);
    engine_gone(a);
    if (b)
        engine_gone(b);
    return 0;
}

/* --- flags that outlive a crash --- */

static CO int put_schedule(struct durable *d, const char *name, enum durable_overlap overlap,
                           struct err *e)
{
    const struct durable_schedule s = { .name = str_of(name),
                                        .workflow = STR("brief"),
                                        .cron = STR("* * * * * *"),
                                        .queue = STR("q"),
                                        .overlap = overlap };

    return durable_schedule_put(d, &s, e);
}

#define DONE_OF \
    "SELECT CASE WHEN count(*) >= 3 THEN 'yes' ELSE 'no' END FROM dbos.workflow_status" \
    " WHERE schedule_name = ?1 AND status = 'SUCCESS'"

/* Its run died with its process: the schedule that waits for the run goes on once that was done. */
QUEUE_TEST(a_schedule_whose_run_died_with_its_process_goes_on)
{
    static const struct durable_queue queue = { .name = "q" };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    CO_CHECK(make(f, (struct made){ .id = "sched-s-then",
                                    .status = "PENDING",
                                    .queue = "q",
                                    .executor = "chela-gone",
                                    .token = "t",
                                    .attempts = 1 }));
    CO_CHECK(sql_run(&it, "UPDATE dbos.workflow_status SET schedule_name = ?1", "s", NULL, e) == 0);
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(put_schedule(it.d, "s", OVERLAP_SKIP, e) == 0);
    CO_CHECK(ends_as(&it, "sched-s-then", "SUCCESS"));
    CO_CHECK(row_becomes(&it, DONE_OF, "s", "yes"));
    engine_gone(it.d);
    return 0;
}
