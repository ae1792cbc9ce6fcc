/* SPDX-License-Identifier: MIT */
/*
 * durable/api_workflows.c — /api/v1/workflows and one workflow: list, start, show, change, delete.
 */
#include <limits.h>

#include "durable/api_int.h"

#define CENTURY_MS 3153600000000LL

/* --- list --- */

struct list_query {
    struct shape_strs status, name, queue, user, version, executor, parent, forked_from, schedule;
    const char *id_prefix, *created_from, *created_to, *order;
    int64_t limit, offset;
    bool input, output;
};
static const char *const orders[] = { "asc", "desc", NULL };

/* clang-format off */
static const struct shape_field list_fields[] = {
    FIELD(struct list_query, status, .doc = "Any of these; parameters of lists may be repeated."),
    FIELD(struct list_query, name), FIELD(struct list_query, queue), FIELD(struct list_query, user),
    FIELD(struct list_query, version), FIELD(struct list_query, executor), FIELD(struct list_query, parent),
    FIELD(struct list_query, forked_from), FIELD(struct list_query, schedule), FIELD(struct list_query, id_prefix),
    FIELD(struct list_query, created_from, .doc = "ISO 8601, or ms since 1970."), FIELD(struct list_query, created_to),
    FIELD(struct list_query, order, .def = "\"asc\"", .one_of = orders, .doc = "By time of creation."),
    FIELD(struct list_query, limit, .def = "100", .min = 1, .max = 1000),
    FIELD(struct list_query, offset, .min = 0, .max = LLONG_MAX),
    FIELD(struct list_query, input, .doc = "With the arguments."), FIELD(struct list_query, output, .doc = "With outputs and errors."),
};
const struct shape shape_workflows_query = SHAPE(struct list_query, "WorkflowFilter", list_fields);

struct list_out { struct shape_list workflows; };
static const struct shape_field list_out_fields[] = { FIELD(struct list_out, workflows, .of = &shape_workflow) };
const struct shape shape_workflows = SHAPE(struct list_out, "Workflows", list_out_fields);
/* clang-format on */

static const struct str *texts(const struct shape_strs *list, size_t *ret_n, struct arena *a)
{
    struct str *out = arena_alloc(a, (list->n + 1) * sizeof(*out));

    for (size_t i = 0; i < list->n; i++)
        out[i] = str_of(list->v[i]);
    *ret_n = list->n;
    return out;
}

static int read_filter(const struct list_query *q, struct durable_filter *f, struct arena *a,
                       struct err *e)
{
    enum durable_status status;
    int r = 0;

    *f = (struct durable_filter){
        .id_prefix = q->id_prefix ? str_of(q->id_prefix) : (struct str){ 0 },
        .descending = str_eq_z(str_of(q->order), "desc"),
        .load_input = q->input,
        .load_output = q->output,
        .limit = (unsigned)q->limit,
        .offset = q->offset,
    };
    f->names = texts(&q->name, &f->n_names, a);
    f->queues = texts(&q->queue, &f->n_queues, a);
    f->users = texts(&q->user, &f->n_users, a);
    f->versions = texts(&q->version, &f->n_versions, a);
    f->executors = texts(&q->executor, &f->n_executors, a);
    f->parents = texts(&q->parent, &f->n_parents, a);
    f->forked_from = texts(&q->forked_from, &f->n_forked_from, a);
    f->schedules = texts(&q->schedule, &f->n_schedules, a);
    for (size_t i = 0; r == 0 && i < q->status.n; i++) {
        r = durable_status_parse(str_of(q->status.v[i]), &status, e);
        if (r == 0)
            f->statuses |= 1u << status;
    }
    if (r == 0)
        r = time_given(q->created_from, "created_from", &f->created_from_ms, e);
    if (r == 0)
        r = time_given(q->created_to, "created_to", &f->created_to_ms, e);
    return r;
}

CO int api_list(struct http_req *req, struct err *e)
{
    struct list_out *out = arena_new(req->arena, struct list_out);
    struct durable_filter filter;
    struct durable_info *found;
    int r;

    r = read_filter(req->query, &filter, req->arena, e);
    if (r == 0)
        r = durable_list(req->room, &filter, req->arena, &found, &out->workflows.n, e);
    if (r < 0)
        return r;
    out->workflows.v = arena_alloc(req->arena, (out->workflows.n + 1) * sizeof(*out->workflows.v));
    for (size_t i = 0; i < out->workflows.n; i++)
        out->workflows.v[i] = show_workflow(&found[i], req->arena);
    req->out = out;
    return 0;
}

CO int api_get(struct http_req *req, struct err *e)
{
    struct durable_info info;
    int r;

    r = durable_get(req->room, req->args[0], req->arena, &info, e);
    if (r == 0)
        req->out = show_workflow(&info, req->arena);
    return r;
}

/* --- start --- */

struct start_in {
    const char *name, *class_name, *id, *id_policy, *queue, *dedup_id, *dedup_policy,
        *partition_key, *app_version;
    json_t *args, *named_args, *attributes;
    int64_t priority, delay_ms, timeout_ms;
};
static const char *const policies[] = { "reject", "return-existing", NULL };

/* clang-format off */
static const struct shape_field start_fields[] = {
    FIELD(struct start_in, name, .required = true, .min = 1, .max = 255, .doc = "Of the workflow. Without a queue this daemon must implement it."),
    FIELD(struct start_in, class_name, .nullable = true, .min = 1, .max = 255),
    FIELD(struct start_in, args, .nullable = true, .doc = "Positional arguments, a list."),
    FIELD(struct start_in, named_args, .nullable = true, .object = true),
    FIELD(struct start_in, id, .nullable = true, .min = 1, .max = DURABLE_ID - 1, .doc = "A repeat with one id is one workflow. The header Idempotency-Key says the same; random without both."),
    FIELD(struct start_in, id_policy, .def = "\"return-existing\"", .one_of = policies, .doc = "What a repeat gets."),
    FIELD(struct start_in, queue, .nullable = true, .min = 1, .max = 255, .doc = "Enqueue it there; without, it runs at once."),
    FIELD(struct start_in, priority, .nullable = true, .doc = "0 to 2147483647, the lower first."),
    FIELD(struct start_in, delay_ms, .nullable = true, .min = 0, .max = CENTURY_MS, .doc = "With a queue: not before."),
    FIELD(struct start_in, timeout_ms, .nullable = true, .min = 0, .max = CENTURY_MS, .doc = "From its start; then it is cancelled."),
    FIELD(struct start_in, dedup_id, .nullable = true, .min = 1, .max = 255, .doc = "With a queue: only one unfinished workflow has it."),
    FIELD(struct start_in, dedup_policy, .def = "\"reject\"", .one_of = policies),
    FIELD(struct start_in, partition_key, .nullable = true, .min = 1, .max = 255),
    FIELD(struct start_in, app_version, .nullable = true, .min = 1, .max = 255, .doc = "Run by this version only."),
    FIELD(struct start_in, attributes, .nullable = true, .object = true),
};
const struct shape shape_start_in = SHAPE(struct start_in, "WorkflowStart", start_fields);

struct started_out { const char *id; bool existed; };
static const struct shape_field started_fields[] = {
    FIELD(struct started_out, id), FIELD(struct started_out, existed, .doc = "It was there before (status 200)."),
};
const struct shape shape_started = SHAPE(struct started_out, "WorkflowStarted", started_fields);
/* clang-format on */

static int as_text(const json_t *j, struct arena *a, struct str *ret, struct err *e)
{
    *ret = (struct str){ 0 };
    return j ? json_text(j, SIZE_MAX / 2, a, ret, e) : 0; /* the request was bounded */
}

/* One id from the body or from the header, which may both be there when they agree. */
static int read_id(struct http_req *req, const struct start_in *in, struct str *ret, struct err *e)
{
    struct str key = http_header_get(req, "Idempotency-Key");

    *ret = given(in->id);
    if (!key.p)
        return 0;
    if (!key.n || key.n >= DURABLE_ID || !utf8_valid(key.p, key.n))
        return err_set(e, ERR_INVALID, "Idempotency-Key: UTF-8 text of 1 to %d bytes",
                       DURABLE_ID - 1);
    if (ret->p && !str_eq(*ret, key))
        return err_set(e, ERR_INVALID, "id and Idempotency-Key differ");
    *ret = key;
    return 0;
}

static int read_start(struct http_req *req, struct durable_start *s, struct err *e)
{
    const struct start_in *in = req->in;
    int r;

    if (in->args && !json_is_array(in->args))
        return err_set(e, ERR_INVALID, "args: a list of positional arguments");
    *s = (struct durable_start){
        .name = in->name,
        .class_name = in->class_name,
        .queue = given(in->queue),
        .app_version = given(in->app_version),
        .dedup_id = given(in->dedup_id),
        .dedup_join = str_eq_z(str_of(in->dedup_policy), "return-existing"),
        .id_must_be_new = str_eq_z(str_of(in->id_policy), "reject"),
        .priority = in->priority,
        .partition_key = given(in->partition_key),
        .delay_ms = (uint64_t)in->delay_ms,
        .timeout_ms = (uint64_t)in->timeout_ms,
        .user = str_of(arena_strdup(req->arena, req->who.name)),
    };
    r = read_id(req, in, &s->id, e);
    if (r == 0)
        r = as_text(in->args, req->arena, &s->args, e);
    if (r == 0)
        r = as_text(in->named_args, req->arena, &s->named, e);
    if (r == 0)
        r = as_text(in->attributes, req->arena, &s->attributes, e);
    return r;
}

CO int api_start(struct http_req *req, struct err *e)
{
    struct started_out *out = arena_new(req->arena, struct started_out);
    struct durable_started started = { 0 };
    struct durable_start start;
    int r;

    r = read_start(req, &start, e);
    if (r == 0)
        r = durable_start(req->room, &start, &started, e);
    if (r < 0)
        return started.code ? refuse(req, e, started.code) : r;
    *out = (struct started_out){ arena_strdup(req->arena, started.id), started.existed };
    req->status = started.existed ? 200 : 201;
    req->out = out;
    return 0;
}

/* --- overview --- */

struct counted {
    int64_t count;
    const char *oldest_at;
};
struct overview_out {
    bool working;
    const char *trouble, *executor, *app_version;
    const void *by_status[DURABLE_STATUSES];
    int64_t parked, blocked_version, stuck, running_here, executors;
    bool hears;
};
#define STATUS(index, text) \
    { \
        .name = text, .offset = offsetof(struct overview_out, by_status[index]), \
        .kind = SHAPE_OBJ, .of = &counted_shape \
    }

/* clang-format off */
static const struct shape_field counted_fields[] = {
    FIELD(struct counted, count), FIELD(struct counted, oldest_at, .doc = "When the oldest of them was created."),
};
static const struct shape counted_shape = SHAPE(struct counted, "WorkflowStatusCount", counted_fields);
static const struct shape_field overview_fields[] = {
    FIELD(struct overview_out, working), FIELD(struct overview_out, trouble, .doc = "Why this daemon runs no workflows now."),
    FIELD(struct overview_out, executor), FIELD(struct overview_out, app_version),
    STATUS(DURABLE_ENQUEUED, "ENQUEUED"), STATUS(DURABLE_DELAYED, "DELAYED"), STATUS(DURABLE_PENDING, "PENDING"),
    STATUS(DURABLE_SUCCESS, "SUCCESS"), STATUS(DURABLE_ERROR, "ERROR"), STATUS(DURABLE_CANCELLED, "CANCELLED"),
    STATUS(DURABLE_DEAD, "MAX_RECOVERY_ATTEMPTS_EXCEEDED"),
    FIELD(struct overview_out, parked), FIELD(struct overview_out, blocked_version, .doc = "Of a version that no living process runs."),
    FIELD(struct overview_out, stuck, .doc = "Runnable, or owned by the dead, for long."),
    FIELD(struct overview_out, running_here), FIELD(struct overview_out, executors, .doc = "Living processes."),
    FIELD(struct overview_out, hears, .doc = "Processes hear of each other by LISTEN, not by polling alone."),
};
const struct shape shape_overview = SHAPE(struct overview_out, "WorkflowOverview", overview_fields);
/* clang-format on */

CO int api_overview(struct http_req *req, struct err *e)
{
    struct overview_out *out = arena_new(req->arena, struct overview_out);
    const struct durable *d = req->room;
    struct durable_overview found;
    int r;

    r = durable_overview(req->room, &found, e);
    if (r < 0)
        return r;
    *out = (struct overview_out){
        .trouble = durable_trouble(d),
        .executor = arena_strdup(req->arena, durable_executor(d)),
        .app_version = arena_strdup(req->arena, d->conf.app_version),
        .parked = found.parked,
        .blocked_version = found.blocked_version,
        .stuck = found.stuck,
        .running_here = found.running_here,
        .executors = found.executors,
        .hears = found.hears,
    };
    out->working = !out->trouble;
    for (size_t i = 0; i < DURABLE_STATUSES; i++) {
        struct counted *one = arena_new(req->arena, struct counted);

        *one = (struct counted){ found.by_status[i].n,
                                 time_text(found.by_status[i].oldest_ms, req->arena) };
        out->by_status[i] = one;
    }
    req->out = out;
    return 0;
}

/* --- change, delete --- */

struct change_in {
    json_t *priority;
    const char *delay_until;
};
/* clang-format off */
static const struct shape_field change_fields[] = {
    FIELD(struct change_in, priority, .nullable = true, .doc = "Of one that is enqueued or delayed: an integer, the lower first."),
    FIELD(struct change_in, delay_until, .nullable = true, .doc = "Of one that is delayed: ISO 8601."),
};
const struct shape shape_change_in = SHAPE(struct change_in, "WorkflowChange", change_fields);

struct delete_query { bool children, force; };
static const struct shape_field delete_fields[] = {
    FIELD(struct delete_query, children, .doc = "Its descendants too."), FIELD(struct delete_query, force, .doc = "Also when it has not ended."),
};
const struct shape shape_delete_query = SHAPE(struct delete_query, "WorkflowDelete", delete_fields);
/* clang-format on */

static int check_change(const struct change_in *in, const struct durable_info *info,
                        int64_t *ret_until, struct err *e)
{
    int r;

    if (!in->priority && !in->delay_until)
        return err_set(e, ERR_INVALID, "nothing to change: priority or delay_until");
    if (in->priority && !json_is_integer(in->priority))
        return err_set(e, ERR_INVALID, "priority: an integer");
    r = time_given(in->delay_until, "delay_until", ret_until, e);
    if (r < 0)
        return r;
    if (in->delay_until && info->status != DURABLE_DELAYED)
        return err_set(e, ERR_CONFLICT, "the workflow is %s, not DELAYED",
                       durable_status_name(info->status));
    if (in->priority && info->status != DURABLE_DELAYED && info->status != DURABLE_ENQUEUED)
        return err_set(e, ERR_CONFLICT, "the workflow is %s, not ENQUEUED or DELAYED",
                       durable_status_name(info->status));
    return 0;
}

CO int api_change(struct http_req *req, struct err *e)
{
    const struct change_in *in = req->in;
    struct durable_info info;
    int64_t until;
    int r;

    r = find_workflow(req, &info, e);
    if (r == 0)
        r = check_change(in, &info, &until, e);
    if (r == 0 && in->priority)
        r = durable_set_priority(req->room, req->args[0], json_integer_value(in->priority), e);
    if (r == 0 && in->delay_until)
        r = durable_set_delay(req->room, req->args[0], until, e);
    return r;
}

CO int api_delete(struct http_req *req, struct err *e)
{
    const struct delete_query *query = req->query;
    struct durable_info info;
    int64_t n;
    int r;

    r = find_workflow(req, &info, e);
    if (r < 0)
        return r;
    if (durable_status_active(info.status) && !query->force)
        return err_set(e, ERR_CONFLICT, "the workflow is %s: cancel it first, or force",
                       durable_status_name(info.status));
    return durable_delete(req->room, &req->args[0], 1, query->children, query->force, &n, e);
}
