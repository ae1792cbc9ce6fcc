/* SPDX-License-Identifier: MIT */
/* swarm/mail.c — see mail.h. */
#include "swarm/mail.h"

struct mail {
    struct swarm *s;
};

int mail_new(struct swarm *s, struct mail **ret, struct err *e)
{
    (void)e;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->s = s;
    return 0;
}

CO int mail_start(struct mail *it, struct err *e)
{
    (void)it;
    (void)e;
    return 0;
}

CO void mail_stop(struct mail *it)
{
    (void)it;
}

void mail_free(struct mail *it)
{
    free(it);
}

const struct http_route mail_routes[] = { { 0 } };
const size_t mail_routes_len = 0;
