/* SPDX-License-Identifier: MIT */
/*
 * machine/egress.h — the one way out of a machine: an HTTP proxy (CONNECT, and plain requests by
 * absolute URL) that lets through what the machine's allow-list names and nothing else. A refused
 * host is answered 403 with what would allow it, and logged. Addresses of the host itself, of its
 * links and of metadata services are refused whatever the list says (net/outbound.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"

struct egress;

/*
 * Does the list let through host:port? Entries: "host", "*.host" (what is below it, not itself),
 * "*", "[v6 address]"; without ":port" for the ports 80 and 443. *ret_exact (may be NULL): an
 * entry without "*" names it; only those lead to private addresses. Pure.
 */
bool egress_allows(const char *const *allow, size_t n, struct str host, unsigned port,
                   bool *ret_exact);

/* Serve on a unix socket at path (0666: the directory above it must guard it, so that a sandbox's
 * user can be let in; what is there is replaced) or, path NULL, on a free port of 127.0.0.1
 * (*ret_port). The list is copied. */
int egress_new(struct loop *loop, const char *path, const char *const *allow, size_t n,
               unsigned *ret_port, struct egress **ret, struct err *e) MUST_CHECK;
CO void egress_free(struct egress *g); /* ends its connections; NULL is fine */

/* The head of a request to the proxy, as far as it counts here. */
struct egress_head {
    bool tunnel;    /* CONNECT */
    char host[256]; /* a name without its last dot, or an address without brackets; lower case */
    unsigned port;
    size_t size; /* of the head, with its empty line */
};
enum { EGRESS_MORE = 1 };
#define EGRESS_HEAD_MAX (16 * KIB)

/*
 * 0; EGRESS_MORE: it is not whole yet; ERR_INVALID. Of a plain request *origin gets what goes to
 * the server: the path, the Host of the URL whatever the request's own said, nothing that is meant
 * for a proxy, "Connection: close". Pure.
 */
int egress_head_parse(struct str bytes, struct egress_head *ret, struct buf *origin, struct err *e)
    MUST_CHECK;

/* Relay: `chelad --relay HOST:PORT|PATH` (a path begins with "/") copies standard input and output
 * to one connection, for QEMU's guestfwd. The exit status. Blocking. */
int relay_main(const char *to);
