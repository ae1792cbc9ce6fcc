/* SPDX-License-Identifier: MIT */
/*
 * hub/audit.h — <state>/audit.log: one JSON line for each thing that was done, append-only and
 * hash-chained: each line ends with "hash", the SHA-256 (hex) of the hash of the line before it
 * (64 zeros for the first) followed by the line's bytes up to `,"hash"`. The log is rotated at
 * hub.audit_max; the first line of the next file, "audit.continued", says in "previous" where the
 * chain was. A line that a crash has cut off is followed by "audit.torn" with its "bytes" and, as
 * "previous", the hash of the line before it; "audit.missed" says how many could not be written.
 * `chela audit verify` reads it back.
 *
 * Lines are queued here (bounded; past the bound the caller waits) and written by a thread
 * in batches; an audited act is not acknowledged to its caller before audit_flush().
 */
#pragma once

#include "hub/hub_int.h"

struct audit_line {    /* what is NULL or 0 is left out */
    const char *event; /* "task.received", "task.finished", "agent.registered",
                          "agent.deregistered", "agent.connected", "auth.failed",
                          "machine.created" ... */
    struct str agent, task, type;
    struct str from;        /* who: an identity's name, or an agent */
    const char *peer;       /* address */
    const json_t *body;     /* of a task: command, filePath, repo, cwd and sudo are taken from it;
                               values of env never */
    const json_t *response; /* of a task's end: exitCode, signal, success, duration */
    const char *reason;
    unsigned long long count; /* of more than one that this line stands for */
};

int audit_new(struct hub *h, struct audit **ret, struct err *e) MUST_CHECK;
CO int audit_start(struct audit *a, struct err *e) MUST_CHECK; /* reads the end of the file: a line
                                                                  cut off by a crash is completed
                                                                  by a mark, the chain goes on */
CO void audit_stop(struct audit *a);
void audit_free(struct audit *a);

/* Add a line; copies. Never waits: what cannot be taken is counted and said in the next line. */
void audit(struct hub *h, const struct audit_line *line);

/* Somebody was refused ("auth.failed"): few lines of them in a while, a count of the rest. */
void audit_refused(struct hub *h, struct str agent, const char *peer);

/* Wait until all that was added has been written to the file (not fsynced). */
CO void audit_flush(struct hub *h);

/* GET and POST /admin/audit; room: struct audit. */
extern const struct http_route audit_routes[];
extern const size_t audit_routes_len;
