/* SPDX-License-Identifier: MIT */
/*
 * Boxes, their letters, and whose turn it is. Nothing here waits.
 */
#include <assert.h>
#include <stdlib.h>

#include "swarm/mail_int.h"

#define CHOKE_MAX_MS 1000

/* --- boxes --- */

struct mail_box *mail_box_find(struct mail *m, struct str session)
{
    struct strmap_node *node = strmap_find(&m->boxes, session);

    return node ? container_of(node, struct mail_box, node) : NULL;
}

struct mail_box *mail_box_get(struct mail *m, struct str session)
{
    struct mail_box *box = mail_box_find(m, session);

    if (!box) {
        box = xcalloc(1, sizeof(*box) + session.n + 1);
        memcpy(box->session, session.p, session.n);
        box->behind = true;
        strmap_add(&m->boxes, &box->node, (struct str){ box->session, session.n });
    }
    box->used_ms = now_ms();
    return box;
}

void mail_box_kick(struct mail *m, struct mail_box *box)
{
    if (!m->running || box->queued || box->pumping || box->drive_queued || box->n_subs == 0)
        return;
    box->queued = true;
    box->qnext = NULL;
    if (!m->pump_first)
        m->pump_last = &m->pump_first;
    *m->pump_last = box;
    m->pump_last = &box->qnext;
    mail_pump_call(m);
}

void mail_box_more(struct mail *m, struct mail_box *box, bool rescan)
{
    box->behind = true;
    box->rescan = box->rescan || rescan;
    if (box->n_subs > 0)
        mail_box_kick(m, box);
    else if (m->running)
        mail_drive_hint(m, box);
}

static bool idle(const struct mail_box *box)
{
    return !box->n_subs && !box->n_letters && !box->queued && !box->pumping && !box->driving &&
           !box->drive_queued && !box->drive_waits && !box->holds && !box->sending && !box->chokes;
}

static void box_free(struct mail *m, struct mail_box *box)
{
    strmap_remove(&m->boxes, &box->node);
    free(box->ended);
    free(box);
}

void mail_box_forget_idle(struct mail *m)
{
    bool many = m->boxes.n > MAIL_BOXES;
    uint64_t now = now_ms();

    for (size_t i = 0; i < m->boxes.n_slots; i++) {
        struct strmap_node *node = m->boxes.slots[i], *next;

        for (; node; node = next) {
            struct mail_box *box = container_of(node, struct mail_box, node);

            next = node->next;
            if (idle(box) && (many || now - box->used_ms > MAIL_IDLE_MS))
                box_free(m, box);
        }
    }
}

void mail_boxes_free(struct mail *m)
{
    for (size_t i = 0; i < m->boxes.n_slots; i++) {
        while (m->boxes.slots[i]) {
            struct mail_box *box = container_of(m->boxes.slots[i], struct mail_box, node);

            while (box->first)
                mail_letter_free(m, box->first);
            while (box->turn)
                mail_unsubscribe(box->turn);
            box_free(m, box);
        }
    }
    strmap_done(&m->waiters);
    strmap_done(&m->boxes);
    strmap_done(&m->letters);
}

/* --- letters --- */

static void link_letter(struct mail_box *box, struct mail_letter *l)
{
    struct mail_letter *after = box->last;

    while (after && after->position > l->position)
        after = after->prev;
    l->prev = after;
    l->next = after ? after->next : box->first;
    if (l->next)
        l->next->prev = l;
    else
        box->last = l;
    if (after)
        after->next = l;
    else
        box->first = l;
    box->n_letters++;
}

struct mail_letter *mail_letter_new(struct mail *m, struct mail_box *box,
                                    const struct mail_row *row)
{
    struct mail_letter *l = xcalloc(1, sizeof(*l) + row->workflow.n + row->id.n);
    char *text = (char *)(l + 1);

    memcpy(text, row->workflow.p, row->workflow.n);
    memcpy(text + row->workflow.n, row->id.p, row->id.n);
    l->box = box;
    l->position = row->position;
    l->accepted_ms = row->created_ms;
    l->attempt = (unsigned)row->attempts;
    l->id = (struct str){ text + row->workflow.n, row->id.n };
    strmap_add(&m->letters, &l->node, (struct str){ text, row->workflow.n });
    link_letter(box, l);
    m->n_letters++;
    return l;
}

struct mail_letter *mail_letter_find(struct mail *m, struct str workflow)
{
    struct strmap_node *node = strmap_find(&m->letters, workflow);

    return node ? container_of(node, struct mail_letter, node) : NULL;
}

struct mail_letter *mail_letter_find_id(struct mail_box *box, struct str id)
{
    for (struct mail_letter *l = box->first; l; l = l->next) {
        if (str_eq(l->id, id))
            return l;
    }
    return NULL;
}

void mail_letter_free(struct mail *m, struct mail_letter *l)
{
    struct mail_box *box = l->box;

    mail_clock_unset(m, l);
    strmap_remove(&m->letters, &l->node);
    if (l->prev)
        l->prev->next = l->next;
    else
        box->first = l->next;
    if (l->next)
        l->next->prev = l->prev;
    else
        box->last = l->prev;
    box->n_letters--;
    m->n_letters--;
    free(l);
}

static void note_ended(struct mail_box *box, int64_t position)
{
    if (box->n_ended == box->cap_ended) {
        box->cap_ended = box->cap_ended ? 2 * box->cap_ended : 16;
        box->ended = xrealloc(box->ended, box->cap_ended * sizeof(*box->ended));
    }
    box->ended[box->n_ended++] = position;
}

void mail_box_ended(struct mail *m, struct str session, struct str workflow, int64_t position,
                    bool was_due)
{
    struct mail_letter *l = mail_letter_find(m, workflow);
    struct mail_box *box = mail_box_find(m, session);

    if (l && l->position == position)
        mail_letter_free(m, l);
    if (!box)
        return;
    if (was_due && box->pending > 0)
        box->pending--;
    if (box->pumping) /* each round forgets them: without one they would gather */
        note_ended(box, position);
    if (box->behind || box->rescan)
        mail_box_kick(m, box); /* there is room again */
}

/* --- turns --- */

static int push_to(struct mail_sub *sub, struct mail_letter *l, const struct mail_row *row)
{
    const struct mail_push push = {
        .workflow = row->workflow,
        .id = row->id,
        .from = row->from,
        .to = row->to,
        .content = row->content,
        .metadata = row->metadata,
        .accepted_ms = row->created_ms,
        .attempt = l->attempt + 1,
        .notice = str_starts(row->workflow, STR(MAIL_NOTICE)),
    };
    struct err e;

    return sub->ops->push(&push, sub->arg, &e);
}

static void pushed(struct mail *m, struct mail_letter *l, struct mail_sub *sub)
{
    int64_t age_ms = swarm_now() - l->accepted_ms;

    l->sub = sub;
    l->due = false;
    if (l->attempt++ == 0) {
        metric_add(&swarm_m_delivered, 0, 1);
        metric_observe(&swarm_m_deliver_ms, 0, 1000 * (age_ms > 0 ? age_ms : 0));
    } else {
        metric_add(&swarm_m_redelivered, 0, 1);
    }
    mail_clock_set(m, l, now_ms() + mail_clock_backoff(m, l->attempt));
}

/* Who does not say when it is ready is asked less and less often: each time costs a page. */
static void choke(struct mail *m, struct mail_box *box)
{
    uint64_t wait = box->choke_ms ? 2 * box->choke_ms : MAIL_TICK_MS;

    box->choke_ms = wait < CHOKE_MAX_MS ? wait : CHOKE_MAX_MS;
    box->choke_at_ms = now_ms() + box->choke_ms;
    box->choked = true;
    if (box->chokes)
        return;
    box->chokes = true;
    box->cnext = m->choked;
    m->choked = box;
    mail_clock_wake(m);
}

bool mail_box_push(struct mail *m, struct mail_box *box, struct mail_letter *l,
                   const struct mail_row *row)
{
    for (unsigned i = 0; i < box->n_subs; i++) {
        struct mail_sub *sub = box->turn;

        box->turn = sub->next;
        if (push_to(sub, l, row) == 0) {
            pushed(m, l, sub);
            box->choke_ms = 0;
            return true;
        }
    }
    if (box->n_subs > 0)
        choke(m, box);
    return false;
}

int mail_subscribe(struct mail *m, struct str session, bool replies, const struct mail_sub_ops *ops,
                   void *arg, struct mail_sub **ret, struct err *e)
{
    struct mail_box *box;
    struct mail_sub *sub;

    if (!session.n || session.n >= MAIL_SESSION || !utf8_valid(session.p, session.n) ||
        memchr(session.p, 0, session.n))
        return err_set(e, ERR_INVALID, "a session key is 1 to %d bytes of text", MAIL_SESSION - 1);
    box = mail_box_get(m, session);
    sub = xcalloc(1, sizeof(*sub));
    *sub = (struct mail_sub){ .m = m, .box = box, .ops = ops, .arg = arg, .replies = replies };
    if (box->turn) {
        sub->next = box->turn->next;
        box->turn->next = sub;
    } else {
        sub->next = box->turn = sub;
    }
    box->n_subs++;
    box->n_replying += replies;
    m->n_subs++;
    mail_box_more(m, box, true);
    *ret = sub;
    return 0;
}

static void unlink_sub(struct mail_sub *sub)
{
    struct mail_box *box = sub->box;
    struct mail_sub *before = sub;

    while (before->next != sub)
        before = before->next;
    before->next = sub->next;
    if (box->turn == sub)
        box->turn = sub->next == sub ? NULL : sub->next;
    box->n_subs--;
    box->n_replying -= sub->replies;
    box->used_ms = now_ms();
}

void mail_unsubscribe(struct mail_sub *sub)
{
    struct mail *m = sub->m;
    struct mail_box *box = sub->box;

    unlink_sub(sub);
    m->n_subs--;
    for (struct mail_letter *l = box->first; l; l = l->next) {
        if (l->sub != sub)
            continue;
        l->sub = NULL;
        if (l->dying)
            continue; /* it stays in the list of those */
        l->due = true;
        mail_clock_unset(m, l);
    }
    if (box->n_subs > 0) {
        mail_box_kick(m, box);
    } else {
        m->orphans = m->orphans || box->n_letters > 0;
        mail_sweep_wake(m);
        mail_box_more(m, box, true); /* a driver may take it */
    }
    if (box->n_replying == 0 && !mail_drive_replies(m, box))
        mail_wait_nobody(m, box, (struct str){ 0 });
    free(sub);
}

void mail_sub_ready(struct mail_sub *sub)
{
    sub->box->choked = false;
    sub->box->choke_ms = 0;
    mail_box_kick(sub->m, sub->box);
}
