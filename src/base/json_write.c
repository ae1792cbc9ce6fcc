/* SPDX-License-Identifier: MIT */
/*
 * base/json_write.c — JSON as text. Not jansson's dumper: that prints 0.1 with 17 digits, while a
 * number that went through here must read as it was written (Python's repr, the shortest text that
 * gives the same double).
 */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "base/json.h"

/* What is written behind a backslash for a byte; 'u': the long form; 0: nothing to escape. */
static char escape_of(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    default:
        return c < ' ' ? 'u' : 0;
    }
}

static int write_escape(struct buf *b, unsigned char c, char how, struct err *e)
{
    char text[8];

    if (how == 'u')
        fmt_z(text, sizeof(text), "\\u%04x", (unsigned)c);
    else
        fmt_z(text, sizeof(text), "\\%c", how);
    return buf_add_z(b, text, e);
}

/* How many bytes from i on can be copied as they are. */
static size_t plain_run(struct str s, size_t i)
{
    size_t start = i, step;

    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];

        if (c < 0x80) {
            if (c < ' ' || c == '"' || c == '\\')
                break;
            i++;
            continue;
        }
        step = utf8_step(s.p + i, s.n - i);
        if (step == 0)
            break;
        i += step;
    }
    return i - start;
}

int json_write_str(struct buf *b, struct str s, struct err *e)
{
    size_t i = 0, run;
    int r;

    r = buf_add(b, "\"", 1, e);
    while (r == 0 && i < s.n) {
        run = plain_run(s, i);
        r = buf_add(b, s.p + i, run, e);
        i += run;
        if (r < 0 || i == s.n)
            break;
        if ((unsigned char)s.p[i] >= 0x80)
            r = buf_add_z(b, "\xef\xbf\xbd", e); /* U+FFFD in place of what is no UTF-8 */
        else
            r = write_escape(b, (unsigned char)s.p[i], escape_of((unsigned char)s.p[i]), e);
        i++;
    }
    if (r < 0)
        return r;
    return buf_add(b, "\"", 1, e);
}

/* The fewest significant digits that read back as v, and v's decimal exponent: "1.5e+03" ->
 * "15", 3. */
static void shortest_digits(double v, char digits[32], int *ret_exponent)
{
    int precision = v < DBL_MIN ? 0 : 14; /* any 15 digits survive, but not in a subnormal */
    char text[40];
    char *e, *out = digits;

    for (; precision <= 16; precision++) {
        fmt_z(text, sizeof(text), "%.*e", precision, v);
        if (strtod(text, NULL) == v)
            break;
    }
    e = strchr(text, 'e');
    *ret_exponent = (int)strtol(e + 1, NULL, 10);
    for (const char *p = text; p < e; p++) {
        if (*p >= '0' && *p <= '9')
            *out++ = *p;
    }
    while (out > digits + 1 && out[-1] == '0')
        out--;
    *out = '\0';
}

int json_write_real(struct buf *b, double v, struct err *e)
{
    char digits[32];
    int exponent, n;

    if (!isfinite(v))
        return buf_add_z(b, "null", e);
    if (v == 0)
        return buf_add_z(b, signbit(v) ? "-0.0" : "0.0", e);
    shortest_digits(fabs(v), digits, &exponent);
    n = (int)strlen(digits);
    if (v < 0 && buf_add(b, "-", 1, e) < 0)
        return -ERR_LIMIT;
    if (exponent < -4 || exponent >= 16)
        return buf_printf(b, e, "%c%s%se%+03d", digits[0], n > 1 ? "." : "", digits + 1, exponent);
    if (exponent < 0)
        return buf_printf(b, e, "0.%.*s%s", -exponent - 1, "0000", digits);
    if (n <= exponent + 1)
        return buf_printf(b, e, "%s%.*s.0", digits, exponent + 1 - n, "0000000000000000");
    return buf_printf(b, e, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
}

int json_write_int(struct buf *b, int64_t v, struct err *e)
{
    uint64_t rest = v < 0 ? -(uint64_t)v : (uint64_t)v;
    char text[24], *p = text + sizeof(text);

    do {
        *--p = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (v < 0)
        *--p = '-';
    return buf_add(b, p, (size_t)(text + sizeof(text) - p), e);
}

static int write_array(const json_t *j, struct buf *b, struct err *e)
{
    int r = buf_add(b, "[", 1, e);

    for (size_t i = 0; r == 0 && i < json_array_size(j); i++) {
        if (i > 0)
            r = buf_add(b, ",", 1, e);
        if (r == 0)
            r = json_write(json_array_get(j, i), b, e);
    }
    return r < 0 ? r : buf_add(b, "]", 1, e);
}

static int write_object(const json_t *j, struct buf *b, struct err *e)
{
    json_t *object = json_incref((json_t *)(uintptr_t)j); /* jansson's iterators lack const */
    const char *key;
    json_t *value;
    bool first = true;
    int r = buf_add(b, "{", 1, e);

    json_object_foreach(object, key, value)
    {
        if (r == 0 && !first)
            r = buf_add(b, ",", 1, e);
        if (r == 0)
            r = json_write_str(b, str_of(key), e);
        if (r == 0)
            r = buf_add(b, ":", 1, e);
        if (r == 0)
            r = json_write(value, b, e);
        if (r < 0)
            break;
        first = false;
    }
    json_decref(object);
    return r < 0 ? r : buf_add(b, "}", 1, e);
}

int json_write(const json_t *j, struct buf *b, struct err *e)
{
    if (!j)
        return buf_add_z(b, "null", e);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return write_object(j, b, e);
    case JSON_ARRAY:
        return write_array(j, b, e);
    case JSON_STRING:
        return json_write_str(b, (struct str){ json_string_value(j), json_string_length(j) }, e);
    case JSON_INTEGER:
        return json_write_int(b, json_integer_value(j), e);
    case JSON_REAL:
        return json_write_real(b, json_real_value(j), e);
    case JSON_TRUE:
        return buf_add_z(b, "true", e);
    case JSON_FALSE:
        return buf_add_z(b, "false", e);
    case JSON_NULL:
        break;
    }
    return buf_add_z(b, "null", e);
}
