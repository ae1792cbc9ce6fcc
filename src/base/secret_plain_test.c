/* SPDX-License-Identifier: MIT */
/* base/secret_plain_test.c — the hashes of our own against libcrypto's, of all lengths that matter.
 */
#include <openssl/evp.h>

#include "base/rand.h"
#include "base/secret.h"
#include "test.h"

static void check(const unsigned char *p, size_t n)
{
    unsigned char want[EVP_MAX_MD_SIZE], have[SECRET_KEY];
    unsigned len;

    CHECK(EVP_Digest(p, n, want, &len, EVP_sha256(), NULL) == 1);
    sha256(p, n, have);
    CHECK(memcmp(have, want, SECRET_KEY) == 0);
    CHECK(EVP_Digest(p, n, want, &len, EVP_sha1(), NULL) == 1);
    sha1(p, n, have);
    CHECK(memcmp(have, want, 20) == 0);
}

TEST(hashes_of_every_length_around_the_blocks)
{
    unsigned char bytes[300];

    rand_set_seed(1);
    rand_bytes(bytes, sizeof(bytes));
    for (size_t n = 0; n <= sizeof(bytes); n++)
        check(bytes, n);
    rand_set_seed(0);
}

TEST(parts_make_the_same_hash_as_the_whole)
{
    static unsigned char bytes[100000];
    unsigned char want[SECRET_KEY], have[SECRET_KEY];

    rand_set_seed(2);
    rand_bytes(bytes, sizeof(bytes));
    sha256(bytes, sizeof(bytes), want);
    for (size_t step = 1; step < 4000; step = step * 3 + 1) {
        struct sha256_sum *s = sha256_new();

        for (size_t at = 0; at < sizeof(bytes); at += step)
            sha256_add(s, bytes + at, sizeof(bytes) - at < step ? sizeof(bytes) - at : step);
        sha256_end(s, have);
        CHECK(memcmp(have, want, sizeof(want)) == 0);
    }
    check(bytes, sizeof(bytes));
    rand_set_seed(0);
}

TEST(a_known_text)
{
    char hex[2 * SECRET_KEY + 1];

    sha256_hex(STR("abc"), hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(secrets_are_compared_whole)
{
    CHECK(secret_eq(STR("same"), STR("same")));
    CHECK(!secret_eq(STR("same"), STR("samf")));
    CHECK(!secret_eq(STR("same"), STR("sam")));
    CHECK(secret_eq(STR(""), STR("")));
}
