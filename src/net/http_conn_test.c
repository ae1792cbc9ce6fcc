/* SPDX-License-Identifier: MIT */
/* Connections over time: clients that leave, sleep or crowd in, streams, upgrades, shutdown. */
#include "net/http_site_test.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "net/http_int.h"
#include "test.h"

static CO int goes_away(struct err *e)
{
    uint64_t until = deadline_in(PATIENCE_MS);
    struct linger now = { 1, 0 };
    CLIENT(c);

    for (int reset = 0; reset < 2; reset++) {
        seen.held = false;
        seen.canceled = 0;
        CO_CHECK(client_open(&c, e) == 0);
        CO_CHECK(say(&c, "GET /t/hold" H "\r\nGET /t/hold" H "\r\n", e) == 0);
        while (!seen.held && now_ms() < until)
            CO_CHECK(fiber_sleep(1, e) == 0);
        CO_CHECK(http_server_requests(server) == 1);
        if (reset)
            setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        client_close(&c);
        while (seen.canceled == 0 && now_ms() < until)
            CO_CHECK(fiber_sleep(1, e) == 0);
        CO_CHECK(seen.canceled == 1);
        CO_CHECK(fiber_sleep(1, e) == 0);
        CO_CHECK(http_server_connections(server) == 0);
        CO_CHECK(http_server_requests(server) == 0);
    }
    return 0;
}

static CO int goes_away_behind_a_pipeline(struct err *e)
{
    struct linger now = { 1, 0 };
    CLIENT(c);

    for (int reset = 0; reset < 2; reset++) {
        seen.held = false;
        seen.canceled = 0;
        CO_CHECK(client_open(&c, e) == 0);
        CO_CHECK(say(&c, "GET /t/hold" H "\r\n", e) == 0);
        for (int i = 0; i < 1000; i++) /* more than is read ahead */
            CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
        while (!seen.held)
            CO_CHECK(fiber_sleep(1, e) == 0);
        if (reset)
            setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        client_close(&c);
        while (seen.canceled == 0)
            CO_CHECK(fiber_sleep(5, e) == 0);
    }
    return 0;
}

TEST(a_client_that_goes_away_behind_more_than_is_read_ahead_is_noticed_too)
{
    CHECK(serve(&usual, goes_away_behind_a_pipeline));
}

TEST(a_client_that_goes_away_cancels_its_handler)
{
    CHECK(serve(&usual, goes_away));
}

static CO int half_closes(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/nap" H "\r\nGET /t/things/x" H "\r\n", e) == 0);
    CO_CHECK(shutdown(c.fd, SHUT_WR) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(seen.canceled == 0);
    CO_CHECK(has(&c, "{\"name\":\"x\""));
    return 0;
}

TEST(a_client_that_ends_only_its_side_gets_what_is_answered_soon)
{
    CHECK(serve(&usual, half_closes));
}

static CO int streams(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/stream" H "\r\n", e) == 0);
    while (seen.written < (int)HTTP_STREAM_QUEUE)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(fiber_sleep(50, e) == 0); /* nobody reads: it must have come to a stop */
    CO_CHECK(seen.finished == 0 && seen.written < BIG);
    CO_CHECK(hears(&c, "\r\n0\r\n\r\n", 1, e));
    CO_CHECK(seen.finished == 1);
    CO_CHECK(c.n > BIG && c.n < BIG + BIG / 100);
    CO_CHECK(has(&c, "Transfer-Encoding: chunked\r\n"));
    CO_CHECK(say(&c, "GET /t/things/after" H "\r\n", e) == 0);
    c.n = 0;
    CO_CHECK(hears(&c, "\"after\"", 1, e));
    return 0;
}

TEST(a_streamed_answer_waits_for_its_reader_and_keeps_the_connection)
{
    CHECK(serve(&usual, streams));
}

static CO int helped(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/helped" H "\r\n", e) == 0);
    CO_CHECK(fiber_sleep(50, e) == 0); /* nobody reads: it must have come to a stop */
    CO_CHECK(hears(&c, "\r\n0\r\n\r\n", 1, e));
    CO_CHECK(c.n > BIG);
    return 0;
}

TEST(a_helper_that_writes_for_the_handler_goes_on_when_there_is_room)
{
    CHECK(serve(&usual, helped));
}

static CO int big_answer(struct err *e)
{
    CLIENT(c);
    const char *body;

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/big" H "\r\nGET /t/things/after" H "\r\n", e) == 0);
    CO_CHECK(hears(&c, "\"after\"", 1, e));
    body = strstr(c.text, "\r\n\r\n") + 4;
    for (int i = 0; i < BIG; i++)
        CO_CHECK(body[i] == (char)('a' + i % 23));
    CO_CHECK(strncmp(body + BIG, "HTTP/1.1 200 ", 13) == 0);

    client_close(&c);
    limits.write_idle_ms = 100;
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/big" H "\r\n", e) == 0);
    while (http_server_connections(server) < 1)
        CO_CHECK(fiber_sleep(1, e) == 0);
    while (http_server_connections(server) > 0) /* nobody reads: cut off */
        CO_CHECK(fiber_sleep(5, e) == 0);
    return 0;
}

TEST(a_large_answer_is_sent_as_fast_as_it_is_read_and_no_longer_than_it_is)
{
    CHECK(serve(&usual, big_answer));
}

static CO int stream_forms(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t/events" H CLOSE "\r\n", e));
    CO_CHECK(has(&c, "Content-Type: text/event-stream\r\n"));
    CO_CHECK(has(&c, "\r\n2e\r\nevent: delta\ndata: one\ndata: two\ndata: three\n\n\r\n"));
    CO_CHECK(has(&c, "\r\n: keep-alive\n\n\r\n"));
    CO_CHECK(has(&c, "\r\ndata: \n\n\r\n"));
    CO_CHECK(has(&c, "\r\nid: 7\nevent: delta\ndata: x\n\n\r\n0\r\n\r\n"));
    CO_CHECK(talk(&c, "GET /t/events HTTP/1.0\r\n\r\n", e));
    CO_CHECK(has(&c, "Connection: close\r\n"));
    CO_CHECK(has(&c, "\r\n\r\nevent: delta\ndata: one\n"));
    CO_CHECK(!strstr(c.text, "chunked"));
    CO_CHECK(talk(&c, "GET /t/broken" H "\r\n", e));
    CO_CHECK(has(&c, "4\r\nhalf\r\n"));
    CO_CHECK(!strstr(c.text, "\r\n0\r\n"));
    return 0;
}

TEST(streams_are_chunked_or_end_with_the_connection_and_never_look_whole_when_broken)
{
    CHECK(serve_quietly(&usual, stream_forms));
}

static CO int stream_reader_leaves(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/stream" H "\r\n", e) == 0);
    CO_CHECK(hears(&c, "xxxx", 1, e));
    client_close(&c);
    while (seen.canceled + seen.finished == 0)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(seen.canceled == 1);
    return 0;
}

TEST(a_reader_that_leaves_cancels_the_stream)
{
    CHECK(serve(&usual, stream_reader_leaves));
}

static CO int reader_sleeps(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/stream" H "\r\n", e) == 0);
    while (seen.canceled == 0)
        CO_CHECK(fiber_sleep(5, e) == 0);
    CO_CHECK(seen.finished == 0);
    return 0;
}

TEST(a_reader_that_sleeps_too_long_is_cut_off)
{
    struct http_limits l = usual;

    l.write_idle_ms = 100;
    CHECK(serve(&l, reader_sleeps));
}

static CO int slow_clients(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t HTTP/1.1\r\nHo", e));
    CO_CHECK(starts(&c, "HTTP/1.1 408 "));
    CO_CHECK(talk(&c, "POST /t/raw" H "Content-Length: 5\r\n\r\nab", e));
    CO_CHECK(starts(&c, "HTTP/1.1 408 "));
    client_close(&c);
    CO_CHECK(client_open(&c, e) == 0); /* says nothing */
    CO_CHECK(ends(&c, e) && c.n == 0);
    client_close(&c);
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 200 ") && !strstr(c.text, "408"));
    return 0;
}

TEST(slow_clients_get_408_and_idle_ones_are_closed_in_silence)
{
    struct http_limits l = usual;

    l.first_byte_ms = l.body_idle_ms = l.idle_ms = 60;
    CHECK(serve(&l, slow_clients));
}

static CO int handler_too_slow(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t/hold" H CLOSE "\r\n", e));
    CO_CHECK(starts(&c, "HTTP/1.1 504 "));
    return 0;
}

TEST(a_handler_past_the_request_limit_is_504)
{
    struct http_limits l = usual;

    l.request_ms = 60;
    CHECK(serve_quietly(&l, handler_too_slow));
}

static CO int crowd(struct err *e)
{
    CLIENT(a);
    CLIENT(b);
    CLIENT(c);

    CO_CHECK(client_open(&a, e) == 0 && client_open(&b, e) == 0);
    CO_CHECK(say(&a, "GET /t/things/x" H "\r\n", e) == 0 && hears(&a, "\"x\"", 1, e));
    CO_CHECK(say(&b, "GET /t/things/x" H "\r\n", e) == 0 && hears(&b, "\"x\"", 1, e));
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 503 "));
    CO_CHECK(has(&c, "Retry-After: 1\r\n") &&
             has(&c, "\r\n\r\n{\"error\":\"Too many connections\"}"));
    client_close(&a);
    while (http_server_connections(server) > 1)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(talk(&a, "GET /t/things/y" H CLOSE "\r\n", e) && has(&a, "\"y\""));
    return 0;
}

TEST(connections_past_the_limits_are_told_503)
{
    struct http_limits l = usual;

    l.connections = 2;
    CHECK(serve(&l, crowd));
    l = usual;
    l.connections_per_ip = 2;
    CHECK(serve(&l, crowd));
}

static CO int many_bodies(struct err *e)
{
    static const char post[] = "POST /t/things" H CLOSE "Content-Length: 99990\r\n\r\n";
    static const char small[] =
        "POST /t/things" H CLOSE "Content-Length: 12\r\n\r\n{\"name\":\"x\"}";
    const struct http_link *refused_list = &server->lists[CONN_LINGER];
    struct client c[20];
    int refused = 0, served = 0, r;
    static char block[10000];
    CLIENT(other);

    memset(block, ' ', sizeof(block));
    block[sizeof(block) - 1] = '\0';
    for (size_t i = 0; i < LEN(c); i++) {
        CO_CHECK(client_open(&c[i], e) == 0 && say(&c[i], post, e) == 0);
        for (int k = 0; k < 9; k++)
            CO_CHECK(say(&c[i], block, e) == 0);
    }
    while (refused_list->next == refused_list)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(talk(&other, small, e) && starts(&other, "HTTP/1.1 201 "));
    for (size_t i = 0; i < LEN(c); i++) {
        r = say(&c[i], block, e);
        CO_CHECK(r == 0 || e->code != ERR_TIMEOUT); /* the refused may be gone */
        CO_CHECK(ends(&c[i], e));
        refused +=
            strstr(c[i].text, "HTTP/1.1 503 ") && strstr(c[i].text, "\r\nRetry-After: 1\r\n");
        served += strstr(c[i].text, "HTTP/1.1 422 ") != NULL;
        client_close(&c[i]);
    }
    CO_CHECK(refused > 0 && served >= 10 && refused + served == LEN(c));
    CO_CHECK(server->held == 0);
    return 0;
}

TEST(bodies_in_memory_have_a_bound_together_that_short_ones_do_not_feel)
{
    struct http_limits l = usual;

    l.body_bytes = 100000;
    CHECK(serve_quietly(&l, many_bodies));
}

static CO int no_descriptors(struct err *e)
{
    struct rlimit old, few;
    CLIENT(a);
    CLIENT(b);
    int r;

    CO_CHECK(client_open(&a, e) == 0 && client_open(&b, e) == 0);
    CO_CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    few = (struct rlimit){ (rlim_t)b.fd + 1, old.rlim_max };
    CO_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0); /* neither has been accepted yet */
    r = say(&a, "GET /t/things/x" H "\r\n", e);
    if (r == 0 && !ends(&a, e))
        r = -1;
    CO_CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    CO_CHECK(r == 0 && starts(&a, "HTTP/1.1 503 "));
    CO_CHECK(talk(&b, "GET /t/things/y" H CLOSE "\r\n", e) && has(&b, "\"y\""));
    return 0;
}

TEST(without_descriptors_connections_are_still_answered)
{
    CHECK(serve_quietly(&usual, no_descriptors));
}

static CO int upgrades(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/upgrade" H "\r\nrest", e) == 0);
    while (!seen.taken)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(http_server_connections(server) == 0);
    CO_CHECK(str_eq(buf_str(&seen.rest), STR("rest")));
    stream_free(seen.taken);
    CO_CHECK(ends(&c, e) && c.n == 0);
    http_seat_free(seen.seat);
    buf_done(&seen.rest);
    return 0;
}

TEST(an_upgraded_connection_leaves_with_its_unread_bytes)
{
    CHECK(serve(&usual, upgrades));
}

static CO int ask_for_nap(void *arg, struct err *e)
{
    CLIENT(c);
    int *ret = arg;

    *ret = talk(&c, "GET /t/nap" H "\r\n", e) && has(&c, "200 OK") && has(&c, "Connection: close");
    return 0;
}

static CO int shuts_down(struct err *e)
{
    struct fiber *asking;
    int answered = 0;
    CLIENT(idle);
    CLIENT(c);

    CO_CHECK(talk(&c, "GET /t/things/x" H CLOSE "\r\n", e));
    CO_CHECK(client_open(&idle, e) == 0);
    CO_CHECK(fiber_spawn(loop, "asking", ask_for_nap, &answered, &asking, e) == 0);
    while (http_server_requests(server) == 0)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(http_server_shutdown(server, deadline_in(PATIENCE_MS), e) == 0);
    CO_CHECK(fiber_join(asking, e) == 0);
    CO_CHECK(answered == 1);
    CO_CHECK(ends(&idle, e));
    client_close(&c);
    CO_CHECK(client_open(&c, e) < 0);
    return 0;
}

TEST(shutdown_lets_requests_finish_and_takes_no_new_ones)
{
    CHECK(serve(&usual, shuts_down));
}

static CO int shuts_down_at_deadline(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t/hold" H "\r\n", e) == 0);
    while (!seen.held)
        CO_CHECK(fiber_sleep(1, e) == 0);
    CO_CHECK(http_server_shutdown(server, deadline_in(50), e) == 0);
    CO_CHECK(seen.canceled == 1 && http_server_requests(server) == 0);
    CO_CHECK(ends(&c, e));
    return 0;
}

TEST(shutdown_cancels_what_is_left_at_its_deadline)
{
    CHECK(serve(&usual, shuts_down_at_deadline));
}
