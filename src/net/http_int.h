/* SPDX-License-Identifier: MIT */
/*
 * net/http_int.h — what the files of the HTTP server share: server, connection, job.
 *
 * A connection (http_conn.c) is a state table moved by readiness. While bytes of a request are
 * there it has a job: read buffer, parsed head, arena and answer of one request. Jobs are pooled,
 * so an idle connection is two small structs and a warm one allocates nothing. http_run.c
 * carries the job through its handler in a fiber, http_reply.c puts the answer into bytes.
 */
#pragma once

#include <assert.h>

#include "net/http.h"
#include "net/http_chunk.h"
#include "net/http_parse.h"
#include "net/http_route.h"
#include "net/http_seat.h"
#include "net/http_server.h"

enum conn_state {
    CONN_IDLE,   /* no byte of a next request */
    CONN_HEAD,   /* waiting for a whole head; a fresh connection begins here */
    CONN_BODY,   /* waiting for the rest of a body */
    CONN_RUN,    /* the handler has it */
    CONN_HALF,   /* the same, but the peer has ended its sending side, or went */
    CONN_STREAM, /* the handler is streaming its answer */
    CONN_SEND,   /* the answer, or its rest, is being written */
    CONN_LINGER, /* answered for good; reading on so that the peer can read the answer */
    CONN_GONE,   /* closed; at most a handler is still unwinding */
    CONN_STATES,
};

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

enum {
    HTTP_IN_FIRST = 4 * 1024,   /* read buffer of a fresh job */
    HTTP_IN_KEEP = 16 * 1024,   /* a pooled job keeps no larger one */
    HTTP_OUT_KEEP = 64 * 1024,  /* the same of answers */
    HTTP_JOBS_KEEP = 32,        /* pooled jobs */
    HTTP_JOBS_TRIM = 256,       /* so many freed: when calm returns, give their pages back */
    HTTP_DRAIN_MAX = 64 * 1024, /* body bytes read and dropped to keep a refused connection */
    HTTP_BODIES_MAX = 16,       /* bodies of limits.body_bytes that may be in memory at once: 503 */
    HTTP_LINGER_MAX = 64 * 1024 * 1024, /* the same when it is closed afterwards */
    HTTP_LINGER_MS = 2000,
    HTTP_HALF_MS = 1000, /* how long a handler goes on for a peer that has ended its side */
};

struct http_link { /* of a list in order of time */
    struct http_link *prev, *next;
};

struct http_job {
    struct http_req req;
    struct http_conn *conn;
    struct http_job *next; /* in the pool */
    struct arena arena;
    struct http_head head;
    struct http_header headers[HTTP_HEADERS_MAX];
    const struct http_dialect *dialect;
    const struct http_table *table; /* of the route; NULL: none matched */

    char *in; /* read bytes: the head, then perhaps a body, then bytes of a next request */
    size_t in_cap, in_n;
    size_t scanned;  /* of the search for the head's end */
    size_t consumed; /* bytes of in that belong to this request */
    unsigned blank;  /* empty lines skipped before it */

    struct buf body; /* what does not fit behind the head; its max is the route's */
    struct http_chunk chunk;
    uint64_t body_left; /* of Content-Length */
    size_t body_max;
    size_t held;    /* bytes of it in memory, as counted in server->held */
    size_t dropped; /* bytes of a body nobody wants */
    bool drop;      /* the answer is decided; the body is read past */

    struct fiber *fiber;  /* while the handler runs */
    struct fiber *writer; /* who waits for room in a streamed answer: it, or a helper of its */
    bool running;         /* from the spawning of that fiber to its end */
    bool canceled;        /* the peer has gone, or the server must end */
    bool timed_out;       /* limits.request is over */
    bool close;           /* no request after this one */
    bool linger;          /* bytes of this request may still be on their way */
    bool begun;           /* a streamed answer has begun */
    bool chunked;         /* ... in chunks */
    bool broken;          /* ... and its handler failed: it must not look whole */
    uint64_t begin_us;

    struct buf out_head, out_body; /* the answer in bytes; a stream uses out_body as queue */
    struct str out_text;           /* the body: of out_body or of the arena */
    size_t sent;                   /* bytes of both written */
};

struct http_conn {
    struct http_link link; /* first: of server->lists[state] */
    struct http_server *server;
    struct stream *stream;
    struct http_job *job;
    struct http_seat seat;
    uint64_t stamp_ms; /* since when it waits for what its state waits for */
    size_t lingered;
    unsigned char state, wanted;
    bool ended; /* the peer has ended its sending side */
    bool tls;
};

struct http_listener;
struct http_parting;

struct http_server {
    struct loop *loop;
    const struct http_limits *limits;
    struct http_server_ops ops;
    struct http_router *router;
    const struct http_table *const *tables;
    size_t n_tables;
    struct {
        const struct http_route *route; /* NULL: nobody takes WebSockets on any path */
        const struct http_dialect *dialect;
        void *room;
    } upgrade;

    struct http_listener *listeners;
    struct loop_timer *tick;
    bool ticking, stopping;
    int spare_fd;            /* given up for a moment to answer when descriptors run out */
    uint64_t quiet_until_ms; /* of the warning that there are none */
    struct http_parting *parting;

    struct http_link lists[CONN_STATES];
    unsigned n_conns, n_running;
    size_t held; /* bytes of all bodies that are being gathered or worked on */
    struct http_seats *seats;
    struct http_job *pool;
    unsigned n_pool;
    unsigned freed,
        freed_before;      /* jobs the pool did not keep: since the last trim; at the last tick */
    struct fiber *stopper; /* waits for the last connection */

    char date[32];
    int64_t date_s;
    char boot[9]; /* of request ids */
    uint64_t serial;
};

/* http_conn.c */
void http_conn_step(struct http_conn *c, enum conn_event event);
void http_conn_touch(struct http_conn *c); /* its time in this state begins anew */
uint64_t http_conn_limit_ms(const struct http_server *s, enum conn_state state);

/* http_conn_move.c */
void http_conn_accept(struct http_server *s, int fd, struct tls_context *tls,
                      struct http_seat *seat);
void http_conn_answered(struct http_conn *c); /* the handler has returned */
void http_conn_expire(struct http_conn *c);   /* its time in this state is over */
void http_conn_check(struct http_conn *c);    /* has a peer gone whose bytes are not read now? */
void http_conn_stop(struct http_conn *c);     /* shutdown: close it if it only waits */
void http_conn_abort(struct http_conn *c);    /* close it whatever it does; cancels its handler */
bool http_conn_begin(struct http_conn *c);    /* a stream begins; false: the peer has gone */
void http_conn_flush_stream(struct http_conn *c); /* write what is queued; wakes the handler */
bool http_conn_detach(struct http_conn *c, struct stream **ret); /* for an upgrade; false: gone */
static inline bool http_conn_gone(const struct http_conn *c)
{
    return c->state == CONN_GONE;
}

/* http_body.c: 0 made progress, HTTP_BODY_WHOLE, HTTP_BODY_MORE, or an answer's status (413, 400).
 */
enum { HTTP_BODY_MORE = 1, HTTP_BODY_WHOLE = 2 };
int http_body_begin(struct http_job *job); /* takes what stands behind the head */
int http_body_take(struct http_job *job);  /* takes what has been read since */
int http_body_read(struct http_job *job, struct stream *stream, struct err *e); /* as stream_read */

/* http_job.c */
struct http_job *http_job_take(struct http_server *s, struct http_conn *c);
void http_job_give(struct http_server *s, struct http_job *job);
void http_job_free(struct http_job *job);
void http_job_next(struct http_job *job); /* ready for the bytes that follow in its buffer */
/* Room to read at least one byte more, at most max in all; may move the buffer. */
bool http_job_room(struct http_job *job, size_t want, size_t max);
/*
 * The head stands in job->head: decide what is to be done. Host, Origin, route, limits. On a
 * refusal the answer is left in job->req and job->drop is set. Nothing is written.
 */
void http_job_judge(struct http_job *job);
void http_job_drop_body(struct http_job *job); /* it is no longer in memory */
/* The body has grown past its limit: 413; or all bodies past theirs: 503. And close. */
void http_job_too_large(struct http_job *job);
void http_job_too_many(struct http_job *job);
/* Refuse with an answer in nobody's dialect ({"error": text}), closing the connection. */
void http_job_refuse(struct http_job *job, int status, const char *text);

/* http_run.c: may its caller come in? 0, or 1: refused, and the answer says so; and its fiber. */
int http_authorise(struct http_job *job, struct err *e);
CO int http_run(void *arg, struct err *e);
enum { HTTP_SCOPES_TEXT = 80 };
const char *http_scope_names(unsigned need, char out[HTTP_SCOPES_TEXT]); /* "read or admin" */

/* http_reply.c: head and body of the answer in job->req, ready to be written. */
void http_reply_format(struct http_job *job);
void http_reply_error(struct http_job *job, const struct err *e);
void http_reply_plain(struct http_req *req, int status, const char *key, const char *text);
bool http_reply_has(const struct http_req *req, const char *name);
void http_reply_clear(struct http_req *req); /* forget what was prepared */

/* Of a call that only a bug can make fail: growing a buffer without a bound of its own. */
static inline void http_sure(int r)
{
    assert(r == 0);
    (void)r;
}

static inline struct http_job *http_job_of(const struct http_req *req)
{
    return req->server_private;
}

/* http_server.c: one connection less; and does what an identity rests on still hold? */
void http_server_left(struct http_server *s);
bool http_grant_holds(const struct http_server *s, uint64_t grant);

/* http_metrics.c */
enum http_refusal {
    REFUSED_CONNECTIONS,
    REFUSED_ADDRESS,
    REFUSED_DESCRIPTORS,
    REFUSED_MALFORMED,
    REFUSED_TOO_LARGE,
    REFUSED_SLOW,
    REFUSED_ORIGIN,
    REFUSED_ABANDONED,
};
void http_count_refused(enum http_refusal why);
void http_count_answer(int status, uint64_t us);
void http_count_connections(int delta);
void http_count_running(int delta);
