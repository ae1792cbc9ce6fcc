/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_io.c — sleeping, and reading and writing descriptors as if they blocked.
 */
#include <errno.h>
#include <unistd.h>

#include "base/fiber_int.h"

#define BUSY_MAX 64 /* calls in a row that found their data at once, before others get a turn */

CO int fiber_sleep(uint64_t ms, struct err *e)
{
    uint64_t deadline = now_ms() + ms;
    int r = 0;

    if (ms == 0)
        return fiber_yield(e);
    while (r == 0)
        r = fiber_park_quiet(deadline);
    return r == -ERR_TIMEOUT ? 0 : fiber_park_err(r, e);
}

struct fd_wait {
    struct fiber *fiber;
    unsigned got;
};

static void on_ready(struct loop_io *io, unsigned events, void *arg)
{
    struct fd_wait *w = arg;

    w->got = events;
    loop_io_want(io, 0);
    fiber_wake(w->fiber);
}

CO int fiber_wait_fd(int fd, unsigned events, uint64_t deadline_ms, struct err *e)
{
    struct fd_wait w = { .fiber = fiber_self() };
    struct loop_io *io;
    int r;

    r = loop_io_try_new(fiber_loop(), fd, on_ready, &w, &io, e);
    if (r < 0)
        return r;
    loop_io_want(io, events);
    while (r == 0 && !w.got)
        r = fiber_park_quiet(deadline_ms);
    loop_io_free(io);
    return w.got ? (int)w.got : fiber_park_err(r, e);
}

/* A descriptor that always has data would keep its fiber running for ever. */
CO static int share(struct err *e)
{
    struct fiber *f = fiber_self();

    if (f->canceled || ++f->busy >= BUSY_MAX)
        return fiber_yield(e);
    return 0;
}

CO ssize_t fiber_read(int fd, void *buf, size_t n, uint64_t deadline_ms, struct err *e)
{
    ssize_t r;

    for (;;) {
        r = share(e);
        if (r < 0)
            return r;
        r = read(fd, buf, n);
        if (r >= 0)
            return r;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return err_sys(e, "read");
        r = fiber_wait_fd(fd, LOOP_READ, deadline_ms, e);
        if (r < 0)
            return err_wrap(e, "read");
    }
}

CO int fiber_write_all(int fd, const void *buf, size_t n, uint64_t deadline_ms, struct err *e)
{
    const char *p = buf;
    ssize_t r;

    while (n > 0) {
        r = share(e);
        if (r < 0)
            return (int)r;
        r = write(fd, p, n);
        if (r >= 0) {
            p += r;
            n -= (size_t)r;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return err_sys(e, "write");
        r = fiber_wait_fd(fd, LOOP_WRITE, deadline_ms, e);
        if (r < 0)
            return err_wrap(e, "write");
    }
    return 0;
}
