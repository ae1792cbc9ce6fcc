/* SPDX-License-Identifier: MIT */
/*
 * machine/egress.c — the proxy of one machine: its socket and its connections, each of which is a
 * fiber (egress_conn.c).
 */
#include "machine/egress.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "machine/egress_int.h"
#include "net/stream.h"

#define AGAIN_MS 100

static void on_connection(struct loop_io *io, unsigned events, void *arg)
{
    struct egress *g = arg;
    struct egress_conn *conn;
    struct err e;
    int fd;

    if (fiber_group_size(g->group) >= EGRESS_CONNECTIONS) {
        loop_io_want(io, 0); /* they wait in the kernel's queue */
        loop_timer_set(g->again, deadline_in(AGAIN_MS));
        return;
    }
    fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            loop_io_want(io, 0);
            loop_timer_set(g->again, deadline_in(AGAIN_MS));
        }
        return;
    }
    conn = xcalloc(1, sizeof(*conn));
    *conn = (struct egress_conn){ g, fd };
    if (fiber_group_spawn(g->group, "egress", egress_serve, conn, &e) == 0)
        return;
    log_warn("a machine's connection was dropped", "error", LOG_ERR(&e));
    close(fd);
    free(conn);
}

static void on_again(void *arg)
{
    struct egress *g = arg;

    loop_io_want(g->io, LOOP_READ);
}

static int open_listener(struct egress *g, unsigned *ret_port, struct err *e)
{
    unsigned short port = 0;
    int r;

    if (!g->path) {
        r = listen_tcp("127.0.0.1", 0, 128, &g->listener, &port, e);
        if (r == 0 && ret_port)
            *ret_port = port;
        return r;
    }
    if (unlink(g->path) < 0 && errno != ENOENT)
        return err_sys(e, "remove '%s'", g->path);
    r = listen_unix(g->path, &g->listener, e);
    if (r == 0 && chmod(g->path, 0666) < 0)
        return err_sys(e, "chmod '%s'", g->path);
    return r;
}

static void discard(struct egress *g)
{
    loop_timer_free(g->again);
    loop_io_free(g->io);
    close_fd_auto(&g->listener);
    fiber_group_free(g->group);
    for (size_t i = 0; i < g->n_allow; i++)
        free(g->allow[i]);
    free(g->allow);
    free(g->path);
    free(g);
}

int egress_new(struct loop *loop, const char *path, const char *const *allow, size_t n,
               unsigned *ret_port, struct egress **ret, struct err *e)
{
    struct egress *g = xcalloc(1, sizeof(*g));
    int r;

    g->loop = loop;
    g->path = path ? xstrdup(path) : NULL;
    g->listener = -1;
    g->group = fiber_group_new(loop);
    g->allow = xcalloc(n + 1, sizeof(*g->allow));
    for (; g->n_allow < n; g->n_allow++)
        g->allow[g->n_allow] = xstrdup(allow[g->n_allow]);
    r = open_listener(g, ret_port, e);
    if (r < 0) {
        discard(g);
        return err_wrap(e, "egress");
    }
    g->io = loop_io_new(loop, g->listener, on_connection, g);
    g->again = loop_timer_new(loop, on_again, g);
    loop_io_want(g->io, LOOP_READ);
    *ret = g;
    return 0;
}

CO void egress_free(struct egress *g)
{
    struct err e;

    if (!g)
        return;
    loop_timer_stop(g->again);
    loop_io_want(g->io, 0);
    fiber_group_cancel(g->group);
    while (fiber_group_join(g->group, &e) == -ERR_CANCELED && fiber_group_size(g->group) > 0)
        ; /* cancelled ourselves: they end all the same */
    if (g->path)
        (void)unlink(g->path); /* a dead socket is replaced */
    discard(g);
}
