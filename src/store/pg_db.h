/* SPDX-License-Identifier: MIT */
/*
 * store/pg_db.h — one connection to PostgreSQL, used by one thread at a time.
 */
#pragma once

#include "store/store_int.h"

struct pg_db;

/*
 * Connect, at most until deadline_ms, once. ERR_UNAVAILABLE when that fails; ERR_INVALID when the
 * URL cannot be read or the server is not one we can use. No text of an error holds the password.
 */
int pg_db_open(const char *url, uint64_t deadline_ms, struct pg_db **ret, struct err *e) MUST_CHECK;

/* The same, given up with ERR_CANCELED once stop_fd is readable (-1: none). */
int pg_db_open_unless(const char *url, uint64_t deadline_ms, int stop_fd, struct pg_db **ret,
                      struct err *e) MUST_CHECK;
void pg_db_close(struct pg_db *db); /* NULL is fine */

/*
 * Connections that share a flag learn from each other that a pooler forgets prepared statements.
 * The flag outlives them.
 */
void pg_db_share(struct pg_db *db, atomic_bool *unprepared);

/* Does a server answer at url and take connections? Then a failure to connect will not pass. */
bool pg_db_listening(const char *url);

/* "name on host:port", for texts; lives as long as the connection. */
const char *pg_db_name(const struct pg_db *db);

/* Where statements run; good between pg_db_begin() and the end. */
struct store_tx *pg_db_tx(struct pg_db *db);

/* A write is READ COMMITTED with an id of its own; a read is one snapshot and may not write. */
int pg_db_begin(struct pg_db *db, enum store_metric_kind kind, struct err *e) MUST_CHECK;

/*
 * Instead of begin and commit: the next store_run() is a transaction of its own. Not where
 * pg_db_lazy(): there only a transaction can ask for a commit that waits for the disk.
 */
void pg_db_single(struct pg_db *db);
bool pg_db_lazy(const struct pg_db *db);

/*
 * The same without waiting, on a connection where no transaction is open. pg_db_send(): 1, it is on
 * its way; 0, not this way: its statement is not prepared here yet, or it is long. Then, whenever
 * pg_db_socket() is readable, pg_db_take(): 1, there is more to come; else the outcome, as of
 * store_run(), in *ret, and 0.
 */
int pg_db_send(struct pg_db *db, const struct store_single *one, struct err *e) MUST_CHECK;
int pg_db_socket(const struct pg_db *db);
int pg_db_take(struct pg_db *db, const struct store_single *one, int *ret, struct err *e)
    MUST_CHECK;
int pg_db_commit(struct pg_db *db, struct err *e) MUST_CHECK;
void pg_db_give_up(struct pg_db *db); /* roll back if a transaction is open */

/* Why the last of the calls above failed, for who decides what to do next. */
enum pg_verdict {
    PG_FAILED, /* it would fail again */
    PG_AGAIN,  /* another transaction was in the way, or a pooler: run it again */
    PG_LOST,   /* the connection is gone: close it */
};
enum pg_verdict pg_db_verdict(const struct pg_db *db);

/*
 * The id of the transaction that began last, and what became of the one that had this id: positive
 * outcomes. It is asked on another connection when the first was lost in COMMIT.
 *
 * A server that crashed gives ids it had not written down to other transactions. So "committed" is
 * believed only of the same life of the same server, and is PG_UNCLEAR after that. "Aborted" is
 * always true of ours: an id whose commit is on the disk is never given away.
 */
struct pg_xid {
    uint64_t v; /* 0: it has none */
    char life[128];
    bool pooled; /* life is that of the connection's beginning, and may have ended unseen */
};
struct pg_xid pg_db_xid(const struct pg_db *db);
enum { PG_COMMITTED = 1, PG_ABORTED = 2, PG_UNDER_WAY = 3, PG_UNCLEAR = 4 };
int pg_db_fate(struct pg_db *db, const struct pg_xid *xid, struct err *e) MUST_CHECK;

/* Rows into a table by COPY ... FROM STDIN in its text format, inside a transaction. */
int pg_db_copy_begin(struct pg_db *db, const char *statement, struct err *e) MUST_CHECK;
int pg_db_copy_put(struct pg_db *db, struct str bytes, struct err *e) MUST_CHECK;
int pg_db_copy_end(struct pg_db *db, struct err *e) MUST_CHECK;
