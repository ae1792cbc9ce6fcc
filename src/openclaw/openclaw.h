/* SPDX-License-Identifier: MIT */
/*
 * openclaw/openclaw.h — an OpenClaw gateway as a peer: a client of its WebSocket protocol, versions
 * 3 and 4, that stays connected.
 *
 * One client is one connection, tended by a fiber: connect, shake hands as a backend client with
 * the shared token (or with a device identity where the peer wants one), subscribe, read; after a
 * loss again, with backoff, for ever. UNAVAILABLE and close 1013 mean that the peer is starting:
 * that is no failure, and is tried again soon. A refusal that cannot pass by itself (a wrong token,
 * no common protocol) is tried again only rarely, and is named by oc_status().
 *
 * Requests may be made by any fiber. What is under way when the connection goes fails with
 * ERR_UNAVAILABLE; those that carry an idempotency key may be sent again under the same key, and
 * the calls below do so within their deadline. A breaker refuses requests at once after
 * OC_BREAK_AFTER failures of the transport in a row, for OC_BREAK_MS, and closes after OC_MEND
 * successes.
 *
 * Source of the protocol: measured on the releases 2026.2.26, 2026.7.35 and 2026.9.6; see
 * docs/openclaw.md for what was found.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/fiber.h"
#include "base/json.h"
#include "base/metric.h"
#include "base/str.h"

#define OC_BACKOFF_FIRST_MS 1000 /* doubled, and up to 100 ms of chance added */
#define OC_BACKOFF_LAST_MS  30000
#define OC_BREAK_AFTER      5
#define OC_BREAK_MS         60000
#define OC_MEND             2
#define OC_PENDING_MAX      1024 /* requests under way; ERR_LIMIT past it */
#define OC_HISTORY          10   /* commands that oc_status() remembers */

struct oc_client;

enum oc_state { OC_DISCONNECTED, OC_CONNECTING, OC_CONNECTED, OC_RECONNECTING, OC_FAILED };
const char *oc_state_name(enum oc_state state); /* "disconnected" ... "failed" */

/* Something that the gateway told: called on the loop's thread, must not wait. */
struct oc_event {
    const char *name;      /* "chat", "agent", "session.message", "sessions.changed", ... */
    const json_t *payload; /* lent during the call */
};

struct oc_conf {
    const char *url;   /* ws://, wss://, http:// or https:// */
    const char *token; /* NULL or "": none */
    const char
        *identity_path; /* file of the device key, made when first needed; NULL: none is used */
    const char *display_name; /* NULL: "chela" */
    uint64_t connect_ms;      /* one attempt: TCP, upgrade and handshake; 0: 15 s */
    uint64_t request_ms;      /* a request without a deadline of its own; 0: 30 s */
    bool subscribe;           /* sessions.subscribe after every connect, where the peer knows it */
    void (*event)(const struct oc_event *event, void *arg); /* NULL: nobody listens */
    void (*changed)(enum oc_state state, void *arg);        /* NULL */
    void *arg;
};

/* conf is copied. Nothing is done before oc_start(). */
int oc_new(struct loop *loop, const struct oc_conf *conf, struct oc_client **ret, struct err *e)
    MUST_CHECK; /* ERR_INVALID: a URL that cannot be used */
int oc_start(struct oc_client *c, struct err *e) MUST_CHECK;
CO void oc_stop(struct oc_client *c); /* closes, fails what is pending, waits for the fiber */
void oc_free(struct oc_client *c);    /* stopped; NULL is fine */

/* Wait until connected and, where that was asked for, subscribed: 0, or ERR_TIMEOUT with the reason
 * of the last failure. */
CO int oc_wait(struct oc_client *c, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/*
 * One request and its (last) answer. params NULL: {}. The payload is a new reference in *ret (NULL:
 * not wanted). Of two answers with one id the one with status "accepted" is passed over.
 * ERR_UNAVAILABLE: not connected, lost, the breaker is open, or the peer said UNAVAILABLE;
 * ERR_TIMEOUT; ERR_INVALID, ERR_UNAUTHORIZED, ERR_FORBIDDEN, ERR_NOT_FOUND as the peer's error code
 * says, with its text.
 */
CO int oc_request(struct oc_client *c, const char *method, const json_t *params,
                  uint64_t deadline_ms, json_t **ret, struct err *e) MUST_CHECK;

/*
 * oc_turn() and oc_post() wait for a connection that is being made, until their deadline (0 or
 * DEADLINE_NONE: conf.request_ms), but fail at once while the peer refuses us or the breaker is
 * open. Against a peer that speaks our own gateway's protocol both are "agent.send".
 *
 * Have an agent take a turn in a session and wait for its reply: the texts of the answer joined by
 * newlines. key: the peer runs one turn for it, however often it is sent. Sent again after a loss
 * until the deadline, with the same key. deliver: the reply also goes out through the session's
 * channel, where it has one.
 */
struct oc_turn {
    struct str session, message, key;
    const char *agent;        /* NULL: that of the session's key, or the default one */
    const char *extra_prompt; /* NULL */
    bool deliver;
};
CO int oc_turn(struct oc_client *c, const struct oc_turn *turn, uint64_t deadline_ms,
               struct buf *out, struct err *e) MUST_CHECK;

/*
 * Send a text through a channel, once for each key. Gateways forget keys when they die, so before a
 * text is sent again its key is looked for in the transcript of the channel; what remains is a
 * gateway that dies between sending and writing that down. *ret_id: the channel's id of it, in the
 * arena (NULL: not wanted), NULL when it is not known. A transport failure that the peer has queued
 * and will retry is 0.
 */
struct oc_post {
    struct str channel, to, message, key; /* channel "telegram", to "12345" */
    const char *account;                  /* NULL: the default one */
    bool again; /* it may have been sent before, to a gateway that has died since: look first */
};
CO int oc_post(struct oc_client *c, const struct oc_post *post, uint64_t deadline_ms,
               struct arena *a, const char **ret_id, struct err *e) MUST_CHECK;

/*
 * Tell conf.event() what people wrote since then (milliseconds since 1970, by the gateway's clock)
 * in the sessions that are wanted, as session.message events, from what the gateway keeps: at most
 * the last 100 messages of the last 50 sessions that have changed. What was told live is told
 * again, with the same ids. Nothing is told of a peer that knows no sessions.
 */
CO int oc_missed(struct oc_client *c, int64_t since_ms, bool (*wanted)(struct str key, void *arg),
                 uint64_t deadline_ms, struct err *e) MUST_CHECK;

/* A line of the history. command: "agent_turn" or "send_message"; status: "success", "failed" or
 * "pending". */
struct oc_command {
    const char *command, *status;
    char session[128], message[256]; /* shortened */
    int64_t at_ms;
};

struct oc_status {
    enum oc_state state;
    bool configured, breaker_open;
    const char *url;        /* without user and password */
    const char *last_error; /* NULL: none since it connected; lent until the next wait */
    const char *version;    /* of the peer; NULL before the first handshake */
    unsigned protocol;
    uint64_t connected_ms; /* for how long; 0: not connected */
    uint64_t attempts;     /* to connect, since the last success */
    unsigned pending;
    struct oc_command history[OC_HISTORY]; /* newest first */
    size_t n_history;
};
void oc_status(const struct oc_client *c, struct oc_status *ret);

extern struct metric *const oc_metrics[];
extern const size_t oc_metrics_len;
