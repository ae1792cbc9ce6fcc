/* SPDX-License-Identifier: MIT */
/*
 * openclaw/frame.c — frames as JSON texts, and what a refusal means. Pure; foreign bytes end here.
 */
#include "openclaw/openclaw_int.h"

static const char *member_z(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static void copy_z(char *out, size_t size, const char *text)
{
    size_t n = strlen(text);

    if (n >= size)
        n = size - 1;
    while (n > 0 && !utf8_valid(text, n))
        n--; /* not in the middle of a character */
    memcpy(out, text, n);
    out[n] = '\0';
}

int oc_frame_parse(struct str text, struct arena *a, struct oc_frame *ret, struct err *e)
{
    const json_t *seq, *id;
    json_t *doc = NULL;
    const char *type;
    int r;

    r = json_parse(text, OC_DEPTH, a, &doc, NULL, e);
    if (r < 0)
        return r;
    if (!json_is_object(doc))
        return err_set(e, ERR_INVALID, "a frame is not an object");
    *ret = (struct oc_frame){ .kind = OC_FRAME_OTHER, .seq = -1 };
    type = member_z(doc, "type");
    id = json_object_get(doc, "id");
    ret->payload = json_object_get(doc, "payload");
    if (strcmp(type, "res") == 0 || (strcmp(type, "error") == 0 && json_is_string(id))) {
        ret->kind = OC_FRAME_ANSWER;
        ret->id = json_member_str(doc, "id");
        ret->ok = json_is_true(json_object_get(doc, "ok"));
        ret->error = json_object_get(doc, "error");
    } else if (strcmp(type, "event") == 0 || strcmp(type, "evt") == 0) {
        ret->kind = OC_FRAME_EVENT;
        ret->name = member_z(doc, "event");
        seq = json_object_get(doc, "seq");
        if (json_is_integer(seq) && json_integer_value(seq) >= 0)
            ret->seq = json_integer_value(seq);
    }
    return 0;
}

int oc_frame_request(struct buf *b, const char *id, const char *method, const json_t *params,
                     struct err *e)
{
    int r;

    r = buf_printf(b, e, "{\"type\":\"req\",\"id\":\"%s\",\"method\":", id);
    if (r == 0)
        r = json_write_str(b, str_of(method), e);
    if (r == 0)
        r = buf_add_z(b, ",\"params\":", e);
    if (r == 0)
        r = params ? json_write(params, b, e) : buf_add_z(b, "{}", e);
    if (r == 0)
        r = buf_add_z(b, "}", e);
    return r;
}

static const struct {
    const char *name;
    enum err_code code;
} codes[] = {
    { "INVALID_REQUEST", ERR_INVALID },
    { "UNAVAILABLE", ERR_UNAVAILABLE },
    { "NOT_PAIRED", ERR_UNAUTHORIZED },
    { "NOT_LINKED", ERR_UNAVAILABLE },
    { "UNAUTHORIZED", ERR_UNAUTHORIZED },
    { "FORBIDDEN", ERR_FORBIDDEN },
    { "NOT_FOUND", ERR_NOT_FOUND },
    { "AGENT_TIMEOUT", ERR_TIMEOUT },
    { "TIMEOUT", ERR_TIMEOUT },
    { "CONFLICT", ERR_CONFLICT },
    { "PROTOCOL_MISMATCH", ERR_INVALID },
    { "BAD_REQUEST", ERR_INVALID },
    { "TOO_MANY", ERR_LIMIT },
    { "RATE_LIMITED", ERR_LIMIT },
};

static enum err_code code_of(const struct oc_refusal *why)
{
    if (strncmp(why->detail, "AUTH_", 5) == 0 || why->wants_device)
        return ERR_UNAUTHORIZED;
    /* older releases say these in words only */
    if (strncmp(why->text, "missing scope", 13) == 0 ||
        strncmp(why->text, "unauthorized role", 17) == 0)
        return ERR_FORBIDDEN;
    for (size_t i = 0; i < LEN(codes); i++)
        if (strcmp(codes[i].name, why->name) == 0)
            return codes[i].code;
    return ERR_UNAVAILABLE;
}

void oc_refusal_read(const json_t *error, struct oc_refusal *ret)
{
    const json_t *details = json_object_get(error, "details"), *after;

    *ret = (struct oc_refusal){ 0 };
    copy_z(ret->name, sizeof(ret->name), member_z(error, "code"));
    copy_z(ret->detail, sizeof(ret->detail), member_z(details, "code"));
    copy_z(ret->text, sizeof(ret->text),
           json_is_string(error) ? json_string_value(error) : member_z(error, "message"));
    if (!ret->text[0])
        copy_z(ret->text, sizeof(ret->text), "Unknown error");
    after = json_object_get(error, "retryAfterMs");
    if (json_is_integer(after) && json_integer_value(after) > 0)
        ret->retry_ms = (uint64_t)json_integer_value(after);
    ret->wants_device =
        strcmp(ret->name, "NOT_PAIRED") == 0 || strncmp(ret->detail, "DEVICE_", 7) == 0;
    ret->queued = strcmp(ret->detail, "OUTBOUND_DELIVERY_QUEUED") == 0;
    ret->code = code_of(ret);
    ret->starting = strcmp(ret->name, "UNAVAILABLE") == 0 &&
                    (ret->retry_ms || strncmp(member_z(details, "reason"), "startup", 7) == 0) &&
                    !ret->queued;
}

int oc_refusal_err(const struct oc_refusal *why, const char *method, struct err *e)
{
    if (why->detail[0])
        return err_set(e, why->code, "%s: %s (%s)", method, why->text, why->detail);
    return err_set(e, why->code, "%s: %s", method, why->text);
}

static bool lists(const json_t *array, const char *name)
{
    const json_t *one;
    size_t i;

    json_array_foreach(array, i, one) if (json_is_string(one) &&
                                          strcmp(json_string_value(one), name) == 0) return true;
    return false;
}

/* A positive integer no larger than max, or the default. */
static uint64_t number(const json_t *object, const char *key, uint64_t max, uint64_t otherwise)
{
    const json_t *n = json_object_get(object, key);

    if (!json_is_integer(n) || json_integer_value(n) <= 0)
        return otherwise;
    return (uint64_t)json_integer_value(n) < max ? (uint64_t)json_integer_value(n) : max;
}

int oc_peer_read(const json_t *payload, struct oc_peer *ret, struct err *e)
{
    const json_t *features, *policy, *scopes;

    if (!json_is_object(payload))
        return err_set(e, ERR_UNAVAILABLE, "the peer's hello is not an object");
    *ret = (struct oc_peer){ .protocol = (unsigned)number(payload, "protocol", 1000, 0) };
    if (!ret->protocol)
        return err_set(e, ERR_UNAVAILABLE, "the peer's hello names no protocol");
    copy_z(ret->version, sizeof(ret->version),
           member_z(json_object_get(payload, "server"), "version"));
    features = json_object_get(json_object_get(payload, "features"), "methods");
    policy = json_object_get(payload, "policy");
    scopes = json_object_get(json_object_get(payload, "auth"), "scopes");
    ret->basic = !json_is_array(features);
    ret->subscribes = lists(features, "sessions.subscribe");
    ret->powerless = json_is_array(scopes) && json_array_size(scopes) == 0;
    ret->tick_ms = number(policy, "tickIntervalMs", 3600 * 1000, 0);
    ret->max_payload = number(policy, "maxPayload", OC_FRAME_MAX, OC_BASIC_MAX);
    return 0;
}
