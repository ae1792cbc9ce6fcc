/* SPDX-License-Identifier: MIT */
/* bridge/adapter_stream.c — one event of a stream, in any of the dialects. */
#include <string.h>

#include "bridge/adapter_int.h"

enum { EVENT_DEPTH = 64 };

static enum delta_kind text_delta(const json_t *text, struct arena *a, struct delta *ret)
{
    struct str s = json_str(text);

    if (!s.n)
        return DELTA_NONE;
    ret->text = arena_str(a, s);
    return DELTA_TEXT;
}

/* {"type", "code", "message"} of all three, or just a text. */
static enum delta_kind failure(const json_t *error, struct arena *a, struct delta *ret)
{
    struct str type = json_member_str(error, "type"), code = json_member_str(error, "code");
    struct str text = json_is_string(error) ? json_str(error) : json_member_str(error, "message");

    ret->text = text.n ? arena_str(a, text) : STR("the agent reported an error");
    ret->type = classify_named(code.n ? code : type, ret->text);
    if (ret->type == ERROR_UNKNOWN)
        ret->type = classify_named(type, ret->text);
    return DELTA_ERROR;
}

static enum delta_kind typed_event(struct str type, const json_t *event, struct arena *a,
                                   struct delta *ret)
{
    const json_t *error = json_object_get(event, "error");

    if (str_eq_z(type, "content_block_delta"))
        return text_delta(json_object_get(json_object_get(event, "delta"), "text"), a, ret);
    if (str_eq_z(type, "response.output_text.delta"))
        return text_delta(json_object_get(event, "delta"), a, ret);
    if (str_eq_z(type, "message_start") || str_eq_z(type, "response.created"))
        return DELTA_BEGIN;
    if (str_eq_z(type, "message_stop") || str_eq_z(type, "response.completed") ||
        str_eq_z(type, "response.incomplete"))
        return DELTA_END;
    if (str_eq_z(type, "error"))
        return failure(error ? error : event, a, ret);
    if (str_eq_z(type, "response.failed"))
        return failure(json_object_get(json_object_get(event, "response"), "error"), a, ret);
    return DELTA_NONE;
}

enum delta_kind delta_read(struct str data, struct arena *a, struct delta *ret)
{
    const json_t *choice, *error;
    json_t *event;
    struct str type;
    struct err e;

    *ret = (struct delta){ .type = ERROR_NONE };
    if (str_eq_z(str_trim(data), "[DONE]"))
        return DELTA_END;
    if (adapter_json(data, EVENT_DEPTH, a, &event, &e) < 0) {
        ret->text = STR("Invalid response: an event is not JSON");
        ret->type = ERROR_UNKNOWN;
        return DELTA_ERROR;
    }
    type = json_member_str(event, "type");
    if (type.p)
        return typed_event(type, event, a, ret);
    error = json_object_get(event, "error");
    if (error && !json_is_null(error))
        return failure(error, a, ret);
    choice = json_array_get(json_object_get(event, "choices"), 0);
    return text_delta(json_object_get(json_object_get(choice, "delta"), "content"), a, ret);
}
