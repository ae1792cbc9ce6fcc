/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_stack.c — the stacks of fibers: mapped, touched lazily, a guard page at the low end,
 * reused last in first out.
 */
#include <sys/mman.h>

#include "base/fiber_int.h"

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, high) 0
#define VALGRIND_STACK_DEREGISTER(id)      ((void)(id))
#endif

#define GUARD \
    ((size_t)64 * KIB) /* the largest page size there is, so that it is at least one page */

/* Linux 6.13: a guard that does not cost a mapping of its own; not in Debian 12's headers. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static int map(struct fiber_stack *ret, struct err *e)
{
    char *p;

    p = mmap(NULL, GUARD + FIBER_STACK, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (p == MAP_FAILED)
        return err_sys(e, "map a stack");
    if (madvise(p, GUARD, MADV_GUARD_INSTALL) < 0 && mprotect(p, GUARD, PROT_NONE) < 0) {
        int r = err_sys(e, "guard a stack");

        munmap(p, GUARD + FIBER_STACK);
        return r;
    }
    /* A huge page would cost 2 MiB for the few KiB a fiber touches. */
    (void)madvise(p, GUARD + FIBER_STACK,
                  MADV_NOHUGEPAGE); /* fails without THP: then all is well */
    ret->p = p + GUARD;
    ret->valgrind = VALGRIND_STACK_REGISTER(p + GUARD, p + GUARD + FIBER_STACK);
    return 0;
}

static void unmap(struct fiber_stack stack)
{
    VALGRIND_STACK_DEREGISTER(stack.valgrind);
    munmap((char *)stack.p - GUARD, GUARD + FIBER_STACK);
}

int fiber_stack_take(struct fiber_stacks *s, struct fiber_stack *ret, struct err *e)
{
    if (s->n == 0)
        return map(ret, e);
    *ret = s->kept[--s->n];
    return 0;
}

void fiber_stack_give(struct fiber_stacks *s, struct fiber_stack stack)
{
    if (s->n == FIBER_STACKS_KEPT) {
        unmap(stack);
        return;
    }
    if (s->n >= FIBER_STACKS_HOT)
        (void)madvise(stack.p, FIBER_STACK, MADV_DONTNEED); /* a failure costs memory only */
    s->kept[s->n++] = stack;
}

void fiber_stacks_done(struct fiber_stacks *s)
{
    while (s->n > 0)
        unmap(s->kept[--s->n]);
}
