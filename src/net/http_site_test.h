/* SPDX-License-Identifier: MIT */
/*
 * net/http_site_test.h — what the tests of the server share: a site of small routes, and clients
 * that are fibers of the same loop, write bytes into a socket and look at the bytes that come
 * back. Nothing waits without a deadline.
 */
#pragma once

#include "base/fiber.h"
#include "net/http_server.h"
#include "net/http_upgrade.h"

enum { PATIENCE_MS = 5000, BIG = 16 * 1024 * 1024, WINDOW = 16 * 1024 };

/* What the handlers of the site saw since serve(). */
struct seen {
    int runs, canceled, finished, written;
    bool held;
    struct fiber *holder;
    struct stream *taken;
    struct buf rest;
    struct http_seat *seat;
};
extern struct seen seen;

extern const struct http_limits usual;
extern struct http_limits limits; /* the running server's */
extern struct http_server *server;
extern struct loop *loop;

/* Run a client in a fiber beside a fresh server; false, with reasons printed, when it fails. */
bool serve(const struct http_limits *with, CO int (*fn)(struct err *e));
bool serve_quietly(const struct http_limits *with, CO int (*fn)(struct err *e)); /* no log */

struct client {
    int fd;
    char *text; /* what has come, terminated */
    size_t n, cap;
};
int client_open(struct client *c, struct err *e) MUST_CHECK;
void client_close(struct client *c);
static inline void client_close_auto(struct client *c)
{
    client_close(c);
}

CO int say(struct client *c, const char *text, struct err *e) MUST_CHECK;
CO bool hears(struct client *c, const char *needle, int times, struct err *e); /* so many copies */
CO bool ends(struct client *c, struct err *e); /* the server closes; all it said is in text */
CO bool talk(struct client *c, const char *text, struct err *e); /* open, say, hear to the end */
bool has(const struct client *c, const char *needle);
bool starts(const struct client *c, const char *start);

#define CLIENT(name) AUTO(client_close) struct client name = { .fd = -1 }
#define H            " HTTP/1.1\r\nHost: h\r\n"
#define CLOSE        "Connection: close\r\n"
