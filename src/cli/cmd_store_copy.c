/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_store_copy.c — chela store copy: move what an SQLite state directory holds into an
 * empty PostgreSQL database, with the daemon stopped. The one command that opens a database.
 */
#include <stdio.h>
#include <string.h>

#include "base/paths.h"
#include "cli/cli.h"
#include "store/store.h"

static const struct cli_flag flags[] = {
    { "from", "URL", "sqlite:PATH (default: chela.db of the state directory)" },
    { "to", "URL", "postgres://USER@HOST/DATABASE, empty" },
};

struct progress {
    bool json;
    char table[64];
    long long rows, total;
    json_t *tables;
};

static void on_progress(const char *table, long long rows, void *arg)
{
    struct progress *p = arg;

    json_object_set_new(p->tables, table, json_integer(rows));
    fprintf(stderr, "%-24s %lld rows\n", table, rows);
}

static int run(struct cli *cli, const struct args *args, struct err *e)
{
    struct progress p = { .tables = json_object() };
    const char *from = args_flag(&cmd_store_copy, args, "from");
    const char *to = args_flag(&cmd_store_copy, args, "to");
    AUTO(free) char *state = cli->state ? xstrdup(cli->state) : path_state_default();
    AUTO(json_decref) json_t *tables = p.tables;
    int r;

    if (!to)
        return err_set(e, ERR_INVALID, "usage: chela store copy --to=postgres://... ");
    if (!from)
        from = arena_printf(&cli->arena, "sqlite:%s/chela.db", state);
    r = store_copy(from, to, on_progress, &p, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(tables, e);
    printf("copied; start the daemon with DATABASE_URL set to the new database\n");
    return 0;
}

const struct cli_cmd cmd_store_copy = {
    .name = "store copy",
    .words = "",
    CLI_FLAGS(flags),
    .doc = "Copy an SQLite store into an empty PostgreSQL database (daemon stopped).",
    .run = run,
};
