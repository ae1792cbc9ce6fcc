/* SPDX-License-Identifier: MIT */
/*
 * durable/manage_int.h — what the files of management share: lists of ids as an argument, walking
 * workflows and their descendants in batches, and telling everybody of what has changed.
 */
#pragma once

#include "durable/durable_int.h"
#include "durable/manage.h"

#define MANAGE_BATCH 500 /* workflows that one transaction changes */

/* Active, and ended, as SQL. */
#define SQL_ACTIVE "('PENDING', 'ENQUEUED', 'DELAYED')"
#define SQL_ENDED  "('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"

/* What a column must be one of: a list that was given as a JSON array of strings. */
#define IN_LIST(n)    "IN (SELECT value FROM json_each(?" #n "))"
#define IN_LIST_PG(n) "= ANY(ARRAY(SELECT jsonb_array_elements_text(CAST(?" #n " AS JSONB))))"

/* The same for a list that may be NULL: then everything is. */
#define ANY_OF(col, n)    "(CAST(?" #n " AS TEXT) IS NULL OR " col " " IN_LIST(n) ")"
#define ANY_OF_PG(col, n) "(CAST(?" #n " AS TEXT) IS NULL OR " col " " IN_LIST_PG(n) ")"

/* The list as that argument; n 0 gives NULL. */
struct sql_arg list_arg(struct arena *a, const struct str *list, size_t n);

/* A text, or NULL when it is {0}. */
static inline struct sql_arg text_arg(struct str s)
{
    return s.p ? SQL_STR(s) : SQL_NULL;
}

/* 0 is NULL. */
static inline struct sql_arg int_arg(int64_t v)
{
    return v ? SQL_INT(v) : SQL_NULL;
}

/* Ids that grow; the texts are the arena's. */
struct ids {
    struct arena *arena;
    struct str *v;
    size_t n, cap;
};
void ids_add(struct ids *ids, struct str id);
int ids_row(struct store_row *row, void *ids, struct err *e); /* column 0 of each row */

/* Rows of these queues are there to be claimed, or a place of theirs is free. {0}: of any. */
void tell_queue(struct durable *d, struct str queue);

/* These workflows have ended (or are gone): wakes who waits for them, here and elsewhere. */
void tell_ended(struct durable *d, const struct str *ids, size_t n);

/*
 * Do something to ids and, where wanted, to their descendants: parents before their children, in
 * batches. A parent that is cancelled or deleted starts no more children, so none is missed. Sums
 * up what do_batch returns.
 */
typedef int walk_fn(struct durable *d, const struct str *ids, size_t n, void *arg, int64_t *ret_n,
                    struct err *e);
CO int walk(struct durable *d, const struct str *ids, size_t n, bool children, CO walk_fn *do_batch,
            void *arg, int64_t *ret_n, struct err *e) MUST_CHECK;

/* In a transaction: the status of a row, which stays locked. ERR_NOT_FOUND. */
int status_lock_tx(struct store_tx *tx, struct str id, enum durable_status *ret, struct err *e)
    MUST_CHECK;

/* Delete these and all that belongs to them, in one transaction; n at most MANAGE_BATCH. */
CO int delete_batch(struct durable *d, const struct str *ids, size_t n, bool force, int64_t *ret_n,
                    struct err *e) MUST_CHECK;
