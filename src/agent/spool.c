/* SPDX-License-Identifier: MIT */
/*
 * agent/spool.c — see spool.h.
 */
#include "agent/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/secret.h"

#define FILE_MAX  (128 * MIB) /* of a file that is read */
#define NAME_LONG 150         /* longer names are hashes */

struct spool {
    int dir_fd, lock_fd;
};

static const char *const state_names[] = { "queued", "running", "done" };

/* --- names --- */

static bool is_plain(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
}

void spool_name(const char *id, char out[256])
{
    char hash[2 * SECRET_KEY + 1];
    size_t n = 0;

    for (const char *p = id; *p && n < NAME_LONG; p++) {
        if (is_plain(*p) && (*p != '.' || p > id)) {
            out[n++] = *p;
        } else {
            fmt_z(out + n, 4, "%%%02X", (unsigned char)*p);
            n += 3;
        }
    }
    if (n < NAME_LONG && n > 0) {
        fmt_z(out + n, 256 - n, ".json");
        return;
    }
    sha256_hex(str_of(id), hash);
    fmt_z(out, 256, "%%%s.json", hash);
}

static bool ends_with(const char *name, const char *suffix)
{
    return str_ends(str_of(name), str_of(suffix));
}

/* --- the directory --- */

static int make_dirs(const char *path, struct err *e)
{
    AUTO(free) char *dir = xstrdup(path);

    for (char *p = dir + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(dir, 0755) < 0 && errno != EEXIST)
            return err_sys(e, "make '%s'", dir);
        *p = '/';
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make '%s'", dir);
    return 0;
}

static int take_lock(int dir_fd, const char *path, int *ret_fd, struct err *e)
{
    AUTO(close_fd) int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(e, "open '%s/lock'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, ERR_CONFLICT, "another agent uses '%s' (stateDir chooses another one)",
                       path);
    *ret_fd = take_fd(&fd);
    return 0;
}

DEFINE_AUTO(spool_close, struct spool *);
DEFINE_AUTO(closedir, DIR *);

static int open_dir(const struct spool *s, DIR **ret, struct err *e)
{
    AUTO(close_fd) int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir)
        return err_sys(e, "read the spool");
    take_fd(&fd);
    *ret = dir;
    return 0;
}

int spool_open(const char *state_dir, struct spool **ret, struct err *e)
{
    AUTO(spool_close) struct spool *s = xcalloc(1, sizeof(*s));
    AUTO(free) char *path = xasprintf("%s/spool", state_dir);
    int r;

    s->dir_fd = s->lock_fd = -1;
    r = make_dirs(path, e);
    if (r < 0)
        return r;
    s->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0)
        return err_sys(e, "open '%s'", path);
    r = take_lock(s->dir_fd, path, &s->lock_fd, e);
    if (r < 0)
        return r;
    *ret = TAKE(s);
    return 0;
}

void spool_close(struct spool *s)
{
    if (!s)
        return;
    close_fd_auto(&s->lock_fd);
    close_fd_auto(&s->dir_fd);
    free(s);
}

/* --- writing --- */

static int write_all(int fd, struct str bytes, struct err *e)
{
    while (bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);

        if (n < 0 && errno != EINTR)
            return err_sys(e, "write to the spool");
        if (n > 0)
            bytes = (struct str){ bytes.p + n, bytes.n - (size_t)n };
    }
    return 0;
}

/* The first line. */
static int describe(const struct spool_entry *entry, struct buf *b, struct err *e)
{
    int r = buf_add_z(b, "{\"taskId\":", e);

    if (r == 0)
        r = json_write_str(b, str_of(entry->id), e);
    if (r == 0)
        r = buf_add_z(b, ",\"from\":", e);
    if (r == 0)
        r = json_write_str(b, str_of(entry->from), e);
    if (r == 0)
        r = buf_printf(b, e, ",\"state\":\"%s\",\"retry\":%s,\"seq\":%lld}\n",
                       state_names[entry->state], entry->retry ? "true" : "false", entry->seq);
    return r;
}

static int write_record(int fd, struct str head, struct str body, struct err *e)
{
    int r = write_all(fd, head, e);

    if (r == 0)
        r = write_all(fd, body, e);
    if (r == 0)
        r = write_all(fd, STR("\n"), e);
    if (r == 0 && fdatasync(fd) < 0)
        r = err_sys(e, "write to the spool");
    return r;
}

int spool_put(const struct spool *s, const struct spool_entry *entry, size_t *ret_bytes,
              struct err *e)
{
    AUTO(buf_done) struct buf head;
    AUTO(close_fd) int fd = -1;
    char name[256];
    off_t before;
    int r;

    buf_init(&head, 64 * KIB);
    spool_name(entry->id, name);
    r = describe(entry, &head, e);
    if (r < 0)
        return r;
    fd = openat(s->dir_fd, name,
                O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_APPEND |
                    (entry->there ? 0 : O_CREAT | O_TRUNC),
                0600);
    before = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (before < 0)
        return err_sys(e, "write to the spool");
    r = write_record(fd, buf_str(&head), entry->body, e);
    if (r < 0) {
        /* Nothing may stand behind half a record; an empty file is set aside. */
        if (ftruncate(fd, before) < 0 || before == 0)
            unlinkat(s->dir_fd, name, 0);
        return r;
    }
    *ret_bytes = (size_t)before + head.n + entry->body.n + 1;
    return 0;
}

int spool_sync(const struct spool *s, struct err *e)
{
    return fsync(s->dir_fd) < 0 ? err_sys(e, "sync the spool") : 0;
}

void spool_drop(const struct spool *s, const char *id)
{
    char name[256];

    spool_name(id, name);
    unlinkat(s->dir_fd, name, 0);
}

/* --- reading --- */

static int read_file(const struct spool *s, const char *name, struct buf *ret, struct err *e)
{
    AUTO(close_fd) int fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = 1;
    char *to;
    int r;

    if (fd < 0)
        return err_sys(e, "read the spool");
    while (n > 0) {
        r = buf_reserve(ret, 64 * KIB, &to, e);
        if (r < 0)
            return r;
        n = read(fd, to, 64 * KIB);
        if (n < 0)
            return err_sys(e, "read the spool");
        buf_commit(ret, (size_t)n);
    }
    return 0;
}

struct record {
    struct str head, body;
};

static bool take_line(struct str *rest, struct str *ret)
{
    const char *end = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;

    if (!end)
        return false;
    *ret = (struct str){ rest->p, (size_t)(end - rest->p) };
    rest->n -= ret->n + 1;
    rest->p = end + 1;
    return true;
}

/* The last whole record, with the last body there is; *ret_n is where it ends. */
static int last_record(struct str file, struct record *ret, size_t *ret_n, struct err *e)
{
    struct str rest = file, head, body;

    *ret = (struct record){ { NULL, 0 }, { NULL, 0 } };
    *ret_n = 0;
    while (take_line(&rest, &head) && take_line(&rest, &body)) {
        ret->head = head;
        if (body.n > 0)
            ret->body = body;
        *ret_n = (size_t)(rest.p - file.p);
    }
    return ret->body.n > 0 ? 0 : err_set(e, ERR_INVALID, "it is torn");
}

int spool_body(const struct spool *s, const char *id, struct buf *ret, struct err *e)
{
    struct record last;
    char name[256];
    size_t end;
    int r;

    spool_name(id, name);
    r = read_file(s, name, ret, e);
    if (r == 0)
        r = last_record(buf_str(ret), &last, &end, e);
    if (r < 0)
        return err_wrap(e, "'%s'", name);
    buf_eat(ret, (size_t)(last.body.p - buf_str(ret).p));
    ret->n = last.body.n;
    return 0;
}

static int parse_state(const char *name, enum spool_state *ret)
{
    for (size_t i = 0; name && i < LEN(state_names); i++) {
        if (strcmp(name, state_names[i]) == 0) {
            *ret = (enum spool_state)i;
            return 0;
        }
    }
    return -ERR_INVALID;
}

static int parse_entry(const struct record *last, const char *name, struct arena *a,
                       struct spool_entry *ret, struct err *e)
{
    char want[256];
    json_t *j;
    int r;

    r = json_parse(last->head, 4, a, &j, NULL, e);
    if (r < 0)
        return r;
    ret->body = last->body;
    ret->there = true;
    ret->id = json_string_value(json_object_get(j, "taskId"));
    ret->from = json_string_value(json_object_get(j, "from"));
    ret->retry = json_is_true(json_object_get(j, "retry"));
    ret->seq = json_integer_value(json_object_get(j, "seq"));
    if (!ret->id || !ret->from ||
        parse_state(json_string_value(json_object_get(j, "state")), &ret->state) < 0)
        return err_set(e, ERR_INVALID, "it is not a task");
    spool_name(ret->id, want);
    if (strcmp(want, name) != 0)
        return err_set(e, ERR_INVALID, "it has another's name");
    return json_check(ret->body, 512, e);
}

static void set_aside(const struct spool *s, const char *name, const struct err *why)
{
    char bad[270];

    fmt_z(bad, sizeof(bad), "%s.bad", name);
    renameat(s->dir_fd, name, s->dir_fd, bad);
    log_warn("a file of the spool was set aside", "file", LOG_STR(bad), "error", LOG_ERR(why));
}

/* What is torn goes, so that the next record does not stand behind it. */
static int cut_off(const struct spool *s, const char *name, size_t bytes, struct err *e)
{
    AUTO(close_fd) int fd = openat(s->dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || fdatasync(fd) < 0)
        return err_sys(e, "repair the spool");
    return 0;
}

static int load_one(const struct spool *s, const char *name, spool_found *fn, void *arg,
                    struct err *e)
{
    AUTO(buf_done) struct buf file;
    struct spool_entry entry = { 0 };
    struct arena a = { 0 };
    struct record last;
    size_t bytes = 0;
    int r;

    buf_init(&file, FILE_MAX);
    r = read_file(s, name, &file, e);
    if (r == 0)
        r = last_record(buf_str(&file), &last, &bytes, e);
    if (r == 0)
        r = parse_entry(&last, name, &a, &entry, e);
    if (r == 0 && bytes < file.n)
        r = cut_off(s, name, bytes, e);
    if (r < 0) {
        set_aside(s, name, e);
        r = 0;
    } else {
        r = fn(&entry, bytes, arg, e);
    }
    arena_done(&a);
    return r;
}

struct found {
    char name[256];
    long long seq;
};

static int by_seq(const void *a, const void *b)
{
    long long x = ((const struct found *)a)->seq, y = ((const struct found *)b)->seq;

    return x < y ? -1 : x > y;
}

/* Its seq stands at the end of a short first line. */
static long long seq_of(const struct spool *s, const char *name)
{
    AUTO(close_fd) int fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char head[4096], *at;
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof(head) - 1);

    if (n <= 0)
        return 0;
    head[n] = '\0';
    head[strcspn(head, "\n")] = '\0';
    at = strrchr(head, ':');
    return at ? strtoll(at + 1, NULL, 10) : 0;
}

static int collect(const struct spool *s, struct found **ret, size_t *ret_n, struct err *e)
{
    AUTO(closedir) DIR *dir = NULL;
    struct found *all = NULL;
    size_t n = 0, cap = 0;
    int r = open_dir(s, &dir, e);

    if (r < 0)
        return r;
    for (struct dirent *d = readdir(dir); d; d = readdir(dir)) {
        if (!ends_with(d->d_name, ".json"))
            continue;
        if (n == cap) {
            cap = cap ? 2 * cap : 16;
            all = xrealloc(all, cap * sizeof(*all));
        }
        fmt_z(all[n].name, sizeof(all[n].name), "%s", d->d_name);
        all[n].seq = seq_of(s, d->d_name);
        n++;
    }
    if (n > 0)
        qsort(all, n, sizeof(*all), by_seq);
    *ret = all;
    *ret_n = n;
    return 0;
}

int spool_load(const struct spool *s, spool_found *fn, void *arg, struct err *e)
{
    AUTO(free) struct found *all = NULL;
    size_t n = 0;
    int r = collect(s, &all, &n, e);

    for (size_t i = 0; r == 0 && i < n; i++)
        r = load_one(s, all[i].name, fn, arg, e);
    return r;
}
