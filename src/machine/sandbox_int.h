/* SPDX-License-Identifier: MIT */
/*
 * machine/sandbox_int.h — a sandbox's directory, and the files that make it up.
 *
 *   sandbox.json    {"uid", "image"}: written first; what has none is no sandbox
 *   disk.img        its disk as an ext4 image, where loop devices can be had; else
 *   tree/           the same as directories: home, work, tmp, var
 *   etc/            what differs of its /etc; etc/vm-agent/config.json holds the token
 *   run/            /run/chela: hub.sock (a link to the agents' socket) and egress.sock
 *   seccomp.bpf     the filter
 *   snapshots/NAME/ a copy of disk.img or of tree/
 */
#pragma once

#include "machine/machine.h"

#define SANDBOX_UID_FIRST 2000000000U /* of the range, when none is set */
#define SANDBOX_UIDS      100000000U
#define SANDBOX_PIDS      1024
/* Of those that name none. A disk's image takes what is in it, not its size. */
#define SANDBOX_MEMORY_MIB 2048
#define SANDBOX_DISK_MIB   8192
#define SANDBOX_SHM        "67108864"

struct sandbox {
    unsigned uid; /* 0: ours */
    bool image;
};

/* 0, or ERR_NOT_FOUND: there is no such sandbox. */
int sandbox_load(const struct machine_job *job, struct arena *a, struct sandbox *ret, struct err *e)
    MUST_CHECK;

/* --- sandbox_files.c: all that create makes but the disk; each file whole or not at all --- */
int sandbox_make(const struct machine_job *job, struct arena *a, struct sandbox *ret, struct err *e)
    MUST_CHECK;
/* The agent's config; token NULL in the spec: that of the one before. */
int sandbox_config_write(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                         struct err *e) MUST_CHECK;
/* run/hub.sock is the agents' socket, also after that was made anew. */
int sandbox_link_hub(const struct machine_job *job, struct arena *a, struct err *e) MUST_CHECK;

/* --- sandbox_disk.c --- */
bool sandbox_can_image(void); /* root, loop devices and mkfs.ext4 */
CO int sandbox_disk_make(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                         struct err *e) MUST_CHECK;
/* Wait until what was mounted has been let go. */
CO int sandbox_disk_settle(const struct machine_job *job, struct arena *a, struct err *e)
    MUST_CHECK;
CO int sandbox_snapshot(const struct machine_job *job, const char *snapshot, struct err *e);
CO int sandbox_restore(const struct machine_job *job, const char *snapshot, struct err *e);
CO int sandbox_drop_snapshot(const struct machine_job *job, const char *snapshot, struct err *e);
CO int sandbox_snapshots(const struct machine_job *job, struct arena *a,
                         struct machine_snapshot **ret, size_t *ret_n, struct err *e);
/* Over its disk? Only trees can be: bytes used, or 0 while it is within. */
CO int sandbox_disk_over(const struct machine_job *job, const struct sandbox *s, long long *ret,
                         struct err *e) MUST_CHECK;
/* Run a program to its end; not 0: its last words. */
CO int sandbox_tool(const char *const *argv, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/* --- sandbox_argv.c --- */
struct shim_spec;
/* The whole order to the shim, in the arena. */
void sandbox_order(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                   struct shim_spec *ret);

/* --- sandbox_seccomp.c --- */
/* Write the filter to a file. affinity: the CPUs are chosen for it and stay so. */
int sandbox_seccomp_write(const char *path, struct err *e) MUST_CHECK;
