/* SPDX-License-Identifier: MIT */
/* base/loop_test.c — timers, descriptors, posts and the end of a turn. */
#include "base/loop.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "test.h"

static struct loop *loop_make(void)
{
    struct loop *loop = NULL;
    struct err e;

    if (loop_new(&loop, &e) < 0)
        printf("# %s\n", e.msg);
    return loop;
}

struct trace {
    char text[64];
    size_t n;
    struct loop *loop;
    struct loop_timer *timer;
};

struct mark {
    struct trace *trace;
    char c;
};

static void add_mark(void *arg)
{
    struct mark *m = arg;

    if (m->trace->n + 1 < sizeof(m->trace->text))
        m->trace->text[m->trace->n++] = m->c;
}

TEST(a_loop_without_work_returns_at_once)
{
    struct loop *loop = loop_make();

    loop_run(loop);
    loop_run(loop);
    loop_free(loop);
}

TEST(timers_run_in_order_of_their_deadlines)
{
    struct loop *loop = loop_make();
    struct trace trace = { .loop = loop };
    struct mark marks[4];
    struct loop_timer *timers[4];
    static const unsigned delays[] = { 30, 10, 20, 15 };
    uint64_t begin = now_ms();

    for (size_t i = 0; i < LEN(delays); i++) {
        marks[i] = (struct mark){ &trace, (char)('a' + i) };
        timers[i] = loop_timer_new(loop, add_mark, &marks[i]);
        loop_timer_set(timers[i], begin + delays[i]);
    }
    loop_timer_stop(timers[3]);
    loop_run(loop);
    CHECK_STR(trace.text, "bca");
    CHECK(now_ms() >= begin + 30);
    for (size_t i = 0; i < LEN(delays); i++)
        loop_timer_free(timers[i]);
    loop_free(loop);
}

static void free_timer(void *arg)
{
    struct trace *trace = arg;

    trace->n++;
    loop_timer_free(TAKE(trace->timer));
}

TEST(a_timer_may_be_freed_by_its_own_callback)
{
    struct loop *loop = loop_make();
    struct trace trace = { .loop = loop };

    trace.timer = loop_timer_new(loop, free_timer, &trace);
    loop_timer_set(trace.timer, now_ms());
    loop_run(loop);
    CHECK_INT(trace.n, 1);
    loop_free(loop);
}

TEST(a_deadline_of_none_stops_the_timer)
{
    struct loop *loop = loop_make();
    struct trace trace = { .loop = loop };
    struct loop_timer *t = loop_timer_new(loop, free_timer, &trace);

    loop_timer_set(t, now_ms() + 5);
    loop_timer_set(t, DEADLINE_NONE);
    loop_run(loop);
    CHECK_INT(trace.n, 0);
    loop_timer_free(t);
    loop_free(loop);
}

static void defer_more(void *arg)
{
    struct mark *m = arg;

    add_mark(m);
    if (m->c == 'x') {
        m->c = 'y';
        loop_defer(m->trace->loop, defer_more, m);
    }
}

TEST(deferred_calls_run_in_order_even_when_nothing_else_goes_on)
{
    struct loop *loop = loop_make();
    struct trace trace = { .loop = loop };
    struct mark x = { &trace, 'x' }, b = { &trace, 'b' };

    loop_defer(loop, defer_more, &x);
    loop_defer(loop, add_mark, &b);
    CHECK_STR(trace.text, "");
    loop_run(loop);
    CHECK_STR(trace.text, "xby");
    loop_free(loop);
}

TEST(loop_free_runs_what_is_still_deferred_or_posted)
{
    struct loop *loop = loop_make();
    struct trace trace = { .loop = loop };
    struct mark a = { &trace, 'a' }, b = { &trace, 'b' };

    loop_defer(loop, add_mark, &b);
    loop_post(loop, add_mark, &a);
    loop_free(loop);
    CHECK_STR(trace.text, "ab");
}

#define POSTS 2000

struct poster {
    struct loop *loop;
    struct loop_timer *keep;
    unsigned next, wrong, done, threads;
};

struct post {
    struct poster *poster;
    unsigned thread, n;
};

static unsigned seen[4];

static void on_post(void *arg)
{
    struct post *p = arg;

    if (seen[p->thread] != p->n)
        p->poster->wrong++;
    seen[p->thread] = p->n + 1;
    if (++p->poster->done == POSTS * p->poster->threads)
        loop_timer_free(TAKE(p->poster->keep));
    free(p);
}

static void *post_many(void *arg)
{
    struct poster *poster = arg;
    unsigned thread = __atomic_fetch_add(&poster->next, 1, __ATOMIC_RELAXED);

    for (unsigned i = 0; i < POSTS; i++) {
        struct post *p = xmalloc(sizeof(*p));

        *p = (struct post){ poster, thread, i };
        loop_post(poster->loop, on_post, p);
    }
    return NULL;
}

static void never(void *arg)
{
}

TEST(posts_of_several_threads_arrive_once_and_in_each_threads_order)
{
    struct poster poster = { .loop = loop_make(), .threads = LEN(seen) };
    pthread_t threads[LEN(seen)];

    poster.keep = loop_timer_new(poster.loop, never, NULL);
    loop_timer_set(poster.keep, now_ms() + 60000);
    for (size_t i = 0; i < LEN(threads); i++)
        CHECK_INT(pthread_create(&threads[i], NULL, post_many, &poster), 0);
    loop_run(poster.loop);
    for (size_t i = 0; i < LEN(threads); i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(poster.done, POSTS * LEN(threads));
    CHECK_INT(poster.wrong, 0);
    loop_free(poster.loop);
}

struct pair {
    struct loop *loop;
    struct loop_io *io;
    int fds[2];
    unsigned reads, writes, limit;
    char byte;
};

static struct pair pair_make(void (*fn)(struct loop_io *io, unsigned events, void *arg),
                             struct pair *p)
{
    struct pair made = { .loop = loop_make(), .limit = 3 };

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, made.fds) < 0)
        perror("# socketpair");
    made.io = loop_io_new(made.loop, made.fds[0], fn, p);
    return made;
}

static void pair_done(struct pair *p)
{
    loop_io_free(p->io);
    loop_free(p->loop);
    close(p->fds[0]);
    if (p->fds[1] >= 0)
        close(p->fds[1]);
}

static void on_pair(struct loop_io *io, unsigned events, void *arg)
{
    struct pair *p = arg;

    if (events & LOOP_READ) {
        p->reads++;
        if (p->reads >= p->limit)
            loop_io_want(io, 0);
    }
    if (events & LOOP_WRITE) {
        p->writes++;
        loop_io_want(io, LOOP_READ);
    }
}

TEST(readiness_is_reported_until_it_is_used_up_or_not_wanted)
{
    struct pair p;

    p = pair_make(on_pair, &p);
    CHECK_INT(write(p.fds[1], "x", 1), 1);
    loop_io_want(p.io, LOOP_READ);
    loop_run(p.loop); /* ends as nothing is watched any more */
    CHECK_INT(p.reads, 3);
    p.limit = 5;
    loop_io_want(p.io, LOOP_READ);
    loop_run(p.loop);
    CHECK_INT(p.reads, 5);
    pair_done(&p);
}

TEST(writing_is_reported_once_when_it_is_then_no_longer_wanted)
{
    struct pair p;

    p = pair_make(on_pair, &p);
    CHECK_INT(write(p.fds[1], "x", 1), 1);
    loop_io_want(p.io, LOOP_READ | LOOP_WRITE);
    p.limit = 4;
    loop_run(p.loop);
    CHECK_INT(p.writes, 1);
    CHECK_INT(p.reads, 4);
    pair_done(&p);
}

static void on_hup(struct loop_io *io, unsigned events, void *arg)
{
    struct pair *p = arg;

    p->reads += !!(events & LOOP_READ);
    p->writes += !!(events & LOOP_WRITE);
    loop_io_want(io, 0);
}

TEST(a_closed_peer_makes_everything_that_is_wanted_ready)
{
    struct pair p;

    p = pair_make(on_hup, &p);
    close(p.fds[1]);
    p.fds[1] = -1;
    loop_io_want(p.io, LOOP_READ | LOOP_WRITE);
    loop_run(p.loop);
    CHECK_INT(p.reads, 1);
    CHECK_INT(p.writes, 1);
    pair_done(&p);
}

TEST(an_error_of_the_descriptor_reports_what_is_wanted)
{
    struct loop *loop = loop_make();
    struct pair p = { .loop = loop };

    CHECK_INT(pipe2(p.fds, O_CLOEXEC | O_NONBLOCK), 0);
    close(p.fds[0]);
    p.io = loop_io_new(loop, p.fds[1], on_hup, &p);
    loop_io_want(p.io, LOOP_WRITE);
    loop_run(loop);
    CHECK_INT(p.writes, 1);
    CHECK_INT(p.reads, 0);
    loop_io_want(p.io, LOOP_WRITE); /* libuv stopped watching; it has to begin again */
    loop_run(loop);
    CHECK_INT(p.writes, 2);
    loop_io_free(p.io);
    loop_free(loop);
    close(p.fds[1]);
}

static void on_free_self(struct loop_io *io, unsigned events, void *arg)
{
    struct pair *p = arg;

    p->reads++;
    loop_io_free(TAKE(p->io));
}

TEST(a_descriptor_may_be_freed_by_its_own_callback)
{
    struct pair p;

    p = pair_make(on_free_self, &p);
    CHECK_INT(write(p.fds[1], "x", 1), 1);
    loop_io_want(p.io, LOOP_READ | LOOP_WRITE);
    loop_run(p.loop);
    CHECK_INT(p.reads, 1);
    pair_done(&p);
}

TEST(a_number_may_be_watched_again_after_its_descriptor_was_closed)
{
    struct pair p;
    int fd;

    p = pair_make(on_pair, &p);
    CHECK_INT(write(p.fds[1], "x", 1), 1);
    loop_io_want(p.io, LOOP_READ);
    loop_run(p.loop);

    for (int i = 0; i < 5; i++) {
        int fds[2];

        loop_io_free(p.io);
        fd = p.fds[0];
        close(p.fds[0]);
        close(p.fds[1]);
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        CHECK(fds[0] == fd || fds[1] == fd);
        p.fds[0] = fds[0];
        p.fds[1] = fds[1];
        p.io = loop_io_new(p.loop, fds[0], on_pair, &p);
        p.reads = 0;
        CHECK_INT(write(fds[1], "x", 1), 1);
        loop_io_want(p.io, LOOP_READ);
        loop_run(p.loop);
        CHECK_INT(p.reads, 3);
    }
    pair_done(&p);
}

static void stop(void *arg)
{
    loop_stop(arg);
}

TEST(loop_stop_ends_the_run_and_only_that_one)
{
    struct loop *loop = loop_make();
    struct trace trace = { .loop = loop };
    struct mark late = { &trace, 'l' };
    struct loop_timer *now = loop_timer_new(loop, stop, loop);
    struct loop_timer *later = loop_timer_new(loop, add_mark, &late);

    loop_stop(loop); /* no run to stop */
    loop_timer_set(now, now_ms());
    loop_timer_set(later, now_ms() + 20);
    loop_run(loop);
    CHECK_STR(trace.text, "");
    loop_run(loop);
    CHECK_STR(trace.text, "l");
    loop_timer_free(now);
    loop_timer_free(later);
    loop_free(loop);
}

TEST(a_signal_arrives_as_an_event)
{
    struct loop *loop = loop_make();
    struct loop_signal *s = loop_signal_new(loop, SIGUSR1, stop, loop);

    kill(getpid(), SIGUSR1);
    loop_run(loop);
    loop_signal_free(s);
    loop_free(loop);
}

static void hog(void *arg)
{
    uint64_t end = now_ms() + 30;

    while (now_ms() < end)
        ;
}

TEST(the_lag_is_the_longest_turn_since_it_was_last_asked)
{
    struct loop *loop = loop_make();
    struct loop_timer *t = loop_timer_new(loop, hog, NULL);
    uint64_t lag;

    loop_timer_set(t, now_ms() + 1);
    loop_run(loop);
    lag = loop_lag_take(loop);
    CHECK(lag >= 29);
    CHECK_INT(loop_lag_take(loop), 0);
    loop_timer_free(t);
    loop_free(loop);
}

TEST(loop_free_aborts_when_a_timer_is_left)
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct loop *loop = loop_make();

        close(STDERR_FILENO);
        (void)loop_timer_new(loop, never, NULL);
        loop_free(loop);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
