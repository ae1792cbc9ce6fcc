/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_schedule.c — chela schedule ls|set|rm|pause|resume|trigger|backfill; the same behind
 * "chela workflow schedule".
 */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"
#include "cli/input.h"

#define ONE_SCHEDULE .words = "<name>", .min = 1, .max = 1

static const char *schedule_path(struct cli *cli, const char *name, const char *suffix)
{
    return api_path(cli, "/api/v1/schedules/", name, suffix);
}

static const char *state_text(struct cli *cli, const json_t *schedule, const char *key)
{
    return json_is_true(json_object_get(schedule, key)) ? "paused" : "active";
}

static const char *next_text(struct cli *cli, const json_t *schedule, const char *key)
{
    bool paused = json_is_true(json_object_get(schedule, "paused"));

    return paused ? "-" : time_text(cli, json_object_get(schedule, key));
}

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "SCHEDULE", "name" },
        { "WORKFLOW", "workflow" },
        { "CRON", "cron" },
        { "ZONE", "zone" },
        { "STATE", "paused", .text = state_text },
        { "LAST", "last_at", .time = true },
        { "NEXT", "next_at", .text = next_text },
        { "MISSED", "misfire" },
        { "OVERLAP", "overlap" },
    };

    return print_list(cli, "/api/v1/schedules", "schedules", columns, LEN(columns), e);
}

const struct cli_cmd cmd_schedule_ls = {
    .name = "schedule ls",
    .words = "",
    .doc = "List the schedules.",
    .example = "schedule ls",
    .run = ls,
};

static const struct cli_flag set_flags[] = {
    { "context", "JSON", "the workflow's second argument (the first is the time)" },
    { "zone", "NAME", "time zone, for example Europe/Berlin (default UTC)" },
    { "queue", "NAME", "enqueue it there" },
    { "class", "NAME", "class of the workflow, when it has one" },
    { "misfire", "POLICY", "times that passed while nobody ran: skip (default), once or all" },
    { "overlap", "POLICY", "when the one before still runs: allow (default), skip or replace" },
    { "paused", NULL, "start nothing yet" },
};

static CO int set(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const names[][2] = {
        { "zone", "zone" },       { "queue", "queue" },     { "class", "class_name" },
        { "misfire", "misfire" }, { "overlap", "overlap" },
    };
    const char *context = args_flag(&cmd_schedule_set, args, "context");
    AUTO(json_decref) json_t *body = json_object();
    struct str text;
    json_t *value, *answer;
    int r = 0;

    put_text(body, "cron", args->words[1]);
    put_text(body, "workflow", args->words[2]);
    for (size_t i = 0; i < LEN(names); i++)
        put_text(body, names[i][1], args_flag(&cmd_schedule_set, args, names[i][0]));
    if (args_flag(&cmd_schedule_set, args, "paused"))
        json_object_set_new(body, "paused", json_true());
    if (context) {
        r = parse_given(cli, context, "--context", &value, e);
        if (r == 0)
            json_object_set(body, "context", value);
    }
    if (r == 0)
        r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_PUT, schedule_path(cli, args->words[0], ""), text, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("set %s, next at %s\n", harmless(cli, stdout, args->words[0]),
           time_text(cli, json_object_get(answer, "next_at")));
    return 0;
}

const struct cli_cmd cmd_schedule_set = {
    .name = "schedule set",
    .words = "<name> <cron> <workflow>",
    .min = 3,
    .max = 3,
    CLI_FLAGS(set_flags),
    .doc = "Make or replace a schedule.",
    .example = "schedule set morning '0 9 * * *' bridge.call --zone Europe/Berlin --context "
               "'{\"agent_name\":\"ada\",\"prompt\":\"What is new?\"}'",
    .run = set,
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_DELETE, schedule_path(cli, args->words[0], ""), (struct str){ 0 },
                 &answer, e);
    return r < 0 ? r : print_removed(cli, args->words[0], e);
}

const struct cli_cmd cmd_schedule_rm = {
    .name = "schedule rm",
    ONE_SCHEDULE,
    .doc = "Remove a schedule.",
    .example = "schedule rm morning",
    .run = rm,
};

static CO int pause_one(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_POST, schedule_path(cli, args->words[0], "/pause"), NULL,
                        "paused", args->words[0], e);
}

const struct cli_cmd cmd_schedule_pause = {
    .name = "schedule pause",
    ONE_SCHEDULE,
    .doc = "Let a schedule start nothing.",
    .example = "schedule pause morning",
    .run = pause_one,
};

static CO int resume(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_POST, schedule_path(cli, args->words[0], "/resume"), NULL,
                        "resumed", args->words[0], e);
}

const struct cli_cmd cmd_schedule_resume = {
    .name = "schedule resume",
    ONE_SCHEDULE,
    .doc = "Let a paused schedule go on.",
    .example = "schedule resume morning",
    .run = resume,
};

static CO int trigger(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_POST, schedule_path(cli, args->words[0], "/trigger"),
                 (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%s\n", member_text(cli, answer, "id"));
    return 0;
}

const struct cli_cmd cmd_schedule_trigger = {
    .name = "schedule trigger",
    ONE_SCHEDULE,
    .doc = "Start a schedule's workflow now and print its id.",
    .example = "schedule trigger morning",
    .run = trigger,
};

static CO int backfill(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    const char *from, *to;
    struct str text;
    json_t *answer;
    int r;

    r = time_given(cli, args->words[1], "from", &from, e);
    if (r == 0)
        r = time_given(cli, args->words[2], "to", &to, e);
    if (r < 0)
        return r;
    put_text(body, "from", from);
    put_text(body, "to", to);
    r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, schedule_path(cli, args->words[0], "/backfill"), text,
                     &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("enqueued %s\n", member_text(cli, answer, "count"));
    return 0;
}

const struct cli_cmd cmd_schedule_backfill = {
    .name = "schedule backfill",
    .words = "<name> <from> <to>",
    .min = 3,
    .max = 3,
    .doc = "Start it for every time in [from, to) that it was not started for.",
    .example = "schedule backfill morning 2026-11-01 2026-11-08",
    .run = backfill,
};
