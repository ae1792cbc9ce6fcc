/* SPDX-License-Identifier: MIT */
/* swarm/life_api.h — bodies of the routes of agents (life_shapes.c) and their handlers. */
#pragma once

#include "swarm/life_int.h"

struct heartbeat_in {
    bool enabled;
    const char *interval;
    json_t *checklist;
};
struct create_in {
    const char *name, *model, *persona;
    const void *heartbeat; /* struct heartbeat_in */
    json_t *configuration;
    const char *workspace_id;
};
struct settings_in {
    const char *persona, *model;
    const void *heartbeat;
    json_t *configuration;
};
struct list_query {
    const char *status, *name, *user_id, *workspace_id;
    int64_t limit, offset;
};
struct beat_in {
    const char *kind; /* "alive": say that the agent lives, write nothing */
};
struct message_in {
    const char *message;
};
extern const struct shape life_shape_create, life_shape_settings, life_shape_query, life_shape_beat,
    life_shape_message, life_shape_out, life_shape_list_out, life_shape_created_out,
    life_shape_beat_out, life_shape_message_out;

CO int agent_api_list(struct http_req *req, struct err *e);
CO int agent_api_create(struct http_req *req, struct err *e);
CO int agent_api_provision_new(struct http_req *req, struct err *e);
CO int agent_api_get(struct http_req *req, struct err *e);
CO int agent_api_provision(struct http_req *req, struct err *e);
CO int agent_api_pause(struct http_req *req, struct err *e);
CO int agent_api_resume(struct http_req *req, struct err *e);
CO int agent_api_settings(struct http_req *req, struct err *e);
CO int agent_api_delete(struct http_req *req, struct err *e);
CO int agent_api_beat(struct http_req *req, struct err *e);
CO int agent_api_message(struct http_req *req, struct err *e);

/* The agent of the path, if the caller may have it. */
CO int agent_api_find(struct http_req *req, struct agent_info *ret, struct err *e) MUST_CHECK;

/* An error as these routes tell it: the engine's absence has a text of its own. */
int agent_api_error(int r, struct err *e);

/* AgentResponse; a new reference. */
json_t *agent_json(struct http_req *req, const struct agent_info *row);
/* Answer with a document, which is consumed. */
int agent_api_reply(struct http_req *req, int status, json_t *doc, struct err *e);
