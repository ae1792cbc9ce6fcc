/* SPDX-License-Identifier: MIT */
/*
 * PostgreSQL behind the store's transaction, over libpq.
 *
 * Statements are prepared once per connection with the types of their arguments: integers are
 * int8, texts text, blobs bytea, reals float8; NULL leaves the type to the server until a value
 * comes. Integers and reals travel as text, texts and blobs as they are; rows come back as text.
 * What an SQLSTATE means for us is decided in judge(), the only place that knows them.
 */
#include "store/pg_db.h"

#include <string.h>

#include "base/arena.h"
#include "store/pg_db_int.h"
#include "store/translate.h"

#define ARGS_MAX 64  /* of one statement */
#define SLOTS    256 /* of the statement table: a power of two, it grows */

/* Of pg_type, fixed for ever */
enum {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_NUMERIC = 1700,
};

struct slot {
    const struct sql *sql;
    unsigned number; /* the server knows the statement as "s<number>"; 0: not yet */
    Oid *types;
    size_t n_types;
};

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

/* Rows */

struct pg_row {
    struct store_row row;
    const struct pg_lib *pg;
    const PGresult *result;
    int number;
    struct arena scratch; /* decoded blobs of this row */
};

static const struct pg_row *cast(const struct store_row *row)
{
    return (const struct pg_row *)row;
}

static const char *value(const struct store_row *row, int col)
{
    return cast(row)->pg->getvalue(cast(row)->result, cast(row)->number, col);
}

static enum sql_kind kind(const struct store_row *row, int col)
{
    const struct pg_row *r = cast(row);

    if (r->pg->getisnull(r->result, r->number, col))
        return SQL_K_NULL;
    switch (r->pg->ftype(r->result, col)) {
    case OID_BOOL:
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
        return SQL_K_INT;
    case OID_NUMERIC: /* what a sum of integers is */
        return strpbrk(value(row, col), ".eN") ? SQL_K_REAL : SQL_K_INT;
    case OID_FLOAT4:
    case OID_FLOAT8:
        return SQL_K_REAL;
    case OID_BYTEA:
        return SQL_K_BLOB;
    default:
        return SQL_K_TEXT;
    }
}

static int64_t integer(const struct store_row *row, int col)
{
    const char *text = value(row, col);
    char *end;
    int64_t v;

    if (*text == 't')
        return 1;
    v = strtoll(text, &end, 10);
    return *end == 'e' || *end == 'E' || *end == '.' ? (int64_t)strtod(text, NULL) : v;
}

static double real(const struct store_row *row, int col)
{
    return strtod(value(row, col), NULL);
}

static unsigned nibble(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static struct str str(const struct store_row *row, int col)
{
    union {
        const struct pg_row *in;
        struct pg_row *out; /* the scratch space is ours to change */
    } r = { .in = cast(row) };
    const char *text = value(row, col);
    size_t n = (size_t)r.in->pg->getlength(r.in->result, r.in->number, col);
    char *bytes;

    if (r.in->pg->getisnull(r.in->result, r.in->number, col))
        return (struct str){ NULL, 0 };
    if (r.in->pg->ftype(r.in->result, col) != OID_BYTEA || n < 2 || text[1] != 'x')
        return (struct str){ text, n };
    bytes = arena_raw(&r.out->scratch, n / 2);
    for (size_t i = 1; i < n / 2; i++)
        bytes[i - 1] = (char)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
    return (struct str){ bytes, n / 2 - 1 };
}

static int each_row(struct pg_db *db, const PGresult *result,
                    int (*each)(struct store_row *row, void *arg, struct err *e), void *arg,
                    struct err *e)
{
    struct pg_row row = { { kind, integer, real, str }, db->pg, result, 0, { 0 } };
    int n = db->pg->ntuples(result), r = 0;

    for (row.number = 0; each && r == 0 && row.number < n; row.number++) {
        r = each(&row.row, arg, e);
        arena_reset(&row.scratch);
    }
    arena_done(&row.scratch);
    return r;
}

/* Statements */

struct params {
    const char *values[ARGS_MAX];
    int lengths[ARGS_MAX], formats[ARGS_MAX];
    Oid types[ARGS_MAX];
    char numbers[ARGS_MAX][32];
};

static void param(struct params *p, size_t i, const struct sql_arg *arg)
{
    static const Oid types[] = {
        [SQL_K_NULL] = 0,        [SQL_K_INT] = OID_INT8,   [SQL_K_REAL] = OID_FLOAT8,
        [SQL_K_TEXT] = OID_TEXT, [SQL_K_BLOB] = OID_BYTEA,
    };
    bool bytes = arg->kind == SQL_K_TEXT || arg->kind == SQL_K_BLOB;

    p->types[i] = types[arg->kind];
    p->formats[i] = bytes;
    p->lengths[i] = bytes ? (int)arg->s.n : 0;
    p->values[i] = NULL;
    if (bytes)
        p->values[i] = arg->s.p ? arg->s.p : "";
    else if (arg->kind != SQL_K_NULL)
        p->values[i] = p->numbers[i];
    if (arg->kind == SQL_K_INT)
        fmt_z(p->numbers[i], sizeof(p->numbers[i]), "%lld", (long long)arg->i);
    if (arg->kind == SQL_K_REAL)
        fmt_z(p->numbers[i], sizeof(p->numbers[i]), "%.17g", arg->r);
}

static struct slot *look(const struct pg_db *db, const struct sql *sql)
{
    size_t i = (size_t)(((uintptr_t)sql >> 3) * 0x9E3779B97F4A7C15u >> 32) & (db->n_slots - 1);

    while (db->slots[i].sql && db->slots[i].sql != sql)
        i = (i + 1) & (db->n_slots - 1);
    return &db->slots[i];
}

static void grow(struct pg_db *db)
{
    struct slot *old = db->slots;
    size_t n = db->n_slots;

    db->n_slots = n ? 2 * n : SLOTS;
    db->slots = xcalloc(db->n_slots, sizeof(*db->slots));
    for (size_t i = 0; i < n; i++) {
        if (old[i].sql)
            *look(db, old[i].sql) = old[i];
    }
    free(old);
}

static bool fits(const struct slot *slot, const Oid *types, size_t n)
{
    if (slot->n_types != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (types[i] && types[i] != slot->types[i])
            return false;
    }
    return true;
}

/* An argument that was NULL until now shows its type: the statement is made anew. */
static int forget(struct pg_db *db, struct slot *slot, struct err *e)
{
    char text[32];

    fmt_z(text, sizeof(text), "DEALLOCATE s%u", slot->number);
    slot->number = 0;
    return pg_simple(db, slot->sql->name, text, e);
}

static int prepare(struct pg_db *db, struct slot *slot, const Oid *types, size_t n, struct err *e)
{
    const struct sql *sql = slot->sql;
    AUTO(free) char *text = translate_statement(sql->pg ? sql->pg : sql->text);
    char name[16];
    PGresult *result;
    int r;

    if (slot->n_types != n) {
        slot->types = xrealloc(slot->types, (n + 1) * sizeof(*slot->types));
        memset(slot->types, 0, (n + 1) * sizeof(*slot->types));
        slot->n_types = n;
    }
    for (size_t i = 0; i < n; i++) {
        if (types[i])
            slot->types[i] = types[i];
    }
    fmt_z(name, sizeof(name), "s%u", ++db->numbers);
    result = db->pg->prepare(db->conn, name, text, (int)n, slot->types);
    r = pg_good(db, result) ? 0 : pg_fail(db, result, sql->name, e);
    db->pg->clear(result);
    if (r == 0)
        slot->number = db->numbers;
    return r;
}

static int acquire(struct pg_db *db, const struct sql *sql, const Oid *types, size_t n,
                   struct slot **ret, struct err *e)
{
    struct slot *slot;
    int r = 0;

    if (4 * (db->used + 1) > 3 * db->n_slots)
        grow(db);
    slot = look(db, sql);
    if (!slot->sql) {
        slot->sql = sql;
        db->used++;
    }
    if (slot->number && !fits(slot, types, n))
        r = forget(db, slot, e);
    if (r == 0 && !slot->number)
        r = prepare(db, slot, types, n, e);
    *ret = slot;
    return r;
}

static int64_t changed(struct pg_db *db, PGresult *result)
{
    if (strncmp(db->pg->cmdStatus(result), "SELECT", 6) == 0)
        return 0;
    return strtoll(db->pg->cmdTuples(result), NULL, 10);
}

static int run(struct store_tx *tx, const struct sql *sql, const struct sql_arg *args,
               size_t n_args, int (*each)(struct store_row *row, void *arg, struct err *e),
               void *arg, struct err *e)
{
    struct pg_db *db = container_of(tx, struct pg_db, tx);
    struct params p;
    struct slot *slot;
    PGresult *result;
    char name[16];
    int r;

    if (n_args > ARGS_MAX)
        return err_set(e, ERR_INTERNAL, "%s: more than %d arguments", sql->name, ARGS_MAX);
    for (size_t i = 0; i < n_args; i++)
        param(&p, i, &args[i]);
    r = acquire(db, sql, p.types, n_args, &slot, e);
    if (r < 0)
        return r;
    fmt_z(name, sizeof(name), "s%u", slot->number);
    result = db->pg->execPrepared(db->conn, name, (int)n_args, p.values, p.lengths, p.formats, 0);
    if (pg_good(db, result)) {
        tx->changed = changed(db, result);
        r = each_row(db, result, each, arg, e);
    } else {
        r = pg_fail(db, result, sql->name, e);
    }
    db->pg->clear(result);
    return r;
}

static int script(struct store_tx *tx, const char *text, struct err *e)
{
    return pg_simple(container_of(tx, struct pg_db, tx), "script", text, e);
}

void pg_db_statements_init(struct pg_db *db)
{
    db->tx.run = run;
    db->tx.script = script;
}

void pg_db_statements_done(struct pg_db *db)
{
    for (size_t i = 0; i < db->n_slots; i++)
        free(db->slots[i].types);
    free(db->slots);
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
    return db->xid;
}

int pg_db_begin(struct pg_db *db, enum store_metric_kind kind_, struct err *e)
{
    static const char *const texts[] = {
        [STORE_WRITE] = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_current_xact_id()",
        [STORE_READ] = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    };
    PGresult *result = db->pg->exec(db->conn, texts[kind_]);
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

static int fate_of(const struct pg_db *db, const PGresult *result, bool same_life)
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
    return same_life ? PG_UNDER_WAY : PG_ABORTED; /* of another life: it is not ours */
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
        r = fate_of(db, result, same_life);
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
