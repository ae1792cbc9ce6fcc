/* SPDX-License-Identifier: MIT */
/*
 * net/url.h — URLs and their parts (RFC 3986). Pure.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/shape.h"

struct url {
    struct str scheme, host, path, query; /* host without brackets; path at least "/" */
    unsigned short port;                  /* given, or the scheme's default (80, 443), or 0 */
    bool port_given, ipv6;
};

/*
 * Absolute http(s)/ws(s)/postgres(ql) URL without fragment, control characters, spaces, and without
 * user info (a postgres URL may have it; it is skipped). Slices point into text, or to a constant.
 */
int url_parse(struct str text, struct url *ret, struct err *e) MUST_CHECK;

/* The host as a socket address with the port, when it is an address and not a name. */
struct sockaddr_storage;
bool url_address(const struct url *u, struct sockaddr_storage *ret);

/* A host as a person registers it: DNS name (RFC 1123 letters, digits, - . and _), IPv4, IPv6 with
 * or without brackets. */
int host_check(struct str host, bool *ret_ipv6, struct err *e) MUST_CHECK;

/* Decode %XX once ('+' stays). ERR_INVALID on a bad escape or a decoded NUL. Terminated copy. */
int percent_decode(struct str s, struct arena *a, struct str *ret, struct err *e) MUST_CHECK;

/* Encode all but unreserved characters. */
struct str percent_encode(struct str s, struct arena *a);

/* "a=1&b=x%20y" (also '+' as space) into pairs; at most 64. */
int query_parse(struct str text, struct arena *a, struct shape_pair **ret, size_t *ret_n,
                struct err *e) MUST_CHECK;
