/* SPDX-License-Identifier: MIT */
/*
 * durable/queue_test.c — who is claimed, in which order, and how many at once. On SQLite or,
 * where CHELA_TEST_PG is set, on PostgreSQL; there two engines share the queues.
 */
#define TESTS_AT_ONCE 4

#include "durable/queue_fixture.h"

#define STATUS "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"

/* --- one predicate for "may run here, now", against a model --- */

enum { ROWS = 40, ROUNDS = 12 };

struct modelled {
    struct made row;
    char id[16];
    bool want;
};

static struct modelled rows[ROWS];

static const char *one_of(const char *const *texts, size_t n)
{
    return texts[rand_u64() % n];
}
#define ONE_OF(...) \
    one_of((const char *const[]){ __VA_ARGS__ }, LEN(((const char *const[]){ __VA_ARGS__ })))

static void invent(struct modelled *m, int i, int round)
{
    fmt_z(m->id, sizeof(m->id), "m%d-%d", round, i);
    m->want = false;
    m->row = (struct made){
        .id = m->id,
        .status = ONE_OF("ENQUEUED", "ENQUEUED", "ENQUEUED", "DELAYED", "PENDING", "SUCCESS",
                         "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"),
        .name = ONE_OF("gate", "gate", "gate", "method", "elsewhere", "brief2"),
        .class_name = ONE_OF(NULL, NULL, NULL, "Class", "Other"),
        .queue = ONE_OF("q", "q", "q", "q", "not served"),
        .version = ONE_OF(NULL, "1", "1", "2"),
        .app = ONE_OF(NULL, NULL, "mine", "theirs"),
        .executor = "another engine",
        .token = "t",
        .priority = (int64_t)(rand_u64() % 3),
        .created = 1000000 + (int64_t)(rand_u64() % 1000) * ROWS + i,
        .delay_until = wall_ms() + 3600 * 1000,
    };
}

/* The rule in C: may it be claimed by version 1 of "mine"? */
static bool may_run(const struct made *m, bool newest)
{
    bool known = m->class_name ? strcmp(m->class_name, "Class") == 0 && !strcmp(m->name, "method")
                               : strcmp(m->name, "gate") == 0;
    bool version = m->version ? strcmp(m->version, "1") == 0 : newest;

    return strcmp(m->status, "ENQUEUED") == 0 && strcmp(m->queue, "q") == 0 && known && version &&
           (!m->app || strcmp(m->app, "mine") == 0);
}

static void choose(bool newest, unsigned limit)
{
    for (unsigned n = 0; n < limit; n++) {
        struct modelled *best = NULL;

        for (int i = 0; i < ROWS; i++) {
            struct made *m = &rows[i].row;

            if (rows[i].want || !may_run(m, newest))
                continue;
            if (!best || m->priority < best->row.priority ||
                (m->priority == best->row.priority && m->created < best->row.created))
                best = &rows[i];
        }
        if (best)
            best->want = true;
    }
}

/* Is what runs exactly what the model chose? */
static CO bool as_chosen(struct engine *f, bool loud)
{
    char have[512];
    struct err e;

    for (int i = 0; i < ROWS; i++) {
        if (sql_run(f,
                    "SELECT CASE WHEN status = 'PENDING' AND executor_id LIKE 'chela-%'"
                    " THEN 'yes' ELSE 'no' END"
                    " FROM dbos.workflow_status WHERE workflow_uuid = ?1",
                    rows[i].id, have, &e) < 0)
            return false;
        if (strcmp(have, rows[i].want ? "yes" : "no") != 0) {
            if (loud)
                printf("# %s %s %s/%s queue %s version %s app %s priority %d: claimed: %s\n",
                       rows[i].id, rows[i].row.status,
                       rows[i].row.class_name ? rows[i].row.class_name : "", rows[i].row.name,
                       rows[i].row.queue, rows[i].row.version ? rows[i].row.version : "any",
                       rows[i].row.app ? rows[i].row.app : "any", (int)rows[i].row.priority, have);
            return false;
        }
    }
    return true;
}

static CO int claim_round_of_model(struct fixture *f, int round, struct err *e)
{
    struct durable_conf conf = QUICK_CONF(.app_name = "mine", .app_version = "1");
    unsigned worker = (unsigned)(rand_u64() % 8), global = (unsigned)(rand_u64() % 12);
    struct durable_queue queue = { .name = "q",
                                   .worker_concurrency = worker,
                                   .concurrency = global };
    struct engine it = { .store = f };
    bool newest = rand_u64() % 2 == 0;
    unsigned limit = ROWS, others = 0;

    CO_CHECK(sql_run(&it, "DELETE FROM dbos.workflow_status", NULL, NULL, e) == 0);
    CO_CHECK(sql_run(&it, "DELETE FROM dbos.workflow_input", NULL, NULL, e) == 0);
    CO_CHECK(sql_run(&it, "DELETE FROM dbos.application_versions", NULL, NULL, e) == 0);
    if (!newest)
        CO_CHECK(sql_run(&it,
                         "INSERT INTO dbos.application_versions (version_id, version_name,"
                         " version_timestamp) VALUES ('2', '2', 9000000000000)",
                         NULL, NULL, e) == 0);
    for (int i = 0; i < ROWS; i++) {
        invent(&rows[i], i, round);
        CO_CHECK(make(f, rows[i].row));
        others += strcmp(rows[i].row.status, "PENDING") == 0 && !strcmp(rows[i].row.queue, "q");
    }
    if (worker > 0)
        limit = worker;
    if (global > 0 && global - (others < global ? others : global) < limit)
        limit = global - (others < global ? others : global);
    choose(newest, limit);
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(BECOMES(as_chosen(&it, false)) || as_chosen(&it, true));
    CO_CHECK(fiber_sleep(70, e) == 0); /* two sweeps, in which nothing more may be claimed */
    CO_CHECK(as_chosen(&it, true));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_claim_takes_exactly_what_may_run_and_never_sleepers)
{
    rand_set_seed(20260101);
    held = (struct held){ 0 };
    for (int round = 0; round < ROUNDS; round++)
        CO_CHECK(claim_round_of_model(f, round, e) == 0);
    rand_set_seed(0);
    return 0;
}

/* --- order and limits --- */

QUEUE_TEST(priority_decides_then_age)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q", .worker_concurrency = 1 };
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    CO_CHECK(make(f, (struct made){ .id = "c", .queue = "q", .priority = 5, .created = 10 }));
    CO_CHECK(make(f, (struct made){ .id = "a", .queue = "q", .priority = 1, .created = 30 }));
    CO_CHECK(make(f, (struct made){ .id = "d", .queue = "q", .priority = 5, .created = 20 }));
    CO_CHECK(make(f, (struct made){ .id = "e", .queue = "q", .priority = 10, .created = 5 }));
    CO_CHECK(make(f, (struct made){ .id = "b", .queue = "q", .priority = 1, .created = 40 }));
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(ends_as(&it, "e", "SUCCESS"));
    CO_CHECK(strcmp(held.order, "a b c d e ") == 0);
    CO_CHECK(held.most == 1);
    engine_gone(it.d);
    return 0;
}

static CO int enqueue_many(struct durable *d, const char *queue, int n, int keys, struct err *e)
{
    for (int i = 0; i < n; i++) {
        char id[32], key[8];
        struct durable_start start = { .name = "brief", .queue = str_of(queue) };
        struct durable_started ret;

        fmt_z(id, sizeof(id), "%s-%d", queue, i);
        fmt_z(key, sizeof(key), "k%d", keys ? i % keys : 0);
        start.id = str_of(id);
        if (keys)
            start.partition_key = str_of(key);
        if (durable_start(d, &start, &ret, e) < 0)
            return -1;
    }
    return 0;
}

/* Two engines where the database takes two: each with an instance of its own. */
static CO bool two_engines(struct fixture *f, const struct durable_queue *queue,
                           struct durable *ret[2])
{
    struct durable_conf a = QUICK_CONF(.app_version = "1");
    struct durable_conf b = QUICK_CONF(.app_version = "1");

    b.instance = "two";
    ret[0] = engine_with(f, &a, queue, 1);
    ret[1] = f->sqlite || !ret[0] ? NULL : engine_with(f, &b, queue, 1);
    return ret[0] && (f->sqlite || ret[1]);
}

static CO void engines_gone(struct durable *d[2])
{
    for (int i = 0; i < 2; i++) {
        if (d[i])
            engine_gone(d[i]);
    }
}

#define N_DONE "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"

QUEUE_TEST(a_global_limit_is_never_exceeded_by_two_engines)
{
    const struct durable_queue queue = { .name = "q", .concurrency = 3 };
    struct engine it = { .store = f };
    struct durable *d[2];

    held = (struct held){ .open = true };
    CO_CHECK(two_engines(f, &queue, d));
    CO_CHECK(enqueue_many(d[0], "q", 60, 0, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "60"));
    CO_CHECK(held.most <= 3 && held.begun == 60);
    engines_gone(d);
    return 0;
}

QUEUE_TEST(a_worker_limit_counts_what_runs_here)
{
    const struct durable_queue queue = { .name = "q", .worker_concurrency = 2 };
    struct engine it = { .store = f };
    struct durable *d[2];

    held = (struct held){ .open = true };
    CO_CHECK(two_engines(f, &queue, d));
    CO_CHECK(enqueue_many(d[0], "q", 40, 0, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "40"));
    CO_CHECK(held.most <= (d[1] ? 4 : 2) && held.begun == 40);
    engines_gone(d);
    return 0;
}

/* No window of the period holds more starts than allowed: the start `max` places later is later
 * by the period at least. The times are those that the claims wrote. */
#define TOO_FAST(max, period) \
    "SELECT count(*) FROM (SELECT started_at_epoch_ms AS t," \
    " lead(started_at_epoch_ms, " max ") OVER (PARTITION BY queue_partition_key" \
    "  ORDER BY started_at_epoch_ms) AS later FROM dbos.workflow_status) AS s" \
    " WHERE later IS NOT NULL AND later - t < " period

QUEUE_TEST(a_rate_is_never_exceeded_by_two_engines)
{
    const struct durable_queue queue = { .name = "q", .rate_max = 4, .rate_period_ms = 300 };
    struct engine it = { .store = f };
    struct durable *d[2];

    held = (struct held){ .open = true };
    CO_CHECK(two_engines(f, &queue, d));
    CO_CHECK(enqueue_many(d[0], "q", 18, 0, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "18"));
    CO_CHECK(row_is(&it, TOO_FAST("4", "300"), NULL, "0"));
    engines_gone(d);
    return 0;
}

QUEUE_TEST(a_partition_runs_one_at_a_time_and_others_beside_it)
{
    const struct durable_queue queue = { .name = "q", .partition_concurrency = 1 };
    struct engine it = { .store = f };
    struct durable *d[2];

    held = (struct held){ .open = true };
    CO_CHECK(two_engines(f, &queue, d));
    CO_CHECK(enqueue_many(d[0], "q", 48, 4, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "48"));
    CO_CHECK(held.most <= 4 && held.begun == 48);
    /* within a key, in order: the first of two ended before the second started */
    CO_CHECK(row_is(&it,
                    "SELECT count(*) FROM (SELECT completed_at AS c, lead(started_at_epoch_ms)"
                    " OVER (PARTITION BY queue_partition_key ORDER BY started_at_epoch_ms,"
                    " created_at) AS later FROM dbos.workflow_status) AS s WHERE later < c",
                    NULL, "0"));
    engines_gone(d);
    return 0;
}

QUEUE_TEST(limits_of_partitions_and_of_the_queue_hold_together)
{
    const struct durable_queue queue = { .name = "q",
                                         .concurrency = 3,
                                         .partition_worker_concurrency = 2,
                                         .partition_rate_max = 2,
                                         .partition_rate_period_ms = 200 };
    struct engine it = { .store = f };
    struct durable *d[2];

    held = (struct held){ .open = true };
    CO_CHECK(two_engines(f, &queue, d));
    CO_CHECK(enqueue_many(d[0], "q", 24, 4, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "24"));
    CO_CHECK(held.most <= 3 && held.begun == 24);
    CO_CHECK(row_is(&it, TOO_FAST("2", "200"), NULL, "0"));
    engines_gone(d);
    return 0;
}

/* --- hints --- */

QUEUE_TEST(an_enqueued_workflow_does_not_wait_for_the_next_look)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q", .polling_ms = 120000 };
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(fiber_sleep(50, e) == 0); /* its first look is over */
    CO_CHECK(enqueue_many(it.d, "q", 1, 0, e) == 0);
    CO_CHECK(ends_as(&it, "q-0", "SUCCESS"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_slot_that_becomes_free_is_used_at_once)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q",
                                         .polling_ms = 120000,
                                         .worker_concurrency = 1 };
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(fiber_sleep(50, e) == 0);
    CO_CHECK(enqueue_many(it.d, "q", 10, 0, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "10"));
    CO_CHECK(held.most == 1);
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(no_more_run_at_once_than_the_process_may)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1", .running = 3);
    const struct durable_queue queues[] = { { .name = "q" }, { .name = "p" } };
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    it.d = engine_with(f, &conf, queues, 2);
    CO_CHECK(it.d);
    CO_CHECK(enqueue_many(it.d, "q", 30, 0, e) == 0);
    CO_CHECK(enqueue_many(it.d, "p", 30, 0, e) == 0);
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "60"));
    CO_CHECK(held.most <= 3 && held.begun == 60);
    engine_gone(it.d);
    return 0;
}

/* --- definitions --- */

QUEUE_TEST(definitions_are_read_again_and_a_deleted_queue_stops)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "ours", .worker_concurrency = 7 };
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(
        row_is(&it, "SELECT worker_concurrency FROM dbos.queues WHERE name = ?1", "ours", "7"));
    CO_CHECK(make(f, (struct made){ .id = "a", .queue = "theirs" }));
    CO_CHECK(sql_run(&it,
                     "INSERT INTO dbos.queues (queue_id, name, polling_interval_sec)"
                     " VALUES ('x', ?1, 0.02)",
                     "theirs", NULL, e) == 0);
    CO_CHECK(ends_as(&it, "a", "SUCCESS"));
    CO_CHECK(sql_run(&it, "DELETE FROM dbos.queues", NULL, NULL, e) == 0);
    CO_CHECK(BECOMES(!queue_is_partitioned(it.d, STR("theirs")) && held.now == 0));
    CO_CHECK(fiber_sleep(200, e) == 0); /* several sweeps: it was noticed */
    CO_CHECK(make(f, (struct made){ .id = "b", .queue = "theirs" }));
    CO_CHECK(make(f, (struct made){ .id = "c", .queue = "ours" }));
    CO_CHECK(ends_as(&it, "c", "SUCCESS"));
    CO_CHECK(row_is(&it, STATUS, "b", "ENQUEUED"));
    engine_gone(it.d);
    return 0;
}

/* --- delays and deadlines --- */

QUEUE_TEST(a_delayed_workflow_runs_when_its_time_has_come_and_not_before)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q" };
    struct durable_start start = {
        .name = "brief", .queue = STR("q"), .delay_ms = 400, .id = STR("late")
    };
    struct durable_started ret;
    struct engine it = { .store = f };

    held = (struct held){ .open = true };
    conf.sweep_ms = 60000; /* so it is the hint that wakes */
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(durable_start(it.d, &start, &ret, e) == 0);
    CO_CHECK(row_is(&it, STATUS, "late", "DELAYED"));
    CO_CHECK(ends_as(&it, "late", "SUCCESS"));
    CO_CHECK(row_is(&it,
                    "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND started_at_epoch_ms >= delay_until_epoch_ms",
                    "late", "1"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_delayed_debounce_gives_its_key_back)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q", .worker_concurrency = 1 };
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    CO_CHECK(make(f, (struct made){ .id = "g", .name = "gate", .queue = "q", .created = 1 }));
    CO_CHECK(make(
        f, (struct made){ .id = "d", .status = "DELAYED", .queue = "q", .delay_until = 1000 }));
    CO_CHECK(make(
        f, (struct made){ .id = "n", .status = "DELAYED", .queue = "q", .delay_until = 1000 }));
    CO_CHECK(sql_run(&it,
                     "UPDATE dbos.workflow_status SET is_debounced = (workflow_uuid = ?1),"
                     " deduplication_id = workflow_uuid",
                     "d", NULL, e) == 0);
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(row_becomes(&it, STATUS, "d", "ENQUEUED"));
    CO_CHECK(row_becomes(&it, STATUS, "n", "ENQUEUED"));
    CO_CHECK(row_is(&it,
                    "SELECT deduplication_id FROM dbos.workflow_status WHERE workflow_uuid"
                    " = ?1",
                    "d", "(null)"));
    CO_CHECK(row_is(&it,
                    "SELECT deduplication_id FROM dbos.workflow_status WHERE workflow_uuid"
                    " = ?1",
                    "n", "n"));
    held.open = true;
    CO_CHECK(row_becomes(&it, N_DONE, NULL, "3"));
    engine_gone(it.d);
    return 0;
}

QUEUE_TEST(a_workflow_past_its_deadline_is_cancelled_wherever_it_is)
{
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q" };
    struct durable_start start = {
        .name = "gate", .queue = STR("q"), .timeout_ms = 300, .id = STR("runs")
    };
    struct durable_started ret;
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    CO_CHECK(make(f, (struct made){ .id = "sleeps",
                                    .status = "DELAYED",
                                    .queue = "q",
                                    .delay_until = wall_ms() + 3600 * 1000,
                                    .deadline = wall_ms() - 1 }));
    CO_CHECK(
        make(f, (struct made){ .id = "waits", .queue = "nobody's", .deadline = wall_ms() - 1 }));
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(durable_start(it.d, &start, &ret, e) == 0);
    CO_CHECK(ends_as(&it, "runs", "CANCELLED"));
    CO_CHECK(ends_as(&it, "sleeps", "CANCELLED"));
    CO_CHECK(ends_as(&it, "waits", "CANCELLED"));
    CO_CHECK(row_is(&it,
                    "SELECT count(*) FROM dbos.workflow_status WHERE owner_xid IS NULL"
                    " AND queue_name IS NULL AND started_at_epoch_ms IS NULL"
                    " AND completed_at IS NOT NULL",
                    NULL, "3"));
    CO_CHECK(BECOMES(held.now == 0)); /* its function has returned */
    engine_gone(it.d);
    return 0;
}

/* --- the clock (SQLite: the process's own) --- */

static int64_t stepped_us;

static uint64_t true_mono(void *arg)
{
    struct timespec t;

    (void)arg;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int64_t stepped_wall(void *arg)
{
    struct timespec t;

    (void)arg;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + stepped_us;
}

QUEUE_TEST(a_clock_set_by_an_hour_neither_prolongs_nor_cuts_timeouts_and_delays)
{
    static const struct time_source source = { true_mono, stepped_wall, NULL };
    struct durable_conf conf = QUICK_CONF(.app_version = "1");
    const struct durable_queue queue = { .name = "q", .rate_max = 2, .rate_period_ms = 50 };
    struct durable_start gated = { .name = "gate", .queue = STR("q"), .timeout_ms = 1800 * 1000 };
    struct durable_start late = {
        .name = "brief", .queue = STR("q"), .delay_ms = 1500, .id = STR("late")
    };
    struct durable_started ret;
    struct engine it = { .store = f };

    held = (struct held){ 0 };
    stepped_us = 0;
    time_set_source(&source);
    gated.id = STR("gated");
    it.d = engine_with(f, &conf, &queue, 1);
    CO_CHECK(it.d);
    CO_CHECK(durable_start(it.d, &gated, &ret, e) == 0);
    CO_CHECK(durable_start(it.d, &late, &ret, e) == 0);
    CO_CHECK(row_becomes(&it, STATUS, "gated", "PENDING"));
    stepped_us = 3600ll * 1000000;
    CO_CHECK(fiber_sleep(300, e) == 0); /* some sweeps at the new time */
    CO_CHECK(row_is(&it, STATUS, "gated", "PENDING"));
    CO_CHECK(row_is(&it, STATUS, "late", "DELAYED"));
    stepped_us = -3600ll * 1000000;
    CO_CHECK(ends_as(&it, "late", "SUCCESS"));
    CO_CHECK(row_is(&it, STATUS, "gated", "PENDING"));
    held.open = true;
    CO_CHECK(ends_as(&it, "gated", "SUCCESS"));
    engine_gone(it.d);
    time_set_source(NULL);
    return 0;
}
