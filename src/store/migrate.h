/* SPDX-License-Identifier: MIT */
/*
 * store/migrate.h — bringing a database's schema to where the program is.
 */
#pragma once

#include "store/store_int.h"

struct migrate_db {
    const char *name; /* for texts; holds no password */
    enum { MIGRATE_SQLITE, MIGRATE_PG } dialect;
    void *db;
    /* Run body in a transaction that no other migration of this database runs beside. */
    int (*run)(void *db, store_body *body, void *arg, struct err *e);
};

/*
 * Apply what is missing, each migration in one transaction. Programs that start at the same time
 * wait for each other. ERR_CONFLICT: the database has a migration that the program does not know,
 * or that was another text when it was applied.
 */
int migrate(const struct migrate_db *db, const struct store_migration *rows, size_t n,
            struct err *e) MUST_CHECK;

/* In a transaction of the database (db->run is not used): has it all of rows, and no other? */
int migrate_check(const struct migrate_db *db, struct store_tx *tx,
                  const struct store_migration *rows, size_t n, struct err *e) MUST_CHECK;
