/* SPDX-License-Identifier: MIT */
/*
 * libchela/durable_step.c — steps with bodies of the program's, and its SQL in their transaction.
 *
 * While a body runs on another thread the workflow's fiber waits for it and touches nothing, so the
 * body may call chela_fail(): what that leaves in the workflow is read when the body has ended.
 */
#include <pthread.h>
#include <string.h>

#include "base/arena.h"
#include "libchela/durable_int.h"

#define STATEMENTS_MAX 1024

/* --- steps --- */

struct step_call {
    struct chela_workflow *w;
    const struct chela_step_retry *retry;
    chela_step_fn *body;
    void *arg;
    struct chela_cancel *cancel;
    char *json;
    struct chela_error error;
    int r;
};

static void run_body(void *arg)
{
    struct step_call *call = arg;

    call->json = NULL;
    call->error = (struct chela_error){ .type = CHELA_ERROR_TYPES };
    call->r = call->body(call->arg, call->cancel, &call->json, &call->error);
    call->error.text[sizeof(call->error.text) - 1] = '\0';
}

/* What a body gave: its text is ours to free. */
static int take_outcome(int r, char *json, const struct chela_error *error, struct buf *out,
                        struct err *e)
{
    AUTO(free) char *text = json;

    if (r != 0)
        return lib_from(r, error, e);
    return text ? buf_add_z(out, text, e) : 0;
}

CO static int step_body(void *arg, struct buf *out, struct err *e)
{
    struct step_call *call = arg;
    int r = 0;

    call->cancel = chela_cancel_new();
    call->w->in_step = true;
    if (call->retry && call->retry->flags & CHELA_STEP_INLINE)
        run_body(call);
    else
        r = pool_run(call->w->owner->pool, run_body, call, call->cancel, e);
    call->w->in_step = false;
    chela_cancel_free(call->cancel);
    return r < 0 ? r : take_outcome(call->r, call->json, &call->error, out, e);
}

static bool ask_again(const struct err *e, void *arg)
{
    struct step_call *call = arg;
    struct chela_error error;

    (void)lib_error(e, &error); /* fills it in; the code is in call->r */
    return call->retry->again(&error, call->arg);
}

int wf_out(int r, struct buf *out, const struct err *e, char **ret_json, struct chela_error *error)
{
    if (r < 0)
        return lib_error(e, error);
    if (r == 0)
        lib_take_text(out, ret_json);
    return r;
}

/* What failed was the work, the program's own: not ours. */
int wf_work(int r, struct buf *out, const struct err *e, char **ret_json, struct chela_error *error)
{
    r = wf_out(r, out, e, ret_json, error);
    return r == CHELA_E_INTERNAL ? CHELA_E_FAILED : r;
}

CO int chela_step(struct chela_workflow *w, const char *name, const struct chela_step_retry *retry,
                  chela_step_fn *body, void *arg, char **ret_json, struct chela_error *error)
{
    struct step_call call = { .w = w, .retry = retry, .body = body, .arg = arg };
    struct durable_retry durable = { 0 };
    AUTO(buf_done) struct buf out = { 0 };
    struct err e;
    int r = wf_enter(w, error);

    if (r < 0)
        return r;
    if (retry)
        durable = (struct durable_retry){
            .tries = retry->tries,
            .first_ms = lib_ms(retry->first),
            .longest_ms = lib_ms(retry->longest),
            .factor = retry->factor,
            .jitter = retry->jitter,
            .timeout_ms = lib_ms(retry->timeout),
            .again = retry->again ? ask_again : NULL,
        };
    buf_init(&out, w->owner->payload_max);
    r = durable_step(w->w, name, retry ? &durable : NULL, step_body, &call, &out, &e);
    return wf_work(r, &out, &e, ret_json, error);
}

/* --- SQL --- */

/* Statements are known to the store by the address of their struct sql: one per text, for good. */
static const struct sql *statement(const char *text, struct err *e)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static struct sql all[STATEMENTS_MAX];
    static size_t n;
    struct sql *found = NULL;

    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < n && !found; i++)
        if (strcmp(all[i].text, text) == 0)
            found = &all[i];
    if (!found && n < STATEMENTS_MAX) {
        found = &all[n++];
        found->name = "statement of the program";
        found->text = xstrdup(text);
    }
    pthread_mutex_unlock(&mutex);
    if (!found)
        (void)err_set(e, ERR_LIMIT, "more than %d different statements: pass values as parameters",
                      STATEMENTS_MAX); /* NULL says it */
    return found;
}

struct chela_tx {
    struct store_tx *tx;
};

struct chela_row {
    const struct store_row *row;
    struct arena *texts;
};

struct each_call {
    void (*each)(const struct chela_row *row, void *arg);
    void *arg;
};

static int each_row(struct store_row *row, void *arg, struct err *e)
{
    const struct each_call *call = arg;
    struct arena texts = { 0 };
    const struct chela_row face = { row, &texts };

    call->each(&face, call->arg);
    arena_done(&texts);
    return 0;
}

int64_t chela_row_int(const struct chela_row *row, int column)
{
    return row_int(row->row, column);
}

double chela_row_real(const struct chela_row *row, int column)
{
    return row_real(row->row, column);
}

const char *chela_row_text(const struct chela_row *row, int column)
{
    struct str s = row_str(row->row, column);

    return s.p ? arena_strndup(row->texts, s.p, s.n) : NULL;
}

static struct sql_arg arg_of(const struct chela_sql_arg *arg)
{
    switch (arg->kind) {
    case 1:
        return SQL_INT(arg->i);
    case 2:
        return SQL_REAL(arg->r);
    case 3:
        return SQL_Z(arg->s);
    default:
        return SQL_NULL;
    }
}

int chela_tx_run(struct chela_tx *tx, const char *sql, const struct chela_sql_arg *args,
                 size_t n_args, void (*each)(const struct chela_row *row, void *arg), void *arg,
                 int64_t *ret_changed, struct chela_error *error)
{
    struct each_call call = { each, arg };
    AUTO(free) struct sql_arg *own = xcalloc(n_args + 1, sizeof(*own));
    const struct sql *s;
    struct err e = { 0 };
    int r;

    for (size_t i = 0; i < n_args; i++)
        own[i] = arg_of(&args[i]);
    s = statement(sql, &e);
    if (!s)
        return lib_error(&e, error);
    r = store_run(tx->tx, s, own, n_args, each ? each_row : NULL, &call, &e);
    if (r < 0)
        return lib_error(&e, error);
    if (ret_changed)
        *ret_changed = store_changed(tx->tx);
    return 0;
}

struct tx_call {
    chela_tx_fn *body;
    void *arg;
    struct buf *out; /* outside workflows */
};

static int tx_body(struct store_tx *tx, void *arg, struct buf *out, struct err *e)
{
    const struct tx_call *call = arg;
    struct chela_error error = { .type = CHELA_ERROR_TYPES };
    struct chela_tx face = { tx };
    char *json = NULL;
    int r = call->body(&face, call->arg, &json, &error);

    error.text[sizeof(error.text) - 1] = '\0';
    return take_outcome(r, json, &error, out, e);
}

CO int chela_step_tx(struct chela_workflow *w, const char *name, chela_tx_fn *body, void *arg,
                     char **ret_json, struct chela_error *error)
{
    struct tx_call call = { .body = body, .arg = arg };
    AUTO(buf_done) struct buf out = { 0 };
    struct err e;
    int r = wf_enter(w, error);

    if (r < 0)
        return r;
    buf_init(&out, w->owner->payload_max);
    w->in_step = true;
    r = durable_step_tx(w->w, name, tx_body, &call, &out, &e);
    w->in_step = false;
    return wf_work(r, &out, &e, ret_json, error);
}

struct outside {
    struct chela_durable *durable;
    struct tx_call call;
    struct buf out;
};

static int outside_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct outside *o = arg;

    buf_clear(&o->out);
    return tx_body(tx, &o->call, &o->out, e);
}

CO static int do_outside(void *arg, struct err *e)
{
    struct outside *o = arg;

    return store_do(engine_store(o->durable->engine), outside_body, o, e);
}

int chela_durable_tx(struct chela_durable *durable, chela_tx_fn *body, void *arg, char **ret_json,
                     struct chela_error *error)
{
    struct outside o = { .durable = durable, .call = { .body = body, .arg = arg } };
    struct err e;
    int r;

    buf_init(&o.out, durable->payload_max);
    r = engine_run(durable->engine, do_outside, &o, &e);
    r = wf_out(r, &o.out, &e, ret_json, error);
    buf_done(&o.out);
    return r;
}
