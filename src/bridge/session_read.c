/* SPDX-License-Identifier: MIT */
/* bridge/session_read.c — sessions as JSON, lists, counts, and deleting one. */
#include "bridge/session_int.h"

static const struct sql sql_get = {
    "session get",
    "SELECT sid, user_id, created_us, active_us, done_seq, metadata FROM vps_sessions"
    " WHERE session_id = ?1",
};
static const struct sql sql_messages = {
    "messages get",
    "SELECT seq, ts_us, role, content, agent, interrupted FROM vps_messages WHERE sid = ?1"
    " ORDER BY seq",
};
static const struct sql sql_delete = {
    "session delete",
    "DELETE FROM vps_sessions WHERE session_id = ?1 RETURNING sid",
};
static const struct sql sql_delete_messages = {
    "messages delete",
    "DELETE FROM vps_messages WHERE sid = ?1",
};
static const struct sql sql_list = {
    "session list",
    "SELECT session_id, user_id, created_us, active_us,"
    " (SELECT count(*) FROM vps_messages WHERE vps_messages.sid = vps_sessions.sid)"
    " FROM vps_sessions WHERE session_id > ?1 ORDER BY session_id LIMIT ?2",
};
static const struct sql sql_stats = {
    "session stats",
    "SELECT count(*), min(active_us), max(active_us), (SELECT count(*) FROM vps_messages)"
    " FROM vps_sessions",
};

/* --- one session --- */

struct reading {
    struct str session_id, user_id, metadata;
    int64_t active_sid, active_seq;
    struct out *o;
    struct arena arena;
    int64_t sid, created_us, last_us, done_seq;
    size_t n_messages;
};

static int get_row(struct store_row *row, void *arg, struct err *e)
{
    struct reading *g = arg;

    g->sid = row_int(row, 0);
    g->user_id = arena_str(&g->arena, row_str(row, 1));
    g->created_us = row_int(row, 2);
    g->last_us = row_int(row, 3);
    g->done_seq = row_int(row, 4);
    g->metadata = arena_str(&g->arena, row_str(row, 5));
    return 0;
}

static int message_row(struct store_row *row, void *arg, struct err *e)
{
    struct reading *g = arg;
    struct out *o = g->o;
    int64_t seq = row_int(row, 0);
    bool running = g->sid == g->active_sid && seq == g->active_seq;
    bool open = seq > g->done_seq && !running && str_eq_z(row_str(row, 2), "user");

    out_comma(o, g->n_messages++);
    out_z(o, "{\"timestamp\":");
    out_time(o, row_int(row, 1));
    out_z(o, ",\"role\":");
    out_str(o, row_str(row, 2));
    out_z(o, ",\"content\":");
    out_str(o, row_str(row, 3));
    out_z(o, ",\"agent\":");
    out_str(o, row_str(row, 4));
    if (open || row_int(row, 5))
        out_z(o, ",\"interrupted\":true");
    out_z(o, "}");
    if (o->r < 0)
        *e = o->e;
    return o->r;
}

static int get_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct reading *g = arg;
    struct out *o = g->o;
    struct sql_arg arg_id = SQL_STR(g->session_id);
    int r;

    g->sid = 0;
    g->n_messages = 0;
    buf_clear(&o->b);
    r = store_run(tx, &sql_get, &arg_id, 1, get_row, g, e);
    if (r < 0)
        return r;
    if (!g->sid)
        return err_set(e, ERR_NOT_FOUND, "Session '" STR_FMT "' not found", STR_ARG(g->session_id));
    out_z(o, "{\"session_id\":");
    out_str(o, g->session_id);
    out_z(o, ",\"user_id\":");
    out_str(o, g->user_id);
    out_z(o, ",\"created_at\":");
    out_time(o, g->created_us);
    out_z(o, ",\"last_activity\":");
    out_time(o, g->last_us);
    out_z(o, ",\"messages\":[");
    arg_id = SQL_INT(g->sid);
    r = store_run(tx, &sql_messages, &arg_id, 1, message_row, g, e);
    if (r < 0)
        return r;
    out_z(o, "],\"metadata\":");
    out_raw(o, g->metadata);
    out_z(o, "}");
    if (o->r < 0)
        *e = o->e;
    return o->r;
}

CO int session_write(struct store *s, struct str session_id, int64_t active_sid, int64_t active_seq,
                     struct out *o, struct err *e)
{
    struct reading g = {
        .session_id = session_id,
        .active_sid = active_sid,
        .active_seq = active_seq,
        .o = o,
    };
    int r;

    r = store_read(s, get_body, &g, e);
    arena_done(&g.arena);
    return r;
}

/* --- delete --- */

struct deleting {
    struct str session_id;
    int64_t sid;
};

static int sid_row(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int delete_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct deleting *d = arg;
    struct sql_arg id = SQL_STR(d->session_id);
    int r;

    d->sid = 0;
    r = store_run(tx, &sql_delete, &id, 1, sid_row, &d->sid, e);
    if (r < 0)
        return r;
    if (!d->sid)
        return err_set(e, ERR_NOT_FOUND, "Session '" STR_FMT "' not found", STR_ARG(d->session_id));
    id = SQL_INT(d->sid);
    return store_run(tx, &sql_delete_messages, &id, 1, NULL, NULL, e);
}

CO int session_delete(struct store *s, struct str session_id, struct err *e)
{
    struct deleting d = { .session_id = session_id };

    return store_do(s, delete_body, &d, e);
}

/* --- lists and counts --- */

struct listing {
    struct str after;
    long long limit;
    struct out *o;
    size_t n;
};

static int list_row(struct store_row *row, void *arg, struct err *e)
{
    struct listing *l = arg;
    struct out *o = l->o;

    out_comma(o, l->n++);
    out_z(o, "{\"session_id\":");
    out_str(o, row_str(row, 0));
    out_z(o, ",\"user_id\":");
    out_str(o, row_str(row, 1));
    out_z(o, ",\"created_at\":");
    out_time(o, row_int(row, 2));
    out_z(o, ",\"last_activity\":");
    out_time(o, row_int(row, 3));
    out_z(o, ",\"messages\":");
    out_int(o, row_int(row, 4));
    out_z(o, "}");
    return 0;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct listing *l = arg;
    const struct sql_arg args[] = { SQL_STR(l->after), SQL_INT(l->limit) };
    int r;

    l->n = 0;
    buf_clear(&l->o->b);
    out_z(l->o, "{\"sessions\":[");
    r = store_run(tx, &sql_list, args, LEN(args), list_row, l, e);
    out_z(l->o, "]}");
    return r;
}

CO int session_list(struct store *s, struct str after, long long limit, struct out *o,
                    struct err *e)
{
    struct listing l = { .after = after.p ? after : STR(""), .limit = limit, .o = o };

    return store_read(s, list_body, &l, e);
}

static int stats_row(struct store_row *row, void *arg, struct err *e)
{
    *(struct session_stats *)arg = (struct session_stats){
        .sessions = row_int(row, 0),
        .oldest_us = row_int(row, 1),
        .newest_us = row_int(row, 2),
        .messages = row_int(row, 3),
    };
    return 0;
}

static int stats_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_stats, NULL, 0, stats_row, arg, e);
}

CO int session_stats(struct store *s, struct session_stats *ret, struct err *e)
{
    return store_read(s, stats_body, ret, e);
}
