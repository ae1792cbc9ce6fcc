/* SPDX-License-Identifier: MIT */
/*
 * agent/file.c — file:read and file:write: what they are asked and what they answer. The work is
 * done on a thread of the pool.
 */
#include "agent/types.h"

#include "agent/file_int.h"
#include "base/offload.h"
#include "base/secret.h"

struct read_job {
    struct task *t;
    const char *path;
    enum text_encoding encoding;
    bool part;
    long long offset, length;
    json_t *result;
};

static int get_encoding(const struct task *t, enum text_encoding *ret, struct err *e)
{
    const char *name;
    int r;

    r = task_text(t, "encoding", false, &name, e);
    if (r < 0)
        return r;
    if (!text_encoding_parse(name ? name : "utf8", ret))
        return err_set(e, ERR_INVALID,
                       "The argument 'encoding' is invalid encoding. Received '%.60s'", name);
    return 0;
}

/* --- reading --- */

static int open_regular(struct read_job *job, int *ret_fd, struct stat *ret_st, struct err *e)
{
    struct place place = { .dirfd = AT_FDCWD };
    AUTO(close_fd) int fd = -1;
    int r, eno;

    r = place_find(job->t, job->path, &place, e);
    if (r < 0)
        return r;
    fd = place_open(&place, place.rel, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    eno = errno;
    place_done(&place);
    if (fd < 0)
        return node_fail(job->t, eno, "open", job->path, e);
    if (fstat(fd, ret_st) < 0)
        return node_fail(job->t, errno, "fstat", NULL, e);
    if (S_ISDIR(ret_st->st_mode))
        return node_fail(job->t, EISDIR, "read", NULL, e);
    if (!S_ISREG(ret_st->st_mode))
        return task_fail(job->t, ERR_INVALID, e, "'%s' is not a regular file", job->path);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* Up to max bytes from offset on; fewer only at the end. Files of the kernel tell no size. */
static int read_bytes(struct read_job *job, int fd, size_t max, struct buf *ret, struct err *e)
{
    off_t at = job->offset;

    while (ret->n < max) {
        size_t want = max - ret->n < 256 * KIB ? max - ret->n : 256 * KIB;
        ssize_t n;
        char *p;
        int r;

        r = buf_reserve(ret, want, &p, e);
        if (r < 0)
            return r;
        n = pread(fd, p, want, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return node_fail(job->t, errno, "read", NULL, e);
        if (n == 0)
            break;
        buf_commit(ret, (size_t)n);
        at += n;
    }
    return 0;
}

static int add_content(struct read_job *job, struct str bytes, struct err *e)
{
    AUTO(buf_done) struct buf text;
    int r;

    buf_init(&text, FILE_TEXT_MAX);
    r = text_encode(job->encoding, bytes, &text, e);
    if (r == 0 && text_json_len(buf_str(&text)) > FILE_TEXT_MAX)
        r = err_set(e, ERR_LIMIT, "more than %zu bytes as JSON", FILE_TEXT_MAX);
    if (r == -ERR_LIMIT)
        return err_wrap(e, "read it as base64, or in parts");
    if (r < 0)
        return r;
    job->result = json_object();
    json_object_set_new(job->result, "filePath", json_string(job->path));
    json_object_set_new(job->result, "content", json_stringn(text.p ? text.p : "", text.n));
    return 0;
}

static int read_whole(struct read_job *job, int fd, struct err *e)
{
    AUTO(buf_done) struct buf bytes;
    int r;

    buf_init(&bytes, FILE_READ_MAX + 1);
    r = read_bytes(job, fd, FILE_READ_MAX + 1, &bytes, e);
    if (r < 0)
        return r;
    if (bytes.n > FILE_READ_MAX)
        return task_fail(job->t, ERR_LIMIT, e,
                         "'%s' has more than %zu bytes: read it in parts (offset, length)",
                         job->path, FILE_READ_MAX);
    r = add_content(job, buf_str(&bytes), e);
    if (r == 0)
        json_object_set_new(job->result, "size", json_integer((json_int_t)bytes.n));
    return r;
}

/* The checksum and the length of the whole file, as it is now. */
static int sum_whole(struct read_job *job, int fd, struct err *e)
{
    char hex[2 * SECRET_KEY + 1];
    long long size;
    int r = file_sum(fd, hex, &size);

    if (r != 0)
        return node_fail(job->t, r, "read", NULL, e);
    json_object_set_new(job->result, "sha256", json_string(hex));
    json_object_set_new(job->result, "size", json_integer(size));
    return 0;
}

static int read_part(struct read_job *job, int fd, const struct stat *st, struct err *e)
{
    AUTO(buf_done) struct buf bytes;
    bool eof;
    int r;

    buf_init(&bytes, (size_t)FILE_PART_MAX + 1);
    r = read_bytes(job, fd, (size_t)job->length + 1, &bytes, e); /* one more: is there any? */
    if (r < 0)
        return r;
    eof = bytes.n <= (size_t)job->length;
    if (!eof) {
        size_t whole = text_whole(job->encoding, (struct str){ bytes.p, (size_t)job->length });

        bytes.n = whole > 0 ? whole : (size_t)job->length;
    }
    r = add_content(job, buf_str(&bytes), e);
    if (r < 0)
        return r;
    json_object_set_new(job->result, "size", json_integer(st->st_size));
    json_object_set_new(job->result, "offset", json_integer(job->offset));
    json_object_set_new(job->result, "bytes", json_integer((json_int_t)bytes.n));
    json_object_set_new(job->result, "eof", json_boolean(eof));
    return eof ? sum_whole(job, fd, e) : 0;
}

static int read_file(void *arg, struct err *e)
{
    struct read_job *job = arg;
    AUTO(close_fd) int fd = -1;
    struct stat st;
    int r;

    r = open_regular(job, &fd, &st, e);
    if (r < 0)
        return r;
    return job->part ? read_part(job, fd, &st, e) : read_whole(job, fd, e);
}

CO int type_file_read(struct task *t, json_t **ret_result, struct err *e)
{
    struct read_job job = { .t = t };
    int r;

    r = task_text(t, "filePath", true, &job.path, e);
    if (r == 0)
        r = get_encoding(t, &job.encoding, e);
    if (r == 0)
        r = task_int(t, "offset", 0, INT64_MAX / 2, -1, &job.offset, e);
    if (r == 0)
        r = task_int(t, "length", 1, FILE_PART_MAX, -1, &job.length, e);
    if (r < 0)
        return r;
    job.part = job.offset >= 0 || job.length >= 0;
    if (job.offset < 0)
        job.offset = 0;
    if (job.length < 0)
        job.length = FILE_PART_DEF;
    r = offload(read_file, &job, e);
    if (r == 0)
        *ret_result = job.result;
    else
        json_decref(job.result);
    return r;
}

/* --- writing --- */

/* An integer, or an octal text: 420, "644", "0644". */
static int get_mode(const struct task *t, int *ret, struct err *e)
{
    const json_t *v = json_object_get(t->payload, "mode");
    const char *text = json_string_value(v);
    long long mode = json_is_integer(v) ? json_integer_value(v) : 0;
    char *end = NULL;

    *ret = -1;
    if (!v || json_is_null(v))
        return 0;
    if (text && strlen(text) >= 3 && strlen(text) <= 5) {
        mode = strtol(text, &end, 8);
        if (*end)
            mode = -1;
    }
    if ((!json_is_integer(v) && !end) || mode < 0 || mode > 07777)
        return err_set(e, ERR_INVALID, "\"mode\" must be octal digits (\"0644\") or an integer");
    *ret = (int)mode;
    return 0;
}

static bool is_hex_sum(const char *text)
{
    return strlen(text) == (size_t)(2 * SECRET_KEY) &&
           strspn(text, "0123456789abcdefABCDEF") == (size_t)(2 * SECRET_KEY);
}

static int get_transfer(const struct task *t, struct write_job *job, struct err *e)
{
    int r;

    r = task_text(t, "transferId", false, &job->transfer, e);
    if (r == 0)
        r = task_text(t, "sha256", false, &job->sha256, e);
    if (r == 0)
        r = task_int(t, "offset", 0, INT64_MAX / 2, 0, &job->offset, e);
    if (r < 0)
        return r;
    job->final = task_flag(t, "final");
    if (!job->transfer) {
        if (job->offset > 0)
            return err_set(e, ERR_INVALID, "\"offset\" needs a \"transferId\"");
        return 0;
    }
    if (strlen(job->transfer) > 200)
        return err_set(e, ERR_INVALID, "\"transferId\" is longer than 200 bytes");
    if (job->sha256 && !is_hex_sum(job->sha256))
        return err_set(e, ERR_INVALID, "\"sha256\" must be 64 hex digits");
    return 0;
}

static int get_content(const struct task *t, struct write_job *job, struct err *e)
{
    const json_t *v = json_object_get(t->payload, "content");

    if (!json_is_string(v))
        return err_set(e, ERR_INVALID, "The \"content\" argument must be of type string");
    job->text = (struct str){ json_string_value(v), json_string_length(v) };
    return 0;
}

CO int type_file_write(struct task *t, json_t **ret_result, struct err *e)
{
    struct write_job job = { .t = t };
    int r;

    r = task_text(t, "filePath", true, &job.path, e);
    if (r == 0)
        r = get_content(t, &job, e);
    if (r == 0)
        r = get_encoding(t, &job.encoding, e);
    if (r == 0)
        r = get_mode(t, &job.mode, e);
    if (r == 0)
        r = get_transfer(t, &job, e);
    if (r < 0)
        return r;
    r = offload(job.transfer ? transfer_part : write_whole, &job, e);
    *ret_result = job.result; /* of a part that did not fit there is one, too */
    return r;
}
