/* SPDX-License-Identifier: MIT */
/* base/offload_test.c — blocking calls on threads. */
#include "base/offload.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "in_fiber.h"

static int on_thread(void *arg, struct err *e)
{
    pthread_t *where = arg;

    *where = pthread_self();
    return 42;
}

CO_TEST(a_call_runs_on_another_thread_and_its_result_comes_back)
{
    pthread_t where = pthread_self();

    CO_CHECK(offload(on_thread, &where, e) == 42);
    CO_CHECK(!pthread_equal(where, pthread_self()));
    offload_shutdown();
    return 0;
}

static int refuse(void *arg, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "nothing at %s", (const char *)arg);
}

CO_TEST(an_error_comes_back_with_its_words)
{
    char home[] = "home", work[] = "work";

    CO_CHECK(offload(refuse, home, e) == -ERR_NOT_FOUND);
    CO_CHECK(strcmp(e->msg, "nothing at home") == 0);
    CO_CHECK(offload(refuse, work, NULL) == -ERR_NOT_FOUND);
    offload_shutdown();
    return 0;
}

static int see_mask(void *arg, struct err *e)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return sigismember(&mask, SIGTERM) && sigismember(&mask, SIGCHLD);
}

CO_TEST(the_threads_take_no_signals)
{
    CO_CHECK(offload(see_mask, NULL, e) == 1);
    offload_shutdown();
    return 0;
}

/* Returns when OFFLOAD_THREADS of them are at it at the same time. */
static int meet(void *arg, struct err *e)
{
    int r = pthread_barrier_wait(arg);

    return r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD ? 0 : -ERR_INTERNAL;
}

struct call {
    int (*fn)(void *arg, struct err *e);
    void *arg;
};

static int make_call(void *arg, struct err *e)
{
    struct call *call = arg;

    return offload(call->fn, call->arg, e);
}

CO_TEST(as_many_calls_as_threads_run_at_the_same_time)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    pthread_barrier_t barrier;
    struct call call = { meet, &barrier };

    pthread_barrier_init(&barrier, NULL, OFFLOAD_THREADS);
    for (int i = 0; i < 3 * OFFLOAD_THREADS; i++)
        CO_CHECK(fiber_group_spawn(g, "call", make_call, &call, e) == 0);
    CO_CHECK(fiber_group_join(g, e) == 0);
    fiber_group_free(g);
    offload_shutdown();
    pthread_barrier_destroy(&barrier);
    return 0;
}

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open;
    unsigned passed;
};

static int pass(void *arg, struct err *e)
{
    struct gate *gate = arg;

    pthread_mutex_lock(&gate->lock);
    while (!gate->open)
        pthread_cond_wait(&gate->opened, &gate->lock);
    gate->passed++;
    pthread_mutex_unlock(&gate->lock);
    return 0;
}

static void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->lock);
}

static struct gate gate_make(void)
{
    return (struct gate){ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 };
}

static int count_refused(void *arg, struct err *e)
{
    struct gate *gate = arg;
    int r = offload(pass, gate, e);

    if (r == -ERR_UNAVAILABLE)
        return 0;
    return r < 0 ? r : 1;
}

CO_TEST(past_the_bound_of_the_queue_calls_are_refused_at_once)
{
    enum { N = OFFLOAD_THREADS + OFFLOAD_QUEUE + 10 };
    struct gate gate = gate_make();
    static struct fiber *f[N];
    int taken = 0;

    for (int i = 0; i < N; i++)
        CO_CHECK(fiber_spawn(fiber_loop(), "call", count_refused, &gate, &f[i], e) == 0);
    for (int i = 0; i < 20; i++)
        CO_CHECK(fiber_yield(e) == 0);
    gate_open(&gate);
    for (int i = 0; i < N; i++)
        taken += fiber_join(f[i], e);
    /* A thread takes its job from the queue some time after the call: up to that many less. */
    CO_CHECK(taken >= OFFLOAD_QUEUE && taken <= OFFLOAD_QUEUE + OFFLOAD_THREADS);
    CO_CHECK(gate.passed == (unsigned)taken);
    offload_shutdown();
    return 0;
}

CO_TEST(cancel_does_not_interrupt_a_call)
{
    struct gate gate = gate_make();
    struct call call = { pass, &gate };
    struct fiber *f;

    CO_CHECK(fiber_spawn(fiber_loop(), "call", make_call, &call, &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    for (int i = 0; i < 5; i++)
        CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fibers_alive(fiber_loop()) == 2);
    gate_open(&gate);
    CO_CHECK(fiber_join(f, e) == 0);
    CO_CHECK(gate.passed == 1);
    offload_shutdown();
    return 0;
}

struct order {
    pthread_mutex_t lock;
    unsigned begun[64], n;
};

struct numbered {
    struct order *order;
    unsigned n;
};

static int note(void *arg, struct err *e)
{
    struct numbered *job = arg;

    pthread_mutex_lock(&job->order->lock);
    job->order->begun[job->order->n++] = job->n;
    pthread_mutex_unlock(&job->order->lock);
    return 0;
}

/* One behind the other on one loop: what one call wrote the next one sees, on whatever thread. */
CO_TEST(calls_of_one_fiber_happen_in_order)
{
    struct order order = { PTHREAD_MUTEX_INITIALIZER, { 0 }, 0 };

    for (unsigned i = 0; i < LEN(order.begun); i++) {
        struct numbered job = { &order, i };

        CO_CHECK(offload(note, &job, e) == 0);
    }
    for (unsigned i = 0; i < LEN(order.begun); i++)
        CO_CHECK(order.begun[i] == i);
    offload_shutdown();
    return 0;
}

static int many_calls(void *arg, struct err *e)
{
    for (int i = 0; i < 200; i++) {
        pthread_t where;

        CO_CHECK(offload(on_thread, &where, e) == 42);
    }
    return 0;
}

CO_TEST(many_fibers_call_at_once)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());

    for (int i = 0; i < 50; i++)
        CO_CHECK(fiber_group_spawn(g, "calls", many_calls, NULL, e) == 0);
    CO_CHECK(fiber_group_join(g, e) == 0);
    fiber_group_free(g);
    offload_shutdown();
    return 0;
}
