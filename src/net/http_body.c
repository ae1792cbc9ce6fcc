/* SPDX-License-Identifier: MIT */
/*
 * net/http_body.c — gathering the body of a request. A short one mostly came with its head and is
 * used where it stands; a longer one is read straight into a buffer that grows with it, never
 * ahead of it: a Content-Length alone makes us hold nothing.
 */
#include "net/http_int.h"

enum { STEP = 64 * 1024 }; /* bytes asked of the stream at once */

/* Past its end the next request begins. */
static int whole(struct http_job *job)
{
    if (job->body.n > 0)
        job->req.body = buf_str(&job->body);
    return HTTP_BODY_WHOLE;
}

static void charge(struct http_job *job, size_t n)
{
    job->held += n;
    job->conn->server->held += n;
}

/* Large bodies of many clients at once are more than we can hold; short ones are always taken. */
static bool too_many(const struct http_job *job)
{
    const struct http_server *s = job->conn->server;

    return job->held > STEP && s->held > HTTP_BODIES_MAX * (size_t)s->limits->body_bytes;
}

static int keep(struct http_job *job, struct str piece)
{
    struct err ignored;

    if (job->drop) {
        job->dropped += piece.n;
        return job->dropped > HTTP_DRAIN_MAX ? 413 : 0;
    }
    if (buf_add_str(&job->body, piece, &ignored) < 0)
        return 413;
    charge(job, piece.n);
    return 0;
}

/* Decode what stands between consumed and in_n. */
static int take_chunks(struct http_job *job)
{
    size_t head = job->consumed, at = head;
    struct str piece;
    struct err ignored;
    size_t eaten;
    int r = 0, status;

    while (at < job->in_n && r == 0) {
        r = http_chunk_next(&job->chunk, (struct str){ job->in + at, job->in_n - at }, &eaten,
                            &piece, &ignored);
        if (r < 0)
            return 400;
        status = keep(job, piece);
        if (status)
            return status;
        at += eaten;
    }
    if (r == HTTP_CHUNK_END) {
        job->consumed = at;
        return whole(job);
    }
    job->in_n = head; /* all of it was decoded: read on behind the head */
    return HTTP_BODY_MORE;
}

static int take_plain(struct http_job *job)
{
    size_t have = job->in_n - job->consumed;
    int status;

    if (have > job->body_left)
        have = (size_t)job->body_left;
    status = keep(job, (struct str){ job->in + job->consumed, have });
    if (status)
        return status;
    job->body_left -= have;
    if (job->body_left == 0) {
        job->consumed += have;
        return whole(job);
    }
    job->in_n = job->consumed;
    return HTTP_BODY_MORE;
}

int http_body_take(struct http_job *job)
{
    if (too_many(job))
        return 503;
    return job->head.chunked ? take_chunks(job) : take_plain(job);
}

int http_body_begin(struct http_job *job)
{
    size_t have = job->in_n - job->consumed;

    job->body_left = job->head.length;
    if (!job->head.chunked && have >= job->body_left) {
        job->req.body = (struct str){ job->in + job->consumed, (size_t)job->body_left };
        job->consumed += (size_t)job->body_left;
        return HTTP_BODY_WHOLE;
    }
    return http_body_take(job);
}

int http_body_read(struct http_job *job, struct stream *stream, struct err *e)
{
    size_t want = job->body_left < STEP ? (size_t)job->body_left : STEP, n;
    char *p;
    int r;

    if (job->drop || job->head.chunked) {
        r = stream_read(stream, job->in + job->in_n, job->in_cap - job->in_n, &n, e);
        if (r == 0)
            job->in_n += n;
        return r;
    }
    r = buf_reserve(&job->body, want, &p, e); /* within its max: length was checked */
    if (r < 0)
        return r;
    r = stream_read(stream, p, want, &n, e);
    if (r == 0) {
        buf_commit(&job->body, n);
        charge(job, n);
        job->body_left -= n;
    }
    return r;
}
