/* SPDX-License-Identifier: MIT */
/* swarm/beat_heap.c — a binary heap of agents by when they are due; each knows its place. */
#include "swarm/beat_int.h"

static void seat(struct beat_heap *h, size_t i, struct pulse *p)
{
    h->v[i] = p;
    p->place = i;
}

static void rise(struct beat_heap *h, size_t i, struct pulse *p)
{
    for (; i > 0 && h->v[(i - 1) / 2]->due_ms > p->due_ms; i = (i - 1) / 2)
        seat(h, i, h->v[(i - 1) / 2]);
    seat(h, i, p);
}

static void sink(struct beat_heap *h, size_t i, struct pulse *p)
{
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->v[child + 1]->due_ms < h->v[child]->due_ms)
            child++;
        if (h->v[child]->due_ms >= p->due_ms)
            break;
        seat(h, i, h->v[child]);
    }
    seat(h, i, p);
}

static void settle(struct beat_heap *h, size_t i, struct pulse *p)
{
    if (i > 0 && h->v[(i - 1) / 2]->due_ms > p->due_ms)
        rise(h, i, p);
    else
        sink(h, i, p);
}

void beat_heap_put(struct beat_heap *h, struct pulse *p)
{
    if (p->place == BEAT_HERE) {
        if (h->n == h->cap) {
            h->cap = h->cap ? h->cap * 2 : 256;
            h->v = xrealloc(h->v, h->cap * sizeof(struct pulse *));
        }
        p->place = h->n++;
    }
    settle(h, p->place, p);
}

void beat_heap_drop(struct beat_heap *h, struct pulse *p)
{
    size_t i = p->place;
    struct pulse *last;

    if (i == BEAT_HERE)
        return;
    p->place = BEAT_HERE;
    last = h->v[--h->n];
    if (last != p)
        settle(h, i, last);
}
