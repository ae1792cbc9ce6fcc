/* SPDX-License-Identifier: MIT */
/*
 * base/conf_file.c — the settings file, read with inih (included here and nowhere else).
 *
 *     [section]
 *     key = value      ; this is part of the value: comments have lines of their own
 *
 * inih cuts lines, names and sections at fixed lengths and does not tell its handler where it is;
 * so it gets room for the longest line there is, and lines are counted by the reader that feeds it.
 */
#include <ini.h>

#include "base/conf_int.h"

struct reader {
    struct str rest;
    int line;
    int (*set)(void *arg, const char *name, const char *value, int line, struct err *e);
    void *arg;
    struct err *e;
    int r; /* what set() failed with */
};

/* fgets for inih: its buffer is longer than every line. */
static char *next_line(char *out, int room, void *stream)
{
    struct reader *reader = stream;
    struct str line;
    size_t n;

    if (!str_split(&reader->rest, '\n', &line))
        return NULL;
    n = line.n < (size_t)room - 2 ? line.n : (size_t)room - 2;
    memcpy(out, line.p, n);
    out[n] = '\n';
    out[n + 1] = '\0';
    reader->line++;
    return out;
}

static int on_value(void *user, const char *section, const char *key, const char *value)
{
    struct reader *reader = user;
    AUTO(free) char *name = xasprintf("%s%s%s", section, *section ? "." : "", key);

    reader->r = reader->set(reader->arg, name, value, reader->line, reader->e);
    return reader->r == 0;
}

static size_t longest_line(struct str text)
{
    struct str line;
    size_t n = 0;

    while (str_split(&text, '\n', &line))
        n = line.n > n ? line.n : n;
    return n;
}

int conf_file_parse(struct str text,
                    int (*set)(void *arg, const char *name, const char *value, int line,
                               struct err *e),
                    void *arg, struct err *e)
{
    struct reader reader = { .rest = text, .set = set, .arg = arg, .e = e };
    int failed;

    if (text.n > 0 && memchr(text.p, '\0', text.n))
        return err_set(e, ERR_INVALID, "not a text file");
    ini_use_stack = false;
    ini_allow_realloc = false;
    ini_initial_alloc = ini_max_line = (int)longest_line(text) + 256;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_stop_on_first_error = true;
    failed = ini_parse_stream(next_line, &reader, on_value, &reader);
    if (reader.r < 0)
        return reader.r;
    if (failed != 0)
        return err_set(e, ERR_INVALID, "line %d is neither 'key = value' nor '[section]'",
                       reader.line);
    return 0;
}
