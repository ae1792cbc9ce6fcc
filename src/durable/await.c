/* SPDX-License-Identifier: MIT */
/*
 * durable/await.c — waiting for the end of a workflow, as somebody outside and as a workflow.
 */
#include <string.h>

#include "durable/wait_int.h"

/* clang-format off */
static const struct sql sql_outcome = {
    "durable outcome",
    "SELECT s.status, s.serialization, COALESCE(o.output, s.output), COALESCE(o.error, s.error)"
    " FROM dbos.workflow_status s LEFT JOIN dbos.workflow_output o"
    " ON o.workflow_uuid = s.workflow_uuid WHERE s.workflow_uuid = ?1", NULL,
};
/* clang-format on */

struct outcome {
    struct str id;
    bool known;
    enum durable_status status;
    struct value value; /* output or error, as it is stored; not found: NULL */
};

struct awaiting {
    struct wait wait;
    struct outcome it;
    bool looking; /* the store's thread has `it` */
    bool told;    /* by the run itself; nothing is to be looked at */
};

static void outcome_init(struct outcome *it, struct str id)
{
    *it = (struct outcome){ .id = id };
    buf_init(&it->value.text, SIZE_MAX / 2);
}

static void outcome_done_auto(struct outcome *it)
{
    buf_done(&it->value.text);
}

static int outcome_row(struct store_row *row, void *arg, struct err *e)
{
    struct outcome *it = arg;
    int col, r = durable_status_parse(row_str(row, 0), &it->status, e);

    if (r < 0)
        return r;
    it->known = true;
    if (it->status != DURABLE_SUCCESS && it->status != DURABLE_ERROR)
        return 0;
    it->value.format = wire_format_of(row_str(row, 1));
    col = it->status == DURABLE_SUCCESS ? 2 : 3;
    return row_is_null(row, col) ? 0
                                 : value_take(&it->value, row_str(row, col), row_str(row, 1), e);
}

static int outcome_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct outcome *it = arg;
    const struct sql_arg args[] = { SQL_STR(it->id) };

    it->known = it->value.found = false;
    return store_run(tx, &sql_outcome, args, LEN(args), outcome_row, it, e);
}

static bool outcome_over(const struct outcome *it)
{
    return !it->known || !durable_status_active(it->status);
}

static int unknown(struct str id, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "there is no workflow '" STR_FMT "'", STR_ARG(id));
}

/* The error of a workflow that failed; its strings belong to the arena. */
static int outcome_error(const struct outcome *it, struct arena *a, struct wire_error *ret,
                         struct err *e)
{
    if (it->value.found)
        return wire_read_error(it->value.format, buf_str(&it->value.text), a, ret, e);
    *ret = (struct wire_error){ .name = STR("Error"), .message = STR("it failed") };
    return 0;
}

/* What is told of an outcome as plain JSON. */
static int outcome_write(const struct outcome *it, struct buf *out, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct wire_error error;
    int r;

    if (it->status == DURABLE_ERROR) {
        r = outcome_error(it, &a, &error, e);
        return r < 0 ? r : wire_write_error(WIRE_PORTABLE, &error, out, e);
    }
    if (it->status != DURABLE_SUCCESS)
        return 0;
    if (!it->value.found)
        return buf_add_z(out, "null", e);
    return wire_read_value(it->value.format, buf_str(&it->value.text), out, e);
}

int check_id(struct str id, struct err *e)
{
    if (id.n == 0)
        return err_set(e, ERR_INVALID, "the id of the workflow is empty");
    return check_key(id, "the id of the workflow", e);
}

static void await_done_auto(struct awaiting *a)
{
    wait_done(&a->wait);
    buf_done(&a->it.value.text);
}

static void on_ended(struct wait *wait, const struct run_outcome *outcome)
{
    struct awaiting *a = container_of(wait, struct awaiting, wait);
    struct str text = outcome->status == DURABLE_SUCCESS ? outcome->output : outcome->error;
    struct value *value = &a->it.value;

    if (a->looking) /* and then again, because it is woken */
        return;
    a->it.status = outcome->status;
    a->it.known = true;
    value->format = outcome->format;
    value->found = text.p != NULL;
    buf_clear(&value->text);
    a->told = !text.p || buf_add_str(&value->text, text, NULL) == 0;
}

static CO int look(struct durable *d, struct awaiting *a, struct err *e)
{
    int r;

    a->looking = true;
    r = store_read(d->store, outcome_body, &a->it, e);
    a->looking = false;
    return r;
}

/* Until it has ended, or is unknown. What runs here tells of its end, so it is not looked at. */
static CO int await_end(struct durable *d, struct awaiting *a, struct err *e)
{
    const struct workflow *w = run_find(d, a->it.id);
    int r = 0;

    if (w && w->end == RUN_GOES && now_ms() < a->wait.deadline)
        r = wait_round(d, NULL, &a->wait, e);
    while (r == 0 && !a->told) {
        r = look(d, a, e);
        if (r < 0 || outcome_over(&a->it))
            break;
        r = wait_round(d, NULL, &a->wait, e);
    }
    return a->told ? 0 : r;
}

CO int durable_await(struct durable *d, struct str id, uint64_t deadline_ms,
                     enum durable_status *ret, struct buf *out, struct err *e)
{
    AUTO(await_done)
    struct awaiting a = {
        .wait = { .kind = WAIT_RESULT, .workflow = id, .deadline = deadline_ms, .ended = on_ended }
    };
    int r;

    outcome_init(&a.it, id);
    r = check_id(id, e);
    if (r < 0)
        return r;
    wait_begin(d, &a.wait);
    r = await_end(d, &a, e);
    if (r == WAIT_TIMEOUT)
        return err_set(e, ERR_TIMEOUT, "'" STR_FMT "' has not ended yet", STR_ARG(id));
    if (r < 0)
        return r;
    if (!a.it.known)
        return unknown(id, e);
    r = out ? outcome_write(&a.it, out, e) : 0;
    if (r == 0)
        *ret = a.it.status;
    return r;
}

/* --- inside a workflow --- */

/* What a wait came to, as the error that is recorded; its strings belong to the arena. */
static int result_error(const struct outcome *it, bool timeout, struct arena *a,
                        struct wire_error *ret, struct err *e)
{
    struct err none;

    *ret = (struct wire_error){ 0 };
    if (timeout) {
        ret->name = str_of(err_name(ERR_TIMEOUT));
        ret->message = str_of(arena_printf(a, "'" STR_FMT "' has not ended yet", STR_ARG(it->id)));
    } else if (!it->known) {
        (void)unknown(it->id, &none); /* for its text */
        ret->name = str_of(err_name(ERR_NOT_FOUND));
        ret->message = str_of(arena_strdup(a, none.msg));
        ret->code = STR("16");
    } else if (it->status == DURABLE_CANCELLED) {
        ret->name = STR("DBOSAwaitedWorkflowCancelledError");
        ret->message = str_of(arena_printf(a, "'" STR_FMT "' was cancelled", STR_ARG(it->id)));
        ret->code = STR("27");
    } else if (it->status == DURABLE_DEAD) {
        ret->name = STR("DBOSAwaitedWorkflowExceededMaxRecoveryAttempts");
        ret->message =
            str_of(arena_printf(a, "'" STR_FMT "' was started too often", STR_ARG(it->id)));
        ret->code = STR("30");
    } else {
        return outcome_error(it, a, ret, e);
    }
    return 0;
}

/* Record the result, in plain JSON, and give it as replays will. */
CO static int result_record(struct workflow *w, struct record *record, const struct outcome *it,
                            bool timeout, struct buf *out, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    AUTO(buf_done) struct buf text = { 0 };
    struct recorded rec = { .id = record->id, .name = str_of(record->name) };
    struct wire_error error;
    int r;

    buf_init(&text, w->d->conf.payload_max);
    if (!timeout && it->known && it->status == DURABLE_SUCCESS) {
        r = outcome_write(it, &text, e);
    } else {
        rec.has_error = true;
        r = result_error(it, timeout, &a, &error, e);
        if (r == 0)
            r = wire_write_error(WIRE_PORTABLE, &error, &text, e);
    }
    if (r < 0)
        return err_wrap(e, "the result of '" STR_FMT "'", STR_ARG(it->id));
    rec.has_output = !rec.has_error;
    *(rec.has_error ? &rec.error : &rec.output) = buf_str(&text);
    record->output = rec.output;
    record->error = rec.error;
    record->completed_ms = wall_ms();
    r = journal_step(w, record, e);
    if (r >= 0)
        r = run_wrote(w, r, e);
    return r < 0 ? r : run_replay(w, &rec, out, e);
}

CO static int result_wait(struct workflow *w, struct outcome *it, struct wait *wait, struct err *e)
{
    int r = 0;

    while (r == 0) {
        r = read_patiently(w, outcome_body, it, e);
        if (r < 0 || outcome_over(it))
            return r;
        if (wait->deadline != DEADLINE_NONE)
            r = marker_keep(w, wait, e);
        if (r == 0)
            r = wait_round(w->d, w, wait, e);
    }
    return r;
}

CO int durable_result(struct workflow *w, struct str id, uint64_t timeout_ms, struct buf *out,
                      struct err *e)
{
    AUTO(wait_done)
    struct wait wait = { .kind = WAIT_RESULT, .workflow = id, .deadline = DEADLINE_NONE };
    struct record record = { .name = "DBOS.getResult",
                             .format = WIRE_PORTABLE,
                             .started_ms = wall_ms() };
    AUTO(outcome_done) struct outcome it;
    struct recorded rec;
    int r;

    outcome_init(&it, id);
    r = run_recorded(w, record.name, &record.id, &rec, e);
    if (r == 1) {
        w->next_function += timeout_ms ? 1 : 0; /* of the timeout's record */
        return run_replay(w, &rec, out, e);
    }
    if (r == 0)
        r = check_id(id, e);
    if (r == 0 && timeout_ms)
        r = marker_take(w, timeout_ms, &wait, e);
    if (r < 0)
        return r;
    wait_begin(w->d, &wait);
    r = result_wait(w, &it, &wait, e);
    return r < 0 ? r : result_record(w, &record, &it, r == WAIT_TIMEOUT, out, e);
}
