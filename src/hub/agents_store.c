/* SPDX-License-Identifier: MIT */
/* hub/agents_store.c — the table hub_agents. */
#include <string.h>

#include "hub/agents_int.h"

enum { DIRTY_AT_ONCE = 256, STATS_TEXT = 256 };

/* clang-format off */
static const struct sql sql_load = {
    "hub agents load",
    "SELECT id, metadata, position, registered_at, token_hash, token_expires, machine, draining, last_seen, last_health, health, stats"
    " FROM hub_agents ORDER BY position",
    NULL,
};
static const struct sql sql_one = {
    "hub agent",
    "SELECT id, metadata, position, registered_at, token_hash, token_expires, machine, draining, last_seen, last_health, health, stats"
    " FROM hub_agents WHERE id = ?1",
    NULL,
};
static const struct sql sql_put = {
    "hub agent put",
    "INSERT INTO hub_agents (id, metadata, position, registered_at, token_hash, token_expires, machine)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET metadata = excluded.metadata,"
    " token_hash = excluded.token_hash, token_expires = excluded.token_expires, machine = excluded.machine",
    NULL,
};
static const struct sql sql_token = {
    "hub agent token",
    "UPDATE hub_agents SET token_hash = ?2, token_expires = ?3 WHERE id = ?1",
    NULL,
};
static const struct sql sql_metadata = {
    "hub agent metadata", /* never over the registration that came meanwhile: see the token */
    "UPDATE hub_agents SET metadata = ?2 WHERE id = ?1 AND token_hash = ?3",
    NULL,
};
static const struct sql sql_seen = {
    "hub agent seen",
    "UPDATE hub_agents SET last_seen = ?2, last_health = ?3, health = ?4, stats = ?5 WHERE id = ?1",
    NULL,
};
static const struct sql sql_drain = {
    "hub agent drain",
    "UPDATE hub_agents SET draining = ?2 WHERE id = ?1",
    NULL,
};
static const struct sql sql_delete = {
    "hub agent delete",
    "DELETE FROM hub_agents WHERE id = ?1",
    NULL,
};
static const struct sql sql_delete_messages = {
    "hub agent delete messages",
    "DELETE FROM hub_messages WHERE agent_id = ?1",
    NULL,
};
static const struct sql sql_purge = {
    "hub tokens purge",
    "UPDATE hub_agents SET token_hash = '', token_expires = 0 WHERE token_expires < ?1 AND token_expires <> 0 AND machine = 0",
    NULL,
};
/* clang-format on */

/* --- loading --- */

struct loaded {
    struct hub_agent agent;
    struct loaded *next;
};

struct load {
    struct arena arena;
    struct loaded *first, **end;
    struct str id; /* only this one */
};

static void take_stats(struct str text, struct agent_stats *s, struct arena *a)
{
    json_t *doc;

    if (!text.n || json_parse(text, 4, a, &doc, NULL, NULL) < 0)
        return;
    s->received = json_integer_value(json_object_get(doc, "tasksReceived"));
    s->completed = json_integer_value(json_object_get(doc, "tasksCompleted"));
    s->failed = json_integer_value(json_object_get(doc, "tasksFailed"));
    s->messages_received = json_integer_value(json_object_get(doc, "messagesReceived"));
    s->messages_sent = json_integer_value(json_object_get(doc, "messagesSent"));
}

static char *copy(struct load *load, struct str s)
{
    return arena_strndup(&load->arena, s.p, s.n);
}

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct load *load = arg;
    struct loaded *l = arena_new(&load->arena, struct loaded);
    struct hub_agent *g = &l->agent;
    struct str id = row_str(row, 0), hash = row_str(row, 4);

    if (!id.n || id.n > HUB_ID_MAX)
        return 0; /* none of ours */
    memcpy(g->id, id.p, id.n);
    g->metadata = copy(load, row_str(row, 1));
    g->position = row_int(row, 2);
    g->registered_at = row_int(row, 3);
    if (hash.n == sizeof(g->token_hash) * 2 &&
        hex_parse(hash, g->token_hash, sizeof(g->token_hash), e) == 0)
        g->token_expires = row_int(row, 5);
    g->machine = row_int(row, 6) != 0;
    g->draining = row_int(row, 7) != 0;
    g->last_seen = row_int(row, 8);
    g->last_health = row_int(row, 9);
    if (!row_is_null(row, 10))
        g->health = copy(load, row_str(row, 10));
    take_stats(row_str(row, 11), &g->stats, &load->arena);
    *load->end = l;
    load->end = &l->next;
    return 0;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct load *load = arg;
    const struct sql_arg one[] = { SQL_STR(load->id) };

    arena_done(&load->arena);
    load->first = NULL;
    load->end = &load->first;
    return load->id.n ? store_run(tx, &sql_one, one, 1, take_row, load, e)
                      : store_run(tx, &sql_load, NULL, 0, take_row, load, e);
}

void hub_agents_fill(struct hub_agent *agent, const struct hub_agent *row)
{
    struct hub_agent own = *agent;

    *agent = *row;
    agent->node = own.node;
    agent->index = own.index;
    agent->metadata = xstrdup(row->metadata);
    agent->health = row->health ? xstrdup(row->health) : NULL;
}

CO int hub_agents_read(struct hub_agents *a, struct str id, struct arena *arena,
                       const struct hub_agent **ret, struct err *e)
{
    struct load load = { .id = id };
    int r = store_read(a->h->conf.store, load_body, &load, e);

    *arena = load.arena;
    *ret = r >= 0 && load.first ? &load.first->agent : NULL;
    return r < 0 ? r : 0;
}

void agents_take_report(struct store_row *row, struct arena *a, struct hub_agent *ret)
{
    struct str id = row_str(row, 0);

    memcpy(ret->id, id.p, id.n <= HUB_ID_MAX ? id.n : 0);
    ret->last_seen = row_int(row, 1);
    ret->last_health = row_int(row, 2);
    if (!row_is_null(row, 3))
        ret->health = arena_strndup(a, row_str(row, 3).p, row_str(row, 3).n);
    take_stats(row_str(row, 4), &ret->stats, a);
}

CO int hub_agents_load(struct hub_agents *a, struct err *e)
{
    struct load load = { .first = NULL };
    int r = store_read(a->h->conf.store, load_body, &load, e);

    for (const struct loaded *l = load.first; r >= 0 && l; l = l->next) {
        struct hub_agent *agent = hub_agents_add(a, str_of(l->agent.id));

        hub_agents_fill(agent, &l->agent);
    }
    arena_done(&load.arena);
    return r < 0 ? err_wrap(e, "agents") : 0;
}

/* --- changes --- */

struct change {
    struct hub_agents *a;
    struct agent_row row; /* of an end only the id */
    bool draining;
};

static int put_row(struct store_tx *tx, const struct agent_row *row, struct err *e)
{
    const struct sql_arg all[] = {
        SQL_STR(row->id),       SQL_Z(row->metadata),
        SQL_INT(row->position), SQL_INT(row->registered_at),
        SQL_Z(row->token_hash), SQL_INT(row->token_expires),
        SQL_INT(row->machine),
    };
    const struct sql_arg token[] = { SQL_STR(row->id), SQL_Z(row->token_hash),
                                     SQL_INT(row->token_expires) };
    int r;

    if (row->metadata)
        return store_run(tx, &sql_put, all, LEN(all), NULL, NULL, e);
    r = store_run(tx, &sql_token, token, LEN(token), NULL, NULL, e);
    if (r >= 0 && store_changed(tx) == 0)
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    return r;
}

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct change *c = arg;
    int r = put_row(tx, &c->row, e);

    return r < 0 ? r : agents_tell(tx, c->a, "", c->row.id, e);
}

CO int hub_agents_put(struct hub_agents *a, const struct agent_row *row, struct err *e)
{
    struct change c = { .a = a, .row = *row };
    int r = store_do(a->h->conf.store, put_body, &c, e);

    return r < 0 ? r : 0;
}

static int delete_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct change *c = arg;
    const struct sql_arg args[] = { SQL_STR(c->row.id) };
    int r = store_run(tx, &sql_delete, args, 1, NULL, NULL, e);

    if (r >= 0)
        r = store_run(tx, &sql_delete_messages, args, 1, NULL, NULL, e);
    return r < 0 ? r : agents_tell(tx, c->a, "", c->row.id, e);
}

CO int hub_agents_delete(struct hub_agents *a, struct str id, struct err *e)
{
    struct change c = { .a = a, .row.id = id };
    int r = store_do(a->h->conf.store, delete_body, &c, e);

    return r < 0 ? r : 0;
}

static int drain_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct change *c = arg;
    const struct sql_arg args[] = { SQL_STR(c->row.id), SQL_INT(c->draining) };
    int r = store_run(tx, &sql_drain, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : agents_tell(tx, c->a, "", c->row.id, e);
}

CO int hub_agents_set_draining(struct hub_agents *a, struct str id, bool draining, struct err *e)
{
    struct change c = { .a = a, .row.id = id, .draining = draining };
    int r = store_do(a->h->conf.store, drain_body, &c, e);

    return r < 0 ? r : 0;
}

static int purge_body(struct store_tx *tx, void *arg, struct err *e)
{
    const int64_t *now = arg;
    const struct sql_arg args[] = { SQL_INT(*now) };

    return store_run(tx, &sql_purge, args, 1, NULL, NULL, e);
}

CO int hub_agents_purge_tokens(struct hub_agents *a, struct err *e)
{
    int64_t now = hub_now();
    bool any = false;
    int r;

    for (size_t i = 0; i < a->n; i++)
        if (a->list[i]->token_expires && !hub_agent_token_lives(a->list[i], now)) {
            a->list[i]->token_expires = 0;
            any = true;
        }
    if (!any)
        return 0;
    r = store_do(a->h->conf.store, purge_body, &now, e);
    return r < 0 ? r : 0;
}

/* --- what agents report --- */

struct seen {
    char id[HUB_ID_MAX + 1];
    int64_t last_seen, last_health;
    char *health, *metadata;
    char token_hash[2 * SECRET_KEY + 1];
    char stats[STATS_TEXT];
};

struct seen_batch {
    struct seen rows[DIRTY_AT_ONCE];
    size_t n;
};

static int seen_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct seen_batch *batch = arg;
    int r = 0;

    for (size_t i = 0; i < batch->n && r >= 0; i++) {
        const struct seen *s = &batch->rows[i];
        const struct sql_arg args[] = { SQL_Z(s->id), SQL_INT(s->last_seen),
                                        SQL_INT(s->last_health), SQL_Z(s->health),
                                        SQL_Z(s->stats) };
        const struct sql_arg metadata[] = { SQL_Z(s->id), SQL_Z(s->metadata),
                                            SQL_Z(s->token_hash) };

        r = store_run(tx, &sql_seen, args, LEN(args), NULL, NULL, e);
        if (r >= 0 && s->metadata)
            r = store_run(tx, &sql_metadata, metadata, LEN(metadata), NULL, NULL, e);
    }
    return r < 0 ? r : 0;
}

static void copy_seen(struct hub_agent *agent, struct seen *s)
{
    memcpy(s->id, agent->id, sizeof(s->id));
    s->last_seen = agent->last_seen;
    s->last_health = agent->last_health;
    s->health = agent->health ? xstrdup(agent->health) : NULL;
    s->metadata = agent->metadata_dirty ? xstrdup(agent->metadata) : NULL;
    hex_format(agent->token_hash, sizeof(agent->token_hash), s->token_hash);
    fmt_z(s->stats, sizeof(s->stats),
          "{\"tasksReceived\":%lld,\"tasksCompleted\":%lld,\"tasksFailed\":%lld,"
          "\"messagesReceived\":%lld,\"messagesSent\":%lld}",
          agent->stats.received, agent->stats.completed, agent->stats.failed,
          agent->stats.messages_received, agent->stats.messages_sent);
    agent->dirty = agent->metadata_dirty = false;
}

/* It did not go: it is still to be written. */
static void still_dirty(struct hub_agents *a, const struct seen *s)
{
    struct hub_agent *agent = hub_agents_find(a, str_of(s->id));

    if (!agent)
        return;
    agent->dirty = true;
    if (s->metadata)
        agent->metadata_dirty = true;
}

static CO int write_batch(struct hub_agents *a, struct seen_batch *batch, struct err *e)
{
    int r = store_do(a->h->conf.store, seen_body, batch, e);

    for (size_t i = 0; i < batch->n; i++) {
        if (r < 0)
            still_dirty(a, &batch->rows[i]);
        free(batch->rows[i].health);
        free(batch->rows[i].metadata);
    }
    batch->n = 0;
    return r < 0 ? r : 0;
}

CO int hub_agents_write_dirty(struct hub_agents *a, struct err *e)
{
    AUTO(free) struct seen_batch *batch = xcalloc(1, sizeof(*batch));
    int r = 0;

    /* The list may change while a batch is written; who is missed is dirty the next time too. */
    for (size_t i = 0; i < a->n && r == 0; i++) {
        if (a->list[i]->dirty)
            copy_seen(a->list[i], &batch->rows[batch->n++]);
        if (batch->n == DIRTY_AT_ONCE)
            r = write_batch(a, batch, e);
    }
    if (r == 0 && batch->n)
        r = write_batch(a, batch, e);
    return r;
}
