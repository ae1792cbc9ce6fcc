/* SPDX-License-Identifier: MIT */
/* bridge/adapter_int.h — what the adapter files share. */
#pragma once

#include "bridge/adapter.h"

void messages_body(const struct ask *ask, struct out *o);
void openai_body(const struct ask *ask, struct out *o);
void responses_body(const struct ask *ask, struct out *o);

int messages_text(const json_t *answer, struct arena *a, struct str *ret, struct err *e);
int openai_text(const json_t *answer, struct arena *a, struct str *ret, struct err *e);
int responses_text(const json_t *answer, struct arena *a, struct str *ret, struct err *e);

/*
 * json_parse() of what an agent sends: a byte order mark in front is skipped, and what no text of
 * ours can hold (U+0000, half of a surrogate pair) is U+FFFD in it.
 */
int adapter_json(struct str text, size_t max_depth, struct arena *a, json_t **ret, struct err *e)
    MUST_CHECK;

/* The joined texts of the content blocks of one type, in the arena, and how many there were. */
struct str blocks_text(const json_t *blocks, const char *type, struct arena *a, size_t *ret_n);

/* The conversation as a JSON list of {("type",) "role", "content"}; type may be NULL. */
void turns_write(const struct ask *ask, const char *type, struct out *o);

struct str json_str(const json_t *j); /* borrowed; {NULL, 0} when not a string */
