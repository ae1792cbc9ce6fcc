/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_workflow_run.c — chela workflow start|result: a result is the only thing on stdout; how
 * the waiting goes is told on stderr. A workflow that failed ends with status 1.
 */
#include <stdio.h>
#include <string.h>

#include "base/time.h"
#include "cli/cmd_int.h"
#include "cli/input.h"

enum { ROUND_MS = 20000, INPUT_MAX = 16 * 1024 * 1024 };

static const struct cli_flag start_flags[] = {
    { "arg", "JSON", "the one argument; '-' reads it from standard input" },
    { "args", "JSON", "all arguments, a list" },
    { "named", "JSON", "named arguments, an object" },
    { "id", "ID", "the workflow's id: a repeat with it is the same workflow" },
    { "class", "NAME", "class of the workflow, when it has one" },
    { "queue", "NAME", "enqueue it there instead of running it at once" },
    { "priority", "N", "in the queue: the lower first" },
    { "delay", "TIME", "in the queue: not before" },
    { "deadline", "TIME", "cancel it when it has run so long" },
    { "dedup", "ID", "in the queue: only one unfinished workflow has this id" },
    { "join", NULL, "with --dedup: take the one that is there" },
    { "partition", "KEY", "partition of the queue" },
    { "app-version", "V", "run by this version of the code only" },
    { "wait", NULL, "wait for the result and print it" },
};

/* --- the result --- */

static void say_waiting(const char *id, const json_t *answer, uint64_t began)
{
    fprintf(stderr, "\r%s: %s for %llu s ", id,
            json_string_value(json_object_get(answer, "status")),
            (unsigned long long)(now_ms() - began) / 1000);
    fflush(stderr);
}

static int print_outcome(struct cli *cli, json_t *answer, struct err *e)
{
    const char *status = member_text(cli, answer, "status");
    const json_t *error = json_object_get(answer, "error");
    const json_t *output = json_object_get(answer, "output");
    int r = 0;

    if (cli->json)
        r = print_json(answer, e);
    else if (json_is_string(output))
        printf("%s\n", harmless(cli, stdout, json_string_value(output)));
    else if (output)
        r = print_json(output, e);
    if (r < 0 || strcmp(status, "SUCCESS") == 0)
        return r;
    fflush(stdout);
    fprintf(stderr, "chela: the workflow ended with %s%s%s\n", status, error ? ": " : "",
            error ? harmless(cli, stderr, member_text(cli, error, "message")) : "");
    return CLI_FAILED;
}

/*
 * Wait until it has ended or the time is up. *ret is the last answer: with an outcome, or of one
 * that goes on. Asked again and again, so that a proxy or a restart in between does no harm.
 */
CO static int wait_for_result(struct cli *cli, const char *id, uint64_t deadline, json_t **ret,
                              struct err *e)
{
    uint64_t began = now_ms();
    bool told = false;
    int r;

    for (;;) {
        uint64_t left = deadline > now_ms() ? deadline - now_ms() : 0;
        double round = (double)(left < ROUND_MS ? left : ROUND_MS) / 1000;
        const char *query = arena_printf(&cli->arena, "/result?timeout=%.3f", told ? round : 0.0);
        const char *status;

        r = api_call(cli, HTTP_M_GET, workflow_path(cli, id, query), (struct str){ 0 }, ret, e);
        if (r < 0)
            break;
        status = member_text(cli, *ret, "status");
        if (strcmp(status, "PENDING") != 0 && strcmp(status, "ENQUEUED") != 0 &&
            strcmp(status, "DELAYED") != 0)
            break;
        if (told && left == 0)
            break;
        if (isatty(STDERR_FILENO))
            say_waiting(id, *ret, began);
        told = true;
    }
    if (told && isatty(STDERR_FILENO))
        fprintf(stderr, "\n");
    return r;
}

CO static int wait_and_print(struct cli *cli, const char *id, const char *timeout, struct err *e)
{
    uint64_t deadline = DEADLINE_NONE;
    json_t *answer;
    long long ms;
    int r = 0;

    if (timeout) {
        r = duration_parse(str_of(timeout), &ms, e);
        if (r < 0)
            return err_wrap(e, "--timeout");
        deadline = now_ms() + (uint64_t)ms;
    }
    r = wait_for_result(cli, id, deadline, &answer, e);
    return r < 0 ? r : print_outcome(cli, answer, e);
}

static const struct cli_flag result_flags[] = {
    { "timeout", "TIME", "wait so long at most (default: until it has ended)" },
};

static CO int result(struct cli *cli, const struct args *args, struct err *e)
{
    return wait_and_print(cli, args->words[0], args_flag(&cmd_workflow_result, args, "timeout"), e);
}

const struct cli_cmd cmd_workflow_result = {
    .name = "workflow result",
    .words = "<id>",
    .min = 1,
    .max = 1,
    CLI_FLAGS(result_flags),
    .doc = "Wait for a workflow and print its result.",
    .example = "workflow result ask-1 --timeout=1m",
    .run = result,
};

/* --- start --- */

static const char *flag(const struct args *args, const char *name)
{
    return args_flag(&cmd_workflow_start, args, name);
}

static int put_arguments(struct cli *cli, const struct args *args, json_t *body, struct err *e)
{
    const char *one = flag(args, "arg");
    struct str text;
    json_t *value;
    int r = 0;

    if (one && flag(args, "args"))
        return err_set(e, ERR_INVALID, "--arg is one argument, --args all of them: give either");
    if (one && strcmp(one, "-") == 0) {
        r = input_read(cli, "-", INPUT_MAX, &text, e);
        one = text.p;
    }
    if (r == 0 && one) {
        r = parse_given(cli, one, "--arg", &value, e);
        if (r == 0)
            json_object_set_new(body, "args", json_pack("[O]", value));
    }
    if (r == 0 && flag(args, "args")) {
        r = parse_given(cli, flag(args, "args"), "--args", &value, e);
        if (r == 0)
            json_object_set(body, "args", value);
    }
    if (r == 0 && flag(args, "named")) {
        r = parse_given(cli, flag(args, "named"), "--named", &value, e);
        if (r == 0)
            json_object_set(body, "named_args", value);
    }
    return r;
}

static int build(struct cli *cli, const struct args *args, json_t *body, struct err *e)
{
    int r;

    put_text(body, "name", args->words[0]);
    put_text(body, "id", flag(args, "id"));
    put_text(body, "class_name", flag(args, "class"));
    put_text(body, "queue", flag(args, "queue"));
    put_text(body, "dedup_id", flag(args, "dedup"));
    if (flag(args, "join"))
        put_text(body, "dedup_policy", "return-existing");
    put_text(body, "partition_key", flag(args, "partition"));
    put_text(body, "app_version", flag(args, "app-version"));
    r = put_int(body, "priority", "priority", flag(args, "priority"), e);
    if (r == 0)
        r = put_time(body, "delay_ms", "delay", flag(args, "delay"), e);
    if (r == 0)
        r = put_time(body, "timeout_ms", "deadline", flag(args, "deadline"), e);
    return r < 0 ? r : put_arguments(cli, args, body, e);
}

static CO int start(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    json_t *answer;
    struct str text;
    int r;

    r = build(cli, args, body, e);
    if (r == 0)
        r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/api/v1/workflows", text, &answer, e);
    if (r < 0)
        return r;
    if (flag(args, "wait")) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "%s\n", member_text(cli, answer, "id"));
        return wait_and_print(cli, member_text(cli, answer, "id"), NULL, e);
    }
    if (cli->json)
        return print_json(answer, e);
    printf("%s\n", member_text(cli, answer, "id"));
    if (json_is_true(json_object_get(answer, "existed")))
        fprintf(stderr, "It was there already.\n");
    return 0;
}

const struct cli_cmd cmd_workflow_start = {
    .name = "workflow start",
    .words = "<name>",
    .min = 1,
    .max = 1,
    CLI_FLAGS(start_flags),
    .doc = "Start a workflow or enqueue it, and print its id.",
    .example = "workflow start bridge.call --arg '{\"agent_name\":\"ada\",\"prompt\":\"hello\"}' "
               "--wait",
    .run = start,
};
