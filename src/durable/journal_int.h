/* SPDX-License-Identifier: MIT */
/*
 * durable/journal_int.h — between the lanes, which gather entries (journal.c), and the statements
 * that write a batch of them (journal_pg.c, journal_tx.c).
 */
#pragma once

#include "base/lane.h"
#include "durable/durable_int.h"

enum lane_kind { LANE_STEP, LANE_START, LANE_FINISH, LANES };

/* One write, on the stack of the fiber that waits for it. What is lent stays while it waits. */
struct entry {
    struct lane_ride ride;
    struct entry *next;          /* of the batch */
    const struct workflow *w;    /* STEP, FINISH */
    const struct record *record; /* STEP */
    const struct start_row *row; /* START */
    enum durable_status status;  /* FINISH */
    struct str output, error;
    bool written, twin; /* journal_pg.c */
    int outcome;        /* JOURNAL_*, START_DEDUP */
};

struct batch {
    struct durable *d;
    enum lane_kind kind;
    struct entry *first;
    unsigned n; /* at most LANE_BATCH; a statement may change the order of the list */
    bool woke;  /* FINISH: parked workflows went back to their queues */
};

/*
 * Write them and set their outcomes. All or nothing: on an error no outcome means anything, though
 * some may be written; doing it again is harmless.
 */
CO int batch_send_pg(struct batch *b, struct err *e) MUST_CHECK;
CO int batch_send_tx(struct batch *b, struct err *e) MUST_CHECK; /* either database, row by row */

/* One entry in a transaction: its outcome, or an error. */
int entry_tx(struct store_tx *tx, struct batch *b, struct entry *entry, struct err *e) MUST_CHECK;
