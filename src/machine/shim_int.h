/* SPDX-License-Identifier: MIT */
/*
 * machine/shim_int.h — the shim process (shim_main.c), what it runs (shim_child.c, shim_cgroup.c)
 * and what it sees of it (shim_tree.c). Nothing here waits in a fiber: the shim has no loop.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/err.h"
#include "machine/shim.h"

/* A sanitizer's shadow of the memory would count as data, terabytes of it. */
#if defined(__SANITIZE_ADDRESS__)
#define SHIM_DATA_LIMIT false
#elif defined(__has_feature)
#define SHIM_DATA_LIMIT !__has_feature(address_sanitizer)
#else
#define SHIM_DATA_LIMIT true
#endif

enum { SHIM_EXIT_CONFLICT = 3 };

/* The lines that travel; numbers are of JSON. */
#define SHIM_LINE_MAX 4096

/* --- shim_spec.c: <dir>/shim.json --- */
int shim_spec_write(const struct shim_spec *spec, struct err *e) MUST_CHECK;
/* Texts in the arena; ret->dir is the given one. */
int shim_spec_read(const char *dir, struct arena *a, struct shim_spec *ret, struct err *e)
    MUST_CHECK;
/* Write text to <dir>/name so that it is there whole or not at all (0600). sync: and stays. */
int shim_file_write(const char *dir, const char *name, struct str text, bool sync, struct err *e)
    MUST_CHECK;
/* At most max bytes of <dir>/name, in the arena. ERR_NOT_FOUND. */
int shim_file_read(const char *dir, const char *name, size_t max, struct arena *a, struct str *ret,
                   struct err *e) MUST_CHECK;

/* --- shim_child.c --- */
struct shim_child {
    pid_t pid;
    int pidfd;
    int log;            /* what it prints, non-blocking */
    const char *cgroup; /* its own, "" none: in the arena */
    bool limited;
};
int shim_child_start(const struct shim_spec *spec, struct arena *a, struct shim_child *ret,
                     struct err *e) MUST_CHECK;

/* --- shim_cgroup.c --- */
/* A cgroup of its own under one that was delegated to us; "" where there is none. */
const char *shim_cgroup_make(const struct shim_spec *spec, const char *root, struct arena *a);
int shim_cgroup_enter(const char *cgroup); /* async-signal-safe; -1 and errno */
void shim_cgroup_kill(const char *cgroup); /* everything in it, and it */

/* --- shim_loop.c --- */
/* Mount the ext4 file system in the file at to. It goes with the mount namespace. -1 and errno. */
int shim_loop_mount(int fd, const char *to);

/* --- shim_tree.c: descendants, by /proc --- */
#define SHIM_TREE_MAX 8192
struct shim_use {
    double cpu_seconds;
    long long memory; /* private pages of all, and the shared ones of the one that has most; more
                         than there are while forks share theirs */
    pid_t biggest;    /* shim_tree_trim(): the first that was killed, and what it had */
    long long biggest_memory;
    size_t n;
};
/* Of our child and all below it. */
void shim_tree_look(pid_t top, struct shim_use *ret);
/* What it really is, and SIGKILL to the largest until that is within the limit; how many. */
size_t shim_tree_trim(pid_t top, long long limit, struct shim_use *ret);
/* Limit the processes of those so many levels below top, or more; how many there were. */
size_t shim_tree_limit_pids(pid_t top, unsigned depth, long pids);
/* Signal those so many levels below top; how many there were. */
size_t shim_tree_signal(pid_t top, unsigned depth, int signo);
/* SIGKILL and reap all our descendants (we are their reaper), waiting a little. */
void shim_tree_kill(void);
