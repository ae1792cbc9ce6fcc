/* SPDX-License-Identifier: MIT */
/*
 * store/sqlite_db.h — one connection to an SQLite database, used by one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "store/store_int.h"

struct sqlite_db;

enum sqlite_mode {
    DB_WRITER, /* makes the file when it is absent */
    DB_READER, /* of a file that a writer has open; writes are refused */
    DB_ALONE,  /* of a file that nobody else has open; no file is made, writes are refused */
};

/*
 * Open path (":memory:" for a database of this connection's own) and set it up: WAL, an fsync for
 * every commit, foreign keys. ERR_INTERNAL when the file is no database or is damaged, as far as
 * its schema and, for a small file, a look at every page tell.
 */
int sqlite_db_open(const char *path, enum sqlite_mode mode, uint64_t busy_ms,
                   struct sqlite_db **ret, struct err *e) MUST_CHECK;
void sqlite_db_close(struct sqlite_db *db); /* NULL is fine */

/* Where statements run; good between BEGIN and the end. */
struct store_tx *sqlite_db_tx(struct sqlite_db *db);

enum sqlite_verb {
    VERB_BEGIN,      /* for writing, taking the lock at once */
    VERB_BEGIN_READ, /* the snapshot is taken by the first statement */
    VERB_COMMIT,
    VERB_ROLLBACK,
    VERB_SAVE,
    VERB_KEEP,
    VERB_UNDO, /* back to the savepoint; it stays */
    VERB_FK_ON,
    VERB_FK_OFF,
    VERB_VERBS,
};
int sqlite_db_verb(struct sqlite_db *db, enum sqlite_verb verb, struct err *e) MUST_CHECK;

/* Roll back if a transaction is open; there is nothing to do about a failure of that. */
void sqlite_db_give_up(struct sqlite_db *db);

/* Is a transaction open? SQLite ends it by itself when the disk is full or broken. */
bool sqlite_db_open_tx(const struct sqlite_db *db);

/* Was the file found to be damaged? Nothing may be written to it any more. */
bool sqlite_db_damaged(const struct sqlite_db *db);

/* Pages in the write-ahead log since the last checkpoint, which moves them to the database file. */
int sqlite_db_wal_pages(const struct sqlite_db *db);
void sqlite_db_checkpoint(struct sqlite_db *db);

/*
 * Make the write-ahead log `bytes` long with zeros, which SQLite reads as "nothing here": a commit
 * that overwrites costs the file system half of one that lengthens. Failure does no harm.
 */
void sqlite_db_extend_wal(struct sqlite_db *db, long long bytes);
