/* SPDX-License-Identifier: MIT */
/*
 * agent/file_write.c — writing a file so that a reader sees the old one or the new one, whole.
 *
 * A temporary file beside the target takes its place by rename. What cannot be replaced so (a file
 * in a directory we may not write to, one that is mounted, a dangling link) is written in place, as
 * the original wrote everything.
 */
#include <stdio.h>

#include "agent/file_int.h"
#include "base/rand.h"
#include "base/secret.h"

/* The last name is a link to an existing file: go to where it leads. */
static int follow_link(struct task *t, const struct place *p, int fd, struct target *target)
{
    const char *path = fd_path(t->arena, fd), *rel;

    rel = path ? place_rel(p, t->arena, path) : NULL;
    if (!rel) {
        target->in_place = true;
        return 0;
    }
    close(target->dirfd);
    target->dirfd = -1;
    return place_parent(p, t->arena, rel, &target->dirfd, &target->name);
}

static bool is_link(const struct target *target)
{
    struct stat st;

    return fstatat(target->dirfd, target->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISLNK(st.st_mode);
}

/* 0, or an errno. */
static int find_target(struct task *t, const struct place *p, bool parents, struct target *ret)
{
    AUTO(close_fd) int fd = place_open(p, p->rel, O_PATH, 0);
    int r;

    if (fd < 0 && errno != ENOENT)
        return errno;
    if (fd < 0 && parents) {
        r = place_mkdirs(p, t->arena, p->rel);
        if (r != 0)
            return r;
    }
    r = place_parent(p, t->arena, p->rel, &ret->dirfd, &ret->name);
    if (r != 0)
        return r;
    if (!*ret->name || strcmp(ret->name, "..") == 0 || p->rel[strlen(p->rel) - 1] == '/')
        return EISDIR;
    if (fd < 0) {
        ret->in_place = is_link(ret); /* a dangling one: what it names is made */
        return 0;
    }
    if (fstat(fd, &ret->st) < 0)
        return errno;
    if (S_ISDIR(ret->st.st_mode))
        return EISDIR;
    ret->exists = true;
    return is_link(ret) ? follow_link(t, p, fd, ret) : 0;
}

int target_find(struct task *t, const struct place *p, bool parents, struct target *ret,
                struct err *e)
{
    int r;

    *ret = (struct target){ .dirfd = -1 };
    r = find_target(t, p, parents, ret);
    if (r != 0)
        return node_fail(t, r, "open", p->shown, e);
    if (ret->exists && !S_ISREG(ret->st.st_mode))
        return task_fail(t, ERR_INVALID, e, "'%s' is not a regular file", p->shown);
    return 0;
}

void target_done(struct target *target)
{
    if (target->dirfd >= 0)
        close(target->dirfd);
    target->dirfd = -1;
}

int write_at(int fd, struct str bytes, off_t offset)
{
    while (bytes.n > 0) {
        ssize_t n = pwrite(fd, bytes.p, bytes.n, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        bytes.p += n;
        bytes.n -= (size_t)n;
        offset += n;
    }
    return 0;
}

int file_sum(int fd, char ret_hex[65], long long *ret_size)
{
    struct sha256_sum *sum = sha256_new();
    unsigned char digest[SECRET_KEY];
    AUTO(free) char *block = xmalloc(64 * KIB);
    off_t at = 0;
    ssize_t n;
    int r = 0;

    do {
        n = pread(fd, block, 64 * KIB, at);
        if (n < 0 && errno != EINTR)
            r = errno;
        if (n > 0) {
            sha256_add(sum, block, (size_t)n);
            at += n;
        }
    } while (r == 0 && n != 0);
    sha256_end(sum, digest);
    hex_format(digest, sizeof(digest), ret_hex);
    *ret_size = at;
    return r;
}

int target_mode(const struct target *target, int asked)
{
    if (asked >= 0)
        return asked;
    return target->exists ? (int)(target->st.st_mode & 07777) : -1;
}

int target_replace(const struct target *target, int fd, const char *temporary, int mode)
{
    AUTO(close_fd) int dir = -1;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return errno;
    if (target->exists && (st.st_uid != target->st.st_uid || st.st_gid != target->st.st_gid) &&
        fchown(fd, target->st.st_uid, target->st.st_gid) < 0)
        return errno;
    if (mode >= 0 && fchmod(fd, (mode_t)mode) < 0)
        return errno;
    if (fsync(fd) < 0)
        return errno;
    if (renameat(target->dirfd, temporary, target->dirfd, target->name) < 0)
        return errno;
    dir = openat(target->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0)
        (void)fsync(dir); /* some file systems cannot: the file is in its place anyway */
    return 0;
}

/* 0, or an errno; then nothing is left behind. */
static int write_beside(const struct target *target, struct str bytes, int asked)
{
    int mode = target_mode(target, asked), r;
    AUTO(close_fd) int fd = -1;
    char temporary[40];

    fmt_z(temporary, sizeof(temporary), ".chela-%016llx.tmp", (unsigned long long)rand_u64());
    fd = openat(target->dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                mode >= 0 ? 0600 : 0666);
    if (fd < 0)
        return errno;
    r = write_at(fd, bytes, 0);
    if (r == 0)
        r = target_replace(target, fd, temporary, mode);
    if (r != 0)
        (void)unlinkat(target->dirfd, temporary, 0); /* r says what matters */
    return r;
}

static int write_in_place(const struct place *p, struct str bytes, int asked)
{
    AUTO(close_fd) int fd = -1;
    struct stat st;
    int r;

    fd = place_open(p, p->rel, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY, 0666);
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return EINVAL;
    if (ftruncate(fd, 0) < 0)
        return errno;
    r = write_at(fd, bytes, 0);
    if (r == 0 && asked >= 0 && fchmod(fd, (mode_t)asked) < 0)
        r = errno;
    if (r == 0 && fsync(fd) < 0 && errno != EINVAL) /* files of the kernel have nothing to flush */
        r = errno;
    return r;
}

/* The errors of replacing that say "not so", rather than "not at all". */
static bool try_in_place(int eno)
{
    return eno == EACCES || eno == EPERM || eno == EBUSY || eno == EROFS || eno == EXDEV ||
           eno == ENOENT || eno == EINVAL;
}

static int write_target(const struct place *p, const struct target *target, struct str bytes,
                        int asked)
{
    int r;

    if (!target->in_place) {
        r = write_beside(target, bytes, asked);
        if (r == 0 || !target->exists || !try_in_place(r))
            return r;
    }
    return write_in_place(p, bytes, asked);
}

static int do_write(struct write_job *job, const struct place *p, struct target *target,
                    struct err *e)
{
    AUTO(buf_done) struct buf bytes;
    int r;

    buf_init(&bytes, 2 * job->text.n + 16); /* utf16le doubles what is ASCII */
    r = text_decode(job->encoding, job->text, &bytes, e);
    if (r < 0)
        return r;
    r = target_find(job->t, p, true, target, e);
    if (r < 0)
        return r;
    r = write_target(p, target, buf_str(&bytes), job->mode);
    if (r != 0)
        return node_fail(job->t, r, "open", p->shown, e);
    job->result = json_pack("{s:s, s:I}", "filePath", job->path, "size", (json_int_t)bytes.n);
    return 0;
}

int write_whole(void *arg, struct err *e)
{
    struct write_job *job = arg;
    struct target target = { .dirfd = -1 };
    struct place place = { .dirfd = AT_FDCWD };
    int r;

    r = place_find(job->t, job->path, &place, e);
    if (r == 0)
        r = do_write(job, &place, &target, e);
    target_done(&target);
    place_done(&place);
    return r;
}
