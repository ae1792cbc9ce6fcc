/* SPDX-License-Identifier: MIT */
/*
 * bridge/import.c — reading the file of export.c or of the original. Parsing and checking run on
 * an offload thread, since a file may have megabytes; only then the store is touched, once.
 */
#include <string.h>

#include "base/offload.h"
#include "bridge/bridge_int.h"
#include "bridge/export.h"
#include "bridge/session_int.h"

static const struct sql sql_delete = {
    "import delete",
    "DELETE FROM vps_sessions WHERE session_id = ?1 RETURNING sid",
};
static const struct sql sql_delete_messages = {
    "import delete messages",
    "DELETE FROM vps_messages WHERE sid = ?1",
};
static const struct sql sql_put = {
    "import session",
    "INSERT INTO vps_sessions (session_id, sid, user_id, created_us, active_us, last_seq, done_seq,"
    " metadata) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
};

struct imported {
    struct str session_id, user_id, metadata;
    int64_t created_us, active_us;
    struct message *messages;
    size_t n_messages;
};

struct import {
    struct str text;
    struct arena arena;
    struct imported *v;
    size_t n;
    int64_t first_sid;
};

/* --- checking --- */

static int need_str(const json_t *o, const char *key, struct str *ret, struct err *e)
{
    *ret = json_member_str(o, key);
    if (!ret->p)
        return err_set(e, ERR_INVALID, "'%s' must be a string", key);
    return 0;
}

static int need_time(const json_t *o, const char *key, int64_t *ret, struct err *e)
{
    struct str text;
    int r;

    r = need_str(o, key, &text, e);
    if (r < 0)
        return r;
    if (time_parse(text, ret, e) < 0)
        return err_set(e, ERR_INVALID, "'%s' is not an ISO 8601 date and time", key);
    return 0;
}

static int read_message(const json_t *j, struct message *m, struct err *e)
{
    int r;

    if (!json_is_object(j))
        return err_set(e, ERR_INVALID, "must be an object");
    r = need_time(j, "timestamp", &m->at_us, e);
    if (r == 0)
        r = need_str(j, "role", &m->role, e);
    if (r == 0)
        r = need_str(j, "content", &m->content, e);
    if (r == 0 && !json_object_get(j, "agent"))
        m->agent = STR("");
    else if (r == 0)
        r = need_str(j, "agent", &m->agent, e);
    m->interrupted = json_is_true(json_object_get(j, "interrupted"));
    return r;
}

static int read_messages(struct import *x, const json_t *list, struct imported *s, struct err *e)
{
    int r;

    if (!json_is_array(list))
        return err_set(e, ERR_INVALID, "'messages' must be a list");
    s->n_messages = json_array_size(list);
    s->messages = arena_alloc(&x->arena, (s->n_messages + 1) * sizeof(*s->messages));
    for (size_t i = 0; i < s->n_messages; i++) {
        r = read_message(json_array_get(list, i), &s->messages[i], e);
        if (r < 0)
            return err_wrap(e, "message %zu", i);
    }
    return 0;
}

static int read_session(struct import *x, struct str id, const json_t *j, struct imported *s,
                        struct err *e)
{
    const json_t *metadata;
    struct str inner;
    int r;

    if (!id.n || id.n > 4 * SESSION_ID_MAX || str_eq_z(id, "stats"))
        return err_set(e, ERR_INVALID, "is not a possible session id");
    if (!json_is_object(j))
        return err_set(e, ERR_INVALID, "must be an object");
    s->session_id = id; /* the key of the map is what counts */
    r = need_str(j, "session_id", &inner, e);
    if (r == 0)
        r = need_str(j, "user_id", &s->user_id, e);
    if (r == 0)
        r = need_time(j, "created_at", &s->created_us, e);
    if (r == 0)
        r = need_time(j, "last_activity", &s->active_us, e);
    if (r == 0)
        r = read_messages(x, json_object_get(j, "messages"), s, e);
    if (r < 0)
        return r;
    metadata = json_object_get(j, "metadata");
    if (!json_is_object(metadata))
        return err_set(e, ERR_INVALID, "'metadata' must be an object");
    return json_text(metadata, METADATA_MAX, &x->arena, &s->metadata, e);
}

static int check(void *arg, struct err *e)
{
    struct import *x = arg;
    json_t *file, *sessions, *value;
    const char *key;
    size_t key_len;
    int r;

    r = json_parse(x->text, JSON_DEPTH, &x->arena, &file, NULL, e);
    if (r < 0)
        return err_wrap(e, "the file is not JSON");
    if (!json_is_object(file))
        return err_set(e, ERR_INVALID, "the file must hold an object");
    sessions = json_object_get(file, "sessions");
    if (!sessions)
        return 0;
    if (!json_is_object(sessions))
        return err_set(e, ERR_INVALID, "'sessions' must be an object");
    x->v = arena_alloc(&x->arena, (json_object_size(sessions) + 1) * sizeof(*x->v));
    json_object_keylen_foreach(sessions, key, key_len, value)
    {
        r = read_session(x, (struct str){ key, key_len }, value, &x->v[x->n++], e);
        if (r < 0)
            return err_wrap(e, "session '%.60s'", key);
    }
    return 0;
}

/* --- storing --- */

static int sid_row(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int store_session(struct store_tx *tx, int64_t sid, const struct imported *s, struct err *e)
{
    const struct sql_arg args[] = {
        SQL_STR(s->session_id), SQL_INT(sid),          SQL_STR(s->user_id),
        SQL_INT(s->created_us), SQL_INT(s->active_us), SQL_INT((int64_t)s->n_messages),
        SQL_STR(s->metadata),
    };
    int64_t old = 0;
    int r;

    r = store_run(tx, &sql_delete, args, 1, sid_row, &old, e);
    if (r >= 0 && old) {
        const struct sql_arg old_sid = SQL_INT(old);

        r = store_run(tx, &sql_delete_messages, &old_sid, 1, NULL, NULL, e);
    }
    if (r >= 0)
        r = store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);
    for (size_t i = 0; r >= 0 && i < s->n_messages; i++)
        r = message_put(tx, sid, (int64_t)i + 1, &s->messages[i], e);
    return r < 0 ? r : 0;
}

static int store_body_all(struct store_tx *tx, void *arg, struct err *e)
{
    const struct import *x = arg;
    int r = 0;

    for (size_t i = 0; r == 0 && i < x->n; i++)
        r = store_session(tx, x->first_sid + (int64_t)i, &x->v[i], e);
    return r;
}

CO int import_text(struct bridge *b, struct str text, long long *ret_n, struct err *e)
{
    struct import x = { .text = text };
    int r;

    r = offload(check, &x, e);
    if (r == 0 && (long long)x.n > b->conf->sessions_max)
        r = err_set(e, ERR_LIMIT, "the file holds %zu sessions, bridge.sessions_max is %lld", x.n,
                    b->conf->sessions_max);
    if (r == 0 && x.n) {
        x.first_sid = bridge_sids(b, (int64_t)x.n);
        r = store_do(b->store, store_body_all, &x, e);
        if (r == 0)
            r = sessions_recount(b, e);
        if (r == 0 && b->n_sessions > b->conf->sessions_max)
            r = sessions_drop_surplus(b, e);
    }
    if (r == 0)
        *ret_n = (long long)x.n;
    arena_done(&x.arena);
    return r;
}
