/* SPDX-License-Identifier: MIT */
/* base/fiber_sync_test.c — groups, channels and lanes. */
#include "base/fiber.h"

#include <stdint.h>

#include "in_fiber.h"

static int sleep_long(void *arg, struct err *e)
{
    int *ended = arg;
    int r = fiber_sleep(600000, e);

    ++*ended;
    return r;
}

static int refuse(void *arg, struct err *e)
{
    return err_set(e, ERR_CONFLICT, "no");
}

static int count(void *arg, struct err *e)
{
    int r = fiber_yield(e);

    ++*(int *)arg;
    return r;
}

CO_TEST(a_group_is_joined_when_all_have_returned_and_is_usable_again)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    int ended = 0;

    CO_CHECK(fiber_group_join(g, e) == 0);
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < 5; i++)
            CO_CHECK(fiber_group_spawn(g, "count", count, &ended, e) == 0);
        CO_CHECK(fiber_group_size(g) == 5);
        CO_CHECK(fiber_group_join(g, e) == 0);
        CO_CHECK(ended == 5 * round);
    }
    fiber_group_free(g);
    return 0;
}

CO_TEST(a_member_that_fails_does_not_cancel_the_others)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    struct err got;
    int ended = 0;

    CO_CHECK(fiber_group_spawn(g, "refuse", refuse, NULL, e) == 0);
    CO_CHECK(fiber_group_spawn(g, "count", count, &ended, e) == 0);
    CO_CHECK(fiber_group_join(g, &got) == -ERR_CONFLICT);
    CO_CHECK(ended == 1);
    CO_CHECK(strcmp(got.msg, "no") == 0);
    CO_CHECK(fiber_group_join(g, &got) == 0); /* told once */
    fiber_group_free(g);
    return 0;
}

CO_TEST(cancelling_a_group_ends_all_members)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    int ended = 0;

    for (int i = 0; i < 5; i++)
        CO_CHECK(fiber_group_spawn(g, "sleep", sleep_long, &ended, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_group_cancel(g);
    CO_CHECK(fiber_group_join(g, e) == -ERR_CANCELED);
    CO_CHECK(ended == 5);
    fiber_group_free(g);
    return 0;
}

CO_TEST(a_failure_outranks_the_cancels_that_came_before_it)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    int ended = 0;

    CO_CHECK(fiber_group_spawn(g, "sleep", sleep_long, &ended, e) == 0);
    fiber_group_cancel(g);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fiber_group_spawn(g, "refuse", refuse, NULL, e) == 0);
    CO_CHECK(fiber_group_join(g, e) == -ERR_CONFLICT);
    fiber_group_free(g);
    return 0;
}

static int own_a_group(void *arg, struct err *e)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    int r = 0;

    for (int i = 0; i < 3 && r == 0; i++)
        r = fiber_group_spawn(g, "sleep", sleep_long, arg, e);
    r = fiber_group_join(g, e);
    fiber_group_free(g);
    return r;
}

CO_TEST(cancelling_the_owner_in_join_cancels_the_members_first)
{
    struct fiber *f;
    int ended = 0;

    CO_CHECK(fiber_spawn(fiber_loop(), "owner", own_a_group, &ended, &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(ended == 3);
    return 0;
}

static void *item(uintptr_t n)
{
    return (void *)n; /* never looked into */
}

CO_TEST(a_channel_is_bounded_keeps_order_and_drains_after_close)
{
    struct chan *c = chan_new(3);
    void *got = NULL;

    CO_CHECK(chan_try_recv(c, &got) == CHAN_EMPTY);
    for (uintptr_t i = 1; i <= 3; i++)
        CO_CHECK(chan_try_send(c, item(i)) == 0);
    CO_CHECK(chan_try_send(c, item(4)) == CHAN_FULL);
    CO_CHECK(chan_send(c, item(4), now_ms() + 5, e) == -ERR_TIMEOUT);
    CO_CHECK(chan_len(c) == 3);
    CO_CHECK(chan_recv(c, &got, DEADLINE_NONE, e) == 0 && got == item(1));
    CO_CHECK(chan_send(c, item(4), DEADLINE_NONE, e) == 0);
    chan_close(c);
    CO_CHECK(chan_try_send(c, item(5)) == CHAN_CLOSED);
    CO_CHECK(chan_send(c, item(5), DEADLINE_NONE, e) == CHAN_CLOSED);
    for (uintptr_t i = 2; i <= 4; i++)
        CO_CHECK(chan_recv(c, &got, DEADLINE_NONE, e) == 0 && got == item(i));
    CO_CHECK(chan_recv(c, &got, DEADLINE_NONE, e) == CHAN_CLOSED);
    CO_CHECK(chan_try_recv(c, &got) == CHAN_CLOSED);
    CO_CHECK(got == item(4));
    chan_free(c);
    return 0;
}

CO_TEST(receiving_from_an_empty_channel_times_out)
{
    struct chan *c = chan_new(1);
    void *got = NULL;

    CO_CHECK(chan_recv(c, &got, now_ms() + 5, e) == -ERR_TIMEOUT);
    CO_CHECK(!got);
    chan_free(c);
    return 0;
}

#define SENT 1000

struct traffic {
    struct chan *c;
    unsigned senders, next;
    unsigned long sum, wrong;
    unsigned last[8];
};

static int send_many(void *arg, struct err *e)
{
    struct traffic *t = arg;
    uintptr_t me = t->next++;

    for (uintptr_t i = 1; i <= SENT; i++) {
        int r = chan_send(t->c, item(me << 16 | i), DEADLINE_NONE, e);

        if (r)
            return r;
    }
    if (--t->senders == 0)
        chan_close(t->c);
    return 0;
}

static int recv_all(void *arg, struct err *e)
{
    struct traffic *t = arg;
    void *got = NULL;
    int r;

    while ((r = chan_recv(t->c, &got, DEADLINE_NONE, e)) == 0) {
        unsigned from = (unsigned)((uintptr_t)got >> 16), n = (unsigned)((uintptr_t)got & 0xffff);

        t->sum += n;
        t->wrong += n <= t->last[from]; /* several receivers, one queue: still rising */
        t->last[from] = n;
    }
    return r == CHAN_CLOSED ? 0 : r;
}

CO_TEST(many_senders_and_receivers_lose_and_repeat_nothing)
{
    struct traffic t = { .c = chan_new(4), .senders = 5 };
    struct fiber_group *g = fiber_group_new(fiber_loop());

    for (int i = 0; i < 5; i++)
        CO_CHECK(fiber_group_spawn(g, "send", send_many, &t, e) == 0);
    for (int i = 0; i < 3; i++)
        CO_CHECK(fiber_group_spawn(g, "recv", recv_all, &t, e) == 0);
    CO_CHECK(fiber_group_join(g, e) == 0);
    CO_CHECK(t.sum == 5UL * SENT * (SENT + 1) / 2);
    CO_CHECK(t.wrong == 0);
    fiber_group_free(g);
    chan_free(t.c);
    return 0;
}

struct reader {
    struct chan *c;
    void *got;
    int result;
};

static int recv_one(void *arg, struct err *e)
{
    struct reader *r = arg;

    r->result = chan_recv(r->c, &r->got, DEADLINE_NONE, e);
    return 0;
}

CO_TEST(a_cancelled_receiver_passes_its_wake_up_on)
{
    struct reader readers[2] = { { .c = chan_new(2) } };
    struct fiber *f[2];

    readers[1].c = readers[0].c;
    for (int i = 0; i < 2; i++)
        CO_CHECK(fiber_spawn(fiber_loop(), "recv", recv_one, &readers[i], &f[i], e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(chan_try_send(readers[0].c, item(7)) == 0); /* wakes the first ... */
    fiber_cancel(f[0]);                                  /* ... which is not to have it */
    CO_CHECK(fiber_join(f[0], e) == 0);
    CO_CHECK(fiber_join(f[1], e) == 0);
    CO_CHECK(readers[0].result == -ERR_CANCELED && !readers[0].got);
    CO_CHECK(readers[1].result == 0 && readers[1].got == item(7));
    chan_free(readers[0].c);
    return 0;
}

CO_TEST(close_wakes_everybody)
{
    struct reader readers[3] = { { .c = chan_new(2) } };
    struct fiber *f[3];

    for (int i = 0; i < 3; i++) {
        readers[i].c = readers[0].c;
        CO_CHECK(fiber_spawn(fiber_loop(), "recv", recv_one, &readers[i], &f[i], e) == 0);
    }
    CO_CHECK(fiber_yield(e) == 0);
    chan_close(readers[0].c);
    for (int i = 0; i < 3; i++) {
        CO_CHECK(fiber_join(f[i], e) == 0);
        CO_CHECK(readers[i].result == CHAN_CLOSED);
    }
    chan_free(readers[0].c);
    return 0;
}

struct walker {
    struct fiber_lane *lane;
    char *trace;
    char c;
    uint64_t deadline;
};

static int walk(void *arg, struct err *e)
{
    struct walker *w = arg;
    int r;

    r = fiber_lane_enter(w->lane, w->deadline, e);
    if (r < 0)
        return r;
    strncat(w->trace, &w->c, 1);
    r = fiber_yield(e);
    strncat(w->trace, &w->c, 1);
    fiber_lane_leave(w->lane);
    return r;
}

CO_TEST(a_lane_is_first_come_first_served)
{
    struct fiber_lane lane = { 0 };
    char trace[32] = "";
    struct walker w[4];
    struct fiber *f[4];

    for (int i = 0; i < 4; i++) {
        w[i] = (struct walker){ &lane, trace, (char)('a' + i), DEADLINE_NONE };
        CO_CHECK(fiber_spawn(fiber_loop(), "walk", walk, &w[i], &f[i], e) == 0);
    }
    CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(lane.waiting == 3);
    for (int i = 0; i < 4; i++)
        CO_CHECK(fiber_join(f[i], e) == 0);
    CO_CHECK(strcmp(trace, "aabbccdd") == 0);
    CO_CHECK(!lane.taken && lane.waiting == 0);
    return 0;
}

CO_TEST(a_waiter_of_a_lane_may_be_cancelled_or_time_out)
{
    struct fiber_lane lane = { 0 };
    char trace[32] = "";
    struct walker w[5];
    struct fiber *f[5];
    static const int want[5] = { 0, -ERR_CANCELED, 0, -ERR_TIMEOUT, -ERR_CANCELED };

    CO_CHECK(fiber_lane_enter(&lane, DEADLINE_NONE, e) == 0);
    for (int i = 0; i < 5; i++) {
        w[i] = (struct walker){ &lane, trace, (char)('a' + i), DEADLINE_NONE };
        if (i == 3)
            w[i].deadline = now_ms() + 5;
        CO_CHECK(fiber_spawn(fiber_loop(), "walk", walk, &w[i], &f[i], e) == 0);
    }
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f[1]);
    fiber_cancel(f[4]); /* the last: what comes after it must still find the end */
    CO_CHECK(fiber_sleep(10, e) == 0);
    CO_CHECK(lane.waiting == 2);
    fiber_lane_leave(&lane);
    for (int i = 0; i < 5; i++)
        CO_CHECK(fiber_join(f[i], e) == want[i]);
    CO_CHECK(strcmp(trace, "aacc") == 0);
    CO_CHECK(!lane.taken && !lane.first);
    CO_CHECK(fiber_lane_enter(&lane, DEADLINE_NONE, e) == 0);
    fiber_lane_leave(&lane);
    return 0;
}

CO_TEST(a_lane_granted_in_the_turn_of_a_cancel_is_not_lost)
{
    struct fiber_lane lane = { 0 };
    char trace[32] = "";
    struct walker w[2];
    struct fiber *f[2];

    CO_CHECK(fiber_lane_enter(&lane, DEADLINE_NONE, e) == 0);
    for (int i = 0; i < 2; i++) {
        w[i] = (struct walker){ &lane, trace, (char)('a' + i), DEADLINE_NONE };
        CO_CHECK(fiber_spawn(fiber_loop(), "walk", walk, &w[i], &f[i], e) == 0);
    }
    CO_CHECK(fiber_yield(e) == 0);
    fiber_lane_leave(&lane);
    fiber_cancel(f[0]);
    CO_CHECK(fiber_join(f[0], e) == -ERR_CANCELED);
    CO_CHECK(fiber_join(f[1], e) == 0);
    CO_CHECK(!lane.taken);
    return 0;
}
