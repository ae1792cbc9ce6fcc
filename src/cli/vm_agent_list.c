/* SPDX-License-Identifier: MIT */
/*
 * cli/vm_agent_list.c — vm-agent list and status, as the original draws them. What an agent says of
 * itself may be anything: what is no number is not shown as one.
 */
#include <stdio.h>
#include <string.h>

#include "cli/vm_agent.h"

#define WATCH_MS 5000
#define COLUMNS  7

/* --- a table with rules between its rows --- */

struct box {
    struct cli *cli;
    const char **cells; /* COLUMNS in a row */
    size_t n, room;
};

static void box_add(struct box *b, const char *text)
{
    if (b->n == b->room) {
        const char **more;

        b->room = b->room ? 2 * b->room : (size_t)16 * COLUMNS;
        more = arena_alloc(&b->cli->arena, b->room * sizeof(*more));
        if (b->n)
            memcpy(more, b->cells, b->n * sizeof(*more));
        b->cells = more;
    }
    b->cells[b->n++] = text;
}

static size_t width_of(const char *text)
{
    size_t n = strlen(text);

    return utf8_valid(text, n) ? utf8_len(text, n) : n;
}

static void rule(const size_t *widths, const char *left, const char *middle, const char *right)
{
    for (size_t c = 0; c < COLUMNS; c++) {
        fputs(c ? middle : left, stdout);
        for (size_t i = 0; i < widths[c] + 2; i++)
            fputs("\xe2\x94\x80", stdout);
    }
    printf("%s\n", right);
}

static void box_print(const struct box *b)
{
    size_t widths[COLUMNS] = { 0 };

    for (size_t i = 0; i < b->n; i++)
        if (width_of(b->cells[i]) > widths[i % COLUMNS])
            widths[i % COLUMNS] = width_of(b->cells[i]);
    rule(widths, "\xe2\x94\x8c", "\xe2\x94\xac", "\xe2\x94\x90");
    for (size_t i = 0; i < b->n; i += COLUMNS) {
        if (i)
            rule(widths, "\xe2\x94\x9c", "\xe2\x94\xbc", "\xe2\x94\xa4");
        for (size_t c = 0; c < COLUMNS; c++)
            printf("\xe2\x94\x82 %s%*s ", b->cells[i + c],
                   (int)(widths[c] - width_of(b->cells[i + c])), "");
        printf("\xe2\x94\x82\n");
    }
    rule(widths, "\xe2\x94\x94", "\xe2\x94\xb4", "\xe2\x94\x98");
}

/* --- list --- */

static const struct cli_flag list_flags[] = {
    { "status", "status", "Filter by status (online|offline)", .letter = 's' },
    { "type", "type", "Filter by type", .letter = 't' },
    { "json", NULL, "Print JSON for programs" },
};

/* 12 is "12", 12.34 is "12.34", as JavaScript prints numbers. */
static const char *number_text(struct cli *cli, const json_t *value)
{
    return arena_printf(&cli->arena, "%.15g", json_number_value(value));
}

static const char *cpu_text(struct cli *cli, const json_t *health)
{
    const json_t *cpu = json_object_get(health, "cpu");

    return arena_printf(&cli->arena, "%s%%", json_is_number(cpu) ? number_text(cli, cpu) : "N/A");
}

static void add_agent(struct box *b, const json_t *agent)
{
    struct cli *cli = b->cli;
    const json_t *health = json_object_get(agent, "health");
    const json_t *memory = json_object_get(json_object_get(health, "memory"), "usagePercent");
    const char *type =
        json_string_value(json_object_get(json_object_get(agent, "metadata"), "type"));

    box_add(b, cell(cli, agent, "id"));
    box_add(b, cell(cli, agent, "status"));
    box_add(b, harmless(cli, stdout, type && *type ? type : "N/A"));
    box_add(b, cpu_text(cli, health));
    box_add(b, percent_text(cli, memory, "N/A"));
    box_add(b, arena_printf(&cli->arena, "%zu",
                            json_array_size(json_object_get(agent, "currentTasks"))));
    box_add(b, uptime_text(cli, health));
}

static bool wanted(const json_t *agent, const struct args *args)
{
    const json_t *metadata = json_object_get(agent, "metadata");
    const char *status = args->flags[0], *type = args->flags[1];

    return (!status || str_eq_z(json_member_str(agent, "status"), status)) &&
           (!type || str_eq_z(json_member_str(metadata, "type"), type));
}

static int print_agents(struct cli *cli, const struct args *args, const json_t *agents,
                        struct err *e)
{
    static const char *const titles[COLUMNS] = { "Name",   "Status", "Type",  "CPU",
                                                 "Memory", "Tasks",  "Uptime" };
    AUTO(json_decref) json_t *said = json_pack("{s:[]}", "agents");
    struct box box = { .cli = cli };
    size_t n = 0;

    for (size_t i = 0; i < COLUMNS; i++)
        box_add(&box, titles[i]);
    for (size_t i = 0; i < json_array_size(agents); i++) {
        json_t *agent = json_array_get(agents, i);

        if (!wanted(agent, args))
            continue;
        n++;
        json_array_append(json_object_get(said, "agents"), agent);
        add_agent(&box, agent);
    }
    if (cli->json)
        return print_json(said, e);
    if (!json_array_size(agents)) {
        printf("No agents registered\n");
        return 0;
    }
    box_print(&box);
    printf("\nTotal: %zu agents\n", n);
    return 0;
}

static CO int list(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r = api_call(cli, HTTP_M_GET, "/agents", (struct str){ 0 }, &answer, e);

    if (r == 0)
        return print_agents(cli, args, json_object_get(answer, "agents"), e);
    fprintf(stderr, "Error fetching agents: %s\n", e->msg);
    if (cli->no_daemon)
        fprintf(stderr, "Is the hub running? Start it with: chelad\n");
    return CLI_FAILED;
}

const struct cli_cmd vm_list = {
    .name = "list",
    .words = "",
    .hub = true,
    CLI_FLAGS(list_flags),
    .doc = "List all agents",
    .run = list,
};

/* --- status --- */

static const struct cli_flag status_flags[] = {
    { "watch", NULL, "Watch status continuously", .letter = 'w' },
    { "json", NULL, "Print JSON for programs" },
};

static void print_time(struct cli *cli, const char *label, const json_t *ms)
{
    if (json_is_integer(ms))
        printf("%-14s %s\n", label, time_text(cli, ms));
}

/* "4G (12.3% used)" */
static void print_size(struct cli *cli, const char *label, const json_t *metadata,
                       const json_t *health, const char *key)
{
    const json_t *used = json_object_get(json_object_get(health, key), "usagePercent");

    printf("  %-12s %s (%s used)\n", label,
           json_object_get(metadata, key) ? cell(cli, metadata, key) : "N/A",
           percent_text(cli, used, "N/A"));
}

static void print_resources(struct cli *cli, const json_t *metadata, const json_t *health)
{
    const json_t *cores = json_object_get(metadata, "cpu");

    if (!cores)
        cores = json_object_get(metadata, "cpus");
    printf("\nResources:\n  %-12s %s cores (%s used)\n", "CPU:",
           !cores                  ? "N/A"
           : json_is_string(cores) ? harmless(cli, stdout, json_string_value(cores))
                                   : value_text(cli, cores),
           cpu_text(cli, health));
    print_size(cli, "Memory:", metadata, health, "memory");
    print_size(cli, "Disk:", metadata, health, "disk");
}

static void print_stats(const json_t *stats)
{
    static const char *const rows[][2] = {
        { "Tasks received:", "tasksReceived" }, { "Tasks completed:", "tasksCompleted" },
        { "Tasks failed:", "tasksFailed" },     { "Messages received:", "messagesReceived" },
        { "Messages sent:", "messagesSent" },
    };

    printf("\nStatistics:\n");
    for (size_t i = 0; i < LEN(rows); i++)
        printf("  %-18s %lld\n", rows[i][0],
               (long long)json_integer_value(json_object_get(stats, rows[i][1])));
}

static void print_tasks(struct cli *cli, const json_t *tasks)
{
    printf("\nActive Tasks:%s\n", json_array_size(tasks) ? "" : " none");
    for (size_t i = 0; i < json_array_size(tasks); i++) {
        const json_t *task = json_array_get(tasks, i);

        printf("  %zu. %s (started %s)\n", i + 1,
               json_object_get(task, "type") ? cell(cli, task, "type") : "undefined",
               time_text(cli, json_object_get(task, "startedAt")));
    }
}

static void print_capabilities(struct cli *cli, const json_t *list)
{
    const char *all = json_is_string(list) ? json_string_value(list) : "";

    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_is_string(json_array_get(list, i)))
            all = arena_printf(&cli->arena, "%s%s%s", all, i ? ", " : "",
                               json_string_value(json_array_get(list, i)));
    printf("\nCapabilities: %s\n", *all ? harmless(cli, stdout, all) : "none");
}

static void bars(size_t n)
{
    while (n--)
        fputs("\xe2\x95\x90", stdout);
}

static void print_status(struct cli *cli, const char *name, const json_t *agent,
                         const char *address)
{
    const json_t *metadata = json_object_get(agent, "metadata");
    const json_t *ip = json_object_get(metadata, "vmIp");

    printf("\n\xe2\x95\x94");
    bars(3);
    printf(" Agent Status: %s ", harmless(cli, stdout, name));
    bars(3);
    printf("\xe2\x95\x97\n\n%-14s %s\n", "Status:", cell(cli, agent, "status"));
    printf("%-14s %s\n",
           "Type:", json_object_get(metadata, "type") ? cell(cli, metadata, "type") : "N/A");
    printf("%-14s %s\n", "IP:", json_is_string(ip) ? cell(cli, metadata, "vmIp") : address);
    print_time(cli, "Registered:", json_object_get(agent, "registeredAt"));
    print_time(cli, "Last Seen:", json_object_get(agent, "lastSeen"));
    if (json_is_true(json_object_get(agent, "draining")))
        printf("%-14s gets no new tasks\n", "Draining:");
    print_resources(cli, metadata, json_object_get(agent, "health"));
    print_stats(json_object_get(agent, "stats"));
    print_tasks(cli, json_object_get(agent, "currentTasks"));
    print_capabilities(cli, json_object_get(metadata, "capabilities"));
    printf("\n\xe2\x95\x9a");
    bars(width_of(name) + 20);
    printf("\xe2\x95\x9d\n");
}

static CO int status_once(struct cli *cli, const char *name, struct err *e)
{
    json_t *answer, *machine = NULL;
    const char *address;
    int r = hub_get(cli, agent_path(cli, name, "/status"), &answer, e);

    if (r < 0)
        return r;
    if (!answer) {
        fprintf(stderr, "Agent %s not found\n", name);
        return CLI_FAILED;
    }
    if (cli->json)
        return print_json(json_object_get(answer, "agent"), e);
    r = machine_ask(cli, name, &machine, e);
    if (r < 0)
        return r;
    address = json_string_value(json_object_get(machine, "address"));
    print_status(cli, name, json_object_get(answer, "agent"),
                 address && *address ? harmless(cli, stdout, address) : "N/A");
    return 0;
}

static CO int status(struct cli *cli, const struct args *args, struct err *e)
{
    bool terminal = isatty(STDOUT_FILENO) != 0;

    if (!args->flags[0])
        return status_once(cli, args->words[0], e);
    for (;;) {
        struct arena kept = scratch_begin(cli);
        int r;

        if (terminal)
            printf("\033[H\033[2J\033[3J");
        r = status_once(cli, args->words[0], e);
        if (r < 0)
            fprintf(stderr, "Error: %s\n", e->msg);
        fflush(stdout);
        scratch_end(cli, kept);
        cli->no_daemon = cli->refused = false;
        r = fiber_sleep(WATCH_MS, e);
        if (r < 0)
            return r;
    }
}

const struct cli_cmd vm_status = {
    .name = "status",
    .words = "<name>",
    .min = 1,
    .max = 1,
    .hub = true,
    CLI_FLAGS(status_flags),
    .doc = "Show detailed agent status",
    .run = status,
};
