/* SPDX-License-Identifier: MIT */
/*
 * The small calls of a workflow: what it is, what it returns, and steps that need no body (the
 * clock, chance, patches).
 */
#include "durable/durable_int.h"

const char *workflow_id(const struct workflow *w)
{
    return w->id;
}

void *workflow_ctx(const struct workflow *w)
{
    return w->type->ctx;
}

struct durable *workflow_engine(const struct workflow *w)
{
    return w->d;
}

const json_t *workflow_args(const struct workflow *w)
{
    return w->args;
}

const json_t *workflow_named(const struct workflow *w)
{
    return w->named;
}

const json_t *workflow_arg(const struct workflow *w, size_t i)
{
    return json_array_get(w->args, i);
}

unsigned workflow_attempt(const struct workflow *w)
{
    return w->attempt;
}

int durable_return(struct workflow *w, struct str json, struct err *e)
{
    int r;

    if (json.n > w->d->conf.payload_max)
        return err_set(e, ERR_LIMIT, "the result is longer than %zu bytes", w->d->conf.payload_max);
    r = wire_check(json, e);
    if (r < 0)
        return err_wrap(e, "result of the workflow");
    buf_clear(&w->result);
    r = buf_add_str(&w->result, json, e);
    w->has_result = r == 0;
    return r;
}

int durable_throw(struct workflow *w, const char *name, const char *message, struct str code,
                  struct str data, struct err *e)
{
    struct wire_error error = { str_of(name), str_of(message), code, data };
    int r = 0;

    if (code.p)
        r = wire_check(code, e);
    if (r == 0 && data.p)
        r = wire_check(data, e);
    if (r == 0 && name && data.n + error.message.n > w->d->conf.payload_max)
        r = err_set(e, ERR_LIMIT, "the error is longer than %zu bytes", w->d->conf.payload_max);
    if (r < 0)
        return err_wrap(e, "throw '%s'", name);
    r = err_set(e, ERR_INTERNAL, "%s", message);
    run_thrown(w, &error, e);
    return r;
}

/* A value that is found out here and now, once for all replays: as a step without a body. */
static CO int record_value(struct workflow *w, unsigned id, const char *name, struct str json,
                           struct err *e)
{
    struct record record = { .id = id, .name = name, .output = json };

    record.started_ms = record.completed_ms = wall_ms();
    return run_record(w, &record, e);
}

CO int durable_now(struct workflow *w, int64_t *ret_ms, struct err *e)
{
    struct recorded rec;
    long long ms = 0;
    char text[32];
    unsigned id;
    int r;

    r = run_recorded(w, "DBOS.now", &id, &rec, e);
    if (r < 0)
        return r;
    if (r == 0) {
        ms = wall_ms();
        fmt_z(text, sizeof(text), "%lld", ms);
        r = record_value(w, id, "DBOS.now", str_of(text), e);
    } else {
        AUTO(buf_done) struct buf out;

        buf_init(&out, 4 * KIB);
        r = run_replay(w, &rec, &out, e);
        if (r == 0)
            r = int_parse(buf_str(&out), INT64_MIN, INT64_MAX, &ms, e);
    }
    if (r == 0)
        *ret_ms = ms;
    return r;
}

/* "xxxxxxxx-...": what is between the quotes. */
static int uuid_parse(struct str json, char out[37], struct err *e)
{
    if (json.n != 38 || json.p[0] != '"' || json.p[37] != '"')
        return err_set(e, ERR_INVALID, "a recorded UUID is none");
    fmt_z(out, 37, "%.36s", json.p + 1);
    return 0;
}

CO int durable_uuid(struct workflow *w, char out[37], struct err *e)
{
    char uuid[37], text[40];
    struct recorded rec;
    unsigned id;
    int r;

    r = run_recorded(w, "DBOS.randomUUID", &id, &rec, e);
    if (r < 0)
        return r;
    if (r == 0) {
        uuid_new(uuid);
        fmt_z(text, sizeof(text), "\"%s\"", uuid);
        r = record_value(w, id, "DBOS.randomUUID", str_of(text), e);
    } else {
        AUTO(buf_done) struct buf value;

        buf_init(&value, 4 * KIB);
        r = run_replay(w, &rec, &value, e);
        if (r == 0)
            r = uuid_parse(buf_str(&value), uuid, e);
    }
    if (r == 0)
        fmt_z(out, 37, "%s", uuid);
    return r;
}

CO int durable_patch(struct workflow *w, const char *name, bool *ret, struct err *e)
{
    const char *step = arena_printf(&w->arena, "DBOS.patch-%s", name);
    struct recorded rec;
    unsigned id;
    int r;

    r = run_peek(w, &rec, e);
    if (r < 0)
        return r;
    if (r == RUN_BEYOND || (r == 1 && !str_eq_z(rec.name, step))) {
        *ret = false; /* it had passed here before the change; the next id is the next call's */
        return 0;
    }
    r = run_recorded(w, step, &id, &rec, e);
    if (r == 0)
        r = record_value(w, id, step, STR("true"), e);
    if (r < 0)
        return r;
    *ret = true;
    return 0;
}
