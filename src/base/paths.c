/* SPDX-License-Identifier: MIT */
#include "base/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "base/str.h"

#define LEFT_TRIES 200 /* of 10 ms */

char *path_state_default(void)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (xdg && xdg[0] == '/')
        return xasprintf("%s/chela", xdg);
    if (geteuid() == 0 || !home || home[0] != '/')
        return xstrdup("/var/lib/chela");
    return xasprintf("%s/.local/state/chela", home);
}

/*
 * A daemon that was killed while it made a child leaves the lock with that child until it has
 * noticed: is the holder one that has ended?
 */
static bool is_left(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    long pid;

    text[n > 0 ? n : 0] = '\0';
    pid = strtol(text, NULL, 10);
    return pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

static int lock_file(int fd)
{
    static const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

    for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK)
            return -1;
        if (i == LEFT_TRIES || !is_left(fd)) {
            errno = EWOULDBLOCK;
            return -1;
        }
        (void)nanosleep(&pause, NULL); /* cut short it only tries again sooner */
    }
    return 0;
}

/* Who holds the lock, as it wrote itself. */
static int refuse(int fd, const char *dir, struct err *e)
{
    char pid[32];
    ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

    pid[n > 0 ? n : 0] = '\0';
    pid[strcspn(pid, "\n")] = '\0';
    return err_set(e, ERR_CONFLICT,
                   "state directory '%s' is in use by another chelad (pid %s): stop it, or use "
                   "another directory (--state)",
                   dir, pid[0] ? pid : "unknown");
}

int path_state_lock(const char *dir, int *ret_fd, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/chelad.lock", dir);
    AUTO(close_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char pid[32];

    if (fd < 0)
        return err_sys(e, "open '%s'", path);
    if (lock_file(fd) < 0)
        return errno == EWOULDBLOCK ? refuse(fd, dir, e) : err_sys(e, "lock '%s'", path);
    fmt_z(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, strlen(pid), 0) < 0)
        return err_sys(e, "write '%s'", path);
    *ret_fd = take_fd(&fd);
    return 0;
}
