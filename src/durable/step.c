/* SPDX-License-Identifier: MIT */
/*
 * Steps: run the body unless its record is there, try again where that is asked for, record what
 * came out. A step whose run ended while its body was at work is not recorded when it failed: the
 * failure is the end's, not the step's.
 */
#include "durable/durable_int.h"

#define RETRY_FIRST_MS   1000
#define RETRY_LONGEST_MS (3600 * 1000)
#define RETRY_FACTOR     2.0

/* Codes of DBOS that a failed step is recorded with, beside the error's own name. */
static struct str code_text(enum durable_code code)
{
    switch (code) {
    case DURABLE_E_RETRIES:
        return STR("23");
    case DURABLE_E_STEP_TIMEOUT:
        return STR("31");
    default:
        return (struct str){ 0 };
    }
}

/* One try, with a time of its own: the body runs in a fiber that can be cancelled */

struct try_call {
    durable_step_fn *body;
    void *arg;
    struct buf *out;
    struct err *e;
    struct fiber *waiter;
    int r;
    bool done;
};

static CO int try_main(void *arg, struct err *e)
{
    struct try_call *call = arg;

    call->r = call->body(call->arg, call->out, call->e);
    call->done = true;
    fiber_wake(call->waiter);
    return 0;
}

static CO int try_timed(struct workflow *w, struct try_call *call, uint64_t timeout_ms,
                        enum durable_code *ret_code, struct err *e)
{
    uint64_t deadline = deadline_in((long long)timeout_ms);
    struct fiber *f;
    bool late = false;
    int r;

    call->waiter = fiber_self();
    r = fiber_spawn(w->d->loop, "durable step", try_main, call, &f, e);
    if (r < 0)
        return r;
    while (!call->done && r == 0) {
        r = fiber_park(deadline, NULL);
        late = r == -ERR_TIMEOUT;
    }
    if (!call->done)
        fiber_cancel(f);
    (void)fiber_join(f, NULL); /* what it returned is in call */
    if (call->r >= 0 || !late)
        return call->r;
    *ret_code = DURABLE_E_STEP_TIMEOUT;
    return err_set(e, ERR_TIMEOUT, "a try took longer than %llu ms",
                   (unsigned long long)timeout_ms);
}

/* A step under way. */
struct step {
    struct workflow *w;
    const char *name;
    unsigned id;
    const struct durable_retry *retry;
    durable_step_fn *body;
    void *arg;
    struct buf *out;
    enum durable_code code;
    int64_t started_ms;
};

static CO int try_once(struct step *step, struct err *e)
{
    uint64_t timeout_ms = step->retry ? step->retry->timeout_ms : 0;
    struct try_call call = { .body = step->body, .arg = step->arg, .out = step->out, .e = e };
    int r;

    *e = (struct err){ 0 };
    buf_clear(step->out);
    step->code = 0;
    step->w->in_step = true;
    if (timeout_ms)
        r = try_timed(step->w, &call, timeout_ms, &step->code, e);
    else
        r = step->body(step->arg, step->out, e);
    step->w->in_step = false;
    return r;
}

/* What the body left must be one value; nothing is null. */
static int check_output(struct step *step, struct err *e)
{
    int r;

    if (step->out->n == 0)
        return buf_add_z(step->out, "null", e);
    if (step->out->n > step->w->d->conf.payload_max)
        return err_set(e, ERR_LIMIT, "the result is longer than %zu bytes",
                       step->w->d->conf.payload_max);
    r = wire_check(buf_str(step->out), e);
    return r < 0 ? err_wrap(e, "result of step '%s'", step->name) : 0;
}

static bool again(const struct step *step, const struct err *e)
{
    return step->retry->again ? step->retry->again(e, step->arg) : e->code != ERR_INVALID;
}

/* How long to wait before try number `next` (2 is the first that waits). */
static uint64_t wait_before(const struct durable_retry *retry, unsigned next)
{
    double ms = (double)(retry->first_ms ? retry->first_ms : RETRY_FIRST_MS);
    double cap = (double)(retry->longest_ms ? retry->longest_ms : RETRY_LONGEST_MS);
    double factor = retry->factor > 0 ? retry->factor : RETRY_FACTOR;
    double jitter = retry->jitter < 0 ? 0 : retry->jitter > 1 ? 1 : retry->jitter;

    for (unsigned i = 2; i < next && ms < cap; i++)
        ms *= factor;
    if (ms > cap)
        ms = cap;
    return (uint64_t)(ms * (1 - jitter * rand_unit()));
}

static CO int run_body(struct step *step, struct err *e)
{
    unsigned tries = step->retry && step->retry->tries ? step->retry->tries : 1;
    struct workflow *w = step->w;
    int r;

    for (unsigned i = 1;; i++) {
        r = try_once(step, e);
        if (r >= 0)
            r = check_output(step, e);
        if (r >= 0 || w->end != RUN_GOES)
            return r;
        e->code = e->code ? e->code : (enum err_code)(-r); /* a body that said nothing */
        if (i == tries || !again(step, e))
            break;
        if (fiber_sleep(wait_before(step->retry, i + 1), NULL) < 0)
            return w->end != RUN_GOES ? run_ended(w, e) : -(int)e->code;
    }
    if (tries > 1 && !step->code)
        step->code = DURABLE_E_RETRIES;
    return r;
}

/* The record */

static CO int record_output(struct step *step, struct err *e)
{
    struct record record = {
        .id = step->id,
        .name = step->name,
        .output = buf_str(step->out),
        .started_ms = step->started_ms,
        .completed_ms = wall_ms(),
    };

    return run_record(step->w, &record, e);
}

static CO int record_error(struct step *step, const struct err *why, struct err *e)
{
    struct wire_error error = run_error_of(step->w, why);
    struct record record = { .id = step->id, .name = step->name, .started_ms = step->started_ms };
    AUTO(buf_done) struct buf text;
    int r;

    if (!error.code.p)
        error.code = code_text(step->code);
    run_thrown(step->w, &error, why); /* as a replay will know it */
    error = *step->w->thrown;         /* what it pointed to is gone */
    buf_init(&text, step->w->d->conf.payload_max + MIB);
    r = wire_write_error(WIRE_PORTABLE, step->w->thrown, &text, e);
    if (r < 0)
        return run_unrecorded(step->w, e);
    record.error = buf_str(&text);
    record.completed_ms = wall_ms();
    return run_record(step->w, &record, e);
}

static CO int do_step(struct step *step, struct err *e)
{
    struct workflow *w = step->w;
    uint64_t since = now_us();
    struct err why = { 0 };
    int r, wrote;

    step->started_ms = wall_ms();
    r = run_body(step, &why);
    if (r < 0 && w->end != RUN_GOES)
        return run_ended(w, e);
    wrote = r < 0 ? record_error(step, &why, e) : record_output(step, e);
    if (wrote < 0)
        return wrote;
    metric_add(&durable_m_steps, 0, 1);
    metric_observe(&durable_m_step_seconds, 0, (int64_t)(now_us() - since));
    if (r < 0 && e)
        *e = why;
    return r < 0 ? -(int)why.code : 0;
}

CO int durable_step(struct workflow *w, const char *name, const struct durable_retry *retry,
                    CO durable_step_fn *body, void *arg, struct buf *out, struct err *e)
{
    struct step step = { .w = w, .name = name, .retry = retry, .body = body, .arg = arg };
    AUTO(buf_done) struct buf own;
    struct recorded rec;
    int r;

    buf_init(&own, w->d->conf.payload_max);
    r = run_recorded(w, name, &step.id, &rec, e);
    if (r < 0)
        return r;
    if (r > 0)
        return run_replay(w, &rec, out, e);
    step.out = out ? out : &own;
    return do_step(&step, e);
}
