/* SPDX-License-Identifier: MIT */
/*
 * net/http_conn_move.c — what a connection does with bytes. pump() lets the mover of its state work
 * until nothing moves; so a burst of pipelined requests is a loop, not a recursion. Bytes behind
 * a request stay unparsed until its answer has been written.
 */
#include "net/http_int.h"

enum { BLANK_MAX = 8 }; /* empty lines forgiven before a request */

static void refuse(struct http_conn *c, int status, const char *text)
{
    http_count_refused(REFUSED_MALFORMED);
    http_job_refuse(c->job, status, text);
    http_conn_step(c, EV_ANSWER);
}

/* The request is all there: run it, or give the answer that has been decided on already. */
static void request_whole(struct http_conn *c)
{
    c->job->linger = false;
    http_conn_step(c, c->job->drop ? EV_ANSWER : EV_RUN);
}

static void body_refused(struct http_conn *c, int status)
{
    if (status == 400) {
        refuse(c, status, "malformed chunked body");
        return;
    }
    if (status == 413)
        http_job_too_large(c->job);
    else
        http_job_too_many(c->job);
    http_conn_step(c, EV_ANSWER);
}

/* The peer holds its body back until we say that we want it. */
static bool invite_body(struct http_conn *c)
{
    struct iovec iov = { .iov_base = (char[]){ "HTTP/1.1 100 Continue\r\n\r\n" }, .iov_len = 25 };
    struct err ignored;
    size_t n;

    return stream_writev(c->stream, &iov, 1, &n, &ignored) == 0 && n == iov.iov_len;
}

/* Nothing is kept of those who may not come in: many large bodies would fill our memory. */
static void check_door(struct http_job *job)
{
    struct err e;
    int r = http_authorise(job, &e);

    if (r < 0)
        http_reply_error(job, &e);
    if (r != 0) {
        job->drop = true;
        job->close |= job->body_left > HTTP_DRAIN_MAX;
        http_job_drop_body(job);
    }
}

static void head_accepted(struct http_conn *c)
{
    struct http_job *job = c->job;
    bool untouched = job->in_n == job->consumed;
    int r = http_body_begin(job);

    if (r == HTTP_BODY_MORE && !job->drop)
        check_door(job);
    if (r == HTTP_BODY_WHOLE) {
        request_whole(c);
    } else if (r != HTTP_BODY_MORE) {
        body_refused(c, r);
    } else if (job->drop && (job->close || job->head.expect_continue)) {
        job->close = job->linger = true; /* not worth waiting for a body */
        http_conn_step(c, EV_ANSWER);
    } else if (job->head.expect_continue && untouched && !invite_body(c)) {
        http_conn_step(c, EV_RESET); /* a fresh socket buffer that takes no 25 bytes is no peer */
    } else {
        if (untouched)
            stream_ack_now(c->stream); /* many clients send head and body apart, without NODELAY */
        http_conn_step(c, EV_BODY);
    }
}

/* Empty lines before a request are forgiven, as RFC 9112 §2.2 asks; a stream of them is not. */
static void skip_empty_lines(struct http_job *job)
{
    size_t n = 0;

    if (job->scanned > 0)
        return;
    while (job->blank < BLANK_MAX && job->in_n >= n + 2 && memcmp(job->in + n, "\r\n", 2) == 0) {
        n += 2;
        job->blank++;
    }
    if (n == 0)
        return;
    job->in_n -= n;
    memmove(job->in, job->in + n, job->in_n);
}

/* True when the state has changed. */
static bool move_head(struct http_conn *c)
{
    struct http_job *job = c->job;
    size_t limit = (size_t)c->server->limits->header_bytes, len;
    struct err e;
    int r, status;

    if (!job || job->in_n == 0)
        return false;
    skip_empty_lines(job);
    if (job->in_n == 0 || (job->in_n == 1 && job->in[0] == '\r'))
        return false;
    r = http_head_find((struct str){ job->in, job->in_n }, &job->scanned, &len, &e);
    if (r < 0) {
        refuse(c, 400, e.msg);
        return true;
    }
    if (r == HTTP_HEAD_MORE ? job->in_n >= limit : len > limit) {
        refuse(c, 431, "Request Header Fields Too Large");
        return true;
    }
    if (r == HTTP_HEAD_MORE)
        return false;

    /* Bodies are read behind the head, which does not move from here on. */
    (void)http_job_room(job, HTTP_IN_FIRST / 4, limit + 2 * HTTP_IN_FIRST);
    r = http_head_parse((struct str){ job->in, len }, job->headers, &job->head, &status, &e);
    if (r < 0) {
        refuse(c, status, e.msg);
        return true;
    }
    job->consumed = len;
    http_job_judge(job);
    head_accepted(c);
    return true;
}

static bool move_body(struct http_conn *c)
{
    int r = http_body_take(c->job);

    if (r == HTTP_BODY_MORE)
        return false;
    if (r == HTTP_BODY_WHOLE)
        request_whole(c);
    else
        body_refused(c, r);
    return true;
}

static bool move_idle(struct http_conn *c)
{
    if (!c->job)
        return false;
    http_conn_step(c, EV_START);
    return true;
}

static void all_sent(struct http_conn *c)
{
    struct http_job *job = c->job;

    if (job->linger || (job->close && job->in_n > job->consumed))
        http_conn_step(c, EV_LINGER); /* closing over unread bytes would reset what we just wrote */
    else
        http_conn_step(c, job->close ? EV_CLOSE : EV_NEXT);
}

static struct str rest_of(struct str s, size_t *skip)
{
    size_t n = *skip < s.n ? *skip : s.n;

    *skip -= n;
    return n > 0 ? (struct str){ s.p + n, s.n - n } : s;
}

static struct iovec iovec_of(struct str s)
{
    struct iovec v = { .iov_len = s.n };

    memcpy(&v.iov_base, &s.p, sizeof(s.p)); /* writing reads it, its type does not say so */
    return v;
}

/* Head and body in one call to the kernel, again from where it stopped when that was not all. */
static bool move_send(struct http_conn *c)
{
    struct http_job *job = c->job;
    size_t skip = job->sent, n;
    struct str head, body;
    struct iovec iov[2];
    struct err ignored;
    int r;

    if (job->begun) {
        http_conn_flush_stream(c);
        if (c->state != CONN_SEND)
            return true;
        if (job->out_body.n > 0)
            return false;
        all_sent(c);
        return true;
    }
    head = rest_of(buf_str(&job->out_head), &skip);
    body = rest_of(job->out_text, &skip);
    iov[0] = iovec_of(head);
    iov[1] = iovec_of(body);
    r = stream_writev(c->stream, iov, body.n > 0 ? 2 : 1, &n, &ignored);
    if (r == STREAM_AGAIN)
        return false;
    if (r < 0) {
        http_conn_step(c, EV_RESET);
        return true;
    }
    job->sent += n;
    if (n < head.n + body.n) {
        http_conn_touch(c);
        return false;
    }
    all_sent(c);
    return true;
}

static unsigned wants(const struct http_conn *c)
{
    const struct http_job *job = c->job;
    bool room = !job || job->in_n < job->in_cap;

    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
    case CONN_BODY:
    case CONN_LINGER:
        return LOOP_READ;
    case CONN_RUN:
        return room ? LOOP_READ : 0; /* without: http_conn_check() */
    case CONN_STREAM:
        return (room && !c->ended ? LOOP_READ : 0) | (job->out_body.n > 0 ? LOOP_WRITE : 0);
    case CONN_SEND:
        return LOOP_WRITE;
    }
    return 0;
}

static void watch(struct http_conn *c)
{
    unsigned want;

    if (c->state == CONN_GONE)
        return;
    want = wants(c);
    if (want != c->wanted) {
        c->wanted = (unsigned char)want;
        stream_want(c->stream, want);
    }
}

static void pump(struct http_conn *c)
{
    static bool (*const movers[CONN_STATES])(struct http_conn * c) = {
        [CONN_IDLE] = move_idle,
        [CONN_HEAD] = move_head,
        [CONN_BODY] = move_body,
        [CONN_SEND] = move_send,
    };

    while (movers[c->state] && movers[c->state](c))
        ;
    watch(c);
}

static int read_in(struct http_conn *c, struct err *e)
{
    struct http_job *job = c->job;
    size_t n;
    int r;

    r = stream_read(c->stream, job->in + job->in_n, job->in_cap - job->in_n, &n, e);
    if (r == 0)
        job->in_n += n;
    return r;
}

/* One read, wherever its bytes belong in this state. */
static int read_some(struct http_conn *c, struct err *e)
{
    size_t limit = (size_t)c->server->limits->header_bytes;
    int r;

    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
        if (!c->job)
            c->job = http_job_take(c->server, c);
        (void)http_job_room(c->job, 1, limit + HTTP_IN_FIRST); /* 431 before it is full */
        r = read_in(c, e);
        if (r != 0 && c->job->in_n == 0)
            http_job_give(c->server, TAKE(c->job));
        return r;
    case CONN_BODY:
        r = http_body_read(c->job, c->stream, e);
        if (r == 0)
            http_conn_touch(c);
        return r;
    case CONN_LINGER:
        c->job->in_n = 0;
        r = read_in(c, e);
        c->lingered += c->job->in_n;
        return r == 0 && c->lingered > HTTP_LINGER_MAX ? STREAM_END : r;
    }
    return read_in(c, e); /* bytes of a next request, or the news that the peer has gone */
}

static void on_readable(struct http_conn *c)
{
    struct err e;
    int r;

    do {
        r = read_some(c, &e);
        if (r == STREAM_AGAIN)
            return;
        if (r == 0) {
            pump(c);
            continue;
        }
        c->ended = true;
        http_conn_step(c, r == STREAM_END ? EV_END : EV_RESET);
        watch(c);
    } while (c->state != CONN_GONE && (c->wanted & LOOP_READ) && stream_pending(c->stream));
}

static void on_ready(struct stream *stream, unsigned events, void *arg)
{
    struct http_conn *c = arg;

    if (events & LOOP_WRITE & c->wanted) {
        if (c->state == CONN_STREAM)
            http_conn_flush_stream(c);
        pump(c);
    }
    if (c->state != CONN_GONE && (events & LOOP_READ & c->wanted))
        on_readable(c);
}

void http_conn_accept(struct http_server *s, int fd, struct tls_context *tls,
                      struct http_seat *seat)
{
    struct http_conn *c = xcalloc(1, sizeof(*c));

    c->server = s;
    c->seat = *seat;
    c->tls = tls != NULL;
    c->state = CONN_HEAD;
    c->link.prev = c->link.next = &c->link;
    c->stream = stream_new(s->loop, fd, tls, NULL, on_ready, c);
    s->n_conns++;
    http_count_connections(1);
    http_conn_touch(c);
    watch(c);
}

void http_conn_answered(struct http_conn *c)
{
    struct http_job *job = c->job;

    job->running = false;
    c->server->n_running--;
    http_count_running(-1);
    if (c->state == CONN_STREAM)
        http_conn_step(c, EV_DONE);
    else
        http_conn_step(c, EV_ANSWER);
    if (c->state != CONN_GONE)
        pump(c);
}

void http_conn_expire(struct http_conn *c)
{
    if (c->state == CONN_HEAD && (!c->job || c->job->in_n == 0)) {
        http_conn_step(c, EV_END); /* it never said a word: neither do we */
        return;
    }
    if (c->state == CONN_STREAM && c->job->out_body.n == 0) {
        http_conn_touch(c); /* it is the handler that is silent, not the peer that is slow */
        return;
    }
    http_conn_step(c, EV_EXPIRE);
    if (c->state != CONN_GONE)
        pump(c);
}

void http_conn_check(struct http_conn *c)
{
    struct err ignored;
    int r;

    if ((c->wanted & LOOP_READ) || (c->state != CONN_RUN && c->state != CONN_STREAM) || c->ended)
        return;
    r = stream_hung_up(c->stream, &ignored);
    if (r == 0)
        return;
    c->ended = true;
    http_conn_step(c, r == STREAM_END ? EV_END : EV_RESET);
    watch(c);
}

void http_conn_stop(struct http_conn *c)
{
    if (c->state == CONN_IDLE || c->state == CONN_LINGER || (c->state == CONN_HEAD && !c->job))
        http_conn_step(c, EV_STOP);
}

void http_conn_abort(struct http_conn *c)
{
    if (c->state != CONN_GONE)
        http_conn_step(c, EV_ABORT);
}

bool http_conn_begin(struct http_conn *c)
{
    if (c->state != CONN_RUN && c->state != CONN_HALF)
        return false;
    http_conn_step(c, EV_BEGIN);
    return true;
}

void http_conn_flush_stream(struct http_conn *c)
{
    struct http_job *job = c->job;
    struct err ignored;
    struct iovec iov;
    size_t n;
    int r;

    while (job->out_body.n > 0) {
        iov = iovec_of(buf_str(&job->out_body));
        r = stream_writev(c->stream, &iov, 1, &n, &ignored);
        if (r == STREAM_AGAIN)
            break;
        if (r < 0) {
            http_conn_step(c, EV_RESET);
            return;
        }
        buf_eat(&job->out_body, n);
        http_conn_touch(c);
    }
    if (job->writer)
        fiber_wake(job->writer);
    watch(c);
}

bool http_conn_detach(struct http_conn *c, struct stream **ret)
{
    if (c->state != CONN_RUN)
        return false;
    http_conn_step(c, EV_TAKE);
    *ret = TAKE(c->stream);
    return true;
}
