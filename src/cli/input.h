/* SPDX-License-Identifier: MIT */
/*
 * cli/input.h — small things several commands share.
 */
#pragma once

#include "cli/cli.h"

/* A whole file ("-": standard input) into the cli's arena; ERR_LIMIT past max. Blocking: nothing
 * else runs here. */
int input_read(struct cli *cli, const char *path, size_t max, struct str *ret, struct err *e)
    MUST_CHECK;

/* "removed NAME", or {"removed":"NAME"}. */
int print_removed(struct cli *cli, const char *name, struct err *e) MUST_CHECK;
