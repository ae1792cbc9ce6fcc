/* SPDX-License-Identifier: MIT */
/*
 * machine/shim.c — the daemon's side of a shim: start it, and talk over its control socket. A
 * connection for each question; who gets none reads exit.json, which was written before the
 * socket went.
 */
#include "machine/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/time.h"
#include "machine/shim_int.h"
#include "net/stream.h"

enum { GONE = 1 };
#define LOOK_MS 10000 /* a shim that does not answer so long is a stopped one */

/* 0, or GONE: nobody is there. */
CO static int dial(const char *dir, uint64_t deadline_ms, int *ret_fd, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/shim.sock", dir);
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    AUTO(close_fd) int dir_fd = -1;
    struct sockaddr_un sa;
    int r;

    if (fd < 0)
        return err_sys(e, "socket");
    if (access(dir, F_OK) < 0)
        return GONE;
    r = unix_addr_of(path, &sa, &dir_fd, e);
    if (r < 0)
        return r;
    while (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR)
            return GONE;
        if (errno != EAGAIN && errno != EINTR)
            return err_sys(e, "connect to '%s'", path);
        if (now_ms() >= deadline_ms)
            return err_set(e, ERR_TIMEOUT, "the shim of '%s' does not answer", dir);
        r = fiber_sleep(10, e);
        if (r < 0)
            return r;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

/* Read up to the end of the connection, or of a line. GONE: it ended without one. */
CO static int read_line(int fd, uint64_t deadline_ms, bool to_end, char out[SHIM_LINE_MAX],
                        struct err *e)
{
    char more[256];
    size_t n = 0;
    ssize_t got;

    while (n + 1 < SHIM_LINE_MAX) {
        got = fiber_read(fd, out + n, SHIM_LINE_MAX - 1 - n, deadline_ms, e);
        if (got < 0)
            return e->code == ERR_TIMEOUT || e->code == ERR_CANCELED ? (int)got : GONE;
        n += (size_t)got;
        out[n] = '\0';
        if (got == 0)
            return n > 0 ? 0 : GONE;
        if (!to_end && memchr(out, '\n', n))
            return 0;
    }
    while ((got = fiber_read(fd, more, sizeof(more), deadline_ms, e)) > 0)
        ;
    return got == 0 ? 0 : (int)got;
}

/* One question and its answer, in the arena. GONE: there is no shim. */
CO static int ask(const char *dir, const char *question, bool to_end, uint64_t deadline_ms,
                  struct arena *a, json_t **ret, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    char *line = arena_alloc(a, SHIM_LINE_MAX);
    int r;

    r = dial(dir, deadline_ms, &fd, e);
    if (r != 0)
        return r;
    r = fiber_write_all(fd, question, strlen(question), deadline_ms, e);
    if (r < 0)
        return e->code == ERR_TIMEOUT || e->code == ERR_CANCELED ? r : GONE;
    r = read_line(fd, deadline_ms, to_end, line, e);
    if (r != 0)
        return r < 0 ? err_wrap(e, "the shim of '%s'", dir) : r;
    return json_parse(str_trim(str_of(line)), 4, a, ret, NULL, e);
}

static int64_t integer_of(const json_t *j, const char *key, int64_t absent)
{
    const json_t *v = json_object_get(j, key);

    return json_is_integer(v) ? json_integer_value(v) : absent;
}

static void state_of(const json_t *j, struct shim_state *ret)
{
    const json_t *cpu = json_object_get(j, "cpu");

    *ret = (struct shim_state){
        .alive = json_is_true(json_object_get(j, "alive")),
        .pid = (pid_t)integer_of(j, "pid", 0),
        .started_at = integer_of(j, "startedAt", 0),
        .status = (int)integer_of(j, "status", -1),
        .ended_at = integer_of(j, "endedAt", 0),
        .cpu_seconds = json_is_number(cpu) ? json_number_value(cpu) : -1,
        .memory = integer_of(j, "memory", -1),
        .limited = json_is_true(json_object_get(j, "limited")),
    };
}

/* What the last one left; status -1 when it left nothing. */
static int read_exit(const char *dir, struct arena *a, struct shim_state *ret, struct err *e)
{
    struct str text;
    json_t *j = NULL;
    int r;

    r = shim_file_read(dir, "exit.json", SHIM_LINE_MAX, a, &text, e);
    if (r == 0)
        r = json_parse(text, 4, a, &j, NULL, e);
    if (r < 0 && r != -ERR_NOT_FOUND && r != -ERR_INVALID)
        return r;
    state_of(j, ret);
    ret->alive = false;
    return 0;
}

CO int shim_look(struct loop *loop, const char *dir, struct shim_state *ret, struct err *e)
{
    struct arena a = { 0 };
    json_t *j;
    int r;

    r = ask(dir, "{\"op\":\"look\"}\n", false, deadline_in(LOOK_MS), &a, &j, e);
    if (r == 0)
        state_of(j, ret);
    else if (r == GONE)
        r = read_exit(dir, &a, ret, e);
    arena_done(&a);
    return r;
}

CO int shim_signal(struct loop *loop, const char *dir, int signo, struct err *e)
{
    struct arena a = { 0 };
    json_t *j;
    int r;

    r = ask(dir, arena_printf(&a, "{\"op\":\"signal\",\"n\":%d}\n", signo), false,
            deadline_in(LOOK_MS), &a, &j, e);
    arena_done(&a);
    return r == GONE ? err_set(e, ERR_NOT_FOUND, "nothing runs in '%s'", dir) : r;
}

CO int shim_stop(struct loop *loop, const char *dir, unsigned grace_ms, uint64_t deadline_ms,
                 struct err *e)
{
    struct arena a = { 0 };
    json_t *j;
    int r;

    r = ask(dir, arena_printf(&a, "{\"op\":\"stop\",\"n\":%u}\n", grace_ms), true, deadline_ms, &a,
            &j, e);
    arena_done(&a);
    return r == GONE ? 0 : r;
}

CO int shim_wait(struct loop *loop, const char *dir, uint64_t deadline_ms, struct shim_state *ret,
                 struct err *e)
{
    struct arena a = { 0 };
    json_t *j;
    int r;

    r = ask(dir, "{\"op\":\"wait\"}\n", true, deadline_ms, &a, &j, e);
    if (r == 0)
        state_of(j, ret);
    else if (r == GONE)
        r = read_exit(dir, &a, ret, e);
    arena_done(&a);
    return r;
}

/* The shim gets nothing of our environment but what its child is to have by default, and what a
 * sanitizer needs. */
static const char **shim_env(struct arena *a)
{
    static const char *const names[] = { "PATH", "HOME", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS" };
    const char **env = arena_alloc(a, (LEN(names) + 1) * sizeof(*env));
    size_t n = 0;

    for (size_t i = 0; i < LEN(names); i++)
        if (getenv(names[i]))
            env[n++] = arena_printf(a, "%s=%s", names[i], getenv(names[i]));
    return env;
}

/* What it says on standard error, and how it ends. */
CO static int hear(struct proc *p, uint64_t deadline_ms, char *text, size_t size, struct err *e)
{
    size_t n = 0;
    ssize_t got;

    do {
        got = fiber_read(p->err, text + n, size - 1 - n, deadline_ms, e);
        if (got > 0)
            n += (size_t)got;
    } while (got > 0);
    text[n] = '\0';
    return got < 0 ? (int)got : proc_wait(p, deadline_ms, e);
}

CO static int start(const char *program, const struct shim_spec *spec, uint64_t deadline_ms,
                    struct arena *a, struct err *e)
{
    const char *const argv[] = { program, "--shim", spec->dir, NULL };
    const struct proc_spec what = {
        .argv = argv, .env = shim_env(a), .in = PROC_NULL, .out = PROC_NULL, .err = PROC_PIPE
    };
    struct proc p = { .pidfd = -1, .in = -1, .out = -1, .err = -1 };
    char text[400];
    int code, r;

    r = proc_start(&what, &p, e);
    if (r < 0)
        return r;
    r = hear(&p, deadline_ms, text, sizeof(text), e);
    proc_end(&p, 0);
    code = proc_exit_code(&p);
    proc_done(&p);
    if (r < 0 || code == 0)
        return r;
    return err_set(e, code == SHIM_EXIT_CONFLICT ? ERR_CONFLICT : ERR_INTERNAL, "%.*s",
                   (int)strcspn(text, "\n"), text);
}

CO int shim_start(struct loop *loop, const char *program, const struct shim_spec *spec,
                  uint64_t deadline_ms, struct err *e)
{
    struct arena a = { 0 };
    int r;

    r = shim_spec_write(spec, e);
    if (r == 0)
        r = start(program, spec, deadline_ms, &a, e);
    arena_done(&a);
    return r;
}

static int add_tail(const char *path, size_t max, struct buf *ret, struct err *e)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    size_t n = 0;
    char *p;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(e, "open '%s'", path);
    if ((size_t)st.st_size < max)
        max = (size_t)st.st_size;
    r = max > 0 ? buf_reserve(ret, max, &p, e) : 0;
    if (r < 0)
        return r;
    while (n < max) {
        ssize_t got = pread(fd, p + n, max - n, st.st_size - (off_t)(max - n));

        if (got <= 0)
            break;
        n += (size_t)got;
    }
    buf_commit(ret, n);
    return 0;
}

int shim_log(const char *dir, size_t max, struct buf *ret, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/log", dir);
    AUTO(free) char *old = xasprintf("%s/log.1", dir);
    struct stat st;
    size_t newest;
    int r = 0;

    newest = stat(path, &st) == 0 ? (size_t)st.st_size : 0;
    if (newest < max)
        r = add_tail(old, max - newest, ret, e);
    return r < 0 ? r : add_tail(path, max, ret, e);
}
