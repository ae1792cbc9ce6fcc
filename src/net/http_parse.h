/* SPDX-License-Identifier: MIT */
/*
 * net/http_parse.h — the head of a request, from bytes to slices. Pure: no I/O, no memory.
 *
 * http-parser (included in http_parse.c and nowhere else) is lenient in places and Debian builds
 * it without its strict checks, so the bytes are judged first: what two servers could read in two
 * ways is refused, never repaired. Bodies are http_chunk.h's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "net/http.h"

#define HTTP_HEADERS_MAX 100 /* header lines of a request: 431 past it */
#define HTTP_METHOD_MAX  32  /* bytes of a method token */

struct http_head {
    enum http_method method;
    struct str method_text;
    struct str path;  /* as sent; "/" for an absolute form without one, "*" for OPTIONS * */
    struct str query; /* as sent, without "?" */
    struct str host;  /* of the Host header; {NULL, 0} on HTTP/1.0 without one */
    struct http_header *headers;
    size_t n_headers;
    uint64_t length; /* of Content-Length; 0 without one */
    int minor;       /* HTTP/1.minor */
    bool chunked;
    bool keep_alive;
    bool expect_continue;
};

/*
 * Where does the head end? Call again with more bytes at the same *scanned, which starts at 0 and
 * says how far the search has come. 0 and the head's length with its empty line in *ret_len;
 * HTTP_HEAD_MORE; -ERR_INVALID as soon as it cannot become a head.
 */
enum { HTTP_HEAD_MORE = 1 };
int http_head_find(struct str bytes, size_t *scanned, size_t *ret_len, struct err *e) MUST_CHECK;

/*
 * Read a whole head, exactly as long as http_head_find() said. headers holds HTTP_HEADERS_MAX;
 * all slices point into bytes. On -ERR_INVALID or -ERR_LIMIT *ret_status is what to answer: 400,
 * 417, 431, 501 or 505.
 */
int http_head_parse(struct str bytes, struct http_header *headers, struct http_head *ret,
                    int *ret_status, struct err *e) MUST_CHECK;

/* Classes of bytes, for the head and for what surrounds chunks. */
bool http_is_token(unsigned char c); /* tchar of RFC 9110 §5.6.2 */
bool http_is_value(unsigned char c); /* visible, space, tab, or above 0x7f */
