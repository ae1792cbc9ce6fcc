/* SPDX-License-Identifier: MIT */
/*
 * base/secret_file.c — a key kept as hex in a file that is nobody else's. It is written whole
 * under another name and then linked to its own, so no reader and no crash ever sees half of it,
 * and of two processes that make it at once both end up with the same key.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/rand.h"
#include "base/secret.h"

enum { TEXT_MAX = 2 * SECRET_KEY + 2 };

static int check_mode(const char *path, const struct stat *st, struct err *e)
{
    if (!S_ISREG(st->st_mode))
        return err_set(e, ERR_FORBIDDEN, "'%s' is not a plain file", path);
    if (st->st_mode & (S_IRWXG | S_IRWXO))
        return err_set(e, ERR_FORBIDDEN,
                       "'%s' is open to other users (mode %04o): chmod 600 it, and replace the key "
                       "if somebody may have read it",
                       path, (unsigned)(st->st_mode & 07777));
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return err_set(e, ERR_FORBIDDEN, "'%s' belongs to user %u", path, (unsigned)st->st_uid);
    return 0;
}

/* -ERR_NOT_FOUND when there is no such file. */
static int read_key(const char *path, unsigned char out[SECRET_KEY], struct err *e)
{
    AUTO(close_fd) int fd = -1;
    char text[TEXT_MAX + 1];
    struct stat st;
    ssize_t n;
    int r;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "open '%s'", path);
    if (fstat(fd, &st) < 0)
        return err_sys(e, "stat '%s'", path);
    r = check_mode(path, &st, e);
    if (r < 0)
        return r;
    n = read(fd, text, sizeof(text));
    if (n < 0)
        return err_sys(e, "read '%s'", path);
    r = hex_parse(str_trim((struct str){ text, (size_t)n }), out, SECRET_KEY, e);
    secret_wipe(text, sizeof(text));
    if (r < 0)
        return err_wrap(e, "'%s' does not hold a key of %d hex digits", path, 2 * SECRET_KEY);
    return 0;
}

static int write_synced(int fd, const char *path, const char *text, struct err *e)
{
    size_t n = strlen(text);
    ssize_t done = write(fd, text, n);

    if (done < 0 || fsync(fd) < 0)
        return err_sys(e, "write '%s'", path);
    if ((size_t)done != n)
        return err_set(e, ERR_UNAVAILABLE, "write '%s': the disk is full", path);
    return 0;
}

static int sync_dir(const char *path, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    AUTO(free) char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');

    if (slash)
        slash[slash == dir] = '\0';
    fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, "sync the directory of '%s'", path);
    return 0;
}

/* Give the file its name unless the name is taken: then somebody else made the key meanwhile. */
static int publish(const char *temporary, const char *path, struct err *e)
{
    if (link(temporary, path) == 0 || errno == EEXIST)
        return 0;
    /* A file system without links. The daemon's lock on the directory keeps others away there. */
    if ((errno == EPERM || errno == EOPNOTSUPP) && rename(temporary, path) == 0)
        return 0;
    return err_sys(e, "link '%s'", path);
}

static int make_key(const char *path, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    AUTO(free) char *temporary = xasprintf("%s.%016llx", path, (unsigned long long)rand_u64());
    unsigned char key[SECRET_KEY];
    char text[2 * SECRET_KEY + 2];
    int r;

    rand_bytes(key, sizeof(key));
    hex_format(key, sizeof(key), text);
    memcpy(text + 2 * sizeof(key), "\n", 2);
    secret_wipe(key, sizeof(key));

    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        secret_wipe(text, sizeof(text));
        return err_sys(e, "create '%s'", temporary);
    }
    r = write_synced(fd, temporary, text, e);
    secret_wipe(text, sizeof(text));
    if (r == 0)
        r = publish(temporary, path, e);
    (void)unlink(temporary); /* worst case: a stray file that holds a key of ours, mode 0600 */
    return r < 0 ? r : sync_dir(path, e);
}

int secret_key_file(const char *path, unsigned char out[SECRET_KEY], struct err *e)
{
    int r = read_key(path, out, e);

    if (r != -ERR_NOT_FOUND)
        return r;
    r = make_key(path, e);
    if (r < 0)
        return r;
    return read_key(path, out, e);
}
