/* SPDX-License-Identifier: MIT */
/* base/fiber_test.c — the life of fibers: order, joining, cancelling, deadlines, stacks. */
#include "base/fiber.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "in_fiber.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#endif

static char a_name[] = "a", b_name[] = "b", fish[] = "fish";
static char trace[128];
static size_t trace_n;

static void trace_begin(void)
{
    memset(trace, 0, sizeof(trace));
    trace_n = 0;
}

static void trace_add(char c)
{
    if (trace_n + 1 < sizeof(trace))
        trace[trace_n++] = c;
}

static int say_thrice(void *arg, struct err *e)
{
    for (int i = 0; i < 3; i++) {
        trace_add(*(const char *)arg);
        if (i < 2 && fiber_yield(e) < 0)
            return -e->code;
    }
    return 0;
}

CO_TEST(fibers_run_in_order_of_spawning_and_take_turns_at_yield)
{
    struct fiber *a, *b;

    trace_begin();
    CO_CHECK(fiber_spawn(fiber_loop(), "a", say_thrice, a_name, &a, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "b", say_thrice, b_name, &b, e) == 0);
    trace_add('.'); /* a spawn runs nothing */
    CO_CHECK(fibers_alive(fiber_loop()) == 3);
    CO_CHECK(fiber_join(a, e) == 0);
    CO_CHECK(fiber_join(b, e) == 0);
    CO_CHECK(strcmp(trace, ".ababab") == 0);
    CO_CHECK(fibers_alive(fiber_loop()) == 1);
    return 0;
}

static int answer(void *arg, struct err *e)
{
    return *(const int *)arg;
}

static int refuse(void *arg, struct err *e)
{
    return err_set(e, ERR_CONFLICT, "no %s today", (const char *)arg);
}

CO_TEST(join_returns_the_result_and_the_error)
{
    struct fiber *f, *g;
    struct err got;
    int seven = 7;

    CO_CHECK(fiber_spawn(fiber_loop(), "answer", answer, &seven, &f, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "refuse", refuse, fish, &g, e) == 0);
    CO_CHECK(fiber_join(f, &got) == 7);
    CO_CHECK(fiber_join(g, &got) == -ERR_CONFLICT);
    CO_CHECK(got.code == ERR_CONFLICT);
    CO_CHECK(strcmp(got.msg, "no fish today") == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "refuse", refuse, fish, &g, e) == 0);
    CO_CHECK(fiber_join(g, NULL) == -ERR_CONFLICT);
    return 0;
}

CO_TEST(join_of_a_fiber_that_has_long_returned)
{
    struct fiber *f;
    int five = 5;

    CO_CHECK(fiber_spawn(fiber_loop(), "answer", answer, &five, &f, e) == 0);
    for (int i = 0; i < 3; i++)
        CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f); /* too late, and safe */
    CO_CHECK(fiber_join(f, e) == 5);
    return 0;
}

static void note_gone(char **p)
{
    trace_add(**p);
}
#define note_gone_auto note_gone

static int sleep_long(void *arg, struct err *e)
{
    AUTO(note_gone) char *outer = arg;
    int r;

    trace_add('s');
    r = fiber_sleep(600000, e);
    if (r < 0) {
        AUTO(note_gone) char *inner = (char *)arg + 1;
        struct err again;

        /* Every later wait fails as well. */
        if (fiber_sleep(1, &again) == -ERR_CANCELED && fiber_yield(&again) == -ERR_CANCELED &&
            fiber_park(DEADLINE_NONE, &again) == -ERR_CANCELED)
            trace_add('!');
        (void)inner;
        return r;
    }
    (void)outer;
    return 0;
}

CO_TEST(cancel_makes_waits_fail_and_unwinds)
{
    char names[] = "oi";
    struct fiber *f;

    trace_begin();
    CO_CHECK(fiber_spawn(fiber_loop(), "sleeper", sleep_long, names, &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(strcmp(trace, "s") == 0);
    fiber_cancel(f);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(strcmp(trace, "s!io") == 0);
    return 0;
}

CO_TEST(a_fiber_cancelled_before_its_first_run_still_runs)
{
    char names[] = "oi";
    struct fiber *f;

    trace_begin();
    CO_CHECK(fiber_spawn(fiber_loop(), "sleeper", sleep_long, names, &f, e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(strcmp(trace, "s!io") == 0);
    return 0;
}

static int cancel_self(void *arg, struct err *e)
{
    CO_CHECK(!fiber_canceled());
    fiber_cancel(fiber_self());
    CO_CHECK(fiber_canceled());
    return fiber_yield(e);
}

CO_TEST(a_fiber_may_cancel_itself)
{
    struct fiber *f;

    CO_CHECK(fiber_spawn(fiber_loop(), "self", cancel_self, NULL, &f, e) == 0);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    return 0;
}

static int park_hard(void *arg, struct err *e)
{
    bool *done = arg;

    while (!*done)
        fiber_park_hard();
    return fiber_canceled() ? 1 : 2;
}

CO_TEST(a_hard_park_is_blind_to_cancel)
{
    struct fiber *f;
    bool done = false;

    CO_CHECK(fiber_spawn(fiber_loop(), "hard", park_hard, &done, &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    for (int i = 0; i < 3; i++)
        CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fibers_alive(fiber_loop()) == 2);
    done = true;
    fiber_wake(f);
    CO_CHECK(fiber_join(f, e) == 1);
    return 0;
}

CO_TEST(a_park_times_out_at_its_deadline_and_not_before)
{
    uint64_t begin = now_ms();

    CO_CHECK(fiber_park(begin + 20, e) == -ERR_TIMEOUT);
    CO_CHECK(now_ms() >= begin + 20);
    CO_CHECK(e->code == ERR_TIMEOUT);
    CO_CHECK(fiber_park(begin, e) == -ERR_TIMEOUT); /* past: at once */
    CO_CHECK(fiber_park(0, e) == -ERR_TIMEOUT);
    return 0;
}

struct nap {
    unsigned ms;
    char c;
};

static int nap(void *arg, struct err *e)
{
    const struct nap *n = arg;
    int r;

    r = fiber_sleep(n->ms, e);
    trace_add(n->c);
    return r;
}

CO_TEST(sleepers_wake_in_order_of_their_deadlines)
{
    struct nap naps[] = { { 40, 'd' }, { 10, 'a' }, { 30, 'c' }, { 20, 'b' }, { 0, '0' } };
    struct fiber *f[LEN(naps)];

    trace_begin();
    for (size_t i = 0; i < LEN(naps); i++)
        CO_CHECK(fiber_spawn(fiber_loop(), "nap", nap, &naps[i], &f[i], e) == 0);
    for (size_t i = 0; i < LEN(naps); i++)
        CO_CHECK(fiber_join(f[i], e) == 0);
    CO_CHECK(strcmp(trace, "0abcd") == 0);
    return 0;
}

/* Parks again and again with deadlines that move: the heap is put right lazily. */
static int park_often(void *arg, struct err *e)
{
    static const unsigned ms[] = { 100000, 30, 100000, 5, 0, 60, 2 };
    const unsigned *seed = arg;

    for (size_t i = 0; i < LEN(ms); i++) {
        unsigned wait = ms[(i + *seed) % LEN(ms)];
        uint64_t begin = now_ms();
        int r;

        if (wait == 0 || wait == 100000) { /* woken at once, so that the deadline stays unused */
            fiber_wake(fiber_self());
            r = fiber_park(wait ? begin + wait : DEADLINE_NONE, e);
            CO_CHECK(r == 0);
            continue;
        }
        r = fiber_park(begin + wait, e);
        CO_CHECK(r == -ERR_TIMEOUT);
        CO_CHECK(now_ms() >= begin + wait);
    }
    return 0;
}

CO_TEST(deadlines_that_move_are_kept)
{
    struct fiber *f[100];
    unsigned seeds[100];

    for (unsigned i = 0; i < LEN(f); i++) {
        seeds[i] = i;
        CO_CHECK(fiber_spawn(fiber_loop(), "parks", park_often, &seeds[i], &f[i], e) == 0);
    }
    for (unsigned i = 0; i < LEN(f); i++)
        CO_CHECK(fiber_join(f[i], e) == 0);
    return 0;
}

static int wake_arg(void *arg, struct err *e)
{
    fiber_wake(arg);
    return 0;
}

/* A far deadline leaves an entry in the heap; a nearer one must still be kept afterwards. */
CO_TEST(a_nearer_deadline_after_a_far_one_that_was_not_needed)
{
    uint64_t begin;

    CO_CHECK(fiber_spawn(fiber_loop(), "wake", wake_arg, fiber_self(), NULL, e) == 0);
    CO_CHECK(fiber_park(now_ms() + 100000, e) == 0);
    begin = now_ms();
    CO_CHECK(fiber_park(begin + 10, e) == -ERR_TIMEOUT);
    CO_CHECK(now_ms() >= begin + 10 && now_ms() < begin + 50000);
    return 0;
}

CO_TEST(a_wake_up_before_the_park_is_remembered_once)
{
    fiber_wake(fiber_self());
    fiber_wake(fiber_self());
    CO_CHECK(fiber_park(DEADLINE_NONE, e) == 0);
    CO_CHECK(fiber_park(now_ms() + 5, e) == -ERR_TIMEOUT);
    return 0;
}

struct ball {
    struct fiber *players[2];
    unsigned turn, hits;
};

static int play(void *arg, struct err *e)
{
    struct ball *ball = arg;
    unsigned me = ball->players[1] == fiber_self();

    while (ball->hits < 20000) {
        if (ball->turn != me) {
            int r = fiber_park(DEADLINE_NONE, e);

            if (r < 0)
                return r;
            continue;
        }
        ball->turn = !me;
        ball->hits++;
        fiber_wake(ball->players[!me]);
    }
    fiber_wake(ball->players[!me]);
    return 0;
}

CO_TEST(no_wake_up_is_lost_between_two_fibers)
{
    struct ball ball = { 0 };

    for (int i = 0; i < 2; i++)
        CO_CHECK(fiber_spawn(fiber_loop(), "player", play, &ball, &ball.players[i], e) == 0);
    for (int i = 0; i < 2; i++)
        CO_CHECK(fiber_join(ball.players[i], e) == 0);
    CO_CHECK(ball.hits == 20000);
    return 0;
}

static void on_timer(void *arg)
{
    bool *rang = arg;

    *rang = true;
}

CO_TEST(fibers_that_are_always_ready_do_not_starve_the_loop)
{
    bool rang = false;
    struct loop_timer *t = loop_timer_new(fiber_loop(), on_timer, &rang);
    struct ball ball = { 0 };

    /* Two fibers that wake each other for ever would fill a turn without a budget. */
    for (int i = 0; i < 2; i++)
        CO_CHECK(fiber_spawn(fiber_loop(), "player", play, &ball, &ball.players[i], e) == 0);
    loop_timer_set(t, now_ms() + 2);
    while (!rang) {
        CO_CHECK(fiber_yield(e) == 0);
        if (ball.hits > 10000)
            ball.hits = 0;
    }
    loop_timer_free(t);
    for (int i = 0; i < 2; i++)
        CO_CHECK(fiber_join(ball.players[i], e) == 0);
    return 0;
}

static int log_twice(void *arg, struct err *e)
{
    struct log_ctx ctx;
    int r;

    log_push(&ctx, "who", arg);
    log_info("one");
    r = fiber_yield(e);
    log_info("two");
    log_pop(&ctx);
    return r;
}

static char lines[4][256];
static unsigned n_lines;

static void keep_line(enum log_level level, const char *line, void *arg)
{
    if (n_lines < LEN(lines))
        snprintf(lines[n_lines++], sizeof(lines[0]), "%s", line);
}

CO_TEST(each_fiber_has_its_own_log_context)
{
    static const char *const want[] = { "ada", "bob", "ada", "bob" };
    struct fiber *a, *b;
    char ada[] = "ada", bob[] = "bob";

    n_lines = 0;
    log_capture(keep_line, NULL);
    CO_CHECK(fiber_spawn(fiber_loop(), "a", log_twice, ada, &a, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "b", log_twice, bob, &b, e) == 0);
    CO_CHECK(fiber_join(a, e) == 0);
    CO_CHECK(fiber_join(b, e) == 0);
    log_capture(NULL, NULL);
    CO_CHECK(n_lines == LEN(want));
    for (size_t i = 0; i < LEN(want); i++)
        CO_CHECK(strstr(lines[i], want[i]));
    return 0;
}

CO_TEST(the_error_of_a_detached_fiber_is_logged_unless_it_was_cancelled)
{
    char names[] = "oi";

    n_lines = 0;
    log_capture(keep_line, NULL);
    CO_CHECK(fiber_spawn(fiber_loop(), "fishmonger", refuse, fish, NULL, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "self", cancel_self, names, NULL, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    log_capture(NULL, NULL);
    CO_CHECK(n_lines == 1);
    CO_CHECK(strstr(lines[0], "fishmonger") && strstr(lines[0], "no fish today"));
    return 0;
}

struct crowd {
    unsigned parked;
    bool go;
};

static int stand(void *arg, struct err *e)
{
    struct crowd *crowd = arg;
    char some[200];
    int r = 0;

    snprintf(some, sizeof(some), "%u", crowd->parked++);
    while (r == 0 && !crowd->go)
        r = fiber_park(DEADLINE_NONE, e);
    return (int)strtol(some, NULL, 10);
}

static size_t rss(void)
{
    unsigned long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

#ifdef UNDER_SANITIZER
#define CROWD \
    1000 /* ThreadSanitizer knows 8128 stacks at most, and neither likes deep recursion \
          */
#else
#define CROWD 10000
#endif

CO_TEST(ten_thousand_fibers_park_at_once_in_little_memory)
{
    struct crowd crowd = { 0 };
    struct fiber **f = xcalloc(CROWD, sizeof(struct fiber *));
    size_t before = rss(), each, n = RUNNING_ON_VALGRIND ? CROWD / 20 : CROWD;

    for (size_t i = 0; i < n; i++)
        CO_CHECK(fiber_spawn(fiber_loop(), "stand", stand, &crowd, &f[i], e) == 0);
    while (crowd.parked < n)
        CO_CHECK(fiber_yield(e) == 0);
    each = (rss() - before) / n;
    printf("# %zu bytes for each parked fiber\n", each);
#ifndef UNDER_SANITIZER
    CO_CHECK(each < 12 * KIB || RUNNING_ON_VALGRIND);
#endif
    crowd.go = true;
    for (size_t i = 0; i < n; i++)
        fiber_wake(f[i]);
    for (size_t i = 0; i < n; i++)
        CO_CHECK(fiber_join(f[i], e) == (int)i);
    free(f);
    return 0;
}

#ifndef UNDER_SANITIZER
static size_t stack_used(size_t depth)
{
    volatile char frame[1024];

    frame[0] = (char)depth;
    frame[sizeof(frame) - 1] = frame[0];
    return depth == 0 ? (size_t)frame[0] : stack_used(depth - 1) + (size_t)frame[1023];
}

static int recurse(void *arg, struct err *e)
{
    return (int)(stack_used(*(const size_t *)arg) & 1);
}

static int status_of_recursion(size_t depth)
{
    int status = -1;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct rlimit none = { 0, 0 };

        setrlimit(RLIMIT_CORE, &none);
        _exit(in_fiber(recurse, &depth) >= 0 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    return status;
}

TEST(a_stack_that_is_used_up_hits_the_guard_and_nothing_else)
{
    int status = status_of_recursion(FIBER_STACK / 1024 / 2);

    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    status = status_of_recursion(FIBER_STACK / 1024 + 2);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}
#endif

static int dig(void *arg, struct err *e)
{
    volatile char frame[4096];

    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (char)i;
    return fiber_yield(e);
}

CO_TEST(stacks_are_reused)
{
    for (int round = 0; round < 3; round++) {
        struct fiber *f[400];

        for (size_t i = 0; i < LEN(f); i++)
            CO_CHECK(fiber_spawn(fiber_loop(), "dig", dig, NULL, &f[i], e) == 0);
        for (size_t i = 0; i < LEN(f); i++)
            CO_CHECK(fiber_join(f[i], e) == 0);
    }
    return 0;
}

static int join_arg(void *arg, struct err *e)
{
    return fiber_join(arg, e);
}

TEST(loop_run_returns_when_nothing_can_wake_a_parked_fiber)
{
    struct crowd crowd = { 0 };
    struct loop *loop = NULL;
    struct fiber *f = NULL;
    struct err e;

    CHECK_INT(loop_new(&loop, &e), 0);
    CHECK_INT(fiber_spawn(loop, "stand", stand, &crowd, &f, &e), 0);
    loop_run(loop);
    CHECK_INT(fibers_alive(loop), 1);
    crowd.go = true;
    fiber_wake(f);
    loop_run(loop);
    CHECK_INT(fibers_alive(loop), 0);
    CHECK(!fiber_self());
    CHECK_INT(fiber_spawn(loop, "join", join_arg, f, NULL, &e), 0);
    loop_run(loop);
    loop_free(loop);
}
