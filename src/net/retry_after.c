/* SPDX-License-Identifier: MIT */
/*
 * net/retry_after.c — the Retry-After header of other servers, read without trust.
 */
#include "base/time.h"
#include "net/http_client.h"

#define RETRY_AFTER_MAX_MS (24ll * 60 * 60 * 1000)

static bool all_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

/* Saturates, since a digit string may be as long as the header. */
static long long seconds_ms(struct str digits)
{
    long long s = 0;

    for (size_t i = 0; i < digits.n; i++) {
        s = s * 10 + (digits.p[i] - '0');
        if (s * 1000 >= RETRY_AFTER_MAX_MS)
            return RETRY_AFTER_MAX_MS;
    }
    return s * 1000;
}

long long retry_after_parse(struct str value, int64_t now_wall_us)
{
    struct str s = str_trim(value);
    int64_t at, wait;

    if (all_digits(s))
        return seconds_ms(s);
    if (time_parse_http(s, &at, NULL) < 0 || at <= now_wall_us)
        return 0;
    wait = (at - now_wall_us + 999) / 1000;
    return wait < RETRY_AFTER_MAX_MS ? wait : RETRY_AFTER_MAX_MS;
}
