/* SPDX-License-Identifier: MIT */
/*
 * net/retry_after.c — the Retry-After header of other servers, read without trust.
 */
#include "base/str.h"
#include "base/time.h"
#include "net/http_client.h"

#define IMF_SIZE           32
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

/* "Sun Nov  6 08:49:37 1994", C's asctime(). */
static bool from_asctime(struct str s, char out[IMF_SIZE])
{
    if (s.n != 24)
        return false;
    fmt_z(out, IMF_SIZE, "%.3s, %c%c %.3s %.4s %.8s GMT", s.p, s.p[8] == ' ' ? '0' : s.p[8], s.p[9],
          s.p + 4, s.p + 20, s.p + 11);
    return true;
}

/* "Sunday, 06-Nov-94 08:49:37 GMT" (RFC 850): of two centuries the one that is less far off. */
static bool from_rfc850(struct str s, int64_t now_wall_us, char out[IMF_SIZE])
{
    long long year, this_year = 1970 + now_wall_us / 1000000 / 31556952;
    struct str day;

    if (!str_split(&s, ',', &day) || day.n < 6 || s.n != 23 || !str_ends(s, STR(" GMT")) ||
        int_parse((struct str){ s.p + 8, 2 }, 0, 99, &year, NULL) < 0)
        return false;
    year += this_year / 100 * 100;
    if (year > this_year + 50)
        year -= 100;
    fmt_z(out, IMF_SIZE, "%.3s, %.2s %.3s %04lld %.8s GMT", day.p, s.p + 1, s.p + 4, year,
          s.p + 11);
    return true;
}

/* RFC 9110 wants the two obsolete forms of a date read as well. */
static int parse_date(struct str s, int64_t now_wall_us, int64_t *ret)
{
    char imf[IMF_SIZE];

    if (time_parse_http(s, ret, NULL) == 0)
        return 0;
    if (!from_asctime(s, imf) && !from_rfc850(s, now_wall_us, imf))
        return -ERR_INVALID;
    return time_parse_http(str_of(imf), ret, NULL);
}

long long retry_after_parse(struct str value, int64_t now_wall_us)
{
    struct str s = str_trim(value);
    int64_t at, wait;

    if (all_digits(s))
        return seconds_ms(s);
    if (parse_date(s, now_wall_us, &at) < 0 || at <= now_wall_us)
        return 0;
    wait = (at - now_wall_us + 999) / 1000;
    return wait < RETRY_AFTER_MAX_MS ? wait : RETRY_AFTER_MAX_MS;
}
