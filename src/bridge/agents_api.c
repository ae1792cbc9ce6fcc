/* SPDX-License-Identifier: MIT */
/* bridge/agents_api.c — routes about agents and their health, and how handlers answer. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bridge/api.h"
#include "bridge/shapes.h"

/* --- answering --- */

int reply_json(struct http_req *req, struct str text)
{
    http_reply_text(req, 0, "application/json", text);
    return 0;
}

static int reply_out(struct http_req *req, struct out *o, int status, struct err *e)
{
    struct str text;
    int r;

    r = out_take(o, req->arena, &text, e);
    if (r < 0)
        return r;
    http_reply_text(req, status, "application/json", text);
    return 0;
}

int reply_detail(struct http_req *req, int status, const char *fmt, ...)
{
    AUTO(out_done) struct out o;
    struct err e;
    va_list ap;
    char *text;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    out_init(&o, SIZE_MAX / 2); /* names in it were bounded by the request's own limits */
    out_z(&o, "{\"detail\":");
    out_str(&o, n < 0 ? STR("") : (struct str){ text, (size_t)n });
    out_z(&o, "}");
    if (n >= 0)
        free(text);
    return reply_out(req, &o, status, &e);
}

int reply_problem(struct http_req *req, const char *where, const char *field, const char *text,
                  struct str input)
{
    AUTO(out_done) struct out o;
    struct err e;
    char *msg = arena_printf(req->arena, "Value error, %s", text);

    out_init(&o, SIZE_MAX / 2);
    out_z(&o, "{\"detail\":[{\"type\":\"value_error\",\"loc\":[");
    out_str(&o, str_of(where));
    out_z(&o, ",");
    out_str(&o, str_of(field));
    out_z(&o, "],\"msg\":");
    out_str(&o, str_of(msg));
    out_z(&o, ",\"input\":");
    out_str(&o, input);
    out_z(&o, "}]}");
    return reply_out(req, &o, 422, &e);
}

static int reply_no_agent(struct http_req *req)
{
    return reply_detail(req, 404, "Agent '%s' not found", req->args[0].p);
}

/* --- registering --- */

static int refuse_protocol(struct http_req *req, const char *protocol)
{
    if (strcmp(protocol, "grpc") == 0)
        return reply_detail(req, 400, "Invalid protocol: 'grpc' is not supported");
    return reply_detail(req, 400, "Invalid protocol: '%s' is not a valid VPSProtocol", protocol);
}

CO int api_register(struct http_req *req, struct err *e)
{
    const struct register_in *in = req->in;
    struct agent_problem problem = { 0 };
    struct agent_entry *entry;
    struct register_out *out;
    struct agent_spec spec;
    int r;

    if (strcmp(in->protocol, "http") != 0 && strcmp(in->protocol, "https") != 0)
        return refuse_protocol(req, in->protocol);
    register_spec(in, req->arena, &spec);
    r = bridge_register(req->room, &spec, &entry, &problem, e);
    if (r == -ERR_INVALID && problem.field)
        return reply_problem(req, "body", problem.field, problem.text,
                             strcmp(problem.field, "host") == 0 ? spec.host : (struct str){ 0 });
    if (r == -ERR_LIMIT)
        return reply_detail(req, 409, "Too many agents: %s", e->msg);
    if (r < 0)
        return r;
    out = arena_new(req->arena, struct register_out);
    out->status = "registered";
    out->agent_name = in->name;
    out->url = arena_strdup(req->arena, entry->agent->url);
    req->out = out;
    return 0;
}

/* --- listing --- */

static void write_agent(const struct agent *a, struct out *o)
{
    out_z(o, "\"name\":");
    out_str(o, str_of(a->name));
    out_z(o, ",\"host\":");
    out_str(o, str_of(a->host));
    out_z(o, ",\"port\":");
    out_int(o, a->port);
    out_z(o, a->tls ? ",\"protocol\":\"https\",\"url\":" : ",\"protocol\":\"http\",\"url\":");
    out_str(o, str_of(a->url));
}

CO int api_agents(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    AUTO(out_done) struct out o;
    size_t n = 0;

    out_init(&o, SIZE_MAX / 2); /* bounded by bridge.agents_max */
    out_z(&o, "{\"total\":");
    out_int(&o, (long long)b->agents.map.n);
    out_z(&o, ",\"agents\":[");
    for (const struct agent_entry *entry = b->agents.first; entry; entry = entry->next) {
        out_comma(&o, n++);
        out_z(&o, "{");
        write_agent(entry->agent, &o);
        out_z(&o, "}");
    }
    out_z(&o, "]}");
    return reply_out(req, &o, 0, e);
}

CO int api_agent(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    const struct agent_entry *entry = agents_find(&b->agents, req->args[0]);
    AUTO(out_done) struct out o;
    const struct agent *a;

    out_init(&o, SIZE_MAX / 2);
    if (!entry)
        return reply_no_agent(req);
    a = entry->agent;
    out_z(&o, "{");
    write_agent(a, &o);
    out_z(&o, ",\"timeout_seconds\":");
    out_int(&o, (a->timeout_ms + 999) / 1000);
    out_z(&o, ",\"max_retries\":");
    out_int(&o, a->max_retries);
    out_z(&o, ",\"fallback_agents\":[");
    for (size_t i = 0; i < a->n_fallbacks; i++) {
        out_comma(&o, i);
        out_str(&o, str_of(a->fallbacks[i]));
    }
    out_z(&o, "],\"api\":");
    out_str(&o, str_of(adapters[a->api].name));
    out_z(&o, a->context ? ",\"context\":\"session\"" : ",\"context\":\"none\"");
    out_z(&o, ",\"has_token\":");
    out_bool(&o, a->token != NULL);
    out_z(&o, "}");
    return reply_out(req, &o, 0, e);
}

CO int api_agent_delete(struct http_req *req, struct err *e)
{
    int r;

    r = bridge_unregister(req->room, req->args[0], e);
    return r == -ERR_NOT_FOUND ? reply_no_agent(req) : r;
}

/* --- health --- */

CO int api_health(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    struct summary_out *out = arena_new(req->arena, struct summary_out);
    struct tracker_summary s;

    tracker_sum(&b->tracker, &s);
    *out = (struct summary_out){
        .total_agents = s.total,
        .healthy_agents = s.status[HEALTH_HEALTHY],
        .unhealthy_agents = s.status[HEALTH_UNHEALTHY] + s.status[HEALTH_UNREACHABLE],
        .degraded_agents = s.status[HEALTH_DEGRADED],
        .error_rate = s.requests ? 100.0 * (double)s.failures / (double)s.requests : 0,
        .unreachable_agents = s.status[HEALTH_UNREACHABLE],
    };
    req->out = out;
    return 0;
}

static int reply_health(struct http_req *req)
{
    const struct bridge *b = req->room;
    const struct agent_entry *entry = agents_find(&b->agents, req->args[0]);
    struct health_out *out = arena_new(req->arena, struct health_out);
    const struct health *h;

    if (!entry)
        return reply_no_agent(req);
    h = &entry->tracked->health;
    *out = (struct health_out){
        .agent_name = req->args[0].p,
        .status = health_status_name(h->status),
        .success_rate = health_rate(h),
        .total_requests = h->requests,
        .total_failures = h->failures,
        .consecutive_failures = h->consecutive,
    };
    req->out = out;
    return 0;
}

CO int api_agent_health(struct http_req *req, struct err *e)
{
    return reply_health(req);
}

CO int api_health_reset(struct http_req *req, struct err *e)
{
    int r;

    r = bridge_health_reset(req->room, req->args[0], e);
    if (r < 0 && r != -ERR_NOT_FOUND)
        return r;
    return reply_health(req);
}

CO int api_status(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    struct status_out *out = arena_new(req->arena, struct status_out);
    struct tracker_summary s;

    tracker_sum(&b->tracker, &s);
    *out = (struct status_out){
        .status = s.status[HEALTH_HEALTHY] ? "operational" : "degraded",
        .agents = s.total,
        .healthy_agents = s.status[HEALTH_HEALTHY],
        .unhealthy_agents = s.status[HEALTH_UNHEALTHY] + s.status[HEALTH_UNREACHABLE],
        .sessions = b->n_sessions,
    };
    req->out = out;
    return 0;
}

CO int api_tracker(struct http_req *req, struct err *e)
{
    const struct bridge *b = req->room;
    AUTO(out_done) struct out o;

    out_init(&o, SIZE_MAX / 2); /* bounded by bridge.agents_max */
    tracker_write_all(&b->tracker, wall_us(), &o);
    return reply_out(req, &o, 0, e);
}
