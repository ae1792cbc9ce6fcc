/* SPDX-License-Identifier: MIT */
/*
 * openclaw/device.c — the device identity: an Ed25519 key in a file of our own, and the text that
 * it signs at a handshake. A peer knows a device by the SHA-256 of its public key.
 */
#include "base/secret.h"
#include "openclaw/openclaw_int.h"

void oc_base64url(const unsigned char *p, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned held = 0;

    for (size_t i = 0; i < n; i++) {
        bits = bits << 8 | p[i];
        for (held += 8; held >= 6; held -= 6)
            *out++ = digits[bits >> (held - 6) & 63];
    }
    if (held)
        *out++ = digits[bits << (6 - held) & 63];
    *out = '\0';
}

int oc_device_load(struct oc_device *d, const char *path, struct err *e)
{
    unsigned char public[SECRET_KEY];
    int r;

    if (d->loaded)
        return 0;
    r = secret_key_file(path, d->key, e);
    if (r < 0)
        return err_wrap(e, "device key");
    ed25519_public(d->key, public);
    sha256_hex((struct str){ (char *)public, sizeof(public) }, d->id);
    oc_base64url(public, sizeof(public), d->public_text);
    d->loaded = true;
    return 0;
}

json_t *oc_device_sign(const struct oc_device *d, const struct oc_claim *claim)
{
    unsigned char signature[SECRET_SIGNATURE];
    char signature_text[90];
    AUTO(free) char *text = NULL;

    text = xasprintf("v2|%s|%s|%s|%s|%s|%lld|%s|%s", d->id, claim->client_id, claim->mode,
                     claim->role, claim->scopes, (long long)claim->at_ms,
                     claim->token ? claim->token : "", claim->nonce);
    ed25519_sign(d->key, str_of(text), signature);
    oc_base64url(signature, sizeof(signature), signature_text);
    secret_wipe(text, strlen(text));
    return json_pack("{s:s, s:s, s:s, s:I, s:s}", "id", d->id, "publicKey", d->public_text,
                     "signature", signature_text, "signedAt", (json_int_t)claim->at_ms, "nonce",
                     claim->nonce);
}
