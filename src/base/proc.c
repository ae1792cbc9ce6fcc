/* SPDX-License-Identifier: MIT */
/*
 * base/proc.c — child processes.
 *
 * Between fork and exec the child calls nothing but async-signal-safe functions: another thread
 * may have held any lock at the fork. What it needs is prepared before; what goes wrong in it
 * comes back through a pipe that exec closes.
 *
 * The process group of a child has its pid as long as the child is not reaped, so signals go to
 * the group only until then.
 */
#include "base/proc.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/str.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

enum step { STEP_EXEC, STEP_CWD, STEP_STREAM, STEP_GROUP };

/* What a child that could not become its program writes. */
struct report {
    enum step step;
    int eno;
};

/* Everything the child looks at. */
struct plan {
    const struct proc_spec *spec;
    char *const *argv, *const *env;
    char **paths; /* to try in turn, NULL-terminated */
    pid_t parent;
    int in, out, err; /* its ends of the pipes, none of them 0 to 2, or -1 */
    int report;
};

_Noreturn static void fail(const struct plan *plan, enum step step)
{
    struct report report = { step, errno };
    ssize_t n = write(plan->report, &report, sizeof(report));

    (void)n; /* if nobody reads it, nobody is there to be told */
    _exit(127);
}

static int redirect(enum proc_stream how, int pipe_end, int fd, int flags)
{
    int null;

    switch (how) {
    case PROC_INHERIT:
        return 0;
    case PROC_PIPE:
        return dup2(pipe_end, fd);
    case PROC_TO_STDOUT:
        return dup2(STDOUT_FILENO, fd);
    case PROC_NULL:
        break;
    }
    null = open("/dev/null", flags);
    if (null < 0 || null == fd)
        return null;
    if (dup2(null, fd) < 0)
        return -1;
    return close(null);
}

static void reset_signals(void)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };
    sigset_t none;

    for (int signo = 1; signo < NSIG; signo++)
        (void)sigaction(signo, &dfl, NULL); /* refused for KILL, STOP and libc's own */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void child(const struct plan *plan)
{
    const struct proc_spec *spec = plan->spec;
    int denied = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan->parent)
        _exit(127); /* it died before we asked to be told */
    if (setpgid(0, 0) < 0)
        fail(plan, STEP_GROUP);
    reset_signals();

    if (redirect(spec->in, plan->in, STDIN_FILENO, O_RDONLY) < 0 ||
        redirect(spec->out, plan->out, STDOUT_FILENO, O_WRONLY) < 0 ||
        redirect(spec->err, plan->err, STDERR_FILENO, O_WRONLY) < 0)
        fail(plan, STEP_STREAM);
    /* Ours are all close-on-exec already; a library's may not be. Before Linux 5.11 this fails. */
    (void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    if (spec->cwd && chdir(spec->cwd) < 0)
        fail(plan, STEP_CWD);

    for (char **path = plan->paths; *path; path++) {
        execve(*path, plan->argv, plan->env);
        if (errno == EACCES)
            denied = EACCES; /* says more than that the next directory has none */
        else if (errno != ENOENT && errno != ENOTDIR)
            fail(plan, STEP_EXEC);
    }
    if (denied)
        errno = denied;
    fail(plan, STEP_EXEC);
}

static void free_paths(char **paths)
{
    for (char **path = paths; *path; path++)
        free(*path);
    free(paths);
}
DEFINE_AUTO(free_paths, char **);

/* Where the program may be, as a shell would look for it. */
static char **find_paths(const char *program)
{
    const char *env = getenv("PATH");
    struct str rest = str_of(env ? env : "/usr/local/bin:/usr/bin:/bin"), dir;
    char **paths;
    size_t n = 0, cap = 2;

    for (size_t i = 0; i < rest.n; i++)
        cap += rest.p[i] == ':';
    paths = xcalloc(cap, sizeof(*paths));
    if (strchr(program, '/') || !*program) {
        paths[0] = xstrdup(program);
        return paths;
    }
    while (n + 1 < cap && str_split(&rest, ':', &dir))
        if (dir.n > 0) /* an empty part would be the current directory */
            paths[n++] = xasprintf(STR_FMT "/%s", STR_ARG(dir), program);
    return paths;
}

struct pipes {
    int ours[3], theirs[3]; /* of in, out, err; -1 where there is no pipe */
};

static void pipes_done_auto(struct pipes *p)
{
    for (int i = 0; i < 3; i++) {
        close_fd_auto(&p->ours[i]);
        close_fd_auto(&p->theirs[i]);
    }
}

/* A program started with its standard streams closed gets pipes there; the child needs the places.
 */
static int move_up(int *fd, struct err *e)
{
    int up;

    if (*fd > STDERR_FILENO)
        return 0;
    up = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (up < 0)
        return err_sys(e, "make a pipe");
    close(*fd);
    *fd = up;
    return 0;
}

static int make_pipe(int *ret_read, int *ret_write, struct err *e)
{
    AUTO(close_fd) int rd = -1;
    AUTO(close_fd) int wr = -1;
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_sys(e, "make a pipe");
    rd = fds[0];
    wr = fds[1];
    r = move_up(&rd, e);
    if (r < 0)
        return r;
    r = move_up(&wr, e);
    if (r < 0)
        return r;
    *ret_read = take_fd(&rd);
    *ret_write = take_fd(&wr);
    return 0;
}

static int make_pipes(const struct proc_spec *spec, struct pipes *p, struct err *e)
{
    const enum proc_stream how[3] = { spec->in, spec->out, spec->err };
    int r;

    for (int i = 0; i < 3; i++) {
        assert(how[i] != PROC_TO_STDOUT || i == STDERR_FILENO);
        if (how[i] != PROC_PIPE)
            continue;
        if (i == STDIN_FILENO)
            r = make_pipe(&p->theirs[i], &p->ours[i], e);
        else
            r = make_pipe(&p->ours[i], &p->theirs[i], e);
        if (r < 0)
            return r;
        if (fcntl(p->ours[i], F_SETFL, O_NONBLOCK) < 0)
            return err_sys(e, "make a pipe");
    }
    return 0;
}

/* No handler of ours may run in the child before it has reset them. */
static pid_t fork_quietly(void)
{
    sigset_t all, before;
    pid_t pid;
    int eno;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    eno = errno;
    if (pid != 0)
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = eno;
    return pid;
}

/* Returns once the child has become its program, which takes no longer than exec does. */
static int wait_for_exec(int fd, const struct proc_spec *spec, struct err *e)
{
    struct report report = { 0 };
    ssize_t n;

    do
        n = read(fd, &report, sizeof(report));
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    if (n != (ssize_t)sizeof(report))
        return err_set(e, ERR_INTERNAL, "no report from the child");
    switch (report.step) {
    case STEP_CWD:
        return err_sysn(e, report.eno, "start \"%s\" in \"%s\"", spec->argv[0], spec->cwd);
    case STEP_STREAM:
        return err_sysn(e, report.eno, "start \"%s\": set up its streams", spec->argv[0]);
    case STEP_GROUP:
        return err_sysn(e, report.eno, "start \"%s\": make a process group", spec->argv[0]);
    case STEP_EXEC:
        break;
    }
    return err_sysn(e, report.eno, "start \"%s\"", spec->argv[0]);
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static int start(struct plan *plan, pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
    AUTO(close_fd) int report_rd = -1;
    AUTO(close_fd) int report_wr = -1;
    pid_t pid;
    int pidfd, r;

    r = make_pipe(&report_rd, &report_wr, e);
    if (r < 0)
        return r;
    plan->report = report_wr;
    pid = fork_quietly();
    if (pid < 0)
        return err_sys(e, "fork");
    if (pid == 0)
        child(plan);

    close(take_fd(&report_wr));
    r = wait_for_exec(report_rd, plan->spec, e);
    if (r < 0) {
        kill_and_reap(pid);
        return r;
    }
    pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        r = err_sys(e, "open a pidfd");
        kill_and_reap(pid);
        return r;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

int proc_start(const struct proc_spec *spec, struct proc *ret, struct err *e)
{
    AUTO(pipes_done) struct pipes pipes = { { -1, -1, -1 }, { -1, -1, -1 } };
    AUTO(free_paths) char **paths = NULL;
    struct plan plan = { .spec = spec, .parent = getpid(), .report = -1 };
    pid_t pid;
    int pidfd, r;

    r = make_pipes(spec, &pipes, e);
    if (r < 0)
        return err_wrap(e, "start \"%s\"", spec->argv[0]);
    plan.paths = paths = find_paths(spec->argv[0]);
    /* execve changes neither, whatever its prototype says. */
    memcpy(&plan.argv, &spec->argv, sizeof(plan.argv));
    plan.env = environ;
    if (spec->env)
        memcpy(&plan.env, &spec->env, sizeof(plan.env));
    plan.in = pipes.theirs[STDIN_FILENO];
    plan.out = pipes.theirs[STDOUT_FILENO];
    plan.err = pipes.theirs[STDERR_FILENO];

    r = start(&plan, &pid, &pidfd, e);
    if (r < 0)
        return r;
    *ret = (struct proc){
        .pid = pid,
        .pidfd = pidfd,
        .in = take_fd(&pipes.ours[STDIN_FILENO]),
        .out = take_fd(&pipes.ours[STDOUT_FILENO]),
        .err = take_fd(&pipes.ours[STDERR_FILENO]),
    };
    return 0;
}

/* Has it ended? If so, reap it unless flags has WNOWAIT. */
static bool has_ended(struct proc *p, int flags)
{
    siginfo_t si = { 0 };

    /* Its status may be gone already when somebody set SIGCHLD to be ignored; ended it has. */
    if (waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG | flags) < 0)
        return errno == ECHILD;
    if (si.si_pid == 0)
        return false;
    p->status = si.si_code == CLD_EXITED ? si.si_status << 8 : si.si_status;
    return true;
}

static bool reap(struct proc *p)
{
    if (!has_ended(p, 0))
        return false;
    close(take_fd(&p->pidfd));
    return true;
}

CO int proc_wait(struct proc *p, uint64_t deadline_ms, struct err *e)
{
    int r;

    while (p->pidfd >= 0 && !reap(p)) {
        r = fiber_wait_fd(p->pidfd, LOOP_READ, deadline_ms, e);
        if (r < 0)
            return err_wrap(e, "wait for process %d", (int)p->pid);
    }
    return 0;
}

void proc_signal(struct proc *p, int signo)
{
    if (p->pid > 0 && p->pidfd >= 0)
        (void)kill(-p->pid, signo); /* ESRCH: they all have ended */
}

struct end_wait {
    struct fiber *fiber;
    bool ended, late;
};

static void on_ended(struct loop_io *io, unsigned events, void *arg)
{
    struct end_wait *w = arg;

    w->ended = true;
    loop_io_want(io, 0);
    fiber_wake(w->fiber);
}

static void on_late(void *arg)
{
    struct end_wait *w = arg;

    w->late = true;
    fiber_wake(w->fiber);
}

/* Like fiber_wait_fd on the pidfd, but deaf to cancel. */
CO static bool wait_hard(struct proc *p, uint64_t deadline_ms)
{
    struct end_wait w = { .fiber = fiber_self() };
    struct loop_io *io = loop_io_new(fiber_loop(), p->pidfd, on_ended, &w);
    struct loop_timer *timer = loop_timer_new(fiber_loop(), on_late, &w);

    loop_io_want(io, LOOP_READ);
    loop_timer_set(timer, deadline_ms);
    while (!w.ended && !w.late)
        fiber_park_hard();
    loop_timer_free(timer);
    loop_io_free(io);
    return w.ended;
}

CO void proc_end(struct proc *p, unsigned grace_ms)
{
    if (p->pid == 0 || p->pidfd < 0)
        return;
    if (grace_ms > 0 && !has_ended(p, WNOWAIT)) {
        proc_signal(p, SIGTERM);
        (void)wait_hard(p, deadline_in(grace_ms)); /* the same is done next either way */
    }
    /* The leader may have gone and left others of its group; not reaped, it still names them. */
    proc_signal(p, SIGKILL);
    while (!reap(p))
        (void)wait_hard(p, DEADLINE_NONE);
}

int proc_exit_code(const struct proc *p)
{
    return WIFEXITED(p->status) ? WEXITSTATUS(p->status) : 128 + WTERMSIG(p->status);
}

void proc_done(struct proc *p)
{
    if (p->pid == 0)
        return;
    assert(p->pidfd < 0);
    close_fd_auto(&p->in);
    close_fd_auto(&p->out);
    close_fd_auto(&p->err);
    *p = (struct proc){ .pidfd = -1, .in = -1, .out = -1, .err = -1 };
}
