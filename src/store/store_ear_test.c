/* SPDX-License-Identifier: MIT */
/*
 * store/store_ear_test.c — LISTEN over connections that are killed, over a pooler that swallows it,
 * and where there is nothing to hear. Run by tests/pg_run.sh.
 */
#include "store/store.h"

#include "base/buf.h"
#include "store/store_fixture.h"

static const struct store_conf conf = { 0 };

#define PG_TEST(id) \
    static int co_##id(struct fixture *f, struct err *e); \
    TEST(id) \
    { \
        CHECK(run_on_pg(co_##id)); \
    } \
    static int co_##id(struct fixture *f, struct err *e)

static bool run_on_pg(int (*fn)(struct fixture *f, struct err *e))
{
    struct store_conf own = conf;
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

/* What was heard. */
struct heard {
    struct store_ear *ear;
    bool leave; /* free the ear at the next call */
    int again, n, calls;
    char log[256];
};

static void hear(const char *channel, struct str payload, void *arg)
{
    struct heard *h = arg;
    size_t at = strlen(h->log);

    h->calls++;
    if (!*channel) {
        h->again += payload.p ? 1000 : 1;
    } else {
        h->n++;
        if (at < sizeof(h->log) - 64)
            fmt_z(h->log + at, sizeof(h->log) - at, "%s:" STR_FMT " ", channel,
                  (int)(payload.n < 20 ? payload.n : 20), payload.p);
    }
    if (h->leave) {
        store_ear_free(h->ear);
        h->ear = NULL;
    }
}

static const char *const channels[] = { "one", "Two \"x\"" };

static int start(struct fixture *f, const char *url, struct heard *h, struct err *e)
{
    *h = (struct heard){ 0 };
    return store_listen(f->s, url, channels, LEN(channels), hear, h, &h->ear, e);
}

/* Wait until *v is at least n. */
static CO int until(const int *v, int n, struct err *e)
{
    uint64_t deadline = deadline_in(30000);

    while (*v < n) {
        CO_CHECK(now_ms() < deadline);
        CO_CHECK(fiber_sleep(5, e) == 0);
    }
    return 0;
}

struct message {
    const char *channel, *payload;
};

static int send_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql notify = { "notify", "SELECT pg_notify(?1, ?2)", NULL };
    const struct message *m = arg;
    const struct sql_arg args[] = { SQL_Z(m->channel), SQL_Z(m->payload) };

    return store_run(tx, &notify, args, LEN(args), NULL, NULL, e);
}

static CO int say(struct fixture *f, const char *channel, const char *payload, struct err *e)
{
    struct message m = { channel, payload };

    return store_do(f->s, send_body, &m, e);
}

PG_TEST(messages_arrive_in_order_and_only_of_the_channels_asked_for)
{
    struct heard h;

    CO_CHECK(start(f, NULL, &h, e) == 0);
    CO_CHECK(until(&h.again, 1, e) == 0);
    CO_CHECK(store_hears(h.ear));
    CO_CHECK(say(f, "one", "a", e) == 0);
    CO_CHECK(say(f, "three", "b", e) == 0);
    CO_CHECK(say(f, "Two \"x\"", "gr\xc3\xbc\xc3\x9f", e) == 0);
    CO_CHECK(say(f, "one", "", e) == 0);
    CO_CHECK(until(&h.n, 3, e) == 0);
    CO_CHECK(strcmp(h.log, "one:a Two \"x\":gr\xc3\xbc\xc3\x9f one: ") == 0);
    CO_CHECK(h.again == 1);
    store_ear_free(h.ear);
    return 0;
}

PG_TEST(a_killed_connection_comes_back_and_says_so)
{
    struct heard h;

    CO_CHECK(start(f, NULL, &h, e) == 0);
    for (int i = 1; i <= 3; i++) {
        CO_CHECK(until(&h.again, i, e) == 0);
        CO_CHECK(say(f, "one", "x", e) == 0);
        CO_CHECK(until(&h.n, i, e) == 0);
        CO_CHECK(fixture_sql(f->url,
                             "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                             " WHERE pid <> pg_backend_pid() AND query LIKE 'LISTEN%'",
                             e) == 0);
    }
    CO_CHECK(until(&h.again, 4, e) == 0);
    CO_CHECK(store_hears(h.ear));
    store_ear_free(h.ear);
    return 0;
}

static int many_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql many = {
        "many", "SELECT pg_notify('one', i::text) FROM generate_series(1, 20000) AS i", NULL
    };

    return store_exec(tx, &many, e);
}

PG_TEST(of_too_much_at_once_all_arrives_or_a_look_again)
{
    struct heard h;
    uint64_t deadline = deadline_in(30000);

    CO_CHECK(start(f, NULL, &h, e) == 0);
    CO_CHECK(until(&h.again, 1, e) == 0);
    /* The loop is kept from taking any of them until all have been sent. */
    CO_CHECK(store_do_now(f->s, many_body, NULL, e) == 0);
    while (h.n < 20000 && h.again < 2) {
        CO_CHECK(now_ms() < deadline);
        CO_CHECK(fiber_sleep(5, e) == 0);
    }
    store_ear_free(h.ear);
    return 0;
}

PG_TEST(an_ear_may_be_freed_by_what_it_calls_and_at_any_time)
{
    struct heard h;

    CO_CHECK(start(f, NULL, &h, e) == 0);
    h.leave = true;
    CO_CHECK(until(&h.calls, 1, e) == 0);
    CO_CHECK(!h.ear);
    for (int i = 0; i < 20; i++) { /* while it connects, and while it is tested */
        CO_CHECK(start(f, NULL, &h, e) == 0);
        CO_CHECK(fiber_sleep((uint64_t)i, e) == 0);
        store_ear_free(h.ear);
    }
    CO_CHECK(start(f, "postgres://chela@127.0.0.1:1/nowhere", &h, e) == 0);
    CO_CHECK(fiber_sleep(20, e) == 0);
    CO_CHECK(!store_hears(h.ear) && h.calls == 0);
    store_ear_free(h.ear);
    return 0;
}

/* Another database of the server: it can be listened to, and nothing of ours is ever said there. */
PG_TEST(an_ear_at_the_wrong_place_knows_that_it_does_not_hear)
{
    struct heard h;

    CO_CHECK(start(f, getenv("CHELA_TEST_PG_ADMIN"), &h, e) == 0);
    CO_CHECK(until(&h.again, 1, e) == 0); /* the test is over: look for yourself */
    CO_CHECK(!store_hears(h.ear));
    CO_CHECK(say(f, "one", "x", e) == 0);
    CO_CHECK(fiber_sleep(100, e) == 0);
    CO_CHECK(h.n == 0);
    store_ear_free(h.ear);
    return 0;
}

static int on_sqlite(struct fixture *f, struct err *e)
{
    struct heard h;

    CO_CHECK(start(f, NULL, &h, e) == 0);
    CO_CHECK(!store_hears(h.ear));
    CO_CHECK(fiber_sleep(20, e) == 0);
    CO_CHECK(h.calls == 0);
    store_ear_free(h.ear);
    store_ear_free(NULL);
    return 0;
}

TEST(on_sqlite_there_is_nobody_to_hear)
{
    struct store_conf own = conf;
    struct err e;

    own.url = "sqlite::memory:";
    CHECK_INT(fixture_run(&own, on_sqlite, NULL, &e), 0);
}
