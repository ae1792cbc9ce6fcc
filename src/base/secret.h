/* SPDX-License-Identifier: MIT */
/*
 * base/secret.h — what touches keys: constant-time compare, hashes, sealing, key files.
 * libcrypto is included here and nowhere else (TLS, which is libssl, belongs to net/).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"

#define SECRET_KEY 32 /* bytes of a key, a SHA-256 and a token */

/* Overwrite in a way the compiler keeps. */
void secret_wipe(void *p, size_t n);

/* Equal? Time depends on the lengths only. */
bool secret_eq(struct str a, struct str b);

void sha256(const void *p, size_t n, unsigned char out[SECRET_KEY]);
void sha256_hex(struct str s, char out[2 * SECRET_KEY + 1]);

/* Of what comes in parts, on any one thread: new, add as often as needed, end, which frees it. */
struct sha256_sum;
struct sha256_sum *sha256_new(void);
void sha256_add(struct sha256_sum *s, const void *p, size_t n);
void sha256_end(struct sha256_sum *s, unsigned char out[SECRET_KEY]);

/* RFC 6455 asks for it; guards nothing. */
void sha1(const void *p, size_t n, unsigned char out[20]);

/* A fresh 256-bit token in hex behind prefix ("chela_"), into out of strlen(prefix) + 65 bytes. */
void token_new(const char *prefix, char *out);

/*
 * AES-256-GCM. Sealed text is "v1." + key id (8 hex of SHA-256 of the key) + "." + hex of
 * nonce (12) ‖ ciphertext ‖ tag (16), so that keys can be told apart and rotated. `what` is bound
 * in as associated data: a ciphertext moved to another row does not open. Results live in the
 * arena.
 */
int secret_seal(const unsigned char key[SECRET_KEY], struct str what, struct str plain,
                struct arena *a, struct str *ret, struct err *e) MUST_CHECK;
int secret_open(const unsigned char key[SECRET_KEY], struct str what, struct str sealed,
                struct arena *a, struct str *ret, struct err *e) MUST_CHECK;

/* Read a 32-byte key kept as hex in a file; make it (0600, O_EXCL, fsynced) when absent. */
int secret_key_file(const char *path, unsigned char out[SECRET_KEY], struct err *e) MUST_CHECK;

/* A key from a passphrase setting: 64 hex digits are taken as they are, else scrypt of the text. */
int secret_key_of(struct str text, unsigned char out[SECRET_KEY], struct err *e) MUST_CHECK;

/* Ed25519 (RFC 8032). A private key is its seed: any 32 random bytes. */
#define SECRET_SIGNATURE 64
void ed25519_public(const unsigned char key[SECRET_KEY], unsigned char out[SECRET_KEY]);
void ed25519_sign(const unsigned char key[SECRET_KEY], struct str text,
                  unsigned char out[SECRET_SIGNATURE]);
bool ed25519_verify(const unsigned char public[SECRET_KEY], struct str text,
                    const unsigned char signature[SECRET_SIGNATURE]);
