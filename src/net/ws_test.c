/* SPDX-License-Identifier: MIT */
/* Two WebSockets of ours against each other. */
#include "net/ws.h"

#include <malloc.h>

#include "net/ws_rig.h"

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
        memcpy(text + 1 + 3 * i, "\xe2\x82\xac", 4);
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
    UNTIL(server->state == WS_HEARD); /* what came before the close is still to be had */
    CO_CHECK(ws_recv(server, &a, &kind, &data, deadline_in(1000), e) == 0);
    CO_CHECK(kind == WS_BINARY && str_eq_z(data, "two"));
    CO_CHECK(ws_send(server, WS_TEXT, STR("an answer"), e) == 0); /* and to be answered */
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

static void free_it(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    *(unsigned *)arg = code;
    ws_free(ws);
}

CO static int freed_when_told(struct err *e)
{
    static const struct ws_ops only_closed = { .closed = free_it };
    unsigned codes[2] = { 0 };
    struct user client = { 0 };
    int fd[2];

    for (int i = 0; i < 2; i++) { /* a close in order, and a loss */
        struct stream *s;

        make_pair(fd);
        s = stream_new(loop, fd[0], NULL, NULL, ignore_ready, NULL);
        (void)ws_new(loop, s, NULL, false, NULL, &only_closed, &codes[i], (struct str){ 0 },
                     (struct str){ 0 });
        client = (struct user){ 0 };
        client.ws = open_on(fd[1], true, NULL, &client);
        if (i == 0)
            ws_close(client.ws, 1000, NULL);
        else
            ws_abort(client.ws);
        UNTIL(client.closes == 1 && codes[i] != 0);
    }
    CO_CHECK(codes[0] == 1000 && codes[1] == 1006);
    return 0;
}

TEST(a_socket_may_be_freed_from_its_closed_callback)
{
    CHECK_INT(in_loop(freed_when_told), 0);
}

/* A fiber that never asks for more does not keep the peer waiting for ever. */
CO static int close_is_answered_anyway(struct err *e)
{
    static const struct ws_limits limits = { .close_ms = 30 };
    struct user client = { 0 };
    struct ws *server;
    int fd[2];

    make_pair(fd);
    server = open_on(fd[0], false, &limits, NULL);
    client.ws = open_on(fd[1], true, NULL, &client);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("unread"), e) == 0);
    ws_close(client.ws, 1000, NULL);
    UNTIL(client.closes == 1);
    CO_CHECK(client.code == 1000 && server->told && server->inbox_n == 1);
    ws_free(server);
    return 0;
}

TEST(a_close_behind_messages_is_answered_in_time)
{
    CHECK_INT(in_loop(close_is_answered_anyway), 0);
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

/* --- users without a fiber --- */

static void on_pair_drained(struct ws *ws, void *arg)
{
    ((struct user *)arg)->close_on_message++; /* serves as a counter here */
}

CO static int gathers(struct err *e)
{
    static const struct ws_ops drained_ops = { .message = on_message,
                                               .closed = on_closed,
                                               .drained = on_pair_drained };
    const struct ws_limits limits = { .gather = true, .queue = 4096 };
    struct user server = { 0 }, client = { 0 };
    char big[3000];

    memset(big, 'x', sizeof(big));
    open_pair(&server, &client, &limits);
    server.ws->ops = &drained_ops;
    for (int i = 0; i < 10; i++)
        CO_CHECK(ws_send(server.ws, WS_TEXT, STR("0123456789"), e) == 0);
    CO_CHECK(ws_queued(server.ws) == 120 && client.messages == 0);
    UNTIL(client.messages == 10);
    CO_CHECK(server.close_on_message == 1 && ws_queued(server.ws) == 0);
    CO_CHECK(ws_send(server.ws, WS_TEXT, (struct str){ big, sizeof(big) }, e) == 0);
    CO_CHECK(ws_send(server.ws, WS_TEXT, (struct str){ big, sizeof(big) }, e) == -ERR_LIMIT);
    ws_close(server.ws, 1000, "done"); /* behind what waits */
    UNTIL(server.closes == 1 && client.closes == 1);
    CO_CHECK(client.messages == 11 && client.code == 1000);
    return 0;
}

TEST(what_is_sent_in_one_turn_may_be_written_at_its_end)
{
    CHECK_INT(in_loop(gathers), 0);
}

CO static int pauses(struct err *e)
{
    const struct ws_limits limits = { .ping_ms = 50, .dead_ms = 100 };
    struct user server = { 0 }, client = { 0 };

    open_pair(&server, &client, &limits);
    ws_pause_reading(server.ws);
    for (int i = 0; i < 5; i++)
        CO_CHECK(ws_send(client.ws, WS_TEXT, STR("x"), e) == 0);
    CO_CHECK(fiber_sleep(20, e) == 0);
    CO_CHECK(server.messages == 0 && server.closes == 0);
    ws_resume_reading(server.ws);
    UNTIL(server.messages == 5);
    ws_resume_reading(server.ws); /* again is nothing */
    ws_limit_message(server.ws, 10);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("ten bytes!"), e) == 0);
    UNTIL(server.messages == 6);
    CO_CHECK(ws_send(client.ws, WS_TEXT, STR("eleven byte"), e) == 0);
    UNTIL(server.closes == 1 && client.closes == 1);
    CO_CHECK(client.code == 1009);
    return 0;
}

TEST(reading_may_be_paused_and_limited_later)
{
    CHECK_INT(in_loop(pauses), 0);
}

/* A peer that answers pings is pinged again after each silence, not only once. */
CO static int is_pinged_again(struct err *e)
{
    const struct ws_limits limits = { .ping_ms = 20, .dead_ms = 60000 };
    struct user server = { 0 }, client = { 0 };
    uint64_t begin_ms, last;
    unsigned times = 0;

    open_pair(&server, &client, &limits);
    client.ws->limits.ping_ms = 60000; /* only the server asks */
    begin_ms = last = ws_heard_ms(server.ws);
    while (times < 5) {
        CO_CHECK(now_ms() - begin_ms < 20000);
        CO_CHECK(fiber_sleep(5, e) == 0);
        if (ws_heard_ms(server.ws) != last) {
            last = ws_heard_ms(server.ws);
            times++;
        }
    }
    ws_close(server.ws, 1000, NULL);
    UNTIL(server.closes == 1 && client.closes == 1);
    return 0;
}

TEST(who_answers_a_ping_is_pinged_again)
{
    CHECK_INT(in_loop(is_pinged_again), 0);
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
