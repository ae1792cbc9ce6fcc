/* SPDX-License-Identifier: MIT */
/*
 * cli/look.c — looking on: what happens at the hub, what its agents do, and taking one out of
 * service.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/hub.h"

#define JSON_DEPTH 64

const char *percent_text(struct cli *cli, const json_t *value, const char *none)
{
    return json_is_number(value) ? arena_printf(&cli->arena, "%.1f%%", json_number_value(value))
                                 : none;
}

const char *uptime_text(struct cli *cli, const json_t *health)
{
    double s = json_number_value(json_object_get(health, "uptime"));
    long long minutes = s > 0 && s < 1e12 ? (long long)s / 60 : 0;

    if (s <= 0)
        return "N/A";
    return minutes >= 60 ? arena_printf(&cli->arena, "%lldh %lldm", minutes / 60, minutes % 60)
                         : arena_printf(&cli->arena, "%lldm", minutes);
}

/* --- events --- */

struct looking {
    struct cli *cli;
    bool heard;
};

/* "12:00:01  task.ended  agent=a task=… status=completed" */
static void print_event(struct cli *cli, struct str type, json_t *event)
{
    time_t at = (time_t)(json_integer_value(json_object_get(event, "timestamp")) / 1000);
    const json_t *value;
    const char *key;
    char clock[16];
    struct tm tm;

    localtime_r(&at, &tm);
    strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    printf("%s  %-18.*s", clock, STR_ARG(type));
    json_object_foreach(event, key, value)
    {
        if (strcmp(key, "type") != 0 && strcmp(key, "seq") != 0 && strcmp(key, "timestamp") != 0)
            printf(" %s=%s", key,
                   json_is_string(value) ? cell(cli, event, key)
                                         : harmless(cli, stdout, value_text(cli, value)));
    }
    printf("\n");
}

static int on_event(struct str type, struct str data, void *arg, struct err *e)
{
    struct looking *l = arg;
    struct arena kept = scratch_begin(l->cli);
    json_t *event;
    int r = 0;

    l->heard = true;
    if (l->cli->json) {
        printf(STR_FMT "\n", STR_ARG(data));
    } else {
        r = json_parse(data, JSON_DEPTH, &l->cli->arena, &event, NULL, e);
        if (r == 0)
            print_event(l->cli, type, event);
    }
    fflush(stdout);
    scratch_end(l->cli, kept);
    return r;
}

CO int events_show(struct cli *cli, struct err *e)
{
    struct looking l = { .cli = cli };
    int r = api_events(cli, "/events", NULL, (struct str){ 0 }, on_event, &l, e);

    if (r < 0)
        return r;
    return err_set(e, ERR_UNAVAILABLE, "the hub has ended the stream");
}

/* --- top --- */

static const json_t *in(const json_t *object, const char *key, const char *member)
{
    return json_object_get(json_object_get(object, key), member);
}

static void add_agent(struct cli *cli, struct table *table, const json_t *agent)
{
    const json_t *health = json_object_get(agent, "health");
    const json_t *load = json_array_get(json_object_get(health, "loadAverage"), 0);

    table_cell(table, "%s", cell(cli, agent, "id"));
    table_cell(table, "%s", cell(cli, agent, "status"));
    table_cell(table, "%s", percent_text(cli, json_object_get(health, "cpu"), "-"));
    table_cell(table, "%s", percent_text(cli, in(health, "memory", "usagePercent"), "-"));
    table_cell(table, "%s", percent_text(cli, in(health, "disk", "usagePercent"), "-"));
    table_cell(table, "%s", json_is_number(load) ? value_text(cli, load) : "-");
    table_cell(table, "%zu", json_array_size(json_object_get(agent, "currentTasks")));
    table_cell(table, "%lld", json_integer_value(in(agent, "stats", "tasksCompleted")));
    table_cell(table, "%lld", json_integer_value(in(agent, "stats", "tasksFailed")));
    table_cell(table, "%s", uptime_text(cli, health));
}

static CO int top_once(struct cli *cli, bool clear, struct err *e)
{
    static const char *const titles[] = { "AGENT", "STATUS", ">CPU",  ">MEMORY", ">DISK",
                                          ">LOAD", ">TASKS", ">DONE", ">FAILED", ">UPTIME" };
    json_t *answer, *agent;
    struct table *table;
    size_t i, online = 0;
    int r = api_call(cli, HTTP_M_GET, "/agents", (struct str){ 0 }, &answer, e);

    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    table = table_new(titles, LEN(titles));
    json_array_foreach(json_object_get(answer, "agents"), i, agent)
    {
        add_agent(cli, table, agent);
        online += str_eq_z(json_member_str(agent, "status"), "online");
    }
    printf("%s%zu agents, %zu online\n", clear ? "\033[H\033[2J" : "", i, online);
    return table_print(table, e);
}

CO int agents_top(struct cli *cli, long long every_ms, bool once, struct err *e)
{
    bool terminal = isatty(STDOUT_FILENO) != 0;

    for (;;) {
        struct arena kept = scratch_begin(cli);
        int r = top_once(cli, terminal && !once && !cli->json, e);

        scratch_end(cli, kept);
        if (r < 0 || once)
            return r;
        fflush(stdout);
        r = fiber_sleep((uint64_t)every_ms, e);
        if (r < 0)
            return r;
    }
}

/* --- drain --- */

CO int agent_drain(struct cli *cli, const char *name, bool on, struct err *e)
{
    struct progress p = { .cli = cli, .terminal = isatty(STDERR_FILENO) != 0 };
    struct str text;
    json_t *answer;
    int r = api_body(cli, json_pack("{s:b}", "draining", on), &text, e);

    if (r == 0)
        r = api_call(cli, HTTP_M_POST, agent_path(cli, name, "/drain"), text, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    progress_done(&p, on ? "Agent %s gets no new tasks" : "Agent %s gets tasks again", name);
    if (!cli->vm)
        printf("%s %s\n", on ? "drained" : "undrained", name);
    return 0;
}
