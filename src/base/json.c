/* SPDX-License-Identifier: MIT */
/*
 * base/json.c — parsing. json_scan.c decides whether a text is acceptable and explains why not;
 * jansson then builds the document, so a refusal by jansson means that the two disagree.
 */
#include "base/json.h"

#include <string.h>

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

/* The code unit of an escape "\\uXXXX" at p, or -1. */
static int unit_at(const char *p, const char *end)
{
    unsigned char bytes[2];

    if (end - p < 6 || p[0] != '\\' || p[1] != 'u' ||
        hex_parse((struct str){ p + 2, 4 }, bytes, 2, NULL) < 0)
        return -1;
    return bytes[0] << 8 | bytes[1];
}

/* Bytes of the escape at p that may stay; 0: it is U+0000, or half of a pair. */
static size_t good_escape(const char *p, const char *end)
{
    int unit = unit_at(p, end), next;

    if (unit < 0)
        return end - p < 2 ? 1 : 2;
    if (unit >= 0xd800 && unit <= 0xdbff) {
        next = unit_at(p + 6, end);
        return next >= 0xdc00 && next <= 0xdfff ? 12 : 0;
    }
    return unit && (unit < 0xdc00 || unit > 0xdfff) ? 6 : 0;
}

struct str json_mend(struct str text, struct arena *a)
{
    const char *p = text.p, *end = text.p + text.n;
    bool any = false;
    char *copy, *out;

    if (!text.n || !memmem(text.p, text.n, "\\u", 2))
        return (struct str){ 0 };
    out = copy = arena_raw(a, text.n);
    while (p < end) {
        size_t n = *p == '\\' ? good_escape(p, end) : 1;

        memcpy(out, n ? p : "\\ufffd", n ? n : 6);
        any = any || !n;
        out += n ? n : 6;
        p += n ? n : 6;
    }
    return any ? (struct str){ copy, (size_t)(out - copy) } : (struct str){ 0 };
}

struct str json_unmarked(struct str text)
{
    const struct str mark = STR("\xef\xbb\xbf");

    return str_starts(text, mark) ? (struct str){ text.p + mark.n, text.n - mark.n } : text;
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
