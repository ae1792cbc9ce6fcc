/* SPDX-License-Identifier: MIT */
/*
 * agent/run.c — one program of a task: started in a process group of its own, watched until it and
 * all that hold its pipes have ended (as Node's exec waits for `close`), or ended by us.
 *
 * The pipes and the process are watched by callbacks; the fiber waits for whatever comes first.
 * Ending works in a cancelled fiber too: it waits blind to that, for a bounded time.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/live.h"
#include "agent/task.h"
#include "agent/text.h"
#include "base/log.h"
#include "base/proc.h"

#define TERM_MS    3000  /* between SIGTERM and SIGKILL */
#define KILL_MS    10000 /* a process that outlives SIGKILL so long is left behind */
#define READ_SIZE  (4 * KIB)
#define READS      64 /* of one pipe in one turn */
#define ENV_MAX    8192
#define STDERR_MAX (64 * KIB) /* in the text of a failure */

extern char **environ;

enum stop { STOP_NO, STOP_TIMEOUT, STOP_CANCEL, STOP_STDOUT, STOP_STDERR };

struct pipe {
    struct job *job;
    struct loop_io *io; /* NULL: at its end */
    int fd;
    struct buf *into;
    enum stop over; /* why it is stopped past the limit */
};

struct job {
    struct task *task;
    const struct run_spec *spec;
    struct run_result *ret;
    struct fiber *fiber;
    struct proc proc;
    struct pipe out, err;
    struct loop_io *in; /* of its standard input; NULL: it has all, or takes no more */
    struct str left;    /* of that */
    struct loop_io *io; /* of the pidfd; NULL: ended */
    enum stop stop;
    bool late;
};

/* --- events --- */

static void at_end(struct pipe *p)
{
    loop_io_free(TAKE(p->io));
    fiber_wake(p->job->fiber);
}

static void keep(struct pipe *p, const char *bytes, size_t n)
{
    struct job *job = p->job;
    size_t room = p->into->max - p->into->n;
    struct err ignored;

    if (n > room && job->stop == STOP_NO) {
        job->stop = p->over;
        job->ret->truncated = true;
        fiber_wake(job->fiber);
    }
    if (buf_add(p->into, bytes, n < room ? n : room, &ignored) == 0 && job->spec->live)
        live_more(job->task->live);
}

static void on_pipe(struct loop_io *io, unsigned events, void *arg)
{
    struct pipe *p = arg;
    char chunk[READ_SIZE];
    ssize_t n = 1;

    for (int i = 0; i < READS && n > 0; i++) {
        n = read(p->fd, chunk, sizeof(chunk));
        if (n > 0)
            keep(p, chunk, (size_t)n);
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        at_end(p);
}

/* The end of what is given, or of who takes it: the pipe is closed. */
static void close_input(struct job *job)
{
    loop_io_free(TAKE(job->in));
    if (job->proc.in >= 0)
        close(job->proc.in);
    job->proc.in = -1;
}

static void on_input(struct loop_io *io, unsigned events, void *arg)
{
    struct job *job = arg;
    ssize_t n = 1;

    while (job->left.n && n > 0) {
        n = write(job->proc.in, job->left.p, job->left.n);
        if (n > 0)
            job->left = (struct str){ job->left.p + n, job->left.n - (size_t)n };
    }
    if (!job->left.n || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_input(job);
}

static void on_process(struct loop_io *io, unsigned events, void *arg)
{
    struct job *job = arg;

    loop_io_free(TAKE(job->io));
    fiber_wake(job->fiber);
}

static void watch(struct job *job)
{
    struct loop *loop = agent_loop(job->task->agent);
    struct pipe *pipes[] = { &job->out, &job->err };

    for (size_t i = 0; i < LEN(pipes); i++) {
        pipes[i]->io = loop_io_new(loop, pipes[i]->fd, on_pipe, pipes[i]);
        loop_io_want(pipes[i]->io, LOOP_READ);
    }
    job->left = job->spec->input;
    if (job->left.p) {
        job->in = loop_io_new(loop, job->proc.in, on_input, job);
        loop_io_want(job->in, LOOP_WRITE);
    }
    job->io = loop_io_new(loop, job->proc.pidfd, on_process, job);
    loop_io_want(job->io, LOOP_READ);
}

static void unwatch(struct job *job)
{
    loop_io_free(TAKE(job->out.io));
    loop_io_free(TAKE(job->err.io));
    loop_io_free(TAKE(job->io));
    close_input(job);
}

static bool is_over(const struct job *job)
{
    return !job->io && !job->out.io && !job->err.io;
}

/* --- ending --- */

static void on_late(void *arg)
{
    struct job *job = arg;

    job->late = true;
    fiber_wake(job->fiber);
}

CO static void wait_hard(struct job *job, bool for_pipes, long long ms)
{
    struct loop_timer *timer = loop_timer_new(agent_loop(job->task->agent), on_late, job);

    job->late = false;
    loop_timer_set(timer, deadline_in(ms));
    while ((for_pipes ? !is_over(job) : job->io != NULL) && !job->late)
        fiber_park_hard();
    loop_timer_free(timer);
}

/* What sudo has made root is not ours to signal: ask sudo again. */
CO static void signal_as_root(struct job *job, const char *signal)
{
    char group[32], name[16];
    const char *const argv[] = { "sudo", "-n", "--", "/bin/kill", name, "--", group, NULL };
    struct proc_spec spec = { .argv = argv };
    struct proc p;
    struct err e;

    fmt_z(group, sizeof(group), "-%d", (int)job->proc.pid);
    fmt_z(name, sizeof(name), "-%s", signal);
    if (proc_start(&spec, &p, &e) < 0) {
        log_warn("sudo did not start", "error", LOG_ERR(&e));
        return;
    }
    for (int i = 0; i < 50 && waitpid(p.pid, NULL, WNOHANG | WNOWAIT) == 0; i++)
        wait_hard(job, true, 20);
    proc_end(&p, 0);
    proc_done(&p);
}

CO static void signal_group(struct job *job, int signo, const char *name)
{
    proc_signal(&job->proc, signo);
    if (job->spec->sudo && geteuid() != 0)
        signal_as_root(job, name);
}

CO static void end(struct job *job)
{
    signal_group(job, SIGTERM, "TERM");
    wait_hard(job, true, TERM_MS);
    signal_group(job, SIGKILL, "KILL");
    wait_hard(job, false, KILL_MS);
}

/* Until it is over, or there is a reason to stop it. */
CO static int follow(struct job *job, uint64_t deadline_ms, struct err *e)
{
    int r = 0;

    while (!is_over(job) && job->stop == STOP_NO && r == 0)
        r = fiber_park(deadline_ms, e);
    if (r == -ERR_TIMEOUT)
        job->stop = STOP_TIMEOUT;
    else if (r < 0)
        job->stop = STOP_CANCEL;
    return r;
}

/* --- before --- */

static size_t name_len(const char *pair)
{
    return strcspn(pair, "=");
}

static void put_pair(const char **env, size_t *n, const char *pair)
{
    size_t len = name_len(pair), i = 0;

    while (i < *n && (strncmp(env[i], pair, len) != 0 || env[i][len] != '='))
        i++;
    if (i == *n && *n >= ENV_MAX)
        return;
    env[i] = pair;
    *n += i == *n;
}

static const char *value_text(const json_t *v, struct arena *a)
{
    if (json_is_integer(v))
        return arena_printf(a, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v))
        return arena_printf(a, "%.15g", json_real_value(v));
    if (json_is_boolean(v))
        return json_is_true(v) ? "true" : "false";
    return json_string_value(v);
}

static void put_object(const char **env, size_t *n, const json_t *object, struct arena *a)
{
    json_t *o, *value;
    const char *key;

    memcpy(&o, &object, sizeof(o)); /* only read: jansson's iteration has no const form */
    json_object_foreach(o, key, value)
    {
        const char *text = value_text(value, a);

        if (text)
            put_pair(env, n, arena_printf(a, "%s=%s", key, text));
    }
}

/* Ours without the token, the configuration's, the task's. */
static const char *const *make_env(struct job *job)
{
    const struct agent_conf *conf = agent_conf(job->task->agent);
    struct arena *a = job->task->arena;
    const char **env = arena_alloc(a, (ENV_MAX + 1) * sizeof(*env));
    size_t n = 0;

    for (char **p = environ; *p && n < ENV_MAX; p++)
        if (strncmp(*p, "AGENT_TOKEN=", 12) != 0)
            env[n++] = *p;
    put_object(env, &n, conf->env, a);
    put_object(env, &n, job->spec->env, a);
    put_pair(env, &n, arena_printf(a, LEFTOVER_NAME "=%s/%s", conf->id, job->task->id));
    env[n] = NULL;
    return env;
}

static const char *shown(struct task *t, const struct run_spec *spec)
{
    const char *text = "";

    if (spec->shown || spec->command)
        return spec->shown ? spec->shown : spec->command;
    for (const char *const *p = spec->argv; *p; p++)
        text = arena_printf(t->arena, "%s%s%s", text, p == spec->argv ? "" : " ", *p);
    return text;
}

static int check_cwd(const char *cwd, struct task *t, struct err *e)
{
    struct stat st;

    if (!cwd)
        return 0;
    if (stat(cwd, &st) < 0)
        return task_fail(t, ERR_INVALID, e,
                         errno == ENOENT ? "cwd does not exist: %s" : "cwd cannot be used: %s",
                         cwd);
    if (!S_ISDIR(st.st_mode))
        return task_fail(t, ERR_INVALID, e, "cwd is not a directory: %s", cwd);
    return 0;
}

static int start(struct job *job, struct err *e)
{
    const struct run_spec *spec = job->spec;
    const char *shell[] = { "/bin/sh", "-c", spec->command, NULL };
    const char *sudo[] = { "sudo", "-n", "--", "/bin/sh", "-c", spec->command, NULL };
    const char *work_dir = agent_conf(job->task->agent)->work_dir;
    const struct proc_spec what = {
        .argv = spec->argv   ? spec->argv
                : spec->sudo ? sudo
                             : shell,
        .env = make_env(job),
        .cwd = spec->cwd ? spec->cwd : work_dir,
        .in = spec->input.p ? PROC_PIPE : PROC_NULL,
        .out = PROC_PIPE,
        .err = PROC_PIPE,
    };
    int r;

    r = check_cwd(what.cwd, job->task, e);
    if (r < 0)
        return r;
    r = proc_start(&what, &job->proc, e);
    if (r < 0) {
        struct err why = *e;

        return task_fail(job->task, why.code, e, "Command failed: %s\n%s", shown(job->task, spec),
                         why.msg);
    }
    job->out = (struct pipe){ job, NULL, job->proc.out, &job->ret->out, STOP_STDOUT };
    job->err = (struct pipe){ job, NULL, job->proc.err, &job->ret->err, STOP_STDERR };
    watch(job);
    return 0;
}

/* --- after --- */

/* Trimmed, as UTF-8. */
static void make_text(struct buf *b)
{
    struct str text = str_trim(buf_str(b));
    struct err e;
    struct buf clean;
    int r;

    if (utf8_valid(text.p, text.n) && !(text.n && memchr(text.p, 0, text.n))) {
        size_t n = text.n;

        buf_eat(b, (size_t)(text.p - buf_str(b).p));
        b->n = n;
        return;
    }
    buf_init(&clean, 3 * b->max + 16);
    r = text_utf8(text, &clean, &e);
    assert(r == 0); /* a bad byte becomes at most three */
    buf_done(b);
    *b = clean;
}

static void note_end(struct job *job)
{
    struct run_result *ret = job->ret;
    int status = job->proc.status;

    ret->timed_out = job->stop == STOP_TIMEOUT;
    if (WIFEXITED(status)) {
        ret->exit_code = WEXITSTATUS(status);
        return;
    }
    ret->exit_code = -1;
    ret->signal =
        arena_printf(job->task->arena, "SIG%s",
                     sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "UNKNOWN");
}

/* The text of a failure: what stderr said, before it is trimmed. */
static const char *complaint(struct job *job)
{
    struct str text = buf_str(&job->ret->err);
    AUTO(buf_done) struct buf clean;
    struct err e;
    int r;

    if (text.n > STDERR_MAX)
        text.n = STDERR_MAX;
    buf_init(&clean, 3 * STDERR_MAX + 16);
    r = text_utf8(text, &clean, &e);
    assert(r == 0); /* a bad byte becomes at most three */
    return arena_strndup(job->task->arena, buf_str(&clean).p, clean.n);
}

static int judge(struct job *job, uint64_t timeout_ms, const char *stderr_text, struct err *e)
{
    const char *what = shown(job->task, job->spec);
    const struct run_result *ret = job->ret;

    switch (job->stop) {
    case STOP_TIMEOUT:
        return task_fail(job->task, ERR_TIMEOUT, e, "Command timed out after %llu ms: %s",
                         (unsigned long long)timeout_ms, what);
    case STOP_STDOUT:
        return task_fail(job->task, ERR_LIMIT, e, "stdout maxBuffer length exceeded");
    case STOP_STDERR:
        return task_fail(job->task, ERR_LIMIT, e, "stderr maxBuffer length exceeded");
    case STOP_CANCEL:
        return err_set(e, ERR_CANCELED, "canceled");
    case STOP_NO:
        break;
    }
    if (ret->exit_code == 0)
        return 0;
    return task_fail(job->task, ERR_INTERNAL, e, "Command failed: %s\n%s", what, stderr_text);
}

/* Reap it; a process that even SIGKILL did not end is left to init. */
CO static void reap(struct job *job)
{
    struct err e;

    if (job->io || proc_wait(&job->proc, DEADLINE_NONE, &e) < 0) {
        log_error("a process does not end", "pid", LOG_INT(job->proc.pid));
        close_fd_auto(&job->proc.pidfd);
        job->proc.pidfd = -1;
        job->proc.status = SIGKILL;
    }
    if (job->out.io)
        on_pipe(job->out.io, LOOP_READ, &job->out); /* its last words */
    if (job->err.io)
        on_pipe(job->err.io, LOOP_READ, &job->err);
    unwatch(job);
    note_end(job);
    proc_done(&job->proc);
}

CO int run_program(struct task *t, const struct run_spec *spec, struct run_result *ret,
                   struct err *e)
{
    struct job job = { .task = t, .spec = spec, .ret = ret, .fiber = fiber_self() };
    long long timeout_ms = spec->timeout_ms;
    const char *stderr_text;
    int r;

    if (timeout_ms <= 0)
        timeout_ms = agent_conf(t->agent)->default_timeout_ms;
    *ret = (struct run_result){ .exit_code = -1 };
    buf_init(&ret->out, spec->limit);
    buf_init(&ret->err, spec->limit);
    r = start(&job, e);
    if (r < 0)
        return r;
    if (spec->live)
        live_attach(t->live, &ret->out, &ret->err);
    r = follow(&job, deadline_in(timeout_ms), e);
    if (job.stop != STOP_NO)
        end(&job);
    if (spec->live)
        live_detach(t->live);
    reap(&job);
    stderr_text = complaint(&job);
    make_text(&ret->out);
    make_text(&ret->err);
    return judge(&job, (uint64_t)timeout_ms, stderr_text, e);
}

void run_done(struct run_result *r)
{
    buf_done(&r->out);
    buf_done(&r->err);
}

static json_t *text_json(const struct buf *b)
{
    return json_stringn(b->n ? buf_str(b).p : "", b->n);
}

json_t *run_json(const struct run_result *r)
{
    json_t *j = json_object();

    json_object_set_new(j, "stdout", text_json(&r->out));
    json_object_set_new(j, "stderr", text_json(&r->err));
    json_object_set_new(j, "exitCode", r->exit_code < 0 ? json_null() : json_integer(r->exit_code));
    if (r->signal)
        json_object_set_new(j, "signal", json_string(r->signal));
    if (r->timed_out)
        json_object_set_new(j, "timedOut", json_true());
    if (r->truncated)
        json_object_set_new(j, "truncated", json_true());
    return j;
}

/* As util.inspect shows a value of JSON in the texts of Node's RangeErrors. */
static const char *inspected(const json_t *v, struct arena *a)
{
    if (json_is_string(v))
        return arena_printf(a, "'%.100s'", json_string_value(v));
    if (json_is_object(v) || json_is_array(v))
        return json_is_object(v) ? "[object Object]" : "[Array]";
    return value_text(v, a);
}

int run_timeout(const struct task *t, long long *ret, struct err *e)
{
    const json_t *v = json_object_get(t->payload, "timeout");
    double n = json_number_value(v);

    /* What JavaScript takes for false is no timeout given. */
    if (!v || json_is_null(v) || json_is_false(v) || (json_is_number(v) && n == 0) ||
        (json_is_string(v) && json_string_length(v) == 0)) {
        *ret = 0;
        return 0;
    }
    if (!json_is_number(v) || n < 0 || n > 9007199254740991.0 || n != (double)(long long)n)
        return err_set(e, ERR_INVALID,
                       "The value of \"timeout\" is out of range. It must be an unsigned integer. "
                       "Received %s",
                       inspected(v, t->arena));
    *ret = (long long)n;
    return 0;
}
