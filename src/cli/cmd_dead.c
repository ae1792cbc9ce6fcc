/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_dead.c — chela dead ls|show|replay|drop: messages and tasks that the hub could not
 * deliver. Those of the gateway are `chela message`.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/cmd_int.h"

#define ONE_LETTER .words = "<position>", .min = 1, .max = 1, .hub = true

static const char *dead_path(struct cli *cli, const char *position, const char *suffix)
{
    return api_path(cli, "/admin/dlq/", position, suffix);
}

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { ">POSITION", "position" },
        { "TIME", "timestamp", .time = true },
        { "ERROR", "error" },
        { "~MESSAGE", "message", .json = true },
    };

    return print_list(cli, "/admin/dlq", "deadLetterQueue", columns, LEN(columns), e);
}

const struct cli_cmd cmd_dead_ls = {
    .name = "dead ls",
    .words = "",
    .hub = true,
    .doc = "List what could not be delivered to the hub's agents, the oldest first.",
    .example = "dead ls",
    .run = ls,
};

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer, *letter;
    int r = api_call(cli, HTTP_M_GET, dead_path(cli, args->words[0], ""), (struct str){ 0 },
                     &answer, e);

    if (r < 0)
        return r;
    letter = json_object_get(answer, "deadLetter");
    if (cli->json)
        return print_json(letter, e);
    printf("%-10s %s\n", "position", value_text(cli, json_object_get(letter, "position")));
    printf("%-10s %s\n", "time", time_text(cli, json_object_get(letter, "timestamp")));
    printf("%-10s %s\n\n", "error", cell(cli, letter, "error"));
    return print_json(json_object_get(letter, "message"), e);
}

const struct cli_cmd cmd_dead_show = {
    .name = "dead show",
    ONE_LETTER,
    .doc = "Show one of them.",
    .example = "dead show 12",
    .run = show,
};

static CO int replay(struct cli *cli, const struct args *args, struct err *e)
{
    const char *task;
    json_t *answer;
    int r = api_call(cli, HTTP_M_POST, dead_path(cli, args->words[0], "/replay"), STR("{}"),
                     &answer, e);

    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    task = json_string_value(json_object_get(answer, "taskId"));
    if (task)
        printf("replayed %s: task %s\n", args->words[0], harmless(cli, stdout, task));
    else
        printf("replayed %s\n", args->words[0]);
    return 0;
}

const struct cli_cmd cmd_dead_replay = {
    .name = "dead replay",
    ONE_LETTER,
    .doc = "Deliver it again; a task is asked for anew, and its new id is printed.",
    .example = "dead replay 12",
    .run = replay,
};

static CO int drop(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_DELETE, dead_path(cli, args->words[0], ""), NULL, "dropped",
                        args->words[0], e);
}

const struct cli_cmd cmd_dead_drop = {
    .name = "dead drop",
    ONE_LETTER,
    .doc = "Forget it. All of them: chela task dead --clear.",
    .example = "dead drop 12",
    .run = drop,
};
