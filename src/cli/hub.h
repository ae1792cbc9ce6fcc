/* SPDX-License-Identifier: MIT */
/*
 * cli/hub.h — what `chela machine|task|hub` and `vm-agent` do, each once; the two differ in how
 * they are called and in what they say (cli->vm).
 *
 * Functions that return an int end like a command: 0 or an exit status, <0 an error.
 */
#pragma once

#include "cli/cmd_int.h"

enum { CLI_TIMEOUT = 124 };

/* The arena lives as long as the command: what a loop asks again and again goes into one that is
 * freed each time. Returns what to give back. */
struct arena scratch_begin(struct cli *cli);
void scratch_end(struct cli *cli, struct arena kept);

/* --- progress.c: what is going on, on stderr --- */

/*
 * vm-agent: "- text" (a line that is drawn anew on a terminal), then "✔ text", "✖ text" or
 * "⚠ text". chela: the same text without marks, the end is left to the command's result.
 */
struct progress {
    struct cli *cli;
    char *last;
    bool terminal;
};
void progress_start(struct progress *p, struct cli *cli, const char *fmt, ...) PRINTF(3, 4);
void progress_step(struct progress *p, const char *fmt, ...) PRINTF(2, 3); /* said once */
void progress_done(struct progress *p, const char *fmt, ...) PRINTF(2, 3);
void progress_fail(struct progress *p, const char *fmt, ...) PRINTF(2, 3);
void progress_warn(struct progress *p, const char *fmt, ...) PRINTF(2, 3);
void progress_end(struct progress *p); /* without a word; safe to repeat */

static inline void progress_end_auto(struct progress *p)
{
    progress_end(p);
}

/* --- paths --- */

const char *agent_path(struct cli *cli, const char *id, const char *suffix);     /* /agents/ID… */
const char *machine_path(struct cli *cli, const char *name, const char *suffix); /* /machines/… */
const char *task_path(struct cli *cli, const char *id, const char *suffix);      /* /tasks/ID… */

/* An answer of 404 becomes 0 with *ret NULL. */
CO int hub_get(struct cli *cli, const char *path, json_t **ret, struct err *e) MUST_CHECK;

/* --- watched.c --- */

/*
 * fn in a fiber that SIGINT and SIGTERM cancel: what it returned. Where they did, it is
 * -ERR_CANCELED and cli->interrupted is set (exit status 130); a second one ends the program.
 */
typedef int watched_fn(struct cli *cli, void *arg, struct err *e);
CO int watched(struct cli *cli, CO watched_fn *fn, void *arg, struct err *e) MUST_CHECK;

/* After an interrupt: how the machine is, and what removes it. Always -ERR_CANCELED. */
CO int machine_interrupted(struct cli *cli, const char *name, struct err *e) MUST_CHECK;

/* --- machine.c --- */

/* The machine of that name, or *ret NULL: there is none (there may be an agent of that name). */
CO int machine_ask(struct cli *cli, const char *name, json_t **ret, struct err *e) MUST_CHECK;

/* Is an operation under way? */
bool machine_busy(const json_t *machine);

/* Why the last one failed; NULL: it did not. */
const char *machine_reason(const json_t *machine);

/* Wait until no operation is; *ret NULL: it is gone. What its progress says goes to p. */
CO int machine_settle(struct cli *cli, const char *name, struct progress *p, json_t **ret,
                      struct err *e) MUST_CHECK;

/*
 * Begin an operation (POST /machines/NAME/verb, or DELETE /machines/NAME without a verb) and see it
 * through; an operation that failed is an error with its reason. body's reference is taken; it may
 * be NULL.
 */
CO int machine_do(struct cli *cli, const char *name, const char *verb, json_t *body,
                  struct progress *p, json_t **ret, struct err *e) MUST_CHECK;

/* Wait until the hub says that the agent is online. ERR_TIMEOUT. */
CO int agent_await(struct cli *cli, const char *name, long long ms, struct err *e) MUST_CHECK;

struct create_opts {
    const char *name, *driver, *type, *cpus, *memory, *disk, *image, *capabilities, *allow;
    const char *hub_url, *profile, *env; /* env: "K=V,K=V" */
};
/* create.c */
CO int machine_create(struct cli *cli, const struct create_opts *o, struct err *e) MUST_CHECK;
CO int machine_destroy(struct cli *cli, const char *name, bool force, struct err *e) MUST_CHECK;

/* "Are you sure…? (y/N)": 1 yes, 0 no; -ERR_CANCELED at the end of input. */
int confirm(const char *question, struct err *e) MUST_CHECK;

/* --- exec.c --- */

/* A task, and what came of it: *ret is the TaskRecord once it has ended. body's reference is taken.
 * Failures of the task itself are in the record. */
CO int task_run(struct cli *cli, const char *agent, json_t *body, json_t **ret, struct err *e)
    MUST_CHECK;
/* The same; a task that failed is an error in the agent's words. *ret: response.result. */
CO int task_result(struct cli *cli, const char *agent, json_t *body, json_t **ret, struct err *e)
    MUST_CHECK;
/* Wait for a task, at most ms (0: for ever); *ret NULL: it has not ended. */
CO int task_await(struct cli *cli, const char *id, long long ms, json_t **ret, struct err *e)
    MUST_CHECK;
bool task_ended(const json_t *record);
/* What ended tasks mean to a shell: the command's exit status, 128 + signal, 124 or 1. */
int task_exit_status(const json_t *record);
const char *task_error(struct cli *cli, const json_t *record);

/* Show the output of a task as it comes, until it ends. Ctrl-C cancels the task. */
CO int task_follow(struct cli *cli, const char *id, long long give_up_ms, json_t **ret,
                   struct err *e) MUST_CHECK;

struct exec_opts {
    const char *name, *cwd;
    const char *const *words;
    size_t n_words;
    bool sudo;
    bool input;           /* it may read our standard input */
    long long timeout_ms; /* 0: the hub's default */
};
/* Run a command in a machine, its output as it comes; the command's exit status. */
CO int machine_exec(struct cli *cli, const struct exec_opts *o, struct err *e) MUST_CHECK;
CO int machine_logs(struct cli *cli, const char *name, const char *lines, bool follow,
                    struct err *e) MUST_CHECK;

/* words joined by blanks, in the arena. */
const char *join_words(struct cli *cli, const char *const *words, size_t n);
/* A text as one word of /bin/sh, in the arena. */
const char *shell_word(struct cli *cli, const char *text);

/* --- stdin.c --- */

/* Our standard input, if there is any, as the task's. ERR_UNAVAILABLE: the agent takes none.
 * ERR_LIMIT: over 10 MiB. */
CO int stdin_give(struct cli *cli, const char *agent, json_t *task, struct err *e) MUST_CHECK;

/* --- host.c: programs on this host, for machines that are entered from it --- */

/*
 * The machine's `exec` and more words, run here with our terminal; audited before and after.
 * Returns its exit status.
 */
CO int host_run(struct cli *cli, const json_t *machine, const char *event, const char *command,
                const char *const *more, long long timeout_ms, struct err *e) MUST_CHECK;

/* --- shell.c --- */

/* A terminal in the machine; ends with the shell's exit status. command NULL: a login shell. */
CO int machine_shell(struct cli *cli, const char *name, const char *command, struct err *e)
    MUST_CHECK;

/* --- cp.c --- */

/* Files and directories, NAME:PATH on one side. */
CO int machine_copy(struct cli *cli, const char *from, const char *to, struct err *e) MUST_CHECK;

/* --- profile.c --- */

/* A profile by name (the user's own win over those that come with the program) or file. */
int profile_load(struct cli *cli, const char *name, json_t **ret, struct err *e) MUST_CHECK;
/* Packages, files, repositories and set-up tasks, through tasks; failures are told, and counted in
 * *ret_failed. */
CO int profile_apply(struct cli *cli, const char *agent, const json_t *profile, size_t *ret_failed,
                     struct err *e) MUST_CHECK;
int profile_list(struct cli *cli, struct err *e) MUST_CHECK;
int profile_show(struct cli *cli, const char *name, struct err *e) MUST_CHECK;
struct profile_opts {
    const char *name, *from_file, *description, *cpu, *memory, *disk;
    bool force;
};
int profile_create(struct cli *cli, const struct profile_opts *o, struct err *e) MUST_CHECK;
int profile_delete(struct cli *cli, const char *name, bool force, struct err *e) MUST_CHECK;

/* name → text, ended by NULL (profile_builtin.c). */
struct profile_builtin {
    const char *name, *text;
};
extern const struct profile_builtin profile_builtins[];

/* --- look.c --- */

CO int events_show(struct cli *cli, struct err *e) MUST_CHECK;
CO int agents_top(struct cli *cli, long long every_ms, bool once, struct err *e) MUST_CHECK;
CO int agent_drain(struct cli *cli, const char *name, bool on, struct err *e) MUST_CHECK;
/* "12.3%", or none. In the arena. */
const char *percent_text(struct cli *cli, const json_t *value, const char *none);
const char *uptime_text(struct cli *cli, const json_t *health); /* "3h 2m", "5m", "N/A" */

/* --- install.c --- */

/* `hub install`, of chela and of vm-agent: both list the flags user, system, launchd, dir, print in
 * this order. Does not wait. */
int hub_install(struct cli *cli, const struct args *args, struct err *e) MUST_CHECK;
