/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_hub.c — chela hub agents|register|rm|drain|events|top|audit|install: the hub and who is
 * connected to it.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/hub.h"

static CO int agents(struct cli *cli, const struct args *args, struct err *e)
{
    return agents_top(cli, 0, true, e);
}

const struct cli_cmd cmd_hub_agents = {
    .name = "hub agents",
    .words = "",
    .hub = true,
    .doc = "List agents.",
    .example = "hub agents",
    .run = agents,
};

static const struct cli_flag top_flags[] = { { "every", "TIME", "between looks (default 2s)" } };

static CO int top(struct cli *cli, const struct args *args, struct err *e)
{
    long long ms = 2000;

    if (args->flags[0] && duration_parse(str_of(args->flags[0]), &ms, e) < 0)
        return err_wrap(e, "--every");
    return agents_top(cli, ms < 100 ? 100 : ms, false, e);
}

const struct cli_cmd cmd_hub_top = {
    .name = "hub top",
    .words = "",
    .hub = true,
    CLI_FLAGS(top_flags),
    .doc = "Watch agents: load, memory, tasks.",
    .example = "hub top --every=5s",
    .run = top,
};

static CO int events(struct cli *cli, const struct args *args, struct err *e)
{
    return events_show(cli, e);
}

const struct cli_cmd cmd_hub_events = {
    .name = "hub events",
    .words = "",
    .hub = true,
    .doc = "Watch what happens: agents, tasks, machines.",
    .example = "hub events",
    .run = events,
};

static const struct cli_flag register_flags[] = {
    { "type", "TYPE", "a word for people" },
    { "capabilities", "A,B", "kept with the agent" },
    { "metadata", "JSON", "an object that is kept with the agent" },
};

static CO int register_agent(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_pack("{s:s}", "agentId", args->words[0]);
    json_t *metadata = json_object(), *given, *answer;
    struct str text;
    int r = 0;

    if (args->flags[2])
        r = parse_given(cli, args->flags[2], "--metadata", &given, e);
    if (r == 0 && args->flags[2])
        r = json_object_update(metadata, given) == 0
                ? 0
                : err_set(e, ERR_INVALID, "--metadata: a JSON object, {...}");
    put_text(metadata, "type", args->flags[0]);
    put_text(metadata, "capabilities", args->flags[1]);
    json_object_set_new(body, "metadata", metadata);
    if (r == 0)
        r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/agents/register", text, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    printf("token  %s\nurl    %s\n", member_text(cli, answer, "token"),
           member_text(cli, answer, "wsUrl"));
    return 0;
}

const struct cli_cmd cmd_hub_register = {
    .name = "hub register",
    .words = "<agent>",
    .min = 1,
    .max = 1,
    .hub = true,
    CLI_FLAGS(register_flags),
    .doc = "Register an agent that runs elsewhere: its token, shown this once.",
    .example = "hub register agent-1 --type=builder --capabilities=build,docker",
    .run = register_agent,
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    return post_and_say(cli, HTTP_M_DELETE, agent_path(cli, args->words[0], ""), NULL,
                        "deregistered", args->words[0], e);
}

const struct cli_cmd cmd_hub_rm = {
    .name = "hub rm",
    .words = "<agent>",
    .min = 1,
    .max = 1,
    .hub = true,
    .doc = "Deregister an agent: its token is void, what waits for it fails.",
    .example = "hub rm agent-1",
    .run = rm,
};

static const struct cli_flag drain_flags[] = { { "off", NULL, "tasks again" } };

static CO int drain(struct cli *cli, const struct args *args, struct err *e)
{
    return agent_drain(cli, args->words[0], !args->flags[0], e);
}

const struct cli_cmd cmd_hub_drain = {
    .name = "hub drain",
    .words = "<agent>",
    .min = 1,
    .max = 1,
    .hub = true,
    CLI_FLAGS(drain_flags),
    .doc = "Give an agent no new tasks; they wait.",
    .example = "hub drain agent-1",
    .run = drain,
};

static const struct cli_flag audit_flags[] = { { "lines", "N",
                                                 "the newest so many (default 100)" } };

static CO int audit(struct cli *cli, const struct args *args, struct err *e)
{
    struct str text;
    int r = api_call_raw(cli, HTTP_M_GET, with_query(cli, "/admin/audit", "lines", args->flags[0]),
                         NULL, (struct str){ 0 }, &text, e);

    if (r == 0)
        printf("%s", harmless(cli, stdout, text.p));
    return r;
}

const struct cli_cmd cmd_hub_audit = {
    .name = "hub audit",
    .words = "",
    .hub = true,
    CLI_FLAGS(audit_flags),
    .doc = "The newest lines of the audit log.",
    .example = "hub audit --lines=20",
    .run = audit,
};

static const struct cli_flag install_flags[] = {
    { "user", NULL, "for this user (default unless root)" },
    { "system", NULL, "for the machine, from its start on" },
    { "launchd", NULL, "a property list of macOS instead of a systemd unit" },
    { "dir", "DIR", "write it there instead of where the system looks" },
    { "print", NULL, "print it and write nothing" },
};

const struct cli_cmd cmd_hub_install = {
    .name = "hub install",
    .words = "",
    CLI_FLAGS(install_flags),
    .doc = "Let the daemon start by itself: a systemd unit, or a launchd property list.",
    .example = "hub install --print",
    .run = hub_install,
};
