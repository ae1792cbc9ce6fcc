/* SPDX-License-Identifier: MIT */
/*
 * bridge/export.h — sessions as the file of the original:
 *
 *     {"exported_at": stamp, "total_sessions": N, "sessions": {"<id>": {the session}, ...}}
 *
 * indented by two, non-ASCII escaped. One more key than the original's: "interrupted": true on a
 * question whose turn never ended.
 */
#pragma once

#include <stdio.h>

#include "bridge/bridge_calls.h"

struct export
{
    FILE *body;     /* a temporary file without a name: what stands between head and tail */
    char head[128]; /* to be written before it */
    const char *tail;
    long long n;
};

/* One snapshot of all sessions. */
CO int export_open(struct bridge *b, struct export *ret, struct err *e) MUST_CHECK;
void export_close(struct export *x);

/* Into a file of mode 0600, by a temporary one beside it and a rename. */
CO int export_to_file(struct bridge *b, const char *path, long long *ret_n, struct err *e)
    MUST_CHECK;

/*
 * Read such a file: everything is checked first, then all sessions go in, in one transaction, in
 * place of those of the same ids. ERR_INVALID with a text that names the place.
 */
CO int import_text(struct bridge *b, struct str text, long long *ret_n, struct err *e) MUST_CHECK;
