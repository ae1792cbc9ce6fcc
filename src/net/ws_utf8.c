/* SPDX-License-Identifier: MIT */
/*
 * net/ws_utf8.c — UTF-8 (RFC 3629) that is cut anywhere: text of a message comes in fragments and
 * reads, and RFC 6455 wants the first impossible byte to fail the connection, not the last.
 */
#include "net/ws_int.h"

/* The lead byte decides how many bytes follow and what the first of them may be. */
static bool begin(struct ws_utf8 *u, unsigned char c)
{
    u->low = 0x80;
    u->high = 0xbf;
    if (c < 0xc2 || c > 0xf4)
        return false; /* a stray continuation, an overlong form, or past U+10FFFF */
    u->left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    if (c == 0xe0)
        u->low = 0xa0; /* shorter forms exist */
    else if (c == 0xed)
        u->high = 0x9f; /* surrogates */
    else if (c == 0xf0)
        u->low = 0x90;
    else if (c == 0xf4)
        u->high = 0x8f;
    return true;
}

bool ws_utf8_feed(struct ws_utf8 *u, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if (u->left == 0) {
            if (c >= 0x80 && !begin(u, c))
                return false;
            continue;
        }
        if (c < u->low || c > u->high)
            return false;
        u->low = 0x80;
        u->high = 0xbf;
        u->left--;
    }
    return true;
}

bool ws_utf8_complete(const struct ws_utf8 *u)
{
    return u->left == 0;
}
