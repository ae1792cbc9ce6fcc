/* SPDX-License-Identifier: MIT */
/*
 * agent/transfer.c — a file written in parts: they gather in a file beside the target, which takes
 * the target's place when the last one has come and the checksum is right.
 *
 * There is no state in memory: how far a transfer has come is the size of that file, so it outlives
 * the agent, and a part that comes twice is written twice. What nobody has gone on with for a day
 * is swept: <state>/transfers holds a link to each, whose name is the part's own.
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>

#include "agent/file_int.h"
#include "base/log.h"
#include "base/secret.h"

#define TRANSFERS_MAX 64 /* under way */
#define ABANDONED_S   (24 * 3600)
#define IDLE_S        600 /* since its last part: may make room for a new one */
#define PART_NAME     48
#define TRANSFERS_DIR "transfers"

struct part {
    struct target target;
    char name[PART_NAME]; /* of the gathering file, beside the target */
    int fd;
    long long size; /* of it now */
};

static bool is_part_name(const char *name)
{
    struct str s = str_of(name);

    return str_starts(s, STR(".chela-")) && str_ends(s, STR(".part")) && !strchr(name, '/');
}

/* The directory of the links; -1: there is none, and no sweeping. */
static int open_register(struct task *t)
{
    const char *state = agent_conf(t->agent)->state_dir;
    AUTO(close_fd) int dir = state ? open(state, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

    if (dir < 0)
        return -1;
    (void)mkdirat(dir, TRANSFERS_DIR, 0700); /* it may be there */
    return openat(dir, TRANSFERS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

struct sweep {
    int dirfd;
    time_t now;
    unsigned left;   /* transfers that stay */
    time_t oldest;   /* of them, when it was last gone on with */
    char name[300];  /* its link */
    char path[4096]; /* scratch */
};

/* Remove the gathering file that the link names, if it is one, and the link. */
static void sweep_one(struct sweep *s, const char *name)
{
    const char *last = strrchr(s->path, '/');

    if (last && is_part_name(last + 1) && unlink(s->path) < 0 && errno != ENOENT)
        log_warn("an abandoned part stays", "path", LOG_STR(s->path), "errno", LOG_INT(errno));
    (void)unlinkat(s->dirfd, name, 0); /* it is looked at again if it stays */
}

static bool read_path(struct sweep *s, const char *name)
{
    ssize_t n = readlinkat(s->dirfd, name, s->path, sizeof(s->path) - 1);

    if (n < 0)
        return false;
    s->path[n] = '\0';
    return true;
}

static void sweep_look(struct sweep *s, const char *name)
{
    struct stat st;

    if (!read_path(s, name))
        return;
    if (lstat(s->path, &st) < 0) {
        (void)unlinkat(s->dirfd, name, 0); /* it is looked at again if it stays */
        return;
    }
    if (st.st_mtime < s->now - ABANDONED_S) {
        sweep_one(s, name);
        return;
    }
    s->left++;
    if (s->left == 1 || st.st_mtime < s->oldest) {
        s->oldest = st.st_mtime;
        (void)snprintf(s->name, sizeof(s->name), "%s", name); /* names of ours are short */
    }
}

/* Remove what is abandoned; ERR_LIMIT when too many are under way all the same. */
static int sweep(struct task *t, int dirfd, struct err *e)
{
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    struct sweep *s = arena_new(t->arena, struct sweep);
    struct dirent *entry;

    *s = (struct sweep){ .dirfd = dirfd, .now = time(NULL) };
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return 0;
    }
    while ((entry = readdir(dir)))
        if (is_part_name(entry->d_name))
            sweep_look(s, entry->d_name);
    closedir(dir);
    if (s->left < TRANSFERS_MAX)
        return 0;
    if (s->oldest > s->now - IDLE_S || !read_path(s, s->name))
        return err_set(e, ERR_LIMIT, "%u transfers are under way", s->left);
    sweep_one(s, s->name);
    return 0;
}

/* Tell the sweeper where the gathering file is. */
static int enter(struct task *t, const struct part *part, struct err *e)
{
    AUTO(close_fd) int dir = open_register(t);
    const char *base = fd_path(t->arena, part->target.dirfd);
    const char *path = base ? arena_printf(t->arena, "%s/%s", base, part->name) : NULL;
    int r;

    if (dir < 0 || !path)
        return 0; /* the agent has no state directory, or no /proc: then parts stay */
    r = sweep(t, dir, e);
    if (r < 0)
        return r;
    (void)unlinkat(dir, part->name, 0);
    if (symlinkat(path, dir, part->name) < 0)
        log_warn("an abandoned part would not be swept", "errno", LOG_INT(errno));
    return 0;
}

static void forget(struct task *t, const struct part *part)
{
    AUTO(close_fd) int dir = open_register(t);

    if (dir >= 0)
        (void)unlinkat(dir, part->name, 0); /* else the sweeper finds it pointing nowhere */
}

/* Of the transfer and the target: the register holds parts of all directories. */
static void name_part(const struct write_job *job, struct part *part)
{
    const char *where = fd_path(job->t->arena, part->target.dirfd);
    struct sha256_sum *sum = sha256_new();
    unsigned char digest[SECRET_KEY];
    char hex[2 * SECRET_KEY + 1];

    if (where) /* not its inode's number, which overlays change */
        sha256_add(sum, where, strlen(where) + 1);
    sha256_add(sum, job->transfer, strlen(job->transfer) + 1);
    sha256_add(sum, part->target.name, strlen(part->target.name));
    sha256_end(sum, digest);
    hex_format(digest, sizeof(digest), hex);
    fmt_z(part->name, sizeof(part->name), ".chela-%.24s.part", hex);
}

/* A part that is there is known to the sweeper, and one that is being made is not swept. */
static int begin_locked(struct write_job *job, struct part *part, struct err *e)
{
    int r;

    if (unlinkat(part->target.dirfd, part->name, 0) < 0 && errno != ENOENT)
        return node_fail(job->t, errno, "open", job->path, e);
    part->fd = openat(part->target.dirfd, part->name,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (part->fd < 0)
        return node_fail(job->t, errno, "open", job->path, e);
    r = enter(job->t, part, e);
    if (r < 0)
        (void)unlinkat(part->target.dirfd, part->name, 0); /* r says why */
    return r;
}

static int begin(struct write_job *job, struct part *part, struct err *e)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int r;

    pthread_mutex_lock(&lock);
    r = begin_locked(job, part, e);
    pthread_mutex_unlock(&lock);
    return r;
}

static int wrong_offset(struct write_job *job, long long size, struct err *e)
{
    job->result = json_pack("{s:s, s:I}", "filePath", job->path, "received", (json_int_t)size);
    return task_fail(job->t, ERR_CONFLICT, e, "transfer '%s' has %lld bytes, not %lld",
                     job->transfer, size, job->offset);
}

/* Only a file that we made ourselves, and that is in no other place. */
static int go_on(struct write_job *job, struct part *part, struct err *e)
{
    struct stat st;

    part->fd = openat(part->target.dirfd, part->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (part->fd < 0 && errno == ENOENT)
        return wrong_offset(job, 0, e);
    if (part->fd < 0 || fstat(part->fd, &st) < 0)
        return node_fail(job->t, errno, "open", job->path, e);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
        return node_fail(job->t, EPERM, "open", job->path, e);
    if (job->offset > st.st_size)
        return wrong_offset(job, st.st_size, e);
    part->size = st.st_size;
    return 0;
}

static int write_part(struct write_job *job, struct part *part, struct err *e)
{
    AUTO(buf_done) struct buf bytes;
    int r;

    buf_init(&bytes, 2 * job->text.n + 16);
    r = text_decode(job->encoding, job->text, &bytes, e);
    if (r < 0)
        return r;
    r = write_at(part->fd, buf_str(&bytes), job->offset);
    if (r != 0)
        return node_fail(job->t, r, "write", job->path, e);
    if (part->size < job->offset + (long long)bytes.n)
        part->size = job->offset + (long long)bytes.n;
    if (job->final) {
        part->size = job->offset + (long long)bytes.n;
        if (ftruncate(part->fd, part->size) < 0)
            return node_fail(job->t, errno, "ftruncate", job->path, e);
    }
    return 0;
}

static int check_sum(struct write_job *job, struct part *part, struct err *e)
{
    char have[2 * SECRET_KEY + 1];
    long long size;
    int r;

    if (!job->sha256)
        return 0;
    r = file_sum(part->fd, have, &size);
    if (r != 0)
        return node_fail(job->t, r, "read", job->path, e);
    if (str_eq_nocase(str_of(have), str_of(job->sha256)))
        return 0;
    (void)unlinkat(part->target.dirfd, part->name, 0); /* else the sweeper does it */
    return task_fail(job->t, ERR_CONFLICT, e, "the SHA-256 of '%s' is %s, not %s", job->path, have,
                     job->sha256);
}

static int finish(struct write_job *job, struct part *part, struct err *e)
{
    int mode, r;

    r = check_sum(job, part, e);
    if (r < 0)
        return r;
    mode = target_mode(&part->target, job->mode);
    if (mode < 0) { /* as a new file would be: the mask is known only by making one */
        int probe = openat(part->target.dirfd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
        struct stat st;

        mode = probe >= 0 && fstat(probe, &st) == 0 ? (int)(st.st_mode & 0777) : 0644;
        if (probe >= 0)
            close(probe);
    }
    r = target_replace(&part->target, part->fd, part->name, mode);
    if (r != 0)
        return node_fail(job->t, r, "rename", job->path, e);
    forget(job->t, part);
    return 0;
}

static int do_part(struct write_job *job, struct part *part, struct err *e)
{
    int r;

    if (part->target.in_place)
        return task_fail(job->t, ERR_INVALID, e, "'%s' cannot be written in parts", job->path);
    name_part(job, part);
    r = job->offset == 0 ? begin(job, part, e) : go_on(job, part, e);
    if (r < 0)
        return r;
    if (flock(part->fd, LOCK_EX | LOCK_NB) < 0)
        return task_fail(job->t, ERR_CONFLICT, e, "another part of transfer '%s' is being written",
                         job->transfer);
    r = write_part(job, part, e);
    if (r == 0 && job->final)
        r = finish(job, part, e);
    if (r < 0)
        return r;
    job->result = json_pack("{s:s, s:I, s:I}", "filePath", job->path, "size",
                            (json_int_t)part->size, "received", (json_int_t)part->size);
    return 0;
}

int transfer_part(void *arg, struct err *e)
{
    struct write_job *job = arg;
    struct part part = { .target = { .dirfd = -1 }, .fd = -1 };
    struct place place = { .dirfd = AT_FDCWD };
    int r;

    r = place_find(job->t, job->path, &place, e);
    if (r == 0)
        r = target_find(job->t, &place, job->offset == 0, &part.target, e);
    if (r == 0)
        r = do_part(job, &part, e);
    if (part.fd >= 0)
        close(part.fd);
    target_done(&part.target);
    place_done(&place);
    return r;
}
