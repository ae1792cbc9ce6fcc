/* SPDX-License-Identifier: MIT */
/* hub/api.c — registration and state of agents, statistics, metrics over HTTP. */
#include "hub/api.h"

#include <string.h>

#include "hub/agents.h"
#include "hub/audit.h"
#include "hub/dead.h"
#include "hub/event.h"
#include "hub/fleet.h"
#include "hub/link.h"
#include "hub/task.h"

#define READ (NEED_AGENTS | NEED_READ)

static int get_health(struct http_req *req, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    const struct hub *h = req->room;
    size_t online, total = hub_agents_count(h->agents, &online), machines = 0, running = 0;
    int r;

    fleet_counts(h->fleet, &machines, &running);
    buf_init(&b, 4 * KIB);
    r = buf_printf(&b, e,
                   "{\"status\":\"healthy\",\"uptime\":%.3f,\"timestamp\":%lld,"
                   "\"agents\":{\"total\":%zu,\"online\":%zu},"
                   "\"machines\":{\"total\":%zu,\"running\":%zu},\"version\":\"%s\"}",
                   (double)(now_ms() - h->started_ms) / 1000.0, (long long)hub_now(), total, online,
                   machines, running, CHELA_VERSION);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

/* --- registration --- */

static void tell(struct hub *h, struct http_req *req, const char *what, struct str id,
                 const char *reason)
{
    audit(h, &(struct audit_line){ .event = what,
                                   .agent = id,
                                   .from = str_of(req->who.name),
                                   .peer = req->peer,
                                   .reason = reason });
    if (event_wanted(h))
        event(h, what, json_pack("{s:s%}", "agentId", id.p, id.n));
}

static int answer_registered(struct http_req *req, struct hub *h, struct str id, const char *token,
                             struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    const struct hub_agent *agent = hub_agents_find(h->agents, id);
    int r;

    if (!agent)
        return err_set(e, ERR_CONFLICT, "the agent was deregistered at the same time");
    buf_init(&b, SIZE_MAX / 2);
    r = buf_add_z(&b, "{\"agent\":", e);
    if (r == 0)
        r = hub_agent_write(h, agent, &b, e);
    if (r == 0)
        r = buf_printf(&b, e, ",\"token\":\"%s\",\"wsUrl\":\"%s/agent/%s/%s\"}", token,
                       hub_ws_url(h, req->arena), agent->id, token);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

static CO int post_register(struct http_req *req, struct err *e)
{
    struct hub *h = req->room;
    char token[AGENT_TOKEN_TEXT];
    json_t *body, *name;
    struct str id;
    bool again;
    int r = hub_body(req, &body, e);

    if (r < 0)
        return r;
    name = json_object_get(body, "agentId");
    if (!name || json_is_null(name) || json_is_false(name) ||
        (json_is_string(name) && !json_string_length(name)))
        return err_set(e, ERR_INVALID, "agentId is required");
    if (!json_is_string(name))
        return err_set(e, ERR_INVALID, "agentId must be a string");
    id = json_member_str(body, "agentId");
    again = hub_agents_find(h->agents, id);
    r = hub_agents_register(h->agents, id, json_object_get(body, "metadata"), false, token, e);
    if (r < 0)
        return r;
    tell(h, req, "agent.registered", id, again ? "again: earlier tokens are void" : NULL);
    audit_flush(h);
    return answer_registered(req, h, id, token, e);
}

static CO int delete_agent(struct http_req *req, struct err *e)
{
    struct hub *h = req->room;
    int r = hub_agents_deregister(h->agents, req->args[0], e);

    if (r < 0)
        return r;
    tell(h, req, "agent.deregistered", req->args[0], NULL);
    audit_flush(h);
    http_reply_text(req, 200, HUB_JSON, STR("{\"status\":\"deregistered\"}"));
    return 0;
}

/* --- looking --- */

struct filter {
    const char *status, *type;
};
static const struct shape_field filter_fields[] = {
    FIELD(struct filter, status, .doc = "online or offline"),
    FIELD(struct filter, type, .doc = "Of the metadata."),
};
static const struct shape filter_shape = SHAPE(struct filter, "HubAgentFilter", filter_fields);

static bool has_type(const struct hub_agent *agent, const char *type)
{
    AUTO(json_decref) json_t *metadata = json_loads(agent->metadata, 0, NULL);

    return str_eq_z(json_member_str(metadata, "type"), type);
}

static bool passes(const struct hub_agent *agent, const struct filter *f)
{
    if (f->status && strcmp(f->status, agent->online ? "online" : "offline") != 0)
        return false;
    return !f->type || has_type(agent, f->type);
}

static int get_agents(struct http_req *req, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct hub *h = req->room;
    const struct hub_agent *agent;
    const char *comma = "";
    int r;

    buf_init(&b, SIZE_MAX / 2);
    r = buf_add_z(&b, "{\"agents\":[", e);
    for (size_t i = 0; r == 0 && (agent = hub_agents_at(h->agents, i)); i++) {
        if (!passes(agent, req->query))
            continue;
        r = buf_add_z(&b, comma, e);
        if (r == 0)
            r = hub_agent_write(h, agent, &b, e);
        comma = ",";
    }
    if (r == 0)
        r = buf_add_z(&b, "]}", e);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

static CO int get_status(struct http_req *req, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct hub *h = req->room;
    const struct hub_agent *agent = hub_agents_find(h->agents, req->args[0]);
    int r;

    if (!agent) {
        hub_agents_ask(h->agents, req->args[0]); /* another daemon may know it */
        agent = hub_agents_find(h->agents, req->args[0]);
    }
    if (!agent)
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    buf_init(&b, SIZE_MAX / 2);
    r = buf_add_z(&b, "{\"agent\":", e);
    if (r == 0)
        r = hub_agent_write(h, agent, &b, e);
    if (r == 0)
        r = buf_add_z(&b, "}", e);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

static CO int post_drain(struct http_req *req, struct err *e)
{
    struct hub *h = req->room;
    json_t *body, *draining;
    int r = hub_body(req, &body, e);

    if (r < 0)
        return r;
    draining = json_object_get(body, "draining");
    if (draining && !json_is_boolean(draining))
        return err_set(e, ERR_INVALID, "draining must be true or false");
    r = hub_agents_drain(h->agents, req->args[0], !json_is_false(draining), e);
    if (r < 0)
        return r;
    tell(h, req, json_is_false(draining) ? "agent.undrained" : "agent.drained", req->args[0], NULL);
    return get_status(req, e);
}

/* --- statistics --- */

static int write_counts(struct hub *h, struct buf *b, struct err *e)
{
    const struct hub_agent *a;
    int r = 0;

    for (size_t i = 0; r == 0 && (a = hub_agents_at(h->agents, i)); i++)
        r = buf_printf(b, e,
                       "%s{\"id\":\"%s\",\"status\":\"%s\",\"stats\":{\"tasksReceived\":%lld,"
                       "\"tasksCompleted\":%lld,\"tasksFailed\":%lld,\"messagesReceived\":%lld,"
                       "\"messagesSent\":%lld},\"currentTasks\":%zu}",
                       i ? "," : "", a->id, a->online ? "online" : "offline", a->stats.received,
                       a->stats.completed, a->stats.failed, a->stats.messages_received,
                       a->stats.messages_sent,
                       task_current_count(h->tasks, (struct str){ a->id, a->node.key.n }));
    return r;
}

static int get_stats(struct http_req *req, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct hub *h = req->room;
    size_t online, total = hub_agents_count(h->agents, &online);
    int r;

    buf_init(&b, SIZE_MAX / 2);
    r = buf_printf(&b, e,
                   "{\"router\":{\"historySize\":%zu,\"deadLetterQueueSize\":%zu,"
                   "\"totalAgents\":%zu,\"onlineAgents\":%zu},\"agents\":[",
                   link_history(h->links), dead_count(h), total, online);
    if (r == 0)
        r = write_counts(h, &b, e);
    if (r == 0)
        r = buf_add_z(&b, "]}", e);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

static int get_metrics(struct http_req *req, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    hub_gauges(req->room);
    buf_init(&b, 16 * MIB);
    r = metric_print(&b, e);
    if (r == 0)
        http_reply_text(req, 200, "text/plain; version=0.0.4; charset=utf-8",
                        arena_str(req->arena, buf_str(&b)));
    return r;
}

/* clang-format off */
const struct http_route api_routes[] = {
    { HTTP_M_GET, "/health", get_health, .need = NEED_NONE, .tag = "hub", .doc = "That the hub is there, and how many agents and machines." },
    { HTTP_M_GET, "/metrics", get_metrics, .need = NEED_METRICS | NEED_READ, .tag = "hub", .doc = "Metrics in the Prometheus text format." },
    { HTTP_M_POST, "/agents/register", post_register, .need = NEED_AGENTS, .tag = "hub",
      .doc = "Register an agent, {agentId, metadata}; its token is shown this once. Again: a new token, the old one is void." },
    { HTTP_M_GET, "/agents", get_agents, .need = READ, .query = &filter_shape, .tag = "hub", .doc = "All agents, in order of registration." },
    { HTTP_M_GET, "/agents/{id}/status", get_status, .need = READ, .tag = "hub", .doc = "One agent." },
    { HTTP_M_POST, "/agents/{id}/drain", post_drain, .need = NEED_AGENTS, .tag = "hub",
      .doc = "{\"draining\": true}: tasks wait from now on, none is sent; false lets them go." },
    { HTTP_M_DELETE, "/agents/{id}", delete_agent, .need = NEED_AGENTS, .tag = "hub",
      .doc = "Deregister: its token is void, its socket is closed, what waited for it goes." },
    { HTTP_M_GET, "/admin/stats", get_stats, .need = READ, .tag = "hub", .doc = "Counters of the router and of each agent." },
};
/* clang-format on */
const size_t api_routes_len = LEN(api_routes);
