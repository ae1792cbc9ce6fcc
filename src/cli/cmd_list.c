/* SPDX-License-Identifier: MIT */
/* cli/cmd_list.c — a list that the daemon answers with, as a table of declared columns. */
#include <time.h>

#include "cli/cmd_int.h"

#define COLUMNS_MAX 16

const char *time_text(struct cli *cli, const json_t *ms)
{
    time_t at = (time_t)(json_integer_value(ms) / 1000);
    char text[40];
    struct tm tm;

    if (!json_is_integer(ms) || !localtime_r(&at, &tm))
        return "-";
    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    return arena_strdup(&cli->arena, text);
}

static const char *text_of(struct cli *cli, const json_t *row, const struct column *column)
{
    if (column->ms)
        return time_text(cli, json_object_get(row, column->key));
    return column->json ? value_text(cli, json_object_get(row, column->key))
                        : cell(cli, row, column->key);
}

CO int print_list(struct cli *cli, const char *path, const char *member,
                  const struct column *columns, size_t n, struct err *e)
{
    const char *titles[COLUMNS_MAX];
    struct table *table;
    json_t *answer, *row;
    size_t i;
    int r = api_call(cli, HTTP_M_GET, path, (struct str){ 0 }, &answer, e);

    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    if (n > COLUMNS_MAX)
        return err_set(e, ERR_INTERNAL, "a table of more than %d columns", COLUMNS_MAX);
    for (i = 0; i < n; i++)
        titles[i] = columns[i].title;
    table = table_new(titles, n);
    json_array_foreach(json_object_get(answer, member), i, row)
    {
        for (size_t k = 0; k < n; k++)
            table_cell(table, "%s", text_of(cli, row, &columns[k]));
    }
    return table_print(table, e);
}
