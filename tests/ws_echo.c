/* SPDX-License-Identifier: MIT */
/*
 * tests/ws_echo.c — the WebSocket of net/ as a program, for the end-to-end tests. Not installed.
 *
 *     ws_echo serve [CERT KEY]      serves on a free port until standard input ends; the port is
 *                                   its one line of output
 *     ws_echo call URL [CA]         opens URL, echoes until the close, prints its code
 *
 * Paths served: /echo (through callbacks), /recv (through a fiber per socket), /chat (the same as
 * /echo, with the subprotocol "chat.v2"), /small (messages up to 1000 bytes), /quick (pings after
 * 50 ms of silence, gives up after 200), /bye (closes with 4001 "good bye" at the first message).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fiber.h"
#include "base/log.h"
#include "net/http_server.h"
#include "net/ws.h"

static struct loop *loop;

static void echo(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct err e;

    if (ws_send(ws, kind, data, &e) < 0)
        ws_close(ws, 1011, e.msg);
}

static void bye(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    ws_close(ws, 4001, "good bye");
}

static const struct ws_ops echo_ops = { .message = echo };
static const struct ws_ops bye_ops = { .message = bye };
static const struct ws_limits usual = { .message = 16 * MIB, .queue = 64 * MIB };
static const struct ws_limits small = { .message = 1000 };
static const struct ws_limits quick = { .ping_ms = 50, .dead_ms = 200 };

static int route_echo(struct http_req *req, struct err *e)
{
    struct ws *ws;

    return ws_accept(req, NULL, &usual, &echo_ops, NULL, &ws, e);
}

static int route_chat(struct http_req *req, struct err *e)
{
    struct ws *ws;

    return ws_accept(req, "chat.v2", &usual, &echo_ops, NULL, &ws, e);
}

static int route_small(struct http_req *req, struct err *e)
{
    struct ws *ws;

    return ws_accept(req, NULL, &small, &echo_ops, NULL, &ws, e);
}

static int route_quick(struct http_req *req, struct err *e)
{
    struct ws *ws;

    return ws_accept(req, NULL, &quick, &echo_ops, NULL, &ws, e);
}

static int route_bye(struct http_req *req, struct err *e)
{
    struct ws *ws;

    return ws_accept(req, NULL, &usual, &bye_ops, NULL, &ws, e);
}

/* Echo by a fiber of the socket's own; consumes ws. */
CO static int echo_by_fiber(void *arg, struct err *e)
{
    struct arena a = { 0 };
    struct ws *ws = arg;
    enum ws_kind kind;
    struct str data;
    int r;

    while ((r = ws_recv(ws, &a, &kind, &data, DEADLINE_NONE, e)) == 0) {
        r = ws_send_wait(ws, kind, data, deadline_in(10000), e);
        arena_reset(&a);
        if (r < 0)
            break;
    }
    arena_done(&a);
    ws_free(ws);
    return r == -ERR_UNAVAILABLE || r == WS_CLOSED ? 0 : r;
}

static int route_recv(struct http_req *req, struct err *e)
{
    struct ws *ws;
    int r;

    r = ws_accept(req, NULL, &usual, NULL, NULL, &ws, e);
    if (r != 0)
        return r;
    return fiber_spawn(loop, "echo", echo_by_fiber, ws, NULL, e);
}

#define ROW(name) \
    { \
        .method = HTTP_M_GET, .path = "/" #name, .run = route_##name, .need = NEED_NONE, \
        .flags = ROUTE_WS, .doc = "Echo.", .tag = "echo" \
    }

static const struct http_route routes[] = { ROW(echo),  ROW(recv),  ROW(chat),
                                            ROW(small), ROW(quick), ROW(bye) };
static const struct http_table table = {
    .prefix = "/",
    .dialect = &dialect_plain,
    .routes = routes,
    .n = LEN(routes),
};
static const struct http_table *const tables[] = { &table };
static const struct http_limits limits = {
    .connections = 4000,
    .connections_per_ip = 4000,
    .header_bytes = 64 * 1024,
    .body_bytes = 64 * 1024,
    .json_depth = 16,
    .first_byte_ms = 10000,
    .body_idle_ms = 10000,
    .idle_ms = 60000,
    .write_idle_ms = 10000,
};

static bool any_host(struct str host, const struct stream_addr *peer, void *arg)
{
    return true;
}

static bool any_origin(struct str origin, void *arg)
{
    return true;
}

static const struct http_server_ops server_ops = {
    .host_allowed = any_host,
    .origin_allowed = any_origin,
};

struct job {
    char **argv;
    int argc;
    struct http_server *server;
    struct tls_context *tls;
    unsigned short port;
};

static int listen_on(struct job *job, struct err *e)
{
    int fd, r;

    if (job->argc > 3) {
        r = tls_server_new(job->argv[2], job->argv[3], &job->tls, e);
        if (r < 0)
            return r;
    }
    r = http_server_new(loop, &limits, &server_ops, tables, LEN(tables), &job->server, e);
    if (r < 0)
        return r;
    r = listen_tcp("127.0.0.1", 0, 512, &fd, &job->port, e);
    if (r < 0)
        return r;
    return http_server_listen(job->server, fd, job->tls, e);
}

/* Sockets that are still open when the program is told to end die with it. */
CO static int serve(void *arg, struct err *e)
{
    struct job *job = arg;
    char byte;
    int r;

    r = listen_on(job, e);
    if (r < 0)
        return r;
    printf("%u\n", job->port);
    fflush(stdout);
    if (fiber_wait_fd(STDIN_FILENO, LOOP_READ, DEADLINE_NONE, e) < 0 ||
        read(STDIN_FILENO, &byte, 1) != 0)
        return err_set(e, ERR_INVALID, "standard input is not for reading");
    r = http_server_shutdown(job->server, deadline_in(1000), e);
    http_server_free(job->server);
    tls_context_free(job->tls);
    loop_stop(loop);
    return r;
}

CO static int call(void *arg, struct err *e)
{
    struct job *job = arg;
    struct ws_connect c = { .url = job->argv[2], .deadline_ms = deadline_in(5000) };
    struct arena a = { 0 };
    enum ws_kind kind;
    struct str data;
    struct ws *ws;
    int r;

    if (job->argc > 3) {
        r = tls_client_new(job->argv[3], &c.tls, e);
        if (r < 0)
            return r;
    }
    r = ws_open(loop, &c, &usual, NULL, NULL, &ws, e);
    tls_context_free(c.tls);
    if (r < 0)
        return r;
    while ((r = ws_recv(ws, &a, &kind, &data, DEADLINE_NONE, e)) == 0) {
        if (ws_send_wait(ws, kind, data, deadline_in(10000), e) < 0)
            continue; /* closing: the code is still to come */
        arena_reset(&a);
    }
    if (r == WS_CLOSED)
        printf("%u\n", ws_close_code(ws));
    ws_free(ws);
    arena_done(&a);
    return r;
}

struct program {
    struct job job;
    int (*run)(void *arg, struct err *e);
    int result;
};

CO static int run(void *arg, struct err *e)
{
    struct program *p = arg;

    p->result = p->run(&p->job, e);
    if (p->result < 0)
        fprintf(stderr, "ws_echo: %s\n", e->msg);
    return 0;
}

int main(int argc, char **argv)
{
    struct program p = { .job = { argv, argc } };
    struct err e;

    if (argc >= 2 && strcmp(argv[1], "serve") == 0)
        p.run = serve;
    else if (argc >= 3 && strcmp(argv[1], "call") == 0)
        p.run = call;
    else
        return 2;
    log_setup(LOG_WARN, LOG_TEXT);
    if (loop_new(&loop, &e) < 0 || fiber_spawn(loop, "main", run, &p, NULL, &e) < 0)
        return 1;
    loop_run(loop);
    if (p.run == call)
        loop_free(loop);
    return p.result < 0 ? 1 : 0;
}
