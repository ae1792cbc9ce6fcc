/* SPDX-License-Identifier: MIT */
/* base/strmap_test.c — adding, finding, removing, growing. */
#include "base/strmap.h"

#include "test.h"

struct item {
    struct strmap_node node;
    char key[16];
};

TEST(an_empty_map_finds_nothing)
{
    struct strmap m = { 0 };

    CHECK(!strmap_find(&m, STR("a")));
    strmap_done(&m);
}

TEST(what_was_added_is_found_until_it_is_removed)
{
    static struct item items[1000];
    struct strmap m = { 0 };

    for (size_t i = 0; i < LEN(items); i++) {
        snprintf(items[i].key, sizeof(items[i].key), "key-%zu", i);
        strmap_add(&m, &items[i].node, str_of(items[i].key));
    }
    CHECK_INT(m.n, LEN(items));
    for (size_t i = 0; i < LEN(items); i++)
        CHECK(strmap_find(&m, str_of(items[i].key)) == &items[i].node);
    for (size_t i = 0; i < LEN(items); i += 2)
        strmap_remove(&m, &items[i].node);
    for (size_t i = 0; i < LEN(items); i++)
        CHECK(!strmap_find(&m, str_of(items[i].key)) == (i % 2 == 0));
    CHECK_INT(m.n, LEN(items) / 2);
    strmap_done(&m);
}

TEST(keys_may_be_empty_and_are_compared_whole)
{
    struct item empty = { 0 }, tail = { .key = "12345678" };
    struct strmap m = { 0 };

    strmap_add(&m, &empty.node, str_of(empty.key));
    strmap_add(&m, &tail.node, str_of(tail.key));
    CHECK(strmap_find(&m, STR("")) == &empty.node);
    CHECK(strmap_find(&m, STR("12345678")) == &tail.node);
    CHECK(!strmap_find(&m, STR("1234567")));
    CHECK(!strmap_find(&m, STR("123456789")));
    strmap_done(&m);
}
