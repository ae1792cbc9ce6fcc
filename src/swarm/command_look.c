/* SPDX-License-Identifier: MIT */
/* swarm/command_look.c — how work on an issue goes, and who is at work. */
#include "swarm/command_int.h"
#include "swarm/life_int.h"

static json_t *time_json(int64_t ms, struct arena *a)
{
    const char *text = time_python(ms, a);

    return text ? json_string(text) : json_null();
}

/* {"agent_id","state","spawned_at"}, or null. */
static json_t *agent_json(const struct agent_info *agent, struct arena *a)
{
    json_t *j = json_object();

    json_object_set_new(j, "agent_id", json_stringn(agent->id.p, agent->id.n));
    json_object_set_new(j, "state", json_string(agent_status_names[agent->status]));
    json_object_set_new(
        j, "spawned_at",
        time_json(agent->provisioned_ms ? agent->provisioned_ms : agent->created_ms, a));
    return j;
}

/* --- status --- */

struct look {
    const struct flow *f;
    struct arena a;
    struct buf *out;
};

static int status_of(struct store_tx *tx, struct look *l, json_t *result, struct err *e)
{
    struct agent_info agent;
    struct tracker t;
    json_t *shown = NULL;
    int r = tracker_get_tx(tx, l->f->issue, &l->a, &t, e);

    if (r < 0)
        return r;
    if (r == TRACKER_NONE || t.state == TRACKER_STOPPED) {
        json_object_set_new(result, "status", json_string("No active work found for this issue"));
        return 0;
    }
    json_object_set_new(result, "status", json_string(tracker_state_names[t.state]));
    json_object_set_new(result, "workflow", tracker_json(&t));
    if (t.agent.n) {
        r = life_find_tx(tx, t.agent, &l->a, &agent, e);
        if (r > 0)
            shown = agent_json(&agent, &l->a);
    }
    json_object_set_new(result, "agent", shown ? shown : json_null());
    return r < 0 ? r : 0;
}

static int status_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *l = arg;
    AUTO(json_decref) json_t *result = flow_result(true, l->f->issue);
    int r;

    buf_clear(l->out);
    r = status_of(tx, l, result, e);
    return r < 0 ? r : json_write(result, l->out, e);
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *l = arg;
    AUTO(json_decref) json_t *result = flow_result(true, 0), *agents = json_array();
    struct agent_info agent;
    json_t *one;
    struct tracker *v;
    size_t n, running = 0;
    int r;

    buf_clear(l->out);
    r = tracker_list_tx(tx, TRACKER_STATES, true, COMMAND_LISTED, &l->a, &v, &n, e);
    for (size_t i = 0; r >= 0 && i < n; i++) {
        r = v[i].agent.n ? life_find_tx(tx, v[i].agent, &l->a, &agent, e) : 0;
        if (r < 0)
            return r;
        one = r > 0 ? agent_json(&agent, &l->a)
                    : json_pack("{s:n,s:n,s:n}", "agent_id", "state", "spawned_at");
        running += r > 0 && agent.status == AGENT_RUNNING;
        json_object_set_new(one, "issue_number", json_integer(v[i].issue));
        json_object_set_new(one, "issue_state", json_string(tracker_state_names[v[i].state]));
        json_array_append_new(agents, one);
    }
    if (r < 0)
        return r;
    json_object_set_new(result, "total_agents", json_integer((json_int_t)n));
    json_object_set_new(result, "active_agents", json_integer((json_int_t)running));
    json_object_set(result, "agents", agents);
    return json_write(result, l->out, e);
}

/* --- as steps --- */

static CO int read_with(void *arg, store_body *body, struct buf *out, struct err *e)
{
    struct look l = { .f = arg, .out = out };
    int r = store_read(l.f->c->s->conf.store, body, &l, e);

    arena_done(&l.a);
    return r < 0 ? r : 0;
}

static CO int status_step(void *arg, struct buf *out, struct err *e)
{
    return read_with(arg, status_body, out, e);
}

static CO int list_step(void *arg, struct buf *out, struct err *e)
{
    return read_with(arg, list_body, out, e);
}

static CO int look(struct flow *f, const char *name, CO durable_step_fn *step, struct err *e)
{
    const struct durable_retry retry = { .tries = 10, .first_ms = 200, .jitter = 0.5 };
    json_t *result;
    int r = flow_step(f, name, &retry, step, &result, e);

    if (r == 0)
        f->result = json_incref(result);
    return r;
}

CO int flow_status(struct flow *f, struct err *e)
{
    return look(f, "readStatus", status_step, e);
}

CO int flow_list(struct flow *f, struct err *e)
{
    return look(f, "listAgents", list_step, e);
}
