/* SPDX-License-Identifier: MIT */
/*
 * swarm/notify_api.c — GET /api/v1/openclaw/status: the original's fields, those without a value
 * left out, and true also when nothing is connected.
 */
#include "swarm/notify_int.h"

struct command_out {
    const char *command, *session_key, *message, *timestamp, *status;
};

struct status_query {
    bool include_history;
};

struct status_out {
    bool connected;
    const char *connection_state, *gateway_url, *whatsapp_session, *gateway_version, *last_error;
    int64_t uptime_seconds;
    json_t *protocol;
    const void *last_command;
    struct shape_list command_history;
};

/* clang-format off */
static const struct shape_field command_fields[] = {
    FIELD(struct command_out, command, .doc = "Such as send_message."),
    FIELD(struct command_out, session_key, .omit = true), FIELD(struct command_out, message, .omit = true),
    FIELD(struct command_out, timestamp), FIELD(struct command_out, status, .doc = "success, failed or pending."),
};
static const struct shape shape_command = SHAPE(struct command_out, "OpenClawCommand", command_fields);

static const struct shape_field query_fields[] = {
    FIELD(struct status_query, include_history, .coerce = true, .def = "false", .doc = "Also the last commands, newest first."),
};
static const struct shape shape_query = SHAPE(struct status_query, "OpenClawStatusQuery", query_fields);

static const struct shape_field status_fields[] = {
    FIELD(struct status_out, connected),
    FIELD(struct status_out, connection_state, .doc = "disconnected, connecting, connected, reconnecting or failed."),
    FIELD(struct status_out, gateway_url, .doc = "Empty: none is set."),
    FIELD(struct status_out, whatsapp_session, .omit = true, .doc = "Where notifications go."),
    FIELD(struct status_out, uptime_seconds, .doc = "Of the connection; 0 without one."),
    FIELD(struct status_out, last_command, .of = &shape_command, .omit = true),
    FIELD(struct status_out, command_history, .of = &shape_command, .omit = true),
    FIELD(struct status_out, gateway_version, .omit = true), FIELD(struct status_out, protocol, .omit = true),
    FIELD(struct status_out, last_error, .omit = true, .doc = "Why it is not connected."),
};
static const struct shape shape_status = SHAPE(struct status_out, "OpenClawStatus", status_fields);
/* clang-format on */

static const char *text_or_null(const char *text, struct arena *a)
{
    return text && *text ? arena_strdup(a, text) : NULL;
}

static const struct command_out *command_of(const struct oc_command *c, struct arena *a)
{
    struct command_out *out = arena_new(a, struct command_out);

    out->command = c->command;
    out->session_key = text_or_null(c->session, a);
    out->message = text_or_null(c->message, a);
    out->timestamp = time_python(c->at_ms, a);
    out->status = c->status;
    return out;
}

static void fill_history(const struct oc_status *status, bool all, struct arena *a,
                         struct status_out *out)
{
    size_t n = all ? status->n_history : 0;

    if (status->n_history)
        out->last_command = command_of(&status->history[0], a);
    if (!all)
        return;
    out->command_history.v = arena_alloc(a, (n + 1) * sizeof(*out->command_history.v));
    out->command_history.n = n;
    for (size_t i = 0; i < n; i++)
        out->command_history.v[i] = command_of(&status->history[i], a);
}

static void drop_json(void *json)
{
    json_decref(json);
}

/* We are the gateway that the setting names, or there is none. */
static void fill_without_client(const struct notify *n, struct status_out *out)
{
    out->connected = n->self;
    out->connection_state = oc_state_name(n->self ? OC_CONNECTED : OC_DISCONNECTED);
    out->gateway_url = n->s->settings->openclaw_url;
    out->uptime_seconds = n->self ? (int64_t)(now_ms() - n->started_ms) / 1000 : 0;
}

static void fill(const struct oc_status *status, struct arena *a, struct status_out *out)
{
    out->connected = status->state == OC_CONNECTED;
    out->connection_state = oc_state_name(status->state);
    out->gateway_url = arena_strdup(a, status->url);
    out->uptime_seconds = (int64_t)status->connected_ms / 1000;
    out->gateway_version = text_or_null(status->version, a);
    out->last_error = text_or_null(status->last_error, a);
    if (status->protocol) {
        out->protocol = json_integer(status->protocol);
        arena_on_free(a, drop_json, out->protocol);
    }
}

static CO int get_status(struct http_req *req, struct err *e)
{
    const struct notify *n = req->room;
    const struct status_query *query = req->query;
    struct status_out *out = arena_new(req->arena, struct status_out);
    struct oc_status *status = arena_new(req->arena, struct oc_status);

    (void)e;
    if (n->client) {
        oc_status(n->client, status);
        fill(status, req->arena, out);
    } else {
        fill_without_client(n, out);
    }
    fill_history(status, query->include_history, req->arena, out);
    out->whatsapp_session = text_or_null(n->s->settings->notify_session, req->arena);
    req->out = out;
    return 0;
}

const struct http_route notify_routes[] = {
    { HTTP_M_GET, "/api/v1/openclaw/status", get_status, NEED_READ | NEED_AGENTS,
      .query = &shape_query, .out = &shape_status, .tag = "openclaw",
      .doc = "The connection to the OpenClaw gateway." },
};
const size_t notify_routes_len = LEN(notify_routes);
