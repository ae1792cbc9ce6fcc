/* SPDX-License-Identifier: MIT */
/*
 * net/http.h — what rooms see of HTTP: routes as rows, requests as decoded values.
 *
 * Order of every request, once, in http_server: parse → limits → Host/Origin → match →
 * authenticate → scope → decode query and body by their shapes → run in a fiber with the
 * request's arena and deadline → encode the answer by its shape → log one line, count metrics.
 *
 * A handler is handed decoded, bounded input (req->in, req->query, req->args) and leaves its
 * answer in req->out (a struct of route->out's shape, in req->arena). It returns 0 or an error;
 * the route's dialect turns errors into status and body.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/fiber.h"
#include "base/shape.h"

enum http_method {
    HTTP_M_GET,
    HTTP_M_POST,
    HTTP_M_PUT,
    HTTP_M_PATCH,
    HTTP_M_DELETE,
    HTTP_M_HEAD,
    HTTP_M_OPTIONS,
    HTTP_M_OTHER
};
const char *http_method_name(enum http_method m);
const char *http_status_reason(int status); /* "Not Found"; "Unknown" for odd codes */

/* Scopes a caller may hold. NEED_NONE routes are open to everybody; say so on purpose. */
enum http_need {
    NEED_NONE = 1 << 0,
    NEED_READ = 1 << 1,
    NEED_BRIDGE = 1 << 2,
    NEED_METRICS = 1 << 3,
    NEED_ADMIN = 1 << 4,
    NEED_WORKFLOWS = 1 << 5,
    NEED_AGENTS = 1 << 6,
};

#define HTTP_ARGS_MAX 4

struct http_header {
    struct str name, value; /* name as sent; compare without case */
};

struct http_identity {
    const char
        *name; /* "admin", a key's name, "loopback", "anonymous"; lives as long as the request */
    unsigned scopes; /* of enum http_need */
    bool admin;
    uint64_t
        grant; /* what may be taken back while they are here, see http_server_ops; 0: nothing */
    const void *guest; /* what the door of a table knows of them; NULL: the server let them in */
};

struct http_conn;
struct http_route;

struct http_req {
    enum http_method method;
    int minor;       /* of the peer's HTTP/1.x: proxies speak 1.0 by default, people hardly do */
    struct str path; /* as sent, not decoded, without the query */
    struct str query_text;
    const struct http_route *route;
    struct str args[HTTP_ARGS_MAX]; /* path parameters, percent-decoded once, terminated */
    void *room;                     /* of the route table */
    const void *in;                 /* body, decoded by route->in */
    const void *query;              /* query, decoded by route->query */
    struct str body;                /* raw, whole */
    const struct http_header *headers;
    size_t n_headers;
    struct arena *arena;  /* freed when the answer has been sent */
    uint64_t deadline_ms; /* of the whole request; DEADLINE_NONE without limits.request */
    struct http_identity who;
    const char *peer; /* address text */
    char id[24];      /* shown in the log and in 500 answers */

    /* the answer */
    int status;                    /* 0: route->status or 200 */
    const void *out;               /* struct of route->out, or NULL for an empty body */
    const struct shape *out_shape; /* instead of route->out */
    struct str text;               /* instead of out: a ready body (in the arena) of type `type` */
    const char *type;              /* media type of text */
    struct http_header *more;      /* further answer headers */
    size_t n_more;
    bool close; /* the connection ends behind the answer */
    void *server_private;
};

/* First header of that name, trimmed; {NULL, 0} when absent. */
struct str http_header_get(const struct http_req *req, const char *name);

/* Add an answer header; both are copied into the arena. Names and values of ours only: CR, LF
 * refused by assert. */
void http_reply_header(struct http_req *req, const char *name, const char *value);

/* Answer with text; status 0 keeps the route's. */
void http_reply_text(struct http_req *req, int status, const char *type, struct str text);

/*
 * A streamed answer: begin sends the head at once (chunked on HTTP/1.1), write parks while the
 * peer is slow (bound: HTTP_STREAM_QUEUE bytes unsent), and the handler's return ends it. When the
 * peer goes away the handler's fiber is cancelled.
 */
#define HTTP_STREAM_QUEUE (256 * KIB)
CO int http_stream_begin(struct http_req *req, int status, const char *type, struct err *e)
    MUST_CHECK;
CO int http_stream_write(struct http_req *req, struct str bytes, struct err *e) MUST_CHECK;
bool http_stream_begun(const struct http_req *req);

/* One server-sent event (text may have line breaks) / a comment line to keep the way open. */
CO int http_sse_send(struct http_req *req, const char *event, struct str data, struct err *e)
    MUST_CHECK;
CO int http_sse_comment(struct http_req *req, const char *text, struct err *e) MUST_CHECK;

/* The same with an id, which a reader that comes back sends as Last-Event-ID. */
CO int http_sse_send_id(struct http_req *req, const char *id, const char *event, struct str data,
                        struct err *e) MUST_CHECK;

enum http_route_flags {
    ROUTE_STREAM = 1 << 0, /* may answer as a stream; OpenAPI says text/event-stream too */
    ROUTE_SLASH =
        1
        << 1, /* "{arg}" at the end also matches an encoded slash (%2F), always the decoded text */
    ROUTE_WS = 1 << 2,       /* a WebSocket: run() is called after the upgrade, see net/ws.h */
    ROUTE_HIDDEN = 1 << 3,   /* not in OpenAPI */
    ROUTE_SLASHES = 1 << 4,  /* as ROUTE_SLASH, for every "{arg}" of the path */
    ROUTE_OPTIONAL = 1 << 5, /* without a body .in is decoded from {} */
    ROUTE_ASKS = 1 << 6,     /* of NEED_NONE: who calls is found out, but nobody is refused */
};

struct http_route {
    enum http_method method;
    const char *path; /* "{name}" matches one whole segment */
    CO int (*run)(struct http_req *req, struct err *e);
    unsigned need;             /* any of these scopes, or admin; never zero by accident */
    const struct shape *in;    /* body, decoded and checked before run() */
    const struct shape *query; /* query parameters */
    const struct shape *out;   /* what run() answers with */
    int status;                /* of success; 0 = 200 */
    unsigned flags;
    size_t max_body; /* 0: limits.body when .in is set, else bodies are read and ignored up to 64
                        KiB */
    const char *doc; /* one line, shown in the reference and in OpenAPI */
    const char *tag;
};

/*
 * How a family of routes speaks when it is not the handler that speaks: error bodies, unknown
 * paths, trailing slashes. Two of them share one port; the longest matching prefix decides.
 */
struct http_dialect {
    const char *name;
    /* Fill status and text of an error answer. issues: of a failed shape, may be NULL. */
    void (*error)(struct http_req *req, const struct err *e, int status,
                  const struct shape_issue *issues, const char *where /* "body" or "query" */);
    bool slash_redirect;  /* one trailing slash too many: 307 to the path without */
    bool head_is_get;     /* HEAD answers like GET without the body, else 405 */
    bool options_answer;  /* OPTIONS answers 204 with Allow, else 405 */
    bool options_text;    /* ... 200, and the methods are its text too */
    bool options_ok;      /* OPTIONS of any path, known or not, answers 200 "OK" */
    bool any_case;        /* paths match in any case of their ASCII letters */
    bool slash_fits;      /* one trailing slash too many is as good as none */
    bool unknown_method;  /* a method that a path does not have is an unknown path: 404 */
    bool names_unknown;   /* the error of a 404 of the server's is "Cannot GET /path" */
    const char *stranger; /* the error of a 401 of the server's; NULL: "Unauthorized" */
    void (*begin)(struct http_req *req); /* adds headers that every answer of it has; NULL: none */
};
extern const struct http_dialect dialect_fastapi; /* {"detail": ...}, 422 in pydantic's form */
extern const struct http_dialect dialect_plain;   /* {"error": "..."}, 400 */
extern const struct http_dialect dialect_express; /* the same, with Express' tolerance of paths */

struct http_table {
    const char *prefix; /* "/api/vps": unknown paths below it are answered in this dialect */
    const struct http_dialect *dialect;
    const struct http_route *routes;
    size_t n;
    void *room; /* handed to handlers as req->room */
    /*
     * A lock of its own, asked before the server's, but not for callers on the unix socket: 0 and
     * *ret says who it is, HTTP_DOOR_NEXT asks the server; an error is answered in the dialect.
     * Routes of NEED_NONE ask nobody. Must not wait. NULL: none.
     */
    int (*door)(struct http_req *req, void *room, struct http_identity *ret, struct err *e);
    const long long *body_max; /* of its routes that name none; NULL: as told there */
};
enum { HTTP_DOOR_NEXT = 1 };

/* ERR_INVALID → 400 (shape issues 422 in fastapi), UNAUTHORIZED 401, FORBIDDEN 403, NOT_FOUND 404,
 * CONFLICT 409, LIMIT 413, UNAVAILABLE 503 (+Retry-After: 1), TIMEOUT 504, INTERNAL 500 (the client
 * gets an id, the log the message). */
int http_status_of(enum err_code code);

/* OpenAPI 3.1 document of the tables; a new reference. */
json_t *http_openapi(const struct http_table *const *tables, size_t n, const char *title,
                     const char *version);
/* /openapi.json and /docs (a page without outside resources) as a route table over them. */
extern const struct http_route http_docs_routes[];
extern const size_t http_docs_routes_len;
