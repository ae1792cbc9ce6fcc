/* SPDX-License-Identifier: MIT */
/*
 * machine/shim_cgroup.c — limits by cgroup v2, only below a group that was delegated to us (systemd
 * marks it: Delegate=yes). Controllers can be given to groups below only while the delegated one
 * holds no process of its own, so what is in it moves to <group>/daemon first.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "machine/shim_int.h"

static int put(const char *dir, const char *file, const char *text)
{
    AUTO(free) char *path = xasprintf("%s/%s", dir, file);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static bool is_delegated(const char *dir)
{
    char value[8];

    return getxattr(dir, "trusted.delegate", value, sizeof(value)) == 1 ||
           getxattr(dir, "user.delegate", value, sizeof(value)) == 1;
}

/* Our own group's path below root, from the line "0::/path". */
static const char *own_group(const char *root, struct arena *a)
{
    AUTO(free) char *line = NULL;
    const char *found = NULL;
    size_t size = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");

    while (f && getline(&line, &size, f) > 0)
        if (strncmp(line, "0::/", 4) == 0)
            found = arena_printf(a, "%s/%.*s", root, (int)strcspn(line + 4, "\n"), line + 4);
    if (f)
        fclose(f);
    return found;
}

/* The nearest delegated group from ours upwards, or NULL. */
static const char *delegated_group(const char *root, struct arena *a)
{
    const char *own = own_group(root, a);
    char *dir = arena_strdup(a, own);
    char *slash;

    while (dir && strlen(dir) > strlen(root)) {
        if (is_delegated(dir))
            return dir;
        slash = strrchr(dir, '/');
        *slash = '\0';
    }
    return NULL;
}

static void move_processes(const char *group, struct arena *a)
{
    const char *to = arena_printf(a, "%s/daemon", group);
    const char *list = arena_printf(a, "%s/cgroup.procs", group);
    AUTO(free) char *line = NULL;
    size_t size = 0;
    FILE *f;

    if (mkdir(to, 0755) < 0 && errno != EEXIST)
        return;
    f = fopen(list, "re");
    while (f && getline(&line, &size, f) > 0)
        (void)put(to, "cgroup.procs", line); /* what has ended meanwhile cannot be moved */
    if (f)
        fclose(f);
}

/* A limit that cannot be set makes the whole group useless: false. */
static bool set_limits(const struct shim_spec *spec, const char *group)
{
    char text[64];

    if (spec->memory_mib > 0) {
        fmt_z(text, sizeof(text), "%lld", (long long)spec->memory_mib * (long long)MIB);
        if (put(group, "memory.max", text) < 0)
            return false;
        (void)put(group, "memory.swap.max", "0"); /* there is none where swap is not accounted */
        (void)put(group, "memory.oom.group", "0");
    }
    if (spec->pids > 0) {
        fmt_z(text, sizeof(text), "%ld", spec->pids);
        if (put(group, "pids.max", text) < 0)
            return false;
    }
    if (spec->cpus > 0) {
        fmt_z(text, sizeof(text), "%ld 100000", spec->cpus * 100000);
        if (put(group, "cpu.max", text) < 0)
            return false;
    }
    return true;
}

const char *shim_cgroup_make(const struct shim_spec *spec, const char *root, struct arena *a)
{
    const char *above = delegated_group(root, a), *group, *name = strrchr(spec->dir, '/');

    if (!above || spec->memory_mib + spec->pids + spec->cpus == 0)
        return "";
    if (put(above, "cgroup.subtree_control", "+memory +pids +cpu") < 0) {
        move_processes(above, a);
        if (put(above, "cgroup.subtree_control", "+memory +pids +cpu") < 0)
            return "";
    }
    group = arena_printf(a, "%s/machine-%s", above, name ? name + 1 : spec->dir);
    if (mkdir(group, 0755) < 0 && errno != EEXIST)
        return "";
    if (set_limits(spec, group))
        return group;
    (void)rmdir(group); /* it stays empty if it stays */
    return "";
}

int shim_cgroup_enter(const char *cgroup)
{
    char path[4096];
    int fd, r;

    if ((size_t)snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup) >= sizeof(path))
        return -1;
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    r = write(fd, "0", 1) == 1 ? 0 : -1;
    close(fd);
    return r;
}

void shim_cgroup_kill(const char *cgroup)
{
    static const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

    if (!*cgroup)
        return;
    (void)put(cgroup, "cgroup.kill", "1"); /* Linux 5.14; the tree is killed besides */
    for (int round = 0; round < 100 && rmdir(cgroup) < 0 && errno == EBUSY; round++)
        (void)nanosleep(&pause, NULL); /* cut short it only tries again sooner */
}
