/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a reply. What this process writes is told at once; replies that other processes have
 * written are found by a look at the table every second.
 */
#include "swarm/mail_int.h"

#define POLL_MAX 500

/* clang-format off */
static const struct sql sql_reply = {
    "mail reply",
    "SELECT workflow_uuid, status, response, session FROM agent_messages WHERE workflow_uuid = ?1",
    NULL,
};
static const struct sql sql_replies = {
    "mail replies", "",
    "SELECT m.* FROM unnest(?1) AS u (id) CROSS JOIN LATERAL (SELECT workflow_uuid, status,"
    " response FROM agent_messages WHERE workflow_uuid = u.id AND status <> 'pending' OFFSET 0) m"
    " WHERE m.response IS NOT NULL OR m.status <> 'acknowledged'",
};
/* clang-format on */

static struct mail_waiter *waiters_of(struct mail *m, struct str workflow)
{
    struct strmap_node *node = strmap_find(&m->waiters, workflow);

    return node ? container_of(node, struct mail_waiter, node) : NULL;
}

static void add(struct mail *m, struct mail_waiter *w)
{
    struct mail_waiter *head = waiters_of(m, w->workflow);

    w->fiber = fiber_self();
    if (head) {
        w->twin = head->twin;
        head->twin = w;
    } else {
        strmap_add(&m->waiters, &w->node, w->workflow);
    }
}

static void take_out(struct mail *m, struct mail_waiter *w)
{
    struct mail_waiter *head = waiters_of(m, w->workflow);

    if (head == w) {
        strmap_remove(&m->waiters, &w->node);
        if (w->twin)
            strmap_add(&m->waiters, &w->twin->node, w->twin->workflow);
    }
    for (; head; head = head->twin) {
        if (head->twin == w)
            head->twin = w->twin;
    }
    if (w->box)
        w->box->holds--;
}

static void finish(struct mail_waiter *w, const struct str *response)
{
    if (w->done)
        return;
    w->outcome = response ? buf_add_str(w->out, *response, &w->err) : MAIL_NOTHING;
    w->done = true;
    fiber_wake(w->fiber);
}

void mail_wait_replied(struct mail *m, struct str workflow, struct str response)
{
    for (struct mail_waiter *w = waiters_of(m, workflow); w; w = w->twin)
        finish(w, &response);
}

static void nobody(struct mail *m, struct str workflow)
{
    for (struct mail_waiter *w = waiters_of(m, workflow); w; w = w->twin)
        finish(w, NULL);
}

/* box NULL: any */
static void nobody_in(struct mail *m, const struct mail_box *box)
{
    for (size_t i = 0; i < m->waiters.n_slots; i++) {
        for (struct strmap_node *node = m->waiters.slots[i]; node; node = node->next) {
            struct mail_waiter *w = container_of(node, struct mail_waiter, node);

            for (; w; w = w->twin) {
                if (!box || w->box == box)
                    finish(w, NULL);
            }
        }
    }
}

void mail_wait_nobody(struct mail *m, struct mail_box *box, struct str workflow)
{
    if (workflow.n)
        nobody(m, workflow);
    else
        nobody_in(m, box);
}

void mail_wait_all_nobody(struct mail *m)
{
    nobody_in(m, NULL);
}

/* --- asking the table --- */

struct look {
    struct str workflow;
    bool any, replied, dead;
    struct arena arena;
    struct str response, session;
};

static int take_look(struct store_row *row, void *arg, struct err *e)
{
    struct look *look = arg;

    look->any = true;
    look->replied = !row_is_null(row, 2);
    look->dead =
        !str_eq_z(row_str(row, 1), "pending") && !str_eq_z(row_str(row, 1), "acknowledged");
    look->response = arena_str(&look->arena, row_str(row, 2));
    look->session = arena_str(&look->arena, row_str(row, 3));
    return 0;
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *look = arg;
    const struct sql_arg args[] = { SQL_STR(look->workflow) };

    look->any = false;
    return store_run(tx, &sql_reply, args, LEN(args), take_look, look, e);
}

static CO int look_up(struct mail *m, struct mail_waiter *w, struct err *e)
{
    struct look look = { .workflow = w->workflow };
    int r = store_read(m->store, look_body, &look, e);

    if (r == 0 && !look.any)
        r = err_set(e, ERR_NOT_FOUND, "no such message");
    if (r == 0 && look.replied)
        finish(w, &look.response);
    if (r == 0 && look.dead)
        finish(w, NULL);
    if (r == 0)
        w->box = mail_box_get(m, look.session);
    arena_done(&look.arena);
    return r;
}

static CO int wait(struct mail *m, struct mail_waiter *w, uint64_t deadline_ms, struct err *e)
{
    struct mail_letter *l = mail_letter_find(m, w->workflow);
    int r = 0;

    w->box = l ? l->box : NULL;
    if (!l)
        r = look_up(m, w, e);
    if (w->box)
        w->box->holds++;
    if (r == 0 && !w->done && w->box->n_replying == 0 && !mail_drive_replies(m, w->box))
        return MAIL_NOTHING;
    while (r == 0 && !w->done)
        r = fiber_park(deadline_ms, e);
    if (w->done && w->outcome < 0 && e)
        *e = w->err;
    return w->done ? w->outcome : r == -ERR_TIMEOUT ? MAIL_NOTHING : r;
}

CO int mail_reply_wait(struct mail *m, struct str workflow, uint64_t deadline_ms, struct buf *out,
                       struct err *e)
{
    struct mail_waiter w = { .workflow = workflow, .out = out };
    int r;

    add(m, &w);
    r = wait(m, &w, deadline_ms, e);
    take_out(m, &w);
    return r;
}

/* --- what others have written --- */

struct poll {
    struct arena arena;
    struct str ids[POLL_MAX];
    size_t n;
    struct {
        struct str id, response;
        bool replied;
    } found[POLL_MAX];
    size_t n_found;
};

static int take_poll(struct store_row *row, void *arg, struct err *e)
{
    struct poll *p = arg;

    if (p->n_found == POLL_MAX)
        return 0;
    p->found[p->n_found].id = arena_str(&p->arena, row_str(row, 0));
    p->found[p->n_found].replied = !row_is_null(row, 2);
    p->found[p->n_found++].response = arena_str(&p->arena, row_str(row, 2));
    return 0;
}

static int poll_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct poll *p = arg;
    const struct sql_arg args[] = { SQL_TEXTS(p->ids, p->n) };

    p->n_found = 0;
    return store_run(tx, &sql_replies, args, LEN(args), take_poll, p, e);
}

CO int mail_wait_poll(struct mail *m, struct err *e)
{
    struct poll *p;
    int r;

    if (m->waiters.n == 0)
        return 0;
    p = xcalloc(1, sizeof(*p));
    for (size_t i = 0; i < m->waiters.n_slots; i++) {
        for (struct strmap_node *node = m->waiters.slots[i]; node; node = node->next) {
            if (p->n < POLL_MAX)
                p->ids[p->n++] = arena_str(&p->arena, node->key);
        }
    }
    r = store_read(m->store, poll_body, p, e);
    for (size_t i = 0; r == 0 && i < p->n_found; i++) {
        if (p->found[i].replied)
            mail_wait_replied(m, p->found[i].id, p->found[i].response);
        else
            nobody(m, p->found[i].id);
    }
    arena_done(&p->arena);
    free(p);
    return r;
}
