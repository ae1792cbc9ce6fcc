/* SPDX-License-Identifier: MIT */
/*
 * net/http_upgrade.h — how a handler of a ROUTE_WS route takes its connection away from the HTTP
 * server. Private to net/: ws_accept() is the only caller.
 *
 * When such a handler runs, every earlier answer has been written whole and nothing is queued on
 * the stream, so the new owner's first bytes are the 101 head, written by the new owner itself
 * (stream_writev, queueing what does not fit as it does for all it sends).
 */
#pragma once

#include "base/buf.h"
#include "net/http.h"
#include "net/stream.h"

/* A place in the server's counts of connections, total and per address; outlives the server. */
struct http_seat;

/*
 * Detach the connection from its request. The caller owns *ret_stream from now on and must
 * stream_rebind() and stream_want() it before it returns to the loop. *ret_rest gets the bytes
 * that were read past the request head (initialised with room for max_rest more bytes; give it
 * to buf_done()), *ret_seat is given back with http_seat_free() when the connection ends.
 * The request, its arena and the fiber live on until the handler returns; what it leaves as an
 * answer is dropped. ERR_CANCELED when the peer has gone, ERR_INVALID when an answer has begun,
 * ERR_UNAUTHORIZED when what the caller came in by has ended meanwhile.
 */
int http_conn_take(struct http_req *req, size_t max_rest, struct stream **ret_stream,
                   struct buf *ret_rest, struct http_seat **ret_seat, struct err *e) MUST_CHECK;

/*
 * Who sits there does so by this grant (0: by none that ends): when it has ended, end(arg) is
 * called, once. It may not free a seat.
 */
void http_seat_rest_on(struct http_seat *seat, uint64_t grant, void (*end)(void *arg), void *arg);

/* NULL is fine. */
void http_seat_free(struct http_seat *seat);
