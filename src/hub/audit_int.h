/* SPDX-License-Identifier: MIT */
/* hub/audit_int.h — what audit.c, audit_file.c and audit_line.c share. */
#pragma once

#include <pthread.h>

#include "base/secret.h"
#include "hub/audit.h"

#define AUDIT_LINE_MAX (64 * KIB) /* of one line; texts in it are cut before */
#define AUDIT_HASH     (2 * SECRET_KEY)
#define AUDIT_TAIL     (AUDIT_HASH + 11) /* ,"hash":"…"} */

/* The file and its chain. Belongs to the thread that writes once that has been started. */
struct audit_file {
    char *path;
    int fd;
    long long size, max, keep;
    char last[AUDIT_HASH + 1]; /* hash of the line before */
};

/* Open for appending, find the end of the chain, and mend a line that was cut off. Blocking. */
int audit_file_open(struct audit_file *f, struct err *e) MUST_CHECK;
/* Chain and write lines, each a JSON object without its last brace and ended by \n. Blocking. On an
 * error the lines that were not written are not in the chain; *ret_done says how many were. */
int audit_file_write(struct audit_file *f, struct str lines, size_t *ret_done, struct err *e)
    MUST_CHECK;
void audit_file_close(struct audit_file *f);

/* `{"ts":"…","event":"…"` and what else the line has, without the last brace, and \n. */
int audit_line_write(const struct audit_line *line, struct buf *b, struct err *e) MUST_CHECK;
/* The same for lines of the log's own: extra is `,"key":value` or "". */
int audit_line_own(const char *event, const char *extra, struct buf *b, struct err *e) MUST_CHECK;

struct hub *audit_hub(struct audit *a);
