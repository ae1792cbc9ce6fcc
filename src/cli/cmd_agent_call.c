/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_agent_call.c — chela agent call: one prompt, the answer's text on stdout; with --stream
 * as it comes. A call that failed ends with status 1 and the reason on stderr.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/input.h"

#define JSON_DEPTH 600

static const struct cli_flag flags[] = {
    { "session", "ID", "keep the question and the answer in this session" },
    { "user", "ID", "owner of the session" },
    { "metadata", "JSON", "an object to merge into the session's metadata" },
    { "stream", NULL, "print the answer as it comes" },
    { "idempotency-key", "KEY", "repeat safely: the same key gets the recorded answer" },
};

static const char *flag(const struct args *args, const char *name)
{
    return args_flag(&cmd_agent_call, args, name);
}

static int build(struct cli *cli, const struct args *args, struct str *ret, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    struct str prompt = str_of(args->words[1]);
    json_t *metadata;
    int r = 0;

    if (str_eq_z(prompt, "-"))
        r = input_read(cli, "-", 16 * MIB, &prompt, e);
    if (r < 0)
        return r;
    json_object_set_new(body, "agent_name", json_string(args->words[0]));
    if (json_object_set_new(body, "prompt", json_stringn(prompt.p, prompt.n)) < 0)
        return err_set(e, ERR_INVALID, "the prompt is not valid UTF-8");
    if (flag(args, "session"))
        json_object_set_new(body, "session_id", json_string(flag(args, "session")));
    if (flag(args, "user"))
        json_object_set_new(body, "user_id", json_string(flag(args, "user")));
    if (flag(args, "stream"))
        json_object_set_new(body, "stream", json_true());
    if (flag(args, "metadata")) {
        r = json_parse(str_of(flag(args, "metadata")), JSON_DEPTH, &cli->arena, &metadata, NULL, e);
        if (r < 0)
            return err_wrap(e, "--metadata");
        json_object_set(body, "metadata", metadata);
    }
    return api_body(cli, json_incref(body), ret, e);
}

/* Print the outcome; `printed`: the text has been on stdout already. */
static int finish(struct cli *cli, json_t *answer, bool printed, struct err *e)
{
    int r = 0;

    if (cli->json)
        r = print_json(answer, e);
    else if (json_is_true(json_object_get(answer, "success")) && !printed)
        printf("%s\n", harmless(cli, stdout, member_text(cli, answer, "response")));
    else if (printed)
        printf("\n");
    if (r < 0)
        return r;
    if (json_is_true(json_object_get(answer, "success")))
        return 0;
    fflush(stdout);
    fprintf(stderr, "chela: %s\n", harmless(cli, stderr, member_text(cli, answer, "error")));
    return CLI_FAILED;
}

struct watch {
    struct cli *cli;
    json_t *result;
    bool printed;
};

static int on_event(struct str event, struct str data, void *arg, struct err *e)
{
    struct watch *w = arg;
    json_t *j;
    int r;

    r = json_parse(data, JSON_DEPTH, &w->cli->arena, &j, NULL, e);
    if (r < 0)
        return r;
    if (str_eq_z(event, "result"))
        w->result = j;
    if (str_eq_z(event, "delta") && !w->cli->json) {
        fputs(harmless(w->cli, stdout,
                       json_is_string(json_object_get(j, "text"))
                           ? json_string_value(json_object_get(j, "text"))
                           : ""),
              stdout);
        fflush(stdout);
        w->printed = true;
    }
    return 0;
}

static CO int run(struct cli *cli, const struct args *args, struct err *e)
{
    const char *headers[] = { NULL, NULL };
    struct watch watch = { .cli = cli };
    struct str body, text;
    json_t *answer;
    int r;

    r = build(cli, args, &body, e);
    if (r < 0)
        return r;
    if (flag(args, "idempotency-key"))
        headers[0] =
            arena_printf(&cli->arena, "Idempotency-Key: %s", flag(args, "idempotency-key"));
    if (flag(args, "stream")) {
        r = api_events(cli, "/api/vps/call", headers, body, on_event, &watch, e);
        if (r < 0)
            return r;
        if (!watch.result)
            return err_set(e, ERR_UNAVAILABLE, "the daemon ended the stream without a result");
        return finish(cli, watch.result, watch.printed, e);
    }
    r = api_call_raw(cli, HTTP_M_POST, "/api/vps/call", headers, body, &text, e);
    if (r == 0)
        r = json_parse(text, JSON_DEPTH, &cli->arena, &answer, NULL, e);
    return r < 0 ? r : finish(cli, answer, false, e);
}

const struct cli_cmd cmd_agent_call = {
    .name = "agent call",
    .words = "<name> <prompt>",
    .min = 2,
    .max = 2,
    CLI_FLAGS(flags),
    .doc = "Ask an agent; '-' reads the prompt from standard input.",
    .example = "agent call ada \"What is new?\" --session=s1 --stream",
    .run = run,
};
