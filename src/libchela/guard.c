/* SPDX-License-Identifier: MIT */
/*
 * libchela/guard.c — the timeout guard. The work runs on a thread of its own and the caller waits
 * on a condition with a deadline, so the limit is exact and no signal is involved. State is shared
 * by both and freed by whoever lets go last.
 */
#include <errno.h>
#include <stdatomic.h>

#include "libchela/lib.h"
#include "libchela/work.h"

#define DEFAULT_TIMEOUT 30.0

struct guarded {
    atomic_uint refs;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done;
    int r;
    struct chela_error error;
    chela_work *work;
    void *arg;
    void (*release)(void *arg);
    struct chela_cancel *cancel;
};

static void guarded_unref(struct guarded *g)
{
    if (atomic_fetch_sub(&g->refs, 1) != 1)
        return;
    chela_cancel_free(g->cancel);
    pthread_cond_destroy(&g->ended);
    pthread_mutex_destroy(&g->mutex);
    free(g);
}

static void *guarded_main(void *arg)
{
    struct guarded *g = arg;
    struct chela_error error = { .type = CHELA_ERROR_TYPES };
    int r = g->work(g->arg, g->cancel, &error);

    if (g->release)
        g->release(g->arg);
    pthread_mutex_lock(&g->mutex);
    g->r = r;
    g->error = error;
    g->done = true;
    pthread_cond_signal(&g->ended);
    pthread_mutex_unlock(&g->mutex);
    guarded_unref(g);
    return NULL;
}

static int start(struct guarded *g)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, guarded_main, g);
    pthread_attr_destroy(&attr);
    return r;
}

/* Wait for the end of the work or of the time; true: the work has ended. */
static bool wait_for(struct guarded *g, double seconds, int *ret_r, struct chela_error *ret)
{
    struct timespec until = lib_deadline(seconds);
    bool done;

    pthread_mutex_lock(&g->mutex);
    while (!g->done && pthread_cond_timedwait(&g->ended, &g->mutex, &until) != ETIMEDOUT)
        ;
    done = g->done;
    *ret_r = g->r;
    *ret = g->error;
    pthread_mutex_unlock(&g->mutex);
    return done;
}

int chela_with_timeout(chela_work *work, void *arg, const struct chela_guard *guard,
                       struct chela_error *error)
{
    double limit = guard && guard->timeout_seconds > 0 ? guard->timeout_seconds : DEFAULT_TIMEOUT;
    struct guarded *g = xcalloc(1, sizeof(*g));
    struct chela_error failed;
    bool done;
    int r = 0;

    atomic_init(&g->refs, 2);
    pthread_mutex_init(&g->mutex, NULL);
    lib_cond_init(&g->ended);
    g->work = work;
    g->arg = arg;
    g->release = guard ? guard->release : NULL;
    g->cancel = chela_cancel_new();
    if (start(g) != 0) {
        guarded_unref(g);
        guarded_unref(g);
        return lib_fail(error, CHELA_E_UNAVAILABLE, CHELA_ERROR_UNKNOWN, "no thread to be had");
    }
    done = wait_for(g, limit, &r, &failed);
    if (!done)
        chela_cancel_fire(g->cancel);
    guarded_unref(g);
    if (done)
        return r == 0 ? 0 : lib_work_failed(&failed, error);
    if (guard && guard->on_timeout)
        guard->on_timeout(guard->on_timeout_arg);
    return lib_fail(error, CHELA_E_TIMEOUT, CHELA_ERROR_TIMEOUT, "Function timed out after %gs",
                    limit);
}
