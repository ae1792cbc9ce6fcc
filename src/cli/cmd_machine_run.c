/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_machine_run.c — chela machine exec|shell|logs|cp|apply, chela profile …: being inside a
 * machine.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/hub.h"

static const struct cli_flag exec_flags[] = {
    { "sudo", NULL, "as root, where the agent may" },
    { "timeout", "TIME", "end it after so long, for example 10m; status 124" },
    { "cwd", "DIR", "where it runs" },
};

static CO int exec(struct cli *cli, const struct args *args, struct err *e)
{
    const char *timeout = args_flag(&cmd_machine_exec, args, "timeout");
    struct exec_opts o = {
        .name = args->words[0],
        .words = args->words + 1,
        .n_words = args->n_words - 1,
        .sudo = args_flag(&cmd_machine_exec, args, "sudo") != NULL,
        .input = true,
        .cwd = args_flag(&cmd_machine_exec, args, "cwd"),
    };

    if (timeout && duration_parse(str_of(timeout), &o.timeout_ms, e) < 0)
        return err_wrap(e, "--timeout");
    return machine_exec(cli, &o, e);
}

const struct cli_cmd cmd_machine_exec = {
    .name = "machine exec",
    .words = "<name> <command>...",
    .min = 2,
    .max = SIZE_MAX,
    .rest = 1,
    .hub = true,
    CLI_FLAGS(exec_flags),
    .doc = "Run a command in a machine: its output as it comes, its exit status.",
    .example = "machine exec builder-1 ls -la /work",
    .run = exec,
};

static CO int shell(struct cli *cli, const struct args *args, struct err *e)
{
    const char *command =
        args->n_words > 1 ? join_words(cli, args->words + 1, args->n_words - 1) : NULL;

    return machine_shell(cli, args->words[0], command, e);
}

const struct cli_cmd cmd_machine_shell = {
    .name = "machine shell",
    .words = "<name> [command...]",
    .min = 1,
    .max = SIZE_MAX,
    .rest = 1,
    .hub = true,
    .doc = "Open a terminal in a machine.",
    .example = "machine shell builder-1",
    .run = shell,
};

static const struct cli_flag logs_flags[] = {
    { "follow", NULL, "go on as more comes" },
    { "lines", "N", "the newest so many (default 100)" },
};

static CO int logs(struct cli *cli, const struct args *args, struct err *e)
{
    const char *lines = args_flag(&cmd_machine_logs, args, "lines");

    return machine_logs(cli, args->words[0], lines ? lines : "100",
                        args_flag(&cmd_machine_logs, args, "follow") != NULL, e);
}

const struct cli_cmd cmd_machine_logs = {
    .name = "machine logs",
    .words = "<name>",
    .min = 1,
    .max = 1,
    .hub = true,
    CLI_FLAGS(logs_flags),
    .doc = "What a machine and its agent have printed.",
    .example = "machine logs builder-1 --lines=20",
    .run = logs,
};

static CO int cp(struct cli *cli, const struct args *args, struct err *e)
{
    return machine_copy(cli, args->words[0], args->words[1], e);
}

const struct cli_cmd cmd_machine_cp = {
    .name = "machine cp",
    .words = "<from> <to>",
    .min = 2,
    .max = 2,
    .hub = true,
    .doc = "Copy a file or a directory; NAME:PATH is in a machine. Checksums are compared.",
    .example = "machine cp README.md builder-1:/work/",
    .run = cp,
};

static CO int apply(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *profile;
    size_t failed = 0;
    int r = profile_load(cli, args->words[1], &profile, e);

    if (r == 0 && json_object_size(json_object_get(profile, "environment")))
        fprintf(stderr, "the profile's environment is given to a machine when it is made\n");
    if (r == 0)
        r = profile_apply(cli, args->words[0], profile, &failed, e);
    if (r == 0 && failed)
        return err_set(e, ERR_INTERNAL, "%zu steps failed", failed);
    if (r == 0)
        printf("applied %s to %s\n", args->words[1], args->words[0]);
    return r;
}

const struct cli_cmd cmd_machine_apply = {
    .name = "machine apply",
    .words = "<name> <profile>",
    .min = 2,
    .max = 2,
    .hub = true,
    .doc = "Give a machine that runs what a profile lists.",
    .example = "machine apply builder-1 tester",
    .run = apply,
};

/* --- profiles: files of this user, no daemon needed --- */

static int profiles(struct cli *cli, const struct args *args, struct err *e)
{
    return profile_list(cli, e);
}

const struct cli_cmd cmd_profile_ls = {
    .name = "profile ls",
    .words = "",
    .doc = "List profiles of machines.",
    .example = "profile ls",
    .run = profiles,
};

static int show(struct cli *cli, const struct args *args, struct err *e)
{
    return profile_show(cli, args->words[0], e);
}

const struct cli_cmd cmd_profile_show = {
    .name = "profile show",
    .words = "<profile>",
    .min = 1,
    .max = 1,
    .doc = "Show a profile.",
    .example = "profile show builder",
    .run = show,
};

static const struct cli_flag create_flags[] = {
    { "from-file", "FILE", "begin with this JSON" },
    { "description", "TEXT", "one line" },
    { "cpu", "N", "cores (default 2)" },
    { "memory", "SIZE", "default 4G" },
    { "disk", "SIZE", "default 20G" },
    { "force", NULL, "replace one of that name" },
};

static int create(struct cli *cli, const struct args *args, struct err *e)
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

const struct cli_cmd cmd_profile_create = {
    .name = "profile create",
    .words = "<profile>",
    .min = 1,
    .max = 1,
    CLI_FLAGS(create_flags),
    .doc = "Make a profile of your own.",
    .example = "profile create mine --cpu=4 --memory=8G",
    .run = create,
};

static int rm(struct cli *cli, const struct args *args, struct err *e)
{
    return profile_delete(cli, args->words[0], true, e);
}

const struct cli_cmd cmd_profile_rm = {
    .name = "profile rm",
    .words = "<profile>",
    .min = 1,
    .max = 1,
    .doc = "Delete a profile of your own.",
    .example = "profile rm mine",
    .run = rm,
};
