/* SPDX-License-Identifier: MIT */
/*
 * base/buf.h — a growing byte buffer with a maximum from birth. Growth past it is ERR_LIMIT and
 * leaves the buffer as it was. Bytes are added at the end and eaten from the front.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#include "base/str.h"

struct buf {
    char *p;            /* what is held is p[off .. off+n) */
    size_t off, n, cap; /* cap counts from p */
    size_t max;         /* bound of n */
};

/* Nothing is allocated until the first byte. */
void buf_init(struct buf *b, size_t max);

/* Free; works on zeroed and half-built buffers, and leaves one that may be used again. */
void buf_done(struct buf *b);

int buf_add(struct buf *b, const void *p, size_t n, struct err *e) MUST_CHECK;
int buf_add_z(struct buf *b, const char *z, struct err *e) MUST_CHECK;
int buf_add_str(struct buf *b, struct str s, struct err *e) MUST_CHECK;
int buf_printf(struct buf *b, struct err *e, const char *fmt, ...) PRINTF(3, 4) MUST_CHECK;

/* Room for n more bytes at *ret_p; tell how many were used with buf_commit. */
int buf_reserve(struct buf *b, size_t n, char **ret_p, struct err *e) MUST_CHECK;
void buf_commit(struct buf *b, size_t n);

/* Drop n bytes from the front / all. */
void buf_eat(struct buf *b, size_t n);
void buf_clear(struct buf *b);

/* What is held now; valid until the next change. */
struct str buf_str(const struct buf *b);

static inline void buf_done_auto(struct buf *b)
{
    buf_done(b);
}
