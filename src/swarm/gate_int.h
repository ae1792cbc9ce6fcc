/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_int.h — what the files of the gateway share.
 *
 *   gate.c          its life, its sockets' bounds and times
 *   gate_ws.c       a socket: upgrade, frames in, subscriptions
 *   gate_frames.c   what a frame asks for; pure
 *   gate_quick.c    the same for the most frequent ones, without a document; pure
 *   gate_jobs.c     frames that wait for the disk
 *   gate_answer.c   frames out
 *   gate_http.c     POST /messages and what is like it
 *   gate_flows.c    /workflows
 */
#pragma once

#include <assert.h>

#include "base/strmap.h"
#include "net/ws.h"
#include "swarm/gate.h"
#include "swarm/mail.h"

enum {
    GATE_PROTOCOL = 3,
    GATE_ID = 512,            /* bytes of a request's id, as JSON */
    GATE_DEPTH = 64,          /* nesting of a frame */
    GATE_CONNECT_MAX = 16384, /* bytes of a frame of somebody unknown */
    GATE_STRANGERS = 256,     /* sockets of those who have not said who they are; then 503 */
    GATE_SUBS = 4096,         /* subscriptions of one socket; then LIMIT_EXCEEDED */
    GATE_ACKS = 1000,         /* messages acknowledged by one frame */
    /* Requests of one socket that wait for the disk, and their bytes; then it is not read from. */
    GATE_JOBS = 1024,
    GATE_JOBS_BYTES = 4 * 1024 * 1024,
    GATE_WORKERS = 4096, /* such requests under way, of all sockets; the rest queues */
    /* Requests that wait for an agent's reply, of a socket and of all; then "Message delivered". */
    GATE_WAITS = 256,
    GATE_WAITS_ALL = 16384,
    GATE_QUEUE = 4 * 1024 * 1024,      /* bytes unsent to a socket; then it is closed with 1008 */
    GATE_PUSH_QUEUE = 1 * 1024 * 1024, /* ... and from here on nothing is pushed to it */
};

enum gate_method {
    METHOD_CONNECT,
    METHOD_SEND,
    METHOD_ACK,
    METHOD_REPLY,
    METHOD_SUBSCRIBE,
    METHOD_UNSUBSCRIBE,
    METHOD_HEARTBEAT,
    METHOD_DIRECT, /* no request: a message as it is */
    METHOD_UNKNOWN,
};

struct gate_quick { /* params of an agent.send, agent.ack or agent.reply; {0}: absent */
    struct str session, message, key, from, one, response;
    struct str *ids;
    size_t n_ids;
    bool many; /* there were messageIds, if only an empty list */
};

struct gate_frame { /* texts lent by the document, or in the arena */
    enum gate_method method;
    bool request;                   /* "type":"req": answered by "res" */
    struct str id;                  /* as JSON; {0}: none */
    struct str name;                /* of the method */
    const json_t *params;           /* an object; of a direct message the message; NULL: none */
    const struct gate_quick *quick; /* not NULL: this is what params held, and params is NULL */
};

/*
 * ERR_INVALID: not a frame; what of *ret is known by then is filled in all the same, so that the
 * answer can name the request. Pure.
 */
int gate_frame_parse(struct str text, struct arena *a, struct gate_frame *ret, struct err *e)
    MUST_CHECK;

/* The same, if the frame is one of those it is for; else false, and nothing is in *ret. */
bool gate_quick_parse(struct str text, struct arena *a, struct gate_frame *ret);
enum gate_method gate_method_of(struct str name);

/* A message out of an object's members; needs_id: without an id it is invalid. */
int gate_message_read(const json_t *object, bool needs_id, struct arena *a, struct mail_in *ret,
                      struct err *e) MUST_CHECK;

struct gate_sock;

struct gate_sub {                      /* of a socket to a session */
    struct gate_sub *next, *next_here; /* of the socket; of the session */
    struct gate_sock *sock;
    struct gate_session *session;
    struct mail_sub *mail;
    bool replies;
    bool choked; /* a push was refused: its mailbox is told when there is room again */
};

struct gate_session { /* with at least one subscriber */
    struct strmap_node node;
    struct gate_sub *subs;
    char key[];
};

struct gate_sock {
    struct gate_sock *next, **at; /* of the open ones */
    struct gate *gate;
    struct ws *ws; /* NULL: closed; then only jobs hold it */
    unsigned refs;
    bool known;  /* may use the gateway */
    bool paused; /* it has sent more than we can work on */
    bool choked; /* it reads less than we push */
    uint64_t opened_ms;
    unsigned n_jobs, n_waits, n_subs;
    size_t bytes;
    struct gate_sub *subs;
};

struct gate_job {
    struct gate_job *next; /* in the queue, or in the pool */
    struct gate_sock *sock;
    struct arena arena;
    struct gate_frame frame;
    struct str to; /* of a message */
    size_t bytes;
};

struct gate {
    struct swarm *s;
    struct gate_sock *socks;
    unsigned n_socks, n_strangers;
    struct strmap sessions;
    struct loop_timer *timer;
    bool ticking, stopping;
    struct fiber *stopper;

    struct fiber_group *fibers;
    struct gate_job *queue, **queue_end, *pool;
    unsigned n_pool, n_at_work, n_waits;
    bool going;      /* jobs are being taken from the queue */
    struct buf out;  /* frames are put together here */
    unsigned serial; /* of messages that came without an id */

    struct http_route *routes[GATE_TABLES]; /* copies, whose locks depend on the settings */
};

/* gate_ws.c */
int gate_upgrade(struct http_req *req, struct err *e); /* room: the struct swarm */
void gate_sock_unref(struct gate_sock *sock);
void gate_tick_soon(struct gate *g); /* gate.c */

/* gate_jobs.c */
struct gate_job *gate_job_take(struct gate *g);
void gate_job_give(struct gate *g, struct gate_job *job);
void gate_job_start(struct gate_sock *sock, struct gate_job *job); /* takes the job */
void gate_jobs_drop(struct gate *g); /* what was not begun, at the end */
void gate_jobs_go(struct gate *g);   /* begin what may be begun */
/* How long may an agent take to reply? seconds: of the request, or NULL. */
uint64_t gate_reply_ms(const struct gate *g, const json_t *seconds);

/* gate_answer.c. id: JSON or {0}. None of them waits; a socket that takes no more is closed. */
struct buf *gate_out(struct gate *g); /* empty */
void gate_out_send(struct gate_sock *sock);
void gate_answer(struct gate_sock *sock, struct str id, const char *payload_fmt, ...) PRINTF(3, 4);
void gate_answer_failed(struct gate_sock *sock, const struct gate_frame *f, const char *code,
                        const char *message);
void gate_answer_error(struct gate_sock *sock, const struct gate_frame *f, const struct err *e);
void gate_answer_sent(struct gate_sock *sock, struct str id, struct str to, struct str response,
                      const struct mail_out *out);
void gate_answer_result(struct gate_sock *sock, struct str id, struct str response,
                        const struct mail_out *out);
/* 0, or as of mail_sub_ops.push */
int gate_push_message(struct gate_sock *sock, const struct mail_push *push, struct err *e)
    MUST_CHECK;
void gate_push_event(struct gate_sock *sock, const char *event, const json_t *payload);

#define GATE_AWAY "The database is away: try again later"
/* The error of a caller's fault or of ours, as a code of frames and for people. */
const char *gate_code(enum err_code code);
const char *gate_text(const struct err *e);

/* gate_http.c */
extern const struct shape gate_async_shape, gate_skill_shape;
bool gate_is_async(const struct http_req *req); /* of a route whose query is gate_async_shape */
int gate_reply_done(struct http_req *req, const char *workflow, struct str result, struct err *e)
    MUST_CHECK;
int gate_refuse(struct http_req *req, const struct err *why, bool full, struct err *e) MUST_CHECK;
/* The same error for the dialect, without the words of a database that is away. */
int gate_fail(const struct err *why, struct err *e) MUST_CHECK;
int gate_skill_install(struct http_req *req, struct err *e);
int gate_skill_run(struct http_req *req, struct err *e);

/* the routes, in gate_http.c and gate_flows.c */
extern const struct http_route gate_message_routes[], gate_flow_routes[], gate_chat_routes[];
extern const size_t gate_message_routes_len, gate_flow_routes_len, gate_chat_routes_len;
