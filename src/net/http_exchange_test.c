/* SPDX-License-Identifier: MIT */
/* Answers piece by piece: http_exchange_*() against the scripted server. */
#include "net/http_client.h"

#include <stdlib.h>

#include "base/fiber.h"
#include "base/str.h"
#include "net/http_client_rig.h"
#include "test.h"

CO static int streams(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_exchange *x = NULL;
    struct http_call call = rig_get(a, "/stream");
    struct http_answer head;
    size_t all = 0, n = 1;
    char piece[5000];

    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(head.status == 200);
    CO_CHECK(!strstr(rig.last_head, "Accept-Encoding"));
    CO_CHECK(fiber_sleep(30, e) == 0); /* let it fill up and pause */
    while (n > 0) {
        CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0);
        for (size_t i = 0; i < n; i++)
            CO_CHECK(piece[i] == 's');
        all += n;
    }
    CO_CHECK(all == MIB);
    CO_CHECK(http_exchange_fail(x) == HTTP_FAIL_NONE);
    http_exchange_close(x);

    call = rig_get(a, "/echo"); /* the connection went back to the pool */
    CO_CHECK(http_fetch(c, &call, a, &head, e) == 0);
    CO_CHECK(rig.connections == 1);
    return 0;
}

TEST(a_streamed_answer_is_held_back_and_complete)
{
    CHECK_INT(rig_run(streams), 0);
}

CO static int drips(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_exchange *x = NULL;
    struct http_call call = rig_get(a, "/drip");
    struct http_answer head;
    unsigned timeouts = 0;
    size_t all = 0, n;
    char piece[100];
    int r;

    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    for (;;) {
        r = http_exchange_read(x, piece, sizeof(piece), &n, deadline_in(3), e);
        if (r == -ERR_TIMEOUT) {
            timeouts++; /* impatience of one read does not end the exchange */
            CO_CHECK(timeouts < 1000);
            continue;
        }
        CO_CHECK(r == 0);
        if (n == 0)
            break;
        all += n;
    }
    CO_CHECK(all == 6 && timeouts > 0);
    http_exchange_close(x);
    return 0;
}

TEST(a_read_may_time_out_and_be_tried_again)
{
    CHECK_INT(rig_run(drips), 0);
}

CO static int broken_streams(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_exchange *x = NULL;
    struct http_call call = rig_get(a, "/reset");
    struct http_answer head;
    char piece[100];
    size_t n;
    int r;

    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0 && n == 4);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == -ERR_UNAVAILABLE);
    CO_CHECK(http_exchange_fail(x) == HTTP_FAIL_RESET);
    http_exchange_close(x);

    call = rig_get(a, "/half");
    call.deadline_ms = deadline_in(60);
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0 && n == 4);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == -ERR_TIMEOUT);
    CO_CHECK(http_exchange_fail(x) == HTTP_FAIL_TIMEOUT);
    http_exchange_close(x);

    call = rig_get(a, "/bigstream");
    call.max_answer = 100000;
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    do
        r = http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e);
    while (r == 0 && n > 0);
    CO_CHECK(r == -ERR_LIMIT && http_exchange_fail(x) == HTTP_FAIL_TOO_BIG);
    http_exchange_close(x);

    call = rig_get(a, "/bigstream"); /* the limit is hit by bytes that were held back */
    call.max_answer = HTTP_EXCHANGE_QUEUE + 1000;
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(fiber_sleep(30, e) == 0);
    do
        r = http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e);
    while (r == 0 && n > 0);
    CO_CHECK(r == -ERR_LIMIT && http_exchange_fail(x) == HTTP_FAIL_TOO_BIG);
    http_exchange_close(x);

    call = rig_get(a, "/hang");
    call.deadline_ms = deadline_in(30);
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == -ERR_TIMEOUT);
    CO_CHECK(head.fail == HTTP_FAIL_TIMEOUT);

    call = rig_get(a, "/stream"); /* closing in the middle */
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0);
    http_exchange_close(x);
    http_exchange_close(NULL);
    return 0;
}

TEST(a_streamed_answer_that_breaks_says_so)
{
    CHECK_INT(rig_run(broken_streams), 0);
}
