/* SPDX-License-Identifier: MIT */
/*
 * net/stream_tls_none.c — in the place of stream_tls.c where a program is built without libssl:
 * nobody gets a TLS context, so no stream ever has a TLS half.
 */
#include <stdlib.h>

#include "net/stream_int.h"

int tls_client_new(const char *ca_file, struct tls_context **ret, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "this program was built without TLS");
}

int tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret,
                   struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "this program was built without TLS");
}

void tls_context_free(struct tls_context *c)
{
}

struct tls *tls_new(struct tls_context *context, int fd, const char *name)
{
    abort(); /* there is no context it could be of */
}

void tls_free(struct tls *t)
{
}

int tls_read(struct tls *t, void *p, size_t n, size_t *ret_n, unsigned char *needs, struct err *e)
{
    return err_set(e, ERR_INTERNAL, "no TLS");
}

int tls_writev(struct tls *t, const struct iovec *iov, int n_iov, size_t *ret_n,
               unsigned char *needs, struct err *e)
{
    return err_set(e, ERR_INTERNAL, "no TLS");
}

int tls_handshake(struct tls *t, unsigned char *needs, struct err *e)
{
    return err_set(e, ERR_INTERNAL, "no TLS");
}

bool tls_pending(const struct tls *t)
{
    return false;
}

void tls_shutdown(struct tls *t)
{
}
