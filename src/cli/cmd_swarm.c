/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_swarm.c — chela swarm status|health: how the agent backend and its workflows are.
 */
#include <stdio.h>

#include "cli/cmd_int.h"

/* --- status --- */

static void line(struct cli *cli, const json_t *of, const char *title, const char *const *keys,
                 size_t n)
{
    printf("%-11s", title);
    for (size_t i = 0; i < n; i++)
        printf("%s%s %s", i ? ", " : "", cell(cli, of, keys[i]), keys[i]);
    printf("\n");
}

static void print_openclaw(struct cli *cli, const json_t *oc)
{
    const char *error = cell(cli, oc, "last_error");

    if (!json_is_true(json_object_get(oc, "configured"))) {
        printf("%-11snot configured (openclaw.url)\n", "openclaw");
        return;
    }
    printf("%-11s%s, %s", "openclaw", cell(cli, oc, "connection_state"),
           cell(cli, oc, "gateway_url"));
    if (json_is_string(json_object_get(oc, "version")))
        printf(", version %s", cell(cli, oc, "version"));
    if (json_is_string(json_object_get(oc, "last_error")))
        printf(", last error: %s", error);
    printf("\n");
}

static void print_trackers(json_t *trackers)
{
    const char *state, *between = "";
    const json_t *n;

    printf("%-11s", "trackers");
    json_object_foreach(trackers, state, n)
    {
        printf("%s%lld %s", between, (long long)json_integer_value(n), state);
        between = ", ";
    }
    printf("%s\n", *between ? "" : "none");
}

static void print_problems(struct cli *cli, const json_t *of)
{
    const json_t *problem;
    size_t i;

    json_array_foreach(json_object_get(of, "problems"), i, problem)
        printf("%-11s! %s\n", "", harmless(cli, stdout, json_string_value(problem)));
}

static CO int swarm_status(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const agents[] = { "running", "paused", "provisioning", "failed",
                                          "stopped", "silent", "beating" };
    static const char *const messages[] = { "pending", "acknowledged", "failed", "expired",
                                            "dropped" };
    static const char *const workflows[] = { "stuck", "orphaned", "dead", "failed_last_hour",
                                             "backlog" };
    const json_t *part;
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_GET, "/api/v1/swarm/status", (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    line(cli, json_object_get(answer, "agents"), "agents", agents, LEN(agents));
    part = json_object_get(answer, "messages");
    line(cli, part, "messages", messages, LEN(messages));
    printf("%-11s%s subscribers, %s under way, oldest pending since %s\n", "",
           cell(cli, part, "subscribers"), cell(cli, part, "under_way"),
           cell(cli, part, "oldest_pending_at"));
    printf("%-11s%s WebSockets\n", "sockets", cell(cli, answer, "sockets"));
    print_openclaw(cli, json_object_get(answer, "openclaw"));
    part = json_object_get(answer, "workflows");
    line(cli, part, "workflows", workflows, LEN(workflows));
    print_problems(cli, part);
    print_trackers(json_object_get(answer, "trackers"));
    return 0;
}

const struct cli_cmd cmd_swarm_status = {
    .name = "swarm status",
    .words = "",
    .doc = "Agents, messages, sockets, OpenClaw, workflows and trackers in numbers.",
    .example = "swarm status",
    .run = swarm_status,
};

/* --- health --- */

static int print_bad(struct cli *cli, const json_t *answer, struct err *e)
{
    static const char *const columns[] = { "WORKFLOW", "NAME", "REASON", ">IDLE S", "EXECUTOR" };
    static const char *const lists[] = { "stuck", "orphans" };
    struct table *table = table_new(columns, LEN(columns));
    const json_t *bad;
    size_t i, n = 0;

    for (size_t k = 0; k < LEN(lists); k++) {
        json_array_foreach(json_object_get(answer, lists[k]), i, bad)
        {
            table_cell(table, "%s", cell(cli, bad, "workflow_uuid"));
            table_cell(table, "%s", cell(cli, bad, "name"));
            table_cell(table, "%s", cell(cli, bad, "reason"));
            table_cell(table, "%s", cell(cli, bad, "idle_seconds"));
            table_cell(table, "%s", cell(cli, bad, "executor"));
            n++;
        }
    }
    if (n)
        return table_print(table, e);
    table_free(table);
    return 0;
}

static CO int health(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const rows[] = {
        "failed_last_hour", "ended_last_hour",     "dead",           "orphaned",
        "backlog",          "backlog_age_seconds", "blocked_version"
    };
    json_t *answer;
    bool healthy;
    int r;

    r = api_call(cli, HTTP_M_GET, "/api/v1/workflows/health", (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    healthy = json_is_true(json_object_get(answer, "healthy"));
    if (cli->json) {
        r = print_json(answer, e);
    } else {
        printf("%-20s %s\n", "healthy", healthy ? "yes" : "no");
        print_problems(cli, answer);
        for (size_t i = 0; i < LEN(rows); i++)
            printf("%-20s %s\n", rows[i], cell(cli, answer, rows[i]));
        r = print_bad(cli, answer, e);
    }
    return r < 0 ? r : healthy ? CLI_OK : CLI_FAILED;
}

const struct cli_cmd cmd_swarm_health = {
    .name = "swarm health",
    .words = "",
    .doc = "Are the workflows well? Ends with status 1 when they are not.",
    .example = "swarm health",
    .run = health,
};
