/* SPDX-License-Identifier: MIT */
/*
 * A scan over SQL that knows what is quoted and what is a comment, and no more of its grammar.
 */
#include "store/translate.h"

#include <stdbool.h>
#include <string.h>

#include "base/buf.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Length of the quoted text, quoted name or comment at p; 0 when there is none. */
static size_t opaque(const char *p)
{
    const char *end;

    if (*p == '\'' || *p == '"') { /* a doubled quote inside reads as the end and a new start */
        end = strchr(p + 1, *p);
        return end ? (size_t)(end - p) + 1 : strlen(p);
    }
    if (p[0] == '-' && p[1] == '-')
        return strcspn(p, "\n");
    if (p[0] == '/' && p[1] == '*') {
        end = strstr(p + 2, "*/");
        return end ? (size_t)(end - p) + 2 : strlen(p);
    }
    return 0;
}

/* Growing a buffer that has no bound but memory cannot fail. */
static void put(struct buf *b, const char *p, size_t n)
{
    if (buf_add(b, p, n, NULL) < 0)
        abort();
}

static char *finish(struct buf *b)
{
    char *text = str_dup(buf_str(b));

    buf_done(b);
    return text;
}

char *translate_statement(const char *text)
{
    struct buf b;
    const char *p = text;

    buf_init(&b, SIZE_MAX / 2);
    while (*p) {
        size_t n = opaque(p);

        if (n == 0 && *p == '?' && is_digit(p[1])) {
            put(&b, "$", 1);
            p++;
            continue;
        }
        if (n == 0)
            n = 1;
        put(&b, p, n);
        p += n;
    }
    return finish(&b);
}

static const char schema_prefix[] = "dbos.";

/* Length of the prefix at p when it stands before a name; before is the character in front. */
static size_t prefix(const char *p, char before)
{
    size_t n = sizeof(schema_prefix) - 1;

    if (strncmp(p, schema_prefix, n) != 0 || is_word(before) || before == '.')
        return 0;
    return p[n] == '"' || (is_word(p[n]) && !is_digit(p[n])) ? n : 0;
}

char *translate_sqlite(const char *text)
{
    struct buf b;
    const char *p = text;

    if (!strstr(text, schema_prefix))
        return NULL;
    buf_init(&b, SIZE_MAX / 2);
    while (*p) {
        size_t n = opaque(p), skip = n ? 0 : prefix(p, p > text ? p[-1] : ' ');

        p += skip;
        if (n == 0)
            n = opaque(p); /* of a quoted name after the prefix */
        if (n == 0)
            n = 1;
        put(&b, p, n);
        p += n;
    }
    return finish(&b);
}

static size_t blank(const char *p)
{
    size_t n = 0, more;

    for (;;) {
        if (is_space(p[n]))
            n++;
        else if ((p[n] == '-' || p[n] == '/') && (more = opaque(p + n)) > 0)
            n += more;
        else
            return n;
    }
}

static size_t word(const char *p, const char *want)
{
    size_t n = strlen(want);

    return strncmp(p, want, n) == 0 && !is_word(p[n]) ? n : 0;
}

/* Length of the table options at p, with the blanks and commas before and between them. */
static size_t table_options(const char *p)
{
    size_t end = 0;

    for (;;) {
        size_t at = end + blank(p + end), n;

        if (p[at] == ',')
            at += 1 + blank(p + at + 1);
        n = word(p + at, "STRICT");
        if (n == 0 && (n = word(p + at, "WITHOUT")) > 0) {
            n += blank(p + at + n);
            if (word(p + at + n, "ROWID") == 0)
                return end;
            n += strlen("ROWID");
        }
        if (n == 0)
            return end;
        end = at + n;
    }
}

/* The word of n bytes, or what PostgreSQL calls it. */
static void put_word(struct buf *b, const char *p, size_t n)
{
    static const char *const types[][2] = {
        { "INTEGER", "BIGINT" },
        { "BLOB", "BYTEA" },
        { "REAL", "DOUBLE PRECISION" },
    };

    for (size_t i = 0; i < LEN(types); i++) {
        if (strlen(types[i][0]) == n && memcmp(types[i][0], p, n) == 0) {
            put(b, types[i][1], strlen(types[i][1]));
            return;
        }
    }
    put(b, p, n);
}

char *translate_schema(const char *text)
{
    struct buf b;
    const char *p = text;
    int depth = 0;

    buf_init(&b, SIZE_MAX / 2);
    while (*p) {
        size_t n = opaque(p);

        if (n == 0 && is_word(*p)) {
            while (is_word(p[n]))
                n++;
            put_word(&b, p, n);
            p += n;
            continue;
        }
        if (n == 0) {
            n = 1;
            depth += *p == '(' ? 1 : *p == ')' ? -1 : 0;
        }
        put(&b, p, n);
        p += n;
        if (depth == 0 && p[-1] == ')' && n == 1)
            p += table_options(p);
    }
    return finish(&b);
}
