/* SPDX-License-Identifier: MIT */
/*
 * net/stream.h — one non-blocking byte stream: TCP, unix socket, or TLS over TCP.
 *
 * A stream owns its descriptor and its loop_io. Reads and writes never wait: they do what can be
 * done now and say STREAM_AGAIN otherwise; the owner hears of readiness through its callback and
 * tries again. TLS (libssl, included in stream_tls.c and nowhere else) hides behind the same calls:
 * a read may want the socket writable and the reverse; the stream takes care of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/loop.h"

enum { STREAM_AGAIN = 1, STREAM_END = 2 };

struct stream;
struct tls_context; /* certificates and policy of a server or a client; shared by its streams */

struct stream_addr {
    char text[64]; /* "127.0.0.1", "::1", "unix" : for limits, logs and the loopback rule */
    unsigned short port;
    bool loopback; /* 127.0.0.0/8, ::1, ::ffff:127/104 */
    bool local;    /* unix socket; uid is SO_PEERCRED's */
    unsigned uid;
};

/*
 * Take over a connected non-blocking fd. ready(arg) may free the stream. tls NULL: plain; with a
 * server's context tls_name is NULL, with a client's it is the name or address to verify. The TLS
 * handshake happens inside the first reads and writes.
 */
struct stream *stream_new(struct loop *loop, int fd, struct tls_context *tls, const char *tls_name,
                          void (*ready)(struct stream *s, unsigned events, void *arg), void *arg);

/* 0 and *ret_n > 0 bytes; STREAM_AGAIN; STREAM_END (orderly end); <0 reset or TLS failure. */
int stream_read(struct stream *s, void *p, size_t n, size_t *ret_n, struct err *e) MUST_CHECK;

/*
 * 0 and *ret_n bytes written (maybe fewer than given); STREAM_AGAIN: the next call must begin with
 * the same bytes, and may bring more behind them.
 */
int stream_writev(struct stream *s, const struct iovec *iov, int n_iov, size_t *ret_n,
                  struct err *e) MUST_CHECK;

/*
 * LOOP_READ | LOOP_WRITE, what ready() is to be called for; nothing at first. Bytes that TLS has
 * decrypted already count as readable when LOOP_READ is newly wanted; who keeps it wanted reads
 * until STREAM_AGAIN.
 */
void stream_want(struct stream *s, unsigned events);
bool stream_pending(const struct stream *s); /* TLS holds decrypted bytes: read again */
int stream_hung_up(const struct stream *s,
                   struct err *e);      /* asked without reading: 0, STREAM_END, <0 reset */
void stream_shutdown(struct stream *s); /* tell the peer we are done writing */
/* Ask the peer after so many idle seconds whether it is there, and give it up after some more. */
void stream_keep_alive(struct stream *s, unsigned idle_s);
/* Acknowledge what was read at once: the peer may hold the rest back until then (Nagle). */
void stream_ack_now(struct stream *s);
void stream_reset(struct stream *s); /* make the coming stream_free() send a RST */
void stream_free(struct stream *s);  /* NULL is fine; closes the fd at the end of the turn */
const struct stream_addr *stream_peer(const struct stream *s);

/* Listening sockets. host may be a name or literal; port 0 picks one; *ret_port says which. */
int listen_tcp(const char *host, unsigned short port, int backlog, int *ret_fd,
               unsigned short *ret_port, struct err *e) MUST_CHECK;
int listen_unix(const char *path, int *ret_fd, struct err *e)
    MUST_CHECK; /* 0600; replaces a dead socket only */

/*
 * The address of a unix socket. A path longer than sun_path is reached through its directory,
 * which *ret_dir_fd then holds open (else -1): keep it until bind or connect has been done.
 */
struct sockaddr_un;
int unix_addr_of(const char *path, struct sockaddr_un *ret, int *ret_dir_fd, struct err *e)
    MUST_CHECK;

bool addr_is_loopback(const char *host); /* literal or "localhost" */

/*
 * Connect as a fiber: resolve (offload), try each address (happy: next after 250 ms), TLS
 * handshake. *ret has no owner's callback yet: stream_rebind() it. No outbound policy is applied
 * here.
 */
CO int stream_connect(struct loop *loop, const char *host, unsigned short port,
                      struct tls_context *tls, uint64_t deadline_ms, struct stream **ret,
                      struct err *e) MUST_CHECK;
CO int stream_connect_unix(struct loop *loop, const char *path, struct stream **ret, struct err *e)
    MUST_CHECK;

/* Replace the readiness callback, when another owner takes the stream over (an upgrade). */
void stream_rebind(struct stream *s, void (*ready)(struct stream *s, unsigned events, void *arg),
                   void *arg);

/* TLS 1.2 or newer. Errors name the file. Streams keep a context alive after tls_context_free(). */
int tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret,
                   struct err *e) MUST_CHECK;
int tls_client_new(const char *ca_file /* NULL: the system's */, struct tls_context **ret,
                   struct err *e) MUST_CHECK;
void tls_context_free(struct tls_context *t);
