/* SPDX-License-Identifier: MIT */
/*
 * net/stream_tls.c — TLS of streams, over libssl (included here and nowhere else).
 *
 * TLS 1.2 or newer. A client always verifies the chain and the name (or address) it was asked to
 * reach. Short pieces of a write are gathered into one record; buffers of idle connections are
 * given back (SSL_MODE_RELEASE_BUFFERS).
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "net/stream.h"
#include "net/stream_int.h"

#define RECORD   16384 /* plain bytes of one TLS record */
#define SESSIONS 16    /* names whose last session a client keeps for a shorter handshake */

struct tls_session {
    char *name;
    SSL_SESSION *session;
};

struct tls_context {
    SSL_CTX *ctx;
    unsigned refs; /* the owner's and one of each stream */
    bool client;
    struct tls_session sessions[SESSIONS];
    unsigned next_session; /* the slot that is replaced next */
    char gather[RECORD];
};

struct tls {
    SSL *ssl;
    struct tls_context *context;
    char *name;
    bool broken; /* after a fatal error nothing more may be asked of the SSL */
};

/* --- errors --- */

/* What libssl has to say, in one phrase; empties its queue. */
static const char *ssl_reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return text ? text : "unknown failure";
}

static int fail(struct tls *t, int ssl_error, int eno, const char *what, struct err *e)
{
    long verify = SSL_get_verify_result(t->ssl);

    t->broken = true;
    if (verify != X509_V_OK) {
        ERR_clear_error();
        return err_set(e, ERR_UNAVAILABLE, "tls: %s", X509_verify_cert_error_string(verify));
    }
    if (ssl_error == SSL_ERROR_SYSCALL && eno != 0)
        return err_sysn(e, eno, "tls %s", what);
    if (ssl_error == SSL_ERROR_SYSCALL ||
        ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        ERR_clear_error();
        return err_set(e, ERR_UNAVAILABLE, "tls %s: the peer hung up", what);
    }
    return err_set(e, ERR_UNAVAILABLE, "tls %s: %s", what, ssl_reason());
}

/* Judge a call's result: STREAM_AGAIN, STREAM_END or failed. */
static int outcome(struct tls *t, int ret, unsigned char *needs, const char *what, struct err *e)
{
    int eno = errno, error = SSL_get_error(t->ssl, ret);

    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        *needs = error == SSL_ERROR_WANT_READ ? LOOP_READ : LOOP_WRITE;
        return STREAM_AGAIN;
    }
    if (error == SSL_ERROR_ZERO_RETURN)
        return STREAM_END;
    return fail(t, error, eno, what, e);
}

/* --- one stream --- */

static SSL_SESSION *session_find(const struct tls_context *c, const char *name)
{
    for (size_t i = 0; i < SESSIONS; i++)
        if (c->sessions[i].name && strcmp(c->sessions[i].name, name) == 0)
            return c->sessions[i].session;
    return NULL;
}

/* libssl hands over a new session (TLS 1.3: some time after the handshake); 1: we keep it. */
static int session_keep(SSL *ssl, SSL_SESSION *session)
{
    struct tls *t = SSL_get_app_data(ssl);
    struct tls_context *c = t->context;
    struct tls_session *slot = NULL;

    for (size_t i = 0; i < SESSIONS && !slot; i++)
        if (c->sessions[i].name && strcmp(c->sessions[i].name, t->name) == 0)
            slot = &c->sessions[i];
    if (!slot) {
        slot = &c->sessions[c->next_session++ % SESSIONS];
        free(slot->name);
        slot->name = xstrdup(t->name);
    }
    SSL_SESSION_free(slot->session);
    slot->session = session;
    return 1;
}

static void set_peer_name(SSL *ssl, char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    unsigned char addr[16];
    int ok;

    if (inet_pton(AF_INET, name, addr) == 1 || inet_pton(AF_INET6, name, addr) == 1) {
        ok = X509_VERIFY_PARAM_set1_ip_asc(param, name);
    } else {
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        ok = X509_VERIFY_PARAM_set1_host(param, name, 0) && SSL_set_tlsext_host_name(ssl, name);
    }
    assert(ok); /* fails for lack of memory only */
}

struct tls *tls_new(struct tls_context *context, int fd, const char *name)
{
    struct tls *t = xcalloc(1, sizeof(*t));
    SSL_SESSION *session;
    int ok;

    t->context = context;
    context->refs++;
    t->ssl = SSL_new(context->ctx);
    ok = t->ssl && SSL_set_fd(t->ssl, fd);
    assert(ok); /* fails for lack of memory only */
    SSL_set_app_data(t->ssl, t);
    if (!context->client) {
        SSL_set_accept_state(t->ssl);
        return t;
    }
    assert(name);
    t->name = xstrdup(name);
    set_peer_name(t->ssl, t->name);
    SSL_set_connect_state(t->ssl);
    session = session_find(context, name);
    if (session)
        (void)SSL_set_session(t->ssl, session); /* else a full handshake */
    return t;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    tls_context_free(t->context);
    free(t->name);
    free(t);
}

static int broken(struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "tls: the connection has failed before");
}

int tls_handshake(struct tls *t, unsigned char *needs, struct err *e)
{
    int ret, r;

    if (t->broken)
        return broken(e);
    ERR_clear_error();
    errno = 0;
    ret = SSL_do_handshake(t->ssl);
    if (ret == 1)
        return 0;
    r = outcome(t, ret, needs, "handshake", e);
    return r == STREAM_END ? err_set(e, ERR_UNAVAILABLE, "tls handshake: the peer hung up") : r;
}

int tls_read(struct tls *t, void *p, size_t n, size_t *ret_n, unsigned char *needs, struct err *e)
{
    size_t got = 0;
    int ret;

    if (t->broken)
        return broken(e);
    ERR_clear_error();
    errno = 0;
    ret = SSL_read_ex(t->ssl, p, n, &got);
    if (ret != 1)
        return outcome(t, ret, needs, "read", e);
    *ret_n = got;
    return 0;
}

/* The next record's worth: the first piece as it lies if it fills one, else pieces gathered. */
static size_t next_piece(struct tls *t, const struct iovec *iov, int n_iov, size_t skip,
                         const char **ret)
{
    size_t n = 0;

    for (int i = 0; i < n_iov; i++) {
        const char *p = iov[i].iov_base;
        size_t len = iov[i].iov_len, take;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        p += skip;
        len -= skip;
        skip = 0;
        if (n == 0 && (len >= RECORD || i == n_iov - 1)) {
            *ret = p;
            return len < RECORD ? len : RECORD;
        }
        take = len < RECORD - n ? len : RECORD - n;
        memcpy(t->context->gather + n, p, take);
        n += take;
    }
    *ret = t->context->gather;
    return n;
}

int tls_writev(struct tls *t, const struct iovec *iov, int n_iov, size_t *ret_n,
               unsigned char *needs, struct err *e)
{
    size_t done = 0, put;
    const char *p;
    size_t n;
    int ret, r;

    if (t->broken)
        return broken(e);
    while ((n = next_piece(t, iov, n_iov, done, &p)) > 0) {
        ERR_clear_error();
        errno = 0;
        ret = SSL_write_ex(t->ssl, p, n, &put);
        if (ret == 1) {
            done += put;
            continue;
        }
        r = outcome(t, ret, needs, "write", e);
        if (r == STREAM_AGAIN && done > 0)
            break;
        return r == STREAM_END ? err_set(e, ERR_UNAVAILABLE, "tls write: the peer hung up") : r;
    }
    *ret_n = done;
    return 0;
}

bool tls_pending(const struct tls *t)
{
    return !t->broken && SSL_pending(t->ssl) > 0;
}

void tls_shutdown(struct tls *t)
{
    if (t->broken || SSL_in_init(t->ssl))
        return;
    (void)SSL_shutdown(t->ssl); /* a notice that does not fit the socket now is not worth a wait */
    ERR_clear_error();
}

/* --- contexts --- */

/* HTTP/1.1 is what a stream carries; a client that does not offer it gets no answer to ALPN. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    for (unsigned i = 0; i < in_len; i += 1u + in[i])
        if (in[i] == 8 && i + 8 < in_len && memcmp(in + i + 1, "http/1.1", 8) == 0) {
            *out = in + i + 1;
            *out_len = 8;
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_NOACK;
}

DEFINE_AUTO(tls_context_free, struct tls_context *);

static int context_new(const SSL_METHOD *method, bool client, struct tls_context **ret,
                       struct err *e)
{
    AUTO(tls_context_free) struct tls_context *c = xcalloc(1, sizeof(*c));
    struct sigaction old;

    /* libssl writes with write(2), so a peer that went would end the process by SIGPIPE. */
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    ERR_clear_error();
    c->client = client;
    c->refs = 1;
    c->ctx = SSL_CTX_new(method);
    if (!c->ctx || !SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION))
        return err_set(e, ERR_INTERNAL, "tls: %s", ssl_reason());
    SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    *ret = TAKE(c);
    return 0;
}

int tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret,
                   struct err *e)
{
    AUTO(tls_context_free) struct tls_context *c = NULL;
    int r;

    r = context_new(TLS_server_method(), false, &c, e);
    if (r < 0)
        return r;
    if (access(cert_file, R_OK) < 0) /* OpenSSL would only say "system lib" */
        return err_set(e, ERR_INVALID, "tls certificate '%s': %s", cert_file, strerror(errno));
    if (access(key_file, R_OK) < 0)
        return err_set(e, ERR_INVALID, "tls key '%s': %s", key_file, strerror(errno));
    if (SSL_CTX_use_certificate_chain_file(c->ctx, cert_file) != 1)
        return err_set(e, ERR_INVALID, "tls certificate '%s': %s", cert_file, ssl_reason());
    if (SSL_CTX_use_PrivateKey_file(c->ctx, key_file, SSL_FILETYPE_PEM) != 1)
        return err_set(e, ERR_INVALID, "tls key '%s': %s", key_file, ssl_reason());
    if (SSL_CTX_check_private_key(c->ctx) != 1)
        return err_set(e, ERR_INVALID, "tls key '%s' does not fit '%s'", key_file, cert_file);
    SSL_CTX_set_options(c->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_id_context(c->ctx, (const unsigned char *)"chela", 5);
    SSL_CTX_set_alpn_select_cb(c->ctx, choose_protocol, NULL);
    *ret = TAKE(c);
    return 0;
}

int tls_client_new(const char *ca_file, struct tls_context **ret, struct err *e)
{
    AUTO(tls_context_free) struct tls_context *c = NULL;
    int r;

    r = context_new(TLS_client_method(), true, &c, e);
    if (r < 0)
        return r;
    if (ca_file && ca_file[0]) {
        if (SSL_CTX_load_verify_locations(c->ctx, ca_file, NULL) != 1)
            return err_set(e, ERR_INVALID, "tls CA file '%s': %s", ca_file, ssl_reason());
    } else if (SSL_CTX_set_default_verify_paths(c->ctx) != 1) {
        return err_set(e, ERR_INTERNAL, "tls: the system's CAs: %s", ssl_reason());
    }
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ctx, session_keep);
    *ret = TAKE(c);
    return 0;
}

void tls_context_free(struct tls_context *c)
{
    if (!c || --c->refs > 0)
        return;
    for (size_t i = 0; i < SESSIONS; i++) {
        free(c->sessions[i].name);
        SSL_SESSION_free(c->sessions[i].session);
    }
    SSL_CTX_free(c->ctx);
    free(c);
}
