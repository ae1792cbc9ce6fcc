/* SPDX-License-Identifier: MIT */
/*
 * store/store_pool_test.c — a store whose every connection goes through PgBouncer in transaction
 * mode: twelve of ours share three of the server's. Run by tests/pg_run.sh with PG_BOUNCER=on.
 */
#include "store/store.h"

#include <pthread.h>

#include "store/store_fixture.h"

#define FIBERS 12
#define ROUNDS 40

static const struct store_migration schema[] = {
    { 1, "t", "CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL, s TEXT);", NULL },
};
static const struct store_conf conf = {
    .migrations = schema, .n_migrations = LEN(schema), .pool = FIBERS, .wait_ms = 20000
};

#define POOL_TEST(id) \
    static int co_##id(struct fixture *f, struct err *e); \
    TEST(id) \
    { \
        CHECK(run_on_bouncer(co_##id)); \
    } \
    static int co_##id(struct fixture *f, struct err *e)

static bool run_on_bouncer(int (*fn)(struct fixture *f, struct err *e))
{
    struct store_conf own = conf;
    struct err e;

    own.url = getenv("CHELA_TEST_PG_BOUNCER");
    if (!fixture_pg() || !own.url) {
        printf("Bail out! run this through tests/pg_run.sh with PG_BOUNCER=on\n");
        exit(1);
    }
    if (fixture_run(&own, fn, NULL, &e) < 0) {
        printf("# %s\n", e.msg);
        return false;
    }
    return true;
}

static const struct sql sql_put = { "put", "INSERT INTO t (k, n, s) VALUES (?1, ?2, ?3)", NULL };
static const struct sql sql_add = { "add", "UPDATE t SET n = n + 1 WHERE k = ?1 RETURNING n",
                                    NULL };
static const struct sql sql_max = { "max",
                                    "INSERT INTO t (k, n) VALUES (?1, ?2) ON CONFLICT (k)"
                                    " DO UPDATE SET n = greatest(t.n, EXCLUDED.n)",
                                    NULL };
static const struct sql sql_get = { "get", "SELECT n FROM t WHERE k = ?1", NULL };
static const struct sql sql_sum = { "sum", "SELECT sum(n) FROM t", NULL };
static const struct sql sql_any = { "any", "SELECT count(*) FROM t WHERE k = ANY(?1)", NULL };
static const struct sql sql_pid = { "pid", "SELECT pg_backend_pid()", NULL };

static int take_int(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg null[] = { SQL_Z(arg), SQL_INT(0), SQL_NULL };

    return store_run(tx, &sql_put, null, LEN(null), NULL, NULL, e);
}

struct add {
    char key[16];
    int64_t n;
};

/* Two statements, so that the server's connection must stay the same for both. */
static int add_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct add *a = arg;
    const struct sql_arg key[] = { SQL_Z(a->key) };
    int64_t before = -1;
    int r = store_run(tx, &sql_get, key, LEN(key), take_int, &before, e);

    if (r == 0)
        r = store_run(tx, &sql_add, key, LEN(key), take_int, &a->n, e);
    if (r == 0 && a->n != before + 1)
        r = err_set(e, ERR_INTERNAL, "%lld after %lld", (long long)a->n, (long long)before);
    return r;
}

static int get_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct add *a = arg;
    const struct sql_arg key[] = { SQL_Z(a->key) };

    return store_run(tx, &sql_get, key, LEN(key), take_int, &a->n, e);
}

struct client {
    struct fixture *f;
    int number, unsure;
    int64_t done; /* additions known to be committed */
    bool killing; /* connections break: an outcome may stay unknown */
};

static CO int once_and_again(struct client *c, const char *key, int round, struct err *e)
{
    struct str keys[] = { str_of(key), { NULL, 0 } };
    const struct sql_arg any[] = { SQL_TEXTS(keys, 2) };
    const struct sql_arg max[] = { SQL_Z(key), SQL_INT(-round) };
    int64_t n = 0;

    CO_CHECK(store_once(c->f->s, &sql_any, any, LEN(any), take_int, &n, e) == 0);
    CO_CHECK(n == 1);
    CO_CHECK(store_once(c->f->s, &sql_max, max, LEN(max), NULL, NULL, e) == 0);
    return 0;
}

static int client_fiber(void *arg, struct err *e)
{
    struct client *c = arg;
    struct add a = { .n = 0 };

    fmt_z(a.key, sizeof(a.key), "k%d", c->number);
    CO_CHECK(store_do(c->f->s, put_body, a.key, e) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        int r = store_do(c->f->s, add_body, &a, e);

        if (r < 0 && c->killing && store_unsure(e)) {
            c->unsure++;
            continue;
        }
        CO_CHECK(r == 0);
        c->done++;
        CO_CHECK(once_and_again(c, a.key, i, e) == 0);
        CO_CHECK(store_read(c->f->s, get_body, &a, e) == 0);
        CO_CHECK(a.n >= c->done && a.n <= c->done + c->unsure);
    }
    return 0;
}

static CO int run_clients(struct fixture *f, struct client *clients, struct err *e)
{
    struct fiber_group *group = fiber_group_new(f->loop);
    int r = 0;

    for (int i = 0; i < FIBERS; i++)
        CO_CHECK(fiber_group_spawn(group, "client", client_fiber, &clients[i], e) == 0);
    r = fiber_group_join(group, e);
    fiber_group_free(group);
    return r;
}

static CO int64_t total(struct fixture *f, struct err *e)
{
    int64_t n = -1;

    return store_once(f->s, &sql_sum, NULL, 0, take_int, &n, e) < 0 ? -1 : n;
}

POOL_TEST(transactions_reads_and_single_statements_work_behind_a_pooler)
{
    struct client clients[FIBERS] = { 0 };
    int64_t pids[64] = { 0 };
    int n = 0;

    for (int i = 0; i < FIBERS; i++)
        clients[i] = (struct client){ .f = f, .number = i };
    CO_CHECK(run_clients(f, clients, e) == 0);
    CO_CHECK(total(f, e) == FIBERS * ROUNDS);
    for (int i = 0; i < 64; i++) { /* it was a pooler: many of ours, three of the server's */
        int64_t pid = 0;
        int at = 0;

        CO_CHECK(store_once(f->s, &sql_pid, NULL, 0, take_int, &pid, e) == 0);
        while (at < n && pids[at] != pid)
            at++;
        pids[at] = pid;
        n = at == n ? n + 1 : n;
    }
    CO_CHECK(n <= 3);
    return 0;
}

struct killer {
    const char *direct;
    atomic_bool stop;
    int kills;
};

/* Ends one of the server's connections again and again, from outside the pooler. */
static void *kill_some(void *arg)
{
    struct killer *k = arg;
    const struct timespec pause = { 0, 80 * 1000000 };
    struct err e;

    while (!atomic_load(&k->stop)) {
        if (fixture_sql(k->direct,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                        " backend_type = 'client backend' AND datname = 'chela_test'"
                        " AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1",
                        &e) == 0)
            k->kills++;
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

POOL_TEST(nothing_is_lost_or_done_twice_when_the_servers_connections_break)
{
    struct client clients[FIBERS] = { 0 };
    struct killer k = { .direct = getenv("CHELA_TEST_PG") };
    int64_t done = 0, unsure = 0, sum;
    pthread_t thread;
    int r;

    for (int i = 0; i < FIBERS; i++)
        clients[i] = (struct client){ .f = f, .number = i, .killing = true };
    CO_CHECK(pthread_create(&thread, NULL, kill_some, &k) == 0);
    r = run_clients(f, clients, e);
    atomic_store(&k.stop, true);
    CO_CHECK(pthread_join(thread, NULL) == 0);
    if (r < 0)
        return r;
    for (int i = 0; i < FIBERS; i++) {
        done += clients[i].done;
        unsure += clients[i].unsure;
    }
    sum = total(f, e);
    printf("# %d kills, %lld additions, %lld of unknown outcome\n", k.kills, (long long)done,
           (long long)unsure);
    CO_CHECK(k.kills > 0);
    CO_CHECK(sum >= done && sum <= done + unsure);
    return 0;
}

static void hear(const char *channel, struct str payload, void *arg)
{
    ++*(int *)arg;
}

POOL_TEST(an_ear_behind_a_pooler_knows_that_it_hears_nothing_and_one_beside_it_hears)
{
    static const char *const channels[] = { "c" };
    static const struct sql say = { "say", "SELECT pg_notify('c', 'x')", NULL };
    int behind = 0, beside = 0;
    uint64_t deadline = deadline_in(30000);
    struct store_ear *one, *two;

    CO_CHECK(store_listen(f->s, NULL, channels, 1, hear, &behind, &one, e) == 0);
    CO_CHECK(store_listen(f->s, getenv("CHELA_TEST_PG"), channels, 1, hear, &beside, &two, e) == 0);
    while (!behind || !beside) { /* both tests are over */
        CO_CHECK(now_ms() < deadline);
        CO_CHECK(fiber_sleep(5, e) == 0);
    }
    CO_CHECK(!store_hears(one) && store_hears(two));
    CO_CHECK(store_once(f->s, &say, NULL, 0, NULL, NULL, e) == 0);
    while (beside < 2) {
        CO_CHECK(now_ms() < deadline);
        CO_CHECK(fiber_sleep(5, e) == 0);
    }
    CO_CHECK(behind == 1);
    store_ear_free(one);
    store_ear_free(two);
    return 0;
}
