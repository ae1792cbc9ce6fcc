/* SPDX-License-Identifier: MIT */
/* PostgreSQL as a store. */
#include "store/store_int.h"

static int open_store(struct store *s, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "this build has no PostgreSQL backend yet");
}

const struct store_ops store_pg_ops = { .kind = "postgres", .open = open_store };
