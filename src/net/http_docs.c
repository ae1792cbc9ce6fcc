/* SPDX-License-Identifier: MIT */
/*
 * net/http_docs.c — /openapi.json, and /docs: the same as a page for people, made of the rows
 * alone. It loads nothing from anywhere and has no script, and its Content-Security-Policy says so.
 */
#include <ctype.h>
#include <stdio.h>

#include "net/http_int.h"

enum { PAGE_MAX = 8 * 1024 * 1024, NESTED_MAX = 3 };

static const char page_head[] =
    "<!doctype html><html lang=en><meta charset=utf-8>"
    "<meta name=viewport content=\"width=device-width, initial-scale=1\">"
    "<title>chela: the HTTP API</title><style>"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b1f24;background:#fff}"
    "h1{font-size:1.6rem}h2{margin-top:2.5rem;font-size:1.2rem;border-bottom:1px solid #d5dae0}"
    "details{border:1px solid #d5dae0;border-radius:6px;margin:.6rem 0;padding:.5rem .8rem}"
    "summary{cursor:pointer}summary code{font-weight:600}"
    ".m{display:inline-block;min-width:4.5rem;font:600 .8rem ui-monospace,monospace;color:#0b5cad}"
    ".DELETE{color:#b42318}.POST{color:#15704a}"
    "pre{background:#f4f6f8;border-radius:6px;padding:.7rem;overflow:auto;font-size:.85rem}"
    "table{border-collapse:collapse;width:100%;font-size:.9rem}"
    "td,th{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #eceff2;"
    "vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#dfe4ea;background:#14181d}"
    "pre{background:#1e242b}details,h2{border-color:#39424d}td,th{border-color:#2a323b}"
    ".m{color:#6cb2ff}.DELETE{color:#ff8f84}.POST{color:#62d2a2}a{color:#6cb2ff}}"
    "</style><h1>chela: the HTTP API</h1>"
    "<p>Every route of this daemon. As a machine-readable document: "
    "<a href=\"/openapi.json\">openapi.json</a> (OpenAPI 3.1). Where a credential is needed, send "
    "<code>Authorization: Bearer …</code> or <code>X-Auth-Token</code>.";

/* Not inlined: an error struct for each use would make frames of 8 KiB. */
__attribute__((noinline)) static void add(struct buf *b, const char *z)
{
    struct err ignored;

    http_sure(buf_add_z(b, z, &ignored));
}

/* Text into HTML. */
static void add_text(struct buf *b, const char *z)
{
    struct err ignored;

    for (; *z; z++)
        if (*z == '<')
            add(b, "&lt;");
        else if (*z == '&')
            add(b, "&amp;");
        else if (*z == '"')
            add(b, "&quot;");
        else
            http_sure(buf_add(b, z, 1, &ignored));
}

static const char *kind_name(const struct shape_field *f)
{
    static const char *const names[] = {
        [SHAPE_STR] = "string",  [SHAPE_INT] = "integer", [SHAPE_BOOL] = "boolean",
        [SHAPE_REAL] = "number", [SHAPE_JSON] = "any",    [SHAPE_STRS] = "list of strings",
        [SHAPE_LIST] = "list",   [SHAPE_OBJ] = "object",
    };

    return f->object ? "object" : names[f->kind];
}

static void add_field(struct buf *b, const struct shape_field *f)
{
    struct err ignored;

    add(b, "<tr><td><code>");
    add_text(b, f->name);
    add(b, "</code><td>");
    add(b, kind_name(f));
    if (f->nullable)
        add(b, " or null");
    add(b, "<td>");
    if (f->required)
        add(b, "required. ");
    if (f->def) {
        add(b, "default <code>");
        add_text(b, f->def);
        add(b, "</code>. ");
    }
    if (f->min || f->max)
        http_sure(buf_printf(b, &ignored, "%lld to %lld. ", f->min, f->max));
    for (const char *const *choice = f->one_of; choice && *choice; choice++) {
        add(b, choice == f->one_of ? "one of <code>" : ", <code>");
        add_text(b, *choice);
        add(b, choice[1] ? "</code>" : "</code>. ");
    }
    if (f->doc)
        add_text(b, f->doc);
}

enum side { ASKED, ANSWERED };

/* A table of the fields, then one of each field that has fields of its own. */
static void add_fields(struct buf *b, enum side side, const char *title, const struct shape *shape,
                       unsigned depth)
{
    char below[128];

    if (!shape || depth > NESTED_MAX)
        return;
    add(b, "<h4>");
    add_text(b, title);
    add(b, "</h4><table>");
    for (size_t i = 0; i < shape->n; i++)
        if (side == ASKED || !shape->fields[i].secret)
            add_field(b, &shape->fields[i]);
    add(b, "</table>");
    for (size_t i = 0; i < shape->n; i++) {
        const struct shape_field *f = &shape->fields[i];

        if ((f->kind != SHAPE_LIST && f->kind != SHAPE_OBJ) ||
            (size_t)snprintf(below, sizeof(below), "%s: %s%s", title, f->name,
                             f->kind == SHAPE_LIST ? "[]" : "") >= sizeof(below))
            continue;
        add_fields(b, side, below, f->of, depth + 1);
    }
}

/* A value that the field would take, as JSON. */
static void add_example(struct buf *b, const struct shape_field *f)
{
    struct err ignored;

    if (f->def && f->kind != SHAPE_STR)
        add_text(b, f->def);
    else if (f->kind == SHAPE_INT || f->kind == SHAPE_REAL)
        http_sure(buf_printf(b, &ignored, "%lld", f->min > 0 ? f->min : f->max > 0 ? f->max : 1));
    else if (f->kind == SHAPE_BOOL)
        add(b, "false");
    else if (f->kind == SHAPE_STR) {
        add(b, "&quot;");
        add_text(b, f->one_of && f->one_of[0] ? f->one_of[0] : "...");
        add(b, "&quot;");
    } else
        add(b, f->kind == SHAPE_STRS || f->kind == SHAPE_LIST ? "[]" : "{}");
}

/* "/agents/{name}" as "/agents/NAME": braces mean something to curl. */
static void add_path(struct buf *b, const char *path)
{
    bool inside = false;
    struct err ignored;
    char c;

    for (; *path; path++) {
        if (*path == '{' || *path == '}') {
            inside = *path == '{';
            continue;
        }
        c = inside ? (char)toupper((unsigned char)*path) : *path;
        http_sure(buf_add(b, &c, 1, &ignored));
    }
}

static void add_curl(struct buf *b, const struct http_route *route)
{
    const char *separator = "";

    add(b, "<pre>curl");
    if (route->flags & ROUTE_STREAM)
        add(b, " -N");
    if (route->method != HTTP_M_GET && !(route->method == HTTP_M_POST && route->in)) {
        add(b, " -X ");
        add(b, http_method_name(route->method));
    }
    add(b, " http://127.0.0.1:18789");
    add_path(b, route->path);
    if (route->in) {
        add(b, " \\\n  -H 'Content-Type: application/json' \\\n  -d '{");
        for (size_t i = 0; i < route->in->n; i++) {
            if (!route->in->fields[i].required)
                continue;
            add(b, separator);
            add(b, "&quot;");
            add_text(b, route->in->fields[i].name);
            add(b, "&quot;: ");
            add_example(b, &route->in->fields[i]);
            separator = ", ";
        }
        add(b, "}'");
    }
    add(b, "</pre>");
}

static void add_need(struct buf *b, unsigned need)
{
    char names[HTTP_SCOPES_TEXT];

    if (need & NEED_NONE) {
        add(b, "Open to everybody.");
        return;
    }
    add(b, "Scope: ");
    add(b, http_scope_names(need | NEED_ADMIN, names));
    add(b, ".");
}

static void add_route(struct buf *b, const struct http_route *route)
{
    int status = route->status ? route->status : 200;
    struct err ignored;

    http_sure(buf_printf(b, &ignored, "<details><summary><span class=\"m %s\">%s</span> <code>",
                         http_method_name(route->method), http_method_name(route->method)));
    add_text(b, route->path);
    add(b, "</code> ");
    add_text(b, route->doc);
    add(b, "</summary>");
    add_fields(b, ASKED, "Query", route->query, 0);
    add_fields(b, ASKED, "Body", route->in, 0);
    add_fields(b, ANSWERED, "Answer", route->out, 0);
    if (route->flags & ROUTE_STREAM)
        add(b, "<p>May answer as a stream of events (<code>text/event-stream</code>).");
    http_sure(buf_printf(b, &ignored, "<p>Status %d %s. ", status, http_status_reason(status)));
    add_need(b, route->need);
    add_curl(b, route);
    add(b, "</details>");
}

static bool shown(const struct http_route *route)
{
    return !(route->flags & ROUTE_HIDDEN);
}

static const char *tag_of(const struct http_route *route)
{
    return route->tag ? route->tag : "other";
}

/* A section per tag, in the order in which tags first appear. */
static void add_sections(struct buf *b, const struct http_server *s)
{
    const char *done[64];
    size_t n_done = 0;

    for (size_t t = 0; t < s->n_tables; t++)
        for (size_t i = 0; i < s->tables[t]->n; i++) {
            const char *tag = tag_of(&s->tables[t]->routes[i]);
            bool known = !shown(&s->tables[t]->routes[i]) || n_done == LEN(done);

            for (size_t k = 0; k < n_done; k++)
                known = known || strcmp(done[k], tag) == 0;
            if (known)
                continue;
            done[n_done++] = tag;
            add(b, "<h2>");
            add_text(b, tag);
            add(b, "</h2>");
            for (size_t u = t; u < s->n_tables; u++)
                for (size_t j = 0; j < s->tables[u]->n; j++)
                    if (shown(&s->tables[u]->routes[j]) &&
                        strcmp(tag_of(&s->tables[u]->routes[j]), tag) == 0)
                        add_route(b, &s->tables[u]->routes[j]);
        }
}

static int docs(struct http_req *req, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };

    buf_init(&b, PAGE_MAX);
    add(&b, page_head);
    add_sections(&b, http_job_of(req)->conn->server);
    http_reply_header(req, "Content-Security-Policy",
                      "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
                      "form-action 'none'; frame-ancestors 'none'");
    http_reply_text(req, 200, "text/html; charset=utf-8", arena_str(req->arena, buf_str(&b)));
    return 0;
}

static int openapi(struct http_req *req, struct err *e)
{
    const struct http_server *s = http_job_of(req)->conn->server;
    AUTO(json_decref) json_t *doc = http_openapi(s->tables, s->n_tables, "chela", CHELA_VERSION);
    struct str text;
    int r;

    r = json_text(doc, PAGE_MAX, req->arena, &text, e);
    if (r < 0)
        return err_set(e, ERR_INTERNAL, "the OpenAPI document is over %d bytes", PAGE_MAX);
    http_reply_text(req, 200, "application/json", text);
    return 0;
}

const struct http_route http_docs_routes[] = {
    { HTTP_M_GET, "/openapi.json", openapi, .need = NEED_NONE, .tag = "system",
      .doc = "This API as an OpenAPI 3.1 document." },
    { HTTP_M_GET, "/docs", docs, .need = NEED_NONE, .tag = "system",
      .doc = "This API as a page for people." },
};
const size_t http_docs_routes_len = LEN(http_docs_routes);
