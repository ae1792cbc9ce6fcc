/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_body.c — receiving an answer: libcurl calls these with pieces of it, and they
 * put them where the caller will find them. They run inside libcurl: they note and wake, no more.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "net/http_client_int.h"

#define HEADERS_MAX      256
#define HEADER_BYTES_MAX (256 * KIB)
#define BODY_EXACT_MAX   (256 * KIB) /* up to here a promised length is believed beforehand */
#define BODY_FIRST       ((size_t)4096)

static size_t break_off(struct http_exchange *x, enum http_fail fail, const char *why)
{
    x->fail = fail;
    x->fail_why = why;
    return 0; /* fewer than given: libcurl ends the call with CURLE_WRITE_ERROR */
}

static void wake(struct http_exchange *x)
{
    if (x->fiber)
        fiber_wake(x->fiber);
}

/* "HTTP/1.1 200 OK": begins the head anew, since interim answers (1xx) have heads of their own. */
static void begin_head(struct http_exchange *x, struct str line)
{
    struct str rest = line, part;
    long long status = 0;

    (void)str_split(&rest, ' ', &part);
    if (rest.n < 3 || int_parse((struct str){ rest.p, 3 }, 0, 999, &status, NULL) < 0)
        status = 0; /* libcurl does not let it through */
    x->status = (int)status;
    x->n_headers = 0;
    x->header_bytes = 0;
    x->content_length = -1;
    x->encoded = false;
}

static void note_header(struct http_exchange *x, const struct http_header *h)
{
    long long n;

    if (str_eq_nocase(h->name, STR("Content-Length")) &&
        int_parse(h->value, 0, INT64_MAX, &n, NULL) == 0)
        x->content_length = n;
    else if (str_eq_nocase(h->name, STR("Content-Encoding")))
        x->encoded = true;
}

static void add_header(struct http_exchange *x, struct str line)
{
    const char *colon = memchr(line.p, ':', line.n);
    struct http_header *h;
    struct str copy;

    if (!colon)
        return;
    if (x->n_headers == x->cap_headers) {
        size_t cap = x->cap_headers ? 2 * x->cap_headers : 16;
        struct http_header *more = arena_raw(x->arena, cap * sizeof(*more));

        if (x->n_headers)
            memcpy(more, x->headers, x->n_headers * sizeof(*more));
        x->headers = more;
        x->cap_headers = cap;
    }
    copy = arena_str(x->arena, line);
    h = &x->headers[x->n_headers++];
    h->name = (struct str){ copy.p, (size_t)(colon - line.p) };
    h->value = str_trim((struct str){ copy.p + h->name.n + 1, copy.n - h->name.n - 1 });
    note_header(x, h);
}

static size_t end_head(struct http_exchange *x, size_t n)
{
    if (x->status < 200)
        return n; /* interim: another head follows */

    /* Known even when the body is refused: callers ask for the status. */
    x->head_done = true;
    if (!x->encoded && x->method != HTTP_M_HEAD && x->content_length > (long long)x->max)
        return break_off(x, HTTP_FAIL_TOO_BIG, NULL);
    if (x->streaming)
        wake(x);
    return n;
}

size_t http_exchange_on_header(char *p, size_t size, size_t n, void *arg)
{
    struct http_exchange *x = arg;
    struct str line = { p, size * n };

    if (x->head_done)
        return line.n; /* trailers of a chunked body */
    while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    if (line.n == 0)
        return end_head(x, size * n);
    if (str_starts(line, STR("HTTP/"))) {
        begin_head(x, line);
        return size * n;
    }
    x->header_bytes += line.n;
    if (x->n_headers >= HEADERS_MAX || x->header_bytes > HEADER_BYTES_MAX)
        return break_off(x, HTTP_FAIL_TOO_BIG, "its headers are too long");
    add_header(x, line);
    return size * n;
}

/* Room for n more bytes and a terminator; n has been held against max before. */
static void make_room(struct http_exchange *x, size_t n)
{
    size_t need = x->body_n + n + 1, cap;

    if (need <= x->body_cap)
        return;
    if (!x->body && !x->encoded && x->content_length >= (long long)n &&
        x->content_length <= (long long)BODY_EXACT_MAX) {
        x->body_cap = (size_t)x->content_length + 1;
        x->body = arena_raw(x->arena, x->body_cap);
        return;
    }
    cap = x->body_cap ? 2 * x->body_cap : BODY_FIRST;
    while (cap < need)
        cap *= 2;
    if (cap > x->max + 1)
        cap = x->max + 1;
    if (x->body && !x->body_on_heap) { /* more came than was promised; libcurl does not let it */
        char *more = xmalloc(cap);

        memcpy(more, x->body, x->body_n);
        x->body = more;
    } else {
        x->body = xrealloc(x->body, cap);
    }
    x->body_on_heap = true;
    x->body_cap = cap;
}

static size_t queue_body(struct http_exchange *x, const char *p, size_t n)
{
    if (x->queue.n > 0 && x->queue.n + n > HTTP_EXCHANGE_QUEUE) {
        x->paused = true;
        return CURL_WRITEFUNC_PAUSE; /* libcurl brings the same bytes again */
    }
    if (buf_add(&x->queue, p, n, NULL) < 0)
        return break_off(x, HTTP_FAIL_PROTOCOL, "a piece of it is too long");
    x->body_n += n;
    wake(x);
    return n;
}

size_t http_exchange_on_body(char *p, size_t size, size_t n, void *arg)
{
    struct http_exchange *x = arg;

    n *= size;
    if (n > x->max - x->body_n)
        return break_off(x, HTTP_FAIL_TOO_BIG, NULL);
    if (x->streaming)
        return queue_body(x, p, n);
    make_room(x, n);
    memcpy(x->body + x->body_n, p, n);
    x->body_n += n;
    return n;
}

void http_exchange_clear(struct http_exchange *x)
{
    if (x->body_on_heap)
        free(x->body);
    x->body = NULL;
    x->body_n = x->body_cap = 0;
    x->body_on_heap = x->head_done = x->encoded = false;
    x->status = 0;
    x->headers = NULL;
    x->n_headers = x->cap_headers = x->header_bytes = 0;
    x->content_length = -1;
    buf_done(&x->queue);
    x->done = x->paused = false;
    x->code = CURLE_OK;
    x->fail = HTTP_FAIL_NONE;
    x->fail_why = x->refused = NULL;
    x->opened = x->requests = 0;
    x->error[0] = '\0';
    x->fiber = NULL;
    x->arena = NULL;
}
