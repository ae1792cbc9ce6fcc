/* SPDX-License-Identifier: MIT */
/* hub/agents.c — see agents.h. */
#include "hub/agents.h"

struct hub_agents {
    struct hub *h;
};

int hub_agents_new(struct hub *h, struct hub_agents **ret, struct err *e)
{
    struct hub_agents *s = xcalloc(1, sizeof(*s));

    s->h = h;
    *ret = s;
    return 0;
}

CO int hub_agents_start(struct hub_agents *s, struct err *e)
{
    return 0;
}

CO void hub_agents_stop(struct hub_agents *s)
{
}

void hub_agents_free(struct hub_agents *s)
{
    free(s);
}

size_t hub_agents_count(const struct hub_agents *a, size_t *ret_online)
{
    *ret_online = 0;
    return 0;
}
