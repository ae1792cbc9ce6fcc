/* SPDX-License-Identifier: MIT */
/* swarm/life_api.c — creating, showing, listing and moving agents over HTTP. */
#include "swarm/life_api.h"

#include <string.h>

enum { KEY_MAX = 255 }; /* bytes of an Idempotency-Key */

/* --- answering --- */

int agent_api_error(int r, struct err *e)
{
    if (r == -ERR_UNAVAILABLE)
        return err_set(e, ERR_UNAVAILABLE, "Durable workflow engine unavailable");
    return r;
}

int agent_api_reply(struct http_req *req, int status, json_t *doc, struct err *e)
{
    struct str text;
    int r = json_text(doc, SIZE_MAX / 2, req->arena, &text, e);

    json_decref(doc);
    if (r < 0)
        return r;
    http_reply_text(req, status, "application/json", text);
    return 0;
}

static json_t *text_json(struct str s)
{
    return s.p ? json_stringn(s.p, s.n) : json_null();
}

static json_t *time_json(struct http_req *req, int64_t ms)
{
    const char *text = time_python(ms, req->arena);

    return text ? json_string(text) : json_null();
}

/* What of a row is a list (or an object), and nothing else. */
static json_t *typed_json(struct str text, json_type type)
{
    json_t *value = life_json(text, json_null());

    if (json_typeof(value) == type)
        return value;
    json_decref(value);
    return json_null();
}

static json_t *health_json(const struct agent_info *row)
{
    if (row->status != AGENT_RUNNING || !row->heartbeat || !row->interval.n)
        return json_null();
    return json_string(row->silent ? "silent" : "ok");
}

json_t *agent_json(struct http_req *req, const struct agent_info *row)
{
    const struct {
        const char *name;
        json_t *value;
    } members[] = {
        { "id", text_json(row->id) },
        { "name", text_json(row->name) },
        { "persona", text_json(row->persona) },
        { "model", text_json(row->model) },
        { "user_id", text_json(row->user) },
        { "workspace_id", text_json(row->workspace) },
        { "status", json_string(agent_status_names[row->status]) },
        { "openclaw_session_key", text_json(row->session) },
        { "openclaw_agent_id", text_json(row->openclaw_id) },
        { "heartbeat_enabled", json_boolean(row->heartbeat) },
        { "heartbeat_interval", text_json(row->interval) },
        { "heartbeat_checklist", typed_json(row->checklist, JSON_ARRAY) },
        { "last_heartbeat_at", time_json(req, row->last_beat_ms) },
        { "next_heartbeat_at", time_json(req, row->next_beat_ms) },
        { "configuration", typed_json(row->configuration, JSON_OBJECT) },
        { "error_message", text_json(row->error) },
        { "error_count", json_integer(row->error_count) },
        { "created_at", time_json(req, row->created_ms) },
        { "updated_at", time_json(req, row->updated_ms) },
        { "provisioned_at", time_json(req, row->provisioned_ms) },
        { "paused_at", time_json(req, row->paused_ms) },
        { "stopped_at", time_json(req, row->stopped_ms) },
        { "health", health_json(row) },
    };
    json_t *doc = json_object();

    for (size_t i = 0; i < LEN(members); i++)
        json_object_set_new(doc, members[i].name, members[i].value);
    return doc;
}

static int reply_agent(struct http_req *req, const struct agent_info *row, struct err *e)
{
    return agent_api_reply(req, 0, agent_json(req, row), e);
}

/* --- finding --- */

/* Python reads a UUID in upper case as the same one. */
static struct str lowered(struct http_req *req, struct str id)
{
    char *copy = arena_strndup(req->arena, id.p, id.n);

    if (id.n == 36)
        for (char *c = copy; *c; c++)
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 32) : *c;
    return (struct str){ copy, id.n };
}

CO int agent_api_find(struct http_req *req, struct agent_info *ret, struct err *e)
{
    int r = life_get(req->room, lowered(req, req->args[0]), req->arena, ret, e);

    if (r == 0)
        r = life_owned(req, ret, e);
    return agent_api_error(r, e);
}

CO int agent_api_get(struct http_req *req, struct err *e)
{
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    return r < 0 ? r : reply_agent(req, &row, e);
}

CO int agent_api_list(struct http_req *req, struct err *e)
{
    const struct list_query *q = req->query;
    struct life_owner who = life_caller(req);
    struct agent_filter f = {
        .user = who.user.n ? who.user : str_of(q->user_id),
        .workspace = who.user.n ? who.workspace : str_of(q->workspace_id),
        .name = str_of(q->name),
        .status = -1,
        .limit = q->limit,
        .offset = q->offset,
    };
    struct agent_info *rows;
    enum agent_status status;
    json_t *list;
    int64_t total;
    size_t n;
    int r;

    if (q->status && agent_status_parse(str_of(q->status), &status) == 0)
        f.status = (int)status;
    r = life_list(req->room, &f, req->arena, &rows, &n, &total, e);
    if (r < 0)
        return agent_api_error(r, e);
    list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, agent_json(req, &rows[i]));
    return agent_api_reply(req, 0,
                           json_pack("{s:o, s:I, s:I, s:I}", "agents", list, "total",
                                     (json_int_t)total, "limit", (json_int_t)q->limit, "offset",
                                     (json_int_t)q->offset),
                           e);
}

/* --- creating --- */

/* A member of the body whose type the shape could not tell: a list of texts. */
static int read_checklist(struct http_req *req, const json_t *list, struct str *ret, struct err *e)
{
    struct shape_issue issue = { .field = "heartbeat.checklist", .index = -1 };

    *ret = (struct str){ 0 };
    if (!list)
        return 0;
    issue.type = "list_type";
    issue.msg = "Input should be a valid list";
    issue.input = list;
    if (json_is_array(list)) {
        for (size_t i = 0; i < json_array_size(list); i++)
            if (!json_is_string(json_array_get(list, i))) {
                issue.type = "string_type";
                issue.msg = "Input should be a valid string";
                issue.index = (int)i;
                issue.input = json_array_get(list, i);
            }
        if (issue.index < 0)
            return json_text(list, LIFE_PAYLOAD, req->arena, ret, e);
    }
    (void)err_set(e, ERR_INVALID, "%s", issue.msg);
    dialect_fastapi.error(req, e, 422, &issue, "body");
    return 1;
}

static int read_key(struct http_req *req, struct str *ret, struct err *e)
{
    struct str key = http_header_get(req, "idempotency-key");

    if (!key.n)
        key = http_header_get(req, "dbos-idempotency-key");
    if (key.n > KEY_MAX || !utf8_valid(key.p ? key.p : "", key.n))
        return err_set(e, ERR_INVALID, "Idempotency-Key is longer than %d bytes, or no text",
                       KEY_MAX);
    *ret = key;
    return 0;
}

static int read_create(struct http_req *req, struct agent_new *in, struct err *e)
{
    const struct create_in *body = req->in;
    const struct heartbeat_in *beat = body->heartbeat;
    struct life_owner who = life_caller(req);
    int r = 0;

    *in = (struct agent_new){
        .name = str_of(body->name),
        .persona = str_of(body->persona),
        .model = str_of(body->model),
        .user = who.user,
        .workspace = body->workspace_id ? str_of(body->workspace_id) : who.workspace,
    };
    if (who.workspace.n && !str_eq_nocase(who.workspace, in->workspace))
        return err_set(e, ERR_FORBIDDEN, "Access denied: agent belongs to different workspace");
    if (body->configuration)
        r = json_text(body->configuration, LIFE_PAYLOAD, req->arena, &in->configuration, e);
    if (r < 0 || !beat)
        return r;
    in->heartbeat = beat->enabled;
    in->interval = str_of(beat->interval);
    return read_checklist(req, beat->checklist, &in->checklist, e);
}

/* 1: the answer has been given. */
static CO int create(struct http_req *req, struct agent_info *ret, struct err *e)
{
    struct str key = { 0 };
    struct agent_new in;
    int r = read_key(req, &key, e);

    if (r == 0)
        r = read_create(req, &in, e);
    if (r == 0)
        r = life_create(req->room, &in, key, req->deadline_ms, req->arena, ret, e);
    return agent_api_error(r, e);
}

CO int agent_api_create(struct http_req *req, struct err *e)
{
    struct agent_info row;
    int r = create(req, &row, e);

    return r ? (r < 0 ? r : 0) : reply_agent(req, &row, e);
}

CO int agent_api_provision_new(struct http_req *req, struct err *e)
{
    struct agent_info row;
    const char *message = "Agent provisioned successfully";
    json_t *doc;
    int r = create(req, &row, e);

    if (r != 0)
        return r < 0 ? r : 0;
    if (row.status == AGENT_FAILED)
        message =
            arena_printf(req->arena, "Agent provisioning failed: " STR_FMT, STR_ARG(row.error));
    doc = agent_json(req, &row);
    json_object_set_new(doc, "message", json_string(message));
    json_object_set_new(doc, "workflow_uuid", text_json(row.workflow));
    return agent_api_reply(req, 0, doc, e);
}

/* --- moving --- */

CO int agent_api_provision(struct http_req *req, struct err *e)
{
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = life_provision(req->room, row.id, req->deadline_ms, req->arena, &row, e);
    return r < 0 ? agent_api_error(r, e) : reply_agent(req, &row, e);
}

CO int agent_api_pause(struct http_req *req, struct err *e)
{
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = life_pause(req->room, row.id, req->arena, &row, e);
    return r < 0 ? agent_api_error(r, e) : reply_agent(req, &row, e);
}

CO int agent_api_resume(struct http_req *req, struct err *e)
{
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = life_resume(req->room, row.id, req->arena, &row, e);
    return r < 0 ? agent_api_error(r, e) : reply_agent(req, &row, e);
}

CO int agent_api_delete(struct http_req *req, struct err *e)
{
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = life_delete(req->room, row.id, e);
    return agent_api_error(r, e);
}

/* --- settings --- */

struct edit {
    const struct settings_in *in;
    struct str checklist, configuration;
    bool has_interval, has_checklist; /* named in the body, be it as null */
    struct life_step step;
    struct arena arena;
    struct agent_info row;
};

static void edit_beats(struct agent_info *row, const struct edit *edit,
                       const struct heartbeat_in *beat)
{
    int64_t every;

    row->heartbeat = beat->enabled;
    if (edit->has_interval)
        row->interval = str_of(beat->interval);
    if (edit->has_checklist)
        row->checklist = edit->checklist;
    every = life_interval_ms(row->interval);
    if (!row->heartbeat || !every)
        row->next_beat_ms = 0;
    else if (row->status == AGENT_RUNNING)
        row->next_beat_ms = row->updated_ms + every;
}

static void edit_row(struct agent_info *row, void *arg)
{
    const struct edit *edit = arg;

    if (edit->in->persona)
        row->persona = str_of(edit->in->persona);
    if (edit->in->model)
        row->model = str_of(edit->in->model);
    if (edit->configuration.n)
        row->configuration = edit->configuration;
    if (edit->in->heartbeat)
        edit_beats(row, edit, edit->in->heartbeat);
}

static int edit_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct edit *edit = arg;

    arena_done(&edit->arena);
    return life_move_tx(tx, &edit->step, &edit->arena, &edit->row, e);
}

/* What the shape cannot tell: whether a key is there as null, or not at all. */
static int look_for_nulls(struct http_req *req, struct edit *edit, struct err *e)
{
    json_t *doc;
    const json_t *beat;
    int r = json_parse(req->body, 512, req->arena, &doc, NULL, e);

    if (r < 0)
        return r;
    beat = json_object_get(doc, "heartbeat");
    edit->has_interval = json_object_get(beat, "interval") != NULL;
    edit->has_checklist = json_object_get(beat, "checklist") != NULL;
    return 0;
}

static int read_settings(struct http_req *req, struct edit *edit, struct err *e)
{
    const struct settings_in *in = edit->in = req->in;
    const struct heartbeat_in *beat = in->heartbeat;
    int r = look_for_nulls(req, edit, e);

    if (r == 0 && in->configuration)
        r = json_text(in->configuration, LIFE_PAYLOAD, req->arena, &edit->configuration, e);
    return r < 0 || !beat ? r : read_checklist(req, beat->checklist, &edit->checklist, e);
}

CO int agent_api_settings(struct http_req *req, struct err *e)
{
    struct life *l = req->room;
    struct agent_info row;
    struct edit edit = { 0 };
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = read_settings(req, &edit, e);
    if (r != 0)
        return r < 0 ? r : 0;
    edit.step = (struct life_step){ row.id, OP_SETTINGS, swarm_now(), edit_row, &edit };
    r = store_do(l->s->conf.store, edit_body, &edit, e);
    if (r >= 0) {
        beat_changed(l->beat, &edit.row);
        beat_fill(l->beat, &edit.row);
        r = reply_agent(req, &edit.row, e);
    }
    arena_done(&edit.arena);
    return agent_api_error(r, e);
}
