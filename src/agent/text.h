/* SPDX-License-Identifier: MIT */
/*
 * agent/text.h — text of tasks against bytes of files and processes: the encodings that Node's
 * Buffer knows. Pure.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

/*
 * Append bytes as UTF-8: what is not well-formed becomes U+FFFD, one for each maximal part of a
 * character (as TextDecoder does), and so does NUL, which the hub's JSON does not carry.
 */
int text_utf8(struct str bytes, struct buf *ret, struct err *e) MUST_CHECK;

enum text_encoding {
    TEXT_UTF8,
    TEXT_ASCII,
    TEXT_LATIN1,
    TEXT_BASE64,
    TEXT_BASE64URL,
    TEXT_HEX,
    TEXT_UTF16LE,
};

/* "utf8", "utf-8", "ascii", "latin1", "binary", "base64", "base64url", "hex", "utf16le", "ucs2",
 * ... in any case; false: no such encoding. */
bool text_encoding_parse(const char *name, enum text_encoding *ret);

/*
 * Append the bytes that the text stands for, as Buffer.from(text, encoding) makes them: base64 of
 * either alphabet, skipping what does not belong; hex up to the first pair that is none; of
 * characters that do not fit into ascii or latin1 the low byte. Cannot fail but by the buffer.
 */
int text_decode(enum text_encoding encoding, struct str text, struct buf *ret, struct err *e)
    MUST_CHECK;

/*
 * Append bytes as text, as buffer.toString(encoding) does. NUL in latin1 or utf16le is ERR_INVALID:
 * these are used to carry bytes, and it would be lost (utf8, ascii: U+FFFD).
 */
int text_encode(enum text_encoding encoding, struct str bytes, struct buf *ret, struct err *e)
    MUST_CHECK;

/*
 * The longest part of bytes, of which more follow, that ends between two characters of utf8 or
 * utf16le; all of them for the other encodings.
 */
size_t text_whole(enum text_encoding encoding, struct str bytes);

/* How long the text is between the quotes of a JSON string. */
size_t text_json_len(struct str text);

/* The text with credentials in URLs ("https://user:secret@host") and after "Bearer " masked as
 * "***". */
char *text_masked(struct arena *a, struct str text);
