/* SPDX-License-Identifier: MIT */
/*
 * base/fiber.h — functions with their own stack that may wait.
 *
 * A fiber runs on the loop's thread; nothing else of ours runs until it waits or returns.
 *
 * CO marks every function that may wait. Across a CO call any state that is not on this fiber's
 * own stack may have changed: hold ids, not borrowed pointers, and look things up again.
 *
 * Cancelling makes the current wait, and every later one, fail with ERR_CANCELED. The function
 * then unwinds by ordinary returns, so its AUTO variables are released; a fiber's stack is never
 * dropped from the outside. Every wait takes an absolute deadline (base/time.h) or has none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/time.h"

#define FIBER_STACK (256 * KIB) /* mapped, touched lazily, one guard page, pooled */

struct fiber;
typedef int fiber_fn(void *arg, struct err *e);

/*
 * Start fn(arg) as a fiber; it first runs in this or the next turn, never inside this call.
 * With ret the caller must fiber_join() it; with NULL it is detached and an error it returns is
 * logged under its name. Fails with ERR_LIMIT past the loop's bound of fibers (FIBERS_MAX).
 * arg is borrowed until fn returns. `name` is a constant string.
 */
#define FIBERS_MAX 65536
int fiber_spawn(struct loop *loop, const char *name, CO fiber_fn *fn, void *arg, struct fiber **ret,
                struct err *e) MUST_CHECK;

/* Wait until f has returned; its result and error. Consumes f. Not cancellable: cancel f to hurry
 * it. */
CO int fiber_join(struct fiber *f, struct err *e);

/* Make every wait of f fail from now on. Safe on a fiber that has returned but is not joined. */
void fiber_cancel(struct fiber *f);

struct fiber *fiber_self(void);           /* NULL outside fibers */
struct loop *fiber_loop(void);            /* of the running fiber; asserts there is one */
bool fiber_canceled(void);                /* the running one */
unsigned fibers_alive(struct loop *loop); /* for metrics and for shutdown */

CO int fiber_sleep(uint64_t ms, struct err *e) MUST_CHECK;
CO int fiber_yield(struct err *e) MUST_CHECK; /* let everything else that is ready run first */

/*
 * The primitive the wrappers are built on. fiber_wake() on a fiber that is not parked is
 * remembered and makes its next park return at once, so no wake-up is lost; a park may return
 * without a reason, so callers loop on their condition. 0, -ERR_TIMEOUT or -ERR_CANCELED.
 */
CO int fiber_park(uint64_t deadline_ms, struct err *e) MUST_CHECK;
void fiber_wake(struct fiber *f);

/*
 * Park until woken, blind to cancel and to deadlines: only for waits that are sure to end, where
 * another thread still holds our stack's memory (offload, store).
 */
CO void fiber_park_hard(void);

/*
 * Wait for readiness of a descriptor that no loop_io watches: the LOOP_READ | LOOP_WRITE bits that
 * hold. A regular file cannot be waited for.
 */
CO int fiber_wait_fd(int fd, unsigned events, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/* Whole or partial I/O on a non-blocking descriptor. read: 0 at the end. */
CO ssize_t fiber_read(int fd, void *buf, size_t n, uint64_t deadline_ms, struct err *e);
CO int fiber_write_all(int fd, const void *buf, size_t n, uint64_t deadline_ms, struct err *e)
    MUST_CHECK;

/*
 * A group owns fibers: it is joined or cancelled before its owner ends. A member that fails does
 * not cancel the others; the first error is what join returns.
 */
struct fiber_group;
struct fiber_group *fiber_group_new(struct loop *loop);
int fiber_group_spawn(struct fiber_group *g, const char *name, CO fiber_fn *fn, void *arg,
                      struct err *e) MUST_CHECK;
void fiber_group_cancel(struct fiber_group *g);

/* Wait for all; g stays and may be used again. Cancelling the caller cancels the members. */
CO int fiber_group_join(struct fiber_group *g, struct err *e);
unsigned fiber_group_size(const struct fiber_group *g);
void fiber_group_free(struct fiber_group *g); /* must be empty */

/*
 * A bounded channel of pointers between fibers of one loop. The channel does not own what it
 * carries. Closing wakes everybody: receivers drain what is left and then get CHAN_CLOSED.
 */
enum { CHAN_CLOSED = 1, CHAN_FULL = 2, CHAN_EMPTY = 3 };
struct chan;
struct chan *chan_new(size_t capacity);
void chan_free(struct chan *c); /* nobody may wait on it */
CO int chan_send(struct chan *c, void *item, uint64_t deadline_ms, struct err *e) MUST_CHECK;
int chan_try_send(struct chan *c, void *item); /* 0, CHAN_FULL or CHAN_CLOSED */
CO int chan_recv(struct chan *c, void **ret, uint64_t deadline_ms, struct err *e) MUST_CHECK;
int chan_try_recv(struct chan *c, void **ret); /* 0, CHAN_EMPTY or CHAN_CLOSED */
void chan_close(struct chan *c);
size_t chan_len(const struct chan *c);

/*
 * A fair mutex between fibers: waiters get it in order of arrival. For the rare flow that must
 * not interleave with itself over waits (one conversation); not for protecting data.
 */
struct fiber_lane {
    struct fiber_lane_waiter *first, **last; /* zeroed is a free lane; last is set on first use */
    bool taken;
    unsigned waiting;
};
CO int fiber_lane_enter(struct fiber_lane *lane, uint64_t deadline_ms, struct err *e) MUST_CHECK;
void fiber_lane_leave(struct fiber_lane *lane);
