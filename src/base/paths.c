/* SPDX-License-Identifier: MIT */
#include "base/paths.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/str.h"

char *path_state_default(void)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (xdg && xdg[0] == '/')
        return xasprintf("%s/chela", xdg);
    if (geteuid() == 0 || !home || home[0] != '/')
        return xstrdup("/var/lib/chela");
    return xasprintf("%s/.local/state/chela", home);
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
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? refuse(fd, dir, e) : err_sys(e, "lock '%s'", path);
    fmt_z(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, strlen(pid), 0) < 0)
        return err_sys(e, "write '%s'", path);
    *ret_fd = take_fd(&fd);
    return 0;
}
