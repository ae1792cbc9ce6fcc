/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_swarm_command.c — chela swarm command|trackers: chat commands from a terminal, and work
 * on issues.
 */
#include <stdio.h>

#include "cli/cmd_int.h"

static const struct cli_flag command_flags[] = {
    { "from", "SESSION", "who asks: replies and notifications go to this session" },
    { "id", "ID", "a message's id; a repeat with one id is one command" },
    { "reply", NULL, "send the result to that session, too" },
};

static int print_agents(struct cli *cli, const json_t *agents, struct err *e)
{
    static const struct column columns[] = {
        { ">ISSUE", "issue_number" },
        { "WORK", "issue_state" },
        { "AGENT", "agent_id" },
        { "AGENT IS", "state" },
        { "SPAWNED", "spawned_at", .time = true },
    };

    if (!json_array_size(agents)) {
        printf("no agents at work\n");
        return 0;
    }
    return print_rows(cli, agents, columns, LEN(columns), e);
}

static int print_result(struct cli *cli, json_t *result, struct err *e)
{
    const json_t *tracker = json_object_get(result, "workflow");
    const char *key = json_object_get(result, "status") ? "status" : "state";

    if (!json_is_true(json_object_get(result, "success"))) {
        fprintf(stderr, "chela: %s\n", harmless(cli, stderr, member_text(cli, result, "error")));
        return CLI_FAILED;
    }
    if (json_object_get(result, "agents"))
        return print_agents(cli, json_object_get(result, "agents"), e);
    if (json_object_get(result, "message")) {
        printf("%s\n", harmless(cli, stdout, member_text(cli, result, "message")));
        return 0;
    }
    tracker = tracker ? tracker : result;
    printf("issue %s: %s", cell(cli, result, "issue_number"), cell(cli, result, key));
    if (json_is_string(json_object_get(tracker, "agent_id")))
        printf(", agent %s", cell(cli, tracker, "agent_id"));
    if (json_is_string(json_object_get(tracker, "pr_url")))
        printf(", %s", cell(cli, tracker, "pr_url"));
    printf("%s\n", json_is_true(json_object_get(result, "existing")) ? " (already)" : "");
    return 0;
}

static CO int command(struct cli *cli, const struct args *args, struct err *e)
{
    const char *text = args->words[0];
    json_t *body, *answer;
    struct str bytes;
    int r;

    for (size_t i = 1; i < args->n_words; i++)
        text = arena_printf(&cli->arena, "%s %s", text, args->words[i]);
    body = json_object();
    put_text(body, "text", text);
    put_text(body, "from", args_flag(&cmd_swarm_command, args, "from"));
    put_text(body, "id", args_flag(&cmd_swarm_command, args, "id"));
    json_object_set_new(body, "reply",
                        json_boolean(args_flag(&cmd_swarm_command, args, "reply") != NULL));
    r = api_body(cli, body, &bytes, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/api/v1/commands", bytes, &answer, e);
    if (r < 0)
        return r;
    if (!cli->json)
        return print_result(cli, answer, e);
    r = print_json(answer, e);
    return r < 0 || json_is_true(json_object_get(answer, "success")) ? r : CLI_FAILED;
}

const struct cli_cmd cmd_swarm_command = {
    .name = "swarm command",
    .words = "<text>...",
    .min = 1,
    .max = 6,
    CLI_FLAGS(command_flags),
    .doc = "Carry out a chat command, such as 'work on issue #5'.",
    .example = "swarm command 'work on issue #5'",
    .run = command,
};

static const struct cli_flag trackers_flags[] = {
    { "only", "STATE", "those in this state" },
    { "active", NULL, "only work that has not ended" },
    { "limit", "N", "at most so many (default 100)" },
};

static CO int trackers(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { ">ISSUE", "issue_number" },
        { "STATE", "state" },
        { "AGENT", "agent_id" },
        { "STARTED", "started_at", .time = true },
        { "ENDED", "completed_at", .time = true },
        { "PR URL", "pr_url" },
        { "~ERROR", "error" },
    };
    const struct page page = { args_flag(&cmd_swarm_trackers, args, "limit"), 100, "--only" };
    bool active = args_flag(&cmd_swarm_trackers, args, "active") != NULL;
    const char *path = "/api/v1/trackers";

    path = with_query(cli, path, "active", active ? "true" : NULL);
    path = with_query(cli, path, "state", args_flag(&cmd_swarm_trackers, args, "only"));
    path = with_query(cli, path, "limit", args_flag(&cmd_swarm_trackers, args, "limit"));
    return print_page(cli, path, "trackers", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_swarm_trackers = {
    .name = "swarm trackers",
    .words = "",
    CLI_FLAGS(trackers_flags),
    .doc = "List work on issues that chat commands have begun.",
    .example = "swarm trackers --active",
    .run = trackers,
};
