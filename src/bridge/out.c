/* SPDX-License-Identifier: MIT */
/* bridge/out.c — see out.h. */
#include "bridge/out.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/time.h"

void out_init(struct out *o, size_t max)
{
    *o = (struct out){ 0 };
    buf_init(&o->b, max);
}

void out_done(struct out *o)
{
    buf_done(&o->b);
}

void out_raw(struct out *o, struct str s)
{
    if (!o->r)
        o->r = buf_add(&o->b, s.p, s.n, &o->e);
}

void out_str(struct out *o, struct str s)
{
    if (!s.p)
        out_z(o, "null");
    else if (!o->r)
        o->r = json_write_str(&o->b, s, &o->e);
}

void out_int(struct out *o, long long v)
{
    char text[24];

    out_raw(o, (struct str){ text, (size_t)snprintf(text, sizeof(text), "%lld", v) });
}

void out_bool(struct out *o, bool v)
{
    out_z(o, v ? "true" : "false");
}

void out_real(struct out *o, double v)
{
    char text[340]; /* of the largest double in %f */
    size_t n;

    if (!isfinite(v)) {
        out_z(o, "null");
        return;
    }
    n = (size_t)snprintf(text, sizeof(text), "%.2f", v);
    if (text[n - 1] == '0')
        n--;
    out_raw(o, (struct str){ text, n });
}

void out_time(struct out *o, int64_t us)
{
    char text[TIME_TEXT];

    if (!us) {
        out_z(o, "null");
        return;
    }
    time_format_naive(us, text);
    out_str(o, str_of(text));
}

void out_comma(struct out *o, size_t i)
{
    if (i)
        out_z(o, ",");
}

struct str out_text(const struct out *o)
{
    return buf_str(&o->b);
}

int out_take(struct out *o, struct arena *a, struct str *ret, struct err *e)
{
    struct str text;

    if (!o->r)
        o->r = buf_add(&o->b, "", 1, &o->e);
    if (o->r < 0) {
        *e = o->e;
        return o->r;
    }
    text = buf_str(&o->b);
    arena_on_free(a, free, o->b.p);
    o->b.p = NULL; /* the arena's now */
    buf_init(&o->b, o->b.max);
    *ret = (struct str){ text.p, text.n - 1 };
    return 0;
}
