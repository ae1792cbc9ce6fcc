/* SPDX-License-Identifier: MIT */
/*
 * tests/in_fiber.h — run a test's body as a fiber on a loop of its own, and see that it leaves
 * nothing behind. The body uses CO_CHECK, and returns 0 when all is well.
 */
#pragma once

#include "base/fiber.h"
#include "test.h"

struct in_fiber {
    fiber_fn *body;
    void *arg;
    int result;
};

static int in_fiber_main(void *arg, struct err *e)
{
    struct in_fiber *in = arg;

    in->result = in->body(in->arg, e);
    return 0;
}

/* The body's result; loop_free() aborts when it leaves fibers, timers or descriptors. */
static inline int in_fiber(fiber_fn *body, void *arg)
{
    struct in_fiber in = { body, arg, -ERR_INTERNAL };
    struct loop *loop = NULL;
    struct err e;

    if (loop_new(&loop, &e) < 0 || fiber_spawn(loop, "test", in_fiber_main, &in, NULL, &e) < 0) {
        printf("# %s\n", e.msg);
        return -1;
    }
    loop_run(loop);
    loop_free(loop);
    return in.result;
}

/* A test whose body is a fiber. */
#define CO_TEST(id) \
    static int co_test_##id(void *arg, struct err *e); \
    TEST(id) \
    { \
        CHECK_INT(in_fiber(co_test_##id, NULL), 0); \
    } \
    static int co_test_##id(void *arg, struct err *e)
