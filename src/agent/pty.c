/* SPDX-License-Identifier: MIT */
/*
 * agent/pty.c — a program on a terminal of its own.
 *
 * Between fork and exec nothing but async-signal-safe calls: threads of the pool may have held any
 * lock at the fork. There is no death signal: the terminal hangs up when the agent goes, as it does
 * under sshd, and what asked to outlive that may.
 */
#include "agent/pty.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* --- who we are --- */

void pty_user_done(struct pty_user *u)
{
    free(u->name);
    free(u->home);
    free(u->shell);
    *u = (struct pty_user){ 0 };
}

bool pty_user_parse(struct str line, uid_t uid, struct pty_user *ret)
{
    struct str field[7] = { { NULL, 0 } };
    long long number;
    struct err e;
    size_t n = 0;

    while (n < LEN(field) && str_split(&line, ':', &field[n]))
        n++;
    if (n < 6 || int_parse(field[2], 0, UINT32_MAX, &number, &e) < 0 || (uid_t)number != uid)
        return false;
    ret->name = str_dup(field[0]);
    ret->home = str_dup(field[5]);
    ret->shell = n == 7 && field[6].n > 0 ? str_dup(field[6]) : xstrdup("/bin/sh");
    return true;
}

/* Read by hand: getpwuid() of a static program wants libc's shared parts. */
static bool find_user(struct pty_user *ret)
{
    FILE *f = fopen("/etc/passwd", "re");
    AUTO(free) char *line = NULL;
    size_t cap = 0;
    bool found = false;
    ssize_t n;

    if (!f)
        return false;
    while (!found && (n = getline(&line, &cap, f)) > 0)
        found = pty_user_parse(str_trim((struct str){ line, (size_t)n }), geteuid(), ret);
    (void)fclose(f); /* it was only read */
    return found;
}

void pty_user(struct pty_user *ret)
{
    *ret = (struct pty_user){ 0 };
    if (!find_user(ret)) {
        const char *home = getenv("HOME");

        ret->name = xstrdup(geteuid() == 0 ? "root" : "user");
        ret->home = xstrdup(home && *home == '/' ? home : "/");
        ret->shell = xstrdup("/bin/sh");
    }
    /* Accounts of services have shells that only say no. */
    if (strstr(ret->shell, "nologin") || str_ends(str_of(ret->shell), STR("/false")) ||
        access(ret->shell, X_OK) < 0) {
        free(ret->shell);
        ret->shell = xstrdup("/bin/sh");
    }
}

/* --- starting --- */

static int set_size(int fd, unsigned cols, unsigned rows)
{
    struct winsize size = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols };

    return ioctl(fd, TIOCSWINSZ, &size);
}

int pty_resize(int fd, unsigned cols, unsigned rows)
{
    return set_size(fd, cols, rows);
}

/* The program's end: asked of the master itself, so it is right in any mount namespace. */
static int open_slave(int master)
{
    char name[64];
    int fd;

    fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 || ptsname_r(master, name, sizeof(name)) != 0)
        return fd;
    return open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static int open_pair(const struct pty_spec *spec, int *ret_master, int *ret_slave, struct err *e)
{
    AUTO(close_fd) int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    AUTO(close_fd) int slave = -1;
    struct termios tty;

    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
        return err_sys(e, "open a terminal");
    slave = open_slave(master);
    if (slave < 0)
        return err_sys(e, "open a terminal's other end");
    if (set_size(slave, spec->cols, spec->rows) < 0 || fcntl(master, F_SETFL, O_NONBLOCK) < 0)
        return err_sys(e, "set up a terminal");
    if (tcgetattr(slave, &tty) == 0) {
        tty.c_iflag |= IUTF8;
        (void)tcsetattr(slave, TCSANOW, &tty); /* erasing in lines is a little worse without */
    }
    *ret_master = take_fd(&master);
    *ret_slave = take_fd(&slave);
    return 0;
}

/* Everything the child looks at. */
struct plan {
    const char *program, *const *argv, *const *env;
    const char *cwd, *home;
    int slave;
};

_Noreturn static void child(const struct plan *plan)
{
    static const char sorry[] = "the shell could not be started\r\n";
    struct sigaction dfl = { .sa_handler = SIG_DFL };
    char *const *argv, *const *env;
    sigset_t none;
    ssize_t n;

    if (setsid() < 0 || ioctl(plan->slave, TIOCSCTTY, 0) < 0)
        _exit(127);
    for (int signo = 1; signo < NSIG; signo++)
        (void)sigaction(signo, &dfl, NULL); /* refused for KILL, STOP and libc's own */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(plan->slave, STDIN_FILENO) < 0 || dup2(plan->slave, STDOUT_FILENO) < 0 ||
        dup2(plan->slave, STDERR_FILENO) < 0)
        _exit(127);
    (void)close_range(STDERR_FILENO + 1, ~0U, 0); /* ours are close-on-exec anyway */
    if ((!plan->cwd || chdir(plan->cwd) < 0) && chdir(plan->home) < 0 && chdir("/") < 0)
        _exit(127);
    memcpy(&argv, &plan->argv, sizeof(argv)); /* execve changes neither */
    memcpy(&env, &plan->env, sizeof(env));
    execve(plan->program, argv, env);
    n = write(STDERR_FILENO, sorry, sizeof(sorry) - 1);
    (void)n; /* then 127 is all that is said */
    _exit(127);
}

/* No handler of ours may run in the child before it has reset them. */
static pid_t fork_child(const struct plan *plan)
{
    sigset_t all, before;
    pid_t pid;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0)
        child(plan);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static int start(const struct pty_spec *spec, const struct pty_user *user, int slave,
                 pid_t *ret_pid, struct err *e)
{
    const char *base = strrchr(user->shell, '/');
    AUTO(free) char *dashed = xasprintf("-%s", base ? base + 1 : user->shell);
    const char *login[] = { dashed, NULL }; /* the dash makes it a login shell */
    const char *command[] = { "/bin/sh", "-c", spec->command, NULL };
    struct plan plan = {
        .program = spec->command ? "/bin/sh" : user->shell,
        .argv = spec->command ? command : login,
        .env = spec->env,
        .cwd = spec->cwd,
        .home = user->home,
        .slave = slave,
    };
    pid_t pid = fork_child(&plan);

    if (pid < 0)
        return err_sys(e, "fork");
    *ret_pid = pid;
    return 0;
}

int pty_start(const struct pty_spec *spec, struct pty *ret, struct err *e)
{
    AUTO(close_fd) int master = -1;
    AUTO(close_fd) int slave = -1;
    struct pty_user user;
    pid_t pid = 0;
    int pidfd, r;

    r = open_pair(spec, &master, &slave, e);
    if (r < 0)
        return r;
    pty_user(&user);
    r = start(spec, &user, slave, &pid, e);
    pty_user_done(&user);
    if (r < 0)
        return r;
    pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        r = err_sys(e, "open a pidfd");
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return r;
    }
    *ret = (struct pty){ .fd = take_fd(&master), .pid = pid, .pidfd = pidfd };
    return 0;
}
