/* SPDX-License-Identifier: MIT */
/*
 * base/id.c — UUIDs.
 */
#include "base/id.h"

#include <stdint.h>

#include "base/rand.h"
#include "base/str.h"
#include "base/time.h"

static void format(unsigned char b[16], int version, char out[UUID_TEXT])
{
    static const size_t groups[] = { 4, 2, 2, 2, 6 };
    size_t at = 0;

    b[6] = (unsigned char)((b[6] & 0x0f) | version << 4);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < LEN(groups); i++) {
        hex_format(b + at, groups[i], out);
        at += groups[i];
        out += 2 * groups[i];
        *out++ = '-';
    }
    out[-1] = '\0';
}

void uuid_v4(char out[UUID_TEXT])
{
    unsigned char b[16];

    rand_bytes(b, sizeof(b));
    format(b, 4, out);
}

void uuid_v7(char out[UUID_TEXT])
{
    int64_t us = wall_us();
    uint64_t ms = (uint64_t)(us / 1000);
    unsigned fraction = (unsigned)(us % 1000 * 4096 / 1000); /* RFC 9562 §6.2, method 3 */
    unsigned char b[16];

    rand_bytes(b, sizeof(b));
    for (int i = 0; i < 6; i++)
        b[i] = (unsigned char)(ms >> (8 * (5 - i)));
    b[6] = (unsigned char)(fraction >> 8);
    b[7] = (unsigned char)fraction;
    format(b, 7, out);
}
