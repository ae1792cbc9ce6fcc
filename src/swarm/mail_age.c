/* SPDX-License-Identifier: MIT */
/*
 * What is too old. Messages that nobody took in time expire; what has ended is forgotten after
 * messages.keep, or when messages.keep_rows newer ones are there. With it goes the memory of its
 * key.
 *
 * There is no index by time: each would cost every message two writes more. Both looks walk over
 * the table, a bounded stretch at a time, and go on where the last one ended: over what waits, by
 * session; over the rest from the oldest, up to what is too young to be forgotten.
 */
#include "swarm/mail_int.h"

#define EXPIRY_PAGE   1000
#define EXPIRY_PAGES  20 /* of one look */
#define COLLECT_PAGE  500
#define COLLECT_PAGES 20
#define COLLECT_EVERY 5     /* looks, when there was nothing left the last time */
#define ROWS_EVERY    60    /* looks: finding the newest so many may walk over all of them */
#define ROWS_FEW      10000 /* unless they are few */

/* clang-format off */
static const struct sql sql_waiting = {
    "mail waiting",
    "SELECT session, position, expires_at FROM agent_messages WHERE status = 'pending'"
    " AND (session, position) > (?1, ?2) ORDER BY session, position LIMIT ?3", NULL,
};
static const struct sql sql_oldest = {
    "mail oldest",
    "SELECT position, CASE WHEN status = 'pending' THEN NULL ELSE ended_at END, created_at"
    " FROM agent_messages WHERE position > ?1 ORDER BY position LIMIT ?2", NULL,
};
static const struct sql sql_forget = {
    "mail forget", "DELETE FROM agent_messages WHERE position = ?1 AND status <> 'pending'", NULL,
};
static const struct sql sql_forget_many = {
    "mail forget many", "",
    "DELETE FROM agent_messages WHERE position = ANY (?1) AND status <> 'pending'",
};
/* On SQLite positions have no gaps worth speaking of. */
static const struct sql sql_newest = {
    "mail newest",
    "SELECT max(position) - ?1 FROM agent_messages",
    "SELECT position FROM agent_messages ORDER BY position DESC LIMIT 1 OFFSET ?1",
};
/* clang-format on */

/* --- expiry --- */

struct expiry {
    char session[MAIL_SESSION]; /* after this */
    int64_t position, now;
    size_t n_rows, n;
    int64_t at[EXPIRY_PAGE];
};

static int take_waiting(struct store_row *row, void *arg, struct err *e)
{
    struct expiry *x = arg;
    struct str session = row_str(row, 0);

    x->n_rows++;
    if (session.n < sizeof(x->session))
        fmt_z(x->session, sizeof(x->session), STR_FMT, STR_ARG(session));
    x->position = row_int(row, 1);
    if (!row_is_null(row, 2) && row_int(row, 2) <= x->now && x->n < EXPIRY_PAGE)
        x->at[x->n++] = x->position;
    return 0;
}

struct expiry_call {
    const struct mail *m;
    struct expiry *x;
};

static int expiry_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct expiry_call *call = arg;
    const struct sql_arg args[] = {
        SQL_Z(call->m->expiry.session),
        SQL_INT(call->m->expiry.position),
        SQL_INT(EXPIRY_PAGE),
    };

    *call->x = (struct expiry){ .now = swarm_now() };
    return store_run(tx, &sql_waiting, args, LEN(args), take_waiting, call->x, e);
}

static CO int expire_page(struct mail *m, struct expiry *x, struct err *e)
{
    static const struct mail_death death = { MAIL_EXPIRED, "nobody took it in time" };
    struct expiry_call call = { m, x };
    int r = store_read(m->store, expiry_body, &call, e);

    if (r >= 0 && x->n > 0)
        r = mail_dead_kill(m, x->at, x->n, &death, e);
    if (r < 0)
        return r;
    memcpy(m->expiry.session, x->session, sizeof(m->expiry.session));
    m->expiry.position = x->position;
    if (x->n_rows == EXPIRY_PAGE)
        return 1;
    m->expiry.session[0] = '\0'; /* from the begin again */
    m->expiry.position = 0;
    return 0;
}

CO int mail_age_expire(struct mail *m, struct err *e)
{
    struct expiry *x = xcalloc(1, sizeof(*x));
    int r = 1;

    for (int i = 0; r == 1 && i < EXPIRY_PAGES; i++)
        r = expire_page(m, x, e);
    free(x);
    return r < 0 ? r : 0;
}

/* --- forgetting --- */

struct collect {
    bool pg;
    int64_t after, before_ms, below; /* ended before, or of a lower position */
    size_t n_rows, n;
    bool young; /* nothing behind this is old enough */
    int64_t at[COLLECT_PAGE];
};

static int take_oldest(struct store_row *row, void *arg, struct err *e)
{
    struct collect *c = arg;
    int64_t position = row_int(row, 0);

    c->n_rows++;
    c->after = position;
    if (!row_is_null(row, 1) && (row_int(row, 1) <= c->before_ms || position <= c->below))
        c->at[c->n++] = position;
    c->young = row_int(row, 2) > c->before_ms && position > c->below;
    return 0;
}

static int oldest_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct collect *c = arg;
    const struct sql_arg args[] = { SQL_INT(c->after), SQL_INT(COLLECT_PAGE) };

    c->n_rows = c->n = 0;
    c->young = false;
    return store_run(tx, &sql_oldest, args, LEN(args), take_oldest, c, e);
}

static int forget_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct collect *c = arg;
    const struct sql_arg many[] = { SQL_INTS(c->at, c->n) };
    int r = 0;

    if (c->pg)
        return store_run(tx, &sql_forget_many, many, LEN(many), NULL, NULL, e);
    for (size_t i = 0; r == 0 && i < c->n; i++) {
        const struct sql_arg one[] = { SQL_INT(c->at[i]) };

        r = store_run(tx, &sql_forget, one, LEN(one), NULL, NULL, e);
    }
    return r;
}

static int take_newest(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

struct newest {
    int64_t keep, below;
};

static int newest_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct newest *newest = arg;
    const struct sql_arg args[] = { SQL_INT(newest->keep) };

    newest->below = 0;
    return store_run(tx, &sql_newest, args, LEN(args), take_newest, &newest->below, e);
}

static CO int walk(struct mail *m, struct collect *c, struct err *e)
{
    int r = 0;

    for (int i = 0; r >= 0 && i < COLLECT_PAGES; i++) {
        c->after = m->collected;
        r = store_read(m->store, oldest_body, c, e);
        if (r >= 0 && c->n > 0)
            r = store_do(m->store, forget_body, c, e);
        if (r < 0)
            break;
        m->collected = c->after;
        m->collect_more = c->n_rows == COLLECT_PAGE && !c->young;
        if (!m->collect_more) {
            m->collected = 0; /* from the oldest again */
            break;
        }
    }
    return r < 0 ? r : 0;
}

CO int mail_age_collect(struct mail *m, struct err *e)
{
    struct newest newest = { .keep = m->set->message_keep_rows };
    struct collect *c;
    unsigned look = m->collects++;
    int r = 0;

    if (!m->collect_more && look % COLLECT_EVERY != 0)
        return 0;
    if (newest.keep && (newest.keep <= ROWS_FEW || !m->pg || look % ROWS_EVERY == 0)) {
        r = store_read(m->store, newest_body, &newest, e);
        m->below = r >= 0 ? newest.below : m->below;
    }
    if (r < 0)
        return r;
    c = xcalloc(1, sizeof(*c));
    c->pg = m->pg;
    c->before_ms = swarm_now() - m->set->message_keep_ms;
    c->below = newest.keep ? m->below : 0;
    r = walk(m, c, e);
    free(c);
    return r;
}
