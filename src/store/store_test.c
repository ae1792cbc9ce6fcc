/* SPDX-License-Identifier: MIT */
/*
 * store/store_test.c — what every backend must do alike. Each test runs on an SQLite file, on
 * SQLite in memory and, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#include "store/store.h"

#include <pthread.h>

#include "store/store_fixture.h"

static const struct store_migration schema[] = {
    {
        1,
        "tables",
        "CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY, n INTEGER, r REAL, s TEXT, b BLOB) STRICT;\n"
        "CREATE TABLE child (k TEXT NOT NULL REFERENCES t (k), n INTEGER NOT NULL,"
        " PRIMARY KEY (k, n)) STRICT, WITHOUT ROWID;\n",
        NULL,
    },
};

static const struct store_conf conf = { .migrations = schema, .n_migrations = LEN(schema) };

#define EVERYWHERE(id) \
    static int co_##id(struct fixture *f, struct err *e); \
    TEST(id) \
    { \
        CHECK(fixture_everywhere(&conf, co_##id)); \
    } \
    static int co_##id(struct fixture *f, struct err *e)

static const struct sql sql_put = { "put", "INSERT INTO t (k, n) VALUES (?1, ?2)", NULL };
static const struct sql sql_add = { "add", "UPDATE t SET n = n + ?2 WHERE k = ?1", NULL };
static const struct sql sql_get = { "get", "SELECT n FROM t WHERE k = ?1", NULL };
static const struct sql sql_count = { "count", "SELECT count(*) FROM t", NULL };
static const struct sql sql_keys = { "keys", "SELECT k FROM t ORDER BY k", NULL };
static const struct sql sql_child = { "child", "INSERT INTO child (k, n) VALUES (?1, ?2)", NULL };

static int run_kn(struct store_tx *tx, const struct sql *sql, const char *k, int64_t n,
                  struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(k), SQL_INT(n) };

    return store_run(tx, sql, args, LEN(args), NULL, NULL, e);
}

static int take_int(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int is_empty_null(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_str(row, 0).n == 0 && row_is_null(row, 1);
    return 0;
}

static int stop_at_first(struct store_row *row, void *arg, struct err *e)
{
    ++*(int64_t *)arg;
    return 5;
}

static int refuse_row(struct store_row *row, void *arg, struct err *e)
{
    return err_set(e, ERR_LIMIT, "no more");
}

static int count_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_count, NULL, 0, take_int, arg, e);
}

static CO int64_t count(struct fixture *f)
{
    int64_t n = -1;
    struct err e;

    return store_read(f->s, count_body, &n, &e) < 0 ? -1 : n;
}

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    return run_kn(tx, &sql_put, arg, 0, e);
}

static char a_key[] = "a", b_key[] = "b", c_key[] = "c";

/* Values */

struct values {
    int64_t n;
    double r;
    struct str s, b;
    bool nulls;
    int checked; /* 1: they came back as they went in */
};

static int check_values(struct store_row *row, void *arg, struct err *e)
{
    struct values *v = arg;

    v->checked = -1;
    if (v->nulls) {
        v->checked = row_is_null(row, 0) && row_is_null(row, 1) && row_is_null(row, 2) &&
                     row_is_null(row, 3) && !row_str(row, 2).p && row_int(row, 0) == 0;
        return 0;
    }
    v->checked = row_int(row, 0) == v->n && row_real(row, 1) == v->r &&
                 str_eq(row_str(row, 2), v->s) && row_str(row, 2).p &&
                 str_eq(row_str(row, 3), v->b) && row_str(row, 3).p && !row_is_null(row, 2);
    return 0;
}

static int values_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql wipe = { "wipe", "DELETE FROM t", NULL };
    static const struct sql put = { "put all",
                                    "INSERT INTO t (k, n, r, s, b) VALUES ('k', ?1, ?2, ?3, ?4)",
                                    NULL };
    static const struct sql get = { "get all", "SELECT n, r, s, b FROM t", NULL };
    struct values *v = arg;
    const struct sql_arg nulls[] = { SQL_NULL, SQL_NULL, SQL_Z(NULL), SQL_NULL };
    const struct sql_arg args[] = { SQL_INT(v->n), SQL_REAL(v->r), SQL_STR(v->s), SQL_BLOB(v->b) };
    int r;

    r = store_exec(tx, &wipe, e);
    if (r == 0)
        r = store_run(tx, &put, v->nulls ? nulls : args, LEN(args), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &get, NULL, 0, check_values, v, e);
    return r;
}

EVERYWHERE(values_of_every_kind_come_back_as_they_went_in)
{
    static struct values cases[] = {
        { .nulls = true }, /* first: the types of the arguments are not known then */
        { 0, 0.0, { "", 0 }, { "", 0 } },
        { INT64_MAX, 0.1, { "a", 1 }, { "\0\1\xff", 3 } },
        { INT64_MIN, -1.7976931348623157e308, { "gr\xc3\xbc\xc3\x9f", 6 }, { "\\x41'\"", 6 } },
        { -1, 5e-324, { "a\\b\n\t'\"?1", 9 }, { "\0", 1 } },
        { .nulls = true },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        cases[i].checked = 0;
        CO_CHECK(store_do(f->s, values_body, &cases[i], e) == 0);
        CO_CHECK(cases[i].checked == 1);
    }
    return 0;
}

static int arrays_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql put = {
        "put arrays", "INSERT INTO t (k, n) VALUES (?1, ?2)",
        "INSERT INTO t (k, n) SELECT * FROM unnest(?1, ?2) AS u (k, n)"
    };
    static const struct sql delete = { "delete any",
                                       "DELETE FROM t WHERE k = ANY(?1) OR n = ANY(?2)", NULL };
    static const struct str keys[] = { { "a", 1 }, { "", 0 }, { "gr\xc3\xbc\xc3\x9f {,\"", 10 } };
    static const struct str none[] = { { "a", 1 }, { NULL, 0 } };
    static const int64_t numbers[] = { -1, SQL_INTS_NULL, INT64_MAX };
    const struct sql_arg all[] = { SQL_TEXTS(keys, 3), SQL_INTS(numbers, 3) };
    const struct sql_arg few[] = { SQL_TEXTS(none, 2), SQL_INTS(&numbers[2], 1) };
    const struct sql_arg empty[] = { SQL_TEXTS(NULL, 0), SQL_INTS(NULL, 0) };
    int64_t *gone = arg;
    int r;

    r = store_run(tx, &put, all, LEN(all), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &put, empty, LEN(empty), NULL, NULL, e);
    if (r == 0)
        r = store_run(tx, &delete, few, LEN(few), NULL, NULL, e);
    *gone = store_changed(tx);
    return r;
}

static int bad_array_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql ask = { "ask", "SELECT ?1", "SELECT ?1::text[]" };
    const struct sql_arg args[] = { SQL_TEXTS(arg, 2) };

    return store_run(tx, &ask, args, LEN(args), NULL, NULL, e);
}

EVERYWHERE(arrays_are_arguments_on_postgresql_and_refused_on_sqlite)
{
    static const struct sql ask = { "left", "SELECT k, n FROM t", NULL };
    struct str bad[] = { { "fine", 4 }, { "\xff", 1 } };
    struct str nul[] = { { "fine", 4 }, { "a\0b", 3 } };
    int64_t gone = 0;

    CO_CHECK(store_do(f->s, bad_array_body, bad, e) == -ERR_INVALID);
    CO_CHECK(store_do(f->s, bad_array_body, nul, e) == -ERR_INVALID);
    if (f->sqlite) {
        CO_CHECK(store_do(f->s, arrays_body, &gone, e) == -ERR_INTERNAL);
        CO_CHECK(strstr(e->msg, "SQLite takes no arrays"));
        return 0;
    }
    CO_CHECK(store_do(f->s, arrays_body, &gone, e) == 0);
    CO_CHECK(gone == 2);
    CO_CHECK(count(f) == 1);
    gone = -1;
    CO_CHECK(store_once(f->s, &ask, NULL, 0, is_empty_null, &gone, e) == 0);
    CO_CHECK(gone == 1); /* the one with the empty text and the NULL */
    return 0;
}

EVERYWHERE(one_statement_is_a_transaction_of_its_own)
{
    static const struct sql broken = { "broken", "SELECT nothing FROM nowhere", NULL };
    const struct sql_arg a[] = { SQL_STR(STR("a")), SQL_INT(7) }, key[] = { a[0] };
    int64_t n = 0;

    for (int i = 0; i < 3; i++) {
        const struct sql_arg more[] = { SQL_STR(str_of(i == 0   ? "x"
                                                       : i == 1 ? "y"
                                                                : "z")),
                                        SQL_NULL };

        CO_CHECK(store_once(f->s, &sql_put, more, LEN(more), NULL, NULL, e) == 0);
    }
    CO_CHECK(store_once(f->s, &sql_put, a, LEN(a), NULL, NULL, e) == 0);
    CO_CHECK(store_once(f->s, &sql_put, a, LEN(a), NULL, NULL, e) == -ERR_CONFLICT);
    CO_CHECK(store_once(f->s, &broken, NULL, 0, NULL, NULL, e) == -ERR_INTERNAL);
    CO_CHECK(strstr(e->msg, "broken"));
    CO_CHECK(store_once(f->s, &sql_get, key, 1, take_int, &n, e) == 0);
    CO_CHECK(n == 7);
    CO_CHECK(store_once(f->s, &sql_count, NULL, 0, take_int, &n, e) == 0);
    CO_CHECK(n == 4);
    CO_CHECK(store_once(f->s, &sql_keys, NULL, 0, stop_at_first, &n, e) == 5);
    CO_CHECK(n == 5);
    CO_CHECK(store_once(f->s, &sql_keys, NULL, 0, refuse_row, NULL, e) == -ERR_LIMIT);
    CO_CHECK(store_ok(f->s));
    return 0;
}

static int sum_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sum = { "sum", "SELECT sum(n), sum(n) * 1.5 FROM t", NULL };

    return store_run(tx, &sum, NULL, 0, take_int, arg, e);
}

static int two_rows(struct store_tx *tx, void *arg, struct err *e)
{
    int r = run_kn(tx, &sql_put, "a", 20, e);

    return r < 0 ? r : run_kn(tx, &sql_put, "b", 22, e);
}

EVERYWHERE(sums_are_integers_whatever_the_database_calls_them)
{
    int64_t n = 0;

    CO_CHECK(store_do(f->s, two_rows, NULL, e) == 0);
    CO_CHECK(store_read(f->s, sum_body, &n, e) == 0);
    CO_CHECK(n == 42);
    return 0;
}

static int bad_text_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(*(const struct str *)arg), SQL_INT(1) };

    return store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);
}

EVERYWHERE(texts_that_postgresql_could_not_hold_are_refused)
{
    struct str nul = { "a\0b", 3 }, bytes = { "\xff", 1 };

    CO_CHECK(store_do(f->s, bad_text_body, &nul, e) == -ERR_INVALID);
    CO_CHECK(store_do(f->s, bad_text_body, &bytes, e) == -ERR_INVALID);
    CO_CHECK(count(f) == 0);
    return 0;
}

/* Statements */

static int changed_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql all = { "all", "UPDATE t SET n = 1", NULL };
    static const struct sql upsert = {
        "upsert",
        "INSERT INTO t (k, n) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n"
        " RETURNING n",
        NULL,
    };
    static const struct sql maybe = { "maybe",
                                      "INSERT INTO t (k, n) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                                      NULL };
    const struct sql_arg args[] = { SQL_Z("a"), SQL_INT(5) };
    int64_t *seen = arg, n = 0;

    if (two_rows(tx, NULL, e) < 0 || store_exec(tx, &all, e) < 0)
        return -ERR_INTERNAL;
    seen[0] = store_changed(tx);
    if (run_kn(tx, &maybe, "a", 0, e) < 0)
        return -ERR_INTERNAL;
    seen[1] = store_changed(tx);
    if (store_run(tx, &upsert, args, LEN(args), take_int, &n, e) < 0)
        return -ERR_INTERNAL;
    seen[2] = store_changed(tx);
    seen[3] = n;
    if (store_run(tx, &sql_keys, NULL, 0, NULL, NULL, e) < 0)
        return -ERR_INTERNAL;
    seen[4] = store_changed(tx);
    return 0;
}

EVERYWHERE(changed_rows_are_counted)
{
    int64_t seen[5] = { 9, 9, 9, 9, 9 };

    CO_CHECK(store_do(f->s, changed_body, seen, e) == 0);
    CO_CHECK(seen[0] == 2 && seen[1] == 0 && seen[2] == 1 && seen[3] == 6 && seen[4] == 0);
    return 0;
}

static int stop_at_second(struct store_row *row, void *arg, struct err *e)
{
    return ++*(int *)arg == 2 ? 17 : 0;
}

static int stop_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r;

    for (char k[2] = "a"; k[0] < 'e'; k[0]++) {
        r = run_kn(tx, &sql_put, k, 0, e);
        if (r < 0)
            return r;
    }
    return store_run(tx, &sql_keys, NULL, 0, stop_at_second, arg, e);
}

EVERYWHERE(each_may_stop_early_and_a_positive_result_is_committed)
{
    int n = 0;

    CO_CHECK(store_do(f->s, stop_body, &n, e) == 17);
    CO_CHECK(n == 2);
    CO_CHECK(count(f) == 4);
    return 0;
}

struct nesting {
    struct store_tx *tx;
    int depth, rows;
};

static int nest(struct store_row *row, void *arg, struct err *e)
{
    struct nesting *n = arg;
    int r = 0;

    n->rows++;
    if (n->depth < 2) {
        n->depth++;
        r = store_run(n->tx, &sql_keys, NULL, 0, nest, n, e);
        n->depth--;
    }
    return r;
}

static int nest_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct nesting *n = arg;
    int r = two_rows(tx, NULL, e);

    *n = (struct nesting){ .tx = tx };
    return r < 0 ? r : store_run(tx, &sql_keys, NULL, 0, nest, n, e);
}

EVERYWHERE(each_may_run_statements_even_the_same_one)
{
    struct nesting n;

    CO_CHECK(store_do(f->s, nest_body, &n, e) == 0);
    CO_CHECK(n.rows == 2 + 4 + 8);
    return 0;
}

static int too_few_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z("a") };

    return store_run(tx, &sql_put, args, LEN(args), NULL, NULL, e);
}

static int broken_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql broken = { "broken", "SELECT x FROM nowhere", NULL };

    return store_exec(tx, &broken, e);
}

EVERYWHERE(a_broken_statement_is_an_internal_error_that_names_it)
{
    CO_CHECK(store_do(f->s, too_few_body, NULL, e) == -ERR_INTERNAL);
    CO_CHECK(strstr(e->msg, "put"));
    CO_CHECK(store_do(f->s, broken_body, NULL, e) == -ERR_INTERNAL);
    CO_CHECK(strstr(e->msg, "broken") && strstr(e->msg, "nowhere"));
    CO_CHECK(store_read(f->s, broken_body, NULL, e) == -ERR_INTERNAL);
    CO_CHECK(store_ok(f->s));
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    return 0;
}

static int orphan_body(struct store_tx *tx, void *arg, struct err *e)
{
    return run_kn(tx, &sql_child, "nobody", 1, e);
}

static int null_key_body(struct store_tx *tx, void *arg, struct err *e)
{
    return run_kn(tx, &sql_put, NULL, 1, e);
}

EVERYWHERE(constraints_are_conflicts)
{
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(store_do(f->s, put_body, a_key, e) == -ERR_CONFLICT);
    CO_CHECK(store_do(f->s, orphan_body, NULL, e) == -ERR_CONFLICT);
    CO_CHECK(store_do(f->s, null_key_body, NULL, e) == -ERR_INTERNAL); /* a bug of the caller */
    CO_CHECK(!store_unsure(e));
    CO_CHECK(count(f) == 1);
    return 0;
}

/* Transactions */

static int refuse_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = run_kn(tx, &sql_put, arg, 1, e);

    return r < 0 ? r : err_set(e, ERR_NOT_FOUND, "on second thoughts");
}

EVERYWHERE(a_body_that_fails_writes_nothing)
{
    CO_CHECK(store_do(f->s, refuse_body, a_key, e) == -ERR_NOT_FOUND);
    CO_CHECK(strcmp(e->msg, "on second thoughts") == 0);
    CO_CHECK(count(f) == 0);
    CO_CHECK(store_read(f->s, refuse_body, a_key, e) < 0);
    return 0;
}

static int look_away_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = run_kn(tx, &sql_put, "first", 1, e);

    if (r < 0)
        return r;
    if (run_kn(tx, &sql_put, arg, 1, e) < 0) /* fails, and so does what follows */
        return run_kn(tx, &sql_put, "third", 1, e) == -ERR_CONFLICT ? 0 : -ERR_INTERNAL;
    return 0;
}

EVERYWHERE(a_failed_statement_ends_the_transaction_even_if_the_body_goes_on)
{
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(store_do(f->s, look_away_body, a_key, e) == -ERR_CONFLICT);
    CO_CHECK(count(f) == 1);
    return 0;
}

EVERYWHERE(a_read_may_not_write)
{
    if (f->memory) /* there reads go the way of writes; nothing else is promised */
        return 0;
    CO_CHECK(store_read(f->s, put_body, a_key, e) == -ERR_INTERNAL);
    CO_CHECK(count(f) == 0);
    CO_CHECK(store_ok(f->s));
    return 0;
}

EVERYWHERE(who_asks_finds_the_store_well)
{
    CO_CHECK(store_ping(f->s, e) == 0);
    CO_CHECK(store_ok(f->s));
    CO_CHECK(strcmp(store_kind(f->s), f->sqlite ? "sqlite" : "postgres") == 0);
    return 0;
}

/* Many at once */

struct crowd {
    struct fixture *f;
    int number, r;
    char key[16];
    int64_t seen;
};

static int crowd_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct crowd *c = arg;
    int r = run_kn(tx, &sql_put, c->key, c->number, e);

    if (r == 0 && c->number % 7 == 3)
        r = run_kn(tx, &sql_put, c->key, c->number, e);
    if (r == 0 && c->number % 7 == 5)
        r = err_set(e, ERR_NOT_FOUND, "not this one");
    return r;
}

static int crowd_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->r = store_do(c->f->s, crowd_body, c, e);
    return 0;
}

#define CROWD 100

EVERYWHERE(one_that_fails_harms_no_other_of_its_batch)
{
    static struct crowd crowd[CROWD];
    struct fiber_group *group = fiber_group_new(f->loop);
    int good = 0;

    for (int i = 0; i < CROWD; i++) {
        crowd[i] = (struct crowd){ .f = f, .number = i };
        fmt_z(crowd[i].key, sizeof(crowd[i].key), "k%d", i);
        CO_CHECK(fiber_group_spawn(group, "one", crowd_fiber, &crowd[i], e) == 0);
    }
    CO_CHECK(fiber_group_join(group, e) == 0);
    fiber_group_free(group);
    for (int i = 0; i < CROWD; i++) {
        int want = i % 7 == 3 ? -ERR_CONFLICT : i % 7 == 5 ? -ERR_NOT_FOUND : 0;

        CO_CHECK(crowd[i].r == want);
        good += want == 0;
    }
    CO_CHECK(count(f) == good);
    return 0;
}

static int add_body(struct store_tx *tx, void *arg, struct err *e)
{
    return run_kn(tx, &sql_add, "a", 1, e);
}

static int get_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z("a") };

    return store_run(tx, &sql_get, args, LEN(args), take_int, arg, e);
}

static int adder(void *arg, struct err *e)
{
    struct crowd *c = arg;
    int64_t seen = 0, before = 0;

    for (int i = 0; i < 10; i++) {
        CO_CHECK(store_do(c->f->s, add_body, NULL, e) == 0);
        CO_CHECK(store_read(c->f->s, get_body, &seen, e) == 0);
        CO_CHECK(seen > before); /* its own write is among what it reads */
        before = seen;
    }
    c->r = 0;
    return 0;
}

EVERYWHERE(writes_do_not_lose_each_other_and_reads_see_what_was_acknowledged)
{
    static struct crowd crowd[20];
    struct fiber_group *group = fiber_group_new(f->loop);
    int64_t n = 0;

    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    for (size_t i = 0; i < LEN(crowd); i++) {
        crowd[i] = (struct crowd){ .f = f, .r = -1 };
        CO_CHECK(fiber_group_spawn(group, "adder", adder, &crowd[i], e) == 0);
    }
    CO_CHECK(fiber_group_join(group, e) == 0);
    fiber_group_free(group);
    for (size_t i = 0; i < LEN(crowd); i++)
        CO_CHECK(crowd[i].r == 0);
    CO_CHECK(store_read(f->s, get_body, &n, e) == 0);
    CO_CHECK(n == 10 * (int64_t)LEN(crowd));
    return 0;
}

/* A body that holds its thread until it is let go. */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool inside, go;
} gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false };

static int gate_wait(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.inside = true;
    pthread_cond_broadcast(&gate.change);
    while (!gate.go)
        pthread_cond_wait(&gate.change, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    return 0;
}

static int gate_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = run_kn(tx, &sql_put, "gate", 0, e);

    return r < 0 ? r : gate_wait();
}

static int gate_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->r = store_do(c->f->s, gate_body, NULL, e);
    return 0;
}

static CO int gate_enter(struct crowd *c, fiber_fn *fn, struct fiber **ret, struct err *e)
{
    gate.inside = gate.go = false;
    if (fiber_spawn(c->f->loop, "gate", fn, c, ret, e) < 0 || fiber_yield(e) < 0)
        return -1;
    pthread_mutex_lock(&gate.lock);
    while (!gate.inside)
        pthread_cond_wait(&gate.change, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    return 0;
}

static void gate_open(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.go = true;
    pthread_cond_broadcast(&gate.change);
    pthread_mutex_unlock(&gate.lock);
}

EVERYWHERE(a_read_does_not_wait_for_the_writer_and_does_not_see_its_work)
{
    struct crowd c = { .f = f, .r = -1 };
    struct fiber *fiber;

    if (f->memory) /* one connection: there it does wait */
        return 0;
    CO_CHECK(gate_enter(&c, gate_fiber, &fiber, e) == 0);
    CO_CHECK(count(f) == 0);
    gate_open();
    CO_CHECK(fiber_join(fiber, e) == 0);
    CO_CHECK(c.r == 0);
    CO_CHECK(count(f) == 1);
    return 0;
}

static int put_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->r = store_do(c->f->s, put_body, c->key, e);
    return 0;
}

static int bounded(struct fixture *f, struct err *e)
{
    struct crowd crowd[6], c = { .f = f, .r = -1 };
    struct fiber_group *group = fiber_group_new(f->loop);
    struct fiber *fiber;

    CO_CHECK(gate_enter(&c, gate_fiber, &fiber, e) == 0);
    for (size_t i = 0; i < LEN(crowd); i++) {
        crowd[i] = (struct crowd){ .f = f, .r = 1 };
        fmt_z(crowd[i].key, sizeof(crowd[i].key), "k%zu", i);
        CO_CHECK(fiber_group_spawn(group, "put", put_fiber, &crowd[i], e) == 0);
    }
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(crowd[3].r == 1); /* the fourth waits; */
    CO_CHECK(crowd[4].r == -ERR_UNAVAILABLE && crowd[5].r == -ERR_UNAVAILABLE); /* no more */
    gate_open();
    CO_CHECK(fiber_join(fiber, e) == 0);
    CO_CHECK(fiber_group_join(group, e) == 0);
    fiber_group_free(group);
    CO_CHECK(c.r == 0 && crowd[0].r == 0 && crowd[3].r == 0);
    CO_CHECK(count(f) == 5);
    return 0;
}

TEST(the_queue_is_bounded)
{
    struct store_conf small = conf;

    small.queue = 4;
    small.pool = 1;
    CHECK(fixture_everywhere(&small, bounded));
}

static int canceled_put(void *arg, struct err *e)
{
    struct crowd *c = arg;

    fiber_cancel(fiber_self());
    c->r = store_do(c->f->s, put_body, c->key, e);
    return 0;
}

EVERYWHERE(cancelling_a_fiber_does_not_tear_its_transaction)
{
    struct crowd c = { .f = f, .r = -1, .key = "a" };
    struct fiber *fiber;

    CO_CHECK(fiber_spawn(f->loop, "put", canceled_put, &c, &fiber, e) == 0);
    CO_CHECK(fiber_join(fiber, e) == 0);
    CO_CHECK(c.r == 0);
    CO_CHECK(count(f) == 1);
    return 0;
}

static int gate_only_body(struct store_tx *tx, void *arg, struct err *e)
{
    return gate_wait();
}

static int gate_read_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->r = store_read(c->f->s, gate_only_body, NULL, e);
    return 0;
}

static int count_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->seen = -7;
    c->r = store_read(c->f->s, count_body, &c->seen, e);
    return 0;
}

static int cancel_reads(struct fixture *f, struct err *e)
{
    struct crowd begun = { .f = f, .r = 1 }, waiting = { .f = f, .r = 1 };
    struct fiber *first, *second;

    CO_CHECK(gate_enter(&begun, gate_read_fiber, &first, e) == 0);
    CO_CHECK(fiber_spawn(f->loop, "count", count_fiber, &waiting, &second, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(first);
    fiber_cancel(second);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(begun.r == 1 && waiting.r == 1); /* the store still holds what is theirs */
    gate_open();
    CO_CHECK(fiber_join(first, e) == 0);
    CO_CHECK(fiber_join(second, e) == 0);
    CO_CHECK(begun.r == 0); /* its turn had come */
    CO_CHECK(waiting.r == -ERR_CANCELED && waiting.seen == -7);
    return 0;
}

TEST(a_read_that_nobody_waits_for_any_more_is_not_begun)
{
    struct store_conf narrow = conf;

    narrow.pool = 1;
    CHECK(fixture_everywhere(&narrow, cancel_reads));
}

static void *put_from_thread(void *arg)
{
    struct crowd *c = arg;
    struct err e;

    c->r = store_do_now(c->f->s, put_body, c->key, &e);
    return NULL;
}

EVERYWHERE(threads_may_wait_beside_fibers)
{
    struct crowd c = { .f = f, .r = -1, .key = "a" };
    pthread_t thread;

    CO_CHECK(pthread_create(&thread, NULL, put_from_thread, &c) == 0);
    CO_CHECK(store_do(f->s, put_body, b_key, e) == 0);
    CO_CHECK(store_do(f->s, put_body, c_key, e) == 0);
    pthread_join(thread, NULL);
    CO_CHECK(c.r == 0);
    CO_CHECK(count(f) == 3);
    return 0;
}

TEST(a_store_is_named_by_a_url_it_knows)
{
    static const char *const bad[] = { "", "sqlite:", "mysql://x", "/var/lib/x.db",
                                       "Postgres://x" };
    struct store *s = NULL;
    struct err e;

    for (size_t i = 0; i < LEN(bad); i++) {
        struct store_conf c = { .url = bad[i] };

        CHECK_INT(store_open(NULL, &c, &s, &e), -ERR_INVALID);
        CHECK(!s);
    }
}
