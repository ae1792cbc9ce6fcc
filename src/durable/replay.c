/* SPDX-License-Identifier: MIT */
/*
 * The journal of a run as it is read: in pages, looked up by function id (ids have gaps: a call may
 * take one and record nothing). A run that began without records never asks.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "durable/durable_int.h"

#define PAGE_BYTES (4 * MIB) /* of one page of the journal; a single record may be larger */

/* clang-format off */
static const struct sql sql_page = {
    "durable journal",
    "SELECT function_id, function_name, output, error, child_workflow_id, serialization,"
    " started_at_epoch_ms, completed_at_epoch_ms FROM dbos.operation_outputs"
    " WHERE workflow_uuid = ?1 AND function_id >= ?2 ORDER BY function_id LIMIT ?3",
    NULL,
};
/* clang-format on */

/* The journal, read ahead */

struct page_call {
    struct workflow *w;
    struct arena *arena;
    struct recorded *rows;
    unsigned n, from;
    size_t bytes;
};

static int take_record(struct store_row *row, void *arg, struct err *e)
{
    struct page_call *call = arg;
    struct recorded *rec = &call->rows[call->n];

    *rec = (struct recorded){
        .id = (unsigned)row_int(row, 0),
        .name = arena_str(call->arena, row_str(row, 1)),
        .output = arena_str(call->arena, row_str(row, 2)),
        .error = arena_str(call->arena, row_str(row, 3)),
        .child = row_is_null(row, 4) ? (struct str){ 0 } : arena_str(call->arena, row_str(row, 4)),
        .has_output = !row_is_null(row, 2),
        .has_error = !row_is_null(row, 3),
        .format = wire_format_of(row_str(row, 5)),
        .started_ms = row_int(row, 6),
        .completed_ms = row_int(row, 7),
    };
    call->n++;
    call->bytes += rec->output.n + rec->error.n;
    return call->bytes >= PAGE_BYTES; /* the rest with the next page */
}

static int page_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct page_call *call = arg;
    const struct sql_arg args[] = { SQL_Z(call->w->id), SQL_INT(call->from), SQL_INT(RUN_PAGE) };
    int r;

    arena_reset(call->arena);
    call->n = 0;
    call->bytes = 0;
    call->rows = arena_alloc(call->arena, RUN_PAGE * sizeof(*call->rows));
    r = store_run(tx, &sql_page, args, LEN(args), take_record, call, e);
    return r < 0 ? r : 0;
}

static CO int read_page(struct workflow *w, unsigned from, struct err *e)
{
    struct page_call call = { .w = w, .arena = &w->page_arena, .from = from };
    uint64_t wait_ms = 0;
    int r;

    w->n_page = w->page_at = 0;
    while ((r = store_read(w->d->store, page_body, &call, e)) == -ERR_UNAVAILABLE) {
        r = run_retry(w, &wait_ms, e);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return w->end != RUN_GOES ? run_ended(w, e) : err_wrap(e, "read the journal");
    w->page = call.rows;
    w->n_page = call.n;
    w->more = call.n == RUN_PAGE || call.bytes >= PAGE_BYTES;
    w->fresh = call.n == 0;
    return 0;
}

/* The first record with an id of at least `id`; NULL: there is none. */
static CO int run_seek(struct workflow *w, unsigned id, const struct recorded **ret, struct err *e)
{
    int r;

    *ret = NULL;
    while (!w->fresh) {
        while (w->page_at < w->n_page && w->page[w->page_at].id < id)
            w->page_at++;
        if (w->page_at < w->n_page) {
            *ret = &w->page[w->page_at];
            return 0;
        }
        if (!w->more) {
            w->fresh = true;
            break;
        }
        r = read_page(w, id, e);
        if (r < 0)
            return r;
    }
    return 0;
}

CO int run_peek(struct workflow *w, struct recorded *ret, struct err *e)
{
    const struct recorded *at;
    int r;

    if (w->end != RUN_GOES)
        return run_ended(w, e);
    r = run_seek(w, w->next_function, &at, e);
    if (r < 0)
        return r;
    if (!at)
        return 0;
    *ret = *at;
    return at->id == w->next_function ? 1 : RUN_BEYOND;
}

static int diverge(struct workflow *w, unsigned id, const char *met, struct str recorded,
                   struct err *e)
{
    AUTO(free)
    char *text = xasprintf("workflow '%.80s' took another way: step %u is '%.60s', and '%.*s' is"
                           " recorded there",
                           w->id, id, met, (int)(recorded.n < 60 ? recorded.n : 60), recorded.p);

    (void)snprintf(w->ended, sizeof(w->ended), "%s", text); /* shortened is fine */
    log_error("workflow diverged from its journal", "workflow", LOG_STR(w->id), "id",
              LOG_INT((long long)id), "step", LOG_STR(met), "recorded", LOG_SLICE(recorded));
    metric_add(&durable_m_diverged, 0, 1);
    run_end_now(w, RUN_DIVERGED);
    return run_ended(w, e);
}

CO int run_recorded(struct workflow *w, const char *name, unsigned *ret_id, struct recorded *ret,
                    struct err *e)
{
    unsigned id = w->next_function;
    const struct recorded *at;
    int r;

    if (w->end != RUN_GOES)
        return run_ended(w, e);
    if (w->in_step)
        return err_set(e, ERR_INVALID, "'%s' is called inside of a step", name);
    if (id >= w->d->conf.steps_max)
        return err_set(e, ERR_LIMIT, "a workflow may take %u steps", w->d->conf.steps_max);
    r = run_seek(w, id, &at, e);
    if (r < 0)
        return r;
    w->next_function++;
    *ret_id = id;
    if (!at || at->id != id)
        return 0;
    if (!str_eq_z(at->name, name))
        return diverge(w, id, name, at->name, e);
    *ret = *at;
    return 1;
}

void run_thrown(struct workflow *w, const struct wire_error *error, const struct err *e)
{
    struct arena a = { 0 }; /* a new one: *error may be what is kept already */
    struct wire_error *kept = arena_new(&a, struct wire_error);

    kept->name = arena_str(&a, error->name);
    kept->message = arena_str(&a, error->message);
    if (error->code.p)
        kept->code = arena_str(&a, error->code);
    if (error->data.p)
        kept->data = arena_str(&a, error->data);
    arena_done(&w->thrown_arena);
    w->thrown_arena = a;
    w->thrown = kept;
    w->thrown_code = e->code;
    fmt_z(w->thrown_msg, sizeof(w->thrown_msg), "%s", e->msg);
}

struct wire_error run_error_of(const struct workflow *w, const struct err *e)
{
    struct str said = str_of(e->msg);
    struct wire_error error = { .name = str_of(err_name(e->code)), .message = said };

    if (w->thrown && e->code == w->thrown_code && str_ends(said, str_of(w->thrown_msg))) {
        error = *w->thrown;
        if (said.n != strlen(w->thrown_msg)) /* it gained context on its way */
            error.message = said;
    }
    return error;
}

static int replay_error(struct workflow *w, const struct recorded *rec, struct err *e)
{
    struct wire_error error = { 0 };
    struct arena a = { 0 };
    int r = wire_read_error(rec->format, rec->error, &a, &error, e);

    if (r == 0) {
        r = wire_error_to_err(&error, e);
        run_thrown(w, &error, e);
    } else {
        (void)err_wrap(e, "recorded error of step '" STR_FMT "'", STR_ARG(rec->name));
    }
    arena_done(&a);
    return r;
}

int run_replay(struct workflow *w, const struct recorded *rec, struct buf *out, struct err *e)
{
    int r = 0;

    if (rec->has_error)
        return replay_error(w, rec, e);
    if (!out)
        return 0;
    buf_clear(out);
    if (rec->has_output)
        r = wire_read_value(rec->format, rec->output, out, e);
    else
        r = buf_add_z(out, "null", e);
    return r < 0 ? err_wrap(e, "record of step '" STR_FMT "'", STR_ARG(rec->name)) : 0;
}
