/* SPDX-License-Identifier: MIT */
/*
 * net/stream.c — plain sockets, and the readiness of both kinds. A TLS read may need the socket
 * writable (and a write need it readable): the owner says what it wants in its own terms, this
 * file watches what TLS needs for that and reports in the owner's terms again.
 */
#include "net/stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/str.h"
#include "net/stream_int.h"

enum { KEEP_ALIVE_S = 2, KEEP_ALIVE_N = 3 }; /* between questions; unanswered ones */

static bool in6_is_loopback(const struct in6_addr *a)
{
    if (IN6_IS_ADDR_V4MAPPED(a))
        return a->s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(a);
}

void stream_addr_of(const struct sockaddr *sa, struct stream_addr *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;

        inet_ntop(AF_INET, &in->sin_addr, ret->text, sizeof(ret->text));
        ret->port = ntohs(in->sin_port);
        ret->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)sa;

        /* A dual-stack listener sees IPv4 peers in IPv6 clothes: show and count them as IPv4. */
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr))
            inet_ntop(AF_INET, &in->sin6_addr.s6_addr[12], ret->text, sizeof(ret->text));
        else
            inet_ntop(AF_INET6, &in->sin6_addr, ret->text, sizeof(ret->text));
        ret->port = ntohs(in->sin6_port);
        ret->loopback = in6_is_loopback(&in->sin6_addr);
    } else {
        fmt_z(ret->text, sizeof(ret->text), "unknown");
    }
}

static void peer_of(int fd, struct stream_addr *ret)
{
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(sa);

    if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0) {
        sa.ss_family = AF_UNSPEC; /* it went away before we looked; the first read says so */
    } else if (sa.ss_family == AF_UNIX) {
        struct ucred cred = { 0 };

        len = sizeof(cred);
        memset(ret, 0, sizeof(*ret));
        fmt_z(ret->text, sizeof(ret->text), "unix");
        ret->local = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0;
        ret->uid = cred.uid;
        return;
    }
    stream_addr_of((struct sockaddr *)&sa, ret);
}

static void watch(struct stream *s)
{
    unsigned events = 0;

    if (s->want & LOOP_READ)
        events |= s->read_needs;
    if (s->want & LOOP_WRITE)
        events |= s->write_needs;
    loop_io_want(s->io, events);
}

static void on_io(struct loop_io *io, unsigned events, void *arg)
{
    struct stream *s = arg;
    unsigned seen = 0;

    if (events & s->read_needs)
        seen |= s->want & LOOP_READ;
    if (events & s->write_needs)
        seen |= s->want & LOOP_WRITE;
    if (seen)
        s->ready(s, seen, s->arg);
}

struct stream *stream_new(struct loop *loop, int fd, struct tls_context *tls, const char *tls_name,
                          void (*ready)(struct stream *s, unsigned events, void *arg), void *arg)
{
    struct stream *s = xcalloc(1, sizeof(*s));

    s->loop = loop;
    s->fd = fd;
    s->ready = ready;
    s->arg = arg;
    s->read_needs = LOOP_READ;
    s->write_needs = LOOP_WRITE;
    peer_of(fd, &s->peer);
    if (tls)
        s->tls = tls_new(tls, fd, tls_name);
    s->io = loop_io_new(loop, fd, on_io, s);
    return s;
}

int stream_read(struct stream *s, void *p, size_t n, size_t *ret_n, struct err *e)
{
    unsigned char needs = LOOP_READ;
    ssize_t got;
    int r;

    if (s->tls) {
        r = tls_read(s->tls, p, n, ret_n, &needs, e);
        if (needs != s->read_needs) {
            s->read_needs = needs;
            watch(s);
        }
        return r;
    }
    do
        got = recv(s->fd, p, n, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return STREAM_AGAIN;
    if (got < 0)
        return err_sys(e, "read");
    if (got == 0)
        return STREAM_END;
    *ret_n = (size_t)got;
    return 0;
}

int stream_writev(struct stream *s, const struct iovec *iov, int n_iov, size_t *ret_n,
                  struct err *e)
{
    unsigned char needs = LOOP_WRITE;
    struct msghdr msg = { 0 };
    ssize_t put;
    int r;

    if (s->tls) {
        r = tls_writev(s->tls, iov, n_iov, ret_n, &needs, e);
        if (needs != s->write_needs) {
            s->write_needs = needs;
            watch(s);
        }
        return r;
    }
    memcpy(&msg.msg_iov, &iov, sizeof(iov)); /* sendmsg only reads it, its type does not say so */
    msg.msg_iovlen = (size_t)n_iov;
    do
        put = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    if (put < 0 && errno == EAGAIN)
        return STREAM_AGAIN;
    if (put < 0)
        return err_sys(e, "write");
    *ret_n = (size_t)put;
    return 0;
}

int stream_handshake(struct stream *s, struct err *e)
{
    unsigned char needs = LOOP_READ;
    int r;

    if (!s->tls)
        return 0;
    r = tls_handshake(s->tls, &needs, e);
    s->read_needs = r == STREAM_AGAIN ? needs : LOOP_READ;
    watch(s);
    return r;
}

/* Bytes TLS has decrypted already make no descriptor ready, so readiness is reported by hand. */
static void kick(void *arg)
{
    struct stream *s = arg;

    s->kicked = false;
    if (!s->freed && (s->want & LOOP_READ) && stream_pending(s))
        s->ready(s, LOOP_READ, s->arg);
}

void stream_want(struct stream *s, unsigned events)
{
    bool more = (events & LOOP_READ) && !(s->want & LOOP_READ);

    s->want = (unsigned char)events;
    watch(s);
    if (more && !s->kicked && stream_pending(s)) {
        s->kicked = true;
        loop_post(s->loop, kick, s);
    }
}

bool stream_pending(const struct stream *s)
{
    return s->tls && tls_pending(s->tls);
}

int stream_hung_up(const struct stream *s, struct err *e)
{
    struct pollfd p = { .fd = s->fd, .events = POLLRDHUP };

    if (poll(&p, 1, 0) <= 0)
        return 0;
    if (p.revents & (POLLERR | POLLHUP))
        return err_sysn(e, ECONNRESET, "stream");
    return p.revents & POLLRDHUP ? STREAM_END : 0;
}

void stream_shutdown(struct stream *s)
{
    if (s->tls)
        tls_shutdown(s->tls);
    shutdown(s->fd, SHUT_WR);
}

void stream_ack_now(struct stream *s)
{
    const int on = 1;

    /* On a unix socket there is nothing to acknowledge, and it says so. */
    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

void stream_keep_alive(struct stream *s, unsigned idle_s)
{
    const struct {
        int level, name;
        unsigned value;
    } options[] = {
        { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, idle_s },
        { IPPROTO_TCP, TCP_KEEPINTVL, KEEP_ALIVE_S },
        { IPPROTO_TCP, TCP_KEEPCNT, KEEP_ALIVE_N },
        /* What was sent and is not acknowledged keeps the questions from being asked. */
        { IPPROTO_TCP, TCP_USER_TIMEOUT, 1000 * (idle_s + KEEP_ALIVE_S * KEEP_ALIVE_N) },
    };

    for (size_t i = 0; i < LEN(options) && !s->peer.local; i++)
        (void)setsockopt(s->fd, options[i].level, options[i].name, &options[i].value,
                         sizeof(options[i].value)); /* a connection works without */
}

void stream_reset(struct stream *s)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };

    (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now,
                     sizeof(now)); /* else it is an orderly end */
}

static void free_late(void *arg)
{
    struct stream *s = arg;

    tls_free(s->tls);
    close(s->fd);
    free(s);
}

/* Behind a kick that is still posted: posted calls run in order. */
static void free_posted(void *arg)
{
    struct stream *s = arg;

    loop_defer(s->loop, free_late, s);
}

void stream_free(struct stream *s)
{
    if (!s)
        return;
    assert(!s->freed);
    s->freed = true;
    loop_io_free(TAKE(s->io));
    if (s->kicked)
        loop_post(s->loop, free_posted, s);
    else
        loop_defer(s->loop, free_late, s);
}

const struct stream_addr *stream_peer(const struct stream *s)
{
    return &s->peer;
}

void stream_rebind(struct stream *s, void (*ready)(struct stream *s, unsigned events, void *arg),
                   void *arg)
{
    s->ready = ready;
    s->arg = arg;
}
