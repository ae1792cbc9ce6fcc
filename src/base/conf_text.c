/* SPDX-License-Identifier: MIT */
/*
 * base/conf_text.c — settings as people read them: --print-config, --help, and what was meant by a
 * name that does not exist.
 */
#include "base/conf_int.h"

enum { NAME_MAX_BYTES = 64 };

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edits (insert, drop, replace a byte) between two names; names longer than the bound are far. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), row[NAME_MAX_BYTES + 1];

    if (n > NAME_MAX_BYTES || m > NAME_MAX_BYTES)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = min_size(replaced, min_size(row[j], row[j - 1]) + 1);
        }
    }
    return row[m];
}

/* Somebody who left out the section, or who is a few letters off, means this; or NULL. */
static const char *nearest(const struct conf *c, const char *name)
{
    const char *best = NULL;
    size_t least = 2 + strlen(name) / 8;

    for (size_t i = 0; i < c->n; i++) {
        const char *have = c->rows[i].opt->name, *key = strrchr(have, '.');
        size_t d = distance(name, have);

        if (key && strcmp(name, key + 1) == 0)
            return have;
        if (d <= least) {
            least = d;
            best = have;
        }
    }
    return best;
}

int conf_unknown(const struct conf *c, const char *name, struct err *e)
{
    const char *meant = nearest(c, name);

    if (!meant)
        return err_set(e, ERR_INVALID, "unknown setting '%.80s'", name);
    return err_set(e, ERR_INVALID, "unknown setting '%.80s' (did you mean '%s'?)", name, meant);
}

static struct str section_of(const char *name)
{
    const char *dot = strrchr(name, '.');

    return (struct str){ name, dot ? (size_t)(dot - name) : 0 };
}

/* A URL may hold a password where none belongs, and is refused for it: do not show it either. */
static bool userinfo_of(const char *text, struct str *ret)
{
    const char *begin = strstr(text, "://");
    size_t n = begin ? strcspn(begin + 3, "/?# ") : 0;
    const char *at = n ? memrchr(begin + 3, '@', n) : NULL;

    if (!at)
        return false;
    *ret = (struct str){ begin + 3, (size_t)(at - begin - 3) };
    return true;
}

/* The text in force; a bare number of a time gets its unit, since a reader would have to know it.
 */
static int print_value(const struct conf_row *row, struct buf *b, struct err *e)
{
    const char *text = row->now.text ? row->now.text : row->given[OPT_FROM_DEFAULT].text;
    bool bare = text[0] && text[strspn(text, "0123456789.")] == '\0';
    struct str hide;

    if ((row->opt->flags & OPT_SECRET) && text[0])
        text = "***";
    if (userinfo_of(text, &hide))
        return buf_printf(b, e, "%.*s***%s", (int)(hide.p - text), text, hide.p + hide.n);
    return buf_printf(b, e, "%s%s", text, row->opt->kind == OPT_MSEC && bare ? "s" : "");
}

static int print_row(const struct conf_row *row, struct buf *b, struct err *e)
{
    struct str section = section_of(row->opt->name);
    const char *key = row->opt->name + section.n + (section.n > 0);
    int r;

    r = buf_printf(b, e, "; %s\n%s = ", row->now.where ? row->now.where : "default", key);
    if (r == 0)
        r = print_value(row, b, e);
    return r < 0 ? r : buf_add_z(b, "\n", e);
}

/* Does an earlier row belong to the same section? */
static bool section_began(const struct conf *c, size_t i)
{
    struct str section = section_of(c->rows[i].opt->name);

    for (size_t j = 0; j < i; j++) {
        if (str_eq(section_of(c->rows[j].opt->name), section))
            return true;
    }
    return false;
}

/* Sections in order of first appearance; their rows may come from several tables. */
int conf_print(const struct conf *c, struct buf *b, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < c->n && r == 0; i++) {
        struct str section = section_of(c->rows[i].opt->name);

        if (section_began(c, i))
            continue;
        r = buf_printf(b, e, "%s[" STR_FMT "]\n", i > 0 ? "\n" : "", STR_ARG(section));
        for (size_t j = i; j < c->n && r == 0; j++) {
            if (str_eq(section_of(c->rows[j].opt->name), section))
                r = print_row(&c->rows[j], b, e);
        }
    }
    return r;
}

static int help_row(const struct opt *opt, struct buf *b, struct err *e)
{
    struct str rest = str_of(opt->env), item, name;
    const char *before = " [";
    char head[128];
    int r;

    fmt_z(head, sizeof(head), "--%s=%.80s", opt->name, opt->def);
    r = buf_printf(b, e, "  %-38s  %s", head, opt->doc ? opt->doc : "");
    while (r == 0 && str_split(&rest, ',', &item)) {
        if (!str_split(&item, ':', &name))
            continue;
        r = buf_printf(b, e, "%s$" STR_FMT, before, STR_ARG(name));
        before = ", ";
    }
    if (r == 0 && opt->env)
        r = buf_add_z(b, "]", e);
    return r < 0 ? r : buf_printf(b, e, "%s\n", opt->flags & OPT_LIVE ? " (live)" : "");
}

int conf_help(const struct conf *c, struct buf *b, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < c->n && r == 0; i++)
        r = help_row(c->rows[i].opt, b, e);
    return r;
}
