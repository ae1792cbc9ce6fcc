/* SPDX-License-Identifier: MIT */
/* Whole answers: http_fetch() against the scripted server. */
#include "net/http_client.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fiber.h"
#include "base/str.h"
#include "net/http_client_int.h"
#include "net/http_client_rig.h"
#include "net/stream.h"
#include "test.h"

CO static int answers(struct http_client *c, struct arena *a, struct err *e)
{
    static const char *const headers[] = { "X-One: 1", "Content-Type: application/json", NULL };
    struct http_call call = rig_post(a, "/echo", "{\"a\":1}");
    struct http_answer answer;

    call.headers = headers;
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 200 && answer.fail == HTTP_FAIL_NONE);
    CO_CHECK(str_eq_z(answer.body, "{\"a\":1}") && answer.body.p[answer.body.n] == '\0');
    CO_CHECK(str_eq_z(http_answer_header(&answer, "content-type"), "text/plain"));
    CO_CHECK(str_eq_z(http_answer_header(&answer, "X-TWO"), "spaced"));
    CO_CHECK(!http_answer_header(&answer, "X-Three").p);
    CO_CHECK(strstr(rig.last_head, "POST /echo HTTP/1.1\r\n") == rig.last_head);
    CO_CHECK(strstr(rig.last_head, "X-One: 1\r\n"));
    CO_CHECK(strstr(rig.last_head, "Content-Type: application/json\r\n"));
    CO_CHECK(strstr(rig.last_head, "User-Agent: chela/"));
    CO_CHECK(strstr(rig.last_head, "Content-Length: 7\r\n"));
    CO_CHECK(!strstr(rig.last_head, "Expect"));
    return 0;
}

TEST(a_call_gets_its_answer)
{
    CHECK_INT(rig_run(answers), 0);
}

CO static int bad_headers(struct http_client *c, struct arena *a, struct err *e)
{
    static const char *const bad[][2] = { { "Authorization: Bearer x\r\nX-Evil: 1" },
                                          { "X: y\n" },
                                          { "no colon" } };
    struct http_call call = rig_post(a, "/echo", "x");
    struct http_answer answer;

    for (size_t i = 0; i < LEN(bad); i++) {
        call.headers = bad[i];
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_INVALID);
        CO_CHECK(answer.fail == HTTP_FAIL_PROTOCOL && !strstr(e->msg, "Bearer"));
    }
    CO_CHECK(rig.connections == 0);
    return 0;
}

TEST(a_header_cannot_become_two)
{
    CHECK_INT(rig_run(bad_headers), 0);
}

CO static int reuses(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;

    for (int i = 0; i < 20; i++) {
        struct http_call call = i % 3 ? rig_post(a, "/echo", "x") : rig_get(a, "/chunks");

        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
        CO_CHECK(str_eq_z(answer.body, i % 3 ? "x" : "Hello, world"));
    }
    CO_CHECK(rig.connections == 1 && rig.requests == 20);
    return 0;
}

TEST(connections_are_kept_and_used_again)
{
    CHECK_INT(rig_run(reuses), 0);
}

CO static int methods(struct http_client *c, struct arena *a, struct err *e)
{
    static const struct {
        enum http_method method;
        const char *name, *body;
        const char *line;
    } cases[] = {
        { HTTP_M_GET, "GET", "", NULL },        { HTTP_M_HEAD, "HEAD", "", NULL },
        { HTTP_M_POST, "POST", "", "0" },       { HTTP_M_DELETE, "DELETE", "", NULL },
        { HTTP_M_POST, "POST", "abc", "3" },    { HTTP_M_PUT, "PUT", "abcd", "4" },
        { HTTP_M_DELETE, "DELETE", "{}", "2" }, { HTTP_M_PATCH, "PATCH", "p", "1" },
        { HTTP_M_GET, "GET", "", NULL },        { HTTP_M_OPTIONS, "OPTIONS", "", NULL },
        { HTTP_M_POST, "POST", "abc", "3" },    { HTTP_M_HEAD, "HEAD", "", NULL },
        { HTTP_M_POST, "POST", "abc", "3" },
    };
    struct http_answer answer;

    for (size_t i = 0; i < LEN(cases); i++) {
        struct http_call call = rig_post(a, "/echo?x=1", cases[i].body);
        const char *line = arena_printf(a, "%s /echo?x=1 HTTP/1.1\r\n", cases[i].name);

        call.method = cases[i].method;
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
        CO_CHECK(strstr(rig.last_head, line) == rig.last_head);
        CO_CHECK(!strstr(rig.last_head, "Content-Type"));
        if (cases[i].line)
            CO_CHECK(
                strstr(rig.last_head, arena_printf(a, "Content-Length: %s\r\n", cases[i].line)));
        else
            CO_CHECK(!strstr(rig.last_head, "Content-Length"));
        CO_CHECK(str_eq_z(answer.body, cases[i].method == HTTP_M_HEAD ? "" : cases[i].body));
    }
    CO_CHECK(rig.connections == 1);
    return 0;
}

TEST(methods_and_bodies_do_not_stick_to_a_pooled_handle)
{
    CHECK_INT(rig_run(methods), 0);
}

CO static int big_posts(struct http_client *c, struct arena *a, struct err *e)
{
    size_t n = 3 * MIB;
    char *body = arena_raw(a, n + 1);
    struct http_call call;
    struct http_answer answer;

    memset(body, 'p', n);
    body[n] = '\0';
    call = rig_post(a, "/echo", body);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.body.n == n && memcmp(answer.body.p, body, n) == 0);
    CO_CHECK(!strstr(rig.last_head, "Expect"));
    call = rig_get(a, "/bigbody");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.body.n == RIG_BIG);
    return 0;
}

TEST(large_bodies_pass_both_ways)
{
    CHECK_INT(rig_run(big_posts), 0);
}

CO static int odd_answers(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call;

    call = rig_get(a, "/gzip");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(str_eq_z(answer.body, "unzipped text"));
    CO_CHECK(strstr(rig.last_head, "Accept-Encoding: gzip, deflate\r\n"));

    call = rig_get(a, "/interim");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 200 && str_eq_z(answer.body, "done"));
    CO_CHECK(!http_answer_header(&answer, "Link").p && http_answer_header(&answer, "X-Final").p);

    call = rig_get(a, "/redirect");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 302 && str_eq_z(http_answer_header(&answer, "Location"), "/echo"));

    call = rig_get(a, "/empty");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 204 && answer.body.n == 0 && answer.body.p);

    call = rig_get(a, "/chunks");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(!http_answer_header(&answer, "X-Trailer").p);
    return 0;
}

TEST(gzip_interim_redirect_and_empty_answers_are_read)
{
    CHECK_INT(rig_run(odd_answers), 0);
}

struct failing {
    const char *path;
    enum http_fail fail;
    enum err_code code;
    long long wait_ms;
    int status; /* seen before it failed */
};

CO static int fails(struct http_client *c, struct arena *a, struct err *e)
{
    /* clang-format off */
    static const struct failing cases[] = {
        { "/hang", HTTP_FAIL_TIMEOUT, ERR_TIMEOUT, 60 },
        { "/half", HTTP_FAIL_TIMEOUT, ERR_TIMEOUT, 60, 200 },
        { "/reset", HTTP_FAIL_RESET, ERR_UNAVAILABLE, 5000, 200 },
        { "/short", HTTP_FAIL_RESET, ERR_UNAVAILABLE, 5000, 200 },
        { "/nothing", HTTP_FAIL_RESET, ERR_UNAVAILABLE, 5000 },
        { "/badchunk", HTTP_FAIL_PROTOCOL, ERR_UNAVAILABLE, 5000, 200 },
        { "/garbage", HTTP_FAIL_PROTOCOL, ERR_UNAVAILABLE, 5000 },
        { "/biglength", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000, 200 },
        { "/bigstream", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000, 200 },
        { "/bomb", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000, 200 },
        { "/headers", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000 },
    };
    /* clang-format on */

    for (size_t i = 0; i < LEN(cases); i++) {
        struct http_answer answer = { .status = 99 };
        struct http_call call = rig_get(a, cases[i].path);
        int r;

        call.max_answer = 1 * MIB;
        call.deadline_ms = deadline_in(cases[i].wait_ms);
        r = http_fetch(c, &call, a, &answer, e);
        if (answer.fail != cases[i].fail || r != -(int)cases[i].code)
            printf("# %s: %d %d %s\n", cases[i].path, r, answer.fail, e->msg);
        CO_CHECK(answer.fail == cases[i].fail);
        CO_CHECK(r == -(int)cases[i].code);
        CO_CHECK(answer.status == cases[i].status);
        CO_CHECK(strstr(e->msg, "127.0.0.1:") && !strstr(e->msg, cases[i].path));
    }
    return 0;
}

TEST(each_failure_is_told_apart)
{
    CHECK_INT(rig_run(fails), 0);
}

CO static int unreachable(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = rig_get(a, "/");
    unsigned short port;
    int fd;

    CO_CHECK(listen_tcp("127.0.0.1", 0, 1, &fd, &port, e) == 0);
    close(fd);
    call.url = arena_printf(a, "http://127.0.0.1:%u/x?token=secret", port);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_CONNECT);
    CO_CHECK(strstr(e->msg, "refused") && !strstr(e->msg, "secret"));

    call.url = "http://no-such-name.invalid/";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_DNS);

    call.url = "http://user:pw@127.0.0.1/";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_INVALID);
    CO_CHECK(answer.fail == HTTP_FAIL_PROTOCOL);

    call.url = arena_printf(a, "https://127.0.0.1:%u/", rig.port);
    call.deadline_ms = deadline_in(200); /* the server waits for an end of head that never comes */
    CO_CHECK(http_fetch(c, &call, a, &answer, e) < 0);
    CO_CHECK(answer.fail == HTTP_FAIL_TIMEOUT || answer.fail == HTTP_FAIL_TLS);
    return 0;
}

TEST(what_cannot_be_reached_says_why)
{
    CHECK_INT(rig_run(unreachable), 0);
}

CO static int stale(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = rig_post(a, "/stale", "x");

    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_RESET);
    CO_CHECK(rig.posts_of_stale == 2); /* the second POST was not sent a third time */

    call = rig_get(a, "/stale");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(rig.posts_of_stale == 5); /* a GET may be repeated */
    return 0;
}

TEST(a_post_that_may_have_arrived_is_not_sent_twice)
{
    CHECK_INT(rig_run(stale), 0);
}

CO static int refused(struct http_client *c, struct arena *a, struct err *e)
{
    static const char *const urls[] = {
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
    };

    for (size_t i = 0; i < LEN(urls); i++) {
        struct http_answer answer;
        struct http_call call = rig_get(a, "/");

        call.url = urls[i];
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_FORBIDDEN);
        CO_CHECK(answer.fail == HTTP_FAIL_POLICY);
        CO_CHECK(strstr(e->msg, "not allowed"));
    }
    CO_CHECK(rig.connections == 0);
    return 0;
}

TEST(addresses_are_checked_after_names_are_resolved)
{
    static struct outbound_policy policy;
    struct err e;

    CHECK_INT(outbound_policy_parse("", "127.0.0.0/8, ::1", &policy, &e), 0);
    CHECK_INT(rig_run_with(refused, (struct http_client_conf){ .policy = &policy }), 0);
}

CO static int refused_behind_proxy(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = rig_get(a, "/");

    call.url = "http://169.254.169.254/latest/meta-data/";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_FORBIDDEN);
    CO_CHECK(answer.fail == HTTP_FAIL_POLICY && rig.connections == 0);
    return 0;
}

TEST(a_proxy_is_not_a_way_round_the_policy)
{
    static struct outbound_policy policy;
    struct err e;

    CHECK_INT(outbound_policy_parse("", "", &policy, &e), 0);
    CHECK_INT(
        rig_run_with(refused_behind_proxy,
                     (struct http_client_conf){ .policy = &policy, .proxy = "http://127.0.0.1:1" }),
        0);
}

CO static int no_env_proxy(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = rig_get(a, "/echo");

    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    return 0;
}

TEST(proxies_of_the_environment_are_ignored)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    CHECK_INT(rig_run(no_env_proxy), 0);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
}

/* The scripted server plays the proxy, which need not resolve anything. */
CO static int uses_proxy(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_client_conf conf = {
        .proxy = arena_printf(a, "http://127.0.0.1:%u", rig.port),
    };
    struct http_call call = rig_post(a, "/echo", "through");
    struct http_answer answer;
    struct http_client *proxied;

    CO_CHECK(http_client_new(fiber_loop(), &conf, &proxied, e) == 0);
    call.url = "http://agent.invalid:81/v1?x=1";
    CO_CHECK(http_fetch(proxied, &call, a, &answer, e) == 0);
    CO_CHECK(str_eq_z(answer.body, "through"));
    CO_CHECK(strstr(rig.last_head, "POST http://agent.invalid:81/v1?x=1 HTTP/1.1\r\n"));
    http_client_free(proxied);
    return 0;
}

TEST(a_proxy_of_the_settings_is_used_whatever_the_environment_says)
{
    setenv("no_proxy", "*", 1);
    setenv("NO_PROXY", "agent.invalid", 1);
    CHECK_INT(rig_run(uses_proxy), 0);
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
}

struct flow {
    struct http_client *client;
    const char *path;
    struct http_answer answer;
    struct arena arena;
    int result;
};

CO static int flow_run(void *arg, struct err *e)
{
    struct flow *flow = arg;
    struct http_call call = rig_post(&flow->arena, flow->path, "flow");

    call.deadline_ms = DEADLINE_NONE;
    flow->result = http_fetch(flow->client, &call, &flow->arena, &flow->answer, e);
    return flow->result;
}

CO static int canceled(struct http_client *c, struct arena *a, struct err *e)
{
    struct flow flow = { .client = c, .path = "/hang" };
    struct http_call call = rig_get(a, "/echo");
    struct http_answer answer;
    struct fiber *f;

    CO_CHECK(fiber_spawn(fiber_loop(), "flow", flow_run, &flow, &f, e) == 0);
    while (rig.requests == 0)
        CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(flow.answer.fail == HTTP_FAIL_CANCELED);
    arena_done(&flow.arena);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(rig.connections == 2); /* the cancelled one's connection was closed */
    return 0;
}

TEST(cancel_ends_a_call_at_once)
{
    CHECK_INT(rig_run(canceled), 0);
}

CO static int many(struct http_client *c, struct arena *a, struct err *e)
{
    struct flow *flows = xcalloc(200, sizeof(*flows));
    struct fiber_group *g = fiber_group_new(fiber_loop());
    int bad = 0;

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 200; i++) {
            flows[i] = (struct flow){ .client = c, .path = "/echo", .arena = flows[i].arena };
            CO_CHECK(fiber_group_spawn(g, "flow", flow_run, &flows[i], e) == 0);
        }
        CO_CHECK(fiber_group_join(g, e) == 0);
        for (int i = 0; i < 200; i++)
            bad += flows[i].result != 0 || !str_eq_z(flows[i].answer.body, "flow");
    }
    for (int i = 0; i < 200; i++)
        arena_done(&flows[i].arena);
    fiber_group_free(g);
    free(flows);
    CO_CHECK(bad == 0);
    CO_CHECK(rig.requests == 600);
    CO_CHECK(rig.connections <= 32);
    return 0;
}

TEST(two_hundred_at_once_share_the_connections_of_a_host)
{
    CHECK_INT(rig_run(many), 0);
}

CO static int bursts(struct http_client *c, struct arena *a, struct err *e)
{
    c->trim_ms = 20;
    CO_CHECK(many(c, a, e) == 0);
    for (int i = 0; i < 500 && c->n_spare > 8; i++)
        CO_CHECK(fiber_sleep(10, e) == 0);
    CO_CHECK(c->n_spare == 8);
    return 0;
}

TEST(memory_of_a_burst_is_given_back)
{
    CHECK_INT(rig_run(bursts), 0);
}

/* One place: a call that hangs has it, the others wait; two give up, the third gets it. */
CO static int queue_up(struct http_client *c, struct arena *a, struct err *e)
{
    struct flow hang = { .client = c, .path = "/hang" }, waits = { .client = c, .path = "/echo" },
                last = { .client = c, .path = "/echo" };
    struct fiber *first, *second, *third;
    struct http_call call = rig_get(a, "/echo");
    struct http_answer answer;

    CO_CHECK(fiber_spawn(fiber_loop(), "hang", flow_run, &hang, &first, e) == 0);
    while (rig.requests == 0)
        CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "waits", flow_run, &waits, &second, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "last", flow_run, &last, &third, e) == 0);
    call.deadline_ms = deadline_in(30);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_TIMEOUT);
    CO_CHECK(answer.fail == HTTP_FAIL_TIMEOUT && rig.requests == 1);
    fiber_cancel(second);
    CO_CHECK(fiber_join(second, e) == -ERR_CANCELED);
    CO_CHECK(waits.answer.fail == HTTP_FAIL_CANCELED);
    fiber_cancel(first);
    CO_CHECK(fiber_join(first, e) == -ERR_CANCELED);
    CO_CHECK(fiber_join(third, e) == 0 && rig.requests == 2);
    call.deadline_ms = deadline_in(5000);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    arena_done(&hang.arena);
    arena_done(&waits.arena);
    arena_done(&last.arena);
    return 0;
}

TEST(calls_wait_their_turn_at_a_host)
{
    CHECK_INT(rig_run_with(queue_up, (struct http_client_conf){ .per_host = 1 }), 0);
}

CO static int over_unix(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = rig_post(a, "/echo", "by file");
    struct http_call plain = rig_get(a, "/echo");

    call.url = "http://localhost/echo";
    call.unix_socket = rig.unix_path;
    for (int i = 0; i < 3; i++)
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(str_eq_z(answer.body, "by file") && rig.connections == 1);
    CO_CHECK(http_fetch(c, &plain, a, &answer, e) == 0);
    CO_CHECK(rig.connections == 2);
    call.unix_socket = "/nowhere/at/all";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_CONNECT);
    return 0;
}

CO static int over_long_path(struct http_client *c, struct arena *a, struct err *e)
{
    const char *dir = arena_printf(a, "%s.%0150d", rig.unix_path, 1);
    struct http_call call = rig_post(a, "/echo", "far away");
    struct http_answer answer;

    CO_CHECK(mkdir(dir, 0700) == 0);
    call.unix_socket = arena_printf(a, "%s/sock", dir);
    CO_CHECK(link(rig.unix_path, call.unix_socket) == 0);
    for (int i = 0; i < 3; i++)
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(str_eq_z(answer.body, "far away") && rig.connections == 1);
    unlink(call.unix_socket);
    rmdir(dir);
    CO_CHECK(strlen(call.unix_socket) > 150);
    return 0;
}

TEST(unix_sockets_of_long_paths_are_reached)
{
    CHECK_INT(rig_run(over_long_path), 0);
}

TEST(unix_sockets_are_reached)
{
    static struct outbound_policy policy;

    CHECK_INT(rig_run_with(over_unix, (struct http_client_conf){ .policy = &policy }), 0);
}

static double cpu_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

CO static int cost(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_call call = rig_post(a, "/echo", "{\"message\":\"hello\"}");
    struct arena each = { 0 };
    struct http_answer answer;
    double begin = 0;

    call.deadline_ms = deadline_in(60000);
    for (int i = 0; i < 2100; i++) {
        if (i == 100)
            begin = cpu_us();
        CO_CHECK(http_fetch(c, &call, &each, &answer, e) == 0);
        arena_reset(&each);
    }
    printf("# %.1f us of CPU a fetch, the test's server included\n", (cpu_us() - begin) / 2000);
    arena_done(&each);
    return 0;
}

TEST(the_cost_of_a_fetch_is_shown)
{
    CHECK_INT(rig_run(cost), 0);
}
