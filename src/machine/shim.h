/* SPDX-License-Identifier: MIT */
/*
 * machine/shim.h — a small process that owns one child so that the child outlives the daemon:
 * its pid (pidfd), its log pipe and a control socket. `chelad --shim` is this program; the daemon
 * is its client. A daemon that starts anew adopts children by their sockets.
 *
 *   <dir>/shim.json   what to run, written before the shim is started (0600)
 *   <dir>/shim.sock   control: one JSON object per line, in and out
 *   <dir>/log, log.1  what the child printed, rotated at SHIM_LOG_MAX
 *   <dir>/exit.json   how it ended, written (fsync, rename) before the shim leaves
 *
 * The shim is in a session of its own, dies with nobody, holds <dir>/shim.lock so that there is one
 * per directory, and ends the whole process group of its child with it.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fiber.h"

#define SHIM_LOG_MAX (4 * MIB)
#define SHIM_IMAGE   ".img" /* so ends what is staged by mounting the ext4 file system in it */
#define SHIM_STAGING "/tmp" /* in the child's own mount namespace */

struct shim_spec {
    const char *dir;         /* exists, 0700 */
    const char *const *argv; /* NULL-terminated */
    const char *const *env;  /* NULL: PATH, HOME and LANG of ours and nothing else */
    const char *cwd;         /* NULL: dir */
    /* Limits, 0: none. By cgroup v2 where delegated. Elsewhere (limited is false then): memory by
     * RLIMIT_DATA of each process and by a look every second at the sum of all, past which the
     * largest is killed; pids by RLIMIT_NPROC, if uid is set or (stop_depth) the child makes a
     * user namespace; cpus by affinity. */
    long memory_mib, pids, cpus;
    unsigned uid;               /* run as this user and group, and no other group; 0: as we do */
    const char *const *files;   /* NULL-terminated: opened for reading, the child's descriptors
                                   3, 4, ...; NULL: none */
    const char *const *staging; /* NULL-terminated, needs uid: what uid cannot reach by its path is
                                   mounted for the child as SHIM_STAGING "/0", "/1", ...; or NULL */
    unsigned stop_depth; /* 0: SIGTERM of shim_stop() goes to the child's group; else to those so
                            many levels below the child: 2 is what bubblewrap's init runs */
};

struct shim_state {
    bool alive;         /* the shim answers and its child runs */
    pid_t pid;          /* of the child */
    int64_t started_at; /* ms since 1970 */
    int status;         /* as waitpid(2) gives it, of a child that has ended; -1: not known (the
                           machine itself went down) */
    int64_t ended_at;
    double cpu_seconds; /* of the child and what it has reaped, or -1 */
    long long memory;   /* resident bytes of the whole group, or -1 */
    bool limited;       /* limits are enforced by a cgroup */
};

/* `chelad --shim DIR`: goes to the background and stays until the child has ended; the process that
 * was started returns when the child has become its program: 0, or 1 or 3 (another shim is there)
 * with the reason on standard error. The exit status of either. Blocking; no loop needed. */
int shim_main(const char *dir);

/* Start a shim for spec and wait until its child has become the program. ERR_CONFLICT: one runs
 * there. program: chelad, absolute. */
CO int shim_start(struct loop *loop, const char *program, const struct shim_spec *spec,
                  uint64_t deadline_ms, struct err *e) MUST_CHECK;
CO int shim_look(struct loop *loop, const char *dir, struct shim_state *ret, struct err *e)
    MUST_CHECK;
CO int shim_signal(struct loop *loop, const char *dir, int signo, struct err *e) MUST_CHECK;
/* SIGTERM to the group, after grace_ms SIGKILL; returns when the child is reaped and the shim gone.
 * 0 also when nothing ran. */
CO int shim_stop(struct loop *loop, const char *dir, unsigned grace_ms, uint64_t deadline_ms,
                 struct err *e) MUST_CHECK;
/* Wait until the child has ended (noticed at once: the socket's other end says so). */
CO int shim_wait(struct loop *loop, const char *dir, uint64_t deadline_ms, struct shim_state *ret,
                 struct err *e) MUST_CHECK;
/* Is a loop device still bound to the file? That of an image is let go a moment after the last
 * process of its namespace has ended; until then its file may change. */
bool shim_image_busy(const char *path);
/* The newest max bytes of the log. */
int shim_log(const char *dir, size_t max, struct buf *ret, struct err *e) MUST_CHECK;
