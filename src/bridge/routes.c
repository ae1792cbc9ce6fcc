/* SPDX-License-Identifier: MIT */
/* bridge/routes.c — the bridge's routes: the original's nine under /api/vps, and ours. */
#include "bridge/api.h"
#include "bridge/shapes.h"

#define READS (NEED_READ | NEED_BRIDGE)

/* clang-format off */
static const struct http_route vps_routes[] = {
    { HTTP_M_POST, "/api/vps/call", api_call, NEED_BRIDGE, .in = &shape_call_in, .out = &shape_call_out,
      .flags = ROUTE_STREAM, .tag = "vps", .doc = "Call an agent, with retries and its fallback chain." },
    { HTTP_M_POST, "/api/vps/register", api_register, NEED_BRIDGE, .in = &shape_register_in, .out = &shape_register_out,
      .status = 201, .tag = "vps", .doc = "Register or replace an agent." },
    { HTTP_M_GET, "/api/vps/agents", api_agents, READS, .out = &shape_agents_out,
      .tag = "vps", .doc = "List the agents." },
    { HTTP_M_GET, "/api/vps/agents/{name}", api_agent, READS, .out = &shape_agent_out,
      .flags = ROUTE_SLASH, .tag = "vps", .doc = "Show an agent." },
    { HTTP_M_DELETE, "/api/vps/agents/{name}", api_agent_delete, NEED_BRIDGE, .status = 204,
      .flags = ROUTE_SLASH, .tag = "vps", .doc = "Remove an agent and its health." },
    { HTTP_M_GET, "/api/vps/health", api_health, READS, .out = &shape_summary_out,
      .tag = "vps", .doc = "Health of all agents in numbers." },
    { HTTP_M_GET, "/api/vps/health/{agent_name}", api_agent_health, READS, .out = &shape_health_out,
      .flags = ROUTE_SLASH, .tag = "vps", .doc = "Health of an agent." },
    { HTTP_M_POST, "/api/vps/health/{agent_name}/reset", api_health_reset, NEED_BRIDGE, .out = &shape_health_out,
      .tag = "vps", .doc = "Make an agent's health that of a new one." },
    { HTTP_M_GET, "/api/vps/sessions", api_sessions, READS, .query = &shape_list_query, .out = &shape_session_list_out,
      .tag = "vps", .doc = "List sessions in order of their ids." },
    { HTTP_M_GET, "/api/vps/sessions/stats", api_session_stats, READS, .out = &shape_stats_out,
      .tag = "vps", .doc = "Sessions in numbers." },
    { HTTP_M_GET, "/api/vps/sessions/{session_id}", api_session, READS, .out = &shape_session_out,
      .flags = ROUTE_SLASH, .tag = "vps", .doc = "A session with its messages." },
    { HTTP_M_DELETE, "/api/vps/sessions/{session_id}", api_session_delete, NEED_BRIDGE, .status = 204,
      .flags = ROUTE_SLASH, .tag = "vps", .doc = "Delete a session." },
    { HTTP_M_POST, "/api/vps/sessions/cleanup", api_cleanup, NEED_BRIDGE, .query = &shape_cleanup_query, .out = &shape_cleanup_out,
      .tag = "vps", .doc = "Remove sessions that have been idle for long." },
    { HTTP_M_GET, "/api/vps/status", api_status, READS, .out = &shape_status_out,
      .tag = "vps", .doc = "State of the bridge." },
};

static const struct http_route health_routes[] = {
    { HTTP_M_GET, "/api/health/agents", api_tracker, READS, .out = &shape_tracker_out,
      .tag = "health", .doc = "Health records of all agents and errors by class." },
    { HTTP_M_GET, "/api/health/summary", api_tracker, READS, .out = &shape_tracker_out,
      .tag = "health", .doc = "The same." },
};

static const struct http_route session_routes[] = {
    { HTTP_M_GET, "/api/v1/sessions/export", api_export, READS,
      .flags = ROUTE_STREAM, .tag = "sessions", .doc = "All sessions as a file that can be imported." },
    { HTTP_M_POST, "/api/v1/sessions/import", api_import, NEED_BRIDGE, .out = &shape_import_out,
      .max_body = 64 * MIB, .tag = "sessions", .doc = "Take in the sessions of such a file, all or none." },
};
/* clang-format on */

void bridge_tables(struct bridge *b, struct http_table out[BRIDGE_TABLES])
{
    out[0] = (struct http_table){ "/api/vps", &dialect_fastapi, vps_routes, LEN(vps_routes), b };
    out[1] = (struct http_table){ "/api/health", &dialect_fastapi, health_routes,
                                  LEN(health_routes), b };
    out[2] = (struct http_table){ "/api/v1/sessions", &dialect_plain, session_routes,
                                  LEN(session_routes), b };
}
