/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_int.h — what the files of lives share: the table of states and operations, rows of
 * agent_swarm_instances, the workflows' parts.
 */
#pragma once

#include "base/arena.h"
#include "swarm/beat.h"
#include "swarm/life.h"

#define LIFE_CLASS     "AgentLifecycleWorkflow"
#define LIFE_PROVISION "provisionAgentWorkflow"
#define LIFE_BEAT      "heartbeatWorkflow"
#define LIFE_STEER     "pauseResumeWorkflow"

#define LIFE_NOBODY  "00000000-0000-0000-0000-000000000001" /* owner where nobody logs in */
#define LIFE_KEY_MS  (24 * 3600 * 1000LL) /* how long an Idempotency-Key is known */
#define LIFE_TEXT    (1 * MIB)            /* of one JSON text we make */
#define LIFE_PAYLOAD (16 * MIB)

struct life {
    struct swarm *s;
    struct beat *beat;
    struct fiber_group *chores;
    struct durable_type types[3];
    uint64_t retry_ms; /* before the second try to greet an agent; doubles */
    int64_t n_agents;  /* not stopped ones, at the last count and those made since */
};

/* --- life_table.c --- */

enum life_verdict { LIFE_NO, LIFE_GO, LIFE_SAME }; /* SAME: allowed, nothing changes */
struct life_rule {
    enum life_verdict from[AGENT_STATUSES];
    int to;               /* status after LIFE_GO; -1: stays */
    const char *conflict; /* with one %s: the state; or none */
};
extern const struct life_rule life_rules[AGENT_OPS];

/* 0 LIFE_GO or LIFE_SAME; ERR_CONFLICT with the text of the original. */
int life_judge(enum agent_op op, enum agent_status status, enum life_verdict *ret, struct err *e)
    MUST_CHECK;

int agent_status_parse(struct str name, enum agent_status *ret); /* 0 or -1 */

/* Length of "5m" in ms; 0: not one of ours, or none. */
int64_t life_interval_ms(struct str interval);
extern const char *const life_intervals[]; /* NULL-terminated */

/*
 * Move an agent: read the row, judge, let edit() change what belongs to it (status is set before),
 * write the row if nobody has changed it since. *ret is the row as it is now.
 * 0; LIFE_STILL: allowed, nothing was changed; ERR_NOT_FOUND "Agent <id> not found"; ERR_CONFLICT.
 */
enum { LIFE_STILL = 1 };
typedef void life_edit_fn(struct agent_info *row, void *arg);
struct life_step {
    struct str id;
    enum agent_op op;
    int64_t now_ms;
    life_edit_fn *edit; /* NULL: none */
    void *arg;
};
int life_move_tx(struct store_tx *tx, const struct life_step *step, struct arena *a,
                 struct agent_info *ret, struct err *e) MUST_CHECK;

/* What becomes of a provisioning, told by the workflow that does it: only while the agent is still
 * in state provisioning on behalf of that workflow; else LIFE_STILL. */
int life_settle_tx(struct store_tx *tx, const struct life_step *step, struct str workflow,
                   enum agent_status to, struct arena *a, struct agent_info *ret, struct err *e)
    MUST_CHECK;

/* --- life_store.c: rows --- */

/* 1 when there is one, else 0. Texts in the arena. */
int life_find_tx(struct store_tx *tx, struct str id, struct arena *a, struct agent_info *ret,
                 struct err *e) MUST_CHECK;
/* 1 when there is one of this session key. */
int life_find_session_tx(struct store_tx *tx, struct str session, struct arena *a,
                         struct agent_info *ret, struct err *e) MUST_CHECK;
/* Every changeable column, if the version is still `version`; row->version becomes one more.
 * 0, or LIFE_STILL: it is not. */
int life_write_tx(struct store_tx *tx, struct agent_info *row, int64_t version, struct err *e)
    MUST_CHECK;
/* 0, or LIFE_STILL: the id or the session key is taken. */
int life_insert_tx(struct store_tx *tx, const struct agent_info *row, struct err *e) MUST_CHECK;
void life_take_row(struct store_row *row, struct arena *a, struct agent_info *ret);
#define LIFE_COLUMNS \
    "id, name, persona, model, user_id, workspace_id, CAST(status AS TEXT), generation, version," \
    " openclaw_session_key, openclaw_agent_id, heartbeat_enabled," \
    " CAST(heartbeat_interval AS TEXT), heartbeat_checklist, last_heartbeat_at," \
    " next_heartbeat_at, configuration, error_message, error_count, last_error_at," \
    " workflow_uuid, created_at, updated_at, provisioned_at, paused_at, stopped_at"

/* --- life_name.c --- */

/* "My Agent_1" to "my-agent-1"; "agent" when nothing is left. In the arena. */
const char *life_slug(struct str name, struct arena *a);
/* Session key and agent id of a name, as the number n of this name (0: the first). */
void life_keys(const char *form, struct str name, unsigned n, struct arena *a, struct str *session,
               struct str *agent);

/* --- the workflows --- */

CO int life_provision_flow(struct workflow *w, void *ctx, struct err *e);
CO int life_beat_flow(struct workflow *w, void *ctx, struct err *e);
CO int life_steer_flow(struct workflow *w, void *ctx, struct err *e);

/* Is the run over, so that the function must return at once? */
static inline bool life_left(int r)
{
    return r == -ERR_PARKED || r == -ERR_CANCELED;
}

/* Read an agent's row again and tell the beats of it. */
CO void life_touch(struct life *l, struct str id);

/* The workflow id of an operation on an agent as it is now. In the arena. */
const char *life_provision_id(const struct agent_info *row, struct arena *a);

/* Start the workflow of an operation under an id, and wait for it unless deadline_ms is 0. */
CO int life_run(struct life *l, enum agent_op op, struct str id, const json_t *request,
                uint64_t deadline_ms, struct durable_started *ret, struct buf *out, struct err *e)
    MUST_CHECK;

/* Is there a workflow of this id, and is it over? */
int life_ended_tx(struct store_tx *tx, struct str workflow, bool *ret, struct err *e) MUST_CHECK;

/* --- life_keep.c: what is done now and then --- */

CO int life_keep_house(void *life, struct err *e);

/* Its input; a new reference. */
json_t *life_request_json(const struct agent_info *row);

/* A JSON text as a value; fallback (a new reference, may be NULL) when it is none. New reference.
 */
json_t *life_json(struct str text, json_t *fallback);

/* Text that an agent is sent when it is provisioned, or has a heartbeat. */
int life_text_provision(const json_t *request, struct buf *out, struct err *e) MUST_CHECK;
int life_text_beat(const char *name, const json_t *checklist, struct buf *out, struct err *e)
    MUST_CHECK;

/* --- life_auth.c --- */

/* Do the settings say who may call, and may that be? */
int life_check_auth(struct life *l, struct err *e) MUST_CHECK;

/* Whose agents may this caller see? user {0}: all. */
struct life_owner {
    struct str user, workspace;
};
struct life_owner life_caller(struct http_req *req);
/* ERR_FORBIDDEN with the original's text. */
int life_owned(struct http_req *req, const struct agent_info *row, struct err *e) MUST_CHECK;
int life_door(struct http_req *req, void *room, struct http_identity *ret, struct err *e);

/* --- life_api*.c --- */

extern const struct http_route life_routes[];
extern const size_t life_routes_len;
