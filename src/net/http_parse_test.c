/* SPDX-License-Identifier: MIT */
/*
 * Heads that are understood, and a corpus of those that two servers might read differently.
 */
#include "net/http_parse.h"

#include "net/http_chunk.h"
#include "test.h"

static struct http_header headers[HTTP_HEADERS_MAX];

/* 0, HTTP_HEAD_MORE, or the status that refuses it. */
static int parse(const char *p, size_t n, struct http_head *ret)
{
    size_t scanned = 0, len = 0;
    int status = 0, r;
    struct err e;

    r = http_head_find((struct str){ p, n }, &scanned, &len, &e);
    if (r < 0)
        return 400;
    if (r == HTTP_HEAD_MORE)
        return r;
    r = http_head_parse((struct str){ p, len }, headers, ret, &status, &e);
    return r < 0 ? status : 0;
}

#define PARSE(literal, ret) parse("" literal, sizeof(literal) - 1, ret)

TEST(a_plain_request_is_cut_into_its_parts)
{
    struct http_head h;

    CHECK_INT(PARSE("GET /a/b?c=d&e HTTP/1.1\r\nHost: x:1\r\nAccept:  */*  \r\nX:\r\n\r\n", &h), 0);
    CHECK_INT(h.method, HTTP_M_GET);
    CHECK(str_eq_z(h.method_text, "GET"));
    CHECK(str_eq_z(h.path, "/a/b"));
    CHECK(str_eq_z(h.query, "c=d&e"));
    CHECK(str_eq_z(h.host, "x:1"));
    CHECK_INT(h.minor, 1);
    CHECK_INT(h.n_headers, 3);
    CHECK(str_eq_z(h.headers[1].name, "Accept"));
    CHECK(str_eq_z(h.headers[1].value, "*/*"));
    CHECK(str_eq_z(h.headers[2].value, ""));
    CHECK(h.keep_alive && !h.chunked && !h.expect_continue && h.length == 0);
}

TEST(the_raw_path_is_kept)
{
    static const struct {
        const char *target, *path;
    } cases[] = {
        { "/", "/" },
        { "//a", "//a" },
        { "/a//b/", "/a//b/" },
        { "/a%2Fb%", "/a%2Fb%" },
        { "/../etc", "/../etc" },
        { "/\xc3\xbc", "/\xc3\xbc" },
        { "/a?b?c", "/a" },
        { "http://h/x", "/x" },
        { "HTTP://h", "/" },
        { "http://H?q", "/" },
        { "https://h/x//y", "/x//y" },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct http_head h;
        char text[256];

        fmt_z(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", cases[i].target);
        CHECK_INT(parse(text, strlen(text), &h), 0);
        CHECK(str_eq_z(h.path, cases[i].path));
    }
}

TEST(methods_we_do_not_know_are_still_methods)
{
    struct http_head h;

    CHECK_INT(PARSE("FROBNICATE / HTTP/1.1\r\nHost: h\r\n\r\n", &h), 0);
    CHECK_INT(h.method, HTTP_M_OTHER);
    CHECK(str_eq_z(h.method_text, "FROBNICATE"));
    CHECK_INT(PARSE("get / HTTP/1.1\r\nHost: h\r\n\r\n", &h), 0);
    CHECK_INT(h.method, HTTP_M_OTHER);
    CHECK_INT(PARSE("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &h), 0);
    CHECK(str_eq_z(h.path, "*"));
    for (int m = 0; m < HTTP_M_OTHER; m++) {
        char text[64];

        fmt_z(text, sizeof(text), "%s / HTTP/1.1\r\nHost: h\r\n\r\n",
              http_method_name((enum http_method)m));
        CHECK_INT(parse(text, strlen(text), &h), 0);
        CHECK_INT(h.method, m);
    }
}

TEST(version_and_connection_decide_about_the_next_request)
{
    static const struct {
        const char *rest;
        bool keep;
    } cases[] = {
        { "HTTP/1.1\r\nHost: h\r\n\r\n", true },
        { "HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false },
        { "HTTP/1.1\r\nHost: h\r\nConnection: foo, CLOSE\r\n\r\n", false },
        { "HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true },
        { "HTTP/1.0\r\n\r\n", false },
        { "HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true },
        { "HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct http_head h;
        char text[256];

        fmt_z(text, sizeof(text), "GET / %s", cases[i].rest);
        CHECK_INT(parse(text, strlen(text), &h), 0);
        CHECK_INT(h.keep_alive, cases[i].keep);
    }
}

TEST(bodies_are_announced_by_length_or_in_chunks)
{
    struct http_head h;

    CHECK_INT(PARSE("POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 0012\r\n\r\n", &h), 0);
    CHECK_INT(h.length, 12);
    CHECK_INT(PARSE("POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\n\r\n", &h), 0);
    CHECK(h.chunked);
    CHECK_INT(PARSE("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n\r\n", &h), 0);
    CHECK(h.expect_continue);
    CHECK_INT(PARSE("POST / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\n\r\n", &h), 0);
    CHECK(!h.expect_continue);
}

/* clang-format off */
#define CASE(status, text) { status, text, sizeof(text) - 1 }
#define HOST "Host: h\r\n"
#define POST_ "POST / HTTP/1.1\r\n" HOST
static const struct {
    int status;
    const char *text;
    size_t n;
} corpus[] = {
    /* where the body ends */
    CASE(400, POST_ "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    CASE(400, POST_ "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 5, 5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: +5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: -5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 0x5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 5 5\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 5.0\r\n\r\n"),
    CASE(400, POST_ "Content-Length:\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 9999999999999999999\r\n\r\n"),
    CASE(400, POST_ "Content-Length: 18446744073709551621\r\n\r\n"),
    CASE(400, POST_ "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    CASE(501, POST_ "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"),
    CASE(501, POST_ "Transfer-Encoding: gzip, chunked\r\n\r\n"),
    CASE(501, POST_ "Transfer-Encoding: chunked, identity\r\n\r\n"),
    CASE(501, POST_ "Transfer-Encoding: xchunked\r\n\r\n"),
    CASE(501, POST_ "Transfer-Encoding: \"chunked\"\r\n\r\n"),
    CASE(501, POST_ "Transfer-Encoding:\r\n\r\n"),
    CASE(400, POST_ "Transfer-Encoding: \x0b" "chunked\r\n\r\n"),
    CASE(400, "POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"),
    CASE(417, POST_ "Expect: miracles\r\n\r\n"),
    /* where a line and a name end */
    CASE(400, POST_ "A: b\r\n c\r\n\r\n"),
    CASE(400, POST_ "A: b\r\n\tc\r\n\r\n"),
    CASE(400, POST_ "Transfer-Encoding:\r\n chunked\r\n\r\n"),
    CASE(400, "POST / HTTP/1.1\r\n Host: h\r\n\r\n"),
    CASE(400, "POST / HTTP/1.1\nHost: h\n\n"),
    CASE(400, "POST / HTTP/1.1\r\nHost: h\n\r\n"),
    CASE(400, POST_ "A: b\n\r\n"),
    CASE(400, POST_ "A: b\rC: d\r\n\r\n"),
    CASE(400, POST_ "A: b\r\r\n\r\n"),
    CASE(400, POST_ "A : b\r\n\r\n"),
    CASE(400, POST_ "A\t: b\r\n\r\n"),
    CASE(400, POST_ "A b: c\r\n\r\n"),
    CASE(400, POST_ ": c\r\n\r\n"),
    CASE(400, POST_ "no colon\r\n\r\n"),
    CASE(400, POST_ "A(: c\r\n\r\n"),
    CASE(400, POST_ "\xc3\xbc: c\r\n\r\n"),
    CASE(400, POST_ "A: b\0c\r\n\r\n"),
    CASE(400, POST_ "A\0: b\r\n\r\n"),
    CASE(400, POST_ "A: \x01\r\n\r\n"),
    CASE(400, POST_ "A: \x7f\r\n\r\n"),
    CASE(0,   POST_ "A: \xc3\xbc \"q\"\t;\r\n\r\n"),
    /* whose request it is */
    CASE(400, "GET / HTTP/1.1\r\n\r\n"),
    CASE(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    CASE(400, "GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n"),
    CASE(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
    CASE(400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    CASE(400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    CASE(400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    CASE(400, "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
    CASE(400, "GET http://other/ HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET http://h:80/ HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET ftp://h/ HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET http:// HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET https:// HTTP/1.1\r\n" HOST "\r\n"),
    CASE(0,   "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
    /* the request line */
    CASE(400, "GET /\r\n\r\n"),
    CASE(400, "GET\r\n\r\n"),
    CASE(400, "GET  / HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET /  HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET / HTTP/1.1 \r\n" HOST "\r\n"),
    CASE(400, "GET / a HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET\t/ HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, " GET / HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "G(T / HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET x HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET * HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "CONNECT h:80 HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET /#f HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET /\0 HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET /\x01 HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET /\x7f HTTP/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET / http/1.1\r\n" HOST "\r\n"),
    CASE(400, "GET / HTTP/1\r\n" HOST "\r\n"),
    CASE(400, "GET / HTTP/1.1x\r\n" HOST "\r\n"),
    CASE(400, "GET / HTTP/11\r\n" HOST "\r\n"),
    CASE(400, "GET / ICY/1.1\r\n" HOST "\r\n"),
    CASE(505, "GET / HTTP/1.2\r\n" HOST "\r\n"),
    CASE(505, "GET / HTTP/0.9\r\n" HOST "\r\n"),
    CASE(505, "GET / HTTP/2.0\r\n" HOST "\r\n"),
    CASE(505, "PRI * HTTP/2.0\r\n\r\n"),
    CASE(400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    CASE(400, "\0GET / HTTP/1.1\r\n" HOST "\r\n"),
};
/* clang-format on */

TEST(doubtful_heads_are_refused_with_the_right_status)
{
    for (size_t i = 0; i < LEN(corpus); i++) {
        struct http_head h;
        int status = parse(corpus[i].text, corpus[i].n, &h);

        if (status != corpus[i].status)
            CHECK_FAIL("%s: %d, want %d", corpus[i].text, status, corpus[i].status);
    }
}

TEST(a_head_may_come_byte_by_byte)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\nGET /next";
    size_t scanned = 0, len = 0;
    struct err e;

    for (size_t n = 0; n < sizeof(text) - 1 - strlen("GET /next"); n++)
        CHECK_INT(http_head_find((struct str){ text, n }, &scanned, &len, &e), HTTP_HEAD_MORE);
    CHECK_INT(http_head_find((struct str){ text, sizeof(text) - 1 }, &scanned, &len, &e), 0);
    CHECK_INT(len, strlen(text) - strlen("GET /next"));
}

TEST(a_bare_line_feed_is_refused_before_the_head_is_whole)
{
    size_t scanned = 0, len = 0;
    struct err e;

    CHECK_INT(http_head_find(STR("GET / HTTP/1.1\nHo"), &scanned, &len, &e), -ERR_INVALID);
}

TEST(header_lines_have_a_number)
{
    char text[4096];
    struct http_head h;

    for (int n = HTTP_HEADERS_MAX - 1; n <= HTTP_HEADERS_MAX; n++) {
        size_t at = 0;

        fmt_z(text, sizeof(text), "GET / HTTP/1.1\r\nHost: h\r\n");
        for (int i = 0; i < n; i++) {
            at = strlen(text);
            fmt_z(text + at, sizeof(text) - at, "X-%d: %d\r\n", i, i);
        }
        at = strlen(text);
        fmt_z(text + at, sizeof(text) - at, "\r\n");
        CHECK_INT(parse(text, strlen(text), &h), n < HTTP_HEADERS_MAX ? 0 : 431);
    }
}

/* The body, or NULL when it is refused or unfinished; *ret_rest is what follows it. */
static const char *decode(const char *p, size_t n, size_t step, char out[256], size_t *ret_rest)
{
    struct http_chunk c = { 0 };
    size_t at = 0, have = 0;

    for (size_t end = 0; end < n;) {
        end = end + step < n ? end + step : n;
        while (at < end) {
            struct str data;
            size_t eaten;
            struct err e;
            int r = http_chunk_next(&c, (struct str){ p + at, end - at }, &eaten, &data, &e);

            if (r < 0)
                return NULL;
            memcpy(out + have, data.p, data.n);
            have += data.n;
            at += eaten;
            if (r == HTTP_CHUNK_END) {
                out[have] = '\0';
                *ret_rest = n - at;
                return out;
            }
        }
    }
    return NULL;
}

TEST(chunks_are_joined_however_they_arrive)
{
    static const struct {
        const char *text, *body;
    } cases[] = {
        { "0\r\n\r\n", "" },
        { "5\r\nhello\r\n0\r\n\r\n", "hello" },
        { "2\r\nhe\r\n3\r\nllo\r\n000\r\n\r\n", "hello" },
        { "A\r\n0123456789\r\n0\r\n\r\n", "0123456789" },
        { "a;x=y;z=\"q q\"\r\n0123456789\r\n0;last\r\n\r\n", "0123456789" },
        { "00000000000005\r\nhello\r\n0\r\n\r\n", "hello" },
        { "2\r\n\r\n\r\n0\r\n\r\n", "\r\n" },
        { "1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", "x" },
    };

    for (size_t i = 0; i < LEN(cases); i++)
        for (size_t step = 1; step < 40; step++) {
            char text[128], out[256];
            size_t rest = 0;

            fmt_z(text, sizeof(text), "%sGET /", cases[i].text);
            CHECK_STR(decode(text, strlen(text), step, out, &rest), cases[i].body);
            CHECK(rest <= 5 && rest == strlen("GET /"));
        }
}

/* clang-format off */
#define BAD(text) { text, sizeof(text) - 1 }
static const struct {
    const char *p;
    size_t n;
} bad_chunks[] = {
    BAD("\r\n"), BAD("x\r\n"), BAD("-1\r\n"), BAD("+1\r\nx"), BAD("0x1\r\nx"), BAD(" 1\r\nx"),
    BAD("1 \r\nx"), BAD("1\nx"), BAD("1\rx"), BAD("1\r\rx"), BAD("1;\x01\r\n"), BAD("1;\n\r\n"),
    BAD("1;a\0b\r\n"), BAD("5\r\nhelloX"), BAD("5\r\nhello\n"), BAD("5\r\nhello\rX"),
    BAD("1000000000000000\r\n"), BAD("ffffffffffffffffff\r\n"), BAD("0\r\n\n"), BAD("0\r\nA: b\n"),
    BAD("0\r\n A: b\r\n"), BAD("0\r\nA: b\r\n c\r\n"), BAD("0\r\nA: \0\r\n"), BAD("0\r\n\rX"),
};
/* clang-format on */

TEST(doubtful_chunks_are_refused)
{
    for (size_t i = 0; i < LEN(bad_chunks); i++) {
        struct http_chunk c = { 0 };
        struct str in = { bad_chunks[i].p, bad_chunks[i].n }, data;
        size_t eaten;
        struct err e;
        int r = 0;

        while (in.n > 0 && r == 0) {
            r = http_chunk_next(&c, in, &eaten, &data, &e);
            if (r == 0) {
                in.p += eaten;
                in.n -= eaten;
            }
        }
        if (r != -ERR_INVALID)
            CHECK_FAIL("chunk %zu gave %d", i, r);
    }
}

TEST(what_surrounds_chunks_has_a_bound)
{
    static const char *const starts[] = { "1;", "0\r\nX" };

    for (size_t i = 0; i < LEN(starts); i++) {
        struct http_chunk c = { 0 };
        struct str data;
        size_t eaten, sent = 0;
        struct err e;

        CHECK_INT(http_chunk_next(&c, str_of(starts[i]), &eaten, &data, &e), 0);
        while (http_chunk_next(&c, STR("yyyyyyyyyyyyyyyy"), &eaten, &data, &e) == 0)
            CHECK(++sent < 1000);
        CHECK_INT(e.code, ERR_LIMIT);
    }
}
