/* SPDX-License-Identifier: MIT */
/*
 * base/loop.c — the event loop over libuv.
 *
 * One turn: timers, then prepare (ready fibers, deferred calls), poll, the callbacks of what the
 * poll brought, then check (ready fibers, deferred calls again), then libuv's close callbacks.
 * Since prepare comes right before every poll, nothing can become ready unseen; if work is left
 * there (each turn runs a bounded batch of fibers), an active idle handle makes the poll return
 * at once, so neither side starves the other.
 *
 * libuv wants a handle's memory until its close callback, so handles are allocated here and
 * freed there.
 */
#include "base/loop.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <uv.h>

#include "base/log.h"
#include "base/loop_int.h"
#include "base/time.h"

struct task {
    void (*fn)(void *arg);
    void *arg;
};

struct task_list {
    struct task *v;
    size_t n, cap;
};

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;
    uv_async_t async;

    pthread_mutex_t lock; /* of posted alone */
    struct task_list posted;

    struct task_list deferred;
    struct loop_rider *rider;
    unsigned holds;
    unsigned ios, timers, signals; /* the user's, not freed yet */
    bool running, stopping;
    uint64_t busy_since_ms, lag_ms;
};

static void task_add(struct task_list *list, void (*fn)(void *arg), void *arg)
{
    if (list->n == list->cap) {
        list->cap = list->cap ? 2 * list->cap : 16;
        list->v = xrealloc(list->v, list->cap * sizeof(*list->v));
    }
    list->v[list->n++] = (struct task){ fn, arg };
}

/* Empty the list into the caller's hands before running it: what is added meanwhile waits. */
static void run_tasks(struct task_list *batch)
{
    for (size_t i = 0; i < batch->n; i++)
        batch->v[i].fn(batch->v[i].arg);
    free(batch->v);
    *batch = (struct task_list){ 0 };
}

static void run_posted(struct loop *loop)
{
    struct task_list batch;

    pthread_mutex_lock(&loop->lock);
    batch = loop->posted;
    loop->posted = (struct task_list){ 0 };
    pthread_mutex_unlock(&loop->lock);
    run_tasks(&batch);
}

static void run_deferred(struct loop *loop)
{
    struct task_list batch = loop->deferred;

    loop->deferred = (struct task_list){ 0 };
    run_tasks(&batch);
}

static bool has_posted(struct loop *loop)
{
    bool has;

    pthread_mutex_lock(&loop->lock);
    has = loop->posted.n > 0;
    pthread_mutex_unlock(&loop->lock);
    return has;
}

static bool is_ready(const struct loop *loop)
{
    return loop->deferred.n > 0 || (loop->rider && loop->rider->ready(loop->rider));
}

static void settle(struct loop *loop)
{
    if (loop->rider)
        loop->rider->turn(loop->rider);
    run_deferred(loop);
}

static void on_idle(uv_idle_t *idle)
{
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct loop *loop = container_of(prepare, struct loop, prepare);
    uint64_t now;

    settle(loop);
    if (is_ready(loop))
        uv_idle_start(&loop->idle, on_idle);
    else
        uv_idle_stop(&loop->idle);

    now = loop_clock_ms();
    if (now > loop->busy_since_ms && now - loop->busy_since_ms > loop->lag_ms)
        loop->lag_ms = now - loop->busy_since_ms;
}

static void on_check(uv_check_t *check)
{
    struct loop *loop = container_of(check, struct loop, check);

    loop->busy_since_ms = uv_now(&loop->uv); /* libuv takes the time as the poll returns */
    settle(loop);
}

static void on_async(uv_async_t *async)
{
    run_posted(container_of(async, struct loop, async));
}

int loop_new(struct loop **ret, struct err *e)
{
    struct loop *loop = xcalloc(1, sizeof(*loop));
    int r;

    r = uv_loop_init(&loop->uv);
    if (r < 0) {
        free(loop);
        return err_sysn(e, -r, "make an event loop");
    }
    r = uv_async_init(&loop->uv, &loop->async, on_async);
    if (r < 0) {
        (void)uv_loop_close(&loop->uv); /* nothing was added to it */
        free(loop);
        return err_sysn(e, -r, "make an event loop");
    }

    /* These four cannot fail: they only link the handle into the loop. */
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);

    uv_unref((uv_handle_t *)&loop->async);
    uv_unref((uv_handle_t *)&loop->prepare);
    uv_unref((uv_handle_t *)&loop->check);
    pthread_mutex_init(&loop->lock, NULL);
    signal(SIGPIPE, SIG_IGN);
    *ret = loop;
    return 0;
}

static void refuse_leftovers(const struct loop *loop, unsigned fibers)
{
    if (!fibers && !loop->ios && !loop->timers && !loop->signals && !loop->holds)
        return;
    log_error("loop freed while in use", "fibers", LOG_INT(fibers), "ios", LOG_INT(loop->ios),
              "timers", LOG_INT(loop->timers), "signals", LOG_INT(loop->signals), "holds",
              LOG_INT(loop->holds));
    abort();
}

void loop_free(struct loop *loop)
{
    unsigned fibers;
    int r;

    if (!loop)
        return;
    assert(!loop->running);
    while (has_posted(loop) || loop->deferred.n > 0) {
        run_posted(loop);
        run_deferred(loop);
    }
    fibers = loop->rider ? loop->rider->left(loop->rider) : 0;
    if (loop->rider && !fibers)
        loop->rider->free(loop->rider);
    refuse_leftovers(loop, fibers);

    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->async, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    r = uv_loop_close(&loop->uv);
    assert(r == 0);

    /* A thread that posted may still be on its way out of loop_post(). */
    pthread_mutex_lock(&loop->lock);
    pthread_mutex_unlock(&loop->lock);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void loop_run(struct loop *loop)
{
    assert(!loop->running);
    loop->running = true;
    loop->stopping = false;
    loop->busy_since_ms = loop_clock_ms();
    do {
        /* libuv does not even begin a turn without an active handle, and we may have work. */
        if (is_ready(loop) || has_posted(loop))
            uv_idle_start(&loop->idle, on_idle);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    } while (!loop->stopping && (is_ready(loop) || has_posted(loop)));
    loop->running = false;
}

void loop_stop(struct loop *loop)
{
    if (!loop->running)
        return;
    loop->stopping = true;
    uv_stop(&loop->uv);
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&loop->lock);
    task_add(&loop->posted, fn, arg);
    /* Inside the lock, so that loop_free() can tell when we have let go of the loop. */
    if (loop->posted.n == 1)
        uv_async_send(&loop->async);
    pthread_mutex_unlock(&loop->lock);
}

void loop_defer(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    task_add(&loop->deferred, fn, arg);
}

void loop_hold(struct loop *loop)
{
    if (loop->holds++ == 0)
        uv_ref((uv_handle_t *)&loop->async);
}

void loop_unhold(struct loop *loop)
{
    assert(loop->holds > 0);
    if (--loop->holds == 0)
        uv_unref((uv_handle_t *)&loop->async);
}

struct loop_rider *loop_rider_find(const struct loop *loop)
{
    return loop->rider;
}

void loop_rider_set(struct loop *loop, struct loop_rider *rider)
{
    assert(!loop->rider);
    loop->rider = rider;
}

uint64_t loop_clock_ms(void)
{
    return uv_hrtime() / 1000000;
}

uint64_t loop_lag_take(struct loop *loop)
{
    uint64_t lag = loop->lag_ms;

    loop->lag_ms = 0;
    return lag;
}

/*
 * Descriptors. Each uv_poll_start() costs two epoll_ctl calls (libuv removes and adds), so what
 * is no longer wanted stays armed until it fires once unwanted.
 */
struct loop_io {
    uv_poll_t uv;
    void (*fn)(struct loop_io *io, unsigned events, void *arg);
    void *arg;
    struct loop *loop;
    unsigned want, armed;
    bool freed;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void io_arm(struct loop_io *io, unsigned events)
{
    int r;

    if (events)
        r = uv_poll_start(&io->uv,
                          (events & LOOP_READ ? UV_READABLE : 0) |
                              (events & LOOP_WRITE ? UV_WRITABLE : 0),
                          on_poll);
    else
        r = uv_poll_stop(&io->uv);
    assert(r == 0);
    io->armed = events;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct loop_io *io = container_of(poll, struct loop_io, uv);
    unsigned got = (events & UV_READABLE ? LOOP_READ : 0) | (events & UV_WRITABLE ? LOOP_WRITE : 0);

    if (status < 0) { /* libuv has stopped watching */
        io->armed = 0;
        got = io->want;
    }
    if (got & ~io->want)
        io_arm(io, io->want);
    if (got & io->want)
        io->fn(io, got & io->want, io->arg);
    if (!io->freed && io->want & ~io->armed)
        io_arm(io, io->want);
}

int loop_io_try_new(struct loop *loop, int fd,
                    void (*fn)(struct loop_io *io, unsigned events, void *arg), void *arg,
                    struct loop_io **ret, struct err *e)
{
    struct loop_io *io = xcalloc(1, sizeof(*io));
    int r;

    r = uv_poll_init(&loop->uv, &io->uv, fd);
    if (r < 0) {
        free(io);
        return err_sysn(e, -r, "watch descriptor %d", fd);
    }
    uv_unref((uv_handle_t *)&io->uv);
    io->fn = fn;
    io->arg = arg;
    io->loop = loop;
    loop->ios++;
    *ret = io;
    return 0;
}

struct loop_io *loop_io_new(struct loop *loop, int fd,
                            void (*fn)(struct loop_io *io, unsigned events, void *arg), void *arg)
{
    struct loop_io *io = NULL;
    struct err e;

    if (loop_io_try_new(loop, fd, fn, arg, &io, &e) < 0) {
        log_error("descriptor cannot be watched", "fd", LOG_INT(fd), "error", LOG_ERR(&e));
        abort();
    }
    return io;
}

void loop_io_want(struct loop_io *io, unsigned events)
{
    assert(!io->freed);
    if (events == io->want)
        return;
    if (!events)
        uv_unref((uv_handle_t *)&io->uv);
    else if (!io->want)
        uv_ref((uv_handle_t *)&io->uv);
    io->want = events;
    if (events & ~io->armed)
        io_arm(io, events);
}

static void on_io_closed(uv_handle_t *handle)
{
    free(container_of((uv_poll_t *)handle, struct loop_io, uv));
}

void loop_io_free(struct loop_io *io)
{
    if (!io)
        return;
    assert(!io->freed);
    io->freed = true;
    io->loop->ios--;
    uv_close((uv_handle_t *)&io->uv, on_io_closed);
}

struct loop_timer {
    uv_timer_t uv;
    void (*fn)(void *arg);
    void *arg;
    struct loop *loop;
};

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_timer *t = xcalloc(1, sizeof(*t));

    uv_timer_init(&loop->uv, &t->uv);
    t->fn = fn;
    t->arg = arg;
    t->loop = loop;
    loop->timers++;
    return t;
}

static void on_timer(uv_timer_t *timer)
{
    struct loop_timer *t = container_of(timer, struct loop_timer, uv);

    t->fn(t->arg);
}

void loop_timer_set_clock(struct loop_timer *t, uint64_t clock_ms)
{
    uint64_t turn = uv_now(&t->loop->uv); /* what libuv adds the timeout to */

    uv_timer_start(&t->uv, on_timer, clock_ms > turn ? clock_ms - turn : 0, 0);
}

void loop_timer_set(struct loop_timer *t, uint64_t deadline_ms)
{
    uint64_t now;

    if (deadline_ms == DEADLINE_NONE) {
        loop_timer_stop(t);
        return;
    }
    now = now_ms();
    loop_timer_set_clock(t, loop_clock_ms() + (deadline_ms > now ? deadline_ms - now : 0));
}

void loop_timer_stop(struct loop_timer *t)
{
    uv_timer_stop(&t->uv);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(container_of((uv_timer_t *)handle, struct loop_timer, uv));
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    t->loop->timers--;
    uv_close((uv_handle_t *)&t->uv, on_timer_closed);
}

struct loop_signal {
    uv_signal_t uv;
    void (*fn)(void *arg);
    void *arg;
    struct loop *loop;
};

static void on_signal(uv_signal_t *handle, int signo)
{
    struct loop_signal *s = container_of(handle, struct loop_signal, uv);

    s->fn(s->arg);
}

struct loop_signal *loop_signal_new(struct loop *loop, int signo, void (*fn)(void *arg), void *arg)
{
    struct loop_signal *s = xcalloc(1, sizeof(*s));
    int r;

    s->fn = fn;
    s->arg = arg;
    s->loop = loop;
    loop->signals++;
    r = uv_signal_init(&loop->uv, &s->uv);
    assert(r == 0);
    r = uv_signal_start(&s->uv, on_signal, signo);
    assert(r == 0);
    return s;
}

static void on_signal_closed(uv_handle_t *handle)
{
    free(container_of((uv_signal_t *)handle, struct loop_signal, uv));
}

void loop_signal_free(struct loop_signal *s)
{
    if (!s)
        return;
    s->loop->signals--;
    uv_close((uv_handle_t *)&s->uv, on_signal_closed);
}
