/* SPDX-License-Identifier: MIT */
/*
 * net/http_sse.c — server-sent events (HTML standard §9.2): one event is one write.
 */
#include "base/buf.h"
#include "net/http.h"

enum { EVENT_MAX = 64 * 1024 * 1024 };

/* Every line of a text becomes a field of its own; CR, LF and CR LF all end a line. */
static int add_lines(struct buf *b, const char *field, struct str text, struct err *e)
{
    size_t from = 0, i = 0;
    int r = 0;

    for (;; i++) {
        if (i < text.n && text.p[i] != '\n' && text.p[i] != '\r')
            continue;
        if (r == 0)
            r = buf_add_z(b, field, e);
        if (r == 0)
            r = buf_add(b, text.p + from, i - from, e);
        if (r == 0)
            r = buf_add_z(b, "\n", e);
        if (r < 0 || i >= text.n)
            return r;
        if (text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n')
            i++;
        from = i + 1;
    }
}

CO int http_sse_send(struct http_req *req, const char *event, struct str data, struct err *e)
{
    return http_sse_send_id(req, NULL, event, data, e);
}

CO int http_sse_send_id(struct http_req *req, const char *id, const char *event, struct str data,
                        struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r = 0;

    buf_init(&b, EVENT_MAX);
    if (id)
        r = add_lines(&b, "id: ", str_of(id), e);
    if (r == 0 && event)
        r = add_lines(&b, "event: ", str_of(event), e);
    if (r == 0)
        r = add_lines(&b, "data: ", data, e);
    if (r == 0)
        r = buf_add_z(&b, "\n", e);
    if (r < 0)
        return r;
    return http_stream_write(req, buf_str(&b), e);
}

CO int http_sse_comment(struct http_req *req, const char *text, struct err *e)
{
    AUTO(buf_done) struct buf b = { 0 };
    int r;

    buf_init(&b, EVENT_MAX);
    r = add_lines(&b, ": ", str_of(text), e);
    if (r == 0)
        r = buf_add_z(&b, "\n", e);
    if (r < 0)
        return r;
    return http_stream_write(req, buf_str(&b), e);
}
