/* SPDX-License-Identifier: MIT */
/*
 * durable/engine_fixture.h — for tests of the engine: a running one beside a fresh database of each
 * kind, SQL from outside, and waiting for what the tables will say.
 */
#pragma once

#include "durable/durable_int.h"
#include "store/store_fixture.h"

#define PATIENCE_MS 30000 /* for anything that must come, on a machine under load */

struct engine {
    struct fixture *store;
    struct durable *d;
};

/* The store keeps statements by their address. */
#define SQL_TEXT(text) \
    __extension__({ \
        static const struct sql sql_ = { "test: " text, text, NULL }; \
        &sql_; \
    })

/* One value of one row, as text; "(null)", or "(none)" without a row. */
struct looked {
    const struct sql *sql;
    const char *arg;
    char text[512];
};

static inline int take_looked(struct store_row *row, void *arg, struct err *e)
{
    struct looked *l = arg;
    struct str s = row_str(row, 0);

    if (row_is_null(row, 0))
        fmt_z(l->text, sizeof(l->text), "(null)");
    else if (s.p)
        fmt_z(l->text, sizeof(l->text), "%.*s", (int)(s.n < 500 ? s.n : 500), s.p);
    else
        fmt_z(l->text, sizeof(l->text), "%lld", (long long)row_int(row, 0));
    return 0;
}

static inline int looked_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct looked *l = arg;
    const struct sql_arg args[] = { SQL_Z(l->arg) };

    fmt_z(l->text, sizeof(l->text), "(none)");
    return store_run(tx, l->sql, args, strstr(l->sql->text, "?1") ? 1 : 0, take_looked, l, e);
}

/* Run a statement from outside of the engine, with one text parameter ?1 if it has one. */
#define sql_run(f, text, arg, ret, e) sql_run_at((f), SQL_TEXT(text), (arg), (ret), (e))
static inline CO int sql_run_at(struct engine *f, const struct sql *sql, const char *arg, char *ret,
                                struct err *e)
{
    struct looked l = { .sql = sql, .arg = arg };
    int r = store_do(f->store->s, looked_body, &l, e);

    if (r < 0)
        printf("# %s: %s\n", sql->text, e->msg);
    else if (ret)
        fmt_z(ret, sizeof(l.text), "%s", l.text);
    return r < 0 ? r : 0;
}

#define row_is(f, text, arg, want) row_is_at((f), SQL_TEXT(text), (arg), (want))
static inline CO bool row_is_at(struct engine *f, const struct sql *sql, const char *arg,
                                const char *want)
{
    char have[512] = "";
    struct err e;

    if (sql_run_at(f, sql, arg, have, &e) < 0)
        return false;
    if (strcmp(have, want) == 0)
        return true;
    printf("# %s (%s): '%s', not '%s'\n", sql->text, arg ? arg : "", have, want);
    return false;
}

/* Wait until the statement gives what is wanted. */
#define row_becomes(f, text, arg, want) row_becomes_at((f), SQL_TEXT(text), (arg), (want))
static inline CO bool row_becomes_at(struct engine *f, const struct sql *sql, const char *arg,
                                     const char *want)
{
    uint64_t until = deadline_in(PATIENCE_MS);
    char have[512] = "";
    struct err e;

    while (now_ms() < until) {
        if (sql_run_at(f, sql, arg, have, &e) < 0)
            return false;
        if (strcmp(have, want) == 0)
            return true;
        if (fiber_sleep(5, &e) < 0)
            return false;
    }
    printf("# %s (%s): '%s', never '%s'\n", sql->text, arg ? arg : "", have, want);
    return false;
}

static inline CO bool ends_as(struct engine *f, const char *id, const char *status)
{
    return row_becomes(f, "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = ?1", id,
                       status);
}

static inline CO bool starts(struct engine *f, const char *name, const char *id)
{
    struct durable_start start = { .name = name, .id = str_of(id) };
    struct durable_started started;
    struct err e;

    if (durable_start(f->d, &start, &started, &e) == 0)
        return true;
    printf("# start %s: %s\n", name, e.msg);
    return false;
}

struct engine_test {
    const struct durable_type *types;
    size_t n_types;
    struct durable_conf conf;
    int (*fn)(struct engine *f, struct err *e);
};

static const struct engine_test *engine_test_now;

/* A new engine on the same database; the one before must have been stopped. */
static inline CO int engine_up(struct engine *f, struct err *e)
{
    const struct engine_test *t = engine_test_now;
    int r;

    f->d = durable_new(f->store->loop, f->store->s, &t->conf);
    r = durable_register(f->d, t->types, t->n_types, e);
    return r < 0 ? r : durable_run(f->d, e);
}

static inline CO void engine_down(struct engine *f)
{
    durable_stop(f->d, 0);
    durable_free(TAKE(f->d));
}

static inline CO int engine_main(struct fixture *store, struct err *e)
{
    struct engine f = { .store = store };
    int r = engine_up(&f, e);

    if (r == 0)
        r = engine_test_now->fn(&f, e);
    if (f.d)
        engine_down(&f);
    return r;
}

/* On the databases that have their turn, see fixture_everywhere(). */
static inline bool engine_everywhere(const struct engine_test *t)
{
    const struct store_conf conf = { .migrations = store_migrations,
                                     .n_migrations = store_migrations_len };

    engine_test_now = t;
    return fixture_everywhere(&conf, engine_main);
}

/* A test whose body is a fiber beside a running engine with these types. */
#define ENGINE_TEST_AS(TEST_KIND, id, rows, ...) \
    static int co_##id(struct engine *f, struct err *e); \
    TEST_KIND(id) \
    { \
        const struct engine_test t = { (rows), LEN(rows), { __VA_ARGS__ }, co_##id }; \
        CHECK(engine_everywhere(&t)); \
    } \
    static CO int co_##id(struct engine *f, struct err *e)
#define ENGINE_TEST_CONF(id, rows, ...) ENGINE_TEST_AS(TEST, id, rows, __VA_ARGS__)
#define ENGINE_TEST(id, rows)           ENGINE_TEST_CONF(id, rows, .instance = "test")
/* One that stops the database's server. */
#define ENGINE_TEST_ALONE(id, rows) ENGINE_TEST_AS(TEST_ALONE, id, rows, .instance = "test")
