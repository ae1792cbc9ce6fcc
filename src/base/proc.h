/* SPDX-License-Identifier: MIT */
/*
 * base/proc.h — child processes: argv (never a shell), own process group, pipes, pidfd.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/fiber.h"

enum proc_stream { PROC_NULL, PROC_INHERIT, PROC_PIPE, PROC_TO_STDOUT /* stderr only */ };

struct proc_spec {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *env;  /* NULL: ours */
    const char *cwd;         /* NULL: ours */
    enum proc_stream in, out, err;
};

struct proc {
    pid_t pid;        /* also its process group */
    int pidfd;        /* readable when it has ended; -1 before and after */
    int in, out, err; /* our ends of the pipes, non-blocking, or -1 */
    int status;       /* as waitpid(2) gives it, once proc_wait returned 0: see proc_exit_code */
};

/*
 * Start, and wait the moment until the child has become the program; failing that, the error says
 * which program and why. The child dies with SIGKILL if the calling thread, which is the loop's,
 * dies first (PR_SET_PDEATHSIG).
 */
int proc_start(const struct proc_spec *spec, struct proc *ret, struct err *e) MUST_CHECK;

/* Wait for the end of the process and reap it. */
CO int proc_wait(struct proc *p, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/* Signal the whole group; nothing happens once it has been reaped. */
void proc_signal(struct proc *p, int signo);

/* SIGTERM, grace_ms, SIGKILL, reap. Works inside a cancelled fiber (it waits hard, at most
 * grace_ms). */
CO void proc_end(struct proc *p, unsigned grace_ms);

/* 0..255 of a normal exit, 128 + signal else. */
int proc_exit_code(const struct proc *p);

/* Close what is still open; the process must have been reaped. Works on a zeroed struct with pid 0.
 */
void proc_done(struct proc *p);
