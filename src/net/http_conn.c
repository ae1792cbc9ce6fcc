/* SPDX-License-Identifier: MIT */
/*
 * net/http_conn.c — the life of a connection.
 *
 * The table below is the whole truth about it. Events come from the readiness of the stream, from
 * the end of a handler, from the sweep of timers and from the server's shutdown. pump() then
 * does what the new state can do with the bytes at hand, until nothing moves; so a burst of
 * pipelined requests is a loop, not a recursion. Bytes behind a request stay unparsed until its
 * answer has been written.
 *
 * While a handler runs the read side stays watched, so that a peer who goes away cancels it.
 * A peer that only shuts down its sending side cannot be told from one that went: both send a FIN.
 * So an end of the stream behind a whole request counts as "gone" once HTTP_HALF_MS have passed
 * without an answer (CONN_HALF), at once in a streamed answer, and before that as a half-close:
 * what is answered quickly reaches those who pipe a request into a socket and shut it.
 */
#include "base/log.h"
#include "net/http_int.h"
#include "net/http_upgrade.h"

enum conn_event {
    EV_START,  /* bytes of a next request */
    EV_BODY,   /* the head is accepted, a body is to come */
    EV_RUN,    /* the request is whole */
    EV_ANSWER, /* an answer is ready */
    EV_BEGIN,  /* the handler begins to stream */
    EV_DONE,   /* ... and has ended it */
    EV_NEXT,   /* all is written, another request may follow */
    EV_LINGER, /* all is written, bytes we do not want may be on their way */
    EV_CLOSE,  /* all is written, that was it */
    EV_END,    /* the peer's orderly end */
    EV_RESET,  /* the stream failed */
    EV_EXPIRE, /* its time is over */
    EV_STOP,   /* the server shuts down */
    EV_ABORT,  /* ... now */
    EV_TAKE,   /* upgraded: the stream has a new owner */
    CONN_EVENTS,
};

static void nothing(struct http_conn *c);
static void start(struct http_conn *c);
static void answer(struct http_conn *c);
static void finish_stream(struct http_conn *c);
static void next(struct http_conn *c);
static void linger(struct http_conn *c);
static void close_now(struct http_conn *c);
static void cut(struct http_conn *c);
static void abandon(struct http_conn *c);
static void too_slow(struct http_conn *c);
static void out_of_time(struct http_conn *c);
static void bury(struct http_conn *c);

/* clang-format off */
static const struct step {
    void (*act)(struct http_conn *c);
    enum conn_state then;
} steps[CONN_STATES][CONN_EVENTS] = {
    [CONN_IDLE][EV_START]    = { nothing,       CONN_HEAD   },
    [CONN_IDLE][EV_END]      = { close_now,     CONN_GONE   },
    [CONN_IDLE][EV_RESET]    = { close_now,     CONN_GONE   },
    [CONN_IDLE][EV_EXPIRE]   = { close_now,     CONN_GONE   },
    [CONN_IDLE][EV_STOP]     = { close_now,     CONN_GONE   },
    [CONN_IDLE][EV_ABORT]    = { close_now,     CONN_GONE   },

    [CONN_HEAD][EV_BODY]     = { nothing,       CONN_BODY   },
    [CONN_HEAD][EV_RUN]      = { start,         CONN_RUN    },
    [CONN_HEAD][EV_ANSWER]   = { answer,        CONN_SEND   },
    [CONN_HEAD][EV_END]      = { close_now,     CONN_GONE   },
    [CONN_HEAD][EV_RESET]    = { close_now,     CONN_GONE   },
    [CONN_HEAD][EV_EXPIRE]   = { too_slow,      CONN_SEND   },
    [CONN_HEAD][EV_STOP]     = { close_now,     CONN_GONE   },
    [CONN_HEAD][EV_ABORT]    = { close_now,     CONN_GONE   },

    [CONN_BODY][EV_RUN]      = { start,         CONN_RUN    },
    [CONN_BODY][EV_ANSWER]   = { answer,        CONN_SEND   },
    [CONN_BODY][EV_END]      = { close_now,     CONN_GONE   },
    [CONN_BODY][EV_RESET]    = { close_now,     CONN_GONE   },
    [CONN_BODY][EV_EXPIRE]   = { too_slow,      CONN_SEND   },
    [CONN_BODY][EV_ABORT]    = { close_now,     CONN_GONE   },

    [CONN_RUN][EV_ANSWER]    = { answer,        CONN_SEND   },
    [CONN_RUN][EV_BEGIN]     = { nothing,       CONN_STREAM },
    [CONN_RUN][EV_END]       = { nothing,       CONN_HALF   },
    [CONN_RUN][EV_RESET]     = { abandon,       CONN_GONE   },
    [CONN_RUN][EV_EXPIRE]    = { out_of_time,   CONN_RUN    },
    [CONN_RUN][EV_ABORT]     = { abandon,       CONN_GONE   },
    [CONN_RUN][EV_TAKE]      = { nothing,       CONN_GONE   },

    [CONN_HALF][EV_ANSWER]   = { answer,        CONN_SEND   },
    [CONN_HALF][EV_BEGIN]    = { nothing,       CONN_STREAM },
    [CONN_HALF][EV_RESET]    = { abandon,       CONN_GONE   },
    [CONN_HALF][EV_EXPIRE]   = { abandon,       CONN_GONE   },
    [CONN_HALF][EV_ABORT]    = { abandon,       CONN_GONE   },

    [CONN_STREAM][EV_DONE]   = { finish_stream, CONN_SEND   },
    [CONN_STREAM][EV_END]    = { abandon,       CONN_GONE   },
    [CONN_STREAM][EV_RESET]  = { abandon,       CONN_GONE   },
    [CONN_STREAM][EV_EXPIRE] = { abandon,       CONN_GONE   },
    [CONN_STREAM][EV_ABORT]  = { abandon,       CONN_GONE   },

    [CONN_SEND][EV_NEXT]     = { next,          CONN_IDLE   },
    [CONN_SEND][EV_LINGER]   = { linger,        CONN_LINGER },
    [CONN_SEND][EV_CLOSE]    = { close_now,     CONN_GONE   },
    [CONN_SEND][EV_RESET]    = { close_now,     CONN_GONE   },
    [CONN_SEND][EV_EXPIRE]   = { cut,           CONN_GONE   },
    [CONN_SEND][EV_ABORT]    = { cut,           CONN_GONE   },

    [CONN_LINGER][EV_END]    = { close_now,     CONN_GONE   },
    [CONN_LINGER][EV_RESET]  = { close_now,     CONN_GONE   },
    [CONN_LINGER][EV_EXPIRE] = { close_now,     CONN_GONE   },
    [CONN_LINGER][EV_STOP]   = { close_now,     CONN_GONE   },
    [CONN_LINGER][EV_ABORT]  = { close_now,     CONN_GONE   },

    [CONN_GONE][EV_ANSWER]   = { bury,          CONN_GONE   }, /* its handler has unwound */
};
/* clang-format on */

static void pump(struct http_conn *c);

/* Its time in this state begins (anew): lists are in order of stamps, so it goes to the end. */
static void touch(struct http_conn *c)
{
    struct http_link *list = &c->server->lists[c->state], *link = &c->link;

    c->stamp_ms = now_ms();
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = list->prev;
    link->next = list;
    link->prev->next = link;
    list->prev = link;
}

/* The only function that writes c->state. */
static void step(struct http_conn *c, enum conn_event event)
{
    const struct step *s = &steps[c->state][event];

    if (!s->act) {
        log_error("bug: a connection got an event its state does not know", "state",
                  LOG_INT(c->state), "event", LOG_INT(event));
        return;
    }
    if (s->then != c->state) {
        c->state = (unsigned char)s->then;
        touch(c);
    }
    s->act(c);
}

uint64_t http_conn_limit_ms(const struct http_server *s, enum conn_state state)
{
    const struct http_limits *l = s->limits;
    long long ms = 0;

    switch (state) {
    case CONN_IDLE:
        ms = l->idle_ms;
        break;
    case CONN_HEAD:
        ms = l->first_byte_ms;
        break;
    case CONN_BODY:
        ms = l->body_idle_ms;
        break;
    case CONN_RUN:
        ms = l->request_ms;
        break;
    case CONN_HALF:
        ms = HTTP_HALF_MS;
        break;
    case CONN_STREAM:
    case CONN_SEND:
        ms = l->write_idle_ms;
        break;
    case CONN_LINGER:
        ms = HTTP_LINGER_MS;
        break;
    case CONN_GONE:
    case CONN_STATES:
        break;
    }
    return ms > 0 ? (uint64_t)ms : DEADLINE_NONE;
}

static void nothing(struct http_conn *c)
{
}

/* One line per answer; counted when the handler has done its part. */
static void account(struct http_conn *c)
{
    struct http_job *job = c->job;
    const struct http_req *req = &job->req;
    uint64_t us = job->begin_us ? now_us() - job->begin_us : 0;

    http_count_answer(req->status, us);
    if (req->status >= 500)
        log_info("request failed", "id", LOG_STR(req->id), "method",
                 LOG_STR(http_method_name(req->method)), "path", LOG_SLICE(req->path), "status",
                 LOG_INT(req->status), "us", LOG_INT(us), "peer",
                 LOG_STR(stream_peer(c->stream)->text));
    else
        log_debug("request", "id", LOG_STR(req->id), "method",
                  LOG_STR(http_method_name(req->method)), "path", LOG_SLICE(req->path), "status",
                  LOG_INT(req->status), "us", LOG_INT(us), "peer",
                  LOG_STR(stream_peer(c->stream)->text), "who", LOG_STR(req->who.name));
}

static void answer(struct http_conn *c)
{
    http_reply_format(c->job);
    account(c);
}

static void finish_stream(struct http_conn *c)
{
    struct http_job *job = c->job;
    struct err ignored;

    if (job->chunked && !job->broken && job->req.method != HTTP_M_HEAD)
        http_sure(buf_add_z(&job->out_body, "0\r\n\r\n", &ignored)); /* room was kept */
    account(c);
}

static void start(struct http_conn *c)
{
    struct http_server *s = c->server;
    struct http_job *job = c->job;
    struct err e;

    job->begin_us = now_us();
    if (fiber_spawn(s->loop, "request", http_run, job, NULL, &e) < 0) {
        http_reply_error(job, &(struct err){ .code = ERR_UNAVAILABLE, .msg = "Too busy" });
        step(c, EV_ANSWER);
        return;
    }
    job->running = true;
    s->n_running++;
    http_count_running(1);
}

static void next(struct http_conn *c)
{
    struct http_job *job = c->job;

    if (job->in_n > job->consumed) {
        http_job_next(job);
        return;
    }
    http_job_give(c->server, TAKE(c->job));
}

static void linger(struct http_conn *c)
{
    stream_shutdown(c->stream);
}

static void free_late(void *arg)
{
    free(arg);
}

/* Nothing of it is used any more but by functions still on the stack. */
static void bury(struct http_conn *c)
{
    struct http_server *s = c->server;

    c->link.prev->next = c->link.next;
    c->link.next->prev = c->link.prev;
    if (c->job)
        http_job_give(s, TAKE(c->job));
    loop_defer(s->loop, free_late, c);
    http_server_left(s);
}

static void close_now(struct http_conn *c)
{
    if (c->job && c->job->broken && !c->job->chunked)
        stream_reset(c->stream); /* an orderly end would make the answer look whole */
    stream_free(TAKE(c->stream));
    http_seat_leave(&c->seat);
    bury(c);
}

static void cut(struct http_conn *c)
{
    stream_reset(c->stream);
    close_now(c);
}

/* The handler unwinds by its waits failing; the rest is buried when it has returned. */
static void abandon(struct http_conn *c)
{
    struct http_job *job = c->job;

    stream_reset(c->stream);
    stream_free(TAKE(c->stream));
    http_seat_leave(&c->seat);
    http_count_refused(REFUSED_ABANDONED);
    job->canceled = true;
    if (job->fiber)
        fiber_cancel(job->fiber);
}

static void too_slow(struct http_conn *c)
{
    http_count_refused(REFUSED_SLOW);
    http_job_refuse(c->job, 408, "Request Timeout");
    answer(c);
}

static void out_of_time(struct http_conn *c)
{
    struct http_job *job = c->job;

    touch(c);
    job->timed_out = job->canceled = true;
    if (job->fiber)
        fiber_cancel(job->fiber);
}

static void refuse(struct http_conn *c, int status, const char *text)
{
    http_count_refused(REFUSED_MALFORMED);
    http_job_refuse(c->job, status, text);
    step(c, EV_ANSWER);
}

/* The request is all there: run it, or give the answer that has been decided on already. */
static void request_whole(struct http_conn *c)
{
    c->job->linger = false;
    step(c, c->job->drop ? EV_ANSWER : EV_RUN);
}

static void body_refused(struct http_conn *c, int status)
{
    if (status == 413) {
        http_job_too_large(c->job);
        step(c, EV_ANSWER);
    } else {
        refuse(c, status, "malformed chunked body");
    }
}

/* The peer holds its body back until we say that we want it. */
static bool invite_body(struct http_conn *c)
{
    struct iovec iov = { .iov_base = (char[]){ "HTTP/1.1 100 Continue\r\n\r\n" }, .iov_len = 25 };
    struct err ignored;
    size_t n;

    return stream_writev(c->stream, &iov, 1, &n, &ignored) == 0 && n == iov.iov_len;
}

static void head_accepted(struct http_conn *c)
{
    struct http_job *job = c->job;
    bool untouched = job->in_n == job->consumed;
    int r = http_body_begin(job);

    if (r == HTTP_BODY_WHOLE) {
        request_whole(c);
    } else if (r != HTTP_BODY_MORE) {
        body_refused(c, r);
    } else if (job->drop && (job->close || job->head.expect_continue)) {
        job->close = job->linger = true; /* not worth waiting for a body */
        step(c, EV_ANSWER);
    } else if (job->head.expect_continue && untouched && !invite_body(c)) {
        step(c, EV_RESET); /* a fresh socket buffer that takes no 25 bytes is no peer */
    } else {
        step(c, EV_BODY);
    }
}

/* An empty line before a request is forgiven once, as RFC 9112 §2.2 asks. */
static void skip_empty_line(struct http_job *job)
{
    if (job->scanned == 0 && job->in_n >= 2 && memcmp(job->in, "\r\n", 2) == 0) {
        job->in_n -= 2;
        memmove(job->in, job->in + 2, job->in_n);
    }
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
    skip_empty_line(job);
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
    step(c, EV_START);
    return true;
}

static void all_sent(struct http_conn *c)
{
    struct http_job *job = c->job;

    if (job->linger || (job->close && job->in_n > job->consumed))
        step(c, EV_LINGER); /* closing over unread bytes would reset what we just wrote */
    else
        step(c, job->close ? EV_CLOSE : EV_NEXT);
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
        step(c, EV_RESET);
        return true;
    }
    job->sent += n;
    if (n < head.n + body.n) {
        touch(c);
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
        return room ? LOOP_READ : 0; /* a peer that fills the pipe meanwhile is not watched */
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
            touch(c);
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
        step(c, r == STREAM_END ? EV_END : EV_RESET);
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
    touch(c);
    watch(c);
}

void http_conn_answered(struct http_conn *c)
{
    struct http_job *job = c->job;

    job->running = false;
    c->server->n_running--;
    http_count_running(-1);
    if (c->state == CONN_STREAM)
        step(c, EV_DONE);
    else
        step(c, EV_ANSWER);
    if (c->state != CONN_GONE)
        pump(c);
}

void http_conn_expire(struct http_conn *c)
{
    if (c->state == CONN_HEAD && (!c->job || c->job->in_n == 0)) {
        step(c, EV_END); /* it never said a word: neither do we */
        return;
    }
    if (c->state == CONN_STREAM && c->job->out_body.n == 0) {
        touch(c); /* it is the handler that is silent, not the peer that is slow */
        return;
    }
    step(c, EV_EXPIRE);
    if (c->state != CONN_GONE)
        pump(c);
}

void http_conn_stop(struct http_conn *c)
{
    if (c->state == CONN_IDLE || c->state == CONN_LINGER || (c->state == CONN_HEAD && !c->job))
        step(c, EV_STOP);
}

void http_conn_abort(struct http_conn *c)
{
    if (c->state != CONN_GONE)
        step(c, EV_ABORT);
}

bool http_conn_begin(struct http_conn *c)
{
    if (c->state != CONN_RUN && c->state != CONN_HALF)
        return false;
    step(c, EV_BEGIN);
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
            step(c, EV_RESET);
            return;
        }
        buf_eat(&job->out_body, n);
        touch(c);
    }
    if (job->fiber)
        fiber_wake(job->fiber);
    watch(c);
}

bool http_conn_detach(struct http_conn *c, struct stream **ret)
{
    if (c->state != CONN_RUN)
        return false;
    c->job->req.status = 101;
    account(c);
    *ret = TAKE(c->stream);
    step(c, EV_TAKE);
    return true;
}
