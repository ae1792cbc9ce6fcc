/* SPDX-License-Identifier: MIT */
/* agent/git_test.c — which repositories may be named; what git does is in tests/machines. */
#include "agent/git.h"

#include "test.h"

TEST(what_git_reaches_by_listed_protocols_is_allowed)
{
    static const char *const good[] = {
        "https://host/a.git",
        "HTTPS://host/a.git",
        "http://host:8080/a",
        "ssh://git@host/a",
        "git://host/a",
        "git@host:a/b.git",
        "host:a",
        "/srv/a.git",
        "../a",
        "file:///srv/a",
        "origin",
    };
    struct err e;

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        CHECK_INT(git_repo_check(good[i], GIT_PROTOCOLS, &e), 0);
}

TEST(the_rest_is_refused)
{
    static const char *const bad[] = {
        "ext::sh -c touch% /tmp/x",
        "EXT::sh",
        "fd::17",
        "a::b",
        "::x",
        "ftp://host/a",
        "ext+https://host/a",
        "://x",
        "-u/x",
        "--upload-pack=touch /tmp/x",
        "",
        "https://host/a\nb",
        "a\x7F",
    };
    struct err e;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        CHECK(git_repo_check(bad[i], GIT_PROTOCOLS, &e) < 0);
    CHECK(git_repo_check("file:///srv/a", GIT_PROTOCOLS_ROOT, &e) < 0);
}
