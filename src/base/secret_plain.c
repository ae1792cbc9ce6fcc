/* SPDX-License-Identifier: MIT */
/*
 * base/secret_plain.c — the hashes of secret.h without libcrypto, for programs that are linked
 * statically and should stay small: SHA-1 and SHA-256 as in FIPS 180-4. What seals or signs is not
 * here. secret_plain_test holds it against libcrypto.
 */
#include <string.h>

#include "base/rand.h"
#include "base/secret.h"

struct hash {
    uint32_t h[8];
    uint64_t n; /* bytes so far */
    unsigned char block[64];
    void (*turn)(struct hash *s, const unsigned char *block);
};

static uint32_t rol(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static uint32_t ror(uint32_t x, unsigned n)
{
    return rol(x, 32 - n);
}

static uint32_t get_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (24 - 8 * i));
}

static uint32_t sha1_mix(int i, uint32_t b, uint32_t c, uint32_t d)
{
    static const uint32_t k[] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };

    if (i < 20)
        return ((b & c) | (~b & d)) + k[0];
    if (i < 40)
        return (b ^ c ^ d) + k[1];
    if (i < 60)
        return ((b & c) | (b & d) | (c & d)) + k[2];
    return (b ^ c ^ d) + k[3];
}

static void sha1_turn(struct hash *s, const unsigned char *block)
{
    uint32_t w[80], v[5], t;

    for (int i = 0; i < 16; i++)
        w[i] = get_be32(block + 4 * i);
    for (int i = 16; i < 80; i++)
        w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    memcpy(v, s->h, sizeof(v));
    for (int i = 0; i < 80; i++) {
        t = rol(v[0], 5) + sha1_mix(i, v[1], v[2], v[3]) + v[4] + w[i];
        memmove(v + 1, v, 4 * sizeof(*v));
        v[2] = rol(v[2], 30);
        v[0] = t;
    }
    for (int i = 0; i < 5; i++)
        s->h[i] += v[i];
}

/* clang-format off */
static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
/* clang-format on */

static void sha256_turn(struct hash *s, const unsigned char *block)
{
    uint32_t w[64], v[8], t1, t2;

    for (int i = 0; i < 16; i++)
        w[i] = get_be32(block + 4 * i);
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->h, sizeof(v));
    for (int i = 0; i < 64; i++) {
        t1 = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25)) +
             ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha256_k[i] + w[i];
        t2 = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22)) +
             ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof(*v));
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        s->h[i] += v[i];
}

static void hash_add(struct hash *s, const void *p, size_t n)
{
    const unsigned char *from = p;
    size_t at = s->n % sizeof(s->block);

    s->n += n;
    while (n > 0) {
        size_t take = sizeof(s->block) - at < n ? sizeof(s->block) - at : n;

        memcpy(s->block + at, from, take);
        from += take;
        n -= take;
        at = (at + take) % sizeof(s->block);
        if (at == 0)
            s->turn(s, s->block);
    }
}

static void hash_end(struct hash *s, unsigned char *out, size_t words)
{
    static const unsigned char pad[64] = { 0x80 };
    uint64_t bits = s->n * 8;
    unsigned char tail[8];

    hash_add(s, pad, 1 + (119 - s->n % 64) % 64);
    put_be32(tail, (uint32_t)(bits >> 32));
    put_be32(tail + 4, (uint32_t)bits);
    hash_add(s, tail, sizeof(tail));
    for (size_t i = 0; i < words; i++)
        put_be32(out + 4 * i, s->h[i]);
}

void sha1(const void *p, size_t n, unsigned char out[20])
{
    struct hash s = {
        .h = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 },
        .turn = sha1_turn,
    };

    hash_add(&s, p, n);
    hash_end(&s, out, 5);
}

static struct hash sha256_begin(void)
{
    return (struct hash){
        .h = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
               0x5be0cd19 },
        .turn = sha256_turn,
    };
}

void sha256(const void *p, size_t n, unsigned char out[SECRET_KEY])
{
    struct hash s = sha256_begin();

    hash_add(&s, p, n);
    hash_end(&s, out, 8);
}

struct sha256_sum {
    struct hash hash;
};

struct sha256_sum *sha256_new(void)
{
    struct sha256_sum *s = xmalloc(sizeof(*s));

    s->hash = sha256_begin();
    return s;
}

void sha256_add(struct sha256_sum *s, const void *p, size_t n)
{
    hash_add(&s->hash, p, n);
}

void sha256_end(struct sha256_sum *s, unsigned char out[SECRET_KEY])
{
    hash_end(&s->hash, out, 8);
    free(s);
}

void sha256_hex(struct str s, char out[2 * SECRET_KEY + 1])
{
    unsigned char hash[SECRET_KEY];

    sha256(s.p, s.n, hash);
    hex_format(hash, sizeof(hash), out);
}

void secret_wipe(void *p, size_t n)
{
    explicit_bzero(p, n);
}

bool secret_eq(struct str a, struct str b)
{
    unsigned char differ = 0;

    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        differ |= (unsigned char)(a.p[i] ^ b.p[i]);
    return differ == 0;
}

void token_new(const char *prefix, char *out)
{
    unsigned char bytes[SECRET_KEY];
    char hex[2 * SECRET_KEY + 1];

    rand_bytes(bytes, sizeof(bytes));
    hex_format(bytes, sizeof(bytes), hex);
    fmt_z(out, strlen(prefix) + sizeof(hex), "%s%s", prefix, hex);
    secret_wipe(bytes, sizeof(bytes));
    secret_wipe(hex, sizeof(hex));
}
