/* SPDX-License-Identifier: MIT */
/*
 * durable/child.c — workflows that are started by a workflow. The child's row and the parent's
 * record of it are one transaction, so there is no child without a record and no second child.
 */
#include "durable/wait_int.h"

enum { CHILD_SETTLE = 20 };

struct child {
    const struct workflow *w;
    const struct start_row *row;
    struct record record;
    int outcome; /* of start_tx(), when it is CHILD_SETTLE */
    bool taken;  /* the parent's record is */
};

static int child_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct child *child = arg;
    struct str parent = str_of(child->w->id);
    int r;

    child->taken = false;
    r = own_lock_tx(tx, parent, str_of(child->w->token), e);
    if (r != 0)
        return r;
    r = start_tx(tx, child->row, e);
    if (r < 0)
        return r;
    if (r != JOURNAL_OK) {
        child->outcome = r;
        return CHILD_SETTLE;
    }
    r = record_tx(tx, parent, &child->record, child->w->d->conf.app_name, e);
    if (r <= 0)
        return r;
    child->taken = true; /* an error, so that the child is undone */
    return err_set(e, ERR_CONFLICT, "record %u is there already", child->record.id);
}

/* Another workflow is in the place of the child: that is the child, or the call's error. */
CO static int child_settle(struct workflow *w, struct child *child,
                           const struct durable_start *start, struct durable_started *ret,
                           struct err *e)
{
    AUTO(buf_done) struct buf text = { 0 };
    struct record record = child->record;
    struct wire_error error = { 0 };
    struct err ignored;
    char code[16];
    uint64_t wait_ms = 0;
    int told, r;

    while ((told = start_settle(w->d, child->row, start, child->outcome, ret, e)) ==
           -ERR_UNAVAILABLE) {
        r = run_retry(w, &wait_ms, e);
        if (r < 0)
            return r;
    }
    if (told < 0 && w->end != RUN_GOES)
        return run_ended(w, e);
    if (told == START_AGAIN || (told < 0 && told != -ERR_CONFLICT))
        return told;
    buf_init(&text, 4 * KIB);
    record.child = str_of(ret->id);
    if (told < 0) {
        fmt_z(code, sizeof(code), "%d", (int)ret->code);
        error.name = str_of(err_name(e->code));
        error.message = str_of(e->msg);
        error.code = ret->code ? str_of(code) : (struct str){ 0 };
        if ((r = wire_write_error(WIRE_PORTABLE, &error, &text, &ignored)) < 0)
            return told;
        record.error = buf_str(&text);
        record.child = (struct str){ 0 };
    }
    r = journal_step(w, &record, &ignored);
    if (r >= 0)
        r = run_wrote(w, r, &ignored);
    if (r < 0) {
        *e = ignored;
        return r;
    }
    return told;
}

CO static int child_start(struct workflow *w, struct child *child,
                          const struct durable_start *start, struct durable_started *ret,
                          struct err *e)
{
    int r;

    do {
        r = run_store(w, child_body, child, e);
        if (r == -ERR_CONFLICT && child->taken)
            return run_wrote(w, JOURNAL_TAKEN, e);
        if (r < 0)
            return r;
        if (r == JOURNAL_OK) {
            start_done(w->d, child->row);
            return run_wrote(w, r, e);
        }
        if (r != CHILD_SETTLE)
            return run_wrote(w, r, e);
        r = child_settle(w, child, start, ret, e);
    } while (r == START_AGAIN);
    return r;
}

static int replayed(struct workflow *w, const struct recorded *rec, struct durable_started *ret,
                    struct err *e)
{
    if (rec->has_error)
        return run_replay(w, rec, NULL, e);
    if (!rec->child.n || rec->child.n >= DURABLE_ID)
        return err_set(e, ERR_INTERNAL, "record %u names no child", rec->id);
    *ret = (struct durable_started){ .existed = true };
    fmt_z(ret->id, sizeof(ret->id), STR_FMT, STR_ARG(rec->child));
    return 0;
}

CO int durable_child(struct workflow *w, const struct durable_start *start,
                     struct durable_started *ret, struct err *e)
{
    struct durable_start own = *start;
    AUTO(arena_done) struct arena arena = { 0 };
    AUTO(buf_done) struct buf inputs = { 0 };
    struct start_row row;
    struct child child = { .w = w, .row = &row };
    struct flight flight;
    struct recorded rec;
    unsigned id;
    bool direct;
    int r;

    r = run_recorded(w, start->name, &id, &rec, e);
    if (r != 0)
        return r < 0 ? r : replayed(w, &rec, ret, e);
    if (!own.id.n)
        own.id = str_of(arena_printf(&arena, "%s-%u", w->id, id));
    if (!own.timeout_ms && !own.deadline_ms)
        own.deadline_ms = w->deadline_ms;
    buf_init(&inputs, w->d->conf.payload_max + 64 * KIB);
    r = start_prepare(w->d, &own, &inputs, &arena, &row, ret, e);
    if (r < 0)
        return r;
    row.parent = str_of(w->id);
    child.record = (struct record){ .id = id,
                                    .name = start->name,
                                    .format = WIRE_PORTABLE,
                                    .child = row.id,
                                    .started_ms = wall_ms(),
                                    .completed_ms = wall_ms() };
    direct = row.status == DURABLE_PENDING;
    w->d->n_starting += direct; /* it has room, which nobody else may take */
    flight_begin(w->d, &flight);
    r = child_start(w, &child, &own, ret, e);
    flight_done(&flight);
    w->d->n_starting -= direct;
    return r;
}
