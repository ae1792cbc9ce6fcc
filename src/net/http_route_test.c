/* SPDX-License-Identifier: MIT */
/* Which row a method and a path find, what is said when none does, and which tables are refused. */
#include "net/http_route.h"

#include "test.h"

static int run(struct http_req *req, struct err *e)
{
    return 0;
}

#define ROW(m, p, ...) \
    { \
        HTTP_M_##m, p, run, .need = NEED_NONE, .doc = "A route.", __VA_ARGS__ \
    }

/* clang-format off */
static const struct http_route api_rows[] = {
    ROW(GET,    "/api/things"),
    ROW(POST,   "/api/things"),
    ROW(GET,    "/api/things/{id}", .flags = ROUTE_SLASH),
    ROW(DELETE, "/api/things/{id}", .flags = ROUTE_SLASH),
    ROW(POST,   "/api/things/cleanup"),
    ROW(GET,    "/api/things/stats"),
    ROW(GET,    "/api/things/{id}/parts/{part}"),
    ROW(GET,    "/api/things/{id}/notes/{note}", .flags = ROUTE_SLASHES),
};
static const struct http_route root_rows[] = {
    ROW(GET, "/"),
    ROW(GET, "/health"),
};
/* clang-format on */

static const struct http_table api = { "/api", &dialect_fastapi, api_rows, LEN(api_rows), NULL };
static const struct http_table root = { "/", &dialect_plain, root_rows, LEN(root_rows), NULL };

TEST(paths_and_methods_find_their_rows)
{
    static const struct {
        enum http_method method;
        const char *path;
        int want;
        const char *pattern; /* or Allow, or the redirect's path */
        const char *arg0;
    } cases[] = {
        { HTTP_M_GET, "/", 0, "/", NULL },
        { HTTP_M_GET, "/health", 0, "/health", NULL },
        { HTTP_M_HEAD, "/health", 0, "/health", NULL },
        { HTTP_M_POST, "/health", HTTP_MATCH_METHOD, "GET, HEAD", NULL },
        { HTTP_M_GET, "/api/things", 0, "/api/things", NULL },
        { HTTP_M_HEAD, "/api/things", HTTP_MATCH_METHOD, "GET, POST", NULL },
        { HTTP_M_OPTIONS, "/api/things", HTTP_MATCH_METHOD, "GET, POST", NULL },
        { HTTP_M_OTHER, "/api/things/x", HTTP_MATCH_METHOD, "GET, DELETE", NULL },
        { HTTP_M_GET, "/api/things/x", 0, "/api/things/{id}", "x" },
        { HTTP_M_GET, "/api/things/stats", 0, "/api/things/stats", NULL },
        { HTTP_M_GET, "/api/things/cleanup", 0, "/api/things/{id}", "cleanup" },
        { HTTP_M_POST, "/api/things/cleanup", 0, "/api/things/cleanup", NULL },
        { HTTP_M_PUT, "/api/things/cleanup", HTTP_MATCH_METHOD, "GET, POST, DELETE", NULL },
        { HTTP_M_GET, "/api/things/a%20b", 0, "/api/things/{id}", "a b" },
        { HTTP_M_GET, "/api/things/a%2fb", 0, "/api/things/{id}", "a/b" },
        { HTTP_M_GET, "/api/things/%252f", 0, "/api/things/{id}", "%2f" },
        { HTTP_M_GET, "/api/things/\xc3\xbc", 0, "/api/things/{id}", "\xc3\xbc" },
        { HTTP_M_GET, "/%61pi/things", 0, "/api/things", NULL },
        { HTTP_M_GET, "/api/things/a/parts/b", 0, "/api/things/{id}/parts/{part}", "a" },
        { HTTP_M_GET, "/api/things/a%2fb/parts/c", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api/things/a/parts/b%2fc", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api/things/a%2fb/notes/c%2Fd", 0, "/api/things/{id}/notes/{note}", "a/b" },
        { HTTP_M_GET, "/api/things/%2f/notes/%252f", 0, "/api/things/{id}/notes/{note}", "/" },
        { HTTP_M_GET, "/api/things//notes/c", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api%2fthings", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "//api/things", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api//things", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api/things/a/b", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api/thing", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/nothing", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "*", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api/things/", HTTP_MATCH_SLASH, "/api/things", NULL },
        { HTTP_M_PUT, "/api/things/", HTTP_MATCH_SLASH, "/api/things", NULL },
        { HTTP_M_GET, "/api/things/x/", HTTP_MATCH_SLASH, "/api/things/x", NULL },
        { HTTP_M_GET, "/api/things//", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/health/", HTTP_MATCH_NONE, NULL, NULL },
        { HTTP_M_GET, "/api/things/%", HTTP_MATCH_BAD, NULL, NULL },
        { HTTP_M_GET, "/api/things/%zz", HTTP_MATCH_BAD, NULL, NULL },
        { HTTP_M_GET, "/api/things/%00", HTTP_MATCH_BAD, NULL, NULL },
        { HTTP_M_GET, "/api/things/%ff", HTTP_MATCH_BAD, NULL, NULL },
        { HTTP_M_GET, "/api/things/\xc0\xaf", HTTP_MATCH_BAD, NULL, NULL },
    };
    const struct http_table *const tables[] = { &root, &api };
    struct http_router *router;
    struct err e;

    CHECK_INT(http_router_new(tables, LEN(tables), &router, &e), 0);
    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct http_match m = { 0 };
        int r = http_router_match(router, cases[i].method, str_of(cases[i].path), &a, &m);

        if (r != cases[i].want)
            CHECK_FAIL("%s: %d, want %d", cases[i].path, r, cases[i].want);
        if (r == 0)
            CHECK_STR(m.route->path, cases[i].pattern);
        if (r == HTTP_MATCH_METHOD)
            CHECK_STR(m.allow, cases[i].pattern);
        if (r == HTTP_MATCH_SLASH)
            CHECK(str_eq_z(m.redirect, cases[i].pattern));
        if (cases[i].arg0)
            CHECK_STR(m.args[0].p, cases[i].arg0);
        arena_done(&a);
    }
    http_router_free(router);
}

TEST(the_longest_prefix_lends_its_dialect)
{
    static const struct {
        const char *path;
        const struct http_table *table;
    } cases[] = {
        { "/api/nothing", &api }, { "/api", &api },   { "/apix", &root },
        { "/nothing", &root },    { "//api", &root },
    };
    const struct http_table *const tables[] = { &api, &root };
    struct http_router *router;
    struct err e;

    CHECK_INT(http_router_new(tables, LEN(tables), &router, &e), 0);
    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct http_match m = { 0 };

        CHECK_INT(http_router_match(router, HTTP_M_GET, str_of(cases[i].path), &a, &m),
                  HTTP_MATCH_NONE);
        CHECK(m.table == cases[i].table);
        arena_done(&a);
    }
    http_router_free(router);
}

TEST(express_takes_any_case_and_one_slash_too_many)
{
    static const struct http_route rows[] = {
        ROW(POST, "/messages"),
        ROW(GET, "/workflows/{id}"),
    };
    static const struct {
        enum http_method method;
        const char *path;
        int want;
        const char *arg;
    } cases[] = {
        { HTTP_M_POST, "/messages", 0, NULL },
        { HTTP_M_POST, "/MesSages", 0, NULL },
        { HTTP_M_POST, "/messages/", 0, NULL },
        { HTTP_M_POST, "/MESSAGES/", 0, NULL },
        { HTTP_M_POST, "/messages//", HTTP_MATCH_NONE, NULL },
        { HTTP_M_POST, "//messages", HTTP_MATCH_NONE, NULL },
        { HTTP_M_POST, "/messages/x", HTTP_MATCH_NONE, NULL },
        { HTTP_M_GET, "/Messages/", HTTP_MATCH_METHOD, NULL },
        { HTTP_M_GET, "/WORKFLOWS/AbC/", 0, "AbC" },
        { HTTP_M_HEAD, "/workflows/AbC", 0, "AbC" },
        { HTTP_M_GET, "/workflows/", HTTP_MATCH_NONE, NULL },
        { HTTP_M_GET, "/workflows", HTTP_MATCH_NONE, NULL },
    };
    static const struct http_table table = { "/messages", &dialect_express, rows, LEN(rows), NULL };
    const struct http_table *const tables[] = { &table, &root };
    struct http_router *router;
    struct err e;

    CHECK_INT(http_router_new(tables, LEN(tables), &router, &e), 0);
    for (size_t i = 0; i < LEN(cases); i++) {
        struct arena a = { 0 };
        struct http_match m = { 0 };
        int r = http_router_match(router, cases[i].method, str_of(cases[i].path), &a, &m);

        if (r != cases[i].want)
            CHECK_FAIL("%s: %d, want %d", cases[i].path, r, cases[i].want);
        if (cases[i].arg)
            CHECK_STR(m.args[0].p, cases[i].arg);
        if (str_eq_nocase((struct str){ cases[i].path, 9 }, STR("/messages")))
            CHECK(m.table == &table); /* its dialect speaks in any case */
        arena_done(&a);
    }
    http_router_free(router);
}

TEST(tables_with_mistakes_are_refused)
{
    static const struct http_route rows[][2] = {
        { ROW(GET, "/a"), ROW(GET, "/a") },
        { ROW(GET, "/a/{x}"), ROW(GET, "/a/{y}") },
        { ROW(GET, "/a"), { HTTP_M_GET, "/b", run, .need = NEED_NONE } },
        { ROW(GET, "/a"), { HTTP_M_GET, "/b", run, .doc = "x" } },
        { ROW(GET, "/a"), { HTTP_M_GET, "/b", NULL, .need = NEED_NONE, .doc = "x" } },
        { ROW(GET, "/a"), ROW(GET, "b") },
        { ROW(GET, "/a"), ROW(OTHER, "/b") },
        { ROW(GET, "/a"), ROW(GET, "/{a}/{b}/{c}/{d}/{e}") },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        const struct http_table table = { "/", &dialect_plain, rows[i], 2, NULL };
        const struct http_table *const tables[] = { &table };
        struct http_router *router;
        struct err e;

        CHECK_INT(http_router_new(tables, 1, &router, &e), -ERR_INTERNAL);
    }
}
