/* SPDX-License-Identifier: MIT */
/* swarm/gate.c — see gate.h. */
#include "swarm/gate.h"

struct gate {
    struct swarm *s;
};

int gate_new(struct swarm *s, struct gate **ret, struct err *e)
{
    (void)e;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->s = s;
    return 0;
}

CO int gate_start(struct gate *it, struct err *e)
{
    (void)it;
    (void)e;
    return 0;
}

CO void gate_stop(struct gate *it)
{
    (void)it;
}

void gate_free(struct gate *it)
{
    free(it);
}

const struct http_dialect gate_dialect = { .name = "express" };

void gate_tables(struct gate *g, struct http_table out[GATE_TABLES])
{
    static const char *const prefixes[GATE_TABLES] = { "/messages", "/workflows", "/chat" };

    for (size_t i = 0; i < GATE_TABLES; i++)
        out[i] = (struct http_table){ prefixes[i], &dialect_plain, NULL, 0, g };
}

unsigned gate_sockets(const struct gate *g)
{
    (void)g;
    return 0;
}
