/* SPDX-License-Identifier: MIT */
/*
 * net/stream_connect.c — connecting out: resolve, try the addresses, TLS handshake.
 *
 * Addresses are tried in the resolver's order with the families alternating (RFC 8305): the next
 * one starts when the last failed or after 250 ms of silence, and the first to answer wins. All
 * attempts belong to the connecting fiber's frame and end with it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/fiber.h"
#include "base/offload.h"
#include "base/str.h"
#include "net/stream.h"
#include "net/stream_int.h"

#define ADDRS_MAX     8
#define NEXT_AFTER_MS 250

struct attempt {
    struct fiber *fiber;
    struct loop_io *io;
    int fd; /* -1: not started or failed */
    bool ready;
};

struct addrs {
    struct sockaddr_storage sa[ADDRS_MAX];
    socklen_t len[ADDRS_MAX];
    size_t n;
};

/* A name being resolved. Whoever comes last, the fiber that asked or the one that asks, frees it.
 */
struct resolve_job {
    char *host;
    char service[8];
    struct addrinfo *all;
    struct fiber *waiter; /* NULL: it has given up */
    bool done;
    int result;
    struct err err;
};

static int resolve_blocking(void *arg, struct err *e)
{
    struct resolve_job *job = arg;
    struct addrinfo hints = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    int r = getaddrinfo(job->host, job->service, &hints, &job->all);

    if (r != 0)
        return err_set(e, ERR_UNAVAILABLE, "resolve '%s': %s", job->host, gai_strerror(r));
    return 0;
}

static void add_addr(struct addrs *ret, const struct addrinfo *ai)
{
    if (ret->n < ADDRS_MAX && ai->ai_addrlen <= sizeof(ret->sa[0])) {
        memcpy(&ret->sa[ret->n], ai->ai_addr, ai->ai_addrlen);
        ret->len[ret->n++] = ai->ai_addrlen;
    }
}

/* Take the next of the given family (or of any other) from *at on. */
static const struct addrinfo *next_of(const struct addrinfo **at, int family, bool same)
{
    const struct addrinfo *ai = *at;

    while (ai && (ai->ai_family == family) != same)
        ai = ai->ai_next;
    *at = ai ? ai->ai_next : NULL;
    return ai;
}

static void interleave(const struct addrinfo *all, struct addrs *ret)
{
    const struct addrinfo *first = all, *second = all, *ai;
    int family = all ? all->ai_family : AF_UNSPEC;

    while (first || second) {
        ai = next_of(&first, family, true);
        if (ai)
            add_addr(ret, ai);
        ai = next_of(&second, family, false);
        if (ai)
            add_addr(ret, ai);
    }
}

static void job_free(struct resolve_job *job)
{
    if (job->all)
        freeaddrinfo(job->all);
    free(job->host);
    free(job);
}

CO static int ask(void *arg, struct err *e)
{
    struct resolve_job *job = arg;

    job->result = offload(resolve_blocking, job, &job->err);
    job->done = true;
    if (job->waiter)
        fiber_wake(job->waiter);
    else
        job_free(job);
    return 0;
}

CO static int wait_for_answer(struct resolve_job *job, uint64_t deadline_ms, struct err *e)
{
    int r;

    while (!job->done) {
        r = fiber_park(deadline_ms, e);
        if (r < 0) {
            (void)err_wrap(e, "resolve '%s'", job->host);
            return r;
        }
    }
    if (job->result < 0)
        *e = job->err;
    return job->result;
}

/* A silent name server can hold a thread for long after the deadline; it need not hold us. */
CO static int resolve(struct loop *loop, const char *host, unsigned short port,
                      uint64_t deadline_ms, struct addrs *ret, struct err *e)
{
    struct addrinfo literal = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                .ai_socktype = SOCK_STREAM };
    struct resolve_job *job = xcalloc(1, sizeof(*job));
    int r;

    job->host = xstrdup(host);
    job->waiter = fiber_self();
    fmt_z(job->service, sizeof(job->service), "%u", port);
    job->done = getaddrinfo(host, job->service, &literal, &job->all) == 0; /* needs no thread */
    r = job->done ? 0 : fiber_spawn(loop, "resolve", ask, job, NULL, e);
    if (r < 0) {
        job_free(job);
        return r;
    }
    r = wait_for_answer(job, deadline_ms, e);
    if (!job->done) {
        job->waiter = NULL;
        return r;
    }
    ret->n = 0;
    if (r == 0)
        interleave(job->all, ret);
    job_free(job);
    if (r == 0 && ret->n == 0)
        r = err_set(e, ERR_UNAVAILABLE, "resolve '%s': no address", host);
    return r;
}

static void on_attempt(struct loop_io *io, unsigned events, void *arg)
{
    struct attempt *t = arg;

    t->ready = true;
    loop_io_want(io, 0);
    fiber_wake(t->fiber);
}

static void attempt_end(struct attempt *t)
{
    loop_io_free(TAKE(t->io));
    if (t->fd >= 0)
        close(take_fd(&t->fd));
}

static int attempt_begin(struct loop *loop, struct attempt *t, const struct sockaddr *sa,
                         socklen_t len, struct err *e)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

    if (fd < 0)
        return err_sys(e, "socket");
    if (sa->sa_family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
                         sizeof(on)); /* slower without, not wrong */
    if (connect(fd, sa, len) < 0 && errno != EINPROGRESS) {
        int eno = errno;

        close(fd);
        return err_sysn(e, eno, "connect");
    }
    t->fd = fd;
    t->io = loop_io_new(loop, fd, on_attempt, t);
    loop_io_want(t->io, LOOP_WRITE);
    return 0;
}

/* 0: connected. */
static int attempt_result(struct attempt *t, struct err *e)
{
    int eno = 0;
    socklen_t len = sizeof(eno);

    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &eno, &len) < 0)
        eno = errno;
    return eno == 0 ? 0 : err_sysn(e, eno, "connect");
}

/* The fd of the first attempt that is through, else -1; those that failed are ended. */
static int harvest(struct attempt *tries, size_t n, size_t *live, struct err *e)
{
    int fd = -1;

    *live = 0;
    for (size_t i = 0; i < n; i++) {
        struct attempt *t = &tries[i];

        if (t->fd < 0)
            continue;
        if (!t->ready) {
            ++*live;
        } else if (fd < 0 && attempt_result(t, e) == 0) {
            fd = take_fd(&t->fd);
            attempt_end(t);
        } else {
            attempt_end(t);
        }
    }
    return fd;
}

CO static int race(struct loop *loop, const struct addrs *addrs, struct attempt *tries,
                   uint64_t deadline_ms, int *ret_fd, struct err *e)
{
    size_t started = 0, live = 0;
    uint64_t next_ms = 0;
    int fd, r;

    for (;;) {
        fd = harvest(tries, started, &live, e);
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        while (started < addrs->n && (live == 0 || now_ms() >= next_ms)) {
            const struct sockaddr *sa = (const struct sockaddr *)&addrs->sa[started];

            if (attempt_begin(loop, &tries[started], sa, addrs->len[started], e) == 0)
                live++;
            started++;
            next_ms = now_ms() + NEXT_AFTER_MS;
        }
        if (live == 0)
            return -e->code; /* of the last attempt */
        r = fiber_park(started < addrs->n ? deadline_min(deadline_ms, next_ms) : deadline_ms, e);
        if (r == -ERR_TIMEOUT && now_ms() < deadline_ms)
            continue; /* only time for the next address */
        if (r < 0)
            return r;
    }
}

CO static int connect_any(struct loop *loop, const struct addrs *addrs, uint64_t deadline_ms,
                          int *ret_fd, struct err *e)
{
    struct attempt tries[ADDRS_MAX];
    int r;

    for (size_t i = 0; i < LEN(tries); i++)
        tries[i] = (struct attempt){ .fiber = fiber_self(), .fd = -1 };
    r = race(loop, addrs, tries, deadline_ms, ret_fd, e);
    for (size_t i = 0; i < LEN(tries); i++)
        attempt_end(&tries[i]);
    return r;
}

static void wake_owner(struct stream *s, unsigned events, void *arg)
{
    fiber_wake(arg);
}

static void ignore_ready(struct stream *s, unsigned events, void *arg)
{
}

DEFINE_AUTO(stream_free, struct stream *);

CO static int shake_hands(struct stream *s, uint64_t deadline_ms, struct err *e)
{
    int r;

    while ((r = stream_handshake(s, e)) == STREAM_AGAIN) {
        stream_want(s, LOOP_READ);
        r = fiber_park(deadline_ms, e);
        if (r < 0)
            return r;
    }
    stream_want(s, 0);
    return r;
}

CO int stream_connect(struct loop *loop, const char *host, unsigned short port,
                      struct tls_context *tls, uint64_t deadline_ms, struct stream **ret,
                      struct err *e)
{
    AUTO(stream_free) struct stream *s = NULL;
    struct err local;
    struct addrs addrs;
    int fd, r;

    if (!e)
        e = &local;
    r = resolve(loop, host, port, deadline_ms, &addrs, e);
    if (r < 0)
        return r;
    r = connect_any(loop, &addrs, deadline_ms, &fd, e);
    if (r < 0)
        return err_wrap(e, "connect to %s:%u", host, port);
    s = stream_new(loop, fd, tls, tls ? host : NULL, wake_owner, fiber_self());
    r = shake_hands(s, deadline_ms, e);
    if (r < 0)
        return err_wrap(e, "connect to %s:%u", host, port);
    stream_rebind(s, ignore_ready, NULL);
    *ret = TAKE(s);
    return 0;
}

CO int stream_connect_unix(struct loop *loop, const char *path, struct stream **ret, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    AUTO(close_fd) int dir_fd = -1;
    struct sockaddr_un sa;
    int r;

    r = unix_addr_of(path, &sa, &dir_fd, e);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    /* A unix connect never waits: it is done at once, or EAGAIN says the backlog is full. */
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return err_sys(e, "connect to '%s'", path);
    *ret = stream_new(loop, take_fd(&fd), NULL, NULL, ignore_ready, NULL);
    return 0;
}
