/* SPDX-License-Identifier: MIT */
/*
 * base/arena.c — a chain of chunks, filled from the newest. Chunks double from 4 to 64 KiB; a block
 * that would waste one gets a chunk of its own behind the newest. Under AddressSanitizer what has
 * not been handed out is poisoned, so running past a block's end is seen as it is with malloc.
 */
#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define GAP 16 /* poisoned bytes kept between blocks */
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define GAP                               0
#endif

enum { CHUNK_FIRST = 4 * 1024, CHUNK_LAST = 64 * 1024, ALIGN = 16 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t cap;
    _Alignas(ALIGN) char data[];
};

struct arena_hook {
    struct arena_hook *next;
    void (*fn)(void *p);
    void *p;
};

static struct arena_chunk *chunk_new(struct arena *a, size_t cap)
{
    struct arena_chunk *chunk;

    if (cap > SIZE_MAX / 2) {
        log_error("bug: an arena was asked for too much", "bytes", LOG_INT(cap));
        abort();
    }
    chunk = xmalloc(sizeof(*chunk) + cap);
    chunk->next = NULL;
    chunk->cap = cap;
    a->total += sizeof(*chunk) + cap;
    ASAN_POISON_MEMORY_REGION(chunk->data, cap);
    return chunk;
}

/* A block too big for a shared chunk: the newest chunk stays the one being filled. */
static void *take_alone(struct arena *a, size_t n)
{
    struct arena_chunk *chunk = chunk_new(a, n);

    if (a->chunks) {
        chunk->next = a->chunks->next;
        a->chunks->next = chunk;
    } else {
        a->chunks = chunk;
        a->used = a->cap = n;
    }
    ASAN_UNPOISON_MEMORY_REGION(chunk->data, n);
    return chunk->data;
}

static void grow(struct arena *a)
{
    size_t cap = a->cap < CHUNK_FIRST ? CHUNK_FIRST : 2 * a->cap;
    struct arena_chunk *chunk = chunk_new(a, cap > CHUNK_LAST ? CHUNK_LAST : cap);

    chunk->next = a->chunks;
    a->chunks = chunk;
    a->cap = chunk->cap;
    a->used = 0;
}

static void *take(struct arena *a, size_t n, size_t align)
{
    size_t at = (a->used + align - 1) & ~(align - 1);
    char *p;

    if (!a->chunks || n > a->cap || at > a->cap - n) {
        if (n > CHUNK_FIRST / 4)
            return take_alone(a, n);
        grow(a);
        at = 0;
    }
    p = a->chunks->data + at;
    a->used = at + n + GAP;
    ASAN_UNPOISON_MEMORY_REGION(p, n);
    return p;
}

void *arena_raw(struct arena *a, size_t n)
{
    return take(a, n, ALIGN);
}

void *arena_alloc(struct arena *a, size_t n)
{
    void *p = take(a, n, ALIGN);

    memset(p, 0, n);
    return p;
}

char *arena_strndup(struct arena *a, const char *p, size_t n)
{
    char *copy = take(a, n + 1, 1);

    if (n > 0)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

char *arena_strdup(struct arena *a, const char *z)
{
    return z ? arena_strndup(a, z, strlen(z)) : NULL;
}

struct str arena_str(struct arena *a, struct str s)
{
    return (struct str){ arena_strndup(a, s.p, s.n), s.n };
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    char *text;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0) {
        log_error("bug: a format was refused", "format", LOG_STR(fmt));
        abort();
    }
    if ((size_t)n < sizeof(small))
        return arena_strndup(a, small, (size_t)n);

    text = take(a, (size_t)n + 1, 1);
    va_start(ap, fmt);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return text;
}

void arena_on_free(struct arena *a, void (*fn)(void *p), void *p)
{
    struct arena_hook *hook = arena_raw(a, sizeof(*hook));

    hook->next = a->hooks;
    hook->fn = fn;
    hook->p = p;
    a->hooks = hook;
}

static void run_hooks(struct arena *a)
{
    while (a->hooks) {
        struct arena_hook *hook = a->hooks;

        a->hooks = hook->next; /* first: fn may use the arena */
        hook->fn(hook->p);
    }
}

static void free_chunks(struct arena_chunk *chunk)
{
    while (chunk) {
        struct arena_chunk *next = chunk->next;

        ASAN_UNPOISON_MEMORY_REGION(chunk->data, chunk->cap);
        free(chunk);
        chunk = next;
    }
}

void arena_done(struct arena *a)
{
    run_hooks(a);
    free_chunks(a->chunks);
    *a = (struct arena){ 0 };
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep;

    run_hooks(a);
    keep = a->chunks;
    if (!keep || keep->cap > CHUNK_LAST) {
        arena_done(a);
        return;
    }
    free_chunks(keep->next);
    keep->next = NULL;
    ASAN_POISON_MEMORY_REGION(keep->data, keep->cap);
    a->used = 0;
    a->total = sizeof(*keep) + keep->cap;
}
