/* SPDX-License-Identifier: MIT */
/*
 * durable/api_int.h — the handlers behind the engine's routes, what they take and what they answer.
 * The room of every table is a struct durable. Memory is the request's arena.
 */
#pragma once

#include "durable/durable_int.h"
#include "durable/manage.h"
#include "durable/routes.h"

/* --- answers --- */

struct workflow_out {
    const char *id, *name, *class_name, *status, *queue, *user, *executor, *app_version, *app_name,
        *dedup_id, *partition_key, *parent, *forked_from, *schedule, *serialization;
    bool was_forked_from, parked, blocked_version, known;
    int64_t attempts, priority, timeout_ms;
    const char *created_at, *updated_at, *started_at, *completed_at, *deadline, *delay_until;
    json_t *roles, *attributes, *args, *named_args, *output, *error;
    const char *input_raw, *output_raw, *error_raw;
};
struct step_out {
    int64_t id;
    const char *name, *child, *serialization, *started_at, *completed_at;
    json_t *output, *error;
    const char *output_raw, *error_raw;
};
extern const struct shape shape_workflow, shape_step;

/* A row as it is answered. Values that cannot be read stay the texts they are, in *_raw. */
const struct workflow_out *show_workflow(const struct durable_info *info, struct arena *a);
const struct step_out *show_step(const struct durable_step_info *info, struct arena *a);

/* --- small things the handlers share --- */

/* A stored value as JSON, NULL when it cannot be read. Of the arena. */
json_t *value_json(struct str text, struct str serialization, struct arena *a);
json_t *error_json(struct str text, struct str serialization, struct arena *a);

/* "2026-11-20T17:05:27.745Z"; NULL for 0. */
const char *time_text(int64_t ms, struct arena *a);

/* ISO 8601, or a whole number of ms since 1970. NULL: 0. ERR_INVALID names the field. */
int time_given(const char *text, const char *field, int64_t *ret_ms, struct err *e) MUST_CHECK;

/* A member of an input that may be absent. */
static inline struct str given(const char *z)
{
    return z ? str_of(z) : (struct str){ 0 };
}

const char *text_of(struct str s, struct arena *a); /* NULL when it has no text */

/* The workflow of the path's first argument, without its input and output. ERR_NOT_FOUND. */
CO int find_workflow(struct http_req *req, struct durable_info *ret, struct err *e) MUST_CHECK;

/* {"error","code"} with the status of why->code. */
int refuse(struct http_req *req, const struct err *why, enum durable_code code) MUST_CHECK;

/* {"id"} with 201. */
int reply_id(struct http_req *req, const char *id) MUST_CHECK;
extern const struct shape shape_id;
extern const struct shape shape_count; /* {"count"} */
int reply_count(struct http_req *req, int64_t n) MUST_CHECK;

/* --- api_workflows.c --- */
extern const struct shape shape_workflows_query, shape_workflows, shape_start_in, shape_started,
    shape_overview, shape_change_in, shape_delete_query;
CO int api_list(struct http_req *req, struct err *e);
CO int api_start(struct http_req *req, struct err *e);
CO int api_get(struct http_req *req, struct err *e);
CO int api_overview(struct http_req *req, struct err *e);
CO int api_change(struct http_req *req, struct err *e);
CO int api_delete(struct http_req *req, struct err *e);

/* --- api_steer.c --- */
extern const struct shape shape_steps_query, shape_steps, shape_cancel_in, shape_resume_in,
    shape_fork_in, shape_rewind_in, shape_send_in, shape_collect_in;
CO int api_steps(struct http_req *req, struct err *e);
CO int api_cancel(struct http_req *req, struct err *e);
CO int api_resume(struct http_req *req, struct err *e);
CO int api_fork(struct http_req *req, struct err *e);
CO int api_retry(struct http_req *req, struct err *e);
CO int api_rewind(struct http_req *req, struct err *e);
CO int api_send(struct http_req *req, struct err *e);
CO int api_collect(struct http_req *req, struct err *e);

/* --- api_wait.c --- */
extern const struct shape shape_wait_query, shape_result, shape_event, shape_stream_query;
CO int api_result(struct http_req *req, struct err *e);
CO int api_event(struct http_req *req, struct err *e);
CO int api_stream(struct http_req *req, struct err *e);

/* --- api_queues.c --- */
extern const struct shape shape_queues, shape_queue_in;
CO int api_queues(struct http_req *req, struct err *e);
CO int api_queue_put(struct http_req *req, struct err *e);
CO int api_queue_delete(struct http_req *req, struct err *e);

/* --- api_schedules.c --- */
extern const struct shape shape_schedule, shape_schedules, shape_schedule_in, shape_backfill_in;
CO int api_schedules(struct http_req *req, struct err *e);
CO int api_schedule(struct http_req *req, struct err *e);
CO int api_schedule_put(struct http_req *req, struct err *e);
CO int api_schedule_delete(struct http_req *req, struct err *e);
CO int api_schedule_pause(struct http_req *req, struct err *e);
CO int api_schedule_resume(struct http_req *req, struct err *e);
CO int api_schedule_trigger(struct http_req *req, struct err *e);
CO int api_schedule_backfill(struct http_req *req, struct err *e);
