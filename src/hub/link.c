/* SPDX-License-Identifier: MIT */
/* hub/link.c — see link.h. */
#include "hub/link.h"

struct links {
    struct hub *h;
};

int links_new(struct hub *h, struct links **ret, struct err *e)
{
    struct links *s = xcalloc(1, sizeof(*s));

    s->h = h;
    *ret = s;
    return 0;
}

CO int links_start(struct links *s, struct err *e)
{
    return 0;
}

CO void links_stop(struct links *s)
{
}

void links_free(struct links *s)
{
    free(s);
}

static CO int upgrade(struct http_req *req, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "Not Found");
}

const struct http_route hub_upgrade_route = {
    .method = HTTP_M_GET,
    .path = "/",
    .run = upgrade,
    .need = NEED_NONE,
    .flags = ROUTE_WS | ROUTE_ASKS | ROUTE_HIDDEN,
    .doc = "WebSockets of agents, observers and shells.",
};
