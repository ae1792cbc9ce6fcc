/* SPDX-License-Identifier: MIT */
/*
 * net/http_route.c — rows are sorted once (longest prefix first, literals before parameters) and
 * tried in that order; a few dozen rows need no tree.
 */
#include "net/http_route.h"

#include <stdlib.h>

#include "net/url.h"

enum { SEGMENTS_MAX = 16 };

struct row {
    const struct http_route *route;
    const struct http_table *table;
    size_t order; /* of declaration */
    size_t n;
    struct str segments[SEGMENTS_MAX]; /* of the pattern */
    bool param[SEGMENTS_MAX];
};

struct http_router {
    struct row *rows;
    size_t n_rows;
    const struct http_table **tables; /* longest prefix first */
    size_t n_tables;
};

struct path { /* a request's, cut and decoded */
    struct str segments[SEGMENTS_MAX];
    bool slash[SEGMENTS_MAX]; /* its decoded text has one */
    size_t n;
};

static size_t prefix_len(const struct http_table *t)
{
    size_t n = t->prefix ? strlen(t->prefix) : 0;

    return n > 0 && t->prefix[n - 1] == '/' ? n - 1 : n;
}

/* Are two texts of paths one? */
static bool same(const struct http_dialect *dialect, struct str a, struct str b)
{
    if (a.n == 0 || b.n == 0)
        return a.n == b.n;
    return dialect->any_case ? str_eq_nocase(a, b) : str_eq(a, b);
}

static bool below_prefix(const struct http_table *t, struct str path)
{
    size_t n = prefix_len(t);

    if (path.n < n || (path.n > n && path.p[n] != '/'))
        return false;
    return same(t->dialect, (struct str){ path.p, n }, (struct str){ t->prefix, n });
}

/* Segments of "/a/b" are "a", "b"; of "/a/" they are "a", "". False: too many, or no slash first.
 */
static bool cut(struct str path, struct str *segments, size_t *ret_n)
{
    size_t n = 0;

    if (path.n == 0 || path.p[0] != '/')
        return false;
    path.p++;
    path.n--;
    for (;;) {
        const char *slash = path.n > 0 ? memchr(path.p, '/', path.n) : NULL;
        size_t len = slash ? (size_t)(slash - path.p) : path.n;

        if (n == SEGMENTS_MAX)
            return false;
        segments[n++] = (struct str){ path.p, len };
        if (!slash)
            break;
        path.p += len + 1;
        path.n -= len + 1;
    }
    *ret_n = n;
    return true;
}

static bool is_param(struct str segment)
{
    return segment.n > 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
}

static int row_init(struct row *row, const struct http_table *table, const struct http_route *route,
                    struct err *e)
{
    const char *path = route->path ? route->path : "(none)";
    size_t args = 0;

    row->route = route;
    row->table = table;
    if (!route->run || !route->doc || !route->doc[0] || route->need == 0)
        return err_set(e, ERR_INTERNAL, "route %s lacks run, doc or need", path);
    if (route->method == HTTP_M_OTHER || !cut(str_of(path), row->segments, &row->n))
        return err_set(e, ERR_INTERNAL, "route %s has no method or a bad path", path);
    for (size_t i = 0; i < row->n; i++) {
        row->param[i] = is_param(row->segments[i]);
        args += row->param[i];
    }
    if (args > HTTP_ARGS_MAX)
        return err_set(e, ERR_INTERNAL, "route %s has too many parameters", path);
    return 0;
}

static int compare_rows(const void *pa, const void *pb)
{
    const struct row *a = pa, *b = pb;
    size_t pre_a = prefix_len(a->table), pre_b = prefix_len(b->table);

    if (pre_a != pre_b)
        return pre_a > pre_b ? -1 : 1;
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (a->param[i] != b->param[i])
            return a->param[i] ? 1 : -1;
    return a->order < b->order ? -1 : 1;
}

static int compare_tables(const void *pa, const void *pb)
{
    const struct http_table *const *a = pa, *const *b = pb;
    size_t pre_a = prefix_len(*a), pre_b = prefix_len(*b);

    return pre_a == pre_b ? 0 : pre_a > pre_b ? -1 : 1;
}

static bool same_pattern(const struct row *a, const struct row *b)
{
    if (a->n != b->n || a->route->method != b->route->method)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (a->param[i] != b->param[i] || (!a->param[i] && !str_eq(a->segments[i], b->segments[i])))
            return false;
    return true;
}

static int check_unique(const struct http_router *r, struct err *e)
{
    for (size_t i = 0; i < r->n_rows; i++)
        for (size_t j = i + 1; j < r->n_rows; j++)
            if (same_pattern(&r->rows[i], &r->rows[j]))
                return err_set(e, ERR_INTERNAL, "route %s is declared twice",
                               r->rows[i].route->path);
    return 0;
}

DEFINE_AUTO(http_router_free, struct http_router *);

int http_router_new(const struct http_table *const *tables, size_t n, struct http_router **ret,
                    struct err *e)
{
    AUTO(http_router_free) struct http_router *r = xcalloc(1, sizeof(*r));
    size_t total = 0;
    int rc;

    for (size_t t = 0; t < n; t++)
        total += tables[t]->n;
    r->rows = xcalloc(total + 1, sizeof(*r->rows));
    r->tables = xcalloc(n + 1, sizeof(struct http_table *));
    for (size_t t = 0; t < n; t++) {
        if (!tables[t]->dialect)
            return err_set(e, ERR_INTERNAL, "route table '%s' has no dialect", tables[t]->prefix);
        r->tables[r->n_tables++] = tables[t];
        for (size_t i = 0; i < tables[t]->n; i++) {
            r->rows[r->n_rows].order = r->n_rows;
            rc = row_init(&r->rows[r->n_rows++], tables[t], &tables[t]->routes[i], e);
            if (rc < 0)
                return rc;
        }
    }
    qsort(r->rows, r->n_rows, sizeof(*r->rows), compare_rows);
    qsort(r->tables, r->n_tables, sizeof(struct http_table *), compare_tables);
    rc = check_unique(r, e);
    if (rc < 0)
        return rc;
    *ret = TAKE(r);
    return 0;
}

void http_router_free(struct http_router *r)
{
    if (!r)
        return;
    free(r->rows);
    free(r->tables);
    free(r);
}

/* Decode each segment once. Most have no escape and stay where they are. */
static bool decode(struct path *path, struct arena *a)
{
    for (size_t i = 0; i < path->n; i++) {
        struct str *s = &path->segments[i];
        struct err ignored;

        path->slash[i] = false;
        if (s->n == 0)
            continue;
        if (memchr(s->p, '%', s->n)) {
            if (percent_decode(*s, a, s, &ignored) < 0)
                return false;
            path->slash[i] = s->n > 0 && memchr(s->p, '/', s->n);
        }
        if (!utf8_valid(s->p, s->n))
            return false;
    }
    return true;
}

/* One empty segment too many at the end, where that does not matter? */
static bool slash_fits(const struct row *row, const struct path *path)
{
    return row->table->dialect->slash_fits && path->n == row->n + 1 &&
           path->segments[path->n - 1].n == 0;
}

static bool fits(const struct row *row, const struct path *path)
{
    if (row->n != path->n && !slash_fits(row, path))
        return false;
    for (size_t i = 0; i < row->n; i++) {
        if (!row->param[i]) {
            if (!same(row->table->dialect, row->segments[i], path->segments[i]))
                return false;
            continue;
        }
        if (path->segments[i].n == 0)
            return false;
        if (path->slash[i] && !(row->route->flags & ROUTE_SLASHES) &&
            !(i + 1 == row->n && (row->route->flags & ROUTE_SLASH)))
            return false;
    }
    return true;
}

static void take_args(const struct row *row, const struct path *path, struct arena *a,
                      struct http_match *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < row->n; i++)
        if (row->param[i])
            ret->args[n++] = arena_str(a, path->segments[i]);
}

/* "GET, HEAD, POST": every method some fitting row has, in the order of the enum. */
static const char *allow_of(const struct http_router *r, const struct path *path, struct arena *a)
{
    unsigned seen = 0;
    char *text = NULL;

    for (size_t i = 0; i < r->n_rows; i++)
        if (fits(&r->rows[i], path)) {
            seen |= 1u << r->rows[i].route->method;
            if (r->rows[i].route->method == HTTP_M_GET && r->rows[i].table->dialect->head_is_get)
                seen |= 1u << HTTP_M_HEAD;
        }
    for (int m = 0; m < HTTP_M_OTHER; m++)
        if (seen & (1u << m))
            text = arena_printf(a, "%s%s%s", text ? text : "", text ? ", " : "",
                                http_method_name((enum http_method)m));
    return text;
}

static bool method_fits(const struct row *row, enum http_method method)
{
    return row->route->method == method ||
           (method == HTTP_M_HEAD && row->route->method == HTTP_M_GET &&
            row->table->dialect->head_is_get);
}

/* The first row whose path fits, with the method when it can be had. */
static const struct row *find(const struct http_router *r, const struct path *path,
                              enum http_method method, bool *ret_method)
{
    const struct row *other = NULL;

    *ret_method = true;
    for (size_t i = 0; i < r->n_rows; i++) {
        const struct row *row = &r->rows[i];

        if (!fits(row, path))
            continue;
        if (method_fits(row, method))
            return row;
        other = other ? other : row;
    }
    *ret_method = false;
    return other;
}

static const struct http_table *table_of(const struct http_router *r, struct str path)
{
    for (size_t i = 0; i < r->n_tables; i++)
        if (below_prefix(r->tables[i], path))
            return r->tables[i];
    return NULL;
}

int http_router_match(const struct http_router *r, enum http_method method, struct str text,
                      struct arena *a, struct http_match *ret)
{
    const struct row *row;
    struct path path;
    bool method_ok;

    ret->table = table_of(r, text);
    if (!cut(text, path.segments, &path.n))
        return HTTP_MATCH_NONE;
    if (!decode(&path, a))
        return HTTP_MATCH_BAD;
    row = find(r, &path, method, &method_ok);
    if (row) {
        ret->table = row->table;
        ret->route = row->route;
        if (!method_ok) {
            ret->allow = allow_of(r, &path, a);
            return HTTP_MATCH_METHOD;
        }
        take_args(row, &path, a, ret);
        return 0;
    }
    if (path.n > 1 && path.segments[path.n - 1].n == 0) {
        path.n--;
        row = find(r, &path, method, &method_ok);
        if (row && row->table->dialect->slash_redirect) {
            ret->table = row->table;
            ret->redirect = (struct str){ text.p, text.n - 1 };
            return HTTP_MATCH_SLASH;
        }
    }
    return HTTP_MATCH_NONE;
}
