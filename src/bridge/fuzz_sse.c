/* SPDX-License-Identifier: MIT */
/* bridge/fuzz_sse.c — server-sent events of a foreign agent, in pieces that the input chooses. */
#include "bridge/sse.h"
#include "fuzz.h"

static int touch(const char *event, struct str data, void *arg, struct err *e)
{
    size_t *sum = arg;

    for (size_t i = 0; i < data.n; i++)
        *sum += (unsigned char)data.p[i];
    *sum += strlen(event);
    return 0;
}

FUZZ(const uint8_t *data, size_t size)
{
    size_t sum = 0, step = size ? 1 + data[0] % 17 : 1;
    struct sse s;
    struct err e;
    int r = 0;

    sse_init(&s, 4096);
    for (size_t at = 0; at < size && !r; at += step) {
        size_t n = size - at < step ? size - at : step;

        r = sse_feed(&s, (struct str){ (const char *)data + at, n }, touch, &sum, &e);
    }
    sse_done(&s);
    return 0;
}
