/* SPDX-License-Identifier: MIT */
/* bridge/shapes.h — the bodies and queries of the bridge's routes; see shapes.c for their rows. */
#pragma once

#include "base/shape.h"
#include "bridge/agent.h"

struct call_in {
    const char *agent_name, *prompt, *session_id, *user_id;
    json_t *metadata;
    bool stream;
};

struct register_in {
    const char *name, *host, *protocol, *auth_token, *api, *context;
    int64_t port, timeout_seconds, max_retries; /* the last two: 0 when absent */
    struct shape_strs fallback_agents;
};

/* As the registry wants it; names and lists stay borrowed from in, the list is the arena's. */
void register_spec(const struct register_in *in, struct arena *a, struct agent_spec *ret);

struct register_out {
    const char *status, *agent_name, *url;
};

struct health_out {
    const char *agent_name, *status;
    double success_rate;
    int64_t total_requests, total_failures, consecutive_failures;
};

struct summary_out {
    int64_t total_agents, healthy_agents, unhealthy_agents, degraded_agents;
    double error_rate;
    int64_t unreachable_agents;
};

struct status_out {
    const char *status;
    int64_t agents, healthy_agents, unhealthy_agents, sessions;
};

struct cleanup_query {
    int64_t max_age_hours;
};

struct cleanup_out {
    int64_t cleaned_up, remaining_sessions;
};

struct list_query {
    int64_t limit;
    const char *after;
};

struct stats_out {
    int64_t total_sessions, total_messages, active_calls;
    const char *oldest_activity, *newest_activity;
};

struct import_out {
    int64_t imported;
};

extern const struct shape shape_call_in, shape_register_in, shape_register_out, shape_health_out,
    shape_summary_out, shape_status_out, shape_cleanup_query, shape_cleanup_out, shape_list_query,
    shape_stats_out, shape_import_out;

/* Written by hand for speed or for their form; these describe them in OpenAPI. */
extern const struct shape shape_call_out, shape_agents_out, shape_agent_out, shape_session_out,
    shape_session_list_out, shape_tracker_out;
