/* SPDX-License-Identifier: MIT */
/* Ed25519: the vectors of RFC 8032 §7.1, and what must not verify. */
#include "base/secret.h"
#include "test.h"

static void bytes(const char *hex, unsigned char *out, size_t n)
{
    struct err e;

    CHECK_INT(hex_parse(str_of(hex), out, n, &e), 0);
}

static const struct vector {
    const char *key, *public, *text, *signature;
} vectors[] = {
    { "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
      "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b" },
    { "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
      "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00" },
    { "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
      "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
      "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a" },
};

TEST(keys_and_signatures_are_those_of_the_rfc)
{
    for (size_t i = 0; i < LEN(vectors); i++) {
        const struct vector *v = &vectors[i];
        unsigned char key[SECRET_KEY], public[SECRET_KEY], want[SECRET_KEY];
        unsigned char signature[SECRET_SIGNATURE], sign_want[SECRET_SIGNATURE], text[8] = { 0 };
        struct str message = { (char *)text, strlen(v->text) / 2 };

        bytes(v->key, key, sizeof(key));
        bytes(v->public, want, sizeof(want));
        bytes(v->text, text, message.n);
        bytes(v->signature, sign_want, sizeof(sign_want));
        ed25519_public(key, public);
        CHECK(memcmp(public, want, sizeof(want)) == 0);
        ed25519_sign(key, message, signature);
        CHECK(memcmp(signature, sign_want, sizeof(signature)) == 0);
        CHECK(ed25519_verify(public, message, signature));
    }
}

TEST(another_text_key_or_signature_does_not_verify)
{
    unsigned char key[SECRET_KEY] = { 1 }, public[SECRET_KEY], signature[SECRET_SIGNATURE];

    ed25519_public(key, public);
    ed25519_sign(key, STR("pay one"), signature);
    CHECK(ed25519_verify(public, STR("pay one"), signature));
    CHECK(!ed25519_verify(public, STR("pay two"), signature));
    signature[10] ^= 1;
    CHECK(!ed25519_verify(public, STR("pay one"), signature));
    signature[10] ^= 1;
    key[0] = 2;
    ed25519_public(key, public);
    CHECK(!ed25519_verify(public, STR("pay one"), signature));
}
