/* SPDX-License-Identifier: MIT */
/*
 * durable/waits_test.c — sleeping, sending and receiving, in memory and parked, over restarts and
 * clocks that are set. On SQLite or, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 8

#include <stdatomic.h>
#include <time.h>

#include "durable/engine_fixture.h"
#include "durable/manage.h"

/* What the workflows are to do and what they saw. */
static struct {
    uint64_t ms; /* of a sleep or a timeout */
    int starts, ends, outcome;
    char got[4][64];
    uint64_t took; /* mono, of the last run */
    const char *to, *topic, *key;
} seen;

static void begin(uint64_t ms)
{
    memset(&seen, 0, sizeof(seen));
    seen.ms = ms;
    seen.to = "r";
}

static CO int sleeper(struct workflow *w, void *ctx, struct err *e)
{
    uint64_t from = now_ms();
    int r;

    seen.starts++;
    r = durable_sleep(w, seen.ms, e);
    if (r < 0)
        return r;
    seen.took = now_ms() - from;
    seen.ends++;
    return 0;
}

/* Two messages of the topic, then what a third try gives. */
static CO int receiver(struct workflow *w, void *ctx, struct err *e)
{
    struct str topic = seen.topic ? str_of(seen.topic) : (struct str){ 0 };
    AUTO(buf_done) struct buf out;
    int r;

    seen.starts++;
    for (int i = 0; i < 2; i++) {
        buf_init(&out, 1 * KIB);
        r = durable_recv(w, topic, seen.ms, &out, e);
        if (r < 0)
            return r;
        fmt_z(seen.got[i], sizeof(seen.got[i]), "%s",
              r == DURABLE_NOTHING ? "nothing" : "something");
        if (r == 0)
            fmt_z(seen.got[i], sizeof(seen.got[i]), STR_FMT, STR_ARG(buf_str(&out)));
        buf_done(&out);
    }
    seen.ends++;
    return durable_return(w, str_of(seen.got[1][0] == 'n' ? "null" : seen.got[1]), e);
}

static CO int sender(struct workflow *w, void *ctx, struct err *e)
{
    struct str topic = seen.topic ? str_of(seen.topic) : (struct str){ 0 };
    int r;

    seen.starts++;
    r = durable_send(w, str_of(seen.to), topic, STR("\"one\""), (struct str){ 0 }, e);
    if (r == 0)
        r = durable_send(w, str_of(seen.to), topic, STR("\"two\""), (struct str){ 0 }, e);
    seen.outcome = r;
    seen.ends++;
    return r;
}

/* clang-format off */
static const struct durable_type types[] = {
    { .name = "sleeper", .fn = sleeper }, { .name = "receiver", .fn = receiver },
    { .name = "sender", .fn = sender },
};

#define STATUS   "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define QUEUE    "SELECT queue_name FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define OWNER    "SELECT owner_xid FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define ATTEMPTS "SELECT recovery_attempts FROM dbos.workflow_status WHERE workflow_uuid = ?1"
#define PARKED   "SELECT kind FROM durable_parked WHERE workflow_uuid = ?1"
#define MARKER   "SELECT output FROM dbos.operation_outputs WHERE workflow_uuid = ?1" \
                 " AND function_name = 'DBOS.sleep'"
#define RECORDS  "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
#define MESSAGES "SELECT count(*) FROM dbos.notifications WHERE destination_uuid = ?1"
#define UNREAD   "SELECT count(*) FROM dbos.notifications WHERE destination_uuid = ?1" \
                 " AND consumed = FALSE"
#define ERROR    "SELECT error FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
/* As a client in plain SQL does: without anything of ours. */
#define INSERT   "INSERT INTO dbos.notifications (message_uuid, destination_uuid, topic, message," \
                 " serialization) VALUES "
/* clang-format on */

#define WAITS_TEST(id) ENGINE_TEST_CONF(id, types, .instance = "test", .sweep_ms = 100)
#define PARK_TEST(id) \
    ENGINE_TEST_CONF(id, types, .instance = "test", .sweep_ms = 100, .park_ms = 50)

static CO int post(struct engine *f, const char *to, const char *topic, const char *json,
                   const char *key)
{
    struct err e;
    int r = durable_post(f->d, str_of(to), str_of(topic), str_of(json), str_of(key), &e);

    if (r < 0)
        printf("# post: %s\n", e.msg);
    return r;
}

static CO bool parked(struct engine *f, const char *id, const char *kind)
{
    return row_becomes(f, STATUS, id, "DELAYED") && row_is(f, PARKED, id, kind) &&
           row_is(f, OWNER, id, "(null)") && row_is(f, ATTEMPTS, id, "0") &&
           row_is(f, QUEUE, id, DURABLE_INTERNAL_QUEUE);
}

/* --- messages --- */

WAITS_TEST(messages_sent_before_are_received_in_order)
{
    begin(10000);
    CO_CHECK(starts(f, "sleeper", "none"));
    CO_CHECK(post(f, "none", NULL, "1", NULL) == 0); /* some other workflow's */
    seen.ms = 60000;
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(row_becomes(f, RECORDS, "r", "1")); /* it waits: the end of the wait */
    CO_CHECK(post(f, "r", NULL, "{\"n\":1}", NULL) == 0);
    CO_CHECK(post(f, "r", NULL, "{\"n\":2}", NULL) == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "{\"n\":1}") == 0 && strcmp(seen.got[1], "{\"n\":2}") == 0);
    CO_CHECK(row_is(f, UNREAD, "r", "0") && row_is(f, MESSAGES, "r", "2"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.notifications WHERE destination_uuid = ?1"
                    " AND consumed_by_function_id IN (0, 2)",
                    "r", "2"));
    return 0;
}

WAITS_TEST(a_workflow_sends_to_one_that_waits)
{
    begin(60000);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(row_becomes(f, RECORDS, "r", "1"));
    CO_CHECK(starts(f, "sender", "s"));
    CO_CHECK(ends_as(f, "r", "SUCCESS") && ends_as(f, "s", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "\"one\"") == 0 && strcmp(seen.got[1], "\"two\"") == 0);
    return 0;
}

WAITS_TEST(a_message_of_another_topic_is_left_alone)
{
    begin(200);
    seen.topic = "b";
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(post(f, "r", "a", "\"a\"", NULL) == 0);
    CO_CHECK(post(f, "r", NULL, "\"none\"", NULL) == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "nothing") == 0 && strcmp(seen.got[1], "nothing") == 0);
    CO_CHECK(row_is(f, UNREAD, "r", "2"));
    return 0;
}

WAITS_TEST(a_message_with_a_key_is_sent_once)
{
    begin(60000);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(post(f, "r", NULL, "1", "k") == 0 && post(f, "r", NULL, "2", "k") == 0);
    CO_CHECK(row_is(f, MESSAGES, "r", "1"));
    CO_CHECK(row_is(f, "SELECT message_uuid FROM dbos.notifications", NULL, "k::r"));
    CO_CHECK(post(f, "r", NULL, "3", "l") == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "1") == 0 && strcmp(seen.got[1], "3") == 0);
    return 0;
}

WAITS_TEST(who_sends_to_nobody_is_told_so_again_on_replay)
{
    struct err e2;

    begin(0);
    seen.to = "nobody";
    CO_CHECK(durable_post(f->d, STR("nobody"), (struct str){ 0 }, STR("1"), (struct str){ 0 },
                          &e2) == -ERR_NOT_FOUND);
    CO_CHECK(starts(f, "sender", "s"));
    CO_CHECK(ends_as(f, "s", "ERROR"));
    CO_CHECK(seen.outcome == -ERR_NOT_FOUND);
    CO_CHECK(row_is(f, ERROR, "s",
                    "{\"name\":\"not_found\",\"message\":\"there is no workflow 'nobody'\","
                    "\"code\":16}"));
    CO_CHECK(starts(f, "sleeper", "nobody")); /* now there is */
    CO_CHECK(ends_as(f, "nobody", "SUCCESS"));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_status SET status = 'ENQUEUED',"
                     " queue_name = '_dbos_internal_queue' WHERE workflow_uuid = ?1",
                     "s", NULL, e) == 0);
    seen.outcome = 0;
    CO_CHECK(row_becomes(f, STATUS, "s", "ERROR"));
    CO_CHECK(seen.outcome == -ERR_NOT_FOUND && row_is(f, MESSAGES, "nobody", "0"));
    return 0;
}

WAITS_TEST(a_mailbox_has_a_bound)
{
    struct err why;

    begin(300000);
    seen.topic = "x";
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(sql_run(f,
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                     " WHERE i < 10000) INSERT INTO dbos.notifications"
                     " (message_uuid, destination_uuid, topic, message, serialization)"
                     " SELECT 'm' || i, ?1, 't', '1', 'portable_json' FROM n",
                     "r", NULL, e) == 0);
    CO_CHECK(durable_post(f->d, STR("r"), STR("t"), STR("1"), (struct str){ 0 }, &why) ==
             -ERR_LIMIT);
    CO_CHECK(post(f, "r", "u", "1", NULL) == 0); /* a topic of its own */
    return 0;
}

WAITS_TEST(what_cannot_be_sent_is_refused)
{
    struct str none = { 0 }, z = { "a\0b", 3 };
    char big[1100];
    struct err e2;

    memset(big, 'k', sizeof(big));
    begin(0);
    CO_CHECK(durable_post(f->d, STR(""), none, STR("1"), none, &e2) == -ERR_INVALID);
    CO_CHECK(durable_post(f->d, STR("r"), z, STR("1"), none, &e2) == -ERR_INVALID);
    CO_CHECK(durable_post(f->d, STR("r"), none, STR("{"), none, &e2) == -ERR_INVALID);
    CO_CHECK(durable_post(f->d, STR("r"), (struct str){ big, sizeof(big) }, STR("1"), none, &e2) ==
             -ERR_LIMIT);
    return 0;
}

WAITS_TEST(messages_of_other_engines_are_read_by_their_format)
{
    begin(60000);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(row_becomes(f, RECORDS, "r", "1"));
    CO_CHECK(sql_run(f,
                     INSERT "('m', ?1, '__null__topic__',"
                            " '{\"json\":{\"a\":1},\"__dbos_serializer\":\"superjson\"}',"
                            " 'js_superjson')",
                     "r", NULL, e) == 0);
    CO_CHECK(row_becomes(f, UNREAD, "r", "0"));
    CO_CHECK(strcmp(seen.got[0], "{\"a\":1}") == 0);
    CO_CHECK(sql_run(f, INSERT "('n', ?1, '__null__topic__', 'gASV', 'py_pickle')", "r", NULL, e) ==
             0);
    CO_CHECK(ends_as(f, "r", "ERROR"));
    CO_CHECK(row_is(f, UNREAD, "r", "0"));
    return 0;
}

/* --- timeouts --- */

WAITS_TEST(who_waits_in_vain_gets_nothing_and_a_record_of_it)
{
    begin(50);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "nothing") == 0 && strcmp(seen.got[1], "nothing") == 0);
    CO_CHECK(row_is(f, RECORDS, "r", "4")); /* two results and two ends of waits */
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
                    " AND function_name = 'DBOS.recv' AND output IS NULL AND error IS NULL",
                    "r", "2"));
    return 0;
}

WAITS_TEST(a_timeout_goes_on_over_a_restart)
{
    char before[512], after[512];

    begin(1500);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(row_becomes(f, RECORDS, "r", "1"));
    CO_CHECK(sql_run(f, MARKER, "r", before, e) == 0);
    engine_down(f);
    CO_CHECK(row_is(f, STATUS, "r", "ENQUEUED"));
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(row_becomes(f, RECORDS, "r", "3")); /* it has timed out, and waits again */
    CO_CHECK(seen.starts == 2);
    CO_CHECK(sql_run(f, MARKER " ORDER BY function_id", "r", after, e) == 0);
    CO_CHECK(row_is(f, MARKER " AND function_id = 1", "r", before));
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    return 0;
}

/* --- parking --- */

PARK_TEST(a_long_sleep_costs_a_row_and_ends_in_time)
{
    int64_t from = wall_ms();

    begin(700);
    CO_CHECK(starts(f, "sleeper", "w"));
    CO_CHECK(parked(f, "w", "sleep"));
    CO_CHECK(run_find(f->d, STR("w")) == NULL);
    CO_CHECK(row_is(f, RECORDS, "w", "1") && seen.ends == 0);
    CO_CHECK(ends_as(f, "w", "SUCCESS"));
    CO_CHECK(wall_ms() - from >= 690 && seen.starts == 2 && seen.ends == 1);
    CO_CHECK(row_is(f, ATTEMPTS, "w", "1") && row_is(f, PARKED, "w", "(none)"));
    return 0;
}

PARK_TEST(a_parked_receiver_is_woken_by_a_send)
{
    begin(60000);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(parked(f, "r", "recv"));
    CO_CHECK(starts(f, "sender", "s"));
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "\"one\"") == 0 && strcmp(seen.got[1], "\"two\"") == 0);
    CO_CHECK(row_is(f, ATTEMPTS, "r", "1"));
    return 0;
}

PARK_TEST(a_parked_receiver_is_woken_by_a_client_in_sql)
{
    begin(60000);
    seen.topic = "t";
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(parked(f, "r", "recv"));
    CO_CHECK(sql_run(f, INSERT "('m', ?1, 't', '\"sql\"', 'portable_json')", "r", NULL, e) == 0);
    CO_CHECK(row_becomes(f, UNREAD, "r", "0"));
    CO_CHECK(parked(f, "r", "recv")); /* for the second */
    CO_CHECK(sql_run(f, INSERT "('n', ?1, 't', '\"too\"', 'portable_json')", "r", NULL, e) == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "\"sql\"") == 0 && strcmp(seen.got[1], "\"too\"") == 0);
    return 0;
}

PARK_TEST(a_parked_receiver_times_out_over_a_restart)
{
    begin(600);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(parked(f, "r", "recv"));
    engine_down(f);
    CO_CHECK(row_is(f, STATUS, "r", "DELAYED"));
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    CO_CHECK(strcmp(seen.got[0], "nothing") == 0 && strcmp(seen.got[1], "nothing") == 0);
    return 0;
}

PARK_TEST(a_message_while_nobody_runs_is_found_afterwards)
{
    begin(60000);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(parked(f, "r", "recv"));
    engine_down(f);
    CO_CHECK(
        sql_run(f, INSERT "('m', ?1, '__null__topic__', '1', 'portable_json')", "r", NULL, e) == 0);
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(row_becomes(f, UNREAD, "r", "0"));
    CO_CHECK(post(f, "r", NULL, "2", NULL) == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    return 0;
}

PARK_TEST(a_parked_workflow_is_cancelled_and_resumed)
{
    int64_t n;

    begin(60000);
    CO_CHECK(starts(f, "receiver", "r"));
    CO_CHECK(parked(f, "r", "recv"));
    CO_CHECK(durable_cancel(f->d, &STR("r"), 1, false, &n, e) == 0 && n == 1);
    CO_CHECK(row_is(f, STATUS, "r", "CANCELLED"));
    CO_CHECK(post(f, "r", NULL, "1", NULL) == 0); /* is kept, and wakes nobody */
    CO_CHECK(fiber_sleep(300, e) == 0);
    CO_CHECK(row_is(f, STATUS, "r", "CANCELLED"));
    CO_CHECK(durable_resume(f->d, STR("r"), (struct str){ 0 }, e) == 0);
    CO_CHECK(row_becomes(f, UNREAD, "r", "0"));
    CO_CHECK(post(f, "r", NULL, "2", NULL) == 0);
    CO_CHECK(ends_as(f, "r", "SUCCESS"));
    return 0;
}

/* Rows of durable_parked that nobody needs go away by themselves. */
PARK_TEST(rows_of_deleted_workflows_are_tidied_up)
{
    begin(60000);
    CO_CHECK(starts(f, "sleeper", "w"));
    CO_CHECK(parked(f, "w", "sleep"));
    CO_CHECK(
        sql_run(f, "DELETE FROM dbos.workflow_status WHERE workflow_uuid = ?1", "w", NULL, e) == 0);
    engine_down(f);
    CO_CHECK(engine_up(f, e) == 0); /* the first sweep of an engine tidies */
    CO_CHECK(row_becomes(f, PARKED, "w", "(none)"));
    return 0;
}

/* Beside f's, as if in another process. */
static CO int second_engine(struct engine *f, struct engine *other, struct err *e)
{
    struct durable_conf conf = engine_test_now->conf;
    int r;

    conf.instance = "other";
    *other = (struct engine){ f->store, durable_new(f->store->loop, f->store->s, &conf) };
    r = durable_register(other->d, types, LEN(types), e);
    return r < 0 ? r : durable_run(other->d, e);
}

static CO bool wake_each_other(struct engine *f, struct engine *other)
{
    return starts(f, "receiver", "r") && parked(f, "r", "recv") &&
           post(other, "r", NULL, "1", NULL) == 0 && row_becomes(f, UNREAD, "r", "0") &&
           post(other, "r", NULL, "2", NULL) == 0 && ends_as(f, "r", "SUCCESS");
}

PARK_TEST(two_engines_wake_the_workflows_of_each_other)
{
    struct engine other;
    bool done;

    if (f->store->sqlite) /* one process owns the file */
        return 0;
    begin(60000);
    CO_CHECK(second_engine(f, &other, e) == 0);
    done = wake_each_other(f, &other);
    engine_down(&other);
    CO_CHECK(done);
    CO_CHECK(strcmp(seen.got[0], "1") == 0 && strcmp(seen.got[1], "2") == 0);
    return 0;
}

/* Many who park and are sent to at the same moment: none is left behind. */
PARK_TEST(no_wake_up_is_lost_between_parking_and_sending)
{
    enum { N = 60 };
    char id[16];

    begin(60000);
    for (int i = 0; i < N; i++) {
        fmt_z(id, sizeof(id), "r%d", i);
        CO_CHECK(starts(f, "receiver", id));
    }
    CO_CHECK(fiber_sleep(40, e) == 0); /* they are about to park */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            fmt_z(id, sizeof(id), "r%d", i);
            CO_CHECK(post(f, id, NULL, "1", NULL) == 0);
        }
    }
    CO_CHECK(row_becomes(f, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
                         NULL, "60"));
    return 0;
}

/* --- clocks that are set --- */

static _Atomic int64_t step_us;

static uint64_t real_now(void *arg)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int64_t stepped_wall(void *arg)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + atomic_load(&step_us);
}

static void step_clock(int hours)
{
    static const struct time_source source = { real_now, stepped_wall, NULL };

    atomic_store(&step_us, (int64_t)hours * 3600 * 1000000);
    time_set_source(hours ? &source : NULL);
}

/* It ends, and neither much too soon nor an hour late. */
static CO bool ends_after(struct engine *f, uint64_t from, uint64_t ms)
{
    bool ends = ends_as(f, "w", "SUCCESS");

    step_clock(0);
    if (ends && now_ms() - from + 50 < ms)
        printf("# it ended after %llu ms\n", (unsigned long long)(now_ms() - from));
    return ends && now_ms() - from + 50 >= ms;
}

WAITS_TEST(a_sleep_in_memory_does_not_mind_a_clock_set_back)
{
    uint64_t from = now_ms();

    begin(400);
    CO_CHECK(starts(f, "sleeper", "w"));
    CO_CHECK(row_becomes(f, RECORDS, "w", "1"));
    step_clock(-1);
    CO_CHECK(ends_after(f, from, 400));
    return 0;
}

WAITS_TEST(a_sleep_in_memory_does_not_mind_a_clock_set_forward)
{
    uint64_t from = now_ms();

    begin(400);
    CO_CHECK(starts(f, "sleeper", "w"));
    CO_CHECK(row_becomes(f, RECORDS, "w", "1"));
    step_clock(1);
    CO_CHECK(ends_after(f, from, 400));
    return 0;
}

PARK_TEST(a_parked_sleep_does_not_mind_a_clock_set_back)
{
    uint64_t from = now_ms();

    begin(900);
    CO_CHECK(starts(f, "sleeper", "w"));
    CO_CHECK(parked(f, "w", "sleep"));
    step_clock(-1);
    CO_CHECK(ends_after(f, from, 900));
    return 0;
}

/* The step is found by the one who parks, before any sweep. */
ENGINE_TEST_CONF(who_parks_just_after_a_step_does_not_follow_it, types, .instance = "test",
                 .sweep_ms = 700, .park_ms = 50)
{
    uint64_t from = now_ms();

    begin(1500);
    CO_CHECK(fiber_sleep(100, e) == 0); /* past the first sweep */
    step_clock(1);
    if (!starts(f, "sleeper", "w") || !parked(f, "w", "sleep")) {
        step_clock(0);
        return -1;
    }
    CO_CHECK(ends_after(f, from, 1500));
    CO_CHECK(seen.starts == 2);
    return 0;
}

PARK_TEST(a_parked_sleep_does_not_mind_a_clock_set_forward)
{
    uint64_t from = now_ms();

    begin(900);
    CO_CHECK(starts(f, "sleeper", "w"));
    CO_CHECK(parked(f, "w", "sleep"));
    CO_CHECK(fiber_sleep(150, e) == 0); /* a sweep has seen the clock as it was */
    step_clock(1);
    CO_CHECK(ends_after(f, from, 900));
    return 0;
}

PARK_TEST(a_wait_over_a_restart_with_the_clock_set_back_starts_over_at_most)
{
    uint64_t from = now_ms();

    begin(900);
    CO_CHECK(starts(f, "receiver", "w"));
    CO_CHECK(parked(f, "w", "recv"));
    engine_down(f);
    step_clock(-1);
    if (engine_up(f, e) < 0) {
        step_clock(0);
        return -1;
    }
    CO_CHECK(ends_after(f, from, 900));
    CO_CHECK(strcmp(seen.got[0], "nothing") == 0);
    return 0;
}
