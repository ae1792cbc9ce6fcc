/* SPDX-License-Identifier: MIT */
/*
 * The parsers of small texts, and that what they read prints and reads back the same.
 */
#include <limits.h>
#include <stdio.h>

#include "base/base64.h"
#include "base/time.h"
#include "fuzz.h"

static void check_numbers(struct str s)
{
    unsigned char bytes[8];
    char again[32];
    long long v, w;

    if (int_parse(s, LLONG_MIN, LLONG_MAX, &v, NULL) == 0) {
        snprintf(again, sizeof(again), "%lld", v);
        if (int_parse(str_of(again), v, v, &w, NULL) < 0)
            abort();
    }
    if (duration_parse(s, &v, NULL) == 0 && v < 0)
        abort();
    if (size_parse(s, &v, NULL) == 0 && v < 0)
        abort();
    if (hex_parse(s, bytes, 8, NULL) == 0) {
        hex_format(bytes, 8, again);
        if (!str_eq_nocase(s, str_of(again)))
            abort();
    }
}

static void check_times(struct str s)
{
    char again[TIME_TEXT];
    int64_t us, back;

    if (time_parse(s, &us, NULL) == 0 && us > INT64_C(-62135596800000000) &&
        us < INT64_C(253402300800000000)) { /* an offset may lead out of the years 1 to 9999 */
        time_format_naive(us, again);
        if (time_parse(str_of(again), &back, NULL) < 0 || back != us)
            abort();
    }
    if (time_parse_http(s, &us, NULL) == 0 && us % 1000000 != 0)
        abort();
}

/* What was read is written so that it reads the same; every text comes back. */
static void check_base64(struct str s)
{
    struct arena a = { 0 };
    struct str plain, again;

    if (base64_decode(s, &a, &plain, NULL) == 0 &&
        (base64_decode(base64_encode(plain, &a), &a, &again, NULL) < 0 || !str_eq(plain, again)))
        abort();
    if (base64_decode(base64_encode(s, &a), &a, &again, NULL) < 0 || !str_eq(s, again))
        abort();
    arena_done(&a);
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str s = { (const char *)data, size }, part;
    size_t points = 0, at = 0, step;

    check_numbers(str_trim(s));
    check_base64(s);
    check_times(s);
    while ((step = utf8_step(s.p + at, s.n - at)) > 0) {
        at += step;
        points++;
    }
    if (utf8_valid(s.p, s.n) != (at == s.n) || (at == s.n && utf8_len(s.p, s.n) != points))
        abort();
    while (str_split(&s, ',', &part))
        check_numbers(part);
    return 0;
}
