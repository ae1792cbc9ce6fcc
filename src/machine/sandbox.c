/* SPDX-License-Identifier: MIT */
/*
 * machine/sandbox.c — machines that are a namespace of this host: bubblewrap under a shim, with a
 * user, a disk and a filter of their own. See sandbox_int.h for what lies where.
 *
 * Snapshots are taken of a sandbox that is off: a copy of a disk in use would be no disk.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "machine/sandbox_int.h"
#include "machine/shim.h"
#include "machine/tool.h"

#define STOP_GRACE_MS 10000
#define MEASURE_MS    5000 /* between looks at a tree's size */

static void progress(const struct machine_job *job, const char *text)
{
    if (job->progress)
        job->progress(text, job->arg);
}

/* --- can it work here --- */

static CO int probe(const struct machine_host *host, struct err *e)
{
    const char *const argv[] = { host->bwrap,
                                 "--unshare-user",
                                 "--unshare-pid",
                                 "--unshare-net",
                                 "--ro-bind",
                                 "/",
                                 "/",
                                 "--proc",
                                 "/proc",
                                 "--",
                                 "/bin/true",
                                 NULL };
    int r = sandbox_tool(argv, deadline_in(5000), e);

    if (r == -ERR_NOT_FOUND)
        return err_set(e, ERR_UNAVAILABLE,
                       "bubblewrap is not installed (apt-get install bubblewrap)");
    if (r < 0)
        return err_set(e, ERR_UNAVAILABLE,
                       "bubblewrap cannot make namespaces here (are unprivileged user namespaces "
                       "allowed?): %.120s",
                       e->msg);
    if (access(host->agent, X_OK) < 0)
        return err_set(e, ERR_UNAVAILABLE, "there is no '%s'", host->agent);
    return 0;
}

/* --- create, start, stop, destroy --- */

static CO int create(const struct machine_job *job, struct err *e)
{
    struct arena a = { 0 };
    const char *gone = arena_printf(&a, "%s/.%s.gone", job->host->dir, job->spec->name);
    struct sandbox s;
    int r;

    if (job->spec->image && *job->spec->image)
        return err_set(e, ERR_INVALID,
                       "a sandbox has no image: it shows the programs of this host (image '%.60s')",
                       job->spec->image);
    progress(job, "making the sandbox");
    r = tool_remove(gone, job->deadline_ms, e);
    if (r == 0 && mkdir(job->host->dir, 0700) < 0 && errno != EEXIST)
        r = err_sys(e, "make '%s'", job->host->dir);
    if (r == 0)
        r = sandbox_make(job, &a, &s, e);
    if (r == 0)
        r = sandbox_disk_make(job, &s, &a, e);
    arena_done(&a);
    return r;
}

static CO int start_in(const struct machine_job *job, struct arena *a, struct err *e)
{
    struct shim_state state;
    struct shim_spec order;
    struct sandbox s;
    int r;

    r = sandbox_load(job, a, &s, e);
    if (r == 0)
        r = sandbox_link_hub(job, a, e);
    if (r == 0)
        r = shim_look(job->host->loop, machine_path(job, a, NULL), &state, e);
    if (r < 0 || state.alive)
        return r;
    if (job->spec->token)
        r = sandbox_config_write(job, &s, a, e);
    if (r == 0)
        r = sandbox_disk_settle(job, a, e);
    if (r < 0)
        return r;
    sandbox_order(job, &s, a, &order);
    r = shim_start(job->host->loop, job->host->program, &order, job->deadline_ms, e);
    return r == -ERR_CONFLICT ? 0 : r;
}

static CO int start(const struct machine_job *job, struct err *e)
{
    struct arena a = { 0 };
    int r;

    progress(job, "starting");
    r = start_in(job, &a, e);
    arena_done(&a);
    return r;
}

static CO int stop(const struct machine_job *job, bool force, struct err *e)
{
    struct arena a = { 0 };
    int r;

    progress(job, "stopping");
    r = shim_stop(job->host->loop, machine_path(job, &a, NULL), force ? 0 : STOP_GRACE_MS,
                  job->deadline_ms, e);
    if (r == 0)
        r = sandbox_disk_settle(job, &a, e);
    arena_done(&a);
    return r;
}

/* Renamed first: what is half removed is no sandbox any more, and its name is free. */
static CO int destroy(const struct machine_job *job, struct err *e)
{
    struct arena a = { 0 };
    const char *dir = machine_path(job, &a, NULL);
    const char *gone = arena_printf(&a, "%s/.%s.gone", job->host->dir, job->spec->name);
    int r;

    progress(job, "destroying");
    r = stop(job, true, e);
    if (r == 0)
        r = tool_remove(gone, job->deadline_ms, e);
    if (r == 0 && rename(dir, gone) < 0 && errno != ENOENT)
        r = err_sys(e, "rename '%s'", dir);
    if (r == 0)
        r = tool_remove(gone, job->deadline_ms, e);
    arena_done(&a);
    return r;
}

/* --- looking --- */

static const char *reason_of(const struct shim_state *s, struct arena *a)
{
    if (s->status == -1)
        return s->started_at || s->ended_at ? "how it ended is not known" : NULL;
    if (WIFSIGNALED(s->status))
        return arena_printf(a, "killed by signal %d", WTERMSIG(s->status));
    return arena_printf(a, "its agent ended with exit code %d", WEXITSTATUS(s->status));
}

static CO int look(const struct machine_job *job, struct arena *a, struct machine_look *ret,
                   struct err *e)
{
    struct shim_state state;
    struct sandbox s;
    int r;

    *ret = (struct machine_look){ .power = MACHINE_ABSENT, .cpu = -1, .memory = -1 };
    r = sandbox_load(job, a, &s, e);
    if (r < 0)
        return r == -ERR_NOT_FOUND ? 0 : r;
    r = shim_look(job->host->loop, machine_path(job, a, NULL), &state, e);
    if (r < 0)
        return r;
    ret->power = state.alive ? MACHINE_ON : MACHINE_OFF;
    ret->started_at = state.started_at;
    ret->cpu = state.cpu_seconds;
    ret->memory = state.memory;
    if (!state.alive)
        ret->reason = reason_of(&state, a);
    return state.alive ? sandbox_link_hub(job, a, e) : 0;
}

/* A tree that has outgrown its limit stops the sandbox. */
static CO int watch_in(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                       const char **reason, struct err *e)
{
    const char *dir = machine_path(job, a, NULL);
    bool measured = !s->image;
    struct shim_state state;
    long long over;
    int r;

    for (;;) {
        r = shim_wait(job->host->loop, dir, measured ? deadline_in(MEASURE_MS) : DEADLINE_NONE,
                      &state, e);
        if (r == 0)
            *reason = reason_of(&state, a);
        if (r != -ERR_TIMEOUT)
            return r;
        r = sandbox_disk_over(job, s, &over, e);
        if (r < 0)
            return r;
        if (over == 0)
            continue;
        *reason = arena_printf(a, "%lld MiB on a disk of %u: it was stopped", over / (long long)MIB,
                               job->spec->disk_mib);
        return shim_stop(job->host->loop, dir, 0, deadline_in(STOP_GRACE_MS), e);
    }
}

static CO int watch(const struct machine_job *job, struct arena *a, const char **reason,
                    struct err *e)
{
    struct sandbox s;
    int r;

    r = sandbox_load(job, a, &s, e);
    if (r == 0)
        r = sandbox_link_hub(job, a, e);
    return r == 0 ? watch_in(job, &s, a, reason, e) : r;
}

static CO int logs(const struct machine_job *job, size_t max, struct buf *ret, struct err *e)
{
    struct arena a = { 0 };
    int r = shim_log(machine_path(job, &a, NULL), max, ret, e);

    arena_done(&a);
    return r;
}

static CO int list(const struct machine_host *host, struct arena *a, const char ***ret,
                   size_t *ret_n, struct err *e)
{
    struct dirent **entries = NULL;
    int found = scandir(host->dir, &entries, NULL, alphasort);
    const char **names = arena_alloc(a, (size_t)(found > 0 ? found : 1) * sizeof(*names));
    size_t n = 0;

    for (int i = 0; i < found; i++) {
        const char *name = entries[i]->d_name;

        if (name[0] != '.' &&
            access(arena_printf(a, "%s/%s/sandbox.json", host->dir, name), F_OK) == 0)
            names[n++] = arena_strdup(a, name);
        free(entries[i]);
    }
    free(entries);
    if (found < 0 && errno != ENOENT)
        return err_sys(e, "read '%s'", host->dir);
    *ret = names;
    *ret_n = n;
    return 0;
}

const struct machine_driver machine_sandbox = {
    .name = "sandbox",
    .doc = "A sandbox on this host: bubblewrap, a user and a disk of its own, no network but the "
           "hub and what is allowed; ready in a moment.",
    .needs_stop = true,
    .probe = probe,
    .create = create,
    .start = start,
    .stop = stop,
    .destroy = destroy,
    .snapshot = sandbox_snapshot,
    .restore = sandbox_restore,
    .drop_snapshot = sandbox_drop_snapshot,
    .snapshots = sandbox_snapshots,
    .look = look,
    .watch = watch,
    .logs = logs,
    .list = list,
};
