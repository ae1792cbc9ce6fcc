/* SPDX-License-Identifier: MIT */
/*
 * net/stream_int.h — what the files of a stream share: its struct, and the calls by which
 * stream.c reaches TLS without seeing libssl. For stream*.c only.
 */
#pragma once

#include "net/stream.h"

struct tls; /* the TLS half of one stream */

struct stream {
    struct loop *loop;
    struct loop_io *io;
    struct tls *tls; /* NULL: plain */
    void (*ready)(struct stream *s, unsigned events, void *arg);
    void *arg;
    int fd;
    unsigned char want;       /* what the owner waits for */
    unsigned char read_needs; /* the readiness a read waits for: LOOP_READ but for TLS's oddities */
    unsigned char write_needs; /* the same of a write */
    bool kicked;               /* a call of ready is on its way, for bytes TLS already holds */
    bool freed;
    struct stream_addr peer;
};

/* Fill *ret with what a socket address says; unknown families leave "unknown". */
void stream_addr_of(const struct sockaddr *sa, struct stream_addr *ret);

/* A client's name must be given (it is verified and sent as SNI), a server's is NULL. */
struct tls *tls_new(struct tls_context *context, int fd, const char *name);
void tls_free(struct tls *t);

/* As the calls of stream.h; *needs is set to the readiness to wait for on STREAM_AGAIN. */
int tls_read(struct tls *t, void *p, size_t n, size_t *ret_n, unsigned char *needs, struct err *e)
    MUST_CHECK;
int tls_writev(struct tls *t, const struct iovec *iov, int n_iov, size_t *ret_n,
               unsigned char *needs, struct err *e) MUST_CHECK;
int tls_handshake(struct tls *t, unsigned char *needs, struct err *e) MUST_CHECK;
bool tls_pending(const struct tls *t);
void tls_shutdown(struct tls *t);

/* Take the handshake one step: 0 done, STREAM_AGAIN (readiness comes as what was wanted), <0. */
int stream_handshake(struct stream *s, struct err *e) MUST_CHECK;
