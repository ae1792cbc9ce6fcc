/* SPDX-License-Identifier: MIT */
/*
 * Migrations. The table schema_migrations remembers what was applied, with the SHA-256 of its
 * text; it is read again inside each transaction, because another program may have been faster.
 */
#include "store/migrate.h"

#include <assert.h>

#include "base/secret.h"
#include "base/time.h"
#include "store/translate.h"

#define CHECKSUM (2 * SECRET_KEY + 1)

static const char table_text[] = "CREATE TABLE IF NOT EXISTS " STORE_MIGRATIONS_TABLE " ("
                                 "version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, "
                                 "applied_at INTEGER NOT NULL, checksum TEXT NOT NULL)";

static const struct sql sql_applied = {
    "migrations_applied",
    "SELECT version, checksum FROM " STORE_MIGRATIONS_TABLE " ORDER BY version",
    NULL,
};
static const struct sql sql_note = {
    "migrations_note",
    "INSERT INTO " STORE_MIGRATIONS_TABLE " (version, name, applied_at, checksum)"
    " VALUES (?1, ?2, ?3, ?4)",
    NULL,
};
static const struct sql sql_foreign_keys = {
    "migrations_foreign_keys",
    "SELECT \"table\", parent FROM pragma_foreign_key_check LIMIT 1",
    NULL,
};

struct migration_run {
    const struct migrate_db *db;
    const struct store_migration *rows;
    size_t n;
    bool *applied; /* per row */
};

/* The text as it is written: what is checked must not change when the translation gets better. */
static const char *source(const struct migrate_db *db, const struct store_migration *row)
{
    return db->dialect == MIGRATE_PG && row->pg ? row->pg : row->sqlite;
}

static int script(struct store_tx *tx, const struct migrate_db *db, const char *text,
                  bool translated, struct err *e)
{
    AUTO(free) char *own = NULL;

    if (db->dialect == MIGRATE_SQLITE || translated)
        return tx->script(tx, text, e);
    own = translate_schema(text);
    return tx->script(tx, own, e);
}

static int look(struct store_row *row, void *arg, struct err *e)
{
    struct migration_run *run = arg;
    long long version = row_int(row, 0), newest = 0;
    char checksum[CHECKSUM];

    for (size_t i = 0; i < run->n; i++) {
        newest = run->rows[i].version;
        if (newest != version)
            continue;
        sha256_hex(str_of(source(run->db, &run->rows[i])), checksum);
        if (!str_eq_z(row_str(row, 1), checksum))
            return err_set(e, ERR_CONFLICT,
                           "migration %lld of '%s' was applied with another text than this"
                           " program's: use the program that made it, or restore a backup",
                           version, run->db->name);
        run->applied[i] = true;
        return 0;
    }
    return err_set(e, ERR_CONFLICT,
                   "schema version %lld of '%s' is newer than this program knows (%lld):"
                   " use a newer chela or restore a backup",
                   version, run->db->name, newest);
}

static int dangling(struct store_row *row, void *arg, struct err *e)
{
    struct str table = row_str(row, 0), parent = row_str(row, 1);

    return err_set(e, ERR_INTERNAL, "rows of '" STR_FMT "' refer to missing rows of '" STR_FMT "'",
                   STR_ARG(table), STR_ARG(parent));
}

static int apply(struct store_tx *tx, const struct migration_run *run,
                 const struct store_migration *row, struct err *e)
{
    char checksum[CHECKSUM];
    int r;

    sha256_hex(str_of(source(run->db, row)), checksum);
    const struct sql_arg args[] = {
        SQL_INT(row->version),
        SQL_Z(row->name),
        SQL_INT(wall_us()),
        SQL_Z(checksum),
    };

    r = script(tx, run->db, source(run->db, row), row->pg != NULL, e);
    if (r == 0 && run->db->dialect == MIGRATE_SQLITE)
        r = store_run(tx, &sql_foreign_keys, NULL, 0, dangling, NULL, e);
    if (r == 0)
        r = store_run(tx, &sql_note, args, LEN(args), NULL, NULL, e);
    return r < 0 ? err_wrap(e, "migration %d (%s)", row->version, row->name) : r;
}

/* 1: one was applied and there may be more. 0: all were. */
static int one_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct migration_run *run = arg;
    int r;

    for (size_t i = 0; i < run->n; i++)
        run->applied[i] = false;
    r = script(tx, run->db, table_text, false, e);
    if (r == 0)
        r = store_run(tx, &sql_applied, NULL, 0, look, run, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < run->n; i++) {
        if (!run->applied[i]) {
            r = apply(tx, run, &run->rows[i], e);
            return r < 0 ? r : 1;
        }
    }
    return 0;
}

int migrate(const struct migrate_db *db, const struct store_migration *rows, size_t n,
            struct err *e)
{
    AUTO(free) bool *applied = xcalloc(n + 1, sizeof(*applied));
    struct migration_run run = { db, rows, n, applied };
    int r;

    for (size_t i = 0; i + 1 < n; i++)
        assert(rows[i].version < rows[i + 1].version);
    do {
        r = db->run(db->db, one_body, &run, e);
    } while (r > 0);
    return r;
}

int migrate_check(const struct migrate_db *db, struct store_tx *tx,
                  const struct store_migration *rows, size_t n, struct err *e)
{
    AUTO(free) bool *applied = xcalloc(n + 1, sizeof(*applied));
    struct migration_run run = { db, rows, n, applied };
    int r = store_run(tx, &sql_applied, NULL, 0, look, &run, e);

    for (size_t i = 0; r == 0 && i < n; i++) {
        if (!applied[i])
            r = err_set(e, ERR_CONFLICT,
                        "'%s' has not the schema of this program yet: start chela on it once",
                        db->name);
    }
    return r;
}
