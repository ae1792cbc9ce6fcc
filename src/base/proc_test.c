/* SPDX-License-Identifier: MIT */
/* base/proc_test.c — child processes: how they start, talk and end. */
#include "base/proc.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "in_fiber.h"

#define SOON (now_ms() + 20000)

static int sh(const char *script, struct proc *p, struct err *e)
{
    const char *argv[] = { "sh", "-c", script, NULL };
    struct proc_spec spec = { .argv = argv, .in = PROC_PIPE, .out = PROC_PIPE };

    return proc_start(&spec, p, e);
}

/* What it prints until it closes its output, as text. */
CO static int read_text(int fd, char *out, size_t size, struct err *e)
{
    size_t n = 0;
    ssize_t r;

    while (n + 1 < size && (r = fiber_read(fd, out + n, size - 1 - n, SOON, e)) != 0) {
        if (r < 0)
            return (int)r;
        n += (size_t)r;
    }
    out[n] = '\0';
    return 0;
}

CO_TEST(the_exit_code_or_the_signal_is_reported)
{
    static const struct {
        const char *script;
        int code;
    } cases[] = { { "exit 0", 0 },       { "exit 7", 7 },        { "exit 255", 255 },
                  { "kill -9 $$", 137 }, { "kill -15 $$", 143 }, { "exit 130", 130 } };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct proc p = { 0 };

        CO_CHECK(sh(cases[i].script, &p, e) == 0);
        CO_CHECK(p.pid > 0 && p.pidfd >= 0);
        CO_CHECK(proc_wait(&p, SOON, e) == 0);
        CO_CHECK(p.pidfd < 0);
        CO_CHECK(proc_exit_code(&p) == cases[i].code);
        CO_CHECK(proc_wait(&p, SOON, e) == 0); /* again: nothing to wait for */
        proc_done(&p);
    }
    return 0;
}

CO_TEST(what_goes_in_comes_out_through_pipes)
{
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(sh("tr a-z A-Z; echo oops >&2", &p, e) == 0);
    CO_CHECK(p.err < 0);
    CO_CHECK(fiber_write_all(p.in, "hello\n", 6, SOON, e) == 0);
    close(take_fd(&p.in));
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "HELLO\n") == 0);
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    proc_done(&p);
    return 0;
}

CO_TEST(errors_may_have_a_pipe_or_go_where_the_output_goes)
{
    const char *argv[] = { "sh", "-c", "echo out; echo err >&2; cat", NULL };
    struct proc_spec spec = { .argv = argv, .out = PROC_PIPE, .err = PROC_PIPE };
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(proc_start(&spec, &p, e) == 0);
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "out\n") == 0);
    CO_CHECK(read_text(p.err, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "err\n") == 0);
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    proc_done(&p);

    spec.err = PROC_TO_STDOUT;
    CO_CHECK(proc_start(&spec, &p, e) == 0);
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "out\nerr\n") == 0);
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    proc_done(&p);
    return 0;
}

CO_TEST(environment_and_directory_are_what_the_caller_says)
{
    const char *argv[] = { "/bin/sh", "-c", "echo $CHELA_X; pwd; echo ${HOME-none}", NULL };
    const char *env[] = { "CHELA_X=yes", NULL };
    struct proc_spec spec = { .argv = argv, .env = env, .cwd = "/usr", .out = PROC_PIPE };
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(proc_start(&spec, &p, e) == 0);
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "yes\n/usr\nnone\n") == 0);
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    proc_done(&p);
    return 0;
}

CO_TEST(a_program_that_cannot_be_started_is_named_with_the_reason)
{
    static const struct {
        const char *program, *cwd, *want;
    } cases[] = {
        { "chela-no-such", NULL, "start \"chela-no-such\": No such file or directory" },
        { "/no/such", NULL, "start \"/no/such\": No such file or directory" },
        { "/etc/passwd", NULL, "start \"/etc/passwd\": Permission denied" },
        { "", NULL, "start \"\": No such file or directory" },
        { "sh", "/no/such", "start \"sh\" in \"/no/such\": No such file or directory" },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        const char *argv[] = { cases[i].program, NULL };
        struct proc_spec spec = { .argv = argv, .cwd = cases[i].cwd, .out = PROC_PIPE };
        struct proc p = { .pid = 77 };
        struct err got;

        CO_CHECK(proc_start(&spec, &p, &got) < 0);
        if (strcmp(got.msg, cases[i].want) != 0)
            printf("# %s\n", got.msg);
        CO_CHECK(strcmp(got.msg, cases[i].want) == 0);
        CO_CHECK(p.pid == 77);
    }
    CO_CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    return 0;
}

CO_TEST(a_child_has_its_own_group_and_the_default_signals)
{
    struct proc p = { 0 };
    sigset_t usr1, before;
    char text[4096];
    const char *line;
    int r;

    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &before);
    r = sh("exec cat /proc/self/status", &p, e); /* the loop has SIGPIPE ignored here */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CO_CHECK(r == 0);
    CO_CHECK(getpgid(p.pid) == p.pid);
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strstr(text, "SigBlk:\t0000000000000000"));
    line = strstr(text, "SigIgn:\t");
    CO_CHECK(line);
    /* 32 and 33 are the C library's own; GNU make leaves them ignored in what it starts */
    CO_CHECK((strtoull(line + 8, NULL, 16) & ~0x180000000ULL) == 0);
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    proc_done(&p);
    return 0;
}

CO_TEST(a_child_gets_no_descriptor_but_its_three)
{
    int leak = dup(STDOUT_FILENO); /* not close-on-exec, as a careless library leaves one */
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(leak > STDERR_FILENO);
    CO_CHECK(sh("exec ls /proc/self/fd", &p, e) == 0);
    close(leak);
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "0\n1\n2\n3\n") == 0); /* 3 is the directory that ls reads */
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    proc_done(&p);
    return 0;
}

CO_TEST(waiting_stops_at_the_deadline_and_may_go_on)
{
    struct proc p = { 0 };

    CO_CHECK(sh("read x; exit 3", &p, e) == 0);
    CO_CHECK(proc_wait(&p, now_ms() + 5, e) == -ERR_TIMEOUT);
    CO_CHECK(p.pidfd >= 0);
    close(take_fd(&p.in));
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    CO_CHECK(proc_exit_code(&p) == 3);
    proc_signal(&p, SIGKILL); /* reaped: nothing happens */
    proc_done(&p);
    return 0;
}

/* The child has a child; both hold the pipe open until they end. */
#define FAMILY "sh -c 'echo ready; while :; do sleep 100; done' & while :; do sleep 100; done"

CO_TEST(a_signal_reaches_the_whole_group)
{
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(sh(FAMILY, &p, e) == 0);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 6);
    proc_signal(&p, SIGTERM);
    CO_CHECK(proc_wait(&p, SOON, e) == 0);
    CO_CHECK(proc_exit_code(&p) == 128 + SIGTERM);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 0); /* the end: nobody is left */
    proc_done(&p);
    return 0;
}

CO_TEST(proc_end_is_gentle_first)
{
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(sh("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.01; done", &p, e) ==
             0);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 6);
    proc_end(&p, 20000);
    CO_CHECK(p.pidfd < 0);
    CO_CHECK(proc_exit_code(&p) == 9);
    CO_CHECK(read_text(p.out, text, sizeof(text), e) == 0);
    CO_CHECK(strcmp(text, "bye\n") == 0);
    proc_done(&p);
    return 0;
}

CO_TEST(proc_end_kills_what_does_not_listen)
{
    struct proc p = { 0 };
    char text[64];
    uint64_t begin;

    CO_CHECK(sh("trap '' TERM; " FAMILY, &p, e) == 0);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 6);
    begin = now_ms();
    proc_end(&p, 30);
    CO_CHECK(now_ms() >= begin + 30);
    CO_CHECK(proc_exit_code(&p) == 128 + SIGKILL);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 0);
    proc_done(&p);
    proc_end(&p, 30); /* nothing any more */
    return 0;
}

CO_TEST(proc_end_finds_those_whom_the_leader_left)
{
    struct proc p = { 0 };
    char text[64];

    CO_CHECK(
        sh("sh -c 'trap \"\" TERM; echo ready; while :; do sleep 100; done' & read x", &p, e) == 0);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 6);
    close(take_fd(&p.in));
    CO_CHECK(fiber_wait_fd(p.pidfd, LOOP_READ, SOON, e) > 0);
    proc_end(&p, 20000);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 0);
    proc_done(&p);
    return 0;
}

static int end_it(void *arg, struct err *e)
{
    struct proc *p = arg;
    int r;

    r = proc_wait(p, DEADLINE_NONE, e);
    proc_end(p, 20000);
    return r;
}

CO_TEST(proc_end_works_inside_a_cancelled_fiber)
{
    struct proc p = { 0 };
    struct fiber *f;
    char text[64];

    CO_CHECK(sh("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done", &p, e) == 0);
    CO_CHECK(fiber_read(p.out, text, sizeof(text), SOON, e) == 6);
    CO_CHECK(fiber_spawn(fiber_loop(), "end", end_it, &p, &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(proc_exit_code(&p) == 4);
    proc_done(&p);
    return 0;
}

TEST(a_zeroed_process_may_be_done_with)
{
    struct proc p = { 0 };

    proc_done(&p);
    proc_signal(&p, SIGTERM);
    CHECK(write(STDOUT_FILENO, "", 0) == 0); /* and has not closed descriptor 0 to 2 */
}

/* Starts a child that never ends, says its pid, and is killed itself. */
static int start_and_die(void *arg, struct err *e)
{
    const char *argv[] = { "sleep", "1000", NULL };
    struct proc_spec spec = { .argv = argv };
    struct proc p = { 0 };
    int *fd = arg;

    if (proc_start(&spec, &p, e) < 0 || write(*fd, &p.pid, sizeof(p.pid)) < 0)
        _exit(1);
    raise(SIGKILL);
    return 0;
}

TEST(a_child_does_not_outlive_us)
{
    int fds[2], status = 0;
    pid_t pid, orphan = 0;

    CHECK_INT(pipe(fds), 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(in_fiber(start_and_die, &fds[1]));
    close(fds[1]);
    CHECK_INT(read(fds[0], &orphan, sizeof(orphan)), sizeof(orphan));
    close(fds[0]);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    for (int i = 0; i < 2000 && kill(orphan, 0) == 0; i++) {
        char path[64], state = 0;
        FILE *f;

        /* Nobody may be there to reap it: a zombie is dead enough. */
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)orphan);
        f = fopen(path, "re");
        if (!f || fscanf(f, "%*d %*s %c", &state) != 1 || state == 'Z')
            i = 2000;
        if (f)
            fclose(f);
        usleep(5000);
        CHECK(i != 1999);
    }
}
