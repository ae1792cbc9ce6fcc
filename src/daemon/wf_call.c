/* SPDX-License-Identifier: MIT */
/*
 * daemon/wf_call.c — see wf_call.h. The workflow's id is the call's Idempotency-Key: when the step
 * is repeated after a crash, a turn that had been recorded is not asked again, and one that had
 * only begun goes on with the question that is in the session. A failure is kept by the journal
 * alone, so that a retry asks anew.
 */
#include "daemon/wf_call.h"

#include "base/secret.h"
#include "bridge/call.h"
#include "bridge/shapes.h"

enum { JSON_DEPTH = 512, KEY_MAX = DURABLE_ID + 16 };

struct asking {
    struct workflow *w;
    struct bridge *b;
    const struct call_in *in;
    char key[KEY_MAX];
    char hash[2 * SECRET_KEY + 1];
};

static bool is_away(const struct err *e, void *arg)
{
    return e->code == ERR_UNAVAILABLE; /* of the database: nothing was asked */
}

/* The call's own result becomes the error's data, so that nothing of it is lost. */
static int fail(struct asking *x, const struct call_result *result, struct arena *a, struct err *e)
{
    char *text = arena_strndup(a, result->error.p ? result->error.p : "", result->error.n);
    char *code = arena_printf(a, "\"%s\"", error_type_name(result->type));

    return durable_throw(x->w, "BridgeError", text, str_of(code), result->text, e);
}

CO static int ask(void *arg, struct buf *out, struct err *e)
{
    struct asking *x = arg;
    struct call_request call = {
        .agent = str_of(x->in->agent_name),
        .prompt = str_of(x->in->prompt),
        .session_id = x->in->session_id ? str_of(x->in->session_id) : STR(""),
        .user_id = x->in->user_id ? str_of(x->in->user_id) : STR(""),
        .metadata = x->in->metadata,
        .key = str_of(x->key),
        .hash = str_of(x->hash),
        .forget_failure = true,
        .deadline_ms = DEADLINE_NONE,
    };
    struct call_result result;
    struct arena a = { 0 };
    int r;

    r = bridge_call(x->b, &call, &a, &result, e);
    if (r == CALL_FOREIGN)
        r = err_set(e, ERR_FORBIDDEN, "Session '%s' belongs to another user", x->in->session_id);
    else if (r == CALL_MISMATCH)
        r = err_set(e, ERR_CONFLICT, "this workflow's id was used for another question");
    else if (r == 0)
        r = result.success ? buf_add_str(out, result.text, e) : fail(x, &result, &a, e);
    arena_done(&a);
    return r;
}

/*
 * The first argument that is an object (a schedule gives the time first), else the named ones.
 */
static const json_t *find_question(const struct workflow *w)
{
    const json_t *one;

    for (size_t i = 0; (one = workflow_arg(w, i)); i++)
        if (json_is_object(one))
            return one;
    return workflow_named(w);
}

static int prepare(struct asking *x, struct arena *a, struct err *e)
{
    const json_t *question = find_question(x->w);
    struct call_in *in = arena_new(a, struct call_in);
    struct str text;
    int r;

    r = shape_decode(&shape_call_in, question, a, in, NULL, e);
    if (r < 0)
        return err_wrap(e, "bridge.call wants {\"agent_name\",\"prompt\",...}");
    if (in->session_id && strcmp(in->session_id, "stats") == 0)
        return err_set(e, ERR_INVALID, "session_id: 'stats' is a reserved id");
    r = json_text(question, SIZE_MAX / 2, a, &text, e); /* bounded by durable.payload_max */
    if (r < 0)
        return r;
    sha256_hex(text, x->hash);
    /* Keys of callers begin with a name, and a name is not empty. */
    fmt_z(x->key, sizeof(x->key), "\nworkflow\n%s", workflow_id(x->w));
    x->in = in;
    return 0;
}

CO static int run(struct workflow *w, void *ctx, struct err *e)
{
    static const struct durable_retry retry = {
        .tries = 20,
        .first_ms = 200,
        .longest_ms = 30000,
        .jitter = 0.5,
        .again = is_away,
    };
    struct asking x = { .w = w, .b = ctx };
    AUTO(buf_done) struct buf answer;
    struct arena a = { 0 };
    int r;

    buf_init(&answer, SIZE_MAX / 2); /* the engine bounds what is recorded */
    r = prepare(&x, &a, e);
    if (r == 0)
        r = durable_step(w, "call", &retry, ask, &x, &answer, e);
    if (r == 0)
        r = durable_return(w, buf_str(&answer), e);
    arena_done(&a);
    return r;
}

void wf_call_type(struct bridge *b, struct durable_type *ret)
{
    *ret = (struct durable_type){
        .name = "bridge.call",
        .fn = run,
        .ctx = b,
        .doc = "Ask an agent: one argument {agent_name, prompt, session_id?, user_id?, metadata?}.",
    };
}
