/* SPDX-License-Identifier: MIT */
/*
 * The journal's lanes (base/lane.h), one for each kind of entry. What is written of a run waits for
 * the database as long as the run goes on; who starts a workflow is told that it is away.
 */
#include <stdlib.h>

#include "durable/journal_int.h"

#define LANE_FLIGHTS 2   /* batches of one lane under way */
#define ENTRY_BYTES  256 /* of an entry without its payload, about */
#define START_BATCH  128 /* its statement joins its entries to each other */

struct journal_lane {
    struct lane lane;
    struct durable *d;
    enum lane_kind kind;
};

struct journal {
    struct journal_lane lanes[LANES];
};

static struct entry *of(struct lane_ride *ride)
{
    return container_of(ride, struct entry, ride);
}

static CO int send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    const struct journal_lane *lane = arg;
    struct durable *d = lane->d;
    struct batch b = { .d = d, .kind = lane->kind, .first = of(first), .n = (unsigned)n };
    int r;

    for (struct lane_ride *ride = first; ride; ride = ride->next)
        of(ride)->next = ride->next ? of(ride->next) : NULL;
    metric_add(&durable_m_batch, 0, 1);
    r = d->pg ? batch_send_pg(&b, e) : batch_send_tx(&b, e);
    if (r < 0)
        return r;
    if (b.woke) {
        queue_poke(d, (struct str){ 0 });
        notify_others(d, NOTIFY_QUEUE, (struct str){ 0 });
    }
    return 0;
}

/* Somebody still waits for it: its run was not taken away, and is not to stop. */
static bool still_wanted(void *arg, struct lane_ride *ride)
{
    const struct journal_lane *lane = arg;

    switch (of(ride)->w->end) {
    case RUN_GOES:
        return true;
    case RUN_DIVERGED:
        return !lane->d->stopping;
    default:
        return false;
    }
}

struct journal *journal_new(struct durable *d)
{
    struct journal *j = xcalloc(1, sizeof(*j));

    for (int i = 0; i < LANES; i++) {
        j->lanes[i].d = d;
        j->lanes[i].kind = (enum lane_kind)i;
        j->lanes[i].lane = (struct lane){
            .name = "durable journal",
            .loop = d->loop,
            .arg = &j->lanes[i],
            .max_n = i == LANE_START ? START_BATCH : LANE_BATCH,
            .max_flights = LANE_FLIGHTS,
            .max_bytes = LANE_BYTES,
            .send = send,
            .waits = i == LANE_START ? NULL : still_wanted,
        };
    }
    return j;
}

void journal_free(struct journal *j)
{
    free(j);
}

static CO int ride(struct durable *d, enum lane_kind kind, struct entry *entry, struct err *e)
{
    int r = lane_ride(&d->journal->lanes[kind].lane, &entry->ride, e);

    return r < 0 ? r : entry->outcome;
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
        .ride.bytes = ENTRY_BYTES + record->output.n + record->error.n,
    };

    return ended_instead(w, ride(w->d, LANE_STEP, &entry, e), e);
}

CO int journal_start(struct durable *d, const struct start_row *row, struct err *e)
{
    struct entry entry = {
        .row = row,
        .ride.bytes = 2 * ENTRY_BYTES + row->inputs.n + row->attributes.n,
    };

    return ride(d, LANE_START, &entry, e);
}

CO int journal_finish(struct workflow *w, enum durable_status status, struct str output,
                      struct str error, struct err *e)
{
    struct entry entry = {
        .w = w,
        .status = status,
        .output = output,
        .error = error,
        .ride.bytes = ENTRY_BYTES + 2 * (output.n + error.n),
    };
    const struct run_outcome outcome = { status, w->format, output, error };
    int r = ride(w->d, LANE_FINISH, &entry, e);

    if (r == JOURNAL_OK)
        wait_told(w->d, str_of(w->id), &outcome);
    return ended_instead(w, r, e);
}
