/* SPDX-License-Identifier: MIT */
/* cli/cmd_list.c — a list that the daemon answers with, as a table of declared columns. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/time.h"
#include "cli/cmd_int.h"

#define COLUMNS_MAX 16

/* Microseconds since 1970 of either form; false: neither. */
static bool read_time(const json_t *time, int64_t *ret_us)
{
    struct err no;

    if (json_is_integer(time)) {
        *ret_us = json_integer_value(time) * 1000;
        return true;
    }
    return json_is_string(time) && time_parse(str_of(json_string_value(time)), ret_us, &no) == 0;
}

const char *time_text(struct cli *cli, const json_t *time)
{
    char text[40];
    struct tm tm;
    int64_t us;
    time_t at;

    if (!read_time(time, &us))
        return "-";
    at = (time_t)(us / 1000000);
    if (!localtime_r(&at, &tm))
        return "-";
    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    return arena_strdup(&cli->arena, text);
}

const char *span_text(struct cli *cli, double seconds)
{
    long long s = seconds > 0 && seconds < 1e15 ? (long long)seconds : 0;

    if (s < 60)
        return arena_printf(&cli->arena, "%llds", s);
    if (s < 3600)
        return arena_printf(&cli->arena, "%lldm %llds", s / 60, s % 60);
    if (s < 86400)
        return arena_printf(&cli->arena, "%lldh %lldm", s / 3600, s / 60 % 60);
    return arena_printf(&cli->arena, "%lldd %lldh", s / 86400, s / 3600 % 24);
}

int time_given(struct cli *cli, const char *text, const char *what, const char **ret, struct err *e)
{
    const char *whole = strlen(text) == strlen("2026-11-21")
                            ? arena_printf(&cli->arena, "%sT00:00:00Z", text)
                            : text;
    int64_t us;

    if (time_parse(str_of(whole), &us, e) < 0)
        return err_set(e, ERR_INVALID,
                       "%s: '%.60s' is no time: write 2026-11-21, or 2026-11-21T09:30:00Z", what,
                       text);
    *ret = whole;
    return 0;
}

static const char *text_of(struct cli *cli, const json_t *row, const struct column *column)
{
    const json_t *value = json_object_get(row, column->key);

    if (column->text)
        return harmless(cli, stdout, column->text(cli, row, column->key));
    if (column->time)
        return time_text(cli, value);
    return column->json ? harmless(cli, stdout, value_text(cli, value))
                        : cell(cli, row, column->key);
}

int print_rows(struct cli *cli, const json_t *rows, const struct column *columns, size_t n,
               struct err *e)
{
    const char *titles[COLUMNS_MAX];
    struct table *table;
    const json_t *row;
    size_t i;

    if (n > COLUMNS_MAX)
        return err_set(e, ERR_INTERNAL, "a table of more than %d columns", COLUMNS_MAX);
    if (!json_array_size(rows)) {
        printf("none\n");
        return 0;
    }
    for (i = 0; i < n; i++)
        titles[i] = columns[i].title;
    table = table_new(titles, n);
    json_array_foreach(rows, i, row)
    {
        for (size_t k = 0; k < n; k++)
            table_cell(table, "%s", text_of(cli, row, &columns[k]));
    }
    return table_print(table, e);
}

/* A page that is full may have another behind it. */
static void say_full(const struct page *page, size_t shown)
{
    long long limit = (long long)page->otherwise;
    struct err no;

    if (page->limit && int_parse(str_of(page->limit), 1, INT32_MAX, &limit, &no) < 0)
        return; /* the daemon took it, so this is of no use here */
    if (shown >= (size_t)limit)
        fprintf(stderr, "%zu shown, there may be more: --limit, %s\n", shown, page->next);
}

CO int print_page(struct cli *cli, const char *path, const char *member,
                  const struct column *columns, size_t n, const struct page *page, struct err *e)
{
    const json_t *rows;
    json_t *answer;
    int r = api_call(cli, HTTP_M_GET, path, (struct str){ 0 }, &answer, e);

    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    rows = json_object_get(answer, member);
    r = print_rows(cli, rows, columns, n, e);
    fflush(stdout);
    if (r == 0 && page)
        say_full(page, json_array_size(rows));
    return r;
}

CO int print_list(struct cli *cli, const char *path, const char *member,
                  const struct column *columns, size_t n, struct err *e)
{
    return print_page(cli, path, member, columns, n, NULL, e);
}
