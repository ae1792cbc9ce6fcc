/* SPDX-License-Identifier: MIT */
/*
 * bridge/classify.h — the seven classes of errors, and what a failure belongs to. Pure.
 *
 * What is known of a failure (a status, why there is no answer) decides first; the text rules of
 * the original are the last resort, with numbers matched as whole numbers.
 */
#pragma once

#include <stdbool.h>

#include "base/str.h"
#include "net/http_client.h"

enum error_type {
    ERROR_TIMEOUT,
    ERROR_RATE_LIMIT,
    ERROR_NETWORK,
    ERROR_AUTH,
    ERROR_MODEL,
    ERROR_INTERNAL,
    ERROR_UNKNOWN,
    ERROR_TYPES,
    ERROR_NONE = ERROR_TYPES,
};

const char *error_type_name(enum error_type t); /* "rate_limit"; NULL for ERROR_NONE */
enum error_type error_type_of(struct str name); /* ERROR_NONE: no such name */

/* By a text and the name of an error's class ("ConnectionError"; may be {NULL, 0}). */
enum error_type classify_text(struct str text, struct str class_name);

/* By a status outside 200–299; body helps to tell a missing model from a missing page. */
enum error_type classify_status(int status, struct str body);

/* By why there is no answer. */
enum error_type classify_fail(enum http_fail fail);

/* By the "type" or "code" in an error object of an agent's stream, else by its text. */
enum error_type classify_named(struct str name, struct str text);

/* Is another attempt on the same agent worth while? */
bool error_retriable(enum error_type t);
