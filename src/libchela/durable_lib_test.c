/* SPDX-License-Identifier: MIT */
/*
 * libchela/durable_lib_test.c — the engine as C programs see it: workflows, steps on threads, SQL,
 * messages, children, and a second process taking up what the first left. What does not ask for a
 * directory is in memory, or in the database CHELA_TEST_PG when there is one.
 */
#include <chela/durable.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "test.h"

#define DEADLINE 30.0 /* seconds; nothing here takes one */

static struct chela_error error;
static atomic_int bodies; /* that ran */

static struct chela_durable *opened(const char *dir, chela_workflow_fn *fn, void *ctx)
{
    const struct chela_durable_config config = { .state_dir = dir,
                                                 .park_after = 0.2,
                                                 .sweep = 0.1 };
    const struct chela_workflow_type type = { .name = "flow", .fn = fn, .ctx = ctx };
    struct chela_durable *d = NULL;

    atomic_store(&bodies, 0);
    if (chela_durable_new(&config, &d, &error) < 0 ||
        chela_durable_register(d, &type, 1, &error) < 0 || chela_durable_run(d, &error) < 0)
        CHECK_FAIL("%s", error.text);
    return d;
}

static char *started(struct chela_durable *d, const char *args)
{
    const struct chela_start start = { .name = "flow", .args_json = args };
    char *id = NULL;

    if (chela_durable_start(d, &start, &id, &error) < 0)
        CHECK_FAIL("%s", error.text);
    return id;
}

static char ended[512]; /* "STATUS JSON" */

static const char *await_it(struct chela_durable *d, const char *id)
{
    enum chela_workflow_status status;
    char *json;

    if (chela_durable_await(d, id, DEADLINE, &status, &json, &error) < 0)
        CHECK_FAIL("%s", error.text);
    snprintf(ended, sizeof(ended), "%s %s", chela_workflow_status_name(status), json);
    free(json);
    return ended;
}

/* Run one workflow in memory to its end. */
static const char *outcome(chela_workflow_fn *fn, void *ctx, const char *args)
{
    struct chela_durable *d = opened(NULL, fn, ctx);
    char *id = started(d, args);

    await_it(d, id);
    free(id);
    chela_durable_free(d);
    return ended;
}

/* --- steps --- */

static int where_am_i(void *arg, struct chela_cancel *cancel, char **ret_json,
                      struct chela_error *e)
{
    atomic_fetch_add(&bodies, 1);
    *ret_json = strdup(pthread_equal(pthread_self(), *(pthread_t *)arg) ? "\"here\"" : "\"there\"");
    return 0;
}

static int two_places(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    const struct chela_step_retry quick = { .flags = CHELA_STEP_INLINE };
    pthread_t self = pthread_self();
    char *inside, *outside, both[64];
    int r = chela_step(w, "inside", &quick, where_am_i, &self, &inside, e);

    if (r < 0)
        return r;
    r = chela_step(w, "outside", NULL, where_am_i, &self, &outside, e);
    if (r == 0)
        snprintf(both, sizeof(both), "[%s,%s,%s]", inside, outside, args);
    free(inside);
    if (r < 0)
        return r;
    free(outside);
    return chela_return(w, both, e);
}

TEST(steps_run_on_threads_of_their_own_unless_they_are_inline)
{
    CHECK_STR(outcome(two_places, NULL, "[1,\"two\"]"), "SUCCESS [\"here\",\"there\",[1,\"two\"]]");
    CHECK_INT(atomic_load(&bodies), 2);
}

static int third_time(void *arg, struct chela_cancel *cancel, char **ret_json,
                      struct chela_error *e)
{
    if (atomic_fetch_add(&bodies, 1) == 2)
        return 0;
    snprintf(e->text, sizeof(e->text), "not yet");
    return CHELA_E_FAILED;
}

static int stubborn(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    struct chela_step_retry retry = { .tries = *(unsigned *)ctx, .first = 0.001, .factor = 1 };

    return chela_step(w, "stubborn", &retry, third_time, NULL, NULL, e);
}

TEST(a_step_is_tried_as_often_as_asked_for)
{
    unsigned tries = 3;

    CHECK_STR(outcome(stubborn, &tries, NULL), "SUCCESS null");
    CHECK_INT(atomic_load(&bodies), 3);
    tries = 2;
    CHECK(strstr(outcome(stubborn, &tries, NULL), "not yet"));
    CHECK_INT(atomic_load(&bodies), 2);
}

static int give_up(void *arg, struct chela_cancel *cancel, char **ret_json, struct chela_error *e)
{
    return chela_fail(arg, "TooHeavy", "nobody carries that", "{\"kg\":300}", e);
}

static int fails(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    if (ctx)
        return chela_fail(w, "BadOrder", "no item", NULL, e);
    return chela_step(w, "ship", NULL, give_up, w, NULL, e);
}

TEST(failures_keep_their_name_and_data)
{
    CHECK_STR(outcome(fails, NULL, NULL), "ERROR {\"name\":\"TooHeavy\",\"message\":"
                                          "\"nobody carries that\",\"data\":{\"kg\":300}}");
    CHECK_STR(outcome(fails, &error, NULL),
              "ERROR {\"name\":\"BadOrder\",\"message\":\"no item\"}");
}

/* The first that was not refused; 0 when all were. */
static int nested(void *arg, struct chela_cancel *cancel, char **ret_json, struct chela_error *e)
{
    struct chela_workflow *w = arg;
    const struct chela_start start = { .name = "flow" };
    const int r[] = { chela_sleep(w, 1, e),
                      chela_recv(w, NULL, 1, NULL, e),
                      chela_get_event(w, "flow", "k", 1, NULL, e),
                      chela_result_of(w, "flow", 1, NULL, e),
                      chela_child(w, &start, NULL, e),
                      chela_step(w, "more", NULL, nested, w, NULL, e),
                      chela_step_tx(w, "more", NULL, w, NULL, e),
                      chela_send(w, "flow", NULL, "1", e) };

    for (size_t i = 0; i < sizeof(r) / sizeof(r[0]); i++)
        if (r[i] != CHELA_E_INVALID)
            return chela_fail(w, "NotRefused", "one of them", NULL, e);
    return CHELA_E_INVALID;
}

static int sleeps_in_a_step(struct chela_workflow *w, const char *args, void *ctx,
                            struct chela_error *e)
{
    const struct chela_step_retry retry = { .flags = ctx ? CHELA_STEP_INLINE : 0 };

    return chela_step(w, "nested", &retry, nested, w, NULL, e) == CHELA_E_INVALID
               ? chela_return(w, "\"refused\"", e)
               : CHELA_E_FAILED;
}

TEST(a_step_may_not_call_the_workflow_s_functions)
{
    CHECK_STR(outcome(sleeps_in_a_step, NULL, NULL), "SUCCESS \"refused\"");
    CHECK_STR(outcome(sleeps_in_a_step, &error, NULL), "SUCCESS \"refused\"");
}

static int until_canceled(void *arg, struct chela_cancel *cancel, char **ret_json,
                          struct chela_error *e)
{
    atomic_fetch_add(&bodies, 1);
    if (!chela_cancel_sleep(cancel, DEADLINE))
        return 0;
    atomic_fetch_add(&bodies, 10);
    snprintf(e->text, sizeof(e->text), "canceled");
    return CHELA_E_CANCELED;
}

static int endless(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    return chela_step(w, "endless", NULL, until_canceled, NULL, NULL, e);
}

TEST(cancelling_raises_the_flag_of_the_step_under_way)
{
    struct chela_durable *d = opened(NULL, endless, NULL);
    char *id = started(d, NULL);

    for (int i = 0; i < 3000 && !atomic_load(&bodies); i++)
        usleep(10000);
    CHECK_INT(chela_durable_cancel(d, id, false, &error), 0);
    CHECK(strncmp(await_it(d, id), "CANCELLED", 9) == 0);
    free(id);
    chela_durable_free(d); /* waits for the body */
    CHECK_INT(atomic_load(&bodies), 11);
}

/* --- SQL --- */

static int make_table(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *e)
{
    return chela_tx_run(tx, "CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL)", NULL,
                        0, NULL, NULL, NULL, e);
}

static void add_up(const struct chela_row *row, void *arg)
{
    char **text = arg;

    free(*text);
    *text = malloc(64);
    snprintf(*text, 64, "{\"%s\":%lld,\"r\":%g}", chela_row_text(row, 0),
             (long long)chela_row_int(row, 1), chela_row_real(row, 2));
}

static int count(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *e)
{
    const struct chela_sql_arg args[] = { CHELA_SQL_TEXT("a"), CHELA_SQL_INT(1),
                                          CHELA_SQL_REAL(0.5) };
    int64_t changed;
    int r = chela_tx_run(tx,
                         "INSERT INTO counts (name, n) VALUES (?1, ?2)"
                         " ON CONFLICT (name) DO UPDATE SET n = counts.n + 1",
                         args, 2, NULL, NULL, &changed, e);

    if (r == 0 && arg) {
        snprintf(e->text, sizeof(e->text), "undo it, %d row", (int)changed);
        return CHELA_E_FAILED;
    }
    return r < 0 ? r
                 : chela_tx_run(tx, "SELECT name, n, ?1 FROM counts", args + 2, 1, add_up, ret_json,
                                NULL, e);
}

static int counts(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    char *json;
    int r = chela_step_tx(w, "count", count, NULL, &json, e);

    if (r < 0)
        return r;
    r = chela_return(w, json, e);
    free(json);
    if (r == 0 && chela_step_tx(w, "undone", count, w, NULL, e) != CHELA_E_FAILED)
        return CHELA_E_FAILED;
    return r == 0 && strcmp(e->text, "undo it, 1 row") == 0 ? 0 : CHELA_E_FAILED;
}

TEST(sql_commits_with_its_step_or_not_at_all)
{
    struct chela_durable *d = opened(NULL, counts, NULL);
    char *id, *json;

    CHECK_INT(chela_durable_tx(d, make_table, NULL, NULL, &error), 0);
    for (int i = 1; i <= 2; i++) {
        char want[64];

        id = started(d, NULL);
        snprintf(want, sizeof(want), "SUCCESS {\"a\":%d,\"r\":0.5}", i);
        CHECK_STR(await_it(d, id), want);
        free(id);
    }
    CHECK_INT(chela_durable_tx(d, count, NULL, &json, &error), 0);
    CHECK_STR(json, "{\"a\":3,\"r\":0.5}");
    free(json);
    chela_durable_free(d);
}

/* --- messages, events, streams, children --- */

static int talks(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    char *json = NULL;
    int r = chela_set_event(w, "state", "\"ready\"", e);

    if (r == 0)
        r = chela_recv(w, "answers", DEADLINE, &json, e); /* parks: it comes later */
    if (r != 0)
        return r;
    r = chela_write_stream(w, "out", json, e);
    if (r == 0)
        r = chela_close_stream(w, "out", e);
    if (r == 0)
        r = chela_return(w, json, e);
    free(json);
    return r;
}

TEST(messages_go_in_and_events_and_streams_come_out)
{
    struct chela_durable *d = opened(NULL, talks, NULL);
    struct chela_workflow_info *info;
    char *id = started(d, NULL), *json;
    bool parked = false;

    CHECK_INT(chela_durable_get_event(d, id, "state", DEADLINE, &json, &error), 0);
    CHECK_STR(json, "\"ready\"");
    free(json);
    for (int i = 0; i < 3000 && !parked; i++) { /* its stack is given up while it waits */
        CHECK_INT(chela_durable_info(d, id, &info, &error), 0);
        parked = info->parked;
        chela_workflow_info_free(info);
        usleep(10000);
    }
    CHECK(parked);
    for (int i = 0; i < 2; i++)
        CHECK_INT(chela_durable_send(d, id, "answers", "{\"n\":42}", "once", &error), 0);
    CHECK_INT(chela_durable_read_stream(d, id, "out", 0, DEADLINE, &json, &error), 0);
    CHECK_STR(json, "{\"n\":42}");
    free(json);
    CHECK_STR(await_it(d, id), "SUCCESS {\"n\":42}");
    CHECK_INT(chela_durable_read_stream(d, id, "out", 1, DEADLINE, &json, &error), CHELA_END);
    CHECK_INT(chela_durable_send(d, "nobody", NULL, "1", NULL, &error), CHELA_E_NOT_FOUND);
    free(id);
    chela_durable_free(d);
}

static int family(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    const struct chela_start child = { .name = "flow", .args_json = "[1]" };
    char *id, *json, uuid[37];
    int64_t now;
    int r;

    if (strcmp(args, "[1]") == 0)
        return chela_return(w, "\"child\"", e);
    r = chela_now(w, &now, e);
    if (r == 0)
        r = chela_uuid(w, uuid, e);
    if (r == 0)
        r = chela_sleep(w, 0.01, e);
    if (r == 0)
        r = chela_child(w, &child, &id, e);
    if (r < 0)
        return r;
    r = chela_result_of(w, id, 0, &json, e);
    free(id);
    if (r < 0)
        return r;
    r = now > 0 && strlen(uuid) == 36 ? chela_return(w, json, e) : CHELA_E_FAILED;
    free(json);
    return r;
}

TEST(a_parent_has_its_child_s_result)
{
    CHECK_STR(outcome(family, NULL, NULL), "SUCCESS \"child\"");
}

/* --- a second process --- */

static int note(void *arg, struct chela_cancel *cancel, char **ret_json, struct chela_error *e)
{
    atomic_fetch_add(&bodies, 1);
    return 0;
}

static int in_two_lives(struct chela_workflow *w, const char *args, void *ctx,
                        struct chela_error *e)
{
    int r = chela_step(w, "first", NULL, note, NULL, NULL, e);

    if (r == 0)
        r = chela_set_event(w, "at", "1", e);
    if (r == 0)
        r = chela_recv(w, NULL, DEADLINE, NULL, e);
    return r < 0 ? r : chela_step(w, "second", NULL, note, NULL, NULL, e);
}

TEST(what_one_process_leaves_the_next_takes_up)
{
    char dir[] = "/tmp/chela-durable-XXXXXX", command[64], *id, *fork;
    struct chela_durable *d, *other;
    struct chela_durable_config config = { 0 };

    CHECK(mkdtemp(dir) != NULL);
    d = opened(dir, in_two_lives, NULL);
    id = started(d, NULL);
    CHECK_INT(chela_durable_get_event(d, id, "at", DEADLINE, NULL, &error), 0);
    config.state_dir = dir;
    CHECK_INT(chela_durable_new(&config, &other, &error), CHELA_E_CONFLICT);
    CHECK_INT(atomic_load(&bodies), 1);
    chela_durable_stop(d, 0);
    chela_durable_free(d);

    d = opened(dir, in_two_lives, NULL);
    CHECK_INT(chela_durable_send(d, id, NULL, "1", NULL, &error), 0);
    CHECK_STR(await_it(d, id), "SUCCESS null");
    CHECK_INT(atomic_load(&bodies), 1); /* the second step alone */
    CHECK_INT(chela_durable_resume(d, id, &error), CHELA_E_CONFLICT);
    CHECK_INT(chela_durable_fork(d, id, 100, &fork, &error), 0);
    CHECK_STR(await_it(d, fork), "SUCCESS null");
    CHECK_INT(atomic_load(&bodies), 1); /* nothing but records */
    free(fork);
    free(id);
    chela_durable_free(d);
    snprintf(command, sizeof(command), "%s/chela.db", dir);
    CHECK_INT(access(command, R_OK), 0);
    for (const char *const *name =
             (const char *const[]){ "chela.db", "chela.db-wal", "chela.db-shm", "chelad.lock",
                                    "instance", NULL };
         *name; name++) {
        snprintf(command, sizeof(command), "%s/%s", dir, *name);
        unlink(command);
    }
    CHECK_INT(rmdir(dir), 0);
}

static int on_time(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    return atomic_fetch_add(&bodies, 1) >= 0 ? chela_return(w, args, e) : CHELA_E_FAILED;
}

TEST(a_schedule_starts_it_every_second)
{
    const struct chela_schedule every_second = {
        .name = "tick",
        .workflow = "flow",
        .cron = "* * * * * *",
        .zone = "UTC",
        .context_json = "{\"k\":1}",
        .misfire = CHELA_MISFIRE_ONCE,
    };
    struct chela_schedule bad = every_second;
    struct chela_durable *d = opened(NULL, on_time, NULL);

    bad.cron = "61 * * * *";
    CHECK_INT(chela_durable_schedule(d, &bad, &error), CHELA_E_INVALID);
    CHECK_INT(chela_durable_schedule(d, &every_second, &error), 0);
    for (int i = 0; i < 3000 && atomic_load(&bodies) < 2; i++)
        usleep(10000);
    CHECK(atomic_load(&bodies) >= 2);
    CHECK_INT(chela_durable_unschedule(d, "tick", &error), 0);
    CHECK_INT(chela_durable_unschedule(d, "tick", &error), CHELA_E_NOT_FOUND);
    chela_durable_free(d);
}

/* What a program computes may be negative, and is then not "none". */
static int backwards(struct chela_workflow *w, const char *args, void *ctx, struct chela_error *e)
{
    const struct chela_start late = { .name = "flow", .id = "late", .timeout = -1 };

    if (strcmp(chela_workflow_named(w), "{}") != 0 || strcmp(chela_workflow_named(w), "{}") != 0)
        return chela_fail(w, "Named", "named arguments", NULL, e);
    if (chela_recv(w, NULL, -0.5, NULL, e) != CHELA_E_INVALID ||
        chela_get_event(w, "x", "k", -1, NULL, e) != CHELA_E_INVALID ||
        chela_result_of(w, "x", -1, NULL, e) != CHELA_E_INVALID ||
        chela_child(w, &late, NULL, e) != CHELA_E_INVALID)
        return chela_fail(w, "NotRefused", "a time that is negative", NULL, e);
    if (chela_sleep(w, -1, e) != 0) /* it is over already */
        return CHELA_E_FAILED;
    return chela_return(w, "\"told\"", e);
}

TEST(negative_times_are_mistakes)
{
    const struct chela_start delayed = { .name = "flow", .queue = "q", .delay = -1 },
                             timed = { .name = "flow", .timeout = strtod("nan", NULL) };
    struct chela_durable *d = opened(NULL, backwards, NULL);
    enum chela_workflow_status status;
    char *id;

    CHECK_INT(chela_durable_start(d, &delayed, NULL, &error), CHELA_E_INVALID);
    CHECK_STR(error.text, "a delay of -1 seconds");
    CHECK_INT(chela_durable_start(d, &timed, NULL, &error), CHELA_E_INVALID);
    id = started(d, NULL);
    CHECK_INT(chela_durable_await(d, id, -1, &status, NULL, &error), CHELA_E_INVALID);
    CHECK_INT(chela_durable_get_event(d, id, "k", -1, NULL, &error), CHELA_E_INVALID);
    CHECK_INT(chela_durable_read_stream(d, id, "k", 0, -1, NULL, &error), CHELA_E_INVALID);
    CHECK_STR(await_it(d, id), "SUCCESS \"told\"");
    free(id);
    chela_durable_free(d);
}

TEST(mistakes_are_told)
{
    const struct chela_workflow_type nameless = { .fn = family },
                                     twice = { .name = "flow", .fn = family };
    const struct chela_start unknown = { .name = "unknown" },
                             bad = { .name = "flow", .args_json = "{}" };
    const struct chela_durable_config nowhere = { .state_dir = "/nonexistent/place" };
    struct chela_durable *d = NULL;
    enum chela_workflow_status status;

    CHECK_INT(chela_durable_new(NULL, &d, &error), 0);
    CHECK_INT(chela_durable_register(d, &nameless, 1, &error), CHELA_E_INVALID);
    CHECK_INT(chela_durable_register(d, &twice, 1, &error), 0);
    CHECK_INT(chela_durable_register(d, &twice, 1, &error), CHELA_E_CONFLICT);
    CHECK_INT(chela_durable_run(d, &error), 0);
    CHECK_INT(chela_durable_run(d, &error), CHELA_E_CONFLICT);
    CHECK_INT(chela_durable_start(d, &unknown, NULL, &error), CHELA_E_INVALID);
    CHECK_INT(chela_durable_start(d, &bad, NULL, &error), CHELA_E_INVALID);
    CHECK_INT(chela_durable_await(d, "nobody", DEADLINE, &status, NULL, &error), CHELA_E_NOT_FOUND);
    chela_durable_free(d);
    chela_durable_free(NULL);
    CHECK(chela_durable_new(&nowhere, &d, &error) < 0);
}
