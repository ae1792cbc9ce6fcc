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

/* A time as the local one, to the second: milliseconds since 1970, or ISO 8601. "-" for anything
 * else. In the arena. */
const char *time_text(struct cli *cli, const json_t *time);

/* Seconds as people say them: "42s", "3m 10s", "5h 2m", "12d 4h". In the arena. */
const char *span_text(struct cli *cli, double seconds);

/* "2026-11-21" (UTC) or a whole ISO 8601 time, as the daemon takes it. ERR_INVALID names what. */
int time_given(struct cli *cli, const char *text, const char *what, const char **ret, struct err *e)
    MUST_CHECK;

/* A list as a table: a row for each object of the array `member` in the answer to GET path, or with
 * --json the answer as it is. A list of none says so. */
struct column {
    const char *title, *key; /* title: as table_new() takes it */
    bool json;               /* show the value as JSON text */
    bool time;               /* milliseconds since 1970, or ISO 8601: show the local time */
    const char *(*text)(struct cli *cli, const json_t *row, const char *key); /* or as this says */
};
int print_rows(struct cli *cli, const json_t *rows, const struct column *columns, size_t n,
               struct err *e) MUST_CHECK;
CO int print_list(struct cli *cli, const char *path, const char *member,
                  const struct column *columns, size_t n, struct err *e) MUST_CHECK;

/* The same for a list of pages; says on stderr when this one is full. limit: as given, or NULL. */
struct page {
    const char *limit;
    size_t otherwise; /* the daemon's own limit */
    const char *next; /* the flags that lead on: "--offset" */
};
CO int print_page(struct cli *cli, const char *path, const char *member,
                  const struct column *columns, size_t n, const struct page *page, struct err *e)
    MUST_CHECK;
