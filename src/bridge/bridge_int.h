/* SPDX-License-Identifier: MIT */
/* bridge/bridge_int.h — what the files of the bridge share. */
#pragma once

#include "bridge/bridge_calls.h"
#include "bridge/lane.h"

struct bridge {
    struct loop *loop;
    struct store *store;
    struct http_client *client;
    const struct bridge_conf *conf;
    unsigned char key[32];

    struct agents agents;
    struct tracker tracker;
    struct fiber_lane registry; /* who writes agents or health to the store */
    struct lanes sessions, keys;
    long long n_sessions; /* as far as we know; counted again by each sweep */
    int64_t last_sid;
    unsigned sid_salt; /* 12 bits that tell the sids of daemons on one database apart */
    unsigned n_calls;  /* running now */
    bool dropping;     /* somebody is dropping sessions over the bound */

    struct fiber *sweeper, *flusher;
    uint64_t flush_due_ms; /* counters are to be written then; DEADLINE_NONE: all is stored */
    bool stopping;
};

/* call.c: n numbers for lives of sessions, greater than all before, in about the order of time. */
int64_t bridge_sids(struct bridge *b, int64_t n);

/* --- agent_store.c --- */

CO int agents_load(struct bridge *b, struct err *e) MUST_CHECK;

/* agent_conf.c: register what the settings declare. */
CO int bridge_register_declared(struct bridge *b, struct err *e) MUST_CHECK;

/* --- health_store.c --- */

CO int health_load(struct bridge *b, struct err *e) MUST_CHECK;

/* Write what is dirty now, in one commit. */
CO int health_flush(struct bridge *b, struct err *e) MUST_CHECK;

/* Counters changed: they are written within a second. */
void health_touch(struct bridge *b);

/* The fiber that writes them. arg: struct bridge. */
CO int health_flusher(void *arg, struct err *e);

/* --- sweep.c --- */

/* The fiber that removes idle sessions and old results. arg: struct bridge. */
CO int bridge_sweeper(void *arg, struct err *e);

/* Drop the sessions idle longest until there are no more than the bound. */
CO int sessions_drop_surplus(struct bridge *b, struct err *e) MUST_CHECK;

CO int sessions_recount(struct bridge *b, struct err *e) MUST_CHECK;
