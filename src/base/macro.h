/* SPDX-License-Identifier: MIT */
/*
 * base/macro.h — the few macros every file may use: cleanup at scope end, ownership moves,
 * and the marks (CO, MUST_CHECK, PRINTF) that the compiler and the lints read.
 */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define LEN(array) (sizeof(array) / sizeof((array)[0]))
#define KIB        ((size_t)1024)
#define MIB        ((size_t)1024 * 1024)

#define MUST_CHECK   __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Marks a function that may park the calling fiber: across it, hold ids, not borrowed pointers. */
#define CO

#define container_of(ptr, type, member) \
    __extension__({ \
        __typeof__(((type *)0)->member) *member_ = (ptr); \
        (type *)(void *)((char *)member_ - offsetof(type, member)); \
    })

/* AUTO(free) char *p = NULL; releases p when the scope is left, by whatever way. */
#define AUTO(fn) __attribute__((cleanup(fn##_auto)))

#define DEFINE_AUTO(fn, type) \
    static inline void fn##_auto(type *owned) \
    { \
        if (*owned) \
            fn(*owned); \
    } \
    struct fn##_auto_swallows_semicolon

/* Hand the value to a new owner; this scope forgets it. */
#define TAKE(p) \
    __extension__({ \
        __typeof__(p) took_ = (p); \
        (p) = NULL; \
        took_; \
    })

static inline void close_fd_auto(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* Hand a descriptor to a new owner; the scope forgets it. */
static inline int take_fd(int *fd)
{
    int took = *fd;

    *fd = -1;
    return took;
}

static inline void free_auto(void *p)
{
    free(*(void **)p);
}
