/* SPDX-License-Identifier: MIT */
/*
 * base/json_build.c — builds the document that json_scan() has found to be good.
 *
 * jansson's own parser reads a character at a time through a callback, which cost a bridge call a
 * fifth of its processor time; this one knows that the text is whole and correct. It still stops,
 * with NULL, at whatever it does not expect. Recursion is bounded by what json_scan() allows.
 */
#include <limits.h>

#include "base/json_int.h"

struct build {
    const char *p, *end;
    char *scratch; /* a string without its escapes */
    size_t cap;
};

static json_t *build_value(struct build *b);

static bool take(struct build *b, char c)
{
    while (b->p < b->end && (*b->p == ' ' || *b->p == '\n' || *b->p == '\r' || *b->p == '\t'))
        b->p++;
    if (b->p == b->end || *b->p != c)
        return false;
    b->p++;
    return true;
}

static unsigned hex4(const char *p)
{
    unsigned v = 0;

    for (int i = 0; i < 4; i++)
        v = v << 4 | (unsigned)(p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
    return v;
}

static char *put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *out++ = (char)(0xe0 | c >> 12);
        } else {
            *out++ = (char)(0xf0 | c >> 18);
            *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        }
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
    }
    *out++ = (char)(0x80 | (c & 0x3f));
    return out;
}

/* p is behind a backslash; NULL when the text ends in the middle. */
static const char *unescape(const char *p, const char *end, char **out)
{
    static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
    const char *name;
    unsigned c;

    if (p == end)
        return NULL;
    if (*p != 'u') {
        name = strchr(names, *p);
        *(*out)++ = name ? values[name - names] : *p;
        return p + 1;
    }
    if (end - p < 5)
        return NULL;
    c = hex4(p + 1);
    p += 5;
    if (c >= 0xd800 && c <= 0xdbff) {
        if (end - p < 6)
            return NULL;
        c = 0x10000 + ((c & 0x3ff) << 10 | (hex4(p + 2) & 0x3ff));
        p += 6;
    }
    *out = put_utf8(*out, c);
    return p;
}

/* The string's bytes without escapes, which are never more than with them. */
static bool take_escaped(struct build *b, const char *p, struct str *ret)
{
    const char *closing = p;
    char *out;

    while (closing < b->end && *closing != '"')
        closing += *closing == '\\' ? 2 : 1;
    if (closing >= b->end)
        return false;
    if ((size_t)(closing - p) > b->cap) {
        b->cap = (size_t)(closing - p);
        b->scratch = xrealloc(b->scratch, b->cap);
    }
    for (out = b->scratch; p && p < closing;) {
        if (*p == '\\')
            p = unescape(p + 1, closing, &out);
        else
            *out++ = *p++;
    }
    b->p = closing + 1;
    *ret = (struct str){ b->scratch, (size_t)(out - b->scratch) };
    return p != NULL;
}

/* b->p is behind the opening quote. */
static bool take_string(struct build *b, struct str *ret)
{
    const char *start = b->p, *quote = memchr(start, '"', (size_t)(b->end - start));

    if (!quote)
        return false;
    if (memchr(start, '\\', (size_t)(quote - start)))
        return take_escaped(b, start, ret);
    *ret = (struct str){ start, (size_t)(quote - start) };
    b->p = quote + 1;
    return true;
}

static json_t *build_string(struct build *b)
{
    struct str s;

    return take_string(b, &s) ? json_stringn_nocheck(s.p, s.n) : NULL;
}

static json_t *build_real(struct str literal)
{
    AUTO(free) char *z = xstrndup(literal.p, literal.n);

    return json_real(strtod(z, NULL));
}

/* Integers that do not fit 64 bits become reals. */
static json_t *build_number(struct build *b)
{
    const char *start = b->p;
    struct str literal;
    long long value;
    bool whole = true;

    while (b->p < b->end && *b->p && strchr("0123456789+-.eE", *b->p)) {
        whole &= *b->p != '.' && *b->p != 'e' && *b->p != 'E';
        b->p++;
    }
    literal = (struct str){ start, (size_t)(b->p - start) };
    if (!literal.n)
        return NULL;
    if (whole && int_parse(literal, LLONG_MIN, LLONG_MAX, &value, NULL) == 0)
        return json_integer(value);
    return build_real(literal);
}

static json_t *build_word(struct build *b, const char *word, json_t *value)
{
    size_t n = strlen(word);

    if ((size_t)(b->end - b->p) < n || memcmp(b->p, word, n) != 0)
        return NULL;
    b->p += n;
    return value;
}

static json_t *build_array(struct build *b)
{
    AUTO(json_decref) json_t *array = json_array();

    if (take(b, ']'))
        return TAKE(array);
    do {
        if (json_array_append_new(array, build_value(b)) < 0)
            return NULL;
    } while (take(b, ','));
    return take(b, ']') ? TAKE(array) : NULL;
}

/* The key's bytes may be in the scratch, which the value needs too. */
static bool add_member(struct build *b, json_t *object)
{
    AUTO(free) char *copy = NULL;
    struct str key;

    if (!take(b, '"') || !take_string(b, &key))
        return false;
    if (key.p == b->scratch)
        key.p = copy = xstrndup(key.p, key.n);
    if (!take(b, ':'))
        return false;
    return json_object_setn_new_nocheck(object, key.p, key.n, build_value(b)) == 0;
}

static json_t *build_object(struct build *b)
{
    AUTO(json_decref) json_t *object = json_object();

    if (take(b, '}'))
        return TAKE(object);
    do {
        if (!add_member(b, object))
            return NULL;
    } while (take(b, ','));
    return take(b, '}') ? TAKE(object) : NULL;
}

static json_t *build_value(struct build *b)
{
    if (take(b, '"'))
        return build_string(b);
    if (take(b, '{'))
        return build_object(b);
    if (take(b, '['))
        return build_array(b);
    if (b->p == b->end)
        return NULL;
    switch (*b->p) {
    case 't':
        return build_word(b, "true", json_true());
    case 'f':
        return build_word(b, "false", json_false());
    case 'n':
        return build_word(b, "null", json_null());
    default:
        return build_number(b);
    }
}

json_t *json_build(struct str text)
{
    struct build b = { .p = text.p, .end = text.p + text.n };
    json_t *document = build_value(&b);

    free(b.scratch);
    return document;
}
