/* SPDX-License-Identifier: MIT */
/*
 * machine/shim_loop.c — a file as a disk: a loop device that lets go of the file with its last
 * mount, so that nothing is left behind whoever dies. Two devices on one file would ruin it: the
 * mount waits until the last one has let go.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "machine/shim_int.h"

#define TRIES 1000 /* of 10 ms */

static void pause_a_little(void)
{
    static const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

    (void)nanosleep(&pause, NULL); /* cut short it only tries again sooner */
}

/* LOOP_GET_STATUS64 names the file by its numbers, whatever it is called here. */
static bool is_bound(const char *name, const struct stat *file)
{
    AUTO(free) char *path = xasprintf("/dev/%s", name);
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct loop_info64 info;

    return fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == file->st_ino &&
           info.lo_device == file->st_dev;
}

static bool is_busy(const struct stat *file)
{
    DIR *blocks = opendir("/sys/block");
    struct dirent *entry;
    bool busy = false;

    while (blocks && !busy && (entry = readdir(blocks))) {
        AUTO(free) char *backing = xasprintf("/sys/block/%s/loop/backing_file", entry->d_name);

        busy = strncmp(entry->d_name, "loop", 4) == 0 && access(backing, F_OK) == 0 &&
               is_bound(entry->d_name, file);
    }
    if (blocks)
        closedir(blocks);
    return busy;
}

bool shim_image_busy(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && is_busy(&st);
}

/* A free device, bound to fd. -1 and errno; EBUSY: another was quicker. */
static int bind_device(int control, int fd, char *path, size_t size)
{
    struct loop_config config = { .fd = (unsigned)fd, .info = { .lo_flags = LO_FLAGS_AUTOCLEAR } };
    int number = ioctl(control, LOOP_CTL_GET_FREE), device;

    if (number < 0)
        return -1;
    fmt_z(path, size, "/dev/loop%d", number);
    device = open(path, O_RDWR | O_CLOEXEC);
    if (device >= 0 && ioctl(device, LOOP_CONFIGURE, &config) < 0) {
        int eno = errno;

        close(device);
        errno = eno;
        return -1;
    }
    return device;
}

int shim_loop_mount(int fd, const char *to)
{
    AUTO(close_fd) int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    AUTO(close_fd) int device = -1;
    struct stat file;
    char path[64];

    if (control < 0 || fstat(fd, &file) < 0)
        return -1;
    for (int i = 0; is_busy(&file); i++) {
        if (i == TRIES) {
            errno = EBUSY;
            return -1;
        }
        pause_a_little();
    }
    for (int i = 0; device < 0; i++) {
        device = bind_device(control, fd, path, sizeof(path));
        if (device < 0 && (errno != EBUSY || i == TRIES))
            return -1;
    }
    return mount(path, to, "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, "discard");
}
