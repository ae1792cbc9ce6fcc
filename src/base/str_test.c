/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/str.c.
 */
#include "base/str.h"

#include <limits.h>

#include "test.h"

TEST(slices_compare_by_bytes)
{
    struct str none = { NULL, 0 };

    CHECK(str_eq(STR("abc"), STR("abc")));
    CHECK(!str_eq(STR("abc"), STR("abd")));
    CHECK(!str_eq(STR("abc"), STR("ab")));
    CHECK(str_eq(none, STR("")));
    CHECK(str_eq_z(STR("abc"), "abc"));
    CHECK(str_eq_nocase(STR("Content-Type"), STR("content-TYPE")));
    CHECK(!str_eq_nocase(STR("@"), STR("`"))); /* 32 apart, but no letters */
    CHECK(str_starts(STR("abc"), STR("ab")));
    CHECK(str_starts(STR("abc"), none));
    CHECK(!str_starts(STR("a"), STR("ab")));
    CHECK(str_ends(STR("abc"), STR("bc")));
    CHECK(!str_ends(STR("c"), STR("bc")));
    CHECK_INT(str_of(NULL).n, 0);
}

TEST(trimming_takes_white_space_off_both_sides)
{
    CHECK(str_eq_z(str_trim(STR(" \t a b \r\n")), "a b"));
    CHECK(str_eq_z(str_trim(STR("   ")), ""));
    CHECK(str_eq_z(str_trim(STR("")), ""));
}

TEST(splitting_walks_the_parts)
{
    struct str rest = STR("a,,b"), part;

    CHECK(str_split(&rest, ',', &part) && str_eq_z(part, "a"));
    CHECK(str_split(&rest, ',', &part) && str_eq_z(part, ""));
    CHECK(str_split(&rest, ',', &part) && str_eq_z(part, "b"));
    CHECK(!str_split(&rest, ',', &part));
}

TEST(utf8_is_told_from_what_only_looks_like_it)
{
    static const struct {
        const char *text;
        size_t n;
        bool valid;
    } cases[] = {
        { "", 0, true },
        { "plain ascii, long enough", 24, true },
        { "gr\xc3\xbc\xc3\x9f", 6, true },
        { "\xe2\x82\xac", 3, true },
        { "\xf0\x9f\x98\x80", 4, true },
        { "\xf4\x8f\xbf\xbf", 4, true }, /* U+10FFFF */
        { "\x00", 1, true },
        { "\x80", 1, false },
        { "\xc3", 1, false },
        { "\xc0\xaf", 2, false },         /* overlong */
        { "\xe0\x80\xaf", 3, false },     /* overlong */
        { "\xf0\x80\x80\xaf", 4, false }, /* overlong */
        { "\xed\xa0\x80", 3, false },     /* surrogate */
        { "\xf4\x90\x80\x80", 4, false }, /* past U+10FFFF */
        { "\xff", 1, false },
        { "12345678\xff", 9, false },
        { "1234567\xff"
          "8",
          9, false },
        { "\xe2\x82", 2, false },
        { "\xe2\x28\xa1", 3, false },
    };

    for (size_t i = 0; i < LEN(cases); i++)
        CHECK_INT(utf8_valid(cases[i].text, cases[i].n), cases[i].valid);
    CHECK_INT(utf8_len("gr\xc3\xbc\xc3\x9f\xf0\x9f\x98\x80", 10), 5);
    CHECK_INT(utf8_step("\xe2\x82\xac!", 4), 3);
    CHECK_INT(utf8_step("\xe2\x82\xac", 2), 0);
    CHECK_INT(utf8_step("", 0), 0);
}

TEST(whole_numbers_are_read_whole)
{
    static const struct {
        const char *text;
        long long want;
    } good[] = {
        { "0", 0 },
        { "-7", -7 },
        { "+7", 7 },
        { "007", 7 },
        { "9223372036854775807", LLONG_MAX },
        { "-9223372036854775808", LLONG_MIN },
    };
    static const char *const bad[] = {
        "", "-", "+", "1 ", " 1", "1a", "0x1", "1.0", "9223372036854775808", "-9223372036854775809",
    };
    struct err e;
    long long v;

    for (size_t i = 0; i < LEN(good); i++) {
        CHECK_INT(int_parse(str_of(good[i].text), LLONG_MIN, LLONG_MAX, &v, &e), 0);
        CHECK_INT(v, good[i].want);
    }
    for (size_t i = 0; i < LEN(bad); i++) {
        v = 42;
        CHECK_INT(int_parse(str_of(bad[i]), LLONG_MIN, LLONG_MAX, &v, &e), -ERR_INVALID);
        CHECK_INT(v, 42);
    }
    CHECK_INT(int_parse(STR("65536"), 0, 65535, &v, &e), -ERR_INVALID);
    CHECK_STR(e.msg, "65536 is not between 0 and 65535");
}

TEST(durations_take_units_and_fractions)
{
    static const struct {
        const char *text;
        long long ms;
    } good[] = {
        { "0", 0 },          { "3", 3000 },       { "250ms", 250 },    { "75s", 75000 },
        { "2m", 120000 },    { "24h", 86400000 }, { "7d", 604800000 }, { "1.5", 1500 },
        { "0.5h", 1800000 }, { "0.25s", 250 },
    };
    static const char *const bad[] = {
        "",
        "s",
        "-1s",
        "5 parsecs",
        "99999999999999999999s",
        ".5",
        "5.",
        "1s ",
        "9223372036854775807d",
    };
    struct err e;
    long long ms;

    for (size_t i = 0; i < LEN(good); i++) {
        CHECK_INT(duration_parse(str_of(good[i].text), &ms, &e), 0);
        CHECK_INT(ms, good[i].ms);
    }
    for (size_t i = 0; i < LEN(bad); i++) {
        ms = 42;
        CHECK_INT(duration_parse(str_of(bad[i]), &ms, &e), -ERR_INVALID);
        CHECK_INT(ms, 42);
    }
}

TEST(sizes_count_in_powers_of_1024)
{
    static const struct {
        const char *text;
        long long bytes;
    } good[] = {
        { "0", 0 },       { "512", 512 },     { "64K", 65536 },
        { "64k", 65536 }, { "16M", 1 << 24 }, { "1G", 1 << 30 },
    };
    static const char *const bad[] = {
        "", "K", "-1", "+1K", "1KB", "1.5M", "9223372036854775807K", "64 K",
    };
    struct err e;
    long long n;

    for (size_t i = 0; i < LEN(good); i++) {
        CHECK_INT(size_parse(str_of(good[i].text), &n, &e), 0);
        CHECK_INT(n, good[i].bytes);
    }
    for (size_t i = 0; i < LEN(bad); i++)
        CHECK_INT(size_parse(str_of(bad[i]), &n, &e), -ERR_INVALID);
}

TEST(hex_goes_both_ways)
{
    static const unsigned char bytes[] = { 0x00, 0x7f, 0xff, 0xa5 };
    unsigned char back[4] = { 0 };
    struct err e;
    char text[9];

    hex_format(bytes, sizeof(bytes), text);
    CHECK_STR(text, "007fffa5");
    CHECK_INT(hex_parse(STR("007FffA5"), back, 4, &e), 0);
    CHECK(memcmp(back, bytes, 4) == 0);
    CHECK_INT(hex_parse(STR("007fffa"), back, 4, &e), -ERR_INVALID);
    CHECK_INT(hex_parse(STR("007fffag"), back, 4, &e), -ERR_INVALID);
    CHECK_INT(hex_parse(STR(""), back, 0, &e), 0);
}
