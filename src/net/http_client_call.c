/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_call.c — one call: its options, http_fetch() and http_exchange_*().
 *
 * A call costs the fiber one wait: the request is written by the time http_client_drive() returns
 * when a kept connection is at hand, and the fiber wakes when the whole answer (a fetch), its
 * head or a piece of its body (an exchange) is there.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"
#include "net/http_client_int.h"
#include "net/stream.h"

#define ANSWER_MAX       (16 * MIB)
#define EXPECT_THRESHOLD MIB /* above, libcurl would add "Expect: 100-continue" */
#define HEADERS_OUT_MAX  64
#define ENCODINGS        "gzip, deflate"
#define ENCODINGS_HEADER "Accept-Encoding: " ENCODINGS

/* --- options --- */

static bool named(const char *header, const char *name)
{
    size_t n = strlen(name);

    return strncasecmp(header, name, n) == 0 && header[n] == ':';
}

/*
 * libcurl's list, built in the arena, where it lasts as long as the call. It formats a header of
 * its own twice and character by character, and one of the list once; that is felt in every call.
 */
static struct curl_slist *headers_of(const struct http_exchange *x, const struct http_call *call,
                                     bool body)
{
    static char no_type[] = "Content-Type:", no_expect[] = "Expect:";
    static char agent[] = "User-Agent: chela/" CHELA_VERSION, encodings[] = ENCODINGS_HEADER;
    struct curl_slist *nodes;
    bool typed = !body;
    size_t n = 0;

    while (call->headers && call->headers[n])
        n++;
    nodes = arena_raw(x->arena, (n + 4) * sizeof(*nodes));

    for (size_t i = 0; i < n; i++) {
        typed |= named(call->headers[i], "Content-Type");
        nodes[i].data = arena_strdup(x->arena, call->headers[i]);
    }
    nodes[n++].data = agent;
    if (!x->streaming)
        nodes[n++].data = encodings;
    if (!typed)
        nodes[n++].data = no_type; /* else libcurl says it is a form */
    if (call->body.n > EXPECT_THRESHOLD)
        nodes[n++].data = no_expect;
    for (size_t i = 0; i < n; i++)
        nodes[i].next = i + 1 < n ? &nodes[i + 1] : NULL;
    return nodes;
}

/* A value may come from a setting or a request; it must not become a header of its own. */
static int check_headers(const struct http_call *call, struct err *e)
{
    size_t n = 0;

    for (const char *const *h = call->headers; h && *h; h++) {
        if (++n > HEADERS_OUT_MAX)
            return err_set(e, ERR_INVALID, "request has over %d headers", HEADERS_OUT_MAX);
        if (strpbrk(*h, "\r\n") || !strchr(*h, ':'))
            return err_set(e, ERR_INVALID, "header '%.*s' is malformed", (int)strcspn(*h, ":\r\n"),
                           *h);
    }
    return 0;
}

static bool takes_body(enum http_method m)
{
    return m == HTTP_M_POST || m == HTTP_M_PUT || m == HTTP_M_PATCH;
}

static void set_method(struct http_exchange *x, enum http_method method, bool body)
{
    CURL *h = x->easy;

    if (x->method == method && x->has_body == body)
        return;
    if (method == HTTP_M_HEAD)
        curl_easy_setopt(h, CURLOPT_NOBODY, 1L);
    else if (body)
        curl_easy_setopt(h, CURLOPT_POST, 1L);
    else
        curl_easy_setopt(h, CURLOPT_HTTPGET, 1L); /* also takes NOBODY back */
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST,
                     method == HTTP_M_GET || method == HTTP_M_HEAD || method == HTTP_M_POST
                         ? NULL
                         : http_method_name(method));
    x->method = method;
    x->has_body = body;
}

/* The path of a unix socket by which libcurl can reach it, however long it is. */
static const char *short_path(struct http_client *c, const char *path)
{
    struct sockaddr_un sa;
    int fd;

    if (!path || strlen(path) < sizeof(sa.sun_path))
        return path;
    if (c->unix_path && strcmp(c->unix_path, path) == 0)
        return c->unix_addr.sun_path;
    if (unix_addr_of(path, &sa, &fd, NULL) < 0)
        return path; /* libcurl says what is wrong with it */
    if (c->unix_dir_fd >= 0)
        close(c->unix_dir_fd);
    free(c->unix_path);
    c->unix_path = xstrdup(path);
    c->unix_addr = sa;
    c->unix_dir_fd = fd;
    return c->unix_addr.sun_path;
}

static void set_options(struct http_exchange *x, const struct http_call *call)
{
    bool body = call->body.n > 0 || takes_body(call->method);
    CURL *h = x->easy;

    curl_easy_setopt(h, CURLOPT_URL, call->url);
    if (x->has_body && !body)
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, NULL);
    set_method(x, call->method, body);
    if (body) {
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, call->body.n ? call->body.p : "");
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.n);
    }
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers_of(x, call, body));
    if (call->unix_socket || x->has_unix_socket)
        curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, short_path(x->client, call->unix_socket));
    x->has_unix_socket = call->unix_socket != NULL;
    /*
     * A streamed answer is not asked for in gzip: it comes in small pieces, and libcurl would hold
     * all that a compressed piece grows to while the reader is slow.
     */
    if (x->has_encoding == x->streaming)
        curl_easy_setopt(h, CURLOPT_ACCEPT_ENCODING, x->streaming ? NULL : ENCODINGS);
    x->has_encoding = !x->streaming;
}

/* With a proxy it is the proxy that resolves names, but a literal address can be judged here. */
static int check_behind_proxy(struct http_exchange *x, struct err *e)
{
    struct sockaddr_storage sa;
    const char *why = NULL;

    if (!x->client->proxy[0] || !url_address(&x->url, &sa))
        return 0;
    if (outbound_allowed(x->client->policy, (struct sockaddr *)&sa, &why))
        return 0;
    return http_fail_set(x, HTTP_FAIL_POLICY, why, e);
}

/* --- begin and end --- */

static int end_wait(struct http_exchange *x, int r, struct err *e)
{
    return http_fail_set(x, r == -ERR_TIMEOUT ? HTTP_FAIL_TIMEOUT : HTTP_FAIL_CANCELED, NULL, e);
}

/* What tells hosts apart: the URL up to its path. */
static struct str host_key(const struct http_exchange *x, const struct http_call *call)
{
    const char *end = x->url.host.p + x->url.host.n;

    if (call->unix_socket)
        return str_of(call->unix_socket);
    end += strcspn(end, "/?"); /* the port */
    return (struct str){ call->url, (size_t)(end - call->url) };
}

CO static int begin(struct http_exchange *x, const struct http_call *call, struct arena *a,
                    struct err *e)
{
    CURLMcode code;
    int r;

    x->arena = a;
    x->deadline_ms = call->deadline_ms;
    x->max = call->max_answer ? call->max_answer : ANSWER_MAX;
    r = url_parse(str_of(call->url), &x->url, e);
    if (r == 0)
        r = check_headers(call, e);
    if (r < 0) {
        x->fail = HTTP_FAIL_PROTOCOL;
        return r;
    }
    r = check_behind_proxy(x, e);
    if (r < 0)
        return r;
    r = http_host_enter(x->client, host_key(x, call), call->deadline_ms, &x->host, e);
    if (r == 0 && x->deadline_ms != DEADLINE_NONE && now_ms() >= x->deadline_ms)
        r = -ERR_TIMEOUT; /* nothing is begun that could not end */
    if (r < 0)
        return end_wait(x, r, e);
    set_options(x, call);
    code = curl_multi_add_handle(x->client->multi, x->easy);
    assert(code == CURLM_OK);
    x->added = true;
    http_client_drive(x->client, CURL_SOCKET_TIMEOUT, 0);
    return 0;
}

/* Park once; a call that can no longer succeed is taken off libcurl. */
CO static int wait_once(struct http_exchange *x, uint64_t deadline_ms, struct err *e)
{
    uint64_t until = deadline_min(deadline_ms, x->deadline_ms);
    int r;

    x->fiber = fiber_self();
    r = fiber_park(until, e);
    x->fiber = NULL;
    if (r == 0 || x->done)
        return 0;
    if (r == -ERR_TIMEOUT && x->deadline_ms > until)
        return r; /* only this read's patience is at its end */
    http_exchange_remove(x);
    x->done = true;
    return end_wait(x, r, e);
}

static void fill_head(const struct http_exchange *x, struct http_answer *ret)
{
    *ret = (struct http_answer){
        .status = x->status,
        .headers = x->headers,
        .n_headers = x->n_headers,
        .body = STR(""),
    };
}

static int failed(const struct http_exchange *x, struct http_answer *ret, int r)
{
    *ret = (struct http_answer){
        .status = x->head_done ? x->status : 0,
        .body = STR(""),
        .fail = x->fail,
    };
    return r;
}

static void take_body(struct http_exchange *x, struct http_answer *ret)
{
    if (!x->body)
        return;
    x->body[x->body_n] = '\0';
    if (x->body_on_heap)
        arena_on_free(x->arena, free, x->body);
    x->body_on_heap = false;
    ret->body = (struct str){ x->body, x->body_n };
}

CO static int fetch(struct http_exchange *x, const struct http_call *call, struct arena *a,
                    struct http_answer *ret, struct err *e)
{
    enum http_fail fail;
    int r;

    r = begin(x, call, a, e);
    if (r < 0)
        return failed(x, ret, r);
    while (!x->done) {
        r = wait_once(x, DEADLINE_NONE, e);
        if (r < 0)
            return failed(x, ret, r);
    }
    if (x->code != CURLE_OK) {
        r = http_exchange_explain(x, &fail, e);
        return failed(x, ret, r);
    }
    fill_head(x, ret);
    take_body(x, ret);
    return 0;
}

CO int http_fetch(struct http_client *c, const struct http_call *call, struct arena *a,
                  struct http_answer *ret, struct err *e)
{
    struct http_exchange *x = http_exchange_take(c);
    int r;

    x->streaming = false;
    r = fetch(x, call, a, ret, e);
    http_exchange_give(x);
    return r;
}

/* --- streaming --- */

CO static int open_exchange(struct http_exchange *x, const struct http_call *call, struct arena *a,
                            struct http_answer *ret, struct err *e)
{
    struct http_call kept = *call;
    enum http_fail fail;
    int r;

    /* The caller's strings end with this call, but libcurl may still be sending. */
    kept.url = arena_strdup(a, call->url);
    kept.body = arena_str(a, call->body);
    r = begin(x, &kept, a, e);
    if (r < 0)
        return failed(x, ret, r);
    while (!x->done && !x->head_done) {
        r = wait_once(x, DEADLINE_NONE, e);
        if (r < 0)
            return failed(x, ret, r);
    }
    if (!x->head_done) {
        r = http_exchange_explain(x, &fail, e);
        return failed(x, ret, r);
    }
    fill_head(x, ret);
    return 0;
}

CO int http_exchange_open(struct http_client *c, const struct http_call *call, struct arena *a,
                          struct http_answer *ret_head, struct http_exchange **ret, struct err *e)
{
    struct http_exchange *x = http_exchange_take(c);
    int r;

    x->streaming = true;
    r = open_exchange(x, call, a, ret_head, e);
    if (r < 0) {
        http_exchange_give(x);
        return r;
    }
    *ret = x;
    return 0;
}

static void unpause(struct http_exchange *x)
{
    CURLcode code;

    x->paused = false;
    code = curl_easy_pause(x->easy, CURLPAUSE_CONT); /* brings what was held back, at once */
    if (code == CURLE_OK) {
        http_client_drive(x->client, CURL_SOCKET_TIMEOUT, 0);
        return;
    }
    http_exchange_remove(x); /* libcurl has dropped bytes, and would go on without them */
    x->code = code;
    x->done = true;
}

/* A peer that always has more at hand would let no other fiber run. */
CO static int give_way(struct http_exchange *x, struct err *e)
{
    if (fiber_yield(e) == 0)
        return 0;
    http_exchange_remove(x);
    x->done = true;
    return http_fail_set(x, HTTP_FAIL_CANCELED, NULL, e);
}

CO int http_exchange_read(struct http_exchange *x, void *p, size_t n, size_t *ret_n,
                          uint64_t deadline_ms, struct err *e)
{
    enum http_fail fail;
    int r;

    if (x->queue.n > 0 && !x->done) {
        r = give_way(x, e);
        if (r < 0)
            return r;
    }
    while (x->queue.n == 0 && !x->done) {
        r = wait_once(x, deadline_ms, e);
        if (r < 0)
            return r;
    }
    if (x->queue.n > 0) {
        if (n > x->queue.n)
            n = x->queue.n;
        memcpy(p, buf_str(&x->queue).p, n);
        buf_eat(&x->queue, n);
        if (x->paused && x->queue.n < HTTP_EXCHANGE_QUEUE / 2)
            unpause(x);
        *ret_n = n;
        return 0;
    }
    if (x->fail != HTTP_FAIL_NONE || x->code != CURLE_OK)
        return http_exchange_explain(x, &fail, e);
    *ret_n = 0;
    return 0;
}

enum http_fail http_exchange_fail(const struct http_exchange *x)
{
    return x->fail;
}

void http_exchange_close(struct http_exchange *x)
{
    if (x)
        http_exchange_give(x);
}

struct str http_answer_header(const struct http_answer *a, const char *name)
{
    for (size_t i = 0; i < a->n_headers; i++)
        if (str_eq_nocase(a->headers[i].name, str_of(name)))
            return a->headers[i].value;
    return (struct str){ 0 };
}
