/* SPDX-License-Identifier: MIT */
/* libchela/retry_test.c — backoff, retry, timeout guard, classes, model chain, failover. */
#include <chela/bridge.h>
#include <chela/retry.h>
#include <stdlib.h>
#include <time.h>

#include "fake_agent.h"
#include "test.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

static double cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct chela_retry_config config(unsigned retries, double initial)
{
    struct chela_retry_config c = CHELA_RETRY_CONFIG_INIT;

    c.max_retries = retries;
    c.initial_delay_seconds = initial;
    c.jitter = false;
    return c;
}

/* Work that fails so many times before it succeeds. */
struct flaky {
    int failures, calls;
    const char *text;
};

static int flaky(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    struct flaky *f = arg;

    if (f->calls++ >= f->failures)
        return 0;
    snprintf(error->text, sizeof(error->text), "%s", f->text ? f->text : "Temporary error");
    return -1;
}

/* --- backoff --- */

TEST(delays_without_jitter_are_0_1_2_4_and_end_at_8)
{
    struct chela_retry_config c = config(3, 1);

    CHECK(chela_backoff_delay(0, &c) == 0);
    CHECK(chela_backoff_delay(1, &c) == 1);
    CHECK(chela_backoff_delay(2, &c) == 2);
    CHECK(chela_backoff_delay(3, &c) == 4);
    CHECK(chela_backoff_delay(10, &c) == 8);
    CHECK(chela_backoff_delay(1L << 40, &c) == 8);
    CHECK(chela_backoff_delay(-1, &c) == 0);
}

TEST(jittered_delays_differ_and_stay_near)
{
    double first = chela_backoff_delay(1, NULL);
    int same = 0;

    for (int i = 0; i < 20; i++) {
        double delay = chela_backoff_delay(1, NULL);

        CHECK(delay > 0.8 && delay < 1.2);
        same += delay == first;
    }
    CHECK(same < 20);
}

TEST(a_thousand_delays_take_less_than_100_ms)
{
    double began = cpu_seconds();

    for (int i = 0; i < 1000; i++)
        CHECK(chela_backoff_delay(i % 10, NULL) >= 0);
    CHECK(cpu_seconds() - began < 0.1);
}

/* --- retry --- */

TEST(work_that_succeeds_is_done_once)
{
    struct flaky f = { 0 };

    CHECK_INT(chela_retry(flaky, &f, NULL, NULL, NULL, NULL, NULL), 0);
    CHECK_INT(f.calls, 1);
}

TEST(work_that_fails_twice_is_done_three_times)
{
    struct chela_retry_config c = config(3, 0.001);
    struct flaky f = { .failures = 2 };

    CHECK_INT(chela_retry(flaky, &f, &c, NULL, NULL, NULL, NULL), 0);
    CHECK_INT(f.calls, 3);
}

TEST(work_that_always_fails_gives_its_own_error)
{
    struct chela_retry_config c = config(2, 0.001), before = c;
    struct flaky f = { .failures = 100, .text = "401 Unauthorized" };
    struct chela_error error;

    CHECK_INT(chela_retry(flaky, &f, &c, NULL, NULL, NULL, &error), CHELA_E_FAILED);
    CHECK_INT(f.calls, 3);
    CHECK_STR(error.text, "401 Unauthorized");
    CHECK_INT(error.type, CHELA_ERROR_AUTH);
    CHECK(memcmp(&c, &before, sizeof(c)) == 0);
}

struct noted {
    unsigned calls, attempt;
    double delay;
    enum chela_error_type type;
};

static void note(unsigned attempt, double delay, const struct chela_error *error, void *arg)
{
    struct noted *n = arg;

    *n = (struct noted){ n->calls + 1, attempt, delay, error->type };
}

TEST(the_callback_learns_of_attempt_delay_and_class)
{
    struct chela_retry_config c = config(3, 0.001);
    struct flaky f = { .failures = 1, .text = "Connection refused" };
    struct noted n = { 0 };

    CHECK_INT(chela_retry(flaky, &f, &c, note, &n, NULL, NULL), 0);
    CHECK_INT(n.calls, 1);
    CHECK_INT(n.attempt, 1);
    CHECK(n.delay == 0.001);
    CHECK_INT(n.type, CHELA_ERROR_NETWORK);
}

static void add_up(unsigned attempt, double delay, const struct chela_error *error, void *arg)
{
    double *waits = arg;

    if (attempt <= 3)
        waits[attempt - 1] = delay;
}

TEST(the_waits_are_1_2_4_times_the_initial_one)
{
    struct chela_retry_config c = config(3, 0.04);
    struct flaky f = { .failures = 100 };
    double began = seconds(), waits[3] = { 0 };

    CHECK_INT(chela_retry(flaky, &f, &c, add_up, waits, NULL, NULL), CHELA_E_FAILED);
    CHECK(seconds() - began >= 0.28);
    CHECK(waits[0] == 0.04 && waits[1] == 0.08 && waits[2] == 0.16);
}

TEST(on_a_thread_of_its_own_retry_works_alike)
{
    struct chela_retry_config c = config(2, 0.001);
    struct flaky once = { .failures = 1 }, never = { .failures = 100 }, good = { 0 };
    struct chela_task *t1, *t2, *t3;
    struct chela_error error;

    CHECK_INT(chela_retry_start(flaky, &good, &c, NULL, NULL, &t1, NULL), 0);
    CHECK_INT(chela_retry_start(flaky, &once, &c, NULL, NULL, &t2, NULL), 0);
    CHECK_INT(chela_retry_start(flaky, &never, &c, NULL, NULL, &t3, NULL), 0);
    CHECK_INT(chela_task_wait(t1, NULL), 0);
    CHECK_INT(chela_task_wait(t2, NULL), 0);
    CHECK_INT(chela_task_wait(t3, &error), CHELA_E_FAILED);
    CHECK_INT(good.calls, 1);
    CHECK_INT(once.calls, 2);
    CHECK_INT(never.calls, 3);
    CHECK_STR(error.text, "Temporary error");
}

TEST(a_cancelled_retry_does_not_wait_out_its_delay)
{
    struct chela_retry_config c = config(5, 60);
    struct flaky f = { .failures = 100 };
    struct chela_task *task;
    double began = seconds();

    c.max_delay_seconds = 60;
    CHECK_INT(chela_retry_start(flaky, &f, &c, NULL, NULL, &task, NULL), 0);
    chela_task_cancel(task);
    CHECK_INT(chela_task_wait(task, NULL), CHELA_E_CANCELED);
    CHECK(seconds() - began < 10);
}

/* --- timeout guard --- */

static int quick(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    *(int *)arg = 42;
    return 0;
}

static int sleepy(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    chela_cancel_sleep(cancel, 20);
    return 0;
}

static void count(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

TEST(quick_work_returns_its_value_within_the_limit)
{
    struct chela_guard guard = { .timeout_seconds = 5 };
    int value = 0;

    CHECK_INT(chela_with_timeout(quick, &value, &guard, NULL), 0);
    CHECK_INT(value, 42);
}

TEST(long_work_is_given_up_at_the_exact_limit_and_the_callback_runs)
{
    atomic_int timeouts = 0, releases = 0;
    struct chela_guard guard = {
        .timeout_seconds = 0.1, .on_timeout = count, .on_timeout_arg = &timeouts, .release = count
    };
    struct chela_error error;
    double began = seconds();

    CHECK_INT(chela_with_timeout(sleepy, &releases, &guard, &error), CHELA_E_TIMEOUT);
    CHECK(seconds() - began >= 0.1);
    CHECK_STR(error.text, "Function timed out after 0.1s");
    CHECK_INT(error.type, CHELA_ERROR_TIMEOUT);
    CHECK_INT(timeouts, 1);
    while (!atomic_load(&releases)) /* the work sees its flag and ends */
        chela_cancel_sleep(NULL, 0.001);
}

/* A busy machine may hold up one or the other, but not all of them. */
TEST(the_limit_is_not_rounded_up_to_a_second)
{
    struct chela_guard guard = { .timeout_seconds = 0.1, .release = count };
    atomic_int releases = 0;
    double took = 1;
    int tries = 0;

    while (took >= 0.9 && tries++ < 30) {
        double began = seconds();

        CHECK_INT(chela_with_timeout(sleepy, &releases, &guard, NULL), CHELA_E_TIMEOUT);
        took = seconds() - began;
    }
    CHECK(took < 0.9);
    while (atomic_load(&releases) < tries)
        chela_cancel_sleep(NULL, 0.001);
}

TEST(the_guard_works_on_any_thread)
{
    struct chela_retry_config c = config(0, 0.001);
    struct chela_task *task;
    int value = 0;

    CHECK_INT(chela_retry_start(quick, &value, &c, NULL, NULL, &task, NULL), 0);
    CHECK_INT(chela_task_wait(task, NULL), 0);
    CHECK_INT(value, 42);
}

static int guarded_flaky(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    struct chela_guard guard = { .timeout_seconds = 1 };

    return chela_with_timeout(flaky, arg, &guard, error);
}

TEST(a_guard_inside_a_retry_is_tried_again)
{
    struct chela_retry_config c = config(3, 0.001);
    struct flaky f = { .failures = 2 };

    CHECK_INT(chela_retry(guarded_flaky, &f, &c, NULL, NULL, NULL, NULL), 0);
    CHECK_INT(f.calls, 3);
}

/* --- classes --- */

TEST(errors_are_classified_by_text_class_and_status)
{
    static const struct {
        const char *text, *class_name;
        int status;
        enum chela_error_type want;
    } rows[] = {
        { "x", "TimeoutError", 0, CHELA_ERROR_TIMEOUT },
        { "Request timed out", NULL, 0, CHELA_ERROR_TIMEOUT },
        { "429 Too Many Requests", NULL, 0, CHELA_ERROR_RATE_LIMIT },
        { "rate limit exceeded", NULL, 0, CHELA_ERROR_RATE_LIMIT },
        { "Connection refused", NULL, 0, CHELA_ERROR_NETWORK },
        { "Connection reset by peer", NULL, 0, CHELA_ERROR_NETWORK },
        { "401 Unauthorized", NULL, 0, CHELA_ERROR_AUTH },
        { "403 Forbidden", NULL, 0, CHELA_ERROR_AUTH },
        { "Some random error", NULL, 0, CHELA_ERROR_UNKNOWN },
        { NULL, NULL, 0, CHELA_ERROR_UNKNOWN },
        { NULL, NULL, 503, CHELA_ERROR_INTERNAL },
        { "model not found", NULL, 404, CHELA_ERROR_MODEL },
    };

    for (size_t i = 0; i < N(rows); i++)
        CHECK_INT(chela_classify(rows[i].text, rows[i].class_name, rows[i].status), rows[i].want);
}

TEST(classes_have_the_names_of_the_wire)
{
    static const char *const names[] = { "timeout",     "rate_limit", "network", "auth",
                                         "model_error", "internal",   "unknown" };

    for (int i = 0; i < CHELA_ERROR_TYPES; i++) {
        CHECK_STR(chela_error_type_name((enum chela_error_type)i), names[i]);
        CHECK_INT(chela_error_type_from_name(names[i]), i);
    }
    CHECK(!chela_error_type_name(CHELA_ERROR_TYPES));
    CHECK_INT(chela_error_type_from_name("x"), CHELA_ERROR_TYPES);
}

TEST(five_thousand_classifications_take_less_than_200_ms)
{
    double began = cpu_seconds();

    for (int i = 0; i < 5000; i++)
        CHECK_INT(chela_classify("Connection refused", NULL, 0), CHELA_ERROR_NETWORK);
    CHECK(cpu_seconds() - began < 0.2);
}

/* --- model chain --- */

static int answers(void *client, const char *prompt, struct chela_cancel *cancel, char **ret,
                   struct chela_error *error)
{
    *ret = strdup(client ? client : prompt);
    return 0;
}

static int refuses(void *client, const char *prompt, struct chela_cancel *cancel, char **ret,
                   struct chela_error *error)
{
    snprintf(error->text, sizeof(error->text), "429 Too Many Requests");
    return -1;
}

TEST(the_chain_has_the_four_models_in_order)
{
    size_t n;
    const char *const *chain = chela_model_chain(&n);

    CHECK_INT(n, 4);
    CHECK_STR(chain[0], "deepseek-chat");
    CHECK_STR(chain[1], "deepseek-reasoner");
    CHECK_STR(chain[2], "claude-opus-4-6");
    CHECK_STR(chain[3], "claude-sonnet-4-20250514");
}

TEST(without_clients_there_is_an_error_report_at_once)
{
    double began = seconds();
    struct chela_codegen_result *r = chela_codegen(NULL, 0, "p", NULL);

    CHECK(!r->success);
    CHECK(strncmp(r->code, "ERROR:", 6) == 0);
    CHECK(strstr(r->code, "Model client not available: deepseek-chat"));
    CHECK_STR(r->model_used, "none");
    CHECK_INT(r->n_errors, 4);
    CHECK_INT(r->attempt_number, 4);
    CHECK_INT(r->total_attempts, 4);
    CHECK(seconds() - began < 1);
    chela_codegen_result_free(r);
}

TEST(the_first_model_that_answers_is_used)
{
    struct chela_model_client clients[] = { { "deepseek-chat", answers, NULL } };
    struct chela_codegen_result *r = chela_codegen(clients, 1, "print(1)", NULL);

    CHECK(r->success);
    CHECK_STR(r->code, "print(1)");
    CHECK_STR(r->model_used, "deepseek-chat");
    CHECK_INT(r->attempt_number, 1);
    CHECK_INT(r->n_errors, 0);
    chela_codegen_result_free(r);
}

TEST(a_failing_model_is_followed_by_the_next)
{
    char code[] = "from opus";
    struct chela_model_client clients[] = { { "deepseek-chat", refuses, NULL },
                                            { "claude-opus-4-6", answers, code } };
    struct chela_retry_config retry = config(2, 0.001);
    struct chela_codegen_config c = { .retry = &retry };
    struct chela_codegen_result *r = chela_codegen(clients, 2, "p", &c);

    CHECK(r->success);
    CHECK_STR(r->code, "from opus");
    CHECK_INT(r->attempt_number, 3);
    CHECK_INT(r->n_errors, 2);
    CHECK_STR(r->errors[0].model, "deepseek-chat");
    CHECK_INT(r->errors[0].type, CHELA_ERROR_RATE_LIMIT);
    CHECK_STR(r->errors[1].error, "Model client not available: deepseek-reasoner");
    chela_codegen_result_free(r);
}

TEST(a_result_is_written_with_its_seven_keys)
{
    struct chela_codegen_result r = {
        .success = true, .attempt_number = 1, .total_attempts = 4, .duration_ms = 12.346
    };
    char code[] = "x", model[] = "m", *json;

    r.code = code;
    r.model_used = model;
    json = chela_codegen_result_json(&r);
    CHECK_STR(json,
              "{\"code\":\"x\",\"model_used\":\"m\",\"attempt_number\":1,\"total_attempts\":4,"
              "\"errors_encountered\":0,\"duration_ms\":12.35,\"success\":true}");
    free(json);
}

/* --- failover --- */

static char *url_of(int port)
{
    char *url = NULL;

    if (asprintf(&url, "http://127.0.0.1:%d", port) < 0)
        abort();
    return url;
}

/* Fails on the endpoint that arg names. */
static int not_on(const char *endpoint, void *arg, struct chela_cancel *cancel, char **ret,
                  struct chela_error *error)
{
    if (arg && strcmp(endpoint, arg) == 0) {
        snprintf(error->text, sizeof(error->text), "Connection refused");
        return -1;
    }
    *ret = strdup(endpoint);
    return 0;
}

TEST(the_probe_wants_exactly_200)
{
    static const char *const script[] = { "200 {}", "204 ", "500 {}" };
    struct chela_failover_config c = { 0 };
    struct chela_failover *f;
    struct fake_agent agent;
    char *url;

    fake_start(&agent, script, N(script));
    url = url_of(agent.port);
    c.vps_endpoint = url;
    CHECK_INT(chela_failover_new(&c, &f, NULL), 0);
    CHECK(chela_failover_check(f));
    CHECK(strstr(agent.last_head, "GET /health HTTP/1.1"));
    CHECK(!chela_failover_check(f));
    CHECK(!chela_failover_check(f));
    chela_failover_free(f);
    fake_stop(&agent);
    free(url);
}

TEST(when_the_first_endpoint_fails_the_second_is_really_asked)
{
    struct chela_tracker *tracker = chela_tracker_new(0);
    char *vps = url_of(fake_closed_port()), *cf = url_of(fake_closed_port()), *answer = NULL;
    struct chela_failover_config c = { .vps_endpoint = vps,
                                       .cloudflare_endpoint = cf,
                                       .tracker = tracker };
    struct chela_health health;
    struct chela_failover *f;

    CHECK_INT(chela_failover_new(&c, &f, NULL), 0);
    CHECK_INT(chela_failover_run(f, not_on, NULL, "id", &answer, NULL), 0);
    CHECK_STR(answer, vps);
    free(answer);
    CHECK_INT(chela_failover_run(f, not_on, vps, "id", &answer, NULL), 0);
    CHECK_STR(answer, cf);
    free(answer);
    CHECK(chela_tracker_status(tracker, "id", &health));
    CHECK_INT(health.total_requests, 2);
    CHECK_INT(health.total_failures, 1); /* one failure per failed try */
    CHECK_INT(chela_failover_run(f, not_on, vps, "id", &answer, NULL), 0);
    CHECK_STR(answer, cf); /* known to be down: not asked again before the recheck */
    free(answer);
    CHECK(chela_tracker_status(tracker, "id", &health));
    CHECK_INT(health.total_requests, 2);
    chela_failover_free(f);
    chela_tracker_free(tracker);
    free(vps);
    free(cf);
}

static int nowhere(const char *endpoint, void *arg, struct chela_cancel *cancel, char **ret,
                   struct chela_error *error)
{
    snprintf(error->text, sizeof(error->text), "Connection refused");
    return -1;
}

TEST(when_both_endpoints_fail_the_error_says_so)
{
    struct chela_tracker *tracker = chela_tracker_new(0);
    struct chela_failover_config c = { .tracker = tracker };
    struct chela_failover *f;
    struct chela_error error;
    char *answer = NULL;

    CHECK_INT(chela_failover_new(&c, &f, NULL), 0);
    CHECK_INT(chela_failover_run(f, nowhere, NULL, NULL, &answer, &error), CHELA_E_FAILED);
    CHECK_STR(error.text, "Both VPS and Cloudflare unavailable for vps_agent");
    CHECK_INT(error.type, CHELA_ERROR_NETWORK);
    chela_failover_free(f);
    chela_tracker_free(tracker);
}

TEST(the_failover_status_tells_the_endpoints)
{
    struct chela_failover_config c = { .vps_endpoint = "http://a:1/", .no_fallback = true };
    struct chela_failover *f;
    char *json;

    CHECK_INT(chela_failover_new(&c, &f, NULL), 0);
    json = chela_failover_status_json(f);
    CHECK(strncmp(json, "{\"vps_healthy\":true,\"last_vps_check\":\"", 38) == 0);
    CHECK(strstr(json, "\"fallback_enabled\":false,\"vps_endpoint\":\"http://a:1\","
                       "\"cloudflare_endpoint\":\"http://localhost:18789\"}"));
    free(json);
    chela_failover_free(f);
}
