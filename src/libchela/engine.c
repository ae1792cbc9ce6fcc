/* SPDX-License-Identifier: MIT */
/*
 * libchela/engine.c — the loop's thread. Other threads hand it jobs, which it runs as fibers; who
 * wants a result waits on a condition variable. Everything but the hand-over itself happens on the
 * one thread, so nothing inside needs a lock.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "base/log.h"
#include "libchela/lib.h"

enum { NAP_MS = 3600 * 1000 };

struct engine_job {
    struct engine_job *next, **link; /* among the running ones */
    struct engine *engine;
    uint64_t number;
    fiber_fn *fn;
    void *arg;
    struct fiber *fiber;
    void (*done)(int r, const struct err *e, void *arg);
    int r;
    struct err e;
};

struct engine {
    struct engine_conf conf;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool started; /* or failed to: start_r says */
    int start_r;
    struct err start_e;
    atomic_uint_fast64_t last_number;

    /* of the thread */
    struct loop *loop;
    struct http_client *client;
    struct store *store;
    struct bridge *bridge;
    struct durable *durable;
    struct fiber *main;
    struct engine_job *jobs;
    bool stopping;
};

struct bridge *engine_bridge(const struct engine *engine)
{
    return engine->bridge;
}

struct store *engine_store(const struct engine *engine)
{
    return engine->store;
}

struct durable *engine_durable(const struct engine *engine)
{
    return engine->durable;
}

struct http_client *engine_client(const struct engine *engine)
{
    return engine->client;
}

/* --- the thread --- */

static int set_up(struct engine *en, struct err *e)
{
    const struct http_client_conf client = {
        .policy = en->conf.any_address ? NULL : &en->conf.policy,
        .proxy = en->conf.proxy,
        .ca_file = en->conf.ca_file,
        .per_host = 128,
    };
    const struct store_conf store = {
        .url = en->conf.store_url,
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
        .pool = en->conf.durable ? en->conf.pool : 1,
    };
    int r;

    r = loop_new(&en->loop, e);
    if (r < 0)
        return r;
    if (!en->conf.durable)
        r = http_client_new(en->loop, &client, &en->client, e);
    if (r < 0 || !en->conf.store_url)
        return r;
    r = store_open(en->loop, &store, &en->store, e);
    if (r < 0)
        return r;
    if (en->conf.durable) {
        en->durable = durable_new(en->loop, en->store, en->conf.durable);
        return 0;
    }
    return bridge_new(en->loop, en->store, en->client, &en->conf.bridge, en->conf.key, &en->bridge,
                      e);
}

static void tear_down(struct engine *en)
{
    bridge_free(en->bridge);
    durable_free(en->durable);
    store_close(en->store);
    if (en->client)
        http_client_free(en->client);
    if (en->loop)
        loop_free(en->loop);
}

static void tell_started(struct engine *en, int r, const struct err *e)
{
    pthread_mutex_lock(&en->mutex);
    en->started = true;
    en->start_r = r;
    if (r < 0)
        en->start_e = *e;
    pthread_cond_broadcast(&en->changed);
    pthread_mutex_unlock(&en->mutex);
}

CO static void end_jobs(struct engine *en)
{
    struct err e;

    while (en->jobs) {
        for (struct engine_job *job = en->jobs; job; job = job->next)
            if (job->fiber)
                fiber_cancel(job->fiber);
        if (fiber_park(deadline_in(NAP_MS), &e) < 0) /* the last job to go wakes us */
            continue;
    }
}

CO static int run_main(void *arg, struct err *e)
{
    struct engine *en = arg;
    int r;

    en->main = fiber_self();
    r = en->bridge ? bridge_start(en->bridge, e) : 0;
    tell_started(en, r, e);
    while (r == 0 && !en->stopping)
        if (fiber_park(deadline_in(NAP_MS), e) < 0) /* whatever woke us: look at the flag */
            continue;
    end_jobs(en);
    if (en->bridge)
        bridge_stop(en->bridge);
    if (en->durable)
        durable_stop(en->durable, 0);
    loop_stop(en->loop);
    return 0;
}

static void *thread_main(void *arg)
{
    struct engine *en = arg;
    struct err e = { 0 };
    int r;

    r = set_up(en, &e);
    if (r == 0)
        r = fiber_spawn(en->loop, "library", run_main, en, NULL, &e);
    if (r == 0)
        loop_run(en->loop);
    else
        tell_started(en, r, &e);
    tear_down(en);
    return NULL;
}

int engine_new(const struct engine_conf *conf, struct engine **ret, struct err *e)
{
    static pthread_once_t quiet = PTHREAD_ONCE_INIT;
    struct engine *en = xcalloc(1, sizeof(*en));
    int r;

    pthread_once(&quiet, lib_quiet);
    en->conf = *conf;
    pthread_mutex_init(&en->mutex, NULL);
    pthread_cond_init(&en->changed, NULL);
    r = pthread_create(&en->thread, NULL, thread_main, en);
    if (r) {
        if (conf->lock_fd >= 0)
            close(conf->lock_fd);
        free(en);
        return err_sysn(e, r, "start a thread");
    }
    pthread_mutex_lock(&en->mutex);
    while (!en->started)
        pthread_cond_wait(&en->changed, &en->mutex);
    r = en->start_r;
    if (r < 0)
        *e = en->start_e;
    pthread_mutex_unlock(&en->mutex);
    if (r < 0) {
        engine_free(en);
        return r;
    }
    *ret = en;
    return 0;
}

static void stop(void *arg)
{
    struct engine *en = arg;

    en->stopping = true;
    fiber_wake(en->main);
}

void engine_free(struct engine *en)
{
    if (!en)
        return;
    if (en->start_r == 0)
        loop_post(en->loop, stop, en);
    pthread_join(en->thread, NULL);
    if (en->conf.lock_fd >= 0)
        close(en->conf.lock_fd);
    pthread_cond_destroy(&en->changed);
    pthread_mutex_destroy(&en->mutex);
    free(en);
}

/* --- jobs --- */

static void finish(struct engine_job *job, int r, const struct err *e)
{
    struct engine *en = job->engine;

    *job->link = job->next;
    if (job->next)
        job->next->link = job->link;
    job->done(r, e, job->arg);
    free(job);
    if (en->stopping && !en->jobs)
        fiber_wake(en->main);
}

CO static int run_job(void *arg, struct err *e)
{
    struct engine_job *job = arg;
    int r;

    job->fiber = fiber_self();
    if (job->engine->stopping) /* after the round of cancels */
        fiber_cancel(job->fiber);
    r = job->fn(job->arg, e);
    finish(job, r, e);
    return 0;
}

static void begin_job(void *arg)
{
    struct engine_job *job = arg;
    struct engine *en = job->engine;
    struct err e;

    job->next = en->jobs;
    job->link = &en->jobs;
    if (en->jobs)
        en->jobs->link = &job->next;
    en->jobs = job;
    if (en->stopping) {
        finish(job, err_set(&e, ERR_CANCELED, "canceled"), &e);
        return;
    }
    if (fiber_spawn(en->loop, "library job", run_job, job, NULL, &e) < 0)
        finish(job, -(int)e.code, &e);
}

uint64_t engine_start(struct engine *en, fiber_fn *fn, void *arg,
                      void (*done)(int r, const struct err *e, void *arg))
{
    struct engine_job *job = xcalloc(1, sizeof(*job));
    uint64_t number = atomic_fetch_add(&en->last_number, 1) + 1;

    job->engine = en;
    job->number = number;
    job->fn = fn;
    job->arg = arg;
    job->done = done;
    loop_post(en->loop, begin_job, job);
    return number;
}

struct canceling {
    struct engine *engine;
    uint64_t number;
};

static void cancel_job(void *arg)
{
    struct canceling *c = arg;

    for (struct engine_job *job = c->engine->jobs; job; job = job->next)
        if (job->number == c->number && job->fiber)
            fiber_cancel(job->fiber);
    free(c);
}

void engine_cancel(struct engine *en, uint64_t number)
{
    struct canceling *c = xcalloc(1, sizeof(*c));

    c->engine = en;
    c->number = number;
    loop_post(en->loop, cancel_job, c);
}

/* A job whose starter waits. */
struct waiting {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done;
    int r;
    struct err e;
    fiber_fn *fn;
    void *arg;
};

CO static int run_waiting(void *arg, struct err *e)
{
    struct waiting *w = arg;

    return w->fn(w->arg, e);
}

static void waiting_done(int r, const struct err *e, void *arg)
{
    struct waiting *w = arg;

    pthread_mutex_lock(&w->mutex);
    w->r = r;
    if (r < 0)
        w->e = *e;
    w->done = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

int engine_run(struct engine *en, fiber_fn *fn, void *arg, struct err *e)
{
    struct waiting w = { .fn = fn, .arg = arg };

    if (pthread_equal(pthread_self(), en->thread)) /* it would wait for itself */
        return err_set(e, ERR_INVALID, "called from the engine's own thread");
    pthread_mutex_init(&w.mutex, NULL);
    pthread_cond_init(&w.changed, NULL);
    (void)engine_start(en, run_waiting, &w, waiting_done); /* nobody cancels it by number */
    pthread_mutex_lock(&w.mutex);
    while (!w.done)
        pthread_cond_wait(&w.changed, &w.mutex);
    pthread_mutex_unlock(&w.mutex);
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.mutex);
    if (w.r < 0)
        *e = w.e;
    return w.r;
}
