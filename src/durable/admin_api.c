/* SPDX-License-Identifier: MIT */
/*
 * durable/admin_api.c — the routes of DBOS's own admin server, so that tools made for it work here.
 * Unlike there, every route wants an admin's token.
 */
#include <limits.h>

#include "durable/admin_int.h"

enum { BODY_MAX = 1024 * 1024 };

static int healthz(struct http_req *req, struct err *e)
{
    const char *trouble = durable_trouble(req->room);

    if (trouble)
        return admin_error(req, 503, trouble, e);
    http_reply_text(req, 200, "text/plain; charset=utf-8", STR("healthy"));
    return 0;
}

/* Our loop never blocks, so what DBOS measures of its event loop has no like here: the share of the
 * places for running workflows that are taken. */
static int perf(struct http_req *req, struct err *e)
{
    const struct durable *d = req->room;
    double all = d->conf.running, taken = d->n_live;

    return admin_reply(req, 200,
                       json_pack("{s:f,s:f,s:f}", "idle", all - taken, "active", taken,
                                 "utilization", all > 0 ? taken / all : 0.0),
                       e);
}

/* Schedules start nothing here any more; queues are served on. */
static int deactivate(struct http_req *req, struct err *e)
{
    struct durable *d = req->room;

    d->deactivated = true;
    http_reply_text(req, 200, "text/plain; charset=utf-8", STR("Deactivated"));
    return 0;
}

static CO int queues_metadata(struct http_req *req, struct err *e)
{
    struct durable_queue_info *queues;
    json_t *list, *one;
    size_t n;
    int r;

    r = durable_queues(req->room, req->arena, &queues, &n, e);
    if (r < 0)
        return r;
    list = json_array();
    for (size_t i = 0; i < n; i++) {
        one = json_object();
        admin_put(one, "name", queues[i].name);
        if (queues[i].concurrency)
            json_object_set_new(one, "concurrency", json_integer(queues[i].concurrency));
        if (queues[i].worker_concurrency)
            json_object_set_new(one, "workerConcurrency",
                                json_integer(queues[i].worker_concurrency));
        if (queues[i].rate_max)
            json_object_set_new(one, "rateLimit",
                                json_pack("{s:I,s:f}", "limitPerPeriod",
                                          (json_int_t)queues[i].rate_max, "periodSec",
                                          queues[i].rate_period_s));
        json_array_append_new(list, one);
    }
    return admin_reply(req, 200, list, e);
}

static CO int recovery(struct http_req *req, struct err *e)
{
    const struct str *executors = NULL;
    json_t *body, *wrapped, *list;
    struct str *ids;
    size_t n, n_ids;
    int r;

    r = admin_body(req, &body, e);
    if (r == 0 && !json_is_array(body))
        return err_set(e, ERR_INVALID, "body: a list of executor ids is wanted");
    if (r < 0)
        return r;
    wrapped = admin_keep(json_pack("{s:O}", "executor ids", body), req->arena);
    r = admin_texts(wrapped, "executor ids", req->arena, &executors, &n, e);
    if (r == 0)
        r = durable_recover(req->room, executors, n, req->arena, &ids, &n_ids, e);
    if (r < 0)
        return r;
    list = json_array();
    for (size_t i = 0; i < n_ids; i++)
        json_array_append_new(list, json_stringn(ids[i].p, ids[i].n));
    return admin_reply(req, 200, list, e);
}

static CO int list(struct http_req *req, bool queued, struct err *e)
{
    struct durable_filter filter = { .queues_only = queued };
    struct durable_info *found;
    json_t *body, *all;
    size_t n;
    int r;

    r = admin_object(req, &body, e);
    if (r == 0)
        r = admin_filter(body, &filter, req->arena, e);
    if (r == 0)
        r = durable_list(req->room, &filter, req->arena, &found, &n, e);
    if (r < 0)
        return r;
    all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, admin_workflow(&found[i], req->arena));
    return admin_reply(req, 200, all, e);
}

static CO int list_all(struct http_req *req, struct err *e)
{
    return list(req, false, e);
}

static CO int list_queued(struct http_req *req, struct err *e)
{
    return list(req, true, e);
}

static CO int show(struct http_req *req, struct err *e)
{
    struct durable_info info;
    int r;

    r = durable_get(req->room, req->args[0], req->arena, &info, e);
    if (r == -ERR_NOT_FOUND)
        return admin_error(
            req, 404,
            arena_printf(req->arena, "Workflow " STR_FMT " not found", STR_ARG(req->args[0])), e);
    return r < 0 ? r : admin_reply(req, 200, admin_workflow(&info, req->arena), e);
}

/* Of an unknown workflow nothing, as there. */
static CO int steps(struct http_req *req, struct err *e)
{
    struct durable_step_info *found;
    struct durable_info info;
    json_t *list_;
    size_t n;
    int r;

    r = find_workflow(req, &info, e);
    if (r == -ERR_NOT_FOUND)
        return 0;
    if (r == 0)
        r = durable_steps(req->room, req->args[0], 0, UINT_MAX, req->arena, &found, &n, e);
    if (r < 0)
        return r;
    list_ = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list_, admin_step(&found[i], req->arena));
    return admin_reply(req, 200, list_, e);
}

static CO int cancel(struct http_req *req, struct err *e)
{
    int64_t n;

    return durable_cancel(req->room, &req->args[0], 1, false, &n, e);
}

static CO int resume(struct http_req *req, struct err *e)
{
    int r = durable_resume(req->room, req->args[0], (struct str){ 0 }, e);

    if (r == -ERR_NOT_FOUND || r == -ERR_CONFLICT)
        return admin_error(req, 500,
                           arena_printf(req->arena, "Error resuming workflow " STR_FMT ": %s",
                                        STR_ARG(req->args[0]), e->msg),
                           e);
    return r;
}

static CO int fork_and_reply(struct http_req *req, const struct durable_fork *fork, struct err *e)
{
    char id[DURABLE_ID];
    int r = durable_fork(req->room, fork, id, e);

    if (r == -ERR_NOT_FOUND || r == -ERR_CONFLICT)
        return admin_error(req, 500,
                           arena_printf(req->arena, "Error forking workflow " STR_FMT ": %s",
                                        STR_ARG(req->args[0]), e->msg),
                           e);
    return r < 0 ? r : admin_reply(req, 200, json_pack("{s:s}", "workflow_id", id), e);
}

static CO int restart(struct http_req *req, struct err *e)
{
    const struct durable_fork fork = { .id = req->args[0] };

    return fork_and_reply(req, &fork, e);
}

static CO int fork_from(struct http_req *req, struct err *e)
{
    struct durable_fork fork = { .id = req->args[0], .step = -1 };
    json_t *body;
    int r;

    r = admin_object(req, &body, e);
    if (r == 0)
        r = admin_number(body, "start_step", INT_MAX, &fork.step, e);
    if (r == 0 && fork.step < 0)
        return err_set(e, ERR_INVALID, "start_step is missing");
    if (r == 0)
        r = admin_number(body, "timeout_ms", INT64_MAX, &fork.timeout_ms, e);
    if (r < 0)
        return r;
    fork.new_id = json_member_str(body, "new_workflow_id");
    fork.app_version = json_member_str(body, "application_version");
    return fork_and_reply(req, &fork, e);
}

static CO int garbage_collect(struct http_req *req, struct err *e)
{
    int64_t before = 0, keep = 0, n;
    json_t *body;
    int r;

    r = admin_object(req, &body, e);
    if (r == 0)
        r = admin_time(body, "cutoff_epoch_timestamp_ms", &before, e);
    if (r == 0)
        r = admin_number(body, "rows_threshold", INT64_MAX, &keep, e);
    if (r < 0 || (!before && !keep))
        return r;
    return durable_collect(req->room, before, keep, &n, e);
}

static CO int global_timeout(struct http_req *req, struct err *e)
{
    int64_t before, n;
    json_t *body;
    int r;

    r = admin_object(req, &body, e);
    if (r == 0)
        r = admin_time(body, "cutoff_epoch_timestamp_ms", &before, e);
    if (r == 0 && !before)
        return err_set(e, ERR_INVALID, "cutoff_epoch_timestamp_ms is missing");
    return r < 0 ? r : durable_cancel_before(req->room, before, &n, e);
}

/* clang-format off */
#define ROW(m, p, fn, text, ...) \
    { HTTP_M_##m, p, fn, .need = NEED_ADMIN, .max_body = BODY_MAX, .flags = ROUTE_SLASHES, .tag = "dbos", .doc = text, __VA_ARGS__ }
static const struct http_route admin_routes[] = {
    ROW(GET,  "/dbos-healthz", healthz, "Does the engine work?"),
    ROW(GET,  "/dbos-perf", perf, "How busy it is."),
    ROW(GET,  "/deactivate", deactivate, "Let schedules start nothing in this process any more."),
    ROW(GET,  "/dbos-workflow-queues-metadata", queues_metadata, "The queues and their limits."),
    ROW(POST, "/dbos-workflow-recovery", recovery, "Enqueue the work of dead executors again."),
    ROW(POST, "/workflows", list_all, "List workflows."),
    ROW(POST, "/queues", list_queued, "List what is queued."),
    ROW(GET,  "/workflows/{id}", show, "Show a workflow."),
    ROW(GET,  "/workflows/{id}/steps", steps, "The steps of a workflow."),
    ROW(POST, "/workflows/{id}/cancel", cancel, "Cancel a workflow.", .status = 204),
    ROW(POST, "/workflows/{id}/resume", resume, "Resume a workflow.", .status = 204),
    ROW(POST, "/workflows/{id}/restart", restart, "Run a workflow anew under a new id."),
    ROW(POST, "/workflows/{id}/fork", fork_from, "Run it anew from a step on, under a new id."),
    ROW(POST, "/dbos-garbage-collect", garbage_collect, "Delete old workflows.", .status = 204),
    ROW(POST, "/dbos-global-timeout", global_timeout, "Cancel what was created before.", .status = 204),
};
/* clang-format on */

void durable_admin_table(struct durable *d, struct http_table *out)
{
    *out = (struct http_table){ "/", &dialect_plain, admin_routes, LEN(admin_routes), d };
}
