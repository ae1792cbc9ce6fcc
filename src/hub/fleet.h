/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet.h — machines: a row each (hub_machines), moved by one function along one table of
 * states, worked on by durable workflows (one operation per machine at a time), watched through
 * their shims.
 *
 *   creating → running ⇄ stopped;  stopping, starting, snapshotting, restoring, destroying on the
 *   way; failed (with a reason) from any of them. Each transient state has a deadline, and
 *   destroying is allowed from every state.
 */
#pragma once

#include "hub/hub_int.h"

int fleet_new(struct hub *h, struct fleet **ret, struct err *e) MUST_CHECK;
CO int fleet_start(struct fleet *f, struct err *e) MUST_CHECK; /* loads machines */
/* The ports are open: in a fiber of its own, adopt those that still run (shim), start those that
 * shall run, sweep what belongs to none. */
void fleet_ready(struct fleet *f);
/* Stops machines and remembers which to start again (hub.machine keeps running over a crash). */
CO void fleet_stop(struct fleet *f);
void fleet_free(struct fleet *f);

/* {"total":…, "running":…} for /health. */
void fleet_counts(const struct fleet *f, size_t *ret_total, size_t *ret_running);

/* /machines…, room: struct fleet. */
extern const struct http_route fleet_routes[];
extern const size_t fleet_routes_len;
/* An operator's WebSocket /agents/ID/shell or /machines/NAME/shell?cols=&rows=&term=&command=;
 * called by the upgrade route, which has seen that it is an operator. */
CO int fleet_shell(struct http_req *req, struct hub *h, struct str agent, struct err *e);
/* `shell` messages of an agent: data, exit. Called by link; does not wait. */
void fleet_shell_message(struct hub *h, struct str agent, const json_t *payload);
/* Its socket is gone: its shells end. Does not wait. */
void fleet_shell_gone(struct hub *h, struct str agent);
void fleet_agent_online(struct hub *h, struct str agent); /* wakes who waits for it */
