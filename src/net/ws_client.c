/* SPDX-License-Identifier: MIT */
/*
 * net/ws_client.c — the client's side of the opening (RFC 6455 §4.1), as a fiber.
 */
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "net/url.h"
#include "net/ws.h"
#include "net/ws_int.h"

#define HEAD_MAX (16 * KIB)

DEFINE_AUTO(stream_free, struct stream *);
DEFINE_AUTO(tls_context_free, struct tls_context *);

static void wake(struct stream *s, unsigned events, void *arg)
{
    fiber_wake(arg);
}

CO static int wait_for(struct stream *s, unsigned events, uint64_t deadline_ms, struct err *e)
{
    int r;

    stream_want(s, events);
    r = fiber_park(deadline_ms, e);
    stream_want(s, 0);
    return r;
}

static int build_request(const struct ws_connect *c, const struct url *u, const char *key,
                         struct buf *b, struct err *e)
{
    char port[8] = "";
    int r;

    if (u->port_given)
        fmt_z(port, sizeof(port), ":%u", u->port);
    r = buf_printf(b, e, "GET " STR_FMT "%s" STR_FMT " HTTP/1.1\r\nHost: %s" STR_FMT "%s%s\r\n",
                   STR_ARG(u->path), u->query.p ? "?" : "", STR_ARG(u->query), u->ipv6 ? "[" : "",
                   STR_ARG(u->host), u->ipv6 ? "]" : "", port);
    if (r == 0)
        r = buf_printf(b, e,
                       "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n",
                       key);
    if (r == 0 && c->subprotocol)
        r = buf_printf(b, e, "Sec-WebSocket-Protocol: %s\r\n", c->subprotocol);
    for (const char *const *h = c->headers; r == 0 && h && *h; h++) {
        if (strpbrk(*h, "\r\n"))
            return err_set(e, ERR_INVALID, "a header of the request is malformed");
        r = buf_printf(b, e, "%s\r\n", *h);
    }
    if (r == 0)
        r = buf_add_z(b, "\r\n", e);
    return r;
}

CO static int send_all(struct stream *s, struct buf *b, uint64_t deadline_ms, struct err *e)
{
    struct str left = buf_str(b);
    struct iovec iov;
    size_t n;
    int r;

    while (left.n > 0) {
        memcpy(&iov.iov_base, &left.p, sizeof(left.p)); /* writev only reads it */
        iov.iov_len = left.n;
        r = stream_writev(s, &iov, 1, &n, e);
        if (r == STREAM_AGAIN) {
            r = wait_for(s, LOOP_WRITE, deadline_ms, e);
            if (r < 0)
                return r;
            continue;
        }
        if (r < 0)
            return r;
        left = (struct str){ left.p + n, left.n - n };
    }
    return 0;
}

/* Read until the head's end; *ret_n is its length with the empty line, b may hold more. */
CO static int read_head(struct stream *s, struct buf *b, size_t *ret_n, uint64_t deadline_ms,
                        struct err *e)
{
    const char *end;
    char *to;
    size_t n;
    int r;

    for (;;) {
        end = b->n ? memmem(buf_str(b).p, b->n, "\r\n\r\n", 4) : NULL;
        if (end) {
            *ret_n = (size_t)(end + 4 - buf_str(b).p);
            return 0;
        }
        if (b->n == HEAD_MAX)
            return err_set(e, ERR_UNAVAILABLE, "answer's head is over %zu bytes", HEAD_MAX);
        n = HEAD_MAX - b->n < 4096 ? HEAD_MAX - b->n : 4096;
        r = buf_reserve(b, n, &to, e);
        if (r < 0)
            return r;
        r = stream_read(s, to, n, &n, e);
        if (r == 0)
            buf_commit(b, n);
        else if (r == STREAM_AGAIN)
            r = wait_for(s, LOOP_READ, deadline_ms, e);
        else if (r == STREAM_END)
            r = err_set(e, ERR_UNAVAILABLE, "the server hung up instead of answering");
        if (r < 0)
            return r;
    }
}

CO static int shake_hands(struct stream *s, const struct ws_connect *c, const struct url *u,
                          struct buf *in, size_t *ret_head, struct err *e)
{
    AUTO(buf_done) struct buf out;
    unsigned char nonce[16];
    char key[WS_KEY_TEXT];
    int r;

    buf_init(&out, HEAD_MAX);
    rand_bytes(nonce, sizeof(nonce));
    ws_base64(nonce, sizeof(nonce), key);
    r = build_request(c, u, key, &out, e);
    if (r == 0)
        r = send_all(s, &out, c->deadline_ms, e);
    if (r == 0)
        r = read_head(s, in, ret_head, c->deadline_ms, e);
    if (r == 0)
        r = ws_check_answer((struct str){ buf_str(in).p, *ret_head - 2 }, key, c->subprotocol, e);
    return r;
}

/* The context for wss: the caller's, or one of the system's CAs that *own keeps alive. */
static int choose_tls(const struct ws_connect *c, const struct url *u, struct tls_context **own,
                      struct tls_context **ret, struct err *e)
{
    *ret = NULL;
    if (!str_eq_nocase(u->scheme, STR("wss")))
        return 0;
    *ret = c->tls;
    if (c->tls)
        return 0;
    if (tls_client_new(NULL, own, e) < 0)
        return -e->code;
    *ret = *own;
    return 0;
}

CO static int open_it(struct loop *loop, const struct ws_connect *c, const struct url *u,
                      const char *host, struct stream **ret, struct buf *in, size_t *ret_head,
                      struct err *e)
{
    AUTO(tls_context_free) struct tls_context *own = NULL;
    AUTO(stream_free) struct stream *s = NULL;
    struct tls_context *tls;
    int r;

    r = choose_tls(c, u, &own, &tls, e);
    if (r < 0)
        return r;
    r = c->unix_socket ? stream_connect_unix(loop, c->unix_socket, &s, e)
                       : stream_connect(loop, host, u->port, tls, c->deadline_ms, &s, e);
    if (r < 0)
        return r;
    if (c->keep_alive_s)
        stream_keep_alive(s, c->keep_alive_s);
    stream_rebind(s, wake, fiber_self());
    r = shake_hands(s, c, u, in, ret_head, e);
    if (r < 0)
        return err_wrap(e, "WebSocket with %s:%u", host, u->port);
    *ret = TAKE(s);
    return 0;
}

CO int ws_open(struct loop *loop, const struct ws_connect *c, const struct ws_limits *limits,
               const struct ws_ops *ops, void *arg, struct ws **ret, struct err *e)
{
    AUTO(buf_done) struct buf in;
    AUTO(free) char *host = NULL;
    struct stream *s = NULL;
    struct err local;
    struct str rest;
    struct url u;
    size_t head;
    int r;

    buf_init(&in, HEAD_MAX);
    e = e ? e : &local;
    r = url_parse(str_of(c->url), &u, e);
    if (r < 0)
        return r;
    if (!str_eq_nocase(u.scheme, STR("ws")) && !str_eq_nocase(u.scheme, STR("wss")))
        return err_set(e, ERR_INVALID, "URL of a WebSocket begins with ws:// or wss://");
    host = str_dup(u.host);
    r = open_it(loop, c, &u, host, &s, &in, &head, e);
    if (r < 0)
        return r;
    rest = buf_str(&in);
    rest = (struct str){ rest.p + head, rest.n - head };
    *ret = ws_new(loop, s, NULL, true, limits, ops, arg, (struct str){ 0 }, rest);
    return 0;
}
