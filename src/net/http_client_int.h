/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_int.h — what the files of the HTTP client share. For http_client*.c only.
 *
 * A call is a struct http_exchange with a curl easy handle. They are pooled: options that never
 * change are set once in their life, the others only when a call differs from the one before.
 *
 * libcurl's callbacks only write down what happened and wake the fiber. Handles are added,
 * removed and unpaused from outside of them, in drive().
 */
#pragma once

#include <curl/curl.h>
#include <sys/un.h>

#include "base/buf.h"
#include "net/http_client.h"
#include "net/url.h"

/* One socket that libcurl watches or keeps for later. */
struct http_watch {
    struct http_client *client;
    struct loop_io *io;
    int fd;
    bool ours;    /* made by our open_socket(), so close_socket() will tell when it ends */
    bool settled; /* it has carried an answer, so its end will be told */
    bool idle;    /* libcurl does not wait for it now */
};

#define HTTP_HOST_BUCKETS 256

struct http_host; /* the calls to one host: http_client_host.c */

struct http_client {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *timer;
    uint64_t timer_due, timer_set; /* what libcurl wants / what the loop's timer has */
    struct http_watch **watches;   /* by descriptor */
    size_t n_watches;
    struct http_exchange *spare; /* free ones, newest first */
    unsigned n_spare, low_spare; /* the fewest since trimming was last looked at */
    struct loop_timer *trim;     /* gives back what a burst has left; runs while there is much */
    bool trimming;
    uint64_t trim_ms;
    const struct outbound_policy *policy;
    char *proxy, *ca_file;
    long per_host;
    char *unix_path; /* the latest unix socket called whose path is long, and how it is reached */
    struct sockaddr_un unix_addr;
    int unix_dir_fd;
    struct http_host *hosts[HTTP_HOST_BUCKETS];
};

struct http_exchange {
    struct http_client *client;
    struct http_exchange *next; /* in the list of spare ones */
    CURL *easy;

    /* Options as they are set now. */
    enum http_method method;
    bool has_body, has_unix_socket, has_encoding;

    /* The call. */
    struct arena *arena;
    struct fiber *fiber;    /* parked for us, or NULL */
    struct http_host *host; /* where we take up a place, or NULL */
    struct url url;
    uint64_t deadline_ms;
    size_t max;
    bool streaming;
    bool added;  /* libcurl has it */
    bool done;   /* libcurl is through with it; code says how */
    bool paused; /* libcurl holds bytes that had no room */
    CURLcode code;
    enum http_fail fail;  /* set by a callback that broke the call off, else HTTP_FAIL_NONE */
    const char *fail_why; /* constant text to it */
    const char *refused;  /* why the policy refused an address, or NULL */
    unsigned opened;      /* sockets made */
    unsigned requests;    /* times the request was about to be sent */

    /* The answer. */
    bool head_done;
    bool encoded;
    int status;
    struct http_header *headers;
    size_t n_headers, cap_headers, header_bytes;
    long long content_length; /* -1: not said */
    char *body;
    size_t body_n, body_cap; /* in streaming body_n counts what has passed */
    bool body_on_heap;
    struct buf queue; /* streaming: what nobody has read yet */

    char error[CURL_ERROR_SIZE];
};

/* http_client.c */

/* Give libcurl an event (or CURL_SOCKET_TIMEOUT), collect what has finished, set the timer. */
void http_client_drive(struct http_client *c, curl_socket_t fd, int bits);

/* A spare exchange with its constant options set / back among the spare ones, or freed. */
struct http_exchange *http_exchange_take(struct http_client *c);
void http_exchange_give(struct http_exchange *x);

/* Take it away from libcurl, which closes its connection unless the answer was read to its end. */
void http_exchange_remove(struct http_exchange *x);

/*
 * http_client_host.c: wait for a place among the calls to a host; give it to the next. key: what
 * tells hosts apart. An error is that of the wait.
 */
CO int http_host_enter(struct http_client *c, struct str key, uint64_t deadline_ms,
                       struct http_host **ret, struct err *e) MUST_CHECK;
void http_host_leave(struct http_host *h);

/* http_client_body.c: the callbacks that receive an answer. */
size_t http_exchange_on_header(char *p, size_t size, size_t n, void *arg);
size_t http_exchange_on_body(char *p, size_t size, size_t n, void *arg);

/* Forget the answer of the call before. */
void http_exchange_clear(struct http_exchange *x);

/* http_client_fail.c: turn how it ended into *ret_fail and an error with a text for people. */
int http_exchange_explain(struct http_exchange *x, enum http_fail *ret_fail, struct err *e)
    MUST_CHECK;
int http_fail_set(struct http_exchange *x, enum http_fail fail, const char *why, struct err *e);
