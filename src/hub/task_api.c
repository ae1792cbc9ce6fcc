/* SPDX-License-Identifier: MIT */
/* The routes of tasks. Records are texts already; they are put into the answer as they are. */
#include <stdlib.h>

#include "hub/api.h"
#include "hub/task_int.h"

#define WAIT_MAX  60000
#define LIST_MAX  1000
#define MARGIN_MS 1000 /* before the server's own limit of a request ends it */
#define READS     (NEED_READ | NEED_AGENTS)

struct wait_query {
    int64_t wait;
};
struct list_query {
    const char *state;
    int64_t before, limit;
};
static const char *const states[] = {
    "queued", "sent", "running", "completed", "failed", "timeout", "canceled", "lost", NULL,
};

/* clang-format off */
static const struct shape_field wait_fields[] = {
    FIELD(struct wait_query, wait, .coerce = true, .min = 0, .max = -1, .doc = "ms to wait for the end, at most 60000."),
};
static const struct shape wait_shape = SHAPE(struct wait_query, "TaskWait", wait_fields);
static const struct shape_field list_fields[] = {
    FIELD(struct list_query, state, .one_of = states),
    FIELD(struct list_query, before, .coerce = true, .min = 0, .max = -1, .doc = "Only tasks of a lower seq."),
    FIELD(struct list_query, limit, .coerce = true, .def = "100", .min = 1, .max = LIST_MAX),
};
static const struct shape list_shape = SHAPE(struct list_query, "TasksQuery", list_fields);
/* clang-format on */

static uint64_t deadline_of(const struct http_req *req, int64_t wait_ms)
{
    if (wait_ms <= 0)
        return 0;
    if (wait_ms > WAIT_MAX)
        wait_ms = WAIT_MAX;
    return deadline_min(deadline_in(wait_ms), req->deadline_ms == DEADLINE_NONE
                                                  ? DEADLINE_NONE
                                                  : req->deadline_ms - MARGIN_MS);
}

static struct str text_in(struct http_req *req, const char *before, struct str text)
{
    const char *whole = arena_printf(req->arena, "%s" STR_FMT "}", before, STR_ARG(text));

    free((char *)(uintptr_t)text.p);
    return str_of(whole);
}

/* --- one task --- */

static CO int answer_task(struct http_req *req, struct str agent, struct str id, int64_t wait_ms,
                          struct err *e)
{
    struct str text;
    int r = task_await(req->room, agent, id, deadline_of(req, wait_ms), &text, e);

    if (r < 0)
        return r;
    http_reply_text(req, 200, HUB_JSON, text_in(req, "{\"task\":", text));
    return 0;
}

static CO int known_agent(const struct http_req *req, struct err *e)
{
    const struct tasks *t = req->room;

    if (!hub_agents_find(t->h->agents, req->args[0]))
        hub_agents_ask(t->h->agents, req->args[0]); /* another daemon may know it */
    if (hub_agents_find(t->h->agents, req->args[0]))
        return 0;
    return err_set(e, ERR_NOT_FOUND, "Agent not found");
}

static CO int get_task(struct http_req *req, struct err *e)
{
    const struct wait_query *query = req->query;

    return answer_task(req, (struct str){ 0 }, req->args[0], query->wait, e);
}

static CO int get_agent_task(struct http_req *req, struct err *e)
{
    const struct wait_query *query = req->query;

    return answer_task(req, req->args[0], req->args[1], query->wait, e);
}

static CO int cancel(struct http_req *req, struct str agent, struct str id, struct err *e)
{
    const struct wait_query *query = req->query;
    int r = task_cancel_by(req->room, agent, id, str_of(req->who.name), req->peer, e);

    return r < 0 ? r : answer_task(req, agent, id, query->wait, e);
}

static CO int post_cancel(struct http_req *req, struct err *e)
{
    return cancel(req, (struct str){ 0 }, req->args[0], e);
}

static CO int post_agent_cancel(struct http_req *req, struct err *e)
{
    return cancel(req, req->args[0], req->args[1], e);
}

static CO int get_output(struct http_req *req, struct err *e)
{
    return task_output_stream(req->room, req, req->args[0], e);
}

/* --- lists --- */

static CO int answer_list(struct http_req *req, struct str agent, struct err *e)
{
    const struct list_query *query = req->query;
    AUTO(buf_done) struct buf b;
    int r;

    buf_init(&b, TASK_TEXT_MAX * 2);
    r = buf_add_z(&b, "{\"tasks\":", e);
    if (r == 0)
        r = task_list_text(req->room, agent, query->state, query->before, (size_t)query->limit, &b,
                           e);
    if (r == 0)
        r = buf_add_z(&b, "}", e);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

static CO int get_tasks(struct http_req *req, struct err *e)
{
    return answer_list(req, (struct str){ 0 }, e);
}

static CO int get_agent_tasks(struct http_req *req, struct err *e)
{
    int r = known_agent(req, e);

    return r < 0 ? r : answer_list(req, req->args[0], e);
}

/* --- a new one --- */

static int answer_sent(struct http_req *req, struct str id, bool queued, struct str record,
                       struct err *e)
{
    AUTO(buf_done) struct buf b;
    int r;

    buf_init(&b, TASK_TEXT_MAX);
    r = buf_add_z(&b, "{\"taskId\":", e);
    if (r == 0)
        r = json_write_str(&b, id, e);
    if (r == 0)
        r = buf_add_z(&b, ",\"status\":\"sent\"", e);
    if (r == 0 && queued)
        r = buf_add_z(&b, ",\"queued\":true", e);
    if (r == 0 && record.p)
        r = buf_add_z(&b, ",\"task\":", e);
    if (r == 0 && record.p)
        r = buf_add_str(&b, record, e);
    if (r == 0)
        r = buf_add_z(&b, "}", e);
    free((char *)(uintptr_t)record.p);
    return r < 0 ? r : hub_reply(req, 200, &b, e);
}

/* Its row is there; what the original said is said, with the record for those who waited. */
static CO int answer_new(struct http_req *req, struct str id, struct err *e)
{
    const struct wait_query *query = req->query;
    const struct task *task = task_find(req->room, id);
    bool queued = task && task->state == TASK_QUEUED;
    struct str record = { 0 };
    int r = 0;

    if (query->wait > 0)
        r = task_await(req->room, req->args[0], id, deadline_of(req, query->wait), &record, e);
    return r < 0 ? r : answer_sent(req, id, queued, record, e);
}

static CO int post_task(struct http_req *req, struct err *e)
{
    struct tasks *t = req->room;
    char id[TASK_ID_MAX + 1];
    json_t *body;
    int r = known_agent(req, e);

    if (r == 0)
        r = hub_body(req, &body, e);
    if (r == 0 && !json_is_object(body))
        r = err_set(e, ERR_INVALID, "a task must be a JSON object");
    if (r == 0)
        r = task_accept(t, req->args[0], body, STR("host"), str_of(req->who.name), req->peer, id,
                        e);
    if (r == -ERR_LIMIT) {
        hub_refuse(req, 429, arena_strdup(req->arena, e->msg));
        return 0;
    }
    return r < 0 ? r : answer_new(req, str_of(id), e);
}

/* clang-format off */
#define ROW(verb, where, fn, ...) \
    { .method = HTTP_M_##verb, .path = where, .run = fn, .tag = "Hub: tasks", __VA_ARGS__ }
const struct http_route task_routes[] = {
    ROW(POST, "/agents/{id}/task", post_task, .need = NEED_AGENTS, .query = &wait_shape,
        .doc = "Give an agent a task: the body is the task. It is on disk when this answers; ?wait= adds its record once it has ended."),
    ROW(GET,  "/agents/{id}/tasks", get_agent_tasks, .need = READS, .query = &list_shape,
        .doc = "Tasks of an agent, newest first."),
    ROW(GET,  "/agents/{id}/tasks/{task}", get_agent_task, .need = READS, .query = &wait_shape, .flags = ROUTE_SLASHES,
        .doc = "A task with its result; ?wait= waits for its end."),
    ROW(POST, "/agents/{id}/tasks/{task}/cancel", post_agent_cancel, .need = NEED_AGENTS, .query = &wait_shape, .flags = ROUTE_SLASHES,
        .doc = "Ask a task to end; 409 when it has."),
    ROW(GET,  "/tasks", get_tasks, .need = READS, .query = &list_shape,
        .doc = "Tasks of all agents, newest first."),
    ROW(GET,  "/tasks/{task}", get_task, .need = READS, .query = &wait_shape, .flags = ROUTE_SLASHES,
        .doc = "A task with its result; ?wait= waits for its end."),
    ROW(POST, "/tasks/{task}/cancel", post_cancel, .need = NEED_AGENTS, .query = &wait_shape, .flags = ROUTE_SLASHES,
        .doc = "Ask a task to end; 409 when it has."),
    ROW(GET,  "/tasks/{task}/output", get_output, .need = READS, .flags = ROUTE_STREAM | ROUTE_SLASHES,
        .doc = "Its live output as server-sent events: output {stream, offset, data}, at last end with the task."),
};
/* clang-format on */
const size_t task_routes_len = LEN(task_routes);
