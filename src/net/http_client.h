/* SPDX-License-Identifier: MIT */
/*
 * net/http_client.h — calls to other servers, over libcurl multi (included in http_client*.c and
 * nowhere else).
 *
 * Pooled connections, HTTP/2 when the server offers it on TLS, one total deadline, a size cap on
 * the answer, redirects never followed, proxies only when the settings name one, IPv6, cancel.
 * This is the one way out: every address a name resolves to is checked against the policy
 * (outbound.h) right before the connect, so a name cannot change its mind in between.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/fiber.h"
#include "net/http.h"
#include "net/outbound.h"

struct http_client;

struct http_client_conf {
    const struct outbound_policy
        *policy;         /* borrowed; NULL: everything is allowed (CLI on its own socket) */
    const char *proxy;   /* NULL or "": none, whatever the environment says */
    const char *ca_file; /* NULL: the system's */
    long per_host;       /* connections per host; 0 = 32; waiting calls queue in order */
    long idle;           /* kept connections in all; 0 = 256 */
};
int http_client_new(struct loop *loop, const struct http_client_conf *conf,
                    struct http_client **ret, struct err *e) MUST_CHECK;

/* No call may be under way. Until then kept connections may keep loop_run() from returning. */
void http_client_free(struct http_client *c);

/* Why a call has no usable answer, for classification and texts. */
enum http_fail {
    HTTP_FAIL_NONE,
    HTTP_FAIL_DNS,      /* the name does not resolve */
    HTTP_FAIL_CONNECT,  /* refused, unreachable */
    HTTP_FAIL_TLS,      /* handshake or certificate */
    HTTP_FAIL_TIMEOUT,  /* the deadline */
    HTTP_FAIL_RESET,    /* the connection ended before the answer did */
    HTTP_FAIL_PROTOCOL, /* not HTTP, bad chunking */
    HTTP_FAIL_TOO_BIG,  /* answer over max_answer */
    HTTP_FAIL_POLICY,   /* the address is not allowed */
    HTTP_FAIL_CANCELED,
};

struct http_call {
    enum http_method method;
    const char *url;            /* absolute */
    const char *const *headers; /* "Name: value" strings, NULL-terminated; may be NULL */
    struct str body;
    const char *unix_socket; /* connect there instead of to the URL's host */
    uint64_t deadline_ms;    /* connect + send + wait + read together */
    size_t max_answer;       /* bytes of body after decoding; 0 = 16 MiB */
};

/*
 * libcurl repeats a request by itself when a kept connection turns out dead: with methods other
 * than GET, HEAD and OPTIONS only if nothing of it had been sent, else the call fails with
 * HTTP_FAIL_RESET.
 */

struct http_answer {
    int status; /* of a failed call: what its head said, 0 without one */
    const struct http_header *headers;
    size_t n_headers;
    struct str body; /* terminated copy in the arena; decoded from gzip/deflate */
    enum http_fail fail;
};

/*
 * Make the call and read the whole answer. 0: a complete answer of whatever status. <0: none;
 * ret->fail says why (it is always filled; so is
 * ret->status when the head had arrived), e the text. All memory is the arena's.
 */
CO int http_fetch(struct http_client *c, const struct http_call *call, struct arena *a,
                  struct http_answer *ret, struct err *e) MUST_CHECK;

/*
 * The same piece by piece. open returns once the answer's head is there (ret->body is empty);
 * read hands out bytes as they come (0 and *ret_n = 0 at the end) and holds the peer back when
 * nobody reads (at most HTTP_EXCHANGE_QUEUE bytes wait); close frees, aborting what is not
 * finished. A read whose own deadline passes before the call's is -ERR_TIMEOUT with
 * http_exchange_fail() still NONE: it may be tried again. Compression is not asked for, nor undone.
 * The arena must outlive the exchange.
 */
#define HTTP_EXCHANGE_QUEUE (64 * KIB)
struct http_exchange;
CO int http_exchange_open(struct http_client *c, const struct http_call *call, struct arena *a,
                          struct http_answer *ret_head, struct http_exchange **ret, struct err *e)
    MUST_CHECK;
CO int http_exchange_read(struct http_exchange *x, void *p, size_t n, size_t *ret_n,
                          uint64_t deadline_ms, struct err *e) MUST_CHECK;
enum http_fail http_exchange_fail(const struct http_exchange *x);
void http_exchange_close(struct http_exchange *x); /* NULL is fine */

/* First header of that name in an answer; {NULL, 0} when absent. */
struct str http_answer_header(const struct http_answer *a, const char *name);

/*
 * Retry-After (RFC 9110 §10.2.3): delta-seconds or an HTTP-date in any of its three forms;
 * milliseconds from now, 0 when absent or unreadable, at most 24 h. Pure.
 */
long long retry_after_parse(struct str value, int64_t now_wall_us);
