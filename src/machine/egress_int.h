/* SPDX-License-Identifier: MIT */
/* machine/egress_int.h — between the proxy (egress.c) and one connection of it (egress_conn.c). */
#pragma once

#include "base/fiber.h"
#include "machine/egress.h"

#define EGRESS_CONNECTIONS 256 /* at once, of one machine */

struct egress {
    struct loop *loop;
    char *path; /* NULL: TCP */
    char **allow;
    size_t n_allow;
    int listener;
    struct loop_io *io;
    struct loop_timer *again; /* to accept again, after there were too many */
    struct fiber_group *group;
    struct fiber_lane resolving; /* one name at a time: the threads for it are everybody's */
};

struct egress_conn {
    struct egress *proxy;
    int fd;
};

/* A fiber; arg is a struct egress_conn, which it frees. */
CO int egress_serve(void *arg, struct err *e);
