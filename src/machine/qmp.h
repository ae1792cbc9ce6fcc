/* SPDX-License-Identifier: MIT */
/*
 * machine/qmp.h — QEMU's monitor: a client of QMP over the machine's unix socket. One conversation
 * at a time; QEMU serves one client and lets the next one wait.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/fiber.h"
#include "base/json.h"

#define QMP_LINE_MAX (1 * MIB)

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_line { /* texts and value belong to the arena */
    enum qmp_kind kind;
    long long id;        /* of the command, or -1 */
    const char *text;    /* what an error says, the name of an event */
    const json_t *value; /* what was returned */
};

/* One line as QEMU sends it. ERR_INVALID. Pure. */
int qmp_line_parse(struct str text, struct arena *a, struct qmp_line *ret, struct err *e)
    MUST_CHECK;

struct qmp;

/* Connect and agree. ERR_UNAVAILABLE: nobody is there (yet). */
CO int qmp_open(const char *path, uint64_t deadline_ms, struct qmp **ret, struct err *e) MUST_CHECK;
void qmp_close(struct qmp *q); /* NULL is fine */

/* Run a command. args (an object or NULL) is taken; *ret (may be NULL) belongs to the arena.
 * ERR_INTERNAL: what QEMU says; ERR_UNAVAILABLE: it has gone. */
CO int qmp_call(struct qmp *q, const char *command, json_t *args, struct arena *a,
                uint64_t deadline_ms, const json_t **ret, struct err *e);

/* Run a command that starts a job (its id is put into args as "job-id") and wait for the job's end.
 * At the deadline the job is cancelled. */
CO int qmp_job(struct qmp *q, const char *command, json_t *args, uint64_t deadline_ms,
               struct err *e) MUST_CHECK;

static inline void qmp_close_auto(struct qmp **q)
{
    qmp_close(*q);
}
