/* SPDX-License-Identifier: MIT */
/*
 * base/secret.c — hashes, sealing and key derivation, over OpenSSL's EVP.
 *
 * Algorithms are fetched once: OpenSSL 3 otherwise looks each up by name on every call. A failure
 * of one of these calls means a libcrypto without SHA-256 or AES-GCM, or no memory: we abort.
 */
#include "base/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "base/log.h"
#include "base/rand.h"

enum { NONCE = 12, TAG = 16, KEY_ID = 8 /* hex digits */ };

#define SEALED_PREFIX "v1."

/*
 * scrypt's cost for keys given as a phrase: 32 MiB and about 0.1 s, once at start. The salt is a
 * fixed label, since the same phrase must give the same key on every start and machine; a phrase
 * therefore has to be long, and 64 hex digits of randomness are better.
 */
#define SCRYPT_N    (UINT64_C(1) << 15)
#define SCRYPT_R    8
#define SCRYPT_P    1
#define SCRYPT_MAX  (64 * MIB)
#define SCRYPT_SALT "chela encryption key v1"

static EVP_MD *md_sha256;
static EVP_CIPHER *aes_256_gcm;
static pthread_once_t fetched = PTHREAD_ONCE_INIT;

__attribute__((noreturn)) static void give_up(const char *what)
{
    log_error("libcrypto failed", "call", LOG_STR(what));
    abort();
}

static void must(int ok, const char *what)
{
    if (ok != 1)
        give_up(what);
}

static void fetch(void)
{
    md_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    if (!md_sha256 || !aes_256_gcm)
        give_up("fetch");
}

void secret_wipe(void *p, size_t n)
{
    OPENSSL_cleanse(p, n);
}

bool secret_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || CRYPTO_memcmp(a.p, b.p, a.n) == 0);
}

void sha256(const void *p, size_t n, unsigned char out[SECRET_KEY])
{
    pthread_once(&fetched, fetch);
    must(EVP_Digest(p, n, out, NULL, md_sha256, NULL), "sha256");
}

struct sha256_sum {
    EVP_MD_CTX *ctx;
};

struct sha256_sum *sha256_new(void)
{
    struct sha256_sum *s = xcalloc(1, sizeof(*s));

    pthread_once(&fetched, fetch);
    s->ctx = EVP_MD_CTX_new();
    must(s->ctx && EVP_DigestInit_ex2(s->ctx, md_sha256, NULL), "sha256");
    return s;
}

void sha256_add(struct sha256_sum *s, const void *p, size_t n)
{
    must(EVP_DigestUpdate(s->ctx, p, n), "sha256");
}

void sha256_end(struct sha256_sum *s, unsigned char out[SECRET_KEY])
{
    must(EVP_DigestFinal_ex(s->ctx, out, NULL), "sha256");
    EVP_MD_CTX_free(s->ctx);
    free(s);
}

void sha1(const void *p, size_t n, unsigned char out[20])
{
    must(EVP_Digest(p, n, out, NULL, EVP_sha1(), NULL), "sha1");
}

void sha256_hex(struct str s, char out[2 * SECRET_KEY + 1])
{
    unsigned char digest[SECRET_KEY];

    sha256(s.p, s.n, digest);
    hex_format(digest, sizeof(digest), out);
}

void token_new(const char *prefix, char *out)
{
    unsigned char bytes[SECRET_KEY];
    size_t n = strlen(prefix);

    rand_bytes(bytes, sizeof(bytes));
    memcpy(out, prefix, n);
    hex_format(bytes, sizeof(bytes), out + n);
    secret_wipe(bytes, sizeof(bytes));
}

static void key_id(const unsigned char key[SECRET_KEY], char out[2 * SECRET_KEY + 1])
{
    sha256_hex((struct str){ (const char *)key, SECRET_KEY }, out);
    out[KEY_ID] = '\0';
}

static EVP_CIPHER_CTX *cipher_new(const unsigned char key[SECRET_KEY],
                                  const unsigned char nonce[NONCE], struct str what, int encrypt)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;

    pthread_once(&fetched, fetch);
    if (!ctx)
        give_up("cipher context");
    must(EVP_CipherInit_ex2(ctx, aes_256_gcm, key, nonce, encrypt, NULL), "cipher init");
    if (what.n > 0)
        must(EVP_CipherUpdate(ctx, NULL, &n, (const unsigned char *)what.p, (int)what.n), "aad");
    return ctx;
}

static int check_sizes(struct str what, struct str text, struct err *e)
{
    if (what.n > MIB || text.n > 64 * MIB) /* OpenSSL counts in int */
        return err_set(e, ERR_LIMIT, "too long to be sealed");
    return 0;
}

int secret_seal(const unsigned char key[SECRET_KEY], struct str what, struct str plain,
                struct arena *a, struct str *ret, struct err *e)
{
    size_t n = NONCE + plain.n + TAG, head = strlen(SEALED_PREFIX) + KEY_ID + 1;
    char id[2 * SECRET_KEY + 1], *text;
    unsigned char *box;
    EVP_CIPHER_CTX *ctx;
    int len = 0, r;

    r = check_sizes(what, plain, e);
    if (r < 0)
        return r;
    box = arena_raw(a, n);
    rand_bytes(box, NONCE);
    ctx = cipher_new(key, box, what, 1);
    if (plain.n > 0)
        must(EVP_CipherUpdate(ctx, box + NONCE, &len, (const unsigned char *)plain.p, (int)plain.n),
             "seal");
    must(EVP_CipherFinal_ex(ctx, box + NONCE + len, &len), "seal");
    must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, box + NONCE + plain.n), "tag");
    EVP_CIPHER_CTX_free(ctx);

    key_id(key, id);
    text = arena_raw(a, head + 2 * n + 1);
    fmt_z(text, head + 1, "%s%s.", SEALED_PREFIX, id);
    hex_format(box, n, text + head);
    *ret = (struct str){ text, head + 2 * n };
    return 0;
}

/* The bytes behind "v1.<key id>."; checks that the key is the right one. */
static int unwrap(const unsigned char key[SECRET_KEY], struct str sealed, struct arena *a,
                  unsigned char **ret_box, size_t *ret_n, struct err *e)
{
    size_t head = strlen(SEALED_PREFIX) + KEY_ID + 1, n;
    char id[2 * SECRET_KEY + 1];
    unsigned char *box;
    int r;

    if (!str_starts(sealed, STR(SEALED_PREFIX)) || sealed.n < head + 2 * (NONCE + TAG) ||
        sealed.p[head - 1] != '.')
        return err_set(e, ERR_INVALID, "not a sealed text");
    key_id(key, id);
    if (memcmp(sealed.p + strlen(SEALED_PREFIX), id, KEY_ID) != 0)
        return err_set(e, ERR_FORBIDDEN, "sealed with another key (%.*s, not %s)", KEY_ID,
                       sealed.p + strlen(SEALED_PREFIX), id);
    n = (sealed.n - head) / 2;
    box = arena_raw(a, n);
    r = hex_parse((struct str){ sealed.p + head, sealed.n - head }, box, n, e);
    if (r < 0)
        return err_wrap(e, "not a sealed text");
    *ret_box = box;
    *ret_n = n;
    return 0;
}

int secret_open(const unsigned char key[SECRET_KEY], struct str what, struct str sealed,
                struct arena *a, struct str *ret, struct err *e)
{
    unsigned char *box, *plain;
    EVP_CIPHER_CTX *ctx;
    size_t n;
    int len = 0, ok, r;

    r = check_sizes(what, (struct str){ sealed.p, sealed.n / 2 }, e);
    if (r == 0)
        r = unwrap(key, sealed, a, &box, &n, e);
    if (r < 0)
        return r;
    n -= NONCE + TAG;
    plain = arena_raw(a, n + 1);
    ctx = cipher_new(key, box, what, 0);
    must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, box + NONCE + n), "tag");
    if (n > 0)
        must(EVP_CipherUpdate(ctx, plain, &len, box + NONCE, (int)n), "open");
    ok = EVP_CipherFinal_ex(ctx, plain + len, &len);
    EVP_CIPHER_CTX_free(ctx);
    if (ok != 1) {
        secret_wipe(plain, n);
        return err_set(e, ERR_INVALID, "a sealed text was changed or belongs elsewhere");
    }
    plain[n] = '\0';
    *ret = (struct str){ (const char *)plain, n };
    return 0;
}

int secret_key_of(struct str text, unsigned char out[SECRET_KEY], struct err *e)
{
    unsigned char key[SECRET_KEY];

    if (text.n == 0)
        return err_set(e, ERR_INVALID, "the encryption key is empty");
    if (hex_parse(text, out, SECRET_KEY, NULL) == 0)
        return 0;
    must(EVP_PBE_scrypt(text.p, text.n, (const unsigned char *)SCRYPT_SALT, strlen(SCRYPT_SALT),
                        SCRYPT_N, SCRYPT_R, SCRYPT_P, SCRYPT_MAX, key, sizeof(key)),
         "scrypt");
    memcpy(out, key, sizeof(key));
    secret_wipe(key, sizeof(key));
    return 0;
}
