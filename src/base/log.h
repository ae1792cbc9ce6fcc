/* SPDX-License-Identifier: MIT */
/*
 * base/log.h — one line per event: a constant message, then typed pairs.
 *
 *     log_info("agent registered", "agent", LOG_STR(name), "port", LOG_INT(port));
 *
 * Text on a terminal, JSON otherwise, with a journald priority prefix when stderr is the journal.
 * Each fiber carries a chain of context pairs (conn, req, agent) that every line of it gets.
 * Levels: error (someone must act), warn (odd but handled), info (a change an operator wants to
 * see), debug (the rest). There is no way to log a secret by shape: use LOG_SECRET, which prints
 * "***"; texts of callers (prompts, answers) are never logged.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_AUTO, LOG_TEXT, LOG_JSON };

enum log_kind {
    LOG_K_END,
    LOG_K_INT,
    LOG_K_STR,
    LOG_K_SLICE,
    LOG_K_REAL,
    LOG_K_BOOL,
    LOG_K_SECRET
};

#define LOG_INT(v)    LOG_K_INT, (long long)(v)
#define LOG_STR(z)    LOG_K_STR, (const char *)(z) /* NULL prints null */
#define LOG_SLICE(s)  LOG_K_SLICE, (int)(s).n, (s).p
#define LOG_REAL(v)   LOG_K_REAL, (double)(v)
#define LOG_BOOL(v)   LOG_K_BOOL, (int)(v)
#define LOG_SECRET(v) LOG_K_SECRET
#define LOG_ERR(e)    LOG_K_STR, (const char *)(e)->msg

#define log_error(...) log_write(LOG_ERROR, __FILE__, __LINE__, __VA_ARGS__, (char *)NULL)
#define log_warn(...)  log_write(LOG_WARN, __FILE__, __LINE__, __VA_ARGS__, (char *)NULL)
#define log_info(...)  log_write(LOG_INFO, __FILE__, __LINE__, __VA_ARGS__, (char *)NULL)
#define log_debug(...) \
    do { \
        if (log_enabled(LOG_DEBUG)) \
            log_write(LOG_DEBUG, __FILE__, __LINE__, __VA_ARGS__, (char *)NULL); \
    } while (0)

/* After msg: key, LOG_X(value), key, LOG_X(value), ..., NULL. Any thread. */
void log_write(enum log_level level, const char *file, int line, const char *msg, ...);

void log_setup(enum log_level level, enum log_format format); /* any time; reload uses it */
bool log_enabled(enum log_level level);
int log_level_parse(const char *name, enum log_level *ret, struct err *e) MUST_CHECK;

/*
 * Context of the running fiber (of the thread outside fibers): pairs that every line carries.
 * The ctx struct is the caller's and stays on its stack until log_pop.
 */
struct log_ctx {
    const char *key;
    char value[64]; /* longer values are cut */
    struct log_ctx *up;
};
void log_push(struct log_ctx *ctx, const char *key, const char *value);
void log_pop(struct log_ctx *ctx);

/* Used by base/fiber to swap contexts on a switch. */
struct log_ctx *log_ctx_swap(struct log_ctx *with);

/* Tests: lines go to fn instead of stderr. NULL restores. */
void log_capture(void (*fn)(enum log_level level, const char *line, void *arg), void *arg);
