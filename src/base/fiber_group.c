/* SPDX-License-Identifier: MIT */
/*
 * base/fiber_group.c — fibers that end before their owner does.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/fiber_int.h"

struct fiber_group {
    struct loop *loop;
    struct fiber *members;
    unsigned n;
    struct fiber *joiner;
    int result; /* of the first member that failed, by itself rather than by being cancelled */
    struct err err;
};

struct fiber_group *fiber_group_new(struct loop *loop)
{
    struct fiber_group *g = xcalloc(1, sizeof(*g));

    g->loop = loop;
    return g;
}

int fiber_group_spawn(struct fiber_group *g, const char *name, CO fiber_fn *fn, void *arg,
                      struct err *e)
{
    struct fiber *f;
    int r;

    r = fiber_spawn_in(g, g->loop, name, fn, arg, &f, e);
    if (r < 0)
        return r;
    f->group_next = g->members;
    f->group_link = &g->members;
    if (f->group_next)
        f->group_next->group_link = &f->group_next;
    g->members = f;
    g->n++;
    return 0;
}

void fiber_group_ended(struct fiber_group *g, struct fiber *f)
{
    *f->group_link = f->group_next;
    if (f->group_next)
        f->group_next->group_link = f->group_link;
    g->n--;
    if (f->result < 0 && (g->result == 0 || g->result == -ERR_CANCELED)) {
        g->result = f->result;
        g->err = f->err;
    }
    if (g->n == 0 && g->joiner)
        fiber_wake(g->joiner);
}

void fiber_group_cancel(struct fiber_group *g)
{
    for (struct fiber *f = g->members; f; f = f->group_next)
        fiber_cancel(f);
}

CO int fiber_group_join(struct fiber_group *g, struct err *e)
{
    int r;

    assert(!g->joiner);
    g->joiner = fiber_self();
    /* A cancelled owner still waits for its members, but passes the cancel on. */
    while (g->n > 0) {
        if (fiber_park_quiet(DEADLINE_NONE) == 0)
            continue;
        fiber_group_cancel(g);
        while (g->n > 0)
            fiber_park_join();
    }
    g->joiner = NULL;

    r = g->result;
    if (r < 0 && e)
        *e = g->err;
    g->result = 0;
    return r;
}

unsigned fiber_group_size(const struct fiber_group *g)
{
    return g->n;
}

void fiber_group_free(struct fiber_group *g)
{
    if (!g)
        return;
    assert(g->n == 0);
    free(g);
}
