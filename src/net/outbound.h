/* SPDX-License-Identifier: MIT */
/*
 * net/outbound.h — which addresses calls may go to (SSRF rule). Pure.
 *
 * Refused unless an allow row covers them: link-local (169.254/16, fe80::/10, which hold the cloud
 * metadata services), known metadata addresses elsewhere (fd00:ec2::/32, fd20:ce::254,
 * 100.100.100.200, 168.63.129.16, 192.0.0.192), multicast, broadcast, unspecified (0.0.0.0/8, ::),
 * and IPv4 in IPv6 clothes of any of those (mapped, translated, 6to4, NAT64). Loopback and private
 * ranges are allowed: that is where agents live. A deny row always wins.
 */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

#include "base/str.h"

#define OUTBOUND_ROWS 64

struct cidr {
    unsigned char addr[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned bits;          /* of 128 */
};

struct outbound_policy {
    struct cidr allow[OUTBOUND_ROWS], deny[OUTBOUND_ROWS];
    size_t n_allow, n_deny;
};

/* Lists are "10.0.0.0/8, fd00::/8, 192.0.2.1"; "" is fine. */
int outbound_policy_parse(const char *allow, const char *deny, struct outbound_policy *ret,
                          struct err *e) MUST_CHECK;

/* NULL policy allows all. *ret_why is a constant text when refused. */
bool outbound_allowed(const struct outbound_policy *p, const struct sockaddr *addr,
                      const char **ret_why);
