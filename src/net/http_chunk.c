/* SPDX-License-Identifier: MIT */
/*
 * net/http_chunk.c — one byte, one step, but for data, which is taken whole.
 */
#include "net/http_chunk.h"

#include "net/http_parse.h"

enum {
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER,
    TRAILER_LF,
    LAST_LF,
    END,
};

enum { DIGITS_MAX = 15 };

static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int malformed(struct err *e)
{
    return err_set(e, ERR_INVALID, "malformed chunk");
}

static int count_extra(struct http_chunk *c, struct err *e)
{
    if (++c->extra > HTTP_CHUNK_EXTRA)
        return err_set(e, ERR_LIMIT, "too many bytes around the chunks");
    return 0;
}

static int step_size(struct http_chunk *c, unsigned char byte, struct err *e)
{
    int digit = hex_digit(byte);

    if (digit >= 0) {
        if (c->digits++ == DIGITS_MAX)
            return malformed(e);
        c->left = c->left * 16 + (unsigned)digit;
        return 0;
    }
    if (c->digits == 0)
        return malformed(e);
    if (byte == '\r')
        c->state = SIZE_LF;
    else if (byte == ';')
        c->state = EXTENSION;
    else
        return malformed(e);
    return 0;
}

/* The bytes of a line that is read past: any that may stand in a value. */
static int step_extra(struct http_chunk *c, unsigned char byte, int at_cr, struct err *e)
{
    if (byte == '\r') {
        c->state = (uint8_t)at_cr;
        return 0;
    }
    if (!http_is_value(byte))
        return malformed(e);
    return count_extra(c, e);
}

static int step_trailer_start(struct http_chunk *c, unsigned char byte, struct err *e)
{
    if (byte == '\r') {
        c->state = LAST_LF;
        return 0;
    }
    if (!http_is_token(byte))
        return malformed(e); /* a folded line, for one */
    c->state = TRAILER;
    return count_extra(c, e);
}

/* Exactly this byte, then that state. */
static int step_exact(struct http_chunk *c, unsigned char byte, char want, int then, struct err *e)
{
    if (byte != (unsigned char)want)
        return malformed(e);
    c->state = (uint8_t)then;
    return 0;
}

static int step(struct http_chunk *c, unsigned char byte, struct err *e)
{
    switch (c->state) {
    case SIZE:
        return step_size(c, byte, e);
    case EXTENSION:
        return step_extra(c, byte, SIZE_LF, e);
    case SIZE_LF:
        c->digits = 0;
        return step_exact(c, byte, '\n', c->left > 0 ? DATA : TRAILER_START, e);
    case DATA_CR:
        return step_exact(c, byte, '\r', DATA_LF, e);
    case DATA_LF:
        return step_exact(c, byte, '\n', SIZE, e);
    case TRAILER_START:
        return step_trailer_start(c, byte, e);
    case TRAILER:
        return step_extra(c, byte, TRAILER_LF, e);
    case TRAILER_LF:
        return step_exact(c, byte, '\n', TRAILER_START, e);
    case LAST_LF:
        return step_exact(c, byte, '\n', END, e);
    }
    return malformed(e);
}

int http_chunk_next(struct http_chunk *c, struct str bytes, size_t *ret_eaten, struct str *ret_data,
                    struct err *e)
{
    size_t i = 0, n;
    int r;

    while (i < bytes.n && c->state != DATA) {
        r = step(c, (unsigned char)bytes.p[i++], e);
        if (r < 0)
            return r;
        if (c->state == END) {
            *ret_eaten = i;
            *ret_data = (struct str){ bytes.p + i, 0 };
            return HTTP_CHUNK_END;
        }
    }
    n = bytes.n - i;
    if (c->state != DATA)
        n = 0;
    else if (n > c->left)
        n = (size_t)c->left;
    c->left -= n;
    if (c->state == DATA && c->left == 0)
        c->state = DATA_CR;
    *ret_data = (struct str){ bytes.p + i, n };
    *ret_eaten = i + n;
    return 0;
}
