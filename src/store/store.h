/* SPDX-License-Identifier: MIT */
/*
 * store/store.h — the only SQL door. Two backends fill in store_ops; nothing outside store/ can
 * tell which one is behind it.
 *
 * A transaction is a function. It runs from begin to end on a store thread, so it never waits and
 * touches nothing but the transaction and its argument; it may run again when the database asks
 * for a retry, so it starts by resetting what it collects in its argument. The caller's fiber is
 * parked meanwhile and wakes once the commit is on disk.
 * SQLite: all transactions waiting at that moment share one commit, each inside its own savepoint,
 * so one that fails harms no other. PostgreSQL: a real transaction on a pooled connection, retried
 * on 40001 and 40P01.
 *
 * The database's clock, where programs on several machines must agree, is part of the statement on
 * PostgreSQL: (extract(epoch from clock_timestamp())*1000)::bigint. On SQLite there is one program,
 * and its own clock is an argument.
 *
 * PgBouncer in transaction mode may stand before PostgreSQL: nothing here needs a session but
 * store_listen(), whose URL should lead past it.
 *
 * A transaction whose statement failed is over: later statements fail too, and nothing is written
 * whatever the body returns. So "insert unless it is there" is ON CONFLICT, not a failed INSERT.
 *
 * Errors: ERR_CONFLICT a constraint said no (unique, foreign key); ERR_UNAVAILABLE the database is
 * away, the disk is full or too many wait (nothing was written); ERR_INVALID a text that is not
 * UTF-8 or holds a NUL; ERR_INTERNAL a broken statement or file.
 * A connection to PostgreSQL lost in COMMIT is looked into on a new one: the transaction's id tells
 * whether it happened. If the server stays away, or was started anew and knows of a commit of this
 * id, the answer is ERR_UNAVAILABLE and store_unsure() of it is true: it may have been written.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fiber.h"
#include "base/metric.h"
#include "base/str.h"

struct store;
struct store_tx;
struct store_row;

struct sql { /* a statement is a named static constant; its text never holds a value */
    const char *name;
    const char *text; /* the dialect both speak; parameters ?1 ?2 ... ; tables of the schema dbos
                         are written dbos.NAME, and SQLite is given NAME */
    const char *pg;   /* instead of text on PostgreSQL, where the dialects part; still ?N */
};

enum sql_kind {
    SQL_K_NULL,
    SQL_K_INT,
    SQL_K_REAL,
    SQL_K_TEXT,
    SQL_K_BLOB,
    SQL_K_TEXTS, /* PostgreSQL only, as the next: elsewhere a body runs a statement for each */
    SQL_K_INTS,
};
struct sql_arg {
    enum sql_kind kind;
    int64_t i;
    double r;
    struct str s;
    const struct str *texts; /* n of them, or of ints */
    const int64_t *ints;
    size_t n;
};
#define SQL_NULL    ((struct sql_arg){ .kind = SQL_K_NULL })
#define SQL_INT(v)  ((struct sql_arg){ .kind = SQL_K_INT, .i = (v) })
#define SQL_REAL(v) ((struct sql_arg){ .kind = SQL_K_REAL, .r = (v) })
#define SQL_STR(v)  ((struct sql_arg){ .kind = SQL_K_TEXT, .s = (v) })
#define SQL_BLOB(v) ((struct sql_arg){ .kind = SQL_K_BLOB, .s = (v) })
#define SQL_Z(z)    sql_z(z) /* NULL gives NULL */

/* Arrays for unnest(?1, ?2) and = ANY(?1): text[] and int8[]. ERR_INTERNAL on SQLite. */
#define SQL_TEXTS(p, len) \
    ((struct sql_arg){ .kind = SQL_K_TEXTS, .texts = (p), .n = (len) }) /* .p == NULL: a NULL */
#define SQL_INTS(p, len) ((struct sql_arg){ .kind = SQL_K_INTS, .ints = (p), .n = (len) })
#define SQL_INTS_NULL    INT64_MIN /* as an element of SQL_INTS(): a NULL */
static inline struct sql_arg sql_z(const char *z)
{
    return z ? SQL_STR(str_of(z)) : SQL_NULL;
}

/* Returns 0 or more to commit (handed to the caller), less than 0 to undo all it did. */
typedef int store_body(struct store_tx *tx, void *arg, struct err *e);

/*
 * One step of the schema, applied once, whole or not at all, in order of version. The text may hold
 * many statements. Where pg is NULL, PostgreSQL gets the other text with the words INTEGER, BLOB
 * and REAL turned into BIGINT, BYTEA and DOUBLE PRECISION, and without STRICT and WITHOUT ROWID.
 * SQLite gets dbos.NAME as NAME. No column numbers itself. A migration that has been released is
 * never changed: its SHA-256 is kept.
 */
struct store_migration {
    int version;
    const char *name;
    const char *sqlite;
    const char *pg;
};

/* The program's own, from src/store/sql. */
extern const struct store_migration store_migrations[];
extern const size_t store_migrations_len;

struct store_conf {
    const char *url; /* "sqlite:PATH", "sqlite::memory:", "postgres://..." or "postgresql://..." */
    unsigned pool;   /* PostgreSQL connections, or SQLite reader threads (then at most 4); 0 = 20 */
    uint64_t wait_ms; /* how long a transaction waits for a connection or for a lost database
                         before ERR_UNAVAILABLE; 0 = 5 s */
    unsigned queue;   /* transactions waiting; past it ERR_UNAVAILABLE at once; 0 = 8192 */
    const struct store_migration *migrations;
    size_t n_migrations;
};

/*
 * Open and migrate. Blocking (start of the program, before the loop turns). ERR_UNAVAILABLE when
 * PostgreSQL is away; ERR_CONFLICT when the schema is newer than this program or one of its
 * migrations was changed; ERR_INTERNAL when the file is damaged. loop may be NULL if only
 * store_do_now() is going to be used.
 */
int store_open(struct loop *loop, const struct store_conf *conf, struct store **ret, struct err *e)
    MUST_CHECK;

/* Blocking; finishes what is queued. No fiber may still wait for it. NULL is fine. */
void store_close(struct store *s);

/* Run body durably; arg belongs to the store until this returns (cancel does not interrupt it). */
CO int store_do(struct store *s, store_body *body, void *arg, struct err *e) MUST_CHECK;

/*
 * A transaction of this one statement, in a single round trip: on PostgreSQL it is sent alone, with
 * no BEGIN, no COMMIT and no id. So when the connection is lost before the answer came nobody can
 * tell whether it was done, and it is sent again: only for statements that do no harm, and answer
 * the same, when they are run twice. each() comes after the commit (its failure undoes nothing
 * there) and may be called again from the first row. On SQLite it is store_do() of the statement.
 */
CO int store_once(struct store *s, const struct sql *sql, const struct sql_arg *args, size_t n_args,
                  int (*each)(struct store_row *row, void *arg, struct err *e), void *arg,
                  struct err *e) MUST_CHECK;

/*
 * As store_do() on a read-only snapshot; runs beside the writer, never behind it. When the fiber is
 * cancelled before body's turn has come, body is not run: ERR_CANCELED.
 */
CO int store_read(struct store *s, store_body *body, void *arg, struct err *e) MUST_CHECK;

/* Blocking forms for start-up, tools and tests; not on the loop's thread while it turns fibers. */
int store_do_now(struct store *s, store_body *body, void *arg, struct err *e) MUST_CHECK;

/* Inside a body: run one statement; each is called per row and may stop with a positive value
 * (returned). */
int store_run(struct store_tx *tx, const struct sql *sql, const struct sql_arg *args, size_t n_args,
              int (*each)(struct store_row *row, void *arg, struct err *e), void *arg,
              struct err *e) MUST_CHECK;

/* Rows the last store_run() inserted, updated or deleted. */
int64_t store_changed(const struct store_tx *tx);

/* Columns count from 0. Text and blobs are valid inside each() only. */
int64_t row_int(const struct store_row *row, int col);
double row_real(const struct store_row *row, int col);
struct str row_str(const struct store_row *row, int col); /* {NULL, 0} for NULL */
bool row_is_null(const struct store_row *row, int col);

/* Call with no arguments. */
#define store_exec(tx, sql, e) store_run((tx), (sql), NULL, 0, NULL, NULL, (e))

/* Is e the ERR_UNAVAILABLE of a transaction that may have been committed all the same? */
bool store_unsure(const struct err *e);

/*
 * LISTEN to channels of PostgreSQL, at url (one that leads past a pooler; NULL: the store's own),
 * by a thread with a connection of its own that comes back for ever. heard() runs on the loop's
 * thread, outside of any fiber: it must not wait. channel "" with payload {NULL, 0} says: the
 * connection is new, or too much came at once, and something may have been missed: look again.
 * Messages that are sent while nobody listens are lost, so this is only ever a hint to look sooner.
 * Sending is plain SQL: SELECT pg_notify(?1, ?2), at most 7,999 bytes, at the commit.
 *
 * Each connection is tested by a message over another one, at the store's own URL; store_hears()
 * tells whether that arrived. When it does not (a pooler in transaction mode) another is tried once
 * a minute. On SQLite there is nobody to hear: an ear that never calls. The names of channels are
 * copied. ERR_INTERNAL when the system has no descriptor left.
 */
struct store_ear;
int store_listen(struct store *s, const char *url, const char *const *channels, size_t n,
                 void (*heard)(const char *channel, struct str payload, void *arg), void *arg,
                 struct store_ear **ret, struct err *e) MUST_CHECK;
bool store_hears(const struct store_ear *ear);

/* On the loop's thread; heard() is not called any more. It may outlive the store. NULL is fine. */
void store_ear_free(struct store_ear *ear);

bool store_ok(const struct store *s); /* did the last contact succeed? Never waits. */

/* A real round trip; after a failed commit one that writes, so that it tells when that is over. */
CO int store_ping(struct store *s, struct err *e) MUST_CHECK;

const char *store_kind(const struct store *s); /* "sqlite" or "postgres" */

/*
 * For tests of crashes: when set, it is called right before a write begins (false) and right after
 * it was committed, before anybody is told (true), on the thread that does it.
 */
extern void (*store_probe)(bool committed);

extern struct metric *const store_metrics[];
extern const size_t store_metrics_len;

/*
 * Offline: copy every table of an SQLite database into an empty PostgreSQL one, in one transaction,
 * with progress(table, rows, arg) (may be NULL) after each table and each 10,000 rows. Both must
 * have this program's schema: the destination gets it here, the source from the program's start.
 * Blocking. ERR_CONFLICT: the destination holds rows already, or the schemas differ.
 */
int store_copy(const char *from_url, const char *to_url,
               void (*progress)(const char *table, long long rows, void *arg), void *arg,
               struct err *e) MUST_CHECK;
