/* SPDX-License-Identifier: MIT */
/*
 * store/store_pg_test.c — what can happen between us and PostgreSQL: connections that break before
 * and in a commit, deadlocks, a busy pool, a server that goes and comes. Run by tests/pg_run.sh.
 */
#include "store/store.h"

#include <pthread.h>
#include <sys/wait.h>

#include "base/offload.h"
#include "store/store_fixture.h"

static const struct store_migration schema[] = {
    { 1, "t", "CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY, n INTEGER);", NULL },
};
static const struct store_conf conf = { .migrations = schema, .n_migrations = LEN(schema) };

/* A test that needs the server: without one it is not run and says so. */
#define PG_TEST(id, conf_) \
    static int co_##id(struct fixture *f, struct err *e); \
    TEST(id) \
    { \
        CHECK(run_on_pg(conf_, co_##id)); \
    } \
    static int co_##id(struct fixture *f, struct err *e)

static bool run_on_pg(const struct store_conf *given, int (*fn)(struct fixture *f, struct err *e))
{
    struct store_conf own = *given;
    struct err e;

    own.url = fixture_pg();
    if (!own.url) {
        printf("Bail out! CHELA_TEST_PG is not set: run this through tests/pg_run.sh\n");
        exit(1);
    }
    if (fixture_run(&own, fn, NULL, &e) < 0) {
        printf("# %s\n", e.msg);
        return false;
    }
    return true;
}

static const struct sql sql_put = { "put", "INSERT INTO t (k, n) VALUES (?1, 0)", NULL };
static const struct sql sql_add = { "add", "UPDATE t SET n = n + 1 WHERE k = ?1", NULL };
static const struct sql sql_count = { "count", "SELECT count(*) FROM t", NULL };
static const struct sql sql_sum = { "sum", "SELECT sum(n) FROM t", NULL };
static const struct sql sql_has = { "has", "SELECT count(*) FROM t WHERE k = ?1", NULL };
static const struct sql sql_suicide = { "suicide", "SELECT pg_terminate_backend(pg_backend_pid())",
                                        NULL };
static const struct sql sql_kill_others = {
    "kill others",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'chela' AND pid <> pg_backend_pid()",
    NULL,
};

static int take_int(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int run_k(struct store_tx *tx, const struct sql *sql, const char *k, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(k) };

    return store_run(tx, sql, args, LEN(args), NULL, NULL, e);
}

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    return run_k(tx, &sql_put, arg, e);
}

static int count_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_count, NULL, 0, take_int, arg, e);
}

static int sum_body(struct store_tx *tx, void *arg, struct err *e)
{
    return store_run(tx, &sql_sum, NULL, 0, take_int, arg, e);
}

static CO int64_t ask(struct fixture *f, store_body *body)
{
    int64_t n = -1;
    struct err e;

    return store_read(f->s, body, &n, &e) < 0 ? -1 : n;
}

static char a_key[] = "a", b_key[] = "b";

/* Lost connections */

static const struct sql sql_upsert = { "upsert",
                                       "INSERT INTO t (k, n) VALUES (?1, 0) ON CONFLICT DO NOTHING",
                                       NULL };

static CO int put_once(struct fixture *f, const char *k, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(k) };

    return store_once(f->s, &sql_upsert, args, LEN(args), NULL, NULL, e);
}

/* From outside the store: every connection of its ends. */
static int kill_all(struct fixture *f, struct err *e)
{
    return fixture_sql(f->url, sql_kill_others.text, e);
}

PG_TEST(a_connection_that_broke_while_idle_is_replaced_unseen, &conf)
{
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(kill_all(f, e) == 0);
    CO_CHECK(store_do(f->s, put_body, b_key, e) == 0);
    CO_CHECK(kill_all(f, e) == 0);
    CO_CHECK(ask(f, count_body) == 2);
    CO_CHECK(store_ok(f->s));
    return 0;
}

PG_TEST(a_single_statement_over_a_broken_connection_is_sent_again, &conf)
{
    CO_CHECK(put_once(f, "a", e) == 0);
    CO_CHECK(kill_all(f, e) == 0);
    CO_CHECK(put_once(f, "b", e) == 0);
    CO_CHECK(put_once(f, "b", e) == 0);
    CO_CHECK(ask(f, count_body) == 2);
    CO_CHECK(store_once(f->s, &sql_suicide, NULL, 0, NULL, NULL, e) == -ERR_UNAVAILABLE);
    CO_CHECK(!store_ok(f->s));
    CO_CHECK(put_once(f, "c", e) == 0);
    CO_CHECK(store_ok(f->s));
    return 0;
}

PG_TEST(a_single_statement_asks_for_no_id, &conf)
{
    static const struct sql own = {
        "own transaction",
        "SELECT (pg_current_xact_id_if_assigned() IS NULL)::int",
        NULL,
    };
    int64_t n = -1;

    CO_CHECK(store_once(f->s, &own, NULL, 0, take_int, &n, e) == 0);
    CO_CHECK(n == 1);
    return 0;
}

#define CROWD 24
#define EACH  40

struct putter {
    struct fixture *f;
    int number, r;
    struct err e;
};

/* Keys of a few bytes, and of up to 20 KB: those do not go the short way. */
static int put_crowd(void *arg, struct err *e)
{
    static const struct sql len = { "len", "SELECT length(k) FROM t WHERE k = ?1", NULL };
    struct putter *p = arg;
    AUTO(free) char *key = xcalloc(1, 20001);

    for (int i = 0; i < EACH; i++) {
        size_t n = i % 8 == 7 ? 5000u * (unsigned)(i / 8) : 1;
        int64_t have = -1;

        memset(key, 0, 20001);
        fmt_z(key, 20001, "%d-%d-", p->number, i);
        for (size_t at = strlen(key); at < n; at++)
            key[at] = 'x';
        const struct sql_arg args[] = { SQL_Z(key) };

        CO_CHECK(put_once(p->f, key, e) == 0);
        CO_CHECK(store_once(p->f->s, &len, args, 1, take_int, &have, e) == 0);
        CO_CHECK(have == (int64_t)strlen(key));
    }
    return 0;
}

static const struct store_conf four = {
    .migrations = schema, .n_migrations = LEN(schema), .pool = 4, .wait_ms = 20000
};

PG_TEST(many_single_statements_share_few_connections_that_break, &four)
{
    struct fiber_group *group = fiber_group_new(f->loop);
    struct putter p[CROWD];
    int r;

    for (int i = 0; i < CROWD; i++) {
        p[i] = (struct putter){ .f = f, .number = i };
        CO_CHECK(fiber_group_spawn(group, "put", put_crowd, &p[i], e) == 0);
    }
    for (int i = 0; i < 2; i++) { /* a third could be the third of one statement, which gives up */
        CO_CHECK(fiber_sleep(50, e) == 0);
        CO_CHECK(kill_all(f, e) == 0);
    }
    r = fiber_group_join(group, e);
    fiber_group_free(group);
    CO_CHECK(r == 0);
    CO_CHECK(ask(f, count_body) == CROWD * EACH);
    CO_CHECK(store_ok(f->s));
    return 0;
}

static int die_once_body(struct store_tx *tx, void *arg, struct err *e)
{
    int *runs = arg;
    int r = run_k(tx, &sql_put, "x", e);

    if (r == 0 && ++*runs == 1)
        r = store_exec(tx, &sql_suicide, e);
    return r;
}

PG_TEST(a_transaction_whose_connection_breaks_is_run_again, &conf)
{
    int runs = 0;

    CO_CHECK(store_do(f->s, die_once_body, &runs, e) == 0);
    CO_CHECK(runs == 2);
    CO_CHECK(ask(f, count_body) == 1);
    return 0;
}

static int die_body(struct store_tx *tx, void *arg, struct err *e)
{
    ++*(int *)arg;
    return store_exec(tx, &sql_suicide, e);
}

PG_TEST(one_that_breaks_every_connection_is_given_up, &conf)
{
    int runs = 0;

    CO_CHECK(store_do(f->s, die_body, &runs, e) == -ERR_UNAVAILABLE);
    CO_CHECK(runs == 3);
    CO_CHECK(!store_unsure(e));
    CO_CHECK(!store_ok(f->s));
    CO_CHECK(store_ping(f->s, e) == 0);
    CO_CHECK(store_ok(f->s));
    return 0;
}

/* The trigger runs inside COMMIT and ends the connection, the first time. */
static const char die_in_commit[] =
    "CREATE SEQUENCE deaths;"
    "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF nextval('deaths') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
    " RETURN NULL; END $$;"
    "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION die()";

PG_TEST(a_commit_that_broke_before_it_happened_is_done_again, &conf)
{
    CO_CHECK(fixture_sql(f->url, die_in_commit, e) == 0);
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(ask(f, count_body) == 1);
    return 0;
}

/* What no transaction may hold. */
static int admin(const char *text)
{
    const char *const argv[] = { "psql", "-qAtX", getenv("CHELA_TEST_PG"), "-c", text, NULL };

    return fixture_program(argv);
}

/* Kill whoever waits, committed, for a standby that never comes; then stop waiting for it. */
static int kill_waiting(void *arg, struct err *e)
{
    int r = admin("SET statement_timeout = '20s'; DO $$ BEGIN WHILE NOT EXISTS (SELECT 1 FROM "
                  "pg_stat_activity WHERE wait_event"
                  " = 'SyncRep') LOOP PERFORM pg_sleep(0.01), pg_stat_clear_snapshot(); END LOOP;"
                  " PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event ="
                  " 'SyncRep'; END $$");

    if (r == 0)
        r = admin("ALTER SYSTEM RESET synchronous_standby_names");
    if (r == 0)
        r = admin("SELECT pg_reload_conf()");
    return r == 0 ? 0 : err_set(e, ERR_INTERNAL, "psql failed");
}

struct row_writer {
    struct fixture *f;
    bool enough;
    int n;
};

static int put_many(void *arg, struct err *e)
{
    struct row_writer *w = arg;
    char key[16];

    while (!w->enough) {
        fmt_z(key, sizeof(key), "k%d", w->n);
        CO_CHECK(store_do(w->f->s, put_body, key, e) == 0);
        w->n++;
    }
    return 0;
}

/* The server takes its time to begin waiting for standbys: one of the commits is going to. */
PG_TEST(a_commit_that_broke_after_it_happened_is_found_and_not_repeated, &conf)
{
    struct row_writer w = { .f = f };
    struct fiber *fiber;

    CO_CHECK(admin("ALTER SYSTEM SET synchronous_standby_names = 'nobody'") == 0);
    CO_CHECK(admin("SELECT pg_reload_conf()") == 0);
    CO_CHECK(fiber_spawn(f->loop, "put", put_many, &w, &fiber, e) == 0);
    CO_CHECK(offload(kill_waiting, NULL, e) == 0);
    w.enough = true;
    CO_CHECK(fiber_join(fiber, e) == 0);
    CO_CHECK(ask(f, count_body) == w.n);
    return 0;
}

/* Transactions in each other's way */

static struct {
    pthread_barrier_t barrier;
    int met;
    pthread_mutex_t lock;
} meeting = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct cross {
    struct fixture *f;
    const char *first, *second;
    int runs, r;
};

/* Two of these lock two rows in opposite order; the first time they wait for each other between. */
static int cross_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct cross *c = arg;
    int r = run_k(tx, &sql_add, c->first, e);

    if (++c->runs == 1)
        pthread_barrier_wait(&meeting.barrier);
    return r < 0 ? r : run_k(tx, &sql_add, c->second, e);
}

static int cross_fiber(void *arg, struct err *e)
{
    struct cross *c = arg;

    c->r = store_do(c->f->s, cross_body, c, e);
    return 0;
}

PG_TEST(a_deadlock_is_run_again, &conf)
{
    struct cross c[2] = { { f, "a", "b", 0, -1 }, { f, "b", "a", 0, -1 } };
    struct fiber_group *group = fiber_group_new(f->loop);

    CO_CHECK(pthread_barrier_init(&meeting.barrier, NULL, 2) == 0);
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(store_do(f->s, put_body, b_key, e) == 0);
    CO_CHECK(fiber_group_spawn(group, "cross", cross_fiber, &c[0], e) == 0);
    CO_CHECK(fiber_group_spawn(group, "cross", cross_fiber, &c[1], e) == 0);
    CO_CHECK(fiber_group_join(group, e) == 0);
    fiber_group_free(group);
    CO_CHECK(c[0].r == 0 && c[1].r == 0);
    CO_CHECK(c[0].runs + c[1].runs >= 3);
    CO_CHECK(ask(f, sum_body) == 4);
    return 0;
}

static int serialization_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql fail = {
        "fail", "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$", NULL
    };
    int *runs = arg;
    int r = run_k(tx, &sql_put, *runs < 0 ? "y" : "x", e);

    return r == 0 && ++*runs < 4 ? store_exec(tx, &fail, e) : r;
}

PG_TEST(a_serialization_failure_is_run_again, &conf)
{
    int runs = 0;

    CO_CHECK(store_do(f->s, serialization_body, &runs, e) == 0);
    CO_CHECK(runs == 4);
    CO_CHECK(ask(f, count_body) == 1);
    runs = -1000;
    CO_CHECK(store_do(f->s, serialization_body, &runs, e) < 0); /* not for ever */
    CO_CHECK(runs == -990);
    return 0;
}

/* A busy pool */

struct crowd {
    struct fixture *f;
    char key[16];
    int r;
    struct err e;
};

static int slow_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sleep = { "sleep", "SELECT pg_sleep(1)", NULL };

    return store_exec(tx, &sleep, e);
}

static int slow_fiber(void *arg, struct err *e)
{
    struct crowd *c = arg;

    c->r = store_do(c->f->s, slow_body, NULL, &c->e);
    return 0;
}

static const struct store_conf narrow = {
    .migrations = schema, .n_migrations = LEN(schema), .pool = 1, .wait_ms = 150
};

PG_TEST(who_waits_too_long_for_a_connection_is_refused, &narrow)
{
    struct crowd slow = { .f = f, .r = -1 };
    uint64_t begin = now_ms();
    struct fiber *fiber;

    CO_CHECK(fiber_spawn(f->loop, "slow", slow_fiber, &slow, &fiber, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(store_do(f->s, put_body, a_key, e) == -ERR_UNAVAILABLE);
    CO_CHECK(strstr(e->msg, "within 150 ms"));
    CO_CHECK(now_ms() - begin >= 150 && now_ms() - begin < 900);
    CO_CHECK(store_do(f->s, put_body, a_key, e) == -ERR_UNAVAILABLE);
    CO_CHECK(fiber_join(fiber, e) == 0);
    CO_CHECK(slow.r == 0);
    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(ask(f, count_body) == 1);
    return 0;
}

/* A server that goes and comes */

static int control(const char *verb)
{
    const char *const argv[] = { getenv("CHELA_TEST_PG_CTL"), verb, NULL };

    return fixture_program(argv);
}

static int stop_fast(void *arg, struct err *e)
{
    return control("stop") == 0 ? 0 : err_set(e, ERR_INTERNAL, "cannot stop the server");
}

static int stop_hard(void *arg, struct err *e)
{
    return control("kill") == 0 ? 0 : err_set(e, ERR_INTERNAL, "cannot stop the server");
}

static int start_again(void *arg, struct err *e)
{
    return control("start") == 0 ? 0 : err_set(e, ERR_INTERNAL, "cannot start the server");
}

static const struct store_conf hasty = { .migrations = schema,
                                         .n_migrations = LEN(schema),
                                         .wait_ms = 300 };

PG_TEST(while_the_server_is_away_transactions_fail_in_time_and_work_again_after, &hasty)
{
    uint64_t begin;

    CO_CHECK(store_do(f->s, put_body, a_key, e) == 0);
    CO_CHECK(offload(stop_fast, NULL, e) == 0);
    begin = now_ms();
    CO_CHECK(store_do(f->s, put_body, b_key, e) == -ERR_UNAVAILABLE);
    CO_CHECK(now_ms() - begin < 2000);
    CO_CHECK(!store_unsure(e));
    CO_CHECK(!store_ok(f->s));
    begin = now_ms();
    for (int i = 0; i < 20; i++) /* it has been away for longer than anybody waits */
        CO_CHECK(ask(f, count_body) == -1);
    CO_CHECK(now_ms() - begin < 1000);
    CO_CHECK(offload(start_again, NULL, e) == 0);
    CO_CHECK(store_ping(f->s, e) == 0);
    CO_CHECK(store_ok(f->s));
    CO_CHECK(store_do(f->s, put_body, b_key, e) == 0);
    CO_CHECK(ask(f, count_body) == 2);
    return 0;
}

#define WRITERS 12
#define ROWS    20000

struct writer {
    struct fixture *f;
    int number, next;
    bool *stop;
    char outcome[ROWS]; /* '+' acknowledged, '-' failed, '?' unsure */
};

static int write_on(void *arg, struct err *e)
{
    struct writer *w = arg;
    char key[32];

    while (!*w->stop && w->next < ROWS) {
        int r;

        fmt_z(key, sizeof(key), "%d.%d", w->number, w->next);
        r = store_do(w->f->s, put_body, key, e);
        w->outcome[w->next++] = (char)(r == 0 ? '+' : store_unsure(e) ? '?' : '-');
    }
    return 0;
}

static int verify_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct writer *w = arg;
    char key[32];

    for (int i = 0; i < w->next; i++) {
        struct sql_arg arg_key;
        int64_t n = -1;
        int r;

        fmt_z(key, sizeof(key), "%d.%d", w->number, i);
        arg_key = SQL_Z(key);
        r = store_run(tx, &sql_has, &arg_key, 1, take_int, &n, e);
        if (r < 0)
            return r;
        if (w->outcome[i] != '?' && n != (w->outcome[i] == '+'))
            return err_set(e, ERR_INTERNAL, "row %s was told '%c' and is there %d times", key,
                           w->outcome[i], (int)n);
    }
    return 0;
}

static CO int survive(struct fixture *f, fiber_fn *stop, struct err *e)
{
    static struct writer writers[WRITERS];
    struct fiber_group *group = fiber_group_new(f->loop);
    bool enough = false;
    int n = 0, unsure = 0;

    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){ .f = f, .number = i, .stop = &enough };
        CO_CHECK(fiber_group_spawn(group, "writer", write_on, &writers[i], e) == 0);
    }
    for (int i = 0; i < 2; i++) {
        CO_CHECK(fiber_sleep(200, e) == 0);
        CO_CHECK(offload(stop, NULL, e) == 0);
        CO_CHECK(offload(start_again, NULL, e) == 0);
    }
    CO_CHECK(fiber_sleep(300, e) == 0);
    enough = true;
    CO_CHECK(fiber_group_join(group, e) == 0);
    fiber_group_free(group);
    for (int i = 0; i < WRITERS; i++) {
        CO_CHECK(store_read(f->s, verify_body, &writers[i], e) == 0);
        for (int k = 0; k < writers[i].next; k++)
            unsure += writers[i].outcome[k] == '?';
        n += writers[i].next;
    }
    printf("# %d transactions, %d of unknown outcome\n", n, unsure);
    return 0;
}

PG_TEST(a_server_restarted_under_load_loses_nothing_acknowledged, &hasty)
{
    return survive(f, stop_fast, e);
}

PG_TEST(a_server_killed_under_load_loses_nothing_acknowledged, &conf)
{
    return survive(f, stop_hard, e);
}

/* Opening */

static int open_at(const char *url, uint64_t wait_ms, uint64_t *ret_ms, struct err *e)
{
    struct store_conf c = { .url = url, .wait_ms = wait_ms };
    struct store *s = NULL;
    uint64_t begin = now_ms();
    int r = store_open(NULL, &c, &s, e);

    *ret_ms = now_ms() - begin;
    store_close(s);
    return r;
}

TEST(a_server_that_is_away_is_waited_for_and_then_named)
{
    uint64_t ms;
    struct err e;

    CHECK_INT(open_at("postgres://chela@127.0.0.1:1/x", 400, &ms, &e), -ERR_UNAVAILABLE);
    CHECK(ms >= 200 && ms < 60000); /* it waited, and not for ever */
    CHECK(strstr(e.msg, "127.0.0.1"));
}

TEST(a_database_that_does_not_exist_is_told_at_once)
{
    AUTO(free)
    char *url = xasprintf("postgres://chela@/nothing?host=%s",
                          strstr(getenv("CHELA_TEST_PG"), "host=") + strlen("host="));
    uint64_t ms;
    struct err e;

    CHECK_INT(open_at(url, 60000, &ms, &e), -ERR_UNAVAILABLE);
    CHECK(ms < 30000);
    CHECK(strstr(e.msg, "\"nothing\" does not exist"));
}

TEST(a_url_that_cannot_be_read_is_not_shown)
{
    uint64_t ms;
    struct err e;

    CHECK_INT(open_at("postgres://chela:hunter2@host:port%zz/", 400, &ms, &e), -ERR_INVALID);
    CHECK(!strstr(e.msg, "hunter2"));
}
