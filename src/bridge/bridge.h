/* SPDX-License-Identifier: MIT */
/*
 * bridge/bridge.h — calls to registered HTTP agents with timeouts, retries, fallback chains,
 * sessions and health: what the original VPS integration offered under /api/vps.
 *
 * Agents and health live in memory and are written through to the store; sessions live in the
 * store. A call with a session costs two commits (the question before the agent is asked, the
 * answer before it is told), a call without one none. Everything runs on the loop's thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/conf.h"
#include "base/loop.h"
#include "base/metric.h"
#include "net/http.h"
#include "net/http_client.h"
#include "store/store.h"

/* The settings [bridge]; the program's settings struct embeds one. Read at each use, so a reload
 * of the live ones takes effect at once. Strings belong to conf. */
struct bridge_conf {
    long long timeout_ms;         /* of one attempt, for agents registered without a timeout */
    long long retries;            /* attempts on one agent, likewise */
    long long backoff_initial_ms; /* wait before the second attempt */
    long long backoff_max_ms;     /* cap of that wait and of Retry-After */
    long long call_deadline_ms;   /* of a call as a whole; 0: none */
    long long response_max;       /* bytes of an agent's answer */
    long long session_max_age_ms; /* idle sessions older than this are swept; 0: never */
    long long sweep_every_ms;     /* 0: no sweep */
    long long sessions_max;       /* past it the ones idle longest are dropped */
    long long messages_max;       /* of one session; past it its oldest are dropped */
    long long agents_max;         /* past it registration is refused */
    long long half_open_ms;     /* when an unreachable agent gets its next trial at its own place */
    long long recover_after;    /* successes in a row that make an agent healthy */
    long long context_messages; /* earlier messages sent to agents with context = session */
    long long context_bytes;    /* and their bytes */
    long long idempotency_keep_ms;
    char *agents;      /* JSON list of agents registered at start */
    char *export_path; /* where a graceful stop leaves an export; "": nowhere */
    char *vps_endpoint, *cf_endpoint;
    char *plain_token; /* "warn" or "refuse": a token for an agent over plain HTTP */
};
extern const struct opt bridge_opts[]; /* offsets into struct bridge_conf */
extern const size_t bridge_opts_len;

struct bridge;

/*
 * Make a bridge over things it borrows: loop, store, client and conf must outlive it. key seals
 * the agents' tokens and is copied. Nothing is read from the store yet.
 */
int bridge_new(struct loop *loop, struct store *store, struct http_client *client,
               const struct bridge_conf *conf, const unsigned char key[32], struct bridge **ret,
               struct err *e) MUST_CHECK;
void bridge_free(struct bridge *b); /* after bridge_stop(), or never started; NULL is fine */

/*
 * Load agents and health, register the agents that the settings declare, spawn the fibers that
 * sweep and flush. A fiber's work; fails when the store does or a declared agent is malformed.
 */
CO int bridge_start(struct bridge *b, struct err *e) MUST_CHECK;

/* End those fibers, write the last counters and the export file. No call may be under way. */
CO void bridge_stop(struct bridge *b);

/* The route tables of the bridge, for http_server_new(): out holds BRIDGE_TABLES of them. */
enum { BRIDGE_TABLES = 3 };
void bridge_tables(struct bridge *b, struct http_table out[BRIDGE_TABLES]);

/* For the status of the program. From memory. */
size_t bridge_agent_count(const struct bridge *b);
long long bridge_session_count(const struct bridge *b);

/* Set the gauges among bridge_metrics; call it before they are printed. */
void bridge_gauges(const struct bridge *b);

extern struct metric *const bridge_metrics[];
extern const size_t bridge_metrics_len;
