/* SPDX-License-Identifier: MIT */
#include "durable/engine_fixture.h"
#include "swarm/monitor_int.h"
#include "test.h"

#define HOUR_MS 3600000

/* Rows as another engine, or an earlier process, would have left them. */
struct left {
    const char *id, *status, *name, *executor, *queue;
    int64_t created_ago_ms, updated_ago_ms, completed_ago_ms; /* 0: not completed */
    int64_t step_ago_ms;                                      /* 0: no step */
    const char *sleeps; /* the step is a sleep: what its record has before and after the time */
};

/* clang-format off */
static const struct sql sql_leave = {
    "test: leave",
    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, queue_name, created_at,"
    " updated_at, completed_at, recovery_attempts, application_version)"
    " VALUES (?1, ?2, ?3, ?4, CAST(?5 AS TEXT), ?6, ?7, CAST(?8 AS BIGINT), 1, '1')", NULL,
};
static const struct sql sql_leave_step = {
    "test: leave step",
    "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, output,"
    " started_at_epoch_ms, completed_at_epoch_ms) VALUES (?1, 0, ?3, ?4, ?2, ?2)", NULL,
};
/* clang-format on */

static const char *sleep_record(const char *before, int64_t until_ms, char out[64])
{
    fmt_z(out, 64, "%s%lld%s", before ? before : "", (long long)until_ms,
          before && *before ? "}" : "");
    return out;
}

static int leave_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct left *l = arg;
    const int64_t now = swarm_now();
    const struct sql_arg args[] = {
        SQL_Z(l->id),
        SQL_Z(l->status),
        SQL_Z(l->name ? l->name : "other"),
        SQL_Z(l->executor ? l->executor : "local"),
        SQL_Z(l->queue),
        SQL_INT(now - l->created_ago_ms),
        SQL_INT(now - l->updated_ago_ms),
        l->completed_ago_ms ? SQL_INT(now - l->completed_ago_ms) : SQL_NULL,
    };
    char until[64];
    const struct sql_arg step[] = { SQL_Z(l->id), SQL_INT(now - l->step_ago_ms),
                                    SQL_Z(l->sleeps ? "DBOS.sleep" : "step"),
                                    SQL_Z(sleep_record(l->sleeps, now + 60000, until)) };
    int r = store_run(tx, &sql_leave, args, LEN(args), NULL, NULL, e);

    return r == 0 && l->step_ago_ms ? store_run(tx, &sql_leave_step, step, LEN(step), NULL, NULL, e)
                                    : r;
}

static CO bool leave(struct engine *f, const struct left *rows, size_t n)
{
    struct err e;

    for (size_t i = 0; i < n; i++) {
        struct left row = rows[i];

        if (store_do(f->store->s, leave_body, &row, &e) < 0) {
            printf("# leave %s: %s\n", row.id, e.msg);
            return false;
        }
    }
    return true;
}

struct watched {
    struct swarm_settings set;
    struct swarm s;
    struct monitor *m;
    struct arena a;
};

static int watched_init(struct watched *w, struct engine *f, struct err *e)
{
    *w = (struct watched){
        .set = { .check_ms = 3600000, .stuck_ms = 60000, .backlog_ms = 60000, .failure_rate = 50 },
    };
    w->s.conf.store = f->store->s;
    w->s.conf.engine = f->d;
    w->s.conf.loop = f->store->loop;
    w->s.settings = &w->set;
    return monitor_new(&w->s, &w->m, e);
}

static int watched_done(struct watched *w, int r)
{
    monitor_free(w->m);
    arena_done(&w->a);
    return r;
}

static CO int greet(struct workflow *w, void *ctx, struct err *e)
{
    return durable_return(w, STR("\"hi\""), e);
}
static const struct durable_type types[] = { { .name = "greet", .fn = greet, .doc = "greets" } };

#define QUIET .instance = "test", .lease_ms = HOUR_MS /* nothing is reclaimed while we look */
#define MUST(cond) \
    do { \
        if (!(cond)) \
            return watched_done(&w, err_set(e, ERR_INTERNAL, "line %d: %s", __LINE__, #cond)); \
    } while (0)

ENGINE_TEST_CONF(an_empty_database_is_healthy, types, QUIET)
{
    struct monitor_look l;
    struct watched w;

    MUST(watched_init(&w, f, e) == 0);
    MUST(monitor_look(w.m, &w.a, &l, e) == 0);
    MUST(l.problems == 0 && l.n_texts == 0 && l.stuck == 0 && l.orphaned == 0 && l.dead == 0);
    MUST(l.backlog == 0 && l.ended == 0 && !l.sampled);
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(a_look_finds_what_does_not_get_on, types, QUIET)
{
    static const struct left rows[] = {
        { "fresh", "PENDING", .created_ago_ms = 9000000, .updated_ago_ms = 1000 },
        { "steps", "PENDING", .created_ago_ms = 8000000, .updated_ago_ms = 8000000,
          .step_ago_ms = 1000 },
        { "stuck", "PENDING", .created_ago_ms = 7000000, .updated_ago_ms = 7000000,
          .step_ago_ms = 120000 },
        { "sleeps", "PENDING", .created_ago_ms = 9000000, .updated_ago_ms = 9000000,
          .step_ago_ms = 9000000, .sleeps = "" },
        { "sleeps too", "PENDING", .created_ago_ms = 9000000, .updated_ago_ms = 9000000,
          .step_ago_ms = 9000000, .sleeps = "{\"json\":" },
        { "holds", "PENDING", .queue = "slow", .created_ago_ms = 9000000,
          .updated_ago_ms = 9000000 },
        { "orphan", "PENDING", .executor = "chela-dead", .created_ago_ms = 6000,
          .updated_ago_ms = 1000 },
        { "parked", "DELAYED", .created_ago_ms = 9000000, .updated_ago_ms = 9000000 },
        { "dead", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", .created_ago_ms = 9000000,
          .updated_ago_ms = 8000000, .completed_ago_ms = 8000000 },
        { "waits", "ENQUEUED", .queue = "nobody", .created_ago_ms = 9000000,
          .updated_ago_ms = 90000 },
        { "old", "ERROR", .created_ago_ms = 9000000, .updated_ago_ms = 8000000,
          .completed_ago_ms = 8000000 },
        { "failed", "ERROR", .created_ago_ms = 9000000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
        { "done", "SUCCESS", .created_ago_ms = 9000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
    };
    struct monitor_look l;
    struct watched w;

    MUST(watched_init(&w, f, e) == 0);
    MUST(leave(f, rows, LEN(rows)));
    MUST(sql_run(f, "INSERT INTO durable_queues (name, hold_slot) VALUES ('slow', 1)", NULL, NULL,
                 e) == 0);
    MUST(monitor_look(w.m, &w.a, &l, e) == 0);
    MUST(l.stuck == 1 && l.orphaned == 1 && l.n_bad == 2);
    MUST(str_eq_z(l.bad[0].id, "stuck") && !l.bad[0].orphan);
    MUST(l.at_ms - l.bad[0].progress_ms >= 120000 && l.at_ms - l.bad[0].progress_ms < 900000);
    MUST(str_eq_z(l.bad[1].id, "orphan") && l.bad[1].orphan);
    MUST(l.dead == 1 && l.ended == 2 && l.failed == 1);
    MUST(l.backlog == 1 && l.backlog_ms >= 90000 && l.backlog_ms < 900000);
    MUST(l.problems == (MONITOR_STUCK | MONITOR_ORPHANED | MONITOR_DEAD | MONITOR_BACKLOG));
    MUST(l.n_texts == 4);
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(a_version_that_nobody_runs_is_a_problem, types, QUIET)
{
    static const struct left row = { "waits",
                                     "ENQUEUED",
                                     "greet",
                                     .queue = "nobody",
                                     .created_ago_ms = 1000,
                                     .updated_ago_ms = 1000 };
    static const struct left foreign = {
        "another engine's",    "ENQUEUED", "not ours", .queue = "nobody", .created_ago_ms = 1000,
        .updated_ago_ms = 1000
    };
    const char *status;
    bool recovered;
    struct monitor_look l;
    struct watched w;

    MUST(watched_init(&w, f, e) == 0);
    MUST(leave(f, &row, 1) && leave(f, &foreign, 1));
    MUST(sql_run(f, "UPDATE dbos.workflow_status SET application_version = 'gone'", NULL, NULL,
                 e) == 0);
    MUST(monitor_look(w.m, &w.a, &l, e) == 0);
    MUST(l.blocked_version == 1 && l.problems == MONITOR_BLOCKED);
    MUST(l.n_blocked == 1 && str_eq_z(l.blocked[0].id, "waits"));
    MUST(str_eq_z(l.blocked[0].version, "gone"));
    MUST(monitor_recover(w.m, STR("waits"), &recovered, &status, &w.a, e) == 0);
    MUST(recovered && strcmp(status, "ENQUEUED") == 0);
    MUST(row_is(f, "SELECT application_version FROM dbos.workflow_status WHERE workflow_uuid = ?1",
                "waits", "1"));
    MUST(monitor_recover(w.m, STR("waits"), &recovered, &status, &w.a, e) == 0);
    MUST(!recovered);
    MUST(monitor_look(w.m, &w.a, &l, e) == 0);
    MUST(l.blocked_version == 0 && l.problems == 0);
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(many_failures_are_a_problem_when_enough_have_ended, types, QUIET)
{
    struct monitor_look l;
    struct watched w;

    MUST(watched_init(&w, f, e) == 0);
    for (int i = 0; i < 10; i++) {
        char id[16];
        const struct left row = { id, i < 6 ? "ERROR" : "SUCCESS", .created_ago_ms = 2000,
                                  .updated_ago_ms = 1000, .completed_ago_ms = 1000 };

        fmt_z(id, sizeof(id), "w%d", i);
        MUST(leave(f, &row, 1));
        MUST(monitor_look(w.m, &w.a, &l, e) == 0);
        MUST(l.problems == (i == 9 ? MONITOR_FAILING : 0));
    }
    w.set.failure_rate = 60;
    MUST(monitor_look(w.m, &w.a, &l, e) == 0);
    MUST(l.ended == 10 && l.failed == 6 && l.problems == 0);
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(only_what_the_dead_have_left_is_given_back_and_only_at_the_second_look, types,
                 QUIET)
{
    static const struct left rows[] = {
        { "left", "PENDING", "greet", "chela-dead", .created_ago_ms = 6000,
          .updated_ago_ms = 1000 },
        { "stuck", "PENDING", "greet", "local", .created_ago_ms = 90000, .updated_ago_ms = 90000 },
        { "failed", "ERROR", "greet", "chela-dead", .created_ago_ms = 6000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
    };
    struct watched w;

    durable_stop(f->d, 0); /* it would be quicker than we are */
    MUST(watched_init(&w, f, e) == 0);
    MUST(leave(f, rows, LEN(rows)));
    MUST(monitor_check(w.m, e) == 0);
    MUST(row_is(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1", "left",
                "PENDING"));
    MUST(swarm_m_unhealthy.v[0] == 3);
    MUST(monitor_check(w.m, e) == 0);
    MUST(row_is(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1", "left",
                "ENQUEUED"));
    MUST(monitor_check(w.m, e) == 0);
    MUST(row_is(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1", "stuck",
                "PENDING"));
    MUST(row_is(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1", "failed",
                "ERROR"));
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(recovery_by_hand_does_what_the_status_asks_for, types, QUIET)
{
    static const struct left rows[] = {
        { "left", "PENDING", "greet", "chela-dead", .created_ago_ms = 6000,
          .updated_ago_ms = 1000 },
        { "foreign", "PENDING", "greet", "local", .created_ago_ms = 6000, .updated_ago_ms = 1000 },
        { "cancelled", "CANCELLED", "greet", .created_ago_ms = 6000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
        { "dead", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "greet", .created_ago_ms = 6000,
          .updated_ago_ms = 1000, .completed_ago_ms = 1000 },
        { "failed", "ERROR", "greet", .created_ago_ms = 6000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
        { "done", "SUCCESS", "greet", .created_ago_ms = 6000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
    };
    static const char *const again[] = { "left", "cancelled", "dead" };
    static const char *const same[][2] = { { "foreign", "PENDING" },
                                           { "failed", "ERROR" },
                                           { "done", "SUCCESS" } };
    const char *status;
    struct watched w;
    bool recovered;

    durable_stop(f->d, 0);
    MUST(watched_init(&w, f, e) == 0);
    MUST(leave(f, rows, LEN(rows)));
    for (size_t i = 0; i < LEN(again); i++) {
        MUST(monitor_recover(w.m, str_of(again[i]), &recovered, &status, &w.a, e) == 0);
        MUST(recovered && strcmp(status, "ENQUEUED") == 0);
    }
    for (size_t i = 0; i < LEN(same); i++) {
        MUST(monitor_recover(w.m, str_of(same[i][0]), &recovered, &status, &w.a, e) == 0);
        MUST(!recovered && strcmp(status, same[i][1]) == 0);
    }
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(numbers_are_of_the_kind_and_the_time_that_was_asked_for, types, QUIET)
{
    const struct monitor_type *beat = monitor_type_find("heartbeat");
    struct monitor_stats st;
    struct watched w;

    MUST(watched_init(&w, f, e) == 0);
    for (int i = 1; i <= 100; i++) { /* 10 ms, 20 ms, … one second */
        char id[16];
        const struct left row = { id,
                                  i <= 10 ? "ERROR" : "SUCCESS",
                                  "heartbeatWorkflow",
                                  .created_ago_ms = 5000 + i * 10,
                                  .updated_ago_ms = 5000,
                                  .completed_ago_ms = 5000 };

        fmt_z(id, sizeof(id), "w%d", i);
        MUST(leave(f, &row, 1));
    }
    MUST(leave(f,
               (const struct left[]){
                   { "now", "PENDING", "heartbeatWorkflow", .created_ago_ms = 1000 },
                   { "another", "SUCCESS", "provisionAgentWorkflow", .created_ago_ms = 1000,
                     .completed_ago_ms = 1 },
                   { "long ago", "SUCCESS", "heartbeatWorkflow", .created_ago_ms = 2 * HOUR_MS,
                     .completed_ago_ms = HOUR_MS },
               },
               3));
    MUST(monitor_stats(w.m, beat, swarm_now() - HOUR_MS, &st, e) == 0);
    MUST(st.total == 101 && st.successful == 90 && st.failed == 10 && st.pending == 1);
    MUST(st.rows == 102 && !st.sampled);
    MUST(st.rate > 0.8999 && st.rate < 0.9001);
    /* The two times of a row are read from the clock together: they are exact. */
    MUST(st.mean_s > 0.504 && st.mean_s < 0.506);
    MUST(st.p95_s > 0.949 && st.p95_s < 0.951 && st.p99_s > 0.989 && st.p99_s < 0.991);
    MUST(monitor_stats(w.m, NULL, swarm_now() - 3 * HOUR_MS, &st, e) == 0);
    MUST(st.total == 103 && st.successful == 92);
    MUST(monitor_stats(w.m, monitor_type_find("command"), 0, &st, e) == 0);
    MUST(st.total == 0 && st.p99_s == 0 && st.rate == 0);
    MUST(monitor_stats(w.m, monitor_type_find("message"), 0, &st, e) == 0);
    MUST(st.total == 0);
    return watched_done(&w, 0);
}

ENGINE_TEST_CONF(what_has_failed_is_listed_newest_first, types, QUIET)
{
    static const struct left rows[] = {
        { "old", "ERROR", "heartbeatWorkflow", .created_ago_ms = 90000, .updated_ago_ms = 80000,
          .completed_ago_ms = 80000 },
        { "dead", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "greet", .created_ago_ms = 50000,
          .updated_ago_ms = 4000, .completed_ago_ms = 4000 },
        { "new", "ERROR", "heartbeatWorkflow", .created_ago_ms = 3000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
        { "cancelled", "CANCELLED", "greet", .created_ago_ms = 3000, .updated_ago_ms = 1000,
          .completed_ago_ms = 1000 },
    };
    const struct monitor_type *beat = monitor_type_find("heartbeat");
    struct monitor_failed *got;
    struct watched w;
    size_t n;

    MUST(watched_init(&w, f, e) == 0);
    MUST(leave(f, rows, LEN(rows)));
    MUST(monitor_failed(w.m, NULL, 0, 10, &w.a, &got, &n, e) == 0);
    MUST(n == 3 && str_eq_z(got[0].id, "new") && str_eq_z(got[1].id, "dead") &&
         str_eq_z(got[2].id, "old"));
    MUST(strcmp(got[1].status, "MAX_RECOVERY_ATTEMPTS_EXCEEDED") == 0);
    MUST(monitor_failed(w.m, beat, 0, 10, &w.a, &got, &n, e) == 0);
    MUST(n == 2);
    MUST(monitor_failed(w.m, beat, swarm_now() - 10000, 10, &w.a, &got, &n, e) == 0);
    MUST(n == 1 && str_eq_z(got[0].id, "new"));
    MUST(monitor_failed(w.m, NULL, 0, 1, &w.a, &got, &n, e) == 0);
    MUST(n == 1 && str_eq_z(got[0].id, "new"));
    return watched_done(&w, 0);
}

/* --- how a look reads --- */

struct plan {
    struct sql sql;
    const struct sql_arg *args;
    bool bad;
    char text[256];
};

/* Whole tables are small ones: the executors. */
static int take_plan(struct store_row *row, void *arg, struct err *e)
{
    struct plan *p = arg;
    struct str s = row_str(row, 3);

    fmt_z(p->text, sizeof(p->text), "%.*s", (int)(s.n < 250 ? s.n : 250), s.p);
    if (str_starts(s, STR("SCAN workflow_status")) || str_starts(s, STR("SCAN w")) ||
        str_starts(s, STR("SCAN o")))
        p->bad |= !strstr(p->text, "USING") || !strstr(p->text, "INDEX");
    if (p->bad)
        printf("# %s\n", p->text);
    return 0;
}

static int plan_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct plan *p = arg;
    size_t n = strstr(p->sql.text, "?2") ? 2 : strstr(p->sql.text, "?1") ? 1 : 0;

    return store_run(tx, &p->sql, p->args, n, take_plan, p, e);
}

ENGINE_TEST_CONF(a_look_goes_along_indexes, types, QUIET)
{
    static struct plan plans[MONITOR_LOOKS];
    static char texts[MONITOR_LOOKS][4096];
    const struct sql_arg text[] = { SQL_Z("x"), SQL_INT(1) }, number[] = { SQL_INT(1) };
    struct err why;

    if (strcmp(store_kind(f->store->s), "sqlite") != 0)
        return 0; /* PostgreSQL's planner reads small tables whole, whatever there is */
    for (size_t i = 0; i < MONITOR_LOOKS; i++) {
        fmt_z(texts[i], sizeof(texts[i]), "EXPLAIN QUERY PLAN %s", monitor_look_sql[i]->text);
        plans[i] = (struct plan){ .sql = { "test: plan", texts[i], NULL },
                                  .args = i == 0 ? text : number };
        if (store_do(f->store->s, plan_body, &plans[i], &why) < 0)
            return err_set(e, ERR_INTERNAL, "%s: %s", monitor_look_sql[i]->name, why.msg);
        if (plans[i].bad || !plans[i].text[0])
            return err_set(e, ERR_INTERNAL, "%s reads a whole table", monitor_look_sql[i]->name);
    }
    return 0;
}
