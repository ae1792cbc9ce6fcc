/* SPDX-License-Identifier: MIT */
/*
 * base/json.h — JSON documents, over jansson (included here and nowhere else).
 * json_ is jansson's prefix too; only the functions below are ours.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

/* Values in one document: "{}" is two bytes of text and two hundred of memory. */
#define JSON_VALUES_MAX (512 * 1024)

/* Where and why a text is not JSON; JSON_FAIL_DEPTH also when there are too many values. */
struct json_fail {
    enum {
        JSON_FAIL_SYNTAX,
        JSON_FAIL_DEPTH,
        JSON_FAIL_UNICODE,
        JSON_FAIL_NUMBER,
        JSON_FAIL_EMPTY
    } kind;
    size_t offset; /* in code points from the start, as Python counts */
    char text[96]; /* in the words of Python's json module where one fits */
};

/*
 * Parse one whole text, any value at the top. Duplicate keys: the last wins. Nesting deeper than
 * max_depth (512 at most) and more than JSON_VALUES_MAX values, both checked by a scan before
 * anything is built, NaN, Infinity, lone surrogates and \u0000 are refused. Integers beyond 64 bit
 * become reals. On -ERR_INVALID *fail (may be NULL) says more. The document belongs to the arena;
 * hold a reference (json_incref) to keep it longer.
 */
int json_parse(struct str text, size_t max_depth, struct arena *a, json_t **ret,
               struct json_fail *fail, struct err *e) MUST_CHECK;

/* Is the text one JSON value by the same rules? Builds nothing. */
int json_check(struct str text, size_t max_depth, struct err *e) MUST_CHECK;

/*
 * Foreign JSON holds what json_parse() refuses and no database takes: Node writes U+0000 and halves
 * of surrogate pairs as escapes, and who cuts a text may cut a pair. A copy in the arena in which
 * each of them is U+FFFD; {NULL, 0}: there are none.
 */
struct str json_mend(struct str text, struct arena *a);

/* text without the byte order mark that some writers (PowerShell, .NET) put in front. */
struct str json_unmarked(struct str text);

/* Compact text, keys in insertion order, UTF-8 raw. */
int json_write(const json_t *j, struct buf *b, struct err *e) MUST_CHECK;

/* The same into the arena, at most max bytes. */
int json_text(const json_t *j, size_t max, struct arena *a, struct str *ret, struct err *e)
    MUST_CHECK;

/* Append s as a JSON string with quotes: UTF-8 raw, control characters as \u00XX or short (\n \r \t
 * \b \f), bytes that are not UTF-8 as U+FFFD. */
int json_write_str(struct buf *b, struct str s, struct err *e) MUST_CHECK;

/* Append a number: the shortest text that reads back as v ("0.1", "1e+16"); null if not finite. */
int json_write_real(struct buf *b, double v, struct err *e) MUST_CHECK;
int json_write_int(struct buf *b, int64_t v, struct err *e) MUST_CHECK;

/* A member that is a string, as a borrowed slice; {NULL, 0} when absent or not a string. */
struct str json_member_str(const json_t *object, const char *key);

static inline void json_decref_auto(json_t **j)
{
    json_decref(*j);
}
