/* SPDX-License-Identifier: MIT */
/*
 * agent/relay.c — ways out of a sandbox that has no network but loopback: each listens on a port of
 * 127.0.0.1 and carries connections to a unix socket that was put into the sandbox, or to another
 * host and port. A connection that its other side ends is ended with what was under way delivered.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/agent.h"
#include "base/log.h"
#include "net/stream.h"

#define CONNECTIONS_MAX 256
#define CHUNK           (16 * KIB)
#define CONNECT_MS      10000
#define ROUNDS          16 /* of a busy connection before others have their turn */

struct relay {
    struct relays *all;
    const struct agent_relay *conf;
    struct loop_io *io;
    int fd;
};

struct relays {
    struct loop *loop;
    struct fiber_group *group;
    struct relay *v;
    size_t n;
};

struct line { /* one connection */
    const struct agent_relay *conf;
    struct loop *loop;
    int fd;
};

struct flow { /* one direction */
    struct stream *from, *to;
    char *bytes;
    size_t off, n;
    bool ended; /* the reading side, and we have passed it on */
};

static void on_ready(struct stream *s, unsigned events, void *arg)
{
    fiber_wake(arg);
}

/* Move what can be moved now. 1: nothing more can; <0: the connection is broken. */
static int step(struct flow *f, struct err *e)
{
    struct iovec iov;
    size_t n = 0;
    int r;

    if (f->ended)
        return 1;
    if (f->off == f->n) {
        r = stream_read(f->from, f->bytes, CHUNK, &n, e);
        if (r == STREAM_END) {
            stream_shutdown(f->to);
            f->ended = true;
        }
        if (r != 0)
            return r < 0 ? r : 1;
        f->off = 0;
        f->n = n;
    }
    iov = (struct iovec){ f->bytes + f->off, f->n - f->off };
    r = stream_writev(f->to, &iov, 1, &n, e);
    if (r == 0)
        f->off += n;
    return r;
}

/* What each direction waits for. */
static void want(const struct flow flows[2])
{
    for (int i = 0; i < 2; i++) {
        const struct flow *reads = &flows[i], *writes = &flows[1 - i];
        unsigned events = 0;

        if (!reads->ended && reads->off == reads->n)
            events |= LOOP_READ;
        if (writes->off < writes->n)
            events |= LOOP_WRITE;
        stream_want(reads->from, events);
    }
}

static CO int carry(struct stream *a, struct stream *b, struct err *e)
{
    struct flow flows[2] = { { .from = a, .to = b }, { .from = b, .to = a } };
    AUTO(free) char *bytes = xmalloc(2 * CHUNK);
    int r = 0;

    flows[0].bytes = bytes;
    flows[1].bytes = bytes + CHUNK;
    stream_rebind(a, on_ready, fiber_self());
    stream_rebind(b, on_ready, fiber_self());
    for (unsigned round = 1; r >= 0 && !(flows[0].ended && flows[1].ended); round++) {
        int first = step(&flows[0], e), second = first < 0 ? first : step(&flows[1], e);

        r = first < 0 ? first : second;
        if (first != 0 && second != 0 && r >= 0 && !(flows[0].ended && flows[1].ended)) {
            want(flows);
            r = fiber_park(DEADLINE_NONE, e);
        } else if (r >= 0 && round % ROUNDS == 0) {
            r = fiber_yield(e);
        }
    }
    return r;
}

/* "host:port" or the path of a socket. */
static CO int dial(struct loop *loop, const char *to, struct stream **ret, struct err *e)
{
    const char *colon = strrchr(to, ':');
    AUTO(free) char *host = NULL;
    long long port;
    int r;

    if (*to == '/' || !colon)
        return stream_connect_unix(loop, to, ret, e);
    r = int_parse(str_of(colon + 1), 1, 65535, &port, e);
    if (r < 0)
        return r;
    host = xstrndup(to, (size_t)(colon - to));
    return stream_connect(loop, host, (unsigned short)port, NULL, deadline_in(CONNECT_MS), ret, e);
}

DEFINE_AUTO(stream_free, struct stream *);

static CO int line_main(void *arg, struct err *e)
{
    AUTO(free) struct line *line = arg;
    AUTO(stream_free) struct stream *in = NULL;
    AUTO(stream_free) struct stream *out = NULL;
    int r;

    in = stream_new(line->loop, line->fd, NULL, NULL, on_ready, fiber_self());
    r = dial(line->loop, line->conf->to, &out, e);
    if (r == 0)
        r = carry(in, out, e);
    if (r < 0 && r != -ERR_CANCELED)
        log_debug("a relayed connection broke", "to", LOG_STR(line->conf->to), "error", LOG_ERR(e));
    return 0;
}

static void take(struct relay *relay, int fd)
{
    struct relays *all = relay->all;
    struct line *line;
    struct err e;

    if (fiber_group_size(all->group) >= CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    line = xcalloc(1, sizeof(*line));
    line->conf = relay->conf;
    line->loop = all->loop;
    line->fd = fd;
    if (fiber_group_spawn(all->group, "relay", line_main, line, &e) < 0) {
        close(fd);
        free(line);
    }
}

static void on_connection(struct loop_io *io, unsigned events, void *arg)
{
    struct relay *relay = arg;
    int fd;

    while ((fd = accept4(relay->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        take(relay, fd);
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        log_warn("a relay cannot accept", "listen", LOG_STR(relay->conf->listen), "errno",
                 LOG_INT(errno));
}

static int listen_at(struct relay *relay, struct err *e)
{
    const char *text = relay->conf->listen, *colon = strrchr(text, ':');
    AUTO(free) char *host = colon ? xstrndup(text, (size_t)(colon - text)) : NULL;
    unsigned short got;
    long long port;
    int r;

    if (!host || int_parse(str_of(colon + 1), 1, 65535, &port, e) < 0 || !addr_is_loopback(host))
        return err_set(e, ERR_INVALID, "relay '%s' must be an address of loopback and a port",
                       text);
    r = listen_tcp(host, (unsigned short)port, 64, &relay->fd, &got, e);
    if (r < 0)
        return err_wrap(e, "relay");
    relay->io = loop_io_new(relay->all->loop, relay->fd, on_connection, relay);
    loop_io_want(relay->io, LOOP_READ);
    return 0;
}

static void let_go(struct relays *r)
{
    for (size_t i = 0; i < r->n; i++) {
        loop_io_free(r->v[i].io);
        close_fd_auto(&r->v[i].fd);
    }
    fiber_group_free(r->group);
    free(r->v);
    free(r);
}

int relays_new(struct loop *loop, const struct agent_conf *conf, struct relays **ret, struct err *e)
{
    struct relays *r = xcalloc(1, sizeof(*r));
    int result = 0;

    r->loop = loop;
    r->group = fiber_group_new(loop);
    r->v = xcalloc(conf->n_relays + 1, sizeof(*r->v));
    for (size_t i = 0; i < conf->n_relays && result == 0; i++) {
        r->v[r->n++] = (struct relay){ r, &conf->relays[i], NULL, -1 };
        result = listen_at(&r->v[i], e);
    }
    if (result < 0) {
        let_go(r);
        return result;
    }
    *ret = r;
    return 0;
}

CO void relays_free(struct relays *r)
{
    struct err e;

    if (!r)
        return;
    fiber_group_cancel(r->group);
    if (fiber_group_join(r->group, &e) < 0)
        log_warn("relays", "error", LOG_ERR(&e));
    let_go(r);
}
