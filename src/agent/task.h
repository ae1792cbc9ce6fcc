/* SPDX-License-Identifier: MIT */
/*
 * agent/task.h — a task in the agent: a row of the table of types does it in a fiber of its own.
 * The runner (runner.c) limits how many run, remembers those it has seen, keeps results on disk
 * until the hub has said ack, and carries live output.
 */
#pragma once

#include <stdbool.h>

#include "agent/agent.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"

struct task {
    struct agent *agent;
    const char *id;
    const json_t *payload; /* the task: {taskId, type, ...}; lives as long as the task */
    const char *from;      /* who sent it */
    struct arena *arena;   /* of the task */
    bool canceled;         /* by a `cancel`: the error text says so */
    const char *error;     /* in the arena: the text of a failure where err.msg is too short */
    struct live *live;     /* its live output, see live.h; may be NULL */
};

/*
 * A type's work: 0 and *ret_result (a new reference) for {success:true, result}; an error's text is
 * task.error when that is set, else err.msg, and *ret_result may still hold what there was
 * ({stdout, stderr, exitCode, signal, timedOut, truncated}). Cancelling the fiber ends it:
 * processes are ended by their group.
 */
struct task_type {
    const char *name; /* "exec", "file:read" */
    CO int (*run)(struct task *t, json_t **ret_result, struct err *e);
    const char *doc;
};
extern const struct task_type task_types[]; /* types.c */
extern const size_t task_types_len;

/* Do what payload.type says, by the table; "Unknown task type: <type>" when it has no such row. */
CO int task_work(struct task *t, json_t **ret_result, struct err *e) MUST_CHECK;

/* Fail with a text of any length (up to 64 KiB; UTF-8): sets task.error and *e, returns -code. */
int task_fail(struct task *t, enum err_code code, struct err *e, const char *fmt, ...) PRINTF(4, 5);

/* Members of the payload; wrong types are ERR_INVALID with the member's name. */
int task_text(const struct task *t, const char *key, bool needed, const char **ret, struct err *e)
    MUST_CHECK; /* NULL: not given */
int task_int(const struct task *t, const char *key, long long min, long long max, long long def,
             long long *ret, struct err *e) MUST_CHECK;
bool task_flag(const struct task *t, const char *key);

/* --- running a program (run.c) --- */

struct run_spec {
    const char *command;     /* for /bin/sh -c; or */
    const char *const *argv; /* NULL-terminated */
    const char *shown;       /* in error texts; NULL: the command, or argv with blanks */
    const char *cwd;         /* NULL: conf.work_dir */
    const json_t *env;       /* object of texts over the agent's own, or NULL */
    long long timeout_ms;    /* 0: tasks.defaultTimeout */
    struct str input;        /* its standard input; {NULL, 0}: /dev/null */
    size_t limit;            /* bytes of each stream */
    bool live;               /* output is told as it comes */
    bool sudo;               /* sudo -n -- /bin/sh -c command; policy has been checked */
};
struct run_result {
    struct buf out, err; /* trimmed, UTF-8 (bad bytes are U+FFFD) */
    int exit_code;       /* -1: ended by a signal */
    const char *signal;  /* "SIGKILL", or NULL */
    bool timed_out, truncated;
};

/*
 * Run it in a process group of its own; input that it does not take is dropped. At the timeout, on
 * cancel and past the limit SIGTERM, 3 s later SIGKILL to the group. 0: it ran and ended with 0.
 * Otherwise an error ("Command failed: <shown>\n<stderr>", "... timed out after N ms: <shown>",
 * "stdout maxBuffer length exceeded", "cwd does not exist: ...") with *ret filled as far as it
 * came. run_done() it always.
 */
CO int run_program(struct task *t, const struct run_spec *spec, struct run_result *ret,
                   struct err *e) MUST_CHECK;
void run_done(struct run_result *r);
/* {stdout, stderr, exitCode, signal?, timedOut?, truncated?}, a new reference. */
json_t *run_json(const struct run_result *r);
/* payload.timeout, checked: a non-negative integer, else ERR_INVALID in the original's words. */
int run_timeout(const struct task *t, long long *ret, struct err *e) MUST_CHECK;
