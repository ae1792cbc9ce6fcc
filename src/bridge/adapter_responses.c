/* SPDX-License-Identifier: MIT */
/* bridge/adapter_responses.c — the responses API: messages in a list of output items. */
#include <string.h>

#include "bridge/adapter_int.h"

void responses_body(const struct ask *ask, struct out *o)
{
    out_z(o, "{\"model\":");
    out_str(o, ask->model);
    out_z(o, ",\"input\":");
    if (ask->n_earlier)
        turns_write(ask, "message", o);
    else
        out_str(o, ask->prompt);
    if (ask->session_id.n && !ask->n_earlier) {
        out_z(o, ",\"user\":");
        out_str(o, ask->session_id);
    }
    if (ask->stream)
        out_z(o, ",\"stream\":true");
    out_z(o, "}");
}

int responses_text(const json_t *answer, struct arena *a, struct str *ret, struct err *e)
{
    const json_t *output = json_object_get(answer, "output"), *item;
    struct str all = STR("");
    size_t n_all = 0;

    for (size_t i = 0; i < json_array_size(output); i++) {
        size_t n = 0;
        struct str text;
        char *p;

        item = json_array_get(output, i);
        if (!str_eq_z(json_member_str(item, "type"), "message"))
            continue;
        text = blocks_text(json_object_get(item, "content"), "output_text", a, &n);
        if (!n)
            continue;
        p = arena_raw(a, all.n + text.n + 1);
        memcpy(p, all.p, all.n);
        memcpy(p + all.n, text.p, text.n);
        p[all.n + text.n] = '\0';
        all = (struct str){ p, all.n + text.n };
        n_all += n;
    }
    if (!n_all)
        return err_set(e, ERR_INVALID, "no output_text in the output");
    *ret = all;
    return 0;
}
