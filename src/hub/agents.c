/* SPDX-License-Identifier: MIT */
/* hub/agents.c — the registry in memory, and its housekeeping; see agents.h. */
#include "hub/agents.h"

#include <string.h>

#include "base/log.h"
#include "hub/agents_int.h"

enum { WRITE_MS = 5000 };

int hub_agents_new(struct hub *h, struct hub_agents **ret, struct err *e)
{
    struct hub_agents *a = xcalloc(1, sizeof(*a));

    int r;

    a->h = h;
    r = agents_wide_new(a, e);
    if (r < 0) {
        hub_agents_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

/* What is not written yet, now and then; old tokens at every tick. */
static CO int keep(void *arg, struct err *e)
{
    struct hub_agents *a = arg;
    uint64_t purge_ms = 0;
    int r;

    for (;;) {
        r = fiber_sleep(WRITE_MS, e);
        if (r < 0)
            return r;
        r = hub_agents_write_dirty(a, e);
        if (r == 0 && now_ms() >= purge_ms) {
            purge_ms = now_ms() + (uint64_t)a->h->settings->tick_ms;
            r = hub_agents_purge_tokens(a, e);
        }
        if (r == -ERR_CANCELED)
            return r;
        if (r < 0)
            log_warn("what agents reported could not be written", "error", LOG_ERR(e));
    }
}

CO int hub_agents_start(struct hub_agents *a, struct err *e)
{
    int r = hub_agents_load(a, e);

    if (r == 0)
        r = agents_wide_start(a, e);
    return r < 0 ? r : fiber_group_spawn(a->h->chores, "hub agents", keep, a, e);
}

CO void hub_agents_stop(struct hub_agents *a)
{
    struct err e;

    if (hub_agents_write_dirty(a, &e) < 0)
        log_warn("what agents reported last could not be written", "error", LOG_ERR(&e));
}

static void agent_free(struct hub_agent *agent)
{
    free(agent->metadata);
    free(agent->health);
    free(agent);
}

void hub_agents_free(struct hub_agents *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n; i++)
        agent_free(a->list[i]);
    agents_wide_free(a);
    strmap_done(&a->map);
    free(a->list);
    free(a->spare);
    free(a);
}

struct hub_agent *hub_agents_find(struct hub_agents *a, struct str id)
{
    struct strmap_node *node = strmap_find(&a->map, id);

    return node ? container_of(node, struct hub_agent, node) : NULL;
}

size_t hub_agents_count(const struct hub_agents *a, size_t *ret_online)
{
    if (ret_online)
        *ret_online = a->n_online;
    return a->n;
}

struct hub_agent *hub_agents_at(struct hub_agents *a, size_t i)
{
    return i < a->n ? a->list[i] : NULL;
}

struct hub_agent *hub_agents_add(struct hub_agents *a, struct str id)
{
    struct hub_agent *agent = xcalloc(1, sizeof(*agent));

    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 64;
        a->list = xrealloc(a->list, a->cap * sizeof(struct hub_agent *));
    }
    memcpy(agent->id, id.p, id.n);
    agent->index = a->n_spare ? a->spare[--a->n_spare] : a->next_index++;
    a->list[a->n++] = agent;
    strmap_add(&a->map, &agent->node, (struct str){ agent->id, id.n });
    return agent;
}

void hub_agents_remove(struct hub_agents *a, struct hub_agent *agent)
{
    size_t i = 0;

    while (a->list[i] != agent)
        i++;
    memmove(a->list + i, a->list + i + 1, (a->n - i - 1) * sizeof(struct hub_agent *));
    a->n--;
    if (agent->online)
        a->n_online--;
    if (a->n_spare == a->cap_spare) {
        a->cap_spare = a->cap_spare ? a->cap_spare * 2 : 64;
        a->spare = xrealloc(a->spare, a->cap_spare * sizeof(*a->spare));
    }
    a->spare[a->n_spare++] = agent->index;
    strmap_remove(&a->map, &agent->node);
    agent_free(agent);
}

void hub_agents_online(struct hub_agents *a, struct hub_agent *agent, bool online)
{
    if (agent->online != online)
        a->n_online += online ? 1 : (size_t)-1;
    agent->online = online;
    agent->last_seen = hub_now();
    agent->dirty = true;
}
