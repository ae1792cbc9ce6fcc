/* SPDX-License-Identifier: MIT */
/*
 * bridge/session.h — sessions in the store. A turn is two transactions: begin writes the question
 * before the agent is asked, end the answer before it is told. A question whose turn never ended
 * (a crash, a cancelled call) reads as interrupted; a turn that failed in order does not.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "bridge/adapter.h"
#include "bridge/out.h"
#include "store/store.h"

enum { SESSION_ID_MAX = 512 };

#define SESSION_ANONYMOUS "anonymous"

enum turn_outcome {
    TURN_BEGUN,
    TURN_FOREIGN,  /* the session belongs to another user */
    TURN_RECORDED, /* this key has a result already */
    TURN_MISMATCH, /* this key was used with another request */
};

struct turn {
    /* in */
    struct str session_id; /* empty: only the key is looked up */
    struct str user_id;    /* empty: whoever's session it is; anonymous makes it */
    struct str prompt;
    const json_t *metadata; /* merged at the top level; NULL: none */
    struct str key, hash;   /* of an Idempotency-Key; key empty: none */
    int64_t now_us;
    int64_t new_sid; /* if the session is made */
    long long messages_max;
    long long context_messages, context_bytes; /* earlier messages wanted; 0: none */
    struct arena *arena;

    /* out */
    enum turn_outcome outcome;
    bool created;
    int64_t sid, seq;
    struct ask_turn *earlier; /* oldest first, beginning with a user's */
    size_t n_earlier;
    struct str recorded;
};
CO int turn_begin(struct store *s, struct turn *t, struct err *e) MUST_CHECK;

struct turn_end {
    struct str session_id; /* empty: none */
    int64_t sid;
    bool success;
    struct str reply, agent; /* of a success */
    long long messages_max;
    int64_t now_us;
    struct str key, hash, result; /* kept for the key; key empty: none */
};
/* A session that was deleted meanwhile stays deleted. */
CO int turn_end(struct store *s, const struct turn_end *t, struct err *e) MUST_CHECK;

/*
 * Write one session as JSON; active_sid and active_seq name the question that is being answered
 * now. ERR_NOT_FOUND.
 */
CO int session_write(struct store *s, struct str session_id, int64_t active_sid, int64_t active_seq,
                     struct out *o, struct err *e) MUST_CHECK;

/* ERR_NOT_FOUND. */
CO int session_delete(struct store *s, struct str session_id, struct err *e) MUST_CHECK;

/* {"sessions":[{"session_id","user_id","created_at","last_activity","messages":N},...]} in order
 * of ids, those after `after`. */
CO int session_list(struct store *s, struct str after, long long limit, struct out *o,
                    struct err *e) MUST_CHECK;

struct session_stats {
    int64_t sessions, messages;
    int64_t oldest_us, newest_us; /* last activity; 0 without sessions */
};
CO int session_stats(struct store *s, struct session_stats *ret, struct err *e) MUST_CHECK;

/* session_write.c, for users of the library: make a session when there is none (*ret_created). */
CO int session_ensure(struct store *s, struct str session_id, struct str user_id, int64_t new_sid,
                      bool *ret_created, struct err *e) MUST_CHECK;

/* Append one message of a turn that is complete by itself. ERR_NOT_FOUND. */
CO int session_append(struct store *s, struct str session_id, struct str role, struct str content,
                      struct str agent, struct err *e) MUST_CHECK;
