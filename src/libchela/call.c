/* SPDX-License-Identifier: MIT */
/* libchela/call.c — calls, waited for or not, and their results. */
#include "bridge/call.h"

#include <string.h>

#include "libchela/bridge_int.h"

struct call_job {
    struct bridge *b;
    struct chela_call call;
    char *copies[5]; /* of the strings of call, when nobody waits */
    struct chela_result *result;
    chela_done *done;
    void *done_arg;
};

static struct chela_result *copy_result(const struct call_result *from)
{
    struct chela_result *r = xcalloc(1, sizeof(*r));

    *r = (struct chela_result){
        .success = from->success,
        .retried = from->retried,
        .agent_name = lib_strdup(from->agent_name),
        .response = lib_strdup(from->response),
        .error = lib_strdup(from->error),
        .error_type = (enum chela_error_type)from->type,
        .fallback_chain = xcalloc(from->n_chain + 1, sizeof(char *)),
        .n_chain = from->n_chain,
        .latency_ms = from->latency_ms,
        .retry_count = (unsigned)from->retry_count,
    };
    for (size_t i = 0; i < from->n_chain; i++)
        r->fallback_chain[i] = str_dup(from->chain[i]);
    return r;
}

void chela_result_free(struct chela_result *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_chain; i++)
        free(r->fallback_chain[i]);
    free(r->fallback_chain);
    free(r->agent_name);
    free(r->response);
    free(r->error);
    free(r);
}

char *chela_result_json(const struct chela_result *r)
{
    struct out o;

    out_init(&o, SIZE_MAX / 2);
    out_z(&o, "{\"success\":");
    out_bool(&o, r->success);
    out_z(&o, ",\"agent_name\":");
    out_str(&o, str_of(r->agent_name));
    out_z(&o, ",\"response\":");
    out_str(&o, str_of(r->response));
    out_z(&o, ",\"error\":");
    out_str(&o, str_of(r->error));
    out_z(&o, ",\"error_type\":");
    out_str(&o, str_of(chela_error_type_name(r->error_type)));
    out_z(&o, ",\"fallback_chain\":[");
    for (size_t i = 0; i < r->n_chain; i++) {
        out_comma(&o, i);
        out_str(&o, str_of(r->fallback_chain[i]));
    }
    out_z(&o, "],\"latency_ms\":");
    out_real(&o, r->latency_ms);
    out_z(&o, ",\"retried\":");
    out_bool(&o, r->retried);
    out_z(&o, ",\"retry_count\":");
    out_int(&o, r->retry_count);
    out_z(&o, "}");
    return lib_take_json(&o);
}

CO static int pass_delta(void *arg, struct str agent, struct str text, struct err *e)
{
    const struct chela_call *call = arg;
    char *name = str_dup(agent);

    call->on_delta(name, text.p, text.n, call->on_delta_arg);
    free(name);
    return 0;
}

static int read_metadata(const char *text, struct arena *a, json_t **ret, struct err *e)
{
    int r;

    *ret = NULL;
    if (!text)
        return 0;
    r = json_parse(str_of(text), 512, a, ret, NULL, e);
    if (r < 0)
        return err_wrap(e, "metadata");
    if (!json_is_object(*ret))
        return err_set(e, ERR_INVALID, "metadata must be a JSON object");
    return 0;
}

static int check_texts(const struct chela_call *c, struct err *e)
{
    const char *const texts[] = { c->agent_name, c->prompt, c->session_id, c->user_id };

    if (!c->agent_name || !c->prompt)
        return err_set(e, ERR_INVALID, "a call needs an agent_name and a prompt");
    for (size_t i = 0; i < LEN(texts); i++)
        if (texts[i] && !utf8_valid(texts[i], strlen(texts[i])))
            return err_set(e, ERR_INVALID, "the texts of a call must be UTF-8");
    return 0;
}

CO static int call_in(struct call_job *job, struct arena *a, struct err *e)
{
    const struct chela_call *c = &job->call;
    const struct call_sink sink = { .delta = pass_delta, .arg = &job->call };
    struct call_request req = {
        .agent = str_of(c->agent_name),
        .prompt = str_of(c->prompt),
        .session_id = str_of(c->session_id),
        .user_id = str_of(c->user_id),
        .deadline_ms = DEADLINE_NONE,
        .sink = c->on_delta ? &sink : NULL,
    };
    struct call_result result;
    json_t *metadata;
    int r;

    r = check_texts(c, e);
    if (r == 0)
        r = read_metadata(c->metadata, a, &metadata, e);
    if (r < 0)
        return r;
    req.metadata = metadata;
    r = bridge_call(job->b, &req, a, &result, e);
    if (r == CALL_FOREIGN)
        return err_set(e, ERR_FORBIDDEN, "Session '%s' belongs to another user", c->session_id);
    if (r < 0)
        return r;
    job->result = copy_result(&result);
    return 0;
}

CO static int do_call(void *arg, struct err *e)
{
    struct arena arena = { 0 };
    int r = call_in(arg, &arena, e);

    arena_done(&arena);
    return r;
}

int chela_bridge_call(struct chela_bridge *bridge, const struct chela_call *call,
                      struct chela_result **ret, struct chela_error *error)
{
    struct call_job job = { .b = engine_bridge(bridge->engine), .call = *call };
    struct err e;

    if (engine_run(bridge->engine, do_call, &job, &e) < 0)
        return lib_error(&e, error);
    *ret = job.result;
    return 0;
}

/* --- without waiting --- */

static void call_done(int r, const struct err *e, void *arg)
{
    struct call_job *job = arg;
    struct chela_error error = { .type = CHELA_ERROR_TYPES };

    if (r < 0) {
        (void)lib_error(e, &error); /* only the text and type matter here */
        if (r == -ERR_CANCELED)
            (void)lib_fail(&error, r, CHELA_ERROR_TYPES, "canceled");
    }
    job->done(job->result, r < 0 ? &error : NULL, job->done_arg);
    for (size_t i = 0; i < LEN(job->copies); i++)
        free(job->copies[i]);
    free(job);
}

static const char *keep(struct call_job *job, size_t i, const char *text)
{
    job->copies[i] = text ? xstrdup(text) : NULL;
    return job->copies[i];
}

int chela_bridge_submit(struct chela_bridge *bridge, const struct chela_call *call,
                        chela_done *done, void *arg, uint64_t *ret, struct chela_error *error)
{
    struct call_job *job;
    uint64_t number;
    struct err e;

    if (check_texts(call, &e) < 0)
        return lib_error(&e, error);
    job = xcalloc(1, sizeof(*job));
    job->b = engine_bridge(bridge->engine);
    job->call = *call;
    job->call.agent_name = keep(job, 0, call->agent_name);
    job->call.prompt = keep(job, 1, call->prompt);
    job->call.session_id = keep(job, 2, call->session_id);
    job->call.user_id = keep(job, 3, call->user_id);
    job->call.metadata = keep(job, 4, call->metadata);
    job->done = done;
    job->done_arg = arg;
    number = engine_start(bridge->engine, do_call, job, call_done);
    if (ret)
        *ret = number;
    return 0;
}

void chela_bridge_cancel(struct chela_bridge *bridge, uint64_t call)
{
    engine_cancel(bridge->engine, call);
}
