/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/time.c.
 */
#include "base/time.h"

#include <time.h>

#include "test.h"

static uint64_t fake_now(void *arg)
{
    return *(uint64_t *)arg;
}

static int64_t fake_wall(void *arg)
{
    return (int64_t) * (uint64_t *)arg;
}

TEST(times_print_as_the_original_did)
{
    static const struct {
        int64_t us;
        const char *naive, *z;
    } cases[] = {
        { 0, "1970-01-01T00:00:00", "1970-01-01T00:00:00.000Z" },
        { 1, "1970-01-01T00:00:00.000001", "1970-01-01T00:00:00.000Z" },
        { -1, "1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999Z" },
        { 1795194327745978, "2026-11-20T17:05:27.745978", "2026-11-20T17:05:27.745Z" },
        { 1709164800000000, "2024-02-29T00:00:00", "2024-02-29T00:00:00.000Z" },
        { 253402300799999999, "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999Z" },
    };
    char text[TIME_TEXT];

    for (size_t i = 0; i < LEN(cases); i++) {
        time_format_naive(cases[i].us, text);
        CHECK_STR(text, cases[i].naive);
        time_format_z(cases[i].us, text);
        CHECK_STR(text, cases[i].z);
    }
    time_format_naive(INT64_MAX, text);
    time_format_naive(INT64_MIN, text);
    time_format_z(INT64_MIN, text);
}

TEST(the_calendar_agrees_with_the_c_library)
{
    char have[TIME_TEXT], want[TIME_TEXT];
    struct err e;

    for (int64_t s = -4000000000; s < 40000000000; s += 86400 * 37 + 12345) {
        time_t t = s;
        struct tm tm;
        int64_t back;

        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S", &tm);
        time_format_naive(s * 1000000, have);
        CHECK_STR(have, want);
        CHECK_INT(time_parse(str_of(have), &back, &e), 0);
        CHECK_INT(back, s * 1000000);
    }
}

TEST(dates_and_times_are_read_with_and_without_a_zone)
{
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        { "2026-11-20T17:05:27.745978", 1795194327745978 },
        { "2026-11-20 17:05:27.745978", 1795194327745978 },
        { "2026-11-20T17:05:27", 1795194327000000 },
        { "2026-11-20T17:05:27Z", 1795194327000000 },
        { "2026-11-20T17:05:27.5Z", 1795194327500000 },
        { "2026-11-20T17:05:27.745978999Z", 1795194327745978 },
        { "2026-11-20T19:05:27+02:00", 1795194327000000 },
        { "2026-11-20T19:05:27+0200", 1795194327000000 },
        { "2026-11-20T11:35:27-05:30", 1795194327000000 },
        { "2024-02-29T00:00:00", 1709164800000000 },
        { "2000-02-29T00:00:00", 951782400000000 },
    };
    struct err e;

    for (size_t i = 0; i < LEN(cases); i++) {
        int64_t us = 0;

        CHECK_INT(time_parse(str_of(cases[i].text), &us, &e), 0);
        CHECK_INT(us, cases[i].us);
    }
}

TEST(what_is_no_date_and_time_is_refused)
{
    static const char *const bad[] = {
        "",
        "2026-11-20",
        "2026-11-20T17:05",
        "2026-11-20T17:05:27.",
        "2026-11-20T17:05:27.1234567890",
        "2026-11-20T17:05:27z1",
        "2026-11-20T17:05:27+2",
        "2026-11-20T17:05:27+24:00",
        "2026-11-20T24:00:00",
        "2026-11-20T17:60:00",
        "2026-11-20T17:05:60",
        "2026-13-01T00:00:00",
        "2026-00-01T00:00:00",
        "2026-02-29T00:00:00",
        "2100-02-29T00:00:00",
        "2026-04-31T00:00:00",
        "0000-01-01T00:00:00",
        "26-11-20T17:05:27",
        "2026-11-20T17:05:27 UTC",
    };
    struct err e;

    for (size_t i = 0; i < LEN(bad); i++) {
        int64_t us = 42;

        CHECK_INT(time_parse(str_of(bad[i]), &us, &e), -ERR_INVALID);
        CHECK_INT(us, 42);
    }
}

TEST(http_dates_are_read)
{
    static const char *const bad[] = {
        "",
        "Sun, 06 Nov 1994 08:49:37",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
    };
    int64_t us = 42;
    struct err e;

    for (size_t i = 0; i < LEN(bad); i++)
        CHECK_INT(time_parse_http(str_of(bad[i]), &us, &e), -ERR_INVALID);
    CHECK_INT(us, 42);
    CHECK_INT(time_parse_http(STR("Sun, 06 Nov 1994 08:49:37 GMT"), &us, &e), 0);
    CHECK_INT(us, 784111777000000);
}

TEST(deadlines_do_not_wrap)
{
    CHECK(deadline_in(0) == DEADLINE_NONE);
    CHECK(deadline_in(-5) == DEADLINE_NONE);
    CHECK(deadline_in(INT64_MAX) > now_ms());
    CHECK(deadline_in(1000) >= now_ms() + 900);
    CHECK_INT(deadline_min(3, DEADLINE_NONE), 3);
}

TEST(the_clocks_run_and_tests_can_take_them_over)
{
    uint64_t us = 5000000, before = now_us();
    struct time_source source = { fake_now, fake_wall, &us };

    CHECK(now_us() >= before);
    CHECK(wall_us() > INT64_C(1700000000000000));
    time_set_source(&source);
    CHECK_INT(now_ms(), 5000);
    CHECK_INT(wall_us(), 5000000);
    us += 1000;
    CHECK_INT(now_ms(), 5001);
    time_set_source(NULL);
    CHECK(wall_us() > INT64_C(1700000000000000));
}
