/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_shapes.c — what the routes of agents are sent and answer, and the table of the routes.
 * The answers are written by life_api.c; their shapes here are for the reference.
 */
#include "swarm/life_api.h"
#include "swarm/monitor.h"

/* clang-format off */
static const struct shape_field heartbeat_fields[] = {
    FIELD(struct heartbeat_in, enabled, .required = true, .coerce = true, .doc = "Has it heartbeats?"),
    FIELD(struct heartbeat_in, interval, .nullable = true, .one_of = life_intervals, .enumeration = true,
          .doc = "Time between two."),
    FIELD(struct heartbeat_in, checklist, .nullable = true, .doc = "Texts that each heartbeat sends to the agent."),
};
static const struct shape heartbeat_shape = SHAPE(struct heartbeat_in, "HeartbeatConfig", heartbeat_fields);

static const struct shape_field create_fields[] = {
    FIELD(struct create_in, name, .required = true, .min = 1, .max = 255, .doc = "The agent's name; its session key is made from it."),
    FIELD(struct create_in, persona, .nullable = true, .doc = "Who it is to be."),
    FIELD(struct create_in, model, .required = true, .min = 1, .max = 255, .doc = "provider/model-name."),
    FIELD(struct create_in, heartbeat, .nullable = true, .of = &heartbeat_shape),
    FIELD(struct create_in, configuration, .nullable = true, .object = true, .doc = "Kept with the agent."),
    FIELD(struct create_in, workspace_id, .nullable = true, .uuid = true),
};
const struct shape life_shape_create = SHAPE(struct create_in, "AgentProvisionRequest", create_fields);

static const struct shape_field settings_fields[] = {
    FIELD(struct settings_in, persona, .nullable = true),
    FIELD(struct settings_in, model, .nullable = true, .min = 1, .max = 255),
    FIELD(struct settings_in, heartbeat, .nullable = true, .of = &heartbeat_shape,
          .doc = "An interval of null takes the interval away; one that is absent stays."),
    FIELD(struct settings_in, configuration, .nullable = true, .object = true),
};
const struct shape life_shape_settings = SHAPE(struct settings_in, "AgentUpdateSettingsRequest", settings_fields);

static const struct shape_field query_fields[] = {
    FIELD(struct list_query, status, .nullable = true, .doc = "Only agents in this state; an unknown one is no filter."),
    FIELD(struct list_query, limit, .def = "50", .min = 1, .max = 200),
    FIELD(struct list_query, offset, .def = "0", .min = 0, .max = -1),
    FIELD(struct list_query, name, .nullable = true),
    FIELD(struct list_query, user_id, .nullable = true),
    FIELD(struct list_query, workspace_id, .nullable = true),
};
const struct shape life_shape_query = SHAPE(struct list_query, "AgentListQuery", query_fields);

static const char *const beat_kinds[] = { "execute", "alive", NULL };
static const struct shape_field beat_fields[] = {
    FIELD(struct beat_in, kind, .nullable = true, .one_of = beat_kinds,
          .doc = "alive: the agent says that it lives, and nothing is recorded. Default: a heartbeat is carried out."),
};
const struct shape life_shape_beat = SHAPE(struct beat_in, "HeartbeatRequest", beat_fields);

static const struct shape_field message_fields[] = {
    FIELD(struct message_in, message, .required = true, .min = 1, .max = 0, .doc = "What to say to the agent."),
};
const struct shape life_shape_message = SHAPE(struct message_in, "AgentMessageRequest", message_fields);

/* --- answers --- */

struct agent_out {
    const char *id, *name, *persona, *model, *user_id, *workspace_id, *status, *openclaw_session_key, *openclaw_agent_id,
        *heartbeat_interval, *last_heartbeat_at, *next_heartbeat_at, *error_message, *created_at, *updated_at,
        *provisioned_at, *paused_at, *stopped_at, *health, *message, *workflow_uuid;
    bool heartbeat_enabled;
    struct shape_strs heartbeat_checklist;
    json_t *configuration;
    int64_t error_count;
};
#define OUT(member, ...) FIELD(struct agent_out, member, .nullable = true, __VA_ARGS__)
#define AGENT_OUT \
    OUT(id), OUT(name), OUT(persona), OUT(model), OUT(user_id), OUT(workspace_id), \
    OUT(status, .one_of = agent_status_names_z), OUT(openclaw_session_key), OUT(openclaw_agent_id), \
    OUT(heartbeat_enabled), OUT(heartbeat_interval), OUT(heartbeat_checklist), OUT(last_heartbeat_at), \
    OUT(next_heartbeat_at), OUT(configuration), OUT(error_message), OUT(error_count), OUT(created_at), \
    OUT(updated_at), OUT(provisioned_at), OUT(paused_at), OUT(stopped_at), \
    OUT(health, .doc = "ok or silent, of an agent that has heartbeats and runs")
static const char *const agent_status_names_z[] = { "provisioning", "running", "paused", "stopped", "failed", NULL };

static const struct shape_field agent_fields[] = { AGENT_OUT };
const struct shape life_shape_out = SHAPE(struct agent_out, "AgentResponse", agent_fields);

static const struct shape_field created_fields[] = { AGENT_OUT, OUT(message), OUT(workflow_uuid) };
const struct shape life_shape_created_out = SHAPE(struct agent_out, "AgentProvisionResponse", created_fields);

struct list_out { struct shape_list agents; int64_t total, limit, offset; };
static const struct shape_field list_fields[] = {
    FIELD(struct list_out, agents, .of = &life_shape_out),
    FIELD(struct list_out, total), FIELD(struct list_out, limit), FIELD(struct list_out, offset),
};
const struct shape life_shape_list_out = SHAPE(struct list_out, "AgentListResponse", list_fields);

struct beat_out {
    const char *id, *agent_id, *status, *started_at, *completed_at, *error_message, *message, *workflow_uuid;
    struct shape_strs checklist_items;
    double duration_seconds;
};
static const struct shape_field beat_out_fields[] = {
    FIELD(struct beat_out, id), FIELD(struct beat_out, agent_id), FIELD(struct beat_out, status),
    FIELD(struct beat_out, checklist_items), FIELD(struct beat_out, started_at), FIELD(struct beat_out, completed_at),
    FIELD(struct beat_out, duration_seconds), FIELD(struct beat_out, error_message), FIELD(struct beat_out, message),
    FIELD(struct beat_out, workflow_uuid),
};
const struct shape life_shape_beat_out = SHAPE(struct beat_out, "HeartbeatExecutionResponse", beat_out_fields);

struct message_out { const char *response, *agent_id, *message_id; };
static const struct shape_field message_out_fields[] = {
    FIELD(struct message_out, response), FIELD(struct message_out, agent_id), FIELD(struct message_out, message_id),
};
const struct shape life_shape_message_out = SHAPE(struct message_out, "AgentMessageResponse", message_out_fields);

#define READS (NEED_READ | NEED_AGENTS)
const struct http_route life_routes[] = {
    { HTTP_M_POST, "/api/v1/agents/provision", agent_api_provision_new, NEED_AGENTS, .in = &life_shape_create,
      .out = &life_shape_created_out, .status = 201, .tag = "agents", .doc = "Create an agent and bring it to life." },
    { HTTP_M_GET, "/api/v1/agents", agent_api_list, READS, .query = &life_shape_query, .out = &life_shape_list_out,
      .tag = "agents", .doc = "List agents, the newest first." },
    { HTTP_M_POST, "/api/v1/agents", agent_api_create, NEED_AGENTS, .in = &life_shape_create, .out = &life_shape_out,
      .status = 201, .tag = "agents", .doc = "The same as provision, without its message." },
    { HTTP_M_GET, "/api/v1/agents/{agent_id}", agent_api_get, READS, .out = &life_shape_out,
      .tag = "agents", .doc = "Show an agent." },
    { HTTP_M_GET, "/api/v1/agents/{agent_id}/workflows", monitor_agent_api, READS, .out = &monitor_agent_shape,
      .tag = "agents", .doc = "The workflows of an agent's operations, and whether it is well." },
    { HTTP_M_DELETE, "/api/v1/agents/{agent_id}", agent_api_delete, NEED_AGENTS, .status = 204,
      .tag = "agents", .doc = "Stop an agent for good; its row stays." },
    { HTTP_M_POST, "/api/v1/agents/{agent_id}/provision", agent_api_provision, NEED_AGENTS, .out = &life_shape_out,
      .tag = "agents", .doc = "Provision an agent that failed; one that runs is answered as it is." },
    { HTTP_M_POST, "/api/v1/agents/{agent_id}/pause", agent_api_pause, NEED_AGENTS, .out = &life_shape_out,
      .tag = "agents", .doc = "Pause an agent; its state is kept as a checkpoint." },
    { HTTP_M_POST, "/api/v1/agents/{agent_id}/resume", agent_api_resume, NEED_AGENTS, .out = &life_shape_out,
      .tag = "agents", .doc = "Resume a paused agent with the state of its checkpoint." },
    { HTTP_M_PATCH, "/api/v1/agents/{agent_id}/settings", agent_api_settings, NEED_AGENTS, .in = &life_shape_settings,
      .out = &life_shape_out, .tag = "agents", .doc = "Change an agent's settings; those of a paused one until it is resumed with its checkpoint's." },
    { HTTP_M_POST, "/api/v1/agents/{agent_id}/heartbeat", agent_api_beat, NEED_AGENTS, .in = &life_shape_beat,
      .out = &life_shape_beat_out, .flags = ROUTE_OPTIONAL, .tag = "agents", .doc = "Carry a heartbeat out, or say that the agent lives." },
    { HTTP_M_POST, "/api/v1/agents/{agent_id}/message", agent_api_message, NEED_AGENTS, .in = &life_shape_message,
      .out = &life_shape_message_out, .tag = "agents", .doc = "Say something to an agent and wait for its reply, if it replies." },
};
/* clang-format on */
const size_t life_routes_len = LEN(life_routes);

void life_table(struct life *l, struct http_table *ret)
{
    *ret = (struct http_table){
        "/api/v1/agents", &dialect_fastapi, life_routes, life_routes_len, l, life_door,
    };
}
