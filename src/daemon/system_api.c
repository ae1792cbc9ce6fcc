/* SPDX-License-Identifier: MIT */
/*
 * daemon/system_api.c — the routes about the daemon itself: what it is, whether it is well, how
 * much it has done.
 */
#include <string.h>

#include "base/metric.h"
#include "base/time.h"
#include "daemon/daemon.h"

struct endpoints {
    const char *health, *workflowStatus, *sendMessage, *chat, *provisionAgent, *heartbeat,
        *pauseResume, *skillInstallation, *skillExecution, *websocket;
};
static const struct shape_field endpoint_fields[] = {
    FIELD(struct endpoints, health),         FIELD(struct endpoints, workflowStatus),
    FIELD(struct endpoints, sendMessage),    FIELD(struct endpoints, chat),
    FIELD(struct endpoints, provisionAgent), FIELD(struct endpoints, heartbeat),
    FIELD(struct endpoints, pauseResume),    FIELD(struct endpoints, skillInstallation),
    FIELD(struct endpoints, skillExecution), FIELD(struct endpoints, websocket),
};
static const struct shape endpoints_shape =
    SHAPE(struct endpoints, "WelcomeEndpoints", endpoint_fields);

struct welcome {
    const char *service, *version, *description;
    const void *endpoints;
    const char *status, *skillWorkflows, *chela, *docs, *openapi, *health, *timestamp;
};
static const struct shape_field welcome_fields[] = {
    FIELD(struct welcome, service),
    FIELD(struct welcome, version, .doc = "Of the gateway's protocol."),
    FIELD(struct welcome, description),
    FIELD(struct welcome, endpoints, .of = &endpoints_shape),
    FIELD(struct welcome, status),
    FIELD(struct welcome, skillWorkflows),
    FIELD(struct welcome, chela, .doc = "Version of this program."),
    FIELD(struct welcome, docs),
    FIELD(struct welcome, openapi),
    FIELD(struct welcome, health),
    FIELD(struct welcome, timestamp),
};
static const struct shape welcome_shape = SHAPE(struct welcome, "Welcome", welcome_fields);

struct health_out {
    const char *status, *service, *dbos, *timestamp, *workflows;
};
static const struct shape_field health_fields[] = {
    FIELD(struct health_out, status, .doc = "healthy or unhealthy"),
    FIELD(struct health_out, service),
    FIELD(struct health_out, dbos, .doc = "connected or disconnected: the database"),
    FIELD(struct health_out, timestamp),
    FIELD(struct health_out, workflows, .omit = true,
          .doc = "Why none are run; only when they are not."),
};
static const struct shape health_shape = SHAPE(struct health_out, "Health", health_fields);

struct store_out {
    const char *kind;
    bool ok;
};
static const struct shape_field store_fields[] = {
    FIELD(struct store_out, kind),
    FIELD(struct store_out, ok),
};
static const struct shape store_shape = SHAPE(struct store_out, "StoreStatus", store_fields);

struct listeners_out {
    const char *gateway, *socket, *dbos_admin;
};
static const struct shape_field listeners_fields[] = {
    FIELD(struct listeners_out, gateway),
    FIELD(struct listeners_out, socket),
    FIELD(struct listeners_out, dbos_admin, .omit = true),
};
static const struct shape listeners_shape =
    SHAPE(struct listeners_out, "Listeners", listeners_fields);

struct status_out {
    const char *version;
    double uptime_s;
    int64_t pid;
    const char *state_dir;
    const void *store, *listeners;
    const char *workflows;
    int64_t connections, requests, agents, sessions, keys;
    bool auth_required;
};
static const struct shape_field status_fields[] = {
    FIELD(struct status_out, version),
    FIELD(struct status_out, uptime_s, .decimals = 1),
    FIELD(struct status_out, pid),
    FIELD(struct status_out, state_dir),
    FIELD(struct status_out, store, .of = &store_shape),
    FIELD(struct status_out, listeners, .of = &listeners_shape),
    FIELD(struct status_out, workflows, .doc = "working, or why none are run."),
    FIELD(struct status_out, connections),
    FIELD(struct status_out, requests, .doc = "Being answered now, this one included."),
    FIELD(struct status_out, agents),
    FIELD(struct status_out, sessions),
    FIELD(struct status_out, keys),
    FIELD(struct status_out, auth_required),
};
static const struct shape status_shape = SHAPE(struct status_out, "DaemonStatus", status_fields);

static const char *now_text(struct arena *a)
{
    char text[TIME_TEXT];

    time_format_z(wall_us(), text);
    return arena_strdup(a, text);
}

/* The original gateway's object, and where our own documents are. */
static int welcome(struct http_req *req, struct err *e)
{
    const struct daemon *d = req->room;
    struct welcome *out = arena_new(req->arena, struct welcome);
    struct endpoints *endpoints = arena_new(req->arena, struct endpoints);

    *endpoints = (struct endpoints){
        .health = "GET /health",
        .workflowStatus = "GET /workflows/:uuid",
        .sendMessage = "POST /messages",
        .chat = "POST /chat",
        .provisionAgent = "POST /workflows/provision-agent",
        .heartbeat = "POST /workflows/heartbeat",
        .pauseResume = "POST /workflows/pause-resume",
        .skillInstallation = "POST /workflows/skill-installation",
        .skillExecution = "POST /workflows/skill-execution",
        .websocket = arena_printf(req->arena, "%s://localhost%s", d->tls ? "wss" : "ws",
                                  strrchr(d->gateway, ':')),
    };
    *out = (struct welcome){
        .service = "OpenClaw Gateway",
        .version = "1.0.0",
        .description = "Durable workflows and messages for OpenClaw agents",
        .endpoints = endpoints,
        .status = "running",
        .skillWorkflows = "disabled",
        .chela = CHELA_VERSION,
        .docs = "/docs",
        .openapi = "/openapi.json",
        .health = "/health",
        .timestamp = now_text(req->arena),
    };
    req->out = out;
    return 0;
}

static int health(struct http_req *req, struct err *e)
{
    const struct daemon *d = req->room;
    struct health_out *out = arena_new(req->arena, struct health_out);
    const char *trouble = durable_trouble(d->workflows.engine);
    bool up = d->store_up && store_ok(d->store);

    *out = (struct health_out){
        .status = up && !trouble ? "healthy" : "unhealthy",
        .service = "openclaw-gateway",
        .dbos = up ? "connected" : "disconnected",
        .timestamp = now_text(req->arena),
        .workflows = up ? trouble : NULL,
    };
    req->status = up && !trouble ? 200 : 503;
    req->out = out;
    return 0;
}

static int metrics(struct http_req *req, struct err *e)
{
    const struct daemon *d = req->room;
    struct buf text;
    int r;

    bridge_gauges(d->bridge);
    swarm_gauges(d->swarm);
    hub_gauges(d->hub);
    buf_init(&text, 1 * MIB);
    r = metric_print(&text, e);
    if (r == 0)
        http_reply_text(req, 200, "text/plain; version=0.0.4; charset=utf-8",
                        arena_str(req->arena, buf_str(&text)));
    buf_done(&text);
    return r;
}

static int status(struct http_req *req, struct err *e)
{
    const struct daemon *d = req->room;
    struct status_out *out = arena_new(req->arena, struct status_out);
    struct store_out *store = arena_new(req->arena, struct store_out);
    struct listeners_out *listeners = arena_new(req->arena, struct listeners_out);
    const char *trouble = durable_trouble(d->workflows.engine);

    *store = (struct store_out){ .kind = store_kind(d->store), .ok = store_ok(d->store) };
    *listeners = (struct listeners_out){
        .gateway = d->gateway,
        .socket = d->opt.dir->socket,
        .dbos_admin = *d->workflows.address ? d->workflows.address : NULL,
    };
    *out = (struct status_out){
        .version = CHELA_VERSION,
        .uptime_s = (double)(now_ms() - d->started_ms) / 1000.0,
        .pid = getpid(),
        .state_dir = d->opt.dir->path,
        .store = store,
        .listeners = listeners,
        .workflows = trouble ? trouble : "working",
        .connections = http_server_connections(d->server),
        .requests = http_server_requests(d->server),
        .agents = (int64_t)bridge_agent_count(d->bridge),
        .sessions = bridge_session_count(d->bridge),
        .keys = (int64_t)keys_count(d->keys),
        .auth_required = auth_required(&d->auth),
    };
    req->out = out;
    return 0;
}

/* clang-format off */
const struct http_route system_routes[] = {
    { HTTP_M_GET, "/", welcome, .need = NEED_NONE, .out = &welcome_shape, .tag = "system",
      .doc = "What answers here." },
    { HTTP_M_GET, "/health", health, .need = NEED_NONE, .out = &health_shape, .tag = "system",
      .doc = "200 when the daemon, its database and its engine work, else 503." },
    { HTTP_M_GET, "/metrics", metrics, .need = NEED_METRICS | NEED_READ, .tag = "system",
      .doc = "Counters, gauges and latency histograms as Prometheus text." },
    { HTTP_M_GET, "/api/v1/status", status, .need = NEED_READ, .out = &status_shape, .tag = "system",
      .doc = "Version, uptime, store, listeners and counts." },
};
/* clang-format on */
const size_t system_routes_len = LEN(system_routes);
