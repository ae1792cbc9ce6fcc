/* SPDX-License-Identifier: MIT */
/*
 * swarm/life.h — agents and their lives.
 *
 * A life is a table of states and operations (life_table.c); what moves an agent is one function,
 * life_move_tx(), by compare-and-set on status and version, in the transaction of the step that
 * asks for it. Operations that touch the world are durable workflows (AgentLifecycleWorkflow):
 * provision, heartbeat, pause and resume.
 */
#pragma once

#include "swarm/swarm_int.h"

struct life;

enum agent_status {
    AGENT_PROVISIONING,
    AGENT_RUNNING,
    AGENT_PAUSED,
    AGENT_STOPPED,
    AGENT_FAILED,
    AGENT_STATUSES
};
extern const char *const agent_status_names[AGENT_STATUSES];

enum agent_op {
    OP_PROVISION,
    OP_PAUSE,
    OP_RESUME,
    OP_HEARTBEAT,
    OP_SETTINGS,
    OP_MESSAGE,
    OP_DELETE,
    AGENT_OPS
};

struct agent_info { /* texts in the arena */
    struct str id, name, persona, model, user, workspace, session, openclaw_id, interval, checklist,
        configuration, error, workflow;
    enum agent_status status;
    bool heartbeat, silent; /* silent: beats were missed; in memory */
    int64_t generation, version, error_count;
    int64_t last_beat_ms, next_beat_ms, last_error_ms, created_ms, updated_ms, provisioned_ms,
        paused_ms, stopped_ms; /* 0: NULL */
};

int life_new(struct swarm *s, struct life **ret, struct err *e)
    MUST_CHECK;                                              /* registers workflows */
CO int life_start(struct life *l, struct err *e) MUST_CHECK; /* loads the slots of heartbeats */
CO void life_stop(struct life *l);
void life_free(struct life *l);

struct agent_new { /* checked by the caller's shape; checklist and configuration: JSON */
    struct str name, persona, model, user, workspace, interval, checklist, configuration;
    struct str session; /* {0}: made from the name, with a suffix when it is taken */
    bool heartbeat;
};
/*
 * Create an agent and provision it by a workflow, and wait for that. key {0}: none; one key and one
 * request are one agent (ERR_CONFLICT: the key was used for another request). A provisioning that
 * failed is 0 with ret->status AGENT_FAILED.
 */
CO int life_create(struct life *l, const struct agent_new *in, struct str key, uint64_t deadline_ms,
                   struct arena *a, struct agent_info *ret, struct err *e) MUST_CHECK;

CO int life_get(struct life *l, struct str id, struct arena *a, struct agent_info *ret,
                struct err *e) MUST_CHECK; /* ERR_NOT_FOUND: "Agent <id> not found" */

struct agent_filter {
    struct str user, workspace, name; /* {0}: any */
    int status;                       /* -1: any */
    int64_t limit, offset;
};
CO int life_list(struct life *l, const struct agent_filter *f, struct arena *a,
                 struct agent_info **ret, size_t *ret_n, int64_t *ret_total, struct err *e)
    MUST_CHECK; /* newest first */

/* ERR_CONFLICT with the original's text when the state does not allow it. */
CO int life_provision(struct life *l, struct str id, uint64_t deadline_ms, struct arena *a,
                      struct agent_info *ret, struct err *e) MUST_CHECK;
CO int life_pause(struct life *l, struct str id, struct arena *a, struct agent_info *ret,
                  struct err *e) MUST_CHECK;
CO int life_resume(struct life *l, struct str id, struct arena *a, struct agent_info *ret,
                   struct err *e) MUST_CHECK;
CO int life_delete(struct life *l, struct str id, struct err *e)
    MUST_CHECK; /* soft; a repeat is 0 */

/*
 * The gateway's routes: an operation by the original's request object (camelCase), by its workflow,
 * whose result is *out. op: OP_PROVISION, OP_HEARTBEAT or OP_PAUSE (then the request's "action"
 * says pause or resume). Makes the workflow's id, so that a repeat of what is under way or done
 * joins it. What fails for reasons of the request is a result with status "failed".
 * ret->id is filled before the wait. deadline_ms 0: does not wait, *out stays as it is.
 */
CO int life_flow(struct life *l, enum agent_op op, const json_t *request, uint64_t deadline_ms,
                 struct durable_started *ret, struct buf *out, struct err *e) MUST_CHECK;

/* A consumer says that it lives (WebSocket agent.heartbeat, POST …/heartbeat of a liveness kind):
 * in memory, no write. ERR_NOT_FOUND. */
int life_alive(struct life *l, struct str session, struct err *e) MUST_CHECK;

/* A session's agent has a subscriber, or lost its last one. */
void life_attached(struct life *l, struct str session, bool attached);

struct life_counts {
    int64_t by_status[AGENT_STATUSES], silent, beating;
};
CO int life_overview(struct life *l, struct life_counts *ret, struct err *e) MUST_CHECK;

/* Push to whoever is subscribed to a session, without a promise: filled in by gate.c. */
extern void (*life_push)(struct swarm *s, struct str session, const char *event,
                         const json_t *payload);

/* Routes /api/v1/agents…; who may use them depends on agents.auth (life_auth.c). */
void life_table(struct life *l, struct http_table *ret);
