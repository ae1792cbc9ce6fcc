/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_message.c — chela message ls|show|send|replay|drop: what is said to agents, what waits,
 * and what could not be delivered.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/cmd_int.h"

#define ONE_MESSAGE .words = "<id>", .min = 1, .max = 1

static const char *message_path(struct cli *cli, const char *id, const char *suffix)
{
    return api_path(cli, "/api/v1/messages/", id, suffix);
}

static const struct cli_flag ls_flags[] = {
    { "session", "SESSION", "to this session" },
    { "from", "SESSION", "from this one" },
    { "status", "STATUS", "pending, acknowledged, failed, expired, dropped, or dead" },
    { "before", "POSITION", "older than this one: the next page" },
    { "limit", "N", "at most so many (default 50)" },
};

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { ">POSITION", "position" },
        { "MESSAGE", "message_id" },
        { "FROM", "from" },
        { "TO", "to" },
        { "STATUS", "status" },
        { ">ATTEMPTS", "attempts" },
        { "CREATED", "created_at", .time = true },
        { "~CONTENT", "content", .json = true },
    };
    const struct page page = { args_flag(&cmd_message_ls, args, "limit"), 50, "--before" };
    const char *path = "/api/v1/messages";

    for (size_t i = 0; i < LEN(ls_flags); i++)
        path = with_query(cli, path, ls_flags[i].name,
                          args_flag(&cmd_message_ls, args, ls_flags[i].name));
    return print_page(cli, path, "messages", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_message_ls = {
    .name = "message ls",
    .words = "",
    CLI_FLAGS(ls_flags),
    .doc = "List messages, the newest first.",
    .example = "message ls --status=failed",
    .run = ls,
};

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const keys[] = { "workflow_uuid", "message_id", "from",       "to",
                                        "status",        "attempts",   "created_at", "expires_at",
                                        "ended_at",      "error",      "response" };
    json_t *answer, *metadata;
    int r;

    r = api_call(cli, HTTP_M_GET, message_path(cli, args->words[0], ""), (struct str){ 0 }, &answer,
                 e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    for (size_t i = 0; i < LEN(keys); i++) {
        if (!json_is_null(json_object_get(answer, keys[i])))
            printf("%-14s %s\n", keys[i], harmless(cli, stdout, member_text(cli, answer, keys[i])));
    }
    metadata = json_object_get(answer, "metadata");
    if (metadata && !json_is_null(metadata))
        printf("%-14s %s\n", "metadata", value_text(cli, metadata));
    printf("\n%s\n", harmless(cli, stdout, member_text(cli, answer, "content")));
    return 0;
}

const struct cli_cmd cmd_message_show = {
    .name = "message show",
    ONE_MESSAGE,
    .doc = "Show one message, by its id or its workflow_uuid.",
    .example = "message show hello-1",
    .run = show,
};

static const struct cli_flag send_flags[] = {
    { "from", "SESSION", "who says it (default cli); notices about it go there" },
    { "id", "ID", "of the message; a repeat with one id is one message" },
    { "key", "KEY", "a repeat with one key is one message" },
    { "max-age", "TIME", "it expires after so long, for example 10m" },
    { "wait", "TIME", "wait for a reply, for example 30s" },
};

static int put_seconds(json_t *body, const char *key, const char *flag, const char *value,
                       struct err *e)
{
    long long ms;
    int r = value ? duration_parse(str_of(value), &ms, e) : 0;

    if (r < 0)
        return err_wrap(e, "%s", flag);
    if (value)
        json_object_set_new(body, key, json_real((double)ms / 1000));
    return 0;
}

static CO int send_one(struct cli *cli, const struct args *args, struct err *e)
{
    const char *from = args_flag(&cmd_message_send, args, "from");
    AUTO(json_decref) json_t *body = json_object();
    struct str bytes;
    json_t *answer;
    int r;

    put_text(body, "from", from ? from : "cli");
    put_text(body, "to", args->words[0]);
    put_text(body, "content", args->words[1]);
    put_text(body, "id", args_flag(&cmd_message_send, args, "id"));
    put_text(body, "key", args_flag(&cmd_message_send, args, "key"));
    r = put_seconds(body, "max_age", "--max-age", args_flag(&cmd_message_send, args, "max-age"), e);
    if (r == 0)
        r = put_seconds(body, "wait", "--wait", args_flag(&cmd_message_send, args, "wait"), e);
    if (r == 0)
        r = api_body(cli, json_incref(body), &bytes, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/api/v1/messages", bytes, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%s\n", member_text(cli, answer, "workflow_uuid"));
    if (json_is_string(json_object_get(answer, "response")))
        printf("%s\n", harmless(cli, stdout, member_text(cli, answer, "response")));
    return 0;
}

const struct cli_cmd cmd_message_send = {
    .name = "message send",
    .words = "<to> <text>",
    .min = 2,
    .max = 2,
    CLI_FLAGS(send_flags),
    .doc = "Send a message to an agent's session and print its workflow_uuid.",
    .example = "message send agent:ada:main \"Hello\" --id=hello-1",
    .run = send_one,
};

static CO int replay(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_POST, message_path(cli, args->words[0], "/replay"), NULL,
                        "replayed", args->words[0], e);
}

const struct cli_cmd cmd_message_replay = {
    .name = "message replay",
    ONE_MESSAGE,
    .doc = "Deliver a dead message again.",
    .example = "message replay hello-1",
    .run = replay,
};

static CO int drop(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_POST, message_path(cli, args->words[0], "/drop"), NULL,
                        "dropped", args->words[0], e);
}

const struct cli_cmd cmd_message_drop = {
    .name = "message drop",
    ONE_MESSAGE,
    .doc = "Do not deliver a message that waits.",
    .example = "message drop hello-1",
    .run = drop,
};
