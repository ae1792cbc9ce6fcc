/* SPDX-License-Identifier: MIT */
/*
 * bridge/out.h — writing JSON straight into a buffer. The first failure (the buffer's maximum)
 * sticks, so a writer is a list of calls and one check at the end. Commas and colons are the
 * caller's: out_z(o, "{\"total\":"), out_int(o, n), out_z(o, "}").
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

struct out {
    struct buf b;
    struct err e;
    int r; /* 0, or the first failure, which is in e */
};

void out_init(struct out *o, size_t max);
void out_done(struct out *o); /* after out_take too; for AUTO(out_done) */

void out_raw(struct out *o, struct str s); /* as it is */
void out_str(struct out *o, struct str s); /* a JSON string; {NULL, 0} prints null */
void out_int(struct out *o, long long v);
void out_bool(struct out *o, bool v);
void out_real(struct out *o, double v);   /* two decimals as Python prints round(v, 2) */
void out_time(struct out *o, int64_t us); /* a naive stamp as a string; 0 prints null */
void out_comma(struct out *o, size_t i);  /* "," unless i is 0 */

/* The text, terminated, handed to the arena without a copy. */
int out_take(struct out *o, struct arena *a, struct str *ret, struct err *e) MUST_CHECK;

/* The text so far; valid until the next call. */
struct str out_text(const struct out *o);

/* As it is. Inline, so that the length of a literal is known when compiling. */
static inline void out_z(struct out *o, const char *z)
{
    out_raw(o, str_of(z));
}

static inline void out_done_auto(struct out *o)
{
    out_done(o);
}
