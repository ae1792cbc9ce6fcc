/* SPDX-License-Identifier: MIT */
/*
 * agent/spool.h — tasks on disk: one file for each, <state>/spool/<id made safe>.json, of records
 * that are appended and never changed. A record is two lines: what is known of the task, and the
 * task itself, or its response, or nothing when that has not changed. The last whole record counts:
 * what a crash has torn behind it was never promised, and goes. So a task costs one write that
 * waits for the disk when it is accepted and one when it is done. All calls block: they are for
 * offload() and for start.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

enum spool_state { SPOOL_QUEUED, SPOOL_RUNNING, SPOOL_DONE };

struct spool;

/* Make the directory (0700) and take its lock (ERR_CONFLICT: another agent has it). */
int spool_open(const char *state_dir, struct spool **ret, struct err *e) MUST_CHECK;
void spool_close(struct spool *s); /* NULL is fine */

struct spool_entry {
    const char *id, *from;
    enum spool_state state;
    bool retry;      /* run it again when it was cut off */
    long long seq;   /* order of acceptance */
    struct str body; /* JSON text without line ends; in spool_put() "": as it is there */
    bool there;      /* spool_put(): it has a file already */
};

/* Write it; *ret_bytes is what its file takes on disk. Durable, a new file only after spool_sync().
 */
int spool_put(const struct spool *s, const struct spool_entry *entry, size_t *ret_bytes,
              struct err *e) MUST_CHECK;
int spool_sync(const struct spool *s, struct err *e) MUST_CHECK;
void spool_drop(const struct spool *s, const char *id);

/* The last body. */
int spool_body(const struct spool *s, const char *id, struct buf *ret, struct err *e) MUST_CHECK;

/*
 * Tell of each file, in order of seq; a file without a whole record of ours is set aside (.bad)
 * with a warning. entry is valid during the call; bytes: on disk.
 */
typedef int spool_found(const struct spool_entry *entry, size_t bytes, void *arg, struct err *e);
int spool_load(const struct spool *s, spool_found *fn, void *arg, struct err *e) MUST_CHECK;

/* The name of an id's file, for tests. Pure; out holds 256. */
void spool_name(const char *id, char out[256]);
