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
#include "base/strmap.h"
#include "hub/hub_int.h"

struct link;

struct agent_stats {
    long long received, completed, failed; /* tasks */
    long long messages_received, messages_sent;
};

struct hub_agent { /* borrowed from hub_agents_find(): valid until the next wait */
    struct strmap_node node;
    char id[HUB_ID_MAX + 1];
    unsigned index;      /* small number of its own, for arrays beside this one */
    bool online;         /* has a socket; set by hub_agents_online() */
    bool draining;       /* new tasks wait, none is sent */
    bool machine;        /* made for a machine: goes with it */
    bool dirty;          /* something not written yet */
    bool metadata_dirty; /* ... its metadata too */
    int64_t position;    /* of the first registration: their order */
    int64_t registered_at, last_seen, last_health; /* ms; 0: never */
    char *metadata;                                /* JSON text of an object */
    char *health;                                  /* the same; NULL: none reported yet */
    struct agent_stats stats;
    unsigned char token_hash[SECRET_KEY];
    int64_t token_expires; /* ms; 0: no token */
    /* of link.c: */
    struct link *link;       /* its socket; NULL: none */
    unsigned waiting, going; /* messages for it in the store, and on their way there */
    /* Their bytes; of those on their way less what will make room for them. */
    int64_t waiting_bytes, going_bytes;
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
/* It has a socket, or none any more; notes the time. */
void hub_agents_online(struct hub_agents *a, struct hub_agent *agent, bool online);

/*
 * Register, or register again: replaces metadata (NULL: {}), keeps queue and counters, makes a new
 * token (old ones are void, the old socket is closed with 4001 by link_drop()). token gets its 64
 * hex digits. ERR_INVALID: the id, "host" included, or metadata that is no object; ERR_LIMIT:
 * hub.agents_max, or metadata beyond METADATA_MAX. metadata is borrowed.
 */
#define AGENT_TOKEN_TEXT 65
#define METADATA_MAX     (64 * KIB)
CO int hub_agents_register(struct hub_agents *a, struct str id, json_t *metadata, bool machine,
                           char token[AGENT_TOKEN_TEXT], struct err *e) MUST_CHECK;

/* A new token for an agent that exists, for a machine that is given its config anew. */
CO int hub_agents_rotate(struct hub_agents *a, struct str id, char token[AGENT_TOKEN_TEXT],
                         struct err *e) MUST_CHECK;

/* ERR_NOT_FOUND. Its token, queue and tasks go: waiting tasks are failed, ended ones stay
 * readable until their time; its socket is closed with 4003. */
CO int hub_agents_deregister(struct hub_agents *a, struct str id, struct err *e) MUST_CHECK;

/* Hold new tasks back, or let them go again; durable. ERR_NOT_FOUND. */
CO int hub_agents_drain(struct hub_agents *a, struct str id, bool draining, struct err *e)
    MUST_CHECK;

/* Another daemon on the database may have changed it: take over what its row says. Costs nothing on
 * SQLite, and only so many a second are looked up. */
CO void hub_agents_ask(struct hub_agents *a, struct str id);

/* Has it a token that counts? That of a machine lives as long as the machine. */
bool hub_agent_token_lives(const struct hub_agent *agent, int64_t now);

/* Does the token open this agent? Constant time; false for expired ones. */
bool hub_agent_token_ok(const struct hub_agent *agent, struct str token, int64_t now);

/* What an agent says of itself: type-checked (cpu a number 0..100, memory and disk objects of
 * numbers, ...), bounded to HEALTH_MAX bytes in all; keys that do not fit are left out. */
#define HEALTH_MAX (16 * KIB)
void hub_agent_health(struct hub *h, struct hub_agent *agent, json_t *payload);
/* Also bounded: what would grow past METADATA_MAX is left out. */
void hub_agent_merge_metadata(struct hub *h, struct hub_agent *agent, json_t *payload);

/* Append the Agent object of the API. Asks task for currentTasks. */
int hub_agent_write(struct hub *h, const struct hub_agent *agent, struct buf *b, struct err *e)
    MUST_CHECK;
/* The same as a new reference. */
json_t *hub_agent_json(struct hub *h, const struct hub_agent *agent);
