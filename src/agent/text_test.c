/* SPDX-License-Identifier: MIT */
/* agent/text_test.c — the expected values are those that Node 20's Buffer gives. */
#include "agent/text.h"

#include "test.h"

static const char *as_hex(enum text_encoding encoding, const char *text)
{
    static char hex[256];
    struct buf b;
    struct err e;

    buf_init(&b, 100);
    if (text_decode(encoding, str_of(text), &b, &e) < 0)
        return "failed";
    hex_format((const unsigned char *)b.p, b.n, hex);
    buf_done(&b);
    return hex;
}

TEST(base64_is_read_as_leniently_as_node_reads_it)
{
    static const char *const rows[][2] = {
        { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
          "00108310518720928b30d38f41149351559761969b71d79f8218a39259a7a29aabb2dbafc31cb3d35db7e39e"
          "bbf3dfbf" },
        { "YQ==YQ==", "61" },
        { "YWJj\nZGVm", "616263646566" },
        { "Y", "" },
        { "YWI", "6162" },
        { "Y!W@J#j", "616263" },
        { "-_-_", "fbffbf" },
        { "+/+/", "fbffbf" },
        { "=YWJj", "" },
        { "YWJ jZ\t=", "616263" },
        { "Y\xC3\xA9WJj", "616263" },
        { "", "" },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        CHECK_STR(as_hex(TEXT_BASE64, rows[i][0]), rows[i][1]);
        CHECK_STR(as_hex(TEXT_BASE64URL, rows[i][0]), rows[i][1]);
    }
}

TEST(hex_ends_at_the_first_pair_that_is_none)
{
    CHECK_STR(as_hex(TEXT_HEX, "abc"), "ab");
    CHECK_STR(as_hex(TEXT_HEX, "0g11"), "");
    CHECK_STR(as_hex(TEXT_HEX, "ab zz"), "ab");
    CHECK_STR(as_hex(TEXT_HEX, "ABcd"), "abcd");
    CHECK_STR(as_hex(TEXT_HEX, "\xC3\xA9"
                               "0"),
              "");
}

TEST(characters_become_bytes_by_their_utf16_units)
{
    const char *text = "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"
                       "a"; /* é, euro, a smile, a */

    CHECK_STR(as_hex(TEXT_LATIN1, text), "e9ac3d0061");
    CHECK_STR(as_hex(TEXT_ASCII, text), "e9ac3d0061");
    CHECK_STR(as_hex(TEXT_UTF16LE, "\xC3\xA9\xF0\x9F\x98\x80"), "e9003dd800de");
    CHECK_STR(as_hex(TEXT_UTF8, "\xC3\xA9"), "c3a9");
}

static const char *as_text(enum text_encoding encoding, const void *bytes, size_t n)
{
    static char text[256];
    struct buf b;
    struct err e;

    buf_init(&b, sizeof(text) - 1);
    if (text_encode(encoding, (struct str){ bytes, n }, &b, &e) < 0) {
        buf_done(&b);
        return e.msg[0] ? "refused" : "?";
    }
    memcpy(text, b.p ? b.p : "", b.n);
    text[b.n] = '\0';
    buf_done(&b);
    return text;
}

#define BAD "\xEF\xBF\xBD"

TEST(bad_utf8_is_replaced_part_by_part)
{
    static const unsigned char bytes[] = { 0x41, 0xff, 0xe2, 0x82, 0x41, 0xf0, 0x9f, 0x98, 0xed,
                                           0xa0, 0x80, 0xc0, 0x80, 0xf4, 0x90, 0x80, 0x80, 0x80 };

    CHECK_STR(as_text(TEXT_UTF8, bytes, sizeof(bytes)),
              "A" BAD BAD "A" BAD BAD BAD BAD BAD BAD BAD BAD BAD BAD BAD);
    CHECK_STR(as_text(TEXT_UTF8, "a\0b", 3), "a" BAD "b");
    CHECK_STR(as_text(TEXT_BASE64URL, bytes, sizeof(bytes)), "Qf_igkHwn5jtoIDAgPSQgICA");
}

TEST(bytes_become_text)
{
    CHECK_STR(as_text(TEXT_LATIN1,
                      "\xE9"
                      "a",
                      2),
              "\xC3\xA9"
              "a");
    CHECK_STR(as_text(TEXT_ASCII, "\xE9", 1), "i");
    CHECK_STR(as_text(TEXT_HEX, "\xAB\x01", 2), "ab01");
    CHECK_STR(as_text(TEXT_HEX, "", 0), "");
    CHECK_STR(as_text(TEXT_BASE64, "a", 1), "YQ==");
    CHECK_STR(as_text(TEXT_BASE64, "ab", 2), "YWI=");
    CHECK_STR(as_text(TEXT_BASE64, "abc", 3), "YWJj");
    CHECK_STR(as_text(TEXT_BASE64URL, "\xfb\xff", 2), "-_8");
    CHECK_STR(as_text(TEXT_UTF16LE, "\x3d\xd8\x41\x00\x3d\xd8\x00\xde\x41", 9),
              BAD "A\xF0\x9F\x98\x80");
}

TEST(nul_is_refused_where_it_would_be_lost)
{
    CHECK_STR(as_text(TEXT_LATIN1, "a\0b", 3), "refused");
    CHECK_STR(as_text(TEXT_UTF16LE, "a\0\0\0", 4), "refused");
    CHECK_STR(as_text(TEXT_BASE64, "a\0b", 3), "YQBi");
}

TEST(a_part_ends_between_characters)
{
    CHECK_INT(text_whole(TEXT_UTF8, STR("ab\xE2\x82")), 2);
    CHECK_INT(text_whole(TEXT_UTF8, STR("ab\xE2\x82\xAC")), 5);
    CHECK_INT(text_whole(TEXT_UTF8, STR("ab\xF0\x9F\x98")), 2);
    CHECK_INT(text_whole(TEXT_UTF8, STR("\x80\x80\x80\x80")), 4); /* no character at all */
    CHECK_INT(text_whole(TEXT_UTF8, STR("ab\xFF")), 3);
    CHECK_INT(text_whole(TEXT_UTF8, STR("")), 0);
    CHECK_INT(text_whole(TEXT_UTF16LE, STR("a\0b")), 2);
    CHECK_INT(text_whole(TEXT_UTF16LE, STR("a\0\x3d\xd8")), 2);
    CHECK_INT(text_whole(TEXT_BASE64, STR("abcde")), 5);
    CHECK_INT(text_whole(TEXT_HEX, STR("abcde")), 5);
}

TEST(encodings_have_nodes_names_in_any_case)
{
    enum text_encoding encoding;

    CHECK(text_encoding_parse("UTF-8", &encoding) && encoding == TEXT_UTF8);
    CHECK(text_encoding_parse("binary", &encoding) && encoding == TEXT_LATIN1);
    CHECK(text_encoding_parse("ucs2", &encoding) && encoding == TEXT_UTF16LE);
    CHECK(!text_encoding_parse("utf-16", &encoding));
    CHECK(!text_encoding_parse("", &encoding));
}

TEST(credentials_are_masked)
{
    static const char *const rows[][2] = {
        { "git clone https://u:s3cret@host/a.git", "git clone https://***@host/a.git" },
        { "https://token@host", "https://***@host" },
        { "https://u:p@ss@host/", "https://***@host/" },
        { "curl -H 'Authorization: Bearer abc' x", "curl -H 'Authorization: Bearer ***' x" },
        { "https://host/a@b", "https://host/a@b" },
        { "mail a@b", "mail a@b" },
        { "://", "://" },
        { "://a@", "://***@" },
        { "bearer ", "bearer " },
    };
    struct arena a = { 0 };

    for (size_t i = 0; i < LEN(rows); i++)
        CHECK_STR(text_masked(&a, str_of(rows[i][0])), rows[i][1]);
    arena_done(&a);
}

TEST(the_length_as_json_is_known)
{
    CHECK_INT(text_json_len(STR("a\"\\\n")), 11);
    CHECK_INT(text_json_len(STR("")), 0);
}
