/* SPDX-License-Identifier: MIT */
/*
 * store/store_dbos_test.c — the schema dbos as statements see it on both databases, its SQL
 * functions on PostgreSQL, and what is said of a schema that is too old. Run by tests/pg_run.sh;
 * without it SQLite alone is tested. That PostgreSQL's schema is the one of the SDKs:
 * tests/dbos_schema.
 */
#include "store/store.h"

#include <string.h>

#include "base/time.h"
#include "store/store_fixture.h"

static struct store_conf conf(const char *url)
{
    return (struct store_conf){ .url = url,
                                .migrations = store_migrations,
                                .n_migrations = store_migrations_len };
}

#define EVERYWHERE(id) \
    static int co_##id(struct fixture *f, struct err *e); \
    TEST(id) \
    { \
        struct store_conf own = conf(NULL); \
        CHECK(fixture_everywhere(&own, co_##id)); \
    } \
    static int co_##id(struct fixture *f, struct err *e)

/* One statement without arguments; the first column of its last row into *ret. */
struct ask {
    struct sql sql;
    char text[128];
    int64_t n;
};

static int take(struct store_row *row, void *arg, struct err *e)
{
    struct ask *a = arg;
    struct str s = row_str(row, 0);

    a->n = row_int(row, 0);
    fmt_z(a->text, sizeof(a->text), "%.*s", (int)(s.n < 120 ? s.n : 120), s.p ? s.p : "NULL");
    return 0;
}

/* A macro, so that each statement is a constant of its own. */
#define ASK(f, ret, text_, e) \
    ({ \
        static const struct sql own_sql = { "ask", text_, NULL }; \
        store_once((f)->s, &own_sql, NULL, 0, take, (ret), (e)); \
    })

EVERYWHERE(defaults_are_the_schemas)
{
    struct ask a = { .n = 0 };
    int64_t now = wall_us() / 1000;

    CO_CHECK(ASK(f, &a, "INSERT INTO dbos.workflow_status (workflow_uuid) VALUES ('w')", e) == 0);
    CO_CHECK(ASK(f, &a, "SELECT created_at FROM dbos.workflow_status", e) == 0);
    CO_CHECK(a.n > now - 60000 && a.n < now + 60000);
    CO_CHECK(ASK(f, &a,
                 "SELECT count(*) FROM dbos.workflow_status WHERE priority = 0 AND"
                 " recovery_attempts = 0 AND was_forked_from = FALSE AND NOT is_debounced"
                 " AND rate_limited IS NOT TRUE AND class_name IS NULL AND attributes IS NULL",
                 e) == 0);
    CO_CHECK(a.n == 1);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.notifications (destination_uuid, message) VALUES ('w', '1'),"
                 " ('w', '2')",
                 e) == 0);
    CO_CHECK(ASK(f, &a,
                 "SELECT count(DISTINCT message_uuid) FROM dbos.notifications"
                 " WHERE consumed = FALSE AND length(message_uuid) >= 32",
                 e) == 0);
    CO_CHECK(a.n == 2);
    CO_CHECK(ASK(f, &a, "INSERT INTO dbos.queues (name) VALUES ('q')", e) == 0);
    CO_CHECK(ASK(f, &a, "SELECT polling_interval_sec FROM dbos.queues", e) == 0);
    CO_CHECK(a.n == 1);
    CO_CHECK(ASK(f, &a, "SELECT version FROM dbos.dbos_migrations", e) == 0);
    CO_CHECK(a.n == 123);
    return 0;
}

EVERYWHERE(what_hangs_on_a_workflow_goes_with_it)
{
    struct ask a = { .n = 0 };

    CO_CHECK(
        ASK(f, &a, "INSERT INTO dbos.workflow_status (workflow_uuid) VALUES ('w'), ('v')", e) == 0);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.notifications (destination_uuid, message) VALUES ('w', '1')",
                 e) == 0);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.workflow_events (workflow_uuid, key, value) VALUES"
                 " ('w', 'k', 'v')",
                 e) == 0);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.workflow_events_history (workflow_uuid, function_id, key, value)"
                 " VALUES ('w', 1, 'k', 'v'), ('v', 1, 'k', 'v')",
                 e) == 0);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.streams (workflow_uuid, key, value, \"offset\") VALUES"
                 " ('w', 'k', 'v', 0)",
                 e) == 0);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.streams (workflow_uuid, key, value, \"offset\") VALUES"
                 " ('nobody', 'k', 'v', 0)",
                 e) == -ERR_CONFLICT);
    CO_CHECK(ASK(f, &a, "DELETE FROM dbos.workflow_status WHERE workflow_uuid = 'w'", e) == 0);
    CO_CHECK(ASK(f, &a,
                 "SELECT (SELECT count(*) FROM dbos.notifications)"
                 " + (SELECT count(*) FROM dbos.workflow_events)"
                 " + (SELECT count(*) FROM dbos.streams)"
                 " + 10 * (SELECT count(*) FROM dbos.workflow_events_history)",
                 e) == 0);
    CO_CHECK(a.n == 10); /* the other workflow's */
    return 0;
}

EVERYWHERE(a_deduplication_id_is_taken_once_per_queue)
{
    struct ask a = { .n = 0 };

    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.workflow_status (workflow_uuid, queue_name, deduplication_id)"
                 " VALUES ('a', 'q', 'd'), ('b', 'p', 'd'), ('c', 'q', NULL), ('e', 'q', NULL)",
                 e) == 0);
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.workflow_status (workflow_uuid, queue_name, deduplication_id)"
                 " VALUES ('x', 'q', 'd')",
                 e) == -ERR_CONFLICT);
    return 0;
}

static int enqueue_by_sql(struct fixture *f, struct err *e)
{
    struct ask a = { .n = 0 };

    CO_CHECK(ASK(f, &a,
                 "SELECT dbos.enqueue_workflow('greet', 'q', ARRAY['1', '{\"a\": null}']::json[],"
                 " '{\"k\": 2}', workflow_id => 'x', priority => 3)",
                 e) == 0);
    CO_CHECK(strcmp(a.text, "x") == 0);
    CO_CHECK(ASK(f, &a,
                 "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = 'x' AND"
                 " status = 'ENQUEUED' AND name = 'greet' AND queue_name = 'q' AND priority = 3"
                 " AND recovery_attempts = 0 AND owner_xid IS NOT NULL AND class_name IS NULL"
                 " AND serialization = 'portable_json' AND inputs IS NULL"
                 " AND authenticated_user IS NULL AND created_at = updated_at",
                 e) == 0);
    CO_CHECK(a.n == 1);
    CO_CHECK(
        ASK(f, &a,
            "SELECT count(*) FROM dbos.workflow_input WHERE workflow_uuid = 'x' AND inputs::jsonb"
            " = '{\"positionalArgs\": [1, {\"a\": null}], \"namedArgs\": {\"k\": 2}}'",
            e) == 0);
    CO_CHECK(a.n == 1);
    /* The same id again: the first stays. */
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('other', 'p', workflow_id => 'x')", e) == 0);
    CO_CHECK(ASK(f, &a,
                 "SELECT count(*) FROM dbos.workflow_status s JOIN dbos.workflow_input i USING"
                 " (workflow_uuid) WHERE s.name = 'greet' AND i.inputs LIKE '%null%'",
                 e) == 0);
    CO_CHECK(a.n == 1);
    CO_CHECK(ASK(f, &a,
                 "SELECT dbos.enqueue_workflow('w', 'q', delay_until_epoch_ms => 5,"
                 " deduplication_id => 'd')",
                 e) == 0);
    CO_CHECK(strlen(a.text) == 36);
    CO_CHECK(ASK(f, &a, "SELECT count(*) FROM dbos.workflow_status WHERE status = 'DELAYED'", e) ==
             0);
    CO_CHECK(a.n == 1);
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', 'q', deduplication_id => 'd')", e) ==
             -ERR_CONFLICT);
    CO_CHECK(strstr(e->msg, "DBOS queue duplicated"));
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', '')", e) < 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow(NULL, 'q')", e) < 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', 'q', workflow_id => '')", e) < 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', 'q', named_args => '[]')", e) < 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', 'q', delay_until_epoch_ms => -1)", e) <
             0);
    CO_CHECK(ASK(f, &a, "SELECT count(*) FROM dbos.workflow_status", e) == 0);
    CO_CHECK(a.n == 2);
    return 0;
}

static int send_by_sql(struct fixture *f, struct err *e)
{
    struct ask a = { .n = 0 };

    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'x')", e) == 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.send_message('x', '{\"m\":1}')", e) == 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.send_message('x', '1', 't', 'once')", e) == 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.send_message('x', '2', 't', 'once')", e) == 0);
    CO_CHECK(ASK(f, &a,
                 "SELECT count(*) FROM dbos.notifications WHERE destination_uuid = 'x' AND"
                 " serialization = 'portable_json' AND ((topic = '__null__topic__' AND"
                 " message = '{\"m\":1}') OR (topic = 't' AND message = '1'))",
                 e) == 0);
    CO_CHECK(a.n == 2);
    CO_CHECK(ASK(f, &a, "SELECT count(*) FROM dbos.notifications", e) == 0);
    CO_CHECK(a.n == 2);
    CO_CHECK(ASK(f, &a, "SELECT dbos.send_message('nobody', '1')", e) == -ERR_CONFLICT);
    CO_CHECK(strstr(e->msg, "DBOS non-existent workflow"));
    /* A name too long for NOTIFY does not keep the message out. */
    CO_CHECK(ASK(f, &a,
                 "INSERT INTO dbos.notifications (destination_uuid, topic, message)"
                 " VALUES ('x', repeat('t', 9000), '1')",
                 e) == 0);
    return 0;
}

static void heard(const char *channel, struct str payload, void *arg)
{
    fmt_z((char *)arg, 64, "%s=%.*s", channel, (int)(payload.n < 40 ? payload.n : 40),
          payload.p ? payload.p : "");
}

static int message_notifies(struct fixture *f, struct err *e)
{
    static const char *const channels[] = { "dbos_notifications_channel" };
    char text[64] = "";
    uint64_t deadline = deadline_in(30000);
    struct ask a = { .n = 0 };
    struct store_ear *ear;

    CO_CHECK(store_listen(f->s, NULL, channels, 1, heard, text, &ear, e) == 0);
    CO_CHECK(ASK(f, &a, "SELECT dbos.enqueue_workflow('w', 'q', workflow_id => 'x')", e) == 0);
    while (!text[0]) {
        CO_CHECK(now_ms() < deadline);
        CO_CHECK(fiber_sleep(5, e) == 0);
    }
    CO_CHECK(ASK(f, &a, "SELECT dbos.send_message('x', '1', 'top')", e) == 0);
    while (!strchr(text, ':')) {
        CO_CHECK(now_ms() < deadline);
        CO_CHECK(fiber_sleep(5, e) == 0);
    }
    CO_CHECK(strcmp(text, "dbos_notifications_channel=x::top") == 0);
    store_ear_free(ear);
    return 0;
}

static void on_pg(int (*fn)(struct fixture *f, struct err *e))
{
    struct store_conf own = conf(fixture_pg());
    struct err e = { 0 };

    if (!own.url)
        printf("# SKIP: CHELA_TEST_PG is not set, only tests/pg_run.sh does that\n");
    else if (fixture_run(&own, fn, NULL, &e) < 0)
        CHECK_STR(e.msg, "");
}

TEST(a_workflow_can_be_enqueued_by_sql)
{
    on_pg(enqueue_by_sql);
}

TEST(a_message_can_be_sent_by_sql)
{
    on_pg(send_by_sql);
}

TEST(a_message_notifies_who_listens)
{
    on_pg(message_notifies);
}

static int refused(const char *setup, struct err *e)
{
    struct store_conf own = conf(fixture_pg());
    struct store *s = NULL;
    int r;

    CHECK_INT(fixture_sql(own.url, setup, e), 0);
    r = store_open(NULL, &own, &s, e);
    store_close(s);
    return r;
}

TEST(an_older_schema_is_refused_with_what_to_do)
{
    struct err e;

    if (!fixture_pg()) {
        printf("# SKIP: CHELA_TEST_PG is not set, only tests/pg_run.sh does that\n");
        return;
    }
    CHECK_INT(refused("CREATE SCHEMA dbos; CREATE TABLE dbos.dbos_migrations (version bigint);"
                      "INSERT INTO dbos.dbos_migrations VALUES (114)",
                      &e),
              -ERR_CONFLICT);
    CHECK(strstr(e.msg, "version 114") && strstr(e.msg, "123 is needed"));
    CHECK_INT(refused("CREATE SCHEMA dbos; CREATE TABLE dbos.workflow_status (x text)", &e),
              -ERR_CONFLICT);
    CHECK(strstr(e.msg, "version unknown"));
    CHECK_INT(refused("CREATE SCHEMA dbos", &e), 0); /* made beforehand, for its rights */
}
