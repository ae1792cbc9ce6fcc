/* SPDX-License-Identifier: MIT */
/* A WebSocket of ours against a fiber that writes and reads bytes by hand, in either role. */
#include "net/ws_rig.h"

/* Read until n bytes are there or the end; how many. */
CO static size_t raw_read(int fd, char *p, size_t n)
{
    struct err e;
    size_t have = 0;
    ssize_t got;

    while (have < n) {
        got = fiber_read(fd, p + have, n - have, deadline_in(3000), &e);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    return have;
}

CO static bool raw_expect(int fd, const char *hex)
{
    char bytes[256], have[2 * sizeof(bytes) + 1];
    size_t n = raw_read(fd, bytes, strlen(hex) / 2);

    hex_format((unsigned char *)bytes, n, have);
    if (strcmp(have, hex) != 0)
        printf("# got %s, not %s\n", have, hex);
    return strcmp(have, hex) == 0;
}

CO static int raw_send(int fd, const char *hex)
{
    unsigned char bytes[256];
    struct err e;
    size_t n = strlen(hex) / 2;

    if (hex_parse(str_of(hex), bytes, n, &e) < 0)
        return -1;
    return fiber_write_all(fd, bytes, n, deadline_in(3000), &e);
}

CO static int pongs(struct err *e)
{
    struct user server = { 0 };
    int fd[2];

    make_pair(fd);
    server.ws = open_on(fd[0], false, NULL, &server);
    CO_CHECK(raw_send(fd[1], "898400000000"
                             "70696e67") == 0);
    CO_CHECK(raw_expect(fd[1], "8a04"
                               "70696e67"));
    CO_CHECK(raw_send(fd[1], "8a8400000000"
                             "70696e67") == 0); /* an answer to nothing */
    CO_CHECK(raw_send(fd[1], "018100000000"
                             "41"
                             "898000000000"
                             "808100000000"
                             "42") == 0);
    CO_CHECK(raw_expect(fd[1], "8a00"));
    UNTIL(server.messages == 1);
    CO_CHECK(strcmp(server.last, "text:AB") == 0);
    close(fd[1]);
    UNTIL(server.closes == 1);
    CO_CHECK(server.code == 1006);
    return 0;
}

TEST(pings_are_answered_with_their_payload)
{
    CHECK_INT(in_loop(pongs), 0);
}

/* While nothing can be written only the latest ping is remembered. */
CO static int flooded(struct err *e)
{
    struct user server = { 0 };
    char sink[4096];
    int fd[2];
    size_t all = 0, n;

    make_pair(fd);
    server.ws = open_on(fd[0], false, NULL, &server);
    while (ws_queued(server.ws) == 0)
        CO_CHECK(ws_send(server.ws, WS_BINARY, (struct str){ sink, sizeof(sink) }, e) == 0);
    for (int i = 0; i < 50; i++)
        CO_CHECK(raw_send(fd[1], "898100000000"
                                 "41"
                                 "898100000000"
                                 "5a") == 0);
    CO_CHECK(fiber_sleep(10, e) == 0);
    CO_CHECK(ws_queued(server.ws) <= sizeof(sink) + 4);
    do {
        n = (size_t)fiber_read(fd[1], sink, sizeof(sink), deadline_in(50), e);
        all += (ssize_t)n > 0 ? n : 0;
        if ((ssize_t)n >= 3 && memcmp(sink + n - 3, "\x8a\x01Z", 3) == 0)
            all |= (size_t)1 << 40;
    } while ((ssize_t)n > 0);
    CO_CHECK(all >> 40 &&
             (all & 0xffffff) % (sizeof(sink) + 4) == 3); /* one pong, the last one's */
    close(fd[1]);
    UNTIL(server.closes == 1);
    return 0;
}

TEST(a_flood_of_pings_is_answered_once)
{
    CHECK_INT(in_loop(flooded), 0);
}

/* What is wrong gets a close with the code, then the end of the stream. */
CO static int fails(struct err *e)
{
    /* clang-format off */
    static const struct {
        const char *hex;
        unsigned code;
        const char *answer; /* head and code of the close */
    } cases[] = {
        { "810141", 1002, "03ea" },
        { "c18100000000" "41", 1002, "03ea" },
        { "818100000000" "ff", 1007, "03ef" },
        { "888200000000" "03ed", 1002, "03ea" },
        { "82ff00000000" "01000000" "00000000" "41", 1009, "03f1" },
    };
    /* clang-format on */

    for (size_t i = 0; i < LEN(cases); i++) {
        struct user server = { 0 };
        char bytes[200];
        int fd[2];
        size_t n;

        make_pair(fd);
        server.ws = open_on(fd[0], false, NULL, &server);
        CO_CHECK(raw_send(fd[1], cases[i].hex) == 0);
        n = raw_read(fd[1], bytes, sizeof(bytes)); /* up to the end */
        CO_CHECK(n >= 4 && (unsigned char)bytes[0] == 0x88);
        CO_CHECK(((unsigned)(unsigned char)bytes[2] << 8 | (unsigned char)bytes[3]) ==
                 cases[i].code);
        CO_CHECK(server.closes == 1 && server.code == cases[i].code && server.messages == 0);
        close(fd[1]);
    }
    return 0;
}

TEST(a_peer_that_breaks_the_rules_is_told_and_left)
{
    CHECK_INT(in_loop(fails), 0);
}

CO static int echoes_close(struct err *e)
{
    struct user server = { 0 }, client = { 0 };
    int fd[2];

    make_pair(fd);
    server.ws = open_on(fd[0], false, NULL, &server);
    CO_CHECK(raw_send(fd[1], "888500000000"
                             "03e9"
                             "627965"
                             "818100000000"
                             "41") == 0);
    CO_CHECK(raw_expect(fd[1], "880203e9"));
    CO_CHECK(!raw_read(fd[1], (char[1]){ 0 }, 1)); /* the end */
    CO_CHECK(server.code == 1001 && strcmp(server.reason, "bye") == 0 && server.messages == 0);
    close(fd[1]);

    make_pair(fd);
    client.ws = open_on(fd[0], true, NULL, &client);
    CO_CHECK(raw_send(fd[1], "8800") == 0);
    UNTIL(client.closes == 1);
    CO_CHECK(client.code == 1005);
    close(fd[1]);
    return 0;
}

TEST(a_close_is_answered_in_kind)
{
    CHECK_INT(in_loop(echoes_close), 0);
}

CO static int never_answered(struct err *e)
{
    static const struct ws_limits limits = { .close_ms = 30 };
    struct user server = { 0 };
    int fd[2];

    make_pair(fd);
    server.ws = open_on(fd[0], false, &limits, &server);
    ws_close(server.ws, 1001, NULL);
    CO_CHECK(raw_expect(fd[1], "880203e9"));
    UNTIL(server.closes == 1);
    CO_CHECK(server.code == 1006);
    close(fd[1]);
    return 0;
}

TEST(a_close_that_is_not_answered_ends_by_itself)
{
    CHECK_INT(in_loop(never_answered), 0);
}

CO static int silent(struct err *e)
{
    static const struct ws_limits limits = { .ping_ms = 20, .dead_ms = 60 };
    struct user server = { 0 }, client = { 0 };
    int fd[2];

    open_pair(&server, &client, &limits);
    CO_CHECK(fiber_sleep(200, e) == 0);
    CO_CHECK(server.closes == 0 && client.closes == 0); /* they ping each other */
    ws_close(server.ws, 1000, NULL);
    UNTIL(server.closes == 1 && client.closes == 1);

    server = (struct user){ 0 };
    make_pair(fd);
    server.ws = open_on(fd[0], false, &limits, &server);
    CO_CHECK(raw_expect(fd[1], "8900"));
    CO_CHECK(raw_send(fd[1], "8a8000000000") == 0);
    CO_CHECK(raw_expect(fd[1], "8900")); /* and again, 20 ms after the pong */
    CO_CHECK(server.closes == 0);
    UNTIL(server.closes == 1);
    CO_CHECK(server.code == 1006);
    close(fd[1]);
    return 0;
}

TEST(silence_is_pinged_and_then_the_end)
{
    CHECK_INT(in_loop(silent), 0);
}

CO static int masks(struct err *e)
{
    struct user client = { 0 };
    unsigned char bytes[11], same[11];
    int fd[2];

    make_pair(fd);
    client.ws = open_on(fd[0], true, NULL, &client);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("Hello"), e) == 0);
    CO_CHECK(raw_read(fd[1], (char *)bytes, 11) == 11);
    CO_CHECK(bytes[0] == 0x81 && bytes[1] == 0x85);
    for (int i = 0; i < 5; i++)
        CO_CHECK((bytes[6 + i] ^ bytes[2 + i % 4]) == "Hello"[i]);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("Hello"), e) == 0);
    CO_CHECK(raw_read(fd[1], (char *)same, 11) == 11);
    CO_CHECK(memcmp(bytes + 2, same + 2, 4) != 0); /* a fresh mask each time */
    CO_CHECK(raw_send(fd[1], "818100000000"
                             "41") == 0);
    UNTIL(client.closes == 1);
    CO_CHECK(client.code == 1002); /* a server must not mask */
    close(fd[1]);
    return 0;
}

TEST(a_client_masks_and_refuses_masks)
{
    CHECK_INT(in_loop(masks), 0);
}

/* --- opening as a client --- */

struct host { /* a server by hand, for one connection */
    int fd;
    unsigned short port;
    const char *answer; /* "@" stands for the right accept value */
    char request[2048];
};

CO static int serve(void *arg, struct err *e)
{
    struct host *h = arg;
    char out[2048] = "", accept[29], *key, *end;
    const char *at = strchr(h->answer, '@');
    size_t n = 0;
    ssize_t got;
    int fd, r;

    r = fiber_wait_fd(h->fd, LOOP_READ, deadline_in(3000), e);
    CO_CHECK(r >= 0);
    fd = accept4(h->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (!strstr(h->request, "\r\n\r\n")) {
        got = fiber_read(fd, h->request + n, sizeof(h->request) - 1 - n, deadline_in(3000), e);
        CO_CHECK(got > 0);
        n += (size_t)got;
        h->request[n] = '\0';
    }
    key = strstr(h->request, "Sec-WebSocket-Key: ");
    CO_CHECK(key);
    key += 19;
    end = strchr(key, '\r');
    ws_accept_key((struct str){ key, (size_t)(end - key) }, accept);
    if (at)
        fmt_z(out, sizeof(out), "%.*s%s%s", (int)(at - h->answer), h->answer, accept, at + 1);
    else
        fmt_z(out, sizeof(out), "%s", h->answer);
    if (out[0])
        CO_CHECK(fiber_write_all(fd, out, strlen(out), deadline_in(3000), e) == 0);
    if (strcmp(h->answer, "") != 0)
        (void)raw_read(fd, out, sizeof(out)); /* until the client has gone */
    close(fd);
    return 0;
}

CO static int open_at(struct host *h, const struct ws_connect *c, struct user *u, struct err *e)
{
    struct fiber *f;
    int r;

    CO_CHECK(listen_tcp("127.0.0.1", 0, 1, &h->fd, &h->port, e) == 0);
    CO_CHECK(fiber_spawn(loop, "serve", serve, h, &f, e) == 0);
    {
        struct ws_connect with = *c;
        char url[100];

        fmt_z(url, sizeof(url), "ws://127.0.0.1:%u%s", h->port, c->url);
        with.url = url;
        with.deadline_ms = deadline_in(2000);
        r = ws_open(loop, &with, NULL, &ops, u, &u->ws, e);
    }
    if (r == 0) {
        UNTIL(u->messages == 1);
        ws_abort(u->ws);
        UNTIL(u->closes == 1);
    }
    close(h->fd);
    CO_CHECK(fiber_join(f, NULL) == 0);
    return r;
}

#define HEAD "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

CO static int opens(struct err *e)
{
    static const char *const headers[] = { "Authorization: Bearer t", "X-Two: 2", NULL };
    struct ws_connect c = { .url = "/chat?room=1", .headers = headers, .subprotocol = "v1.chat" };
    /* The first message comes in one write with the head, and must not be lost. */
    struct host h = { .answer = HEAD "Sec-WebSocket-Accept: @\r\n"
                                     "Sec-WebSocket-Protocol: v1.chat\r\n\r\n\x81\x05Hello" };
    struct user u = { 0 };

    CO_CHECK(open_at(&h, &c, &u, e) == 0);
    CO_CHECK(strcmp(u.last, "text:Hello") == 0);
    CO_CHECK(strstr(h.request, "GET /chat?room=1 HTTP/1.1\r\n") == h.request);
    CO_CHECK(strstr(h.request, "Host: 127.0.0.1:"));
    CO_CHECK(strstr(h.request, "Upgrade: websocket\r\nConnection: Upgrade\r\n"));
    CO_CHECK(strstr(h.request, "Sec-WebSocket-Version: 13\r\n"));
    CO_CHECK(strstr(h.request, "Sec-WebSocket-Protocol: v1.chat\r\n"));
    CO_CHECK(strstr(h.request, "Authorization: Bearer t\r\nX-Two: 2\r\n"));
    return 0;
}

TEST(a_client_opens_and_gets_what_came_with_the_answer)
{
    CHECK_INT(in_loop(opens), 0);
}

CO static int is_refused(struct err *e)
{
    static const struct {
        const char *answer, *why;
    } cases[] = {
        { "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 instead of 101" },
        { HEAD "Sec-WebSocket-Accept: AAAA\r\n\r\n", "wrong Sec-WebSocket-Accept" },
        { HEAD "Sec-WebSocket-Accept: @\r\nSec-WebSocket-Extensions: deflate\r\n\r\n",
          "extension" },
        { HEAD "Sec-WebSocket-Accept: @\r\nSec-WebSocket-Protocol: other\r\n\r\n", "subprotocol" },
        { "", "hung up" },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct ws_connect c = { .url = "/" };
        struct host h = { .answer = cases[i].answer };
        struct user u = { 0 };

        CO_CHECK(open_at(&h, &c, &u, e) == -ERR_UNAVAILABLE);
        if (!strstr(e->msg, cases[i].why))
            printf("# %s\n", e->msg);
        CO_CHECK(strstr(e->msg, cases[i].why) && strstr(e->msg, "127.0.0.1:"));
    }
    return 0;
}

TEST(a_client_says_why_it_was_refused)
{
    CHECK_INT(in_loop(is_refused), 0);
}

CO static int bad_urls(struct err *e)
{
    struct ws_connect c = { .url = "http://127.0.0.1/", .deadline_ms = deadline_in(1000) };
    struct ws *ws = NULL;
    unsigned short port;
    char url[64];
    int fd;

    CO_CHECK(ws_open(loop, &c, NULL, &ops, NULL, &ws, e) == -ERR_INVALID);
    c.url = "nonsense";
    CO_CHECK(ws_open(loop, &c, NULL, &ops, NULL, &ws, e) == -ERR_INVALID);
    CO_CHECK(listen_tcp("127.0.0.1", 0, 1, &fd, &port, e) == 0);
    fmt_z(url, sizeof(url), "ws://127.0.0.1:%u/", port);
    c.url = url;
    c.deadline_ms = deadline_in(30); /* the server never answers */
    CO_CHECK(ws_open(loop, &c, NULL, &ops, NULL, &ws, e) == -ERR_TIMEOUT);
    close(fd);
    CO_CHECK(ws_open(loop, &c, NULL, &ops, NULL, &ws, e) < 0 && !ws);
    return 0;
}

TEST(a_client_gives_up_in_time)
{
    CHECK_INT(in_loop(bad_urls), 0);
}
