/* SPDX-License-Identifier: MIT */
/*
 * net/http_reply.c — the answer left in a request, as bytes: status line, headers, length.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "net/http_int.h"

const char *http_method_name(enum http_method m)
{
    static const char *const names[] = { "GET",    "POST", "PUT",     "PATCH",
                                         "DELETE", "HEAD", "OPTIONS", "OTHER" };

    return names[m];
}

const char *http_status_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } rows[] = {
        { 200, "OK" },
        { 100, "Continue" },
        { 101, "Switching Protocols" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 206, "Partial Content" },
        { 300, "Multiple Choices" },
        { 301, "Moved Permanently" },
        { 302, "Found" },
        { 303, "See Other" },
        { 304, "Not Modified" },
        { 307, "Temporary Redirect" },
        { 308, "Permanent Redirect" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 402, "Payment Required" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" },
        { 407, "Proxy Authentication Required" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 410, "Gone" },
        { 411, "Length Required" },
        { 412, "Precondition Failed" },
        { 413, "Request Entity Too Large" },
        { 414, "Request-URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 416, "Requested Range Not Satisfiable" },
        { 417, "Expectation Failed" },
        { 418, "I'm a teapot" },
        { 421, "Misdirected Request" },
        { 422, "Unprocessable Entity" },
        { 423, "Locked" },
        { 424, "Failed Dependency" },
        { 425, "Too Early" },
        { 426, "Upgrade Required" },
        { 428, "Precondition Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 451, "Unavailable For Legal Reasons" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 507, "Insufficient Storage" },
        { 508, "Loop Detected" },
        { 511, "Network Authentication Required" },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        if (rows[i].status == status)
            return rows[i].reason;
    return "Unknown";
}

int http_status_of(enum err_code code)
{
    switch (code) {
    case ERR_INVALID:
        return 400;
    case ERR_UNAUTHORIZED:
        return 401;
    case ERR_FORBIDDEN:
        return 403;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_CONFLICT:
        return 409;
    case ERR_LIMIT:
        return 413;
    case ERR_UNAVAILABLE:
    case ERR_CANCELED: /* nobody's deadline: the server is going down */
        return 503;
    case ERR_TIMEOUT:
        return 504;
    case ERR_INTERNAL:
    case ERR_PARKED:
        return 500;
    }
    return 500;
}

struct str http_header_get(const struct http_req *req, const char *name)
{
    struct str want = str_of(name);

    for (size_t i = 0; i < req->n_headers; i++)
        if (str_eq_nocase(req->headers[i].name, want))
            return req->headers[i].value;
    return (struct str){ NULL, 0 };
}

void http_reply_header(struct http_req *req, const char *name, const char *value)
{
    size_t n = req->n_more;
    struct http_header *more;

    assert(!strpbrk(name, "\r\n") && !strpbrk(value, "\r\n"));
    if (n % 4 == 0) { /* room comes in fours */
        more = arena_raw(req->arena, (n + 4) * sizeof(*more));
        if (n > 0)
            memcpy(more, req->more, n * sizeof(*more));
        req->more = more;
    }
    req->more[n].name = arena_str(req->arena, str_of(name));
    req->more[n].value = arena_str(req->arena, str_of(value));
    req->n_more = n + 1;
}

void http_reply_text(struct http_req *req, int status, const char *type, struct str text)
{
    if (status)
        req->status = status;
    req->type = type;
    req->text = text.p ? text : STR("");
    req->out = NULL;
}

bool http_reply_has(const struct http_req *req, const char *name)
{
    for (size_t i = 0; i < req->n_more; i++)
        if (str_eq_nocase(req->more[i].name, str_of(name)))
            return true;
    return false;
}

void http_reply_clear(struct http_req *req)
{
    req->status = 0;
    req->out = NULL;
    req->text = (struct str){ 0 };
    req->type = NULL;
    req->n_more = 0;
    req->more = NULL;
}

void http_reply_plain(struct http_req *req, int status, const char *key, const char *text)
{
    struct http_job *job = http_job_of(req);
    struct str copy;
    struct err ignored;

    buf_clear(&job->out_body);
    job->out_body.max = SIZE_MAX / 2;
    http_sure(buf_printf(&job->out_body, &ignored, "{\"%s\":", key));
    http_sure(json_write_str(&job->out_body, str_of(text), &ignored));
    http_sure(buf_add_z(&job->out_body, "}", &ignored));
    copy = arena_str(req->arena, buf_str(&job->out_body));
    buf_clear(&job->out_body);
    http_reply_text(req, status, "application/json", copy);
}

/* Of a handler, or of an answer that does not encode: only the former runs in the log's context. */
static void log_internal(const struct http_req *req, const struct err *e)
{
    struct log_ctx ctx;
    bool outside = !http_job_of(req)->fiber;

    if (outside)
        log_push(&ctx, "req", req->id);
    log_error("a handler failed", "method", LOG_STR(http_method_name(req->method)), "path",
              LOG_SLICE(req->path), "error", LOG_ERR(e), "born", LOG_STR(e->file), "line",
              LOG_INT(e->line));
    if (outside)
        log_pop(&ctx);
}

/*
 * An error in the words of the route's dialect. What went wrong inside stays inside: the log has
 * it under the request's id, and the caller is told that id.
 */
void http_reply_error(struct http_job *job, const struct err *e)
{
    struct http_req *req = &job->req;
    int status = http_status_of(e->code);
    struct err late;

    if (job->timed_out && e->code == ERR_CANCELED) {
        status = 504;
        (void)err_set(&late, ERR_TIMEOUT, "The request took too long");
        e = &late;
    }
    if (e->code == ERR_INTERNAL)
        log_internal(req, e);
    req->status = status;
    req->out = NULL;
    job->dialect->error(req, e, status, NULL, NULL);
    if (req->status == 503 && !http_reply_has(req, "Retry-After"))
        http_reply_header(req, "Retry-After", "1");
    if (req->status == 401 && !http_reply_has(req, "WWW-Authenticate"))
        http_reply_header(req, "WWW-Authenticate", "Bearer");
}

static struct str date_now(struct http_server *s)
{
    int64_t now = wall_us() / 1000000;
    struct tm tm;
    time_t t = (time_t)now;

    if (now != s->date_s) { /* the text changes once a second */
        gmtime_r(&t, &tm);
        strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_s = now;
    }
    return (struct str){ s->date, 29 };
}

static char *put(char *p, struct str s)
{
    memcpy(p, s.p, s.n);
    return p + s.n;
}

static char *put_uint(char *p, uint64_t v)
{
    char digits[20];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n > 0)
        *p++ = digits[--n];
    return p;
}

static size_t more_len(const struct http_req *req)
{
    size_t n = 0;

    for (size_t i = 0; i < req->n_more; i++)
        n += req->more[i].name.n + req->more[i].value.n + 4;
    return n;
}

static char *put_status(char *p, int status)
{
    p = put(p, STR("HTTP/1.1 "));
    p = put_uint(p, (uint64_t)status);
    *p++ = ' ';
    p = put(p, str_of(http_status_reason(status)));
    return put(p, STR("\r\n"));
}

/* Where the body ends, and whether another request may follow. */
static char *put_framing(char *p, const struct http_job *job, int status)
{
    if (job->begun && job->chunked)
        p = put(p, STR("Transfer-Encoding: chunked\r\n"));
    else if (!job->begun && status != 204 && status != 304 && status >= 200) {
        p = put(p, STR("Content-Length: "));
        p = put_uint(p, job->out_text.n);
        p = put(p, STR("\r\n"));
    }
    if (job->close)
        p = put(p, STR("Connection: close\r\n"));
    else if (job->head.minor == 0)
        p = put(p, STR("Connection: keep-alive\r\n"));
    return p;
}

static void format_head(struct http_job *job, int status, const char *type)
{
    struct http_req *req = &job->req;
    struct err ignored;
    struct str type_text = str_of(type);
    char *head, *p;

    buf_clear(&job->out_head);
    job->out_head.max = SIZE_MAX / 2;
    http_sure(buf_reserve(&job->out_head, 320 + type_text.n + more_len(req), &head, &ignored));
    p = put_status(head, status);
    p = put(p, STR("Date: "));
    p = put(p, date_now(job->conn->server));
    p = put(p, STR("\r\nX-Content-Type-Options: nosniff\r\n"));
    if (type) {
        p = put(p, STR("Content-Type: "));
        p = put(p, type_text);
        p = put(p, STR("\r\n"));
    }
    p = put_framing(p, job, status);
    for (size_t i = 0; i < req->n_more; i++) {
        p = put(p, req->more[i].name);
        p = put(p, STR(": "));
        p = put(p, req->more[i].value);
        p = put(p, STR("\r\n"));
    }
    p = put(p, STR("\r\n"));
    buf_commit(&job->out_head, (size_t)(p - head));
}

/* Encode req->out by its shape; a value that does not encode is a bug of ours: 500. */
static void encode_out(struct http_job *job)
{
    struct http_req *req = &job->req;
    const struct shape *shape = req->out_shape ? req->out_shape
                                : req->route   ? req->route->out
                                               : NULL;
    struct err e;
    int r;

    buf_clear(&job->out_body);
    job->out_body.max = SIZE_MAX / 2;
    if (!shape)
        r = err_set(&e, ERR_INTERNAL, "the route has no shape of its answer");
    else
        r = shape_write(shape, req->out, &job->out_body, &e);
    if (r == 0) {
        req->type = "application/json";
        job->out_text = buf_str(&job->out_body);
        return;
    }
    buf_clear(&job->out_body);
    e.code = ERR_INTERNAL;
    http_reply_error(job, &e);
    job->out_text = req->text;
}

void http_reply_format(struct http_job *job)
{
    struct http_req *req = &job->req;

    if (job->conn->server->stopping || req->close)
        job->close = true;
    if (req->status == 0)
        req->status = req->route && req->route->status ? req->route->status : 200;
    if (req->out)
        encode_out(job);
    else
        job->out_text = req->text;
    if (job->begun)
        job->out_text = (struct str){ 0 };
    format_head(job, req->status, job->out_text.n > 0 || job->begun ? req->type : NULL);
    if (req->method == HTTP_M_HEAD || req->status == 204 || req->status == 304)
        job->out_text = (struct str){ 0 };
    job->sent = 0;
}
