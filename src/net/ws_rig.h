/* SPDX-License-Identifier: MIT */
/*
 * net/ws_rig.h — for tests of WebSockets: sockets over socket pairs, and users that write down
 * what they are told.
 */
#pragma once

#include <stdlib.h>
#include <sys/socket.h>

#include "base/fiber.h"
#include "base/str.h"
#include "net/ws_sock.h"
#include "test.h"

static struct loop *loop;

struct run {
    int (*test)(struct err *e);
    int result;
};

CO static int run_test(void *arg, struct err *e)
{
    struct run *run = arg;

    run->result = run->test(e);
    if (run->result < 0)
        printf("# error at the end: %s\n", e->msg);
    return 0;
}

static inline int in_loop(int (*test)(struct err *e))
{
    struct run run = { test, -1 };
    struct err e = { 0 };

    CHECK_INT(loop_new(&loop, &e), 0);
    CHECK_INT(fiber_spawn(loop, "test", run_test, &run, NULL, &e), 0);
    loop_run(loop);
    loop_free(loop);
    return run.result;
}

struct user { /* one side's ops, written down */
    struct ws *ws;
    unsigned messages, closes, code;
    size_t bytes;
    char last[200], reason[130];
    bool echo;
    unsigned close_on_message;
};

static inline void on_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct user *u = arg;
    struct err e;

    u->messages++;
    u->bytes += data.n;
    fmt_z(u->last, sizeof(u->last), "%s:%.*s", kind == WS_TEXT ? "text" : "binary",
          data.n < 150 ? (int)data.n : 150, data.p);
    if (u->echo && ws_send(ws, kind, data, &e) < 0)
        fmt_z(u->last, sizeof(u->last), "echo failed: %s", e.msg);
    if (u->close_on_message)
        ws_close(ws, u->close_on_message, "seen enough");
}

static inline void on_closed(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    struct user *u = arg;

    u->closes++;
    u->code = code;
    fmt_z(u->reason, sizeof(u->reason), STR_FMT, STR_ARG(reason));
}

static const struct ws_ops ops = { on_message, on_closed };

static inline void ignore_ready(struct stream *s, unsigned events, void *arg)
{
}

static inline struct ws *open_on(int fd, bool client, const struct ws_limits *limits,
                                 struct user *u)
{
    struct stream *s = stream_new(loop, fd, NULL, NULL, ignore_ready, NULL);

    return ws_new(loop, s, NULL, client, limits, u ? &ops : NULL, u, (struct str){ 0 },
                  (struct str){ 0 });
}

/* Small socket buffers, so that a slow reader is felt soon. */
static inline void make_pair(int fd[2])
{
    int size = 16 * 1024;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0)
        abort();
    for (int i = 0; i < 2; i++)
        setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static inline void open_pair(struct user *server, struct user *client,
                             const struct ws_limits *limits)
{
    int fd[2];

    make_pair(fd);
    server->ws = open_on(fd[0], false, limits, server);
    client->ws = open_on(fd[1], true, limits, client);
}

#define UNTIL(cond) \
    do { \
        uint64_t limit_ = deadline_in(5000); \
        while (!(cond)) { \
            CO_CHECK(now_ms() < limit_); \
            CO_CHECK(fiber_sleep(1, e) == 0); \
        } \
    } while (0)
