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

static void on_progress(const char *table, long long rows, void *arg)
{
    json_object_set_new(arg, table, json_integer(rows));
    fprintf(stderr, "%-24s %lld rows\n", table, rows);
}

/* The daemon must be stopped: what it accepts while we copy would be left behind. */
static int lock_source(const char *from, int *ret_fd, struct err *e)
{
    AUTO(free) char *dir = NULL;
    const char *path, *slash;

    if (strncmp(from, "sqlite:", 7) != 0)
        return err_set(e, ERR_INVALID, "--from: want sqlite:PATH, not '%s'", from);
    path = from + 7;
    if (access(path, R_OK) < 0)
        return err_sys(e, "read '%s'", path);
    slash = strrchr(path, '/');
    dir = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup(".");
    return path_state_lock(dir, ret_fd, e);
}

static int run(struct cli *cli, const struct args *args, struct err *e)
{
    const char *from = args_flag(&cmd_store_copy, args, "from");
    const char *to = args_flag(&cmd_store_copy, args, "to");
    AUTO(free) char *state = cli->state ? xstrdup(cli->state) : path_state_default();
    AUTO(json_decref) json_t *tables = json_object();
    AUTO(close_fd) int lock = -1;
    int r;

    if (!to)
        return err_set(e, ERR_INVALID, "usage: chela store copy --to=postgres://... ");
    if (!from)
        from = arena_printf(&cli->arena, "sqlite:%s/chela.db", state);
    r = lock_source(from, &lock, e);
    if (r < 0)
        return r;
    r = store_copy(from, to, on_progress, tables, e);
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
    .example = "store copy --to=postgres://chela@db/chela",
    .run = run,
};
