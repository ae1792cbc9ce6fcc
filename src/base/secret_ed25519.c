/* SPDX-License-Identifier: MIT */
/*
 * base/secret_ed25519.c — signatures of RFC 8032, over OpenSSL's EVP. A private key is its 32 byte
 * seed, so that it is kept like any other key (secret_key_file).
 */
#include <openssl/evp.h>

#include "base/log.h"
#include "base/secret.h"

static void must(int ok, const char *what)
{
    if (ok == 1)
        return;
    log_error("libcrypto failed", "call", LOG_STR(what));
    abort();
}

static EVP_PKEY *private_of(const unsigned char key[SECRET_KEY])
{
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key, SECRET_KEY);

    must(pkey != NULL, "Ed25519 key");
    return pkey;
}

void ed25519_public(const unsigned char key[SECRET_KEY], unsigned char out[SECRET_KEY])
{
    EVP_PKEY *pkey = private_of(key);
    size_t n = SECRET_KEY;

    must(EVP_PKEY_get_raw_public_key(pkey, out, &n), "Ed25519 public key");
    EVP_PKEY_free(pkey);
}

void ed25519_sign(const unsigned char key[SECRET_KEY], struct str text,
                  unsigned char out[SECRET_SIGNATURE])
{
    EVP_PKEY *pkey = private_of(key);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t n = SECRET_SIGNATURE;

    must(ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey), "Ed25519 init");
    must(EVP_DigestSign(ctx, out, &n, (const unsigned char *)text.p, text.n), "Ed25519 sign");
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
}

bool ed25519_verify(const unsigned char public[SECRET_KEY], struct str text,
                    const unsigned char signature[SECRET_SIGNATURE])
{
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, SECRET_KEY);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok;

    ok = pkey && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
         EVP_DigestVerify(ctx, signature, SECRET_SIGNATURE, (const unsigned char *)text.p,
                          text.n) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return ok;
}
