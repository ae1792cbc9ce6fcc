/* SPDX-License-Identifier: MIT */
/*
 * hub/dead.h — dead letters as operators see them; the table is hub_dead. What becomes one is
 * written by dead_add() and dead_later() of link.h.
 */
#pragma once

#include "hub/hub_int.h"

size_t dead_count(const struct hub *h);

/* /admin/dlq…; the room is the struct hub. */
extern const struct http_route dead_routes[];
extern const size_t dead_routes_len;
