/* SPDX-License-Identifier: MIT */
/*
 * daemon/workflows.h — the daemon's engine: what it is made with, the workflows that chelad itself
 * offers, and the listener of the DBOS admin routes.
 */
#pragma once

#include "daemon/auth.h"
#include "durable/routes.h"

struct workflows {
    struct durable *engine;
    struct durable_type types[1];
    struct durable_queue queues[1];
    struct auth auth; /* of the admin routes: a token always */
    struct http_table table;
    struct http_server *server; /* NULL: off */
    char address[64];           /* "127.0.0.1:3001"; "": off */
};

/* Make the engine with chelad's own workflows; other rooms register theirs before it is run. */
int workflows_new(struct workflows *w, struct loop *loop, struct store *store,
                  struct bridge *bridge, const struct durable_settings *settings,
                  const char *instance, struct err *e) MUST_CHECK;
CO int workflows_run(struct workflows *w, struct err *e) MUST_CHECK;

/* Serve the admin routes if the settings say so. */
int workflows_serve(struct workflows *w, struct loop *loop, const struct auth *auth,
                    const struct durable_settings *settings, const struct http_limits *limits,
                    struct err *e) MUST_CHECK;

/*
 * End the runs: those that finish in time do, the others go back to their queues. The engine can
 * still be read until workflows_done(), which comes after the last request.
 */
CO void workflows_stop(struct workflows *w, uint64_t grace_ms);
void workflows_done(struct workflows *w); /* works on a zeroed one */
