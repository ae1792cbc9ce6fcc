/* SPDX-License-Identifier: MIT */
/*
 * The server in one loop with its clients: fibers that write bytes into a socket and look at the
 * bytes that come back. Limits are short here; nothing waits without a deadline.
 */
#include "net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/http_upgrade.h"
#include "test.h"

enum { PATIENCE_MS = 5000, BIG = 16 * 1024 * 1024, WINDOW = 16 * 1024 };

/* --- the server's side --- */

struct thing {
    const char *name;
    int64_t count;
};

static const struct shape_field thing_fields[] = {
    FIELD(struct thing, name, .required = true, .max = 100),
    FIELD(struct thing, count, .max = 1000),
};
static const struct shape thing_shape = SHAPE(struct thing, "Thing", thing_fields);

static struct {
    int runs, canceled, finished, written;
    bool held;
    struct fiber *holder;
    struct stream *taken;
    struct buf rest;
    struct http_seat *seat;
} seen;

static CO int get_thing(struct http_req *req, struct err *e)
{
    struct thing *out = arena_new(req->arena, struct thing);

    seen.runs++;
    out->name = req->args[0].p;
    req->out = out;
    return 0;
}

static CO int echo(struct http_req *req, struct err *e)
{
    seen.runs++;
    req->out = req->in;
    return 0;
}

static CO int raw(struct http_req *req, struct err *e)
{
    seen.runs++;
    http_reply_text(req, 0, "text/plain", arena_str(req->arena, req->body));
    return 0;
}

static CO int show_query(struct http_req *req, struct err *e)
{
    req->out = req->query;
    return 0;
}

/* Waits until it is canceled. */
static CO int hold(struct http_req *req, struct err *e)
{
    int r;

    seen.holder = fiber_self();
    seen.held = true;
    do
        r = fiber_park(req->deadline_ms, e);
    while (r == 0);
    seen.canceled += r == -ERR_CANCELED;
    return r;
}

static CO int nap(struct http_req *req, struct err *e)
{
    int r = fiber_sleep(50, e);

    seen.canceled += r < 0;
    return r;
}

static CO int fail(struct http_req *req, struct err *e)
{
    static const enum err_code codes[] = { ERR_INVALID,     ERR_UNAUTHORIZED, ERR_FORBIDDEN,
                                           ERR_NOT_FOUND,   ERR_CONFLICT,     ERR_LIMIT,
                                           ERR_UNAVAILABLE, ERR_TIMEOUT,      ERR_INTERNAL };

    return err_set(e, codes[req->args[0].p[0] - '0'], "it \"failed\"");
}

static CO int no_content(struct http_req *req, struct err *e)
{
    return 0;
}

static CO int stream_all(struct http_req *req, struct err *e)
{
    char block[4096];
    int r;

    memset(block, 'x', sizeof(block));
    r = http_stream_begin(req, 200, "text/plain", e);
    for (seen.written = 0; r == 0 && seen.written < BIG; seen.written += (int)sizeof(block))
        r = http_stream_write(req, (struct str){ block, sizeof(block) }, e);
    seen.canceled += r == -ERR_CANCELED;
    seen.finished += r == 0;
    return r;
}

static CO int events(struct http_req *req, struct err *e)
{
    int r;

    r = http_stream_begin(req, 0, "text/event-stream", e);
    if (r == 0)
        r = http_sse_send(req, "delta", STR("one\ntwo\r\nthree"), e);
    if (r == 0)
        r = http_sse_comment(req, "keep-alive", e);
    if (r == 0)
        r = http_sse_send(req, NULL, STR(""), e);
    return r;
}

static CO int broken(struct http_req *req, struct err *e)
{
    int r;

    r = http_stream_begin(req, 0, "text/plain", e);
    if (r == 0)
        r = http_stream_write(req, STR("half"), e);
    return r < 0 ? r : err_set(e, ERR_UNAVAILABLE, "the rest is lost");
}

static CO int upgrade(struct http_req *req, struct err *e)
{
    return http_conn_take(req, 1024, &seen.taken, &seen.rest, &seen.seat, e);
}

/* clang-format off */
#define ROW(m, p, fn, ...) { HTTP_M_##m, p, fn, .doc = "A route.", __VA_ARGS__ }
static const struct http_route rows[] = {
    ROW(GET,    "/t/things/{id}", get_thing,  .need = NEED_NONE, .out = &thing_shape),
    ROW(POST,   "/t/things",      echo,       .need = NEED_NONE, .in = &thing_shape, .out = &thing_shape, .status = 201),
    ROW(DELETE, "/t/things",      no_content, .need = NEED_NONE, .status = 204),
    ROW(POST,   "/t/raw",         raw,        .need = NEED_NONE, .max_body = 1024),
    ROW(GET,    "/t/query",       show_query, .need = NEED_NONE, .query = &thing_shape, .out = &thing_shape),
    ROW(GET,    "/t/hold",        hold,       .need = NEED_NONE),
    ROW(GET,    "/t/nap",         nap,        .need = NEED_NONE),
    ROW(GET,    "/t/fail/{how}",  fail,       .need = NEED_NONE),
    ROW(GET,    "/t/stream",      stream_all, .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/events",      events,     .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/broken",      broken,     .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/upgrade",     upgrade,    .need = NEED_NONE, .flags = ROUTE_WS),
    ROW(GET,    "/t/secret",      no_content, .need = NEED_READ, .status = 204),
};
/* clang-format on */

static const struct http_table table = { "/t", &dialect_fastapi, rows, LEN(rows), NULL };
static struct http_table docs = { "/docs", &dialect_plain, NULL, 0, NULL };
static const struct http_table *const tables[] = { &table, &docs };

static CO int authenticate(struct http_req *req, const struct stream_addr *peer, void *arg,
                           struct http_identity *ret, struct err *e)
{
    struct str token = http_header_get(req, "Authorization");

    if (str_eq(token, STR("Bearer reader")))
        *ret = (struct http_identity){ "reader", NEED_READ, false };
    else if (str_eq(token, STR("Bearer other")))
        *ret = (struct http_identity){ "other", NEED_METRICS, false };
    else if (str_eq(token, STR("Bearer admin")))
        *ret = (struct http_identity){ "admin", 0, true };
    else
        return err_set(e, ERR_UNAUTHORIZED, "who are you");
    return 0;
}

static bool host_allowed(struct str host, const struct stream_addr *peer, void *arg)
{
    return !str_eq(host, STR("evil"));
}

static bool origin_allowed(struct str origin, void *arg)
{
    return str_eq(origin, STR("http://good"));
}

static const struct http_limits usual = {
    .connections = 100,
    .connections_per_ip = 100,
    .header_bytes = 8192,
    .body_bytes = 64 * 1024,
    .json_depth = 16,
    .first_byte_ms = 10000,
    .body_idle_ms = 10000,
    .idle_ms = 10000,
    .write_idle_ms = 10000,
};

/* --- one test --- */

static struct http_limits limits;
static struct http_server *server;
static struct loop *loop;
static unsigned short port;

struct outcome {
    CO int (*fn)(struct err *e);
    int r;
};

static CO int run_test(void *arg, struct err *e)
{
    struct outcome *o = arg;

    o->r = o->fn(e);
    if (o->r < -1)
        printf("# %s\n", e->msg);
    (void)http_server_shutdown(server, now_ms(), e);
    http_server_free(server);
    return 0;
}

/* Run a client in a fiber beside a fresh server. */
static bool serve(const struct http_limits *with, CO int (*fn)(struct err *e))
{
    const struct http_server_ops ops = { authenticate, host_allowed, origin_allowed, NULL };
    struct outcome o = { fn, -1 };
    struct err e;
    int fd;

    memset(&seen, 0, sizeof(seen));
    docs.routes = http_docs_routes;
    docs.n = http_docs_routes_len;
    limits = *with;
    log_setup(LOG_ERROR, LOG_TEXT);
    if (loop_new(&loop, &e) < 0 ||
        http_server_new(loop, &limits, &ops, tables, LEN(tables), &server, &e) < 0 ||
        listen_tcp("127.0.0.1", 0, 64, &fd, &port, &e) < 0 ||
        http_server_listen(server, fd, NULL, &e) < 0 ||
        fiber_spawn(loop, "test", run_test, &o, NULL, &e) < 0) {
        printf("# %s\n", e.msg);
        return false;
    }
    loop_run(loop);
    loop_free(loop);
    return o.r == 0;
}

/* --- the client's side --- */

struct client {
    int fd;
    char *text; /* what has come */
    size_t n, cap;
};

static void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->text);
    *c = (struct client){ .fd = -1 };
}

static void client_close_auto(struct client *c)
{
    client_close(c);
}

static int client_open(struct client *c, struct err *e)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
    int window = WINDOW; /* so that what nobody reads comes to a stop soon */

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *c = (struct client){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    if (c->fd < 0 || setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof(window)) < 0 ||
        connect(c->fd, (struct sockaddr *)&in, sizeof(in)) < 0)
        return err_sys(e, "connect");
    return fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 ? err_sys(e, "O_NONBLOCK") : 0;
}

static CO int say(struct client *c, const char *text, struct err *e)
{
    return fiber_write_all(c->fd, text, strlen(text), deadline_in(PATIENCE_MS), e);
}

/* Read once more: >0 bytes, 0 at the end (or a reset), <0. */
static CO ssize_t more(struct client *c, struct err *e)
{
    ssize_t n;

    if (c->cap - c->n < 65536) {
        c->cap = c->cap * 2 + 65537;
        c->text = xrealloc(c->text, c->cap);
    }
    n = fiber_read(c->fd, c->text + c->n, c->cap - c->n - 1, deadline_in(PATIENCE_MS), e);
    if (n > 0)
        c->n += (size_t)n;
    c->text[c->n] = '\0';
    return n < 0 && e->code != ERR_TIMEOUT ? 0 : n;
}

/* Wait until `times` copies of needle have come. */
static CO bool hears(struct client *c, const char *needle, int times, struct err *e)
{
    for (;;) {
        const char *at = c->text;
        int n = 0;

        while (at && (at = strstr(at, needle))) {
            n++;
            at += strlen(needle);
        }
        if (n >= times)
            return true;
        if (more(c, e) <= 0) {
            printf("# heard only: %.300s\n", c->text ? c->text : "");
            return false;
        }
    }
}

/* Wait for the server's end of the connection. */
static CO bool ends(struct client *c, struct err *e)
{
    ssize_t n;

    do
        n = more(c, e);
    while (n > 0);
    return n == 0;
}

/* A whole conversation: say all, hear all until the server closes. */
static CO bool talk(struct client *c, const char *text, struct err *e)
{
    client_close(c);
    if (client_open(c, e) < 0 || say(c, text, e) < 0)
        return false;
    return ends(c, e) && c->text;
}

static bool has(const struct client *c, const char *needle)
{
    if (c->text && strstr(c->text, needle))
        return true;
    printf("# no \"%s\" in: %.400s\n", needle, c->text ? c->text : "");
    return false;
}

static bool starts(const struct client *c, const char *start)
{
    if (c->text && strncmp(c->text, start, strlen(start)) == 0)
        return true;
    printf("# not \"%s\" but: %.400s\n", start, c->text ? c->text : "");
    return false;
}

#define CLIENT(name) AUTO(client_close) struct client name = { .fd = -1 }
#define H            " HTTP/1.1\r\nHost: h\r\n"
#define CLOSE        "Connection: close\r\n"

static CO int keep_alive(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    for (int i = 1; i <= 20; i++) {
        CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
        CO_CHECK(hears(&c, "{\"name\":\"x\",\"count\":0}", i, e));
    }
    CO_CHECK(starts(&c, "HTTP/1.1 200 OK\r\nDate: "));
    CO_CHECK(has(&c, "\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{"));
    CO_CHECK(!strstr(c.text, "Server:") && !strstr(c.text, "Connection:"));
    CO_CHECK(http_server_connections(server) == 1);
    return 0;
}

TEST(one_connection_serves_many_requests)
{
    CHECK(serve(&usual, keep_alive));
}

static CO int pipeline(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c,
                  "GET /t/things/a" H "\r\nGET /t/nap" H "\r\n"
                  "POST /t/raw" H "Content-Length: 3\r\n\r\nraw"
                  "GET /t/none" H "\r\nGET /t/things/b" H CLOSE "\r\nGET /t/things/c" H "\r\n",
                  e));
    CO_CHECK(has(&c, "\"a\""));
    CO_CHECK(strstr(c.text, "\"a\"") < strstr(c.text, "\r\n\r\nraw"));
    CO_CHECK(strstr(c.text, "\r\n\r\nraw") < strstr(c.text, "{\"detail\":\"Not Found\"}"));
    CO_CHECK(strstr(c.text, "Not Found\"}") < strstr(c.text, "\"b\""));
    CO_CHECK(!strstr(c.text, "\"c\""));
    return 0;
}

TEST(pipelined_requests_are_answered_in_order_up_to_a_close)
{
    CHECK(serve(&usual, pipeline));
}

static CO int pipeline_deep(struct err *e)
{
    struct buf b = { .max = BIG };
    CLIENT(c);

    for (int i = 0; i < 3000; i++)
        CO_CHECK(buf_add_z(&b, "GET /no" H "\r\n", e) == 0);
    CO_CHECK(buf_add(&b, "GET /t/things/end" H CLOSE "\r\n",
                     sizeof("GET /t/things/end" H CLOSE "\r\n"), e) == 0);
    CO_CHECK(talk(&c, buf_str(&b).p, e));
    CO_CHECK(has(&c, "\"end\""));
    buf_done(&b);
    return 0;
}

TEST(a_long_pipeline_of_refusals_is_no_recursion)
{
    CHECK(serve(&usual, pipeline_deep));
}

static CO int byte_by_byte(struct err *e)
{
    static const char text[] = "\r\nPOST /t/things" H "Transfer-Encoding: chunked\r\n\r\n"
                               "9\r\n{\"name\": \r\n5;x\r\n\"abc\"\r\n1\r\n}\r\n0\r\nT: t\r\n\r\n";
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        CO_CHECK(fiber_write_all(c.fd, text + i, 1, deadline_in(PATIENCE_MS), e) == 0);
        CO_CHECK(fiber_yield(e) == 0);
    }
    CO_CHECK(hears(&c, "{\"name\":\"abc\",\"count\":0}", 1, e));
    CO_CHECK(starts(&c, "HTTP/1.1 201 Created\r\n"));
    return 0;
}

TEST(a_request_may_come_byte_by_byte)
{
    CHECK(serve(&usual, byte_by_byte));
}

static CO int big_bodies(struct err *e)
{
    struct buf b = { .max = BIG };
    CLIENT(c);
    size_t n = 60 * 1024;

    for (int chunked = 0; chunked < 2; chunked++) {
        buf_clear(&b);
        CO_CHECK(
            buf_printf(&b, e, "POST /t/things" H CLOSE "%s\r\n%s{\"name\":\"abc\",\"x\":\"",
                       chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 61461\r\n",
                       chunked ? "F015\r\n" : "") == 0);
        for (size_t i = 0; i < n; i++)
            CO_CHECK(buf_add(&b, "y", 1, e) == 0);
        CO_CHECK(buf_add_z(&b, "\"}", e) == 0);
        if (chunked)
            CO_CHECK(buf_add_z(&b, "\r\n0\r\n\r\n", e) == 0);
        CO_CHECK(buf_add(&b, "", 1, e) == 0);
        CO_CHECK(talk(&c, buf_str(&b).p, e));
        CO_CHECK(has(&c, "{\"name\":\"abc\",\"count\":0}"));
    }
    buf_done(&b);
    return 0;
}

TEST(bodies_larger_than_the_read_buffer_are_gathered)
{
    CHECK(serve(&usual, big_bodies));
}

static CO int statuses(struct err *e)
{
    static const struct {
        const char *request, *start, *part;
    } rows_[] = {
        { "GET /t/none" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"detail\":\"Not Found\"}" },
        { "GET /none" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"error\":\"Not Found\"}" },
        { "PUT /t/things" H CLOSE "\r\n", "HTTP/1.1 405 ", "\r\nAllow: POST, DELETE\r\n" },
        { "HEAD /t/things/x" H CLOSE "\r\n", "HTTP/1.1 405 ", "Content-Length: 31\r\n" },
        { "HEAD /docs" H CLOSE "\r\n", "HTTP/1.1 200 ", "Content-Type: text/html" },
        { "OPTIONS /docs" H CLOSE "\r\n", "HTTP/1.1 204 ", "Allow: GET, HEAD" },
        { "OPTIONS /t/things" H CLOSE "\r\n", "HTTP/1.1 405 ", "Allow: POST, DELETE" },
        { "FROB /t/things" H CLOSE "\r\n", "HTTP/1.1 405 ", "{\"detail\":\"Method Not Allowed\"}" },
        { "GET /t/query/?a=b" H CLOSE "\r\n", "HTTP/1.1 307 ",
          "\r\nLocation: http://h/t/query?a=b\r\n" },
        { "GET /t/things/%zz" H CLOSE "\r\n", "HTTP/1.1 400 ", "{\"detail\":" },
        { "DELETE /t/things" H CLOSE "\r\n", "HTTP/1.1 204 No Content\r\n", "nosniff" },
        { "GET /t/things/x HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", "Connection: close\r\n" },
        { "GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 505 ", "Connection: close\r\n" },
        { "GET /\r\n\r\n", "HTTP/1.1 400 ", "{\"error\":" },
        { "GET / HTTP/1.1\nHost", "HTTP/1.1 400 ", "carriage return" },
        { "POST /t/raw" H "Content-Length: 1025\r\n\r\n", "HTTP/1.1 413 ",
          "{\"detail\":\"Request body too large\"}" },
        { "POST /t/raw" H "Transfer-Encoding: chunked\r\n\r\n401\r\n", "", "" },
        { "GET /t/things/x" H "Origin: http://bad\r\n" CLOSE "\r\n", "HTTP/1.1 403 ",
          "{\"error\":\"Forbidden: " },
        { "GET /t/things/x" H "Origin: http://good\r\n" CLOSE "\r\n", "HTTP/1.1 200 ", "" },
        { "GET /t/things/x HTTP/1.1\r\nHost: evil\r\n" CLOSE "\r\n", "HTTP/1.1 403 ", "" },
        { "GET /t/secret" H CLOSE "\r\n", "HTTP/1.1 401 ", "{\"error\":\"Unauthorized\"}" },
        { "GET /t/secret" H CLOSE "\r\n", "HTTP/1.1 401 ", "WWW-Authenticate: Bearer\r\n" },
        { "GET /t/secret" H CLOSE "Authorization: Bearer other\r\n\r\n", "HTTP/1.1 403 ",
          "{\"error\":\"Forbidden: this needs the scope read\"}" },
        { "GET /t/secret" H CLOSE "Authorization: Bearer reader\r\n\r\n", "HTTP/1.1 204 ", "" },
        { "GET /t/secret" H CLOSE "Authorization: Bearer admin\r\n\r\n", "HTTP/1.1 204 ", "" },
        { "GET /t/fail/0" H CLOSE "\r\n", "HTTP/1.1 400 ", "{\"detail\":\"it \\\"failed\\\"\"}" },
        { "GET /t/fail/1" H CLOSE "\r\n", "HTTP/1.1 401 ", "WWW-Authenticate" },
        { "GET /t/fail/2" H CLOSE "\r\n", "HTTP/1.1 403 ", "{\"detail\":\"it " },
        { "GET /t/fail/3" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"detail\":\"it " },
        { "GET /t/fail/4" H CLOSE "\r\n", "HTTP/1.1 409 ", "{\"detail\":\"it " },
        { "GET /t/fail/5" H CLOSE "\r\n", "HTTP/1.1 413 ", "{\"detail\":\"it " },
        { "GET /t/fail/6" H CLOSE "\r\n", "HTTP/1.1 503 ", "Retry-After: 1\r\n" },
        { "GET /t/fail/7" H CLOSE "\r\n", "HTTP/1.1 504 ", "{\"detail\":\"it " },
        { "GET /t/fail/8" H CLOSE "\r\n", "HTTP/1.1 500 ",
          "{\"detail\":\"Internal Server Error\",\"id\":\"" },
        { "GET /openapi.json" H CLOSE "\r\n", "HTTP/1.1 200 ", "{\"openapi\":\"3.1.0\"" },
        { "GET /docs" H CLOSE "\r\n", "HTTP/1.1 200 ", "Content-Security-Policy: default-src" },
    };
    CLIENT(c);

    log_setup(LOG_ERROR, LOG_TEXT);
    for (size_t i = 0; i < LEN(rows_); i++) {
        if (!rows_[i].start[0])
            continue;
        CO_CHECK(talk(&c, rows_[i].request, e));
        CO_CHECK(starts(&c, rows_[i].start));
        CO_CHECK(has(&c, rows_[i].part));
        if (strncmp(rows_[i].request, "HEAD", 4) == 0 || strstr(rows_[i].start, "204"))
            CO_CHECK(strcmp(strstr(c.text, "\r\n\r\n"), "\r\n\r\n") == 0);
        if (strstr(rows_[i].start, "204"))
            CO_CHECK(!strstr(c.text, "Content-Length"));
    }
    return 0;
}

static void ignore_line(enum log_level level, const char *line, void *arg)
{
}

TEST(every_kind_of_answer_has_its_status_and_form)
{
    bool ok;

    log_capture(ignore_line, NULL);
    ok = serve(&usual, statuses);
    log_capture(NULL, NULL);
    CHECK(ok);
}

static CO int inputs(struct err *e)
{
    static const struct {
        const char *type, *body;
        int status;
        const char *answer;
    } rows_[] = {
        { "application/json", "{\"name\":\"x\"}", 201, "{\"name\":\"x\",\"count\":0}" },
        { "APPLICATION/JSON ; charset=utf-8", "{\"name\":\"x\"}", 201, "\"x\"" },
        { "application/vnd.x+json", "{\"name\":\"x\"}", 201, "\"x\"" },
        { NULL, "{\"name\":\"x\"}", 201, "\"x\"" },
        { "application/x-www-form-urlencoded", "{\"name\":\"x\"}", 422,
          "{\"detail\":[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input "
          "should "
          "be a valid dictionary or object to extract fields from\",\"input\":\"{\\\"name\\\":"
          "\\\"x\\\"}\"}]}" },
        { "application/json", "", 422,
          "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\","
          "\"input\":null}]}" },
        { "text/plain", "", 422, "\"type\":\"missing\",\"loc\":[\"body\"]" },
        { "application/json", " null ", 422, "\"type\":\"missing\",\"loc\":[\"body\"]" },
        { "application/json", "[1]", 422,
          "{\"detail\":[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input "
          "should "
          "be a valid dictionary or object to extract fields from\",\"input\":[1]}]}" },
        { "application/json", "{bad", 422,
          "{\"detail\":[{\"type\":\"json_invalid\",\"loc\":[\"body\",1],\"msg\":\"JSON decode "
          "error\","
          "\"input\":{},\"ctx\":{\"error\":\"Expecting property name enclosed in double "
          "quotes\"}}]}" },
        { "application/json", "{\"name\":3,\"count\":2000}", 422,
          "{\"detail\":[{\"type\":\"string_type\",\"loc\":[\"body\",\"name\"],\"msg\":\"Input "
          "should be "
          "a valid "
          "string\",\"input\":3},{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"count\"]" },
        { "application/json", "{}", 422,
          "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"name\"],\"msg\":\"Field "
          "required\","
          "\"input\":{}}]}" },
        { "application/json", "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", 400,
          "{\"detail\":\"There was an error parsing the body\"}" },
    };
    CLIENT(c);

    for (size_t i = 0; i < LEN(rows_); i++) {
        char text[512], start[32];

        fmt_z(text, sizeof(text), "POST /t/things" H CLOSE "%s%s%sContent-Length: %zu\r\n\r\n%s",
              rows_[i].type ? "Content-Type: " : "", rows_[i].type ? rows_[i].type : "",
              rows_[i].type ? "\r\n" : "", strlen(rows_[i].body), rows_[i].body);
        fmt_z(start, sizeof(start), "HTTP/1.1 %d ", rows_[i].status);
        CO_CHECK(talk(&c, text, e));
        CO_CHECK(starts(&c, start));
        CO_CHECK(has(&c, rows_[i].answer));
    }
    CO_CHECK(talk(&c, "GET /t/query?name=a%20b&count=7&x=y" H CLOSE "\r\n", e));
    CO_CHECK(has(&c, "{\"name\":\"a b\",\"count\":7}"));
    CO_CHECK(talk(&c, "GET /t/query?name=a&count=x" H CLOSE "\r\n", e));
    CO_CHECK(has(&c, "\"type\":\"int_parsing\",\"loc\":[\"query\",\"count\"]"));
    return 0;
}

TEST(bodies_and_queries_are_judged_by_their_shapes)
{
    CHECK(serve(&usual, inputs));
}

static CO int continues(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "POST /t/raw" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", e) == 0);
    CO_CHECK(hears(&c, "HTTP/1.1 100 Continue\r\n\r\n", 1, e));
    CO_CHECK(say(&c, "abc", e) == 0);
    CO_CHECK(hears(&c, "\r\n\r\nabc", 1, e));
    CO_CHECK(say(&c, "POST /t/raw" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", e) ==
             0);
    CO_CHECK(hears(&c, "\r\n\r\nabc", 2, e));

    CO_CHECK(talk(&c, "POST /t/raw" H "Expect: 100-continue\r\nContent-Length: 9999\r\n\r\n", e));
    CO_CHECK(starts(&c, "HTTP/1.1 413 "));
    CO_CHECK(talk(&c, "POST /t/no" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", e));
    CO_CHECK(starts(&c, "HTTP/1.1 404 "));
    return 0;
}

TEST(expect_100_continue_is_answered_once_the_head_is_accepted)
{
    CHECK(serve(&usual, continues));
}

static CO int refused_bodies(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c,
                  "POST /t/no" H "Content-Length: 5\r\n\r\nhello"
                  "POST /t/no" H "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                  "GET /t/things/next" H CLOSE "\r\n",
                  e));
    CO_CHECK(has(&c, "\"next\""));
    CO_CHECK(talk(&c, "POST /t/no" H "Content-Length: 100000\r\n\r\nhello", e));
    CO_CHECK(starts(&c, "HTTP/1.1 404 "));
    CO_CHECK(has(&c, "Connection: close"));
    return 0;
}

TEST(the_body_of_a_refused_request_is_read_past_when_it_is_short)
{
    CHECK(serve(&usual, refused_bodies));
}

static CO int uploads_past_the_limit(struct err *e)
{
    char block[4096];
    CLIENT(c);

    memset(block, 'x', sizeof(block));
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "POST /t/raw" H "Content-Length: 4194304\r\n\r\n", e) == 0);
    for (int i = 0; i < 1024; i++) /* a client that writes all of it before it reads */
        CO_CHECK(fiber_write_all(c.fd, block, sizeof(block), deadline_in(PATIENCE_MS), e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 413 "));
    CO_CHECK(has(&c, "Connection: close"));
    return 0;
}

TEST(a_client_that_sends_too_much_still_reads_its_413)
{
    CHECK(serve(&usual, uploads_past_the_limit));
}

static CO int heads_too_large(struct err *e)
{
    char block[1024];
    CLIENT(c);

    memset(block, 'x', sizeof(block) - 1);
    block[sizeof(block) - 1] = '\0';
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t" H "A: ", e) == 0);
    for (int i = 0; i < 9; i++)
        CO_CHECK(say(&c, block, e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 431 "));
    return 0;
}

TEST(a_head_past_its_limit_is_431)
{
    CHECK(serve(&usual, heads_too_large));
}

static CO int goes_away(struct err *e)
{
    uint64_t until = deadline_in(PATIENCE_MS);
    struct linger now = { 1, 0 };
    CLIENT(c);

    for (int reset = 0; reset < 2; reset++) {
        seen.held = false;
        seen.canceled = 0;
        CO_CHECK(client_open(&c, e) == 0);
        CO_CHECK(say(&c, "GET /t/hold" H "\r\nGET /t/hold" H "\r\n", e) == 0);
        while (!seen.held && now_ms() < until)
            CO_CHECK(fiber_sleep(1, e) == 0);
        CO_CHECK(http_server_requests(server) == 1);
        if (reset)
            setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        client_close(&c);
        while (seen.canceled == 0 && now_ms() < until)
            CO_CHECK(fiber_sleep(1, e) == 0);
        CO_CHECK(seen.canceled == 1);
        CO_CHECK(fiber_sleep(1, e) == 0);
        CO_CHECK(http_server_connections(server) == 0);
        CO_CHECK(http_server_requests(server) == 0);
    }
    return 0;
}

TEST(a_client_that_goes_away_cancels_its_handler)
{
    CHECK(serve(&usual, goes_away));
}

static CO int half_closes(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/nap" H "\r\nGET /t/things/x" H "\r\n", e) == 0);
    CO_CHECK(shutdown(c.fd, SHUT_WR) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(seen.canceled == 0);
    CO_CHECK(has(&c, "{\"name\":\"x\""));
    return 0;
}

TEST(a_client_that_ends_only_its_side_gets_what_is_answered_soon)
{
    CHECK(serve(&usual, half_closes));
}

static CO int streams(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/stream" H "\r\n", e) == 0);
    while (seen.written < (int)HTTP_STREAM_QUEUE)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(fiber_sleep(50, e) == 0); /* nobody reads: it must have come to a stop */
    CO_CHECK(seen.finished == 0 && seen.written < BIG);
    CO_CHECK(hears(&c, "\r\n0\r\n\r\n", 1, e));
    CO_CHECK(seen.finished == 1);
    CO_CHECK(c.n > BIG && c.n < BIG + BIG / 100);
    CO_CHECK(has(&c, "Transfer-Encoding: chunked\r\n"));
    CO_CHECK(say(&c, "GET /t/things/after" H "\r\n", e) == 0);
    c.n = 0;
    CO_CHECK(hears(&c, "\"after\"", 1, e));
    return 0;
}

TEST(a_streamed_answer_waits_for_its_reader_and_keeps_the_connection)
{
    struct http_limits l = usual;

    CHECK(serve(&l, streams));
}

static CO int stream_forms(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t/events" H CLOSE "\r\n", e));
    CO_CHECK(has(&c, "Content-Type: text/event-stream\r\n"));
    CO_CHECK(has(&c, "\r\n2e\r\nevent: delta\ndata: one\ndata: two\ndata: three\n\n\r\n"));
    CO_CHECK(has(&c, "\r\n: keep-alive\n\n\r\n"));
    CO_CHECK(has(&c, "\r\ndata: \n\n\r\n0\r\n\r\n"));
    CO_CHECK(talk(&c, "GET /t/events HTTP/1.0\r\n\r\n", e));
    CO_CHECK(has(&c, "Connection: close\r\n"));
    CO_CHECK(has(&c, "\r\n\r\nevent: delta\ndata: one\n"));
    CO_CHECK(!strstr(c.text, "chunked"));
    CO_CHECK(talk(&c, "GET /t/broken" H "\r\n", e));
    CO_CHECK(has(&c, "4\r\nhalf\r\n"));
    CO_CHECK(!strstr(c.text, "\r\n0\r\n"));
    return 0;
}

TEST(streams_are_chunked_or_end_with_the_connection_and_never_look_whole_when_broken)
{
    bool ok;

    log_capture(ignore_line, NULL);
    ok = serve(&usual, stream_forms);
    log_capture(NULL, NULL);
    CHECK(ok);
}

static CO int stream_reader_leaves(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/stream" H "\r\n", e) == 0);
    CO_CHECK(hears(&c, "xxxx", 1, e));
    client_close(&c);
    while (seen.canceled + seen.finished == 0)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(seen.canceled == 1);
    return 0;
}

TEST(a_reader_that_leaves_cancels_the_stream)
{
    CHECK(serve(&usual, stream_reader_leaves));
}

static CO int reader_sleeps(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/stream" H "\r\n", e) == 0);
    while (seen.canceled == 0)
        CO_CHECK(fiber_sleep(5, e) == 0);
    CO_CHECK(seen.finished == 0);
    return 0;
}

TEST(a_reader_that_sleeps_too_long_is_cut_off)
{
    struct http_limits l = usual;

    l.write_idle_ms = 100;
    CHECK(serve(&l, reader_sleeps));
}

static CO int slow_clients(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t HTTP/1.1\r\nHo", e));
    CO_CHECK(starts(&c, "HTTP/1.1 408 "));
    CO_CHECK(talk(&c, "POST /t/raw" H "Content-Length: 5\r\n\r\nab", e));
    CO_CHECK(starts(&c, "HTTP/1.1 408 "));
    client_close(&c);
    CO_CHECK(client_open(&c, e) == 0); /* says nothing */
    CO_CHECK(ends(&c, e) && c.n == 0);
    client_close(&c);
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 200 ") && !strstr(c.text, "408"));
    return 0;
}

TEST(slow_clients_get_408_and_idle_ones_are_closed_in_silence)
{
    struct http_limits l = usual;

    l.first_byte_ms = l.body_idle_ms = l.idle_ms = 60;
    CHECK(serve(&l, slow_clients));
}

static CO int handler_too_slow(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t/hold" H CLOSE "\r\n", e));
    CO_CHECK(starts(&c, "HTTP/1.1 504 "));
    return 0;
}

TEST(a_handler_past_the_request_limit_is_504)
{
    struct http_limits l = usual;
    bool ok;

    l.request_ms = 60;
    log_capture(ignore_line, NULL);
    ok = serve(&l, handler_too_slow);
    log_capture(NULL, NULL);
    CHECK(ok);
}

static CO int crowd(struct err *e)
{
    CLIENT(a);
    CLIENT(b);
    CLIENT(c);

    CO_CHECK(client_open(&a, e) == 0 && client_open(&b, e) == 0);
    CO_CHECK(say(&a, "GET /t/things/x" H "\r\n", e) == 0 && hears(&a, "\"x\"", 1, e));
    CO_CHECK(say(&b, "GET /t/things/x" H "\r\n", e) == 0 && hears(&b, "\"x\"", 1, e));
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 503 "));
    CO_CHECK(has(&c, "Retry-After: 1\r\n") &&
             has(&c, "\r\n\r\n{\"error\":\"Too many connections\"}"));
    client_close(&a);
    while (http_server_connections(server) > 1)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(talk(&a, "GET /t/things/y" H CLOSE "\r\n", e) && has(&a, "\"y\""));
    return 0;
}

TEST(connections_past_the_limits_are_told_503)
{
    struct http_limits l = usual;

    l.connections = 2;
    CHECK(serve(&l, crowd));
    l = usual;
    l.connections_per_ip = 2;
    CHECK(serve(&l, crowd));
}

static CO int no_descriptors(struct err *e)
{
    struct rlimit old, few;
    CLIENT(a);
    CLIENT(b);
    int r;

    CO_CHECK(client_open(&a, e) == 0 && client_open(&b, e) == 0);
    CO_CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    few = (struct rlimit){ (rlim_t)b.fd + 1, old.rlim_max };
    CO_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0); /* neither has been accepted yet */
    r = say(&a, "GET /t/things/x" H "\r\n", e);
    if (r == 0 && !ends(&a, e))
        r = -1;
    CO_CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    CO_CHECK(r == 0 && starts(&a, "HTTP/1.1 503 "));
    CO_CHECK(talk(&b, "GET /t/things/y" H CLOSE "\r\n", e) && has(&b, "\"y\""));
    return 0;
}

TEST(without_descriptors_connections_are_still_answered)
{
    CHECK(serve(&usual, no_descriptors));
}

static CO int upgrades(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/upgrade" H "\r\nrest", e) == 0);
    while (!seen.taken)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(http_server_connections(server) == 0);
    CO_CHECK(str_eq(buf_str(&seen.rest), STR("rest")));
    stream_free(seen.taken);
    CO_CHECK(ends(&c, e) && c.n == 0);
    http_seat_free(seen.seat);
    buf_done(&seen.rest);
    return 0;
}

TEST(an_upgraded_connection_leaves_with_its_unread_bytes)
{
    CHECK(serve(&usual, upgrades));
}

static CO int ask_for_nap(void *arg, struct err *e)
{
    CLIENT(c);
    int *ret = arg;

    *ret = talk(&c, "GET /t/nap" H "\r\n", e) && has(&c, "200 OK") && has(&c, "Connection: close");
    return 0;
}

static CO int shuts_down(struct err *e)
{
    struct fiber *asking;
    int answered = 0;
    CLIENT(idle);
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t/things/x" H CLOSE "\r\n", e));
    CO_CHECK(client_open(&idle, e) == 0);
    CO_CHECK(fiber_spawn(loop, "asking", ask_for_nap, &answered, &asking, e) == 0);
    while (http_server_requests(server) == 0)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(http_server_shutdown(server, deadline_in(PATIENCE_MS), e) == 0);
    CO_CHECK(fiber_join(asking, e) == 0);
    CO_CHECK(answered == 1);
    CO_CHECK(ends(&idle, e));
    client_close(&c);
    CO_CHECK(client_open(&c, e) < 0);
    return 0;
}

TEST(shutdown_lets_requests_finish_and_takes_no_new_ones)
{
    CHECK(serve(&usual, shuts_down));
}

static CO int shuts_down_at_deadline(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/hold" H "\r\n", e) == 0);
    while (!seen.held)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(http_server_shutdown(server, deadline_in(50), e) == 0);
    CO_CHECK(seen.canceled == 1 && http_server_requests(server) == 0);
    CO_CHECK(ends(&c, e));
    return 0;
}

TEST(shutdown_cancels_what_is_left_at_its_deadline)
{
    CHECK(serve(&usual, shuts_down_at_deadline));
}
