/* SPDX-License-Identifier: MIT */
/*
 * base/json_int.h — between json.c, json_scan.c, json_build.c and json_write.c.
 */
#pragma once

#include "base/json.h"

/* Documents are built and freed by recursion: nesting past this could outgrow a fiber's stack. */
#define JSON_DEPTH_LIMIT 512

/*
 * Is text one JSON value nested at most max_depth deep? On -ERR_INVALID *fail says where it stops
 * being one.
 */
int json_scan(struct str text, size_t max_depth, struct json_fail *fail, struct err *e) MUST_CHECK;

/* The document of a text that json_scan has accepted, a new reference; NULL when it was not one. */
json_t *json_build(struct str text);
