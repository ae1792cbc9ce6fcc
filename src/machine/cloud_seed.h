/* SPDX-License-Identifier: MIT */
/*
 * machine/cloud_seed.h — the disk that makes a cloud image ours (cloud-init's NoCloud): an ISO 9660
 * file system labelled "cidata" with user-data, meta-data, network-config and the agent's program.
 * It holds no secret: the agent's token is on the seed disk beside it (serial "chela-seed").
 */
#pragma once

#include "machine/machine.h"

struct seed_file {
    const char *name; /* at most 30 bytes */
    struct str bytes;
};

/* An ISO 9660 image with these files in its root; names as they are (Linux reads them in lower
 * case). ERR_LIMIT past the buffer's bound. Pure. */
int iso_write(const char *label, const struct seed_file *files, size_t n, struct buf *ret,
              struct err *e) MUST_CHECK;

/* user-data as cloud-init reads it, in the arena. Pure. */
int cloud_user_data(const struct machine_spec *spec, struct arena *a, struct str *ret,
                    struct err *e) MUST_CHECK;

/* Write the whole disk to path (0600), on another thread. */
CO int cloud_seed_write(const struct machine_job *job, const char *path, struct err *e) MUST_CHECK;
