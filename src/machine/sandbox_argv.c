/* SPDX-License-Identifier: MIT */
/*
 * machine/sandbox_argv.c — the command that is a sandbox: bubblewrap's words. What is not named
 * here is not there. The order counts: later mounts lie on top of earlier ones.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/sandbox_int.h"
#include "machine/shim.h"

#define WORDS_MAX 256

enum { S_DISK, S_ETC, S_RUN, S_AGENT, S_N };

struct words {
    const char **v;
    size_t n;
    struct arena *a;
};

static void add(struct words *w, const char *const *words)
{
    for (; *words && w->n + 1 < WORDS_MAX; words++)
        w->v[w->n++] = *words;
}

#define ADD(w, ...) add(w, (const char *const[]){ __VA_ARGS__, NULL })

/* /bin, /lib and their like: links into /usr, or directories of their own. */
static void add_system(struct words *w)
{
    static const char *const tops[] = { "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32" };

    ADD(w, "--ro-bind", "/usr", "/usr");
    for (size_t i = 0; i < LEN(tops); i++) {
        char target[256];
        struct stat st;
        ssize_t n;

        if (lstat(tops[i], &st) < 0)
            continue;
        n = S_ISLNK(st.st_mode) ? readlink(tops[i], target, sizeof(target) - 1) : 0;
        if (n > 0)
            ADD(w, "--symlink", arena_strndup(w->a, target, (size_t)n), tops[i]);
        else
            ADD(w, "--ro-bind", tops[i], tops[i]);
    }
}

/* Of the host's /etc only what programs need to run, and nothing that says who the host is. */
static void add_etc(struct words *w, const char *etc)
{
    static const char *const of_host[] = {
        "/etc/alternatives", "/etc/ld.so.cache",     "/etc/ld.so.conf", "/etc/ld.so.conf.d",
        "/etc/ssl/certs",    "/etc/ssl/openssl.cnf", "/etc/localtime",  "/etc/mime.types",
        "/etc/services",     "/etc/protocols",
    };
    static const char *const ours[] = { "passwd",   "group",         "hosts",   "resolv.conf",
                                        "hostname", "nsswitch.conf", "vm-agent" };

    for (size_t i = 0; i < LEN(of_host); i++)
        ADD(w, "--ro-bind-try", of_host[i], of_host[i]);
    for (size_t i = 0; i < LEN(ours); i++)
        ADD(w, "--ro-bind", arena_printf(w->a, "%s/%s", etc, ours[i]),
            arena_printf(w->a, "/etc/%s", ours[i]));
}

static void add_disk(struct words *w, const char *disk)
{
    static const char *const parts[][2] = {
        { "home", "/home/agent" }, { "work", "/work" }, { "tmp", "/tmp" }, { "var", "/var" }
    };

    for (size_t i = 0; i < LEN(parts); i++)
        ADD(w, "--bind", arena_printf(w->a, "%s/%s", disk, parts[i][0]), parts[i][1]);
    ADD(w, "--dir", "/var/tmp");
}

static void add_all(struct words *w, const struct machine_job *job, const char *const *at)
{
    ADD(w, job->host->bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--unshare-ipc", "--unshare-cgroup-try", "--disable-userns", "--die-with-parent",
        "--new-session", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname",
        job->spec->name, "--seccomp", "3", "--clearenv");
    ADD(w, "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--setenv", "HOME", "/home/agent",
        "--setenv", "USER", "agent", "--setenv", "LOGNAME", "agent", "--setenv", "SHELL", "/bin/sh",
        "--setenv", "LANG", "C.UTF-8");
    add_system(w);
    ADD(w, "--perms", "0755", "--dir", "/home", "--perms", "0755", "--dir", "/run");
    add_etc(w, at[S_ETC]);
    add_disk(w, at[S_DISK]);
    ADD(w, "--ro-bind", at[S_RUN], "/run/chela", "--ro-bind", at[S_AGENT], "/run/chela-agent");
    ADD(w, "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", SANDBOX_SHM, "--tmpfs",
        "/dev/shm", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/work", "--",
        "/run/chela-agent");
}

/* The one without libraries starts in a fifth of the time and needs a quarter of the memory; what
 * it lacks, TLS, is not needed here. */
static const char *agent_program(const struct machine_host *host, struct arena *a)
{
    const char *alone = arena_printf(a, "%s-static", host->agent);

    return access(alone, X_OK) == 0 ? alone : host->agent;
}

void sandbox_order(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                   struct shim_spec *ret)
{
    static const char *const env[] = { "PATH=/usr/local/bin:/usr/bin:/bin", NULL };
    const char **staging = arena_alloc(a, (S_N + 1) * sizeof(*staging));
    const char **files = arena_alloc(a, 2 * sizeof(*files));
    const char **at = arena_alloc(a, S_N * sizeof(*at));
    struct words w = { .v = arena_alloc(a, WORDS_MAX * sizeof(*w.v)), .a = a };

    staging[S_DISK] = machine_path(job, a, s->image ? "disk" SHIM_IMAGE : "tree");
    staging[S_ETC] = machine_path(job, a, "etc");
    staging[S_RUN] = machine_path(job, a, "run");
    staging[S_AGENT] = agent_program(job->host, a);
    files[0] = machine_path(job, a, "seccomp.bpf");
    for (int i = 0; i < S_N; i++)
        at[i] = s->uid ? arena_printf(a, SHIM_STAGING "/%d", i) : staging[i];
    add_all(&w, job, at);
    *ret = (struct shim_spec){
        .dir = machine_path(job, a, NULL),
        .argv = w.v,
        .env = env,
        .cwd = "/",
        .memory_mib = job->spec->memory_mib ? job->spec->memory_mib : SANDBOX_MEMORY_MIB,
        .pids = SANDBOX_PIDS,
        .cpus = job->spec->cpus,
        .uid = s->uid,
        .files = files,
        .staging = s->uid ? staging : NULL,
        .stop_depth = 2,
    };
}
