/* SPDX-License-Identifier: MIT */
/* swarm/monitor.c — see monitor.h. */
#include "swarm/monitor.h"

struct monitor {
    struct swarm *s;
};

int monitor_new(struct swarm *s, struct monitor **ret, struct err *e)
{
    (void)e;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->s = s;
    return 0;
}

CO int monitor_start(struct monitor *it, struct err *e)
{
    (void)it;
    (void)e;
    return 0;
}

CO void monitor_stop(struct monitor *it)
{
    (void)it;
}

void monitor_free(struct monitor *it)
{
    free(it);
}

const struct http_route monitor_routes[] = { { 0 } };
const size_t monitor_routes_len = 0;
