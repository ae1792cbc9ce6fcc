/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_workflow_steer.c — chela workflow cancel|resume|fork|retry|rewind|send|rm.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"
#include "cli/input.h"

/* A command about one workflow. */
#define ONE_WORKFLOW .words = "<id>", .min = 1, .max = 1

static const struct cli_flag children_flags[] = {
    { "children", NULL, "its descendants too" },
};

static CO int cancel(struct cli *cli, const struct args *args, struct err *e)
{
    bool children = args_flag(&cmd_workflow_cancel, args, "children");
    struct str text;
    json_t *answer;
    int r;

    r = api_body(cli, json_pack("{s:b}", "children", children), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, workflow_path(cli, args->words[0], "/cancel"), text, &answer,
                     e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("cancelled %s\n", member_text(cli, answer, "count"));
    return 0;
}

const struct cli_cmd cmd_workflow_cancel = {
    .name = "workflow cancel",
    ONE_WORKFLOW,
    CLI_FLAGS(children_flags),
    .doc = "Cancel a workflow; one that has ended stays as it is.",
    .example = "workflow cancel ask-1",
    .run = cancel,
};

static const struct cli_flag resume_flags[] = {
    { "queue", "NAME", "enqueue it there" },
};

static CO int resume(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *body = json_object();

    put_text(body, "queue", args_flag(&cmd_workflow_resume, args, "queue"));
    return post_and_say(cli, HTTP_M_POST, workflow_path(cli, args->words[0], "/resume"), body,
                        "resumed", args->words[0], e);
}

const struct cli_cmd cmd_workflow_resume = {
    .name = "workflow resume",
    ONE_WORKFLOW,
    CLI_FLAGS(resume_flags),
    .doc = "Let a cancelled or dead workflow go on.",
    .example = "workflow resume ask-1",
    .run = resume,
};

static const struct cli_flag fork_flags[] = {
    { "step", "N", "the first step that is run anew; 0: all" },
    { "id", "ID", "of the new workflow" },
    { "queue", "NAME", "enqueue it there" },
    { "app-version", "V", "run by this version of the code" },
};

static CO int fork_from(struct cli *cli, const struct args *args, struct err *e)
{
    const char *step = args_flag(&cmd_workflow_fork, args, "step");
    AUTO(json_decref) json_t *body = json_object();
    struct str text;
    json_t *answer;
    int r;

    if (!step)
        return err_set(e, ERR_INVALID, "--step is missing: the first step that is run anew");
    put_text(body, "id", args_flag(&cmd_workflow_fork, args, "id"));
    put_text(body, "queue", args_flag(&cmd_workflow_fork, args, "queue"));
    put_text(body, "app_version", args_flag(&cmd_workflow_fork, args, "app-version"));
    r = put_int(body, "step", "step", step, e);
    if (r == 0)
        r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, workflow_path(cli, args->words[0], "/fork"), text, &answer,
                     e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%s\n", member_text(cli, answer, "id"));
    return 0;
}

const struct cli_cmd cmd_workflow_fork = {
    .name = "workflow fork",
    ONE_WORKFLOW,
    CLI_FLAGS(fork_flags),
    .doc = "Make a new workflow that shares the steps before one.",
    .example = "workflow fork ask-1 --step=2",
    .run = fork_from,
};

static CO int retry(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_POST, workflow_path(cli, args->words[0], "/retry"), NULL,
                        "retrying", args->words[0], e);
}

const struct cli_cmd cmd_workflow_retry = {
    .name = "workflow retry",
    ONE_WORKFLOW,
    .doc = "Run what failed, was cancelled or is dead again.",
    .example = "workflow retry ask-1",
    .run = retry,
};

static const struct cli_flag rewind_flags[] = {
    { "step", "N", "the first step that is run anew (default: the first that failed)" },
};

static CO int rewind_to(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    int r;

    r = put_int(body, "step", "step", args_flag(&cmd_workflow_rewind, args, "step"), e);
    if (r < 0)
        return r;
    return post_and_say(cli, HTTP_M_POST, workflow_path(cli, args->words[0], "/rewind"),
                        json_incref(body), "rewound", args->words[0], e);
}

const struct cli_cmd cmd_workflow_rewind = {
    .name = "workflow rewind",
    ONE_WORKFLOW,
    CLI_FLAGS(rewind_flags),
    .doc = "Run an ended workflow again from a step on.",
    .example = "workflow rewind ask-1 --step=2",
    .run = rewind_to,
};

static const struct cli_flag send_flags[] = {
    { "topic", "NAME", "which it waits for" },
    { "key", "KEY", "a repeat with it is one message" },
};

/* A word that is no JSON is a text: 'approved' need not be quoted twice. */
static CO int send_message(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    struct err not_json;
    json_t *value;

    if (parse_given(cli, args->words[1], "message", &value, &not_json) == 0)
        json_object_set(body, "message", value);
    else if (json_object_set_new(body, "message", json_string(args->words[1])) < 0)
        return err_set(e, ERR_INVALID, "the message is not valid UTF-8");
    put_text(body, "topic", args_flag(&cmd_workflow_send, args, "topic"));
    put_text(body, "key", args_flag(&cmd_workflow_send, args, "key"));
    return post_and_say(cli, HTTP_M_POST, workflow_path(cli, args->words[0], "/send"),
                        json_incref(body), "sent", args->words[0], e);
}

const struct cli_cmd cmd_workflow_send = {
    .name = "workflow send",
    .words = "<id> <message>",
    .min = 2,
    .max = 2,
    CLI_FLAGS(send_flags),
    .doc = "Send a workflow a message: JSON, or else a text.",
    .example = "workflow send order-7 '\"parcel 7\"' --topic=carrier",
    .run = send_message,
};

static const struct cli_flag rm_flags[] = {
    { "children", NULL, "its descendants too" },
    { "force", NULL, "also when it has not ended" },
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    const char *path = workflow_path(cli, args->words[0], "");
    json_t *answer;
    int r;

    if (args_flag(&cmd_workflow_rm, args, "children"))
        path = with_query(cli, path, "children", "1");
    if (args_flag(&cmd_workflow_rm, args, "force"))
        path = with_query(cli, path, "force", "1");
    r = api_call(cli, HTTP_M_DELETE, path, (struct str){ 0 }, &answer, e);
    return r < 0 ? r : print_removed(cli, args->words[0], e);
}

const struct cli_cmd cmd_workflow_rm = {
    .name = "workflow rm",
    ONE_WORKFLOW,
    CLI_FLAGS(rm_flags),
    .doc = "Delete an ended workflow with all it has recorded.",
    .example = "workflow rm ask-1",
    .run = rm,
};
