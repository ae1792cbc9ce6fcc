/* SPDX-License-Identifier: MIT */
/*
 * swarm/mail.h — messages that are sure to arrive.
 *
 * A message is a row of agent_messages, written before anybody is told that it was accepted. It is
 * due to the consumer of its session until that acknowledges it, replies to it, or it is dead:
 * delivered too often, too old, or dropped by hand. What is said twice (one workflow_uuid) is one
 * message. Between two parties messages arrive in the order in which they were accepted.
 *
 * Acceptances, acknowledgements and replies travel in lanes: all that wait while a batch is on its
 * way are the next batch, one statement and one commit (as the engine's journal does).
 *
 * A consumer is a subscription of a WebSocket, or a driver: code that delivers what is due to
 * sessions it claims (the OpenClaw client, notify.c). A live subscription comes first.
 * At-least-once: what is not acknowledged is pushed again after redeliver_first_ms, doubling up to
 * redeliver_last_ms, and at once when a consumer (re)subscribes. The number of pushes under way per
 * session is bounded (MAIL_WINDOW); the rest waits in the table.
 */
#pragma once

#include "swarm/swarm_int.h"

#define MAIL_WINDOW  1024 /* unacknowledged pushes of one session */
#define MAIL_SESSION 256  /* bytes of a session key, of a sender, with the terminator */
#define MAIL_ID      256  /* of a message id, of a workflow id */
#define MAIL_DRIVERS 4

struct mail;

int mail_new(struct swarm *s, struct mail **ret, struct err *e)
    MUST_CHECK; /* registers the workflow */
CO int mail_start(struct mail *m, struct err *e) MUST_CHECK;
CO void mail_stop(struct mail *m);
void mail_free(struct mail *m);

/* --- sending --- */

struct mail_in {
    struct str id;       /* the sender's; {0}: "msg_<ms>_<random>" is made */
    struct str from, to; /* not empty */
    struct str content;
    struct str metadata; /* JSON; {0}: none */
    struct str
        workflow; /* workflow_uuid; {0}: msg:<sha256 of from|to|id> when id is given, else random */
    uint64_t max_age_ms; /* 0: the setting's */
};
struct mail_out {
    char workflow[MAIL_ID], id[MAIL_ID];
    bool existed; /* said before: nothing new was written */
    bool live;    /* somebody is subscribed to the session, or drives it */
    bool replies; /* ... and has said that it replies */
    int64_t accepted_ms;
    bool full; /* after ERR_LIMIT: the mailbox is, else the message is too long */
};
/*
 * When this returns 0 the message is on the disk. ERR_INVALID: "Invalid message: missing required
 * fields", or a field that cannot be stored; ERR_LIMIT: too long, or the mailbox is full
 * (ret->full and mail_full() tell them apart); ERR_CONFLICT: the key was used for another
 * text; ERR_UNAVAILABLE: no database.
 */
CO int mail_send(struct mail *m, const struct mail_in *in, struct mail_out *ret, struct err *e)
    MUST_CHECK;

/*
 * The same without a wait: done() says later what mail_send() would have returned, in *out and *e
 * what it would have left there. It must not wait. in's texts and the arena must stay until then;
 * how many may be under way is for the caller to bound. Less than 0: refused at once, and done() is
 * not called.
 */
typedef void mail_posted(void *arg, int r, const struct mail_out *out, const struct err *e);
int mail_post(struct mail *m, const struct mail_in *in, struct arena *a, mail_posted *done,
              void *arg, struct err *e) MUST_CHECK;

bool mail_full(const struct err *e); /* is it the refusal of a full mailbox? 429, not 413 */

/* The same as a part of a transaction (store thread); after the commit call mail_sent(). */
int mail_send_tx(struct store_tx *tx, const struct mail *m, const struct mail_in *in,
                 struct mail_out *ret, struct err *e) MUST_CHECK;
void mail_sent(struct mail *m, struct str session);

/* Wait for the reply to a message. 0 with the text, or MAIL_NOTHING: none in time, or nobody who
 * could reply is there any more. */
enum { MAIL_NOTHING = 1 };
CO int mail_reply_wait(struct mail *m, struct str workflow, uint64_t deadline_ms, struct buf *out,
                       struct err *e) MUST_CHECK;

/* {messageId, status:"delivered", deliveryAttempts, lastAttemptTime, response?}: the result of
 * routeAgentMessage. response {0}: none. */
int mail_result_json(const struct mail_out *out, struct str response, struct buf *ret,
                     struct err *e) MUST_CHECK;

/* --- consuming --- */

struct mail_push { /* lent during the call */
    struct str workflow, id, from, to, content, metadata;
    int64_t accepted_ms;
    unsigned attempt; /* 1: the first */
    bool notice;      /* agent.delivery_failed: a message of the receiver's own that is dead */
};
struct mail_sub;
struct mail_sub_ops {
    /* Hand it on. 0, or -ERR_LIMIT when the way is choked: it is tried again later. Must not wait,
     * nor subscribe or unsubscribe. */
    int (*push)(const struct mail_push *push, void *arg, struct err *e);
};
/* Subscribe to a session. What is pending is pushed, soon. replies: it will answer with
 * mail_reply(). Several subscribers of one session take turns: each message goes to one of them. */
int mail_subscribe(struct mail *m, struct str session, bool replies, const struct mail_sub_ops *ops,
                   void *arg, struct mail_sub **ret, struct err *e) MUST_CHECK;
void mail_unsubscribe(struct mail_sub *sub); /* what it had not acknowledged is due again */

/* A way that was choked takes more. Without it that is found out within a second. */
void mail_sub_ready(struct mail_sub *sub);

/*
 * Acknowledge, by workflow_uuid or by message id. session {0}: any. Durable when it returns; a
 * repeat is fine. ERR_NOT_FOUND: no such message.
 */
CO int mail_ack(struct mail *m, struct str session, struct str id, struct err *e) MUST_CHECK;
/* Many in one commit, at most MAIL_MANY; how many of them there are. */
#define MAIL_MANY 1024
CO int mail_ack_many(struct mail *m, struct str session, const struct str *ids, size_t n,
                     size_t *ret_acked, struct err *e) MUST_CHECK;
/* The same as mail_ack() with a response, which whoever waits for it gets. The first reply counts.
 */
CO int mail_reply(struct mail *m, struct str session, struct str id, struct str response,
                  struct err *e) MUST_CHECK;

/* A driver: takes(session) and then deliver(): 0 with the response in out is an acknowledgement;
 * ERR_INVALID, ERR_NOT_FOUND and ERR_FORBIDDEN make it dead at once, other errors are tried again.
 * One delivery of a session at a time, in order; at most `fibers` sessions at once. */
struct mail_driver {
    const char *name;
    bool (*takes)(struct str session, void *arg);
    CO int (*deliver)(const struct mail_push *push, void *arg, struct buf *out, struct err *e);
    bool (*replies)(struct str session, void *arg); /* may a reply come soon? NULL: yes */
    unsigned fibers;
    void *arg;
};
int mail_drive(struct mail *m, const struct mail_driver *driver, struct err *e) MUST_CHECK;

/* --- looking and mending --- */

enum mail_status {
    MAIL_PENDING,
    MAIL_ACKED,
    MAIL_FAILED,
    MAIL_EXPIRED,
    MAIL_DROPPED,
    MAIL_STATUSES
};
extern const char *const mail_status_names[MAIL_STATUSES]; /* as in the table */

struct mail_info { /* texts in the arena */
    int64_t position;
    struct str workflow, id, from, to, content, metadata, response, error;
    enum mail_status status;
    int64_t attempts, created_ms, expires_ms, ended_ms; /* 0: NULL */
};
struct mail_filter {
    struct str session, from; /* {0}: any */
    unsigned statuses;        /* bits; 0: all */
    int64_t before;           /* positions below; 0: from the newest */
    int64_t created_from_ms;
    unsigned limit; /* 0: 50; at most 1000 */
};
CO int mail_list(struct mail *m, const struct mail_filter *f, struct arena *a,
                 struct mail_info **ret, size_t *ret_n, struct err *e)
    MUST_CHECK; /* newest first */
/* By workflow_uuid, or by message id (the newest). ERR_NOT_FOUND. */
CO int mail_get(struct mail *m, struct str id, struct arena *a, struct mail_info *ret,
                struct err *e) MUST_CHECK;
/* A dead message is due again, attempts from 0. ERR_CONFLICT: it is not dead. */
CO int mail_replay(struct mail *m, struct str id, struct err *e) MUST_CHECK;
/* A message is not to be delivered. ERR_CONFLICT: it has ended. */
CO int mail_drop(struct mail *m, struct str id, struct err *e) MUST_CHECK;

struct mail_counts {
    int64_t by_status[MAIL_STATUSES], oldest_pending_ms;
    unsigned subscribers, under_way;
};
CO int mail_overview(struct mail *m, struct mail_counts *ret, struct err *e) MUST_CHECK;

/* Routes /api/v1/messages…; their room is the struct mail. */
extern const struct http_route mail_routes[];
extern const size_t mail_routes_len;
