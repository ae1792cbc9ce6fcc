/* SPDX-License-Identifier: MIT */
/*
 * machine/egress_conn.c — one connection through the proxy: its head, the verdict, the address,
 * and then bytes both ways. The address that was judged is the one that is connected to; a name is
 * not looked up twice.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/offload.h"
#include "base/time.h"
#include "machine/egress_int.h"
#include "net/outbound.h"

#define HEAD_MS    30000
#define CONNECT_MS 20000
#define IDLE_MS    (15 * 60 * 1000) /* both ways */
#define COPY_SIZE  (16 * KIB)
#define TRIES      8

/* --- which addresses --- */

/* Loopback is this host; addresses in IPv6 clothes are undressed by the policy. */
#define NEVER  "127.0.0.0/8, ::1"
#define INSIDE "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7"

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

    if (a->sa_family == AF_INET6 && b->sa_family == AF_INET && IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr))
        return memcmp(a6->sin6_addr.s6_addr + 12, &b4->sin_addr, 4) == 0;
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
    return memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

/* An unreadable list counts as a yes. */
static bool is_ours(const struct sockaddr *addr)
{
    struct ifaddrs *all = NULL;
    bool ours = false;

    if (getifaddrs(&all) < 0)
        return true;
    for (const struct ifaddrs *i = all; i && !ours; i = i->ifa_next)
        ours = i->ifa_addr &&
               (i->ifa_addr->sa_family == AF_INET || i->ifa_addr->sa_family == AF_INET6) &&
               same_address(addr, i->ifa_addr);
    freeifaddrs(all);
    return ours;
}

static bool may_go(const struct sockaddr *addr, bool exact, const char **ret_why)
{
    struct outbound_policy policy;
    struct err e;

    if (outbound_policy_parse("", exact ? NEVER : NEVER ", " INSIDE, &policy, &e) < 0) {
        *ret_why = "no policy";
        return false;
    }
    if (!outbound_allowed(&policy, addr, ret_why)) {
        if (strstr(*ret_why, "outbound.deny"))
            *ret_why = "an address of this host or its network";
        return false;
    }
    if (is_ours(addr)) {
        *ret_why = "an address of this host";
        return false;
    }
    return true;
}

/* --- connecting --- */

struct lookup {
    const char *host;
    char service[8];
    struct addrinfo *all;
};

static int look_up(void *arg, struct err *e)
{
    struct lookup *l = arg;
    const struct addrinfo hints = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    int r = getaddrinfo(l->host, l->service, &hints, &l->all);

    return r == 0
               ? 0
               : err_set(e, ERR_UNAVAILABLE, "cannot resolve '%s': %s", l->host, gai_strerror(r));
}

CO static int resolve(struct egress *g, struct lookup *l, struct err *e)
{
    int r;

    r = fiber_lane_enter(&g->resolving, deadline_in(CONNECT_MS), e);
    if (r < 0)
        return r;
    r = offload(look_up, l, e);
    fiber_lane_leave(&g->resolving);
    return r;
}

CO static int dial(const struct addrinfo *to, int *ret_fd, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    socklen_t n = sizeof(int);
    int eno = 0, r;

    fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0) {
        if (errno != EINPROGRESS)
            return err_sys(e, "connect");
        r = fiber_wait_fd(fd, LOOP_WRITE, deadline_in(CONNECT_MS), e);
        if (r < 0)
            return r;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &eno, &n) < 0 || eno)
            return err_sysn(e, eno ? eno : errno, "connect");
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

/* ERR_FORBIDDEN: none of its addresses may be reached; ERR_UNAVAILABLE. */
CO static int reach(struct egress *g, const struct egress_head *head, bool exact, int *ret_fd,
                    struct err *e)
{
    struct lookup l = { .host = head->host };
    const char *why = "no address";
    bool tried = false;
    int n = 0, r;

    fmt_z(l.service, sizeof(l.service), "%u", head->port);
    r = resolve(g, &l, e);
    if (r < 0)
        return r;
    r = -ERR_UNAVAILABLE;
    for (const struct addrinfo *to = l.all; to && n < TRIES && r != 0; to = to->ai_next, n++) {
        if (!may_go(to->ai_addr, exact, &why))
            continue;
        tried = true;
        r = dial(to, ret_fd, e);
        if (r == -ERR_CANCELED)
            break;
    }
    freeaddrinfo(l.all);
    if (r != 0 && !tried)
        return err_set(e, ERR_FORBIDDEN, "'%s' is %s", head->host, why);
    if (r != 0 && r != -ERR_CANCELED)
        return err_set(e, ERR_UNAVAILABLE, "cannot connect to '%s'", head->host);
    return r;
}

/* --- bytes both ways --- */

struct way {
    int from, to;
    uint64_t *last; /* when anything went either way */
};

/* Until the end of one side, which the other is told. */
CO static int copy(void *arg, struct err *e)
{
    struct way *w = arg;
    AUTO(free) char *p = xmalloc(COPY_SIZE);
    ssize_t n;
    int r = 0;

    for (;;) {
        n = fiber_read(w->from, p, COPY_SIZE, *w->last + IDLE_MS, e);
        if (n == -ERR_TIMEOUT && *w->last + IDLE_MS > now_ms())
            continue;
        if (n <= 0)
            break;
        *w->last = now_ms();
        r = fiber_write_all(w->to, p, (size_t)n, now_ms() + IDLE_MS, e);
        if (r < 0)
            break;
        *w->last = now_ms();
    }
    shutdown(w->to, n < 0 || r < 0 ? SHUT_RDWR : SHUT_WR);
    if (n < 0 || r < 0)
        shutdown(w->from, SHUT_RDWR); /* the other way ends too */
    return 0;
}

/* A descriptor has one fiber that waits for it: the writing sides are copies. */
CO static int copy_both(struct egress *g, int a, int b, struct err *e)
{
    AUTO(close_fd) int to_a = fcntl(a, F_DUPFD_CLOEXEC, 0);
    AUTO(close_fd) int to_b = fcntl(b, F_DUPFD_CLOEXEC, 0);
    uint64_t last = now_ms();
    struct way up = { a, to_b, &last }, down = { b, to_a, &last };
    struct fiber *fiber;
    int r;

    if (to_a < 0 || to_b < 0)
        return err_sys(e, "copy a descriptor");
    r = fiber_spawn(g->loop, "egress up", copy, &up, &fiber, e);
    if (r < 0)
        return r;
    r = copy(&down, e);
    if (fiber_canceled())
        fiber_cancel(fiber);
    (void)fiber_join(fiber, e); /* it never fails: an end is an end */
    return r;
}

/* --- a connection --- */

/* Short, and the last thing said: who does not read it loses it. */
CO static void refuse(int fd, const char *status, const char *text)
{
    AUTO(free)
    char *answer = xasprintf("HTTP/1.1 %s\r\nContent-Type: text/plain\r\n"
                             "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
                             status, strlen(text) + 1, text);
    struct err e;

    if (fiber_write_all(fd, answer, strlen(answer), deadline_in(HEAD_MS), &e) == 0)
        shutdown(fd, SHUT_WR);
}

/* ret gets what was read; *head and origin are filled. */
CO static int hear(int fd, struct buf *in, struct egress_head *head, struct buf *origin,
                   struct err *e)
{
    uint64_t deadline = deadline_in(HEAD_MS);
    ssize_t n;
    char *p;
    int r;

    for (;;) {
        r = egress_head_parse(buf_str(in), head, origin, e);
        if (r != EGRESS_MORE)
            return r;
        r = buf_reserve(in, 2048, &p, e);
        if (r < 0)
            return r;
        n = fiber_read(fd, p, 2048, deadline, e);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return err_set(e, ERR_CANCELED, "it has gone");
        buf_commit(in, (size_t)n);
    }
}

CO static void refuse_host(struct egress *g, int fd, const struct egress_head *head,
                           const char *why)
{
    AUTO(free)
    char *text =
        xasprintf("chela: this machine may not reach %s:%u (%s).\nWhat it may reach is named when "
                  "it is created: --allow %s%s",
                  head->host, head->port, why, head->host,
                  head->port == 80 || head->port == 443 ? "" : ":PORT");

    log_warn("a machine was refused a way out", "proxy", LOG_STR(g->path), "host",
             LOG_STR(head->host), "port", LOG_INT(head->port), "why", LOG_STR(why));
    refuse(fd, "403 Forbidden", text);
}

/* What may be sent on at once: the answer to CONNECT, or the request and what came behind it. */
CO static int begin(int fd, int out, struct buf *in, const struct egress_head *head,
                    const struct buf *origin, struct err *e)
{
    static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    uint64_t deadline = deadline_in(CONNECT_MS);
    struct str s = buf_str(origin);
    int r;

    if (head->tunnel)
        r = fiber_write_all(fd, established, sizeof(established) - 1, deadline, e);
    else
        r = fiber_write_all(out, s.p, s.n, deadline, e);
    buf_eat(in, head->size);
    s = buf_str(in);
    return r == 0 && s.n > 0 ? fiber_write_all(out, s.p, s.n, deadline, e) : r;
}

CO static int serve(struct egress *g, int fd, struct err *e)
{
    AUTO(close_fd) int out = -1;
    AUTO(buf_done) struct buf in, origin;
    struct egress_head head;
    bool exact;
    int r;

    buf_init(&in, 2 * EGRESS_HEAD_MAX);
    buf_init(&origin, 2 * EGRESS_HEAD_MAX);
    r = hear(fd, &in, &head, &origin, e);
    if (r == -ERR_INVALID || r == -ERR_LIMIT)
        refuse(fd, "400 Bad Request", e->msg);
    if (r < 0)
        return 0;
    if (!egress_allows((const char *const *)g->allow, g->n_allow, str_of(head.host), head.port,
                       &exact)) {
        refuse_host(g, fd, &head, "it is not on its list");
        return 0;
    }
    r = reach(g, &head, exact, &out, e);
    if (r == -ERR_FORBIDDEN)
        refuse_host(g, fd, &head, e->msg);
    else if (r < 0 && r != -ERR_CANCELED)
        refuse(fd, r == -ERR_TIMEOUT ? "504 Gateway Timeout" : "502 Bad Gateway", e->msg);
    if (r == 0)
        r = begin(fd, out, &in, &head, &origin, e);
    return r < 0 ? 0 : copy_both(g, fd, out, e);
}

CO int egress_serve(void *arg, struct err *e)
{
    struct egress_conn conn = *(struct egress_conn *)arg;
    int r;

    free(arg);
    r = serve(conn.proxy, conn.fd, e);
    close(conn.fd);
    return r;
}
