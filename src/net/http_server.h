/* SPDX-License-Identifier: MIT */
/*
 * net/http_server.h — listeners, connections, limits. A connection is a state machine moved by
 * readiness (an idle one costs no fiber); each request runs in a fiber of the connection.
 */
#pragma once

#include "base/metric.h"
#include "net/http.h"
#include "net/stream.h"

struct http_limits {              /* read at each use, so a reload takes effect at once */
    long long connections;        /* total; past it 503 + Retry-After and close */
    long long connections_per_ip; /* same */
    long long header_bytes;       /* request line and headers: 431 */
    long long body_bytes;         /* default of routes with .in: 413 */
    long long json_depth;
    long long first_byte_ms; /* from accept, or from the first byte of a next request, to the whole
                                head: 408 */
    long long body_idle_ms;  /* silence inside a body: 408 */
    long long idle_ms;       /* keep-alive silence: close */
    long long request_ms;    /* deadline of a handler; 0: none */
    long long write_idle_ms; /* peer accepts no byte of an answer this long: reset */
};

/* What the server asks of the program; wired by daemon. */
struct http_server_ops {
    /*
     * Who is calling? 0 and *ret filled (anonymous has scopes NEED_NONE); -ERR_UNAUTHORIZED or
     * -ERR_FORBIDDEN refuse. Called for every route that is not NEED_NONE only: when the request
     * runs, and before that when its body is yet to come, which a stranger's need not. So it does
     * not wait.
     */
    int (*authenticate)(struct http_req *req, const struct stream_addr *peer, void *arg,
                        struct http_identity *ret, struct err *e);
    /* Are Host and Origin acceptable (DNS rebinding, cross-site)? */
    bool (*host_allowed)(struct str host, const struct stream_addr *peer, void *arg);
    bool (*origin_allowed)(struct str origin, void *arg);
    /* Does this grant of an identity still stand? NULL: they all do. */
    bool (*grant_holds)(uint64_t grant, void *arg);
    void *arg;
};

struct http_server;
int http_server_new(struct loop *loop, const struct http_limits *limits,
                    const struct http_server_ops *ops, const struct http_table *const *tables,
                    size_t n_tables, struct http_server **ret, struct err *e)
    MUST_CHECK; /* checks the tables: unique, documented, need set, sorted is not required */

/*
 * Who asks for a WebSocket on a path of which no route is one (ROUTE_WS) is handed to this route,
 * whose method and path do not matter; errors are answered in the dialect. All are borrowed.
 */
void http_server_upgrades(struct http_server *s, const struct http_route *route,
                          const struct http_dialect *dialect, void *room);

/* Serve an open listening socket (owned from now on). tls NULL: plain. Any number of times. */
int http_server_listen(struct http_server *s, int fd, struct tls_context *tls, struct err *e)
    MUST_CHECK;

/*
 * Grants may have ended: streamed answers that rest on one that does not hold are cut off, and
 * WebSockets are closed with 1008. Other requests under way are answered. Does not wait.
 */
void http_server_recheck(struct http_server *s);

/* Stop accepting, close idle connections, answer the rest with Connection: close; at the deadline
 * cancel what is left. */
CO int http_server_shutdown(struct http_server *s, uint64_t deadline_ms, struct err *e);
void http_server_free(struct http_server *s);

unsigned http_server_connections(const struct http_server *s);
unsigned http_server_requests(const struct http_server *s); /* running now */
extern struct metric *const http_metrics[];
extern const size_t http_metrics_len;
