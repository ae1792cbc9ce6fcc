/* SPDX-License-Identifier: MIT */
/* hub/api.h — routes of the HTTP port that belong to no other part: /health, /metrics, /agents…,
 * /admin…. The room is the struct hub. */
#pragma once

#include "hub/hub_int.h"

extern const struct http_route api_routes[];
extern const size_t api_routes_len;
