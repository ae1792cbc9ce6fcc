/* SPDX-License-Identifier: MIT */
/* machine/tool.c — see tool.h. */
#include "machine/tool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"

#define END_GRACE_MS 3000

struct reader {
    int fd;
    struct buf *to;
    uint64_t deadline_ms;
};

static CO int read_all(void *arg, struct err *e)
{
    struct reader *r = arg;
    char *room;
    ssize_t n;

    if (r->fd < 0) /* not wanted */
        return 0;
    for (;;) {
        if (buf_reserve(r->to, 4096, &room, e) < 0)
            return -(int)e->code;
        n = fiber_read(r->fd, room, 4096, r->deadline_ms, e);
        if (n <= 0)
            return (int)n;
        buf_commit(r->to, (size_t)n);
    }
}

/* A program that does not read all of its input is no error of ours: its status tells. */
static CO int write_input(const struct tool *tool, struct proc *p, struct err *e)
{
    int r = 0;

    if (p->in < 0)
        return 0;
    if (tool->input.n)
        r = fiber_write_all(p->in, tool->input.p, tool->input.n, tool->deadline_ms, e);
    close(p->in);
    p->in = -1;
    return r == -ERR_TIMEOUT || r == -ERR_CANCELED ? r : 0;
}

static CO int converse(const struct tool *tool, struct proc *p, struct tool_end *ret, struct err *e)
{
    struct reader out = { p->out, &ret->out, tool->deadline_ms };
    struct reader err = { p->err, &ret->err, tool->deadline_ms };
    struct fiber *other;
    struct err ignored;
    int r, s;

    if (fiber_spawn(fiber_loop(), "tool errors", read_all, &err, &other, e) < 0)
        return -(int)e->code;
    r = write_input(tool, p, e);
    if (r == 0)
        r = read_all(&out, e);
    if (r < 0)
        fiber_cancel(other);
    s = fiber_join(other, r < 0 ? &ignored : e);
    if (r == 0)
        r = s;
    return r < 0 ? r : proc_wait(p, tool->deadline_ms, e);
}

CO int tool_run(const struct tool *tool, struct tool_end *ret, struct err *e)
{
    const struct proc_spec spec = {
        .argv = tool->argv,
        .env = tool->env,
        .in = tool->input.n ? PROC_PIPE : PROC_NULL,
        .out = PROC_PIPE,
        .err = tool->quiet ? PROC_NULL : PROC_PIPE,
    };
    struct proc p;
    int r;

    *ret = (struct tool_end){ 0 };
    buf_init(&ret->out, TOOL_OUTPUT_MAX);
    buf_init(&ret->err, TOOL_OUTPUT_MAX);
    r = proc_start(&spec, &p, e);
    if (r < 0)
        return r == -ERR_NOT_FOUND
                   ? err_set(e, ERR_UNAVAILABLE, "'%s' is not installed", tool->argv[0])
                   : r;
    r = converse(tool, &p, ret, e);
    if (r < 0)
        proc_end(&p, END_GRACE_MS);
    ret->code = proc_exit_code(&p);
    proc_done(&p);
    return r < 0 ? err_wrap(e, "%s", tool->argv[0]) : 0;
}

void tool_end_done(struct tool_end *t)
{
    buf_done(&t->out);
    buf_done(&t->err);
}

struct str tool_last_words(struct str text, size_t n)
{
    const char *nl;

    text = str_trim(text);
    nl = memrchr(text.p ? text.p : "", '\n', text.n);
    if (nl)
        text = (struct str){ nl + 1, (size_t)(text.p + text.n - nl - 1) };
    if (text.n > n)
        text = (struct str){ text.p + text.n - n, n };
    return text;
}

CO int tool_must(const struct tool *tool, struct buf *out, struct err *e)
{
    AUTO(tool_end_done) struct tool_end end = { 0 };
    struct str words;

    if (tool_run(tool, &end, e) < 0)
        return -(int)e->code;
    if (end.code) {
        words = tool_last_words(buf_str(end.err.n ? &end.err : &end.out), 160);
        return err_set(e, ERR_INTERNAL, "%s ended with status %d: %.*s", tool->argv[0], end.code,
                       STR_ARG(words));
    }
    return out ? buf_add_str(out, buf_str(&end.out), e) : 0;
}

CO int tool_remove(const char *path, uint64_t deadline_ms, struct err *e)
{
    const char *const opens[] = { "chmod", "-Rf", "u+rwX", "--", path, NULL };
    const char *const removes[] = { "rm", "-rf", "--", path, NULL };
    const struct tool open = { .argv = opens, .deadline_ms = deadline_ms };
    const struct tool remove = { .argv = removes, .deadline_ms = deadline_ms };

    if (access(path, F_OK) < 0)
        return 0;
    if (geteuid() != 0 && tool_must(&open, NULL, e) < 0 && e->code == ERR_CANCELED)
        return -ERR_CANCELED; /* what cannot be opened is told by rm */
    return tool_must(&remove, NULL, e);
}

static bool in_path(const char *program)
{
    struct str path = str_of(getenv("PATH")), dir;
    char file[512];

    while (str_split(&path, ':', &dir)) {
        int n = snprintf(file, sizeof file, "%.*s/%s", STR_ARG(dir), program);

        if (n > 0 && (size_t)n < sizeof file && access(file, X_OK) == 0)
            return true;
    }
    return false;
}

int tool_find(const char *program, const char *package, struct err *e)
{
    if (strchr(program, '/') ? access(program, X_OK) == 0 : in_path(program))
        return 0;
    return err_set(e, ERR_UNAVAILABLE, "'%s' is not installed (%s)", program, package);
}
