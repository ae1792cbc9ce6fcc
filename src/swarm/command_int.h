/* SPDX-License-Identifier: MIT */
/*
 * swarm/command_int.h — what the files of commands share.
 *
 *   command.c        life, starting a command, commands heard in channels
 *   command_parse.c  the grammar (pure)       command_say.c  results as chat texts (pure)
 *   command_flow.c   the workflow             command_work.c its parts: work, stop
 *   command_look.c   status and list          command_api.c  routes
 *   tracker.c        rows of work on issues
 */
#pragma once

#include "base/fiber.h"
#include "swarm/command.h"
#include "swarm/life.h"
#include "swarm/notify.h"
#include "swarm/tracker.h"

#define COMMAND_CLASS   "SwarmCommandWorkflow"
#define COMMAND_NAME    "handleCommand"
#define COMMAND_TEXT    (64 * KIB) /* of a command */
#define COMMAND_RESULT  (1 * MIB)  /* of its result */
#define COMMAND_ID      200        /* bytes of a message's id; longer ones are hashed */
#define COMMAND_WAITING 256        /* heard in channels, not yet begun */
#define COMMAND_LISTED  1000       /* in an answer to "list agents" */
#define SPAWN_TRIES     3
#define SPAWN_MS        (2 * 60 * 1000) /* one of them */

struct command {
    struct swarm *s;
    struct durable_type type;
    struct fiber_group *fibers;
    struct chan *waiting; /* of struct inbound_item, heard in channels */
    bool stopping;
};

struct flow { /* one run of the workflow; texts in the arena */
    struct command *c;
    struct workflow *w;
    struct arena a;
    struct str text, from;
    bool reply;
    enum command_kind kind;
    int64_t issue;
    json_t *result;
    unsigned tries;          /* of spawning, in this process */
    struct str agent, error; /* of work */
    struct str say, say_key; /* a notification */
    struct tracker_change change;
};

/* Is the run over, so that its function must return at once? */
static inline bool flow_left(int r)
{
    return r == -ERR_PARKED || r == -ERR_CANCELED;
}

/* {"success":…,"issue_number":…}: a new reference. issue 0: without. */
json_t *flow_result(bool success, int64_t issue);

/* Run a step whose result is an object; *ret belongs to the flow's arena. */
CO int flow_step(struct flow *f, const char *name, const struct durable_retry *retry,
                 durable_step_fn *body, json_t **ret, struct err *e) MUST_CHECK;
CO int flow_step_tx(struct flow *f, const char *name, durable_tx_fn *body, json_t **ret,
                    struct err *e) MUST_CHECK;

/* Say it durably, in a step of its own. It never fails the command. -ERR_PARKED, -ERR_CANCELED. */
CO int flow_notify(struct flow *f, const char *event, struct str text, struct err *e) MUST_CHECK;

/* The parts; each leaves f->result. */
CO int flow_work(struct flow *f, struct err *e) MUST_CHECK;
CO int flow_stop(struct flow *f, struct err *e) MUST_CHECK;
CO int flow_status(struct flow *f, struct err *e) MUST_CHECK;
CO int flow_list(struct flow *f, struct err *e) MUST_CHECK;

CO int command_flow(struct workflow *w, void *ctx, struct err *e);

/* "ntf:<event>:<issue>:<step>", of a bounded length. In the arena. */
struct str command_key(const char *event, int64_t issue, struct str step, struct arena *a);

/* What a result says to people; nothing for work that has begun or failed, which notifications of
 * their own tell. Pure. */
int command_say(enum command_kind kind, const json_t *result, struct buf *out, struct err *e)
    MUST_CHECK;
int command_help(struct buf *out, struct err *e) MUST_CHECK;

/* /pull/12 of a URL: 12; 0: there is no such number. */
int64_t command_pr_of(struct str url);
