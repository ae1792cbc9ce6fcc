/* SPDX-License-Identifier: MIT */
/* swarm/life_api_talk.c — heartbeats by hand and messages to agents, over HTTP. */
#include <string.h>

#include "base/id.h"
#include "base/secret.h"
#include "swarm/life_api.h"
#include "swarm/mail.h"

/* clang-format off */
static const struct sql sql_execution = {
    "beat show",
    "SELECT CAST(status AS TEXT), checklist_items, started_at, completed_at, duration_seconds, error_message"
    " FROM agent_heartbeat_executions WHERE id = ?1",
    NULL,
};
/* clang-format on */

struct execution {
    struct str id;
    json_t *doc;
};

static json_t *z_time(const struct store_row *row, int col)
{
    char text[TIME_TEXT];

    if (row_is_null(row, col))
        return json_null();
    time_format_z(row_int(row, col) * 1000, text);
    return json_string(text);
}

static json_t *z_text(struct str s)
{
    return s.p ? json_stringn(s.p, s.n) : json_null();
}

static int take_execution(struct store_row *row, void *arg, struct err *e)
{
    struct execution *x = arg;

    json_object_set_new(x->doc, "status", z_text(row_str(row, 0)));
    json_object_set_new(x->doc, "checklist_items", life_json(row_str(row, 1), json_null()));
    json_object_set_new(x->doc, "started_at", z_time(row, 2));
    json_object_set_new(x->doc, "completed_at", z_time(row, 3));
    json_object_set_new(x->doc, "duration_seconds",
                        row_is_null(row, 4) ? json_null() : json_real(row_real(row, 4)));
    json_object_set_new(x->doc, "error_message", z_text(row_str(row, 5)));
    return 0;
}

static int execution_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct execution *x = arg;
    const struct sql_arg args[] = { SQL_STR(x->id) };

    return store_run(tx, &sql_execution, args, LEN(args), take_execution, x, e);
}

/* The same key is the same heartbeat: its id is made from the key. */
static void execution_id(struct http_req *req, const struct agent_info *row, char out[UUID_TEXT])
{
    struct str key = http_header_get(req, "idempotency-key");
    char hex[2 * SECRET_KEY + 1];

    if (!key.n)
        key = http_header_get(req, "dbos-idempotency-key");
    uuid_v4(out);
    if (!key.n)
        return;
    sha256_hex(str_of(arena_printf(req->arena, "beat|" STR_FMT "|" STR_FMT, STR_ARG(row->id),
                                   STR_ARG(key))),
               hex);
    fmt_z(out, UUID_TEXT, "%.8s-%.4s-8%.3s-8%.3s-%.12s", hex, hex + 8, hex + 12, hex + 15,
          hex + 18);
}

static CO int reply_execution(struct http_req *req, const struct agent_info *row, const char *id,
                              const char *workflow, struct err *e)
{
    const struct life *l = req->room;
    struct execution x = { .id = str_of(id), .doc = json_object() };
    int r;

    json_object_set_new(x.doc, "id", json_string(id));
    json_object_set_new(x.doc, "agent_id", json_stringn(row->id.p, row->id.n));
    r = store_read(l->s->conf.store, execution_body, &x, e);
    if (r < 0) {
        json_decref(x.doc);
        return r;
    }
    json_object_set_new(
        x.doc, "message",
        json_string(arena_printf(req->arena, "Heartbeat executed for agent '" STR_FMT "'",
                                 STR_ARG(row->name))));
    json_object_set_new(x.doc, "workflow_uuid", json_string(workflow));
    return agent_api_reply(req, 0, x.doc, e);
}

static CO int execute(struct http_req *req, const struct agent_info *row, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    struct durable_started started;
    char id[UUID_TEXT];
    json_t *request;
    int r;

    execution_id(req, row, id);
    request = json_pack("{s:s%, s:s, s:o}", "agentId", row->id.p, row->id.n, "executionId", id,
                        "checklist", life_json(row->checklist, json_array()));
    if (row->session.p)
        json_object_set_new(request, "sessionKey", json_stringn(row->session.p, row->session.n));
    buf_init(&out, LIFE_PAYLOAD);
    r = life_flow(req->room, OP_HEARTBEAT, request, req->deadline_ms, &started, &out, e);
    json_decref(request);
    return r < 0 ? r : reply_execution(req, row, id, started.id, e);
}

static CO int say_alive(struct http_req *req, const struct agent_info *row, struct err *e)
{
    int r = life_alive(req->room, row->session, e);

    if (r < 0 && r != -ERR_NOT_FOUND)
        return r;
    return agent_api_reply(
        req, 0,
        json_pack("{s:s, s:s%, s:s}", "status", "alive", "agent_id", row->id.p, row->id.n,
                  "message",
                  arena_printf(req->arena, "Agent '" STR_FMT "' lives", STR_ARG(row->name))),
        e);
}

CO int agent_api_beat(struct http_req *req, struct err *e)
{
    const struct beat_in *in = req->in;
    enum life_verdict verdict;
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = life_judge(OP_HEARTBEAT, row.status, &verdict, e);
    if (r == 0)
        r = in->kind && strcmp(in->kind, "alive") == 0 ? say_alive(req, &row, e)
                                                       : execute(req, &row, e);
    return agent_api_error(r, e);
}

/* --- messages --- */

/* What the agent replies in time, or that it was delivered. */
static CO int reply_of(struct http_req *req, const struct agent_info *row,
                       const struct mail_out *sent, struct str *ret, struct err *e)
{
    const struct life *l = req->room;
    AUTO(buf_done) struct buf out = { 0 };
    uint64_t deadline_ms;
    int r = MAIL_NOTHING;

    buf_init(&out, LIFE_PAYLOAD);
    deadline_ms = deadline_min(req->deadline_ms, deadline_in(l->s->settings->agent_timeout_ms));
    if (sent->replies && l->s->settings->agent_timeout_ms > 0)
        r = mail_reply_wait(l->s->mail, str_of(sent->workflow), deadline_ms, &out, e);
    if (r < 0)
        return r;
    *ret = r == 0 ? arena_str(req->arena, buf_str(&out))
                  : str_of(arena_printf(req->arena, "Message delivered to " STR_FMT,
                                        STR_ARG(row->session)));
    return 0;
}

/* A key means a message of this caller to this agent. */
static struct str message_key(struct http_req *req, const struct agent_info *row)
{
    struct str key = http_header_get(req, "idempotency-key");
    char hex[2 * SECRET_KEY + 1];

    if (!key.n)
        key = http_header_get(req, "dbos-idempotency-key");
    if (!key.n)
        return (struct str){ 0 };
    sha256_hex(str_of(arena_printf(req->arena, "message|" STR_FMT "|" STR_FMT "|" STR_FMT,
                                   STR_ARG(row->id), STR_ARG(life_caller(req).user), STR_ARG(key))),
               hex);
    return str_of(arena_printf(req->arena, "msg:%s", hex));
}

static CO int say(struct http_req *req, const struct agent_info *row, struct err *e)
{
    const struct life *l = req->room;
    const struct message_in *body = req->in;
    struct mail_in in = {
        .from = STR("backend-api"),
        .to = row->session,
        .content = str_of(body->message),
        .workflow = message_key(req, row),
    };
    struct mail_out sent = { 0 };
    struct str text;
    int r;

    r = mail_send(l->s->mail, &in, &sent, e);
    if (r == -ERR_LIMIT && sent.full) {
        return agent_api_reply(req, 429, json_pack("{s:s}", "detail", e->msg), e);
    }
    if (r == 0)
        r = reply_of(req, row, &sent, &text, e);
    if (r < 0)
        return r;
    return agent_api_reply(req, 0,
                           json_pack("{s:s%, s:s%, s:s}", "response", text.p, text.n, "agent_id",
                                     row->id.p, row->id.n, "message_id", sent.id),
                           e);
}

CO int agent_api_message(struct http_req *req, struct err *e)
{
    enum life_verdict verdict;
    struct agent_info row;
    int r = agent_api_find(req, &row, e);

    if (r == 0)
        r = life_judge(OP_MESSAGE, row.status, &verdict, e);
    if (r == 0)
        r = say(req, &row, e);
    return agent_api_error(r, e);
}
