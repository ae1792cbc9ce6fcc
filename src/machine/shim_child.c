/* SPDX-License-Identifier: MIT */
/*
 * machine/shim_child.c — from the shim's fork to the child's program. The shim has one thread, so
 * the child may allocate; what goes wrong in it comes back as a text through a pipe that exec
 * closes.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rand.h"
#include "machine/shim_int.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

#define CGROUP_ROOT  "/sys/fs/cgroup"
#define FIRST_FILE   3
#define STAGED_MAX   32
#define STAGING_OPTS "mode=0711,size=64k,nr_inodes=64"

_Noreturn static void fail(int report, const char *what)
{
    char text[300];
    ssize_t n;

    fmt_z(text, sizeof(text), "%.200s: %.80s", what, strerror(errno));
    n = write(report, text, strlen(text));
    (void)n; /* if nobody reads it, nobody is there to be told */
    _exit(127);
}

/* No limit is made higher than the one we have. */
static int limit(int what, rlim_t value)
{
    struct rlimit have, want = { value, value };

    if (getrlimit((__rlimit_resource_t)what, &have) < 0)
        return -1;
    if (have.rlim_max != RLIM_INFINITY && have.rlim_max < value)
        want.rlim_cur = want.rlim_max = have.rlim_max;
    return setrlimit((__rlimit_resource_t)what, &want);
}

/* Bound to as many of our CPUs, beginning anywhere. */
static int bind_cpus(long cpus)
{
    cpu_set_t ours, want;
    long have, first;

    if (sched_getaffinity(0, sizeof(ours), &ours) < 0)
        return -1;
    have = CPU_COUNT(&ours);
    if (cpus >= have)
        return 0;
    CPU_ZERO(&want);
    first = (long)(rand_u64() % (uint64_t)have);
    for (long cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &ours))
            continue;
        if ((seen++ - first + have) % have < cpus)
            CPU_SET(cpu, &want);
    }
    return sched_setaffinity(0, sizeof(want), &want);
}

static void set_limits(const struct shim_spec *spec, const char *cgroup, int report)
{
    if (*cgroup && shim_cgroup_enter(cgroup) < 0)
        fail(report, "enter the cgroup");
    if (limit(RLIMIT_CORE, 0) < 0)
        fail(report, "set a limit");
    if (*cgroup)
        return;
    if (SHIM_DATA_LIMIT && spec->memory_mib > 0 &&
        limit(RLIMIT_DATA, (rlim_t)spec->memory_mib * MIB) < 0)
        fail(report, "limit the memory");
    if (spec->pids > 0 && spec->uid && limit(RLIMIT_NPROC, (rlim_t)spec->pids) < 0)
        fail(report, "limit the processes");
    if (spec->cpus > 0 && bind_cpus(spec->cpus) < 0)
        fail(report, "limit the CPUs");
}

static bool is_image(const char *path)
{
    return str_ends(str_of(path), STR(SHIM_IMAGE));
}

static int stage_one(int fd, bool image, const char *to)
{
    char from[64];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -1;
    if (image)
        return mkdir(to, 0755) < 0 ? -1 : shim_loop_mount(fd, to);
    fmt_z(from, sizeof(from), "/proc/self/fd/%d", fd);
    if ((S_ISDIR(st.st_mode) ? mkdir(to, 0755) : mknod(to, S_IFREG | 0644, 0)) < 0)
        return -1;
    return mount(from, to, NULL, MS_BIND | MS_REC, NULL);
}

/*
 * Paths below the state directory are closed to the child's user. They are opened as we are, in
 * the new mount namespace, and mounted where it can reach them.
 */
static void stage(const char *const *paths, int report)
{
    int fds[STAGED_MAX];
    char to[64];
    size_t n;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        fail(report, "make a mount namespace");
    for (n = 0; paths[n] && n < STAGED_MAX; n++) {
        fds[n] = open(paths[n], (is_image(paths[n]) ? O_RDWR : O_PATH) | O_CLOEXEC);
        if (fds[n] < 0)
            fail(report, paths[n]);
    }
    if (mount("chela", SHIM_STAGING, "tmpfs", MS_NOSUID | MS_NODEV, STAGING_OPTS) < 0)
        fail(report, "mount " SHIM_STAGING);
    for (size_t i = 0; i < n; i++) {
        fmt_z(to, sizeof(to), SHIM_STAGING "/%zu", i);
        if (stage_one(fds[i], is_image(paths[i]), to) < 0)
            fail(report, paths[i]);
    }
}

/* Opened at numbers above all of theirs first, so that none is overwritten. */
static void open_files(const char *const *files, int report)
{
    int fds[STAGED_MAX];
    size_t n;

    for (n = 0; files[n] && n < STAGED_MAX; n++) {
        AUTO(close_fd) int fd = open(files[n], O_RDONLY | O_CLOEXEC);

        fds[n] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FILE + STAGED_MAX);
        if (fds[n] < 0)
            fail(report, files[n]);
    }
    for (size_t i = 0; i < n; i++)
        if (dup2(fds[i], FIRST_FILE + (int)i) < 0)
            fail(report, files[i]);
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

static void change_user(unsigned uid, int report)
{
    if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
        fail(report, "change the user");
}

_Noreturn static void child(const struct shim_spec *spec, const char *cgroup, pid_t parent, int out,
                            int report)
{
    char *const *argv, *const *env;
    int null;

    report = fcntl(report, F_DUPFD_CLOEXEC, FIRST_FILE + 2 * STAGED_MAX);
    (void)umask(022);
    if (setsid() < 0)
        fail(report, "make a session");
    reset_signals();
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        fail(report, "set up its streams");
    (void)close_range(FIRST_FILE, ~0U, CLOSE_RANGE_CLOEXEC); /* before Linux 5.11 this fails */
    if (spec->files)
        open_files(spec->files, report);
    set_limits(spec, cgroup, report);
    if (spec->staging && spec->uid)
        stage(spec->staging, report);
    if (spec->uid)
        change_user(spec->uid, report);
    else if (chdir(spec->cwd ? spec->cwd : spec->dir) < 0)
        fail(report, spec->cwd ? spec->cwd : spec->dir);
    if (spec->uid && chdir(spec->cwd ? spec->cwd : "/") < 0)
        fail(report, spec->cwd ? spec->cwd : "/");
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* last: a change of user takes it back */
    if (getppid() != parent)
        _exit(127); /* it died before we asked to be told */

    /* execvpe changes neither, whatever its prototype says. */
    memcpy(&argv, &spec->argv, sizeof(argv));
    memcpy(&env, &spec->env, sizeof(env));
    execvpe(argv[0], argv, env);
    fail(report, argv[0]);
}

/* Returns once the child has become its program. */
static int wait_for_exec(int fd, struct err *e)
{
    char text[300];
    size_t n = 0;
    ssize_t got;

    do {
        got = read(fd, text + n, sizeof(text) - 1 - n);
        if (got > 0)
            n += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    text[n] = '\0';
    return n ? err_set(e, ERR_INTERNAL, "%s", text) : 0;
}

static int spawn(const struct shim_spec *spec, const char *cgroup, int out, pid_t *ret_pid,
                 struct err *e)
{
    AUTO(close_fd) int rd = -1;
    AUTO(close_fd) int wr = -1;
    pid_t parent = getpid(), pid;
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_sys(e, "make a pipe");
    rd = fds[0];
    wr = fds[1];
    pid = fork();
    if (pid < 0)
        return err_sys(e, "fork");
    if (pid == 0)
        child(spec, cgroup, parent, out, wr);
    close(take_fd(&wr));
    r = wait_for_exec(rd, e);
    if (r < 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return r;
    }
    *ret_pid = pid;
    return 0;
}

static const char *const *default_env(struct arena *a)
{
    static const char *const names[] = { "PATH", "HOME", "LANG" };
    const char **env = arena_alloc(a, (LEN(names) + 1) * sizeof(*env));
    size_t n = 0;

    for (size_t i = 0; i < LEN(names); i++)
        if (getenv(names[i]))
            env[n++] = arena_printf(a, "%s=%s", names[i], getenv(names[i]));
    return env;
}

int shim_child_start(const struct shim_spec *spec, struct arena *a, struct shim_child *ret,
                     struct err *e)
{
    AUTO(close_fd) int rd = -1;
    AUTO(close_fd) int wr = -1;
    struct shim_spec whole = *spec;
    const char *cgroup;
    int fds[2], pidfd, r;
    pid_t pid;

    if (!whole.env)
        whole.env = default_env(a);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_sys(e, "make a pipe");
    rd = fds[0];
    wr = fds[1];
    if (fcntl(rd, F_SETFL, O_NONBLOCK) < 0)
        return err_sys(e, "make a pipe");
    cgroup = shim_cgroup_make(&whole, CGROUP_ROOT, a);
    r = spawn(&whole, cgroup, wr, &pid, e);
    if (r < 0) {
        shim_cgroup_kill(cgroup);
        return r;
    }
    pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        r = err_sys(e, "open a pidfd");
        shim_tree_kill();
        return r;
    }
    *ret = (struct shim_child){ pid, pidfd, take_fd(&rd), cgroup, *cgroup != '\0' };
    return 0;
}
