/* SPDX-License-Identifier: MIT */
/* libchela/retry.c — cancel flags, backoff, and retry, here or on a thread of its own. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/rand.h"
#include "bridge/backoff.h"
#include "libchela/lib.h"
#include "libchela/work.h"

#define SLEEP_MAX 3.0e9 /* seconds; a longer sleep overflows a time_t for no use */

struct chela_cancel {
    pthread_mutex_t mutex;
    pthread_cond_t fired_now;
    atomic_bool fired;
    atomic_uint refs;
};

void lib_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

struct timespec lib_deadline(double seconds)
{
    struct timespec at;

    if (!(seconds > 0))
        seconds = 0;
    if (seconds > SLEEP_MAX)
        seconds = SLEEP_MAX;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)seconds;
    at.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

struct chela_cancel *chela_cancel_new(void)
{
    struct chela_cancel *c = xcalloc(1, sizeof(*c));

    pthread_mutex_init(&c->mutex, NULL);
    lib_cond_init(&c->fired_now);
    atomic_init(&c->refs, 1);
    return c;
}

struct chela_cancel *lib_cancel_ref(struct chela_cancel *c)
{
    if (c)
        atomic_fetch_add(&c->refs, 1);
    return c;
}

void chela_cancel_free(struct chela_cancel *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    pthread_cond_destroy(&c->fired_now);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

void chela_cancel_fire(struct chela_cancel *c)
{
    pthread_mutex_lock(&c->mutex);
    atomic_store(&c->fired, true);
    pthread_cond_broadcast(&c->fired_now);
    pthread_mutex_unlock(&c->mutex);
}

bool chela_canceled(const struct chela_cancel *c)
{
    return c && atomic_load(&c->fired);
}

bool chela_cancel_sleep(struct chela_cancel *c, double seconds)
{
    struct timespec until = lib_deadline(seconds);

    if (!c) {
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        return false;
    }
    pthread_mutex_lock(&c->mutex);
    while (!atomic_load(&c->fired) &&
           pthread_cond_timedwait(&c->fired_now, &c->mutex, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&c->mutex);
    return chela_canceled(c);
}

/* --- backoff --- */

static const struct chela_retry_config defaults = CHELA_RETRY_CONFIG_INIT;

double chela_backoff_delay(long n, const struct chela_retry_config *config)
{
    const struct chela_retry_config *c = config ? config : &defaults;
    const struct backoff backoff = {
        .initial = c->initial_delay_seconds,
        .max = c->max_delay_seconds,
        .multiplier = c->backoff_multiplier,
        .jitter = c->jitter ? 0.1 : 0,
        .floor = 0.1,
    };

    return backoff_delay(&backoff, n, c->random ? c->random(c->random_arg) : rand_unit());
}

/* --- retry --- */

int chela_retry(chela_work *work, void *arg, const struct chela_retry_config *config,
                chela_on_retry *on_retry, void *on_retry_arg, struct chela_cancel *cancel,
                struct chela_error *error)
{
    const struct chela_retry_config *c = config ? config : &defaults;

    for (unsigned n = 0;; n++) {
        struct chela_error failed = { .type = CHELA_ERROR_TYPES };
        double delay;
        int r;

        if (chela_canceled(cancel))
            return lib_fail(error, CHELA_E_CANCELED, CHELA_ERROR_TYPES, "canceled");
        if (work(arg, cancel, &failed) == 0)
            return 0;
        r = lib_work_failed(&failed, error);
        if (n >= c->max_retries)
            return r;
        delay = chela_backoff_delay((long)n + 1, c);
        if (on_retry)
            on_retry(n + 1, delay, &failed, on_retry_arg);
        if (chela_cancel_sleep(cancel, delay))
            return lib_fail(error, CHELA_E_CANCELED, CHELA_ERROR_TYPES, "canceled");
    }
}

struct chela_task {
    pthread_t thread;
    chela_work *work;
    void *arg;
    struct chela_retry_config config;
    chela_on_retry *on_retry;
    void *on_retry_arg;
    struct chela_cancel *cancel;
    int r;
    struct chela_error error;
};

static void *task_main(void *arg)
{
    struct chela_task *t = arg;

    t->r = chela_retry(t->work, t->arg, &t->config, t->on_retry, t->on_retry_arg, t->cancel,
                       &t->error);
    return NULL;
}

int chela_retry_start(chela_work *work, void *arg, const struct chela_retry_config *config,
                      chela_on_retry *on_retry, void *on_retry_arg, struct chela_task **ret,
                      struct chela_error *error)
{
    struct chela_task *t = xcalloc(1, sizeof(*t));

    t->work = work;
    t->arg = arg;
    t->config = config ? *config : defaults;
    t->on_retry = on_retry;
    t->on_retry_arg = on_retry_arg;
    t->cancel = chela_cancel_new();
    if (pthread_create(&t->thread, NULL, task_main, t) != 0) {
        chela_cancel_free(t->cancel);
        free(t);
        return lib_fail(error, CHELA_E_UNAVAILABLE, CHELA_ERROR_UNKNOWN, "no thread to be had");
    }
    *ret = t;
    return 0;
}

void chela_task_cancel(struct chela_task *t)
{
    chela_cancel_fire(t->cancel);
}

int chela_task_wait(struct chela_task *t, struct chela_error *error)
{
    int r;

    pthread_join(t->thread, NULL);
    r = t->r;
    if (r < 0 && error)
        *error = t->error;
    chela_cancel_free(t->cancel);
    free(t);
    return r;
}
