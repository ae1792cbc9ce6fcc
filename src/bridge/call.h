/* SPDX-License-Identifier: MIT */
/*
 * bridge/call.h — a call: the planned chain of agents, attempts on each, the turn of the session
 * around it, and the result object that the original answered with.
 */
#pragma once

#include "bridge/bridge_calls.h"

/* Where the pieces of a streamed answer go. */
struct call_sink {
    CO int (*begin)(void *arg, struct err *e); /* once, before an agent is asked; may be NULL */
    CO int (*delta)(void *arg, struct str agent, struct str text, struct err *e);
    void *arg;
};

struct call_request {
    struct str agent, prompt;
    struct str session_id, user_id; /* empty: none */
    const json_t *metadata;         /* an object, or NULL */
    struct str key, hash; /* Idempotency-Key (with its caller) and hash of the request: the first
                           * result, be it a failure, is the result of every repetition */
    bool forget_failure;  /* ... but a failure is not: the caller keeps it, and may ask anew */
    uint64_t deadline_ms; /* of the caller; bridge.call_deadline counts too */
    const struct call_sink *sink; /* NULL: not streamed */
};

struct call_attempt {
    struct str agent;
    unsigned number;      /* on this agent, from 1 */
    enum error_type type; /* ERROR_NONE: it succeeded */
    int status;           /* 0: no answer */
    double latency_ms;
};

struct call_result {
    bool success, retried;
    struct str agent_name, response, error; /* {NULL, 0}: null */
    enum error_type type;
    struct str *chain; /* planned */
    size_t n_chain;
    double latency_ms;
    size_t retry_count; /* index in the chain */
    struct call_attempt *attempts;
    size_t n_attempts;
    struct str text; /* the whole as JSON; of a recorded result the only member that is set */
};

/*
 * Make the call. All memory is the arena's. 0: *ret has a result, be it of success or failure.
 * A client that leaves cancels the fiber: the turn then reads as interrupted. Store errors
 * (ERR_UNAVAILABLE) mean that nothing was promised.
 */
enum {
    CALL_FOREIGN = 1,
    CALL_MISMATCH = 2
}; /* the session is another user's; the key has another body */
CO int bridge_call(struct bridge *b, const struct call_request *req, struct arena *a,
                   struct call_result *ret, struct err *e) MUST_CHECK;

/* The result as JSON: the original's keys in its order, then ours. */
int call_result_write(struct call_result *r, struct arena *a, struct err *e) MUST_CHECK;
