/* SPDX-License-Identifier: MIT */
/*
 * durable/schedule_test.c — schedules: which times fire, as a function; and beside a running
 * engine, on SQLite or, where CHELA_TEST_PG is set, on PostgreSQL. Clocks are only set on SQLite:
 * PostgreSQL's is the server's.
 */
#define TESTS_AT_ONCE 8

#include <stdatomic.h>
#include <time.h>

#include "durable/engine_fixture.h"
#include "durable/schedule_int.h"

/* --- which times --- */

#define MINUTE INT64_C(60000)
#define HOUR   (60 * MINUTE)
#define NOON   (INT64_C(1767268800) * 1000) /* 2026-01-01T12:00:00Z */

struct due_row {
    const char *cron;
    enum durable_misfire misfire;
    unsigned max;
    int64_t from, now;   /* from NOON */
    size_t n;            /* times */
    int64_t first, last; /* from NOON */
};

/* clang-format off */
static const struct due_row due_rows[] = {
    /* in time, or a little late: fired whatever the policy */
    { "0 * * * *", MISFIRE_SKIP, 0, -MINUTE, 0,         1, 0, 0 },
    { "0 * * * *", MISFIRE_SKIP, 0, -MINUTE, 5000,      1, 0, 0 },
    { "0 * * * *", MISFIRE_SKIP, 0, -MINUTE, MINUTE,    1, 0, 0 },
    { "0 * * * *", MISFIRE_ONCE, 0, -MINUTE, MINUTE,    1, 0, 0 },
    { "0 * * * *", MISFIRE_ALL,  0, -MINUTE, MINUTE,    1, 0, 0 },
    { "0 * * * *", MISFIRE_ALL,  0, 0,       MINUTE,    0, 0, 0 },
    { "0 * * * *", MISFIRE_ALL,  0, -MINUTE, -1,        0, 0, 0 },
    /* missed */
    { "0 * * * *", MISFIRE_SKIP, 0, -5 * HOUR - 1, 30 * MINUTE, 0, 0, 0 },
    { "0 * * * *", MISFIRE_ONCE, 0, -5 * HOUR - 1, 30 * MINUTE, 1, 0, 0 },
    { "0 * * * *", MISFIRE_ALL,  0, -5 * HOUR - 1, 30 * MINUTE, 6, -5 * HOUR, 0 },
    { "0 * * * *", MISFIRE_ALL,  2, -5 * HOUR - 1, 30 * MINUTE, 2, -HOUR, 0 },
    /* missed, and one that is due: that one is enough */
    { "0 * * * *", MISFIRE_SKIP, 0, -5 * HOUR - 1, 1000, 1, 0, 0 },
    { "0 * * * *", MISFIRE_ONCE, 0, -5 * HOUR - 1, 1000, 1, 0, 0 },
    { "0 * * * *", MISFIRE_ALL,  0, -5 * HOUR - 1, 1000, 6, -5 * HOUR, 0 },
    /* a year of seconds is not counted through */
    { "* * * * * *", MISFIRE_ONCE, 0, -365 * 24 * HOUR, 0, 61, -MINUTE, 0 },
    { "* * * * * *", MISFIRE_ALL,  5, -365 * 24 * HOUR, 0, 66, -MINUTE - 5000, 0 },
    { "0 0 1 1 *",   MISFIRE_ALL,  0, -365 * 24 * HOUR * 3, 0, 3, -(365 * 2 + 1) * 24 * HOUR - 12 * HOUR, -12 * HOUR },
};
/* clang-format on */

TEST(the_misfire_policy_says_which_times_fire)
{
    for (size_t i = 0; i < LEN(due_rows); i++) {
        const struct due_row *row = &due_rows[i];
        const struct durable_schedule s = { .misfire = row->misfire, .misfire_max = row->max };
        AUTO(cron_free) struct cron *c = NULL;
        AUTO(zone_free) struct zone *z = NULL;
        struct arena a = { 0 };
        int64_t *times;
        struct err e;
        size_t n;

        CHECK(cron_parse(str_of(row->cron), &c, &e) == 0 && zone_open(STR(""), &z, &e) == 0);
        schedule_due(&s, c, z, NOON + row->from, NOON + row->now, &a, &times, &n);
        if (n != row->n ||
            (n && (times[0] != NOON + row->first || times[n - 1] != NOON + row->last)))
            CHECK_FAIL("row %zu: %zu times, %lld to %lld", i, n,
                       n ? (long long)(times[0] - NOON) : 0,
                       n ? (long long)(times[n - 1] - NOON) : 0);
        for (size_t k = 1; k < n; k++)
            CHECK(times[k] > times[k - 1]);
        arena_done(&a);
    }
}

/* --- workflows --- */

static int runs;

static CO int tick(struct workflow *w, void *ctx, struct err *e)
{
    const json_t *time = workflow_arg(w, 0), *context = workflow_arg(w, 1);

    runs++;
    if (!json_is_string(time) || !context)
        return err_set(e, ERR_INVALID, "not the arguments of a schedule");
    return json_is_object(context) ? durable_return(w, STR("\"object\""), e) : 0;
}

static CO int lasts(struct workflow *w, void *ctx, struct err *e)
{
    return durable_recv(w, STR("go"), 3600000, NULL, e);
}

static const struct durable_type types[] = {
    { .name = "tick", .fn = tick },
    { .name = "tick", .class_name = "Clock", .fn = tick },
    { .name = "lasts", .fn = lasts },
};

#define OF "SELECT count(*) FROM dbos.workflow_status WHERE schedule_name = ?1"

static long long count_of(const char *text)
{
    long long n = -1;
    struct err e;

    (void)!int_parse(str_of(text), 0, INT32_MAX, &n, &e); /* -1 says so */
    return n;
}

/* Wait until a count is at least so much. */
#define reaches(f, text, arg, n) reaches_at((f), SQL_TEXT(text), (arg), (n))
static CO bool reaches_at(struct engine *f, const struct sql *sql, const char *arg, long long least)
{
    uint64_t until = deadline_in(PATIENCE_MS);
    char have[512] = "";
    struct err e;

    while (now_ms() < until) {
        if (sql_run_at(f, sql, arg, have, &e) < 0)
            return false;
        if (count_of(have) >= least)
            return true;
        if (fiber_sleep(20, &e) < 0)
            return false;
    }
    printf("# %s (%s): %s, never %lld\n", sql->text, arg, have, least);
    return false;
}

static CO bool puts_it(struct engine *f, struct durable_schedule s, int want)
{
    struct err e = { 0 };
    int r = durable_schedule_put(f->d, &s, &e);

    if (r != want)
        printf("# put: %d, want %d: %s\n", r, want, e.msg);
    return r == want;
}

#define PUTS(want, ...) CO_CHECK(puts_it(f, (struct durable_schedule){ __VA_ARGS__ }, want))

/* --- the table --- */

ENGINE_TEST(a_schedule_is_kept_shown_changed_and_removed, types)
{
    struct durable_schedule s, *rows;
    struct arena a = { 0 };
    size_t n;

    PUTS(0, .name = STR("daily"), .workflow = STR("tick"), .cron = STR("0 9 * * *"),
         .zone = STR("Europe/Berlin"), .context = STR("{\"a\":1}"), .misfire = MISFIRE_ONCE,
         .overlap = OVERLAP_SKIP, .misfire_max = 7, .queue = STR("q"));
    CO_CHECK(durable_schedule_get(f->d, STR("daily"), &a, &s, e) == 0);
    CO_CHECK(str_eq_z(s.workflow, "tick") && str_eq_z(s.cron, "0 9 * * *"));
    CO_CHECK(str_eq_z(s.zone, "Europe/Berlin") && str_eq_z(s.context, "{\"a\":1}"));
    CO_CHECK(str_eq_z(s.queue, "q") && !s.class_name.p && !s.paused);
    CO_CHECK(s.misfire == MISFIRE_ONCE && s.overlap == OVERLAP_SKIP && s.misfire_max == 7);
    CO_CHECK(s.last_ms == 0 && s.next_ms > wall_ms());
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_schedules WHERE schedule_name = ?1"
                    " AND context LIKE '{\"json\":{\"a\":1},%superjson%'"
                    " AND automatic_backfill = FALSE AND status = 'ACTIVE'",
                    "daily", "1"));
    PUTS(0, .name = STR("daily"), .workflow = STR("tick"), .cron = STR("@hourly"),
         .misfire = MISFIRE_ALL);
    PUTS(0, .name = STR("other"), .workflow = STR("tick"), .cron = STR("@yearly"));
    CO_CHECK(durable_schedules(f->d, &a, &rows, &n, e) == 0 && n == 2);
    CO_CHECK(str_eq_z(rows[0].name, "daily") && str_eq_z(rows[0].cron, "@hourly"));
    CO_CHECK(rows[0].misfire == MISFIRE_ALL && rows[0].overlap == OVERLAP_ALLOW);
    CO_CHECK(!rows[0].zone.p && str_eq_z(rows[0].context, "null") && str_eq(rows[0].id, s.id));
    CO_CHECK(durable_schedule_pause(f->d, STR("daily"), true, e) == 0);
    CO_CHECK(durable_schedule_get(f->d, STR("daily"), &a, &s, e) == 0 && s.paused);
    CO_CHECK(s.next_ms == 0 && s.misfire == MISFIRE_ALL);
    CO_CHECK(durable_schedule_remove(f->d, STR("daily"), e) == 0);
    CO_CHECK(durable_schedule_remove(f->d, STR("daily"), e) == -ERR_NOT_FOUND);
    CO_CHECK(durable_schedule_get(f->d, STR("daily"), &a, &s, e) == -ERR_NOT_FOUND);
    CO_CHECK(durable_schedule_pause(f->d, STR("daily"), true, e) == -ERR_NOT_FOUND);
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_schedules", NULL, "1"));
    arena_done(&a);
    return 0;
}

ENGINE_TEST(a_schedule_that_cannot_be_is_refused, types)
{
    static const char long_name[] =
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
        "89012345678901234567890123456789";

    PUTS(-ERR_INVALID, .workflow = STR("tick"), .cron = STR("@daily"));
    PUTS(-ERR_INVALID, .name = STR("s"), .cron = STR("@daily"));
    PUTS(-ERR_INVALID, .name = STR("s"), .workflow = STR("tick"));
    PUTS(-ERR_INVALID, .name = STR("s"), .workflow = STR("tick"), .cron = STR("61 * * * *"));
    PUTS(-ERR_INVALID, .name = STR("s"), .workflow = STR("tick"), .cron = STR("0 0 30 2 *"));
    PUTS(-ERR_INVALID, .name = STR("s"), .workflow = STR("tick"), .cron = STR("@daily"),
         .zone = STR("Mars/Olympus"));
    PUTS(-ERR_INVALID, .name = STR("s"), .workflow = STR("tick"), .cron = STR("@daily"),
         .context = STR("{no"));
    PUTS(-ERR_INVALID, .name = STR("s\n"), .workflow = STR("tick"), .cron = STR("@daily"));
    PUTS(-ERR_INVALID, .name = str_of(long_name), .workflow = STR("tick"), .cron = STR("@daily"));
    PUTS(-ERR_INVALID, .name = STR("s"), .workflow = STR("tick"), .cron = STR("@daily"),
         .misfire_max = 10001);
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_schedules", NULL, "0"));
    return 0;
}

/* --- firing --- */

#define PUT_TICK(zname, ...) \
    PUTS(0, .name = STR(zname), .workflow = STR("tick"), .context = STR("{\"k\":[1]}"), __VA_ARGS__)

ENGINE_TEST(each_second_is_a_workflow_of_its_own, types)
{
    runs = 0;
    PUT_TICK("s", .cron = STR("* * * * * *"));
    CO_CHECK(reaches(f, OF " AND status = 'SUCCESS'", "s", 2));
    CO_CHECK(
        row_is(f, OF " AND workflow_uuid NOT LIKE 'sched-s-20__-__-__T__:__:__.000Z'", "s", "0"));
    CO_CHECK(
        row_is(f, OF " AND (application_version IS NULL OR application_version <> '1')", "s", "0"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_input WHERE workflow_uuid LIKE"
                    " 'sched-s-%' AND inputs NOT LIKE '{\"positionalArgs\":[\"20%"
                    "Z\",{\"k\":[1]}]%'",
                    NULL, "0"));
    CO_CHECK(reaches(f,
                     "SELECT count(*) FROM dbos.workflow_schedules WHERE schedule_name = ?1"
                     " AND last_fired_at LIKE '20__-__-__T__:__:__.000Z'",
                     "s", 1));
    CO_CHECK(durable_schedule_pause(f->d, STR("s"), true, e) == 0);
    CO_CHECK(row_is(f, OF " AND status = 'ERROR'", "s", "0"));
    return 0;
}

ENGINE_TEST(a_schedule_of_a_class_finds_its_method, types)
{
    PUT_TICK("c", .class_name = STR("Clock"), .cron = STR("* * * * * *"));
    CO_CHECK(reaches(f, OF " AND status = 'SUCCESS' AND class_name = 'Clock'", "c", 1));
    return 0;
}

ENGINE_TEST(a_paused_schedule_does_not_fire_and_makes_up_for_nothing, types)
{
    char before[512], after[512];

    PUT_TICK("s", .cron = STR("* * * * * *"), .misfire = MISFIRE_ALL);
    CO_CHECK(reaches(f, OF, "s", 1));
    CO_CHECK(durable_schedule_pause(f->d, STR("s"), true, e) == 0);
    CO_CHECK(fiber_sleep(300, e) == 0); /* what was on its way */
    CO_CHECK(sql_run(f, OF, "s", before, e) == 0);
    CO_CHECK(fiber_sleep(2200, e) == 0); /* two times at least */
    CO_CHECK(sql_run(f, OF, "s", after, e) == 0);
    CO_CHECK(strcmp(before, after) == 0);
    CO_CHECK(durable_schedule_pause(f->d, STR("s"), false, e) == 0);
    CO_CHECK(row_is(f, "SELECT count(*) FROM durable_schedules WHERE since_ms > 0", NULL, "1"));
    CO_CHECK(reaches(f, OF, "s", count_of(before) + 1));
    CO_CHECK(
        row_is(f, "SELECT misfire FROM durable_schedules WHERE schedule_name = ?1", "s", "all"));
    return 0;
}

/* As clients of DBOS and other engines do it: in the table, and this process is not told. */
ENGINE_TEST(what_others_pause_or_change_does_not_fire_again, types)
{
    char s[2][512], t[2][512];

    PUT_TICK("s", .cron = STR("* * * * * *"));
    PUT_TICK("t", .cron = STR("* * * * * *"));
    CO_CHECK(reaches(f, OF, "s", 1) && reaches(f, OF, "t", 1));
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_schedules SET status = 'PAUSED'"
                     " WHERE schedule_name = ?1",
                     "s", NULL, e) == 0);
    CO_CHECK(sql_run(f,
                     "UPDATE dbos.workflow_schedules SET schedule = '0 0 1 1 *'"
                     " WHERE schedule_name = ?1",
                     "t", NULL, e) == 0);
    CO_CHECK(sql_run(f, OF, "s", s[0], e) == 0 && sql_run(f, OF, "t", t[0], e) == 0);
    CO_CHECK(fiber_sleep(3200, e) == 0); /* three times at least */
    CO_CHECK(sql_run(f, OF, "s", s[1], e) == 0 && sql_run(f, OF, "t", t[1], e) == 0);
    CO_CHECK(count_of(s[1]) <= count_of(s[0]) + 1); /* it was on its way */
    CO_CHECK(count_of(t[1]) <= count_of(t[0]) + 1);
    CO_CHECK(sql_run(f, "UPDATE dbos.workflow_schedules SET status = 'ACTIVE'", NULL, NULL, e) ==
             0);
    CO_CHECK(reaches(f, OF, "s", count_of(s[1]) + 1)); /* the table is read now and then */
    CO_CHECK(count_of(t[1]) <= count_of(t[0]) + 1);
    return 0;
}

ENGINE_TEST(a_run_that_lasts_makes_its_schedule_skip, types)
{
    char last[512], again[512] = "";

    PUTS(0, .name = STR("s"), .workflow = STR("lasts"), .cron = STR("* * * * * *"),
         .overlap = OVERLAP_SKIP);
    CO_CHECK(reaches(f, OF, "s", 1));
    CO_CHECK(sql_run(f, "SELECT last_fired_at FROM dbos.workflow_schedules", NULL, last, e) == 0);
    for (int i = 0; i < 3; i++) { /* three more times are dealt with */
        do {
            CO_CHECK(fiber_sleep(50, e) == 0);
            CO_CHECK(sql_run(f, "SELECT last_fired_at FROM dbos.workflow_schedules", NULL, again,
                             e) == 0);
        } while (strcmp(last, again) == 0);
        memcpy(last, again, sizeof(last));
    }
    CO_CHECK(row_is(f, OF, "s", "1"));
    return 0;
}

ENGINE_TEST(a_run_that_lasts_is_replaced, types)
{
    PUTS(0, .name = STR("s"), .workflow = STR("lasts"), .cron = STR("* * * * * *"),
         .overlap = OVERLAP_REPLACE);
    CO_CHECK(reaches(f, OF " AND status = 'CANCELLED'", "s", 2));
    CO_CHECK(durable_schedule_remove(f->d, STR("s"), e) == 0);
    CO_CHECK(row_becomes(f, OF " AND status IN ('ENQUEUED', 'PENDING', 'DELAYED')", "s", "1"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_status WHERE status <> 'CANCELLED'"
                    " AND workflow_uuid < (SELECT MAX(workflow_uuid) FROM"
                    " dbos.workflow_status)",
                    NULL, "0"));
    return 0;
}

/* --- while nobody ran --- */

/* An hourly schedule whose time is half an hour away from now. */
static const char *half_past(void)
{
    static char text[32];

    fmt_z(text, sizeof(text), "%d * * * *", (int)((wall_ms() / MINUTE + 30) % 60));
    return text;
}

static CO int set_last(struct engine *f, const char *name, int64_t ago_ms, struct err *e)
{
    char text[TIME_TEXT];
    int r;

    time_format_z((wall_ms() - ago_ms) * 1000, text);
    r = sql_run(f, "UPDATE dbos.workflow_schedules SET last_fired_at = ?1", text, NULL, e);
    return r < 0 ? r
                 : sql_run(f, "UPDATE durable_schedules SET since_ms = 1 WHERE schedule_name = ?1",
                           name, NULL, e);
}

static CO bool misses(struct engine *f, enum durable_misfire misfire, const char *want)
{
    struct durable_schedule s = { .name = STR("m"), .workflow = STR("tick"), .misfire = misfire };
    struct err e;

    s.cron = str_of(half_past());
    if (durable_schedule_put(f->d, &s, &e) < 0)
        return false;
    engine_down(f);
    if (set_last(f, "m", 5 * HOUR, &e) < 0 || engine_up(f, &e) < 0)
        return false;
    if (fiber_sleep(1500, &e) < 0) /* there may be more than are wanted */
        return false;
    return row_becomes(f, OF, "m", want);
}

ENGINE_TEST(times_missed_are_skipped, types)
{
    CO_CHECK(misses(f, MISFIRE_SKIP, "0"));
    return 0;
}

ENGINE_TEST(times_missed_are_made_up_for_once, types)
{
    CO_CHECK(misses(f, MISFIRE_ONCE, "1"));
    CO_CHECK(ends_as(f, "sched-m-trigger-none", "(none)"));
    return 0;
}

ENGINE_TEST(times_missed_are_all_made_up_for, types)
{
    CO_CHECK(misses(f, MISFIRE_ALL, "5"));
    engine_down(f);
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(fiber_sleep(1500, e) == 0);
    CO_CHECK(row_is(f, OF, "m", "5")); /* it is remembered what was fired */
    return 0;
}

ENGINE_TEST(a_schedule_made_by_a_client_of_dbos_is_fired, types)
{
    engine_down(f);
    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_schedules (schedule_id, schedule_name,"
                     " workflow_name, schedule, status, context, automatic_backfill)"
                     " VALUES ('1', 'js', 'tick', '* * * * * *', 'ACTIVE',"
                     "  '{\"json\":{\"a\":1,\"b\":null},\"meta\":{\"values\":{\"b\":"
                     "[\"undefined\"]}},\"__dbos_serializer\":\"superjson\"}', FALSE),"
                     " ('2', 'bad', 'tick', 'every day', 'ACTIVE', 'null', FALSE),"
                     " ('3', 'python', 'tick', '* * * * * *', 'ACTIVE', 'gASVAA==', FALSE),"
                     " ('4', 'unknown', 'not of ours', '* * * * * *', 'ACTIVE', 'null', FALSE)",
                     NULL, NULL, e) == 0);
    CO_CHECK(sql_run(f,
                     "INSERT INTO dbos.workflow_schedules (schedule_id, schedule_name,"
                     " workflow_name, schedule, status, context, application_name)"
                     " VALUES ('5', 'foreign', 'tick', '* * * * * *', 'ACTIVE', 'null', 'app')",
                     NULL, NULL, e) == 0);
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(reaches(f, OF " AND status = 'SUCCESS'", "js", 2));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status WHERE schedule_name <> 'js'",
                    NULL, "0"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.workflow_input"
                    " WHERE inputs NOT LIKE '%Z\",{\"a\":1}]%'",
                    NULL, "0"));
    PUTS(-ERR_CONFLICT, .name = STR("foreign"), .workflow = STR("tick"), .cron = STR("@daily"));
    return 0;
}

/* --- by hand --- */

ENGINE_TEST(a_schedule_is_triggered_and_backfilled, types)
{
    int64_t from = NOON, n = -1;
    char id[DURABLE_ID];

    PUT_TICK("s", .cron = STR("*/10 * * * *"), .paused = true);
    CO_CHECK(durable_schedule_trigger(f->d, STR("s"), id, e) == 0);
    CO_CHECK(strncmp(id, "sched-s-trigger-20", 18) == 0 && ends_as(f, id, "SUCCESS"));
    CO_CHECK(durable_schedule_backfill(f->d, STR("s"), from, from + HOUR, &n, e) == 0 && n == 6);
    CO_CHECK(row_becomes(f, OF " AND status = 'SUCCESS'", "s", "7"));
    CO_CHECK(ends_as(f, "sched-s-2026-01-01T12:00:00.000Z", "SUCCESS"));
    CO_CHECK(durable_schedule_backfill(f->d, STR("s"), from, from + HOUR + 1, &n, e) == 0 &&
             n == 1);
    CO_CHECK(durable_schedule_backfill(f->d, STR("s"), from, from, &n, e) == 0 && n == 0);
    CO_CHECK(durable_schedule_backfill(f->d, STR("s"), from, from + 10001 * 10 * MINUTE, &n, e) ==
             -ERR_LIMIT);
    CO_CHECK(row_is(f, OF, "s", "8"));
    CO_CHECK(durable_schedule_trigger(f->d, STR("none"), id, e) == -ERR_NOT_FOUND);
    CO_CHECK(durable_schedule_backfill(f->d, STR("none"), 0, 1, &n, e) == -ERR_NOT_FOUND);
    return 0;
}

/* --- more than one engine, and clocks --- */

ENGINE_TEST(two_engines_fire_each_time_once, types)
{
    const struct durable_conf conf = { .instance = "second" };
    struct durable *second;

    if (f->store->sqlite) {
        printf("# not on SQLite: one process owns the file\n");
        return 0;
    }
    runs = 0;
    second = durable_new(f->store->loop, f->store->s, &conf);
    CO_CHECK(durable_register(second, types, LEN(types), e) == 0 && durable_run(second, e) == 0);
    PUT_TICK("s", .cron = STR("* * * * * *")); /* the first reads the table at once, */
    durable_stop(second, 0);                   /* the second as it starts */
    durable_free(second);
    second = durable_new(f->store->loop, f->store->s, &conf);
    CO_CHECK(durable_register(second, types, LEN(types), e) == 0 && durable_run(second, e) == 0);
    CO_CHECK(reaches(f, OF " AND status = 'SUCCESS'", "s", 4));
    CO_CHECK(sql_run(f, "UPDATE dbos.workflow_schedules SET status = 'PAUSED'", NULL, NULL, e) ==
             0);
    durable_stop(second, 10000);
    durable_free(second);
    engine_down(f);
    CO_CHECK(engine_up(f, e) == 0);
    CO_CHECK(row_becomes(f, OF " AND status <> 'SUCCESS'", "s", "0"));
    {
        char n[512];

        CO_CHECK(sql_run(f, OF, "s", n, e) == 0);
        CO_CHECK(count_of(n) == runs);
    }
    return 0;
}

/* The database goes away for some seconds, and comes back. */
ENGINE_TEST_ALONE(a_database_that_was_away_ends_no_schedule, types)
{
    const char *ctl = getenv("CHELA_TEST_PG_CTL");
    const char *const stop[] = { ctl, "stop", NULL }, *const start[] = { ctl, "start", NULL };
    char n[512];

    if (f->store->sqlite || !ctl) {
        printf("# not on SQLite: it does not go away\n");
        return 0;
    }
    PUT_TICK("s", .cron = STR("* * * * * *"), .misfire = MISFIRE_ALL);
    CO_CHECK(reaches(f, OF, "s", 1));
    CO_CHECK(fixture_program(stop) == 0);
    CO_CHECK(fiber_sleep(2500, e) == 0);
    CO_CHECK(fixture_program(start) == 0);
    while (durable_schedule_pause(f->d, STR("none"), false, e) == -ERR_UNAVAILABLE)
        CO_CHECK(fiber_sleep(50, e) == 0);
    CO_CHECK(sql_run(f, OF, "s", n, e) == 0);
    CO_CHECK(reaches(f, OF " AND status = 'SUCCESS'", "s", count_of(n) + 3));
    /* no time between the first and the last was left out */
    CO_CHECK(durable_schedule_pause(f->d, STR("s"), true, e) == 0);
    CO_CHECK(row_is(f,
                    "SELECT count(*) - CAST(extract(epoch FROM max(at) - min(at)) AS BIGINT)"
                    " FROM (SELECT CAST(substr(workflow_uuid, 9) AS TIMESTAMP) AS at"
                    "  FROM dbos.workflow_status WHERE schedule_name = 's') t",
                    NULL, "1"));
    return 0;
}

static _Atomic int64_t shift_us;

static uint64_t steady_us(void *arg)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int64_t shifted_us(void *arg)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000 + atomic_load(&shift_us);
}

static const struct time_source shifted = { steady_us, shifted_us, NULL };

static CO int clock_steps(struct engine *f, struct err *e)
{
    char before[512], after[512];

    PUTS(0, .name = STR("s"), .workflow = STR("tick"), .cron = STR("* * * * * *"));
    PUTS(0, .name = STR("h"), .workflow = STR("tick"), .cron = str_of(half_past()),
         .misfire = MISFIRE_ONCE);
    CO_CHECK(reaches(f, OF, "s", 2));
    atomic_store(&shift_us, -HOUR * 1000); /* an hour back: nothing of before comes again */
    CO_CHECK(reaches(f, OF, "s", 4));
    CO_CHECK(row_is(f, OF, "h", "0"));
    atomic_store(&shift_us, 0);
    CO_CHECK(sql_run(f, OF " AND status <> 'SUCCESS'", "s", before, e) == 0);
    CO_CHECK(reaches(f, OF, "s", 6));
    atomic_store(&shift_us, HOUR * 1000); /* an hour forward: the time that was passed, once */
    CO_CHECK(reaches(f, OF, "h", 1));
    CO_CHECK(reaches(f, OF " AND status = 'SUCCESS'", "h", 1));
    CO_CHECK(durable_schedule_pause(f->d, STR("s"), true, e) == 0);
    CO_CHECK(row_is(f, OF, "h", "1"));
    CO_CHECK(row_becomes(f, OF " AND status <> 'SUCCESS'", "s", "0"));
    do { /* one may be on its way yet */
        CO_CHECK(fiber_sleep(50, e) == 0);
        CO_CHECK(sql_run(f, "SELECT count(*) FROM dbos.workflow_status", NULL, after, e) == 0);
    } while (count_of(after) > runs);
    /* One that comes even later has not begun. */
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_status WHERE recovery_attempts > 1",
                    NULL, "0"));
    CO_CHECK(count_of(after) == runs); /* and nothing ran twice */
    return 0;
}

ENGINE_TEST(a_clock_that_is_set_fires_nothing_twice, types)
{
    int r;

    if (!f->store->sqlite) {
        printf("# not on PostgreSQL: the server's clock is not ours to set\n");
        return 0;
    }
    runs = 0;
    atomic_store(&shift_us, 0);
    time_set_source(&shifted);
    r = clock_steps(f, e);
    time_set_source(NULL);
    return r;
}
