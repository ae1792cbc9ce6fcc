/* SPDX-License-Identifier: MIT */
/*
 * base/err.c — filling and wrapping carried errors, and the allocators that never return NULL.
 * A message that does not fit is cut at a whole code point, so it is always good UTF-8 if its parts
 * were.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"

/* Drop a code point that snprintf's limit tore in two. */
static void trim_torn(char *z, size_t size, int wanted)
{
    size_t n = strlen(z), lead = n;

    if (wanted < 0 || (size_t)wanted < size)
        return;
    while (lead > 0 && n - lead < 4 && ((unsigned char)z[lead - 1] & 0xc0) == 0x80)
        lead--;
    if (lead > 0 && utf8_step(z + lead - 1, n - (lead - 1)) == 0)
        z[lead - 1] = '\0';
}

static void fill(struct err *e, enum err_code code, const char *file, int line)
{
    e->code = code;
    e->file = file;
    e->line = line;
}

int err_set_at(struct err *e, enum err_code code, const char *file, int line, const char *fmt, ...)
{
    char text[sizeof(e->msg)];
    va_list ap;
    int n;

    if (!e)
        return -(int)code;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    trim_torn(text, sizeof(text), n);
    memcpy(e->msg, text, sizeof(text)); /* by way of text: e->msg may be among the arguments */
    fill(e, code, file, line);
    return -(int)code;
}

/* What an errno means to the caller of an operation that met it. */
static enum err_code code_of_errno(int eno)
{
    /* clang-format off */
    static const struct { int eno; enum err_code code; } rows[] = {
        { ENOENT,       ERR_NOT_FOUND },
        { ESRCH,        ERR_NOT_FOUND },
        { EACCES,       ERR_FORBIDDEN },
        { EPERM,        ERR_FORBIDDEN },
        { EEXIST,       ERR_CONFLICT },
        { EFBIG,        ERR_LIMIT },
        { EMSGSIZE,     ERR_LIMIT },
        { E2BIG,        ERR_LIMIT },
        { ENAMETOOLONG, ERR_INVALID },
        { ETIMEDOUT,    ERR_TIMEOUT },
        { ECANCELED,    ERR_CANCELED },
        { EAGAIN,       ERR_UNAVAILABLE },
        { EBUSY,        ERR_UNAVAILABLE },
        { ENOSPC,       ERR_UNAVAILABLE },
        { EDQUOT,       ERR_UNAVAILABLE },
        { EROFS,        ERR_UNAVAILABLE },
        { EMFILE,       ERR_UNAVAILABLE },
        { ENFILE,       ERR_UNAVAILABLE },
        { ENOBUFS,      ERR_UNAVAILABLE },
        { EPIPE,        ERR_UNAVAILABLE },
        { ECONNREFUSED, ERR_UNAVAILABLE },
        { ECONNRESET,   ERR_UNAVAILABLE },
        { ECONNABORTED, ERR_UNAVAILABLE },
        { ENOTCONN,     ERR_UNAVAILABLE },
        { EHOSTUNREACH, ERR_UNAVAILABLE },
        { ENETUNREACH,  ERR_UNAVAILABLE },
        { ENETDOWN,     ERR_UNAVAILABLE },
    };
    /* clang-format on */

    for (size_t i = 0; i < LEN(rows); i++) {
        if (rows[i].eno == eno)
            return rows[i].code;
    }
    return ERR_INTERNAL;
}

int err_sys_at(struct err *e, int eno, const char *file, int line, const char *fmt, ...)
{
    char text[sizeof(e->msg)], whole[sizeof(e->msg)], reason[80];
    enum err_code code = code_of_errno(eno);
    va_list ap;
    int n;

    if (!e)
        return -(int)code;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    trim_torn(text, sizeof(text), n);
    n = snprintf(whole, sizeof(whole), "%s: %s", text, strerror_r(eno, reason, sizeof(reason)));
    trim_torn(whole, sizeof(whole), n);
    memcpy(e->msg, whole, sizeof(whole));
    fill(e, code, file, line);
    return -(int)code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char context[sizeof(e->msg)], whole[sizeof(e->msg)];
    va_list ap;
    int n;

    if (!e)
        return -ERR_INTERNAL;
    va_start(ap, fmt);
    n = vsnprintf(context, sizeof(context), fmt, ap);
    va_end(ap);
    trim_torn(context, sizeof(context), n);
    n = snprintf(whole, sizeof(whole), "%s: %s", context, e->msg);
    trim_torn(whole, sizeof(whole), n);
    memcpy(e->msg, whole, sizeof(whole));
    return -(int)e->code;
}

const char *err_name(enum err_code code)
{
    static const char *const names[] = {
        [ERR_INVALID] = "invalid",         [ERR_UNAUTHORIZED] = "unauthorized",
        [ERR_FORBIDDEN] = "forbidden",     [ERR_NOT_FOUND] = "not_found",
        [ERR_CONFLICT] = "conflict",       [ERR_LIMIT] = "limit",
        [ERR_UNAVAILABLE] = "unavailable", [ERR_TIMEOUT] = "timeout",
        [ERR_CANCELED] = "canceled",       [ERR_INTERNAL] = "internal",
        [ERR_PARKED] = "parked",
    };

    if ((unsigned)code >= LEN(names) || !names[code])
        return "unknown";
    return names[code];
}

__attribute__((noreturn)) static void out_of_memory(size_t n)
{
    log_error("out of memory", "bytes", LOG_INT(n));
    abort();
}

void *xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);

    if (!p)
        out_of_memory(n);
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);

    if (!p)
        out_of_memory(n);
    return p;
}

void *xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

char *xstrndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = xmalloc(len + 1);

    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

char *xasprintf(const char *fmt, ...)
{
    char *text;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        out_of_memory(0);
    return text;
}
