/* SPDX-License-Identifier: MIT */
/*
 * durable/admin_io.c — what the admin routes take and answer, in the words of DBOS's TypeScript
 * releases: keys in its spelling, numbers as texts, what is empty left out.
 */
#include "durable/admin_int.h"

enum { BODY_DEPTH = 64, PAGE = 1000 };

/* --- answers --- */

static void drop_json(void *p)
{
    json_decref(p);
}

json_t *admin_keep(json_t *j, struct arena *a)
{
    arena_on_free(a, drop_json, j);
    return j;
}

int admin_reply(struct http_req *req, int status, json_t *answer, struct err *e)
{
    struct str text;
    int r;

    r = json_text(admin_keep(answer, req->arena), SIZE_MAX / 2, req->arena, &text, e);
    if (r == 0)
        http_reply_text(req, status, "application/json", text);
    return r;
}

int admin_error(struct http_req *req, int status, const char *text, struct err *e)
{
    return admin_reply(req, status, json_pack("{s:s}", "error", text), e);
}

void admin_put(json_t *o, const char *key, struct str value)
{
    if (value.n)
        json_object_set_new(o, key, json_stringn(value.p, value.n));
}

static void put_number(json_t *o, const char *key, int64_t value, bool even_zero)
{
    char text[24];

    if (!value && !even_zero)
        return;
    fmt_z(text, sizeof(text), "%lld", (long long)value);
    json_object_set_new(o, key, json_string(text));
}

/* A value as text: DBOS prints it in its language's way, we print JSON. */
static void put_json(json_t *o, const char *key, const json_t *value, struct str raw,
                     struct arena *a)
{
    struct err unwritten;
    struct str text = raw;

    if (value && json_text(value, SIZE_MAX / 2, a, &text, &unwritten) < 0)
        return;
    admin_put(o, key, text);
}

static void put_values(json_t *o, const struct durable_info *w, struct arena *a)
{
    json_t *args = NULL, *named = NULL;
    struct err unread;

    if (w->input.p &&
        wire_read_args(wire_format_of(w->serialization), w->input, a, &args, &named, &unread) < 0)
        args = NULL;
    put_json(o, "Input", args, w->input, a);
    put_json(o, "Output", value_json(w->output, w->serialization, a), w->output, a);
    put_json(o, "Error", error_json(w->error, w->serialization, a), w->error, a);
}

json_t *admin_workflow(const struct durable_info *w, struct arena *a)
{
    json_t *o = json_object();

    admin_put(o, "WorkflowUUID", w->id);
    admin_put(o, "Status", str_of(durable_status_name(w->status)));
    admin_put(o, "WorkflowName", w->name);
    admin_put(o, "WorkflowClassName", w->class_name);
    admin_put(o, "WorkflowConfigName", w->config_name);
    admin_put(o, "AuthenticatedUser", w->user);
    admin_put(o, "AssumedRole", w->role);
    admin_put(o, "AuthenticatedRoles", w->roles);
    put_values(o, w, a);
    put_number(o, "CreatedAt", w->created_ms, true);
    put_number(o, "UpdatedAt", w->updated_ms, true);
    admin_put(o, "QueueName", w->queue);
    admin_put(o, "ApplicationVersion", w->app_version);
    admin_put(o, "ExecutorID", w->executor);
    put_number(o, "WorkflowTimeoutMS", w->timeout_ms, false);
    put_number(o, "WorkflowDeadlineEpochMS", w->deadline_ms, false);
    admin_put(o, "DeduplicationID", w->dedup_id);
    put_number(o, "Priority", w->priority, true);
    admin_put(o, "QueuePartitionKey", w->partition);
    put_number(o, "DequeuedAt", w->started_ms, false);
    admin_put(o, "ForkedFrom", w->forked_from);
    admin_put(o, "ParentWorkflowID", w->parent);
    return o;
}

json_t *admin_step(const struct durable_step_info *s, struct arena *a)
{
    json_t *o = json_object();

    json_object_set_new(o, "function_id", json_integer(s->id));
    json_object_set_new(o, "function_name", json_stringn(s->name.p ? s->name.p : "", s->name.n));
    put_json(o, "output", value_json(s->output, s->serialization, a), s->output, a);
    put_json(o, "error", error_json(s->error, s->serialization, a), s->error, a);
    admin_put(o, "child_workflow_id", s->child);
    put_number(o, "started_at_epoch_ms", s->started_ms, false);
    put_number(o, "completed_at_epoch_ms", s->completed_ms, false);
    return o;
}

/* --- bodies --- */

/* The body as JSON; an empty one is {}. */
int admin_body(struct http_req *req, json_t **ret, struct err *e)
{
    int r = json_parse(req->body.n ? req->body : STR("{}"), BODY_DEPTH, req->arena, ret, NULL, e);

    return r < 0 ? err_wrap(e, "body") : 0;
}

int admin_object(struct http_req *req, json_t **ret, struct err *e)
{
    int r = admin_body(req, ret, e);

    if (r == 0 && !json_is_object(*ret))
        return err_set(e, ERR_INVALID, "body: an object is wanted");
    return r;
}

/* A text or a list of texts. */
int admin_texts(const json_t *body, const char *key, struct arena *a, const struct str **ret,
                size_t *ret_n, struct err *e)
{
    const json_t *value = json_object_get(body, key), *one;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    struct str *texts;

    *ret_n = 0;
    if (!value || json_is_null(value))
        return 0;
    if (n > DURABLE_IDS_MAX)
        return err_set(e, ERR_LIMIT, "%s: at most %d", key, DURABLE_IDS_MAX);
    texts = arena_alloc(a, (n + 1) * sizeof(*texts));
    for (size_t i = 0; i < n; i++) {
        one = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(one))
            return err_set(e, ERR_INVALID, "%s: a text or a list of texts", key);
        texts[i] = (struct str){ json_string_value(one), json_string_length(one) };
    }
    *ret = texts;
    *ret_n = n;
    return 0;
}

int admin_time(const json_t *body, const char *key, int64_t *ret, struct err *e)
{
    const json_t *value = json_object_get(body, key);

    *ret = 0;
    if (!value || json_is_null(value))
        return 0;
    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return 0;
    }
    if (!json_is_string(value))
        return err_set(e, ERR_INVALID, "%s: a time", key);
    return time_given(json_string_value(value), key, ret, e);
}

int admin_number(const json_t *body, const char *key, int64_t max, int64_t *ret, struct err *e)
{
    const json_t *value = json_object_get(body, key);

    if (!value || json_is_null(value))
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
        return err_set(e, ERR_INVALID, "%s: a whole number from 0 to %lld", key, (long long)max);
    *ret = json_integer_value(value);
    return 0;
}

static int read_statuses(const json_t *body, struct arena *a, unsigned *ret, struct err *e)
{
    const struct str *names = NULL;
    enum durable_status status;
    size_t n;
    int r;

    r = admin_texts(body, "status", a, &names, &n, e);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = durable_status_parse(names[i], &status, e);
        if (r == 0)
            *ret |= 1u << status;
    }
    return r;
}

int admin_filter(const json_t *body, struct durable_filter *f, struct arena *a, struct err *e)
{
    const struct {
        const char *key;
        const struct str **texts;
        size_t *n;
    } lists[] = {
        { "workflow_uuids", &f->ids, &f->n_ids },
        { "workflow_name", &f->names, &f->n_names },
        { "authenticated_user", &f->users, &f->n_users },
        { "application_version", &f->versions, &f->n_versions },
        { "executor_id", &f->executors, &f->n_executors },
        { "parent_workflow_id", &f->parents, &f->n_parents },
        { "queue_name", &f->queues, &f->n_queues },
        { json_object_get(body, "fork_from") ? "fork_from" : "forked_from", &f->forked_from,
          &f->n_forked_from },
    };
    int64_t limit = PAGE;
    int r = 0;

    for (size_t i = 0; r == 0 && i < LEN(lists); i++)
        r = admin_texts(body, lists[i].key, a, lists[i].texts, lists[i].n, e);
    if (r == 0)
        r = read_statuses(body, a, &f->statuses, e);
    if (r == 0)
        r = admin_time(body, "start_time", &f->created_from_ms, e);
    if (r == 0)
        r = admin_time(body, "end_time", &f->created_to_ms, e);
    if (r == 0)
        r = admin_number(body, "limit", PAGE, &limit, e);
    if (r == 0)
        r = admin_number(body, "offset", INT64_MAX, &f->offset, e);
    f->id_prefix = json_member_str(body, "workflow_id_prefix");
    f->descending = json_is_true(json_object_get(body, "sort_desc"));
    f->load_input = json_is_true(json_object_get(body, "load_input"));
    f->load_output = json_is_true(json_object_get(body, "load_output"));
    f->limit = (unsigned)limit;
    return r;
}
