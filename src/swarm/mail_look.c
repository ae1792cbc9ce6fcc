/* SPDX-License-Identifier: MIT */
/*
 * Looking at messages, and mending: replay what is dead, drop what is not to be delivered.
 */
#include <string.h>

#include "swarm/mail_int.h"

#define LIST_BYTES (16 * MIB) /* of the texts in one list; past it the list ends early */

/* clang-format off */
#define INFO \
    "SELECT position, workflow_uuid, message_id, sender, session, content, metadata, response," \
    " error, status, attempts, created_at, expires_at, ended_at FROM agent_messages"
#define LISTED(text) \
    INFO " WHERE (?1" text " IS NULL OR session = ?1) AND (?2" text " IS NULL OR sender = ?2)" \
    " AND position < ?3 AND created_at >= ?4" \
    " AND status IN (?5, ?6, ?7, ?8, ?9) ORDER BY position DESC LIMIT ?10"
static const struct sql sql_list = { "mail list", LISTED(""), LISTED("::text") };
static const struct sql sql_get = { "mail get", INFO " WHERE workflow_uuid = ?1", NULL };
static const struct sql sql_get_id = {
    "mail get by id", INFO " WHERE message_id = ?1 AND message_id <> workflow_uuid ORDER BY position DESC LIMIT 1", NULL,
};
static const struct sql sql_replay = {
    "mail replay",
    "UPDATE agent_messages SET status = 'pending', attempts = 0, error = NULL, ended_at = NULL,"
    " expires_at = ?2 WHERE position = ?1 AND status IN ('failed', 'expired', 'dropped')", NULL,
};
static const struct sql sql_drop = {
    "mail drop",
    "UPDATE agent_messages SET status = 'dropped', ended_at = ?2"
    " WHERE position = ?1 AND status = 'pending'", NULL,
};
static const struct sql sql_pending = {
    "mail pending",
    "SELECT count(*), min(created_at) FROM agent_messages WHERE status = 'pending'", NULL,
};
static const struct sql sql_ended = {
    "mail ended",
    "SELECT status, count(*) FROM agent_messages WHERE status <> 'pending' GROUP BY status", NULL,
};
/* clang-format on */

static enum mail_status status_of(struct str name)
{
    for (int i = 0; i < MAIL_STATUSES; i++) {
        if (str_eq_z(name, mail_status_names[i]))
            return (enum mail_status)i;
    }
    return MAIL_DROPPED; /* the table has a CHECK */
}

static struct str opt_text(struct store_row *row, int col, struct arena *a)
{
    return row_is_null(row, col) ? (struct str){ 0 } : arena_str(a, row_str(row, col));
}

static void take_info(struct store_row *row, struct arena *a, struct mail_info *ret)
{
    *ret = (struct mail_info){
        .position = row_int(row, 0),
        .workflow = arena_str(a, row_str(row, 1)),
        .id = arena_str(a, row_str(row, 2)),
        .from = arena_str(a, row_str(row, 3)),
        .to = arena_str(a, row_str(row, 4)),
        .content = arena_str(a, row_str(row, 5)),
        .metadata = opt_text(row, 6, a),
        .response = opt_text(row, 7, a),
        .error = opt_text(row, 8, a),
        .status = status_of(row_str(row, 9)),
        .attempts = row_int(row, 10),
        .created_ms = row_int(row, 11),
        .expires_ms = row_int(row, 12),
        .ended_ms = row_int(row, 13),
    };
}

/* --- list --- */

struct list_call {
    const struct mail_filter *filter;
    struct arena arena;
    struct mail_info *rows;
    size_t n, max, bytes;
};

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct list_call *call = arg;

    if (call->n == call->max || call->bytes >= LIST_BYTES)
        return 1;
    call->bytes += row_str(row, 5).n + row_str(row, 6).n + row_str(row, 7).n;
    take_info(row, &call->arena, &call->rows[call->n++]);
    return 0;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct list_call *call = arg;
    const struct mail_filter *f = call->filter;
    struct sql_arg args[10] = {
        f->session.n ? SQL_STR(f->session) : SQL_NULL,
        f->from.n ? SQL_STR(f->from) : SQL_NULL,
        SQL_INT(f->before ? f->before : INT64_MAX),
        SQL_INT(f->created_from_ms),
    };
    int r;

    for (int i = 0; i < MAIL_STATUSES; i++)
        args[4 + i] = SQL_Z(!f->statuses || f->statuses & 1u << i ? mail_status_names[i] : "");
    args[9] = SQL_INT((int64_t)call->max);
    arena_done(&call->arena);
    call->rows = arena_raw(&call->arena, (call->max + 1) * sizeof(*call->rows));
    call->n = call->bytes = 0;
    r = store_run(tx, &sql_list, args, LEN(args), take_row, call, e);
    return r < 0 ? r : 0;
}

static void arena_done_hook(void *p)
{
    arena_done(p);
    free(p);
}

/* The rows were read by another thread into an arena of their own, which the caller's takes over.
 */
static void hand_over(struct arena *a, const struct arena *from)
{
    struct arena *kept = xcalloc(1, sizeof(*kept));

    *kept = *from;
    arena_on_free(a, arena_done_hook, kept);
}

CO int mail_list(struct mail *m, const struct mail_filter *f, struct arena *a,
                 struct mail_info **ret, size_t *ret_n, struct err *e)
{
    struct list_call call = { .filter = f, .max = f->limit ? f->limit : 50 };
    int r;

    if (call.max > 1000)
        call.max = 1000;
    r = store_read(m->store, list_body, &call, e);
    if (r < 0) {
        arena_done(&call.arena);
        return r;
    }
    hand_over(a, &call.arena);
    *ret = call.rows;
    *ret_n = call.n;
    return 0;
}

/* --- one --- */

struct get_call {
    struct str id;
    struct arena arena;
    struct mail_info info;
    bool any;
};

static int take_one(struct store_row *row, void *arg, struct err *e)
{
    struct get_call *call = arg;

    call->any = true;
    take_info(row, &call->arena, &call->info);
    return 0;
}

static int get_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct get_call *call = arg;
    const struct sql_arg args[] = { SQL_STR(call->id) };
    int r;

    arena_done(&call->arena);
    call->any = false;
    r = store_run(tx, &sql_get, args, LEN(args), take_one, call, e);
    if (r == 0 && !call->any)
        r = store_run(tx, &sql_get_id, args, LEN(args), take_one, call, e);
    return r;
}

CO int mail_get(struct mail *m, struct str id, struct arena *a, struct mail_info *ret,
                struct err *e)
{
    struct get_call call = { .id = id };
    int r = 0;

    if (id.n && utf8_valid(id.p, id.n) && !memchr(id.p, 0, id.n))
        r = store_read(m->store, get_body, &call, e);
    if (r == 0 && !call.any)
        r = err_set(e, ERR_NOT_FOUND, "Message %.*s not found", (int)(id.n < 200 ? id.n : 200),
                    id.n ? id.p : "");
    if (r < 0) {
        arena_done(&call.arena);
        return r;
    }
    hand_over(a, &call.arena);
    *ret = call.info;
    return 0;
}

/* --- mending --- */

struct mend_call {
    const struct sql *sql;
    int64_t position, at;
    bool changed;
};

static int mend_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct mend_call *call = arg;
    const struct sql_arg args[] = { SQL_INT(call->position),
                                    call->at ? SQL_INT(call->at) : SQL_NULL };
    int r = store_run(tx, call->sql, args, LEN(args), NULL, NULL, e);

    call->changed = r == 0 && store_changed(tx) == 1;
    return r;
}

CO int mail_replay(struct mail *m, struct str id, struct err *e)
{
    int64_t age = m->set->message_max_age_ms;
    struct mend_call call = { &sql_replay, 0, age ? swarm_now() + age : 0, false };
    struct arena a = { 0 };
    struct mail_info info;
    int r = mail_get(m, id, &a, &info, e);

    call.position = r == 0 ? info.position : 0;
    if (r == 0)
        r = store_do(m->store, mend_body, &call, e);
    if (r == 0 && !call.changed)
        r = err_set(e, ERR_CONFLICT, "Message %.80s is %s: only a dead one is replayed", info.id.p,
                    mail_status_names[info.status]);
    if (r == 0)
        mail_sent(m, info.to);
    arena_done(&a);
    return r;
}

CO int mail_drop(struct mail *m, struct str id, struct err *e)
{
    struct mend_call call = { &sql_drop, 0, swarm_now(), false };
    struct arena a = { 0 };
    struct mail_info info;
    int r = mail_get(m, id, &a, &info, e);

    call.position = r == 0 ? info.position : 0;
    if (r == 0)
        r = store_do(m->store, mend_body, &call, e);
    if (r == 0 && !call.changed)
        r = err_set(e, ERR_CONFLICT, "Message %.80s has ended: it is %s", info.id.p,
                    mail_status_names[info.status]);
    if (r == 0) {
        mail_box_ended(m, info.to, info.workflow, info.position, true);
        mail_wait_nobody(m, NULL, info.workflow);
    }
    arena_done(&a);
    return r;
}

/* --- counts --- */

static int take_pending(struct store_row *row, void *arg, struct err *e)
{
    struct mail_counts *counts = arg;

    counts->by_status[MAIL_PENDING] = row_int(row, 0);
    counts->oldest_pending_ms = row_int(row, 1);
    return 0;
}

static int take_ended(struct store_row *row, void *arg, struct err *e)
{
    struct mail_counts *counts = arg;

    counts->by_status[status_of(row_str(row, 0))] = row_int(row, 1);
    return 0;
}

static int counts_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r;

    *(struct mail_counts *)arg = (struct mail_counts){ 0 };
    r = store_run(tx, &sql_pending, NULL, 0, take_pending, arg, e);
    return r < 0 ? r : store_run(tx, &sql_ended, NULL, 0, take_ended, arg, e);
}

static int pending_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_pending, NULL, 0, take_pending, arg, e);
}

CO int mail_look_gauge(struct mail *m, struct err *e)
{
    struct mail_counts counts = { 0 };
    int r = store_read(m->store, pending_body, &counts, e);

    if (r == 0)
        metric_set(&swarm_m_pending, 0, counts.by_status[MAIL_PENDING]);
    return r;
}

CO int mail_overview(struct mail *m, struct mail_counts *ret, struct err *e)
{
    int r = store_read(m->store, counts_body, ret, e);

    if (r < 0)
        return r;
    metric_set(&swarm_m_pending, 0, ret->by_status[MAIL_PENDING]);
    ret->subscribers = m->n_subs;
    ret->under_way = m->n_letters;
    return 0;
}
