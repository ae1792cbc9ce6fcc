/* SPDX-License-Identifier: MIT */
/* bridge/shapes.c — see shapes.h. */
#include "bridge/shapes.h"

#include <limits.h>

/* clang-format off */
static const struct shape_field call_in_fields[] = {
    FIELD(struct call_in, agent_name, .required = true, .doc = "Registered name of the agent to ask first."),
    FIELD(struct call_in, prompt,     .required = true, .doc = "What to ask."),
    FIELD(struct call_in, session_id, .nullable = true, .max = 512, .doc = "Conversation that question and answer are recorded in; made when new."),
    FIELD(struct call_in, user_id,    .nullable = true, .max = 512, .doc = "Owner of the session; another one's is refused."),
    FIELD(struct call_in, metadata,   .nullable = true, .object = true, .doc = "Merged into the session's at the top level."),
    FIELD(struct call_in, stream,     .nullable = true, .doc = "Answer as server-sent events: delta, ..., result."),
};
const struct shape shape_call_in = SHAPE(struct call_in, "CallRequest", call_in_fields);

static const char *const apis[] = { "messages", "openai", "responses", NULL };
static const char *const contexts[] = { "none", "session", NULL };

static const struct shape_field register_in_fields[] = {
    FIELD(struct register_in, name,            .required = true, .min = 1, .max = AGENT_NAME_MAX, .doc = "Name of the agent; sent to it as model."),
    FIELD(struct register_in, host,            .required = true, .min = 1, .max = 255, .doc = "Host name, IPv4 or IPv6 address."),
    FIELD(struct register_in, port,            .required = true, .coerce = true, .min = 1, .max = 65535),
    FIELD(struct register_in, protocol,        .def = "\"http\"", .doc = "http or https."),
    FIELD(struct register_in, auth_token,      .nullable = true, .secret = true, .max = 8192, .doc = "Sent to the agent as Authorization: Bearer."),
    FIELD(struct register_in, timeout_seconds, .coerce = true, .min = 1, .max = 3600, .doc = "Deadline of one attempt; the setting bridge.timeout (30) without it."),
    FIELD(struct register_in, max_retries,     .coerce = true, .min = 1, .max = 10, .doc = "Attempts in all; the setting bridge.retries (3) without it."),
    FIELD(struct register_in, fallback_agents, .def = "[]", .max = AGENT_FALLBACKS_MAX, .doc = "Agents to ask next when this one fails, in order."),
    FIELD(struct register_in, api,             .def = "\"messages\"", .one_of = apis, .doc = "How to talk to it: /v1/messages, /v1/chat/completions or /v1/responses."),
    FIELD(struct register_in, context,         .def = "\"none\"", .one_of = contexts, .doc = "session: earlier messages of the session are sent along."),
};
const struct shape shape_register_in = SHAPE(struct register_in, "AgentRegistration", register_in_fields);

static const struct shape_field register_out_fields[] = {
    FIELD(struct register_out, status), FIELD(struct register_out, agent_name), FIELD(struct register_out, url),
};
const struct shape shape_register_out = SHAPE(struct register_out, "Registered", register_out_fields);

static const struct shape_field health_out_fields[] = {
    FIELD(struct health_out, agent_name),
    FIELD(struct health_out, status,       .doc = "healthy, degraded, unhealthy or unreachable."),
    FIELD(struct health_out, success_rate, .decimals = 2, .doc = "Per cent over the agent's whole life."),
    FIELD(struct health_out, total_requests),
    FIELD(struct health_out, total_failures),
    FIELD(struct health_out, consecutive_failures),
};
const struct shape shape_health_out = SHAPE(struct health_out, "AgentHealth", health_out_fields);

static const struct shape_field summary_out_fields[] = {
    FIELD(struct summary_out, total_agents),
    FIELD(struct summary_out, healthy_agents),
    FIELD(struct summary_out, unhealthy_agents, .doc = "Unhealthy and unreachable ones."),
    FIELD(struct summary_out, degraded_agents),
    FIELD(struct summary_out, error_rate, .decimals = 2, .doc = "Failures per cent of requests."),
    FIELD(struct summary_out, unreachable_agents),
};
const struct shape shape_summary_out = SHAPE(struct summary_out, "HealthSummary", summary_out_fields);

static const struct shape_field status_out_fields[] = {
    FIELD(struct status_out, status, .doc = "operational when at least one agent is healthy, else degraded."),
    FIELD(struct status_out, agents), FIELD(struct status_out, healthy_agents),
    FIELD(struct status_out, unhealthy_agents), FIELD(struct status_out, sessions),
};
const struct shape shape_status_out = SHAPE(struct status_out, "BridgeStatus", status_out_fields);

static const struct shape_field cleanup_query_fields[] = {
    FIELD(struct cleanup_query, max_age_hours, .coerce = true, .def = "24", .min = 0, .max = LLONG_MAX, .doc = "Sessions idle longer are removed; 0: all idle ones."),
};
const struct shape shape_cleanup_query = SHAPE(struct cleanup_query, "CleanupQuery", cleanup_query_fields);

static const struct shape_field cleanup_out_fields[] = {
    FIELD(struct cleanup_out, cleaned_up), FIELD(struct cleanup_out, remaining_sessions),
};
const struct shape shape_cleanup_out = SHAPE(struct cleanup_out, "CleanedUp", cleanup_out_fields);

static const struct shape_field list_query_fields[] = {
    FIELD(struct list_query, limit, .coerce = true, .def = "100", .min = 1, .max = 1000),
    FIELD(struct list_query, after, .doc = "The last session_id of the page before."),
};
const struct shape shape_list_query = SHAPE(struct list_query, "SessionListQuery", list_query_fields);

static const struct shape_field stats_out_fields[] = {
    FIELD(struct stats_out, total_sessions), FIELD(struct stats_out, total_messages),
    FIELD(struct stats_out, active_calls), FIELD(struct stats_out, oldest_activity),
    FIELD(struct stats_out, newest_activity),
};
const struct shape shape_stats_out = SHAPE(struct stats_out, "SessionStats", stats_out_fields);

static const struct shape_field import_out_fields[] = { FIELD(struct import_out, imported) };
const struct shape shape_import_out = SHAPE(struct import_out, "Imported", import_out_fields);

/* --- written by hand, described here --- */

struct attempt_doc { const char *agent; int64_t attempt; const char *error_type; int64_t status; double latency_ms; };
static const struct shape_field attempt_fields[] = {
    FIELD(struct attempt_doc, agent), FIELD(struct attempt_doc, attempt), FIELD(struct attempt_doc, error_type),
    FIELD(struct attempt_doc, status), FIELD(struct attempt_doc, latency_ms, .decimals = 2),
};
static const struct shape shape_attempt = SHAPE(struct attempt_doc, "Attempt", attempt_fields);

struct call_doc {
    bool success; const char *agent_name, *response, *error; struct shape_strs fallback_chain; double latency_ms;
    bool retried; int64_t retry_count; const char *error_type; struct shape_list attempts;
};
static const struct shape_field call_out_fields[] = {
    FIELD(struct call_doc, success),
    FIELD(struct call_doc, agent_name, .doc = "Who answered; after a failure, who was asked for."),
    FIELD(struct call_doc, response), FIELD(struct call_doc, error),
    FIELD(struct call_doc, fallback_chain, .doc = "As planned, whether or not each was tried."),
    FIELD(struct call_doc, latency_ms, .decimals = 2),
    FIELD(struct call_doc, retried, .doc = "An agent failed and the next one was asked."),
    FIELD(struct call_doc, retry_count, .doc = "Place in the chain of the agent that gave the result."),
    FIELD(struct call_doc, error_type, .doc = "timeout, rate_limit, network, auth, model_error, internal or unknown."),
    FIELD(struct call_doc, attempts, .of = &shape_attempt),
};
const struct shape shape_call_out = SHAPE(struct call_doc, "CallResult", call_out_fields);

struct listed_doc { const char *name, *host; int64_t port; const char *protocol, *url; };
static const struct shape_field listed_fields[] = {
    FIELD(struct listed_doc, name), FIELD(struct listed_doc, host), FIELD(struct listed_doc, port),
    FIELD(struct listed_doc, protocol), FIELD(struct listed_doc, url),
};
static const struct shape shape_listed = SHAPE(struct listed_doc, "ListedAgent", listed_fields);

struct agents_doc { int64_t total; struct shape_list agents; };
static const struct shape_field agents_fields[] = {
    FIELD(struct agents_doc, total), FIELD(struct agents_doc, agents, .of = &shape_listed),
};
const struct shape shape_agents_out = SHAPE(struct agents_doc, "Agents", agents_fields);

struct agent_doc {
    const char *name, *host; int64_t port; const char *protocol, *url; int64_t timeout_seconds, max_retries;
    struct shape_strs fallback_agents; const char *api, *context; bool has_token;
};
static const struct shape_field agent_fields[] = {
    FIELD(struct agent_doc, name), FIELD(struct agent_doc, host), FIELD(struct agent_doc, port),
    FIELD(struct agent_doc, protocol), FIELD(struct agent_doc, url), FIELD(struct agent_doc, timeout_seconds),
    FIELD(struct agent_doc, max_retries), FIELD(struct agent_doc, fallback_agents), FIELD(struct agent_doc, api),
    FIELD(struct agent_doc, context), FIELD(struct agent_doc, has_token),
};
const struct shape shape_agent_out = SHAPE(struct agent_doc, "Agent", agent_fields);

struct message_doc { const char *timestamp, *role, *content, *agent; bool interrupted; };
static const struct shape_field message_fields[] = {
    FIELD(struct message_doc, timestamp), FIELD(struct message_doc, role), FIELD(struct message_doc, content),
    FIELD(struct message_doc, agent),
    FIELD(struct message_doc, interrupted, .omit = true, .doc = "Only there when true: no turn came to an end for this question."),
};
static const struct shape shape_message = SHAPE(struct message_doc, "Message", message_fields);

struct session_doc {
    const char *session_id, *user_id, *created_at, *last_activity; struct shape_list messages; json_t *metadata;
};
static const struct shape_field session_fields[] = {
    FIELD(struct session_doc, session_id), FIELD(struct session_doc, user_id),
    FIELD(struct session_doc, created_at, .doc = "UTC, ISO 8601 without a zone."), FIELD(struct session_doc, last_activity),
    FIELD(struct session_doc, messages, .of = &shape_message), FIELD(struct session_doc, metadata, .object = true),
};
const struct shape shape_session_out = SHAPE(struct session_doc, "Session", session_fields);

struct listed_session_doc { const char *session_id, *user_id, *created_at, *last_activity; int64_t messages; };
static const struct shape_field listed_session_fields[] = {
    FIELD(struct listed_session_doc, session_id), FIELD(struct listed_session_doc, user_id),
    FIELD(struct listed_session_doc, created_at), FIELD(struct listed_session_doc, last_activity),
    FIELD(struct listed_session_doc, messages),
};
static const struct shape shape_listed_session = SHAPE(struct listed_session_doc, "ListedSession", listed_session_fields);

struct session_list_doc { struct shape_list sessions; };
static const struct shape_field session_list_fields[] = {
    FIELD(struct session_list_doc, sessions, .of = &shape_listed_session),
};
const struct shape shape_session_list_out = SHAPE(struct session_list_doc, "Sessions", session_list_fields);

struct tracker_doc { json_t *health_summary, *agent_statuses, *error_metrics; const char *timestamp; };
static const struct shape_field tracker_fields[] = {
    FIELD(struct tracker_doc, health_summary, .object = true), FIELD(struct tracker_doc, agent_statuses, .object = true),
    FIELD(struct tracker_doc, error_metrics, .object = true), FIELD(struct tracker_doc, timestamp),
};
const struct shape shape_tracker_out = SHAPE(struct tracker_doc, "ErrorSummary", tracker_fields);
/* clang-format on */

void register_spec(const struct register_in *in, struct arena *a, struct agent_spec *ret)
{
    struct str *names = arena_alloc(a, (in->fallback_agents.n + 1) * sizeof(*names));

    for (size_t i = 0; i < in->fallback_agents.n; i++)
        names[i] = str_of(in->fallback_agents.v[i]);
    *ret = (struct agent_spec){
        .name = str_of(in->name),
        .host = str_of(in->host),
        .protocol = str_of(in->protocol),
        .port = in->port,
        .auth_token = str_of(in->auth_token),
        .timeout_ms = in->timeout_seconds * 1000,
        .max_retries = in->max_retries,
        .fallbacks = names,
        .n_fallbacks = in->fallback_agents.n,
        .api = agent_api_of(str_of(in->api)),
        .context = str_eq_z(str_of(in->context), "session"),
    };
}
