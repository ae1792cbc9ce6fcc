/* SPDX-License-Identifier: MIT */
/*
 * durable/api_steer.c — steps of a workflow, and what can be done to it: cancel, resume, fork,
 * retry, rewind, send; and the deletion of old ones.
 */
#include <limits.h>

#include "durable/api_int.h"

#define CENTURY_MS 3153600000000LL

/* clang-format off */
struct steps_query { int64_t from, limit; };
static const struct shape_field steps_query_fields[] = {
    FIELD(struct steps_query, from, .min = 0, .max = INT_MAX, .doc = "The first step's id."),
    FIELD(struct steps_query, limit, .def = "1000", .min = 1, .max = 10000),
};
const struct shape shape_steps_query = SHAPE(struct steps_query, "WorkflowStepsQuery", steps_query_fields);

struct steps_out { struct shape_list steps; };
static const struct shape_field steps_fields[] = { FIELD(struct steps_out, steps, .of = &shape_step) };
const struct shape shape_steps = SHAPE(struct steps_out, "WorkflowSteps", steps_fields);

struct cancel_in { bool children; };
static const struct shape_field cancel_fields[] = { FIELD(struct cancel_in, children, .doc = "Its descendants too.") };
const struct shape shape_cancel_in = SHAPE(struct cancel_in, "WorkflowCancel", cancel_fields);

struct resume_in { const char *queue; };
static const struct shape_field resume_fields[] = {
    FIELD(struct resume_in, queue, .nullable = true, .min = 1, .max = 255, .doc = "Where it is enqueued; the internal queue without."),
};
const struct shape shape_resume_in = SHAPE(struct resume_in, "WorkflowResume", resume_fields);

struct fork_in { int64_t step, timeout_ms; const char *id, *queue, *app_version; };
static const struct shape_field fork_fields[] = {
    FIELD(struct fork_in, step, .required = true, .min = 0, .max = INT_MAX, .doc = "The first step that is run anew; 0: all."),
    FIELD(struct fork_in, id, .nullable = true, .min = 1, .max = DURABLE_ID - 1, .doc = "Of the new workflow."),
    FIELD(struct fork_in, queue, .nullable = true, .min = 1, .max = 255), FIELD(struct fork_in, app_version, .nullable = true, .min = 1, .max = 255),
    FIELD(struct fork_in, timeout_ms, .nullable = true, .min = 0, .max = CENTURY_MS),
};
const struct shape shape_fork_in = SHAPE(struct fork_in, "WorkflowFork", fork_fields);

struct rewind_in { int64_t step; };
static const struct shape_field rewind_fields[] = {
    FIELD(struct rewind_in, step, .def = "-1", .min = -1, .max = INT_MAX, .doc = "The first step that is run anew; -1: the first that failed."),
};
const struct shape shape_rewind_in = SHAPE(struct rewind_in, "WorkflowRewind", rewind_fields);

struct send_in { const char *topic, *key; json_t *message; };
static const struct shape_field send_fields[] = {
    FIELD(struct send_in, topic, .nullable = true, .max = 255),
    FIELD(struct send_in, message, .doc = "Any JSON value; null without."),
    FIELD(struct send_in, key, .nullable = true, .min = 1, .max = 255, .doc = "A repeat with one key is one message."),
};
const struct shape shape_send_in = SHAPE(struct send_in, "WorkflowMessage", send_fields);

struct collect_in { const char *before; int64_t keep; };
static const struct shape_field collect_fields[] = {
    FIELD(struct collect_in, before, .nullable = true, .doc = "Delete what ended before this time (ISO 8601)."),
    FIELD(struct collect_in, keep, .nullable = true, .min = 0, .max = LLONG_MAX, .doc = "Of the ended keep so many, the newest; 0: all."),
};
const struct shape shape_collect_in = SHAPE(struct collect_in, "WorkflowCollect", collect_fields);
/* clang-format on */

CO int api_steps(struct http_req *req, struct err *e)
{
    struct steps_out *out = arena_new(req->arena, struct steps_out);
    const struct steps_query *query = req->query;
    struct durable_step_info *found;
    struct durable_info info;
    int r;

    r = find_workflow(req, &info, e);
    if (r == 0)
        r = durable_steps(req->room, req->args[0], query->from, (unsigned)query->limit, req->arena,
                          &found, &out->steps.n, e);
    if (r < 0)
        return r;
    out->steps.v = arena_alloc(req->arena, (out->steps.n + 1) * sizeof(*out->steps.v));
    for (size_t i = 0; i < out->steps.n; i++)
        out->steps.v[i] = show_step(&found[i], req->arena);
    req->out = out;
    return 0;
}

CO int api_cancel(struct http_req *req, struct err *e)
{
    const struct cancel_in *in = req->in;
    struct durable_info info;
    int64_t n;
    int r;

    r = find_workflow(req, &info, e);
    if (r == 0)
        r = durable_cancel(req->room, &req->args[0], 1, in->children, &n, e);
    return r < 0 ? r : reply_count(req, n);
}

CO int api_resume(struct http_req *req, struct err *e)
{
    const struct resume_in *in = req->in;

    return durable_resume(req->room, req->args[0], given(in->queue), e);
}

CO int api_fork(struct http_req *req, struct err *e)
{
    const struct fork_in *in = req->in;
    const struct durable_fork fork = {
        .id = req->args[0],
        .new_id = given(in->id),
        .app_version = given(in->app_version),
        .queue = given(in->queue),
        .step = in->step,
        .timeout_ms = in->timeout_ms,
    };
    char id[DURABLE_ID];
    int r;

    r = durable_fork(req->room, &fork, id, e);
    return r < 0 ? r : reply_id(req, id);
}

CO int api_retry(struct http_req *req, struct err *e)
{
    return durable_retry(req->room, req->args[0], e);
}

CO int api_rewind(struct http_req *req, struct err *e)
{
    const struct rewind_in *in = req->in;

    return durable_rewind(req->room, req->args[0], in->step, e);
}

CO int api_send(struct http_req *req, struct err *e)
{
    const struct send_in *in = req->in;
    struct str message = STR("null");
    int r = 0;

    if (in->message)
        r = json_text(in->message, SIZE_MAX / 2, req->arena, &message, e);
    if (r < 0)
        return r;
    return durable_post(req->room, req->args[0], given(in->topic), message, given(in->key), e);
}

CO int api_collect(struct http_req *req, struct err *e)
{
    const struct collect_in *in = req->in;
    int64_t before, n;
    int r;

    r = time_given(in->before, "before", &before, e);
    if (r == 0 && !before && !in->keep)
        return err_set(e, ERR_INVALID, "say what to delete: before or keep");
    if (r == 0)
        r = durable_collect(req->room, before, in->keep, &n, e);
    return r < 0 ? r : reply_count(req, n);
}
