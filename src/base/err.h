/* SPDX-License-Identifier: MIT */
/*
 * base/err.h — errors as carried values.
 *
 * Every fallible function returns an int and takes a struct err last:
 *
 *      0   done
 *     >0   a normal outcome this function documents (FOUND, END, WOULD_WAIT...)
 *     <0   failed: the negated enum err_code; *e says why, out-parameters are untouched
 *
 * A positive outcome belongs to one function and is handled by its caller. A negative one is
 * passed up unchanged, gaining context on the way. The struct lives on the stack of whoever
 * started the operation, so raising an error never allocates and ignoring one never leaks.
 * Out of memory is not an error: small allocations abort, see xmalloc().
 */
#pragma once

#include <errno.h>
#include <stddef.h>

#include "base/macro.h"

enum err_code {
    ERR_INVALID = 1,  /* 400: the caller sent something we will never accept */
    ERR_UNAUTHORIZED, /* 401: no valid credential */
    ERR_FORBIDDEN,    /* 403: a valid credential, but not for this */
    ERR_NOT_FOUND,    /* 404 */
    ERR_CONFLICT,     /* 409: state moved under the caller; retrying may help */
    ERR_LIMIT,        /* 413, 429: a configured bound was hit */
    ERR_UNAVAILABLE,  /* 503: a peer or a resource is away for now */
    ERR_TIMEOUT,      /* 504 */
    ERR_CANCELED,     /* the operation's owner gave up; say nothing */
    ERR_INTERNAL,     /* 500: a bug or a broken disk; the log has the detail */
    ERR_PARKED,       /* a durable workflow gives its stack up: return at once, say nothing */
};

struct err {
    enum err_code code;
    int line;
    const char *file; /* where it was born, not where it was reported */
    char msg[240];    /* "start bot 'ada': open '/run/ada': Permission denied" */
};

#define err_set(e, code, ...) err_set_at((e), (code), __FILE__, __LINE__, __VA_ARGS__)
#define err_sys(e, ...)       err_sys_at((e), errno, __FILE__, __LINE__, __VA_ARGS__)
#define err_sysn(e, eno, ...) err_sys_at((e), (eno), __FILE__, __LINE__, __VA_ARGS__)

/* Fill *e (NULL is fine) and return -code. */
int err_set_at(struct err *e, enum err_code code, const char *file, int line, const char *fmt, ...)
    PRINTF(5, 6);

/* The same for a failed system call: appends strerror(eno) and picks the code that fits eno. */
int err_sys_at(struct err *e, int eno, const char *file, int line, const char *fmt, ...)
    PRINTF(5, 6);

/* Put "<context>: " before the message; returns -e->code, for `return err_wrap(e, ...)`. */
int err_wrap(struct err *e, const char *fmt, ...) PRINTF(2, 3);

/* "invalid", "not_found"...: stable lower-case names for logs and JSON. */
const char *err_name(enum err_code code);

/* malloc, calloc, realloc, strdup that log and abort instead of returning NULL. */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);
