/* SPDX-License-Identifier: MIT */
/*
 * base/conf.h — settings, declared once as rows. Parsing of the file (inih, included in conf.c
 * and nowhere else), the environment and flags, --help, --print-config, reload, the reference and
 * the masking of secrets all read the rows.
 *
 * A flag wins over the environment, that over the file, that over the default.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

enum opt_kind { OPT_STR, OPT_INT, OPT_MSEC, OPT_SIZE, OPT_BOOL };
enum opt_flags { OPT_LIVE = 1 << 0 /* takes effect on reload */, OPT_SECRET = 1 << 1 };

struct opt {
    const char *name; /* "gateway.port": section, dot, key */
    enum opt_kind kind;
    size_t offset;      /* into the program's settings struct: char * for OPT_STR, long long else */
    const char *def;    /* in file syntax, so it is checked by the same parser */
    long long min, max; /* of numbers, in ms or bytes for those; both 0: unbounded */
    unsigned flags;
    /* Further variables besides CHELA_SECTION_KEY, comma-separated; the first one set wins, an
     * empty one is not set. "NAME:h" puts the unit behind a value that is a bare number (hours
     * here). */
    const char *env;
    const char *const *one_of; /* NULL-terminated, for OPT_STR */
    const char *doc;
};

#define OPT(kind_, name_, type, member, def_, ...) \
    { \
        .name = name_, .kind = kind_, .offset = offsetof(type, member), .def = def_, __VA_ARGS__ \
    }

/* Where a value came from, kept for --print-config. */
enum opt_source { OPT_FROM_DEFAULT, OPT_FROM_FILE, OPT_FROM_ENV, OPT_FROM_FLAG };

struct conf_table {
    const struct opt *opts;
    size_t n;
    size_t base; /* added to the rows' offsets: where a room's part of the settings struct begins */
};

/* All tables point into the one settings struct `into`, which conf owns the strings of. */
struct conf;
int conf_new(const struct conf_table *tables, size_t n_tables, void *into, struct conf **ret,
             struct err *e) MUST_CHECK;
void conf_free(struct conf *c); /* NULL is fine; frees the strings too */

/*
 * In any order, then conf_apply(), which checks everything, writes `into` and forgets nothing:
 * calling conf_file() and conf_apply() again is a reload, which changes only OPT_LIVE rows and
 * names the others that differ in a log line. Errors name the source, the line and the setting.
 */
int conf_file(struct conf *c, const char *path, bool must_exist, struct err *e) MUST_CHECK;
int conf_env(struct conf *c, const char *const *environ_, struct err *e) MUST_CHECK;
int conf_flag(struct conf *c, const char *name, const char *value, struct err *e) MUST_CHECK;
int conf_apply(struct conf *c, struct err *e) MUST_CHECK;
int conf_reload(struct conf *c, const char *path, struct err *e) MUST_CHECK;

enum opt_source conf_source(const struct conf *c, const char *name);
const struct opt *conf_find(const struct conf *c, const char *name); /* NULL: no such setting */

/* The effective settings as a settings file with a comment of origin each; secrets as ***. */
int conf_print(const struct conf *c, struct buf *b, struct err *e) MUST_CHECK;

/* The rows as text for --help, one line each. */
int conf_help(const struct conf *c, struct buf *b, struct err *e) MUST_CHECK;
