/* SPDX-License-Identifier: MIT */
/*
 * WebSockets over socket pairs: two of ours against each other, and one of ours against a fiber
 * that writes and reads bytes by hand.
 */
#include "net/ws.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fiber.h"
#include "base/str.h"
#include "net/ws_sock.h"
#include "test.h"

static struct loop *loop;

/* --- harness --- */

struct run {
    int (*test)(struct err *e);
    int result;
};

CO static int run_test(void *arg, struct err *e)
{
    struct run *run = arg;

    run->result = run->test(e);
    if (run->result < 0)
        printf("# error at the end: %s\n", e->msg);
    return 0;
}

static int in_loop(int (*test)(struct err *e))
{
    struct run run = { test, -1 };
    struct err e = { 0 };

    CHECK_INT(loop_new(&loop, &e), 0);
    CHECK_INT(fiber_spawn(loop, "test", run_test, &run, NULL, &e), 0);
    loop_run(loop);
    loop_free(loop);
    return run.result;
}

struct user { /* one side's ops, written down */
    struct ws *ws;
    unsigned messages, closes, code;
    size_t bytes;
    char last[200], reason[130];
    bool echo;
    unsigned close_on_message;
};

static void on_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct user *u = arg;
    struct err e;

    u->messages++;
    u->bytes += data.n;
    fmt_z(u->last, sizeof(u->last), "%s:%.*s", kind == WS_TEXT ? "text" : "binary",
          data.n < 150 ? (int)data.n : 150, data.p);
    if (u->echo && ws_send(ws, kind, data, &e) < 0)
        fmt_z(u->last, sizeof(u->last), "echo failed: %s", e.msg);
    if (u->close_on_message)
        ws_close(ws, u->close_on_message, "seen enough");
}

static void on_closed(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    struct user *u = arg;

    u->closes++;
    u->code = code;
    fmt_z(u->reason, sizeof(u->reason), STR_FMT, STR_ARG(reason));
}

static const struct ws_ops ops = { on_message, on_closed };

static void ignore_ready(struct stream *s, unsigned events, void *arg)
{
}

static struct ws *open_on(int fd, bool client, const struct ws_limits *limits, struct user *u)
{
    struct stream *s = stream_new(loop, fd, NULL, NULL, ignore_ready, NULL);

    return ws_new(loop, s, NULL, client, limits, u ? &ops : NULL, u, (struct str){ 0 },
                  (struct str){ 0 });
}

/* Small socket buffers, so that a slow reader is felt soon. */
static void make_pair(int fd[2])
{
    int size = 16 * 1024;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0)
        abort();
    for (int i = 0; i < 2; i++)
        setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void open_pair(struct user *server, struct user *client, const struct ws_limits *limits)
{
    int fd[2];

    make_pair(fd);
    server->ws = open_on(fd[0], false, limits, server);
    client->ws = open_on(fd[1], true, limits, client);
}

#define UNTIL(cond) \
    do { \
        uint64_t limit_ = deadline_in(5000); \
        while (!(cond)) { \
            CO_CHECK(now_ms() < limit_); \
            CO_CHECK(fiber_sleep(1, e) == 0); \
        } \
    } while (0)

/* --- two of ours --- */

CO static int echoes(struct err *e)
{
    static const size_t sizes[] = { 0, 1, 125, 126, 65535, 65536, 300000 };
    struct user server = { .echo = true }, client = { 0 };
    char *big = xmalloc(300000);
    size_t bytes = 0;

    memset(big, 'w', 300000);
    open_pair(&server, &client, NULL);
    for (unsigned i = 0; i < LEN(sizes); i++) {
        CO_CHECK(
            ws_send(client.ws, i % 2 ? WS_TEXT : WS_BINARY, (struct str){ big, sizes[i] }, e) == 0);
        bytes += sizes[i];
        UNTIL(client.messages == i + 1);
        CO_CHECK(client.bytes == bytes && server.bytes == bytes);
        CO_CHECK(strncmp(client.last, i % 2 ? "text:" : "binary:", 5) == 0);
    }
    free(big);
    ws_close(client.ws, 1000, "bye");
    UNTIL(client.closes == 1 && server.closes == 1);
    CO_CHECK(server.code == 1000 && strcmp(server.reason, "bye") == 0);
    CO_CHECK(client.code == 1000 && strcmp(client.reason, "") == 0);
    return 0;
}

TEST(messages_go_both_ways_and_the_close_is_told_once)
{
    CHECK_INT(in_loop(echoes), 0);
}

CO static int server_closes(struct err *e)
{
    struct user server = { .close_on_message = 4000 }, client = { 0 };

    open_pair(&server, &client, NULL);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("one"), e) == 0);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("two"), e) == 0);
    UNTIL(client.closes == 1 && server.closes == 1);
    CO_CHECK(server.messages == 1); /* what comes after the close is dropped */
    CO_CHECK(client.code == 4000 && strcmp(client.reason, "seen enough") == 0);
    return 0;
}

TEST(a_close_from_inside_a_message_callback_works)
{
    CHECK_INT(in_loop(server_closes), 0);
}

CO static int both_close(struct err *e)
{
    struct user server = { 0 }, client = { 0 };

    open_pair(&server, &client, NULL);
    ws_close(client.ws, 1000, NULL);
    ws_close(server.ws, 1001, "going");
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("late"), e) == -ERR_UNAVAILABLE);
    ws_close(client.ws, 1000, NULL); /* again is nothing */
    CO_CHECK(client.closes == 0);    /* never from inside a call */
    UNTIL(client.closes == 1 && server.closes == 1);
    CO_CHECK(client.code == 1001 && server.code == 1000);
    return 0;
}

TEST(both_sides_may_close_at_once)
{
    CHECK_INT(in_loop(both_close), 0);
}

CO static int aborts(struct err *e)
{
    struct user server = { 0 }, client = { 0 };

    open_pair(&server, &client, NULL);
    ws_abort(client.ws);
    CO_CHECK(client.closes == 0);
    UNTIL(client.closes == 1 && server.closes == 1);
    CO_CHECK(client.code == 1006 && server.code == 1006);
    return 0;
}

TEST(an_abort_is_1006_for_both)
{
    CHECK_INT(in_loop(aborts), 0);
}

CO static int closes_without_code(struct err *e)
{
    struct user server = { 0 }, client = { 0 };

    open_pair(&server, &client, NULL);
    ws_close(server.ws, 1005, NULL);
    UNTIL(client.closes == 1 && server.closes == 1);
    CO_CHECK(client.code == 1005 && server.code == 1005);
    return 0;
}

TEST(a_close_may_have_no_code)
{
    CHECK_INT(in_loop(closes_without_code), 0);
}

CO static int long_reason(struct err *e)
{
    char text[200] = "a";

    for (int i = 0; i < 60; i++)
        strcat(text, "\xe2\x82\xac");
    for (size_t skip = 0; skip < 2; skip++) { /* the limit of 123 cuts a character, or does not */
        struct user server = { 0 }, client = { 0 };

        open_pair(&server, &client, NULL);
        ws_close(server.ws, 3000, text + skip);
        UNTIL(client.closes == 1 && server.closes == 1);
        CO_CHECK(client.code == 3000 && strlen(client.reason) == (skip ? 123 : 121));
    }
    return 0;
}

TEST(a_long_reason_is_cut_between_characters)
{
    CHECK_INT(in_loop(long_reason), 0);
}

/* --- fibers --- */

CO static int receives(struct err *e)
{
    struct arena a = { 0 };
    struct ws *server, *client;
    enum ws_kind kind;
    struct str data;
    int fd[2];

    make_pair(fd);
    server = open_on(fd[0], false, NULL, NULL);
    client = open_on(fd[1], true, NULL, NULL);
    CO_CHECK(ws_recv(server, &a, &kind, &data, deadline_in(10), e) == -ERR_TIMEOUT);
    CO_CHECK(ws_send(client, WS_TEXT, STR("one"), e) == 0);
    CO_CHECK(ws_send(client, WS_BINARY, STR("two"), e) == 0);
    ws_close(client, 4242, "done");
    CO_CHECK(ws_recv(server, &a, &kind, &data, deadline_in(1000), e) == 0);
    CO_CHECK(kind == WS_TEXT && str_eq_z(data, "one"));
    UNTIL(server->told); /* what came before the close is still to be had */
    CO_CHECK(ws_recv(server, &a, &kind, &data, deadline_in(1000), e) == 0);
    CO_CHECK(kind == WS_BINARY && str_eq_z(data, "two"));
    CO_CHECK(ws_recv(server, &a, &kind, &data, deadline_in(1000), e) == WS_CLOSED);
    CO_CHECK(ws_close_code(server) == 4242);
    CO_CHECK(ws_recv(client, &a, &kind, &data, deadline_in(1000), e) == WS_CLOSED);
    CO_CHECK(ws_recv(client, &a, &kind, &data, deadline_in(1000), e) == WS_CLOSED);
    ws_free(server);
    ws_free(client);
    ws_free(NULL);
    arena_done(&a);
    return 0;
}

TEST(a_fiber_receives_messages_and_then_the_close)
{
    CHECK_INT(in_loop(receives), 0);
}

CO static int freed_early(struct err *e)
{
    struct user client = { 0 };
    struct ws *server;
    int fd[2];

    make_pair(fd);
    server = open_on(fd[0], false, NULL, NULL);
    client.ws = open_on(fd[1], true, NULL, &client);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("unread"), e) == 0);
    CO_CHECK(fiber_sleep(5, e) == 0);
    ws_free(server);
    UNTIL(client.closes == 1);
    CO_CHECK(client.code == 1006);
    return 0;
}

TEST(an_open_socket_may_be_freed)
{
    CHECK_INT(in_loop(freed_early), 0);
}

/* Nobody receives: the sender's queue fills and refuses; then all arrives, in order. */
CO static int is_held_back(struct err *e)
{
    static const struct ws_limits limits = { .inbox = 8, .queue = 20000 };
    struct arena a = { 0 };
    struct ws *server, *client;
    unsigned sent = 0, got = 0;
    enum ws_kind kind;
    struct str data;
    char text[100];
    int fd[2], r;

    make_pair(fd);
    server = open_on(fd[0], false, &limits, NULL);
    client = open_on(fd[1], true, &limits, NULL);
    for (int quiet = 0; quiet < 20;) {
        fmt_z(text, sizeof(text), "%090u", sent);
        r = ws_send(client, WS_TEXT, str_of(text), e);
        if (r == 0)
            sent++;
        quiet = r == 0 ? 0 : quiet + 1;
        CO_CHECK(r == 0 || r == -ERR_LIMIT);
        CO_CHECK(fiber_yield(e) == 0);
    }
    CO_CHECK(sent > 200 && ws_queued(client) > 19000 && ws_queued(client) <= 20000);
    CO_CHECK(server->inbox_n == 8 && server->paused);
    CO_CHECK(ws_send(client, WS_TEXT, STR("x"), e) == 0 ||
             ws_queued(client) > 20000 - 10); /* the size decides */
    sent += ws_queued(client) > 0;
    while (got < sent - 1) {
        CO_CHECK(ws_recv(server, &a, &kind, &data, deadline_in(1000), e) == 0);
        fmt_z(text, sizeof(text), "%090u", got);
        CO_CHECK(str_eq_z(data, text));
        CO_CHECK(server->inbox_n <= 8);
        got++;
        arena_reset(&a);
    }
    CO_CHECK(ws_queued(client) == 0);
    ws_free(server);
    ws_free(client);
    arena_done(&a);
    return 0;
}

TEST(a_slow_receiver_holds_the_sender_back)
{
    CHECK_INT(in_loop(is_held_back), 0);
}

struct sender {
    struct ws *ws;
    unsigned sent;
    int result;
};

CO static int send_many(void *arg, struct err *e)
{
    struct sender *s = arg;
    char text[1000];

    memset(text, 's', sizeof(text));
    for (s->sent = 0; s->sent < 200; s->sent++) {
        s->result =
            ws_send_wait(s->ws, WS_BINARY, (struct str){ text, sizeof(text) }, DEADLINE_NONE, e);
        if (s->result < 0)
            break;
    }
    return 0;
}

CO static int senders_wait(struct err *e)
{
    static const struct ws_limits limits = { .inbox = 4, .queue = 5000 };
    struct arena a = { 0 };
    struct sender one, two;
    struct fiber *f, *g;
    struct ws *server, *client;
    enum ws_kind kind;
    struct str data;
    int fd[2];

    make_pair(fd);
    server = open_on(fd[0], false, &limits, NULL);
    client = open_on(fd[1], true, &limits, NULL);
    one = two = (struct sender){ .ws = server };
    CO_CHECK(fiber_spawn(loop, "one", send_many, &one, &f, e) == 0);
    CO_CHECK(fiber_spawn(loop, "two", send_many, &two, &g, e) == 0);
    CO_CHECK(fiber_sleep(10, e) == 0);
    CO_CHECK(one.sent < 200 && two.sent < 200 && ws_queued(server) > 0);
    for (int i = 0; i < 400; i++) {
        CO_CHECK(ws_recv(client, &a, &kind, &data, deadline_in(1000), e) == 0);
        CO_CHECK(data.n == 1000);
        arena_reset(&a);
    }
    CO_CHECK(fiber_join(f, e) == 0 && fiber_join(g, e) == 0);
    CO_CHECK(one.sent == 200 && two.sent == 200);

    CO_CHECK(fiber_spawn(loop, "one", send_many, &one, &f, e) == 0);
    CO_CHECK(fiber_spawn(loop, "two", send_many, &two, &g, e) == 0);
    CO_CHECK(fiber_sleep(10, e) == 0);
    fiber_cancel(g);
    CO_CHECK(fiber_join(g, e) == 0 && two.result == -ERR_CANCELED);
    ws_free(client);
    CO_CHECK(fiber_join(f, e) == 0); /* woken, although there is nothing left to write to */
    CO_CHECK(one.result == -ERR_UNAVAILABLE);
    ws_free(server);
    arena_done(&a);
    return 0;
}

TEST(senders_wait_for_room_and_are_woken_at_the_end)
{
    CHECK_INT(in_loop(senders_wait), 0);
}

CO static int too_big(struct err *e)
{
    static const struct ws_limits limits = { .message = 1000, .queue = 2000 };
    struct user server = { 0 }, client = { 0 };
    char text[3000];

    memset(text, 'x', sizeof(text));
    open_pair(&server, &client, &limits);
    CO_CHECK(ws_send(client.ws, WS_TEXT, (struct str){ text, 3000 }, e) == -ERR_LIMIT);
    CO_CHECK(ws_send(client.ws, WS_TEXT, (struct str){ text, 1000 }, e) == 0);
    UNTIL(server.messages == 1);
    CO_CHECK(ws_send(client.ws, WS_TEXT, (struct str){ text, 1001 }, e) == 0);
    UNTIL(server.closes == 1 && client.closes == 1);
    CO_CHECK(server.messages == 1 && server.code == 1009 && client.code == 1009);
    return 0;
}

TEST(a_message_over_the_limit_closes_with_1009)
{
    CHECK_INT(in_loop(too_big), 0);
}

/* --- ours against bytes --- */

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

/* --- cost --- */

enum { IDLE = 500 };

CO static int idle_cost(struct err *e)
{
    struct user *users = xcalloc(2 * IDLE, sizeof(*users));
    size_t before, after;

    open_pair(&users[0], &users[1], NULL); /* the stock of read contexts is made */
    CO_CHECK(ws_send(users[0].ws, WS_TEXT, STR("hello"), e) == 0);
    UNTIL(users[1].messages == 1);
    before = mallinfo2().uordblks;
    for (int i = 2; i < 2 * IDLE; i += 2) {
        open_pair(&users[i], &users[i + 1], NULL);
        CO_CHECK(ws_send(users[i].ws, WS_TEXT, STR("hello"), e) == 0);
        CO_CHECK(ws_send(users[i + 1].ws, WS_TEXT, STR("hello"), e) == 0);
    }
    for (int i = 2; i < 2 * IDLE; i++)
        UNTIL(users[i].messages == 1);
    after = mallinfo2().uordblks;
    printf("# %zu bytes for an idle WebSocket\n", (after - before) / (2 * IDLE - 2));
    if (after > before) /* a sanitizer's malloc does not count */
        CO_CHECK((after - before) / (2 * IDLE - 2) < 2048);
    for (int i = 0; i < 2 * IDLE; i += 2)
        ws_close(users[i].ws, 1000, NULL);
    for (int i = 0; i < 2 * IDLE; i++)
        UNTIL(users[i].closes == 1);
    free(users);
    return 0;
}

TEST(an_idle_socket_keeps_no_buffers)
{
    CHECK_INT(in_loop(idle_cost), 0);
}
