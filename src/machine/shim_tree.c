/* SPDX-License-Identifier: MIT */
/*
 * machine/shim_tree.c — the processes below the shim, read from /proc. The lists are snapshots: a
 * process may have gone meanwhile, so whoever is signalled is one that was read a moment before,
 * inside our own tree.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "machine/shim_int.h"

#define KILL_ROUNDS 200 /* of 10 ms */
/* Of a list of children. Who has more of them than fit is looked at without the rest. */
#define LIST_MAX ((size_t)SHIM_TREE_MAX * 12)

struct tree {
    pid_t pids[SHIM_TREE_MAX];
    unsigned char depth[SHIM_TREE_MAX];
    size_t n;
};

static bool slurp(const char *path, char *out, size_t size)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t got = 0;

    while (fd >= 0 && n + 1 < size && (got = read(fd, out + n, size - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    return fd >= 0 && got >= 0;
}

/* A number that no blank follows was cut off in its middle: it is another process's, not ours. */
static void add_list(struct tree *t, const char *list, unsigned depth)
{
    while (t->n < SHIM_TREE_MAX) {
        char *end;
        long pid = strtol(list, &end, 10);

        if (end == list || *end != ' ')
            return;
        t->pids[t->n] = (pid_t)pid;
        t->depth[t->n++] = (unsigned char)(depth < 255 ? depth : 255);
        list = end;
    }
}

/* A child hangs on the thread that made it. */
static void add_children(struct tree *t, pid_t pid, unsigned depth)
{
    AUTO(free) char *text = xmalloc(LIST_MAX);
    struct dirent *entry;
    char path[128];
    DIR *tasks;

    fmt_z(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    while (tasks && (entry = readdir(tasks))) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) > 20)
            continue;
        fmt_z(path, sizeof(path), "/proc/%d/task/%.20s/children", (int)pid, entry->d_name);
        if (slurp(path, text, LIST_MAX))
            add_list(t, text, depth);
    }
    if (tasks)
        closedir(tasks);
}

/* Breadth first. The caller frees it. */
static struct tree *read_tree(pid_t top)
{
    struct tree *t = xcalloc(1, sizeof(*t));

    t->pids[t->n++] = top;
    for (size_t i = 0; i < t->n; i++)
        add_children(t, t->pids[i], t->depth[i] + 1u);
    return t;
}

/* utime, stime, cutime and cstime of proc_pid_stat(5), in ticks. */
static long long ticks_of(pid_t pid)
{
    char path[64], text[1024], *p;
    unsigned long long utime, stime;
    long long cutime, cstime;

    fmt_z(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!slurp(path, text, sizeof(text)))
        return 0;
    p = strrchr(text, ')'); /* a name may hold anything */
    if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %lld %lld",
                     &utime, &stime, &cutime, &cstime) != 4)
        return 0;
    return (long long)(utime + stime) + cutime + cstime;
}

static void memory_of(pid_t pid, long long *ret_private, long long *ret_shared)
{
    char path[64], text[256];
    long long resident, shared;

    *ret_private = *ret_shared = 0;
    fmt_z(path, sizeof(path), "/proc/%d/statm", (int)pid);
    if (!slurp(path, text, sizeof(text)) || sscanf(text, "%*d %lld %lld", &resident, &shared) != 2)
        return;
    *ret_private = (resident - shared) * sysconf(_SC_PAGESIZE);
    *ret_shared = shared * sysconf(_SC_PAGESIZE);
}

void shim_tree_look(pid_t top, struct shim_use *ret)
{
    AUTO(free) struct tree *t = read_tree(top);
    long long ticks = 0, most_shared = 0;

    *ret = (struct shim_use){ .n = t->n };
    for (size_t i = 0; i < t->n; i++) {
        long long own, shared;

        ticks += ticks_of(t->pids[i]);
        memory_of(t->pids[i], &own, &shared);
        ret->memory += own;
        if (shared > most_shared)
            most_shared = shared;
    }
    ret->memory += most_shared;
    ret->cpu_seconds = (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Its part of what it shares, too: a page that a fork has not copied counts once for all. */
static long long proportional_of(pid_t pid)
{
    char path[64], text[2048], *line;
    long long own, shared;

    fmt_z(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    line = slurp(path, text, sizeof(text)) ? strstr(text, "\nPss:") : NULL;
    if (line)
        return strtoll(line + 5, NULL, 10) * (long long)KIB;
    memory_of(pid, &own, &shared); /* it may not be looked into, or has ended */
    return own;
}

size_t shim_tree_trim(pid_t top, long long limit, struct shim_use *ret)
{
    AUTO(free) struct tree *t = read_tree(top);
    AUTO(free) long long *bytes = xcalloc(t->n, sizeof(*bytes));
    long long sum = 0;
    size_t killed = 0;

    *ret = (struct shim_use){ .n = t->n };
    for (size_t i = 0; i < t->n; i++)
        sum += bytes[i] = proportional_of(t->pids[i]);
    ret->memory = sum;
    while (sum > limit) {
        size_t most = 0;

        for (size_t i = 1; i < t->n; i++)
            if (bytes[i] > bytes[most])
                most = i;
        if (bytes[most] == 0)
            break;
        if (kill(t->pids[most], SIGKILL) == 0 && killed++ == 0) {
            ret->biggest = t->pids[most];
            ret->biggest_memory = bytes[most];
        }
        sum -= bytes[most];
        bytes[most] = 0;
    }
    return killed;
}

size_t shim_tree_limit_pids(pid_t top, unsigned depth, long pids)
{
    const struct rlimit limit = { (rlim_t)pids, (rlim_t)pids };
    AUTO(free) struct tree *t = read_tree(top);
    size_t n = 0;

    for (size_t i = 0; i < t->n; i++)
        if (t->depth[i] >= depth && prlimit(t->pids[i], RLIMIT_NPROC, &limit, NULL) == 0)
            n++;
    return n;
}

size_t shim_tree_signal(pid_t top, unsigned depth, int signo)
{
    AUTO(free) struct tree *t = read_tree(top);
    size_t n = 0;

    for (size_t i = 0; i < t->n; i++)
        if (t->depth[i] == depth && kill(t->pids[i], signo) == 0)
            n++;
    return n;
}

void shim_tree_kill(void)
{
    static const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

    for (int round = 0; round < KILL_ROUNDS; round++) {
        AUTO(free) struct tree *t = read_tree(getpid());

        for (size_t i = 1; i < t->n; i++)
            (void)kill(t->pids[i], SIGKILL); /* it may have ended */
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (t->n == 1)
            return;
        (void)nanosleep(&pause, NULL); /* cut short it only looks again sooner */
    }
}
