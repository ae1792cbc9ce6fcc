/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/buf.c.
 */
#include "base/buf.h"

#include "test.h"

static bool holds(const struct buf *b, const char *text)
{
    return str_eq_z(buf_str(b), text);
}

TEST(bytes_go_in_at_the_end_and_out_at_the_front)
{
    struct buf b;
    struct err e;

    buf_init(&b, 100);
    CHECK(holds(&b, ""));
    CHECK_INT(buf_add_z(&b, "hello ", &e), 0);
    CHECK_INT(buf_add_str(&b, STR("wor"), &e), 0);
    CHECK_INT(buf_printf(&b, &e, "%s%d", "ld", 7), 0);
    CHECK(holds(&b, "hello world7"));
    buf_eat(&b, 6);
    CHECK(holds(&b, "world7"));
    buf_eat(&b, 99);
    CHECK(holds(&b, ""));
    buf_done(&b);
}

TEST(growth_past_the_maximum_fails_and_changes_nothing)
{
    struct buf b;
    struct err e;
    char *p;

    buf_init(&b, 8);
    CHECK_INT(buf_add_z(&b, "12345678", &e), 0);
    CHECK_INT(buf_add_z(&b, "9", &e), -ERR_LIMIT);
    CHECK_STR(e.msg, "more than 8 bytes");
    CHECK_INT(buf_printf(&b, &e, "%300s", "x"), -ERR_LIMIT);
    CHECK_INT(buf_reserve(&b, 1, &p, &e), -ERR_LIMIT);
    CHECK(holds(&b, "12345678"));
    buf_eat(&b, 1);
    CHECK_INT(buf_add_z(&b, "9", &e), 0);
    CHECK(holds(&b, "23456789"));
    buf_done(&b);
    CHECK_INT(buf_add_z(&b, "again", &e), 0);
    CHECK(holds(&b, "again"));
    buf_done(&b);
}

TEST(a_long_print_may_end_at_the_maximum)
{
    char want[1001];
    struct buf b;
    struct err e;

    memset(want, 'w', 1000);
    want[1000] = '\0';
    buf_init(&b, 1000);
    CHECK_INT(buf_printf(&b, &e, "%s", want), 0);
    CHECK(holds(&b, want));
    buf_done(&b);
    buf_init(&b, 2000);
    CHECK_INT(buf_printf(&b, &e, "%s", want), 0);
    CHECK_INT(buf_printf(&b, &e, "%s", want), 0);
    CHECK_INT(buf_str(&b).n, 2000);
    buf_done(&b);
}

TEST(room_can_be_filled_by_somebody_else)
{
    struct buf b;
    struct err e;
    char *p;

    buf_init(&b, 1 << 20);
    CHECK_INT(buf_reserve(&b, 5, &p, &e), 0);
    memcpy(p, "abcde", 5);
    buf_commit(&b, 3);
    CHECK(holds(&b, "abc"));
    buf_done(&b);
}

TEST(a_stream_through_a_buffer_keeps_it_small_and_in_order)
{
    unsigned next_in = 0, next_out = 0;
    struct buf b;
    struct err e;

    buf_init(&b, 4096);
    for (int round = 0; round < 5000; round++) {
        for (int i = 0; i < 37; i++) {
            unsigned char c = (unsigned char)next_in++;

            CHECK_INT(buf_add(&b, &c, 1, &e), 0);
        }
        while (buf_str(&b).n > (size_t)(round % 90)) {
            CHECK_INT((unsigned char)buf_str(&b).p[0], (unsigned char)next_out++);
            buf_eat(&b, 1);
        }
    }
    CHECK(b.cap <= 512);
    buf_done(&b);
}

TEST(a_zeroed_buffer_can_be_done)
{
    struct buf b = { 0 };

    buf_done(&b);
    CHECK(holds(&b, ""));
}
