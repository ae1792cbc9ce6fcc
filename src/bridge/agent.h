/* SPDX-License-Identifier: MIT */
/*
 * bridge/agent.h — registered agents. A struct agent is one registration and never changes:
 * registering again makes another. Who waits holds a reference; the registry has the current one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strmap.h"
#include "bridge/adapter.h"
#include "bridge/tracker.h"

enum { AGENT_NAME_MAX = 512, AGENT_FALLBACKS_MAX = 64 };

/* A registration as it was asked for, in terms of borrowed text. */
struct agent_spec {
    struct str name, host, protocol; /* protocol "http" or "https" */
    long long port;
    struct str auth_token; /* empty: none */
    long long timeout_ms;  /* 0: the setting */
    long long max_retries; /* attempts in all; 0: the setting */
    const struct str *fallbacks;
    size_t n_fallbacks;
    enum agent_api api;
    bool context; /* send earlier messages of the session */
};

struct agent {
    unsigned refs;
    char *name, *host, *token; /* host without brackets; token NULL: none */
    int port;
    bool tls, context;
    enum agent_api api;
    long long timeout_ms, max_retries;
    char **fallbacks;
    size_t n_fallbacks;
    char *url;              /* "http://[::1]:5000", always with the port */
    char *call_url;         /* and the path of its api */
    char *authorization;    /* the header line, or NULL */
    const char *headers[4]; /* of a call, NULL-terminated */
};

/* Why a registration is not acceptable, for the field it names. */
struct agent_problem {
    const char *field;
    char text[240];
};

/* Make one. -ERR_INVALID with *problem filled (constant field name) when the spec is malformed. */
int agent_new(const struct agent_spec *spec, struct agent **ret, struct agent_problem *problem,
              struct err *e) MUST_CHECK;
struct agent *agent_ref(struct agent *a);
void agent_unref(struct agent *a); /* NULL is fine; wipes the token when it was the last */
DEFINE_AUTO(agent_unref, struct agent *);

bool agent_equal(const struct agent *a, const struct agent *b);

/* The registry's entry of a name: its place, its current registration, its health. */
struct agent_entry {
    struct strmap_node node; /* key: agent->name of the first registration, kept */
    struct agent_entry *next, *prev;
    struct agent *agent;
    struct tracked *tracked;
    int64_t position;
    char name[];
};

struct agents {
    struct strmap map;
    struct agent_entry *first, *last; /* in order of first registration */
    int64_t last_position;
};

struct agent_entry *agents_find(const struct agents *all, struct str name); /* or NULL */

/* Put a registration in (takes the reference) at its name's old place or, new, at position. */
struct agent_entry *agents_put(struct agents *all, struct agent *agent, int64_t position,
                               struct tracker *tracker);
void agents_remove(struct agents *all, struct agent_entry *entry, struct tracker *tracker);
void agents_done(struct agents *all); /* the tracked ones belong to the tracker */
