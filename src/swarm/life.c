/* SPDX-License-Identifier: MIT */
/* swarm/life.c — see life.h. */
#include "swarm/life.h"

struct life {
    struct swarm *s;
};

int life_new(struct swarm *s, struct life **ret, struct err *e)
{
    (void)e;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->s = s;
    return 0;
}

CO int life_start(struct life *it, struct err *e)
{
    (void)it;
    (void)e;
    return 0;
}

CO void life_stop(struct life *it)
{
    (void)it;
}

void life_free(struct life *it)
{
    free(it);
}

const struct http_route life_routes[] = { { 0 } };
const size_t life_routes_len = 0;
