/* SPDX-License-Identifier: MIT */
/*
 * bridge/sse.h — reading server-sent events (WHATWG HTML §9.2.6). Pure: bytes in, in pieces of any
 * size, events out. Lines end in LF, CR or CRLF; comments, id and retry are ignored.
 */
#pragma once

#include "base/buf.h"

struct sse {
    struct buf line, data;
    char event[64]; /* longer names are cut */
    bool after_cr, has_data, started;
};

/* max: bytes one event's data, or one line, may have. */
void sse_init(struct sse *s, size_t max);
void sse_done(struct sse *s);

/*
 * Take bytes and call fn for every event that they complete; event is "" without a name. A fn that
 * answers other than 0 stops, and that is the result. ERR_LIMIT past max.
 */
typedef int sse_fn(const char *event, struct str data, void *arg, struct err *e);
CO int sse_feed(struct sse *s, struct str bytes, CO sse_fn *fn, void *arg, struct err *e)
    MUST_CHECK;
