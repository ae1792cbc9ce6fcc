/* SPDX-License-Identifier: MIT */
/*
 * cli/vm_agent_commands.c — the commands of vm-agent in the original's words. Behind each is the
 * same function as behind chela's.
 */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "base/time.h"
#include "cli/input.h"
#include "cli/vm_agent.h"

#define READY_MS 60000
#define JSON_FLAG \
    { \
        "json", NULL, "Print JSON for programs" \
    }
#define NAMED .words = "<name>", .min = 1, .max = SIZE_MAX / 2, .hub = true

/* Milliseconds of --timeout; 300000 when it is not given. */
static int timeout_of(const char *text, long long *ret, struct err *e)
{
    *ret = 300000;
    if (!text)
        return 0;
    return int_parse(str_of(text), 1, 1LL << 40, ret, e) < 0 ? err_wrap(e, "--timeout") : 0;
}

/* --- create --- */

static const struct cli_flag create_flags[] = {
    { "type", "type", "Agent type (builder|tester|researcher|...)", .letter = 't',
      .def = "generic" },
    { "cpu", "count", "CPU cores", .letter = 'c', .def = "2" },
    { "memory", "size", "Memory size", .letter = 'm', .def = "4G" },
    { "disk", "size", "Disk size", .letter = 'd', .def = "20G" },
    { "capabilities", "list", "Comma-separated capabilities", .def = "" },
    { "hub-url", "url", "Hub WebSocket URL (the driver knows its own way)" },
    { "profile", "profile", "Profile: a name (vm-agent profiles list) or a JSON file" },
    { "driver", "driver", "sandbox, qemu or multipass (the hub's default if not given)" },
    { "image", "image", "Image that the machine starts from" },
    { "allow", "hosts", "Hosts it may reach besides the hub, comma-separated" },
    { "env", "vars", "NAME=VALUE for its tasks, comma-separated" },
    JSON_FLAG,
};

static CO int create(struct cli *cli, const struct args *args, struct err *e)
{
    const char *const *f = args->flags;
    const struct create_opts o = {
        .name = args->words[0],
        .type = f[0],
        .cpus = f[1],
        .memory = f[2],
        .disk = f[3],
        .capabilities = f[4],
        .hub_url = f[5],
        .profile = f[6],
        .driver = f[7],
        .image = f[8],
        .allow = f[9],
        .env = f[10],
    };

    return machine_create(cli, &o, e);
}

static const struct cli_cmd vm_create = {
    .name = "create",
    NAMED,
    CLI_FLAGS(create_flags),
    .doc = "Create a new agent",
    .run = create,
};

/* --- exec, logs, shell --- */

static const struct cli_flag exec_flags[] = {
    { "sudo", NULL, "Run with sudo" },
    { "timeout", "ms", "Timeout in milliseconds", .def = "300000" },
    { "cwd", "dir", "Directory to run in" },
    JSON_FLAG,
};

static CO int exec(struct cli *cli, const struct args *args, struct err *e)
{
    struct exec_opts o = {
        .name = args->words[0],
        .words = args->words + 1,
        .n_words = args->n_words - 1,
        .sudo = args->flags[0] != NULL,
        .input = true,
        .cwd = args->flags[2],
    };
    int r = timeout_of(args->flags[1], &o.timeout_ms, e);

    return r < 0 ? r : machine_exec(cli, &o, e);
}

static const struct cli_cmd vm_exec = {
    .name = "exec",
    .words = "<name> <command...>",
    .min = 2,
    .max = SIZE_MAX,
    .hub = true,
    CLI_FLAGS(exec_flags),
    .doc = "Execute command in VM",
    .run = exec,
};

static const struct cli_flag logs_flags[] = {
    { "follow", NULL, "Follow log output", .letter = 'f' },
    { "lines", "count", "Number of lines to show", .letter = 'n', .def = "100" },
};

static CO int logs(struct cli *cli, const struct args *args, struct err *e)
{
    return machine_logs(cli, args->words[0], args->flags[1] ? args->flags[1] : "100",
                        args->flags[0] != NULL, e);
}

static const struct cli_cmd vm_logs = {
    .name = "logs",
    NAMED,
    CLI_FLAGS(logs_flags),
    .doc = "View agent logs",
    .run = logs,
};

static CO int shell(struct cli *cli, const struct args *args, struct err *e)
{
    return machine_shell(cli, args->words[0], NULL, e);
}

static const struct cli_cmd vm_shell = {
    .name = "shell",
    NAMED,
    .doc = "Open a shell in the VM",
    .run = shell,
};

/* --- lives --- */

struct act {
    const char *verb, *going, *failed;
};

/* The machine after it, or an error that has been told as the original tells it. */
static CO int act(struct cli *cli, const char *name, const struct act *act, json_t *body,
                  struct progress *p, json_t **ret, struct err *e)
{
    int r;

    progress_start(p, cli, act->going, name);
    r = machine_do(cli, name, act->verb, body, p, ret, e);
    if (r < 0)
        progress_fail(p, act->failed, name);
    return r;
}

static CO int start(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct act row = { "/start", "Starting agent %s...", "Failed to start agent %s" };
    AUTO(progress_end) struct progress p = { .cli = cli };
    const char *name = args->words[0];
    json_t *machine;
    int r = act(cli, name, &row, NULL, &p, &machine, e);

    if (r < 0)
        return r;
    progress_done(&p, "Agent %s started", name);
    progress_start(&p, cli, "Waiting for agent %s...", name);
    r = agent_await(cli, name, READY_MS, e);
    if (r < 0) {
        progress_fail(&p, "Agent is not ready");
        return r;
    }
    progress_done(&p, "Agent is ready");
    return cli->json ? print_json(machine, e) : 0;
}

static const struct cli_flag json_flags[] = { JSON_FLAG };

static const struct cli_cmd vm_start = {
    .name = "start",
    NAMED,
    CLI_FLAGS(json_flags),
    .doc = "Start agent VM",
    .run = start,
};

static const struct cli_flag stop_flags[] = {
    { "force", NULL, "Do not ask the machine, cut it off", .letter = 'f' },
    JSON_FLAG,
};

static CO int stop(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct act row = { "/stop", "Stopping agent %s...", "Failed to stop agent %s" };
    AUTO(progress_end) struct progress p = { .cli = cli };
    json_t *body = json_pack("{s:b}", "force", args->flags[0] != NULL), *machine;
    int r = act(cli, args->words[0], &row, body, &p, &machine, e);

    if (r < 0)
        return r;
    progress_done(&p, "Agent %s stopped", args->words[0]);
    return cli->json ? print_json(machine, e) : 0;
}

static const struct cli_cmd vm_stop = {
    .name = "stop",
    NAMED,
    CLI_FLAGS(stop_flags),
    .doc = "Stop agent VM",
    .run = stop,
};

static CO int snapshot(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct act row = { "/snapshots", "Creating snapshot of %s...",
                                    "Failed to create snapshot of %s" };
    AUTO(progress_end) struct progress p = { .cli = cli };
    const char *name = args->n_words > 1 ? args->words[1]
                                         : arena_printf(&cli->arena, "snapshot-%lld",
                                                        (long long)(wall_us() / 1000));
    json_t *body = json_object(), *machine;
    int r;

    put_text(body, "name", name);
    r = act(cli, args->words[0], &row, body, &p, &machine, e);
    if (r < 0)
        return r;
    progress_done(&p, "Snapshot created: %s", name);
    return cli->json ? print_json(machine, e) : 0;
}

static const struct cli_cmd vm_snapshot = {
    .name = "snapshot",
    .words = "<name> [snapshot-name]",
    .min = 1,
    .max = SIZE_MAX / 2,
    .hub = true,
    CLI_FLAGS(json_flags),
    .doc = "Create VM snapshot",
    .run = snapshot,
};

static CO int restore(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct act row = { "/restore", "Restoring agent %s...",
                                    "Failed to restore agent %s" };
    AUTO(progress_end) struct progress p = { .cli = cli };
    json_t *body = json_object(), *machine;
    int r;

    put_text(body, "snapshot", args->words[1]);
    r = act(cli, args->words[0], &row, body, &p, &machine, e);
    if (r < 0)
        return r;
    progress_done(&p, "Agent restored from snapshot: %s", args->words[1]);
    if (str_eq_z(json_member_str(machine, "state"), "running")) {
        progress_start(&p, cli, "Waiting for agent %s...", args->words[0]);
        r = agent_await(cli, args->words[0], READY_MS, e);
        if (r < 0) {
            progress_fail(&p, "Agent is not ready");
            return r;
        }
        progress_done(&p, "Agent service restarted");
    }
    return cli->json ? print_json(machine, e) : 0;
}

static const struct cli_cmd vm_restore = {
    .name = "restore",
    .words = "<name> <snapshot-name>",
    .min = 2,
    .max = SIZE_MAX / 2,
    .hub = true,
    CLI_FLAGS(json_flags),
    .doc = "Restore VM from snapshot",
    .run = restore,
};

static const struct cli_flag destroy_flags[] = {
    { "force", NULL, "Skip confirmation", .letter = 'f' },
    JSON_FLAG,
};

static CO int destroy(struct cli *cli, const struct args *args, struct err *e)
{
    return machine_destroy(cli, args->words[0], args->flags[0] != NULL, e);
}

static const struct cli_cmd vm_destroy = {
    .name = "destroy",
    NAMED,
    CLI_FLAGS(destroy_flags),
    .doc = "Destroy agent VM",
    .run = destroy,
};

/* --- task --- */

static const struct cli_flag task_flags[] = {
    { "wait", NULL, "Wait for task completion and print its response" },
    { "timeout", "ms", "Timeout for waiting (ms)", .def = "300000" },
    JSON_FLAG,
};

static CO int task_wait(struct cli *cli, const char *id, long long ms, struct err *e)
{
    AUTO(progress_end) struct progress p = { .cli = cli };
    json_t *record;
    int r;

    progress_start(&p, cli, "Waiting for task %s...", id);
    r = task_await(cli, id, ms, &record, e);
    if (r < 0) {
        progress_fail(&p, "Failed to wait for the task");
        return r;
    }
    if (!record) {
        progress_warn(&p, "Task has not ended after %lld ms", ms);
        return CLI_TIMEOUT;
    }
    if (str_eq_z(json_member_str(record, "status"), "completed"))
        progress_done(&p, "Task completed");
    else
        progress_fail(&p, "Task failed: %s", task_error(cli, record));
    r = print_json(cli->json ? record : json_object_get(record, "response"), e);
    if (r < 0)
        return r;
    if (str_eq_z(json_member_str(record, "status"), "timeout"))
        return CLI_TIMEOUT;
    return str_eq_z(json_member_str(record, "status"), "completed") ? 0 : CLI_FAILED;
}

static int task_refused(struct cli *cli, struct progress *p, struct err *e)
{
    progress_fail(p, "Failed to send task");
    if (!cli->refused)
        return -e->code;
    fprintf(stderr, "Error: HTTP %d: %s\n", cli->status, cli->answer.p ? cli->answer.p : "");
    return CLI_FAILED;
}

static CO int task(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(progress_end) struct progress p = { .cli = cli };
    struct json_fail why = { 0 };
    json_t *body, *answer;
    struct str text;
    long long ms;
    int r = timeout_of(args->flags[1], &ms, e);

    if (r < 0)
        return r;
    if (json_parse(str_of(args->words[1]), 500, &cli->arena, &body, &why, e) < 0) {
        fprintf(stderr, "Invalid JSON: %s\n", *why.text ? why.text : e->msg);
        return CLI_FAILED;
    }
    r = api_body(cli, json_incref(body), &text, e);
    if (r < 0)
        return r;
    progress_start(&p, cli, "Sending task to %s...", args->words[0]);
    r = api_call(cli, HTTP_M_POST, agent_path(cli, args->words[0], "/task"), text, &answer, e);
    if (r < 0)
        return task_refused(cli, &p, e);
    progress_done(&p, "Task sent: %s", member_text(cli, answer, "taskId"));
    if (args->flags[0])
        return task_wait(cli, member_text(cli, answer, "taskId"), ms, e);
    return cli->json ? print_json(answer, e) : 0;
}

static const struct cli_cmd vm_task = {
    .name = "task",
    .words = "<name> <task-json>",
    .min = 2,
    .max = SIZE_MAX / 2,
    .hub = true,
    CLI_FLAGS(task_flags),
    .doc = "Send task to agent",
    .run = task,
};

/* --- what the original did not have --- */

static CO int cp(struct cli *cli, const struct args *args, struct err *e)
{
    return machine_copy(cli, args->words[0], args->words[1], e);
}

static const struct cli_cmd vm_cp = {
    .name = "cp",
    .words = "<from> <to>",
    .min = 2,
    .max = SIZE_MAX / 2,
    .hub = true,
    CLI_FLAGS(json_flags),
    .doc = "Copy files: NAME:/path on one side",
    .run = cp,
};

static const struct cli_flag top_flags[] = {
    { "once", NULL, "Print once and end" },
    JSON_FLAG,
};

static CO int top(struct cli *cli, const struct args *args, struct err *e)
{
    return agents_top(cli, 2000, args->flags[0] != NULL, e);
}

static const struct cli_cmd vm_top = {
    .name = "top",
    .words = "",
    .max = SIZE_MAX / 2,
    .hub = true,
    CLI_FLAGS(top_flags),
    .doc = "Watch agents: load, memory, tasks",
    .run = top,
};

static CO int events(struct cli *cli, const struct args *args, struct err *e)
{
    return events_show(cli, e);
}

static const struct cli_cmd vm_events = {
    .name = "events",
    .words = "",
    .max = SIZE_MAX / 2,
    .hub = true,
    CLI_FLAGS(json_flags),
    .doc = "Watch what happens: agents, tasks, machines",
    .run = events,
};

static const struct cli_flag drain_flags[] = {
    { "off", NULL, "Give it tasks again" },
    JSON_FLAG,
};

static CO int drain(struct cli *cli, const struct args *args, struct err *e)
{
    return agent_drain(cli, args->words[0], !args->flags[0], e);
}

static const struct cli_cmd vm_drain = {
    .name = "drain",
    NAMED,
    CLI_FLAGS(drain_flags),
    .doc = "Give an agent no new tasks; they wait",
    .run = drain,
};

static const struct cli_flag install_flags[] = {
    { "user", NULL, "For this user (default unless root)" },
    { "system", NULL, "For the machine, from its start on" },
    { "launchd", NULL, "A property list of macOS instead of a systemd unit" },
    { "dir", "dir", "Write it there instead of where the system looks" },
    { "print", NULL, "Print it and write nothing" },
};

static const struct cli_cmd vm_install = {
    .name = "hub install",
    .words = "",
    .max = SIZE_MAX / 2,
    CLI_FLAGS(install_flags),
    .doc = "Let the hub start by itself (systemd, launchd)",
    .run = hub_install,
};

/* --- profiles --- */

static int profiles(struct cli *cli, const struct args *args, struct err *e)
{
    return profile_list(cli, e);
}

static const struct cli_cmd vm_profiles_list = {
    .name = "profiles list",
    .words = "",
    .max = SIZE_MAX / 2,
    CLI_FLAGS(json_flags),
    .doc = "List, show, create and delete profiles",
    .run = profiles,
};

static int profile(struct cli *cli, const struct args *args, struct err *e)
{
    return profile_show(cli, args->words[0], e);
}

static const struct cli_cmd vm_profiles_show = {
    .name = "profiles show",
    .words = "<name>",
    .min = 1,
    .max = SIZE_MAX / 2,
    CLI_FLAGS(json_flags),
    .doc = "Show a profile",
    .run = profile,
};

static const struct cli_flag profile_flags[] = {
    { "from-file", "file", "Begin with this JSON" },
    { "description", "text", "One line" },
    { "cpu", "count", "CPU cores", .def = "2" },
    { "memory", "size", "Memory size", .def = "4G" },
    { "disk", "size", "Disk size", .def = "20G" },
    { "force", NULL, "Replace one of that name" },
};

static int create_profile(struct cli *cli, const struct args *args, struct err *e)
{
    const struct profile_opts o = {
        .name = args->words[0],
        .from_file = args->flags[0],
        .description = args->flags[1],
        .cpu = args->flags[2],
        .memory = args->flags[3],
        .disk = args->flags[4],
        .force = args->flags[5] != NULL,
    };

    return profile_create(cli, &o, e);
}

static const struct cli_cmd vm_profiles_create = {
    .name = "profiles create",
    .words = "<name>",
    .min = 1,
    .max = SIZE_MAX / 2,
    CLI_FLAGS(profile_flags),
    .doc = "Make a profile of your own",
    .run = create_profile,
};

static const struct cli_flag force_flags[] = { { "force", NULL, "Yes, delete it" } };

static int delete_profile(struct cli *cli, const struct args *args, struct err *e)
{
    return profile_delete(cli, args->words[0], args->flags[0] != NULL, e);
}

static const struct cli_cmd vm_profiles_delete = {
    .name = "profiles delete",
    .words = "<name>",
    .min = 1,
    .max = SIZE_MAX / 2,
    CLI_FLAGS(force_flags),
    .doc = "Delete a profile of your own",
    .run = delete_profile,
};

/* --- completion --- */

/* A group's commands, for its second word. */
static void complete_groups(void)
{
    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++) {
        size_t n = strcspn((*c)->name, " ");

        if ((*c)->name[n])
            printf("    '%.*s') words=\"$words %s\" ;;&\n", (int)n, (*c)->name, (*c)->name + n + 1);
    }
}

static int completion(struct cli *cli, const struct args *args, struct err *e)
{
    if (strcmp(args->words[0], "bash") != 0)
        return err_set(e, ERR_INVALID, "no completion for '%s': only bash", args->words[0]);
    printf("# bash completion of vm-agent: source <(vm-agent completion bash)\n"
           "_vm_agent()\n{\n"
           "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" words='--help'\n"
           "    case \"$COMP_CWORD\" in\n    1) words=\"$words --version help");
    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++) {
        size_t n = strcspn((*c)->name, " ");

        if (c == vm_agent_commands || strncmp(c[-1]->name, (*c)->name, n) != 0) /* not a group's */
            printf(" %.*s", (int)n, (*c)->name);
    }
    printf("\" ;;\n    2) case \"${COMP_WORDS[1]}\" in\n");
    complete_groups();
    printf("    esac ;;\n    esac\n    case \"${COMP_WORDS[*]:1:2} \" in\n");
    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++) {
        printf("    '%s '*) words=\"$words", (*c)->name);
        for (size_t i = 0; i < (*c)->n_flags; i++)
            printf(" --%s", (*c)->flags[i].name);
        printf("\" ;;\n");
    }
    printf("    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
           "complete -o default -F _vm_agent vm-agent\n");
    return 0;
}

static const struct cli_cmd vm_completion = {
    .name = "completion",
    .words = "<shell>",
    .min = 1,
    .max = SIZE_MAX / 2,
    .doc = "Print the completion for a shell (bash)",
    .run = completion,
};

const struct cli_cmd *const vm_agent_commands[] = {
    &vm_create,
    &vm_list,
    &vm_status,
    &vm_exec,
    &vm_logs,
    &vm_snapshot,
    &vm_restore,
    &vm_start,
    &vm_stop,
    &vm_shell,
    &vm_destroy,
    &vm_task,
    &vm_cp,
    &vm_top,
    &vm_events,
    &vm_drain,
    &vm_profiles_list,
    &vm_profiles_show,
    &vm_profiles_create,
    &vm_profiles_delete,
    &vm_install,
    &vm_completion,
    NULL,
};
