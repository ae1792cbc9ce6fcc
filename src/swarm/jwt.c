/* SPDX-License-Identifier: MIT */
/* swarm/jwt.c — see jwt.h. */
#include "swarm/jwt.h"

#include "base/json.h"
#include "base/secret.h"

enum { BLOCK = 64 }; /* of SHA-256 */

void hmac_sha256(struct str key, struct str text, unsigned char out[32])
{
    unsigned char pad[BLOCK] = { 0 }, outer[BLOCK + SECRET_KEY];
    unsigned char *inner = xmalloc(BLOCK + text.n);

    if (key.n > BLOCK)
        sha256(key.p, key.n, pad);
    else if (key.n)
        memcpy(pad, key.p, key.n);
    for (size_t i = 0; i < BLOCK; i++) {
        inner[i] = pad[i] ^ 0x36;
        outer[i] = pad[i] ^ 0x5c;
    }
    if (text.n)
        memcpy(inner + BLOCK, text.p, text.n);
    sha256(inner, BLOCK + text.n, outer + BLOCK);
    sha256(outer, sizeof(outer), out);
    secret_wipe(pad, sizeof(pad));
    secret_wipe(outer, sizeof(outer));
    secret_wipe(inner, BLOCK);
    free(inner);
}

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Base64url without padding (RFC 4648 §5); bits that are left over must be zero. */
static bool decode(struct str in, struct arena *a, struct str *ret)
{
    char *out = arena_raw(a, in.n + 1);
    unsigned bits = 0, n_bits = 0;
    size_t n = 0;

    if (in.n % 4 == 1)
        return false;
    for (size_t i = 0; i < in.n; i++) {
        int digit = digit_of(in.p[i]);

        if (digit < 0)
            return false;
        bits = (bits << 6 | (unsigned)digit) & 0xfff;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[n++] = (char)(bits >> n_bits & 0xff);
        }
    }
    *ret = (struct str){ out, n };
    return (bits & ((1u << n_bits) - 1)) == 0;
}

static int invalid(struct err *e)
{
    return err_set(e, ERR_UNAUTHORIZED, "Invalid token");
}

/* Which of two would count depends on who reads it. */
static bool says_twice(struct str text, struct str member)
{
    const char *first = text.n ? memmem(text.p, text.n, member.p, member.n) : NULL;

    if (!first)
        return false;
    first += member.n;
    return memmem(first, text.n - (size_t)(first - text.p), member.p, member.n) != NULL;
}

/* A part of the token as an object; NULL when it is none. */
static json_t *part_json(struct str part, struct arena *a)
{
    struct str text;
    json_t *value;
    struct err e;

    if (!decode(part, a, &text) || says_twice(text, STR("\"alg\"")) ||
        json_parse(text, 16, a, &value, NULL, &e) < 0)
        return NULL;
    return json_is_object(value) ? value : NULL;
}

static int read_claims(const json_t *payload, int64_t now_s, struct arena *a,
                       struct jwt_claims *ret, struct err *e)
{
    const json_t *exp = json_object_get(payload, "exp");
    const json_t *nbf = json_object_get(payload, "nbf");
    struct jwt_claims claims = {
        .sub = json_member_str(payload, "sub"),
        .email = json_member_str(payload, "email"),
        .workspace = json_member_str(payload, "workspace_id"),
        .exp_s = json_is_integer(exp) ? json_integer_value(exp) : (int64_t)json_real_value(exp),
    };

    if (!json_is_number(exp) || json_number_value(exp) > 1e15)
        return err_set(e, ERR_UNAUTHORIZED, "Invalid token payload");
    if (json_number_value(exp) <= (double)now_s)
        return err_set(e, ERR_UNAUTHORIZED, "Token has expired");
    if (claims.sub.n == 0)
        return err_set(e, ERR_UNAUTHORIZED, "Invalid token payload");
    if (nbf && (!json_is_number(nbf) || json_number_value(nbf) > (double)now_s))
        return invalid(e);
    claims.sub = arena_str(a, claims.sub);
    if (claims.email.p)
        claims.email = arena_str(a, claims.email);
    if (claims.workspace.p)
        claims.workspace = arena_str(a, claims.workspace);
    *ret = claims;
    return 0;
}

int jwt_verify(struct str token, struct str secret, int64_t now_s, struct arena *a,
               struct jwt_claims *ret, struct err *e)
{
    struct str rest = token, header, payload, signature, have;
    unsigned char want[SECRET_KEY];
    const json_t *head, *body;

    if (token.n > JWT_MAX || !str_split(&rest, '.', &header) || !str_split(&rest, '.', &payload))
        return invalid(e);
    signature = rest;
    hmac_sha256(secret, (struct str){ token.p, header.n + 1 + payload.n }, want);
    if (!decode(signature, a, &have) ||
        !secret_eq(have, (struct str){ (const char *)want, sizeof(want) }))
        return invalid(e);
    head = part_json(header, a);
    if (!head || !str_eq(json_member_str(head, "alg"), STR("HS256")) ||
        json_object_get(head, "crit"))
        return invalid(e);
    body = part_json(payload, a);
    return body ? read_claims(body, now_s, a, ret, e) : invalid(e);
}
