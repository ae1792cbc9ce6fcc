/* SPDX-License-Identifier: MIT */
/* libchela/lib.h — what the files of the library share: errors, strings, the thread that turns. */
#pragma once

#include <chela/bridge.h>

#include "base/arena.h"
#include "base/err.h"
#include "bridge/bridge_calls.h"
#include "durable/durable.h"

/* Turn a carried error into the library's; both may be NULL. Returns e->code as chela_code. */
int lib_error(const struct err *e, struct chela_error *ret);
int lib_fail(struct chela_error *ret, int code, enum chela_error_type type, const char *fmt, ...)
    PRINTF(4, 5);

/* A work function failed: fill in a type that it left open, pass the error on. CHELA_E_FAILED. */
int lib_work_failed(struct chela_error *from, struct chela_error *ret);

static inline char *lib_strdup(struct str s)
{
    return s.p ? str_dup(s) : NULL;
}

/* The finished text of a writer as a string to free(). */
char *lib_take_json(struct out *o);

/* Make a state directory when it is absent and take its lock, as the daemon does: one process at a
 * time. ERR_CONFLICT. */
int lib_lock_dir(const char *dir, int *ret_fd, struct err *e) MUST_CHECK;

/* A library does not fill its program's standard error: only errors are logged. */
void lib_quiet(void);

enum error_type lib_type(enum chela_error_type type); /* the two enums are the same numbers */

/* --- engine.c: a loop on a thread of its own, with what lives there --- */

struct engine;

struct engine_conf {
    const char *store_url; /* NULL: neither store nor bridge, only the HTTP client */
    struct bridge_conf bridge;
    unsigned char key[32];
    struct outbound_policy policy;
    bool any_address;                   /* the policy does not matter */
    const struct durable_conf *durable; /* not NULL: a durable engine instead of the bridge */
    unsigned pool;                      /* connections of the store; 0: its own choice */
    const char *ca_file, *proxy;
    int lock_fd; /* closed at the end; -1: none */
};

/* Start the thread; returns when the bridge is loaded. conf is copied, its strings are not. */
int engine_new(const struct engine_conf *conf, struct engine **ret, struct err *e) MUST_CHECK;

/* Cancel and await what is running, stop the bridge, end the thread. NULL is fine. */
void engine_free(struct engine *engine);

struct bridge *engine_bridge(const struct engine *engine);
struct store *engine_store(const struct engine *engine);
struct durable *engine_durable(const struct engine *engine);
struct http_client *engine_client(const struct engine *engine);

/* Run fn(arg) as a fiber of the engine's thread and wait for it. From any other thread. */
int engine_run(struct engine *engine, CO fiber_fn *fn, void *arg, struct err *e) MUST_CHECK;

/* The same without waiting: done(result, e, arg) is called on the engine's thread. Its number. */
uint64_t engine_start(struct engine *engine, CO fiber_fn *fn, void *arg,
                      void (*done)(int r, const struct err *e, void *arg));
void engine_cancel(struct engine *engine, uint64_t number);
