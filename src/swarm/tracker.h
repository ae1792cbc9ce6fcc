/* SPDX-License-Identifier: MIT */
/*
 * swarm/tracker.h — the rows of swarm_trackers: work on an issue, from the command that began it to
 * its end. What may follow what is a table (tracker_allows); the only writer is tracker_move_tx().
 */
#pragma once

#include <stdbool.h>

#include "base/json.h"
#include "store/store.h"

enum tracker_state {
    TRACKER_PARSING, /* of the original's list; never stored */
    TRACKER_SPAWNING,
    TRACKER_READY,
    TRACKER_WORKING,
    TRACKER_PR,
    TRACKER_TESTING,
    TRACKER_COMPLETED,
    TRACKER_FAILED,
    TRACKER_STOPPED,
    TRACKER_STATES,
};
extern const char *const tracker_state_names[TRACKER_STATES]; /* "parsing_command" ... */

/* TRACKER_STATES: no such name. */
enum tracker_state tracker_state_of(struct str name);

static inline bool tracker_active(enum tracker_state s)
{
    return s < TRACKER_COMPLETED;
}

bool tracker_allows(enum tracker_state from, enum tracker_state to);

struct tracker { /* texts in the arena; {NULL, 0}: NULL */
    int64_t issue;
    struct str repository, agent, pr_url, error, requested_by, workflow;
    enum tracker_state state;
    int64_t started_ms, completed_ms, updated_ms; /* 0: NULL */
};

/* As the original's object: {issue_number, agent_id, state, started_at, completed_at, pr_url,
 * error}. A new reference. */
json_t *tracker_json(const struct tracker *t);

enum { TRACKER_NONE = 1, TRACKER_SAME, TRACKER_REFUSED };

/* The row of an issue. 0 or TRACKER_NONE. Store thread, like the next two. */
int tracker_get_tx(struct store_tx *tx, int64_t issue, struct arena *a, struct tracker *ret,
                   struct err *e) MUST_CHECK;

/* Rows by issue, at most limit; state TRACKER_STATES: any; active: those that have not ended. */
int tracker_list_tx(struct store_tx *tx, enum tracker_state state, bool active, unsigned limit,
                    struct arena *a, struct tracker **ret, size_t *ret_n, struct err *e) MUST_CHECK;

struct tracker_change {
    int64_t issue;
    enum tracker_state to;
    struct str only; /* a workflow's id: only while the row is its; {0}: whoever's */
    struct str agent, pr_url, error;               /* {0}: as they are */
    struct str repository, requested_by, workflow; /* of work that begins (to TRACKER_SPAWNING) */
    int64_t now_ms;
};
/*
 * Move a row; work that begins makes it. *ret is the row as it is then. 0, TRACKER_NONE,
 * TRACKER_SAME (it is there already; what the change names beside the state is written all the
 * same), or TRACKER_REFUSED: the table does not allow it, or the row is another workflow's.
 */
int tracker_move_tx(struct store_tx *tx, const struct tracker_change *change, struct arena *a,
                    struct tracker *ret, struct err *e) MUST_CHECK;
