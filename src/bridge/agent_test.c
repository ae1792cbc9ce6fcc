/* SPDX-License-Identifier: MIT */
/* bridge/agent_test.c — what a registration may be, and the registry's order. */
#include "bridge/agent.h"

#include "test.h"

static const struct agent_spec good = {
    .name = { "a", 1 },
    .host = { "127.0.0.1", 9 },
    .protocol = { "http", 4 },
    .port = 5000,
    .timeout_ms = 30000,
    .max_retries = 3,
};

static struct agent *make(const struct agent_spec *spec)
{
    struct agent_problem problem;
    struct agent *a = NULL;
    struct err e;

    if (agent_new(spec, &a, &problem, &e) < 0)
        CHECK_FAIL("agent_new: %s", e.msg);
    return a;
}

TEST(urls_have_the_port_always_and_brackets_around_ipv6)
{
    static const struct {
        const char *host, *protocol, *url;
        long long port;
        enum agent_api api;
        const char *call_url;
    } rows[] = {
        { "127.0.0.1", "http", "http://127.0.0.1:80", 80, API_MESSAGES,
          "http://127.0.0.1:80/v1/messages" },
        { "::1", "https", "https://[::1]:1", 1, API_OPENAI, "https://[::1]:1/v1/chat/completions" },
        { "[::1]", "http", "http://[::1]:1", 1, API_RESPONSES, "http://[::1]:1/v1/responses" },
        { "a.example", "https", "https://a.example:443", 443, API_MESSAGES,
          "https://a.example:443/v1/messages" },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        struct agent_spec spec = good;
        struct agent *a;

        spec.host = str_of(rows[i].host);
        spec.protocol = str_of(rows[i].protocol);
        spec.port = rows[i].port;
        spec.api = rows[i].api;
        a = make(&spec);
        CHECK_STR(a->url, rows[i].url);
        CHECK_STR(a->call_url, rows[i].call_url);
        agent_unref(a);
    }
}

TEST(the_token_becomes_a_bearer_header)
{
    struct agent_spec spec = good;
    struct agent *a = make(&spec);

    CHECK_STR(a->headers[0], "Content-Type: application/json");
    CHECK(!a->headers[1] && !a->token);
    agent_unref(a);
    spec.auth_token = STR("t");
    a = make(&spec);
    CHECK_STR(a->headers[1], "Authorization: Bearer t");
    CHECK(!a->headers[2]);
    agent_unref(a);
}

TEST(what_is_out_of_bounds_is_refused_with_the_field_s_name)
{
    struct agent_spec bad[12];
    static const char *const fields[] = { "name",
                                          "host",
                                          "host",
                                          "port",
                                          "port",
                                          "protocol",
                                          "auth_token",
                                          "timeout_seconds",
                                          "timeout_seconds",
                                          "max_retries",
                                          "max_retries",
                                          "fallback_agents" };

    for (size_t i = 0; i < LEN(bad); i++)
        bad[i] = good;
    bad[0].name = STR("");
    bad[1].host = STR("h/x?");
    bad[2].host = STR("");
    bad[3].port = 0;
    bad[4].port = 65536;
    bad[5].protocol = STR("grpc");
    bad[6].auth_token = STR("x\r\nEvil: 1");
    bad[7].timeout_ms = 0;
    bad[8].timeout_ms = 3600001;
    bad[9].max_retries = 0;
    bad[10].max_retries = 11;
    bad[11].n_fallbacks = AGENT_FALLBACKS_MAX + 1;
    for (size_t i = 0; i < LEN(bad); i++) {
        struct agent_problem problem = { 0 };
        struct agent *a = NULL;
        struct err e;

        CHECK_INT(agent_new(&bad[i], &a, &problem, &e), -ERR_INVALID);
        CHECK_STR(problem.field, fields[i]);
        CHECK(problem.text[0] && !a);
    }
}

TEST(the_registry_keeps_the_order_and_the_health_when_an_agent_is_replaced)
{
    struct agents all = { 0 };
    struct tracker tracker = { 0 };
    struct agent_spec spec = good;
    struct agent_entry *a, *b;

    a = agents_put(&all, make(&spec), 1, &tracker);
    spec.name = STR("b");
    b = agents_put(&all, make(&spec), 2, &tracker);
    tracker_failure(&tracker, a->tracked, ERROR_AUTH, STR("x"), 1, 0);
    spec.name = STR("a");
    spec.port = 6000;
    CHECK(agents_put(&all, make(&spec), 1, &tracker) == a);
    CHECK_INT(a->agent->port, 6000);
    CHECK_INT(a->tracked->health.failures, 1);
    CHECK(all.first == a && a->next == b && all.last == b);
    CHECK_INT(all.last_position, 2);
    agents_remove(&all, a, &tracker);
    CHECK(!agents_find(&all, STR("a")) && !tracker_find(&tracker, STR("a")));
    CHECK(all.first == b && !b->prev);
    agents_done(&all);
    tracker_done(&tracker);
}

TEST(a_registration_outlives_its_replacement_while_it_is_held)
{
    struct agents all = { 0 };
    struct tracker tracker = { 0 };
    struct agent_spec spec = good;
    struct agent *held;

    held = agent_ref(agents_put(&all, make(&spec), 1, &tracker)->agent);
    spec.port = 6000;
    agents_put(&all, make(&spec), 1, &tracker);
    CHECK_INT(held->port, 5000);
    CHECK(!agent_equal(held, agents_find(&all, STR("a"))->agent));
    agent_unref(held);
    agents_done(&all);
    tracker_done(&tracker);
}
