/* SPDX-License-Identifier: MIT */
/*
 * durable/manage_test.c — looking at workflows and steering them: beside a running engine, on
 * SQLite or, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 4

#include <limits.h>

#include "durable/engine_fixture.h"
#include "durable/manage.h"

/* --- workflows --- */

static int bodies; /* how often a step ran */
static bool broken;

static int body_ok(void *arg, struct buf *out, struct err *e)
{
    bodies++;
    return buf_add_z(out, "1", e);
}

static int body_broken(void *arg, struct buf *out, struct err *e)
{
    bodies++;
    return broken ? err_set(e, ERR_UNAVAILABLE, "the shop is closed") : buf_add_z(out, "2", e);
}

/* 0 step, 1 event, 2 stream, 3 a step that may fail, 4 event, 5 stream */
static CO int order(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_step(w, "first", NULL, body_ok, NULL, NULL, e);

    if (r == 0)
        r = durable_set_event(w, STR("state"), STR("\"begun\""), e);
    if (r == 0)
        r = durable_write_stream(w, STR("log"), STR("\"a\""), e);
    if (r == 0)
        r = durable_step(w, "second", NULL, body_broken, NULL, NULL, e);
    if (r == 0)
        r = durable_set_event(w, STR("state"), STR("\"done\""), e);
    if (r == 0)
        r = durable_write_stream(w, STR("log"), STR("\"b\""), e);
    return r < 0 ? r : durable_return(w, STR("\"shipped\""), e);
}

static CO int waits(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, 1 * KIB);
    r = durable_recv(w, STR("go"), 600000, &out, e);
    if (r == DURABLE_NOTHING)
        return err_set(e, ERR_TIMEOUT, "nobody said go");
    return r < 0 ? r : durable_return(w, buf_str(&out), e);
}

static CO int parent(struct workflow *w, void *ctx, struct err *e)
{
    struct durable_start start = { .name = "waits" };
    struct durable_started one, two;
    int r = durable_child(w, &start, &one, e);

    if (r == 0)
        r = durable_child(w, &start, &two, e);
    if (r == 0)
        r = durable_result(w, str_of(one.id), 0, NULL, e);
    return r;
}

static const struct durable_type types[] = {
    { .name = "order", .fn = order },
    { .name = "waits", .fn = waits },
    { .name = "parent", .fn = parent },
};

#define STATUS_OF "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"

static CO bool cancels(struct engine *f, const char *id, bool children, int64_t want)
{
    struct str ids[] = { str_of(id) };
    struct err e = { 0 };
    int64_t n = -1;

    if (durable_cancel(f->d, ids, 1, children, &n, &e) == 0 && n == want)
        return true;
    printf("# cancel %s: %lld, %s\n", id, (long long)n, e.msg);
    return false;
}

static CO bool deletes(struct engine *f, const char *id, bool children, bool force, int64_t want)
{
    struct str ids[] = { str_of(id) };
    struct err e = { 0 };
    int64_t n = -1;

    if (durable_delete(f->d, ids, 1, children, force, &n, &e) == 0 && n == want)
        return true;
    printf("# delete %s: %lld, %s\n", id, (long long)n, e.msg);
    return false;
}

/* --- list --- */

/* clang-format off */
#define LIST_ROWS \
    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name," \
    " authenticated_user, executor_id, application_version, created_at, updated_at, completed_at," \
    " parent_workflow_id, forked_from, schedule_name, attributes, inputs, output, serialization)" \
    " VALUES ('a-1', 'SUCCESS', 'n1', NULL, 'q1', 'ann', 'x1', 'v1', 1000, 1000, 1500, NULL," \
    "  NULL, 's1', '{\"k\":1,\"t\":true}', '{\"positionalArgs\":[7]}', '8', 'portable_json')," \
    " ('a-2', 'ERROR', 'n2', 'C', 'q2', 'ben', 'x2', 'v2', 2000, 2000, 2500, 'a-1', NULL, NULL," \
    "  '{\"k\":1.0,\"t\":false}', NULL, NULL, NULL)," \
    " ('b-3', 'CANCELLED', 'n1', NULL, NULL, NULL, NULL, NULL, 3000, 3000, 3500, 'a-1', 'a-2'," \
    "  NULL, NULL, NULL, NULL, NULL)," \
    " ('b-4', 'DELAYED', 'n3', NULL, 'q1', 'ann', '', 'gone', 4000, 4000, NULL, NULL, 'a-1'," \
    "  's2', '{\"k\":\"1\"}', NULL, NULL, NULL)"
/* clang-format on */

static CO bool lists(struct engine *f, struct durable_filter filter, const char *want)
{
    struct durable_info *rows;
    struct arena a = { 0 };
    char have[512] = "";
    struct err e = { 0 };
    size_t n = 0;
    int r = durable_list(f->d, &filter, &a, &rows, &n, &e);

    for (size_t i = 0; r == 0 && i < n; i++)
        fmt_z(have + strlen(have), sizeof(have) - strlen(have), "%s%s", i ? " " : "", rows[i].id.p);
    arena_done(&a);
    if (r == 0 && strcmp(have, want) == 0)
        return true;
    printf("# listed '%s', want '%s': %s\n", have, want, e.msg);
    return false;
}

#define ONE_OF(field, ...) \
    .field = (const struct str[]){ __VA_ARGS__ }, \
    .n_##field = LEN(((const struct str[]){ __VA_ARGS__ }))
#define LISTS(want, ...) CO_CHECK(lists(f, (struct durable_filter){ __VA_ARGS__ }, want))

static const struct sql sql_list_rows = { "test: list rows", LIST_ROWS, NULL };

static CO int insert_list_rows(struct engine *f, struct err *e)
{
    return sql_run_at(f, &sql_list_rows, NULL, NULL, e);
}

ENGINE_TEST(a_list_has_what_its_filter_says, types)
{
    CO_CHECK(insert_list_rows(f, e) == 0);
    LISTS("a-1 a-2 b-3 b-4", .limit = 0);
    LISTS("b-4 b-3 a-2 a-1", .descending = true);
    LISTS("a-2 b-3", .limit = 2, .offset = 1);
    LISTS("a-1 b-3", ONE_OF(ids, STR("b-3"), STR("a-1"), STR("none")));
    LISTS("b-3 a-1", ONE_OF(ids, STR("b-3"), STR("a-1")), .descending = true);
    LISTS("a-1 b-3", ONE_OF(names, STR("n1")));
    LISTS("a-1 a-2 b-3", ONE_OF(names, STR("n1"), STR("n2")));
    LISTS("a-1 b-4", ONE_OF(queues, STR("q1")));
    LISTS("a-2", ONE_OF(users, STR("ben")));
    LISTS("a-2", ONE_OF(versions, STR("v2")));
    LISTS("a-1 a-2", ONE_OF(executors, STR("x1"), STR("x2")));
    LISTS("a-2 b-3", ONE_OF(parents, STR("a-1")));
    LISTS("b-3 b-4", ONE_OF(forked_from, STR("a-2"), STR("a-1")));
    LISTS("b-4", ONE_OF(schedules, STR("s2")));
    LISTS("a-2 b-3", .statuses = 1u << DURABLE_ERROR | 1u << DURABLE_CANCELLED);
    LISTS("b-3 b-4", .id_prefix = STR("b-"));
    LISTS("", .id_prefix = STR("%"));
    LISTS("a-2 b-3", .created_from_ms = 2000, .created_to_ms = 3000);
    LISTS("a-1 a-2", .completed_from_ms = 1500, .completed_to_ms = 2500);
    LISTS("b-4", .queues_only = true);
    LISTS("a-1", .attributes = STR("{\"t\":true}"));
    LISTS("a-1 a-2", .attributes = STR("{\"k\":1}"));
    LISTS("a-1 a-2 b-4", .attributes = STR("{}"));
    LISTS("a-1", ONE_OF(names, STR("n1"), STR("n3")), ONE_OF(users, STR("ann")),
          .statuses = 1u << DURABLE_SUCCESS);
    return 0;
}

ENGINE_TEST(a_list_that_asks_for_nonsense_is_refused, types)
{
    struct durable_filter filter = { .limit = 1001 };
    struct durable_info *rows;
    struct arena a = { 0 };
    size_t n;

    CO_CHECK(durable_list(f->d, &filter, &a, &rows, &n, e) == -ERR_LIMIT);
    filter = (struct durable_filter){ .offset = -1 };
    CO_CHECK(durable_list(f->d, &filter, &a, &rows, &n, e) == -ERR_INVALID);
    filter = (struct durable_filter){ .statuses = 1u << DURABLE_STATUSES };
    CO_CHECK(durable_list(f->d, &filter, &a, &rows, &n, e) == -ERR_INVALID);
    filter = (struct durable_filter){ .attributes = STR("[1]") };
    CO_CHECK(durable_list(f->d, &filter, &a, &rows, &n, e) == -ERR_INVALID);
    filter = (struct durable_filter){ .attributes = STR("{\"a\":") };
    CO_CHECK(durable_list(f->d, &filter, &a, &rows, &n, e) == -ERR_INVALID);
    arena_done(&a);
    return 0;
}

ENGINE_TEST(a_row_is_shown_whole, types)
{
    struct durable_filter filter = { .limit = 1, .load_input = true };
    struct durable_info *rows, info;
    struct arena a = { 0 };
    size_t n;

    CO_CHECK(insert_list_rows(f, e) == 0);
    CO_CHECK(durable_list(f->d, &filter, &a, &rows, &n, e) == 0 && n == 1);
    CO_CHECK(str_eq_z(rows[0].input, "{\"positionalArgs\":[7]}") && !rows[0].output.p);
    CO_CHECK(durable_get(f->d, STR("a-1"), &a, &info, e) == 0);
    CO_CHECK(info.status == DURABLE_SUCCESS && str_eq_z(info.output, "8") && !info.error.p);
    CO_CHECK(info.created_ms == 1000 && info.completed_ms == 1500 && info.deadline_ms == 0);
    CO_CHECK(str_eq_z(info.schedule, "s1") && str_eq_z(info.serialization, "portable_json"));
    CO_CHECK(!info.class_name.p && !info.known && !info.blocked_version && !info.parked);
    CO_CHECK(durable_get(f->d, STR("a-2"), &a, &info, e) == 0);
    CO_CHECK(str_eq_z(info.class_name, "C") && str_eq_z(info.parent, "a-1"));
    CO_CHECK(durable_get(f->d, STR("nobody"), &a, &info, e) == -ERR_NOT_FOUND);
    arena_done(&a);
    return 0;
}

ENGINE_TEST(a_version_that_nobody_runs_is_seen, types)
{
    struct durable_overview o;
    struct durable_info info;
    struct arena a = { 0 };

    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name,"
                     " application_version, executor_id)"
                     " VALUES ('old', 'ENQUEUED', 'order', '_dbos_internal_queue', 'gone', '')",
                     NULL, NULL, e) == 0);
    CO_CHECK(durable_get(f->d, STR("old"), &a, &info, e) == 0);
    CO_CHECK(info.known && info.blocked_version && info.status == DURABLE_ENQUEUED);
    CO_CHECK(durable_overview(f->d, &o, e) == 0);
    CO_CHECK(o.blocked_version == 1 && o.by_status[DURABLE_ENQUEUED].n == 1);
    CO_CHECK(o.executors == 1);
    arena_done(&a);
    return 0;
}

ENGINE_TEST(steps_are_listed_in_pages, types)
{
    struct durable_step_info *steps;
    struct arena a = { 0 };
    size_t n;

    broken = false;
    CO_CHECK(starts(f, "order", "o-1") && ends_as(f, "o-1", "SUCCESS"));
    CO_CHECK(durable_steps(f->d, STR("o-1"), 0, 0, &a, &steps, &n, e) == 0 && n == 6);
    CO_CHECK(str_eq_z(steps[0].name, "first") && str_eq_z(steps[0].output, "1"));
    CO_CHECK(str_eq_z(steps[1].name, "DBOS.setEvent") && steps[1].id == 1);
    CO_CHECK(durable_steps(f->d, STR("o-1"), 3, 2, &a, &steps, &n, e) == 0 && n == 2);
    CO_CHECK(steps[0].id == 3 && str_eq_z(steps[0].name, "second"));
    CO_CHECK(durable_steps(f->d, STR("nobody"), 0, 0, &a, &steps, &n, e) == 0 && n == 0);
    CO_CHECK(durable_steps(f->d, STR("o-1"), 0, UINT_MAX, &a, &steps, &n, e) == 0 && n == 6);
    CO_CHECK(durable_steps(f->d, STR("o-1"), 0, 10001, &a, &steps, &n, e) == -ERR_LIMIT);
    arena_done(&a);
    return 0;
}

/* --- cancel, resume --- */

ENGINE_TEST(a_cancelled_parent_takes_its_children_along, types)
{
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(row_becomes(f,
                         "SELECT count(*) FROM dbos.workflow_status"
                         " WHERE parent_workflow_id = ?1",
                         "p", "2"));
    CO_CHECK(cancels(f, "p", true, 3));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_status WHERE status = 'CANCELLED'"
                    " AND completed_at IS NOT NULL AND owner_xid IS NULL"
                    " AND queue_name IS NULL AND started_at_epoch_ms IS NULL",
                    NULL, "3"));
    while (f->d->n_live > 0)
        CO_CHECK(fiber_sleep(5, e) == 0);
    CO_CHECK(cancels(f, "p", true, 0));
    CO_CHECK(cancels(f, "nobody", true, 0));
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_parked", NULL, "0"));
    return 0;
}

ENGINE_TEST(who_waits_for_a_cancelled_child_hears_of_it, types)
{
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(row_becomes(f, STATUS_OF, "p-0", "PENDING"));
    CO_CHECK(cancels(f, "p-0", false, 1));
    CO_CHECK(ends_as(f, "p", "ERROR"));
    CO_CHECK(row_becomes(f,
                         "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                         " AND status <> 'CANCELLED'",
                         "p-1", "PENDING"));
    return 0;
}

ENGINE_TEST_CONF(a_parked_workflow_is_cancelled_and_resumed, types, .instance = "test",
                 .park_ms = 1)
{
    struct str none = { 0 };

    CO_CHECK(starts(f, "waits", "w"));
    CO_CHECK(
        row_becomes(f, "SELECT count(*) FROM durable_parked WHERE workflow_uuid = ?1", "w", "1"));
    CO_CHECK(durable_resume(f->d, STR("w"), none, e) == 0); /* it is active: nothing happens */
    CO_CHECK(cancels(f, "w", false, 1));
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_parked", NULL, "0"));
    CO_CHECK(durable_post(f->d, STR("w"), STR("go"), STR("5"), none, e) == 0);
    CO_CHECK(row_is(f, STATUS_OF, "w", "CANCELLED"));
    CO_CHECK(durable_resume(f->d, STR("w"), none, e) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(
        row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1", "w", "5"));
    CO_CHECK(durable_resume(f->d, STR("w"), none, e) == -ERR_CONFLICT);
    CO_CHECK(durable_resume(f->d, STR("nobody"), none, e) == -ERR_NOT_FOUND);
    return 0;
}

ENGINE_TEST(what_was_created_before_is_cancelled, types)
{
    int64_t n = -1;

    CO_CHECK(insert_list_rows(f, e) == 0);
    CO_CHECK(starts(f, "waits", "new"));
    CO_CHECK(durable_cancel_before(f->d, 5000, &n, e) == 0 && n == 1);
    CO_CHECK(row_is(f, STATUS_OF, "b-4", "CANCELLED") && row_is(f, STATUS_OF, "a-1", "SUCCESS"));
    CO_CHECK(row_becomes(f, STATUS_OF, "new", "PENDING"));
    return 0;
}

/* --- fork, rewind, retry --- */

ENGINE_TEST(a_fork_keeps_the_records_before_its_step, types)
{
    struct durable_fork fork = { .id = STR("o"), .step = 3 };
    char id[DURABLE_ID];

    broken = false;
    bodies = 0;
    CO_CHECK(starts(f, "order", "o") && ends_as(f, "o", "SUCCESS") && bodies == 2);
    CO_CHECK(durable_fork(f->d, &fork, id, e) == 0);
    CO_CHECK(ends_as(f, id, "SUCCESS") && bodies == 3);
    CO_CHECK(
        row_is(f, "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1", id, "6"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.streams WHERE workflow_uuid = ?1", id, "2"));
    CO_CHECK(row_is(f, "SELECT value FROM dbos.workflow_events WHERE workflow_uuid = ?1", id,
                    "\"done\""));
    CO_CHECK(row_is(f, "SELECT forked_from FROM dbos.workflow_status WHERE workflow_uuid = ?1", id,
                    "o"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND was_forked_from = TRUE",
                    "o", "1"));
    fork.step = 0;
    fork.new_id = STR("o-again");
    CO_CHECK(durable_fork(f->d, &fork, id, e) == 0 && strcmp(id, "o-again") == 0);
    CO_CHECK(ends_as(f, "o-again", "SUCCESS") && bodies == 5);
    return 0;
}

ENGINE_TEST(a_fork_that_cannot_run_here_shows_what_it_copies, types)
{
    struct durable_fork fork = { .id = STR("o"),
                                 .step = 3,
                                 .new_id = STR("copy"),
                                 .queue = STR("nowhere"),
                                 .app_version = STR("v9"),
                                 .timeout_ms = 77000 };
    char id[DURABLE_ID];

    broken = false;
    CO_CHECK(starts(f, "order", "o") && ends_as(f, "o", "SUCCESS"));
    CO_CHECK(durable_fork(f->d, &fork, id, e) == 0);
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1",
                    "copy", "3"));
    CO_CHECK(row_is(f, "SELECT value FROM dbos.workflow_events WHERE workflow_uuid = ?1", "copy",
                    "\"begun\""));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_events_history"
                    " WHERE workflow_uuid = ?1",
                    "copy", "1"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.streams WHERE workflow_uuid = ?1", "copy", "1"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_input WHERE workflow_uuid = ?1"
                    " AND inputs LIKE '{\"positionalArgs\"%'",
                    "copy", "1"));
    CO_CHECK(row_is(f,
                    "SELECT status || queue_name || application_version ||"
                    " CAST(workflow_timeout_ms AS TEXT) FROM dbos.workflow_status"
                    " WHERE workflow_uuid = ?1",
                    "copy", "ENQUEUEDnowherev977000"));
    CO_CHECK(durable_fork(f->d, &fork, id, e) == -ERR_CONFLICT);
    fork.id = STR("nobody");
    CO_CHECK(durable_fork(f->d, &fork, id, e) == -ERR_NOT_FOUND);
    fork.new_id = STR(" ");
    CO_CHECK(durable_fork(f->d, &fork, id, e) == -ERR_INVALID);
    fork.step = -1;
    CO_CHECK(durable_fork(f->d, &fork, id, e) == -ERR_INVALID);
    return 0;
}

ENGINE_TEST(a_rewound_workflow_runs_from_the_step_that_failed, types)
{
    broken = true;
    bodies = 0;
    CO_CHECK(starts(f, "order", "o") && ends_as(f, "o", "ERROR") && bodies == 2);
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_output WHERE workflow_uuid = ?1"
                    " AND error IS NOT NULL",
                    "o", "1"));
    broken = false;
    CO_CHECK(durable_rewind(f->d, STR("o"), -1, e) == 0);
    CO_CHECK(ends_as(f, "o", "SUCCESS") && bodies == 3);
    CO_CHECK(row_is(f,
                    "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1"
                    " AND error IS NULL",
                    "o", "\"shipped\""));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND error IS NULL",
                    "o", "1"));
    CO_CHECK(durable_rewind(f->d, STR("o"), 0, e) == 0);
    CO_CHECK(
        row_becomes(f, "SELECT count(*) FROM dbos.streams WHERE workflow_uuid = ?1", "o", "2"));
    CO_CHECK(ends_as(f, "o", "SUCCESS") && bodies == 5);
    CO_CHECK(durable_rewind(f->d, STR("nobody"), 0, e) == -ERR_NOT_FOUND);
    CO_CHECK(durable_rewind(f->d, STR("o"), -2, e) == -ERR_INVALID);
    return 0;
}

/* What is left of events and messages when nobody runs it again (the queue is nobody's). */
ENGINE_TEST(a_rewind_forgets_what_came_after, types)
{
    struct str none = { 0 };

    CO_CHECK(starts(f, "waits", "w") && row_becomes(f, STATUS_OF, "w", "PENDING"));
    CO_CHECK(durable_rewind(f->d, STR("w"), 0, e) == -ERR_CONFLICT); /* it runs */
    CO_CHECK(durable_post(f->d, STR("w"), STR("go"), STR("1"), none, e) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(durable_post(f->d, STR("w"), STR("go"), STR("2"), none, e) == 0);
    CO_CHECK(
        row_is(f, "SELECT count(*) FROM dbos.notifications WHERE destination_uuid = ?1", "w", "2"));
    CO_CHECK(durable_rewind(f->d, STR("w"), 0, e) == 0);
    CO_CHECK(row_becomes(f, STATUS_OF, "w", "PENDING"));
    CO_CHECK(
        row_is(f, "SELECT count(*) FROM dbos.notifications WHERE destination_uuid = ?1", "w", "0"));
    CO_CHECK(durable_post(f->d, STR("w"), STR("go"), STR("3"), none, e) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(
        row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1", "w", "3"));
    return 0;
}

ENGINE_TEST(retry_does_what_the_status_asks, types)
{
    struct str none = { 0 };

    broken = true;
    CO_CHECK(starts(f, "order", "failed") && ends_as(f, "failed", "ERROR"));
    broken = false;
    CO_CHECK(durable_retry(f->d, STR("failed"), e) == 0 && ends_as(f, "failed", "SUCCESS"));
    CO_CHECK(durable_retry(f->d, STR("failed"), e) == -ERR_CONFLICT);
    CO_CHECK(starts(f, "waits", "w") && row_becomes(f, STATUS_OF, "w", "PENDING"));
    CO_CHECK(durable_retry(f->d, STR("w"), e) == -ERR_CONFLICT);
    CO_CHECK(durable_post(f->d, STR("w"), STR("go"), STR("1"), none, e) == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET recovery_attempts = 200,"
                     " status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' WHERE workflow_uuid = ?1",
                     "w", NULL, e) == 0);
    CO_CHECK(durable_retry(f->d, STR("w"), e) == 0 && ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f,
                    "SELECT recovery_attempts FROM dbos.workflow_status"
                    " WHERE workflow_uuid = ?1",
                    "w", "1"));
    CO_CHECK(durable_retry(f->d, STR("nobody"), e) == -ERR_NOT_FOUND);
    return 0;
}

/* --- delete, collect --- */

#define EVERYTHING_OF \
    "SELECT (SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.workflow_input WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.workflow_output WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.streams WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.workflow_events WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.workflow_events_history WHERE workflow_uuid = ?1)" \
    " + (SELECT count(*) FROM dbos.notifications WHERE destination_uuid = ?1)" \
    " + (SELECT count(*) FROM durable_parked WHERE workflow_uuid = ?1)"

ENGINE_TEST(nothing_is_left_of_what_is_deleted, types)
{
    struct str none = { 0 };

    broken = false;
    CO_CHECK(starts(f, "order", "o") && ends_as(f, "o", "SUCCESS"));
    CO_CHECK(durable_post(f->d, STR("o"), STR("t"), STR("1"), none, e) == 0);
    CO_CHECK(deletes(f, "o", false, false, 1));
    CO_CHECK(row_is(f, EVERYTHING_OF, "o", "0"));
    CO_CHECK(deletes(f, "o", false, false, 0));
    return 0;
}

ENGINE_TEST(what_runs_is_deleted_only_by_force, types)
{
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(row_becomes(f, STATUS_OF, "p-1", "PENDING"));
    CO_CHECK(deletes(f, "p", true, false, 0));
    CO_CHECK(deletes(f, "p", true, true, 3));
    while (f->d->n_live > 0)
        CO_CHECK(fiber_sleep(5, e) == 0);
    CO_CHECK(row_is(f, EVERYTHING_OF, "p", "0") && row_is(f, EVERYTHING_OF, "p-1", "0"));
    return 0;
}

/* 1200 ended ones, at 1 to 1200 ms; the first is the child of one that runs. */
static CO int insert_ended(struct engine *f, struct err *e)
{
    int r = sql_run(f,
                    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name)"
                    " VALUES ('runs', 'ENQUEUED', 'y', 'nowhere')",
                    NULL, NULL, e);

    if (r == 0)
        r = sql_run(f,
                    "INSERT INTO dbos.workflow_input (workflow_uuid, inputs)"
                    " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
                    " SELECT i + 1 FROM n WHERE i < 1200)"
                    " SELECT 'e-' || CAST(i AS TEXT), '1' FROM n",
                    NULL, NULL, e);
    if (r == 0)
        r = sql_run(f,
                    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, created_at,"
                    " updated_at, completed_at, parent_workflow_id)"
                    " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
                    " SELECT i + 1 FROM n WHERE i < 1200)"
                    " SELECT 'e-' || CAST(i AS TEXT), 'SUCCESS', 'x', i, i, i,"
                    " CASE WHEN i = 1 THEN 'runs' END FROM n",
                    NULL, NULL, e);
    return r;
}

#define ENDED "SELECT count(*) FROM dbos.workflow_status WHERE name = 'x'"

ENGINE_TEST(what_ended_long_ago_is_collected_in_batches, types)
{
    int64_t n = -1;

    CO_CHECK(insert_ended(f, e) == 0);
    CO_CHECK(durable_collect(f->d, 1101, 0, &n, e) == 0 && n == 1099);
    CO_CHECK(row_is(f, ENDED, NULL, "101") && row_is(f, STATUS_OF, "e-1", "SUCCESS"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_input", NULL, "101"));
    CO_CHECK(durable_collect(f->d, 0, 10, &n, e) == 0 && n == 90);
    CO_CHECK(row_is(f,
                    "SELECT MIN(completed_at) FROM dbos.workflow_status WHERE name = 'x'"
                    " AND workflow_uuid <> 'e-1'",
                    NULL, "1191"));
    CO_CHECK(row_is(f, STATUS_OF, "runs", "ENQUEUED"));
    CO_CHECK(durable_collect(f->d, 0, 0, &n, e) == 0 && n == 0);
    CO_CHECK(durable_collect(f->d, -1, 0, &n, e) == -ERR_INVALID);
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET completed_at = NULL"
                     " WHERE workflow_uuid = 'e-1191'",
                     NULL, NULL, e) == 0);
    CO_CHECK(durable_collect(f->d, 1195, 0, &n, e) == 0 && n == 4);
    return 0;
}

ENGINE_TEST_CONF(the_settings_say_for_how_long_what_ended_is_kept, types, .instance = "test",
                 .retain_ms = 3600000)
{
    broken = false;
    CO_CHECK(starts(f, "order", "o") && ends_as(f, "o", "SUCCESS"));
    CO_CHECK(insert_ended(f, e) == 0);
    engine_down(f); /* the chore looks when it begins, and then once a minute */
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(row_becomes(f, ENDED, NULL, "1"));
    CO_CHECK(row_is(f, STATUS_OF, "o", "SUCCESS"));
    return 0;
}

ENGINE_TEST_CONF(the_settings_say_how_many_are_kept, types, .instance = "test", .retain_rows = 3)
{
    CO_CHECK(insert_ended(f, e) == 0);
    engine_down(f);
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(row_becomes(f, ENDED, NULL, "4")); /* and the child */
    return 0;
}

/* --- the rest --- */

ENGINE_TEST(the_work_of_dead_executors_is_given_back, types)
{
    const struct str dead[] = { STR("vm-1"), STR("vm-2") }, ourselves = str_of(f->d->executor);
    struct arena a = { 0 };
    struct str *ids;
    size_t n;

    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name,"
                     " executor_id, owner_xid) VALUES ('r-1', 'PENDING', 'z', NULL, 'vm-1', 't'),"
                     " ('r-2', 'PENDING', 'z', 'q', 'vm-2', 't'),"
                     " ('r-3', 'PENDING', 'z', 'q', 'vm-3', 't'),"
                     " ('r-4', 'SUCCESS', 'z', 'q', 'vm-1', NULL)",
                     NULL, NULL, e) == 0);
    CO_CHECK(starts(f, "waits", "w") && row_becomes(f, STATUS_OF, "w", "PENDING"));
    CO_CHECK(durable_recover(f->d, dead, 2, &a, &ids, &n, e) == 0 && n == 2);
    CO_CHECK(durable_recover(f->d, &ourselves, 1, &a, &ids, &n, e) == 0 && n == 0);
    CO_CHECK(durable_recover(f->d, NULL, 0, &a, &ids, &n, e) == 0 && n == 0);
    CO_CHECK(row_is(f,
                    "SELECT queue_name FROM dbos.workflow_status WHERE workflow_uuid = ?1"
                    " AND status = 'ENQUEUED' AND owner_xid IS NULL",
                    "r-1", DURABLE_INTERNAL_QUEUE));
    CO_CHECK(row_is(f, STATUS_OF, "r-2", "ENQUEUED") && row_is(f, STATUS_OF, "r-3", "PENDING"));
    CO_CHECK(row_is(f, STATUS_OF, "w", "PENDING"));
    arena_done(&a);
    return 0;
}

ENGINE_TEST(priority_and_delay_are_changed_while_they_matter, types)
{
    struct durable_start start = {
        .name = "order", .id = STR("d"), .delay_ms = 3600000, .queue = STR(DURABLE_INTERNAL_QUEUE)
    };
    struct durable_started started;

    broken = false;
    CO_CHECK(durable_start(f->d, &start, &started, e) == 0);
    CO_CHECK(durable_set_priority(f->d, STR("d"), 5, e) == 0);
    CO_CHECK(
        row_is(f, "SELECT priority FROM dbos.workflow_status WHERE workflow_uuid = ?1", "d", "5"));
    CO_CHECK(durable_set_priority(f->d, STR("d"), -1, e) == -ERR_INVALID);
    CO_CHECK(durable_set_priority(f->d, STR("d"), INT64_C(1) << 31, e) == -ERR_INVALID);
    CO_CHECK(durable_set_delay(f->d, STR("d"), wall_ms() + 20, e) == 0);
    CO_CHECK(ends_as(f, "d", "SUCCESS"));
    CO_CHECK(durable_set_priority(f->d, STR("d"), 1, e) == -ERR_CONFLICT);
    CO_CHECK(durable_set_delay(f->d, STR("d"), 1, e) == -ERR_CONFLICT);
    CO_CHECK(durable_set_delay(f->d, STR("nobody"), 1, e) == -ERR_NOT_FOUND);
    CO_CHECK(durable_set_priority(f->d, STR("nobody"), 1, e) == -ERR_NOT_FOUND);
    return 0;
}

ENGINE_TEST_CONF(the_delay_of_a_parked_workflow_is_its_own, types, .instance = "test", .park_ms = 1)
{
    CO_CHECK(starts(f, "waits", "w"));
    CO_CHECK(
        row_becomes(f, "SELECT count(*) FROM durable_parked WHERE workflow_uuid = ?1", "w", "1"));
    CO_CHECK(durable_set_delay(f->d, STR("w"), 1, e) == -ERR_CONFLICT);
    return 0;
}

static const struct durable_queue_info *queue_in(const struct durable_queue_info *rows, size_t n,
                                                 const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_z(rows[i].name, name))
            return &rows[i];
    return NULL;
}

ENGINE_TEST(queues_are_defined_shown_and_removed, types)
{
    struct durable_queue q = { .name = "mail",
                               .concurrency = 3,
                               .rate_max = 5,
                               .rate_period_ms = 1500,
                               .partition_concurrency = 1,
                               .hold_slot = true };
    const struct durable_queue_info *found;
    struct durable_queue_info *rows;
    struct arena a = { 0 };
    size_t n;

    CO_CHECK(durable_queue_put(f->d, &q, e) == 0);
    q.concurrency = 4;
    CO_CHECK(durable_queue_put(f->d, &q, e) == 0);
    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name,"
                     " created_at) VALUES ('m-1', 'ENQUEUED', 'z', 'mail', 1000),"
                     " ('m-2', 'ENQUEUED', 'z', 'mail', 2000), ('m-3', 'DELAYED', 'z', 'mail', 9),"
                     " ('m-4', 'ENQUEUED', 'z', 'nobody''s', 10)",
                     NULL, NULL, e) == 0);
    CO_CHECK(durable_queues(f->d, &a, &rows, &n, e) == 0);
    found = queue_in(rows, n, "mail");
    CO_CHECK(found && found->concurrency == 4 && found->rate_max == 5 && found->hold_slot);
    CO_CHECK(found->rate_period_s > 1.49 && found->rate_period_s < 1.51 && found->served_here);
    CO_CHECK(found->polling_s > 0.99 && found->polling_s < 1.01);
    CO_CHECK(found->worker_concurrency == 0 && found->partition_concurrency == 1);
    CO_CHECK(found->enqueued == 2 && found->delayed == 1 && found->pending == 0);
    CO_CHECK(found->oldest_ms == 1000);
    found = queue_in(rows, n, "nobody's");
    CO_CHECK(found && found->enqueued == 1 && !found->served_here);
    CO_CHECK(durable_queue_remove(f->d, STR("mail"), e) == 0);
    CO_CHECK(durable_queue_remove(f->d, STR("mail"), e) == -ERR_NOT_FOUND);
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_queues WHERE name = ?1", "mail", "0"));
    arena_done(&a);
    return 0;
}

ENGINE_TEST(a_queue_that_makes_no_sense_is_refused, types)
{
    const struct durable_queue bad[] = {
        { .name = "" },
        { .name = "_dbos_mine" },
        { .name = "q", .rate_max = 1 },
        { .name = "q", .partition_rate_max = 1 },
        { .name = "q", .concurrency = 1u << 31 },
    };

    for (size_t i = 0; i < LEN(bad); i++)
        CO_CHECK(durable_queue_put(f->d, &bad[i], e) == -ERR_INVALID);
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.queues WHERE name = 'q'", NULL, "0"));
    return 0;
}

ENGINE_TEST(the_overview_counts, types)
{
    struct durable_overview o;

    CO_CHECK(insert_list_rows(f, e) == 0);
    CO_CHECK(starts(f, "waits", "w") && row_becomes(f, STATUS_OF, "w", "PENDING"));
    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name,"
                     " updated_at) VALUES ('lost', 'ENQUEUED', 'z', 'no such queue', 1000)",
                     NULL, NULL, e) == 0);
    CO_CHECK(durable_overview(f->d, &o, e) == 0);
    CO_CHECK(o.by_status[DURABLE_SUCCESS].n == 1 && o.by_status[DURABLE_SUCCESS].oldest_ms == 1000);
    CO_CHECK(o.by_status[DURABLE_PENDING].n == 1 && o.by_status[DURABLE_DEAD].n == 0);
    CO_CHECK(o.running_here == 1 && o.executors == 1 && o.stuck == 1 && o.parked == 0);
    return 0;
}
