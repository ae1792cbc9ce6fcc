/* SPDX-License-Identifier: MIT */
/*
 * base/offload.h — blocking calls on a thread, while the calling fiber is parked.
 *
 * The pool is the program's (one, lazily started, OFFLOAD_THREADS threads). Work that never ends
 * belongs to a thread of its own, not here. fn sees only arg; it may not touch fibers, the loop or
 * the log context of the caller.
 */
#pragma once

#include "base/err.h"
#include "base/fiber.h"

#define OFFLOAD_THREADS 4
#define OFFLOAD_QUEUE   1024 /* waiting jobs; past it ERR_UNAVAILABLE at once */

/* Run fn(arg, e) on a pool thread and return its result. Cancel does not interrupt fn. */
CO int offload(int (*fn)(void *arg, struct err *e), void *arg, struct err *e) MUST_CHECK;

/* End the pool's threads; no job may be under way. For orderly exits and leak checks. */
void offload_shutdown(void);
