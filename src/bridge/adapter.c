/* SPDX-License-Identifier: MIT */
/* bridge/adapter.c — what the dialects have in common. */
#include "bridge/adapter.h"

#include <string.h>

#include "bridge/adapter_int.h"

enum { ANSWER_DEPTH = 512 };

const struct adapter adapters[API_KINDS] = {
    [API_MESSAGES] = { "messages", "/v1/messages", messages_body, messages_text },
    [API_OPENAI] = { "openai", "/v1/chat/completions", openai_body, openai_text },
    [API_RESPONSES] = { "responses", "/v1/responses", responses_body, responses_text },
};

enum agent_api agent_api_of(struct str name)
{
    int api = 0;

    while (api < API_KINDS && !str_eq_z(name, adapters[api].name))
        api++;
    return (enum agent_api)api;
}

int adapter_json(struct str text, size_t max_depth, struct arena *a, json_t **ret, struct err *e)
{
    struct json_fail fail;
    struct str mended;
    int r;

    text = json_unmarked(text);
    r = json_parse(text, max_depth, a, ret, &fail, e);
    if (r != -ERR_INVALID || fail.kind != JSON_FAIL_UNICODE)
        return r;
    mended = json_mend(text, a);
    return mended.n ? json_parse(mended, max_depth, a, ret, NULL, e) : r;
}

int adapter_read(const struct adapter *adapter, struct str body, struct arena *a, struct str *ret,
                 struct err *e)
{
    json_t *json;
    int r;

    if (!str_trim(body).n)
        return err_set(e, ERR_INVALID, "Invalid response: the body is empty");
    r = adapter_json(body, ANSWER_DEPTH, a, &json, e);
    if (r < 0)
        return err_set(e, ERR_INVALID, "Invalid response: not JSON");
    if (!json_is_object(json))
        return err_set(e, ERR_INVALID, "Invalid response: not a JSON object");
    r = adapter->text(json, a, ret, e);
    if (r < 0)
        return err_wrap(e, "Invalid response");
    return 0;
}

struct str json_str(const json_t *j)
{
    if (!json_is_string(j))
        return (struct str){ 0 };
    return (struct str){ json_string_value(j), json_string_length(j) };
}

struct str blocks_text(const json_t *blocks, const char *type, struct arena *a, size_t *ret_n)
{
    size_t total = 0, n = 0, n_found = 0;
    struct str text;
    const json_t *block;
    char *p;

    for (size_t i = 0; i < json_array_size(blocks); i++) {
        block = json_array_get(blocks, i);
        if (str_eq_z(json_member_str(block, "type"), type))
            total += json_member_str(block, "text").n;
    }
    p = arena_raw(a, total + 1);
    for (size_t i = 0; i < json_array_size(blocks); i++) {
        block = json_array_get(blocks, i);
        text = json_member_str(block, "text");
        if (!text.p || !str_eq_z(json_member_str(block, "type"), type))
            continue;
        memcpy(p + n, text.p, text.n);
        n += text.n;
        n_found++;
    }
    p[n] = '\0';
    *ret_n = n_found;
    return (struct str){ p, n };
}

static void turn_write(const char *type, struct str role, struct str content, struct out *o)
{
    out_z(o, "{");
    if (type) {
        out_z(o, "\"type\":\"");
        out_z(o, type);
        out_z(o, "\",");
    }
    out_z(o, "\"role\":");
    out_str(o, role);
    out_z(o, ",\"content\":");
    out_str(o, content);
    out_z(o, "}");
}

void turns_write(const struct ask *ask, const char *type, struct out *o)
{
    out_z(o, "[");
    for (size_t i = 0; i < ask->n_earlier; i++) {
        turn_write(type, ask->earlier[i].role, ask->earlier[i].content, o);
        out_z(o, ",");
    }
    turn_write(type, STR("user"), ask->prompt, o);
    out_z(o, "]");
}
