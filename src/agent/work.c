/* SPDX-License-Identifier: MIT */
/*
 * agent/work.c — one task from its place to its response on disk. Two fibers: the inner one does
 * what the type says and may be cancelled; the outer one writes down what came of it and may not.
 */
#include <assert.h>
#include <string.h>

#include "agent/held.h"
#include "agent/task.h"
#include "agent/text.h"
#include "base/log.h"
#include "base/offload.h"

#define SHORTEN_MAX 64 /* times a result is made shorter */

struct doing {
    struct task task;
    json_t *result;
};

static CO int inner(void *arg, struct err *e)
{
    struct doing *d = arg;

    return task_work(&d->task, &d->result, e);
}

/* --- the response --- */

static json_t *clean_text(const char *text)
{
    AUTO(buf_done) struct buf b;
    struct err e;
    int r;

    buf_init(&b, 3 * strlen(text) + 16);
    r = text_utf8(str_of(text), &b, &e);
    assert(r == 0); /* a bad byte becomes at most three */
    return json_stringn(b.n ? buf_str(&b).p : "", b.n);
}

static json_t *failure(const char *id, const char *error)
{
    json_t *text = clean_text(error);
    AUTO(free) char *stack = xasprintf("Error: %s", json_string_value(text));

    return json_pack("{s:s, s:b, s:o, s:s}", "taskId", id, "success", 0, "error", text, "stack",
                     stack);
}

static void add_times(json_t *response, uint64_t began_ms)
{
    json_object_set_new(response, "duration", json_integer((json_int_t)(now_ms() - began_ms)));
    json_object_set_new(response, "timestamp", json_integer(wall_us() / 1000));
}

/* Halve the longer output of a result that is too big to send. False: there is nothing to halve. */
static bool shorten(json_t *response)
{
    json_t *result = json_object_get(response, "result");
    json_t *out = json_object_get(result, "stdout"), *err = json_object_get(result, "stderr");
    const char *key = json_string_length(out) >= json_string_length(err) ? "stdout" : "stderr";
    json_t *text = json_object_get(result, key);
    struct str half = { json_string_value(text), json_string_length(text) / 2 };

    if (half.n == 0)
        return false;
    half.n = text_whole(TEXT_UTF8, half);
    json_object_set_new(result, key, json_stringn(half.p, half.n));
    json_object_set_new(result, "truncated", json_true());
    return true;
}

/* Its text, at most RESPONSE_MAX. */
static char *to_text(json_t *response, size_t *ret_n)
{
    const char *id = json_string_value(json_object_get(response, "taskId"));
    struct err e;

    for (int i = 0; i < SHORTEN_MAX; i++) {
        AUTO(buf_done) struct buf b;

        buf_init(&b, RESPONSE_MAX);
        if (json_write(response, &b, &e) == 0) {
            *ret_n = b.n;
            return str_dup(buf_str(&b));
        }
        if (!shorten(response))
            break;
    }
    return work_failure(id, "the result is too large to send", ret_n);
}

char *work_failure(const char *id, const char *error, size_t *ret_n)
{
    json_t *response = failure(id, error);
    char *text;

    add_times(response, now_ms());
    text = to_text(response, ret_n);
    json_decref(response);
    return text;
}

static const char *error_text(const struct held *h, const struct task *t, const struct err *e)
{
    if (h->canceled)
        return arena_printf(t->arena, *h->reason ? "canceled: %s" : "canceled", h->reason);
    if (h->runner->stopping && e->code == ERR_CANCELED)
        return "interrupted: the agent was shut down while the task ran";
    return t->error ? t->error : e->msg;
}

static json_t *make_response(const struct held *h, struct doing *d, int r, const struct err *e)
{
    json_t *response;

    if (r == 0)
        return json_pack("{s:s, s:b, s:o}", "taskId", h->id, "success", 1, "result",
                         d->result ? TAKE(d->result) : json_null());
    response = failure(h->id, error_text(h, &d->task, e));
    if (d->result)
        json_object_set_new(response, "result", TAKE(d->result));
    return response;
}

/* --- on disk --- */

struct put {
    const struct spool *spool;
    struct spool_entry entry;
    size_t bytes;
};

static int put_blocking(void *arg, struct err *e)
{
    struct put *p = arg;
    int r = spool_put(p->spool, &p->entry, &p->bytes, e);

    return r == 0 && !p->entry.there ? spool_sync(p->spool, e) : r;
}

static CO int put(struct held *h, enum spool_state state, struct str body, struct err *e)
{
    struct put p = {
        .spool = h->runner->spool,
        .entry = { .id = h->id,
                   .from = h->from,
                   .state = state,
                   .retry = h->retry,
                   .seq = h->seq,
                   .body = body,
                   .there = h->on_disk },
    };
    int r = offload(put_blocking, &p, e);

    if (r == 0)
        held_written(h, p.bytes);
    return r;
}

/* So that an agent that dies knows later that it has begun. */
static CO int mark(struct held *h, struct err *e)
{
    int r;

    if (h->marked)
        return 0;
    r = put(h, SPOOL_RUNNING, STR(""), e);
    h->marked = r == 0;
    return r;
}

/* The response is made: keep it until the hub has it. */
static CO void finish(struct held *h, char *text, size_t n)
{
    struct runner *r = h->runner;
    struct err e;
    int result = 0;

    h->response = text;
    h->response_n = n;
    r->n_running--;
    runner_next(r);
    if (!h->forget)
        result = put(h, SPOOL_DONE, (struct str){ text, n }, &e);
    if (h->forget) {
        held_remove(h);
        return;
    }
    if (result < 0)
        log_error("a result is kept in memory only", "task", LOG_STR(h->id), "error", LOG_ERR(&e));
    else if (n > RESPONSE_KEPT)
        free(TAKE(h->response));
    json_decref(TAKE(h->payload));
    h->state = HELD_DONE;
    held_move(h, &r->outbox);
    fiber_wake(r->deliverer);
}

/* --- the work --- */

static CO int do_it(struct held *h, struct doing *d, struct err *e)
{
    struct runner *r = h->runner;
    int result;

    if (h->canceled)
        return err_set(e, ERR_CANCELED, "canceled");
    result = mark(h, e);
    if (result < 0)
        return err_wrap(e, "the agent cannot keep the task");
    if (h->canceled || r->stopping)
        return err_set(e, ERR_CANCELED, "canceled");
    held_say_state(h);
    h->live = d->task.live = live_new(r->pump, h->id);
    result = fiber_spawn(r->agent->loop, "task's work", inner, d, &h->work, e);
    if (result == 0)
        result = fiber_join(h->work, e);
    h->work = NULL;
    h->live = NULL;
    live_free(d->task.live);
    return result;
}

static CO void work_in(struct held *h, struct arena *a)
{
    struct agent *agent = h->runner->agent;
    struct doing d = {
        .task = { .agent = agent, .id = h->id, .payload = h->payload, .from = h->from, .arena = a },
    };
    uint64_t began_ms = now_ms();
    json_t *response;
    struct err e = { 0 };
    size_t n = 0;
    char *text;
    int r;

    audit_task(agent->audit, "task.received", agent->conf->id, h->from, h->payload, NULL);
    r = do_it(h, &d, &e);
    if (r < 0 && h->runner->stopping && !h->canceled && h->retry) {
        json_decref(d.result);
        held_requeue(h);
        return;
    }
    response = make_response(h, &d, r, &e);
    add_times(response, began_ms);
    audit_task(agent->audit, "task.finished", agent->conf->id, h->from, h->payload, response);
    text = to_text(response, &n);
    json_decref(response);
    finish(h, text, n);
}

static CO int work(void *arg, struct err *e)
{
    struct held *h = arg;
    struct arena a = { 0 };
    struct log_ctx ctx;

    log_push(&ctx, "task", h->id);
    work_in(h, &a);
    log_pop(&ctx);
    arena_done(&a);
    return 0;
}

void work_begin(struct held *h)
{
    struct runner *r = h->runner;
    struct err e;

    if (fiber_group_spawn(r->group, "task", work, h, &e) == 0)
        return;
    h->response = work_failure(h->id, e.msg, &h->response_n);
    r->n_running--;
    h->state = HELD_DONE;
    held_move(h, &r->outbox);
    fiber_wake(r->deliverer);
}
