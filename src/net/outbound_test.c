/* SPDX-License-Identifier: MIT */
#include "net/outbound.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#include "base/macro.h"
#include "test.h"

static bool allowed(const struct outbound_policy *p, const char *text)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    const char *why = NULL;
    bool ok;

    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        ok = outbound_allowed(p, (struct sockaddr *)&in, &why);
    } else {
        CHECK_INT(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
        ok = outbound_allowed(p, (struct sockaddr *)&in6, &why);
    }
    CHECK_INT(ok, why == NULL);
    return ok;
}

TEST(default_policy_refuses_metadata_and_odd_addresses)
{
    static const char *const bad[] = {
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "fd20:ce::254",
        "2002:a9fe:a9fe::1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
    };
    struct outbound_policy p;
    struct err e;

    CHECK_INT(outbound_policy_parse("", NULL, &p, &e), 0);
    for (size_t i = 0; i < LEN(bad); i++) {
        if (allowed(&p, bad[i]))
            printf("# %s was allowed\n", bad[i]);
        CHECK(!allowed(&p, bad[i]));
    }
}

TEST(default_policy_allows_where_agents_live)
{
    static const char *const good[] = {
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "172.16.0.1",
        "8.8.8.8",
        "100.64.0.1",
        "::1",
        "fd12:3456::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "2002:0808:0808::1",
        "64:ff9b::8.8.8.8",
        "169.253.0.1",
        "169.255.0.1",
        "fec0::1",
    };
    struct outbound_policy p;
    struct err e;

    CHECK_INT(outbound_policy_parse(NULL, "", &p, &e), 0);
    for (size_t i = 0; i < LEN(good); i++) {
        if (!allowed(&p, good[i]))
            printf("# %s was refused\n", good[i]);
        CHECK(allowed(&p, good[i]));
    }
    CHECK(allowed(NULL, "169.254.169.254"));
}

TEST(allow_rows_open_and_deny_rows_win)
{
    struct outbound_policy p;
    struct err e;

    CHECK_INT(outbound_policy_parse("169.254.0.0/16, fe80::/10", "169.254.169.254,10.0.0.0/8,::1",
                                    &p, &e),
              0);
    CHECK(allowed(&p, "169.254.1.1"));
    CHECK(allowed(&p, "::ffff:169.254.1.1"));
    CHECK(!allowed(&p, "169.254.169.254"));
    CHECK(!allowed(&p, "::ffff:169.254.169.254"));
    CHECK(allowed(&p, "fe80::7"));
    CHECK(!allowed(&p, "10.255.0.1"));
    CHECK(!allowed(&p, "64:ff9b::10.0.0.1"));
    CHECK(!allowed(&p, "::1"));
    CHECK(allowed(&p, "11.0.0.1"));

    CHECK_INT(outbound_policy_parse("", "0.0.0.0/0,::/0", &p, &e), 0);
    CHECK(!allowed(&p, "8.8.8.8"));
    CHECK(!allowed(&p, "2001:db8::1"));
    CHECK_INT(outbound_policy_parse("", "128.0.0.0/1", &p, &e), 0);
    CHECK(!allowed(&p, "200.0.0.1"));
    CHECK(allowed(&p, "100.0.0.1"));
}

TEST(policy_refuses_what_is_not_a_range)
{
    static const char *const bad[] = {
        "a",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0/8",
        "::/129",
        "::g",
        "/8",
        "10.0.0.0/8/8",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc/3",
    };
    char many[65 * 10] = "";
    struct outbound_policy p = { .n_allow = 7 };
    struct err e;

    for (size_t i = 0; i < LEN(bad); i++) {
        CHECK_INT(outbound_policy_parse(bad[i], "", &p, &e), -ERR_INVALID);
        CHECK(strstr(e.msg, "outbound.allow"));
    }
    for (size_t i = 0; i < 65; i++)
        memcpy(many + 9 * i, "10.0.0.1,", 9);
    CHECK_INT(outbound_policy_parse("", many, &p, &e), -ERR_LIMIT);
    CHECK_INT(p.n_allow, 7);
}

TEST(other_families_are_refused)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct outbound_policy p = { 0 };
    const char *why = NULL;

    CHECK(!outbound_allowed(&p, (struct sockaddr *)&un, &why));
    CHECK_STR(why, "not an internet address");
}
