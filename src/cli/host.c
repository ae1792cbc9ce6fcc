/* SPDX-License-Identifier: MIT */
/*
 * cli/host.c — a program on this host with our terminal, in our process group, so that Ctrl-C and
 * job control mean what they mean for any program. argv, never a shell.
 */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/time.h"
#include "cli/hub.h"

#define GRACE_MS 3000

static CO int say_audit(struct cli *cli, const json_t *machine, const char *event,
                        const char *command, const char *reason, struct err *e)
{
    json_t *body = json_object(), *answer;
    struct str text;
    int r;

    put_text(body, "event", event);
    put_text(body, "agentId", json_string_value(json_object_get(machine, "name")));
    put_text(body, "command", command);
    put_text(body, "reason", reason);
    r = api_body(cli, body, &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, "/admin/audit", text, &answer, e);
    return r < 0 ? err_wrap(e, "audit") : 0;
}

static const char **argv_of(struct cli *cli, const json_t *machine, const char *const *more)
{
    const json_t *prefix = json_object_get(machine, "exec"), *word;
    size_t n = 0, at;
    const char **argv;

    while (more[n])
        n++;
    argv = arena_alloc(&cli->arena, (json_array_size(prefix) + n + 1) * sizeof(*argv));
    json_array_foreach(prefix, at, word)
    {
        argv[at] = json_is_string(word) ? json_string_value(word) : "";
    }
    memcpy(argv + json_array_size(prefix), more, n * sizeof(*argv));
    return argv;
}

/* Ctrl-C is the child's: we ignore it until the child has ended. */
static int spawn(const char *const *argv, pid_t *ret, struct err *e)
{
    extern char **environ;
    posix_spawnattr_t attr;
    sigset_t defaults;
    int eno;

    sigemptyset(&defaults);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGQUIT);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    eno = posix_spawnp(ret, argv[0], NULL, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    return eno ? err_sysn(e, eno, "start '%s'", argv[0]) : 0;
}

static CO int wait_for(pid_t pid, long long timeout_ms, struct err *e)
{
    AUTO(close_fd) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t deadline = timeout_ms > 0 ? deadline_in(timeout_ms) : DEADLINE_NONE;
    bool late = false;
    int status = 0, r;

    if (fd < 0)
        return err_sys(e, "watch process %d", (int)pid);
    while ((r = fiber_wait_fd(fd, LOOP_READ, deadline, e)) < 0) {
        if (r != -ERR_TIMEOUT)
            return r;
        kill(pid, late ? SIGKILL : SIGTERM);
        late = true;
        deadline = deadline_in(GRACE_MS);
    }
    if (waitpid(pid, &status, 0) < 0)
        return err_sys(e, "wait for process %d", (int)pid);
    if (late)
        return CLI_TIMEOUT;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

CO int host_run(struct cli *cli, const json_t *machine, const char *event, const char *command,
                const char *const *more, long long timeout_ms, struct err *e)
{
    const char **argv = argv_of(cli, machine, more), *done;
    void (*before[2])(int);
    struct err unsaid;
    pid_t pid;
    int r = say_audit(cli, machine, event, command, NULL, e), status;

    if (r < 0)
        return r;
    fflush(stdout);
    before[0] = signal(SIGINT, SIG_IGN);
    before[1] = signal(SIGQUIT, SIG_IGN);
    r = spawn(argv, &pid, e);
    if (r == 0)
        r = wait_for(pid, timeout_ms, e);
    signal(SIGINT, before[0]);
    signal(SIGQUIT, before[1]);
    status = r;
    done = arena_printf(&cli->arena, "%s.finished", event);
    if (say_audit(cli, machine, done, command,
                  r < 0 ? e->msg : arena_printf(&cli->arena, "exit %d", r), &unsaid) < 0)
        fprintf(stderr, "warning: %s\n", unsaid.msg);
    return status;
}
