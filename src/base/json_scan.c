/* SPDX-License-Identifier: MIT */
/*
 * base/json_scan.c — tells whether a text is JSON, before jansson builds anything from it.
 *
 * One pass without recursion: a bit per open bracket says whether it is an object. Refusing here
 * and not in jansson bounds the depth of jansson's recursion, and lets clients of the original
 * VPS integration see the words and offsets they know, those of Python's json module. Where that
 * module accepts more (NaN, lone surrogates, \u0000), so does not this.
 */
#include <limits.h>
#include <math.h>

#include "base/json_int.h"

struct scan {
    const char *start, *p, *end;
    size_t depth, max_depth, values, big;
    unsigned char is_object[JSON_DEPTH_LIMIT / 8 + 1];
    struct json_fail *fail;
    struct err *e;
};

/* What the grammar wants next. */
enum want { WANT_VALUE, WANT_FIRST_ITEM, WANT_FIRST_KEY, WANT_KEY, WANT_COMMA, WANT_END };

static int fail_at(struct scan *s, const char *at, int kind, const char *text)
{
    size_t offset = utf8_len(s->start, (size_t)(at - s->start));

    s->fail->kind = kind;
    s->fail->offset = offset;
    fmt_z(s->fail->text, sizeof(s->fail->text), "%s", text);
    return err_set(s->e, ERR_INVALID, "%s: char %zu", text, offset);
}

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static bool next_is(const struct scan *s, char c)
{
    return s->p < s->end && *s->p == c;
}

static bool is_digit(const struct scan *s, const char *at)
{
    return at < s->end && *at >= '0' && *at <= '9';
}

/* The four digits behind "\u"; false unless they are there and more text, as Python wants it. */
static bool take_hex4(struct scan *s, unsigned *ret)
{
    unsigned char bytes[2];

    if (s->end - s->p < 5 || hex_parse((struct str){ s->p, 4 }, bytes, 2, NULL) < 0)
        return false;
    *ret = (unsigned)bytes[0] << 8 | bytes[1];
    s->p += 4;
    return true;
}

/* s->p is behind "\u". */
static int scan_unicode(struct scan *s)
{
    const char *u = s->p - 1;
    unsigned high, low;

    if (!take_hex4(s, &high))
        return fail_at(s, u, JSON_FAIL_SYNTAX, "Invalid \\uXXXX escape");
    if (high == 0)
        return fail_at(s, u - 1, JSON_FAIL_UNICODE, "The character \\u0000 is not accepted");
    if (high < 0xd800 || high > 0xdfff)
        return 0;
    if (high <= 0xdbff && s->end - s->p >= 2 && s->p[0] == '\\' && s->p[1] == 'u') {
        s->p += 2;
        if (!take_hex4(s, &low))
            return fail_at(s, s->p - 1, JSON_FAIL_SYNTAX, "Invalid \\uXXXX escape");
        if (low >= 0xdc00 && low <= 0xdfff)
            return 0;
    }
    return fail_at(s, u - 1, JSON_FAIL_UNICODE, "Lone surrogate in a string");
}

/* s->p is behind the opening quote; leaves it behind the closing one. */
static int scan_string(struct scan *s)
{
    const char *quote = s->p - 1;
    int r;

    for (;;) {
        while (s->p < s->end && (unsigned char)*s->p >= ' ' && *s->p != '"' && *s->p != '\\')
            s->p++;
        if (s->p == s->end)
            return fail_at(s, quote, JSON_FAIL_SYNTAX, "Unterminated string starting at");
        if (*s->p == '"') {
            s->p++;
            return 0;
        }
        if (*s->p != '\\')
            return fail_at(s, s->p, JSON_FAIL_SYNTAX, "Invalid control character at");
        s->p++;
        if (s->p == s->end)
            return fail_at(s, quote, JSON_FAIL_SYNTAX, "Unterminated string starting at");
        if (*s->p == '\0' || !strchr("\"\\/bfnrtu", *s->p))
            return fail_at(s, s->p - 1, JSON_FAIL_SYNTAX, "Invalid \\escape");
        if (*s->p++ == 'u') {
            r = scan_unicode(s);
            if (r < 0)
                return r;
        }
    }
}

static bool is_finite(const char *p, size_t n)
{
    AUTO(free) char *literal = xstrndup(p, n);

    return isfinite(strtod(literal, NULL));
}

/* s->p is at a digit or a minus. */
static int scan_number(struct scan *s)
{
    const char *start = s->p, *digits = s->p + (*s->p == '-'), *at = digits, *exponent;
    bool whole = true;
    long long value;

    if (!is_digit(s, at))
        return fail_at(s, start, JSON_FAIL_SYNTAX, "Expecting value");
    if (*at == '0')
        at++;
    else
        while (is_digit(s, at))
            at++;
    exponent = at;
    if (at < s->end && *at == '.' && is_digit(s, at + 1)) {
        whole = false;
        for (exponent = at + 1; is_digit(s, exponent);)
            exponent++;
    }
    s->p = exponent;
    if (exponent < s->end && (*exponent == 'e' || *exponent == 'E')) {
        exponent++;
        if (exponent < s->end && (*exponent == '+' || *exponent == '-'))
            exponent++;
        if (is_digit(s, exponent)) {
            whole = false;
            while (is_digit(s, exponent))
                exponent++;
            s->p = exponent;
        }
    }

    if (whole && s->p - digits > 18 &&
        int_parse((struct str){ start, (size_t)(s->p - start) }, LLONG_MIN, LLONG_MAX, &value,
                  NULL) < 0)
        s->big++;
    if ((s->p != at || at - digits > 300) && !is_finite(start, (size_t)(s->p - start)))
        return fail_at(s, start, JSON_FAIL_NUMBER,
                       "Out of range float values are not JSON compliant");
    return 0;
}

static bool take_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

static int scan_word(struct scan *s)
{
    if (take_word(s, "true") || take_word(s, "false") || take_word(s, "null"))
        return 0;
    if (take_word(s, "NaN"))
        return fail_at(s, s->p - 3, JSON_FAIL_NUMBER,
                       "Out of range float values are not JSON compliant");
    if (take_word(s, "Infinity"))
        return fail_at(s, s->p - 8, JSON_FAIL_NUMBER,
                       "Out of range float values are not JSON compliant");
    return fail_at(s, s->p, JSON_FAIL_SYNTAX, "Expecting value");
}

static int open_bracket(struct scan *s, bool object)
{
    unsigned char bit = (unsigned char)(1u << (s->depth % 8));

    if (s->depth == s->max_depth)
        return fail_at(s, s->p, JSON_FAIL_DEPTH, "Nested too deep");
    if (object)
        s->is_object[s->depth / 8] |= bit;
    else
        s->is_object[s->depth / 8] &= (unsigned char)~bit;
    s->depth++;
    s->p++;
    return 0;
}

static bool in_object(const struct scan *s)
{
    return s->is_object[(s->depth - 1) / 8] >> ((s->depth - 1) % 8) & 1;
}

static enum want after_value(const struct scan *s)
{
    return s->depth == 0 ? WANT_END : WANT_COMMA;
}

static int scan_value(struct scan *s, enum want *want)
{
    char c = s->p < s->end ? *s->p : '\0';
    int r;

    if (s->values++ == JSON_VALUES_MAX)
        return fail_at(s, s->p, JSON_FAIL_DEPTH, "Too many values");
    if (c == '{' || c == '[') {
        *want = c == '{' ? WANT_FIRST_KEY : WANT_FIRST_ITEM;
        return open_bracket(s, c == '{');
    }
    if (c == '"') {
        s->p++;
        r = scan_string(s);
    } else if (c == '-' && s->end - s->p >= 9 && memcmp(s->p, "-Infinity", 9) == 0) {
        r = fail_at(s, s->p, JSON_FAIL_NUMBER, "Out of range float values are not JSON compliant");
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        r = scan_number(s);
    } else {
        r = scan_word(s);
    }
    *want = after_value(s);
    return r;
}

static int scan_key(struct scan *s)
{
    int r;

    if (!next_is(s, '"'))
        return fail_at(s, s->p, JSON_FAIL_SYNTAX,
                       "Expecting property name enclosed in double quotes");
    s->p++;
    r = scan_string(s);
    if (r < 0)
        return r;
    skip_space(s);
    if (!next_is(s, ':'))
        return fail_at(s, s->p, JSON_FAIL_SYNTAX, "Expecting ':' delimiter");
    s->p++;
    return 0;
}

static int scan_comma(struct scan *s, enum want *want)
{
    bool object = in_object(s);

    if (next_is(s, ',')) {
        s->p++;
        *want = object ? WANT_KEY : WANT_VALUE;
        return 0;
    }
    if (!next_is(s, object ? '}' : ']'))
        return fail_at(s, s->p, JSON_FAIL_SYNTAX, "Expecting ',' delimiter");
    s->p++;
    s->depth--;
    *want = after_value(s);
    return 0;
}

/* Move over one element of the grammar; s->p is not at white space. */
static int scan_step(struct scan *s, enum want *want)
{
    int r = 0;

    switch (*want) {
    case WANT_FIRST_ITEM:
        if (next_is(s, ']'))
            return scan_comma(s, want);
        return scan_value(s, want);
    case WANT_VALUE:
        return scan_value(s, want);
    case WANT_FIRST_KEY:
        if (next_is(s, '}'))
            return scan_comma(s, want);
        r = scan_key(s);
        *want = WANT_VALUE;
        return r;
    case WANT_KEY:
        r = scan_key(s);
        *want = WANT_VALUE;
        return r;
    case WANT_COMMA:
        return scan_comma(s, want);
    case WANT_END:
        break;
    }
    return r;
}

static int scan_all(struct scan *s)
{
    enum want want = WANT_VALUE;
    int r;

    do {
        skip_space(s);
        r = scan_step(s, &want);
        if (r < 0)
            return r;
    } while (want != WANT_END);
    skip_space(s);
    if (s->p < s->end)
        return fail_at(s, s->p, JSON_FAIL_SYNTAX, "Extra data");
    return 0;
}

int json_scan(struct str text, size_t max_depth, size_t *ret_big, struct json_fail *fail,
              struct err *e)
{
    struct scan s = {
        .start = text.p,
        .p = text.p,
        .end = text.p + text.n,
        .max_depth = max_depth < JSON_DEPTH_LIMIT ? max_depth : JSON_DEPTH_LIMIT,
        .fail = fail,
        .e = e,
    };
    size_t step;
    int r;

    if (text.n == 0) {
        s.start = s.p = s.end = "";
        return fail_at(&s, s.p, JSON_FAIL_EMPTY, "Expecting value");
    }
    if (!utf8_valid(text.p, text.n)) {
        while ((step = utf8_step(s.p, (size_t)(s.end - s.p))) > 0)
            s.p += step;
        return fail_at(&s, s.p, JSON_FAIL_UNICODE, "Invalid UTF-8");
    }
    r = scan_all(&s);
    if (r < 0)
        return r;
    *ret_big = s.big;
    return 0;
}

int json_check(struct str text, size_t max_depth, struct err *e)
{
    struct json_fail fail;
    size_t n_big;

    return json_scan(text, max_depth, &n_big, &fail, e);
}

/* The text is good JSON: where a string that begins at `at` ends, or a number. */
static const char *token_end(const char *at, const char *end)
{
    if (*at == '"') {
        for (at++; *at != '"'; at++)
            at += *at == '\\';
        return at + 1;
    }
    while (at < end && *at != '\0' && strchr("0123456789+-.eE", *at))
        at++;
    return at;
}

struct str json_widen(struct str text, size_t n_big, struct arena *a)
{
    const char *p = text.p, *end = text.p + text.n, *token;
    char *copy = arena_raw(a, text.n + 2 * n_big), *out = copy;
    long long value;

    while (p < end) {
        struct str literal;

        if (*p != '"' && *p != '-' && (*p < '0' || *p > '9')) {
            *out++ = *p++;
            continue;
        }
        token = token_end(p, end);
        literal = (struct str){ p, (size_t)(token - p) };
        memcpy(out, p, literal.n);
        out += literal.n;
        if (*p != '"' && !memchr(p, '.', literal.n) && !memchr(p, 'e', literal.n) &&
            !memchr(p, 'E', literal.n) &&
            int_parse(literal, LLONG_MIN, LLONG_MAX, &value, NULL) < 0) {
            memcpy(out, ".0", 2);
            out += 2;
        }
        p = token;
    }
    return (struct str){ copy, (size_t)(out - copy) };
}
