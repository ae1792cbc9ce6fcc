/* SPDX-License-Identifier: MIT */
/*
 * base/str.c — slices, UTF-8, and parsers of numbers, durations, sizes and hex.
 */
#include "base/str.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eq_z(struct str a, const char *z)
{
    return str_eq(a, str_of(z));
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    }
    return true;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.n > 0 && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_split(struct str *rest, char sep, struct str *ret_part)
{
    const char *at;

    if (rest->n == 0)
        return false;
    at = memchr(rest->p, sep, rest->n);
    if (!at) {
        *ret_part = *rest;
        rest->p += rest->n;
        rest->n = 0;
        return true;
    }
    ret_part->p = rest->p;
    ret_part->n = (size_t)(at - rest->p);
    rest->n -= ret_part->n + 1;
    rest->p = at + 1;
    return true;
}

char *str_dup(struct str s)
{
    char *copy = xmalloc(s.n + 1);

    if (s.n > 0)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

size_t utf8_step(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
    size_t len;

    if (n == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    if (u[0] < 0xc2 || u[0] > 0xf4)
        return 0;
    len = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    if (n < len)
        return 0;
    if (u[0] == 0xe0)
        low = 0xa0; /* overlong */
    else if (u[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (u[0] == 0xf0)
        low = 0x90; /* overlong */
    else if (u[0] == 0xf4)
        high = 0x8f; /* past U+10FFFF */
    if (u[1] < low || u[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

bool utf8_valid(const char *p, size_t n)
{
    size_t step;

    while (n >= 8) { /* most text is ASCII: eight bytes at a time */
        uint64_t word;

        memcpy(&word, p, 8);
        if (word & UINT64_C(0x8080808080808080))
            break;
        p += 8;
        n -= 8;
    }
    while (n > 0) {
        step = utf8_step(p, n);
        if (step == 0)
            return false;
        p += step;
        n -= step;
    }
    return true;
}

size_t utf8_len(const char *p, size_t n)
{
    size_t points = 0;

    for (size_t i = 0; i < n; i++)
        points += ((unsigned char)p[i] & 0xc0) != 0x80;
    return points;
}

int int_parse(struct str s, long long min, long long max, long long *ret, struct err *e)
{
    bool negative = s.n > 0 && s.p[0] == '-';
    size_t i = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+');
    long long value = 0;

    if (i == s.n)
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not a whole number", STR_ARG(s));
    for (; i < s.n; i++) {
        int digit = s.p[i] - '0';

        if (digit < 0 || digit > 9)
            return err_set(e, ERR_INVALID, "'" STR_FMT "' is not a whole number", STR_ARG(s));
        if (__builtin_mul_overflow(value, 10LL, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return err_set(e, ERR_INVALID, "'" STR_FMT "' is too large", STR_ARG(s));
    }
    if (value < min || value > max)
        return err_set(e, ERR_INVALID, "%lld is not between %lld and %lld", value, min, max);
    *ret = value;
    return 0;
}

/* A decimal number cut off the front of *s: whole part, and its fraction in billionths. */
static bool take_decimal(struct str *s, long long *whole, long long *billionths)
{
    long long scale = 100000000;
    size_t i = 0, digits = 0;

    *whole = *billionths = 0;
    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++, digits++) {
        if (__builtin_mul_overflow(*whole, 10LL, whole) ||
            __builtin_add_overflow(*whole, s->p[i] - '0', whole))
            return false;
    }
    if (i < s->n && s->p[i] == '.') {
        if (digits == 0)
            return false;
        for (i++, digits = 0; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++, digits++) {
            *billionths += (s->p[i] - '0') * scale;
            scale /= 10;
        }
    }
    s->p += i;
    s->n -= i;
    return digits > 0;
}

int duration_parse(struct str s, long long *ret_ms, struct err *e)
{
    static const struct {
        const char *name;
        long long ms;
    } units[] = {
        { "", 1000 },       { "ms", 1 },          { "s", 1000 },
        { "m", 60 * 1000 }, { "h", 3600 * 1000 }, { "d", 24 * 3600 * 1000 },
    };
    struct str rest = s;
    long long whole, billionths, ms;

    if (!take_decimal(&rest, &whole, &billionths))
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not a duration (like 250ms, 10s, 24h)",
                       STR_ARG(s));
    for (size_t i = 0; i < LEN(units); i++) {
        if (!str_eq_z(rest, units[i].name))
            continue;
        if (__builtin_mul_overflow(whole, units[i].ms, &ms) ||
            __builtin_add_overflow(ms, billionths * units[i].ms / 1000000000, &ms))
            return err_set(e, ERR_INVALID, "'" STR_FMT "' is too long", STR_ARG(s));
        *ret_ms = ms;
        return 0;
    }
    return err_set(e, ERR_INVALID, "'" STR_FMT "' is not a duration (like 250ms, 10s, 24h)",
                   STR_ARG(s));
}

int size_parse(struct str s, long long *ret, struct err *e)
{
    static const char letters[] = "KMGT";
    struct str digits = s;
    long long value;
    int shift = 0;

    if (s.n > 0) {
        char last = s.p[s.n - 1];
        const char *at;

        last = last >= 'a' && last <= 'z' ? (char)(last - ('a' - 'A')) : last;
        at = last ? strchr(letters, last) : NULL;
        if (at) {
            shift = 10 * (int)(at - letters + 1);
            digits.n--;
        }
    }
    if (digits.n == 0 || digits.p[0] == '+' || digits.p[0] == '-' ||
        int_parse(digits, 0, LLONG_MAX >> shift, &value, NULL) < 0)
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not a size (like 512, 64K, 16M)",
                       STR_ARG(s));
    *ret = value << shift;
    return 0;
}

void hex_format(const unsigned char *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int hex_parse(struct str s, unsigned char *out, size_t n, struct err *e)
{
    if (s.n != 2 * n)
        return err_set(e, ERR_INVALID, "%zu hexadecimal digits, not %zu", s.n, 2 * n);
    for (size_t i = 0; i < s.n; i++) {
        if (hex_digit(s.p[i]) < 0)
            return err_set(e, ERR_INVALID, "not a hexadecimal digit at offset %zu", i);
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)(hex_digit(s.p[2 * i]) << 4 | hex_digit(s.p[2 * i + 1]));
    return 0;
}

void fmt_z(char *out, size_t size, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(out, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size) {
        log_error("bug: a text does not fit its place", "format", LOG_STR(fmt));
        abort();
    }
}
