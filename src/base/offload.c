/* SPDX-License-Identifier: MIT */
/*
 * base/offload.c — a small pool of threads for calls that block.
 *
 * A job lives on the stack of the fiber that waits for it. The thread's last touch of it is the
 * loop_post() that hands it back; what happens after that happens on the loop.
 */
#include "base/offload.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>

struct job {
    int (*fn)(void *arg, struct err *e);
    void *arg;
    struct err *e;
    int result;
    bool done; /* the loop's thread alone looks at it */
    struct fiber *fiber;
    struct loop *loop;
    struct job *next;
};

/* The program's one pool; everything is under lock. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_t threads[OFFLOAD_THREADS];
    unsigned n_threads, idle, queued;
    struct job *first, **last;
    bool ending;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .work = PTHREAD_COND_INITIALIZER,
           .last = &pool.first };

static void on_done(void *arg)
{
    struct job *job = arg;

    job->done = true;
    fiber_wake(job->fiber);
}

static struct job *wait_for_job(void)
{
    struct job *job;

    pool.idle++;
    while (!pool.first && !pool.ending)
        pthread_cond_wait(&pool.work, &pool.lock);
    pool.idle--;
    job = pool.first;
    if (!job)
        return NULL;
    pool.first = job->next;
    if (!pool.first)
        pool.last = &pool.first;
    pool.queued--;
    return job;
}

static void *thread_main(void *arg)
{
    struct job *job;

    pthread_mutex_lock(&pool.lock);
    while ((job = wait_for_job())) {
        pthread_mutex_unlock(&pool.lock);
        job->result = job->fn(job->arg, job->e);
        loop_post(job->loop, on_done, job);
        pthread_mutex_lock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* Signals are the loop's: a thread that took one would interrupt its own blocking call. */
static int start_thread(struct err *e)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&pool.threads[pool.n_threads], NULL, thread_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r)
        return err_sysn(e, r, "start a thread");
    pool.n_threads++;
    return 0;
}

static int submit(struct job *job, struct err *e)
{
    int r;

    if (pool.queued >= OFFLOAD_QUEUE)
        return err_set(e, ERR_UNAVAILABLE, "%d blocking calls wait already", OFFLOAD_QUEUE);
    if (pool.queued >= pool.idle && pool.n_threads < OFFLOAD_THREADS) {
        r = start_thread(e);
        if (r < 0 && pool.n_threads == 0)
            return r;
    }
    *pool.last = job;
    pool.last = &job->next;
    pool.queued++;
    pthread_cond_signal(&pool.work);
    return 0;
}

CO int offload(int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
    struct job job = { .fn = fn, .arg = arg, .e = e, .fiber = fiber_self(), .loop = fiber_loop() };
    int r;

    pthread_mutex_lock(&pool.lock);
    r = submit(&job, e);
    pthread_mutex_unlock(&pool.lock);
    if (r < 0)
        return r;
    while (!job.done)
        fiber_park_hard();
    return job.result;
}

void offload_shutdown(void)
{
    pthread_mutex_lock(&pool.lock);
    assert(!pool.first);
    pool.ending = true;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned i = 0; i < pool.n_threads; i++)
        pthread_join(pool.threads[i], NULL);
    pool.n_threads = 0;
    pool.ending = false;
}
