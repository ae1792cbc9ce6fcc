/* SPDX-License-Identifier: MIT */
/*
 * agent/http_agent.h — turn a command into an HTTP agent that the bridge, or any client of the
 * OpenAI chat API, can call: the prompt goes to its standard input, its standard output is the
 * answer.
 *
 *   POST /v1/messages           {"content": "..."}
 *   POST /v1/chat/completions   the OpenAI form
 *   GET  /health                {"status": "ok"}
 *
 * A non-zero exit is 500 with the end of stderr, a timeout 504, a full house 503 with Retry-After.
 * The command gets CHELA_SESSION_ID and CHELA_MODEL in its environment.
 */
#pragma once

#include "base/err.h"

#define AGENT_ANSWER_MAX (16 * MIB) /* of stdout; more is a failed run */

struct http_agent_options {
    const char *host;  /* "127.0.0.1" */
    long long port;    /* 0 picks one */
    const char *token; /* callers must send it as a bearer token; NULL: nobody needs one */
    long long timeout_ms;
    long long concurrency;      /* commands at a time */
    int ready_fd;               /* -1: none; one line of JSON with "listeners" when serving */
    const char *const *command; /* argv, NULL-terminated */
};

/* Serve until SIGTERM or SIGINT. Blocking. */
int http_agent_run(const struct http_agent_options *opt, struct err *e) MUST_CHECK;
