/* SPDX-License-Identifier: MIT */
/*
 * Streams of all kinds against each other: both ends are fibers of one loop. Certificates are
 * made here, so that an expired one and one of another name are at hand.
 */
#include "net/stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fiber.h"
#include "base/str.h"
#include "test.h"

/* --- certificates --- */

static char dir[64];

static const char *file(const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % LEN(paths)];

    fmt_z(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static X509 *make_cert(EVP_PKEY *key, const char *cn, const char *alt, long days, EVP_PKEY *ca_key,
                       X509 *ca)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_NAME_new();
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), rand());
    X509_gmtime_adj(X509_getm_notBefore(x), -2 * 24 * 3600);
    X509_gmtime_adj(X509_getm_notAfter(x), days * 24 * 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    X509_set_subject_name(x, name);
    X509_set_issuer_name(x, ca ? X509_get_subject_name(ca) : name);
    X509V3_set_ctx(&ctx, ca ? ca : x, x, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, ca ? "CA:FALSE" : "CA:TRUE");
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
    if (alt) {
        ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, alt);
        X509_add_ext(x, ext, -1);
        X509_EXTENSION_free(ext);
    }
    X509_sign(x, ca_key, EVP_sha256());
    X509_NAME_free(name);
    return x;
}

static void save(const char *path, EVP_PKEY *key, X509 *cert)
{
    FILE *f = fopen(path, "w");

    if (key)
        PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    else
        PEM_write_X509(f, cert);
    fclose(f);
}

__attribute__((constructor)) static void make_certs(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    X509 *ca = make_cert(key, "test CA", NULL, 30, key, NULL), *x;

    fmt_z(dir, sizeof(dir), "/tmp/stream_test.%d", (int)getpid());
    mkdir(dir, 0700);
    save(file("key"), key, NULL);
    save(file("other_key"), other, NULL);
    save(file("ca"), NULL, ca);
    x = make_cert(key, "localhost", "DNS:localhost,IP:127.0.0.1", 30, key, ca);
    save(file("good"), NULL, x);
    X509_free(x);
    x = make_cert(key, "localhost", "DNS:localhost,IP:127.0.0.1", -1, key, ca);
    save(file("expired"), NULL, x);
    X509_free(x);
    x = make_cert(key, "elsewhere", "DNS:elsewhere.example", 30, key, ca);
    save(file("wrong"), NULL, x);
    X509_free(x);
    x = make_cert(other, "localhost", "DNS:localhost,IP:127.0.0.1", 30, other, NULL);
    save(file("self"), NULL, x);
    X509_free(x);
    X509_free(ca);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

__attribute__((destructor)) static void drop_certs(void)
{
    static const char *const names[] = { "key",     "other_key", "ca",   "good",
                                         "expired", "wrong",     "self", "sock" };

    for (size_t i = 0; i < LEN(names); i++)
        unlink(file(names[i]));
    rmdir(dir);
}

/* --- fibers over streams --- */

static void wake(struct stream *s, unsigned events, void *arg)
{
    fiber_wake(arg);
}

CO static int wait_for(struct stream *s, unsigned events, struct err *e)
{
    int r;

    stream_want(s, events);
    r = fiber_park(deadline_in(5000), e);
    stream_want(s, 0);
    return r;
}

/* 0, STREAM_END, or failed. */
CO static int co_read(struct stream *s, void *p, size_t n, size_t *ret_n, struct err *e)
{
    int r;

    while ((r = stream_read(s, p, n, ret_n, e)) == STREAM_AGAIN) {
        r = wait_for(s, LOOP_READ, e);
        if (r < 0)
            return r;
    }
    return r;
}

CO static int co_write(struct stream *s, const struct iovec *iov, int n_iov, struct err *e)
{
    struct iovec left[8];
    size_t n;
    int r;

    memcpy(left, iov, (size_t)n_iov * sizeof(*iov));
    for (int i = 0; i < n_iov;) {
        r = stream_writev(s, left + i, n_iov - i, &n, e);
        if (r == STREAM_AGAIN) {
            r = wait_for(s, LOOP_WRITE, e);
            if (r < 0)
                return r;
            continue;
        }
        if (r < 0)
            return r;
        while (i < n_iov && n >= left[i].iov_len)
            n -= left[i++].iov_len;
        if (i < n_iov) {
            left[i].iov_base = (char *)left[i].iov_base + n;
            left[i].iov_len -= n;
        }
    }
    return 0;
}

/* --- harness: an echo server that a test's fiber connects to --- */

struct rig {
    struct loop *loop;
    int fd;
    unsigned short port;
    struct tls_context *server_tls, *client_tls;
    int (*test)(struct rig *rig, struct err *e);
    struct stream_addr peer; /* as the server saw it */
    unsigned accepted;
    bool slow; /* the server reads nothing for a while */
    int server_result, result;
    struct err server_err;
};

DEFINE_AUTO(stream_free, struct stream *);

CO static int echo(struct rig *rig, struct stream *s, struct err *e)
{
    AUTO(free) char *piece = xmalloc(20000);
    struct iovec iov;
    size_t n;
    int r;

    if (rig->slow && (r = fiber_sleep(50, e)) < 0)
        return r;
    while ((r = co_read(s, piece, 20000, &n, e)) == 0) {
        iov = (struct iovec){ piece, n };
        r = co_write(s, &iov, 1, e);
        if (r < 0)
            return r;
    }
    stream_shutdown(s);
    return r;
}

CO static int server_run(void *arg, struct err *e)
{
    struct rig *rig = arg;

    for (;;) {
        AUTO(stream_free) struct stream *s = NULL;
        int fd, r;

        r = fiber_wait_fd(rig->fd, LOOP_READ, DEADLINE_NONE, e);
        if (r < 0)
            return r;
        fd = accept4(rig->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        rig->accepted++;
        s = stream_new(rig->loop, fd, rig->server_tls, NULL, wake, fiber_self());
        rig->peer = *stream_peer(s);
        rig->server_result = echo(rig, s, &rig->server_err);
    }
}

CO static int test_run(void *arg, struct err *e)
{
    struct rig *rig = arg;
    struct fiber *server;

    CO_CHECK(fiber_spawn(rig->loop, "server", server_run, rig, &server, e) == 0);
    rig->result = rig->test(rig, e);
    if (rig->result < 0)
        printf("# error at the end: %s\n", e->msg);
    fiber_cancel(server);
    (void)fiber_join(server, e); /* cancelled */
    return 0;
}

static int run_in(struct rig *rig)
{
    struct err e = { 0 };

    rig->result = -1;
    CHECK_INT(loop_new(&rig->loop, &e), 0);
    CHECK_INT(fiber_spawn(rig->loop, "test", test_run, rig, NULL, &e), 0);
    loop_run(rig->loop);
    close(rig->fd);
    tls_context_free(rig->server_tls);
    tls_context_free(rig->client_tls);
    loop_free(rig->loop);
    return rig->result;
}

static int over_tcp(int (*test)(struct rig *rig, struct err *e))
{
    struct rig rig = { .test = test };
    struct err e;

    CHECK_INT(listen_tcp("127.0.0.1", 0, 16, &rig.fd, &rig.port, &e), 0);
    CHECK(rig.port != 0);
    return run_in(&rig);
}

static int over_tls(int (*test)(struct rig *rig, struct err *e), const char *cert)
{
    struct rig rig = { .test = test };
    struct err e;

    CHECK_INT(listen_tcp("127.0.0.1", 0, 16, &rig.fd, &rig.port, &e), 0);
    CHECK_INT(tls_server_new(file(cert), file(strcmp(cert, "self") ? "key" : "other_key"),
                             &rig.server_tls, &e),
              0);
    CHECK_INT(tls_client_new(file("ca"), &rig.client_tls, &e), 0);
    return run_in(&rig);
}

CO static int connect_to(struct rig *rig, const char *host, struct stream **ret, struct err *e)
{
    int r = stream_connect(rig->loop, host, rig->port, rig->client_tls, deadline_in(5000), ret, e);

    if (r == 0)
        stream_rebind(*ret, wake, fiber_self());
    return r;
}

/* Send three pieces of n bytes each, end, and see them come back. */
CO static int echo_through(struct stream *s, size_t n, struct err *e)
{
    AUTO(free) char *out = xmalloc(3 * n), *in = xmalloc(3 * n + 1);
    struct iovec iov[3];
    size_t have = 0, got, sent = 0;
    int r;

    for (size_t i = 0; i < 3 * n; i++)
        out[i] = (char)(i * 7 + i / 1000);
    while (sent < 3 * n || have < 3 * n) {
        for (int i = 0; i < 3; i++) { /* what is left of each third */
            size_t from = (size_t)i * n;

            from = from > sent ? from : sent;
            from = from < (size_t)(i + 1) * n ? from : (size_t)(i + 1) * n;
            iov[i] = (struct iovec){ out + from, (size_t)(i + 1) * n - from };
        }
        r = sent < 3 * n ? stream_writev(s, iov, 3, &got, e) : STREAM_AGAIN;
        if (r == 0)
            sent += got;
        CO_CHECK(r >= 0);
        r = stream_read(s, in + have, 3 * n + 1 - have, &got, e);
        if (r == 0)
            have += got;
        CO_CHECK(r == 0 || r == STREAM_AGAIN);
        if (r == STREAM_AGAIN && have < 3 * n)
            CO_CHECK(wait_for(s, LOOP_READ | (sent < 3 * n ? LOOP_WRITE : 0), e) == 0);
    }
    CO_CHECK(memcmp(out, in, 3 * n) == 0);
    stream_shutdown(s);
    CO_CHECK(co_read(s, in, 1, &got, e) == STREAM_END);
    return 0;
}

/* --- tests --- */

CO static int echoes(struct rig *rig, struct err *e)
{
    static const size_t sizes[] = { 1, 100, 5461, 5462, 16384, 100000, 1000000 };

    for (size_t i = 0; i < LEN(sizes); i++) {
        AUTO(stream_free) struct stream *s = NULL;

        CO_CHECK(connect_to(rig, i % 2 ? "127.0.0.1" : "localhost", &s, e) == 0);
        CO_CHECK(echo_through(s, sizes[i], e) == 0);
        CO_CHECK(stream_peer(s)->loopback && !stream_peer(s)->local);
        CO_CHECK(stream_peer(s)->port == rig->port);
        CO_CHECK(rig->peer.loopback && strcmp(rig->peer.text, "127.0.0.1") == 0);
    }
    return 0;
}

TEST(plain_streams_carry_bytes_both_ways)
{
    CHECK_INT(over_tcp(echoes), 0);
}

TEST(tls_streams_carry_bytes_both_ways)
{
    CHECK_INT(over_tls(echoes, "good"), 0);
}

/* The server does not read for a while, so a write of many megabytes cannot go through at once. */
CO static int is_held_back(struct rig *rig, struct err *e)
{
    static char big[8 * 1024 * 1024];
    AUTO(stream_free) struct stream *s = NULL;
    struct iovec iov = { big, sizeof(big) };
    size_t n, all = 0;
    int r;

    rig->slow = true;
    CO_CHECK(connect_to(rig, "localhost", &s, e) == 0);
    while ((r = stream_writev(s, &iov, 1, &n, e)) == 0) {
        all += n;
        iov.iov_base = big + all;
        iov.iov_len = sizeof(big) - all;
        if (iov.iov_len == 0)
            break;
    }
    CO_CHECK(r == STREAM_AGAIN && all > 0);
    rig->slow = false;
    return 0;
}

TEST(a_full_socket_says_again)
{
    CHECK_INT(over_tcp(is_held_back), 0);
    CHECK_INT(over_tls(is_held_back, "good"), 0);
}

CO static int sees_reset(struct rig *rig, struct err *e)
{
    AUTO(stream_free) struct stream *s = NULL;

    CO_CHECK(connect_to(rig, "localhost", &s, e) == 0);
    while (rig->accepted == 0)
        CO_CHECK(fiber_sleep(1, e) == 0);
    stream_reset(s);
    stream_free(TAKE(s));
    CO_CHECK(fiber_sleep(20, e) == 0);
    CO_CHECK(rig->server_result == -ERR_UNAVAILABLE);
    CO_CHECK(strstr(rig->server_err.msg, "reset"));
    return 0;
}

TEST(a_reset_is_an_error_and_not_an_end)
{
    CHECK_INT(over_tcp(sees_reset), 0);
}

CO static int reports_pending(struct rig *rig, struct err *e)
{
    AUTO(stream_free) struct stream *s = NULL;
    char out[1000] = "pending", in[1000];
    struct iovec iov = { out, sizeof(out) };
    size_t n, all;

    CO_CHECK(connect_to(rig, "localhost", &s, e) == 0);
    CO_CHECK(co_write(s, &iov, 1, e) == 0);
    CO_CHECK(co_read(s, in, 10, &all, e) == 0 && all == 10);
    CO_CHECK(stream_pending(s));
    while (all < sizeof(out)) { /* readiness is told although the socket is empty */
        CO_CHECK(wait_for(s, LOOP_READ, e) == 0);
        CO_CHECK(stream_read(s, in, 10, &n, e) == 0);
        all += n;
    }
    CO_CHECK(!stream_pending(s));
    return 0;
}

TEST(bytes_that_tls_holds_make_the_stream_ready)
{
    CHECK_INT(over_tls(reports_pending, "good"), 0);
}

CO static int is_refused(struct rig *rig, struct err *e)
{
    struct stream *s = NULL;

    CO_CHECK(connect_to(rig, "localhost", &s, e) == -ERR_UNAVAILABLE);
    CO_CHECK(!s);
    return 0;
}

CO static int says_expired(struct rig *rig, struct err *e)
{
    CO_CHECK(is_refused(rig, e) == 0 && strstr(e->msg, "certificate has expired"));
    return 0;
}

CO static int says_mismatch(struct rig *rig, struct err *e)
{
    struct stream *s = NULL;

    CO_CHECK(is_refused(rig, e) == 0 && strstr(e->msg, "ostname mismatch"));
    CO_CHECK(connect_to(rig, "127.0.0.1", &s, e) == -ERR_UNAVAILABLE);
    CO_CHECK(strstr(e->msg, "IP address mismatch"));
    return 0;
}

CO static int says_self_signed(struct rig *rig, struct err *e)
{
    CO_CHECK(is_refused(rig, e) == 0 && strstr(e->msg, "self-signed"));
    return 0;
}

TEST(a_client_refuses_certificates_that_do_not_hold)
{
    CHECK_INT(over_tls(says_expired, "expired"), 0);
    CHECK_INT(over_tls(says_mismatch, "wrong"), 0);
    CHECK_INT(over_tls(says_self_signed, "self"), 0);
}

CO static int not_tls(struct rig *rig, struct err *e)
{
    struct stream *s = NULL;
    int r;

    CO_CHECK(tls_client_new(file("ca"), &rig->client_tls, e) == 0);
    r = connect_to(rig, "localhost", &s, e); /* the plain server echoes our own hello */
    CO_CHECK(r == -ERR_UNAVAILABLE && strstr(e->msg, "tls handshake"));
    return 0;
}

TEST(a_plain_server_is_not_taken_for_a_tls_one)
{
    CHECK_INT(over_tcp(not_tls), 0);
}

CO static int plain_client(struct rig *rig, struct err *e)
{
    AUTO(stream_free) struct stream *s = NULL;
    struct iovec iov = { (char[]){ "GET / HTTP/1.1\r\n\r\n" }, 18 };
    char in[100];
    size_t n;
    int r;

    tls_context_free(TAKE(rig->client_tls));
    CO_CHECK(connect_to(rig, "localhost", &s, e) == 0);
    CO_CHECK(co_write(s, &iov, 1, e) == 0);
    do
        r = co_read(s, in, sizeof(in), &n, e);
    while (r == 0);
    CO_CHECK(rig->server_result < 0 && strstr(rig->server_err.msg, "http request"));
    return 0;
}

TEST(a_plain_client_on_a_tls_port_is_told_apart)
{
    CHECK_INT(over_tls(plain_client, "good"), 0);
}

CO static int many_handshakes(struct rig *rig, struct err *e)
{
    for (int i = 0; i < 20; i++) {
        AUTO(stream_free) struct stream *s = NULL;

        CO_CHECK(connect_to(rig, "localhost", &s, e) == 0);
        CO_CHECK(echo_through(s, 10, e) == 0);
    }
    return 0;
}

TEST(sessions_are_resumed_without_harm)
{
    CHECK_INT(over_tls(many_handshakes, "good"), 0);
}

TEST(tls_contexts_say_what_is_wrong_with_their_files)
{
    struct tls_context *t = NULL;
    struct err e;

    CHECK_INT(tls_server_new("/nowhere", file("key"), &t, &e), -ERR_INVALID);
    CHECK(strstr(e.msg, "/nowhere"));
    CHECK_INT(tls_server_new(file("good"), file("ca"), &t, &e), -ERR_INVALID);
    CHECK_INT(tls_server_new(file("good"), file("other_key"), &t, &e), -ERR_INVALID);
    CHECK_INT(tls_client_new("/nowhere", &t, &e), -ERR_INVALID);
    CHECK(!t);
    CHECK_INT(tls_client_new(NULL, &t, &e), 0);
    tls_context_free(t);
    tls_context_free(NULL);
}

CO static int connects_unix(struct rig *rig, struct err *e)
{
    AUTO(stream_free) struct stream *s = NULL;
    struct stream *none = NULL;
    struct stat st;

    CO_CHECK(stat(file("sock"), &st) == 0 && (st.st_mode & 0777) == 0600);
    CO_CHECK(stream_connect_unix(rig->loop, file("sock"), &s, e) == 0);
    stream_rebind(s, wake, fiber_self());
    CO_CHECK(echo_through(s, 100000, e) == 0);
    CO_CHECK(rig->peer.local && rig->peer.uid == getuid() && !rig->peer.loopback);
    CO_CHECK(strcmp(rig->peer.text, "unix") == 0);
    CO_CHECK(stream_connect_unix(rig->loop, file("none"), &none, e) == -ERR_NOT_FOUND);
    return 0;
}

TEST(unix_streams_know_their_peer)
{
    struct rig rig = { .test = connects_unix };
    struct err e;

    CHECK_INT(listen_unix(file("sock"), &rig.fd, &e), 0);
    CHECK_INT(run_in(&rig), 0);
}

TEST(a_dead_unix_socket_is_replaced_and_a_live_one_is_not)
{
    int fd, second, plain;
    struct err e;

    CHECK_INT(listen_unix(file("sock"), &fd, &e), 0);
    CHECK_INT(listen_unix(file("sock"), &second, &e), -ERR_CONFLICT);
    CHECK(strstr(e.msg, "in use"));
    close(fd);
    CHECK_INT(listen_unix(file("sock"), &fd, &e), 0);
    close(fd);
    unlink(file("sock"));

    plain = creat(file("sock"), 0600);
    close(plain);
    CHECK_INT(listen_unix(file("sock"), &fd, &e), -ERR_CONFLICT);
    CHECK(strstr(e.msg, "not a socket"));
}

TEST(unix_paths_longer_than_an_address_work)
{
    char deep[300], path[400];
    struct err e;
    int fd, second;

    fmt_z(deep, sizeof(deep), "%s/%0200d", dir, 7);
    CHECK_INT(mkdir(deep, 0700), 0);
    fmt_z(path, sizeof(path), "%s/sock", deep);
    CHECK_INT(listen_unix(path, &fd, &e), 0);
    CHECK_INT(listen_unix(path, &second, &e), -ERR_CONFLICT);
    close(fd);
    unlink(path);
    rmdir(deep);
}

TEST(listening_says_where_it_failed)
{
    unsigned short port, again;
    struct err e;
    int fd, second;

    CHECK_INT(listen_tcp("127.0.0.1", 0, 1, &fd, &port, &e), 0);
    CHECK(listen_tcp("127.0.0.1", port, 1, &second, &again, &e) < 0);
    CHECK(strstr(e.msg, "127.0.0.1:") && strstr(e.msg, "in use"));
    close(fd);
    CHECK_INT(listen_tcp("no such host", 0, 1, &fd, &port, &e), -ERR_INVALID);
    CHECK_INT(listen_tcp("", 0, 1, &fd, &port, &e), 0);
    close(fd);
    CHECK_INT(listen_tcp("::", 0, 1, &fd, &port, &e), 0);
    close(fd);
}

TEST(loopback_names_are_known)
{
    static const char *const yes[] = { "127.0.0.1", "127.9.9.9", "::1",
                                       "localhost", "LocalHost", "::ffff:127.0.0.1" };
    static const char *const no[] = { "128.0.0.1",         "::2",     "example.com",    "",
                                      "127.0.0.1.example", "0.0.0.0", "::ffff:10.0.0.1" };

    for (size_t i = 0; i < LEN(yes); i++)
        CHECK(addr_is_loopback(yes[i]));
    for (size_t i = 0; i < LEN(no); i++)
        CHECK(!addr_is_loopback(no[i]));
}

CO static int cannot_connect(struct rig *rig, struct err *e)
{
    struct stream *s = NULL;
    unsigned short port;
    int fd;

    CO_CHECK(listen_tcp("127.0.0.1", 0, 1, &fd, &port, e) == 0);
    close(fd);
    CO_CHECK(stream_connect(rig->loop, "127.0.0.1", port, NULL, deadline_in(1000), &s, e) ==
             -ERR_UNAVAILABLE);
    CO_CHECK(strstr(e->msg, "refused"));
    CO_CHECK(stream_connect(rig->loop, "no-such-name.invalid", 1, NULL, deadline_in(5000), &s, e) ==
             -ERR_UNAVAILABLE);
    CO_CHECK(strstr(e->msg, "no-such-name.invalid"));
    return 0;
}

TEST(connecting_says_why_it_failed)
{
    CHECK_INT(over_tcp(cannot_connect), 0);
}

/* A full backlog leaves a connect hanging, as a host that drops packets does. */
CO static int gives_up(struct rig *rig, struct err *e)
{
    struct stream *s = NULL, *fill[4] = { 0 };
    unsigned short port;
    int fd, r = 0;

    CO_CHECK(listen_tcp("127.0.0.1", 0, 0, &fd, &port, e) == 0);
    for (size_t i = 0; i < LEN(fill) && r == 0; i++)
        r = stream_connect(rig->loop, "127.0.0.1", port, NULL, deadline_in(60), &fill[i], e);
    CO_CHECK(r == -ERR_TIMEOUT && !s);
    for (size_t i = 0; i < LEN(fill); i++)
        stream_free(fill[i]);
    close(fd);
    return 0;
}

TEST(connecting_ends_at_its_deadline)
{
    CHECK_INT(over_tcp(gives_up), 0);
}
