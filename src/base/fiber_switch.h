/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_switch.h — moving the processor from one stack to another; private to fibers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct fiber_ctx {
    void *sp;          /* where it goes on; of the machine-specific part */
    const void *stack; /* lowest byte; the thread's own stack is filled in on first use */
    size_t size;
    void *fake_stack, *track; /* of AddressSanitizer, of ThreadSanitizer */
    bool made;                /* by fiber_ctx_make; else it is the thread's own */
};

/* Prepare *ctx to begin entry() on the stack, which entry() must leave by fiber_ctx_exit. */
void fiber_ctx_make(struct fiber_ctx *ctx, void *stack, size_t size, void (*entry)(void));

/* Save the running context in *from and go on with *to. */
void fiber_ctx_switch(struct fiber_ctx *from, struct fiber_ctx *to);

/* Leave *from for good. */
_Noreturn void fiber_ctx_exit(struct fiber_ctx *from, struct fiber_ctx *to);

/* To be called first thing in entry(). */
void fiber_ctx_entered(void);

/* Release what the context holds beside its stack; it is not running. */
void fiber_ctx_drop(struct fiber_ctx *ctx);
