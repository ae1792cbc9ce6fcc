/* SPDX-License-Identifier: MIT */
/* libchela/durable_int.h — what the files of the durable face share. */
#pragma once

#include <chela/durable.h>
#include <pthread.h>

#include "base/buf.h"
#include "durable/durable.h"
#include "libchela/lib.h"

struct pool;
struct type_block; /* rows of one chela_durable_register(), or of queues */

struct chela_durable {
    struct engine *engine;
    struct durable *d;
    struct pool *pool; /* where bodies of steps run */
    size_t payload_max;
    struct type_block *types;
    bool ran; /* of the engine's thread */
};

struct chela_workflow {
    struct workflow *w;
    struct chela_durable *owner;
    pthread_t thread; /* the engine's */
    bool in_step;
    char *named; /* made when it is asked for */
};

/* May this call be made here and now? Not on another thread, and not within a step. */
int wf_enter(const struct chela_workflow *w, struct chela_error *error) MUST_CHECK;

/* r of an engine's call as the library's. */
static inline int lib_done(int r, const struct err *e, struct chela_error *error)
{
    return r >= 0 ? r : lib_error(e, error);
}

/* What a function of the program's returned (not 0), as a carried error. */
int lib_from(int r, const struct chela_error *error, struct err *e);

uint64_t lib_ms(double seconds); /* 0 for none; bounded */

/* 0, or CHELA_E_INVALID for what is negative or no number: 0 would mean "none" or a default. */
int lib_seconds(double seconds, const char *what, struct chela_error *error) MUST_CHECK;

/* A text to free(), when it is wanted; the buffer is done. */
void lib_take_text(struct buf *b, char **ret);

/* The end of a call that gives a text: r of the engine's call as the library's. */
int wf_out(int r, struct buf *out, const struct err *e, char **ret_json, struct chela_error *error);

/* The same of a step's or a child's work: its failure is CHELA_E_FAILED. */
int wf_work(int r, struct buf *out, const struct err *e, char **ret_json,
            struct chela_error *error);

/* What a start says, in the engine's terms; borrows. */
struct durable_start lib_start(const struct chela_start *start);
int lib_start_check(const struct chela_start *s, struct chela_error *error) MUST_CHECK;

/* --- pool.c: threads for what may block --- */

struct pool *pool_new(unsigned threads);
void pool_free(struct pool *pool); /* nobody may wait on it; NULL is fine */

/*
 * Run fn(arg) on a thread of the pool while the calling fiber waits. When the fiber is cancelled
 * before its turn has come, -ERR_CANCELED; later, the flag is raised and the end awaited.
 */
CO int pool_run(struct pool *pool, void (*fn)(void *arg), void *arg, struct chela_cancel *cancel,
                struct err *e) MUST_CHECK;
