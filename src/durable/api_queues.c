/* SPDX-License-Identifier: MIT */
/*
 * durable/api_queues.c — /api/v1/queues: what the queues allow and how full they are.
 */
#include <limits.h>

#include "durable/api_int.h"

struct queue_out {
    const char *name;
    int64_t concurrency, worker_concurrency, rate_max, partition_concurrency,
        partition_worker_concurrency, partition_rate_max;
    double rate_period_s, partition_rate_period_s, polling_s;
    int64_t enqueued, delayed, pending;
    const char *oldest_at;
    bool served_here, hold_slot;
};
struct queues_out {
    struct shape_list queues;
};
struct queue_in {
    int64_t concurrency, worker_concurrency, rate_max, partition_concurrency,
        partition_worker_concurrency, partition_rate_max;
    double rate_period_s, partition_rate_period_s, polling_s;
    bool hold_slot;
};

#define COUNT  .nullable = true, .min = 0, .max = INT_MAX
#define PERIOD .nullable = true, .min = 0, .max = 31536000
/* clang-format off */
static const struct shape_field queue_fields[] = {
    FIELD(struct queue_out, name), FIELD(struct queue_out, concurrency, .doc = "Running at once, in all processes; 0: no limit, here and below."),
    FIELD(struct queue_out, worker_concurrency), FIELD(struct queue_out, rate_max), FIELD(struct queue_out, rate_period_s),
    FIELD(struct queue_out, partition_concurrency), FIELD(struct queue_out, partition_worker_concurrency),
    FIELD(struct queue_out, partition_rate_max), FIELD(struct queue_out, partition_rate_period_s), FIELD(struct queue_out, polling_s),
    FIELD(struct queue_out, enqueued), FIELD(struct queue_out, delayed), FIELD(struct queue_out, pending),
    FIELD(struct queue_out, oldest_at, .doc = "Since when the oldest waits."),
    FIELD(struct queue_out, served_here, .doc = "This daemon takes work from it."), FIELD(struct queue_out, hold_slot),
};
static const struct shape queue_shape = SHAPE(struct queue_out, "Queue", queue_fields);
static const struct shape_field queues_fields[] = { FIELD(struct queues_out, queues, .of = &queue_shape) };
const struct shape shape_queues = SHAPE(struct queues_out, "Queues", queues_fields);

static const struct shape_field queue_in_fields[] = {
    FIELD(struct queue_in, concurrency, COUNT, .doc = "Running at once, in all processes; 0 or absent: no limit, here and below."),
    FIELD(struct queue_in, worker_concurrency, COUNT, .doc = "Running at once in one process."),
    FIELD(struct queue_in, rate_max, COUNT, .doc = "Starts in each rate_period_s."), FIELD(struct queue_in, rate_period_s, PERIOD),
    FIELD(struct queue_in, partition_concurrency, COUNT, .doc = "The same per partition key; any of these makes the queue partitioned."),
    FIELD(struct queue_in, partition_worker_concurrency, COUNT), FIELD(struct queue_in, partition_rate_max, COUNT),
    FIELD(struct queue_in, partition_rate_period_s, PERIOD),
    FIELD(struct queue_in, polling_s, .nullable = true, .def = "1", .min = 0, .max = 120, .doc = "How often it is looked at without a hint."),
    FIELD(struct queue_in, hold_slot, .doc = "A workflow that waits for long keeps its place in the limits."),
};
const struct shape shape_queue_in = SHAPE(struct queue_in, "QueueDefinition", queue_in_fields);
/* clang-format on */

static const struct queue_out *show_queue(const struct durable_queue_info *q, struct arena *a)
{
    struct queue_out *out = arena_new(a, struct queue_out);

    *out = (struct queue_out){
        .name = text_of(q->name, a),
        .concurrency = q->concurrency,
        .worker_concurrency = q->worker_concurrency,
        .rate_max = q->rate_max,
        .partition_concurrency = q->partition_concurrency,
        .partition_worker_concurrency = q->partition_worker_concurrency,
        .partition_rate_max = q->partition_rate_max,
        .rate_period_s = q->rate_period_s,
        .partition_rate_period_s = q->partition_rate_period_s,
        .polling_s = q->polling_s,
        .enqueued = q->enqueued,
        .delayed = q->delayed,
        .pending = q->pending,
        .oldest_at = time_text(q->oldest_ms, a),
        .served_here = q->served_here,
        .hold_slot = q->hold_slot,
    };
    return out;
}

CO int api_queues(struct http_req *req, struct err *e)
{
    struct queues_out *out = arena_new(req->arena, struct queues_out);
    struct durable_queue_info *found;
    int r;

    r = durable_queues(req->room, req->arena, &found, &out->queues.n, e);
    if (r < 0)
        return r;
    out->queues.v = arena_alloc(req->arena, (out->queues.n + 1) * sizeof(*out->queues.v));
    for (size_t i = 0; i < out->queues.n; i++)
        out->queues.v[i] = show_queue(&found[i], req->arena);
    req->out = out;
    return 0;
}

static int check_name(struct str name, struct err *e)
{
    if (str_starts(name, STR("_dbos_")))
        return err_set(e, ERR_INVALID, "names that begin with _dbos_ are reserved");
    if (name.n > 255)
        return err_set(e, ERR_INVALID, "a queue's name has at most 255 bytes");
    return 0;
}

static int check_rates(const struct queue_in *in, struct err *e)
{
    if ((in->rate_max > 0) != (in->rate_period_s > 0))
        return err_set(e, ERR_INVALID, "rate_max and rate_period_s belong together");
    if ((in->partition_rate_max > 0) != (in->partition_rate_period_s > 0))
        return err_set(e, ERR_INVALID,
                       "partition_rate_max and partition_rate_period_s belong together");
    return 0;
}

static uint64_t ms_of(double s)
{
    return (uint64_t)(s * 1000 + 0.5);
}

CO int api_queue_put(struct http_req *req, struct err *e)
{
    const struct queue_in *in = req->in;
    const struct durable_queue queue = {
        .name = req->args[0].p,
        .concurrency = (unsigned)in->concurrency,
        .worker_concurrency = (unsigned)in->worker_concurrency,
        .rate_max = (unsigned)in->rate_max,
        .rate_period_ms = ms_of(in->rate_period_s),
        .partition_concurrency = (unsigned)in->partition_concurrency,
        .partition_worker_concurrency = (unsigned)in->partition_worker_concurrency,
        .partition_rate_max = (unsigned)in->partition_rate_max,
        .partition_rate_period_ms = ms_of(in->partition_rate_period_s),
        .polling_ms = ms_of(in->polling_s),
        .hold_slot = in->hold_slot,
    };
    int r;

    r = check_name(req->args[0], e);
    if (r == 0)
        r = check_rates(in, e);
    return r < 0 ? r : durable_queue_put(req->room, &queue, e);
}

CO int api_queue_delete(struct http_req *req, struct err *e)
{
    return durable_queue_remove(req->room, req->args[0], e);
}
