/* SPDX-License-Identifier: MIT */
/*
 * hub/audit_file.c — the file of the audit log: its chain of hashes, its rotation, and what a crash
 * leaves. Everything here blocks: it runs at the start and on the log's own thread.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hub/audit_int.h"

#define HASH_KEY ",\"hash\":\""

/* Is it a line of ours, by its form? Its hash is then at the end of it. */
static bool line_formed(struct str line, struct str *ret_hash)
{
    const char *tail = line.p + line.n - AUDIT_TAIL;

    if (line.n <= AUDIT_TAIL || line.p[0] != '{' || memcmp(tail, HASH_KEY, strlen(HASH_KEY)) != 0 ||
        line.p[line.n - 1] != '}' || line.p[line.n - 2] != '"')
        return false;
    *ret_hash = (struct str){ tail + strlen(HASH_KEY), AUDIT_HASH };
    return true;
}

static void chain(const char *previous, struct str text, struct buf *scratch,
                  char out[AUDIT_HASH + 1])
{
    struct err e;

    buf_clear(scratch);
    if (buf_add(scratch, previous, AUDIT_HASH, &e) < 0 || buf_add_str(scratch, text, &e) < 0)
        abort(); /* both are bounded: AUDIT_LINE_MAX */
    sha256_hex(buf_str(scratch), out);
}

/* The last max bytes of the file. */
static int read_end(int fd, long long size, size_t max, struct buf *ret, struct err *e)
{
    long long at = size > (long long)max ? size - (long long)max : 0;
    char *p;

    while (at < size) {
        ssize_t n;
        int r = buf_reserve(ret, (size_t)(size - at), &p, e);

        if (r < 0)
            return r;
        n = pread(fd, p, (size_t)(size - at), at);
        if (n < 0 && errno != EINTR)
            return err_sys(e, "read the audit log");
        if (n == 0)
            break;
        buf_commit(ret, n > 0 ? (size_t)n : 0);
        at += n > 0 ? n : 0;
    }
    return 0;
}

/*
 * The hash of the last whole line into last, and how many bytes behind it belong to no line. A
 * whole line that lacks no more than its end of line is whole: its own hash proves it.
 */
static int find_end(int fd, long long size, char last[AUDIT_HASH + 1], size_t *ret_torn,
                    bool *ret_unended, struct err *e)
{
    AUTO(buf_done) struct buf end = { 0 }, scratch = { 0 };
    struct str rest, line, hash = { 0 };
    char proof[AUDIT_HASH + 1];
    int r;

    buf_init(&end, 4 * AUDIT_LINE_MAX);
    buf_init(&scratch, 4 * AUDIT_LINE_MAX + AUDIT_HASH);
    *ret_torn = 0;
    *ret_unended = false;
    r = read_end(fd, size, 4 * AUDIT_LINE_MAX, &end, e);
    rest = buf_str(&end);
    while (r == 0 && rest.n) {
        const char *nl = memchr(rest.p, '\n', rest.n);

        line = (struct str){ rest.p, nl ? (size_t)(nl - rest.p) : rest.n };
        if (nl && line_formed(line, &hash))
            memcpy(last, hash.p, AUDIT_HASH);
        if (!nl) {
            *ret_torn = line.n;
            if (line_formed(line, &hash)) {
                chain(last, (struct str){ line.p, line.n - AUDIT_TAIL }, &scratch, proof);
                *ret_unended = memcmp(proof, hash.p, AUDIT_HASH) == 0;
            }
        }
        rest = nl ? (struct str){ nl + 1, rest.n - line.n - 1 } : (struct str){ 0 };
    }
    if (r == 0 && *ret_unended) {
        memcpy(last, hash.p, AUDIT_HASH);
        *ret_torn = 0;
    }
    return r;
}

static int append(struct audit_file *f, struct str bytes, struct err *e)
{
    while (bytes.n) {
        ssize_t n = write(f->fd, bytes.p, bytes.n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "write '%s'", f->path);
        f->size += n;
        bytes = (struct str){ bytes.p + n, bytes.n - (size_t)n };
    }
    return 0;
}

/* Add the lines to out with their hashes; *last is where the chain is then. */
static int chain_all(struct str lines, char last[AUDIT_HASH + 1], struct buf *out, size_t *ret_n,
                     struct err *e)
{
    AUTO(buf_done) struct buf scratch = { 0 };
    struct str line;
    int r = 0;

    buf_init(&scratch, AUDIT_LINE_MAX + AUDIT_HASH + 1);
    *ret_n = 0;
    while (r == 0 && str_split(&lines, '\n', &line)) {
        if (!line.n)
            continue;
        chain(last, line, &scratch, last);
        r = buf_add_str(out, line, e);
        if (r == 0)
            r = buf_printf(out, e, HASH_KEY "%s\"}\n", last);
        ++*ret_n;
    }
    return r;
}

/* One line of the log's own. */
static int write_own(struct audit_file *f, const char *event, const char *extra, struct err *e)
{
    AUTO(buf_done) struct buf line = { 0 };
    size_t done;
    int r;

    buf_init(&line, AUDIT_LINE_MAX);
    r = audit_line_own(event, extra, &line, e);
    return r < 0 ? r : audit_file_write(f, buf_str(&line), &done, e);
}

static int open_file(struct audit_file *f, struct err *e)
{
    struct stat st;

    f->fd = open(f->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (f->fd < 0 || fstat(f->fd, &st) < 0)
        return err_sys(e, "open '%s'", f->path);
    f->size = st.st_size;
    return 0;
}

/* The first line of a new file says where the one before it ended. */
static int say_continued(struct audit_file *f, struct err *e)
{
    char extra[AUDIT_HASH + 32];

    fmt_z(extra, sizeof(extra), ",\"previous\":\"%s\"", f->last);
    return write_own(f, "audit.continued", extra, e);
}

/* A crash between the two halves of a rotation: the chain is in audit.log.1. */
static int open_older(struct audit_file *f, struct err *e)
{
    AUTO(free) char *older = xasprintf("%s.1", f->path);
    AUTO(close_fd) int fd = open(older, O_RDONLY | O_CLOEXEC);
    struct stat st;
    size_t torn;
    bool unended;
    int r;

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open '%s'", older);
    r = find_end(fd, st.st_size, f->last, &torn, &unended, e);
    return r < 0 ? r : say_continued(f, e);
}

int audit_file_open(struct audit_file *f, struct err *e)
{
    char extra[AUDIT_HASH + 64];
    size_t torn = 0;
    bool unended = false;
    int r;

    memset(f->last, '0', AUDIT_HASH);
    f->last[AUDIT_HASH] = 0;
    r = open_file(f, e);
    if (r == 0 && f->size == 0)
        return open_older(f, e);
    if (r == 0)
        r = find_end(f->fd, f->size, f->last, &torn, &unended, e);
    if (r == 0 && (torn || unended))
        r = append(f, STR("\n"), e);
    if (r < 0 || !torn)
        return r;
    fmt_z(extra, sizeof(extra), ",\"bytes\":%zu,\"previous\":\"%s\"", torn, f->last);
    return write_own(f, "audit.torn", extra, e);
}

static int rotate(struct audit_file *f, struct err *e)
{
    int r;

    for (long long i = f->keep; i >= 1; i--) {
        AUTO(free) char *from = i > 1 ? xasprintf("%s.%lld", f->path, i - 1) : xstrdup(f->path);
        AUTO(free) char *to = xasprintf("%s.%lld", f->path, i);

        if (rename(from, to) < 0 && errno != ENOENT)
            return err_sys(e, "rename '%s'", from);
    }
    (void)fdatasync(f->fd); /* it has been left behind: what the disk says of it helps nobody */
    close(f->fd);
    f->fd = -1;
    r = open_file(f, e);
    return r < 0 ? r : say_continued(f, e);
}

int audit_file_write(struct audit_file *f, struct str lines, size_t *ret_done, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    char last[AUDIT_HASH + 1];
    long long size;
    size_t n;
    int r;

    *ret_done = 0;
    if (f->fd < 0 && (r = open_file(f, e)) < 0)
        return r;
    size = f->size;
    memcpy(last, f->last, sizeof(last));
    buf_init(&out, SIZE_MAX / 2); /* lines are bounded, a hash is added to each */
    r = chain_all(lines, last, &out, &n, e);
    if (r == 0)
        r = append(f, buf_str(&out), e);
    if (r < 0) {
        /* A part of a line would break the chain for ever. */
        if (f->size > size && ftruncate(f->fd, size) == 0)
            f->size = size;
        return r;
    }
    memcpy(f->last, last, sizeof(last));
    *ret_done = n;
    return f->size > f->max ? rotate(f, e) : 0;
}

void audit_file_close(struct audit_file *f)
{
    if (f->fd >= 0) {
        (void)fdatasync(f->fd); /* nobody is left to be told */
        close(f->fd);
    }
    f->fd = -1;
    free(TAKE(f->path));
}
