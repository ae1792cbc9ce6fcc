/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate.h — the gateway: HTTP routes that the original had at its root, and a WebSocket on any
 * path. What it accepts it hands to mail, life and the engine; it keeps nothing but its sockets.
 */
#pragma once

#include "swarm/swarm_int.h"

struct gate;

int gate_new(struct swarm *s, struct gate **ret, struct err *e) MUST_CHECK;
CO int gate_start(struct gate *g, struct err *e) MUST_CHECK;
CO void gate_stop(struct gate *g); /* closes every socket with 1001 */
void gate_free(struct gate *g);

unsigned gate_sockets(const struct gate *g);

/* Routes at the root of the gateway, a table for each of their prefixes. */
enum { GATE_TABLES = 3 };
void gate_tables(struct gate *g, struct http_table out[GATE_TABLES]);
