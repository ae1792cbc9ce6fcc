/* SPDX-License-Identifier: MIT */
/*
 * durable/api_routes.c — the engine's routes under /api/v1. An id may hold any printable
 * characters, so every argument of a path may hold an encoded slash.
 */
#include "durable/api_int.h"

#define READS (NEED_READ | NEED_WORKFLOWS)
#define ONE   "/api/v1/workflows/{id}"
#define ANY   ROUTE_SLASHES

/* clang-format off */
static const struct http_route workflow_routes[] = {
    { HTTP_M_GET, "/api/v1/workflows", api_list, READS, .query = &shape_workflows_query, .out = &shape_workflows,
      .tag = "workflows", .doc = "List workflows." },
    { HTTP_M_POST, "/api/v1/workflows", api_start, NEED_WORKFLOWS, .in = &shape_start_in, .out = &shape_started, .status = 201,
      .tag = "workflows", .doc = "Start a workflow or enqueue it; once answered it is durable." },
    { HTTP_M_GET, "/api/v1/workflows/overview", api_overview, READS, .out = &shape_overview,
      .tag = "workflows", .doc = "Workflows in numbers, and whether this daemon runs them." },
    { HTTP_M_POST, "/api/v1/workflows/collect", api_collect, NEED_WORKFLOWS, .in = &shape_collect_in, .out = &shape_count,
      .tag = "workflows", .doc = "Delete ended workflows by age or number." },
    { HTTP_M_GET, ONE, api_get, READS, .out = &shape_workflow, .flags = ANY,
      .tag = "workflows", .doc = "Show a workflow with its arguments and its outcome." },
    { HTTP_M_PATCH, ONE, api_change, NEED_WORKFLOWS, .in = &shape_change_in, .status = 204, .flags = ANY,
      .tag = "workflows", .doc = "Change the priority or the delay of a workflow that waits." },
    { HTTP_M_DELETE, ONE, api_delete, NEED_WORKFLOWS, .query = &shape_delete_query, .status = 204, .flags = ANY,
      .tag = "workflows", .doc = "Delete an ended workflow with all it has recorded." },
    { HTTP_M_GET, ONE "/steps", api_steps, READS, .query = &shape_steps_query, .out = &shape_steps, .flags = ANY,
      .tag = "workflows", .doc = "The steps a workflow has recorded." },
    { HTTP_M_GET, ONE "/result", api_result, READS, .query = &shape_wait_query, .out = &shape_result, .flags = ANY,
      .tag = "workflows", .doc = "Wait for a workflow's outcome; 202 when it has not ended in time." },
    { HTTP_M_POST, ONE "/cancel", api_cancel, NEED_WORKFLOWS, .in = &shape_cancel_in, .out = &shape_count, .flags = ANY | ROUTE_OPTIONAL,
      .tag = "workflows", .doc = "Cancel a workflow; says how many were." },
    { HTTP_M_POST, ONE "/resume", api_resume, NEED_WORKFLOWS, .in = &shape_resume_in, .status = 204, .flags = ANY | ROUTE_OPTIONAL,
      .tag = "workflows", .doc = "Let a cancelled or dead workflow go on." },
    { HTTP_M_POST, ONE "/fork", api_fork, NEED_WORKFLOWS, .in = &shape_fork_in, .out = &shape_id, .status = 201, .flags = ANY,
      .tag = "workflows", .doc = "Make a new workflow that shares the steps before one." },
    { HTTP_M_POST, ONE "/retry", api_retry, NEED_WORKFLOWS, .status = 204, .flags = ANY,
      .tag = "workflows", .doc = "Run what failed, was cancelled or is dead again, from where it stopped." },
    { HTTP_M_POST, ONE "/rewind", api_rewind, NEED_WORKFLOWS, .in = &shape_rewind_in, .status = 204, .flags = ANY | ROUTE_OPTIONAL,
      .tag = "workflows", .doc = "Run an ended workflow again from a step on, under its id." },
    { HTTP_M_POST, ONE "/send", api_send, NEED_WORKFLOWS, .in = &shape_send_in, .status = 204, .flags = ANY,
      .tag = "workflows", .doc = "Put a message into a workflow's mailbox." },
    { HTTP_M_GET, ONE "/events/{key}", api_event, READS, .query = &shape_wait_query, .out = &shape_event, .flags = ANY,
      .tag = "workflows", .doc = "The latest value of an event." },
    { HTTP_M_GET, ONE "/streams/{key}", api_stream, READS, .query = &shape_stream_query, .flags = ANY | ROUTE_STREAM,
      .tag = "workflows", .doc = "The values of a stream as server-sent events, their offsets as ids; 'end' ends it." },
};

static const struct http_route queue_routes[] = {
    { HTTP_M_GET, "/api/v1/queues", api_queues, READS, .out = &shape_queues,
      .tag = "queues", .doc = "List the queues, their limits and how full they are." },
    { HTTP_M_PUT, "/api/v1/queues/{name}", api_queue_put, NEED_WORKFLOWS, .in = &shape_queue_in, .status = 204, .flags = ANY,
      .tag = "queues", .doc = "Make or change a queue." },
    { HTTP_M_DELETE, "/api/v1/queues/{name}", api_queue_delete, NEED_WORKFLOWS, .status = 204, .flags = ANY,
      .tag = "queues", .doc = "Remove a queue's definition; what is in it stays there." },
};

static const struct http_route schedule_routes[] = {
    { HTTP_M_GET, "/api/v1/schedules", api_schedules, READS, .out = &shape_schedules,
      .tag = "schedules", .doc = "List the schedules." },
    { HTTP_M_GET, "/api/v1/schedules/{name}", api_schedule, READS, .out = &shape_schedule, .flags = ANY,
      .tag = "schedules", .doc = "Show a schedule." },
    { HTTP_M_PUT, "/api/v1/schedules/{name}", api_schedule_put, NEED_WORKFLOWS, .in = &shape_schedule_in, .out = &shape_schedule, .flags = ANY,
      .tag = "schedules", .doc = "Make or replace a schedule." },
    { HTTP_M_DELETE, "/api/v1/schedules/{name}", api_schedule_delete, NEED_WORKFLOWS, .status = 204, .flags = ANY,
      .tag = "schedules", .doc = "Remove a schedule." },
    { HTTP_M_POST, "/api/v1/schedules/{name}/pause", api_schedule_pause, NEED_WORKFLOWS, .status = 204, .flags = ANY,
      .tag = "schedules", .doc = "Let a schedule start nothing." },
    { HTTP_M_POST, "/api/v1/schedules/{name}/resume", api_schedule_resume, NEED_WORKFLOWS, .status = 204, .flags = ANY,
      .tag = "schedules", .doc = "Let a paused schedule go on." },
    { HTTP_M_POST, "/api/v1/schedules/{name}/trigger", api_schedule_trigger, NEED_WORKFLOWS, .out = &shape_id, .status = 201, .flags = ANY,
      .tag = "schedules", .doc = "Start a schedule's workflow now." },
    { HTTP_M_POST, "/api/v1/schedules/{name}/backfill", api_schedule_backfill, NEED_WORKFLOWS, .in = &shape_backfill_in, .out = &shape_count, .flags = ANY,
      .tag = "schedules", .doc = "Start it for every time in the past that it was not started for; says how many." },
};
/* clang-format on */

void durable_tables(struct durable *d, struct http_table out[DURABLE_TABLES])
{
    out[0] = (struct http_table){ "/api/v1/workflows", &dialect_plain, workflow_routes,
                                  LEN(workflow_routes), d };
    out[1] =
        (struct http_table){ "/api/v1/queues", &dialect_plain, queue_routes, LEN(queue_routes), d };
    out[2] = (struct http_table){ "/api/v1/schedules", &dialect_plain, schedule_routes,
                                  LEN(schedule_routes), d };
}

const char *durable_trouble(const struct durable *d)
{
    if (!d->running)
        return "the engine does not run";
    if (d->stopping)
        return "the engine is stopping";
    if (!store_ok(d->store))
        return "the database is away";
    return lease_held(d) ? NULL : "this process could not renew its lease in time";
}
