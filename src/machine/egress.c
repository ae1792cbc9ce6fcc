/* SPDX-License-Identifier: MIT */
/* machine/egress.c — see egress.h. Nothing gets through yet: no socket is opened. */
#include "machine/egress.h"

struct egress {
    struct loop *loop;
};

int egress_new(struct loop *loop, const char *path, const char *const *allow, size_t n,
               unsigned *ret_port, struct egress **ret, struct err *e)
{
    struct egress *g = xcalloc(1, sizeof(*g));

    g->loop = loop;
    *ret_port = 0;
    *ret = g;
    return 0;
}

CO void egress_free(struct egress *g)
{
    free(g);
}
