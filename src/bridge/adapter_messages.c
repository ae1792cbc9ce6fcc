/* SPDX-License-Identifier: MIT */
/*
 * bridge/adapter_messages.c — the original's own request, and its generous reading of answers:
 * the text of "content", else of "message", else the whole object.
 */
#include <string.h>

#include "bridge/adapter_int.h"

void messages_body(const struct ask *ask, struct out *o)
{
    out_z(o, "{\"model\":");
    out_str(o, ask->model);
    out_z(o, ",\"messages\":");
    turns_write(ask, NULL, o);
    if (ask->session_id.n) {
        out_z(o, ",\"session_id\":");
        out_str(o, ask->session_id);
    }
    if (ask->stream)
        out_z(o, ",\"stream\":true");
    out_z(o, "}");
}

static bool is_block_list(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_member_str(json_array_get(list, i), "type").p)
            return false;
    return true;
}

/* A string is the text, blocks are joined, an object may hold the text; the rest is its JSON. */
static int text_of(const json_t *value, struct arena *a, struct str *ret, struct err *e)
{
    size_t n;

    if (json_is_null(value))
        return err_set(e, ERR_INVALID, "the answer is null");
    if (json_is_object(value) && json_str(json_object_get(value, "text")).p)
        value = json_object_get(value, "text");
    else if (json_is_object(value) && json_str(json_object_get(value, "content")).p)
        value = json_object_get(value, "content");
    if (json_is_string(value)) {
        *ret = arena_str(a, json_str(value));
        return 0;
    }
    if (json_is_array(value) && is_block_list(value)) {
        *ret = blocks_text(value, "text", a, &n);
        return 0;
    }
    return json_text(value, SIZE_MAX / 2, a, ret, e);
}

int messages_text(const json_t *answer, struct arena *a, struct str *ret, struct err *e)
{
    const json_t *value = json_object_get(answer, "content");

    if (!value) {
        value = json_object_get(answer, "message");
        if (json_is_object(value) && json_object_get(value, "content"))
            value = json_object_get(value, "content");
    }
    return text_of(value ? value : answer, a, ret, e);
}
