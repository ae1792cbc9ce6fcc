/* SPDX-License-Identifier: MIT */
/*
 * Workflows whose result is a function of their seed alone, whatever crashes in between:
 *
 *   big     twenty steps, two children, messages both ways, an event, a stream, sleeps
 *   leaf    big's child: waits for a message, works, answers
 *   random  a program drawn from its seed: any of the calls in any order, children of its kind
 *   sleepy  sleeps for SEED milliseconds, then one transactional step
 */
#include "crash/flows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_MS = 3600 * 1000 }; /* longer than any run of the tests, however often it is killed */

int flow_ledger = -1;

/* --- the two kinds of step --- */

struct body {
    struct workflow *w;
    char id[DURABLE_ID]; /* of the workflow: what a store thread may look at */
    const char *step;
    uint64_t value;
    int64_t recorded;
};

static int note_count(struct store_row *row, void *arg, struct err *e)
{
    ((struct body *)arg)->recorded = row_int(row, 0);
    return 0;
}

static int look_recorded(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sql = {
        "crash_recorded",
        "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
        " AND function_name = ?2",
        NULL,
    };
    struct body *b = arg;
    const struct sql_arg args[] = { SQL_Z(b->id), SQL_Z(b->step) };

    return store_run(tx, &sql, args, LEN(args), note_count, b, e);
}

static struct store *flow_store;

CO static int run_body(void *arg, struct buf *out, struct err *e)
{
    struct body *b = arg;
    char line[400];
    int n, r;

    do {
        r = store_read(flow_store, look_recorded, b, e);
    } while (r == -ERR_UNAVAILABLE && fiber_sleep(50, e) == 0);
    if (r < 0)
        return r;
    n = snprintf(line, sizeof(line), "%s %s %ld%s\n", b->id, b->step, (long)getpid(),
                 b->recorded ? " RECORDED" : "");
    if (write(flow_ledger, line, (size_t)n) != n)
        return err_sys(e, "write the ledger");
    return buf_printf(out, e, "%" PRIu64, b->value);
}

static int insert_effect(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    static const struct sql sql = {
        "crash_effect",
        "INSERT INTO crash_effects (workflow, step) VALUES (?1, ?2)",
        NULL,
    };
    struct body *b = arg;
    const struct sql_arg args[] = { SQL_Z(b->id), SQL_Z(b->step) };
    int r = store_run(tx, &sql, args, LEN(args), NULL, NULL, e);

    return r < 0 ? r : buf_printf(out, e, "%" PRIu64, b->value);
}

/* A small mixing function (the finalizer of SplitMix64): values only have to differ. */
static uint64_t mix(uint64_t v)
{
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

/* What JSON keeps exactly: fifty bits. */
static uint64_t mix50(uint64_t v)
{
    return mix(v) >> 14;
}

CO static int step(struct workflow *w, const char *name, bool tx, uint64_t value, uint64_t *sum,
                   struct err *e)
{
    static const struct durable_retry retry = { .tries = 2, .first_ms = 1 };
    struct body b = { .w = w, .step = name, .value = mix50(value) };
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, 64);
    fmt_z(b.id, sizeof(b.id), "%s", workflow_id(w));
    r = tx ? durable_step_tx(w, name, insert_effect, &b, &out, e)
           : durable_step(w, name, &retry, run_body, &b, &out, e);
    if (r < 0)
        return r;
    if (buf_add(&out, "", 1, e) < 0)
        return -(int)e->code;
    *sum = mix50(*sum + strtoull(out.p + out.off, NULL, 10));
    return 0;
}

static uint64_t seed_of(const struct workflow *w)
{
    return (uint64_t)json_integer_value(workflow_arg(w, 0));
}

static int finish(struct workflow *w, uint64_t sum, struct err *e)
{
    char text[32];

    fmt_z(text, sizeof(text), "%" PRIu64, sum);
    return durable_return(w, str_of(text), e);
}

/* --- calls that fold what they get into the sum --- */

static int fold(struct buf *got, uint64_t *sum, struct err *e)
{
    int r = buf_add(got, "", 1, e);

    if (r == 0)
        *sum = mix50(*sum + strtoull(got->p + got->off, NULL, 10));
    return r;
}

CO static int send_to(struct workflow *w, struct str to, const char *topic, uint64_t value,
                      struct err *e)
{
    char text[32];

    fmt_z(text, sizeof(text), "%" PRIu64, value);
    return durable_send(w, to, str_of(topic), str_of(text), (struct str){ NULL, 0 }, e);
}

CO static int receive(struct workflow *w, const char *topic, uint64_t *sum, struct err *e)
{
    AUTO(buf_done) struct buf got;
    int r;

    buf_init(&got, 64);
    r = durable_recv(w, str_of(topic), WAIT_MS, &got, e);
    if (r == DURABLE_NOTHING)
        return err_set(e, ERR_TIMEOUT, "no message of topic %s", topic);
    return r < 0 ? r : fold(&got, sum, e);
}

CO static int event(struct workflow *w, const char *key, uint64_t value, uint64_t *sum,
                    struct err *e)
{
    AUTO(buf_done) struct buf got;
    char text[32];
    int r;

    buf_init(&got, 64);
    fmt_z(text, sizeof(text), "%" PRIu64, value);
    r = durable_set_event(w, str_of(key), str_of(text), e);
    if (r == 0)
        r = durable_get_event(w, str_of(workflow_id(w)), str_of(key), WAIT_MS, &got, e);
    if (r == DURABLE_NOTHING)
        return err_set(e, ERR_TIMEOUT, "no event %s", key);
    return r < 0 ? r : fold(&got, sum, e);
}

CO static int child(struct workflow *w, const char *name, uint64_t seed, char ret_id[DURABLE_ID],
                    struct err *e)
{
    char args[64];
    struct durable_start start = { .name = name };
    struct durable_started started;
    int r;

    fmt_z(args, sizeof(args), "[%" PRIu64 ",1]", seed);
    start.args = str_of(args);
    r = durable_child(w, &start, &started, e);
    if (r == 0)
        fmt_z(ret_id, DURABLE_ID, "%s", started.id);
    return r;
}

CO static int result(struct workflow *w, const char *id, uint64_t *sum, struct err *e)
{
    AUTO(buf_done) struct buf got;
    int r;

    buf_init(&got, 64);
    r = durable_result(w, str_of(id), 0, &got, e);
    return r < 0 ? r : fold(&got, sum, e);
}

/* --- the workflows --- */

CO static int leaf(struct workflow *w, void *ctx, struct err *e)
{
    const char *dash = strrchr(workflow_id(w), '-');
    struct str parent = { workflow_id(w), dash ? (size_t)(dash - workflow_id(w)) : 0 };
    uint64_t sum = seed_of(w);
    int r;

    r = receive(w, "work", &sum, e);
    if (r == 0)
        r = step(w, "leaf-a", false, sum, &sum, e);
    if (r == 0)
        r = step(w, "leaf-tx", true, sum, &sum, e);
    if (r == 0)
        r = send_to(w, parent, "answer", sum, e);
    return r < 0 ? r : finish(w, sum, e);
}

static const char *const big_names[] = {
    "s00", "s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09",
    "s10", "s11", "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19",
};

/* What big does after step i. */
CO static int interlude(struct workflow *w, size_t i, char kids[2][DURABLE_ID], uint64_t *sum,
                        struct err *e)
{
    switch (i) {
    case 2:
        return child(w, "leaf", *sum, kids[0], e);
    case 3:
        return send_to(w, str_of(kids[0]), "work", *sum, e);
    case 5:
        return durable_sleep(w, 5, e);
    case 7:
        return receive(w, "answer", sum, e);
    case 8:
        return event(w, "half", *sum, sum, e);
    case 10:
        return child(w, "leaf", *sum, kids[1], e);
    case 11:
        return send_to(w, str_of(kids[1]), "work", *sum, e);
    case 12:
        return durable_write_stream(w, STR("log"), STR("\"twelve\""), e);
    case 13:
        return receive(w, "answer", sum, e);
    case 15:
        return result(w, kids[0], sum, e);
    case 16:
        return result(w, kids[1], sum, e);
    case 17:
        return durable_close_stream(w, STR("log"), e);
    default:
        return 0;
    }
}

CO static int big(struct workflow *w, void *ctx, struct err *e)
{
    char kids[2][DURABLE_ID];
    uint64_t sum = seed_of(w);

    for (size_t i = 0; i < LEN(big_names); i++) {
        int r = step(w, big_names[i], i % 5 == 4, sum + i, &sum, e);

        if (r == 0)
            r = interlude(w, i, kids, &sum, e);
        if (r < 0)
            return r;
    }
    return finish(w, sum, e);
}

CO static int random_call(struct workflow *w, uint64_t draw, unsigned i, uint64_t *sum,
                          struct err *e)
{
    static const char *const names[] = { "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7",
                                         "r8", "r9", "ra", "rb", "rc", "rd", "re", "rf" };
    bool deep = json_array_size(workflow_args(w)) > 1; /* a child of its kind has none itself */
    char id[DURABLE_ID];
    int64_t now;
    int r;

    switch (draw % 8) {
    case 0:
    case 1:
        return step(w, names[i], false, draw, sum, e);
    case 2:
        return step(w, names[i], true, draw, sum, e);
    case 3:
        return durable_sleep(w, draw / 8 % 40, e);
    case 4:
        r = send_to(w, str_of(workflow_id(w)), names[i], draw % 1000, e);
        return r < 0 ? r : receive(w, names[i], sum, e);
    case 5:
        return event(w, names[i], draw % 1000, sum, e);
    case 6:
        r = deep ? 0 : child(w, "random", draw % 100000, id, e);
        return r < 0 || deep ? r : result(w, id, sum, e);
    default:
        return durable_now(w, &now, e);
    }
}

CO static int random_program(struct workflow *w, void *ctx, struct err *e)
{
    uint64_t sum = seed_of(w), draw = mix(seed_of(w) + 1);
    unsigned n = 3 + (unsigned)(draw % 14);

    for (unsigned i = 0; i < n; i++) {
        int r;

        draw = mix(draw + i);
        r = random_call(w, draw, i, &sum, e);
        if (r < 0)
            return r;
    }
    return finish(w, sum, e);
}

CO static int sleepy(struct workflow *w, void *ctx, struct err *e)
{
    uint64_t sum = 0;
    int r;

    r = durable_sleep(w, seed_of(w), e);
    if (r == 0)
        r = step(w, "awake", true, 1, &sum, e);
    return r < 0 ? r : finish(w, sum, e);
}

/* clang-format off */
const struct durable_type flow_types[] = {
    { .name = "big",    .fn = big,            .max_attempts = 1000, .doc = "Twenty steps." },
    { .name = "leaf",   .fn = leaf,           .max_attempts = 1000, .doc = "Its child." },
    { .name = "random", .fn = random_program, .max_attempts = 1000, .doc = "A program drawn from the seed." },
    { .name = "sleepy", .fn = sleepy,         .max_attempts = 1000, .doc = "Sleeps, then works." },
};
const size_t flow_types_len = LEN(flow_types);

const struct durable_queue flow_queues[] = {
    { .name = "free", .doc = "No limits." },
    { .name = "two",  .concurrency = 2, .doc = "Two at once in all processes." },
};
const size_t flow_queues_len = LEN(flow_queues);
/* clang-format on */

static int make_table(struct store_tx *tx, void *arg, struct err *e)
{
    static const struct sql sql = {
        "crash_table",
        "CREATE TABLE IF NOT EXISTS crash_effects (workflow TEXT NOT NULL, step TEXT NOT NULL)",
        NULL,
    };

    return store_exec(tx, &sql, e);
}

CO int flows_prepare(struct store *s, struct err *e)
{
    flow_store = s;
    return store_do(s, make_table, NULL, e);
}
