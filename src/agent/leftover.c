/* SPDX-License-Identifier: MIT */
/*
 * agent/leftover.c — what tasks have left behind that ran when the agent was killed: the kernel
 * ends the process that the agent had started, but not its children. They are known by a variable
 * that every program of a task gets, and are ended before the task is answered, or done again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "agent/held.h"
#include "base/log.h"

#define ENVIRON_READ (256 * KIB)
#define ROUNDS       100 /* of looks, while killed ones die */
#define ROUND_MS     20

/* Does the environment, "A=1\0B=2\0", hold the pair? */
static bool holds(struct str env, const char *pair)
{
    size_t n = strlen(pair) + 1;
    const char *at = env.p;

    while ((at = memmem(at, env.n - (size_t)(at - env.p), pair, n)) != NULL) {
        if (at == env.p || at[-1] == '\0')
            return true;
        at += n;
    }
    return false;
}

static bool is_of(const char *pid, const char *pair, char *scratch)
{
    AUTO(close_fd) int fd = -1;
    char path[300];
    size_t n = 0;
    ssize_t got = 1;

    fmt_z(path, sizeof(path), "/proc/%s/environ", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && got > 0 && n < ENVIRON_READ) {
        got = read(fd, scratch + n, ENVIRON_READ - n);
        n += got > 0 ? (size_t)got : 0;
    }
    return n > 0 && holds((struct str){ scratch, n }, pair);
}

/* Kill all there are now; how many. */
static unsigned kill_round(const char *pair, char *scratch)
{
    DIR *dir = opendir("/proc");
    unsigned killed = 0;

    for (struct dirent *d = dir ? readdir(dir) : NULL; d; d = readdir(dir)) {
        long pid = strtol(d->d_name, NULL, 10);

        if (pid > 1 && pid != getpid() && is_of(d->d_name, pair, scratch))
            killed += kill((pid_t)pid, SIGKILL) == 0;
    }
    if (dir)
        closedir(dir);
    return killed;
}

void leftover_end(const struct agent_conf *conf, const char *task_id)
{
    AUTO(free) char *pair = xasprintf(LEFTOVER_NAME "=%s/%s", conf->id, task_id);
    AUTO(free) char *scratch = xmalloc(ENVIRON_READ);
    unsigned killed = 0, all = 0;

    for (int i = 0; i < ROUNDS; i++) {
        killed = kill_round(pair, scratch);
        all += killed;
        if (killed == 0)
            break;
        poll(NULL, 0, ROUND_MS);
    }
    if (all > 0)
        log_warn("processes of a task that was interrupted were ended", "task", LOG_STR(task_id));
}
