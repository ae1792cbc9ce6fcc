/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_session.c — chela session ls|show|rm|export|import|cleanup.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cmd_int.h"
#include "cli/input.h"

#define IMPORT_MAX (256 * MIB)

static const struct cli_flag ls_flags[] = {
    { "limit", "N", "at most so many (default 100, at most 1000)" },
    { "after", "ID", "behind this session: the next page" },
};

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "SESSION", "session_id" },
        { "USER", "user_id" },
        { "CREATED", "created_at", .time = true },
        { "LAST ACTIVITY", "last_activity", .time = true },
        { ">MESSAGES", "messages" },
    };
    const struct page page = { args_flag(&cmd_session_ls, args, "limit"), 100, "--after" };
    const char *path = "/api/vps/sessions";

    path = with_query(cli, path, "limit", page.limit);
    path = with_query(cli, path, "after", args_flag(&cmd_session_ls, args, "after"));
    return print_page(cli, path, "sessions", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_session_ls = {
    .name = "session ls",
    .words = "",
    CLI_FLAGS(ls_flags),
    .doc = "List sessions, in the order of their ids.",
    .example = "session ls --limit=20",
    .run = ls,
};

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer, *message;
    size_t i;
    int r;

    r = api_call(cli, HTTP_M_GET, api_path(cli, "/api/vps/sessions/", args->words[0], ""),
                 (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("session %s of %s, created %s, last used %s\n",
           harmless(cli, stdout, member_text(cli, answer, "session_id")),
           harmless(cli, stdout, member_text(cli, answer, "user_id")),
           time_text(cli, json_object_get(answer, "created_at")),
           time_text(cli, json_object_get(answer, "last_activity")));
    json_array_foreach(json_object_get(answer, "messages"), i, message)
    {
        const char *agent = harmless(cli, stdout, member_text(cli, message, "agent"));

        printf("\n%s  %s%s%s%s\n%s\n", time_text(cli, json_object_get(message, "timestamp")),
               member_text(cli, message, "role"), *agent ? " " : "", agent,
               json_is_true(json_object_get(message, "interrupted")) ? "  (interrupted)" : "",
               harmless(cli, stdout, member_text(cli, message, "content")));
    }
    return 0;
}

const struct cli_cmd cmd_session_show = {
    .name = "session show",
    .words = "<id>",
    .min = 1,
    .max = 1,
    .doc = "Print a session's messages.",
    .example = "session show s1",
    .run = show,
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_DELETE, api_path(cli, "/api/vps/sessions/", args->words[0], ""),
                 (struct str){ 0 }, &answer, e);
    return r < 0 ? r : print_removed(cli, args->words[0], e);
}

const struct cli_cmd cmd_session_rm = {
    .name = "session rm",
    .words = "<id>",
    .min = 1,
    .max = 1,
    .doc = "Delete a session.",
    .example = "session rm s1",
    .run = rm,
};

static int write_all(int fd, struct str text)
{
    while (text.n) {
        ssize_t n = write(fd, text.p, text.n);

        if (n < 0)
            return -1;
        text = (struct str){ text.p + n, text.n - (size_t)n };
    }
    return fsync(fd);
}

/*
 * Write beside the file and rename: a reader never sees half of it, and only the owner reads it. In
 * a directory of all, like /tmp, nobody can have laid a link or a file of his where we write.
 */
static int write_file(const char *path, struct str text, struct err *e)
{
    AUTO(free) char *part = xasprintf("%s.XXXXXX", path);
    AUTO(close_fd) int fd = mkostemp(part, O_CLOEXEC); /* mode 0600 */
    int r;

    if (fd < 0)
        return err_sys(e, "create a file beside '%s'", path);
    if (write_all(fd, text) == 0 && rename(part, path) == 0)
        return 0;
    r = err_sys(e, "write '%s'", path);
    (void)unlink(part); /* what is wrong with it has been said */
    return r;
}

static CO int export(struct cli *cli, const struct args *args, struct err *e)
{
    const char *path = args->n_words ? args->words[0] : "-";
    struct str text;
    int r;

    r = api_call_raw(cli, HTTP_M_GET, "/api/v1/sessions/export", NULL, (struct str){ 0 }, &text, e);
    if (r < 0)
        return r;
    if (strcmp(path, "-") == 0) {
        fwrite(text.p, 1, text.n, stdout);
        return 0;
    }
    r = write_file(path, text, e);
    if (r < 0)
        return r;
    fprintf(stderr, "exported to %s\n", path);
    return 0;
}

const struct cli_cmd cmd_session_export = {
    .name = "session export",
    .words = "[<file>]",
    .max = 1,
    .doc = "Write all sessions to a file (0600) or standard output.",
    .example = "session export sessions.json",
    .run = export,
};

static CO int import(struct cli *cli, const struct args *args, struct err *e)
{
    struct str text, body;
    json_t *answer;
    int r;

    r = input_read(cli, args->words[0], IMPORT_MAX, &text, e);
    if (r < 0)
        return r;
    body = text;
    r = api_call(cli, HTTP_M_POST, "/api/v1/sessions/import", body, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("imported %s sessions\n", member_text(cli, answer, "imported"));
    return 0;
}

const struct cli_cmd cmd_session_import = {
    .name = "session import",
    .words = "<file>",
    .min = 1,
    .max = 1,
    .doc = "Read sessions from an export, all or none; same ids are replaced.",
    .example = "session import sessions.json",
    .run = import,
};

static const struct cli_flag cleanup_flags[] = {
    { "max-age", "TIME", "remove what has been idle longer, in whole hours (default 24h)" },
};

static CO int cleanup(struct cli *cli, const struct args *args, struct err *e)
{
    const char *age = args_flag(&cmd_session_cleanup, args, "max-age");
    long long ms = 24LL * 3600000;
    json_t *answer;
    int r;

    r = age ? duration_parse(str_of(age), &ms, e) : 0;
    if (r < 0)
        return err_wrap(e, "--max-age");
    if (ms % 3600000)
        return err_set(e, ERR_INVALID, "--max-age: '%s' is not in whole hours: write 24h or 7d",
                       age);
    r = api_call(
        cli, HTTP_M_POST,
        arena_printf(&cli->arena, "/api/vps/sessions/cleanup?max_age_hours=%lld", ms / 3600000),
        (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("removed %s sessions, %s left\n", member_text(cli, answer, "cleaned_up"),
           member_text(cli, answer, "remaining_sessions"));
    return 0;
}

const struct cli_cmd cmd_session_cleanup = {
    .name = "session cleanup",
    .words = "",
    CLI_FLAGS(cleanup_flags),
    .doc = "Remove sessions that have been idle for long.",
    .example = "session cleanup --max-age=24h",
    .run = cleanup,
};
