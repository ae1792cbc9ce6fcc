/* SPDX-License-Identifier: MIT */
/* bridge/metrics.c — the rows of the bridge on GET /metrics. */
#include "bridge/metrics.h"

#include "bridge/bridge.h"

struct metric bridge_m_calls = {
    .name = "chela_bridge_calls_total",
    .kind = METRIC_COUNTER,
    .help = "Calls by outcome; aborted: the caller left, or the store was away.",
    .label = "outcome",
    .values = { "success", "failure", "aborted" },
};
struct metric bridge_m_attempts = {
    .name = "chela_bridge_attempts_total",
    .kind = METRIC_COUNTER,
    .help = "Requests to agents by what came of them.",
    .label = "result",
    .values = { "timeout", "rate_limit", "network", "auth", "model_error", "internal", "unknown",
                "ok" },
};
struct metric bridge_m_call_time = {
    .name = "chela_bridge_call_seconds",
    .kind = METRIC_HISTOGRAM,
    .help = "Time of calls with attempts, waits and fallbacks.",
};
struct metric bridge_m_agents = {
    .name = "chela_bridge_agents",
    .kind = METRIC_GAUGE,
    .help = "Registered agents by health.",
    .label = "status",
    .values = { "healthy", "degraded", "unhealthy", "unreachable" },
};
struct metric bridge_m_sessions = {
    .name = "chela_bridge_sessions",
    .kind = METRIC_GAUGE,
    .help = "Stored sessions.",
};
struct metric bridge_m_running = {
    .name = "chela_bridge_calls_running",
    .kind = METRIC_GAUGE,
    .help = "Calls under way.",
};
struct metric bridge_m_swept = {
    .name = "chela_bridge_sessions_removed_total",
    .kind = METRIC_COUNTER,
    .help = "Sessions removed for their age or over the bound.",
};

struct metric *const bridge_metrics[] = {
    &bridge_m_calls,    &bridge_m_attempts, &bridge_m_call_time, &bridge_m_agents,
    &bridge_m_sessions, &bridge_m_running,  &bridge_m_swept,
};
const size_t bridge_metrics_len = LEN(bridge_metrics);
