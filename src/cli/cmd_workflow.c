/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_workflow.c — chela workflow ls|show|steps|stats: looking at workflows.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"
#include "net/url.h"

enum { CELL_MAX = 60, JSON_DEPTH = 600 };

/* --- what they share --- */

const char *workflow_path(struct cli *cli, const char *id, const char *suffix)
{
    return api_path(cli, "/api/v1/workflows/", id, suffix);
}

const char *with_query(struct cli *cli, const char *path, const char *name, const char *value)
{
    if (!value)
        return path;
    return arena_printf(&cli->arena, "%s%s%s=" STR_FMT, path, strchr(path, '?') ? "&" : "?", name,
                        STR_ARG(percent_encode(str_of(value), &cli->arena)));
}

int parse_given(struct cli *cli, const char *text, const char *what, json_t **ret, struct err *e)
{
    int r = json_parse(str_of(text), JSON_DEPTH, &cli->arena, ret, NULL, e);

    return r < 0 ? err_wrap(e, "%s", what) : 0;
}

void put_text(json_t *body, const char *key, const char *value)
{
    if (value)
        json_object_set_new(body, key, json_string(value));
}

int put_time(json_t *body, const char *key, const char *flag, const char *value, struct err *e)
{
    long long ms;
    int r;

    if (!value)
        return 0;
    r = duration_parse(str_of(value), &ms, e);
    if (r < 0)
        return err_wrap(e, "--%s", flag);
    json_object_set_new(body, key, json_integer(ms));
    return 0;
}

int put_int(json_t *body, const char *key, const char *flag, const char *value, struct err *e)
{
    long long n;
    int r;

    if (!value)
        return 0;
    r = int_parse(str_of(value), INT64_MIN, INT64_MAX, &n, e);
    if (r < 0)
        return err_wrap(e, "--%s", flag);
    json_object_set_new(body, key, json_integer(n));
    return 0;
}

CO int post_and_say(struct cli *cli, enum http_method method, const char *path, json_t *body,
                    const char *done, const char *id, struct err *e)
{
    AUTO(json_decref) json_t *said = NULL;
    struct str text = { 0 };
    json_t *answer;
    int r = 0;

    if (body)
        r = api_body(cli, body, &text, e);
    if (r == 0)
        r = api_call(cli, method, path, text, &answer, e);
    if (r < 0)
        return r;
    if (!cli->json) {
        printf("%s %s\n", done, harmless(cli, stdout, id));
        return 0;
    }
    said = json_pack("{s:s}", done, id);
    return print_json(said, e);
}

const char *value_text(struct cli *cli, const json_t *value)
{
    struct err unwritten;
    struct str text;
    size_t n;

    if (!value)
        return "-";
    if (json_text(value, SIZE_MAX / 2, &cli->arena, &text, &unwritten) < 0)
        return "?";
    if (text.n <= CELL_MAX)
        return text.p;
    for (n = CELL_MAX; n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80; n--)
        ; /* not inside a character */
    return arena_printf(&cli->arena, "%.*s...", (int)n, text.p);
}

const char *cell(struct cli *cli, const json_t *object, const char *key)
{
    return harmless(cli, stdout, member_text(cli, object, key));
}

/* --- ls --- */

static const struct cli_flag ls_flags[] = {
    { "status", "A,B", "of these statuses: pending, enqueued, delayed, success, error, ..." },
    { "name", "NAME", "of this name" },
    { "queue", "NAME", "in this queue" },
    { "user", "NAME", "started by" },
    { "app-version", "V", "of this version of the code" },
    { "executor", "ID", "run by this process" },
    { "parent", "ID", "children of this workflow" },
    { "forked-from", "ID", "forks of this workflow" },
    { "schedule", "NAME", "started by this schedule" },
    { "id-prefix", "TEXT", "whose ids begin so" },
    { "from", "TIME", "created since: 2026-11-21, or 2026-11-21T09:30:00Z" },
    { "to", "TIME", "created until" },
    { "limit", "N", "at most this many (default 100, at most 1000)" },
    { "offset", "N", "skip so many" },
    { "asc", NULL, "oldest first" },
};

/* "pending,error" as status=PENDING&status=ERROR. */
static const char *with_statuses(struct cli *cli, const char *path, const char *list)
{
    struct str rest = str_of(list ? list : ""), part;

    while (str_split(&rest, ',', &part)) {
        char *upper = arena_strndup(&cli->arena, str_trim(part).p, str_trim(part).n);

        for (char *c = upper; *c; c++)
            *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        if (strcmp(upper, "DEAD") == 0)
            upper = arena_strdup(&cli->arena, "MAX_RECOVERY_ATTEMPTS_EXCEEDED");
        path = with_query(cli, path, "status", upper);
    }
    return path;
}

static int with_times(struct cli *cli, const struct args *args, const char **path, struct err *e)
{
    static const char *const names[][3] = { { "from", "--from", "created_from" },
                                            { "to", "--to", "created_to" } };
    const char *time;
    int r = 0;

    for (size_t i = 0; r == 0 && i < LEN(names); i++) {
        const char *given = args_flag(&cmd_workflow_ls, args, names[i][0]);

        if (given)
            r = time_given(cli, given, names[i][1], &time, e);
        if (given && r == 0)
            *path = with_query(cli, *path, names[i][2], time);
    }
    return r;
}

static int list_path(struct cli *cli, const struct args *args, const char **ret, struct err *e)
{
    static const char *const names[][2] = {
        { "name", "name" },
        { "queue", "queue" },
        { "user", "user" },
        { "app-version", "version" },
        { "executor", "executor" },
        { "parent", "parent" },
        { "forked-from", "forked_from" },
        { "schedule", "schedule" },
        { "id-prefix", "id_prefix" },
        { "limit", "limit" },
        { "offset", "offset" },
    };
    const char *path = "/api/v1/workflows";
    bool oldest_first = args_flag(&cmd_workflow_ls, args, "asc");

    path = with_query(cli, path, "order", oldest_first ? "asc" : "desc");
    path = with_statuses(cli, path, args_flag(&cmd_workflow_ls, args, "status"));
    for (size_t i = 0; i < LEN(names); i++)
        path = with_query(cli, path, names[i][1], args_flag(&cmd_workflow_ls, args, names[i][0]));
    *ret = path;
    return with_times(cli, args, ret, e);
}

static bool is_enqueued(const json_t *workflow)
{
    const char *status = json_string_value(json_object_get(workflow, "status"));

    return status && strcmp(status, "ENQUEUED") == 0;
}

/* What is odd about it, beside its status. */
static const char *note(struct cli *cli, const json_t *workflow, const char *key)
{
    if (json_is_true(json_object_get(workflow, "blocked_version")))
        return "no process of its version";
    if (json_is_true(json_object_get(workflow, "parked")))
        return "parked";
    if (json_is_false(json_object_get(workflow, "known")) && is_enqueued(workflow))
        return "unknown to this daemon";
    return "";
}

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "WORKFLOW", "id" },
        { "NAME", "name" },
        { "STATUS", "status" },
        { "QUEUE", "queue" },
        { ">STARTS", "attempts" },
        { "CREATED", "created_at", .time = true },
        { "~NOTE", "parked", .text = note },
    };
    const struct page page = { args_flag(&cmd_workflow_ls, args, "limit"), 100, "--offset" };
    const char *path;
    int r = list_path(cli, args, &path, e);

    return r < 0 ? r : print_page(cli, path, "workflows", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_workflow_ls = {
    .name = "workflow ls",
    .words = "",
    CLI_FLAGS(ls_flags),
    .doc = "List workflows, newest first.",
    .example = "workflow ls --status=error,dead --limit=20",
    .run = ls,
};

/* --- show, steps --- */

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer, *value;
    const char *key;
    int r;

    r = api_call(cli, HTTP_M_GET, workflow_path(cli, args->words[0], ""), (struct str){ 0 },
                 &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    json_object_foreach(answer, key, value)
    {
        struct str text;

        if (json_is_null(value) || json_is_false(value))
            continue;
        if (json_is_string(value))
            text = str_of(json_string_value(value));
        else
            r = json_text(value, SIZE_MAX / 2, &cli->arena, &text, e);
        if (r < 0)
            return r;
        printf("%-16s %s\n", key, harmless(cli, stdout, text.p));
    }
    return 0;
}

const struct cli_cmd cmd_workflow_show = {
    .name = "workflow show",
    .words = "<id>",
    .min = 1,
    .max = 1,
    .doc = "Show a workflow with its arguments and its outcome.",
    .example = "workflow show ask-1",
    .run = show,
};

static const struct cli_flag steps_flags[] = {
    { "limit", "N", "at most this many (default 1000, at most 10000)" },
    { "from-step", "N", "the first one shown" },
};

static const char *step_result(struct cli *cli, const json_t *step, const char *key)
{
    const json_t *error = json_object_get(step, "error");

    if (error)
        return arena_printf(&cli->arena, "failed: %s", member_text(cli, error, "message"));
    return value_text(cli, json_object_get(step, key));
}

static CO int steps(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { ">STEP", "id" },
        { "NAME", "name" },
        { "COMPLETED", "completed_at", .time = true },
        { "CHILD", "child" },
        { "~RESULT", "output", .text = step_result },
    };
    const struct page page = { args_flag(&cmd_workflow_steps, args, "limit"), 1000, "--from-step" };
    const char *path = workflow_path(cli, args->words[0], "/steps");

    path = with_query(cli, path, "limit", page.limit);
    path = with_query(cli, path, "from", args_flag(&cmd_workflow_steps, args, "from-step"));
    return print_page(cli, path, "steps", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_workflow_steps = {
    .name = "workflow steps",
    .words = "<id>",
    .min = 1,
    .max = 1,
    CLI_FLAGS(steps_flags),
    .doc = "List the steps a workflow has recorded.",
    .example = "workflow steps ask-1",
    .run = steps,
};

/* --- stats --- */

static CO int stats(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const columns[] = { "STATUS", ">WORKFLOWS", "OLDEST" };
    static const char *const rows[] = { "executor", "app_version",     "executors", "running_here",
                                        "parked",   "blocked_version", "stuck",     "hears" };
    const json_t *count;
    struct table *table;
    json_t *answer;
    const char *key;
    json_t *value;
    int r;

    r = api_call(cli, HTTP_M_GET, "/api/v1/workflows/overview", (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%-16s %s\n", "engine",
           json_is_true(json_object_get(answer, "working")) ? "working"
                                                            : cell(cli, answer, "trouble"));
    for (size_t i = 0; i < LEN(rows); i++)
        printf("%-16s %s\n", rows[i], cell(cli, answer, rows[i]));
    printf("\n");
    table = table_new(columns, LEN(columns));
    json_object_foreach(answer, key, value)
    {
        count = json_object_get(value, "count");
        if (!count)
            continue;
        table_cell(table, "%s", key);
        table_cell(table, "%lld", (long long)json_integer_value(count));
        table_cell(table, "%s", time_text(cli, json_object_get(value, "oldest_at")));
    }
    return table_print(table, e);
}

const struct cli_cmd cmd_workflow_stats = {
    .name = "workflow stats",
    .words = "",
    .doc = "Workflows in numbers, and whether the daemon runs them.",
    .example = "workflow stats",
    .run = stats,
};
