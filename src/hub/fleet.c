/* SPDX-License-Identifier: MIT */
/* hub/fleet.c — see fleet.h. */
#include "hub/fleet.h"

struct fleet {
    struct hub *h;
};

int fleet_new(struct hub *h, struct fleet **ret, struct err *e)
{
    struct fleet *s = xcalloc(1, sizeof(*s));

    s->h = h;
    *ret = s;
    return 0;
}

CO int fleet_start(struct fleet *s, struct err *e)
{
    return 0;
}

CO void fleet_stop(struct fleet *s)
{
}

void fleet_free(struct fleet *s)
{
    free(s);
}

void fleet_ready(struct fleet *f)
{
}

const struct http_route fleet_routes[] = {};
const size_t fleet_routes_len = 0;
