/* SPDX-License-Identifier: MIT */
/*
 * cli/table.c — printing: tables by libsmartcols, and JSON.
 */
#include <libsmartcols/libsmartcols.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

struct table {
    struct libscols_table *scols;
    struct libscols_line *line;
    size_t n_columns, at;
};

struct table *table_new(const char *const *columns, size_t n)
{
    struct table *t = xcalloc(1, sizeof(*t));

    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* without it cells would show UTF-8 as \\xNN */
    t->scols = scols_new_table();
    if (!t->scols)
        abort();
    t->n_columns = n;
    for (size_t i = 0; i < n; i++) {
        bool right = columns[i][0] == '>';
        bool gives_way = columns[i][0] == '~';
        int flags = right ? SCOLS_FL_RIGHT : gives_way ? SCOLS_FL_TRUNC : 0;

        if (!scols_table_new_column(t->scols, columns[i] + (right || gives_way), 0, flags))
            abort();
    }
    return t;
}

void table_free(struct table *t)
{
    if (!t)
        return;
    scols_unref_table(t->scols);
    free(t);
}

void table_cell(struct table *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        abort();
    va_end(args);
    if (t->at == 0)
        t->line = scols_table_new_line(t->scols, NULL);
    if (!t->line || scols_line_refer_data(t->line, t->at, text) != 0)
        abort();
    t->at = (t->at + 1) % t->n_columns;
}

int table_print(struct table *t, struct err *e)
{
    int r = scols_print_table(t->scols);

    table_free(t);
    return r == 0 ? 0 : err_set(e, ERR_INTERNAL, "the table could not be printed");
}

static bool steers(const unsigned char *c)
{
    if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
        return true; /* C1, in UTF-8 */
    return (*c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7f;
}

/* JSON lets DEL and the C1 controls stand as they are, a terminal obeys them. */
static void put_steering(struct str text)
{
    const unsigned char *p = (const unsigned char *)text.p, *end = p + text.n, *from = p;

    while (p < end) {
        if (!steers(p)) {
            p++;
            continue;
        }
        fwrite(from, 1, (size_t)(p - from), stdout);
        p += *p == 0xc2;
        printf("\\u%04x", *p);
        from = ++p;
    }
    fwrite(from, 1, (size_t)(end - from), stdout);
}

int print_json(const json_t *j, struct err *e)
{
    AUTO(buf_done) struct buf text;
    int r;

    buf_init(&text, 512 * MIB);
    r = json_write(j, &text, e);
    if (r < 0)
        return r;
    if (isatty(STDOUT_FILENO))
        put_steering(buf_str(&text));
    else
        fwrite(buf_str(&text).p, 1, buf_str(&text).n, stdout);
    putchar('\n');
    return 0;
}

const char *member_text(struct cli *cli, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value))
        return arena_printf(&cli->arena, "%lld", (long long)json_integer_value(value));
    if (json_is_real(value))
        return arena_printf(&cli->arena, "%.2f", json_real_value(value));
    if (json_is_boolean(value))
        return json_is_true(value) ? "yes" : "no";
    return "-";
}

const char *harmless(struct cli *cli, FILE *to, const char *text)
{
    const unsigned char *in = (const unsigned char *)text;
    char *out, *end;

    if (!isatty(fileno(to)))
        return text;
    out = end = arena_alloc(&cli->arena, 3 * strlen(text) + 1);
    for (; *in; in++) {
        if (steers(in)) {
            end = mempcpy(end, "\xef\xbf\xbd", 3);
            in += *in == 0xc2;
        } else {
            *end++ = (char)*in;
        }
    }
    *end = '\0';
    return out;
}
