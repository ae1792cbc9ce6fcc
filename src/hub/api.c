/* SPDX-License-Identifier: MIT */
/* hub/api.c — see api.h. */
#include "hub/api.h"

#include "hub/agents.h"

const struct http_dialect dialect_hub = { .name = "hub" };
const struct http_dialect dialect_agents = { .name = "agents" };

const struct http_route api_routes[] = {};
const size_t api_routes_len = 0;
