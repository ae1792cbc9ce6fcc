/* SPDX-License-Identifier: MIT */
/*
 * base/loop.h — the event loop (libuv, included in base/loop.c and nowhere else).
 *
 * One loop, one thread: everything below but loop_post() is called on the loop's own thread.
 * Callbacks live here and in the files that wrap a library; program code is fibers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct loop;

/* Also makes the process ignore SIGPIPE: a write to a closed pipe is an error, not an end. */
int loop_new(struct loop **ret, struct err *e) MUST_CHECK;

/* Every io, timer and signal must be freed and every fiber joined before, or it aborts. */
void loop_free(struct loop *loop);

/* Turn until loop_stop(), or until nothing is left that could wake it. */
void loop_run(struct loop *loop);
void loop_stop(
    struct loop *loop); /* after this turn; without effect when loop_run is not under way */

/* Run fn(arg) on the loop's thread soon; from any thread, in order of posting. */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Run fn(arg) at the end of this turn: where objects are freed that may still be on the stack. */
void loop_defer(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Readiness of one descriptor, level-triggered. The fd stays the caller's. */
enum { LOOP_READ = 1, LOOP_WRITE = 2 };
struct loop_io;
struct loop_io *loop_io_new(struct loop *loop, int fd,
                            void (*fn)(struct loop_io *io, unsigned events, void *arg), void *arg);

/*
 * Choose what is watched; 0 watches nothing. On an error of the fd, fn gets all that is watched.
 * Cheap when nothing changes: keep LOOP_READ on while a connection lives.
 */
void loop_io_want(struct loop_io *io, unsigned events);
void loop_io_free(
    struct loop_io *io); /* NULL is fine; fn is not called any more; then close the fd */

struct loop_timer;
struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg);
void loop_timer_set(struct loop_timer *t, uint64_t deadline_ms); /* replaces; DEADLINE_NONE stops */
void loop_timer_stop(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t); /* NULL is fine */

/* Signals arrive as ordinary events. */
struct loop_signal;
struct loop_signal *loop_signal_new(struct loop *loop, int signo, void (*fn)(void *arg), void *arg);
void loop_signal_free(struct loop_signal *s);

/* How late timers run: the longest stretch in ms that one turn kept the loop since the last call.
 */
uint64_t loop_lag_take(struct loop *loop);
