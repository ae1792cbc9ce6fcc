/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_flows.c — /workflows of the gateway: what has become of one, which there are, give one
 * back, and run those of agents' lives. A message is a workflow too, seen from here: the engine is
 * asked first, then the mailboxes.
 */
#include <stdlib.h>
#include <string.h>

#include "swarm/gate_int.h"
#include "swarm/life.h"
#include "swarm/monitor.h"

#define MESSAGE_WORKFLOW "routeAgentMessage"

enum { LIST_MAX = 1000, LIST_DEFAULT = 50, DEPTH = 64 };

struct flow { /* of the engine, or a message */
    const char *id, *name, *status, *error;
    int64_t created_ms, updated_ms, attempts;
    json_t *result;
};

static const char *text_of(struct str s, struct arena *a)
{
    return s.n ? arena_strndup(a, s.p, s.n) : NULL;
}

static const char *error_text(const struct durable_info *info, struct arena *a)
{
    json_t *error = durable_info_error(info, a);
    struct str message = json_member_str(error, "message");

    return info->status == DURABLE_ERROR ? text_of(message, a) : NULL;
}

static void of_engine(const struct durable_info *info, struct arena *a, struct flow *ret)
{
    *ret = (struct flow){
        .id = text_of(info->id, a),
        .name = text_of(info->name, a),
        .status = durable_status_name(info->status),
        .error = error_text(info, a),
        .created_ms = info->created_ms,
        .updated_ms = info->updated_ms,
        .attempts = info->attempts,
        .result = info->status == DURABLE_SUCCESS ? durable_info_output(info, a) : NULL,
    };
}

static void drop_json(void *p)
{
    json_decref(p);
}

static json_t *message_result(const struct mail_info *info, struct arena *a)
{
    json_t *j = json_object();

    arena_on_free(a, drop_json, j);
    (void)json_object_set_new(j, "messageId", json_stringn(info->id.p, info->id.n));
    (void)json_object_set_new(j, "status",
                              json_string(info->status == MAIL_FAILED ||
                                                  info->status == MAIL_EXPIRED ||
                                                  info->status == MAIL_DROPPED
                                              ? "failed"
                                              : "delivered"));
    (void)json_object_set_new(j, "deliveryAttempts",
                              json_integer(info->attempts ? info->attempts : 1));
    (void)json_object_set_new(j, "lastAttemptTime",
                              json_integer(info->ended_ms ? info->ended_ms : info->created_ms));
    if (info->response.p)
        (void)json_object_set_new(j, "response", json_stringn(info->response.p, info->response.n));
    return j;
}

static void of_mail(const struct mail_info *info, struct arena *a, struct flow *ret)
{
    *ret = (struct flow){
        .id = text_of(info->workflow, a),
        .name = MESSAGE_WORKFLOW,
        .status = monitor_message_status((int)info->status),
        .error = text_of(info->error, a),
        .created_ms = info->created_ms,
        .updated_ms = info->ended_ms ? info->ended_ms : info->created_ms,
        .attempts = 1,
        .result = message_result(info, a),
    };
}

static CO int find_flow(struct gate *g, struct str id, struct arena *a, struct flow *ret,
                        struct err *e)
{
    struct durable_info info;
    struct mail_info mail;
    int r;

    r = durable_get(g->s->conf.engine, id, a, &info, e);
    if (r == 0)
        of_engine(&info, a, ret);
    if (r != -ERR_NOT_FOUND)
        return r;
    r = mail_get(g->s->mail, id, a, &mail, e);
    if (r == 0)
        of_mail(&mail, a, ret);
    return r;
}

/* --- GET /workflows/{uuid} --- */

struct flow_out {
    const char *workflowUuid, *status, *name;
    json_t *createdAt, *updatedAt;
    const char *error;
    json_t *result;
};
/* clang-format off */
static const struct shape_field flow_fields[] = {
    FIELD(struct flow_out, workflowUuid), FIELD(struct flow_out, status, .doc = "DBOS's, or not_found."),
    FIELD(struct flow_out, name, .omit = true), FIELD(struct flow_out, createdAt, .omit = true, .doc = "ms since 1970."),
    FIELD(struct flow_out, updatedAt, .omit = true), FIELD(struct flow_out, error, .omit = true), FIELD(struct flow_out, result, .omit = true),
};
static const struct shape flow_shape = SHAPE(struct flow_out, "GatewayWorkflow", flow_fields);
/* clang-format on */

static json_t *time_json(int64_t ms, struct arena *a)
{
    json_t *j = ms ? json_integer(ms) : NULL;

    if (j)
        arena_on_free(a, drop_json, j);
    return j;
}

static CO int get_flow(struct http_req *req, struct err *e)
{
    struct flow_out *out = arena_new(req->arena, struct flow_out);
    struct flow flow = { .status = "not_found" };
    struct err why;
    int r;

    r = find_flow(req->room, req->args[0], req->arena, &flow, &why);
    if (r < 0 && r != -ERR_NOT_FOUND && r != -ERR_INVALID)
        return gate_fail(&why, e);
    *out = (struct flow_out){
        .workflowUuid = text_of(req->args[0], req->arena),
        .status = flow.status,
        .name = flow.name,
        .createdAt = time_json(flow.created_ms, req->arena),
        .updatedAt = time_json(flow.updated_ms, req->arena),
        .error = flow.error,
        .result = flow.result,
    };
    req->out = out;
    return 0;
}

/* --- GET /workflows --- */

struct list_query {
    const char *status, *name, *since;
    int64_t limit;
};
static const struct shape_field list_fields[] = {
    FIELD(struct list_query, status),
    FIELD(struct list_query, name),
    FIELD(struct list_query, since, .doc = "ISO 8601, or ms since 1970."),
    FIELD(struct list_query, limit, .coerce = true, .min = 1, .max = LIST_MAX, .def = "50"),
};
static const struct shape list_shape =
    SHAPE(struct list_query, "GatewayWorkflowsQuery", list_fields);

static int since_of(const char *text, int64_t *ret, struct err *e)
{
    struct err not_a_number;
    long long ms;
    int64_t us;

    *ret = 0;
    if (!text)
        return 0;
    if (int_parse(str_of(text), 0, INT64_MAX / 1000, &ms, &not_a_number) == 0) {
        *ret = ms;
        return 0;
    }
    if (time_parse(str_of(text), &us, e) < 0)
        return err_wrap(e, "since");
    *ret = us / 1000;
    return 0;
}

struct list {
    struct flow *v;
    size_t n;
};

static CO int list_engine(struct gate *g, const struct list_query *q, int64_t since,
                          struct arena *a, struct list *ret, struct err *e)
{
    struct str name = str_of(q->name);
    struct durable_filter f = {
        .names = &name,
        .n_names = q->name != NULL,
        .created_from_ms = since,
        .descending = true,
        .load_output = true,
        .limit = (unsigned)q->limit,
    };
    struct durable_info *found = NULL;
    enum durable_status status;
    size_t n = 0;
    int r;

    if (q->status) {
        r = durable_status_parse(str_of(q->status), &status, e);
        if (r < 0)
            return r;
        f.statuses = 1u << status;
    }
    r = durable_list(g->s->conf.engine, &f, a, &found, &n, e);
    if (r < 0)
        return r;
    ret->v = arena_alloc(a, (n + 1) * sizeof(*ret->v));
    for (size_t i = 0; i < n; i++)
        of_engine(&found[i], a, &ret->v[ret->n++]);
    return 0;
}

/* Which of the mailboxes' statuses are shown as this one? */
static unsigned mail_statuses(const char *status)
{
    unsigned bits = 0;

    for (int i = 0; i < MAIL_STATUSES; i++)
        if (!status || strcmp(status, monitor_message_status(i)) == 0)
            bits |= 1u << i;
    return bits;
}

static CO int list_mail(struct gate *g, const struct list_query *q, int64_t since, struct arena *a,
                        struct list *ret, struct err *e)
{
    struct mail_filter f = {
        .statuses = mail_statuses(q->status),
        .created_from_ms = since,
        .limit = (unsigned)q->limit,
    };
    struct mail_info *found = NULL;
    size_t n = 0;
    int r;

    if (!f.statuses || (q->name && strcmp(q->name, MESSAGE_WORKFLOW) != 0))
        return 0;
    r = mail_list(g->s->mail, &f, a, &found, &n, e);
    if (r < 0)
        return r;
    ret->v = arena_alloc(a, (n + 1) * sizeof(*ret->v));
    for (size_t i = 0; i < n; i++)
        of_mail(&found[i], a, &ret->v[ret->n++]);
    return 0;
}

static void list_add(json_t *array, const struct flow *f)
{
    json_t *j = json_object();

    (void)json_object_set_new(j, "workflow_uuid", json_string(f->id)); /* texts we have checked */
    (void)json_object_set_new(j, "name", json_string(f->name));
    (void)json_object_set_new(j, "status", json_string(f->status));
    (void)json_object_set_new(j, "created_at", json_integer(f->created_ms));
    (void)json_object_set_new(j, "updated_at", json_integer(f->updated_ms));
    (void)json_object_set_new(j, "recovery_attempts", json_integer(f->attempts));
    (void)json_object_set_new(j, "error", f->error ? json_string(f->error) : json_null());
    (void)json_array_append_new(array, j);
}

/* Both are newest first. A message that was also a workflow is shown once. */
static json_t *merge(const struct list *x, const struct list *y, size_t limit)
{
    json_t *out = json_array();
    size_t i = 0, k = 0;

    while (json_array_size(out) < limit && (i < x->n || k < y->n)) {
        bool first = k == y->n || (i < x->n && x->v[i].created_ms >= y->v[k].created_ms);

        list_add(out, first ? &x->v[i++] : &y->v[k++]);
    }
    return out;
}

static CO int get_flows(struct http_req *req, struct err *e)
{
    const struct list_query *q = req->query;
    struct list engine = { 0 }, mail = { 0 };
    struct err why;
    struct str text;
    json_t *out;
    int64_t since;
    int r;

    r = since_of(q->since, &since, &why);
    if (r == 0)
        r = list_engine(req->room, q, since, req->arena, &engine, &why);
    if (r == 0)
        r = list_mail(req->room, q, since, req->arena, &mail, &why);
    if (r < 0)
        return gate_fail(&why, e);
    out = merge(&engine, &mail, (size_t)q->limit);
    arena_on_free(req->arena, drop_json, out);
    r = json_text(out, 64 * MIB, req->arena, &text, e);
    if (r == 0)
        http_reply_text(req, 200, "application/json; charset=utf-8", text);
    return r;
}

/* --- POST /workflows/{uuid}/recover --- */

struct recover_out {
    bool recovered;
    const char *status, *workflowUuid;
};
static const struct shape_field recover_fields[] = {
    FIELD(struct recover_out, recovered),
    FIELD(struct recover_out, status),
    FIELD(struct recover_out, workflowUuid),
};
static const struct shape recover_shape =
    SHAPE(struct recover_out, "GatewayRecovered", recover_fields);

static CO int post_recover(struct http_req *req, struct err *e)
{
    const struct gate *g = req->room;
    struct recover_out *out = arena_new(req->arena, struct recover_out);
    struct err why;

    out->workflowUuid = text_of(req->args[0], req->arena);
    if (monitor_recover(g->s->monitor, req->args[0], &out->recovered, &out->status, req->arena,
                        &why) < 0)
        return gate_fail(&why, e);
    req->out = out;
    return 0;
}

/* --- agents' lives --- */

static CO int run_life(struct http_req *req, enum agent_op op, struct err *e)
{
    struct gate *g = req->room;
    AUTO(buf_done) struct buf result = { 0 };
    struct durable_started started = { .id = "" };
    json_t *request = NULL;
    uint64_t deadline_ms = gate_is_async(req) ? 0 : req->deadline_ms;
    struct err why;
    int r;

    r = json_parse(req->body.n ? req->body : STR("{}"), DEPTH, req->arena, &request, NULL, e);
    if (r < 0)
        return r;
    buf_init(&result, 16 * MIB);
    r = life_flow(g->s->life, op, request, deadline_ms, &started, &result, &why);
    if (r < 0)
        return gate_refuse(req, &why, false, e);
    return gate_reply_done(req, started.id,
                           gate_is_async(req) ? (struct str){ 0 } : buf_str(&result), e);
}

static CO int post_provision(struct http_req *req, struct err *e)
{
    return run_life(req, OP_PROVISION, e);
}

static CO int post_heartbeat(struct http_req *req, struct err *e)
{
    return run_life(req, OP_HEARTBEAT, e);
}

static CO int post_pause_resume(struct http_req *req, struct err *e)
{
    return run_life(req, OP_PAUSE, e);
}

/* Documents what these take; life.h judges it. */
struct life_body {
    json_t *v;
};
/* clang-format off */
#define ANY(key, text) { .name = key, .offset = offsetof(struct life_body, v), .kind = SHAPE_JSON, .nullable = true, .doc = text }
static const struct shape_field provision_fields[] = {
    ANY("agentId", "A UUID; required."), ANY("name", "Required."), ANY("persona", NULL),
    ANY("model", "provider/model-name; required."), ANY("userId", "A UUID; required."), ANY("sessionKey", "Required."),
    ANY("heartbeatEnabled", NULL), ANY("heartbeatInterval", "5m, 15m, 30m, 1h or 2h."), ANY("heartbeatChecklist", "A list of texts."),
    ANY("configuration", "An object."),
};
static const struct shape_field heartbeat_fields[] = {
    ANY("agentId", "Required."), ANY("sessionKey", NULL), ANY("checklist", "A list of texts."),
    ANY("executionId", "One of them is one heartbeat."),
};
static const struct shape_field pause_fields[] = {
    ANY("agentId", "Required."), ANY("action", "pause, or else resume."), ANY("sessionKey", NULL),
    ANY("preserveState", "Keep a checkpoint of the agent's settings."),
};
/* clang-format on */
static const struct shape provision_shape =
    SHAPE(struct life_body, "GatewayProvision", provision_fields);
static const struct shape heartbeat_shape =
    SHAPE(struct life_body, "GatewayHeartbeat", heartbeat_fields);
static const struct shape pause_shape = SHAPE(struct life_body, "GatewayPauseResume", pause_fields);

#define WRITE (NEED_AGENTS | NEED_BRIDGE)

/* clang-format off */
const struct http_route gate_flow_routes[] = {
    { HTTP_M_GET, "/workflows", get_flows, .need = WRITE | NEED_READ | NEED_WORKFLOWS, .query = &list_shape, .tag = "gateway",
      .doc = "Workflows and messages, newest first." },
    { HTTP_M_GET, "/workflows/{uuid}", get_flow, .need = WRITE | NEED_READ | NEED_WORKFLOWS, .out = &flow_shape, .flags = ROUTE_SLASH, .tag = "gateway",
      .doc = "What has become of a workflow or a message; 200 with not_found when there is none." },
    { HTTP_M_POST, "/workflows/{uuid}/recover", post_recover, .need = WRITE | NEED_WORKFLOWS, .out = &recover_shape, .flags = ROUTE_SLASHES, .tag = "gateway",
      .doc = "Give back to its queue what a dead process has left; resume what is cancelled or dead." },
    { HTTP_M_POST, "/workflows/provision-agent", post_provision, .need = WRITE, .in = &provision_shape, .query = &gate_async_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "Provision an agent; a result may say that it failed." },
    { HTTP_M_POST, "/workflows/heartbeat", post_heartbeat, .need = WRITE, .in = &heartbeat_shape, .query = &gate_async_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "A heartbeat of an agent." },
    { HTTP_M_POST, "/workflows/pause-resume", post_pause_resume, .need = WRITE, .in = &pause_shape, .query = &gate_async_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "Pause or resume an agent." },
    { HTTP_M_POST, "/workflows/skill-installation", gate_skill_install, .need = WRITE, .in = &gate_skill_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "Skill workflows of the original; answered with 503." },
    { HTTP_M_POST, "/workflows/skill-execution", gate_skill_run, .need = WRITE, .in = &gate_skill_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "Skill workflows of the original; answered with 503." },
};
/* clang-format on */
const size_t gate_flow_routes_len = LEN(gate_flow_routes);
