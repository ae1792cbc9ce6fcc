/* SPDX-License-Identifier: MIT */
/*
 * libchela/durable_flow.c — what a workflow calls besides steps: its result, waiting, messages,
 * events, streams, children.
 */
#include "base/json.h"
#include "base/time.h"
#include "libchela/durable_int.h"

const char *chela_workflow_id(const struct chela_workflow *w)
{
    return workflow_id(w->w);
}

const char *chela_workflow_named(const struct chela_workflow *w)
{
    struct chela_workflow *own = (struct chela_workflow *)(uintptr_t)w; /* what is shown is kept */
    AUTO(buf_done) struct buf b = { 0 };

    if (w->named)
        return w->named;
    buf_init(&b, SIZE_MAX / 2); /* bounded when it was read */
    if (json_write(workflow_named(w->w), &b, NULL) == 0)
        own->named = str_dup(buf_str(&b));
    return w->named;
}

unsigned chela_workflow_attempt(const struct chela_workflow *w)
{
    return workflow_attempt(w->w);
}

int chela_return(struct chela_workflow *w, const char *json, struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    if (r < 0)
        return r;
    return lib_done(durable_return(w->w, str_of(json), &e), &e, error);
}

/* From a step's thread too: see durable_step.c. */
int chela_fail(struct chela_workflow *w, const char *name, const char *message,
               const char *data_json, struct chela_error *error)
{
    struct err e;
    int r = durable_throw(w->w, name ? name : "Error", message ? message : "", (struct str){ 0 },
                          str_of(data_json), &e);

    r = lib_error(&e, error);
    return r == CHELA_E_INTERNAL ? CHELA_E_FAILED : r;
}

/* --- clock and chance --- */

CO int chela_sleep(struct chela_workflow *w, double seconds, struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    return r < 0 ? r : lib_done(durable_sleep(w->w, lib_ms(seconds), &e), &e, error);
}

CO int chela_now(struct chela_workflow *w, int64_t *ret_ms, struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    return r < 0 ? r : lib_done(durable_now(w->w, ret_ms, &e), &e, error);
}

CO int chela_uuid(struct chela_workflow *w, char ret[37], struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    return r < 0 ? r : lib_done(durable_uuid(w->w, ret, &e), &e, error);
}

CO int chela_patch(struct chela_workflow *w, const char *name, bool *ret, struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    return r < 0 ? r : lib_done(durable_patch(w->w, name, ret, &e), &e, error);
}

/* --- messages, events, streams --- */

CO int chela_send(struct chela_workflow *w, const char *id, const char *topic, const char *json,
                  struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_done(
            durable_send(w->w, str_of(id), str_of(topic), str_of(json), (struct str){ 0 }, &e), &e,
            error);
    return r;
}

CO int chela_recv(struct chela_workflow *w, const char *topic, double timeout, char **ret_json,
                  struct chela_error *error)
{
    AUTO(buf_done) struct buf out = { 0 };
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_seconds(timeout, "timeout", error);
    if (r < 0)
        return r;
    buf_init(&out, w->owner->payload_max);
    r = durable_recv(w->w, str_of(topic), lib_ms(timeout), &out, &e);
    return wf_out(r, &out, &e, ret_json, error);
}

CO int chela_set_event(struct chela_workflow *w, const char *key, const char *json,
                       struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_done(durable_set_event(w->w, str_of(key), str_of(json), &e), &e, error);
    return r;
}

CO int chela_get_event(struct chela_workflow *w, const char *id, const char *key, double timeout,
                       char **ret_json, struct chela_error *error)
{
    AUTO(buf_done) struct buf out = { 0 };
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_seconds(timeout, "timeout", error);
    if (r < 0)
        return r;
    buf_init(&out, w->owner->payload_max);
    r = durable_get_event(w->w, str_of(id), str_of(key), lib_ms(timeout), &out, &e);
    return wf_out(r, &out, &e, ret_json, error);
}

CO int chela_write_stream(struct chela_workflow *w, const char *key, const char *json,
                          struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_done(durable_write_stream(w->w, str_of(key), str_of(json), &e), &e, error);
    return r;
}

CO int chela_close_stream(struct chela_workflow *w, const char *key, struct chela_error *error)
{
    struct err e;
    int r = wf_enter(w, error);

    return r < 0 ? r : lib_done(durable_close_stream(w->w, str_of(key), &e), &e, error);
}

/* --- children --- */

CO int chela_child(struct chela_workflow *w, const struct chela_start *start, char **ret_id,
                   struct chela_error *error)
{
    const struct durable_start child = lib_start(start);
    struct durable_started started;
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_start_check(start, error);
    if (r < 0)
        return r;
    r = durable_child(w->w, &child, &started, &e);
    if (r < 0)
        return lib_error(&e, error);
    if (ret_id)
        *ret_id = xstrdup(started.id);
    return 0;
}

CO int chela_result_of(struct chela_workflow *w, const char *id, double timeout, char **ret_json,
                       struct chela_error *error)
{
    AUTO(buf_done) struct buf out = { 0 };
    struct err e;
    int r = wf_enter(w, error);

    if (r == 0)
        r = lib_seconds(timeout, "timeout", error);
    if (r < 0)
        return r;
    buf_init(&out, w->owner->payload_max);
    r = durable_result(w->w, str_of(id), lib_ms(timeout), &out, &e);
    return wf_work(r, &out, &e, ret_json, error);
}
