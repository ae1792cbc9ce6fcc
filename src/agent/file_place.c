/* SPDX-License-Identifier: MIT */
/*
 * agent/file_place.c — where a path leads.
 *
 * With a root set every walk begins at a descriptor of it and goes by openat2(RESOLVE_BENEATH), so
 * neither "..", nor an absolute link, nor a link swapped in meanwhile leads out: it is the kernel
 * that looks at the moment it walks. What follows such a walk is done relative to the descriptor
 * it gave, with a last name that is not followed.
 */
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include "agent/file_int.h"

#define PATH_LONGEST ((size_t)4095)
#define MISSING_MAX  100 /* directories that one write may make */

static const struct {
    int eno;
    const char *name, *text; /* libuv's */
} node_errors[] = {
    { EACCES, "EACCES", "permission denied" },
    { EBUSY, "EBUSY", "resource busy or locked" },
    { EDQUOT, "EDQUOT", "disk quota exceeded" },
    { EEXIST, "EEXIST", "file already exists" },
    { EFBIG, "EFBIG", "file too large" },
    { EINVAL, "EINVAL", "invalid argument" },
    { EIO, "EIO", "i/o error" },
    { EISDIR, "EISDIR", "illegal operation on a directory" },
    { ELOOP, "ELOOP", "too many symbolic links encountered" },
    { EMFILE, "EMFILE", "too many open files" },
    { ENAMETOOLONG, "ENAMETOOLONG", "name too long" },
    { ENFILE, "ENFILE", "file table overflow" },
    { ENODEV, "ENODEV", "no such device" },
    { ENOENT, "ENOENT", "no such file or directory" },
    { ENOSPC, "ENOSPC", "no space left on device" },
    { ENOTDIR, "ENOTDIR", "not a directory" },
    { ENOTEMPTY, "ENOTEMPTY", "directory not empty" },
    { ENXIO, "ENXIO", "no such device or address" },
    { EPERM, "EPERM", "operation not permitted" },
    { EROFS, "EROFS", "read-only file system" },
    { ETXTBSY, "ETXTBSY", "text file is busy" },
    { EXDEV, "EACCES", "permission denied (outside of the agent's root)" },
};

int node_fail(struct task *t, int eno, const char *call, const char *path, struct err *e)
{
    const char *name = NULL, *text = NULL;
    enum err_code code = eno == ENOENT ? ERR_NOT_FOUND : eno == EXDEV ? ERR_FORBIDDEN : ERR_INVALID;

    for (size_t i = 0; i < LEN(node_errors); i++)
        if (node_errors[i].eno == eno) {
            name = node_errors[i].name;
            text = node_errors[i].text;
        }
    if (!name) {
        name = strerrorname_np(eno);
        text = strerrordesc_np(eno);
    }
    return task_fail(t, code, e, "%s: %s, %s%s%s%s", name ? name : "UNKNOWN",
                     text ? text : "unknown error", call, path ? " '" : "", path ? path : "",
                     path ? "'" : "");
}

static bool is_below(const char *path, const char *root, size_t n)
{
    return strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* The part of an absolute path behind the root, by its letters; NULL: it does not begin so. */
static const char *behind_root(const char *path, const char *root)
{
    size_t n = strlen(root);

    while (n > 0 && root[n - 1] == '/')
        n--;
    if (!is_below(path, root, n))
        return NULL;
    path += n;
    while (*path == '/')
        path++;
    return *path ? path : ".";
}

static int open_dir(const char *path)
{
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int place_find(struct task *t, const char *path, struct place *ret, struct err *e)
{
    const struct agent_conf *conf = agent_conf(t->agent);

    *ret = (struct place){ .shown = path, .dirfd = AT_FDCWD, .rel = path };
    if (strlen(path) > PATH_LONGEST)
        return node_fail(t, ENAMETOOLONG, "open", path, e);
    if (conf->root) {
        ret->beneath = true;
        if (*path == '/')
            ret->rel = behind_root(path, conf->root);
        if (!ret->rel)
            return node_fail(t, EXDEV, "open", path, e);
        ret->dirfd = open_dir(conf->root);
        if (ret->dirfd < 0)
            return node_fail(t, errno, "open", conf->root, e);
        return 0;
    }
    if (*path == '/' || !conf->work_dir)
        return 0;
    ret->dirfd = open_dir(conf->work_dir);
    if (ret->dirfd < 0)
        return node_fail(t, errno, "open", conf->work_dir, e);
    return 0;
}

void place_done(struct place *p)
{
    if (p->dirfd >= 0)
        close(p->dirfd);
    p->dirfd = AT_FDCWD;
}

int place_open(const struct place *p, const char *rel, int flags, mode_t mode)
{
    struct open_how how = { .flags = (unsigned)(flags | O_CLOEXEC),
                            .mode = flags & O_CREAT ? mode : 0,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    long fd;

    if (!p->beneath)
        return openat(p->dirfd, rel, flags | O_CLOEXEC, mode);
    for (int i = 0; i < 100; i++) { /* EAGAIN: a rename came between; somebody may keep at it */
        fd = syscall(SYS_openat2, p->dirfd, rel, &how, sizeof(how));
        if (fd >= 0 || errno != EAGAIN)
            return (int)fd;
    }
    return -1;
}

/* Where the last name begins, slashes at the end left out; *ret_end is the end of it. */
static const char *last_name(const char *rel, const char **ret_end)
{
    const char *end = rel + strlen(rel), *p;

    while (end > rel && end[-1] == '/')
        end--;
    p = end;
    while (p > rel && p[-1] != '/')
        p--;
    *ret_end = end;
    return p;
}

/* The directory part of rel: "" above "a", "/" above "/a". */
static char *dir_part(struct arena *a, const char *rel)
{
    const char *end, *name = last_name(rel, &end), *stop = name;

    while (stop > rel + 1 && stop[-1] == '/')
        stop--;
    return arena_strndup(a, rel, (size_t)(stop - rel));
}

int place_parent(const struct place *p, struct arena *a, const char *rel, int *ret_dirfd,
                 const char **ret_name)
{
    const char *end, *name = last_name(rel, &end), *dir = dir_part(a, rel);
    int fd;

    if (end - name > 255)
        return ENAMETOOLONG;
    fd = place_open(p, *dir ? dir : ".", O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return errno;
    *ret_dirfd = fd;
    *ret_name = arena_strndup(a, name, (size_t)(end - name));
    if (strcmp(*ret_name, ".") == 0)
        *ret_name = "";
    return 0;
}

/* Make one directory and go on to it. Whoever made it first is welcome, a link is not. */
static int step_in(int *dirfd, const char *name)
{
    int fd;

    if (strcmp(name, "..") == 0)
        return ENOENT; /* of what is not there yet */
    if (mkdirat(*dirfd, name, 0777) < 0 && errno != EEXIST)
        return errno;
    fd = openat(*dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    close(*dirfd);
    *dirfd = fd;
    return 0;
}

int place_mkdirs(const struct place *p, struct arena *a, const char *rel)
{
    const char *missing[MISSING_MAX];
    AUTO(close_fd) int fd = -1;
    char *dir = dir_part(a, rel);
    size_t n = 0;
    int r = 0;

    for (;;) { /* up to the first that is there */
        const char *end, *name;

        fd = place_open(p, *dir ? dir : ".", O_PATH | O_DIRECTORY, 0);
        if (fd >= 0)
            break;
        if (errno != ENOENT || !*dir)
            return errno;
        if (n == MISSING_MAX)
            return ENAMETOOLONG;
        name = last_name(dir, &end);
        missing[n] = arena_strndup(a, name, (size_t)(end - name));
        if (strcmp(missing[n], ".") != 0)
            n++;
        dir = dir_part(a, dir);
    }
    while (r == 0 && n > 0)
        r = step_in(&fd, missing[--n]);
    return r;
}

char *fd_path(struct arena *a, int fd)
{
    char link[40], path[PATH_LONGEST + 1];
    ssize_t n;

    fmt_z(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path));
    if (n <= 0 || (size_t)n >= sizeof(path) || *path != '/')
        return NULL;
    return arena_strndup(a, path, (size_t)n);
}

const char *place_rel(const struct place *p, struct arena *a, const char *absolute)
{
    const char *root = p->beneath ? fd_path(a, p->dirfd) : NULL;

    if (!p->beneath)
        return absolute; /* openat() ignores its directory then */
    return root ? behind_root(absolute, root) : NULL;
}
