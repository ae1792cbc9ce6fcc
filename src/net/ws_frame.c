/* SPDX-License-Identifier: MIT */
/*
 * net/ws_frame.c — frames on their way out. A message goes as one frame, its head in front of the
 * caller's own bytes, so that one writev sends it without a copy (a client has to mask, and
 * copies).
 */
#include <string.h>

#include "net/ws_int.h"

size_t ws_frame_head(enum ws_opcode opcode, uint64_t n, const unsigned char mask[4],
                     unsigned char out[WS_FRAME_HEAD_MAX])
{
    unsigned char flag = mask ? 0x80 : 0;
    unsigned bytes = n < 126 ? 0 : n < 65536 ? 2 : 8;
    size_t len = 2;

    out[0] = (unsigned char)(0x80 | opcode);
    out[1] = (unsigned char)(flag | (bytes == 0 ? n : bytes == 2 ? 126 : 127));
    for (unsigned i = bytes; i > 0; i--)
        out[len++] = (unsigned char)(n >> 8 * (i - 1));
    if (mask) {
        memcpy(out + len, mask, 4);
        len += 4;
    }
    return len;
}

void ws_frame_mask(const char *p, size_t n, const unsigned char mask[4], char *out)
{
    unsigned char wide[8];
    uint64_t word, key;
    size_t i = 0;

    memcpy(wide, mask, 4);
    memcpy(wide + 4, mask, 4);
    memcpy(&key, wide, 8);
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, p + i, 8);
        word ^= key;
        memcpy(out + i, &word, 8);
    }
    for (; i < n; i++)
        out[i] = (char)(p[i] ^ mask[i % 4]);
}
