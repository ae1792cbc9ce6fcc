/* SPDX-License-Identifier: MIT */
/*
 * durable/engine_limits_test.c — starting: who gets an id, what is refused; and the bounds of a
 * run: payloads, steps, room, long journals. On every store.
 */
#define TESTS_AT_ONCE 4

#include "durable/engine_fixture.h"

static int ran;
static bool gate;

static CO int waits(struct workflow *w, void *ctx, struct err *e)
{
    int r = 0;

    ran++;
    while (r == 0 && !gate)
        r = fiber_sleep(2, e);
    return r < 0 ? r : durable_return(w, STR("true"), e);
}

static const struct durable_type waits_types[] = {
    { .name = "waits", .fn = waits },
    { .name = "other", .fn = waits },
    { .name = "waits", .class_name = "Class", .fn = waits },
};

/* The code a start is refused with; 0 when it is not, -1 when it is refused without one. */
static CO int code_of(struct engine *f, const struct durable_start *start)
{
    struct durable_started started = { 0 };
    struct err e;

    if (durable_start(f->d, start, &started, &e) == 0)
        return 0;
    return started.code ? (int)started.code : -1;
}

#define START(...) (&(const struct durable_start){ __VA_ARGS__ })

ENGINE_TEST(one_id_is_one_workflow, waits_types)
{
    struct durable_started started;

    gate = true;
    ran = 0;
    CO_CHECK(starts(f, "waits", "w") && ends_as(f, "w", "SUCCESS"));
    CO_CHECK(durable_start(f->d, START(.name = "waits", .id = STR("w")), &started, e) == 0);
    CO_CHECK(started.existed && strcmp(started.id, "w") == 0);
    CO_CHECK(code_of(f, START(.name = "other", .id = STR("w"))) == DURABLE_E_OTHER_WORKFLOW);
    CO_CHECK(code_of(f, START(.name = "waits", .class_name = "Class", .id = STR("w"))) ==
             DURABLE_E_OTHER_WORKFLOW);
    CO_CHECK(code_of(f, START(.name = "waits", .id = STR("w"), .id_must_be_new = true)) ==
             DURABLE_E_ID_IN_USE);
    CO_CHECK(durable_start(f->d, START(.name = "waits", .class_name = "Class"), &started, e) == 0);
    CO_CHECK(!started.existed && strlen(started.id) == 36 && ends_as(f, started.id, "SUCCESS"));
    CO_CHECK(ran == 2);
    return 0;
}

ENGINE_TEST(what_makes_no_sense_is_refused_before_anything_is_written, waits_types)
{
    CO_CHECK(code_of(f, START(.name = "nobody")) == DURABLE_E_UNREGISTERED);
    CO_CHECK(code_of(f, START(.name = NULL)) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .id = STR("  "))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .id = STR("a\nb"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .id = STR("\xff"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .args = STR("{}"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .args = STR("[1"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .named = STR("[]"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .attributes = STR("[]"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .roles = STR("admin"))) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .delay_ms = 5)) == -1);
    CO_CHECK(code_of(f, START(.name = "waits", .dedup_id = STR("d"))) == -1);
    CO_CHECK(code_of(f, START(.name = "x", .queue = STR("q"), .priority = -1)) ==
             DURABLE_E_PRIORITY);
    CO_CHECK(code_of(f, START(.name = "x", .queue = STR("q"), .priority = 2147483648LL)) ==
             DURABLE_E_PRIORITY);
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status", NULL, "0"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_input", NULL, "0"));
    return 0;
}

ENGINE_TEST(one_deduplication_id_is_one_unfinished_workflow, waits_types)
{
    const struct durable_start first = { .name = "x", .queue = STR("q"), .dedup_id = STR("d") };
    struct durable_start again = first;
    struct durable_started holder, started;

    CO_CHECK(durable_start(f->d, &first, &holder, e) == 0 && !holder.existed);
    CO_CHECK(code_of(f, &again) == DURABLE_E_DEDUPLICATED);
    again.dedup_join = true;
    CO_CHECK(durable_start(f->d, &again, &started, e) == 0 && started.existed);
    CO_CHECK(strcmp(started.id, holder.id) == 0);
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status", NULL, "1"));
    CO_CHECK(row_is(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1",
                    holder.id, "ENQUEUED"));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET deduplication_id = NULL,"
                     " status = 'SUCCESS' WHERE workflow_uuid = ?1",
                     holder.id, NULL, e) == 0);
    again.dedup_join = false;
    CO_CHECK(durable_start(f->d, &again, &started, e) == 0 && !started.existed);
    return 0;
}

ENGINE_TEST(a_row_is_as_a_client_of_dbos_would_write_it, waits_types)
{
    const struct durable_start start = {
        .name = "x",
        .queue = STR("q"),
        .id = STR("w"),
        .args = STR("[1, \"a\"]"),
        .named = STR("{\"k\":true}"),
        .delay_ms = 3600000,
        .timeout_ms = 5000,
        .priority = 7,
        .attributes = STR("{\"a\":1}"),
    };
    char inputs[512];

    CO_CHECK(code_of(f, &start) == 0);
#define IS(column, want) \
    CO_CHECK(row_is(f, "SELECT " column " FROM dbos.workflow_status WHERE workflow_uuid = ?1", \
                    "w", want))
    IS("status", "DELAYED");
    IS("class_name", "(null)");
    IS("config_name", "(null)");
    IS("authenticated_roles", "[]");
    IS("executor_id", "");
    IS("application_version", "(null)");
    IS("recovery_attempts", "0");
    IS("owner_xid", "(null)");
    IS("length(creator_xid)", "36");
    IS("serialization", "portable_json");
    IS("priority", "7");
    IS("workflow_timeout_ms", "5000");
    IS("workflow_deadline_epoch_ms", "(null)");
    IS("delay_until_epoch_ms - created_at", "3600000");
    IS("inputs", "(null)");
#undef IS
    CO_CHECK(sql_run(f, "SELECT inputs FROM dbos.workflow_input WHERE workflow_uuid = ?1", "w",
                     inputs, e) == 0);
    CO_CHECK(strstr(inputs, "positionalArgs") && strstr(inputs, "namedArgs"));
    return 0;
}

ENGINE_TEST_CONF(what_finds_no_room_waits_in_the_internal_queue, waits_types, .instance = "test",
                 .running = 2)
{
    gate = false;
    ran = 0;
    CO_CHECK(starts(f, "waits", "a") && starts(f, "waits", "b") && starts(f, "waits", "c"));
    CO_CHECK(f->d->n_live == 2);
    CO_CHECK(row_is(f, "SELECT queue_name FROM dbos.workflow_status WHERE workflow_uuid = ?1", "c",
                    "_dbos_internal_queue"));
    gate = true;
    CO_CHECK(ends_as(f, "a", "SUCCESS") && ends_as(f, "b", "SUCCESS") &&
             ends_as(f, "c", "SUCCESS"));
    CO_CHECK(ran == 3);
    return 0;
}

/* Bounds of a run */

static int bodies;

static int body_large(void *arg, struct buf *out, struct err *e)
{
    int r = buf_add_z(out, "\"", e);

    bodies++;
    for (int i = 0; r == 0 && i < *(int *)arg; i++)
        r = buf_add_z(out, "xxxxxxxxxx", e);
    return r < 0 ? r : buf_add_z(out, "\"", e);
}

static CO int large(struct workflow *w, void *ctx, struct err *e)
{
    int fits = 50, too_long = 200, r;

    r = durable_step(w, "fits", NULL, body_large, &fits, NULL, e);
    if (r == 0)
        r = durable_step(w, "too long", NULL, body_large, &too_long, NULL, e);
    return r == -ERR_LIMIT ? durable_return(w, STR("\"bounded\""), e) : r;
}

static CO int endless(struct workflow *w, void *ctx, struct err *e)
{
    int one = 1, r;

    do {
        r = durable_step(w, "again", NULL, body_large, &one, NULL, e);
    } while (r == 0);
    return r;
}

static const struct durable_type bounded_types[] = {
    { .name = "large", .fn = large },
    { .name = "endless", .fn = endless },
};

ENGINE_TEST_CONF(payloads_and_steps_have_bounds, bounded_types, .instance = "test",
                 .payload_max = 1000, .steps_max = 20)
{
    char error[512];
    AUTO(buf_done) struct buf args = { 0 };

    CO_CHECK(starts(f, "large", "l") && ends_as(f, "l", "SUCCESS"));
    CO_CHECK(starts(f, "endless", "e") && ends_as(f, "e", "ERROR"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1", "e",
                    "20"));
    CO_CHECK(sql_run(f, "SELECT error FROM dbos.workflow_output WHERE workflow_uuid = ?1", "e",
                     error, e) == 0);
    CO_CHECK(strstr(error, "\"limit\""));

    buf_init(&args, 4 * KIB);
    CO_CHECK(buf_add_z(&args, "[\"", e) == 0);
    for (int i = 0; i < 200; i++)
        CO_CHECK(buf_add_z(&args, "xxxxxxxxxx", e) == 0);
    CO_CHECK(buf_add_z(&args, "\"]", e) == 0);
    CO_CHECK(code_of(f, START(.name = "large", .args = buf_str(&args))) == -1);
    return 0;
}

static int first_passes;

static CO int long_one(struct workflow *w, void *ctx, struct err *e)
{
    int one = 1, r = 0;

    first_passes++;
    for (int i = 0; r == 0 && i < 3 * RUN_PAGE + 1; i++)
        r = durable_step(w, "again", NULL, body_large, &one, NULL, e);
    while (r == 0 && !gate)
        r = fiber_sleep(2, e);
    return r;
}

static const struct durable_type long_type[] = { { .name = "long_one", .fn = long_one } };

ENGINE_TEST(a_long_journal_is_replayed_page_by_page, long_type)
{
    gate = false;
    bodies = first_passes = 0;
    CO_CHECK(starts(f, "long_one", "w"));
    CO_CHECK(row_becomes(f, "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1",
                         "w", "769"));
    engine_down(f);
    gate = true;
    CO_CHECK(engine_up(f, e) == 0 && ends_as(f, "w", "SUCCESS"));
    CO_CHECK(bodies == 3 * RUN_PAGE + 1 && first_passes == 2);
    return 0;
}

/* Rows of others */

static CO int echoes(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, 1 * KIB);
    r = json_write(workflow_args(w), &out, e);
    return r < 0 ? r : durable_return(w, buf_str(&out), e);
}

static const struct durable_type echo_type[] = { { .name = "echoes", .fn = echoes } };

#define FOREIGN \
    "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, queue_name, inputs," \
    " serialization) VALUES (?1, 'ENQUEUED', 'echoes', '_dbos_internal_queue', "

ENGINE_TEST(the_result_is_in_the_format_of_the_input, echo_type)
{
    char error[512];

    CO_CHECK(sql_run(f,
                     FOREIGN "'{\"json\":[5],\"__dbos_serializer\":\"superjson\"}',"
                             " 'js_superjson')",
                     "js", NULL, e) == 0);
    CO_CHECK(sql_run(f, FOREIGN "'{\"positionalArgs\":[6]}', 'portable_json')", "portable", NULL,
                     e) == 0);
    CO_CHECK(sql_run(f, FOREIGN "'gASVBQ', 'py_pickle')", "py", NULL, e) == 0);
    CO_CHECK(sql_run(f, FOREIGN "NULL, 'portable_json')", "none", NULL, e) == 0);
    queue_poke(f->d, (struct str){ 0 });
    CO_CHECK(ends_as(f, "js", "SUCCESS") && ends_as(f, "portable", "SUCCESS"));
    CO_CHECK(row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1", "js",
                    "{\"json\":[5],\"__dbos_serializer\":\"superjson\"}"));
    CO_CHECK(row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1",
                    "portable", "[6]"));
    CO_CHECK(ends_as(f, "py", "ERROR") && ends_as(f, "none", "ERROR"));
    CO_CHECK(sql_run(f, "SELECT error FROM dbos.workflow_output WHERE workflow_uuid = ?1", "py",
                     error, e) == 0);
    CO_CHECK(strstr(error, "input of the workflow"));
    return 0;
}
