/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_task.c — chela task ls|show|send|cancel|output|dead: tasks of the hub's agents.
 */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/hub.h"
#include "cli/input.h"

#define TASK_MAX (100 * MIB)

static const struct cli_flag ls_flags[] = {
    { "agent", "NAME", "of this agent" },
    { "status", "STATUS", "queued, sent, running, completed, failed, timeout, canceled or lost" },
    { "limit", "N", "at most so many (default 100)" },
    { "before", "SEQ", "older than this one: the next page" },
};

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "ID", "id" },
        { "AGENT", "agentId" },
        { "TYPE", "type" },
        { "STATUS", "status" },
        { "CREATED", "createdAt", .time = true },
        { "ENDED", "completedAt", .time = true },
    };
    const struct page page = { args->flags[2], 100, "--before with the last one's seq (--json)" };
    const char *agent = args->flags[0], *path = agent ? agent_path(cli, agent, "/tasks") : "/tasks";

    path = with_query(cli, path, "state", args->flags[1]);
    path = with_query(cli, path, "limit", args->flags[2]);
    path = with_query(cli, path, "before", args->flags[3]);
    return print_page(cli, path, "tasks", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_task_ls = {
    .name = "task ls",
    .words = "",
    .hub = true,
    CLI_FLAGS(ls_flags),
    .doc = "List tasks, the newest first.",
    .example = "task ls --agent=builder-1 --status=failed",
    .run = ls,
};

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const keys[] = { "id", "agentId", "type", "status", "reason", "from" };
    static const char *const times[] = { "createdAt", "sentAt", "startedAt", "completedAt" };
    json_t *answer, *record, *response;
    int r = api_call(cli, HTTP_M_GET, task_path(cli, args->words[0], ""), (struct str){ 0 },
                     &answer, e);

    if (r < 0)
        return r;
    record = json_object_get(answer, "task");
    if (cli->json)
        return print_json(record, e);
    for (size_t i = 0; i < LEN(keys); i++)
        if (json_is_string(json_object_get(record, keys[i])))
            printf("%-12s %s\n", keys[i], cell(cli, record, keys[i]));
    for (size_t i = 0; i < LEN(times); i++)
        printf("%-12s %s\n", times[i], time_text(cli, json_object_get(record, times[i])));
    printf("%-12s %s\n", "task", value_text(cli, json_object_get(record, "task")));
    response = json_object_get(record, "response");
    if (json_is_object(response)) {
        printf("\n");
        return print_json(response, e);
    }
    return 0;
}

const struct cli_cmd cmd_task_show = {
    .name = "task show",
    .words = "<task id>",
    .min = 1,
    .max = 1,
    .hub = true,
    .doc = "Show a task and its response.",
    .example = "task show ID",
    .run = show,
};

static const struct cli_flag send_flags[] = {
    { "wait", NULL, "until it has ended; its response; status 1 if it failed, 124 if it is late" },
    { "timeout", "TIME", "wait at most so long (default 5m)" },
    { "id", "ID", "of the task; a repeat with one id is refused" },
};

/* The response of a task that has ended (or the whole record with --json), and what it means. */
static int print_end(struct cli *cli, const json_t *record, struct err *e)
{
    int r = print_json(cli->json ? record : json_object_get(record, "response"), e);

    if (r < 0)
        return r;
    if (str_eq_z(json_member_str(record, "status"), "completed"))
        return 0;
    fflush(stdout);
    fprintf(stderr, "chela: %s\n", harmless(cli, stderr, task_error(cli, record)));
    return str_eq_z(json_member_str(record, "status"), "timeout") ? CLI_TIMEOUT : CLI_FAILED;
}

/* The task that was given: JSON, or "-" for standard input. */
static int task_given(struct cli *cli, const char *given, json_t **ret, struct err *e)
{
    struct str text = str_of(given);
    int r = 0;

    if (strcmp(given, "-") == 0)
        r = input_read(cli, "-", TASK_MAX, &text, e);
    if (r < 0)
        return r;
    r = json_parse(text, 500, &cli->arena, ret, NULL, e);
    if (r < 0)
        return err_wrap(e, "the task is not JSON");
    return json_is_object(*ret) ? 0 : err_set(e, ERR_INVALID, "a task is a JSON object");
}

static CO int send_task(struct cli *cli, const struct args *args, struct err *e)
{
    const char *timeout = args->flags[1], *id;
    json_t *answer, *task, *record;
    long long ms = 300000;
    struct str body;
    int r;

    if (timeout && duration_parse(str_of(timeout), &ms, e) < 0)
        return err_wrap(e, "--timeout");
    r = task_given(cli, args->words[1], &task, e);
    if (r < 0)
        return r;
    put_text(task, "id", args->flags[2]);
    r = api_body(cli, json_incref(task), &body, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, agent_path(cli, args->words[0], "/task"), body, &answer, e);
    if (r < 0)
        return r;
    id = member_text(cli, answer, "taskId");
    if (!args->flags[0]) {
        if (cli->json)
            return print_json(answer, e);
        printf("%s\n", harmless(cli, stdout, id));
        return 0;
    }
    r = task_await(cli, id, ms, &record, e);
    if (r < 0)
        return r;
    if (record)
        return print_end(cli, record, e);
    fprintf(stderr, "chela: task %s has not ended\n", id);
    return CLI_TIMEOUT;
}

const struct cli_cmd cmd_task_send = {
    .name = "task send",
    .words = "<agent> <json>",
    .min = 2,
    .max = 2,
    .hub = true,
    CLI_FLAGS(send_flags),
    .doc = "Send a task ('-': from standard input) and print its id.",
    .example = "task send builder-1 '{\"type\":\"exec\",\"command\":\"ls -la\"}' --wait",
    .run = send_task,
};

static CO int cancel(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_POST, task_path(cli, args->words[0], "/cancel"), json_object(),
                        "canceled", args->words[0], e);
}

const struct cli_cmd cmd_task_cancel = {
    .name = "task cancel",
    .words = "<task id>",
    .min = 1,
    .max = 1,
    .hub = true,
    .doc = "Cancel a task: one that runs is ended with all it has started.",
    .example = "task cancel ID",
    .run = cancel,
};

static CO int output(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *record;
    int r;

    /* Is it there? From here on a hub that is away is waited for. */
    r = api_call(cli, HTTP_M_GET, task_path(cli, args->words[0], ""), (struct str){ 0 }, &record,
                 e);
    if (r == 0)
        r = task_follow(cli, args->words[0], 0, &record, e);
    if (r != 0)
        return r;
    if (cli->json && record)
        r = print_json(record, e);
    return r < 0 ? r : record ? task_exit_status(record) : CLI_FAILED;
}

const struct cli_cmd cmd_task_output = {
    .name = "task output",
    .words = "<task id>",
    .min = 1,
    .max = 1,
    .hub = true,
    .doc = "The output of a task as it comes, and its exit status; Ctrl-C cancels the task.",
    .example = "task output ID",
    .run = output,
};

static const struct cli_flag dead_flags[] = { { "clear", NULL, "forget them" } };

static CO int dead(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "TIME", "timestamp", .time = true },
        { "ERROR", "error" },
        { "~MESSAGE", "message", .json = true },
    };

    if (args->flags[0])
        return post_and_say(cli, HTTP_M_DELETE, "/admin/dlq", NULL, "cleared", "dead letters", e);
    return print_list(cli, "/admin/dlq", "deadLetterQueue", columns, LEN(columns), e);
}

const struct cli_cmd cmd_task_dead = {
    .name = "task dead",
    .words = "",
    .hub = true,
    CLI_FLAGS(dead_flags),
    .doc = "Messages and tasks that could not be delivered.",
    .example = "task dead",
    .run = dead,
};
