/* SPDX-License-Identifier: MIT */
/* hub/agents_int.h — what the files of the registry share. */
#pragma once

#include "base/fiber.h"
#include "hub/agents.h"

enum { AGENT_LANES = 64 };

struct hub_agents {
    struct hub *h;
    struct strmap map;
    struct hub_agent **list; /* in order of position */
    size_t n, cap, n_online;
    unsigned *spare; /* indexes of agents that are gone */
    size_t n_spare, cap_spare;
    unsigned next_index;
    struct agents_wide *wide;             /* NULL on SQLite */
    struct fiber_lane lanes[AGENT_LANES]; /* changes of one id come after each other */
};

/* agents_reg.c: changes of one id, by whomever. */
struct fiber_lane *agents_lane(struct hub_agents *a, struct str id);

/* agents_wide.c: what other daemons on the database have changed */
int agents_wide_new(struct hub_agents *a, struct err *e) MUST_CHECK;
int agents_wide_start(struct hub_agents *a, struct err *e) MUST_CHECK;
void agents_wide_free(struct hub_agents *a);
/* In the transaction that changes its row (what ""), or keeps a message for it ("+"). */
int agents_tell(struct store_tx *tx, const struct hub_agents *a, const char *what, struct str id,
                struct err *e) MUST_CHECK;

/* agents.c: into and out of memory. */
struct hub_agent *hub_agents_add(struct hub_agents *a, struct str id);
void hub_agents_remove(struct hub_agents *a, struct hub_agent *agent);

/* agents_store.c */
CO int hub_agents_load(struct hub_agents *a, struct err *e) MUST_CHECK;
/* One row, in the arena; NULL: there is none. */
CO int hub_agents_read(struct hub_agents *a, struct str id, struct arena *arena,
                       const struct hub_agent **ret, struct err *e) MUST_CHECK;
/* All but its place in memory; texts are copied. */
void hub_agents_fill(struct hub_agent *agent, const struct hub_agent *row);
/* id, last_seen, last_health, health, stats of a row. */
void agents_take_report(struct store_row *row, struct arena *a, struct hub_agent *ret);
CO int hub_agents_write_dirty(struct hub_agents *a, struct err *e) MUST_CHECK;
/* The row of a registration: a new one, or metadata and token of one that is there. */
struct agent_row {
    struct str id;
    const char *metadata; /* NULL: stays */
    int64_t position, registered_at, token_expires;
    char token_hash[2 * SECRET_KEY + 1];
    bool machine;
};
CO int hub_agents_put(struct hub_agents *a, const struct agent_row *row, struct err *e) MUST_CHECK;
CO int hub_agents_delete(struct hub_agents *a, struct str id, struct err *e) MUST_CHECK;
CO int hub_agents_set_draining(struct hub_agents *a, struct str id, bool draining, struct err *e)
    MUST_CHECK;
CO int hub_agents_purge_tokens(struct hub_agents *a, struct err *e) MUST_CHECK;
