/* SPDX-License-Identifier: MIT */
/*
 * The engine's side of the durable bench: does one measurement and prints it as one line of JSON.
 *
 *   durable-bench --database URL flows STEPS IN_FLIGHT SECONDS   start, run and await, in a loop
 *   durable-bench --database URL step ROUNDS      durable_step beside INSERT and COMMIT over libpq
 *   durable-bench --database URL sqlite SECONDS FILE   64 in flight beside one commit per step
 *   durable-bench --database URL sleepers N DUE   N asleep, DUE of them due at one moment
 *   durable-bench --database URL pending          rows of a dead process are there: run them
 *
 * It asserts what it measures: a workflow that fails ends the program.
 */
#include <libpq-fe.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/offload.h"
#include "base/time.h"
#include "durable/durable.h"

#define SAMPLES (1 << 21)

static struct {
    const char *database;
    char **args;
    struct loop *loop;
    struct store *store;
    struct durable *d;
    int result;
    uint64_t end_us, *samples;
    size_t n_samples;
    unsigned long long woken, expected;
    uint64_t first_us, last_us;
    struct fiber *waiting;
} bench;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "durable-bench: %s: %s\n", what, why);
    exit(1);
}

static long long number(int i)
{
    if (!bench.args[i])
        die("usage", "an argument is missing; see the head of bench/durable.c");
    return strtoll(bench.args[i], NULL, 10);
}

/* --- samples --- */

static void sample(uint64_t us)
{
    if (bench.n_samples < SAMPLES)
        bench.samples[bench.n_samples++] = us;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double quantile(double q)
{
    if (!bench.n_samples)
        return 0;
    qsort(bench.samples, bench.n_samples, sizeof(*bench.samples), by_value);
    return (double)bench.samples[(size_t)(q * (double)(bench.n_samples - 1))];
}

static long long rss_kib(const char *key)
{
    char line[256];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");

    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoll(line + strlen(key) + 1, NULL, 10);
    if (f)
        fclose(f);
    return kib;
}

/* --- the workflows --- */

CO static int nothing(void *arg, struct buf *out, struct err *e)
{
    return buf_add_z(out, "1", e);
}

/* Argument: how many steps. Each is sampled when the argument is negative. */
CO static int flow(struct workflow *w, void *ctx, struct err *e)
{
    long long n = json_integer_value(workflow_arg(w, 0));
    bool sampled = n < 0;

    for (n = sampled ? -n : n; n > 0; n--) {
        uint64_t began = now_us();
        int r = durable_step(w, "step", NULL, nothing, NULL, NULL, e);

        if (r < 0)
            return r;
        if (sampled)
            sample(now_us() - began);
    }
    return durable_return(w, STR("1"), e);
}

/* Argument: milliseconds. */
CO static int sleeper(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_sleep(w, (uint64_t)json_integer_value(workflow_arg(w, 0)), e);

    if (r < 0)
        return r;
    bench.last_us = now_us();
    if (!bench.woken++)
        bench.first_us = bench.last_us;
    if (bench.woken == bench.expected)
        fiber_wake(bench.waiting);
    return 0;
}

/* What the rows of a dead process are: one step, then counted. */
CO static int orphan(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_step(w, "step", NULL, nothing, NULL, NULL, e);

    if (r < 0)
        return r;
    bench.last_us = now_us();
    if (!bench.woken++)
        bench.first_us = bench.last_us;
    if (bench.woken == bench.expected)
        fiber_wake(bench.waiting);
    return 0;
}

static const struct durable_type types[] = {
    { .name = "flow", .fn = flow, .doc = "Steps that do nothing." },
    { .name = "sleeper", .fn = sleeper, .doc = "Sleeps." },
    { .name = "orphan", .fn = orphan, .doc = "One step." },
};

CO static void start(const char *name, long long arg, char id[DURABLE_ID])
{
    char args[32];
    struct durable_start s = { .name = name };
    struct durable_started started;
    struct err e;

    fmt_z(args, sizeof(args), "[%lld]", arg);
    s.args = str_of(args);
    if (durable_start(bench.d, &s, &started, &e) < 0)
        die("start", e.msg);
    if (id)
        fmt_z(id, DURABLE_ID, "%s", started.id);
}

CO static void await(const char *id)
{
    enum durable_status status;
    struct err e;

    if (durable_await(bench.d, str_of(id), DEADLINE_NONE, &status, NULL, &e) < 0)
        die("await", e.msg);
    if (status != DURABLE_SUCCESS)
        die(id, durable_status_name(status));
}

/* --- flows: start to finish --- */

CO static int one_caller(void *arg, struct err *e)
{
    long long steps = *(long long *)arg;

    while (now_us() < bench.end_us) {
        char id[DURABLE_ID];
        uint64_t began = now_us();

        start("flow", steps, id);
        await(id);
        sample(now_us() - began);
    }
    return 0;
}

CO static int callers(long long steps, long long in_flight, double seconds, struct err *e)
{
    struct fiber_group *g = fiber_group_new(bench.loop);
    int r = 0;

    bench.end_us = now_us() + (uint64_t)(seconds * 1e6);
    for (long long i = 0; r == 0 && i < in_flight; i++)
        r = fiber_group_spawn(g, "caller", one_caller, &steps, e);
    if (r == 0)
        r = fiber_group_join(g, e);
    fiber_group_free(g);
    return r;
}

CO static int measure_flows(struct err *e)
{
    long long steps = number(1), in_flight = number(2);
    double seconds = (double)number(3), took;
    uint64_t began;
    int r;

    r = callers(steps, in_flight, seconds / 4, e);
    if (r < 0)
        return r;
    bench.n_samples = 0;
    began = now_us();
    r = callers(steps, in_flight, seconds, e);
    took = (double)(now_us() - began) / 1e6;
    printf("{\"workflows\":%zu,\"seconds\":%.3f,\"workflows_per_s\":%.1f,\"steps_per_s\":%.1f,"
           "\"p50_us\":%.0f,\"p99_us\":%.0f}\n",
           bench.n_samples, took, (double)bench.n_samples / took,
           (double)bench.n_samples * (double)steps / took, quantile(0.5), quantile(0.99));
    return r;
}

/* --- step: beside the least that PostgreSQL can do --- */

static const char insert_text[] =
    "INSERT INTO bench_journal (workflow_uuid, function_id, function_name, output, "
    "started_at_epoch_ms,"
    " completed_at_epoch_ms, serialization) VALUES ($1, $2, 'step', '1', 1, 2, 'portable_json')";

static void pg_must(PGconn *conn, PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        die("libpq", PQerrorMessage(conn));
    PQclear(result);
}

static PGconn *pg_connect(void)
{
    PGconn *conn = PQconnectdb(bench.database);

    if (PQstatus(conn) != CONNECTION_OK)
        die("libpq", PQerrorMessage(conn));
    pg_must(conn,
            PQexec(conn, "CREATE TABLE IF NOT EXISTS bench_journal (workflow_uuid text,"
                         " function_id int4, function_name text NOT NULL, output text, error text,"
                         " child_workflow_id text, started_at_epoch_ms bigint,"
                         " completed_at_epoch_ms bigint, serialization text,"
                         " PRIMARY KEY (workflow_uuid, function_id))"));
    pg_must(conn, PQprepare(conn, "insert", insert_text, 2, NULL));
    return conn;
}

static void pg_insert(PGconn *conn, const char *id, int n, bool transaction)
{
    char text[16];
    const char *values[] = { id, text };
    uint64_t began = now_us();

    fmt_z(text, sizeof(text), "%d", n);
    if (transaction)
        pg_must(conn, PQexec(conn, "BEGIN"));
    pg_must(conn, PQexecPrepared(conn, "insert", 2, values, NULL, NULL, 0));
    if (transaction)
        pg_must(conn, PQexec(conn, "COMMIT"));
    sample(now_us() - began);
}

/* The three take turns, a hundred at a time, and each keeps its own samples. */
CO static int measure_step(struct err *e)
{
    long long rounds = number(1);
    double medians[3];
    PGconn *conn = pg_connect();

    for (int kind = 0; kind < 3; kind++)
        medians[kind] = 0;
    bench.n_samples = 0;
    static uint64_t *kept[3];
    size_t n[3] = { 0 };

    for (int kind = 0; kind < 3; kind++)
        kept[kind] = xcalloc((size_t)rounds * 100, sizeof(uint64_t));
    for (long long round = 0; round < rounds; round++) {
        char id[DURABLE_ID];

        for (int kind = 0; kind < 3; kind++) {
            bench.n_samples = 0;
            if (kind == 0) {
                start("flow", -100, id);
                await(id);
            } else {
                char key[64];

                fmt_z(key, sizeof(key), "%d-%lld-%ld", kind, round, (long)getpid());
                for (int i = 0; i < 100; i++)
                    pg_insert(conn, key, i, kind == 1);
            }
            memcpy(kept[kind] + n[kind], bench.samples, bench.n_samples * sizeof(uint64_t));
            n[kind] += bench.n_samples;
        }
    }
    for (int kind = 0; kind < 3; kind++) {
        memcpy(bench.samples, kept[kind], n[kind] * sizeof(uint64_t));
        bench.n_samples = n[kind];
        medians[kind] = quantile(0.5);
    }
    PQfinish(conn);
    printf("{\"step_us\":%.0f,\"begin_insert_commit_us\":%.0f,\"insert_autocommit_us\":%.0f}\n",
           medians[0], medians[1], medians[2]);
    return 0;
}

/* --- sqlite: beside one commit per step --- */

static void lite_must(sqlite3 *db, int rc)
{
    if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
        die("sqlite", sqlite3_errmsg(db));
}

static double plain_rate(const char *path, double seconds)
{
    sqlite3 *db;
    sqlite3_stmt *insert;
    uint64_t began = now_us(), end = began + (uint64_t)(seconds * 1e6);
    long long n = 0;

    lite_must(NULL, sqlite3_open(path, &db));
    lite_must(db, sqlite3_exec(db,
                               "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                               "CREATE TABLE IF NOT EXISTS bench_journal (workflow_uuid TEXT,"
                               " function_id INTEGER, function_name TEXT, output TEXT, PRIMARY KEY"
                               " (workflow_uuid, function_id))",
                               NULL, NULL, NULL));
    lite_must(db, sqlite3_prepare_v2(db,
                                     "INSERT INTO bench_journal VALUES (hex(randomblob(16)), ?1,"
                                     " 'step', '1')",
                                     -1, &insert, NULL));
    for (; now_us() < end; n++) {
        lite_must(db, sqlite3_bind_int64(insert, 1, n));
        lite_must(db, sqlite3_step(insert));
        lite_must(db, sqlite3_reset(insert));
    }
    sqlite3_finalize(insert);
    sqlite3_close(db);
    return (double)n / ((double)(now_us() - began) / 1e6);
}

CO static int measure_sqlite(struct err *e)
{
    double seconds = (double)number(1), ours, plain, took;
    uint64_t began;
    int r;

    if (!bench.args[2])
        die("usage", "sqlite SECONDS FILE");
    plain = plain_rate(bench.args[2], seconds / 2);
    bench.n_samples = 0;
    began = now_us();
    r = callers(100, 64, seconds, e);
    took = (double)(now_us() - began) / 1e6;
    ours = (double)bench.n_samples * 100 / took;
    plain = (plain + plain_rate(bench.args[2], seconds / 2)) / 2;
    printf("{\"steps_per_s\":%.1f,\"commit_per_step_per_s\":%.1f}\n", ours, plain);
    return r;
}

/* --- sleepers, pending --- */

static int note(struct store_row *row, void *arg, struct err *e)
{
    *(long long *)arg = row_int(row, 0);
    return 0;
}

static int count_parked(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sql = { "bench_parked", "SELECT count(*) FROM durable_parked", NULL };

    return store_run(tx, &sql, NULL, 0, note, arg, e);
}

static int count_pending(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sql = {
        "bench_pending",
        "SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING'",
        NULL,
    };

    return store_run(tx, &sql, NULL, 0, note, arg, e);
}

struct part {
    long long n, ms;
    uint64_t due_us; /* 0: ms from now, else sleep until then */
};

CO static int start_part(void *arg, struct err *e)
{
    struct part *part = arg;

    while (part->n-- > 0)
        start("sleeper", part->due_us ? (long long)((part->due_us - now_us()) / 1000) : part->ms,
              NULL);
    return 0;
}

CO static int start_sleepers(long long n, long long ms, uint64_t due_us, struct err *e)
{
    struct part parts[64];
    struct fiber_group *g = fiber_group_new(bench.loop);
    int r = 0;

    for (size_t i = 0; r == 0 && i < LEN(parts); i++) {
        long long share = n * (long long)(i + 1) / (long long)LEN(parts) -
                          n * (long long)i / (long long)LEN(parts);

        parts[i] = (struct part){ share, ms, due_us };
        r = fiber_group_spawn(g, "starter", start_part, &parts[i], e);
    }
    if (r == 0)
        r = fiber_group_join(g, e);
    fiber_group_free(g);
    return r;
}

CO static int wait_count(store_body *count, long long wanted, struct err *e)
{
    long long n = -1;
    int r = 0;

    while (r == 0 && n != wanted) {
        r = store_read(bench.store, count, &n, e);
        if (r >= 0 && n != wanted)
            r = fiber_sleep(50, e);
    }
    return r < 0 ? r : 0;
}

CO static int wait_woken(struct err *e)
{
    int r = 0;

    bench.waiting = fiber_self();
    while (r == 0 && bench.woken < bench.expected)
        r = fiber_park(DEADLINE_NONE, e);
    return r;
}

CO static int measure_sleepers(struct err *e)
{
    long long n = number(1), due = number(2), before = rss_kib("VmRSS:"), asleep, anon;
    uint64_t began = now_us(), due_us, started_us;
    int r;

    bench.expected = (unsigned long long)due;
    r = start_sleepers(n - due, 3600 * 1000 * 24, 0, e);
    due_us = now_us() + 30000000 + (uint64_t)due * 1000;
    if (r == 0)
        r = start_sleepers(due, 0, due_us, e);
    started_us = now_us() - began;
    if (r == 0)
        r = wait_count(count_parked, n, e);
    asleep = rss_kib("VmRSS:");
    anon = rss_kib("RssAnon:");
    if (now_us() >= due_us)
        die("sleepers", "they were due before all were asleep");
    if (r == 0)
        r = wait_woken(e);
    printf(
        "{\"sleeping\":%lld,\"start_seconds\":%.1f,\"rss_before_kib\":%lld,\"rss_asleep_kib\":%lld,"
        "\"anon_asleep_kib\":%lld,\"due\":%lld,\"first_after_ms\":%.0f,\"all_after_ms\":%.0f}\n",
        n, (double)started_us / 1e6, before, asleep, anon, due,
        ((double)bench.first_us - (double)due_us) / 1e3,
        ((double)bench.last_us - (double)due_us) / 1e3);
    return r;
}

CO static int measure_pending(uint64_t began_us, uint64_t serving_us, struct err *e)
{
    int r = wait_woken(e);

    printf("{\"pending\":%llu,\"serving_ms\":%.0f,\"first_ms\":%.0f,\"last_ms\":%.0f,"
           "\"rss_kib\":%lld}\n",
           bench.expected, (double)(serving_us - began_us) / 1e3,
           (double)(bench.first_us - began_us) / 1e3, (double)(bench.last_us - began_us) / 1e3,
           rss_kib("VmHWM:"));
    return r;
}

/* --- the program --- */

CO static int run(struct err *e)
{
    const struct durable_conf conf = { .instance = "bench" };
    const struct store_conf store = {
        .url = bench.database,
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
    };
    const char *mode = bench.args[0];
    uint64_t began = now_us();
    long long pending = 0;
    int r;

    r = store_open(bench.loop, &store, &bench.store, e);
    if (r < 0)
        return r;
    bench.d = durable_new(bench.loop, bench.store, &conf);
    r = durable_register(bench.d, types, LEN(types), e);
    if (r == 0 && strcmp(mode, "pending") == 0)
        r = store_read(bench.store, count_pending, &pending, e);
    bench.expected = (unsigned long long)pending;
    if (r == 0)
        r = durable_run(bench.d, e);
    if (r < 0)
        return r;
    if (strcmp(mode, "flows") == 0)
        r = measure_flows(e);
    else if (strcmp(mode, "step") == 0)
        r = measure_step(e);
    else if (strcmp(mode, "sqlite") == 0)
        r = measure_sqlite(e);
    else if (strcmp(mode, "sleepers") == 0)
        r = measure_sleepers(e);
    else if (strcmp(mode, "pending") == 0)
        r = measure_pending(began, now_us(), e);
    else if (strcmp(mode, "prepare") != 0) /* prepare: only make the tables */
        r = err_set(e, ERR_INVALID, "no mode '%s'", mode);
    durable_stop(bench.d, 1000);
    return r;
}

CO static int live(void *arg, struct err *e)
{
    struct err why;

    bench.result = run(&why);
    if (bench.result < 0)
        fprintf(stderr, "durable-bench: %s\n", why.msg);
    loop_stop(bench.loop);
    return 0;
}

int main(int argc, char **argv)
{
    struct err e;

    if (argc < 4 || strcmp(argv[1], "--database") != 0) {
        fprintf(stderr, "usage: durable-bench --database URL MODE ...; see bench/durable.c\n");
        return 2;
    }
    bench.database = argv[2];
    bench.args = argv + 3;
    bench.samples = xcalloc(SAMPLES, sizeof(*bench.samples));
    log_setup(LOG_WARN, LOG_TEXT);
    if (loop_new(&bench.loop, &e) < 0 || fiber_spawn(bench.loop, "bench", live, NULL, NULL, &e) < 0)
        die("start", e.msg);
    loop_run(bench.loop);
    store_close(bench.store);
    durable_free(bench.d);
    offload_shutdown();
    loop_free(bench.loop);
    free(bench.samples);
    return bench.result < 0;
}
