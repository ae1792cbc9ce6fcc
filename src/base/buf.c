/* SPDX-License-Identifier: MIT */
/*
 * base/buf.c — bounded growing buffers. Eating moves an offset; the gap in front is closed only
 * when the bytes to move are fewer than those eaten, so a byte is moved once on average.
 */
#include "base/buf.h"

#include <stdio.h>

enum { CAP_FIRST = 256 };

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_done(struct buf *b)
{
    free(b->p);
    *b = (struct buf){ .max = b->max };
}

static void grow(struct buf *b, size_t need)
{
    size_t cap = b->cap < CAP_FIRST ? CAP_FIRST : b->cap;
    char *p;

    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : 2 * cap;
    if (cap > b->max)
        cap = b->max; /* need is at most max */
    if (b->off == 0) {
        b->p = xrealloc(b->p, cap);
    } else {
        p = xmalloc(cap);
        if (b->n > 0)
            memcpy(p, b->p + b->off, b->n);
        free(b->p);
        b->p = p;
        b->off = 0;
    }
    b->cap = cap;
}

/* Make room for n more bytes behind what is held. */
static int make_room(struct buf *b, size_t n, struct err *e)
{
    if (n > b->max || b->n > b->max - n)
        return err_set(e, ERR_LIMIT, "more than %zu bytes", b->max);
    if (b->off + b->n + n <= b->cap)
        return 0;
    if (b->n + n <= b->cap && b->off >= b->n) {
        memmove(b->p, b->p + b->off, b->n);
        b->off = 0;
        return 0;
    }
    grow(b, b->n + n);
    return 0;
}

int buf_add(struct buf *b, const void *p, size_t n, struct err *e)
{
    int r;

    if (n == 0)
        return 0;
    r = make_room(b, n, e);
    if (r < 0)
        return r;
    memcpy(b->p + b->off + b->n, p, n);
    b->n += n;
    return 0;
}

int buf_add_z(struct buf *b, const char *z, struct err *e)
{
    return buf_add(b, z, strlen(z), e);
}

int buf_add_str(struct buf *b, struct str s, struct err *e)
{
    return buf_add(b, s.p, s.n, e);
}

int buf_printf(struct buf *b, struct err *e, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    int n, r;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_set(e, ERR_INTERNAL, "format '%s' was refused", fmt);
    if ((size_t)n < sizeof(small))
        return buf_add(b, small, (size_t)n, e);

    r = make_room(b, (size_t)n, e);
    if (r < 0)
        return r;
    /* vsnprintf writes a terminator too, for which the maximum may have no room. */
    va_start(ap, fmt);
    if (b->off + b->n + (size_t)n < b->cap) {
        vsnprintf(b->p + b->off + b->n, (size_t)n + 1, fmt, ap);
    } else {
        AUTO(free) char *text = xmalloc((size_t)n + 1);

        vsnprintf(text, (size_t)n + 1, fmt, ap);
        memcpy(b->p + b->off + b->n, text, (size_t)n);
    }
    va_end(ap);
    b->n += (size_t)n;
    return 0;
}

int buf_reserve(struct buf *b, size_t n, char **ret_p, struct err *e)
{
    int r = make_room(b, n, e);

    if (r < 0)
        return r;
    *ret_p = b->p + b->off + b->n;
    return 0;
}

void buf_commit(struct buf *b, size_t n)
{
    if (n > b->cap - b->off - b->n)
        abort(); /* more than was reserved: memory is already overwritten */
    b->n += n;
}

void buf_eat(struct buf *b, size_t n)
{
    if (n >= b->n) {
        buf_clear(b);
        return;
    }
    b->off += n;
    b->n -= n;
}

void buf_clear(struct buf *b)
{
    b->off = b->n = 0;
}

struct str buf_str(const struct buf *b)
{
    return (struct str){ b->p ? b->p + b->off : "", b->n };
}
