/* SPDX-License-Identifier: MIT */
/* bridge/session_write.c — sessions made and added to without a call. */
#include "bridge/session_int.h"

static const struct sql sql_ensure = {
    "session ensure",
    "INSERT INTO vps_sessions (session_id, sid, user_id, created_us, active_us, last_seq, done_seq,"
    " metadata) VALUES (?1, ?2, ?3, ?4, ?4, 0, 0, '{}') ON CONFLICT (session_id) DO NOTHING",
};
static const struct sql sql_append = {
    "session append",
    "UPDATE vps_sessions SET active_us = ?2, last_seq = last_seq + 1, done_seq = last_seq + 1"
    " WHERE session_id = ?1 RETURNING sid, last_seq",
};

struct ensuring {
    struct str session_id, user_id;
    int64_t sid;
    bool created;
};

static int ensure_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct ensuring *x = arg;
    const struct sql_arg args[] = { SQL_STR(x->session_id), SQL_INT(x->sid), SQL_STR(x->user_id),
                                    SQL_INT(wall_us()) };
    int r;

    r = store_run(tx, &sql_ensure, args, LEN(args), NULL, NULL, e);
    x->created = store_changed(tx) > 0;
    return r;
}

CO int session_ensure(struct store *s, struct str session_id, struct str user_id, int64_t new_sid,
                      bool *ret_created, struct err *e)
{
    struct ensuring x = { .session_id = session_id, .user_id = user_id, .sid = new_sid };
    int r;

    r = store_do(s, ensure_body, &x, e);
    if (r == 0)
        *ret_created = x.created;
    return r;
}

struct appending {
    struct str session_id;
    struct message message;
    int64_t sid, seq;
};

static int append_row(struct store_row *row, void *arg, struct err *e)
{
    struct appending *x = arg;

    x->sid = row_int(row, 0);
    x->seq = row_int(row, 1);
    return 0;
}

static int append_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct appending *x = arg;
    const struct sql_arg args[] = { SQL_STR(x->session_id), SQL_INT(x->message.at_us) };
    int r;

    x->seq = 0;
    r = store_run(tx, &sql_append, args, LEN(args), append_row, x, e);
    if (r < 0)
        return r;
    if (!x->seq)
        return err_set(e, ERR_NOT_FOUND, "Session '" STR_FMT "' not found", STR_ARG(x->session_id));
    return message_put(tx, x->sid, x->seq, &x->message, e);
}

CO int session_append(struct store *s, struct str session_id, struct str role, struct str content,
                      struct str agent, struct err *e)
{
    struct appending x = {
        .session_id = session_id,
        .message = { .at_us = wall_us(), .role = role, .content = content, .agent = agent },
    };

    return store_do(s, append_body, &x, e);
}
