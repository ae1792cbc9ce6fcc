/* SPDX-License-Identifier: MIT */
/* swarm/notify.c — see notify.h. */
#include "swarm/notify.h"

struct notify {
    struct swarm *s;
};

int notify_new(struct swarm *s, struct notify **ret, struct err *e)
{
    (void)e;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->s = s;
    return 0;
}

CO int notify_start(struct notify *it, struct err *e)
{
    (void)it;
    (void)e;
    return 0;
}

CO void notify_stop(struct notify *it)
{
    (void)it;
}

void notify_free(struct notify *it)
{
    free(it);
}

const struct http_route notify_routes[] = { { 0 } };
const size_t notify_routes_len = 0;
