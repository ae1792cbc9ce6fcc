/* SPDX-License-Identifier: MIT */
/*
 * net/http_server.c — listeners, the limits at the door, the sweep that ends what takes too long,
 * and orderly shutdown.
 *
 * Deadlines of connections need no timer each: every state has a list in order of time, and one
 * tick looks at the heads of those lists.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/rand.h"
#include "net/http_int.h"

enum {
    ACCEPT_BURST = 64,
    PARTING_MAX = 1024, /* refused connections kept open a moment */
    PARTING_MS = 1000,  /* so long, for the peer to read why */
    QUIET_MS = 60000,   /* between two warnings about descriptors */
    TICK_MIN = 10,
    TICK_MAX = 1000,
};

struct http_listener {
    struct http_listener *next;
    struct http_server *server;
    struct loop_io *io;
    struct tls_context *tls;
    int fd;
};

struct http_parting { /* a ring, oldest at first */
    int fds[PARTING_MAX];
    uint64_t since_ms[PARTING_MAX];
    unsigned first, n;
};

static void part_with_oldest(struct http_parting *p)
{
    close(p->fds[p->first]);
    p->first = (p->first + 1) % PARTING_MAX;
    p->n--;
}

static uint64_t tick_ms(const struct http_server *s)
{
    uint64_t least = (uint64_t)TICK_MAX * 4, ms;

    for (int state = 0; state < CONN_STATES; state++) {
        ms = http_conn_limit_ms(s, (enum conn_state)state);
        least = ms < least ? ms : least;
    }
    return least / 4 < TICK_MIN ? TICK_MIN : least / 4;
}

static void want_tick(struct http_server *s)
{
    if (s->ticking)
        return;
    s->ticking = true;
    loop_timer_set(s->tick, now_ms() + tick_ms(s));
}

static void for_each(struct http_server *s, int state, void (*fn)(struct http_conn *c))
{
    struct http_link *list = &s->lists[state], *link, *following;

    for (link = list->next; link != list; link = following) {
        following = link->next; /* fn may move this one, never another */
        fn(container_of(link, struct http_conn, link));
    }
}

static void for_all(struct http_server *s, void (*fn)(struct http_conn *c))
{
    for (int state = 0; state < CONN_STATES; state++)
        for_each(s, state, fn);
}

static struct http_conn *oldest(struct http_server *s, int state)
{
    struct http_link *list = &s->lists[state];

    return list->next == list ? NULL : container_of(list->next, struct http_conn, link);
}

static void sweep(struct http_server *s, int state, uint64_t now)
{
    uint64_t limit = http_conn_limit_ms(s, (enum conn_state)state);
    struct http_conn *c;

    if (limit == DEADLINE_NONE)
        return;
    /* What expires leaves the list or goes to its end with a new stamp. */
    while ((c = oldest(s, state)) && c->stamp_ms + limit <= now)
        http_conn_expire(c);
}

/* malloc keeps the pages of a burst for the next one; after a calm tick the system gets them back.
 */
static void trim(struct http_server *s)
{
    bool calm = s->freed == s->freed_before && s->n_running <= HTTP_JOBS_KEEP;

    if (calm && s->freed >= HTTP_JOBS_TRIM) {
        malloc_trim(0);
        s->freed = 0;
    }
    s->freed_before = s->freed;
}

static void on_tick(void *arg)
{
    struct http_server *s = arg;
    struct http_parting *p = s->parting;
    uint64_t now = now_ms();

    s->ticking = false;
    for (struct http_listener *l = s->listeners; l; l = l->next)
        loop_io_want(l->io, LOOP_READ); /* ends a rest, see on_acceptable() */
    for (int state = 0; state < CONN_STATES; state++)
        sweep(s, state, now);
    for_each(s, CONN_RUN, http_conn_check);
    for_each(s, CONN_STREAM, http_conn_check);
    while (p->n > 0 && now - p->since_ms[p->first] >= PARTING_MS)
        part_with_oldest(p);
    trim(s);
    if (s->n_conns > 0 || p->n > 0 || s->freed >= HTTP_JOBS_TRIM)
        want_tick(s);
}

int http_server_new(struct loop *loop, const struct http_limits *limits,
                    const struct http_server_ops *ops, const struct http_table *const *tables,
                    size_t n_tables, struct http_server **ret, struct err *e)
{
    struct http_router *router;
    struct http_server *s;
    unsigned char boot[4];
    int r;

    r = http_router_new(tables, n_tables, &router, e);
    if (r < 0)
        return r;
    s = xcalloc(1, sizeof(*s));
    s->loop = loop;
    s->limits = limits;
    s->ops = *ops;
    s->router = router;
    s->tables = tables;
    s->n_tables = n_tables;
    s->seats = http_seats_new();
    s->parting = xcalloc(1, sizeof(*s->parting));
    s->tick = loop_timer_new(loop, on_tick, s);
    s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < CONN_STATES; i++)
        s->lists[i].prev = s->lists[i].next = &s->lists[i];
    rand_bytes(boot, sizeof(boot));
    hex_format(boot, sizeof(boot), s->boot);
    *ret = s;
    return 0;
}

void http_server_upgrades(struct http_server *s, const struct http_route *route,
                          const struct http_dialect *dialect, void *room)
{
    s->upgrade.route = route;
    s->upgrade.dialect = dialect;
    s->upgrade.room = room;
}

/* Say why, without reading a byte; then hold the socket a moment, or a reset overtakes the text. */
static void turn_away(struct http_server *s, int fd, bool tls, enum http_refusal why)
{
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\n"
                               "Content-Type: application/json\r\n"
                               "Content-Length: 32\r\n"
                               "Retry-After: 1\r\n"
                               "Connection: close\r\n\r\n"
                               "{\"error\":\"Too many connections\"}";
    struct http_parting *p = s->parting;
    char drain[4096];
    unsigned at;

    http_count_refused(why);
    if (tls) { /* a handshake is the cost this refusal saves */
        close(fd);
        return;
    }
    (void)send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT); /* all we can do */
    (void)shutdown(fd, SHUT_WR);
    if (why == REFUSED_DESCRIPTORS) { /* it cannot be held: read what is there, so no reset */
        for (int i = 0; i < 16 && recv(fd, drain, sizeof(drain), MSG_DONTWAIT) > 0; i++)
            ;
        close(fd);
        return;
    }
    if (p->n == PARTING_MAX)
        part_with_oldest(p);
    at = (p->first + p->n++) % PARTING_MAX;
    p->fds[at] = fd;
    p->since_ms[at] = now_ms();
    want_tick(s);
}

static void admit(struct http_listener *l, int fd, const struct sockaddr *peer)
{
    struct http_server *s = l->server;
    struct http_seat seat = { 0 };

    switch (http_seat_take(s->seats, peer, s->limits->connections, s->limits->connections_per_ip,
                           &seat)) {
    case HTTP_SEAT_FULL:
        turn_away(s, fd, l->tls != NULL, REFUSED_CONNECTIONS);
        return;
    case HTTP_SEAT_FULL_ADDRESS:
        turn_away(s, fd, l->tls != NULL, REFUSED_ADDRESS);
        return;
    }
    http_conn_accept(s, fd, l->tls, &seat);
    want_tick(s);
}

/* Out of descriptors: use the spare one to tell one peer so. False: there was nobody to tell. */
static bool turn_away_with_spare(struct http_listener *l)
{
    struct http_server *s = l->server;
    int fd;

    if (now_ms() >= s->quiet_until_ms) {
        log_warn("out of descriptors: turning connections away", "connections", LOG_INT(s->n_conns),
                 "error", LOG_STR(strerror(errno)));
        s->quiet_until_ms = now_ms() + QUIET_MS;
    }
    if (s->spare_fd < 0)
        return false;
    close(s->spare_fd);
    fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        turn_away(s, fd, l->tls != NULL, REFUSED_DESCRIPTORS);
    s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0;
}

static void on_acceptable(struct loop_io *io, unsigned events, void *arg)
{
    struct http_listener *l = arg;

    for (int i = 0; i < ACCEPT_BURST; i++) {
        struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
        socklen_t len = sizeof(peer);
        int fd = accept4(l->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            admit(l, fd, (struct sockaddr *)&peer);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EAGAIN)
            return;
        if ((errno == EMFILE || errno == ENFILE) && turn_away_with_spare(l))
            continue;
        loop_io_want(l->io, 0); /* nothing that trying at once would help: rest until the tick */
        want_tick(l->server);
        return;
    }
}

int http_server_listen(struct http_server *s, int fd, struct tls_context *tls, struct err *e)
{
    struct http_listener *l;

    if (s->stopping)
        return err_set(e, ERR_UNAVAILABLE, "the server is shutting down");
    l = xcalloc(1, sizeof(*l));
    l->server = s;
    l->fd = fd;
    l->tls = tls;
    l->io = loop_io_new(s->loop, fd, on_acceptable, l);
    loop_io_want(l->io, LOOP_READ);
    l->next = s->listeners;
    s->listeners = l;
    return 0;
}

static void stop_listening(struct http_server *s)
{
    while (s->listeners) {
        struct http_listener *l = s->listeners;

        s->listeners = l->next;
        loop_io_free(l->io);
        close(l->fd);
        free(l);
    }
}

void http_server_left(struct http_server *s)
{
    s->n_conns--;
    http_count_connections(-1);
    if (s->n_conns == 0 && s->stopper)
        fiber_wake(s->stopper);
}

bool http_grant_holds(const struct http_server *s, uint64_t grant)
{
    return !grant || !s->ops.grant_holds || s->ops.grant_holds(grant, s->ops.arg);
}

static void cut_ungranted(struct http_conn *c)
{
    if (!http_grant_holds(c->server, c->job->req.who.grant))
        http_conn_abort(c);
}

static bool seat_holds(uint64_t grant, void *arg)
{
    return http_grant_holds(arg, grant);
}

void http_server_recheck(struct http_server *s)
{
    for_each(s, CONN_STREAM, cut_ungranted);
    http_seats_recheck(s->seats, seat_holds, s);
}

CO int http_server_shutdown(struct http_server *s, uint64_t deadline_ms, struct err *e)
{
    int r = 0;

    s->stopping = true;
    stop_listening(s);
    for_all(s, http_conn_stop);
    s->stopper = fiber_self();
    while (s->n_conns > 0 && r == 0)
        r = fiber_park(deadline_ms, e);
    for_all(s, http_conn_abort);
    while (s->n_conns > 0) /* canceled handlers unwind */
        fiber_park_hard();
    s->stopper = NULL;
    return 0;
}

void http_server_free(struct http_server *s)
{
    if (!s)
        return;
    stop_listening(s);
    for_all(s, http_conn_abort);
    assert(s->n_running == 0);
    while (s->parting->n > 0)
        part_with_oldest(s->parting);
    free(s->parting);
    loop_timer_free(s->tick);
    if (s->spare_fd >= 0)
        close(s->spare_fd);
    while (s->pool) {
        struct http_job *job = s->pool;

        s->pool = job->next;
        http_job_free(job);
    }
    http_seats_free(s->seats);
    http_router_free(s->router);
    free(s);
}

unsigned http_server_connections(const struct http_server *s)
{
    return s->n_conns;
}

unsigned http_server_requests(const struct http_server *s)
{
    return s->n_running;
}
