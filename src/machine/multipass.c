/* SPDX-License-Identifier: MIT */
/*
 * machine/multipass.c — the original's machines: Canonical's Multipass, by its command. What it
 * knows is in its own daemon; a directory of ours (with multipass.json) says only which instances
 * are.
 *
 * Snapshots want an instance that is stopped (needs_stop), going back to one leaves it stopped.
 * The way to the hub is the guest's default gateway unless the machine has an address of its own
 * for it. A guest may reach whatever Multipass lets it: no allow-list is enforced here.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/multipass_int.h"
#include "machine/qemu_int.h"
#include "machine/shim_int.h"

#define NOTE           "multipass.json"
#define IMAGE_DEFAULT  "22.04"
#define CPUS_DEFAULT   2
#define MEMORY_DEFAULT 4096
#define DISK_DEFAULT   20480
#define INFO_MS        60000
#define WAIT_LEAST_S   10

static CO int probe(const struct machine_host *host, struct err *e)
{
    return tool_find(host->multipass, "https://multipass.run", e);
}

/* What is there of the instance's disk and processors. */
static CO int launch(const struct machine_job *job, const char *cloud_init, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const struct machine_spec *spec = job->spec;
    uint64_t now = now_ms(), left = job->deadline_ms > now ? (job->deadline_ms - now) / 1000 : 0;
    const char *const args[] = {
        "launch",
        "--name",
        spec->name,
        "--cpus",
        arena_printf(&a, "%u", spec->cpus ? spec->cpus : CPUS_DEFAULT),
        "--memory",
        arena_printf(&a, "%uM", spec->memory_mib ? spec->memory_mib : MEMORY_DEFAULT),
        "--disk",
        arena_printf(&a, "%uM", spec->disk_mib ? spec->disk_mib : DISK_DEFAULT),
        "--timeout",
        arena_printf(&a, "%llu", (unsigned long long)(left > WAIT_LEAST_S ? left : WAIT_LEAST_S)),
        "--cloud-init",
        cloud_init,
        spec->image && spec->image[0] ? spec->image : IMAGE_DEFAULT,
        NULL,
    };

    if (job->progress)
        job->progress("launching", job->arg);
    return multipass_do(job, args, (struct str){ NULL, 0 }, NULL, e);
}

static int make_dir(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const dirs[] = { job->host->dir, machine_path(job, &a, NULL),
                                 machine_path(job, &a, "run") };

    for (size_t i = 0; i < LEN(dirs); i++)
        if (mkdir(dirs[i], 0700) < 0 && errno != EEXIST)
            return err_sys(e, "mkdir '%s'", dirs[i]);
    return 0;
}

static CO int create(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct multipass_info info;
    struct str data;

    if (multipass_info(job, &a, &info, e) < 0)
        return -(int)e->code;
    if (info.exists && access(machine_path(job, &a, NOTE), F_OK) < 0)
        return err_set(e, ERR_CONFLICT, "an instance '%s' exists that is not ours",
                       job->spec->name);
    if (make_dir(job, e) < 0 ||
        shim_file_write(machine_path(job, &a, NULL), NOTE, STR("{}"), true, e) < 0)
        return -(int)e->code;
    if (!info.exists) {
        data = multipass_user_data(&a);
        if (shim_file_write(machine_path(job, &a, NULL), "cloud-init.yaml", data, false, e) < 0 ||
            launch(job, machine_path(job, &a, "cloud-init.yaml"), e) < 0)
            return -(int)e->code;
    }
    if (!job->spec->token)
        return 0;
    return multipass_provision(job, e);
}

static CO int start(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const args[] = { "start", job->spec->name, NULL };
    struct multipass_info info;

    if (multipass_info(job, &a, &info, e) < 0)
        return -(int)e->code;
    if (!info.exists)
        return err_set(e, ERR_NOT_FOUND, "there is no instance '%s'", job->spec->name);
    if (!info.running && multipass_do(job, args, (struct str){ NULL, 0 }, NULL, e) < 0)
        return -(int)e->code;
    return job->spec->token ? multipass_provision(job, e) : 0;
}

static CO int stop(const struct machine_job *job, bool force, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const args[] = { "stop", job->spec->name, NULL };
    const char *const forced[] = { "stop", "--force", job->spec->name, NULL };
    struct multipass_info info;

    if (multipass_info(job, &a, &info, e) < 0)
        return -(int)e->code;
    if (!info.running)
        return 0;
    return multipass_do(job, force ? forced : args, (struct str){ NULL, 0 }, NULL, e);
}

static CO int destroy(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const args[] = { "delete", "--purge", job->spec->name, NULL };
    static const char *const files[] = { "cloud-init.yaml", NOTE };
    struct multipass_info info;

    if (access(machine_path(job, &a, NOTE), F_OK) < 0)
        return 0; /* not ours, whatever its name */
    if (multipass_info(job, &a, &info, e) < 0)
        return -(int)e->code;
    if (info.exists && multipass_do(job, args, (struct str){ NULL, 0 }, NULL, e) < 0)
        return -(int)e->code;
    unlink(machine_path(job, &a, "run/egress.sock"));
    rmdir(machine_path(job, &a, "run"));
    for (size_t i = 0; i < LEN(files); i++)
        unlink(machine_path(job, &a, files[i]));
    return rmdir(machine_path(job, &a, NULL)) < 0 && errno != ENOENT
               ? err_sys(e, "remove '%s'", machine_path(job, &a, NULL))
               : 0;
}

/* NAME.SNAPSHOT, as its commands want it. */
static const char *dotted(const struct machine_job *job, const char *snapshot, struct arena *a)
{
    return arena_printf(a, "%s.%s", job->spec->name, snapshot);
}

static CO int snapshot(const struct machine_job *job, const char *name, struct err *e)
{
    const char *const args[] = { "snapshot", job->spec->name, "--name", name, NULL };

    if (qemu_snapshot_name_check(name, e) < 0)
        return -(int)e->code;
    return multipass_do(job, args, (struct str){ NULL, 0 }, NULL, e);
}

static CO int snapshots(const struct machine_job *job, struct arena *a,
                        struct machine_snapshot **ret, size_t *ret_n, struct err *e)
{
    const char *const args[] = { "list", "--snapshots", "--format", "json", NULL };
    AUTO(buf_done) struct buf out = { 0 };

    buf_init(&out, TOOL_OUTPUT_MAX);
    if (multipass_do(job, args, (struct str){ NULL, 0 }, &out, e) < 0)
        return -(int)e->code;
    return multipass_snapshots_parse(buf_str(&out), job->spec->name, a, ret, ret_n, e);
}

static CO int restore(const struct machine_job *job, const char *name, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const args[] = { "restore", "--destructive", dotted(job, name, &a), NULL };
    struct machine_snapshot *list;
    size_t n, i = 0;

    if (snapshots(job, &a, &list, &n, e) < 0)
        return -(int)e->code;
    while (i < n && strcmp(list[i].name, name) != 0)
        i++;
    if (i == n)
        return err_set(e, ERR_NOT_FOUND, "no snapshot '%s'", name);
    if (stop(job, false, e) < 0)
        return -(int)e->code;
    if (multipass_do(job, args, (struct str){ NULL, 0 }, NULL, e) < 0)
        return -(int)e->code;
    /* It holds a token that is none any more; the new one gets in only while it runs. */
    if (!job->spec->token)
        return 0;
    return start(job, e) < 0 ? -(int)e->code : stop(job, false, e);
}

static CO int drop_snapshot(const struct machine_job *job, const char *name, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const args[] = { "delete", "--purge", dotted(job, name, &a), NULL };
    struct machine_snapshot *list;
    size_t n;

    if (snapshots(job, &a, &list, &n, e) < 0)
        return -(int)e->code;
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return multipass_do(job, args, (struct str){ NULL, 0 }, NULL, e);
    return 0;
}

static CO int look(const struct machine_job *job, struct arena *a, struct machine_look *ret,
                   struct err *e)
{
    struct machine_job soon = *job;
    struct multipass_info info;

    *ret = (struct machine_look){ .cpu = -1, .memory = -1 };
    if (access(machine_path(job, a, NOTE), F_OK) < 0)
        return 0;
    soon.deadline_ms = deadline_min(job->deadline_ms, deadline_in(INFO_MS));
    if (multipass_info(&soon, a, &info, e) < 0)
        return -(int)e->code;
    if (!info.exists)
        return 0;
    ret->power = info.running ? MACHINE_ON : MACHINE_OFF;
    ret->reason = info.running ? NULL : arena_printf(a, "Multipass says: %s", info.state);
    ret->memory = info.memory;
    fmt_z(ret->address, sizeof(ret->address), "%.40s", info.address);
    return 0;
}

static CO int logs(const struct machine_job *job, size_t max, struct buf *ret, struct err *e)
{
    const char *const args[] = { "exec", job->spec->name, "--", "sudo", "journalctl",
                                 "-u",   "vm-agent",      "-n", "1000", "--no-pager",
                                 NULL };
    AUTO(buf_done) struct buf out = { 0 };
    struct str text;

    buf_init(&out, TOOL_OUTPUT_MAX);
    if (multipass_do(job, args, (struct str){ NULL, 0 }, &out, e) < 0)
        return -(int)e->code;
    text = buf_str(&out);
    if (text.n > max)
        text = (struct str){ text.p + text.n - max, max };
    return buf_add_str(ret, text, e);
}

static CO int list(const struct machine_host *host, struct arena *a, const char ***ret,
                   size_t *ret_n, struct err *e)
{
    return machine_list_by_file(host, NOTE, a, ret, ret_n, e);
}

static const char **exec_argv(const struct machine_job *job, struct arena *a, bool terminal)
{
    const char **argv = arena_alloc(a, 5 * sizeof(*argv));

    argv[0] = arena_strdup(a, job->host->multipass);
    argv[1] = "exec"; /* which has a terminal where its caller has one */
    argv[2] = arena_strdup(a, job->spec->name);
    argv[3] = "--";
    return argv;
}

const struct machine_driver machine_multipass = {
    .name = "multipass",
    .doc = "Canonical's Multipass, as the original had it.",
    .needs_stop = true,
    .probe = probe,
    .create = create,
    .start = start,
    .stop = stop,
    .destroy = destroy,
    .snapshot = snapshot,
    .restore = restore,
    .drop_snapshot = drop_snapshot,
    .snapshots = snapshots,
    .look = look,
    .logs = logs,
    .list = list,
    .exec_argv = exec_argv,
};
