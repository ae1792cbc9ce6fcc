/* SPDX-License-Identifier: MIT */
/*
 * base/shape_coerce.c — values of one JSON type taken for another, by the rules clients of the
 * original VPS integration rely on (pydantic's lax mode).
 */
#include <math.h>

#include "base/shape_int.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them; false when s is anything else. Saturates. */
static bool parse_digits(struct str s, bool negative, int64_t *ret)
{
    int64_t value = 0;
    bool full = false;

    if (s.n == 0 || !is_digit(s.p[0]) || !is_digit(s.p[s.n - 1]))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        int digit = s.p[i] - '0';

        if (s.p[i] == '_' && s.p[i - 1] != '_')
            continue;
        if (!is_digit(s.p[i]))
            return false;
        full = full || __builtin_mul_overflow(value, 10, &value) ||
               __builtin_add_overflow(value, negative ? -digit : digit, &value);
    }
    *ret = !full ? value : negative ? INT64_MIN : INT64_MAX;
    return true;
}

static enum coerce int_of_text(struct str s, int64_t *ret)
{
    const char *dot;
    bool negative;

    s = str_trim(s);
    negative = s.n > 0 && s.p[0] == '-';
    if (s.n > 0 && (s.p[0] == '-' || s.p[0] == '+')) {
        s.p++;
        s.n--;
    }
    dot = s.n > 0 ? memchr(s.p, '.', s.n) : NULL;
    if (dot) {
        for (const char *p = dot + 1; p < s.p + s.n; p++) {
            if (*p != '0')
                return COERCE_UNPARSABLE;
        }
        s.n = (size_t)(dot - s.p);
    }
    return parse_digits(s, negative, ret) ? 0 : COERCE_UNPARSABLE;
}

static enum coerce int_of_real(double v, int64_t *ret)
{
    if (!isfinite(v))
        return COERCE_NOT_FINITE;
    if (v != trunc(v))
        return COERCE_FRACTION;
    if (v >= 0x1p63)
        *ret = INT64_MAX;
    else if (v < -0x1p63)
        *ret = INT64_MIN;
    else
        *ret = (int64_t)v;
    return 0;
}

static struct str text_of(const json_t *in)
{
    return (struct str){ json_string_value(in), json_string_length(in) };
}

enum coerce coerce_int(const json_t *in, int64_t *ret)
{
    switch (json_typeof(in)) {
    case JSON_INTEGER:
        *ret = json_integer_value(in);
        return 0;
    case JSON_REAL:
        return int_of_real(json_real_value(in), ret);
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = json_is_true(in);
        return 0;
    case JSON_STRING:
        return int_of_text(text_of(in), ret);
    default:
        return COERCE_WRONG_TYPE;
    }
}

enum coerce coerce_bool(const json_t *in, bool *ret)
{
    static const char *const words[] = { "0",   "1",  "false", "true", "f", "t",
                                         "off", "on", "no",    "yes",  "n", "y" };
    double number;

    switch (json_typeof(in)) {
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = json_is_true(in);
        return 0;
    case JSON_INTEGER:
    case JSON_REAL:
        number = json_number_value(in);
        if (number != 0 && number != 1)
            return COERCE_UNPARSABLE;
        *ret = number == 1;
        return 0;
    case JSON_STRING:
        for (size_t i = 0; i < LEN(words); i++) {
            if (str_eq_nocase(text_of(in), str_of(words[i]))) {
                *ret = i % 2 == 1;
                return 0;
            }
        }
        return COERCE_UNPARSABLE;
    default:
        return COERCE_WRONG_TYPE;
    }
}

static enum coerce real_of_text(struct str s, double *ret)
{
    AUTO(free) char *text = NULL;
    double value;
    char *end;

    s = str_trim(s);
    if (s.n == 0 || s.n > 1000)
        return COERCE_UNPARSABLE;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\0' || s.p[i] == 'x' || s.p[i] == 'X' || s.p[i] == '(')
            return COERCE_UNPARSABLE; /* strtod's hexadecimal and nan(...) */
    }
    text = str_dup(s);
    value = strtod(text, &end);
    if (*end != '\0')
        return COERCE_UNPARSABLE;
    if (!isfinite(value))
        return COERCE_NOT_FINITE;
    *ret = value;
    return 0;
}

enum coerce coerce_real(const json_t *in, double *ret)
{
    switch (json_typeof(in)) {
    case JSON_INTEGER:
    case JSON_REAL:
        *ret = json_number_value(in);
        return isfinite(*ret) ? 0 : COERCE_NOT_FINITE;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret = json_is_true(in);
        return 0;
    case JSON_STRING:
        return real_of_text(text_of(in), ret);
    default:
        return COERCE_WRONG_TYPE;
    }
}
