/* SPDX-License-Identifier: MIT */
/*
 * agent/agent_int.h — what the core of the agent shares: its parts and how they call each other.
 * All on the loop's thread.
 */
#pragma once

#include "agent/agent.h"
#include "base/buf.h"

#define AGENT_MESSAGE_MAX (64 * MIB)  /* of the hub's */
#define AGENT_QUEUE_MAX   (64 * MIB)  /* waiting to be written to the hub */
#define AGENT_ROOM        (256 * KIB) /* see agent_has_room() */

#define LEFTOVER_NAME "CHELA_TASK" /* "<agent>/<task>" in the environment of a task's programs */

struct link;
struct runner;

struct agent {
    const struct agent_conf *conf;
    struct loop *loop;
    struct link *link;
    struct runner *runner;
    struct shells *shells;
    struct audit_log *audit;
    struct health *health;
    struct relays *relays;
    bool stopping; /* a signal came */
    bool deaf;     /* the parts are ended: only the closing handshake is left */
};

/* --- link.c --- */

struct link *link_new(struct agent *a);
void link_free(struct link *l); /* the socket is closed */

/* Connect and stay connected until the agent stops. ERR_UNAVAILABLE, ERR_UNAUTHORIZED: given up. */
CO int link_keep(struct link *l, struct err *e) MUST_CHECK;
void link_stop(struct link *l);     /* link_keep() returns soon; the socket stays */
CO void link_close(struct link *l); /* the closing handshake */

/* A number of the connection that is up and has said its resync; 0: none. */
unsigned long link_up(const struct link *l);
/* The hub's protocol as its welcome told; 0: not heard yet, or a hub that acknowledges nothing. */
int link_protocol(const struct link *l);
int link_send(struct link *l, struct str frame, struct err *e) MUST_CHECK;
CO int link_send_wait(struct link *l, struct str frame, struct err *e) MUST_CHECK;

/* An envelope around JSON text as payload into b. */
int link_frame(const struct agent *a, const char *to, const char *type, struct str payload,
               struct buf *b, struct err *e) MUST_CHECK;

/* --- hear.c --- */

/* Act on one frame of the hub. */
void hear(struct agent *a, struct str frame);
/* The welcome came: its payload and timestamp. In link.c. */
void link_welcome(struct link *l, const json_t *payload, long long timestamp_ms);

/* --- runner.c --- */

/* Takes up what the spool holds. Blocking. */
int runner_new(struct agent *a, struct runner **ret, struct err *e) MUST_CHECK;
int runner_start(struct runner *r, struct err *e) MUST_CHECK; /* the loop turns */
/* End what runs, keep what is left on disk, say what can be said within the deadline. */
CO void runner_stop(struct runner *r, uint64_t deadline_ms);
void runner_free(struct runner *r);

void runner_task(struct runner *r, const json_t *payload, const char *from);
void runner_ack(struct runner *r, const json_t *payload);
void runner_cancel(struct runner *r, const json_t *payload);
void runner_resync(struct runner *r, const json_t *payload);
json_t *runner_held(const struct runner *r); /* `tasks` of our resync, a new reference */
unsigned runner_active(const struct runner *r);
void runner_connected(struct runner *r);
void runner_lost(struct runner *r, unsigned code);
void runner_drained(struct runner *r); /* there is room to send again */
