/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_frames.c — what a frame of a client asks for. The gateway's client of old sent either
 * requests {"type":"req",id,method,params} or bare messages {id,from,to,content}; so whatever is an
 * object and no request is a message.
 */
#include "swarm/gate_int.h"

static const struct {
    const char *name;
    enum gate_method method;
} methods[] = {
    { "agent.send", METHOD_SEND },           { "agent.ack", METHOD_ACK },
    { "agent.reply", METHOD_REPLY },         { "agent.heartbeat", METHOD_HEARTBEAT },
    { "agent.subscribe", METHOD_SUBSCRIBE }, { "agent.unsubscribe", METHOD_UNSUBSCRIBE },
    { "connect", METHOD_CONNECT },
};

enum gate_method gate_method_of(struct str name)
{
    for (size_t i = 0; i < LEN(methods); i++)
        if (str_eq_z(name, methods[i].name))
            return methods[i].method;
    return METHOD_UNKNOWN;
}

/* An id is echoed in the very form it came in: a text or a number. */
static int read_id(const json_t *object, struct arena *a, struct gate_frame *ret, struct err *e)
{
    const json_t *id = json_object_get(object, "id");

    if (!id || json_is_null(id))
        return 0;
    if (!json_is_string(id) && !json_is_number(id))
        return err_set(e, ERR_INVALID, "id must be a text or a number");
    if (json_text(id, GATE_ID, a, &ret->id, e) < 0)
        return err_set(e, ERR_INVALID, "id is longer than %d bytes", GATE_ID);
    return 0;
}

static int read_frame(json_t *doc, struct arena *a, struct gate_frame *ret, struct err *e)
{
    json_t *params;
    int r;

    if (!json_is_object(doc))
        return err_set(e, ERR_INVALID, "Invalid message: not an object");
    ret->params = doc;
    ret->request = str_eq_z(json_member_str(doc, "type"), "req");
    r = read_id(doc, a, ret, e);
    if (r < 0 || !ret->request)
        return r;
    ret->name = json_member_str(doc, "method");
    if (!ret->name.n)
        return err_set(e, ERR_INVALID, "Invalid request: method is missing");
    ret->method = gate_method_of(ret->name);
    params = json_object_get(doc, "params");
    if (params && !json_is_object(params) && !json_is_null(params))
        return err_set(e, ERR_INVALID, "Invalid request: params is not an object");
    ret->params = json_is_object(params) ? params : NULL;
    return 0;
}

int gate_frame_parse(struct str text, struct arena *a, struct gate_frame *ret, struct err *e)
{
    json_t *doc = NULL;
    struct json_fail fail = { 0 };
    struct str mended;
    struct err ignored;
    int r;

    if (gate_quick_parse(text, a, ret))
        return 0;
    *ret = (struct gate_frame){ .method = METHOD_DIRECT };
    r = json_parse(text, GATE_DEPTH, a, &doc, &fail, e);
    if (r == 0)
        return read_frame(doc, a, ret, e);
    if (r == -ERR_INVALID && fail.kind == JSON_FAIL_UNICODE) {
        /* A text that we cannot hold: mended it is read for its id; it is refused in any case. */
        mended = json_mend(text, a);
        if (mended.n && json_parse(mended, GATE_DEPTH, a, &doc, NULL, &ignored) == 0)
            (void)read_frame(doc, a, ret, &ignored);
    }
    return r == -ERR_INVALID ? err_wrap(e, "Invalid JSON") : r;
}

/* A member that must be a text, if it is there. */
static int text_of(const json_t *object, const char *key, struct str *ret, struct err *e)
{
    const json_t *v = json_object_get(object, key);

    *ret = (struct str){ 0 };
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return err_set(e, ERR_INVALID, "Invalid message: %s is not a text", key);
    *ret = (struct str){ json_string_value(v), json_string_length(v) };
    return 0;
}

/* The id of a message: a text, or a number, which is its digits. */
static int id_of(const json_t *object, struct arena *a, struct str *ret, struct err *e)
{
    const json_t *v = json_object_get(object, "id");

    if (!json_is_integer(v))
        return text_of(object, "id", ret, e);
    *ret = str_of(arena_printf(a, "%lld", (long long)json_integer_value(v)));
    return 0;
}

int gate_message_read(const json_t *object, bool needs_id, struct arena *a, struct mail_in *ret,
                      struct err *e)
{
    const json_t *metadata = json_object_get(object, "metadata");
    struct mail_in in = { 0 };
    int r;

    r = id_of(object, a, &in.id, e);
    if (r == 0)
        r = text_of(object, "from", &in.from, e);
    if (r == 0)
        r = text_of(object, "to", &in.to, e);
    if (r == 0)
        r = text_of(object, "content", &in.content, e);
    if (r < 0)
        return r;
    if (!in.from.n || !in.to.n || !in.content.n || (needs_id && !in.id.n))
        return err_set(e, ERR_INVALID, "Invalid message: missing required fields");
    if (metadata && !json_is_null(metadata))
        r = json_text(metadata, SIZE_MAX / 2, a, &in.metadata, e);
    if (r == 0)
        *ret = in;
    return r;
}
