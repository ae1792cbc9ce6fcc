/* SPDX-License-Identifier: MIT */
/*
 * hub/agents_wide.c — several daemons on one PostgreSQL: what one of them changes in the registry
 * (a registration, a token, a drain, an end) the others take over from the row.
 *
 * A change says so in its own commit (NOTIFY); who hears it reads the row in the lane of changes of
 * that id. What one keeps for an agent is sent by the one that the agent is connected to. A look at
 * all of them now and then finds what was not heard, and what agents that are connected elsewhere
 * have reported. Whether an agent is connected is each daemon's own matter.
 */
#include <string.h>

#include "base/log.h"
#include "hub/agents_int.h"
#include "hub/link.h"
#include "hub/task.h"

#define CHANNEL "chela_agents"

enum { ALL_MS = 30000, AGAIN_MS = 2000, ASKED_PER_S = 50, HEARD_MAX = 1000 };

/* clang-format off */
static const struct sql sql_tell = { "tell other hubs of an agent", "", "SELECT pg_notify('" CHANNEL "', ?1)" };
static const struct sql sql_known = { "agents of all hubs", "SELECT id, token_hash, draining FROM hub_agents", NULL };
static const struct sql sql_reported = {
    "agents seen by other hubs",
    "SELECT id, last_seen, last_health, health, stats FROM hub_agents WHERE last_seen > ?1", NULL,
};
/* clang-format on */

struct heard { /* ids that others have changed */
    struct heard *next;
    char id[HUB_ID_MAX + 1];
};

struct agents_wide {
    struct heard *first;
    unsigned n_heard; /* at most HEARD_MAX: then all are looked at instead */
    struct fiber *fiber;
    bool all;           /* something may have been missed */
    int64_t seen;       /* what was reported up to then is known */
    uint64_t second_ms; /* of the rate of hub_agents_ask() */
    unsigned asked;
};

int agents_tell(struct store_tx *tx, const struct hub_agents *a, const char *what, struct str id,
                struct err *e)
{
    char text[64 + HUB_ID_MAX + 80];
    struct sql_arg args[1];
    int r;

    if (!a->h->pg)
        return 0;
    fmt_z(text, sizeof(text), "%.100s %s" STR_FMT, durable_executor(a->h->conf.engine), what,
          STR_ARG(id));
    args[0] = (struct sql_arg)SQL_Z(text);
    r = store_run(tx, &sql_tell, args, LEN(args), NULL, NULL, e);
    return r < 0 ? r : 0;
}

static void heard(struct str payload, void *arg)
{
    struct hub_agents *a = arg;
    struct agents_wide *w = a->wide;
    struct str id = payload, who;
    struct heard *one;

    if (!payload.p) {
        w->all = true;
    } else {
        if (!str_split(&id, ' ', &who) || str_eq_z(who, durable_executor(a->h->conf.engine)))
            return;
        if (id.n && id.p[0] == '+') { /* a message is kept for it */
            link_more(a->h->links, (struct str){ id.p + 1, id.n - 1 });
            return;
        }
        if (!id.n || id.n > HUB_ID_MAX)
            return;
        if (w->n_heard == HEARD_MAX) {
            w->all = true;
        } else {
            one = xcalloc(1, sizeof(*one));
            memcpy(one->id, id.p, id.n);
            one->next = w->first;
            w->first = one;
            w->n_heard++;
        }
    }
    if (w->fiber)
        fiber_wake(w->fiber);
}

/* --- one --- */

/* It was deregistered elsewhere; its rows were seen to there. */
static CO int gone(struct hub_agents *a, struct str id, struct err *e)
{
    struct hub_agent *agent;

    if (!hub_agents_find(a, id))
        return 0;
    link_drop(a->h->links, id, LINK_REVOKED, "deregistered");
    agent = hub_agents_find(a, id);
    if (agent)
        hub_agents_remove(a, agent);
    return task_forget_agent(a->h->tasks, id, e);
}

static void take_over(struct hub_agents *a, const struct hub_agent *row)
{
    struct str id = str_of(row->id);
    struct hub_agent *agent = hub_agents_find(a, id);
    bool fresh = !agent, token, undrained;

    if (fresh) {
        agent = hub_agents_add(a, id);
        hub_agents_fill(agent, row);
        return;
    }
    token = memcmp(agent->token_hash, row->token_hash, sizeof(row->token_hash)) != 0;
    undrained = agent->draining && !row->draining;
    memcpy(agent->token_hash, row->token_hash, sizeof(agent->token_hash));
    agent->token_expires = row->token_expires;
    agent->draining = row->draining;
    agent->machine = row->machine;
    if (!agent->metadata_dirty) {
        free(agent->metadata);
        agent->metadata = xstrdup(row->metadata);
    }
    if (token)
        link_drop(a->h->links, id, LINK_REPLACED, "a new token was made");
    if (undrained && link_online(a->h->links, id))
        task_resume(a->h->tasks, id);
}

static CO int refresh(struct hub_agents *a, struct str id, struct err *e)
{
    struct fiber_lane *lane = agents_lane(a, id);
    struct arena arena = { 0 };
    const struct hub_agent *row;
    int r = fiber_lane_enter(lane, DEADLINE_NONE, e);

    if (r < 0)
        return r;
    r = hub_agents_read(a, id, &arena, &row, e);
    if (r == 0 && row)
        take_over(a, row);
    else if (r == 0)
        r = gone(a, id, e);
    fiber_lane_leave(lane);
    arena_done(&arena);
    return r;
}

/* Strangers can ask for any id: so often and no more. */
CO void hub_agents_ask(struct hub_agents *a, struct str id)
{
    struct agents_wide *w = a->wide;
    char copy[HUB_ID_MAX + 1] = "";
    struct err e;

    if (!w || hub_id_check(id, &e) < 0)
        return;
    if (now_ms() - w->second_ms >= 1000) {
        w->second_ms = now_ms();
        w->asked = 0;
    }
    if (w->asked++ >= ASKED_PER_S)
        return;
    memcpy(copy, id.p, id.n);
    if (refresh(a, str_of(copy), &e) < 0 && e.code != ERR_CANCELED)
        log_warn("an agent could not be looked up", "agent", LOG_STR(copy), "error", LOG_ERR(&e));
}

/* --- all --- */

struct known { /* what the table has of one */
    struct strmap_node node;
    struct str hash; /* in hex; none: expired */
    bool draining;
};

struct reported { /* by an agent, to whichever daemon it is connected to */
    struct hub_agent agent;
    struct reported *next;
};

struct look {
    struct arena arena;
    struct strmap known;
    struct reported *reported;
    struct heard *differ;
    int64_t since;
};

static int take_known(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;
    struct known *k = arena_new(&l->arena, struct known);

    k->hash = arena_str(&l->arena, row_str(row, 1));
    k->draining = row_int(row, 2) != 0;
    strmap_add(&l->known, &k->node, arena_str(&l->arena, row_str(row, 0)));
    return 0;
}

static int take_reported(struct store_row *row, void *arg, struct err *e)
{
    struct look *l = arg;
    struct reported *one = arena_new(&l->arena, struct reported);

    agents_take_report(row, &l->arena, &one->agent);
    one->next = l->reported;
    l->reported = one;
    return 0;
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *l = arg;
    const struct sql_arg args[] = { SQL_INT(l->since) };
    int r;

    strmap_done(&l->known);
    l->known = (struct strmap){ 0 };
    arena_done(&l->arena);
    l->reported = NULL;
    r = store_run(tx, &sql_known, NULL, 0, take_known, l, e);
    return r < 0 ? r : store_run(tx, &sql_reported, args, 1, take_reported, l, e);
}

static void differs(struct look *l, struct str id)
{
    struct heard *one = arena_new(&l->arena, struct heard);

    if (id.n > HUB_ID_MAX)
        return;
    memcpy(one->id, id.p, id.n);
    one->next = l->differ;
    l->differ = one;
}

static bool is_same(const struct hub_agent *agent, const struct known *k)
{
    char hash[2 * SECRET_KEY + 1];

    hex_format(agent->token_hash, sizeof(agent->token_hash), hash);
    return agent->draining == k->draining && (str_eq_z(k->hash, hash) || !k->hash.n);
}

static void compare(struct hub_agents *a, struct look *l)
{
    for (size_t i = 0; i < l->known.n_slots; i++)
        for (struct strmap_node *n = l->known.slots[i]; n; n = n->next) {
            const struct hub_agent *agent = hub_agents_find(a, n->key);

            if (!agent || !is_same(agent, container_of(n, struct known, node)))
                differs(l, n->key);
        }
    for (size_t i = 0; i < a->n; i++)
        if (!strmap_find(&l->known, str_of(a->list[i]->id)))
            differs(l, str_of(a->list[i]->id));
}

static void take_reports(struct hub_agents *a, const struct look *l)
{
    for (const struct reported *one = l->reported; one; one = one->next) {
        struct hub_agent *agent = hub_agents_find(a, str_of(one->agent.id));

        if (one->agent.last_seen > a->wide->seen)
            a->wide->seen = one->agent.last_seen;
        if (!agent || agent->link || agent->dirty || one->agent.last_seen <= agent->last_seen)
            continue;
        agent->last_seen = one->agent.last_seen;
        agent->last_health = one->agent.last_health;
        agent->stats = one->agent.stats;
        free(agent->health);
        agent->health = one->agent.health ? xstrdup(one->agent.health) : NULL;
    }
}

static CO int look(struct hub_agents *a, struct err *e)
{
    struct look l = { .since = a->wide->seen };
    int r = store_read(a->h->conf.store, look_body, &l, e);

    if (r == 0) {
        compare(a, &l);
        take_reports(a, &l);
    }
    for (const struct heard *one = l.differ; r == 0 && one; one = one->next)
        r = refresh(a, str_of(one->id), e);
    strmap_done(&l.known);
    arena_done(&l.arena);
    return r == 0 ? link_recount(a->h->links, e) : r;
}

static CO int refresh_heard(struct hub_agents *a, struct err *e)
{
    struct heard *one;
    int r = 0;

    while (r == 0 && (one = a->wide->first)) {
        a->wide->first = one->next;
        a->wide->n_heard--;
        r = refresh(a, str_of(one->id), e);
        free(one);
    }
    return r;
}

static CO int chore(void *arg, struct err *e)
{
    struct hub_agents *a = arg;
    struct agents_wide *w = a->wide;
    uint64_t all_ms = now_ms() + ALL_MS;
    int r = 0;

    w->fiber = fiber_self();
    while (r != -ERR_CANCELED) {
        if (!w->first && !w->all)
            r = fiber_park(all_ms, e);
        if (r == -ERR_CANCELED)
            break;
        r = refresh_heard(a, e);
        if (r == 0 && (w->all || now_ms() >= all_ms)) {
            w->all = false;
            all_ms = now_ms() + ALL_MS;
            r = look(a, e);
        }
        if (r < 0 && r != -ERR_CANCELED) {
            log_warn("agents of other daemons could not be looked up", "error", LOG_ERR(e));
            w->all = true;
            r = fiber_sleep(AGAIN_MS, e);
        }
    }
    w->fiber = NULL;
    return 0;
}

int agents_wide_new(struct hub_agents *a, struct err *e)
{
    if (!a->h->pg)
        return 0;
    a->wide = xcalloc(1, sizeof(*a->wide));
    return durable_hear(a->h->conf.engine, CHANNEL, heard, a, e);
}

int agents_wide_start(struct hub_agents *a, struct err *e)
{
    return a->wide ? fiber_group_spawn(a->h->chores, "hub agents wide", chore, a, e) : 0;
}

void agents_wide_free(struct hub_agents *a)
{
    struct heard *one;

    while (a->wide && (one = a->wide->first)) {
        a->wide->first = one->next;
        free(one);
    }
    free(a->wide);
}
