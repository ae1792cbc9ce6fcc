/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_machine.c — chela machine
 * ls|create|show|start|stop|restart|snapshot|snapshots|forget|restore|destroy|drivers: machines and
 * their lives.
 */
#include <stdio.h>

#include "cli/hub.h"

#define ONE_MACHINE .words = "<name>", .min = 1, .max = 1, .hub = true

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "NAME", "name" },      { "DRIVER", "driver" }, { "STATE", "state" },
        { "ONLINE", "online" },  { ">CPUS", "cpus" },    { ">MEMORY", "memory" },
        { ">DISK", "disk" },     { "TYPE", "type" },     { "ADDRESS", "address" },
        { "~REASON", "reason" },
    };

    return print_list(cli, "/machines", "machines", columns, LEN(columns), e);
}

const struct cli_cmd cmd_machine_ls = {
    .name = "machine ls",
    .words = "",
    .hub = true,
    .doc = "List machines.",
    .example = "machine ls",
    .run = ls,
};

static CO int drivers(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "NAME", "name" }, { "AVAILABLE", "available" }, { "REASON", "reason" }, { "~WHAT", "doc" }
    };

    return print_list(cli, "/machines/drivers", "drivers", columns, LEN(columns), e);
}

const struct cli_cmd cmd_machine_drivers = {
    .name = "machine drivers",
    .words = "",
    .hub = true,
    .doc = "What machines can be made of here, and what is missing.",
    .example = "machine drivers",
    .run = drivers,
};

static const struct cli_flag create_flags[] = {
    { "driver", "NAME", "sandbox, qemu or multipass (default: machine.driver of the daemon)" },
    { "type", "TYPE", "a word for people: builder, tester, ..." },
    { "cpus", "N", "cores" },
    { "memory", "SIZE", "for example 4G" },
    { "disk", "SIZE", "for example 20G" },
    { "image", "NAME", "what it starts from" },
    { "capabilities", "A,B", "kept with the agent" },
    { "allow", "A,B", "hosts it may reach besides the hub: host, host:port, *.host" },
    { "env", "K=V,K=V", "variables of its tasks" },
    { "profile", "NAME", "a profile, by name or file" },
    { "hub-url", "URL", "how its agent reaches the hub, instead of the driver's way" },
};

static const char *create_flag(const struct args *args, const char *name)
{
    return args_flag(&cmd_machine_create, args, name);
}

static CO int create(struct cli *cli, const struct args *args, struct err *e)
{
    const struct create_opts o = {
        .name = args->words[0],
        .driver = create_flag(args, "driver"),
        .type = create_flag(args, "type"),
        .cpus = create_flag(args, "cpus"),
        .memory = create_flag(args, "memory"),
        .disk = create_flag(args, "disk"),
        .image = create_flag(args, "image"),
        .capabilities = create_flag(args, "capabilities"),
        .allow = create_flag(args, "allow"),
        .env = create_flag(args, "env"),
        .profile = create_flag(args, "profile"),
        .hub_url = create_flag(args, "hub-url"),
    };

    return machine_create(cli, &o, e);
}

const struct cli_cmd cmd_machine_create = {
    .name = "machine create",
    ONE_MACHINE,
    CLI_FLAGS(create_flags),
    .doc = "Make a machine and wait until its agent is online.",
    .example = "machine create builder-1 --type=builder --cpus=2 --memory=4G",
    .run = create,
};

static CO int show(struct cli *cli, const struct args *args, struct err *e)
{
    const char *key;
    const json_t *value;
    json_t *answer, *machine;
    int r;

    r = api_call(cli, HTTP_M_GET, machine_path(cli, args->words[0], ""), (struct str){ 0 }, &answer,
                 e);
    if (r < 0)
        return r;
    machine = json_object_get(answer, "machine");
    if (cli->json)
        return print_json(machine, e);
    json_object_foreach(machine, key, value)
    {
        if (!json_is_null(value))
            printf("%-13s %s\n", key,
                   json_is_string(value) ? cell(cli, machine, key) : value_text(cli, value));
    }
    return 0;
}

const struct cli_cmd cmd_machine_show = {
    .name = "machine show",
    ONE_MACHINE,
    .doc = "Show a machine.",
    .example = "machine show builder-1",
    .run = show,
};

/* --- lives --- */

static CO int act(struct cli *cli, const char *name, const char *verb, json_t *body,
                  const char *going, const char *done, struct err *e)
{
    AUTO(progress_end) struct progress p = { .cli = cli };
    json_t *machine;
    int r;

    progress_start(&p, cli, "%s: %s", name, going);
    r = machine_do(cli, name, verb, body, &p, &machine, e);
    progress_end(&p);
    if (r < 0)
        return err_wrap(e, "%s", name);
    if (cli->json)
        return print_json(machine, e);
    printf("%s %s\n", done, name);
    return 0;
}

static CO int start(struct cli *cli, const struct args *args, struct err *e)
{
    return act(cli, args->words[0], "/start", NULL, "starting", "started", e);
}

const struct cli_cmd cmd_machine_start = {
    .name = "machine start",
    ONE_MACHINE,
    .doc = "Start a machine and wait until its agent is online.",
    .example = "machine start builder-1",
    .run = start,
};

static const struct cli_flag stop_flags[] = { { "force", NULL, "do not ask it, cut it off" } };

static CO int stop(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *body = json_pack("{s:b}", "force", args_flag(&cmd_machine_stop, args, "force") != NULL);

    return act(cli, args->words[0], "/stop", body, "stopping", "stopped", e);
}

const struct cli_cmd cmd_machine_stop = {
    .name = "machine stop",
    ONE_MACHINE,
    CLI_FLAGS(stop_flags),
    .doc = "Stop a machine; what is on its disk stays.",
    .example = "machine stop builder-1",
    .run = stop,
};

static CO int restart(struct cli *cli, const struct args *args, struct err *e)
{
    return act(cli, args->words[0], "/restart", NULL, "restarting", "restarted", e);
}

const struct cli_cmd cmd_machine_restart = {
    .name = "machine restart",
    ONE_MACHINE,
    .doc = "Stop a machine and start it.",
    .example = "machine restart builder-1",
    .run = restart,
};

static const struct cli_flag destroy_flags[] = { { "force", NULL, "do not ask" } };

static CO int destroy(struct cli *cli, const struct args *args, struct err *e)
{
    return machine_destroy(cli, args->words[0],
                           args_flag(&cmd_machine_destroy, args, "force") != NULL, e);
}

const struct cli_cmd cmd_machine_destroy = {
    .name = "machine destroy",
    ONE_MACHINE,
    CLI_FLAGS(destroy_flags),
    .doc = "Destroy a machine with its disk, its snapshots and its agent.",
    .example = "machine destroy builder-1",
    .run = destroy,
};

/* --- snapshots --- */

static CO int snapshot(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *body = json_object();

    put_text(body, "name", args->words[1]);
    return act(cli, args->words[0], "/snapshots", body, "taking a snapshot",
               arena_printf(&cli->arena, "snapshot %s of", args->words[1]), e);
}

const struct cli_cmd cmd_machine_snapshot = {
    .name = "machine snapshot",
    .words = "<name> <snapshot>",
    .min = 2,
    .max = 2,
    .hub = true,
    .doc = "Keep a machine as it is now, under a name.",
    .example = "machine snapshot builder-1 before",
    .run = snapshot,
};

static CO int snapshots(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "NAME", "name" },
        { "CREATED", "createdAt", .time = true },
        { ">BYTES", "bytes" },
        { "MEMORY", "memory" },
    };

    return print_list(cli, machine_path(cli, args->words[0], "/snapshots"), "snapshots", columns,
                      LEN(columns), e);
}

const struct cli_cmd cmd_machine_snapshots = {
    .name = "machine snapshots",
    ONE_MACHINE,
    .doc = "List the snapshots of a machine.",
    .example = "machine snapshots builder-1",
    .run = snapshots,
};

static CO int forget(struct cli *cli, const struct args *args, struct err *e)
{
    const char *path =
        api_path(cli, machine_path(cli, args->words[0], "/snapshots/"), args->words[1], "");

    return post_and_say(cli, HTTP_M_DELETE, path, NULL, "forgot", args->words[1], e);
}

const struct cli_cmd cmd_machine_forget = {
    .name = "machine forget",
    .words = "<name> <snapshot>",
    .min = 2,
    .max = 2,
    .hub = true,
    .doc = "Delete a snapshot.",
    .example = "machine forget builder-1 before",
    .run = forget,
};

static CO int restore(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *body = json_object();

    put_text(body, "snapshot", args->words[1]);
    return act(cli, args->words[0], "/restore", body, "restoring",
               arena_printf(&cli->arena, "restored %s of", args->words[1]), e);
}

const struct cli_cmd cmd_machine_restore = {
    .name = "machine restore",
    .words = "<name> <snapshot>",
    .min = 2,
    .max = 2,
    .hub = true,
    .doc = "Make a machine what it was; its agent gets a new token.",
    .example = "machine restore builder-1 before",
    .run = restore,
};
