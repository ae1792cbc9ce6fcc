/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/arena.c.
 */
#include "base/arena.h"

#include <stdint.h>

#include "test.h"

static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

TEST(blocks_are_aligned_zeroed_and_apart)
{
    struct arena a = { 0 };
    unsigned char *before = NULL;

    for (size_t n = 1; n < 3000; n += 7) {
        unsigned char *p = arena_alloc(&a, n);

        CHECK(p && aligned(p));
        CHECK(p != before);
        for (size_t i = 0; i < n; i++)
            CHECK_INT(p[i], 0);
        memset(p, 0xee, n);
        before = p;
    }
    arena_done(&a);
    CHECK_INT(a.total, 0);
}

TEST(an_empty_block_of_an_empty_arena_is_a_block)
{
    struct arena a = { 0 };

    CHECK(arena_alloc(&a, 0) != NULL);
    arena_done(&a);
    arena_done(&a);
}

TEST(a_big_block_leaves_the_shared_chunk_in_use)
{
    struct arena a = { 0 };
    char *first = arena_raw(&a, 16), *big, *second;
    size_t chunk = a.total;

    big = arena_raw(&a, 1 << 20);
    memset(big, 1, 1 << 20);
    CHECK(a.total >= chunk + (1 << 20));
    second = arena_raw(&a, 16);
    CHECK(second > first && second - first < 100);
    arena_done(&a);
}

TEST(a_big_block_may_come_first)
{
    struct arena a = { 0 };
    char *big = arena_raw(&a, 100000), *small;

    memset(big, 1, 100000);
    small = arena_raw(&a, 10);
    memset(small, 2, 10);
    CHECK_INT(big[99999], 1);
    arena_reset(&a);
    arena_done(&a);
}

TEST(texts_are_copied_and_terminated)
{
    struct arena a = { 0 };
    struct str s = arena_str(&a, (struct str){ "abcdef", 3 });
    char want[1001];

    CHECK_STR(s.p, "abc");
    CHECK_INT(s.n, 3);
    CHECK_STR(arena_strdup(&a, "x"), "x");
    CHECK(arena_strdup(&a, NULL) == NULL);
    CHECK_STR(arena_strndup(&a, NULL, 0), "");
    CHECK_STR(arena_printf(&a, "%s-%d", "n", 5), "n-5");
    memset(want, 'w', 1000);
    want[1000] = '\0';
    CHECK_STR(arena_printf(&a, "%s", want), want);
    arena_done(&a);
}

static int order[4], n_order;

static void note(void *p)
{
    order[n_order++] = *(int *)p;
}

TEST(what_hangs_on_an_arena_is_freed_newest_first)
{
    static int ids[] = { 1, 2, 3 };
    struct arena a = { 0 };

    n_order = 0;
    for (size_t i = 0; i < LEN(ids); i++)
        arena_on_free(&a, note, &ids[i]);
    arena_reset(&a);
    CHECK_INT(n_order, 3);
    CHECK_INT(order[0], 3);
    CHECK_INT(order[2], 1);
    arena_done(&a);
    CHECK_INT(n_order, 3);
}

TEST(a_reset_arena_keeps_one_chunk_and_stops_growing)
{
    struct arena a = { 0 };
    size_t total = 0;

    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 2000; i++)
            memset(arena_raw(&a, 64), round, 64);
        if (round == 10)
            total = a.total;
        CHECK(round < 10 || a.total == total);
        arena_reset(&a);
        CHECK(a.total <= 70 * 1024);
    }
    arena_done(&a);
}
