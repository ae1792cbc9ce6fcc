/* SPDX-License-Identifier: MIT */
/*
 * libchela/pool.c — threads for bodies of steps, which may block for as long as they like: so they
 * have threads of their own, and not the few that the program shares for short calls.
 *
 * A job lives on the stack of the fiber that waits for it. The thread's last touch of it is the
 * loop_post() that hands it back. How many wait is bounded by the workflows that may run.
 */
#include <signal.h>

#include "libchela/durable_int.h"

struct pool_job {
    struct pool_job *next;
    void (*fn)(void *arg);
    void *arg;
    struct loop *loop;
    struct fiber *fiber;
    bool done; /* the loop's thread alone looks at it */
};

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_t *threads;
    unsigned n_threads, max_threads, idle, waiting;
    struct pool_job *first, **last;
    bool ending;
};

struct pool *pool_new(unsigned threads)
{
    struct pool *pool = xcalloc(1, sizeof(*pool));

    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pool->max_threads = threads;
    pool->threads = xcalloc(threads, sizeof(*pool->threads));
    pool->last = &pool->first;
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool);
}

static void on_done(void *arg)
{
    struct pool_job *job = arg;

    job->done = true;
    fiber_wake(job->fiber);
}

/* Under the lock. */
static struct pool_job *next_job(struct pool *pool)
{
    struct pool_job *job;

    pool->idle++;
    while (!pool->first && !pool->ending)
        pthread_cond_wait(&pool->work, &pool->mutex);
    pool->idle--;
    job = pool->first;
    if (!job)
        return NULL;
    pool->first = job->next;
    if (!pool->first)
        pool->last = &pool->first;
    pool->waiting--;
    return job;
}

static void *thread_main(void *arg)
{
    struct pool *pool = arg;
    struct pool_job *job;

    pthread_mutex_lock(&pool->mutex);
    while ((job = next_job(pool))) {
        pthread_mutex_unlock(&pool->mutex);
        job->fn(job->arg);
        loop_post(job->loop, on_done, job);
        pthread_mutex_lock(&pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* Signals are the program's: a body that took one would have its blocking call interrupted. */
static int start_thread(struct pool *pool, struct err *e)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&pool->threads[pool->n_threads], NULL, thread_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r)
        return err_sysn(e, r, "start a thread");
    pool->n_threads++;
    return 0;
}

static int submit(struct pool *pool, struct pool_job *job, struct err *e)
{
    int r = 0;

    pthread_mutex_lock(&pool->mutex);
    if (pool->waiting >= pool->idle && pool->n_threads < pool->max_threads)
        r = start_thread(pool, e);
    if (r < 0 && pool->n_threads > 0) /* one thread less than could be */
        r = 0;
    if (r == 0) {
        *pool->last = job;
        pool->last = &job->next;
        pool->waiting++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->mutex);
    return r;
}

/* Out of the queue, unless its turn has come. */
static bool withdraw(struct pool *pool, struct pool_job *job)
{
    bool out = false;

    pthread_mutex_lock(&pool->mutex);
    for (struct pool_job **at = &pool->first; *at; at = &(*at)->next) {
        if (*at != job)
            continue;
        *at = job->next;
        if (!job->next)
            pool->last = at;
        pool->waiting--;
        out = true;
        break;
    }
    pthread_mutex_unlock(&pool->mutex);
    return out;
}

CO int pool_run(struct pool *pool, void (*fn)(void *arg), void *arg, struct chela_cancel *cancel,
                struct err *e)
{
    struct pool_job job = { .fn = fn, .arg = arg, .loop = fiber_loop(), .fiber = fiber_self() };
    int r;

    r = submit(pool, &job, e);
    if (r < 0)
        return r;
    while (!job.done) {
        r = fiber_park(DEADLINE_NONE, e);
        if (r < 0)
            break;
    }
    if (r == 0 || withdraw(pool, &job))
        return r;
    chela_cancel_fire(cancel);
    while (!job.done)
        fiber_park_hard();
    return 0;
}
