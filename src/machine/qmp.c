/* SPDX-License-Identifier: MIT */
/* machine/qmp.c — see qmp.h. */
#include "machine/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define QMP_DEPTH      64
#define JOB_POLL_MS    50
#define CLOSE_GRACE_MS 2000
#define JOB_NAME       "chela"

struct qmp {
    int fd;
    long long last_id;
    struct buf in;
};

int qmp_line_parse(struct str text, struct arena *a, struct qmp_line *ret, struct err *e)
{
    struct qmp_line line = { .id = -1 };
    const json_t *part;
    json_t *j;

    if (json_parse(text, QMP_DEPTH, a, &j, NULL, e) < 0)
        return err_wrap(e, "QMP");
    if (!json_is_object(j))
        return err_set(e, ERR_INVALID, "QMP: a line is no object");
    if (json_is_integer(json_object_get(j, "id")))
        line.id = json_integer_value(json_object_get(j, "id"));
    if (json_is_object(json_object_get(j, "QMP"))) {
        line.kind = QMP_GREETING;
    } else if ((part = json_object_get(j, "return"))) {
        line.kind = QMP_RETURN;
        line.value = part;
    } else if (json_is_object(part = json_object_get(j, "error"))) {
        struct str desc = json_member_str(part, "desc");

        line.kind = QMP_ERROR;
        line.text = desc.p ? arena_strndup(a, desc.p, desc.n) : "an error without words";
    } else if (json_is_string(part = json_object_get(j, "event"))) {
        line.kind = QMP_EVENT;
        line.text = arena_strdup(a, json_string_value(part));
    } else {
        return err_set(e, ERR_INVALID, "QMP: a line is neither an answer nor an event");
    }
    *ret = line;
    return 0;
}

static CO int read_line(struct qmp *q, struct arena *a, uint64_t deadline_ms, struct qmp_line *ret,
                        struct err *e)
{
    struct str held, line;
    char *room;
    ssize_t n;

    for (;;) {
        held = buf_str(&q->in);
        if (held.n && memchr(held.p, '\n', held.n)) {
            line = held;
            line.n = (size_t)((const char *)memchr(held.p, '\n', held.n) - held.p);
            n = (ssize_t)line.n + 1;
            line = arena_str(a, line);
            buf_eat(&q->in, (size_t)n);
            return qmp_line_parse(line, a, ret, e);
        }
        if (buf_reserve(&q->in, 16 * KIB, &room, e) < 0)
            return err_wrap(e, "QMP");
        n = fiber_read(q->fd, room, 16 * KIB, deadline_ms, e);
        if (n < 0)
            return err_wrap(e, "QMP");
        if (n == 0)
            return err_set(e, ERR_UNAVAILABLE, "QEMU has closed its monitor");
        buf_commit(&q->in, (size_t)n);
    }
}

static int send_command(struct qmp *q, const char *command, const json_t *args, struct buf *out,
                        struct err *e)
{
    if (buf_printf(out, e, "{\"execute\":\"%s\",\"id\":%lld", command, ++q->last_id) < 0)
        return -(int)e->code;
    if (args && (buf_add_z(out, ",\"arguments\":", e) < 0 || json_write(args, out, e) < 0))
        return -(int)e->code;
    return buf_add_z(out, "}\r\n", e);
}

CO int qmp_call(struct qmp *q, const char *command, json_t *args, struct arena *a,
                uint64_t deadline_ms, const json_t **ret, struct err *e)
{
    AUTO(json_decref) json_t *owned = args;
    AUTO(buf_done) struct buf out;
    struct qmp_line line;

    buf_init(&out, QMP_LINE_MAX);
    if (send_command(q, command, owned, &out, e) < 0 ||
        fiber_write_all(q->fd, buf_str(&out).p, buf_str(&out).n, deadline_ms, e) < 0)
        return err_wrap(e, "QMP %s", command);
    do {
        if (read_line(q, a, deadline_ms, &line, e) < 0)
            return err_wrap(e, "%s", command);
    } while (line.kind == QMP_EVENT || line.kind == QMP_GREETING || line.id != q->last_id);
    if (line.kind == QMP_ERROR)
        return err_set(e, ERR_INTERNAL, "QEMU, %s: %s", command, line.text);
    if (ret)
        *ret = line.value;
    return 0;
}

/* The directory is QEMU's to write: a link that lies there is not followed. */
static int connect_to(const char *path, int *ret, struct err *e)
{
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    AUTO(close_fd) int at = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct stat st;

    if (fd < 0)
        return err_sys(e, "socket");
    if (at < 0)
        return err_set(e, ERR_UNAVAILABLE, "QEMU's monitor is not there: %s", strerror(errno));
    if (fstat(at, &st) < 0 || !S_ISSOCK(st.st_mode))
        return err_set(e, ERR_INTERNAL, "QEMU's monitor is no socket");
    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d", at);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_set(e, ERR_UNAVAILABLE, "QEMU's monitor does not answer: %s", strerror(errno));
    *ret = take_fd(&fd);
    return 0;
}

CO int qmp_open(const char *path, uint64_t deadline_ms, struct qmp **ret, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    AUTO(qmp_close) struct qmp *q = NULL;
    struct qmp_line line;
    int fd;

    if (connect_to(path, &fd, e) < 0)
        return -(int)e->code;
    q = xcalloc(1, sizeof(*q));
    q->fd = fd;
    buf_init(&q->in, QMP_LINE_MAX);
    if (read_line(q, &a, deadline_ms, &line, e) < 0)
        return -(int)e->code;
    if (line.kind != QMP_GREETING)
        return err_set(e, ERR_INTERNAL, "QMP: no greeting");
    if (qmp_call(q, "qmp_capabilities", NULL, &a, deadline_ms, NULL, e) < 0)
        return -(int)e->code;
    *ret = TAKE(q);
    return 0;
}

void qmp_close(struct qmp *q)
{
    if (!q)
        return;
    close(q->fd);
    buf_done(&q->in);
    free(q);
}

/* 1: the job has ended well. */
static CO int job_ended(struct qmp *q, uint64_t deadline_ms, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const json_t *jobs, *job;
    size_t i;

    if (qmp_call(q, "query-jobs", NULL, &a, deadline_ms, &jobs, e) < 0)
        return -(int)e->code;
    json_array_foreach(jobs, i, job)
    {
        struct str status = json_member_str(job, "status"), error = json_member_str(job, "error");

        if (!str_eq_z(json_member_str(job, "id"), JOB_NAME))
            continue;
        if (!str_eq_z(status, "concluded"))
            return 0;
        if (error.p)
            return err_set(e, ERR_INTERNAL, "QEMU: " STR_FMT, STR_ARG(error));
        return 1;
    }
    return err_set(e, ERR_INTERNAL, "QEMU has forgotten its job");
}

static json_t *job_args(void)
{
    return json_pack("{s:s}", "id", JOB_NAME);
}

static CO int job_wait(struct qmp *q, uint64_t deadline_ms, struct err *e)
{
    int r;

    while ((r = job_ended(q, deadline_ms, e)) == 0)
        if (now_ms() >= deadline_ms)
            return err_set(e, ERR_TIMEOUT, "QEMU's job takes too long");
        else if (fiber_sleep(JOB_POLL_MS, e) < 0)
            return -(int)e->code;
    return r < 0 ? r : 0;
}

/* A job whose waiter gave up would be in the next one's way. It may have ended meanwhile. */
static CO void job_drop(struct qmp *q)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct err ignored;

    if (qmp_call(q, "job-cancel", job_args(), &a, deadline_in(CLOSE_GRACE_MS), NULL, &ignored) == 0)
        (void)job_wait(q, deadline_in(CLOSE_GRACE_MS), &ignored);
}

CO int qmp_job(struct qmp *q, const char *command, json_t *args, uint64_t deadline_ms,
               struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct err ignored;
    int r;

    /* what a daemon that died in the middle has left */
    (void)qmp_call(q, "job-dismiss", job_args(), &a, deadline_ms, NULL, &ignored);
    json_object_set_new(args, "job-id", json_string(JOB_NAME));
    if (qmp_call(q, command, args, &a, deadline_ms, NULL, e) < 0)
        return -(int)e->code;
    r = job_wait(q, deadline_ms, e);
    if (r == -ERR_TIMEOUT || r == -ERR_CANCELED)
        job_drop(q);
    /* it is only a record by now */
    (void)qmp_call(q, "job-dismiss", job_args(), &a, deadline_in(CLOSE_GRACE_MS), NULL, &ignored);
    return r < 0 ? err_wrap(e, "%s", command) : 0;
}
