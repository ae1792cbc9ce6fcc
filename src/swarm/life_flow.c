/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_flow.c — the id that an operation's workflow gets, so that who asks twice is told of
 * one workflow:
 *
 *   provision:<agent>:<generation>     a failed agent's next one is of the next generation
 *   heartbeat:<execution>
 *   pause:<agent>:<version>, resume:…  the version of the row they were asked for
 *
 * A request that joins must mean the same thing as the one it joins. So a provisioning that ended
 * without an agent, or of an agent that may not be provisioned now, is not joined.
 */
#include <string.h>

#include "base/id.h"
#include "swarm/life_int.h"

enum { AGENT_ID_MAX = 128, EXECUTION_ID_MAX = 200 };

/* clang-format off */
static const struct sql sql_ended = {
    "life workflow ended",
    "SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = ?1"
    " AND status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED')",
    NULL,
};
/* clang-format on */

struct naming {
    struct str agent;
    enum agent_op op;
    bool resume, complete; /* complete: every field is there that makes a row */
    struct arena arena;
    char id[DURABLE_ID];
};

static int take_one(struct store_row *row, void *arg, struct err *e)
{
    *(bool *)arg = true;
    return 0;
}

int life_ended_tx(struct store_tx *tx, struct str workflow, bool *ret, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(workflow) };
    bool ended = false;
    int r = store_run(tx, &sql_ended, args, LEN(args), take_one, &ended, e);

    *ret = ended;
    return r < 0 ? r : 0;
}

static void name_it(struct naming *n, const char *verb, int64_t number, bool unique)
{
    char uuid[UUID_TEXT] = "";

    if (unique)
        uuid_v4(uuid);
    fmt_z(n->id, sizeof(n->id), "%s:" STR_FMT ":%lld%s%s", verb, STR_ARG(n->agent),
          (long long)number, unique ? ":" : "", uuid);
}

static int name_provision(struct store_tx *tx, struct naming *n, const struct agent_info *row,
                          struct err *e)
{
    int64_t generation = row ? row->generation : 0;
    bool ended = false;
    int r = 0;

    if (row && row->status == AGENT_FAILED)
        generation++;
    name_it(n, "provision", generation, false);
    if (row && (row->status == AGENT_RUNNING || row->status == AGENT_FAILED))
        return 0;
    if (!row || row->status == AGENT_PROVISIONING)
        r = life_ended_tx(tx, str_of(n->id), &ended, e);
    else
        ended = true; /* paused or stopped: the workflow will say so */
    if (r == 0 && (ended || (!row && !n->complete)))
        name_it(n, "provision", generation, true);
    return r;
}

static int name_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct naming *n = arg;
    struct agent_info row;
    int r;

    arena_done(&n->arena);
    r = life_find_tx(tx, n->agent, &n->arena, &row, e);
    if (r < 0)
        return r;
    if (n->op == OP_PROVISION)
        return name_provision(tx, n, r == 1 ? &row : NULL, e);
    name_it(n, n->resume ? "resume" : "pause", r == 1 ? row.version : 0, r == 0);
    return 0;
}

static bool is_complete(const json_t *in)
{
    static const char *const names[] = { "name", "model", "userId", "sessionKey" };

    for (size_t i = 0; i < LEN(names); i++)
        if (json_member_str(in, names[i]).n == 0)
            return false;
    return true;
}

static CO int name_of_agent(struct life *l, enum agent_op op, const json_t *in,
                            char ret[DURABLE_ID], struct err *e)
{
    struct naming n = { .agent = json_member_str(in, "agentId"), .op = op };
    int r;

    if (n.agent.n > AGENT_ID_MAX)
        n.agent.n = 0; /* the workflow will refuse it */
    n.resume = !str_eq(json_member_str(in, "action"), STR("pause"));
    n.complete = n.agent.n && is_complete(in);
    r = store_read(l->s->conf.store, name_body, &n, e);
    arena_done(&n.arena);
    if (r < 0)
        return r;
    memcpy(ret, n.id, DURABLE_ID);
    return 0;
}

/* The original's callers made such ids when they had none. */
static void default_execution(json_t *in)
{
    char id[AGENT_ID_MAX + 64];
    struct str agent = json_member_str(in, "agentId");

    fmt_z(id, sizeof(id), "hb_%.*s_%lld", (int)(agent.n < AGENT_ID_MAX ? agent.n : AGENT_ID_MAX),
          agent.p ? agent.p : "", (long long)(swarm_now() / 1000));
    json_object_set_new(in, "executionId", json_string(id));
}

static int name_of_beat(json_t *in, char ret[DURABLE_ID], struct err *e)
{
    struct str id;

    if (json_member_str(in, "executionId").n == 0)
        default_execution(in);
    id = json_member_str(in, "executionId");
    if (id.n > EXECUTION_ID_MAX)
        return err_set(e, ERR_INVALID, "executionId is longer than %d bytes", EXECUTION_ID_MAX);
    fmt_z(ret, DURABLE_ID, "heartbeat:" STR_FMT, STR_ARG(id));
    return 0;
}

CO int life_run(struct life *l, enum agent_op op, struct str id, const json_t *request,
                uint64_t deadline_ms, struct durable_started *ret, struct buf *out, struct err *e)
{
    const char *name = op == OP_PROVISION   ? LIFE_PROVISION
                       : op == OP_HEARTBEAT ? LIFE_BEAT
                                            : LIFE_STEER;
    struct durable_start start = { .name = name, .class_name = LIFE_CLASS, .id = id };
    AUTO(buf_done) struct buf args = { 0 };
    int r;

    if (deadline_ms)
        return swarm_run(l->s, LIFE_CLASS, name, id, request, deadline_ms, ret, out, e);
    buf_init(&args, LIFE_PAYLOAD);
    r = buf_add_z(&args, "[", e);
    if (r == 0)
        r = json_write(request, &args, e);
    if (r == 0)
        r = buf_add_z(&args, "]", e);
    start.args = buf_str(&args);
    return r < 0 ? r : durable_start(l->s->conf.engine, &start, ret, e);
}

CO int life_flow(struct life *l, enum agent_op op, const json_t *request, uint64_t deadline_ms,
                 struct durable_started *ret, struct buf *out, struct err *e)
{
    char id[DURABLE_ID];
    json_t *in;
    int r;

    in = json_is_object(request) ? json_copy((json_t *)(uintptr_t)request) : json_object();
    r = op == OP_HEARTBEAT ? name_of_beat(in, id, e) : name_of_agent(l, op, in, id, e);
    if (r == 0)
        r = life_run(l, op, str_of(id), in, deadline_ms, ret, out, e);
    json_decref(in);
    return r;
}

const char *life_provision_id(const struct agent_info *row, struct arena *a)
{
    return arena_printf(a, "provision:" STR_FMT ":%lld", STR_ARG(row->id),
                        (long long)row->generation);
}

json_t *life_json(struct str text, json_t *fallback)
{
    json_t *value = NULL;
    struct arena a = { 0 };
    struct err e;

    if (text.n && json_parse(text, 64, &a, &value, NULL, &e) == 0)
        value = json_incref(value);
    arena_done(&a);
    if (!value)
        return fallback;
    json_decref(fallback);
    return value;
}

static void set_text(json_t *object, const char *name, struct str s)
{
    if (s.p)
        json_object_set_new(object, name, json_stringn(s.p, s.n));
}

json_t *life_request_json(const struct agent_info *row)
{
    json_t *in = json_object();

    set_text(in, "agentId", row->id);
    set_text(in, "name", row->name);
    set_text(in, "persona", row->persona);
    set_text(in, "model", row->model);
    set_text(in, "userId", row->user);
    set_text(in, "workspaceId", row->workspace);
    set_text(in, "sessionKey", row->session);
    set_text(in, "openclawAgentId", row->openclaw_id);
    json_object_set_new(in, "heartbeatEnabled", json_boolean(row->heartbeat));
    set_text(in, "heartbeatInterval", row->interval);
    json_object_set_new(in, "heartbeatChecklist", life_json(row->checklist, json_array()));
    json_object_set_new(in, "configuration", life_json(row->configuration, json_object()));
    return in;
}

/* --- texts --- */

static int line(struct buf *out, const char *label, struct str value, struct err *e)
{
    int r = buf_add_z(out, label, e);

    if (r == 0)
        r = buf_add_str(out, value, e);
    return r < 0 ? r : buf_add_z(out, "\n", e);
}

int life_text_provision(const json_t *request, struct buf *out, struct err *e)
{
    struct str interval = json_member_str(request, "heartbeatInterval");
    int r = line(out, "Agent: ", json_member_str(request, "name"), e);

    if (r == 0 && json_member_str(request, "persona").n)
        r = line(out, "Persona: ", json_member_str(request, "persona"), e);
    if (r == 0)
        r = line(out, "Model: ", json_member_str(request, "model"), e);
    if (r == 0)
        r = line(out, "Session: ", json_member_str(request, "sessionKey"), e);
    if (r == 0 && json_is_true(json_object_get(request, "heartbeatEnabled")))
        r = line(out, "Heartbeat: every ", interval.n ? interval : STR("5m"), e);
    if (r == 0 && out->n)
        out->n--; /* the last line break */
    return r;
}

int life_text_beat(const char *name, const json_t *checklist, struct buf *out, struct err *e)
{
    int r = buf_printf(out, e, "Heartbeat checklist for %s:", name ? name : "you");

    for (size_t i = 0; r == 0 && i < json_array_size(checklist); i++) {
        const json_t *item = json_array_get(checklist, i);

        r = buf_printf(out, e, "\n%zu. ", i + 1);
        if (r == 0 && json_is_string(item))
            r = buf_add(out, json_string_value(item), json_string_length(item), e);
    }
    return r;
}
