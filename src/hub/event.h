/* SPDX-License-Identifier: MIT */
/*
 * hub/event.h — what happens, as JSON objects with a growing number, for those who look on: GET
 * /events (server-sent events, Last-Event-ID), the console and `vm-agent events`. The newest
 * EVENTS_KEPT are kept in memory; who is further behind is told that some were missed.
 */
#pragma once

#include "hub/hub_int.h"

#define EVENTS_KEPT 1024

int events_new(struct hub *h, struct events **ret, struct err *e) MUST_CHECK;
void events_stop(struct events *v); /* lets go who waits */
void events_free(struct events *v);

/*
 * type: "agent.online", "agent.offline", "agent.registered", "agent.deregistered", "agent.health",
 * "task.queued", "task.sent", "task.running", "task.output", "task.ended", "machine.state", "log",
 * "message.dead".
 * body: an object, whose reference is taken; "type", "seq" and "timestamp" are added. Cheap while
 * nobody looks on: event_wanted() says whether making the body is worth it.
 */
void event(struct hub *h, const char *type, json_t *body);
bool event_wanted(const struct hub *h);

extern const struct http_route event_routes[]; /* room: struct events */
extern const size_t event_routes_len;
