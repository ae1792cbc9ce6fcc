/* SPDX-License-Identifier: MIT */
/* machine/multipass_int.h — what the files of the Multipass driver share. */
#pragma once

#include "machine/machine.h"
#include "machine/tool.h"

struct multipass_info { /* texts in the arena */
    bool exists, running;
    const char *state;   /* its own word: "Running", "Stopped", … */
    const char *address; /* the first IPv4, or "" */
    int64_t memory;      /* bytes in use, or -1 */
};

/* --- multipass_say.c: its command and what it prints --- */
/* Run `multipass ARGS…`. What it printed goes to out (NULL: nowhere). */
CO int multipass_do(const struct machine_job *job, const char *const *args, struct str input,
                    struct buf *out, struct err *e) MUST_CHECK;
CO int multipass_info(const struct machine_job *job, struct arena *a, struct multipass_info *ret,
                      struct err *e) MUST_CHECK;
/* `info --format json` and `list --snapshots --format json`. Pure. */
int multipass_info_parse(struct str text, const char *name, struct arena *a,
                         struct multipass_info *ret, struct err *e) MUST_CHECK;
int multipass_snapshots_parse(struct str text, const char *name, struct arena *a,
                              struct machine_snapshot **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;

/* --- multipass_guest.c: what is put into an instance --- */
struct str multipass_user_data(struct arena *a);
/* Into an instance that runs: the agent, its configuration with the token of spec, its unit. It is
 * started, and started anew when it ran. */
CO int multipass_provision(const struct machine_job *job, struct err *e) MUST_CHECK;
