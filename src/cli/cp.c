/* SPDX-License-Identifier: MIT */
/*
 * cli/cp.c — files and directories between here and a machine: one task for each part, a checksum
 * for each file, a temporary file on both sides until the checksum is right.
 *
 * What a machine says is not trusted: a name with a slash, or one that leads out, is refused, and
 * directories here are entered without following links. Symbolic links and devices are left out,
 * and said.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/rand.h"
#include "base/secret.h"
#include "cli/hub.h"

#define PART      (1 * MIB)
#define DEPTH_MAX 64
#define NAME_TEXT 64 /* of a temporary file, and of a transfer */

struct copy {
    struct cli *cli;
    const char *agent;
    struct progress progress;
    size_t files, left_out;
    long long bytes;
};

struct place {
    const char *agent; /* NULL: here */
    const char *path;
};

static struct place place_of(struct cli *cli, const char *text)
{
    const char *colon = strchr(text, ':'), *slash = strchr(text, '/');

    if (!colon || colon == text || (slash && slash < colon))
        return (struct place){ NULL, text };
    return (struct place){ arena_strndup(&cli->arena, text, (size_t)(colon - text)),
                           colon[1] ? colon + 1 : "." };
}

static const char *last_of(struct cli *cli, const char *path)
{
    size_t n = strlen(path);
    const char *from;

    while (n > 1 && path[n - 1] == '/')
        n--;
    for (from = path + n; from > path && from[-1] != '/'; from--)
        ;
    return arena_strndup(&cli->arena, from, (size_t)(path + n - from));
}

/* What last_of() leaves. */
static const char *dir_of(struct cli *cli, const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    return n ? arena_strndup(&cli->arena, path, n) : ".";
}

static const char *below(struct cli *cli, const char *dir, const char *name)
{
    size_t n = strlen(dir);

    return arena_printf(&cli->arena, n && dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
}

static void leave_out(struct copy *c, const char *path, const char *why)
{
    c->left_out++;
    progress_end(&c->progress);
    fprintf(stderr, "left out: %s (%s)\n", harmless(c->cli, stderr, path), why);
}

static void step(struct copy *c, const char *path, long long done, long long size)
{
    if (c->progress.terminal)
        progress_step(&c->progress, "%s  %lld%%", path, size > 0 ? done * 100 / size : 100);
    else if (done == 0)
        progress_step(&c->progress, "%s", path);
}

/* --- what the machine says of a path --- */

struct remote {
    bool exists, dir, file;
    long long size;
    unsigned mode;
};

static struct remote remote_of(const json_t *j)
{
    const json_t *mode = json_object_get(j, "mode");
    const char *type = json_string_value(json_object_get(j, "type"));
    struct remote r = { .exists = true, .size = json_integer_value(json_object_get(j, "size")) };

    r.file = type && strcmp(type, "file") == 0;
    r.dir = type && (strcmp(type, "directory") == 0 || strcmp(type, "dir") == 0);
    r.mode = json_is_string(mode) ? (unsigned)strtoul(json_string_value(mode), NULL, 8)
                                  : (unsigned)json_integer_value(mode);
    r.mode &= 0777;
    return r;
}

static CO int look(struct copy *c, const char *path, struct remote *ret, struct err *e)
{
    json_t *body = json_pack("{s:s, s:s}", "type", "file:stat", "filePath", path), *result;
    int r;

    if (!body)
        return err_set(e, ERR_INVALID, "the path is not valid UTF-8");
    r = task_result(c->cli, c->agent, body, &result, e);
    if (r < 0 && strstr(e->msg, "ENOENT")) {
        *ret = (struct remote){ 0 };
        return 0;
    }
    if (r == 0)
        *ret = remote_of(result);
    return r;
}

/* --- to here --- */

static int name_check(const char *name, struct err *e)
{
    if (!name || !*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(e, ERR_INVALID, "the machine names a file '%s', which is refused",
                       name ? name : "");
    return 0;
}

static int write_all(int fd, struct str data, struct err *e)
{
    while (data.n) {
        ssize_t n = write(fd, data.p, data.n);

        if (n < 0 && errno != EINTR)
            return err_sys(e, "write");
        if (n > 0)
            data = (struct str){ data.p + n, data.n - (size_t)n };
    }
    return 0;
}

/* A part of the file; its text lives in the arena. */
static CO int read_part(struct copy *c, const char *path, long long offset, struct arena *a,
                        struct str *ret, json_t **ret_result, struct err *e)
{
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "type", "file:read", "filePath", path, "encoding",
                  "base64", "offset", (json_int_t)offset, "length", (json_int_t)PART);
    struct str content;
    int r = task_result(c->cli, c->agent, body, ret_result, e);

    if (r < 0)
        return r;
    content = json_member_str(*ret_result, "content");
    if (!content.p)
        return err_set(e, ERR_INTERNAL, "the agent answered without content");
    return base64_decode(content, a, ret, e);
}

/* Memory of one part: what a task leaves in the arena goes with it. */
static CO int fetch_parts(struct copy *c, const char *path, int fd, struct sha256_sum *sum,
                          char theirs[2 * SECRET_KEY + 1], struct err *e)
{
    long long offset = 0;
    bool end = false;
    int r = 0;

    while (r == 0 && !end) {
        struct arena kept = scratch_begin(c->cli);
        json_t *result = NULL;
        struct str data;

        r = read_part(c, path, offset, &c->cli->arena, &data, &result, e);
        if (r == 0)
            r = write_all(fd, data, e);
        if (r == 0) {
            sha256_add(sum, data.p, data.n);
            offset += (long long)data.n;
            end = json_is_true(json_object_get(result, "eof"));
            (void)snprintf(theirs, 2 * SECRET_KEY + 1, "%s",
                           member_text(c->cli, result, "sha256")); /* what is longer is wrong */
            step(c, path, offset, json_integer_value(json_object_get(result, "size")));
            if (!end && !data.n)
                r = err_set(e, ERR_INTERNAL, "'%s' ends before its end", path);
        }
        scratch_end(c->cli, kept);
    }
    c->bytes += offset;
    return r;
}

static CO int fetch_into(struct copy *c, const char *path, int fd, struct err *e)
{
    char theirs[2 * SECRET_KEY + 1] = "", ours[2 * SECRET_KEY + 1];
    struct sha256_sum *sum = sha256_new();
    unsigned char digest[SECRET_KEY];
    int r = fetch_parts(c, path, fd, sum, theirs, e);

    sha256_end(sum, digest);
    hex_format(digest, sizeof(digest), ours);
    if (r == 0 && strcmp(ours, theirs) != 0)
        return err_set(e, ERR_INTERNAL, "'%s' came with another checksum than it has there", path);
    return r;
}

/* path of the machine → dirfd/name. */
static CO int fetch_file(struct copy *c, const char *path, int dirfd, const char *name,
                         unsigned mode, struct err *e)
{
    char temporary[NAME_TEXT];
    AUTO(close_fd) int fd = -1;
    int r;

    fmt_z(temporary, sizeof(temporary), ".chela-%016llx", (unsigned long long)rand_u64());
    step(c, path, 0, 0);
    fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "make '%s'", name);
    r = fetch_into(c, path, fd, e);
    if (r == 0 && fchmod(fd, mode ? mode : 0644) < 0)
        r = err_sys(e, "mode of '%s'", name);
    if (r == 0 && renameat(dirfd, temporary, dirfd, name) < 0)
        r = err_sys(e, "put '%s' in place", name);
    if (r < 0) {
        unlinkat(dirfd, temporary, 0);
        return r;
    }
    c->files++;
    return 0;
}

static int enter_dir(int dirfd, const char *name, unsigned mode, struct err *e)
{
    int fd;

    if (mkdirat(dirfd, name, mode ? mode | 0700 : 0755) < 0 && errno != EEXIST)
        return err_sys(e, "make directory '%s'", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_sys(e, "enter '%s'", name) : fd;
}

static CO int fetch_dir(struct copy *c, const char *path, int dirfd, const char *name,
                        unsigned mode, unsigned depth, struct err *e)
{
    json_t *body = json_pack("{s:s, s:s}", "type", "file:list", "path", path), *result;
    AUTO(close_fd) int here = enter_dir(dirfd, name, mode, e);
    const json_t *entries, *entry;
    int r = here < 0 ? here : task_result(c->cli, c->agent, json_incref(body), &result, e);

    json_decref(body);
    if (r == 0 && depth > DEPTH_MAX)
        r = err_set(e, ERR_LIMIT, "'%s' is over %d directories deep", path, DEPTH_MAX);
    if (r == 0 && json_is_true(json_object_get(result, "truncated")))
        r = err_set(e, ERR_LIMIT, "'%s' has more entries than are listed", path);
    entries = r == 0 ? json_object_get(result, "entries") : NULL;
    for (size_t i = 0; r == 0 && i < json_array_size(entries); i++) {
        const char *child, *full;
        struct remote what;

        entry = json_array_get(entries, i);
        child = json_string_value(json_object_get(entry, "name"));
        what = remote_of(entry);
        r = name_check(child, e);
        if (r < 0)
            return r;
        full = below(c->cli, path, child);
        if (what.dir)
            r = fetch_dir(c, full, here, child, what.mode, depth + 1, e);
        else if (what.file)
            r = fetch_file(c, full, here, child, what.mode, e);
        else
            leave_out(c, full, "neither a file nor a directory");
    }
    return r;
}

/* A directory that exists takes the thing under its own name, as cp does it. */
static CO int fetch(struct copy *c, const char *from, const char *to, struct err *e)
{
    const char *name = last_of(c->cli, from), *dir = to;
    AUTO(close_fd) int fd = -1;
    struct remote what;
    struct stat st;
    int r = look(c, from, &what, e);

    if (r == 0 && !what.exists)
        r = err_set(e, ERR_NOT_FOUND, "%s:%s: no such file or directory", c->agent, from);
    if (r < 0)
        return r;
    if (stat(to, &st) < 0 || !S_ISDIR(st.st_mode)) {
        name = last_of(c->cli, to);
        dir = dir_of(c->cli, to);
    }
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "/") == 0)
        return err_set(e, ERR_INVALID, "name a file or a directory below '%s'", from);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "enter '%s'", dir);
    if (what.dir)
        return fetch_dir(c, from, fd, name, what.mode, 0, e);
    if (what.file)
        return fetch_file(c, from, fd, name, what.mode, e);
    return err_set(e, ERR_INVALID, "%s:%s is neither a file nor a directory", c->agent, from);
}

/* --- from here --- */

static int sum_of(int fd, char out[2 * SECRET_KEY + 1], struct err *e)
{
    struct sha256_sum *sum = sha256_new();
    unsigned char digest[SECRET_KEY];
    AUTO(free) char *part = xmalloc(PART);
    off_t at = 0;
    ssize_t n;

    while ((n = pread(fd, part, PART, at)) > 0) {
        sha256_add(sum, part, (size_t)n);
        at += n;
    }
    sha256_end(sum, digest);
    hex_format(digest, sizeof(digest), out);
    return n < 0 ? err_sys(e, "read") : 0;
}

struct sending {
    const char *path; /* there */
    char transfer[NAME_TEXT], sum[2 * SECRET_KEY + 1];
    unsigned mode;
    long long size;
};

static CO int send_part(struct copy *c, const struct sending *s, struct str data, long long offset,
                        bool final, struct err *e)
{
    struct arena kept = scratch_begin(c->cli);
    struct str text;
    json_t *body, *result;
    int r;

    text = base64_encode(data, &c->cli->arena);
    body = json_pack("{s:s, s:s, s:s#, s:s, s:I, s:s, s:b}", "type", "file:write", "filePath",
                     s->path, "content", text.p, (int)text.n, "encoding", "base64", "offset",
                     (json_int_t)offset, "transferId", s->transfer, "final", final);
    if (final) {
        json_object_set_new(body, "sha256", json_string(s->sum));
        json_object_set_new(body, "mode", json_integer(s->mode));
    }
    r = task_result(c->cli, c->agent, body, &result, e);
    scratch_end(c->cli, kept);
    return r;
}

static CO int send_file(struct copy *c, int fd, const char *path, struct err *e)
{
    struct sending s = { .path = path };
    AUTO(free) char *part = xmalloc(PART);
    struct stat st;
    long long at = 0;
    bool final = false;
    int r;

    if (fstat(fd, &st) < 0)
        return err_sys(e, "look at '%s'", path);
    s.mode = st.st_mode & 0777;
    s.size = st.st_size;
    fmt_z(s.transfer, sizeof(s.transfer), "cp-%016llx%016llx", (unsigned long long)rand_u64(),
          (unsigned long long)rand_u64());
    r = sum_of(fd, s.sum, e);
    while (r == 0 && !final) {
        ssize_t n = pread(fd, part, PART, at);

        if (n < 0)
            return err_sys(e, "read '%s'", path);
        step(c, path, at, s.size);
        final = at + n >= s.size || n == 0;
        r = send_part(c, &s, (struct str){ part, (size_t)n }, at, final, e);
        at += n;
    }
    if (r < 0)
        return err_wrap(e, "%s", path);
    c->files++;
    c->bytes += at;
    return 0;
}

static CO int make_dir(struct copy *c, const char *path, struct err *e)
{
    const char *command = arena_printf(&c->cli->arena, "mkdir -p -- %s", shell_word(c->cli, path));
    json_t *result;

    return task_result(c->cli, c->agent,
                       json_pack("{s:s, s:s}", "type", "exec", "command", command), &result, e);
}

/* The names in a directory, sorted, in the arena: nothing is open while tasks run. */
static int names_of(struct copy *c, int fd, struct dirent ***ret, int *ret_n, struct err *e)
{
    AUTO(free) char *path = xasprintf("/proc/self/fd/%d", fd);

    *ret_n = scandir(path, ret, NULL, alphasort);
    return *ret_n < 0 ? err_sys(e, "list a directory") : 0;
}

static CO int send_dir(struct copy *c, int fd, const char *path, unsigned depth, struct err *e);

static CO int send_entry(struct copy *c, int dirfd, const char *name, const char *path,
                         unsigned depth, struct err *e)
{
    AUTO(close_fd) int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0 && (errno == ELOOP || errno == ENXIO)) {
        leave_out(c, path, errno == ELOOP ? "a symbolic link" : "a socket");
        return 0;
    }
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open '%s'", name);
    if (S_ISDIR(st.st_mode))
        return send_dir(c, fd, path, depth + 1, e);
    if (S_ISREG(st.st_mode))
        return send_file(c, fd, path, e);
    leave_out(c, path, "neither a file nor a directory");
    return 0;
}

static CO int send_dir(struct copy *c, int fd, const char *path, unsigned depth, struct err *e)
{
    struct dirent **names = NULL;
    int n = 0, r = make_dir(c, path, e);

    if (r == 0 && depth > DEPTH_MAX)
        r = err_set(e, ERR_LIMIT, "'%s' is over %d directories deep", path, DEPTH_MAX);
    if (r == 0)
        r = names_of(c, fd, &names, &n, e);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;

        if (r == 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            r = send_entry(c, fd, name, below(c->cli, path, name), depth, e);
        free(names[i]);
    }
    free(names);
    return r;
}

static CO int give(struct copy *c, const char *from, const char *to, struct err *e)
{
    AUTO(close_fd) int fd = open(from, O_RDONLY | O_CLOEXEC);
    size_t n = strlen(to);
    struct remote there;
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open '%s'", from);
    r = look(c, to, &there, e);
    if (r < 0)
        return r;
    if (there.dir || to[n - 1] == '/')
        to = below(c->cli, to, last_of(c->cli, from));
    if (S_ISDIR(st.st_mode))
        return send_dir(c, fd, to, 0, e);
    if (S_ISREG(st.st_mode))
        return send_file(c, fd, to, e);
    return err_set(e, ERR_INVALID, "'%s' is neither a file nor a directory", from);
}

static int tell(struct copy *c, struct err *e)
{
    AUTO(json_decref) json_t *said = NULL;

    if (c->cli->json) {
        said = json_pack("{s:I, s:I, s:I}", "files", (json_int_t)c->files, "bytes",
                         (json_int_t)c->bytes, "leftOut", (json_int_t)c->left_out);
        return print_json(said, e);
    }
    progress_done(&c->progress, "Copied %zu files, %lld bytes", c->files, c->bytes);
    if (!c->cli->vm)
        printf("copied %zu files, %lld bytes\n", c->files, c->bytes);
    return 0;
}

CO int machine_copy(struct cli *cli, const char *from, const char *to, struct err *e)
{
    struct place source = place_of(cli, from), target = place_of(cli, to);
    struct copy c = { .cli = cli, .agent = source.agent ? source.agent : target.agent };
    int r;

    if (!source.agent == !target.agent)
        return err_set(e, ERR_INVALID, "one side, and only one, is NAME:PATH");
    progress_start(&c.progress, cli, "%s", from);
    r = source.agent ? fetch(&c, source.path, target.path, e)
                     : give(&c, source.path, target.path, e);
    if (r == 0)
        return tell(&c, e);
    progress_fail(&c.progress, "Failed to copy %s", from);
    return r;
}
