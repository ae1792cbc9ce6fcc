/* SPDX-License-Identifier: MIT */
/* store/migrate_test.c — migrations, on every backend that keeps what it is given. */
#include "store/migrate.h"

#include <pthread.h>

#include "store/store_fixture.h"

static const struct store_migration rows[] = {
    { 1, "one", "CREATE TABLE one (n INTEGER NOT NULL);\nINSERT INTO one (n) VALUES (1);\n", NULL },
    { 2, "two", "CREATE TABLE two (n INTEGER) STRICT; INSERT INTO two (n) VALUES (4000000000);",
      NULL },
    { 3, "three", "CREATE TABLE three (n INTEGER);", "CREATE TABLE three (n BIGINT, x JSONB);" },
};
static const struct store_migration changed[] = {
    { 1, "one", "CREATE TABLE one (n INTEGER NOT NULL);\nINSERT INTO one (n) VALUES (2);\n", NULL },
};
static const struct store_migration broken[] = {
    { 1, "one", "CREATE TABLE one (n INTEGER NOT NULL);\nINSERT INTO one (n) VALUES (1);\n", NULL },
    { 2, "bad", "CREATE TABLE two (n INTEGER); INSERT INTO two (n) VALUES (1); SELECT x FROM no;",
      NULL },
};

/* fn(url) on an empty file and, where there is one, an empty PostgreSQL database. */
static void on_both(void (*fn)(const char *url))
{
    fn(fixture_file());
    if (fixture_pg())
        fn(fixture_pg());
    fixture_leave();
}

static int open_with(const char *url, const struct store_migration *migrations, size_t n,
                     struct store **ret, struct err *e)
{
    const struct store_conf conf = { .url = url, .migrations = migrations, .n_migrations = n };

    return store_open(NULL, &conf, ret, e);
}

/* Open and close; the outcome. */
static int bring(const char *url, const struct store_migration *migrations, size_t n, struct err *e)
{
    struct store *s = NULL;
    int r = open_with(url, migrations, n, &s, e);

    store_close(s);
    return r;
}

static int take_int(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

struct question {
    struct sql sql;
    int64_t answer;
};

static int ask_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct question *q = arg;

    return store_run(tx, &q->sql, NULL, 0, take_int, &q->answer, e);
}

/* One number from a store that is opened for it; -1: the statement failed. */
static int64_t ask(const char *url, const struct store_migration *migrations, size_t n,
                   const char *text)
{
    struct question q = { .sql = { "ask", text, NULL } };
    struct store *s;
    struct err e;
    int r;

    if (open_with(url, migrations, n, &s, &e) < 0)
        return -2;
    r = store_do_now(s, ask_body, &q, &e);
    store_close(s);
    return r < 0 ? -1 : q.answer;
}

static void in_order(const char *url)
{
    struct err e;

    CHECK_INT(bring(url, rows, 1, &e), 0);
    CHECK_INT(ask(url, rows, 1, "SELECT count(*) FROM two"), -1);
    CHECK_INT(bring(url, rows, 3, &e), 0);
    CHECK_INT(bring(url, rows, 3, &e), 0);
    CHECK_INT(ask(url, rows, 3, "SELECT count(*) FROM one"), 1);
    CHECK_INT(ask(url, rows, 3, "SELECT n FROM two"), 4000000000);
    CHECK_INT(ask(url, rows, 3, "SELECT count(*) FROM three"), 0);
    CHECK_INT(ask(url, rows, 3, "SELECT count(*) FROM schema_migrations WHERE applied_at > 0"), 3);
}

TEST(migrations_are_applied_once_and_in_order)
{
    on_both(in_order);
}

static void too_new(const char *url)
{
    struct err e;

    CHECK_INT(bring(url, rows, 3, &e), 0);
    CHECK_INT(bring(url, rows, 2, &e), -ERR_CONFLICT);
    CHECK(strstr(e.msg, "schema version 3 of '"));
    CHECK(strstr(e.msg, "is newer than this program knows (2): use a newer chela or restore"));
}

TEST(a_schema_newer_than_the_program_is_refused)
{
    on_both(too_new);
}

static void changed_text(const char *url)
{
    struct err e;

    CHECK_INT(bring(url, rows, 1, &e), 0);
    CHECK_INT(bring(url, changed, 1, &e), -ERR_CONFLICT);
    CHECK(strstr(e.msg, "migration 1 of '"));
}

TEST(a_migration_that_was_changed_after_it_was_applied_is_refused)
{
    on_both(changed_text);
}

static void half(const char *url)
{
    struct err e;

    CHECK(bring(url, broken, 2, &e) < 0);
    CHECK(strstr(e.msg, "migration 2 (bad)"));
    CHECK_INT(ask(url, rows, 1, "SELECT n FROM one"), 1); /* the first stays */
    CHECK_INT(bring(url, rows, 2, &e), 0);                /* of the second nothing did */
}

TEST(a_migration_that_fails_leaves_nothing_behind)
{
    on_both(half);
}

TEST(rows_left_without_what_they_refer_to_are_refused)
{
    static const struct store_migration dangling[] = {
        { 1, "dangling",
          "CREATE TABLE a (n INTEGER PRIMARY KEY);"
          "CREATE TABLE b (n INTEGER REFERENCES a (n)); INSERT INTO b (n) VALUES (1);",
          NULL },
    };
    struct err e;

    CHECK_INT(bring(fixture_file(), dangling, 1, &e), -ERR_INTERNAL);
    CHECK(strstr(e.msg, "rows of 'b' refer to missing rows of 'a'"));
    fixture_leave();
}

TEST(a_table_that_others_refer_to_can_be_rebuilt)
{
    static const struct store_migration rebuild[] = {
        { 1, "make",
          "CREATE TABLE a (n INTEGER PRIMARY KEY); INSERT INTO a (n) VALUES (1);"
          "CREATE TABLE b (n INTEGER REFERENCES a (n)); INSERT INTO b (n) VALUES (1);",
          NULL },
        { 2, "rebuild",
          "CREATE TABLE c (n INTEGER PRIMARY KEY, x TEXT); INSERT INTO c (n) SELECT n FROM a;"
          "DROP TABLE a; ALTER TABLE c RENAME TO a;",
          NULL },
    };
    const char *url = fixture_file();
    struct err e;

    CHECK_INT(bring(url, rebuild, 1, &e), 0);
    CHECK_INT(bring(url, rebuild, 2, &e), 0);
    CHECK_INT(ask(url, rebuild, 2, "SELECT count(*) FROM b JOIN a ON a.n = b.n"), 1);
    CHECK_INT(ask(url, rebuild, 2, "INSERT INTO b (n) VALUES (7)"), -1); /* keys are back on */
    fixture_leave();
}

struct opener {
    const char *url;
    int r;
    struct err e;
};

static void *open_in_thread(void *arg)
{
    struct opener *o = arg;

    o->r = bring(o->url, rows, 3, &o->e);
    return NULL;
}

static void at_once(const char *url)
{
    struct opener openers[6];
    pthread_t threads[LEN(openers)];

    for (size_t i = 0; i < LEN(openers); i++) {
        openers[i] = (struct opener){ .url = url };
        CHECK(pthread_create(&threads[i], NULL, open_in_thread, &openers[i]) == 0);
    }
    for (size_t i = 0; i < LEN(openers); i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < LEN(openers); i++) {
        if (openers[i].r < 0)
            CHECK_STR(openers[i].e.msg, "");
    }
    CHECK_INT(ask(url, rows, 3, "SELECT count(*) FROM one"), 1);
}

TEST(programs_that_start_at_once_wait_for_each_other)
{
    on_both(at_once);
}

TEST(the_migrations_of_the_program_apply)
{
    struct err e;

    CHECK(store_migrations_len > 0);
    for (size_t i = 0; i < store_migrations_len; i++)
        CHECK_INT(store_migrations[i].version, (int)i + 1);
    if (bring(fixture_file(), store_migrations, store_migrations_len, &e) < 0)
        CHECK_STR(e.msg, "");
    if (fixture_pg() && bring(fixture_pg(), store_migrations, store_migrations_len, &e) < 0)
        CHECK_STR(e.msg, "");
    fixture_leave();
}
