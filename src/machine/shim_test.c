/* SPDX-License-Identifier: MIT */
/* machine/shim_test.c — shims, with this program as the shim. */
#include "machine/shim.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "base/time.h"
#include "in_fiber.h"
#include "machine/shim_int.h"

#define SOON 20000

/* glibc hands constructors what main() gets. */
__attribute__((constructor)) static void as_shim(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--shim") == 0)
        exit(shim_main(argv[2]));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

struct room {
    char dir[64], program[256];
};

static void room_init(struct room *r)
{
    ssize_t n = readlink("/proc/self/exe", r->program, sizeof(r->program) - 1);

    r->program[n > 0 ? n : 0] = '\0';
    fmt_z(r->dir, sizeof(r->dir), "/tmp/shim_test.XXXXXX");
    if (!mkdtemp(r->dir))
        abort();
}

static void room_done_auto(struct room *r)
{
    struct err e;

    (void)!shim_stop(fiber_loop(), r->dir, 0, deadline_in(SOON), &e); /* of a failed test */
    nftw(r->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

CO static int run(struct room *r, const struct shim_spec *more, const char *script, struct err *e)
{
    const char *const argv[] = { "/bin/sh", "-c", script, NULL };
    struct shim_spec spec = more ? *more : (struct shim_spec){ 0 };

    spec.dir = r->dir;
    spec.argv = argv;
    return shim_start(fiber_loop(), r->program, &spec, deadline_in(SOON), e);
}

/* The log holds the text, sooner or later. */
CO static bool says(struct room *r, const char *text)
{
    for (int i = 0; i < SOON / 10; i++) {
        AUTO(buf_done) struct buf log;
        struct err e;

        buf_init(&log, 64 * KIB);
        if (shim_log(r->dir, 32 * KIB, &log, &e) == 0 && buf_str(&log).n > 0 &&
            memmem(buf_str(&log).p, buf_str(&log).n, text, strlen(text)))
            return true;
        if (fiber_sleep(10, &e) < 0)
            return false;
        if (i == SOON / 10 - 1)
            printf("# it says: %.*s\n", (int)buf_str(&log).n, buf_str(&log).p);
    }
    return false;
}

CO_TEST(what_a_child_says_and_how_it_ends_is_kept)
{
    AUTO(room_done) struct room r = { 0 };
    struct shim_state s;

    room_init(&r);
    CO_CHECK(run(&r, NULL, "echo out; echo err >&2; pwd; exit 7", e) == 0);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0);
    CO_CHECK(!s.alive && WIFEXITED(s.status) && WEXITSTATUS(s.status) == 7);
    CO_CHECK(s.ended_at >= s.started_at && s.started_at > 1600000000000LL);
    CO_CHECK(says(&r, "out\nerr\n") && says(&r, r.dir));
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && !s.alive && WEXITSTATUS(s.status) == 7);
    return 0;
}

CO_TEST(one_that_runs_is_seen_and_there_is_one_of_them)
{
    AUTO(room_done) struct room r = { 0 };
    struct shim_state s;

    room_init(&r);
    CO_CHECK(run(&r, NULL, "echo up; sleep 1000", e) == 0);
    CO_CHECK(says(&r, "up"));
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && s.alive);
    CO_CHECK(s.pid > 0 && kill(s.pid, 0) == 0 && s.memory > 0 && s.cpu_seconds >= 0);
    CO_CHECK(run(&r, NULL, "true", e) == -ERR_CONFLICT);
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && s.alive);
    CO_CHECK(shim_stop(fiber_loop(), r.dir, 5000, deadline_in(SOON), e) == 0);
    CO_CHECK(kill(s.pid, 0) < 0);
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && !s.alive);
    CO_CHECK(WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGTERM);
    CO_CHECK(shim_stop(fiber_loop(), r.dir, 5000, deadline_in(SOON), e) == 0);
    CO_CHECK(run(&r, NULL, "exit 3", e) == 0);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0);
    CO_CHECK(WEXITSTATUS(s.status) == 3);
    return 0;
}

CO_TEST(who_ignores_sigterm_is_killed_with_all_it_started)
{
    AUTO(room_done) struct room r = { 0 };
    struct shim_state s;
    AUTO(buf_done) struct buf log;
    pid_t stray;

    buf_init(&log, 4096);
    room_init(&r);
    CO_CHECK(run(&r, NULL, "trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 1; done",
                 e) == 0);
    CO_CHECK(says(&r, "\n"));
    CO_CHECK(shim_log(r.dir, 100, &log, e) == 0);
    stray = (pid_t)strtol(buf_str(&log).p, NULL, 10);
    CO_CHECK(stray > 1 && kill(stray, 0) == 0);
    CO_CHECK(shim_stop(fiber_loop(), r.dir, 50, deadline_in(SOON), e) == 0);
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && !s.alive);
    CO_CHECK(WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGKILL);
    CO_CHECK(kill(stray, 0) < 0);
    return 0;
}

CO_TEST(signals_reach_the_group)
{
    AUTO(room_done) struct room r = { 0 };
    struct shim_state s;

    room_init(&r);
    CO_CHECK(run(&r, NULL, "trap 'echo usr; exit 4' USR1; echo up; while :; do sleep 0.1; done",
                 e) == 0);
    CO_CHECK(says(&r, "up"));
    CO_CHECK(shim_signal(fiber_loop(), r.dir, SIGUSR1, e) == 0);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0);
    CO_CHECK(says(&r, "usr"));
    CO_CHECK(shim_signal(fiber_loop(), r.dir, SIGUSR1, e) == -ERR_NOT_FOUND);
    return 0;
}

CO_TEST(a_program_that_is_not_there_is_told)
{
    AUTO(room_done) struct room r = { 0 };
    static const char *const argv[] = { "/nowhere/at-all", NULL };
    struct shim_spec spec = { .argv = argv };
    struct shim_state s;

    room_init(&r);
    spec.dir = r.dir;
    CO_CHECK(shim_start(fiber_loop(), r.program, &spec, deadline_in(SOON), e) == -ERR_INTERNAL);
    CO_CHECK(strstr(e->msg, "/nowhere/at-all: No such file"));
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && !s.alive && s.status == -1);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0 && s.status == -1);
    return 0;
}

CO_TEST(a_child_dies_with_a_shim_that_is_killed)
{
    AUTO(room_done) struct room r = { 0 };
    struct shim_state s;
    pid_t child, shim;
    char path[64], text[256];
    FILE *f;

    room_init(&r);
    CO_CHECK(run(&r, NULL, "echo up; exec sleep 1000", e) == 0);
    CO_CHECK(says(&r, "up"));
    CO_CHECK(shim_look(fiber_loop(), r.dir, &s, e) == 0 && s.alive);
    child = s.pid;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
    f = fopen(path, "r");
    CO_CHECK(f && fgets(text, sizeof(text), f));
    fclose(f);
    CO_CHECK(sscanf(strrchr(text, ')') + 1, " %*c %d", &shim) == 1 && shim > 1);
    CO_CHECK(kill(shim, SIGKILL) == 0);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0);
    CO_CHECK(!s.alive && s.status == -1);
    for (int i = 0; i < 1000 && kill(child, 0) == 0; i++) {
        snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)child); /* empty of a zombie */
        f = fopen(path, "r");
        if (!f || fgetc(f) == EOF)
            child = -1;
        if (f)
            fclose(f);
        if (child < 0)
            break;
        CO_CHECK(fiber_sleep(10, e) == 0);
    }
    CO_CHECK(child < 0 || kill(child, 0) < 0);
    CO_CHECK(run(&r, NULL, "true", e) == 0);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0 && s.status == 0);
    return 0;
}

CO_TEST(memory_is_bounded_for_one_process_and_for_all)
{
    AUTO(room_done) struct room r = { 0 };
    const struct shim_spec one = { .memory_mib = 64 };
    struct shim_state s;

    room_init(&r);
    if (SHIM_DATA_LIMIT) {
        CO_CHECK(run(&r, &one,
                     "head -c 200m /dev/zero | tail -c 200m > /dev/null; echo ended with $?",
                     e) == 0);
        CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0);
        CO_CHECK(says(&r, "ended with 1"));
    } else {
        printf("# the limit of one process is not set under AddressSanitizer: not looked at\n");
    }
    CO_CHECK(run(&r, &one,
                 "(head -c 48m /dev/zero; sleep 1000) | tail -c 48m > /dev/null & "
                 "(head -c 40m /dev/zero; sleep 1000) | tail -c 40m > /dev/null & wait",
                 e) == 0);
    CO_CHECK(says(&r, "over the memory limit of 64"));
    return 0;
}

CO_TEST(who_prints_without_a_pause_does_not_hide_its_memory)
{
    AUTO(room_done) struct room r = { 0 };
    const struct shim_spec one = { .memory_mib = 64 };

    room_init(&r);
    CO_CHECK(run(&r, &one,
                 "(while sleep 0.02; do echo noise; done) & "
                 "(head -c 48m /dev/zero; sleep 1000) | tail -c 48m > /dev/null & "
                 "(head -c 40m /dev/zero; sleep 1000) | tail -c 40m > /dev/null & wait",
                 e) == 0);
    CO_CHECK(says(&r, "over the memory limit of 64"));
    return 0;
}

/* More children than a page of their numbers holds: none is missed, no number is cut in two. */
TEST(all_of_a_thousand_children_are_seen)
{
    struct shim_use use;
    int fds[2];
    pid_t top;
    char byte;

    CHECK(pipe(fds) == 0);
    top = fork();
    if (top == 0) {
        setpgid(0, 0);
        for (int i = 0; i < 1000; i++)
            if (fork() == 0) {
                pause();
                _exit(0);
            }
        (void)!write(fds[1], "x", 1);
        pause();
        _exit(0);
    }
    CHECK(top > 0 && read(fds[0], &byte, 1) == 1);
    shim_tree_look(top, &use);
    CHECK(kill(-top, SIGKILL) == 0 && waitpid(top, NULL, 0) == top);
    close(fds[0]);
    close(fds[1]);
    CHECK(use.n == 1001);
}

CO_TEST(the_log_is_rotated)
{
    AUTO(room_done) struct room r = { 0 };
    AUTO(buf_done) struct buf log;
    struct shim_state s;
    char path[128];
    struct stat st;

    buf_init(&log, 16 * MIB);
    room_init(&r);
    CO_CHECK(run(&r, NULL, "head -c 9m /dev/zero | tr '\\0' x; echo the end", e) == 0);
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0 && s.status == 0);
    snprintf(path, sizeof(path), "%s/log", r.dir);
    CO_CHECK(stat(path, &st) == 0 && st.st_size <= (off_t)SHIM_LOG_MAX);
    snprintf(path, sizeof(path), "%s/log.1", r.dir);
    CO_CHECK(stat(path, &st) == 0 && st.st_size <= (off_t)SHIM_LOG_MAX);
    CO_CHECK(shim_log(r.dir, 3 * MIB, &log, e) == 0 && buf_str(&log).n == 3 * MIB);
    CO_CHECK(memcmp(buf_str(&log).p + buf_str(&log).n - 8, "the end\n", 8) == 0);
    return 0;
}

/* Only root may change the user and mount. */
CO_TEST(another_user_sees_what_is_staged_and_no_more)
{
    AUTO(room_done) struct room r = { 0 };
    char file[128], hidden[128];
    const char *staging[] = { file, NULL }, *files[] = { hidden, NULL };
    const struct shim_spec spec = {
        .uid = 2000000123, .staging = staging, .files = files, .pids = 20
    };
    struct shim_state s;
    FILE *f;

    if (geteuid() != 0) {
        printf("# skipped: needs root\n");
        return 0;
    }
    room_init(&r);
    snprintf(file, sizeof(file), "%s/file", r.dir);
    snprintf(hidden, sizeof(hidden), "%s/hidden", r.dir);
    f = fopen(file, "w");
    CO_CHECK(f && fputs("shown", f) > 0 && fclose(f) == 0);
    f = fopen(hidden, "w");
    CO_CHECK(f && fputs("handed over", f) > 0 && fclose(f) == 0 && chmod(hidden, 0600) == 0);
    CO_CHECK(run(&r, &spec,
                 "id; cat " SHIM_STAGING "/0; cat <&3; "
                 "for i in $(seq 40); do sleep 1 & done; echo never",
                 e) == 0);
    CO_CHECK(says(&r, "uid=2000000123 gid=2000000123 groups=2000000123\nshownhanded over"));
    CO_CHECK(shim_wait(fiber_loop(), r.dir, deadline_in(SOON), &s, e) == 0);
    CO_CHECK(says(&r, "fork"));
    return 0;
}
