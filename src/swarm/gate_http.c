/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_http.c — POST /messages, and the routes of chat and skills, which check what they are
 * given and then say that nobody here does that.
 */
#include <string.h>

#include "base/log.h"
#include "base/rand.h"
#include "swarm/gate_int.h"

#define JSON_TYPE "application/json; charset=utf-8"

struct async_query {
    bool async;
};
static const struct shape_field async_fields[] = {
    FIELD(struct async_query, async, .coerce = true,
          .doc = "Answer 202 with the workflowUuid at once; see GET /workflows/{uuid}."),
};
const struct shape gate_async_shape = SHAPE(struct async_query, "GatewayAsync", async_fields);

bool gate_is_async(const struct http_req *req)
{
    const struct async_query *query = req->query;

    return query->async;
}

struct message_body {
    json_t *id;
    const char *from, *to, *content;
    json_t *metadata;
};
/* clang-format off */
static const struct shape_field message_fields[] = {
    FIELD(struct message_body, id, .nullable = true,
          .doc = "Of the sender: what is sent again with the same id, from and to is one message."),
    FIELD(struct message_body, from, .nullable = true), FIELD(struct message_body, to, .nullable = true, .doc = "Session key of the recipient."),
    FIELD(struct message_body, content, .nullable = true), FIELD(struct message_body, metadata, .nullable = true),
};
static const struct shape message_shape = SHAPE(struct message_body, "GatewayMessage", message_fields);

struct message_result {
    const char *messageId, *status;
    int64_t deliveryAttempts, lastAttemptTime;
    const char *response;
};
static const struct shape_field result_fields[] = {
    FIELD(struct message_result, messageId), FIELD(struct message_result, status, .doc = "delivered: it is in the recipient's mailbox."),
    FIELD(struct message_result, deliveryAttempts), FIELD(struct message_result, lastAttemptTime),
    FIELD(struct message_result, response, .omit = true, .doc = "Of an agent that replies."),
};
static const struct shape result_shape = SHAPE(struct message_result, "GatewayMessageResult", result_fields);

struct sent {
    bool success;
    const char *workflowUuid;
    const void *result;
};
static const struct shape_field sent_fields[] = {
    FIELD(struct sent, success), FIELD(struct sent, workflowUuid),
    FIELD(struct sent, result, .of = &result_shape, .omit = true),
};
static const struct shape sent_shape = SHAPE(struct sent, "GatewayMessageSent", sent_fields);
/* clang-format on */

/* {"success":true,"workflowUuid":…,"result":…}; result {0}: none, it is yet to come. */
int gate_reply_done(struct http_req *req, const char *workflow, struct str result, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    buf_init(&b, SIZE_MAX / 2);
    r = buf_add_z(&b, "{\"success\":true,\"workflowUuid\":", e);
    if (r == 0)
        r = json_write_str(&b, str_of(workflow), e);
    if (r == 0 && result.n)
        r = buf_add_z(&b, ",\"result\":", e);
    if (r == 0 && result.n)
        r = buf_add_str(&b, result, e);
    if (r == 0)
        r = buf_add_z(&b, "}", e);
    if (r == 0)
        http_reply_text(req, result.n ? 200 : 202, JSON_TYPE, arena_str(req->arena, buf_str(&b)));
    return r;
}

static int refuse(struct http_req *req, int status, const char *text, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    buf_init(&b, 4 * KIB);
    r = buf_add_z(&b, "{\"error\":", e);
    if (r == 0)
        r = json_write_str(&b, str_of(text), e);
    if (r == 0)
        r = buf_add_z(&b, "}", e);
    if (r == 0)
        http_reply_text(req, status, JSON_TYPE, arena_str(req->arena, buf_str(&b)));
    return r;
}

int gate_fail(const struct err *why, struct err *e)
{
    if (why->code == ERR_UNAVAILABLE) {
        log_debug("a request to the gateway failed", "error", LOG_ERR(why));
        return err_set(e, ERR_UNAVAILABLE, "%s", GATE_AWAY);
    }
    *e = *why;
    return -(int)why->code;
}

/* The original answered every fault with 500; a full mailbox it did not know. */
int gate_refuse(struct http_req *req, const struct err *why, bool full, struct err *e)
{
    const struct gate *g = req->room;

    if (why->code == ERR_INVALID)
        return refuse(req, g->s->settings->legacy_status ? 500 : 400, why->msg, e);
    if (why->code == ERR_LIMIT && full) {
        http_reply_header(req, "Retry-After", "1");
        return refuse(req, 429, why->msg, e);
    }
    return gate_fail(why, e);
}

static int read_message(const struct http_req *req, struct mail_in *in, struct err *e)
{
    const struct message_body *body = req->in;
    struct str key = http_header_get(req, "dbos-idempotency-key");
    int r = 0;

    if (!key.n)
        key = http_header_get(req, "Idempotency-Key");
    *in = (struct mail_in){
        .from = str_of(body->from),
        .to = str_of(body->to),
        .content = str_of(body->content),
        .workflow = key,
    };
    if (json_is_string(body->id))
        in->id = (struct str){ json_string_value(body->id), json_string_length(body->id) };
    else if (json_is_integer(body->id))
        in->id = str_of(arena_printf(req->arena, "%lld", (long long)json_integer_value(body->id)));
    else if (body->id)
        return err_set(e, ERR_INVALID, "Invalid message: id is not a text");
    if (!in->from.n || !in->to.n || !in->content.n)
        return err_set(e, ERR_INVALID, "Invalid message: missing required fields");
    if (body->metadata)
        r = json_text(body->metadata, SIZE_MAX / 2, req->arena, &in->metadata, e);
    return r;
}

/*
 * "msg_<ms>" as the original made it, and more digits: consumers know duplicates by it, so two of
 * one millisecond, of this process or another, must differ.
 */
static void name_message(struct http_req *req, struct mail_in *in)
{
    struct gate *g = req->room;

    if (!in->id.n)
        in->id = str_of(arena_printf(req->arena, "msg_%lld%06u%03u", (long long)swarm_now(),
                                     g->serial++ % 1000000, (unsigned)(rand_u64() % 1000)));
}

/* As long as a reply can come, and a caller waits. */
static CO int reply_of(struct http_req *req, const struct mail_out *out, struct buf *text,
                       struct err *e)
{
    struct gate *g = req->room;
    uint64_t wait_ms = (uint64_t)g->s->settings->agent_timeout_ms;
    int r;

    if ((!out->existed && !out->replies) || g->n_waits >= GATE_WAITS_ALL)
        return MAIL_NOTHING;
    g->n_waits++;
    r = mail_reply_wait(g->s->mail, str_of(out->workflow),
                        deadline_min(req->deadline_ms, now_ms() + (out->replies ? wait_ms : 0)),
                        text, e);
    g->n_waits--;
    return r;
}

static CO int post_message(struct http_req *req, struct err *e)
{
    struct gate *g = req->room;
    AUTO(buf_done) struct buf text = { 0 }, result = { 0 };
    struct mail_out out = { 0 };
    struct str response = { 0 };
    struct mail_in in;
    struct err why;
    int r;

    r = read_message(req, &in, &why);
    if (r == 0) {
        name_message(req, &in);
        r = mail_send(g->s->mail, &in, &out, &why);
    }
    if (r < 0)
        return gate_refuse(req, &why, out.full, e);
    if (gate_is_async(req))
        return gate_reply_done(req, out.workflow, (struct str){ 0 }, e);

    buf_init(&text, (size_t)g->s->settings->max_message);
    buf_init(&result, SIZE_MAX / 2);
    if (reply_of(req, &out, &text, &why) == 0)
        response = text.n ? buf_str(&text) : STR("");
    r = mail_result_json(&out, response, &result, e);
    return r < 0 ? r : gate_reply_done(req, out.workflow, buf_str(&result), e);
}

/* clang-format off */
const struct http_route gate_message_routes[] = {
    { HTTP_M_POST, "/messages", post_message, .need = NEED_AGENTS | NEED_BRIDGE, .in = &message_shape, .query = &gate_async_shape,
      .out = &sent_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "Send a message to a session: 200 when it is in its mailbox on the disk." },
};
/* clang-format on */
const size_t gate_message_routes_len = LEN(gate_message_routes);

/* --- what the original had and needs others for --- */

struct chat_body {
    const char *conversationId, *agentId, *workspaceId, *message, *userId;
};
static const struct shape_field chat_fields[] = {
    FIELD(struct chat_body, conversationId, .nullable = true),
    FIELD(struct chat_body, agentId, .nullable = true),
    FIELD(struct chat_body, workspaceId, .nullable = true),
    FIELD(struct chat_body, message, .nullable = true),
    FIELD(struct chat_body, userId, .nullable = true),
};
static const struct shape chat_shape = SHAPE(struct chat_body, "GatewayChat", chat_fields);

static bool given(const char *text)
{
    return text && *text;
}

static int post_chat(struct http_req *req, struct err *e)
{
    const struct chat_body *body = req->in;

    (void)e;
    if (!given(body->conversationId) || !given(body->agentId) || !given(body->workspaceId) ||
        !given(body->message))
        http_reply_text(
            req, 400, JSON_TYPE,
            STR("{\"error\":\"Missing required fields\",\"required\":[\"conversationId\""
                ",\"agentId\",\"workspaceId\",\"message\"]}"));
    else
        http_reply_text(req, 503, JSON_TYPE,
                        STR("{\"error\":\"Chat workflows are not available\",\"details\":\"This "
                            "gateway calls no language model by itself; send the message to an "
                            "agent with POST /messages\"}"));
    return 0;
}

/* clang-format off */
const struct http_route gate_chat_routes[] = {
    { HTTP_M_POST, "/chat", post_chat, .need = NEED_AGENTS | NEED_BRIDGE, .in = &chat_shape, .flags = ROUTE_OPTIONAL, .tag = "gateway",
      .doc = "Chat workflows of the original; answered with 503." },
};
/* clang-format on */
const size_t gate_chat_routes_len = LEN(gate_chat_routes);

struct skill_body {
    const char *skillName, *method, *agentId;
};
/* clang-format off */
static const struct shape_field skill_fields[] = {
    FIELD(struct skill_body, skillName, .nullable = true), FIELD(struct skill_body, method, .nullable = true, .doc = "npm or brew"),
    FIELD(struct skill_body, agentId, .nullable = true),
};
/* clang-format on */
const struct shape gate_skill_shape = SHAPE(struct skill_body, "GatewaySkill", skill_fields);

static int no_skills(struct http_req *req)
{
    http_reply_text(req, 503, JSON_TYPE,
                    STR("{\"error\":\"Skill workflows are not available\",\"details\":\"This "
                        "gateway installs and runs no skills\"}"));
    return 0;
}

int gate_skill_install(struct http_req *req, struct err *e)
{
    const struct skill_body *body = req->in;

    if (!given(body->skillName) || !given(body->method))
        return refuse(req, 400, "Missing required fields: skillName, method", e);
    if (strcmp(body->method, "npm") != 0 && strcmp(body->method, "brew") != 0)
        return refuse(req, 400, "Invalid method. Must be \"npm\" or \"brew\"", e);
    return no_skills(req);
}

int gate_skill_run(struct http_req *req, struct err *e)
{
    const struct skill_body *body = req->in;

    if (!given(body->skillName) || !given(body->agentId))
        return refuse(req, 400, "Missing required fields: skillName, agentId", e);
    return no_skills(req);
}
