/* SPDX-License-Identifier: MIT */
/*
 * durable/queue_fixture.h — for tests of queues and recovery: engines as many as a database takes,
 * each with its own queues, workflows that can be watched and held, and rows made by hand.
 */
#pragma once

#include "durable/engine_fixture.h"

#define QUICK_CONF(...) \
    { \
        .sweep_ms = 30, .lease_ms = 1500, .instance = "one", __VA_ARGS__ \
    }

/* What workflows of all engines of the test see and do. */
static struct held {
    bool open;          /* "gate" returns */
    unsigned now, most; /* of "gate" and "brief": running at once */
    unsigned begun;     /* calls of any function */
    char order[4096];   /* ids in the order they began, "a b c " */
} held;

static CO int brief(struct workflow *w, void *ctx, struct err *e)
{
    size_t n = strlen(held.order);
    int r;

    (void)ctx;
    held.begun++;
    held.now++;
    held.most = held.now > held.most ? held.now : held.most;
    if (n + strlen(workflow_id(w)) + 2 < sizeof(held.order))
        fmt_z(held.order + n, sizeof(held.order) - n, "%s ", workflow_id(w));
    r = fiber_sleep(5, e);
    held.now--;
    return r;
}

static CO int gate(struct workflow *w, void *ctx, struct err *e)
{
    int r = 0;

    (void)ctx;
    (void)w;
    held.begun++;
    held.now++;
    held.most = held.now > held.most ? held.now : held.most;
    while (r == 0 && !held.open)
        r = fiber_sleep(5, e);
    held.now--;
    return r;
}

static const struct durable_type held_types[] = {
    { .name = "brief", .fn = brief },
    { .name = "gate", .fn = gate },
    { .name = "method", .class_name = "Class", .fn = gate },
};

enum { ENGINES = 4 };
static struct durable *engines_up[ENGINES];

/* The test has it from here on: it is stopped when the test fails. */
static inline struct durable *engine_kept(struct durable *d)
{
    for (int i = 0; i < ENGINES; i++) {
        if (!engines_up[i]) {
            engines_up[i] = d;
            return d;
        }
    }
    abort();
}

static inline CO void engine_gone(struct durable *d)
{
    for (int i = 0; i < ENGINES; i++) {
        if (engines_up[i] == d)
            engines_up[i] = NULL;
    }
    durable_stop(d, 0);
    durable_free(d);
}

static inline CO void engines_left(void)
{
    held.open = true;
    for (int i = 0; i < ENGINES; i++) {
        if (engines_up[i])
            engine_gone(engines_up[i]);
    }
}

/* An engine with these queues that runs; NULL when it does not. */
static inline CO struct durable *engine_with(struct fixture *f, const struct durable_conf *conf,
                                             const struct durable_queue *queues, size_t n)
{
    struct durable *d = engine_kept(durable_new(f->loop, f->s, conf));
    struct err e;
    int r = durable_register(d, held_types, LEN(held_types), &e);

    if (r == 0)
        r = durable_register_queues(d, queues, n, &e);
    if (r == 0)
        r = durable_run(d, &e);
    if (r == 0)
        return d;
    printf("# engine: %s\n", e.msg);
    engine_gone(d);
    return NULL;
}

#define BECOMES(cond) \
    __extension__({ \
        uint64_t until_ = deadline_in(PATIENCE_MS); \
        bool is_ = (cond); \
        struct err e_; \
        while (!is_ && now_ms() < until_ && fiber_sleep(5, &e_) == 0) \
            is_ = (cond); \
        is_; \
    })

/* With an empty database, see fixture_everywhere(); the engines are the test's. */
#define QUEUE_TEST(id)       QUEUE_TEST_AS(TEST, id)
#define QUEUE_TEST_ALONE(id) QUEUE_TEST_AS(TEST_ALONE, id) /* stops the database's server */
#define QUEUE_TEST_AS(TEST_KIND, id) \
    static int body_##id(struct fixture *f, struct err *e); \
    static CO int co_##id(struct fixture *f, struct err *e) \
    { \
        int r = body_##id(f, e); \
        engines_left(); \
        return r; \
    } \
    TEST_KIND(id) \
    { \
        const struct store_conf conf = { .migrations = store_migrations, \
                                         .n_migrations = store_migrations_len }; \
        CHECK(fixture_everywhere(&conf, co_##id)); \
    } \
    static CO int body_##id(struct fixture *f, struct err *e)

/* For what needs a second process, or a server. */
#define PG_ONLY(why) \
    do { \
        if (f->sqlite) { \
            printf("# not on SQLite: %s\n", (why)); \
            return 0; \
        } \
    } while (0)

/* A row as a client makes it; columns that matter here, the others have their defaults. */
struct made {
    const char *id, *status, *name, *class_name, *queue, *version, *app, *executor, *token,
        *partition;
    int64_t priority, created, attempts, deadline, delay_until;
};

static inline struct sql_arg int_or_null(int64_t v)
{
    return v ? SQL_INT(v) : SQL_NULL;
}

static inline int make_body(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql row = {
        "test: row",
        "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, class_name, queue_name,"
        " application_version, application_name, executor_id, owner_xid, queue_partition_key,"
        " priority, created_at, updated_at, recovery_attempts, workflow_deadline_epoch_ms,"
        " delay_until_epoch_ms, serialization)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14, ?15,"
        " 'portable_json')",
        NULL,
    };
    static const struct sql input = {
        "test: input",
        "INSERT INTO dbos.workflow_input (workflow_uuid, inputs)"
        " VALUES (?1, '{\"positionalArgs\":[]}')",
        NULL,
    };
    const struct made *m = arg;
    const struct sql_arg args[] = {
        SQL_Z(m->id),
        SQL_Z(m->status ? m->status : "ENQUEUED"),
        SQL_Z(m->name ? m->name : "brief"),
        SQL_Z(m->class_name),
        SQL_Z(m->queue),
        SQL_Z(m->version),
        SQL_Z(m->app),
        SQL_Z(m->executor ? m->executor : ""),
        SQL_Z(m->token),
        SQL_Z(m->partition),
        SQL_INT(m->priority),
        SQL_INT(m->created ? m->created : wall_ms()),
        SQL_INT(m->attempts),
        int_or_null(m->deadline),
        int_or_null(m->delay_until),
    };
    int r = store_run(tx, &row, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : store_run(tx, &input, args, 1, NULL, NULL, e);
}

static inline CO bool make(struct fixture *f, struct made m)
{
    struct err e;

    if (store_do(f->s, make_body, &m, &e) == 0)
        return true;
    printf("# row %s: %s\n", m.id, e.msg);
    return false;
}
