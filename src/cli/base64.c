/* SPDX-License-Identifier: MIT */
/* cli/base64.c — see base64.h. */
#include "cli/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct str base64_encode(struct str bytes, struct arena *a)
{
    const unsigned char *in = (const unsigned char *)bytes.p;
    char *out = arena_raw(a, 4 * ((bytes.n + 2) / 3) + 1), *to = out;

    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        unsigned v = (unsigned)in[i] << 16 | (left > 1 ? (unsigned)in[i + 1] << 8 : 0) |
                     (left > 2 ? (unsigned)in[i + 2] : 0);

        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = left > 1 ? digits[v >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[v & 63] : '=';
    }
    *to = '\0';
    return (struct str){ out, (size_t)(to - out) };
}

static int value_of(char c)
{
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

int base64_decode(struct str text, struct arena *a, struct str *ret, struct err *e)
{
    char *out = arena_raw(a, text.n / 4 * 3 + 4), *to = out;
    unsigned v = 0;
    size_t bits = 0;

    while (text.n && text.p[text.n - 1] == '=')
        text.n--;
    if (text.n % 4 == 1)
        return err_set(e, ERR_INVALID, "this is not base64");
    for (size_t i = 0; i < text.n; i++) {
        int digit = value_of(text.p[i]);

        if (digit < 0)
            return err_set(e, ERR_INVALID, "this is not base64");
        v = v << 6 | (unsigned)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *to++ = (char)(v >> bits & 0xff);
        }
    }
    *to = '\0';
    *ret = (struct str){ out, (size_t)(to - out) };
    return 0;
}
