/* SPDX-License-Identifier: MIT */
/* swarm/command.c — see command.h. */
#include "swarm/command.h"

struct command {
    struct swarm *s;
};

int command_new(struct swarm *s, struct command **ret, struct err *e)
{
    (void)e;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->s = s;
    return 0;
}

CO int command_start(struct command *it, struct err *e)
{
    (void)it;
    (void)e;
    return 0;
}

CO void command_stop(struct command *it)
{
    (void)it;
}

void command_free(struct command *it)
{
    free(it);
}

const struct http_route command_routes[] = { { 0 } };
const size_t command_routes_len = 0;
