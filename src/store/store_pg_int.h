/* SPDX-License-Identifier: MIT */
/*
 * store/store_pg_int.h — between the pool of PostgreSQL connections and who uses one from the
 * loop's thread.
 */
#pragma once

#include "store/pg_db.h"

struct worker;

/* The connection of an idle thread, until it is given back; NULL: there is none to be had now. */
struct worker *pg_borrow(struct store *s, struct pg_db **ret);
void pg_give_back(struct worker *w); /* also one that broke: its thread will see */

/* store_ops.once */
CO int pg_once(struct store *s, const struct store_single *one, int *ret, struct err *e) MUST_CHECK;
