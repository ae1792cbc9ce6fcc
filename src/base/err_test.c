/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/err.c.
 */
#include "base/err.h"

#include "base/str.h"
#include "test.h"

TEST(an_error_carries_code_message_and_birthplace)
{
    struct err e;

    CHECK_INT(err_set(&e, ERR_NOT_FOUND, "no agent '%s'", "ada"), -ERR_NOT_FOUND);
    CHECK_INT(e.code, ERR_NOT_FOUND);
    CHECK_STR(e.msg, "no agent 'ada'");
    CHECK(strstr(e.file, "err_test.c"));
    CHECK(e.line > 0);
}

TEST(nobody_has_to_ask_for_the_reason)
{
    CHECK_INT(err_set(NULL, ERR_LIMIT, "x"), -ERR_LIMIT);
    CHECK_INT(err_sysn(NULL, EACCES, "x"), -ERR_FORBIDDEN);
    CHECK_INT(err_wrap(NULL, "x"), -ERR_INTERNAL);
}

TEST(a_wrapped_error_keeps_its_code_and_gains_context)
{
    struct err e;

    (void)err_set(&e, ERR_TIMEOUT, "read");
    CHECK_INT(err_wrap(&e, "call '%s'", "ada"), -ERR_TIMEOUT);
    CHECK_INT(err_wrap(&e, "route"), -ERR_TIMEOUT);
    CHECK_STR(e.msg, "route: call 'ada': read");
}

TEST(an_error_may_quote_its_own_message)
{
    struct err e;

    (void)err_set(&e, ERR_INVALID, "first");
    CHECK_INT(err_set(&e, ERR_CONFLICT, "second after %s", e.msg), -ERR_CONFLICT);
    CHECK_STR(e.msg, "second after first");
}

TEST(system_errors_get_the_fitting_code)
{
    static const struct {
        int eno;
        enum err_code code;
    } cases[] = {
        { ENOENT, ERR_NOT_FOUND },         { EACCES, ERR_FORBIDDEN },  { EEXIST, ERR_CONFLICT },
        { ECONNREFUSED, ERR_UNAVAILABLE }, { ETIMEDOUT, ERR_TIMEOUT }, { ECANCELED, ERR_CANCELED },
        { ENOSPC, ERR_UNAVAILABLE },       { EIO, ERR_INTERNAL },
    };
    struct err e;

    for (size_t i = 0; i < LEN(cases); i++)
        CHECK_INT(err_sysn(&e, cases[i].eno, "op"), -(int)cases[i].code);
    errno = ENOENT;
    CHECK_INT(err_sys(&e, "open '%s'", "/x"), -ERR_NOT_FOUND);
    CHECK_STR(e.msg, "open '/x': No such file or directory");
}

TEST(a_long_message_is_cut_between_code_points)
{
    char text[600];
    struct err e;

    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'a', shift);
        for (size_t i = shift; i + 4 < sizeof(text); i += 4)
            memcpy(text + i, "\xf0\x9f\x98\x80", 5);
        (void)err_set(&e, ERR_INVALID, "%s", text);
        CHECK(utf8_valid(e.msg, strlen(e.msg)));
        CHECK(strlen(e.msg) > sizeof(e.msg) - 5);
        CHECK_INT(err_wrap(&e, "context"), -ERR_INVALID);
        CHECK(utf8_valid(e.msg, strlen(e.msg)));
    }
}

TEST(every_code_has_a_name)
{
    for (int code = ERR_INVALID; code <= ERR_INTERNAL; code++)
        CHECK(strcmp(err_name((enum err_code)code), "unknown") != 0);
    CHECK_STR(err_name(ERR_NOT_FOUND), "not_found");
    CHECK_STR(err_name((enum err_code)99), "unknown");
}

TEST(the_allocators_take_zero)
{
    AUTO(free) char *p = xmalloc(0);
    AUTO(free) char *copy = xstrndup("abc", 2);
    AUTO(free) char *text = xasprintf("%d-%s", 7, "x");

    CHECK(p != NULL);
    CHECK_STR(copy, "ab");
    CHECK_STR(text, "7-x");
}
