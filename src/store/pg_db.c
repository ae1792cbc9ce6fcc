/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL behind the store's transaction, over libpq: errors, transactions, COPY. Statements are
 * in pg_statement.c. What an SQLSTATE means for us is decided in judge(), the only place that knows
 * them.
 */
#include "store/pg_db.h"

#include <string.h>

#include "store/pg_db_int.h"

/* Errors */

static enum pg_verdict judge(const char *state, enum err_code *ret_code)
{
    static const struct {
        const char *prefix; /* the first that fits */
        enum err_code code;
        enum pg_verdict verdict;
    } rows[] = {
        { "40001", ERR_UNAVAILABLE, PG_AGAIN },  /* serialization_failure */
        { "40P01", ERR_UNAVAILABLE, PG_AGAIN },  /* deadlock_detected */
        { "26000", ERR_UNAVAILABLE, PG_AGAIN },  /* a prepared statement is not there, */
        { "42P05", ERR_UNAVAILABLE, PG_AGAIN },  /* or is there already: see pg_fail() */
        { "23502", ERR_INTERNAL, PG_FAILED },    /* not_null_violation */
        { "23514", ERR_INTERNAL, PG_FAILED },    /* check_violation */
        { "23", ERR_CONFLICT, PG_FAILED },       /* integrity constraints */
        { "55000", ERR_CONFLICT, PG_FAILED },    /* what a migration finds is not what it needs */
        { "25006", ERR_UNAVAILABLE, PG_FAILED }, /* the server takes no writes now */
        { "08P01", ERR_INTERNAL, PG_FAILED },    /* a wrong number of arguments */
        { "08", ERR_UNAVAILABLE, PG_LOST },      /* connection exceptions */
        { "57P", ERR_UNAVAILABLE, PG_LOST },     /* the server is being stopped */
        { "53", ERR_UNAVAILABLE, PG_FAILED },    /* disk full, out of memory */
        { "58", ERR_UNAVAILABLE, PG_FAILED },    /* input and output errors */
        { "55P03", ERR_UNAVAILABLE, PG_FAILED }, /* lock_not_available */
        { "57014", ERR_UNAVAILABLE, PG_FAILED }, /* query_canceled: an administrator's timeout */
        { "54", ERR_LIMIT, PG_FAILED },          /* too long, too many columns */
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        if (strncmp(state, rows[i].prefix, strlen(rows[i].prefix)) == 0) {
            *ret_code = rows[i].code;
            return rows[i].verdict;
        }
    }
    *ret_code = ERR_INTERNAL;
    return PG_FAILED;
}

int pg_first_line(const char *text)
{
    return (int)strcspn(text, "\n");
}

int pg_fail(struct pg_db *db, const PGresult *result, const char *what, struct err *e)
{
    const char *state = result ? db->pg->resultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *text = result ? db->pg->resultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    enum err_code code = ERR_UNAVAILABLE;

    db->verdict = state ? judge(state, &code) : PG_FAILED;
    if (state && (strcmp(state, "26000") == 0 || strcmp(state, "42P05") == 0))
        atomic_store(db->unprepared, true); /* a pooler stands between us and the server */
    if (db->reading && code == ERR_UNAVAILABLE && state && strcmp(state, "25006") == 0)
        code = ERR_INTERNAL; /* our own statement wrote where it must not */
    if (db->pg->status(db->conn) != CONNECTION_OK)
        db->verdict = PG_LOST;
    if (db->verdict == PG_LOST)
        code = ERR_UNAVAILABLE;
    if (!text)
        text = db->pg->errorMessage(db->conn);
    return err_set(e, code, "%s: %.*s", what, pg_first_line(text), text);
}

bool pg_good(const struct pg_db *db, const PGresult *result)
{
    ExecStatusType status = db->pg->resultStatus(result);

    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

int pg_simple(struct pg_db *db, const char *what, const char *text, struct err *e)
{
    PGresult *result = db->pg->exec(db->conn, text);
    int r = pg_good(db, result) ? 0 : pg_fail(db, result, what, e);

    db->pg->clear(result);
    return r;
}

/* Transactions */

struct store_tx *pg_db_tx(struct pg_db *db)
{
    return &db->tx;
}

enum pg_verdict pg_db_verdict(const struct pg_db *db)
{
    return db->verdict;
}

struct pg_xid pg_db_xid(const struct pg_db *db)
{
    struct pg_xid xid = db->xid;

    xid.pooled = db->pooled;
    return xid;
}

bool pg_db_unprepared(const struct pg_db *db)
{
    return atomic_load_explicit(db->unprepared, memory_order_relaxed);
}

bool pg_db_lazy(const struct pg_db *db)
{
    return db->lazy;
}

void pg_db_single(struct pg_db *db)
{
    db->xid.v = 0;
    db->verdict = PG_FAILED;
    db->reading = false;
}

int pg_db_begin(struct pg_db *db, enum store_metric_kind kind_, struct err *e)
{
#define WRITE "BEGIN ISOLATION LEVEL READ COMMITTED; "
    static const char *const texts[][2] = {
        [STORE_WRITE] = { WRITE "SELECT pg_current_xact_id()",
                          WRITE "SET LOCAL synchronous_commit = 'on'; "
                                "SELECT pg_current_xact_id()" },
        [STORE_READ] = { "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                         "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY" },
    };
#undef WRITE
    PGresult *result = db->pg->exec(db->conn, texts[kind_][db->lazy]);
    int r = pg_good(db, result) ? 0 : pg_fail(db, result, "begin", e);

    db->xid.v = 0;
    if (r == 0) {
        db->open = true;
        db->verdict = PG_FAILED;
        db->reading = kind_ == STORE_READ;
        if (kind_ == STORE_WRITE)
            db->xid.v = strtoull(db->pg->getvalue(result, 0, 0), NULL, 10);
    }
    db->pg->clear(result);
    return r;
}

int pg_db_commit(struct pg_db *db, struct err *e)
{
    PGresult *result = db->pg->exec(db->conn, "COMMIT");
    int r = pg_good(db, result) ? 0 : pg_fail(db, result, "commit", e);

    db->open = false;
    if (r == 0 && strcmp(db->pg->cmdStatus(result), "COMMIT") != 0)
        r = err_set(e, ERR_INTERNAL, "commit: the transaction had failed before");
    db->pg->clear(result);
    return r;
}

void pg_db_give_up(struct pg_db *db)
{
    if (db->open && db->pg->status(db->conn) == CONNECTION_OK)
        db->pg->clear(db->pg->exec(db->conn, "ROLLBACK")); /* if it fails the connection is lost */
    db->open = false;
}

static int fate_of(const struct pg_db *db, const PGresult *result, const struct pg_xid *xid,
                   bool same_life)
{
    const char *text;

    /* Forgotten: older than what the server keeps. */
    if (db->pg->getisnull(result, 0, 0))
        return PG_UNCLEAR;
    text = db->pg->getvalue(result, 0, 0);
    if (strcmp(text, "aborted") == 0)
        return PG_ABORTED;
    if (strcmp(text, "committed") == 0)
        return same_life ? PG_COMMITTED : PG_UNCLEAR;
    /* Of another life it is not ours; but a pooler's connection may outlive the server's. */
    return same_life || xid->pooled ? PG_UNDER_WAY : PG_ABORTED;
}

int pg_db_fate(struct pg_db *db, const struct pg_xid *xid, struct err *e)
{
    bool same_life = strcmp(xid->life, db->xid.life) == 0;
    const char *state;
    char text[64];
    PGresult *result;
    int r;

    fmt_z(text, sizeof(text), "SELECT pg_xact_status('%llu')", (unsigned long long)xid->v);
    result = db->pg->exec(db->conn, text);
    state = db->pg->resultErrorField(result, PG_DIAG_SQLSTATE);
    if (pg_good(db, result))
        r = fate_of(db, result, xid, same_life);
    else if (!same_life && state && strcmp(state, "22023") == 0)
        r = PG_ABORTED; /* the id has not been given yet: ours went down with the server */
    else
        r = pg_fail(db, result, "look up a commit", e);
    db->pg->clear(result);
    return r;
}

/* COPY */

int pg_db_copy_begin(struct pg_db *db, const char *statement, struct err *e)
{
    PGresult *result = db->pg->exec(db->conn, statement);
    int r = db->pg->resultStatus(result) == PGRES_COPY_IN ? 0 : pg_fail(db, result, "copy", e);

    db->pg->clear(result);
    return r;
}

int pg_db_copy_put(struct pg_db *db, struct str bytes, struct err *e)
{
    return db->pg->putCopyData(db->conn, bytes.p, (int)bytes.n) == 1 ? 0
                                                                     : pg_fail(db, NULL, "copy", e);
}

int pg_db_copy_end(struct pg_db *db, struct err *e)
{
    PGresult *result;
    int r = 0;

    if (db->pg->putCopyEnd(db->conn, NULL) != 1)
        return pg_fail(db, NULL, "copy", e);
    while ((result = db->pg->getResult(db->conn))) {
        if (r == 0 && !pg_good(db, result))
            r = pg_fail(db, result, "copy", e);
        db->pg->clear(result);
    }
    return r;
}
