/* SPDX-License-Identifier: MIT */
/*
 * Steps whose writes and whose record are one transaction: the lock on the workflow's row, the
 * body, the record, one commit. A failed body leaves no writes; its error is recorded after it.
 */
#include "durable/durable_int.h"

/* clang-format off */
static const struct sql sql_mine = {
    "durable tx record",
    "SELECT output FROM dbos.operation_outputs WHERE workflow_uuid = ?1 AND function_id = ?2",
    NULL,
};
static const struct sql sql_alive = { "durable tx alive", "SELECT 1", NULL };
/* clang-format on */

struct tx_step {
    struct workflow *w;
    struct record record;
    durable_tx_fn *body;
    void *arg;
    struct buf *out;
    unsigned runs;
    bool failed, found;
    struct err why; /* of failed: what the body said */
};

static int take_mine(struct store_row *row, void *arg, struct err *e)
{
    struct tx_step *step = arg;

    step->found = true;
    buf_clear(step->out);
    return buf_add_str(step->out, row_str(row, 0), e);
}

/* The commit before may have been done and only its answer lost; while we own the row, nobody else
 * can have written this record. */
static int look_back(struct store_tx *tx, struct tx_step *step, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(step->w->id), SQL_INT(step->record.id) };

    step->found = false;
    return store_run(tx, &sql_mine, args, LEN(args), take_mine, step, e);
}

static int check_output(struct tx_step *step, struct err *e)
{
    if (step->out->n == 0)
        return buf_add_z(step->out, "null", e);
    if (step->out->n > step->w->d->conf.payload_max)
        return err_set(e, ERR_LIMIT, "the result is longer than %zu bytes",
                       step->w->d->conf.payload_max);
    return wire_check(buf_str(step->out), e);
}

/* Less than 0: undo. Then step->failed tells the body's own failure from the database's. */
static int run_tx_body(struct store_tx *tx, struct tx_step *step, struct err *e)
{
    int r;

    step->why = (struct err){ 0 };
    buf_clear(step->out);
    r = step->body(tx, step->arg, step->out, &step->why);
    if (r >= 0)
        r = check_output(step, &step->why);
    if (r >= 0)
        return 0;
    if (!step->why.code)
        step->why.code = (enum err_code)(-r);
    if (r == -ERR_UNAVAILABLE && store_exec(tx, &sql_alive, e) < 0)
        return r;
    step->failed = true;
    return err_set(e, ERR_CONFLICT, "the step failed");
}

static int tx_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct tx_step *step = arg;
    const struct workflow *w = step->w;
    int r;

    step->failed = false;
    r = own_lock_tx(tx, str_of(w->id), str_of(w->token), e);
    if (r != JOURNAL_OK)
        return r;
    if (step->runs++ > 0) {
        r = look_back(tx, step, e);
        if (r < 0 || step->found)
            return r;
    }
    r = run_tx_body(tx, step, e);
    if (r < 0)
        return r;
    step->record.output = buf_str(step->out);
    step->record.completed_ms = wall_ms();
    return record_tx(tx, str_of(w->id), &step->record, w->d->conf.app_name, e);
}

static CO int record_failure(struct tx_step *step, struct err *e)
{
    struct wire_error error = run_error_of(step->w, &step->why);
    AUTO(buf_done) struct buf text;
    int r;

    run_thrown(step->w, &error, &step->why);
    buf_init(&text, step->w->d->conf.payload_max + MIB);
    r = wire_write_error(WIRE_PORTABLE, step->w->thrown, &text, e);
    if (r < 0)
        return run_unrecorded(step->w, e);
    step->record.output = (struct str){ 0 };
    step->record.error = buf_str(&text);
    step->record.completed_ms = wall_ms();
    r = run_record(step->w, &step->record, e);
    if (r < 0)
        return r;
    *e = step->why;
    return -(int)step->why.code;
}

static CO int do_tx(struct tx_step *step, struct err *e)
{
    struct workflow *w = step->w;
    uint64_t since = now_us();
    int r;

    step->record.started_ms = wall_ms();
    r = run_store(w, tx_body, step, e);
    if (r < 0 && w->end != RUN_GOES)
        return run_ended(w, e);
    if (r < 0)
        r = step->failed ? record_failure(step, e) : run_unrecorded(w, e);
    else
        r = run_wrote(w, r, e);
    metric_add(&durable_m_steps, 0, 1);
    metric_observe(&durable_m_step_seconds, 0, (int64_t)(now_us() - since));
    return r;
}

CO int durable_step_tx(struct workflow *w, const char *name, durable_tx_fn *body, void *arg,
                       struct buf *out, struct err *e)
{
    struct tx_step step = { .w = w, .record.name = name, .body = body, .arg = arg };
    AUTO(buf_done) struct buf own;
    struct recorded rec;
    int r;

    buf_init(&own, w->d->conf.payload_max);
    r = run_recorded(w, name, &step.record.id, &rec, e);
    if (r < 0)
        return r;
    if (r > 0)
        return run_replay(w, &rec, out, e);
    step.out = out ? out : &own;
    return do_tx(&step, e);
}
