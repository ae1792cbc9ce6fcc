/* SPDX-License-Identifier: MIT */
/*
 * cli/input.h — small things several commands share.
 */
#pragma once

#include <sys/types.h>

#include "cli/cli.h"

/* A whole file ("-": standard input) into the cli's arena; ERR_LIMIT past max. Blocking: nothing
 * else runs here. */
int input_read(struct cli *cli, const char *path, size_t max, struct str *ret, struct err *e)
    MUST_CHECK;

/* "removed NAME", or {"removed":"NAME"}. */
int print_removed(struct cli *cli, const char *name, struct err *e) MUST_CHECK;

/* A directory and those above it, where they are missing. Blocking. */
int make_dirs(const char *path, mode_t mode, struct err *e) MUST_CHECK;
