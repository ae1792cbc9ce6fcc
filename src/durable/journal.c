/* SPDX-License-Identifier: MIT */
/*
 * The lanes of the journal. An entry that finds its lane idle goes at once; those that come while
 * a batch is on its way are the next batch. A lane's fibers exist only while it has something to
 * do: the first entry spawns one, which runs after everybody else of this turn has had a chance to
 * add to the batch.
 */
#include <assert.h>
#include <stdlib.h>

#include "durable/journal_int.h"

#define LANE_FLIGHTS 2 /* batches of one lane under way */
#define RETRY_MS     50
#define RETRY_LONG   1000
#define ENTRY_BYTES  256 /* of an entry without its payload, about */
#define START_BATCH  128 /* its statement joins its entries to each other */

struct lane {
    struct durable *d;
    enum lane_kind kind;
    struct entry *first, **last;
    unsigned flights;
    bool called; /* a fiber was spawned and has not looked yet */
};

struct journal {
    struct lane lanes[LANES];
};

struct journal *journal_new(struct durable *d)
{
    struct journal *j = xcalloc(1, sizeof(*j));

    for (int i = 0; i < LANES; i++)
        j->lanes[i] = (struct lane){ .d = d, .kind = (enum lane_kind)i };
    return j;
}

void journal_free(struct journal *j)
{
    free(j);
}

/* Nobody waits for it any more: its run was taken away or is to stop, and the database is away. */
static bool given_up(const struct durable *d, const struct entry *entry)
{
    switch (entry->w->end) {
    case RUN_GOES:
        return false;
    case RUN_DIVERGED:
        return d->stopping;
    default:
        return true;
    }
}

static void answer(struct entry *entry)
{
    entry->done = true;
    fiber_wake(entry->fiber); /* it runs after us: the entry is still there */
}

static void take(struct lane *lane, struct batch *b)
{
    struct entry **at = &b->first;
    unsigned max = lane->kind == LANE_START ? START_BATCH : LANE_BATCH;
    size_t bytes = 0;

    *b = (struct batch){ .d = lane->d, .kind = lane->kind };
    while (lane->first && b->n < max && (b->n == 0 || bytes < LANE_BYTES)) {
        *at = lane->first;
        bytes += lane->first->bytes;
        lane->first = lane->first->next;
        at = &(*at)->next;
        b->n++;
    }
    *at = NULL;
}

static CO int send(struct batch *b, struct err *e)
{
    metric_add(&durable_m_batch, 0, 1);
    return b->d->pg ? batch_send_pg(b, e) : batch_send_tx(b, e);
}

/* Each alone, after they failed together: one that cannot be written harms no other. */
static CO int send_singly(struct batch *b, struct err *e)
{
    for (struct entry *entry = b->first; entry; entry = entry->next) {
        struct entry *rest = entry->next;
        struct batch one = { .d = b->d, .kind = b->kind, .first = entry, .n = 1 };
        int r;

        if (entry->settled)
            continue;
        entry->next = NULL;
        r = send(&one, &entry->err);
        entry->next = rest;
        if (r == -ERR_UNAVAILABLE) {
            *e = entry->err;
            return r;
        }
        if (r < 0)
            entry->outcome = r;
        entry->settled = true;
        b->woke = b->woke || one.woke;
    }
    return 0;
}

static CO int send_somehow(struct batch *b, struct err *e)
{
    int r = send(b, e);

    if (r == 0 || r == -ERR_UNAVAILABLE)
        return r;
    if (b->n > 1)
        return send_singly(b, e);
    b->first->outcome = r;
    b->first->err = *e;
    return 0;
}

/* Answer those who need not wait for the database; false when nobody is left. */
static bool keep_waiting(struct batch *b, const struct err *why)
{
    struct entry **at = &b->first;

    while (*at) {
        struct entry *entry = *at;

        if (b->kind != LANE_START && !given_up(b->d, entry)) {
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        b->n--;
        entry->outcome = -ERR_UNAVAILABLE;
        entry->err = *why;
        answer(entry);
    }
    return b->first != NULL;
}

static CO void fly(struct batch *b)
{
    uint64_t wait_ms = RETRY_MS;
    struct err e;
    int r;

    while (send_somehow(b, &e) < 0) {
        if (!keep_waiting(b, &e))
            return;
        r = fiber_sleep(wait_ms, NULL);
        assert(r == 0); /* nobody knows this fiber, so nobody cancels it */
        wait_ms = wait_ms * 2 > RETRY_LONG ? RETRY_LONG : wait_ms * 2;
    }
    for (struct entry *entry = b->first; entry; entry = entry->next)
        answer(entry);
    if (b->woke) {
        queue_poke(b->d, (struct str){ 0 });
        notify_others(b->d, NOTIFY_QUEUE, (struct str){ 0 });
    }
}

static CO int lane_run(void *arg, struct err *e);

/* Have a fiber look at the lane, unless one is about to or enough are flying. */
static int call_fiber(struct lane *lane, struct err *e)
{
    int r;

    if (lane->called || lane->flights >= LANE_FLIGHTS)
        return 0;
    r = fiber_spawn(lane->d->loop, "durable journal", lane_run, lane, NULL, e);
    if (r < 0)
        return lane->flights > 0 ? 0 : r; /* the one that flies comes back for it */
    lane->called = true;
    lane->flights++;
    return 0;
}

static CO int lane_run(void *arg, struct err *e)
{
    struct lane *lane = arg;
    struct batch b;

    lane->called = false;
    while (lane->first) {
        take(lane, &b);
        if (lane->first)
            (void)call_fiber(lane, NULL); /* else what is left goes with our next round */
        fly(&b);
    }
    lane->flights--;
    return 0;
}

/* Join the lane and wait for the answer; blind to cancel, because others hold what is lent. */
static CO int ride(struct lane *lane, struct entry *entry, struct err *e)
{
    int r;

    if (!lane->first)
        lane->last = &lane->first;
    r = call_fiber(lane, e);
    if (r < 0)
        return r;
    entry->fiber = fiber_self();
    *lane->last = entry;
    lane->last = &entry->next;
    while (!entry->done)
        fiber_park_hard();
    if (entry->outcome < 0 && e)
        *e = entry->err;
    return entry->outcome;
}

/* What waited for the database until its run had ended: the run's end is what matters then. */
static int ended_instead(struct workflow *w, int r, struct err *e)
{
    return r == -ERR_UNAVAILABLE && w->end != RUN_GOES ? run_ended(w, e) : r;
}

CO int journal_step(struct workflow *w, const struct record *record, struct err *e)
{
    struct entry entry = {
        .w = w,
        .record = record,
        .bytes = ENTRY_BYTES + record->output.n + record->error.n,
    };

    return ended_instead(w, ride(&w->d->journal->lanes[LANE_STEP], &entry, e), e);
}

CO int journal_start(struct durable *d, const struct start_row *row, struct err *e)
{
    struct entry entry = {
        .row = row,
        .bytes = 2 * ENTRY_BYTES + row->inputs.n + row->attributes.n,
    };

    return ride(&d->journal->lanes[LANE_START], &entry, e);
}

CO int journal_finish(struct workflow *w, enum durable_status status, struct str output,
                      struct str error, struct err *e)
{
    struct entry entry = {
        .w = w,
        .status = status,
        .output = output,
        .error = error,
        .bytes = ENTRY_BYTES + 2 * (output.n + error.n),
    };
    const struct run_outcome outcome = { status, w->format, output, error };
    int r = ride(&w->d->journal->lanes[LANE_FINISH], &entry, e);

    if (r == JOURNAL_OK)
        wait_told(w->d, str_of(w->id), &outcome);
    return ended_instead(w, r, e);
}
