/* SPDX-License-Identifier: MIT */
/*
 * bridge/bridge_calls.h — the bridge's operations as functions, for its other faces: what its
 * routes do by HTTP, libchela does by these.
 */
#pragma once

#include "bridge/agent.h"
#include "bridge/bridge.h"
#include "bridge/out.h"

/* Current state, borrowed: good until the caller next waits. */
struct agents *bridge_agents(struct bridge *b);
struct tracker *bridge_tracker(struct bridge *b);

/*
 * Register or replace, durably. 0, or -ERR_INVALID with *problem filled, -ERR_LIMIT (too many
 * agents), or the store's error. The entry is good until the caller next waits.
 */
CO int bridge_register(struct bridge *b, const struct agent_spec *spec, struct agent_entry **ret,
                       struct agent_problem *problem, struct err *e) MUST_CHECK;

/* Remove with its health. ERR_NOT_FOUND. */
CO int bridge_unregister(struct bridge *b, struct str name, struct err *e) MUST_CHECK;

/* Back to the state of a new agent, durably. ERR_NOT_FOUND. */
CO int bridge_health_reset(struct bridge *b, struct str name, struct err *e) MUST_CHECK;

/* A session as JSON, its turn under way included; ERR_NOT_FOUND. */
CO int bridge_session_write(struct bridge *b, struct str id, struct out *o, struct err *e)
    MUST_CHECK;

/* Make it when there is none. ERR_FORBIDDEN: it is another user's. */
CO int bridge_session_ensure(struct bridge *b, struct str id, struct str user, struct err *e)
    MUST_CHECK;
CO int bridge_session_delete(struct bridge *b, struct str id, struct err *e) MUST_CHECK;

/* Append a message. ERR_NOT_FOUND. */
CO int bridge_session_append(struct bridge *b, struct str id, struct str role, struct str content,
                             struct str agent, struct err *e) MUST_CHECK;

/* Remove sessions idle since before the time; sessions with a call under way are not idle. */
CO int sessions_cleanup(struct bridge *b, int64_t before_us, long long *ret_removed, struct err *e)
    MUST_CHECK;
