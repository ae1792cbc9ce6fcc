/* SPDX-License-Identifier: MIT */
/*
 * kill_at_write.c — preloaded into a chelad on SQLite: SIGKILL at the N-th moment of the
 * write-ahead log, a moment being before or after one of its writes and syncs. N comes in the file
 * that CHELA_KILL_FILE names; the count begins when the file is there, and takes it away.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long left;

static void arm(void)
{
    const char *path = getenv("CHELA_KILL_FILE");
    char text[32] = "";
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    if (read(fd, text, sizeof(text) - 1) > 0) {
        unlink(path);
        atomic_store(&left, atol(text));
    }
    close(fd);
}

static int is_wal(int fd)
{
    char link[64], name[512];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, name, sizeof(name));
    return n > 4 && memcmp(name + n - 4, "-wal", 4) == 0;
}

static void moment(void)
{
    if (atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1)
        kill(getpid(), SIGKILL);
}

#define AROUND(fd, call) \
    do { \
        int wal = is_wal(fd); \
        long r; \
        if (wal) \
            arm(), moment(); \
        r = (call); \
        if (wal) \
            moment(); \
        return r; \
    } while (0)

int fdatasync(int fd)
{
    AROUND(fd, syscall(SYS_fdatasync, fd));
}

int fsync(int fd)
{
    AROUND(fd, syscall(SYS_fsync, fd));
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    AROUND(fd, syscall(SYS_pwrite64, fd, p, n, at));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    AROUND(fd, syscall(SYS_pwrite64, fd, p, n, at));
}
