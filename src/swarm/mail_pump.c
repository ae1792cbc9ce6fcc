/* SPDX-License-Identifier: MIT */
/*
 * From the table to the subscribers of a session, a page at a time: first what is to be delivered
 * again, then what was not delivered yet, while there is room in the window. A few fibers do it for
 * all sessions; which have need of it stand in a queue.
 *
 * Between the look at the table and the push nothing may have ended it: what ends meanwhile is
 * noted in the box (`ended`) and left out.
 */
#include "base/log.h"
#include "swarm/mail_int.h"

/* clang-format off */
#define ROW \
    "position, workflow_uuid, message_id, sender, session, content, metadata, created_at," \
    " expires_at, attempts"
static const struct sql sql_ahead = {
    "mail ahead",
    "SELECT position FROM agent_messages WHERE session = ?1 AND status = 'pending'"
    " AND position > ?2 ORDER BY position LIMIT ?3", NULL,
};
static const struct sql sql_row = {
    "mail row", "SELECT " ROW " FROM agent_messages WHERE position = ?1 AND status = 'pending'",
    NULL,
};
static const struct sql sql_rows = {
    "mail rows", "",
    "SELECT m.* FROM unnest(?1) AS u (at) CROSS JOIN LATERAL (SELECT " ROW
    " FROM agent_messages WHERE position = u.at AND status = 'pending' OFFSET 0) m",
};
static const struct sql sql_attempt = {
    "mail attempt",
    "UPDATE agent_messages SET attempts = attempts + 1 WHERE position = ?1"
    " AND status = 'pending'", NULL,
};
/* See mail_end.c for its conditions. */
static const struct sql sql_attempts = {
    "mail attempts", "",
    "UPDATE agent_messages m SET attempts = m.attempts + 1 FROM (SELECT u.at"
    "  FROM unnest(?1) AS u (at) WHERE (u.at & 0) = 0 AND (u.at | 0) = u.at) j"
    " WHERE m.position = j.at AND m.status = 'pending'",
};
/* clang-format on */

struct page {
    bool pg;
    struct str session;
    int64_t after;
    size_t room;
    int64_t *known; /* letters, ascending */
    size_t n_known;
    int64_t at[MAIL_PAGE]; /* what to read: given, or found ahead */
    size_t n_at;
    bool given, more;
    struct arena arena, keep; /* keep: across runs of the body */
    struct mail_row *rows;
    size_t n, bytes;
};

static bool known(const struct page *page, int64_t position)
{
    size_t lo = 0, hi = page->n_known;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (page->known[mid] < position)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < page->n_known && page->known[lo] == position;
}

static int take_ahead(struct store_row *row, void *arg, struct err *e)
{
    struct page *page = arg;
    int64_t position = row_int(row, 0);

    if (known(page, position))
        return 0;
    if (page->n_at == page->room) {
        page->more = true;
        return 0;
    }
    page->at[page->n_at++] = position;
    return 0;
}

int mail_row_take(struct store_row *row, struct arena *a, struct mail_row *ret)
{
    *ret = (struct mail_row){
        .position = row_int(row, 0),
        .workflow = arena_str(a, row_str(row, 1)),
        .id = arena_str(a, row_str(row, 2)),
        .from = arena_str(a, row_str(row, 3)),
        .to = arena_str(a, row_str(row, 4)),
        .content = arena_str(a, row_str(row, 5)),
        .created_ms = row_int(row, 7),
        .expires_ms = row_int(row, 8),
        .attempts = row_int(row, 9),
    };
    if (!row_is_null(row, 6))
        ret->metadata = arena_str(a, row_str(row, 6));
    return 0;
}

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct page *page = arg;

    if (page->bytes >= MAIL_PAGE_BYTES) {
        page->more = true;
        return 1;
    }
    page->bytes += row_str(row, 5).n + row_str(row, 6).n;
    return mail_row_take(row, &page->arena, &page->rows[page->n++]);
}

static int read_rows(struct store_tx *tx, struct page *page, struct err *e)
{
    const struct sql_arg many[] = { SQL_INTS(page->at, page->n_at) };
    int r = 0;

    page->rows = arena_raw(&page->arena, MAIL_PAGE * sizeof(*page->rows));
    if (page->n_at == 0)
        return 0;
    if (page->pg)
        r = store_run(tx, &sql_rows, many, LEN(many), take_row, page, e);
    for (size_t i = 0; !page->pg && r == 0 && i < page->n_at; i++) {
        const struct sql_arg one[] = { SQL_INT(page->at[i]) };

        r = store_run(tx, &sql_row, one, LEN(one), take_row, page, e);
    }
    return r < 0 ? r : 0;
}

static int page_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct page *page = arg;
    const struct sql_arg args[] = {
        SQL_STR(page->session),
        SQL_INT(page->after),
        SQL_INT((int64_t)(page->n_known + page->room + 1)),
    };
    int r = 0;

    arena_done(&page->arena);
    page->n = page->bytes = 0;
    page->more = false;
    if (!page->given) {
        page->n_at = 0;
        r = store_run(tx, &sql_ahead, args, LEN(args), take_ahead, page, e);
    }
    return r < 0 ? r : read_rows(tx, page, e);
}

struct attempts_call {
    const int64_t *at;
    size_t n;
    bool pg;
};

static int attempts_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct attempts_call *call = arg;
    const struct sql_arg many[] = { SQL_INTS(call->at, call->n) };
    int r = 0;

    if (call->pg)
        return store_run(tx, &sql_attempts, many, LEN(many), NULL, NULL, e);
    for (size_t i = 0; r == 0 && i < call->n; i++) {
        const struct sql_arg one[] = { SQL_INT(call->at[i]) };

        r = store_run(tx, &sql_attempt, one, LEN(one), NULL, NULL, e);
    }
    return r;
}

CO int mail_attempts_write(struct mail *m, const int64_t *positions, size_t n, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i += MAIL_BATCH) {
        struct attempts_call call = { positions + i, n - i < MAIL_BATCH ? n - i : MAIL_BATCH,
                                      m->pg };

        r = store_do(m->store, attempts_body, &call, e);
    }
    return r < 0 ? r : 0;
}

/* --- one round for one box --- */

static bool ended(const struct mail_box *box, int64_t position)
{
    for (size_t i = 0; i < box->n_ended; i++) {
        if (box->ended[i] == position)
            return true;
    }
    return false;
}

/* Again what nobody has acknowledged. */
static CO int again(struct mail *m, struct mail_box *box, struct page *page, struct err *e)
{
    int64_t done[MAIL_PAGE];
    struct mail_letter *l, *next;
    size_t n_done = 0;
    int r;

    page->given = true;
    r = store_read(m->store, page_body, page, e);
    if (r < 0)
        return r;
    l = box->first; /* all three ascend */
    for (size_t i = 0, k = 0; i < page->n_at; i++) {
        const struct mail_row *row = k < page->n ? &page->rows[k] : NULL;

        while (l && l->position < page->at[i])
            l = l->next;
        next = l && l->position == page->at[i] ? l : NULL;
        if (row && row->position == page->at[i]) {
            k++;
            if (next && next->due && !next->dying && !ended(box, next->position)) {
                if (!mail_box_push(m, box, next, row))
                    break;
                done[n_done++] = next->position;
            }
        } else if (next && !page->more) {
            l = next->next;
            mail_letter_free(m, next); /* it has ended elsewhere */
        }
    }
    return n_done ? mail_attempts_write(m, done, n_done, e) : 0;
}

static void find_due(struct mail *m, struct mail_box *box, struct page *page)
{
    for (struct mail_letter *l = box->first; l && page->n_at < MAIL_PAGE; l = l->next) {
        if (!l->due || l->dying || l->position == box->delivering)
            continue;
        if (l->attempt >= (uint64_t)m->set->message_attempts)
            mail_dying_add(m, l);
        else
            page->at[page->n_at++] = l->position;
    }
}

static void push_new(struct mail *m, struct mail_box *box, const struct mail_row *row, bool *stop)
{
    struct mail_letter *l;

    if (row->position == box->delivering || ended(box, row->position) ||
        mail_letter_find(m, row->workflow))
        return;
    l = mail_letter_new(m, box, row);
    if (row->attempts >= m->set->message_attempts) {
        mail_dying_add(m, l);
        return;
    }
    if (mail_box_push(m, box, l, row))
        return;
    mail_letter_free(m, l);
    *stop = true;
}

/* What was not pushed yet. */
static CO int ahead(struct mail *m, struct mail_box *box, struct page *page, struct err *e)
{
    bool rescan = box->rescan, stop = false;
    int r;

    page->session = str_of(box->session);
    page->room = MAIL_WINDOW - box->n_letters;
    page->room = page->room < MAIL_PAGE ? page->room : MAIL_PAGE;
    page->after = rescan ? 0 : box->cursor;
    if (rescan) {
        page->known = arena_raw(&page->keep, (box->n_letters + 1) * sizeof(*page->known));
        for (const struct mail_letter *l = box->first; l; l = l->next)
            page->known[page->n_known++] = l->position;
    }
    box->rescan = box->behind = false;
    r = store_read(m->store, page_body, page, e);
    for (size_t i = 0; r >= 0 && !stop && i < page->n; i++) {
        push_new(m, box, &page->rows[i], &stop);
        if (!stop && page->rows[i].position > box->cursor)
            box->cursor = page->rows[i].position;
    }
    if (r < 0 || stop || page->more) {
        box->behind = true;
        box->rescan = box->rescan || rescan;
    }
    return r;
}

/* 1: there is more to do now. */
static CO int round_of(struct mail *m, struct mail_box *box, struct err *e)
{
    struct page page = { .pg = m->pg };
    int r = 0;

    box->n_ended = 0;
    find_due(m, box, &page);
    if (page.n_at > 0)
        r = again(m, box, &page, e);
    else if ((box->behind || box->rescan) && box->n_letters < MAIL_WINDOW)
        r = ahead(m, box, &page, e);
    arena_done(&page.arena);
    arena_done(&page.keep);
    return r;
}

static bool has_work(const struct mail_box *box)
{
    if (box->n_subs == 0 || box->choked)
        return false;
    if ((box->behind || box->rescan) && box->n_letters < MAIL_WINDOW)
        return true;
    for (const struct mail_letter *l = box->first; l; l = l->next) {
        if (l->due && !l->dying && l->position != box->delivering)
            return true;
    }
    return false;
}

static struct mail_box *next_box(struct mail *m)
{
    struct mail_box *box = m->pump_first;

    if (box) {
        m->pump_first = box->qnext;
        box->queued = false;
    }
    return box;
}

static CO int pump_run(void *arg, struct err *e)
{
    struct mail *m = arg;
    struct mail_box *box;
    int r = 0;

    while (r == 0 && m->running && (box = next_box(m))) {
        if (!has_work(box)) {
            if (box->n_subs == 0)
                mail_drive_hint(m, box);
            continue;
        }
        box->pumping = true;
        r = round_of(m, box, e);
        box->pumping = false;
        if (r < 0 && r != -ERR_CANCELED) {
            log_debug("messages cannot be read now", "session", LOG_STR(box->session), "error",
                      LOG_ERR(e));
            r = fiber_sleep(MAIL_TICK_MS, e);
        }
        if (has_work(box))
            mail_box_kick(m, box);
        else if (box->n_subs == 0)
            mail_drive_hint(m, box);
    }
    m->pumps--;
    return 0;
}

void mail_pump_call(struct mail *m)
{
    struct err e;

    if (m->pumps >= MAIL_PUMPS)
        return;
    /* Without a fiber the queue stays: the clock tries again. */
    if (fiber_group_spawn(m->chores, "mail pump", pump_run, m, &e) == 0)
        m->pumps++;
    else
        mail_clock_wake(m);
}
