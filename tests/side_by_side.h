/* SPDX-License-Identifier: MIT */
/*
 * tests/side_by_side.h — main() of a test program whose tests wait more than they work: each runs
 * in a process of its own, TESTS_AT_ONCE of them at the same time. A test that crashes fails alone.
 * Included by test.h when the program has defined TESTS_AT_ONCE before it.
 *
 * What tests share outside of their process (a database) they tell apart by test_slot. Those that
 * stop what is shared are written TEST_ALONE, and run when the others are over.
 */
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct beside { /* a place for a test that runs */
    pid_t pid;  /* 0: free */
    const struct test *test;
    FILE *out;
    int64_t began_ms;
};

static inline int64_t beside_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* exit() and not _exit(): the sanitizers look for leaks there. */
static inline void beside_child(const struct test *t, int out)
{
    if (dup2(out, STDOUT_FILENO) < 0)
        abort();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (setjmp(test_out) == 0) {
        t->run();
        exit(0);
    }
    exit(1);
}

static inline void beside_begin(struct beside *b, const struct test *t)
{
    *b = (struct beside){ .test = t, .out = tmpfile(), .began_ms = beside_ms() };
    (void)fflush(stdout); /* or the child would write it too */
    if (!b->out || (b->pid = fork()) < 0) {
        perror("Bail out! no process for a test");
        exit(1);
    }
    if (b->pid == 0)
        beside_child(t, fileno(b->out));
}

/* What it printed, and how it ended. */
static inline bool beside_end(struct beside *b, int status, int n)
{
    char line[4096];

    rewind(b->out);
    while (fgets(line, sizeof(line), b->out))
        fputs(line, stdout);
    (void)fclose(b->out);
    if (WIFSIGNALED(status))
        printf("# ended by signal %d\n", WTERMSIG(status));
    printf("# after %lld ms:\n", (long long)(beside_ms() - b->began_ms));
    printf("%s %d - %s\n", status == 0 ? "ok" : "not ok", n, b->test->name);
    b->pid = 0;
    return status == 0;
}

/* Wait for one of them. */
static inline bool beside_reap(struct beside *all, size_t n_all, int n)
{
    int status = 0;
    pid_t pid = waitpid(-1, &status, 0);

    for (size_t i = 0; i < n_all; i++) {
        if (pid > 0 && all[i].pid == pid)
            return beside_end(&all[i], status, n);
    }
    perror("Bail out! no test to wait for");
    exit(1);
}

/* Run those that are alone or not, at most n_all at once; how many failed. */
static inline int beside_run(struct beside *all, size_t n_all, bool alone, int *n)
{
    const struct test *t = test_first;
    int running = 0, bad = 0;

    while (t || running > 0) {
        if (t && t->alone != alone) {
            t = t->next;
        } else if (t && running < (int)n_all) {
            size_t i = 0;

            while (all[i].pid != 0)
                i++;
            test_slot = alone ? 0 : (int)i + 1;
            beside_begin(&all[i], t);
            t = t->next;
            running++;
        } else {
            bad += !beside_reap(all, n_all, ++*n);
            running--;
        }
    }
    return bad;
}

int main(void)
{
    struct beside all[TESTS_AT_ONCE] = { 0 };
    int n = 0, bad;

    bad = beside_run(all, TESTS_AT_ONCE, false, &n);
    bad += beside_run(all, 1, true, &n);
    printf("1..%d\n", n);
    return bad ? 1 : 0;
}
