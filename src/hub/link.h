/* SPDX-License-Identifier: MIT */
/*
 * hub/link.h — the WebSockets: one per agent id (a newer one closes the older with 4001), observers
 * of "host", the way of each message.
 *
 * From an agent: envelope {id, from, to, type, timestamp, payload}; from is made the
 * authenticated id. health, response, metadata, pong, and `status`/`log` about tasks are the hub's
 * (see docs/agent-protocol.md); the rest goes by `to`: an agent, "broadcast" or "*", or "host".
 * Messages for an agent without a socket wait in the store (hub.queue_max, hub.queue_max_age); what
 * can't be delivered becomes a dead letter.
 */
#pragma once

#include "hub/agents.h"
#include "hub/hub_int.h"

enum link_close {
    LINK_REPLACED = 4001, /* a newer connection, or a new token */
    LINK_REVOKED = 4003,  /* deregistered, or its token has expired */
    LINK_STALE = 4008,    /* no health, no pong, or it does not read what it is sent */
};

int links_new(struct hub *h, struct links **ret, struct err *e) MUST_CHECK;
CO int links_start(struct links *l, struct err *e) MUST_CHECK;
CO void links_stop(struct links *l); /* closes all with 1000 "Server shutting down" */
void links_free(struct links *l);

/* Has it a socket that has been sent what waited? Until then new tasks are left queued. */
bool link_online(struct links *l, struct str agent);

/* One frame to a connected agent. ERR_UNAVAILABLE: it has no socket, or its queue is full (then it
 * is closed: it comes back and is told again). Never waits. */
int link_send(struct links *l, struct str agent, struct str frame, struct err *e) MUST_CHECK;

/* {"id":…,"from":"host","to":agent,"type":type,"timestamp":…,"payload":payload}, sent. */
int link_say(struct links *l, struct str agent, const char *type, json_t *payload, struct err *e)
    MUST_CHECK; /* takes the reference */

/* Another daemon has kept a message for an agent: send it, if the agent is here, else when it
 * comes. Never waits. */
void link_more(struct links *l, struct str agent);
/* What waits, counted anew: other daemons have kept some, or sent some. */
CO int link_recount(struct links *l, struct err *e) MUST_CHECK;

/* Bytes that link_send() would take for it now; 0: it is not connected. */
size_t link_room(struct links *l, struct str agent);

/* Close an agent's socket, if it has one, and mark it offline. */
void link_drop(struct links *l, struct str agent, unsigned code, const char *reason);

/* Copies for observers of "host". */
void link_observe(struct links *l, struct str frame);

/* Dead letters (hub_dead): at most hub.dead_max, the oldest go. message: any text; what is no JSON
 * is kept as a string of it. dead_later() does not wait: many are written together. */
CO int dead_add(struct hub *h, struct str message, const char *error, struct err *e) MUST_CHECK;
void dead_later(struct hub *h, struct str message, const char *error);

unsigned links_count(const struct links *l);
size_t link_history(const struct links *l); /* historySize of /admin/stats */

/* Statuses of vm_hub_messages_total. */
enum link_outcome { LINK_RECEIVED, LINK_DELIVERED, LINK_QUEUED, LINK_DROPPED, LINK_ERROR };
