/* SPDX-License-Identifier: MIT */
/*
 * One execution of a workflow, from its claim to its finish: a fiber that calls the function, the
 * journal it replays from, and how it ends. What is in memory here decides nothing: a call is done
 * when its row is in the database, and the run is over when somebody's write has said so there.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/log.h"
#include "durable/durable_int.h"

#define RETRY_MS   50 /* first wait for a database that is away, doubled up to */
#define RETRY_LONG 2000

/* Who runs */

static struct workflow **bucket(struct durable *d, struct str id)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < id.n; i++)
        h = (h ^ (unsigned char)id.p[i]) * 1099511628211u;
    return &d->by_id[(h ^ (h >> 32)) & (d->n_buckets - 1)];
}

struct workflow *run_find(struct durable *d, struct str id)
{
    struct workflow *w = *bucket(d, id);

    while (w && !str_eq_z(id, w->id))
        w = w->next_id;
    return w;
}

unsigned run_room(const struct durable *d)
{
    unsigned taken = d->n_live + d->n_starting;

    if (!d->running || d->stopping || taken >= d->conf.running || !lease_held(d))
        return 0;
    return d->conf.running - taken;
}

static void link_run(struct durable *d, struct workflow *w)
{
    struct workflow **at = bucket(d, str_of(w->id));

    w->next_id = *at;
    *at = w;
    w->next = d->live;
    w->link = &d->live;
    if (w->next)
        w->next->link = &w->next;
    d->live = w;
    d->n_live++;
    metric_set(&durable_m_running, 0, d->n_live);
}

static void unlink_run(struct durable *d, struct workflow *w)
{
    struct workflow **at = bucket(d, str_of(w->id));

    while (*at != w)
        at = &(*at)->next_id;
    *at = w->next_id;
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    d->n_live--;
    metric_set(&durable_m_running, 0, d->n_live);
    if (d->drain)
        fiber_wake(d->drain);
}

static void run_free(struct workflow *w)
{
    buf_done(&w->result);
    free((char *)(uintptr_t)w->inputs.p);
    arena_done(&w->page_arena);
    arena_done(&w->thrown_arena);
    arena_done(&w->arena);
    free(w);
}

/* The end */

void run_end_now(struct workflow *w, enum run_end why)
{
    if (w->end != RUN_GOES)
        return;
    w->end = why;
    if (w->fiber)
        fiber_cancel(w->fiber);
}

int run_ended(const struct workflow *w, struct err *e)
{
    static const char *const why[] = {
        [RUN_GOES] = "it goes on",
        [RUN_PARKED] = "it waits for long and gives its stack up",
        [RUN_CANCELLED] = "it was cancelled",
        [RUN_LOST] = "it belongs to another execution now",
        [RUN_DIVERGED] = "it diverged from its journal",
        [RUN_STOPPING] = "the engine stops",
    };

    if (w->end == RUN_PARKED)
        return err_set(e, ERR_PARKED, "workflow '%s': %s", w->id, why[w->end]);
    if (w->end == RUN_DIVERGED)
        return err_set(e, ERR_CANCELED, "%s", w->ended);
    return err_set(e, ERR_CANCELED, "workflow '%s': %s", w->id, why[w->end]);
}

int run_wrote(struct workflow *w, int journal_outcome, struct err *e)
{
    if (journal_outcome == JOURNAL_OK)
        return 0;
    /* Even when the row is still ours: what is recorded there must be read, not guessed. */
    if (w->end == RUN_GOES) {
        log_info("an execution of a workflow ends: it is not its owner, or its step is recorded",
                 "workflow", LOG_STR(w->id), "taken", LOG_BOOL(journal_outcome == JOURNAL_TAKEN));
        metric_add(&durable_m_lost, 0, 1);
    }
    run_end_now(w, RUN_LOST);
    return run_ended(w, e);
}

int run_unrecorded(struct workflow *w, struct err *e)
{
    log_error("the outcome of a step is not written", "workflow", LOG_STR(w->id), "error",
              LOG_ERR(e));
    run_end_now(w, RUN_LOST);
    return run_ended(w, e);
}

CO int run_record(struct workflow *w, const struct record *record, struct err *e)
{
    int r = journal_step(w, record, e);

    if (r < 0)
        return w->end != RUN_GOES ? run_ended(w, e) : run_unrecorded(w, e);
    return run_wrote(w, r, e);
}

CO int run_retry(struct workflow *w, uint64_t *wait_ms, struct err *e)
{
    int r;

    if (w->end != RUN_GOES)
        return run_ended(w, e);
    *wait_ms = *wait_ms == 0 ? RETRY_MS : *wait_ms * 2 > RETRY_LONG ? RETRY_LONG : *wait_ms * 2;
    r = fiber_sleep(*wait_ms, e);
    return r < 0 && w->end != RUN_GOES ? run_ended(w, e) : r;
}

CO int run_store(struct workflow *w, store_body *body, void *arg, struct err *e)
{
    uint64_t wait_ms = 0;
    int r;

    for (;;) {
        if (w->end != RUN_GOES)
            return run_ended(w, e);
        r = store_do(w->d->store, body, arg, e);
        if (r != -ERR_UNAVAILABLE)
            return r;
        r = run_retry(w, &wait_ms, e);
        if (r < 0)
            return r;
    }
}

/* How it ends */

static CO int finish_error(struct workflow *w, const struct wire_error *error, struct err *e)
{
    AUTO(buf_done) struct buf text;
    int r;

    buf_init(&text, w->d->conf.payload_max + MIB); /* names and quotes of what is bounded already */
    r = wire_write_error(w->format, error, &text, e);
    if (r < 0)
        return r;
    return journal_finish(w, DURABLE_ERROR, (struct str){ 0 }, buf_str(&text), e);
}

static CO int finish_failed(struct workflow *w, const struct err *why, struct err *e)
{
    struct wire_error error = run_error_of(w, why);
    int r = finish_error(w, &error, e);

    if (r != -ERR_INVALID && r != -ERR_LIMIT)
        return r;
    error = (struct wire_error){ .name = STR("internal"),
                                 .message = STR("failed with an error that cannot be stored") };
    return finish_error(w, &error, e);
}

static CO int finish_diverged(struct workflow *w, struct err *e)
{
    struct wire_error error = { .name = STR("diverged"), .message = str_of(w->ended) };
    char code[16];

    fmt_z(code, sizeof(code), "%d", DURABLE_E_DIVERGED);
    error.code = str_of(code);
    return finish_error(w, &error, e);
}

static CO int finish_success(struct workflow *w, struct err *e)
{
    AUTO(buf_done) struct buf text;
    struct str result = w->has_result ? buf_str(&w->result) : STR("null");
    int r;

    buf_init(&text, w->d->conf.payload_max + MIB);
    r = wire_write_value(w->format, result, &text, e);
    if (r == 0)
        r = journal_finish(w, DURABLE_SUCCESS, buf_str(&text), (struct str){ 0 }, e);
    if (r == -ERR_INVALID || r == -ERR_LIMIT)
        r = finish_failed(w, &(struct err){ .code = -r, .msg = "the result cannot be stored" }, e);
    return r;
}

static CO void finish(struct workflow *w, int r, const struct err *why)
{
    enum run_end end = w->end;
    struct err e = { 0 };
    int f = 0;

    if (end == RUN_DIVERGED)
        f = finish_diverged(w, &e);
    else if (end == RUN_STOPPING)
        f = release_run(w, &e);
    else if (end != RUN_GOES)
        return;
    else if (r < 0)
        f = finish_failed(w, why, &e);
    else
        f = finish_success(w, &e);

    if (f < 0)
        log_error("workflow's end is not written", "workflow", LOG_STR(w->id), "error",
                  LOG_ERR(&e));
    else if (f == JOURNAL_LOST)
        metric_add(&durable_m_lost, 0, 1);
    else if (end != RUN_STOPPING)
        notify_others(w->d, NOTIFY_RESULTS, str_of(w->id));
}

/* The run */

static int read_inputs(struct workflow *w, struct err *e)
{
    int r;

    if (!w->has_inputs)
        return err_set(e, ERR_INVALID, "the row has no input");
    r = wire_read_args(w->format, w->inputs, &w->arena, &w->args, &w->named, e);
    free((char *)(uintptr_t)w->inputs.p); /* may be large, and the run may be long */
    w->inputs = (struct str){ 0 };
    return r < 0 ? err_wrap(e, "input of the workflow") : 0;
}

static CO int call(struct workflow *w, struct err *e)
{
    int r = read_inputs(w, e);

    if (w->format == WIRE_UNKNOWN)
        w->format = WIRE_PORTABLE; /* to say so in */
    return r < 0 ? r : w->type->fn(w, w->type->ctx, e);
}

static CO int run_main(void *arg, struct err *e)
{
    struct workflow *w = arg;
    struct durable *d = w->d;
    struct err why = { 0 };
    int r = 0;

    w->fiber = fiber_self();
    if (w->end == RUN_GOES)
        r = call(w, &why);
    finish(w, r, &why);
    w->fiber = NULL;
    unlink_run(d, w);
    wake_waiters(d, WAIT_RESULT, str_of(w->id), (struct str){ 0 }); /* however it ended */
    queue_left(d, w->queue, w->partition);
    run_free(w);
    return 0;
}

static char *text_of(struct workflow *w, struct str s)
{
    return s.p ? arena_strndup(&w->arena, s.p, s.n) : NULL;
}

static void set_deadline(struct workflow *w, int64_t deadline_ms)
{
    int64_t left = deadline_ms - wall_ms();

    w->deadline_ms = deadline_ms;
    w->deadline_mono = DEADLINE_NONE;
    if (deadline_ms > 0)
        w->deadline_mono = now_ms() + (left > 0 ? (uint64_t)left : 0);
}

static struct workflow *run_make(struct durable *d, const struct durable_type *type,
                                 const struct claimed *c)
{
    struct workflow *w = xcalloc(1, sizeof(*w));

    w->d = d;
    w->type = type;
    fmt_z(w->id, sizeof(w->id), STR_FMT, STR_ARG(c->id));
    fmt_z(w->token, sizeof(w->token), STR_FMT, STR_ARG(c->token));
    w->queue = text_of(w, c->queue);
    w->partition = text_of(w, c->partition);
    w->hold_slot = w->queue && queue_holds_slot(d, c->queue);
    w->format = wire_format_of(c->serialization);
    w->has_inputs = c->has_inputs;
    if (c->has_inputs)
        w->inputs = (struct str){ str_dup(c->inputs), c->inputs.n };
    w->attempt = (unsigned)c->attempts;
    w->timeout_ms = c->timeout_ms;
    w->created_ms = c->created_ms;
    w->fresh = !c->has_journal;
    w->more = c->has_journal;
    set_deadline(w, c->deadline_ms);
    buf_init(&w->result, d->conf.payload_max);
    return w;
}

int run_begin(struct durable *d, const struct claimed *c, struct err *e)
{
    const struct durable_type *type = type_find(d, c->name, c->class_name);
    struct workflow *w;
    int r;

    if (!type)
        return err_set(e, ERR_NOT_FOUND, "no workflow '" STR_FMT "' is registered",
                       STR_ARG(c->name));
    if (c->id.n == 0 || c->id.n >= DURABLE_ID || c->token.n >= TOKEN_TEXT)
        return err_set(e, ERR_LIMIT, "the id or token of a workflow is too long");
    w = run_find(d, c->id);
    if (w) /* it has parked and still unwinds, or has not noticed that it is not the owner */
        run_end_now(w, RUN_LOST);
    w = run_make(d, type, c);
    r = fiber_group_spawn(d->runs, "workflow", run_main, w, e);
    if (r < 0) {
        run_free(w);
        return r;
    }
    link_run(d, w);
    metric_add(&durable_m_runs, 0, 1);
    queue_joined(d, w->queue, w->partition);
    return 0;
}
