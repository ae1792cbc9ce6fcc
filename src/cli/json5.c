/* SPDX-License-Identifier: MIT */
/*
 * cli/json5.c — JSON5 by way of JSON: the text is rewritten, piece by piece, and then parsed as
 * what it has become. What is no JSON5 either stays as it is, for the parser to refuse.
 */
#include "cli/json5.h"

#include <ctype.h>
#include <string.h>

#define TEXT_MAX (16 * MIB)
#define DEPTH    200

struct rewrite {
    struct str in;
    size_t at;
    struct buf out;
    struct err *e;
};

static int put(struct rewrite *w, const char *p, size_t n)
{
    return buf_add(&w->out, p, n, w->e);
}

static bool begins(const struct rewrite *w, const char *with)
{
    size_t n = strlen(with);

    return w->in.n - w->at >= n && memcmp(w->in.p + w->at, with, n) == 0;
}

/* Past blanks and comments. False: a comment that does not end. */
static bool skip_blank(struct rewrite *w)
{
    const char *end;

    for (;;) {
        if (w->at < w->in.n && isspace((unsigned char)w->in.p[w->at])) {
            w->at++;
        } else if (begins(w, "\xef\xbb\xbf")) {
            w->at += 3;
        } else if (begins(w, "//")) {
            end = memchr(w->in.p + w->at, '\n', w->in.n - w->at);
            w->at = end ? (size_t)(end - w->in.p) : w->in.n;
        } else if (begins(w, "/*")) {
            end = memmem(w->in.p + w->at + 2, w->in.n - w->at - 2, "*/", 2);
            if (!end)
                return false;
            w->at = (size_t)(end - w->in.p) + 2;
        } else {
            return true;
        }
    }
}

static int put_escape(struct rewrite *w)
{
    char c = w->at + 1 < w->in.n ? w->in.p[w->at + 1] : '\0';

    w->at += 2;
    switch (c) {
    case '\n':
        return 0; /* the line goes on */
    case '\'':
        return put(w, "'", 1);
    case 'x':
        return put(w, "\\u00", 4);
    default:
        return put(w, (char[]){ '\\', c }, c ? 2 : 1);
    }
}

static int put_string(struct rewrite *w)
{
    const char quote = w->in.p[w->at++];
    int r = put(w, "\"", 1);

    while (r == 0 && w->at < w->in.n && w->in.p[w->at] != quote) {
        if (w->in.p[w->at] == '\\') {
            r = put_escape(w);
            continue;
        }
        r = w->in.p[w->at] == '"' ? put(w, "\\\"", 2) : put(w, w->in.p + w->at, 1);
        w->at++;
    }
    if (r == 0 && w->at >= w->in.n)
        return err_set(w->e, ERR_INVALID, "a text has no end");
    w->at++;
    return r < 0 ? r : put(w, "\"", 1);
}

static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$';
}

/* A name before a colon gets quotes; true, false and null are what they are. */
static int put_word(struct rewrite *w)
{
    struct str word = { w->in.p + w->at, 0 };
    bool key;
    int r;

    while (w->at < w->in.n && in_word(w->in.p[w->at]))
        w->at++;
    word.n = (size_t)(w->in.p + w->at - word.p);
    if (!skip_blank(w))
        return err_set(w->e, ERR_INVALID, "a comment has no end");
    key = w->at < w->in.n && w->in.p[w->at] == ':';
    r = key ? put(w, "\"", 1) : 0;
    if (r == 0)
        r = put(w, word.p, word.n);
    return r == 0 && key ? put(w, "\"", 1) : r;
}

/* One after the last of a list, not one without anything before it. */
static int put_comma(struct rewrite *w)
{
    struct str done = buf_str(&w->out);
    bool after = done.n && !strchr("[{,", done.p[done.n - 1]);

    w->at++;
    if (!skip_blank(w))
        return err_set(w->e, ERR_INVALID, "a comment has no end");
    if (after && w->at < w->in.n && strchr("}]", w->in.p[w->at]))
        return 0;
    return put(w, ",", 1);
}

static int rewrite(struct rewrite *w)
{
    int r = 0;

    while (r == 0) {
        unsigned char c;

        if (!skip_blank(w))
            return err_set(w->e, ERR_INVALID, "a comment has no end");
        if (w->at == w->in.n)
            return 0;
        c = (unsigned char)w->in.p[w->at];
        if (c == '"' || c == '\'')
            r = put_string(w);
        else if (c == ',')
            r = put_comma(w);
        else if (in_word((char)c) && !isdigit(c))
            r = put_word(w);
        else if (c == '-' || c == '.' || c == '+' || isdigit(c))
            while (r == 0 && w->at < w->in.n &&
                   (isalnum((unsigned char)w->in.p[w->at]) || strchr("+-.", w->in.p[w->at])))
                r = put(w, w->in.p + w->at++, 1);
        else
            r = put(w, w->in.p + w->at++, 1);
    }
    return r;
}

int json5_parse(struct str text, struct arena *a, json_t **ret, struct err *e)
{
    struct rewrite w = { .in = text, .e = e };
    int r;

    buf_init(&w.out, TEXT_MAX);
    r = memchr(text.p ? text.p : "", '\0', text.n) ? err_set(e, ERR_INVALID, "it holds a NUL")
                                                   : rewrite(&w);
    if (r == 0)
        r = json_parse(buf_str(&w.out), DEPTH, a, ret, NULL, e);
    buf_done(&w.out);
    return r;
}
