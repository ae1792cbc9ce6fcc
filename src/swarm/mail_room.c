/* SPDX-License-Identifier: MIT */
/*
 * Is there room in the mailboxes of a batch? Looked at when the batch is about to be written, so
 * that nobody overtakes anybody. A mailbox is counted in the table when it is first written to,
 * again twice a minute, and before a sender is refused; between that this process adds what it
 * accepts and subtracts what it sees end. So each process that writes to one database may let
 * through a little too much, for half a minute.
 *
 * What was accepted before is not refused for want of room: its sender tries again.
 */
#include "swarm/mail_int.h"

#define COUNT_MS   30000 /* a count is believed for so long */
#define RECOUNT_MS 200   /* between counts of a mailbox that seems full */

/* clang-format off */
static const struct sql sql_counts = {
    "mail due in sessions", "",
    "SELECT d.n FROM unnest(?1) WITH ORDINALITY AS u (session, place) CROSS JOIN LATERAL"
    " (SELECT count(*) AS n FROM (SELECT 1 FROM agent_messages WHERE session = u.session"
    "  AND status = 'pending' LIMIT ?2) x) d ORDER BY u.place",
};
/* clang-format on */

static struct mail_accept *of(struct lane_ride *ride)
{
    return container_of(ride, struct mail_accept, ride);
}

struct counts {
    bool pg;
    int64_t max;
    struct mail_box *boxes[MAIL_BATCH];
    struct str sessions[MAIL_BATCH];
    int64_t counts[MAIL_BATCH];
    size_t n, n_taken;
};

static bool needs_count(const struct mail *m, const struct mail_box *box, uint64_t now)
{
    uint64_t age = now - box->counted_ms;

    return !box->counted || age >= COUNT_MS ||
           (box->pending >= m->set->mailbox_max && age >= RECOUNT_MS);
}

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    struct counts *c = arg;

    if (c->n_taken < c->n)
        c->counts[c->n_taken++] = row_int(row, 0);
    return 0;
}

static int counts_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct counts *c = arg;
    const struct sql_arg args[] = { SQL_TEXTS(c->sessions, c->n), SQL_INT(c->max) };
    int r = 0;

    c->n_taken = 0;
    if (c->pg)
        return store_run(tx, &sql_counts, args, LEN(args), take_count, c, e);
    for (size_t i = 0; r >= 0 && i < c->n; i++)
        r = mail_accept_count_tx(tx, c->sessions[i], c->max, &c->counts[i], e);
    return r;
}

static CO int count(struct mail *m, struct lane_ride *first, struct err *e)
{
    struct counts *c = NULL;
    uint64_t now = now_ms();
    int r;

    for (struct lane_ride *ride = first; ride; ride = ride->next) {
        struct mail_box *box = of(ride)->box;

        if (box->asked || !needs_count(m, box, now))
            continue;
        if (!c)
            c = xcalloc(1, sizeof(*c));
        box->asked = true;
        c->boxes[c->n] = box;
        c->sessions[c->n++] = of(ride)->row.to;
    }
    if (!c)
        return 0;
    c->pg = m->pg;
    c->max = m->set->mailbox_max;
    r = store_read(m->store, counts_body, c, e);
    for (size_t i = 0; i < c->n; i++) {
        c->boxes[i]->asked = false;
        if (r < 0)
            continue;
        c->boxes[i]->pending = c->counts[i];
        c->boxes[i]->counted = true;
        c->boxes[i]->counted_ms = now;
    }
    free(c);
    return r < 0 ? r : 0;
}

static int twins_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = 0;

    for (struct lane_ride *ride = arg; r >= 0 && ride; ride = ride->next) {
        if (of(ride)->stays && of(ride)->keyed)
            r = mail_accept_twin_tx(tx, of(ride), e);
    }
    return r;
}

static CO int refuse(struct mail *m, struct lane_ride *first, struct err *e)
{
    bool keyed = false;
    int r = 0;

    for (struct lane_ride *ride = first; ride; ride = ride->next)
        keyed = keyed || (of(ride)->stays && of(ride)->keyed);
    if (keyed)
        r = store_read(m->store, twins_body, first, e);
    for (struct lane_ride *ride = first; r >= 0 && ride; ride = ride->next) {
        if (of(ride)->stays && !of(ride)->existed)
            of(ride)->refused = mail_refuse_full(of(ride)->row.to, &of(ride)->why);
    }
    return r < 0 ? r : 0;
}

void mail_room_leave(struct mail_accept *a)
{
    if (a->goes)
        a->box->sending--;
    a->goes = false;
}

CO int mail_room(struct mail *m, struct lane_ride *first, size_t *ret_goes, struct err *e)
{
    size_t goes = 0, stays = 0;
    int r;

    for (struct lane_ride *ride = first; ride; ride = ride->next) {
        of(ride)->wrote = of(ride)->existed = of(ride)->stays = false;
        of(ride)->refused = 0;
        mail_room_leave(of(ride)); /* it may have been here before */
        if (of(ride)->box)
            continue;
        of(ride)->box = mail_box_get(m, of(ride)->row.to);
        of(ride)->box->holds++; /* mail_accept_told() lets it go */
    }
    r = count(m, first, e);
    if (r < 0)
        return r;
    for (struct lane_ride *ride = first; ride; ride = ride->next) {
        struct mail_box *box = of(ride)->box;

        of(ride)->stays = box->pending + box->sending >= m->set->mailbox_max;
        of(ride)->goes = !of(ride)->stays;
        box->sending += of(ride)->goes;
        goes += !of(ride)->stays;
        stays += of(ride)->stays;
    }
    *ret_goes = goes;
    return stays ? refuse(m, first, e) : 0;
}
