/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor_agent.c — the workflows of one agent, and whether it is well.
 */
#include "net/http.h"
#include "swarm/life_int.h"
#include "swarm/monitor_int.h"

#define LATEST  "50" /* operations of each kind */
#define IDS_MAX 256

/* clang-format off */
struct flow_out {
    const char *workflow_uuid, *name, *type, *status, *created_at, *updated_at, *error;
    int64_t recovery_attempts;
};
static const struct shape_field flow_fields[] = {
    FIELD(struct flow_out, workflow_uuid), FIELD(struct flow_out, name), FIELD(struct flow_out, type), FIELD(struct flow_out, status),
    FIELD(struct flow_out, created_at), FIELD(struct flow_out, updated_at), FIELD(struct flow_out, recovery_attempts),
    FIELD(struct flow_out, error),
};
static const struct shape shape_flow = SHAPE(struct flow_out, "AgentWorkflow", flow_fields);

struct agent_out {
    const char *error, *agent_id, *agent_name, *agent_status, *overall_health;
    struct shape_list workflows;
};
static const struct shape_field agent_fields[] = {
    FIELD(struct agent_out, agent_id), FIELD(struct agent_out, agent_name), FIELD(struct agent_out, agent_status),
    FIELD(struct agent_out, workflows, .of = &shape_flow, .doc = "Of its operations, newest first."),
    FIELD(struct agent_out, overall_health, .doc = "healthy, or degraded when its error_count is not 0."),
};
const struct shape monitor_agent_shape = SHAPE(struct agent_out, "AgentWorkflows", agent_fields);
static const struct shape_field no_agent_fields[] = { FIELD(struct agent_out, error), FIELD(struct agent_out, agent_id) };
static const struct shape shape_no_agent = SHAPE(struct agent_out, "AgentNotFound", no_agent_fields);

static const struct sql sql_operations = { /* ?1 agent */
    "monitor operations",
    "SELECT workflow_uuid FROM (SELECT workflow_uuid FROM agent_heartbeat_executions"
    "  WHERE agent_id = ?1 AND workflow_uuid IS NOT NULL ORDER BY created_at DESC LIMIT " LATEST ") h"
    " UNION SELECT workflow_uuid FROM (SELECT workflow_uuid FROM agent_state_checkpoints"
    "  WHERE agent_id = ?1 AND workflow_uuid IS NOT NULL ORDER BY created_at DESC LIMIT " LATEST ") c",
    NULL,
};
/* clang-format on */

static const char *text(struct str s, struct arena *a)
{
    return s.p ? arena_strndup(a, s.p, s.n) : NULL;
}

struct operations {
    struct sql_arg agent;
    struct arena *arena;
    struct str ids[IDS_MAX];
    size_t n;
};

static int take_operation(struct store_row *row, void *arg, struct err *e)
{
    struct operations *o = arg;

    (void)e;
    if (o->n < IDS_MAX)
        o->ids[o->n++] = arena_str(o->arena, row_str(row, 0));
    return 0;
}

static int operations_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct operations *o = arg;

    o->n = 0;
    return store_run(tx, &sql_operations, &o->agent, 1, take_operation, o, e);
}

/* Pauses and resumes are numbered by what the row said then: its version. */
static void add_known(struct operations *o, const struct agent_info *agent)
{
    int64_t from = agent->generation > 9 ? agent->generation - 9 : 0;

    for (int64_t i = from; i <= agent->generation && o->n < IDS_MAX; i++)
        o->ids[o->n++] = str_of(
            arena_printf(o->arena, "provision:" STR_FMT ":%lld", STR_ARG(agent->id), (long long)i));
    if (agent->workflow.n && o->n < IDS_MAX)
        o->ids[o->n++] = agent->workflow;
}

static const struct flow_out *show_flow(const struct durable_info *info, struct arena *a)
{
    struct flow_out *out = arena_new(a, struct flow_out);
    const char *words = json_string_value(json_object_get(durable_info_error(info, a), "message"));

    *out = (struct flow_out){
        .workflow_uuid = text(info->id, a),
        .name = text(info->name, a),
        .type = monitor_type_of(info->name),
        .status = durable_status_name(info->status),
        .created_at = time_python(info->created_ms, a),
        .updated_at = time_python(info->updated_ms, a),
        .error = words,
        .recovery_attempts = info->attempts,
    };
    return out;
}

static CO int agent_flows(struct swarm *s, const struct agent_info *agent, struct arena *a,
                          struct shape_list *ret, struct err *e)
{
    struct operations *o = arena_new(a, struct operations);
    struct durable_filter filter = { .descending = true, .load_output = true, .limit = IDS_MAX };
    struct durable_info *found;
    size_t n;
    int r;

    o->agent = SQL_STR(agent->id);
    o->arena = a;
    r = store_read(s->conf.store, operations_body, o, e);
    if (r < 0)
        return r;
    add_known(o, agent);
    filter.ids = o->ids;
    filter.n_ids = o->n;
    r = durable_list(s->conf.engine, &filter, a, &found, &n, e);
    if (r < 0)
        return r;
    ret->v = arena_alloc(a, (n + 1) * sizeof(*ret->v));
    for (ret->n = 0; ret->n < n; ret->n++)
        ret->v[ret->n] = show_flow(&found[ret->n], a);
    return 0;
}

CO int monitor_agent_api(struct http_req *req, struct err *e)
{
    struct agent_out *out = arena_new(req->arena, struct agent_out);
    const struct life *l = req->room;
    struct agent_info agent;
    int r = life_get(req->room, req->args[0], req->arena, &agent, e);

    out->agent_id = text(req->args[0], req->arena);
    req->out = out;
    if (r == -ERR_NOT_FOUND) {
        out->error = "agent_not_found";
        req->status = 404;
        req->out_shape = &shape_no_agent;
        return 0;
    }
    if (r == 0)
        r = life_owned(req, &agent, e);
    if (r == 0)
        r = agent_flows(l->s, &agent, req->arena, &out->workflows, e);
    if (r < 0)
        return r;
    out->agent_name = text(agent.name, req->arena);
    out->agent_status = agent_status_names[agent.status];
    out->overall_health = agent.error_count ? "degraded" : "healthy";
    return 0;
}
