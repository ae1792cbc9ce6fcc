/* SPDX-License-Identifier: MIT */
/*
 * cli/json5.h — settings files that people write as JSON5, as OpenClaw's are: comments, commas at
 * the end, names without quotes, texts in single quotes. Numbers are those of JSON.
 */
#pragma once

#include "base/arena.h"
#include "base/json.h"

/* ERR_INVALID says what cannot be read. *ret belongs to the arena. */
int json5_parse(struct str text, struct arena *a, json_t **ret, struct err *e) MUST_CHECK;
