/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_key.c — chela key create|ls|rm. A new key is the only thing on stdout, so that a script
 * can take it; it cannot be shown again.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"
#include "cli/input.h"

static const struct cli_flag create_flags[] = {
    { "scope", "A,B", "admin, bridge (default), read, metrics, workflows, agents" },
    { "expires", "TIME", "for example 30d; default: never" },
};

static CO int create(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    const char *scope = args_flag(&cmd_key_create, args, "scope");
    const char *expires = args_flag(&cmd_key_create, args, "expires");
    struct str rest = str_of(scope ? scope : "bridge"), part, text;
    json_t *scopes = json_array(), *answer;
    long long ms;
    int r;

    while (str_split(&rest, ',', &part)) {
        part = str_trim(part);
        json_array_append_new(scopes, json_stringn(part.p, part.n));
    }
    json_object_set_new(body, "name", json_string(args->words[0]));
    json_object_set_new(body, "scopes", scopes);
    if (expires) {
        r = duration_parse(str_of(expires), &ms, e);
        if (r < 0)
            return err_wrap(e, "--expires");
        json_object_set_new(body, "expires_in", json_integer(ms / 1000));
    }
    r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/api/v1/keys", text, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%s\n", member_text(cli, answer, "key"));
    fprintf(stderr, "This key cannot be shown again. Every caller needs a key or token now.\n");
    return 0;
}

const struct cli_cmd cmd_key_create = {
    .name = "key create",
    .words = "<name>",
    .min = 1,
    .max = 1,
    CLI_FLAGS(create_flags),
    .doc = "Make an API key and print it once.",
    .example = "key create my-app --scope=bridge",
    .run = create,
};

/* ["bridge","read"] as "bridge,read". */
static const char *joined(struct cli *cli, const json_t *key, const char *member)
{
    const char *text = "";
    const json_t *item;
    size_t i;

    json_array_foreach(json_object_get(key, member), i, item) text =
        arena_printf(&cli->arena, "%s%s%s", text, i ? "," : "", json_string_value(item));
    return text;
}

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "NAME", "name" },
        { "SCOPES", "scopes", .text = joined },
        { "CREATED", "created_at", .time = true },
        { "EXPIRES", "expires_at", .time = true },
    };

    return print_list(cli, "/api/v1/keys", "keys", columns, LEN(columns), e);
}

const struct cli_cmd cmd_key_ls = {
    .name = "key ls",
    .words = "",
    .doc = "List the API keys, without their texts.",
    .example = "key ls",
    .run = ls,
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_DELETE, api_path(cli, "/api/v1/keys/", args->words[0], ""),
                 (struct str){ 0 }, &answer, e);
    return r < 0 ? r : print_removed(cli, args->words[0], e);
}

const struct cli_cmd cmd_key_rm = {
    .name = "key rm",
    .words = "<name>",
    .min = 1,
    .max = 1,
    .doc = "Revoke an API key.",
    .example = "key rm my-app",
    .run = rm,
};
