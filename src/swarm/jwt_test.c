/* SPDX-License-Identifier: MIT */
/* swarm/jwt_test.c — vectors of RFC 4231 and RFC 7515, and every way a token can be wrong. */
#include "swarm/jwt.h"

#include "base/secret.h"
#include "test.h"

static const char *hmac_hex(struct str key, struct str text)
{
    static char hex[2 * SECRET_KEY + 1];
    unsigned char mac[SECRET_KEY];

    hmac_sha256(key, text, mac);
    hex_format(mac, sizeof(mac), hex);
    return hex;
}

TEST(hmac_is_that_of_rfc_4231)
{
    char many[131];

    memset(many, 0xaa, sizeof(many));
    CHECK_STR(hmac_hex(STR("\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b"
                           "\x0b\x0b\x0b"),
                       STR("Hi There")),
              "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    CHECK_STR(hmac_hex(STR("Jefe"), STR("what do ya want for nothing?")),
              "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    CHECK_STR(hmac_hex((struct str){ many, sizeof(many) },
                       STR("Test Using Larger Than Block-Size Key - Hash Key First")),
              "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(const void *bytes, size_t n, char *out)
{
    const unsigned char *p = bytes;
    unsigned bits = 0, n_bits = 0;

    for (size_t i = 0; i < n; i++) {
        bits = bits << 8 | p[i];
        for (n_bits += 8; n_bits >= 6; n_bits -= 6)
            *out++ = digits[bits >> (n_bits - 6) & 63];
    }
    if (n_bits)
        *out++ = digits[bits << (6 - n_bits) & 63];
    *out = '\0';
}

#define SECRET "a secret of the tests, thirty-two bytes"

static const char *token_with(const char *head, const char *claims, const char *secret)
{
    static char token[2048];
    unsigned char mac[SECRET_KEY];
    size_t n;

    encode(head, strlen(head), token);
    n = strlen(token);
    token[n++] = '.';
    encode(claims, strlen(claims), token + n);
    n = strlen(token);
    hmac_sha256(str_of(secret), (struct str){ token, n }, mac);
    token[n++] = '.';
    encode(mac, sizeof(mac), token + n);
    return token;
}

static const char *verdict(struct str token, struct jwt_claims *ret)
{
    static struct arena a;
    static struct err e;

    arena_done(&a);
    e.msg[0] = '\0';
    return jwt_verify(token, STR(SECRET), 1000, &a, ret, &e) == 0 ? "good" : e.msg;
}

#define HS "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"

TEST(what_a_token_is_worth)
{
    static const struct {
        const char *head, *claims, *secret, *verdict;
    } rows[] = {
        { HS, "{\"sub\":\"u\",\"exp\":1001}", SECRET, "good" },
        { "{\"alg\":\"HS256\"}", "{\"sub\":\"u\",\"exp\":1000.5}", SECRET, "good" },
        { HS, "{\"sub\":\"u\",\"exp\":1000}", SECRET, "Token has expired" },
        { HS, "{\"sub\":\"u\"}", SECRET, "Invalid token payload" },
        { HS, "{\"sub\":\"u\",\"exp\":\"1001\"}", SECRET, "Invalid token payload" },
        { HS, "{\"exp\":1001}", SECRET, "Invalid token payload" },
        { HS, "{\"sub\":\"\",\"exp\":1001}", SECRET, "Invalid token payload" },
        { HS, "{\"sub\":7,\"exp\":1001}", SECRET, "Invalid token payload" },
        { HS, "{\"sub\":\"u\",\"exp\":1001,\"nbf\":1001}", SECRET, "Invalid token" },
        { HS, "[1]", SECRET, "Invalid token" },
        { HS, "{\"sub\":\"u\",\"exp\":1001}", "another secret", "Invalid token" },
        { HS, "{\"sub\":\"u\",\"exp\":1001}", "", "Invalid token" },
        { "{\"alg\":\"none\"}", "{\"sub\":\"u\",\"exp\":1001}", SECRET, "Invalid token" },
        { "{\"alg\":\"hs256\"}", "{\"sub\":\"u\",\"exp\":1001}", SECRET, "Invalid token" },
        { "{\"alg\":\"HS512\"}", "{\"sub\":\"u\",\"exp\":1001}", SECRET, "Invalid token" },
        { "{\"alg\":[\"HS256\"]}", "{\"sub\":\"u\",\"exp\":1001}", SECRET, "Invalid token" },
        { "{}", "{\"sub\":\"u\",\"exp\":1001}", SECRET, "Invalid token" },
        { "{\"alg\":\"HS256\",\"crit\":[\"x\"]}", "{\"sub\":\"u\",\"exp\":1001}", SECRET,
          "Invalid token" },
    };
    struct jwt_claims claims;

    for (size_t i = 0; i < LEN(rows); i++)
        CHECK_STR(
            verdict(str_of(token_with(rows[i].head, rows[i].claims, rows[i].secret)), &claims),
            rows[i].verdict);
    CHECK_STR(verdict(str_of(token_with(HS,
                                        "{\"sub\":\"u1\",\"exp\":2000,\"email\":\"e@x\","
                                        "\"workspace_id\":\"w\"}",
                                        SECRET)),
                      &claims),
              "good");
    CHECK(str_eq(claims.sub, STR("u1")) && str_eq(claims.email, STR("e@x")));
    CHECK(str_eq(claims.workspace, STR("w")) && claims.exp_s == 2000);
}

TEST(no_character_of_a_token_can_be_changed)
{
    char token[2048];
    struct jwt_claims claims;
    size_t n;

    fmt_z(token, sizeof(token), "%s", token_with(HS, "{\"sub\":\"u\",\"exp\":1001}", SECRET));
    n = strlen(token);
    CHECK_STR(verdict((struct str){ token, n }, &claims), "good");
    for (size_t i = 0; i < n; i++) {
        const char was = token[i];

        for (size_t k = 0; k < 64; k += 7) {
            if (digits[k] == was)
                continue;
            token[i] = digits[k];
            CHECK_STR(verdict((struct str){ token, n }, &claims), "Invalid token");
        }
        token[i] = '.';
        if (was != '.')
            CHECK_STR(verdict((struct str){ token, n }, &claims), "Invalid token");
        token[i] = '=';
        CHECK_STR(verdict((struct str){ token, n }, &claims), "Invalid token");
        token[i] = was;
    }
    for (size_t i = 0; i < n; i++)
        CHECK_STR(verdict((struct str){ token, i }, &claims), "Invalid token");
    token[n] = 'A';
    CHECK_STR(verdict((struct str){ token, n + 1 }, &claims), "Invalid token");
    CHECK_STR(verdict(STR("..."), &claims), "Invalid token");
}
