/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as frames: the first byte chooses the role and how the rest is cut into reads. What
 * comes out keeps its promises, and does not depend on the cuts. The same bytes as a server's
 * answer to a handshake.
 */
#include <assert.h>

#include "fuzz.h"
#include "net/ws_int.h"

#define MAX 4096

static uint64_t mix(uint64_t hash, const void *p, size_t n)
{
    const unsigned char *bytes = p;

    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

static void check(const struct ws_rx_event *ev)
{
    struct ws_utf8 utf8 = { 0 };

    assert(ev->data.n <= MAX);
    if (ev->kind == WS_RX_PING || ev->kind == WS_RX_PONG)
        assert(ev->data.n <= WS_CONTROL_MAX);
    if (ev->kind == WS_RX_CLOSE)
        assert(ws_code_valid(ev->code) || ev->code == WS_CODE_NONE);
    if (ev->kind == WS_RX_FAIL)
        assert(ev->code == WS_CODE_PROTOCOL || ev->code == WS_CODE_BAD_DATA ||
               ev->code == WS_CODE_TOO_BIG);
    else if (ev->kind == WS_RX_CLOSE || ev->opcode == WS_OP_TEXT)
        assert(ws_utf8_feed(&utf8, ev->data.p, ev->data.n) && ws_utf8_complete(&utf8));
}

/* A hash of all events. */
static uint64_t receive(const char *p, size_t n, bool masked, size_t step)
{
    uint64_t hash = 14695981039346656037u;
    struct ws_rx_event ev;
    struct ws_rx rx;

    ws_rx_init(&rx, masked, MAX);
    for (size_t i = 0; i < n; i += step) {
        ws_rx_give(&rx, p + i, n - i < step ? n - i : step);
        do {
            ws_rx_next(&rx, &ev);
            if (ev.kind == WS_RX_MORE)
                continue;
            check(&ev);
            hash = mix(hash, &ev.kind, sizeof(ev.kind));
            hash = mix(hash, &ev.code, sizeof(ev.code));
            hash = mix(hash, ev.data.p, ev.data.n);
        } while (ev.kind != WS_RX_MORE);
    }
    ws_rx_done(&rx);
    return hash;
}

FUZZ(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data + 1;
    uint64_t hash;
    struct err e;

    if (size < 2)
        return 0;
    hash = receive(p, size - 1, data[0] & 1, size);
    assert(hash == receive(p, size - 1, data[0] & 1, 1u + (data[0] >> 1)));
    (void)!ws_check_answer((struct str){ p, size - 1 }, "dGhlIHNhbXBsZSBub25jZQ==", "chat", &e);
    (void)!ws_key_valid((struct str){ p, size - 1 }); /* any outcome of either is fine */
    return 0;
}
