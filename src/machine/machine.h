/* SPDX-License-Identifier: MIT */
/*
 * machine/machine.h — what an agent runs in, behind one interface. A driver is a row of functions;
 * what it knows of a machine is in the machine's directory and nowhere else, so that a daemon that
 * starts anew finds it again. Who may do what in which state is hub/fleet's; a driver does what it
 * is told, and each operation may be repeated after it was cut off at any point: create makes what
 * is missing, destroy removes what is there, both say success when nothing is left to do.
 *
 * Operations run in a fiber; they wait, and end with ERR_TIMEOUT at the deadline, ERR_CANCELED when
 * cancelled, ERR_UNAVAILABLE when a program or device that is needed is missing (the text says what
 * to install), ERR_INTERNAL when the machine's own program failed (the text has its last words).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/fiber.h"
#include "base/json.h"
#include "base/str.h"

#define MACHINE_NAME_MAX 40 /* a letter, then letters, digits and hyphens: Multipass' own rule */

struct machine_host { /* what all machines of this daemon share; stays as long as the daemon */
    struct loop *loop;
    const char *dir;        /* <state>/machines: a directory for each */
    const char *images;     /* directory of images */
    const char *program;    /* chelad, absolute: `chelad --shim` */
    const char *agent;      /* chela-agent, absolute; chela-agent-static beside it where a driver
                               needs one without libraries */
    const char *hub_socket; /* unix socket of the agents' port, for sandboxes */
    unsigned ws_port;       /* the agents' port on loopback, for virtual machines */
    const char *qemu, *bwrap, *multipass; /* programs, looked up in PATH */
    const char *accel;                    /* auto, kvm, tcg */
    unsigned uid_first; /* first of the 100,000,000 user ids of sandboxes; 0: 2000000000 */
};

struct machine_spec { /* as the user gave it; texts borrowed */
    const char *name;
    unsigned cpus;
    unsigned memory_mib, disk_mib;
    const char *image; /* "": the driver's default */
    const char *const
        *allow; /* hosts it may reach besides the hub: "host", "host:port", "*.host" */
    size_t n_allow;
    const json_t *env; /* object of texts for its tasks, or NULL */
    const json_t
        *profile; /* packages, files, repositories, setup_tasks (docs/machines.md) or NULL */
    const char *agent_id, *token; /* what its agent shows the hub; token NULL: leave the old one */
    const char *type;             /* metadata of the agent */
    const char *const *capabilities;
    size_t n_capabilities;
    const char *hub_url; /* instead of the driver's own way to the hub; NULL: that */
};

enum machine_power { MACHINE_ABSENT, MACHINE_OFF, MACHINE_ON };

struct machine_look { /* what is found, not what is remembered */
    enum machine_power power;
    int64_t started_at; /* ms since 1970, or 0 */
    char address[64];   /* its IP, or "" */
    char accel[8];      /* "kvm", "tcg" or "" */
    const char *reason; /* why it is off, where that is known; in the arena */
    double cpu;         /* CPU seconds used so far, or -1 */
    int64_t memory;     /* resident bytes, or -1 */
};

/* Progress of a long operation, one short line ("booting"), for those who wait. May be NULL. */
typedef void machine_progress(const char *text, void *arg);

struct machine_job { /* of one operation */
    const struct machine_host *host;
    const struct machine_spec *spec;
    uint64_t deadline_ms;
    machine_progress *progress;
    void *arg;
};

struct machine_snapshot {
    const char *name;   /* in the arena, as comment */
    int64_t created_at; /* ms */
    int64_t bytes;
    bool memory; /* holds the running state too */
};

struct machine_driver {
    const char *name;
    const char *doc; /* one line */
    bool needs_stop; /* snapshots want a machine that is off (fleet stops and starts it) */
    /* Can it work here? Quick; ERR_UNAVAILABLE says what is missing. */
    CO int (*probe)(const struct machine_host *host, struct err *e);
    CO int (*create)(const struct machine_job *job, struct err *e); /* leaves it off */
    CO int (*start)(const struct machine_job *job, struct err *e);  /* returns once it has been
                                                                       started; the agent's hello is
                                                                       awaited by fleet */
    CO int (*stop)(const struct machine_job *job, bool force, struct err *e);
    CO int (*destroy)(const struct machine_job *job, struct err *e);
    CO int (*snapshot)(const struct machine_job *job, const char *snapshot, struct err *e);
    /* Leaves it on or off as `memory` of the snapshot says; the token in spec is the new one. */
    CO int (*restore)(const struct machine_job *job, const char *snapshot, struct err *e);
    CO int (*drop_snapshot)(const struct machine_job *job, const char *snapshot, struct err *e);
    CO int (*snapshots)(const struct machine_job *job, struct arena *a,
                        struct machine_snapshot **ret, size_t *ret_n, struct err *e);
    CO int (*look)(const struct machine_job *job, struct arena *a, struct machine_look *ret,
                   struct err *e);
    /* Wait until it ends by itself; *reason (in the arena) says how. For machines under a shim;
     * NULL: look() is asked now and then. */
    CO int (*watch)(const struct machine_job *job, struct arena *a, const char **reason,
                    struct err *e);
    /* The newest of what it printed: console, agent's log. */
    CO int (*logs)(const struct machine_job *job, size_t max, struct buf *ret, struct err *e);
    /* Names of all machines this driver finds in host->dir or by its program, for the sweep. */
    CO int (*list)(const struct machine_host *host, struct arena *a, const char ***ret,
                   size_t *ret_n, struct err *e);
    /* argv (in the arena) that runs a command inside from the host: {..., NULL} with the command's
     * words behind it; NULL: go through the agent. */
    const char **(*exec_argv)(const struct machine_job *job, struct arena *a, bool terminal);
};

extern const struct machine_driver machine_sandbox, machine_qemu, machine_multipass;
extern const struct machine_driver *const machine_drivers[];        /* ended by NULL */
const struct machine_driver *machine_driver_find(const char *name); /* NULL: none of that name */

/* ERR_INVALID says what a name must be. */
int machine_name_check(struct str name, struct err *e) MUST_CHECK;

/* "<dir>/<name>[/file]", in the arena. */
const char *machine_path(const struct machine_job *job, struct arena *a, const char *file);

/* "4G", "512M", "20480" (MiB) to MiB. ERR_INVALID. */
int machine_size_parse(struct str text, unsigned *ret_mib, struct err *e) MUST_CHECK;

/* Names of the directories in host->dir that hold this file, in the arena; for a driver's list().
 */
int machine_list_by_file(const struct machine_host *host, const char *file, struct arena *a,
                         const char ***ret, size_t *ret_n, struct err *e) MUST_CHECK;
