/* SPDX-License-Identifier: MIT */
/* libchela/work.h — threads and clocks shared by retry.c and guard.c. */
#pragma once

#include <chela/retry.h>
#include <pthread.h>
#include <time.h>

/* A condition variable on the monotonic clock. */
void lib_cond_init(pthread_cond_t *cond);

/* That many seconds from now on the monotonic clock. */
struct timespec lib_deadline(double seconds);

/* Another reference, dropped by chela_cancel_free(). NULL gives NULL. */
struct chela_cancel *lib_cancel_ref(struct chela_cancel *cancel);
