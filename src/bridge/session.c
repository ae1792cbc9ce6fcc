/* SPDX-License-Identifier: MIT */
/*
 * bridge/session.c — the two transactions of a turn, which are the hot path of the bridge: three
 * statements each, and one more for a key. Reading before writing is cheaper in SQLite than
 * RETURNING, which makes a temporary table for its row each time.
 */
#include "bridge/session.h"

#include <string.h>

#include "bridge/session_int.h"

static const struct sql sql_result_get = {
    "result get",
    "SELECT hash, result FROM vps_results WHERE key = ?1",
};
static const struct sql sql_result_put = {
    "result put",
    "INSERT INTO vps_results (key, hash, created_us, result) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (key) DO UPDATE SET hash = excluded.hash, created_us = excluded.created_us,"
    " result = excluded.result",
};
static const struct sql sql_find = {
    "session of a turn",
    "SELECT sid, last_seq, done_seq, user_id FROM vps_sessions WHERE session_id = ?1",
    .pg = "SELECT sid, last_seq, done_seq, user_id FROM vps_sessions WHERE session_id = ?1 FOR "
          "UPDATE",
};
static const struct sql sql_begin = {
    "turn begin",
    "UPDATE vps_sessions SET active_us = ?2, last_seq = ?3 WHERE sid = ?1",
};
static const struct sql sql_begin_new = {
    "turn begin in a new session",
    "INSERT INTO vps_sessions (session_id, sid, user_id, created_us, active_us, last_seq, done_seq,"
    " metadata) VALUES (?1, ?2, ?3, ?4, ?4, 1, 0, '{}')"
    " ON CONFLICT (session_id) DO UPDATE SET active_us = excluded.active_us,"
    " last_seq = vps_sessions.last_seq + 1"
    " WHERE ?5 = 0 OR vps_sessions.user_id = excluded.user_id"
    " RETURNING sid, last_seq, done_seq",
};
static const struct sql sql_metadata_get = {
    "session metadata",
    "SELECT metadata FROM vps_sessions WHERE sid = ?1",
};
static const struct sql sql_metadata_put = {
    "session metadata put",
    "UPDATE vps_sessions SET metadata = ?2 WHERE sid = ?1",
};
static const struct sql sql_resume = {
    "turn resume",
    "UPDATE vps_sessions SET last_seq = last_seq - 1 WHERE sid = ?1 AND EXISTS"
    " (SELECT 1 FROM vps_messages WHERE sid = ?1 AND seq = ?2 AND call = ?3)",
};
static const struct sql sql_interrupt = {
    "turn interrupted",
    "UPDATE vps_messages SET interrupted = 1"
    " WHERE sid = ?1 AND seq > ?2 AND seq < ?3 AND role = 'user'",
};
const struct sql sql_message_put = {
    "message put",
    "INSERT INTO vps_messages (sid, seq, ts_us, role, content, agent, interrupted, call)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
};
static const struct sql sql_trim = {
    "messages trim",
    "DELETE FROM vps_messages WHERE sid = ?1 AND seq <= ?2",
};
static const struct sql sql_context = {
    "session context",
    "SELECT role, content FROM vps_messages WHERE sid = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
};
static const struct sql sql_end = {
    "turn end",
    "UPDATE vps_sessions SET active_us = ?2, last_seq = ?3, done_seq = ?3 WHERE sid = ?1",
};
static const struct sql sql_end_failed = {
    "turn end failed",
    "UPDATE vps_sessions SET done_seq = last_seq WHERE session_id = ?1 AND sid = ?2",
};

/* --- begin --- */

static int result_row(struct store_row *row, void *arg, struct err *e)
{
    struct turn *t = arg;

    if (!str_eq(row_str(row, 0), t->hash)) {
        t->outcome = TURN_MISMATCH;
        return 0;
    }
    t->outcome = TURN_RECORDED;
    t->recorded = arena_str(t->arena, row_str(row, 1));
    return 0;
}

struct begun {
    int64_t sid, last_seq, done_seq;
};

static int begin_row(struct store_row *row, void *arg, struct err *e)
{
    *(struct begun *)arg = (struct begun){ row_int(row, 0), row_int(row, 1), row_int(row, 2) };
    return 0;
}

struct found {
    const struct turn *turn;
    struct begun begun;
    bool foreign;
};

static int found_row(struct store_row *row, void *arg, struct err *e)
{
    struct found *found = arg;
    struct str user_id = found->turn->user_id;

    found->foreign = user_id.n && !str_eq(row_str(row, 3), user_id);
    return begin_row(row, &found->begun, e);
}

int message_put(struct store_tx *tx, int64_t sid, int64_t seq, const struct message *m,
                struct err *e)
{
    const struct sql_arg args[] = {
        SQL_INT(sid),
        SQL_INT(seq),
        SQL_INT(m->at_us),
        SQL_STR(m->role),
        SQL_STR(m->content),
        SQL_STR(m->agent),
        SQL_INT(m->interrupted),
        m->call.n ? SQL_STR(m->call) : SQL_NULL,
    };

    return store_run(tx, &sql_message_put, args, LEN(args), NULL, NULL, e);
}

static int trim(struct store_tx *tx, int64_t sid, int64_t seq, long long max, struct err *e)
{
    const struct sql_arg args[] = { SQL_INT(sid), SQL_INT(seq - max) };

    return seq > max ? store_run(tx, &sql_trim, args, LEN(args), NULL, NULL, e) : 0;
}

static int metadata_row(struct store_row *row, void *arg, struct err *e)
{
    struct turn *t = arg;

    t->recorded = arena_str(t->arena, row_str(row, 0));
    return 0;
}

/* Shallow: the new top-level keys over the old ones. */
static int merge_metadata(struct store_tx *tx, struct turn *t, struct err *e)
{
    struct sql_arg args[2] = { SQL_INT(t->sid) };
    struct str text = STR("{}");
    json_t *merged;
    int r;

    if (!t->created) {
        r = store_run(tx, &sql_metadata_get, args, 1, metadata_row, t, e);
        if (r < 0)
            return r;
        text = t->recorded;
        t->recorded = (struct str){ 0 };
    }
    r = json_parse(text, JSON_DEPTH, t->arena, &merged, NULL, e);
    if (r < 0)
        return err_wrap(e, "metadata of a session");
    if (json_object_update(merged, (json_t *)(uintptr_t)t->metadata) < 0)
        return err_set(e, ERR_INTERNAL, "metadata of a session cannot be merged");
    r = json_text(merged, METADATA_MAX, t->arena, &text, e);
    if (r < 0)
        return err_wrap(e, "metadata of the session");
    args[1] = SQL_STR(text);
    return store_run(tx, &sql_metadata_put, args, 2, NULL, NULL, e);
}

static int context_row(struct store_row *row, void *arg, struct err *e)
{
    struct turn *t = arg;
    struct str content = row_str(row, 1);

    if ((long long)content.n > t->context_bytes)
        return 1; /* what does not fit ends the context: no holes */
    t->context_bytes -= (long long)content.n;
    t->earlier[t->n_earlier++] = (struct ask_turn){
        .role = arena_str(t->arena, row_str(row, 0)),
        .content = arena_str(t->arena, content),
    };
    return 0;
}

/* The newest earlier messages, turned to oldest first; a conversation begins with its user. */
static int read_context(struct store_tx *tx, struct turn *t, struct err *e)
{
    const struct sql_arg args[] = { SQL_INT(t->sid), SQL_INT(t->seq),
                                    SQL_INT(t->context_messages) };
    long long budget = t->context_bytes;
    size_t skip = 0;
    int r;

    t->earlier = arena_alloc(t->arena, (size_t)t->context_messages * sizeof(*t->earlier));
    r = store_run(tx, &sql_context, args, LEN(args), context_row, t, e);
    t->context_bytes = budget;
    if (r < 0)
        return r;
    for (size_t i = 0; i < t->n_earlier / 2; i++) {
        struct ask_turn swap = t->earlier[i];

        t->earlier[i] = t->earlier[t->n_earlier - 1 - i];
        t->earlier[t->n_earlier - 1 - i] = swap;
    }
    while (skip < t->n_earlier && !str_eq_z(t->earlier[skip].role, "user"))
        skip++;
    t->earlier += skip;
    t->n_earlier -= skip;
    return 0;
}

/*
 * An earlier turn never ended. If it is this very call, tried again with its key, it goes on with
 * the question that is there (*ret_there); else that question is marked as interrupted for good.
 */
static int after_interruption(struct store_tx *tx, struct turn *t, const struct begun *begun,
                              struct str call, bool *ret_there, struct err *e)
{
    const struct sql_arg resume[] = { SQL_INT(t->sid), SQL_INT(t->seq - 1), SQL_STR(call) };
    struct sql_arg interrupt[] = { SQL_INT(t->sid), SQL_INT(begun->done_seq), SQL_INT(t->seq) };
    int r;

    if (call.n) {
        r = store_run(tx, &sql_resume, resume, LEN(resume), NULL, NULL, e);
        if (r < 0)
            return r;
        *ret_there = store_changed(tx) > 0;
        t->seq -= *ret_there;
        interrupt[2] = SQL_INT(t->seq);
    }
    return store_run(tx, &sql_interrupt, interrupt, LEN(interrupt), NULL, NULL, e);
}

static int put_question(struct store_tx *tx, struct turn *t, struct str call, struct err *e)
{
    const struct message question = {
        .at_us = t->now_us,
        .role = STR("user"),
        .content = t->prompt,
        .agent = STR(""),
        .call = call,
    };
    int r;

    r = message_put(tx, t->sid, t->seq, &question, e);
    return r < 0 ? r : trim(tx, t->sid, t->seq, t->messages_max, e);
}

/* The session is ours and counted up; write the question and what goes with it. */
static int write_question(struct store_tx *tx, struct turn *t, const struct begun *begun,
                          struct err *e)
{
    struct str call = STR("");
    bool there = false;
    int r = 0;

    if (t->key.n)
        call =
            str_of(arena_printf(t->arena, STR_FMT "\n" STR_FMT, STR_ARG(t->key), STR_ARG(t->hash)));
    if (begun->done_seq + 1 != begun->last_seq)
        r = after_interruption(tx, t, begun, call, &there, e);
    if (r >= 0 && t->metadata)
        r = merge_metadata(tx, t, e);
    if (r >= 0 && !there)
        r = put_question(tx, t, call, e);
    if (r >= 0 && t->context_messages > 0 && t->seq > 1)
        r = read_context(tx, t, e);
    return r < 0 ? r : 0;
}

/* Count up the session for the question, or make it. *ret stays zero when it is another user's. */
static int begin_session(struct store_tx *tx, const struct turn *t, struct begun *ret,
                         struct err *e)
{
    const struct sql_arg create[] = {
        SQL_STR(t->session_id),
        SQL_INT(t->new_sid),
        SQL_STR(t->user_id.n ? t->user_id : STR(SESSION_ANONYMOUS)),
        SQL_INT(t->now_us),
        SQL_INT(t->user_id.n != 0),
    };
    struct found found = { .turn = t };
    struct sql_arg touch[3];
    int r;

    r = store_run(tx, &sql_find, create, 1, found_row, &found, e);
    if (r < 0 || found.foreign)
        return r;
    if (!found.begun.sid)
        return store_run(tx, &sql_begin_new, create, LEN(create), begin_row, ret, e);
    found.begun.last_seq++;
    touch[0] = SQL_INT(found.begun.sid);
    touch[1] = SQL_INT(t->now_us);
    touch[2] = SQL_INT(found.begun.last_seq);
    r = store_run(tx, &sql_begin, touch, LEN(touch), NULL, NULL, e);
    if (r == 0)
        *ret = found.begun;
    return r;
}

static int begin_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct turn *t = arg;
    struct begun begun = { 0 };
    const struct sql_arg key = SQL_STR(t->key);
    int r;

    t->outcome = TURN_BEGUN;
    t->n_earlier = 0;
    if (t->key.n) {
        r = store_run(tx, &sql_result_get, &key, 1, result_row, t, e);
        if (r < 0 || t->outcome != TURN_BEGUN)
            return r;
    }
    if (!t->session_id.n)
        return 0;
    r = begin_session(tx, t, &begun, e);
    if (r < 0)
        return r;
    if (!begun.last_seq) {
        t->outcome = TURN_FOREIGN;
        return 0;
    }
    t->sid = begun.sid;
    t->seq = begun.last_seq;
    t->created = begun.sid == t->new_sid;
    return write_question(tx, t, &begun, e);
}

CO int turn_begin(struct store *s, struct turn *t, struct err *e)
{
    if (!t->session_id.n)
        return store_read(s, begin_body, t, e);
    return store_do(s, begin_body, t, e);
}

/* --- end --- */

/* The session may have been deleted meanwhile, and made again: then nothing is written. */
static int write_reply(struct store_tx *tx, const struct turn_end *t, struct err *e)
{
    const struct message reply = {
        .at_us = t->now_us,
        .role = STR("assistant"),
        .content = t->reply,
        .agent = t->agent,
    };
    struct sql_arg args[] = { SQL_STR(t->session_id), SQL_INT(t->sid), SQL_NULL };
    struct begun now = { 0 };
    int r;

    if (!t->success)
        return store_run(tx, &sql_end_failed, args, 2, NULL, NULL, e);
    r = store_run(tx, &sql_find, args, 1, begin_row, &now, e);
    if (r < 0 || now.sid != t->sid)
        return r;
    now.last_seq++;
    args[0] = SQL_INT(t->sid);
    args[1] = SQL_INT(t->now_us);
    args[2] = SQL_INT(now.last_seq);
    r = store_run(tx, &sql_end, args, LEN(args), NULL, NULL, e);
    if (r == 0)
        r = message_put(tx, t->sid, now.last_seq, &reply, e);
    return r < 0 ? r : trim(tx, t->sid, now.last_seq, t->messages_max, e);
}

static int end_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct turn_end *t = arg;
    const struct sql_arg args[] = { SQL_STR(t->key), SQL_STR(t->hash), SQL_INT(t->now_us),
                                    SQL_STR(t->result) };
    int r = 0;

    if (t->session_id.n)
        r = write_reply(tx, t, e);
    if (r < 0 || !t->key.n)
        return r;
    return store_run(tx, &sql_result_put, args, LEN(args), NULL, NULL, e);
}

CO int turn_end(struct store *s, const struct turn_end *t, struct err *e)
{
    struct turn_end copy = *t;

    return store_do(s, end_body, &copy, e);
}
