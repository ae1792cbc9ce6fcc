/* SPDX-License-Identifier: MIT */
/* cli/cmd_int.h — what commands share: paths, request bodies, cells, lists. */
#pragma once

#include "cli/cli.h"

/* "/api/v1/workflows/ID/SUFFIX", the id encoded. */
const char *workflow_path(struct cli *cli, const char *id, const char *suffix);

/* Add "name=value" to a path that may have a query already; value NULL: the path as it is. */
const char *with_query(struct cli *cli, const char *path, const char *name, const char *value);

/* The JSON of a flag, or of a word. ERR_INVALID names what. */
int parse_given(struct cli *cli, const char *text, const char *what, json_t **ret, struct err *e)
    MUST_CHECK;

/* Members of a request body; absent values leave it as it is. */
void put_text(json_t *body, const char *key, const char *value);
int put_time(json_t *body, const char *key, const char *flag, const char *value, struct err *e)
    MUST_CHECK; /* "30s" as milliseconds */
int put_int(json_t *body, const char *key, const char *flag, const char *value, struct err *e)
    MUST_CHECK;

/* POST without an answer worth showing: "DONE ID", or {"DONE":"ID"}. */
CO int post_and_say(struct cli *cli, enum http_method method, const char *path, json_t *body,
                    const char *done, const char *id, struct err *e) MUST_CHECK;

/* A cell of any JSON value: short, harmless, "-" for none. */
const char *value_text(struct cli *cli, const json_t *value);

/* A member for a cell, control characters made harmless. */
const char *cell(struct cli *cli, const json_t *object, const char *key);

/* Milliseconds since 1970 as the local time, "-" for anything else. In the arena. */
const char *time_text(struct cli *cli, const json_t *ms);

/* A list as a table: a row for each object of the array `member` in the answer to GET path, or with
 * --json the answer as it is. */
struct column {
    const char *title, *key; /* title: as table_new() takes it */
    bool json;               /* show the value as JSON text */
    bool ms;                 /* milliseconds since 1970: show the local time */
};
CO int print_list(struct cli *cli, const char *path, const char *member,
                  const struct column *columns, size_t n, struct err *e) MUST_CHECK;
