/* SPDX-License-Identifier: MIT */
#include "cli/json5.h"
#include "test.h"

/* The text as compact JSON, or the error. */
static const char *plain(const char *text, struct arena *a)
{
    struct str out;
    struct err e;
    json_t *j;

    if (json5_parse(str_of(text), a, &j, &e) < 0 || json_text(j, 1 * MIB, a, &out, &e) < 0)
        return "refused";
    return out.p;
}

TEST(what_json5_has_more_than_json_is_read)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "{\"a\": [1, -2.5e3, true, null]}", "{\"a\":[1,-2500.0,true,null]}" },
        { "// one\n{ /* two */ a: 1, // three\n }", "{\"a\":1}" },
        { "{\"a\": [1, 2, ], }", "{\"a\":[1,2]}" },
        { "{ a_1: 'it\\'s \"so\"', $b : 'x' }", "{\"a_1\":\"it's \\\"so\\\"\",\"$b\":\"x\"}" },
        { "{\"url\": \"http://x/*y*/\"}", "{\"url\":\"http://x/*y*/\"}" },
        { "{ true: true, /**/ null /**/ : null }", "{\"true\":true,\"null\":null}" },
        { "\xef\xbb\xbf{\"\\x41\": 'a\\\nb'}", "{\"A\":\"ab\"}" },
        { "{\"a\": \"\\u00e4\\n\"}", "{\"a\":\"\u00e4\\n\"}" },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        struct arena a = { 0 };

        CHECK_STR(plain(rows[i].in, &a), rows[i].out);
        arena_done(&a);
    }
}

TEST(what_is_neither_is_refused)
{
    static const char *const rows[] = {
        "",         "{",      "{'a: 1}", "{a 1}",    "/* {}", "{} x",
        "{a: 'x\\", "[1,,2]", "[,]",     "{a: NaN}", "{,}",   "{\"a\":\"\\",
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        struct arena a = { 0 };

        CHECK_STR(plain(rows[i], &a), "refused");
        arena_done(&a);
    }
}
