/* SPDX-License-Identifier: MIT */
/* bridge/attempt.h — one request to one agent, and what came of it. */
#pragma once

#include "bridge/call.h"

struct attempt {
    bool begun; /* a piece of the answer has been passed on: no second try */
    bool retriable;
    bool hurried; /* the call's deadline left it less than half of the time that it should have */
    enum error_type type;     /* ERROR_NONE: text is the answer */
    struct str text, error;   /* in the arena */
    int status;               /* 0: no answer */
    long long retry_after_ms; /* what the agent asked for; 0: nothing */
    double latency_ms;
};

/*
 * Send body to the agent and understand the answer, within the agent's timeout and the deadline.
 * 0 whatever the agent did; an error only when the caller is gone (cancelled, or its sink failed).
 */
CO int attempt_make(struct bridge *b, const struct agent *agent, struct str body,
                    uint64_t deadline_ms, const struct call_sink *sink, struct arena *a,
                    struct attempt *ret, struct err *e) MUST_CHECK;
