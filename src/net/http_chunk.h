/* SPDX-License-Identifier: MIT */
/*
 * net/http_chunk.h — bodies in chunks (RFC 9112 §7.1), from bytes to their data. Pure.
 *
 * Strict: CR LF exactly where it belongs, at most 15 digits of size, extensions and trailers are
 * read past, within bounds. (http-parser, as built by Debian, does not look at the bytes where
 * CR LF should stand around a chunk, so a body is decoded here and not there.)
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

#define HTTP_CHUNK_EXTRA 8192 /* bytes of extensions and trailers in one body */

/* All zero is the start of a body. */
struct http_chunk {
    uint64_t left;  /* data bytes of this chunk still to come */
    uint32_t extra; /* bytes of extensions and trailers so far */
    uint8_t state, digits;
};

/*
 * Eat bytes up to the end of the next piece of data. *ret_eaten says how many, *ret_data is the
 * piece (a slice of bytes, may be empty). 0: call again with the rest when there is more;
 * HTTP_CHUNK_END: the body is whole and nothing behind it was eaten; -ERR_INVALID; -ERR_LIMIT
 * for too many extension or trailer bytes.
 */
enum { HTTP_CHUNK_END = 1 };
int http_chunk_next(struct http_chunk *c, struct str bytes, size_t *ret_eaten, struct str *ret_data,
                    struct err *e) MUST_CHECK;
