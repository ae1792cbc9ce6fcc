/* SPDX-License-Identifier: MIT */
/*
 * tests/test.h — unit tests without a library: TEST(name) {...} bodies and CHECK macros, printed
 * as TAP for meson. A failed CHECK reports and ends its test; the others still run. They run one
 * after the other, or with TESTS_AT_ONCE several at the same time (side_by_side.h).
 */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    bool alone; /* not beside others */
    struct test *next;
};

static struct test *test_first, **test_last = &test_first;
static jmp_buf test_out;

#define TEST(id)       TEST_ROW(id, false)
#define TEST_ALONE(id) TEST_ROW(id, true)
#define TEST_ROW(id, is_alone) \
    static void test_##id(void); \
    __attribute__((constructor)) static void test_add_##id(void) \
    { \
        static struct test t = { .name = #id, .run = test_##id, .alone = (is_alone) }; \
        *test_last = &t; \
        test_last = &t.next; \
    } \
    static void test_##id(void)

#define CHECK_FAIL(...) \
    do { \
        printf("# %s:%d: ", __FILE__, __LINE__); \
        printf(__VA_ARGS__); \
        printf("\n"); \
        longjmp(test_out, 1); \
    } while (0)

#define CHECK(cond) \
    do { \
        if (!(cond)) \
            CHECK_FAIL("%s", #cond); \
    } while (0)

#define CHECK_INT(have, want) \
    do { \
        long long have_ = (long long)(have), want_ = (long long)(want); \
        if (have_ != want_) \
            CHECK_FAIL("%s is %lld, want %lld", #have, have_, want_); \
    } while (0)

#define CHECK_STR(have, want) \
    do { \
        const char *have_ = (have), *want_ = (want); \
        if (!have_ || strcmp(have_, want_) != 0) \
            CHECK_FAIL("%s is \"%s\", want \"%s\"", #have, have_ ? have_ : "(null)", want_); \
    } while (0)

/* CHECK that may be used inside a fiber: ends the fiber's function instead of jumping stacks. */
#define CO_CHECK(cond) \
    do { \
        if (!(cond)) { \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond); \
            return -1; \
        } \
    } while (0)

/* Of this test among those that run at the same time, from 1; 0: it is alone. */
__attribute__((unused)) static int test_slot;

#ifdef TESTS_AT_ONCE
#include "side_by_side.h"
#else
int main(void)
{
    volatile int n = 0, bad = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (struct test *volatile t = test_first; t; t = t->next) {
        n++;
        if (setjmp(test_out)) {
            bad++;
            printf("not ok %d - %s\n", n, t->name);
            continue;
        }
        t->run();
        printf("ok %d - %s\n", n, t->name);
    }
    printf("1..%d\n", n);
    return bad ? 1 : 0;
}
#endif
