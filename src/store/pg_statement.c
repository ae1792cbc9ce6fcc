/* SPDX-License-Identifier: MIT */
/*
 * Statements on a connection to PostgreSQL: arguments out, rows in.
 *
 * A statement is prepared once per connection with the types of its arguments: integers are int8,
 * texts text, blobs bytea, reals float8; NULL leaves the type to the server until a value comes.
 * Integers and reals travel as text, texts, blobs and arrays in binary; rows come back as text.
 *
 * Its name on the server is a hash of its text and types, so that a name means the same on every
 * connection. Behind a pooler that hands out another connection for each transaction a name may
 * still be unknown, or known already: then pg_fail() turns preparing off for the whole store.
 */
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/secret.h"
#include "store/pg_db_int.h"
#include "store/translate.h"

#define ARGS_MAX 64           /* of one statement */
#define SLOTS    256          /* of the statement table: a power of two, it grows */
#define SEND_MAX (16 * KIB)   /* of a statement sent from the loop's thread: fits into any socket */
#define SENT_MAX (1023 * MIB) /* of one argument: what the server takes */

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
    OID_TEXTS = 1009,
    OID_INT8S = 1016,
    OID_NUMERIC = 1700,
};

struct slot {
    const struct sql *sql;
    char *text;  /* as the server wants it */
    uint64_t id; /* hash of text and types: the server knows the statement as "s<id>" */
    bool ready;  /* on this connection */
    Oid *types;
    size_t n_types;
};

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

/* Arguments */

struct params {
    const char *values[ARGS_MAX];
    int lengths[ARGS_MAX], formats[ARGS_MAX];
    Oid types[ARGS_MAX];
    char numbers[ARGS_MAX][32];
    struct arena arrays;
};

static char *put32(char *p, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        *p++ = (char)(v >> shift);
    return p;
}

static size_t array_size(const struct sql_arg *arg)
{
    size_t size = 20;

    for (size_t i = 0; i < arg->n; i++) {
        size += 4;
        if (arg->kind == SQL_K_TEXTS)
            size += arg->texts[i].p ? arg->texts[i].n : 0;
        else
            size += arg->ints[i] == SQL_INTS_NULL ? 0 : 8;
    }
    return size;
}

static char *put_text(char *p, struct str s)
{
    if (!s.p)
        return put32(p, UINT32_MAX);
    p = put32(p, (uint32_t)s.n);
    memcpy(p, s.p, s.n);
    return p + s.n;
}

static char *put_int(char *p, int64_t v)
{
    if (v == SQL_INTS_NULL)
        return put32(p, UINT32_MAX);
    p = put32(p, 8);
    p = put32(p, (uint32_t)((uint64_t)v >> 32));
    return put32(p, (uint32_t)v);
}

/* Dimensions, is there a NULL, type of the elements; then length, first index, and each element. */
static void put_array(char *p, const struct sql_arg *arg)
{
    bool texts = arg->kind == SQL_K_TEXTS;

    p = put32(p, arg->n ? 1 : 0);
    p = put32(p, 1); /* there may be */
    p = put32(p, texts ? OID_TEXT : OID_INT8);
    if (!arg->n)
        return;
    p = put32(p, (uint32_t)arg->n);
    p = put32(p, 1);
    for (size_t i = 0; i < arg->n; i++)
        p = texts ? put_text(p, arg->texts[i]) : put_int(p, arg->ints[i]);
}

static int param(struct params *p, size_t i, const struct sql_arg *arg, struct err *e)
{
    static const Oid types[] = {
        [SQL_K_NULL] = 0,         [SQL_K_INT] = OID_INT8,   [SQL_K_REAL] = OID_FLOAT8,
        [SQL_K_TEXT] = OID_TEXT,  [SQL_K_BLOB] = OID_BYTEA, [SQL_K_TEXTS] = OID_TEXTS,
        [SQL_K_INTS] = OID_INT8S,
    };
    size_t size = 0;
    char *array;

    p->types[i] = types[arg->kind];
    p->values[i] = NULL;
    p->formats[i] = 1;
    switch (arg->kind) {
    case SQL_K_NULL:
        break;
    case SQL_K_INT:
    case SQL_K_REAL:
        p->formats[i] = 0;
        p->values[i] = p->numbers[i];
        if (arg->kind == SQL_K_INT)
            fmt_z(p->numbers[i], sizeof(p->numbers[i]), "%lld", (long long)arg->i);
        else
            fmt_z(p->numbers[i], sizeof(p->numbers[i]), "%.17g", arg->r);
        break;
    case SQL_K_TEXT:
    case SQL_K_BLOB:
        p->values[i] = arg->s.p ? arg->s.p : "";
        size = arg->s.n;
        break;
    case SQL_K_TEXTS:
    case SQL_K_INTS:
        size = array_size(arg);
        if (size > SENT_MAX)
            break;
        p->values[i] = array = arena_raw(&p->arrays, size);
        put_array(array, arg);
        size = arg->n ? size : 12;
        break;
    }
    if (size > SENT_MAX)
        return err_set(e, ERR_LIMIT, "argument %zu is too long for PostgreSQL", i + 1);
    p->lengths[i] = (int)size;
    return 0;
}

/* Statements */

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

/* Arguments that were NULL until now show their types: it is another statement. */
static void learn(struct slot *slot, const Oid *types, size_t n)
{
    size_t text = strlen(slot->text), size = text + n * sizeof(Oid);
    AUTO(free) char *all = xmalloc(size + 1);
    unsigned char digest[SECRET_KEY];

    if (slot->n_types != n || !slot->types) {
        slot->types = xrealloc(slot->types, (n + 1) * sizeof(Oid));
        memset(slot->types, 0, (n + 1) * sizeof(Oid));
        slot->n_types = n;
    }
    for (size_t i = 0; i < n; i++) {
        if (types[i])
            slot->types[i] = types[i];
    }
    memcpy(all, slot->text, text);
    memcpy(all + text, slot->types, n * sizeof(Oid));
    sha256(all, size, digest);
    memcpy(&slot->id, digest, sizeof(slot->id));
    slot->ready = false;
}

static struct slot *acquire(struct pg_db *db, const struct sql *sql, const Oid *types, size_t n)
{
    struct slot *slot;

    if (4 * (db->used + 1) > 3 * db->n_slots)
        grow(db);
    slot = look(db, sql);
    if (!slot->sql) {
        slot->sql = sql;
        slot->text = translate_statement(sql->pg ? sql->pg : sql->text);
        db->used++;
    }
    if (!slot->types || !fits(slot, types, n))
        learn(slot, types, n);
    return slot;
}

static void format_name(const struct slot *slot, char name[24])
{
    fmt_z(name, 24, "s%016llx", (unsigned long long)slot->id);
}

/* Another struct sql may have the same text, or this one had these types before. */
static bool known(const struct pg_db *db, uint64_t id)
{
    for (size_t i = 0; i < db->n_known; i++) {
        if (db->known[i] == id)
            return true;
    }
    return false;
}

static int prepare(struct pg_db *db, struct slot *slot, struct err *e)
{
    char name[24];
    PGresult *result;
    int r;

    if (!known(db, slot->id)) {
        format_name(slot, name);
        result = db->pg->prepare(db->conn, name, slot->text, (int)slot->n_types, slot->types);
        r = pg_good(db, result) ? 0 : pg_fail(db, result, slot->sql->name, e);
        db->pg->clear(result);
        if (r < 0)
            return r;
        db->known = xrealloc(db->known, (db->n_known + 1) * sizeof(*db->known));
        db->known[db->n_known++] = slot->id;
    }
    slot->ready = true;
    return 0;
}

static PGresult *execute(struct pg_db *db, const struct slot *slot, const struct params *p)
{
    char name[24];

    if (!slot->ready)
        return db->pg->execParams(db->conn, slot->text, (int)slot->n_types, slot->types, p->values,
                                  p->lengths, p->formats, 0);
    format_name(slot, name);
    return db->pg->execPrepared(db->conn, name, (int)slot->n_types, p->values, p->lengths,
                                p->formats, 0);
}

static int64_t changed(const struct pg_db *db, PGresult *result)
{
    if (strncmp(db->pg->cmdStatus(result), "SELECT", 6) == 0)
        return 0;
    return strtoll(db->pg->cmdTuples(result), NULL, 10);
}

/* What the rows of an answer, or its error, come to. */
static int outcome(struct pg_db *db, PGresult *result, const struct store_single *one,
                   struct err *e)
{
    if (!pg_good(db, result))
        return pg_fail(db, result, one->sql->name, e);
    db->tx.changed = changed(db, result);
    return each_row(db, result, one->each, one->arg, e);
}

static int run_params(struct pg_db *db, const struct store_single *one, const struct params *p,
                      struct err *e)
{
    struct slot *slot = acquire(db, one->sql, p->types, one->n_args);
    PGresult *result;
    int r = 0;

    if (pg_db_unprepared(db))
        slot->ready = false;
    else if (!slot->ready)
        r = prepare(db, slot, e);
    if (r < 0)
        return r;
    result = execute(db, slot, p);
    r = outcome(db, result, one, e);
    db->pg->clear(result);
    return r;
}

/* The arguments as they travel; p->arrays is to be freed. */
static int params(struct params *p, const struct store_single *one, struct err *e)
{
    int r = 0;

    p->arrays = (struct arena){ 0 };
    if (one->n_args > ARGS_MAX)
        return err_set(e, ERR_INTERNAL, "%s: more than %d arguments", one->sql->name, ARGS_MAX);
    for (size_t i = 0; r == 0 && i < one->n_args; i++)
        r = param(p, i, &one->args[i], e);
    return r < 0 ? err_wrap(e, "%s", one->sql->name) : 0;
}

static int run(struct store_tx *tx, const struct sql *sql, const struct sql_arg *args,
               size_t n_args, int (*each)(struct store_row *row, void *arg, struct err *e),
               void *arg, struct err *e)
{
    const struct store_single one = { sql, args, n_args, each, arg };
    struct params p;
    int r = params(&p, &one, e);

    if (r == 0)
        r = run_params(container_of(tx, struct pg_db, tx), &one, &p, e);
    arena_done(&p.arrays);
    return r;
}

/* Without waiting */

static int send_params(struct pg_db *db, const struct store_single *one, const struct params *p,
                       struct err *e)
{
    struct slot *slot = acquire(db, one->sql, p->types, one->n_args);
    int n = (int)one->n_args, sent;
    char name[24];

    if (pg_db_unprepared(db)) {
        sent = db->pg->sendQueryParams(db->conn, slot->text, n, slot->types, p->values, p->lengths,
                                       p->formats, 0);
    } else if (slot->ready) {
        format_name(slot, name);
        sent = db->pg->sendQueryPrepared(db->conn, name, n, p->values, p->lengths, p->formats, 0);
    } else {
        return 0;
    }
    return sent ? 1 : pg_fail(db, NULL, one->sql->name, e);
}

int pg_db_send(struct pg_db *db, const struct store_single *one, struct err *e)
{
    size_t size = strlen(one->sql->pg ? one->sql->pg : one->sql->text);
    struct params p;
    int r = params(&p, one, e);

    for (size_t i = 0; r == 0 && i < one->n_args; i++)
        size += (size_t)p.lengths[i];
    if (r == 0 && size <= SEND_MAX)
        r = send_params(db, one, &p, e);
    arena_done(&p.arrays);
    return r;
}

int pg_db_socket(const struct pg_db *db)
{
    return db->pg->socket(db->conn);
}

int pg_db_take(struct pg_db *db, const struct store_single *one, int *ret, struct err *e)
{
    (void)db->pg->consumeInput(db->conn); /* its failure is the next result */
    while (!db->pg->isBusy(db->conn)) {
        PGresult *result = db->pg->getResult(db->conn);

        if (!result) {
            *ret = outcome(db, db->taken, one, e);
            db->pg->clear(TAKE(db->taken));
            return 0;
        }
        db->pg->clear(db->taken); /* there is one of a statement; a lost connection adds one */
        db->taken = result;
    }
    return 1;
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
    for (size_t i = 0; i < db->n_slots; i++) {
        free(db->slots[i].types);
        free(db->slots[i].text);
    }
    free(db->slots);
    free(db->known);
}
