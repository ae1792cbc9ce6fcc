/* SPDX-License-Identifier: MIT */
/*
 * openclaw/openclaw_int.h — what the files of the client share.
 *
 *   frame.c    bytes to frames and back; what a refusal means. Pure
 *   breaker.c  when to refuse without asking. Pure
 *   device.c   the device key and what it signs
 *   hello.c    the handshake on an open socket
 *   client.c   the life of the connection: the fiber that tends it
 *   request.c  requests under way
 *   turn.c     turns and posts: requests that are sent until they are answered
 *   posted.c   whether a post was sent before the gateway died
 *   status.c   state, history, metrics
 */
#pragma once

#include "net/ws.h"
#include "openclaw/openclaw.h"

#define OC_FRAME_MAX ((size_t)26214400) /* the largest that gateways send (policy.maxPayload) */
#define OC_FIRST_MAX (64 * KIB)         /* what a peer takes before it has said hello */
#define OC_BASIC_MAX (1 * MIB)          /* what one takes that names no bound */
#define OC_DEPTH     128                /* nesting of a frame's JSON */

/* --- frame.c --- */

enum oc_kind {
    OC_FRAME_ANSWER, /* "res", or "error" with the id of a request */
    OC_FRAME_EVENT,  /* "event", or "evt" of our own gateway's protocol */
    OC_FRAME_OTHER,  /* an object of another type */
};

struct oc_frame {
    enum oc_kind kind;
    struct str id;       /* of an answer */
    bool ok;             /* of an answer */
    const char *name;    /* of an event */
    json_t *payload;     /* NULL: none */
    const json_t *error; /* of an answer that is not ok; may be NULL */
    int64_t seq;         /* of an event; -1: none */
};

/* One message. All it holds lives in the arena. ERR_INVALID: not a JSON object. */
int oc_frame_parse(struct str text, struct arena *a, struct oc_frame *ret, struct err *e)
    MUST_CHECK;

/* {"type":"req","id":...,"method":...,"params":...} */
int oc_frame_request(struct buf *b, const char *id, const char *method, const json_t *params,
                     struct err *e) MUST_CHECK;

/* Why an answer is not ok. */
struct oc_refusal {
    enum err_code code; /* of ours */
    char name[40];      /* of the peer's: "INVALID_REQUEST"; "" when it gave none */
    char detail[48];    /* details.code; "" */
    char text[200];     /* message */
    bool starting;      /* the peer is not ready yet, or bids us try again */
    bool wants_device;  /* it asks for a device identity */
    bool queued;        /* it could not send, and will try again by itself */
    uint64_t retry_ms;  /* retryAfterMs; 0: none */
};
void oc_refusal_read(const json_t *error, struct oc_refusal *ret);
int oc_refusal_err(const struct oc_refusal *why, const char *method, struct err *e);

/* What the answer to connect says of the peer. */
struct oc_peer {
    char version[64];
    unsigned protocol;
    bool basic;       /* names no methods: the protocol of our own gateway */
    bool subscribes;  /* knows sessions.subscribe */
    bool powerless;   /* has given us no scopes at all */
    uint64_t tick_ms; /* between ticks; 0: none are promised */
    size_t max_payload;
};
int oc_peer_read(const json_t *payload, struct oc_peer *ret, struct err *e) MUST_CHECK;

/* --- breaker.c --- */

struct oc_breaker {
    unsigned failures, successes; /* in a row; successes while half open */
    bool open, half;              /* half: it was open, and its time is over */
    uint64_t until_ms;            /* open until then */
};
bool oc_breaker_lets(struct oc_breaker *b, uint64_t now_ms); /* may a request be made? */
void oc_breaker_good(struct oc_breaker *b);
bool oc_breaker_bad(struct oc_breaker *b, uint64_t now_ms); /* true: it has opened now */
void oc_breaker_met(struct oc_breaker *b); /* a handshake went well: an open one is half open */

/* Wait before the n-th attempt after the first has failed (n from 0), with chance in [0, 1). */
uint64_t oc_backoff_ms(uint64_t first_ms, uint64_t last_ms, unsigned n, double chance);

/* --- device.c --- */

struct oc_device {
    bool loaded;
    unsigned char key[32];
    char id[65], public_text[48];
};
int oc_device_load(struct oc_device *d, const char *path, struct err *e) MUST_CHECK;

/* What a signature is about. */
struct oc_claim {
    const char *client_id, *mode, *role, *scopes, *platform, *token; /* scopes joined by commas */
    const char *nonce;
    int64_t at_ms; /* of the challenge */
};
/* The member "device" of connect: a new reference. */
json_t *oc_device_sign(const struct oc_device *d, const struct oc_claim *claim);

/* n bytes as base64url without padding into out, which holds 4 * ceil(n / 3) + 1. */
void oc_base64url(const unsigned char *p, size_t n, char *out);

/* --- request.c --- */

struct oc_call { /* a request under way, on the stack of the fiber that waits for it */
    struct fiber *fiber;
    unsigned slot;
    char id[32];
    bool once;     /* an answer "accepted" is the last that counts, when no other comes in time */
    bool accepted; /* it has come */
    bool done, lost;
    int r; /* 0: payload; else what *refusal or the loss says */
    json_t *payload;
    struct oc_refusal refusal;
};

struct oc_calls {
    struct oc_call *slots[OC_PENDING_MAX];
    unsigned n, next;
    uint64_t serial;
};

enum { OC_ACCEPTED = 1 }; /* of a call with once: accepted, but no result until the deadline */

/* One request on the connection there is. r >= 0: call->payload is the caller's. */
CO int oc_call(struct oc_client *c, const char *method, const json_t *params, uint64_t deadline_ms,
               struct oc_call *call, struct err *e) MUST_CHECK;
void oc_calls_answer(struct oc_client *c, const struct oc_frame *frame);
void oc_calls_lost(struct oc_client *c);
/* Send a request whose answer nobody waits for. */
void oc_call_away(struct oc_client *c, const char *method);

/* --- posted.c --- */

/* Is a post's key in the transcript of its channel's session? OC_POSTED or 0. */
enum { OC_POSTED = 1 };
CO int oc_posted(struct oc_client *c, const struct oc_post *post, uint64_t deadline_ms,
                 struct err *e) MUST_CHECK;

/* --- hello.c --- */

enum oc_end { OC_END_LOST, OC_END_STARTING, OC_END_REFUSED, OC_END_AGAIN };

/* Shake hands on an open socket and subscribe. On failure *ret_end and *ret_hint_ms say how soon it
 * may be tried again. */
CO int oc_hello(struct oc_client *c, struct ws *ws, uint64_t deadline_ms, enum oc_end *ret_end,
                uint64_t *ret_hint_ms, struct err *e) MUST_CHECK;

/* The next frame of a socket; what is no frame is counted and passed over. WS_CLOSED. */
CO int oc_receive(struct ws *ws, struct arena *a, struct oc_frame *ret, uint64_t deadline_ms,
                  struct err *e) MUST_CHECK;
enum oc_end oc_end_of(unsigned close_code);

/* --- the client --- */

struct oc_waiter {
    struct fiber *fiber;
    struct oc_waiter *next;
};

struct oc_memory { /* a line of the history */
    struct oc_command command;
    uint64_t serial;
};

struct oc_pace { /* tests make it quick */
    uint64_t backoff_first_ms, backoff_last_ms;
    uint64_t refused_ms; /* between attempts after a refusal that cannot pass by itself */
    uint64_t greet_ms;   /* how long a challenge is waited for */
    uint64_t settled_ms; /* a connection that has lasted so long was a success */
    uint64_t resend_ms;  /* how long the result of a turn that was sent again is waited for */
};

struct oc_client {
    struct loop *loop;
    struct arena texts;
    struct oc_conf conf; /* its texts are in there */
    const char *shown;   /* the URL without its query, for logs and status */
    struct oc_pace pace;
    struct fiber *tender;
    bool stopping;
    enum oc_state state;
    struct ws *ws; /* while connected */
    struct oc_peer peer;
    bool met; /* it has been connected once */
    struct oc_device device;
    bool use_device;
    struct oc_calls calls;
    struct oc_breaker breaker;
    struct oc_waiter *waiters;
    char last_error[240];
    uint64_t connected_at_ms, attempts;
    uint64_t restart_hint_ms; /* of a shutdown event; 0: none */
    int64_t last_seq;
    uint64_t resubscribed_at_ms;
    struct oc_memory history[OC_HISTORY];
    size_t n_history;
    uint64_t history_serial;
};

/* --- client.c --- */

void oc_event_in(struct oc_client *c, const struct oc_frame *frame);
/* Wait until connected, or fail at once where waiting does not help. */
CO int oc_ready(struct oc_client *c, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/* --- status.c --- */

void oc_state_set(struct oc_client *c, enum oc_state state);
void oc_error_set(struct oc_client *c, const char *text);
uint64_t oc_history_add(struct oc_client *c, const char *command, struct str session,
                        struct str message);
void oc_history_end(struct oc_client *c, uint64_t serial, bool ok);

enum oc_outcome { OC_OUT_OK, OC_OUT_REFUSED, OC_OUT_LOST, OC_OUT_TIMEOUT, OC_OUT_BREAKER };
extern struct metric oc_m_connected, oc_m_connects, oc_m_requests, oc_m_request_seconds,
    oc_m_pending, oc_m_events, oc_m_gaps, oc_m_odd, oc_m_breaks;
