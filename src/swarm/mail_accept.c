/* SPDX-License-Identifier: MIT */
/*
 * Acceptances: a batch of new messages in one commit. On PostgreSQL it is one statement, which may
 * be sent twice when its answer is lost: the second time nothing is new, and what is there is
 * found to be the same. On SQLite it is one transaction, a prepared statement for each.
 *
 * Positions: on SQLite a counter of the writer's thread, seeded from the table at the start; on
 * PostgreSQL a number for each batch and a place in it.
 */
#include "swarm/mail_int.h"

/* clang-format off */
static const struct sql sql_insert = {
    "mail accept one",
    "INSERT INTO agent_messages (position, workflow_uuid, message_id, sender, session, content,"
    " metadata, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    " ON CONFLICT (workflow_uuid) DO NOTHING",
    "INSERT INTO agent_messages (position, workflow_uuid, message_id, sender, session, content,"
    " metadata, created_at, expires_at) VALUES (?1 + 4096 * nextval('agent_messages_batch'), ?2,"
    " ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (workflow_uuid) DO NOTHING",
};
static const struct sql sql_insert_many = { /* ?9 what others are told */
    "mail accept", "",
    "WITH b AS MATERIALIZED (SELECT 4096 * nextval('agent_messages_batch') - 1 AS n),"
    " ins AS (INSERT INTO agent_messages (position, workflow_uuid, message_id, sender, session,"
    "   content, metadata, created_at, expires_at)"
    "  SELECT b.n + j.place, j.workflow, j.id, j.sender, j.session, j.content, j.metadata,"
    "   j.created, j.expires FROM b CROSS JOIN unnest(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    "   WITH ORDINALITY AS j (workflow, id, sender, session, content, metadata, created, expires,"
    "    place)"
    "  ON CONFLICT (workflow_uuid) DO NOTHING RETURNING workflow_uuid, position)"
    " SELECT ins.workflow_uuid, ins.position,"
    "  (SELECT 1 FROM pg_notify('" MAIL_CHANNEL "', ?9)) FROM ins ORDER BY ins.position",
};
static const struct sql sql_twin = {
    "mail accepted before",
    "SELECT message_id, sender, session, content, created_at, status, position"
    " FROM agent_messages WHERE workflow_uuid = ?1", NULL,
};
static const struct sql sql_count = {
    "mail due in a session",
    "SELECT count(*) FROM (SELECT 1 FROM agent_messages WHERE session = ?1 AND status = 'pending'"
    " LIMIT ?2) AS due", NULL,
};
/* clang-format on */

static struct mail_accept *of(struct lane_ride *ride)
{
    return container_of(ride, struct mail_accept, ride);
}

static struct sql_arg text(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

static struct sql_arg number(int64_t v)
{
    return v ? SQL_INT(v) : SQL_NULL;
}

/* --- one in a transaction --- */

static int take_twin(struct store_row *row, void *arg, struct err *e)
{
    struct mail_accept *a = arg;
    struct str id = row_str(row, 0);

    a->existed = true;
    a->conflict = !str_eq(row_str(row, 1), a->row.from) || !str_eq(row_str(row, 2), a->row.to) ||
                  !str_eq(row_str(row, 3), a->row.content);
    a->row.created_ms = row_int(row, 4);
    a->pending = str_eq_z(row_str(row, 5), "pending");
    a->row.position = row_int(row, 6);
    if (id.n >= sizeof(a->id))
        return err_set(e, ERR_INTERNAL, "a message id in the database is too long");
    fmt_z(a->id, sizeof(a->id), STR_FMT, STR_ARG(id));
    return 0;
}

int mail_accept_twin_tx(struct store_tx *tx, struct mail_accept *a, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(a->row.workflow) };

    a->existed = a->conflict = a->pending = false;
    return store_run(tx, &sql_twin, args, LEN(args), take_twin, a, e);
}

int mail_accept_tx(struct store_tx *tx, const struct mail *m, struct mail_accept *a, struct err *e)
{
    const struct mail_row *row = &a->row;
    int64_t position = m->pg ? 0 : atomic_fetch_add(m->seq, 1) + 1;
    const struct sql_arg args[] = {
        SQL_INT(position),   SQL_STR(row->workflow),   SQL_STR(row->id),
        SQL_STR(row->from),  SQL_STR(row->to),         SQL_STR(row->content),
        text(row->metadata), SQL_INT(row->created_ms), number(row->expires_ms),
    };
    int r = store_run(tx, &sql_insert, args, LEN(args), NULL, NULL, e);

    if (r < 0)
        return r;
    a->wrote = store_changed(tx) == 1;
    a->row.position = position;
    if (a->wrote) {
        a->existed = a->conflict = a->pending = false;
        return 0;
    }
    r = mail_accept_twin_tx(tx, a, e);
    if (r == 0 && !a->existed)
        r = err_set(e, ERR_UNAVAILABLE, "another message of this key comes and goes");
    return r;
}

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

int mail_accept_count_tx(struct store_tx *tx, struct str session, int64_t max, int64_t *ret,
                         struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(session), SQL_INT(max) };

    *ret = 0;
    return store_run(tx, &sql_count, args, LEN(args), take_count, ret, e);
}

/* --- SQLite --- */

struct batch_call {
    struct mail *m;
    struct lane_ride *first;
};

static int batch_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch_call *call = arg;
    int r = 0;

    for (struct lane_ride *ride = call->first; r == 0 && ride; ride = ride->next) {
        if (!of(ride)->stays)
            r = mail_accept_tx(tx, call->m, of(ride), e);
    }
    return r;
}

/* --- PostgreSQL --- */

enum { TEXTS = 6, INTS = 2 };

struct written_call {
    struct lane_ride *first, *at;
    size_t n;
};

/* Rows come in about the order of the entries, and may all come again. */
static int take_written(struct store_row *row, void *arg, struct err *e)
{
    struct written_call *call = arg;
    struct str key = row_str(row, 0);

    for (size_t i = 0; i < call->n; i++) {
        struct mail_accept *a = of(call->at ? call->at : call->first);

        call->at = a->ride.next;
        if (a->stays)
            continue;
        if (a->wrote ? a->row.position == row_int(row, 1) : str_eq(a->row.workflow, key)) {
            a->wrote = true;
            a->row.position = row_int(row, 1);
            return 0;
        }
    }
    return err_set(e, ERR_INTERNAL, "a message was accepted that nobody sent");
}

static void fill_columns(struct lane_ride *first, size_t n, struct str *texts, int64_t *ints)
{
    size_t i = 0;

    for (struct lane_ride *ride = first; ride; ride = ride->next) {
        const struct mail_row *row = &of(ride)->row;
        const struct str of_row[TEXTS] = { row->workflow, row->id,      row->from,
                                           row->to,       row->content, row->metadata };

        if (of(ride)->stays)
            continue;
        for (int k = 0; k < TEXTS; k++)
            texts[(size_t)k * n + i] = of_row[k];
        ints[i] = row->created_ms;
        ints[n + i] = row->expires_ms ? row->expires_ms : SQL_INTS_NULL;
        i++;
    }
}

static int twins_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch_call *call = arg;
    int r = 0;

    for (struct lane_ride *ride = call->first; r == 0 && ride; ride = ride->next) {
        struct mail_accept *a = of(ride);

        if (a->wrote || a->stays)
            continue;
        r = mail_accept_twin_tx(tx, a, e);
        if (r == 0 && !a->existed)
            r = err_set(e, ERR_UNAVAILABLE, "another message of this key comes and goes");
    }
    return r;
}

static CO int send_pg(struct mail *m, struct lane_ride *first, size_t n_all, size_t n,
                      struct err *e)
{
    struct batch_call call = { m, first };
    struct written_call written = { first, first, n_all };
    struct arena a = { 0 };
    AUTO(buf_done) struct buf payload;
    struct str *texts = arena_raw(&a, TEXTS * n * sizeof(*texts));
    int64_t *ints = arena_raw(&a, INTS * n * sizeof(*ints));
    struct sql_arg args[TEXTS + INTS + 1];
    bool all = true;
    int r;

    buf_init(&payload, 8 * KIB);
    fill_columns(first, n, texts, ints);
    for (size_t k = 0; k < TEXTS; k++)
        args[k] = SQL_TEXTS(texts + k * n, n);
    for (size_t k = 0; k < INTS; k++)
        args[TEXTS + k] = SQL_INTS(ints + k * n, n);
    mail_hear_payload(m, first, &payload);
    args[TEXTS + INTS] = SQL_STR(buf_str(&payload));
    r = store_once(m->store, &sql_insert_many, args, LEN(args), take_written, &written, e);
    arena_done(&a);
    for (struct lane_ride *ride = first; ride; ride = ride->next)
        all = all && (of(ride)->wrote || of(ride)->stays);
    if (r == 0 && !all)
        r = store_read(m->store, twins_body, &call, e);
    return r;
}

/* --- either --- */

CO int mail_accept_send(void *mail, struct lane_ride *first, size_t n, struct err *e)
{
    struct mail *m = mail;
    struct batch_call call = { m, first };
    int64_t now = swarm_now();
    size_t goes;
    int r = fiber_lane_enter(&m->door, DEADLINE_NONE, e);

    if (r < 0)
        return r;
    r = mail_room(m, first, &goes, e);
    fiber_lane_leave(&m->door); /* who is next runs when we wait for the store */
    if (r < 0 || goes == 0)
        return r;
    for (struct lane_ride *ride = first; ride; ride = ride->next) {
        if (!of(ride)->stays)
            of(ride)->row.created_ms = now;
    }
    r = m->pg ? send_pg(m, first, n, goes, e) : store_do(m->store, batch_body, &call, e);
    return r < 0 ? r : 0;
}

static void arrived(struct mail *m, struct mail_accept *a)
{
    struct mail_box *box = a->box;
    struct mail_letter *l;

    metric_add(&swarm_m_accepted, 0, 1);
    box->pending++;
    if (!m->running)
        return;
    if (box->n_subs == 0) {
        box->behind = true;
        mail_drive_hint(m, box);
        return;
    }
    /* A pump may have read it between the commit and now, and it may have ended since. */
    if (a->row.position <= box->cursor) {
        mail_box_more(m, box, true);
        return;
    }
    /* From memory, when nothing of the session waits before it. */
    if (box->behind || box->rescan || box->pumping || box->queued || box->choked ||
        box->n_letters >= MAIL_WINDOW) {
        mail_box_more(m, box, false);
        return;
    }
    l = mail_letter_new(m, box, &a->row);
    if (mail_box_push(m, box, l, &a->row)) {
        box->cursor = a->row.position;
    } else {
        mail_letter_free(m, l);
        mail_box_more(m, box, false);
    }
}

static void tell(struct mail *m, struct mail_accept *a)
{
    if (a->wrote)
        arrived(m, a);
    else
        metric_add(&swarm_m_duplicates, 0, 1);
    if (a->existed && a->pending && !a->conflict)
        mail_box_more(m, a->box, true); /* perhaps written the time before, and nobody was told */
}

void mail_accept_told(void *mail, struct lane_ride *ride, int r, const struct err *e)
{
    struct mail_accept *a = of(ride);

    mail_room_leave(a);
    if (r == 0 && a->refused == 0)
        tell(mail, a);
    if (a->box)
        a->box->holds--;
    if (a->told)
        a->told(a, r, e);
}
