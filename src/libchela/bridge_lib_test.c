/* SPDX-License-Identifier: MIT */
/* libchela/bridge_lib_test.c — the bridge through its public header, against agents on loopback. */
#include <chela/bridge.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_agent.h"
#include "test.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

static const char *const says_ok[] = { "200 {\"content\":\"ok\"}" };
static const char *const fails[] = { "500 {}" };

/* In memory, with waits too short to notice. */
static struct chela_bridge *open_bridge(const char *dir)
{
    struct chela_bridge_config c = { .state_dir = dir,
                                     .backoff_initial = 0.001,
                                     .backoff_max = 0.002 };
    struct chela_bridge *b = NULL;
    struct chela_error e = { 0 };

    if (chela_bridge_new(&c, &b, &e) < 0)
        CHECK_FAIL("chela_bridge_new: %s", e.text);
    return b;
}

static void add_agent(struct chela_bridge *b, const char *name, int port,
                      const char *const *fallbacks)
{
    struct chela_agent_config a = { .name = name,
                                    .host = "127.0.0.1",
                                    .port = port,
                                    .max_retries = 1,
                                    .fallback_agents = fallbacks };
    struct chela_error e = { 0 };

    if (chela_bridge_register(b, &a, &e) < 0)
        CHECK_FAIL("register: %s", e.text);
}

static struct chela_result *call(struct chela_bridge *b, const char *agent, const char *session,
                                 const char *user)
{
    struct chela_call c = {
        .agent_name = agent, .prompt = "hi", .session_id = session, .user_id = user
    };
    struct chela_result *r = NULL;
    struct chela_error e = { 0 };

    if (chela_bridge_call(b, &c, &r, &e) < 0)
        CHECK_FAIL("call: %s", e.text);
    return r;
}

/* --- agents as structs --- */

TEST(an_agent_s_url_has_protocol_host_port_and_endpoint)
{
    static const struct {
        struct chela_agent_config agent;
        const char *endpoint, *want;
    } rows[] = {
        { { .host = "192.168.1.100", .port = 5000 },
          "/v1/messages",
          "http://192.168.1.100:5000/v1/messages" },
        { { .host = "h", .port = 443, .protocol = "https" }, NULL, "https://h:443" },
        { { .host = "::1", .port = 1 }, "", "http://[::1]:1" },
        { { .host = "[::1]", .port = 1 }, "", "http://[::1]:1" },
    };
    struct chela_agent_config grpc = { .host = "h", .port = 1, .protocol = "grpc" };

    for (size_t i = 0; i < N(rows); i++) {
        char *url = chela_agent_url(&rows[i].agent, rows[i].endpoint);

        CHECK_STR(url, rows[i].want);
        free(url);
    }
    CHECK(!chela_agent_url(&grpc, ""));
}

TEST(an_agent_s_headers_have_the_token_when_there_is_one)
{
    struct chela_agent_config with = { .auth_token = "t" }, without = { 0 };
    char *text = chela_agent_headers(&with);

    CHECK_STR(text, "Content-Type: application/json\nAuthorization: Bearer t\n");
    free(text);
    text = chela_agent_headers(&without);
    CHECK_STR(text, "Content-Type: application/json\n");
    free(text);
}

/* --- sessions and results as structs --- */

TEST(a_new_session_has_no_messages_and_then_keeps_their_order)
{
    struct chela_session *s = chela_session_new("s", "u");
    int64_t before = s->last_activity_us;

    CHECK_INT(s->n_messages, 0);
    chela_session_add_message(s, "user", "Hello", NULL);
    CHECK(s->last_activity_us > before);
    chela_session_add_message(s, "assistant", "Hi there", "pm-agent");
    CHECK_INT(s->n_messages, 2);
    CHECK_STR(s->messages[0].role, "user");
    CHECK_STR(s->messages[0].agent, "");
    CHECK_STR(s->messages[1].content, "Hi there");
    CHECK_STR(s->messages[1].agent, "pm-agent");
    chela_session_free(s);
}

TEST(a_session_is_written_with_its_six_keys)
{
    struct chela_session *s = chela_session_new("s", "u");
    char *json;

    s->created_us = s->last_activity_us = 1500000;
    json = chela_session_json(s);
    CHECK_STR(
        json,
        "{\"session_id\":\"s\",\"user_id\":\"u\",\"created_at\":\"1970-01-01T00:00:01.500000\","
        "\"last_activity\":\"1970-01-01T00:00:01.500000\",\"messages\":[],\"metadata\":{}}");
    free(json);
    chela_session_free(s);
}

TEST(a_result_is_written_with_its_nine_keys)
{
    char agent[] = "a", text[] = "hi", *chain[] = { agent };
    struct chela_result good = { .success = true,
                                 .agent_name = agent,
                                 .response = text,
                                 .error_type = CHELA_ERROR_TYPES,
                                 .fallback_chain = chain,
                                 .n_chain = 1,
                                 .latency_ms = 123.45 };
    struct chela_result bad = { .agent_name = agent,
                                .error = text,
                                .error_type = CHELA_ERROR_TIMEOUT,
                                .retried = true,
                                .retry_count = 1 };
    char *json = chela_result_json(&good);

    CHECK_STR(json, "{\"success\":true,\"agent_name\":\"a\",\"response\":\"hi\",\"error\":null,"
                    "\"error_type\":null,\"fallback_chain\":[\"a\"],\"latency_ms\":123.45,"
                    "\"retried\":false,\"retry_count\":0}");
    free(json);
    json = chela_result_json(&bad);
    CHECK_STR(json, "{\"success\":false,\"agent_name\":\"a\",\"response\":null,\"error\":\"hi\","
                    "\"error_type\":\"timeout\",\"fallback_chain\":[],\"latency_ms\":0.0,"
                    "\"retried\":true,\"retry_count\":1}");
    free(json);
}

/* --- the registry --- */

TEST(a_bridge_is_empty_at_the_start)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_agent_config *a;
    struct chela_session *s;

    CHECK_INT(chela_bridge_agent_count(b), 0);
    CHECK_INT(chela_bridge_session_count(b), 0);
    CHECK_INT(chela_bridge_agent(b, "x", &a, NULL), CHELA_E_NOT_FOUND);
    CHECK_INT(chela_bridge_session(b, "x", &s, NULL), CHELA_E_NOT_FOUND);
    chela_bridge_free(b);
}

TEST(a_registered_agent_is_found_with_its_fallbacks_in_order)
{
    static const char *const fallbacks[] = { "second", "third", NULL };
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_agent_config *a;

    add_agent(b, "first", 1, fallbacks);
    add_agent(b, "second", 2, NULL);
    add_agent(b, "third", 3, NULL);
    CHECK_INT(chela_bridge_agent_count(b), 3);
    CHECK_INT(chela_bridge_agent(b, "first", &a, NULL), 0);
    CHECK_STR(a->name, "first");
    CHECK_STR(a->host, "127.0.0.1");
    CHECK_STR(a->protocol, "http");
    CHECK_INT(a->port, 1);
    CHECK_INT(a->timeout_seconds, 30);
    CHECK_INT(a->max_retries, 1);
    CHECK_STR(a->fallback_agents[0], "second");
    CHECK_STR(a->fallback_agents[1], "third");
    CHECK(!a->fallback_agents[2]);
    chela_agent_config_free(a);
    CHECK_INT(chela_bridge_unregister(b, "third", NULL), 0);
    CHECK_INT(chela_bridge_unregister(b, "third", NULL), CHELA_E_NOT_FOUND);
    CHECK_INT(chela_bridge_agent_count(b), 2);
    chela_bridge_free(b);
}

TEST(a_malformed_agent_is_refused_with_a_reason)
{
    static const struct chela_agent_config bad[] = {
        { .name = "", .host = "h", .port = 1 },
        { .name = "a", .host = "h/x", .port = 1 },
        { .name = "a", .host = "h", .port = 0 },
        { .name = "a", .host = "h", .port = 1, .protocol = "grpc" },
        { .name = "a", .host = "h", .port = 1, .api = "soap" },
        { .name = "a", .host = "h", .port = 1, .max_retries = -1 },
        { .name = "a", .host = "h", .port = 1, .timeout_seconds = 4000 },
        { .name = "a", .host = "h", .port = 1, .auth_token = "x\r\ny" },
    };
    struct chela_bridge *b = open_bridge(NULL);

    for (size_t i = 0; i < N(bad); i++) {
        struct chela_error e = { 0 };

        CHECK_INT(chela_bridge_register(b, &bad[i], &e), CHELA_E_INVALID);
        CHECK(e.text[0]);
    }
    CHECK_INT(chela_bridge_agent_count(b), 0);
    chela_bridge_free(b);
}

/* --- calls --- */

TEST(a_call_sends_the_documented_request_and_gives_the_answer)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct fake_agent agent;
    struct chela_result *r;

    fake_start(&agent, says_ok, N(says_ok));
    add_agent(b, "a", agent.port, NULL);
    r = call(b, "a", NULL, NULL);
    CHECK(r->success);
    CHECK_STR(r->response, "ok");
    CHECK_STR(r->agent_name, "a");
    CHECK(!r->error);
    CHECK_INT(r->n_chain, 1);
    CHECK(r->latency_ms > 0);
    CHECK_STR(agent.last_body,
              "{\"model\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    chela_result_free(r);
    chela_bridge_free(b);
    fake_stop(&agent);
}

TEST(a_call_to_an_unknown_agent_says_not_registered)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_result *r = call(b, "nobody", "s", "u");

    CHECK(!r->success);
    CHECK_STR(r->error, "Agent 'nobody' not registered");
    CHECK_INT(r->n_chain, 0);
    CHECK_INT(chela_bridge_session_count(b), 0);
    chela_result_free(r);
    chela_bridge_free(b);
}

TEST(a_call_that_fails_still_leaves_the_session_with_its_user)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_session *s;
    struct chela_result *r;

    add_agent(b, "a", fake_closed_port(), NULL);
    r = call(b, "a", "session-1", "user-1");
    CHECK(!r->success);
    CHECK_INT(r->error_type, CHELA_ERROR_NETWORK);
    CHECK(strncmp(r->error, "All agents failed. Last error: ", 31) == 0);
    chela_result_free(r);
    CHECK_INT(chela_bridge_session(b, "session-1", &s, NULL), 0);
    CHECK_STR(s->user_id, "user-1");
    CHECK_INT(s->n_messages, 1);
    CHECK(!s->messages[0].interrupted);
    chela_session_free(s);
    chela_bridge_free(b);
}

TEST(a_fallback_answers_for_a_failing_agent)
{
    static const char *const fallbacks[] = { "good", NULL };
    struct chela_bridge *b = open_bridge(NULL);
    struct fake_agent bad, good;
    struct chela_result *r;

    fake_start(&bad, fails, N(fails));
    fake_start(&good, says_ok, N(says_ok));
    add_agent(b, "bad", bad.port, fallbacks);
    add_agent(b, "good", good.port, NULL);
    r = call(b, "bad", NULL, NULL);
    CHECK(r->success && r->retried);
    CHECK_STR(r->agent_name, "good");
    CHECK_INT(r->retry_count, 1);
    chela_result_free(r);
    chela_bridge_free(b);
    fake_stop(&bad);
    fake_stop(&good);
}

TEST(a_failed_attempt_is_tried_again)
{
    static const char *const script[] = { "503 {}", "200 {\"content\":\"second\"}" };
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_agent_config a = { .name = "a", .host = "127.0.0.1", .max_retries = 3 };
    struct fake_agent agent;
    struct chela_result *r;

    fake_start(&agent, script, N(script));
    a.port = agent.port;
    CHECK_INT(chela_bridge_register(b, &a, NULL), 0);
    r = call(b, "a", NULL, NULL);
    CHECK_STR(r->response, "second");
    CHECK(!r->retried);
    CHECK_INT(agent.requests, 2);
    chela_result_free(r);
    chela_bridge_free(b);
    fake_stop(&agent);
}

struct waiting {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done, success;
    char text[240];
};

static void wake(struct chela_result *result, const struct chela_error *error, void *arg)
{
    struct waiting *w = arg;

    pthread_mutex_lock(&w->mutex);
    w->done = true;
    w->success = result && result->success;
    snprintf(w->text, sizeof(w->text), "%s", result ? result->response : error->text);
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    chela_result_free(result);
}

static void wait_for(struct waiting *w)
{
    pthread_mutex_lock(&w->mutex);
    while (!w->done)
        pthread_cond_wait(&w->changed, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}

TEST(a_submitted_call_tells_its_result_later)
{
    struct waiting w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, "" };
    struct chela_call c = { .agent_name = "a", .prompt = "hi", .session_id = "s" };
    struct chela_bridge *b = open_bridge(NULL);
    struct fake_agent agent;

    fake_start(&agent, says_ok, N(says_ok));
    add_agent(b, "a", agent.port, NULL);
    CHECK_INT(chela_bridge_submit(b, &c, wake, &w, NULL, NULL), 0);
    wait_for(&w);
    CHECK(w.success);
    CHECK_STR(w.text, "ok");
    chela_bridge_free(b);
    fake_stop(&agent);
}

TEST(a_submitted_call_can_be_cancelled_and_its_turn_reads_as_interrupted)
{
    static const char *const hangs[] = { "hang" };
    struct waiting w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, "" };
    struct chela_call c = { .agent_name = "a", .prompt = "hi", .session_id = "s" };
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_session *s;
    struct fake_agent agent;
    uint64_t number;

    fake_start(&agent, hangs, N(hangs));
    add_agent(b, "a", agent.port, NULL);
    CHECK_INT(chela_bridge_submit(b, &c, wake, &w, &number, NULL), 0);
    while (!atomic_load(&agent.requests))
        chela_cancel_sleep(NULL, 0.001);
    chela_bridge_cancel(b, number);
    wait_for(&w);
    CHECK(!w.success);
    CHECK_STR(w.text, "canceled");
    CHECK_INT(chela_bridge_session(b, "s", &s, NULL), 0);
    CHECK_INT(s->n_messages, 1);
    CHECK(s->messages[0].interrupted);
    chela_session_free(s);
    chela_bridge_free(b);
    fake_stop(&agent);
}

TEST(freeing_a_bridge_ends_the_calls_that_are_under_way)
{
    static const char *const hangs[] = { "hang" };
    struct waiting w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, "" };
    struct chela_call c = { .agent_name = "a", .prompt = "hi" };
    struct chela_bridge *b = open_bridge(NULL);
    struct fake_agent agent;

    fake_start(&agent, hangs, N(hangs));
    add_agent(b, "a", agent.port, NULL);
    CHECK_INT(chela_bridge_submit(b, &c, wake, &w, NULL, NULL), 0);
    while (!atomic_load(&agent.requests))
        chela_cancel_sleep(NULL, 0.001);
    chela_bridge_free(b);
    CHECK(w.done && !w.success);
    fake_stop(&agent);
}

static void join(const char *agent_name, const char *text, size_t n, void *arg)
{
    strncat(arg, text, n);
}

TEST(a_streamed_call_passes_the_answer_on)
{
    char text[64] = "";
    struct chela_call c = {
        .agent_name = "a", .prompt = "hi", .on_delta = join, .on_delta_arg = text
    };
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_result *r;
    struct fake_agent agent;

    fake_start(&agent, says_ok, N(says_ok));
    add_agent(b, "a", agent.port, NULL);
    CHECK_INT(chela_bridge_call(b, &c, &r, NULL), 0);
    CHECK(r->success);
    CHECK_STR(text, "ok");
    CHECK(strstr(agent.last_body, "\"stream\":true"));
    chela_result_free(r);
    chela_bridge_free(b);
    fake_stop(&agent);
}

/* --- sessions of a bridge --- */

TEST(registering_an_existing_session_returns_it_with_its_messages)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_session *s;

    CHECK_INT(chela_bridge_session_register(b, "s", "ada", &s, NULL), 0);
    CHECK_STR(s->user_id, "ada");
    CHECK_INT(s->n_messages, 0);
    chela_session_free(s);
    CHECK_INT(chela_bridge_session_add_message(b, "s", "user", "Hello", NULL, NULL), 0);
    CHECK_INT(chela_bridge_session_register(b, "s", "eve", &s, NULL), 0);
    CHECK_STR(s->user_id, "ada");
    CHECK_INT(s->n_messages, 1);
    CHECK_STR(s->messages[0].content, "Hello");
    CHECK(!s->messages[0].interrupted);
    chela_session_free(s);
    CHECK_INT(chela_bridge_session_count(b), 1);
    CHECK_INT(chela_bridge_session_delete(b, "s", NULL), 0);
    CHECK_INT(chela_bridge_session_count(b), 0);
    CHECK_INT(chela_bridge_session_add_message(b, "s", "user", "x", NULL, NULL), CHELA_E_NOT_FOUND);
    chela_bridge_free(b);
}

TEST(a_call_records_question_and_answer_and_another_user_is_refused)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_call c = {
        .agent_name = "a", .prompt = "mine", .session_id = "s", .user_id = "eve"
    };
    struct chela_error e;
    struct chela_session *s;
    struct chela_result *r;
    struct fake_agent agent;

    fake_start(&agent, says_ok, N(says_ok));
    add_agent(b, "a", agent.port, NULL);
    chela_result_free(call(b, "a", "s", "ada"));
    CHECK_INT(chela_bridge_call(b, &c, &r, &e), CHELA_E_FORBIDDEN);
    CHECK_STR(e.text, "Session 's' belongs to another user");
    CHECK_INT(chela_bridge_session(b, "s", &s, NULL), 0);
    CHECK_INT(s->n_messages, 2);
    CHECK_STR(s->messages[1].content, "ok");
    CHECK_STR(s->messages[1].agent, "a");
    chela_session_free(s);
    chela_bridge_free(b);
    fake_stop(&agent);
}

/* A file of the original with one session of that day and user. */
static void write_file(const char *path, const char *id, const char *stamp)
{
    FILE *f = fopen(path, "w");

    CHECK(f);
    fprintf(f,
            "{\"sessions\":{\"%s\":{\"session_id\":\"%s\",\"user_id\":\"u\",\"created_at\":\"%s\","
            "\"last_activity\":\"%s\",\"messages\":[{\"timestamp\":\"%s\",\"role\":\"user\","
            "\"content\":\"c\",\"agent\":\"\"}],\"metadata\":{\"k\":1}}}}",
            id, id, stamp, stamp, stamp);
    fclose(f);
}

static char *temporary_dir(void)
{
    static char path[64];

    snprintf(path, sizeof(path), "/tmp/chela-test-XXXXXX");
    CHECK(mkdtemp(path));
    return path;
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = { "chela.db",    "chela.db-wal", "chela.db-shm",
                                         "chelad.lock", "master.key",   "old.json",
                                         "out.json" };
    char path[128];

    for (size_t i = 0; i < N(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    CHECK_INT(rmdir(dir), 0);
}

TEST(cleanup_removes_only_what_is_old)
{
    struct chela_bridge *b = open_bridge(NULL);
    char *dir = temporary_dir(), path[128];
    struct chela_session *s;
    long long n = -1;

    snprintf(path, sizeof(path), "%s/old.json", dir);
    write_file(path, "old", "2026-01-01T00:00:00");
    CHECK_INT(chela_bridge_import(b, path, &n, NULL), 0);
    CHECK_INT(n, 1);
    CHECK_INT(chela_bridge_session_register(b, "new", "u", &s, NULL), 0);
    chela_session_free(s);
    CHECK_INT(chela_bridge_cleanup(b, 24, &n, NULL), 0);
    CHECK_INT(n, 1);
    CHECK_INT(chela_bridge_session(b, "old", &s, NULL), CHELA_E_NOT_FOUND);
    CHECK_INT(chela_bridge_session_count(b), 1);
    CHECK_INT(chela_bridge_cleanup(b, -1, &n, NULL), CHELA_E_INVALID);
    CHECK_INT(chela_bridge_cleanup(b, 0, &n, NULL), 0);
    CHECK_INT(chela_bridge_session_count(b), 0);
    chela_bridge_free(b);
    remove_dir(dir);
}

TEST(an_export_is_private_and_a_fresh_bridge_restores_it)
{
    struct chela_bridge *from = open_bridge(NULL), *to = open_bridge(NULL);
    char *dir = temporary_dir(), path[128];
    struct chela_session *s;
    struct stat st;
    long long n = 0;

    snprintf(path, sizeof(path), "%s/out.json", dir);
    for (int i = 0; i < 2; i++) {
        char id[] = { 's', (char)('0' + i), '\0' };

        CHECK_INT(chela_bridge_session_register(from, id, "ada", &s, NULL), 0);
        chela_session_free(s);
        CHECK_INT(chela_bridge_session_add_message(from, id, "user", "żółw 🦞", "", NULL), 0);
    }
    CHECK_INT(chela_bridge_export(from, path, &n, NULL), 0);
    CHECK_INT(n, 2);
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0600);
    CHECK_INT(chela_bridge_import(to, path, &n, NULL), 0);
    CHECK_INT(n, 2);
    CHECK_INT(chela_bridge_session(to, "s1", &s, NULL), 0);
    CHECK_STR(s->user_id, "ada");
    CHECK_STR(s->messages[0].content, "żółw 🦞");
    chela_session_free(s);
    CHECK_INT(chela_bridge_import(to, "/nonexistent", &n, NULL), CHELA_E_NOT_FOUND);
    chela_bridge_free(from);
    chela_bridge_free(to);
    remove_dir(dir);
}

TEST(a_state_directory_keeps_agents_and_sessions_and_has_one_user)
{
    struct chela_bridge_config c = { 0 };
    struct chela_agent_config a = { .name = "a", .host = "h", .port = 1, .auth_token = "secret" };
    struct chela_agent_config *copy;
    struct chela_bridge *b, *second;
    struct chela_session *s;
    char *dir = temporary_dir();

    c.state_dir = dir;
    b = open_bridge(dir);
    CHECK_INT(chela_bridge_new(&c, &second, NULL), CHELA_E_CONFLICT);
    CHECK_INT(chela_bridge_register(b, &a, NULL), 0);
    CHECK_INT(chela_bridge_session_register(b, "s", "ada", &s, NULL), 0);
    chela_session_free(s);
    chela_bridge_free(b);
    b = open_bridge(dir);
    CHECK_INT(chela_bridge_agent(b, "a", &copy, NULL), 0);
    CHECK_STR(copy->auth_token, "secret");
    chela_agent_config_free(copy);
    CHECK_INT(chela_bridge_session_count(b), 1);
    chela_bridge_free(b);
    remove_dir(dir);
}

/* --- health --- */

TEST(health_after_one_success_is_healthy_with_one_request)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_health h;
    struct fake_agent agent;

    fake_start(&agent, says_ok, N(says_ok));
    add_agent(b, "a", agent.port, NULL);
    chela_result_free(call(b, "a", NULL, NULL));
    CHECK_INT(chela_bridge_health(b, "a", &h, NULL), 0);
    CHECK_INT(h.status, CHELA_HEALTHY);
    CHECK_INT(h.total_requests, 1);
    CHECK(h.avg_response_time_ms > 0);
    CHECK_INT(chela_bridge_health(b, "x", &h, NULL), CHELA_E_NOT_FOUND);
    chela_bridge_free(b);
    fake_stop(&agent);
}

TEST(health_recovers_by_successes_or_by_hand)
{
    static const char *const script[] = { "500 {}", "200 {\"content\":\"ok\"}" };
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_health h;
    struct fake_agent agent;

    fake_start(&agent, script, N(script));
    add_agent(b, "a", agent.port, NULL);
    for (int i = 0; i < 2; i++)
        chela_result_free(call(b, "a", NULL, NULL));
    CHECK_INT(chela_bridge_health(b, "a", &h, NULL), 0);
    CHECK_INT(h.status, CHELA_DEGRADED);
    CHECK_INT(chela_bridge_health_reset(b, "a", NULL), 0);
    CHECK_INT(chela_bridge_health(b, "a", &h, NULL), 0);
    CHECK_INT(h.status, CHELA_HEALTHY);
    CHECK_INT(h.total_requests, 0);
    chela_bridge_free(b);
    fake_stop(&agent);
}

TEST(the_summary_of_three_new_agents_is_all_healthy)
{
    struct chela_bridge *b = open_bridge(NULL);
    struct chela_health_summary s;
    char *json;

    add_agent(b, "a", 1, NULL);
    add_agent(b, "b", 2, NULL);
    add_agent(b, "c", 3, NULL);
    CHECK_INT(chela_bridge_health_summary(b, &s, NULL), 0);
    CHECK_INT(s.total_agents, 3);
    CHECK_INT(s.healthy_agents, 3);
    CHECK(s.error_rate == 0);
    CHECK_STR(s.status, "operational");
    json = chela_bridge_error_summary_json(b);
    CHECK(strstr(json, "\"agent_statuses\":{\"a\":{"));
    free(json);
    chela_bridge_free(b);
}

/* --- the default bridge --- */

TEST(the_default_bridge_exists_once_and_takes_agents)
{
    static const struct chela_agent_config agents[] = {
        { .name = "one", .host = "127.0.0.1", .port = 1 },
        { .name = "two", .host = "127.0.0.1", .port = 2 },
    };
    struct chela_bridge *b = chela_default_bridge();

    CHECK(b);
    CHECK(b == chela_default_bridge());
    CHECK_INT(chela_setup_default_bridge(agents, 2, NULL), 0);
    CHECK_INT(chela_bridge_agent_count(b), 2);
}
