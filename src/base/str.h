/* SPDX-License-Identifier: MIT */
/*
 * base/str.h — borrowed slices of text, and parsing of the small things found in them.
 * A slice is not terminated and is valid as long as what it points into.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){ ("" literal ""), sizeof(literal) - 1 })
#define STR_FMT      "%.*s"
#define STR_ARG(s)   (int)(s).n, (s).p

static inline struct str str_of(const char *z)
{
    return (struct str){ z, z ? strlen(z) : 0 };
}

bool str_eq(struct str a, struct str b);
bool str_eq_z(struct str a, const char *z);
bool str_eq_nocase(struct str a, struct str b); /* ASCII only */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
struct str str_trim(struct str s); /* ASCII white space on both sides */

/* Cut the part before the first `sep` off *rest; false when *rest is used up. */
bool str_split(struct str *rest, char sep, struct str *ret_part);

/* The slice as a terminated string the caller frees. */
char *str_dup(struct str s);

/* Is it well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms)? */
bool utf8_valid(const char *p, size_t n);

/* Length of the well-formed code point at p (n bytes are there), or 0 when there is none. */
size_t utf8_step(const char *p, size_t n);

/* Number of code points in well-formed UTF-8. */
size_t utf8_len(const char *p, size_t n);

/* A decimal integer, whole text, optional sign; ERR_INVALID outside [min, max]. */
int int_parse(struct str s, long long min, long long max, long long *ret, struct err *e) MUST_CHECK;

/* "250ms", "10s", "2m", "24h", "7d", bare number = seconds (fractions allowed): milliseconds. */
int duration_parse(struct str s, long long *ret_ms, struct err *e) MUST_CHECK;

/* "16M", "64K", "1G", bare number = bytes (powers of 1024). */
int size_parse(struct str s, long long *ret, struct err *e) MUST_CHECK;

/* Lower-case hex of n bytes into out, which holds 2n+1. */
void hex_format(const unsigned char *p, size_t n, char *out);

/* The reverse; s.n must be 2 * n. */
int hex_parse(struct str s, unsigned char *out, size_t n, struct err *e) MUST_CHECK;

/* snprintf that aborts when the text does not fit: for texts whose length we decide. */
void fmt_z(char *out, size_t size, const char *fmt, ...) PRINTF(3, 4);
