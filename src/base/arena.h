/* SPDX-License-Identifier: MIT */
/*
 * base/arena.h — memory that lives as long as one request or flow and is freed at once.
 * What a peer can make us put here is bounded before it gets here; an arena itself never fails.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#include "base/str.h"

struct arena_chunk;
struct arena_hook;

/* All zero is a valid, empty arena. */
struct arena {
    struct arena_chunk *chunks;
    struct arena_hook *hooks;
    size_t used, cap; /* of the newest chunk */
    size_t total;     /* bytes taken from malloc, for accounts */
};

/* n zeroed bytes, aligned for any type. Never NULL. */
void *arena_alloc(struct arena *a, size_t n);

/* n bytes not zeroed. */
void *arena_raw(struct arena *a, size_t n);

char *arena_strdup(struct arena *a, const char *z); /* NULL in, NULL out */
char *arena_strndup(struct arena *a, const char *p, size_t n);
struct str arena_str(struct arena *a, struct str s); /* a terminated copy */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);

/* Run fn(p) when the arena is freed, newest first (a json_t, an AUTO-less library object). */
void arena_on_free(struct arena *a, void (*fn)(void *p), void *p);

/* Free all; the arena is empty and usable again. arena_reset keeps one chunk for reuse. */
void arena_done(struct arena *a);
void arena_reset(struct arena *a);

static inline void arena_done_auto(struct arena *a)
{
    arena_done(a);
}

#define arena_new(a, type) ((type *)arena_alloc((a), sizeof(type)))
