/* SPDX-License-Identifier: MIT */
/*
 * machine/shim_main.c — the shim process: one thread, one poll. It holds the lock of its directory,
 * copies what the child prints to the log, answers on the control socket, and leaves exit.json
 * behind. It stays small, and does nothing that could end it before its child.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/time.h"
#include "machine/shim_int.h"
#include "net/stream.h"

#define CLIENTS_MAX 32
#define ASKED_MAX   512  /* bytes of a question */
#define PIDS_MS     5    /* between looks for who is to be limited, at the beginning */
#define LOOK_MS     1000 /* between looks at the memory, where no cgroup limits it */

struct client {
    int fd; /* -1: free */
    bool waits;
    size_t n;
    char in[ASKED_MAX];
};

struct shim {
    const struct shim_spec *spec;
    struct arena arena;
    struct shim_child child;
    int listener, lock, log, signals;
    long long log_size;
    int64_t started_at;
    uint64_t kill_at; /* SIGKILL to all then; DEADLINE_NONE */
    uint64_t look_at; /* at the memory, however busy its log and our callers keep us */
    double cpu_seconds;
    bool pids_due; /* the limit of processes is still to be set, from outside */
    struct client clients[CLIENTS_MAX];
};

/* --- the log --- */

static void log_open(struct shim *s)
{
    const char *path = arena_printf(&s->arena, "%s/log", s->spec->dir);
    struct stat st;

    s->log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    s->log_size = s->log >= 0 && fstat(s->log, &st) == 0 ? st.st_size : 0;
}

static void log_rotate(struct shim *s)
{
    AUTO(free) char *path = xasprintf("%s/log", s->spec->dir);
    AUTO(free) char *old = xasprintf("%s/log.1", s->spec->dir);

    close_fd_auto(&s->log);
    s->log = -1;
    if (rename(path, old) < 0)
        (void)unlink(path); /* rather than grow for ever */
    log_open(s);
}

/* A full disk costs lines, never the child its life. */
static void log_add(struct shim *s, const char *p, size_t n)
{
    if (s->log >= 0 && s->log_size + (long long)n > (long long)SHIM_LOG_MAX)
        log_rotate(s);
    if (s->log >= 0 && write(s->log, p, n) == (ssize_t)n)
        s->log_size += (long long)n;
}

/* Bounded, so that one who prints without end does not keep us from the rest. */
static void copy_log(struct shim *s)
{
    char text[4096];
    ssize_t n;

    for (int i = 0; i < 64 && (n = read(s->child.log, text, sizeof(text))) > 0; i++)
        log_add(s, text, (size_t)n);
    if (n == 0)
        close(take_fd(&s->child.log)); /* whoever had it has closed it */
}

static void say(struct shim *s, const char *fmt, ...) PRINTF(2, 3);
static void say(struct shim *s, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n > 0)
        log_add(s, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

/* --- what is done to the child --- */

static void begin_stop(struct shim *s, long long grace_ms)
{
    uint64_t at = now_ms() + (uint64_t)(grace_ms > 0 ? grace_ms : 0);

    if (grace_ms > 0 && (s->spec->stop_depth == 0 ||
                         shim_tree_signal(s->child.pid, s->spec->stop_depth, SIGTERM) == 0))
        (void)kill(-s->child.pid, SIGTERM); /* it may have ended */
    s->kill_at = deadline_min(s->kill_at, at);
}

static void kill_all(struct shim *s)
{
    (void)kill(-s->child.pid, SIGKILL); /* it may have ended */
    s->kill_at = DEADLINE_NONE;
}

/*
 * RLIMIT_NPROC of a user that is also ours would count all that we run. Once the child has made
 * its user namespace, the limit is set on what is inside: there the kernel counts by namespace.
 */
static void limit_pids(struct shim *s)
{
    if (s->pids_due && shim_tree_limit_pids(s->child.pid, s->spec->stop_depth, s->spec->pids) > 0)
        s->pids_due = false;
}

/* No cgroup: the sum is held against the limit, first as it is quickly had, then as it is. */
static void watch_memory(struct shim *s)
{
    long long limit = s->spec->memory_mib * (long long)MIB;
    struct shim_use use;
    size_t n;

    shim_tree_look(s->child.pid, &use);
    if (limit <= 0 || use.memory <= limit)
        return;
    n = shim_tree_trim(s->child.pid, limit, &use);
    if (n > 0)
        say(s,
            "[chela] %lld MiB, over the memory limit of %ld: process %d, which had %lld, and %zu "
            "others were killed\n",
            use.memory / (long long)MIB, s->spec->memory_mib, (int)use.biggest,
            use.biggest_memory / (long long)MIB, n - 1);
}

/* --- the control socket --- */

static void client_close(struct client *c)
{
    close(take_fd(&c->fd));
}

/* An answer fits the socket's buffer, or its reader has stopped reading and goes. */
static void answer(struct client *c, const char *text)
{
    size_t n = strlen(text);

    if (send(c->fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
        client_close(c);
}

static void answer_look(struct shim *s, struct client *c)
{
    struct shim_use use;
    char text[300];

    shim_tree_look(s->child.pid, &use);
    fmt_z(text, sizeof(text),
          "{\"alive\":true,\"pid\":%d,\"startedAt\":%lld,\"cpu\":%.2f,\"memory\":%lld,"
          "\"limited\":%s}\n",
          (int)s->child.pid, (long long)s->started_at, use.cpu_seconds, use.memory,
          s->child.limited ? "true" : "false");
    answer(c, text);
}

static void on_line(struct shim *s, struct client *c, struct str line)
{
    struct arena a = { 0 };
    long long n;
    struct str op;
    struct err e;
    json_t *j;

    if (json_parse(line, 4, &a, &j, NULL, &e) < 0) {
        client_close(c);
        arena_done(&a);
        return;
    }
    op = json_member_str(j, "op");
    n = json_integer_value(json_object_get(j, "n"));
    if (str_eq_z(op, "look")) {
        answer_look(s, c);
    } else if (str_eq_z(op, "signal") && n >= 0 && n < NSIG) {
        (void)kill(-s->child.pid, (int)n); /* it may have ended */
        answer(c, "{}\n");
    } else if (str_eq_z(op, "stop")) {
        begin_stop(s, n);
        c->waits = true;
    } else if (str_eq_z(op, "wait")) {
        c->waits = true;
    } else {
        answer(c, "{\"error\":\"no such operation\"}\n");
    }
    arena_done(&a);
}

static void client_read(struct shim *s, struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->n, sizeof(c->in) - c->n, MSG_DONTWAIT);
    char *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        client_close(c);
        return;
    }
    c->n += (size_t)n;
    while (c->fd >= 0 && (end = memchr(c->in, '\n', c->n))) {
        size_t len = (size_t)(end - c->in) + 1;

        on_line(s, c, (struct str){ c->in, len - 1 });
        memmove(c->in, c->in + len, c->n - len);
        c->n -= len;
    }
    if (c->fd >= 0 && c->n == sizeof(c->in))
        client_close(c);
}

static void take_client(struct shim *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (size_t i = 0; fd >= 0 && i < CLIENTS_MAX; i++) {
        struct client *c = &s->clients[i];

        if (c->fd >= 0)
            continue;
        c->fd = take_fd(&fd);
        c->n = 0;
        c->waits = false;
    }
    close_fd_auto(&fd);
}

/* --- the end --- */

static void write_exit(struct shim *s, int status)
{
    struct rusage use;
    char text[300];
    struct err e;

    if (getrusage(RUSAGE_CHILDREN, &use) == 0)
        s->cpu_seconds = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                         (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    fmt_z(text, sizeof(text),
          "{\"alive\":false,\"pid\":%d,\"startedAt\":%lld,\"status\":%d,\"endedAt\":%lld,"
          "\"cpu\":%.2f,\"limited\":%s}\n",
          (int)s->child.pid, (long long)s->started_at, status, (long long)(wall_us() / 1000),
          s->cpu_seconds, s->child.limited ? "true" : "false");
    if (shim_file_write(s->spec->dir, "exit.json", str_of(text), true, &e) < 0)
        say(s, "[chela] %s\n", e.msg);
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (s->clients[i].fd >= 0 && s->clients[i].waits)
            answer(&s->clients[i], text);
}

/* In this order: whoever finds no socket finds exit.json, and whoever sees the end of a connection
 * can lock the directory. */
static void finish(struct shim *s, int status)
{
    const char *path = arena_printf(&s->arena, "%s/shim.sock", s->spec->dir);

    kill_all(s);
    shim_tree_kill();
    shim_cgroup_kill(s->child.cgroup);
    if (s->child.log >= 0)
        copy_log(s);
    write_exit(s, status);
    (void)unlink(path); /* a dead socket is replaced */
    close_fd_auto(&s->lock);
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        close_fd_auto(&s->clients[i].fd);
    close_fd_auto(&s->listener);
    close_fd_auto(&s->log);
    close_fd_auto(&s->child.log);
    close_fd_auto(&s->child.pidfd);
    close_fd_auto(&s->signals);
}

/* It is reaped with the rest of its tree: until then its number names its group. */
static bool has_ended(const struct shim *s, int *ret_status)
{
    siginfo_t si = { 0 };

    if (waitid(P_PIDFD, (id_t)s->child.pidfd, &si, WEXITED | WNOHANG | WNOWAIT) < 0 ||
        si.si_pid == 0)
        return false;
    *ret_status = si.si_code == CLD_EXITED ? si.si_status << 8 : si.si_status;
    return true;
}

/* What was adopted and has ended; never the child itself, whose number names its group. */
static void reap_others(const struct shim *s)
{
    siginfo_t si;

    for (;;) {
        si.si_pid = 0;
        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0 ||
            si.si_pid == s->child.pid)
            return;
        (void)waitpid(si.si_pid, NULL, WNOHANG); /* it has ended */
    }
}

static void on_signal(struct shim *s)
{
    struct signalfd_siginfo si;

    while (read(s->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        if (si.ssi_signo == SIGTERM)
            begin_stop(s, 10000);
        else
            reap_others(s);
    }
}

enum { P_CHILD, P_SIGNALS, P_LISTENER, P_LOG, P_CLIENTS, P_ALL_ = P_CLIENTS + CLIENTS_MAX };

static int timeout_of(const struct shim *s)
{
    bool looks = !s->child.limited && s->spec->memory_mib > 0;
    uint64_t now = now_ms();

    if (s->pids_due)
        return PIDS_MS;
    if (s->kill_at != DEADLINE_NONE)
        return s->kill_at <= now ? 0
                                 : (int)(s->kill_at - now < LOOK_MS ? s->kill_at - now : LOOK_MS);
    return looks ? LOOK_MS : -1;
}

/* One turn; true when the child has ended. */
static bool turn(struct shim *s, int *ret_status)
{
    struct pollfd fds[P_ALL_] = {
        [P_CHILD] = { s->child.pidfd, POLLIN, 0 },
        [P_SIGNALS] = { s->signals, POLLIN, 0 },
        [P_LISTENER] = { s->listener, POLLIN, 0 },
        [P_LOG] = { s->child.log, POLLIN, 0 },
    };
    int n;

    for (size_t i = 0; i < CLIENTS_MAX; i++)
        fds[P_CLIENTS + i] = (struct pollfd){ s->clients[i].fd, POLLIN, 0 };
    n = poll(fds, P_ALL_, timeout_of(s));
    if (n < 0)
        return false;
    if (fds[P_LOG].revents)
        copy_log(s);
    if (fds[P_CHILD].revents && has_ended(s, ret_status))
        return true;
    if (fds[P_SIGNALS].revents)
        on_signal(s);
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (fds[P_CLIENTS + i].revents && s->clients[i].fd >= 0)
            client_read(s, &s->clients[i]);
    if (fds[P_LISTENER].revents)
        take_client(s);
    if (s->kill_at <= now_ms())
        kill_all(s);
    limit_pids(s);
    if (now_ms() >= s->look_at && !s->child.limited && !s->pids_due) {
        watch_memory(s);
        s->look_at = deadline_in(LOOK_MS);
    }
    return false;
}

/* --- the beginning --- */

static int take_signals(struct shim *s, struct err *e)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return err_sys(e, "block signals");
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals < 0 ? err_sys(e, "make a signalfd") : 0;
}

static int take_lock(struct shim *s, struct err *e)
{
    const char *path = arena_printf(&s->arena, "%s/shim.lock", s->spec->dir);

    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0)
        return err_sys(e, "open '%s'", path);
    if (flock(s->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(e, ERR_CONFLICT, "a shim is at work in '%s'", s->spec->dir);
    return err_sys(e, "lock '%s'", path);
}

static int begin(struct shim *s, struct shim_spec *spec, const char *dir, struct err *e)
{
    const char *gone = arena_printf(&s->arena, "%s/exit.json", dir);
    const char *path = arena_printf(&s->arena, "%s/shim.sock", dir);
    int r;

    spec->dir = dir;
    s->spec = spec;
    r = take_lock(s, e);
    if (r == 0)
        r = shim_spec_read(dir, &s->arena, spec, e);
    if (r < 0)
        return r;
    if (unlink(gone) < 0 && errno != ENOENT)
        return err_sys(e, "remove '%s'", gone);
    log_open(s);
    r = take_signals(s, e);
    if (r == 0)
        r = listen_unix(path, &s->listener, e);
    if (r < 0)
        return r;
    s->started_at = wall_us() / 1000;
    r = shim_child_start(spec, &s->arena, &s->child, e);
    if (r < 0)
        (void)unlink(path); /* a dead socket is replaced */
    return r;
}

/* Nothing of the caller's stays open: not its terminal, not its pipes. */
static void let_go(int report)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        (void)dup2(null, fd); /* then it stays what it is */
    if (null > 2)
        close(null);
    (void)close_range(3, (unsigned)report - 1, 0); /* before Linux 5.9 this fails */
    (void)close_range((unsigned)report + 1, ~0U, 0);
    if (chdir("/") < 0)
        return; /* then we stay where we are */
}

static struct shim *shim_new(void)
{
    struct shim *s = xcalloc(1, sizeof(*s));

    s->child = (struct shim_child){ .log = -1, .pidfd = -1, .cgroup = "" };
    s->listener = s->lock = s->log = s->signals = -1;
    s->kill_at = DEADLINE_NONE;
    s->look_at = deadline_in(LOOK_MS);
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        s->clients[i].fd = -1;
    return s;
}

static void shim_free(struct shim *s)
{
    arena_done(&s->arena);
    free(s);
}
DEFINE_AUTO(shim_free, struct shim *);

static int background(const char *dir, int report)
{
    AUTO(shim_free) struct shim *s = shim_new();
    struct shim_spec spec = { 0 };
    int status = 0;
    struct err e;

    (void)umask(077);
    prctl(PR_SET_NAME, "chela-shim");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (begin(s, &spec, dir, &e) < 0) {
        dprintf(report, "%c%s", e.code == ERR_CONFLICT ? 'c' : 'e', e.msg);
        return 1;
    }
    s->pids_due = spec.pids > 0 && spec.stop_depth > 0 && !spec.uid && !s->child.limited;
    dprintf(report, "k");
    close(report);
    while (!turn(s, &status))
        ;
    finish(s, status);
    return 0;
}

/* What the one in the background says: one letter, and a text. */
static int report_of(int fd)
{
    char text[400];
    size_t n = 0;
    ssize_t got;

    do {
        got = read(fd, text + n, sizeof(text) - 1 - n);
        if (got > 0)
            n += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    text[n] = '\0';
    if (text[0] == 'k')
        return 0;
    fprintf(stderr, "%s\n", n ? text + 1 : "the shim ended at once");
    return text[0] == 'c' ? SHIM_EXIT_CONFLICT : 1;
}

int shim_main(const char *dir)
{
    char *absolute = realpath(dir, NULL);
    int fds[2], r;
    pid_t pid;

    if (!absolute || pipe2(fds, O_CLOEXEC) < 0) {
        fprintf(stderr, "'%s': %s\n", dir, strerror(errno));
        free(absolute);
        return 1;
    }
    pid = fork();
    if (pid < 0) {
        fprintf(stderr, "fork: %s\n", strerror(errno));
        free(absolute);
        return 1;
    }
    if (pid > 0) {
        close(fds[1]);
        r = report_of(fds[0]);
        close(fds[0]);
        free(absolute);
        return r;
    }
    if (setsid() < 0)
        _exit(1);
    let_go(fds[1]);
    r = background(absolute, fds[1]);
    free(absolute);
    return r;
}
