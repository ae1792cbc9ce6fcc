/* SPDX-License-Identifier: MIT */
/* hub/task.c — see task.h. */
#include "hub/task.h"

struct tasks {
    struct hub *h;
};

int tasks_new(struct hub *h, struct tasks **ret, struct err *e)
{
    struct tasks *s = xcalloc(1, sizeof(*s));

    s->h = h;
    *ret = s;
    return 0;
}

CO int tasks_start(struct tasks *s, struct err *e)
{
    return 0;
}

CO void tasks_stop(struct tasks *s)
{
}

void tasks_free(struct tasks *s)
{
    free(s);
}

size_t tasks_active(const struct tasks *t)
{
    return 0;
}

const struct http_route task_routes[] = {};
const size_t task_routes_len = 0;
