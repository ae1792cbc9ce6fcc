/* SPDX-License-Identifier: MIT */
/*
 * net/http_route.h — from method and raw path to a row of a route table. Pure.
 *
 * Paths are cut at raw slashes and then each segment is percent-decoded once, so an encoded slash
 * never moves a boundary. Where literal and "{name}" both fit, the literal wins, whatever the
 * order of the rows.
 */
#pragma once

#include "net/http.h"

struct http_router;

/*
 * Check the tables (paths well formed, documented, need set, no two rows alike) and prepare
 * matching. The tables are borrowed.
 */
int http_router_new(const struct http_table *const *tables, size_t n, struct http_router **ret,
                    struct err *e) MUST_CHECK;
void http_router_free(struct http_router *r); /* NULL is fine */

/* The result of a match; args and texts are in the arena given. */
struct http_match {
    const struct http_table
        *table; /* whose dialect speaks, also when nothing matches; may be NULL */
    const struct http_route *route;
    struct str args[HTTP_ARGS_MAX];
    const char *allow;   /* HTTP_MATCH_METHOD: methods of the path, "GET, POST" */
    struct str redirect; /* HTTP_MATCH_SLASH: the path without its last slash */
};

/* 0: *ret->route is to run. */
enum {
    HTTP_MATCH_NONE = 1,   /* 404 */
    HTTP_MATCH_METHOD = 2, /* 405 */
    HTTP_MATCH_SLASH = 3,  /* 307 */
    HTTP_MATCH_BAD = 4,    /* 400: a malformed escape, or bytes that are not UTF-8 */
};
int http_router_match(const struct http_router *r, enum http_method method, struct str path,
                      struct arena *a, struct http_match *ret);
