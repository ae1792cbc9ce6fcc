/* SPDX-License-Identifier: MIT */
/*
 * Moving a database from SQLite to PostgreSQL: the tables as the catalogue lists them, a table
 * after those it refers to, each by COPY, all in one transaction of either side.
 */
#include "store/store_copy.h"

#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "store/migrate.h"
#include "store/pg_db.h"
#include "store/sqlite_db.h"

#define CHUNK        (64 * KIB)  /* sent at once */
#define ROW_MAX      (512 * MIB) /* of a row as COPY writes it */
#define NOTE_EVERY   10000       /* rows between calls of progress() */
#define OPEN_WAIT_MS 2000

struct table {
    const char *name;  /* here */
    const char *there; /* quoted, with its schema where it needs one */
    struct table *next;
    bool done;
};

struct copy {
    const struct store_copy_spec *spec;
    struct arena arena; /* statements live here as long as the connections that know them */
    struct sqlite_db *from;
    struct pg_db *to;
    atomic_bool unprepared; /* true: there may be a pooler before it */
    struct table *tables, **last;
    /* of the table under way */
    struct table *table;
    const char *columns; /* quoted, for both sides */
    bool *binary;        /* per column: is it bytea over there? */
    int n_columns;
    struct buf out;
    long long rows;
};

static const char *quoted(struct copy *c, struct str name)
{
    char *out = arena_alloc(&c->arena, 2 * name.n + 3), *p = out;

    *p++ = '"';
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '"')
            *p++ = '"';
        *p++ = name.p[i];
    }
    *p = '"';
    return out;
}

/* Four parts as one text. Names among them are quoted; there are no values. */
static const char *join(struct copy *c, const char *a, const char *b, const char *d, const char *f)
{
    const char *const parts[] = { a, b, d, f };
    size_t n = 1, at = 0;
    char *text;

    for (size_t i = 0; i < LEN(parts); i++)
        n += strlen(parts[i]);
    text = arena_alloc(&c->arena, n);
    for (size_t i = 0; i < LEN(parts); i++) {
        memcpy(text + at, parts[i], strlen(parts[i]));
        at += strlen(parts[i]);
    }
    return text;
}

/* A statement of this text; kept until both connections are closed. */
static const struct sql *statement(struct copy *c, const char *text)
{
    struct sql *sql = arena_new(&c->arena, struct sql);

    sql->name = c->table->name;
    sql->text = text;
    return sql;
}

/* Tables and their order */

static int add_table(struct store_row *row, void *arg, struct err *e)
{
    struct copy *c = arg;
    struct table *table = arena_new(&c->arena, struct table);

    table->name = arena_str(&c->arena, row_str(row, 0)).p;
    *c->last = table;
    c->last = &table->next;
    return 0;
}

static int list_tables(struct copy *c, struct err *e)
{
    static const struct sql list = {
        "list tables",
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'"
        " ESCAPE '\\' AND name NOT IN ('" STORE_MIGRATIONS_TABLE "', 'dbos_migrations')"
        " ORDER BY name",
        NULL,
    };

    c->last = &c->tables;
    return store_run(sqlite_db_tx(c->from), &list, NULL, 0, add_table, c, e);
}

/* 1: refers to a table that has not been copied. */
static int refers(struct store_row *row, void *arg, struct err *e)
{
    struct copy *c = arg;

    for (struct table *other = c->tables; other; other = other->next) {
        if (!other->done && other != c->table &&
            str_eq_nocase(row_str(row, 0), str_of(other->name)))
            return 1;
    }
    return 0;
}

/* The next table whose turn it is into c->table. 1: all are done. */
static int next_table(struct copy *c, struct err *e)
{
    static const struct sql keys = { "list foreign keys",
                                     "SELECT \"table\" FROM pragma_foreign_key_list(?1)", NULL };
    bool left = false;

    for (c->table = c->tables; c->table; c->table = c->table->next) {
        const struct sql_arg args[] = { SQL_Z(c->table->name) };
        int r;

        if (c->table->done)
            continue;
        left = true;
        r = store_run(sqlite_db_tx(c->from), &keys, args, LEN(args), refers, c, e);
        if (r <= 0)
            return r;
    }
    return left ? err_set(e, ERR_INTERNAL, "tables refer to each other in a circle") : 1;
}

/* Rows */

static int put(struct copy *c, const char *p, size_t n, struct err *e)
{
    return buf_add(&c->out, p, n, e);
}

static int put_hex(struct copy *c, struct str s, struct err *e)
{
    char *p;
    int r = put(c, "\\\\x", 3, e);

    if (r == 0)
        r = buf_reserve(&c->out, 2 * s.n + 1, &p, e);
    if (r < 0)
        return r;
    hex_format((const unsigned char *)s.p, s.n, p);
    buf_commit(&c->out, 2 * s.n);
    return 0;
}

static int put_text(struct copy *c, struct str s, struct err *e)
{
    int r = 0;

    if (memchr(s.p, 0, s.n) || !utf8_valid(s.p, s.n))
        return err_set(e, ERR_INVALID,
                       "row %lld holds a text that PostgreSQL cannot: not UTF-8, or with a NUL",
                       c->rows + 1);
    while (r == 0 && s.n > 0) {
        size_t n = 0;

        while (n < s.n && s.p[n] != '\\' && s.p[n] != '\n' && s.p[n] != '\r' && s.p[n] != '\t')
            n++;
        r = put(c, s.p, n, e);
        if (r == 0 && n < s.n) {
            const char escaped[] = { '\\', s.p[n] == '\n'   ? 'n'
                                           : s.p[n] == '\r' ? 'r'
                                           : s.p[n] == '\t' ? 't'
                                                            : '\\' };

            r = put(c, escaped, sizeof(escaped), e);
            n++;
        }
        s.p += n;
        s.n -= n;
    }
    return r;
}

static int put_value(struct copy *c, struct store_row *row, int col, struct err *e)
{
    enum sql_kind kind = row_kind(row, col);

    if (kind == SQL_K_NULL)
        return put(c, "\\N", 2, e);
    if (c->binary[col])
        return put_hex(c, row_str(row, col), e);
    if (kind == SQL_K_INT)
        return buf_printf(&c->out, e, "%lld", (long long)row_int(row, col));
    if (kind == SQL_K_REAL)
        return buf_printf(&c->out, e, "%.17g", row_real(row, col));
    return put_text(c, row_str(row, col), e);
}

static int flush(struct copy *c, struct err *e)
{
    int r = pg_db_copy_put(c->to, buf_str(&c->out), e);

    buf_clear(&c->out);
    return r;
}

static void note(const struct copy *c)
{
    if (c->spec->progress)
        c->spec->progress(c->table->name, c->rows, c->spec->arg);
}

static int copy_row(struct store_row *row, void *arg, struct err *e)
{
    struct copy *c = arg;
    int r = 0;

    for (int col = 0; r == 0 && col < c->n_columns; col++) {
        r = put_value(c, row, col, e);
        if (r == 0)
            r = put(c, col + 1 < c->n_columns ? "\t" : "\n", 1, e);
    }
    if (r == 0 && buf_str(&c->out).n >= CHUNK)
        r = flush(c, e);
    if (r < 0)
        return r;
    if (++c->rows % NOTE_EVERY == 0)
        note(c);
    return 0;
}

/* One table */

static int add_column(struct store_row *row, void *arg, struct err *e)
{
    struct copy *c = arg;
    const char *name = quoted(c, row_str(row, 0));
    bool *binary = arena_alloc(&c->arena, (size_t)c->n_columns + 1);

    if (!c->table->there)
        c->table->there = arena_str(&c->arena, row_str(row, 2)).p;
    c->columns = c->n_columns ? arena_printf(&c->arena, "%s, %s", c->columns, name) : name;
    if (c->n_columns)
        memcpy(binary, c->binary, (size_t)c->n_columns);
    binary[c->n_columns++] = str_eq_z(row_str(row, 1), "bytea");
    c->binary = binary;
    return 0;
}

/*
 * The table and its columns as the destination has them, in the schema dbos or in our own; a column
 * it lacks or has more shows in the SELECT.
 */
static int list_columns(struct copy *c, struct err *e)
{
    static const struct sql list = {
        "list columns",
        "SELECT a.attname, t.typname, a.attrelid::regclass::text"
        " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " WHERE a.attrelid = coalesce(to_regclass('dbos.' || ?1), to_regclass(?1))"
        " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        NULL,
    };
    const struct sql_arg args[] = { SQL_Z(quoted(c, str_of(c->table->name))) };
    int r;

    c->columns = NULL;
    c->binary = NULL;
    c->n_columns = 0;
    r = store_run(pg_db_tx(c->to), &list, args, LEN(args), add_column, c, e);
    if (r == 0 && c->n_columns == 0)
        r = err_set(e, ERR_CONFLICT, "the destination has no such table");
    return r;
}

static int no_row(struct store_row *row, void *arg, struct err *e)
{
    return err_set(e, ERR_CONFLICT, "the destination holds rows already");
}

static int copy_rows(struct copy *c, struct err *e)
{
    const char *text =
        join(c, "COPY ", c->table->there, " (", join(c, c->columns, ") FROM STDIN", "", ""));
    int r = pg_db_copy_begin(c->to, text, e);

    if (r < 0)
        return r;
    text = join(c, "SELECT ", c->columns, " FROM ", quoted(c, str_of(c->table->name)));
    r = store_run(sqlite_db_tx(c->from), statement(c, text), NULL, 0, copy_row, c, e);
    if (r == 0)
        r = flush(c, e);
    return r < 0 ? r : pg_db_copy_end(c->to, e);
}

static int copy_table(struct copy *c, struct err *e)
{
    const char *text;
    int r = list_columns(c, e);

    c->rows = 0;
    if (r == 0) {
        text = join(c, "SELECT 1 FROM ", c->table->there, " LIMIT 1", "");
        r = store_run(pg_db_tx(c->to), statement(c, text), NULL, 0, no_row, NULL, e);
    }
    if (r == 0)
        r = copy_rows(c, e);
    if (r < 0)
        return err_wrap(e, "table %s", c->table->name);
    c->table->done = true;
    note(c);
    return 0;
}

/* The whole */

static int copy_all(struct copy *c, struct err *e)
{
    int r = list_tables(c, e);

    if (r == 0)
        r = pg_db_begin(c->to, STORE_WRITE, e);
    while (r == 0 && (r = next_table(c, e)) == 0)
        r = copy_table(c, e);
    return r < 0 ? r : pg_db_commit(c->to, e);
}

static int open_source(struct copy *c, struct err *e)
{
    const char *path = c->spec->from + strlen("sqlite:");
    const struct migrate_db db = { .name = path, .dialect = MIGRATE_SQLITE };
    int r;

    r = sqlite_db_open(path, DB_ALONE, OPEN_WAIT_MS, &c->from, e);
    if (r == 0)
        r = sqlite_db_verb(c->from, VERB_BEGIN_READ, e);
    if (r == -ERR_UNAVAILABLE)
        return err_wrap(e, "is the program that uses '%s' still running?", path);
    if (r < 0)
        return r;
    return migrate_check(&db, sqlite_db_tx(c->from), c->spec->migrations, c->spec->n_migrations, e);
}

static int open_destination(struct copy *c, struct err *e)
{
    const struct store_conf conf = {
        .url = c->spec->to,
        .migrations = c->spec->migrations,
        .n_migrations = c->spec->n_migrations,
    };
    struct store *s;
    int r = store_open(NULL, &conf, &s, e);

    if (r < 0)
        return r;
    store_close(s); /* it has the schema now */
    r = pg_db_open(c->spec->to, deadline_in(STORE_WAIT_MS), &c->to, e);
    if (r == 0)
        pg_db_share(c->to, &c->unprepared);
    return r;
}

int store_copy_run(const struct store_copy_spec *spec, struct err *e)
{
    struct copy c = { .spec = spec, .unprepared = true };
    int r;

    if (!str_starts(str_of(spec->from), STR("sqlite:")))
        return err_set(e, ERR_INVALID, "a store is copied from sqlite:PATH");
    if (!str_starts(str_of(spec->to), STR("postgres")))
        return err_set(e, ERR_INVALID, "a store is copied to postgres://...");
    buf_init(&c.out, ROW_MAX);
    r = open_source(&c, e);
    if (r == 0)
        r = open_destination(&c, e);
    if (r == 0)
        r = copy_all(&c, e);
    pg_db_close(c.to); /* what was not committed is undone */
    if (c.from)
        sqlite_db_give_up(c.from);
    sqlite_db_close(c.from);
    buf_done(&c.out);
    arena_done(&c.arena);
    return r;
}

int store_copy(const char *from_url, const char *to_url,
               void (*progress)(const char *table, long long rows, void *arg), void *arg,
               struct err *e)
{
    const struct store_copy_spec spec = {
        .from = from_url,
        .to = to_url,
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
        .progress = progress,
        .arg = arg,
    };

    return store_copy_run(&spec, e);
}
