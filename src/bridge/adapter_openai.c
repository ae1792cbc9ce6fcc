/* SPDX-License-Identifier: MIT */
/*
 * bridge/adapter_openai.c — chat completions. The session goes along as "user" when the agent is
 * expected to remember it itself; with context = session the conversation does.
 */
#include "bridge/adapter_int.h"

void openai_body(const struct ask *ask, struct out *o)
{
    out_z(o, "{\"model\":");
    out_str(o, ask->model);
    out_z(o, ",\"messages\":");
    turns_write(ask, NULL, o);
    if (ask->session_id.n && !ask->n_earlier) {
        out_z(o, ",\"user\":");
        out_str(o, ask->session_id);
    }
    if (ask->stream)
        out_z(o, ",\"stream\":true");
    out_z(o, "}");
}

int openai_text(const json_t *answer, struct arena *a, struct str *ret, struct err *e)
{
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
    const json_t *content = json_object_get(json_object_get(choice, "message"), "content");
    struct str text;
    size_t n = 0;

    if (json_is_string(content)) {
        *ret = arena_str(a, json_str(content));
        return 0;
    }
    text = blocks_text(content, "text", a, &n);
    if (!n)
        return err_set(e, ERR_INVALID, "no text in choices[0].message");
    *ret = text;
    return 0;
}
