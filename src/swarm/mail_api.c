/* SPDX-License-Identifier: MIT */
/* The routes under /api/v1/messages: messages as JSON, and what may be done to them. */
#include <string.h>

#include "swarm/mail_int.h"

#define WAIT_MAX 3600 /* seconds */
#define READS    (NEED_READ | NEED_AGENTS)

struct message_out {
    int64_t position, attempts;
    const char *workflow_uuid, *message_id, *from, *to, *content, *status, *response, *error,
        *created_at, *expires_at, *ended_at;
    json_t *metadata;
};
struct messages_out {
    struct shape_list messages;
    int64_t next;
};
struct messages_query {
    const char *session, *from, *status;
    int64_t before, limit;
};
struct send_in {
    const char *id, *from, *to, *content, *key;
    json_t *metadata;
    double max_age, wait;
};
struct send_out {
    const char *workflow_uuid, *message_id, *accepted_at, *response;
    bool existed, live;
};

/* clang-format off */
static const struct shape_field message_fields[] = {
    FIELD(struct message_out, position, .doc = "Grows with every message; for before=."), FIELD(struct message_out, workflow_uuid),
    FIELD(struct message_out, message_id), FIELD(struct message_out, from), FIELD(struct message_out, to),
    FIELD(struct message_out, content), FIELD(struct message_out, metadata),
    FIELD(struct message_out, status, .doc = "pending, acknowledged, failed, expired or dropped."),
    FIELD(struct message_out, attempts, .doc = "Deliveries that nobody acknowledged."), FIELD(struct message_out, response),
    FIELD(struct message_out, error), FIELD(struct message_out, created_at), FIELD(struct message_out, expires_at),
    FIELD(struct message_out, ended_at),
};
static const struct shape message_shape = SHAPE(struct message_out, "Message", message_fields);
static const struct shape_field messages_fields[] = {
    FIELD(struct messages_out, messages, .of = &message_shape),
    FIELD(struct messages_out, next, .doc = "before= of the next page; 0: there is none."),
};
static const struct shape messages_shape = SHAPE(struct messages_out, "Messages", messages_fields);
static const struct shape_field messages_query_fields[] = {
    FIELD(struct messages_query, session, .doc = "To this session."), FIELD(struct messages_query, from, .doc = "From this one."),
    FIELD(struct messages_query, status, .doc = "Comma-separated: pending, acknowledged, failed, expired, dropped; dead: the last three."),
    FIELD(struct messages_query, before, .coerce = true, .min = 0, .max = -1, .doc = "Positions below this one."),
    FIELD(struct messages_query, limit, .coerce = true, .def = "50", .min = 1, .max = 1000),
};
static const struct shape messages_query_shape = SHAPE(struct messages_query, "MessagesQuery", messages_query_fields);
static const struct shape_field send_in_fields[] = {
    FIELD(struct send_in, id, .nullable = true, .doc = "Of the message, as its consumer will know it. With from and to it is the key, too."),
    FIELD(struct send_in, from, .required = true, .min = 1, .doc = "Session of the sender; notices go there."),
    FIELD(struct send_in, to, .required = true, .min = 1, .doc = "Session of the receiver."),
    FIELD(struct send_in, content, .required = true, .min = 1), FIELD(struct send_in, metadata, .nullable = true),
    FIELD(struct send_in, key, .nullable = true, .doc = "The same key again is the same message; also as the header Idempotency-Key."),
    FIELD(struct send_in, max_age, .nullable = true, .min = 0, .max = 315360000, .doc = "Seconds until it expires; 0: as messages.max_age says."),
    FIELD(struct send_in, wait, .nullable = true, .min = 0, .max = WAIT_MAX, .doc = "Seconds to wait for a reply, if there is somebody who replies."),
};
static const struct shape send_in_shape = SHAPE(struct send_in, "MessageToSend", send_in_fields);
static const struct shape_field send_out_fields[] = {
    FIELD(struct send_out, workflow_uuid), FIELD(struct send_out, message_id),
    FIELD(struct send_out, existed, .doc = "It was said before: nothing new was written."),
    FIELD(struct send_out, live, .doc = "Somebody is subscribed to the session, or delivers for it."),
    FIELD(struct send_out, accepted_at), FIELD(struct send_out, response),
};
static const struct shape send_out_shape = SHAPE(struct send_out, "MessageAccepted", send_out_fields);
/* clang-format on */

static const char *text(struct str s)
{
    return s.p; /* of the arena, terminated; NULL: none */
}

static const char *stamp(int64_t ms, struct arena *a)
{
    char *out = ms ? arena_raw(a, TIME_TEXT) : NULL;

    if (out)
        time_format_z(ms * 1000, out);
    return out;
}

static const struct message_out *show(const struct mail_info *info, struct arena *a)
{
    struct message_out *out = arena_new(a, struct message_out);

    *out = (struct message_out){
        .position = info->position,
        .workflow_uuid = text(info->workflow),
        .message_id = text(info->id),
        .from = text(info->from),
        .to = text(info->to),
        .content = text(info->content),
        .status = mail_status_names[info->status],
        .attempts = info->attempts,
        .response = text(info->response),
        .error = text(info->error),
        .created_at = stamp(info->created_ms, a),
        .expires_at = stamp(info->expires_ms, a),
        .ended_at = stamp(info->ended_ms, a),
    };
    if (info->metadata.p && json_parse(info->metadata, 64, a, &out->metadata, NULL, NULL) < 0)
        out->metadata = NULL; /* not written by us */
    return out;
}

static int statuses_of(const char *given, unsigned *ret, struct err *e)
{
    struct str rest = str_of(given ? given : ""), one;

    *ret = 0;
    while (str_split(&rest, ',', &one)) {
        unsigned found = 0;

        for (int i = 0; i < MAIL_STATUSES; i++) {
            if (str_eq_z(one, mail_status_names[i]))
                found = 1u << i;
        }
        if (str_eq_z(one, "dead"))
            found = 1u << MAIL_FAILED | 1u << MAIL_EXPIRED | 1u << MAIL_DROPPED;
        if (!found)
            return err_set(e, ERR_INVALID,
                           "status is pending, acknowledged, failed, expired, "
                           "dropped or dead");
        *ret |= found;
    }
    return 0;
}

static CO int list(struct http_req *req, struct err *e)
{
    const struct messages_query *query = req->query;
    struct messages_out *out = arena_new(req->arena, struct messages_out);
    struct mail_filter filter = {
        .session = str_of(query->session),
        .from = str_of(query->from),
        .before = query->before,
        .limit = (unsigned)query->limit,
    };
    struct mail_info *found;
    int r = statuses_of(query->status, &filter.statuses, e);

    if (r == 0)
        r = mail_list(req->room, &filter, req->arena, &found, &out->messages.n, e);
    if (r < 0)
        return r;
    out->messages.v = arena_alloc(req->arena, (out->messages.n + 1) * sizeof(*out->messages.v));
    for (size_t i = 0; i < out->messages.n; i++)
        out->messages.v[i] = show(&found[i], req->arena);
    if (out->messages.n == filter.limit)
        out->next = found[out->messages.n - 1].position;
    req->out = out;
    return 0;
}

static CO int get(struct http_req *req, struct err *e)
{
    struct mail_info info;
    int r = mail_get(req->room, req->args[0], req->arena, &info, e);

    if (r == 0)
        req->out = show(&info, req->arena);
    return r;
}

static int reply_full(struct http_req *req, const struct err *why, struct err *e)
{
    struct str body;
    json_t *j = json_pack("{s:s}", "error", why->msg);
    int r = json_text(j, 4 * KIB, req->arena, &body, e);

    json_decref(j);
    if (r < 0)
        return r;
    http_reply_header(req, "Retry-After", "1");
    http_reply_text(req, 429, "application/json", body);
    return 0;
}

static int read_send(struct http_req *req, struct mail_in *ret, struct err *e)
{
    const struct send_in *in = req->in;
    struct str key = http_header_get(req, "Idempotency-Key");
    const struct mail *m = req->room;

    if (!key.n)
        key = http_header_get(req, "dbos-idempotency-key");
    *ret = (struct mail_in){
        .id = str_of(in->id),
        .from = str_of(in->from),
        .to = str_of(in->to),
        .content = str_of(in->content),
        .workflow = in->key ? str_of(in->key) : key,
        .max_age_ms = (uint64_t)(in->max_age * 1000),
    };
    if (!in->metadata || json_is_null(in->metadata))
        return 0;
    return json_text(in->metadata, (size_t)m->set->max_message, req->arena, &ret->metadata, e);
}

static CO int send_one(struct http_req *req, struct err *e)
{
    const struct send_in *in = req->in;
    struct send_out *out = arena_new(req->arena, struct send_out);
    struct mail *m = req->room;
    AUTO(buf_done) struct buf reply;
    struct mail_out sent;
    struct mail_in mail;
    int r;

    buf_init(&reply, (size_t)m->set->max_message);
    r = read_send(req, &mail, e);
    if (r == 0)
        r = mail_send(m, &mail, &sent, e);
    if (r < 0)
        return mail_full(e) ? reply_full(req, e, e) : r;
    if (in->wait > 0)
        r = mail_reply_wait(m, str_of(sent.workflow), deadline_in((long long)(in->wait * 1000)),
                            &reply, e);
    if (r < 0)
        return r;
    *out = (struct send_out){
        .workflow_uuid = arena_strdup(req->arena, sent.workflow),
        .message_id = arena_strdup(req->arena, sent.id),
        .accepted_at = stamp(sent.accepted_ms, req->arena),
        .existed = sent.existed,
        .live = sent.live,
    };
    if (in->wait > 0 && r == 0)
        out->response = arena_str(req->arena, buf_str(&reply)).p;
    req->out = out;
    return 0;
}

static CO int replay(struct http_req *req, struct err *e)
{
    int r = mail_replay(req->room, req->args[0], e);

    return r < 0 ? r : get(req, e);
}

static CO int drop(struct http_req *req, struct err *e)
{
    int r = mail_drop(req->room, req->args[0], e);

    return r < 0 ? r : get(req, e);
}

/* clang-format off */
const struct http_route mail_routes[] = {
    { HTTP_M_GET, "/api/v1/messages", list, READS, .query = &messages_query_shape, .out = &messages_shape, .tag = "messages",
      .doc = "Messages, the newest first." },
    { HTTP_M_POST, "/api/v1/messages", send_one, NEED_AGENTS, .in = &send_in_shape, .out = &send_out_shape, .status = 201, .tag = "messages",
      .doc = "Send a message. When this answers it is on the disk; a mailbox that is full is 429." },
    { HTTP_M_GET, "/api/v1/messages/{id}", get, READS, .out = &message_shape, .flags = ROUTE_SLASH, .tag = "messages",
      .doc = "One message, by its workflow_uuid or its message id." },
    { HTTP_M_POST, "/api/v1/messages/{id}/replay", replay, NEED_AGENTS, .out = &message_shape, .flags = ROUTE_SLASHES, .tag = "messages",
      .doc = "Make a dead message due again, its deliveries counted from 0." },
    { HTTP_M_POST, "/api/v1/messages/{id}/drop", drop, NEED_AGENTS, .out = &message_shape, .flags = ROUTE_SLASHES, .tag = "messages",
      .doc = "Do not deliver a message that waits." },
};
/* clang-format on */
const size_t mail_routes_len = LEN(mail_routes);
