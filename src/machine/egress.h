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

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"

struct egress;

/* Does the list let through host:port? Entries: "host" (ports 80 and 443), "host:port",
 * "*.host", "*" . Pure. */
bool egress_allows(const char *const *allow, size_t n, struct str host, unsigned port);

/* Serve on a unix socket at path (0600) or, path NULL, on a free port of 127.0.0.1 (*ret_port).
 * The list is copied. */
int egress_new(struct loop *loop, const char *path, const char *const *allow, size_t n,
               unsigned *ret_port, struct egress **ret, struct err *e) MUST_CHECK;
CO void egress_free(struct egress *g); /* ends its connections; NULL is fine */

/* Relay: `chelad --relay HOST:PORT|PATH` copies standard input and output to one connection, for
 * QEMU's guestfwd. The exit status. Blocking. */
int relay_main(const char *to);
