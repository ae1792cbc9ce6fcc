/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_agent.c — chela agent add|ls|rm|call|health.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"
#include "cli/input.h"
#include "net/url.h"

static const struct cli_flag add_flags[] = {
    { "auth-token", "TOKEN", "bearer token the agent wants (visible in ps; prefer a file)" },
    { "auth-token-file", "FILE", "the same, read from a file, or - for standard input" },
    { "timeout", "SECONDS", "of one attempt" },
    { "retries", "N", "attempts on this agent" },
    { "fallback", "A,B", "agents to try after this one" },
    { "api", "NAME", "messages (default), openai or responses" },
    { "context", "NAME", "none (default), or session: send earlier messages along" },
};

/* A comma-separated list as a JSON array. */
static json_t *list_of(const char *text)
{
    struct str rest = str_of(text), part;
    json_t *list = json_array();

    while (str_split(&rest, ',', &part)) {
        part = str_trim(part);
        if (part.n)
            json_array_append_new(list, json_stringn(part.p, part.n));
    }
    return list;
}

static int set_token(struct cli *cli, json_t *body, const struct args *args, struct err *e)
{
    const char *token = args_flag(&cmd_agent_add, args, "auth-token");
    const char *file = args_flag(&cmd_agent_add, args, "auth-token-file");
    struct str text;
    int r;

    if (token)
        json_object_set_new(body, "auth_token", json_string(token));
    if (!file)
        return 0;
    r = input_read(cli, file, 64 * KIB, &text, e);
    if (r < 0)
        return r;
    text = str_trim(text);
    json_object_set_new(body, "auth_token", json_stringn(text.p, text.n));
    return 0;
}

static CO int add(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    const char *fallback = args_flag(&cmd_agent_add, args, "fallback");
    const char *api = args_flag(&cmd_agent_add, args, "api");
    const char *context = args_flag(&cmd_agent_add, args, "context");
    json_t *answer;
    struct str text;
    struct url url;
    int r;

    r = url_parse(str_of(args->words[1]), &url, e);
    if (r < 0)
        return err_wrap(e, "agent url '%s'", args->words[1]);
    json_object_set_new(body, "name", json_string(args->words[0]));
    json_object_set_new(body, "host", json_stringn(url.host.p, url.host.n));
    json_object_set_new(body, "port", json_integer(url.port));
    json_object_set_new(body, "protocol", json_stringn(url.scheme.p, url.scheme.n));
    r = set_token(cli, body, args, e);
    if (r == 0)
        r = put_int(body, "timeout_seconds", "timeout", args_flag(&cmd_agent_add, args, "timeout"),
                    e);
    if (r == 0)
        r = put_int(body, "max_retries", "retries", args_flag(&cmd_agent_add, args, "retries"), e);
    if (r < 0)
        return r;
    if (fallback)
        json_object_set_new(body, "fallback_agents", list_of(fallback));
    if (api)
        json_object_set_new(body, "api", json_string(api));
    if (context)
        json_object_set_new(body, "context", json_string(context));
    r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/api/vps/register", text, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("registered %s at %s\n", args->words[0], member_text(cli, answer, "url"));
    return 0;
}

const struct cli_cmd cmd_agent_add = {
    .name = "agent add",
    .words = "<name> <url>",
    .min = 2,
    .max = 2,
    CLI_FLAGS(add_flags),
    .doc = "Register an HTTP agent, or replace it.",
    .example = "agent add ada http://127.0.0.1:5000 --retries=1 --fallback=bob",
    .run = add,
};

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "NAME", "name" },
        { "URL", "url" },
        { "STATUS", "status" },
        { ">SUCCESS %", "success_rate" },
        { ">REQUESTS", "total_requests" },
        { ">FAILURES", "total_failures" },
    };
    json_t *answer, *all, *agent, *health, *agents;
    size_t i;
    int r;

    r = api_call(cli, HTTP_M_GET, "/api/vps/agents", (struct str){ 0 }, &answer, e);
    if (r == 0 && cli->json)
        return print_json(answer, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_GET, "/api/health/agents", (struct str){ 0 }, &all, e);
    if (r < 0)
        return r;
    agents = json_object_get(answer, "agents");
    json_array_foreach(agents, i, agent)
    {
        health = json_object_get(json_object_get(all, "agent_statuses"),
                                 member_text(cli, agent, "name"));
        if (health) /* else it was removed between the two questions */
            json_object_update(agent, health);
    }
    return print_rows(cli, agents, columns, LEN(columns), e);
}

const struct cli_cmd cmd_agent_ls = {
    .name = "agent ls",
    .words = "",
    .doc = "List the registered agents and their health.",
    .example = "agent ls",
    .run = ls,
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_DELETE, api_path(cli, "/api/vps/agents/", args->words[0], ""),
                 (struct str){ 0 }, &answer, e);
    return r < 0 ? r : print_removed(cli, args->words[0], e);
}

const struct cli_cmd cmd_agent_rm = {
    .name = "agent rm",
    .words = "<name>",
    .min = 1,
    .max = 1,
    .doc = "Unregister an agent.",
    .example = "agent rm ada",
    .run = rm,
};

static const struct cli_flag health_flags[] = {
    { "reset", NULL, "forget the agent's failures" },
};

static CO int health(struct cli *cli, const struct args *args, struct err *e)
{
    bool reset = args_flag(&cmd_agent_health, args, "reset") != NULL;
    const char *path = "/api/vps/health", *key;
    json_t *answer, *value;
    int r;

    if (reset && !args->n_words)
        return err_set(e, ERR_INVALID, "--reset needs the name of an agent");
    if (args->n_words)
        path = api_path(cli, "/api/vps/health/", args->words[0], reset ? "/reset" : "");
    r = api_call(cli, reset ? HTTP_M_POST : HTTP_M_GET, path, (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    json_object_foreach(answer, key, value)
        printf("%-22s %s\n", key, harmless(cli, stdout, member_text(cli, answer, key)));
    return 0;
}

const struct cli_cmd cmd_agent_health = {
    .name = "agent health",
    .words = "[<name>]",
    .max = 1,
    CLI_FLAGS(health_flags),
    .doc = "Show the health of one agent, or of all together.",
    .example = "agent health ada",
    .run = health,
};
