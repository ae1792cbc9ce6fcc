/* SPDX-License-Identifier: MIT */
/*
 * Other processes on the same PostgreSQL. Each batch of acceptances tells its sessions on a
 * channel; who has subscribers of one looks again. As a hint may be lost, the sessions that are
 * subscribed to here are compared with the table too: every second while nothing is heard, else now
 * and then.
 *
 * Processes that have subscribers of one session at the same time may both deliver a message.
 */
#include <assert.h>

#include "swarm/mail_int.h"

#define PAYLOAD_MAX 7900   /* of PostgreSQL: 8000 bytes */
#define HEARS_POLLS 10     /* seconds between comparisons while news arrive */
#define POLL_MAX    500    /* sessions of one comparison */
#define SEPARATOR   "\x1f" /* session keys hold no control characters */

/* clang-format off */
static const struct sql sql_compare = {
    "mail compare", "",
    "SELECT u.session, d.n, d.last FROM unnest(?1) AS u (session) CROSS JOIN LATERAL"
    " (SELECT count(*) AS n, COALESCE(max(position), 0) AS last FROM (SELECT position"
    "  FROM agent_messages WHERE session = u.session AND status = 'pending'"
    "  ORDER BY position LIMIT ?2) x) d",
};
/* clang-format on */

void mail_hear_payload(const struct mail *m, struct lane_ride *first, struct buf *out)
{
    struct str last = { 0 };
    int r = buf_add_z(out, m->self, NULL);

    for (struct lane_ride *ride = first; r == 0 && ride; ride = ride->next) {
        struct str to = container_of(ride, struct mail_accept, ride)->row.to;

        if (str_eq(to, last))
            continue;
        last = to;
        r = out->n + to.n + 1 > PAYLOAD_MAX ? -ERR_LIMIT : buf_add_z(out, SEPARATOR, NULL);
        if (r == 0)
            r = buf_add_str(out, to, NULL);
    }
    if (r == 0)
        return;
    buf_clear(out); /* too many: "look at everything" */
    r = buf_add_z(out, m->self, NULL);
    assert(r == 0);
}

static void look_everywhere(struct mail *m)
{
    for (size_t i = 0; i < m->boxes.n_slots; i++) {
        for (struct strmap_node *node = m->boxes.slots[i]; node; node = node->next) {
            struct mail_box *box = container_of(node, struct mail_box, node);

            if (box->n_subs > 0)
                mail_box_more(m, box, true);
        }
    }
}

static void heard(struct str payload, void *arg)
{
    struct mail *m = arg;
    struct str one;

    if (!m->running)
        return;
    if (!str_split(&payload, SEPARATOR[0], &one)) {
        look_everywhere(m);
        return;
    }
    if (str_eq_z(one, m->self))
        return;
    if (!payload.n) {
        look_everywhere(m);
        return;
    }
    while (str_split(&payload, SEPARATOR[0], &one)) {
        struct mail_box *box = mail_box_find(m, one);

        if (box && box->n_subs > 0)
            mail_box_more(m, box, true);
    }
}

int mail_hear_register(struct mail *m, struct err *e)
{
    return durable_hear(m->s->conf.engine, MAIL_CHANNEL, heard, m, e);
}

/* --- comparing --- */

struct compare {
    struct mail *m;
    struct arena arena;
    struct str sessions[POLL_MAX];
    size_t n;
    struct {
        struct str session;
        int64_t n, last;
    } found[POLL_MAX];
    size_t n_found;
};

static int take_compare(struct store_row *row, void *arg, struct err *e)
{
    struct compare *c = arg;

    if (c->n_found == POLL_MAX)
        return 0;
    c->found[c->n_found].session = arena_str(&c->arena, row_str(row, 0));
    c->found[c->n_found].n = row_int(row, 1);
    c->found[c->n_found++].last = row_int(row, 2);
    return 0;
}

static int compare_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct compare *c = arg;
    const struct sql_arg args[] = { SQL_TEXTS(c->sessions, c->n), SQL_INT(MAIL_WINDOW + 1) };

    c->n_found = 0;
    return store_run(tx, &sql_compare, args, LEN(args), take_compare, c, e);
}

static CO int compare(struct compare *c, struct err *e)
{
    int r = store_read(c->m->store, compare_body, c, e);

    for (size_t i = 0; r == 0 && i < c->n_found; i++) {
        struct mail_box *box = mail_box_find(c->m, c->found[i].session);

        if (box && box->n_subs > 0 && !box->behind && !box->rescan &&
            (c->found[i].n != box->n_letters || c->found[i].last > box->cursor))
            mail_box_more(c->m, box, true);
    }
    arena_done(&c->arena);
    c->n = 0;
    return r;
}

static bool looked_for(const struct mail_box *box)
{
    return box->n_subs > 0 && !box->behind && !box->rescan;
}

CO int mail_hear_poll(struct mail *m, struct err *e)
{
    struct mail_box **boxes;
    struct compare *c;
    size_t n = 0, k = 0;
    int r = 0;

    if (m->n_subs == 0 || (durable_hears(m->s->conf.engine) && ++m->polls % HEARS_POLLS != 0))
        return 0;
    boxes = xcalloc(m->boxes.n + 1, sizeof(struct mail_box *));
    c = xcalloc(1, sizeof(*c));
    c->m = m;
    for (size_t i = 0; i < m->boxes.n_slots; i++) {
        for (struct strmap_node *node = m->boxes.slots[i]; node; node = node->next) {
            boxes[n] = container_of(node, struct mail_box, node);
            boxes[n]->holds++;
            n++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (r == 0 && looked_for(boxes[i]))
            c->sessions[c->n++] = arena_str(&c->arena, str_of(boxes[i]->session));
        if (r == 0 && (c->n == POLL_MAX || (i + 1 == n && c->n > 0)))
            r = compare(c, e);
    }
    for (; k < n; k++)
        boxes[k]->holds--;
    arena_done(&c->arena);
    free(c);
    free(boxes);
    return r;
}
