/* SPDX-License-Identifier: MIT */
/*
 * Fuzzing what strangers send first: heads, in pieces and whole, and chunked bodies behind them.
 * What is accepted must keep what the rest of the server builds on.
 */
#include <assert.h>

#include "fuzz.h"
#include "net/http_chunk.h"
#include "net/http_parse.h"

static struct http_header headers[HTTP_HEADERS_MAX];

static bool inside(struct str s, struct str whole)
{
    return s.n == 0 || (s.p >= whole.p && s.p + s.n <= whole.p + whole.n);
}

static void check_head(const struct http_head *h, struct str bytes)
{
    assert(h->n_headers <= HTTP_HEADERS_MAX);
    assert(h->path.n > 0 && (h->path.p[0] == '/' || h->path.p[0] == '*'));
    assert(!(h->chunked && h->length > 0));
    assert(h->minor == 1 ? h->host.n > 0 : !h->chunked);
    assert(inside(h->query, bytes) && inside(h->host, bytes));
    for (size_t i = 0; i < h->n_headers; i++) {
        const struct http_header *field = &h->headers[i];

        assert(field->name.n > 0 && inside(field->name, bytes) && inside(field->value, bytes));
        for (size_t k = 0; k < field->value.n; k++)
            assert(http_is_value((unsigned char)field->value.p[k]));
    }
}

/* Decode; pieces of `step` bytes must give the same result as all at once. */
static int decode(struct str in, size_t step, size_t *ret_data, size_t *ret_eaten)
{
    struct http_chunk c = { 0 };
    size_t at = 0;

    *ret_data = *ret_eaten = 0;
    while (at < in.n) {
        size_t n = in.n - at < step ? in.n - at : step, eaten;
        struct str data, piece = { in.p + at, n };
        struct err e;
        int r = http_chunk_next(&c, piece, &eaten, &data, &e);

        if (r < 0)
            return r;
        assert(eaten > 0 && eaten <= n && inside(data, piece));
        *ret_data += data.n;
        at += eaten;
        *ret_eaten = at;
        if (r == HTTP_CHUNK_END)
            return r;
    }
    return 0;
}

static void check_chunks(struct str in)
{
    size_t data[2], eaten[2];
    int r = decode(in, SIZE_MAX, &data[0], &eaten[0]);

    assert(decode(in, 1, &data[1], &eaten[1]) == r);
    assert(r < 0 || (data[0] == data[1] && eaten[0] == eaten[1]));
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str bytes = { (const char *)data, size };
    size_t scanned = 0, again = 0, len = 0, len_again = 0;
    struct http_head h;
    struct err e;
    int r = HTTP_HEAD_MORE, whole, status = 0;

    for (size_t n = 0; n <= size && r == HTTP_HEAD_MORE; n++)
        r = http_head_find((struct str){ bytes.p, n }, &scanned, &len, &e);
    whole = http_head_find(bytes, &again, &len_again, &e);
    assert(whole == r && (r != 0 || len == len_again));
    if (r != 0) {
        check_chunks(bytes);
        return 0;
    }
    if (http_head_parse((struct str){ bytes.p, len }, headers, &h, &status, &e) < 0) {
        assert(status >= 400 && status < 600);
        return 0;
    }
    check_head(&h, bytes);
    check_chunks((struct str){ bytes.p + len, size - len });
    return 0;
}
