/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_rig.h — for tests of the HTTP client: a scripted server in fibers of the same
 * loop, which answers by the request's path, rightly or wrongly. See the table `acts`.
 */
#pragma once

#include "net/http_client.h"

#define RIG_BIG (256 * 1024 + 100) /* bytes of /bigbody */

struct rig {
    struct fiber_group *group;
    int fd, unix_fd;
    unsigned short port;
    unsigned connections, requests;
    unsigned posts_of_stale; /* requests that reached /stale */
    char last_head[4096];    /* of the latest request */
    char unix_path[64];
};
extern struct rig rig;

/* A test's body, run as a fiber with a client and an arena that are its own; 0: all is well. */
typedef int rig_test(struct http_client *c, struct arena *a, struct err *e);
int rig_run(rig_test *test);
int rig_run_with(rig_test *test, struct http_client_conf conf);

/* Calls to the scripted server, with a deadline of 5 s. */
struct http_call rig_get(struct arena *a, const char *path);
struct http_call rig_post(struct arena *a, const char *path, const char *body);
