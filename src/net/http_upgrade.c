/* SPDX-License-Identifier: MIT */
/*
 * net/http_upgrade.c — a connection leaves the HTTP server.
 */
#include "net/http_upgrade.h"

#include "net/http_int.h"

int http_conn_take(struct http_req *req, size_t max_rest, struct stream **ret_stream,
                   struct buf *ret_rest, struct http_seat **ret_seat, struct err *e)
{
    struct http_job *job = http_job_of(req);
    struct http_conn *c = job->conn;
    size_t n = job->in_n - job->consumed;
    struct stream *stream;
    struct buf rest;
    int r;

    if (http_conn_gone(c))
        return err_set(e, ERR_CANCELED, "the client has gone");
    if (job->begun)
        return err_set(e, ERR_INVALID, "the answer has begun already");
    if (!http_grant_holds(c->server, req->who.grant))
        return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
    buf_init(&rest, n + max_rest);
    r = buf_add(&rest, job->in + job->consumed, n, e);
    if (r < 0)
        return r;
    if (!http_conn_detach(c, &stream)) {
        buf_done(&rest);
        return err_set(e, ERR_CANCELED, "the client has gone");
    }
    *ret_stream = stream;
    *ret_rest = rest;
    *ret_seat = http_seat_move(&c->seat);
    return 0;
}
