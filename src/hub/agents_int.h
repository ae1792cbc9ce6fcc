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
    struct fiber_lane lanes[AGENT_LANES]; /* changes of one id come after each other */
};

/* agents.c: into and out of memory. */
struct hub_agent *hub_agents_add(struct hub_agents *a, struct str id);
void hub_agents_remove(struct hub_agents *a, struct hub_agent *agent);

/* agents_store.c */
CO int hub_agents_load(struct hub_agents *a, struct err *e) MUST_CHECK;
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
