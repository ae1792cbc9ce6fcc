/* SPDX-License-Identifier: MIT */
/*
 * swarm/jwt.h — JSON Web Tokens (RFC 7519) signed with HS256, and no others: what a token's header
 * says of its algorithm is only ever compared, never obeyed.
 */
#pragma once

#include "base/arena.h"

enum { JWT_MAX = 16 * 1024 }; /* bytes of a token */

struct jwt_claims { /* texts in the arena; {0}: not claimed */
    struct str sub, email, workspace;
    int64_t exp_s;
};

/*
 * 0, or ERR_UNAUTHORIZED with the original's text: "Invalid token", "Token has expired", "Invalid
 * token payload" (no sub, or no exp). The signature is compared in constant time. Pure.
 */
int jwt_verify(struct str token, struct str secret, int64_t now_s, struct arena *a,
               struct jwt_claims *ret, struct err *e) MUST_CHECK;

/* RFC 2104 with SHA-256. */
void hmac_sha256(struct str key, struct str text, unsigned char out[32]);
