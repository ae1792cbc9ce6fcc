/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/json.c, json_scan.c and json_write.c.
 */
#include "base/json.h"

#include "test.h"

static struct arena arena;

/* The text as json_write gives it back, or "kind offset text" of the refusal. */
static const char *parsed(struct str text)
{
    struct json_fail fail;
    struct str out;
    json_t *j;

    arena_done(&arena);
    if (json_parse(text, 20, &arena, &j, &fail, NULL) < 0)
        return arena_printf(&arena, "%d %zu %s", fail.kind, fail.offset, fail.text);
    if (json_text(j, 1 << 20, &arena, &out, NULL) < 0)
        return "too long";
    return out.p;
}

struct row {
    const char *text, *want;
};

static const char *mismatch(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *have = parsed(str_of(rows[i].text));

        if (strcmp(have, rows[i].want) != 0)
            return arena_printf(&arena, "%s: %s", rows[i].text, have);
    }
    return "none";
}

TEST(what_is_read_is_written_the_same_but_compact)
{
    static const struct row rows[] = {
        { " { \"b\" : [ 1 , -2.5 , true , false , null ] , \"a\" : { } } ",
          "{\"b\":[1,-2.5,true,false,null],\"a\":{}}" },
        { "\"a\\u00fc\\ud83d\\ude00\\n\\t\\b\\f\\r\\\\\\\"\\/\\u0001\"",
          "\"a\xc3\xbc\xf0\x9f\x98\x80\\n\\t\\b\\f\\r\\\\\\\"/\\u0001\"" },
        { "{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}" }, /* the last one wins */
        { "[]", "[]" },
        { "0", "0" },
        { "-0", "0" },
        { "[9223372036854775807,-9223372036854775808]",
          "[9223372036854775807,-9223372036854775808]" },
    };

    CHECK_STR(mismatch(rows, LEN(rows)), "none");
}

TEST(reals_are_written_as_python_writes_them)
{
    static const struct row rows[] = {
        { "0.1", "0.1" },
        { "1.0", "1.0" },
        { "1e2", "100.0" },
        { "-0.0", "-0.0" },
        { "1e15", "1000000000000000.0" },
        { "1e16", "1e+16" },
        { "1.5e300", "1.5e+300" },
        { "0.0001", "0.0001" },
        { "0.00001", "1e-05" },
        { "5e-324", "5e-324" },
        { "123456789.123456789", "123456789.12345679" },
        { "2.2250738585072014e-308", "2.2250738585072014e-308" },
        { "1e-400", "0.0" },
    };

    CHECK_STR(mismatch(rows, LEN(rows)), "none");
}

TEST(integers_beyond_64_bits_become_reals_and_only_they)
{
    static const struct row rows[] = {
        { "9223372036854775808", "9.223372036854776e+18" },
        { "-9223372036854775809", "-9.223372036854776e+18" },
        { "[1,100000000000000000000,{\"99999999999999999999\":\"99999999999999999999\"},-7]",
          "[1,1e+20,{\"99999999999999999999\":\"99999999999999999999\"},-7]" },
        { "[\"\\\"18446744073709551616\",18446744073709551616,0.5,1e3]",
          "[\"\\\"18446744073709551616\",1.8446744073709552e+19,0.5,1000.0]" },
    };

    CHECK_STR(mismatch(rows, LEN(rows)), "none");
}

TEST(refusals_have_the_words_and_offsets_of_python)
{
    static const struct row rows[] = {
        { "{bad", "0 1 Expecting property name enclosed in double quotes" },
        { " ", "0 1 Expecting value" },
        { " \n\t ", "0 4 Expecting value" },
        { "{\"a\":1}x", "0 7 Extra data" },
        { "{\"a\":1} 2", "0 8 Extra data" },
        { "\"abc", "0 0 Unterminated string starting at" },
        { "{\"a\": \"b", "0 6 Unterminated string starting at" },
        { "\"a\nb\"", "0 2 Invalid control character at" },
        { "\"a\\xb\"", "0 2 Invalid \\escape" },
        { "\"\\u12g4 \"", "0 2 Invalid \\uXXXX escape" },
        { "{\"a\" 1}", "0 5 Expecting ':' delimiter" },
        { "{\"a\":1 \"b\":2}", "0 7 Expecting ',' delimiter" },
        { "{\"a\":1,}", "0 7 Expecting property name enclosed in double quotes" },
        { "{", "0 1 Expecting property name enclosed in double quotes" },
        { "[1,]", "0 3 Expecting value" },
        { "[1", "0 2 Expecting ',' delimiter" },
        { "[", "0 1 Expecting value" },
        { "nul", "0 0 Expecting value" },
        { "01", "0 1 Extra data" },
        { "1.", "0 1 Extra data" },
        { "-", "0 0 Expecting value" },
        { "'a'", "0 0 Expecting value" },
        { "[\"\xc3\xbc\xf0\x9f\x98\x80\",x]", "0 6 Expecting value" }, /* in code points */
        { "", "4 0 Expecting value" },
    };

    CHECK_STR(mismatch(rows, LEN(rows)), "none");
}

TEST(what_python_takes_but_must_not_be_stored_is_refused)
{
    static const struct row rows[] = {
        { "[NaN]", "3 1 Out of range float values are not JSON compliant" },
        { "Infinity", "3 0 Out of range float values are not JSON compliant" },
        { "[-Infinity]", "3 1 Out of range float values are not JSON compliant" },
        { "[1,1e400]", "3 3 Out of range float values are not JSON compliant" },
        { "\"\\ud800\"", "2 1 Lone surrogate in a string" },
        { "\"\\udc00\"", "2 1 Lone surrogate in a string" },
        { "\"\\ud800\\u0041\"", "2 1 Lone surrogate in a string" },
        { "\"a\\u0000\"", "2 2 The character \\u0000 is not accepted" },
        { "[\"\xff\"]", "2 2 Invalid UTF-8" },
        { "\"\xed\xa0\x80\"", "2 1 Invalid UTF-8" },
    };
    char nines[402];

    CHECK_STR(mismatch(rows, LEN(rows)), "none");
    memset(nines, '9', 401);
    nines[401] = '\0';
    CHECK_STR(parsed(str_of(nines)), "3 0 Out of range float values are not JSON compliant");
    CHECK_STR(parsed((struct str){ "\"a\0b\"", 5 }), "0 2 Invalid control character at");
    CHECK_STR(parsed((struct str){ "1\0", 2 }), "0 1 Extra data");
}

TEST(depth_is_counted_in_brackets)
{
    char text[2001];
    struct json_fail fail;
    json_t *j;

    arena_done(&arena);
    memset(text, '[', 1000);
    memset(text + 1000, ']', 1000);
    CHECK_INT(json_parse((struct str){ text + 980, 40 }, 20, &arena, &j, &fail, NULL), 0);
    CHECK_INT(json_parse((struct str){ text + 979, 42 }, 20, &arena, &j, &fail, NULL),
              -ERR_INVALID);
    CHECK_INT(fail.kind, JSON_FAIL_DEPTH);
    CHECK_INT(fail.offset, 20);
    CHECK_INT(json_parse((struct str){ text + 488, 1024 }, 9999, &arena, &j, &fail, NULL), 0);
    CHECK_INT(json_parse((struct str){ text, 2000 }, 9999, &arena, &j, &fail, NULL), -ERR_INVALID);
    CHECK_INT(fail.kind, JSON_FAIL_DEPTH);
    CHECK_INT(json_parse(STR("[]"), 0, &arena, &j, &fail, NULL), -ERR_INVALID);
    CHECK_INT(json_parse(STR("1"), 0, &arena, &j, &fail, NULL), 0);
    arena_done(&arena);
}

/* "[1,1,...]" with n ones; its length. */
static size_t list_of(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        memcpy(text + 1 + 2 * i, "1,", 2);
    text[0] = '[';
    text[2 * n] = ']';
    return 2 * n + 1;
}

TEST(the_number_of_values_is_bounded)
{
    static char text[2 * JSON_VALUES_MAX + 1];
    struct json_fail fail;
    json_t *j;
    size_t n;

    arena_done(&arena);
    n = list_of(text, JSON_VALUES_MAX - 1); /* the list is a value too */
    CHECK_INT(json_parse((struct str){ text, n }, 9, &arena, &j, &fail, NULL), 0);
    CHECK_INT(json_array_size(j), JSON_VALUES_MAX - 1);
    n = list_of(text, JSON_VALUES_MAX);
    CHECK_INT(json_parse((struct str){ text, n }, 9, &arena, &j, &fail, NULL), -ERR_INVALID);
    CHECK_INT(fail.kind, JSON_FAIL_DEPTH);
    CHECK_STR(fail.text, "Too many values");
    arena_done(&arena);
}

TEST(strings_that_are_not_utf8_are_written_as_such_that_are)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1000);
    CHECK_INT(json_write_str(&b,
                             STR("a\xff\xc3\xbc\xe2\x82"
                                 "b\x7f"),
                             &e),
              0);
    CHECK(str_eq_z(buf_str(&b), "\"a\xef\xbf\xbd\xc3\xbc\xef\xbf\xbd\xef\xbf\xbd"
                                "b\x7f\""));
    buf_clear(&b);
    CHECK_INT(json_write_str(&b, (struct str){ NULL, 0 }, &e), 0);
    CHECK(str_eq_z(buf_str(&b), "\"\""));
    buf_done(&b);
}

TEST(integers_are_written_to_the_last_digit)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1000);
    CHECK_INT(json_write_int(&b, INT64_MIN, &e), 0);
    CHECK_INT(buf_add_z(&b, " ", &e), 0);
    CHECK_INT(json_write_int(&b, INT64_MAX, &e), 0);
    CHECK_INT(buf_add_z(&b, " ", &e), 0);
    CHECK_INT(json_write_int(&b, 0, &e), 0);
    CHECK(str_eq_z(buf_str(&b), "-9223372036854775808 9223372036854775807 0"));
    buf_done(&b);
}

TEST(writing_stops_at_the_maximum)
{
    struct arena a = { 0 };
    struct str out = { NULL, 0 };
    json_t *j;

    CHECK_INT(json_parse(STR("{\"key\":[1,2.5,\"text\",{\"a\":null}]}"), 9, &a, &j, NULL, NULL), 0);
    for (size_t max = 0; max < 35; max++)
        CHECK_INT(json_text(j, max, &a, &out, NULL), max < 33 ? -ERR_LIMIT : 0);
    CHECK_INT(out.n, 33);
    arena_done(&a);
}

TEST(a_member_is_found_when_it_is_a_string)
{
    struct arena a = { 0 };
    json_t *j;

    CHECK_INT(json_parse(STR("{\"s\":\"x\",\"n\":1}"), 9, &a, &j, NULL, NULL), 0);
    CHECK(str_eq_z(json_member_str(j, "s"), "x"));
    CHECK(json_member_str(j, "n").p == NULL);
    CHECK(json_member_str(j, "none").p == NULL);
    CHECK(json_member_str(NULL, "s").p == NULL);
    arena_done(&a);
}

TEST(texts_that_cannot_be_held_are_mended)
{
    static const struct {
        const char *text, *want; /* want NULL: there is nothing to mend */
    } rows[] = {
        { "\"\\u0000\"", "\"\\ufffd\"" },
        { "\"a\\uD83Eb\"", "\"a\\ufffdb\"" },
        { "\"\\udd9e\\ud83e\"", "\"\\ufffd\\ufffd\"" },
        { "\"\\ud83e\\ud83e\\udd9e\"", "\"\\ufffd\\ud83e\\udd9e\"" },
        { "\"\\\\u0000 \\u0000\"", "\"\\\\u0000 \\ufffd\"" },
        { "\"\\ud83e\\udd9e\"", NULL },
        { "\"\\\\u0000\"", NULL },
        { "\"\\u00e4\"", NULL },
        { "\"\\u12", NULL },
        { "\"\\ud83e\\", "\"\\ufffd\\" },
        { "\\u", NULL },
        { "\\", NULL },
        { "", NULL },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        struct arena a = { 0 };
        struct str got = json_mend(str_of(rows[i].text), &a);

        if (rows[i].want)
            CHECK(str_eq_z(got, rows[i].want));
        else
            CHECK(got.p == NULL);
        arena_done(&a);
    }
}
