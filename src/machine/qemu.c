/* SPDX-License-Identifier: MIT */
/* machine/qemu.c — the driver of real virtual machines: one QEMU each, under a shim. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/offload.h"
#include "machine/qemu_int.h"
#include "machine/qmp.h"
#include "machine/shim.h"
#include "machine/tool.h"

#define BUTTON_EVERY_MS 2000
#define FORCE_LEAST_MS  5000 /* of the time of a stop, kept for the hard way */
#define QUIT_GRACE_MS   5000
#define MEMORY_LEAST    128

static CO int probe(const struct machine_host *host, struct err *e)
{
    if (tool_find(host->qemu, "Debian: qemu-system-x86", e) < 0)
        return -(int)e->code;
    return tool_find("qemu-img", "Debian: qemu-utils", e);
}

static int make_dir(const char *path, mode_t mode, struct err *e)
{
    return mkdir(path, mode) < 0 && errno != EEXIST ? err_sys(e, "mkdir '%s'", path) : 0;
}

/* Under another name first: a disk that is there is whole. */
static CO int make_disk(const struct machine_job *job, const struct qemu_image *image,
                        struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *disk = machine_path(job, &a, "disk.qcow2");
    const char *fresh = machine_path(job, &a, "disk.qcow2.new");
    unsigned mib = job->spec->disk_mib ? job->spec->disk_mib : image->disk_mib;
    const char *const argv[] = {
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        image->disk,
        "-F",
        image->format,
        "-o",
        "compat=v3",
        fresh,
        arena_printf(&a, "%uM", mib),
        NULL,
    };
    const struct tool tool = { .argv = argv, .deadline_ms = job->deadline_ms };

    if (mib < image->disk_mib)
        return err_set(e, ERR_INVALID, "the image needs a disk of at least %u MiB",
                       image->disk_mib);
    if (access(disk, F_OK) == 0)
        return 0;
    if (tool_must(&tool, NULL, e) < 0)
        return -(int)e->code;
    return rename(fresh, disk) < 0 ? err_sys(e, "rename '%s'", fresh) : 0;
}

static CO int create(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct qemu_image image;

    if (job->spec->memory_mib && job->spec->memory_mib < MEMORY_LEAST)
        return err_set(e, ERR_INVALID, "a virtual machine needs at least %dM of memory",
                       MEMORY_LEAST);
    if (qemu_image_find(job->host, job->spec->image, &a, &image, e) < 0)
        return -(int)e->code;
    if (job->progress)
        job->progress("making its disk", job->arg);
    if (make_dir(job->host->dir, 0700, e) < 0 ||
        make_dir(machine_path(job, &a, NULL), 0700, e) < 0 ||
        make_dir(machine_path(job, &a, "run"), 0711, e) < 0 ||
        make_dir(machine_path(job, &a, "qmp"), 0700, e) < 0 ||
        qemu_note_write(job, "qemu.json", json_pack("{s:s}", "image", image.path), e) < 0)
        return -(int)e->code;
    if (qemu_write_seed(job, &image, e) < 0)
        return -(int)e->code;
    return make_disk(job, &image, e);
}

static CO int state_of(const struct machine_job *job, struct shim_state *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };

    return shim_look(job->host->loop, machine_path(job, &a, NULL), ret, e);
}

static CO int start(const struct machine_job *job, struct err *e)
{
    struct shim_state state;

    if (state_of(job, &state, e) < 0)
        return -(int)e->code;
    return state.alive ? 0 : qemu_boot(job, NULL, e);
}

/* One word to QEMU; nobody there is as good as done. */
static CO void say(const struct machine_job *job, const char *command, uint64_t deadline_ms)
{
    AUTO(arena_done) struct arena a = { 0 };
    AUTO(qmp_close) struct qmp *q = NULL;
    struct err ignored;

    if (qmp_open(machine_path(job, &a, QEMU_MONITOR), deadline_ms, &q, &ignored) == 0)
        (void)qmp_call(q, command, NULL, &a, deadline_ms, NULL, &ignored);
}

/* Press the power button, again while the guest is not up yet to see it. 1: it has gone. */
static CO int ask_guest(const struct machine_job *job, const char *dir, struct err *e)
{
    uint64_t until = job->deadline_ms, now = now_ms(), slice;
    struct shim_state state;
    int r = 0;

    until = until > now + FORCE_LEAST_MS ? until - FORCE_LEAST_MS : now;
    while (r == 0 && now_ms() < until) {
        slice = deadline_min(until, deadline_in(BUTTON_EVERY_MS));
        say(job, "system_powerdown", slice);
        r = shim_wait(job->host->loop, dir, slice, &state, e);
        if (r == -ERR_TIMEOUT)
            r = 0;
        else if (r == 0)
            r = 1;
    }
    return r;
}

static CO int stop(const struct machine_job *job, bool force, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *dir = machine_path(job, &a, NULL);
    struct shim_state state;
    int r = 0;

    if (state_of(job, &state, e) < 0)
        return -(int)e->code;
    if (state.alive && !force)
        r = ask_guest(job, dir, e);
    if (r < 0)
        return r;
    if (state.alive && r == 0)
        say(job, "quit", deadline_min(job->deadline_ms, deadline_in(QUIT_GRACE_MS)));
    return shim_stop(job->host->loop, dir, QUIT_GRACE_MS, job->deadline_ms, e);
}

static int remove_tree(void *arg, struct err *e)
{
    const char *dir = arg;
    struct dirent *entry;
    DIR *d = opendir(dir);
    int r = 0;

    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, "open '%s'", dir);
    while (r == 0 && (entry = readdir(d))) {
        AUTO(free) char *path = xasprintf("%s/%s", dir, entry->d_name);

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (entry->d_type == DT_DIR)
            r = remove_tree(path, e);
        else if (unlink(path) < 0 && errno != ENOENT)
            r = err_sys(e, "remove '%s'", path);
    }
    closedir(d);
    if (r == 0 && rmdir(dir) < 0 && errno != ENOENT)
        r = err_sys(e, "remove '%s'", dir);
    return r;
}

static CO int destroy(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *dir = machine_path(job, &a, NULL);

    if (access(dir, F_OK) < 0)
        return 0;
    if (stop(job, true, e) < 0)
        return -(int)e->code;
    return offload(remove_tree, (void *)(uintptr_t)dir, e);
}

/* How it ended, from the shim's word. */
static const char *reason_of(const struct shim_state *state, struct arena *a)
{
    if (state->alive || !state->ended_at)
        return NULL;
    if (state->status == -1)
        return "it ended with the host";
    if (WIFEXITED(state->status) && WEXITSTATUS(state->status) == 0)
        return "the guest has powered off";
    if (WIFEXITED(state->status))
        return arena_printf(a, "QEMU ended with status %d", WEXITSTATUS(state->status));
    return arena_printf(a, "QEMU was ended by signal %d", WTERMSIG(state->status));
}

static CO int look(const struct machine_job *job, struct arena *a, struct machine_look *ret,
                   struct err *e)
{
    struct shim_state state;
    struct err ignored;
    json_t *note;

    *ret = (struct machine_look){ .cpu = -1, .memory = -1 };
    if (access(machine_path(job, a, "qemu.json"), F_OK) < 0)
        return 0;
    if (state_of(job, &state, e) < 0)
        return -(int)e->code;
    ret->power = state.alive ? MACHINE_ON : MACHINE_OFF;
    ret->reason = reason_of(&state, a);
    if (!state.alive)
        return 0;
    ret->started_at = state.started_at;
    ret->cpu = state.cpu_seconds;
    ret->memory = state.memory;
    fmt_z(ret->address, sizeof(ret->address), "10.0.2.15");
    if (qemu_note_read(job, "now.json", a, &note, &ignored) == 0)
        snprintf(ret->accel, sizeof(ret->accel), STR_FMT, STR_ARG(json_member_str(note, "accel")));
    return qemu_link_hub(job, e);
}

static CO int watch(const struct machine_job *job, struct arena *a, const char **reason,
                    struct err *e)
{
    struct shim_state state;

    if (shim_wait(job->host->loop, machine_path(job, a, NULL), job->deadline_ms, &state, e) < 0)
        return -(int)e->code;
    *reason = reason_of(&state, a);
    return 0;
}

static CO int logs(const struct machine_job *job, size_t max, struct buf *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };

    return shim_log(machine_path(job, &a, NULL), max, ret, e);
}

static CO int list(const struct machine_host *host, struct arena *a, const char ***ret,
                   size_t *ret_n, struct err *e)
{
    return machine_list_by_file(host, "qemu.json", a, ret, ret_n, e);
}

const struct machine_driver machine_qemu = {
    .name = "qemu",
    .doc = "Virtual machines by QEMU, with KVM where it works.",
    .probe = probe,
    .create = create,
    .start = start,
    .stop = stop,
    .destroy = destroy,
    .snapshot = qemu_snapshot,
    .restore = qemu_restore,
    .drop_snapshot = qemu_drop_snapshot,
    .snapshots = qemu_snapshots,
    .look = look,
    .watch = watch,
    .logs = logs,
    .list = list,
};
