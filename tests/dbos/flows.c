/* SPDX-License-Identifier: MIT */
#include "flows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define TEXT_MAX_ (1 * MIB)
#define GATE_MS   10 /* how often a gate is looked at */

int flow_ledger = -1;
const char *flow_gates = ".";

/* --- what they are given and give back --- */

static long long number(const json_t *object, const char *key, long long otherwise)
{
    const json_t *v = json_object_get(object, key);

    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

static int give(struct workflow *w, const json_t *value, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    buf_init(&b, TEXT_MAX_);
    r = value ? json_write(value, &b, e) : buf_add_z(&b, "null", e);
    return r < 0 ? r : durable_return(w, buf_str(&b), e);
}

/* Text of a JSON value for a call of the engine; {0} when there is none. */
static int text_of(const json_t *value, struct buf *b, struct str *ret, struct err *e)
{
    int r = 0;

    *ret = (struct str){ 0 };
    if (value) {
        r = json_write(value, b, e);
        *ret = buf_str(b);
    }
    return r;
}

/* list is [a,b; one more element follows. */
static int list_add(struct buf *list, struct str json, struct err *e)
{
    int r = buf_add_z(list, list->n ? "," : "[", e);

    return r < 0 ? r : buf_add_str(list, json, e);
}

static int list_give(struct workflow *w, struct buf *list, struct err *e)
{
    int r = buf_add_z(list, list->n ? "]" : "[]", e);

    return r < 0 ? r : durable_return(w, buf_str(list), e);
}

/* --- values --- */

static CO int echo(struct workflow *w, void *ctx, struct err *e)
{
    return give(w, workflow_arg(w, 0), e);
}

static CO int mirror(struct workflow *w, void *ctx, struct err *e)
{
    AUTO(json_decref)
    json_t *all =
        json_pack("{s:O,s:O}", "positional", workflow_args(w), "named", workflow_named(w));

    return give(w, all, e);
}

/* fail({name, message, code, data}) */
static CO int fail(struct workflow *w, void *ctx, struct err *e)
{
    const json_t *how = workflow_arg(w, 0);
    AUTO(buf_done) struct buf code_text = { 0 };
    AUTO(buf_done) struct buf data_text = { 0 };
    struct str code, data;
    int r;

    buf_init(&code_text, TEXT_MAX_);
    buf_init(&data_text, TEXT_MAX_);
    r = text_of(json_object_get(how, "code"), &code_text, &code, e);
    if (r == 0)
        r = text_of(json_object_get(how, "data"), &data_text, &data, e);
    if (r < 0)
        return r;
    return durable_throw(w, json_string_value(json_object_get(how, "name")),
                         json_string_value(json_object_get(how, "message")), code, data, e);
}

/* --- steps --- */

struct piece { /* one step of work() */
    const char *workflow;
    const char *gate; /* NULL: none */
    long long number, hold_ms;
};

static void note(const char *what, const struct piece *p)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "%s %s %lld %d\n", what, p->workflow, p->number,
                     (int)getpid());

    if (write(flow_ledger, line, (size_t)n) != n)
        abort(); /* a test without its ledger proves nothing */
}

static CO int pass_gate(const char *gate, struct err *e)
{
    char path[512];

    fmt_z(path, sizeof(path), "%s/%s", flow_gates, gate);
    while (access(path, F_OK) != 0) {
        int r = fiber_sleep(GATE_MS, e);

        if (r < 0)
            return r;
    }
    return 0;
}

static CO int piece_body(void *arg, struct buf *out, struct err *e)
{
    const struct piece *p = arg;
    int r = 0;

    note("begin", p);
    if (p->gate)
        r = pass_gate(p->gate, e);
    if (r == 0 && p->hold_ms)
        r = fiber_sleep((uint64_t)p->hold_ms, e);
    if (r < 0)
        return r;
    note("end", p);
    return buf_printf(out, e, "%lld", p->number * 10);
}

/* work({steps, gate, at, hold_ms}): the results of its steps; step `at` (0) waits for the gate. */
static CO int work(struct workflow *w, void *ctx, struct err *e)
{
    const json_t *how = workflow_arg(w, 0);
    long long n = number(how, "steps", 1), at = number(how, "at", 0);
    AUTO(buf_done) struct buf list = { 0 };
    AUTO(buf_done) struct buf out = { 0 };

    buf_init(&list, TEXT_MAX_);
    buf_init(&out, TEXT_MAX_);
    for (long long i = 0; i < n; i++) {
        struct piece p = {
            .workflow = workflow_id(w),
            .gate = i == at ? json_string_value(json_object_get(how, "gate")) : NULL,
            .number = i,
            .hold_ms = number(how, "hold_ms", 0),
        };
        int r;

        buf_clear(&out);
        r = durable_step(w, "piece", NULL, piece_body, &p, &out, e);
        if (r == 0)
            r = list_add(&list, buf_str(&out), e);
        if (r < 0)
            return r;
    }
    return list_give(w, &list, e);
}

/* --- time, messages, events, streams, children --- */

/* nap(ms) */
static CO int nap(struct workflow *w, void *ctx, struct err *e)
{
    int r = durable_sleep(w, (uint64_t)json_integer_value(workflow_arg(w, 0)), e);

    return r < 0 ? r : durable_return(w, STR("\"slept\""), e);
}

/* receive({count, topic, timeout_ms}): the messages in the order they came; null for none. */
static CO int receive(struct workflow *w, void *ctx, struct err *e)
{
    const json_t *how = workflow_arg(w, 0);
    long long n = number(how, "count", 1), timeout = number(how, "timeout_ms", 30000);
    AUTO(buf_done) struct buf list = { 0 };
    AUTO(buf_done) struct buf out = { 0 };

    buf_init(&list, TEXT_MAX_);
    buf_init(&out, TEXT_MAX_);
    for (long long i = 0; i < n; i++) {
        int r;

        buf_clear(&out);
        r = durable_recv(w, json_member_str(how, "topic"), (uint64_t)timeout, &out, e);
        if (r >= 0)
            r = list_add(&list, r == DURABLE_NOTHING ? STR("null") : buf_str(&out), e);
        if (r < 0)
            return r;
    }
    return list_give(w, &list, e);
}

/* publish({key, values}): sets the event to each of them in turn. */
static CO int publish(struct workflow *w, void *ctx, struct err *e)
{
    const json_t *how = workflow_arg(w, 0), *values = json_object_get(how, "values");
    AUTO(buf_done) struct buf text = { 0 };

    buf_init(&text, TEXT_MAX_);
    for (size_t i = 0; i < json_array_size(values); i++) {
        struct str json;
        int r;

        buf_clear(&text);
        r = text_of(json_array_get(values, i), &text, &json, e);
        if (r == 0)
            r = durable_set_event(w, json_member_str(how, "key"), json, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* stream({key, values, close}) */
static CO int stream(struct workflow *w, void *ctx, struct err *e)
{
    const json_t *how = workflow_arg(w, 0), *values = json_object_get(how, "values");
    struct str key = json_member_str(how, "key");
    AUTO(buf_done) struct buf text = { 0 };

    buf_init(&text, TEXT_MAX_);
    for (size_t i = 0; i < json_array_size(values); i++) {
        struct str json;
        int r;

        buf_clear(&text);
        r = text_of(json_array_get(values, i), &text, &json, e);
        if (r == 0)
            r = durable_write_stream(w, key, json, e);
        if (r < 0)
            return r;
    }
    return json_is_true(json_object_get(how, "close")) ? durable_close_stream(w, key, e) : 0;
}

/* parent(n): n children named echo, and what they said. */
static CO int parent(struct workflow *w, void *ctx, struct err *e)
{
    long long n = json_integer_value(workflow_arg(w, 0));
    AUTO(buf_done) struct buf list = { 0 };
    AUTO(buf_done) struct buf out = { 0 };

    buf_init(&list, TEXT_MAX_);
    buf_init(&out, TEXT_MAX_);
    for (long long i = 0; i < n; i++) {
        char args[64];
        struct durable_start start = { .name = "echo" };
        struct durable_started child;
        int r;

        fmt_z(args, sizeof(args), "[\"child %lld\"]", i);
        start.args = str_of(args);
        buf_clear(&out);
        r = durable_child(w, &start, &child, e);
        if (r == 0)
            r = durable_result(w, str_of(child.id), 0, &out, e);
        if (r == 0)
            r = list_add(&list, buf_str(&out), e);
        if (r < 0)
            return r;
    }
    return list_give(w, &list, e);
}

const struct durable_type flow_types[] = {
    { .name = "echo", .fn = echo, .doc = "its first argument" },
    { .name = "echo", .class_name = "Greeter", .fn = echo, .doc = "the same, as a method" },
    { .name = "mirror", .fn = mirror, .doc = "all its arguments" },
    { .name = "fail", .fn = fail, .doc = "the error it is told" },
    { .name = "work", .fn = work, .doc = "steps with a ledger" },
    { .name = "work", .class_name = "Worker", .fn = work, .doc = "the same, as a method" },
    { .name = "fragile", .fn = work, .max_attempts = 2, .doc = "work that is given up soon" },
    { .name = "nap", .fn = nap, .doc = "sleeps" },
    { .name = "receive", .fn = receive, .doc = "messages" },
    { .name = "publish", .fn = publish, .doc = "sets an event" },
    { .name = "stream", .fn = stream, .doc = "writes a stream" },
    { .name = "parent", .fn = parent, .doc = "asks its children" },
};
const size_t flow_types_len = sizeof(flow_types) / sizeof(flow_types[0]);

#define QUICK .polling_ms = 200 /* clients send no hint when they enqueue */

const struct durable_queue flow_queues[] = {
    { .name = "plain", QUICK, .doc = "without limits" },
    { .name = "default", .doc = "as DBOS would make it" },
    { .name = "one", QUICK, .concurrency = 1, .doc = "one at a time in all processes" },
    { .name = "three", QUICK, .concurrency = 3, .doc = "three at once in all processes" },
    { .name = "each", QUICK, .worker_concurrency = 2, .doc = "two at once in each process" },
    { .name = "rated", QUICK, .rate_max = 4, .rate_period_ms = 1500, .doc = "four per 1.5 s" },
    { .name = "parted", QUICK, .partition_concurrency = 1, .doc = "one at a time of each key" },
};
const size_t flow_queues_len = sizeof(flow_queues) / sizeof(flow_queues[0]);
