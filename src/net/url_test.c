/* SPDX-License-Identifier: MIT */
#include "net/url.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/macro.h"
#include "test.h"

static const char *text(struct arena *a, struct str s)
{
    return arena_strndup(a, s.p, s.n);
}

TEST(url_parse_finds_the_parts)
{
    /* clang-format off */
    static const struct {
        const char *in, *scheme, *host, *path, *query;
        unsigned short port;
        bool port_given, ipv6;
    } cases[] = {
        { "http://a", "http", "a", "/", "", 80, false, false },
        { "http://a/", "http", "a", "/", "", 80, false, false },
        { "https://agent.example:8443/v1/messages", "https", "agent.example", "/v1/messages", "", 8443, true, false },
        { "HTTP://127.0.0.1:5000/x?y=1&z", "HTTP", "127.0.0.1", "/x", "y=1&z", 5000, true, false },
        { "http://a?q", "http", "a", "/", "q", 80, false, false },
        { "http://[::1]:9000/p", "http", "::1", "/p", "", 9000, true, true },
        { "https://[2001:db8::7]", "https", "2001:db8::7", "/", "", 443, false, true },
        { "ws://h/ws", "ws", "h", "/ws", "", 80, false, false },
        { "wss://h:1/ws", "wss", "h", "/ws", "", 1, true, false },
        { "http://a:/x", "http", "a", "/x", "", 80, false, false },
        { "http://a/b/../c%2Fd", "http", "a", "/b/../c%2Fd", "", 80, false, false },
        { "http://a/x?u=http://b/@c", "http", "a", "/x", "u=http://b/@c", 80, false, false },
        { "postgres://u:p@db:5433/name?sslmode=require", "postgres", "db", "/name", "sslmode=require", 5433, true, false },
        { "postgresql://db/name", "postgresql", "db", "/name", "", 5432, false, false },
        { "http://under_score.local./", "http", "under_score.local.", "/", "", 80, false, false },
    };
    /* clang-format on */

    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct url u;
        struct err e;

        CHECK_INT(url_parse(str_of(cases[i].in), &u, &e), 0);
        CHECK_STR(text(&a, u.scheme), cases[i].scheme);
        CHECK_STR(text(&a, u.host), cases[i].host);
        CHECK_STR(text(&a, u.path), cases[i].path);
        CHECK_STR(text(&a, u.query.p ? u.query : STR("")), cases[i].query);
        CHECK_INT(u.port, cases[i].port);
        CHECK_INT(u.port_given, cases[i].port_given);
        CHECK_INT(u.ipv6, cases[i].ipv6);
        arena_done(&a);
    }
}

TEST(url_parse_refuses_what_two_readers_could_take_for_two_places)
{
    static const char *const bad[] = {
        "",
        "http",
        "http:",
        "http:/a",
        "//a/b",
        "/a",
        "ftp://a/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://:80/",
        "http://user@a/",
        "http://user:secret@a/",
        "http://a@b@c/",
        "http://a:0/",
        "http://a:65536/",
        "http://a:+80/",
        "http://a:8 0/",
        "http://a:80:80/",
        "http://a b/",
        "http://a/b c",
        "http://a/\n",
        "http://a/#f",
        "http://a\\b/",
        "http://a/{x}",
        "http://[::1/",
        "http://[::1]x/",
        "http://::1/",
        "http://[127.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://-a/",
        "http://a-/",
        "http://a..b/",
        "http://./",
        "http://.a/",
        "http://a\xc3\xa4/",
        "http://a%2Fb/",
        "http://a*b/",
    };

    for (size_t i = 0; i < LEN(bad); i++) {
        struct url u = { .port = 7 };
        struct err e;
        int r = url_parse(str_of(bad[i]), &u, &e);

        if (r != -ERR_INVALID)
            printf("# '%s' was taken\n", bad[i]);
        CHECK_INT(r, -ERR_INVALID);
        CHECK_INT(u.port, 7); /* a failure leaves the out-parameter alone */
    }
}

TEST(url_parse_never_quotes_the_text_in_its_error)
{
    struct url u;
    struct err e;

    CHECK_INT(url_parse(STR("http://user:hunter2@a/"), &u, &e), -ERR_INVALID);
    CHECK(!strstr(e.msg, "hunter2"));
}

TEST(host_check_tells_names_from_addresses)
{
    char longest[254], label[65];
    struct err e;
    bool v6 = true;

    CHECK_INT(host_check(STR("agent-1.internal"), &v6, &e), 0);
    CHECK(!v6);
    CHECK_INT(host_check(STR("10.0.0.7"), &v6, &e), 0);
    CHECK(!v6);
    CHECK_INT(host_check(STR("::1"), &v6, &e), 0);
    CHECK(v6);
    CHECK_INT(host_check(STR("[2001:db8::1]"), &v6, &e), 0);
    CHECK(v6);
    CHECK_INT(host_check(STR("3com.example"), &v6, &e), 0);
    CHECK_INT(host_check(STR("a.b.c."), &v6, &e), 0);

    memset(label, 'a', 64);
    label[64] = '\0';
    CHECK_INT(host_check(str_of(label), &v6, &e), -ERR_INVALID);
    label[63] = '\0';
    CHECK_INT(host_check(str_of(label), &v6, &e), 0);
    for (size_t i = 0; i < sizeof(longest) - 1; i++)
        longest[i] = i % 2 ? '.' : 'a';
    longest[253] = '\0';
    CHECK_INT(host_check(str_of(longest), &v6, &e), 0);

    CHECK_INT(host_check(STR("a/b"), &v6, &e), -ERR_INVALID);
    CHECK_INT(host_check(STR("a:80"), &v6, &e), -ERR_INVALID);
    CHECK_INT(host_check(STR("a@b"), &v6, &e), -ERR_INVALID);
    CHECK_INT(host_check(STR("127.0.0.1\0"), &v6, &e), -ERR_INVALID);
    CHECK_INT(host_check(STR("[]"), &v6, &e), -ERR_INVALID);
    CHECK_INT(host_check(STR("["), &v6, &e), -ERR_INVALID);
}

TEST(url_address_knows_literals)
{
    struct sockaddr_storage sa;
    struct url u;
    struct err e;

    CHECK_INT(url_parse(STR("http://127.0.0.1:81/"), &u, &e), 0);
    CHECK(url_address(&u, &sa));
    CHECK_INT(sa.ss_family, AF_INET);
    CHECK_INT(ntohs(((struct sockaddr_in *)&sa)->sin_port), 81);
    CHECK_INT(url_parse(STR("http://[::1]/"), &u, &e), 0);
    CHECK(url_address(&u, &sa));
    CHECK_INT(sa.ss_family, AF_INET6);
    CHECK_INT(url_parse(STR("http://localhost/"), &u, &e), 0);
    CHECK(!url_address(&u, &sa));
}

TEST(percent_decode_decodes_once)
{
    /* clang-format off */
    static const struct { const char *in, *out; } cases[] = {
        { "", "" }, { "a", "a" }, { "a%2Fb", "a/b" }, { "%41%6a", "Aj" }, { "a+b", "a+b" },
        { "%252F", "%2F" }, { "%c3%A4", "\xc3\xa4" },
    };
    /* clang-format on */
    static const char *const bad[] = { "%", "%4", "a%", "%zz", "%4g", "%00", "a%2" };
    struct arena a = { 0 };
    struct str out;
    struct err e;

    for (size_t i = 0; i < LEN(cases); i++) {
        CHECK_INT(percent_decode(str_of(cases[i].in), &a, &out, &e), 0);
        CHECK_STR(out.p, cases[i].out);
        CHECK_INT(out.n, strlen(cases[i].out));
    }
    for (size_t i = 0; i < LEN(bad); i++)
        CHECK_INT(percent_decode(str_of(bad[i]), &a, &out, &e), -ERR_INVALID);
    arena_done(&a);
}

TEST(percent_encode_is_undone_by_percent_decode)
{
    struct arena a = { 0 };
    char all[255];
    struct str out, back;
    struct err e;

    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    CHECK_STR(percent_encode(STR("a b/c~_-.9"), &a).p, "a%20b%2Fc~_-.9");
    out = percent_encode((struct str){ all, sizeof(all) }, &a);
    CHECK_INT(percent_decode(out, &a, &back, &e), 0);
    CHECK_INT(back.n, sizeof(all));
    CHECK(memcmp(back.p, all, sizeof(all)) == 0);
    arena_done(&a);
}

TEST(query_parse_makes_pairs)
{
    struct arena a = { 0 };
    struct shape_pair *pairs;
    struct err e;
    size_t n;

    CHECK_INT(query_parse(STR("a=1&b=x%20y+z&&c&=d&e=f=g"), &a, &pairs, &n, &e), 0);
    CHECK_INT(n, 5);
    CHECK_STR(pairs[0].name.p, "a");
    CHECK_STR(pairs[0].value.p, "1");
    CHECK_STR(pairs[1].value.p, "x y z");
    CHECK_STR(pairs[2].name.p, "c");
    CHECK_STR(pairs[2].value.p, "");
    CHECK_STR(pairs[3].name.p, "");
    CHECK_STR(pairs[3].value.p, "d");
    CHECK_STR(pairs[4].value.p, "f=g");
    CHECK_INT(query_parse((struct str){ 0 }, &a, &pairs, &n, &e), 0);
    CHECK_INT(n, 0);
    arena_done(&a);
}

TEST(query_parse_refuses_bad_escapes_and_too_many)
{
    struct arena a = { 0 };
    struct shape_pair *pairs;
    char many[65 * 2];
    struct err e;
    size_t n;

    CHECK_INT(query_parse(STR("a=%"), &a, &pairs, &n, &e), -ERR_INVALID);
    CHECK_INT(query_parse(STR("%00=1"), &a, &pairs, &n, &e), -ERR_INVALID);
    for (size_t i = 0; i < sizeof(many); i++)
        many[i] = i % 2 ? '&' : 'a';
    CHECK_INT(query_parse((struct str){ many, sizeof(many) - 2 }, &a, &pairs, &n, &e), 0);
    CHECK_INT(n, 64);
    CHECK_INT(query_parse((struct str){ many, sizeof(many) }, &a, &pairs, &n, &e), -ERR_INVALID);
    arena_done(&a);
}
