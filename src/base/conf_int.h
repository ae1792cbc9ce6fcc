/* SPDX-License-Identifier: MIT */
/*
 * base/conf_int.h — between conf.c (sources and precedence), conf_value.c (one value as text),
 * conf_file.c (the settings file) and conf_text.c (what people read).
 */
#pragma once

#include "base/arena.h"
#include "base/conf.h"

enum { CONF_SOURCES = OPT_FROM_FLAG + 1 };

/* A value somebody gave, and where: "line 3 of /etc/chelad.conf", "$PORT", "--gateway.port". */
struct conf_given {
    const char *text; /* NULL: this source says nothing */
    const char *where;
};

struct conf_row {
    const struct opt *opt;
    size_t offset;                         /* in the settings struct */
    struct conf_given given[CONF_SOURCES]; /* by enum opt_source */
    struct conf_given now;                 /* what `into` holds; text is NULL before conf_apply */
    enum opt_source source;                /* of now */
};

/* Texts live in the arena until conf_free, since `into` hands them out; equal ones are shared. */
struct conf_text {
    struct conf_text *next;
    char z[];
};

struct conf {
    struct arena arena;
    struct conf_text *texts;
    struct conf_row *rows;
    size_t n;
    char *into;
};

union conf_value {
    long long number;
    const char *text;
};

struct conf_row *conf_row_find(const struct conf *c, struct str name);
const char *conf_keep(struct conf *c, const char *text);

/* Text as the row's kind, in bounds; the text of a secret is not repeated in an error. */
int conf_value_parse(const struct opt *opt, const char *text, union conf_value *ret, struct err *e)
    MUST_CHECK;

/* -ERR_INVALID "unknown setting 'x' (did you mean 'y'?)". */
int conf_unknown(const struct conf *c, const char *name, struct err *e) MUST_CHECK;

/* Parse a settings file's text; calls set for each value, with its line. */
int conf_file_parse(struct str text,
                    int (*set)(void *arg, const char *name, const char *value, int line,
                               struct err *e),
                    void *arg, struct err *e) MUST_CHECK;
