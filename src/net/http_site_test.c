/* SPDX-License-Identifier: MIT */
/* The site and the client of http_site_test.h. */
#include "net/http_site_test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/log.h"

struct thing {
    const char *name;
    int64_t count;
};

static const struct shape_field thing_fields[] = {
    FIELD(struct thing, name, .required = true, .max = 100),
    FIELD(struct thing, count, .max = 1000),
};
static const struct shape thing_shape = SHAPE(struct thing, "Thing", thing_fields);

static const struct shape_field part_fields[] = {
    FIELD(struct thing, name, .def = "\"by default\""),
};
static const struct shape part_shape = SHAPE(struct thing, "Part", part_fields);

struct seen seen;

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

static CO int big(struct http_req *req, struct err *e)
{
    char *text = arena_raw(req->arena, BIG);

    for (int i = 0; i < BIG; i++)
        text[i] = (char)('a' + i % 23);
    http_reply_text(req, 0, "text/plain", (struct str){ text, BIG });
    return 0;
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

static CO int write_all(void *arg, struct err *e)
{
    struct http_req *req = arg;
    char block[4096];
    int r = 0;

    memset(block, 'x', sizeof(block));
    for (int n = 0; r == 0 && n < BIG; n += (int)sizeof(block))
        r = http_stream_write(req, (struct str){ block, sizeof(block) }, e);
    return r;
}

static CO int stream_helped(struct http_req *req, struct err *e)
{
    struct fiber *helper;
    int r;

    r = http_stream_begin(req, 200, "text/plain", e);
    if (r == 0)
        r = fiber_spawn(loop, "helper", write_all, req, &helper, e);
    return r < 0 ? r : fiber_join(helper, e);
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
    if (r == 0)
        r = http_sse_send_id(req, "7", "delta", STR("x"), e);
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
    ROW(POST,   "/t/optional",    echo,       .need = NEED_NONE, .in = &part_shape, .out = &part_shape, .flags = ROUTE_OPTIONAL),
    ROW(POST,   "/t/raw",         raw,        .need = NEED_NONE, .max_body = 1024),
    ROW(GET,    "/t/query",       show_query, .need = NEED_NONE, .query = &thing_shape, .out = &thing_shape),
    ROW(GET,    "/t/hold",        hold,       .need = NEED_NONE),
    ROW(GET,    "/t/nap",         nap,        .need = NEED_NONE),
    ROW(GET,    "/t/fail/{how}",  fail,       .need = NEED_NONE),
    ROW(GET,    "/t/big",         big,        .need = NEED_NONE),
    ROW(GET,    "/t/stream",      stream_all, .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/helped",      stream_helped, .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/events",      events,     .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/broken",      broken,     .need = NEED_NONE, .flags = ROUTE_STREAM),
    ROW(GET,    "/t/upgrade",     upgrade,    .need = NEED_NONE, .flags = ROUTE_WS),
    ROW(GET,    "/t/secret",      no_content, .need = NEED_READ, .status = 204),
};
/* clang-format on */

static const struct http_table table = { "/t", &dialect_fastapi, rows, LEN(rows), NULL };
static struct http_table docs = { "/docs", &dialect_plain, NULL, 0, NULL };
static const struct http_route express_rows[] = {
    ROW(GET, "/x/thing", no_content, .need = NEED_NONE, .status = 204),
};
static const struct http_table express = { "/x", &dialect_express, express_rows, 1, NULL };

/* A dialect that is all its own. */
static void own_error(struct http_req *req, const struct err *e, int status,
                      const struct shape_issue *issues, const char *where)
{
    http_reply_text(req, status, "text/plain", STR("own error"));
}

static void own_begin(struct http_req *req)
{
    http_reply_header(req, "X-Own", "1");
}

static CO int close_after(struct http_req *req, struct err *e)
{
    req->close = true;
    http_reply_text(req, 200, "text/plain", STR("bye"));
    return 0;
}

static const struct http_dialect dialect_own = {
    .name = "own",
    .error = own_error,
    .options_ok = true,
    .unknown_method = true,
    .stranger = "who?",
    .begin = own_begin,
};
static const struct http_route own_rows[] = {
    ROW(GET, "/o/secret", no_content, .need = NEED_READ),
    ROW(GET, "/o/close", close_after, .need = NEED_NONE),
    ROW(POST, "/o/body", close_after, .need = NEED_NONE),
};
static const long long own_body_max = 10;
static const struct http_table own = { "/o",          &dialect_own, own_rows,
                                       LEN(own_rows), NULL,         .body_max = &own_body_max };
static const struct http_table *const tables[] = { &table, &docs, &express, &own };

/* Says which path was asked for, and who asked. */
static CO int any_upgrade(struct http_req *req, struct err *e)
{
    if (str_eq_z(req->path, "/fail"))
        return err_set(e, ERR_UNAVAILABLE, "full");
    http_reply_text(
        req, 200, "text/plain",
        str_of(arena_printf(req->arena, STR_FMT " %s", STR_ARG(req->path), req->who.name)));
    return 0;
}

static const struct http_route any_upgrade_route =
    ROW(GET, "/", any_upgrade, .need = NEED_NONE, .flags = ROUTE_WS | ROUTE_ASKS);

static int authenticate(struct http_req *req, const struct stream_addr *peer, void *arg,
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

const struct http_limits usual = {
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

struct http_limits limits;
struct http_server *server;
struct loop *loop;
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

bool serve(const struct http_limits *with, CO int (*fn)(struct err *e))
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
    http_server_upgrades(server, &any_upgrade_route, &dialect_express, NULL);
    loop_run(loop);
    loop_free(loop);
    return o.r == 0;
}

static void ignore_line(enum log_level level, const char *line, void *arg)
{
}

bool serve_quietly(const struct http_limits *with, CO int (*fn)(struct err *e))
{
    bool ok;

    log_capture(ignore_line, NULL);
    ok = serve(with, fn);
    log_capture(NULL, NULL);
    return ok;
}

/* --- the client's side --- */

void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->text);
    *c = (struct client){ .fd = -1 };
}

int client_open(struct client *c, struct err *e)
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

CO int say(struct client *c, const char *text, struct err *e)
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

CO bool hears(struct client *c, const char *needle, int times, struct err *e)
{
    size_t len = strlen(needle), from = 0;

    for (;;) {
        const char *at;

        while (c->n > from && (at = memmem(c->text + from, c->n - from, needle, len)) != NULL) {
            from = (size_t)(at - c->text) + len;
            times--;
        }
        if (times <= 0)
            return true;
        if (c->n > from + len)
            from = c->n - len; /* what has been searched is not searched again */
        if (more(c, e) <= 0) {
            printf("# heard only: %.300s\n", c->text ? c->text : "");
            return false;
        }
    }
}

CO bool ends(struct client *c, struct err *e)
{
    ssize_t n;

    do
        n = more(c, e);
    while (n > 0);
    return n == 0;
}

CO bool talk(struct client *c, const char *text, struct err *e)
{
    client_close(c);
    if (client_open(c, e) < 0 || say(c, text, e) < 0)
        return false;
    return ends(c, e) && c->text;
}

bool has(const struct client *c, const char *needle)
{
    if (c->text && strstr(c->text, needle))
        return true;
    printf("# no \"%s\" in: %.400s\n", needle, c->text ? c->text : "");
    return false;
}

bool starts(const struct client *c, const char *start)
{
    if (c->text && strncmp(c->text, start, strlen(start)) == 0)
        return true;
    printf("# not \"%s\" but: %.400s\n", start, c->text ? c->text : "");
    return false;
}
