/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_swarm_agent.c — chela swarm
 * agents|create|show|provision|pause|resume|heartbeat|message|rm: agents of the backend and their
 * lives.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/cmd_int.h"

#define AGENTS "/api/v1/agents"

static const char *agent_path(struct cli *cli, const char *id, const char *suffix)
{
    return api_path(cli, AGENTS "/", id, suffix);
}

/* --- showing --- */

static const struct cli_flag agents_flags[] = {
    { "status", "STATE", "only those provisioning, running, paused, stopped or failed" },
    { "name", "NAME", "only those of this name" },
    { "limit", "N", "at most so many, up to 200 (default 50)" },
    { "offset", "N", "leave out the newest so many" },
};

static CO int agents(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "ID", "id" },
        { "NAME", "name" },
        { "STATUS", "status" },
        { "SESSION", "openclaw_session_key" },
        { "EVERY", "heartbeat_interval" },
        { "LAST BEAT", "last_heartbeat_at", .time = true },
        { "HEALTH", "health" },
    };
    const struct page page = { args_flag(&cmd_swarm_agents, args, "limit"), 50, "--offset" };
    const char *path = AGENTS;

    for (size_t i = 0; i < LEN(agents_flags); i++)
        path = with_query(cli, path, agents_flags[i].name, args->flags[i]);
    return print_page(cli, path, "agents", columns, LEN(columns), &page, e);
}

const struct cli_cmd cmd_swarm_agents = {
    .name = "swarm agents",
    .words = "",
    CLI_FLAGS(agents_flags),
    .doc = "List agents, the newest first.",
    .example = "swarm agents --status=running",
    .run = agents,
};

static int print_agent(struct cli *cli, json_t *agent, struct err *e)
{
    const char *key;
    const json_t *value;

    if (cli->json)
        return print_json(agent, e);
    json_object_foreach(agent, key, value)
    {
        if (!json_is_null(value))
            printf("%-21s %s\n", key,
                   json_is_string(value) ? cell(cli, agent, key)
                                         : harmless(cli, stdout, value_text(cli, value)));
    }
    return 0;
}

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_GET, agent_path(cli, args->words[0], ""), (struct str){ 0 }, &answer,
                 e);
    return r < 0 ? r : print_agent(cli, answer, e);
}

const struct cli_cmd cmd_swarm_show = {
    .name = "swarm show",
    .words = "<agent id>",
    .min = 1,
    .max = 1,
    .doc = "Show an agent.",
    .example = "swarm show ID",
    .run = show,
};

/* --- creating --- */

static const struct cli_flag create_flags[] = {
    { "persona", "TEXT", "who it is to be" },
    { "every", "INTERVAL", "heartbeats: 30s, 1m, 5m, 15m, 30m, 1h or 2h" },
    { "checklist", "JSON", "texts that each heartbeat sends: '[\"look at the queue\"]'" },
    { "configuration", "JSON", "an object that is kept with the agent" },
    { "key", "KEY", "Idempotency-Key: a repeat with one key is one agent" },
};

static CO int create(struct cli *cli, const struct args *args, struct err *e)
{
    const char *every = args_flag(&cmd_swarm_create, args, "every");
    const char *list = args_flag(&cmd_swarm_create, args, "checklist");
    const char *conf = args_flag(&cmd_swarm_create, args, "configuration");
    const char *key = args_flag(&cmd_swarm_create, args, "key");
    const char *headers[] = { NULL, NULL };
    json_t *body = json_object(), *beat, *value = NULL, *answer;
    struct str bytes, text;
    int r = 0;

    put_text(body, "name", args->words[0]);
    put_text(body, "model", args->words[1]);
    put_text(body, "persona", args_flag(&cmd_swarm_create, args, "persona"));
    if (conf)
        r = parse_given(cli, conf, "--configuration", &value, e);
    if (conf && r == 0)
        json_object_set(body, "configuration", value);
    if (list && r == 0)
        r = parse_given(cli, list, "--checklist", &value, e);
    if (r < 0) {
        json_decref(body);
        return r;
    }
    if (every || list) {
        beat = json_pack("{s:b}", "enabled", 1);
        put_text(beat, "interval", every);
        if (list)
            json_object_set(beat, "checklist", value);
        json_object_set_new(body, "heartbeat", beat);
    }
    r = api_body(cli, body, &bytes, e);
    if (key)
        headers[0] = arena_printf(&cli->arena, "Idempotency-Key: %s", key);
    if (r == 0)
        r = api_call_raw(cli, HTTP_M_POST, AGENTS "/provision", headers, bytes, &text, e);
    if (r == 0)
        r = json_parse(text, 64, &cli->arena, &answer, NULL, e);
    if (r == 0)
        r = print_agent(cli, answer, e);
    if (r < 0 || !str_eq_z(json_member_str(answer, "status"), "failed"))
        return r;
    fflush(stdout);
    fprintf(stderr, "chela: %s\n", harmless(cli, stderr, member_text(cli, answer, "message")));
    return CLI_FAILED; /* the agent is there, but it does not live */
}

const struct cli_cmd cmd_swarm_create = {
    .name = "swarm create",
    .words = "<name> <model>",
    .min = 2,
    .max = 2,
    CLI_FLAGS(create_flags),
    .doc = "Create an agent and bring it to life; model is provider/model-name.",
    .example = "swarm create Ada anthropic/claude-sonnet-4-5 --every=5m",
    .run = create,
};

/* --- moving --- */

static CO int move(struct cli *cli, const struct args *args, const char *verb, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_POST, agent_path(cli, args->words[0], verb), (struct str){ 0 },
                 &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%s: %s\n", args->words[0], cell(cli, answer, "status"));
    return 0;
}

static CO int provision(struct cli *cli, const struct args *args, struct err *e)
{
    return move(cli, args, "/provision", e);
}

static CO int pause_agent(struct cli *cli, const struct args *args, struct err *e)
{
    return move(cli, args, "/pause", e);
}

static CO int resume(struct cli *cli, const struct args *args, struct err *e)
{
    return move(cli, args, "/resume", e);
}

static CO int heartbeat(struct cli *cli, const struct args *args, struct err *e)
{
    return move(cli, args, "/heartbeat", e);
}

#define MOVE(row, verb, function, text) \
    const struct cli_cmd row = { \
        .name = "swarm " verb, \
        .words = "<agent id>", \
        .min = 1, \
        .max = 1, \
        .doc = text, \
        .example = "swarm " verb " ID", \
        .run = function, \
    }
MOVE(cmd_swarm_provision, "provision", provision, "Provision an agent that failed.");
MOVE(cmd_swarm_pause, "pause", pause_agent, "Pause an agent; its state is kept.");
MOVE(cmd_swarm_resume, "resume", resume, "Resume a paused agent with the state that was kept.");
MOVE(cmd_swarm_heartbeat, "heartbeat", heartbeat, "Carry out a heartbeat of an agent now.");

static CO int remove_agent(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_DELETE, agent_path(cli, args->words[0], ""), NULL, "stopped",
                        args->words[0], e);
}

const struct cli_cmd cmd_swarm_rm = {
    .name = "swarm rm",
    .words = "<agent id>",
    .min = 1,
    .max = 1,
    .doc = "Stop an agent for good; its row stays.",
    .example = "swarm rm ID",
    .run = remove_agent,
};

static CO int message(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *body = json_object(), *answer;
    struct str bytes;
    int r;

    put_text(body, "message", args->words[1]);
    r = api_body(cli, body, &bytes, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, agent_path(cli, args->words[0], "/message"), bytes, &answer,
                     e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("%s\n", harmless(cli, stdout, member_text(cli, answer, "response")));
    return 0;
}

const struct cli_cmd cmd_swarm_message = {
    .name = "swarm message",
    .words = "<agent id> <text>",
    .min = 2,
    .max = 2,
    .doc = "Say something to an agent; its reply, if it replies.",
    .example = "swarm message ID \"Hello\"",
    .run = message,
};
