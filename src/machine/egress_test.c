/* SPDX-License-Identifier: MIT */
/* machine/egress_test.c — who is let out, and what is made of a request. The proxy as a whole is
 * tried in tests/machines. */
#include "machine/egress.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/time.h"
#include "in_fiber.h"
#include "net/stream.h"

static const struct {
    const char *entry, *host;
    unsigned port;
    bool allowed, exact;
} allows[] = {
    { "example.com", "example.com", 443, true, true },
    { "example.com", "example.com", 80, true, true },
    { "example.com", "EXAMPLE.com", 443, true, true },
    { "example.com", "example.com.", 443, true, true },
    { "Example.Com", "example.com", 443, true, true },
    { "example.com", "example.com", 22, false, false },
    { "example.com", "www.example.com", 443, false, false },
    { "example.com", "notexample.com", 443, false, false },
    { "example.com", "example.com.evil.test", 443, false, false },
    { "example.com:22", "example.com", 22, true, true },
    { "example.com:22", "example.com", 443, false, false },
    { "*.example.com", "www.example.com", 443, true, false },
    { "*.example.com", "a.b.example.com", 443, true, false },
    { "*.example.com", "example.com", 443, false, false },
    { "*.example.com", ".example.com", 443, false, false },
    { "*.example.com", "wwwexample.com", 443, false, false },
    { "*.example.com:8443", "www.example.com", 8443, true, false },
    { "*", "anything.test", 443, true, false },
    { "*", "anything.test", 25, false, false },
    { "*:25", "anything.test", 25, true, false },
    { "[2001:db8::1]", "2001:db8::1", 443, true, true },
    { "[2001:db8::1]:99", "2001:db8::1", 99, true, true },
    { "2001:db8::1", "2001:db8::1", 443, true, true },
    { "192.0.2.7", "192.0.2.7", 80, true, true },
    { "example.com:", "example.com", 443, false, false },
    { "example.com:443x", "example.com", 443, false, false },
    { "*example.com", "anexample.com", 443, false, false },
    { "", "example.com", 443, false, false },
};

TEST(the_list_says_who_may_be_reached)
{
    for (size_t i = 0; i < LEN(allows); i++) {
        bool exact = true, got;

        got = egress_allows(&allows[i].entry, 1, str_of(allows[i].host), allows[i].port, &exact);
        if (got != allows[i].allowed || (got && exact != allows[i].exact))
            CHECK_FAIL("'%s' for %s:%u is %d/%d", allows[i].entry, allows[i].host, allows[i].port,
                       got, exact);
    }
    CHECK(!egress_allows(NULL, 0, STR("example.com"), 443, NULL));
}

static const struct {
    const char *in, *host;
    unsigned port;
    const char *origin; /* NULL: a tunnel */
} good[] = {
    { "CONNECT example.com:443 HTTP/1.1\r\nHost: other\r\n\r\n", "example.com", 443, NULL },
    { "CONNECT [2001:DB8::1]:22 HTTP/1.0\r\n\r\n", "2001:db8::1", 22, NULL },
    { "GET http://Example.com/a?b=c HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: x\r\n"
      "Accept: */*\r\nConnection: keep-alive\r\n\r\nmore",
      "example.com", 80,
      "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nConnection: close\r\n\r\n" },
    { "POST http://example.com:8080 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "example.com", 8080,
      "POST / HTTP/1.1\r\nHost: example.com:8080\r\nContent-Length: 3\r\nConnection: "
      "close\r\n\r\n" },
};

TEST(requests_are_read_and_made_ready_for_the_server)
{
    for (size_t i = 0; i < LEN(good); i++) {
        AUTO(buf_done) struct buf origin;
        struct egress_head head;
        struct err e;

        buf_init(&origin, EGRESS_HEAD_MAX);
        if (egress_head_parse(str_of(good[i].in), &head, &origin, &e) != 0)
            CHECK_FAIL("%s: %s", good[i].in, e.msg);
        CHECK_STR(head.host, good[i].host);
        CHECK_INT(head.port, good[i].port);
        CHECK_INT(head.tunnel, good[i].origin == NULL);
        CHECK(str_eq_z(buf_str(&origin), good[i].origin ? good[i].origin : ""));
    }
}

static const char *const bad[] = {
    "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "GET https://example.com/ HTTP/1.1\r\n\r\n",
    "CONNECT example.com HTTP/1.1\r\n\r\n",
    "CONNECT example.com:0 HTTP/1.1\r\n\r\n",
    "CONNECT example.com:70000 HTTP/1.1\r\n\r\n",
    "CONNECT user@example.com:443 HTTP/1.1\r\n\r\n",
    "CONNECT exa mple.com:443 HTTP/1.1\r\n\r\n",
    "CONNECT example.com:443 HTTP/2.0\r\n\r\n",
    "GET http://user@example.com/ HTTP/1.1\r\n\r\n",
    "GET http://example.com/ HTTP/1.1\r\n folded: x\r\n\r\n",
    "GET http://example.com/ HTTP/1.1\r\nName : x\r\n\r\n",
    "GET http://example.com/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET http://example.com/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "GET http://example.com/ HTTP/1.1\r\nX: a\nHost: b\r\n\r\n",
    "\r\n\r\n",
};

TEST(what_could_be_read_in_two_ways_is_refused)
{
    for (size_t i = 0; i < LEN(bad); i++) {
        AUTO(buf_done) struct buf origin;
        struct egress_head head;
        struct err e;

        buf_init(&origin, EGRESS_HEAD_MAX);
        if (egress_head_parse(str_of(bad[i]), &head, &origin, &e) != -ERR_INVALID)
            CHECK_FAIL("accepted: %s", bad[i]);
    }
}

/* Ask the proxy and read its whole answer. */
CO static int ask(const char *path, const char *request, char *answer, size_t size, struct err *e)
{
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sa;
    int dir_fd, r;
    size_t n = 0;
    ssize_t got;

    r = unix_addr_of(path, &sa, &dir_fd, e);
    if (r < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return -1;
    r = fiber_write_all(fd, request, strlen(request), deadline_in(20000), e);
    while (r == 0 && (got = fiber_read(fd, answer + n, size - 1 - n, deadline_in(20000), e)) > 0)
        n += (size_t)got;
    answer[n] = '\0';
    return r;
}

static const struct {
    const char *request, *status, *text;
} refusals[] = {
    { "CONNECT other.test:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ", "--allow other.test" },
    { "CONNECT localhost:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ", "of this host" },
    { "CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ", "of this host" },
    { "CONNECT 0x7f000001:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "neither a name" },
    { "CONNECT 2130706433:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "neither a name" },
    { "CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ", "link-local" },
    { "GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ",
      "link-local" },
    { "CONNECT [::1]:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ", "of this host" },
    { "CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 ", "of this host" },
    { "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "it wants CONNECT" },
};

CO static void egress_free_auto(struct egress **g)
{
    egress_free(*g);
}

CO_TEST(the_host_itself_is_refused_whatever_the_list_says)
{
    static const char *const allow[] = { "localhost", "127.0.0.1",  "169.254.169.254",
                                         "::1",       "0x7f000001", "::ffff:127.0.0.1" };
    char dir[] = "/tmp/egress_test.XXXXXX", answer[2048];
    AUTO(free) char *path = NULL;
    AUTO(egress_free) struct egress *g = NULL;

    CO_CHECK(mkdtemp(dir));
    path = xasprintf("%s/egress.sock", dir);
    CO_CHECK(egress_new(fiber_loop(), path, allow, LEN(allow), NULL, &g, e) == 0);
    for (size_t i = 0; i < LEN(refusals); i++) {
        CO_CHECK(ask(path, refusals[i].request, answer, sizeof(answer), e) == 0);
        if (strncmp(answer, refusals[i].status, strlen(refusals[i].status)) != 0 ||
            !strstr(answer, refusals[i].text)) {
            printf("# %s: %s\n", refusals[i].request, answer);
            CO_CHECK(false);
        }
    }
    egress_free(TAKE(g));
    CO_CHECK(access(path, F_OK) < 0 && rmdir(dir) == 0);
    return 0;
}
