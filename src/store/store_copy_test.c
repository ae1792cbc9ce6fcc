/* SPDX-License-Identifier: MIT */
/* store/store_copy_test.c — from SQLite to PostgreSQL. Run by tests/pg_run.sh. */
#include "store/store_copy.h"

#include "store/store_fixture.h"

/* Names that need quotes, and an order of names that is not that of the references. */
static const struct store_migration rows[] = {
    { 1, "first",
      "CREATE TABLE z_parent (id INTEGER NOT NULL PRIMARY KEY, name TEXT);"
      "CREATE TABLE child (parent INTEGER NOT NULL REFERENCES z_parent (id), n INTEGER NOT NULL,"
      " PRIMARY KEY (parent, n)) STRICT, WITHOUT ROWID;"
      "CREATE TABLE \"Odd \"\"one\" (\"a b\" TEXT, \"select\" BLOB, r REAL);"
      "CREATE TABLE a_tree (id INTEGER PRIMARY KEY, up INTEGER REFERENCES a_tree (id));"
      "CREATE TABLE numbers (n INTEGER);",
      NULL },
    { 2, "second", "CREATE TABLE later (n INTEGER);", NULL },
};

static const char contents[] =
    "INSERT INTO z_parent (id, name) VALUES (1, 'one'), (2, NULL), (-9223372036854775808, '');"
    "INSERT INTO child (parent, n) VALUES (1, 1), (1, 2), (2, 9223372036854775807);"
    "INSERT INTO \"Odd \"\"one\" VALUES ('tab\there\nline\r \\N \\. back\\slash', x'00ff5c78', "
    "0.1),"
    " ('\\.', x'', -1.5e300), (NULL, NULL, NULL), ('gr\xc3\xbc\xc3\x9f', x'41', 3);"
    "INSERT INTO a_tree (id, up) VALUES (1, 2), (2, NULL), (3, 1);";

static const char many[] =
    "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 25000)"
    " INSERT INTO numbers (n) SELECT i FROM c";

static int script_body(struct store_tx *tx, void *arg, struct err *e)
{
    const char *const *texts = arg;
    int r = 0;

    for (size_t i = 0; r == 0 && texts[i]; i++)
        r = tx->script(tx, texts[i], e);
    return r;
}

static int fill(const char *url, const char *const *texts, size_t n_rows, struct err *e)
{
    const struct store_conf conf = { .url = url, .migrations = rows, .n_migrations = n_rows };
    const char *copy[4] = { 0 };
    struct store *s;
    int r;

    for (size_t i = 0; i < 3 && texts[i]; i++)
        copy[i] = texts[i];
    r = store_open(NULL, &conf, &s, e);
    if (r < 0)
        return r;
    r = store_do_now(s, script_body, copy, e);
    store_close(s);
    return r;
}

static struct {
    char log[512];
    size_t n;
} told;

static void tell(const char *table, long long n, void *arg)
{
    told.n += (size_t)snprintf(told.log + told.n, sizeof(told.log) - told.n, "%s=%lld ", table, n);
}

static int copy(const char *from, const char *to, struct err *e)
{
    const struct store_copy_spec spec = {
        .from = from, .to = to, .migrations = rows, .n_migrations = LEN(rows), .progress = tell
    };

    told.n = 0;
    told.log[0] = '\0';
    return store_copy_run(&spec, e);
}

/* Everything a store holds, as one text: both databases are asked the same. */
struct dump {
    char text[4096];
    size_t n;
};

static int add_row(struct store_row *row, void *arg, struct err *e)
{
    struct dump *d = arg;

    for (int col = 0; col < 3; col++) {
        struct str s = row_str(row, col);
        char hex[256] = "null";

        if (!row_is_null(row, col) && row_kind(row, col) == SQL_K_REAL)
            fmt_z(hex, sizeof(hex), "%.17g", row_real(row, col));
        else if (s.p && s.n < 100)
            hex_format((const unsigned char *)s.p, s.n, hex);
        d->n += (size_t)snprintf(d->text + d->n, sizeof(d->text) - d->n, "%s ", hex);
    }
    return 0;
}

static int dump_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql statements[] = {
        { "1", "SELECT id, name, 0 FROM z_parent ORDER BY id", NULL },
        { "2", "SELECT parent, n, 0 FROM child ORDER BY parent, n", NULL },
        { "3", "SELECT \"a b\", \"select\", r FROM \"Odd \"\"one\" ORDER BY r",
          "SELECT \"a b\", \"select\", r FROM \"Odd \"\"one\" ORDER BY r NULLS FIRST" },
        { "4", "SELECT id, up, 0 FROM a_tree ORDER BY id", NULL },
        { "5", "SELECT count(*), sum(n), 0 FROM numbers", NULL },
    };
    int r = 0;

    *(struct dump *)arg = (struct dump){ 0 };
    for (size_t i = 0; r == 0 && i < LEN(statements); i++)
        r = store_run(tx, &statements[i], NULL, 0, add_row, arg, e);
    return r;
}

static int dump(const char *url, struct dump *d, struct err *e)
{
    const struct store_conf conf = { .url = url, .migrations = rows, .n_migrations = LEN(rows) };
    struct store *s;
    int r = store_open(NULL, &conf, &s, e);

    if (r < 0)
        return r;
    r = store_do_now(s, dump_body, d, e);
    store_close(s);
    return r;
}

#define DONE(call) \
    do { \
        if ((call) < 0) \
            CHECK_STR(e.msg, ""); \
    } while (0)

TEST(every_table_arrives_as_it_was)
{
    static struct dump before, after;
    const char *const texts[] = { contents, many, NULL };
    const char *from = fixture_file(), *to = fixture_pg();
    struct err e;

    CHECK(to);
    DONE(fill(from, texts, LEN(rows), &e));
    DONE(copy(from, to, &e));
    DONE(dump(from, &before, &e));
    DONE(dump(to, &after, &e));
    CHECK(before.n > 300 && before.n < sizeof(before.text));
    CHECK_STR(after.text, before.text);
    CHECK(strstr(told.log, "numbers=10000 numbers=20000 numbers=25000 "));
    CHECK(strstr(told.log, "later=0 "));
    CHECK(strstr(told.log, "z_parent=3 child=3 ") || strstr(told.log, "z_parent=3 "));
    fixture_leave();
}

TEST(a_destination_with_rows_is_refused_and_left_alone)
{
    const char *const texts[] = { contents, NULL };
    const char *const one[] = { "INSERT INTO later (n) VALUES (7)", NULL };
    const char *from = fixture_file(), *to = fixture_pg();
    static struct dump before, after;
    struct err e;

    DONE(fill(from, texts, LEN(rows), &e));
    DONE(fill(to, one, LEN(rows), &e));
    DONE(dump(to, &before, &e));
    CHECK_INT(copy(from, to, &e), -ERR_CONFLICT);
    CHECK_STR(e.msg, "table later: the destination holds rows already");
    DONE(dump(to, &after, &e));
    CHECK_STR(after.text, before.text);
    fixture_leave();
}

TEST(a_source_in_use_is_refused)
{
    const char *from = fixture_file(), *to = fixture_pg();
    const struct store_conf conf = { .url = from, .migrations = rows, .n_migrations = LEN(rows) };
    struct store *s;
    struct err e;

    CHECK_INT(store_open(NULL, &conf, &s, &e), 0);
    CHECK_INT(copy(from, to, &e), -ERR_UNAVAILABLE);
    CHECK(strstr(e.msg, "still running?"));
    store_close(s);
    DONE(copy(from, to, &e));
    fixture_leave();
}

TEST(a_source_of_another_schema_is_refused)
{
    const char *const texts[] = { NULL };
    const char *from = fixture_file(), *to = fixture_pg();
    struct err e;

    DONE(fill(from, texts, 1, &e));
    CHECK_INT(copy(from, to, &e), -ERR_CONFLICT);
    CHECK(strstr(e.msg, "start chela on it once"));
    fixture_leave();
}

TEST(a_text_that_postgresql_cannot_hold_stops_the_copy_and_names_the_row)
{
    const char *const texts[] = {
        "INSERT INTO z_parent (id, name) VALUES (1, 'fine'), (2, CAST(x'ff' AS TEXT))", NULL
    };
    const char *from = fixture_file(), *to = fixture_pg();
    static struct dump d;
    struct err e;

    DONE(fill(from, texts, LEN(rows), &e));
    CHECK_INT(copy(from, to, &e), -ERR_INVALID);
    CHECK(strstr(e.msg, "table z_parent: row 2 holds a text"));
    DONE(dump(to, &d, &e));
    CHECK(strncmp(d.text, "30 null 30", 10) == 0); /* nothing has arrived */
    fixture_leave();
}

TEST(what_is_not_there_is_not_copied)
{
    struct err e;

    CHECK(copy("sqlite:/nowhere/x.db", fixture_pg(), &e) < 0);
    CHECK_INT(copy("/nowhere/x.db", fixture_pg(), &e), -ERR_INVALID);
    CHECK_INT(copy(fixture_file(), "sqlite:/tmp/x.db", &e), -ERR_INVALID);
}

/* The program's own schema: at least a row in every table, and a value in every column. */
static const char *const own_rows[] = {
    "INSERT INTO dbos.workflow_status VALUES ('w1', 'SUCCESS', 'greet', 'user', 'role', '[\"r\"]',"
    " '{}', 'out', 'err', 'local', 1, 2, 'v1', 'app', 'Class', 'config', 3, 'q', 4, 5, 'in', 6,"
    " 'dedup', 7, 'part', 'w0', 'owner', 'w2', 'portable_json', 8, 1, TRUE, 9, '{\"a\": [1, "
    "\"b\"]}',"
    " 'sched', 10, 1, 'name', 'creator');"
    "INSERT INTO dbos.workflow_status (workflow_uuid, created_at) VALUES ('w2', 77), "
    "('gr\xc3\xbc\xc3"
    "\x9f \t\\', 78);",
    "INSERT INTO dbos.workflow_input VALUES ('w1', '{\"positionalArgs\":[\"a\\nb\"]}', 1);"
    "INSERT INTO dbos.workflow_output VALUES ('w1', 'null', 'e', 2);"
    "INSERT INTO dbos.operation_outputs VALUES ('w1', 0, 'step', 'o', 'e', 'c', 1, 2, 's', 'n', 3),"
    " ('gone', 2147483647, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 4);"
    "INSERT INTO dbos.notifications VALUES ('m1', 'w1', 't', '\"x\"', 5, 'portable_json', 1, 2),"
    " ('m2', 'w2', NULL, '', 6, NULL, 0, NULL);"
    "INSERT INTO dbos.workflow_events VALUES ('w1', 'k', 'v', 's');"
    "INSERT INTO dbos.workflow_events_history VALUES ('w1', 3, 'k', 'v', 's');"
    "INSERT INTO dbos.streams VALUES ('w2', 'k', 'v', 0, 1, 's');",
    "INSERT INTO dbos.workflow_schedules VALUES ('s1', 'n', 'w', 'c', '* * * * *', 'PAUSED', '{}',"
    " '2026-01-01T00:00:00.000Z', 1, 'Europe/Berlin', 'q', 'a');"
    "INSERT INTO dbos.queues VALUES ('q1', 'q', 1, 2, 3, 0.5, 1, 1, 2, 4, 5, 'a', 6, 7, 8, 9.25);"
    "INSERT INTO dbos.application_versions VALUES ('id', 'v1', 1, 2, 'a');"
    "INSERT INTO dbos.event_dispatch_kv VALUES ('s', 'f', 'k', 'v', '12', '1.5');"
    "INSERT INTO durable_executors VALUES ('local', 'i', 'v1', 1, 2, 0);"
    "INSERT INTO durable_parked VALUES ('w2', 'recv', NULL, 't', 3);"
    "INSERT INTO durable_schedules VALUES ('n', 'once', 'skip', 5, 60000);"
    "INSERT INTO durable_queues VALUES ('q', 1);",
    NULL,
};

static const char *const own_tables[] = {
    "dbos.workflow_status",
    "dbos.workflow_input",
    "dbos.workflow_output",
    "dbos.operation_outputs",
    "dbos.notifications",
    "dbos.workflow_events",
    "dbos.streams",
    "dbos.workflow_events_history",
    "dbos.workflow_schedules",
    "dbos.queues",
    "dbos.event_dispatch_kv",
    "dbos.application_versions",
    "durable_executors",
    "durable_parked",
    "durable_schedules",
    "durable_queues",
    "dbos.dbos_migrations",
};

static int open_own(const char *url, struct store **ret, struct err *e)
{
    const struct store_conf conf = { .url = url,
                                     .migrations = store_migrations,
                                     .n_migrations = store_migrations_len };

    return store_open(NULL, &conf, ret, e);
}

/* Columns in the order of SQLite's table, which the statements name; bounded by the test's rows. */
struct own {
    const char *table;
    char columns[2048], statement[2200];
    struct sql sql;
    int n_columns, n_rows;
    char text[8192];
};

static int add_name(struct store_row *row, void *arg, struct err *e)
{
    struct own *own = arg;
    size_t at = strlen(own->columns);

    fmt_z(own->columns + at, sizeof(own->columns) - at, "%s\"" STR_FMT "\"", at ? ", " : "",
          STR_ARG(row_str(row, 0)));
    own->n_columns++;
    return 0;
}

static int columns_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql list = { "columns",
                                     "SELECT name FROM pragma_table_info(?1) ORDER BY cid", NULL };
    struct own *own = arg;
    const char *dot = strchr(own->table, '.');
    const struct sql_arg args[] = { SQL_Z(dot ? dot + 1 : own->table) };

    own->columns[0] = '\0';
    own->n_columns = 0;
    return store_run(tx, &list, args, LEN(args), add_name, own, e);
}

static int add_values(struct store_row *row, void *arg, struct err *e)
{
    struct own *own = arg;

    own->n_rows++;
    for (int col = 0; col < own->n_columns; col++) {
        size_t at = strlen(own->text);
        char *p = own->text + at;

        if (row_is_null(row, col))
            fmt_z(p, sizeof(own->text) - at, "NULL|");
        else if (row_kind(row, col) == SQL_K_REAL)
            fmt_z(p, sizeof(own->text) - at, "%.17g|", row_real(row, col));
        else if (row_kind(row, col) == SQL_K_INT)
            fmt_z(p, sizeof(own->text) - at, "%lld|", (long long)row_int(row, col));
        else
            fmt_z(p, sizeof(own->text) - at, STR_FMT "|", STR_ARG(row_str(row, col)));
    }
    return 0;
}

static int rows_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct own *own = arg;

    fmt_z(own->statement, sizeof(own->statement), "SELECT %s FROM %s ORDER BY 1", own->columns,
          own->table);
    own->sql = (struct sql){ own->table, own->statement, NULL };
    own->text[0] = '\0';
    own->n_rows = 0;
    return store_run(tx, &own->sql, NULL, 0, add_values, own, e);
}

TEST(the_program_s_own_tables_arrive_with_all_they_hold)
{
    const char *from = fixture_file(), *to = fixture_pg();
    static struct own before[LEN(own_tables)], after[LEN(own_tables)];
    const char *copy[8] = { 0 };
    struct store *s;
    struct err e;

    for (size_t i = 0; own_rows[i]; i++)
        copy[i] = own_rows[i];
    DONE(open_own(from, &s, &e));
    DONE(store_do_now(s, script_body, copy, &e));
    for (size_t i = 0; i < LEN(own_tables); i++) {
        before[i].table = own_tables[i];
        DONE(store_do_now(s, columns_body, &before[i], &e));
        DONE(store_do_now(s, rows_body, &before[i], &e));
        CHECK(before[i].n_columns > 0 && before[i].n_rows > 0);
    }
    store_close(s);
    DONE(store_copy(from, to, NULL, NULL, &e));

    DONE(open_own(to, &s, &e));
    for (size_t i = 0; i < LEN(own_tables); i++) {
        after[i] = before[i];
        DONE(store_do_now(s, rows_body, &after[i], &e));
        CHECK_INT(after[i].n_rows, before[i].n_rows);
        CHECK_STR(after[i].text, before[i].text);
    }
    store_close(s);
    fixture_leave();
}
