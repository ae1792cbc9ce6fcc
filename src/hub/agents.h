/* SPDX-License-Identifier: MIT */
/*
 * hub/agents.h — registered agents: all in memory (hub.agents_max), every change of registration
 * and token durable before it is answered; health, last seen and counters are memory, written
 * together every few seconds and at the end.
 *
 * A token is 32 random bytes in hex; only its SHA-256 is kept. One token counts per agent: a new
 * one replaces it.
 */
#pragma once

#include "base/secret.h"
#include "hub/hub_int.h"

struct agent_stats {
    long long received, completed, failed; /* tasks */
    long long messages_received, messages_sent;
};

struct hub_agent { /* borrowed from hub_agents_find(): valid until the next wait */
    char id[HUB_ID_MAX + 1];
    unsigned index; /* small number of its own, for arrays beside this one */
    bool online;    /* has a socket that is not stale; set by link */
    int64_t registered_at, last_seen, last_health; /* ms; 0: never */
    json_t *metadata, *health;                     /* objects */
    struct agent_stats stats;
    unsigned char token_hash[32];
    int64_t token_expires; /* ms; 0: no token */
    bool machine;          /* made for a machine: goes with it */
    bool dirty;            /* something not written yet */
};

int hub_agents_new(struct hub *h, struct hub_agents **ret, struct err *e) MUST_CHECK;
CO int hub_agents_start(struct hub_agents *a, struct err *e) MUST_CHECK; /* loads all */
CO void hub_agents_stop(struct hub_agents *a);                           /* writes what is dirty */
void hub_agents_free(struct hub_agents *a);

/* NULL: no such agent. */
struct hub_agent *hub_agents_find(struct hub_agents *a, struct str id);
size_t hub_agents_count(const struct hub_agents *a, size_t *ret_online);
/* In order of registration; i < hub_agents_count(). Valid until the next wait. */
struct hub_agent *hub_agents_at(struct hub_agents *a, size_t i);

/*
 * Register, or register again: replaces metadata (NULL: {}), keeps queue and counters, makes a new
 * token (old ones are void, the old socket is closed with 4001 by link_drop()). token gets its 64
 * hex digits. ERR_INVALID: the id; ERR_LIMIT: hub.agents_max. metadata is borrowed.
 */
#define AGENT_TOKEN_TEXT 65
CO int hub_agents_register(struct hub_agents *a, struct str id, const json_t *metadata,
                           bool machine, char token[AGENT_TOKEN_TEXT], struct err *e) MUST_CHECK;

/* A new token for an agent that exists, for a machine that is given its config anew. */
CO int hub_agents_rotate(struct hub_agents *a, struct str id, char token[AGENT_TOKEN_TEXT],
                         struct err *e) MUST_CHECK;

/* ERR_NOT_FOUND. Its token, queue and tasks go: waiting tasks are failed, ended ones stay
 * readable until their time. The caller closes the socket (link_drop, 4003). */
CO int hub_agents_deregister(struct hub_agents *a, struct str id, struct err *e) MUST_CHECK;

/* Does the token open this agent? Constant time; false for expired ones. */
bool hub_agent_token_ok(const struct hub_agent *agent, struct str token, int64_t now);

/* What an agent says of itself: type-checked (cpu a number 0..100, memory and disk objects of
 * numbers, ...), bounded to HEALTH_MAX bytes in all; keys that do not fit are left out. */
#define HEALTH_MAX (64 * KIB)
void hub_agent_health(struct hub *h, struct hub_agent *agent, const json_t *payload);
void hub_agent_merge_metadata(struct hub *h, struct hub_agent *agent, const json_t *payload);

/* The Agent object of the API, a new reference. Asks task for currentTasks. */
json_t *hub_agent_json(struct hub *h, const struct hub_agent *agent);

/* POST /agents/register, GET /agents, GET /agents/:id/status, DELETE /agents/:id, /health,
 * /admin/stats, /admin/dlq, /metrics: in api.c. */
