/* SPDX-License-Identifier: MIT */
/*
 * base/json.c — parsing. json_scan.c decides whether a text is acceptable and explains why not;
 * jansson then builds the document, so a refusal by jansson means that the two disagree.
 */
#include "base/json.h"

#include "base/json_int.h"
#include "base/log.h"

/* jansson reports lack of memory as a parse error; ours aborts, like every small allocation. */
__attribute__((constructor)) static void use_xmalloc(void)
{
    json_set_alloc_funcs(xmalloc, free);
}

static void drop(void *document)
{
    json_decref(document);
}

int json_parse(struct str text, size_t max_depth, struct arena *a, json_t **ret,
               struct json_fail *fail, struct err *e)
{
    struct json_fail unseen;
    json_error_t error;
    json_t *document;
    size_t n_big = 0;
    int r;

    if (!fail)
        fail = &unseen;
    r = json_scan(text, max_depth, &n_big, fail, e);
    if (r < 0)
        return r;
    if (n_big > 0)
        text = json_widen(text, n_big, a);

    document = json_loadb(text.p, text.n, JSON_DECODE_ANY, &error);
    if (!document) {
        log_error("bug: jansson refuses a JSON text", "why", LOG_STR(error.text));
        *fail = (struct json_fail){ .kind = JSON_FAIL_SYNTAX, .text = "Expecting value" };
        return err_set(e, ERR_INVALID, "%s", error.text);
    }
    arena_on_free(a, drop, document);
    *ret = document;
    return 0;
}

int json_text(const json_t *j, size_t max, struct arena *a, struct str *ret, struct err *e)
{
    AUTO(buf_done) struct buf b;
    int r;

    buf_init(&b, max);
    r = json_write(j, &b, e);
    if (r < 0)
        return r;
    *ret = arena_str(a, buf_str(&b));
    return 0;
}

struct str json_member_str(const json_t *object, const char *key)
{
    const json_t *member = json_object_get(object, key);

    if (!json_is_string(member))
        return (struct str){ NULL, 0 };
    return (struct str){ json_string_value(member), json_string_length(member) };
}
