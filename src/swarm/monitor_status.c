/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor_status.c — the state of the whole backend in one answer, and what the OpenClaw
 * gateway tells of its channels and sessions.
 */
#include <string.h>

#include "net/http.h"
#include "openclaw/openclaw.h"
#include "swarm/gate.h"
#include "swarm/life.h"
#include "swarm/mail.h"
#include "swarm/monitor_int.h"
#include "swarm/notify.h"

#define READS    (NEED_READ | NEED_AGENTS)
#define PROBE_MS 10000 /* of one question to the OpenClaw gateway */

/* clang-format off */
struct agents_out {
    int64_t total, provisioning, running, paused, stopped, failed, silent, beating;
};
static const struct shape_field agents_fields[] = {
    FIELD(struct agents_out, total), FIELD(struct agents_out, provisioning), FIELD(struct agents_out, running),
    FIELD(struct agents_out, paused), FIELD(struct agents_out, stopped), FIELD(struct agents_out, failed),
    FIELD(struct agents_out, silent, .doc = "They have missed their last heartbeats."),
    FIELD(struct agents_out, beating, .doc = "Running ones with heartbeats."),
};
static const struct shape shape_agents = SHAPE(struct agents_out, "SwarmAgents", agents_fields);

struct messages_out {
    int64_t pending, acknowledged, failed, expired, dropped, subscribers, under_way;
    const char *oldest_pending_at;
    double oldest_pending_seconds;
};
static const struct shape_field messages_fields[] = {
    FIELD(struct messages_out, pending), FIELD(struct messages_out, acknowledged), FIELD(struct messages_out, failed),
    FIELD(struct messages_out, expired), FIELD(struct messages_out, dropped), FIELD(struct messages_out, oldest_pending_at),
    FIELD(struct messages_out, oldest_pending_seconds, .decimals = 3),
    FIELD(struct messages_out, subscribers), FIELD(struct messages_out, under_way, .doc = "Handed to a consumer and not acknowledged yet."),
};
static const struct shape shape_messages = SHAPE(struct messages_out, "SwarmMessages", messages_fields);

struct openclaw_out {
    bool configured, connected, breaker_open;
    const char *connection_state, *gateway_url, *version, *last_error;
    int64_t protocol, uptime_seconds, pending, attempts;
};
static const struct shape_field openclaw_fields[] = {
    FIELD(struct openclaw_out, configured), FIELD(struct openclaw_out, connected), FIELD(struct openclaw_out, connection_state),
    FIELD(struct openclaw_out, gateway_url), FIELD(struct openclaw_out, version), FIELD(struct openclaw_out, protocol),
    FIELD(struct openclaw_out, uptime_seconds), FIELD(struct openclaw_out, attempts, .doc = "To connect, since it last did."),
    FIELD(struct openclaw_out, pending, .doc = "Requests under way."), FIELD(struct openclaw_out, breaker_open),
    FIELD(struct openclaw_out, last_error),
};
static const struct shape shape_openclaw = SHAPE(struct openclaw_out, "SwarmOpenClaw", openclaw_fields);

struct workflows_out {
    bool healthy;
    struct shape_strs problems;
    int64_t stuck, orphaned, dead, failed_last_hour, backlog;
};
static const struct shape_field workflows_fields[] = {
    FIELD(struct workflows_out, healthy), FIELD(struct workflows_out, problems), FIELD(struct workflows_out, stuck),
    FIELD(struct workflows_out, orphaned), FIELD(struct workflows_out, dead), FIELD(struct workflows_out, failed_last_hour),
    FIELD(struct workflows_out, backlog),
};
static const struct shape shape_workflows = SHAPE(struct workflows_out, "SwarmWorkflows", workflows_fields);

struct status_out {
    const char *checked_at, *executor;
    const void *agents, *messages, *openclaw, *workflows;
    int64_t sockets;
    json_t *trackers;
};
static const struct shape_field status_fields[] = {
    FIELD(struct status_out, checked_at), FIELD(struct status_out, executor, .doc = "This process, as its workflows name it."),
    FIELD(struct status_out, agents, .of = &shape_agents),
    FIELD(struct status_out, messages, .of = &shape_messages), FIELD(struct status_out, sockets, .doc = "WebSockets of the gateway."),
    FIELD(struct status_out, openclaw, .of = &shape_openclaw), FIELD(struct status_out, workflows, .of = &shape_workflows),
    FIELD(struct status_out, trackers, .object = true, .doc = "Work on issues, numbers by state."),
};
static const struct shape shape_status = SHAPE(struct status_out, "SwarmStatus", status_fields);

struct probe_out {
    const char *timestamp;
    const void *connection;
    json_t *channels, *sessions, *status;
    const char *error;
};
static const struct shape_field probe_fields[] = {
    FIELD(struct probe_out, timestamp), FIELD(struct probe_out, connection, .of = &shape_openclaw),
    FIELD(struct probe_out, channels, .doc = "Its answer to channels.status."), FIELD(struct probe_out, sessions, .doc = "Its answer to sessions.list."),
    FIELD(struct probe_out, status, .doc = "Its answer to status."), FIELD(struct probe_out, error, .doc = "Why one of them is missing."),
};
static const struct shape shape_probe = SHAPE(struct probe_out, "SwarmOpenClawProbe", probe_fields);

static const struct sql sql_trackers = {
    "monitor trackers", "SELECT state, COUNT(*) FROM swarm_trackers GROUP BY state ORDER BY state", NULL,
};
/* clang-format on */

static void drop_json(void *p)
{
    json_decref(p);
}

/* --- status --- */

static CO int status_agents(struct swarm *s, struct arena *a, const void **ret, struct err *e)
{
    struct agents_out *out = arena_new(a, struct agents_out);
    struct life_counts n = { 0 };
    int r = life_overview(s->life, &n, e);

    if (r < 0)
        return r;
    *out = (struct agents_out){
        .provisioning = n.by_status[AGENT_PROVISIONING],
        .running = n.by_status[AGENT_RUNNING],
        .paused = n.by_status[AGENT_PAUSED],
        .stopped = n.by_status[AGENT_STOPPED],
        .failed = n.by_status[AGENT_FAILED],
        .silent = n.silent,
        .beating = n.beating,
    };
    for (size_t i = 0; i < AGENT_STATUSES; i++)
        out->total += n.by_status[i];
    *ret = out;
    return 0;
}

static CO int status_messages(struct swarm *s, struct arena *a, const void **ret, struct err *e)
{
    struct messages_out *out = arena_new(a, struct messages_out);
    struct mail_counts n = { 0 };
    int r = mail_overview(s->mail, &n, e);

    if (r < 0)
        return r;
    *out = (struct messages_out){
        .pending = n.by_status[MAIL_PENDING],
        .acknowledged = n.by_status[MAIL_ACKED],
        .failed = n.by_status[MAIL_FAILED],
        .expired = n.by_status[MAIL_EXPIRED],
        .dropped = n.by_status[MAIL_DROPPED],
        .subscribers = n.subscribers,
        .under_way = n.under_way,
        .oldest_pending_at = time_python(n.oldest_pending_ms, a),
    };
    if (n.oldest_pending_ms && n.oldest_pending_ms < swarm_now())
        out->oldest_pending_seconds = (double)(swarm_now() - n.oldest_pending_ms) / 1000;
    *ret = out;
    return 0;
}

/* Where openclaw.url is this gateway itself there is no client, and nothing to connect to. */
static const void *status_openclaw(struct swarm *s, struct arena *a)
{
    struct openclaw_out *out = arena_new(a, struct openclaw_out);
    struct oc_client *client = notify_client(s->notify);
    struct oc_status st = { 0 };

    out->configured = s->settings->openclaw_url && s->settings->openclaw_url[0];
    out->connected = out->configured;
    out->connection_state = oc_state_name(out->configured ? OC_CONNECTED : OC_DISCONNECTED);
    out->gateway_url = out->configured ? "this gateway" : NULL;
    if (!client)
        return out;
    oc_status(client, &st);
    *out = (struct openclaw_out){
        .configured = true,
        .connected = st.state == OC_CONNECTED,
        .breaker_open = st.breaker_open,
        .connection_state = oc_state_name(st.state),
        .gateway_url = arena_strdup(a, st.url),
        .version = arena_strdup(a, st.version),
        .last_error = arena_strdup(a, st.last_error),
        .protocol = st.protocol,
        .uptime_seconds = (int64_t)(st.connected_ms / 1000),
        .pending = st.pending,
        .attempts = (int64_t)st.attempts,
    };
    return out;
}

static CO int status_workflows(struct monitor *m, struct arena *a, const void **ret, struct err *e)
{
    struct workflows_out *out = arena_new(a, struct workflows_out);
    struct monitor_look l;
    int r = monitor_look(m, a, &l, e);

    if (r < 0)
        return r;
    *out = (struct workflows_out){
        .healthy = !l.problems,
        .problems = { arena_alloc(a, (l.n_texts + 1) * sizeof(char *)), l.n_texts },
        .stuck = l.stuck,
        .orphaned = l.orphaned,
        .dead = l.dead,
        .failed_last_hour = l.failed,
        .backlog = l.backlog,
    };
    memcpy(out->problems.v, l.texts, l.n_texts * sizeof(*l.texts));
    *ret = out;
    return 0;
}

static int take_tracker(struct store_row *row, void *arg, struct err *e)
{
    char state[64];
    struct str name = row_str(row, 0);

    (void)e;
    fmt_z(state, sizeof(state), "%.*s", (int)(name.n < 60 ? name.n : 60), name.p);
    json_object_set_new(arg, state, json_integer(row_int(row, 1)));
    return 0;
}

static int trackers_body(struct store_tx *tx, void *arg, struct err *e)
{
    json_object_clear(arg);
    return store_run(tx, &sql_trackers, NULL, 0, take_tracker, arg, e);
}

static CO int get_status(struct http_req *req, struct err *e)
{
    struct status_out *out = arena_new(req->arena, struct status_out);
    struct monitor *m = req->room;
    struct swarm *s = m->s;
    int r = status_agents(s, req->arena, &out->agents, e);

    out->trackers = json_object();
    arena_on_free(req->arena, drop_json, out->trackers);
    if (r == 0)
        r = status_messages(s, req->arena, &out->messages, e);
    if (r == 0)
        r = status_workflows(m, req->arena, &out->workflows, e);
    if (r == 0)
        r = store_read(s->conf.store, trackers_body, out->trackers, e);
    if (r < 0)
        return r;
    out->checked_at = time_python(swarm_now(), req->arena);
    out->executor = arena_strdup(req->arena, durable_executor(s->conf.engine));
    out->sockets = gate_sockets(s->gate);
    out->openclaw = status_openclaw(s, req->arena);
    req->out = out;
    return 0;
}

/* --- the OpenClaw gateway --- */

/* One question; an error is part of the answer, unless the caller has gone. */
static CO int ask(struct http_req *req, struct oc_client *client, const char *method,
                  json_t *params, json_t **ret, const char **ret_error, struct err *e)
{
    AUTO(json_decref) json_t *owned = params;
    int r = oc_request(client, method, owned, deadline_in(PROBE_MS), ret, e);

    if (r == 0 && *ret)
        arena_on_free(req->arena, drop_json, *ret);
    if (r < 0 && r != -ERR_CANCELED && !*ret_error)
        *ret_error = arena_printf(req->arena, "%s: %s", method, e->msg);
    return r == -ERR_CANCELED ? r : 0;
}

static CO int get_probe(struct http_req *req, struct err *e)
{
    struct probe_out *out = arena_new(req->arena, struct probe_out);
    struct monitor *m = req->room;
    struct oc_client *client = notify_client(m->s->notify);
    const bool named = m->s->settings->openclaw_url && m->s->settings->openclaw_url[0];
    int r = 0;

    req->out = out;
    out->timestamp = time_python(swarm_now(), req->arena);
    out->connection = status_openclaw(m->s, req->arena);
    if (!client) {
        out->error = named ? "openclaw.url is this gateway itself, which has no channels"
                           : "openclaw.url is not set";
        return 0;
    }
    r = ask(req, client, "channels.status", json_pack("{s:b}", "probe", 0), &out->channels,
            &out->error, e);
    if (r == 0)
        r = ask(req, client, "sessions.list", json_pack("{s:i}", "limit", 100), &out->sessions,
                &out->error, e);
    if (r == 0)
        r = ask(req, client, "status", json_object(), &out->status, &out->error, e);
    out->connection = status_openclaw(m->s, req->arena);
    return r;
}

/* clang-format off */
const struct http_route monitor_swarm_routes[] = {
    { HTTP_M_GET, "/api/v1/swarm/status", get_status, READS, .out = &shape_status,
      .tag = "swarm", .doc = "The agent backend in one answer: agents, messages, sockets, OpenClaw, workflows, trackers." },
    { HTTP_M_GET, "/api/v1/swarm/openclaw", get_probe, READS, .out = &shape_probe,
      .tag = "swarm", .doc = "Ask the OpenClaw gateway how its channels and sessions are." },
};
/* clang-format on */
const size_t monitor_swarm_routes_len = LEN(monitor_swarm_routes);

void monitor_tables(struct monitor *m, struct http_table out[MONITOR_TABLES])
{
    out[0] = (struct http_table){ "/api/v1/swarm", &dialect_plain, monitor_swarm_routes,
                                  monitor_swarm_routes_len, m };
    out[1] = (struct http_table){ "/api/v1/workflows", &dialect_plain, monitor_workflow_routes,
                                  monitor_workflow_routes_len, m };
}
