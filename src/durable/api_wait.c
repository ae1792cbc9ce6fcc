/* SPDX-License-Identifier: MIT */
/*
 * durable/api_wait.c — what a client waits for: a result, an event, the values of a stream. A
 * client that leaves cancels its wait.
 */
#include <limits.h>

#include "durable/api_int.h"
#include "durable/wait_int.h"

enum { STREAM_BATCH = 256, KEEP_ALIVE_MS = 15000 };

struct wait_query {
    double timeout;
};
struct result_out {
    const char *id, *status;
    json_t *output, *error;
};
struct event_out {
    const char *id, *key;
    json_t *value;
};
struct stream_query {
    int64_t offset;
    bool follow;
};

/* clang-format off */
static const struct shape_field wait_fields[] = {
    FIELD(struct wait_query, timeout, .def = "0", .min = 0, .max = 86400, .doc = "Seconds to wait for it at most."),
};
const struct shape shape_wait_query = SHAPE(struct wait_query, "WorkflowWait", wait_fields);

static const struct shape_field result_fields[] = {
    FIELD(struct result_out, id), FIELD(struct result_out, status), FIELD(struct result_out, output, .omit = true),
    FIELD(struct result_out, error, .omit = true, .doc = "{\"name\",\"message\",\"code\"?,\"data\"?}"),
};
const struct shape shape_result = SHAPE(struct result_out, "WorkflowResult", result_fields);

static const struct shape_field event_fields[] = {
    FIELD(struct event_out, id), FIELD(struct event_out, key), FIELD(struct event_out, value),
};
const struct shape shape_event = SHAPE(struct event_out, "WorkflowEvent", event_fields);

static const struct shape_field stream_fields[] = {
    FIELD(struct stream_query, offset, .min = 0, .max = INT_MAX, .doc = "The first value wanted; the header Last-Event-ID names the last one had."),
    FIELD(struct stream_query, follow, .def = "true", .doc = "Wait for further values until the stream ends."),
};
const struct shape shape_stream_query = SHAPE(struct stream_query, "WorkflowStreamQuery", stream_fields);
/* clang-format on */

static uint64_t wait_deadline(const struct http_req *req)
{
    const struct wait_query *query = req->query;

    return deadline_min(now_ms() + (uint64_t)(query->timeout * 1000), req->deadline_ms);
}

static int parse_value(const struct buf *text, struct arena *a, json_t **ret, struct err *e)
{
    if (!text->n) {
        *ret = NULL;
        return 0;
    }
    return json_parse(buf_str(text), 512, a, ret, NULL, e);
}

/* It has not ended in time: 202 and how far it is. 1: it has ended since, and has an outcome. */
CO static int still_running(struct http_req *req, struct result_out *out, struct err *e)
{
    struct durable_info info;
    int r;

    r = find_workflow(req, &info, e);
    if (r < 0)
        return r;
    if (!durable_status_active(info.status))
        return 1;
    out->status = durable_status_name(info.status);
    req->status = 202;
    req->out = out;
    return 0;
}

CO int api_result(struct http_req *req, struct err *e)
{
    struct result_out *out = arena_new(req->arena, struct result_out);
    AUTO(buf_done) struct buf text;
    enum durable_status status;
    int r;

    buf_init(&text, SIZE_MAX / 2); /* bounded when it was recorded */
    out->id = req->args[0].p;
    r = durable_await(req->room, req->args[0], wait_deadline(req), &status, &text, e);
    if (r == -ERR_TIMEOUT) {
        r = still_running(req, out, e);
        if (r <= 0)
            return r;
        r = durable_await(req->room, req->args[0], req->deadline_ms, &status, &text, e);
    }
    if (r < 0)
        return r;
    out->status = durable_status_name(status);
    r = parse_value(&text, req->arena, status == DURABLE_SUCCESS ? &out->output : &out->error, e);
    if (r == 0)
        req->out = out;
    return r;
}

CO int api_event(struct http_req *req, struct err *e)
{
    struct event_out *out = arena_new(req->arena, struct event_out);
    AUTO(buf_done) struct buf text;
    struct durable_info info;
    int r;

    buf_init(&text, SIZE_MAX / 2);
    *out = (struct event_out){ .id = req->args[0].p, .key = req->args[1].p };
    r = find_workflow(req, &info, e);
    if (r == 0)
        r = durable_peek_event(req->room, req->args[0], req->args[1], wait_deadline(req), &text, e);
    if (r == -ERR_TIMEOUT)
        return err_set(e, ERR_NOT_FOUND, "the workflow has set no event '" STR_FMT "' yet",
                       STR_ARG(req->args[1]));
    if (r == 0)
        r = parse_value(&text, req->arena, &out->value, e);
    if (r == 0)
        req->out = out;
    return r;
}

/* --- streams --- */

struct stream_value {
    int64_t offset;
    struct str json;
};
struct batch {
    struct arena *arena; /* of this batch alone: a stream may go on for days */
    struct stream_value *values;
    size_t n;
};

static int keep_value(int64_t offset, struct str json, void *arg, struct err *e)
{
    struct batch *b = arg;

    if (b->n == STREAM_BATCH)
        return err_set(e, ERR_INTERNAL, "more stream values than were asked for");
    b->values[b->n++] = (struct stream_value){ offset, arena_str(b->arena, json) };
    return 0;
}

CO static int send_batch(struct http_req *req, const struct batch *b, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < b->n; i++) {
        char id[24];

        fmt_z(id, sizeof(id), "%lld", (long long)b->values[i].offset);
        r = http_sse_send_id(req, id, NULL, b->values[i].json, e);
    }
    return r;
}

/* Read once from *offset on and send what there is. DURABLE_STREAM_END, 0 or <0. */
CO static int pass_on(struct http_req *req, int64_t *offset, uint64_t wait_ms, struct err *e)
{
    struct arena arena = { 0 };
    struct batch batch = { .arena = &arena };
    int r, sent;

    batch.values = arena_alloc(&arena, STREAM_BATCH * sizeof(*batch.values));
    r = durable_read_stream(req->room, req->args[0], req->args[1], *offset, STREAM_BATCH,
                            now_ms() + wait_ms, keep_value, &batch, e);
    sent = r < 0 ? 0 : send_batch(req, &batch, e);
    if (batch.n)
        *offset = batch.values[batch.n - 1].offset + 1;
    else if (r == 0)
        r = err_set(e, ERR_TIMEOUT, "no value came");
    arena_done(&arena);
    return sent < 0 ? sent : r;
}

CO static int follow(struct http_req *req, int64_t offset, bool wait, struct err *e)
{
    int r = 0;

    while (r == 0) {
        r = pass_on(req, &offset, wait ? KEEP_ALIVE_MS : 0, e);
        if (r == -ERR_TIMEOUT && !wait)
            return 0;
        if (r == -ERR_TIMEOUT)
            r = http_sse_comment(req, "keep-alive", e);
    }
    return r == DURABLE_STREAM_END ? http_sse_send(req, "end", STR("{}"), e) : r;
}

CO int api_stream(struct http_req *req, struct err *e)
{
    const struct stream_query *query = req->query;
    struct str last = http_header_get(req, "Last-Event-ID");
    int64_t offset = query->offset;
    struct durable_info info;
    long long had;
    int r;

    if (last.n) {
        r = int_parse(last, 0, INT_MAX, &had, e);
        if (r < 0)
            return err_wrap(e, "Last-Event-ID");
        offset = had + 1;
    }
    r = check_key(req->args[1], "the key", e); /* while a refusal can be answered */
    if (r == 0)
        r = find_workflow(req, &info, e);
    if (r == 0)
        r = http_stream_begin(req, 200, "text/event-stream", e);
    return r < 0 ? r : follow(req, offset, query->follow, e);
}
