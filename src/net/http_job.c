/* SPDX-License-Identifier: MIT */
/*
 * net/http_job.c — one request's memory and the decisions taken on its head, before a byte of its
 * body is wanted: is the Host ours, which route is it, may the body be that large?
 */
#include <stdlib.h>

#include "net/http_int.h"
#include "net/ws_int.h"

static void buf_reuse(struct buf *b, size_t keep)
{
    if (b->cap > keep)
        buf_done(b);
    else
        buf_clear(b);
}

/* Everything but the read buffer and what it holds. */
static void forget(struct http_job *job)
{
    arena_reset(&job->arena);
    buf_reuse(&job->out_head, HTTP_OUT_KEEP);
    buf_reuse(&job->out_body, HTTP_OUT_KEEP);
    job->req = (struct http_req){ .arena = &job->arena, .server_private = job };
    job->head = (struct http_head){ 0 };
    job->chunk = (struct http_chunk){ 0 };
    job->dialect = NULL;
    job->table = NULL;
    job->scanned = job->consumed = job->dropped = job->sent = 0;
    job->body_left = job->begin_us = 0;
    job->blank = 0;
    job->body_max = 0;
    job->out_text = (struct str){ 0 };
    job->drop = job->canceled = job->timed_out = job->close = job->linger = false;
    job->begun = job->chunked = job->broken = false;
}

struct http_job *http_job_take(struct http_server *s, struct http_conn *c)
{
    struct http_job *job = s->pool;

    if (job) {
        s->pool = job->next;
        s->n_pool--;
    } else {
        job = xcalloc(1, sizeof(*job));
        job->in_cap = HTTP_IN_FIRST;
        job->in = xmalloc(job->in_cap);
        forget(job);
    }
    job->conn = c;
    return job;
}

void http_job_free(struct http_job *job)
{
    arena_done(&job->arena);
    buf_done(&job->body);
    buf_done(&job->out_head);
    buf_done(&job->out_body);
    free(job->in);
    free(job);
}

bool http_job_room(struct http_job *job, size_t want, size_t max)
{
    size_t cap = job->in_cap;

    if (job->in_cap - job->in_n >= want)
        return true;
    while (cap - job->in_n < want)
        cap *= 2;
    if (cap > max)
        cap = max;
    if (cap > job->in_cap) {
        job->in = xrealloc(job->in, cap);
        job->in_cap = cap;
    }
    return job->in_n < job->in_cap;
}

void http_job_drop_body(struct http_job *job)
{
    buf_done(&job->body);
    job->conn->server->held -= job->held;
    job->held = 0;
}

void http_job_next(struct http_job *job)
{
    size_t rest = job->in_n - job->consumed;

    http_job_drop_body(job);
    memmove(job->in, job->in + job->consumed, rest);
    job->in_n = rest;
    forget(job);
}

void http_job_give(struct http_server *s, struct http_job *job)
{
    http_job_drop_body(job);
    if (s->n_pool >= HTTP_JOBS_KEEP || job->in_cap > HTTP_IN_KEEP) {
        http_job_free(job);
        s->freed++;
        return;
    }
    forget(job);
    job->in_n = 0;
    job->conn = NULL;
    job->next = s->pool;
    s->pool = job;
    s->n_pool++;
}

void http_job_refuse(struct http_job *job, int status, const char *text)
{
    http_reply_clear(&job->req);
    http_reply_plain(&job->req, status, "error", text);
    http_job_drop_body(job);
    job->drop = true;
    job->close = job->linger = true;
}

static void name_request(struct http_job *job)
{
    static const char digits[] = "0123456789abcdef";
    struct http_server *s = job->conn->server;
    uint64_t n = ++s->serial;
    char *p = job->req.id;

    memcpy(p, s->boot, 8);
    p += 8;
    *p++ = '-';
    for (int shift = n >> 32 ? 44 : 28; shift >= 0; shift -= 4) /* 12 digits last for ages */
        *p++ = digits[(n >> shift) & 15];
    *p = '\0';
}

static void fill_request(struct http_job *job)
{
    struct http_req *req = &job->req;
    long long limit = job->conn->server->limits->request_ms;

    req->method = job->head.method;
    req->minor = job->head.minor;
    req->path = job->head.path;
    req->query_text = job->head.query;
    req->headers = job->headers;
    req->n_headers = job->head.n_headers;
    req->deadline_ms = deadline_in(limit);
    req->peer = arena_strdup(&job->arena, stream_peer(job->conn->stream)->text);
    req->who = (struct http_identity){ .name = "anonymous", .scopes = NEED_NONE };
    name_request(job);
}

/* What a browser wants to hear before a page of an allowed origin may read the answer. */
static void allow_origin(struct http_req *req, struct str origin)
{
    http_reply_header(req, "Access-Control-Allow-Origin",
                      arena_strndup(req->arena, origin.p, origin.n));
    http_reply_header(req, "Vary", "Origin");
}

/* Refused because of who asks from where; no dialect of a room speaks here. */
static bool check_origin(struct http_job *job)
{
    struct http_server *s = job->conn->server;
    const struct stream_addr *peer = stream_peer(job->conn->stream);
    struct str origin;

    if (s->ops.host_allowed && !s->ops.host_allowed(job->head.host, peer, s->ops.arg)) {
        http_reply_plain(&job->req, 403, "error", "Forbidden: this Host is not served here");
    } else {
        origin = http_header_get(&job->req, "Origin");
        if (!origin.p || !s->ops.origin_allowed)
            return true;
        if (s->ops.origin_allowed(origin, s->ops.arg)) {
            allow_origin(&job->req, origin);
            return true;
        }
        http_reply_plain(&job->req, 403, "error", "Forbidden: this Origin is not allowed");
    }
    http_count_refused(REFUSED_ORIGIN);
    job->drop = true;
    return false;
}

static void refuse_in_dialect(struct http_job *job, int status, enum err_code code,
                              const char *text)
{
    struct err e;

    (void)err_set(&e, code, "%s", text); /* only its text is wanted */
    job->req.status = status;
    job->dialect->error(&job->req, &e, status, NULL, NULL);
    job->drop = true;
}

static void redirect(struct http_job *job, struct str path)
{
    struct http_req *req = &job->req;
    struct str host = job->head.host, q = req->query_text;
    const char *scheme = host.n == 0 ? "" : job->conn->tls ? "https://" : "http://";

    req->status = 307;
    http_reply_header(req, "Location",
                      arena_printf(req->arena, "%s" STR_FMT STR_FMT "%s" STR_FMT, scheme,
                                   STR_ARG(host), STR_ARG(path), q.n ? "?" : "", STR_ARG(q)));
    job->drop = true;
}

static void refuse_path(struct http_job *job)
{
    struct http_req *req = &job->req;

    refuse_in_dialect(job, 404, ERR_NOT_FOUND,
                      job->dialect->names_unknown
                          ? arena_printf(req->arena, "Cannot %s " STR_FMT,
                                         http_method_name(req->method), STR_ARG(req->path))
                          : "Not Found");
}

/* A browser asks whether a page may send what it is about to; it sends no token with that. */
static bool is_preflight(const struct http_req *req)
{
    return req->method == HTTP_M_OPTIONS && http_header_get(req, "Origin").n &&
           http_header_get(req, "Access-Control-Request-Method").n;
}

static void allow_preflight(struct http_job *job, const char *allow)
{
    struct http_req *req = &job->req;

    req->status = 204;
    http_reply_header(req, "Access-Control-Allow-Methods", allow);
    http_reply_header(req, "Access-Control-Allow-Headers",
                      "Authorization, Content-Type, X-Auth-Token, Idempotency-Key, "
                      "dbos-idempotency-key, Last-Event-ID");
    http_reply_header(req, "Access-Control-Max-Age", "600");
    job->drop = true;
}

static void refuse_method(struct http_job *job, const char *allow)
{
    if (is_preflight(&job->req)) {
        allow_preflight(job, allow);
    } else if (job->req.method == HTTP_M_OPTIONS && job->dialect->options_text) {
        http_reply_text(&job->req, 200, "text/html; charset=utf-8", str_of(allow));
        job->drop = true;
    } else if (job->req.method == HTTP_M_OPTIONS && job->dialect->options_answer) {
        job->req.status = 204;
        job->drop = true;
    } else if (job->dialect->unknown_method) {
        refuse_path(job);
        return;
    } else {
        refuse_in_dialect(job, 405, ERR_INVALID, "Method Not Allowed");
    }
    http_reply_header(&job->req, "Allow", allow);
}

/* A WebSocket is asked for, and no route of its path is one: it is for who takes them all. */
static bool is_upgrade(const struct http_job *job, const struct http_route *route)
{
    return job->conn->server->upgrade.route && job->req.method == HTTP_M_GET &&
           !(route && (route->flags & ROUTE_WS)) &&
           ws_has_token(http_header_get(&job->req, "Upgrade"), "websocket");
}

static void take_upgrade(struct http_job *job)
{
    const struct http_server *s = job->conn->server;

    job->dialect = s->upgrade.dialect;
    job->req.route = s->upgrade.route;
    job->req.room = s->upgrade.room;
}

/* What the dialect does before anything else; false: it has answered. */
static bool begin_dialect(struct http_job *job)
{
    struct http_req *req = &job->req;

    if (job->dialect->begin)
        job->dialect->begin(req);
    if (!job->dialect->options_ok || req->method != HTTP_M_OPTIONS)
        return true;
    http_reply_text(req, 200, "text/plain; charset=utf-8", STR("OK"));
    job->drop = true;
    return false;
}

static bool find_route(struct http_job *job)
{
    struct http_req *req = &job->req;
    struct http_match m = { 0 };
    int r = http_router_match(job->conn->server->router, req->method, req->path, req->arena, &m);

    job->dialect = m.table ? m.table->dialect : &dialect_plain;
    if (is_upgrade(job, r == 0 ? m.route : NULL)) {
        take_upgrade(job);
        return true;
    }
    if (!begin_dialect(job))
        return false;
    switch (r) {
    case HTTP_MATCH_NONE:
        refuse_path(job);
        return false;
    case HTTP_MATCH_METHOD:
        refuse_method(job, m.allow);
        return false;
    case HTTP_MATCH_SLASH:
        redirect(job, m.redirect);
        return false;
    case HTTP_MATCH_BAD:
        refuse_in_dialect(job, 400, ERR_INVALID, "The path is not percent-encoded UTF-8");
        return false;
    }
    req->route = m.route;
    req->room = m.table->room;
    job->table = m.table;
    memcpy(req->args, m.args, sizeof(req->args));
    return true;
}

static size_t body_max(const struct http_job *job)
{
    const struct http_route *route = job->req.route;

    if (job->drop)
        return HTTP_DRAIN_MAX;
    if (route->max_body)
        return route->max_body;
    if (job->table && job->table->body_max)
        return (size_t)*job->table->body_max;
    if (route->in)
        return (size_t)job->conn->server->limits->body_bytes;
    return HTTP_DRAIN_MAX;
}

void http_job_too_large(struct http_job *job)
{
    if (!job->drop) {
        refuse_in_dialect(job, 413, ERR_LIMIT, "Request body too large");
        http_count_refused(REFUSED_TOO_LARGE);
    }
    http_job_drop_body(job);
    job->close = job->linger = true;
}

void http_job_too_many(struct http_job *job)
{
    refuse_in_dialect(job, 503, ERR_UNAVAILABLE, "Too many large requests at once");
    http_reply_header(&job->req, "Retry-After", "1");
    http_count_refused(REFUSED_TOO_LARGE);
    http_job_drop_body(job);
    job->close = job->linger = true;
}

void http_job_judge(struct http_job *job)
{
    fill_request(job);
    job->dialect = &dialect_plain;
    job->close = !job->head.keep_alive || job->conn->server->stopping;
    if (check_origin(job))
        (void)find_route(job); /* job->drop says how it went */

    job->body_max = body_max(job);
    if (job->head.length > job->body_max)
        http_job_too_large(job);
    buf_init(&job->body, job->body_max);
}
