/* SPDX-License-Identifier: MIT */
/*
 * agent/file_dir.c — file:list, file:stat, file:delete.
 *
 * Deleting walks by descriptors and follows no link, so nothing outside of the directory that was
 * named is touched, whatever is swapped in meanwhile.
 */
#include "agent/types.h"

#include <dirent.h>
#include <stdio.h>

#include "agent/file_int.h"
#include "base/offload.h"

static const char *kind_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "directory";
    case S_IFLNK:
        return "symlink";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    case S_IFCHR:
        return "char";
    default:
        return "block";
    }
}

static json_t *utf8_text(const char *z)
{
    AUTO(buf_done) struct buf b;
    struct err e;

    buf_init(&b, 16 * KIB); /* a path of bad bytes grows to three times its length */
    if (text_utf8(str_of(z), &b, &e) < 0)
        return json_string("");
    return json_stringn(b.p ? b.p : "", b.n);
}

static void add_stat(json_t *o, const struct stat *st)
{
    json_object_set_new(o, "type", json_string(kind_name(st->st_mode)));
    json_object_set_new(o, "size", json_integer(st->st_size));
    json_object_set_new(o, "mode", json_integer(st->st_mode & 07777));
    json_object_set_new(
        o, "mtime",
        json_integer((json_int_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000));
}

/* --- list --- */

static void close_dir_auto(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

struct names {
    char **v;
    size_t n, cap;
    bool more;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static struct names read_names(DIR *dir, struct arena *a)
{
    struct names names = { .v = arena_alloc(a, FILE_LIST_MAX * sizeof(char *)) };
    struct dirent *entry;

    while ((entry = readdir(dir))) {
        if (is_dot(entry->d_name))
            continue;
        if (names.n == FILE_LIST_MAX) {
            names.more = true;
            break;
        }
        names.v[names.n++] = arena_strdup(a, entry->d_name);
    }
    qsort(names.v, names.n, sizeof(*names.v), by_name);
    return names;
}

static json_t *entries_json(DIR *dir, const struct names *names)
{
    json_t *list = json_array();

    for (size_t i = 0; i < names->n; i++) {
        json_t *entry = json_object();
        struct stat st;

        if (fstatat(dirfd(dir), names->v[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
            json_decref(entry); /* gone meanwhile */
            continue;
        }
        json_object_set_new(entry, "name", utf8_text(names->v[i]));
        add_stat(entry, &st);
        json_array_append_new(list, entry);
    }
    return list;
}

static int list_at(struct dir_job *job, const struct place *place, struct err *e)
{
    AUTO(close_fd) int fd = place_open(place, place->rel, O_RDONLY | O_DIRECTORY, 0);
    AUTO(close_dir) DIR *dir = NULL;
    struct names names;

    if (fd < 0)
        return node_fail(job->t, errno, "scandir", job->path, e);
    dir = fdopendir(fd);
    if (!dir)
        return node_fail(job->t, errno, "scandir", job->path, e);
    (void)take_fd(&fd); /* the DIR has it */
    names = read_names(dir, job->t->arena);
    job->result = json_object();
    json_object_set_new(job->result, "path", json_string(job->path));
    json_object_set_new(job->result, "entries", entries_json(dir, &names));
    if (names.more)
        json_object_set_new(job->result, "truncated", json_true());
    return 0;
}

/* --- stat --- */

static int stat_at(struct dir_job *job, const struct place *place, struct err *e)
{
    AUTO(close_fd) int link = place_open(place, place->rel, O_PATH | O_NOFOLLOW, 0);
    AUTO(close_fd) int fd = -1;
    char target[4096];
    struct stat st;
    ssize_t n;

    if (link >= 0)
        fd = place_open(place, place->rel, O_PATH, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return node_fail(job->t, errno, "stat", job->path, e);
    job->result = json_object();
    json_object_set_new(job->result, "filePath", json_string(job->path));
    add_stat(job->result, &st);
    json_object_set_new(job->result, "uid", json_integer(st.st_uid));
    json_object_set_new(job->result, "gid", json_integer(st.st_gid));
    n = readlinkat(link, "", target, sizeof(target) - 1);
    if (n >= 0) {
        target[n] = '\0';
        json_object_set_new(job->result, "symlink", utf8_text(target));
    }
    return 0;
}

/* --- delete --- */

struct removal {
    unsigned n;
    int depth;
};

static int remove_tree(struct removal *x, int dirfd, const char *name);

/* One name of a directory; a directory with all that is in it. 0, or an errno. */
static int remove_any(struct removal *x, int dirfd, const char *name)
{
    if (++x->n > FILE_DELETE_MAX)
        return EFBIG;
    if (unlinkat(dirfd, name, 0) == 0)
        return 0;
    return errno == EISDIR || errno == EPERM ? remove_tree(x, dirfd, name) : errno;
}

static int remove_tree(struct removal *x, int at, const char *name)
{
    AUTO(close_fd) int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO(close_dir) DIR *dir = NULL;
    struct dirent *entry;
    int r = 0;

    if (fd < 0)
        return errno == ENOTDIR || errno == ELOOP ? EPERM : errno;
    if (x->depth == FILE_DEPTH_MAX)
        return ENAMETOOLONG;
    dir = fdopendir(fd);
    if (!dir)
        return errno;
    (void)take_fd(&fd); /* the DIR has it */
    x->depth++;
    while (r == 0 && (entry = readdir(dir)))
        if (!is_dot(entry->d_name))
            r = remove_any(x, dirfd(dir), entry->d_name);
    x->depth--;
    if (r == 0 && unlinkat(at, name, AT_REMOVEDIR) < 0)
        r = errno;
    return r;
}

int tree_remove(int at, const char *name)
{
    struct removal removal = { 0 };

    return remove_any(&removal, at, name);
}

static int delete_at(struct dir_job *job, const struct place *place, struct err *e)
{
    AUTO(close_fd) int parent = -1;
    struct removal removal = { 0 };
    const char *name = "";
    int r;

    r = place_parent(place, job->t->arena, place->rel, &parent, &name);
    if (r != 0)
        return node_fail(job->t, r, "unlink", job->path, e);
    if (!*name || is_dot(name))
        return task_fail(job->t, ERR_INVALID, e, "'%s' is not deleted: name it otherwise",
                         job->path);
    if (job->recursive)
        r = remove_any(&removal, parent, name);
    else if (unlinkat(parent, name, 0) < 0)
        r = errno;
    else
        removal.n = 1;
    if (r != 0)
        return node_fail(job->t, r, "unlink", job->path, e);
    job->result = json_pack("{s:s, s:I}", "filePath", job->path, "deleted", (json_int_t)removal.n);
    return 0;
}

/* --- the tasks --- */

typedef int at_fn(struct dir_job *job, const struct place *place, struct err *e);

static int with_place(struct dir_job *job, at_fn *fn, struct err *e)
{
    struct place place = { .dirfd = AT_FDCWD };
    int r;

    r = place_find(job->t, job->path, &place, e);
    if (r == 0)
        r = fn(job, &place, e);
    place_done(&place);
    return r;
}

static int list_job(void *job, struct err *e)
{
    return with_place(job, list_at, e);
}

static int stat_job(void *job, struct err *e)
{
    return with_place(job, stat_at, e);
}

static int delete_job(void *job, struct err *e)
{
    return with_place(job, delete_at, e);
}

static CO int on_thread(struct task *t, int (*fn)(void *job, struct err *e), json_t **ret_result,
                        struct err *e)
{
    struct dir_job job = { .t = t, .recursive = task_flag(t, "recursive") };
    int r;

    r = task_text(t, "filePath", false, &job.path, e);
    if (r == 0 && !job.path)
        r = task_text(t, "path", true, &job.path, e);
    if (r < 0)
        return r;
    r = offload(fn, &job, e);
    *ret_result = job.result;
    return r;
}

CO int type_file_list(struct task *t, json_t **ret_result, struct err *e)
{
    return on_thread(t, list_job, ret_result, e);
}

CO int type_file_stat(struct task *t, json_t **ret_result, struct err *e)
{
    return on_thread(t, stat_job, ret_result, e);
}

CO int type_file_delete(struct task *t, json_t **ret_result, struct err *e)
{
    return on_thread(t, delete_job, ret_result, e);
}
