/* SPDX-License-Identifier: MIT */
/*
 * hub/agents_reg.c — registration, tokens, the end of an agent. Changes of one id come one after
 * the other (a lane for each of a few hash values), so that memory and table agree on the last.
 */
#include <string.h>

#include "hub/agents_int.h"
#include "hub/link.h"
#include "hub/task.h"

struct fiber_lane *agents_lane(struct hub_agents *a, struct str id)
{
    unsigned char hash[SECRET_KEY];

    sha256(id.p, id.n, hash);
    return &a->lanes[hash[0] % AGENT_LANES];
}

/* A fresh token and the row's part of it. */
static void make_token(struct hub_agents *a, struct agent_row *row, char token[AGENT_TOKEN_TEXT])
{
    token_new("", token);
    sha256_hex(str_of(token), row->token_hash);
    row->token_expires = hub_now() + a->h->settings->token_ttl_ms;
}

static void take_token(struct hub_agent *agent, const struct agent_row *row)
{
    struct err e;

    if (hex_parse(str_of(row->token_hash), agent->token_hash, sizeof(agent->token_hash), &e) == 0)
        agent->token_expires = row->token_expires;
}

/* What the original made of metadata: type and capabilities first, where they are not given. */
static json_t *complete(json_t *given)
{
    static const char *const first[] = { "type", "capabilities", "cpu", "memory", "disk" };
    json_t *all = json_object();

    json_object_set_new(all, "type", json_string("generic"));
    json_object_set_new(all, "capabilities", json_array());
    for (size_t i = 0; i < LEN(first); i++)
        if (json_object_get(given, first[i]))
            json_object_set(all, first[i], json_object_get(given, first[i]));
    if (given)
        json_object_update(all, given);
    return all;
}

/* The text is to be freed. */
static int metadata_text(json_t *given, char **ret, struct err *e)
{
    AUTO(json_decref) json_t *all = NULL;
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    if (json_is_null(given))
        given = NULL;
    if (given && !json_is_object(given))
        return err_set(e, ERR_INVALID, "metadata must be an object");
    all = complete(given);
    buf_init(&b, METADATA_MAX);
    r = json_write(all, &b, e);
    if (r < 0)
        return err_wrap(e, "metadata");
    *ret = str_dup(buf_str(&b));
    return 0;
}

static int check_new(struct hub_agents *a, struct str id, struct err *e)
{
    int r = hub_id_check(id, e);

    if (r < 0)
        return r;
    if (str_eq_nocase(id, STR("host")))
        return err_set(e, ERR_INVALID, "agentId 'host' is the hub itself; choose another");
    if (!hub_agents_find(a, id) && a->n >= (size_t)a->h->settings->agents_max)
        return err_set(e, ERR_LIMIT, "%zu agents are registered already (hub.agents_max)", a->n);
    return 0;
}

/* In the lane. metadata NULL: only the token. */
static CO int put(struct hub_agents *a, struct str id, char *metadata, bool machine,
                  char token[AGENT_TOKEN_TEXT], struct err *e)
{
    struct hub_agent *agent = hub_agents_find(a, id);
    struct agent_row row = { .id = id, .metadata = metadata, .machine = machine };
    int r;

    if (!agent && !metadata)
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    row.position = agent ? agent->position : hub_order(a->h);
    row.registered_at = agent ? agent->registered_at : hub_now();
    make_token(a, &row, token);
    r = hub_agents_put(a, &row, e);
    if (r < 0)
        return r;
    agent = hub_agents_find(a, id);
    if (!agent)
        agent = hub_agents_add(a, id);
    agent->position = row.position;
    agent->registered_at = row.registered_at;
    take_token(agent, &row);
    if (metadata) {
        free(agent->metadata);
        agent->metadata = xstrdup(metadata);
        agent->metadata_dirty = false;
        agent->machine = machine;
    }
    link_drop(a->h->links, id, LINK_REPLACED, "a new token was made");
    return 0;
}

/* metadata is freed. */
static CO int put_in_lane(struct hub_agents *a, struct str id, char *metadata, bool machine,
                          char token[AGENT_TOKEN_TEXT], struct err *e)
{
    struct fiber_lane *lane = agents_lane(a, id);
    int r = fiber_lane_enter(lane, DEADLINE_NONE, e);

    if (r == 0) {
        r = put(a, id, metadata, machine, token, e);
        fiber_lane_leave(lane);
    }
    free(metadata);
    return r;
}

CO int hub_agents_register(struct hub_agents *a, struct str id, json_t *metadata, bool machine,
                           char token[AGENT_TOKEN_TEXT], struct err *e)
{
    char *text = NULL;
    int r = check_new(a, id, e);

    if (r == 0)
        r = metadata_text(metadata, &text, e);
    return r < 0 ? r : put_in_lane(a, id, text, machine, token, e);
}

CO int hub_agents_rotate(struct hub_agents *a, struct str id, char token[AGENT_TOKEN_TEXT],
                         struct err *e)
{
    return put_in_lane(a, id, NULL, false, token, e);
}

/* In the lane. */
static CO int end(struct hub_agents *a, struct str id, struct err *e)
{
    struct hub_agent *agent;
    int r;

    if (!hub_agents_find(a, id))
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    r = hub_agents_delete(a, id, e);
    if (r < 0)
        return r;
    link_drop(a->h->links, id, LINK_REVOKED, "deregistered");
    agent = hub_agents_find(a, id);
    if (agent)
        hub_agents_remove(a, agent);
    return task_forget_agent(a->h->tasks, id, e);
}

CO int hub_agents_deregister(struct hub_agents *a, struct str id, struct err *e)
{
    struct fiber_lane *lane = agents_lane(a, id);
    int r;

    if (!hub_agents_find(a, id))
        hub_agents_ask(a, id); /* another daemon may know it */
    r = fiber_lane_enter(lane, DEADLINE_NONE, e);
    if (r < 0)
        return r;
    r = end(a, id, e);
    fiber_lane_leave(lane);
    return r;
}

CO int hub_agents_drain(struct hub_agents *a, struct str id, bool draining, struct err *e)
{
    struct hub_agent *agent;
    int r;

    if (!hub_agents_find(a, id))
        hub_agents_ask(a, id); /* another daemon may know it */
    if (!hub_agents_find(a, id))
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    r = hub_agents_set_draining(a, id, draining, e);
    if (r < 0)
        return r;
    agent = hub_agents_find(a, id);
    if (!agent)
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    agent->draining = draining;
    if (!draining && link_online(a->h->links, id))
        task_resume(a->h->tasks, id);
    return 0;
}

bool hub_agent_token_lives(const struct hub_agent *agent, int64_t now)
{
    return agent->token_expires > now || (agent->machine && agent->token_expires);
}

bool hub_agent_token_ok(const struct hub_agent *agent, struct str token, int64_t now)
{
    unsigned char hash[SECRET_KEY];
    struct str want = { (const char *)agent->token_hash, sizeof(agent->token_hash) };

    sha256(token.p, token.n, hash);
    return secret_eq((struct str){ (const char *)hash, sizeof(hash) }, want) &&
           hub_agent_token_lives(agent, now);
}
