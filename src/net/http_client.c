/* SPDX-License-Identifier: MIT */
/*
 * net/http_client.c — libcurl's multi interface on our loop: sockets, the timer, spare handles.
 *
 * libcurl stops watching a socket after each answer and starts again with the next request. For
 * sockets of our own making the loop keeps on watching for reading in between, which saves two
 * system calls a call; if the peer then says something (it closes), watching ends until libcurl
 * wants the socket again and finds out.
 */
#include "net/http_client.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "net/http_client_int.h"

#define SPARE_MAX   256
#define SPARE_QUIET 8     /* kept for good */
#define TRIM_MS     10000 /* what is not used for so long is given back */

/* --- events --- */

static void apply_timer(struct http_client *c)
{
    if (c->timer_due != c->timer_set) {
        c->timer_set = c->timer_due;
        loop_timer_set(c->timer, c->timer_due);
    }
}

/*
 * libcurl tells us of each close of a connection that has come about, but not when it gives up one
 * that has not. So only a socket that has carried an answer is worth watching on between requests.
 */
static void settle(struct http_exchange *x)
{
    struct http_client *c = x->client;
    curl_socket_t fd = CURL_SOCKET_BAD;

    if (!x->opened || curl_easy_getinfo(x->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK)
        return;
    if (fd != CURL_SOCKET_BAD && (size_t)fd < c->n_watches && c->watches[fd])
        c->watches[fd]->settled = true;
}

static void collect(struct http_client *c)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(c->multi, &left))) {
        struct http_exchange *x = NULL;
        CURLcode code = msg->data.result; /* the message does not survive the removal */

        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        if (code == CURLE_OK)
            settle(x);
        http_exchange_remove(x);
        x->code = code;
        x->done = true;
        if (x->fiber)
            fiber_wake(x->fiber);
    }
}

void http_client_drive(struct http_client *c, curl_socket_t fd, int bits)
{
    int running;
    CURLMcode r = curl_multi_socket_action(c->multi, fd, bits, &running);

    assert(r == CURLM_OK); /* else we misused it, or memory is out */
    collect(c);
    apply_timer(c);
}

static void on_timer(void *arg)
{
    struct http_client *c = arg;

    c->timer_set = c->timer_due = DEADLINE_NONE; /* it has fired; libcurl sets the next */
    http_client_drive(c, CURL_SOCKET_TIMEOUT, 0);
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
    struct http_client *c = arg;

    c->timer_due = ms < 0 ? DEADLINE_NONE : now_ms() + (uint64_t)ms;
    return 0;
}

static void on_socket(struct loop_io *io, unsigned events, void *arg)
{
    struct http_watch *w = arg;
    int bits = 0;

    if (w->idle) {
        loop_io_want(io, 0);
        return;
    }
    if (events & LOOP_READ)
        bits |= CURL_CSELECT_IN;
    if (events & LOOP_WRITE)
        bits |= CURL_CSELECT_OUT;
    http_client_drive(w->client, w->fd, bits);
}

static struct http_watch *watch_get(struct http_client *c, int fd)
{
    size_t i = (size_t)fd, n = c->n_watches;

    if (i >= n) {
        c->n_watches = i + 64;
        c->watches = xrealloc(c->watches, c->n_watches * sizeof(struct http_watch *));
        memset(c->watches + n, 0, (c->n_watches - n) * sizeof(struct http_watch *));
    }
    if (!c->watches[i]) {
        struct http_watch *w = xcalloc(1, sizeof(*w));

        w->client = c;
        w->fd = fd;
        c->watches[i] = w;
    }
    return c->watches[i];
}

static void watch_free(struct http_client *c, int fd)
{
    struct http_watch *w = (size_t)fd < c->n_watches ? c->watches[fd] : NULL;

    if (!w)
        return;
    loop_io_free(w->io);
    free(w);
    c->watches[fd] = NULL;
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
    struct http_client *c = arg;
    struct http_watch *w = watch_get(c, fd);
    unsigned events = 0;

    if (what == CURL_POLL_REMOVE && !w->ours) {
        watch_free(c, fd); /* libcurl's own (its resolver's), closed without a word */
        return 0;
    }
    w->idle = what == CURL_POLL_REMOVE;
    if (w->idle && !w->settled)
        loop_io_free(
            TAKE(w->io)); /* one that was given up while connecting may be closed already */
    if (w->idle)
        return 0;
    if (what & CURL_POLL_IN)
        events |= LOOP_READ;
    if (what & CURL_POLL_OUT)
        events |= LOOP_WRITE;
    if (!w->io)
        w->io = loop_io_new(c->loop, fd, on_socket, w);
    loop_io_want(w->io, events);
    return 0;
}

/* The one place where a connection to elsewhere begins. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct http_exchange *x = arg;
    const char *why = NULL;
    int fd;

    if (addr->family != AF_UNIX && !outbound_allowed(x->client->policy, &addr->addr, &why)) {
        x->refused = why;
        return CURL_SOCKET_BAD;
    }
    fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, addr->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    x->opened++;
    watch_free(x->client, fd); /* of one that was closed without a word */
    watch_get(x->client, fd)->ours = true;
    return fd;
}

static int close_socket(void *arg, curl_socket_t fd)
{
    watch_free(arg, fd);
    return close(fd);
}

/*
 * Called before each request. When a kept connection dies without a byte of answer libcurl sends
 * the request again on a new one, whatever its method. Only a safe request may go twice: the peer
 * may have acted on the first.
 */
static int before_request(void *arg, char *peer_ip, char *our_ip, int peer_port, int our_port)
{
    struct http_exchange *x = arg;
    long sent = 0;

    if (x->requests++ == 0 || x->method == HTTP_M_GET || x->method == HTTP_M_HEAD ||
        x->method == HTTP_M_OPTIONS)
        return CURL_PREREQFUNC_OK;
    curl_easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &sent);
    if (sent == 0)
        return CURL_PREREQFUNC_OK; /* nothing of it reached the dead connection */
    x->fail = HTTP_FAIL_RESET;
    return CURL_PREREQFUNC_ABORT;
}

/* --- exchanges --- */

static CURL *easy_new(struct http_client *c, struct http_exchange *x)
{
    CURL *h = curl_easy_init();

    assert(h); /* fails for lack of memory only */
    curl_easy_setopt(h, CURLOPT_PRIVATE, x);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, x->error);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_NOPROGRESS, 1L);
    /* Else giving up waits, and all of us with it, for a thread in getaddrinfo() to come back. */
    curl_easy_setopt(h, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_PROXY, c->proxy); /* "" also shuts the environment out */
    curl_easy_setopt(h, CURLOPT_NOPROXY, "");     /* the same, and spares a getenv() a call */
    curl_easy_setopt(h, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(h, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(h, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_easy_setopt(h, CURLOPT_TCP_NODELAY, 1L);
    if (c->ca_file)
        curl_easy_setopt(h, CURLOPT_CAINFO, c->ca_file);
    curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(h, CURLOPT_OPENSOCKETDATA, x);
    curl_easy_setopt(h, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(h, CURLOPT_CLOSESOCKETDATA, c); /* a connection outlives the exchange */
    curl_easy_setopt(h, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(h, CURLOPT_PREREQDATA, x);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, http_exchange_on_header);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, http_exchange_on_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, x);
    return h;
}

struct http_exchange *http_exchange_take(struct http_client *c)
{
    struct http_exchange *x = c->spare;

    if (x) {
        c->spare = x->next;
        c->n_spare--;
        if (c->n_spare < c->low_spare)
            c->low_spare = c->n_spare;
        x->next = NULL;
        return x;
    }
    x = xcalloc(1, sizeof(*x));
    x->client = c;
    x->method = HTTP_M_GET;
    buf_init(&x->queue, HTTP_EXCHANGE_QUEUE);
    x->easy = easy_new(c, x);
    return x;
}

static void exchange_free(struct http_exchange *x)
{
    curl_easy_cleanup(x->easy);
    buf_done(&x->queue);
    free(x);
}

void http_exchange_remove(struct http_exchange *x)
{
    if (x->added) {
        x->added = false;
        curl_multi_remove_handle(x->client->multi, x->easy);
        apply_timer(x->client);
    }
}

static void watch_spares(struct http_client *c)
{
    c->trimming = c->n_spare > SPARE_QUIET;
    c->low_spare = c->n_spare;
    if (c->trimming)
        loop_timer_set(c->trim, deadline_in((long long)c->trim_ms));
}

/* Free as many as have lain idle since the last look. */
static void on_trim(void *arg)
{
    struct http_client *c = arg;

    for (unsigned n = c->low_spare; n > 0 && c->n_spare > SPARE_QUIET; n--) {
        struct http_exchange *x = c->spare;

        c->spare = x->next;
        c->n_spare--;
        exchange_free(x);
    }
    watch_spares(c);
}

void http_exchange_give(struct http_exchange *x)
{
    struct http_client *c = x->client;

    http_exchange_remove(x);
    http_exchange_clear(x);
    if (x->host)
        http_host_leave(TAKE(x->host));
    if (c->n_spare >= SPARE_MAX) {
        exchange_free(x);
        return;
    }
    x->next = c->spare;
    c->spare = x;
    c->n_spare++;
    if (!c->trimming)
        watch_spares(c);
}

/* --- the client --- */

int http_client_new(struct loop *loop, const struct http_client_conf *conf,
                    struct http_client **ret, struct err *e)
{
    struct http_client *c;
    struct sigaction old;
    CURLM *multi;

    /* CURLOPT_NOSIGNAL leaves SIGPIPE of libssl's write(2) to the program. */
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, ERR_INTERNAL, "libcurl does not start");
    multi = curl_multi_init();
    assert(multi); /* fails for lack of memory only */

    c = xcalloc(1, sizeof(*c));
    c->loop = loop;
    c->multi = multi;
    c->policy = conf->policy;
    c->per_host = conf->per_host ? conf->per_host : 32;
    c->proxy = xstrdup(conf->proxy ? conf->proxy : "");
    c->ca_file = conf->ca_file && conf->ca_file[0] ? xstrdup(conf->ca_file) : NULL;
    c->unix_dir_fd = -1;
    c->timer_due = c->timer_set = DEADLINE_NONE;
    c->timer = loop_timer_new(loop, on_timer, c);
    c->trim = loop_timer_new(loop, on_trim, c);
    c->trim_ms = TRIM_MS;
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, conf->idle ? conf->idle : 256L);
    *ret = c;
    return 0;
}

void http_client_free(struct http_client *c)
{
    if (!c)
        return;
    while (c->spare) {
        struct http_exchange *x = c->spare;

        c->spare = x->next;
        exchange_free(x);
    }
    curl_multi_cleanup(c->multi); /* closes the kept connections */
    for (size_t fd = 0; fd < c->n_watches; fd++)
        watch_free(c, (int)fd);
    free(c->watches);
    loop_timer_free(c->timer);
    loop_timer_free(c->trim);
    free(c->proxy);
    free(c->ca_file);
    free(c->unix_path);
    if (c->unix_dir_fd >= 0)
        close(c->unix_dir_fd);
    free(c);
    curl_global_cleanup();
}
