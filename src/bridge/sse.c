/* SPDX-License-Identifier: MIT */
/* bridge/sse.c — see sse.h. */
#include "bridge/sse.h"

#include <string.h>

void sse_init(struct sse *s, size_t max)
{
    *s = (struct sse){ 0 };
    buf_init(&s->line, max);
    buf_init(&s->data, max);
}

void sse_done(struct sse *s)
{
    buf_done(&s->line);
    buf_done(&s->data);
}

static int take_field(struct sse *s, struct str name, struct str value, struct err *e)
{
    int r;

    if (str_eq_z(name, "event")) {
        size_t n = value.n < sizeof(s->event) ? value.n : sizeof(s->event) - 1;

        if (n)
            memcpy(s->event, value.p, n);
        s->event[n] = '\0';
        return 0;
    }
    if (!str_eq_z(name, "data"))
        return 0;
    if (s->has_data) {
        r = buf_add(&s->data, "\n", 1, e);
        if (r < 0)
            return r;
    }
    s->has_data = true;
    return buf_add_str(&s->data, value, e);
}

CO static int end_event(struct sse *s, sse_fn *fn, void *arg, struct err *e)
{
    int r = 0;

    if (s->has_data)
        r = fn(s->event, s->data.n ? buf_str(&s->data) : STR(""), arg, e);
    buf_clear(&s->data);
    s->has_data = false;
    s->event[0] = '\0';
    return r;
}

CO static int end_line(struct sse *s, sse_fn *fn, void *arg, struct err *e)
{
    struct str rest = buf_str(&s->line), name;
    const char *colon;
    int r;

    if (!s->started && str_starts(rest, STR("\xef\xbb\xbf")))
        rest = (struct str){ rest.p + 3, rest.n - 3 };
    s->started = true;
    if (!rest.n) {
        buf_clear(&s->line); /* of a byte order mark alone */
        return end_event(s, fn, arg, e);
    }
    colon = memchr(rest.p, ':', rest.n);
    if (colon == rest.p) {
        r = 0; /* a comment */
    } else {
        name = (struct str){ rest.p, colon ? (size_t)(colon - rest.p) : rest.n };
        rest = colon ? (struct str){ colon + 1, rest.n - name.n - 1 } : STR("");
        if (rest.n && *rest.p == ' ')
            rest = (struct str){ rest.p + 1, rest.n - 1 };
        r = take_field(s, name, rest, e);
    }
    buf_clear(&s->line);
    return r;
}

CO int sse_feed(struct sse *s, struct str bytes, sse_fn *fn, void *arg, struct err *e)
{
    int r;

    while (bytes.n) {
        size_t n = 0;

        if (s->after_cr && *bytes.p == '\n') {
            bytes = (struct str){ bytes.p + 1, bytes.n - 1 };
            s->after_cr = false;
            continue;
        }
        s->after_cr = false;
        while (n < bytes.n && bytes.p[n] != '\n' && bytes.p[n] != '\r')
            n++;
        if (n) {
            r = buf_add(&s->line, bytes.p, n, e);
            if (r < 0)
                return r;
        }
        if (n < bytes.n) {
            s->after_cr = bytes.p[n] == '\r';
            n++;
            r = end_line(s, fn, arg, e);
            if (r)
                return r;
        }
        bytes = (struct str){ bytes.p + n, bytes.n - n };
    }
    return 0;
}
