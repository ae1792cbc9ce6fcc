/* SPDX-License-Identifier: MIT */
/*
 * durable/api_show.c — rows of the tables as answers. Values come in the formats of several
 * languages: those we can read are shown as JSON, the others as the texts they are.
 */
#include "durable/api_int.h"

enum { DEPTH = 512 };

/* clang-format off */
static const struct shape_field workflow_fields[] = {
    FIELD(struct workflow_out, id), FIELD(struct workflow_out, name), FIELD(struct workflow_out, class_name),
    FIELD(struct workflow_out, status, .doc = "ENQUEUED, DELAYED, PENDING, SUCCESS, ERROR, CANCELLED or MAX_RECOVERY_ATTEMPTS_EXCEEDED."),
    FIELD(struct workflow_out, queue), FIELD(struct workflow_out, user, .doc = "Who started it."), FIELD(struct workflow_out, roles),
    FIELD(struct workflow_out, executor, .doc = "The process that runs it, or ran it last."),
    FIELD(struct workflow_out, app_version), FIELD(struct workflow_out, app_name),
    FIELD(struct workflow_out, dedup_id), FIELD(struct workflow_out, partition_key), FIELD(struct workflow_out, parent),
    FIELD(struct workflow_out, forked_from), FIELD(struct workflow_out, was_forked_from), FIELD(struct workflow_out, schedule),
    FIELD(struct workflow_out, parked, .doc = "It waits for long and holds no memory."),
    FIELD(struct workflow_out, blocked_version, .doc = "It waits for a version that no living process runs."),
    FIELD(struct workflow_out, known, .doc = "This daemon implements its name."),
    FIELD(struct workflow_out, attempts, .doc = "Starts so far."), FIELD(struct workflow_out, priority),
    FIELD(struct workflow_out, timeout_ms), FIELD(struct workflow_out, created_at), FIELD(struct workflow_out, updated_at),
    FIELD(struct workflow_out, started_at), FIELD(struct workflow_out, completed_at), FIELD(struct workflow_out, deadline),
    FIELD(struct workflow_out, delay_until), FIELD(struct workflow_out, serialization), FIELD(struct workflow_out, attributes),
    FIELD(struct workflow_out, args, .omit = true), FIELD(struct workflow_out, named_args, .omit = true),
    FIELD(struct workflow_out, output, .omit = true), FIELD(struct workflow_out, error, .omit = true),
    FIELD(struct workflow_out, input_raw, .omit = true, .doc = "The stored text when its serialization cannot be read here."),
    FIELD(struct workflow_out, output_raw, .omit = true), FIELD(struct workflow_out, error_raw, .omit = true),
};
const struct shape shape_workflow = SHAPE(struct workflow_out, "Workflow", workflow_fields);

static const struct shape_field step_fields[] = {
    FIELD(struct step_out, id), FIELD(struct step_out, name),
    FIELD(struct step_out, child, .doc = "The workflow it started or waited for."),
    FIELD(struct step_out, serialization),
    FIELD(struct step_out, started_at), FIELD(struct step_out, completed_at),
    FIELD(struct step_out, output, .omit = true), FIELD(struct step_out, error, .omit = true),
    FIELD(struct step_out, output_raw, .omit = true), FIELD(struct step_out, error_raw, .omit = true),
};
const struct shape shape_step = SHAPE(struct step_out, "WorkflowStep", step_fields);

struct id_out { const char *id; };
static const struct shape_field id_fields[] = { FIELD(struct id_out, id) };
const struct shape shape_id = SHAPE(struct id_out, "WorkflowId", id_fields);

struct count_out { int64_t count; };
static const struct shape_field count_fields[] = { FIELD(struct count_out, count, .doc = "How many there were.") };
const struct shape shape_count = SHAPE(struct count_out, "WorkflowCount", count_fields);

struct refusal { const char *error; int64_t code; };
static const struct shape_field refusal_fields[] = {
    FIELD(struct refusal, error), FIELD(struct refusal, code, .doc = "DBOS's number of the error."),
};
static const struct shape shape_refusal = SHAPE(struct refusal, "WorkflowRefusal", refusal_fields);
/* clang-format on */

const char *text_of(struct str s, struct arena *a)
{
    return s.p ? arena_strndup(a, s.p, s.n) : NULL;
}

const char *time_text(int64_t ms, struct arena *a)
{
    char text[TIME_TEXT];

    if (!ms)
        return NULL;
    time_format_z(ms * 1000, text);
    return arena_strdup(a, text);
}

int time_given(const char *text, const char *field, int64_t *ret_ms, struct err *e)
{
    struct err not_a_number;
    long long ms;
    int64_t us;
    int r;

    *ret_ms = 0;
    if (!text)
        return 0;
    if (int_parse(str_of(text), 0, 253402300799999, &ms, &not_a_number) == 0) {
        *ret_ms = ms;
        return 0;
    }
    r = time_parse(str_of(text), &us, e);
    if (r < 0)
        return err_wrap(e, "%s", field);
    if (us < 0)
        return err_set(e, ERR_INVALID, "%s: a time before 1970", field);
    *ret_ms = us / 1000;
    return 0;
}

static json_t *parsed(struct str text, struct arena *a)
{
    struct err unread;
    json_t *j;

    return text.p && json_parse(text, DEPTH, a, &j, NULL, &unread) == 0 ? j : NULL;
}

static void drop_json(void *p)
{
    json_decref(p);
}

json_t *value_json(struct str text, struct str serialization, struct arena *a)
{
    AUTO(buf_done) struct buf plain;
    struct err unread;

    buf_init(&plain, SIZE_MAX / 2); /* the row was bounded when it was written */
    if (!text.p)
        return NULL;
    if (wire_read_value(wire_format_of(serialization), text, &plain, &unread) < 0)
        return NULL;
    return parsed(buf_str(&plain), a);
}

json_t *error_json(struct str text, struct str serialization, struct arena *a)
{
    struct wire_error error;
    struct err unread;
    json_t *j, *part;

    if (!text.p || wire_read_error(wire_format_of(serialization), text, a, &error, &unread) < 0)
        return NULL;
    j = json_object();
    arena_on_free(a, drop_json, j);
    json_object_set_new(j, "name", json_stringn(error.name.p ? error.name.p : "", error.name.n));
    json_object_set_new(j, "message",
                        json_stringn(error.message.p ? error.message.p : "", error.message.n));
    part = parsed(error.code, a);
    if (part)
        json_object_set(j, "code", part);
    part = parsed(error.data, a);
    if (part)
        json_object_set(j, "data", part);
    return j;
}

json_t *durable_info_output(const struct durable_info *info, struct arena *a)
{
    return value_json(info->output, info->serialization, a);
}

json_t *durable_info_error(const struct durable_info *info, struct arena *a)
{
    return error_json(info->error, info->serialization, a);
}

static void show_values(const struct durable_info *info, struct workflow_out *out, struct arena *a)
{
    enum wire_format format = wire_format_of(info->serialization);
    struct err unread;

    if (info->input.p &&
        wire_read_args(format, info->input, a, &out->args, &out->named_args, &unread) < 0)
        out->input_raw = text_of(info->input, a);
    out->output = value_json(info->output, info->serialization, a);
    if (info->output.p && !out->output)
        out->output_raw = text_of(info->output, a);
    out->error = error_json(info->error, info->serialization, a);
    if (info->error.p && !out->error)
        out->error_raw = text_of(info->error, a);
}

const struct workflow_out *show_workflow(const struct durable_info *info, struct arena *a)
{
    struct workflow_out *out = arena_new(a, struct workflow_out);

    *out = (struct workflow_out){
        .id = text_of(info->id, a),
        .name = text_of(info->name, a),
        .class_name = text_of(info->class_name, a),
        .status = durable_status_name(info->status),
        .queue = text_of(info->queue, a),
        .user = info->user.n ? text_of(info->user, a) : NULL,
        .executor = info->executor.n ? text_of(info->executor, a) : NULL,
        .app_version = text_of(info->app_version, a),
        .app_name = text_of(info->app_name, a),
        .dedup_id = text_of(info->dedup_id, a),
        .partition_key = text_of(info->partition, a),
        .parent = text_of(info->parent, a),
        .forked_from = text_of(info->forked_from, a),
        .schedule = text_of(info->schedule, a),
        .serialization = text_of(info->serialization, a),
        .was_forked_from = info->was_forked_from,
        .parked = info->parked,
        .blocked_version = info->blocked_version,
        .known = info->known,
        .attempts = info->attempts,
        .priority = info->priority,
        .timeout_ms = info->timeout_ms,
        .created_at = time_text(info->created_ms, a),
        .updated_at = time_text(info->updated_ms, a),
        .started_at = time_text(info->started_ms, a),
        .completed_at = time_text(info->completed_ms, a),
        .deadline = time_text(info->deadline_ms, a),
        .roles = parsed(info->roles, a),
        .attributes = parsed(info->attributes, a),
    };
    /* An open-ended wait is stored as a time that never comes. */
    if (info->delay_until_ms < 253402300800000)
        out->delay_until = time_text(info->delay_until_ms, a);
    show_values(info, out, a);
    return out;
}

const struct step_out *show_step(const struct durable_step_info *info, struct arena *a)
{
    struct step_out *out = arena_new(a, struct step_out);

    *out = (struct step_out){
        .id = info->id,
        .name = text_of(info->name, a),
        .child = text_of(info->child, a),
        .serialization = text_of(info->serialization, a),
        .started_at = time_text(info->started_ms, a),
        .completed_at = time_text(info->completed_ms, a),
        .output = value_json(info->output, info->serialization, a),
        .error = error_json(info->error, info->serialization, a),
    };
    if (info->output.p && !out->output)
        out->output_raw = text_of(info->output, a);
    if (info->error.p && !out->error)
        out->error_raw = text_of(info->error, a);
    return out;
}

CO int find_workflow(struct http_req *req, struct durable_info *ret, struct err *e)
{
    const struct durable_filter filter = { .ids = &req->args[0], .n_ids = 1, .limit = 1 };
    struct durable_info *found;
    size_t n;
    int r;

    r = durable_list(req->room, &filter, req->arena, &found, &n, e);
    if (r < 0)
        return r;
    if (n == 0)
        return err_set(e, ERR_NOT_FOUND, "Workflow '" STR_FMT "' not found", STR_ARG(req->args[0]));
    *ret = found[0];
    return 0;
}

int refuse(struct http_req *req, const struct err *why, enum durable_code code)
{
    struct refusal *out = arena_new(req->arena, struct refusal);

    *out = (struct refusal){ arena_strdup(req->arena, why->msg), (int64_t)code };
    req->status = http_status_of(why->code);
    req->out_shape = &shape_refusal;
    req->out = out;
    return 0;
}

int reply_id(struct http_req *req, const char *id)
{
    struct id_out *out = arena_new(req->arena, struct id_out);

    out->id = arena_strdup(req->arena, id);
    req->status = 201;
    req->out = out;
    return 0;
}

int reply_count(struct http_req *req, int64_t n)
{
    struct count_out *out = arena_new(req->arena, struct count_out);

    out->count = n;
    req->out = out;
    return 0;
}
