/* SPDX-License-Identifier: MIT */
/*
 * durable/talk_test.c — events, streams, children and results. On SQLite or, where CHELA_TEST_PG
 * is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 4

#include "durable/engine_fixture.h"
#include "durable/manage.h"

static struct {
    int starts, ends, outcome;
    enum err_code code;
    char got[512], msg[240];
    const char *id, *child;
    uint64_t ms;
    bool open;
} seen;

static void begin(const char *id)
{
    memset(&seen, 0, sizeof(seen));
    seen.id = id;
}

static CO bool wait_open(void)
{
    while (!seen.open) {
        if (fiber_sleep(2, NULL) < 0)
            return false;
    }
    return true;
}

static CO int gate_body(void *arg, struct buf *out, struct err *e)
{
    return wait_open() ? 0 : err_set(e, ERR_CANCELED, "cancelled");
}

static CO int gate(struct workflow *w, struct err *e)
{
    return durable_step(w, "gate", NULL, gate_body, NULL, NULL, e);
}

static CO int setter(struct workflow *w, void *ctx, struct err *e)
{
    int r = gate(w, e);

    if (r == 0)
        r = durable_set_event(w, STR("k"), STR("1"), e);
    if (r == 0)
        r = durable_set_event(w, STR("k"), STR("{\"n\":2}"), e);
    return r < 0 ? r : durable_set_event(w, STR("other"), STR("null"), e);
}

static CO int getter(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(buf_done) struct buf out;
    int r;

    seen.starts++;
    buf_init(&out, 1 * KIB);
    r = durable_get_event(w, str_of(seen.id), STR("k"), seen.ms, &out, e);
    if (r < 0)
        return r;
    seen.outcome = r;
    fmt_z(seen.got, sizeof(seen.got), STR_FMT, STR_ARG(buf_str(&out)));
    return 0;
}

static CO int writer(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_write_stream(w, STR("s"), STR("\"a\""), e);

    if (r == 0)
        r = durable_write_stream(w, STR("s"), STR("\"b\""), e);
    if (r == 0)
        r = gate(w, e);
    if (r == 0)
        r = durable_write_stream(w, STR("s"), STR("\"c\""), e);
    if (r == 0)
        r = durable_write_stream(w, STR("unclosed"), STR("1"), e);
    if (r == 0)
        r = durable_close_stream(w, STR("s"), e);
    if (r == 0)
        seen.outcome = durable_write_stream(w, STR("s"), STR("\"d\""), e);
    return r;
}

static CO int small(struct workflow *w, void *ctx, struct err *e)
{
    int r = gate(w, e);

    return r < 0 ? r : durable_return(w, STR("{\"of\":\"child\"}"), e);
}

static CO int failing(struct workflow *w, void *ctx, struct err *e)
{
    return durable_throw(w, "Boom", "it went off", STR("7"), (struct str){ 0 }, e);
}

/* Starts a child of the type in seen.child and waits for it. */
static CO int parent(struct workflow *w, void *ctx, struct err *e)
{
    struct durable_start start = { .name = seen.child };
    struct durable_started child;
    AUTO(buf_done) struct buf out;
    int r;

    seen.starts++;
    buf_init(&out, 1 * KIB);
    r = durable_child(w, &start, &child, e);
    if (r == 0)
        r = durable_result(w, str_of(child.id), seen.ms, &out, e);
    if (r == -ERR_PARKED || r == -ERR_CANCELED)
        return r;
    seen.ends++;
    seen.outcome = r;
    if (r < 0)
        fmt_z(seen.msg, sizeof(seen.msg), "%s", e->msg);
    return r < 0 ? 0 : durable_return(w, buf_str(&out), e);
}

/* Waits for the workflow seen.id. */
static CO int awaiter(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_result(w, str_of(seen.id), seen.ms, NULL, e);

    if (r == -ERR_PARKED || r == -ERR_CANCELED)
        return r;
    seen.outcome = r;
    fmt_z(seen.msg, sizeof(seen.msg), "%s", r < 0 ? e->msg : "");
    return 0;
}

/* clang-format off */
static const struct durable_type types[] = {
    { .name = "setter", .fn = setter }, { .name = "getter", .fn = getter },
    { .name = "writer", .fn = writer }, { .name = "small", .fn = small },
    { .name = "failing", .fn = failing }, { .name = "parent", .fn = parent },
    { .name = "awaiter", .fn = awaiter },
};
#define STATUS   "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define OUTPUT   "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1"
#define PARKED   "SELECT kind FROM durable_parked WHERE workflow_uuid = ?1"
#define EVENT    "SELECT value FROM dbos.workflow_events WHERE workflow_uuid = ?1 AND key = 'k'"
#define HISTORY  "SELECT count(*) FROM dbos.workflow_events_history WHERE workflow_uuid = ?1"
#define RECORDS  "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
#define NAMES    "SELECT function_name FROM dbos.operation_outputs WHERE workflow_uuid = ?1" \
                 " AND function_id = "
/* clang-format on */

#define TALK_TEST(id) ENGINE_TEST_CONF(id, types, .instance = "test", .sweep_ms = 100)
#define PARK_TEST(id) \
    ENGINE_TEST_CONF(id, types, .instance = "test", .sweep_ms = 100, .park_ms = 50)

static CO bool is_parked(struct engine *f, const char *id, const char *kind)
{
    return row_becomes(f, STATUS, id, "DELAYED") && row_is(f, PARKED, id, kind);
}

/* --- events --- */

TALK_TEST(an_event_has_its_latest_value_and_its_history)
{
    AUTO(buf_done) struct buf out;
    struct err why;

    begin("w");
    buf_init(&out, 1 * KIB);
    CO_CHECK(starts(f, "setter", "w"));
    CO_CHECK(durable_peek_event(f->d, STR("w"), STR("k"), now_ms(), &out, &why) == -ERR_TIMEOUT);
    seen.open = true;
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(row_is(f, EVENT, "w", "{\"n\":2}") && row_is(f, HISTORY, "w", "3"));
    CO_CHECK(row_is(f, RECORDS, "w", "4") && row_is(f, NAMES "1", "w", "DBOS.setEvent"));
    CO_CHECK(durable_peek_event(f->d, STR("w"), STR("k"), now_ms(), &out, e) == 0);
    CO_CHECK(str_eq_z(buf_str(&out), "{\"n\":2}"));
    return 0;
}

TALK_TEST(who_gets_an_event_waits_for_it)
{
    begin("w");
    CO_CHECK(starts(f, "getter", "g")); /* before the workflow is there */
    CO_CHECK(row_becomes(f, RECORDS, "g", "1"));
    CO_CHECK(row_is(f, NAMES "1", "g", "DBOS.sleep"));
    CO_CHECK(starts(f, "setter", "w"));
    seen.open = true;
    CO_CHECK(ends_as(f, "g", "SUCCESS"));
    CO_CHECK(strcmp(seen.got, "1") == 0 || strcmp(seen.got, "{\"n\":2}") == 0);
    CO_CHECK(row_is(f, NAMES "0", "g", "DBOS.getEvent"));
    return 0;
}

TALK_TEST(who_gets_no_event_in_time_gets_nothing)
{
    begin("nobody");
    seen.ms = 50;
    CO_CHECK(starts(f, "getter", "g"));
    CO_CHECK(ends_as(f, "g", "SUCCESS"));
    CO_CHECK(seen.outcome == DURABLE_NOTHING && row_is(f, RECORDS, "g", "2"));
    return 0;
}

PARK_TEST(a_parked_getter_is_woken_by_the_event)
{
    begin("w");
    CO_CHECK(starts(f, "setter", "w"));
    CO_CHECK(starts(f, "getter", "g"));
    CO_CHECK(is_parked(f, "g", "event"));
    seen.open = true;
    CO_CHECK(ends_as(f, "g", "SUCCESS"));
    CO_CHECK(seen.starts == 2 && seen.outcome == 0);
    return 0;
}

PARK_TEST(an_event_of_another_engine_is_found_by_the_sweep)
{
    begin("w");
    CO_CHECK(starts(f, "setter", "w"));
    CO_CHECK(starts(f, "getter", "g"));
    CO_CHECK(is_parked(f, "g", "event"));
    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_events (workflow_uuid, key, value, serialization)"
                     " VALUES (?1, 'k', '{\"json\":5,\"__dbos_serializer\":\"superjson\"}',"
                     " 'js_superjson')",
                     "w", NULL, e) == 0);
    CO_CHECK(ends_as(f, "g", "SUCCESS"));
    CO_CHECK(strcmp(seen.got, "5") == 0);
    return 0;
}

/* --- streams --- */

struct read {
    char text[128];
    int64_t next;
};

static int take_value(int64_t offset, struct str json, void *arg, struct err *e)
{
    struct read *read = arg;
    size_t n = strlen(read->text);

    fmt_z(read->text + n, sizeof(read->text) - n, STR_FMT, STR_ARG(json));
    read->next = offset + 1;
    return 0;
}

static CO int read_on(struct engine *f, const char *key, struct read *read, unsigned max,
                      uint64_t ms, struct err *e)
{
    return durable_read_stream(f->d, STR("w"), str_of(key), read->next, max,
                               deadline_in((long long)ms), take_value, read, e);
}

TALK_TEST(a_stream_is_read_while_it_is_written)
{
    struct read read = { .next = 0 };
    struct err why;
    int r;

    begin("w");
    CO_CHECK(durable_read_stream(f->d, STR("none"), STR("s"), 0, 1, now_ms(), take_value, &read,
                                 &why) == -ERR_NOT_FOUND);
    CO_CHECK(starts(f, "writer", "w"));
    while (strcmp(read.text, "\"a\"\"b\"") != 0)
        CO_CHECK(read_on(f, "s", &read, 1, PATIENCE_MS, e) == 0);
    CO_CHECK(read.next == 2);
    CO_CHECK(read_on(f, "s", &read, 9, 50, &why) == -ERR_TIMEOUT);
    seen.open = true;
    while ((r = read_on(f, "s", &read, 9, PATIENCE_MS, e)) == 0)
        continue;
    CO_CHECK(r == DURABLE_STREAM_END && strcmp(read.text, "\"a\"\"b\"\"c\"") == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(seen.outcome == -ERR_CONFLICT); /* after the end */
    read = (struct read){ 0 };
    r = read_on(f, "unclosed", &read, 9, PATIENCE_MS, e);
    if (r == 0)
        r = read_on(f, "unclosed", &read, 9, PATIENCE_MS, e);
    CO_CHECK(r == DURABLE_STREAM_END && strcmp(read.text, "1") == 0);
    CO_CHECK(row_is(f,
                    "SELECT value FROM dbos.streams WHERE workflow_uuid = ?1 AND key = 's'"
                    " ORDER BY \"offset\" DESC LIMIT 1",
                    "w", "\"__DBOS_STREAM_CLOSED__\""));
    return 0;
}

/* --- children and results --- */

TALK_TEST(a_child_gives_its_result_to_its_parent)
{
    begin(NULL);
    seen.child = "small";
    seen.open = true;
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(ends_as(f, "p", "SUCCESS"));
    CO_CHECK(row_is(f, OUTPUT, "p", "{\"of\":\"child\"}") &&
             row_is(f, OUTPUT, "p-0", "{\"of\":\"child\"}"));
    CO_CHECK(row_is(f,
                    "SELECT parent_workflow_id FROM dbos.workflow_status"
                    " WHERE workflow_uuid = ?1",
                    "p-0", "p"));
    CO_CHECK(row_is(f,
                    "SELECT child_workflow_id FROM dbos.operation_outputs"
                    " WHERE workflow_uuid = ?1 AND function_name = 'small'",
                    "p", "p-0"));
    CO_CHECK(row_is(f, NAMES "1", "p", "DBOS.getResult"));
    return 0;
}

TALK_TEST(a_failure_of_a_child_is_an_error_of_the_parent)
{
    begin(NULL);
    seen.child = "failing";
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(ends_as(f, "p", "SUCCESS"));
    CO_CHECK(seen.outcome == -ERR_INTERNAL && strstr(seen.msg, "it went off"));
    CO_CHECK(row_is(f,
                    "SELECT error FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
                    " AND function_id = 1",
                    "p", "{\"name\":\"Boom\",\"message\":\"it went off\",\"code\":7}"));
    return 0;
}

PARK_TEST(a_parent_is_parked_until_its_child_has_ended)
{
    begin(NULL);
    seen.child = "small";
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(is_parked(f, "p", "result"));
    seen.open = true;
    CO_CHECK(ends_as(f, "p", "SUCCESS"));
    CO_CHECK(seen.starts == 2 && row_is(f, OUTPUT, "p", "{\"of\":\"child\"}"));
    return 0;
}

PARK_TEST(a_parked_parent_learns_that_its_child_was_cancelled)
{
    int64_t n;

    begin(NULL);
    seen.child = "small";
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(is_parked(f, "p", "result"));
    CO_CHECK(durable_cancel(f->d, &STR("p-0"), 1, false, &n, e) == 0 && n == 1);
    CO_CHECK(ends_as(f, "p", "SUCCESS"));
    CO_CHECK(seen.outcome == -ERR_INTERNAL && strstr(seen.msg, "was cancelled"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
                    " AND function_id = 1 AND error LIKE '%\"code\":27%'",
                    "p", "1"));
    return 0;
}

PARK_TEST(a_child_is_not_started_twice_when_the_parent_is_run_again)
{
    begin(NULL);
    seen.child = "small";
    CO_CHECK(starts(f, "parent", "p"));
    CO_CHECK(row_becomes(f, STATUS, "p-0", "PENDING"));
    engine_down(f);
    seen.open = true;
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "p", "SUCCESS"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status", NULL, "2"));
    return 0;
}

PARK_TEST(two_that_wait_for_each_other_wait_until_their_deadline)
{
    begin("b");
    seen.ms = 400;
    CO_CHECK(starts(f, "awaiter", "b")); /* for itself */
    CO_CHECK(ends_as(f, "b", "SUCCESS"));
    CO_CHECK(seen.outcome == -ERR_TIMEOUT);
    return 0;
}

TALK_TEST(who_waits_for_nobody_is_told_so)
{
    enum durable_status status;
    struct err why;

    begin("nobody");
    CO_CHECK(durable_await(f->d, STR("nobody"), now_ms(), &status, NULL, &why) == -ERR_NOT_FOUND);
    CO_CHECK(starts(f, "awaiter", "a"));
    CO_CHECK(ends_as(f, "a", "SUCCESS"));
    CO_CHECK(seen.outcome == -ERR_NOT_FOUND);
    return 0;
}

TALK_TEST(somebody_outside_waits_for_results)
{
    AUTO(buf_done) struct buf out;
    enum durable_status status;
    struct err why;

    begin(NULL);
    buf_init(&out, 1 * KIB);
    CO_CHECK(starts(f, "small", "w"));
    CO_CHECK(durable_await(f->d, STR("w"), deadline_in(30), &status, &out, &why) == -ERR_TIMEOUT);
    seen.open = true;
    CO_CHECK(durable_await(f->d, STR("w"), deadline_in(PATIENCE_MS), &status, &out, e) == 0);
    CO_CHECK(status == DURABLE_SUCCESS && str_eq_z(buf_str(&out), "{\"of\":\"child\"}"));
    buf_clear(&out);
    CO_CHECK(starts(f, "failing", "x"));
    CO_CHECK(durable_await(f->d, STR("x"), deadline_in(PATIENCE_MS), &status, &out, e) == 0);
    CO_CHECK(status == DURABLE_ERROR &&
             str_eq_z(buf_str(&out), "{\"name\":\"Boom\",\"message\":\"it went off\",\"code\":7}"));
    return 0;
}
