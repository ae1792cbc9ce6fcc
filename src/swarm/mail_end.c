/* SPDX-License-Identifier: MIT */
/*
 * Acknowledgements and replies. What is under way to a subscriber here is known by its letter; for
 * anything else the table is asked first. Then a batch of them is one statement on PostgreSQL, one
 * transaction on SQLite. The first reply counts; an acknowledgement of what has ended changes
 * nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "swarm/mail_int.h"

/* clang-format off */
#define ENDS \
    "UPDATE agent_messages SET status = 'acknowledged', response = COALESCE(response, ?2)," \
    " ended_at = COALESCE(ended_at, ?3) WHERE position = ?1"
static const struct sql sql_end = {
    "mail end one",
    ENDS " AND (status = 'pending' OR (status = 'acknowledged' AND response IS NULL"
    " AND ?2 IS NOT NULL))",
    ENDS " AND (status = 'pending' OR (status = 'acknowledged' AND response IS NULL"
    " AND ?2::text IS NOT NULL))",
};
/* The first two conditions hold for every position. They make the planner expect one row, so that
 * it takes the index though the table was empty when it made the plan. */
static const struct sql sql_end_many = {
    "mail end", "",
    "UPDATE agent_messages m SET status = 'acknowledged',"
    " response = COALESCE(m.response, j.response), ended_at = COALESCE(m.ended_at, ?3)"
    " FROM (SELECT * FROM unnest(?1, ?2) AS u (position, response)"
    "  WHERE (u.position & 0) = 0 AND (u.position | 0) = u.position) j"
    " WHERE m.position = j.position AND (m.status = 'pending'"
    "  OR (m.status = 'acknowledged' AND m.response IS NULL AND j.response IS NOT NULL))"
    " RETURNING m.position",
};
#define FIND "SELECT position, workflow_uuid, session FROM agent_messages"
static const struct sql sql_by_workflow = {
    "mail by workflow", FIND " WHERE workflow_uuid = ?1", NULL,
};
static const struct sql sql_by_id = {
    "mail by id",
    FIND " WHERE message_id = ?1 AND message_id <> workflow_uuid AND (?2 IS NULL OR session = ?2)"
    " ORDER BY CASE WHEN status = 'pending' THEN 0 ELSE 1 END, position DESC LIMIT 1",
    FIND " WHERE message_id = ?1 AND message_id <> workflow_uuid AND (?2::text IS NULL OR session = ?2)"
    " ORDER BY CASE WHEN status = 'pending' THEN 0 ELSE 1 END, position DESC LIMIT 1",
};
/* clang-format on */

static struct mail_ending *of(struct lane_ride *ride)
{
    return container_of(ride, struct mail_ending, ride);
}

/* --- a batch --- */

struct batch_call {
    struct lane_ride *first;
    int64_t now;
};

static int batch_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch_call *call = arg;
    int r = 0;

    for (struct lane_ride *ride = call->first; r == 0 && ride; ride = ride->next) {
        struct mail_ending *end = of(ride);
        const struct sql_arg args[] = {
            SQL_INT(end->position),
            end->response.p ? SQL_STR(end->response) : SQL_NULL,
            SQL_INT(call->now),
        };

        r = store_run(tx, &sql_end, args, LEN(args), NULL, NULL, e);
        end->changed = r == 0 && store_changed(tx) > 0;
    }
    return r;
}

static int by_position(const void *a, const void *b)
{
    const struct mail_ending *x = *(struct mail_ending *const *)a,
                             *y = *(struct mail_ending *const *)b;

    if (x->position != y->position)
        return x->position < y->position ? -1 : 1;
    return !x->response.p - !y->response.p; /* of two of one message the reply first */
}

/* Rows are locked in the order of their positions, so that two batches do not wait for each other
 * in a circle; a position is named once. */
static size_t fill_columns(struct lane_ride *first, size_t n, struct arena *a, int64_t **ret_ints,
                           struct str **ret_texts)
{
    struct mail_ending **ends = arena_raw(a, n * sizeof(struct mail_ending *));
    size_t k = 0, i = 0;

    *ret_ints = arena_raw(a, n * sizeof(**ret_ints));
    *ret_texts = arena_raw(a, n * sizeof(**ret_texts));
    for (struct lane_ride *ride = first; ride; ride = ride->next)
        ends[i++] = of(ride);
    qsort(ends, n, sizeof(struct mail_ending *), by_position);
    for (i = 0; i < n; i++) {
        if (k > 0 && (*ret_ints)[k - 1] == ends[i]->position)
            continue;
        (*ret_ints)[k] = ends[i]->position;
        (*ret_texts)[k++] = ends[i]->response;
    }
    return k;
}

static int take_changed(struct store_row *row, void *arg, struct err *e)
{
    struct batch_call *call = arg;

    for (struct lane_ride *ride = call->first; ride; ride = ride->next) {
        if (of(ride)->position != row_int(row, 0) || of(ride)->changed)
            continue;
        of(ride)->changed = true;
        break;
    }
    return 0;
}

static CO int send_pg(struct mail *m, struct lane_ride *first, size_t n, struct err *e)
{
    struct batch_call call = { .first = first };
    struct arena a = { 0 };
    struct str *texts;
    int64_t *ints;
    struct sql_arg args[3];
    int r;

    n = fill_columns(first, n, &a, &ints, &texts);
    args[0] = SQL_INTS(ints, n);
    args[1] = SQL_TEXTS(texts, n);
    args[2] = SQL_INT(swarm_now());
    r = store_once(m->store, &sql_end_many, args, LEN(args), take_changed, &call, e);
    arena_done(&a);
    return r;
}

CO int mail_end_send(void *mail, struct lane_ride *first, size_t n, struct err *e)
{
    struct mail *m = mail;
    struct batch_call call = { first, swarm_now() };
    int r = m->pg ? send_pg(m, first, n, e) : store_do(m->store, batch_body, &call, e);

    return r < 0 ? r : 0;
}

static void told(struct mail *m, const struct mail_ending *end, struct str session,
                 struct str workflow)
{
    if (end->changed)
        metric_add(&swarm_m_acked, 0, 1);
    mail_box_ended(m, session, workflow, end->position, end->changed);
    if (end->response.p && end->changed)
        mail_wait_replied(m, workflow, end->response);
}

CO int mail_end(struct mail *m, struct str session, struct str workflow, int64_t position,
                struct str response, struct err *e)
{
    struct mail_ending end = {
        .ride.bytes = 64 + response.n,
        .position = position,
        .response = response,
    };
    int r = lane_ride(&m->ends, &end.ride, e);

    if (r < 0)
        return err_wrap(e, "acknowledge");
    told(m, &end, session, workflow);
    return 0;
}

/* --- which one --- */

struct found {
    struct str session, id; /* what is asked for */
    bool any, here;
    int64_t position;
    char workflow[MAIL_ID], to[MAIL_SESSION];
};

static int take_found(struct store_row *row, void *arg, struct err *e)
{
    struct found *f = arg;
    struct str workflow = row_str(row, 1), to = row_str(row, 2);

    if (workflow.n >= sizeof(f->workflow) || to.n >= sizeof(f->to))
        return err_set(e, ERR_INTERNAL, "an id in the database is too long");
    f->any = true;
    f->position = row_int(row, 0);
    fmt_z(f->workflow, sizeof(f->workflow), STR_FMT, STR_ARG(workflow));
    fmt_z(f->to, sizeof(f->to), STR_FMT, STR_ARG(to));
    return 0;
}

static int found_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct found *f = arg;
    const struct sql_arg args[] = { SQL_STR(f->id), f->session.n ? SQL_STR(f->session) : SQL_NULL };
    int r;

    f->any = false;
    r = store_run(tx, &sql_by_workflow, args, 1, take_found, f, e);
    if (r == 0 && f->any && f->session.n && !str_eq_z(f->session, f->to))
        f->any = false;
    if (r == 0 && !f->any)
        r = store_run(tx, &sql_by_id, args, LEN(args), take_found, f, e);
    return r;
}

static void copy_z(char *out, size_t size, struct str s)
{
    size_t n = s.n < size ? s.n : size - 1; /* nothing that we have written is longer */

    memcpy(out, s.p, n);
    out[n] = '\0';
}

static void found_letter(struct found *f, const struct mail_letter *l)
{
    f->any = true;
    f->position = l->position;
    copy_z(f->workflow, sizeof(f->workflow), l->node.key);
    copy_z(f->to, sizeof(f->to), l->box->node.key);
}

/* Under way here? */
static bool find_here(struct mail *m, struct found *f)
{
    struct mail_letter *l = mail_letter_find(m, f->id);
    struct mail_box *box = f->session.n ? mail_box_find(m, f->session) : NULL;

    if (l && f->session.n && l->box != box)
        l = NULL;
    if (!l && box)
        l = mail_letter_find_id(box, f->id);
    if (l)
        found_letter(f, l);
    return l != NULL;
}

static bool sound(struct str session, struct str id)
{
    return id.n && id.n < MAIL_ID && session.n < MAIL_SESSION && utf8_valid(id.p, id.n) &&
           utf8_valid(session.p, session.n) && !memchr(id.p, 0, id.n) &&
           !(session.n && memchr(session.p, 0, session.n));
}

static CO int end_by_id(struct mail *m, struct str session, struct str id, struct str response,
                        struct err *e)
{
    struct found f = { .session = session, .id = id };
    int r;

    if (!sound(session, id))
        return err_set(e, ERR_NOT_FOUND, "no such message");
    r = find_here(m, &f) ? 0 : store_read(m->store, found_body, &f, e);
    if (r < 0)
        return err_wrap(e, "acknowledge");
    if (!f.any)
        return err_set(e, ERR_NOT_FOUND, "Message " STR_FMT " not found", STR_ARG(id));
    return mail_end(m, str_of(f.to), str_of(f.workflow), f.position, response, e);
}

/* --- many --- */

struct many {
    struct found *found;
    struct mail_ending *ends;
    struct lane_ride **rides;
    size_t n, n_ends;
    bool elsewhere; /* some are not under way here */
};

static int many_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct many *many = arg;
    int r = 0;

    for (size_t i = 0; r == 0 && i < many->n; i++) {
        if (many->found[i].id.n && !many->found[i].here)
            r = found_body(tx, &many->found[i], e);
    }
    return r;
}

static CO int end_many(struct mail *m, struct many *many, size_t *ret_acked, struct err *e)
{
    size_t acked = 0;
    int r = many->elsewhere ? store_read(m->store, many_body, many, e) : 0;

    for (size_t i = 0; r == 0 && i < many->n; i++) {
        if (!many->found[i].any)
            continue;
        many->ends[i] = (struct mail_ending){
            .ride = { .bytes = 64, .r = -ERR_UNAVAILABLE }, /* until it is told */
            .position = many->found[i].position,
        };
        many->rides[many->n_ends++] = &many->ends[i].ride;
    }
    if (r == 0 && many->n_ends)
        r = lane_ride_all(&m->ends, many->rides, many->n_ends, e);
    for (size_t i = 0; many->n_ends && i < many->n; i++) {
        const struct found *f = &many->found[i];

        if (!f->any || many->ends[i].ride.r < 0)
            continue;
        told(m, &many->ends[i], str_of(f->to), str_of(f->workflow));
        acked++;
    }
    if (r < 0)
        return err_wrap(e, "acknowledge");
    *ret_acked = acked;
    return 0;
}

CO int mail_ack_many(struct mail *m, struct str session, const struct str *ids, size_t n,
                     size_t *ret_acked, struct err *e)
{
    struct many many = { .n = n };
    int r;

    if (n > MAIL_MANY)
        return err_set(e, ERR_LIMIT, "at most %d messages are acknowledged at once", MAIL_MANY);
    many.found = xcalloc(n + 1, sizeof(*many.found));
    many.ends = xcalloc(n + 1, sizeof(*many.ends));
    many.rides = xcalloc(n + 1, sizeof(struct lane_ride *));
    for (size_t i = 0; i < n; i++) {
        struct found *f = &many.found[i];

        if (!sound(session, ids[i]))
            continue;
        f->session = session;
        f->id = ids[i];
        f->here = find_here(m, f);
        many.elsewhere = many.elsewhere || !f->here;
    }
    r = end_many(m, &many, ret_acked, e);
    free(many.found);
    free(many.ends);
    free(many.rides);
    return r;
}

CO int mail_ack(struct mail *m, struct str session, struct str id, struct err *e)
{
    return end_by_id(m, session, id, (struct str){ 0 }, e);
}

CO int mail_reply(struct mail *m, struct str session, struct str id, struct str response,
                  struct err *e)
{
    if (response.n > (size_t)m->set->max_message)
        return err_set(e, ERR_LIMIT, "a reply is at most %lld bytes", m->set->max_message);
    if (response.n && (!utf8_valid(response.p, response.n) || memchr(response.p, 0, response.n)))
        return err_set(e, ERR_INVALID, "a reply must be text");
    return end_by_id(m, session, id, response.p ? response : STR(""), e);
}
