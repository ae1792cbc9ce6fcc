/* SPDX-License-Identifier: MIT */
/*
 * net/http_conn.c — the life of a connection.
 *
 * The table below is the whole truth about it. Events come from the readiness of the stream, from
 * the end of a handler, from the sweep of timers and from the server's shutdown; what a state
 * does with the bytes at hand is http_conn_move.c's.
 *
 * While a handler runs the read side stays watched, so that a peer who goes away cancels it.
 * A peer that only shuts down its sending side cannot be told from one that went: both send a FIN.
 * So an end of the stream behind a whole request counts as "gone" once HTTP_HALF_MS have passed
 * without an answer (CONN_HALF), at once in a streamed answer, and before that as a half-close:
 * what is answered quickly reaches those who pipe a request into a socket and shut it.
 */
#include "base/log.h"
#include "net/http_int.h"

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
static void upgraded(struct http_conn *c);
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
    [CONN_RUN][EV_TAKE]      = { upgraded,      CONN_GONE   },

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

/* Lists are in order of stamps, so it goes to the end. */
void http_conn_touch(struct http_conn *c)
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
void http_conn_step(struct http_conn *c, enum conn_event event)
{
    const struct step *s = &steps[c->state][event];

    if (!s->act) {
        log_error("bug: a connection got an event its state does not know", "state",
                  LOG_INT(c->state), "event", LOG_INT(event));
        return;
    }
    if (s->then != c->state) {
        c->state = (unsigned char)s->then;
        http_conn_touch(c);
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
    if (req->status >= 500 && req->id[0]) /* what strangers garble fills no log */
        log_info("request", "req", LOG_STR(req->id), "method",
                 LOG_STR(http_method_name(req->method)), "path", LOG_SLICE(req->path), "status",
                 LOG_INT(req->status), "us", LOG_INT(us), "peer",
                 LOG_STR(stream_peer(c->stream)->text));
    else
        log_debug("request", "req", LOG_STR(req->id), "method",
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
        http_conn_step(c, EV_ANSWER);
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

/* The new owner takes the stream; the handler goes on and is buried as ever. */
static void upgraded(struct http_conn *c)
{
    c->job->req.status = 101;
    account(c);
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

    http_conn_touch(c);
    job->timed_out = job->canceled = true;
    if (job->fiber)
        fiber_cancel(job->fiber);
}
