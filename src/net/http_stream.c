/* SPDX-License-Identifier: MIT */
/*
 * net/http_stream.c — answers that are written while they are made. Bytes go to the socket at
 * once when nothing waits before them; what it does not take is queued, and past the queue's
 * bound the handler waits for the peer.
 */
#include <stdio.h>

#include "net/http_int.h"

enum {
    PIECE = 64 * 1024,        /* of a write, in one chunk */
    CHUNK_AROUND = 32,        /* bytes around it */
    HEAD_AND_END = 64 * 1024, /* kept free of the queue for the head and the last chunk */
};

static int gone(struct err *e)
{
    return err_set(e, ERR_CANCELED, "the client has gone");
}

bool http_stream_begun(const struct http_req *req)
{
    return http_job_of(req)->begun;
}

CO int http_stream_begin(struct http_req *req, int status, const char *type, struct err *e)
{
    struct http_job *job = http_job_of(req);
    int r;

    if (http_conn_gone(job->conn))
        return gone(e);
    if (job->begun)
        return err_set(e, ERR_INTERNAL, "the answer has begun already");
    if (!http_grant_holds(job->conn->server, req->who.grant))
        return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
    if (status)
        req->status = status;
    req->type = arena_strdup(req->arena, type);
    if (str_starts(str_of(type), STR("text/event-stream"))) {
        http_reply_header(req, "Cache-Control", "no-cache");
        http_reply_header(req, "X-Accel-Buffering",
                          "no"); /* nginx in front would hold events back */
    }
    req->out = NULL;
    job->begun = true;
    job->chunked = job->head.minor > 0;
    if (!job->chunked)
        job->close = true; /* the end of the connection is the end of the body */
    http_reply_format(job);
    buf_clear(&job->out_body);
    job->out_body.max = HTTP_STREAM_QUEUE + HEAD_AND_END;
    r = buf_add_str(&job->out_body, buf_str(&job->out_head), e);
    if (r < 0)
        return r;
    if (!http_conn_begin(job->conn))
        return gone(e);
    http_conn_flush_stream(job->conn);
    return http_conn_gone(job->conn) ? gone(e) : 0;
}

CO static int wait_for_room(struct http_job *job, size_t n, struct err *e)
{
    int r;

    while (!http_conn_gone(job->conn) && job->out_body.n > 0 &&
           job->out_body.n + n > HTTP_STREAM_QUEUE) {
        job->writer = fiber_self();
        r = fiber_park(job->req.deadline_ms, e);
        job->writer = NULL;
        if (r < 0)
            return r;
    }
    return http_conn_gone(job->conn) ? gone(e) : 0;
}

CO static int write_piece(struct http_job *job, struct str piece, struct err *e)
{
    struct buf *q = &job->out_body;
    int r;

    r = wait_for_room(job, piece.n + CHUNK_AROUND, e);
    if (r < 0)
        return r;
    if (job->chunked)
        r = buf_printf(q, e, "%zx\r\n", piece.n);
    if (r == 0)
        r = buf_add_str(q, piece, e);
    if (r == 0 && job->chunked)
        r = buf_add_z(q, "\r\n", e);
    if (r < 0)
        return r;
    http_conn_flush_stream(job->conn);
    return http_conn_gone(job->conn) ? gone(e) : 0;
}

CO int http_stream_write(struct http_req *req, struct str bytes, struct err *e)
{
    struct http_job *job = http_job_of(req);
    struct str piece;
    int r;

    if (!job->begun)
        return err_set(e, ERR_INTERNAL, "the answer has not begun");
    if (http_conn_gone(job->conn))
        return gone(e);
    if (req->method == HTTP_M_HEAD)
        return 0;
    while (bytes.n > 0) {
        piece = (struct str){ bytes.p, bytes.n < PIECE ? bytes.n : PIECE };
        r = write_piece(job, piece, e);
        if (r < 0)
            return r;
        bytes.p += piece.n;
        bytes.n -= piece.n;
    }
    return 0;
}
