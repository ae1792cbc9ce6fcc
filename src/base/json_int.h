/* SPDX-License-Identifier: MIT */
/*
 * base/json_int.h — between json.c, json_scan.c and json_write.c.
 */
#pragma once

#include "base/json.h"

/* jansson parses and frees by recursion: nesting past this could outgrow a fiber's stack. */
#define JSON_DEPTH_LIMIT 512

/*
 * Is text one JSON value nested at most max_depth deep? On -ERR_INVALID *fail says where it stops
 * being one. *ret_big counts integer literals that do not fit 64 bits.
 */
int json_scan(struct str text, size_t max_depth, size_t *ret_big, struct json_fail *fail,
              struct err *e) MUST_CHECK;

/* A copy of a scanned text in which its n_big too big integers are written as reals ("1…0.0"). */
struct str json_widen(struct str text, size_t n_big, struct arena *a);
