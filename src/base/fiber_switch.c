/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_switch.c — moving the processor from one stack to another.
 *
 * x86-64 and arm64 take a few instructions: everything but the stack and frame pointers is named
 * as clobbered, so the compiler saves what it needs itself. Other machines, and builds with
 * shadow stacks, which only the C library can switch, use swapcontext(3). The signal mask and the
 * floating-point modes belong to the thread; fibers never change them.
 *
 * The sanitizers are told of each switch, or they take one stack's frames for another's.
 */
#include "base/fiber_switch.h"

#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

#include "base/err.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define HAVE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAVE_TSAN 1
#endif
#endif

static _Thread_local struct fiber_ctx *switch_from, *switch_to; /* of the last switch begun */

#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

static void asan_leave(struct fiber_ctx *from, struct fiber_ctx *to, int for_good)
{
    __sanitizer_start_switch_fiber(for_good ? NULL : &from->fake_stack, to->stack, to->size);
}

static void asan_arrive(struct fiber_ctx *from, struct fiber_ctx *to)
{
    __sanitizer_finish_switch_fiber(to->fake_stack, &from->stack, &from->size);
}

/* Frames left for good did not clean up after themselves. */
static void asan_fresh(void *stack, size_t size)
{
    __asan_unpoison_memory_region(stack, size);
}
#else
static void asan_leave(struct fiber_ctx *from, struct fiber_ctx *to, int for_good)
{
}

static void asan_arrive(struct fiber_ctx *from, struct fiber_ctx *to)
{
}

static void asan_fresh(void *stack, size_t size)
{
}
#endif

#ifdef HAVE_TSAN
#include <sanitizer/tsan_interface.h>

static void *tsan_make(void)
{
    return __tsan_create_fiber(0);
}

static void tsan_drop(void *track)
{
    __tsan_destroy_fiber(track);
}

/* Never a call of its own: it would be entered on one record of calls and left on another. */
static inline __attribute__((always_inline)) void tsan_switch(struct fiber_ctx *from,
                                                              struct fiber_ctx *to)
{
    if (!from->track)
        from->track = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->track, 0);
}
#else
static void *tsan_make(void)
{
    return NULL;
}

static void tsan_drop(void *track)
{
}

static void tsan_switch(struct fiber_ctx *from, struct fiber_ctx *to)
{
}
#endif

#if defined(__x86_64__) && !defined(__ILP32__) && !(defined(__CET__) && (__CET__ & 2))

static void *machine_make(void *stack, size_t size, void (*entry)(void))
{
    /* What machine_switch pops: where to go and the frame pointer; then entry's own return
     * address. The ABI wants the stack 8 short of a multiple of 16 there. */
    uintptr_t *top = (uintptr_t *)(((uintptr_t)stack + size) & ~(uintptr_t)15);

    top[-1] = 0;
    top[-2] = 0;
    top[-3] = (uintptr_t)entry;
    return top - 3;
}

static void machine_drop(void *sp)
{
}

static inline void machine_switch(void **save, void *sp)
{
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n\t" /* step over the red zone */
                     "pushq %%rbp\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "movq %%rsp, (%%rdi)\n\t"
                     "movq %%rsi, %%rsp\n\t"
                     "popq %%rax\n\t"
                     "popq %%rbp\n\t"
                     "jmp *%%rax\n"
                     "1:\n\t"
                     "leaq 128(%%rsp), %%rsp\n\t"
                     : "+D"(save), "+S"(sp)
                     :
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc",
                       "memory");
}

#elif defined(__aarch64__) && !defined(__ARM_FEATURE_GCS_DEFAULT)

static void *machine_make(void *stack, size_t size, void (*entry)(void))
{
    uintptr_t *top = (uintptr_t *)(((uintptr_t)stack + size) & ~(uintptr_t)15);

    top[-4] = 0; /* frame pointer */
    top[-3] = (uintptr_t)entry;
    top[-2] = 0; /* return address */
    top[-1] = 0;
    return top - 4;
}

static void machine_drop(void *sp)
{
}

static inline void machine_switch(void **save, void *sp)
{
    register void **x0 __asm__("x0") = save;
    register void *x1 __asm__("x1") = sp;

    /* x16 may branch to any landing pad of a BTI build; hint #36 is "bti j". */
    __asm__ volatile("adr x16, 1f\n\t"
                     "stp x29, x16, [sp, #-32]!\n\t"
                     "str x30, [sp, #16]\n\t"
                     "mov x9, sp\n\t"
                     "str x9, [x0]\n\t"
                     "mov sp, x1\n\t"
                     "ldr x30, [sp, #16]\n\t"
                     "ldp x29, x16, [sp], #32\n\t"
                     "br x16\n"
                     "1:\n\t"
                     "hint #36\n\t"
                     : "+r"(x0), "+r"(x1)
                     :
                     : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
                       "x14", "x15", "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25",
                       "x26", "x27", "x28", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",
                       "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19",
                       "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",
                       "v31", "cc", "memory");
}

#else

/* sp is a ucontext_t of our own; the thread's is made when it first leaves. */
static void *machine_make(void *stack, size_t size, void (*entry)(void))
{
    ucontext_t *uc = xcalloc(1, sizeof(*uc));

    if (getcontext(uc) < 0)
        abort(); /* fails on no machine we know of */
    uc->uc_stack.ss_sp = stack;
    uc->uc_stack.ss_size = size;
    makecontext(uc, entry, 0);
    return uc;
}

static void machine_drop(void *sp)
{
    free(sp);
}

static void machine_switch(void **save, void *sp)
{
    if (!*save)
        *save = xcalloc(1, sizeof(ucontext_t));
    swapcontext(*save, sp);
}

#endif

void fiber_ctx_make(struct fiber_ctx *ctx, void *stack, size_t size, void (*entry)(void))
{
    asan_fresh(stack, size);
    ctx->sp = machine_make(stack, size, entry);
    ctx->stack = stack;
    ctx->size = size;
    ctx->fake_stack = NULL;
    ctx->track = tsan_make();
    ctx->made = true;
}

void fiber_ctx_switch(struct fiber_ctx *from, struct fiber_ctx *to)
{
    switch_from = from;
    switch_to = to;
    asan_leave(from, to, 0);
    tsan_switch(from, to);
    machine_switch(&from->sp, to->sp);
    fiber_ctx_entered();
}

_Noreturn void fiber_ctx_exit(struct fiber_ctx *from, struct fiber_ctx *to)
{
    switch_from = from;
    switch_to = to;
    asan_leave(from, to, 1);
    tsan_switch(from, to);
    machine_switch(&from->sp, to->sp);
    abort();
}

void fiber_ctx_entered(void)
{
    asan_arrive(switch_from, switch_to);
}

void fiber_ctx_drop(struct fiber_ctx *ctx)
{
    machine_drop(ctx->sp);
    if (ctx->made)
        tsan_drop(ctx->track);
    *ctx = (struct fiber_ctx){ 0 };
}
