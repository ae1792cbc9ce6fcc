/* SPDX-License-Identifier: MIT */
/*
 * net/ws.h — WebSocket (RFC 6455), server and client, over wslay (included in ws_rx.c and nowhere
 * else).
 *
 * wslay reads frames; we add what it leaves to its user: the handshake, masking rules, UTF-8
 * of text over fragments, close codes, ping/pong deadlines, bounded queues with write-through.
 * No extension is negotiated. An open socket costs no fiber and, while idle, no buffer: messages
 * come through ops; a fiber may use ws_recv() instead.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/http.h"
#include "net/stream.h"

enum ws_kind { WS_TEXT, WS_BINARY };

struct ws;

struct ws_ops { /* all optional; called on the loop's thread */
    void (*message)(struct ws *ws, enum ws_kind kind, struct str data,
                    void *arg); /* data valid during the call */
    /*
     * Once, last, and never from inside a call of yours: code and reason of the peer's close (1005
     * when it gave none), the code we failed it with (1002, 1007, 1009), or 1006 when it just went.
     * The ws is freed after, unless it is read by ws_recv().
     */
    void (*closed)(struct ws *ws, unsigned code, struct str reason, void *arg);
    /* All that waited to be sent has been written. */
    void (*drained)(struct ws *ws, void *arg);
};

struct ws_limits {
    size_t message;    /* largest whole message: 1009 past it; 0 = 1 MiB */
    size_t queue;      /* bytes waiting to be sent: past it ws_send is ERR_LIMIT; 0 = 4 MiB */
    uint64_t ping_ms;  /* silence after which we ping; 0 = 30 s */
    uint64_t dead_ms;  /* silence after which we close with 1006; 0 = 2 * ping_ms + 5 s */
    uint64_t close_ms; /* how long we wait for the peer's close; 0 = 5 s */
    size_t inbox;      /* messages kept for ws_recv before reading pauses (back-pressure); 0 = 64;
                          so do .message bytes of them */
    bool gather;       /* what is sent in one turn of the loop is written together at its end */
};

/*
 * Server side, inside a ROUTE_WS handler: answer 101 and take the connection. The request and its
 * arena end when the handler returns; the socket lives on. subprotocol NULL: none; it is answered
 * only to a client that has offered it. WS_REFUSED: not a valid upgrade, the answer (400, 426) is
 * in req and the handler returns; the server has checked Origin and auth already. ops must outlive
 * the socket.
 */
enum { WS_REFUSED = 1 };
int ws_accept(struct http_req *req, const char *subprotocol, const struct ws_limits *limits,
              const struct ws_ops *ops, void *arg, struct ws **ret, struct err *e) MUST_CHECK;

/* Client side. url ws:// or wss://; headers as in http_call. No outbound policy is applied.
 * ERR_UNAUTHORIZED: the answer is 401. */
struct ws_connect {
    const char *url;
    const char *const *headers;
    const char *subprotocol;
    const char *unix_socket; /* connect there instead of to the URL's host; NULL: no */
    struct tls_context *tls; /* for wss; NULL: system CAs */
    unsigned keep_alive_s;   /* see stream_keep_alive(); 0: no */
    uint64_t deadline_ms;
};
CO int ws_open(struct loop *loop, const struct ws_connect *c, const struct ws_limits *limits,
               const struct ws_ops *ops, void *arg, struct ws **ret, struct err *e) MUST_CHECK;

/* Queue one message; written at once when nothing waits. ERR_LIMIT: queue full, nothing was queued.
 * ERR_UNAVAILABLE: closing. */
int ws_send(struct ws *ws, enum ws_kind kind, struct str data, struct err *e) MUST_CHECK;
/* The same, waiting while the queue is full. */
CO int ws_send_wait(struct ws *ws, enum ws_kind kind, struct str data, uint64_t deadline_ms,
                    struct err *e) MUST_CHECK;

/*
 * Receive, in one fiber at a time, when ops or ops->message is NULL. 0, or WS_CLOSED
 * (ws_close_code() says how) once all messages have been taken; data is a terminated copy in the
 * arena.
 */
enum { WS_CLOSED = 1 };
CO int ws_recv(struct ws *ws, struct arena *a, enum ws_kind *ret_kind, struct str *ret,
               uint64_t deadline_ms, struct err *e) MUST_CHECK;
unsigned ws_close_code(const struct ws *ws); /* after WS_CLOSED */

/*
 * Stop handing out messages, and reading, until ws_resume_reading(); for sockets with ops->message,
 * also from inside it. At most one read's bytes are kept. Silence does not count meanwhile.
 */
void ws_pause_reading(struct ws *ws);
void ws_resume_reading(struct ws *ws);

/*
 * The socket rests on this grant of the server's (http_identity.grant) instead of the request's
 * own, which ws_accept() notes: when it ends, the socket is closed with 1008. 0: nothing ends it.
 */
void ws_rest_on(struct ws *ws, uint64_t grant);

/* From the next message on: other limits.message and limits.inbox bytes. */
void ws_limit_message(struct ws *ws, size_t max);
uint64_t ws_heard_ms(const struct ws *ws); /* when a byte came last, by now_ms() */

/* Sockets that still hold a stream; those that close linger up to 2 s after closed(). */
unsigned ws_streams(void);

/*
 * Start the closing handshake (code 1005: without a code; reason may be NULL); what was sent before
 * goes first, what the peer still sends is dropped. closed() follows, at the latest after close_ms.
 */
void ws_close(struct ws *ws, unsigned code, const char *reason);
void ws_abort(struct ws *ws);          /* reset; closed(1006) follows */
size_t ws_queued(const struct ws *ws); /* bytes waiting */
const struct stream_addr *ws_peer(const struct ws *ws);
/*
 * Release a ws that is read by ws_recv(), after WS_CLOSED or before (then it is reset and nobody is
 * told). Sockets with ops->message free themselves after ops->closed: never call it for them. NULL
 * is fine.
 */
void ws_free(struct ws *ws);

/* Pure, for tests and fuzzing: Sec-WebSocket-Accept of a key (RFC 6455 §4.2.2). out holds 29. */
void ws_accept_key(struct str key, char out[29]);
