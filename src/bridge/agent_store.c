/* SPDX-License-Identifier: MIT */
/*
 * bridge/agent_store.c — agents in the store, and changes of the registry. The store is written
 * first and memory after the commit, under one lane, so both always tell the same story.
 */
#include <string.h>

#include "base/log.h"
#include "base/secret.h"
#include "bridge/bridge_int.h"

static const struct sql sql_load = {
    "agents load",
    "SELECT name, position, host, port, protocol, token, timeout_ms, max_retries, fallbacks, api,"
    " context FROM vps_agents ORDER BY position, name",
};
static const struct sql sql_put = {
    "agent put",
    "INSERT INTO vps_agents (name, position, host, port, protocol, token, timeout_ms, max_retries,"
    " fallbacks, api, context) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    " ON CONFLICT (name) DO UPDATE SET host = excluded.host, port = excluded.port,"
    " protocol = excluded.protocol, token = excluded.token, timeout_ms = excluded.timeout_ms,"
    " max_retries = excluded.max_retries, fallbacks = excluded.fallbacks, api = excluded.api,"
    " context = excluded.context",
};
static const struct sql sql_delete = { "agent delete", "DELETE FROM vps_agents WHERE name = ?1" };
static const struct sql sql_forget = { "health delete", "DELETE FROM vps_health WHERE name = ?1" };

/* What a token's ciphertext is bound to. */
static struct str bound_to(struct arena *a, const char *name)
{
    return str_of(arena_printf(a, "vps_agents.token:%s", name));
}

/* --- loading --- */

struct stored_agent {
    struct stored_agent *next;
    struct agent_spec spec;
    struct str sealed, fallbacks;
    int64_t position;
};

struct load {
    struct arena arena;
    struct stored_agent *first, **last;
};

static int load_row(struct store_row *row, void *arg, struct err *e)
{
    struct load *load = arg;
    struct arena *a = &load->arena;
    struct stored_agent *one = arena_new(a, struct stored_agent);

    one->spec = (struct agent_spec){
        .name = arena_str(a, row_str(row, 0)),
        .host = arena_str(a, row_str(row, 2)),
        .port = row_int(row, 3),
        .protocol = arena_str(a, row_str(row, 4)),
        .timeout_ms = row_int(row, 6),
        .max_retries = row_int(row, 7),
        .api = agent_api_of(row_str(row, 9)),
        .context = str_eq_z(row_str(row, 10), "session"),
    };
    one->position = row_int(row, 1);
    if (!row_is_null(row, 5))
        one->sealed = arena_str(a, row_str(row, 5));
    one->fallbacks = arena_str(a, row_str(row, 8));
    if (one->spec.api == API_KINDS)
        return err_set(e, ERR_INTERNAL, "agent '%s' has an unknown api", one->spec.name.p);
    *load->last = one;
    load->last = &one->next;
    return 0;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct load *load = arg;

    arena_done(&load->arena);
    load->first = NULL;
    load->last = &load->first;
    return store_run(tx, &sql_load, NULL, 0, load_row, load, e);
}

static int read_fallbacks(struct stored_agent *one, struct arena *a, struct err *e)
{
    struct str *names;
    json_t *list;
    int r;

    r = json_parse(one->fallbacks, 2, a, &list, NULL, e);
    if (r < 0)
        return r;
    names = arena_alloc(a, (json_array_size(list) + 1) * sizeof(*names));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *name = json_array_get(list, i);

        if (json_is_string(name))
            names[one->spec.n_fallbacks++] =
                (struct str){ json_string_value(name), json_string_length(name) };
    }
    one->spec.fallbacks = names;
    return 0;
}

static int take_stored(struct bridge *b, struct load *load, struct stored_agent *one, struct err *e)
{
    struct agent_problem problem;
    struct agent *agent;
    int r;

    r = read_fallbacks(one, &load->arena, e);
    if (r < 0)
        return r;
    if (one->sealed.n) {
        r = secret_open(b->key, bound_to(&load->arena, one->spec.name.p), one->sealed, &load->arena,
                        &one->spec.auth_token, e);
        if (r < 0) /* another key: better an agent that answers 401 than no start at all */
            log_error("the token of an agent cannot be opened with this key", "agent",
                      LOG_SLICE(one->spec.name), "error", LOG_ERR(e));
    }
    r = agent_new(&one->spec, &agent, &problem, e);
    if (one->spec.auth_token.n)
        secret_wipe((char *)(uintptr_t)one->spec.auth_token.p, one->spec.auth_token.n);
    if (r < 0)
        return r;
    agents_put(&b->agents, agent, one->position, &b->tracker);
    return 0;
}

CO int agents_load(struct bridge *b, struct err *e)
{
    struct load load = { 0 };
    int r;

    r = store_read(b->store, load_body, &load, e);
    for (struct stored_agent *one = load.first; r == 0 && one; one = one->next) {
        r = take_stored(b, &load, one, e);
        if (r < 0)
            err_wrap(e, "stored agent '" STR_FMT "'", STR_ARG(one->spec.name));
    }
    arena_done(&load.arena);
    return r;
}

/* --- registering --- */

struct put {
    const struct agent *agent;
    int64_t position;
    struct str sealed, fallbacks;
};

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct put *p = arg;
    const struct agent *a = p->agent;
    const struct sql_arg args[] = {
        SQL_Z(a->name),
        SQL_INT(p->position),
        SQL_Z(a->host),
        SQL_INT(a->port),
        SQL_Z(a->tls ? "https" : "http"),
        p->sealed.p ? SQL_STR(p->sealed) : SQL_NULL,
        SQL_INT(a->timeout_ms),
        SQL_INT(a->max_retries),
        SQL_STR(p->fallbacks),
        SQL_Z(adapters[a->api].name),
        SQL_Z(a->context ? "session" : "none"),
    };

    return store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);
}

static int prepare(struct bridge *b, const struct agent *agent, struct arena *a, struct put *p,
                   struct err *e)
{
    AUTO(out_done) struct out o;
    int r;

    out_init(&o, 16 * MIB);
    out_z(&o, "[");
    for (size_t i = 0; i < agent->n_fallbacks; i++) {
        out_comma(&o, i);
        out_str(&o, str_of(agent->fallbacks[i]));
    }
    out_z(&o, "]");
    r = out_take(&o, a, &p->fallbacks, e);
    if (r < 0)
        return r;
    p->agent = agent;
    if (!agent->token)
        return 0;
    return secret_seal(b->key, bound_to(a, agent->name), str_of(agent->token), a, &p->sealed, e);
}

/* In the lane of the registry. */
CO static int put(struct bridge *b, struct agent *agent, struct agent_entry **ret, struct err *e)
{
    struct agent_entry *entry = agents_find(&b->agents, str_of(agent->name));
    struct arena arena = { 0 };
    struct put p = { 0 };
    int r;

    if (entry && agent_equal(entry->agent, agent)) {
        agent_unref(agent);
        *ret = entry;
        return 0;
    }
    if (!entry && b->agents.map.n >= (size_t)b->conf->agents_max) {
        agent_unref(agent);
        return err_set(e, ERR_LIMIT, "there are already %zu agents", b->agents.map.n);
    }
    r = prepare(b, agent, &arena, &p, e);
    p.position = entry ? entry->position : b->agents.last_position + 1;
    if (r == 0)
        r = store_do(b->store, put_body, &p, e);
    arena_done(&arena);
    if (r < 0) {
        agent_unref(agent);
        return r;
    }
    *ret = agents_put(&b->agents, agent, p.position, &b->tracker);
    (*ret)->tracked->trial_ms = 0; /* who changed it has probably repaired it: try it at once */
    return 0;
}

static int check_plain_token(const struct bridge *b, const struct agent *agent,
                             struct agent_problem *problem, struct err *e)
{
    if (!agent->token || agent->tls)
        return 0;
    if (strcmp(b->conf->plain_token, "refuse") != 0) {
        log_warn("the token of this agent will travel over plain HTTP", "agent",
                 LOG_STR(agent->name));
        return 0;
    }
    problem->field = "auth_token";
    snprintf(problem->text, sizeof(problem->text),
             "a token is not sent over plain HTTP (bridge.plain_token = refuse)");
    return err_set(e, ERR_INVALID, "%s", problem->text);
}

CO int bridge_register(struct bridge *b, const struct agent_spec *spec, struct agent_entry **ret,
                       struct agent_problem *problem, struct err *e)
{
    struct agent_spec full = *spec;
    struct agent *agent;
    int r;

    if (!full.timeout_ms)
        full.timeout_ms = b->conf->timeout_ms;
    if (!full.max_retries)
        full.max_retries = b->conf->retries;
    r = agent_new(&full, &agent, problem, e);
    if (r < 0)
        return r;
    r = check_plain_token(b, agent, problem, e);
    if (r == 0) {
        problem->field = NULL;
        r = fiber_lane_enter(&b->registry, DEADLINE_NONE, e);
    }
    if (r < 0) {
        agent_unref(agent);
        return r;
    }
    r = put(b, agent, ret, e);
    fiber_lane_leave(&b->registry);
    return r;
}

/* --- removing --- */

static int delete_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg name = SQL_STR(*(struct str *)arg);
    int r;

    r = store_run(tx, &sql_delete, &name, 1, NULL, NULL, e);
    if (r < 0)
        return r;
    return store_run(tx, &sql_forget, &name, 1, NULL, NULL, e);
}

CO static int delete (struct bridge *b, struct str name, struct err *e)
{
    struct agent_entry *entry = agents_find(&b->agents, name);
    int r;

    if (!entry)
        return err_set(e, ERR_NOT_FOUND, "Agent '" STR_FMT "' not found", STR_ARG(name));
    r = store_do(b->store, delete_body, &name, e);
    if (r < 0)
        return r;
    agents_remove(&b->agents, entry, &b->tracker); /* still there: changes take the lane */
    return 0;
}

CO int bridge_unregister(struct bridge *b, struct str name, struct err *e)
{
    int r;

    r = fiber_lane_enter(&b->registry, DEADLINE_NONE, e);
    if (r < 0)
        return r;
    r = delete (b, name, e);
    fiber_lane_leave(&b->registry);
    return r;
}
